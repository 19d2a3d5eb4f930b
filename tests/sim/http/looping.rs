//! The loop, as in `sys::event_loop`: who owns which upstream, what is idle, and what a session's steps do.

use adit::proto::deadlines::Kind as DeadlineKind;
use adit::proto::relay::Ready;
use adit::proto::resolver::ResolveError;
use adit::proto::session::{EndReason, Login, Outcome, Session, Side, Step};
use adit::proto::target::Host;

use super::client::Ending;
use super::plan::{BARE_ORIGIN, Plot, origin_name};
use super::{Entry, Line, World};
use crate::sessions::Sessions;
use crate::some_users;

impl World {
    pub(super) fn run_one(&mut self) -> bool {
        let ready: Vec<usize> = (0..self.entries.len()).filter(|&key| self.entries[key].queued).collect();
        if ready.is_empty() {
            return false;
        }
        let key = self.random.pick(&ready);
        let steps = 1 + self.random.below(20);
        self.run_session(key, steps);
        true
    }

    fn run_session(&mut self, key: usize, steps: usize) {
        self.entries[key].queued = false;
        if self.entries[key].ended {
            return;
        }
        for _ in 0..steps {
            let step = self.entries[key].session.step();
            match step {
                Step::Wait => {
                    let session = &self.entries[key].session;
                    assert!(session.may_wait(), "{session:?}");
                    return self.settle(key);
                }
                Step::End(reason) => {
                    if self.traced {
                        println!("{:?} {key}: ends, {reason:?}", self.now);
                    }
                    return self.free(key, reason);
                }
                _ => {}
            }
            let (step, outcome) = self.take_step(key, step);
            if self.traced {
                println!("{:?} {key}: {step:?} {outcome:?}", self.now);
            }
            let Some(outcome) = outcome else {
                // A share may end anywhere; here more happens meanwhile than elsewhere.
                if step == Step::TakeIdle && self.random.one_in(4) {
                    break;
                }
                continue;
            };
            self.count(key, step, outcome);
            let entry = &mut self.entries[key];
            entry.session.report(step, outcome, self.now, &self.policy);
            entry.starved |= entry.session.is_starved();
            if step == Step::Record {
                self.settle(key);
            }
        }
        self.settle(key);
        self.entries[key].queued = true;
    }

    fn count(&mut self, key: usize, step: Step, outcome: Outcome) {
        let (now, entry) = (self.now, &mut self.entries[key]);
        match (step, outcome) {
            (Step::Write(Side::Client), Outcome::Moved(count)) => entry.written.0 += count as u64,
            (Step::Write(Side::Upstream), Outcome::Moved(count)) => entry.written.1 += count as u64,
            (Step::Pass(Side::Upstream), Outcome::Moved(count)) => entry.written.0 += count as u64,
            (Step::Pass(Side::Client), Outcome::Moved(count)) => {
                entry.written.1 += count as u64;
                entry.moves.heard = now;
            }
            (Step::Read(Side::Client), Outcome::Moved(_)) => entry.moves.heard = now,
            (Step::Authenticate | Step::Resolve, _) => entry.moves.asked = now,
            _ => {}
        }
        let moved = matches!(outcome, Outcome::Moved(_) | Outcome::Eof | Outcome::Failed(_));
        if moved || matches!(step, Step::ConfirmDial(_) | Step::ShutdownWrite(_)) {
            entry.moves.any = now;
        }
    }

    fn lend(&mut self, key: usize, side: Side) -> bool {
        if self.plot == Plot::Scarce && self.random.one_in(6) {
            return false;
        }
        self.entries[key].session.borrow_storage(side, &mut self.storage)
    }

    fn log_in(&mut self, key: usize) -> Option<Outcome> {
        self.entries[key].moves.asked = self.now;
        let shown = self.entries[key].session.credentials().unwrap();
        let name = std::str::from_utf8(shown).unwrap().strip_prefix("Basic ").unwrap();
        let login = if name == "nobody" { Login::Wrong } else { Login::User(name.into()) };
        let is_known = self.random.one_in(2);
        let entry = &mut self.entries[key];
        if is_known {
            entry.session.on_login(login, self.now, &self.policy);
            return None;
        }
        entry.login = Some(login);
        Some(Outcome::Done)
    }

