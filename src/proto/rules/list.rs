//! A list of destinations from a file: one DEST a line as in a rule, or lines of a hosts file. Names and networks are kept in
//! little memory and found quickly; the few lines with a port, a client or a user are rules like those of the options.

use super::names::{Kind, Names};
use super::nets::Nets;
use super::ports::ANY_PORT;
use super::rule::{BadRule, Destination, Rule, parse_destination, rule_name};
use super::tier::{Action, Asked, By};
use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

/// What the text of a list may take: its names are counted in 32 bits. Whoever reads the file refuses a longer one.
pub const MAX_LIST_BYTES: u64 = u32::MAX as u64;
/// Bad lines that are told one by one; the others are counted.
pub const MAX_BAD_LINES: usize = 8;
/// Of a longer label, the end is kept.
const MAX_LABEL_BYTES: usize = 128;
/// Names that hosts files give to addresses of the machine itself, and to those of everybody near it.
const OWN_NAMES: [&str; 11] = [
    "localhost",
    "localhost.localdomain",
    "local",
    "broadcasthost",
    "ip6-localhost",
    "ip6-loopback",
    "ip6-localnet",
    "ip6-mcastprefix",
    "ip6-allnodes",
    "ip6-allrouters",
    "ip6-allhosts",
];

/// One list, compiled. Large: meant to be shared.
pub struct List {
    label: Box<str>,
    names: Names,
    nets: Nets,
    /// In the order of the file. Asked one after the other.
    rules: Vec<Rule>,
}

/// The lines of a list that are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BadLines {
    /// The first [`MAX_BAD_LINES`] of them: their numbers, counted from 1, and what is wrong.
    pub first: Vec<(usize, BadRule)>,
    /// How many there are in all.
    pub count: usize,
}

impl List {
    /// Reads a list. `label` is the name of the file as the operator wrote it. `#` begins a comment at the beginning of a
    /// line or behind white space, as in the configuration file: inside a word it may be part of a user's name. Lines that make
    /// no sense are left out.
    #[must_use]
    pub fn parse(label: &str, text: &[u8]) -> (List, BadLines) {
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        let mut list = List {
            label: short_label(label),
            names: Names::default(),
            nets: Nets::default(),
            rules: Vec::new(),
        };
        list.names.reserve(text.iter().filter(|&&byte| byte == b'\n').count() + 1);
        let mut bad = BadLines::default();
        for (index, line) in text.split(|&byte| byte == b'\n').enumerate() {
            if let Err(why) = list.add_line(without_comment(line)) {
                bad.count += 1;
                if bad.first.len() < MAX_BAD_LINES {
                    bad.first.push((index + 1, why));
                }
            }
        }
        list.names.seal();
        list.nets.seal();
        list.rules.shrink_to_fit();
        (list, bad)
    }

    /// The name of the file in access lines: printable ASCII without spaces, and not long.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    /// How many destinations it names; what is named twice counts once.
    #[must_use]
    pub fn len(&self) -> usize {
        self.names.len() + self.nets.len() + self.rules.len()
    }

