//! Scripts with a virtual clock: what a resolver remembers of names, families, servers and settings.
#![allow(clippy::unwrap_used, clippy::panic)]
use std::io::ErrorKind;

use super::tests::{V4, V6, World, addresses, config, ips, timeout};
use super::*;
use crate::proto::cache::{FAILED_TTL_S, NEGATIVE_TTL_MAX_S, TTL_MAX_S};
use crate::proto::dns::Qtype;
use crate::proto::dns::script::{Rr, question, question_end, reply};
use crate::proto::servers::AVOID_MS;

impl World {
    /// The usual answer, with a time to live.
    fn answer_for(&mut self, qtype: Qtype, address: &str, ttl_s: u32) {
        let (exchange, query) = self.find(qtype);
        let mut message = reply(&query, 0, &[Rr::Address(&question(&query).0, address)]);
        let ttl_at = question_end(&query) + 6;
        message[ttl_at..ttl_at + 4].copy_from_slice(&ttl_s.to_be_bytes());
        self.tell(exchange, &message);
    }

    /// No addresses, with an SOA.
    fn deny_for(&mut self, qtype: Qtype, rcode: u8, ttl_s: u32) {
        let (exchange, query) = self.find(qtype);
        let name = question(&query).0;
        self.tell(exchange, &reply(&query, rcode, &[Rr::Soa(&name, 86_400, ttl_s)]));
    }

    fn questions(&self) -> usize {
        self.sockets.values().map(|(_, messages)| messages.len()).sum()
    }
}

// Parts.

#[test]
fn second_family_comes_with_the_last_part() {
    for (first, second) in [(Qtype::A, Qtype::Aaaa), (Qtype::Aaaa, Qtype::A)] {
        let address = |qtype| if qtype == Qtype::A { V4 } else { V6 };
        // Addresses, none, no such name, a failure: in every case something ends it.
        for end in 0..4 {
            let mut world = World::with(&["10.0.0.1"]);
            world.ask_pending("a.test", 1);
            world.answer(first, 0, &[address(first)]);
            assert_eq!(world.part(), (1, addresses(&[address(first)]), false));
            let expected = match end {
                0 => {
                    world.answer(second, 0, &[address(second)]);
                    addresses(&[address(second)])
                }
                1..=3 => {
                    world.answer(second, [0, 0, 3, 2][end], &[]);
                    Vec::new()
                }
                _ => unreachable!(),
            };
            assert_eq!(world.part(), (1, expected, true));
            world.nothing_is_left();
        }
    }
}

#[test]
fn late_joiner_gets_what_is_there_already() {
    let mut world = World::with(&["10.0.0.1"]);
    world.ask_pending("a.test", 1);
    world.answer_for(Qtype::A, V4, 0);
    world.ask_pending("A.test", 2);
    assert_eq!(world.opened, 1);
    assert_eq!(world.part(), (1, addresses(&[V4]), false));
    assert_eq!(world.part(), (2, addresses(&[V4]), false));
    world.answer(Qtype::Aaaa, 0, &[V6]);
    let mut rest = vec![world.part(), world.part()];
    rest.sort();
    assert_eq!(rest, [(1, addresses(&[V6]), true), (2, addresses(&[V6]), true)]);
    world.nothing_is_left();
}

#[test]
fn empty_first_family_is_not_told() {
    let mut world = World::with(&["10.0.0.1"]);
    world.ask_pending("a.test", 1);
    world.answer(Qtype::Aaaa, 0, &[]);
    assert_eq!(world.resolver.pop_answer(), None);
    world.answer(Qtype::A, 0, &[V4]);
    assert_eq!(world.part(), (1, addresses(&[V4]), true));
    world.nothing_is_left();
}

