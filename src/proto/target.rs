//! Where a client wants to go: a host and a port, in one canonical spelling.
//! What is not plainly a name, a dotted quad or a bracketed IPv6 address is refused here, so that nothing later can
//! take `2130706433` or `0x7f.1` for something that a rule did not see.

use std::fmt;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Longest name in its textual form, without the trailing dot (RFC 1035 2.3.4: 255 bytes on the wire).
pub const MAX_NAME_BYTES: usize = 253;
/// Longest label (RFC 1035 2.3.4).
pub const MAX_LABEL_BYTES: usize = 63;

/// The host part of a target.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// Lower case, no trailing dot, letters, digits, `-` and `_` only; never something that looks like an address.
    Name(Box<str>),
    /// Written as a dotted quad or as an IPv6 address in brackets.
    Ip(IpAddr),
}

impl Host {
    /// Reads a host without port, as it stands in an authority (RFC 3986 3.2.2): IPv6 in brackets.
    ///
    /// # Errors
    /// The first rule that the spelling breaks.
    pub fn from_bytes(bytes: &[u8]) -> Result<Host, BadTarget> {
        match address(bytes)? {
            Some(address) => Ok(Host::Ip(address)),
            None => name(bytes).map(Host::Name),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Name(name) => f.write_str(name),
            Host::Ip(IpAddr::V4(address)) => write!(f, "{address}"),
            Host::Ip(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

/// A host and a port. `Display` is the canonical `host:port`, the only form in which a target is logged or answered.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// Name or address.
    pub host: Host,
    /// 1 to 65535.
    pub port: u16,
    /// A single word with a dot behind it: no search list completes it. Longer names are absolute with or without.
    pub is_absolute: bool,
}

impl Target {
    /// Reads the target of a CONNECT (RFC 9110 9.3.6): `host:port`, and the port is required.
    ///
    /// # Errors
    /// The first rule that the spelling breaks.
    pub fn from_authority(bytes: &[u8]) -> Result<Target, BadTarget> {
        let (host, port) = split_authority(bytes)?;
        let port = port.ok_or(BadTarget::NoPort)?;
        Target::new(host, port_number(port).ok_or(BadTarget::Port)?)
    }

    /// Reads the authority of an `http://` request: as [`Target::from_authority`], but the port may be left out.
    ///
    /// # Errors
    /// The first rule that the spelling breaks.
    pub fn from_authority_or_port(bytes: &[u8], default_port: u16) -> Result<Target, BadTarget> {
        let (host, port) = split_authority(bytes)?;
        let port = match port {
            Some(digits) => port_number(digits).ok_or(BadTarget::Port)?,
            None => default_port,
        };
        Target::new(host, port)
    }

    /// Whether this authority is plainly this target, with the port of [`Target::from_authority_or_port`] when it names
    /// none. Nothing is allocated; `false` may also mean another spelling of the same, so read it then.
    #[must_use]
    pub fn is_authority(&self, authority: &[u8], default_port: u16) -> bool {
        let (is_host, port) = match &self.host {
            // Ours is known to be a name, so whatever equals it is one.
            Host::Name(name) => match authority.split_at_checked(name.len()) {
                Some((host, port)) if !self.is_absolute => (host.eq_ignore_ascii_case(name.as_bytes()), port),
                Some(_) | None => return false,
            },
            Host::Ip(own) => {
                let last = authority.iter().rposition(|byte| matches!(byte, b':' | b']'));
                let colon = last.filter(|&last| authority.get(last) == Some(&b':'));
                let (host, port) = authority.split_at(colon.unwrap_or(authority.len()));
                (address(host) == Ok(Some(*own)), port)
            }
        };
        is_host
            && match port {
                [] => self.port == default_port,
                [b':', digits @ ..] => port_number(digits) == Some(self.port),
                // Bytes, not an enum of ours.
                _ => false,
            }
    }

    /// Appends what `Display` shows.
    pub fn push(&self, out: &mut Vec<u8>) {
        if self.is_absolute {
            // Rare enough. Writing to a Vec cannot fail.
            let _ = write!(out, "{self}");
        } else {
            // No target has port 0, so the port is always written.
            self.push_host(0, out);
        }
    }

    /// Appends the canonical host, and the port unless it is `default_port`: what `Host` fields and URLs have. Without the dot
    /// of an absolute name, which means something to resolvers only.
    pub fn push_host(&self, default_port: u16, out: &mut Vec<u8>) {
        match &self.host {
            Host::Name(name) => out.extend_from_slice(name.as_bytes()),
            Host::Ip(address) => push_host_address(*address, out),
        }
        if self.port != default_port {
            push_port(self.port, out);
        }
    }

    fn new(host: &[u8], port: u16) -> Result<Target, BadTarget> {
        let is_absolute = host.strip_suffix(b".").is_some_and(|word| !word.contains(&b'.'));
        Ok(Target { host: Host::from_bytes(host)?, port, is_absolute })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dot = if self.is_absolute { "." } else { "" };
        write!(f, "{}{dot}:{}", self.host, self.port)
    }
}

/// Appends an address as it stands before a port: IPv6 in brackets.
pub fn push_host_address(address: IpAddr, out: &mut Vec<u8>) {
    match address {
        IpAddr::V4(_) => push_address(address, out),
        IpAddr::V6(_) => {
            out.push(b'[');
            push_address(address, out);
            out.push(b']');
        }
    }
}

/// Appends an address. By hand, as it is done for each request: the formatter of the standard library takes 2,000 instructions
/// for an IPv4 address.
pub fn push_address(address: IpAddr, out: &mut Vec<u8>) {
    match address {
        IpAddr::V4(address) => {
            for (octet, before) in address.octets().into_iter().zip([&b""[..], b".", b".", b"."]) {
                out.extend_from_slice(before);
                push_decimal(u64::from(octet), out);
            }
        }
        IpAddr::V6(address) => {
            // Writing to a Vec cannot fail.
            let _ = write!(out, "{address}");
        }
    }
}

/// Appends a colon and the port.
pub fn push_port(port: u16, out: &mut Vec<u8>) {
    out.push(b':');
    push_decimal(u64::from(port), out);
}

/// Appends a number in plain digits.
pub fn push_decimal(number: u64, out: &mut Vec<u8>) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    let mut rest = number;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Why a target is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadTarget {
    /// Nothing stands before the port.
    NoHost,
    /// `host` alone.
    NoPort,
    /// Not 1 to 65535 in plain digits.
    Port,
    /// `user@host`.
    Userinfo,
    /// A scheme, path, query or fragment.
    NotAuthority,
    /// An IPv6 address without brackets, brackets around something else, or half a pair.
    Brackets,
    /// `[fe80::1%eth0]`.
    ZoneId,
    /// `%41`.
    PercentEncoding,
    /// Looks like an address but is not a dotted quad: `2130706433`, `0177.1`, `0x7f.1`, `1.2.3`.
    AddressSpelling,
    /// An empty label, one of more than 63 bytes, or more than 253 in all.
    NameLength,
    /// Bytes outside ASCII.
    NotAscii,
    /// A character that no name has.
    NameCharacter,
}

impl BadTarget {
    /// One sentence for the user. Never repeats what was sent.
    #[must_use]
    pub fn details(self) -> &'static str {
        match self {
            BadTarget::NoHost => "the target has no host",
            BadTarget::NoPort => "the target has no port: write host:port",
            BadTarget::Port => "the port of the target is not 1 to 65535 in plain digits",
            BadTarget::Userinfo => "the target carries a user name",
            BadTarget::NotAuthority => "the target is not host:port: it has a scheme, a path or a query",
            BadTarget::Brackets => {
                "the one colon outside brackets stands before the port; brackets hold an IPv6 address and nothing else"
            }
            BadTarget::ZoneId => "the IPv6 address of the target has a zone id",
            BadTarget::PercentEncoding => "the host of the target is percent-encoded",
            BadTarget::AddressSpelling => {
                "the host of the target looks like an address but is neither a dotted quad nor a bracketed IPv6 address"
            }
            BadTarget::NameLength => {
                "the host of the target has an empty label, a label over 63 bytes, or is over 253 bytes"
            }
            BadTarget::NotAscii => "the host of the target is not ASCII: write the xn-- form",
            BadTarget::NameCharacter => {
                "the host of the target has a character that is not a letter, digit, - or _"
            }
        }
    }
}

/// Plain digits, no sign, no leading zero, 1 to 65535.
pub(crate) fn port_number(digits: &[u8]) -> Option<u16> {
    if digits.is_empty() || digits.len() > 5 || digits.first() == Some(&b'0') {
        return None;
    }
    let mut port: u32 = 0;
    for &digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        port = port * 10 + u32::from(digit - b'0');
    }
    u16::try_from(port).ok()
}

/// A DNS name in canonical form. One trailing dot is dropped.
pub(crate) fn name(bytes: &[u8]) -> Result<Box<str>, BadTarget> {
    if bytes.is_empty() {
        return Err(BadTarget::NoHost);
    }
    let bytes = bytes.strip_suffix(b".").unwrap_or(bytes);
    for &byte in bytes {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {}
            b'%' => return Err(BadTarget::PercentEncoding),
            0x80..=0xff => return Err(BadTarget::NotAscii),
            b'[' | b']' => return Err(BadTarget::Brackets),
            // A byte, not an enum of ours: everything else is simply not part of a name.
            _ => return Err(BadTarget::NameCharacter),
        }
    }
    let mut last: &[u8] = &[];
    for label in bytes.split(|&byte| byte == b'.') {
        if label.is_empty() || label.len() > MAX_LABEL_BYTES {
            return Err(BadTarget::NameLength);
        }
        last = label;
    }
    if bytes.len() > MAX_NAME_BYTES {
        return Err(BadTarget::NameLength);
    }
    if is_number(last) {
        return Err(BadTarget::AddressSpelling);
    }
    let name: String = bytes.iter().map(|byte| char::from(byte.to_ascii_lowercase())).collect();
    Ok(name.into_boxed_str())
}

