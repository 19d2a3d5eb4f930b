#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use super::*;
use crate::proto::fields::{MAX_HEADERS, cases};
use crate::proto::scan::{Broken, MAX_HEAD_BYTES, Scan, Scanned};

fn read<'a, 'h: 'a>(
    bytes: &'h [u8],
    storage: &'a mut Storage<'h>,
    to: AnswerTo,
) -> Result<ResponseHead<'a>, BadResponse> {
    match Scan::for_response().scan(bytes) {
        Scanned::Complete(length) => parse(&bytes[..length], storage, to),
        Scanned::Bad(broken) => Err(BadResponse(match broken {
            Broken::Byte(details) => details,
            Broken::FirstLineTooLong => "first line",
            Broken::TooLarge => "too large",
        })),
        Scanned::Incomplete => panic!("incomplete: {:?}", String::from_utf8_lossy(bytes)),
    }
}

type Case = (&'static [u8], u16, &'static [u8], Framing, Persistence);

/// Heads as real servers send them: status, reason, framing of the answer to a GET, what becomes of the connection.
const GOOD: &[Case] = &[
    // nginx
    (
        b"HTTP/1.1 200 OK\r\nServer: nginx/1.24.0 (Ubuntu)\r\nDate: Fri, 20 Nov 2026 15:04:05 GMT\r\n\
          Content-Type: text/html\r\nContent-Length: 615\r\nConnection: keep-alive\r\nETag: \"6553d-267\"\r\n\r\n",
        200,
        b"OK",
        Framing::Length(615),
        Persistence::Keep,
    ),
    // Python's http.server
    (
        b"HTTP/1.0 404 File not found\r\nServer: SimpleHTTP/0.6 Python/3.12\r\nConnection: close\r\n\r\n",
        404,
        b"File not found",
        Framing::UntilClose,
        Persistence::Close,
    ),
    (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        200,
        b"OK",
        Framing::Chunked,
        Persistence::Keep,
    ),
    (
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        200,
        b"OK",
        Framing::Length(0),
        Persistence::Close,
    ),
    // Old servers leave out the reason, and even the space before it.
    (b"HTTP/1.1 200 \r\nContent-Length: 1\r\n\r\n", 200, b"", Framing::Length(1), Persistence::Keep),
    (b"HTTP/1.1 200\r\nContent-Length: 1\r\n\r\n", 200, b"", Framing::Length(1), Persistence::Keep),
    (b"HTTP/1.1 200\r\n\r\n", 200, b"", Framing::UntilClose, Persistence::Close),
    (b"HTTP/1.0 999 caf\xe9\t\xff \r\n\r\n", 999, b"caf\xe9\t\xff ", Framing::UntilClose, Persistence::Close),
    (
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\n",
        200,
        b"OK",
        Framing::Length(5),
        Persistence::Close,
    ),
    (b"HTTP/1.1 100 Continue\r\n\r\n", 100, b"Continue", Framing::None, Persistence::Keep),
    (b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", 103, b"Early Hints", Framing::None, Persistence::Keep),
    (b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", 204, b"No Content", Framing::None, Persistence::Keep),
    (b"HTTP/1.1 204 \r\nTransfer-Encoding: chunked\r\n\r\n", 204, b"", Framing::None, Persistence::Keep),
    (b"HTTP/1.1 304 x\r\nContent-Length: 5\r\n\r\n", 304, b"x", Framing::None, Persistence::Keep),
    (b"HTTP/1.1 205 x\r\nContent-Length: 0\r\n\r\n", 205, b"x", Framing::Length(0), Persistence::Keep),
];

#[test]
fn good_heads_are_read() {
    for (sent, status, reason, framing, persistence) in GOOD {
        let shown = String::from_utf8_lossy(sent);
        let mut storage = Storage::new();
        let head = read(sent, &mut storage, AnswerTo::Other).expect(&shown);
        assert_eq!((head.status, head.reason), (*status, *reason), "{shown}");
        assert_eq!((head.framing, head.persistence), (*framing, *persistence), "{shown}");
        assert_eq!(head.version == Version::Http10, sent.starts_with(b"HTTP/1.0"), "{shown}");
        let names = sent.split(|&byte| byte == b'\n').filter(|line| line.contains(&b':')).count();
        assert_eq!(head.fields.iter().count(), names);
    }
}

#[test]
fn each_prefix_of_a_good_head_is_incomplete() {
    for (sent, ..) in GOOD {
        let mut dribbled = Scan::for_response();
        for end in 0..sent.len() {
            let shown = String::from_utf8_lossy(&sent[..end]);
            assert_eq!(Scan::for_response().scan(&sent[..end]), Scanned::Incomplete, "{shown}");
            assert_eq!(dribbled.scan(&sent[..end]), Scanned::Incomplete, "{shown}");
        }
        assert_eq!(dribbled.scan(sent), Scanned::Complete(sent.len()));
        let more = [*sent, b"\0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"].concat();
        assert_eq!(Scan::for_response().scan(&more), Scanned::Complete(sent.len()), "a body is not judged");
    }
}

#[test]
fn what_is_ambiguous_is_not_believed() {
    for (lines, _, is_believed) in cases::LINES {
        for (line, to) in [
            (&b"HTTP/1.1 200 OK\r\n"[..], AnswerTo::Other),
            (b"HTTP/1.1 200 OK\r\n", AnswerTo::Head),
            (b"HTTP/1.1 204 No Content\r\n", AnswerTo::Other),
            (b"HTTP/1.1 304 Not Modified\r\n", AnswerTo::Other),
            (b"HTTP/1.1 100 Continue\r\n", AnswerTo::Other),
        ] {
            let head = [line, *lines, b"\r\n"].concat();
            let outcome = read(&head, &mut Storage::new(), to).map(drop);
            assert_eq!(outcome.is_ok(), *is_believed, "{:?} {outcome:?}", String::from_utf8_lossy(&head));
        }
    }
    let coding_in_http_1_0: &[u8] = b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert!(read(coding_in_http_1_0, &mut Storage::new(), AnswerTo::Other).is_err());
}

#[test]
fn status_lines() {
    let bad: &[&[u8]] = &[
        b"\r\n",
        b"\r\nHTTP/1.1 200 OK",
        b" HTTP/1.1 200 OK",
        b"http/1.1 200 OK",
        b"HTTP/1.1",
        b"HTTP/1.1 ",
        b"HTTP/1.1  200 OK",
        b"HTTP/1.1\t200 OK",
        b"HTTP/1.1 20 OK",
        b"HTTP/1.1 2000 OK",
        b"HTTP/1.1 200OK",
        b"HTTP/1.1 200\tOK",
        b"HTTP/1.1 +20 OK",
        b"HTTP/1.1 2x0 OK",
        b"HTTP/1.1 000 OK",
        b"HTTP/1.1 099 OK",
        b"HTTP/1.1 -99 OK",
        b"HTTP/1.2 200 OK",
        b"HTTP/2.0 200 OK",
        b"HTTP/2 200",
        b"HTTP/0.9 200 OK",
        b"HTTP/1.10 200 OK",
        b"HTTP/1 200 OK",
        b"HTTP/11 200 OK",
        b"HTTPS/1.1 200 OK",
        b"ICY 200 OK",
        b"SSH-2.0-OpenSSH_9.6",
        b"<!DOCTYPE html>",
        b"GET / HTTP/1.1",
        b"HTTP/1.1 200 O\0K",
        b"HTTP/1.1 200 O\x1bK",
        b"HTTP/1.1 200 O\x7fK",
        b"HTTP/1.1 200 O\rK",
        b"HTTP/1.1 200 OK\n",
        b"HTTP/1.1 200 OK\r",
    ];
    for line in bad {
        let head = [*line, b"\r\nContent-Length: 0\r\n\r\n"].concat();
        let outcome = read(&head, &mut Storage::new(), AnswerTo::Other).map(drop);
        assert!(outcome.is_err(), "{:?}", String::from_utf8_lossy(line));
    }
    // Another protocol is known by its first bytes.
    for start in [&b"S"[..], b"\x15", b"\0", b"\r", b"\n", b" ", b"h", b"HTTQ", b"HTTP1"] {
        assert!(matches!(Scan::for_response().scan(start), Scanned::Bad(_)), "{start:?}");
        let mut dribbled = Scan::for_response();
        let found =
            (0..=start.len()).map(|end| dribbled.scan(&start[..end])).find(|it| *it != Scanned::Incomplete);
        assert!(matches!(found, Some(Scanned::Bad(_))), "{start:?}");
    }
}

#[test]
fn framing_follows_the_request_and_the_status() {
    let cases = [
        (200, "", AnswerTo::Other, Framing::UntilClose),
        (200, "", AnswerTo::Head, Framing::None),
        (200, "Content-Length: 5\r\n", AnswerTo::Other, Framing::Length(5)),
        (200, "Content-Length: 5\r\n", AnswerTo::Head, Framing::None),
        (200, "Transfer-Encoding: chunked\r\n", AnswerTo::Other, Framing::Chunked),
        (200, "Transfer-Encoding: chunked\r\n", AnswerTo::Head, Framing::None),
        (200, "Connection: content-length\r\nContent-Length: 5\r\n", AnswerTo::Other, Framing::Length(5)),
        (199, "Content-Length: 5\r\n", AnswerTo::Other, Framing::None),
        (101, "", AnswerTo::Other, Framing::None),
        (203, "", AnswerTo::Other, Framing::UntilClose),
        (204, "Content-Length: 5\r\n", AnswerTo::Other, Framing::None),
        (304, "Content-Length: 5\r\n", AnswerTo::Other, Framing::None),
        (304, "Transfer-Encoding: chunked\r\n", AnswerTo::Other, Framing::None),
        (305, "", AnswerTo::Other, Framing::UntilClose),
        (407, "Content-Length: 5\r\n", AnswerTo::Other, Framing::Length(5)),
        (500, "Connection: keep-alive\r\n", AnswerTo::Other, Framing::UntilClose),
    ];
    for (status, fields, to, framing) in cases {
        let sent = format!("HTTP/1.1 {status} x\r\n{fields}\r\n");
        let mut storage = Storage::new();
        let head = read(sent.as_bytes(), &mut storage, to).unwrap();
        assert_eq!(head.framing, framing, "{sent:?} {to:?}");
        let length = fields.contains("Content-Length").then_some(5);
        assert_eq!(head.content_length, length, "{sent:?}");
        let ends = framing == Framing::UntilClose;
        assert_eq!(head.persistence == Persistence::Close, ends, "{sent:?}");
    }
}

#[test]
fn upgrades() {
    let cases = [
        ("1.1 101", "Connection: Upgrade\r\nUpgrade: websocket\r\n", Upgrade::Asked),
        ("1.1 426", "Connection: upgrade\r\nUpgrade: TLS/1.2, foo\r\n", Upgrade::Asked),
        ("1.1 101", "Upgrade: websocket\r\n", Upgrade::None),
        ("1.1 101", "Connection: Upgrade\r\n", Upgrade::None),
        ("1.1 101", "Connection: Upgrade\r\nUpgrade: h2c\r\n", Upgrade::None),
        ("1.0 101", "Connection: Upgrade\r\nUpgrade: websocket\r\n", Upgrade::None),
    ];
    for (line, fields, upgrade) in cases {
        let sent = format!("HTTP/{line} x\r\n{fields}\r\n");
        let mut storage = Storage::new();
        assert_eq!(
            read(sent.as_bytes(), &mut storage, AnswerTo::Other).unwrap().upgrade,
            upgrade,
            "{sent:?}"
        );
    }
}

#[test]
fn limits_are_exact() {
    let head = |field_bytes: usize| format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\n", "b".repeat(field_bytes));
    let fits = MAX_HEAD_BYTES - head(0).len();
    let outcome = |sent: &str| read(sent.as_bytes(), &mut Storage::new(), AnswerTo::Other).map(drop);
    assert_eq!(outcome(&head(fits)), Ok(()));
    assert_eq!(outcome(&head(fits + 1)), Err(BadResponse("too large")));
    assert_eq!(
        outcome(&format!("HTTP/1.1 200 {}", "A".repeat(MAX_HEAD_BYTES))),
        Err(BadResponse("first line"))
    );
    let with = |count: usize| format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(count));
    assert_eq!(outcome(&with(MAX_HEADERS)), Ok(()));
    assert!(outcome(&with(MAX_HEADERS + 1)).is_err_and(|bad| bad.0.contains("100 header fields")));
}

#[test]
fn no_flipped_byte_panics() {
    for (sent, ..) in GOOD {
        for at in 0..sent.len() {
            for byte in 0..=255 {
                let mut bytes = sent.to_vec();
                bytes[at] = byte;
                if let Scanned::Complete(length) = Scan::for_response().scan(&bytes) {
                    let mut storage = Storage::new();
                    if let Ok(head) = parse(&bytes[..length], &mut storage, AnswerTo::Other) {
                        assert!((100..=999).contains(&head.status));
                        assert!(!head.reason.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)));
                    }
                }
                // Also what the scan would have refused.
                let _ = parse(&bytes, &mut Storage::new(), AnswerTo::Head);
            }
        }
    }
}
