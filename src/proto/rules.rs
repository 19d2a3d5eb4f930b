//! Who may use the proxy and what may be reached, in the contract's order: deny, allow, ports, guard, default.
//! Names are judged before resolving, addresses on the way to being dialed.

use super::guard::{Carried, Net, carried, special_purpose};
use super::reply::Refusal;
use super::target::{Host, Target, name, port_number};
use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What decided, as it stands in the access line: `default`, `guard`, `connect-port`, `http-port`, `client`, `deny:.example.com`,
/// `allow:10.0.0.0/8_from_192.0.2.1`. Without white space.
pub type RuleName = Cow<'static, str>;

/// The name of what decides when [`Rules::client_may`] says no.
pub const CLIENT_RULE: RuleName = Cow::Borrowed("client");
/// The name of what decides when users are asked for and a request shows no credentials.
pub const USERS_RULE: RuleName = Cow::Borrowed("users");
/// Likewise, when the credentials are wrong: whoever watches the access log tells the two apart.
pub const WRONG_LOGIN_RULE: RuleName = Cow::Borrowed("users:wrong");
const DEFAULT_RULE: RuleName = Cow::Borrowed("default");
/// The name of the guard.
pub const GUARD_RULE: RuleName = Cow::Borrowed("guard");

/// What is asked of a destination: each has an option of its own for the ports that it may reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// A tunnel: `--connect-port`.
    Connect,
    /// Plain HTTP: `--http-port`.
    Http,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Who<'a> {
    /// The client's address; IPv4-mapped ones are judged as IPv4.
    pub address: IpAddr,
    /// Whose credentials the client has shown, if any are asked for.
    pub user: Option<&'a str>,
}

/// What can be said before a name is resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Early {
    /// Whatever its addresses are, the answer is no.
    Refuse(Refusal, RuleName),
    /// The addresses decide, in [`Rules::judge_address`]. The name is of what speaks for it until then, if anything does.
    Resolve(Option<RuleName>),
}

/// What is said about one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Dial it.
    Allow(RuleName),
    /// Leave it out; when no other candidate is left, this is the answer.
    Deny(Refusal, RuleName),
}

/// `--default`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefaultAction {
    /// What no rule names may be reached.
    Allow,
    /// What no rule names may not be reached.
    Deny,
}

/// The policy as the operator wrote it.
#[derive(Clone, Debug)]
pub struct RuleSet {
    /// Addresses that may use the proxy.
    pub clients: Vec<Net>,
    /// `--deny`, in order.
    pub deny: Vec<Rule>,
    /// `--allow`, in order.
    pub allow: Vec<Rule>,
    /// Ports that CONNECT may reach.
    pub connect_ports: Ports,
    /// Ports that plain HTTP may reach.
    pub http_ports: Ports,
    /// When no rule matches.
    pub default: DefaultAction,
}

/// The policy, compiled. Built once, shared by all loops.
#[derive(Clone, Debug)]
pub struct Rules {
    policy: RuleSet,
    own_listeners: Vec<SocketAddr>,
}

impl Rules {
    /// Compiles a policy. `own_listeners` are the addresses really bound, with real ports.
    #[must_use]
    pub fn new(policy: RuleSet, own_listeners: &[SocketAddr]) -> Rules {
        let own_listeners = own_listeners.iter().map(|&listener| canonical(listener)).collect();
        Rules { policy, own_listeners }
    }

    /// Whether this client may use the proxy at all. IPv4-mapped clients are judged as IPv4.
    #[must_use]
    pub fn client_may(&self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        self.policy.clients.iter().any(|net| net.contains(client))
    }

