//! The loop, as in `sys::event_loop`: who is let in, what a session's steps do, and what is told to whom.

use std::net::SocketAddr;
use std::sync::Arc;

use adit::proto::credentials;
use adit::proto::deadlines::Kind as DeadlineKind;
use adit::proto::failure::Failure;
use adit::proto::login_queue::{Asked as LoginAsked, Next, PushedOut, Question};
use adit::proto::logins::{Tag, Verdict};
use adit::proto::pool;
use adit::proto::relay::Ready;
use adit::proto::reply::Refusal;
use adit::proto::resolver::{Asked, Part};
use adit::proto::session::{EndReason, Login, Outcome, Session, Side, Step};
use adit::proto::target::Host;
use adit::proto::users::Users;
use adit::sys::shared::Admission;

use super::peers::{Connection, Ending};
use super::{Entry, KEEP_MS, Plot, World, draw_settings, policy_of};
use crate::sessions::Sessions;
use crate::socket::Socket;

const ACCEPT_PAUSE_MS: u64 = 200;

impl World {
    pub(super) fn descriptors(&self) -> usize {
        let upstreams = self.connections.iter().filter(|connection| connection.is_open).count();
        self.entries.len() + upstreams + self.network.open()
    }

    pub(super) fn accept(&mut self) -> bool {
        if self.accept_resumes.is_some_and(|due| due > self.now) {
            return false;
        }
        let Some(&peer) = self.outside.front() else {
            return self.accept_resumes.take().is_some();
        };
        if self.descriptors() >= self.descriptors_max {
            self.close_idle();
            if self.accept_resumes.is_none() {
                self.note("accepting pauses");
            }
            self.accept_resumes = Some(self.now.after(ACCEPT_PAUSE_MS));
            return true;
        }
        self.outside.pop_front();
        self.admit(peer);
        true
    }

