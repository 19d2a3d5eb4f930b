//! A raw client: sends exactly what a test says and reads exactly as far as it is asked to.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use super::{DEADLINE, Ending};

/// One connection of the client side.
pub struct Client {
    /// The socket, for what has no method here.
    pub stream: TcpStream,
    /// Its own address, which is its name in the access line.
    pub local: SocketAddr,
}

/// An answer of the proxy's own, head and body, taken apart.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status line and fields.
    pub head: Head,
    /// All of it, as `Content-Length` says.
    pub body: String,
    /// Error type of `Proxy-Status`.
    pub error: String,
    /// `rcode` of `Proxy-Status`.
    pub rcode: Option<String>,
    /// `details` of `Proxy-Status`.
    pub details: String,
}

impl Answer {
    /// Takes a refusal that closes apart; says what is wrong with it as an answer.
    pub fn parse(raw: &[u8]) -> Result<Answer, String> {
        Answer::parse_saying("close", raw)
    }

    /// The same for one whose `Connection` says this.
    pub fn parse_saying(connection: &str, raw: &[u8]) -> Result<Answer, String> {
        let end = raw
            .windows(4)
            .position(|part| part == b"\r\n\r\n")
            .ok_or_else(|| format!("no head: {:?}", text(raw)))?;
        let head = Head::parse(&raw[..end + 4]);
        let need = |name: &str| {
            head.header(name).map(String::from).ok_or_else(|| format!("no {name}: {:?}", head.raw))
        };
        let body = text(&raw[end + 4..]);
        let length = need("content-length")?;
        if length != body.len().to_string() {
            return Err(format!("Content-Length {length} and {} bytes of body: {:?}", body.len(), text(raw)));
        }
        let kind = need("content-type")?;
        if !kind.starts_with("text/plain") {
            return Err(format!("Content-Type {kind}"));
        }
        if need("connection")? != connection {
            return Err(format!("a refusal must say {connection:?} where it is so: {:?}", head.raw));
        }
        let status = need("proxy-status")?;
        let (by, parameters) = status.split_once("; ").ok_or_else(|| format!("Proxy-Status {status:?}"))?;
        if by != "adit" {
            return Err(format!("Proxy-Status by {by:?}"));
        }
        let parameter = |name: &str| parameter(parameters, name);
        let error = parameter("error").ok_or_else(|| format!("no error type: {status:?}"))?;
        let details = parameter("details").ok_or_else(|| format!("no details: {status:?}"))?;
        if !body.contains(&details) {
            return Err(format!("the body does not say the same as {details:?}: {body:?}"));
        }
        Ok(Answer { rcode: parameter("rcode"), error, details, body, head })
    }
}

/// A parameter of a structured field item: a token, or a string in quotes (RFC 8941 3.1.2).
fn parameter(mut text: &str, name: &str) -> Option<String> {
    loop {
        let (key, rest) = text.split_once('=')?;
        let (value, rest) = match rest.strip_prefix('"') {
            None => rest.split_once("; ").unwrap_or((rest, "")),
            Some(quoted) => {
                let end = (0..quoted.len()).find(|&at| {
                    quoted.as_bytes()[at] == b'"' && (at == 0 || quoted.as_bytes()[at - 1] != b'\\')
                })?;
                (&quoted[..end], quoted[end + 1..].strip_prefix("; ").unwrap_or(""))
            }
        };
        if key == name {
            return Some(value.replace("\\\"", "\"").replace("\\\\", "\\"));
        }
        text = rest;
    }
}

/// A response head.
#[derive(Clone, Debug)]
pub struct Head {
    /// As it came, with the empty line.
    pub raw: String,
    /// `HTTP/1.1`.
    pub version: String,
    /// Three digits.
    pub status: u16,
    /// What a person reads.
    pub reason: String,
    /// Names in lower case, values trimmed.
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// Parses a complete head; panics on anything that is not one, byte for byte.
    #[track_caller]
    pub fn parse(raw: &[u8]) -> Head {
        let raw = String::from_utf8(raw.to_vec()).expect("a head is ASCII");
        let text = raw.strip_suffix("\r\n\r\n").expect("a head ends with an empty line");
        assert!(!text.replace("\r\n", "").contains(['\r', '\n']), "bare CR or LF in {raw:?}");
        let mut lines = text.split("\r\n");
        let mut start = lines.next().unwrap().splitn(3, ' ');
        let version = start.next().unwrap().to_string();
        assert!(version.starts_with("HTTP/1."), "no status line: {raw:?}");
        let status: u16 = start.next().expect("a status").parse().expect("a number as status");
        let reason = start.next().expect("a reason phrase").to_string();
        let mut headers = Vec::new();
        for line in lines {
            let (name, value) = line.split_once(':').expect("a colon in every header");
            headers.push((name.to_ascii_lowercase(), value.trim().to_string()));
        }
        Head { raw, version, status, reason, headers }
    }