    /// Before resolving: can the answer be known already? It can when no rule on addresses that may still match could
    /// turn it. Addresses are never refused here: go straight to [`Rules::judge_address`] with them.
    #[must_use]
    pub fn judge_name(&self, who: Who<'_>, target: &Target, service: Service) -> Early {
        if let Host::Ip(_) = target.host {
            return Early::Resolve(None);
        }
        let asked = |rule: &&Rule| rule.speaks_for(who.address.to_canonical(), target.port);
        if let Some(rule) = self.policy.deny.iter().filter(asked).find(|rule| rule.names(&target.host)) {
            return Early::Refuse(Refusal::DeniedByRule { rule: rule.text.clone() }, rule.name("deny"));
        }
        // An allow for the name holds whatever the addresses are; one for a network may hold for one of them.
        if let Some(rule) = self.policy.allow.iter().filter(asked).find(|rule| rule.names(&target.host)) {
            return Early::Resolve(Some(rule.name("allow")));
        }
        // So may one for another name, if the search list completes this one to it.
        let may_be_completed = matches!(&target.host, Host::Name(name) if !name.contains('.'));
        if self.policy.allow.iter().filter(asked).any(|rule| may_be_completed || rule.is_for_addresses()) {
            return Early::Resolve(match self.policy.default {
                DefaultAction::Allow => Some(DEFAULT_RULE),
                DefaultAction::Deny => None,
            });
        }
        if let Some((refusal, rule)) = self.port_refusal(target.port, service) {
            return Early::Refuse(refusal, rule);
        }
        match self.policy.default {
            DefaultAction::Deny => Early::Refuse(Refusal::DeniedByDefault, DEFAULT_RULE),
            DefaultAction::Allow => Early::Resolve(Some(DEFAULT_RULE)),
        }
    }

    /// On the address that is about to be dialed, for the target that the client asked for. `completed` is the name as a
    /// search list has completed it, in lower case: rules for either name speak.
    #[must_use]
    pub fn judge_address(
        &self,
        who: Who<'_>,
        target: &Target,
        completed: Option<&str>,
        address: IpAddr,
        service: Service,
    ) -> Verdict {
        let who = Who { address: who.address.to_canonical(), ..who };
        let verdict = self.judge_by_rules(who, target, completed, address.to_canonical(), service);
        match verdict {
            // No rule lifts this: a proxy that dials itself serves nobody.
            Verdict::Allow(_) if self.is_own_listener(SocketAddr::new(address, target.port)) => {
                Verdict::Deny(Refusal::Loop, GUARD_RULE)
            }
            Verdict::Allow(_) | Verdict::Deny(_, _) => verdict,
        }
    }

    /// Whether dialing this address may reach one of our own listeners: it is one, or it has the port of a listener on
    /// a wildcard address and the caller must find out whether the address is local.
    #[must_use]
    pub fn may_be_own_listener(&self, address: SocketAddr) -> bool {
        let on_wildcard =
            |listener: &SocketAddr| listener.ip().is_unspecified() && listener.port() == address.port();
        self.is_own_listener(address) || self.own_listeners.iter().any(on_wildcard)
    }

    /// The contract's order; the first that speaks decides.
    fn judge_by_rules(
        &self,
        who: Who<'_>,
        target: &Target,
        completed: Option<&str>,
        address: IpAddr,
        service: Service,
    ) -> Verdict {
        let asked = |rule: &&Rule| rule.speaks_for(who.address, target.port);
        let names =
            |rule: &Rule| rule.names(&target.host) || completed.is_some_and(|name| rule.names_name(name));
        for rule in self.policy.deny.iter().filter(asked) {
            if names(rule) {
                return Verdict::Deny(Refusal::DeniedByRule { rule: rule.text.clone() }, rule.name("deny"));
            }
            if rule.denies(address) {
                return Verdict::Deny(Refusal::AddressDenied { rule: rule.text.clone() }, rule.name("deny"));
            }
        }
        let allows = |rule: &&Rule| names(rule) || rule.allows(address);
        if let Some(rule) = self.policy.allow.iter().filter(asked).find(allows) {
            return Verdict::Allow(rule.name("allow"));
        }
        if let Some((refusal, rule)) = self.port_refusal(target.port, service) {
            return Verdict::Deny(refusal, rule);
        }
        if let Some(range) = special_purpose(address) {
            return Verdict::Deny(Refusal::Guarded { range }, GUARD_RULE);
        }
        match self.policy.default {
            DefaultAction::Allow => Verdict::Allow(DEFAULT_RULE),
            DefaultAction::Deny => Verdict::Deny(Refusal::DeniedByDefault, DEFAULT_RULE),
        }
    }

