//! Answers on their way down: framing, interim ones, what is cut short, what is too much.

use super::*;

const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
const TOLD_CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nVia: 1.1 adit\r\n\r\n";
/// Why a body is not believed whose chunk begins like no size.
const NOT_A_SIZE: &str = "the size of a chunk is not a plain hexadecimal number with CRLF or ; behind it";
const LENGTH_5: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
const TOLD_LENGTH_5: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nVia: 1.1 adit\r\n\r\n";
const UNTIL_CLOSE: &str = "HTTP/1.1 200 OK\r\n\r\n";
const TOLD_UNTIL_CLOSE: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\nVia: 1.1 adit\r\n\r\n";
const HINTS: &[u8] = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n";
const TOLD_HINTS: &[u8] = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\nVia: 1.1 adit\r\n\r\n";

/// A client of HTTP/1.0 has asked.
#[track_caller]
fn asked_by_an_old_client() -> Script {
    let mut script = Script::forwarding(b"GET http://a.test/ HTTP/1.0\r\n\r\n");
    script.writes(Side::Upstream, b"GET / HTTP/1.1\r\nHost: a.test\r\nVia: 1.0 adit\r\n\r\n");
    script.waits();
    script
}

/// Asked with HEAD.
#[track_caller]
fn asked_for_the_head() -> Script {
    let mut script = Script::forwarding(b"HEAD http://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n");
    script.writes(Side::Upstream, b"HEAD / HTTP/1.1\r\nHost: a.test\r\nVia: 1.1 adit\r\n\r\n");
    script.waits();
    script
}

/// The upstream has all of `bytes` ready, and the client takes at most `at_once` bytes and then blocks. Returns what the
/// client got, up to where there is nothing to read or write any more.
#[track_caller]
fn pumps(script: &mut Script, bytes: &[u8], at_once: usize) -> Vec<u8> {
    let (mut sent, mut got) = (0, Vec::new());
    script.event(Side::Upstream, READABLE);
    loop {
        assert!(script.pool.lent() <= 1, "a body is streamed, not collected");
        match script.session.step() {
            Step::Read(Side::Upstream) if sent == bytes.len() => {
                script.does(Step::Read(Side::Upstream), Outcome::Blocked);
            }
            Step::Read(Side::Upstream) => {
                let count = script.room(Side::Upstream).min(bytes.len() - sent);
                script.read(Side::Upstream, &bytes[sent..sent + count]);
                sent += count;
            }
            Step::Write(Side::Client) => {
                let offered = script.session.drain_slice(Side::Client);
                let count = offered.len().min(at_once);
                got.extend_from_slice(&offered[..count]);
                script.does(Step::Write(Side::Client), Outcome::Moved(count));
                if count == at_once && script.session.step() == Step::Write(Side::Client) {
                    script.does(Step::Write(Side::Client), Outcome::Blocked);
                    script.event(Side::Upstream, READABLE);
                    script.waits();
                    script.event(Side::Client, WRITABLE);
                }
            }
            Step::Wait if sent < bytes.len() => script.event(Side::Upstream, READABLE),
            _ => return got,
        }
    }
}

fn told_same(got: &[u8], head: &str, body: &[u8]) -> bool {
    got.strip_prefix(head.as_bytes()) == Some(body)
}

