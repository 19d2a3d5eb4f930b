//! Every answer that the proxy makes itself: one table from request and options to status, error type, words and access line.
//! What needs a scene of its own is in `refusal_scenes.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io::Write;
use std::net::SocketAddr;

use support::client::{Answer as Refusal, connect_head};
use support::dns_server::{Answer, DnsServer};
use support::proxy::{Access, Proxy};
use support::{Ending, TempFile};

/// One line of the table.
struct Row {
    options: Vec<&'static str>,
    request: Vec<u8>,
    status: u16,
    /// Error type of `Proxy-Status`, and the word behind `end=`.
    error: &'static str,
    rcode: Option<&'static str>,
    /// In details and body: the option that decides.
    says: &'static str,
    rule: &'static str,
}

impl Row {
    fn new(request: impl AsRef<[u8]>, status: u16, error: &'static str) -> Row {
        let request = request.as_ref().to_vec();
        Row { options: vec![], request, status, error, rcode: None, says: "", rule: "-" }
    }

    /// A request that is not understood.
    fn bad(request: impl AsRef<[u8]>) -> Row {
        Row::new(request, 400, "http_request_error")
    }

    /// A good CONNECT that is denied.
    fn denied(target: &str, error: &'static str) -> Row {
        Row::new(connect_head(target), 403, error)
    }

    /// A good CONNECT to an address that the guard keeps.
    fn guarded(target: &str) -> Row {
        Row::denied(target, "destination_ip_prohibited").rule("guard").says("--allow")
    }

    fn with(mut self, options: &[&'static str]) -> Row {
        self.options.extend(options);
        self
    }

    fn says(mut self, word: &'static str) -> Row {
        self.says = word;
        self
    }

    fn rule(mut self, name: &'static str) -> Row {
        self.rule = name;
        self
    }

    fn rcode(mut self, name: &'static str) -> Row {
        self.rcode = Some(name);
        self
    }
}

#[test]
fn the_table() {
    let dns = DnsServer::start(|question| match question.name.as_str() {
        "empty.test" => Answer::of(&[]),
        "servfail.test" => Answer::ServFail,
        "private.test" => Answer::of(&["10.0.0.1", "fc00::1"]),
        "ten.test" => Answer::of(&["10.0.0.1"]),
        "metadata.test" => Answer::of(&["169.254.169.254"]),
        "loopback.test" => Answer::of(&["127.0.0.1", "::1"]),
        _ => Answer::NxDomain,
    });
    let (server, nothing) = (dns.addr.to_string(), TempFile::with(""));
    let mut proxies: BTreeMap<Vec<&str>, Proxy> = BTreeMap::new();
    let rows = table();
    let mut exchanges = Vec::new();
    for row in &rows {
        let proxy = proxies.entry(row.options.clone()).or_insert_with(|| {
            Proxy::start(&[&row.options[..], &["--nameserver", &server, "--hosts", &nothing.path]].concat())
        });
        exchanges.push(exchange(proxy, row, FollowedBy::Nothing));
        exchanges.push(exchange(proxy, row, FollowedBy::MoreThanIsRead));
    }
    let mut wrong = Vec::new();
    for exchange in &exchanges {
        let row = exchange.row;
        let access = proxies[&row.options].access_of(exchange.client);
        if let Err(what) = check_answer(exchange).and_then(|()| check_access(row, &access)) {
            let request = String::from_utf8_lossy(&row.request).chars().take(100).collect::<String>();
            wrong.push(format!(
                "{request:?} {:?} followed by {:?}: {what}",
                row.options, exchange.followed_by
            ));
        }
    }
    assert!(wrong.is_empty(), "{} of {} are wrong:\n{}", wrong.len(), exchanges.len(), wrong.join("\n"));
    // Each request has one line: what stood behind it was never taken for another.
    let lines: usize = proxies.into_values().map(|proxy| proxy.stop().2.len()).sum();
    assert_eq!(lines, exchanges.len(), "one access line a request");
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FollowedBy {
    Nothing,
    /// A second request, and then more than the proxy can have read when it refuses: closed without lingering, this would
    /// reset the connection (`kernel_facts::close_with_unread_data_sends_a_reset`).
    MoreThanIsRead,
}

/// What came of one request.
struct Exchange<'a> {
    row: &'a Row,
    followed_by: FollowedBy,
    client: SocketAddr,
    raw: Vec<u8>,
    ending: Ending,
    /// Whether bytes sent behind the answer were still taken. A client in the middle of sending hears of a reset before it reads
    /// the answer (`kernel_facts::close_with_unread_data_sends_a_reset`).
    lingered: bool,
}

fn exchange<'a>(proxy: &Proxy, row: &'a Row, followed_by: FollowedBy) -> Exchange<'a> {
    let mut bytes = row.request.clone();
    match followed_by {
        FollowedBy::Nothing => {}
        FollowedBy::MoreThanIsRead => {
            bytes.extend(connect_head("127.0.0.1:443").bytes());
            bytes.extend([b'x'; 40 * 1024]);
        }
    }
    let mut client = proxy.client();
    client.send(&bytes);
    let (raw, ending) = client.read_rest();
    let lingered = match followed_by {
        FollowedBy::Nothing => true,
        // On loopback the reset that the first write meets is there before the second.
        FollowedBy::MoreThanIsRead => (0..3).all(|_| client.stream.write_all(&[b'x'; 1024]).is_ok()),
    };
    Exchange { row, followed_by, client: client.local, raw, ending, lingered }
}

