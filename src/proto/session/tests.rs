//! Scripts with a virtual clock: one test for each row of the transition table, named `<state>_<event>`. Each ends with
//! nothing left: no storage, no lookup, no upstream, one access line.
// An origin is parked in the box that it is handed over in.
#![allow(clippy::unwrap_used, clippy::panic, clippy::vec_box)]

mod bulk;
mod http;

use super::*;
use crate::proto::eyeballs::{ATTEMPT_DELAY_MS, RESOLUTION_DELAY_MS};
use crate::proto::failure::Failure;
use crate::proto::lookup::Families;
use crate::proto::pool::Origin;
use crate::proto::relay::SLOW_MS;
use crate::proto::ring::{Pool, SMALL_RING_BYTES, Standing};
use crate::proto::rules::{DefaultAction, Ports, Rule, RuleSet, Rules, parse_net};

const HEAD: &[u8] = b"CONNECT origin.test:443 HTTP/1.1\r\nHost: origin.test:443\r\n\r\n";
const PUBLIC: &str = "203.0.114.5";
const MORE_PUBLIC: &str = "203.0.114.6";

struct Script {
    session: Session,
    policy: Policy,
    pool: Pool,
    now: Tick,
    lines: Vec<&'static str>,
    upstream: Upstream,
    /// Where the connections lead that were kept idle.
    parked: Vec<Box<Origin>>,
}

/// Whether the upstream's socket is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Upstream {
    None,
    Open,
}

impl Script {
    fn new() -> Script {
        let policy = Policy {
            rules: rules(),
            timeouts: Timeouts {
                head_ms: 10_000,
                resolve_ms: 5_000,
                dial_ms: 10_000,
                response_ms: 60_000,
                keepalive_ms: 60_000,
                idle_ms: 900_000,
                half_open_ms: 60_000,
                grace_ms: 60_000,
            },
            families: Families::Any,
            via: "adit".into(),
            via_field: Some("adit".into()),
            forwarded: Forwarded::Omitted,
            users: None,
        };
        let session = Session::new("10.0.0.7:4711".parse().unwrap(), Tick(0), &policy);
        Script {
            session,
            policy,
            // Not enough for wide rings.
            pool: Pool::with_ceiling(15 * RING_BYTES as u64),
            now: Tick(0),
            lines: Vec::new(),
            upstream: Upstream::None,
            parked: Vec::new(),
        }
    }

    /// A session that has sent `bytes` and whose client's socket is then empty.
    fn after(bytes: &[u8]) -> Script {
        let mut script = Script::new();
        script.read(Side::Client, bytes);
        script
    }

    fn resolving() -> Script {
        let mut script = Script::after(HEAD);
        script.does(Step::Resolve, Outcome::Done);
        script
    }

    fn dialing() -> Script {
        let mut script = Script::resolving();
        script.resolved(&[PUBLIC, MORE_PUBLIC]);
        script.does(dial(PUBLIC), Outcome::Done);
        script
    }

    /// Greeting written, both directions open, both sockets empty.
    fn tunneling() -> Script {
        let mut script = Script::dialing();
        script.event(Side::Upstream, WRITABLE);
        script.does(Step::ConfirmDial(0), Outcome::Done);
        script.does(Step::Write(Side::Client), Outcome::Moved(ESTABLISHED.len()));
        script.waits();
        script
    }

    /// The same, and what comes from that side has proved to be bulk; more is there.
    fn bulk(side: Side) -> Script {
        let mut script = Script::tunneling();
        script.event(side, READABLE);
        for _ in 0..4 {
            script.read(side, &[7; RING_BYTES]);
            script.writes(side.other(), &[7; RING_BYTES]);
        }
        for _ in 0..4 {
            script.does(Step::Fill(side), Outcome::Moved(RING_BYTES));
            script.does(Step::Drain(side.other()), Outcome::Moved(RING_BYTES));
        }
        script
    }

    #[track_caller]
    fn does(&mut self, step: Step, outcome: Outcome) {
        assert_eq!(self.session.step(), step);
        match step {
            Step::ConfirmDial(_) if outcome == Outcome::Done => self.upstream = Upstream::Open,
            Step::Park | Step::CloseUpstream => {
                assert_eq!(self.upstream, Upstream::Open);
                self.upstream = Upstream::None;
            }
            Step::Read(Side::Upstream)
            | Step::Write(Side::Upstream)
            | Step::Pass(Side::Upstream)
            | Step::Fill(Side::Upstream)
            | Step::Drain(Side::Upstream)
            | Step::ShutdownWrite(Side::Upstream)
            | Step::TakeError(Side::Upstream) => assert_eq!(self.upstream, Upstream::Open),
            Step::Read(Side::Client)
            | Step::Write(Side::Client)
            | Step::Pass(Side::Client)
            | Step::Fill(Side::Client)
            | Step::Drain(Side::Client)
            | Step::ShutdownWrite(Side::Client)
            | Step::TakeError(Side::Client)
            | Step::Discard
            | Step::Authenticate
            | Step::Resolve
            | Step::Dial(..)
            | Step::ConfirmDial(_)
            | Step::TakeIdle
            | Step::Record
            | Step::Wait
            | Step::End(_) => {}
        }
        self.session.report(step, outcome, self.now, &self.policy);
    }

    /// What has come from that side was looked at, and this became of writing it.
    #[track_caller]
    fn passes_in_vain(&mut self, from: Side, outcome: Outcome) {
        assert_eq!(self.session.step(), Step::Pass(from));
        self.session.report(Step::Write(from.other()), outcome, self.now, &self.policy);
    }

    /// The session reads `bytes` from that side.
    #[track_caller]
    fn read(&mut self, side: Side, bytes: &[u8]) {
        assert_eq!(self.session.step(), Step::Read(side));
        self.room(side);
        self.session.fill_slice(side)[..bytes.len()].copy_from_slice(bytes);
        self.does(Step::Read(side), Outcome::Moved(bytes.len()));
    }

    /// How many bytes can be read from that side at once.
    fn room(&mut self, side: Side) -> usize {
        assert!(self.session.borrow_storage(side, &mut self.pool));
        self.session.fill_slice(side).len()
    }

    /// The session writes exactly `bytes` to that side.
    #[track_caller]
    fn writes(&mut self, side: Side, bytes: &[u8]) {
        assert_eq!(self.session.step(), Step::Write(side));
        let offered = self.session.drain_slice(side);
        assert!(offered == bytes, "{}\n{}", offered.escape_ascii(), bytes.escape_ascii());
        self.does(Step::Write(side), Outcome::Moved(bytes.len()));
    }

    fn event(&mut self, side: Side, news: Ready) {
        match side {
            Side::Client => self.session.on_client_ready(news, self.now),
            Side::Upstream => self.session.on_upstream_ready(0, news),
        }
    }

    fn resolved(&mut self, addresses: &[&str]) {
        self.addresses(addresses, true);
    }

    fn addresses(&mut self, addresses: &[&str], last: bool) {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        self.session.on_addresses(addresses, last, self.now, &self.policy);
    }

