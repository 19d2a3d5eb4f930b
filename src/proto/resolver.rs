//! Which name is asked of which server, when it is asked again, and what the answer is. Pure: messages and time come
//! in, sockets to open and answers go out. Layer 2.

mod action;
mod asking;
#[cfg(test)]
mod memory_tests;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use slab::Slab;

pub use self::action::{Action, Exchange, SocketFault};
pub use self::asking::MAX_TCP;
use super::cache::{Cache, Fact};
use super::deadlines::Deadlines;
use super::dns::{self, Name, Reading};
use super::hosts::Hosts;
pub use super::lookup::{Families, ResolveError};
use super::lookup::{Fault, Lookup, Phase, QTYPES, Question, SLOTS, Terms, UDP};
use super::lookup::{known, more_telling};
use super::servers::{MIN_TRY_MS, Servers};
use super::tick::Tick;

/// Lookups that may run at once; one more is refused as [`ResolveError::Busy`]. Each holds up to three descriptors.
pub const MAX_LOOKUPS: usize = 1024;

/// Nothing to ask with, or nobody there: so long until the next try, time enough for a local server to start again.
const PAUSE_MS: u64 = 250;
const MAX_SEARCH: usize = 6;

const _: () = assert!(MIN_TRY_MS > 0 && PAUSE_MS > 0, "expire() must make progress");

/// Where names are asked, as `resolv.conf`, the hosts file and the options say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolverConfig {
    /// Servers in order of preference; with none, every question is refused at once.
    pub nameservers: Vec<SocketAddr>,
    /// Domains that a name without a dot is tried in.
    pub search: Vec<String>,
    /// With 0 a name without a dot is asked as it is before the search list, else after it. Names with a dot are
    /// always asked as they are.
    pub ndots: u8,
    /// The longest wait for one server.
    pub timeout_ms: u64,
    /// How often the list of servers is gone through.
    pub attempts: u32,
    /// Start with another server for each name.
    pub rotate: bool,
    /// The longest wait for one name, all servers and retries together (`--resolve-timeout`).
    pub resolve_timeout_ms: u64,
    /// Only addresses of these families are asked for and given (`--family`).
    pub families: Families,
    /// Ceiling for the memory of the cache, which is one loop's own. 0: nothing is kept.
    pub cache_bytes: usize,
    /// Names that are never asked.
    pub hosts: Arc<Hosts>,
}

/// A piece of a name's addresses: one family as soon as it is there, or what is left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// IPv6 and IPv4 by turns if there are both. Only the last part may be empty.
    pub addresses: Vec<IpAddr>,
    /// Nothing more comes. Before that, the other family is still being asked.
    pub last: bool,
    /// The name that has these addresses, where the search list completed the one that was asked for. Whoever judged the
    /// one must judge the other.
    pub found_as: Option<Arc<str>>,
}

/// What becomes of a question at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// It needs no server. All there is.
    Known(Result<Vec<IpAddr>, ResolveError>),
    /// The answer comes later, by the asker's key, in one part or two.
    Pending,
}

/// Where random query ids come from.
pub type Ids<'a> = &'a mut dyn FnMut() -> u16;

/// The lookups of one event loop.
///
/// Whoever drives it does what [`Resolver::pop_action`] says after every call, tells what came of it, and calls
/// [`Resolver::expire`] at [`Resolver::next_deadline`]. Every lookup has a deadline from its first moment to its last.
#[derive(Debug)]
pub struct Resolver {
    config: ResolverConfig,
    /// Counts what makes all answers so far worthless: new servers, a flush.
    generation: u64,
    cache: Cache,
    servers: Servers,
    lookups: Slab<Lookup>,
    /// Those that may be joined: of the present generation.
    by_name: HashMap<Box<str>, usize>,
    askers: HashMap<usize, Place>,
    /// One entry for each lookup.
    /// By the numbers of lookups.
    due: Deadlines,
    actions: VecDeque<Action>,
    answers: VecDeque<(usize, Result<Part, ResolveError>)>,
}

