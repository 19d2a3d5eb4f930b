//! When places for sessions, descriptors or storage run out: who may be served faster gives way to who is to be served, and who
//! waits has its turn.

use std::sync::Arc;

use super::EventLoop;
use super::table::give_back;
use crate::proto::tick::Tick;
use crate::sys::shared::{Plea, Short};

/// The other loops are asked for one thing at most this often: a flood beyond the limits is not to wake them for each client.
const ASK_PAUSE_MS: u64 = 10;
/// Nobody waits longer for what other loops may give: they answer within a turn, but a machine may have more to do than that.
pub(super) const HOLD_MS: u64 = 1_000;
/// Descriptors that the other loops are asked for at once.
const DESCRIPTORS_WANTED: usize = 16;
/// Storage that was short is told to be so for at least this long.
const SHORT_MS: u64 = 1_000;
/// Sessions that are looked at for each millisecond: a search goes through all, and there is a pause of that length behind it.
const SESSIONS_PER_MS: u64 = 500;

/// Clients between two requests, as the last search has found them.
#[derive(Debug, Default)]
pub(super) struct IdleClients {
    /// Until when they are kept, and their keys; the longest idle last.
    found: Vec<(Tick, usize)>,
    pub(super) next_search: Tick,
}

/// What came of looking for an idle client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Search {
    /// One is given up.
    GivenUp,
    /// There is none.
    Nobody,
    /// There was none; the next search is not due yet.
    TooEarly,
}

/// What the other loops are asked for.
#[derive(Debug, Default)]
pub(super) struct Question {
    /// The last one, and when it is over without all their answers.
    plea: Option<(Arc<Plea>, Tick)>,
    pub(super) next: Tick,
}

impl Question {
    pub(super) fn is_open(&self) -> bool {
        self.plea.is_some()
    }

    pub(super) fn open(&mut self, plea: Arc<Plea>, now: Tick) {
        self.next = now.after(ASK_PAUSE_MS);
        self.plea = Some((plea, now.after(HOLD_MS)));
    }

    /// When it is over at the latest.
    pub(super) fn due(&self) -> Option<Tick> {
        self.plea.as_ref().map(|&(_, due)| due)
    }

    /// The answer, once it is there; the question is closed then.
    pub(super) fn take_answer(&mut self, now: Tick) -> Option<Given> {
        let is_over = |plea: &Plea| plea.is_answered() || !plea.is_unmet();
        let (plea, _) = self.plea.take_if(|(plea, due)| is_over(plea) || *due <= now)?;
        Some(if plea.is_unmet() { Given::NotAll } else { Given::All })
    }
}

/// What the other loops have given of what they were asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Given {
    All,
    NotAll,
}

/// Whether a session has a descriptor to dial with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Descriptor {
    /// As far as is known.
    Here,
    /// There was none; the other loops are being asked.
    Awaited,
    /// They have been asked: without one now, it is refused.
    AskedFor,
}

impl IdleClients {
    pub(super) fn shrink(&mut self) {
        self.found.clear();
        give_back(&mut self.found);
    }
}

impl EventLoop {
    /// Closes the connection of the client that has been idle behind an answer for the longest.
    pub(super) fn give_up_idle_client(&mut self) -> Search {
        loop {
            let Some((until, key)) = self.idle_clients.found.pop() else {
                if self.now < self.idle_clients.next_search {
                    return Search::TooEarly;
                }
                self.search_idle_clients();
                if self.idle_clients.found.is_empty() {
                    return Search::Nobody;
                }
                continue;
            };
            // It may have asked since, or be gone; and what an event has said about it is heard first.
            if let Some(entry) = self.sessions.get_mut(key)
                && !entry.queued
                && entry.session.idle_until() == Some(until)
            {
                entry.session.give_up();
                self.ended.push(key);
                // At once: its place or its descriptor is wanted now. The events of this turn have all been noted.
                self.free_ended();
                return Search::GivenUp;
            }
        }
    }

    fn search_idle_clients(&mut self) {
        let idle = |(key, entry): (usize, &super::Entry)| {
            entry.session.idle_until().filter(|_| !entry.queued).map(|until| (until, key))
        };
        let found = &mut self.idle_clients.found;
        found.extend(self.sessions.iter().filter_map(idle));
        found.sort_unstable_by(|one, other| other.cmp(one));
        self.idle_clients.next_search = self.now.after(self.sessions.len() as u64 / SESSIONS_PER_MS);
    }

