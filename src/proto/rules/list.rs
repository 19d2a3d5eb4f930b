//! A list of destinations from a file: one DEST a line as in a rule, or lines of a hosts file. Names and networks are kept in
//! little memory and found quickly, with or without ports; the few lines with a client or a user are rules like those of the options.

use super::super::guard::Net;
use super::names::{Kind, MAX_RANGES, Names, RangeMask};
use super::nets::Nets;
use super::ports::{ANY_PORT, PortRange, in_range};
use super::rule::{BadRule, Destination, Rule, parse_destination, rule_name};
use super::tier::{Action, Asked, By};
use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

/// What the text of a list may take: its names are counted in 32 bits. Whoever reads the file refuses a longer one.
pub const MAX_LIST_BYTES: u64 = u32::MAX as u64;
/// Bad lines that are told one by one; the others are counted.
pub const MAX_BAD_LINES: usize = 8;
/// Different ranges of ports that names and networks of a list may have and be found quickly, all ports among them.
pub const MAX_LIST_RANGES: usize = MAX_RANGES;
/// The number of the range of all ports.
const ANY_RANGE: usize = 0;
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
    /// Each with the number of its range in `ranges`.
    names: Names,
    /// [`ANY_RANGE`], and behind it the others in the order in which the file has them: at most [`MAX_LIST_RANGES`].
    ranges: Vec<Range>,
    /// In the order of the file. Asked one after the other.
    rules: Vec<Rule>,
    /// How many of `rules` are there because their range is none of `ranges`.
    out_of_ranges: usize,
}

/// What a list has for one range of ports.
struct Range {
    ports: PortRange,
    has_names: bool,
    nets: Nets,
}

impl Range {
    fn of(ports: PortRange) -> Range {
        Range { ports, has_names: false, nets: Nets::default() }
    }
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
            ranges: vec![Range::of(ANY_PORT)],
            rules: Vec::new(),
            out_of_ranges: 0,
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
        list.ranges.iter_mut().for_each(|range| range.nets.seal());
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
        let nets: usize = self.ranges.iter().map(|range| range.nets.len()).sum();
        self.names.len() + nets + self.rules.len()
    }

    /// Whether it names nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What it takes of memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let ranges: usize = self.ranges.iter().map(|range| size_of::<Range>() + range.nets.bytes()).sum();
        let texts: usize = self.rules.iter().map(Rule::text_bytes).sum();
        size_of::<List>() + self.names.bytes() + ranges + self.rules.capacity() * size_of::<Rule>() + texts
    }

    /// How many lines are kept as rules and asked one after the other, which is meant for hundreds: those for a client or a user, and
    /// [`List::out_of_ranges`].
    #[must_use]
    pub fn one_by_one(&self) -> usize {
        self.rules.len()
    }

    /// How many lines have a range of ports that is not one of the first [`MAX_LIST_RANGES`].
    #[must_use]
    pub fn out_of_ranges(&self) -> usize {
        self.out_of_ranges
    }

    /// The lines for a client or a user, and those that name everything or have a range of ports too many.
    pub(super) fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The last part of its label, which is all that clients are told.
    pub(super) fn file_name(&self) -> &str {
        self.label.rsplit('/').next().unwrap_or_default()
    }

    /// What holds, as it could stand in the list. Names are looked at first, then networks, then the other lines in order.
    pub(super) fn find(&self, asked: &Asked<'_>, action: Action) -> Option<(By, Cow<'_, str>)> {
        let port = asked.target.port;
        let mask = (0..).zip(&self.ranges).fold(0, |mask: RangeMask, (number, range)| {
            mask | (RangeMask::from(in_range(range.ports, port)) << number)
        });
        for name in asked.names() {
            if let Some((kind, start, range)) = self.names.find(name, mask) {
                let before = match kind {
                    Kind::Exact => "",
                    Kind::Domain => ".",
                    Kind::Under => "*.",
                };
                let ports = self.ranges.get(range).map_or(ANY_PORT, |range| range.ports);
                let name = name.get(start..).unwrap_or_default();
                return Some((By::Name, Cow::Owned([before, name, &ports_text(ports)].concat())));
            }
        }
        let net = asked.address.and_then(|address| {
            self.speaking(port).find_map(|range| Some((range.nets.find(address, action)?, range.ports)))
        });
        if let Some((net, ports)) = net {
            return Some((By::Address, Cow::Owned(net_text(net, ports))));
        }
        let held = self.rules.iter().find_map(|rule| Some((rule.matches(asked, action)?, rule)));
        held.map(|(by, rule)| (by, Cow::Borrowed(rule.text())))
    }

    /// Whether what is not in [`List::rules`] may hold on this port for an address or, if so said, for another name.
    pub(super) fn may_yet_hold(&self, port: u16, any_name: bool) -> bool {
        self.speaking(port).any(|range| range.nets.len() > 0 || (any_name && range.has_names))
    }

    /// The ranges that this port lies in.
    fn speaking(&self, port: u16) -> impl Iterator<Item = &Range> {
        self.ranges.iter().filter(move |range| in_range(range.ports, port))
    }

    /// The number of this range, if it is one of those that are kept apart.
    fn range_number(&mut self, ports: PortRange) -> Option<usize> {
        let known = self.ranges.iter().position(|range| range.ports == ports);
        if known.is_none() && self.ranges.len() < MAX_LIST_RANGES {
            self.ranges.push(Range::of(ports));
            return Some(self.ranges.len() - 1);
        }
        known
    }

    fn add_name(&mut self, name: &str, kind: Kind, range: usize) {
        self.names.insert(name, kind, range);
        self.ranges[range].has_names = true;
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
        let (destination, ports) = parse_destination(word)?;
        if destination == Destination::Any {
            self.rules.push(Rule::parse(word)?);
            return Ok(());
        }
        let Some(range) = self.range_number(ports) else {
            self.out_of_ranges += 1;
            self.rules.push(Rule::parse(word)?);
            return Ok(());
        };
        match destination {
            // Is above.
            Destination::Any => {}
            Destination::Name(name) => self.add_name(&name, Kind::Exact, range),
            Destination::Domain(name) => self.add_name(&name, Kind::Domain, range),
            Destination::Under(name) => self.add_name(&name, Kind::Under, range),
            Destination::Net(net) => self.ranges[range].nets.insert(net),
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
            result = result.and(name.map(|name| self.add_name(&name, Kind::Exact, ANY_RANGE)));
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

/// What stands behind a name on these ports.
fn ports_text(ports: PortRange) -> String {
    match ports {
        ANY_PORT => String::new(),
        (low, high) if low == high => [":", &low.to_string()].concat(),
        (low, high) => [":", &low.to_string(), "-", &high.to_string()].concat(),
    }
}

fn net_text(net: Net, ports: PortRange) -> String {
    let (text, ports) = (net.to_string(), ports_text(ports));
    if ports.is_empty() {
        return text;
    }
    if net.address().is_ipv4() {
        return text + &ports;
    }
    let (address, bits) = text.split_at(text.find('/').unwrap_or(text.len()));
    ["[", address, "]", bits, &ports].concat()
}

/// In printable ASCII without spaces; of a long one, the end.
fn short_label(label: &str) -> Box<str> {
    let shown = |byte: u8| if byte.is_ascii_graphic() { char::from(byte) } else { '_' };
    label.bytes().skip(label.len().saturating_sub(MAX_LABEL_BYTES)).map(shown).collect::<String>().into()
}
