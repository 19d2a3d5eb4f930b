//! What the Linux kernel really does, as far as the proxy's core relies on it. Comments in the code cite these tests by name;
//! if one fails on some kernel, the code that cites it is wrong there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use mio::event::Event;
use mio::net::TcpStream as MioStream;
use mio::{Events, Interest, Poll, Token};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags};
use socket2::{Domain, SockFilter, SockRef, Socket, TcpKeepalive, Type};

/// Time enough for an event that comes; reached only by failures.
const SOON: Duration = Duration::from_secs(10);
/// Time enough to believe that no event comes: on loopback it would be there before the call that causes it returns.
const QUIET: Duration = Duration::from_millis(50);
const BOTH: Interest = Interest::READABLE.add(Interest::WRITABLE);

const ECONNREFUSED: i32 = 111;

/// One edge-triggered poll with one socket in it.
struct Watch {
    poll: Poll,
    events: Events,
}

/// What one event said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Said {
    readable: bool,
    writable: bool,
    read_closed: bool,
    write_closed: bool,
    error: bool,
}

impl Watch {
    fn new(socket: &mut impl mio::event::Source) -> Watch {
        let poll = Poll::new().unwrap();
        poll.registry().register(socket, Token(0), BOTH).unwrap();
        Watch { poll, events: Events::with_capacity(16) }
    }

    /// The events of one wait.
    fn take(&mut self, wait: Duration) -> Vec<Said> {
        self.poll.poll(&mut self.events, Some(wait)).unwrap();
        self.events.iter().map(said).collect()
    }

    /// Exactly one event.
    #[track_caller]
    fn one(&mut self) -> Said {
        let all = self.take(SOON);
        assert_eq!(all.len(), 1, "one event: {all:?}");
        all[0]
    }

    #[track_caller]
    fn none(&mut self) {
        assert_eq!(self.take(QUIET), [], "no event");
    }
}

fn said(event: &Event) -> Said {
    Said {
        readable: event.is_readable(),
        writable: event.is_writable(),
        read_closed: event.is_read_closed(),
        write_closed: event.is_write_closed(),
        error: event.is_error(),
    }
}

/// A connection: our end without blocking, the peer's end blocking.
fn pair() -> (MioStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    peer.set_read_timeout(Some(SOON)).unwrap();
    peer.set_nodelay(true).unwrap();
    let (ours, _) = listener.accept().unwrap();
    ours.set_nonblocking(true).unwrap();
    (MioStream::from_std(ours), peer)
}

/// The same, registered, with the event of registration already taken.
fn watched_pair() -> (Watch, MioStream, TcpStream) {
    let (mut ours, peer) = pair();
    let mut watch = Watch::new(&mut ours);
    let first = watch.one();
    assert!(first.writable && !first.readable);
    (watch, ours, peer)
}

fn reset(peer: TcpStream) {
    SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
    drop(peer);
}

fn error_of<T: std::fmt::Debug>(result: std::io::Result<T>) -> ErrorKind {
    result.unwrap_err().kind()
}

// Readiness.

#[test]
fn registration_reports_current_readiness() {
    let (mut ours, mut peer) = pair();
    peer.write_all(b"early").unwrap();
    let mut watch = Watch::new(&mut ours);
    let first = watch.one();
    assert!(first.readable && first.writable, "what was true before is told once: {first:?}");
    watch.none();
}

#[test]
fn both_directions_are_one_registration() {
    let (mut watch, mut ours, mut peer) = watched_pair();
    peer.write_all(b"x").unwrap();
    let event = watch.one();
    // An edge of one kind repeats the other: an event is a rumour, and "writable" here is no news.
    assert!(event.readable && event.writable);
    assert_eq!(ours.read(&mut [0; 8]).unwrap(), 1);
}

#[test]
fn readiness_is_announced_once() {
    let (mut watch, mut ours, mut peer) = watched_pair();
    peer.write_all(b"hello").unwrap();
    assert!(watch.one().readable);
    assert_eq!(ours.read(&mut [0; 2]).unwrap(), 2);
    // Three bytes are left and nobody says so.
    watch.none();
    assert_eq!(ours.read(&mut [0; 8]).unwrap(), 3);
}

