//! One exchange behind another on a client's connection.

use super::*;

#[test]
fn forwarding_whole_answer() {
    let mut script = Script::asked();
    script.event(Side::Upstream, READABLE);
    script.read(Side::Upstream, OK);
    assert_eq!(script.session.follows(Side::Client), Follows::Anything, "it is kept");
    script.writes(Side::Client, TOLD);
    let record = script.session.record(script.now);
    assert_eq!((record.status, record.end), (Some(200), "-"));
    assert_eq!((record.up_bytes, record.down_bytes), (SENT.len() as u64, TOLD.len() as u64));
    script.parks();
    assert_eq!(script.session.record(script.now).end, "done");
    script.idles();
    script.expires(Kind::KeepAlive, 60_000);
    script.ends_after(EndReason::Unused, &["done"]);
}

#[test]
fn idle_next_request() {
    let mut script = Script::kept();
    script.now = Tick(30_000);
    script.comes(b"HEAD http://a.test/y HTTP/1.1\r\nHost: a.test\r\n\r\n");
    script.now = Tick(30_004);
    script.reuses();
    script.writes(Side::Upstream, b"HEAD /y HTTP/1.1\r\nHost: a.test\r\nVia: 1.1 adit\r\n\r\n");
    assert_eq!(script.session.deadline(), Some((Kind::Response, Tick(90_004))));
    script.now = Tick(30_010);
    script.answers(
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nVia: 1.1 adit\r\n\r\n",
    );
    script.parks();
    let record = script.session.record(script.now);
    assert_eq!(record.total_ms, 10, "counted from its own first byte");
    assert_eq!(script.asked_for(), "HEAD http://a.test/y");
    script.idles();
    script.leaves(&["done", "done"]);
}

#[test]
fn idle_next_request_in_pieces() {
    let mut script = Script::kept();
    script.now = Tick(30_000);
    script.comes(&GET[..1]);
    for at in 1..GET.len() - 1 {
        script.waits();
        assert_eq!(script.session.deadline(), Some((Kind::Head, Tick(40_000))), "from its first byte on");
        script.now = script.now.after(1);
        script.comes(&GET[at..=at]);
    }
    script.comes(&GET[GET.len() - 1..]);
    script.reuses();
    script.writes(Side::Upstream, SENT);
    script.answers(OK, TOLD);
    script.parks();
    script.idles();
    script.leaves(&["done", "done"]);
}

#[test]
fn idle_is_given_up_for_another_client() {
    let mut script = Script::new();
    assert_eq!(script.session.idle_until(), None, "it has only just come");
    script.read(Side::Client, &GET[..5]);
    assert_eq!(script.session.idle_until(), None);
    let mut script = Script::kept();
    assert_eq!(script.session.idle_until(), Some(script.now.after(60_000)));
    script.event(Side::Client, READABLE);
    assert_eq!(script.session.idle_until(), None, "it may have asked");
    script.does(Step::Read(Side::Client), Outcome::Blocked);
    assert_eq!(script.session.idle_until(), Some(script.now.after(60_000)));
    script.session.give_up();
    script.ends_after(EndReason::Unused, &["done"]);
    assert_eq!(script.resets(), (false, false));
}

#[test]
fn idle_rumour() {
    let mut script = Script::kept();
    script.event(Side::Client, Ready { readable: true, ..WRITABLE });
    script.does(Step::Read(Side::Client), Outcome::Blocked);
    script.waits();
    // It is no reason to be kept for longer.
    script.expires(Kind::KeepAlive, 60_000);
    script.ends_after(EndReason::Unused, &["done"]);
}

#[test]
fn idle_client_reset() {
    let mut script = Script::kept();
    script.event(Side::Client, BROKEN);
    script.does(Step::Read(Side::Client), Outcome::Failed(Failure::Reset));
    script.ends_after(EndReason::Unused, &["done"]);
}

