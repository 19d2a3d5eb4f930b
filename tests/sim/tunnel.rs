//! Tunnels: one session over one client and one upstream.

mod checks;

use std::collections::VecDeque;
use std::net::IpAddr;

use adit::proto::deadlines::Deadlines;
use adit::proto::failure::Failure;
use adit::proto::relay::Ready;
use adit::proto::resolver::ResolveError;
use adit::proto::ring::{PIPE_BYTES, Pool, RING_BYTES};
use adit::proto::session::{Login, Outcome, Policy, Session, Side, Step};
use adit::proto::tick::Tick;

use super::socket::Socket;
use super::{Random, Seen, policy, some_users};

const HEAD: &[u8] = b"CONNECT origin.test:443 HTTP/1.1\r\nHost: origin.test:443\r\n\r\n";
const WITH_CREDENTIALS: &[u8] =
    b"CONNECT origin.test:443 HTTP/1.1\r\nHost: origin.test:443\r\nProxy-Authorization: Basic x\r\n\r\n";
const STEPS_MAX: u32 = 200_000;

/// Every end of a tunnel, and that an attempt has won against another.
pub(super) const MUST_BE_SEEN: &[&str] = &[
    "race",
    "done",
    "client_left",
    "client_reset",
    "upstream_reset",
    "idle_timeout",
    "half_open_timeout",
    "grace",
    "unused",
    "connection_refused",
    "connection_timeout",
    "dns_error",
    "http_request_error",
    "http_request_denied",
    "late login",
    "login asked anew",
    "connection_limit_reached",
    "destination_ip_prohibited",
    "proxy_internal_response",
    "passed",
    "passed in part",
    "passed in vain",
    "pipe filled",
    "pipe filled from the upstream",
    "pipe refused",
    "pipe still holds bytes",
    "pipe closed with bytes in it",
    "pipe stops at urgent data",
    "pipe meets the end",
];

pub(super) fn run(seed: u64, traced: bool) -> Seen {
    let mut world = World::new(seed);
    world.traced = traced;
    world.run();
    let mut seen = Seen::from([(world.end_word, 1)]);
    seen.extend([
        ("race", world.raced),
        ("late login", world.late_logins),
        ("login asked anew", world.asked_anew),
    ]);
    seen.extend(world.seen_of_pipes);
    seen.retain(|_, count| *count > 0);
    seen
}

/// What happens in a seed, besides bytes in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plot {
    /// Everybody sends all and ends. All bytes must arrive and the session must end by itself.
    Peaceful,
    /// The client resets at some moment.
    ClientResets,
    /// The upstream resets at some moment.
    UpstreamResets,
    /// The upstream closes, and answers further bytes with a reset: it reads nothing.
    UpstreamCloses,
    /// The client sends its head, or part of it, and closes while it still waits.
    ClientLeaves,
    /// Bytes stop without an end.
    Silence,
    /// The drain's grace is over at some moment.
    Grace,
    NameFails,
    Denied,
    DialRefused,
    DialSilent,
    BadHead,
    NoStorageAtStart,
    /// Connects and says nothing.
    NeverAsks,
    /// Credentials are nobody's.
    LoginWrong,
    /// Credentials are never judged.
    LoginSilent,
}

const PLOTS: [Plot; 19] = [
    Plot::Peaceful,
    Plot::Peaceful,
    Plot::Peaceful,
    Plot::Peaceful,
    Plot::ClientResets,
    Plot::UpstreamResets,
    Plot::UpstreamCloses,
    Plot::ClientLeaves,
    Plot::Silence,
    Plot::Grace,
    Plot::NameFails,
    Plot::Denied,
    Plot::DialRefused,
    Plot::DialSilent,
    Plot::BadHead,
    Plot::NoStorageAtStart,
    Plot::NeverAsks,
    Plot::LoginWrong,
    Plot::LoginSilent,
];

