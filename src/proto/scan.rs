//! Where a head ends in what has arrived so far, and whether its lines are lines: the same machine for requests and
//! responses. A dribbled head costs linear time, and a byte that no head has is refused when it comes.

use super::reply::{Refusal, is_token_byte};

/// Longest head, first line and header fields together, with the line ends and the empty line.
pub const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Most empty lines in front of a request line (RFC 9112 2.2: "at least one" should be ignored). In front of a status line
/// there is none.
pub const MAX_EMPTY_LINES: u8 = 4;

// `Scan` counts in 16 bits.
const _: () = assert!(MAX_HEAD_BYTES < u16::MAX as usize);

/// What every status line begins with, so that a peer of another protocol is known by its first bytes.
const RESPONSE_START: &[u8] = b"HTTP/";

/// What has arrived so far, as far as [`Scan`] has looked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scanned {
    /// More must come.
    Incomplete,
    /// The head has this many bytes, the empty line included. What follows is not part of it.
    Complete(usize),
    /// This can never become a head.
    Bad(Broken),
}

/// Why bytes can never become a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// A byte that may not stand where it stands. One sentence, which never repeats what was sent.
    Byte(&'static str),
    /// The first line does not end within [`MAX_HEAD_BYTES`].
    FirstLineTooLong,
    /// The head does not end within [`MAX_HEAD_BYTES`].
    TooLarge,
}

impl Broken {
    /// What the client is told whose request this is.
    #[must_use]
    pub fn refusal(self) -> Refusal {
        match self {
            Broken::Byte(details) => Refusal::BadRequest(details),
            Broken::FirstLineTooLong => Refusal::RequestLineTooLong,
            Broken::TooLarge => Refusal::HeadTooLarge,
        }
    }
}

/// Remembers how far a growing head has been looked at.
///
/// One value for one head: start with a new one for the next.
#[derive(Clone, Copy, Debug)]
pub struct Scan {
    looked_at: u16,
    empty_lines: u8,
    place: Place,
}

/// Where in the line structure the next byte stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Nothing of the request line has come yet.
    Start,
    /// Behind the CR of an empty line in front of the request line.
    StartCr,
    /// In the request line.
    RequestLine,
    /// In the status line.
    StatusLine,
    /// Behind the CR of either.
    FirstLineCr,
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
    Bad(&'static str),
}

impl Scan {
    /// For a request head.
    #[must_use]
    pub const fn for_request() -> Scan {
        Scan { looked_at: 0, empty_lines: 0, place: Place::Start }
    }

    /// For a response head.
    #[must_use]
    pub const fn for_response() -> Scan {
        Scan { looked_at: 0, empty_lines: 0, place: Place::StatusLine }
    }

    /// Looks at what is new. `bytes` is everything received so far, from the first byte of the message on; what was
    /// looked at before must still be there.
    pub fn scan(&mut self, bytes: &[u8]) -> Scanned {
        let bytes = bytes.get(..MAX_HEAD_BYTES).unwrap_or(bytes);
        let mut at = usize::from(self.looked_at);
        if self.place == Place::StatusLine && at < RESPONSE_START.len() {
            let start = bytes.get(..RESPONSE_START.len()).unwrap_or(bytes);
            if !RESPONSE_START.starts_with(start) {
                return Scanned::Bad(Broken::Byte("the response does not begin with HTTP/"));
            }
        }
        loop {
            let rest = bytes.get(at..).unwrap_or_default();
            let rest = match self.place {
                Place::RequestLine => behind_text(rest, OUTSIDE_ASCII),
                Place::StatusLine | Place::Line => behind_text(rest, 0),
                Place::Start
                | Place::StartCr
                | Place::FirstLineCr
                | Place::LineStart
                | Place::LineCr
                | Place::EndCr => rest,
            };
            at = bytes.len() - rest.len();
            // The way from one field line to the next, in one step.
            if let (Place::Line, [b'\r', b'\n', b'A'..=b'Z' | b'a'..=b'z', ..]) = (self.place, rest) {
                at += 3;
                continue;
            }
            let Some(&byte) = rest.first() else { break };
            at += 1;
            match self.place.after(byte) {
                Moved::To(Place::Start) => {
                    self.place = Place::Start;
                    self.empty_lines += 1;
                    if self.empty_lines > MAX_EMPTY_LINES {
                        return Scanned::Bad(Broken::Byte("too many empty lines before the request line"));
                    }
                }
                Moved::To(place) => self.place = place,
                Moved::End => return Scanned::Complete(at),
                Moved::Bad(details) => return Scanned::Bad(Broken::Byte(details)),
            }
        }
        // No more than MAX_HEAD_BYTES, which fits (asserted above).
        self.looked_at = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
        if bytes.len() < MAX_HEAD_BYTES {
            return Scanned::Incomplete;
        }
        Scanned::Bad(match self.place {
            Place::Start | Place::StartCr | Place::RequestLine | Place::StatusLine | Place::FirstLineCr => {
                Broken::FirstLineTooLong
            }
            Place::LineStart | Place::Line | Place::LineCr | Place::EndCr => Broken::TooLarge,
        })
    }
}

