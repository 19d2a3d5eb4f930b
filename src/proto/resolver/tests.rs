//! Scripts with a virtual clock: what a resolver asks, when it asks again, and what it says.
#![allow(clippy::unwrap_used, clippy::panic)]
use std::io::ErrorKind;

use super::*;
use crate::proto::dns::Qtype;
use crate::proto::dns::script::{Rr, has_edns, question, reply, truncated};
use crate::proto::servers::AVOID_MS;

pub(super) const V4: &str = "192.0.2.1";
pub(super) const V6: &str = "2001:db8::1";

/// A resolver with a virtual clock, and what a kernel would know about its sockets.
pub(super) struct World {
    pub(super) resolver: Resolver,
    pub(super) now: Tick,
    next_id: u16,
    /// Open sockets, whom they are connected to, and the messages sent on them.
    pub(super) sockets: HashMap<Exchange, (SocketAddr, Vec<Vec<u8>>)>,
    pub(super) opened: usize,
    /// Parts of answers that are not whole yet.
    parts: HashMap<usize, Vec<IpAddr>>,
}

pub(super) fn config(servers: &[&str]) -> ResolverConfig {
    ResolverConfig {
        nameservers: servers.iter().map(|text| server(text)).collect(),
        search: Vec::new(),
        ndots: 1,
        timeout_ms: 1_000,
        attempts: 2,
        rotate: false,
        resolve_timeout_ms: 5_000,
        families: Families::Any,
        cache_bytes: 64 * 1024,
        hosts: Arc::new(Hosts::parse(b"10.0.0.9 nas nas.lan\nfd00::9 nas").0),
    }
}

pub(super) fn server(text: &str) -> SocketAddr {
    SocketAddr::new(text.parse().unwrap(), 53)
}

