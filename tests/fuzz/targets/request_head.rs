//! The input is what a client sends. It is scanned at once and in pieces, what is found complete is parsed, and what is
//! plain HTTP is written anew and read again.
#![no_main]

use adit::proto::body::Framing;
use adit::proto::fields::{Expect, MAX_HEADERS, Persistence, Storage, Upgrade, Version};
use adit::proto::head::{self, HTTP_PORT, HttpRequest, Parsed};
use adit::proto::onward::{self, GROWTH_MAX_BYTES, RequestEdit};
use adit::proto::reply::Refusal;
use adit::proto::scan::{MAX_HEAD_BYTES, Scan, Scanned};
use adit::proto::target::Target;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let at_once = Scan::default().scan(bytes);
    for piece_bytes in [1, 2, 7, 64] {
        assert_eq!(in_pieces(bytes, piece_bytes), at_once, "in pieces of {piece_bytes}");
    }
    match at_once {
        Scanned::Incomplete => assert!(bytes.len() < MAX_HEAD_BYTES, "too long a head is never waited for"),
        Scanned::Bad(broken) => check_refusal(&broken.refusal()),
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
    let mut storage = Storage::new();
    match head::parse(head, &mut storage) {
        Ok(parsed) => {
            check_fields(head, &parsed);
            match parsed {
                Parsed::Connect(connect) => {
                    let canonical = connect.target.to_string();
                    let again = Target::from_authority(canonical.as_bytes());
                    assert_eq!(again.as_ref(), Ok(&connect.target), "canonical is a fixed point");
                    assert_eq!(asked, Some(connect.target), "both readers see one target");
                }
                Parsed::Http(request) => {
                    assert_eq!(asked, None);
                    check_http(head, &request);
                }
            }
        }
        Err(refusal) => check_refusal(&refusal),
    }
}

fn check_refusal(refusal: &Refusal) {
    assert!(matches!(refusal.status(), 400 | 414 | 431 | 501 | 505), "{refusal:?}");
}

/// What holds for every head that is accepted.
fn check_fields(head: &[u8], parsed: &Parsed) {
    let (version, read) = match parsed {
        Parsed::Connect(connect) => (connect.version, connect.fields),
        Parsed::Http(request) => (request.version, request.fields),
    };
    let fields = fields(head);
    assert!(fields.len() <= MAX_HEADERS);
    assert!(read.iter().eq(fields.iter().map(|field| (&*field.0, &*field.1))), "all fields, in their order");
    let hosts = values(&fields, "host").len();
    assert!(hosts == 1 || hosts == 0 && version == Version::Http10, "{hosts} Host fields");
    let lengths = values(&fields, "content-length");
    assert!(lengths.windows(2).all(|pair| pair[0] == pair[1]), "lengths that differ");
    assert!(lengths.iter().all(|length| !length.is_empty() && length.iter().all(u8::is_ascii_digit)));
    let codings = values(&fields, "transfer-encoding");
    assert!(codings.is_empty() || lengths.is_empty(), "one framing");
    assert!(codings.is_empty() || version == Version::Http11 && codings.len() == 1);
    assert!(codings.iter().all(|coding| coding.eq_ignore_ascii_case(b"chunked")), "{codings:?}");
    match parsed {
        Parsed::Connect(_) => {
            assert!(
                codings.is_empty() && lengths.iter().all(|length| length.iter().all(|digit| *digit == b'0'))
            );
        }
        Parsed::Http(request) => match request.framing {
            Framing::None => assert!(codings.is_empty() && lengths.is_empty()),
            Framing::Length(length) => {
                assert_eq!(std::str::from_utf8(lengths[0]).map(str::parse), Ok(Ok(length)));
            }
            Framing::Chunked => assert!(!codings.is_empty()),
            Framing::UntilClose => panic!("no request ends so"),
        },
    }
}

fn check_http(head: &[u8], request: &HttpRequest) {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    assert!(!request.method.is_empty() && request.method.len() <= 32 && request.method.bytes().all(token));
    assert_ne!(request.method, "CONNECT");
    assert!(request.path.bytes().all(|byte| byte.is_ascii_graphic()) && !request.path.contains('#'));
    assert!(matches!(request.path.as_bytes(), b"" | [b'/' | b'?', ..] | b"*"));
    assert!(!request.authority.iter().any(|byte| b"/?#".contains(byte)));
    assert_eq!(request.authority.is_empty(), request.path == "*");
    let has_body = !matches!(request.framing, Framing::None | Framing::Length(0));
    assert!(request.method != "TRACE" || !has_body);
    if request.version == Version::Http10 {
        assert_eq!((request.persistence, request.expect), (Persistence::Close, Expect::Nothing));
    }
    assert!(request.upgrade == Upgrade::None || request.version == Version::Http11 && !has_body);
    let _ = request.went_through("adit");
    let Ok(target) = Target::from_authority_or_port(request.authority, HTTP_PORT) else { return };
    if target.is_authority(request.authority, HTTP_PORT) {
        assert!(!request.authority.contains(&b'@'));
    }
    let mut url = Vec::new();
    request.loggable_url(&target, 200, &mut url);
    assert!(!url.is_empty() && url.len() <= 200 && url.iter().all(u8::is_ascii_graphic), "{url:?}");
    let may_hold_a_secret = |byte: &u8| matches!(byte, b'?' | b'#');
    assert!(!url.iter().any(may_hold_a_secret), "{url:?}");
    check_onward(head, request, &target);
}

