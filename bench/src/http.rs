//! What the origin says to HTTP requests: `/1k` and `/64k`, made beforehand, so that a response is one write and the origin
//! costs as little as it can beside the load generator on the same core.

/// What becomes of the connection behind a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// The next request may come.
    Keep,
    /// The response has said that it is the last.
    Close,
}

/// The responses, each with its head: one that keeps the connection, one that ends it.
pub struct Responses {
    small: [Vec<u8>; 2],
    large: [Vec<u8>; 2],
    missing: [Vec<u8>; 2],
}

impl Responses {
    pub fn new() -> Responses {
        let pair = |status: &str, bytes: usize| {
            [response(status, bytes, "keep-alive"), response(status, bytes, "close")]
        };
        Responses {
            small: pair("200 OK", 1 << 10),
            large: pair("200 OK", 64 << 10),
            missing: pair("404 Not Found", 0),
        }
    }

    /// The response to a request, of which `head` is the request line and the fields, each with its line end.
    pub fn answer(&self, head: &[u8]) -> (&[u8], After) {
        let mut lines =
            head.split(|&byte| byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        let mut words = lines.next().unwrap_or_default().split(|&byte| byte == b' ').skip(1);
        let target = words.next().unwrap_or_default();
        let old = words.next() == Some(b"HTTP/1.0");
        let wish = lines.find_map(connection);
        let after = match (old, wish) {
            (_, Some(b"close")) | (true, None) => After::Close,
            (false, _) | (true, Some(_)) => After::Keep,
        };
        // A proxy in between may ask in absolute form: only the end counts.
        let pair = if target.ends_with(b"/1k") {
            &self.small
        } else if target.ends_with(b"/64k") {
            &self.large
        } else {
            &self.missing
        };
        (&pair[usize::from(after == After::Close)], after)
    }
}

/// The value of a `Connection` field.
fn connection(line: &[u8]) -> Option<&[u8]> {
    const NAME: &[u8] = b"connection:";
    let name = line.get(..NAME.len())?;
    name.eq_ignore_ascii_case(NAME).then(|| line[NAME.len()..].trim_ascii())
}

/// The fields are those that a usual web server sends, so that proxies have the usual work with them.
fn response(status: &str, body_bytes: usize, connection: &str) -> Vec<u8> {
    let mut bytes = format!(
        "HTTP/1.1 {status}\r\nServer: adit-bench\r\nDate: Fri, 20 Nov 2026 15:04:05 GMT\r\n\
         Content-Type: application/octet-stream\r\nContent-Length: {body_bytes}\r\n\
         Last-Modified: Thu, 01 Oct 2026 08:00:00 GMT\r\nConnection: {connection}\r\nETag: \"68dcf1a0-400\"\r\n\
         Accept-Ranges: bytes\r\n\r\n"
    )
    .into_bytes();
    bytes.resize(bytes.len() + body_bytes, b'x');
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_and_the_wish_of_the_client_decide() {
        let responses = Responses::new();
        for (head, status, body_bytes, after) in [
            ("GET /1k HTTP/1.1\r\nHost: a\r\n", "200", 1024, After::Keep),
            ("GET http://a.test:1/64k HTTP/1.1\r\nHost: a\r\n", "200", 65536, After::Keep),
            ("GET /1k HTTP/1.1\r\nHost: a\r\nCONNECTION:  close \r\n", "200", 1024, After::Close),
            ("GET /1k HTTP/1.0\r\nHost: a\r\n", "200", 1024, After::Close),
            ("GET /1k HTTP/1.0\r\nConnection: keep-alive\r\n", "200", 1024, After::Keep),
            ("GET / HTTP/1.1\r\nHost: a\r\n", "404", 0, After::Keep),
        ] {
            let (response, seen) = responses.answer(head.as_bytes());
            let end = response.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
            let text = String::from_utf8_lossy(&response[..end]);
            let said = if after == After::Close { "Connection: close" } else { "Connection: keep-alive" };
            assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{head:?}: {text}");
            assert!(
                text.contains(said) && text.contains(&format!("Content-Length: {body_bytes}\r\n")),
                "{head:?}: {text}"
            );
            assert_eq!((response.len() - end - 4, seen), (body_bytes, after), "{head:?}");
        }
    }
}
