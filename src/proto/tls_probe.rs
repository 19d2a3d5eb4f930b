//! What a TLS server says before anything is encrypted: the bytes of a ClientHello, and what the bytes that come back are.
//! No cryptography: the handshake never gets further (RFC 5246 7.4, RFC 8446 4.1).

use std::fmt::{self, Display};

/// Random bytes that a [`client_hello`] is made of.
pub const RANDOM_BYTES: usize = 96;
/// More than this is not read of a server's first flight: certificate chains are far smaller.
pub const MAX_FLIGHT_BYTES: usize = 64 * 1024;
/// So much is shown of what is not TLS.
const SHOWN_BYTES: usize = 60;
/// The longest record (RFC 5246 6.2.3): 2^14 bytes and what protection may add.
const MAX_RECORD_BYTES: usize = (1 << 14) + 2048;

const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const SERVER_HELLO: u8 = 2;
const CERTIFICATE: u8 = 11;
const SERVER_HELLO_DONE: u8 = 14;
const SUPPORTED_VERSIONS: u16 = 43;

/// ECDHE first, as browsers have it; RSA for what is old. TLS 1.2 and older.
const SUITES_TO_12: &[u8] =
    b"\xc0\x2b\xc0\x2f\xc0\x2c\xc0\x30\xcc\xa9\xcc\xa8\xc0\x13\xc0\x14\xc0\x09\xc0\x0a\
    \x00\x9c\x00\x9d\x00\x2f\x00\x35";
const SUITES_13: &[u8] = b"\x13\x01\x13\x02\x13\x03";
/// extended_master_secret, an empty renegotiation_info, uncompressed points, X25519 with P-256 and P-384, ECDSA and RSA
/// signatures, and `http/1.1` by ALPN. Type and length in front of each.
const EXTENSIONS: &[u8] = b"\0\x17\0\0\xff\x01\0\x01\0\0\x0b\0\x02\x01\0\0\x0a\0\x08\0\x06\0\x1d\0\x17\0\x18\
    \0\x0d\0\x14\0\x12\x04\x03\x08\x04\x04\x01\x05\x03\x08\x05\x05\x01\x08\x06\x06\x01\x02\x01\
    \0\x10\0\x0b\0\x09\x08http/1.1";
/// supported_versions (1.3 and 1.2), psk_key_exchange_modes, and the head of a key_share for X25519.
const EXTENSIONS_13: &[u8] =
    b"\0\x2b\0\x05\x04\x03\x04\x03\x03\0\x2d\0\x02\x01\x01\0\x33\0\x26\0\x24\0\x1d\0\x20";

/// Which versions a hello offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// Nothing newer than TLS 1.2: then the certificate comes in clear.
    UpTo12,
    /// TLS 1.3 as well.
    UpTo13,
}

/// One record with a ClientHello in it. `server_name` is for SNI: a name, never an address (RFC 6066 3).
#[must_use]
pub fn client_hello(offer: Offer, server_name: Option<&str>, random: &[u8; RANDOM_BYTES]) -> Vec<u8> {
    let (nonce, rest) = random.split_at(32);
    let (session_id, key) = rest.split_at(32);
    // The record, its handshake message, and lengths that are filled in at the end.
    let mut out = b"\x16\x03\x01\0\0\x01\0\0\0\x03\x03".to_vec();
    out.extend_from_slice(nonce);
    match offer {
        Offer::UpTo12 => out.push(0),
        // As browsers do for the sake of boxes in between (RFC 8446 D.4).
        Offer::UpTo13 => {
            out.push(32);
            out.extend_from_slice(session_id);
        }
    }
    let suites_13 = match offer {
        Offer::UpTo12 => b"",
        Offer::UpTo13 => SUITES_13,
    };
    push_u16(suites_13.len() + SUITES_TO_12.len(), &mut out);
    out.extend_from_slice(suites_13);
    out.extend_from_slice(SUITES_TO_12);
    // No compression; then the extensions with their length.
    out.extend_from_slice(b"\x01\0\0\0");
    let extensions_at = out.len();
    if let Some(name) = server_name {
        push_u16(0, &mut out);
        push_u16(name.len() + 5, &mut out);
        push_u16(name.len() + 3, &mut out);
        out.push(0);
        push_u16(name.len(), &mut out);
        out.extend_from_slice(name.as_bytes());
    }
    out.extend_from_slice(EXTENSIONS);
    match offer {
        Offer::UpTo12 => {}
        Offer::UpTo13 => {
            out.extend_from_slice(EXTENSIONS_13);
            out.extend_from_slice(key);
        }
    }
    // Bounded by the longest name: all lengths fit into two bytes.
    for (at, from) in [(3, 5), (7, 9), (extensions_at - 2, extensions_at)] {
        let length = (out.len() - from) as u16;
        out[at..at + 2].copy_from_slice(&length.to_be_bytes());
    }
    out
}