struct World {
    random: Random,
    plot: Plot,
    spurious: bool,
    now: Tick,
    policy: Policy,
    session: Session,
    client: Socket,
    /// Won, and where it stood.
    upstream: Option<(u8, Socket)>,
    /// Being dialed.
    attempts: Vec<(u8, Socket)>,
    /// The script of the upstream peer once it is dialed.
    upstream_sends: Vec<u8>,
    client_sends: Vec<u8>,
    capacity: usize,
    pool: Pool,
    deadlines: Deadlines,
    queued: bool,
    starved: bool,
    /// What became of the credentials, still under way.
    login: Option<Login>,
    /// How often that took its time, and was asked for twice.
    late_logins: u32,
    asked_anew: u32,
    head: &'static [u8],
    /// Parts of the answer that are still under way; the last one ends it.
    lookup: VecDeque<Result<Vec<IpAddr>, ResolveError>>,
    refusals_left: usize,
    traced: bool,
    records: Vec<&'static str>,
    end_word: &'static str,
    ended: bool,
    trouble_at: u32,
    /// The upstream answers only once it has everything, and the client ends only once it has the answer: whoever loses a
    /// wake-up then waits for ever, as nobody else will cause one.
    polite: bool,
    /// When anything last moved.
    moved_at: Tick,
    /// How often an attempt won against another.
    raced: u32,
    slow_ms_left: u64,
    statuses: Vec<Option<u16>>,
    /// Payload bytes as the access line tells them, up and down.
    counted: (u64, u64),
    /// Bytes read from the client and from the upstream.
    taken: (usize, usize),
    /// When the session could know that its client had ended, when it began to want an answer for it, and when it was told
    /// to drain.
    end_known_at: Option<Tick>,
    asked_at: Tick,
    drained_at: Option<Tick>,
    /// Who reads nothing, where somebody resets.
    stalls: Option<Side>,
    greeting_owed: bool,
    /// Peers send much, and much at once.
    bulk: bool,
    /// Lent, for what comes from the client and from the upstream.
    pipes: [Option<Vec<u8>>; 2],
    /// Most bytes that one takes: it is full when its slots are.
    pipe_bytes: usize,
    /// Of the others, none can be had.
    refused_pipes: Refused,
    /// Peers send urgent data, once so many bytes of theirs are taken: before they have proved to be bulk, or behind that.
    urgent_from: Option<usize>,
    seen_of_pipes: Seen,
    /// The tunnel had to pass something on without holding it.
    was_without_storage: bool,
}

/// So many bytes, of which no two parts are alike. Made in pieces, for a byte at a time is slow without optimisation.
fn payload(size: usize, step: usize) -> Vec<u8> {
    let piece: Vec<u8> = (0..256).map(|i| (i * step) as u8).collect();
    let mut bytes = piece.repeat(size.div_ceil(256));
    for (nth, piece) in bytes.chunks_mut(256).enumerate() {
        piece[..4].copy_from_slice(&(nth * 251 + step).to_le_bytes()[..4]);
    }
    bytes.truncate(size);
    bytes
}

/// How many of the pipes that are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refused {
    None,
    Some,
    All,
}

/// What has moved once it has proved to be bulk through ordinary rings.
const BULK_BYTES: usize = 5 * RING_BYTES;

/// What a pipe takes, at most.
const PIPES: [usize; 4] = [5_000, RING_BYTES + 1, 3 * RING_BYTES, PIPE_BYTES];

