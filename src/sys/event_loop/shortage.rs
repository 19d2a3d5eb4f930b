//! When places for sessions, descriptors or storage run out: who may be served faster gives way to who is to be served, and who
//! waits has its turn.

use super::EventLoop;
use super::table::give_back;
use crate::proto::tick::Tick;
use crate::sys::shared::{Message, Short};

/// The other loops are asked to give way at most this often: a flood beyond the limits is not to wake them for each client.
const ASK_PAUSE_MS: u64 = 100;
/// Idle clients that are given up at once when another loop asks, or descriptors are short.
const GIVE_UP_BURST: usize = 16;
/// Sessions that are looked at for each millisecond: a search goes through all, and there is a pause of that length behind it.
const SESSIONS_PER_MS: u64 = 100;

/// Clients between two requests, as the last search has found them.
#[derive(Debug, Default)]
pub(super) struct IdleClients {
    /// Until when they are kept, and their keys; the longest idle last.
    found: Vec<(Tick, usize)>,
    next_search: Tick,
    next_question: Tick,
}

impl IdleClients {
    pub(super) fn shrink(&mut self) {
        give_back(&mut self.found);
    }
}

impl EventLoop {
    /// Closes the connection of the client that has been idle behind an answer for the longest. `false`: there is none.
    pub(super) fn give_up_idle_client(&mut self) -> bool {
        loop {
            let Some((until, key)) = self.idle_clients.found.pop() else {
                self.search_idle_clients();
                if self.idle_clients.found.is_empty() {
                    return false;
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
                return true;
            }
        }
    }

    fn search_idle_clients(&mut self) {
        if self.now < self.idle_clients.next_search {
            return;
        }
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
        if self.upstreams.close_idle() + self.pipes.give_way(self.now) > 0 || self.give_up_idle_client() {
            return true;
        }
        self.ask_others(Short::Descriptors);
        false
    }

    /// Whether there are other loops, and they have not been asked just before.
    pub(super) fn ask_others(&mut self, short: Short) -> bool {
        if self.now < self.idle_clients.next_question {
            return false;
        }
        self.idle_clients.next_question = self.now.after(ASK_PAUSE_MS);
        self.shared.tell_others(&self.mailbox, || Message::GiveWay(short))
    }

    /// Another loop is short of something.
    pub(super) fn give_way(&mut self, short: Short) {
        match short {
            Short::Sessions => {}
            Short::Descriptors => {
                self.upstreams.close_idle();
                self.pipes.give_way(self.now);
            }
        }
        for _ in 0..GIVE_UP_BURST {
            if !self.give_up_idle_client() {
                return;
            }
        }
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

    /// Whether it was starving: an old key may be in other hands by now.
    fn end_starving(&mut self, key: usize) -> bool {
        let Some(entry) = self.sessions.get_mut(key).filter(|entry| entry.starved) else { return false };
        entry.starved = false;
        entry.session.on_storage();
        self.queue(key);
        true
    }
}