fn push_u16(value: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&(value as u16).to_be_bytes());
}

/// A version as it stands in a ServerHello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version(pub u16);

impl Version {
    /// TLS 1.3.
    pub const TLS13: Version = Version(0x0304);
}

impl Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0x0300 => f.write_str("SSL 3.0"),
            0x0301..=0x0304 => write!(f, "TLS 1.{}", self.0 - 0x0301),
            // A number of the peer's.
            other => write!(f, "TLS version {other:#06x}"),
        }
    }
}

/// What the server's bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It speaks TLS and goes on with the handshake.
    Hello {
        /// What it chose.
        version: Version,
        /// Its own certificate, DER. In TLS 1.3 it is encrypted.
        certificate: Option<Vec<u8>>,
    },
    /// A fatal alert, or a warning that the connection ends.
    Alert(u8),
    /// Something else.
    NotTls {
        /// The protocol, as far as its first bytes tell.
        looks_like: &'static str,
        /// How it begins, in printable ASCII.
        begins: Box<str>,
    },
}

/// What so many bytes say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// More must come, or the handshake does not get further. If none does, this is all; nothing while nothing is known.
    Incomplete(Option<Answer>),
    /// What follows does not change it.
    Complete(Answer),
}

/// Reads what the server has sent so far, all of it from its first byte on.
#[must_use]
pub fn read(bytes: &[u8]) -> Reading {
    match bytes {
        [] => return Reading::Incomplete(None),
        [ALERT | HANDSHAKE] | [ALERT | HANDSHAKE, 3] | [ALERT | HANDSHAKE, 3, 0..=4, ..] => {}
        [..] => {
            let answer = not_tls(bytes);
            let is_whole = bytes.len() >= SHOWN_BYTES || bytes.contains(&b'\n');
            return if is_whole { Reading::Complete(answer) } else { Reading::Incomplete(Some(answer)) };
        }
    }
    let mut handshake = Vec::new();
    let mut rest = bytes;
    let end = loop {
        match next_record(&mut rest) {
            Record::Incomplete => break None,
            // Nothing protects it yet, so the part that is there counts: a server may put its whole flight into one record.
            Record::Part(HANDSHAKE, content) => {
                handshake.extend_from_slice(content);
                break None;
            }
            Record::Part(_, _) => break None,
            Record::Of(HANDSHAKE, content) => handshake.extend_from_slice(content),
            // Between a TLS 1.3 server's hello and what is encrypted: the messages so far decide.
            Record::Of(CHANGE_CIPHER_SPEC, _) => {}
            Record::Of(ALERT, &[level, description]) => {
                // unrecognized_name as a warning: the handshake goes on (RFC 6066 3).
                if level == 2 || description == 0 {
                    break Some(Answer::Alert(description));
                }
            }
            Record::Of(_, _) | Record::Broken => break Some(broken_tls()),
        }
    };
    match (read_messages(&handshake), end) {
        // What came in order before counts first.
        (complete @ Reading::Complete(_), _) => complete,
        (Reading::Incomplete(_), Some(answer)) => Reading::Complete(answer),
        (incomplete @ Reading::Incomplete(_), None) => incomplete,
    }
}

enum Record<'a> {
    Incomplete,
    /// Content type and content.
    Of(u8, &'a [u8]),
    /// Likewise, and not all of it.
    Part(u8, &'a [u8]),
    Broken,
}

fn next_record<'a>(rest: &mut &'a [u8]) -> Record<'a> {
    let &[kind, major, _, high, low, ref behind @ ..] = *rest else { return Record::Incomplete };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if major != 3 || length == 0 || length > MAX_RECORD_BYTES {
        return Record::Broken;
    }
    match behind.split_at_checked(length) {
        Some((content, behind)) => {
            *rest = behind;
            Record::Of(kind, content)
        }
        None => Record::Part(kind, behind),
    }
}