#[test]
fn short_read_means_drained() {
    let (mut watch, mut ours, mut peer) = watched_pair();
    peer.write_all(b"hello").unwrap();
    assert!(!watch.one().read_closed);
    assert_eq!(ours.read(&mut [0; 64]).unwrap(), 5);
    assert_eq!(error_of(ours.read(&mut [0; 64])), ErrorKind::WouldBlock);
    // And bytes that come after the short read raise an edge of their own, without a would-block in between.
    peer.write_all(b"again").unwrap();
    assert!(watch.one().readable);
    assert_eq!(ours.read(&mut [0; 64]).unwrap(), 5);
    peer.write_all(b"third").unwrap();
    assert!(watch.one().readable);
}

#[test]
fn fin_with_data_shares_one_edge() {
    let (mut watch, mut ours, mut peer) = watched_pair();
    peer.write_all(b"hello").unwrap();
    peer.shutdown(Shutdown::Write).unwrap();
    let event = watch.one();
    assert!(event.readable && event.read_closed);
    assert_eq!(ours.read(&mut [0; 64]).unwrap(), 5, "a short read");
    // Whoever takes the short read for "drained" waits here for ever:
    watch.none();
    assert_eq!(ours.read(&mut [0; 64]).unwrap(), 0, "the end of file was there all the time");
}

#[test]
fn fin_after_data_is_an_edge_of_its_own() {
    let (mut watch, mut ours, mut peer) = watched_pair();
    peer.write_all(b"hello").unwrap();
    let event = watch.one();
    assert!(event.readable && !event.read_closed);
    assert_eq!(ours.read(&mut [0; 64]).unwrap(), 5);
    peer.shutdown(Shutdown::Write).unwrap();
    let event = watch.one();
    assert!(event.readable && event.read_closed);
    assert_eq!(ours.read(&mut [0; 64]).unwrap(), 0);
}

#[test]
fn the_end_takes_bytes_with_it() {
    let (mut watch, mut ours, peer) = watched_pair();
    let more = rustix::net::SendFlags::MORE;
    assert_eq!(rustix::net::send(&peer, b"hello", more).unwrap(), 5);
    assert_eq!(ours.peek(&mut [0; 64]).unwrap_err().kind(), ErrorKind::WouldBlock, "it waits for more");
    drop(peer);
    let event = watch.one();
    assert!(event.readable && event.read_closed);
    assert_eq!(ours.read(&mut [0; 64]).unwrap(), 5);
    assert_eq!(ours.read(&mut [0; 64]).unwrap(), 0);
}

/// A connection whose peer has sent `abc`, the urgent byte `!` and `def`; urgent data stays in the stream.
fn pair_with_urgent_data() -> (MioStream, TcpStream) {
    let (ours, mut peer) = pair();
    SockRef::from(&ours).set_out_of_band_inline(true).unwrap();
    peer.write_all(b"abc").unwrap();
    SockRef::from(&peer).send_out_of_band(b"!").unwrap();
    peer.write_all(b"def").unwrap();
    (ours, peer)
}

#[test]
fn a_read_stops_at_urgent_data() {
    let (mut ours, _peer) = pair_with_urgent_data();
    let poll = Poll::new().unwrap();
    poll.registry().register(&mut ours, Token(0), BOTH | Interest::PRIORITY).unwrap();
    let mut watch = Watch { poll, events: Events::with_capacity(16) };
    watch.poll.poll(&mut watch.events, Some(SOON)).unwrap();
    assert!(watch.events.iter().any(Event::is_priority), "it is announced, to who asks for it");
    let mut space = [0; 64];
    assert_eq!(ours.read(&mut space).unwrap(), 3, "a short read, and not because the socket is empty");
    watch.none();
    assert_eq!(ours.read(&mut space).unwrap(), 4);
    assert_eq!(&space[..4], b"!def");
}