impl World {
    fn new(seed: u64) -> World {
        let mut random = Random::seeded(seed);
        let plot = PLOTS[random.below(PLOTS.len())];
        let mut policy = policy(match plot {
            Plot::Denied => &[],
            _ => &["--deny", "127.0.0.0/8"],
        });
        let is_guarded = matches!(plot, Plot::LoginWrong | Plot::LoginSilent) || random.one_in(3);
        let mut head = HEAD;
        if is_guarded {
            policy.users = some_users();
            head = WITH_CREDENTIALS;
        }
        // Enough for wide rings, or not.
        let mut pool = Pool::with_ceiling(([2, 2, 64][random.below(3)] * RING_BYTES) as u64);
        let capacity = [8, 3_000, 60_000][random.below(3)];
        let capacity = 1 + random.below(capacity);
        // A byte at a time through a tiny window, megabytes through a large one.
        let sizes = if capacity < 100 {
            [0, 1, 3, 30, 300, 3_000]
        } else {
            [0, 1, 300, 5_000, RING_BYTES, 3 * RING_BYTES + 17]
        };
        // Enough to prove to be bulk through wide rings, and then go on.
        let bulk = capacity > 5_000 && plot != Plot::DialSilent && random.one_in(2);
        let size = |random: &mut Random| {
            let size = if bulk { 12 * RING_BYTES } else { sizes[random.below(6)] };
            random.below(size + 1) + if bulk { 12 * RING_BYTES } else { 0 }
        };
        let client_sends = payload(size(&mut random), 7);
        let upstream_sends = payload(size(&mut random), 13);
        let mut to_send = head.to_vec();
        match plot {
            Plot::BadHead => {
                to_send = b"CONNECT origin.test HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n".to_vec();
            }
            Plot::ClientLeaves => to_send.truncate(random.below(2) * head.len()),
            Plot::NeverAsks => to_send.clear(),
            Plot::NoStorageAtStart => while pool.lend().is_some() {},
            _ => {}
        }
        if plot != Plot::BadHead && to_send.len() == head.len() {
            to_send.extend_from_slice(&client_sends);
        }
        let will_fin = match plot {
            Plot::NeverAsks => false,
            Plot::Silence | Plot::DialSilent => random.below(2) == 0,
            _ => true,
        };
        let trouble_at = [40, 400][random.below(2)];
        let trouble_at = random.below(trouble_at);
        let client = Socket { capacity, connected: true, to_send, will_fin, ..Socket::default() };
        let session = Session::new("10.0.0.7:4711".parse().unwrap(), Tick(0), &policy);
        World {
            plot,
            spurious: random.below(3) == 0,
            now: Tick(0),
            policy,
            session,
            client,
            upstream: None,
            attempts: Vec::new(),
            upstream_sends,
            client_sends,
            capacity,
            pool,
            deadlines: Deadlines::default(),
            queued: true,
            starved: false,
            login: None,
            late_logins: 0,
            asked_anew: 0,
            head,
            lookup: VecDeque::new(),
            refusals_left: if plot == Plot::DialRefused { 9 } else { random.below(3) },
            traced: false,
            records: Vec::new(),
            end_word: "",
            ended: false,
            trouble_at: trouble_at as u32,
            polite: random.below(2) == 0,
            moved_at: Tick(0),
            raced: 0,
            slow_ms_left: 1_200,
            statuses: Vec::new(),
            counted: (0, 0),
            taken: (0, 0),
            end_known_at: None,
            asked_at: Tick(0),
            drained_at: None,
            greeting_owed: false,
            bulk,
            pipes: [None, None],
            pipe_bytes: random.pick(&PIPES),
            refused_pipes: random.pick(&[Refused::None, Refused::None, Refused::Some, Refused::All]),
            urgent_from: random.pick(&[None, None, None, Some(0), Some(BULK_BYTES), Some(BULK_BYTES)]),
            seen_of_pipes: Seen::new(),
            was_without_storage: false,
            stalls: [None, Some(Side::Client), Some(Side::Upstream)][random.below(3)]
                .filter(|_| matches!(plot, Plot::ClientResets | Plot::UpstreamResets)),
            random,
        }
    }

    fn run(&mut self) {
        for step in 0..STEPS_MAX {
            if self.ended {
                return self.check_end();
            }
            if step == self.trouble_at {
                self.make_trouble();
            }
            if !self.act() {
                if step < self.trouble_at {
                    self.trouble_at = step + 1;
                } else {
                    self.quiet();
                }
            }
        }
        panic!("{:?} never ends", self.plot);
    }

    /// One thing happens in the world, if anything can.
    fn act(&mut self) -> bool {
        let first = self.random.below(7);
        for offset in 0..7 {
            let done = match (first + offset) % 7 {
                0 => self.queued && self.run_session(),
                1 => self.deliver_edges(),
                2 => self.peer_sends(Side::Client),
                3 => self.peer_sends(Side::Upstream),
                4 => self.peer_receives(Side::Client),
                5 => self.peer_receives(Side::Upstream),
                _ => self.network(),
            };
            if done {
                if self.spurious && self.random.below(8) == 0 {
                    self.rumour();
                }
                if self.random.below(10) == 0 {
                    self.now = self.now.after(self.random.below(3) as u64);
                    self.expire();
                }
                return true;
            }
        }
        false
    }