    /// Whether it names nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What it takes of memory; the texts of rules with a port, a client or a user are not counted.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<List>() + self.names.bytes() + self.nets.bytes() + self.rules.capacity() * size_of::<Rule>()
    }

    /// The lines with a port, a client or a user, and those that name everything.
    pub(super) fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The last part of its label, which is all that clients are told.
    pub(super) fn file_name(&self) -> &str {
        self.label.rsplit('/').next().unwrap_or_default()
    }

    /// What holds, as it could stand in the list. Names are looked at first, then networks, then the other lines in order.
    pub(super) fn find(&self, asked: &Asked<'_>, action: Action) -> Option<(By, Cow<'_, str>)> {
        for name in asked.names() {
            if let Some((kind, start)) = self.names.find(name) {
                let before = match kind {
                    Kind::Exact => "",
                    Kind::Domain => ".",
                    Kind::Under => "*.",
                };
                let text = [before, name.get(start..).unwrap_or_default()].concat();
                return Some((By::Name, Cow::Owned(text)));
            }
        }
        if let Some(net) = asked.address.and_then(|address| self.nets.find(address, action)) {
            return Some((By::Address, Cow::Owned(net.to_string())));
        }
        let held = self.rules.iter().find_map(|rule| Some((rule.matches(asked, action)?, rule)));
        held.map(|(by, rule)| (by, Cow::Borrowed(rule.text())))
    }

    /// Whether what is not in [`List::rules`] may hold for an address or, if so said, for another name.
    pub(super) fn may_yet_hold(&self, any_name: bool) -> bool {
        self.nets.len() > 0 || (any_name && self.names.len() > 0)
    }

    /// The comment is already gone.
    fn add_line(&mut self, line: &[u8]) -> Result<(), BadRule> {
        let line = std::str::from_utf8(line).map_err(|_| BadRule::NotAscii)?;
        let mut words = line.split_whitespace();
        let Some(first) = words.next() else { return Ok(()) };
        match words.clone().next() {
            None => self.add_destination(first),
            Some("from" | "user") => {
                self.rules.push(Rule::parse(line)?);
                Ok(())
            }
            Some(_) => self.add_hosts_line(first, words),
        }
    }

    fn add_destination(&mut self, word: &str) -> Result<(), BadRule> {
        match parse_destination(word)? {
            (Destination::Name(name), ANY_PORT) => self.names.insert(&name, Kind::Exact),
            (Destination::Domain(name), ANY_PORT) => self.names.insert(&name, Kind::Domain),
            (Destination::Under(name), ANY_PORT) => self.names.insert(&name, Kind::Under),
            (Destination::Net(net), ANY_PORT) => self.nets.insert(net),
            // With a port, or everything: no enum of ours is hidden here.
            (_, _) => self.rules.push(Rule::parse(word)?),
        }
        Ok(())
    }

    /// hosts(5), as lists of names to block use it. Of a line with a bad name the good ones are taken.
    fn add_hosts_line<'a>(
        &mut self,
        address: &str,
        names: impl Iterator<Item = &'a str>,
    ) -> Result<(), BadRule> {
        let address = address.split('%').next().unwrap_or_default();
        let address: IpAddr = address.parse().map_err(|_| BadRule::Words)?;
        let mut result = Ok(());
        for name in names.filter(|name| !is_own_name(name)) {
            let name = if !is_sink(address) {
                Err(BadRule::Sink)
            } else if name.parse::<IpAddr>().is_ok() {
                Err(BadRule::AddressAsName)
            } else {
                rule_name(name)
            };
            result = result.and(name.map(|name| self.names.insert(&name, Kind::Exact)));
        }
        result
    }
}

impl fmt::Debug for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.label)
    }
}

fn without_comment(line: &[u8]) -> &[u8] {
    let starts_comment = |at: usize| line[at] == b'#' && (at == 0 || line[at - 1].is_ascii_whitespace());
    &line[..(0..line.len()).find(|&at| starts_comment(at)).unwrap_or(line.len())]
}

/// Names for the machine itself, and addresses that stand in the place of a name in many lists (`0.0.0.0 0.0.0.0`), where they
/// deny nothing that could be reached. Other names and addresses are never passed over in silence.
fn is_own_name(name: &str) -> bool {
    let says_nothing = |address: IpAddr| is_sink(address) || address == IpAddr::V4(Ipv4Addr::BROADCAST);
    OWN_NAMES.iter().any(|own| name.eq_ignore_ascii_case(own)) || name.parse().is_ok_and(says_nothing)
}

/// Whether a hosts line with this address in front lists names to block.
fn is_sink(address: IpAddr) -> bool {
    let address = address.to_canonical();
    address.is_unspecified() || address.is_loopback()
}

/// In printable ASCII without spaces; of a long one, the end.
fn short_label(label: &str) -> Box<str> {
    let shown = |byte: u8| if byte.is_ascii_graphic() { char::from(byte) } else { '_' };
    label.bytes().skip(label.len().saturating_sub(MAX_LABEL_BYTES)).map(shown).collect::<String>().into()
}