#[test]
fn idle_next_request_without_storage() {
    let mut script = Script::kept();
    script.now = Tick(30_000);
    script.event(Side::Client, READABLE);
    script.does(Step::Read(Side::Client), Outcome::NoStorage);
    script.now = Tick(30_002);
    let answer = script.tells(503, "connection_limit_reached", CLOSES);
    assert!(!answer.contains("a.test"), "that was the last request: {answer}");
    let record = script.session.record(script.now);
    assert_eq!(record.request.to_string(), "- -");
    assert_eq!((record.rule, record.via, record.total_ms), (None, None, 2));
    script.lingers(EndReason::Refused("connection_limit_reached"), &["done", "connection_limit_reached"]);
}

/// The method is remembered for the framing of the answer: not any longer than its exchange lasts.
fn kept_behind_head() -> Script {
    let mut script = Script::kept();
    script.comes(b"HEAD http://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n");
    script.reuses();
    script.writes(Side::Upstream, b"HEAD / HTTP/1.1\r\nHost: a.test\r\nVia: 1.1 adit\r\n\r\n");
    script.answers(
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nVia: 1.1 adit\r\n\r\n",
    );
    script.parks();
    script.idles();
    script
}

#[test]
fn head_of_the_next_request_is_bad() {
    for bad in [
        &b"\x16\x03\x01"[..],
        b"GET http://b.test/ HTTP/1.1\n",
        b"GET /x HTTP/1.1\r\nHost: b.test\r\n\r\n",
        b"GET http://b.test/ HTTP/1.1\r\nHost: b.test\r\nContent-Length: 1, 1\r\n\r\n",
        b"CONNECT b.test HTTP/1.1\r\nHost: b.test\r\n\r\n",
    ] {
        let mut script = kept_behind_head();
        // Nothing behind it is believed.
        script.comes(&[bad, GET].concat());
        let answer = script.tells(400, "http_request_error", CLOSES);
        assert!(!answer.contains("a.test") && !answer.ends_with("\r\n\r\n"), "{answer}");
        let record = script.session.record(script.now);
        assert_eq!(record.request.to_string(), "- -", "{}", bad.escape_ascii());
        assert_eq!((record.rule, record.via), (None, None));
        script.lingers(EndReason::Refused("http_request_error"), &["done", "done", "http_request_error"]);
    }
}

#[test]
fn head_of_the_next_request_is_not_complete_in_time() {
    let mut script = kept_behind_head();
    script.comes(&GET[..20]);
    script.waits();
    script.expires(Kind::Head, 10_000);
    script.tells(408, "http_request_error", CLOSES);
    script.lingers(EndReason::Refused("http_request_error"), &["done", "done", "http_request_error"]);
}

#[test]
fn head_of_the_next_request_ends_inside() {
    let mut script = kept_behind_head();
    script.event(Side::Client, CLOSED);
    script.read(Side::Client, &GET[..20]);
    script.does(Step::Read(Side::Client), Outcome::Eof);
    script.tells(400, "http_request_error", CLOSES);
    script.lingers(EndReason::Refused("http_request_error"), &["done", "done", "http_request_error"]);
}

#[test]
fn head_of_the_next_request_grace_over() {
    let mut script = Script::kept();
    script.comes(&GET[..20]);
    script.session.on_grace_over(script.now, &script.policy);
    script.tells(503, "proxy_internal_response", CLOSES);
    script.lingers(EndReason::Refused("proxy_internal_response"), &["done", "proxy_internal_response"]);
}

#[test]
fn forwarding_second_request_in_the_same_read() {
    let second = b"GET http://a.test/second HTTP/1.1\r\nHost: a.test\r\n\r\n";
    let mut script = Script::forwarding(&[GET, second].concat());
    script.writes(Side::Upstream, SENT);
    script.waits();
    assert_eq!(script.pool.lent(), 1, "it waits its turn in the ring");
    // More of what the client sends stays outside until the answer is delivered.
    script.event(Side::Client, READABLE);
    script.waits();
    script.answers(OK, TOLD);
    script.parks();
    assert_eq!(script.asked_for(), "GET http://a.test/x");
    script.records();
    assert_eq!(script.asked_for(), "GET http://a.test/second");
    script.reuses();
    script.writes(Side::Upstream, b"GET /second HTTP/1.1\r\nHost: a.test\r\nVia: 1.1 adit\r\n\r\n");
    script.waits();
    script.answers(OK, TOLD);
    script.parks();
    script.records();
    script.does(Step::Read(Side::Client), Outcome::Blocked);
    script.waits();
    assert_eq!(script.pool.lent(), 0);
    script.leaves(&["done", "done"]);
}