    /// The session has nothing to do, rightly so, and gives back what it does not need.
    #[track_caller]
    fn waits(&mut self) {
        assert_eq!(self.session.step(), Step::Wait);
        assert!(self.session.may_wait(), "{:?}", self.session);
        if !self.session.wants_upstream() {
            self.upstream = Upstream::None;
        }
        self.session.return_storage(&mut self.pool);
    }

    /// Lets the deadline pass, which must be of that kind and in so many milliseconds.
    #[track_caller]
    fn expires(&mut self, kind: Kind, in_ms: u64) {
        assert_eq!(self.session.deadline(), Some((kind, self.now.after(in_ms))));
        self.now = self.now.after(in_ms - 1);
        self.session.on_deadline(self.now, &self.policy);
        assert_eq!(self.session.deadline(), Some((kind, self.now.after(1))), "came up early");
        self.now = self.now.after(1);
        self.session.on_deadline(self.now, &self.policy);
    }

    /// The session answers with that status and error type, closes its sending side and lingers.
    #[track_caller]
    fn refuses(&mut self, status: u16, error_type: &'static str) {
        assert_eq!(self.session.step(), Step::Write(Side::Client));
        let answer = String::from_utf8(self.session.drain_slice(Side::Client).to_vec()).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(answer.contains(&format!("error={error_type};")), "{answer}");
        self.does(Step::Write(Side::Client), Outcome::Moved(answer.len()));
        self.does(Step::ShutdownWrite(Side::Client), Outcome::Done);
        let record = self.session.record(self.now);
        assert_eq!((record.status, record.end), (Some(status), error_type));
        assert_eq!((record.up_bytes, record.down_bytes), (0, answer.len() as u64));
        self.records();
    }

    #[track_caller]
    fn records(&mut self) {
        self.lines.push(self.session.record(self.now).end);
        self.does(Step::Record, Outcome::Done);
    }

    /// Refused, and the client closes.
    #[track_caller]
    fn ends_refused(&mut self, status: u16, error_type: &'static str) {
        self.refuses(status, error_type);
        self.event(Side::Client, READABLE);
        self.does(Step::Discard, Outcome::Eof);
        self.ends(EndReason::Refused(error_type));
    }

    /// Closed for that reason, with nothing left, and one access line for the one exchange there was.
    #[track_caller]
    fn ends(&mut self, reason: EndReason) {
        let line = if reason == EndReason::Unused { None } else { Some(reason.word()) };
        self.ends_after(reason, line.as_slice());
    }

    /// Closed for that reason, with nothing left, and these access lines' last words.
    #[track_caller]
    fn ends_after(&mut self, reason: EndReason, lines: &[&str]) {
        if self.session.step() == Step::Record {
            self.records();
        }
        assert_eq!(self.session.step(), Step::End(reason));
        assert_eq!(self.lines, lines);
        self.session.return_storage(&mut self.pool);
        assert_eq!(self.pool.lent(), 0, "storage was kept");
        assert!(!self.session.holds_pipe(Side::Client) && !self.session.holds_pipe(Side::Upstream));
        assert_eq!(self.session.deadline(), None);
        assert!(!self.session.wants_lookup());
    }

    fn resets(&self) -> (bool, bool) {
        (self.session.closes_with_reset(Side::Client), self.session.closes_with_reset(Side::Upstream))
    }
}

fn rules() -> Rules {
    rules_denying(".denied.test")
}

fn rules_denying(what: &str) -> Rules {
    let rules = RuleSet {
        clients: vec![parse_net("0.0.0.0/0").unwrap(), parse_net("::/0").unwrap()],
        deny: vec![Rule::parse(what).unwrap()],
        allow: vec![],
        deny_lists: vec![],
        allow_lists: vec![],
        connect_ports: Ports::parse("443").unwrap(),
        http_ports: Ports::parse("80,1024-65535").unwrap(),
        default: DefaultAction::Allow,
    };
    Rules::new(rules, &[])
}

const NOTHING: Ready =
    Ready { readable: false, writable: false, read_closed: false, urgent: false, error: false };
const READABLE: Ready = Ready { readable: true, ..NOTHING };
const WRITABLE: Ready = Ready { writable: true, ..NOTHING };
const CLOSED: Ready = Ready { readable: true, read_closed: true, ..NOTHING };
const BROKEN: Ready = Ready { readable: true, writable: true, read_closed: true, error: true, ..NOTHING };

fn dial(address: &str) -> Step {
    dial_at(0, address)
}

fn dial_at(place: u8, address: &str) -> Step {
    Step::Dial(place, SocketAddr::new(address.parse().unwrap(), 443))
}

// Idle.

#[test]
fn idle_first_bytes() {
    let mut script = Script::after(&HEAD[..1]);
    script.waits();
    assert_eq!(
        script.session.deadline(),
        Some((Kind::Head, Tick(10_000))),
        "the head's time runs from the start"
    );
}

#[test]
fn idle_would_block() {
    let mut script = Script::new();
    script.does(Step::Read(Side::Client), Outcome::Blocked);
    script.waits();
    script.event(Side::Client, READABLE);
    assert_eq!(script.session.step(), Step::Read(Side::Client));
}

#[test]
fn idle_end() {
    let mut script = Script::new();
    script.does(Step::Read(Side::Client), Outcome::Eof);
    script.ends(EndReason::Unused);
}

#[test]
fn idle_reset() {
    let mut script = Script::new();
    script.does(Step::Read(Side::Client), Outcome::Failed(Failure::Reset));
    script.ends(EndReason::Unused);
}

#[test]
fn idle_deadline() {
    let mut script = Script::new();
    script.expires(Kind::Head, 10_000);
    script.ends(EndReason::Unused);
}

#[test]
fn idle_no_storage() {
    let mut script = Script::new();
    script.does(Step::Read(Side::Client), Outcome::NoStorage);
    script.ends_refused(503, "connection_limit_reached");
}

#[test]
fn idle_drain() {
    let mut script = Script::new();
    script.does(Step::Read(Side::Client), Outcome::Blocked);
    script.session.on_drain(script.now);
    script.expires(Kind::Head, DRAIN_IDLE_MS);
    script.ends(EndReason::Unused);
}

#[test]
fn idle_grace_over() {
    let mut script = Script::new();
    script.session.on_grace_over(script.now, &script.policy);
    script.ends(EndReason::Unused);
}

#[test]
fn refused_before_a_byte_is_read() {
    let mut script = Script::new();
    let client = "10.0.0.7:4711".parse().unwrap();
    script.session = Session::refused(client, Refusal::SessionLimit, None, script.now, &script.policy);
    script.ends_refused(503, "connection_limit_reached");
}

// Reading the head.

#[test]
fn head_in_two_pieces() {
    let mut script = Script::after(&HEAD[..20]);
    script.waits();
    script.event(Side::Client, READABLE);
    script.read(Side::Client, &HEAD[20..]);
    assert_eq!(script.session.step(), Step::Resolve);
    assert_eq!(script.session.target().unwrap().to_string(), "origin.test:443");
}

