//! Answers that the proxy makes itself: one table from cause to status, reason phrase, `Proxy-Status` and body.

use std::borrow::Cow;
use std::io::Write;

/// The answer to a CONNECT once the upstream stands. No `Content-Length`, no `Transfer-Encoding` (RFC 9110 9.3.6).
pub const ESTABLISHED: &[u8] = concat!(
    "HTTP/1.1 200 Connection established\r\nProxy-Agent: adit/",
    env!("CARGO_PKG_VERSION"),
    "\r\n\r\n"
)
.as_bytes();

/// After how many seconds a client that met a limit may come again.
pub const RETRY_AFTER_S: u32 = 5;

/// What [`trace_answer`] echoes at most: an answer is storage that a client makes us keep.
pub const TRACE_MAX_BYTES: usize = 1024;

/// What the `Connection` field of an answer says. It must be what really happens next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionHeader {
    /// The connection ends after this answer.
    Close,
    /// Another request may follow.
    KeepAlive,
}

/// Whether an answer has its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// Sent.
    Sent,
    /// Only its length is told: the answer to HEAD (RFC 9110 9.3.2).
    Omitted,
}

/// Why the proxy itself answers instead of a destination: one variant a cause.
///
/// What a variant carries is either ours or the operator's (a rule, nameserver addresses), never bytes of the peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A request line, header field or framing that is not HTTP, or is ambiguous. One sentence says what.
    BadRequest(&'static str),
    /// The request is fine but its target is not one; the sentence is [`super::target::BadTarget::details`].
    BadTarget(&'static str),
    /// Credentials are missing or wrong.
    NotAuthenticated(Credentials),
    /// As many credentials as can be wait to be verified, or these have waited too long.
    LoginsBusy,
    /// As many of one client as can be wait to be verified.
    ClientLoginsBusy,
    /// The client's address is not in `--client`.
    ClientNotAllowed,
    /// The port is not in the option that lists the ports for this method.
    PortNotAllowed {
        /// The port of the target.
        port: u16,
        /// `--connect-port` or `--http-port`.
        option: &'static str,
    },
    /// A rule that denies names the host.
    DeniedByRule {
        /// The rule with its option: `--deny .example.com`, `--deny-file ads.txt (.example.com)`.
        rule: Box<str>,
    },
    /// No rule matched and `--default` is `deny`.
    DeniedByDefault,
    /// A rule that denies holds the address.
    AddressDenied {
        /// The rule with its option.
        rule: Box<str>,
    },
    /// The guard keeps the address.
    Guarded {
        /// What kind of address it is: `loopback`, `private`, ...
        range: &'static str,
    },
    /// The head was not complete in time.
    HeadTimeout,
    /// The request line alone is over the limit.
    RequestLineTooLong,
    /// Request line and header fields together are over the limit.
    HeadTooLarge,
    /// More header fields than the limit.
    TooManyHeaders,
    /// A transfer coding before `chunked` that this proxy does not know.
    UnknownTransferCoding,
    /// Neither HTTP/1.0 nor HTTP/1.1.
    UnsupportedVersion,
    /// The name does not exist, or has no address.
    NameNotFound {
        /// Response code of the answer: 3 (NXDOMAIN), or 0 (NOERROR) when the name exists without an address.
        rcode: u8,
    },
    /// The nameservers cannot or will not answer.
    ResolverFailed {
        /// Response code of the last answer; none when no answer made sense.
        rcode: Option<u8>,
    },
    /// No nameserver answered in time.
    DnsTimeout {
        /// The servers that were asked, as text.
        servers: Box<str>,
    },
    /// As many names as can be are being resolved already.
    ResolverBusy,
    /// No nameserver is known at all.
    NoNameserver,
    /// The destination refused the connection.
    ConnectionRefused,
    /// The destination accepted and reset the connection before it stood.
    ConnectionReset,
    /// No route to the destination, or the system does not let us use it.
    Unroutable,
    /// No address is of a family that `--family` lets be dialed.
    FamilyExcluded,
    /// The destination did not answer in time.
    DialTimeout,
    /// The connection failed in a way that has no row of its own.
    DialFailed,
    /// The destination is one of our own listeners.
    Loop,
    /// The request has our own name in its `Via`.
    ViaLoop,
    /// The destination's connection ended before or inside the head of its response.
    ResponseIncomplete,
    /// The destination's response is not HTTP, or is ambiguous. One sentence says what.
    BadResponse(&'static str),
    /// The head of the destination's response is over the limit.
    ResponseHeadTooLarge,
    /// The destination did not begin its response in time.
    ResponseTimeout,
    /// The request's body stopped coming.
    BodyTimeout,
    /// `--max-sessions` is reached.
    SessionLimit,
    /// One client has reached its share of the sessions.
    ClientSessionLimit,
    /// `--buffer-memory` is used up.
    BufferMemory,
    /// The process has no descriptor left.
    Descriptors,
    /// The proxy drains.
    ShuttingDown,
}

/// Why credentials do not suffice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// None were sent, as browsers do at first.
    Missing,
    /// Not exactly those of a user, or sent twice.
    Wrong,
}

/// One row of the table.
struct Row {
    status: u16,
    reason: &'static str,
    error_type: &'static str,
    /// The response code that `dns_error` carries (RFC 9209 2.3.2).
    rcode: Option<u8>,
}

const fn row(status: u16, reason: &'static str, error_type: &'static str) -> Row {
    Row { status, reason, error_type, rcode: None }
}

impl Refusal {
    /// The status code.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.row().status
    }

    /// The reason phrase: often the only thing that a user of CONNECT gets to see.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        self.row().reason
    }

    /// The error type of RFC 9209 2.3, which is also the word behind `end=` in the access line.
    #[must_use]
    pub fn error_type(&self) -> &'static str {
        self.row().error_type
    }

    /// The one table from cause to status, phrase and type.
    fn row(&self) -> Row {
        match self {
            Refusal::BadRequest(_) => row(400, "Request not understood", "http_request_error"),
            Refusal::BadTarget(_) => row(400, "Bad target", "http_request_error"),
            Refusal::NotAuthenticated(_) => row(407, "Proxy credentials required", "http_request_denied"),
            Refusal::LoginsBusy => row(503, "Too many logins being verified", "connection_limit_reached"),
            Refusal::ClientLoginsBusy => row(429, "Too many client logins", "connection_limit_reached"),
            Refusal::ClientNotAllowed => row(403, "Client not allowed by proxy", "http_request_denied"),
            Refusal::PortNotAllowed { .. } => row(403, "Port not allowed by proxy", "http_request_denied"),
            Refusal::DeniedByRule { .. } | Refusal::DeniedByDefault => {
                row(403, "Destination denied by proxy", "http_request_denied")
            }
            Refusal::AddressDenied { .. } | Refusal::Guarded { .. } => {
                row(403, "Destination address denied by proxy", "destination_ip_prohibited")
            }
            Refusal::HeadTimeout => row(408, "Request not complete in time", "http_request_error"),
            Refusal::RequestLineTooLong => row(414, "Request line too long", "http_request_error"),
            Refusal::HeadTooLarge => row(431, "Request head too large", "http_request_error"),
            Refusal::TooManyHeaders => row(431, "Too many header fields", "http_request_error"),
            Refusal::UnknownTransferCoding => row(501, "Unknown transfer coding", "http_request_error"),
            Refusal::UnsupportedVersion => row(505, "HTTP version not supported", "http_request_error"),
            Refusal::NameNotFound { rcode } => {
                Row { rcode: Some(*rcode), ..row(502, "Destination name not found", "dns_error") }
            }
            Refusal::ResolverFailed { rcode } => {
                Row { rcode: *rcode, ..row(502, "Name lookup failed", "dns_error") }
            }
            Refusal::ResolverBusy => row(503, "Too many names being resolved", "connection_limit_reached"),
            Refusal::NoNameserver => row(502, "No nameserver configured", "dns_error"),
            Refusal::DnsTimeout { .. } => row(504, "Name lookup timed out", "dns_timeout"),
            Refusal::ConnectionRefused => row(502, "Destination refused connection", "connection_refused"),
            Refusal::ConnectionReset => row(502, "Destination reset connection", "connection_terminated"),
            Refusal::Unroutable => row(502, "Destination unreachable", "destination_ip_unroutable"),
            Refusal::FamilyExcluded => {
                row(502, "No address of an allowed family", "destination_ip_unroutable")
            }
            Refusal::DialTimeout => row(504, "Connection to destination timed out", "connection_timeout"),
            Refusal::DialFailed => row(502, "Connection to destination failed", "destination_unavailable"),
            Refusal::Loop => row(502, "Proxy loop", "proxy_loop_detected"),
            Refusal::ViaLoop => row(502, "Proxy loop", "proxy_loop_detected"),
            Refusal::ResponseIncomplete => {
                row(502, "Destination closed without a response", "http_response_incomplete")
            }
            Refusal::BadResponse(_) => row(502, "Bad response from destination", "http_protocol_error"),
            Refusal::ResponseHeadTooLarge => {
                row(502, "Response head too large", "http_response_header_section_size")
            }
            Refusal::ResponseTimeout => {
                row(504, "No response from destination in time", "http_response_timeout")
            }
            Refusal::BodyTimeout => row(408, "Request body not complete in time", "http_request_error"),
            Refusal::SessionLimit => row(503, "Proxy session limit reached", "connection_limit_reached"),
            Refusal::ClientSessionLimit => {
                row(429, "Too many sessions for one client", "connection_limit_reached")
            }
            Refusal::BufferMemory => row(503, "Proxy memory limit reached", "connection_limit_reached"),
            Refusal::Descriptors => row(503, "Proxy descriptor limit reached", "connection_limit_reached"),
            Refusal::ShuttingDown => row(503, "Proxy shutting down", "proxy_internal_response"),
        }
    }

    /// One sentence that names the option that decides. One table, and longer than other functions: parts of it would each have
    /// to name what the others are for.
    #[must_use]
    pub fn details(&self) -> Cow<'static, str> {
        match self {
            Refusal::BadRequest(details) | Refusal::BadTarget(details) | Refusal::BadResponse(details) => {
                Cow::Borrowed(details)
            }
            Refusal::NotAuthenticated(Credentials::Missing) => {
                "no credentials were sent; --users asks for them".into()
            }
            Refusal::NotAuthenticated(Credentials::Wrong) => {
                "the credentials are wrong: they are not in --users".into()
            }
            Refusal::LoginsBusy => {
                "too many logins wait to be verified (256), or this one was not within 10 seconds".into()
            }
            Refusal::ClientLoginsBusy => "too many logins of this client wait to be verified".into(),
            Refusal::ClientNotAllowed => "the client's address is not in --client".into(),
            Refusal::PortNotAllowed { port, option } => format!("port {port} is not in {option}").into(),
            Refusal::DeniedByRule { rule } => format!("{rule} names this destination").into(),
            Refusal::DeniedByDefault => "no --allow names this destination and --default is deny".into(),
            Refusal::AddressDenied { rule } => format!("{rule} holds the destination's address").into(),
            Refusal::Guarded { range } => {
                format!("the destination's address is special-purpose ({range}); only an --allow opens it")
                    .into()
            }
            Refusal::HeadTimeout => "the request head was not complete within --head-timeout".into(),
            Refusal::RequestLineTooLong => "the request line is over 16 KiB".into(),
            Refusal::HeadTooLarge => "request line and header fields are over 16 KiB together".into(),
            Refusal::TooManyHeaders => "the request has more than 100 header fields".into(),
            Refusal::UnknownTransferCoding => {
                "chunked is the only transfer coding that this proxy knows".into()
            }
            Refusal::UnsupportedVersion => "this proxy speaks HTTP/1.1 and HTTP/1.0".into(),
            Refusal::NameNotFound { rcode: 0 } => "the destination's name has no address".into(),
            Refusal::NameNotFound { .. } => "the destination's name does not exist".into(),
            Refusal::ResolverFailed { .. } => {
                "the nameservers could not answer for the destination's name".into()
            }
            Refusal::ResolverBusy => {
                "too many names are being resolved already: 1024 for each event loop, 8 of them by TCP".into()
            }
            Refusal::NoNameserver => {
                "no nameserver is known: /etc/resolv.conf names none, nor does --nameserver".into()
            }
            Refusal::DnsTimeout { servers } if servers.is_empty() => {
                "the destination's name was not resolved within --resolve-timeout".into()
            }
            Refusal::DnsTimeout { servers } => {
                format!("no answer in time (--resolve-timeout) from nameserver {servers}").into()
            }
            Refusal::ConnectionRefused => "the destination does not listen on this port".into(),
            Refusal::ConnectionReset => "the destination reset the connection before it stood".into(),
            Refusal::Unroutable => "there is no route to the destination's address".into(),
            Refusal::FamilyExcluded => {
                "the destination has no address of the family that --family asks for".into()
            }
            Refusal::DialTimeout => "the destination did not answer within --dial-timeout".into(),
            Refusal::DialFailed => "the connection to the destination could not be made".into(),
            Refusal::Loop => "the destination is this proxy itself".into(),
            Refusal::ViaLoop => "the request has been through this proxy already: its name is in Via".into(),
            Refusal::ResponseIncomplete => {
                "the destination's connection ended before its response had begun or its head was complete"
                    .into()
            }
            Refusal::ResponseHeadTooLarge => {
                "status line and header fields of the destination's response are over 16 KiB together".into()
            }
            Refusal::ResponseTimeout => {
                "the destination did not begin a response within --response-timeout".into()
            }
            Refusal::BodyTimeout => "the request's body stopped coming for --response-timeout".into(),
            Refusal::SessionLimit => "--max-sessions is reached".into(),
            Refusal::ClientSessionLimit => "--max-sessions-per-client is reached".into(),
            Refusal::BufferMemory => "--buffer-memory is used up".into(),
            Refusal::Descriptors => "the process has no file descriptor left (ulimit -n)".into(),
            Refusal::ShuttingDown => "the proxy is shutting down".into(),
        }
    }

    /// Appends the whole answer to `out`.
    ///
    /// `via` is the name of `--via`; `target` is the canonical `host:port` and never what the peer sent, and is left
    /// out while there is none.
    pub fn render(
        &self,
        via: &str,
        target: Option<&str>,
        connection: ConnectionHeader,
        body_is: Body,
        out: &mut Vec<u8>,
    ) {
        let Row { status, reason, error_type, rcode } = self.row();
        let details = self.details();
        let body = match target {
            Some(target) => format!("{status} {reason}\n{target}: {details}\n"),
            None => format!("{status} {reason}\n{details}\n"),
        };
        // Writing to a Vec cannot fail.
        let _ = write!(out, "HTTP/1.1 {status} {reason}\r\nProxy-Status: ");
        push_item(via, out);
        let _ = write!(out, "; error={error_type}");
        if let Some(rcode) = rcode {
            out.extend_from_slice(b"; rcode=");
            push_string(rcode_name(rcode), out);
        }
        out.extend_from_slice(b"; details=");
        push_string(&details, out);
        out.extend_from_slice(b"\r\n");
        match status {
            407 => out.extend_from_slice(b"Proxy-Authenticate: Basic realm=\"adit\"\r\n"),
            429 | 503 if error_type == "connection_limit_reached" => {
                let _ = write!(out, "Retry-After: {RETRY_AFTER_S}\r\n");
            }
            // A number, not an enum of ours: no other status brings a field with it.
            _ => {}
        }
        out.extend_from_slice(b"Content-Type: text/plain; charset=utf-8\r\n");
        push_framing(body.len(), connection, out);
        match body_is {
            Body::Sent => out.extend_from_slice(body.as_bytes()),
            Body::Omitted => {}
        }
    }
}

