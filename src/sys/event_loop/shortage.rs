//! When places for sessions, descriptors or storage run out: who may be served faster gives way to who is to be served, and who
//! waits has its turn.

use super::EventLoop;
use crate::proto::idle_clients::Search;
use crate::proto::plea::Given;
use crate::proto::tick::Tick;
use crate::sys::shared::{GiveWay, Message, Short};

/// Descriptors that the other loops are asked for at once.
const DESCRIPTORS_WANTED: usize = 16;
/// Storage that was short is told to be so for at least this long.
const SHORT_MS: u64 = 1_000;

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

impl EventLoop {
    /// Closes the connection of the client that has been idle behind an answer for the longest.
    pub(super) fn give_up_idle_client(&mut self) -> Search {
        let search = self.longest_idle();
        if let Search::Found(key) = search {
            self.give_up(key);
        }
        search
    }

    fn longest_idle(&mut self) -> Search {
        let sessions = &self.sessions;
        // What an event has said about it is heard first.
        let idle_until = |key| sessions.get(key).filter(|entry| !entry.queued)?.session.idle_until();
        self.idle_clients.longest(sessions.places(), idle_until, self.now)
    }

    fn give_up(&mut self, key: usize) {
        if let Some(entry) = self.sessions.get_mut(key) {
            entry.session.give_up();
        }
        self.ended.push(key);
        // At once: its place or its descriptor is wanted now. The events of this turn have all been noted.
        self.free_ended();
    }

    /// Makes a descriptor free, if that can be done without ending anything that is under way. `false`: nothing is left to
    /// close here; the other loops have been asked.
    pub(super) fn free_descriptors(&mut self) -> bool {
        if self.upstreams.close_idle() + self.pipes.give_way(self.now) > 0
            || matches!(self.give_up_idle_client(), Search::Found(_))
        {
            return true;
        }
        if !self.descriptors.is_open()
            && self.descriptors.next() <= self.now
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
        let mut pleas = std::mem::take(&mut self.pleas);
        pleas.retain(|plea| !self.answer(plea));
        self.pleas = pleas;
    }

    /// Whether it is answered. The asker is woken as soon as there is something for it; who waits for a descriptor goes on with the
    /// whole answer only.
    fn answer(&mut self, asked: &GiveWay) -> bool {
        let GiveWay { short, plea, .. } = asked;
        let mut has_given = false;
        if *short == Short::Descriptors && plea.is_unmet() {
            let closed = self.upstreams.close_idle() + self.pipes.give_way(self.now);
            has_given = plea.give(closed) && closed > 0;
        }
        let is_answered = loop {
            if !plea.is_unmet() {
                break true;
            }
            match self.longest_idle() {
                Search::Found(key) if plea.give(1) => {
                    self.give_up(key);
                    has_given = true;
                }
                Search::Found(_) | Search::Nobody => break true,
                Search::TooEarly => break false,
            }
        };
        if is_answered {
            asked.answer();
        } else if has_given {
            asked.wake_asker();
        }
        is_answered
    }

    /// What is not answered yet waits for the next search.
    pub(super) fn plea_due(&self) -> Option<Tick> {
        self.pleas.first().map(|_| self.idle_clients.due())
    }

    /// The loop ends: nobody is to wait for what it could give, and it wants nothing more.
    pub(super) fn answer_last_pleas(&mut self) {
        self.descriptors.lower(0);
        for message in self.mailbox.take() {
            if let Message::GiveWay(asked) = message {
                self.pleas.push(asked);
            }
        }
        self.pleas.drain(..).for_each(|asked| asked.answer());
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
