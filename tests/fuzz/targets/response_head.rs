//! The first byte of the input says what was asked and who asked; the rest is what an origin sends. It is scanned at once and in
//! pieces, what is found complete is parsed, written anew and read again.
#![no_main]

use adit::proto::body::Framing;
use adit::proto::fields::{MAX_HEADERS, Persistence, Storage, Upgrade, Version};
use adit::proto::onward::{self, GROWTH_MAX_BYTES, ResponseEdit};
use adit::proto::reply::ConnectionHeader;
use adit::proto::response::{self, AnswerTo, ResponseHead};
use adit::proto::scan::{MAX_HEAD_BYTES, Scan, Scanned};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((&choice, bytes)) = input.split_first() else { return };
    let at_once = Scan::for_response().scan(bytes);
    for piece_bytes in [1, 2, 7, 64] {
        assert_eq!(in_pieces(bytes, piece_bytes), at_once, "in pieces of {piece_bytes}");
    }
    match at_once {
        Scanned::Incomplete => assert!(bytes.len() < MAX_HEAD_BYTES, "too long a head is never waited for"),
        Scanned::Bad(_) => {}
        Scanned::Complete(length) => complete(choice, bytes, length),
    }
});

/// Lets the head grow. What comes first must be what is found at once.
fn in_pieces(bytes: &[u8], piece_bytes: usize) -> Scanned {
    let mut scan = Scan::for_response();
    for end in (0..bytes.len()).step_by(piece_bytes).chain([bytes.len()]) {
        let scanned = scan.scan(&bytes[..end]);
        if scanned != Scanned::Incomplete {
            return scanned;
        }
    }
    Scanned::Incomplete
}

fn complete(choice: u8, bytes: &[u8], length: usize) {
    assert!(length <= bytes.len() && length <= MAX_HEAD_BYTES);
    let head = &bytes[..length];
    assert!(head.starts_with(b"HTTP/") && head.ends_with(b"\r\n\r\n"));
    assert_eq!(Scan::for_response().scan(head), Scanned::Complete(length), "what follows does not count");
    for end in [length / 2, length - 4, length - 3, length - 2, length - 1] {
        assert_eq!(Scan::for_response().scan(&head[..end]), Scanned::Incomplete, "the first {end} bytes");
    }
    assert!(head.iter().all(|byte| matches!(byte, b'\r' | b'\n' | b'\t' | b' '..=b'~' | 0x80..)));
    let to = if choice & 1 == 0 { AnswerTo::Other } else { AnswerTo::Head };
    let mut storage = Storage::new();
    match response::parse(head, &mut storage, to) {
        Ok(read) => {
            check_read(head, &read, to);
            check_onward(choice, head, &read, to);
        }
        Err(bad) => assert!(!bad.0.is_empty()),
    }
}

fn check_read(head: &[u8], read: &ResponseHead, to: AnswerTo) {
    let fields = fields(head);
    assert!(fields.len() <= MAX_HEADERS);
    assert!(
        read.fields.iter().eq(fields.iter().map(|field| (&*field.0, &*field.1))),
        "all fields, in their order"
    );
    let line: Vec<u8> = head.split(|&byte| byte == b'\r').next().unwrap_or_default().to_vec();
    let version = if read.version == Version::Http10 { "HTTP/1.0" } else { "HTTP/1.1" };
    let expected = [version.as_bytes(), b" ", read.status.to_string().as_bytes(), b" ", read.reason].concat();
    assert!(line == expected || read.reason.is_empty() && expected.strip_suffix(b" ") == Some(&line));
    assert!((100..=999).contains(&read.status));

    let lengths = values(&fields, "content-length");
    assert!(lengths.windows(2).all(|pair| pair[0] == pair[1]), "lengths that differ");
    assert!(lengths.iter().all(|length| !length.is_empty() && length.iter().all(u8::is_ascii_digit)));
    let codings = values(&fields, "transfer-encoding");
    assert!(codings.is_empty() || lengths.is_empty(), "one framing");
    assert!(codings.is_empty() || read.version == Version::Http11 && codings.len() == 1);
    assert!(codings.iter().all(|coding| coding.eq_ignore_ascii_case(b"chunked")), "{codings:?}");
    let length = lengths.first().map(|length| String::from_utf8_lossy(length).parse().expect("fits"));
    assert_eq!(read.content_length, length);
    let has_body = to == AnswerTo::Other && !matches!(read.status, 100..=199 | 204 | 304);
    let expected = match (has_body, codings.is_empty(), length) {
        (false, _, _) => Framing::None,
        (true, false, _) => Framing::Chunked,
        (true, true, Some(length)) => Framing::Length(length),
        (true, true, None) => Framing::UntilClose,
    };
    assert_eq!(read.framing, expected);
    if read.version == Version::Http10 || read.framing == Framing::UntilClose {
        assert_eq!(read.persistence, Persistence::Close);
    }
    assert!(read.upgrade == Upgrade::None || read.version == Version::Http11);
}