#[test]
fn silent_family_ends_with_the_lookup() {
    let mut world = World::with(&["10.0.0.1", "10.0.0.2"]);
    world.ask_pending("a.test", 1);
    world.answer(Qtype::A, 0, &[V4]);
    assert_eq!(world.part(), (1, addresses(&[V4]), false));
    for questions in [2, 1, 1, 1] {
        assert_eq!(world.questions(), questions);
        assert_eq!(world.sleep_on(), 1_000);
    }
    assert_eq!(world.part(), (1, Vec::new(), true));
    // No server is to blame: what one has answered in part, the others may not know either.
    world.ask_pending("b.test", 1);
    assert_eq!(world.server_asked(Qtype::A).to_string(), "10.0.0.1");
    world.answer_both(3);
    let _ = world.result();
    world.nothing_is_left();
}

#[test]
fn cancel_takes_back_a_part_that_was_not_fetched() {
    let mut world = World::with(&["10.0.0.1"]);
    world.ask_pending("a.test", 1);
    world.ask_pending("a.test", 2);
    world.answer(Qtype::A, 0, &[V4]);
    world.resolver.cancel(1);
    assert_eq!(world.part(), (2, addresses(&[V4]), false));
    world.answer(Qtype::Aaaa, 0, &[]);
    assert_eq!(world.part(), (2, Vec::new(), true));
    world.nothing_is_left();
}

#[test]
fn asker_that_has_enough_leaves_the_rest_to_the_cache() {
    let mut world = World::with(&["10.0.0.1"]);
    world.ask_pending("a.test", 1);
    world.answer(Qtype::A, 0, &[V4]);
    assert_eq!(world.part(), (1, addresses(&[V4]), false));
    world.resolver.cancel(1);
    world.act();
    assert_eq!(world.sockets.len(), 1);
    world.answer(Qtype::Aaaa, 0, &[V6]);
    assert!(world.sockets.is_empty());
    assert_eq!(world.ask("a.test", 2), Asked::Known(ips(&[V6, V4])));
    world.nothing_is_left();
}

#[test]
fn nobody_waits_longer_than_the_running_try() {
    let mut world = World::with(&["10.0.0.1", "10.0.0.2"]);
    world.ask_pending("a.test", 1);
    world.answer(Qtype::A, 0, &[V4]);
    world.resolver.cancel(1);
    world.act();
    assert_eq!(world.sleep_on(), 1_000);
    assert_eq!((world.opened, world.sockets.len()), (1, 0));
    world.nothing_is_left();
    // Without addresses there is nothing to finish, and after a flush nothing to keep.
    for flushed in [false, true] {
        let mut world = World::with(&["10.0.0.1"]);
        world.ask_pending("a.test", 1);
        world.answer(Qtype::A, 0, if flushed { &[V4] } else { &[] });
        if flushed {
            world.resolver.flush();
        }
        world.resolver.cancel(1);
        world.act();
        world.nothing_is_left();
    }
}

#[test]
fn lookups_without_askers_give_way() {
    let mut world = World::with(&["10.0.0.1"]);
    for who in 0..MAX_LOOKUPS {
        let _ = world.resolver.ask(&format!("n{who}.test"), who, Tick(0), &mut || 7);
    }
    world.act();
    assert_eq!(world.ask("more.test", 5_000), Asked::Known(Err(ResolveError::Busy)));
    let (exchange, query) = world.find(Qtype::A);
    let left: usize = question(&query).0.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap();
    world.tell(exchange, &reply(&query, 0, &[Rr::Address(&question(&query).0, V4)]));
    world.resolver.cancel(left);
    world.act();
    world.ask_pending("more.test", 5_000);
    for who in (0..MAX_LOOKUPS).chain([5_000]) {
        world.resolver.cancel(who);
    }
    world.act();
    world.nothing_is_left();
}

// Families.

