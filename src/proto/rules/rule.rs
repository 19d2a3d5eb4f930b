//! One rule on destinations, and how it is written.

use super::super::guard::{Carried, Net, carried};
use super::super::target::{BadTarget, name};
use super::ports::{ANY_PORT, PortRange, in_range, port_range};
use super::tier::{Action, Asked, By};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Longest user name in a rule: what `htpasswd` takes.
const MAX_USER_BYTES: usize = 255;

/// One `--allow` or `--deny`: `DEST [from NET] [user NAME]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// As the operator wrote it, with single spaces.
    text: Box<str>,
    destination: Destination,
    ports: PortRange,
    /// Only for clients in here.
    from: Option<Net>,
    /// Only for this user, to the letter.
    user: Option<Box<str>>,
}

/// What a DEST names, without its ports. Names are canonical.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Destination {
    Any,
    /// Exactly this name.
    Name(Box<str>),
    /// This name and all under it.
    Domain(Box<str>),
    /// All under this name, but not the name itself.
    Under(Box<str>),
    Net(Net),
}

impl Rule {
    /// Reads a rule.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn parse(text: &str) -> Result<Rule, BadRule> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let Some((destination, behind)) = words.split_first() else { return Err(BadRule::Empty) };
        let (mut from, mut user) = (None, None);
        for pair in behind.chunks(2) {
            match *pair {
                ["from", net] if from.is_none() => from = Some(parse_net(net)?),
                ["user", name] if user.is_none() => user = Some(parse_user(name)?),
                // Words, not an enum of ours.
                _ => return Err(BadRule::Words),
            }
        }
        let (destination, ports) = parse_destination(destination)?;
        Ok(Rule { text: words.join(" ").into_boxed_str(), destination, ports, from, user })
    }

    /// As the operator wrote it, with single spaces.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// What its texts take.
    pub(super) fn text_bytes(&self) -> usize {
        let name = match &self.destination {
            Destination::Name(name) | Destination::Domain(name) | Destination::Under(name) => name.len(),
            Destination::Any | Destination::Net(_) => 0,
        };
        self.text.len() + name + self.user().map_or(0, str::len)
    }

    /// The user, if it is for one only.
    pub(super) fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// Whether it has anything to say about this client, its user and this port.
    pub(super) fn speaks_for(&self, asked: &Asked<'_>) -> bool {
        in_range(self.ports, asked.target.port)
            && self.from.is_none_or(|net| net.contains(asked.who.address))
            && self.user.as_deref().is_none_or(|user| asked.who.user == Some(user))
    }

    /// Whether it speaks and holds, and by what.
    pub(super) fn matches(&self, asked: &Asked<'_>, action: Action) -> Option<By> {
        if !self.speaks_for(asked) {
            return None;
        }
        if self.destination == Destination::Any || asked.names().any(|name| self.names(name)) {
            return Some(By::Name);
        }
        let inside = match action {
            Action::Deny => self.denies(asked.address?),
            Action::Allow => self.allows(asked.address?),
        };
        inside.then_some(By::Address)
    }

    /// Whether it holds for this name whatever its addresses are.
    fn names(&self, asked: &str) -> bool {
        let behind = |domain: &str| asked.strip_suffix(domain);
        match &self.destination {
            Destination::Any => true,
            Destination::Name(name) => **name == *asked,
            Destination::Domain(domain) => {
                behind(domain).is_some_and(|under| under.is_empty() || under.ends_with('.'))
            }
            Destination::Under(domain) => behind(domain).is_some_and(|under| under.ends_with('.')),
            Destination::Net(_) => false,
        }
    }

    pub(super) fn is_for_addresses(&self) -> bool {
        matches!(self.destination, Destination::Net(_))
    }

    /// As a `--deny`: the address, or an IPv4 address that it carries, is in the network. [`super::nets::Nets`] does the
    /// same for many networks.
    fn denies(&self, address: IpAddr) -> bool {
        let Destination::Net(net) = self.destination else { return false };
        let inside = |carried: Carried| {
            net.contains(IpAddr::V4(carried.endpoint)) || net.contains(IpAddr::V4(carried.helper))
        };
        net.contains(address) || carried(address).is_some_and(inside)
    }

    /// As an `--allow`: an address that carries IPv4 is judged as IPv4, so that `2000::/3` does not open what 6to4 hides.
    /// Only a network inside the carrying form (`64:ff9b::/96`) speaks of the carriers themselves.
    fn allows(&self, address: IpAddr) -> bool {
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

/// The name of a user: it is compared to the letter, and can be one of an htpasswd file.
fn parse_user(name: &str) -> Result<Box<str>, BadRule> {
    let bad = |of: char| of == ':' || of.is_control();
    if name.len() > MAX_USER_BYTES || name.contains(bad) {
        return Err(BadRule::User);
    }
    Ok(name.into())
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
pub(super) fn parse_destination(word: &str) -> Result<(Destination, PortRange), BadRule> {
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
    } else if let Some(domain) = host.strip_prefix("*.") {
        Destination::Under(rule_name(domain)?)
    } else if host.contains('/') || host.parse::<Ipv4Addr>().is_ok() {
        Destination::Net(parse_net(host)?)
    } else if let Some(domain) = host.strip_prefix('.') {
        Destination::Domain(rule_name(domain)?)
    } else {
        Destination::Name(rule_name(host)?)
    };
    Ok((destination, ports))
}

/// A name in canonical form: lower case, without the last dot.
pub(super) fn rule_name(text: &str) -> Result<Box<str>, BadRule> {
    if text.contains('*') {
        return Err(BadRule::Wildcard);
    }
    name(text.as_bytes())
        .map_err(|bad| if bad == BadTarget::NotAscii { BadRule::NotAscii } else { BadRule::Name })
}

fn rule_ports(text: &str) -> Result<PortRange, BadRule> {
    if text == "*" { Ok(ANY_PORT) } else { port_range(text) }
}

/// What is wrong with a rule, a network or a list of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadRule {
    /// There is nothing.
    Empty,
    /// Words that are not `DEST`, `from NET` or `user NAME`.
    Words,
    /// A user name that no htpasswd file can hold.
    User,
    /// Not an address, or brackets that do not stand around an IPv6 address.
    Address,
    /// Not a prefix length of the address family.
    Prefix,
    /// `10.1.2.3/8`: it is not clear whether the network or the address is meant.
    HostBits,
    /// Not a name.
    Name,
    /// A name that is not ASCII: it could be written in several ways, DNS knows only one.
    NotAscii,
    /// `*` anywhere but in front.
    Wildcard,
    /// A hosts-file line with an address that sinks nothing.
    Sink,
    /// A hosts-file line with an address in the place of a name.
    AddressAsName,
    /// Not a port, a range of ports, or a list of them.
    Ports,
}

