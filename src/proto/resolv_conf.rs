//! The text of `resolv.conf` (resolv.conf(5)) becomes settings.
//! Layer 0.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};

/// What `resolv.conf` says, with the system's defaults where it says nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvConf {
    /// In file order, port 53.
    pub nameservers: Vec<SocketAddr>,
    /// Domains for names without a dot; the last `search` or `domain` line counts.
    pub search: Vec<String>,
    /// `options ndots:`
    pub ndots: u8,
    /// `options timeout:`, given there in seconds.
    pub timeout_ms: u64,
    /// `options attempts:`
    pub attempts: u32,
    /// `options rotate`
    pub rotate: bool,
    /// Numbers, from 1, of lines that were left out because their value makes no sense.
    pub bad_lines: Vec<usize>,
}

/// More servers than this are left out: each costs a time-out when the network is down. glibc takes 3.
const MAX_NAMESERVERS: usize = 8;
/// As in glibc before 2.26.
const MAX_SEARCH: usize = 6;
/// Caps of glibc, `RES_MAXNDOTS`, `RES_MAXRETRANS` and `RES_MAXRETRY`.
const MAX_NDOTS: u64 = 15;
const MAX_TIMEOUT_S: u64 = 30;
const MAX_ATTEMPTS: u64 = 5;

impl Default for ResolvConf {
    fn default() -> ResolvConf {
        ResolvConf {
            nameservers: Vec::new(),
            search: Vec::new(),
            ndots: 1,
            timeout_ms: 5_000,
            attempts: 2,
            rotate: false,
            bad_lines: Vec::new(),
        }
    }
}

impl ResolvConf {
    /// Reads the file's text. `interface_index` gives the number of an interface for `nameserver fe80::1%eth0`.
    /// Keywords and options that mean nothing here are passed over.
    #[must_use]
    pub fn parse(text: &[u8], interface_index: &dyn Fn(&str) -> Option<u32>) -> ResolvConf {
        let mut conf = ResolvConf::default();
        for (index, line) in text.split(|&b| b == b'\n').enumerate() {
            if !conf.add_line(without_comment(line), interface_index) {
                conf.bad_lines.push(index + 1);
            }
        }
        conf
    }

    /// False when the line is bad.
    fn add_line(&mut self, line: &[u8], interface_index: &dyn Fn(&str) -> Option<u32>) -> bool {
        let Ok(line) = std::str::from_utf8(line) else { return false };
        let mut words = line.split_ascii_whitespace();
        match words.next() {
            Some("nameserver") => {
                let server = words.next().and_then(|word| nameserver(word, interface_index));
                let Some(server) = server else { return false };
                if self.nameservers.len() < MAX_NAMESERVERS && !self.nameservers.contains(&server) {
                    self.nameservers.push(server);
                }
                true
            }
            // A lone dot means the root: no search at all (systemd-resolved writes it).
            Some("search" | "domain") => {
                let words = words.filter(|word| !word.trim_end_matches('.').is_empty()).take(MAX_SEARCH);
                self.search = words.map(|word| word.trim_end_matches('.').to_ascii_lowercase()).collect();
                true
            }
            // Each option is taken by itself: one bad one does not take the others with it.
            Some("options") => words.filter(|word| !self.add_option(word)).count() == 0,
            // What other resolvers know and this one does not need.
            Some("sortlist" | "lookup" | "family" | "port" | "tcp" | "trust-ad") | None => true,
            Some(_) => false,
        }
    }

    fn add_option(&mut self, word: &str) -> bool {
        let (option, value) = word.split_once(':').unwrap_or((word, ""));
        let number = value.parse::<u64>();
        match (option, number) {
            ("ndots", Ok(n)) => self.ndots = n.min(MAX_NDOTS) as u8,
            ("timeout", Ok(n)) => self.timeout_ms = n.clamp(1, MAX_TIMEOUT_S) * 1_000,
            ("attempts", Ok(n)) => self.attempts = n.clamp(1, MAX_ATTEMPTS) as u32,
            ("rotate", _) => self.rotate = true,
            ("ndots" | "timeout" | "attempts", Err(_)) => return false,
            _ => {}
        }
        true
    }
}

