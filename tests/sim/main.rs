//! Whole sessions over simulated sockets, seeded: short reads and writes, would-blocks, FIN with and after data, resets,
//! refused and silent destinations, deadlines, missing storage and drains at any moment.
//!
//! The sockets know the truth and announce it as Linux's edge-triggered epoll does: a change puts a socket on the ready
//! list once, and what is then reported is the state at the moment of fetching. What the simulation proves is that no
//! wake-up is lost: once nothing moves in the world any more and all edges are delivered, a session that still has
//! something to do has lost one: in a peaceful world by itself, and elsewhere a rumour then moves something. Spurious wake-ups would hide that, so at least half of the seeds go without.
//!
//! There are five worlds: [`tunnel`] for CONNECT, [`http`] for plain HTTP (twice: with clients of any kind, and with those
//! that end in the middle of their request and of the answer to it), [`resolver`] for names, [`crowd`] for a whole loop: its
//! limits, its queues and new settings at any moment, and [`held`] for several loops and those who are beyond the limit.
//!
//! `ADIT_SIM_SEEDS` sets the number of seeds, `ADIT_SIM_SEED` traces a single one (name a world, too: `every_exchange`), and
//! with `ADIT_SIM_ALL` a seed that fails does not end the run. `scripts/planted-bugs.py` plants bugs in the code and checks
//! that this file finds them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod crowd;
mod held;
mod http;
mod nameservers;
mod resolver;
mod sessions;
mod socket;
mod tunnel;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use adit::config::{self, Command};
use adit::proto::lookup::Families;
use adit::proto::session::{Forwarded, Policy, Timeouts};
use adit::proto::users::Users;

/// How many each world has by itself: the time of a test run is shared by all of them.
const SEEDS: u64 = 8_000;
const HASTY_SEEDS: u64 = 1_500;
const NAME_SEEDS: u64 = 2_500;
const CROWD_SEEDS: u64 = 600;
const HELD_SEEDS: u64 = 4_000;

/// How often interesting things have happened.
type Seen = BTreeMap<&'static str, u32>;

#[test]
fn every_tunnel_ends_as_it_must() {
    let seen = run_seeds(tunnel::run, SEEDS);
    demand(&seen, tunnel::MUST_BE_SEEN);
}

#[test]
fn every_exchange_ends_as_it_must() {
    let seen = run_seeds(http::run, SEEDS);
    demand(&seen, http::MUST_BE_SEEN);
}

#[test]
fn every_end_in_the_middle_ends_as_it_must() {
    let seen = run_seeds(http::run_hasty, HASTY_SEEDS);
    demand(&seen, &["early answer"]);
}

#[test]
fn every_name_is_answered_as_it_must() {
    let seen = run_seeds(resolver::run, NAME_SEEDS);
    demand(&seen, resolver::MUST_BE_SEEN);
}

#[test]
fn every_crowd_is_served_as_it_must() {
    let seen = run_seeds(crowd::run, CROWD_SEEDS);
    demand(&seen, crowd::MUST_BE_SEEN);
}

#[test]
fn everybody_beyond_the_limit_is_answered_as_it_must() {
    let seen = run_seeds(held::run, HELD_SEEDS);
    demand(&seen, held::MUST_BE_SEEN);
}

#[test]
fn the_same_seed_makes_the_same_trace() {
    for seed in 0..30 {
        assert_eq!(tunnel::run(seed, false), tunnel::run(seed, false), "seed {seed}");
        assert_eq!(http::run(seed, false), http::run(seed, false), "seed {seed}");
        assert_eq!(resolver::digest(seed), resolver::digest(seed), "seed {seed}");
        assert_eq!(crowd::digest(seed), crowd::digest(seed), "seed {seed}");
        assert_eq!(held::digest(seed), held::digest(seed), "seed {seed}");
    }
}

fn run_seeds(run: fn(u64, bool) -> Seen, seeds: u64) -> Option<Seen> {
    if let Ok(seed) = std::env::var("ADIT_SIM_SEED") {
        println!("{:?}", run(seed.parse().unwrap(), true));
        return None;
    }
    let seeds = std::env::var("ADIT_SIM_SEEDS").map_or(seeds, |seeds| seeds.parse().unwrap());
    let mut all = Seen::new();
    for seed in 0..seeds {
        match std::panic::catch_unwind(|| run(seed, false)) {
            Ok(seen) => {
                for (what, count) in seen {
                    *all.entry(what).or_default() += count;
                }
            }
            Err(_) if std::env::var("ADIT_SIM_ALL").is_ok() => eprintln!("failed seed {seed}"),
            Err(_) => panic!("seed {seed} failed: run with ADIT_SIM_SEED={seed}"),
        }
    }
    Some(all)
}

/// The simulation is worth little if something never happens in it.
fn demand(seen: &Option<Seen>, wanted: &[&str]) {
    let Some(seen) = seen else { return };
    println!("{seen:?}");
    for what in wanted {
        assert!(seen.contains_key(what), "never seen: {what}");
    }
}

fn policy(args: &[&str]) -> Policy {
    let own: [SocketAddr; 0] = [];
    let args = [&["--client", "0.0.0.0/0", "--client", "::/0"], args].concat();
    let rules = match config::from_args(args.iter().map(Into::into), &|_| unreachable!()).unwrap() {
        Command::Run(config) => config.rules(&own),
        Command::Check(..) | Command::CheckConfig(_) | Command::Print(_) => panic!("not a run"),
    };
    let timeouts = Timeouts {
        head_ms: 10_000,
        resolve_ms: 5_000,
        dial_ms: 10_000,
        response_ms: 60_000,
        keepalive_ms: 60_000,
        idle_ms: 900_000,
        // Unlike all others: what passed is known by its length.
        half_open_ms: 45_000,
        grace_ms: 60_000,
    };
    Policy {
        rules,
        timeouts,
        families: Families::Any,
        via: "adit".into(),
        via_field: Some("adit".into()),
        forwarded: Forwarded::Omitted,
        users: None,
    }
}

/// Who may log in does not matter: the worlds judge credentials themselves.
fn some_users() -> Option<Arc<Users>> {
    Some(Arc::new(Users::parse(b"alice:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=\n").unwrap()))
}

struct Random(u64);

impl Random {
    fn seeded(seed: u64) -> Random {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        for _ in 0..8 {
            random.next();
        }
        random
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    /// True once in so many times.
    fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

/// Of everything that has happened: FNV-1a.
struct Digest(u64);

impl Default for Digest {
    fn default() -> Digest {
        Digest(0xcbf2_9ce4_8422_2325)
    }
}

impl Digest {
    fn add(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