impl BadRule {
    /// What was expected, as it stands behind "expected" in an error line.
    #[must_use]
    pub fn expected(self) -> &'static str {
        match self {
            BadRule::Empty => "a destination: name, .name, address, network or *",
            BadRule::Words => {
                "DEST, and behind it 'from NET' and 'user NAME' as needed; no name may have a space in it"
            }
            BadRule::User => {
                "a user name of at most 255 bytes without a colon and without control characters"
            }
            BadRule::Address => {
                "an address or a network like 10.0.0.0/8, ::1 or, with a port, [2001:db8::]/32:443"
            }
            BadRule::Prefix => "a prefix length of 0 to 32 for IPv4, 0 to 128 for IPv6",
            BadRule::HostBits => "no bits behind the prefix: 10.0.0.0/8, not 10.1.2.3/8",
            BadRule::Name => "a name of ASCII letters, digits, - and _, or a dotted quad",
            BadRule::NotAscii => "the xn-- form of the name: rules are ASCII, as DNS is",
            BadRule::Wildcard => {
                "* alone or as the first label: *.example.com is everything under it, .example.com that and it"
            }
            BadRule::Sink => "0.0.0.0, 127.0.0.1, :: or ::1 in front of the names of a hosts line",
            BadRule::AddressAsName => "names in a hosts line: an address to name stands alone on its line",
            BadRule::Ports => "ports from 1 to 65535 like 443 or 8000-8999",
        }
    }
}
