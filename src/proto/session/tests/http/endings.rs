//! Who does not come, leaves, is cut off or told to go; and storage that runs out.

use super::*;

const LENGTH_5: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe";
const TOLD_LENGTH_5: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nVia: 1.1 adit\r\n\r\nhe";
const UNTIL_CLOSE: &[u8] = b"HTTP/1.1 200 OK\r\n\r\nhe";
const TOLD_UNTIL_CLOSE: &[u8] = b"HTTP/1.1 200 OK\r\nConnection: close\r\nVia: 1.1 adit\r\n\r\nhe";
/// [`OK`] as told to a client whose connection ends behind it.
const TOLD_LAST: &[u8] =
    b"HTTP/1.1 200 OK\r\nDate: now\r\nContent-Length: 5\r\nConnection: close\r\nVia: 1.1 adit\r\n\r\nhello";
/// Answers that have begun, what the client has got of them, and whether it would take an end in order for their end.
const BEGUN: [(&[u8], &[u8], bool); 2] =
    [(LENGTH_5, TOLD_LENGTH_5, false), (UNTIL_CLOSE, TOLD_UNTIL_CLOSE, true)];

// Too late.

#[test]
fn forwarding_no_answer_in_time() {
    let mut script = Script::forwarding(&GET.repeat(2));
    script.writes(Side::Upstream, SENT);
    script.waits();
    script.expires(Kind::Response, 60_000);
    script.tells(504, "http_response_timeout", KEEPS);
    script.records();
    script.finds_nothing_idle();
    script.connects();
    script.writes(Side::Upstream, SENT);
    script.answers(OK, TOLD);
    script.parks();
    script.idles();
    script.leaves(&["http_response_timeout", "done"]);
}

#[test]
fn forwarding_head_of_the_answer_stalls() {
    let mut script = Script::asked();
    script.now = script.now.after(40_000);
    script.event(Side::Upstream, READABLE);
    script.read(Side::Upstream, &LENGTH_5[..30]);
    script.waits();
    // The beginning of a head gives it no more time: it is all the time that holds storage.
    script.expires(Kind::Response, 20_000);
    script.tells(504, "http_response_timeout", KEEPS);
    script.idles();
    script.leaves(&["http_response_timeout"]);
}

#[test]
fn forwarding_no_answer_in_time_over_a_reused_connection() {
    // Its long head was kept to be sent once more: it is not mistaken for the next request.
    let long = "y".repeat(3 * 1024);
    let request = format!("GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\nX: {long}\r\n\r\n");
    let sent = format!("GET / HTTP/1.1\r\nHost: a.test\r\nX: {long}\r\nVia: 1.1 adit\r\n\r\n");
    for written in [sent.len(), 100] {
        let mut script = Script::reusing(&[request.as_bytes(), GET].concat());
        script.does(Step::Write(Side::Upstream), Outcome::Moved(written));
        if written < sent.len() {
            script.does(Step::Write(Side::Upstream), Outcome::Blocked);
        }
        script.waits();
        script.expires(Kind::Response, 60_000);
        script.tells(504, "http_response_timeout", KEEPS);
        script.records();
        script.finds_nothing_idle();
        script.connects();
        script.writes(Side::Upstream, SENT);
        script.answers(OK, TOLD);
        script.parks();
        script.idles();
        script.leaves(&["done", "http_response_timeout", "done"]);
    }
}

#[test]
fn dialing_long_head_is_refused() {
    let long = "y".repeat(3 * 1024);
    let request = format!("GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\nX: {long}\r\n\r\n");
    let mut script = Script::after(&[request.as_bytes(), GET].concat());
    script.finds_nothing_idle();
    script.does(Step::Resolve, Outcome::Done);
    script.resolved(&[PUBLIC]);
    script.does(dial_http(PUBLIC), Outcome::Failed(Failure::Unreachable));
    script.tells(502, "destination_ip_unroutable", KEEPS);
    script.records();
    script.finds_nothing_idle();
    script.connects();
    script.writes(Side::Upstream, SENT);
    script.answers(OK, TOLD);
    script.parks();
    script.idles();
    script.leaves(&["destination_ip_unroutable", "done"]);
}

#[test]
fn forwarding_answer_stalls() {
    for (answer, told, until_close) in BEGUN {
        let mut script = Script::asked();
        script.answers(answer, told);
        script.waits();
        script.now = script.now.after(600_000);
        script.answers(b"l", b"l");
        script.waits();
        script.expires(Kind::Idle, 900_000);
        script.ends(EndReason::IdleTimeout);
        assert_eq!(script.resets().0, until_close);
        assert_eq!(script.session.record(script.now).status, Some(200));
    }
}

