//! Which upstream a request goes to: an idle one, a fresh one, once more a fresh one.

use super::*;

#[test]
fn reusing_nothing_idle() {
    let mut script = Script::after(GET);
    script.finds_nothing_idle();
    assert_eq!(script.session.target().unwrap().to_string(), "a.test:80");
    script.does(Step::Resolve, Outcome::Done);
    script.waits();
    assert_eq!(script.session.deadline(), Some((Kind::Resolve, Tick(5_000))));
    assert_eq!(script.pool.lent(), 0, "a short head does not wait in a ring");
    script.now = Tick(7);
    script.resolved(&[PUBLIC]);
    script.does(dial_http(PUBLIC), Outcome::Done);
    script.waits();
    assert_eq!(script.session.deadline(), Some((Kind::Dial, Tick(10_007))));
    script.now = Tick(18);
    script.stands();
    script.writes(Side::Upstream, SENT);
    script.waits();
    assert_eq!(script.session.deadline(), Some((Kind::Response, Tick(60_018))));
    assert_eq!(script.pool.lent(), 0, "nor does one that is sent");
    let record = script.session.record(script.now);
    assert_eq!((record.dns_ms, record.dial_ms, record.status), (Some(7), Some(11), None));
    assert_eq!((record.via, record.rule), (Some("203.0.114.5:80".parse().unwrap()), Some("default")));
    assert_eq!((record.up_bytes, record.down_bytes), (SENT.len() as u64, 0));
    assert_eq!(script.asked_for(), "GET http://a.test/x");
    script.answers(OK, TOLD);
    script.parks();
    script.idles();
    script.leaves(&["done"]);
}

#[test]
fn reusing_an_idle_connection() {
    let mut script = Script::reusing(GET);
    script.writes(Side::Upstream, SENT);
    script.waits();
    script.answers(OK, TOLD);
    let record = script.session.record(script.now);
    assert_eq!((record.dns_ms, record.dial_ms, record.status), (None, None, Some(200)));
    assert_eq!((record.via, record.rule), (Some("203.0.114.5:80".parse().unwrap()), Some("default")));
    script.parks();
    script.idles();
    script.leaves(&["done", "done"]);
}

#[test]
fn reusing_an_address() {
    let mut script = Script::after(b"GET http://203.0.114.5:8080 HTTP/1.1\r\nHost: x\r\n\r\n");
    script.finds_nothing_idle();
    script.does(Step::Dial(0, "203.0.114.5:8080".parse().unwrap()), Outcome::Done);
    script.stands();
    script.writes(Side::Upstream, b"GET / HTTP/1.1\r\nHost: 203.0.114.5:8080\r\nVia: 1.1 adit\r\n\r\n");
    script.answers(OK, TOLD);
    assert_eq!(script.session.record(script.now).dns_ms, None);
    script.parks();
    script.idles();
    script.leaves(&["done"]);
}

/// Dialed for another client, whose name the search list had completed.
fn of_another(address: &str) -> Box<Origin> {
    Box::new(Origin {
        target: Target::from_authority(b"a.test:80").unwrap(),
        completed: Some("a.test.corp.test".into()),
        address: SocketAddr::new(address.parse().unwrap(), 80),
    })
}

#[test]
fn reusing_what_was_dialed_for_another_client() {
    let mut script = Script::new();
    script.policy = policy_with(&[], &["10.1.0.0/16:80 from 10.0.0.0/24"]);
    script.read(Side::Client, GET);
    script.takes(of_another("10.1.2.3"));
    script.writes(Side::Upstream, SENT);
    script.answers(OK, TOLD);
    let record = script.session.record(script.now);
    assert_eq!(
        record.rule,
        Some("allow:10.1.0.0/16:80_from_10.0.0.0/24"),
        "the rule that opens this address"
    );
    assert_eq!(record.via, Some("10.1.2.3:80".parse().unwrap()));
    script.parks();
    script.idles();
    // What was allowed once is not asked for again, but said again.
    script.comes(GET);
    script.reuses();
    script.writes(Side::Upstream, SENT);
    script.answers(OK, TOLD);
    let record = script.session.record(script.now);
    assert_eq!(record.rule, Some("allow:10.1.0.0/16:80_from_10.0.0.0/24"));
    script.parks();
    script.idles();
    script.leaves(&["done", "done"]);
}

