//! Header fields, of requests and responses alike: read once and strictly, classified once, and nothing is copied.
//! Which fields end here (RFC 9110 7.6.1) is decided with it, so that writing a head anew need not compare names again.

#[cfg(test)]
pub(super) mod cases;

use std::mem::MaybeUninit;
use std::ops::Range;

use super::body::Chunks;
use super::reply::is_token_byte;

/// Most header fields in one head.
pub const MAX_HEADERS: usize = 100;
/// Most options in all `Connection` fields of one head: none needs more than a head can have fields, and each is compared with
/// each of them.
const MAX_OPTIONS: usize = MAX_HEADERS;

/// HTTP version of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
}

/// Whether the sender's connection may carry another message behind this one (RFC 9112 9.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// It may.
    Keep,
    /// This is the last one.
    Close,
}

/// Whether a message is about another protocol on its connection (RFC 9110 7.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upgrade {
    /// It is not, or not in a way that is passed on.
    None,
    /// `Connection: upgrade` and an `Upgrade` field that names protocols, none of them HTTP in another dress: behind such an
    /// upgrade requests would pass unseen.
    Asked,
}

/// Whether the client waits with its body until it is told to go on (RFC 9110 10.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// It does not.
    Nothing,
    /// `Expect: 100-continue`, which is sent on.
    Continue,
}

/// Room for the fields of one head. It lives where the head is read, mostly on the stack.
pub struct Storage<'a> {
    // Not even cleared: clearing it would cost as much as a short head.
    slots: [MaybeUninit<httparse::Header<'a>>; MAX_HEADERS],
    fates: [Fate; MAX_HEADERS],
}

impl<'a> Storage<'a> {
    /// Empty.
    #[must_use]
    pub const fn new() -> Storage<'a> {
        Storage { slots: [const { MaybeUninit::uninit() }; MAX_HEADERS], fates: [Fate::SentOn; MAX_HEADERS] }
    }

    pub(super) fn parts(&mut self) -> (&mut [MaybeUninit<httparse::Header<'a>>], &mut [Fate]) {
        (&mut self.slots, &mut self.fates)
    }
}

impl Default for Storage<'_> {
    fn default() -> Self {
        Storage::new()
    }
}

/// What becomes of one field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    SentOn,
    /// It ends here, or is written anew.
    EndsHere,
    /// An `Upgrade`: it ends here unless the upgrade is passed on.
    WithUpgrade,
}

/// The fields of one head, as received and in that order.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a> {
    /// Where they stand.
    head: &'a [u8],
    all: &'a [httparse::Header<'a>],
    /// Of each field at least.
    fates: &'a [Fate],
}

impl<'a> Fields<'a> {
    /// Name and value of each field, those that are not sent on included. Values have no white space around them.
    pub fn iter(self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        self.all.iter().map(|field| (field.name, field.value))
    }

    /// The values of all fields of that name, which is compared without case.
    pub fn values(self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.iter().filter(move |field| same(field.0.as_bytes(), name.as_bytes())).map(|field| field.1)
    }

    /// Writes what is sent on, but for the fields of that name. Lines that came just as we write them, which are nearly all,
    /// are put together and written at once: a head takes a tenth of the instructions so.
    pub(super) fn write(self, upgrade: Upgrade, without: Option<&[u8]>, out: &mut Vec<u8>) {
        let mut lines = 0..0;
        for (name, value) in self.sent_on(upgrade) {
            if without.is_some_and(|dropped| same(name.as_bytes(), dropped)) {
                continue;
            }
            match self.line_as_ours(name, value) {
                Some(line) if line.start == lines.end => lines.end = line.end,
                Some(line) => {
                    let before = std::mem::replace(&mut lines, line);
                    out.extend_from_slice(self.head.get(before).unwrap_or_default());
                }
                None => {
                    let before = std::mem::take(&mut lines);
                    out.extend_from_slice(self.head.get(before).unwrap_or_default());
                    for part in [name.as_bytes(), b": ", value, b"\r\n"] {
                        out.extend_from_slice(part);
                    }
                }
            }
        }
        out.extend_from_slice(self.head.get(lines).unwrap_or_default());
    }

