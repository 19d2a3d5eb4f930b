//! Whose requests they are: known from before, or asked of the thread that verifies credentials. A loop never does that itself.

use std::net::IpAddr;
use std::sync::Arc;

use super::EventLoop;
use crate::proto::credentials;
use crate::proto::login_queue::Question;
use crate::proto::logins::{Logins, Tag, Verdict};
use crate::proto::session::{Login, Outcome};
use crate::proto::tick::Tick;
use crate::proto::users::Users;
use crate::sys::logins::{LoginDesk, Reply};
use crate::sys::shared::{Judged, Mailbox};

/// What one loop knows of logins.
pub(super) struct Door {
    desk: Arc<LoginDesk>,
    /// What the desk calls this loop.
    number: u16,
    known: Logins,
    /// Sessions that wait for an answer.
    waiting: Vec<(Tag, usize)>,
}

impl Door {
    /// `most` verdicts are remembered.
    pub(super) fn new(desk: Arc<LoginDesk>, mailbox: Arc<Mailbox>, most: usize) -> Door {
        let number = desk.register(mailbox);
        Door { desk, number, known: Logins::new(most), waiting: Vec::new() }
    }

    /// Whose credentials these are. `None`: session `key` waits for the answer.
    fn judge(
        &mut self,
        users: Option<&Arc<Users>>,
        value: &[u8],
        client: IpAddr,
        key: usize,
        now: Tick,
    ) -> Option<Login> {
        let Some(users) = users else { return Some(Login::Needless) };
        let Some(token) = credentials::token(value) else { return Some(Login::Wrong) };
        let tag = self.desk.tag(token);
        if let Some(verdict) = self.known.find(tag, now) {
            return Some(login(verdict));
        }
        let Some(basic) = credentials::decode(token) else { return Some(Login::Wrong) };
        if !self.is_awaited(tag) {
            let question = Question { tag, basic, users: Arc::clone(users) };
            match self.desk.ask(question, client, self.number) {
                Reply::Known(verdict) => return Some(login(self.learn(tag, verdict, now))),
                Reply::Waits => {}
                Reply::QueueFull => return Some(Login::Busy),
                Reply::ClientFull => return Some(Login::ClientBusy),
            }
        }
        self.waiting.push((tag, key));
        None
    }

    /// With a name of its own: what loops share, they would fight for.
    fn learn(&mut self, tag: Tag, verdict: Verdict, now: Tick) -> Verdict {
        let verdict = verdict.map(|name| Arc::from(&*name));
        self.known.remember(tag, verdict.clone(), now);
        verdict
    }

    fn is_awaited(&self, tag: Tag) -> bool {
        self.waiting.iter().any(|&(other, _)| other == tag)
    }

    /// That session does not wait any more.
    pub(super) fn cancel(&mut self, key: usize) {
        let Some(at) = self.waiting.iter().position(|&(_, other)| other == key) else { return };
        let (tag, _) = self.waiting.swap_remove(at);
        if !self.is_awaited(tag) {
            self.desk.withdraw(tag, self.number);
        }
    }
}

fn login(verdict: Verdict) -> Login {
    verdict.map_or(Login::Wrong, Login::User)
}

impl EventLoop {
    pub(super) fn authenticate(&mut self, key: usize) -> Option<Outcome> {
        let entry = self.sessions.get_mut(key)?;
        let session = &mut entry.session;
        let (users, client) = (self.policy.users.as_ref(), session.client().ip());
        match self.door.judge(users, session.credentials()?, client, key, self.now) {
            Some(login) => {
                session.on_login(login, self.now, &self.policy);
                None
            }
            None => {
                entry.logging_in = true;
                Some(Outcome::Done)
            }
        }
    }

    /// An answer has come. By a users file that is not in force it says nothing; and one that nobody waits for is not needed.
    pub(super) fn on_judged(&mut self, tag: Tag, users: &Arc<Users>, judged: Judged) {
        let is_in_force = self.policy.users.as_ref().is_some_and(|own| Arc::ptr_eq(own, users));
        if !is_in_force || !self.door.is_awaited(tag) {
            return;
        }
        let login = match judged {
            Judged::Verdict(verdict) => login(self.door.learn(tag, verdict, self.now)),
            Judged::PushedOut => Login::Busy,
        };
        while let Some(at) = self.door.waiting.iter().position(|&(other, _)| other == tag) {
            let (_, key) = self.door.waiting.swap_remove(at);
            if let Some(entry) = self.sessions.get_mut(key) {
                entry.logging_in = false;
                entry.session.on_login(login.clone(), self.now, &self.policy);
                self.queue(key);
            }
        }
    }

    /// Another policy is in force; the one before had these users. Those who wait ask again.
    pub(super) fn ask_anew(&mut self, old: Option<&Arc<Users>>) {
        let new = self.policy.users.as_ref();
        if old.map(Arc::as_ptr) != new.map(Arc::as_ptr) {
            self.door.known.follow(old.map(|old| &**old), new.map(|new| &**new));
        }
        while let Some(&(_, key)) = self.door.waiting.last() {
            self.door.cancel(key);
            if let Some(entry) = self.sessions.get_mut(key) {
                entry.logging_in = false;
                self.queue(key);
            }
        }
    }
}