#[test]
fn urgent_data_is_taken_out_of_the_stream_unless_inline() {
    let (mut ours, _peer) = pair_with_urgent_data();
    SockRef::from(&ours).set_out_of_band_inline(false).unwrap();
    let mut got = Vec::new();
    while got.len() < 6 {
        let mut space = [0; 64];
        let count = ours.read(&mut space).unwrap();
        got.extend_from_slice(&space[..count]);
    }
    assert_eq!(got, b"abcdef");
}

#[test]
fn out_of_band_inline_is_inherited_from_the_listener() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    SockRef::from(&listener).set_out_of_band_inline(true).unwrap();
    let _peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (ours, _) = listener.accept().unwrap();
    assert!(SockRef::from(&ours).out_of_band_inline().unwrap());
}

// Pipes between sockets.

/// A pipe of `bytes` as the kernel counts them: reader and writer.
fn pipe_of(bytes: usize) -> (OwnedFd, OwnedFd) {
    let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).unwrap();
    assert_eq!(rustix::pipe::fcntl_setpipe_size(&writer, bytes).unwrap(), bytes);
    (reader, writer)
}

fn splice(from: impl AsFd, to: impl AsFd, most: usize) -> Result<usize, Errno> {
    rustix::pipe::splice(from, None, to, None, most, SpliceFlags::MOVE | SpliceFlags::NONBLOCK)
}

#[test]
fn filling_an_empty_pipe_would_block_only_over_the_socket() {
    let (mut watch, ours, mut peer) = watched_pair();
    let (_reader, writer) = pipe_of(65536);
    assert_eq!(splice(&ours, &writer, 1000), Err(Errno::AGAIN), "nothing to take");
    peer.write_all(b"hello").unwrap();
    assert!(watch.one().readable, "and an edge when there is");
    assert_eq!(splice(&ours, &writer, 1000), Ok(5));
    assert_eq!(splice(&ours, &writer, 1000), Err(Errno::AGAIN));
    peer.write_all(b"again").unwrap();
    assert!(watch.one().readable);
}

#[test]
fn a_pipe_fills_by_slots() {
    let (ours, mut peer) = pair();
    let (reader, writer) = pipe_of(16 * 4096);
    // Segments that were sent one by one are slots of their own.
    for _ in 0..40 {
        peer.write_all(b"x").unwrap();
    }
    let count = splice(&ours, &writer, 65536).unwrap();
    assert!(count < 40, "a short fill, and not because the socket is empty: {count}");
    assert_eq!(splice(&ours, &writer, 65536), Err(Errno::AGAIN), "would block, and not over the socket");
    assert_eq!(rustix::io::read(&reader, &mut [0; 64]).unwrap(), count);
    assert!(splice(&ours, &writer, 65536).unwrap() > 0, "the rest was there all the time");
}

/// Takes so many bytes, and asserts that none of them was copied.
#[track_caller]
fn take_unseen(ours: impl AsFd, count: usize) -> usize {
    let mut space = vec![b'-'; count];
    let (_, taken) = rustix::net::recv(ours, &mut *space, rustix::net::RecvFlags::TRUNC).unwrap();
    assert!(space.iter().all(|&byte| byte == b'-'));
    taken
}