impl Resolver {
    /// A resolver with nothing to do.
    #[must_use]
    pub fn new(config: ResolverConfig) -> Resolver {
        let mut servers = Servers::default();
        servers.configure(&config.nameservers, |_| false);
        Resolver {
            generation: 0,
            cache: Cache::new(config.cache_bytes),
            config,
            servers,
            lookups: Slab::new(),
            by_name: HashMap::new(),
            askers: HashMap::new(),
            due: Deadlines::default(),
            actions: VecDeque::new(),
            answers: VecDeque::new(),
        }
    }

    /// New settings for every question from now on. Lookups that run go on with those they began with. The cache is
    /// emptied if the new settings could have led to other answers.
    pub fn reconfigure(&mut self, config: ResolverConfig) {
        let lookups = &self.lookups;
        let in_use = |server: usize| lookups.iter().any(|(_, lookup)| lookup.order.contains(&server));
        self.servers.configure(&config.nameservers, in_use);
        let old = std::mem::replace(&mut self.config, config);
        let new = &self.config;
        if new.cache_bytes != old.cache_bytes {
            self.cache = Cache::new(new.cache_bytes);
        }
        let same_answers = new.nameservers == old.nameservers
            && (&new.search, new.ndots, new.families) == (&old.search, old.ndots, old.families)
            && new.hosts == old.hosts;
        if !same_answers {
            self.flush();
        }
    }

    /// Empties the cache. What is asked from now on is asked anew, also if a lookup for the same name is running; what
    /// that one learns is for its askers alone.
    pub fn flush(&mut self) {
        self.generation += 1;
        self.cache.flush();
        self.by_name.clear();
    }

    /// What the cache takes of memory.
    #[must_use]
    pub fn cache_bytes(&self) -> usize {
        self.cache.bytes()
    }

    /// Asks for the addresses of `name`. `who` names the asker, which has one question at a time; a second one takes
    /// the place of the first. A name that cannot be a DNS name does not exist.
    ///
    /// A pending question may have a part of its answer already: see [`Resolver::has_work`].
    pub fn ask(&mut self, name: &str, who: usize, now: Tick, ids: Ids<'_>) -> Asked {
        self.cancel(who);
        if let Some(result) = self.static_answer(name) {
            return Asked::Known(result);
        }
        let key = canonical(name);
        let is_absolute = key.contains('.') || self.config.search.is_empty();
        let bare = key.strip_suffix('.').unwrap_or(&key);
        if is_absolute && let Some(result) = known(self.cache.get(bare, now), self.config.families) {
            return Asked::Known(result);
        }
        if let Some(&at) = self.by_name.get(&*key) {
            self.join(at, who);
            return Asked::Pending;
        }
        if self.servers.is_empty() {
            return Asked::Known(Err(ResolveError::NoServers));
        }
        let names = self.candidates(&key);
        if names.is_empty() {
            return Asked::Known(Err(ResolveError::NotFound { rcode: dns::RCODE_NXDOMAIN }));
        }
        if !self.has_place() {
            return Asked::Known(Err(ResolveError::Busy));
        }
        let at = self.start(key.into(), names, now);
        self.join(at, who);
        self.settle(at, now, ids);
        match self.answers.pop_back() {
            // All that was asked was in the cache. A completed name is told with its part.
            Some((asker, Ok(Part { addresses, last: true, found_as: None }))) if asker == who => {
                Asked::Known(Ok(addresses))
            }
            Some((asker, Err(error))) if asker == who => Asked::Known(Err(error)),
            other => {
                self.answers.extend(other);
                Asked::Pending
            }
        }
    }