#[test]
fn forwarding_answer_larger_than_a_ring() {
    let body: Vec<u8> = (0..100_000).map(|at| b'a' + (at % 23) as u8).collect();
    let chunked = [b"186a0;x=y\r\n", &body[..], b"\r\n0\r\nX-Sum: 1\r\n\r\n"].concat();
    let kept = [b"186a0\r\n", &body[..], b"\r\n0\r\nX-Sum: 1\r\n\r\n"].concat();
    for at_once in [1_000, 16_384, 1 << 20] {
        let mut script = Script::asked();
        let head = LENGTH_5.replace('5', "100000");
        let got = pumps(&mut script, &[head.as_bytes(), &body].concat(), at_once);
        assert!(told_same(&got, &TOLD_LENGTH_5.replace('5', "100000"), &body));
        assert_eq!(script.session.record(script.now).down_bytes, got.len() as u64);
        script.parks();
        script.idles();
        script.comes(GET);
        script.reuses();
        script.writes(Side::Upstream, SENT);
        script.waits();
        let got = pumps(&mut script, &[CHUNKED.as_bytes(), &chunked].concat(), at_once);
        assert!(told_same(&got, TOLD_CHUNKED, &kept));
        script.parks();
        script.idles();
        script.comes(GET);
        script.reuses();
        script.writes(Side::Upstream, SENT);
        script.waits();
        let got = pumps(&mut script, &[UNTIL_CLOSE.as_bytes(), &body].concat(), at_once);
        assert!(told_same(&got, TOLD_UNTIL_CLOSE, &body));
        script.waits();
        assert_eq!(script.pool.lent(), 0);
        script.event(Side::Upstream, CLOSED);
        script.does(Step::Read(Side::Upstream), Outcome::Eof);
        script.does(Step::CloseUpstream, Outcome::Done);
        script.lingers(EndReason::Done, &["done", "done", "done"]);
    }
}

#[test]
fn forwarding_answer_byte_by_byte() {
    for (head, told_head, body) in [
        (LENGTH_5, TOLD_LENGTH_5, "hello"),
        (CHUNKED, TOLD_CHUNKED, "5\r\nhello\r\n0\r\n\r\n"),
        (CHUNKED, TOLD_CHUNKED, "0\r\nX: y\r\n\r\n"),
    ] {
        let mut script = Script::asked();
        let bytes = [head, body].concat();
        let mut got = Vec::new();
        let begun = script.now;
        for (at, byte) in bytes.as_bytes().iter().enumerate() {
            script.now = script.now.after(1);
            script.event(Side::Upstream, READABLE);
            script.read(Side::Upstream, &[*byte]);
            // Not a byte of the head gives it more time.
            let last = script.session.deadline();
            if at + 1 < head.len() {
                assert_eq!(last, Some((Kind::Response, begun.after(60_000))));
            } else {
                assert!(matches!(last, Some((Kind::Idle, due)) if due > begun.after(60_000)), "{last:?}");
            }
            if script.session.step() == Step::Write(Side::Client) {
                got.extend_from_slice(script.session.drain_slice(Side::Client));
                let offered = script.session.drain_slice(Side::Client).len();
                script.does(Step::Write(Side::Client), Outcome::Moved(offered));
            }
            if at + 1 < bytes.len() {
                script.waits();
            }
        }
        assert_eq!(String::from_utf8(got).unwrap(), [told_head, body].concat());
        script.parks();
        script.idles();
        script.leaves(&["done"]);
    }
}

#[test]
fn forwarding_first_byte_of_the_body_is_not_held_back() {
    let mut script = Script::asked();
    script.answers([LENGTH_5, "h"].concat().as_bytes(), [TOLD_LENGTH_5, "h"].concat().as_bytes());
    script.waits();
    assert_eq!(script.pool.lent(), 0, "nothing is kept of what is delivered");
}

#[test]
fn forwarding_answer_that_says_how_it_ends() {
    for (answer, told) in [
        (
            "HTTP/1.1 200 OK\r\nConnection: close, X-Hop\r\nX-Hop: y\r\nContent-Length: 5\r\n\r\nhello",
            [TOLD_LENGTH_5, "hello"].concat(),
        ),
        (
            "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            [&TOLD_LENGTH_5.replace("1.1 adit", "1.0 adit"), "hello"].concat(),
        ),
        (
            "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nKeep-Alive: 5\r\nContent-Length: 5\r\n\r\nhello",
            [&TOLD_LENGTH_5.replace("1.1 adit", "1.0 adit"), "hello"].concat(),
        ),
    ] {
        let mut script = Script::asked();
        script.answers(answer.as_bytes(), told.as_bytes());
        script.does(Step::CloseUpstream, Outcome::Done);
        script.idles();
        script.leaves(&["done"]);
    }
}

#[test]
fn forwarding_answer_with_the_end_of_its_connection() {
    // Announced with the data, so that it need not be read.
    let mut script = Script::asked();
    script.event(Side::Upstream, CLOSED);
    script.read(Side::Upstream, OK);
    script.writes(Side::Client, TOLD);
    script.does(Step::CloseUpstream, Outcome::Done);
    script.idles();
    script.leaves(&["done"]);
}