    fn look_up(&mut self, key: usize) -> Option<Outcome> {
        let target = self.entries[key].session.target().unwrap();
        let Host::Name(name) = &target.host else { panic!("an address needs no resolving") };
        let name = name.to_string();
        if self.entries[key].upstream.is_some() {
            self.note("retry");
        }
        if self.plot == Plot::NameFails && self.random.one_in(4) {
            let error = ResolveError::NotFound { rcode: 3 };
            self.entries[key].session.on_unresolved(&error, self.now, &self.policy);
            return None;
        }
        let mut answer = self.nameservers_say(&name);
        // A completed name is told with its part.
        let can_be_known = answer.len() == 1 && answer[0].is_ok() && name != origin_name(BARE_ORIGIN);
        if can_be_known && self.random.one_in(4) {
            let addresses = answer.pop_front().unwrap().unwrap();
            self.entries[key].session.on_addresses(addresses, true, self.now, &self.policy);
            return None;
        }
        self.entries[key].lookup = answer;
        Some(Outcome::Done)
    }

    /// The session is over: its sockets are closed, as it says.
    fn free(&mut self, key: usize, reason: EndReason) {
        let entry = &mut self.entries[key];
        entry.session.return_storage(&mut self.storage);
        entry.ended = true;
        entry.lookup.clear();
        entry.login = None;
        self.deadlines.remove(key);
        self.check_closing(key, reason);
        let entry = &mut self.entries[key];
        // A reset is also what the kernel makes of a close with something unread.
        let resets = entry.session.closes_with_reset(Side::Client) || !entry.socket.inbox.is_empty();
        if resets && !entry.socket.dead {
            let left = self.random.below(entry.socket.outbox.len() + 1);
            let rest: Vec<u8> = entry.socket.outbox.drain(..left).collect();
            self.clients[key].receives(&rest, &self.exchanges);
            self.clients[key].ending = Some(Ending::Reset);
            entry.socket.outbox.clear();
        }
        entry.socket.shut = true;
        self.drop_upstream(key);
        self.check_answers(key);
    }

    pub(super) fn expire(&mut self) {
        while let Some(key) = self.deadlines.pop_due(self.now) {
            let entry = &mut self.entries[key];
            match entry.session.deadline() {
                Some((_, due)) if due > self.now => self.deadlines.set(key, due),
                deadline => {
                    let kind = deadline.map(|deadline| deadline.0);
                    assert!(
                        self.plot.takes_time() || matches!(kind, None | Some(DeadlineKind::Attempt)),
                        "{kind:?} has passed: {:?}",
                        entry.session
                    );
                    self.check_deadline(key, kind);
                    let entry = &mut self.entries[key];
                    entry.session.on_deadline(self.now, &self.policy);
                    entry.queued = true;
                }
            }
        }
    }

    /// An event that means nothing.
    pub(super) fn rumour(&mut self) {
        let news = Ready { readable: true, writable: true, ..Ready::default() };
        let key = self.random.below(self.entries.len());
        match self.random.below(3) {
            0 => self.entries[key].session.on_client_ready(news, self.now),
            place => self.entries[key].session.on_upstream_ready(place as u8 - 1, news),
        }
        self.entries[key].queued = true;
    }

    pub(super) fn storage_returns(&mut self) {
        for entry in self.entries.iter_mut().filter(|entry| entry.starved) {
            entry.starved = false;
            entry.session.on_storage();
            entry.queued = true;
        }
    }

    pub(super) fn drain(&mut self) {
        self.is_draining = true;
        self.close_idle();
        for key in 0..self.entries.len() {
            if !self.entries[key].ended {
                self.entries[key].session.on_drain(self.now);
                self.settle(key);
            }
        }
    }

    /// As in `EventLoop::read_mail`.
    pub(super) fn reload(&mut self) {
        self.policy.users = some_users();
        self.close_idle();
        for key in 0..self.entries.len() {
            self.entries[key].session.on_policy(self.now, &self.policy);
            if self.entries[key].login.take().is_some() {
                self.entries[key].queued = true;
                self.note("login asked anew");
            }
        }
    }

    /// As `EventLoop::quit`.
    pub(super) fn quit(&mut self) {
        for key in 0..self.entries.len() {
            self.entries[key].session.on_grace_over(self.now, &self.policy);
            self.run_session(key, 64);
        }
        for key in 0..self.entries.len() {
            self.entries[key].session.on_quit();
            self.run_session(key, 64);
            assert!(self.entries[key].ended, "goes on behind the end");
        }
    }