    fn port_refusal(&self, port: u16, service: Service) -> Option<(Refusal, RuleName)> {
        let (ports, option) = match service {
            Service::Connect => (&self.policy.connect_ports, "--connect-port"),
            Service::Http => (&self.policy.http_ports, "--http-port"),
        };
        let rule = Cow::Borrowed(option.trim_start_matches('-'));
        (!ports.contain(port)).then_some((Refusal::PortNotAllowed { port, option }, rule))
    }

    /// What is surely ours: the very address, and what the kernel takes for this machine (all of 127/8 and ::1, and the
    /// unspecified address, which connect takes for loopback: ip(7)) on the port of a listener that is there.
    fn is_own_listener(&self, address: SocketAddr) -> bool {
        let dialed = canonical(address);
        let endpoint = carried(address.ip()).map(|carried| IpAddr::V4(carried.endpoint));
        self.own_listeners.iter().any(|listener| {
            let (ip, own) = (dialed.ip(), listener.ip());
            let same = ip == own
                || endpoint == Some(own)
                || (ip.is_unspecified() && (own.is_loopback() || own.is_unspecified()))
                || (ip.is_loopback() && own.is_unspecified());
            same && listener.port() == dialed.port()
        })
    }
}

/// An IPv4-mapped address as IPv4; no scope.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// A set of ports: `443,8000-8999`, or `any`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ports(Vec<PortRange>);

/// First and last port.
type PortRange = (u16, u16);
const ANY_PORT: PortRange = (1, u16::MAX);

impl Ports {
    /// These ports and no others.
    #[must_use]
    pub fn only(ports: &[u16]) -> Ports {
        Ports(ports.iter().map(|&port| (port, port)).collect())
    }

    /// Reads a list of ports.
    ///
    /// # Errors
    /// [`BadRule::Ports`].
    pub fn parse(text: &str) -> Result<Ports, BadRule> {
        if text == "any" {
            return Ok(Ports(vec![ANY_PORT]));
        }
        text.split(',').map(|part| port_range(part.trim())).collect::<Result<_, _>>().map(Ports)
    }

    fn contain(&self, port: u16) -> bool {
        self.0.iter().any(|range| in_range(*range, port))
    }
}

fn in_range((low, high): PortRange, port: u16) -> bool {
    low <= port && port <= high
}

