//! Requests with a body: it goes up while it comes, and while the answer may already come down.

use super::*;
use crate::proto::ring::RING_BYTES;

const LENGTH_4: &str = "Content-Length: 4\r\n";
const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";
const EXPECTS: &str = "Expect: 100-continue\r\nContent-Length: 4\r\n";
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
const TOLD_CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\nVia: 1.1 adit\r\n\r\n";
/// An answer that a client which has not sent its whole request is told.
const TOLD_LAST: &[u8] =
    b"HTTP/1.1 200 OK\r\nDate: now\r\nContent-Length: 5\r\nConnection: close\r\nVia: 1.1 adit\r\n\r\nhello";
const TOO_LARGE: &[u8] = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n";
const TOLD_TOO_LARGE: &[u8] =
    b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\nConnection: close\r\nVia: 1.1 adit\r\n\r\n";

/// The head of a request has gone to the origin, and no byte of its body has come.
#[track_caller]
fn sent_head(fields: &str) -> Script {
    let mut script = Script::forwarding(&post(fields, ""));
    script.writes(Side::Upstream, &posted(fields, ""));
    script.waits();
    script
}

/// The client sends all of `bytes` as fast as it is read, and the upstream takes at most `at_once` bytes and then blocks.
/// Returns what the upstream got.
#[track_caller]
fn pumps(script: &mut Script, bytes: &[u8], at_once: usize) -> Vec<u8> {
    let (mut sent, mut got) = (0, Vec::new());
    loop {
        assert!(script.pool.lent() <= 1, "a body is streamed, not collected");
        match script.session.step() {
            Step::Read(Side::Client) if sent == bytes.len() => {
                script.does(Step::Read(Side::Client), Outcome::Blocked);
            }
            Step::Read(Side::Client) => {
                let count = script.room(Side::Client).min(bytes.len() - sent);
                script.read(Side::Client, &bytes[sent..sent + count]);
                sent += count;
            }
            Step::Write(Side::Upstream) => {
                let offered = script.session.drain_slice(Side::Upstream);
                let count = offered.len().min(at_once);
                got.extend_from_slice(&offered[..count]);
                script.does(Step::Write(Side::Upstream), Outcome::Moved(count));
                if count == at_once && script.session.step() == Step::Write(Side::Upstream) {
                    script.does(Step::Write(Side::Upstream), Outcome::Blocked);
                    // Not a byte more is read until it takes this one.
                    script.event(Side::Client, READABLE);
                    script.waits();
                    script.event(Side::Upstream, WRITABLE);
                }
            }
            Step::Wait if sent < bytes.len() => script.event(Side::Client, READABLE),
            Step::Wait => {
                script.waits();
                return got;
            }
            step => panic!("{step:?}"),
        }
    }
}

#[test]
fn forwarding_body_larger_than_a_ring() {
    for at_once in [1_000, 16_384, RING_BYTES] {
        let body: String = (0..100_000).map(|at| char::from(b'a' + (at % 23) as u8)).collect();
        let mut script = Script::forwarding(&post("Content-Length: 100000\r\n", ""));
        let got = pumps(&mut script, body.as_bytes(), at_once);
        assert!(got == posted("Content-Length: 100000\r\n", &body));
        assert_eq!(script.pool.lent(), 0);
        assert_eq!(script.session.deadline(), Some((Kind::Response, script.now.after(60_000))));
        script.answers(OK, TOLD);
        assert_eq!(script.session.record(script.now).up_bytes, got.len() as u64);
        script.parks();
        script.records();
        script.leaves(&["done"]);
    }
}

#[test]
fn forwarding_chunked_body_larger_than_a_ring() {
    for at_once in [999, RING_BYTES] {
        let payload = "z".repeat(0x123);
        let end = "0;last\r\nX-Sum: 1\r\nContent-Length: 9\r\n\r\n";
        let body = format!("{}{end}", format!("123;x=y\r\n{payload}\r\n").repeat(300));
        let kept = format!("{}0\r\nX-Sum: 1\r\n\r\n", format!("123\r\n{payload}\r\n").repeat(300));
        let mut script = Script::forwarding(&post(CHUNKED, ""));
        let got = pumps(&mut script, body.as_bytes(), at_once);
        assert!(got == posted(CHUNKED, &kept), "extensions and trailers that may not be are dropped");
        assert_eq!(script.pool.lent(), 0);
        script.answers(OK, TOLD);
        script.parks();
        script.records();
        script.leaves(&["done"]);
    }
}

