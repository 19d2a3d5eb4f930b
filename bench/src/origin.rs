//! The origin: one port, and the first byte of a connection says what it is for.
//! `e` echo everything, `d` send for ever (down), `u` swallow everything (up), `b` both at once.

use crate::flow::{Buffers, Turn};
use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

/// The first bytes of a connection: what the origin is to do with it.
pub const ECHO: u8 = b'e';
pub const DOWN: u8 = b'd';
pub const UP: u8 = b'u';
pub const BOTH: u8 = b'b';

const LISTENER: Token = Token(usize::MAX);

/// Serves until it is killed. Says on stderr where it listens.
pub fn run(listen: SocketAddr) -> io::Result<()> {
    let mut poll = Poll::new()?;
    let mut listener = TcpListener::bind(listen)?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    eprintln!("listening on {}", listener.local_addr()?);
    let mut events = Events::with_capacity(1024);
    let mut origin =
        Origin { conns: Vec::new(), free: Vec::new(), buffers: Buffers::new(), echo: vec![0; 64 << 10] };
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
    /// Echo that the kernel has not taken yet.
    pending: Vec<u8>,
    /// The peer's end of file was announced: it may stand right behind the data.
    read_closed: bool,
    /// Already in the queue of this turn.
    queued: bool,
}

struct Origin {
    conns: Vec<Option<Conn>>,
    free: Vec<usize>,
    buffers: Buffers,
    echo: Vec<u8>,
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
            let conn = Conn { stream, role: None, pending: Vec::new(), read_closed: false, queued: false };
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
            Some(DOWN) => conn.send(&self.buffers),
            Some(BOTH) => conn.both(&mut self.buffers),
            None | Some(_) => conn.echo(&mut self.echo),
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
    /// Also reads the first bytes of every connection: these are never echoed for the bulk roles.
    fn echo(&mut self, buffer: &mut [u8]) -> io::Result<Turn> {
        loop {
            while !self.pending.is_empty() {
                match self.stream.write(&self.pending) {
                    Ok(taken) => drop(self.pending.drain(..taken)),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Turn::Blocked),
                    Err(error) => return Err(error),
                }
            }
            let count = match self.stream.read(buffer) {
                Ok(0) => return Ok(Turn::Eof),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Turn::Blocked),
                Err(error) => return Err(error),
            };
            if *self.role.get_or_insert(buffer[0]) != ECHO {
                return Ok(Turn::More);
            }
            match self.stream.write(&buffer[..count]) {
                Ok(taken) => self.pending.extend_from_slice(&buffer[taken..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.pending.extend_from_slice(&buffer[..count])
                }
                Err(error) => return Err(error),
            }
            if count < buffer.len() && self.pending.is_empty() && !self.read_closed {
                return Ok(Turn::Blocked);
            }
        }
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