    /// Where in the head a line stands that has this name and value, one space between them, and nothing else.
    fn line_as_ours(self, name: &str, value: &[u8]) -> Option<Range<usize>> {
        // Both are parts of the head, or empty and anywhere.
        let offset = |part: *const u8| part.addr().wrapping_sub(self.head.as_ptr().addr());
        let (start, value_start) = (offset(name.as_ptr()), offset(value.as_ptr()));
        let between = start.wrapping_add(name.len());
        let end = value_start.wrapping_add(value.len());
        let is_ours = self.head.get(between..value_start) == Some(b": ")
            && self.head.get(end..end.wrapping_add(2)) == Some(b"\r\n");
        is_ours.then(|| start..end + 2)
    }

    /// What is sent on as it is; with the `Upgrade` fields if the message is about an upgrade that is passed on.
    pub(super) fn sent_on(self, upgrade: Upgrade) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        let is_sent_on = move |fate: Fate| match fate {
            Fate::SentOn => true,
            Fate::EndsHere => false,
            Fate::WithUpgrade => upgrade == Upgrade::Asked,
        };
        let with_fates = self.all.iter().zip(self.fates);
        with_fates.filter(move |(_, fate)| is_sent_on(**fate)).map(|(field, _)| (field.name, field.value))
    }
}

/// Whose fields are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    Request,
    Response,
}

/// What the fields say that a proxy must know.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    head: &'a [u8],
    all: &'a [httparse::Header<'a>],
    fates: &'a mut [Fate],
    pub(super) content_length: Option<u64>,
    /// What becomes of a chunked body if it goes on chunked.
    pub(super) chunks: Chunks,
    pub(super) coding: Coding,
    /// How many `Host` fields there are. Requests only.
    pub(super) hosts: usize,
    /// Requests only.
    pub(super) expect: Expect,
    /// `Connection: close`
    pub(super) persistence: Persistence,
    pub(super) upgrade: Upgrade,
}

/// The `Transfer-Encoding` fields, all together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Coding {
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

/// The fields that mean something to a proxy.
enum Known {
    Host,
    Connection,
    ContentLength,
    TransferEncoding,
    Upgrade,
    Expect,
    ProxyAuthorization,
    /// For one connection only, and of no use to us: `Keep-Alive`, `Proxy-Connection`, `TE`; and `Close`, which is reserved so
    /// that the option `close` names no field.
    HopByHop,
    Other,
}

impl Known {
    /// By length and first letter before the name is compared: nearly every field is another one.
    fn of(name: &str) -> Known {
        let bytes = name.as_bytes();
        let first = bytes.first().map_or(0, u8::to_ascii_lowercase);
        let (spelling, known) = match (bytes.len(), first) {
            (2, b't') => ("TE", Known::HopByHop),
            (4, b'h') => ("Host", Known::Host),
            (5, b'c') => ("Close", Known::HopByHop),
            (6, b'e') => ("Expect", Known::Expect),
            (7, b'u') => ("Upgrade", Known::Upgrade),
            (10, b'c') => ("Connection", Known::Connection),
            (10, b'k') => ("Keep-Alive", Known::HopByHop),
            (14, b'c') => ("Content-Length", Known::ContentLength),
            (16, b'p') => ("Proxy-Connection", Known::HopByHop),
            (17, b't') => ("Transfer-Encoding", Known::TransferEncoding),
            (19, b'p') => ("Proxy-Authorization", Known::ProxyAuthorization),
            // A number and a byte, not an enum of ours.
            _ => return Known::Other,
        };
        // The usual spelling is compared faster.
        if name == spelling || same(bytes, spelling.as_bytes()) { known } else { Known::Other }
    }
}

/// What all `Upgrade` fields name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Protocols {
    #[default]
    Nothing,
    Passable,
    NotPassable,
}

