//! Every state of a connection, ended from either side by a reset, a FIN or a close, with bytes under way where there can be some, and all
//! of it once more while the proxy drains. What arrives is the beginning of what was sent (all of it after a FIN), everything is
//! released, and one access line says what happened. A state is a function that brings a connection there; a row of a table
//! says how it is ended, and which status and last word are written.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use socket2::SockRef;

use support::client::connect_head;
use support::dns_server::{Answer, DnsServer};
use support::http_origin::ByHand;
use support::origin::BlackHole;
use support::proxy::Proxy;
use support::wire::{Framing, Message, Wire, ok, request};
use support::{Beside, DEADLINE, Ending, Pattern, until};

use By::{Client, Upstream};
use How::{Close, Fin, Reset};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Client,
    Upstream,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// A RST.
    Reset,
    /// No more bytes, while those of the other side are still read.
    Fin,
    /// The socket is closed: a FIN, and a RST where something was not read.
    Close,
}

struct Row {
    name: &'static str,
    state: fn(&mut Stage) -> Scene,
    by: By,
    how: How,
    /// Status and last word of the access line.
    wanted: (&'static str, &'static str),
}

macro_rules! rows {
    ($($state:ident $by:ident $how:ident => $status:literal $word:literal,)+) => {
        &[$(Row { name: stringify!($state), state: $state, by: $by, how: $how, wanted: ($status, $word) }),+]
    };
}

/// Everything that a scene may need.
struct Stage {
    proxy: Proxy,
    beside: Beside,
    origin: ByHand,
    hole: BlackHole,
    dns: DnsServer,
    /// Access lines that there must be.
    lines: usize,
}

/// Both ends of a connection through the proxy.
struct Scene {
    client: Peer,
    upstream: Option<Peer>,
}

struct Peer {
    wire: Wire,
    reads: Reads,
    /// Bytes of its pattern that it has sent.
    sent: usize,
}

/// What may still arrive.
enum Reads {
    /// The beginning of this.
    Tunnel(&'static [u8]),
    /// The body of this message, which is the beginning of the other side's pattern.
    Body(Message),
    /// An answer of the proxy's own, or none.
    Answer,
    Nothing,
}

impl Peer {
    fn new(wire: Wire, reads: Reads) -> Peer {
        Peer { wire, reads, sent: 0 }
    }

    /// No more bytes from here. Who has been reset has no more anyway.
    fn finish(&self) {
        drop(self.wire.stream.shutdown(Shutdown::Write));
    }

    /// How many bytes of the other's pattern still arrive, and how that ends.
    fn rest(mut self, pattern: &[u8]) -> (usize, Ending) {
        let (bytes, ending) = match self.reads {
            Reads::Body(ref mut message) => {
                self.wire.read_body(message);
                (std::mem::take(&mut message.body), message.cut.unwrap_or(Ending::Eof))
            }
            Reads::Tunnel(_) | Reads::Answer | Reads::Nothing => self.wire.read_rest(),
        };
        let is_right = match self.reads {
            Reads::Tunnel(whole) => whole.starts_with(&bytes),
            Reads::Body(_) => pattern.starts_with(&bytes),
            Reads::Answer => bytes.is_empty() || bytes.starts_with(b"HTTP/1.1 "),
            Reads::Nothing => bytes.is_empty(),
        };
        assert!(is_right, "{} bytes are not the beginning of what was sent", bytes.len());
        (bytes.len(), ending)
    }

    /// Whether the end of the connection is the end of what it reads: only a reset shows that something is missing.
    fn reads_until_close(&self) -> bool {
        match &self.reads {
            Reads::Tunnel(_) => true,
            Reads::Body(message) => message.framing == Framing::UntilClose,
            Reads::Answer | Reads::Nothing => false,
        }
    }
}

/// What clients and what origins send: more than fits into all buffers on the way.
const PATTERN_BYTES: usize = 24 << 20;
static UP: LazyLock<Vec<u8>> = LazyLock::new(|| pattern(1));
static DOWN: LazyLock<Vec<u8>> = LazyLock::new(|| pattern(2));

fn pattern(seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; PATTERN_BYTES];
    Pattern::new(seed).fill(&mut bytes);
    bytes
}