fn check_answer(exchange: &Exchange<'_>) -> Result<(), String> {
    let (row, raw) = (exchange.row, &exchange.raw);
    if exchange.ending != Ending::Eof {
        return Err(format!("ended by {:?} after {:?}", exchange.ending, String::from_utf8_lossy(raw)));
    }
    if !exchange.lingered {
        return Err("the connection was reset while the client was still sending".to_string());
    }
    let answer = Refusal::parse(raw)?;
    let head = &answer.head;
    equal("status", head.status, row.status, &answer)?;
    equal("version", head.version.as_str(), "HTTP/1.1", &answer)?;
    equal("error type", answer.error.as_str(), row.error, &answer)?;
    equal("rcode", answer.rcode.as_deref(), row.rcode, &answer)?;
    if head.reason.is_empty() || answer.details.is_empty() || !answer.body.contains(&head.reason) {
        return Err(format!("a person must understand it: {:?} {:?}", head.raw, answer.body));
    }
    if !answer.details.contains(row.says) {
        return Err(format!("{:?} does not say {}", answer.details, row.says));
    }
    Ok(())
}

fn check_access(row: &Row, access: &Access) -> Result<(), String> {
    equal("status in the line", access.status.clone(), row.status.to_string(), access)?;
    equal("end", access.end.as_str(), row.error, access)?;
    equal("rule", access.rule.as_str(), row.rule, access)?;
    equal("via", access.via.as_str(), "-", access)?;
    equal("up", access.up, 0, access)
}

fn equal<T: PartialEq + Debug>(what: &str, got: T, wanted: T, seen: &impl Debug) -> Result<(), String> {
    if got == wanted { Ok(()) } else { Err(format!("{what} is {got:?}, not {wanted:?}: {seen:?}")) }
}

fn table() -> Vec<Row> {
    let mut rows = bad_lines();
    rows.extend(bad_fields());
    rows.extend(bad_targets());
    rows.extend(not_for_us());
    rows.extend(too_large());
    rows.extend(denied());
    rows.extend(guarded());
    rows.extend(names());
    rows
}

