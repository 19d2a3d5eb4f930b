//! The harness itself: what the other tests take from `support` for granted.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::time::Duration;

use support::client::{Answer as Refusal, Head};
use support::dns_server::{A, AAAA, Answer, DnsServer};
use support::origin::{BlackHole, Refusing};
use support::proxy::{Access, listening_on};
use support::{DEADLINE, Pattern, Tally};

#[test]
fn access_lines_of_the_contract() {
    let line = "2026-11-20T15:04:05.123Z 10.1.2.3:53122 alice CONNECT example.org:443 200 via=203.0.113.9:443 rule=default \
                up=1842 down=90211 dns=3 dial=11 total=4210 end=done";
    let access = Access::parse(line);
    assert_eq!((access.client.as_str(), access.user.as_str()), ("10.1.2.3:53122", "alice"));
    assert_eq!((access.method.as_str(), access.target.as_str()), ("CONNECT", "example.org:443"));
    assert_eq!((access.status.as_str(), access.via.as_str()), ("200", "203.0.113.9:443"));
    assert_eq!((access.rule.as_str(), access.up, access.down), ("default", 1842, 90211));
    assert_eq!((access.dns, access.dial, access.total), (Some(3), Some(11), 4210));
    assert_eq!(access.end, "done");
    let failed = "2026-11-20T15:04:06.001Z 10.1.2.3:53130 - GET http://a.test/x 502 via=- rule=default up=0 down=212 dns=2 \
                  dial=- total=2 end=dns_error";
    assert_eq!(Access::parse(failed).dial, None);
    for (from, to) in [
        ("up=1842", "up=-1"),
        ("up=1842", "up="),
        ("up=1842 ", ""),
        ("via=", "Via="),
        ("alice ", "alice  "),
        ("end=done", "end=done extra"),
        ("05.123Z", "05Z"),
        ("total=4210", "total=-"),
    ] {
        let broken = line.replace(from, to);
        assert_ne!(broken, line);
        assert!(std::panic::catch_unwind(|| Access::parse(&broken)).is_err(), "taken for good: {broken}");
    }
}

#[test]
fn start_line() {
    let addr = listening_on("2026-11-20T15:04:05.123Z INFO  listening on 127.0.0.1:34567").unwrap();
    assert_eq!(addr, "127.0.0.1:34567".parse().unwrap());
    assert_eq!(listening_on("listening on [::1]:80 (2 loops)").unwrap(), "[::1]:80".parse().unwrap());
    assert_eq!(listening_on("listening"), None);
}