    /// Nothing moves any more. In a peaceful world that must not be before the end; elsewhere only time helps.
    fn quiet(&mut self) {
        if self.starved {
            return self.storage_returns();
        }
        assert!(
            self.plot != Plot::Peaceful,
            "lost wake-up: {:?}\nclient {:?}\nupstream {:?}",
            self.session,
            self.client.ready(),
            self.upstream.as_ref().map(|(_, socket)| socket.ready())
        );
        let (_, due) = self.session.deadline().expect("no state without a deadline");
        assert!(
            self.deadlines.next().is_some_and(|queued| queued <= due),
            "the deadline is not queued in time"
        );
        for socket in self.upstream.iter().map(|(_, socket)| socket).chain([&self.client]) {
            assert!(socket.error.is_none(), "a reset is not noticed: {:?}", self.session);
        }
        if !self.spurious {
            self.check_nothing_is_ready();
        }
        self.now = self.now.max(due);
        self.expire();
    }

    /// Nothing moves any more: then a rumour must not move anything either.
    fn check_nothing_is_ready(&mut self) {
        let news = Ready { readable: true, writable: true, ..Ready::default() };
        self.session.on_client_ready(news, self.now);
        for place in 0..2 {
            self.session.on_upstream_ready(place, news);
        }
        loop {
            let step = self.session.step();
            if step == Step::Wait {
                return self.settle();
            }
            let (step, outcome) = match step {
                Step::Pass(side) => self.pass(side),
                _ => (step, self.perform(step).unwrap()),
            };
            self.session.report(step, outcome, self.now, &self.policy);
            match outcome {
                // It goes on without.
                Outcome::NoStorage if self.session.is_tunnel() => {}
                Outcome::NoStorage => {
                    self.queued = true;
                    return;
                }
                _ => assert_eq!(outcome, Outcome::Blocked, "lost wake-up: {step:?}, {:?}", self.session),
            }
        }
    }

    fn make_trouble(&mut self) {
        match self.plot {
            Plot::ClientResets => {
                self.client.reset();
                self.client.to_send.clear();
            }
            Plot::UpstreamResets => {
                if let Some((_, upstream)) = &mut self.upstream {
                    upstream.reset();
                    upstream.to_send.clear();
                }
            }
            Plot::UpstreamCloses => {
                if let Some((_, upstream)) = &mut self.upstream {
                    upstream.to_send.clear();
                    upstream.fin = true;
                    upstream.edge = true;
                    upstream.deaf = true;
                }
            }
            Plot::ClientLeaves => {
                self.client.to_send.clear();
                self.client.will_fin = true;
            }
            Plot::Grace => {
                self.session.on_drain(self.now);
                self.session.on_grace_over(self.now, &self.policy);
                self.queued = true;
            }
            _ if self.random.below(4) == 0 || self.plot == Plot::NeverAsks => {
                self.drained_at = Some(self.now);
                self.session.on_drain(self.now);
                self.settle();
            }
            _ if self.policy.users.is_some() => self.reload(),
            _ => {}
        }
    }

    // The loop, as in `sys::event_loop`.

    fn run_session(&mut self) -> bool {
        self.queued = false;
        for _ in 0..1 + self.random.below(20) {
            let step = self.session.step();
            match step {
                Step::Wait => {
                    assert!(self.session.may_wait(), "{:?}", self.session);
                    self.settle();
                    return true;
                }
                Step::End(reason) => {
                    self.ended = true;
                    self.end_word = reason.word();
                    return true;
                }
                _ => {}
            }
            let (step, outcome) = match step {
                Step::Pass(side) => {
                    let (met, outcome) = self.pass(side);
                    (met, Some(outcome))
                }
                _ => (step, self.perform(step)),
            };
            match (step, outcome) {
                (
                    Step::Read(Side::Client) | Step::Pass(Side::Client) | Step::Fill(Side::Client),
                    Some(Outcome::Moved(count)),
                ) => {
                    self.taken.0 += count;
                }
                (
                    Step::Read(Side::Upstream) | Step::Pass(Side::Upstream) | Step::Fill(Side::Upstream),
                    Some(Outcome::Moved(count)),
                ) => {
                    self.taken.1 += count;
                }
                // Not when it is asked anew: its client has been waiting since then.
                (Step::Authenticate, _) if self.asked_anew == 0 => self.asked_at = self.now,
                (Step::Resolve, _) if self.policy.users.is_none() => self.asked_at = self.now,
                _ => {}
            }
            if self.traced {
                println!("{:?} {step:?} {outcome:?}", self.now);
            }
            if let Some(outcome) = outcome {
                if !matches!((step, outcome), (Step::Record, _) | (_, Outcome::Blocked | Outcome::NoStorage))
                {
                    self.moved_at = self.now;
                }
                self.session.report(step, outcome, self.now, &self.policy);
            }
        }
        self.settle();
        self.queued = true;
        true
    }

