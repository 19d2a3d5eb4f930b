//! Plain HTTP, end to end on the real binary: how a message is written anew, framed and delivered. Scenarios that make sense
//! without a proxy also run straight to the origin. Time, memory and the access line are in `http_limits.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use support::http_origin::{ByHand, answering, url};
use support::origin::send_pattern;
use support::proxy::Proxy;
use support::wire::{Framing, Message, Wire, ok, request};
use support::{Beside, Ending, Pattern, Road, Tally, TempFile};

both_roads!(
    twenty_pipelined_requests_are_answered_in_order,
    responses_without_a_body_leave_the_next_in_step,
    informational_responses_are_passed_on,
    expect_continue_goes_end_to_end,
    a_refused_expectation_costs_no_body,
    chunks_and_trailers_arrive_both_ways,
    a_body_until_close_is_complete_with_the_end_of_file,
    an_early_final_response_overtakes_the_body,
    a_response_may_begin_while_the_body_still_goes_on,
    a_large_body_with_a_length_arrives_as_sent,
    a_large_chunked_body_arrives_as_sent,
    the_first_byte_of_a_body_waits_for_no_other,
);

/// A proxy that reaches loopback, an origin played by hand, and a client.
fn scene(options: &[&str]) -> (Proxy, ByHand, Wire) {
    let proxy = Proxy::open(options);
    let client = proxy.wire();
    (proxy, ByHand::open(), client)
}

/// Sends this request and takes what arrives at the origin, which answers `ok`.
#[track_caller]
fn forwarded(client: &mut Wire, origin: &ByHand, request: impl AsRef<[u8]>) -> Message {
    client.send(request);
    let mut upstream = origin.accept();
    let arrived = upstream.read_request();
    upstream.send(ok("ok"));
    let response = client.read_response("GET");
    assert_eq!((response.status(), response.text().as_str()), (200, "ok"));
    arrived
}

/// Sends a GET and takes what becomes of this response.
#[track_caller]
fn returned(client: &mut Wire, origin: &ByHand, response: impl AsRef<[u8]>) -> Message {
    client.get(&origin.url("/"));
    let mut upstream = origin.accept();
    upstream.read_request();
    upstream.send(response);
    client.read_response("GET")
}

// The request line and Host.

#[test]
fn absolute_form_becomes_origin_form() {
    let (_proxy, origin, mut client) = scene(&[]);
    let host = origin.addr;
    let cases = [
        (format!("http://{host}/"), "/"),
        (format!("http://{host}"), "/"),
        (format!("http://{host}?q=1"), "/?q=1"),
        (format!("HTTP://{host}/a/b;c?q=1&r=%20%2f/?"), "/a/b;c?q=1&r=%20%2f/?"),
        (format!("http://{host}//double/../dots/."), "//double/../dots/."),
    ];
    let mut upstream = None;
    for (target, path) in cases {
        client.send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        let upstream = upstream.get_or_insert_with(|| origin.accept());
        assert_eq!(upstream.read_request().start, format!("GET {path} HTTP/1.1"), "{target}");
        upstream.send(ok(""));
        client.read_response("GET");
    }
}

#[test]
fn host_comes_from_the_target() {
    let (_proxy, origin, mut client) = scene(&[]);
    let request = format!("GET {} HTTP/1.1\r\nA: 1\r\nHost: other.test:81\r\nB: 2\r\n\r\n", origin.url("/"));
    let arrived = forwarded(&mut client, &origin, request);
    assert_eq!(arrived.field("host"), Some(origin.addr.to_string().as_str()));
    assert_eq!(arrived.fields_but(&["host", "via"]), [("A", "1"), ("B", "2")]);
}

#[test]
fn host_of_a_name_has_the_port_only_where_it_is_not_the_usual() {
    let hosts = TempFile::with("127.0.0.1 a.test\n");
    let (_proxy, origin, mut client) = scene(&["--hosts", &hosts.path]);
    let port = origin.addr.port();
    let arrived = forwarded(&mut client, &origin, request("GET", &format!("http://A.test:{port}/x"), ""));
    assert!(arrived.field("host").unwrap().eq_ignore_ascii_case(&format!("a.test:{port}")), "{arrived:?}");
}

#[test]
fn any_method_goes_on_as_it_is() {
    let (_proxy, origin, mut client) = scene(&[]);
    let mut upstream = None;
    for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "PROPFIND", "get", "M-SEARCH"] {
        client.send(request(method, &origin.url("/m"), "Content-Length: 3\r\n") + "abc");
        let upstream = upstream.get_or_insert_with(|| origin.accept());
        let arrived = upstream.read_request();
        assert_eq!((arrived.start, arrived.body), (format!("{method} /m HTTP/1.1"), b"abc".to_vec()));
        upstream.send(ok(method));
        assert_eq!(client.read_response(method).text(), method);
    }
}

// Fields.