#[test]
fn only_the_wanted_family_is_asked() {
    for (families, qtype, address) in [(Families::Only4, Qtype::A, V4), (Families::Only6, Qtype::Aaaa, V6)] {
        let mut world = World::new(ResolverConfig { families, ..config(&["10.0.0.1"]) });
        world.ask_pending("a.test", 1);
        assert_eq!(world.questions(), 1);
        world.answer(qtype, 0, &[address]);
        assert_eq!(world.part(), (1, addresses(&[address]), true));
        assert_eq!(world.ask("a.test", 1), Asked::Known(ips(&[address])));
        world.ask_pending("b.test", 1);
        world.deny_for(qtype, 0, 60);
        assert_eq!(world.result(), (1, Err(ResolveError::NotFound { rcode: 0 })));
        world.ask_pending("c.test", 1);
        world.deny_for(qtype, 3, 60);
        assert_eq!(world.result(), (1, Err(ResolveError::NotFound { rcode: 3 })));
        for (name, rcode) in [("b.test", 0), ("c.test", 3)] {
            assert_eq!(world.ask(name, 1), Asked::Known(Err(ResolveError::NotFound { rcode })));
        }
        world.nothing_is_left();
    }
}

#[test]
fn static_names_have_the_wanted_family_alone() {
    let not_found = Asked::Known(Err(ResolveError::NotFound { rcode: 0 }));
    for (families, nas, lan, localhost) in [
        (Families::Only4, ips(&["10.0.0.9"]), Asked::Known(ips(&["10.0.0.9"])), ips(&["127.0.0.1"])),
        (Families::Only6, ips(&["fd00::9"]), not_found, ips(&["::1"])),
    ] {
        let mut world = World::new(ResolverConfig { families, ..config(&["10.0.0.1"]) });
        assert_eq!(world.ask("nas", 1), Asked::Known(nas));
        // It stands in the hosts file, so no server is asked for the family that does not.
        assert_eq!(world.ask("nas.lan", 1), lan);
        assert_eq!(world.ask("a.localhost", 1), Asked::Known(localhost));
        world.nothing_is_left();
    }
}

// The cache.

#[test]
fn time_to_live_is_counted_down_for_each_family() {
    let mut world = World::with(&["10.0.0.1"]);
    world.ask_pending("a.test", 1);
    world.answer_for(Qtype::A, V4, 60);
    world.answer_for(Qtype::Aaaa, V6, 20);
    let _ = world.result();
    world.sleep(19_999);
    assert_eq!(world.ask("a.test", 1), Asked::Known(ips(&[V6, V4])));
    world.sleep(1);
    // The family that is known comes at once, the other is asked.
    world.ask_pending("a.test", 1);
    assert_eq!(world.part(), (1, addresses(&[V4]), false));
    assert_eq!(world.questions(), 1);
    world.answer_for(Qtype::Aaaa, "2001:db8::2", 60);
    assert_eq!(world.part(), (1, addresses(&["2001:db8::2"]), true));
    world.sleep(39_999);
    assert_eq!(world.ask("A.TEST.", 1), Asked::Known(ips(&["2001:db8::2", V4])));
    world.sleep(1);
    world.ask_pending("a.test", 1);
    assert_eq!(question(&world.find(Qtype::A).1).1, Qtype::A);
    world.answer_for(Qtype::A, V4, 60);
    let _ = world.result();
    assert_eq!(world.opened, 3);
    world.nothing_is_left();
}

#[test]
fn nothing_is_kept_longer_than_the_ceilings() {
    let mut world = World::with(&["10.0.0.1"]);
    world.ask_pending("a.test", 1);
    world.answer_for(Qtype::A, V4, 86_400);
    world.deny_for(Qtype::Aaaa, 0, 86_400);
    let _ = world.result();
    world.sleep(u64::from(NEGATIVE_TTL_MAX_S) * 1_000 - 1);
    assert_eq!(world.ask("a.test", 1), Asked::Known(ips(&[V4])));
    world.sleep(1);
    world.ask_pending("a.test", 1);
    assert_eq!(world.questions(), 1);
    world.answer_for(Qtype::Aaaa, V6, 86_400);
    let _ = world.result();
    world.sleep(u64::from(TTL_MAX_S - NEGATIVE_TTL_MAX_S) * 1_000);
    world.ask_pending("a.test", 1);
    assert_eq!(world.part(), (1, addresses(&[V6]), false));
    assert_eq!(question(&world.find(Qtype::A).1).1, Qtype::A);
    world.answer(Qtype::A, 0, &[]);
    assert_eq!(world.part(), (1, Vec::new(), true));
    world.nothing_is_left();
}