#[test]
fn head_bad() {
    Script::after(b"CONNECT origin.test HTTP/1.1\r\n\r\n").ends_refused(400, "http_request_error");
}

#[test]
fn head_bad_behind_a_good_target() {
    let script = Script::after(b"CONNECT origin.test:443 HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n");
    match script.session.record(script.now).request {
        Asked::Connect(target) => assert_eq!(target.to_string(), "origin.test:443"),
        Asked::Nothing | Asked::Http { .. } => panic!("the target is not in the access line"),
    }
}

#[test]
fn head_bad_before_it_is_complete() {
    Script::after(b"\x16\x03\x01").ends_refused(400, "http_request_error");
}

#[test]
fn head_end() {
    let mut script = Script::after(&HEAD[..20]);
    script.event(Side::Client, CLOSED);
    script.does(Step::Read(Side::Client), Outcome::Eof);
    script.ends_refused(400, "http_request_error");
}

#[test]
fn head_reset() {
    let mut script = Script::after(&HEAD[..20]);
    script.event(Side::Client, BROKEN);
    script.does(Step::Read(Side::Client), Outcome::Failed(Failure::Reset));
    script.ends(EndReason::ClientReset);
}

#[test]
fn head_deadline() {
    let mut script = Script::after(&HEAD[..20]);
    script.expires(Kind::Head, 10_000);
    script.ends_refused(408, "http_request_error");
}

#[test]
fn head_drain() {
    let mut script = Script::after(&HEAD[..20]);
    script.session.on_drain(script.now);
    script.event(Side::Client, READABLE);
    script.read(Side::Client, &HEAD[20..]);
    script.does(Step::Resolve, Outcome::Done);
}

#[test]
fn head_grace_over() {
    let mut script = Script::after(&HEAD[..20]);
    script.session.on_grace_over(script.now, &script.policy);
    script.ends_refused(503, "proxy_internal_response");
}

#[test]
fn head_of_an_address_is_not_resolved() {
    let mut script = Script::after(b"CONNECT 203.0.114.5:443 HTTP/1.0\r\n\r\n");
    script.does(dial(PUBLIC), Outcome::Done);
    assert_eq!(script.session.record(script.now).dns_ms, None);
}

#[test]
fn head_denied_by_name() {
    let head = b"CONNECT www.denied.test:443 HTTP/1.0\r\n\r\n";
    let mut script = Script::after(head);
    assert_eq!(script.session.record(script.now).rule, Some("deny:.denied.test"));
    script.ends_refused(403, "http_request_denied");
}

#[test]
fn head_denied_by_port() {
    let mut script = Script::after(b"CONNECT origin.test:22 HTTP/1.0\r\n\r\n");
    assert_eq!(script.session.record(script.now).rule, Some("connect-port"));
    script.ends_refused(403, "http_request_denied");
}

#[test]
fn head_with_bytes_behind_a_refusal() {
    let mut script =
        Script::after(b"CONNECT origin.test HTTP/1.1\r\n\r\nCONNECT origin.test:443 HTTP/1.0\r\n\r\n");
    script.ends_refused(400, "http_request_error");
}

// Resolving.

#[test]
fn resolving_answer() {
    let mut script = Script::resolving();
    script.waits();
    script.now = Tick(7);
    script.resolved(&[PUBLIC]);
    assert_eq!(script.session.deadline(), Some((Kind::Dial, Tick(10_007))));
    script.does(dial(PUBLIC), Outcome::Done);
    assert_eq!(script.session.record(script.now).dns_ms, Some(7));
}

#[test]
fn resolving_answer_that_is_guarded() {
    let mut script = Script::resolving();
    script.resolved(&["127.0.0.1", "::1"]);
    assert_eq!(script.session.record(script.now).rule, Some("guard"));
    script.ends_refused(403, "destination_ip_prohibited");
}

#[test]
fn resolving_answer_that_is_partly_guarded() {
    let mut script = Script::resolving();
    script.resolved(&["127.0.0.1", PUBLIC]);
    script.does(dial(PUBLIC), Outcome::Done);
}

#[test]
fn resolving_failure() {
    for (error, status, error_type) in [
        (ResolveError::NotFound { rcode: 3 }, 502, "dns_error"),
        (ResolveError::Failed { rcode: 2 }, 502, "dns_error"),
        (ResolveError::NoServers, 502, "dns_error"),
        (ResolveError::Broken, 502, "dns_error"),
        (ResolveError::Io(std::io::ErrorKind::ConnectionRefused), 502, "dns_error"),
        (ResolveError::NoSocket(std::io::ErrorKind::OutOfMemory), 503, "connection_limit_reached"),
        (ResolveError::Busy, 503, "connection_limit_reached"),
        (ResolveError::Timeout { servers: vec!["192.0.2.1:53".parse().unwrap()].into() }, 504, "dns_timeout"),
    ] {
        let mut script = Script::resolving();
        script.session.on_unresolved(&error, script.now, &script.policy);
        script.ends_refused(status, error_type);
    }
}

#[test]
fn resolving_empty_answer() {
    let mut script = Script::resolving();
    script.resolved(&[]);
    script.ends_refused(502, "dns_error");
}

#[test]
fn resolving_deadline() {
    let mut script = Script::resolving();
    script.expires(Kind::Resolve, 5_000);
    script.ends_refused(504, "dns_timeout");
}

#[test]
fn resolving_client_end() {
    let mut script = Script::resolving();
    script.now = Tick(500);
    script.event(Side::Client, CLOSED);
    script.waits();
    script.expires(Kind::ClientLeft, CLIENT_LEFT_MS);
    script.ends(EndReason::ClientLeft);
}

#[test]
fn resolving_client_end_known_with_the_head() {
    let mut script = Script::new();
    script.event(Side::Client, CLOSED);
    script.read(Side::Client, HEAD);
    script.does(Step::Resolve, Outcome::Done);
    script.expires(Kind::ClientLeft, CLIENT_LEFT_MS);
    script.ends(EndReason::ClientLeft);
}

#[test]
fn resolving_client_reset() {
    let mut script = Script::resolving();
    script.event(Side::Client, BROKEN);
    script.does(Step::TakeError(Side::Client), Outcome::Failed(Failure::Reset));
    script.ends(EndReason::ClientReset);
}

#[test]
fn resolving_false_alarm() {
    let mut script = Script::resolving();
    script.event(Side::Client, Ready { error: true, ..NOTHING });
    script.does(Step::TakeError(Side::Client), Outcome::Done);
    script.waits();
}

#[test]
fn resolving_grace_over() {
    let mut script = Script::resolving();
    script.session.on_grace_over(script.now, &script.policy);
    script.ends_refused(503, "proxy_internal_response");
}

// Dialing.

#[test]
fn dialing_stands() {
    let mut script = Script::dialing();
    script.waits();
    script.now = Tick(11);
    script.event(Side::Upstream, WRITABLE);
    script.does(Step::ConfirmDial(0), Outcome::Done);
    script.writes(Side::Client, ESTABLISHED);
    let record = script.session.record(script.now);
    assert_eq!((record.status, record.dial_ms, record.rule), (Some(200), Some(11), Some("default")));
    assert_eq!(record.via, Some("203.0.114.5:443".parse().unwrap()));
}