impl Stage {
    fn set() -> Stage {
        let dns = DnsServer::start(|_| Answer::Silent);
        let proxy = Proxy::asking(&dns, &["--dial-timeout", "30", "--resolve-timeout", "30"]);
        let beside = Beside::of(&proxy);
        Stage { proxy, beside, origin: ByHand::open(), hole: BlackHole::open(), dns, lines: 0 }
    }

    /// A client that takes little at a time.
    fn client(&self) -> Wire {
        narrow(self.proxy.wire())
    }

    fn accept(&self) -> Wire {
        narrow(self.origin.accept())
    }

    fn tunnel(&self) -> (Wire, Wire) {
        let mut client = self.client();
        client.send(connect_head(&self.origin.addr.to_string()));
        let upstream = self.accept();
        assert_eq!(client.read_head().status(), 200);
        (client, upstream)
    }

    /// Sends of the pattern until nothing more fits anywhere on the way.
    fn flood(&mut self, stream: &TcpStream, pattern: &[u8]) -> usize {
        let (mut stream, mut sent, mut stuck_at) = (stream, 0, None);
        stream.set_nonblocking(true).unwrap();
        while stuck_at != Some(sent) {
            stuck_at = Some(sent);
            while let Ok(count) = stream.write(&pattern[sent..]) {
                assert!(count > 0, "all of the pattern has been taken");
                sent += count;
            }
            self.beside.turns();
        }
        stream.set_nonblocking(false).unwrap();
        sent
    }
}

fn narrow(wire: Wire) -> Wire {
    SockRef::from(&wire.stream).set_recv_buffer_size(64 * 1024).unwrap();
    wire
}

// States of a CONNECT.

fn head_incomplete(stage: &mut Stage) -> Scene {
    let mut client = stage.client();
    client.send("CONNECT 127.0.0.1:4");
    stage.beside.turns();
    Scene { client: Peer::new(client, Reads::Answer), upstream: None }
}

fn resolving(stage: &mut Stage) -> Scene {
    let mut client = stage.client();
    client.send(connect_head("stuck.test:443") + "early");
    stage.dns.asked();
    Scene { client: Peer::new(client, Reads::Answer), upstream: None }
}

fn resolving_full(stage: &mut Stage) -> Scene {
    let scene = resolving(stage);
    stage.flood(&scene.client.wire.stream, &UP);
    scene
}

fn dialing(stage: &mut Stage) -> Scene {
    let mut client = stage.client();
    client.send(connect_head(&stage.hole.addr.to_string()) + "early");
    stage.beside.turns();
    Scene { client: Peer::new(client, Reads::Answer), upstream: None }
}

fn dialing_full(stage: &mut Stage) -> Scene {
    let scene = dialing(stage);
    stage.flood(&scene.client.wire.stream, &UP);
    scene
}

static ANSWER: LazyLock<String> = LazyLock::new(|| {
    format!("HTTP/1.1 200 Connection established\r\nProxy-Agent: adit/{}\r\n\r\n", env!("CARGO_PKG_VERSION"))
});

/// The client has not read the answer yet.
fn answered(stage: &mut Stage) -> Scene {
    let mut client = stage.client();
    client.send(connect_head(&stage.origin.addr.to_string()));
    let upstream = stage.accept();
    stage.beside.turns();
    Scene {
        client: Peer::new(client, Reads::Tunnel(ANSWER.as_bytes())),
        upstream: Some(Peer::new(upstream, Reads::Nothing)),
    }
}

fn tunnel_idle(stage: &mut Stage) -> Scene {
    let (mut client, mut upstream) = stage.tunnel();
    client.send("ping");
    assert_eq!(upstream.read_n(4), b"ping");
    upstream.send("pong");
    assert_eq!(client.read_n(4), b"pong");
    Scene {
        client: Peer::new(client, Reads::Tunnel(b"")),
        upstream: Some(Peer::new(upstream, Reads::Tunnel(b""))),
    }
}

