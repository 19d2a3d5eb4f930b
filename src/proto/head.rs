//! Request heads: found in what has arrived so far, then read strictly. Ambiguity is refused, never repaired.
//! The line structure is checked byte by byte in [`Scan`], the fields by `httparse`, their meaning in [`parse`].

use super::reply::{Refusal, is_token_byte};
use super::target::{BadTarget, Target};

/// Longest request head, request line and header fields together, with the line ends and the empty line.
pub const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Most header fields in one head.
pub const MAX_HEADERS: usize = 100;
/// Most empty lines in front of a request line (RFC 9112 2.2: "at least one" should be ignored).
pub const MAX_EMPTY_LINES: u8 = 4;
/// Longest method that is not refused out of hand; the longest registered one has 17 bytes.
const MAX_METHOD_BYTES: usize = 32;

// `Scan` counts in 16 bits.
const _: () = assert!(MAX_HEAD_BYTES < u16::MAX as usize);

/// What has arrived so far, as far as [`Scan`] has looked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scanned {
    /// More must come.
    Incomplete,
    /// The head has this many bytes, the empty line included. What follows is not part of it.
    Complete(usize),
    /// This can never become a head.
    Bad(Refusal),
}

/// Remembers how far a growing head has been looked at, so that a dribbled head costs linear time.
///
/// One value for one head: start with a default one for the next.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scan {
    looked_at: u16,
    empty_lines: u8,
    place: Place,
}

/// Where in the line structure the next byte stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// Nothing of the request line has come yet.
    #[default]
    Start,
    /// Behind the CR of an empty line in front of the request line.
    StartCr,
    /// In the request line.
    RequestLine,
    /// Behind its CR.
    RequestLineCr,
    /// At the first byte of a field line, or of the empty line.
    LineStart,
    /// In a field line.
    Line,
    /// Behind its CR.
    LineCr,
    /// Behind the CR of the empty line.
    EndCr,
}

/// What one byte does to the place.
enum Moved {
    To(Place),
    /// The byte is the last one of the head.
    End,
    Bad(Refusal),
}

impl Scan {
    /// Looks at what is new. `bytes` is everything received so far, from the first byte of the request on; what was
    /// looked at before must still be there.
    pub fn scan(&mut self, bytes: &[u8]) -> Scanned {
        let end = bytes.len().min(MAX_HEAD_BYTES);
        let looked_at = usize::from(self.looked_at);
        for (offset, &byte) in bytes.get(looked_at..end).unwrap_or_default().iter().enumerate() {
            match self.place.after(byte) {
                Moved::To(Place::Start) => {
                    self.place = Place::Start;
                    self.empty_lines += 1;
                    if self.empty_lines > MAX_EMPTY_LINES {
                        return Scanned::Bad(Refusal::BadRequest(
                            "too many empty lines before the request line",
                        ));
                    }
                }
                Moved::To(place) => self.place = place,
                Moved::End => return Scanned::Complete(looked_at + offset + 1),
                Moved::Bad(refusal) => return Scanned::Bad(refusal),
            }
        }
        // No more than MAX_HEAD_BYTES, which fits (asserted above).
        self.looked_at = u16::try_from(end).unwrap_or(u16::MAX);
        if end < MAX_HEAD_BYTES {
            return Scanned::Incomplete;
        }
        match self.place {
            Place::Start | Place::StartCr | Place::RequestLine | Place::RequestLineCr => {
                Scanned::Bad(Refusal::RequestLineTooLong)
            }
            Place::LineStart | Place::Line | Place::LineCr | Place::EndCr => {
                Scanned::Bad(Refusal::HeadTooLarge)
            }
        }
    }
}

