//! Static names: the text of a hosts file becomes a map from name to addresses, which the resolver asks first.
//! Layer 0.

use std::collections::HashMap;
use std::net::IpAddr;
use std::str::SplitAsciiWhitespace;

/// Names that are known without asking anybody.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Hosts {
    /// Keys are lower case and carry no trailing dot.
    names: HashMap<Box<str>, Vec<IpAddr>>,
}

impl Hosts {
    /// Reads a hosts file (hosts(5)): `address name [name ...]`, `#` starts a comment. A line that is neither is left
    /// out; the second value lists the numbers of such lines, counted from 1.
    #[must_use]
    pub fn parse(text: &[u8]) -> (Hosts, Vec<usize>) {
        let mut hosts = Hosts::default();
        let mut bad_lines = Vec::new();
        for (index, line) in text.split(|&b| b == b'\n').enumerate() {
            let line = line.split(|&b| b == b'#').next().unwrap_or_default();
            if !hosts.add_line(line) {
                bad_lines.push(index + 1);
            }
        }
        (hosts, bad_lines)
    }

    /// The addresses of `name` in file order; empty when the file does not name it. Case and one trailing dot do not
    /// matter.
    #[must_use]
    pub fn get(&self, name: &str) -> &[IpAddr] {
        let name = name.strip_suffix('.').unwrap_or(name);
        let found = if name.bytes().any(|b| b.is_ascii_uppercase()) {
            self.names.get(name.to_ascii_lowercase().as_str())
        } else {
            self.names.get(name)
        };
        found.map_or(&[], Vec::as_slice)
    }

    /// How many names are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether no name is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// False when the line is bad. The comment is already gone.
    fn add_line(&mut self, line: &[u8]) -> bool {
        let Ok(line) = std::str::from_utf8(line) else { return false };
        let mut words = line.split_ascii_whitespace();
        let Some(address) = words.next() else { return true };
        let Ok(address) = address.parse::<IpAddr>() else { return false };
        self.add_names(address, words)
    }

    fn add_names(&mut self, address: IpAddr, words: SplitAsciiWhitespace<'_>) -> bool {
        let mut any = false;
        for word in words {
            let name = word.strip_suffix('.').unwrap_or(word).to_ascii_lowercase();
            if name.is_empty() {
                continue;
            }
            let addresses = self.names.entry(name.into_boxed_str()).or_default();
            if !addresses.contains(&address) {
                addresses.push(address);
            }
            any = true;
        }
        any
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn names_have_all_their_addresses_in_file_order() {
        let text =
            b"# top\n127.0.0.1\tlocalhost\n::1 localhost ip6-localhost\n\n10.0.0.9 Nas.Home. nas # twice\n\
            fd00::9 nas\n10.0.0.9 nas\r\n";
        let (hosts, bad) = Hosts::parse(text);
        assert!(bad.is_empty());
        assert_eq!(hosts.get("localhost"), [ip("127.0.0.1"), ip("::1")]);
        assert_eq!(hosts.get("NAS"), [ip("10.0.0.9"), ip("fd00::9")]);
        assert_eq!(hosts.get("nas.HOME."), [ip("10.0.0.9")]);
        assert!(hosts.get("other").is_empty());
        assert!(hosts.get("").is_empty());
        assert_eq!(hosts.len(), 4);
    }

    #[test]
    fn bad_lines_are_left_out_and_named() {
        let text =
            b"nonsense\n10.0.0.1 a\n10.0.0.2\n10.0.0.300 b\n\xff\xfe x\nfe80::1%eth0 c\n# \xff\n10.0.0.1 .\n";
        let (hosts, bad) = Hosts::parse(text);
        assert_eq!(bad, [1, 3, 4, 5, 6, 8]);
        assert_eq!(hosts.len(), 1);
        assert!(!hosts.is_empty());
    }
}