/// These two send until nothing fits any more.
fn full(stage: &mut Stage, (client, upstream): (Wire, Wire), senders: &[By]) -> Scene {
    let mut client = Peer::new(client, Reads::Tunnel(&DOWN));
    let mut upstream = Peer::new(upstream, Reads::Tunnel(&UP));
    if senders.contains(&Client) {
        client.sent = stage.flood(&client.wire.stream, &UP);
    }
    if senders.contains(&Upstream) {
        upstream.sent = stage.flood(&upstream.wire.stream, &DOWN);
    }
    Scene { client, upstream: Some(upstream) }
}

fn tunnel_full_up(stage: &mut Stage) -> Scene {
    let ends = stage.tunnel();
    full(stage, ends, &[Client])
}

fn tunnel_full_down(stage: &mut Stage) -> Scene {
    let ends = stage.tunnel();
    full(stage, ends, &[Upstream])
}

fn tunnel_full(stage: &mut Stage) -> Scene {
    let ends = stage.tunnel();
    full(stage, ends, &[Client, Upstream])
}

/// The upstream has been told so.
fn client_finished(stage: &mut Stage) -> Scene {
    let mut scene = tunnel_full_down(stage);
    scene.client.finish();
    stage.beside.turns();
    scene.upstream.as_mut().unwrap().reads = Reads::Nothing;
    scene
}

fn client_finished_full(stage: &mut Stage) -> Scene {
    let scene = tunnel_full(stage);
    scene.client.finish();
    stage.beside.turns();
    scene
}

/// The client has been told so.
fn upstream_finished(stage: &mut Stage) -> Scene {
    let mut scene = tunnel_full_up(stage);
    scene.upstream.as_ref().unwrap().finish();
    stage.beside.turns();
    scene.client.reads = Reads::Nothing;
    scene
}

fn upstream_finished_full(stage: &mut Stage) -> Scene {
    let scene = tunnel_full(stage);
    scene.upstream.as_ref().unwrap().finish();
    stage.beside.turns();
    scene
}

// States of plain HTTP.

/// A body that is longer than whatever is sent of it.
const LENGTH: &str = "Content-Length: 1000000000\r\n";
const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";
const CHUNK: &str = "3B9ACA00\r\n";
const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\n";

/// With this request on its way; the upstream has its head.
fn request_sent(stage: &mut Stage, request: String) -> (Scene, Message) {
    let mut client = stage.client();
    client.send(request);
    let mut upstream = stage.accept();
    let head = upstream.read_head();
    let upstream = Some(Peer::new(upstream, Reads::Nothing));
    (Scene { client: Peer::new(client, Reads::Answer), upstream }, head)
}

fn asked(stage: &mut Stage) -> Scene {
    let request = request("GET", &stage.origin.url("/"), "");
    request_sent(stage, request).0
}

fn pipelined(stage: &mut Stage) -> Scene {
    let requests = request("GET", &stage.origin.url("/"), "").repeat(3);
    request_sent(stage, requests).0
}

fn body_up(stage: &mut Stage, fields: &str, chunk: &str, framing: Framing) -> Scene {
    let request = request("PUT", &stage.origin.url("/"), fields) + chunk;
    let (mut scene, head) = request_sent(stage, request);
    scene.upstream.as_mut().unwrap().reads = Reads::Body(Message { framing, ..head });
    scene.client.sent = stage.flood(&scene.client.wire.stream, &UP);
    scene
}

fn body_up_length(stage: &mut Stage) -> Scene {
    body_up(stage, LENGTH, "", Framing::Length)
}

fn body_up_chunked(stage: &mut Stage) -> Scene {
    body_up(stage, CHUNKED, CHUNK, Framing::Chunked)
}

fn response_head_incomplete(stage: &mut Stage) -> Scene {
    let mut scene = asked(stage);
    scene.upstream.as_mut().unwrap().wire.send("HTTP/1.1 200 OK\r\nContent-Le");
    stage.beside.turns();
    scene
}

