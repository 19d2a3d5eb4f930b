//! Connecting to an upstream without waiting for it.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};

use mio::net::TcpStream;
use mio::{Registry, Token};
use rustix::io::Errno;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::config::Sources;
use crate::proto::failure::Failure;
use crate::proto::relay::Ready;
use crate::proto::rules::Rules;
use crate::proto::session::Outcome;

use super::stream::{self, failure};

/// Starts connecting to `address` and registers the socket, for both interests and for good. Registration comes after
/// `connect`: readiness that is already there is then announced (kernel fact `registration_reports_current_readiness`),
/// and a socket that is not connecting yet would announce a hang-up. Without rules, no address is known to be ours.
pub fn start(
    address: SocketAddr,
    token: impl FnOnce(RawFd) -> Token,
    registry: &Registry,
    rules: Option<&Rules>,
    sources: &Sources,
) -> Result<TcpStream, Failure> {
    if rules.is_some_and(|rules| rules.may_be_own_listener(address)) && is_local(address.ip()) {
        return Err(Failure::OwnListener);
    }
    connect(address, token, registry, sources).map_err(|error| failure(&error))
}

/// Whether the attempt of which events have `said` that it is over has succeeded. If they said that it can be written to and
/// nothing else, it has (kernel facts `connected_is_writable_and_nothing_else` and
/// `refused_connect_is_writable_with_error_and_has_no_peer`), and asking would be a system call for every connection. Else, as
/// with an upstream that speaks first, a peer's address is the proof (kernel fact `connect_pending_has_no_peer`); without one,
/// the pending error tells why, and with neither the attempt goes on.
pub fn confirm(stream: &TcpStream, said: Ready) -> Outcome {
    if said == (Ready { writable: true, ..Ready::default() }) {
        return Outcome::Done;
    }
    match stream.peer_addr() {
        Ok(_) => Outcome::Done,
        Err(_) => match stream.take_error() {
            Ok(None) => Outcome::Blocked,
            Ok(Some(error)) | Err(error) => Outcome::Failed(failure(&error)),
        },
    }
}

fn connect(
    address: SocketAddr,
    token: impl FnOnce(RawFd) -> Token,
    registry: &Registry,
    sources: &Sources,
) -> io::Result<TcpStream> {
    let mut stream = match sources.towards(address.ip()) {
        None => TcpStream::connect(address)?,
        Some(source) => connect_from(source, address)?,
    };
    // A relay passes on what comes as it comes; Nagle's algorithm would hold back every second small message. The
    // client's side inherits the option from the listener.
    stream.set_nodelay(true)?;
    // Urgent data is part of the stream: without this the kernel takes its byte out.
    SockRef::from(&stream).set_out_of_band_inline(true)?;
    let token = token(stream.as_raw_fd());
    registry.register(&mut stream, token, stream::interests())?;
    Ok(stream)
}

fn connect_from(source: IpAddr, address: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.bind(&SocketAddr::new(source, 0).into())?;
    match socket.connect(&address.into()) {
        Err(error) if Errno::from_io_error(&error) != Some(Errno::INPROGRESS) => Err(error),
        Err(_) | Ok(()) => Ok(TcpStream::from_std(socket.into())),
    }
}

/// Whether `address` is one of this machine's: exactly those can be bound to. Asked only for a port that we listen on.
fn is_local(address: IpAddr) -> bool {
    address.is_unspecified() || UdpSocket::bind((address, 0)).is_ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_writable_and_nothing_else_is_not_asked() {
        // Bound, so that nobody else gets the port, and not listening: every attempt has failed, which asking tells.
        let nobody = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        nobody.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let to = nobody.local_addr().unwrap().as_socket().unwrap();
        let confirmed = |said| confirm(&TcpStream::connect(to).unwrap(), said);
        let writable = Ready { writable: true, ..Ready::default() };
        assert_eq!(confirmed(writable), Outcome::Done);
        let asked = [
            Ready::default(),
            Ready { readable: true, ..writable },
            Ready { read_closed: true, ..writable },
            Ready { urgent: true, ..writable },
            Ready { error: true, ..writable },
        ];
        for said in asked {
            assert_eq!(confirmed(said), Outcome::Failed(Failure::Refused), "{said:?}");
        }
    }
}
