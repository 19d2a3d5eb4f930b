//! What must hold beyond the limit.
//!
//! - There are never more sessions than the limit allows, nor of one client than its own does; who is over its own is told at
//!   once, counting those of it that its loop holds.
//! - Who is held is served or refused in the order in which it came, and within [`HOLD_MS`].
//! - Nobody is refused while a session of the same loop is known to have ended.
//! - Nobody is refused before that time while a client has been idle in some loop for as long as it has been held, with nothing heard
//!   of it meanwhile; nor when another loop has given it a place.
//! - An idle client gives way to another loop only while that one holds somebody it has asked for, and there are not places
//!   enough for those already, but for such as have come free elsewhere since it has last looked.
//! - The others are asked again only behind a pause; no loop is woken by time twice for nothing; and while all sleep, something will
//!   soon be done for everybody who is held.

use std::net::IpAddr;

use adit::proto::plea::{ASK_PAUSE_MS, HOLD_MS};
use adit::proto::tick::Tick;

use super::{Client, World};

/// What the checks keep of a loop.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Of its last question, with the last client that it was asked for.
    asked: Option<(u32, Tick, usize)>,
    /// Places that others have given it since it has last found none, but for those that it has taken,
    given: usize,
    /// that it has made free itself,
    own: usize,
    /// and that have come free elsewhere.
    elsewhere: usize,
    last_decided: Option<usize>,
    by_time: bool,
    has_done: bool,
    can_serve: bool,
    turns_for_nothing: u32,
}

impl Known {
    /// It has done something in this turn.
    pub(super) fn did(&mut self) {
        self.has_done = true;
    }

    pub(super) fn wakes(&mut self, by_news: bool) {
        self.by_time = !by_news;
        self.has_done = false;
    }

    /// It sleeps without end, or to the next thing that is to be done. `can_serve`: there is a place.
    pub(super) fn sleeps(&mut self, can_serve: bool) {
        // Somebody else may have been faster.
        let was_for_nothing = self.by_time && !self.has_done && !self.can_serve;
        self.turns_for_nothing = if was_for_nothing { self.turns_for_nothing + 1 } else { 0 };
        // One, if those who have been found idle have all asked meanwhile.
        assert!(self.turns_for_nothing < 2, "it goes round and round");
        self.can_serve = can_serve;
    }
}

impl World {
    fn sessions(&self) -> impl Iterator<Item = &super::Session> {
        self.loops.iter().flat_map(|it| it.sessions.iter().flatten())
    }

    fn sessions_of(&self, ip: IpAddr) -> usize {
        self.sessions().filter(|session| session.ip == ip).count()
    }

    /// A session of `freed_by` is gone. Behind a plea its place is for the loop that it is given to.
    pub(super) fn place_is_free(&mut self, freed_by: usize, given_to: Option<usize>) {
        for (at, it) in self.loops.iter_mut().enumerate() {
            if given_to == Some(at) {
                it.known.given += 1;
            } else if freed_by == at {
                it.known.own += 1;
            } else {
                it.known.elsewhere += 1;
            }
        }
    }

    pub(super) fn place_is_taken(&mut self, at: usize) {
        let known = &mut self.loops[at].known;
        let counts = [&mut known.given, &mut known.own, &mut known.elsewhere];
        if let Some(count) = counts.into_iter().find(|count| **count > 0) {
            *count -= 1;
        }
    }

    /// The loop has found none.
    pub(super) fn no_place(&mut self, at: usize) {
        let known = &mut self.loops[at].known;
        (known.own, known.elsewhere) = (0, 0);
        if std::mem::take(&mut known.given) > 0 {
            self.note("a place was taken by somebody else");
        }
    }

    pub(super) fn check(&self) {
        let sessions = self.sessions().count();
        assert!(sessions <= self.sessions_max, "{sessions} sessions");
        assert_eq!(self.shared.has_place(), sessions < self.sessions_max);
        if let Some(most) = self.per_client_max {
            assert!(self.sessions().all(|one| self.sessions_of(one.ip) <= most), "too many of one client");
        }
        for it in self.loops.iter().filter(|it| it.sleeps(self.now)) {
            let first = it.held.iter().next();
            let is_over = first.is_some_and(|client| self.now.since(client.came_at) >= HOLD_MS);
            assert!(!is_over, "{first:?} is held too long");
        }
    }

    /// Before another one of this client is counted, of whom so many are held.
    pub(super) fn check_own_limit(&self, ip: IpAddr, held: usize, is_refused: bool) {
        let has = self.sessions_of(ip) + held;
        let must_be = self.per_client_max.is_some_and(|most| has >= most);
        assert_eq!(is_refused, must_be, "{ip} has {has}");
    }

