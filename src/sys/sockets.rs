//! The sockets of one session: its client, the attempts at an upstream, and the one that stands.

use mio::net::TcpStream;
use socket2::SockRef;

use super::{dial, stream};
use crate::proto::eyeballs::PLACES;
use crate::proto::failure::Failure;
use crate::proto::relay::Ready;
use crate::proto::session::{Follows, Outcome, Side, Step};

/// See the module's documentation.
#[derive(Debug)]
pub struct Sockets {
    client: TcpStream,
    upstream: Option<TcpStream>,
    /// By their place. None of them is left once one stands.
    attempts: Option<Box<[Option<TcpStream>; PLACES]>>,
}

impl Sockets {
    /// Of a session that has only a client yet.
    #[must_use]
    pub fn new(client: TcpStream) -> Sockets {
        Sockets { client, upstream: None, attempts: None }
    }

    /// See [`stream::read`].
    pub fn read(&mut self, side: Side, space: &mut [u8]) -> Outcome {
        self.on(side, Outcome::Eof, |socket| stream::read(socket, space))
    }

    /// See [`stream::write`].
    pub fn write(&mut self, side: Side, bytes: &[u8], follows: Follows) -> Outcome {
        self.on(side, Outcome::Failed(Failure::BrokenPipe), |socket| stream::write(socket, bytes, follows))
    }

    /// [`Step::Pass`], by way of `space`: which step it has come to, and with what outcome.
    pub fn pass(&mut self, from: Side, space: &mut [u8]) -> (Step, Outcome) {
        let seen = match self.on(from, Outcome::Eof, |socket| stream::look(socket, space)) {
            Outcome::Moved(seen) => &mut space[..seen],
            met => return (Step::Pass(from), met),
        };
        match self.write(from.other(), seen, Follows::Anything) {
            Outcome::Moved(count) => {
                let taken = &mut seen[..count];
                (Step::Pass(from), self.on(from, Outcome::Eof, |socket| stream::take(socket, taken)))
            }
            met => (Step::Write(from.other()), met),
        }
    }

    /// See [`Pipes::fill`](super::pipes::Pipes::fill).
    pub fn fill(&mut self, side: Side, fill: impl FnOnce(&TcpStream) -> Outcome) -> Outcome {
        self.on(side, Outcome::Eof, |socket| fill(socket))
    }

    /// See [`Pipes::drain`](super::pipes::Pipes::drain).
    pub fn drain(&mut self, side: Side, drain: impl FnOnce(&TcpStream) -> Outcome) -> Outcome {
        self.on(side, Outcome::Failed(Failure::BrokenPipe), |socket| drain(socket))
    }

    /// See [`stream::shutdown_write`].
    pub fn shutdown_write(&mut self, side: Side) -> Outcome {
        self.on(side, Outcome::Done, |socket| stream::shutdown_write(socket))
    }

    /// What a read would meet when there is no storage to read into: [`Outcome::NoStorage`] if that would be bytes.
    pub fn peek(&mut self, side: Side) -> Outcome {
        match self.on(side, Outcome::Eof, |socket| stream::peek(socket)) {
            Outcome::Done => Outcome::NoStorage,
            met @ (Outcome::Eof
            | Outcome::Failed(_)
            | Outcome::Blocked
            | Outcome::Moved(_)
            | Outcome::NoStorage) => met,
        }
    }

    /// See [`stream::take_error`].
    pub fn take_error(&mut self, side: Side) -> Outcome {
        self.on(side, Outcome::Done, |socket| stream::take_error(socket))
    }

    /// Starts an attempt at `place`. One that stood there is given up first: its descriptor may be the last one.
    pub fn dial(&mut self, place: u8, start: impl FnOnce() -> Result<TcpStream, Failure>) -> Outcome {
        let attempts = self.attempts.get_or_insert_default();
        let Some(attempt) = attempts.get_mut(usize::from(place)) else {
            return Outcome::Failed(Failure::NoResources);
        };
        *attempt = None;
        match start() {
            Ok(started) => {
                *attempt = Some(started);
                Outcome::Done
            }
            Err(failure) => Outcome::Failed(failure),
        }
    }

    /// Finds out whether the attempt at `place` stands, of which events have `said` something. If so, it becomes the
    /// upstream and the others are given up; if it has failed, it is given up itself.
    pub fn confirm(&mut self, place: u8, said: Ready) -> Outcome {
        let attempts = self.attempts.as_mut();
        let attempt = attempts.and_then(|attempts| attempts.get_mut(usize::from(place)));
        let Some(attempt @ Some(_)) = attempt else { return Outcome::Blocked };
        let outcome = attempt.as_ref().map_or(Outcome::Blocked, |attempt| dial::confirm(attempt, said));
        match outcome {
            Outcome::Done => {
                self.upstream = attempt.take();
                self.attempts = None;
            }
            Outcome::Failed(_) => *attempt = None,
            // It goes on.
            Outcome::Blocked | Outcome::Moved(_) | Outcome::Eof | Outcome::NoStorage => {}
        }
        outcome
    }

    /// The client holds something back until what it has sent is acknowledged (Nagle's algorithm), and the kernel holds that
    /// back for 40 ms.
    pub fn acknowledge_client(&self) {
        // A socket that refuses the option is slower, that is all.
        let _ = SockRef::from(&self.client).set_tcp_quickack(true);
    }

    /// Finds out, from now on, if the upstream's machine is gone; the client's side inherits that from its listener. To be called
    /// once a session lasts: most are over before it could matter, and do without these system calls.
    pub fn watch_over_upstream(&self) {
        if let Some(upstream) = &self.upstream {
            // A socket that refuses the options has the idle timeout.
            let _ = stream::ask_whether_alive(upstream);
        }
    }

    /// Hands the upstream over.
    pub fn take_upstream(&mut self) -> Option<TcpStream> {
        self.upstream.take()
    }

    /// A connection that stands already is the upstream.
    pub fn set_upstream(&mut self, upstream: TcpStream) {
        self.upstream = Some(upstream);
    }

    /// Gives up the upstream and all attempts.
    pub fn drop_upstream(&mut self) {
        self.upstream = None;
        self.attempts = None;
    }

    /// Closes everything, with a reset where `with_reset` says so.
    pub fn close(self, with_reset: impl Fn(Side) -> bool) {
        for (side, socket) in [(Side::Client, Some(self.client)), (Side::Upstream, self.upstream)] {
            if let Some(socket) = socket
                && with_reset(side)
            {
                stream::close_with_reset(socket);
            }
        }
    }

    /// A session only names a side that it has; `absent` is what it hears should that ever not hold.
    fn on(&mut self, side: Side, absent: Outcome, call: impl FnOnce(&mut TcpStream) -> Outcome) -> Outcome {
        match side {
            Side::Client => call(&mut self.client),
            Side::Upstream => self.upstream.as_mut().map_or(absent, call),
        }
    }
}
