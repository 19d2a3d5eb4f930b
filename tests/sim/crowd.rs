//! A crowd: a whole loop with its limits. Clients that queue to be let in, names that are resolved over simulated
//! nameservers, credentials that wait for their turn, idle connections, few descriptors and little storage, and new settings
//! at any moment.

mod checks;
mod looping;
mod peers;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use adit::proto::deadlines::Deadlines;
use adit::proto::hosts::Hosts;
use adit::proto::login_queue::{LoginQueue, Question};
use adit::proto::logins::{Logins, Tag, Tagger};
use adit::proto::lookup::Families;
use adit::proto::pool::{self, Limits};
use adit::proto::resolver::{Resolver, ResolverConfig};
use adit::proto::ring::{Pool, RING_BYTES};
use adit::proto::session::{Policy, Session};
use adit::proto::tick::Tick;
use adit::proto::users::Users;
use adit::sys::shared::Shared;
use slab::Slab;

use crate::nameservers::{Habit, Network, Truth};
use crate::{Digest, Random, Seen, policy};
use peers::{Connection, Peer};

const STEPS_MAX: u32 = 100_000;
const KEEP_MS: u64 = 60_000;
const TAG_KEY_VERDICTS: usize = 512;

pub(super) const MUST_BE_SEEN: &[&str] = &[
    "answer",
    "tunnel",
    "reuse",
    "idle connection evicted",
    "idle connection kept long enough",
    "idle connections given up for a descriptor",
    "session limit",
    "client's session limit",
    "accepting pauses",
    "dial without a descriptor",
    "starved",
    "new settings",
    "new settings under a tunnel",
    "new settings during a lookup",
    "new settings while credentials wait",
    "denied by new settings",
    "login waits",
    "login refused",
    "client resets",
    "drained",
    "200",
    "403",
    "407",
    "429",
    "502",
    "503",
    "504",
];

/// What a seed is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plot {
    /// There is enough of everything, and everybody does what they should: each request has exactly one right answer, and no
    /// deadline passes.
    Calm,
    /// The same, and the settings change at any moment: an answer is right by settings that were in force meanwhile.
    Reloads,
    /// Fewer sessions than clients.
    FewSessions,
    /// Fewer descriptors than are wanted.
    FewDescriptors,
    /// Little storage.
    LittleStorage,
    /// Names cannot be resolved, or late.
    Names,
    /// Clients reset at any moment.
    Resets,
    Drain,
    /// All of it.
    Everything,
}

const PLOTS: [Plot; 12] = [
    Plot::Calm,
    Plot::Calm,
    Plot::Reloads,
    Plot::Reloads,
    Plot::Reloads,
    Plot::FewSessions,
    Plot::FewDescriptors,
    Plot::LittleStorage,
    Plot::Names,
    Plot::Resets,
    Plot::Drain,
    Plot::Everything,
];

pub(super) fn run(seed: u64, traced: bool) -> Seen {
    let mut world = World::new(seed, traced);
    world.run();
    world.seen
}

pub(super) fn digest(seed: u64) -> u64 {
    let mut world = World::new(seed, false);
    world.run();
    world.digest.0
}

/// Names that are asked for; the last one does not exist.
const NAMES: [&str; 5] = ["o0.test", "o1.test", "o2.test", "o3.test", "none.test"];
/// alice and bob have the same password, and the third has another one.
pub(super) const SHOWN: [(&str, &str); 3] =
    [("alice", "YWxpY2U6cGFzc3dvcmQ="), ("bob", "Ym9iOnBhc3N3b3Jk"), ("wrong", "YWxpY2U6d3Jvbmc=")];
const HASH: &str = "{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=";

/// Settings: rules, and who may log in.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) rules: usize,
    pub(super) users: Vec<&'static str>,
}

const RULES: [&[&str]; 6] = [
    &[],
    &["o0.test", "o2.test from 10.0.0.8"],
    &["11.0.0.0/8"],
    &["2a00::/16 from 10.0.0.7", "o1.test"],
    &["o2.test user bob", "o3.test from 10.0.0.9"],
    &["*"],
];

impl Settings {
    /// What its rules come to, in other words.
    pub(super) fn denies(&self, client: IpAddr, user: &str, name: &str, address: Option<IpAddr>) -> bool {
        let client = client.to_string();
        let user = if self.users.is_empty() { "" } else { user };
        match self.rules {
            1 => name == "o0.test" || name == "o2.test" && client == "10.0.0.8",
            2 => address.is_some_and(|address| address.is_ipv4()),
            3 => {
                name == "o1.test" || client == "10.0.0.7" && address.is_some_and(|address| address.is_ipv6())
            }
            4 => name == "o2.test" && user == "bob" || name == "o3.test" && client == "10.0.0.9",
            5 => true,
            _ => false,
        }
    }

    pub(super) fn knows(&self, user: &str) -> bool {
        self.users.is_empty() || self.users.contains(&user)
    }
}

