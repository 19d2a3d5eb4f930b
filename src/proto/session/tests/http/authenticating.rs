//! Whose request it is, for CONNECT and plain HTTP.

use std::sync::Arc;

use super::*;
use crate::proto::login_queue::CREDENTIALS_MAX_BYTES;
use crate::proto::users::Users;

const ALICE: &str = "Proxy-Authorization: Basic YWxpY2U6c2VjcmV0\r\n";
const BOB: &str = "Proxy-Authorization: Basic Ym9iOnNlY3JldA==\r\n";
const DENIED: &str = "http_request_denied";
const BUSY: &str = "connection_limit_reached";

fn connect(fields: &str) -> Vec<u8> {
    format!("CONNECT origin.test:443 HTTP/1.1\r\nHost: origin.test:443\r\n{fields}\r\n").into_bytes()
}

fn get(fields: &str) -> Vec<u8> {
    format!("GET http://a.test/x HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n").into_bytes()
}

fn some_users() -> Option<Arc<Users>> {
    Some(Arc::new(Users::parse(b"alice:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=\n").unwrap()))
}

fn user(name: &str) -> Login {
    Login::User(name.into())
}

impl Script {
    /// Users are asked for; the client has sent that.
    fn guarded(bytes: &[u8]) -> Script {
        let mut script = Script::new();
        script.policy.users = some_users();
        script.read(Side::Client, bytes);
        script
    }

    /// The credentials of alice are on their way to be verified.
    #[track_caller]
    fn authenticating(bytes: &[u8]) -> Script {
        let mut script = Script::guarded(bytes);
        assert_eq!(script.session.credentials(), Some(&b"Basic YWxpY2U6c2VjcmV0"[..]));
        assert!(!script.session.wants_login());
        script.does(Step::Authenticate, Outcome::Done);
        script.waits();
        assert!(script.session.wants_login());
        script
    }

    /// They are verified at once.
    #[track_caller]
    fn shows(&mut self, credentials: &str, login: Login) {
        assert_eq!(self.session.step(), Step::Authenticate);
        assert_eq!(self.session.credentials(), Some(&credentials.trim_end().as_bytes()[21..]));
        self.logs_in(login);
    }

    fn logs_in(&mut self, login: Login) {
        self.session.on_login(login, self.now, &self.policy);
        assert!(!self.session.wants_login());
        assert_eq!(self.session.credentials(), None);
    }

    /// User and rule of the access line.
    fn judged(&self) -> (Option<String>, Option<String>) {
        let record = self.session.record(self.now);
        (record.user.map(String::from), record.rule.map(String::from))
    }

    /// Told 407, why, and what becomes of the connection; nobody stands in the access line, but what decided does.
    #[track_caller]
    fn asks_for_credentials(&mut self, why: &str, rule: &str, connection: ConnectionHeader) {
        let answer = self.tells(407, DENIED, connection);
        assert!(answer.contains("\r\nProxy-Authenticate: Basic realm=\"adit\"\r\n"), "{answer}");
        assert!(answer.contains(why), "{answer}");
        assert!(!answer.contains("YWxp") && !answer.contains("secret"), "{answer}");
        assert_eq!(self.judged(), (None, Some(rule.into())));
    }

    /// A whole exchange of plain HTTP over a connection that stands or that is dialed.
    #[track_caller]
    fn exchanges(&mut self) {
        self.writes(Side::Upstream, b"GET /x HTTP/1.1\r\nHost: a.test\r\nVia: 1.1 adit\r\n\r\n");
        self.waits();
        self.answers(OK, TOLD);
        self.parks();
    }
}

// Nobody is asked.

#[test]
fn without_users_nobody_is_asked_and_credentials_go_nowhere() {
    let mut script = Script::after(&get(ALICE));
    script.finds_nothing_idle();
    script.connects();
    script.exchanges();
    assert_eq!(script.judged().0, None);
    script.idles();
    script.comes(&connect(ALICE));
    script.does(Step::Resolve, Outcome::Done);
}

// Missing, and wrong at first sight.

#[test]
fn connect_without_credentials() {
    // Nothing behind it is processed.
    let mut script = Script::guarded(&[&connect("")[..], &connect(ALICE), &get(ALICE)].concat());
    script.asks_for_credentials("no credentials were sent", "users", CLOSES);
    script.lingers(EndReason::Refused(DENIED), &[DENIED]);
}