    /// The one value of this field; panics when there are several.
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str());
        let first = found.next();
        assert!(found.next().is_none(), "{name} twice in {:?}", self.raw);
        first
    }
}

impl Client {
    /// A connection to `addr`, on which no read or write waits longer than the deadline.
    #[track_caller]
    pub fn dial(addr: SocketAddr) -> Client {
        let stream = TcpStream::connect_timeout(&addr, DEADLINE).expect("connects");
        Client::from(stream)
    }

    /// Sends all of it.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("sends");
    }

    /// Sends `CONNECT target HTTP/1.1` with a Host.
    #[track_caller]
    pub fn send_connect(&mut self, target: &str) {
        self.send(connect_head(target));
    }

    /// Reads a head and not one byte more.
    #[track_caller]
    pub fn read_head(&mut self) -> Head {
        let mut raw = Vec::new();
        let mut byte = [0];
        while !raw.ends_with(b"\r\n\r\n") {
            // Not `read`: with a timeout it is interrupted when the process was stopped and goes on (signal(7)).
            self.stream.read_exact(&mut byte).unwrap_or_else(|e| panic!("{e} after {:?}", text(&raw)));
            raw.push(byte[0]);
            assert!(raw.len() < 64 * 1024, "no end of the head");
        }
        Head::parse(&raw)
    }

    /// Reads to the end of file and takes what came for one refusal.
    #[track_caller]
    pub fn read_refusal(&mut self) -> Answer {
        let (raw, ending) = self.read_rest();
        assert_eq!(ending, Ending::Eof, "after {:?}", text(&raw));
        Answer::parse(&raw).unwrap_or_else(|wrong| panic!("{wrong}"))
    }

    /// Reads exactly `n` bytes.
    #[track_caller]
    pub fn read_n(&mut self, n: usize) -> Vec<u8> {
        let mut buf = vec![0; n];
        self.stream.read_exact(&mut buf).expect("as many bytes as promised");
        buf
    }

    /// Sends `bytes` and expects the same back.
    #[track_caller]
    pub fn echo(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        self.send(bytes);
        assert_eq!(self.read_n(bytes.len()), bytes, "what comes back is what was sent");
    }

    /// Half-closes: no more bytes from here.
    #[track_caller]
    pub fn finish(&mut self) {
        self.stream.shutdown(Shutdown::Write).expect("shuts down writing");
    }

    /// Everything that still comes, and how it ended.
    pub fn read_rest(&mut self) -> (Vec<u8>, Ending) {
        let mut all = Vec::new();
        let ending = drain(&mut self.stream, |part| all.extend_from_slice(part));
        (all, ending)
    }

    /// Leaves with a RST.
    pub fn reset(self) {
        reset(self.stream);
    }
}

impl From<TcpStream> for Client {
    fn from(stream: TcpStream) -> Client {
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let local = stream.local_addr().unwrap();
        Client { stream, local }
    }
}

/// A plain CONNECT head for `target`.
pub fn connect_head(target: &str) -> String {
    format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n")
}

/// Closes with a RST: a lingering time of zero throws the send queue away (`kernel_facts::linger_zero_close_sends_a_reset`).
pub fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    drop(stream);
}

/// Reads until the connection ends, handing on every part.
pub fn drain(stream: &mut TcpStream, mut part: impl FnMut(&[u8])) -> Ending {
    let mut buf = vec![0; 64 * 1024];
    loop {
        match stream.read(&mut buf) {
            Ok(0) => return Ending::Eof,
            Ok(n) => part(&buf[..n]),
            Err(e) => match e.kind() {
                ErrorKind::Interrupted => {}
                ErrorKind::ConnectionReset => return Ending::Reset,
                ErrorKind::WouldBlock | ErrorKind::TimedOut => return Ending::Silence,
                other => panic!("a connection ended with {other:?}"),
            },
        }
    }
}

fn text(raw: &[u8]) -> String {
    String::from_utf8_lossy(raw).into_owned()
}