impl Default for Scan {
    fn default() -> Scan {
        Scan::for_request()
    }
}

impl Place {
    fn after(self, byte: u8) -> Moved {
        match self {
            Place::Start => match byte {
                b'\r' => Moved::To(Place::StartCr),
                byte if is_token_byte(byte) => Moved::To(Place::RequestLine),
                byte => Moved::Bad(not_http(byte)),
            },
            Place::RequestLine => match byte {
                b'\r' => Moved::To(Place::FirstLineCr),
                b' '..=b'~' => Moved::To(Place::RequestLine),
                byte => Moved::Bad(not_text(byte, "the request line has a byte outside ASCII")),
            },
            Place::LineStart => match byte {
                b'\r' => Moved::To(Place::EndCr),
                b' ' | b'\t' => Moved::Bad("a header field is folded over two lines"),
                b':' => Moved::Bad("a header field has no name"),
                byte if is_token_byte(byte) => Moved::To(Place::Line),
                byte => Moved::Bad(not_text(byte, BAD_NAME)),
            },
            Place::StatusLine | Place::Line => match byte {
                b'\r' if self == Place::Line => Moved::To(Place::LineCr),
                b'\r' => Moved::To(Place::FirstLineCr),
                b'\t' | b' '..=b'~' | 0x80..=0xff => Moved::To(self),
                byte => Moved::Bad(not_text(byte, CONTROL)),
            },
            Place::StartCr => after_cr(byte, Moved::To(Place::Start)),
            Place::FirstLineCr | Place::LineCr => after_cr(byte, Moved::To(Place::LineStart)),
            Place::EndCr => after_cr(byte, Moved::End),
        }
    }
}

fn after_cr(byte: u8, next: Moved) -> Moved {
    match byte {
        b'\n' => next,
        _ => Moved::Bad("the head has a CR without LF"),
    }
}

const LOW_BITS: u64 = u64::from_ne_bytes([0x01; 8]);
const HIGH_BITS: u64 = u64::from_ne_bytes([0x80; 8]);
/// For [`behind_text`]: bytes outside ASCII are no text.
const OUTSIDE_ASCII: u64 = HIGH_BITS;