#[test]
fn what_was_looked_at_is_taken_without_a_copy() {
    let (ours, mut peer) = pair();
    peer.write_all(b"abcdef").unwrap();
    assert_eq!(ours.peek(&mut [0; 64]).unwrap(), 6);
    assert_eq!(take_unseen(&ours, 3), 3);
    let mut space = [0; 64];
    assert_eq!(ours.peek(&mut space).unwrap(), 3);
    assert_eq!(&space[..3], b"def");
    // Also with an end, or a reset, behind it.
    peer.shutdown(Shutdown::Write).unwrap();
    assert_eq!(take_unseen(&ours, 3), 3);
    assert_eq!(ours.peek(&mut space).unwrap(), 0);
    let (ours, mut peer) = pair();
    peer.write_all(b"abcdef").unwrap();
    assert_eq!(ours.peek(&mut space).unwrap(), 6);
    SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
    drop(peer);
    assert_eq!(take_unseen(&ours, 6), 6);
    assert_eq!(ours.peek(&mut space).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_look_stops_at_urgent_data_as_a_read_does() {
    let (ours, _peer) = pair_with_urgent_data();
    let mut space = [0; 64];
    assert_eq!(ours.peek(&mut space).unwrap(), 3);
    assert_eq!(take_unseen(&ours, 3), 3);
    assert_eq!(ours.peek(&mut space).unwrap(), 4);
    assert_eq!(&space[..4], b"!def");
    assert_eq!(take_unseen(&ours, 4), 4);
}

#[test]
fn a_pipe_is_not_filled_beyond_urgent_data() {
    let (mut ours, _peer) = pair_with_urgent_data();
    let (_reader, writer) = pipe_of(65536);
    assert_eq!(splice(&ours, &writer, 1000), Ok(3), "up to the mark");
    assert_eq!(splice(&ours, &writer, 1000), Err(Errno::AGAIN), "and no further, although there are bytes");
    let mut space = [0; 64];
    assert_eq!(ours.read(&mut space).unwrap(), 4);
    assert_eq!(&space[..4], b"!def");
}

#[test]
fn a_fill_at_urgent_data_looks_like_the_end_once_a_fin_is_behind_it() {
    let (mut ours, peer) = pair_with_urgent_data();
    let (_reader, writer) = pipe_of(65536);
    assert_eq!(splice(&ours, &writer, 1000), Ok(3));
    peer.shutdown(Shutdown::Write).unwrap();
    assert_eq!(splice(&ours, &writer, 1000), Ok(0), "there are four bytes more");
    assert_eq!(ours.read(&mut [0; 64]).unwrap(), 4);
    assert_eq!(ours.read(&mut [0; 64]).unwrap(), 0);
}

#[test]
fn a_fill_at_the_end_is_zero() {
    let (ours, mut peer) = pair();
    let (_reader, writer) = pipe_of(65536);
    peer.write_all(b"last").unwrap();
    peer.shutdown(Shutdown::Write).unwrap();
    assert_eq!(splice(&ours, &writer, 1000), Ok(4));
    assert_eq!(splice(&ours, &writer, 1000), Ok(0));
}

#[test]
fn draining_a_pipe_that_holds_bytes_would_block_only_over_the_socket() {
    let (mut watch, ours, mut peer) = watched_pair();
    let (reader, writer) = pipe_of(65536);
    let page = [7; 4096];
    let mut written = 0;
    let held = loop {
        assert_eq!(rustix::io::write(&writer, &page).unwrap(), page.len());
        match splice(&reader, &ours, page.len()) {
            Ok(count) if count == page.len() => written += count,
            // What the socket does not take stays.
            Ok(count) => {
                written += count;
                assert_eq!(splice(&reader, &ours, page.len()), Err(Errno::AGAIN));
                break page.len() - count;
            }
            Err(errno) => {
                assert_eq!(errno, Errno::AGAIN);
                break page.len();
            }
        }
    };
    watch.none();
    peer.read_exact(&mut vec![0; written]).unwrap();
    assert!(watch.one().writable);
    assert_eq!(splice(&reader, &ours, page.len()), Ok(held));
}

#[test]
fn draining_a_pipe_into_a_reset_connection_fails() {
    let (mut watch, ours, peer) = watched_pair();
    let (reader, writer) = pipe_of(65536);
    assert_eq!(rustix::io::write(&writer, b"lost").unwrap(), 4);
    reset(peer);
    assert!(watch.one().error);
    // Rust's runtime ignores SIGPIPE, which `splice` cannot be told not to send.
    assert_eq!(splice(&reader, &ours, 4), Err(Errno::CONNRESET));
    assert_eq!(splice(&reader, &ours, 4), Err(Errno::PIPE));
}

#[test]
fn read_closed_event_before_data_is_read() {
    let (mut watch, mut ours, mut peer) = watched_pair();
    peer.write_all(&[7; 1000]).unwrap();
    peer.shutdown(Shutdown::Write).unwrap();
    assert!(watch.one().read_closed, "read-closed says that a FIN came, not that all is read");
    let mut total = 0;
    loop {
        let n = ours.read(&mut [0; 300]).unwrap();
        if n == 0 {
            break;
        }
        total += n;
    }
    assert_eq!(total, 1000);
}

#[test]
fn short_write_arms_writable_edge() {
    let (mut watch, mut ours, mut peer) = watched_pair();
    let block = vec![0; 256 * 1024];
    let mut written = 0;
    loop {
        let n = ours.write(&block).unwrap();
        written += n;
        if n < block.len() {
            break;
        }
    }
    // No would-block was ever seen, and yet, once the peer makes room, the edge comes.
    watch.none();
    let mut taken = vec![0; written];
    peer.read_exact(&mut taken).unwrap();
    assert!(watch.one().writable);
    assert!(ours.write(&block).unwrap() > 0);
}

#[test]
fn writable_edge_waits_for_a_good_part_of_the_buffer() {
    let (mut watch, mut ours, mut peer) = watched_pair();
    let block = vec![0; 256 * 1024];
    while ours.write(&block).is_ok() {}
    peer.read_exact(&mut [0; 1]).unwrap();
    // One byte of room is not worth an event: a peer that reads slowly does not wake us for each byte.
    watch.none();
}

// Connecting.

#[test]
fn connected_is_writable_and_nothing_else() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    let mut ours = MioStream::connect(to).unwrap();
    let event = Watch::new(&mut ours).one();
    let writable_alone =
        Said { readable: false, writable: true, read_closed: false, write_closed: false, error: false };
    assert_eq!(event, writable_alone);
    assert!(ours.take_error().unwrap().is_none());
    assert_eq!(ours.peer_addr().unwrap(), to);
}

#[test]
fn refused_connect_is_writable_with_error_and_has_no_peer() {
    // Bound, so that nobody else gets the port, and not listening.
    let nobody = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    nobody.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let to = nobody.local_addr().unwrap().as_socket().unwrap();
    let mut ours = MioStream::connect(to).unwrap();
    let event = Watch::new(&mut ours).one();
    assert!(
        event.writable && event.readable && event.error && event.read_closed && event.write_closed,
        "{event:?}"
    );
    assert_eq!(error_of(ours.peer_addr()), ErrorKind::NotConnected);
    let error = ours.take_error().unwrap().expect("a pending error");
    assert_eq!(error.raw_os_error(), Some(ECONNREFUSED));
    assert!(ours.take_error().unwrap().is_none(), "asking for the error takes it away");
    // That is why "no pending error" alone does not mean connected.
    assert_eq!(error_of(ours.peer_addr()), ErrorKind::NotConnected);
}

#[test]
fn connect_pending_has_no_peer() {
    // A listener whose accept queue is full drops further SYNs.
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    listener.listen(0).unwrap();
    let to = listener.local_addr().unwrap().as_socket().unwrap();
    let _queued = TcpStream::connect(to).unwrap();
    let mut ours = MioStream::connect(to).unwrap();
    Watch::new(&mut ours).none();
    assert!(ours.take_error().unwrap().is_none());
    assert_eq!(error_of(ours.peer_addr()), ErrorKind::NotConnected);
    assert_eq!(error_of(ours.write(b"x")), ErrorKind::WouldBlock);
    assert_eq!(error_of(ours.read(&mut [0; 8])), ErrorKind::WouldBlock);
}

#[test]
fn unreachable_is_told_by_connect_itself() {
    // Broadcast is no destination for TCP: ENETUNREACH comes from connect(), before there is anything to poll.
    let error = MioStream::connect(SocketAddr::from(([255, 255, 255, 255], 443))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NetworkUnreachable);
}

// Accepting.

#[test]
fn accept_until_would_block_needed() {
    let mut listener = mio::net::TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let to = listener.local_addr().unwrap();
    let mut watch = Watch::new(&mut listener);
    let _three = [(); 3].map(|()| TcpStream::connect(to).unwrap());
    assert!(watch.one().readable, "three connections, one edge");
    listener.accept().unwrap();
    watch.none();
    listener.accept().unwrap();
    listener.accept().unwrap();
    assert_eq!(error_of(listener.accept()), ErrorKind::WouldBlock);
}

#[test]
fn a_connection_behind_a_waiting_one_raises_an_edge() {
    let mut listener = mio::net::TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let to = listener.local_addr().unwrap();
    let mut watch = Watch::new(&mut listener);
    let _first = TcpStream::connect(to).unwrap();
    assert!(watch.one().readable);
    // Accepting is paused and the first one left in the queue; the second still tells.
    let _second = TcpStream::connect(to).unwrap();
    assert!(watch.one().readable);
}

#[test]
fn nodelay_is_inherited_from_listener() {
    for wanted in [true, false] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        SockRef::from(&listener).set_tcp_nodelay(wanted).unwrap();
        let _peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!(listener.accept().unwrap().0.nodelay().unwrap(), wanted);
    }
}

