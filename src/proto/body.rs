//! Message bodies on their way through (RFC 9112 6 and 7): where a body ends, and what of it may go on.
//!
//! A body is filtered where it stands and streamed, never collected. What goes on is what came, less what is dropped: chunk
//! extensions, trailers that may not be trailers, and towards HTTP/1.0 all that is not payload. Nothing is ever added, so what
//! goes on can be written over what came. A payload is moved only if something in front of it was dropped.

use super::reply::is_token_byte;

/// Bytes that the extensions of one chunk may have, with their `;`.
pub const MAX_EXTENSION_BYTES: usize = 1024;
/// Bytes by which the extensions of a whole body may exceed what its chunks allow: 16 bytes for each chunk and twice its
/// payload (the measure is Go's). A body of nothing but extensions ends there, and one of any length with a few of them does not.
pub const MAX_EXTENSION_EXCESS_BYTES: usize = 16 * 1024;
/// Bytes of all trailer lines together, with their line ends and the empty line.
pub const MAX_TRAILER_BYTES: usize = 8 * 1024;
/// Trailer lines, without the empty one.
pub const MAX_TRAILERS: usize = 100;

const EXTENSION_ALLOWANCE_BYTES: u64 = 16;
/// Of a chunk size, leading zeros included.
const MAX_SIZE_DIGITS: u8 = 16;
/// Chunk sizes are smaller: 16 digits that do not fit 63 bits are negative for a reader that counts in signed numbers.
const SIZE_END: u64 = 1 << 63;

// Counted in 16 and 8 bits.
const _: () = assert!(MAX_EXTENSION_EXCESS_BYTES + MAX_EXTENSION_BYTES <= u16::MAX as usize);
const _: () = assert!(MAX_TRAILER_BYTES <= u16::MAX as usize && MAX_TRAILERS < u8::MAX as usize);

/// How the end of a body is known (RFC 9112 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    None,
    /// So many bytes.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// The sender's end of its direction is the end of the body: responses only.
    UntilClose,
}

/// What becomes of a chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunks {
    /// It goes on chunked: extensions are dropped, trailers passed.
    Keep,
    /// The same without trailers: some of them may end here, by name.
    KeepWithoutTrailers,
    /// Only the payload goes on, towards an HTTP/1.0 client, for whom the connection's end is the body's.
    Strip,
}

/// What [`Body::pass`] has done with the bytes shown to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passed {
    /// So many bytes at the front may go on.
    pub kept: usize,
    /// What stands from here on was not taken; never less than `kept`. Between the two stands nothing of worth.
    pub taken: usize,
}

/// Why a body is not one: one sentence, which never repeats what was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadBody(pub &'static str);

/// What the end of the sender's direction means for a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The body is whole.
    Complete,
    /// Something is missing, and the receiver must be able to see that.
    Cut,
}

/// One body: remembers where in it the next byte stands. Start with a new one for each message.
#[derive(Clone, Copy, Debug)]
pub struct Body {
    framing: Framing,
    chunks: Chunks,
    place: Place,
    /// Payload bytes still to come, of the body or of this chunk; while its size is read, the size so far.
    left: u64,
    /// See [`MAX_EXTENSION_EXCESS_BYTES`].
    excess_bytes: u16,
}

const _: () = assert!(size_of::<Body>() <= 40);

/// What stands next.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// Payload of a body that is not chunked.
    Payload,
    /// The size of a chunk, of which so many digits are here.
    Size { digits: u8 },
    /// An extension of a chunk, of which so many bytes are here.
    Extension { bytes: u16 },
    /// The LF behind a chunk's size and extensions.
    SizeLf,
    /// Payload of a chunk.
    Data,
    /// The CR behind it.
    DataCr,
    /// The LF behind that.
    DataLf,
    /// Trailer lines, the empty one too.
    Trailers(Trailers),
    /// Nothing that belongs to the body.
    Complete,
    /// It was no body. Nothing helps any more.
    Bad,
}

impl Body {
    /// The body behind a head that says `framing`; `chunks` matters only if that is chunked.
    #[must_use]
    pub fn new(framing: Framing, chunks: Chunks) -> Body {
        let (place, left) = match framing {
            Framing::None | Framing::Length(0) => (Place::Complete, 0),
            Framing::Length(bytes) => (Place::Payload, bytes),
            Framing::Chunked => (Place::Size { digits: 0 }, 0),
            // A number that is never reached: 584 years at 1 GB/s.
            Framing::UntilClose => (Place::Payload, u64::MAX),
        };
        Body { framing, chunks, place, left, excess_bytes: 0 }
    }

