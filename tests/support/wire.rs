//! One connection with HTTP/1 on it, on either side of the proxy. It keeps every byte that ever came, takes messages apart strictly
//! and by itself (the proxy's parsers are not checked against themselves), and knows a message that was cut from a complete one.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::ops::Range;

use socket2::{Domain, Socket, Type};

use super::client::{Answer, Client, reset};
use super::{DEADLINE, Ending};

/// One connection.
pub struct Wire {
    /// The socket, for what has no method here.
    pub stream: TcpStream,
    /// Its own address: of a client, its name in the access line.
    pub local: SocketAddr,
    received: Vec<u8>,
    taken: usize,
}

/// How the length of a body is told (RFC 9112 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is no body, whatever the fields say.
    None,
    /// By `Content-Length`.
    Length,
    /// By `Transfer-Encoding: chunked`.
    Chunked,
    /// By the end of the connection.
    UntilClose,
}

/// A request or a response.
#[derive(Clone, Debug)]
pub struct Message {
    /// The first line.
    pub start: String,
    /// Names as spelled, values without the white space around them.
    pub fields: Vec<(String, String)>,
    /// The head as it came, with the empty line.
    pub raw: String,
    /// How the body is framed.
    pub framing: Framing,
    /// As much of the body as came.
    pub body: Vec<u8>,
    /// Fields behind the last chunk.
    pub trailers: Vec<(String, String)>,
    /// How the connection ended before the message was complete.
    pub cut: Option<Ending>,
}

impl Message {
    #[track_caller]
    fn of_head(raw: &[u8]) -> Message {
        let raw = String::from_utf8(raw.to_vec()).expect("heads in tests are UTF-8");
        let text = raw.strip_suffix("\r\n\r\n").expect("a head ends with an empty line");
        assert!(!text.replace("\r\n", "").contains(['\r', '\n']), "bare CR or LF in {raw:?}");
        let mut lines = text.split("\r\n");
        let start = lines.next().unwrap().to_string();
        let fields = lines.map(field).collect();
        Message { start, fields, raw, framing: Framing::None, body: vec![], trailers: vec![], cut: None }
    }

    /// Status code of a response.
    #[track_caller]
    pub fn status(&self) -> u16 {
        let (version, rest) = self.start.split_once(' ').expect("a status line");
        assert!(version == "HTTP/1.1" || version == "HTTP/1.0", "no status line: {:?}", self.start);
        rest[..3].parse().expect("a status")
    }

    /// Every value of this field, in order.
    pub fn all(&self, name: &str) -> Vec<&str> {
        values(&self.fields, name).collect()
    }

    /// The one value of this field; panics when there are several.
    #[track_caller]
    pub fn field(&self, name: &str) -> Option<&str> {
        let found = self.all(name);
        assert!(found.len() < 2, "{name} more than once in {:?}", self.raw);
        found.first().copied()
    }

    /// All fields except those with these names.
    pub fn fields_but(&self, names: &[&str]) -> Vec<(&str, &str)> {
        let named = |field: &str| names.iter().any(|name| name.eq_ignore_ascii_case(field));
        self.fields.iter().filter(|(n, _)| !named(n)).map(|(n, v)| (n.as_str(), v.as_str())).collect()
    }

    /// Whether the connection goes on behind it, as it says itself (RFC 9112 9.3).
    pub fn keeps_alive(&self) -> bool {
        let said = |word: &str| {
            let mut options = values(&self.fields, "connection").flat_map(|value| value.split(','));
            options.any(|option| option.trim().eq_ignore_ascii_case(word))
        };
        let old = self.start.starts_with("HTTP/1.0") || self.start.ends_with(" HTTP/1.0");
        self.framing != Framing::UntilClose && !said("close") && (!old || said("keep-alive"))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

#[track_caller]
fn field(line: &str) -> (String, String) {
    let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("no colon in {line:?}"));
    assert!(!name.is_empty() && !name.contains([' ', '\t']), "no field name in {line:?}");
    (name.to_string(), value.trim_matches([' ', '\t']).to_string())
}

fn values<'a>(fields: &'a [(String, String)], name: &str) -> impl Iterator<Item = &'a str> {
    fields.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

impl Wire {
    /// A connection to `addr`.
    #[track_caller]
    pub fn dial(addr: SocketAddr) -> Wire {
        Wire::from(Client::dial(addr).stream)
    }