    fn perform(&mut self, step: Step) -> Option<Outcome> {
        Some(match step {
            Step::Read(side) => {
                let needs_storage = self.session.fill_slice(side).is_empty();
                if needs_storage && self.random.one_in(20)
                    || !self.session.borrow_storage(side, &mut self.pool)
                {
                    self.was_without_storage |= self.session.is_tunnel();
                    self.starved = !self.session.is_tunnel();
                    return Some(Outcome::NoStorage);
                }
                let socket = match side {
                    Side::Client => &mut self.client,
                    Side::Upstream => &mut self.upstream.as_mut().unwrap().1,
                };
                socket.read(self.session.fill_slice(side))
            }
            Step::Write(side) => {
                let bytes = self.session.drain_slice(side);
                match side {
                    Side::Client => self.client.write(bytes),
                    Side::Upstream => self.upstream.as_mut().unwrap().1.write(bytes),
                }
            }
            Step::Pass(_) => unreachable!(),
            Step::Fill(side) => self.fill(side),
            Step::Drain(side) => self.drain(side),
            Step::ShutdownWrite(side) => self.socket(side).unwrap().shutdown_write(),
            Step::Discard => self.client.read(&mut [0; 4096]),
            Step::Authenticate => {
                assert_eq!(self.session.credentials(), Some(&b"Basic x"[..]));
                let login =
                    if self.plot == Plot::LoginWrong { Login::Wrong } else { Login::User("alice".into()) };
                if self.plot != Plot::LoginSilent && self.random.below(2) == 0 {
                    self.session.on_login(login, self.now, &self.policy);
                    return None;
                }
                self.login = Some(login);
                Outcome::Done
            }
            Step::Resolve => {
                if self.plot == Plot::NameFails && self.random.below(2) == 0 {
                    let error = ResolveError::NotFound { rcode: 3 };
                    self.session.on_unresolved(&error, self.now, &self.policy);
                    return None;
                }
                self.lookup = self.answer();
                Outcome::Done
            }
            Step::Dial(place, address) => {
                assert_ne!(address.ip(), "127.0.0.1".parse::<IpAddr>().unwrap(), "dialed what is denied");
                self.attempts.retain(|(other, _)| *other != place);
                if self.refusals_left > 0 && self.random.below(2) == 0 {
                    self.refusals_left -= 1;
                    return Some(Outcome::Failed(Failure::Unreachable));
                }
                self.attempts.push((place, Socket { capacity: self.capacity, ..Socket::default() }));
                Outcome::Done
            }
            Step::ConfirmDial(place) => {
                let index = self.attempts.iter().position(|(other, _)| *other == place).unwrap();
                let socket = &mut self.attempts[index].1;
                let outcome = socket.confirm();
                match outcome {
                    Outcome::Done => {
                        let mut won = self.attempts.swap_remove(index);
                        won.1.to_send = self.upstream_sends.clone();
                        self.upstream = Some(won);
                        self.raced += u32::from(!self.attempts.is_empty());
                        self.attempts.clear();
                    }
                    Outcome::Failed(_) => drop(self.attempts.swap_remove(index)),
                    _ => {}
                }
                outcome
            }
            Step::TakeError(side) => self.socket(side).unwrap().take_error(),
            Step::Record => {
                let record = self.session.record(self.now);
                self.records.push(record.end);
                self.counted = (record.up_bytes, record.down_bytes);
                self.statuses.push(record.status);
                Outcome::Done
            }
            Step::TakeIdle | Step::Park | Step::CloseUpstream => panic!("a tunnel does not {step:?}"),
            Step::Wait | Step::End(_) => unreachable!(),
        })
    }