#[test]
fn two_fields_or_an_endless_one_are_wrong() {
    let long = format!("Proxy-Authorization: Basic {}\r\n", "A".repeat(CREDENTIALS_MAX_BYTES));
    for fields in [[ALICE, ALICE].concat(), [ALICE, BOB].concat(), long] {
        for head in [connect(&fields), get(&fields)] {
            let is_connect = head.starts_with(b"CONNECT");
            let connection = if is_connect { CLOSES } else { KEEPS };
            let mut script = Script::guarded(&head);
            script.asks_for_credentials("credentials are wrong", "users:wrong", connection);
        }
    }
}

#[test]
fn get_without_credentials_and_then_with() {
    let mut script = Script::guarded(&get(""));
    script.asks_for_credentials("no credentials were sent", "users", KEEPS);
    script.idles();
    script.comes(&get(ALICE));
    script.shows(ALICE, user("alice"));
    script.finds_nothing_idle();
    script.connects();
    script.exchanges();
    assert_eq!(script.judged(), (Some("alice".into()), Some("default".into())));
    script.idles();
    script.leaves(&[DENIED, "done"]);
}

#[test]
fn a_body_behind_missing_credentials_is_nobodys_request() {
    let head = "POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\n";
    // All of it has come: the connection goes on.
    let mut script =
        Script::guarded(&[format!("{head}Content-Length: 5\r\n\r\nhello").as_bytes(), &get(ALICE)].concat());
    script.asks_for_credentials("no credentials", "users", KEEPS);
    script.records();
    script.shows(ALICE, user("alice"));
    script.finds_nothing_idle();
    // Part of it has not.
    let mut script = Script::guarded(&[format!("{head}Content-Length: 6\r\n\r\nhello").as_bytes()].concat());
    script.asks_for_credentials("no credentials", "users", CLOSES);
    script.lingers(EndReason::Refused(DENIED), &[DENIED]);
}

#[test]
fn what_the_proxy_answers_itself_is_for_users_only() {
    for head in [
        "OPTIONS * HTTP/1.1\r\nHost: a.test\r\nMax-Forwards: 0\r\n",
        "OPTIONS http://a.test/ HTTP/1.1\r\nHost: a.test\r\nMax-Forwards: 0\r\n",
        "TRACE http://a.test/ HTTP/1.1\r\nHost: a.test\r\nMax-Forwards: 0\r\n",
    ] {
        let mut script = Script::guarded(format!("{head}\r\n").as_bytes());
        script.asks_for_credentials("no credentials", "users", KEEPS);
        script.idles();
        script.comes(format!("{head}{ALICE}\r\n").as_bytes());
        script.does(Step::Authenticate, Outcome::Done);
        script.waits();
        assert_eq!(script.pool.lent(), 0, "nothing is kept but the answer");
        script.logs_in(user("alice"));
        let answer = script.session.drain_slice(Side::Client);
        assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"), "{}", answer.escape_ascii());
        assert!(!answer.windows(4).any(|part| part == b"YWxp"), "{}", answer.escape_ascii());
        let length = answer.len();
        script.does(Step::Write(Side::Client), Outcome::Moved(length));
        assert_eq!(script.judged(), (Some("alice".into()), None));
        script.idles();
        script.leaves(&[DENIED, "done"]);
    }
}

#[test]
fn a_loop_is_told_to_users_only() {
    let mut script = Script::guarded(&get("Via: 1.1 adit\r\n"));
    script.asks_for_credentials("no credentials", "users", KEEPS);
    script.idles();
    script.comes(&get(&format!("Via: 1.1 adit\r\n{ALICE}")));
    script.shows(ALICE, user("alice"));
    script.tells(502, "proxy_loop_detected", KEEPS);
    assert_eq!(script.judged(), (Some("alice".into()), None));
    script.idles();
    script.leaves(&[DENIED, "proxy_loop_detected"]);
}

#[test]
fn rules_are_asked_behind_credentials_and_bad_requests_before() {
    let denied =
        |fields: &str| format!("CONNECT a.denied.test:443 HTTP/1.1\r\nHost: a\r\n{fields}\r\n").into_bytes();
    let mut script = Script::guarded(&denied(""));
    script.asks_for_credentials("no credentials", "users", CLOSES);
    let mut script = Script::guarded(&denied(ALICE));
    script.shows(ALICE, user("alice"));
    script.ends_refused(403, DENIED);
    Script::guarded(b"CONNECT origin.test HTTP/1.1\r\n\r\n").ends_refused(400, "http_request_error");
}

// Known at once, or asked about.

#[test]
fn connect_known() {
    let mut script = Script::guarded(&connect(ALICE));
    script.shows(ALICE, user("alice"));
    script.does(Step::Resolve, Outcome::Done);
    assert_eq!(script.judged(), (Some("alice".into()), Some("default".into())));
    assert_eq!(script.session.deadline(), Some((Kind::Resolve, Tick(5_000))));
}