impl Place {
    fn after(self, byte: u8) -> Moved {
        match self {
            Place::Start => match byte {
                b'\r' => Moved::To(Place::StartCr),
                byte if is_token_byte(byte) => Moved::To(Place::RequestLine),
                byte => Moved::Bad(Refusal::BadRequest(not_http(byte))),
            },
            Place::RequestLine => match byte {
                b'\r' => Moved::To(Place::RequestLineCr),
                b' '..=b'~' => Moved::To(Place::RequestLine),
                byte => Moved::Bad(Refusal::BadRequest(not_text(
                    byte,
                    "the request line has a byte outside ASCII",
                ))),
            },
            Place::LineStart => match byte {
                b'\r' => Moved::To(Place::EndCr),
                b' ' | b'\t' => Moved::Bad(Refusal::BadRequest("a header field is folded over two lines")),
                b':' => Moved::Bad(Refusal::BadRequest("a header field has no name")),
                byte if is_token_byte(byte) => Moved::To(Place::Line),
                byte => Moved::Bad(Refusal::BadRequest(not_text(byte, BAD_NAME))),
            },
            Place::Line => match byte {
                b'\r' => Moved::To(Place::LineCr),
                b'\t' | b' '..=b'~' | 0x80..=0xff => Moved::To(Place::Line),
                byte => Moved::Bad(Refusal::BadRequest(not_text(byte, CONTROL))),
            },
            Place::StartCr => after_cr(byte, Moved::To(Place::Start)),
            Place::RequestLineCr | Place::LineCr => after_cr(byte, Moved::To(Place::LineStart)),
            Place::EndCr => after_cr(byte, Moved::End),
        }
    }
}

fn after_cr(byte: u8, next: Moved) -> Moved {
    match byte {
        b'\n' => next,
        _ => Moved::Bad(Refusal::BadRequest("the head has a CR without LF")),
    }
}

const CONTROL: &str = "the head has a control character";
const BAD_NAME: &str = "the name of a header field has a character that no token has";

/// Why a byte that is not text may not stand in a head.
fn not_text(byte: u8, otherwise: &'static str) -> &'static str {
    match byte {
        b'\n' => "the head has an LF without CR",
        0 => "the head has a NUL",
        1..=0x1f | 0x7f => CONTROL,
        _ => otherwise,
    }
}

/// Why a first byte cannot begin a request: other protocols that find their way to a proxy port are named.
fn not_http(byte: u8) -> &'static str {
    match byte {
        0x16 => "the client spoke TLS to a plain HTTP proxy port",
        0x04 | 0x05 => "the client spoke SOCKS to an HTTP proxy port",
        byte => not_text(byte, "the request does not begin with a method"),
    }
}

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// A tunnel.
    Connect(Target),
    /// A valid request that is not CONNECT: absolute form `http://`, or `OPTIONS *`.
    Http {
        /// A token.
        method: Box<str>,
        /// The URL without its query, for the access line. Never with white space.
        url: Box<str>,
    },
}

/// The version of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
}

/// One request head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// What is asked for.
    pub request: Request,
    /// HTTP/1.0 or HTTP/1.1.
    pub version: Version,
}

/// Reads a head that [`Scan`] has found complete (the line structure is not checked again).
///
/// # Errors
/// The answer for the client. Nothing after such a head may be believed.
pub fn parse(head: &[u8]) -> Result<Parsed, Refusal> {
    let (line, fields) = split_request_line(head)?;
    let RequestLine { method, target, version } = RequestLine::read(line)?;
    let version = version_of(version)?;
    let framing = Framing::read(fields, version)?;
    if method == b"CONNECT" {
        framing.judge_connect()?;
        let target = Target::from_authority(target).map_err(|bad| Refusal::BadTarget(bad.details()))?;
        return Ok(Parsed { request: Request::Connect(target), version });
    }
    let url = http_target(method, target)?;
    framing.judge_http(version)?;
    Ok(Parsed { request: Request::Http { method: ascii(method).into(), url }, version })
}

/// The target of a CONNECT whose head [`parse`] refuses for another reason: whoever reads the access line wants to know it.
#[must_use]
pub fn connect_target(head: &[u8]) -> Option<Target> {
    let (line, _) = split_request_line(head).ok()?;
    let RequestLine { method, target, .. } = RequestLine::read(line).ok()?;
    if method == b"CONNECT" { Target::from_authority(target).ok() } else { None }
}