#[test]
fn time_to_live_of_zero_serves_only_those_who_wait() {
    let mut world = World::with(&["10.0.0.1"]);
    world.ask_pending("a.test", 1);
    world.ask_pending("a.test", 2);
    world.answer_for(Qtype::A, V4, 0);
    world.answer_for(Qtype::Aaaa, V6, 0);
    assert_eq!(world.result(), (1, ips(&[V4, V6])));
    assert_eq!(world.result(), (2, ips(&[V4, V6])));
    world.ask_pending("a.test", 1);
    assert_eq!((world.opened, world.questions()), (2, 2));
    world.answer_both(3);
    let _ = world.result();
    world.nothing_is_left();
}

#[test]
fn negative_answers_are_kept_as_the_soa_says() {
    let mut world = World::with(&["10.0.0.1"]);
    for rcode in [0, 3] {
        let name = format!("n{rcode}.test");
        world.ask_pending(&name, 1);
        world.deny_for(Qtype::A, rcode, 30);
        world.deny_for(Qtype::Aaaa, rcode, 30);
        let not_found = Err(ResolveError::NotFound { rcode });
        assert_eq!(world.result(), (1, not_found.clone()));
        world.sleep(29_999);
        assert_eq!(world.ask(&name, 1), Asked::Known(not_found.clone()));
        world.sleep(1);
        // Without an SOA nothing is kept.
        for _ in 0..2 {
            world.ask_pending(&name, 1);
            world.answer_both(rcode);
            assert_eq!(world.result(), (1, not_found.clone()));
        }
    }
    world.nothing_is_left();
}

#[test]
fn failures_are_not_kept() {
    let mut world = World::with(&["10.0.0.1"]);
    world.ask_pending("a.test", 1);
    world.answer_both(2);
    world.answer_both(2);
    assert_eq!(world.result(), (1, Err(ResolveError::Failed { rcode: 2 })));
    world.ask_pending("a.test", 1);
    world.sleep_on();
    world.sleep_on();
    assert_eq!(world.result(), (1, timeout(&["10.0.0.1"])));
    world.ask_pending("a.test", 1);
    world.answer_both(3);
    let _ = world.result();
    world.nothing_is_left();
}

#[test]
fn failing_family_is_left_alone_while_the_other_serves() {
    let mut world = World::with(&["10.0.0.1"]);
    world.ask_pending("a.test", 1);
    world.answer_for(Qtype::A, V4, 11);
    world.answer(Qtype::Aaaa, 2, &[]);
    let _ = world.result();
    assert_eq!(world.ask("a.test", 1), Asked::Known(ips(&[V4])));
    world.sleep(u64::from(FAILED_TTL_S) * 1_000);
    world.ask_pending("a.test", 1);
    assert_eq!(world.part(), (1, addresses(&[V4]), false));
    world.answer(Qtype::Aaaa, 2, &[]);
    assert_eq!(world.part(), (1, Vec::new(), true));
    world.sleep(1_000);
    // The other has run out: the one that failed is asked again with it.
    world.ask_pending("a.test", 1);
    assert_eq!(world.questions(), 2);
    world.answer_both(3);
    let _ = world.result();
    world.nothing_is_left();
}

#[test]
fn family_without_addresses_and_without_soa_is_left_alone_while_the_other_serves() {
    for rcode in [0, 3] {
        let mut world = World::with(&["10.0.0.1"]);
        world.ask_pending("a.test", 1);
        world.answer(Qtype::Aaaa, rcode, &[]);
        world.answer_for(Qtype::A, V4, 60);
        let _ = world.result();
        assert_eq!(world.ask("a.test", 1), Asked::Known(ips(&[V4])));
        world.sleep(u64::from(FAILED_TTL_S) * 1_000);
        world.ask_pending("a.test", 1);
        assert_eq!(question(&world.find(Qtype::Aaaa).1).1, Qtype::Aaaa);
        world.answer(Qtype::Aaaa, 0, &[V6]);
        assert_eq!(world.result(), (1, ips(&[V4, V6])));
        world.nothing_is_left();
    }
}

