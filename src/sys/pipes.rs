//! Pipes: the bytes of bulk go from socket to socket through one, and are never copied. A pipe is lent only while bytes are in
//! it or about to be, and counts against the same ceiling as rings.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use mio::net::TcpStream;
use rustix::io::{Errno, retry_on_intr};
use rustix::pipe::{PipeFlags, SpliceFlags};

use super::stream;
use crate::proto::failure::Failure;
use crate::proto::ring::{PIPE_BYTES, Pool, Standing};
use crate::proto::session::{Outcome, Side};
use crate::proto::tick::Tick;

/// Empty pipes that are kept for the next bulk, and for how long.
const SPARE_MAX: usize = 4;
const SPARE_MS: u64 = 1_000;
/// When the system has refused a pipe, it is asked again after so long.
const PAUSE_MS: u64 = 1_000;

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Pipes {
    /// At most [`PIPES_MAX`](crate::proto::ring::PIPES_MAX): they are searched one by one.
    lent: Vec<Lent>,
    spare: Vec<Pipe>,
    /// When the spare ones are closed.
    spare_until: Option<Tick>,
    paused_until: Option<Tick>,
}

/// To a session, for what comes from one of its sides.
#[derive(Debug)]
struct Lent {
    key: usize,
    from: Side,
    pipe: Pipe,
    bytes: usize,
}

#[derive(Debug)]
struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
}

impl Pipe {
    /// One that the system does not let grow would be slower than a ring (kernel fact `a_pipe_fills_by_slots`): it is none.
    fn open() -> io::Result<Pipe> {
        let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        rustix::pipe::fcntl_setpipe_size(&writer, PIPE_BYTES)?;
        Ok(Pipe { reader, writer })
    }
}

impl Pipes {
    /// Moves bytes from `socket`, which is that side of the session, into an empty pipe: what would block then is the socket.
    /// `NoStorage` if no pipe can be had.
    pub fn fill(
        &mut self,
        key: usize,
        from: Side,
        socket: &TcpStream,
        standing: Standing,
        pool: &mut Pool,
        now: Tick,
    ) -> Outcome {
        let Some(lent) = self.lend(key, from, standing, pool, now) else { return Outcome::NoStorage };
        debug_assert!(lent.bytes == 0, "filled while bytes are in it");
        match splice(socket, &lent.pipe.writer, PIPE_BYTES) {
            Ok(0) => Outcome::Eof,
            Ok(count) => {
                lent.bytes = count;
                Outcome::Moved(count)
            }
            // Not what becomes of a connection: a system, or a sandbox, without `splice`.
            Err(errno @ (Errno::INVAL | Errno::NOSYS | Errno::PERM | Errno::NOMEM)) => {
                self.pause(&errno.into(), now);
                Outcome::NoStorage
            }
            Err(errno) => failed(errno),
        }
    }

    /// Moves what is in the pipe that was filled from that side of the session to `socket`, its other side, as far as that takes
    /// it. The pipe is not empty: what would block is the socket here, too.
    pub fn drain(&mut self, key: usize, from: Side, socket: &TcpStream) -> Outcome {
        let lent = self.lent.iter_mut().find(|lent| lent.key == key && lent.from == from);
        let Some(lent) = lent else { return Outcome::Failed(Failure::BrokenPipe) };
        match splice(&lent.pipe.reader, socket, lent.bytes) {
            Ok(count) => {
                lent.bytes = lent.bytes.saturating_sub(count);
                Outcome::Moved(count)
            }
            Err(errno) => failed(errno),
        }
    }

    /// Behind a session's run: takes back the pipes that it no longer needs. One with bytes in it is closed.
    pub fn settle(&mut self, key: usize, holds: impl Fn(Side) -> bool, pool: &mut Pool, now: Tick) {
        let unneeded: Vec<Lent> =
            self.lent.extract_if(.., |lent| lent.key == key && !holds(lent.from)).collect();
        for Lent { pipe, bytes, .. } in unneeded {
            pool.give_back_pipe();
            if bytes == 0 {
                self.keep(pipe, now);
            }
        }
    }

    /// An empty one, for the next bulk.
    fn keep(&mut self, pipe: Pipe, now: Tick) {
        if self.spare.len() < SPARE_MAX {
            self.spare.push(pipe);
            self.spare_until = Some(now.after(SPARE_MS));
        }
    }