/// What follows the text at the front, which is looked at eight bytes at a time: most of a head is text, and a decision per
/// byte would be most of the work that a head costs. Never skips too much; what it skips too little (tabs, and bytes outside
/// ASCII among the last seven) costs nothing but time.
fn behind_text(bytes: &[u8], also_no_text: u64) -> &[u8] {
    let mut rest = bytes;
    while let Some((eight, behind)) = rest.split_first_chunk::<8>() {
        let word = u64::from_le_bytes(*eight);
        let delete = word ^ (LOW_BITS * 0x7f);
        // The highest bit of each byte below 0x20, and of each 0x7f, is set. A borrow can set one too many, but only above
        // one that is right, and the lowest one counts.
        let below_space = word.wrapping_sub(LOW_BITS * 0x20) & !word;
        let is_delete = delete.wrapping_sub(LOW_BITS) & !delete;
        let ends = (below_space | is_delete | word & also_no_text) & HIGH_BITS;
        if ends != 0 {
            return rest.get(ends.trailing_zeros() as usize / 8..).unwrap_or_default();
        }
        rest = behind;
    }
    while let [b' '..=b'~', behind @ ..] = rest {
        rest = behind;
    }
    rest
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

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
                Scanned::Bad(broken) => {
                    let refusal = broken.refusal();
                    assert_eq!(refusal.status(), 400);
                    assert!(refusal.details().contains(word), "{shown:?}: {}", refusal.details());
                }
                other => panic!("{shown:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_dribbled_head_is_looked_at_once() {
        let head = format!("CONNECT a.test:443 HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(50)).into_bytes();
        let mut scan = Scan::default();
        for end in 0..head.len() {
            assert_eq!(scan.scan(&head[..end]), Scanned::Incomplete);
            assert_eq!(usize::from(scan.looked_at), end);
        }
        assert!(size_of::<Scan>() <= 4);
    }

    /// Byte by byte, as the first byte is always looked at.
    fn dribbled(mut scan: Scan, bytes: &[u8]) -> Scanned {
        let scanned = (0..=bytes.len()).map(|end| scan.scan(&bytes[..end]));
        scanned.into_iter().find(|scanned| *scanned != Scanned::Incomplete).unwrap_or(Scanned::Incomplete)
    }

    #[test]
    fn eight_bytes_at_a_time_are_judged_like_one() {
        let heads: [(Scan, &[u8]); 2] = [
            (
                Scan::for_request(),
                b"\r\nGET http://a.test/longer HTTP/1.1\r\nHost: a.test\r\nX:\t\xe9 y\r\nZ:\r\n\r\n",
            ),
            (
                Scan::for_response(),
                b"HTTP/1.1 200 a lon\xe9ger\treason\r\nServer: x/1.0\r\n9:\t\xe9 y\r\nZ:\r\n\r\n",
            ),
        ];
        for (scan, head) in heads {
            assert_eq!(dribbled(scan, head), Scanned::Complete(head.len()));
            for at in 0..head.len() {
                for byte in 0..=255 {
                    let mut bytes = head.to_vec();
                    bytes[at] = byte;
                    let once = { scan }.scan(&bytes);
                    assert_eq!(
                        once,
                        dribbled(scan, &bytes),
                        "{byte} at {at} of {}",
                        String::from_utf8_lossy(head)
                    );
                }
            }
        }
    }

    #[test]
    fn text_is_skipped_up_to_the_first_byte_that_is_none() {
        for also_no_text in [0, OUTSIDE_ASCII] {
            for at in 0..20 {
                for byte in 0..=255 {
                    for neighbour in [b' ', b'a', b'~', 0x80, 0xff, 0, b'\t', 0x1f, 0x7f] {
                        let mut bytes = [b'a'; 24];
                        (bytes[at], bytes[at + 1]) = (byte, neighbour);
                        let is_text = |byte: &u8| match *byte {
                            0..=0x1f | 0x7f => false,
                            b' '..=b'~' => true,
                            0x80..=0xff => also_no_text == 0,
                        };
                        let first = bytes.iter().position(|byte| !is_text(byte)).unwrap_or(bytes.len());
                        assert_eq!(behind_text(&bytes, also_no_text), &bytes[first..], "{bytes:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn limits_are_exact() {
        for (scan, line) in [
            (Scan::for_request(), &b"GET http://a.test/ HTTP/1.1"[..]),
            (Scan::for_response(), b"HTTP/1.1 200 OK"),
        ] {
            let head = |bytes: usize| {
                let fixed = line.len() + "\r\nA: \r\n\r\n".len();
                [line, b"\r\nA: ", &b"b".repeat(bytes - fixed)[..], b"\r\n\r\n"].concat()
            };
            assert_eq!({ scan }.scan(&head(MAX_HEAD_BYTES)), Scanned::Complete(MAX_HEAD_BYTES));
            assert_eq!({ scan }.scan(&head(MAX_HEAD_BYTES + 1)), Scanned::Bad(Broken::TooLarge));
            assert_eq!(dribbled(scan, &head(MAX_HEAD_BYTES + 1)), Scanned::Bad(Broken::TooLarge));
            let long = [line, &b" ".repeat(MAX_HEAD_BYTES)[..]].concat();
            assert_eq!({ scan }.scan(&long[..MAX_HEAD_BYTES - 1]), Scanned::Incomplete);
            assert_eq!({ scan }.scan(&long[..MAX_HEAD_BYTES]), Scanned::Bad(Broken::FirstLineTooLong));
            assert_eq!({ scan }.scan(&long), Scanned::Bad(Broken::FirstLineTooLong));
        }
    }
}
