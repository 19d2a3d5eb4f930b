//! Plain HTTP, in the order of an exchange. Here: what the scripts have in common.

mod authenticating;
mod endings;
mod exchanges;
mod pieces;
mod requests;
mod responses;
mod switching;
mod upstreams;

use super::*;

const GET: &[u8] = b"GET http://a.test/x?secret HTTP/1.1\r\nHost: a.test\r\nX-Odd:  a b \r\n\r\n";
/// What of [`GET`] goes to the origin.
const SENT: &[u8] = b"GET /x?secret HTTP/1.1\r\nHost: a.test\r\nX-Odd: a b\r\nVia: 1.1 adit\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nDate: now\r\n\r\nhello";
/// What of [`OK`] goes to the client.
const TOLD: &[u8] = b"HTTP/1.1 200 OK\r\nDate: now\r\nContent-Length: 5\r\nVia: 1.1 adit\r\n\r\nhello";

const KEEPS: ConnectionHeader = ConnectionHeader::KeepAlive;
const CLOSES: ConnectionHeader = ConnectionHeader::Close;

impl Script {
    /// That has come, and no connection to its origin was idle: a fresh one stands.
    #[track_caller]
    fn forwarding(request: &[u8]) -> Script {
        let mut script = Script::after(request);
        script.finds_nothing_idle();
        script.connects();
        script
    }

    /// [`GET`] has gone to the origin.
    #[track_caller]
    fn asked() -> Script {
        let mut script = Script::forwarding(GET);
        script.writes(Side::Upstream, SENT);
        script.waits();
        script
    }

    /// One whole exchange is over, and both connections are idle.
    #[track_caller]
    fn kept() -> Script {
        let mut script = Script::asked();
        script.answers(OK, TOLD);
        script.parks();
        script.idles();
        script
    }

    /// As [`Script::kept`], and that request goes over the idle connection.
    #[track_caller]
    fn reusing(request: &[u8]) -> Script {
        let mut script = Script::kept();
        script.comes(request);
        script.reuses();
        script
    }

    /// The client has sent that.
    #[track_caller]
    fn comes(&mut self, bytes: &[u8]) {
        self.event(Side::Client, READABLE);
        self.read(Side::Client, bytes);
    }

    #[track_caller]
    fn finds_nothing_idle(&mut self) {
        assert_eq!(self.session.step(), Step::TakeIdle);
        self.session.on_idle(None, self.now, &self.policy);
    }

    /// The connection that was kept last leads to the target, and becomes the upstream.
    #[track_caller]
    fn reuses(&mut self) {
        let origin = self.parked.pop().unwrap();
        self.takes(origin);
    }

    #[track_caller]
    fn takes(&mut self, origin: Box<Origin>) {
        assert_eq!(self.session.step(), Step::TakeIdle);
        assert_eq!(self.session.target(), Some(&origin.target));
        assert!(self.session.may_reuse(&origin, &self.policy));
        self.session.on_idle(Some(origin), self.now, &self.policy);
        self.upstream = Upstream::Open;
    }

    /// The target's name is resolved, and dialed on port 80.
    #[track_caller]
    fn connects(&mut self) {
        self.does(Step::Resolve, Outcome::Done);
        self.resolved(&[PUBLIC]);
        self.does(dial_http(PUBLIC), Outcome::Done);
        self.stands();
    }

    #[track_caller]
    fn stands(&mut self) {
        self.event(Side::Upstream, WRITABLE);
        self.does(Step::ConfirmDial(0), Outcome::Done);
    }

    /// The upstream has sent `bytes`, of which `told` goes to the client at once.
    #[track_caller]
    fn answers(&mut self, bytes: &[u8], told: &[u8]) {
        self.event(Side::Upstream, READABLE);
        self.read(Side::Upstream, bytes);
        self.writes(Side::Client, told);
    }

    /// The upstream is kept for the next request.
    #[track_caller]
    fn parks(&mut self) {
        assert_eq!(self.session.step(), Step::Park);
        self.parked.push(self.session.take_origin().unwrap());
        self.does(Step::Park, Outcome::Done);
    }