#[test]
fn forwarding_part_of_the_second_request_in_the_same_read() {
    let mut script = Script::forwarding(&[GET, &GET[..30]].concat());
    script.writes(Side::Upstream, SENT);
    script.now = Tick(20_000);
    script.answers(OK, TOLD);
    script.parks();
    script.records();
    script.waits();
    assert_eq!(script.session.deadline(), Some((Kind::Head, Tick(30_000))), "from when its turn came");
    script.comes(&GET[30..]);
    script.reuses();
    script.writes(Side::Upstream, SENT);
    script.answers(OK, TOLD);
    script.parks();
    script.idles();
    script.leaves(&["done", "done"]);
}

/// More requests than a ring holds, of all lengths, with and without bodies: in their order, and each with its own answer.
#[test]
fn forwarding_a_thousand_requests_at_once() {
    let mut script = Script::new();
    let request = |at: usize| {
        let filler = "y".repeat(at * 7 % 1500);
        let body = "z".repeat(at * 5 % 40);
        match at % 3 {
            0 => (
                format!("GET http://a.test/{at} HTTP/1.1\r\nHost: a.test\r\nX: {filler}\r\n\r\n"),
                String::new(),
            ),
            1 => (
                format!(
                    "POST http://a.test/{at} HTTP/1.1\r\nHost: a.test\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                ),
                body,
            ),
            _ => (
                format!(
                    "POST http://a.test/{at} HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n\
                     1;x\r\na\r\n0\r\n\r\n"
                ),
                "1\r\na\r\n0\r\n\r\n".into(),
            ),
        }
    };
    let all: String = (0..1000).map(|at| request(at).0).collect();
    let (mut sent, mut answered, mut got) = (0, 0, Vec::new());
    while answered < 1000 {
        match script.session.step() {
            Step::Read(Side::Client) => {
                let count = script.room(Side::Client).min(all.len() - sent);
                script.read(Side::Client, &all.as_bytes()[sent..sent + count]);
                sent += count;
            }
            Step::TakeIdle if script.parked.is_empty() => {
                script.finds_nothing_idle();
                script.connects();
            }
            Step::TakeIdle => script.reuses(),
            Step::Write(Side::Upstream) => {
                let offered = script.session.drain_slice(Side::Upstream);
                let count = offered.len().min(1_000);
                got.extend_from_slice(&offered[..count]);
                script.does(Step::Write(Side::Upstream), Outcome::Moved(count));
            }
            Step::Wait => {
                let (method, body) =
                    if answered % 3 == 0 { ("GET", "") } else { ("POST", &*request(answered).1) };
                let text = String::from_utf8(std::mem::take(&mut got)).unwrap();
                assert!(
                    text.starts_with(&format!("{method} /{answered} HTTP/1.1\r\nHost: a.test\r\n")),
                    "{text}"
                );
                assert_eq!(text.split_once("\r\n\r\n").unwrap().1, body);
                script.waits();
                let head = format!("HTTP/1.1 200 OK\r\nX: {answered}\r\nContent-Length: 2\r\n");
                let answer = format!("{head}\r\nok");
                script.answers(answer.as_bytes(), format!("{head}Via: 1.1 adit\r\n\r\nok").as_bytes());
                script.parks();
                assert_eq!(script.asked_for(), format!("{method} http://a.test/{answered}"));
                script.records();
                answered += 1;
            }
            step => panic!("{answered}: {step:?}"),
        }
    }
    assert_eq!((sent, script.lines.len()), (all.len(), 1000));
    script.waits();
    assert_eq!(script.pool.lent(), 0);
}

#[test]
fn forwarding_second_request_whose_body_is_still_to_come() {
    let mut script = Script::forwarding(&[GET, &post("Content-Length: 9\r\n", "some")].concat());
    script.writes(Side::Upstream, SENT);
    script.waits();
    script.event(Side::Client, READABLE);
    script.answers(OK, TOLD);
    script.parks();
    script.records();
    script.reuses();
    script.writes(Side::Upstream, &posted("Content-Length: 9\r\n", "some"));
    script.read(Side::Client, &[b" more", GET].concat());
    script.writes(Side::Upstream, b" more");
    script.waits();
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

#[test]
fn idle_next_request_to_another_origin() {
    let mut script = Script::new();
    script.policy = policy_with(&[], &["b.test"]);
    script.read(Side::Client, GET);
    script.finds_nothing_idle();
    script.connects();
    script.writes(Side::Upstream, SENT);
    script.answers(OK, TOLD);
    script.parks();
    script.idles();
    script.comes(b"GET http://b.test:8080/ HTTP/1.1\r\nHost: elsewhere.test\r\n\r\n");
    assert_eq!(script.session.target().unwrap().to_string(), "b.test:8080");
    script.finds_nothing_idle();
    script.does(Step::Resolve, Outcome::Done);
    script.resolved(&["10.1.2.3"]);
    script.does(Step::Dial(0, "10.1.2.3:8080".parse().unwrap()), Outcome::Done);
    script.stands();
    script.writes(Side::Upstream, b"GET / HTTP/1.1\r\nHost: b.test:8080\r\nVia: 1.1 adit\r\n\r\n");
    script.answers(OK, TOLD);
    let record = script.session.record(script.now);
    assert_eq!((record.via, record.rule), (Some("10.1.2.3:8080".parse().unwrap()), Some("allow:b.test")));
    script.parks();
    script.idles();
    // And back: what was allowed for one target says nothing about the other.
    script.comes(b"GET http://A.test HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert_eq!(script.session.target().unwrap().to_string(), "a.test:80");
    script.parked.pop();
    script.reuses();
    script.writes(Side::Upstream, b"GET / HTTP/1.1\r\nHost: a.test\r\nVia: 1.1 adit\r\n\r\n");
    script.answers(OK, TOLD);
    let record = script.session.record(script.now);
    assert_eq!((record.via, record.rule), (Some("203.0.114.5:80".parse().unwrap()), Some("default")));
    script.parks();
    script.idles();
    script.leaves(&["done", "done", "done"]);
}

#[test]
fn idle_next_request_to_another_port_of_the_same_host() {
    let mut script = Script::kept();
    script.comes(b"GET http://a.test:81/ HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert_eq!(script.session.record(script.now).rule, Some("http-port"));
    script.tells(403, "http_request_denied", KEEPS);
    script.idles();
    script.leaves(&["done", "http_request_denied"]);
}

#[test]
fn idle_next_request_is_denied() {
    let mut script = Script::kept();
    script.comes(&[&b"GET http://www.denied.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n"[..], GET].concat());
    let answer = script.tells(403, "http_request_denied", KEEPS);
    assert!(answer.contains("www.denied.test:80: "), "{answer}");
    let record = script.session.record(script.now);
    assert_eq!((record.rule, record.via), (Some("deny:.denied.test"), None));
    assert_eq!(script.asked_for(), "GET http://www.denied.test/");
    script.records();
    // The one behind it is answered all the same, and judged by its own name.
    script.reuses();
    script.writes(Side::Upstream, SENT);
    script.answers(OK, TOLD);
    assert_eq!(script.session.record(script.now).rule, Some("default"));
    script.parks();
    script.idles();
    script.leaves(&["done", "http_request_denied", "done"]);
}

#[test]
fn idle_first_request_is_denied() {
    let mut script = Script::after(b"GET http://a.test:22/ HTTP/1.1\r\nHost: a.test\r\n\r\n");
    script.tells(403, "http_request_denied", KEEPS);
    script.idles();
    script.comes(GET);
    script.finds_nothing_idle();
    script.connects();
    script.writes(Side::Upstream, SENT);
    script.answers(OK, TOLD);
    script.parks();
    script.idles();
    script.leaves(&["http_request_denied", "done"]);
}

#[test]
fn idle_head_request_is_denied() {
    let mut script = Script::after(b"HEAD http://a.test:22/ HTTP/1.1\r\nHost: a.test\r\n\r\n");
    let answer = script.tells(403, "http_request_denied", KEEPS);
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");
    assert!(answer.contains("Content-Length: ") && !answer.contains("Content-Length: 0"), "{answer}");
    script.idles();
    script.leaves(&["http_request_denied"]);
}

#[test]
fn idle_request_with_a_body_is_denied() {
    for (fields, body) in [
        ("Content-Length: 4\r\n", ""),
        ("Content-Length: 4\r\n", "bod"),
        ("Transfer-Encoding: chunked\r\n", "4\r\nbody\r\n0\r\n"),
        ("Content-Length: 4\r\nExpect: 100-continue\r\n", ""),
    ] {
        let request = post(fields, body);
        let denied = String::from_utf8(request).unwrap().replace("a.test", "www.denied.test");
        let mut script = Script::after(denied.as_bytes());
        script.closes_telling(403, "http_request_denied", &["http_request_denied"]);
    }
}

#[test]
fn idle_request_with_a_whole_body_is_denied() {
    for (fields, body) in
        [("Content-Length: 4\r\n", "body"), ("Transfer-Encoding: chunked\r\n", "4\r\nbody\r\n0\r\n\r\n")]
    {
        let request = String::from_utf8(post(fields, body)).unwrap().replace("a.test", "www.denied.test");
        let mut script = Script::after(&[request.as_bytes(), GET].concat());
        script.tells(403, "http_request_denied", KEEPS);
        script.records();
        script.finds_nothing_idle();
        script.connects();
        script.writes(Side::Upstream, SENT);
        script.answers(OK, TOLD);
        script.parks();
        script.idles();
        script.leaves(&["http_request_denied", "done"]);
    }
}

#[test]
fn idle_connect() {
    let mut script = Script::kept();
    assert!(script.session.http.is_some());
    script.comes(&[HEAD, b"early"].concat());
    assert!(script.session.http.is_none(), "a tunnel does not pay for plain HTTP");
    script.does(Step::Resolve, Outcome::Done);
    assert_eq!(script.session.target().unwrap().to_string(), "origin.test:443");
    script.resolved(&[PUBLIC]);
    script.does(dial(PUBLIC), Outcome::Done);
    script.event(Side::Upstream, WRITABLE);
    script.does(Step::ConfirmDial(0), Outcome::Done);
    script.writes(Side::Client, ESTABLISHED);
    script.writes(Side::Upstream, b"early");
    script.waits();
    assert_eq!(script.asked_for(), "CONNECT origin.test:443");
    script.event(Side::Client, CLOSED);
    script.does(Step::Read(Side::Client), Outcome::Eof);
    script.does(Step::ShutdownWrite(Side::Upstream), Outcome::Done);
    script.event(Side::Upstream, CLOSED);
    script.read(Side::Upstream, b"bye");
    script.writes(Side::Client, b"bye");
    script.does(Step::Read(Side::Upstream), Outcome::Eof);
    script.ends_after(EndReason::Done, &["done", "done"]);
    let record = script.session.record(script.now);
    assert_eq!((record.up_bytes, record.down_bytes, record.status), (5, 3, Some(200)));
}

#[test]
fn forwarding_connect_in_the_same_read() {
    let mut script = Script::forwarding(&[GET, HEAD, b"early"].concat());
    script.writes(Side::Upstream, SENT);
    script.answers(OK, TOLD);
    script.parks();
    script.records();
    assert!(script.session.http.is_none());
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
fn idle_connect_is_refused() {
    let mut script = Script::kept();
    // RFC 9931: nothing behind a refused CONNECT is processed.
    script.comes(&[&b"CONNECT origin.test:22 HTTP/1.1\r\nHost: origin.test\r\n\r\n"[..], GET].concat());
    script.closes_telling(403, "http_request_denied", &["done", "http_request_denied"]);
}

/// Rules for a completed name speak for the request whose name it completes, and for no other one.
#[test]
fn idle_connect_is_not_judged_by_the_name_of_the_request_before() {
    let mut script = Script::new();
    script.policy = policy_with(&[], &[".corp.test"]);
    script.read(Side::Client, b"GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n");
    script.finds_nothing_idle();
    script.does(Step::Resolve, Outcome::Done);
    script.session.on_completed("a.corp.test");
    script.resolved(&["10.1.2.3"]);
    script.does(Step::Dial(0, "10.1.2.3:80".parse().unwrap()), Outcome::Failed(Failure::Refused));
    script.tells(502, "connection_refused", KEEPS);
    script.idles();
    script.comes(HEAD);
    script.does(Step::Resolve, Outcome::Done);
    script.resolved(&["169.254.169.254"]);
    script.closes_telling(
        403,
        "destination_ip_prohibited",
        &["connection_refused", "destination_ip_prohibited"],
    );
}

/// The same for another plain HTTP request, and for the same name that is completed to another one.
#[test]
fn idle_next_request_is_not_judged_by_the_name_of_the_request_before() {
    for next in ["b.test", "a"] {
        let mut script = Script::new();
        script.policy = policy_with(&[], &[".corp.test"]);
        script.read(Side::Client, b"GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n");
        script.finds_nothing_idle();
        script.does(Step::Resolve, Outcome::Done);
        script.session.on_completed("a.corp.test");
        script.resolved(&["10.1.2.3"]);
        script.does(Step::Dial(0, "10.1.2.3:80".parse().unwrap()), Outcome::Failed(Failure::Refused));
        script.tells(502, "connection_refused", KEEPS);
        script.idles();
        script.comes(format!("GET http://{next}/ HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
        script.finds_nothing_idle();
        script.does(Step::Resolve, Outcome::Done);
        script.resolved(&["169.254.169.254"]);
        script.tells(403, "destination_ip_prohibited", KEEPS);
        script.idles();
        script.leaves(&["connection_refused", "destination_ip_prohibited"]);
    }
}

#[test]
fn idle_connect_that_cannot_be_understood() {
    let mut script = kept_behind_head();
    script.comes(b"CONNECT b.test:443 HTTP/1.1\r\nHost: b.test\r\nContent-Length: 3\r\n\r\nabc");
    let answer = script.tells(400, "http_request_error", CLOSES);
    assert!(answer.contains("b.test:443: "), "{answer}");
    assert_eq!(script.asked_for(), "CONNECT b.test:443");
    script.lingers(EndReason::Refused("http_request_error"), &["done", "done", "http_request_error"]);
}

/// What broke in one exchange is whole in the next one.
#[test]
fn idle_connect_behind_an_upstream_that_took_nothing() {
    let mut script = Script::forwarding(GET);
    script.does(Step::Write(Side::Upstream), Outcome::Failed(Failure::Reset));
    script.does(Step::Read(Side::Upstream), Outcome::Eof);
    script.tells(502, "http_response_incomplete", KEEPS);
    script.idles();
    script.comes(&[HEAD, b"early"].concat());
    script.does(Step::Resolve, Outcome::Done);
    script.resolved(&[PUBLIC]);
    script.does(dial(PUBLIC), Outcome::Done);
    script.event(Side::Upstream, WRITABLE);
    script.does(Step::ConfirmDial(0), Outcome::Done);
    script.writes(Side::Client, ESTABLISHED);
    script.writes(Side::Upstream, b"early");
    script.waits();
    assert_eq!(script.session.deadline(), Some((Kind::Idle, script.now.after(900_000))));
    script.event(Side::Upstream, CLOSED);
    script.does(Step::Read(Side::Upstream), Outcome::Eof);
    script.does(Step::ShutdownWrite(Side::Client), Outcome::Done);
    script.event(Side::Client, CLOSED);
    script.does(Step::Read(Side::Client), Outcome::Eof);
    script.ends_after(EndReason::Done, &["http_response_incomplete", "done"]);
}

#[test]
fn dialing_http_failure_for_a_client_that_asks_to_close() {
    for request in [
        &b"GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n"[..],
        b"GET http://a.test/ HTTP/1.0\r\n\r\n",
    ] {
        let mut script = Script::after(&[request, GET].concat());
        script.finds_nothing_idle();
        script.does(Step::Resolve, Outcome::Done);
        script.resolved(&[PUBLIC]);
        script.does(dial_http(PUBLIC), Outcome::Failed(Failure::Refused));
        script.closes_telling(502, "connection_refused", &["connection_refused"]);
    }
}

#[test]
fn forwarding_client_asks_to_close() {
    for request in [
        &b"GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n"[..],
        b"GET http://a.test/ HTTP/1.0\r\n\r\n",
        b"GET http://a.test/ HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    ] {
        let via: &[u8] = if request.windows(3).any(|word| word == b"1.0") { b"1.0" } else { b"1.1" };
        let mut script = Script::forwarding(request);
        let sent = [b"GET / HTTP/1.1\r\nHost: a.test\r\nVia: ", via, b" adit\r\n\r\n"].concat();
        script.writes(Side::Upstream, &sent);
        script.waits();
        let (first, rest) = OK.split_at(OK.len() - 2);
        script.answers(
            first,
            b"HTTP/1.1 200 OK\r\nDate: now\r\nContent-Length: 5\r\nConnection: close\r\nVia: 1.1 adit\r\n\r\nhel",
        );
        script.waits();
        script.event(Side::Upstream, READABLE);
        assert_eq!(script.session.follows(Side::Client), Follows::Anything);
        script.read(Side::Upstream, rest);
        assert_eq!(script.session.follows(Side::Client), Follows::End, "its end leaves with the last bytes");
        script.writes(Side::Client, b"lo");
        // The upstream is good for others.
        script.parks();
        script.ends(EndReason::Done);
        assert_eq!(script.resets(), (false, false));
    }
}

#[test]
fn forwarding_client_asks_to_close_and_has_sent_more() {
    let request = b"GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
    let mut script = Script::forwarding(&[&request[..], GET].concat());
    script.writes(Side::Upstream, b"GET / HTTP/1.1\r\nHost: a.test\r\nVia: 1.1 adit\r\n\r\n");
    script.event(Side::Client, READABLE);
    script.event(Side::Upstream, READABLE);
    script.read(Side::Upstream, OK);
    let told = b"HTTP/1.1 200 OK\r\nDate: now\r\nContent-Length: 5\r\nConnection: close\r\nVia: 1.1 adit\r\n\r\nhello";
    script.writes(Side::Client, told);
    script.parks();
    // Closing with bytes unread would be a reset.
    script.does(Step::ShutdownWrite(Side::Client), Outcome::Done);
    script.records();
    script.does(Step::Discard, Outcome::Moved(100));
    script.does(Step::Discard, Outcome::Blocked);
    script.waits();
    assert_eq!(script.pool.lent(), 0);
    script.expires(Kind::Linger, LINGER_MS);
    script.ends_after(EndReason::Done, &["done"]);
    assert_eq!(script.resets(), (false, false));
}

// The proxy is asked itself.

const CAN: &str = "HTTP/1.1 200 OK\r\nAllow: OPTIONS, GET, HEAD, POST, PUT, DELETE, PATCH, TRACE, CONNECT\r\n\
    Content-Length: 0\r\nConnection: keep-alive\r\n\r\n";

#[test]
fn idle_options_of_the_proxy() {
    let mut script = Script::kept();
    script.comes(&[&b"OPTIONS * HTTP/1.1\r\nHost: proxy\r\n\r\n"[..], GET].concat());
    script.writes(Side::Client, CAN.as_bytes());
    let record = script.session.record(script.now);
    assert_eq!((record.status, record.end, record.via, record.rule), (Some(200), "done", None, None));
    assert_eq!((record.up_bytes, record.down_bytes), (0, CAN.len() as u64));
    assert_eq!(script.asked_for(), "OPTIONS *");
    script.records();
    script.reuses();
    script.writes(Side::Upstream, SENT);
    script.answers(OK, TOLD);
    assert_eq!(script.session.record(script.now).rule, Some("default"), "that of the one before still holds");
    script.parks();
    script.idles();
    script.leaves(&["done", "done", "done"]);
}

#[test]
fn idle_options_of_the_proxy_with_a_body() {
    let mut script = Script::after(b"OPTIONS * HTTP/1.1\r\nHost: proxy\r\nContent-Length: 3\r\n\r\nabc");
    script.writes(Side::Client, CAN.replace("keep-alive", "close").as_bytes());
    script.lingers(EndReason::Done, &["done"]);
}

#[test]
fn idle_options_of_the_proxy_while_it_drains() {
    let mut script = Script::kept();
    script.session.on_drain(script.now);
    script.comes(b"OPTIONS * HTTP/1.1\r\nHost: proxy\r\n\r\n");
    script.writes(Side::Client, CAN.replace("keep-alive", "close").as_bytes());
    script.lingers(EndReason::Done, &["done", "done"]);
}

#[test]
fn idle_last_hop() {
    let options = b"OPTIONS http://a.test/ HTTP/1.1\r\nHost: a.test\r\nMax-Forwards: 0\r\n\r\n";
    let mut script = Script::after(options);
    script.writes(Side::Client, CAN.as_bytes());
    assert_eq!(script.asked_for(), "OPTIONS http://a.test/");
    script.idles();
    let trace = b"TRACE http://a.test/ HTTP/1.1\r\nHost: a.test\r\nCookie: x\r\nMax-Forwards: 0\r\n\r\n";
    script.comes(&[&trace[..], GET].concat());
    script.writes(
        Side::Client,
        b"HTTP/1.1 200 OK\r\nContent-Type: message/http\r\nContent-Length: 64\r\nConnection: keep-alive\r\n\r\n\
          TRACE http://a.test/ HTTP/1.1\r\nHost: a.test\r\nMax-Forwards: 0\r\n\r\n",
    );
    script.records();
    script.finds_nothing_idle();
    script.connects();
    script.writes(Side::Upstream, SENT);
    script.answers(OK, TOLD);
    script.parks();
    script.idles();
    script.leaves(&["done", "done", "done"]);
}

#[test]
fn idle_last_hop_but_one() {
    let options = b"OPTIONS http://a.test HTTP/1.1\r\nHost: a.test\r\nMax-Forwards: 1\r\n\r\n";
    let mut script = Script::forwarding(options);
    script.writes(
        Side::Upstream,
        b"OPTIONS * HTTP/1.1\r\nHost: a.test\r\nMax-Forwards: 0\r\nVia: 1.1 adit\r\n\r\n",
    );
    script.waits();
}

#[test]
fn idle_request_that_was_here_before() {
    let request = b"GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\nVia: 1.1 one, 1.1 Adit (x)\r\n\r\n";
    let mut script = Script::after(request);
    script.tells(502, "proxy_loop_detected", KEEPS);
    script.idles();
    // A proxy without a name is in no loop that it could know.
    script.policy.via_field = None;
    script.comes(request);
    script.finds_nothing_idle();
    script.connects();
    script.writes(Side::Upstream, b"GET / HTTP/1.1\r\nHost: a.test\r\nVia: 1.1 one, 1.1 Adit (x)\r\n\r\n");
    script.answers(OK, b"HTTP/1.1 200 OK\r\nDate: now\r\nContent-Length: 5\r\n\r\nhello");
    script.parks();
    script.idles();
    script.leaves(&["proxy_loop_detected", "done"]);
}

#[test]
fn idle_request_that_tells_who_asks() {
    let mut script = Script::new();
    script.policy.forwarded = Forwarded::Added;
    script.read(Side::Client, b"GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n");
    script.finds_nothing_idle();
    script.connects();
    script.writes(
        Side::Upstream,
        b"GET / HTTP/1.1\r\nHost: a.test\r\nVia: 1.1 adit\r\nForwarded: for=10.0.0.7\r\n\r\n",
    );
    script.waits();
}

#[test]
fn head_plain_http_with_a_long_url() {
    let url = format!("http://a.test/{}", "x".repeat(10_000));
    let script = Script::after(format!("GET {url} HTTP/1.1\r\nHost: a.test\r\n\r\n").as_bytes());
    match script.session.record(script.now).request {
        Asked::Http { url: kept, .. } => assert_eq!(kept, &url[..URL_MAX_BYTES]),
        Asked::Nothing | Asked::Connect(_) => panic!("the request is not in the access line"),
    }
}

#[test]
fn head_of_a_bad_target() {
    let mut script = Script::after(b"GET http://2130706433/ HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert_eq!(script.asked_for(), "GET -", "what is not a target is not repeated");
    let answer = script.tells(400, "http_request_error", CLOSES);
    assert!(!answer.contains("2130706433"), "{answer}");
    script.lingers(EndReason::Refused("http_request_error"), &["http_request_error"]);
}