#[test]
fn reusing_what_this_client_may_not_reach() {
    for (deny, address) in [
        (&["203.0.114.0/24 from 10.0.0.0/24"][..], PUBLIC),
        (&[".corp.test from 10.0.0.0/24"], PUBLIC),
        (&["a.test.corp.test:80"], PUBLIC),
        (&[], "10.1.2.3"),
        (&[], "127.0.0.1"),
    ] {
        let mut script = Script::new();
        script.policy = policy_with(deny, &[]);
        script.read(Side::Client, GET);
        assert_eq!(script.session.step(), Step::TakeIdle);
        assert!(!script.session.may_reuse(&of_another(address), &script.policy), "{deny:?} {address}");
        script.finds_nothing_idle();
        script.does(Step::Resolve, Outcome::Done);
        script.session.on_completed("A.test.Corp.test");
        script.resolved(&[address]);
        let record = script.session.record(script.now);
        assert!(record.rule.unwrap().starts_with(if deny.is_empty() { "guard" } else { "deny:" }));
        let error_type = record.end;
        assert!(["http_request_denied", "destination_ip_prohibited"].contains(&error_type));
        let answer = script.tells(403, error_type, KEEPS);
        assert!(answer.contains("a.test:80: "), "{answer}");
        script.idles();
        script.leaves(&[error_type]);
    }
}

#[test]
fn reusing_another_address_of_the_same_name_is_judged_anew() {
    let mut script = Script::new();
    script.policy = policy_with(&["203.0.114.6 from 10.0.0.7"], &[]);
    script.read(Side::Client, GET);
    script.takes(of_another(PUBLIC));
    script.writes(Side::Upstream, SENT);
    script.answers(OK, TOLD);
    script.parks();
    script.idles();
    script.comes(GET);
    assert_eq!(script.session.step(), Step::TakeIdle);
    assert!(!script.session.may_reuse(&of_another(MORE_PUBLIC), &script.policy));
    script.reuses();
    script.writes(Side::Upstream, SENT);
    script.answers(OK, TOLD);
    script.parks();
    script.idles();
    script.leaves(&["done", "done"]);
}

#[test]
fn reusing_behind_a_refusal_is_judged_anew() {
    let mut script = Script::kept();
    script.comes(GET);
    script.finds_nothing_idle();
    script.does(Step::Resolve, Outcome::Done);
    script.resolved(&["127.0.0.1"]);
    assert_eq!(script.session.record(script.now).rule, Some("guard"));
    script.tells(403, "destination_ip_prohibited", KEEPS);
    script.idles();
    script.comes(GET);
    script.reuses();
    assert_eq!(script.session.record(script.now).rule, Some("default"));
    script.writes(Side::Upstream, SENT);
    script.answers(OK, TOLD);
    script.parks();
    script.idles();
    script.leaves(&["done", "destination_ip_prohibited", "done"]);
}

#[test]
fn reusing_what_was_won_at_another_place() {
    let mut script = Script::after(GET);
    script.finds_nothing_idle();
    script.does(Step::Resolve, Outcome::Done);
    script.resolved(&[PUBLIC, MORE_PUBLIC]);
    script.does(dial_http(PUBLIC), Outcome::Done);
    script.expires(Kind::Attempt, ATTEMPT_DELAY_MS);
    script.does(Step::Dial(1, "203.0.114.6:80".parse().unwrap()), Outcome::Done);
    script.session.on_upstream_ready(1, WRITABLE);
    script.does(Step::ConfirmDial(1), Outcome::Done);
    script.writes(Side::Upstream, SENT);
    script.waits();
    script.session.on_upstream_ready(1, READABLE);
    script.read(Side::Upstream, OK);
    script.writes(Side::Client, TOLD);
    script.parks();
    script.idles();
    script.comes(GET);
    script.reuses();
    script.writes(Side::Upstream, SENT);
    script.answers(OK, TOLD);
    assert_eq!(script.session.record(script.now).via, Some("203.0.114.6:80".parse().unwrap()));
    script.parks();
    script.idles();
    script.leaves(&["done", "done"]);
}

