//! Response heads, read as strictly as those of requests: what an origin says about its framing is believed only if it can
//! mean one thing.

use super::body::{Chunks, Framing};
use super::fields::{Coding, Facts, Fields, Of, Persistence, Storage, Upgrade, Version, field_error};

/// Why a response is not one. One sentence, which never repeats what was sent; nothing behind such a head is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadResponse(pub &'static str);

/// The request that a response answers, as far as the framing depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerTo {
    /// HEAD: there is no body, whatever the fields say.
    Head,
    /// Another method.
    Other,
}

/// One response head, its framing decided.
#[derive(Debug)]
pub struct ResponseHead<'a> {
    /// 100 to 999.
    pub status: u16,
    /// Possibly empty, possibly not ASCII.
    pub reason: &'a [u8],
    /// HTTP/1.0 or HTTP/1.1.
    pub version: Version,
    /// Where the body ends (RFC 9112 6.3).
    pub framing: Framing,
    /// What becomes of its body if that goes on chunked.
    pub chunks: Chunks,
    /// What `Content-Length` says, also where there is no body (HEAD, 304).
    pub content_length: Option<u64>,
    /// Whether another response may come behind this one. `Close` for HTTP/1.0, and where the end is the body's end.
    pub persistence: Persistence,
    /// Whether another protocol is offered, or with 101 switched to. Only in HTTP/1.1.
    pub upgrade: Upgrade,
    /// All fields.
    pub fields: Fields<'a>,
}

/// Reads a head that [`super::scan::Scan`] has found complete (the line structure is not checked again).
///
/// # Errors
/// Why it is not believed. The connection can be used for nothing any more.
pub fn parse<'a, 'h: 'a>(
    head: &'h [u8],
    storage: &'a mut Storage<'h>,
    to: AnswerTo,
) -> Result<ResponseHead<'a>, BadResponse> {
    let mut response = httparse::Response::new(&mut []);
    let (slots, fates) = storage.parts();
    let config = httparse::ParserConfig::default();
    let parsed = config.parse_response_with_uninit_headers(&mut response, head, slots);
    match parsed {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Err(BadResponse("the response head does not end")),
        Err(error) => return Err(bad_head(error)),
    }
    let (Some(status), Some(minor)) = (response.code, response.version) else { return Err(BAD_STATUS_LINE) };
    if !(100..=999).contains(&status) {
        return Err(BAD_STATUS_LINE);
    }
    let version = if minor == 0 { Version::Http10 } else { Version::Http11 };
    let facts = Facts::read(head, response.headers, fates, Of::Response).map_err(BadResponse)?;
    let framing = framing(status, version, &facts, to)?;
    let (persistence, upgrade) = match (version, framing) {
        (Version::Http10, _) => (Persistence::Close, Upgrade::None),
        (Version::Http11, Framing::UntilClose) => (Persistence::Close, facts.upgrade),
        (Version::Http11, Framing::None | Framing::Length(_) | Framing::Chunked) => {
            (facts.persistence, facts.upgrade)
        }
    };
    Ok(ResponseHead {
        status,
        reason: reason(head),
        version,
        framing,
        chunks: facts.chunks,
        content_length: facts.content_length,
        persistence,
        upgrade,
        fields: facts.fields(),
    })
}

const BAD_STATUS_LINE: BadResponse =
    BadResponse("the status line is not HTTP/1.1 or HTTP/1.0, three digits and a reason");

fn bad_head(error: httparse::Error) -> BadResponse {
    match error {
        httparse::Error::TooManyHeaders => BadResponse("the response has more than 100 header fields"),
        httparse::Error::HeaderName
        | httparse::Error::HeaderValue
        | httparse::Error::NewLine
        | httparse::Error::Status
        | httparse::Error::Token
        | httparse::Error::Version => field_error(error).map_or(BAD_STATUS_LINE, BadResponse),
    }
}

/// What stands behind `HTTP/1.1 200 ` (httparse drops a reason that is not ASCII).
fn reason(head: &[u8]) -> &[u8] {
    let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
    line.get("HTTP/1.1 200 ".len()..).unwrap_or_default()
}

/// RFC 9112 6.3, with the choices it leaves decided for refusal; also where there is no body, since who counts otherwise
/// would see one.
fn framing(status: u16, version: Version, facts: &Facts, to: AnswerTo) -> Result<Framing, BadResponse> {
    match (facts.coding, version) {
        (Coding::None, _) | (Coding::Chunked, Version::Http11) => {}
        (Coding::Chunked | Coding::UnknownThenChunked | Coding::Ambiguous, Version::Http10) => {
            return Err(BadResponse("HTTP/1.0 has no Transfer-Encoding"));
        }
        (Coding::UnknownThenChunked | Coding::Ambiguous, Version::Http11) => {
            return Err(BadResponse("the Transfer-Encoding is not exactly chunked"));
        }
    }
    let has_body = match to {
        AnswerTo::Head => false,
        AnswerTo::Other => !matches!(status, 100..=199 | 204 | 304),
    };
    Ok(match (has_body, facts.coding, facts.content_length) {
        (false, _, _) => Framing::None,
        (true, Coding::None, Some(length)) => Framing::Length(length),
        (true, Coding::None, None) => Framing::UntilClose,
        // Others than chunked were refused above.
        (true, Coding::Chunked | Coding::UnknownThenChunked | Coding::Ambiguous, _) => Framing::Chunked,
    })
}

#[cfg(test)]
mod tests;