#[test]
fn forwarding_upstream_ends_while_the_answer_waits_for_the_client() {
    for news in [CLOSED, BROKEN] {
        let mut script = Script::asked();
        script.event(Side::Upstream, READABLE);
        script.read(Side::Upstream, OK);
        script.does(Step::Write(Side::Client), Outcome::Moved(9));
        script.does(Step::Write(Side::Client), Outcome::Blocked);
        script.waits();
        script.event(Side::Upstream, news);
        if news.error {
            script.does(Step::TakeError(Side::Upstream), Outcome::Failed(Failure::Reset));
        }
        script.waits();
        script.event(Side::Client, WRITABLE);
        script.writes(Side::Client, &TOLD[9..]);
        script.does(Step::CloseUpstream, Outcome::Done);
        script.idles();
        script.leaves(&["done"]);
    }
}

#[test]
fn forwarding_error_that_is_not_taken_yet() {
    let mut script = Script::asked();
    script.event(Side::Upstream, READABLE);
    script.read(Side::Upstream, OK);
    script.event(Side::Upstream, Ready { error: true, ..NOTHING });
    script.writes(Side::Client, TOLD);
    script.does(Step::CloseUpstream, Outcome::Done);
    script.idles();
    script.leaves(&["done"]);
}

// Without a body.

#[test]
fn forwarding_answer_without_a_body() {
    for (answer, told) in [
        (
            "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
            "HTTP/1.1 204 No Content\r\nVia: 1.1 adit\r\n\r\n",
        ),
        ("HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 204 No Content\r\nVia: 1.1 adit\r\n\r\n"),
        (
            "HTTP/1.1 304 Not Modified\r\nETag: x\r\nContent-Length: 5\r\n\r\n",
            "HTTP/1.1 304 Not Modified\r\nETag: x\r\nContent-Length: 5\r\nVia: 1.1 adit\r\n\r\n",
        ),
        (
            "HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 \r\nContent-Length: 0\r\nVia: 1.1 adit\r\n\r\n",
        ),
    ] {
        let mut script = Script::asked();
        script.answers(answer.as_bytes(), told.as_bytes());
        script.parks();
        script.idles();
        script.leaves(&["done"]);
    }
    for (answer, told) in [
        (LENGTH_5, TOLD_LENGTH_5),
        (CHUNKED, "HTTP/1.1 200 OK\r\nVia: 1.1 adit\r\n\r\n"),
        (UNTIL_CLOSE, "HTTP/1.1 200 OK\r\nVia: 1.1 adit\r\n\r\n"),
    ] {
        let mut script = asked_for_the_head();
        script.answers(answer.as_bytes(), told.as_bytes());
        script.parks();
        script.idles();
        script.leaves(&["done"]);
    }
}

// Surplus.

/// An answer that nobody asked for.
const POISON: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";

#[test]
fn forwarding_surplus_in_the_same_read() {
    for (answer, told) in [
        (LENGTH_5.to_owned() + "hello", TOLD_LENGTH_5.to_owned() + "hello"),
        (CHUNKED.to_owned() + "5\r\nhello\r\n0\r\n\r\n", TOLD_CHUNKED.to_owned() + "5\r\nhello\r\n0\r\n\r\n"),
        ("HTTP/1.1 204 No Content\r\n\r\n".into(), "HTTP/1.1 204 No Content\r\nVia: 1.1 adit\r\n\r\n".into()),
        (
            "HTTP/1.1 304 Not Modified\r\n\r\n".into(),
            "HTTP/1.1 304 Not Modified\r\nVia: 1.1 adit\r\n\r\n".into(),
        ),
    ] {
        for surplus in ["\r\n", "x", POISON] {
            let mut script = Script::forwarding(&GET.repeat(2));
            script.writes(Side::Upstream, SENT);
            script.answers([&answer, surplus].concat().as_bytes(), told.as_bytes());
            script.does(Step::CloseUpstream, Outcome::Done);
            script.records();
            // The next exchange has another connection and its own answer.
            script.finds_nothing_idle();
            script.connects();
            script.writes(Side::Upstream, SENT);
            script.waits();
            script.answers(OK, TOLD);
            script.parks();
            script.idles();
            script.leaves(&["done", "done"]);
        }
    }
}

