//! The access line in its three formats. Written byte by byte, as it is done for each exchange. Nothing that a peer sends, or
//! that a name or a rule holds, can end a line, begin another, or become two words.

use std::net::{IpAddr, SocketAddr};

use super::rules::WRONG_LOGIN_RULE;
use super::session::{Asked, EndReason, Record};
use super::target::{Target, push_address, push_decimal, push_host_address, push_port};
use super::unix_time::UnixTime;

/// How access lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Our own: words with single spaces, then `key=value`.
    Adit,
    /// Squid's native format, `%ts.%03tu %6tr %>a %Ss/%03>Hs %<st %rm %ru %[un %Sh/%<a %mt`.
    Squid,
    /// An object with always the same keys; `null` for what did not happen.
    Json,
}

impl LogFormat {
    /// Appends the line of one exchange, without an end of line.
    pub fn push_line(self, record: &Record<'_>, ended: UnixTime, out: &mut Vec<u8>) {
        match self {
            LogFormat::Adit => push_adit(record, ended, out),
            LogFormat::Squid => push_squid(record, ended, out),
            LogFormat::Json => push_json(record, ended, out),
        }
    }
}

/// One fact of a line; none for what did not happen.
enum Value<'a> {
    Number(Option<u64>),
    Text(Option<&'a str>),
    /// Likewise; whoever it is cannot be taken for nobody.
    User(Option<&'a str>),
    Socket(Option<&'a SocketAddr>),
    Target(&'a Target),
}

impl Value<'_> {
    fn push_word(&self, out: &mut Vec<u8>) {
        match self {
            Value::Number(None) | Value::Text(None) | Value::User(None) | Value::Socket(None) => {
                put(b"-", out)
            }
            Value::Number(Some(number)) => push_decimal(*number, out),
            Value::Text(Some(text)) => push_escaped(text, b' ', out),
            Value::User(Some("-")) => put(b"%2D", out),
            Value::User(Some("")) => put(b"%", out),
            Value::User(Some(name)) => push_escaped(name, b'%', out),
            Value::Socket(Some(socket)) => {
                push_host_address(ip(socket), out);
                push_port(socket.port(), out);
            }
            Value::Target(target) => target.push(out),
        }
    }

    fn push_json(&self, name: &str, out: &mut Vec<u8>) {
        match self {
            Value::Number(None) | Value::Text(None) | Value::User(None) => put(b"null", out),
            Value::Number(Some(number)) => push_decimal(*number, out),
            Value::Text(Some(text)) | Value::User(Some(text)) => {
                put(b"\"", out);
                push_json_text(text, out);
                put(b"\"", out);
            }
            // Two values: the second one's name is made of the first one's.
            Value::Socket(socket) => {
                match socket {
                    None => put(b"null", out),
                    Some(socket) => {
                        put(b"\"", out);
                        push_ip(socket, out);
                        put(b"\"", out);
                    }
                }
                put(b",\"", out);
                put(name.as_bytes(), out);
                put(b"_port\":", out);
                Value::Number(socket.map(|socket| u64::from(socket.port()))).push_json(name, out);
            }
            Value::Target(_) => {
                put(b"\"", out);
                self.push_word(out);
                put(b"\"", out);
            }
        }
    }
}

/// All that a line says, in the order and with the keys of the `adit` and `json` formats.
fn facts<'a>(record: &'a Record<'_>) -> [(&'static str, Value<'a>); 13] {
    let (method, target) = match &record.request {
        Asked::Nothing => (None, Value::Text(None)),
        Asked::Connect(target) => (Some("CONNECT"), Value::Target(target)),
        Asked::Http { method, url } => (Some(*method), Value::Text(Some(url))),
    };
    [
        ("client", Value::Socket(Some(&record.client))),
        ("user", Value::User(record.user)),
        ("method", Value::Text(method)),
        ("target", target),
        ("status", Value::Number(record.status.map(u64::from))),
        ("via", Value::Socket(record.via.as_ref())),
        ("rule", Value::Text(record.rule)),
        ("up", Value::Number(Some(record.up_bytes))),
        ("down", Value::Number(Some(record.down_bytes))),
        ("dns", Value::Number(record.dns_ms)),
        ("dial", Value::Number(record.dial_ms)),
        ("total", Value::Number(Some(record.total_ms))),
        ("end", Value::Text(Some(record.end))),
    ]
}

/// The first of these facts stand in the `adit` format without their keys.
const FACTS_WITHOUT_KEY: usize = 5;

fn push_adit(record: &Record<'_>, ended: UnixTime, out: &mut Vec<u8>) {
    put(&ended.rfc3339(), out);
    for (index, (name, value)) in facts(record).iter().enumerate() {
        put(b" ", out);
        if index >= FACTS_WITHOUT_KEY {
            put(name.as_bytes(), out);
            put(b"=", out);
        }
        value.push_word(out);
    }
}

fn push_json(record: &Record<'_>, ended: UnixTime, out: &mut Vec<u8>) {
    put(b"{\"time\":\"", out);
    put(&ended.rfc3339(), out);
    put(b"\"", out);
    for (name, value) in &facts(record) {
        put(b",\"", out);
        put(name.as_bytes(), out);
        put(b"\":", out);
        value.push_json(name, out);
    }
    put(b"}", out);
}

/// Squid's `%6tr` is padded with spaces, the others with zeros. Our content type is always `-`.
fn push_squid(record: &Record<'_>, ended: UnixTime, out: &mut Vec<u8>) {
    let [_, (_, user), (_, method), (_, target), ..] = facts(record);
    let target = match (&record.request, record.status) {
        (Asked::Connect(_) | Asked::Http { .. }, _) => target,
        // As Squid calls a connection that ended, or was refused, before there was a request, and one that was not understood.
        (Asked::Nothing, None | Some(403 | 429 | 503)) => {
            Value::Text(Some("error:transaction-end-before-headers"))
        }
        (Asked::Nothing, Some(414 | 431)) => Value::Text(Some("error:request-too-large")),
        (Asked::Nothing, Some(_)) => Value::Text(Some("error:invalid-request")),
    };
    // Squid names who tried to log in. We do not repeat what a stranger sent, but that somebody tried must show.
    let has_tried = record.user.is_none() && record.rule == Some(&*WRONG_LOGIN_RULE);
    let user = if has_tried { Value::Text(Some("?")) } else { user };
    push_decimal(ended.0 / 1000, out);
    put(b".", out);
    push_padded(ended.0 % 1000, 100, b'0', out);
    put(b" ", out);
    push_padded(record.total_ms, 100_000, b' ', out);
    put(b" ", out);
    push_ip(&record.client, out);
    put(b" ", out);
    push_squid_result(record, out);
    push_padded(record.status.map_or(0, u64::from), 100, b'0', out);
    for value in [Value::Number(Some(record.down_bytes)), method, target, user] {
        put(b" ", out);
        value.push_word(out);
    }
    match record.via {
        Some(via) => {
            put(b" HIER_DIRECT/", out);
            push_ip(&via, out);
        }
        None => put(b" HIER_NONE/-", out),
    }
    put(b" -", out);
}

/// What Squid 5 writes for the same requests; `scripts/clients-log.sh` compares.
fn push_squid_result(record: &Record<'_>, out: &mut Vec<u8>) {
    let refused = record.refusal.map(|refusal| refusal.status());
    let left = [EndReason::ClientLeft, EndReason::ClientReset, EndReason::ClientVanished];
    let has_left = left.map(EndReason::word).contains(&record.end);
    let (result, may_be_aborted) = match (&record.request, refused, record.status) {
        (_, Some(403 | 407 | 429), _) => ("TCP_DENIED", false),
        (Asked::Nothing, ..) => ("NONE_NONE", false),
        (Asked::Connect(_), None, Some(200)) | (Asked::Http { .. }, None, Some(101)) => ("TCP_TUNNEL", false),
        (Asked::Connect(_), ..) => ("NONE_NONE", true),
        // Bad requests, and requests about the proxy itself.
        (Asked::Http { .. }, Some(..=499 | 501 | 505), _) => ("NONE_NONE", true),
        (Asked::Http { .. }, None, Some(_)) if record.via.is_none() => ("NONE_NONE", true),
        (Asked::Http { .. }, ..) => ("TCP_MISS", true),
    };
    put(result.as_bytes(), out);
    put(if has_left && may_be_aborted { b"_ABORTED/" } else { b"/" }, out);
}

fn push_ip(socket: &SocketAddr, out: &mut Vec<u8>) {
    push_address(ip(socket), out);
}

/// The address: IPv4 as such, and without the zone, which means something on this machine only.
#[inline(never)]
fn ip(socket: &SocketAddr) -> IpAddr {
    socket.ip().to_canonical()
}

/// The inside of a JSON string (RFC 8259 7). What is not ASCII is UTF-8, as it must be there.
fn push_json_text(text: &str, out: &mut Vec<u8>) {
    for &byte in text.as_bytes() {
        match byte {
            b'"' | b'\\' => put(&[b'\\', byte], out),
            0..b' ' | 0x7f => {
                put(&[b'\\', b'u', b'0', b'0', hex_digit(byte >> 4), hex_digit(byte & 15)], out)
            }
            b' '..=b'~' | 0x80.. => out.push(byte),
        }
    }
}

/// A text as one word: white space, what is not printable ASCII, and the byte `also` become `%XX`.
fn push_escaped(text: &str, also: u8, out: &mut Vec<u8>) {
    let stays = |&byte: &u8| byte.is_ascii_graphic() && byte != also;
    let mut rest = text.as_bytes();
    while let Some(length) = rest.iter().position(|byte| !stays(byte)) {
        let (plain, behind) = rest.split_at(length);
        put(plain, out);
        if let [byte, behind @ ..] = behind {
            put(&[b'%', hex_digit(byte >> 4), hex_digit(byte & 15)], out);
            rest = behind;
        }
    }
    put(rest, out);
}

fn hex_digit(value: u8) -> u8 {
    if value < 10 { b'0' + value } else { b'A' - 10 + value }
}

/// A number with padding before it while it is less than `least`, a power of ten.
fn push_padded(number: u64, least: u64, padding: u8, out: &mut Vec<u8>) {
    let mut least = least;
    while least > 1 && number < least {
        out.push(padding);
        least /= 10;
    }
    push_decimal(number, out);
}

/// Not inlined: the line consists of so many pieces that it would be two KiB.
#[inline(never)]
fn put(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests;