#[test]
fn forwarding_client_takes_nothing() {
    let mut script = Script::asked();
    script.event(Side::Upstream, READABLE);
    script.read(Side::Upstream, OK);
    script.does(Step::Write(Side::Client), Outcome::Moved(1));
    script.does(Step::Write(Side::Client), Outcome::Blocked);
    script.waits();
    script.expires(Kind::Idle, 900_000);
    script.ends(EndReason::IdleTimeout);
}

// The client leaves.

#[test]
fn forwarding_client_end_while_waiting() {
    let mut script = Script::asked();
    script.now = script.now.after(10_000);
    script.event(Side::Client, CLOSED);
    script.waits();
    script.expires(Kind::ClientLeft, CLIENT_LEFT_MS);
    script.ends(EndReason::ClientLeft);
    assert_eq!(script.session.record(script.now).status, None);
}

#[test]
fn forwarding_client_end_known_with_the_head() {
    let mut script = Script::new();
    script.event(Side::Client, CLOSED);
    script.read(Side::Client, GET);
    script.finds_nothing_idle();
    script.now = script.now.after(700);
    script.connects();
    script.writes(Side::Upstream, SENT);
    script.waits();
    // The grace began while it was dialed for.
    script.expires(Kind::ClientLeft, CLIENT_LEFT_MS - 700);
    script.ends(EndReason::ClientLeft);
}

#[test]
fn forwarding_client_end_and_an_answer_in_time() {
    let mut script = Script::asked();
    script.event(Side::Client, CLOSED);
    script.waits();
    script.now = script.now.after(CLIENT_LEFT_MS - 1);
    script.event(Side::Upstream, READABLE);
    script.read(Side::Upstream, LENGTH_5);
    script.writes(Side::Client, TOLD_LENGTH_5);
    script.waits();
    // It has begun to come: there is time for the rest.
    assert_eq!(script.session.deadline(), Some((Kind::Idle, script.now.after(900_000))));
    script.now = script.now.after(60_000);
    script.answers(b"llo", b"llo");
    script.parks();
    script.records();
    script.does(Step::Read(Side::Client), Outcome::Eof);
    script.ends_after(EndReason::Unused, &["done"]);
}

#[test]
fn forwarding_client_end_and_an_interim_answer() {
    // It is not what the client waits for, and starts no grace anew.
    let mut script = Script::asked();
    script.event(Side::Client, CLOSED);
    script.now = script.now.after(500);
    script.answers(b"HTTP/1.1 102 Processing\r\n\r\n", b"HTTP/1.1 102 Processing\r\nVia: 1.1 adit\r\n\r\n");
    script.waits();
    script.expires(Kind::ClientLeft, CLIENT_LEFT_MS - 500);
    script.ends(EndReason::ClientLeft);
}

#[test]
fn forwarding_client_end_behind_two_requests() {
    let mut script = Script::new();
    script.event(Side::Client, CLOSED);
    script.read(Side::Client, &GET.repeat(2));
    script.finds_nothing_idle();
    script.connects();
    script.writes(Side::Upstream, SENT);
    script.waits();
    script.now = script.now.after(1_500);
    script.answers(OK, TOLD);
    script.parks();
    script.records();
    script.reuses();
    script.writes(Side::Upstream, SENT);
    script.waits();
    script.now = script.now.after(1_500);
    script.answers(OK, TOLD);
    script.parks();
    script.records();
    script.does(Step::Read(Side::Client), Outcome::Eof);
    script.ends_after(EndReason::Unused, &["done", "done"]);
}

/// A client that has ended but is still heard has not left: its grace begins once it has said all.
#[test]
fn forwarding_client_end_known_before_its_body_has_come() {
    for known_with_the_head in [true, false] {
        let mut script = Script::new();
        if known_with_the_head {
            script.event(Side::Client, CLOSED);
        }
        script.read(Side::Client, &post("Content-Length: 4\r\n", ""));
        script.finds_nothing_idle();
        script.connects();
        script.event(Side::Client, CLOSED);
        script.writes(Side::Upstream, &posted("Content-Length: 4\r\n", ""));
        for (byte, wait_ms) in [(b"b", 3_000), (b"o", 3_000), (b"d", 3_000), (b"y", 1_500)] {
            script.read(Side::Client, byte);
            script.does(Step::Write(Side::Upstream), Outcome::Blocked);
            script.waits();
            script.now = script.now.after(wait_ms);
            script.session.on_deadline(script.now, &script.policy);
            script.event(Side::Upstream, WRITABLE);
            script.writes(Side::Upstream, byte);
        }
        script.waits();
        // Counted from the last byte of its body.
        script.expires(Kind::ClientLeft, CLIENT_LEFT_MS - 1_500);
        script.ends(EndReason::ClientLeft);
    }
}

