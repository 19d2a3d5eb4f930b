//! Request heads, read strictly: ambiguity is refused, never repaired. The lines were checked byte by byte by
//! [`super::scan`], the fields are read by `httparse`, and their meaning is decided here, once.

use super::body::{Chunks, Framing};
use super::fields::{Coding, Expect, Facts, Fields, Of, Persistence, Storage, Upgrade, Version};
use super::fields::{decimal, elements, field_error, same};
use super::reply::{Refusal, is_token_byte};
use super::target::{BadTarget, Target};

/// Port of an `http://` URL that names none (RFC 9110 4.2.1).
pub const HTTP_PORT: u16 = 80;
/// Longest method that is not refused out of hand; the longest registered one has 17 bytes.
pub const MAX_METHOD_BYTES: usize = 32;

/// What a client asks for.
#[derive(Debug)]
pub enum Parsed<'a> {
    /// A tunnel.
    Connect(Connect<'a>),
    /// A request that is not CONNECT.
    Http(HttpRequest<'a>),
}

/// A request for a tunnel.
#[derive(Debug)]
pub struct Connect<'a> {
    /// Where to.
    pub target: Target,
    /// HTTP/1.0 or HTTP/1.1.
    pub version: Version,
    /// All of them.
    pub fields: Fields<'a>,
}

/// A plain HTTP request, its framing decided.
#[derive(Debug)]
pub struct HttpRequest<'a> {
    /// A token.
    pub method: &'a str,
    /// What stands between `http://` and the path, as sent and not judged yet; empty for `OPTIONS *`.
    pub authority: &'a [u8],
    /// Path and query exactly as sent: empty, or it begins with `/` or `?`; `*` for `OPTIONS *`. Printable ASCII.
    pub path: &'a str,
    /// HTTP/1.0 or HTTP/1.1.
    pub version: Version,
    /// Never [`Framing::UntilClose`].
    pub framing: Framing,
    /// What becomes of its body if that is chunked.
    pub chunks: Chunks,
    /// What the client wants. Always `Close` for HTTP/1.0: a proxy never keeps such a connection (RFC 9112 9.3).
    pub persistence: Persistence,
    /// Only in HTTP/1.1 and without a body.
    pub upgrade: Upgrade,
    /// Only in HTTP/1.1.
    pub expect: Expect,
    /// How many proxies may still forward this TRACE or OPTIONS; 0 is answered here. Other methods have none.
    pub max_forwards: Option<u32>,
    /// All fields.
    pub fields: Fields<'a>,
}

impl HttpRequest<'_> {
    /// Whether the response has no body whatever it says.
    #[must_use]
    pub fn is_head(&self) -> bool {
        self.method == "HEAD"
    }

    /// Whether sending it twice does what sending it once does (RFC 9110 9.2.2).
    #[must_use]
    pub fn is_idempotent(&self) -> bool {
        matches!(self.method, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE")
    }

    /// Whether a `Via` field has an element with this name, compared without case.
    ///
    /// Comments are not told apart from elements: one with a comma and the name in the right place would be taken for
    /// our own, but no unbalanced parenthesis of a client can hide a loop.
    #[must_use]
    pub fn went_through(&self, via_name: &str) -> bool {
        for element in self.fields.values("via").flat_map(elements) {
            let mut words =
                element.split(|byte| matches!(byte, b' ' | b'\t')).filter(|word| !word.is_empty());
            if words.nth(1).is_some_and(|received_by| same(received_by, via_name.as_bytes())) {
                return true;
            }
        }
        false
    }

    /// Appends the URL as it may be logged to `out`: canonical host, the port only if it is not the default one, no query,
    /// at most `max_bytes`. Printable ASCII.
    pub fn loggable_url(&self, target: &Target, max_bytes: usize, out: &mut Vec<u8>) {
        let start = out.len();
        if self.path == "*" {
            return out.push(b'*');
        }
        out.extend_from_slice(b"http://");
        target.push_host(HTTP_PORT, out);
        let path = self.path.split('?').next().unwrap_or_default().as_bytes();
        let room = max_bytes.saturating_sub(out.len() - start);
        out.extend_from_slice(path.get(..room).unwrap_or(path));
        out.truncate(start.saturating_add(max_bytes).min(out.len()));
    }
}