#[test]
fn dialing_rumour() {
    let mut script = Script::dialing();
    script.event(Side::Upstream, WRITABLE);
    script.does(Step::ConfirmDial(0), Outcome::Blocked);
    script.waits();
}

#[test]
fn dialing_failure_tries_the_next() {
    let mut script = Script::dialing();
    script.event(Side::Upstream, BROKEN);
    script.does(Step::ConfirmDial(0), Outcome::Failed(Failure::Refused));
    script.does(dial(MORE_PUBLIC), Outcome::Done);
    script.waits();
    script.event(Side::Upstream, WRITABLE);
    script.does(Step::ConfirmDial(0), Outcome::Done);
    script.writes(Side::Client, ESTABLISHED);
}

#[test]
fn dialing_last_failure() {
    let mut script = Script::dialing();
    script.event(Side::Upstream, BROKEN);
    script.does(Step::ConfirmDial(0), Outcome::Failed(Failure::Refused));
    script.does(dial(MORE_PUBLIC), Outcome::Failed(Failure::Unreachable));
    assert_eq!(script.session.record(script.now).dial_ms, Some(0));
    script.ends_refused(502, "destination_ip_unroutable");
}

#[test]
fn dialing_deadline() {
    let mut script = Script::resolving();
    script.resolved(&[PUBLIC]);
    script.does(dial(PUBLIC), Outcome::Done);
    script.expires(Kind::Dial, 10_000);
    assert_eq!(script.session.record(script.now).dial_ms, Some(10_000));
    script.ends_refused(504, "connection_timeout");
}

#[test]
fn dialing_deadline_is_for_all_candidates() {
    let mut script = Script::dialing();
    script.now = Tick(9_000);
    script.event(Side::Upstream, BROKEN);
    script.does(Step::ConfirmDial(0), Outcome::Failed(Failure::Refused));
    script.does(dial(MORE_PUBLIC), Outcome::Done);
    script.expires(Kind::Dial, 1_000);
    script.ends_refused(504, "connection_timeout");
}

#[test]
fn dialing_client_end() {
    let mut script = Script::resolving();
    script.event(Side::Client, CLOSED);
    script.now = Tick(1_500);
    script.resolved(&[PUBLIC]);
    script.does(dial(PUBLIC), Outcome::Done);
    script.waits();
    // The grace began while the name was resolved and does not start again.
    script.expires(Kind::ClientLeft, CLIENT_LEFT_MS - 1_500);
    script.ends(EndReason::ClientLeft);
}

#[test]
fn dialing_client_end_with_an_answer_due_before_the_grace_is_over() {
    let mut script = Script::resolving();
    script.resolved(&[PUBLIC]);
    script.does(dial(PUBLIC), Outcome::Done);
    script.now = Tick(9_000);
    script.event(Side::Client, CLOSED);
    script.expires(Kind::Dial, 1_000);
    script.ends_refused(504, "connection_timeout");
}

#[test]
fn dialing_client_reset_behind_its_end() {
    let mut script = Script::dialing();
    script.event(Side::Client, CLOSED);
    script.event(Side::Client, BROKEN);
    script.does(Step::TakeError(Side::Client), Outcome::Failed(Failure::BrokenPipe));
    script.ends(EndReason::ClientReset);
}

#[test]
fn dialing_client_reset() {
    let mut script = Script::dialing();
    script.event(Side::Client, BROKEN);
    script.does(Step::TakeError(Side::Client), Outcome::Failed(Failure::Reset));
    script.ends(EndReason::ClientReset);
}

#[test]
fn dialing_grace_over() {
    let mut script = Script::dialing();
    script.session.on_grace_over(script.now, &script.policy);
    script.ends_refused(503, "proxy_internal_response");
}

#[test]
fn dialing_attempt_deadline_races_the_next() {
    let mut script = Script::dialing();
    script.expires(Kind::Attempt, ATTEMPT_DELAY_MS);
    script.does(dial_at(1, MORE_PUBLIC), Outcome::Done);
    script.waits();
    // The second one stands first. What the first one was told of is not the winner's.
    script.session.on_upstream_ready(0, CLOSED);
    script.session.on_upstream_ready(1, WRITABLE);
    script.does(Step::ConfirmDial(1), Outcome::Done);
    script.writes(Side::Client, ESTABLISHED);
    script.waits();
    assert_eq!(script.session.record(script.now).via, Some("203.0.114.6:443".parse().unwrap()));
    assert_eq!(script.session.record(script.now).dial_ms, Some(ATTEMPT_DELAY_MS));
}

/// What is dialed is what the rules in force at that moment allow.
#[test]
fn dialing_other_rules_before_an_attempt_is_started() {
    let mut script = Script::resolving();
    script.resolved(&[PUBLIC, MORE_PUBLIC]);
    assert_eq!(script.session.step(), dial(PUBLIC));
    script.policy.rules = rules_denying(PUBLIC);
    script.session.on_policy(script.now, &script.policy);
    script.does(dial(MORE_PUBLIC), Outcome::Done);
    // What is dialed already goes on.
    script.policy.rules = rules_denying(MORE_PUBLIC);
    script.session.on_policy(script.now, &script.policy);
    script.session.on_upstream_ready(0, WRITABLE);
    script.does(Step::ConfirmDial(0), Outcome::Done);
    script.writes(Side::Client, ESTABLISHED);
    script.waits();
}

#[test]
fn dialing_first_stands_although_a_second_was_started() {
    let mut script = Script::dialing();
    script.expires(Kind::Attempt, ATTEMPT_DELAY_MS);
    script.does(dial_at(1, MORE_PUBLIC), Outcome::Done);
    script.session.on_upstream_ready(0, Ready { readable: true, ..WRITABLE });
    script.does(Step::ConfirmDial(0), Outcome::Done);
    script.writes(Side::Client, ESTABLISHED);
    script.read(Side::Upstream, b"220 ready");
    assert_eq!(script.session.record(script.now).via, Some("203.0.114.5:443".parse().unwrap()));
}

#[test]
fn dialing_late_address_is_judged_and_dialed() {
    let mut script = Script::resolving();
    script.addresses(&["127.0.0.1"], false);
    assert!(script.session.wants_lookup());
    script.expires(Kind::Attempt, RESOLUTION_DELAY_MS);
    script.waits();
    script.addresses(&["::1", "2606:2800::1"], true);
    assert!(!script.session.wants_lookup());
    script.does(Step::Dial(0, "[2606:2800::1]:443".parse().unwrap()), Outcome::Done);
}

#[test]
fn dialing_late_address_that_is_denied() {
    let mut script = Script::resolving();
    script.addresses(&[PUBLIC], false);
    script.expires(Kind::Attempt, RESOLUTION_DELAY_MS);
    script.does(dial(PUBLIC), Outcome::Failed(Failure::Unreachable));
    script.waits();
    script.addresses(&["::1"], true);
    // The attempt that failed says more than the address that was never tried.
    script.ends_refused(502, "destination_ip_unroutable");
}