fn body_down(stage: &mut Stage, fields: &str, chunk: &str, framing: Framing) -> Scene {
    let mut scene = asked(stage);
    let upstream = scene.upstream.as_mut().unwrap();
    upstream.wire.send(format!("HTTP/1.1 200 OK\r\n{fields}\r\n{chunk}"));
    let head = scene.client.wire.read_head();
    scene.client.reads = Reads::Body(Message { framing, ..head });
    upstream.sent = stage.flood(&upstream.wire.stream, &DOWN);
    scene
}

fn body_down_length(stage: &mut Stage) -> Scene {
    body_down(stage, LENGTH, "", Framing::Length)
}

fn body_down_chunked(stage: &mut Stage) -> Scene {
    body_down(stage, CHUNKED, CHUNK, Framing::Chunked)
}

fn body_down_until_close(stage: &mut Stage) -> Scene {
    body_down(stage, "", "", Framing::UntilClose)
}

fn pooled(stage: &mut Stage) -> Scene {
    let mut scene = asked(stage);
    scene.upstream.as_mut().unwrap().wire.send(ok("ok"));
    assert_eq!(scene.client.wire.read_response("GET").text(), "ok");
    scene
}

/// The connection to the upstream is nobody's by now.
fn kept_alive(stage: &mut Stage) -> Scene {
    Scene { upstream: None, ..pooled(stage) }
}

fn upgrade_asked(stage: &mut Stage) -> Scene {
    let request = request("GET", &stage.origin.url("/"), UPGRADE);
    request_sent(stage, request).0
}

fn upgraded(stage: &mut Stage) -> Scene {
    let request = request("GET", &stage.origin.url("/"), UPGRADE);
    let (Scene { mut client, upstream }, _) = request_sent(stage, request);
    let mut upstream = upstream.unwrap();
    upstream.wire.send(format!("HTTP/1.1 101 Switching Protocols\r\n{UPGRADE}\r\n"));
    assert_eq!(client.wire.read_head().status(), 101);
    full(stage, (client.wire, upstream.wire), &[Client, Upstream])
}

// The play.

impl Stage {
    /// Tells the proxy to end, and returns when its loop has begun to.
    fn drain(&mut self) {
        let mut idle = self.proxy.wire();
        idle.send(request("OPTIONS", "http://127.0.0.1:1/", "Max-Forwards: 0\r\n"));
        idle.read_response("OPTIONS");
        self.lines += 1;
        self.proxy.signal(Signal::TERM);
        assert_eq!(idle.read_end(), Ending::Eof, "a drain ends idle connections");
    }

    /// Ends the scene as the row says; what was written that is not wanted.
    fn play(&mut self, row: &Row, Scene { client, upstream }: Scene) -> Option<String> {
        let name = format!("{}, {:?} {:?}", row.name, row.by, row.how);
        println!("{name}");
        let local = client.wire.local;
        let sent = [client.sent, upstream.as_ref().map_or(0, |peer| peer.sent)];
        let (leaves, stays) = match row.by {
            Client => (client, upstream),
            Upstream => (upstream.unwrap(), Some(client)),
        };
        let (of_leaves, of_stays): (&[u8], &[u8]) =
            if row.by == Client { (&UP, &DOWN) } else { (&DOWN, &UP) };
        let shows_only_by_reset = row.how == Reset && stays.as_ref().is_some_and(Peer::reads_until_close);
        let leaves = match row.how {
            Reset => {
                leaves.wire.reset();
                None
            }
            Close => {
                drop(leaves);
                None
            }
            Fin => {
                leaves.finish();
                Some(leaves)
            }
        };
        self.beside.turns();
        // Both read at once: what is on its way to one may hold up the other.
        let reading = leaves.map(|peer| std::thread::spawn(move || peer.rest(of_stays)));
        let arrived = stays.map(|peer| {
            // An upstream that only waits is told that its client has left; who sends has to come to its end.
            if row.by == Upstream || peer.sent > 0 {
                peer.finish();
            }
            peer.rest(of_leaves)
        });
        let back = reading.map(|reading| reading.join().unwrap());
        for (_, ending) in [arrived, back].into_iter().flatten() {
            assert_ne!(ending, Ending::Silence, "{name}");
        }
        if let Some((_, ending)) = arrived
            && shows_only_by_reset
        {
            assert_eq!(ending, Ending::Reset, "{name}");
        }
        self.lines += 1;
        let access = self.proxy.access_of(local);
        if row.how == Fin && access.end == "done" {
            let expected = if row.by == Client { sent } else { [sent[1], sent[0]] };
            let all = [arrived, back].map(|peer| peer.map_or(0, |(bytes, _)| bytes));
            assert!(
                all[0] >= expected[0] && all[1] >= expected[1],
                "{name}: {all:?} of {expected:?} have arrived"
            );
        }
        let written = (access.status.as_str(), access.end.as_str());
        (written != row.wanted).then(|| format!("{name}: {written:?}, {arrived:?} {back:?}"))
    }
}