fn bad_lines() -> Vec<Row> {
    [
        "CONNECT a.test:443\r\nHost: a.test\r\n\r\n",
        "CONNECT  a.test:443 HTTP/1.1\r\nHost: a.test\r\n\r\n",
        " CONNECT a.test:443 HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "CONNECT\ta.test:443 HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "CONNECT a.test:443 HTTP/1.1 \r\nHost: a.test\r\n\r\n",
        "CONNECT a.test:443 HTTP/1.1 x\r\nHost: a.test\r\n\r\n",
        "CONNECT a.test:443 http/1.1\r\nHost: a.test\r\n\r\n",
        "CONNECT a.test:443 HTTP/11\r\nHost: a.test\r\n\r\n",
        "CONNECT HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "garbage\r\n\r\n",
        "CON\u{1}NECT a.test:443 HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "CONNECT a.te\0st:443 HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "CONNECT a.test:443 HTTP/1.1\nHost: a.test\n\n",
        "CONNECT a.test:443 HTTP/1.1\r\nHost: a.test\n\r\n",
        "CONNECT a.test:443 HTTP/1.1\rHost: a.test\r\n\r\n",
    ]
    .map(Row::bad)
    .into()
}

fn bad_fields() -> Vec<Row> {
    let fields = [
        "no colon",
        ": no name",
        "Space : before colon",
        " Leading: space",
        "X: folded\r\n line",
        "X: bare\rCR",
        "X: bare\nX: LF",
        "X: a\0b",
        "X: a\u{1}b",
        "X(: not a token",
        "Host: a.test:443",
        "Transfer-Encoding: chunked",
        "Transfer-Encoding: identity",
        "Content-Length: 5",
        "Content-Length: +0",
        "Content-Length: -1",
        "Content-Length: abc",
        "Content-Length:",
        "Content-Length: 0\r\nContent-Length: 5",
        "Content-Length: 0\r\nTransfer-Encoding: chunked",
        "Content-Length: 99999999999999999999999999",
    ];
    let mut rows: Vec<Row> = fields
        .iter()
        .map(|field| Row::bad(format!("CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n{field}\r\n\r\n")))
        .collect();
    // The very first field line has nothing to fold onto; no Host at all; a transfer coding in HTTP/1.0.
    rows.push(Row::bad("CONNECT a.test:443 HTTP/1.1\r\n Host: a.test\r\n\r\n"));
    rows.push(Row::bad("CONNECT a.test:443 HTTP/1.1\r\n\r\n"));
    rows.push(Row::bad("CONNECT a.test:443 HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"));
    rows
}

fn bad_targets() -> Vec<Row> {
    let long_label = format!("{}.test:443", "a".repeat(64));
    let long_name = format!("{}test:443", "a.".repeat(126));
    let targets = [
        "a.test",
        "a.test:",
        "a.test:0",
        "a.test:65536",
        "a.test:4294967739",
        "a.test:+80",
        "a.test:-80",
        "a.test:0x1bb",
        "a.test:https",
        "a.test:443:443",
        ":443",
        "443",
        "/",
        "/path",
        "*",
        "*:443",
        "a.test:443/",
        "a.test:443?q",
        "a.test:443#f",
        "http://a.test:443",
        "http://a.test:443/",
        "https://a.test:443",
        "//a.test:443",
        "user@a.test:443",
        "user:secret@a.test:443",
        "a.test@127.0.0.1:443",
        // Spellings that some library would take for 127.0.0.1.
        "2130706433:443",
        "0177.1:443",
        "0x7f.1:443",
        "0x7f000001:443",
        "127.1:443",
        "127.0.1:443",
        "127.0.0.01:443",
        "127.0.0.1.:443",
        "0177.0.0.1:443",
        "127.0.0.256:443",
        "127.0.0.1.5:443",
        "[::1%25lo]:443",
        "[::1%lo]:443",
        "[fe80::1%25eth0]:443",
        "[::1]",
        "[::1]443",
        "[::1:443",
        "::1]:443",
        "::1:443",
        "[]:443",
        "[127.0.0.1]:443",
        "[a.test]:443",
        "[::1]:0",
        "[v1.x]:443",
        "127%2e0.0.1:443",
        "a%2etest:443",
        "a..test:443",
        ".a.test:443",
        ".:443",
        "a\\b.test:443",
        "ä.test:443",
        &long_label,
        &long_name,
    ];
    targets
        .iter()
        .map(|target| Row::bad(format!("CONNECT {target} HTTP/1.1\r\nHost: a.test:443\r\n\r\n")))
        .collect()
}