struct Entry {
    session: Session,
    peer: usize,
    upstream: Option<usize>,
    attempts: Vec<(u8, usize)>,
    queued: bool,
    counted: bool,
    looking_up: bool,
    logging_in: bool,
    starved: bool,
}

struct World {
    random: Random,
    plot: Plot,
    traced: bool,
    spurious: bool,
    now: Tick,
    policy: Policy,
    /// All that were ever in force, the last one is.
    settings: Vec<Settings>,
    reloads_left: usize,
    shared: Shared,
    sessions_max: usize,
    per_client_max: Option<usize>,
    /// Peers in the listener's queue.
    outside: VecDeque<usize>,
    accept_resumes: Option<Tick>,
    peers: Vec<Peer>,
    entries: Slab<Entry>,
    connections: Vec<Connection>,
    idle: pool::Pool<usize>,
    limits: Limits,
    over: Vec<usize>,
    resolver: Resolver,
    network: Network,
    names: ResolverConfig,
    logins: LoginQueue,
    known: Logins,
    tagger: Tagger,
    verifying: Option<Question>,
    /// None is verified before that.
    login_due: Option<Tick>,
    waiting: Vec<(Tag, usize)>,
    users: Option<Arc<Users>>,
    storage: Pool,
    storage_max: u64,
    starved: VecDeque<usize>,
    deadlines: Deadlines,
    descriptors_max: usize,
    drains_at: Option<u32>,
    is_draining: bool,
    capacity: usize,
    seen: Seen,
    digest: Digest,
}

impl World {
    fn new(seed: u64, traced: bool) -> World {
        let mut random = Random::seeded(seed);
        let plot = random.pick(&PLOTS);
        let all = plot == Plot::Everything;
        let peer_count = if plot == Plot::Calm { 1 + random.below(6) } else { 4 + random.below(20) };
        let peers: Vec<Peer> = (0..peer_count).map(|number| Peer::new(number, &mut random)).collect();
        let mut zone = std::collections::BTreeMap::new();
        for name in &NAMES[..4] {
            let counts = random.pick(&[[1, 1], [2, 1], [1, 2], [1, 1]]);
            let ttl_s = random.pick(&[0, 1, 30, 600]);
            zone.insert(name.to_string(), Truth { counts, exists: true, aliases: 0, ttl_s });
        }
        let mut network = Network::new(zone);
        network.is_steady = true;
        let names = ResolverConfig {
            nameservers: Vec::new(),
            search: Vec::new(),
            ndots: 1,
            timeout_ms: 5_000,
            attempts: 2,
            rotate: false,
            resolve_timeout_ms: 5_000,
            families: Families::Any,
            cache_bytes: random.pick(&[0, 65_536, 65_536]),
            hosts: Arc::new(Hosts::default()),
        };
        if all && random.one_in(2) {
            network.short = Some(6);
        }
        let settings = draw_settings(&mut random, plot == Plot::Calm || plot == Plot::Reloads);
        let (policy, users) = policy_of(&settings);
        let few = |is_few: bool, random: &mut Random, least: usize, span: usize| {
            if is_few { least + random.below(span) } else { 10_000 }
        };
        let sessions_max = few(plot == Plot::FewSessions || all, &mut random, 1, 6);
        let per_client_max =
            (plot == Plot::FewSessions || all && random.one_in(2)).then(|| 1 + random.below(4));
        let descriptors_max = few(plot == Plot::FewDescriptors || all, &mut random, 3, 10);
        let storage_max = few(plot == Plot::LittleStorage || all, &mut random, 1, 4).min(4 * peer_count + 8);
        let storage_max = (storage_max * RING_BYTES) as u64;
        let limits = Limits { total: random.pick(&[0, 1, 2, 4, 8]), per_origin: random.pick(&[1, 2, 4]) };
        let reloads = match plot {
            Plot::Reloads => 1 + random.below(6),
            Plot::Everything => random.below(4),
            _ => 0,
        };
        let drains = plot == Plot::Drain || all && random.one_in(3);
        let mut world = World {
            plot,
            traced,
            spurious: random.one_in(3),
            now: Tick(0),
            policy,
            users,
            settings: vec![settings],
            reloads_left: reloads,
            shared: Shared::new(sessions_max, per_client_max),
            sessions_max,
            per_client_max,
            outside: VecDeque::new(),
            accept_resumes: None,
            peers,
            entries: Slab::new(),
            connections: Vec::new(),
            idle: pool::Pool::new(limits, KEEP_MS),
            limits,
            over: Vec::new(),
            resolver: Resolver::new(names.clone()),
            network,
            names,
            logins: LoginQueue::default(),
            known: Logins::new(TAG_KEY_VERDICTS),
            tagger: Tagger::new(std::hash::RandomState::new()),
            verifying: None,
            login_due: None,
            waiting: Vec::new(),
            storage: Pool::with_ceiling(storage_max),
            storage_max,
            starved: VecDeque::new(),
            deadlines: Deadlines::default(),
            descriptors_max,
            drains_at: drains.then(|| random.below(600) as u32),
            is_draining: false,
            capacity: random.pick(&[40, 3_000, 60_000]),
            seen: Seen::new(),
            digest: Digest::default(),
            random,
        };
        world.new_nameservers();
        world.resolver.reconfigure(world.names.clone());
        world
    }