/// Brings a connection to each state and ends it.
fn play(rows: &[Row]) {
    let mut wrong = vec![];
    let mut stage = Stage::set();
    for row in rows {
        let before = stage.proxy.descriptors();
        stage.origin = ByHand::open();
        let scene = (row.state)(&mut stage);
        wrong.extend(stage.play(row, scene));
        until("its descriptors to be closed", || (stage.proxy.descriptors() == before).then_some(()));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let lines = stage.proxy.access.all();
    assert_eq!(lines.len(), stage.lines, "one line each: {lines:#?}");
}

/// The same while the proxy drains: then it ends.
fn play_in_a_drain(rows: &[Row]) {
    let play = |row: &Row| {
        let mut stage = Stage::set();
        let scene = (row.state)(&mut stage);
        stage.drain();
        let wrong = stage.play(row, scene);
        let Stage { mut proxy, beside, lines, .. } = stage;
        drop(beside);
        assert_eq!(proxy.ended().code(), Some(0));
        assert_eq!(proxy.access.all().len(), lines + 1, "one line each, and that of the tunnel beside");
        wrong
    };
    let mut wrong = vec![];
    // Each has to wait for the listener to be closed.
    for some in rows.chunks(4) {
        std::thread::scope(|threads| {
            let plays: Vec<_> = some.iter().map(|row| threads.spawn(move || play(row))).collect();
            wrong.extend(plays.into_iter().flat_map(|play| play.join().unwrap()));
        });
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

const CONNECT: &[Row] = rows![
    resolving Client Reset => "-" "client_reset",
    resolving Client Fin => "-" "client_left",
    resolving Client Close => "-" "client_left",
    resolving_full Client Reset => "-" "client_reset",
    dialing Client Reset => "-" "client_reset",
    dialing Client Fin => "-" "client_left",
    dialing Client Close => "-" "client_left",
    dialing_full Client Reset => "-" "client_reset",
    answered Client Reset => "200" "client_reset",
    answered Client Fin => "200" "done",
    answered Client Close => "200" "client_reset",
    answered Upstream Reset => "200" "upstream_reset",
    answered Upstream Fin => "200" "done",
    answered Upstream Close => "200" "done",
];

const TUNNEL: &[Row] = rows![
    tunnel_idle Client Reset => "200" "client_reset",
    tunnel_idle Client Fin => "200" "done",
    tunnel_idle Client Close => "200" "done",
    tunnel_idle Upstream Reset => "200" "upstream_reset",
    tunnel_idle Upstream Fin => "200" "done",
    tunnel_idle Upstream Close => "200" "done",
    tunnel_full_up Client Reset => "200" "client_reset",
    tunnel_full_up Client Fin => "200" "done",
    tunnel_full_up Client Close => "200" "done",
    tunnel_full_up Upstream Reset => "200" "upstream_reset",
    tunnel_full_up Upstream Fin => "200" "done",
    tunnel_full_up Upstream Close => "200" "upstream_reset",
    tunnel_full_down Client Reset => "200" "client_reset",
    tunnel_full_down Client Fin => "200" "done",
    tunnel_full_down Client Close => "200" "client_reset",
    tunnel_full_down Upstream Reset => "200" "upstream_reset",
    tunnel_full_down Upstream Fin => "200" "done",
    tunnel_full_down Upstream Close => "200" "done",
    tunnel_full Client Reset => "200" "client_reset",
    tunnel_full Client Fin => "200" "done",
    tunnel_full Client Close => "200" "client_reset",
    tunnel_full Upstream Reset => "200" "upstream_reset",
    tunnel_full Upstream Fin => "200" "done",
    tunnel_full Upstream Close => "200" "upstream_reset",
];

const HALF_CLOSED: &[Row] = rows![
    client_finished Client Reset => "200" "client_reset",
    client_finished Client Close => "200" "client_reset",
    client_finished Upstream Reset => "200" "upstream_reset",
    client_finished Upstream Fin => "200" "done",
    client_finished Upstream Close => "200" "done",
    client_finished_full Client Reset => "200" "client_reset",
    client_finished_full Client Close => "200" "client_reset",
    client_finished_full Upstream Reset => "200" "upstream_reset",
    client_finished_full Upstream Fin => "200" "done",
    client_finished_full Upstream Close => "200" "upstream_reset",
    upstream_finished Client Reset => "200" "client_reset",
    upstream_finished Client Fin => "200" "done",
    upstream_finished Client Close => "200" "done",
    upstream_finished Upstream Reset => "200" "upstream_reset",
    upstream_finished Upstream Close => "200" "upstream_reset",
    upstream_finished_full Client Reset => "200" "client_reset",
    upstream_finished_full Client Fin => "200" "done",
    upstream_finished_full Client Close => "200" "client_reset",
    upstream_finished_full Upstream Reset => "200" "upstream_reset",
    upstream_finished_full Upstream Close => "200" "upstream_reset",
];

const REQUEST: &[Row] = rows![
    asked Client Reset => "-" "client_reset",
    asked Client Fin => "-" "client_left",
    asked Client Close => "-" "client_left",
    asked Upstream Reset => "502" "http_response_incomplete",
    asked Upstream Fin => "502" "http_response_incomplete",
    asked Upstream Close => "502" "http_response_incomplete",
    body_up_length Client Reset => "-" "client_reset",
    body_up_length Upstream Reset => "502" "http_response_incomplete",
    body_up_length Upstream Fin => "502" "http_response_incomplete",
    body_up_length Upstream Close => "502" "http_response_incomplete",
    body_up_chunked Client Reset => "-" "client_reset",
    body_up_chunked Upstream Reset => "502" "http_response_incomplete",
    body_up_chunked Upstream Fin => "502" "http_response_incomplete",
    body_up_chunked Upstream Close => "502" "http_response_incomplete",
    upgrade_asked Client Reset => "-" "client_reset",
    upgrade_asked Client Fin => "-" "client_left",
    upgrade_asked Client Close => "-" "client_left",
    upgrade_asked Upstream Reset => "502" "http_response_incomplete",
    upgrade_asked Upstream Fin => "502" "http_response_incomplete",
    upgrade_asked Upstream Close => "502" "http_response_incomplete",
];

const RESPONSE: &[Row] = rows![
    response_head_incomplete Client Reset => "-" "client_reset",
    response_head_incomplete Client Fin => "-" "client_left",
    response_head_incomplete Client Close => "-" "client_left",
    response_head_incomplete Upstream Reset => "502" "http_response_incomplete",
    response_head_incomplete Upstream Fin => "502" "http_response_incomplete",
    response_head_incomplete Upstream Close => "502" "http_response_incomplete",
    body_down_length Client Reset => "200" "client_reset",
    body_down_length Client Fin => "200" "http_response_incomplete",
    body_down_length Client Close => "200" "client_reset",
    body_down_length Upstream Reset => "200" "upstream_reset",
    body_down_length Upstream Fin => "200" "http_response_incomplete",
    body_down_length Upstream Close => "200" "http_response_incomplete",
    body_down_chunked Client Reset => "200" "client_reset",
    body_down_chunked Client Fin => "200" "http_response_incomplete",
    body_down_chunked Client Close => "200" "client_reset",
    body_down_chunked Upstream Reset => "200" "upstream_reset",
    body_down_chunked Upstream Fin => "200" "http_response_incomplete",
    body_down_chunked Upstream Close => "200" "http_response_incomplete",
    body_down_until_close Client Reset => "200" "client_reset",
    body_down_until_close Client Fin => "200" "done",
    body_down_until_close Client Close => "200" "client_reset",
    body_down_until_close Upstream Reset => "200" "upstream_reset",
    body_down_until_close Upstream Fin => "200" "done",
    body_down_until_close Upstream Close => "200" "done",
    upgraded Client Reset => "101" "client_reset",
    upgraded Client Fin => "101" "done",
    upgraded Client Close => "101" "client_reset",
    upgraded Upstream Reset => "101" "upstream_reset",
    upgraded Upstream Fin => "101" "done",
    upgraded Upstream Close => "101" "upstream_reset",
];

/// In these a drain has its own end, or does not begin before theirs.
const BETWEEN: &[Row] = rows![
    head_incomplete Client Reset => "-" "client_reset",
    head_incomplete Client Fin => "400" "http_request_error",
    head_incomplete Client Close => "400" "http_request_error",
    kept_alive Client Reset => "200" "done",
    kept_alive Client Fin => "200" "done",
    kept_alive Client Close => "200" "done",
    pooled Upstream Reset => "200" "done",
    pooled Upstream Fin => "200" "done",
    pooled Upstream Close => "200" "done",
    pipelined Client Reset => "-" "client_reset",
];

#[test]
fn before_a_tunnel_stands() {
    play(CONNECT);
}

#[test]
fn before_a_tunnel_stands_in_a_drain() {
    play_in_a_drain(CONNECT);
}

#[test]
fn in_a_tunnel() {
    play(TUNNEL);
}

#[test]
fn in_a_tunnel_in_a_drain() {
    play_in_a_drain(TUNNEL);
}

#[test]
fn in_a_half_closed_tunnel() {
    play(HALF_CLOSED);
}

#[test]
fn in_a_half_closed_tunnel_in_a_drain() {
    play_in_a_drain(HALF_CLOSED);
}

#[test]
fn in_a_request() {
    play(REQUEST);
}

#[test]
fn in_a_request_in_a_drain() {
    play_in_a_drain(REQUEST);
}

#[test]
fn in_a_response() {
    play(RESPONSE);
}

#[test]
fn in_a_response_in_a_drain() {
    play_in_a_drain(RESPONSE);
}

#[test]
fn between_exchanges() {
    play(BETWEEN);
}

/// Sends a byte at a time, as long as it is let, a bit faster than any timeout comes.
fn dribble(wire: &mut Wire) {
    let begun = Instant::now();
    while wire.offer("a") && begun.elapsed() < DEADLINE {
        // The pause is what is tested: every byte more is no reason to wait longer.
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(begun.elapsed() < DEADLINE, "it goes on for ever");
}

#[test]
fn a_response_head_that_dribbles_is_not_in_time() {
    let (proxy, origin) = (Proxy::open(&["--response-timeout", "1"]), ByHand::open());
    let mut client = proxy.wire();
    client.get(&origin.url("/"));
    let mut upstream = origin.accept();
    upstream.read_request();
    upstream.send("HTTP/1.1 200 OK\r\nX: ");
    dribble(&mut upstream);
    assert_eq!(client.read_open_refusal().error, "http_response_timeout");
    let access = proxy.access_of(client.local);
    assert_eq!((access.status.as_str(), access.end.as_str()), ("504", "http_response_timeout"));
}

#[test]
fn a_later_head_that_dribbles_is_not_in_time() {
    let (proxy, origin) = (Proxy::open(&["--head-timeout", "1"]), ByHand::open());
    let mut client = proxy.wire();
    client.get(&origin.url("/"));
    let mut upstream = origin.accept();
    upstream.read_request();
    upstream.send(ok("ok"));
    client.read_response("GET");
    proxy.access_of(client.local);
    client.send(format!("GET {}", origin.url("/")));
    dribble(&mut client);
    let access = proxy.access_of(client.local);
    assert_eq!((access.status.as_str(), access.end.as_str()), ("408", "http_request_error"));
}
