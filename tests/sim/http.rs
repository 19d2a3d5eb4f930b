//! Plain HTTP: one or two clients, up to four origins, and the idle connections between them.

mod checks;
mod client;
mod draw;
mod looping;
mod origin;
mod plan;
mod reader;
mod upstreams;

pub(crate) use plan::content;

use std::collections::VecDeque;
use std::net::IpAddr;

use adit::proto::deadlines::Deadlines;
use adit::proto::failure::Failure;
use adit::proto::pool::{self, Limits};
use adit::proto::resolver::ResolveError;
use adit::proto::ring::{Pool, RING_BYTES};
use adit::proto::session::{Login, Policy, Session};
use adit::proto::tick::Tick;

use crate::socket::Socket;
use crate::{Random, Seen, policy, some_users};
use client::{Client, Ending};
use draw::Draw;
use origin::Connection;
use plan::{ADDRESS_ORIGIN, BARE_ORIGIN, COMPLETED, Exchange, Kind, ORIGINS, PLOTS, Plot, origin_name};

const STEPS_MAX: u32 = 300_000;
const KEEP_MS: u64 = 60_000;
/// Time that passes by itself: less than any deadline in which nothing is lost.
const SPARE_MS: u64 = 1_500;

/// What the simulation would be worth little without.
pub(super) const MUST_BE_SEEN: &[&str] = &[
    "reuse",
    "retry",
    "request sent twice",
    "news of a connection that was just taken",
    "cut",
    "early answer",
    "upgrade",
    "tunnel behind plain HTTP",
    "eviction",
    "late surplus",
    "crossing surplus",
    "idle connection ended by its origin",
    "death of a reused connection",
    "idle connection closed",
    "idle connection found to be over",
    "idle connection refused to another client",
    "own answer",
    "refusal",
    "interim response",
    "login refused",
    "late login",
    "login asked anew",
    "login never answered",
];

pub(super) fn run(seed: u64, traced: bool) -> Seen {
    run_world(World::new(seed, Clients::Any), traced)
}

/// What takes a client's end that comes in the middle of its request and of the answer to it.
pub(super) fn run_hasty(seed: u64, traced: bool) -> Seen {
    run_world(World::new(seed, Clients::Hasty), traced)
}

/// Who asks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Clients {
    Any,
    /// They are answered before they have sent the body, and end at once.
    Hasty,
}

fn run_world(mut world: World, traced: bool) -> Seen {
    world.traced = traced;
    world.run();
    world.seen
}

/// One client connection as its loop sees it.
struct Entry {
    session: Session,
    socket: Socket,
    upstream: Option<usize>,
    attempts: Vec<(u8, usize)>,
    queued: bool,
    starved: bool,
    /// What became of the credentials, still under way.
    login: Option<Login>,
    /// Parts of the answer that are still under way; the last one ends it.
    lookup: VecDeque<Result<Vec<IpAddr>, ResolveError>>,
    ended: bool,
    moves: Moves,
    /// When its last answer was out, there was something to read.
    knows_unread: bool,
    lines: Vec<Line>,
    /// Bytes written by it to its client and to upstreams.
    written: (u64, u64),
}

/// When things happened that deadlines are counted from.
#[derive(Clone, Copy, Debug, Default)]
struct Moves {
    /// The last byte, end or connection.
    any: Tick,
    /// The last byte from the client.
    heard: Tick,
    /// The current request began to want an upstream.
    asked: Tick,
    /// The client's end was known.
    end_known: Option<Tick>,
}

/// What an access line says.
#[derive(Debug)]
struct Line {
    asked: String,
    user: Option<String>,
    status: Option<u16>,
    end: &'static str,
    up_bytes: u64,
    down_bytes: u64,
}

/// An idle connection, and how many polls there had been when it became idle.
#[derive(Debug)]
struct Idle {
    id: usize,
    since: u64,
}

