//! One rule on destinations, and how it is written.

use super::super::guard::{Carried, Net, carried};
use super::super::target::{Host, name};
use super::RuleName;
use super::ports::{ANY_PORT, PortRange, in_range, port_range};
use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// One `--allow` or `--deny`: `DEST [from NET]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// As the operator wrote it, with single spaces.
    text: Box<str>,
    destination: Destination,
    ports: PortRange,
    /// Only for clients in here.
    from: Option<Net>,
}

/// What a DEST names, without its ports.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Destination {
    Any,
    /// Exactly this name.
    Name(Box<str>),
    /// This name and all under it.
    Domain(Box<str>),
    Net(Net),
}

impl Rule {
    /// Reads a rule.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn parse(text: &str) -> Result<Rule, BadRule> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let (destination, from) = match words[..] {
            [] => return Err(BadRule::Empty),
            [destination] => (destination, None),
            [destination, "from", net] => (destination, Some(parse_net(net)?)),
            [_, "user", _] | [_, "from", _, "user", _] | [_, "user", _, "from", _] => {
                return Err(BadRule::UsersLater);
            }
            _ => return Err(BadRule::Words),
        };
        let (destination, ports) = parse_destination(destination)?;
        Ok(Rule { text: words.join(" ").into_boxed_str(), destination, ports, from })
    }

    /// As the operator wrote it.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The name in the access line.
    pub(super) fn name(&self, option: &str) -> RuleName {
        Cow::Owned(format!("{option}:{}", self.text.replace(' ', "_")))
    }

    pub(super) fn speaks_for(&self, client: IpAddr, port: u16) -> bool {
        in_range(self.ports, port) && self.from.is_none_or(|net| net.contains(client))
    }

    /// Whether the rule holds for this host whatever its addresses are.
    pub(super) fn names(&self, host: &Host) -> bool {
        match host {
            Host::Name(name) => self.names_name(name),
            Host::Ip(_) => matches!(self.destination, Destination::Any),
        }
    }

    pub(super) fn names_name(&self, asked: &str) -> bool {
        match &self.destination {
            Destination::Any => true,
            Destination::Name(name) => **name == *asked,
            Destination::Domain(domain) => match asked.strip_suffix(&**domain) {
                Some(under) => under.is_empty() || under.ends_with('.'),
                None => false,
            },
            Destination::Net(_) => false,
        }
    }

    pub(super) fn is_for_addresses(&self) -> bool {
        match self.destination {
            Destination::Net(_) => true,
            Destination::Any | Destination::Name(_) | Destination::Domain(_) => false,
        }
    }

    /// As a `--deny`: the address, or an IPv4 address that it carries, is in the network.
    pub(super) fn denies(&self, address: IpAddr) -> bool {
        let Destination::Net(net) = self.destination else { return false };
        let inside = |carried: Carried| {
            net.contains(IpAddr::V4(carried.endpoint)) || net.contains(IpAddr::V4(carried.helper))
        };
        net.contains(address) || carried(address).is_some_and(inside)
    }

    /// As an `--allow`: an address that carries IPv4 is judged as IPv4, so that `2000::/3` does not open what 6to4 hides.
    /// Only a network inside the carrying form (`64:ff9b::/96`) speaks of the carriers themselves.
    pub(super) fn allows(&self, address: IpAddr) -> bool {
        let Destination::Net(net) = self.destination else { return false };
        match carried(address) {
            Some(Carried { endpoint, helper, form }) => {
                (net.contains(IpAddr::V4(endpoint)) && net.contains(IpAddr::V4(helper)))
                    || (net.lies_in(&form) && net.contains(address))
            }
            None => net.contains(address),
        }
    }
}

/// Reads `ADDR` or `ADDR/BITS`; IPv4-mapped networks become IPv4.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn parse_net(text: &str) -> Result<Net, BadRule> {
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(bits)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().map_err(|_| BadRule::Address)?;
    net_of(address, bits)
}

