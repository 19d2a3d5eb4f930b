//! Whose request it is: what stands between a whole head and what it asks for. Each request shows its own credentials, and
//! nothing that another user of the connection was allowed holds for it.

use std::fmt::{self, Debug};
use std::sync::Arc;

use super::{Answer, Login, Lookup, Policy, Session, State};
use crate::proto::fields::Fields;
use crate::proto::login_queue::CREDENTIALS_MAX_BYTES;
use crate::proto::reply::{Credentials, Refusal};
use crate::proto::rules::{USERS_RULE, WRONG_LOGIN_RULE};
use crate::proto::tick::Tick;

/// Milliseconds that credentials may take to be verified.
pub const LOGIN_TIMEOUT_MS: u64 = 10_000;
/// Room for credentials that is kept from request to request.
const CREDENTIALS_KEPT_BYTES: usize = 128;

/// Credentials as a request has shown them, and what it is about.
pub(super) struct Shown {
    /// The field's value; nothing once it is judged.
    value: Vec<u8>,
    pub(super) lookup: Lookup,
    pub(super) then: Then,
    /// Whose the last request on this connection was: what it has proven holds for no other.
    pub(super) before: Option<Arc<str>>,
}

/// What a request comes to once it is known whose it is.
pub(super) enum Then {
    /// A tunnel to [`Session::target`].
    Connect,
    /// Plain HTTP to the target of the last request.
    Again,
    /// Plain HTTP to another one.
    Forward,
    /// The proxy is asked itself.
    Answer(Answer),
    /// It has been here before.
    ViaLoop,
}

impl Debug for Shown {
    /// Never the credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Shown").field(&self.lookup).finish()
    }
}

impl Shown {
    /// Memory that it can own.
    pub(super) const BYTES_MAX: usize = size_of::<Shown>() + CREDENTIALS_MAX_BYTES;

    /// What a request shows, if anything is asked for. `kept` is what the last one has left.
    pub(super) fn read(
        kept: Option<Box<Shown>>,
        fields: Fields<'_>,
        policy: &Policy,
    ) -> Result<Option<Box<Shown>>, Credentials> {
        if policy.users.is_none() {
            return Ok(None);
        }
        let mut values = fields.values("proxy-authorization");
        match (values.next(), values.next()) {
            (None, _) => Err(Credentials::Missing),
            (Some(value), None) if value.len() <= CREDENTIALS_MAX_BYTES => {
                let mut shown = kept.unwrap_or_else(|| Box::new(Shown::new()));
                shown.value.extend_from_slice(value);
                Ok(Some(shown))
            }
            (Some(_), None | Some(_)) => Err(Credentials::Wrong),
        }
    }

    fn new() -> Shown {
        Shown { value: Vec::new(), lookup: Lookup::ToAsk, then: Then::Connect, before: None }
    }

    fn forget(&mut self) {
        self.value.clear();
        if self.value.capacity() > CREDENTIALS_KEPT_BYTES {
            self.value = Vec::new();
        }
        self.lookup = Lookup::ToAsk;
    }
}

impl Session {
    /// A request is understood, and shows that.
    pub(super) fn authenticate(
        &mut self,
        shown: Result<Option<Box<Shown>>, Credentials>,
        then: Then,
        now: Tick,
        policy: &Policy,
    ) {
        match shown {
            Ok(None) => self.go_on(then, now, policy),
            Ok(Some(mut shown)) => {
                shown.then = then;
                self.state = State::Authenticating(shown);
                self.enter(now, LOGIN_TIMEOUT_MS);
            }
            Err(why) => self.refuse_login(why, now, policy),
        }
    }

    /// What [`super::Step::Authenticate`] is about: the value of the field, as it came.
    #[must_use]
    pub fn credentials(&self) -> Option<&[u8]> {
        match &self.state {
            State::Authenticating(shown) => Some(&shown.value),
            State::Idle
            | State::ReadingHead(_)
            | State::Reusing
            | State::Resolving { .. }
            | State::Dialing(_)
            | State::Tunneling
            | State::Forwarding
            | State::Replying(_)
            | State::Lingering { .. }
            | State::Closed => None,
        }
    }

    /// Whether the answer to [`super::Step::Authenticate`] is awaited.
    #[must_use]
    pub fn wants_login(&self) -> bool {
        matches!(&self.state, State::Authenticating(shown) if shown.lookup == Lookup::Asked)
    }

    /// The answer to [`super::Step::Authenticate`].
    pub fn on_login(&mut self, login: Login, now: Tick, policy: &Policy) {
        let State::Authenticating(shown) = &mut self.state else { return };
        let then = std::mem::replace(&mut shown.then, Then::Connect);
        let user = match login {
            Login::User(name) => Some(name),
            Login::Needless => None,
            Login::Wrong => return self.refuse_login(Credentials::Wrong, now, policy),
            Login::Busy => return self.refuse(Refusal::LoginsBusy, now, policy),
            Login::ClientBusy => return self.refuse(Refusal::ClientLoginsBusy, now, policy),
        };
        let is_same = shown.before.take() == user;
        shown.forget();
        if let (Some(http), State::Authenticating(shown)) =
            (&mut self.http, std::mem::replace(&mut self.state, State::Idle))
        {
            http.shown = Some(shown);
            if !is_same {
                http.forget_proof();
            }
        }
        self.user = user;
        self.go_on(then, now, policy);
    }

    fn go_on(&mut self, then: Then, now: Tick, policy: &Policy) {
        match then {
            Then::Connect => self.connect(now, policy),
            Then::Again | Then::Forward => self.find_upstream(matches!(then, Then::Again), now, policy),
            Then::Answer(answer) => self.give(answer, now),
            Then::ViaLoop => self.refuse(Refusal::ViaLoop, now, policy),
        }
    }

    fn refuse_login(&mut self, why: Credentials, now: Tick, policy: &Policy) {
        self.rule = Some(match why {
            Credentials::Missing => USERS_RULE,
            Credentials::Wrong => WRONG_LOGIN_RULE,
        });
        self.refuse(Refusal::NotAuthenticated(why), now, policy);
    }
}