#[test]
fn dialing_no_more_addresses_after_a_failure() {
    let mut script = Script::resolving();
    script.addresses(&["2606:2800::1"], false);
    script.does(Step::Dial(0, "[2606:2800::1]:443".parse().unwrap()), Outcome::Failed(Failure::Unreachable));
    script.waits();
    script.addresses(&[], true);
    script.ends_refused(502, "destination_ip_unroutable");
}

#[test]
fn dialing_excluded_family() {
    let mut script = Script::resolving();
    script.policy.families = Families::Only6;
    script.resolved(&[PUBLIC]);
    script.ends_refused(502, "destination_ip_unroutable");
}

// Tunneling.

#[test]
fn tunneling_both_ways() {
    let mut script = Script::tunneling();
    script.event(Side::Client, READABLE);
    script.event(Side::Upstream, READABLE);
    script.read(Side::Client, b"ping");
    script.writes(Side::Upstream, b"ping");
    script.read(Side::Upstream, b"pong");
    script.writes(Side::Client, b"pong");
    script.waits();
    assert_eq!(script.session.record(script.now).up_bytes, 4);
    assert_eq!(script.session.record(script.now).down_bytes, 4);
}

#[test]
fn tunneling_early_bytes() {
    let mut script = Script::after(&[HEAD, b"early"].concat());
    script.does(Step::Resolve, Outcome::Done);
    script.resolved(&[PUBLIC]);
    script.does(dial(PUBLIC), Outcome::Done);
    script.event(Side::Upstream, WRITABLE);
    script.does(Step::ConfirmDial(0), Outcome::Done);
    script.writes(Side::Client, ESTABLISHED);
    script.writes(Side::Upstream, b"early");
    script.waits();
}

#[test]
fn tunneling_greeting_in_pieces() {
    let mut script = Script::dialing();
    script.event(Side::Upstream, Ready { readable: true, ..WRITABLE });
    script.does(Step::ConfirmDial(0), Outcome::Done);
    script.does(Step::Write(Side::Client), Outcome::Moved(10));
    script.does(Step::Write(Side::Client), Outcome::Blocked);
    script.waits();
    script.event(Side::Client, WRITABLE);
    script.writes(Side::Client, &ESTABLISHED[10..]);
    script.read(Side::Upstream, b"220 ready");
    script.writes(Side::Client, b"220 ready");
}

#[test]
fn tunneling_partial_write_and_would_block() {
    let mut script = Script::tunneling();
    script.event(Side::Client, READABLE);
    script.read(Side::Client, b"abcdef");
    script.does(Step::Write(Side::Upstream), Outcome::Moved(2));
    script.does(Step::Write(Side::Upstream), Outcome::Blocked);
    script.event(Side::Client, READABLE);
    script.waits();
    script.event(Side::Upstream, WRITABLE);
    script.writes(Side::Upstream, b"cdef");
    assert_eq!(script.session.step(), Step::Read(Side::Client));
}

#[test]
fn tunneling_client_end_then_upstream_end() {
    let mut script = Script::tunneling();
    script.event(Side::Client, CLOSED);
    script.read(Side::Client, b"last");
    script.writes(Side::Upstream, b"last");
    script.does(Step::Read(Side::Client), Outcome::Eof);
    script.does(Step::ShutdownWrite(Side::Upstream), Outcome::Done);
    script.waits();
    script.event(Side::Upstream, CLOSED);
    script.read(Side::Upstream, b"answer");
    script.writes(Side::Client, b"answer");
    script.does(Step::Read(Side::Upstream), Outcome::Eof);
    script.ends(EndReason::Done);
    assert_eq!(script.resets(), (false, false));
}

#[test]
fn tunneling_upstream_end_then_client_end() {
    let mut script = Script::tunneling();
    script.event(Side::Upstream, CLOSED);
    script.does(Step::Read(Side::Upstream), Outcome::Eof);
    script.does(Step::ShutdownWrite(Side::Client), Outcome::Done);
    script.event(Side::Client, READABLE);
    script.read(Side::Client, b"more");
    script.writes(Side::Upstream, b"more");
    script.waits();
    script.event(Side::Client, CLOSED);
    script.does(Step::Read(Side::Client), Outcome::Eof);
    script.ends(EndReason::Done);
}

#[test]
fn tunneling_end_with_bytes_that_cannot_be_written_yet() {
    let mut script = Script::tunneling();
    script.event(Side::Client, CLOSED);
    script.read(Side::Client, b"held");
    script.does(Step::Write(Side::Upstream), Outcome::Blocked);
    script.waits();
    script.event(Side::Upstream, WRITABLE);
    script.writes(Side::Upstream, b"held");
    script.does(Step::Read(Side::Client), Outcome::Eof);
    script.does(Step::ShutdownWrite(Side::Upstream), Outcome::Done);
}

#[test]
fn tunneling_client_reset() {
    let mut script = Script::tunneling();
    script.event(Side::Client, BROKEN);
    script.does(Step::Read(Side::Client), Outcome::Failed(Failure::Reset));
    script.ends(EndReason::ClientReset);
    assert_eq!(script.resets(), (false, true));
}

#[test]
fn tunneling_a_side_vanishes() {
    for failure in [Failure::TimedOut, Failure::Unreachable] {
        let mut script = Script::tunneling();
        script.event(Side::Client, BROKEN);
        script.does(Step::Read(Side::Client), Outcome::Failed(failure));
        script.ends(EndReason::ClientVanished);
        assert_eq!(script.resets(), (false, true));

        let mut script = Script::tunneling();
        script.event(Side::Upstream, BROKEN);
        script.does(Step::Read(Side::Upstream), Outcome::Failed(failure));
        script.ends(EndReason::UpstreamVanished);
        assert_eq!(script.resets(), (true, false));
    }
}

#[test]
fn tunneling_the_client_vanishes_with_bytes_for_it() {
    let mut script = Script::tunneling();
    script.event(Side::Upstream, READABLE);
    script.read(Side::Upstream, b"nobody takes this");
    script.does(Step::Write(Side::Client), Outcome::Blocked);
    script.waits();
    script.event(Side::Client, BROKEN);
    script.does(Step::Write(Side::Client), Outcome::Failed(Failure::TimedOut));
    script.does(Step::Read(Side::Client), Outcome::Eof);
    script.ends(EndReason::ClientVanished);
}

/// Whatever is due is started by the deadline alone, which also sees to it that the session runs.
#[test]
fn dialing_other_rules_when_the_next_attempt_is_due() {
    let mut script = Script::resolving();
    script.resolved(&[PUBLIC, MORE_PUBLIC]);
    script.does(dial(PUBLIC), Outcome::Done);
    script.waits();
    script.now = script.now.after(ATTEMPT_DELAY_MS);
    script.session.on_policy(script.now, &script.policy);
    script.waits();
    assert!(script.session.deadline().is_some_and(|(_, due)| due <= script.now));
    script.session.on_deadline(script.now, &script.policy);
    assert!(
        matches!(script.session.step(), Step::Dial(_, address) if address.ip().to_string() == MORE_PUBLIC)
    );
}