/// What a lookup of another exchange still had to say is not said to this one.
#[test]
fn dialing_addresses_that_nobody_asked_for() {
    let mut script = Script::new();
    script.policy = policy_with(&[], &[".corp.test"]);
    script.read(Side::Client, b"GET http://169.254.169.254/ HTTP/1.1\r\nHost: x\r\n\r\n");
    script.session.on_completed("a.corp.test");
    script.finds_nothing_idle();
    script.tells(403, "destination_ip_prohibited", KEEPS);
    script.idles();
    script.comes(b"GET http://203.0.114.5/ HTTP/1.1\r\nHost: x\r\n\r\n");
    script.finds_nothing_idle();
    script.session.on_completed("a.corp.test");
    script.resolved(&[MORE_PUBLIC, "169.254.169.254"]);
    script.does(dial_http(PUBLIC), Outcome::Failed(Failure::Refused));
    script.tells(502, "connection_refused", KEEPS);
    script.idles();
    script.leaves(&["destination_ip_prohibited", "connection_refused"]);
}

#[test]
fn reusing_grace_over() {
    let mut script = Script::after(GET);
    assert_eq!(script.session.step(), Step::TakeIdle);
    script.session.on_drain(script.now);
    script.session.on_grace_over(script.now, &script.policy);
    script.closes_telling(503, "proxy_internal_response", &["proxy_internal_response"]);
}

#[test]
fn reusing_client_end_known_with_the_head() {
    let mut script = Script::new();
    script.event(Side::Client, CLOSED);
    script.read(Side::Client, GET);
    script.finds_nothing_idle();
    script.does(Step::Resolve, Outcome::Done);
    script.waits();
    script.expires(Kind::ClientLeft, CLIENT_LEFT_MS);
    script.ends(EndReason::ClientLeft);
}

#[test]
fn resolving_http_failure() {
    let mut script = Script::after(GET);
    script.finds_nothing_idle();
    script.does(Step::Resolve, Outcome::Done);
    script.session.on_unresolved(&ResolveError::NotFound { rcode: 3 }, script.now, &script.policy);
    script.tells(502, "dns_error", KEEPS);
    script.idles();
    script.leaves(&["dns_error"]);
}

#[test]
fn dialing_http_failure() {
    let mut script = Script::after(GET);
    script.finds_nothing_idle();
    script.does(Step::Resolve, Outcome::Done);
    script.resolved(&[PUBLIC]);
    script.does(dial_http(PUBLIC), Outcome::Failed(Failure::Refused));
    script.tells(502, "connection_refused", KEEPS);
    script.idles();
    // The next request is none the worse for it.
    script.comes(GET);
    script.finds_nothing_idle();
    script.connects();
    script.writes(Side::Upstream, SENT);
    script.answers(OK, TOLD);
    script.parks();
    script.idles();
    script.leaves(&["connection_refused", "done"]);
}

#[test]
fn dialing_http_deadline() {
    let mut script = Script::after(GET);
    script.finds_nothing_idle();
    script.does(Step::Resolve, Outcome::Done);
    script.resolved(&[PUBLIC]);
    script.does(dial_http(PUBLIC), Outcome::Done);
    script.expires(Kind::Dial, 10_000);
    script.tells(504, "connection_timeout", KEEPS);
    script.idles();
    script.leaves(&["connection_timeout"]);
}

#[test]
fn dialing_http_client_reset() {
    let mut script = Script::after(GET);
    script.finds_nothing_idle();
    script.does(Step::Resolve, Outcome::Done);
    script.resolved(&[PUBLIC]);
    script.does(dial_http(PUBLIC), Outcome::Done);
    script.event(Side::Client, BROKEN);
    script.does(Step::TakeError(Side::Client), Outcome::Failed(Failure::Reset));
    script.ends(EndReason::ClientReset);
}