impl<'a> Facts<'a> {
    /// Reads `all` fields of a head and decides their `fates`, of which there are as many at least.
    ///
    /// # Errors
    /// One sentence about what makes the message ambiguous.
    pub(super) fn read(
        head: &'a [u8],
        all: &'a [httparse::Header<'a>],
        fates: &'a mut [Fate],
        of: Of,
    ) -> Result<Facts<'a>, &'static str> {
        let mut facts = Facts {
            head,
            all,
            fates,
            content_length: None,
            chunks: Chunks::Keep,
            coding: Coding::None,
            hosts: 0,
            expect: Expect::Nothing,
            persistence: Persistence::Keep,
            upgrade: Upgrade::None,
        };
        let mut lists = Lists::default();
        for (at, field) in all.iter().enumerate() {
            let fate = facts.note(field, of, &mut lists)?;
            if let Some(its) = facts.fates.get_mut(at) {
                *its = fate;
            }
        }
        if facts.coding != Coding::None && facts.content_length.is_some() {
            return Err("there are both Content-Length and Transfer-Encoding");
        }
        if lists.options > MAX_OPTIONS {
            return Err("the Connection fields have more than 100 options");
        }
        if lists.close {
            facts.persistence = Persistence::Close;
        }
        if lists.upgrade && lists.protocols == Protocols::Passable {
            facts.upgrade = Upgrade::Asked;
        }
        if lists.names {
            // They name trailers too (RFC 9110 7.6.1), which are not here yet.
            facts.chunks = Chunks::KeepWithoutTrailers;
            facts.remove_named();
        }
        Ok(facts)
    }

    /// Takes in one field, and decides what becomes of it as long as no `Connection` field names it.
    fn note(
        &mut self,
        field: &httparse::Header<'a>,
        of: Of,
        lists: &mut Lists<'a>,
    ) -> Result<Fate, &'static str> {
        match Known::of(field.name) {
            Known::Other => return Ok(Fate::SentOn),
            Known::Host | Known::Expect | Known::ProxyAuthorization if of == Of::Response => {
                return Ok(Fate::SentOn);
            }
            Known::Expect => {
                if elements(field.value).any(|element| same(element, b"100-continue")) {
                    self.expect = Expect::Continue;
                }
                return Ok(Fate::SentOn);
            }
            Known::Host => {
                self.hosts += 1;
                if !field.value.iter().all(|&byte| is_host_byte(byte)) {
                    return Err("the Host field is not a host and port");
                }
            }
            Known::Connection => lists.add_options(field.value),
            Known::ContentLength => {
                if lists.length.is_some_and(|before| before != field.value) {
                    return Err("there are two Content-Length fields that differ");
                }
                lists.length = Some(field.value);
                // Larger ones are negative for a reader that counts in signed numbers.
                let length = decimal(field.value).filter(|&length| length <= i64::MAX as u64);
                self.content_length =
                    Some(length.ok_or("the Content-Length is not a number of 63 bits in plain digits")?);
            }
            Known::TransferEncoding => self.coding = self.coding.and(field.value),
            Known::Upgrade => {
                lists.protocols = lists.protocols.and(field.value);
                return Ok(Fate::WithUpgrade);
            }
            Known::ProxyAuthorization | Known::HopByHop => {}
        }
        Ok(Fate::EndsHere)
    }

    /// All values of that name.
    pub(super) fn values(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        Fields { head: self.head, all: self.all, fates: &[] }.values(name)
    }

    /// The fields, their fates as decided.
    pub(super) fn fields(self) -> Fields<'a> {
        Fields { head: self.head, all: self.all, fates: self.fates }
    }

    /// The fields of that name end here. An `Upgrade` does so in any case.
    #[inline(never)]
    pub(super) fn remove(&mut self, name: &[u8]) {
        for (field, fate) in self.all.iter().zip(self.fates.iter_mut()) {
            if *fate == Fate::SentOn && same(field.name.as_bytes(), name) {
                *fate = Fate::EndsHere;
                if same(name, b"expect") {
                    self.expect = Expect::Nothing;
                }
            }
        }
    }

    /// Removes each field that a `Connection` field names. What is written anew in any case may be named too: by now it is
    /// read and gone, so that naming `Content-Length` or `Host` changes nothing.
    fn remove_named(&mut self) {
        for field in self.all {
            if let Known::Connection = Known::of(field.name) {
                for name in elements(field.value) {
                    self.remove(name);
                }
            }
        }
    }
}

