//! What the resolver wants done with sockets, and what becomes of them.

use std::io::ErrorKind;
use std::net::SocketAddr;

use super::MAX_LOOKUPS;
use crate::proto::lookup::SLOTS;

/// One socket of one lookup. The number is small and is used again; it serves as the socket's token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Exchange(usize);

impl Exchange {
    /// Every exchange number is below this.
    pub const COUNT: usize = MAX_LOOKUPS * SLOTS;

    /// The number of this exchange.
    #[must_use]
    pub fn index(self) -> usize {
        self.0
    }

    /// The exchange with that number.
    #[must_use]
    pub fn from_index(index: usize) -> Exchange {
        Exchange(index)
    }

    pub(super) fn new(lookup: usize, slot: usize) -> Exchange {
        Exchange(lookup * SLOTS + slot)
    }

    pub(super) fn lookup(self) -> usize {
        self.0 / SLOTS
    }

    pub(super) fn slot(self) -> usize {
        self.0 % SLOTS
    }
}

/// What the resolver wants done with sockets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Open a fresh UDP socket on a port of the kernel's choice, connect it, and send each message.
    OpenUdp {
        /// The socket's number.
        exchange: Exchange,
        /// The only address whose datagrams count.
        server: SocketAddr,
        /// One datagram each.
        messages: Vec<Vec<u8>>,
    },
    /// Send one more datagram from an open socket.
    SendUdp {
        /// The socket's number.
        exchange: Exchange,
        /// The datagram.
        message: Vec<u8>,
    },
    /// Connect over TCP and send the message behind its length (RFC 1035 4.2.2).
    OpenTcp {
        /// The socket's number.
        exchange: Exchange,
        /// Where to.
        server: SocketAddr,
        /// Without the length.
        message: Vec<u8>,
    },
    /// Close the socket, if there is one.
    Close {
        /// The socket's number.
        exchange: Exchange,
    },
}

/// Why a socket is of no more use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketFault {
    /// The server or the way to it: refused, unreachable, closed early, not DNS.
    Server(ErrorKind),
    /// No descriptor or no memory was to be had here; no server is to blame.
    Local(ErrorKind),
}