    /// The same from this source address.
    #[track_caller]
    pub fn dial_from(source: &str, addr: SocketAddr) -> Wire {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None).unwrap();
        let source: SocketAddr = format!("{source}:0").parse().unwrap();
        socket.bind(&source.into()).unwrap();
        socket.connect_timeout(&addr.into(), DEADLINE).expect("connects");
        Wire::from(TcpStream::from(socket))
    }

    /// Sends all of it.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("sends");
    }

    /// Sends as much of it as the peer takes; whether that was all.
    pub fn offer(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    /// Sends a GET of `url` with the Host that belongs to it.
    #[track_caller]
    pub fn get(&mut self, url: &str) {
        self.send(request("GET", url, ""));
    }

    /// Half-closes: no more bytes from here.
    #[track_caller]
    pub fn finish(&mut self) {
        self.stream.shutdown(Shutdown::Write).expect("shuts down writing");
    }

    /// Leaves with a RST.
    pub fn reset(self) {
        reset(self.stream);
    }

    /// Every byte that ever came, taken or not.
    pub fn received(&self) -> &[u8] {
        &self.received
    }

    /// What came and was not yet taken, without waiting for more.
    #[track_caller]
    pub fn waiting(&mut self) -> &[u8] {
        self.stream.set_nonblocking(true).unwrap();
        let mut buf = [0; 4096];
        loop {
            match self.stream.read(&mut buf) {
                Ok(0) => break,
                Ok(n) => self.received.extend_from_slice(&buf[..n]),
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) => panic!("{e} after {:?}", text(&self.received)),
            }
        }
        self.stream.set_nonblocking(false).unwrap();
        &self.received[self.taken..]
    }

    /// Takes what came together with what was taken, without asking the socket: the next bytes are the socket's.
    pub fn in_hand(&mut self) -> Vec<u8> {
        let part = self.take(self.received.len() - self.taken);
        self.received[part].to_vec()
    }

    /// Waits for more bytes.
    fn more(&mut self) -> Result<(), Ending> {
        let mut buf = [0; 64 * 1024];
        loop {
            match self.stream.read(&mut buf) {
                Ok(0) => return Err(Ending::Eof),
                Ok(n) => {
                    self.received.extend_from_slice(&buf[..n]);
                    return Ok(());
                }
                Err(e) => match e.kind() {
                    ErrorKind::Interrupted => {}
                    ErrorKind::ConnectionReset => return Err(Ending::Reset),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => return Err(Ending::Silence),
                    other => panic!("a connection ended with {other:?}"),
                },
            }
        }
    }

    fn take(&mut self, n: usize) -> Range<usize> {
        self.taken += n;
        self.taken - n..self.taken
    }

    /// Takes everything through the first `mark`.
    fn through(&mut self, mark: &[u8]) -> Result<Range<usize>, Ending> {
        let mut from = self.taken;
        loop {
            if let Some(at) = self.received[from..].windows(mark.len()).position(|part| part == mark) {
                return Ok(self.take(from + at + mark.len() - self.taken));
            }
            from = self.received.len().saturating_sub(mark.len() - 1).max(self.taken);
            self.more()?;
        }
    }

    /// Takes `n` bytes; how it ended when they do not come, and those that did.
    pub fn try_n(&mut self, n: usize) -> Result<Vec<u8>, (Vec<u8>, Ending)> {
        while self.received.len() - self.taken < n {
            if let Err(ending) = self.more() {
                return Err((self.in_hand(), ending));
            }
        }
        let part = self.take(n);
        Ok(self.received[part].to_vec())
    }

    /// Takes `n` bytes.
    #[track_caller]
    pub fn read_n(&mut self, n: usize) -> Vec<u8> {
        self.try_n(n).unwrap_or_else(|(part, ending)| panic!("{ending:?} after {:?}", text(&part)))
    }

    /// Everything that still comes, and how it ended.
    pub fn read_rest(&mut self) -> (Vec<u8>, Ending) {
        self.try_n(usize::MAX).expect_err("no connection goes on for ever")
    }

    /// The same, while nothing may come.
    #[track_caller]
    pub fn read_end(&mut self) -> Ending {
        let (rest, ending) = self.read_rest();
        assert!(rest.is_empty(), "bytes that nobody should have sent: {:?}", text(&rest));
        ending
    }

    /// Takes the next head; how it ended when none comes.
    #[track_caller]
    pub fn try_head(&mut self) -> Result<Message, Ending> {
        let head = self.through(b"\r\n\r\n")?;
        Ok(Message::of_head(&self.received[head]))
    }

    /// Takes the next head.
    #[track_caller]
    pub fn read_head(&mut self) -> Message {
        self.try_head().unwrap_or_else(|ending| {
            panic!("no head, {ending:?} after {:?}", text(&self.received[self.taken..]))
        })
    }

    /// Takes a request with its body; how it ended when no head comes.
    #[track_caller]
    pub fn try_request(&mut self) -> Result<Message, Ending> {
        let mut request = self.try_head()?;
        request.framing = framing(&request).unwrap_or(Framing::None);
        self.read_body(&mut request);
        Ok(request)
    }

    /// Takes a complete request.
    #[track_caller]
    pub fn read_request(&mut self) -> Message {
        let request = self.try_request().unwrap_or_else(|ending| panic!("no request: {ending:?}"));
        assert_eq!(request.cut, None, "{request:?}");
        request
    }

    /// Takes the response to a request with this method; how it ended when no head comes.
    #[track_caller]
    pub fn try_response(&mut self, method: &str) -> Result<Message, Ending> {
        let mut response = self.try_head()?;
        let bodiless = method == "HEAD" || matches!(response.status(), 100..200 | 204 | 304);
        response.framing =
            if bodiless { Framing::None } else { framing(&response).unwrap_or(Framing::UntilClose) };
        self.read_body(&mut response);
        Ok(response)
    }

    /// Takes a complete response.
    #[track_caller]
    pub fn read_response(&mut self, method: &str) -> Message {
        let response = self.try_response(method).unwrap_or_else(|ending| {
            panic!("no response to {method}: {ending:?} after {:?}", text(&self.received[self.taken..]))
        });
        assert_eq!(response.cut, None, "{response:?}");
        response
    }

    /// Takes a refusal of the proxy's own after which the connection goes on.
    #[track_caller]
    pub fn read_open_refusal(&mut self) -> Answer {
        let response = self.read_response("GET");
        let raw = [response.raw.as_bytes(), &response.body].concat();
        Answer::parse_saying("keep-alive", &raw).unwrap_or_else(|wrong| panic!("{wrong}"))
    }

    /// Takes a refusal of the proxy's own, and the end behind it.
    #[track_caller]
    pub fn read_last_refusal(&mut self) -> Answer {
        let (raw, ending) = self.read_rest();
        assert_eq!(ending, Ending::Eof, "after {:?}", text(&raw));
        Answer::parse(&raw).unwrap_or_else(|wrong| panic!("{wrong}"))
    }

    /// Reads the body that the framing promises into the message.
    #[track_caller]
    pub fn read_body(&mut self, message: &mut Message) {
        match message.framing {
            Framing::None => {}
            Framing::Length => {
                let length = message.field("content-length").unwrap().parse().expect("a length");
                match self.try_n(length) {
                    Ok(body) => message.body = body,
                    Err((part, ending)) => (message.body, message.cut) = (part, Some(ending)),
                }
            }
            Framing::Chunked => {
                if let Err(ending) = self.read_chunks(message) {
                    message.cut = Some(ending);
                }
            }
            Framing::UntilClose => {
                let (body, ending) = self.read_rest();
                message.body = body;
                message.cut = (ending != Ending::Eof).then_some(ending);
            }
        }
    }

    /// Chunks as we would write them ourselves: plain size, no extension.
    #[track_caller]
    fn read_chunks(&mut self, message: &mut Message) -> Result<(), Ending> {
        loop {
            let line = self.through(b"\r\n")?;
            let line = String::from_utf8_lossy(&self.received[line]).into_owned();
            let size = line.trim_end_matches("\r\n");
            let plain = !size.is_empty() && size.bytes().all(|byte| byte.is_ascii_hexdigit());
            assert!(plain, "no plain chunk size: {line:?} in {:?}", message.raw);
            let size = usize::from_str_radix(size, 16).unwrap();
            if size == 0 {
                break;
            }
            match self.try_n(size) {
                Ok(data) => message.body.extend_from_slice(&data),
                Err((part, ending)) => {
                    message.body.extend_from_slice(&part);
                    return Err(ending);
                }
            }
            let end = self.through(b"\r\n")?;
            assert_eq!(end.len(), 2, "a chunk longer than its size in {:?}", message.raw);
        }
        loop {
            let line = self.through(b"\r\n")?;
            if line.len() == 2 {
                return Ok(());
            }
            let line = String::from_utf8_lossy(&self.received[line]).into_owned();
            message.trailers.push(field(line.trim_end_matches("\r\n")));
        }
    }
}

impl From<TcpStream> for Wire {
    fn from(stream: TcpStream) -> Wire {
        let Client { stream, local } = Client::from(stream);
        Wire { stream, local, received: vec![], taken: 0 }
    }
}

/// A request head with the Host that belongs to `url` (absolute or in origin form), and `fields`, each with its CRLF.
pub fn request(method: &str, url: &str, fields: &str) -> String {
    let host = match url.split_once("://") {
        Some((_, rest)) => rest.split(['/', '?']).next().unwrap(),
        None => "direct.test",
    };
    format!("{method} {url} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n")
}

/// A 200 with this body.
pub fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// As the fields say, if they say anything.
#[track_caller]
fn framing(message: &Message) -> Option<Framing> {
    match (message.field("transfer-encoding"), message.field("content-length")) {
        (None, None) => None,
        (None, Some(_)) => Some(Framing::Length),
        (Some("chunked"), None) => Some(Framing::Chunked),
        wrong => panic!("framing in question: {wrong:?} in {:?}", message.raw),
    }
}

fn text(raw: &[u8]) -> String {
    String::from_utf8_lossy(&raw[raw.len().saturating_sub(4096)..]).into_owned()
}
