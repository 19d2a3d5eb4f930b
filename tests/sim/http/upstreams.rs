//! Upstreams, as in `sys::event_loop::upstreams` and `sys::sockets`: whose each one is, and those that are idle.

use std::net::SocketAddr;

use adit::proto::failure::Failure;
use adit::proto::pool;
use adit::proto::relay::Ready;
use adit::proto::session::Outcome;

use super::origin::Connection;
use super::plan::{ORIGINS, Plot, origin_name};
use super::{Idle, World};

impl World {
    pub(super) fn dial(&mut self, key: usize, place: u8, address: SocketAddr) -> Outcome {
        // Who is served comes before who may be served faster.
        if self.plot == Plot::Scarce && self.random.one_in(4) && self.close_idle() == 0 {
            return Outcome::Failed(Failure::NoDescriptors);
        }
        self.give_up(key, place);
        let target = self.entries[key].session.target().unwrap();
        let name = target.host.to_string();
        let origin = (0..ORIGINS).find(|&origin| origin_name(origin) == name).unwrap();
        let port = target.port;
        assert_eq!(address.port(), port);
        assert!(self.may_reach(key, origin, address.ip()), "dialed what is denied");
        if self.refuses(origin) {
            return Outcome::Failed(Failure::Unreachable);
        }
        let mut connection = Connection::new(origin, port == 443, address.ip(), (key, place));
        connection.socket.capacity = self.capacity;
        connection.dies_when_reused = self.plot == Plot::DiesReused && self.random.one_in(2);
        self.connections.push(connection);
        self.entries[key].attempts.push((place, self.connections.len() - 1));
        Outcome::Done
    }

    pub(super) fn exchange_over(&mut self, key: usize) {
        let entry = &mut self.entries[key];
        entry.knows_unread = !entry.socket.inbox.is_empty() && !entry.socket.edge;
    }

    fn give_up(&mut self, key: usize, place: u8) {
        let attempts = &mut self.entries[key].attempts;
        for &(_, id) in attempts.iter().filter(|attempt| attempt.0 == place) {
            close(&mut self.connections[id]);
        }
        attempts.retain(|attempt| attempt.0 != place);
    }

    pub(super) fn confirm(&mut self, key: usize, place: u8) -> Outcome {
        let attempts = &mut self.entries[key].attempts;
        let index = attempts.iter().position(|attempt| attempt.0 == place).unwrap();
        let id = attempts[index].1;
        let outcome = self.connections[id].socket.confirm();
        match outcome {
            Outcome::Done => {
                attempts.swap_remove(index);
                for (_, other) in attempts.drain(..) {
                    close(&mut self.connections[other]);
                }
                // One that died, and whose request is sent once more.
                if let Some(old) = self.entries[key].upstream.replace(id) {
                    close(&mut self.connections[old]);
                }
            }
            Outcome::Failed(_) => self.give_up(key, place),
            _ => {}
        }
        outcome
    }

    pub(super) fn take_idle(&mut self, key: usize) {
        (self.entries[key].moves.any, self.entries[key].moves.asked) = (self.now, self.now);
        let session = &self.entries[key].session;
        let target = session.target().unwrap();
        let mut judged = Vec::new();
        let mut may = |origin: &pool::Origin| {
            let may = session.may_reuse(origin, &self.policy);
            judged.push((origin.target.host.to_string(), origin.address.ip(), may));
            may
        };
        // Of those that were idle before, the last poll has told whatever there was; others are asked.
        let (polls, all_told) = (self.polls, self.all_told);
        let known = self.idle.take(target, |origin, idle| all_told && idle.since < polls && may(origin));
        let mut passed_over = Vec::new();
        let taken = known.or_else(|| {
            loop {
                let (origin, idle) = self.idle.take(target, |origin, _| may(origin))?;
                if self.connections[idle.id].socket.peek() == Outcome::Blocked {
                    return Some((origin, idle));
                }
                passed_over.push(idle.id);
            }
        });
        for id in passed_over {
            close(&mut self.connections[id]);
            self.note("idle connection found to be over");
        }
        let mut refused = false;
        for (name, address, may) in judged {
            let origin = (0..ORIGINS).find(|&origin| origin_name(origin) == name).unwrap();
            assert_eq!(may, self.may_reach(key, origin, address), "another policy's connection");
            refused |= !may;
        }
        if refused {
            self.note("idle connection refused to another client");
        }
        let Some((origin, Idle { id, .. })) = taken else {
            return self.entries[key].session.on_idle(None, self.now, &self.policy);
        };
        let connection = &mut self.connections[id];
        assert!(connection.is_open && connection.owner.is_none());
        // Nobody can know what comes at this very moment.
        connection.is_tainted |= connection.socket.edge && !connection.socket.inbox.is_empty();
        connection.is_asked = false;
        connection.owner = Some((key, 0));
        assert!(self.entries[key].upstream.replace(id).is_none());
        self.entries[key].session.on_idle(Some(origin), self.now, &self.policy);
        self.note("reuse");
        self.origin_interrupts(id);
    }