#[test]
fn keepalive_is_inherited_from_listener() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let probes = TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(15))
        .with_retries(4);
    SockRef::from(&listener).set_tcp_keepalive(&probes).unwrap();
    let _peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    let accepted = SockRef::from(&accepted);
    assert!(accepted.keepalive().unwrap());
    assert_eq!(accepted.tcp_keepalive_time().unwrap(), Duration::from_secs(60));
    assert_eq!(accepted.tcp_keepalive_interval().unwrap(), Duration::from_secs(15));
    assert_eq!(accepted.tcp_keepalive_retries().unwrap(), 4);
}

#[test]
fn user_timeout_ends_a_peer_that_only_pauses() {
    let (mut ours, peer) = pair();
    SockRef::from(&ours).set_tcp_user_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut watch = Watch::new(&mut ours);
    // Its kernel answers every question for room with "none yet", so it is there.
    while ours.write(&[0; 65536]).is_ok() {}
    while !watch.one().error {}
    assert_eq!(ours.take_error().unwrap().unwrap().kind(), ErrorKind::TimedOut);
    drop(peer);
}

#[test]
fn nonblocking_is_not_inherited_from_listener() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let _peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    assert!(!SockRef::from(&accepted).nonblocking().unwrap(), "accept4 with SOCK_NONBLOCK is needed");
}