#[test]
fn tunneling_storage_is_scarce() {
    let mut script = Script::tunneling();
    let lent: Vec<_> = (0..8).map(|_| script.pool.lend().unwrap()).collect();
    script.event(Side::Upstream, READABLE);
    assert_eq!(script.room(Side::Upstream), SMALL_RING_BYTES);
    script.read(Side::Upstream, &[7; SMALL_RING_BYTES]);
    script.writes(Side::Client, &[7; SMALL_RING_BYTES]);
    script.does(Step::Read(Side::Upstream), Outcome::Blocked);
    script.waits();
    for storage in lent {
        script.pool.give_back(storage);
    }
    assert_eq!((script.room(Side::Upstream), script.pool.lent()), (RING_BYTES, 1));
}

#[test]
fn tunneling_storage_is_scarce_and_there_is_more() {
    let mut script = Script::tunneling();
    let _lent: Vec<_> = (0..8).map(|_| script.pool.lend().unwrap()).collect();
    script.event(Side::Upstream, READABLE);
    script.read(Side::Upstream, &[7; SMALL_RING_BYTES]);
    script.writes(Side::Client, &[7; SMALL_RING_BYTES]);
    assert!(!script.session.borrow_storage(Side::Upstream, &mut script.pool), "more than it may hold");
    script.session.return_storage(&mut script.pool);
    assert_eq!(script.pool.lent(), 8);
    script.does(Step::Read(Side::Upstream), Outcome::NoStorage);
    script.does(Step::Pass(Side::Upstream), Outcome::Moved(100));
    // That was a small one.
    assert_eq!(script.room(Side::Upstream), SMALL_RING_BYTES);
    // Who has shown that it takes what comes has a pipe before others.
    for _ in 0..256 {
        if script.session.step() == Step::Fill(Side::Upstream) {
            script.does(Step::Fill(Side::Upstream), Outcome::NoStorage);
        }
        script.does(Step::Read(Side::Upstream), Outcome::NoStorage);
        script.does(Step::Pass(Side::Upstream), Outcome::Moved(RING_BYTES));
    }
    assert_eq!(script.session.standing(Side::Upstream), Standing::Proven);
    script.does(Step::Fill(Side::Upstream), Outcome::Moved(RING_BYTES));
    script.does(Step::Drain(Side::Client), Outcome::Moved(RING_BYTES));
}

#[test]
fn tunneling_a_sink_is_slow_for_a_while() {
    let mut script = Script::bulk(Side::Upstream);
    script.does(Step::Fill(Side::Upstream), Outcome::Moved(RING_BYTES));
    script.does(Step::Drain(Side::Client), Outcome::Blocked);
    script.waits();
    script.now = script.now.after(SLOW_MS - 1);
    script.event(Side::Client, WRITABLE);
    script.does(Step::Drain(Side::Client), Outcome::Moved(1));
    assert_eq!(script.session.standing(Side::Upstream), Standing::Fresh);
    script.does(Step::Drain(Side::Client), Outcome::Blocked);
    script.now = script.now.after(SLOW_MS);
    script.event(Side::Client, WRITABLE);
    script.does(Step::Drain(Side::Client), Outcome::Moved(RING_BYTES - 1));
    assert_eq!(script.session.standing(Side::Upstream), Standing::Slow);
    let mut fills = 0;
    while script.session.standing(Side::Upstream) == Standing::Slow {
        fills += 1;
        script.does(Step::Fill(Side::Upstream), Outcome::Moved(RING_BYTES));
        script.does(Step::Drain(Side::Client), Outcome::Moved(RING_BYTES));
    }
    // What has moved before counts to the full span.
    assert_eq!((fills, script.session.standing(Side::Upstream)), (15 * 16 - 9, Standing::Proven));
    assert_eq!(script.session.standing(Side::Client), Standing::Fresh);
    script.does(Step::Fill(Side::Upstream), Outcome::Blocked);
    script.waits();
}

#[test]
fn reading_head_storage_is_scarce() {
    let mut script = Script::new();
    script.read(Side::Client, &HEAD[..HEAD.len() - 1]);
    script.waits();
    script.session.tighten(&mut script.pool);
    let small: Vec<_> = (0..15).map(|_| script.pool.lend_small().unwrap()).collect();
    assert_eq!(script.pool.lent(), 1, "it holds a sixteenth of a ring");
    script.event(Side::Client, READABLE);
    script.read(Side::Client, &HEAD[HEAD.len() - 1..]);
    script.does(Step::Resolve, Outcome::Done);
    assert_eq!(script.session.target().unwrap().to_string(), "origin.test:443");
    script.waits();
    for storage in small {
        script.pool.give_back(storage);
    }
    assert_eq!(script.pool.lent(), 0);
}

#[test]
fn resolving_asks_again() {
    let mut script = Script::resolving();
    script.waits();
    script.session.ask_again();
    script.does(Step::Resolve, Outcome::Done);
    script.resolved(&[PUBLIC]);
    script.does(dial(PUBLIC), Outcome::Done);
    // Nothing to ask about any more.
    script.session.ask_again();
    script.waits();
}

#[test]
fn idle_drain_and_then_the_first_bytes() {
    let mut script = Script::new();
    script.does(Step::Read(Side::Client), Outcome::Blocked);
    script.session.on_drain(Tick(3_000));
    assert_eq!(script.session.deadline(), Some((Kind::Head, Tick(4_000))));
    script.now = Tick(3_500);
    script.event(Side::Client, READABLE);
    script.read(Side::Client, b"C");
    assert_eq!(script.session.deadline(), Some((Kind::Head, Tick(10_000))), "it has asked");
}

#[test]
fn tunneling_upstream_reset() {
    let mut script = Script::tunneling();
    script.event(Side::Upstream, BROKEN);
    script.does(Step::Read(Side::Upstream), Outcome::Failed(Failure::Reset));
    script.ends(EndReason::UpstreamReset);
    assert_eq!(script.resets(), (true, false));
}

#[test]
fn tunneling_reset_behind_bytes() {
    let mut script = Script::tunneling();
    script.event(Side::Upstream, BROKEN);
    script.read(Side::Upstream, b"last words");
    script.writes(Side::Client, b"last words");
    script.does(Step::Read(Side::Upstream), Outcome::Failed(Failure::Reset));
    script.ends(EndReason::UpstreamReset);
    assert_eq!(script.resets(), (true, false));
}

#[test]
fn tunneling_write_fails_with_a_reset() {
    let mut script = Script::tunneling();
    script.event(Side::Client, READABLE);
    script.read(Side::Client, b"too late");
    script.does(Step::Write(Side::Upstream), Outcome::Failed(Failure::Reset));
    // What it said before is still fetched; the write has taken the error, so the read meets an end.
    script.read(Side::Upstream, b"go away");
    script.writes(Side::Client, b"go away");
    script.event(Side::Upstream, BROKEN);
    script.does(Step::Read(Side::Upstream), Outcome::Eof);
    script.ends(EndReason::UpstreamReset);
    assert_eq!(script.resets(), (true, false));
    assert_eq!(script.session.record(script.now).up_bytes, 0);
}