#[test]
fn heads_and_refusals() {
    let body = "403 No\na.test:80: port 80 is \"bad\"; see --connect-port\n";
    let good = format!(
        "HTTP/1.1 403 No\r\nProxy-Status: adit; error=http_request_denied; rcode=\"X\"; \
         details=\"port 80 is \\\"bad\\\"; see --connect-port\"\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    );
    let answer = Refusal::parse(good.as_bytes()).unwrap();
    assert_eq!((answer.head.status, answer.head.reason.as_str()), (403, "No"));
    assert_eq!((answer.error.as_str(), answer.rcode.as_deref()), ("http_request_denied", Some("X")));
    assert_eq!(answer.details, "port 80 is \"bad\"; see --connect-port");
    for (from, to) in [
        ("Connection: close", "Connection: keep-alive"),
        ("Content-Type", "X-Type"),
        ("text/plain", "text/html"),
        ("adit; ", "squid; "),
        ("error=", "fault="),
        ("details=", "hint="),
        ("No\na.test", "No\nmore than announced a.test"),
    ] {
        let broken = good.replace(from, to);
        assert_ne!(broken, good);
        assert!(Refusal::parse(broken.as_bytes()).is_err(), "taken for good: {broken}");
    }
    for broken in [
        "HTTP/1.1 200 OK\nX: y\r\n\r\n",
        "HTTP/1.1 200\r\n\r\n",
        "200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nnone\r\n\r\n",
    ] {
        assert!(
            std::panic::catch_unwind(|| Head::parse(broken.as_bytes())).is_err(),
            "taken for good: {broken:?}"
        );
    }
}

#[test]
fn a_black_hole_answers_nothing_and_a_refusing_port_refuses() {
    let hole = BlackHole::open();
    for _ in 0..3 {
        let error = TcpStream::connect_timeout(&hole.addr, Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    }
    let error = TcpStream::connect(Refusing::open().addr).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn a_pattern_is_known_by_its_hash_however_it_is_cut() {
    let hash = |seed, parts: &[usize]| {
        let (mut pattern, mut tally) = (Pattern::new(seed), Tally::new());
        for &bytes in parts {
            let mut buf = vec![0; bytes];
            pattern.fill(&mut buf);
            tally.add(&buf);
        }
        tally.sha256()
    };
    assert_eq!(hash(1, &[64, 64]), hash(1, &[8, 120]));
    assert_ne!(hash(1, &[128]), hash(2, &[128]));
    assert_ne!(hash(1, &[128]), hash(1, &[120]));
}

/// A question for the addresses of `a.test` as it goes over the wire (RFC 1035 4.1), with recursion desired.
fn query(qtype: u16) -> Vec<u8> {
    let mut bytes = vec![0xAB, 0xCD, 0x01, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, b'A', 4, b'T', b'e', b's', b't', 0];
    bytes.extend(qtype.to_be_bytes());
    bytes.extend([0, 1]);
    bytes
}

/// All datagrams that answer within the moment.
fn ask_udp(server: &DnsServer, query: &[u8]) -> Vec<Vec<u8>> {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(server.addr).unwrap();
    socket.send(query).unwrap();
    // Once the question is reported, its answers are on the way: they are sent by the same thread, right after.
    server.asked();
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let mut buf = [0; 512];
    std::iter::from_fn(|| socket.recv(&mut buf).ok().map(|n| buf[..n].to_vec())).collect()
}

#[test]
fn the_dns_server_speaks_the_wire_format() {
    let server = DnsServer::knowing("a.test", &["192.0.2.7", "2001:db8::7", "192.0.2.8"]);
    let mut wanted = query(A);
    wanted[2..8].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 2]);
    for last in [7, 8] {
        wanted.extend([0xC0, 0x0C, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, last]);
    }
    assert_eq!(ask_udp(&server, &query(A)), [wanted.clone()]);
    // The same over TCP, with its length in front.
    let mut stream = TcpStream::connect(server.addr).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut framed = vec![0, u8::try_from(query(A).len()).unwrap()];
    framed.extend(query(A));
    stream.write_all(&framed).unwrap();
    let mut reply = vec![0; 2 + wanted.len()];
    stream.read_exact(&mut reply).unwrap();
    assert_eq!((reply[1], &reply[2..]), (u8::try_from(wanted.len()).unwrap(), &wanted[..]));
    let question = server.asked();
    assert_eq!(
        (question.name.as_str(), question.qtype, question.tcp, question.id),
        ("a.test", A, true, 0xABCD)
    );
    let replies = ask_udp(&server, &query(AAAA));
    assert_eq!((replies.len(), replies[0].len()), (1, query(AAAA).len() + 28));
}

#[test]
fn the_dns_server_follows_its_script() {
    let rcode = |reply: &[u8]| reply[3] & 0x0F;
    let all = [Answer::NxDomain, Answer::ServFail, Answer::Truncated, Answer::wrong_id(&["192.0.2.1"])];
    let several = DnsServer::start(move |_| Answer::Several(all.to_vec()));
    let replies = ask_udp(&several, &query(A));
    assert_eq!(replies.len(), 4);
    assert_eq!((rcode(&replies[0]), rcode(&replies[1]), rcode(&replies[2])), (3, 2, 0));
    assert_eq!((replies[1][2] & 2, replies[2][2] & 2), (0, 2), "TC");
    assert_eq!(replies[2][..2], query(A)[..2]);
    assert_ne!(replies[3][..2], query(A)[..2]);
    let other = DnsServer::start(|_| Answer::WrongQuestion(vec!["192.0.2.1".parse().unwrap()]));
    let replies = ask_udp(&other, &query(A));
    assert_ne!(replies[0][13].to_ascii_lowercase(), b'a', "another name");
    assert!(ask_udp(&DnsServer::start(|_| Answer::Silent), &query(A)).is_empty());
}
