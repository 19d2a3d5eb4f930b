//! Who may use the proxy and what may be reached, in the contract's order: deny, allow, ports, guard, default.
//! Names are judged before resolving, addresses on the way to being dialed.

mod list;
mod names;
mod nets;
mod ports;
mod rule;
mod sort;
mod tier;

use super::guard::{Net, carried, special_purpose};
use super::reply::Refusal;
use super::target::{Host, Target};
pub use list::{BadLines, List, MAX_BAD_LINES, MAX_LIST_BYTES, MAX_LIST_RANGES};
pub use ports::Ports;
pub use rule::{BadRule, Rule, parse_net};
use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tier::{Action, Asked, Tier};

/// What decided, as it stands in the access line: `default`, `guard`, `connect-port`, `http-port`, `client`, `deny:.example.com`,
/// `allow:10.0.0.0/8_from_192.0.2.1`, `deny-file:/etc/adit/ads.txt:.example.com`. Without white space.
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
    /// `--deny-file`, in order: asked when no rule of [`RuleSet::deny`] holds. Shared, as each may be large.
    pub deny_lists: Vec<Arc<List>>,
    /// `--allow`, in order.
    pub allow: Vec<Rule>,
    /// `--allow-file`, likewise.
    pub allow_lists: Vec<Arc<List>>,
    /// Ports that CONNECT may reach.
    pub connect_ports: Ports,
    /// Ports that plain HTTP may reach.
    pub http_ports: Ports,
    /// When no rule matches.
    pub default: DefaultAction,
}

impl RuleSet {
    /// The rules that are for one user only: those of the options first, then those of the lists.
    pub fn rules_for_a_user(&self) -> impl Iterator<Item = RuleForUser<'_>> {
        let options = self.deny.iter().chain(&self.allow).map(|rule| (rule, None));
        let lists = self.deny_lists.iter().chain(&self.allow_lists);
        let in_lists = lists.flat_map(|list| list.rules().iter().map(|rule| (rule, Some(list.label()))));
        options
            .chain(in_lists)
            .filter_map(|(rule, list)| Some(RuleForUser { user: rule.user()?, rule: rule.text(), list }))
    }
}

/// A rule that is for one user only. It never speaks where nobody is asked for credentials, or where that user is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleForUser<'a> {
    /// Whom it is for.
    pub user: &'a str,
    /// As the operator wrote it, with single spaces.
    pub rule: &'a str,
    /// The label of the list that it stands in, if it is not an option.
    pub list: Option<&'a str>,
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
        let asked = Asked { who: canonical_who(who), target, completed: None, address: None };
        if let Some(found) = self.deny().first(&asked) {
            return Early::Refuse(found.refusal(), found.name());
        }
        // An allow for the name holds whatever the addresses are; one for a network may hold for one of them, and one for
        // another name if the search list completes this one to it.
        let allow = self.allow();
        if let Some(found) = allow.first(&asked) {
            return Early::Resolve(Some(found.name()));
        }
        if allow.may_yet_hold(&asked) {
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
        let judged = address.to_canonical();
        let asked = Asked { who: canonical_who(who), target, completed, address: Some(judged) };
        let verdict = self.judge_by_rules(&asked, judged, service);
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
    fn judge_by_rules(&self, asked: &Asked<'_>, address: IpAddr, service: Service) -> Verdict {
        if let Some(found) = self.deny().first(asked) {
            return Verdict::Deny(found.refusal(), found.name());
        }
        if let Some(found) = self.allow().first(asked) {
            return Verdict::Allow(found.name());
        }
        if let Some((refusal, rule)) = self.port_refusal(asked.target.port, service) {
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

    fn deny(&self) -> Tier<'_> {
        Tier { action: Action::Deny, rules: &self.policy.deny, lists: &self.policy.deny_lists }
    }

    fn allow(&self) -> Tier<'_> {
        Tier { action: Action::Allow, rules: &self.policy.allow, lists: &self.policy.allow_lists }
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

/// An IPv4-mapped client as IPv4.
fn canonical_who(who: Who<'_>) -> Who<'_> {
    Who { address: who.address.to_canonical(), ..who }
}

/// An IPv4-mapped address as IPv4; no scope.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests;