    /// Filters the next bytes where they stand: what may go on is moved to the front, and `bytes[..kept]` may go on.
    ///
    /// `bytes[taken..]` was not taken. If the body is complete then, it does not belong to it. If it is not, it is an
    /// unfinished trailer line, and must be shown again with more behind it.
    ///
    /// # Errors
    /// When this cannot be a body. Nothing of `bytes` may go on then, and nothing that comes behind it may be believed.
    pub fn pass(&mut self, bytes: &mut [u8]) -> Result<Passed, BadBody> {
        let mut filter = Filter { bytes, kept: 0, taken: 0 };
        let passed = self.filter(&mut filter);
        if passed.is_err() {
            self.place = Place::Bad;
        }
        passed.map(|()| Passed { kept: filter.kept, taken: filter.taken })
    }

    /// Whether nothing more belongs to the body.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        matches!(self.place, Place::Complete)
    }

    /// The sender has ended its direction in order: whether that completes the body or cuts it.
    pub fn end(&mut self) -> End {
        if self.framing == Framing::UntilClose {
            self.place = Place::Complete;
        }
        if self.is_complete() { End::Complete } else { End::Cut }
    }

    /// What it was made with.
    #[must_use]
    pub fn framing(&self) -> Framing {
        self.framing
    }

    fn filter(&mut self, filter: &mut Filter<'_>) -> Result<(), BadBody> {
        while let Some(&byte) = filter.bytes.get(filter.taken) {
            self.place = match self.place {
                Place::Payload => {
                    self.pass_payload(filter);
                    if self.left == 0 { Place::Complete } else { Place::Payload }
                }
                Place::Data => {
                    self.pass_payload(filter);
                    if self.left == 0 { Place::DataCr } else { Place::Data }
                }
                Place::Size { digits } => self.size_byte(digits, byte, filter)?,
                Place::Extension { bytes } => self.extension_byte(bytes, byte, filter)?,
                Place::SizeLf => {
                    self.line_end(byte, b'\n', "the size of a chunk is followed by a CR without LF", filter)?;
                    self.chunk_begins()?
                }
                Place::DataCr => {
                    self.line_end(byte, b'\r', AFTER_DATA, filter)?;
                    Place::DataLf
                }
                Place::DataLf => {
                    self.line_end(byte, b'\n', AFTER_DATA, filter)?;
                    Place::Size { digits: 0 }
                }
                Place::Trailers(mut trailers) => match trailers.line(filter.rest())? {
                    Line::Unfinished => {
                        self.place = Place::Trailers(trailers);
                        return Ok(());
                    }
                    Line::Field(bytes) => {
                        let passes = self.chunks == Chunks::Keep && may_be_trailer(&filter.rest()[..bytes]);
                        filter.take(bytes, if passes { Fate::Goes } else { Fate::Dropped });
                        Place::Trailers(trailers)
                    }
                    Line::Empty => {
                        filter.take(2, self.fate());
                        Place::Complete
                    }
                },
                Place::Complete => return Ok(()),
                Place::Bad => return Err(BadBody("the body went wrong before")),
            };
        }
        Ok(())
    }

    fn pass_payload(&mut self, filter: &mut Filter<'_>) {
        let here = filter.rest().len();
        // What does not fit in `usize` is more than is here.
        let count = usize::try_from(self.left).map_or(here, |left| left.min(here));
        filter.take(count, Fate::Goes);
        self.left -= count as u64;
    }

    /// A byte where a chunk's size stands: exactly 1 to 16 hexadecimal digits, and CR or `;` right behind them.
    fn size_byte(&mut self, digits: u8, byte: u8, filter: &mut Filter<'_>) -> Result<Place, BadBody> {
        if let Some(value) = char::from(byte).to_digit(16) {
            if digits == MAX_SIZE_DIGITS {
                return Err(BadBody("the size of a chunk has more than 16 digits"));
            }
            self.left = self.left << 4 | u64::from(value);
            filter.take(1, self.fate());
            return Ok(Place::Size { digits: digits + 1 });
        }
        if self.left >= SIZE_END {
            return Err(BadBody("the size of a chunk does not fit 63 bits"));
        }
        match byte {
            b'\r' if digits > 0 => {
                filter.take(1, self.fate());
                Ok(Place::SizeLf)
            }
            b';' if digits > 0 => self.extension_byte(0, byte, filter),
            _ => {
                Err(BadBody("the size of a chunk is not a plain hexadecimal number with CRLF or ; behind it"))
            }
        }
    }

    /// A byte of an extension, or the CR behind it. Extensions mean nothing to those who do not know them, and end here
    /// (RFC 9112 7.1.1); so does whatever they may be good for in setting two readers at odds.
    fn extension_byte(&mut self, bytes: u16, byte: u8, filter: &mut Filter<'_>) -> Result<Place, BadBody> {
        match byte {
            b'\r' => {
                filter.take(1, self.fate());
                Ok(Place::SizeLf)
            }
            0..b' ' | 0x7f => Err(BadBody("a chunk extension has a control character")),
            _ if usize::from(bytes) == MAX_EXTENSION_BYTES => Err(BadBody("a chunk extension is too long")),
            _ => {
                // It stays within a chunk's extension beyond what was checked at the end of the last one.
                self.excess_bytes += 1;
                filter.take(1, Fate::Dropped);
                Ok(Place::Extension { bytes: bytes + 1 })
            }
        }
    }

    /// Behind the line with its size.
    fn chunk_begins(&mut self) -> Result<Place, BadBody> {
        let allowed_bytes = self.left.saturating_mul(2).saturating_add(EXTENSION_ALLOWANCE_BYTES);
        self.excess_bytes =
            self.excess_bytes.saturating_sub(u16::try_from(allowed_bytes).unwrap_or(u16::MAX));
        if usize::from(self.excess_bytes) > MAX_EXTENSION_EXCESS_BYTES {
            return Err(BadBody("the body has more chunk extensions than payload"));
        }
        Ok(if self.left == 0 { Place::Trailers(Trailers::default()) } else { Place::Data })
    }

    fn line_end(
        &self,
        byte: u8,
        wanted: u8,
        otherwise: &'static str,
        filter: &mut Filter<'_>,
    ) -> Result<(), BadBody> {
        if byte != wanted {
            return Err(BadBody(otherwise));
        }
        filter.take(1, self.fate());
        Ok(())
    }

    /// Of what is there for the framing and not payload.
    fn fate(&self) -> Fate {
        match self.chunks {
            Chunks::Keep | Chunks::KeepWithoutTrailers => Fate::Goes,
            Chunks::Strip => Fate::Dropped,
        }
    }
}

