//! Reading, writing and ending connected sockets, and the one translation of `errno` into a [`Failure`].

use std::io::{self, ErrorKind, Read, Write};
use std::time::Duration;

use mio::Interest;
use mio::net::TcpStream;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use socket2::{SockRef, TcpKeepalive};

use crate::proto::failure::Failure;
use crate::proto::relay::Ready;
use crate::proto::session::{Follows, Outcome};

/// Asks a peer that has said nothing for a minute whether it is still there, and gives it up after another one without an
/// answer: no end would ever come from a machine that is gone. (`TCP_USER_TIMEOUT` is not for us: it also ends a peer that is
/// there and merely takes nothing, kernel fact `user_timeout_ends_a_peer_that_only_pauses`, which `--idle-timeout` is for.)
pub fn ask_whether_alive<'s>(socket: impl Into<SockRef<'s>>) -> io::Result<()> {
    let question = TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(15))
        .with_retries(4);
    socket.into().set_tcp_keepalive(&question)
}

/// What every connection is watched for, registered once and for good.
pub fn interests() -> Interest {
    Interest::READABLE | Interest::WRITABLE | Interest::PRIORITY
}

/// One `read` into `space`, which must not be empty: nothing read would be taken for the end.
pub fn read(stream: &mut TcpStream, space: &mut [u8]) -> Outcome {
    debug_assert!(!space.is_empty());
    retry(|| stream.read(space), |count| if count == 0 { Outcome::Eof } else { Outcome::Moved(count) })
}

/// What a read would meet, without reading: `Done` if there are bytes. For when there is nowhere to put them.
pub fn peek(stream: &TcpStream) -> Outcome {
    retry(|| stream.peek(&mut [0; 1]), |count| if count == 0 { Outcome::Eof } else { Outcome::Done })
}

/// What a read would put into `space`, which stays where it is.
pub fn look(stream: &TcpStream, space: &mut [u8]) -> Outcome {
    debug_assert!(!space.is_empty());
    retry(|| stream.peek(space), |count| if count == 0 { Outcome::Eof } else { Outcome::Moved(count) })
}

/// Takes as many bytes as `seen` has, which have been looked at. They are not copied once more (kernel fact
/// `what_was_looked_at_is_taken_without_a_copy`).
pub fn take(stream: &TcpStream, seen: &mut [u8]) -> Outcome {
    let mut taken = 0;
    while taken < seen.len() {
        let rest = &mut seen[taken..];
        match retry(|| Ok(rustix::net::recv(stream, &mut *rest, RecvFlags::TRUNC)?.1), Outcome::Moved) {
            Outcome::Moved(count) if count > 0 => taken += count,
            // They were there, and nobody else reads here. If it were so, they would be passed on twice.
            outcome => {
                debug_assert!(false, "{outcome:?} in place of what was seen");
                return Outcome::Failed(Failure::Reset);
            }
        }
    }
    Outcome::Moved(taken)
}

/// One `write` of as much of `bytes` as the socket takes. If the end follows at once, the last of them leave with it, in one
/// segment (kernel fact `the_end_takes_bytes_with_it`).
pub fn write(stream: &mut TcpStream, bytes: &[u8], follows: Follows) -> Outcome {
    match follows {
        Follows::Anything => retry(|| stream.write(bytes), Outcome::Moved),
        Follows::End => {
            let flags = SendFlags::MORE | SendFlags::NOSIGNAL;
            retry(|| Ok(rustix::net::send(&*stream, bytes, flags)?), Outcome::Moved)
        }
    }
}

/// Ends our sending direction.
pub fn shutdown_write(stream: &TcpStream) -> Outcome {
    retry(|| stream.shutdown(std::net::Shutdown::Write), |()| Outcome::Done)
}

/// Fetches the pending error, if there is one.
pub fn take_error(stream: &TcpStream) -> Outcome {
    match stream.take_error() {
        Ok(None) => Outcome::Done,
        Ok(Some(error)) | Err(error) => Outcome::Failed(failure(&error)),
    }
}

/// Closes with a reset instead of a FIN.
pub fn close_with_reset(stream: TcpStream) {
    // A socket that refuses the option is closed all the same.
    let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
}

/// What an event says, as readiness bits. An error or a hang-up makes everything worth a try: the call then tells what it
/// was.
pub fn ready(event: &mio::event::Event) -> Ready {
    let error = event.is_error();
    let over = error || event.is_write_closed();
    Ready {
        readable: event.is_readable() || over,
        writable: event.is_writable() || over,
        read_closed: event.is_read_closed(),
        urgent: event.is_priority(),
        error,
    }
}

/// `errno` in the words that decisions are made of.
pub fn failure(error: &io::Error) -> Failure {
    let Some(errno) = Errno::from_io_error(error) else { return Failure::Other(0) };
    match errno {
        Errno::CONNREFUSED => Failure::Refused,
        Errno::NETUNREACH
        | Errno::HOSTUNREACH
        | Errno::ADDRNOTAVAIL
        | Errno::AFNOSUPPORT
        | Errno::NETDOWN
        | Errno::HOSTDOWN
        | Errno::NONET => Failure::Unreachable,
        Errno::TIMEDOUT => Failure::TimedOut,
        Errno::CONNRESET => Failure::Reset,
        Errno::PIPE | Errno::NOTCONN => Failure::BrokenPipe,
        Errno::PERM | Errno::ACCESS => Failure::Forbidden,
        Errno::MFILE | Errno::NFILE => Failure::NoDescriptors,
        Errno::NOMEM | Errno::NOBUFS | Errno::ADDRINUSE | Errno::AGAIN => Failure::NoResources,
        other => Failure::Other(other.raw_os_error()),
    }
}

fn retry<T>(mut call: impl FnMut() -> io::Result<T>, done: impl FnOnce(T) -> Outcome) -> Outcome {
    loop {
        match call() {
            Ok(value) => return done(value),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Outcome::Blocked,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Outcome::Failed(failure(&error)),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn what_the_end_follows_waits_for_it() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut ours = TcpStream::from_std(listener.accept().unwrap().0);
        client.set_nonblocking(true).unwrap();
        let mut buffer = [0; 16];
        // Loopback delivers within the call: what is not there behind it was not sent.
        assert_eq!(write(&mut ours, b"now", Follows::Anything), Outcome::Moved(3));
        assert_eq!(client.read(&mut buffer).unwrap(), 3);
        assert_eq!(write(&mut ours, b"then", Follows::End), Outcome::Moved(4));
        assert_eq!(client.read(&mut buffer).unwrap_err().kind(), ErrorKind::WouldBlock);
        assert_eq!(shutdown_write(&ours), Outcome::Done);
        assert_eq!((client.read(&mut buffer).unwrap(), client.read(&mut buffer).unwrap()), (4, 0));
    }
}