#[test]
fn forwarding_surplus_behind_the_answer_to_head() {
    let mut script = asked_for_the_head();
    script.answers([LENGTH_5, "hello"].concat().as_bytes(), TOLD_LENGTH_5.as_bytes());
    script.does(Step::CloseUpstream, Outcome::Done);
    script.idles();
    script.leaves(&["done"]);
}

#[test]
fn forwarding_surplus_in_another_read() {
    let mut script = Script::asked();
    script.event(Side::Upstream, READABLE);
    script.read(Side::Upstream, OK);
    script.does(Step::Write(Side::Client), Outcome::Blocked);
    script.event(Side::Upstream, READABLE);
    script.waits();
    script.event(Side::Client, WRITABLE);
    script.writes(Side::Client, TOLD);
    script.read(Side::Upstream, POISON.as_bytes());
    script.does(Step::CloseUpstream, Outcome::Done);
    script.idles();
    script.leaves(&["done"]);
}

/// A read that leaves no room does not say whether there was more.
#[test]
fn forwarding_answer_exactly_as_large_as_the_ring() {
    for (outcome, next) in [
        (Outcome::Blocked, Step::Park),
        (Outcome::Moved(1), Step::CloseUpstream),
        (Outcome::Eof, Step::CloseUpstream),
        (Outcome::Failed(Failure::Reset), Step::CloseUpstream),
        (Outcome::NoStorage, Step::CloseUpstream),
    ] {
        let mut script = Script::asked();
        script.event(Side::Upstream, READABLE);
        let room = script.room(Side::Upstream);
        let length = room - LENGTH_5.len() - "1234".len();
        let body = "y".repeat(length);
        let head = LENGTH_5.replace('5', &length.to_string());
        let answer = head + &body;
        assert_eq!(answer.len(), room);
        script.read(Side::Upstream, answer.as_bytes());
        script.writes(Side::Client, (TOLD_LENGTH_5.replace('5', &length.to_string()) + &body).as_bytes());
        script.does(Step::Read(Side::Upstream), outcome);
        if next == Step::Park {
            script.parks();
        } else {
            script.does(next, Outcome::Done);
        }
        script.idles();
        script.leaves(&["done"]);
    }
}

// Until the connection ends.

#[test]
fn forwarding_until_close_ends() {
    for version in ["1.1", "1.0"] {
        let mut script = Script::asked();
        let head = UNTIL_CLOSE.replace("1.1", version);
        let told = TOLD_UNTIL_CLOSE.replace("Via: 1.1", &format!("Via: {version}"));
        script.answers((head + "hel").as_bytes(), (told + "hel").as_bytes());
        script.waits();
        script.answers(b"lo", b"lo");
        script.event(Side::Upstream, CLOSED);
        script.does(Step::Read(Side::Upstream), Outcome::Eof);
        script.does(Step::CloseUpstream, Outcome::Done);
        script.lingers(EndReason::Done, &["done"]);
    }
}

#[test]
fn forwarding_until_close_is_reset() {
    let mut script = Script::asked();
    script.answers(
        (UNTIL_CLOSE.to_owned() + "hel").as_bytes(),
        (TOLD_UNTIL_CLOSE.to_owned() + "hel").as_bytes(),
    );
    script.event(Side::Upstream, BROKEN);
    script.does(Step::Read(Side::Upstream), Outcome::Failed(Failure::Reset));
    script.ends_after(EndReason::UpstreamReset, &["upstream_reset"]);
    assert_eq!(script.resets(), (true, false), "an end in order would make it look complete");
}

#[test]
fn forwarding_until_close_is_reset_while_the_client_takes_nothing() {
    let mut script = Script::asked();
    script.event(Side::Upstream, READABLE);
    script.read(Side::Upstream, (UNTIL_CLOSE.to_owned() + "hel").as_bytes());
    script.does(Step::Write(Side::Client), Outcome::Blocked);
    script.event(Side::Upstream, BROKEN);
    script.does(Step::TakeError(Side::Upstream), Outcome::Failed(Failure::Reset));
    script.waits();
    // What there was still goes out.
    script.event(Side::Client, WRITABLE);
    script.writes(Side::Client, (TOLD_UNTIL_CLOSE.to_owned() + "hel").as_bytes());
    script.does(Step::Read(Side::Upstream), Outcome::Eof);
    script.ends_after(EndReason::UpstreamReset, &["upstream_reset"]);
    assert_eq!(script.resets(), (true, false));
}