#[test]
fn forwarding_client_reset_while_waiting() {
    let mut script = Script::asked();
    script.event(Side::Client, BROKEN);
    script.does(Step::TakeError(Side::Client), Outcome::Failed(Failure::Reset));
    script.ends(EndReason::ClientReset);
    assert_eq!(script.session.record(script.now).status, None);
}

#[test]
fn forwarding_client_reset_inside_the_answer() {
    let mut script = Script::asked();
    script.answers(LENGTH_5, TOLD_LENGTH_5);
    script.event(Side::Client, BROKEN);
    script.does(Step::TakeError(Side::Client), Outcome::Failed(Failure::Reset));
    script.ends(EndReason::ClientReset);
}

#[test]
fn forwarding_client_reset_met_by_a_write() {
    for failure in [Failure::Reset, Failure::BrokenPipe] {
        let mut script = Script::asked();
        script.event(Side::Upstream, READABLE);
        script.read(Side::Upstream, OK);
        script.does(Step::Write(Side::Client), Outcome::Moved(9));
        script.does(Step::Write(Side::Client), Outcome::Failed(failure));
        script.ends(EndReason::ClientReset);
        assert_eq!(script.session.record(script.now).down_bytes, 9);
    }
}

#[test]
fn forwarding_both_are_reset() {
    let mut script = Script::asked();
    script.event(Side::Client, BROKEN);
    script.event(Side::Upstream, BROKEN);
    // Whoever is asked first; the answer that then has nobody to go to is given up.
    script.does(Step::Read(Side::Upstream), Outcome::Failed(Failure::Reset));
    script.does(Step::Write(Side::Client), Outcome::Failed(Failure::Reset));
    script.ends(EndReason::Refused("http_response_incomplete"));
}

// The proxy's own answer on its way.

#[test]
fn replying_http_in_pieces() {
    let mut script = Script::after(b"GET http://a.test:22/ HTTP/1.1\r\nHost: a.test\r\n\r\n");
    script.does(Step::Write(Side::Client), Outcome::Moved(9));
    script.does(Step::Write(Side::Client), Outcome::Blocked);
    script.waits();
    // The next request comes when it may.
    script.event(Side::Client, READABLE);
    script.waits();
    script.event(Side::Client, WRITABLE);
    let rest = script.session.drain_slice(Side::Client).len();
    script.does(Step::Write(Side::Client), Outcome::Moved(rest));
    script.records();
    script.read(Side::Client, GET);
    script.finds_nothing_idle();
    script.connects();
    script.writes(Side::Upstream, SENT);
    script.answers(OK, TOLD);
    script.parks();
    script.idles();
    script.leaves(&["http_request_denied", "done"]);
}

#[test]
fn replying_http_client_takes_nothing() {
    let mut script = Script::after(b"GET http://a.test:22/ HTTP/1.1\r\nHost: a.test\r\n\r\n");
    script.does(Step::Write(Side::Client), Outcome::Moved(9));
    script.does(Step::Write(Side::Client), Outcome::Blocked);
    script.waits();
    script.expires(Kind::Linger, LINGER_MS);
    script.ends(EndReason::Refused("http_request_denied"));
}

#[test]
fn replying_http_reset() {
    let mut script = Script::after(b"GET http://a.test:22/ HTTP/1.1\r\nHost: a.test\r\n\r\n");
    script.does(Step::Write(Side::Client), Outcome::Failed(Failure::Reset));
    script.ends(EndReason::Refused("http_request_denied"));
}

// Drain and grace.

#[test]
fn idle_drain_behind_an_exchange() {
    let mut script = Script::kept();
    script.now = script.now.after(5_000);
    script.session.on_drain(script.now);
    script.waits();
    script.expires(Kind::KeepAlive, DRAIN_IDLE_MS);
    script.ends_after(EndReason::Unused, &["done"]);
}