#[test]
fn tunneling_write_to_who_has_closed() {
    let mut script = Script::tunneling();
    script.event(Side::Client, READABLE);
    script.event(Side::Upstream, CLOSED);
    script.read(Side::Client, b"too late");
    script.does(Step::Write(Side::Upstream), Outcome::Failed(Failure::BrokenPipe));
    script.read(Side::Upstream, b"bye");
    script.writes(Side::Client, b"bye");
    script.does(Step::Read(Side::Upstream), Outcome::Eof);
    script.ends(EndReason::UpstreamReset);
    assert_eq!(script.resets(), (false, false), "its answer is complete: no reset may overtake it");
}

#[test]
fn tunneling_greeting_fails() {
    let mut script = Script::dialing();
    script.event(Side::Upstream, WRITABLE);
    script.does(Step::ConfirmDial(0), Outcome::Done);
    script.does(Step::Write(Side::Client), Outcome::Failed(Failure::Reset));
    script.does(Step::Read(Side::Client), Outcome::Eof);
    script.ends(EndReason::ClientReset);
}

#[test]
fn tunneling_no_storage() {
    let mut script = Script::tunneling();
    script.event(Side::Client, READABLE);
    script.does(Step::Read(Side::Client), Outcome::NoStorage);
    script.does(Step::Pass(Side::Client), Outcome::Moved(1_000));
    // It may have come back.
    script.read(Side::Client, b"stored");
    script.writes(Side::Upstream, b"stored");
    script.event(Side::Client, READABLE);
    script.does(Step::Read(Side::Client), Outcome::NoStorage);
    script.does(Step::Pass(Side::Client), Outcome::Blocked);
    script.waits();
    let record = script.session.record(script.now);
    assert_eq!((record.up_bytes, record.down_bytes), (1_006, 0));
}

#[test]
fn tunneling_no_storage_and_the_sink_is_full() {
    let mut script = Script::tunneling();
    script.event(Side::Upstream, READABLE);
    script.does(Step::Read(Side::Upstream), Outcome::NoStorage);
    script.passes_in_vain(Side::Upstream, Outcome::Blocked);
    script.waits();
    assert!(!script.session.is_starved(), "it is the client that it waits for");
    script.event(Side::Client, WRITABLE);
    script.does(Step::Pass(Side::Upstream), Outcome::Moved(7));
    script.does(Step::Read(Side::Upstream), Outcome::Blocked);
    script.waits();
}

#[test]
fn tunneling_no_storage_and_the_sink_fails() {
    let mut script = Script::tunneling();
    script.event(Side::Client, READABLE);
    script.does(Step::Read(Side::Client), Outcome::NoStorage);
    script.passes_in_vain(Side::Client, Outcome::Failed(Failure::Reset));
    script.does(Step::Read(Side::Upstream), Outcome::Eof);
    script.ends(EndReason::UpstreamReset);
}

#[test]
fn tunneling_no_storage_and_the_source_ends() {
    let mut script = Script::tunneling();
    script.event(Side::Client, CLOSED);
    script.does(Step::Read(Side::Client), Outcome::NoStorage);
    script.does(Step::Pass(Side::Client), Outcome::Moved(3));
    script.does(Step::Read(Side::Client), Outcome::NoStorage);
    script.does(Step::Pass(Side::Client), Outcome::Eof);
    script.does(Step::ShutdownWrite(Side::Upstream), Outcome::Done);
    script.waits();
}

#[test]
fn tunneling_deadline_behind_a_head_for_which_there_was_little() {
    let mut script = Script::new();
    let lent: Vec<_> = (0..12).map(|_| script.pool.lend().unwrap()).collect();
    script.read(Side::Client, HEAD);
    script.does(Step::Resolve, Outcome::Done);
    script.resolved(&[PUBLIC]);
    script.does(dial(PUBLIC), Outcome::Done);
    script.event(Side::Upstream, WRITABLE);
    script.does(Step::ConfirmDial(0), Outcome::Done);
    script.does(Step::Write(Side::Client), Outcome::Moved(ESTABLISHED.len()));
    script.waits();
    script.expires(Kind::Idle, 900_000);
    assert_eq!(script.resets(), (false, false), "nothing was cut off");
    lent.into_iter().for_each(|storage| script.pool.give_back(storage));
    script.ends(EndReason::IdleTimeout);
}

#[test]
fn tunneling_deadline_with_bytes_to_pass_on() {
    let mut script = Script::tunneling();
    script.event(Side::Client, READABLE);
    script.does(Step::Read(Side::Client), Outcome::NoStorage);
    script.passes_in_vain(Side::Client, Outcome::Blocked);
    script.expires(Kind::Idle, 900_000);
    assert_eq!(script.resets(), (true, true), "a stream that was cut off must not look complete");
    script.ends(EndReason::IdleTimeout);
}

#[test]
fn tunneling_deadline() {
    let mut script = Script::tunneling();
    script.now = Tick(800_000);
    script.event(Side::Client, READABLE);
    script.read(Side::Client, b"x");
    script.writes(Side::Upstream, b"x");
    // Either direction counts for both.
    script.expires(Kind::Idle, 900_000);
    script.ends(EndReason::IdleTimeout);
    assert_eq!(script.resets(), (false, false));
}

#[test]
fn tunneling_deadline_with_bytes_held() {
    let mut script = Script::tunneling();
    script.event(Side::Client, READABLE);
    script.read(Side::Client, b"never taken");
    script.does(Step::Write(Side::Upstream), Outcome::Blocked);
    script.expires(Kind::Idle, 900_000);
    assert_eq!(script.resets(), (true, true), "a stream that was cut off must not look complete");
    script.ends(EndReason::IdleTimeout);
}

#[test]
fn tunneling_half_open_deadline_is_never_longer_than_the_idle_one() {
    let mut script = Script::tunneling();
    script.policy.timeouts.idle_ms = 5_000;
    script.event(Side::Client, CLOSED);
    script.does(Step::Read(Side::Client), Outcome::Eof);
    script.does(Step::ShutdownWrite(Side::Upstream), Outcome::Done);
    script.expires(Kind::HalfOpen, 5_000);
    script.ends(EndReason::HalfOpenTimeout);
}

#[test]
fn tunneling_client_reset_while_the_upstream_takes_nothing() {
    let mut script = Script::tunneling();
    script.event(Side::Client, READABLE);
    script.read(Side::Client, b"stuck");
    script.does(Step::Write(Side::Upstream), Outcome::Blocked);
    script.waits();
    script.event(Side::Client, BROKEN);
    script.does(Step::TakeError(Side::Client), Outcome::Failed(Failure::Reset));
    script.ends(EndReason::ClientReset);
    assert_eq!(script.resets(), (false, true));
}