#[test]
fn hop_by_hop_fields_of_a_request_stay_behind() {
    let (_proxy, origin, mut client) = scene(&[]);
    let fields = "A: 1\r\nProxy-Connection: keep-alive\r\nCookie: c=1\r\nConnection: x-private , keep-alive,,X-Second\r\n\
                  X-PRIVATE: p\r\nKeep-Alive: 300\r\nTE: trailers\r\nUpgrade: h2c\r\nb:  spaced \t\r\nx-Second: s\r\n\
                  Proxy-Authorization: Basic YWxpY2U6c2VjcmV0\r\nA: 2\r\nCookie: d=2\r\nEmpty:\r\na: 1\r\nConnection: Third\r\nthird: 3\r\n";
    let arrived = forwarded(&mut client, &origin, request("GET", &origin.url("/"), fields));
    let stays = [
        ("A", "1"),
        ("Cookie", "c=1"),
        ("b", "spaced"),
        ("A", "2"),
        ("Cookie", "d=2"),
        ("Empty", ""),
        ("a", "1"),
    ];
    assert_eq!(arrived.fields_but(&["host", "via"]), stays, "order, spelling and duplicates stay");
}

#[test]
fn hop_by_hop_fields_of_a_response_stay_behind() {
    let (_proxy, origin, mut client) = scene(&[]);
    let response = "HTTP/1.1 203 As it is\r\nSet-Cookie: a=1\r\nConnection: X-Hop, x-Other\r\nx-hop: 1\r\nKeep-Alive: timeout=5\r\n\
                    set-cookie: b=2\r\nProxy-Connection: close\r\nUpgrade: h2c\r\nX-OTHER: 2\r\nTE: x\r\nContent-Length: 2\r\n\
                    Set-Cookie: a=1\r\nServer:\tx y\t\r\n\r\nok";
    let came = returned(&mut client, &origin, response);
    assert_eq!(came.start, "HTTP/1.1 203 As it is");
    let stays = [("Set-Cookie", "a=1"), ("set-cookie", "b=2"), ("Set-Cookie", "a=1"), ("Server", "x y")];
    let ours = ["via", "connection", "content-length"];
    assert_eq!(came.fields_but(&ours), stays, "order, spelling and duplicates stay");
    assert_eq!(came.field("content-length"), Some("2"), "framing is said anew");
    assert!(
        came.keeps_alive() && came.field("connection").is_none_or(|said| said == "keep-alive"),
        "{came:?}"
    );
}

#[test]
fn connection_cannot_name_framing_or_host_away() {
    let (_proxy, origin, mut client) = scene(&[]);
    let fields = "Content-Length: 5\r\nConnection: Content-Length, Host, Via\r\n";
    client.send(request("POST", &origin.url("/"), fields) + "hello");
    let mut upstream = origin.accept();
    let arrived = upstream.read_request();
    assert_eq!((arrived.framing, arrived.text().as_str()), (Framing::Length, "hello"));
    assert_eq!(arrived.field("host"), Some(origin.addr.to_string().as_str()));
    assert_eq!(arrived.all("via"), ["1.1 adit"]);
    upstream.send("HTTP/1.1 200 OK\r\nConnection: content-length\r\nContent-Length: 2\r\n\r\nok");
    assert_eq!(client.read_response("GET").text(), "ok");
    // And the same for chunks.
    let fields = "Transfer-Encoding: chunked\r\nConnection: Transfer-Encoding\r\n";
    client.send(request("POST", &origin.url("/"), fields) + "5\r\nhello\r\n0\r\n\r\n");
    let arrived = upstream.read_request();
    assert_eq!((arrived.framing, arrived.text().as_str()), (Framing::Chunked, "hello"));
    upstream.send("HTTP/1.1 200 OK\r\nConnection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n");
    assert_eq!(client.read_response("GET").text(), "ok");
}

