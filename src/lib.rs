//! adit: a small, strict HTTP forward proxy for Linux. This is the map.
//!
//! A connection meets the modules in this order:
//! ```text
//! sys/accept -> proto/head -> proto/rules -> proto/resolver -> proto/eyeballs -> sys/dial -> proto/relay -> sys/access_log
//!                       \______________ proto/session decides every step ______________/
//! ```
//!
//! Plain HTTP asks [`proto::pool`] for an idle connection before it resolves anything; instead of [`proto::relay`], its heads
//! pass through [`proto::onward`] and [`proto::response`], its bodies through [`proto::body`].
//!
//! With `--users`, [`proto::logins`] knows whose credentials a request shows, or [`sys::logins`] finds out, before the rules are asked.
//!
//! Beyond `--max-sessions`, [`proto::held`] says what is done for a client: one of [`proto::idle_clients`] gives way to it, be it because
//! another loop is asked with a [`proto::plea`].
//!
//! **[`proto`] decides and is pure**: bytes, names, addresses and time go in, decisions come out. It knows no socket, no
//! clock, no log and no thread. **[`sys`] does**: every system call is there. [`sys::event_loop`] asks a session for its
//! next [`proto::session::Step`], does that (one system call; [`proto::session::Step::Pass`] takes three), and reports the outcome.
//!
//! A file imports from strictly lower layers only, so there can be no cycle:
//!
//! | layer | files |
//! |---|---|
//! | 0 to 2 | `proto`: rings, time, targets, replies, heads, rules, relay, names, who is held |
//! | 3 | `proto/session` |
//! | 4 | `config` |
//! | 5 | `sys`: one file for each kind of system call, and `sys/settings`: what is made of a configuration |
//! | 6 | `sys/event_loop`, and above it `sys/supervisor`: what the main thread does |
//! | 7 | `main` |
//!
//! `scripts/layers.py` holds the whole table and enforces it.
#![forbid(unsafe_code)]

pub mod proto;

pub mod config;

pub mod sys;