    /// Makes a descriptor free, if that can be done without ending anything that is under way. `false`: nothing is left to
    /// close here; the other loops have been asked.
    pub(super) fn free_descriptors(&mut self) -> bool {
        if self.upstreams.close_idle() + self.pipes.give_way(self.now) > 0
            || self.give_up_idle_client() == Search::GivenUp
        {
            return true;
        }
        if !self.descriptors.is_open()
            && self.descriptors.next <= self.now
            && let Some(plea) = self.shared.ask_others(&self.mailbox, Short::Descriptors, DESCRIPTORS_WANTED)
        {
            self.descriptors.open(plea, self.now);
        }
        false
    }

    /// Whether it is not to dial yet, for want of a descriptor.
    pub(super) fn awaits_descriptor(&self, key: usize) -> bool {
        self.sessions.get(key).is_some_and(|entry| entry.descriptor == Descriptor::Awaited)
    }

    /// Whether the session waits for a descriptor with what it has to dial: once, while other loops are being asked.
    pub(super) fn put_off(&mut self, key: usize) -> bool {
        let is_asked = self.descriptors.is_open();
        let Some(entry) = self.sessions.get_mut(key) else { return false };
        match entry.descriptor {
            Descriptor::Here if is_asked => {
                entry.descriptor = Descriptor::Awaited;
                self.put_off.push(key);
                true
            }
            Descriptor::Here | Descriptor::Awaited | Descriptor::AskedFor => {
                entry.descriptor = Descriptor::Here;
                false
            }
        }
    }

    /// Once the other loops have closed what they could, all that was waiting for a descriptor is tried again.
    pub(super) fn take_descriptors(&mut self) {
        let Some(given) = self.descriptors.take_answer(self.now) else { return };
        // With less it is tried in its own time: the others are not to search again and again.
        if given == Given::All && self.accept_resumes.is_some() {
            self.accept_resumes = Some(self.now);
        }
        for key in std::mem::take(&mut self.put_off) {
            if let Some(entry) = self.sessions.get_mut(key)
                && entry.descriptor == Descriptor::Awaited
            {
                entry.descriptor = Descriptor::AskedFor;
                self.queue(key);
            }
        }
    }

    /// Other loops are short of something. Each is answered once there is enough, or nobody more here.
    pub(super) fn answer_pleas(&mut self) {
        while let Some(plea) = self.pleas.pop() {
            match plea.short {
                Short::Sessions => {}
                // Others may have given enough.
                Short::Descriptors if !plea.is_unmet() => {}
                Short::Descriptors => plea.give(self.upstreams.close_idle() + self.pipes.give_way(self.now)),
            }
            while plea.is_unmet() {
                match self.give_up_idle_client() {
                    Search::GivenUp => plea.give(1),
                    Search::Nobody => break,
                    Search::TooEarly => return self.pleas.push(plea),
                }
            }
            plea.answer();
        }
    }

    /// What is not answered yet waits for the next search.
    pub(super) fn plea_due(&self) -> Option<Tick> {
        self.pleas.first().map(|_| self.idle_clients.next_search)
    }

    /// Storage may have come back: as many of those who wait for it as can have some are woken, in their order. The last
    /// thing in a turn, behind everything that gives storage back.
    pub(super) fn feed_starved(&mut self) {
        let mut woken = 0;
        while woken < self.pool.free() {
            let Some(key) = self.starved.pop_front() else { return };
            if self.end_starving(key) {
                woken += 1;
            }
        }
        // Sessions that have ended meanwhile leave their keys behind; they must not pile up while nothing comes back.
        if self.starved.len() > 2 * self.sessions.len() + super::EVENTS {
            self.starved.retain(|&key| self.sessions.get(key).is_some_and(|entry| entry.starved));
        }
    }

    /// Whoever runs this should know why new requests are refused. Said of each loop, for each has its share, and not more often than
    /// in every [`SHORT_MS`].
    pub(super) fn tell_of_storage(&mut self) {
        match self.short_since {
            None if self.pool.free() == 0 => {
                log::warn!("--buffer-memory is used up in a loop: new requests may be refused");
                self.short_since = Some(self.now);
            }
            Some(since) if self.now.since(since) >= SHORT_MS && !self.pool.is_scarce() => {
                log::warn!("--buffer-memory suffices again");
                self.short_since = None;
            }
            None | Some(_) => {}
        }
    }

    /// Whether it was starving: an old key may be in other hands by now.
    fn end_starving(&mut self, key: usize) -> bool {
        let Some(entry) = self.sessions.get_mut(key).filter(|entry| entry.starved) else { return false };
        entry.starved = false;
        entry.session.on_storage();
        self.queue(key);
        true
    }
}