/// What several fields say together.
#[derive(Default)]
struct Lists<'a> {
    /// `Content-Length` as sent: all are spelled alike.
    length: Option<&'a [u8]>,
    /// `Connection` has the option `close`.
    close: bool,
    /// It has the option `upgrade`.
    upgrade: bool,
    /// It has options that are names of fields, of which those that end here in any case need no looking for.
    names: bool,
    /// So many options in all.
    options: usize,
    protocols: Protocols,
}

impl Lists<'_> {
    fn add_options(&mut self, value: &[u8]) {
        for option in elements(value) {
            self.options += 1;
            if same(option, b"close") {
                self.close = true;
            } else if same(option, b"upgrade") {
                self.upgrade = true;
            } else if !same(option, b"keep-alive") && !same(option, b"te") {
                self.names = true;
            }
        }
    }
}

impl Protocols {
    fn and(self, value: &[u8]) -> Protocols {
        let mut all = self;
        for protocol in elements(value) {
            let slash = protocol.iter().position(|&byte| byte == b'/');
            let (name, version) = protocol.split_at(slash.unwrap_or(protocol.len()));
            let version = version.get(1..).unwrap_or(b"0");
            let well_formed = is_token(name) && is_token(version);
            // Drafts of it too: `h2c-14`.
            let is_h2c = name.get(..3).is_some_and(|start| same(start, b"h2c"));
            let is_http = is_h2c || [&b"h2"[..], b"http"].iter().any(|http| same(name, http));
            if is_http || !well_formed {
                return Protocols::NotPassable;
            }
            if all == Protocols::Nothing {
                all = Protocols::Passable;
            }
        }
        all
    }
}

impl Coding {
    /// This, followed by one more field of that name. Codings spread over several fields are not put together.
    fn and(self, value: &[u8]) -> Coding {
        let mut all = match self {
            Coding::None => Coding::None,
            // `chunked` is not the last one any more, or stands there twice; ambiguous stays so.
            Coding::Chunked | Coding::UnknownThenChunked | Coding::Ambiguous => return Coding::Ambiguous,
        };
        let mut unknown = false;
        for element in value.split(|&byte| byte == b',') {
            let element = element.trim_ascii();
            if all != Coding::None || !is_token(element) {
                return Coding::Ambiguous;
            }
            if !same(element, b"chunked") {
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

/// Whether both are one name or word: case does not matter. Once in the binary, not once for each caller.
#[inline(never)]
pub(super) fn same(one: &[u8], other: &[u8]) -> bool {
    one.eq_ignore_ascii_case(other)
}

fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&byte| is_token_byte(byte))
}

/// The elements of a list (RFC 9110 5.6.1), without empty ones.
pub(super) fn elements(value: &[u8]) -> Elements<'_> {
    Elements { rest: value }
}

/// See [`elements`].
pub(super) struct Elements<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a [u8];

    // Once in the binary, not once for each caller.
    #[inline(never)]
    fn next(&mut self) -> Option<&'a [u8]> {
        while !self.rest.is_empty() {
            let comma = self.rest.iter().position(|&byte| byte == b',');
            let (element, rest) = self.rest.split_at(comma.unwrap_or(self.rest.len()));
            self.rest = rest.get(1..).unwrap_or_default();
            let element = element.trim_ascii();
            if !element.is_empty() {
                return Some(element);
            }
        }
        None
    }
}

/// Pure digits, and no more than 64 bits of them.
pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, digit| {
        let digit = if digit.is_ascii_digit() { digit - b'0' } else { return None };
        number.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// What `uri-host [":" port]` is made of (RFC 3986 3.2.2). The target wins over the field, so its form is not judged
/// further; but an invalid value is refused (RFC 9112 3.2).
fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~:[]%!$&'()*+,;=".contains(&byte)
}

/// What a head's fields have that httparse does not take. `None`: it was not the fields.
pub(super) fn field_error(error: httparse::Error) -> Option<&'static str> {
    match error {
        httparse::Error::HeaderName => Some("a header field has no colon right behind its name"),
        // The scan knows the rest of it.
        httparse::Error::HeaderValue => Some("the value of a header field has a control character"),
        httparse::Error::NewLine
        | httparse::Error::Status
        | httparse::Error::Token
        | httparse::Error::TooManyHeaders
        | httparse::Error::Version => None,
    }
}