/// Appends the answer to a request about the proxy itself: `OPTIONS *`, or an OPTIONS that may not be forwarded
/// (RFC 9110 7.6.2, 9.3.7).
pub fn options_answer(connection: ConnectionHeader, out: &mut Vec<u8>) {
    out.extend_from_slice(
        b"HTTP/1.1 200 OK\r\nAllow: OPTIONS, GET, HEAD, POST, PUT, DELETE, PATCH, TRACE, CONNECT\r\n",
    );
    push_framing(0, connection, out);
}

/// Appends the answer to a TRACE that may not be forwarded (RFC 9110 9.3.8): `head`, the request's head as it was
/// received, without the fields that may hold credentials, and without what is over [`TRACE_MAX_BYTES`].
pub fn trace_answer(head: &[u8], connection: ConnectionHeader, out: &mut Vec<u8>) {
    let mut echo: Vec<u8> = Vec::new();
    for line in head.split(|&byte| byte == b'\n') {
        let fits = echo.len() + line.len() + b"\n\r\n".len() <= TRACE_MAX_BYTES;
        let is_end_or_before_start = line == b"\r" || line.is_empty();
        if is_end_or_before_start || may_hold_credentials(line) {
            continue;
        }
        if !fits {
            // What comes first is the request line. Fields alone would be no message.
            if echo.is_empty() {
                break;
            }
            continue;
        }
        echo.extend_from_slice(line);
        echo.push(b'\n');
    }
    echo.extend_from_slice(b"\r\n");
    out.extend_from_slice(b"HTTP/1.1 200 OK\r\nContent-Type: message/http\r\n");
    push_framing(echo.len(), connection, out);
    out.extend_from_slice(&echo);
}