    fn admit(&mut self, peer: usize) {
        let address = self.peers[peer].address;
        let counted: Vec<SocketAddr> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.counted)
            .map(|(_, entry)| entry.session.client())
            .collect();
        let of_client = counted.iter().filter(|client| client.ip() == address.ip()).count();
        let admission = self.shared.admit(address.ip());
        let wanted = if self.per_client_max.is_some_and(|most| of_client >= most) {
            Admission::ClientFull
        } else if counted.len() >= self.sessions_max {
            Admission::Full
        } else {
            Admission::Granted
        };
        assert_eq!(admission, wanted, "{} sessions, {of_client} of the client", counted.len());
        let refusal = match admission {
            Admission::Granted => None,
            Admission::Full => Some(Refusal::SessionLimit),
            Admission::ClientFull => Some(Refusal::ClientSessionLimit),
        };
        match admission {
            Admission::Granted => {}
            Admission::Full => self.note("session limit"),
            Admission::ClientFull => self.note("client's session limit"),
        }
        let counted = refusal.is_none();
        let mut session = match refusal {
            None => Session::new(address, self.now, &self.policy),
            Some(refusal) => Session::refused(address, refusal, None, self.now, &self.policy),
        };
        if self.is_draining {
            session.on_drain(self.now);
        }
        let key = self.entries.insert(Entry {
            session,
            peer,
            upstream: None,
            attempts: Vec::new(),
            queued: true,
            counted,
            looking_up: false,
            logging_in: false,
            starved: false,
        });
        self.peers[peer].key = Some(key);
        self.peers[peer].is_refused = !counted;
        self.tell(format_args!("{key}: {peer} is let in, counted {counted}"));
    }

    pub(super) fn run_one(&mut self) -> bool {
        let queued: Vec<usize> =
            self.entries.iter().filter(|(_, entry)| entry.queued).map(|(key, _)| key).collect();
        if queued.is_empty() {
            return false;
        }
        let key = self.random.pick(&queued);
        let steps = 1 + self.random.below(20);
        self.run_session(key, steps);
        self.feed_starved();
        true
    }

    pub(super) fn run_session(&mut self, key: usize, steps: usize) {
        self.entries[key].queued = false;
        for _ in 0..steps {
            let step = self.entries[key].session.step();
            match step {
                Step::Wait => {
                    let session = &self.entries[key].session;
                    assert!(session.may_wait(), "{session:?}");
                    return self.settle(key);
                }
                Step::End(reason) => return self.free(key, reason),
                _ => {}
            }
            let (step, outcome) = self.take_step(key, step);
            self.tell(format_args!("{key}: {step:?} {outcome:?}"));
            let Some(outcome) = outcome else { continue };
            let entry = &mut self.entries[key];
            entry.session.report(step, outcome, self.now, &self.policy);
            if entry.session.is_starved() && !entry.starved {
                entry.starved = true;
                self.starved.push_back(key);
                self.note("starved");
            }
            if step == Step::Record {
                self.settle(key);
            }
        }
        self.settle(key);
        self.entries[key].queued = true;
    }

    fn free(&mut self, key: usize, reason: EndReason) {
        self.tell(format_args!("{key}: ends, {reason:?}"));
        self.drop_upstream(key);
        let mut entry = self.entries.remove(key);
        entry.session.return_storage(&mut self.storage);
        assert!(!entry.session.holds_storage(), "storage is kept");
        if entry.looking_up {
            self.resolver.cancel(key);
            self.name_actions();
        }
        self.cancel_login(key);
        self.deadlines.remove(key);
        if entry.counted {
            self.shared.leave(entry.session.client().ip());
        }
        let peer = &mut self.peers[entry.peer];
        peer.key = None;
        // A reset is also what the kernel makes of a close with something unread.
        let resets = entry.session.closes_with_reset(Side::Client) || !peer.socket.inbox.is_empty();
        peer.socket.shut = true;
        if resets {
            peer.socket.outbox.clear();
            peer.ending = Some(Ending::Reset);
        }
        if self.accept_resumes.is_some() {
            self.accept_resumes = Some(self.now);
        }
    }

    pub(super) fn expire(&mut self) {
        while let Some(key) = self.deadlines.pop_due(self.now) {
            match self.entries[key].session.deadline() {
                Some((_, due)) if due > self.now => self.deadlines.set(key, due),
                deadline => {
                    let kind = deadline.map(|deadline| deadline.0);
                    let is_lost = matches!(self.plot, Plot::Calm | Plot::Reloads | Plot::FewSessions)
                        && !matches!(kind, None | Some(DeadlineKind::Attempt));
                    assert!(!is_lost, "{kind:?} has passed: {}", self.describe());
                    self.entries[key].session.on_deadline(self.now, &self.policy);
                    self.entries[key].queued = true;
                }
            }
        }
        let random = &mut self.random;
        self.resolver.expire(self.now, &mut || random.next() as u16);
        self.resolve();
        while let Some(id) = self.idle.pop_due(self.now) {
            self.connections[id].close();
            self.note("idle connection kept long enough");
        }
    }

    /// Storage may have come back.
    pub(super) fn feed_starved(&mut self) {
        let mut woken = 0;
        while woken < self.storage.free() {
            let Some(key) = self.starved.pop_front() else { return };
            let Some(entry) = self.entries.get_mut(key).filter(|entry| entry.starved) else { continue };
            entry.starved = false;
            entry.session.on_storage();
            entry.queued = true;
            woken += 1;
        }
    }

    // Names.

    fn name_actions(&mut self) {
        let others = self.descriptors() - self.network.open();
        let room = self.descriptors_max.saturating_sub(others);
        self.network.perform(&mut self.resolver, &mut self.random, self.now, room);
    }

    fn look_up(&mut self, key: usize) -> Option<Outcome> {
        let Some(Host::Name(name)) = self.entries[key].session.target().map(|target| &target.host) else {
            panic!("nothing to look up");
        };
        let name = name.to_string();
        let random = &mut self.random;
        let asked = self.resolver.ask(&name, key, self.now, &mut || random.next() as u16);
        self.name_actions();
        match asked {
            Asked::Known(answer) => {
                let session = &mut self.entries[key].session;
                match answer {
                    Ok(addresses) => {
                        session.on_addresses(addresses, true, self.now, &self.policy);
                    }
                    Err(error) => session.on_unresolved(&error, self.now, &self.policy),
                }
                None
            }
            Asked::Pending => {
                self.entries[key].looking_up = true;
                Some(Outcome::Done)
            }
        }
    }

    pub(super) fn resolve(&mut self) {
        self.name_actions();
        while let Some((key, answer)) = self.resolver.pop_answer() {
            let Some(entry) = self.entries.get_mut(key) else { panic!("an answer to nobody") };
            assert!(entry.looking_up, "nobody has asked: {:?}", entry.session);
            match answer {
                Ok(Part { addresses, last, found_as }) => {
                    assert_eq!(found_as, None);
                    entry.looking_up = !last;
                    entry.session.on_addresses(addresses, last, self.now, &self.policy);
                }
                Err(error) => {
                    entry.looking_up = false;
                    entry.session.on_unresolved(&error, self.now, &self.policy);
                }
            }
            entry.queued = true;
        }
    }

    // Credentials.

    fn authenticate(&mut self, key: usize) -> Option<Outcome> {
        let session = &self.entries[key].session;
        let (client, shown) = (session.client().ip(), session.credentials().unwrap());
        let Some(users) = self.users.clone() else { return self.logged_in(key, Login::Needless) };
        let token = credentials::token(shown).unwrap();
        let tag = self.tagger.tag(token);
        if let Some(verdict) = self.known.find(tag, self.now) {
            return self.logged_in(key, verdict.map_or(Login::Wrong, Login::User));
        }
        let basic = credentials::decode(token).unwrap();
        if !self.waiting.iter().any(|&(other, _)| other == tag) {
            match self.logins.ask(Question { tag, basic, users }, client, 0, self.now) {
                LoginAsked::Waits => {}
                LoginAsked::WaitsInstead(PushedOut { tag, users, .. }) => {
                    self.on_judged(tag, &users, Err(()))
                }
                LoginAsked::QueueFull => return self.logged_in(key, Login::Busy),
                LoginAsked::ClientFull => return self.logged_in(key, Login::ClientBusy),
            }
        }
        self.login_due = None;
        self.waiting.push((tag, key));
        self.entries[key].logging_in = true;
        self.note("login waits");
        Some(Outcome::Done)
    }

    fn logged_in(&mut self, key: usize, login: Login) -> Option<Outcome> {
        self.entries[key].session.on_login(login, self.now, &self.policy);
        None
    }

    fn cancel_login(&mut self, key: usize) {
        let Some(at) = self.waiting.iter().position(|&(_, other)| other == key) else { return };
        let (tag, _) = self.waiting.swap_remove(at);
        if !self.waiting.iter().any(|&(other, _)| other == tag) {
            self.logins.withdraw(tag, 0);
        }
    }

    /// The thread that verifies them, one after the other.
    pub(super) fn verify_logins(&mut self) -> bool {
        let Some(Question { tag, basic, users }) = self.verifying.take() else {
            match self.logins.next(self.now) {
                Next::Verify(question) => {
                    self.login_due = None;
                    self.verifying = Some(question);
                    return true;
                }
                Next::At(due) => {
                    assert!(due > self.now, "it is time, and nobody is verified");
                    self.login_due = Some(due);
                }
                Next::Nothing => self.login_due = None,
            }
            return false;
        };
        let verdict = users.verify(&basic.user, &basic.password);
        let askers = self.logins.answered(tag, &users, verdict.is_some(), self.now);
        if !askers.is_empty() {
            self.on_judged(tag, &users, Ok(verdict));
        }
        true
    }

    fn on_judged(&mut self, tag: Tag, users: &Arc<Users>, judged: Result<Verdict, ()>) {
        let is_in_force = self.users.as_ref().is_some_and(|own| Arc::ptr_eq(own, users));
        if !is_in_force || !self.waiting.iter().any(|&(other, _)| other == tag) {
            return;
        }
        let login = match judged {
            Ok(verdict) => {
                self.known.remember(tag, verdict.clone(), self.now);
                verdict.map_or(Login::Wrong, Login::User)
            }
            Err(()) => Login::Busy,
        };
        while let Some(at) = self.waiting.iter().position(|&(other, _)| other == tag) {
            let (_, key) = self.waiting.swap_remove(at);
            let entry = &mut self.entries[key];
            entry.logging_in = false;
            entry.session.on_login(login.clone(), self.now, &self.policy);
            entry.queued = true;
        }
    }

    // Upstreams.

    fn dial(&mut self, key: usize, place: u8, address: SocketAddr) -> Outcome {
        for _ in 0..2 {
            if self.descriptors() < self.descriptors_max {
                return self.start_dial(key, place, address);
            }
            if self.close_idle() == 0 {
                break;
            }
            self.note("idle connections given up for a descriptor");
        }
        self.note("dial without a descriptor");
        Outcome::Failed(Failure::NoDescriptors)
    }

    fn start_dial(&mut self, key: usize, place: u8, address: SocketAddr) -> Outcome {
        self.give_up(key, place);
        let target = self.entries[key].session.target().unwrap();
        let name = target.host.to_string();
        assert_eq!(self.network.source(address.ip()).name, name, "the address of another name");
        self.check_may(key, &name, address.ip());
        let is_tunnel = target.port == 443;
        let socket = Socket { capacity: self.capacity, ..Socket::default() };
        self.connections.push(Connection::new(name, address.ip(), is_tunnel, (key, place), socket));
        self.entries[key].attempts.push((place, self.connections.len() - 1));
        Outcome::Done
    }

    fn give_up(&mut self, key: usize, place: u8) {
        let attempts = &mut self.entries[key].attempts;
        for &(_, id) in attempts.iter().filter(|attempt| attempt.0 == place) {
            self.connections[id].close();
        }
        attempts.retain(|attempt| attempt.0 != place);
    }

    fn confirm(&mut self, key: usize, place: u8) -> Outcome {
        let at = self.entries[key].attempts.iter().position(|attempt| attempt.0 == place).unwrap();
        let id = self.entries[key].attempts[at].1;
        let outcome = self.connections[id].socket.confirm();
        match outcome {
            Outcome::Done => {
                self.entries[key].attempts.swap_remove(at);
                let old = self.entries[key].upstream.take();
                let losers: Vec<usize> =
                    self.entries[key].attempts.drain(..).map(|attempt| attempt.1).collect();
                for loser in losers.into_iter().chain(old) {
                    self.connections[loser].close();
                }
                self.entries[key].upstream = Some(id);
            }
            Outcome::Failed(_) => self.give_up(key, place),
            _ => {}
        }
        outcome
    }

    fn take_idle(&mut self, key: usize) {
        let session = &self.entries[key].session;
        let target = session.target().unwrap();
        let mut judged = Vec::new();
        let taken = loop {
            let may = |origin: &pool::Origin, _: &usize| {
                let may = session.may_reuse(origin, &self.policy);
                judged.push((origin.address.ip(), may));
                may
            };
            let Some((origin, id)) = self.idle.take(target, may) else { break None };
            if self.connections[id].socket.peek() == Outcome::Blocked {
                break Some((origin, id));
            }
            self.connections[id].close();
        };
        let name = target.host.to_string();
        for (address, may) in judged {
            if may {
                self.check_may(key, &name, address);
            }
        }
        let origin = taken.map(|(origin, id)| {
            let connection = &mut self.connections[id];
            assert_eq!((&*connection.name, connection.address), (&*name, origin.address.ip()));
            assert!(connection.is_open && connection.owner.is_none());
            connection.owner = Some((key, 0));
            assert!(self.entries[key].upstream.replace(id).is_none());
            origin
        });
        if origin.is_some() {
            self.note("reuse");
        }
        self.entries[key].session.on_idle(origin, self.now, &self.policy);
    }

    fn park(&mut self, key: usize) {
        let entry = &mut self.entries[key];
        let (Some(origin), Some(id)) = (entry.session.take_origin(), entry.upstream.take()) else {
            panic!("nothing to park");
        };
        let connection = &mut self.connections[id];
        connection.owner = None;
        assert!(!self.is_draining, "kept for nobody");
        assert_eq!(connection.settings, self.settings.len(), "kept from settings that are in force no more");
        if let Some(evicted) = self.idle.put(origin, id, self.now) {
            self.connections[evicted].close();
            self.note("idle connection evicted");
        }
        self.check_idle();
    }

    pub(super) fn drop_upstream(&mut self, key: usize) {
        let entry = &mut self.entries[key];
        for id in entry.upstream.take().into_iter().chain(entry.attempts.drain(..).map(|attempt| attempt.1)) {
            self.connections[id].close();
        }
    }

    pub(super) fn close_idle(&mut self) -> usize {
        let mut count = 0;
        while let Some(id) = self.idle.pop_oldest() {
            self.connections[id].close();
            count += 1;
        }
        count
    }

    pub(super) fn poll(&mut self) -> bool {
        let mut told = false;
        for key in 0..self.entries.capacity() {
            let Some(entry) = self.entries.get_mut(key) else { continue };
            let socket = &mut self.peers[entry.peer].socket;
            if std::mem::take(&mut socket.edge) {
                told = true;
                if socket.ready() != Ready::default() {
                    entry.session.on_client_ready(socket.ready(), self.now);
                    entry.queued = true;
                }
            }
        }
        for id in 0..self.connections.len() {
            let connection = &mut self.connections[id];
            if !connection.is_open || !std::mem::take(&mut connection.socket.edge) {
                continue;
            }
            told = true;
            let ready = connection.socket.ready();
            match connection.owner {
                _ if ready == Ready::default() => {}
                Some((key, place)) => {
                    self.entries[key].session.on_upstream_ready(place, ready);
                    self.entries[key].queued = true;
                }
                None if ready.readable => self.over.push(id),
                None => {}
            }
        }
        while let Some(over) = self.over.pop() {
            if self.idle.remove(|&id| id == over).is_some() {
                self.connections[over].close();
            }
        }
        told
    }

    /// An event that means nothing.
    pub(super) fn rumour(&mut self) {
        let keys: Vec<usize> = self.entries.iter().map(|(key, _)| key).collect();
        if keys.is_empty() {
            return;
        }
        let key = self.random.pick(&keys);
        let news = Ready { readable: true, writable: true, ..Ready::default() };
        match self.random.below(3) {
            0 => self.entries[key].session.on_client_ready(news, self.now),
            place => self.entries[key].session.on_upstream_ready(place as u8 - 1, news),
        }
        self.entries[key].queued = true;
    }

    // What the main thread wants.

    /// As `EventLoop::follow`.
    pub(super) fn reload(&mut self) {
        self.reloads_left -= 1;
        let settings = draw_settings(&mut self.random, false);
        self.tell(format_args!("{settings:?}"));
        self.note("new settings");
        self.note_what_runs();
        let is_same_users = settings.users == self.in_force().users && self.random.one_in(2);
        let (mut policy, mut users) = policy_of(&settings);
        self.settings.push(settings);
        self.close_idle();
        self.idle.keep_for(KEEP_MS);
        if is_same_users {
            users.clone_from(&self.users);
            policy.users.clone_from(&self.users);
        }
        let old = std::mem::replace(&mut self.users, users);
        self.policy = policy;
        for (_, entry) in &mut self.entries {
            entry.session.on_policy(self.now, &self.policy);
        }
        if old.as_ref().map(Arc::as_ptr) != self.users.as_ref().map(Arc::as_ptr) {
            self.known.follow(old.as_deref(), self.users.as_deref());
        }
        while let Some(&(_, key)) = self.waiting.last() {
            self.cancel_login(key);
            self.entries[key].logging_in = false;
            self.entries[key].queued = true;
        }
        if self.random.one_in(2) {
            let half = self.random.one_in(2);
            self.storage.set_ceiling(if half { self.storage_max / 2 } else { self.storage_max });
        }
        if self.random.one_in(2) {
            self.new_nameservers();
            self.resolver.reconfigure(self.names.clone());
            self.name_actions();
        }
        self.network.epoch += 1;
        self.resolver.flush();
    }

    pub(super) fn drain(&mut self) {
        self.is_draining = true;
        self.note("drained");
        self.close_idle();
        let keys: Vec<usize> = self.entries.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.entries[key].session.on_drain(self.now);
            self.settle(key);
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

    fn socket(&mut self, key: usize, side: Side) -> &mut Socket {
        let entry = &self.entries[key];
        match side {
            Side::Client => &mut self.peers[entry.peer].socket,
            Side::Upstream => &mut self.connections[entry.upstream.expect("no upstream")].socket,
        }
    }

    fn perform(&mut self, key: usize, step: Step) -> Option<Outcome> {
        Some(match step {
            Step::Read(side) => {
                if !self.entries[key].session.borrow_storage(side, &mut self.storage) {
                    if self.entries[key].session.is_tunnel() {
                        return Some(Outcome::NoStorage);
                    }
                    return Some(self.socket(key, side).peek());
                }
                let entry = &mut self.entries[key];
                let socket = match side {
                    Side::Client => &mut self.peers[entry.peer].socket,
                    Side::Upstream => &mut self.connections[entry.upstream.unwrap()].socket,
                };
                socket.read(entry.session.fill_slice(side))
            }
            Step::Write(side) => {
                let bytes = self.entries[key].session.drain_slice(side).to_vec();
                self.socket(key, side).write(&bytes)
            }
            // Pipes are the tunnels' world's.
            Step::Fill(_) => Outcome::NoStorage,
            Step::Pass(_) => unreachable!(),
            Step::Drain(_) => unreachable!(),
            Step::ShutdownWrite(side) => self.socket(key, side).shutdown_write(),
            Step::Discard => self.socket(key, Side::Client).read(&mut [0; 4096]),
            Step::Authenticate => return self.authenticate(key),
            Step::Resolve => return self.look_up(key),
            Step::Dial(place, address) => self.dial(key, place, address),
            Step::ConfirmDial(place) => self.confirm(key, place),
            Step::TakeIdle => {
                self.take_idle(key);
                return None;
            }
            Step::Park => {
                self.park(key);
                Outcome::Done
            }
            Step::CloseUpstream => {
                self.drop_upstream(key);
                Outcome::Done
            }
            Step::TakeError(side) => self.socket(key, side).take_error(),
            Step::Record => {
                let entry = &self.entries[key];
                let record = entry.session.record(self.now);
                self.peers[entry.peer].lines.push((record.request.to_string(), record.status));
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
        if entry.looking_up && !entry.session.wants_lookup() {
            entry.looking_up = false;
            self.resolver.cancel(key);
            self.name_actions();
        }
        let entry = &mut self.entries[key];
        if entry.logging_in && !entry.session.wants_login() {
            entry.logging_in = false;
            self.cancel_login(key);
        }
        self.check_settled(key);
        let Some((_, due)) = self.entries[key].session.deadline() else { return };
        match self.deadlines.get(key) {
            Some(queued_due) if queued_due <= due => {}
            Some(_) | None => self.deadlines.set(key, due),
        }
    }
}