// A connection that was used before dies.

/// The ways in which a connection may turn out to be dead, each up to its end of file.
const DEATHS: [fn(&mut Script); 4] = [
    |script| {
        script.writes(Side::Upstream, SENT);
        script.waits();
        script.event(Side::Upstream, CLOSED);
        script.does(Step::Read(Side::Upstream), Outcome::Eof);
    },
    |script| {
        script.writes(Side::Upstream, SENT);
        script.event(Side::Upstream, BROKEN);
        script.does(Step::Read(Side::Upstream), Outcome::Failed(Failure::Reset));
    },
    |script| {
        script.does(Step::Write(Side::Upstream), Outcome::Failed(Failure::BrokenPipe));
        script.does(Step::Read(Side::Upstream), Outcome::Eof);
    },
    |script| {
        script.does(Step::Write(Side::Upstream), Outcome::Moved(9));
        script.does(Step::Write(Side::Upstream), Outcome::Blocked);
        script.waits();
        script.event(Side::Upstream, Ready { error: true, ..NOTHING });
        script.does(Step::TakeError(Side::Upstream), Outcome::Failed(Failure::Reset));
        script.does(Step::Read(Side::Upstream), Outcome::Eof);
    },
];

#[test]
fn forwarding_reused_connection_dies_before_a_byte() {
    for death in DEATHS {
        let mut script = Script::reusing(GET);
        death(&mut script);
        assert!(!script.session.wants_upstream(), "the dead one is given up");
        script.connects();
        script.writes(Side::Upstream, SENT);
        script.waits();
        script.answers(OK, TOLD);
        assert_eq!(script.session.record(script.now).status, Some(200));
        script.parks();
        script.idles();
        script.leaves(&["done", "done"]);
    }
}

#[test]
fn forwarding_second_death() {
    for death in DEATHS {
        let mut script = Script::reusing(GET);
        death(&mut script);
        script.connects();
        death(&mut script);
        script.tells(502, "http_response_incomplete", KEEPS);
        script.idles();
        script.leaves(&["done", "http_response_incomplete"]);
    }
}

#[test]
fn forwarding_fresh_connection_dies_before_a_byte() {
    for death in DEATHS {
        let mut script = Script::forwarding(GET);
        death(&mut script);
        script.tells(502, "http_response_incomplete", KEEPS);
        script.idles();
        script.leaves(&["http_response_incomplete"]);
    }
}

#[test]
fn forwarding_reused_connection_to_an_address_dies() {
    let get = b"GET http://203.0.114.5/ HTTP/1.1\r\nHost: x\r\n\r\n";
    let sent = b"GET / HTTP/1.1\r\nHost: 203.0.114.5\r\nVia: 1.1 adit\r\n\r\n";
    let mut script = Script::after(get);
    script.takes(Box::new(Origin {
        target: Target::from_authority(b"203.0.114.5:80").unwrap(),
        completed: None,
        address: "203.0.114.5:80".parse().unwrap(),
    }));
    script.writes(Side::Upstream, sent);
    script.event(Side::Upstream, CLOSED);
    script.does(Step::Read(Side::Upstream), Outcome::Eof);
    script.does(dial_http(PUBLIC), Outcome::Done);
    // What the dead one is still said to be is not news of the living one.
    script.event(Side::Upstream, BROKEN);
    script.does(Step::ConfirmDial(0), Outcome::Blocked);
    script.waits();
    script.stands();
    script.writes(Side::Upstream, sent);
    script.waits();
    script.answers(OK, TOLD);
    script.parks();
    script.idles();
    script.leaves(&["done"]);
}