#[test]
fn authenticating_user() {
    let mut script = Script::authenticating(&connect(ALICE));
    assert_eq!(script.pool.lent(), 0, "the head is not kept");
    script.now = Tick(300);
    script.logs_in(user("alice"));
    script.does(Step::Resolve, Outcome::Done);
    script.now = Tick(310);
    script.resolved(&[PUBLIC]);
    assert_eq!(script.session.record(script.now).dns_ms, Some(10), "resolving alone");
    script.does(dial(PUBLIC), Outcome::Done);
    script.event(Side::Upstream, WRITABLE);
    script.does(Step::ConfirmDial(0), Outcome::Done);
    script.does(Step::Write(Side::Client), Outcome::Moved(ESTABLISHED.len()));
    script.waits();
    assert_eq!(script.judged().0, Some("alice".into()));
}

#[test]
fn authenticating_wrong() {
    let mut script = Script::authenticating(&[&connect(ALICE)[..], b"\x16\x03\x01"].concat());
    script.logs_in(Login::Wrong);
    script.asks_for_credentials("credentials are wrong", "users:wrong", CLOSES);
    script.lingers(EndReason::Refused(DENIED), &[DENIED]);
    let mut script = Script::authenticating(&get(ALICE));
    script.logs_in(Login::Wrong);
    script.asks_for_credentials("credentials are wrong", "users:wrong", KEEPS);
    script.idles();
    script.leaves(&[DENIED]);
}

#[test]
fn authenticating_too_many() {
    for (login, status) in [(Login::Busy, 503), (Login::ClientBusy, 429)] {
        let mut script = Script::authenticating(&connect(ALICE));
        script.logs_in(login);
        let answer = script.tells(status, BUSY, CLOSES);
        assert!(answer.contains("\r\nRetry-After: "), "{answer}");
        script.lingers(EndReason::Refused(BUSY), &[BUSY]);
    }
}

#[test]
fn authenticating_deadline() {
    let mut script = Script::authenticating(&connect(ALICE));
    script.expires(Kind::Login, LOGIN_TIMEOUT_MS);
    assert!(!script.session.wants_login());
    script.session.on_login(user("alice"), script.now, &script.policy);
    script.tells(503, BUSY, CLOSES);
    assert_eq!(script.judged().0, None, "an answer that comes too late is none");
    script.lingers(EndReason::Refused(BUSY), &[BUSY]);
}

#[test]
fn authenticating_client_reset() {
    let mut script = Script::authenticating(&connect(ALICE));
    script.event(Side::Client, BROKEN);
    script.does(Step::TakeError(Side::Client), Outcome::Failed(Failure::Reset));
    assert!(!script.session.wants_login());
    script.ends(EndReason::ClientReset);
}

#[test]
fn authenticating_false_alarm() {
    let mut script = Script::authenticating(&connect(ALICE));
    script.event(Side::Client, Ready { error: true, ..NOTHING });
    script.does(Step::TakeError(Side::Client), Outcome::Done);
    script.waits();
    script.logs_in(user("alice"));
    script.does(Step::Resolve, Outcome::Done);
}

#[test]
fn authenticating_client_end() {
    let mut script = Script::authenticating(&connect(ALICE));
    script.now = Tick(100);
    script.event(Side::Client, CLOSED);
    script.waits();
    script.expires(Kind::ClientLeft, CLIENT_LEFT_MS);
    assert!(!script.session.wants_login());
    script.ends(EndReason::ClientLeft);
    // Its grace goes on while its name is resolved.
    let mut script = Script::authenticating(&connect(ALICE));
    script.event(Side::Client, CLOSED);
    script.now = Tick(1_500);
    script.logs_in(user("alice"));
    script.does(Step::Resolve, Outcome::Done);
    script.expires(Kind::ClientLeft, 500);
    script.ends(EndReason::ClientLeft);
}

#[test]
fn authenticating_drain_and_grace_over() {
    let mut script = Script::authenticating(&connect(ALICE));
    script.session.on_drain(script.now);
    script.waits();
    script.session.on_grace_over(script.now, &script.policy);
    assert!(!script.session.wants_login());
    script.ends_refused(503, "proxy_internal_response");
}

#[test]
fn authenticating_quit() {
    let mut script = Script::authenticating(&connect(ALICE));
    script.session.on_quit();
    script.ends(EndReason::Grace);
}