/// A head that becomes longer when it is written anew, and a body behind it that leaves no room in the ring.
#[test]
fn forwarding_largest_head_with_as_much_body_as_fits() {
    let name = "n".repeat(crate::proto::onward::MAX_VIA_BYTES);
    let short_fields = "x:y\r\n".repeat(90);
    let start = "POST http://a.test HTTP/1.1\r\nHost:a.test\r\nContent-Length:50000\r\n";
    let filler = "z".repeat(scan::MAX_HEAD_BYTES - start.len() - short_fields.len() - "long:\r\n\r\n".len());
    let head = format!("{start}{short_fields}long:{filler}\r\n\r\n");
    assert_eq!(head.len(), scan::MAX_HEAD_BYTES);
    let body = "b".repeat(50_000);
    let request = head + &body;
    let mut script = Script::new();
    script.policy.via_field = Some(name.as_str().into());
    script.policy.forwarded = Forwarded::Added;
    let client = "[2001:db8:1111:2222:3333:4444:5555:6666]:4711".parse().unwrap();
    script.session = Session::new(client, script.now, &script.policy);
    let room = script.room(Side::Client);
    script.read(Side::Client, &request.as_bytes()[..room]);
    script.finds_nothing_idle();
    script.connects();
    let got = pumps(&mut script, &request.as_bytes()[room..], RING_BYTES);
    let fields = "x: y\r\n".repeat(90);
    let sent = format!(
        "POST / HTTP/1.1\r\nHost: a.test\r\n{fields}long: {filler}\r\nContent-Length: 50000\r\nVia: 1.1 {name}\r\n\
         Forwarded: for=\"[2001:db8:1111:2222:3333:4444:5555:6666]\"\r\n\r\n{body}"
    );
    assert!(got == sent.as_bytes(), "{} bytes, not {}", got.len(), sent.len());
    script.answers(
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nVia: 1.1 {name}\r\n\r\n").as_bytes(),
    );
    script.parks();
    script.records();
    script.leaves(&["done"]);
}

#[test]
fn forwarding_body_byte_by_byte() {
    for (fields, body) in [(LENGTH_4, "body"), (CHUNKED, "4\r\nbody\r\n0\r\nX: y\r\n\r\n")] {
        let mut script = sent_head(fields);
        let mut got = Vec::new();
        for byte in body.as_bytes() {
            script.event(Side::Client, READABLE);
            script.read(Side::Client, &[*byte]);
            while script.session.step() == Step::Write(Side::Upstream) {
                got.extend_from_slice(script.session.drain_slice(Side::Upstream));
                let offered = script.session.drain_slice(Side::Upstream).len();
                script.does(Step::Write(Side::Upstream), Outcome::Moved(offered));
            }
            script.waits();
        }
        assert_eq!(String::from_utf8(got).unwrap(), body);
        assert_eq!(script.pool.lent(), 0);
        // What comes now is another request, and stays outside.
        script.event(Side::Client, READABLE);
        script.waits();
        script.answers(OK, TOLD);
        script.parks();
        script.records();
        script.does(Step::Read(Side::Client), Outcome::Blocked);
        script.waits();
        script.leaves(&["done"]);
    }
}