    fn pass(&mut self, from: Side) -> (Step, Outcome) {
        let most = 1 + self.random.below(100_000);
        let seen = match self.socket(from).unwrap().look(most) {
            Ok(seen) => seen,
            Err(met) => return (Step::Pass(from), met),
        };
        match self.socket(from.other()).unwrap().write(&seen) {
            Outcome::Moved(count) => {
                self.saw(if count < seen.len() { "passed in part" } else { "passed" });
                (Step::Pass(from), self.socket(from).unwrap().take_seen(count))
            }
            met => {
                self.saw("passed in vain");
                (Step::Write(from.other()), met)
            }
        }
    }

    fn fill(&mut self, side: Side) -> Outcome {
        let lent = &mut self.pipes[side as usize];
        if lent.is_none() {
            let refuses = match self.refused_pipes {
                Refused::None => false,
                Refused::Some => self.random.one_in(3),
                Refused::All => true,
            };
            if refuses || !self.pool.lend_pipe(self.session.standing(side)) {
                self.saw("pipe refused");
                return Outcome::NoStorage;
            }
            *lent = Some(Vec::new());
        }
        let slots_are_small = self.random.one_in(6);
        let most = if slots_are_small { 1 + self.random.below(self.pipe_bytes) } else { self.pipe_bytes };
        let mut pipe = self.pipes[side as usize].take().unwrap();
        let socket = self.socket(side).unwrap();
        let stops = socket.urgent_at == Some(0);
        let outcome = socket.fill(&mut pipe, most);
        self.pipes[side as usize] = Some(pipe);
        match outcome {
            Outcome::Moved(_) if side == Side::Upstream => self.saw("pipe filled from the upstream"),
            Outcome::Moved(_) => self.saw("pipe filled"),
            Outcome::Eof => self.saw("pipe meets the end"),
            _ if stops => self.saw("pipe stops at urgent data"),
            _ => {}
        }
        outcome
    }

    fn drain(&mut self, side: Side) -> Outcome {
        let mut pipe = self.pipes[side.other() as usize].take().expect("no pipe to drain");
        // Not always all of it, although there is room.
        let most = if self.random.one_in(4) { 1 + self.random.below(pipe.len()) } else { pipe.len() };
        let outcome = self.socket(side).unwrap().write(&pipe[..most.min(pipe.len())]);
        if let Outcome::Moved(count) = outcome {
            pipe.drain(..count);
        }
        if !pipe.is_empty() {
            self.saw("pipe still holds bytes");
        }
        self.pipes[side.other() as usize] = Some(pipe);
        outcome
    }

    fn saw(&mut self, what: &'static str) {
        *self.seen_of_pipes.entry(what).or_default() += 1;
    }

    /// As in `sys::pipes`: what the session does not hold any more is given back.
    fn settle_pipes(&mut self) {
        for side in [Side::Client, Side::Upstream] {
            let lent = &mut self.pipes[side as usize];
            if self.session.holds_pipe(side) {
                assert!(
                    lent.as_ref().is_some_and(|pipe| !pipe.is_empty()),
                    "it counts on bytes that are nowhere"
                );
            } else if let Some(pipe) = lent.take() {
                self.pool.give_back_pipe();
                if !pipe.is_empty() {
                    self.saw("pipe closed with bytes in it");
                }
            }
        }
    }

    fn settle(&mut self) {
        self.session.return_storage(&mut self.pool);
        if self.pool.is_scarce() {
            self.session.tighten(&mut self.pool);
        }
        self.settle_pipes();
        if self.session.record(self.now).refusal.is_some() && self.plot != Plot::NoStorageAtStart {
            assert_eq!(self.pool.lent(), 0, "a refusal needs no storage");
        }
        if !self.session.wants_upstream() {
            self.upstream = None;
            self.attempts.clear();
        }
        if !self.session.wants_lookup() {
            self.lookup.clear();
        }
        if !self.session.wants_login() {
            self.login = None;
        }
        if let Some((_, due)) = self.session.deadline() {
            match self.deadlines.get(1) {
                Some(queued_due) if queued_due <= due => {}
                Some(_) | None => self.deadlines.set(1, due),
            }
        }
    }

    fn expire(&mut self) {
        while self.deadlines.pop_due(self.now).is_some() {
            match self.session.deadline() {
                Some((_, due)) if due > self.now => self.deadlines.set(1, due),
                _ => {
                    self.session.on_deadline(self.now, &self.policy);
                    self.queued = true;
                }
            }
        }
    }