#[test]
fn closing_a_listener_resets_what_it_had_queued() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    peer.set_read_timeout(Some(SOON)).unwrap();
    drop(listener);
    // A drain must accept what is queued before it closes a listener, or those clients see this:
    assert_eq!(error_of(peer.read(&mut [0; 8])), ErrorKind::ConnectionReset);
}

#[test]
fn reuseport_listeners_share_a_port_only_among_themselves() {
    let listen = |to: SocketAddr, reuse_port: bool| -> std::io::Result<Socket> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(reuse_port)?;
        socket.bind(&to.into())?;
        socket.listen(8)?;
        Ok(socket)
    };
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let first = listen(any, true).unwrap();
    let at = first.local_addr().unwrap().as_socket().unwrap();
    let _second = listen(at, true).expect("a second loop listens on the same port");
    assert_eq!(error_of(listen(at, false)), ErrorKind::AddrInUse);
}

// Ends.

#[test]
fn half_close_keeps_other_direction() {
    let (_watch, mut ours, mut peer) = watched_pair();
    ours.shutdown(Shutdown::Write).unwrap();
    assert_eq!(peer.read(&mut [0; 8]).unwrap(), 0);
    peer.write_all(b"still here").unwrap();
    assert_eq!(ours.read(&mut [0; 64]).unwrap(), 10);
    assert_eq!(error_of(ours.write(b"x")), ErrorKind::BrokenPipe);
}