/// Well spelled, and yet not for this proxy.
fn not_for_us() -> Vec<Row> {
    let get = |target: &str, version: &str| format!("GET {target} {version}\r\nHost: a.test\r\n\r\n");
    let mut hello = vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
    hello.extend([0xAB; 506]);
    vec![
        Row::bad(get("/", "HTTP/1.1")),
        Row::bad(get("/?q=http://a.test/", "HTTP/1.0")),
        Row::bad(get("https://a.test/", "HTTP/1.1")),
        Row::bad(get("ftp://a.test/", "HTTP/1.1")),
        Row::bad(get("a.test:80", "HTTP/1.1")),
        Row::bad(get("http://", "HTTP/1.1")),
        Row::new("CONNECT a.test:443 HTTP/2.0\r\nHost: a.test:443\r\n\r\n", 505, "http_request_error"),
        Row::new("CONNECT a.test:443 HTTP/0.9\r\nHost: a.test:443\r\n\r\n", 505, "http_request_error"),
        Row::new("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "http_request_error"),
        Row::bad(hello),
    ]
}

fn too_large() -> Vec<Row> {
    let fields = |count: usize| {
        let more: String = (1..count).map(|n| format!("X-{n}: y\r\n")).collect();
        format!("CONNECT 127.0.0.1:443 HTTP/1.1\r\nHost: 127.0.0.1:443\r\n{more}\r\n")
    };
    let of_size = |bytes: usize| {
        let (start, end) = ("CONNECT 127.0.0.1:443 HTTP/1.1\r\nHost: 127.0.0.1:443\r\nX: ", "\r\n\r\n");
        format!("{start}{}{end}", "y".repeat(bytes - start.len() - end.len()))
    };
    let large = |request: String, status| Row::new(request, status, "http_request_error");
    vec![
        large(format!("CONNECT {}", "a".repeat(17 * 1024)), 414).says("16 KiB"),
        large(format!("CONNECT {}:443 HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(17 * 1024)), 414),
        large(of_size(17 * 1024), 431).says("16 KiB"),
        large(of_size(16 * 1024 + 1), 431),
        large(fields(101), 431).says("100"),
        // At the limit all is well, and the next thing to be wrong is the destination.
        Row::guarded("127.0.0.1:443").request(of_size(16 * 1024)),
        Row::guarded("127.0.0.1:443").request(fields(100)),
    ]
}

impl Row {
    fn request(mut self, bytes: impl AsRef<[u8]>) -> Row {
        self.request = bytes.as_ref().to_vec();
        self
    }
}

fn denied() -> Vec<Row> {
    let by_rule = |target: &str| Row::denied(target, "http_request_denied").says("--deny");
    let by_address = |target: &str| Row::denied(target, "destination_ip_prohibited").says("--deny");
    let by_port =
        |target: &str| Row::denied(target, "http_request_denied").says("--connect-port").rule("connect-port");
    let networks = ["--deny", "8.8.8.0/24", "--deny", "2606:4700::/32"];
    vec![
        Row::denied("a.test:443", "http_request_denied")
            .with(&["--client", "10.0.0.0/8"])
            .says("--client")
            .rule("client"),
        by_port("a.test:80"),
        by_port("a.test:22"),
        by_port("8.8.8.8:25"),
        // The ports come before the guard.
        by_port("127.0.0.1:80"),
        by_port("localhost:8080"),
        by_port("a.test:443").with(&["--connect-port", "8443,9000-9999"]),
        by_port("a.test:8999").with(&["--connect-port", "8443,9000-9999"]),
        by_port("a.test:10000").with(&["--connect-port", "8443,9000-9999"]),
        by_rule("blocked.test:443").with(&["--deny", "blocked.test"]).rule("deny:blocked.test"),
        by_rule("BLOCKED.Test.:443").with(&["--deny", "blocked.test"]).rule("deny:blocked.test"),
        by_rule("blocked.test:443").with(&["--deny", ".blocked.test"]).rule("deny:.blocked.test"),
        by_rule("deep.under.blocked.test:443").with(&["--deny", ".blocked.test"]).rule("deny:.blocked.test"),
        by_rule("blocked.test:443").with(&["--deny", "blocked.test:443"]).rule("deny:blocked.test:443"),
        by_rule("blocked.test:443")
            .with(&["--deny", "blocked.test:400-500"])
            .rule("deny:blocked.test:400-500"),
        // The first that speaks: a deny before an allow, also before the ports.
        by_rule("b.test:80").with(&["--allow", "b.test", "--deny", ".test"]).rule("deny:.test"),
        // A rule on one name says nothing about the names under it, or on other ports.
        Row::new(connect_head("sub.blocked.test:443"), 502, "dns_error")
            .with(&["--deny", "blocked.test"])
            .rule("default")
            .rcode("NXDOMAIN"),
        Row::new(connect_head("notblocked.test:443"), 502, "dns_error")
            .with(&["--deny", ".blocked.test"])
            .rule("default")
            .rcode("NXDOMAIN"),
        by_port("blocked.test:444").with(&["--deny", "blocked.test:443"]),
        by_address("8.8.8.8:443").with(&networks).rule("deny:8.8.8.0/24"),
        by_address("[2606:4700::1111]:443").with(&networks).rule("deny:2606:4700::/32"),
        // IPv4 inside IPv6 is IPv4.
        by_address("[::ffff:8.8.8.8]:443").with(&networks).rule("deny:8.8.8.0/24"),
        by_address("[64:ff9b::808:808]:443").with(&networks).rule("deny:8.8.8.0/24"),
        by_address("ten.test:443").with(&["--deny", "10.0.0.0/8"]).rule("deny:10.0.0.0/8"),
        by_address("127.0.0.1:443")
            .with(&["--allow", "127.0.0.0/8", "--deny", "127.0.0.1"])
            .rule("deny:127.0.0.1"),
        Row::denied("a.test:443", "http_request_denied")
            .with(&["--default", "deny"])
            .says("--default")
            .rule("default"),
        Row::denied("8.8.8.8:443", "http_request_denied")
            .with(&["--default", "deny"])
            .says("--default")
            .rule("default"),
        Row::denied("a.test:443", "http_request_denied")
            .with(&["--default", "deny", "--allow", "b.test"])
            .says("--default")
            .rule("default"),
    ]
}

fn guarded() -> Vec<Row> {
    let hosts = [
        "127.0.0.1",
        "127.255.255.254",
        "0.0.0.0",
        "10.0.0.1",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.169.254",
        "192.0.2.1",
        "198.51.100.1",
        "203.0.113.1",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "[::]",
        "[::1]",
        "[fc00::1]",
        "[fd12:3456::1]",
        "[fe80::1]",
        "[ff02::1]",
        "[2001:db8::1]",
        // Mapped, compatible, NAT64, 6to4 and Teredo (whose client address is inverted), each around 127.0.0.1.
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[64:ff9b::10.0.0.1]",
        "[2002:7f00:1::]",
        "[2001:0:808:808:0:0:80ff:fffe]",
        "localhost",
        "LOCALHOST.",
        "x.localhost",
        "private.test",
        "metadata.test",
        "loopback.test",
    ];
    let mut rows: Vec<Row> = hosts.iter().map(|host| Row::guarded(&format!("{host}:443"))).collect();
    // An open port opens no address; an allow for one network opens no other.
    rows.push(Row::guarded("127.0.0.1:22").with(&["--connect-port", "any"]));
    rows.push(Row::guarded("10.0.0.1:443").with(&["--allow", "192.168.0.0/16"]));
    rows
}

fn names() -> Vec<Row> {
    let failed = |name: &str, rcode| {
        Row::new(connect_head(&format!("{name}:443")), 502, "dns_error").rcode(rcode).rule("default")
    };
    vec![failed("nx.test", "NXDOMAIN"), failed("empty.test", "NOERROR"), failed("servfail.test", "SERVFAIL")]
}
