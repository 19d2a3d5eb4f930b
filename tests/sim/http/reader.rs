//! A parser that shares no line with the proxy's: naive, and strict about what the proxy must never send.

use std::cell::Cell;

/// How the end of a message is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Nothing,
    Length(usize),
    Chunked,
    UntilClose,
    /// What follows is not HTTP.
    Tunnel,
}

#[derive(Debug)]
pub(super) struct Message {
    pub(super) start: String,
    pub(super) fields: Vec<(String, String)>,
    pub(super) shape: Shape,
    pub(super) body: Vec<u8>,
    pub(super) trailers: Vec<(String, String)>,
    /// As far as its own framing says. One that ends with its connection never is.
    pub(super) is_complete: bool,
    /// Of a response; 0 of a request.
    pub(super) status: u16,
    /// Bytes of the body that were compared with what was sent.
    compared: Cell<usize>,
}

impl Message {
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        let mut values = self.fields.iter().filter(|field| field.0.eq_ignore_ascii_case(name));
        let value = values.next().map(|field| field.1.as_str());
        assert!(values.next().is_none(), "{name} stands twice in {:?}", self.fields);
        value
    }

    pub(super) fn number(&self, name: &str) -> Option<usize> {
        self.field(name).map(|value| value.parse().unwrap())
    }

    pub(super) fn is_final(&self) -> bool {
        self.status >= 200 || self.status == 101
    }

    /// Whether the body is what was sent, as far as it has come.
    pub(super) fn begins(&self, sent: &[u8]) -> bool {
        let from = self.compared.replace(self.body.len());
        sent.get(from..self.body.len()) == Some(&self.body[from..])
    }

    pub(super) fn closes(&self) -> bool {
        self.field("Connection").is_some_and(|value| value == "close")
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Head,
    Length(usize),
    ChunkSize,
    ChunkData(usize),
    ChunkEnd,
    Trailers,
    UntilClose,
    Tunnel,
}

/// One direction of a connection.
#[derive(Debug)]
pub(super) struct Reader {
    unread: Vec<u8>,
    /// Bytes of `unread` in which no end of a line or head begins.
    searched: usize,
    place: Place,
    pub(super) messages: Vec<Message>,
    pub(super) tunnel: Vec<u8>,
    pub(super) bytes: u64,
}

impl Reader {
    pub(super) fn new() -> Reader {
        Reader {
            unread: Vec::new(),
            searched: 0,
            place: Place::Head,
            messages: Vec::new(),
            tunnel: Vec::new(),
            bytes: 0,
        }
    }

    /// A connection that is a tunnel from its first byte.
    pub(super) fn tunnel() -> Reader {
        Reader { place: Place::Tunnel, ..Reader::new() }
    }

    /// Nothing of another message has come.
    pub(super) fn is_between_messages(&self) -> bool {
        self.place == Place::Head && self.unread.is_empty()
    }

    /// Takes what has come. `shape` tells from all messages, of which the last is a bare head yet, how that one goes on.
    pub(super) fn feed(&mut self, bytes: &[u8], shape: impl Fn(&[Message]) -> Shape) {
        self.bytes += bytes.len() as u64;
        self.unread.extend_from_slice(bytes);
        let unread = std::mem::take(&mut self.unread);
        let mut rest = &unread[..];
        while self.take_part(&mut rest, &shape) {}
        self.unread = rest.to_vec();
    }

    fn take_part(&mut self, rest: &mut &[u8], shape: &impl Fn(&[Message]) -> Shape) -> bool {
        match self.place {
            Place::Head => {
                let Some(head) = self.take_until(rest, b"\r\n\r\n") else { return false };
                self.messages.push(read_head(head));
                let shape = shape(&self.messages);
                self.last().shape = shape;
                self.place = match shape {
                    Shape::Nothing | Shape::Length(0) => return self.complete(),
                    Shape::Length(bytes) => Place::Length(bytes),
                    Shape::Chunked => Place::ChunkSize,
                    Shape::UntilClose => Place::UntilClose,
                    Shape::Tunnel => Place::Tunnel,
                };
            }
            Place::Length(left) => match self.take_body(rest, left) {
                0 => return self.complete(),
                left => self.place = Place::Length(left),
            },
            Place::ChunkSize => {
                let Some(line) = self.take_until(rest, b"\r\n") else { return false };
                let size = std::str::from_utf8(line).expect("a chunk size is ASCII");
                let size = usize::from_str_radix(size, 16).expect("extensions are dropped");
                self.place = if size == 0 { Place::Trailers } else { Place::ChunkData(size) };
                return true;
            }
            Place::ChunkData(left) => {
                self.place = match self.take_body(rest, left) {
                    0 => Place::ChunkEnd,
                    left => Place::ChunkData(left),
                };
            }
            Place::ChunkEnd => {
                let Some(line) = self.take_until(rest, b"\r\n") else { return false };
                assert!(line.is_empty(), "a chunk is longer than it said");
                self.place = Place::ChunkSize;
            }
            Place::Trailers => {
                let Some(line) = self.take_until(rest, b"\r\n") else { return false };
                if line.is_empty() {
                    return self.complete();
                }
                let trailer = read_field(std::str::from_utf8(line).unwrap());
                self.last().trailers.push(trailer);
            }
            Place::UntilClose => {
                self.take_body(rest, usize::MAX);
            }
            Place::Tunnel => {
                self.tunnel.extend_from_slice(rest);
                *rest = &[];
            }
        }
        !rest.is_empty()
    }

    fn last(&mut self) -> &mut Message {
        self.messages.last_mut().unwrap()
    }

    fn complete(&mut self) -> bool {
        self.last().is_complete = true;
        self.place = Place::Head;
        true
    }

    fn take_body(&mut self, rest: &mut &[u8], left: usize) -> usize {
        let (taken, behind) = rest.split_at(left.min(rest.len()));
        self.last().body.extend_from_slice(taken);
        *rest = behind;
        left - taken.len()
    }

    fn take_until<'a>(&mut self, rest: &mut &'a [u8], end: &[u8]) -> Option<&'a [u8]> {
        let from = std::mem::take(&mut self.searched);
        let Some(at) = rest[from..].windows(end.len()).position(|window| window == end) else {
            self.searched = (rest.len() + 1).saturating_sub(end.len());
            return None;
        };
        let taken = &rest[..from + at];
        *rest = &rest[from + at + end.len()..];
        Some(taken)
    }
}

fn read_head(head: &[u8]) -> Message {
    let text = std::str::from_utf8(head).expect("nobody here sends anything but ASCII in a head");
    let mut lines = text.split("\r\n");
    let start = lines.next().unwrap().to_string();
    let fields = lines.map(read_field).collect();
    Message {
        status: if start.starts_with("HTTP/") { status(&start) } else { 0 },
        start,
        fields,
        shape: Shape::Nothing,
        body: Vec::new(),
        trailers: Vec::new(),
        is_complete: false,
        compared: Cell::new(0),
    }
}

fn status(start: &str) -> u16 {
    let rest = start.strip_prefix("HTTP/1.1 ").expect("we speak HTTP/1.1");
    assert_eq!(rest.as_bytes()[3], b' ');
    rest[..3].parse().unwrap()
}

fn read_field(line: &str) -> (String, String) {
    assert!(!line.contains(['\r', '\n', '\0']), "a bare line end: {line:?}");
    let (name, value) = line.split_once(": ").unwrap_or_else(|| panic!("no field: {line:?}"));
    assert!(!name.is_empty() && !name.contains(' '), "no name: {line:?}");
    (name.to_string(), value.to_string())
}
