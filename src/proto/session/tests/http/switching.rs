//! A connection that becomes a tunnel for another protocol (RFC 9110 7.8).

use super::*;

const ASKS: &[u8] =
    b"GET http://a.test/ws HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
const SENT_ASKS: &[u8] =
    b"GET /ws HTTP/1.1\r\nHost: a.test\r\nUpgrade: websocket\r\nConnection: upgrade\r\nVia: 1.1 adit\r\n\r\n";
const SWITCHES: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nX: y\r\n\r\n";
const TOLD_SWITCHES: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nX: y\r\nConnection: upgrade\r\nVia: 1.1 adit\r\n\r\n";

#[track_caller]
fn asked_to_switch() -> Script {
    let mut script = Script::forwarding(ASKS);
    script.writes(Side::Upstream, SENT_ASKS);
    script.waits();
    script
}

#[track_caller]
fn switched() -> Script {
    let mut script = asked_to_switch();
    script.answers(SWITCHES, TOLD_SWITCHES);
    script.waits();
    assert_eq!(script.session.deadline(), Some((Kind::Idle, script.now.after(900_000))));
    assert_eq!(script.pool.lent(), 0);
    script
}

#[test]
fn forwarding_switch() {
    let mut script = switched();
    script.comes(b"ping");
    script.writes(Side::Upstream, b"ping");
    script.answers(b"pong", b"pong");
    script.waits();
    assert_eq!(script.pool.lent(), 0);
    script.event(Side::Client, CLOSED);
    script.does(Step::Read(Side::Client), Outcome::Eof);
    script.does(Step::ShutdownWrite(Side::Upstream), Outcome::Done);
    script.waits();
    assert_eq!(script.session.deadline(), Some((Kind::HalfOpen, script.now.after(60_000))));
    script.event(Side::Upstream, CLOSED);
    script.read(Side::Upstream, b"bye");
    script.writes(Side::Client, b"bye");
    script.does(Step::Read(Side::Upstream), Outcome::Eof);
    script.ends(EndReason::Done);
    let record = script.session.record(script.now);
    assert_eq!((record.status, record.up_bytes), (Some(101), SENT_ASKS.len() as u64 + 4));
    assert_eq!(record.down_bytes, TOLD_SWITCHES.len() as u64 + 7);
    assert_eq!(script.asked_for(), "GET http://a.test/ws");
    assert_eq!(script.resets(), (false, false));
}

#[test]
fn forwarding_switch_with_bytes_of_both_sides() {
    let mut script = Script::forwarding(&[ASKS, b"early up"].concat());
    script.writes(Side::Upstream, SENT_ASKS);
    script.waits();
    assert_eq!(script.pool.lent(), 1, "they stay where they are until it is known what they are");
    script.event(Side::Upstream, READABLE);
    script.read(Side::Upstream, &[SWITCHES, b"early down"].concat());
    script.writes(Side::Upstream, b"early up");
    script.writes(Side::Client, &[TOLD_SWITCHES, b"early down"].concat());
    script.waits();
    assert_eq!(script.pool.lent(), 0);
}

#[test]
fn forwarding_switch_behind_an_interim_answer() {
    let mut script = asked_to_switch();
    script.event(Side::Upstream, READABLE);
    script.read(Side::Upstream, &[b"HTTP/1.1 102 Processing\r\n\r\n", SWITCHES, b"early"].concat());
    script.writes(Side::Client, b"HTTP/1.1 102 Processing\r\nVia: 1.1 adit\r\n\r\n");
    script.writes(Side::Client, &[TOLD_SWITCHES, b"early"].concat());
    script.waits();
}

#[test]
fn forwarding_switch_over_a_reused_connection() {
    // Its long head was kept, to be sent once more, with bytes behind it.
    let long = "y".repeat(3 * 1024);
    let request = format!(
        "GET http://a.test/ws HTTP/1.1\r\nHost: a.test\r\nX: {long}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nearly"
    );
    let sent = format!(
        "GET /ws HTTP/1.1\r\nHost: a.test\r\nX: {long}\r\nUpgrade: websocket\r\nConnection: upgrade\r\nVia: 1.1 adit\r\n\r\n"
    );
    let mut script = Script::reusing(request.as_bytes());
    script.writes(Side::Upstream, sent.as_bytes());
    script.waits();
    script.event(Side::Upstream, READABLE);
    script.read(Side::Upstream, SWITCHES);
    script.writes(Side::Upstream, b"early");
    script.writes(Side::Client, TOLD_SWITCHES);
    script.waits();
}

#[test]
fn forwarding_switch_while_the_client_takes_nothing() {
    let mut script = asked_to_switch();
    script.event(Side::Upstream, READABLE);
    script.now = script.now.after(59_000);
    script.read(Side::Upstream, SWITCHES);
    script.does(Step::Write(Side::Client), Outcome::Blocked);
    script.waits();
    // It is a tunnel now, with the patience of one.
    script.expires(Kind::Idle, 900_000);
    script.ends(EndReason::IdleTimeout);
    assert_eq!(script.resets(), (true, true), "bytes were under way");
}