#[test]
fn tunneling_upstream_reset_while_the_client_takes_nothing() {
    let mut script = Script::tunneling();
    script.event(Side::Upstream, READABLE);
    script.read(Side::Upstream, b"stuck");
    script.does(Step::Write(Side::Client), Outcome::Blocked);
    script.event(Side::Upstream, BROKEN);
    script.does(Step::TakeError(Side::Upstream), Outcome::Failed(Failure::Reset));
    script.waits();
    assert_eq!(script.session.deadline(), Some((Kind::HalfOpen, script.now.after(60_000))));
    // The client takes it after all: it gets what there was, and then the reset.
    script.event(Side::Client, WRITABLE);
    script.writes(Side::Client, b"stuck");
    script.does(Step::Read(Side::Upstream), Outcome::Eof);
    script.ends(EndReason::UpstreamReset);
    assert_eq!(script.resets(), (true, false));
}

#[test]
fn tunneling_client_reset_behind_its_end() {
    let mut script = Script::tunneling();
    script.event(Side::Client, CLOSED);
    script.does(Step::Read(Side::Client), Outcome::Eof);
    script.does(Step::ShutdownWrite(Side::Upstream), Outcome::Done);
    script.waits();
    script.event(Side::Client, BROKEN);
    script.does(Step::TakeError(Side::Client), Outcome::Failed(Failure::BrokenPipe));
    script.ends(EndReason::ClientReset);
    assert_eq!(script.resets(), (false, true));
}

#[test]
fn tunneling_upstream_reset_behind_its_end() {
    let mut script = Script::tunneling();
    script.event(Side::Upstream, CLOSED);
    script.does(Step::Read(Side::Upstream), Outcome::Eof);
    script.does(Step::ShutdownWrite(Side::Client), Outcome::Done);
    script.waits();
    script.event(Side::Upstream, BROKEN);
    script.does(Step::TakeError(Side::Upstream), Outcome::Failed(Failure::BrokenPipe));
    script.ends(EndReason::UpstreamReset);
    assert_eq!(
        script.resets(),
        (false, false),
        "the client has its end already: what it has not read yet stays"
    );
}

#[test]
fn tunneling_false_alarm() {
    let mut script = Script::tunneling();
    script.event(Side::Upstream, Ready { error: true, ..NOTHING });
    script.does(Step::TakeError(Side::Upstream), Outcome::Done);
    script.waits();
}

#[test]
fn tunneling_urgent_data() {
    let mut script = Script::tunneling();
    script.event(Side::Client, Ready { urgent: true, ..READABLE });
    script.read(Side::Client, b"up to the mark");
    script.writes(Side::Upstream, b"up to the mark");
    script.read(Side::Client, b"!behind it");
    script.writes(Side::Upstream, b"!behind it");
    script.does(Step::Read(Side::Client), Outcome::Blocked);
    script.waits();
}

#[test]
fn tunneling_half_open_deadline() {
    let mut script = Script::tunneling();
    script.event(Side::Client, CLOSED);
    script.does(Step::Read(Side::Client), Outcome::Eof);
    script.does(Step::ShutdownWrite(Side::Upstream), Outcome::Done);
    script.waits();
    script.expires(Kind::HalfOpen, 60_000);
    script.ends(EndReason::HalfOpenTimeout);
}

#[test]
fn tunneling_drain_then_grace_over() {
    let mut script = Script::tunneling();
    script.session.on_drain(script.now);
    script.waits();
    script.session.on_grace_over(script.now, &script.policy);
    script.ends(EndReason::Grace);
}

#[test]
fn tunneling_holds_nothing_when_idle() {
    let mut script = Script::resolving();
    // What there is until it begins: a name that was completed, and a client that may have left.
    script.session.on_completed("b.a.test");
    script.event(Side::Client, CLOSED);
    script.resolved(&[PUBLIC]);
    script.does(dial(PUBLIC), Outcome::Done);
    assert!(script.session.aside.is_some());
    script.event(Side::Upstream, WRITABLE);
    script.does(Step::ConfirmDial(0), Outcome::Done);
    script.writes(Side::Client, ESTABLISHED);
    assert!(script.session.aside.is_none() && script.session.http.is_none());
    script.session.return_storage(&mut script.pool);
    assert_eq!(script.pool.lent(), 0);
}

#[test]
fn directions_take_turns() {
    let mut script = Script::tunneling();
    script.event(Side::Client, CLOSED);
    script.event(Side::Upstream, CLOSED);
    let mut reads = Vec::new();
    for _ in 0..6 {
        let Step::Read(side) = script.session.step() else { panic!("{:?}", script.session.step()) };
        reads.push(side);
        script.read(side, b"x");
        while let Step::Write(to) = script.session.step() {
            script.writes(to, b"x");
        }
    }
    assert_eq!(reads.iter().filter(|&&side| side == Side::Client).count(), 3, "{reads:?}");
}

// Replying and lingering.

fn refused() -> Script {
    Script::after(b"CONNECT origin.test HTTP/1.1\r\n\r\n")
}

#[test]
fn replying_in_pieces() {
    let mut script = refused();
    script.does(Step::Write(Side::Client), Outcome::Moved(5));
    script.does(Step::Write(Side::Client), Outcome::Blocked);
    script.waits();
    script.event(Side::Client, WRITABLE);
    let rest = script.session.drain_slice(Side::Client).len();
    script.does(Step::Write(Side::Client), Outcome::Moved(rest));
    script.does(Step::ShutdownWrite(Side::Client), Outcome::Done);
    script.records();
    script.event(Side::Client, READABLE);
    script.does(Step::Discard, Outcome::Eof);
    script.ends(EndReason::Refused("http_request_error"));
}

#[test]
fn replying_reset() {
    let mut script = refused();
    script.does(Step::Write(Side::Client), Outcome::Failed(Failure::Reset));
    script.ends(EndReason::Refused("http_request_error"));
}

#[test]
fn replying_deadline() {
    let mut script = refused();
    script.does(Step::Write(Side::Client), Outcome::Blocked);
    script.expires(Kind::Linger, LINGER_MS);
    script.ends(EndReason::Refused("http_request_error"));
}

#[test]
fn lingering_deadline() {
    let mut script = refused();
    script.refuses(400, "http_request_error");
    script.waits();
    script.expires(Kind::Linger, LINGER_MS);
    script.ends(EndReason::Refused("http_request_error"));
}

#[test]
fn lingering_discards_a_bounded_amount() {
    let mut script = refused();
    script.refuses(400, "http_request_error");
    script.event(Side::Client, READABLE);
    let mut discarded_bytes = 0;
    while script.session.step() == Step::Discard {
        script.does(Step::Discard, Outcome::Moved(65_536));
        discarded_bytes += 65_536;
        assert!(discarded_bytes <= LINGER_BYTES);
    }
    assert_eq!(discarded_bytes, LINGER_BYTES);
    script.ends(EndReason::Refused("http_request_error"));
}

#[test]
fn lingering_quit() {
    let mut script = refused();
    script.refuses(400, "http_request_error");
    script.session.on_quit();
    script.ends(EndReason::Refused("http_request_error"));
}

#[test]
fn first_cause_wins() {
    let mut script = Script::resolving();
    script.expires(Kind::Resolve, 5_000);
    script.session.on_grace_over(script.now, &script.policy);
    script.session.on_quit();
    script.ends(EndReason::Refused("dns_timeout"));
}