#[test]
fn authenticating_pipelined_bytes_wait() {
    let mut script = Script::authenticating(&[&connect(ALICE)[..], b"\x16\x03\x01"].concat());
    assert_eq!(script.pool.lent(), 1);
    script.event(Side::Client, READABLE);
    script.waits();
    script.logs_in(user("alice"));
    script.does(Step::Resolve, Outcome::Done);
    assert_eq!(script.pool.lent(), 1);
}

/// The answer would be that of another users file.
#[test]
fn authenticating_another_policy() {
    let mut script = Script::authenticating(&connect(ALICE));
    script.policy.users = some_users();
    script.session.on_policy(script.now, &script.policy);
    assert!(!script.session.wants_login() && !script.session.may_wait());
    script.does(Step::Authenticate, Outcome::Done);
    script.waits();
    script.policy.users = None;
    script.session.on_policy(script.now, &script.policy);
    script.shows(ALICE, Login::Needless);
    script.does(Step::Resolve, Outcome::Done);
    assert_eq!(script.judged().0, None);
}

#[test]
fn an_answer_that_nobody_asked_for_does_nothing() {
    for mut script in [Script::new(), Script::dialing(), Script::tunneling()] {
        let before = script.session.step();
        script.session.on_login(user("mallory"), script.now, &script.policy);
        assert_eq!((script.session.step(), script.judged().0), (before, None));
    }
}

// One request behind another.

#[test]
fn each_request_is_authenticated_and_nothing_is_inherited() {
    let mut script = Script::guarded(&get(ALICE));
    script.shows(ALICE, user("alice"));
    script.finds_nothing_idle();
    script.connects();
    script.exchanges();
    script.idles();
    for _ in 0..2 {
        script.comes(&get(ALICE));
        script.shows(ALICE, user("alice"));
        script.reuses();
        script.exchanges();
        assert_eq!(script.judged(), (Some("alice".into()), Some("default".into())));
        script.idles();
    }
    let origin = script.parked.pop().unwrap();
    // What alice has proven holds for her.
    script.comes(&get(ALICE));
    script.shows(ALICE, user("alice"));
    assert!(script.session.is_proven(&origin));
    script.takes(origin);
    script.exchanges();
    script.idles();
    // And for nobody else.
    let origin = script.parked.pop().unwrap();
    script.comes(&get(BOB));
    assert_eq!(script.judged().0, None, "nobody, until it is known");
    script.shows(BOB, user("bob"));
    assert!(!script.session.is_proven(&origin));
    assert_eq!(script.judged().0, Some("bob".into()));
    script.takes(origin);
    script.exchanges();
    script.idles();
    // Nor is anybody remembered by the connection.
    script.comes(&get(""));
    script.asks_for_credentials("no credentials", "users", KEEPS);
    script.idles();
    script.comes(b"\x16\x03\x01");
    script.tells(400, "http_request_error", CLOSES);
    assert_eq!(script.judged(), (None, None));
}

#[test]
fn rules_are_asked_about_each_user_of_a_connection() {
    let mut script = Script::new();
    script.policy = policy_with(&["* user bob"], &[]);
    script.policy.users = some_users();
    script.read(Side::Client, &get(ALICE));
    script.shows(ALICE, user("alice"));
    script.finds_nothing_idle();
    script.connects();
    script.exchanges();
    script.idles();
    script.comes(&get(ALICE));
    script.shows(ALICE, user("alice"));
    script.reuses();
    script.exchanges();
    script.idles();
    // The same destination, over the same connection.
    script.comes(&get(BOB));
    script.shows(BOB, user("bob"));
    script.tells(403, DENIED, KEEPS);
    assert_eq!(script.judged(), (Some("bob".into()), Some("deny:*_user_bob".into())));
    script.idles();
    script.comes(&get(ALICE));
    script.shows(ALICE, user("alice"));
    script.reuses();
}

#[test]
fn a_tunnel_behind_plain_http_has_its_own_user() {
    let mut script = Script::guarded(&get(ALICE));
    script.shows(ALICE, user("alice"));
    script.finds_nothing_idle();
    script.connects();
    script.exchanges();
    script.idles();
    script.comes(&connect(BOB));
    script.shows(BOB, user("bob"));
    script.does(Step::Resolve, Outcome::Done);
    assert_eq!(script.judged().0, Some("bob".into()));
}

#[test]
fn credentials_are_in_no_debug_output() {
    for head in [connect(ALICE), get(ALICE)] {
        let script = Script::authenticating(&head);
        let text = format!("{:?}", script.session);
        assert!(!text.contains("YWxp") && !text.contains("89, 87, 120, 112"), "{text}");
    }
}