#[test]
fn forwarding_switch_behind_the_clients_end() {
    let mut script = asked_to_switch();
    script.event(Side::Client, CLOSED);
    script.now = script.now.after(1_000);
    script.event(Side::Upstream, READABLE);
    script.read(Side::Upstream, SWITCHES);
    script.writes(Side::Client, TOLD_SWITCHES);
    script.does(Step::Read(Side::Client), Outcome::Eof);
    script.does(Step::ShutdownWrite(Side::Upstream), Outcome::Done);
    script.waits();
    assert_eq!(script.session.deadline(), Some((Kind::HalfOpen, script.now.after(60_000))));
    script.answers(b"news", b"news");
    script.event(Side::Upstream, CLOSED);
    script.does(Step::Read(Side::Upstream), Outcome::Eof);
    script.ends(EndReason::Done);
}

#[test]
fn forwarding_switched_and_reset() {
    for (side, reason, resets) in [
        (Side::Client, EndReason::ClientReset, (false, true)),
        (Side::Upstream, EndReason::UpstreamReset, (true, false)),
    ] {
        let mut script = switched();
        script.event(side, BROKEN);
        script.does(Step::Read(side), Outcome::Failed(Failure::Reset));
        script.ends(reason);
        assert_eq!(script.resets(), resets, "a reset on one side becomes one on the other");
    }
}

#[test]
fn forwarding_switched_and_cut() {
    let mut script = switched();
    script.comes(b"stuck");
    script.does(Step::Write(Side::Upstream), Outcome::Blocked);
    script.waits();
    script.session.on_drain(script.now);
    script.waits();
    script.session.on_grace_over(script.now, &script.policy);
    script.ends(EndReason::Grace);
    assert_eq!(script.resets(), (true, true), "a stream that was cut off must not look complete");
}

#[test]
fn forwarding_switch_is_declined() {
    // What is behind the request is another one, then.
    let mut script = Script::forwarding(&[ASKS, GET].concat());
    script.writes(Side::Upstream, SENT_ASKS);
    script.answers(OK, TOLD);
    script.parks();
    script.records();
    script.reuses();
    script.writes(Side::Upstream, SENT);
    script.answers(OK, TOLD);
    script.parks();
    script.idles();
    script.leaves(&["done", "done"]);
}

#[test]
fn forwarding_switch_is_declined_and_what_is_behind_is_no_request() {
    let mut script = Script::forwarding(&[ASKS, b"\x81\x05hello"].concat());
    script.writes(Side::Upstream, SENT_ASKS);
    script.answers(OK, TOLD);
    script.parks();
    script.records();
    script.closes_telling(400, "http_request_error", &["done", "http_request_error"]);
}

#[test]
fn forwarding_switch_that_nobody_asked_for() {
    for (request, sent) in [
        (GET, SENT),
        // Named by one field only, or with a body, or by a client of HTTP/1.0: not passed on.
        (
            b"GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\nUpgrade: websocket\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a.test\r\nVia: 1.1 adit\r\n\r\n",
        ),
        (
            b"GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a.test\r\nVia: 1.1 adit\r\n\r\n",
        ),
        (
            b"POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\nConnection: upgrade\r\nUpgrade: x\r\nContent-Length: 1\r\n\r\ny",
            b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1\r\nVia: 1.1 adit\r\n\r\ny",
        ),
    ] {
        let mut script = Script::forwarding(&[request, GET].concat());
        script.writes(Side::Upstream, sent);
        script.event(Side::Upstream, READABLE);
        script.read(Side::Upstream, &[SWITCHES, b"whatever"].concat());
        script.closes_telling(502, "http_protocol_error", &["http_protocol_error"]);
    }
}

#[test]
fn forwarding_switch_that_does_not_say_to_what() {
    for answer in [
        "HTTP/1.1 101 Switching Protocols\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
        "HTTP/1.0 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: foo/9\r\nConnection: Upgrade\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket, foo\r\nConnection: Upgrade\r\n\r\n",
    ] {
        let mut script = asked_to_switch();
        script.event(Side::Upstream, READABLE);
        script.read(Side::Upstream, answer.as_bytes());
        script.closes_telling(502, "http_protocol_error", &["http_protocol_error"]);
    }
}

#[test]
fn forwarding_switch_while_it_drains() {
    let mut script = asked_to_switch();
    script.session.on_drain(script.now);
    script.answers(SWITCHES, TOLD_SWITCHES);
    script.waits();
    // A tunnel goes on until the grace is over.
    script.comes(b"ping");
    script.writes(Side::Upstream, b"ping");
    script.session.on_grace_over(script.now, &script.policy);
    script.ends(EndReason::Grace);
    assert_eq!(script.resets(), (false, false));
}