/// The request line without its end, and everything behind it. Empty lines in front are skipped.
fn split_request_line(head: &[u8]) -> Result<(&[u8], &[u8]), Refusal> {
    let mut rest = head;
    while let Some(behind) = rest.strip_prefix(b"\r\n") {
        rest = behind;
    }
    let cr = rest.iter().position(|&byte| byte == b'\r');
    let line = cr.and_then(|cr| Some((rest.get(..cr)?, rest.get(cr + 2..)?)));
    line.ok_or(Refusal::BadRequest("the request line does not end"))
}

/// Three words with one space between (RFC 9112 3).
struct RequestLine<'a> {
    method: &'a [u8],
    target: &'a [u8],
    version: &'a [u8],
}

impl RequestLine<'_> {
    fn read(line: &[u8]) -> Result<RequestLine<'_>, Refusal> {
        let mut words = line.split(|&byte| byte == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(Refusal::BadRequest(
                "the request line is not method, target and version with one space between",
            ));
        };
        if target.is_empty() {
            return Err(Refusal::BadRequest("the request line has two spaces in a row"));
        }
        if method.is_empty()
            || method.len() > MAX_METHOD_BYTES
            || !method.iter().all(|&byte| is_token_byte(byte))
        {
            return Err(Refusal::BadRequest("the method is not a token of at most 32 characters"));
        }
        Ok(RequestLine { method, target, version })
    }
}

fn version_of(word: &[u8]) -> Result<Version, Refusal> {
    match word {
        b"HTTP/1.1" => Ok(Version::Http11),
        b"HTTP/1.0" => Ok(Version::Http10),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Err(Refusal::UnsupportedVersion)
        }
        _ => Err(Refusal::BadRequest("the request line does not end in an HTTP version")),
    }
}

/// How a body would be delimited, as far as the fields say so.
#[derive(Debug, Default)]
struct Framing {
    content_length: Option<u64>,
    coding: Coding,
}

/// The `Transfer-Encoding` fields, all together.
#[derive(Debug, Default, PartialEq, Eq)]
enum Coding {
    /// There is none.
    #[default]
    None,
    /// Exactly `chunked`.
    Chunked,
    /// Other codings, and `chunked` last.
    UnknownThenChunked,
    /// Anything else: where the body ends cannot be known.
    Ambiguous,
}

impl Framing {
    /// Reads the header fields; checks what holds for every method.
    fn read(fields: &[u8], version: Version) -> Result<Framing, Refusal> {
        let mut storage = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let headers = match httparse::parse_headers(fields, &mut storage) {
            Ok(httparse::Status::Complete((_, headers))) => headers,
            Ok(httparse::Status::Partial) => return Err(Refusal::BadRequest("the head does not end")),
            Err(error) => return Err(field_error(error)),
        };
        let mut framing = Framing::default();
        let mut length_text: Option<&[u8]> = None;
        let mut hosts = 0_usize;
        for header in headers.iter() {
            if header.name.eq_ignore_ascii_case("host") {
                hosts += 1;
                if !header.value.iter().all(|&byte| is_host_byte(byte)) {
                    return Err(Refusal::BadRequest("the Host field is not a host and port"));
                }
            } else if header.name.eq_ignore_ascii_case("content-length") {
                if length_text.is_some_and(|before| before != header.value) {
                    return Err(Refusal::BadRequest("there are two Content-Length fields that differ"));
                }
                length_text = Some(header.value);
                framing.content_length = Some(content_length(header.value)?);
            } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
                framing.coding = framing.coding.and(header.value);
            }
        }
        match (hosts, version) {
            (1, _) | (0, Version::Http10) => Ok(framing),
            (0, Version::Http11) => Err(Refusal::BadRequest("an HTTP/1.1 request needs a Host field")),
            // A number: two or more.
            (_, _) => Err(Refusal::BadRequest("there is more than one Host field")),
        }
    }

    /// A CONNECT has no body (RFC 9110 9.3.6): a field that announces one makes the bytes behind the head ambiguous.
    fn judge_connect(&self) -> Result<(), Refusal> {
        match (&self.coding, self.content_length) {
            (Coding::None, None | Some(0)) => Ok(()),
            (Coding::None, Some(_)) => {
                Err(Refusal::BadRequest("a CONNECT with a Content-Length that is not 0"))
            }
            (Coding::Chunked | Coding::UnknownThenChunked | Coding::Ambiguous, _) => {
                Err(Refusal::BadRequest("a CONNECT with a Transfer-Encoding"))
            }
        }
    }

    /// RFC 9112 6.3, with the choices it leaves decided for refusal.
    fn judge_http(&self, version: Version) -> Result<(), Refusal> {
        if self.coding == Coding::None {
            return Ok(());
        }
        if self.content_length.is_some() {
            return Err(Refusal::BadRequest("there are both Content-Length and Transfer-Encoding"));
        }
        match (&self.coding, version) {
            (_, Version::Http10) => Err(Refusal::BadRequest("HTTP/1.0 has no Transfer-Encoding")),
            (Coding::None | Coding::Chunked, Version::Http11) => Ok(()),
            (Coding::UnknownThenChunked, Version::Http11) => Err(Refusal::UnknownTransferCoding),
            (Coding::Ambiguous, Version::Http11) => {
                Err(Refusal::BadRequest("the Transfer-Encoding is not exactly chunked at its end"))
            }
        }
    }
}