    /// Nothing moves any more: then a rumour must not move anything either.
    pub(super) fn check_nothing_is_ready(&mut self) {
        if self.spurious {
            return;
        }
        for key in 0..self.entries.len() {
            if !self.entries[key].ended {
                self.check_has_nothing_to_do(key, self.now);
            }
        }
    }
}

impl Sessions for World {
    fn session(&mut self, key: usize) -> &mut Session {
        &mut self.entries[key].session
    }

    fn report(&mut self, key: usize, step: Step, outcome: Outcome) {
        self.entries[key].session.report(step, outcome, self.now, &self.policy);
    }

    fn socket(&mut self, key: usize, side: Side) -> &mut crate::socket::Socket {
        match side {
            Side::Client => &mut self.entries[key].socket,
            Side::Upstream => {
                let id = self.entries[key].upstream.expect("no upstream");
                &mut self.connections[id].socket
            }
        }
    }

    fn perform(&mut self, key: usize, step: Step) -> Option<Outcome> {
        Some(match step {
            Step::Read(side) => {
                if self.entries[key].session.fill_slice(side).is_empty() && !self.lend(key, side) {
                    if self.entries[key].session.is_tunnel() {
                        return Some(Outcome::NoStorage);
                    }
                    return Some(self.socket(key, side).peek());
                }
                let Entry { session, socket, upstream, .. } = &mut self.entries[key];
                let socket = match side {
                    Side::Client => socket,
                    Side::Upstream => &mut self.connections[upstream.unwrap()].socket,
                };
                socket.read(session.fill_slice(side))
            }
            Step::Write(side) => {
                self.check_write(key, side);
                if side == Side::Upstream {
                    let connection = &mut self.connections[self.entries[key].upstream.unwrap()];
                    connection.is_asked = true;
                    connection.is_behind |= connection.is_tainted;
                    self.clients[key].is_poisoned |= connection.is_tainted;
                }
                let bytes = self.entries[key].session.drain_slice(side).to_vec();
                self.socket(key, side).write(&bytes)
            }
            // Pipes are the other world's.
            Step::Fill(_) => Outcome::NoStorage,
            Step::Pass(_) => unreachable!(),
            Step::Drain(_) => unreachable!(),
            Step::ShutdownWrite(side) => self.socket(key, side).shutdown_write(),
            Step::Discard => self.entries[key].socket.read(&mut [0; 4096]),
            Step::Authenticate => return self.log_in(key),
            Step::Resolve => return self.look_up(key),
            Step::Dial(place, address) => self.dial(key, place, address),
            Step::ConfirmDial(place) => self.confirm(key, place),
            Step::TakeIdle => {
                self.take_idle(key);
                return None;
            }
            Step::Park => {
                self.exchange_over(key);
                self.park(key);
                Outcome::Done
            }
            Step::CloseUpstream => {
                self.exchange_over(key);
                self.drop_upstream(key);
                Outcome::Done
            }
            Step::TakeError(side) => self.socket(key, side).take_error(),
            Step::Record => {
                let record = self.entries[key].session.record(self.now);
                let line = Line {
                    asked: record.request.to_string(),
                    user: record.user.map(String::from),
                    status: record.status,
                    end: record.end,
                    up_bytes: record.up_bytes,
                    down_bytes: record.down_bytes,
                };
                self.entries[key].lines.push(line);
                Outcome::Done
            }
            Step::Wait | Step::End(_) => unreachable!(),
        })
    }

    fn settle(&mut self, key: usize) {
        let entry = &mut self.entries[key];
        if self.storage.is_scarce() {
            entry.session.spare_storage();
            entry.session.tighten(&mut self.storage);
        }
        entry.session.return_storage(&mut self.storage);
        if !entry.session.wants_upstream() {
            self.drop_upstream(key);
        }
        let entry = &mut self.entries[key];
        if !entry.session.wants_lookup() {
            entry.lookup.clear();
        }
        if !entry.session.wants_login() {
            entry.login = None;
        }
        if let Some((_, due)) = entry.session.deadline() {
            match self.deadlines.get(key) {
                Some(queued_due) if queued_due <= due => {}
                Some(_) | None => self.deadlines.set(key, due),
            }
        }
        self.check_settled(key);
    }
}