#[test]
fn forwarding_until_close_ends_and_is_reset_behind_its_end() {
    let mut script = Script::asked();
    script.event(Side::Upstream, READABLE);
    script.read(Side::Upstream, (UNTIL_CLOSE.to_owned() + "hello").as_bytes());
    script.does(Step::Write(Side::Client), Outcome::Blocked);
    script.event(Side::Upstream, BROKEN);
    script.does(Step::TakeError(Side::Upstream), Outcome::Failed(Failure::BrokenPipe));
    script.waits();
    script.event(Side::Client, WRITABLE);
    script.writes(Side::Client, (TOLD_UNTIL_CLOSE.to_owned() + "hello").as_bytes());
    script.does(Step::Read(Side::Upstream), Outcome::Eof);
    script.does(Step::CloseUpstream, Outcome::Done);
    // It had said all before it stopped listening.
    script.lingers(EndReason::Done, &["done"]);
}

#[test]
fn forwarding_until_close_with_bytes_of_another_answer() {
    // Whatever comes is its body.
    let mut script = Script::asked();
    script.answers(
        (UNTIL_CLOSE.to_owned() + POISON).as_bytes(),
        (TOLD_UNTIL_CLOSE.to_owned() + POISON).as_bytes(),
    );
    script.event(Side::Upstream, CLOSED);
    script.does(Step::Read(Side::Upstream), Outcome::Eof);
    script.does(Step::CloseUpstream, Outcome::Done);
    script.lingers(EndReason::Done, &["done"]);
}

// Cut short.

#[test]
fn forwarding_cut_short() {
    for (head, told_head, body) in [
        (LENGTH_5, TOLD_LENGTH_5, "hell"),
        (LENGTH_5, TOLD_LENGTH_5, ""),
        (CHUNKED, TOLD_CHUNKED, ""),
        (CHUNKED, TOLD_CHUNKED, "5\r\nhel"),
        (CHUNKED, TOLD_CHUNKED, "5\r\nhello\r\n"),
        (CHUNKED, TOLD_CHUNKED, "5\r\nhello\r\n0\r\n"),
        (CHUNKED, TOLD_CHUNKED, "5\r\nhello\r\n0\r\nX: y\r\n"),
    ] {
        for (outcome, reason) in [
            (Outcome::Eof, EndReason::Incomplete),
            (Outcome::Failed(Failure::Reset), EndReason::UpstreamReset),
            (Outcome::Failed(Failure::BrokenPipe), EndReason::Incomplete),
        ] {
            // Another request is behind it, and goes nowhere: its answer could not be told from the rest of this one.
            let mut script = Script::forwarding(&GET.repeat(2));
            script.writes(Side::Upstream, SENT);
            script.event(Side::Upstream, CLOSED);
            script.read(Side::Upstream, [head, body].concat().as_bytes());
            script.writes(Side::Client, [told_head, body].concat().as_bytes());
            script.does(Step::Read(Side::Upstream), outcome);
            // Its framing says that it was cut; a reset might erase what has come of it.
            script.lingers(reason, &[reason.word()]);
            assert_eq!(script.session.record(script.now).status, Some(200));
        }
    }
}

#[test]
fn forwarding_cut_inside_a_trailer() {
    let mut script = Script::asked();
    script.event(Side::Upstream, CLOSED);
    script.read(Side::Upstream, (CHUNKED.to_owned() + "0\r\nX: unfinis").as_bytes());
    // It cannot be known yet whether this trailer goes on.
    script.writes(Side::Client, (TOLD_CHUNKED.to_owned() + "0\r\n").as_bytes());
    script.does(Step::Read(Side::Upstream), Outcome::Eof);
    script.lingers(EndReason::Incomplete, &["http_response_incomplete"]);
}

