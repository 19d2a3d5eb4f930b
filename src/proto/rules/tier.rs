//! All rules that deny, or all that allow: those of the options, then those of the lists, in order. The first that holds
//! decides.

use super::super::reply::Refusal;
use super::super::target::{Host, Target};
use super::list::List;
use super::rule::Rule;
use super::{RuleName, Who};
use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

/// What rules are for. The two differ in what they make of IPv4 addresses inside IPv6 ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Deny,
    Allow,
}

/// What rules are asked about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    /// With an address that is not IPv4-mapped.
    pub(super) who: Who<'a>,
    pub(super) target: &'a Target,
    /// See [`super::Rules::judge_address`].
    pub(super) completed: Option<&'a str>,
    /// The address that is about to be dialed, once it is known; not IPv4-mapped.
    pub(super) address: Option<IpAddr>,
}

impl<'a> Asked<'a> {
    /// The names that were asked for: none if it was an address.
    pub(super) fn names(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let name: Option<&str> = match &self.target.host {
            Host::Name(name) => Some(name),
            Host::Ip(_) => None,
        };
        name.into_iter().chain(self.completed)
    }

    /// Whether the search list may yet make another name of what was asked for.
    fn may_be_completed(&self) -> bool {
        matches!(&self.target.host, Host::Name(name) if !name.contains('.'))
    }
}

/// By what a rule holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// Whatever the addresses are.
    Name,
    Address,
}

/// See the module's documentation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tier<'a> {
    pub(super) action: Action,
    pub(super) rules: &'a [Rule],
    pub(super) lists: &'a [Arc<List>],
}

impl<'a> Tier<'a> {
    /// The first rule that holds.
    pub(super) fn first(&self, asked: &Asked<'_>) -> Option<Found<'a>> {
        let action = self.action;
        for rule in self.rules {
            if let Some(by) = rule.matches(asked, action) {
                return Some(Found { action, by, list: None, text: Cow::Borrowed(rule.text()) });
            }
        }
        for list in self.lists {
            if let Some((by, text)) = list.find(asked, action) {
                return Some(Found { action, by, list: Some(list), text });
            }
        }
        None
    }

    /// Whether a rule may yet hold for one of the addresses, or for the name that a search list makes.
    pub(super) fn may_yet_hold(&self, asked: &Asked<'_>) -> bool {
        let any_name = asked.may_be_completed();
        let may_hold = |rule: &Rule| (any_name || rule.is_for_addresses()) && rule.speaks_for(asked);
        self.rules.iter().any(may_hold)
            || self.lists.iter().any(|list| {
                list.may_yet_hold(asked.target.port, any_name) || list.rules().iter().any(may_hold)
            })
    }
}

/// A rule that holds.
#[derive(Debug)]
pub(super) struct Found<'a> {
    action: Action,
    by: By,
    /// Where it stands, if it is not an option.
    list: Option<&'a List>,
    text: Cow<'a, str>,
}

impl Found<'_> {
    /// Its name in the access line.
    pub(super) fn name(&self) -> RuleName {
        let text = self.text.replace(' ', "_");
        let (option, list_option) = match self.action {
            Action::Deny => ("deny:", "deny-file:"),
            Action::Allow => ("allow:", "allow-file:"),
        };
        Cow::Owned(match self.list {
            None => [option, &text].concat(),
            Some(list) => [list_option, list.label(), ":", &text].concat(),
        })
    }

    /// The answer, if it is one that denies. Of the way to a list, clients see only its end.
    pub(super) fn refusal(&self) -> Refusal {
        let rule = match self.list {
            None => ["--deny ", &self.text].concat(),
            Some(list) => ["--deny-file ", list.file_name(), " (", &self.text, ")"].concat(),
        };
        match self.by {
            By::Name => Refusal::DeniedByRule { rule: rule.into() },
            By::Address => Refusal::AddressDenied { rule: rule.into() },
        }
    }
}