/// Whether C libraries and browsers would take a name with this last label for an IPv4 address (`inet_aton`, and the
/// "ends in a number" check of the WHATWG URL standard). No top-level domain is a number, so nothing is lost.
fn is_number(label: &[u8]) -> bool {
    match label {
        [b'0', b'x' | b'X', rest @ ..] => rest.iter().all(u8::is_ascii_hexdigit),
        // A slice, not an enum of ours.
        _ => label.iter().all(u8::is_ascii_digit),
    }
}

/// A dotted quad, or IPv6 in brackets; `None` is for [`name`] to judge.
fn address(bytes: &[u8]) -> Result<Option<IpAddr>, BadTarget> {
    if let Some(rest) = bytes.strip_prefix(b"[") {
        return rest.strip_suffix(b"]").map_or(Err(BadTarget::Brackets), |inside| ipv6(inside).map(Some));
    }
    let quad = std::str::from_utf8(bytes).ok().and_then(|text| text.parse::<Ipv4Addr>().ok());
    Ok(quad.map(IpAddr::V4))
}

fn ipv6(inside: &[u8]) -> Result<IpAddr, BadTarget> {
    if inside.contains(&b'%') {
        return Err(BadTarget::ZoneId);
    }
    let text = std::str::from_utf8(inside).map_err(|_| BadTarget::NotAscii)?;
    text.parse::<Ipv6Addr>().map(IpAddr::V6).map_err(|_| BadTarget::Brackets)
}