    pub(super) fn check_gives_way(&self, at: usize, key: usize) {
        let idle_until = |one: &super::Session| one.idle_until.filter(|_| one.queued.is_none());
        let sessions = &self.loops[at].sessions;
        let until = sessions[key].as_ref().and_then(idle_until).expect("it has asked");
        // Who was not looked at because of a rumour is found the next time.
        if !self.spurious {
            assert_eq!(
                sessions.iter().flatten().filter_map(idle_until).min(),
                Some(until),
                "another one is idle for longer"
            );
        }
    }

    pub(super) fn check_may_ask(&mut self, at: usize, wanted: usize) {
        let number = self.questions + 1;
        let it = &mut self.loops[at];
        let last = it.held.iter().last().expect("it asks for nobody").number;
        assert_eq!(wanted, it.held.iter().count());
        if let Some((_, before, _)) = it.known.asked.replace((number, it.now, last)) {
            let is_alone = self.loops.iter().filter(|it| it.stage != super::Stage::Gone).count() == 1;
            assert!(is_alone || self.loops[at].now.since(before) >= ASK_PAUSE_MS, "it asks again and again");
        }
        self.loops[at].known.did();
    }

    /// An idle client is about to give way.
    pub(super) fn check_somebody_needs_it(&self, asker: usize, number: u32) {
        let free = self.sessions_max - self.sessions().count();
        let it = &self.loops[asker];
        let (last_question, _, last) = it.known.asked.expect("it has asked");
        assert_eq!(number, last_question, "that question is over");
        let needing = it.held.iter().filter(|client| client.number <= last).count();
        let known = free.saturating_sub(it.known.own + it.known.elsewhere);
        assert!(known < needing, "an idle client gives way to nobody: {known} places for {needing}");
    }

    pub(super) fn check_refused(&mut self, at: usize, client: Client) {
        if self.loops[at].now.since(client.came_at) >= HOLD_MS {
            self.note("refused because its time was over");
            return assert!(!self.is_prompt, "somebody has not answered");
        }
        self.note("refused");
        self.check_nobody_is_leaving(at);
        assert_eq!(self.loops[at].known.given, 0, "{client:?} has been given a place");
        let could = |one: &&super::Session| {
            one.idle_until.is_some() && one.queued.is_none() && one.untouched_since < client.came
        };
        let idle = self.sessions().find(could);
        assert!(idle.is_none(), "{client:?} is refused beside {idle:?}");
    }

    /// Who has ended by itself makes a place before anybody is refused.
    pub(super) fn check_nobody_is_leaving(&self, at: usize) {
        let leaving =
            self.loops[at].sessions.iter().flatten().find(|one| one.queued == Some(super::News::Ends));
        assert!(leaving.is_none(), "refused while {leaving:?} is about to go");
    }

    pub(super) fn check_held(&self, at: usize) {
        let it = &self.loops[at];
        for client in it.held.iter() {
            assert!(it.now.since(client.came_at) < HOLD_MS, "{client:?} is held too long");
        }
    }

    pub(super) fn check_order(&mut self, at: usize, client: Client) {
        let last = self.loops[at].known.last_decided.replace(client.number);
        assert!(last.is_none_or(|last| last < client.number), "{client:?} behind {last:?}");
    }

    /// All loops sleep, and nothing wakes them but time.
    pub(super) fn check_quiet(&self) {
        let longest = self.loops.iter().map(|it| it.places as u64 / 500).max().unwrap_or(0);
        let soon = self.now.after(longest.max(ASK_PAUSE_MS));
        let free = self.sessions_max - self.sessions().count();
        for (at, it) in self.loops.iter().enumerate().filter(|(_, it)| !it.held.is_empty()) {
            assert!(free <= it.known.elsewhere, "a place is free, and {at} sleeps");
            let answers = |other: &&super::Loop| {
                other.pleas.iter().any(|asked| asked.asker == at && asked.plea.is_unmet())
            };
            let somebody_is_due = std::iter::once(it)
                .chain(self.loops.iter().filter(answers))
                .any(|it| it.sleeps_until.is_some_and(|due| due <= soon));
            assert!(somebody_is_due, "those whom {at} holds are forgotten");
        }
    }

    pub(super) fn check_end(&self) {
        assert_eq!(self.decided, self.clients, "somebody was forgotten");
        for asked in self.loops.iter().flat_map(|it| &it.pleas) {
            assert!(!asked.plea.is_unmet(), "nobody wants it any more");
        }
    }
}
