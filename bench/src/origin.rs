//! The origin: one port, and the first byte of a connection says what it is for.
//! `e` echo everything, `d` send for ever (down), `s` the same to slow readers, `u` swallow everything (up), `b` both at once,
//! `G` answer HTTP requests.

use crate::flow::{Buffers, Turn};
use crate::http::{After, Responses};
use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use rustix::net::sockopt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

/// The first bytes of a connection: what the origin is to do with it.
pub const ECHO: u8 = b'e';
pub const DOWN: u8 = b'd';
/// As `DOWN`, with little room in the kernel: on a machine that is client, proxy and origin in one, thousands of full send
/// buffers would use up what the kernel has for all of TCP, and that would be measured.
pub const SLOW: u8 = b's';
pub const UP: u8 = b'u';
pub const BOTH: u8 = b'b';
/// Nobody has to say this: `GET` begins with it.
const HTTP: u8 = b'G';

/// What the kernel may hold for a slow reader; it doubles this.
const SLOW_SEND_BYTES: usize = 32 << 10;

const LISTENER: Token = Token(usize::MAX);

/// Serves until it is killed. Says on stderr where it listens.
pub fn run(listen: SocketAddr) -> io::Result<()> {
    let mut poll = Poll::new()?;
    let mut listener = TcpListener::bind(listen)?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    eprintln!("listening on {}", listener.local_addr()?);
    let mut events = Events::with_capacity(1024);
    let mut origin = Origin {
        conns: Vec::new(),
        free: Vec::new(),
        buffers: Buffers::new(),
        room: vec![0; 64 << 10],
        responses: Responses::new(),
    };
    let mut runnable: Vec<usize> = Vec::new();
    loop {
        let timeout = if runnable.is_empty() { None } else { Some(Duration::ZERO) };
        match poll.poll(&mut events, timeout) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            result => result?,
        }
        let mut queue = std::mem::take(&mut runnable);
        for event in &events {
            if event.token() == LISTENER {
                origin.accept(&listener, &poll)?;
            } else if origin.note(event) {
                queue.push(event.token().0);
            }
        }
        let mut ended = Vec::new();
        for key in queue {
            match origin.serve(key) {
                Ok(Turn::More) => runnable.push(key),
                Ok(Turn::Blocked) => {}
                Ok(Turn::Eof) | Err(_) => ended.push(key),
            }
        }
        for key in ended {
            origin.close(key);
        }
    }
}

struct Conn {
    stream: TcpStream,
    /// `None` until the first byte has come.
    role: Option<u8>,
    /// Echo or responses that the kernel has not taken yet.
    pending: Vec<u8>,
    /// The beginning of an HTTP request whose end has not come.
    request: Vec<u8>,
    /// An HTTP request has asked for the end of the connection: once nothing is pending.
    closing: bool,
    /// The peer's end of file was announced: it may stand right behind the data.
    read_closed: bool,
    /// Already in the queue of this turn.
    queued: bool,
}

struct Origin {
    conns: Vec<Option<Conn>>,
    free: Vec<usize>,
    buffers: Buffers,
    /// Where small messages and requests are read into.
    room: Vec<u8>,
    responses: Responses,
}

impl Origin {
    fn accept(&mut self, listener: &TcpListener, poll: &Poll) -> io::Result<()> {
        loop {
            let mut stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                // A peer that left the queue again is no reason to stop.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            };
            let key = self.free.pop().unwrap_or_else(|| {
                self.conns.push(None);
                self.conns.len() - 1
            });
            poll.registry().register(&mut stream, Token(key), Interest::READABLE | Interest::WRITABLE)?;
            let conn = Conn {
                stream,
                role: None,
                pending: Vec::new(),
                request: Vec::new(),
                closing: false,
                read_closed: false,
                queued: false,
            };
            self.conns[key] = Some(conn);
        }
    }