struct World {
    random: Random,
    plot: Plot,
    spurious: bool,
    traced: bool,
    now: Tick,
    spare_ms: u64,
    policy: Policy,
    denies_completed: bool,
    capacity: usize,
    exchanges: Vec<Exchange>,
    clients: Vec<Client>,
    /// One for each client.
    entries: Vec<Entry>,
    connections: Vec<Connection>,
    limits: Limits,
    idle: pool::Pool<Idle>,
    /// Idle connections about which there was news.
    over: Vec<usize>,
    /// How many there were, and whether the last one has told all that there was to tell.
    polls: u64,
    all_told: bool,
    storage: Pool,
    deadlines: Deadlines,
    refusals_left: usize,
    trouble_at: u32,
    /// Whom the trouble meets.
    troubled: usize,
    is_draining: bool,
    seen: Seen,
}

const CLIENTS: [&str; 2] = ["10.0.0.7:4711", "10.0.0.8:4712"];
/// The second client may not go there.
const DENIED_TO_SECOND: [&str; 3] = ["203.0.114.1", "203.0.114.17", "203.0.114.200"];
/// Where users are asked for, bob may not go there, whichever client shows his credentials.
const DENIED_TO_BOB: [&str; 2] = ["203.0.114.2", "203.0.114.18"];

impl World {
    fn new(seed: u64, who: Clients) -> World {
        let mut random = Random::seeded(seed);
        let plot = random.pick(&PLOTS);
        let is_hasty = who == Clients::Hasty;
        let plot = if is_hasty { Plot::Peaceful } else { plot };
        let mut args = vec!["--deny", "127.0.0.0/8", "--deny", "denied.test"];
        let mut rules = DENIED_TO_SECOND.map(|address| format!("{address} from 10.0.0.8")).to_vec();
        // Of the name that this one is completed to.
        let denies_completed = random.one_in(2);
        if denies_completed {
            rules.push(format!("{COMPLETED} from 10.0.0.8"));
        }
        for rule in &rules {
            args.extend(["--deny", rule]);
        }
        let is_guarded = matches!(plot, Plot::Reload | Plot::LoginSilent) || random.one_in(3);
        let rules = DENIED_TO_BOB.map(|address| format!("{address} user bob"));
        if is_guarded {
            rules.iter().for_each(|rule| args.extend(["--deny", rule]));
        }
        let mut policy = policy(&args);
        if is_guarded {
            policy.users = some_users();
        }
        let capacity = random.pick(&[8, 3_000, 60_000]);
        let capacity = 1 + random.below(capacity);
        let idle_matters = matches!(plot, Plot::Surplus | Plot::ClosesIdle | Plot::DiesReused);
        let is_keeping = idle_matters || random.one_in(3);
        let mut exchanges = Vec::new();
        let mut clients = Vec::new();
        for client in 0..1 + random.below(3) / 2 {
            let count = 1 + random.below(6);
            let origins = 1 + random.below(if is_keeping { 2 } else { 3 });
            let first = exchanges.len();
            for at in 0..count {
                let is_narrow = capacity < 100;
                let mut draw = Draw { random: &mut random, plot, is_narrow, is_keeping, is_guarded };
                let mut exchange = draw.exchange(exchanges.len(), client, origins, at + 1 == count);
                if at + 1 == count && plot == Plot::ClientBad {
                    draw.make_bad(&mut exchange);
                }
                if draw.random.one_in(2) {
                    draw.spoil(&mut exchange);
                }
                if is_hasty && exchange.expects {
                    exchange.answer.early_at = Some(0);
                }
                let is_forwarded = matches!(exchange.kind, Kind::Plain | Kind::Upgrade);
                let is_denied = client == 1
                    && (exchange.origin == ADDRESS_ORIGIN
                        || exchange.origin == BARE_ORIGIN && denies_completed);
                if is_denied && (is_forwarded || exchange.kind == Kind::Connect) {
                    exchange.kind = Kind::Own(403);
                }
                exchanges.push(exchange);
            }
            let numbers = (first..exchanges.len()).collect();
            let mut client = Client::new(numbers, &exchanges, plot, &mut random);
            client.gives_up |= is_hasty;
            clients.push(client);
        }
        let entries = (0..clients.len()).map(|client| Entry {
            session: Session::new(CLIENTS[client].parse().unwrap(), Tick(0), &policy),
            socket: Socket { capacity, connected: true, ..Socket::default() },
            upstream: None,
            attempts: Vec::new(),
            queued: true,
            starved: false,
            login: None,
            lookup: VecDeque::new(),
            ended: false,
            moves: Moves::default(),
            knows_unread: false,
            lines: Vec::new(),
            written: (0, 0),
        });
        let limits =
            Limits { total: random.pick(&[0, 1, 1, 2, 4, 4, 4]), per_origin: random.pick(&[1, 2, 2, 4]) };
        let trouble_at = random.pick(&[40, 400]);
        World {
            plot,
            spurious: random.one_in(3),
            traced: false,
            now: Tick(0),
            spare_ms: SPARE_MS,
            capacity,
            entries: entries.collect(),
            // Scarce means half; with plenty there are wide rings.
            storage: Pool::with_ceiling(
                (if plot == Plot::Scarce { 2 } else { [5, 5, 64][seed as usize % 3] }
                    * clients.len()
                    * RING_BYTES) as u64,
            ),
            troubled: random.below(clients.len()),
            exchanges,
            clients,
            policy,
            denies_completed,
            connections: Vec::new(),
            limits,
            idle: pool::Pool::new(limits, KEEP_MS),
            over: Vec::new(),
            polls: 0,
            all_told: false,
            deadlines: Deadlines::default(),
            refusals_left: if plot == Plot::DialRefused { 99 } else { random.below(2) },
            trouble_at: random.below(trouble_at) as u32,
            is_draining: false,
            seen: Seen::new(),
            random,
        }
    }