/// `#` and `;` start a comment at the start of a line and after white space.
fn without_comment(line: &[u8]) -> &[u8] {
    let mut before = b' ';
    for (at, &byte) in line.iter().enumerate() {
        if (byte == b'#' || byte == b';') && before.is_ascii_whitespace() {
            return line.get(..at).unwrap_or_default();
        }
        before = byte;
    }
    line
}

fn nameserver(word: &str, interface_index: &dyn Fn(&str) -> Option<u32>) -> Option<SocketAddr> {
    let Some((address, zone)) = word.split_once('%') else {
        return Some(SocketAddr::new(word.parse::<IpAddr>().ok()?, 53));
    };
    let zone = zone.parse::<u32>().ok().or_else(|| interface_index(zone))?;
    Some(SocketAddr::V6(SocketAddrV6::new(address.parse().ok()?, 53, 0, zone)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parse(text: &str) -> ResolvConf {
        ResolvConf::parse(text.as_bytes(), &|name| (name == "eth0").then_some(7))
    }

    #[test]
    fn a_search_list_of_dots_is_none() {
        for text in ["search .", "search ..", "search . ..\n", "domain ."] {
            assert!(ResolvConf::parse(text.as_bytes(), &|_| None).search.is_empty(), "{text:?}");
        }
    }

    #[test]
    fn everything_at_once() {
        let conf = parse(
            "# made by hand\n; old style\nnameserver 192.0.2.1\r\n  nameserver\t2001:db8::1 # second\n\
             nameserver fe80::1%eth0\nnameserver fe80::2%3\nnameserver 192.0.2.1\n\
             domain old.test\nsearch Lan. corp.example.com ; two\n\
             options ndots:2 timeout:1 attempts:3 rotate edns0 trust-ad\nsortlist 10.0.0.0\n",
        );
        let servers: Vec<String> = conf.nameservers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["192.0.2.1:53", "[2001:db8::1]:53", "[fe80::1%7]:53", "[fe80::2%3]:53"]);
        assert_eq!(conf.search, ["lan", "corp.example.com"]);
        assert_eq!((conf.ndots, conf.timeout_ms, conf.attempts, conf.rotate), (2, 1_000, 3, true));
        assert!(conf.bad_lines.is_empty());
    }

    #[test]
    fn empty_file_gives_the_defaults() {
        assert_eq!(parse(""), ResolvConf::default());
        assert_eq!(parse("search .\n").search, Vec::<String>::new());
    }

    #[test]
    fn values_are_capped() {
        let conf = parse("options ndots:99 timeout:0 attempts:0\n");
        assert_eq!((conf.ndots, conf.timeout_ms, conf.attempts), (15, 1_000, 1));
        let conf = parse("options ndots:x timeout:86400 attempts:4294967297\n");
        assert_eq!((conf.timeout_ms, conf.attempts), (30_000, 5));
        let many: String = (0..20).map(|n| format!("nameserver 192.0.2.{n}\n")).collect();
        assert_eq!(parse(&many).nameservers.len(), MAX_NAMESERVERS);
    }

    #[test]
    fn bad_lines_are_named() {
        let text = "nameserver\nnameserver localhost\nnameserver fe80::1%wlan9\noptions timeout:soon\nnameserver 10.0.0.1\n";
        let conf = parse(text);
        assert_eq!(conf.bad_lines, [1, 2, 3, 4]);
        assert_eq!(conf.nameservers.len(), 1);
        assert_eq!(ResolvConf::parse(b"nameserver \xff\n", &|_| None).bad_lines, [1]);
    }
}