#[test]
fn idle_drain_and_a_request_that_was_under_way() {
    let mut script = Script::kept();
    script.session.on_drain(script.now);
    script.now = script.now.after(DRAIN_IDLE_MS - 1);
    script.comes(GET);
    script.finds_nothing_idle();
    script.connects();
    script.writes(Side::Upstream, SENT);
    script.answers(OK, TOLD_LAST);
    script.does(Step::CloseUpstream, Outcome::Done);
    script.lingers(EndReason::Done, &["done", "done"]);
}

#[test]
fn forwarding_drain() {
    let mut script = Script::asked();
    script.session.on_drain(script.now);
    script.waits();
    script.answers(OK, TOLD_LAST);
    script.does(Step::CloseUpstream, Outcome::Done);
    script.lingers(EndReason::Done, &["done"]);
}

#[test]
fn forwarding_drain_behind_the_head_of_the_answer() {
    let mut script = Script::asked();
    script.answers(LENGTH_5, TOLD_LENGTH_5);
    script.session.on_drain(script.now);
    script.waits();
    script.answers(b"llo", b"llo");
    script.does(Step::CloseUpstream, Outcome::Done);
    script.records();
    script.waits();
    // It was told that it may go on, and is given the time that others are given.
    script.expires(Kind::KeepAlive, DRAIN_IDLE_MS);
    script.ends_after(EndReason::Unused, &["done"]);
}

#[test]
fn forwarding_drain_and_a_refusal() {
    let mut script = Script::asked();
    script.session.on_drain(script.now);
    script.event(Side::Upstream, CLOSED);
    script.does(Step::Read(Side::Upstream), Outcome::Eof);
    script.closes_telling(502, "http_response_incomplete", &["http_response_incomplete"]);
}

#[test]
fn forwarding_grace_over_before_the_answer() {
    let mut script = Script::asked();
    script.session.on_drain(script.now);
    script.now = script.now.after(30_000);
    script.session.on_grace_over(script.now, &script.policy);
    script.closes_telling(503, "proxy_internal_response", &["proxy_internal_response"]);
}

#[test]
fn forwarding_grace_over_inside_the_answer() {
    for (answer, told, until_close) in BEGUN {
        let mut script = Script::asked();
        script.answers(answer, told);
        script.session.on_drain(script.now);
        script.session.on_grace_over(script.now, &script.policy);
        script.ends(EndReason::Grace);
        assert_eq!(script.resets().0, until_close);
    }
}

#[test]
fn forwarding_grace_over_inside_an_interim_answer() {
    let mut script = Script::asked();
    script.event(Side::Upstream, READABLE);
    script.read(Side::Upstream, b"HTTP/1.1 102 Processing\r\n\r\n");
    script.does(Step::Write(Side::Client), Outcome::Moved(9));
    script.does(Step::Write(Side::Client), Outcome::Blocked);
    script.session.on_grace_over(script.now, &script.policy);
    script.ends(EndReason::Grace);
}

/// A second signal, without a drain before it: nothing follows that answer either.
#[test]
fn forwarding_grace_over_without_a_drain() {
    let mut script = Script::asked();
    script.session.on_grace_over(script.now, &script.policy);
    script.closes_telling(503, "proxy_internal_response", &["proxy_internal_response"]);
}

#[test]
fn forwarding_quit() {
    for (answer, told, until_close) in BEGUN {
        let mut script = Script::asked();
        script.answers(answer, told);
        script.session.on_quit();
        script.ends(EndReason::Grace);
        assert_eq!(script.resets().0, until_close);
    }
}

#[test]
fn idle_grace_over_behind_an_exchange() {
    let mut script = Script::kept();
    script.session.on_grace_over(script.now, &script.policy);
    script.ends_after(EndReason::Unused, &["done"]);
}

#[test]
fn idle_quit_behind_an_exchange() {
    let mut script = Script::kept();
    script.session.on_quit();
    script.ends_after(EndReason::Grace, &["done"]);
}

// Storage runs out.

#[test]
fn forwarding_no_storage_for_the_answer() {
    let mut script = Script::asked();
    script.event(Side::Upstream, READABLE);
    script.does(Step::Read(Side::Upstream), Outcome::NoStorage);
    assert!(script.session.is_starved());
    script.waits();
    // News alone do not help.
    script.event(Side::Upstream, READABLE);
    script.waits();
    script.session.on_storage();
    assert!(!script.session.is_starved());
    script.read(Side::Upstream, OK);
    script.writes(Side::Client, TOLD);
    script.parks();
    script.idles();
    script.leaves(&["done"]);
}