/// Reads a head that [`super::scan::Scan`] has found complete (the line structure is not checked again).
///
/// # Errors
/// The answer for the client. Nothing after such a head may be believed.
pub fn parse<'a, 'h: 'a>(head: &'h [u8], storage: &'a mut Storage<'h>) -> Result<Parsed<'a>, Refusal> {
    let mut request = httparse::Request::new(&mut []);
    let (slots, fates) = storage.parts();
    let config = httparse::ParserConfig::default();
    let parsed = config.parse_request_with_uninit_headers(&mut request, head, slots);
    match parsed {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Err(Refusal::BadRequest("the head does not end")),
        Err(httparse::Error::TooManyHeaders) => return Err(Refusal::TooManyHeaders),
        Err(error) => return Err(field_error(error).map_or_else(|| line_error(head), Refusal::BadRequest)),
    }
    let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version) else {
        return Err(line_error(head));
    };
    if method.len() > MAX_METHOD_BYTES {
        return Err(BAD_METHOD);
    }
    let version = if minor == 0 { Version::Http10 } else { Version::Http11 };
    let facts = Facts::read(head, request.headers, fates, Of::Request).map_err(Refusal::BadRequest)?;
    match (facts.hosts, version) {
        (1, _) | (0, Version::Http10) => {}
        (0, Version::Http11) => return Err(Refusal::BadRequest("an HTTP/1.1 request needs a Host field")),
        // A number: two or more.
        (_, _) => return Err(Refusal::BadRequest("there is more than one Host field")),
    }
    if method == "CONNECT" {
        judge_connect(&facts)?;
        let target =
            Target::from_authority(target.as_bytes()).map_err(|bad| Refusal::BadTarget(bad.details()))?;
        return Ok(Parsed::Connect(Connect { target, version, fields: facts.fields() }));
    }
    let (authority, path) = http_target(method, target)?;
    http_request(method, authority, path, version, facts).map(Parsed::Http)
}

/// The target of a CONNECT whose head [`parse`] refuses for another reason: whoever reads the access line wants to know it.
#[must_use]
pub fn connect_target(head: &[u8]) -> Option<Target> {
    let RequestLine { method, target, .. } = RequestLine::read(request_line(head)?).ok()?;
    if method == b"CONNECT" { Target::from_authority(target).ok() } else { None }
}

fn http_request<'a>(
    method: &'a str,
    authority: &'a [u8],
    path: &'a str,
    version: Version,
    mut facts: Facts<'a>,
) -> Result<HttpRequest<'a>, Refusal> {
    let framing = framing(&facts, version)?;
    let has_body = !matches!(framing, Framing::None | Framing::Length(0));
    if method == "TRACE" && has_body {
        return Err(Refusal::BadRequest("a TRACE has no body"));
    }
    let max_forwards = if matches!(method, "TRACE" | "OPTIONS") { max_forwards(&mut facts)? } else { None };
    if version == Version::Http10 {
        facts.persistence = Persistence::Close;
        facts.upgrade = Upgrade::None;
        // RFC 9110 10.1.1: it cannot be meant.
        facts.remove(b"expect");
    }
    Ok(HttpRequest {
        method,
        authority,
        path,
        version,
        framing,
        chunks: facts.chunks,
        persistence: facts.persistence,
        upgrade: if has_body { Upgrade::None } else { facts.upgrade },
        expect: facts.expect,
        max_forwards,
        fields: facts.fields(),
    })
}

/// RFC 9110 7.6.2. The field is ours from here on, so no `Connection` field can take the limit away.
fn max_forwards(facts: &mut Facts) -> Result<Option<u32>, Refusal> {
    let mut found = None;
    for value in facts.values("max-forwards") {
        if found.is_some() || value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
            return Err(Refusal::BadRequest("Max-Forwards is not one number in plain digits"));
        }
        // More than there is room for is as good as no limit.
        found = Some(decimal(value).and_then(|count| u32::try_from(count).ok()).unwrap_or(u32::MAX));
    }
    facts.remove(b"max-forwards");
    Ok(found)
}

/// RFC 9112 6.3, with the choices it leaves decided for refusal.
fn framing(facts: &Facts, version: Version) -> Result<Framing, Refusal> {
    match (facts.coding, version) {
        (Coding::None, _) => Ok(facts.content_length.map_or(Framing::None, Framing::Length)),
        (Coding::Chunked | Coding::UnknownThenChunked | Coding::Ambiguous, Version::Http10) => {
            Err(Refusal::BadRequest("HTTP/1.0 has no Transfer-Encoding"))
        }
        (Coding::Chunked, Version::Http11) => Ok(Framing::Chunked),
        (Coding::UnknownThenChunked, Version::Http11) => Err(Refusal::UnknownTransferCoding),
        (Coding::Ambiguous, Version::Http11) => {
            Err(Refusal::BadRequest("the Transfer-Encoding is not exactly chunked at its end"))
        }
    }
}