    fn note(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    fn tell(&mut self, what: std::fmt::Arguments<'_>) {
        let line = format!("{:?} {what}", self.now);
        self.digest.add(line.as_bytes());
        if self.traced {
            println!("{line}");
        }
    }

    fn in_force(&self) -> &Settings {
        self.settings.last().unwrap()
    }

    /// Others than before: what they say can be told from what was said before.
    fn new_nameservers(&mut self) {
        let number = self.settings.len() as u8;
        let habits: &[Habit] = match self.plot {
            Plot::Names | Plot::Everything => &crate::nameservers::HABITS,
            // What must come over TCP is more than may at once, and one family has to do.
            Plot::FewSessions | Plot::FewDescriptors => &[Habit::Honest, Habit::Truncates],
            _ => &[Habit::Honest, Habit::Repeats, Habit::IsOld],
        };
        self.names.nameservers = (1..=2).map(|n| SocketAddr::from(([192, 0, number, n], 53))).collect();
        for server in &self.names.nameservers {
            let habit = self.random.pick(habits);
            self.network.habits.insert(*server, habit);
        }
    }

    fn run(&mut self) {
        let plot = self.plot;
        self.tell(format_args!("{plot:?} {} peers", self.peers.len()));
        for step in 0..STEPS_MAX {
            if self.drains_at == Some(step) {
                self.drain();
            }
            if self.reloads_left > 0 && self.random.one_in(60) {
                self.reload();
            }
            if self.act() {
                self.check();
                continue;
            }
            if self.is_over() {
                return self.check_end();
            }
            self.quiet();
            self.check();
        }
        panic!("never ends: {}", self.describe());
    }

    fn is_over(&self) -> bool {
        self.entries.is_empty() && self.outside.is_empty() && self.peers.iter().all(|peer| peer.is_over())
    }

    /// One thing happens in the world, if anything can.
    fn act(&mut self) -> bool {
        let first = self.random.below(8);
        for offset in 0..8 {
            let done = match (first + offset) % 8 {
                0 => self.accept(),
                1 => self.run_one(),
                2 => self.poll(),
                3 | 4 => self.a_peer_acts(),
                5 => self.an_origin_acts(),
                6 => self.names_arrive(),
                _ => self.verify_logins(),
            };
            if done {
                if self.spurious && self.random.one_in(8) {
                    self.rumour();
                }
                if self.random.one_in(20) {
                    self.now = self.now.after(self.random.below(3) as u64);
                    self.expire();
                }
                return true;
            }
        }
        false
    }

    fn names_arrive(&mut self) -> bool {
        // A question that was answered in part from the cache.
        if self.resolver.has_work() {
            self.resolve();
            return true;
        }
        let any = self.network.deliver(&mut self.resolver, &mut self.random, self.now).is_some();
        if any {
            self.resolve();
        }
        any
    }

    /// Nothing moves any more, but time.
    fn quiet(&mut self) {
        if !self.spurious {
            self.check_nothing_is_ready();
        }
        let due = [
            self.deadlines.next(),
            self.idle.next_deadline(),
            self.resolver.next_deadline(),
            self.network.next_arrival(),
            self.accept_resumes,
            self.login_due,
        ];
        let due = due.into_iter().flatten().min();
        self.now = self.now.max(due.unwrap_or_else(|| panic!("waits for ever: {}", self.describe())));
        self.expire();
    }

    fn describe(&self) -> String {
        let entries = self.entries.iter().map(|(key, entry)| format!("\n{key}: {:?}", entry.session));
        let peers = self.peers.iter().map(|peer| format!("\n{peer:?}"));
        format!("{:?}{}{}", self.plot, entries.collect::<String>(), peers.collect::<String>())
    }
}

fn draw_settings(random: &mut Random, is_calm: bool) -> Settings {
    let rules = if is_calm && random.one_in(2) { 0 } else { random.below(RULES.len()) };
    let users = random.pick::<&[&'static str]>(&[&[], &[], &["alice", "bob"], &["alice"]]);
    Settings { rules, users: users.to_vec() }
}

fn policy_of(settings: &Settings) -> (Policy, Option<Arc<Users>>) {
    let mut args = Vec::new();
    for rule in RULES[settings.rules] {
        args.extend(["--deny", rule]);
    }
    let mut policy = policy(&args);
    if !settings.users.is_empty() {
        let text: String = settings.users.iter().map(|user| format!("{user}:{HASH}\n")).collect();
        policy.users = Some(Arc::new(Users::parse(text.as_bytes()).unwrap()));
    }
    let users = policy.users.clone();
    (policy, users)
}