#[test]
fn forwarding_long_head_is_sent_once_more() {
    let long = "y".repeat(3 * 1024);
    let get = format!("GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\nX-Long: {long}\r\n\r\n");
    let sent = format!("GET / HTTP/1.1\r\nHost: a.test\r\nX-Long: {long}\r\nVia: 1.1 adit\r\n\r\n");
    // Another request is behind it.
    let mut script = Script::reusing(&[get.as_bytes(), GET].concat());
    script.does(Step::Write(Side::Upstream), Outcome::Moved(1000));
    script.writes(Side::Upstream, &sent.as_bytes()[1000..]);
    script.waits();
    assert_eq!(script.pool.lent(), 1, "it stays for as long as it may be needed");
    script.event(Side::Upstream, CLOSED);
    script.does(Step::Read(Side::Upstream), Outcome::Eof);
    script.connects();
    script.writes(Side::Upstream, sent.as_bytes());
    script.answers(OK, TOLD);
    script.parks();
    script.records();
    script.reuses();
    script.writes(Side::Upstream, SENT);
    script.answers(OK, TOLD);
    script.parks();
    script.idles();
    script.leaves(&["done", "done", "done"]);
}

/// No byte of it was sent: it is asked for the first time.
#[test]
fn forwarding_post_over_a_connection_that_is_over_already() {
    let hello = "Content-Length: 5\r\n";
    for how in [Outcome::Eof, Outcome::Failed(Failure::Reset), Outcome::Moved(1)] {
        let mut script = Script::reusing(&post(hello, "hello"));
        script.event(Side::Upstream, READABLE);
        assert!(script.room(Side::Upstream) > 0);
        script.does(Step::Read(Side::Upstream), how);
        script.connects();
        script.writes(Side::Upstream, &posted(hello, "hello"));
        script.answers(OK, TOLD);
        script.parks();
        script.idles();
        script.leaves(&["done", "done"]);
    }
}

#[test]
fn forwarding_post_is_sent_in_part_and_not_again() {
    let mut script = Script::reusing(&post("Content-Length: 5\r\n", "hello"));
    script.does(Step::Write(Side::Upstream), Outcome::Moved(1));
    script.event(Side::Upstream, CLOSED);
    script.does(Step::Write(Side::Upstream), Outcome::Failed(Failure::BrokenPipe));
    script.does(Step::Read(Side::Upstream), Outcome::Eof);
    script.tells(502, "http_response_incomplete", KEEPS);
}

#[test]
fn forwarding_long_head_is_given_up_with_the_first_byte() {
    let long = "y".repeat(3 * 1024);
    let get = format!("GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\nX-Long: {long}\r\n\r\n");
    let sent = format!("GET / HTTP/1.1\r\nHost: a.test\r\nX-Long: {long}\r\nVia: 1.1 adit\r\n\r\n");
    let mut script = Script::reusing(get.as_bytes());
    script.writes(Side::Upstream, sent.as_bytes());
    script.waits();
    assert_eq!(script.pool.lent(), 1);
    script.event(Side::Upstream, READABLE);
    script.read(Side::Upstream, b"H");
    script.waits();
    assert_eq!(script.pool.lent(), 1, "only the answer's");
    script.answers(&OK[1..], TOLD);
    script.parks();
    script.idles();
    script.leaves(&["done", "done"]);
}

#[test]
fn forwarding_long_head_over_a_fresh_connection_is_not_kept() {
    let long = "y".repeat(3 * 1024);
    let get = format!("GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\nX-Long: {long}\r\n\r\n");
    let sent = format!("GET / HTTP/1.1\r\nHost: a.test\r\nX-Long: {long}\r\nVia: 1.1 adit\r\n\r\n");
    let mut script = Script::forwarding(get.as_bytes());
    assert_eq!(script.pool.lent(), 1);
    script.writes(Side::Upstream, sent.as_bytes());
    script.waits();
    assert_eq!(script.pool.lent(), 0);
    script.answers(OK, TOLD);
    script.parks();
    script.idles();
    script.leaves(&["done"]);
}

#[test]
fn forwarding_reused_connection_dies_behind_the_first_byte() {
    for first in [&b"H"[..], b"HTTP/1.1 200 OK\r\n"] {
        let mut script = Script::reusing(GET);
        script.writes(Side::Upstream, SENT);
        script.event(Side::Upstream, CLOSED);
        script.read(Side::Upstream, first);
        script.does(Step::Read(Side::Upstream), Outcome::Eof);
        script.tells(502, "http_response_incomplete", KEEPS);
        script.idles();
        script.leaves(&["done", "http_response_incomplete"]);
    }
}