/// `port` or `low-high`.
fn port_range(text: &str) -> Result<PortRange, BadRule> {
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    match (port_number(low.as_bytes()), port_number(high.as_bytes())) {
        (Some(low), Some(high)) if low <= high => Ok((low, high)),
        (Some(_) | None, Some(_) | None) => Err(BadRule::Ports),
    }
}

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

    /// The name in the access line.
    fn name(&self, option: &str) -> RuleName {
        Cow::Owned(format!("{option}:{}", self.text.replace(' ', "_")))
    }

    fn speaks_for(&self, client: IpAddr, port: u16) -> bool {
        in_range(self.ports, port) && self.from.is_none_or(|net| net.contains(client))
    }

    /// Whether the rule holds for this host whatever its addresses are.
    fn names(&self, host: &Host) -> bool {
        match host {
            Host::Name(name) => self.names_name(name),
            Host::Ip(_) => matches!(self.destination, Destination::Any),
        }
    }

    fn names_name(&self, asked: &str) -> bool {
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

    fn is_for_addresses(&self) -> bool {
        match self.destination {
            Destination::Net(_) => true,
            Destination::Any | Destination::Name(_) | Destination::Domain(_) => false,
        }
    }

    /// As a `--deny`: the address, or an IPv4 address that it carries, is in the network.
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    const CLIENT: &str = "192.0.2.50";

    fn ip(text: &str) -> IpAddr {
        text.parse().expect(text)
    }

    fn who(address: &str) -> Who<'static> {
        Who { address: ip(address), user: None }
    }

    fn target(text: &str) -> Target {
        Target::from_authority(text.as_bytes()).expect(text)
    }

    struct Setup {
        policy: RuleSet,
        own_listeners: Vec<SocketAddr>,
    }

    fn setup(rules: &[&str]) -> Setup {
        let mut policy = RuleSet {
            clients: vec![parse_net("192.0.2.0/24").unwrap(), parse_net("2001:db8::/32").unwrap()],
            deny: Vec::new(),
            allow: Vec::new(),
            connect_ports: Ports::only(&[443]),
            http_ports: Ports::parse("80,1024-65535").unwrap(),
            default: DefaultAction::Allow,
        };
        for rule in rules {
            match rule.split_once(' ').unwrap() {
                ("deny", rule) => policy.deny.push(Rule::parse(rule).expect(rule)),
                ("allow", rule) => policy.allow.push(Rule::parse(rule).expect(rule)),
                ("default", "deny") => policy.default = DefaultAction::Deny,
                ("port", ports) => policy.connect_ports = Ports::parse(ports).unwrap(),
                other => panic!("{other:?}"),
            }
        }
        Setup { policy, own_listeners: Vec::new() }
    }

    impl Setup {
        fn rules(&self) -> Rules {
            Rules::new(self.policy.clone(), &self.own_listeners)
        }

        /// `+rule` or `-rule/error_type`, and `early` in front if it was known before resolving.
        fn judge_from(&self, client: &str, asked: &str, address: &str) -> String {
            self.judge_for(Service::Connect, client, asked, address)
        }

        fn judge_for(&self, service: Service, client: &str, asked: &str, address: &str) -> String {
            let (rules, asked) = (self.rules(), target(asked));
            let verdict = rules.judge_address(who(client), &asked, None, ip(address), service);
            let early = match rules.judge_name(who(client), &asked, service) {
                Early::Refuse(refusal, rule) => {
                    assert!(matches!(verdict, Verdict::Deny(_, _)), "early no, late yes: {asked} {address}");
                    return format!("early -{rule}/{}", refusal.error_type());
                }
                Early::Resolve(rule) => rule.unwrap_or_default(),
            };
            if early.starts_with("allow:") {
                assert!(
                    matches!(&verdict, Verdict::Allow(late) if *late == early)
                        || matches!(verdict, Verdict::Deny(..))
                );
            }
            match verdict {
                Verdict::Allow(rule) => format!("+{rule}"),
                Verdict::Deny(refusal, rule) => format!("-{rule}/{}", refusal.error_type()),
            }
        }

        fn judge(&self, asked: &str, address: &str) -> String {
            self.judge_from(CLIENT, asked, address)
        }
    }

    #[test]
    fn a_completed_name_is_judged_as_well() {
        let judge = |rules: &[&str], address: &str| {
            let rules = setup(rules).rules();
            let (asked, completed) = (target("www:443"), Some("www.corp.test"));
            let verdict = rules.judge_address(who(CLIENT), &asked, completed, ip(address), Service::Connect);
            let early = rules.judge_name(who(CLIENT), &asked, Service::Connect);
            assert!(matches!(early, Early::Resolve(_)), "{early:?}");
            match verdict {
                Verdict::Allow(rule) => format!("+{rule}"),
                Verdict::Deny(_, rule) => format!("-{rule}"),
            }
        };
        assert_eq!(judge(&["deny .corp.test", "allow 10.0.0.0/8"], "10.0.0.1"), "-deny:.corp.test");
        assert_eq!(judge(&["allow .corp.test", "default deny"], "10.0.0.1"), "+allow:.corp.test");
        assert_eq!(judge(&["allow www"], "10.0.0.1"), "+allow:www");
        assert_eq!(judge(&[], "10.0.0.1"), "-guard");
    }

    #[test]
    fn every_step_of_the_order_and_every_pair() {
        let (denied, prohibited) = ("http_request_denied", "destination_ip_prohibited");
        let cases: &[(&[&str], &str, &str, String)] = &[
            (&[], "a.test:443", "8.8.8.8", "+default".into()),
            (&[], "a.test:443", "10.0.0.1", format!("-guard/{prohibited}")),
            (&[], "8.8.8.8:443", "8.8.8.8", "+default".into()),
            (&[], "[::1]:443", "::1", format!("-guard/{prohibited}")),
            (&[], "a.test:80", "8.8.8.8", format!("early -connect-port/{denied}")),
            (&[], "8.8.8.8:80", "8.8.8.8", format!("-connect-port/{denied}")),
            // ports before guard
            (&[], "10.0.0.1:80", "10.0.0.1", format!("-connect-port/{denied}")),
            (&["port 80"], "a.test:443", "8.8.8.8", format!("early -connect-port/{denied}")),
            // default
            (&["default deny"], "a.test:443", "8.8.8.8", format!("early -default/{denied}")),
            (&["default deny"], "8.8.8.8:443", "8.8.8.8", format!("-default/{denied}")),
            // guard before default
            (&["default deny"], "10.0.0.1:443", "10.0.0.1", format!("-guard/{prohibited}")),
            // ports before default
            (&["default deny"], "a.test:80", "8.8.8.8", format!("early -connect-port/{denied}")),
            // allow lifts ports, guard and default
            (&["allow a.test"], "a.test:80", "10.0.0.1", "+allow:a.test".into()),
            (&["allow a.test", "default deny"], "a.test:443", "8.8.8.8", "+allow:a.test".into()),
            (&["allow 10.0.0.0/8"], "a.test:80", "10.0.0.1", "+allow:10.0.0.0/8".into()),
            (&["allow 10.0.0.0/8"], "10.0.0.1:80", "10.0.0.1", "+allow:10.0.0.0/8".into()),
            // but only for what it names: just that
            (&["allow 10.0.0.0/8"], "a.test:80", "192.168.0.1", format!("-connect-port/{denied}")),
            (&["allow 10.0.0.0/8"], "a.test:443", "192.168.0.1", format!("-guard/{prohibited}")),
            (&["allow a.test:8443"], "a.test:80", "8.8.8.8", format!("early -connect-port/{denied}")),
            (&["allow a.test:8443"], "a.test:443", "10.0.0.1", format!("-guard/{prohibited}")),
            (&["allow 10.0.0.0/8", "default deny"], "a.test:443", "8.8.8.8", format!("-default/{denied}")),
            // a rule on addresses with another port cannot turn it
            (&["allow 10.0.0.0/8:22"], "a.test:80", "10.0.0.1", format!("early -connect-port/{denied}")),
            // deny before allow, whatever kind they are of
            (
                &["allow a.test", "deny a.test"],
                "a.test:443",
                "8.8.8.8",
                format!("early -deny:a.test/{denied}"),
            ),
            (
                &["allow a.test", "deny 8.0.0.0/8"],
                "a.test:443",
                "8.8.8.8",
                format!("-deny:8.0.0.0/8/{prohibited}"),
            ),
            (
                &["allow 8.0.0.0/8", "deny a.test"],
                "a.test:443",
                "8.8.8.8",
                format!("early -deny:a.test/{denied}"),
            ),
            (&["allow *", "deny .test"], "a.test:443", "8.8.8.8", format!("early -deny:.test/{denied}")),
            (&["allow *", "deny *:22"], "8.8.8.8:22", "8.8.8.8", format!("-deny:*:22/{denied}")),
            (&["allow *", "deny *:22"], "8.8.8.8:23", "8.8.8.8", "+allow:*".into()),
            // deny before ports and guard
            (&["deny a.test"], "a.test:80", "10.0.0.1", format!("early -deny:a.test/{denied}")),
            (&["deny 10.0.0.1"], "10.0.0.1:80", "10.0.0.1", format!("-deny:10.0.0.1/{prohibited}")),
            // a denied port does not need to ask DNS because of a deny on addresses
            (&["deny 10.0.0.1"], "a.test:80", "10.0.0.1", format!("early -connect-port/{denied}")),
        ];
        for (rules, asked, address, expected) in cases {
            assert_eq!(setup(rules).judge(asked, address), *expected, "{rules:?} {asked} {address}");
        }
    }

    #[test]
    fn each_service_has_its_own_ports_and_nothing_else() {
        let (http, connect) = (Service::Http, Service::Connect);
        for (rules, service, asked, address, expected) in [
            (&[][..], http, "a.test:80", "8.8.8.8", "+default"),
            (&[], http, "a.test:8080", "8.8.8.8", "+default"),
            (&[], http, "a.test:443", "8.8.8.8", "early -http-port/http_request_denied"),
            (&[], http, "8.8.8.8:22", "8.8.8.8", "-http-port/http_request_denied"),
            (&[], connect, "a.test:80", "8.8.8.8", "early -connect-port/http_request_denied"),
            // ports before guard, guard before default
            (&[], http, "10.0.0.1:22", "10.0.0.1", "-http-port/http_request_denied"),
            (&["default deny"], http, "10.0.0.1:80", "10.0.0.1", "-guard/destination_ip_prohibited"),
            // rules speak for both
            (&["allow a.test"], http, "a.test:22", "10.0.0.1", "+allow:a.test"),
            (&["allow a.test:443"], http, "a.test:443", "8.8.8.8", "+allow:a.test:443"),
            (&["deny a.test"], http, "a.test:22", "8.8.8.8", "early -deny:a.test/http_request_denied"),
            (&["deny *:8080"], http, "a.test:8080", "8.8.8.8", "early -deny:*:8080/http_request_denied"),
        ] {
            let answer = setup(rules).judge_for(service, CLIENT, asked, address);
            assert_eq!(answer, expected, "{rules:?} {service:?} {asked} {address}");
        }
        let Early::Refuse(refusal, _) =
            setup(&[]).rules().judge_name(who(CLIENT), &target("a.test:22"), http)
        else {
            panic!("not refused")
        };
        assert_eq!(refusal.details(), "port 22 is not in --http-port");
    }

    #[test]
    fn every_form_of_a_rule() {
        let all: &[(&str, &str, &str, bool)] = &[
            ("a.test", "a.test:1", "8.8.8.8", true),
            ("A.Test.", "a.test:1", "8.8.8.8", true),
            ("a.test", "A.TEST.:1", "8.8.8.8", true),
            ("a.test", "b.a.test:1", "8.8.8.8", false),
            (".a.test", "a.test:1", "8.8.8.8", true),
            (".a.test", "c.b.a.test:1", "8.8.8.8", true),
            (".a.test", "ba.test:1", "8.8.8.8", false),
            (".a.test", "a.test.b:1", "8.8.8.8", false),
            ("*", "8.8.8.8:1", "8.8.8.8", true),
            ("*", "a.test:65535", "8.8.8.8", true),
            ("*:80-90", "a.test:80", "8.8.8.8", true),
            ("*:80-90", "a.test:90", "8.8.8.8", true),
            ("*:80-90", "a.test:91", "8.8.8.8", false),
            ("*:80-90", "a.test:79", "8.8.8.8", false),
            ("a.test:*", "a.test:7", "8.8.8.8", true),
            ("a.test:7", "a.test:7", "8.8.8.8", true),
            ("a.test:7", "a.test:8", "8.8.8.8", false),
            ("8.8.8.8", "a.test:7", "8.8.8.8", true),
            ("8.8.8.8", "a.test:7", "8.8.8.9", false),
            ("8.8.8.8:7", "a.test:7", "8.8.8.8", true),
            ("8.8.8.8:7", "a.test:8", "8.8.8.8", false),
            ("8.0.0.0/8:7-9", "a.test:8", "8.1.2.3", true),
            ("0.0.0.0/0", "a.test:8", "8.1.2.3", true),
            ("0.0.0.0/0", "a.test:8", "2606::1", false),
            ("::/0", "a.test:8", "2606::1", true),
            ("::/0", "a.test:8", "8.8.8.8", false),
            ("2606::1", "a.test:8", "2606::1", true),
            ("2606::/16", "[2606::1]:8", "2606::1", true),
            ("[2606::1]", "a.test:8", "2606::1", true),
            ("[2606::1]:8", "a.test:8", "2606::1", true),
            ("[2606::1]:8", "a.test:9", "2606::1", false),
            ("[2606::]/16", "a.test:9", "2606::1", true),
            ("[2606::]/16:8-9", "a.test:9", "2606::1", true),
            ("[2606::]/16:8-9", "a.test:10", "2606::1", false),
            ("[2606::]/16:*", "a.test:10", "2606::1", true),
            ("::ffff:8.0.0.0/104", "a.test:10", "8.8.8.8", true),
            ("8.8.8.8", "[::ffff:8.8.8.8]:10", "::ffff:8.8.8.8", true),
            ("8.8.8.8", "a.test:10", "64:ff9b::8.8.8.8", true),
            ("8.8.8.8", "a.test:10", "2002:808:808::1", true),
        ];
        for (rule, asked, address, matches) in all {
            let (allowed, denied) = (format!("allow {rule}"), format!("deny {rule}"));
            let answer = setup(&[&allowed, "default deny", "port any"]).judge(asked, address);
            assert_eq!(answer.starts_with("+allow:"), *matches, "{rule} {asked} {address}: {answer}");
            let answer = setup(&[&denied, "port any"]).judge(asked, address);
            assert_eq!(answer.contains("-deny:"), *matches, "{rule} {asked} {address}: {answer}");
            assert!(!answer.trim_start_matches("early ").contains(' '), "{answer}");
        }
    }

    #[test]
    fn a_wide_ipv6_allow_does_not_open_what_ipv6_carries() {
        for address in ["2002:7f00:1::1", "64:ff9b::127.0.0.1", "::127.0.0.1", "2001:0:7f00:1::f7f7:f7f7"] {
            let asked = format!("[{address}]:443");
            for rule in ["allow 2000::/3", "allow ::/0", "allow 64::/16"] {
                let answer = setup(&[rule]).judge(&asked, address);
                assert!(answer.starts_with("-guard/"), "{rule} {address}: {answer}");
            }
            assert!(
                setup(&["deny ::/0", "allow *"]).judge(&asked, address).starts_with("-deny:"),
                "{address}"
            );
        }
        let answer = setup(&["allow 64:ff9b::/96"]).judge("[64:ff9b::7f00:1]:443", "64:ff9b::7f00:1");
        assert_eq!(answer, "+allow:64:ff9b::/96");
        let answer = setup(&["allow 127.0.0.0/8"]).judge("[64:ff9b::7f00:1]:443", "64:ff9b::7f00:1");
        assert_eq!(answer, "+allow:127.0.0.0/8");
    }

    #[test]
    fn rules_from_a_network_speak_only_for_it() {
        let setup = setup(&["deny .example.com  from 10.0.0.0/24", "allow *:22 from 2001:db8::7"]);
        let denied = "early -deny:.example.com_from_10.0.0.0/24/http_request_denied";
        assert_eq!(setup.judge_from("10.0.0.9", "a.example.com:443", "8.8.8.8"), denied);
        assert_eq!(setup.judge_from("::ffff:10.0.0.9", "a.example.com:443", "8.8.8.8"), denied);
        assert_eq!(setup.judge_from("10.0.1.9", "a.example.com:443", "8.8.8.8"), "+default");
        assert_eq!(setup.judge_from("2001:db8::7", "a.test:22", "8.8.8.8"), "+allow:*:22_from_2001:db8::7");
        assert!(setup.judge_from("2001:db8::8", "a.test:22", "8.8.8.8").starts_with("early -connect-port/"));
    }

    #[test]
    fn clients() {
        let rules = setup(&[]).rules();
        for (client, may) in [
            ("192.0.2.1", true),
            ("::ffff:192.0.2.1", true),
            ("192.0.3.1", false),
            ("2001:db8::1", true),
            ("2001:db9::1", false),
            ("::192.0.2.1", false),
            ("127.0.0.1", false),
        ] {
            assert_eq!(rules.client_may(ip(client)), may, "{client}");
        }
    }

    #[test]
    fn own_listeners_are_never_dialed() {
        let mut setup = setup(&["allow *"]);
        setup.own_listeners = vec!["192.0.2.1:8080".parse().unwrap(), "[::]:3128".parse().unwrap()];
        for (address, port, own, may_be) in [
            ("192.0.2.1", 8080, true, true),
            ("::ffff:192.0.2.1", 8080, true, true),
            ("64:ff9b::192.0.2.1", 8080, true, true),
            ("192.0.2.1", 8081, false, false),
            ("192.0.2.2", 8080, false, false),
            ("127.0.0.1", 8080, false, false),
            ("127.0.0.1", 3128, true, true),
            ("127.9.9.9", 3128, true, true),
            ("0.0.0.0", 3128, true, true),
            ("::", 3128, true, true),
            ("::1", 3128, true, true),
            ("192.0.2.1", 3128, false, true),
            ("8.8.8.8", 3128, false, true),
        ] {
            let answer = setup.judge(&format!("a.test:{port}"), address);
            let expected = if own { "-guard/proxy_loop_detected" } else { "+allow:*" };
            assert_eq!(answer, expected, "{address} {port}");
            let dialed = SocketAddr::new(ip(address), port);
            assert_eq!(setup.rules().may_be_own_listener(dialed), may_be, "{dialed}");
        }
        setup.own_listeners = vec!["127.0.0.1:8080".parse().unwrap()];
        assert_eq!(setup.judge("a.test:8080", "0.0.0.0"), "-guard/proxy_loop_detected");
    }

    #[test]
    fn bad_rules_say_what_was_expected() {
        for (rule, bad) in [
            ("", BadRule::Empty),
            ("  ", BadRule::Empty),
            ("a.test b.test", BadRule::Words),
            ("a.test from", BadRule::Words),
            ("a.test from 10.0.0.0/8 x", BadRule::Words),
            ("a.test user alice", BadRule::UsersLater),
            ("a.test from 10.0.0.0/8 user alice", BadRule::UsersLater),
            ("a.test from b.test", BadRule::Address),
            ("a.test from 10.0.0.1/8", BadRule::HostBits),
            ("10.0.0.1/8", BadRule::HostBits),
            ("[2001:db8::1]/32", BadRule::HostBits),
            ("10.0.0.0/33", BadRule::Prefix),
            ("10.0.0.0/", BadRule::Prefix),
            ("10.0.0.0/+8", BadRule::Prefix),
            ("10.0.0.0/999", BadRule::Prefix),
            ("::/129", BadRule::Prefix),
            ("[::1", BadRule::Address),
            ("[1.2.3.4]", BadRule::Address),
            ("[::1]443", BadRule::Address),
            ("[a.test]:1", BadRule::Address),
            ("2001:db8::1:x", BadRule::Address),
            ("a.test/8", BadRule::Address),
            ("1.2.3", BadRule::Name),
            ("2130706433", BadRule::Name),
            ("0x7f.1", BadRule::Name),
            (".", BadRule::Name),
            ("..a", BadRule::Name),
            (":443", BadRule::Name),
            ("b\u{fc}cher.test", BadRule::Name),
            ("*.a.test", BadRule::Wildcard),
            ("a.test:", BadRule::Ports),
            ("a.test:0", BadRule::Ports),
            ("a.test:2-1", BadRule::Ports),
            ("a.test:1,2", BadRule::Ports),
            ("a.test:65536", BadRule::Ports),
            ("a.test:any", BadRule::Ports),
            ("[::1]:", BadRule::Ports),
        ] {
            assert_eq!(Rule::parse(rule), Err(bad), "{rule:?}");
            assert!(!bad.expected().is_empty());
        }
    }

    #[test]
    fn lists_of_ports() {
        let ports = Ports::parse("443,8000-8999, 1").unwrap();
        for (port, inside) in
            [(443, true), (8000, true), (8999, true), (9000, false), (7999, false), (1, true)]
        {
            assert_eq!(ports.contain(port), inside, "{port}");
        }
        assert!(Ports::parse("any").unwrap().contain(65535));
        for bad in ["", ",", "443,", "0", "1-", "-1", "2-1", "any,1", "*", "65536", "http", "1-2-3"] {
            assert_eq!(Ports::parse(bad), Err(BadRule::Ports), "{bad:?}");
        }
    }
}