    // The world.

    fn socket(&mut self, side: Side) -> Option<&mut Socket> {
        match side {
            Side::Client => Some(&mut self.client),
            Side::Upstream => self.upstream.as_mut().map(|(_, socket)| socket),
        }
    }

    fn deliver_edges(&mut self) -> bool {
        let mut delivered = false;
        if std::mem::take(&mut self.client.edge) {
            delivered = true;
            if self.client.ready().read_closed {
                self.end_known_at.get_or_insert(self.now);
            }
            if self.client.ready() != Ready::default() {
                self.session.on_client_ready(self.client.ready(), self.now);
                self.queued = true;
            }
        }
        for (place, socket) in self.upstream.iter_mut().chain(&mut self.attempts) {
            if std::mem::take(&mut socket.edge) {
                delivered = true;
                if socket.ready() != Ready::default() {
                    self.session.on_upstream_ready(*place, socket.ready());
                    self.queued = true;
                }
            }
        }
        delivered
    }

    /// An event that means nothing.
    fn rumour(&mut self) {
        let news = Ready { readable: true, writable: true, ..Ready::default() };
        match self.random.below(3) {
            0 => self.session.on_client_ready(news, self.now),
            place => self.session.on_upstream_ready(place as u8 - 1, news),
        }
        self.queued = true;
    }

    fn peer_sends(&mut self, side: Side) -> bool {
        // For a pipe to meet a mark before an event tells of it, the mark stands in a little that comes when all before it is
        // taken; and for it to meet the end there, that is the last.
        let marks_bulk = self.bulk && self.urgent_from == Some(BULK_BYTES);
        let whole = self.random.below(3) == 0 && !marks_bulk;
        let (least, more, ahead) = match (self.bulk, marks_bulk) {
            (true, true) => (RING_BYTES, 8_000, 0),
            (true, false) => (1, 100_000, 400_000),
            (false, _) => (1, 5_000, 100_000),
        };
        let (count, few) = (least + self.random.below(more), 1 + self.random.below(1_000));
        let with_fin = self.random.below(2) == 0;
        let taken = if side == Side::Client { self.taken.0 } else { self.taken.1 };
        let may_mark = self.urgent_from.is_some_and(|from| taken >= from);
        let marks = may_mark && self.random.one_in(3);
        let must_wait = self.plot == Plot::Peaceful && self.polite && !self.has_received_all(side);
        let Some(socket) = self.socket(side) else { return false };
        let may_end = socket.will_fin && !(must_wait && side == Side::Client);
        if must_wait && side == Side::Upstream {
            return false;
        }
        if !socket.connected || socket.dead || socket.fin || socket.inbox.len() > ahead {
            return false;
        }
        let left = socket.to_send.len();
        let count = if whole { left } else { count.min(left) };
        let is_urgent = marks || marks_bulk && may_mark && left <= 1_000;
        let count = match (marks_bulk, is_urgent) {
            (true, true) => few.min(left),
            (true, false) if count == left && left > few => left - few,
            (true, false) | (false, _) => count,
        };
        if count == 0 && !(may_end && socket.to_send.is_empty()) {
            return false;
        }
        socket.inbox.extend_from_slice(&socket.to_send[..count]);
        socket.to_send.drain(..count);
        if is_urgent && count > 0 {
            // Urgent is the last byte of what was sent so; an older mark is forgotten.
            socket.urgent_at = Some(socket.inbox.len() - 1);
        }
        // The FIN may come in the same segment as the last bytes: one edge for both.
        socket.fin = socket.to_send.is_empty() && may_end && (with_fin || count == 0);
        socket.edge = true;
        true
    }

    /// Including the end, which the proxy passes on.
    fn has_received_all(&self, side: Side) -> bool {
        match side {
            // A refusal, too, ends with an end.
            Side::Client => self.client.shut,
            Side::Upstream => self
                .upstream
                .as_ref()
                .is_some_and(|(_, upstream)| upstream.received.len() == self.client_sends.len()),
        }
    }

