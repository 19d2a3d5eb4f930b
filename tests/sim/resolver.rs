//! Names: one resolver, askers that come and go, and nameservers that answer, err, lie and are silent.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use adit::proto::hosts::Hosts;
use adit::proto::lookup::Families;
use adit::proto::resolver::{Asked, MAX_LOOKUPS, Part, ResolveError, Resolver, ResolverConfig};
use adit::proto::tick::Tick;

use crate::nameservers::{HABITS, Habit, Network, Truth};
use crate::{Digest, Random, Seen};

const STEPS_MAX: u32 = 100_000;
const RESOLVE_TIMEOUT_MS: u64 = 5_000;

pub(super) const MUST_BE_SEEN: &[&str] = &[
    "found",
    "found in two parts",
    "found in the cache",
    "found in the hosts file",
    "found by the search list",
    "found under an alias",
    "joined",
    "left",
    "no such name",
    "failed",
    "timeout",
    "broken",
    "unreachable",
    "no socket",
    "no servers",
    "busy",
    "as much over TCP as may be",
    "new settings",
    "new settings during a lookup",
    "flush",
];

/// What a seed is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plot {
    /// Every server is good: what is told is the whole truth, and no server is waited for in vain.
    Peaceful,
    /// The same, and the settings change at any moment.
    Reloads,
    /// One of several servers is good, and no answer is lost on the way: nobody is told that nothing could be found out.
    OneIsGood,
    /// Anything goes.
    Troubled,
    /// Descriptors are short.
    Short,
    /// More names at once than may be, all of them long in coming.
    Crowded,
    /// Everything comes over TCP, for many names at once.
    Truncated,
}