/// A CONNECT has no body (RFC 9110 9.3.6): a field that announces one makes the bytes behind the head ambiguous.
fn judge_connect(facts: &Facts) -> Result<(), Refusal> {
    match (facts.coding, facts.content_length) {
        (Coding::None, None | Some(0)) => Ok(()),
        (Coding::None, Some(_)) => Err(Refusal::BadRequest("a CONNECT with a Content-Length that is not 0")),
        (Coding::Chunked | Coding::UnknownThenChunked | Coding::Ambiguous, _) => {
            Err(Refusal::BadRequest("a CONNECT with a Transfer-Encoding"))
        }
    }
}

/// Three words with one space between (RFC 9112 3).
struct RequestLine<'a> {
    method: &'a [u8],
    target: &'a [u8],
    version: &'a [u8],
}

const BAD_METHOD: Refusal = Refusal::BadRequest("the method is not a token of at most 32 characters");

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
            return Err(BAD_METHOD);
        }
        Ok(RequestLine { method, target, version })
    }
}

/// The request line without its end. Empty lines in front are skipped.
fn request_line(head: &[u8]) -> Option<&[u8]> {
    let mut rest = head;
    while let Some(behind) = rest.strip_prefix(b"\r\n") {
        rest = behind;
    }
    rest.split(|&byte| byte == b'\r').next()
}

/// What is wrong with a request line that httparse has not taken.
fn line_error(head: &[u8]) -> Refusal {
    let version = match RequestLine::read(request_line(head).unwrap_or_default()) {
        Ok(line) => line.version,
        Err(refusal) => return refusal,
    };
    match version {
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Refusal::UnsupportedVersion
        }
        // Bytes, not an enum of ours.
        _ => Refusal::BadRequest("the request line does not end in an HTTP version"),
    }
}

/// Cuts the target of a method that is not CONNECT into authority and path.
fn http_target<'a>(method: &str, target: &'a str) -> Result<(&'a [u8], &'a str), Refusal> {
    if target == "*" {
        return match method {
            "OPTIONS" => Ok((&[], target)),
            // A word, not an enum of ours.
            _ => Err(Refusal::BadRequest("the target * is for OPTIONS only")),
        };
    }
    let Some((scheme, rest)) = target.split_at_checked("http://".len()) else {
        return Err(target_error(method, target));
    };
    if !same(scheme.as_bytes(), b"http://") {
        return Err(target_error(method, target));
    }
    let authority_end = rest.bytes().position(|byte| matches!(byte, b'/' | b'?' | b'#'));
    let (authority, path) = rest.split_at_checked(authority_end.unwrap_or(rest.len())).unwrap_or_default();
    if authority.is_empty() {
        return Err(Refusal::BadTarget(BadTarget::NoHost.details()));
    }
    if path.as_bytes().contains(&b'#') {
        return Err(Refusal::BadRequest("the URL has a fragment, which is for the client alone"));
    }
    Ok((authority.as_bytes(), path))
}

/// What is wrong with a target that is not an `http://` URL.
fn target_error(method: &str, target: &str) -> Refusal {
    if target.starts_with('/') {
        return Refusal::BadRequest("this is a proxy: the target is a CONNECT host:port or an http:// URL");
    }
    // A scheme is in front or not there (RFC 3986 3.1): one inside a query is none.
    let is_scheme_byte = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
    let scheme_end = target.as_bytes().windows(3).position(|three| three == b"://");
    let scheme = scheme_end.and_then(|end| target.as_bytes().get(..end));
    Refusal::BadRequest(if scheme.is_some_and(|scheme| scheme.iter().all(is_scheme_byte)) {
        "only http:// URLs are forwarded; https:// goes through CONNECT"
    } else if same(method.as_bytes(), b"CONNECT") {
        "methods are case-sensitive: write CONNECT"
    } else {
        "the target is neither an http:// URL nor, with CONNECT, host:port"
    })
}

#[cfg(test)]
mod tests;