#[test]
fn forwarding_bad_chunk_of_the_upstream() {
    let mut script = Script::forwarding(&GET.repeat(2));
    script.writes(Side::Upstream, SENT);
    let good = "5\r\nhello\r\n";
    script.answers((CHUNKED.to_owned() + good).as_bytes(), (TOLD_CHUNKED.to_owned() + good).as_bytes());
    script.event(Side::Upstream, READABLE);
    script.read(Side::Upstream, b"5 \r\nhello\r\n0\r\n\r\n");
    // The last chunk is missing.
    script.lingers(EndReason::BadResponse(NOT_A_SIZE), &["http_protocol_error"]);
}

#[test]
fn forwarding_bad_chunk_with_the_head_of_the_upstream() {
    let mut script = Script::asked();
    script.answers((CHUNKED.to_owned() + "x\r\n").as_bytes(), TOLD_CHUNKED.as_bytes());
    script.lingers(EndReason::BadResponse(NOT_A_SIZE), &["http_protocol_error"]);
    assert_eq!(script.session.record(script.now).status, Some(200));
}

// Not an answer.

#[test]
fn forwarding_bad_answer() {
    for bad in [
        "SSH-2.0-x\r\n",
        "ICY 200 OK\r\n\r\n",
        "HTTP/2 200\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 099 OK\r\n\r\n",
        "HTTP/1.1 200 OK\n\n",
        "\r\nHTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX : a\r\n\r\n",
    ] {
        let mut script = Script::forwarding(&GET.repeat(2));
        script.writes(Side::Upstream, SENT);
        script.event(Side::Upstream, READABLE);
        // Nothing behind it is believed.
        script.read(Side::Upstream, [bad, POISON].concat().as_bytes());
        script.closes_telling(502, "http_protocol_error", &["http_protocol_error"]);
    }
}

#[test]
fn forwarding_head_of_the_answer_is_too_large() {
    for start in ["HTTP/1.1 200 OK\r\nX: ", "HTTP/1.1 200 "] {
        let mut script = Script::asked();
        script.answers(HINTS, TOLD_HINTS);
        script.event(Side::Upstream, READABLE);
        script.read(Side::Upstream, (start.to_owned() + &"y".repeat(10_000)).as_bytes());
        script.waits();
        assert_eq!(script.pool.lent(), 1);
        script.event(Side::Upstream, READABLE);
        script.read(Side::Upstream, "y".repeat(10_000).as_bytes());
        script.closes_telling(
            502,
            "http_response_header_section_size",
            &["http_response_header_section_size"],
        );
    }
}

#[test]
fn forwarding_largest_head_of_an_answer_with_as_much_body_as_fits() {
    let filler =
        "y".repeat(scan::MAX_HEAD_BYTES - "HTTP/1.1 200 OK\r\nX: \r\nContent-Length: 20000\r\n\r\n".len());
    let head = format!("HTTP/1.1 200 OK\r\nX: {filler}\r\nContent-Length: 20000\r\n\r\n");
    assert_eq!(head.len(), scan::MAX_HEAD_BYTES);
    let body = "z".repeat(20_000);
    let mut script = Script::asked();
    let got = pumps(&mut script, [&head[..], &body].concat().as_bytes(), 1 << 20);
    let told = format!("HTTP/1.1 200 OK\r\nX: {filler}\r\nContent-Length: 20000\r\nVia: 1.1 adit\r\n\r\n");
    assert!(told_same(&got, &told, body.as_bytes()));
    script.parks();
    script.idles();
    script.leaves(&["done"]);
}

#[test]
fn forwarding_upstream_ends_inside_the_head() {
    for part in ["", "H", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n"] {
        for outcome in [Outcome::Eof, Outcome::Failed(Failure::Reset)] {
            let mut script = Script::asked();
            script.event(Side::Upstream, CLOSED);
            if !part.is_empty() {
                script.read(Side::Upstream, part.as_bytes());
            }
            script.does(Step::Read(Side::Upstream), outcome);
            script.tells(502, "http_response_incomplete", KEEPS);
            script.idles();
            script.leaves(&["http_response_incomplete"]);
        }
    }
}

// Interim ones.