#[test]
fn write_closed_comes_only_when_both_directions_ended() {
    let (mut watch, ours, peer) = watched_pair();
    ours.shutdown(Shutdown::Write).unwrap();
    let mine = watch.take(QUIET);
    assert!(mine.iter().all(|event| !event.read_closed), "{mine:?}");
    peer.shutdown(Shutdown::Write).unwrap();
    let event = watch.one();
    assert!(event.read_closed && event.write_closed, "EPOLLHUP: {event:?}");
    assert!(!event.error);
}

#[test]
fn linger_zero_close_sends_a_reset() {
    let (mut watch, mut ours, peer) = watched_pair();
    reset(peer);
    let event = watch.one();
    assert!(
        event.readable && event.writable && event.error && event.read_closed && event.write_closed,
        "{event:?}"
    );
    assert_eq!(error_of(ours.read(&mut [0; 8])), ErrorKind::ConnectionReset);
}

#[test]
fn a_reset_is_told_once_then_looks_like_end_of_file() {
    let (_watch, mut ours, peer) = watched_pair();
    reset(peer);
    assert_eq!(error_of(ours.read(&mut [0; 8])), ErrorKind::ConnectionReset);
    // Whoever loses the first error takes a broken connection for a clean end.
    assert_eq!(ours.read(&mut [0; 8]).unwrap(), 0);
    assert_eq!(error_of(ours.write(b"x")), ErrorKind::BrokenPipe);
    assert!(ours.take_error().unwrap().is_none());
}

#[test]
fn a_reset_is_told_by_write_as_well() {
    let (_watch, mut ours, peer) = watched_pair();
    reset(peer);
    assert_eq!(error_of(ours.write(b"x")), ErrorKind::ConnectionReset);
    assert_eq!(ours.read(&mut [0; 8]).unwrap(), 0, "and then not again");
}

#[test]
fn data_before_reset_is_still_readable() {
    let (mut watch, mut ours, mut peer) = watched_pair();
    peer.write_all(b"last words").unwrap();
    assert!(watch.one().readable);
    reset(peer);
    let event = watch.one();
    assert!(event.error && event.read_closed);
    assert_eq!(ours.read(&mut [0; 64]).unwrap(), 10);
    assert_eq!(error_of(ours.read(&mut [0; 64])), ErrorKind::ConnectionReset);
}

#[test]
fn reset_after_fin_is_a_broken_pipe() {
    let (_watch, mut ours, peer) = watched_pair();
    peer.shutdown(Shutdown::Write).unwrap();
    // The peer closes for good and then gets a byte it can no longer take: its kernel answers with a RST.
    drop(peer);
    assert_eq!(ours.write(b"x").unwrap(), 1);
    assert_eq!(error_of(ours.write(b"x")), ErrorKind::BrokenPipe, "not ECONNRESET");
}

#[test]
fn shutdown_after_a_reset_is_not_connected() {
    let (_watch, ours, peer) = watched_pair();
    reset(peer);
    assert_eq!(error_of(ours.shutdown(Shutdown::Write)), ErrorKind::NotConnected);
}

#[test]
fn close_with_unread_data_sends_a_reset() {
    let (_watch, mut ours, mut peer) = watched_pair();
    peer.write_all(b"nobody reads this").unwrap();
    ours.write_all(b"an answer").unwrap();
    drop(ours);
    // The answer had arrived before the RST, so here it can be read; but a peer that was still sending hears of the reset first.
    assert_eq!(error_of(peer.write(b"more")), ErrorKind::ConnectionReset);
    assert_eq!(peer.read(&mut [0; 64]).unwrap(), 9);
}

#[test]
fn close_with_unread_data_drops_what_was_not_sent() {
    let (_watch, mut ours, mut peer) = watched_pair();
    peer.write_all(b"nobody reads this").unwrap();
    let block = vec![0; 256 * 1024];
    let mut written = 0;
    while let Ok(n) = ours.write(&block) {
        written += n;
    }
    drop(ours);
    let mut taken = 0;
    let mut buf = vec![0; 64 * 1024];
    let end = loop {
        match peer.read(&mut buf) {
            Ok(n) => taken += n,
            Err(e) => break e.kind(),
        }
    };
    // This is why a refusal lingers: shut down writing, read away what still comes, only then close.
    assert_eq!(end, ErrorKind::ConnectionReset);
    assert!(taken < written, "{taken} of {written}");
}