#[test]
fn forwarding_reused_connection_dies_behind_an_interim_answer() {
    let mut script = Script::reusing(GET);
    script.writes(Side::Upstream, SENT);
    script.event(Side::Upstream, CLOSED);
    script.read(Side::Upstream, b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n");
    script.writes(Side::Client, b"HTTP/1.1 103 Early Hints\r\nLink: x\r\nVia: 1.1 adit\r\n\r\n");
    script.does(Step::Read(Side::Upstream), Outcome::Eof);
    assert_eq!(script.session.step(), Step::Write(Side::Client));
    let record = script.session.record(script.now);
    assert_eq!((record.status, record.end), (Some(502), "http_response_incomplete"));
}

#[test]
fn forwarding_what_may_not_be_sent_twice() {
    for (request, sent) in [
        (&post("", "")[..], &posted("", "")[..]),
        (&post("Content-Length: 4\r\n", "body"), &posted("Content-Length: 4\r\n", "body")),
        (
            &post("Transfer-Encoding: chunked\r\n", "0\r\n\r\n"),
            &posted("Transfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        ),
        (
            b"PUT http://a.test/ HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\n\r\nbody",
            b"PUT / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\nVia: 1.1 adit\r\n\r\nbody",
        ),
        (
            b"PATCH http://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n",
            b"PATCH / HTTP/1.1\r\nHost: a.test\r\nVia: 1.1 adit\r\n\r\n",
        ),
        (
            b"BREW http://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n",
            b"BREW / HTTP/1.1\r\nHost: a.test\r\nVia: 1.1 adit\r\n\r\n",
        ),
    ] {
        let mut script = Script::reusing(request);
        script.writes(Side::Upstream, sent);
        script.waits();
        script.event(Side::Upstream, CLOSED);
        script.does(Step::Read(Side::Upstream), Outcome::Eof);
        script.tells(502, "http_response_incomplete", KEEPS);
        script.idles();
        script.leaves(&["done", "http_response_incomplete"]);
    }
}

#[test]
fn forwarding_reused_connection_dies_and_the_fresh_one_is_refused() {
    let mut script = Script::reusing(GET);
    script.writes(Side::Upstream, SENT);
    script.event(Side::Upstream, CLOSED);
    script.does(Step::Read(Side::Upstream), Outcome::Eof);
    script.does(Step::Resolve, Outcome::Done);
    script.waits();
    assert_eq!(script.upstream, Upstream::None);
    script.resolved(&[PUBLIC]);
    script.does(dial_http(PUBLIC), Outcome::Failed(Failure::Refused));
    script.tells(502, "connection_refused", KEEPS);
    script.idles();
    script.leaves(&["done", "connection_refused"]);
}

#[test]
fn forwarding_reused_connection_dies_when_the_client_has_ended() {
    let mut script = Script::reusing(GET);
    script.writes(Side::Upstream, SENT);
    script.event(Side::Client, CLOSED);
    script.now = script.now.after(500);
    script.event(Side::Upstream, CLOSED);
    script.does(Step::Read(Side::Upstream), Outcome::Eof);
    script.does(Step::Resolve, Outcome::Done);
    script.waits();
    // The grace began while the first connection was tried.
    script.expires(Kind::ClientLeft, CLIENT_LEFT_MS - 500);
    script.ends_after(EndReason::ClientLeft, &["done", "client_left"]);
}

/// What was proven by rules that are in force no more is judged again: an idle connection that others have made since then.
#[test]
fn kept_and_then_other_rules() {
    for reuses in [true, false] {
        let mut script = Script::kept();
        let origin = script.parked.pop().unwrap();
        if !reuses {
            script.policy.rules = rules_denying(PUBLIC);
        }
        script.session.on_policy(script.now, &script.policy);
        script.comes(GET);
        assert_eq!(script.session.step(), Step::TakeIdle);
        assert_eq!(script.session.may_reuse(&origin, &script.policy), reuses);
    }
}