#[test]
fn forwarding_body_and_the_next_request_in_one_read() {
    for (fields, body) in [
        (LENGTH_4, "body"),
        ("Content-Length: 0\r\n", ""),
        (CHUNKED, "4\r\nbody\r\n0\r\n\r\n"),
        (CHUNKED, "0\r\n\r\n"),
    ] {
        let mut script = Script::forwarding(&[&post(fields, body)[..], GET].concat());
        script.writes(Side::Upstream, &posted(fields, body));
        script.waits();
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
}

#[test]
fn forwarding_no_storage_for_the_body() {
    let mut script = sent_head(LENGTH_4);
    script.event(Side::Client, READABLE);
    script.does(Step::Read(Side::Client), Outcome::NoStorage);
    assert!(script.session.is_starved());
    script.waits();
    script.session.on_storage();
    script.read(Side::Client, b"body");
    script.writes(Side::Upstream, b"body");
    script.waits();
    script.answers(OK, TOLD);
    script.parks();
    script.idles();
    script.leaves(&["done"]);
}

#[test]
fn forwarding_rumours() {
    let mut script = sent_head(LENGTH_4);
    for side in [Side::Client, Side::Upstream] {
        script.event(side, Ready { readable: true, ..WRITABLE });
    }
    script.does(Step::Read(Side::Client), Outcome::Blocked);
    script.does(Step::Read(Side::Upstream), Outcome::Blocked);
    script.waits();
    for side in [Side::Client, Side::Upstream] {
        script.event(side, Ready { error: true, ..NOTHING });
        script.does(Step::TakeError(side), Outcome::Done);
    }
    script.waits();
    script.comes(b"body");
    script.does(Step::Write(Side::Upstream), Outcome::Blocked);
    script.waits();
    script.event(Side::Upstream, WRITABLE);
    script.writes(Side::Upstream, b"body");
    script.event(Side::Upstream, READABLE);
    script.does(Step::Read(Side::Upstream), Outcome::Blocked);
    script.waits();
    script.event(Side::Upstream, READABLE);
    script.read(Side::Upstream, OK);
    script.does(Step::Write(Side::Client), Outcome::Blocked);
    script.waits();
    script.event(Side::Client, WRITABLE);
    script.writes(Side::Client, TOLD);
    script.event(Side::Upstream, READABLE);
    script.does(Step::Read(Side::Upstream), Outcome::Blocked);
    script.parks();
    script.idles();
    script.leaves(&["done"]);
}

#[test]
fn forwarding_answer_before_the_head_is_out() {
    // It answers nothing, and is not looked at until something is asked.
    let mut script = Script::forwarding(GET);
    script.does(Step::Write(Side::Upstream), Outcome::Moved(9));
    script.does(Step::Write(Side::Upstream), Outcome::Blocked);
    script.event(Side::Upstream, READABLE);
    script.waits();
    script.event(Side::Upstream, WRITABLE);
    script.writes(Side::Upstream, &SENT[9..]);
    script.read(Side::Upstream, OK);
    script.writes(Side::Client, TOLD);
    script.parks();
    script.idles();
    script.leaves(&["done"]);
}

// The client fails inside its body.

#[test]
fn forwarding_client_end_inside_the_body() {
    let mut script = sent_head(LENGTH_4);
    script.event(Side::Client, CLOSED);
    script.read(Side::Client, b"bod");
    script.writes(Side::Upstream, b"bod");
    script.does(Step::Read(Side::Client), Outcome::Eof);
    script.closes_telling(400, "http_request_error", &["http_request_error"]);
}

#[test]
fn forwarding_client_reset_inside_the_body() {
    let mut script = sent_head(LENGTH_4);
    script.event(Side::Client, BROKEN);
    script.does(Step::Read(Side::Client), Outcome::Failed(Failure::Reset));
    script.ends(EndReason::ClientReset);
    assert_eq!(script.resets(), (false, true), "the origin must not take it for the whole");
}

#[test]
fn forwarding_client_reset_while_the_upstream_takes_nothing() {
    let mut script = sent_head(LENGTH_4);
    script.comes(b"bod");
    script.does(Step::Write(Side::Upstream), Outcome::Blocked);
    script.waits();
    script.event(Side::Client, BROKEN);
    script.does(Step::TakeError(Side::Client), Outcome::Failed(Failure::Reset));
    script.ends(EndReason::ClientReset);
    assert_eq!(script.resets(), (false, true));
}

#[test]
fn forwarding_bad_chunk_with_the_head() {
    let mut script = Script::after(&post(CHUNKED, "4\r\nbody\r\nx\r\n"));
    assert_eq!(script.asked_for(), "POST http://a.test/");
    script.closes_telling(400, "http_request_error", &["http_request_error"]);
}

#[test]
fn forwarding_bad_chunk() {
    let mut script = sent_head(CHUNKED);
    script.comes(b"4\r\nbody\r\n");
    script.writes(Side::Upstream, b"4\r\nbody\r\n");
    script.comes(b"4 \r\nbody\r\n0\r\n\r\n");
    script.closes_telling(400, "http_request_error", &["http_request_error"]);
}

#[test]
fn forwarding_bad_chunk_behind_the_beginning_of_the_answer() {
    let mut script = sent_head(CHUNKED);
    script.event(Side::Upstream, READABLE);
    script.read(Side::Upstream, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe");
    script.writes(
        Side::Client,
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\nVia: 1.1 adit\r\n\r\nhe",
    );
    script.comes(b"x\r\n");
    // Its length says that it was cut.
    script.lingers(EndReason::Refused("http_request_error"), &["http_request_error"]);
    assert_eq!(script.session.record(script.now).status, Some(200));
}

/// Where nothing but the end of the connection ends the answer, an end in order would make it look complete.
#[test]
fn forwarding_bad_chunk_behind_the_beginning_of_an_answer_until_close() {
    let mut script = sent_head(CHUNKED);
    script.event(Side::Upstream, READABLE);
    script.read(Side::Upstream, b"HTTP/1.1 200 OK\r\n\r\nhe");
    script.writes(Side::Client, b"HTTP/1.1 200 OK\r\nConnection: close\r\nVia: 1.1 adit\r\n\r\nhe");
    script.comes(b"x\r\n");
    script.ends(EndReason::Refused("http_request_error"));
    assert_eq!(script.resets(), (true, false));
}

/// It has its answer, and no reason to send the rest.
#[test]
fn forwarding_client_end_inside_the_body_behind_the_beginning_of_the_answer() {
    for (head, told_head, until_close) in [
        ("HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nConnection: close\r\nVia: 1.1 adit\r\n\r\n", true),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\nVia: 1.1 adit\r\n\r\n",
            false,
        ),
    ] {
        let mut script = sent_head(CHUNKED);
        script.answers([head, "he"].concat().as_bytes(), [told_head, "he"].concat().as_bytes());
        script.event(Side::Client, CLOSED);
        script.read(Side::Client, b"4\r\nbo");
        script.writes(Side::Upstream, b"4\r\nbo");
        script.does(Step::Read(Side::Client), Outcome::Eof);
        script.waits();
        assert_eq!(script.session.deadline(), Some((Kind::HalfOpen, script.now.after(60_000))));
        script.answers(b"llo", b"llo");
        if until_close {
            script.event(Side::Upstream, CLOSED);
            script.does(Step::Read(Side::Upstream), Outcome::Eof);
        }
        script.does(Step::CloseUpstream, Outcome::Done);
        script.lingers(EndReason::Done, &["done"]);
    }
}

#[test]
fn forwarding_client_end_inside_the_body_and_the_answer_stalls() {
    let mut script = sent_head(CHUNKED);
    script.answers(
        b"HTTP/1.1 200 OK\r\n\r\nhe",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nVia: 1.1 adit\r\n\r\nhe",
    );
    script.event(Side::Client, CLOSED);
    script.does(Step::Read(Side::Client), Outcome::Eof);
    script.waits();
    // Perhaps it waits for the rest of the request, which will never come.
    script.expires(Kind::HalfOpen, 60_000);
    script.ends(EndReason::HalfOpenTimeout);
    assert!(script.resets().0, "it must not look complete");
}

#[test]
fn forwarding_client_end_inside_the_body_and_then_its_reset() {
    let mut script = sent_head(CHUNKED);
    script.answers(
        b"HTTP/1.1 200 OK\r\n\r\nhe",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nVia: 1.1 adit\r\n\r\nhe",
    );
    script.event(Side::Client, CLOSED);
    script.does(Step::Read(Side::Client), Outcome::Eof);
    script.waits();
    script.event(Side::Client, BROKEN);
    script.does(Step::TakeError(Side::Client), Outcome::Failed(Failure::Reset));
    script.ends(EndReason::ClientReset);
    assert_eq!(script.resets(), (false, true));
}

#[test]
fn forwarding_body_stalls() {
    let mut script = sent_head(LENGTH_4);
    script.now = script.now.after(50_000);
    script.comes(b"bod");
    script.writes(Side::Upstream, b"bod");
    script.waits();
    script.expires(Kind::Response, 60_000);
    script.closes_telling(408, "http_request_error", &["http_request_error"]);
}

#[test]
fn forwarding_upstream_takes_nothing() {
    let mut script = sent_head(LENGTH_4);
    script.comes(b"bod");
    script.does(Step::Write(Side::Upstream), Outcome::Blocked);
    script.waits();
    script.expires(Kind::Response, 60_000);
    script.closes_telling(504, "http_response_timeout", &["http_response_timeout"]);
}

// The answer comes while the body still goes.

#[test]
fn forwarding_early_answer() {
    let mut script = sent_head("Content-Length: 1000\r\n");
    script.event(Side::Upstream, READABLE);
    script.read(Side::Upstream, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nDate: now\r\n\r\nhe");
    script.writes(Side::Client, &TOLD_LAST[..TOLD_LAST.len() - 3]);
    // Both go on.
    script.comes(b"more");
    script.writes(Side::Upstream, b"more");
    script.waits();
    script.event(Side::Client, READABLE);
    script.event(Side::Upstream, READABLE);
    script.read(Side::Upstream, b"llo");
    script.writes(Side::Client, b"llo");
    script.does(Step::CloseUpstream, Outcome::Done);
    script.does(Step::ShutdownWrite(Side::Client), Outcome::Done);
    script.records();
    script.does(Step::Discard, Outcome::Moved(992));
    script.does(Step::Discard, Outcome::Blocked);
    script.waits();
    assert_eq!(script.pool.lent(), 0);
    script.event(Side::Client, CLOSED);
    script.does(Step::Discard, Outcome::Eof);
    script.ends_after(EndReason::Done, &["done"]);
    assert_eq!(script.resets(), (false, false));
}

#[test]
fn forwarding_early_answer_to_a_body_that_is_whole_by_its_end() {
    let mut script = sent_head(LENGTH_4);
    script.event(Side::Upstream, READABLE);
    script.read(Side::Upstream, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nDate: now\r\n\r\nhe");
    script.writes(Side::Client, &TOLD_LAST[..TOLD_LAST.len() - 3]);
    script.comes(b"body");
    script.writes(Side::Upstream, b"body");
    script.event(Side::Upstream, READABLE);
    script.read(Side::Upstream, b"llo");
    script.writes(Side::Client, b"llo");
    // The client was told that its connection closes; the other one is good for others.
    script.parks();
    script.lingers(EndReason::Done, &["done"]);
}

#[test]
fn forwarding_answer_while_the_whole_body_is_not_out() {
    // It has come in whole, so that another request may follow; but the upstream still waits for it.
    let mut script = Script::forwarding(&[&post(LENGTH_4, "body")[..], GET].concat());
    let sent = posted(LENGTH_4, "body");
    script.does(Step::Write(Side::Upstream), Outcome::Moved(sent.len() - 2));
    script.does(Step::Write(Side::Upstream), Outcome::Blocked);
    script.waits();
    script.answers(OK, TOLD);
    script.does(Step::CloseUpstream, Outcome::Done);
    script.records();
    script.finds_nothing_idle();
    script.connects();
    script.writes(Side::Upstream, SENT);
    script.answers(OK, TOLD);
    script.parks();
    script.idles();
    script.leaves(&["done", "done"]);
}

#[test]
fn forwarding_write_fails_with_an_answer_to_be_read() {
    for failure in [Failure::Reset, Failure::BrokenPipe] {
        let mut script = sent_head("Content-Length: 1000\r\n");
        script.comes(b"more");
        script.event(Side::Client, READABLE);
        script.does(Step::Write(Side::Upstream), Outcome::Failed(failure));
        // Nothing more is taken from the client for an upstream that takes nothing.
        script.read(Side::Upstream, TOO_LARGE);
        script.writes(Side::Client, TOLD_TOO_LARGE);
        script.does(Step::CloseUpstream, Outcome::Done);
        script.does(Step::ShutdownWrite(Side::Client), Outcome::Done);
        let record = script.session.record(script.now);
        assert_eq!((record.status, record.end), (Some(413), "done"));
        script.lingers(EndReason::Done, &["done"]);
    }
}

#[test]
fn forwarding_upstream_breaks_with_an_answer_to_be_read() {
    let mut script = sent_head("Content-Length: 1000\r\n");
    script.event(Side::Upstream, Ready { error: true, ..NOTHING });
    script.does(Step::TakeError(Side::Upstream), Outcome::Failed(Failure::Reset));
    // Nothing more is taken from the client for an upstream that takes nothing.
    script.event(Side::Client, READABLE);
    script.read(Side::Upstream, TOO_LARGE);
    script.writes(Side::Client, TOLD_TOO_LARGE);
    script.does(Step::CloseUpstream, Outcome::Done);
    script.lingers(EndReason::Done, &["done"]);
}

#[test]
fn forwarding_write_fails_and_there_is_no_answer() {
    for (failure, met) in [
        (Failure::Reset, Outcome::Eof),
        (Failure::BrokenPipe, Outcome::Eof),
        (Failure::TimedOut, Outcome::Failed(Failure::Reset)),
    ] {
        let mut script = sent_head("Content-Length: 1000\r\n");
        script.comes(b"more");
        script.does(Step::Write(Side::Upstream), Outcome::Failed(failure));
        script.does(Step::Read(Side::Upstream), Outcome::Blocked);
        script.waits();
        script.event(Side::Upstream, CLOSED);
        script.does(Step::Read(Side::Upstream), met);
        script.closes_telling(502, "http_response_incomplete", &["http_response_incomplete"]);
    }
}

#[test]
fn forwarding_write_fails_before_the_head_is_out_and_an_answer_is_there() {
    let mut script = Script::forwarding(&post(LENGTH_4, "body"));
    script.does(Step::Write(Side::Upstream), Outcome::Moved(9));
    script.does(Step::Write(Side::Upstream), Outcome::Failed(Failure::BrokenPipe));
    script.read(Side::Upstream, b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    script.writes(Side::Client, b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nVia: 1.1 adit\r\n\r\n");
    script.does(Step::CloseUpstream, Outcome::Done);
    script.idles();
    script.leaves(&["done"]);
}

// Expect: 100-continue.

#[test]
fn forwarding_continue() {
    let mut script = sent_head(EXPECTS);
    script.answers(CONTINUE, TOLD_CONTINUE);
    script.waits();
    script.comes(b"body");
    script.writes(Side::Upstream, b"body");
    script.waits();
    script.answers(OK, TOLD);
    assert_eq!(script.session.record(script.now).status, Some(200));
    script.parks();
    script.idles();
    script.leaves(&["done"]);
}

#[test]
fn forwarding_body_that_does_not_wait_for_the_continue() {
    let mut script = sent_head(EXPECTS);
    script.comes(b"body");
    script.writes(Side::Upstream, b"body");
    script.waits();
    // It came too late, and is passed on all the same.
    script.answers(&[CONTINUE, OK].concat(), TOLD_CONTINUE);
    script.writes(Side::Client, TOLD);
    script.parks();
    script.idles();
    script.leaves(&["done"]);
}

#[test]
fn forwarding_answer_instead_of_a_continue() {
    let mut script = sent_head(EXPECTS);
    script.answers(TOO_LARGE, TOLD_TOO_LARGE);
    // What the client sends now is a body or another request: nobody can tell.
    script.does(Step::CloseUpstream, Outcome::Done);
    script.does(Step::ShutdownWrite(Side::Client), Outcome::Done);
    script.records();
    script.event(Side::Client, READABLE);
    script.does(Step::Discard, Outcome::Moved(4));
    script.does(Step::Discard, Outcome::Blocked);
    script.waits();
    script.expires(Kind::Linger, LINGER_MS);
    script.ends_after(EndReason::Done, &["done"]);
}

#[test]
fn forwarding_no_continue_in_time() {
    let mut script = sent_head(EXPECTS);
    script.expires(Kind::Response, 60_000);
    script.closes_telling(504, "http_response_timeout", &["http_response_timeout"]);
}

#[test]
fn forwarding_no_body_behind_the_continue() {
    let mut script = sent_head(EXPECTS);
    script.now = script.now.after(30_000);
    script.answers(CONTINUE, TOLD_CONTINUE);
    script.waits();
    script.expires(Kind::Response, 60_000);
    script.closes_telling(408, "http_request_error", &["http_request_error"]);
}

/// Other interim answers do not tell the client to go on: it is still the origin that is waited for.
#[test]
fn forwarding_no_continue_behind_another_interim_answer() {
    let mut script = sent_head(EXPECTS);
    script.answers(
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\nVia: 1.1 adit\r\n\r\n",
    );
    script.waits();
    script.expires(Kind::Response, 60_000);
    script.closes_telling(504, "http_response_timeout", &["http_response_timeout"]);
}

#[test]
fn forwarding_expectation_of_an_old_client() {
    // It cannot be meant, and is dropped (RFC 9110 10.1.1).
    let request = b"POST http://a.test/ HTTP/1.0\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n";
    let mut script = Script::forwarding(request);
    script.writes(
        Side::Upstream,
        b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\nVia: 1.0 adit\r\n\r\n",
    );
    script.waits();
    script.event(Side::Upstream, READABLE);
    script.read(Side::Upstream, CONTINUE);
    script.waits();
    script.comes(b"body");
    script.writes(Side::Upstream, b"body");
    script.answers(OK, TOLD_LAST);
    script.parks();
    script.ends(EndReason::Done);
}