pub(super) fn addresses(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

pub(super) fn ips(texts: &[&str]) -> Result<Vec<IpAddr>, ResolveError> {
    Ok(addresses(texts))
}

pub(super) fn timeout(servers: &[&str]) -> Result<Vec<IpAddr>, ResolveError> {
    Err(ResolveError::Timeout { servers: servers.iter().map(|text| server(text)).collect() })
}

impl World {
    pub(super) fn new(config: ResolverConfig) -> World {
        let resolver = Resolver::new(config);
        World {
            resolver,
            now: Tick(0),
            next_id: 100,
            sockets: HashMap::new(),
            opened: 0,
            parts: HashMap::new(),
        }
    }

    pub(super) fn with(servers: &[&str]) -> World {
        World::new(config(servers))
    }

    pub(super) fn call<R>(&mut self, call: impl FnOnce(&mut Resolver, Tick, Ids<'_>) -> R) -> R {
        let next_id = &mut self.next_id;
        let mut ids = || {
            *next_id += 1;
            *next_id
        };
        let result = call(&mut self.resolver, self.now, &mut ids);
        self.act();
        result
    }

    pub(super) fn act(&mut self) {
        while let Some(action) = self.resolver.pop_action() {
            let (exchange, server, messages) = match action {
                Action::OpenUdp { exchange, server, messages } => (exchange, server, messages),
                Action::OpenTcp { exchange, server, message } => (exchange, server, vec![message]),
                Action::SendUdp { exchange, message } => {
                    self.sockets.get_mut(&exchange).unwrap().1.push(message);
                    continue;
                }
                Action::Close { exchange } => {
                    assert!(self.sockets.remove(&exchange).is_some(), "closed twice");
                    continue;
                }
            };
            self.opened += 1;
            assert!(self.sockets.insert(exchange, (server, messages)).is_none(), "opened twice");
        }
        self.check();
    }

    /// What must hold at any time.
    pub(super) fn check(&self) {
        let resolver = &self.resolver;
        assert_eq!(resolver.due.count(), resolver.lookups.len(), "one timer for each lookup");
        for (name, &at) in &resolver.by_name {
            assert_eq!(
                (&resolver.lookups[at].key, resolver.lookups[at].terms.generation),
                (name, resolver.generation)
            );
        }
        assert!(resolver.cache.bytes() <= resolver.config.cache_bytes);
        let mut askers = 0;
        for (at, lookup) in &resolver.lookups {
            assert!(resolver.due.get(at).is_some_and(|wake| wake <= lookup.deadline));
            assert!(!lookup.askers.is_empty() || (lookup.has_addresses() && lookup.is_waiting()));
            askers += lookup.askers.len();
            for slot in 0..SLOTS {
                assert_eq!(lookup.open[slot], self.sockets.contains_key(&Exchange::new(at, slot)));
                assert_eq!(lookup.open[slot], lookup.needs(slot), "a socket nobody waits on");
            }
        }
        assert_eq!(resolver.askers.len(), askers);
    }

    pub(super) fn ask(&mut self, name: &str, who: usize) -> Asked {
        self.call(|resolver, now, ids| resolver.ask(name, who, now, ids))
    }

    pub(super) fn ask_pending(&mut self, name: &str, who: usize) {
        assert_eq!(self.ask(name, who), Asked::Pending);
    }

    pub(super) fn sleep(&mut self, ms: u64) {
        self.now = self.now.after(ms);
        self.call(|resolver, now, ids| resolver.expire(now, ids));
    }

    /// Sleeps until the next deadline and says how long that was.
    pub(super) fn sleep_on(&mut self) -> u64 {
        let ms = self.resolver.next_deadline().unwrap().since(self.now);
        self.sleep(ms);
        ms
    }

    /// The last question of this type, and where it was sent: over TCP if it came to that.
    pub(super) fn find(&self, qtype: Qtype) -> (Exchange, Vec<u8>) {
        let asked = |message: &&Vec<u8>| question(message).1 == qtype;
        let found = self.sockets.iter().filter_map(|(exchange, (_, messages))| {
            messages.iter().rfind(asked).map(|message| (*exchange, message.clone()))
        });
        found.max_by_key(|(exchange, _)| exchange.index()).unwrap_or_else(|| panic!("no {qtype:?} question"))
    }

    pub(super) fn server_asked(&self, qtype: Qtype) -> IpAddr {
        self.sockets[&self.find(qtype).0].0.ip()
    }

    pub(super) fn tell(&mut self, exchange: Exchange, message: &[u8]) {
        self.call(|resolver, now, ids| resolver.on_message(exchange, message, now, ids));
    }

    pub(super) fn answer(&mut self, qtype: Qtype, rcode: u8, addresses: &[&str]) {
        let (exchange, query) = self.find(qtype);
        let (name, _) = question(&query);
        let records: Vec<Rr<'_>> = addresses.iter().map(|address| Rr::Address(&name, address)).collect();
        self.tell(exchange, &reply(&query, rcode, &records));
    }

    pub(super) fn answer_both(&mut self, rcode: u8) {
        self.answer(Qtype::Aaaa, rcode, &[]);
        self.answer(Qtype::A, rcode, &[]);
    }

    pub(super) fn fail(&mut self, qtype: Qtype, fault: SocketFault) {
        let (exchange, _) = self.find(qtype);
        self.call(|resolver, now, ids| resolver.on_failure(exchange, fault, now, ids));
    }

    /// The next answer that is whole.
    pub(super) fn result(&mut self) -> (usize, Result<Vec<IpAddr>, ResolveError>) {
        loop {
            let (who, answer) = self.resolver.pop_answer().unwrap();
            let part = match answer {
                Ok(part) => part,
                Err(error) => {
                    assert!(!self.parts.contains_key(&who), "an error after addresses");
                    return (who, Err(error));
                }
            };
            assert!(part.last || !part.addresses.is_empty());
            let addresses = self.parts.entry(who).or_default();
            addresses.extend(part.addresses);
            if part.last {
                return (who, Ok(self.parts.remove(&who).unwrap()));
            }
        }
    }

    /// The next part of an answer.
    pub(super) fn part(&mut self) -> (usize, Vec<IpAddr>, bool) {
        let (who, answer) = self.resolver.pop_answer().unwrap();
        let Part { addresses, last, .. } = answer.unwrap();
        (who, addresses, last)
    }

    /// The last line of every script.
    pub(super) fn nothing_is_left(mut self) {
        assert_eq!(self.resolver.pop_answer(), None);
        assert!(self.sockets.is_empty() && self.resolver.lookups.is_empty());
        assert!(self.resolver.askers.is_empty());
        assert_eq!(self.resolver.next_deadline(), None);
        assert!(!self.resolver.has_work());
    }
}

#[test]
fn both_families_are_asked_at_once_and_delivered_as_they_come() {
    let mut world = World::with(&["10.0.0.1"]);
    world.ask_pending("Example.com", 7);
    assert_eq!(world.opened, 1);
    let (exchange, query) = world.find(Qtype::A);
    assert_eq!(world.find(Qtype::Aaaa).0, exchange);
    assert_eq!(question(&query).0, "example.com");
    assert!(has_edns(&query));
    assert_ne!(query[..2], world.find(Qtype::Aaaa).1[..2]);
    world.answer(Qtype::A, 0, &[V4, "192.0.2.2", "192.0.2.3"]);
    assert_eq!(world.part(), (7, addresses(&[V4, "192.0.2.2", "192.0.2.3"]), false));
    assert_eq!(world.resolver.pop_answer(), None);
    world.answer(Qtype::Aaaa, 0, &[V6, "2001:db8::2"]);
    assert_eq!(world.part(), (7, addresses(&[V6, "2001:db8::2"]), true));
    // Whoever asks now gets all at once, by turns.
    let all = [V6, V4, "2001:db8::2", "192.0.2.2", "192.0.2.3"];
    assert_eq!(world.ask("example.com.", 7), Asked::Known(ips(&all)));
    world.nothing_is_left();
}

#[test]
fn hosts_and_localhost_need_no_server() {
    let mut world = World::with(&[]);
    assert_eq!(world.ask("NAS.", 1), Asked::Known(ips(&["10.0.0.9", "fd00::9"])));
    assert_eq!(world.ask("nas.lan", 1), Asked::Known(ips(&["10.0.0.9"])));
    for name in ["localhost", "LocalHost.", "a.b.localhost", "x.LOCALHOST."] {
        assert_eq!(world.ask(name, 1), Asked::Known(ips(&["127.0.0.1", "::1"])), "{name}");
    }
    assert_eq!(world.ask("notlocalhost", 1), Asked::Known(Err(ResolveError::NoServers)));
    assert_eq!(world.opened, 0);
    world.nothing_is_left();
}

#[test]
fn names_that_cannot_be_do_not_exist() {
    let mut world = World::with(&["10.0.0.1"]);
    for name in ["", ".", "a..b", &"x".repeat(64), &"abc.".repeat(70)] {
        assert_eq!(world.ask(name, 1), Asked::Known(Err(ResolveError::NotFound { rcode: 3 })), "{name:?}");
    }
    world.nothing_is_left();
}

#[test]
fn no_such_name() {
    let mut world = World::with(&["10.0.0.1"]);
    world.ask_pending("a.test", 1);
    world.answer_both(3);
    assert_eq!(world.result(), (1, Err(ResolveError::NotFound { rcode: 3 })));
    world.ask_pending("b.test", 2);
    world.answer_both(0);
    assert_eq!(world.result(), (2, Err(ResolveError::NotFound { rcode: 0 })));
    // One family without addresses is no failure.
    world.ask_pending("c.test", 3);
    world.answer(Qtype::Aaaa, 3, &[]);
    world.answer(Qtype::A, 0, &[V4]);
    assert_eq!(world.result(), (3, ips(&[V4])));
    world.nothing_is_left();
}

#[test]
fn equal_questions_are_asked_once() {
    let mut world = World::with(&["10.0.0.1"]);
    world.ask_pending("a.test", 1);
    world.ask_pending("A.Test.", 2);
    world.ask_pending("a.test", 3);
    world.resolver.cancel(1);
    world.act();
    assert_eq!((world.opened, world.sockets.len()), (1, 1));
    world.answer(Qtype::A, 0, &[V4]);
    world.answer(Qtype::Aaaa, 0, &[]);
    let mut answers = vec![world.result(), world.result()];
    answers.sort_by_key(|(who, _)| *who);
    assert_eq!(answers, [(2, ips(&[V4])), (3, ips(&[V4]))]);
    world.nothing_is_left();
}

#[test]
fn last_asker_out_closes_the_sockets() {
    let mut world = World::with(&["10.0.0.1"]);
    for who in 0..5 {
        world.ask_pending("a.test", who);
    }
    for who in [2, 0, 4, 1] {
        world.resolver.cancel(who);
        world.act();
        assert_eq!(world.sockets.len(), 1);
    }
    let (exchange, query) = world.find(Qtype::A);
    world.resolver.cancel(3);
    world.act();
    // What comes in late finds nobody.
    world.tell(exchange, &reply(&query, 0, &[]));
    world.call(|resolver, now, ids| {
        resolver.on_failure(exchange, SocketFault::Server(ErrorKind::ConnectionRefused), now, ids);
    });
    world.nothing_is_left();
}

#[test]
fn cancel_takes_back_an_answer_that_was_not_fetched() {
    let mut world = World::with(&["10.0.0.1"]);
    world.ask_pending("a.test", 1);
    world.ask_pending("a.test", 2);
    world.answer_both(3);
    world.resolver.cancel(1);
    assert_eq!(world.result().0, 2);
    // Asking again takes the place of the first question.
    world.ask_pending("b.test", 3);
    world.ask_pending("c.test", 3);
    assert_eq!(world.resolver.lookups.len(), 1);
    world.resolver.cancel(3);
    world.act();
    world.nothing_is_left();
}

#[test]
fn silence_moves_on_and_the_servers_are_named() {
    let mut world = World::with(&["10.0.0.1", "10.0.0.2"]);
    world.ask_pending("a.test", 1);
    let mut asked = Vec::new();
    for _ in 0..4 {
        asked.push(world.server_asked(Qtype::A).to_string());
        assert_eq!(world.sleep_on(), 1_000);
    }
    assert_eq!(asked, ["10.0.0.1", "10.0.0.2", "10.0.0.1", "10.0.0.2"]);
    assert_eq!(world.opened, 4);
    assert_eq!(world.result(), (1, timeout(&["10.0.0.1", "10.0.0.2"])));
    world.nothing_is_left();
}

#[test]
fn second_server_has_its_turn_within_the_ceiling() {
    // Both defaults are 5 s.
    let long = ResolverConfig { timeout_ms: 5_000, ..config(&["10.0.0.1", "10.0.0.2"]) };
    let mut world = World::new(long);
    world.ask_pending("a.test", 1);
    assert_eq!(world.sleep_on(), 1_250);
    assert_eq!(world.server_asked(Qtype::A).to_string(), "10.0.0.2");
    world.answer(Qtype::A, 0, &[V4]);
    world.answer(Qtype::Aaaa, 0, &[]);
    assert_eq!(world.result(), (1, ips(&[V4])));
    world.nothing_is_left();
}

#[test]
fn ceiling_ends_everything() {
    let short = ResolverConfig { resolve_timeout_ms: 700, ..config(&["10.0.0.1", "10.0.0.2"]) };
    let mut world = World::new(short);
    world.ask_pending("a.test", 1);
    assert_eq!(world.sleep_on(), MIN_TRY_MS);
    assert_eq!(world.sleep_on(), 700 - MIN_TRY_MS);
    assert_eq!(world.result(), (1, timeout(&["10.0.0.1", "10.0.0.2"])));
    world.ask_pending("b.test", 1);
    world.sleep(60_000);
    assert_eq!(world.result().0, 1);
    world.nothing_is_left();
}

#[test]
fn dead_server_is_asked_last_for_a_while() {
    let mut world = World::with(&["10.0.0.1", "10.0.0.2"]);
    world.sleep(10_000);
    world.ask_pending("a.test", 1);
    world.sleep_on();
    world.answer_both(3);
    let _ = world.result();
    world.ask_pending("b.test", 1);
    assert_eq!(world.server_asked(Qtype::A).to_string(), "10.0.0.2");
    world.answer_both(3);
    let _ = world.result();
    world.sleep(AVOID_MS);
    world.ask_pending("c.test", 1);
    assert_eq!(world.server_asked(Qtype::A).to_string(), "10.0.0.1");
    world.answer_both(3);
    let _ = world.result();
    world.nothing_is_left();
}

#[test]
fn silence_to_one_question_is_not_the_servers_fault() {
    let mut world = World::with(&["10.0.0.1", "10.0.0.2"]);
    world.ask_pending("broken.test", 1);
    world.answer(Qtype::A, 0, &[]);
    world.sleep_on();
    // Only what is still open is asked of the next server.
    assert_eq!(world.sockets.values().map(|(_, messages)| messages.len()).sum::<usize>(), 1);
    world.answer(Qtype::Aaaa, 0, &[V6]);
    assert_eq!(world.result(), (1, ips(&[V6])));
    world.ask_pending("b.test", 1);
    assert_eq!(world.server_asked(Qtype::A).to_string(), "10.0.0.1");
    world.resolver.cancel(1);
    world.act();
    world.nothing_is_left();
}

#[test]
fn failing_family_does_not_hold_up_the_other() {
    let mut world = World::with(&["10.0.0.1", "10.0.0.2"]);
    world.ask_pending("a.test", 1);
    world.answer(Qtype::Aaaa, 2, &[]);
    world.answer(Qtype::A, 0, &[V4]);
    assert_eq!(world.result(), (1, ips(&[V4])));
    // Silence neither: the family that has answered is delivered, and the other is asked on.
    world.ask_pending("b.test", 1);
    world.sleep(20);
    world.answer(Qtype::A, 0, &[V4]);
    assert_eq!(world.part(), (1, addresses(&[V4]), false));
    assert_eq!(world.sleep_on(), 980);
    assert_eq!(world.server_asked(Qtype::Aaaa).to_string(), "10.0.0.2");
    world.answer(Qtype::Aaaa, 0, &[V6]);
    assert_eq!(world.part(), (1, addresses(&[V6]), true));
    world.nothing_is_left();
}

#[test]
fn servfail_and_refused_go_to_the_next_server() {
    let mut world = World::with(&["10.0.0.1", "10.0.0.2"]);
    world.ask_pending("a.test", 1);
    world.answer_both(2);
    assert_eq!(world.server_asked(Qtype::A).to_string(), "10.0.0.2");
    world.answer_both(5);
    world.answer_both(2);
    world.answer_both(2);
    assert_eq!(world.result(), (1, Err(ResolveError::Failed { rcode: 2 })));
    // What a server said tells more than the silence of another.
    world.ask_pending("b.test", 1);
    world.answer_both(2);
    for _ in 0..3 {
        world.sleep_on();
    }
    assert_eq!(world.result(), (1, Err(ResolveError::Failed { rcode: 2 })));
    world.nothing_is_left();
}

#[test]
fn refused_port_goes_to_the_next_server_at_once_and_pauses_between_rounds() {
    let mut world = World::with(&["10.0.0.1", "10.0.0.2"]);
    let refused = SocketFault::Server(ErrorKind::ConnectionRefused);
    world.ask_pending("a.test", 1);
    world.fail(Qtype::A, refused);
    assert_eq!(world.server_asked(Qtype::Aaaa).to_string(), "10.0.0.2");
    world.fail(Qtype::A, refused);
    assert!(world.sockets.is_empty());
    assert_eq!(world.sleep_on(), PAUSE_MS);
    world.fail(Qtype::A, refused);
    world.fail(Qtype::A, refused);
    assert_eq!(world.result(), (1, Err(ResolveError::Io(ErrorKind::ConnectionRefused))));
    // The one that works is preferred from now on.
    world.ask_pending("b.test", 1);
    world.fail(Qtype::A, refused);
    world.answer_both(3);
    let _ = world.result();
    world.ask_pending("c.test", 1);
    world.answer_both(3);
    assert_eq!(world.opened, 7);
    let _ = world.result();
    world.nothing_is_left();
}

#[test]
fn no_descriptor_is_waited_out() {
    let mut world = World::with(&["10.0.0.1"]);
    let full = SocketFault::Local(ErrorKind::OutOfMemory);
    world.ask_pending("a.test", 1);
    for _ in 0..6 {
        world.fail(Qtype::A, full);
        assert_eq!(world.sleep_on(), PAUSE_MS);
    }
    world.answer(Qtype::A, 0, &[V4]);
    world.answer(Qtype::Aaaa, 0, &[]);
    assert_eq!(world.result(), (1, ips(&[V4])));
    world.ask_pending("b.test", 1);
    let start = world.now;
    while world.resolver.next_deadline().is_some() {
        world.fail(Qtype::A, full);
        world.sleep_on();
    }
    assert_eq!(world.now.since(start), 5_000);
    assert_eq!(world.result(), (1, Err(ResolveError::NoSocket(ErrorKind::OutOfMemory))));
    world.nothing_is_left();
}

#[test]
fn old_server_is_asked_without_edns() {
    let mut world = World::with(&["10.0.0.1"]);
    world.ask_pending("a.test", 1);
    world.answer(Qtype::Aaaa, 1, &[]);
    world.answer(Qtype::A, 4, &[]);
    assert_eq!(world.opened, 1);
    assert!(!has_edns(&world.find(Qtype::A).1) && !has_edns(&world.find(Qtype::Aaaa).1));
    world.answer(Qtype::A, 0, &[V4]);
    world.answer(Qtype::Aaaa, 0, &[V6]);
    assert_eq!(world.result(), (1, ips(&[V4, V6])));
    // It is remembered; without EDNS the code is final for this try.
    world.ask_pending("b.test", 1);
    assert!(!has_edns(&world.find(Qtype::A).1));
    world.answer_both(1);
    world.answer_both(1);
    assert_eq!(world.result(), (1, Err(ResolveError::Failed { rcode: 1 })));
    world.nothing_is_left();
}

#[test]
fn truncated_answer_is_fetched_over_tcp() {
    let mut world = World::with(&["10.0.0.1"]);
    world.ask_pending("a.test", 1);
    let (udp, query) = world.find(Qtype::A);
    world.tell(udp, &truncated(reply(&query, 0, &[])));
    let (tcp, over_tcp) = world.find(Qtype::A);
    // The UDP socket stays for the other question alone.
    assert_ne!(tcp, udp);
    assert_ne!(query[..2], over_tcp[..2]);
    world.tell(udp, &reply(&query, 0, &[Rr::Address("a.test", "192.0.2.66")]));
    world.answer(Qtype::Aaaa, 0, &[V6]);
    assert_eq!(world.sockets.len(), 1);
    world.answer(Qtype::A, 0, &[V4]);
    assert_eq!(world.result(), (1, ips(&[V6, V4])));
    world.nothing_is_left();
}

#[test]
fn broken_tcp_goes_to_the_next_server() {
    let mut world = World::with(&["10.0.0.1", "10.0.0.2"]);
    world.ask_pending("a.test", 1);
    let faults: [fn(&mut World); 3] = [
        |world| world.fail(Qtype::A, SocketFault::Server(ErrorKind::UnexpectedEof)),
        |world| {
            let (tcp, query) = world.find(Qtype::A);
            world.tell(tcp, &truncated(reply(&query, 0, &[])));
        },
        |world| {
            let (tcp, _) = world.find(Qtype::A);
            world.tell(tcp, b"noise");
        },
    ];
    world.answer(Qtype::Aaaa, 0, &[]);
    for fault in faults {
        let (udp, query) = world.find(Qtype::A);
        world.tell(udp, &truncated(reply(&query, 0, &[])));
        fault(&mut world);
    }
    world.answer(Qtype::A, 0, &[V4]);
    assert_eq!(world.result(), (1, ips(&[V4])));
    world.nothing_is_left();
}

#[test]
fn silent_tcp_ends_at_the_ceiling() {
    let mut world = World::with(&["10.0.0.1"]);
    world.ask_pending("a.test", 1);
    while world.resolver.next_deadline().is_some() {
        let (exchange, query) = world.find(Qtype::A);
        world.tell(exchange, &truncated(reply(&query, 0, &[])));
        world.sleep_on();
    }
    assert!(world.now <= Tick(5_000));
    assert_eq!(world.result().0, 1);
    world.nothing_is_left();
}

#[test]
fn forged_answers_change_nothing() {
    let mut world = World::with(&["10.0.0.1"]);
    world.ask_pending("a.test", 1);
    let (exchange, query) = world.find(Qtype::A);
    let mut wrong_id = reply(&query, 0, &[Rr::Address("a.test", "192.0.2.66")]);
    wrong_id[0] ^= 1;
    let mut wrong_name = reply(&query, 3, &[]);
    wrong_name[13] = b'b';
    for forged in [&wrong_id[..], &wrong_name, &query, b"", b"x"] {
        world.tell(exchange, forged);
    }
    assert_eq!(world.resolver.next_deadline(), Some(Tick(1_000)));
    world.answer(Qtype::A, 0, &[V4]);
    world.answer(Qtype::Aaaa, 0, &[]);
    assert_eq!(world.result(), (1, ips(&[V4])));
    world.nothing_is_left();
}

#[test]
fn unreadable_answer_is_a_failure_of_that_server() {
    let mut world = World::with(&["10.0.0.1", "10.0.0.2"]);
    world.ask_pending("a.test", 1);
    world.answer(Qtype::Aaaa, 0, &[]);
    let (exchange, query) = world.find(Qtype::A);
    let whole = reply(&query, 0, &[Rr::Address("a.test", V4)]);
    world.tell(exchange, &whole[..whole.len() - 1]);
    assert_eq!(world.server_asked(Qtype::A).to_string(), "10.0.0.2");
    world.answer(Qtype::A, 0, &[V4]);
    assert_eq!(world.result(), (1, ips(&[V4])));
    world.nothing_is_left();
}

#[test]
fn search_list_is_for_names_without_a_dot() {
    let lists =
        [(1, vec!["host.lan", "host.corp.test", "host"]), (0, vec!["host", "host.lan", "host.corp.test"])];
    for (ndots, expected) in lists {
        let search = vec!["lan".to_string(), "corp.test".to_string()];
        let mut world = World::new(ResolverConfig { search, ndots, ..config(&["10.0.0.1"]) });
        world.ask_pending("host", 1);
        let mut asked = Vec::new();
        for _ in 0..3 {
            asked.push(question(&world.find(Qtype::A).1).0);
            world.answer_both(3);
        }
        assert_eq!(asked, expected);
        assert_eq!(world.result(), (1, Err(ResolveError::NotFound { rcode: 3 })));
        for absolute in ["host.sub", "host."] {
            world.ask_pending(absolute, 1);
            assert_eq!(question(&world.find(Qtype::A).1).0, absolute.trim_end_matches('.'));
            world.answer_both(3);
            assert_eq!(world.result(), (1, Err(ResolveError::NotFound { rcode: 3 })));
        }
        world.nothing_is_left();
    }
}

/// Nobody knows whether the names that nobody was asked about are there.
#[test]
fn search_list_without_time_for_the_rest_is_a_timeout() {
    let search = vec!["lan".to_string()];
    let mut world =
        World::new(ResolverConfig { search, attempts: 1, timeout_ms: 5_000, ..config(&["10.0.0.1"]) });
    world.ask_pending("host", 1);
    world.answer(Qtype::Aaaa, dns::RCODE_NXDOMAIN, &[]);
    world.sleep(5_000);
    assert_eq!(world.result(), (1, timeout(&["10.0.0.1"])));
    world.nothing_is_left();
}

#[test]
fn search_list_remembers_the_most_telling_error() {
    let search = vec!["lan".to_string()];
    let mut world = World::new(ResolverConfig { search, attempts: 1, ..config(&["10.0.0.1"]) });
    world.ask_pending("host", 1);
    world.answer_both(2);
    world.answer_both(3);
    assert_eq!(world.result(), (1, Err(ResolveError::Failed { rcode: 2 })));
    world.ask_pending("host", 1);
    world.answer_both(0);
    world.answer_both(3);
    assert_eq!(world.result(), (1, Err(ResolveError::NotFound { rcode: 0 })));
    world.ask_pending("host", 1);
    world.answer_both(2);
    world.answer(Qtype::A, 0, &[V4]);
    world.answer(Qtype::Aaaa, 0, &[]);
    assert_eq!(world.result(), (1, ips(&[V4])));
    world.nothing_is_left();
}

#[test]
fn rotate_starts_with_another_server_each_time() {
    let mut world = World::new(ResolverConfig { rotate: true, ..config(&["10.0.0.1", "10.0.0.2", "::1"]) });
    let mut asked = Vec::new();
    for _ in 0..4 {
        world.ask_pending("a.test", 1);
        asked.push(world.server_asked(Qtype::A).to_string());
        world.answer_both(3);
        let _ = world.result();
    }
    assert_eq!(asked, ["10.0.0.1", "10.0.0.2", "::1", "10.0.0.1"]);
    world.nothing_is_left();
}

#[test]
fn lookups_have_a_ceiling() {
    let mut world = World::with(&["10.0.0.1"]);
    for who in 0..MAX_LOOKUPS {
        let asked = world.resolver.ask(&format!("n{who}.test"), who, Tick(0), &mut || 7);
        assert_eq!(asked, Asked::Pending);
    }
    world.act();
    assert!(world.sockets.keys().all(|exchange| exchange.index() < Exchange::COUNT));
    assert_eq!(world.ask("more.test", 5_000), Asked::Known(Err(ResolveError::Busy)));
    world.ask_pending("n5.test", 5_001);
    assert_eq!(world.ask("nas", 5_002), Asked::Known(ips(&["10.0.0.9", "fd00::9"])));
    world.sleep(1_000);
    world.sleep(1_000);
    for _ in 0..=MAX_LOOKUPS {
        assert_eq!(world.result().1, timeout(&["10.0.0.1"]));
    }
    world.nothing_is_left();
}

/// Random events in random order: whatever happens, every asker that stays gets one answer, in time.
#[test]
fn any_order_of_events_ends() {
    for seed in 1..400_u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut random = move |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        let search = vec!["lan".to_string()];
        let mut world = World::new(ResolverConfig { search, ..config(&["10.0.0.1", "10.0.0.2"]) });
        let mut waiting = HashMap::new();
        for _ in 0..80 {
            let who = random(6) as usize;
            match random(9) {
                0 | 1 => {
                    let name = ["one", "two.test", "three.test", "Four.test"][random(4) as usize];
                    match world.ask(name, who) {
                        Asked::Pending => waiting.insert(who, 0),
                        Asked::Known(_) => waiting.remove(&who),
                    };
                }
                2 => {
                    world.resolver.cancel(who);
                    world.act();
                    waiting.remove(&who);
                }
                3 => world.sleep(random(1_500)),
                4 => match random(4) {
                    0 => world.resolver.flush(),
                    1 => {
                        let servers =
                            [["10.0.0.1", "10.0.0.2"], ["10.0.0.3", "10.0.0.1"]][random(2) as usize];
                        world.resolver.reconfigure(config(&servers));
                        world.check();
                    }
                    _ => world.sleep(random(301_000)),
                },
                _ => random_event(&mut world, &mut random),
            }
            hear(&mut world, &mut waiting, seed);
        }
        world.sleep(5_000);
        hear(&mut world, &mut waiting, seed);
        assert!(waiting.is_empty(), "seed {seed}: lost {waiting:?}");
        world.nothing_is_left();
    }
}

/// Takes the answers: each to somebody who waits, and nothing after the last part.
fn hear(world: &mut World, waiting: &mut HashMap<usize, usize>, seed: u64) {
    while let Some((who, answer)) = world.resolver.pop_answer() {
        let Some(parts) = waiting.get_mut(&who) else { panic!("seed {seed}: {who} does not wait") };
        *parts += 1;
        let last = match answer {
            Ok(part) => {
                assert!(*parts <= 2 && (part.last || *parts == 1), "seed {seed}");
                assert!(*parts == 2 || !part.addresses.is_empty(), "seed {seed}: nothing is an error");
                part.last
            }
            Err(_) => {
                assert_eq!(*parts, 1, "seed {seed}: an error after addresses");
                true
            }
        };
        if last {
            waiting.remove(&who);
        }
    }
}

/// Some open socket gets some answer, or fails.
fn random_event(world: &mut World, random: &mut dyn FnMut(u64) -> u64) {
    let mut open: Vec<Exchange> = world.sockets.keys().copied().collect();
    open.sort_by_key(|exchange| exchange.index());
    if open.is_empty() {
        return;
    }
    let exchange = open[random(open.len() as u64) as usize];
    let messages = &world.sockets[&exchange].1;
    let query = messages[random(messages.len() as u64) as usize].clone();
    let (name, qtype) = question(&query);
    let address = if qtype == Qtype::A { V4 } else { V6 };
    let message = match random(8) {
        0 => reply(&query, 0, &[Rr::Address(&name, address)]),
        1 => truncated(reply(&query, 0, &[])),
        2 => b"noise".to_vec(),
        code @ (3 | 4) => {
            let kind = ErrorKind::ConnectionRefused;
            let fault = if code == 3 { SocketFault::Server(kind) } else { SocketFault::Local(kind) };
            world.call(|resolver, now, ids| resolver.on_failure(exchange, fault, now, ids));
            return;
        }
        _ => reply(&query, random(6) as u8, &[]),
    };
    world.tell(exchange, &message);
}