/// Whether the name of this field says so. The request line has no name; what is in it, the client wrote itself.
fn may_hold_credentials(line: &[u8]) -> bool {
    const WORDS: [&[u8]; 10] = [
        b"auth",
        b"cookie",
        b"token",
        b"key",
        b"secret",
        b"session",
        b"passw",
        b"credential",
        b"signature",
        b"cert",
    ];
    let name = line.split(|&byte| byte == b':').next().unwrap_or_default();
    let is_name = name.iter().all(|&byte| is_token_byte(byte));
    is_name && WORDS.iter().any(|word| name.windows(word.len()).any(|part| part.eq_ignore_ascii_case(word)))
}

/// The last two fields and the end of the head.
fn push_framing(content_length: usize, connection: ConnectionHeader, out: &mut Vec<u8>) {
    let connection = match connection {
        ConnectionHeader::Close => "close",
        ConnectionHeader::KeepAlive => "keep-alive",
    };
    // Writing to a Vec cannot fail.
    let _ = write!(out, "Content-Length: {content_length}\r\nConnection: {connection}\r\n\r\n");
}

/// The name of a DNS response code as its registry spells it.
#[must_use]
pub fn rcode_name(rcode: u8) -> &'static str {
    match rcode {
        0 => "NOERROR",
        1 => "FORMERR",
        2 => "SERVFAIL",
        3 => "NXDOMAIN",
        4 => "NOTIMP",
        5 => "REFUSED",
        6 => "YXDOMAIN",
        7 => "YXRRSET",
        8 => "NXRRSET",
        9 => "NOTAUTH",
        10 => "NOTZONE",
        11 => "DSOTYPENI",
        _ => "UNASSIGNED",
    }
}