const AFTER_DATA: &str = "the data of a chunk is not followed by CRLF";

/// The bytes shown. What goes on is written behind what went on before, which is never ahead of what is read.
struct Filter<'a> {
    bytes: &'a mut [u8],
    kept: usize,
    taken: usize,
}

#[derive(Clone, Copy)]
enum Fate {
    Goes,
    Dropped,
}

impl Filter<'_> {
    fn rest(&self) -> &[u8] {
        &self.bytes[self.taken..]
    }

    fn take(&mut self, count: usize, fate: Fate) {
        let from = self.taken;
        self.taken += count;
        match fate {
            Fate::Goes => {
                if self.kept != from {
                    self.bytes.copy_within(from..from + count, self.kept);
                }
                self.kept += count;
            }
            Fate::Dropped => {}
        }
    }
}

/// The trailer section, read as strictly as the fields of a head (RFC 9112 7.1.2). Lines are taken whole: whether one goes on
/// depends on its name. What was looked at of an unfinished one is remembered, so that a dribbled line costs linear time.
#[derive(Clone, Copy, Debug, Default)]
struct Trailers {
    /// Of the lines taken.
    bytes: u16,
    /// Taken.
    lines: u8,
    in_line: InLine,
    looked_at: u16,
}

/// Where in a trailer line the next byte stands.
#[derive(Clone, Copy, Debug, Default)]
enum InLine {
    #[default]
    Start,
    Name,
    Value,
    /// Behind the CR.
    Cr,
    /// Behind the CR of the empty line.
    EmptyCr,
}

enum Line {
    Unfinished,
    /// A field, of so many bytes with its CRLF.
    Field(usize),
    Empty,
}

impl Trailers {
    /// The line that begins with `rest`, which begins with all that was shown of it before.
    fn line(&mut self, rest: &[u8]) -> Result<Line, BadBody> {
        let end = rest.len().min(MAX_TRAILER_BYTES - usize::from(self.bytes));
        for (at, &byte) in rest[..end].iter().enumerate().skip(usize::from(self.looked_at)) {
            self.in_line = match (self.in_line, byte) {
                (InLine::Start, b'\r') => InLine::EmptyCr,
                (InLine::Start, b' ' | b'\t') => return Err(BadBody("a trailer is folded over two lines")),
                (InLine::Name, b':') => InLine::Value,
                (InLine::Start | InLine::Name, byte) if is_token_byte(byte) => InLine::Name,
                (InLine::Start | InLine::Name, _) => {
                    return Err(BadBody("a trailer does not begin with a name and a colon"));
                }
                (InLine::Value, b'\r') => InLine::Cr,
                (InLine::Value, b'\t' | b' '..=b'~' | 0x80..) => InLine::Value,
                (InLine::Value, _) => return Err(BadBody("a trailer has a control character")),
                (InLine::Cr, b'\n') => return self.field(at + 1),
                (InLine::EmptyCr, b'\n') => return Ok(Line::Empty),
                (InLine::Cr | InLine::EmptyCr, _) => {
                    return Err(BadBody("the trailers have a CR without LF"));
                }
            };
        }
        if end + usize::from(self.bytes) == MAX_TRAILER_BYTES {
            return Err(BadBody("the trailers are too large"));
        }
        // Both are no more than MAX_TRAILER_BYTES, which fits (asserted above).
        self.looked_at = end as u16;
        Ok(Line::Unfinished)
    }