#[test]
fn forwarding_no_storage_inside_the_answer() {
    let mut script = Script::asked();
    script.answers(LENGTH_5, TOLD_LENGTH_5);
    script.waits();
    script.event(Side::Upstream, READABLE);
    script.does(Step::Read(Side::Upstream), Outcome::NoStorage);
    script.waits();
    script.session.on_storage();
    script.read(Side::Upstream, b"llo");
    script.writes(Side::Client, b"llo");
    script.parks();
    script.idles();
    script.leaves(&["done"]);
}

#[test]
fn forwarding_no_storage_for_either_side() {
    let mut script = Script::forwarding(&post("Content-Length: 4\r\n", ""));
    script.writes(Side::Upstream, &posted("Content-Length: 4\r\n", ""));
    script.event(Side::Client, READABLE);
    script.event(Side::Upstream, READABLE);
    script.does(Step::Read(Side::Client), Outcome::NoStorage);
    script.does(Step::Read(Side::Upstream), Outcome::NoStorage);
    script.waits();
    script.session.on_storage();
    script.read(Side::Client, b"body");
    script.writes(Side::Upstream, b"body");
    script.read(Side::Upstream, OK);
    script.writes(Side::Client, TOLD);
    script.parks();
    script.idles();
    script.leaves(&["done"]);
}

#[test]
fn forwarding_no_storage_and_no_time() {
    let mut script = Script::asked();
    script.event(Side::Upstream, READABLE);
    script.does(Step::Read(Side::Upstream), Outcome::NoStorage);
    script.waits();
    script.expires(Kind::Response, 60_000);
    script.tells(504, "http_response_timeout", KEEPS);
    script.records();
    script.waits();
    script.session.on_storage();
    script.comes(GET);
    script.finds_nothing_idle();
    script.connects();
    script.writes(Side::Upstream, SENT);
    script.answers(OK, TOLD);
    script.parks();
    script.idles();
    script.leaves(&["http_response_timeout", "done"]);
}

#[test]
fn forwarding_no_storage_and_the_client_is_gone() {
    let mut script = Script::asked();
    script.event(Side::Upstream, READABLE);
    script.does(Step::Read(Side::Upstream), Outcome::NoStorage);
    script.waits();
    script.event(Side::Client, BROKEN);
    script.does(Step::TakeError(Side::Client), Outcome::Failed(Failure::Reset));
    script.ends(EndReason::ClientReset);
}

/// What is kept only in case makes room for who needs it.
#[test]
fn forwarding_storage_is_scarce() {
    let long = "y".repeat(3 * 1024);
    let request = format!("GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\nX: {long}\r\n\r\n");
    let sent = format!("GET / HTTP/1.1\r\nHost: a.test\r\nX: {long}\r\nVia: 1.1 adit\r\n\r\n");
    let mut script = Script::reusing(request.as_bytes());
    // Not before it is sent.
    script.session.spare_storage();
    script.writes(Side::Upstream, sent.as_bytes());
    script.waits();
    assert_eq!(script.pool.lent(), 1);
    script.session.spare_storage();
    script.waits();
    assert_eq!(script.pool.lent(), 0);
    // It cannot be sent once more.
    script.event(Side::Upstream, CLOSED);
    script.does(Step::Read(Side::Upstream), Outcome::Eof);
    script.tells(502, "http_response_incomplete", KEEPS);
    script.idles();
    script.leaves(&["done", "http_response_incomplete"]);
}

#[test]
fn forwarding_storage_is_scarce_and_the_next_request_has_begun() {
    let mut script = Script::forwarding(&[GET, b"G"].concat());
    script.writes(Side::Upstream, SENT);
    script.waits();
    assert_eq!(script.pool.lent(), 1);
    script.session.spare_storage();
    script.waits();
    assert_eq!(script.pool.lent(), 0);
    script.answers(OK, TOLD_LAST);
    script.parks();
    script.lingers(EndReason::Done, &["done"]);
}

#[test]
fn forwarding_storage_is_scarce_and_a_tunnel_may_come_of_it() {
    let mut script = Script::forwarding(
        b"GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nfirst",
    );
    let sent =
        b"GET / HTTP/1.1\r\nHost: a.test\r\nUpgrade: x\r\nConnection: upgrade\r\nVia: 1.1 adit\r\n\r\n";
    script.writes(Side::Upstream, sent);
    script.waits();
    script.session.spare_storage();
    script.waits();
    assert_eq!(script.pool.lent(), 1, "its first bytes are kept");
    script.event(Side::Client, BROKEN);
    script.does(Step::TakeError(Side::Client), Outcome::Failed(Failure::Reset));
    script.ends(EndReason::ClientReset);
}