    fn peer_receives(&mut self, side: Side) -> bool {
        let count = 1 + self.random.below(20_000);
        if self.stalls == Some(side) {
            return false;
        }
        let Some(socket) = self.socket(side) else { return false };
        if socket.outbox.is_empty() {
            return false;
        }
        if socket.deaf {
            socket.reset();
            return true;
        }
        let bytes = socket.receive(count);
        socket.received.extend(bytes);
        true
    }

    /// Answers of nameservers and of destinations, and storage that comes back.
    fn network(&mut self) -> bool {
        if self.starved && self.random.below(2) == 0 {
            self.storage_returns();
            return true;
        }
        let is_asking = self.login.is_some() && self.plot != Plot::LoginSilent || !self.lookup.is_empty();
        if is_asking && self.random.below(3) == 0 && self.slow_ms_left > 0 {
            let slow_ms = self.random.below(700) as u64;
            self.slow_ms_left = self.slow_ms_left.saturating_sub(slow_ms);
            self.now = self.now.after(slow_ms);
            self.expire();
            return true;
        }
        if self.plot != Plot::LoginSilent
            && let Some(login) = self.login.take()
        {
            self.late_logins += 1;
            self.session.on_login(login, self.now, &self.policy);
            self.queued = true;
            return true;
        }
        if let Some(part) = self.lookup.pop_front() {
            match part {
                Ok(addresses) => {
                    self.session.on_addresses(addresses, self.lookup.is_empty(), self.now, &self.policy);
                }
                Err(error) => self.session.on_unresolved(&error, self.now, &self.policy),
            }
            self.queued = true;
            return true;
        }
        let undecided = |socket: &Socket| !socket.connected && !socket.dead;
        if self.plot == Plot::DialSilent || !self.attempts.iter().any(|(_, socket)| undecided(socket)) {
            return false;
        }
        if self.random.below(3) == 0 && self.slow_ms_left > 0 {
            // Slow enough for the next attempt to start, not so slow that a client that has ended is given up.
            let slow_ms = self.random.below(300) as u64;
            self.slow_ms_left = self.slow_ms_left.saturating_sub(slow_ms);
            self.now = self.now.after(slow_ms);
            self.expire();
            return true;
        }
        let refuse = self.refusals_left > 0 && self.random.below(2) == 0 || self.plot == Plot::DialRefused;
        let will_fin = self.plot != Plot::Silence || self.random.below(2) == 0;
        let index = self.random.below(self.attempts.len());
        let attempt = &mut self.attempts[index].1;
        if !undecided(attempt) {
            return true;
        }
        if refuse {
            self.refusals_left = self.refusals_left.saturating_sub(1);
            attempt.error = Some(Failure::Refused);
            attempt.dead = true;
        } else {
            attempt.connected = true;
            attempt.will_fin = will_fin;
        }
        attempt.edge = true;
        true
    }

    /// Another policy is in force, as in `EventLoop::read_mail`.
    fn reload(&mut self) {
        self.policy.users = some_users();
        self.session.on_policy(self.now, &self.policy);
        if self.login.take().is_some() {
            self.asked_anew += 1;
            self.queued = true;
        }
    }

    /// What the nameservers will say, in one part or two.
    fn answer(&mut self) -> VecDeque<Result<Vec<IpAddr>, ResolveError>> {
        let addresses: &[&str] = match self.plot {
            Plot::NameFails => return [Err(ResolveError::Failed { rcode: 2 })].into(),
            Plot::Denied => &["127.0.0.1", "10.9.9.9", "::1"],
            _ => &["127.0.0.1", "203.0.114.1", "2606:2800::1", "203.0.114.2", "198.41.0.4", "2606:2800::2"],
        };
        let all = addresses.iter().map(|address| address.parse::<IpAddr>().unwrap());
        let (v6, v4): (Vec<IpAddr>, Vec<IpAddr>) = all.partition(IpAddr::is_ipv6);
        match self.random.below(3) {
            0 => [Ok([v6, v4].concat())].into(),
            1 => [Ok(v6), Ok(v4)].into(),
            _ => [Ok(v4), Ok(v6)].into(),
        }
    }

    fn storage_returns(&mut self) {
        if self.plot == Plot::NoStorageAtStart {
            self.pool = Pool::with_ceiling(2 * RING_BYTES as u64);
        }
        self.starved = false;
        self.session.on_storage();
        self.queued = true;
    }
}