    fn field(&mut self, bytes: usize) -> Result<Line, BadBody> {
        if usize::from(self.lines) == MAX_TRAILERS {
            return Err(BadBody("there are more than 100 trailers"));
        }
        *self = Trailers { bytes: self.bytes + bytes as u16, lines: self.lines + 1, ..Trailers::default() };
        Ok(Line::Field(bytes))
    }
}

/// What a receiver might merge into the head and then act on (RFC 9110 6.5.1): where the message ends, what its content is,
/// where it goes, who sent it and how it came, and what is between two neighbours only.
const NO_TRAILERS: [&str; 27] = [
    "Content-Length",
    "Transfer-Encoding",
    "Host",
    "Trailer",
    "Connection",
    "Keep-Alive",
    "Proxy-Connection",
    "TE",
    "Upgrade",
    "Authorization",
    "Proxy-Authorization",
    "Proxy-Authenticate",
    "WWW-Authenticate",
    "Cookie",
    "Set-Cookie",
    "Authentication-Info",
    "Proxy-Authentication-Info",
    "Content-Type",
    "Content-Encoding",
    "Content-Range",
    "Range",
    "Expect",
    "Max-Forwards",
    "Cache-Control",
    "Location",
    "Via",
    "Forwarded",
];

fn may_be_trailer(line: &[u8]) -> bool {
    let name = line.split(|&byte| byte == b':').next().unwrap_or_default();
    !NO_TRAILERS.iter().any(|forbidden| name.eq_ignore_ascii_case(forbidden.as_bytes()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// What comes of `input` when it is shown in pieces that end at `ends` and at its end, as a ring would: what went on, where
    /// the rest begins, whether it is complete.
    fn run(
        framing: Framing,
        chunks: Chunks,
        input: &[u8],
        ends: &[usize],
    ) -> Result<(Vec<u8>, usize, bool), BadBody> {
        let mut body = Body::new(framing, chunks);
        let (mut out, mut taken) = (Vec::new(), 0);
        for &end in ends.iter().chain([&input.len()]) {
            let mut bytes = input[taken..end].to_vec();
            let passed = body.pass(&mut bytes)?;
            assert!(passed.kept <= passed.taken && passed.taken <= bytes.len(), "{passed:?}");
            assert_eq!(
                &bytes[passed.taken..],
                &input[taken + passed.taken..end],
                "what was not taken is whole"
            );
            out.extend_from_slice(&bytes[..passed.kept]);
            taken += passed.taken;
        }
        Ok((out, taken, body.is_complete()))
    }

    fn chunked(chunks: Chunks, input: &[u8]) -> Result<(Vec<u8>, usize, bool), BadBody> {
        run(Framing::Chunked, chunks, input, &[])
    }

    /// What came, what goes on chunked, what goes on stripped.
    const VALID: &[(&str, &str, &str)] = &[
        ("0\r\n\r\n", "0\r\n\r\n", ""),
        ("0000000000000000\r\n\r\n", "0000000000000000\r\n\r\n", ""),
        ("5\r\nhello\r\n0\r\n\r\n", "5\r\nhello\r\n0\r\n\r\n", "hello"),
        ("1\r\na\r\n0002\r\nbc\r\n0\r\n\r\n", "1\r\na\r\n0002\r\nbc\r\n0\r\n\r\n", "abc"),
        ("a\r\n0\r\n\r\n\0\rX\nA\r\n0\r\n\r\n", "a\r\n0\r\n\r\n\0\rX\nA\r\n0\r\n\r\n", "0\r\n\r\n\0\rX\nA"),
        (
            "0000000000000010\r\n0123456789abcdef\r\n0\r\n\r\n",
            "0000000000000010\r\n0123456789abcdef\r\n0\r\n\r\n",
            "0123456789abcdef",
        ),
        ("1;\r\na\r\n1;x\r\nb\r\n0\r\n\r\n", "1\r\na\r\n1\r\nb\r\n0\r\n\r\n", "ab"),
        ("2;a=b;c=\"d e;\"\r\nok\r\n0;last\r\n\r\n", "2\r\nok\r\n0\r\n\r\n", "ok"),
        ("0\r\nX: y\r\n\r\n", "0\r\nX: y\r\n\r\n", ""),
        ("0\r\nx:\r\nY-y: \t a\tb\u{e9} \r\n\r\n", "0\r\nx:\r\nY-y: \t a\tb\u{e9} \r\n\r\n", ""),
        (
            "1\r\nz\r\n0\r\nA: 1\r\nContent-Length: 9\r\nB: 2\r\nset-cookie: x\r\n\r\n",
            "1\r\nz\r\n0\r\nA: 1\r\nB: 2\r\n\r\n",
            "z",
        ),
        ("0;x\r\nTransfer-Encoding: chunked\r\n\r\n", "0\r\n\r\n", ""),
    ];

    #[test]
    fn what_goes_on() {
        for (input, kept, payload) in VALID {
            let all = |out: &str| Ok((out.as_bytes().to_vec(), input.len(), true));
            assert_eq!(chunked(Chunks::Keep, input.as_bytes()), all(kept), "{input:?}");
            assert_eq!(chunked(Chunks::Strip, input.as_bytes()), all(payload), "{input:?}");
            // What follows is another message's.
            let more = [input.as_bytes(), b"HTTP/1.1 200 OK\r\n"].concat();
            assert_eq!(chunked(Chunks::Keep, &more), all(kept), "{input:?}");
            // What goes on comes through another one like this unchanged.
            assert_eq!(
                chunked(Chunks::Keep, kept.as_bytes()),
                Ok((kept.as_bytes().to_vec(), kept.len(), true))
            );
            assert_eq!(
                chunked(Chunks::Strip, kept.as_bytes()).map(|(out, ..)| out),
                Ok(payload.as_bytes().to_vec())
            );
        }
    }

    #[test]
    fn no_cut_makes_a_difference() {
        for (input, kept, payload) in VALID {
            let input = [input.as_bytes(), b"\r\n0"].concat();
            let taken = input.len() - 3;
            let each: Vec<usize> = (0..input.len()).collect();
            for (chunks, out) in [(Chunks::Keep, kept), (Chunks::Strip, payload)] {
                let all = Ok((out.as_bytes().to_vec(), taken, true));
                assert_eq!(run(Framing::Chunked, chunks, &input, &each), all, "{input:?}");
                for end in 0..=input.len() {
                    assert_eq!(run(Framing::Chunked, chunks, &input, &[end]), all, "{input:?} cut at {end}");
                    for second in end..=input.len() {
                        assert_eq!(run(Framing::Chunked, chunks, &input, &[end, second]), all);
                    }
                }
            }
        }
    }

    #[test]
    fn a_prefix_is_unfinished() {
        for (input, kept, payload) in VALID {
            for end in 0..input.len() {
                for (chunks, whole) in [(Chunks::Keep, kept), (Chunks::Strip, payload)] {
                    let (out, _, complete) = chunked(chunks, &input.as_bytes()[..end]).unwrap();
                    assert!(!complete && whole.as_bytes().starts_with(&out), "{input:?} until {end}");
                }
            }
        }
    }

    #[test]
    fn ambiguity_is_refused() {
        let long_extension = format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(MAX_EXTENSION_BYTES));
        let cases: &[(&str, &str)] = &[
            ("\r\n", "plain hexadecimal"),
            ("\n", "plain hexadecimal"),
            (";x\r\n", "plain hexadecimal"),
            (" 5\r\nhello\r\n", "plain hexadecimal"),
            ("5 \r\nhello\r\n", "plain hexadecimal"),
            ("5\t;x\r\nhello\r\n", "plain hexadecimal"),
            ("5 ;x\r\nhello\r\n", "plain hexadecimal"),
            ("+5\r\nhello\r\n", "plain hexadecimal"),
            ("-5\r\nhello\r\n", "plain hexadecimal"),
            ("0x5\r\nhello\r\n", "plain hexadecimal"),
            ("0_5\r\nhello\r\n", "plain hexadecimal"),
            ("5g\r\nhello\r\n", "plain hexadecimal"),
            ("5,\r\nhello\r\n", "plain hexadecimal"),
            ("\u{ff15}\r\nhello\r\n", "plain hexadecimal"),
            ("5\0\r\nhello\r\n", "plain hexadecimal"),
            ("5\nhello\r\n", "plain hexadecimal"),
            ("5\rhello\r\n", "CR without LF"),
            ("5\r\rhello\r\n", "CR without LF"),
            ("00000000000000005\r\nhello\r\n", "16 digits"),
            ("10000000000000000\r\n", "16 digits"),
            ("ffffffffffffffff\r\n", "63 bits"),
            ("8000000000000000\r\n", "63 bits"),
            ("8000000000000000;x\r\n", "63 bits"),
            ("5;x\nhello\r\n", "control character"),
            ("5;\n\r\nhello\r\n", "control character"),
            ("5;x\ty\r\nhello\r\n", "control character"),
            ("5;\0\r\nhello\r\n", "control character"),
            ("5;\u{7f}\r\nhello\r\n", "control character"),
            ("5;x\ry\r\nhello\r\n", "CR without LF"),
            (&long_extension, "too long"),
            ("5\r\nhello0\r\n\r\n", "data of a chunk"),
            ("5\r\nhello\n0\r\n\r\n", "data of a chunk"),
            ("5\r\nhello\r0\r\n\r\n", "data of a chunk"),
            ("5\r\nhello!\r\n0\r\n\r\n", "data of a chunk"),
            ("5\r\nhello \r\n0\r\n\r\n", "data of a chunk"),
            ("5\r\nhell\r\n0\r\n\r\n", "data of a chunk"),
            ("0\r\n\n", "name and a colon"),
            ("0\r\n\rX", "CR without LF"),
            ("0\r\n X: y\r\n\r\n", "folded"),
            ("0\r\nX: y\r\n\tz\r\n\r\n", "folded"),
            ("0\r\nX : y\r\n\r\n", "name and a colon"),
            ("0\r\n: y\r\n\r\n", "name and a colon"),
            ("0\r\nX\r\n\r\n", "name and a colon"),
            ("0\r\nX\0: y\r\n\r\n", "name and a colon"),
            ("0\r\nX\u{e9}: y\r\n\r\n", "name and a colon"),
            ("0\r\nGET / HTTP/1.1\r\n\r\n", "name and a colon"),
            ("0\r\nX: a\nb\r\n\r\n", "control character"),
            ("0\r\nX: a\0\r\n\r\n", "control character"),
            ("0\r\nX: a\u{7f}\r\n\r\n", "control character"),
            ("0\r\nX: a\rb\r\n\r\n", "CR without LF"),
            ("0\r\nX: a\r\r\n\r\n", "CR without LF"),
        ];
        for (input, word) in cases {
            let input = input.as_bytes();
            let each: Vec<usize> = (0..input.len()).collect();
            for chunks in [Chunks::Keep, Chunks::Strip] {
                for result in [chunked(chunks, input), run(Framing::Chunked, chunks, input, &each)] {
                    let BadBody(why) = result.unwrap_err();
                    assert!(why.contains(word), "{}: {why}", input.escape_ascii());
                }
            }
        }
    }

    #[test]
    fn who_went_wrong_stays_wrong() {
        let mut body = Body::new(Framing::Chunked, Chunks::Keep);
        assert!(body.pass(&mut b"x\r\n".to_vec()).is_err());
        assert!(body.pass(&mut b"0\r\n\r\n".to_vec()).is_err());
        assert_eq!((body.is_complete(), body.end()), (false, End::Cut));
    }

    #[test]
    fn sizes_up_to_63_bits() {
        let mut body = Body::new(Framing::Chunked, Chunks::Strip);
        let mut bytes = b"7fffffffffffffff\r\nabc".to_vec();
        assert_eq!(body.pass(&mut bytes), Ok(Passed { kept: 3, taken: 21 }));
        assert_eq!((&bytes[..3], body.left), (&b"abc"[..], (1 << 63) - 4));
    }

    #[test]
    fn extensions_are_bounded() {
        let chunk = |extension_bytes: usize, payload: &str| {
            format!("{:x}{}\r\n{payload}\r\n", payload.len(), ";".repeat(extension_bytes)).into_bytes()
        };
        let many = |chunk: Vec<u8>, count: usize| chunked(Chunks::Keep, &chunk.repeat(count));
        assert!(many(chunk(MAX_EXTENSION_BYTES, "a"), 1).is_ok());
        assert!(many(chunk(MAX_EXTENSION_BYTES + 1, "a"), 1).is_err());
        let each = MAX_EXTENSION_BYTES - 18;
        let most = MAX_EXTENSION_EXCESS_BYTES / each;
        assert!(many(chunk(MAX_EXTENSION_BYTES, "a"), most).is_ok());
        assert!(many(chunk(MAX_EXTENSION_BYTES, "a"), most + 1).is_err());
        assert!(many(chunk(18, "a"), 10_000).is_ok(), "few enough for ever");
        assert!(many(chunk(19, "a"), MAX_EXTENSION_EXCESS_BYTES + 1).is_err());
        assert!(many(chunk(MAX_EXTENSION_BYTES, &"a".repeat(504)), 100).is_ok(), "payload makes up for them");
    }

    #[test]
    fn trailers_are_bounded() {
        let trailers = |lines: &[String]| {
            let input = format!("0\r\n{}\r\n", lines.concat()).into_bytes();
            let each: Vec<usize> = (0..input.len()).collect();
            let at_once = chunked(Chunks::Keep, &input);
            assert_eq!(run(Framing::Chunked, Chunks::Keep, &input, &each), at_once);
            if let Ok((out, taken, complete)) = &at_once {
                assert!(*out == input && *taken == input.len() && *complete);
            }
            at_once.map(|_| ())
        };
        let line = |bytes: usize| format!("x:{}\r\n", "y".repeat(bytes - 4));
        assert!(trailers(&[line(MAX_TRAILER_BYTES - 2)]).is_ok());
        assert!(trailers(&[line(MAX_TRAILER_BYTES - 1)]).is_err());
        assert!(trailers(&[line(100), line(MAX_TRAILER_BYTES - 102)]).is_ok());
        assert!(trailers(&[line(100), line(MAX_TRAILER_BYTES - 101)]).is_err());
        assert!(trailers(&[line(100), line(MAX_TRAILER_BYTES - 100), line(4)]).is_err());
        assert!(trailers(&vec![line(4); MAX_TRAILERS]).is_ok());
        assert!(trailers(&vec![line(4); MAX_TRAILERS + 1]).is_err());
        let endless = [b"0\r\nx:".to_vec(), vec![b'y'; MAX_TRAILER_BYTES - 2]].concat();
        assert!(chunked(Chunks::Keep, &endless[..endless.len() - 1]).is_ok());
        assert!(
            chunked(Chunks::Keep, &endless).is_err(),
            "a line that can no longer end in time is not waited for"
        );
    }

    #[test]
    fn trailers_that_may_not_be() {
        for name in NO_TRAILERS {
            for name in [name.to_ascii_lowercase(), name.to_ascii_uppercase()] {
                let input = format!("0\r\n{name}: x\r\n{name}x: y\r\n\r\n");
                let kept = format!("0\r\n{name}x: y\r\n\r\n");
                assert_eq!(
                    chunked(Chunks::Keep, input.as_bytes()),
                    Ok((kept.into_bytes(), input.len(), true))
                );
            }
        }
    }

    #[test]
    fn bodies_that_are_not_chunked() {
        let run = |framing, input: &str, end: usize| {
            let (out, taken, complete) = run(framing, Chunks::Strip, input.as_bytes(), &[end]).unwrap();
            (String::from_utf8(out).unwrap(), taken, complete)
        };
        for end in 0..5 {
            assert_eq!(run(Framing::None, "abcde", end), (String::new(), 0, true));
            assert_eq!(run(Framing::Length(0), "abcde", end), (String::new(), 0, true));
            assert_eq!(run(Framing::Length(3), "abcde", end), ("abc".into(), 3, true));
            assert_eq!(run(Framing::Length(5), "abcde", end), ("abcde".into(), 5, true));
            assert_eq!(run(Framing::Length(6), "abcde", end), ("abcde".into(), 5, false));
            assert_eq!(run(Framing::Length(u64::MAX), "abcde", end), ("abcde".into(), 5, false));
            assert_eq!(run(Framing::UntilClose, "abcde", end), ("abcde".into(), 5, false));
        }
    }

    #[test]
    fn what_the_senders_end_means() {
        let cases: &[(Framing, &str, End)] = &[
            (Framing::None, "", End::Complete),
            (Framing::Length(0), "", End::Complete),
            (Framing::Length(2), "", End::Cut),
            (Framing::Length(2), "a", End::Cut),
            (Framing::Length(2), "ab", End::Complete),
            (Framing::UntilClose, "", End::Complete),
            (Framing::UntilClose, "ab", End::Complete),
            (Framing::Chunked, "", End::Cut),
            (Framing::Chunked, "1\r\na\r\n0\r\n", End::Cut),
            (Framing::Chunked, "1\r\na\r\n0\r\n\r", End::Cut),
            (Framing::Chunked, "1\r\na\r\n0\r\n\r\n", End::Complete),
        ];
        for (framing, input, end) in cases {
            let mut body = Body::new(*framing, Chunks::Keep);
            body.pass(&mut input.as_bytes().to_vec()).unwrap();
            assert_eq!(body.framing(), *framing);
            assert_eq!(body.end(), *end, "{framing:?} {input:?}");
            assert_eq!(body.is_complete(), *end == End::Complete);
            assert_eq!(body.pass(&mut []), Ok(Passed { kept: 0, taken: 0 }));
        }
    }

    /// The same in the plainest way, on everything at once. `None`: bad.
    fn reference(input: &[u8], chunks: Chunks) -> Option<(Vec<u8>, usize, bool)> {
        let keep = chunks == Chunks::Keep;
        let (mut out, mut at) = (Vec::new(), 0);
        loop {
            let (line, whole) = line_at(&input[at..]);
            let (digits, extension) = match line.iter().position(|&byte| byte == b';') {
                Some(semicolon) => line.split_at(semicolon),
                None => (line, &[][..]),
            };
            let ended = line.len() > digits.len() || whole > line.len();
            let size = if digits.is_empty() {
                0
            } else {
                u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?
            };
            if !digits.iter().all(u8::is_ascii_hexdigit)
                || digits.len() > 16
                || ended && (digits.is_empty() || size >> 63 == 1)
                || extension.iter().any(u8::is_ascii_control)
            {
                return None;
            }
            if keep {
                out.extend_from_slice(digits);
                out.extend_from_slice(&input[at + line.len()..at + whole]);
            }
            at += whole;
            if whole < line.len() + 2 {
                return Some((out, at, false));
            }
            if size == 0 {
                break;
            }
            let here = usize::try_from(size).ok()?.min(input.len() - at);
            out.extend_from_slice(&input[at..at + here]);
            at += here;
            let end = &input[at..input.len().min(at + 2)];
            if !b"\r\n".starts_with(end) {
                return None;
            }
            out.extend_from_slice(if keep { end } else { b"" });
            at += end.len();
            if end.len() < 2 {
                return Some((out, at, false));
            }
        }
        loop {
            let (line, whole) = line_at(&input[at..]);
            let mut halves = line.splitn(2, |&byte| byte == b':');
            let (name, value) = (halves.next()?, halves.next());
            let ended = whole > line.len();
            if !name.iter().all(|&byte| is_token_byte(byte))
                || value.is_some() && name.is_empty()
                || value.is_none() && !name.is_empty() && ended
                || value
                    .is_some_and(|value| value.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t'))
            {
                return None;
            }
            if whole < line.len() + 2 {
                return Some((out, at, false));
            }
            if keep && may_be_trailer(line) {
                out.extend_from_slice(&input[at..at + whole]);
            }
            at += whole;
            if line.is_empty() {
                return Some((out, at, true));
            }
        }
    }

    /// A line without its end, and how long it is with what is there of that.
    fn line_at(rest: &[u8]) -> (&[u8], usize) {
        match rest.windows(2).position(|two| two == b"\r\n") {
            Some(end) => (&rest[..end], end + 2),
            None => (rest.strip_suffix(b"\r").unwrap_or(rest), rest.len()),
        }
    }

    #[test]
    fn agrees_with_a_plain_decoder() {
        let mut seed = 0x51ed_270b_7f4a_7c15u64;
        let mut random = move |below: usize| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            (seed % below as u64) as usize
        };
        let odd = b"\r\n\r\n\r\n;: \t\0\x7f\xff0123456789abcdefFx-+_,\"";
        let lines = ["x:y\r\n", "\r\n", "Host: a\r\n", " z\r\n", "long-name: a b\tc\r\n", "TE:\r\n"];
        let (mut bad, mut complete) = (0, 0);
        for turn in 0..30_000 {
            let mut input = Vec::new();
            for _ in 0..random(4) {
                let size = random(20);
                let zeros = "0".repeat(random(3));
                let extension = ["", "", ";", ";a=b", ";\"x;y\""][random(5)];
                input.extend_from_slice(format!("{zeros}{size:x}{extension}\r\n").as_bytes());
                input.extend((0..size).map(|_| odd[random(odd.len())]));
                input.extend_from_slice(b"\r\n");
            }
            input.extend_from_slice([&b"0\r\n"[..], b"000;x\r\n"][random(2)]);
            for _ in 0..random(4) {
                input.extend_from_slice(lines[random(lines.len())].as_bytes());
            }
            input.extend_from_slice(b"\r\n");
            for _ in 0..random(3) {
                let at = random(input.len());
                match random(4) {
                    0 => input[at] = odd[random(odd.len())],
                    1 => input.insert(at, odd[random(odd.len())]),
                    2 => drop(input.remove(at)),
                    _ => input.truncate(at + 1),
                }
            }
            let mut ends: Vec<usize> = (0..random(6)).map(|_| random(input.len() + 1)).collect();
            ends.sort_unstable();
            let chunks = [Chunks::Keep, Chunks::Strip][turn % 2];
            let wanted = reference(&input, chunks);
            bad += u32::from(wanted.is_none());
            complete += u32::from(wanted.as_ref().is_some_and(|(_, _, complete)| *complete));
            let text = input.escape_ascii();
            assert_eq!(chunked(chunks, &input).ok(), wanted, "{text}");
            assert_eq!(run(Framing::Chunked, chunks, &input, &ends).ok(), wanted, "{text} cut at {ends:?}");
        }
        assert!(bad > 5_000 && complete > 5_000, "{bad} bad, {complete} complete");
    }
}