impl Coding {
    /// This, followed by one more field of that name. Codings spread over several fields are not put together.
    fn and(&self, value: &[u8]) -> Coding {
        let mut all = match self {
            Coding::None => Coding::None,
            // `chunked` is not the last one any more, or stands there twice; ambiguous stays so.
            Coding::Chunked | Coding::UnknownThenChunked | Coding::Ambiguous => return Coding::Ambiguous,
        };
        let mut unknown = false;
        for element in value.split(|&byte| byte == b',') {
            let element = element.trim_ascii();
            if all != Coding::None || element.is_empty() || !element.iter().all(|&byte| is_token_byte(byte)) {
                return Coding::Ambiguous;
            }
            if !element.eq_ignore_ascii_case(b"chunked") {
                unknown = true;
            } else if unknown {
                all = Coding::UnknownThenChunked;
            } else {
                all = Coding::Chunked;
            }
        }
        if all == Coding::None { Coding::Ambiguous } else { all }
    }
}

fn field_error(error: httparse::Error) -> Refusal {
    match error {
        httparse::Error::TooManyHeaders => Refusal::TooManyHeaders,
        httparse::Error::HeaderName => {
            Refusal::BadRequest("a header field has no colon right behind its name")
        }
        httparse::Error::HeaderValue => Refusal::BadRequest(CONTROL),
        httparse::Error::NewLine
        | httparse::Error::Status
        | httparse::Error::Token
        | httparse::Error::Version => Refusal::BadRequest("a header field is not name, colon and value"),
    }
}

/// Pure digits, and no more than 64 bits of them.
fn content_length(value: &[u8]) -> Result<u64, Refusal> {
    const BAD: Refusal = Refusal::BadRequest("the Content-Length is not a number in plain digits");
    if value.is_empty() {
        return Err(BAD);
    }
    let mut length = 0_u64;
    for &byte in value {
        if !byte.is_ascii_digit() {
            return Err(BAD);
        }
        length =
            length.checked_mul(10).and_then(|tens| tens.checked_add(u64::from(byte - b'0'))).ok_or(BAD)?;
    }
    Ok(length)
}

/// What `uri-host [":" port]` is made of (RFC 3986 3.2.2). The target wins over the field, so its form is not judged
/// further; but an invalid value is refused (RFC 9112 3.2).
fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~:[]%!$&'()*+,;=".contains(&byte)
}