fn net_of(address: IpAddr, bits: Option<&str>) -> Result<Net, BadRule> {
    let Some(bits) = bits else { return Ok(Net::host(address).unmapped()) };
    let most = if address.is_ipv4() { 32 } else { 128 };
    if bits.is_empty() || bits.len() > 3 || !bits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(BadRule::Prefix);
    }
    match bits.parse::<u8>() {
        Ok(bits) if bits <= most => Net::new(address, bits).map(Net::unmapped).ok_or(BadRule::HostBits),
        Ok(_) | Err(_) => Err(BadRule::Prefix),
    }
}

/// DEST: a destination and its ports.
fn parse_destination(word: &str) -> Result<(Destination, PortRange), BadRule> {
    if let Some(rest) = word.strip_prefix('[') {
        let (inside, behind) = rest.split_once(']').ok_or(BadRule::Address)?;
        let address: Ipv6Addr = inside.parse().map_err(|_| BadRule::Address)?;
        let (bits, ports) = match behind.split_once(':') {
            Some((bits, ports)) => (bits, ports),
            None => (behind, "*"),
        };
        let bits = match bits.strip_prefix('/') {
            Some(bits) => Some(bits),
            None if bits.is_empty() => None,
            None => return Err(BadRule::Address),
        };
        return Ok((Destination::Net(net_of(IpAddr::V6(address), bits)?), rule_ports(ports)?));
    }
    if word.matches(':').count() > 1 {
        return Ok((Destination::Net(parse_net(word)?), ANY_PORT));
    }
    let (host, ports) = word.split_once(':').unwrap_or((word, "*"));
    let ports = rule_ports(ports)?;
    let destination = if host == "*" {
        Destination::Any
    } else if host.contains('*') {
        return Err(BadRule::Wildcard);
    } else if host.contains('/') || host.parse::<Ipv4Addr>().is_ok() {
        Destination::Net(parse_net(host)?)
    } else if let Some(domain) = host.strip_prefix('.') {
        Destination::Domain(name(domain.as_bytes()).map_err(|_| BadRule::Name)?)
    } else {
        Destination::Name(name(host.as_bytes()).map_err(|_| BadRule::Name)?)
    };
    Ok((destination, ports))
}

fn rule_ports(text: &str) -> Result<PortRange, BadRule> {
    if text == "*" { Ok(ANY_PORT) } else { port_range(text) }
}

/// What is wrong with a rule, a network or a list of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadRule {
    /// There is nothing.
    Empty,
    /// Words that are not `DEST` or `DEST from NET`.
    Words,
    /// `user NAME`.
    UsersLater,
    /// Not an address, or brackets that do not stand around an IPv6 address.
    Address,
    /// Not a prefix length of the address family.
    Prefix,
    /// `10.1.2.3/8`: it is not clear whether the network or the address is meant.
    HostBits,
    /// Not a name.
    Name,
    /// `*` inside a name.
    Wildcard,
    /// Not a port, a range of ports, or a list of them.
    Ports,
}

impl BadRule {
    /// What was expected, as it stands behind "expected" in an error line.
    #[must_use]
    pub fn expected(self) -> &'static str {
        match self {
            BadRule::Empty => "a destination: name, .name, address, network or *",
            BadRule::Words => "DEST or 'DEST from NET'",
            BadRule::UsersLater => "DEST or 'DEST from NET'; users come with a later version",
            BadRule::Address => {
                "an address or a network like 10.0.0.0/8, ::1 or, with a port, [2001:db8::]/32:443"
            }
            BadRule::Prefix => "a prefix length of 0 to 32 for IPv4, 0 to 128 for IPv6",
            BadRule::HostBits => "no bits behind the prefix: 10.0.0.0/8, not 10.1.2.3/8",
            BadRule::Name => "a name of ASCII letters, digits, - and _, or a dotted quad",
            BadRule::Wildcard => "* alone; for a domain and everything under it write .example.com",
            BadRule::Ports => "ports from 1 to 65535 like 443 or 8000-8999",
        }
    }
}
