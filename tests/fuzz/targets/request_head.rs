//! The input is what a client sends. It is scanned at once and in pieces, and what is found complete is parsed.
#![no_main]

use adit::proto::head::{self, MAX_HEAD_BYTES, MAX_HEADERS, Parsed, Request, Scan, Scanned, Version};
use adit::proto::reply::Refusal;
use adit::proto::target::Target;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let at_once = Scan::default().scan(bytes);
    for piece_bytes in [1, 2, 7, 64] {
        assert_eq!(in_pieces(bytes, piece_bytes), at_once, "in pieces of {piece_bytes}");
    }
    match at_once {
        Scanned::Incomplete => assert!(bytes.len() < MAX_HEAD_BYTES, "too long a head is never waited for"),
        Scanned::Bad(refusal) => check_refusal(&refusal),
        Scanned::Complete(length) => complete(bytes, length),
    }
});

/// Lets the head grow. What comes first must be what is found at once.
fn in_pieces(bytes: &[u8], piece_bytes: usize) -> Scanned {
    let mut scan = Scan::default();
    for end in (0..bytes.len()).step_by(piece_bytes).chain([bytes.len()]) {
        let scanned = scan.scan(&bytes[..end]);
        if scanned != Scanned::Incomplete {
            return scanned;
        }
    }
    Scanned::Incomplete
}

fn complete(bytes: &[u8], length: usize) {
    assert!(length <= bytes.len() && length <= MAX_HEAD_BYTES);
    let head = &bytes[..length];
    assert!(head.ends_with(b"\r\n\r\n"));
    assert_eq!(Scan::default().scan(head), Scanned::Complete(length), "what follows does not count");
    for end in [length / 2, length - 4, length - 3, length - 2, length - 1] {
        assert_eq!(Scan::default().scan(&head[..end]), Scanned::Incomplete, "the first {end} bytes");
    }
    assert!(head.iter().all(|byte| matches!(byte, b'\r' | b'\n' | b'\t' | b' '..=b'~' | 0x80..)));
    let asked = head::connect_target(head);
    if let Some(target) = &asked {
        assert!(head.trim_ascii_start().starts_with(b"CONNECT "));
        assert_eq!(Target::from_authority(target.to_string().as_bytes()).as_ref(), Ok(target));
    }
    match head::parse(head) {
        Ok(parsed) => {
            check_parsed(head, &parsed);
            let target = if let Request::Connect(target) = parsed.request { Some(target) } else { None };
            assert_eq!(asked, target, "both readers see one target");
        }
        Err(refusal) => check_refusal(&refusal),
    }
}

fn check_refusal(refusal: &Refusal) {
    assert!(matches!(refusal.status(), 400 | 414 | 431 | 501 | 505), "{refusal:?}");
}

fn check_parsed(head: &[u8], parsed: &Parsed) {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let (method, text) = match &parsed.request {
        Request::Connect(target) => ("CONNECT", target.to_string()),
        Request::Http { method, url } => (&**method, url.to_string()),
    };
    assert!(!method.is_empty() && method.len() <= 32 && method.bytes().all(token));
    assert!(!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()), "{text:?}");
    assert!(!text.contains(['?', '#']), "what may hold a secret is not logged: {text:?}");
    let authority = text.split('/').nth(2).unwrap_or_default();
    assert!(!authority.contains('@'), "no user name: {text:?}");
    let fields = fields(head);
    assert!(fields.len() <= MAX_HEADERS);
    let hosts = values(&fields, "host").len();
    assert!(hosts == 1 || hosts == 0 && parsed.version == Version::Http10, "{hosts} Host fields");
    let lengths = values(&fields, "content-length");
    assert!(lengths.windows(2).all(|pair| pair[0] == pair[1]), "lengths that differ");
    assert!(
        lengths.iter().all(|length| !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit()))
    );
    let codings = values(&fields, "transfer-encoding");
    match &parsed.request {
        Request::Connect(target) => {
            assert_eq!(
                Target::from_authority(text.as_bytes()).as_ref(),
                Ok(target),
                "canonical is a fixed point"
            );
            assert!(
                codings.is_empty() && lengths.iter().all(|length| length.bytes().all(|digit| digit == b'0'))
            );
        }
        Request::Http { .. } => {
            assert_ne!(method, "CONNECT");
            assert!(codings.is_empty() || lengths.is_empty(), "one framing");
            assert!(codings.is_empty() || parsed.version == Version::Http11 && codings.len() == 1);
            assert!(codings.iter().all(|coding| coding.eq_ignore_ascii_case("chunked")), "{codings:?}");
        }
    }
}

/// Name and value of each field line, cut out as simply as possible.
fn fields(head: &[u8]) -> Vec<(String, String)> {
    let text = String::from_utf8_lossy(head).into_owned();
    let lines = text.trim_start_matches("\r\n").split("\r\n").skip(1).filter(|line| !line.is_empty());
    let field = |line: &str| {
        let (name, value) = line.split_once(':').expect("an accepted field has a colon");
        (name.to_ascii_lowercase(), value.trim_matches([' ', '\t']).to_owned())
    };
    lines.map(field).collect()
}

fn values<'a>(fields: &'a [(String, String)], name: &str) -> Vec<&'a str> {
    fields.iter().filter(|field| field.0 == name).map(|field| field.1.as_str()).collect()
}