#[test]
fn close_with_nothing_unread_sends_all_then_fin() {
    let (_watch, mut ours, mut peer) = watched_pair();
    let block = vec![0; 256 * 1024];
    let mut written = 0;
    while let Ok(n) = ours.write(&block) {
        written += n;
    }
    drop(ours);
    let mut all = Vec::new();
    peer.read_to_end(&mut all).unwrap();
    assert_eq!(all.len(), written);
}

#[test]
fn close_removes_from_epoll() {
    let (mut watch, ours, mut peer) = watched_pair();
    peer.write_all(b"x").unwrap();
    drop(ours);
    watch.none();
}

#[test]
fn an_event_already_taken_survives_close() {
    let (mut ours, mut peer) = pair();
    peer.write_all(b"x").unwrap();
    let mut watch = Watch::new(&mut ours);
    watch.poll.poll(&mut watch.events, Some(SOON)).unwrap();
    drop(ours);
    // It is in our hands and names a socket that is gone: so sessions are freed last, when no event is in hand.
    assert_eq!(watch.events.iter().map(Event::token).collect::<Vec<_>>(), [Token(0)]);
}

// Listeners that go.

#[test]
fn a_filter_keeps_new_handshakes_from_a_listener() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    let mut before = TcpStream::connect(to).unwrap();
    // As in `sys/accept`: of the flags SYN and ACK, SYN alone is dropped.
    let code =
        [(0x30, 0, 0, 13), (0x54, 0, 0, 0x12), (0x15, 0, 1, 2), (0x06, 0, 0, 0), (0x06, 0, 0, u32::MAX)];
    let no_syn = code.map(|(code, yes, no, operand)| SockFilter::new(code, yes, no, operand));
    SockRef::from(&listener).attach_filter(&no_syn).unwrap();
    assert_eq!(
        error_of(TcpStream::connect_timeout(&to, QUIET)),
        ErrorKind::TimedOut,
        "neither taken nor refused"
    );
    let (mut accepted, _) = listener.accept().unwrap();
    accepted.write_all(b"x").unwrap();
    assert_eq!(before.read(&mut [0; 8]).unwrap(), 1, "who was in the queue is a connection like any other");
}

// UDP, for the resolver.

#[test]
fn connected_udp_hears_of_a_closed_port() {
    // Connected to somebody else, a socket takes nothing from us: for us the port is closed, and yet nobody can get it.
    let closed = UdpSocket::bind("127.0.0.1:0").unwrap();
    closed.connect("127.0.0.1:9").unwrap();
    let to = closed.local_addr().unwrap();
    let ours = UdpSocket::bind("127.0.0.1:0").unwrap();
    ours.connect(to).unwrap();
    ours.set_read_timeout(Some(SOON)).unwrap();
    ours.send(b"question").unwrap();
    assert_eq!(
        error_of(ours.recv(&mut [0; 8])),
        ErrorKind::ConnectionRefused,
        "a dead server on this host is known at once"
    );
    ours.set_nonblocking(true).unwrap();
    assert_eq!(error_of(ours.recv(&mut [0; 8])), ErrorKind::WouldBlock, "told once; the socket lives on");
}

#[test]
fn connected_udp_takes_nothing_from_strangers() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    let ours = UdpSocket::bind("127.0.0.1:0").unwrap();
    ours.connect(server.local_addr().unwrap()).unwrap();
    ours.set_nonblocking(true).unwrap();
    stranger.send_to(b"forged", ours.local_addr().unwrap()).unwrap();
    assert_eq!(error_of(ours.recv(&mut [0; 8])), ErrorKind::WouldBlock);
    server.send_to(b"real", ours.local_addr().unwrap()).unwrap();
    assert_eq!(ours.recv(&mut [0; 8]).unwrap(), 4);
}