    /// When spare ones are to be closed.
    pub fn next_deadline(&self) -> Option<Tick> {
        self.spare_until
    }

    /// Closes spare ones that nobody has used for a while.
    pub fn close_over(&mut self, now: Tick) {
        if self.spare_until.is_some_and(|due| due <= now) {
            self.spare.clear();
            self.spare_until = None;
        }
    }

    /// Others need descriptors: closes the spare ones and opens none for a while. Returns how many were closed.
    pub fn give_way(&mut self, now: Tick) -> usize {
        self.paused_until = Some(now.after(PAUSE_MS));
        self.spare_until = None;
        self.spare.drain(..).count()
    }

    fn lend(
        &mut self,
        key: usize,
        from: Side,
        standing: Standing,
        pool: &mut Pool,
        now: Tick,
    ) -> Option<&mut Lent> {
        let lent = self.lent.iter().position(|lent| lent.key == key && lent.from == from);
        if let Some(index) = lent {
            if pool.leaves_pipe(standing) {
                return self.lent.get_mut(index);
            }
            // It is empty: another session's, from now on.
            let Lent { pipe, .. } = self.lent.swap_remove(index);
            pool.give_back_pipe();
            self.keep(pipe, now);
            return None;
        }
        if self.paused_until.is_some_and(|due| due > now) || !pool.lend_pipe(standing) {
            return None;
        }
        match self.spare.pop().map_or_else(Pipe::open, Ok) {
            Ok(pipe) => {
                if self.spare.is_empty() {
                    self.spare_until = None;
                }
                self.lent.push(Lent { key, from, pipe, bytes: 0 });
                self.lent.last_mut()
            }
            Err(error) => {
                pool.give_back_pipe();
                self.pause(&error, now);
                None
            }
        }
    }

    fn pause(&mut self, error: &io::Error, now: Tick) {
        log::debug!("no pipe for bulk, which is copied instead: {error}");
        self.paused_until = Some(now.after(PAUSE_MS));
    }
}

/// Neither end waits: sockets never do, and an empty or full pipe is not waited for.
fn splice(from: impl AsFd, to: impl AsFd, most: usize) -> rustix::io::Result<usize> {
    let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
    retry_on_intr(|| rustix::pipe::splice(&from, None, &to, None, most, flags))
}