const PLOTS: [Plot; 16] = [
    Plot::Peaceful,
    Plot::Peaceful,
    Plot::Peaceful,
    Plot::Reloads,
    Plot::Reloads,
    Plot::Reloads,
    Plot::OneIsGood,
    Plot::OneIsGood,
    Plot::OneIsGood,
    Plot::Troubled,
    Plot::Troubled,
    Plot::Troubled,
    Plot::Troubled,
    Plot::Short,
    Plot::Short,
    Plot::Truncated,
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

/// One that asks and has not been told all.
#[derive(Debug)]
struct Ask {
    name: String,
    at: Tick,
    epoch: u64,
    config: Rc<ResolverConfig>,
    told: Vec<IpAddr>,
}

struct World {
    random: Random,
    plot: Plot,
    now: Tick,
    traced: bool,
    resolver: Resolver,
    config: Rc<ResolverConfig>,
    network: Network,
    names: Vec<String>,
    asks: BTreeMap<usize, Ask>,
    asks_left: usize,
    askers: usize,
    reloads_left: usize,
    seen: Seen,
    digest: Digest,
}

impl World {
    fn new(seed: u64, traced: bool) -> World {
        let mut random = Random::seeded(seed);
        let plot = if random.one_in(1_500) { Plot::Crowded } else { random.pick(&PLOTS) };
        let mut zone = BTreeMap::new();
        let mut names = Vec::new();
        for n in 0..4 {
            names.push(format!("n{n}.test"));
            zone.insert(format!("n{n}.test"), truth(&mut random));
        }
        for n in 0..3 {
            names.push(format!("b{n}"));
            for whole in [format!("b{n}"), format!("b{n}.one.test"), format!("b{n}.two.test")] {
                if random.one_in(2) {
                    zone.insert(whole.clone(), truth(&mut random));
                }
                names.push(whole);
            }
        }
        names.extend(["none.test", "N0.Test.", "b0.", "localhost", "h0", "h1.test"].map(String::from));
        let many = match plot {
            Plot::Crowded => MAX_LOOKUPS + 40,
            Plot::Truncated => 30,
            _ => 0,
        };
        for n in 0..many {
            let name = format!("m{n}.test");
            zone.insert(name.clone(), Truth { counts: [1, 1], exists: true, aliases: 0, ttl_s: 1 });
            names.push(name);
        }
        let mut network = Network::new(zone);
        network.short = (plot == Plot::Short).then_some(2);
        let config = Rc::new(settings(&mut random, plot, 0));
        give_habits(&mut network, &mut random, plot, &config.nameservers);
        network.must_remember = plot == Plot::Peaceful && config.cache_bytes > 8_192;
        World {
            resolver: Resolver::new((*config).clone()),
            config,
            network,
            names,
            plot,
            now: Tick(0),
            traced,
            asks: BTreeMap::new(),
            asks_left: if many > 0 { many + 20 } else { 5 + random.below(35) },
            askers: if many > 0 { many + 20 } else { 1 + random.below(8) },
            reloads_left: if matches!(plot, Plot::Peaceful | Plot::Crowded) { 0 } else { random.below(5) },
            seen: Seen::new(),
            digest: Digest::default(),
            random,
        }
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

    fn run(&mut self) {
        let (plot, config) = (self.plot, shown(&self.config));
        self.tell(format_args!("{plot:?}: {config}"));
        for _ in 0..STEPS_MAX {
            if !self.act() && !self.pass_time() {
                return self.check_end();
            }
            self.check();
        }
        panic!("never ends");
    }

    /// One thing happens, if anything can.
    fn act(&mut self) -> bool {
        let is_crowd = matches!(self.plot, Plot::Crowded | Plot::Truncated);
        match self.random.below(6) {
            _ if self.asks_left == 0 => self.deliver(),
            0 | 1 => self.ask(),
            2 if !is_crowd => self.leave() || self.deliver(),
            3 if !is_crowd && self.reloads_left > 0 && self.random.one_in(4) => self.reload(),
            // Time passes although something could happen.
            4 if !is_crowd => self.random.one_in(2) && self.deliver(),
            _ if is_crowd => self.ask(),
            _ => self.deliver(),
        }
    }

    fn ask(&mut self) -> bool {
        self.asks_left -= 1;
        let is_crowd = matches!(self.plot, Plot::Crowded | Plot::Truncated);
        let (who, name) = if is_crowd {
            (self.asks_left, self.names[self.names.len() - 1 - self.asks_left % self.names.len()].clone())
        } else {
            (self.random.below(self.askers), self.random.pick(&self.names.iter().collect::<Vec<_>>()).clone())
        };
        // A second question takes the place of the first.
        self.asks.remove(&who);
        let running = if self.asks.len() < MAX_LOOKUPS { 0 } else { self.running() };
        let key = canonical(&name);
        if !is_crowd
            && self.asks.values().any(|ask| canonical(&ask.name) == key && ask.epoch == self.network.epoch)
        {
            self.note("joined");
        }
        let ask = Ask {
            name: name.clone(),
            at: self.now,
            epoch: self.network.epoch,
            config: Rc::clone(&self.config),
            told: Vec::new(),
        };
        let random = &mut self.random;
        let asked = self.resolver.ask(&name, who, self.now, &mut || random.next() as u16);
        self.tell(format_args!("{who} asks for {name}: {asked:?}"));
        match asked {
            Asked::Pending => {
                assert!(running < MAX_LOOKUPS || self.is_joining(&key), "more than may be at once");
                self.asks.insert(who, ask);
            }
            Asked::Known(Ok(addresses)) => {
                let is_static = self.static_addresses(&ask).is_some();
                if is_static {
                    assert_eq!(self.static_addresses(&ask).unwrap(), addresses);
                    self.note("found in the hosts file");
                } else {
                    self.check_addresses(&ask, &addresses, None, true);
                    self.note("found in the cache");
                    self.check_truth(&ask, &addresses);
                }
            }
            Asked::Known(Err(error)) => {
                assert!(error != ResolveError::Busy || running >= MAX_LOOKUPS, "busy with {running}");
                self.check_error(&ask, &error, true);
            }
        }
        self.settle_soon();
        true
    }

    /// Lookups with somebody who waits.
    fn running(&self) -> usize {
        let mut keys: Vec<(u64, String)> =
            self.asks.values().map(|ask| (ask.epoch, canonical(&ask.name))).collect();
        keys.sort();
        keys.dedup();
        keys.len()
    }

    fn is_joining(&self, key: &str) -> bool {
        self.asks.values().any(|ask| canonical(&ask.name) == key)
    }

    fn leave(&mut self) -> bool {
        let all: Vec<usize> = self.asks.keys().copied().collect();
        if all.is_empty() || !self.random.one_in(3) {
            return false;
        }
        let who = self.random.pick(&all);
        self.asks.remove(&who);
        self.resolver.cancel(who);
        self.note("left");
        self.tell(format_args!("{who} leaves"));
        self.settle_soon();
        true
    }

    fn reload(&mut self) -> bool {
        self.reloads_left -= 1;
        if !self.asks.is_empty() {
            self.note("new settings during a lookup");
        }
        if self.random.one_in(4) {
            self.network.epoch += 1;
            self.resolver.flush();
            assert_eq!(self.resolver.cache_bytes(), 0);
            self.note("flush");
            return true;
        }
        let number = self.config_number() + 1;
        let new = match self.random.below(3) {
            0 if self.random.one_in(2) => settings(&mut self.random, self.plot, number),
            0 => {
                let other = settings(&mut self.random, self.plot, number);
                ResolverConfig { nameservers: other.nameservers, ..(*self.config).clone() }
            }
            1 => {
                // None that says where others are: what is known stays known.
                let timeout_ms = 500 + self.random.below(3_000) as u64;
                ResolverConfig { timeout_ms, rotate: self.random.one_in(2), ..(*self.config).clone() }
            }
            _ => {
                let other = settings(&mut self.random, self.plot, 0);
                let ResolverConfig { search, ndots, families, hosts, .. } = other;
                ResolverConfig { search, ndots, families, hosts, ..(*self.config).clone() }
            }
        };
        let old = &self.config;
        let is_other = new.nameservers != old.nameservers
            || (&new.search, new.ndots, new.families) != (&old.search, old.ndots, old.families)
            || new.hosts != old.hosts;
        self.network.epoch += u64::from(is_other);
        let servers: Vec<SocketAddr> =
            new.nameservers.iter().filter(|server| !old.nameservers.contains(server)).copied().collect();
        give_habits(&mut self.network, &mut self.random, self.plot, &servers);
        self.config = Rc::new(new.clone());
        let config = shown(&new);
        self.tell(format_args!("new settings: {config}"));
        self.resolver.reconfigure(new);
        self.note("new settings");
        self.settle();
        true
    }

    /// Servers of each configuration are known by their network.
    fn config_number(&self) -> u8 {
        self.network.habits.keys().map(|server| network_of(*server)).max().unwrap_or(0)
    }

    fn deliver(&mut self) -> bool {
        let said = self.network.deliver(&mut self.resolver, &mut self.random, self.now);
        self.settle();
        if let Some(Some(number)) = said {
            self.check_all_are_told(number);
        }
        said.is_some()
    }

    /// To the next moment at which something happens by itself.
    fn pass_time(&mut self) -> bool {
        if self.resolver.has_work() {
            self.settle();
            return true;
        }
        let next = self.network.next_arrival().into_iter().chain(self.resolver.next_deadline()).min();
        let idle_ms = [3, 700, 20_000][self.random.below(3)];
        let due = match next {
            // It may as well be late.
            Some(due) => due.after(if self.random.one_in(8) { 5 } else { 0 }),
            None if self.asks_left > 0 => self.now.after(idle_ms),
            None => return false,
        };
        let is_quiet = self.asks.is_empty() && self.asks_left > 0 && self.random.one_in(4);
        self.now = self.now.max(due).max(if is_quiet { self.now.after(idle_ms) } else { Tick(0) });
        let random = &mut self.random;
        if self.resolver.next_deadline().is_some_and(|due| due <= self.now) {
            // What has arrived is read before deadlines pass.
            while self.network.deliver(&mut self.resolver, random, self.now).is_some() {
                self.network.perform(&mut self.resolver, random, self.now, usize::MAX);
            }
        }
        self.resolver.expire(self.now, &mut || random.next() as u16);
        self.settle();
        let next = self.resolver.next_deadline();
        assert!(next.is_none_or(|due| due > self.now), "what is due stays due");
        true
    }

    /// What it says may wait until the others have had their turn, and who asked may have left by then.
    fn settle_soon(&mut self) {
        if self.random.one_in(2) {
            return self.settle();
        }
        self.network.perform(&mut self.resolver, &mut self.random, self.now, usize::MAX);
    }

    /// What the resolver wants is done, and what it says is told.
    fn settle(&mut self) {
        self.network.perform(&mut self.resolver, &mut self.random, self.now, usize::MAX);
        while let Some((who, answer)) = self.resolver.pop_answer() {
            self.tell(format_args!("{who} is told {answer:?}"));
            let Some(mut ask) = self.asks.remove(&who) else { panic!("{who} did not ask: {answer:?}") };
            match answer {
                Ok(Part { addresses, last, found_as }) => {
                    self.check_addresses(&ask, &addresses, found_as.as_deref(), false);
                    assert!(last || !addresses.is_empty(), "an empty part");
                    if last && !ask.told.is_empty() && !addresses.is_empty() {
                        self.note("found in two parts");
                    }
                    ask.told.extend(&addresses);
                    if !last {
                        self.asks.insert(who, ask);
                        continue;
                    }
                    assert!(!ask.told.is_empty(), "nothing was found, and nobody says why");
                    self.note("found");
                    if found_as.is_some() {
                        self.note("found by the search list");
                    }
                    self.check_truth(&ask, &ask.told);
                }
                Err(error) => {
                    assert!(ask.told.is_empty(), "an error behind addresses");
                    self.check_error(&ask, &error, false);
                }
            }
        }
    }

    // What must hold.

    fn check(&mut self) {
        if self.resolver.has_work() {
            return;
        }
        assert!(self.resolver.cache_bytes() <= self.config.cache_bytes, "the cache is too large");
        let next = self.resolver.next_deadline();
        // Of a crowd, one in so many is enough each time.
        let every = 1 + self.asks.len() / 16;
        let first = self.random.below(every);
        for (who, ask) in self.asks.iter().skip(first).step_by(every) {
            let due = ask.at.after(RESOLVE_TIMEOUT_MS);
            assert!(next.is_some_and(|next| next <= due), "{who} waits for ever: {ask:?}");
            assert!(self.now <= due.after(5), "{who} waits too long");
        }
        if self.asks.is_empty() && self.network.open() == 0 {
            assert_eq!(next, None, "a deadline of nobody");
        }
        if self.network.over_tcp_at_once == adit::proto::resolver::MAX_TCP {
            self.network.over_tcp_at_once = 0;
            self.note("as much over TCP as may be");
        }
    }

    fn check_end(&mut self) {
        assert!(self.asks.is_empty(), "never answered: {:?}", self.asks);
        assert_eq!(self.network.open(), 0, "a socket is left");
        assert_eq!(self.resolver.next_deadline(), None);
        self.resolver.flush();
        assert_eq!(self.resolver.cache_bytes(), 0);
    }

    fn static_addresses(&self, ask: &Ask) -> Option<Vec<IpAddr>> {
        let bare = ask.name.strip_suffix('.').unwrap_or(&ask.name).to_ascii_lowercase();
        let all = match &*bare {
            "localhost" => vec!["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()],
            _ => ask.config.hosts.get(&bare).to_vec(),
        };
        let wanted = all.iter().copied().filter(|&address| ask.config.families.want(address)).collect();
        (!all.is_empty()).then_some(wanted)
    }

    /// Each was said by a server that was asked, about a name that was meant, lately enough, and to who is asked about it now.
    fn check_addresses(&mut self, ask: &Ask, addresses: &[IpAddr], found_as: Option<&str>, is_known: bool) {
        let candidates = candidates(ask);
        let bare = ask.name.strip_suffix('.').unwrap_or(&ask.name).to_ascii_lowercase();
        let mut alias = false;
        for &address in addresses {
            let said = self.network.source(address);
            let heard_at = said.heard_at.expect("told before it was heard");
            assert!(ask.config.families.want(address), "of a family that is not wanted");
            assert!(!ask.told.contains(&address), "told twice");
            assert!(candidates.contains(&said.name), "of another name: {} for {ask:?}", said.name);
            assert_eq!(said.name, found_as.unwrap_or(&bare), "found under another name");
            assert!(ask.config.nameservers.contains(&said.server), "by a server that is not asked any more");
            assert!(said.epoch >= ask.epoch, "known from before the settings changed");
            // Who joins a lookup is told what that has already.
            let late_ms = if is_known { 0 } else { RESOLVE_TIMEOUT_MS };
            let ttl_ms = u64::from(said.ttl_s) * 1_000 + late_ms;
            let was_asked_for = heard_at >= ask.at;
            assert!(was_asked_for || ask.at < heard_at.after(ttl_ms), "out of date: {said:?}");
            alias |= self.network.truth(&said.name).aliases > 0;
        }
        if alias {
            self.note("found under an alias");
        }
    }

    /// Where all servers are good the answer is the whole truth.
    fn check_truth(&mut self, ask: &Ask, told: &[IpAddr]) {
        if !matches!(self.plot, Plot::Peaceful | Plot::Reloads) {
            return;
        }
        let found = candidates(ask).into_iter().find_map(|name| {
            let counts = self.wanted(ask, &name);
            (counts != [0, 0]).then_some((name, counts))
        });
        let (_, [v6, v4]) = found.expect("there is no such name");
        let told_v6 = told.iter().filter(|address| address.is_ipv6()).count();
        assert_eq!([told_v6, told.len() - told_v6], [v6, v4], "not the whole truth for {ask:?}");
    }

    fn wanted(&self, ask: &Ask, name: &str) -> [usize; 2] {
        let [v6, v4] = self.network.truth(name).counts;
        match ask.config.families {
            Families::Any => [v6, v4],
            Families::Only4 => [0, v4],
            Families::Only6 => [v6, 0],
        }
    }

    fn check_error(&mut self, ask: &Ask, error: &ResolveError, is_known: bool) {
        let candidates = candidates(ask);
        let exists = candidates.iter().any(|name| self.wanted(ask, name) != [0, 0]);
        let is_peaceful = matches!(self.plot, Plot::Peaceful | Plot::Reloads);
        match error {
            ResolveError::NotFound { rcode } => {
                if self.static_addresses(ask).is_some_and(|addresses| addresses.is_empty()) {
                    return self.note("no such name");
                }
                let fits = |addressless: &crate::nameservers::Said| {
                    addressless.addresses.is_empty()
                        && addressless.rcode == *rcode
                        && candidates.contains(&addressless.name)
                        && addressless.epoch >= ask.epoch
                        && addressless.heard_at.is_some_and(|at| {
                            // What was said without an address is forgotten after five minutes.
                            let ttl_ms = u64::from(addressless.ttl_s.min(300)) * 1_000;
                            let late_ms = if is_known { 0 } else { RESOLVE_TIMEOUT_MS };
                            at >= ask.at || ask.at < at.after(ttl_ms + late_ms)
                        })
                };
                assert!(self.network.said.iter().any(fits), "nobody has said that there is none");
                assert!(!exists, "there is one, and all servers say so: {ask:?}");
                self.note("no such name");
            }
            ResolveError::NoServers => {
                assert!(ask.config.nameservers.is_empty());
                self.note("no servers");
            }
            ResolveError::Busy => self.note("busy"),
            ResolveError::Failed { .. }
            | ResolveError::Timeout { .. }
            | ResolveError::Broken
            | ResolveError::Io(_)
            | ResolveError::NoSocket(_) => {
                assert!(!is_peaceful, "all servers are good: {error:?}");
                // Names of a search list share one time, and who has joined had what was left of it.
                let had_time = ask.config.search.is_empty() || ask.name.contains('.');
                assert!(
                    self.plot != Plot::OneIsGood || !had_time,
                    "one server is good: {error:?} for {ask:?}"
                );
                self.note(match error {
                    ResolveError::Failed { .. } => "failed",
                    ResolveError::Timeout { .. } => "timeout",
                    ResolveError::Broken => "broken",
                    ResolveError::Io(_) => "unreachable",
                    _ => "no socket",
                });
            }
        }
    }

    /// What one family has is told while the other is still asked for.
    fn check_all_are_told(&self, number: usize) {
        let said = &self.network.said[number];
        // Other names may be asked for by two lookups at once; and elsewhere it may come too late, to who asks another server.
        if self.plot != Plot::Peaceful || !said.name.starts_with('n') {
            return;
        }
        for ask in self.asks.values().filter(|ask| candidates(ask) == [&*said.name]) {
            assert!(said.addresses.iter().all(|address| ask.told.contains(address)), "kept from {ask:?}");
        }
    }
}

/// Without the hosts, which have no order.
fn shown(config: &ResolverConfig) -> String {
    let ResolverConfig { nameservers, search, ndots, timeout_ms, attempts, families, cache_bytes, .. } =
        config;
    format!("{nameservers:?} {search:?} {ndots} {timeout_ms} {attempts} {families:?} {cache_bytes}")
}

fn network_of(server: SocketAddr) -> u8 {
    match server.ip() {
        IpAddr::V4(address) => address.octets()[2],
        IpAddr::V6(_) => 0,
    }
}

fn settings(random: &mut Random, plot: Plot, number: u8) -> ResolverConfig {
    let count = match plot {
        Plot::Crowded | Plot::Truncated => 1,
        Plot::Troubled if random.one_in(12) => 0,
        _ => 1 + random.below(3),
    };
    let nameservers = (0..count).map(|n| SocketAddr::from(([192, 0, number, n as u8 + 1], 53))).collect();
    let search = random.pick::<&[&str]>(&[&[], &["one.test"], &["one.test", "two.test"]]);
    let hosts =
        random.pick(&["", "198.51.100.1 h0\n2001:db8::7 h0 h1.test\n", "198.51.100.2 h1.test n1.test\n"]);
    ResolverConfig {
        nameservers,
        search: search.iter().map(|domain| domain.to_string()).collect(),
        ndots: random.pick(&[0, 1, 1]),
        timeout_ms: random.pick(&[1_000, 5_000]),
        attempts: 1 + random.below(3) as u32,
        rotate: random.one_in(2),
        resolve_timeout_ms: RESOLVE_TIMEOUT_MS,
        families: random.pick(&[Families::Any, Families::Any, Families::Only4, Families::Only6]),
        cache_bytes: random.pick(&[0, 8_192, 65_536, 65_536, 65_536]),
        hosts: Arc::new(Hosts::parse(hosts.as_bytes()).0),
    }
}

fn give_habits(network: &mut Network, random: &mut Random, plot: Plot, servers: &[SocketAddr]) {
    let good = random.below(servers.len());
    for (n, &server) in servers.iter().enumerate() {
        let habit = match plot {
            Plot::Peaceful | Plot::Reloads => random.pick(&[Habit::Honest, Habit::Repeats, Habit::IsOld]),
            Plot::OneIsGood if n == good => random.pick(&[Habit::Honest, Habit::Repeats, Habit::IsOld]),
            Plot::Crowded => Habit::Slow,
            Plot::Truncated => Habit::Truncates,
            Plot::Short => random.pick(&[Habit::Honest, Habit::Honest, Habit::Loses, Habit::Truncates]),
            Plot::OneIsGood | Plot::Troubled => random.pick(&HABITS),
        };
        network.habits.insert(server, habit);
    }
}

fn truth(random: &mut Random) -> Truth {
    let counts = random.pick(&[[1, 1], [2, 1], [1, 3], [0, 2], [2, 0], [0, 0]]);
    Truth {
        counts,
        exists: true,
        aliases: random.pick(&[0, 0, 0, 1, 3]),
        ttl_s: random.pick(&[0, 1, 10, 60, 100_000]),
    }
}

/// As the resolver tells questions apart.
fn canonical(name: &str) -> String {
    let bare = name.strip_suffix('.').filter(|bare| bare.contains('.')).unwrap_or(name);
    bare.to_ascii_lowercase()
}

/// The names that may be meant, in order.
fn candidates(ask: &Ask) -> Vec<String> {
    let name = ask.name.to_ascii_lowercase();
    if name.contains('.') {
        return vec![name.strip_suffix('.').unwrap_or(&name).to_string()];
    }
    let mut names: Vec<String> = ask.config.search.iter().map(|domain| format!("{name}.{domain}")).collect();
    let at = if ask.config.ndots == 0 { 0 } else { names.len() };
    names.insert(at, name);
    names
}