#[test]
fn family_that_is_denied_does_not_speak_for_the_other() {
    let mut world = World::with(&["10.0.0.1"]);
    world.ask_pending("a.test", 1);
    world.deny_for(Qtype::Aaaa, 3, 60);
    world.answer_for(Qtype::A, V4, 10);
    assert_eq!(world.result(), (1, ips(&[V4])));
    world.sleep(10_000);
    world.ask_pending("a.test", 1);
    assert_eq!(world.questions(), 1);
    world.answer_for(Qtype::A, V4, 10);
    assert_eq!(world.part(), (1, addresses(&[V4]), true));
    world.nothing_is_left();
}

#[test]
fn search_list_goes_through_the_cache() {
    let search = vec!["lan".to_string(), "corp.test".to_string()];
    let mut world = World::new(ResolverConfig { search, ..config(&["10.0.0.1"]) });
    world.ask_pending("host", 1);
    world.deny_for(Qtype::A, 3, 60);
    world.deny_for(Qtype::Aaaa, 3, 30);
    world.answer_for(Qtype::A, V4, 50);
    world.answer_for(Qtype::Aaaa, V6, 50);
    assert_eq!(world.result(), (1, ips(&[V4, V6])));
    // Known, but it is to be told under which name.
    world.ask_pending("host", 1);
    let part = world.resolver.pop_answer();
    let found_as = Some("host.corp.test".into());
    let all = Part { addresses: ips(&[V6, V4]).unwrap(), last: true, found_as };
    assert_eq!(part, Some((1, Ok(all))));
    assert_eq!(world.ask("host.corp.test", 1), Asked::Known(ips(&[V6, V4])));
    assert_eq!(world.ask("host.lan", 1), Asked::Known(Err(ResolveError::NotFound { rcode: 3 })));
    assert_eq!(world.opened, 2);
    // One family of the first name has run out: it is asked for that alone.
    world.sleep(30_000);
    world.ask_pending("host", 1);
    assert_eq!(question(&world.find(Qtype::Aaaa).1).0, "host.lan");
    assert_eq!(world.questions(), 1);
    world.deny_for(Qtype::Aaaa, 3, 60);
    assert_eq!(world.part(), (1, addresses(&[V6, V4]), true));
    assert_eq!(world.opened, 3);
    world.nothing_is_left();
}

#[test]
fn cache_can_be_off() {
    let mut world = World::new(ResolverConfig { cache_bytes: 0, ..config(&["10.0.0.1"]) });
    for opened in 1..3 {
        world.ask_pending("a.test", 1);
        world.answer(Qtype::A, 0, &[V4]);
        world.answer(Qtype::Aaaa, 0, &[]);
        assert_eq!((world.result(), world.opened), ((1, ips(&[V4])), opened));
    }
    assert_eq!(world.resolver.cache_bytes(), 0);
    world.nothing_is_left();
}

#[test]
fn flush_forgets_and_nothing_older_is_learned() {
    let mut world = World::with(&["10.0.0.1"]);
    world.ask_pending("a.test", 1);
    world.answer(Qtype::A, 0, &[V4]);
    world.resolver.flush();
    assert_eq!(world.resolver.cache_bytes(), 0);
    // Who asks now does not join the lookup that began before.
    world.ask_pending("a.test", 2);
    assert_eq!((world.opened, world.questions()), (2, 4));
    let (old, query) = {
        let first = world.sockets.keys().min_by_key(|exchange| exchange.index()).copied().unwrap();
        let messages = &world.sockets[&first].1;
        (first, messages.iter().find(|message| question(message).1 == Qtype::Aaaa).unwrap().clone())
    };
    world.tell(old, &reply(&query, 0, &[Rr::Address("a.test", V6)]));
    assert_eq!(world.result(), (1, ips(&[V4, V6])));
    assert_eq!(world.resolver.cache_bytes(), 0);
    world.answer(Qtype::A, 0, &["192.0.2.2"]);
    world.answer(Qtype::Aaaa, 0, &[]);
    assert_eq!(world.result(), (2, ips(&["192.0.2.2"])));
    world.nothing_is_left();
}