/// The messages up to ServerHelloDone.
fn read_messages(mut handshake: &[u8]) -> Reading {
    let mut version = None;
    let mut certificate = None;
    let so_far = loop {
        let hello = |certificate| version.map(|version| Answer::Hello { version, certificate });
        let &[kind, a, b, c, ref behind @ ..] = handshake else { break hello(certificate) };
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        if length > MAX_FLIGHT_BYTES {
            return Reading::Complete(broken_tls());
        }
        let Some((body, behind)) = behind.split_at_checked(length) else { break hello(certificate) };
        handshake = behind;
        match (kind, version) {
            (SERVER_HELLO, None) => match server_hello_version(body) {
                Some(Version::TLS13) => {
                    return Reading::Complete(Answer::Hello { version: Version::TLS13, certificate: None });
                }
                Some(chosen) => version = Some(chosen),
                None => return Reading::Complete(broken_tls()),
            },
            (_, None) => return Reading::Complete(broken_tls()),
            (CERTIFICATE, Some(_)) => match leaf(body) {
                Some(leaf) => certificate = Some(leaf.to_vec()),
                None => return Reading::Complete(broken_tls()),
            },
            (SERVER_HELLO_DONE, Some(version)) => {
                return Reading::Complete(Answer::Hello { version, certificate });
            }
            // Keys, certificate requests and stapled proofs do not matter here.
            (_, Some(_)) => {}
        }
    };
    Reading::Incomplete(so_far)
}

fn server_hello_version(body: &[u8]) -> Option<Version> {
    let (version, rest) = body.split_first_chunk::<2>()?;
    let (session_id_bytes, rest) = rest.get(32..)?.split_first()?;
    // Cipher suite and compression.
    let mut extensions = rest.get(usize::from(*session_id_bytes) + 3..)?.get(2..).unwrap_or_default();
    while let &[type_high, type_low, high, low, ref behind @ ..] = extensions {
        let (content, behind) = behind.split_at_checked(usize::from(u16::from_be_bytes([high, low])))?;
        if let (SUPPORTED_VERSIONS, &[high, low]) = (u16::from_be_bytes([type_high, type_low]), content) {
            return Some(Version(u16::from_be_bytes([high, low])));
        }
        extensions = behind;
    }
    Some(Version(u16::from_be_bytes(*version)))
}

/// The first certificate of the list is the server's own (RFC 5246 7.4.2).
fn leaf(body: &[u8]) -> Option<&[u8]> {
    let &[_, _, _, a, b, c, ref behind @ ..] = body else { return None };
    behind.get(..u32::from_be_bytes([0, a, b, c]) as usize)
}

fn not_tls(bytes: &[u8]) -> Answer {
    let looks_like = if bytes.starts_with(b"HTTP/") || bytes.starts_with(b"<") {
        "plain HTTP"
    } else if bytes.starts_with(b"SSH-") {
        "SSH"
    } else if bytes.starts_with(b"220") {
        "a mail or FTP server"
    } else {
        "another protocol"
    };
    let line = bytes.split(|&byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    Answer::NotTls { looks_like, begins: printable(line.get(..SHOWN_BYTES).unwrap_or(line)) }
}

fn broken_tls() -> Answer {
    Answer::NotTls { looks_like: "TLS, but broken", begins: Box::default() }
}

/// What a peer has sent as one may show it on a terminal: printable ASCII; what is not, becomes `?`.
#[must_use]
pub fn printable(bytes: &[u8]) -> Box<str> {
    let shown = |&byte: &u8| if matches!(byte, b' '..=b'~') { char::from(byte) } else { '?' };
    bytes.iter().map(shown).collect::<String>().into_boxed_str()
}

/// The name of an alert as its registry spells it (RFC 8446 6), for those that answer a ClientHello.
#[must_use]
pub fn alert_name(description: u8) -> &'static str {
    match description {
        0 => "close_notify",
        10 => "unexpected_message",
        20 => "bad_record_mac",
        22 => "record_overflow",
        40 => "handshake_failure",
        47 => "illegal_parameter",
        49 => "access_denied",
        50 => "decode_error",
        70 => "protocol_version",
        71 => "insufficient_security",
        80 => "internal_error",
        86 => "inappropriate_fallback",
        90 => "user_canceled",
        109 => "missing_extension",
        110 => "unsupported_extension",
        112 => "unrecognized_name",
        116 => "certificate_required",
        120 => "no_application_protocol",
        // A number of the peer's.
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests;
