//! Verifies credentials for all loops, on a thread that is there while there are any: a hash takes from microseconds to
//! seconds, and no loop has so much time.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::shared::{Judged, Mailbox, Message, spawn};
use crate::config::RECENT_LOGINS_MAX;
use crate::proto::login_queue::{Asked, LoginQueue, Next, PushedOut, Question};
use crate::proto::logins::{Logins, Tag, Tagger, Verdict};
use crate::proto::tick::Tick;
use crate::proto::users::Users;

/// A thread that had nothing to do for so long ends.
const IDLE: Duration = Duration::from_secs(30);
/// A hash that takes longer holds up the logins behind it, and is told of.
const SLOW: Duration = Duration::from_secs(2);
/// By so much it stands behind the loops when they want the same core: a third of what one of them gets.
const NICE: i32 = 5;

/// Where loops ask, and get their answers in their mail as [`Message::Login`].
pub struct LoginDesk {
    tagger: Tagger,
    started: Instant,
    state: Mutex<State>,
    /// There is something to do.
    called: Condvar,
}

struct State {
    queue: LoginQueue,
    recent: Logins,
    /// What those were answered from.
    users: Option<Arc<Users>>,
    /// Of which it was told that a hash is slow.
    slow: Option<Arc<Users>>,
    loops: Vec<Arc<Mailbox>>,
    helper: Helper,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Helper {
    Absent,
    There,
    /// The system has refused a thread, and that is said.
    Failed,
}

/// What a loop gets for a question.
pub enum Reply {
    /// The answer.
    Known(Verdict),
    /// It comes by mail.
    Waits,
    /// It does not, as too much is asked.
    QueueFull,
    /// It does not, as this client asks too much.
    ClientFull,
}

/// Never what is asked.
impl fmt::Debug for LoginDesk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LoginDesk")
    }
}

impl Default for LoginDesk {
    fn default() -> LoginDesk {
        LoginDesk::new()
    }
}

impl LoginDesk {
    /// With a key of its own, and nobody at it.
    #[must_use]
    pub fn new() -> LoginDesk {
        let state = State {
            queue: LoginQueue::default(),
            recent: Logins::new(RECENT_LOGINS_MAX),
            users: None,
            slow: None,
            loops: Vec::new(),
            helper: Helper::Absent,
        };
        LoginDesk {
            tagger: Tagger::new(RandomState::new()),
            started: Instant::now(),
            state: Mutex::new(state),
            called: Condvar::new(),
        }
    }

    /// A loop with this mailbox may ask, under the number that is returned.
    #[must_use]
    pub fn register(&self, mailbox: Arc<Mailbox>) -> u16 {
        let loops = &mut self.lock().loops;
        loops.push(mailbox);
        // There are at most `MAX_LOOPS`.
        (loops.len() - 1) as u16
    }

    /// Stands for the credentials, on all loops alike.
    #[must_use]
    pub fn tag(&self, token: &[u8]) -> Tag {
        self.tagger.tag(token)
    }

    /// The loop `asker` wants to know. Waits for nothing.
    #[must_use]
    pub fn ask(self: &Arc<Self>, question: Question, client: IpAddr, asker: u16) -> Reply {
        let now = self.now();
        let mut state = self.lock();
        if !state.users.as_ref().is_some_and(|users| Arc::ptr_eq(users, &question.users)) {
            let old = state.users.replace(Arc::clone(&question.users));
            state.recent.follow(old.as_deref(), Some(&question.users));
        }
        if let Some(verdict) = state.recent.find(question.tag, now) {
            return Reply::Known(verdict);
        }
        let tag = question.tag;
        let pushed_out = match state.queue.ask(question, client, asker, now) {
            Asked::Waits => None,
            Asked::WaitsInstead(out) => Some(out),
            Asked::QueueFull => return Reply::QueueFull,
            Asked::ClientFull => return Reply::ClientFull,
        };
        let reply = if self.summon(&mut state) {
            Reply::Waits
        } else {
            state.queue.withdraw(tag, asker);
            Reply::QueueFull
        };
        if let Some(PushedOut { tag, users, askers }) = pushed_out {
            tell(state, &askers, tag, &users, &Judged::PushedOut);
        }
        reply
    }

    /// The loop does not want to know any more.
    pub fn withdraw(&self, tag: Tag, asker: u16) {
        self.lock().queue.withdraw(tag, asker);
    }

    /// Whether somebody is there to answer.
    fn summon(self: &Arc<Self>, state: &mut State) -> bool {
        if state.helper == Helper::There {
            self.called.notify_one();
            return true;
        }
        let desk = Arc::clone(self);
        match spawn("logins".to_owned(), Box::new(move || desk.serve())) {
            Ok(_) => state.helper = Helper::There,
            Err(error) if state.helper == Helper::Absent => {
                log::warn!("cannot start a thread that verifies logins: {error}");
                state.helper = Helper::Failed;
            }
            Err(_) => {}
        }
        state.helper == Helper::There
    }

    /// The thread.
    fn serve(&self) {
        // Where it is not allowed to stand back, it does its work all the same.
        let _ = rustix::process::nice(NICE);
        let mut state = self.lock();
        loop {
            let wait = match state.queue.next(self.now()) {
                Next::Verify(question) => {
                    drop(state);
                    self.answer(&question);
                    state = self.lock();
                    continue;
                }
                Next::At(due) => Duration::from_millis(due.since(self.now()).max(1)),
                Next::Nothing => IDLE,
            };
            let waited = self.called.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner);
            state = waited.0;
            if waited.1.timed_out() && state.queue.is_empty() {
                state.helper = Helper::Absent;
                return;
            }
        }
    }

    /// Takes as long as it takes. No lock is held meanwhile.
    fn answer(&self, question: &Question) {
        let begun = Instant::now();
        let verdict = question.users.verify(&question.basic.user, &question.basic.password);
        let took = begun.elapsed();
        let mut state = self.lock();
        if took > SLOW && !state.slow.as_ref().is_some_and(|users| Arc::ptr_eq(users, &question.users)) {
            state.slow = Some(Arc::clone(&question.users));
            log::warn!(
                "--users: one login took {} s to verify, and others wait behind it: bcrypt costs of 10 to 12 are enough",
                took.as_secs()
            );
        }
        let now = self.now();
        if state.users.as_ref().is_some_and(|users| Arc::ptr_eq(users, &question.users)) {
            state.recent.remember(question.tag, verdict.clone(), now);
        }
        let askers = state.queue.answered(question.tag, &question.users, verdict.is_some(), now);
        tell(state, &askers, question.tag, &question.users, &Judged::Verdict(verdict));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Tick {
        Tick(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }
}

/// What they wait for. No lock is held while loops are woken: the thread may stand still with it.
fn tell(state: MutexGuard<'_, State>, askers: &[u16], tag: Tag, users: &Arc<Users>, judged: &Judged) {
    let mailboxes: Vec<Arc<Mailbox>> =
        askers.iter().filter_map(|&asker| state.loops.get(usize::from(asker)).cloned()).collect();
    drop(state);
    for mailbox in mailboxes {
        // A loop that cannot be woken has failed, and says so itself.
        let _ = mailbox.send(Message::Login { tag, users: Arc::clone(users), judged: judged.clone() });
    }
}