// Settings.

#[test]
fn running_lookups_finish_with_the_old_servers() {
    let mut world = World::with(&["10.0.0.1", "10.0.0.2"]);
    world.ask_pending("a.test", 1);
    world.resolver.reconfigure(config(&["10.0.0.2", "10.0.0.3"]));
    world.ask_pending("b.test", 2);
    assert_eq!(world.server_asked(Qtype::A).to_string(), "10.0.0.2");
    world.answer_both(3);
    let _ = world.result();
    let mut asked = Vec::new();
    for _ in 0..4 {
        asked.push(world.server_asked(Qtype::A).to_string());
        world.sleep_on();
    }
    assert_eq!(asked, ["10.0.0.1", "10.0.0.2", "10.0.0.1", "10.0.0.2"]);
    assert_eq!(world.result(), (1, timeout(&["10.0.0.1", "10.0.0.2"])));
    // What is known of a server that stays is kept: this one was silent.
    world.ask_pending("c.test", 1);
    assert_eq!(world.server_asked(Qtype::A).to_string(), "10.0.0.3");
    world.answer_both(3);
    let _ = world.result();
    world.nothing_is_left();
}

#[test]
fn settings_that_lead_elsewhere_empty_the_cache() {
    let hosts = Arc::new(Hosts::parse(b"10.0.0.8 nas").0);
    let old = config(&["10.0.0.1"]);
    let changes = [
        (false, old.clone()),
        (
            false,
            ResolverConfig {
                timeout_ms: 500,
                attempts: 1,
                rotate: true,
                resolve_timeout_ms: 9_000,
                ..old.clone()
            },
        ),
        (true, config(&["10.0.0.2"])),
        (true, config(&["10.0.0.1", "10.0.0.2"])),
        (true, ResolverConfig { search: vec!["lan".to_string()], ..old.clone() }),
        (true, ResolverConfig { hosts, ..old.clone() }),
        (true, ResolverConfig { families: Families::Only4, ..old.clone() }),
        (true, ResolverConfig { cache_bytes: 32 * 1024, ..old.clone() }),
    ];
    for (emptied, new) in changes {
        let mut world = World::new(old.clone());
        world.ask_pending("a.test", 1);
        world.answer(Qtype::A, 0, &[V4]);
        world.answer(Qtype::Aaaa, 0, &[]);
        let _ = world.result();
        world.resolver.reconfigure(new.clone());
        assert_eq!(world.resolver.cache_bytes() == 0, emptied, "{new:?}");
        world.nothing_is_left();
    }
}

#[test]
fn servers_come_and_go() {
    let mut world = World::with(&[]);
    assert_eq!(world.ask("a.test", 1), Asked::Known(Err(ResolveError::NoServers)));
    for round in 0..100 {
        let server = format!("10.0.1.{round}");
        world.resolver.reconfigure(config(&[&server]));
        world.ask_pending("a.test", 1);
        assert_eq!(world.server_asked(Qtype::A).to_string(), server);
        world.resolver.cancel(1);
        world.act();
    }
    assert!(world.resolver.servers.count() <= 2);
    world.ask_pending("a.test", 1);
    world.resolver.reconfigure(config(&[]));
    assert_eq!(world.ask("b.test", 2), Asked::Known(Err(ResolveError::NoServers)));
    world.answer_both(3);
    assert_eq!(world.result(), (1, Err(ResolveError::NotFound { rcode: 3 })));
    world.nothing_is_left();
}