    /// Whether this client may use a connection to that origin at that address, for what it asks for now.
    fn may_reach(&self, client: usize, origin: usize, address: IpAddr) -> bool {
        let text = address.to_string();
        let is_second = client == 1;
        let is_denied = is_second && DENIED_TO_SECOND.contains(&text.as_str());
        let name_is_denied = is_second && origin == BARE_ORIGIN && self.denies_completed;
        let asked = self.clients[client].exchanges.get(self.entries[client].lines.len());
        let is_bob = self.policy.users.is_some() && asked.is_some_and(|&at| self.exchanges[at].user == "bob");
        let is_denied = is_denied || is_bob && DENIED_TO_BOB.contains(&text.as_str());
        text != "127.0.0.1" && !is_denied && !name_is_denied
    }

    fn note(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    fn run(&mut self) {
        if self.traced {
            println!("{:?}, capacity {}", self.plot, self.capacity);
            for exchange in &self.exchanges {
                let Exchange { token, client, origin, kind, answer, .. } = exchange;
                let head = String::from_utf8_lossy(&exchange.head);
                println!("{token} of {client} to {origin}, {kind:?}: {head:.300}");
                println!("  -> {:?} {:?} early {:?}", answer.framing, answer.fault, answer.early_at);
                println!("  -> {:.300}", String::from_utf8_lossy(&answer.wire[answer.final_from..]));
            }
        }
        for step in 0..STEPS_MAX {
            if step == self.trouble_at {
                self.make_trouble();
            }
            if self.act() {
                continue;
            }
            if self.entries.iter().all(|entry| entry.ended) {
                return self.check_end();
            }
            if step < self.trouble_at {
                self.trouble_at = step + 1;
            } else {
                self.quiet();
            }
        }
        panic!("{:?} never ends", self.plot);
    }

    /// One thing happens in the world, if anything can.
    fn act(&mut self) -> bool {
        let first = self.random.below(6);
        for offset in 0..6 {
            let done = match (first + offset) % 6 {
                0 => self.run_one(),
                1 => self.deliver_edges(),
                2 => self.a_client(World::client_sends),
                3 => self.a_client(World::client_receives),
                4 => self.origins_act(),
                _ => self.a_client(World::network),
            };
            if done {
                if self.spurious && self.random.one_in(8) {
                    self.rumour();
                }
                if self.random.one_in(10) {
                    let passed_ms = self.random.below(3) as u64;
                    self.pass_time(passed_ms);
                }
                return true;
            }
        }
        false
    }

    fn a_client(&mut self, act: fn(&mut World, usize) -> bool) -> bool {
        let count = self.clients.len();
        let first = self.random.below(count);
        (0..count).any(|offset| act(self, (first + offset) % count))
    }

    fn pass_time(&mut self, passed_ms: u64) -> bool {
        let passed_ms = passed_ms.min(self.spare_ms);
        self.spare_ms -= passed_ms;
        self.now = self.now.after(passed_ms);
        self.expire();
        passed_ms > 0
    }

    /// Nothing moves any more. Where nothing is awaited that must not be before the end; elsewhere only time helps.
    fn quiet(&mut self) {
        let starved = self.entries.iter().any(|entry| entry.starved);
        if starved {
            return self.storage_returns();
        }
        assert!(self.plot.takes_time(), "lost wake-up: {}", self.describe());
        self.check_nothing_is_ready();
        let due = self.deadlines.next().into_iter().chain(self.idle.next_deadline()).min();
        self.now = self.now.max(due.expect("no state without a deadline"));
        self.expire();
        self.close_over();
    }

    fn describe(&self) -> String {
        let mut text = format!("{:?}", self.plot);
        for (entry, client) in self.entries.iter().zip(&self.clients) {
            text += &format!("\n{:?}\n{:?}\n{:?}", entry.session, entry.socket.ready(), client);
            if let Some(upstream) = entry.upstream {
                text += &format!("\n{:?}", self.connections[upstream].socket.ready());
            }
        }
        text
    }

    fn make_trouble(&mut self) {
        let troubled = self.troubled;
        let (entry, client) = (&mut self.entries[troubled], &mut self.clients[troubled]);
        match self.plot {
            Plot::ClientResets if !entry.ended => {
                entry.socket.reset();
                client.is_stuck = true;
            }
            Plot::ClientLeaves => client.leaves = true,
            Plot::ClientStalls => client.is_stuck = true,
            Plot::ClientDeaf => client.is_deaf = true,
            Plot::Drain => self.drain(),
            Plot::Grace => {
                self.drain();
                for key in 0..self.entries.len() {
                    self.entries[key].session.on_grace_over(self.now, &self.policy);
                    self.entries[key].queued = true;
                }
            }
            Plot::Quit => self.quit(),
            Plot::Reload => self.reload(),
            _ => {}
        }
    }

    // Peers.

    fn client_sends(&mut self, key: usize) -> bool {
        let count = match self.random.below(3) {
            0 => 1 + self.random.below(20),
            1 => 1 + self.random.below(5_000),
            _ => 200_000,
        };
        let with_fin = self.random.one_in(2);
        let (entry, client) = (&mut self.entries[key], &mut self.clients[key]);
        let socket = &mut entry.socket;
        if entry.ended || socket.dead || socket.fin || socket.inbox.len() > 100_000 {
            return false;
        }
        let Some((bytes, fin)) = client.sends(count, with_fin) else { return false };
        socket.inbox.extend_from_slice(&bytes);
        socket.fin = fin;
        socket.edge = true;
        true
    }

    fn client_receives(&mut self, key: usize) -> bool {
        let count = 1 + self.random.below(20_000);
        let (entry, client) = (&mut self.entries[key], &mut self.clients[key]);
        if client.is_deaf || entry.socket.dead {
            return false;
        }
        let bytes = entry.socket.receive(count);
        if !bytes.is_empty() {
            client.receives(&bytes, &self.exchanges);
        } else if entry.socket.shut && client.ending.is_none() {
            client.ending = Some(Ending::Fin);
        } else {
            return false;
        }
        self.check_answers(key);
        true
    }

    /// Answers of nameservers and of destinations, and storage that comes back.
    fn network(&mut self, key: usize) -> bool {
        if self.entries[key].starved && self.random.one_in(2) {
            self.storage_returns();
            return true;
        }
        if self.entries[key].login.is_some() && self.plot != Plot::LoginSilent {
            let slow_ms = self.random.below(700) as u64;
            if self.random.one_in(3) && self.pass_time(slow_ms) {
                return true;
            }
            self.note("late login");
            let entry = &mut self.entries[key];
            // Time may have passed beyond what its client waits for.
            if let Some(login) = entry.login.take() {
                entry.session.on_login(login, self.now, &self.policy);
                entry.queued = true;
            }
            return true;
        }
        if !self.entries[key].lookup.is_empty() {
            let slow_ms = self.random.below(700) as u64;
            if self.random.one_in(3) && self.pass_time(slow_ms) {
                return true;
            }
            let entry = &mut self.entries[key];
            match entry.lookup.pop_front().unwrap() {
                Ok(addresses) => {
                    let is_last = entry.lookup.is_empty();
                    let target = entry.session.target().unwrap();
                    if target.host.to_string() == origin_name(BARE_ORIGIN) {
                        entry.session.on_completed(COMPLETED);
                    }
                    entry.session.on_addresses(addresses, is_last, self.now, &self.policy);
                }
                Err(error) => entry.session.on_unresolved(&error, self.now, &self.policy),
            }
            entry.queued = true;
            return true;
        }
        self.destination_decides(key)
    }

    fn destination_decides(&mut self, key: usize) -> bool {
        let undecided = |id: &usize| {
            let socket = &self.connections[*id].socket;
            !socket.connected && !socket.dead
        };
        let undecided: Vec<usize> =
            self.entries[key].attempts.iter().map(|&(_, id)| id).filter(undecided).collect();
        if undecided.is_empty() || self.plot == Plot::DialSilent && !self.random.one_in(4) {
            return false;
        }
        // Slow enough for the next attempt to start.
        let slow_ms = self.random.below(300) as u64;
        if self.random.one_in(3) && self.pass_time(slow_ms) {
            return true;
        }
        let id = self.random.pick(&undecided);
        let refuses = self.refuses(self.connections[id].origin);
        let socket = &mut self.connections[id].socket;
        if refuses {
            socket.error = Some(Failure::Refused);
            socket.dead = true;
        } else {
            socket.connected = true;
        }
        socket.edge = true;
        true
    }

    fn refuses(&mut self, origin: usize) -> bool {
        // Nobody else speaks for an address.
        let may = origin != ADDRESS_ORIGIN || self.plot == Plot::DialRefused;
        let refuses = may && self.refusals_left > 0 && self.random.one_in(2);
        self.refusals_left -= usize::from(refuses);
        refuses
    }

    /// What the nameservers will say, in one part or two.
    fn nameservers_say(&mut self, name: &str) -> VecDeque<Result<Vec<IpAddr>, ResolveError>> {
        if self.plot == Plot::NameFails && self.random.one_in(2) {
            return [Err(ResolveError::Failed { rcode: 2 })].into();
        }
        let addresses = addresses_of(name);
        let (v6, v4): (Vec<IpAddr>, Vec<IpAddr>) = addresses.into_iter().partition(IpAddr::is_ipv6);
        match self.random.below(3) {
            0 => [Ok([v6, v4].concat())].into(),
            1 => [Ok(v6), Ok(v4)].into(),
            _ => [Ok(v4), Ok(v6)].into(),
        }
    }
}

/// One that is denied, three of its own, and one that all names share.
fn addresses_of(name: &str) -> Vec<IpAddr> {
    let origin = (0..ORIGINS).find(|&origin| origin_name(origin) == name).unwrap();
    let own = 16 * origin;
    let texts = [
        "127.0.0.1".to_string(),
        format!("203.0.114.{}", own + 1),
        format!("203.0.114.{}", own + 2),
        format!("2606:2800::{}", own + 1),
        "198.41.0.4".to_string(),
    ];
    texts.iter().map(|text| text.parse().unwrap()).collect()
}