/// Cuts `host[:port]` in two and refuses what is not an authority without userinfo.
fn split_authority(bytes: &[u8]) -> Result<(&[u8], Option<&[u8]>), BadTarget> {
    if bytes.iter().any(|byte| matches!(byte, b'/' | b'?' | b'#' | b'\\')) {
        return Err(BadTarget::NotAuthority);
    }
    if bytes.contains(&b'@') {
        return Err(BadTarget::Userinfo);
    }
    // The colons of an IPv6 address are inside its brackets; the port's colon is the first one behind them.
    let brackets_end = if bytes.starts_with(b"[") {
        bytes.iter().position(|&byte| byte == b']').ok_or(BadTarget::Brackets)? + 1
    } else {
        0
    };
    let behind = bytes.get(brackets_end..).unwrap_or_default();
    let Some(colon) = behind.iter().position(|&byte| byte == b':') else {
        return if bytes.is_empty() { Err(BadTarget::NoHost) } else { Ok((bytes, None)) };
    };
    let (host, port) = bytes.split_at(brackets_end + colon);
    let port = port.get(1..).unwrap_or_default();
    if port.contains(&b':') {
        return Err(BadTarget::Brackets);
    }
    if host.is_empty() {
        return Err(BadTarget::NoHost);
    }
    Ok((host, Some(port)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn good_targets_have_one_canonical_spelling() {
        let long_label = "a".repeat(63);
        let long_name = format!("{long_label}.{long_label}.{long_label}.{}", "b".repeat(61));
        assert_eq!(long_name.len(), 253);
        let cases = [
            ("example.org:443".to_owned(), "example.org:443".to_owned()),
            ("EXAMPLE.Org.:443".to_owned(), "example.org:443".to_owned()),
            ("localhost:1".to_owned(), "localhost:1".to_owned()),
            ("_dmarc.a-b.x--y:65535".to_owned(), "_dmarc.a-b.x--y:65535".to_owned()),
            ("1.2.3.4.example:80".to_owned(), "1.2.3.4.example:80".to_owned()),
            ("0xz:80".to_owned(), "0xz:80".to_owned()),
            ("4chan.org:443".to_owned(), "4chan.org:443".to_owned()),
            ("192.0.2.7:443".to_owned(), "192.0.2.7:443".to_owned()),
            ("[2001:DB8::0:7]:8443".to_owned(), "[2001:db8::7]:8443".to_owned()),
            ("[::ffff:1.2.3.4]:443".to_owned(), "[::ffff:1.2.3.4]:443".to_owned()),
            (format!("{long_name}:443"), format!("{long_name}:443")),
            (format!("{long_name}.:443"), format!("{long_name}:443")),
        ];
        for (sent, canonical) in cases {
            let target = Target::from_authority(sent.as_bytes()).expect(&sent);
            assert_eq!(target.to_string(), canonical);
            assert_eq!(
                Target::from_authority(canonical.as_bytes()),
                Ok(target),
                "canonical is a fixed point"
            );
        }
    }

    #[test]
    fn bad_targets_say_why() {
        let long_label = format!("{}.org:443", "a".repeat(64));
        let long_name = format!("{}b:443", "a.".repeat(127));
        let cases: &[(&str, BadTarget)] = &[
            ("", BadTarget::NoHost),
            (":443", BadTarget::NoHost),
            (".:443", BadTarget::NameLength),
            ("example.org", BadTarget::NoPort),
            ("[::1]", BadTarget::NoPort),
            ("example.org:", BadTarget::Port),
            ("example.org:0", BadTarget::Port),
            ("example.org:0443", BadTarget::Port),
            ("example.org:+443", BadTarget::Port),
            ("example.org:-1", BadTarget::Port),
            ("example.org:65536", BadTarget::Port),
            ("example.org:99999999999999999999", BadTarget::Port),
            ("example.org:44a", BadTarget::Port),
            ("example.org: 443", BadTarget::Port),
            ("user@example.org:443", BadTarget::Userinfo),
            ("user:password@example.org:443", BadTarget::Userinfo),
            ("http://example.org:443", BadTarget::NotAuthority),
            ("example.org:443/", BadTarget::NotAuthority),
            ("example.org:443?x", BadTarget::NotAuthority),
            ("example.org:443#x", BadTarget::NotAuthority),
            ("example.org\\:443", BadTarget::NotAuthority),
            ("::1:443", BadTarget::Brackets),
            ("a:1:443", BadTarget::Brackets),
            ("[::1:443", BadTarget::Brackets),
            ("::1]:443", BadTarget::Brackets),
            ("[example.org]:443", BadTarget::Brackets),
            ("[1.2.3.4]:443", BadTarget::Brackets),
            ("[]:443", BadTarget::Brackets),
            ("[::1]x:443", BadTarget::Brackets),
            ("[[::1]]:443", BadTarget::Brackets),
            ("[v1.x]:443", BadTarget::Brackets),
            ("[fe80::1%25eth0]:443", BadTarget::ZoneId),
            ("[fe80::1%eth0]:443", BadTarget::ZoneId),
            ("ex%61mple.org:443", BadTarget::PercentEncoding),
            ("127.0.0.1%00:443", BadTarget::PercentEncoding),
            ("2130706433:80", BadTarget::AddressSpelling),
            ("0177.1:80", BadTarget::AddressSpelling),
            ("0x7f.1:80", BadTarget::AddressSpelling),
            ("0x7f000001:80", BadTarget::AddressSpelling),
            ("0X7F000001:80", BadTarget::AddressSpelling),
            ("0x:80", BadTarget::AddressSpelling),
            ("127.0x1:80", BadTarget::AddressSpelling),
            ("1.2.3:80", BadTarget::AddressSpelling),
            ("1.2.3.4.:80", BadTarget::AddressSpelling),
            ("1.2.3.4.5:80", BadTarget::AddressSpelling),
            ("127.0.0.01:80", BadTarget::AddressSpelling),
            ("256.1.1.1:80", BadTarget::AddressSpelling),
            ("example.123:80", BadTarget::AddressSpelling),
            ("a..b:80", BadTarget::NameLength),
            (".a:80", BadTarget::NameLength),
            ("a..:80", BadTarget::NameLength),
            (&long_label, BadTarget::NameLength),
            (&long_name, BadTarget::NameLength),
            ("b\u{fc}cher.example:443", BadTarget::NotAscii),
            ("exa mple.org:443", BadTarget::NameCharacter),
            ("exa\0mple.org:443", BadTarget::NameCharacter),
            ("*.example.org:443", BadTarget::NameCharacter),
            ("a,b:443", BadTarget::NameCharacter),
        ];
        for (sent, why) in cases {
            assert_eq!(Target::from_authority(sent.as_bytes()), Err(*why), "{sent}");
            assert!(!why.details().is_empty());
        }
    }

    #[test]
    fn the_port_of_plain_http_may_be_left_out() {
        let target = Target::from_authority_or_port(b"a.test", 80).unwrap();
        assert_eq!(target.to_string(), "a.test:80");
        let target = Target::from_authority_or_port(b"[::1]:8080", 80).unwrap();
        assert_eq!(target.to_string(), "[::1]:8080");
        assert_eq!(Target::from_authority_or_port(b"a.test:", 80), Err(BadTarget::Port));
    }

    #[test]
    fn an_authority_is_known_again_without_being_read() {
        let cases = [
            ("a.test", "a.test", true),
            ("a.test", "A.Test", true),
            ("A.test", "a.test:80", true),
            ("a.test:8080", "a.TEST:8080", true),
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1:8080", "192.0.2.1:8080", true),
            ("[2001:db8::1]", "[2001:db8::1]", true),
            ("[2001:db8::1]:81", "[2001:DB8:0::1]:81", true),
            ("a.test", "a.test:81", false),
            ("a.test:81", "a.test", false),
            ("a.test", "a.test:", false),
            ("a.test", "a.test:080", false),
            ("a.test", "a.test:+80", false),
            ("a.test", "a.test:80x", false),
            ("a.test", "a.test:80:80", false),
            ("a.test", "a.test80", false),
            ("a.test", "a.test@b", false),
            ("a.test", "x@a.test", false),
            ("a.test", "b.test", false),
            ("a.test", "a.tes", false),
            ("a.test", "", false),
            ("a.test", "a.test.", false),
            ("a.test", "a.test/", false),
            ("localhost", "localhost.", false),
            ("localhost.", "localhost", false),
            ("192.0.2.1", "192.0.2.2", false),
            ("192.0.2.1", "192.0.2.1:", false),
            ("192.0.2.1", "[::ffff:192.0.2.1]", false),
            ("[2001:db8::1]", "2001:db8::1", false),
            ("[2001:db8::1]", "[2001:db8::1]81", false),
            ("[2001:db8::1]", "[2001:db8::1", false),
            ("[2001:db8::1]", "[2001:db8::1%25eth0]", false),
        ];
        for (read_from, authority, expected) in cases {
            let target = Target::from_authority_or_port(read_from.as_bytes(), 80).unwrap();
            assert_eq!(target.is_authority(authority.as_bytes(), 80), expected, "{read_from} {authority}");
            if expected {
                assert_eq!(Target::from_authority_or_port(authority.as_bytes(), 80), Ok(target));
            }
        }
    }

    #[test]
    fn no_cut_and_no_flipped_byte_panics() {
        let valid = ["www.example.org.:65535", "[2001:db8::1%x]:443", "192.0.2.1:80", "localhost", "[::1]"];
        let known = [
            "www.example.org:65535",
            "[2001:db8::1]:443",
            "192.0.2.1:80",
            "localhost",
            "localhost.",
            "[::1]",
        ]
        .map(|authority| Target::from_authority_or_port(authority.as_bytes(), 80).unwrap());
        for valid in valid {
            for end in 0..valid.len() {
                let _ = Target::from_authority(&valid.as_bytes()[..end]);
            }
            for at in 0..valid.len() {
                for byte in 0..=255 {
                    let mut bytes = valid.as_bytes().to_vec();
                    bytes[at] = byte;
                    let flipped = Target::from_authority_or_port(&bytes, 80);
                    if let Ok(target) = &flipped {
                        assert!(target.port > 0);
                    }
                    for known in &known {
                        if known.is_authority(&bytes, 80) {
                            assert_eq!(flipped.as_ref(), Ok(known));
                        }
                    }
                }
            }
        }
    }
}