// Which server is preferred.

#[test]
fn dead_first_server_costs_one_wait() {
    let mut world = World::with(&["10.0.0.1", "10.0.0.2"]);
    world.sleep(10_000);
    let mut waited = Vec::new();
    for round in 0..20 {
        world.ask_pending(&format!("n{round}.test"), 1);
        let start = world.now;
        while world.server_asked(Qtype::A).to_string() == "10.0.0.1" {
            world.sleep_on();
        }
        waited.push(world.now.since(start));
        world.answer_both(3);
        let _ = world.result();
        world.sleep(1_000);
    }
    assert_eq!(waited[0], 1_000);
    assert!(waited[1..].iter().all(|&ms| ms == 0), "{waited:?}");
    world.nothing_is_left();
}

#[test]
fn one_lookup_finds_out_whether_a_server_is_back() {
    let mut world = World::with(&["10.0.0.1", "10.0.0.2"]);
    world.sleep(10_000);
    world.ask_pending("a.test", 1);
    world.sleep_on();
    world.answer_both(3);
    let _ = world.result();
    world.sleep(AVOID_MS);
    world.ask_pending("b.test", 1);
    assert_eq!(world.server_asked(Qtype::A).to_string(), "10.0.0.1");
    world.ask_pending("c.test", 2);
    assert_eq!(world.questions(), 4);
    let at_second =
        world.sockets.values().filter(|(server, _)| server.ip().to_string() == "10.0.0.2").count();
    assert_eq!(at_second, 1, "the others do not wait for that");
    world.resolver.cancel(2);
    world.act();
    // It waits no longer than it must.
    assert_eq!(world.sleep_on(), MIN_TRY_MS);
    assert_eq!(world.server_asked(Qtype::A).to_string(), "10.0.0.2");
    world.answer_both(3);
    let _ = world.result();
    world.sleep(AVOID_MS);
    world.ask_pending("d.test", 1);
    assert_eq!(world.server_asked(Qtype::A).to_string(), "10.0.0.1");
    world.answer_both(3);
    let _ = world.result();
    // It is back: everybody goes there, and it has its full time again.
    world.ask_pending("e.test", 1);
    assert_eq!(world.server_asked(Qtype::A).to_string(), "10.0.0.1");
    assert_eq!(world.sleep_on(), 1_000);
    world.resolver.cancel(1);
    world.act();
    world.nothing_is_left();
}

#[test]
fn servers_that_all_failed_have_their_full_time() {
    let mut world = World::with(&["10.0.0.1", "10.0.0.2"]);
    world.sleep(10_000);
    world.ask_pending("a.test", 1);
    for _ in 0..4 {
        world.sleep_on();
    }
    assert_eq!(world.result(), (1, timeout(&["10.0.0.1", "10.0.0.2"])));
    for wait in [0, AVOID_MS] {
        world.sleep(wait);
        world.ask_pending("b.test", 1);
        assert_eq!(world.sleep_on(), 1_000);
        world.resolver.cancel(1);
        world.act();
    }
    world.nothing_is_left();
}

#[test]
fn no_way_to_ask_does_not_spoil_the_family_that_is_known() {
    let mut world = World::with(&["10.0.0.1"]);
    world.ask_pending("a.test", 1);
    world.answer_for(Qtype::A, V4, 60);
    world.answer_for(Qtype::Aaaa, V6, 1);
    let _ = world.result();
    world.sleep(1_000);
    world.ask_pending("a.test", 1);
    world.fail(Qtype::Aaaa, SocketFault::Server(ErrorKind::ConnectionRefused));
    assert_eq!(world.part(), (1, addresses(&[V4]), false));
    assert_eq!(world.sleep_on(), PAUSE_MS);
    world.fail(Qtype::Aaaa, SocketFault::Server(ErrorKind::ConnectionRefused));
    assert_eq!(world.part(), (1, Vec::new(), true));
    world.nothing_is_left();
}