    /// The exchange is over and logged; the client's connection waits for another one, and nothing else is left.
    #[track_caller]
    fn idles(&mut self) {
        self.records();
        self.waits();
        assert_eq!(self.session.deadline(), Some((Kind::KeepAlive, self.now.after(60_000))));
        assert_eq!(self.pool.lent(), 0, "storage was kept");
        assert_eq!(self.upstream, Upstream::None);
        assert!(!self.session.wants_lookup() && !self.session.is_starved());
    }

    /// The client has what it wanted and leaves.
    #[track_caller]
    fn leaves(&mut self, lines: &[&str]) {
        self.event(Side::Client, CLOSED);
        self.does(Step::Read(Side::Client), Outcome::Eof);
        self.ends_after(EndReason::Unused, lines);
        assert_eq!(self.resets(), (false, false));
    }

    /// The proxy answers itself, with that status and error type, and says what it then does. The access line says the same.
    #[track_caller]
    fn tells(&mut self, status: u16, error_type: &'static str, connection: ConnectionHeader) -> String {
        assert_eq!(self.session.step(), Step::Write(Side::Client));
        let told_before = self.session.record(self.now).down_bytes;
        let answer = String::from_utf8(self.session.drain_slice(Side::Client).to_vec()).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(answer.contains(&format!("error={error_type};")), "{answer}");
        let word = if connection == KEEPS { "keep-alive" } else { "close" };
        assert!(answer.contains(&format!("\r\nConnection: {word}\r\n")), "{answer}");
        self.does(Step::Write(Side::Client), Outcome::Moved(answer.len()));
        if connection == CLOSES {
            self.does(Step::ShutdownWrite(Side::Client), Outcome::Done);
        }
        let record = self.session.record(self.now);
        assert_eq!((record.status, record.end), (Some(status), error_type));
        assert_eq!(record.down_bytes - told_before, answer.len() as u64);
        assert_eq!(self.session.step(), Step::Record);
        answer
    }

    /// The answer is out and nothing more is taken; the client closes.
    #[track_caller]
    fn lingers(&mut self, reason: EndReason, lines: &[&str]) {
        if self.session.step() == Step::ShutdownWrite(Side::Client) {
            self.does(Step::ShutdownWrite(Side::Client), Outcome::Done);
        }
        self.records();
        self.event(Side::Client, CLOSED);
        self.does(Step::Discard, Outcome::Eof);
        self.ends_after(reason, lines);
        assert_eq!(self.resets(), (false, false), "a reset would erase the answer");
    }

    /// Refused with an answer that closes.
    #[track_caller]
    fn closes_telling(&mut self, status: u16, error_type: &'static str, lines: &[&str]) {
        self.tells(status, error_type, CLOSES);
        self.lingers(EndReason::Refused(error_type), lines);
    }

    fn asked_for(&self) -> String {
        self.session.record(self.now).request.to_string()
    }
}

fn dial_http(address: &str) -> Step {
    Step::Dial(0, SocketAddr::new(address.parse().unwrap(), 80))
}

fn post(fields: &str, body: &str) -> Vec<u8> {
    format!("POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n{body}").into_bytes()
}

/// What a [`post`] becomes.
fn posted(fields: &str, body: &str) -> Vec<u8> {
    format!("POST / HTTP/1.1\r\nHost: a.test\r\n{fields}Via: 1.1 adit\r\n\r\n{body}").into_bytes()
}

fn policy_with(deny: &[&str], allow: &[&str]) -> Policy {
    let parse = |texts: &[&str]| texts.iter().map(|text| Rule::parse(text).unwrap()).collect();
    let rules = RuleSet {
        clients: vec![],
        deny: parse(deny),
        allow: parse(allow),
        deny_lists: vec![],
        allow_lists: vec![],
        connect_ports: Ports::parse("443").unwrap(),
        http_ports: Ports::parse("80,1024-65535").unwrap(),
        default: DefaultAction::Allow,
    };
    Policy { rules: Rules::new(rules, &[]), ..Script::new().policy }
}

#[test]
#[cfg(target_pointer_width = "64")]
fn a_tunnel_does_not_pay_for_plain_http() {
    assert!(size_of::<super::super::http::Http>() <= 280, "{} bytes", size_of::<super::super::http::Http>());
    assert!(Script::tunneling().session.http.is_none());
}