#[test]
fn forwarding_interim_answers() {
    let mut script = Script::asked();
    script.answers(HINTS, TOLD_HINTS);
    script.waits();
    assert_eq!(script.session.record(script.now).status, None);
    assert_eq!(script.pool.lent(), 0);
    script.event(Side::Upstream, READABLE);
    script.read(Side::Upstream, &[HINTS, HINTS, OK].concat());
    script.writes(Side::Client, TOLD_HINTS);
    script.writes(Side::Client, TOLD_HINTS);
    script.writes(Side::Client, TOLD);
    assert_eq!(script.session.record(script.now).status, Some(200));
    script.parks();
    script.idles();
    script.leaves(&["done"]);
}

#[test]
fn forwarding_interim_answer_that_says_how_its_connection_ends() {
    let mut script = Script::asked();
    script.answers(
        b"HTTP/1.1 102 Processing\r\nConnection: close\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 102 Processing\r\nVia: 1.1 adit\r\n\r\n",
    );
    script.answers(OK, TOLD);
    script.parks();
    script.idles();
    script.leaves(&["done"]);
}

#[test]
fn forwarding_as_many_interim_answers_as_may_be() {
    let mut script = Script::asked();
    script.event(Side::Upstream, READABLE);
    script.read(Side::Upstream, &[&HINTS.repeat(usize::from(INTERIM_MAX)), OK].concat());
    for _ in 0..INTERIM_MAX {
        script.writes(Side::Client, TOLD_HINTS);
    }
    script.writes(Side::Client, TOLD);
    script.parks();
    script.idles();
    script.leaves(&["done"]);
}

#[test]
fn forwarding_too_many_interim_answers() {
    for old in [false, true] {
        let mut script = if old { asked_by_an_old_client() } else { Script::asked() };
        script.event(Side::Upstream, READABLE);
        script.read(Side::Upstream, &[&HINTS.repeat(33), OK].concat());
        for _ in 0..if old { 0 } else { 32 } {
            script.writes(Side::Client, TOLD_HINTS);
        }
        script.closes_telling(502, "http_protocol_error", &["http_protocol_error"]);
    }
}

/// A refusal cannot be told in the middle of an interim answer.
#[test]
fn forwarding_timeout_inside_an_interim_answer() {
    let mut script = Script::asked();
    script.event(Side::Upstream, READABLE);
    script.read(Side::Upstream, HINTS);
    script.does(Step::Write(Side::Client), Outcome::Moved(9));
    script.does(Step::Write(Side::Client), Outcome::Blocked);
    script.waits();
    script.expires(Kind::Response, 60_000);
    script.lingers(EndReason::Refused("http_response_timeout"), &["http_response_timeout"]);
    assert_eq!(script.session.record(script.now).status, None);
}

// A client of HTTP/1.0.

#[test]
fn forwarding_chunked_answer_to_an_old_client() {
    let mut script = asked_by_an_old_client();
    let answer =
        "HTTP/1.1 200 OK\r\nTrailer: X\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n7\r\n wor";
    script.answers(answer.as_bytes(), (TOLD_UNTIL_CLOSE.to_owned() + "hello wor").as_bytes());
    script.answers(b"ld!\r\n0\r\nX: y\r\n\r\n", b"ld!");
    // The origin may be asked again, the client is told that this was all by the end of its connection.
    script.parks();
    script.ends(EndReason::Done);
    assert_eq!(script.resets(), (false, false));
}

#[test]
fn forwarding_last_chunk_to_an_old_client() {
    let mut script = asked_by_an_old_client();
    script.answers(
        (CHUNKED.to_owned() + "5\r\nhello\r\n").as_bytes(),
        (TOLD_UNTIL_CLOSE.to_owned() + "hello").as_bytes(),
    );
    script.event(Side::Upstream, READABLE);
    // Nothing of this goes on.
    script.read(Side::Upstream, b"0\r\n\r\n");
    script.parks();
    script.ends(EndReason::Done);
}