/// An sf-token where the name is one (RFC 8941 3.3.4), else an sf-string.
fn push_item(name: &str, out: &mut Vec<u8>) {
    let token_start = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'*');
    if token_start && name.bytes().all(|byte| is_token_byte(byte) || matches!(byte, b':' | b'/')) {
        out.extend_from_slice(name.as_bytes());
    } else {
        push_string(name, out);
    }
}

/// An sf-string (RFC 8941 3.3.3): printable ASCII; what is not, becomes `?`.
fn push_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend_from_slice(&[b'\\', character as u8]),
            ' '..='~' => out.push(character as u8),
            // A character, not an enum of ours.
            _ => out.push(b'?'),
        }
    }
    out.push(b'"');
}

/// `tchar` of RFC 9110 5.6.2.
#[must_use]
pub fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    /// Every row of the contract's table.
    fn rows() -> Vec<(Refusal, u16, &'static str, &'static str)> {
        let rule = || Box::from("--deny .example.com");
        vec![
            (Refusal::BadRequest("a bare CR"), 400, "http_request_error", "a bare CR"),
            (Refusal::BadTarget("no port"), 400, "http_request_error", "no port"),
            (Refusal::NotAuthenticated(Credentials::Missing), 407, "http_request_denied", "no credentials"),
            (Refusal::NotAuthenticated(Credentials::Wrong), 407, "http_request_denied", "are wrong"),
            (Refusal::LoginsBusy, 503, "connection_limit_reached", "256"),
            (Refusal::ClientLoginsBusy, 429, "connection_limit_reached", "of this client"),
            (Refusal::ClientNotAllowed, 403, "http_request_denied", "--client"),
            (
                Refusal::PortNotAllowed { port: 22, option: "--connect-port" },
                403,
                "http_request_denied",
                "port 22 is not in --connect-port",
            ),
            (Refusal::DeniedByRule { rule: rule() }, 403, "http_request_denied", "--deny .example.com"),
            (Refusal::DeniedByDefault, 403, "http_request_denied", "--default"),
            (
                Refusal::AddressDenied { rule: rule() },
                403,
                "destination_ip_prohibited",
                "--deny .example.com",
            ),
            (Refusal::Guarded { range: "loopback" }, 403, "destination_ip_prohibited", "loopback"),
            (Refusal::HeadTimeout, 408, "http_request_error", "--head-timeout"),
            (Refusal::RequestLineTooLong, 414, "http_request_error", "16 KiB"),
            (Refusal::HeadTooLarge, 431, "http_request_error", "16 KiB"),
            (Refusal::TooManyHeaders, 431, "http_request_error", "100"),
            (Refusal::UnknownTransferCoding, 501, "http_request_error", "chunked"),
            (Refusal::UnsupportedVersion, 505, "http_request_error", "HTTP/1.1"),
            (Refusal::NameNotFound { rcode: 3 }, 502, "dns_error", "does not exist"),
            (Refusal::NameNotFound { rcode: 0 }, 502, "dns_error", "no address"),
            (Refusal::ResolverFailed { rcode: Some(2) }, 502, "dns_error", "nameservers"),
            (Refusal::NoNameserver, 502, "dns_error", "--nameserver"),
            (Refusal::DnsTimeout { servers: "192.0.2.1".into() }, 504, "dns_timeout", "192.0.2.1"),
            (Refusal::DnsTimeout { servers: "".into() }, 504, "dns_timeout", "--resolve-timeout"),
            (Refusal::ConnectionRefused, 502, "connection_refused", "listen"),
            (Refusal::ConnectionReset, 502, "connection_terminated", "reset"),
            (Refusal::Unroutable, 502, "destination_ip_unroutable", "route"),
            (Refusal::ResolverBusy, 503, "connection_limit_reached", "1024"),
            (Refusal::FamilyExcluded, 502, "destination_ip_unroutable", "--family"),
            (Refusal::DialTimeout, 504, "connection_timeout", "--dial-timeout"),
            (Refusal::DialFailed, 502, "destination_unavailable", "could not"),
            (Refusal::Loop, 502, "proxy_loop_detected", "itself"),
            (Refusal::ViaLoop, 502, "proxy_loop_detected", "Via"),
            (Refusal::ResponseIncomplete, 502, "http_response_incomplete", "ended before"),
            (Refusal::BadResponse("two lengths"), 502, "http_protocol_error", "two lengths"),
            (Refusal::ResponseHeadTooLarge, 502, "http_response_header_section_size", "16 KiB"),
            (Refusal::ResponseTimeout, 504, "http_response_timeout", "--response-timeout"),
            (Refusal::BodyTimeout, 408, "http_request_error", "--response-timeout"),
            (Refusal::SessionLimit, 503, "connection_limit_reached", "--max-sessions"),
            (Refusal::ClientSessionLimit, 429, "connection_limit_reached", "--max-sessions-per-client"),
            (Refusal::BufferMemory, 503, "connection_limit_reached", "--buffer-memory"),
            (Refusal::Descriptors, 503, "connection_limit_reached", "ulimit"),
            (Refusal::ShuttingDown, 503, "proxy_internal_response", "shutting down"),
        ]
    }

    fn text(refusal: &Refusal, via: &str, target: Option<&str>, connection: ConnectionHeader) -> String {
        let mut out = Vec::new();
        refusal.render(via, target, connection, Body::Sent, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_row_says_what_the_contract_says() {
        for (refusal, status, error_type, word) in rows() {
            assert_eq!(refusal.status(), status, "{refusal:?}");
            assert_eq!(refusal.error_type(), error_type, "{refusal:?}");
            assert!(refusal.details().contains(word), "{refusal:?}: {}", refusal.details());
        }
    }

    #[test]
    fn every_answer_is_well_formed() {
        for (refusal, status, error_type, _) in rows() {
            let answer = text(&refusal, "adit", Some("example.org:22"), ConnectionHeader::Close);
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            let mut storage = [httparse::EMPTY_HEADER; 16];
            let mut response = httparse::Response::new(&mut storage);
            assert!(response.parse(answer.as_bytes()).unwrap().is_complete(), "{answer}");
            assert_eq!(response.code, Some(status));
            assert_eq!(response.reason, Some(refusal.reason()));
            let field = |name: &str| {
                let value = response.headers.iter().find(|header| header.name == name)?;
                Some(String::from_utf8(value.value.to_vec()).unwrap())
            };
            let proxy_status = field("Proxy-Status").unwrap();
            assert!(proxy_status.starts_with(&format!("adit; error={error_type}; ")), "{proxy_status}");
            assert!(proxy_status.contains("details=\""), "{proxy_status}");
            assert_eq!(field("Content-Length").unwrap(), body.len().to_string());
            assert_eq!(field("Content-Type").unwrap(), "text/plain; charset=utf-8");
            assert_eq!(field("Connection").unwrap(), "close");
            assert!(body.contains(&*refusal.details()) && body.contains("example.org:22"), "{body}");
            assert!(body.starts_with(&format!("{status} {}", refusal.reason())), "{body}");
            assert_eq!(field("Retry-After").is_some(), error_type == "connection_limit_reached", "{answer}");
            assert_eq!(field("Proxy-Authenticate").is_some(), status == 407, "{answer}");
            assert!(answer.is_ascii() && !head.replace("\r\n", "").contains(['\r', '\n']));
        }
    }

    #[test]
    fn whole_answers() {
        let refusal = Refusal::NameNotFound { rcode: 3 };
        assert_eq!(
            text(&refusal, "adit", Some("no.test:443"), ConnectionHeader::Close),
            "HTTP/1.1 502 Destination name not found\r\n\
             Proxy-Status: adit; error=dns_error; rcode=\"NXDOMAIN\"; details=\"the destination's name does not exist\"\r\n\
             Content-Type: text/plain; charset=utf-8\r\nContent-Length: 82\r\nConnection: close\r\n\r\n\
             502 Destination name not found\nno.test:443: the destination's name does not exist\n"
        );
        assert_eq!(
            text(&Refusal::SessionLimit, "my \"box\"", None, ConnectionHeader::KeepAlive),
            "HTTP/1.1 503 Proxy session limit reached\r\n\
             Proxy-Status: \"my \\\"box\\\"\"; error=connection_limit_reached; details=\"--max-sessions is reached\"\r\n\
             Retry-After: 5\r\n\
             Content-Type: text/plain; charset=utf-8\r\nContent-Length: 58\r\nConnection: keep-alive\r\n\r\n\
             503 Proxy session limit reached\n--max-sessions is reached\n"
        );
    }

    fn traced(head: &[u8]) -> String {
        let mut out = Vec::new();
        trace_answer(head, ConnectionHeader::KeepAlive, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn options_are_answered_with_what_can_be_asked() {
        let mut out = Vec::new();
        options_answer(ConnectionHeader::KeepAlive, &mut out);
        assert_eq!(
            std::str::from_utf8(&out).unwrap(),
            "HTTP/1.1 200 OK\r\nAllow: OPTIONS, GET, HEAD, POST, PUT, DELETE, PATCH, TRACE, CONNECT\r\n\
             Content-Length: 0\r\nConnection: keep-alive\r\n\r\n"
        );
        out.clear();
        options_answer(ConnectionHeader::Close, &mut out);
        assert!(out.ends_with(b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"));
    }

    #[test]
    fn traces_are_answered_with_what_came_but_for_credentials() {
        assert_eq!(
            traced(
                b"\r\nTRACE http://a.test/x?y=z:cookie HTTP/1.1\r\nHost: a.test\r\nVia: 1.1 one\r\nX-Odd:  a b \r\nMax-Forwards: 0\r\n\r\n"
            ),
            "HTTP/1.1 200 OK\r\nContent-Type: message/http\r\nContent-Length: 104\r\nConnection: keep-alive\r\n\r\n\
             TRACE http://a.test/x?y=z:cookie HTTP/1.1\r\nHost: a.test\r\nVia: 1.1 one\r\nX-Odd:  a b \r\nMax-Forwards: 0\r\n\r\n"
        );
        for name in [
            "Authorization",
            "Proxy-Authorization",
            "COOKIE",
            "Cookie2",
            "X-Api-Key",
            "X-Auth-Token",
            "x-csrf-token",
            "X-Amz-Security-Token",
            "X-Password",
            "Signature",
            "X-Forwarded-Client-Cert",
            "Session-Id",
        ] {
            let head = format!("TRACE http://a.test/ HTTP/1.1\r\n{name}: x\r\nHost: a.test\r\n\r\n");
            let answer = traced(head.as_bytes());
            let (_, echo) = answer.split_once("\r\n\r\n").unwrap();
            assert_eq!(echo, "TRACE http://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n", "{name}");
            assert!(answer.contains(&format!("Content-Length: {}\r\n", echo.len())), "{answer}");
        }
    }

    #[test]
    fn traces_of_any_length_have_an_answer_that_is_small_and_well_formed() {
        for length in (0..1200).chain([16_000]) {
            let long = "x".repeat(length);
            for head in [
                format!("TRACE http://a.test/{long} HTTP/1.1\r\nHost: a.test\r\n\r\n"),
                format!("TRACE http://a.test/ HTTP/1.1\r\nX-Long: {long}\r\nHost: a.test\r\n\r\n"),
            ] {
                let answer = traced(head.as_bytes());
                let (_, echo) = answer.split_once("\r\n\r\n").unwrap();
                assert!(answer.contains(&format!("Content-Length: {}\r\n", echo.len())), "{answer}");
                assert!(echo.len() <= TRACE_MAX_BYTES && echo.ends_with("\r\n"), "{}", echo.len());
                assert_eq!(echo == head, head.len() <= TRACE_MAX_BYTES, "{length}");
                assert!(echo == "\r\n" || echo.starts_with("TRACE http://a.test/"), "{echo}");
            }
        }
    }

    #[test]
    fn names_and_strings_are_structured_fields() {
        let item = |name: &str| {
            let mut out = Vec::new();
            push_item(name, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(item("adit"), "adit");
        assert_eq!(item("proxy-1.example"), "proxy-1.example");
        assert_eq!(item("1st"), "\"1st\"");
        assert_eq!(item(""), "\"\"");
        assert_eq!(item("a\"\\\r\n\u{e9}b"), "\"a\\\"\\\\???b\"");
    }

    #[test]
    fn established_is_one_complete_head_without_framing() {
        let head = std::str::from_utf8(ESTABLISHED).unwrap();
        assert_eq!(
            head,
            format!(
                "HTTP/1.1 200 Connection established\r\nProxy-Agent: adit/{}\r\n\r\n",
                env!("CARGO_PKG_VERSION")
            )
        );
    }

    #[test]
    fn a_refusal_is_small() {
        assert!(size_of::<Refusal>() <= 24, "{}", size_of::<Refusal>());
    }
}