    /// The asker left: nothing more will be said to it. The last one out ends the lookup; but if it had addresses of one
    /// family, the try that runs for the other is finished, so that the next one who asks finds both in the cache.
    pub fn cancel(&mut self, who: usize) {
        self.answers.retain(|(asker, _)| *asker != who);
        let Some(place) = self.askers.remove(&who) else { return };
        let Some(lookup) = self.lookups.get_mut(place.lookup) else { return };
        lookup.askers.swap_remove(place.position);
        if let Some(moved) = lookup.askers.get(place.position) {
            self.askers.insert(*moved, place);
        }
        let is_useful = lookup.terms.generation == self.generation && lookup.has_addresses();
        if lookup.askers.is_empty() && !(is_useful && lookup.is_waiting()) {
            self.remove(place.lookup);
        }
    }

    /// A datagram, or a whole message over TCP, came in.
    pub fn on_message(&mut self, exchange: Exchange, message: &[u8], now: Tick, ids: Ids<'_>) {
        let (at, slot) = (exchange.lookup(), exchange.slot());
        let Some(lookup) = self.lookups.get(at) else { return };
        let Some(name) = lookup.name() else { return };
        let read = |index: usize| {
            let (question, &qtype) = (lookup.questions.get(index)?, QTYPES.get(index)?);
            let id = question.id_on(slot, index)?;
            match dns::read_answer(message, id, name, qtype) {
                // Over TCP there is one answer and nobody else who could speak.
                Reading::Ignore if slot != UDP => Some((index, Reading::Broken)),
                Reading::Ignore => None,
                reading @ (Reading::Broken | Reading::Answer(_)) => Some((index, reading)),
            }
        };
        if let Some((index, reading)) = read(0).or_else(|| read(1)) {
            self.on_reading(at, index, reading, now, ids);
            self.settle(at, now, ids);
        }
    }

    /// A socket could not be opened, or failed, or was closed by the server.
    pub fn on_failure(&mut self, exchange: Exchange, fault: SocketFault, now: Tick, ids: Ids<'_>) {
        let (at, slot) = (exchange.lookup(), exchange.slot());
        let Some(lookup) = self.lookups.get_mut(at) else { return };
        if !lookup.needs(slot) {
            return;
        }
        for (index, question) in lookup.questions.iter_mut().enumerate() {
            if question.id_on(slot, index).is_some() {
                *question = Question::Unanswered;
            }
        }
        lookup.note(match fault {
            SocketFault::Server(kind) => Fault::Socket(kind),
            SocketFault::Local(kind) => Fault::NoSocket(kind),
        });
        match fault {
            SocketFault::Server(_) => {
                // Going round at once would find the same.
                lookup.pause |= lookup.round_is_over();
                if let Phase::Trying { server, started } = lookup.phase {
                    self.servers.avoid_if_silent(server, started, now);
                }
            }
            SocketFault::Local(_) => {
                lookup.pause = true;
                // Nobody was asked. The lookup's own deadline ends this.
                if slot == UDP {
                    lookup.tries = lookup.tries.saturating_sub(1);
                }
            }
        }
        self.settle(at, now, ids);
    }

    /// Does what is due at `now`.
    pub fn expire(&mut self, now: Tick, ids: Ids<'_>) {
        while let Some(at) = self.due.pop_due(now) {
            self.on_due(at, now, ids);
        }
    }