#[test]
fn via_is_added_both_ways_behind_what_is_there() {
    let (_proxy, origin, mut client) = scene(&[]);
    client.send(request("GET", &origin.url("/"), "Via: 1.0 fred, 1.1 other\r\n"));
    let mut upstream = origin.accept();
    assert_eq!(upstream.read_request().all("via").join(", "), "1.0 fred, 1.1 other, 1.1 adit");
    upstream.send("HTTP/1.1 200 OK\r\nVia: 1.1 nginx\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(client.read_response("GET").all("via").join(", "), "1.1 nginx, 1.1 adit");
}

#[test]
fn via_tells_the_version_that_was_received() {
    let (_proxy, origin, mut client) = scene(&[]);
    client.send(format!("GET {} HTTP/1.0\r\n\r\n", origin.url("/")));
    let mut upstream = origin.accept();
    assert_eq!(upstream.read_request().all("via"), ["1.0 adit"]);
    upstream.send("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(client.read_response("GET").all("via"), ["1.0 adit"]);
}

#[test]
fn the_option_via_names_the_proxy() {
    let (_proxy, origin, mut client) = scene(&["--via", "box.example"]);
    client.get(&origin.url("/"));
    let mut upstream = origin.accept();
    assert_eq!(upstream.read_request().all("via"), ["1.1 box.example"]);
    upstream.send(ok(""));
    assert_eq!(client.read_response("GET").all("via"), ["1.1 box.example"]);
}

#[test]
fn via_off_adds_none_and_leaves_others() {
    let (_proxy, origin, mut client) = scene(&["--via", "off"]);
    client.send(request("GET", &origin.url("/"), "Via: 1.1 adit\r\n"));
    let mut upstream = origin.accept();
    assert_eq!(upstream.read_request().all("via"), ["1.1 adit"]);
    upstream.send(ok(""));
    assert_eq!(client.read_response("GET").all("via"), [""; 0]);
}

#[test]
fn forwarded_is_added_only_when_asked_for() {
    let (_proxy, origin, mut client) = scene(&[]);
    let arrived = forwarded(&mut client, &origin, request("GET", &origin.url("/"), "Forwarded: for=a\r\n"));
    assert_eq!(arrived.all("forwarded"), ["for=a"]);
    let (_proxy, origin, mut client) = scene(&["--forwarded"]);
    let arrived = forwarded(&mut client, &origin, request("GET", &origin.url("/"), ""));
    assert_eq!(arrived.all("forwarded"), ["for=127.0.0.1"]);
    let (_proxy, origin, mut client) = scene(&["--forwarded", "--listen", "[::1]:0"]);
    let arrived = forwarded(&mut client, &origin, request("GET", &origin.url("/"), "Forwarded: for=a\r\n"));
    assert_eq!(arrived.all("forwarded").join(", "), "for=a, for=\"[::1]\"");
}

// One connection, many requests.

#[test]
fn one_client_connection_reaches_two_origins() {
    let (_proxy, one, mut client) = scene(&[]);
    let two = ByHand::open();
    let mut upstreams = [None, None];
    for round in 0..3 {
        for (at, origin) in [&one, &two].into_iter().enumerate() {
            client.get(&origin.url(&format!("/{round}")));
            let upstream = upstreams[at].get_or_insert_with(|| origin.accept());
            let arrived = upstream.read_request();
            assert_eq!(arrived.start, format!("GET /{round} HTTP/1.1"));
            assert_eq!(arrived.field("host"), Some(origin.addr.to_string().as_str()));
            let body = format!("{at} {round}");
            upstream.send(ok(&body));
            assert_eq!(client.read_response("GET").text(), body);
        }
    }
}

fn twenty_pipelined_requests_are_answered_in_order(road: &Road) {
    let origin = answering(|request| ok(&request.start).into_bytes());
    let mut client = road.http(origin.addr);
    let all: String =
        (0..20).map(|n| request("GET", &road.target(origin.addr, &format!("/{n}")), "")).collect();
    client.send(all);
    for n in 0..20 {
        assert_eq!(client.read_response("GET").text(), format!("GET /{n} HTTP/1.1"));
    }
}

#[test]
fn pipelined_requests_to_two_origins_are_answered_in_order() {
    let proxy = Proxy::open(&[]);
    let origins = [
        answering(|request| {
            format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{}\r\n0\r\n\r\n",
                &request.start[4..9]
            )
            .into()
        }),
        answering(|request| ok(&request.start).into()),
    ];
    let mut client = proxy.wire();
    let all: String = (0..20)
        .map(|n| {
            request("POST", &url(origins[n % 2].addr, &format!("/{n:04}")), "Content-Length: 3\r\n") + "abc"
        })
        .collect();
    client.send(all);
    for n in 0..20 {
        let wanted = if n % 2 == 0 { format!(" /{:03}", n / 10) } else { format!("POST /{n:04} HTTP/1.1") };
        assert_eq!(client.read_response("POST").text(), wanted);
    }
}

fn responses_without_a_body_leave_the_next_in_step(road: &Road) {
    let origin = answering(|request| {
        let path = request.start.split(' ').nth(1).unwrap();
        let head = match path {
            "/length" => "200 OK\r\nContent-Length: 1000",
            "/chunked" => "200 OK\r\nTransfer-Encoding: chunked",
            "/neither" => "200 OK",
            "/204" => "204 No Content",
            "/304" => "304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 1000",
            _ => return ok("the next").into(),
        };
        format!("HTTP/1.1 {head}\r\n\r\n").into()
    });
    let mut client = road.http(origin.addr);
    for (method, path, status, length) in [
        ("HEAD", "/length", 200, Some("1000")),
        ("HEAD", "/chunked", 200, None),
        ("HEAD", "/neither", 200, None),
        ("GET", "/204", 204, None),
        ("GET", "/304", 304, Some("1000")),
        ("HEAD", "/304", 304, Some("1000")),
    ] {
        client.send(request(method, &road.target(origin.addr, path), ""));
        let response = client.read_response(method);
        assert_eq!(
            (response.status(), response.field("content-length")),
            (status, length),
            "{method} {path}"
        );
        assert!(response.keeps_alive(), "{response:?}");
        client.get(&road.target(origin.addr, "/"));
        assert_eq!(client.read_response("GET").text(), "the next", "behind {method} {path}");
    }
}

// Informational responses.

fn informational_responses_are_passed_on(road: &Road) {
    let origin = ByHand::open();
    let mut client = road.http(origin.addr);
    client.get(&road.target(origin.addr, "/"));
    let mut upstream = origin.accept();
    upstream.read_request();
    for status in ["103 Early Hints", "100 Continue", "102 Processing", "199 Whatever"] {
        upstream.send(format!("HTTP/1.1 {status}\r\nLink: </{status}>\r\n\r\n"));
        // At once: the final response is not there yet.
        let hint = client.read_head();
        assert_eq!(hint.start, format!("HTTP/1.1 {status}"));
        assert_eq!(hint.field("link"), Some(format!("</{status}>").as_str()));
    }
    upstream.send(String::from("HTTP/1.1 103 Early Hints\r\n\r\n") + &ok("final"));
    assert_eq!(client.read_head().status(), 103);
    assert_eq!(client.read_response("GET").text(), "final");
}

#[test]
fn an_http_1_0_client_gets_no_informational_response() {
    let (_proxy, origin, mut client) = scene(&[]);
    client.send(format!("GET {} HTTP/1.0\r\n\r\n", origin.url("/")));
    let mut upstream = origin.accept();
    upstream.read_request();
    upstream.send(
        String::from("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n")
            + &ok("final"),
    );
    let response = client.read_response("GET");
    assert_eq!((response.status(), response.text().as_str()), (200, "final"));
}

fn expect_continue_goes_end_to_end(road: &Road) {
    let origin = ByHand::open();
    let mut client = road.http(origin.addr);
    client.send(request(
        "PUT",
        &road.target(origin.addr, "/"),
        "Expect: 100-continue\r\nContent-Length: 5\r\n",
    ));
    let mut upstream = origin.accept();
    let mut arrived = upstream.read_head();
    assert_eq!(arrived.field("expect"), Some("100-continue"));
    // Whoever sends it: it is the origin's to say.
    assert_eq!(client.waiting(), b"", "nobody but the origin says 100");
    upstream.send("HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(client.read_head().status(), 100);
    client.send("hello");
    arrived.framing = Framing::Length;
    upstream.read_body(&mut arrived);
    assert_eq!(arrived.text(), "hello");
    upstream.send(ok("thanks"));
    assert_eq!(client.read_response("PUT").text(), "thanks");
}

fn a_refused_expectation_costs_no_body(road: &Road) {
    let origin = ByHand::open();
    let mut client = road.http(origin.addr);
    client.send(request(
        "PUT",
        &road.target(origin.addr, "/"),
        "Expect: 100-continue\r\nContent-Length: 500000\r\n",
    ));
    let mut upstream = origin.accept();
    upstream.read_head();
    upstream.send("HTTP/1.1 417 No\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno");
    let response = client.read_response("PUT");
    assert_eq!((response.status(), response.text().as_str()), (417, "no"));
}

// Bodies.

fn chunks_and_trailers_arrive_both_ways(road: &Road) {
    let origin = ByHand::open();
    let mut client = road.http(origin.addr);
    let fields = "Trailer: X-Sum\r\nTransfer-Encoding: Chunked\r\n";
    client.send(request("POST", &road.target(origin.addr, "/"), &fields.replace("Chunked", "chunked")));
    for part in [
        "5\r\nhello\r\n",
        "1\r\n,\r\n",
        "0000B\r\n world and \r\n",
        "3\r\nyou\r\n",
        "0\r\nX-Sum: 1\r\nx-sum: 2\r\n\r\n",
    ] {
        client.send(part);
    }
    let mut upstream = origin.accept();
    let arrived = upstream.read_request();
    assert_eq!((arrived.framing, arrived.text().as_str()), (Framing::Chunked, "hello, world and you"));
    assert_eq!(arrived.trailers, [("X-Sum".into(), "1".into()), ("x-sum".into(), "2".into())]);
    assert_eq!(arrived.field("trailer"), Some("X-Sum"));
    upstream
        .send("HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\nA\r\n0123456789\r\n");
    upstream.send("b\r\nabcdefghijk\r\n0\r\nX-Sum: 3\r\n\r\n");
    let response = client.read_response("POST");
    assert_eq!((response.framing, response.text().as_str()), (Framing::Chunked, "0123456789abcdefghijk"));
    assert_eq!(response.trailers, [("X-Sum".into(), "3".into())]);
    assert_eq!(response.field("trailer"), Some("X-Sum"));
}

#[test]
fn chunk_extensions_are_dropped_both_ways() {
    let (_proxy, origin, mut client) = scene(&[]);
    // `read_request` and `read_response` panic when they meet one.
    let chunks = "5;ext=1\r\nhello\r\n1; a=\"b;\\\"c\" ;d\r\n!\r\n0;last\r\n\r\n";
    client.send(request("POST", &origin.url("/"), "Transfer-Encoding: chunked\r\n") + chunks);
    let mut upstream = origin.accept();
    assert_eq!(upstream.read_request().text(), "hello!");
    upstream.send(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"));
    assert_eq!(client.read_response("POST").text(), "hello!");
}

fn a_body_until_close_is_complete_with_the_end_of_file(road: &Road) {
    let origin = ByHand::open();
    let mut client = road.http(origin.addr);
    client.get(&road.target(origin.addr, "/"));
    let mut upstream = origin.accept();
    upstream.read_request();
    upstream.send("HTTP/1.1 200 OK\r\n\r\nuntil ");
    let mut response = client.read_head();
    upstream.send("the end");
    upstream.finish();
    let chunked = response.field("transfer-encoding").is_some();
    response.framing = if chunked { Framing::Chunked } else { Framing::UntilClose };
    client.read_body(&mut response);
    assert_eq!((response.text().as_str(), response.cut), ("until the end", None));
}

fn an_early_final_response_overtakes_the_body(road: &Road) {
    let origin = ByHand::open();
    let mut client = road.http(origin.addr);
    client.send(request("POST", &road.target(origin.addr, "/"), "Content-Length: 1000000\r\n"));
    client.send([b'x'; 10_000]);
    let mut upstream = origin.accept();
    upstream.read_head();
    upstream.send("HTTP/1.1 413 Too much\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno");
    let response = client.read_response("POST");
    assert_eq!((response.status(), response.text().as_str()), (413, "no"));
    assert!(!response.keeps_alive(), "a request that was cut short is the last: {response:?}");
}

/// A client looks at what has come when it has sent what it had at hand: curl, some MiB on a fast machine.
#[test]
fn an_early_final_response_outlasts_what_the_client_still_sends() {
    const BODY: usize = 20 << 20;
    let (_proxy, origin, mut client) = scene(&[]);
    client.send(request("PUT", &origin.url("/"), &format!("Content-Length: {BODY}\r\n")));
    let mut upstream = origin.accept();
    upstream.read_head();
    upstream.send("HTTP/1.1 413 Too much\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno");
    upstream.read_end();
    client.send(vec![b'x'; BODY]);
    let response = client.read_response("PUT");
    assert_eq!((response.status(), response.text().as_str()), (413, "no"));
}

fn a_response_may_begin_while_the_body_still_goes_on(road: &Road) {
    let origin = ByHand::open();
    let mut client = road.http(origin.addr);
    client.send(request("POST", &road.target(origin.addr, "/"), "Content-Length: 20\r\n") + "0123456789");
    let mut upstream = origin.accept();
    upstream.read_head();
    assert_eq!(upstream.read_n(10), b"0123456789");
    upstream.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n");
    let mut response = client.read_head();
    assert_eq!(client.read_n(10), b"5\r\nfirst\r\n");
    client.send("abcdefghij");
    assert_eq!(upstream.read_n(10), b"abcdefghij", "the rest of the body is not lost");
    upstream.send("6\r\nsecond\r\n0\r\n\r\n");
    response.framing = Framing::Chunked;
    client.read_body(&mut response);
    assert_eq!((response.text().as_str(), response.cut), ("second", None));
}

const LARGE: usize = 8 << 20;

/// `LARGE` bytes, and what their hash is.
fn large() -> (Vec<u8>, Vec<u8>) {
    let mut body = vec![0; LARGE];
    Pattern::new(8).fill(&mut body);
    let mut tally = Tally::new();
    tally.add(&body);
    (body, tally.sha256())
}

/// Sends this from the client while the origin reads, then answers.
#[track_caller]
fn upload(road: &Road, fields: &str, body: Vec<u8>) -> Message {
    let origin = ByHand::open();
    let mut client = road.http(origin.addr);
    let head = request("PUT", &road.target(origin.addr, "/"), fields);
    let sender = std::thread::spawn(move || {
        client.send(head);
        client.send(body);
        assert_eq!(client.read_response("PUT").text(), "got it");
    });
    let mut upstream = origin.accept();
    let arrived = upstream.read_request();
    upstream.send(ok("got it"));
    sender.join().unwrap();
    arrived
}

fn a_large_body_with_a_length_arrives_as_sent(road: &Road) {
    let (body, sha256) = large();
    let arrived = upload(road, &format!("Content-Length: {LARGE}\r\n"), body);
    let mut tally = Tally::new();
    tally.add(&arrived.body);
    assert_eq!((arrived.framing, tally.bytes, tally.sha256()), (Framing::Length, LARGE as u64, sha256));
}

fn a_large_chunked_body_arrives_as_sent(road: &Road) {
    let (body, sha256) = large();
    let (mut chunked, mut rest, mut size) = (vec![], &body[..], 1);
    while !rest.is_empty() {
        // From single bytes to chunks larger than any buffer, so that their ends fall everywhere.
        size = (size * 3 + 1) % 900_000;
        let (part, behind) = rest.split_at(size.min(rest.len()));
        chunked.extend(format!("{:X}\r\n", part.len()).bytes());
        chunked.extend(part);
        chunked.extend(b"\r\n");
        rest = behind;
    }
    chunked.extend(b"0\r\n\r\n");
    let arrived = upload(road, "Transfer-Encoding: chunked\r\n", chunked);
    let mut tally = Tally::new();
    tally.add(&arrived.body);
    assert_eq!((arrived.framing, tally.bytes, tally.sha256()), (Framing::Chunked, LARGE as u64, sha256));
}

#[test]
fn a_large_response_arrives_as_sent_in_each_framing() {
    let (body, sha256) = large();
    let proxy = Proxy::open(&[]);
    for head in ["Content-Length: 8388608", "Transfer-Encoding: chunked", "X: until close"] {
        let (origin, mut client) = (ByHand::open(), proxy.wire());
        client.get(&origin.url("/"));
        let mut upstream = origin.accept();
        upstream.read_request();
        let body = body.clone();
        let sender = std::thread::spawn(move || {
            upstream.send(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n"));
            if head.ends_with("chunked") {
                for part in body.chunks(77_777) {
                    upstream.send([format!("{:x}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat());
                }
                upstream.send("0\r\n\r\n");
            } else {
                upstream.send(body);
                upstream.finish();
            }
            upstream
        });
        let response = client.read_response("GET");
        sender.join().unwrap();
        let mut tally = Tally::new();
        tally.add(&response.body);
        assert_eq!((tally.bytes, tally.sha256()), (LARGE as u64, sha256.clone()), "{head}");
    }
}

fn the_first_byte_of_a_body_waits_for_no_other(road: &Road) {
    let origin = ByHand::open();
    let mut client = road.http(origin.addr);
    for (head, first, rest) in [
        ("Content-Length: 3", "a", "bc"),
        ("Transfer-Encoding: chunked", "2\r\na", "b\r\n1\r\nc\r\n0\r\n\r\n"),
    ] {
        client.send(request("POST", &road.target(origin.addr, "/"), &format!("{head}\r\n")) + first);
        let mut upstream = origin.accept();
        upstream.read_head();
        let size = upstream.read_n(first.len() - 1);
        assert!(size == b"" || size == b"2\r\n" || size == b"1\r\n", "{size:?}");
        assert_eq!(upstream.read_n(1), b"a", "up, {head}");
        upstream.send(format!("HTTP/1.1 200 OK\r\nConnection: close\r\n{head}\r\n\r\n{first}"));
        client.read_head();
        client.read_n(first.len() - 1);
        assert_eq!(client.read_n(1), b"a", "down, {head}");
        upstream.send(rest);
        client = road.http(origin.addr);
    }
}

// HTTP/1.0.

#[test]
fn an_http_1_0_client_is_served_in_our_version() {
    let (_proxy, origin, mut client) = scene(&[]);
    client.send(format!("GET {} HTTP/1.0\r\n\r\n", origin.url("/old")));
    let mut upstream = origin.accept();
    let arrived = upstream.read_request();
    assert_eq!(arrived.start, "GET /old HTTP/1.1", "we speak our own version");
    assert_eq!(arrived.field("host"), Some(origin.addr.to_string().as_str()));
    upstream.send(ok("ok"));
    let response = client.read_response("GET");
    assert_eq!((response.start.as_str(), response.text().as_str()), ("HTTP/1.1 200 OK", "ok"));
    assert_eq!(client.read_end(), Ending::Eof, "without keep-alive it is the only one");
}

#[test]
fn an_http_1_0_client_that_keeps_alive_is_told_what_happens() {
    let (_proxy, origin, mut client) = scene(&[]);
    let request = format!("GET {} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", origin.url("/"));
    client.send(&request);
    let mut upstream = origin.accept();
    upstream.read_request();
    upstream.send(ok("ok"));
    let response = client.read_response("GET");
    if response.field("connection").is_some_and(|said| said.eq_ignore_ascii_case("keep-alive")) {
        client.send(&request);
        upstream.read_request();
        upstream.send(ok("again"));
        assert_eq!(client.read_response("GET").text(), "again");
    } else {
        assert_eq!(client.read_end(), Ending::Eof, "{response:?}");
    }
}

#[test]
fn a_chunked_response_is_unchunked_for_an_http_1_0_client() {
    let (_proxy, origin, mut client) = scene(&[]);
    client.send(format!("GET {} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", origin.url("/")));
    let mut upstream = origin.accept();
    upstream.read_request();
    upstream.send("HTTP/1.1 200 OK\r\nTrailer: X\r\nTransfer-Encoding: chunked\r\n\r\n5;x\r\nhello\r\n1\r\n!\r\n0\r\nX: y\r\n\r\n");
    let response = client.read_response("GET");
    assert_eq!((response.framing, response.text().as_str()), (Framing::UntilClose, "hello!"));
    assert!(
        !response.keeps_alive() && response.field("connection").is_none_or(|said| said == "close"),
        "{response:?}"
    );
}

#[test]
fn an_http_1_0_origin_is_answered_for_in_our_version() {
    let (_proxy, origin, mut client) = scene(&[]);
    let response = returned(&mut client, &origin, "HTTP/1.0 200 Fine\r\nContent-Length: 2\r\n\r\nok");
    assert_eq!((response.start.as_str(), response.text().as_str()), ("HTTP/1.1 200 Fine", "ok"));
    assert!(response.keeps_alive(), "the client's connection is another: {response:?}");
    client.get(&origin.url("/"));
    let mut upstream = origin.accept();
    upstream.read_request();
    upstream.send("HTTP/1.0 200 OK\r\n\r\nuntil close");
    upstream.finish();
    assert_eq!(client.read_response("GET").text(), "until close");
}

// Upgrade.

const UPGRADE: &str =
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

#[test]
fn an_upgrade_becomes_a_tunnel_only_after_the_101() {
    let (proxy, origin, mut client) = scene(&[]);
    let mut beside = Beside::of(&proxy);
    client.send(request("GET", &origin.url("/chat"), UPGRADE) + "early");
    let mut upstream = origin.accept();
    let arrived = upstream.read_head();
    assert_eq!(
        (arrived.field("upgrade"), arrived.field("connection").map(str::to_lowercase)),
        (Some("websocket"), Some("upgrade".into()))
    );
    assert!(arrived.field("sec-websocket-key").is_some());
    client.send(" bird");
    beside.turns();
    assert_eq!(upstream.waiting(), b"", "nobody agreed to this yet");
    upstream
        .send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello");
    let response = client.read_head();
    assert_eq!((response.status(), response.field("upgrade")), (101, Some("websocket")));
    assert_eq!(response.field("connection").map(str::to_lowercase), Some("upgrade".into()));
    assert_eq!(client.read_n(5), b"hello", "bytes behind the 101 are the tunnel's first");
    assert_eq!(upstream.read_n(10), b"early bird");
    client.send([0, 255, 13, 10]);
    assert_eq!(upstream.read_n(4), [0, 255, 13, 10]);
    client.finish();
    assert_eq!(upstream.read_end(), Ending::Eof);
    upstream.send("last words");
    upstream.finish();
    assert_eq!(client.read_rest(), (b"last words".to_vec(), Ending::Eof));
    let access = proxy.access_of(client.local);
    assert_eq!((access.status.as_str(), access.end.as_str()), ("101", "done"), "{}", access.line);
}

#[test]
fn an_upgraded_tunnel_carries_bulk() {
    const BYTES: u64 = 16 << 20;
    let (_proxy, origin, mut client) = scene(&[]);
    client.send(request("GET", &origin.url("/"), UPGRADE));
    let mut upstream = origin.accept();
    upstream.read_head();
    upstream.send("HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    client.read_head();
    let sender = std::thread::spawn(move || {
        let sent = send_pattern(&mut upstream.stream, 4, BYTES);
        upstream.finish();
        (sent, upstream)
    });
    let came = support::origin::receive(&mut client.stream, |_| {});
    assert_eq!((came.bytes, came.ending, came.sha256), (BYTES, Ending::Eof, sender.join().unwrap().0));
}

#[test]
fn an_upgrade_that_the_origin_declines_goes_on_as_http() {
    let (_proxy, origin, mut client) = scene(&[]);
    let mut upstream = None;
    for _ in 0..2 {
        client.send(request("GET", &origin.url("/chat"), UPGRADE));
        let upstream = upstream.get_or_insert_with(|| origin.accept());
        upstream.read_request();
        upstream.send(ok("no"));
        let response = client.read_response("GET");
        assert_eq!((response.status(), response.text().as_str()), (200, "no"));
        assert!(response.keeps_alive(), "{response:?}");
    }
}

// Max-Forwards, OPTIONS and TRACE.

#[test]
fn options_with_an_empty_path_goes_on_as_asterisk() {
    let (_proxy, origin, mut client) = scene(&[]);
    let mut upstream = None;
    for (target, wanted) in
        [(format!("http://{}", origin.addr), "*"), (origin.url("/"), "/"), (origin.url("/x?y"), "/x?y")]
    {
        client.send(request("OPTIONS", &target, ""));
        let upstream = upstream.get_or_insert_with(|| origin.accept());
        assert_eq!(upstream.read_request().start, format!("OPTIONS {wanted} HTTP/1.1"), "{target}");
        upstream.send(ok(""));
        client.read_response("OPTIONS");
    }
}

#[test]
fn max_forwards_counts_down_for_options_and_trace() {
    let (_proxy, origin, mut client) = scene(&[]);
    let mut upstream = None;
    for (method, has, goes_on) in
        [("OPTIONS", "5", "4"), ("TRACE", "1", "0"), ("GET", "5", "5"), ("GET", "0", "0")]
    {
        client.send(request(method, &origin.url("/"), &format!("Max-Forwards: {has}\r\n")));
        let upstream = upstream.get_or_insert_with(|| origin.accept());
        assert_eq!(upstream.read_request().all("max-forwards"), [goes_on], "{method}");
        upstream.send(ok(""));
        client.read_response(method);
    }
}

#[test]
fn options_for_the_proxy_itself_is_answered_here() {
    let (_proxy, origin, mut client) = scene(&[]);
    for head in [
        request("OPTIONS", &origin.url("/"), "Max-Forwards: 0\r\n"),
        format!("OPTIONS * HTTP/1.1\r\nHost: {}\r\n\r\n", origin.addr),
    ] {
        client.send(&head);
        let response = client.read_response("OPTIONS");
        assert!(matches!(response.status(), 200 | 204), "{head:?}: {response:?}");
        assert!(response.keeps_alive(), "{response:?}");
    }
    origin.assert_not_dialed();
}

#[test]
fn trace_that_ends_here_echoes_no_credentials() {
    let (_proxy, origin, mut client) = scene(&[]);
    let fields = "Max-Forwards: 0\r\nX-Seen: yes\r\nAuthorization: Basic c2VjcmV0\r\nCookie: c=c2VjcmV0\r\n\
                  Proxy-Authorization: Basic c2VjcmV0\r\n";
    client.send(request("TRACE", &origin.url("/"), fields));
    let response = client.read_response("TRACE");
    assert_eq!(response.status(), 200, "{response:?}");
    let all = response.raw.clone() + &response.text();
    assert!(!all.contains("c2VjcmV0"), "{all:?}");
    origin.assert_not_dialed();
}

// Policy.

#[test]
fn http_port_decides_about_ports() {
    let proxy = Proxy::start(&["--http-port", "8081,9000-9001"]);
    let mut client = proxy.wire();
    for (port, error, says, rule) in [
        (8080, "http_request_denied", "--http-port", "http-port"),
        (80, "http_request_denied", "--http-port", "http-port"),
        (8081, "destination_ip_prohibited", "--allow", "guard"),
        (9001, "destination_ip_prohibited", "--allow", "guard"),
    ] {
        client.get(&format!("http://192.0.2.1:{port}/"));
        let answer = client.read_open_refusal();
        assert_eq!((answer.head.status, answer.error.as_str()), (403, error), "{port}");
        assert!(answer.details.contains(says), "{port}: {}", answer.details);
        assert_eq!(proxy.access_of(client.local).rule, rule, "{port}");
    }
}

#[test]
fn http_port_is_80_and_the_unprivileged_unless_said() {
    let proxy = Proxy::start(&[]);
    let mut client = proxy.wire();
    for (url, error) in [
        ("http://192.0.2.1/", "destination_ip_prohibited"),
        ("http://192.0.2.1:80/", "destination_ip_prohibited"),
        ("http://192.0.2.1:1024/", "destination_ip_prohibited"),
        ("http://192.0.2.1:65535/", "destination_ip_prohibited"),
        ("http://192.0.2.1:1023/", "http_request_denied"),
        ("http://192.0.2.1:25/", "http_request_denied"),
        ("http://192.0.2.1:443/", "http_request_denied"),
    ] {
        client.get(url);
        assert_eq!(client.read_open_refusal().error, error, "{url}");
    }
}

#[test]
fn its_own_name_in_via_is_a_loop() {
    let (proxy, origin, mut client) = scene(&[]);
    for via in ["1.1 adit", "1.0 fred, 1.1 adit (box), 1.1 other", "HTTP/1.1 adit"] {
        client.send(request("GET", &origin.url("/"), &format!("Via: 1.1 first\r\nVia: {via}\r\n")));
        let answer = client.read_open_refusal();
        assert_eq!((answer.head.status, answer.error.as_str()), (502, "proxy_loop_detected"), "{via}");
        assert_eq!(proxy.access_of(client.local).end, "proxy_loop_detected");
    }
    origin.assert_not_dialed();
    // Names that only look like it are others.
    client.send(request("GET", &origin.url("/"), "Via: 1.1 adit2, 1.1 my-adit, 1.1 x (adit)\r\n"));
    origin.accept().read_request();
}

#[test]
fn a_refusal_is_not_the_end_of_the_connection() {
    let (proxy, origin, mut client) = scene(&["--deny", "denied.test"]);
    for fields in ["", "Content-Length: 0\r\n"] {
        client.send(request("GET", "http://denied.test/", fields));
        let answer = client.read_open_refusal();
        assert_eq!((answer.head.status, answer.error.as_str()), (403, "http_request_denied"));
        assert_eq!(proxy.access_of(client.local).status, "403");
    }
    client.send(request("HEAD", "http://denied.test/", ""));
    assert_eq!(client.read_response("HEAD").status(), 403);
    assert_eq!(forwarded(&mut client, &origin, request("GET", &origin.url("/"), "")).start, "GET / HTTP/1.1");
}

#[test]
fn the_body_of_a_refused_request_is_never_the_next_request() {
    let (_proxy, origin, _) = scene(&["--deny", "denied.test"]);
    let smuggled = request("GET", &origin.url("/smuggled"), "");
    for (fields, body) in [
        (format!("Content-Length: {}\r\n", smuggled.len()), smuggled.clone()),
        (
            String::from("Transfer-Encoding: chunked\r\n"),
            format!("{:x}\r\n{smuggled}\r\n0\r\n\r\n", smuggled.len()),
        ),
    ] {
        let mut client = _proxy.wire();
        client.send(request("POST", "http://denied.test/", &fields));
        client.send(body);
        let response = client.read_response("POST");
        assert_eq!(response.status(), 403);
        if response.keeps_alive() {
            assert_eq!(
                forwarded(&mut client, &origin, request("GET", &origin.url("/next"), "")).start,
                "GET /next HTTP/1.1"
            );
        } else {
            assert_eq!(client.read_end(), Ending::Eof, "{response:?}");
        }
        origin.assert_not_dialed();
    }
}

#[test]
fn a_bad_request_is_the_end_of_the_connection() {
    let (proxy, origin, mut client) = scene(&[]);
    client.send(
        String::from("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n") + &request("GET", &origin.url("/behind"), ""),
    );
    let answer = client.read_last_refusal();
    assert_eq!(
        (answer.head.status, answer.error.as_str()),
        (400, "http_request_error"),
        "origin form asks the proxy itself"
    );
    assert_eq!(proxy.access_of(client.local).status, "400");
    origin.assert_not_dialed();
}
