//! Listening: one socket per address and loop, all loops on the same port by `SO_REUSEPORT`.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use mio::net::{TcpListener, TcpStream};
use socket2::{Domain, Protocol, SockFilter, SockRef, Socket, Type};

use crate::proto::failure::Failure;

use super::stream::{ask_whether_alive, failure};

/// Connections that the kernel may hold for one listener before they are accepted; `net.core.somaxconn` bounds it too.
const BACKLOG: i32 = 4096;

/// Opens a listener. With port 0 the kernel picks one: see [`TcpListener::local_addr`].
///
/// Options set here are inherited by every accepted connection (kernel facts `nodelay_is_inherited_from_listener`,
/// `keepalive_is_inherited_from_listener`), which saves a system call for each.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // `[::]` serves both families, a certain address only its own.
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_tcp_nodelay(true)?;
    // Urgent data is part of the stream: without this the kernel takes its byte out.
    socket.set_out_of_band_inline(true)?;
    ask_whether_alive(&socket)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(TcpListener::from_std(socket.into()))
}

/// From now on no handshake begins here, and those that have begun can be ended (kernel fact
/// `a_filter_keeps_new_handshakes_from_a_listener`). The kernel ties a handshake to the listener that got its SYN: when that closes
/// before the last ACK is there, a client that takes its connection for made is reset. A SYN that is dropped is sent again
/// after a second, and then is for who listens on the port by then.
pub fn begin_no_more(listener: &TcpListener) {
    // Classic BPF on what begins with the TCP header: flags, of these SYN and ACK, is it SYN alone?
    let no_syn = [
        SockFilter::new(0x30, 0, 0, 13),
        SockFilter::new(0x54, 0, 0, 0x12),
        SockFilter::new(0x15, 0, 1, 0x02),
        SockFilter::new(0x06, 0, 0, 0),
        SockFilter::new(0x06, 0, 0, u32::MAX),
    ];
    if let Err(error) = SockRef::from(listener).attach_filter(&no_syn) {
        log::debug!("a handshake may be cut off by the end of its listener: {error}");
    }
}

/// Whether another process listens on `address` and lets us share it. Meant for replacing a running proxy by a new one
/// without losing a connection; a forgotten old one would take half of the clients without a word.
pub fn is_shared(address: SocketAddr) -> bool {
    let probe = || -> io::Result<()> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        if address.is_ipv6() {
            socket.set_only_v6(!address.ip().is_unspecified())?;
        }
        // Without SO_REUSEPORT, a bind beside a listener fails; connections that linger from earlier do not matter.
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())
    };
    probe().is_err_and(|error| error.kind() == ErrorKind::AddrInUse)
}

/// Whether listening failed because the machine does not have the address (yet).
pub fn is_not_here(error: &io::Error) -> bool {
    error.kind() == ErrorKind::AddrNotAvailable
}

/// What `accept` gave.
#[derive(Debug)]
pub enum Accepted {
    /// A connection and its client; an IPv4 client of a dual-stack listener has its IPv4 address.
    Connection(TcpStream, SocketAddr),
    /// The connection was gone before we came to it. The next may be there.
    Gone,
    /// None left.
    Empty,
    /// No descriptor or memory for a connection: those in the queue stay there.
    Exhausted(io::Error),
}

/// Takes one connection from the queue.
pub fn accept(listener: &TcpListener) -> Accepted {
    match listener.accept() {
        Ok((stream, client)) => {
            Accepted::Connection(stream, SocketAddr::new(client.ip().to_canonical(), client.port()))
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => Accepted::Empty,
        Err(error) => match failure(&error) {
            Failure::NoDescriptors | Failure::NoResources => Accepted::Exhausted(error),
            // accept(2): errors of the new connection itself are reported here, and a packet filter's "no" as EPERM.
            Failure::Refused
            | Failure::Unreachable
            | Failure::TimedOut
            | Failure::Reset
            | Failure::BrokenPipe
            | Failure::Forbidden
            | Failure::OwnListener
            | Failure::Other(_) => Accepted::Gone,
        },
    }
}