    pub(super) fn park(&mut self, key: usize) {
        let entry = &mut self.entries[key];
        let (Some(origin), Some(id)) = (entry.session.take_origin(), entry.upstream.take()) else {
            panic!("nothing to park");
        };
        let connection = &mut self.connections[id];
        assert_eq!(origin.address.ip(), connection.address);
        let name = origin_name(connection.origin);
        assert_eq!(origin.target.to_string(), format!("{name}:80"));
        connection.owner = None;
        assert!(!self.is_draining, "kept for nobody");
        if let Some(evicted) = self.idle.put(origin, Idle { id, since: self.polls }, self.now) {
            close(&mut self.connections[evicted.id]);
            self.note("eviction");
        }
        self.check_limits();
    }

    pub(super) fn drop_upstream(&mut self, key: usize) {
        let entry = &mut self.entries[key];
        for id in entry.upstream.take().into_iter().chain(entry.attempts.drain(..).map(|attempt| attempt.1)) {
            close(&mut self.connections[id]);
        }
    }

    /// A poll. It has room for so many events, and what it has not told the next one does.
    pub(super) fn deliver_edges(&mut self) -> bool {
        let room = if self.random.one_in(8) { 1 } else { usize::MAX };
        let mut told = 0;
        for key in 0..self.entries.len() {
            let entry = &mut self.entries[key];
            if told == room || entry.ended || !std::mem::take(&mut entry.socket.edge) {
                continue;
            }
            told += 1;
            let ready = entry.socket.ready();
            if ready.read_closed {
                entry.moves.end_known.get_or_insert(self.now);
            }
            if ready != Ready::default() {
                entry.session.on_client_ready(ready, self.now);
                entry.queued = true;
            }
        }
        for id in 0..self.connections.len() {
            let connection = &mut self.connections[id];
            if told == room || !connection.is_open || !std::mem::take(&mut connection.socket.edge) {
                continue;
            }
            told += 1;
            let ready = connection.socket.ready();
            if ready == Ready::default() {
                continue;
            }
            if connection.owner.is_some() && connection.served > 0 && !connection.is_asked && ready.readable {
                *self.seen.entry("news of a connection that was just taken").or_default() += 1;
            }
            // Known before anything was asked, or forever behind.
            connection.is_tainted &= connection.is_behind || connection.is_asked;
            match connection.owner {
                Some((key, place)) => {
                    self.entries[key].session.on_upstream_ready(place, ready);
                    self.entries[key].queued = true;
                }
                None if ready.readable => self.over.push(id),
                None => {}
            }
        }
        self.polls += 1;
        self.all_told = told < room;
        self.close_over();
        self.check_idle();
        told > 0
    }

    pub(super) fn close_idle(&mut self) -> usize {
        let mut count = 0;
        while let Some(idle) = self.idle.pop_oldest() {
            close(&mut self.connections[idle.id]);
            count += 1;
        }
        count
    }

    pub(super) fn close_over(&mut self) {
        while let Some(id) = self.over.pop() {
            if let Some(idle) = self.idle.remove(|idle| idle.id == id) {
                close(&mut self.connections[idle.id]);
                self.note("idle connection closed");
            }
        }
        while let Some(idle) = self.idle.pop_due(self.now) {
            close(&mut self.connections[idle.id]);
        }
    }
}

fn close(connection: &mut Connection) {
    connection.is_open = false;
    connection.owner = None;
}