/// The response as the client sees it: one head, whose fields are those that came, less some.
fn check_onward(choice: u8, head: &[u8], read: &ResponseHead, to: AnswerTo) {
    let client_version = if choice & 2 == 0 { Version::Http11 } else { Version::Http10 };
    let edit = ResponseEdit {
        framing: match read.framing {
            Framing::UntilClose if choice & 4 == 0 => Framing::Chunked,
            framing @ (Framing::None | Framing::Length(_) | Framing::Chunked | Framing::UntilClose) => {
                framing
            }
        },
        connection: if choice & 8 == 0 { ConnectionHeader::KeepAlive } else { ConnectionHeader::Close },
        upgrade: if choice & 16 == 0 { Upgrade::None } else { read.upgrade },
        via: Some("adit"),
        client_version,
    };
    let mut out = Vec::new();
    onward::response(read, &edit, &mut out);
    assert!(out.len() <= head.len() + GROWTH_MAX_BYTES);
    let text: String = out.iter().map(|&byte| char::from(byte)).collect();
    let lines: Vec<&str> = text.split("\r\n").collect();
    let (line, lines) = lines.split_first().expect("a status line");
    assert!(line.starts_with(&format!("HTTP/1.1 {} ", read.status)), "{line:?}");
    let lines = lines.strip_suffix(&["", ""]).expect("one empty line, at the end");
    assert!(!text.replace("\r\n", "").contains(['\r', '\n', '\0']), "{text:?}");

    let mut sent = fields(head).into_iter();
    let (mut lengths, mut codings) = (0, 0);
    for (index, line) in lines.iter().enumerate() {
        let (name, value) = line.split_once(": ").expect("written our way");
        let bytes: Vec<u8> = value.chars().map(|byte| byte as u8).collect();
        match &*name.to_ascii_lowercase() {
            "content-length" => lengths += 1,
            "transfer-encoding" => codings += 1,
            "connection" => assert!(value == "close" || value == "upgrade" && edit.upgrade == Upgrade::Asked),
            "proxy-connection" | "keep-alive" | "te" => panic!("{line:?} goes on"),
            "upgrade" => assert_eq!(edit.upgrade, Upgrade::Asked),
            "trailer" if client_version == Version::Http10 => panic!("{line:?} goes on"),
            "via" if index + 1 == lines.len() => assert!(value == "1.0 adit" || value == "1.1 adit"),
            _ => assert!(
                sent.any(|field| field.0 == name && field.1 == bytes),
                "{line:?} never came, or not in this order"
            ),
        }
    }
    let is_bare = matches!(read.status, 100..=199 | 204);
    assert!(lengths + codings <= usize::from(!is_bare), "one framing at most: {text:?}");
    assert!(codings == 0 || client_version == Version::Http11);
    if out.len() <= MAX_HEAD_BYTES && lines.len() <= MAX_HEADERS {
        check_again(&edit, read, &out, to);
    }
}

/// What was written says the same.
fn check_again(edit: &ResponseEdit, read: &ResponseHead, out: &[u8], to: AnswerTo) {
    assert_eq!(Scan::for_response().scan(out), Scanned::Complete(out.len()));
    let mut storage = Storage::new();
    let reread = response::parse(out, &mut storage, to).expect("what we write is believed");
    assert_eq!((reread.status, reread.reason), (read.status, read.reason));
    let expected = match (edit.framing, edit.client_version) {
        (Framing::Chunked, Version::Http10) => Framing::UntilClose,
        (framing, _) => framing,
    };
    assert_eq!(reread.framing, expected);
    assert_eq!(reread.upgrade == Upgrade::Asked, edit.upgrade == Upgrade::Asked && out_says_upgrade(out));
}

/// A response that is the last one says so instead.
fn out_says_upgrade(out: &[u8]) -> bool {
    // Not the end of another field's name.
    let line = b"\r\nConnection: upgrade\r\n";
    out.windows(line.len()).any(|window| window == line)
}

/// Name and value of each field line, cut out as simply as possible.
fn fields(head: &[u8]) -> Vec<(String, Vec<u8>)> {
    // One character for one byte.
    let text: String = head.iter().map(|&byte| char::from(byte)).collect();
    let lines = text.split("\r\n").skip(1).filter(|line| !line.is_empty());
    let field = |line: &str| {
        let (name, value) = line.split_once(':').expect("an accepted field has a colon");
        let value = value.trim_matches([' ', '\t']).chars().map(|byte| byte as u8);
        (name.to_owned(), value.collect())
    };
    lines.map(field).collect()
}

fn values<'a>(fields: &'a [(String, Vec<u8>)], name: &str) -> Vec<&'a [u8]> {
    fields.iter().filter(|field| field.0.eq_ignore_ascii_case(name)).map(|field| &*field.1).collect()
}