/// Judges the target of a method that is not CONNECT; returns it as it may be logged.
fn http_target(method: &[u8], target: &[u8]) -> Result<Box<str>, Refusal> {
    if target == b"*" {
        return match method {
            b"OPTIONS" => Ok("*".into()),
            _ => Err(Refusal::BadRequest("the target * is for OPTIONS only")),
        };
    }
    if target.starts_with(b"/") {
        return Err(Refusal::BadRequest(
            "this is a proxy: the target is a CONNECT host:port or an http:// URL",
        ));
    }
    // A scheme is in front or not there (RFC 3986 3.1): one inside a query is none.
    let is_scheme =
        |end: &usize| target[..*end].iter().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte));
    let scheme_end = target.windows(3).position(|window| window == b"://").filter(is_scheme);
    let Some(scheme_end) = scheme_end else {
        return Err(Refusal::BadRequest(if method.eq_ignore_ascii_case(b"CONNECT") {
            "methods are case-sensitive: write CONNECT"
        } else {
            "the target is neither an http:// URL nor, with CONNECT, host:port"
        }));
    };
    let (scheme, rest) = target.split_at(scheme_end);
    if !scheme.eq_ignore_ascii_case(b"http") {
        return Err(Refusal::BadRequest("only http:// URLs are forwarded; https:// goes through CONNECT"));
    }
    let rest = rest.get(3..).unwrap_or_default();
    let authority_end = rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#')).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(authority_end);
    if path.contains(&b'#') {
        return Err(Refusal::BadTarget(BadTarget::NotAuthority.details()));
    }
    let target =
        Target::from_authority_or_port(authority, 80).map_err(|bad| Refusal::BadTarget(bad.details()))?;
    let path_end = path.iter().position(|&byte| byte == b'?').unwrap_or(path.len());
    let path = ascii(path.get(..path_end).unwrap_or_default());
    Ok(match target.port {
        80 => format!("http://{}{path}", target.host),
        _ => format!("http://{target}{path}"),
    }
    .into_boxed_str())
}