#[test]
fn forwarding_chunked_answer_to_an_old_client_is_cut() {
    for (outcome, reason) in [
        (Outcome::Eof, EndReason::Incomplete),
        (Outcome::Failed(Failure::Reset), EndReason::UpstreamReset),
        (Outcome::Failed(Failure::TimedOut), EndReason::UpstreamVanished),
    ] {
        let mut script = asked_by_an_old_client();
        script.event(Side::Upstream, CLOSED);
        script.read(Side::Upstream, (CHUNKED.to_owned() + "5\r\nhello\r\n").as_bytes());
        script.writes(Side::Client, (TOLD_UNTIL_CLOSE.to_owned() + "hello").as_bytes());
        script.does(Step::Read(Side::Upstream), outcome);
        script.ends(reason);
        assert_eq!(script.resets(), (true, false), "it must not look complete");
    }
}

#[test]
fn forwarding_bad_chunk_to_an_old_client() {
    let mut script = asked_by_an_old_client();
    script.answers(
        (CHUNKED.to_owned() + "5\r\nhello\r\n").as_bytes(),
        (TOLD_UNTIL_CLOSE.to_owned() + "hello").as_bytes(),
    );
    script.event(Side::Upstream, READABLE);
    script.read(Side::Upstream, b"x\r\n");
    script.ends(EndReason::BadResponse(NOT_A_SIZE));
    assert_eq!(script.resets(), (true, false), "it must not look complete");
}

#[test]
fn forwarding_interim_answer_to_an_old_client() {
    let mut script = asked_by_an_old_client();
    script.event(Side::Upstream, READABLE);
    script.read(Side::Upstream, HINTS);
    script.waits();
    assert_eq!(script.pool.lent(), 0);
    let told = b"HTTP/1.1 200 OK\r\nDate: now\r\nContent-Length: 5\r\nConnection: close\r\nVia: 1.1 adit\r\n\r\nhello";
    script.answers(&[HINTS, HINTS, OK].concat(), told);
    script.parks();
    script.ends(EndReason::Done);
}

#[test]
fn forwarding_answer_cut_by_its_length_to_an_old_client() {
    let mut script = asked_by_an_old_client();
    script.event(Side::Upstream, CLOSED);
    script.read(Side::Upstream, (LENGTH_5.to_owned() + "hel").as_bytes());
    let told = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\nVia: 1.1 adit\r\n\r\nhel";
    script.writes(Side::Client, told.as_bytes());
    script.does(Step::Read(Side::Upstream), Outcome::Eof);
    script.ends(EndReason::Incomplete);
    assert_eq!(script.resets(), (false, false));
}

/// What is there before a byte of the request has gone out answers nothing.
#[test]
fn forwarding_answer_before_the_request() {
    let mut script = Script::forwarding(GET);
    script.event(Side::Upstream, READABLE);
    script.read(Side::Upstream, OK);
    script.closes_telling(502, "http_protocol_error", &["http_protocol_error"]);
}

#[test]
fn forwarding_false_alarm_before_the_request() {
    let mut script = Script::forwarding(GET);
    script.event(Side::Upstream, READABLE);
    script.does(Step::Read(Side::Upstream), Outcome::Blocked);
    script.writes(Side::Upstream, SENT);
    script.answers(OK, TOLD);
    script.parks();
    script.idles();
    script.leaves(&["done"]);
}

#[test]
fn forwarding_answer_before_the_request_over_a_reused_connection() {
    let mut script = Script::reusing(GET);
    script.event(Side::Upstream, READABLE);
    script.read(Side::Upstream, OK);
    script.connects();
    script.writes(Side::Upstream, SENT);
    script.answers(OK, TOLD);
    script.parks();
    script.idles();
    script.leaves(&["done", "done"]);
}

/// Trailers may be named by `Connection` too, and fields there end here.
#[test]
fn forwarding_trailers_of_who_names_fields() {
    for (named, told) in
        [("X-Hop", "2\r\nhi\r\n0\r\n\r\n"), ("TE, keep-alive", "2\r\nhi\r\n0\r\nX-Hop: y\r\n\r\n")]
    {
        let mut script = Script::asked();
        let answer = format!(
            "HTTP/1.1 200 OK\r\nConnection: {named}\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Hop: y\r\n\r\n"
        );
        let told = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nVia: 1.1 adit\r\n\r\n{told}");
        script.answers(answer.as_bytes(), told.as_bytes());
        script.parks();
        script.idles();
        script.leaves(&["done"]);
    }
}