    /// Keeps what the event says; true if the connection must be put in the queue.
    fn note(&mut self, event: &Event) -> bool {
        let Some(conn) = &mut self.conns[event.token().0] else { return false };
        conn.read_closed |= event.is_read_closed();
        !std::mem::replace(&mut conn.queued, true)
    }

    fn serve(&mut self, key: usize) -> io::Result<Turn> {
        let Some(conn) = &mut self.conns[key] else { return Ok(Turn::Blocked) };
        conn.queued = false;
        let turn = match conn.role {
            Some(UP) => conn.swallow(&mut self.buffers),
            Some(DOWN | SLOW) => conn.send(&self.buffers),
            Some(BOTH) => conn.both(&mut self.buffers),
            None | Some(_) => conn.small(&mut self.room, &self.responses),
        }?;
        conn.queued = turn == Turn::More;
        Ok(turn)
    }

    fn close(&mut self, key: usize) {
        self.conns[key] = None;
        self.free.push(key);
    }
}

impl Conn {
    /// Echo and HTTP. Also reads the first bytes of every connection: these are never echoed for the bulk roles.
    fn small(&mut self, room: &mut [u8], responses: &Responses) -> io::Result<Turn> {
        loop {
            while !self.pending.is_empty() {
                match self.stream.write(&self.pending) {
                    Ok(taken) => drop(self.pending.drain(..taken)),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Turn::Blocked),
                    Err(error) => return Err(error),
                }
            }
            if self.closing {
                return Ok(Turn::Eof);
            }
            let count = match self.stream.read(room) {
                Ok(0) => return Ok(Turn::Eof),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Turn::Blocked),
                Err(error) => return Err(error),
            };
            match *self.role.get_or_insert(room[0]) {
                ECHO => self.send_or_keep(&room[..count])?,
                HTTP => self.requests(&room[..count], responses)?,
                SLOW => {
                    sockopt::set_socket_send_buffer_size(&self.stream, SLOW_SEND_BYTES)?;
                    return Ok(Turn::More);
                }
                _ => return Ok(Turn::More),
            }
            if count < room.len() && self.pending.is_empty() && !self.read_closed && !self.closing {
                return Ok(Turn::Blocked);
            }
        }
    }

    /// Sends at once what the kernel takes, and keeps the rest.
    fn send_or_keep(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        if self.pending.is_empty() {
            match self.stream.write(bytes) {
                Ok(taken) => rest = &bytes[taken..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        self.pending.extend_from_slice(rest);
        Ok(())
    }

    /// Answers each request that is complete with these bytes.
    fn requests(&mut self, bytes: &[u8], responses: &Responses) -> io::Result<()> {
        let mut earlier = std::mem::take(&mut self.request);
        let mut rest = bytes;
        if !earlier.is_empty() {
            earlier.extend_from_slice(bytes);
            rest = &earlier;
        }
        while let Some(end) = rest.windows(4).position(|four| four == b"\r\n\r\n") {
            let (response, after) = responses.answer(&rest[..end + 2]);
            self.send_or_keep(response)?;
            self.closing |= after == After::Close;
            rest = &rest[end + 4..];
        }
        self.request = rest.to_vec();
        Ok(())
    }

    fn swallow(&mut self, buffers: &mut Buffers) -> io::Result<Turn> {
        match buffers.discard(&self.stream)? {
            // The end may stand right behind the data.
            (bytes, Turn::Blocked) if bytes > 0 && self.read_closed => Ok(Turn::More),
            (_, turn) => Ok(turn),
        }
    }

    fn send(&mut self, buffers: &Buffers) -> io::Result<Turn> {
        if self.read_closed {
            return Ok(Turn::Eof);
        }
        Ok(buffers.pour(&mut self.stream)?.1)
    }

    fn both(&mut self, buffers: &mut Buffers) -> io::Result<Turn> {
        let read = self.swallow(buffers)?;
        if read == Turn::Eof {
            return Ok(Turn::Eof);
        }
        let written = buffers.pour(&mut self.stream)?.1;
        Ok(if read == Turn::More || written == Turn::More { Turn::More } else { Turn::Blocked })
    }
}