/// The scan lets only printable ASCII into the request line; a caller that skipped it gets `?` instead of raw bytes.
fn ascii(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| if byte.is_ascii_graphic() { char::from(byte) } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn read(bytes: &[u8]) -> Result<Parsed, Refusal> {
        let mut scan = Scan::default();
        match scan.scan(bytes) {
            Scanned::Complete(length) => parse(&bytes[..length]),
            Scanned::Bad(refusal) => Err(refusal),
            Scanned::Incomplete => panic!("incomplete: {:?}", String::from_utf8_lossy(bytes)),
        }
    }

    fn status(bytes: &[u8]) -> u16 {
        read(bytes).map_or_else(|refusal| refusal.status(), |_| 200)
    }

    fn connect_with(fields: &str) -> Vec<u8> {
        format!("CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n{fields}\r\n").into_bytes()
    }

    fn get_with(fields: &str) -> Vec<u8> {
        format!("GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n").into_bytes()
    }

    /// Heads as real clients send them.
    const GOOD: &[(&str, &str, &str)] = &[
        // curl
        (
            "CONNECT Example.org:443 HTTP/1.1\r\nHost: Example.org:443\r\nUser-Agent: curl/8.5.0\r\n\
             Proxy-Connection: Keep-Alive\r\n\r\n",
            "CONNECT",
            "example.org:443",
        ),
        // ncat and socat
        ("CONNECT 192.0.2.1:22 HTTP/1.0\r\n\r\n", "CONNECT", "192.0.2.1:22"),
        ("\r\n\r\nCONNECT [2001:db8::1]:443 HTTP/1.1\r\nhost:\r\n\r\n", "CONNECT", "[2001:db8::1]:443"),
        (
            "CONNECT a.test:443 HTTP/1.1\r\nHost: b.test\r\nContent-Length: 0\r\nX-Empty:\r\nX: \ta\tb\u{e9} \r\n\r\n",
            "CONNECT",
            "a.test:443",
        ),
        ("GET http://a.test/x?secret=1 HTTP/1.1\r\nHost: a.test\r\n\r\n", "GET", "http://a.test/x"),
        ("GET HTTP://A.test:8080 HTTP/1.0\r\n\r\n", "GET", "http://a.test:8080"),
        ("GET http://a.test?q HTTP/1.1\r\nHost: a.test\r\n\r\n", "GET", "http://a.test"),
        ("OPTIONS * HTTP/1.1\r\nHost: a.test\r\n\r\n", "OPTIONS", "*"),
        (
            "POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: Chunked\r\n\r\n",
            "POST",
            "http://a.test/",
        ),
        (
            "POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
            "POST",
            "http://a.test/",
        ),
    ];

    /// Method and target as the access line tells them.
    fn told(parsed: &Parsed) -> (String, String) {
        match &parsed.request {
            Request::Connect(target) => ("CONNECT".into(), target.to_string()),
            Request::Http { method, url } => (method.to_string(), url.to_string()),
        }
    }

    #[test]
    fn good_heads_are_read() {
        for (sent, method, target_text) in GOOD {
            let parsed = read(sent.as_bytes()).expect(sent);
            assert_eq!(told(&parsed), (method.to_string(), target_text.to_string()));
            assert_eq!(matches!(parsed.request, Request::Connect(_)), *method == "CONNECT");
            assert_eq!(parsed.version == Version::Http10, sent.contains("HTTP/1.0"));
        }
    }

    #[test]
    fn each_prefix_of_a_good_head_is_incomplete() {
        for (sent, _, _) in GOOD {
            let bytes = sent.as_bytes();
            let mut dribbled = Scan::default();
            for end in 0..bytes.len() {
                assert_eq!(Scan::default().scan(&bytes[..end]), Scanned::Incomplete, "{end} of {sent:?}");
                assert_eq!(dribbled.scan(&bytes[..end]), Scanned::Incomplete, "{end} of {sent:?}");
            }
            assert_eq!(dribbled.scan(bytes), Scanned::Complete(bytes.len()));
            let mut more = bytes.to_vec();
            more.extend_from_slice(b"\0\x16 early data\r\n\r\n");
            assert_eq!(
                Scan::default().scan(&more),
                Scanned::Complete(bytes.len()),
                "early data is not judged"
            );
        }
    }

    #[test]
    fn broken_lines_are_refused_at_the_byte_that_breaks_them() {
        let cases: &[(&[u8], &str)] = &[
            (b"\x16", "TLS"),
            (b"\x05", "SOCKS"),
            (b"\x04", "SOCKS"),
            (b"\0", "NUL"),
            (b"\n", "LF without CR"),
            (b" ", "method"),
            (b":", "method"),
            (b"\xff", "method"),
            (b"\rX", "CR without LF"),
            (b"CONNECT a:1 HTTP/1.1\n", "LF without CR"),
            (b"CONNECT a:1 HTTP/1.1\r\r", "CR without LF"),
            (b"CONNECT a:1 HTTP/1.1\rH", "CR without LF"),
            (b"CONNECT a\0", "NUL"),
            (b"CONNECT\t", "control"),
            (b"CONNECT b\xc3", "ASCII"),
            (b"CONNECT a\x7f", "control"),
            (b"GET / HTTP/1.1\r\n ", "folded"),
            (b"GET / HTTP/1.1\r\nA: b\r\n\t", "folded"),
            (b"GET / HTTP/1.1\r\n:", "no name"),
            (b"GET / HTTP/1.1\r\n\n", "LF without CR"),
            (b"GET / HTTP/1.1\r\n\xe9", "token"),
            (b"GET / HTTP/1.1\r\nA: b\n", "LF without CR"),
            (b"GET / HTTP/1.1\r\nA: b\rc", "CR without LF"),
            (b"GET / HTTP/1.1\r\nA: b\0", "NUL"),
            (b"GET / HTTP/1.1\r\nA: b\x1b", "control"),
            (b"GET / HTTP/1.1\r\nA: b\r\n\r\r", "CR without LF"),
            (b"\r\n\r\n\r\n\r\n\r\n", "empty lines"),
        ];
        for (sent, word) in cases {
            let shown = String::from_utf8_lossy(sent);
            assert_eq!(Scan::default().scan(&sent[..sent.len() - 1]), Scanned::Incomplete, "{shown:?}");
            match Scan::default().scan(sent) {
                Scanned::Bad(refusal) => {
                    assert_eq!(refusal.status(), 400);
                    assert!(refusal.details().contains(word), "{shown:?}: {}", refusal.details());
                }
                other => panic!("{shown:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn limits_are_exact() {
        let head = |field_bytes: usize| connect_with(&format!("A: {}\r\n", "b".repeat(field_bytes)));
        let fits = MAX_HEAD_BYTES - head(0).len();
        assert_eq!(head(fits).len(), MAX_HEAD_BYTES);
        assert_eq!(status(&head(fits)), 200);
        assert_eq!(status(&head(fits + 1)), 431);
        assert_eq!(status(&vec![b'A'; MAX_HEAD_BYTES]), 414);
        assert_eq!(Scan::default().scan(&vec![b'A'; MAX_HEAD_BYTES - 1]), Scanned::Incomplete);
        assert_eq!(status(&vec![b'A'; 10 * MAX_HEAD_BYTES]), 414);
        assert_eq!(status(&connect_with(&"A: b\r\n".repeat(MAX_HEADERS - 1))), 200);
        assert_eq!(status(&connect_with(&"A: b\r\n".repeat(MAX_HEADERS))), 431);
    }

    #[test]
    fn a_dribbled_head_is_looked_at_once() {
        let head = connect_with(&"A: b\r\n".repeat(50));
        let mut scan = Scan::default();
        for end in 0..head.len() {
            assert_eq!(scan.scan(&head[..end]), Scanned::Incomplete);
            assert_eq!(usize::from(scan.looked_at), end);
        }
        assert!(size_of::<Scan>() <= 4);
    }

    #[test]
    fn request_lines() {
        let host = "Host: a.test\r\n\r\n";
        let cases = [
            ("CONNECT a.test:443 HTTP/1.1", 200),
            ("CONNECT a.test:443  HTTP/1.1", 400),
            ("CONNECT  a.test:443 HTTP/1.1", 400),
            ("CONNECT a.test:443 HTTP/1.1 ", 400),
            ("CONNECT a.test:443", 400),
            ("CONNECT a.test:443 ", 400),
            ("CONNECT", 400),
            ("CONNECT a.test HTTP/1.1", 400),
            ("CONNECT 2130706433:80 HTTP/1.1", 400),
            ("CONNECT http://a.test:443 HTTP/1.1", 400),
            ("connect a.test:443 HTTP/1.1", 400),
            ("CONNECT a.test:443 http/1.1", 400),
            ("CONNECT a.test:443 HTTP/1", 400),
            ("CONNECT a.test:443 HTTP/1.11", 400),
            ("CONNECT a.test:443 HTTP/2.0", 505),
            ("CONNECT a.test:443 HTTP/1.2", 505),
            ("CONNECT a.test:443 HTTP/0.9", 505),
            ("PRI * HTTP/2.0", 505),
            ("GET http://a.test/ HTTP/1.1", 200),
            ("M-SEARCH http://a.test/ HTTP/1.1", 200),
            ("G@T http://a.test/ HTTP/1.1", 400),
            ("GET / HTTP/1.1", 400),
            ("GET /", 400),
            ("GET * HTTP/1.1", 400),
            ("OPTIONS * HTTP/1.1", 200),
            ("GET a.test:80 HTTP/1.1", 400),
            ("GET a.test HTTP/1.1", 400),
            ("GET https://a.test/ HTTP/1.1", 400),
            ("GET ftp://a.test/ HTTP/1.1", 400),
            ("GET ://a.test/ HTTP/1.1", 400),
            ("GET http:///x HTTP/1.1", 400),
            ("GET http://u:p@a.test/ HTTP/1.1", 400),
            ("GET http://a.test:0/ HTTP/1.1", 400),
            ("GET http://a.test/#x HTTP/1.1", 400),
            ("GET http://a.test/x@y HTTP/1.1", 200),
            ("GET http://0x7f.1/ HTTP/1.1", 400),
        ];
        for (line, expected) in cases {
            assert_eq!(status(format!("{line}\r\n{host}").as_bytes()), expected, "{line}");
        }
        let long = format!("{} http://a.test/ HTTP/1.1\r\n{host}", "A".repeat(33));
        assert_eq!(status(long.as_bytes()), 400);
        let details = |line: &str| read(format!("{line}\r\n{host}").as_bytes()).unwrap_err().details();
        assert!(details("GET / HTTP/1.1").contains("this is a proxy"));
        assert!(details("connect a.test:443 HTTP/1.1").contains("case-sensitive"));
        assert!(details("GET https://a.test/ HTTP/1.1").contains("CONNECT"));
    }

    #[test]
    fn fields_of_a_connect() {
        let cases = [
            ("", 200),
            ("Content-Length: 0\r\n", 200),
            ("Content-Length: 1\r\n", 400),
            ("Content-Length: 0\r\nContent-Length: 1\r\n", 400),
            ("Content-Length: +0\r\n", 400),
            ("Content-Length:\r\n", 400),
            ("Content-Length: 0, 0\r\n", 400),
            ("Transfer-Encoding: chunked\r\n", 400),
            ("Transfer-Encoding: gzip, chunked\r\n", 400),
            ("Transfer-Encoding:\r\n", 400),
            ("Host: a.test:443\r\n", 400),
            ("A : b\r\n", 400),
            ("A\t: b\r\n", 400),
            ("A\r\n", 400),
            ("A B: c\r\n", 400),
            ("A(: c\r\n", 400),
        ];
        for (fields, expected) in cases {
            assert_eq!(status(&connect_with(fields)), expected, "{fields:?}");
        }
        assert_eq!(status(b"CONNECT a.test:443 HTTP/1.1\r\n\r\n"), 400, "no Host in HTTP/1.1");
        assert_eq!(status(b"CONNECT a.test:443 HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n"), 400);
        for host in ["a b", "a/b", "u@a", "a\u{e9}", "a, b"] {
            let head = format!("CONNECT a.test:443 HTTP/1.1\r\nHost: {host}\r\n\r\n");
            assert_eq!(status(head.as_bytes()), 400, "{host}");
        }
    }

    #[test]
    fn framing_of_plain_http() {
        let cases = [
            ("Content-Length: 18446744073709551615\r\n", 200),
            ("Content-Length: 18446744073709551616\r\n", 400),
            ("Content-Length: 5\r\nContent-Length: 05\r\n", 400),
            ("Content-Length: 5\r\nContent-Length: 6\r\n", 400),
            ("Content-Length: 5, 5\r\n", 400),
            ("Content-Length: -5\r\n", 400),
            ("Content-Length: 0x5\r\n", 400),
            ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", 400),
            ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", 400),
            ("Transfer-Encoding: chunked\r\n", 200),
            ("Transfer-Encoding: CHUNKED \r\n", 200),
            ("Transfer-Encoding: gzip, chunked\r\n", 501),
            ("Transfer-Encoding: gzip\r\n", 400),
            ("Transfer-Encoding: identity\r\n", 400),
            ("Transfer-Encoding: chunked, gzip\r\n", 400),
            ("Transfer-Encoding: chunked, chunked\r\n", 400),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 400),
            ("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", 400),
            ("Transfer-Encoding: chunked,\r\n", 400),
            ("Transfer-Encoding: ,chunked\r\n", 400),
            ("Transfer-Encoding: chunked;q=1\r\n", 400),
            ("Transfer-Encoding: xchunked\r\n", 400),
            ("Transfer-Encoding: \"chunked\"\r\n", 400),
            ("Transfer-Encoding: \u{b}chunked\r\n", 400),
            ("Transfer-Encoding:\r\n", 400),
        ];
        for (fields, expected) in cases {
            assert_eq!(status(&get_with(fields)), expected, "{fields:?}");
        }
        assert_eq!(status(b"POST http://a.test/ HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), 400);
        assert_eq!(status(b"GET http://a.test/ HTTP/1.1\r\n\r\n"), 400, "no Host");
    }

    #[test]
    fn no_flipped_byte_panics_or_reaches_the_log() {
        for (sent, _, _) in GOOD {
            for at in 0..sent.len() {
                for byte in 0..=255 {
                    let mut bytes = sent.as_bytes().to_vec();
                    bytes[at] = byte;
                    if let Scanned::Complete(length) = Scan::default().scan(&bytes) {
                        if let Ok(parsed) = parse(&bytes[..length]) {
                            let (method, target_text) = told(&parsed);
                            assert!(target_text.bytes().all(|byte| byte.is_ascii_graphic()));
                            assert!(method.bytes().all(is_token_byte));
                        }
                    }
                    let _ = parse(&bytes);
                }
            }
        }
    }
}