fn failed(errno: Errno) -> Outcome {
    match errno {
        Errno::AGAIN => Outcome::Blocked,
        errno => Outcome::Failed(stream::failure(&errno.into())),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net;

    /// A connection: the proxy's end and the peer's.
    fn pair() -> (TcpStream, net::TcpStream) {
        let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let ours = listener.accept().unwrap().0;
        ours.set_nonblocking(true).unwrap();
        (TcpStream::from_std(ours), peer)
    }

    fn plenty() -> (Pipes, Pool) {
        (Pipes::default(), Pool::with_ceiling(1 << 30))
    }

    #[test]
    fn a_pipe_with_bytes_in_it_is_never_lent_again() {
        let (mut pipes, mut pool) = plenty();
        let ((from, mut source), (to, mut sink)) = (pair(), pair());
        source.write_all(b"for nobody").unwrap();
        assert_eq!(
            pipes.fill(1, Side::Client, &from, Standing::Proven, &mut pool, Tick(0)),
            Outcome::Moved(10)
        );
        pipes.settle(1, |_| true, &mut pool, Tick(0));
        assert!(pool.lent() > 0, "it is held");
        pipes.settle(1, |_| false, &mut pool, Tick(0));
        assert_eq!((pipes.spare.len(), pool.lent(), pipes.next_deadline()), (0, 0, None));
        source.write_all(b"for you").unwrap();
        assert_eq!(
            pipes.fill(2, Side::Client, &from, Standing::Proven, &mut pool, Tick(0)),
            Outcome::Moved(7)
        );
        assert_eq!(pipes.drain(2, Side::Client, &to), Outcome::Moved(7));
        let mut got = [0; 7];
        sink.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"for you");
        pipes.settle(2, |_| false, &mut pool, Tick(0));
        assert_eq!((pipes.spare.len(), pool.lent()), (1, 0));
    }

    #[test]
    fn directions_have_pipes_of_their_own() {
        let (mut pipes, mut pool) = plenty();
        let ((client, mut left), (upstream, mut right)) = (pair(), pair());
        left.write_all(b"up").unwrap();
        right.write_all(b"down").unwrap();
        assert_eq!(
            pipes.fill(1, Side::Client, &client, Standing::Proven, &mut pool, Tick(0)),
            Outcome::Moved(2)
        );
        assert_eq!(
            pipes.fill(1, Side::Upstream, &upstream, Standing::Proven, &mut pool, Tick(0)),
            Outcome::Moved(4)
        );
        assert_eq!(pipes.drain(1, Side::Upstream, &client), Outcome::Moved(4));
        assert_eq!(pipes.drain(1, Side::Client, &upstream), Outcome::Moved(2));
        let mut got = [0; 4];
        left.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"down");
        right.read_exact(&mut got[..2]).unwrap();
        assert_eq!(&got[..2], b"up");
    }

    #[test]
    fn spare_pipes_are_few_and_not_kept_for_long() {
        let (mut pipes, mut pool) = plenty();
        let (from, _source) = pair();
        for key in 0..SPARE_MAX + 2 {
            assert_eq!(
                pipes.fill(key, Side::Client, &from, Standing::Proven, &mut pool, Tick(0)),
                Outcome::Blocked
            );
        }
        for key in 0..SPARE_MAX + 2 {
            pipes.settle(key, |_| false, &mut pool, Tick(7));
        }
        assert_eq!((pipes.lent.len(), pipes.spare.len(), pool.lent()), (0, SPARE_MAX, 0));
        assert_eq!(pipes.next_deadline(), Some(Tick(7 + SPARE_MS)));
        pipes.close_over(Tick(6 + SPARE_MS));
        assert_eq!(pipes.spare.len(), SPARE_MAX);
        pipes.close_over(Tick(7 + SPARE_MS));
        assert_eq!((pipes.spare.len(), pipes.next_deadline()), (0, None), "and nobody wakes up for nothing");
    }

    #[test]
    fn who_has_become_slow_leaves_its_pipe_to_others() {
        let (mut pipes, mut pool) = plenty();
        let (from, _source) = pair();
        let mut fill = |pipes: &mut Pipes, key, standing| {
            pipes.fill(key, Side::Client, &from, standing, &mut pool, Tick(0))
        };
        for key in 0..9 {
            assert_eq!(fill(&mut pipes, key, Standing::Proven), Outcome::Blocked);
        }
        assert_eq!(fill(&mut pipes, 0, Standing::Slow), Outcome::NoStorage);
        assert_eq!((pipes.lent.len(), pipes.spare.len()), (8, 1));
        assert_eq!(fill(&mut pipes, 1, Standing::Slow), Outcome::Blocked, "half of them are for anybody");
    }

    #[test]
    fn none_is_opened_for_a_while_when_others_need_descriptors() {
        let (mut pipes, mut pool) = plenty();
        let (from, _source) = pair();
        assert_eq!(
            pipes.fill(1, Side::Client, &from, Standing::Proven, &mut pool, Tick(0)),
            Outcome::Blocked
        );
        pipes.settle(1, |_| false, &mut pool, Tick(0));
        assert_eq!(pipes.give_way(Tick(0)), 1);
        assert_eq!(
            pipes.fill(1, Side::Client, &from, Standing::Proven, &mut pool, Tick(PAUSE_MS - 1)),
            Outcome::NoStorage
        );
        assert_eq!((pool.lent(), pipes.next_deadline()), (0, None));
        assert_eq!(
            pipes.fill(1, Side::Client, &from, Standing::Proven, &mut pool, Tick(PAUSE_MS)),
            Outcome::Blocked
        );
    }

    #[test]
    fn at_the_ceiling_there_is_none() {
        let mut pipes = Pipes::default();
        let mut pool = Pool::with_ceiling(4 * PIPE_BYTES as u64);
        let (from, _source) = pair();
        assert_eq!(
            pipes.fill(1, Side::Client, &from, Standing::Proven, &mut pool, Tick(0)),
            Outcome::Blocked
        );
        assert_eq!(
            pipes.fill(2, Side::Client, &from, Standing::Proven, &mut pool, Tick(0)),
            Outcome::NoStorage
        );
        pipes.settle(1, |_| false, &mut pool, Tick(0));
        assert_eq!(
            pipes.fill(2, Side::Client, &from, Standing::Proven, &mut pool, Tick(0)),
            Outcome::Blocked
        );
    }
}