/// The request as it is sent on: one request in origin form, whose fields are those that came, less some.
fn check_onward(head: &[u8], request: &HttpRequest, target: &Target) {
    let edit = RequestEdit { target, via: Some("adit"), forwarded_for: Some([192, 0, 2, 1].into()) };
    let mut out = Vec::new();
    onward::request(request, &edit, &mut out);
    assert!(out.len() <= head.len() + GROWTH_MAX_BYTES);
    let text: String = out.iter().map(|&byte| char::from(byte)).collect();
    let lines: Vec<&str> = text.split("\r\n").collect();
    let (line, lines) = lines.split_first().expect("a request line");
    let lines = lines.strip_suffix(&["", ""]).expect("one empty line, at the end");
    assert!(!lines.iter().any(|line| line.is_empty() || line.contains(['\r', '\n', '\0'])), "{text:?}");
    let words: Vec<&str> = line.split(' ').collect();
    assert!(words.len() == 3 && words[0] == request.method && words[2] == "HTTP/1.1", "{line:?}");
    assert!(words[1].starts_with('/') || words[1] == "*" && request.method == "OPTIONS", "{line:?}");
    assert!(words[1].ends_with(request.path) || request.path.is_empty());

    let mut sent = fields(head).into_iter();
    let (mut lengths, mut codings, mut connections) = (0, 0, 0);
    for (index, line) in lines.iter().enumerate() {
        let (name, value) = line.split_once(": ").expect("written our way");
        let bytes: Vec<u8> = value.chars().map(|byte| byte as u8).collect();
        match &*name.to_ascii_lowercase() {
            "host" => assert_eq!(index, 0, "Host is first, and the only one"),
            "content-length" => lengths += 1,
            "transfer-encoding" => codings += 1,
            "connection" => connections += 1,
            "proxy-authorization" | "proxy-connection" | "keep-alive" | "te" => panic!("{line:?} goes on"),
            "max-forwards" if request.max_forwards.is_some() => {}
            "via" if value == "1.0 adit" || value == "1.1 adit" => {}
            "forwarded" if index + 1 == lines.len() => assert_eq!(value, "for=192.0.2.1"),
            _ => assert!(
                sent.any(|field| field.0 == name && field.1 == bytes),
                "{line:?} never came, or not in this order"
            ),
        }
    }
    assert_eq!(lengths, usize::from(matches!(request.framing, Framing::Length(_))));
    assert_eq!(codings, usize::from(request.framing == Framing::Chunked));
    assert_eq!(connections, usize::from(request.upgrade == Upgrade::Asked));
    check_again(request, target, &out);
}

/// What was written, made a request to a proxy again, says the same; written once more, it is the same.
fn check_again(request: &HttpRequest, target: &Target, out: &[u8]) {
    let host = if target.port == HTTP_PORT {
        target.host.to_string()
    } else {
        format!("{}:{}", target.host, target.port)
    };
    let end = out.windows(2).position(|two| two == b"\r\n").expect("a line");
    let path = match out[..end].split(|&byte| byte == b' ').nth(1) {
        Some(b"*") | None => &b""[..],
        Some(path) => path,
    };
    let line = [request.method.as_bytes(), b" http://", host.as_bytes(), path, b" HTTP/1.1"].concat();
    let again = [&line[..], &out[end..]].concat();
    if Scan::for_request().scan(&again) != Scanned::Complete(again.len()) {
        assert!(again.len() > MAX_HEAD_BYTES);
        return;
    }
    let mut storage = Storage::new();
    let reread = match head::parse(&again, &mut storage) {
        Ok(Parsed::Http(reread)) => reread,
        Ok(Parsed::Connect(_)) => panic!("a CONNECT"),
        Err(refusal) => {
            // Via and Forwarded are one field more each.
            assert_eq!(refusal, Refusal::TooManyHeaders);
            return;
        }
    };
    assert_eq!((reread.method, reread.framing), (request.method, request.framing));
    assert_eq!((reread.upgrade, reread.expect), (request.upgrade, request.expect));
    assert_eq!(reread.max_forwards, request.max_forwards.map(|left| left.saturating_sub(1)));
    assert!(reread.went_through("adit"));
    let mut twice = Vec::new();
    onward::request(&reread, &RequestEdit { target, via: None, forwarded_for: None }, &mut twice);
    let mut thrice = out.to_vec();
    if let Some(left) = reread.max_forwards {
        // Only this number changes each time, and it is written behind the fields that stay.
        let line = |left: u32| format!("Max-Forwards: {left}\r\n").into_bytes();
        thrice = without(&thrice, &line(left));
        twice = without(&twice, &line(left.saturating_sub(1)));
    }
    // What is ours stands in another place the second time: the fields that stay are one block more.
    let sorted = |bytes: &[u8]| {
        let mut lines: Vec<Vec<u8>> = bytes.split(|&byte| byte == b'\n').map(<[u8]>::to_vec).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&twice), sorted(&thrice));
}

fn without(bytes: &[u8], line: &[u8]) -> Vec<u8> {
    let at = bytes.windows(line.len()).rposition(|window| window == line).expect("the line is there");
    [&bytes[..at], &bytes[at + line.len()..]].concat()
}

/// Name and value of each field line, cut out as simply as possible.
fn fields(head: &[u8]) -> Vec<(String, Vec<u8>)> {
    // One character for one byte.
    let text: String = head.iter().map(|&byte| char::from(byte)).collect();
    let lines = text.trim_start_matches("\r\n").split("\r\n").skip(1).filter(|line| !line.is_empty());
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
