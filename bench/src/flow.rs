//! Moving bulk bytes as cheaply as the kernel allows, so that the proxy and not this program is measured.

use mio::net::TcpStream;
use rustix::net::RecvFlags;
use std::io::{self, ErrorKind, Write};

/// How much one turn may move before others get theirs.
const TURN_BYTES: usize = 1 << 20;

/// One system call's worth of zeros to send, and of room to receive.
pub struct Buffers {
    zeros: Vec<u8>,
    room: Vec<u8>,
}

/// Why a turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The kernel has no more for us; an event will tell.
    Blocked,
    /// The turn is used up; more can be done at once.
    More,
    /// The peer has ended its direction.
    Eof,
}

impl Buffers {
    pub fn new() -> Buffers {
        Buffers { zeros: vec![0; 256 << 10], room: vec![0; TURN_BYTES] }
    }

    /// Takes bytes off the socket and forgets them. Returns how many.
    ///
    /// `MSG_TRUNC` on TCP drops them inside the kernel: no copy (tcp(7)). A short read is taken as "drained": the end
    /// of file that may stand behind it is announced by the event, not found out here.
    pub fn discard(&mut self, stream: &TcpStream) -> io::Result<(usize, Turn)> {
        match rustix::net::recv(stream, &mut self.room[..], RecvFlags::TRUNC).map_err(io::Error::from) {
            Ok((_, 0)) => Ok((0, Turn::Eof)),
            Ok((_, bytes)) if bytes < self.room.len() => Ok((bytes, Turn::Blocked)),
            Ok((_, bytes)) => Ok((bytes, Turn::More)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok((0, Turn::Blocked)),
            Err(error) => Err(error),
        }
    }

    /// Sends zeros. Returns how many bytes the kernel took.
    pub fn pour(&self, stream: &mut TcpStream) -> io::Result<(usize, Turn)> {
        let mut bytes = 0;
        while bytes < TURN_BYTES {
            match stream.write(&self.zeros) {
                Ok(taken) if taken < self.zeros.len() => return Ok((bytes + taken, Turn::Blocked)),
                Ok(taken) => bytes += taken,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok((bytes, Turn::Blocked)),
                Err(error) => return Err(error),
            }
        }
        Ok((bytes, Turn::More))
    }
}