    /// When [`Resolver::expire`] is due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Tick> {
        self.due.next()
    }

    /// The next thing to do with a socket, in order.
    pub fn pop_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Whether [`Resolver::pop_action`] or [`Resolver::pop_answer`] has something.
    #[must_use]
    pub fn has_work(&self) -> bool {
        !self.actions.is_empty() || !self.answers.is_empty()
    }

    /// The next answer, and who asked.
    ///
    /// Addresses of one family come as soon as they are there, those of the other, or none, with the last part. An error
    /// only comes when there are no addresses at all, and is always the last.
    pub fn pop_answer(&mut self) -> Option<(usize, Result<Part, ResolveError>)> {
        self.answers.pop_front()
    }

    /// Names that need no server: `localhost` and all under it (RFC 6761 6.3), then the hosts file. A name that stands there
    /// is not asked, also if it has no address of a family that is wanted.
    fn static_answer(&self, name: &str) -> Option<Result<Vec<IpAddr>, ResolveError>> {
        const LOCALHOST: &[IpAddr] = &[IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        let bare = name.strip_suffix('.').unwrap_or(name);
        let top = bare.rsplit('.').next().unwrap_or(bare);
        let is_localhost = top.eq_ignore_ascii_case("localhost");
        let all = if is_localhost { LOCALHOST } else { self.config.hosts.get(bare) };
        if all.is_empty() {
            return None;
        }
        let families = self.config.families;
        let addresses: Vec<IpAddr> = all.iter().copied().filter(|&address| families.want(address)).collect();
        let not_found = ResolveError::NotFound { rcode: dns::RCODE_NOERROR };
        Some(if addresses.is_empty() { Err(not_found) } else { Ok(addresses) })
    }

    /// The names to ask for, in order: a name with a dot is absolute.
    fn candidates(&self, key: &str) -> Vec<Name> {
        let plain = Name::parse(key);
        if plain.is_none() || key.contains('.') {
            return plain.into_iter().collect();
        }
        let search = self.config.search.iter().take(MAX_SEARCH);
        let mut names: Vec<Name> =
            search.filter_map(|domain| Name::parse(&format!("{key}.{domain}"))).collect();
        let place = if self.config.ndots == 0 { 0 } else { names.len() };
        names.extend(plain);
        if let Some(tail) = names.get_mut(place..) {
            tail.rotate_right(1);
        }
        names
    }

    /// Whether one more lookup may start. Those that run for the cache alone give way.
    fn has_place(&mut self) -> bool {
        if self.lookups.len() >= MAX_LOOKUPS
            && let Some(at) =
                self.lookups.iter().find(|(_, lookup)| lookup.askers.is_empty()).map(|(at, _)| at)
        {
            self.remove(at);
        }
        self.lookups.len() < MAX_LOOKUPS
    }

    /// A lookup with nobody to answer to, and nothing asked yet.
    fn start(&mut self, key: Box<str>, names: Vec<Name>, now: Tick) -> usize {
        let config = &self.config;
        // The whole round must fit into the ceiling, or the second server is never asked: the default of 5 s is the
        // default wait of resolv.conf for the first server alone.
        let tries = (self.servers.len() as u32).saturating_mul(config.attempts.max(1)).max(1);
        let share_ms = (config.resolve_timeout_ms / u64::from(tries)).max(MIN_TRY_MS);
        let terms = Terms {
            families: config.families,
            try_ms: config.timeout_ms.clamp(1, share_ms),
            tries_max: tries,
            generation: self.generation,
        };
        let deadline = now.after(config.resolve_timeout_ms);
        let order = self.servers.order(config.rotate, now);
        let at = self.lookups.insert(Lookup::new(key.clone(), names, terms, order, deadline));
        self.by_name.insert(key, at);
        self.arm(at, deadline);
        self.fill_in(at, now);
        at
    }

    /// Takes what the cache knows of the lookup's present name.
    fn fill_in(&mut self, at: usize, now: Tick) {
        let Some(lookup) = self.lookups.get_mut(at) else { return };
        if lookup.terms.generation == self.generation
            && let Some(name) = lookup.name().map(Name::text)
        {
            lookup.fill_in(self.cache.get(&name, now));
        }
    }

    /// Adds an asker, who gets at once what the others have already.
    fn join(&mut self, at: usize, who: usize) {
        let Some(lookup) = self.lookups.get_mut(at) else { return };
        self.askers.insert(who, Place { lookup: at, position: lookup.askers.len() });
        lookup.askers.push(who);
        let addresses = lookup.delivered();
        if !addresses.is_empty() {
            let found_as = lookup.found_as();
            self.answers.push_back((who, Ok(Part { addresses, last: false, found_as })));
        }
    }

    fn on_due(&mut self, at: usize, now: Tick, ids: Ids<'_>) {
        let Some(lookup) = self.lookups.get(at) else { return };
        // First of all the next deadline: whatever happens below, this entry is not due again at once.
        let (phase, deadline, heard) = (lookup.phase, lookup.deadline, lookup.heard);
        self.arm(at, deadline);
        match phase {
            Phase::Pausing => {
                if now < deadline {
                    self.start_try(at, now, ids);
                    return;
                }
            }
            // A name that some server has answered in part is to blame for the silence itself.
            Phase::Trying { .. } if heard => {}
            Phase::Trying { server, started } => self.servers.avoid_if_silent(server, started, now),
        }
        let Some(lookup) = self.lookups.get_mut(at) else { return };
        if lookup.give_up_waiting() {
            lookup.note(Fault::Silence);
        }
        self.settle(at, now, ids);
    }

    /// The one place that says what comes next for a lookup: wait, ask again, ask for another name, or answer.
    fn settle(&mut self, at: usize, now: Tick, ids: Ids<'_>) {
        self.close_idle(at);
        let Some(lookup) = self.lookups.get_mut(at) else { return };
        if lookup.is_waiting() {
            self.deliver(at);
            return;
        }
        match lookup.verdict() {
            Some(Ok(())) => self.finish(at, Ok(()), now),
            None if lookup.may_try_again(now) => {
                if std::mem::take(&mut lookup.pause) {
                    lookup.phase = Phase::Pausing;
                    self.arm(at, now.after(PAUSE_MS));
                } else {
                    self.start_try(at, now, ids);
                }
                self.deliver(at);
            }
            None if lookup.has_addresses() => self.finish(at, Ok(()), now),
            Some(Err(error)) => self.next_name(at, error, now, ids),
            None => {
                let error = self.error(at);
                self.next_name(at, error, now, ids);
            }
        }
    }

    /// Tells the askers what they do not know yet, while the other family is being asked.
    fn deliver(&mut self, at: usize) {
        let Some(lookup) = self.lookups.get_mut(at) else { return };
        let addresses = lookup.take_undelivered();
        if !addresses.is_empty() {
            let found_as = lookup.found_as();
            for &who in &lookup.askers {
                let (addresses, found_as) = (addresses.clone(), found_as.clone());
                self.answers.push_back((who, Ok(Part { addresses, last: false, found_as })));
            }
        }
    }

    /// This name has no addresses, or nobody can say: go on along the search list.
    fn next_name(&mut self, at: usize, error: ResolveError, now: Tick, ids: Ids<'_>) {
        let Some(lookup) = self.lookups.get_mut(at) else { return };
        let servers_speak = matches!(error, ResolveError::NotFound { .. } | ResolveError::Failed { .. });
        let error = match lookup.error.take() {
            Some(before) if servers_speak => more_telling(before, error),
            Some(_) | None => error,
        };
        let more_names = lookup.name_index + 1 < lookup.names.len();
        if servers_speak && more_names && now < lookup.deadline {
            lookup.start_next_name(error);
            self.fill_in(at, now);
            self.settle(at, now, ids);
            return;
        }
        // No time is left for the other names, and one of them may be there.
        let error = if servers_speak && more_names { more_telling(error, self.error(at)) } else { error };
        self.finish(at, Err(error), now);
    }

    fn error(&self, at: usize) -> ResolveError {
        let Some(lookup) = self.lookups.get(at) else { return ResolveError::NoServers };
        match lookup.fault {
            Some(Fault::Rcode(rcode)) => ResolveError::Failed { rcode },
            Some(Fault::Broken) => ResolveError::Broken,
            Some(Fault::Busy) => ResolveError::Busy,
            Some(Fault::Socket(kind)) => ResolveError::Io(kind),
            Some(Fault::NoSocket(kind)) => ResolveError::NoSocket(kind),
            Some(Fault::Silence) | None => {
                let asked = lookup.order.iter().take(lookup.tries as usize);
                let servers =
                    asked.filter_map(|&server| self.servers.get(server)).map(|server| server.address);
                ResolveError::Timeout { servers: servers.collect() }
            }
        }
    }

    fn finish(&mut self, at: usize, result: Result<(), ResolveError>, now: Tick) {
        if result.is_ok() {
            for index in 0..QTYPES.len() {
                self.keep_failure(at, index, now);
            }
        }
        let Some(mut lookup) = self.remove(at) else { return };
        let addresses = lookup.take_undelivered();
        let found_as = lookup.found_as();
        let result = result.map(|()| Part { addresses, last: true, found_as });
        for who in lookup.askers {
            self.askers.remove(&who);
            self.answers.push_back((who, result.clone()));
        }
    }

    fn remove(&mut self, at: usize) -> Option<Lookup> {
        let mut lookup = self.lookups.try_remove(at)?;
        if self.by_name.get(&lookup.key) == Some(&at) {
            self.by_name.remove(&lookup.key);
        }
        self.due.remove(at);
        for (slot, open) in lookup.open.iter_mut().enumerate() {
            if std::mem::take(open) {
                self.actions.push_back(Action::Close { exchange: Exchange::new(at, slot) });
            }
        }
        Some(lookup)
    }

    /// Takes what is known of one family of the present name into the cache.
    fn keep(&mut self, at: usize, index: usize, ttl_s: u32, now: Tick) {
        let Some(lookup) = self.lookups.get(at) else { return };
        if lookup.terms.generation == self.generation
            && let Some(name) = lookup.name()
            && let Some(fact) = lookup.questions.get(index).and_then(Question::fact)
        {
            self.cache.put(&name.text(), index, fact, ttl_s, now);
        }
    }

    /// A family that nobody could tell of, or nobody said for how long, is not asked for again with every connection, as
    /// long as the other one serves. A name that failed altogether is not kept: it may work the next moment, and servers
    /// keep failures themselves (RFC 9520).
    fn keep_failure(&mut self, at: usize, index: usize, now: Tick) {
        let Some(lookup) = self.lookups.get(at) else { return };
        if lookup.terms.generation != self.generation {
            return;
        }
        if let Some(name) = lookup.name().map(Name::text)
            && lookup.questions.get(index).is_some_and(Question::lacks_addresses)
            && self.cache.get(&name, now).get(index).is_some_and(Option::is_none)
        {
            self.cache.put(&name, index, Fact::Failed, u32::MAX, now);
        }
    }

    fn open(&mut self, exchange: Exchange, action: Action) {
        let lookup = self.lookups.get_mut(exchange.lookup());
        if let Some(open) = lookup.and_then(|lookup| lookup.open.get_mut(exchange.slot())) {
            *open = true;
        }
        self.actions.push_back(action);
    }

    /// Closes the sockets that no question waits on.
    fn close_idle(&mut self, at: usize) {
        let Some(lookup) = self.lookups.get_mut(at) else { return };
        for slot in 0..SLOTS {
            let needed = lookup.needs(slot);
            if let Some(open) = lookup.open.get_mut(slot).filter(|open| **open && !needed) {
                *open = false;
                self.actions.push_back(Action::Close { exchange: Exchange::new(at, slot) });
            }
        }
    }

    /// Sets the lookup's only timer; its deadline is never passed.
    fn arm(&mut self, at: usize, wake: Tick) {
        let Some(lookup) = self.lookups.get(at) else { return };
        self.due.set(at, wake.min(lookup.deadline));
    }
}

/// Where an asker stands.
#[derive(Debug, Clone, Copy)]
struct Place {
    lookup: usize,
    position: usize,
}

/// One spelling for equal questions: lower case; the last dot only stays where it says "no search list".
fn canonical(name: &str) -> Cow<'_, str> {
    let bare = name.strip_suffix('.').filter(|bare| bare.contains('.')).unwrap_or(name);
    if bare.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(bare.to_ascii_lowercase())
    } else {
        Cow::Borrowed(bare)
    }
}
