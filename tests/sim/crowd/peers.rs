//! Clients, and the origins that they ask.

use std::net::{IpAddr, SocketAddr};

use super::{NAMES, Plot, SHOWN, World};
use crate::Random;
use crate::http::content;
use crate::socket::Socket;

/// How the proxy ended a client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Fin,
    Reset,
}

#[derive(Debug)]
pub(super) struct Request {
    pub(super) name: &'static str,
    pub(super) is_tunnel: bool,
    /// Whose credentials it shows: a place in [`SHOWN`].
    pub(super) shown: usize,
    /// How many settings there had been when its first byte was sent.
    pub(super) begun: usize,
    /// Through the tunnel.
    up: Vec<u8>,
    /// Through the tunnel, or the answer.
    down: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Not connected yet.
    Absent,
    Asking,
    Waiting,
    Tunnel,
    Over,
}

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    pub(super) requests: Vec<Request>,
    /// The present request.
    pub(super) at: usize,
    pub(super) state: State,
    pub(super) socket: Socket,
    pub(super) key: Option<usize>,
    /// It was one too many.
    pub(super) is_refused: bool,
    came: Vec<u8>,
    pub(super) ending: Option<Ending>,
    pub(super) statuses: Vec<u16>,
    /// What the access log says.
    pub(super) lines: Vec<(String, Option<u16>)>,
    /// It resets when so much of its script is done.
    resets: bool,
    pub(super) has_reset: bool,
}

impl Peer {
    pub(super) fn new(number: usize, random: &mut Random) -> Peer {
        let address = SocketAddr::from(([10, 0, 0, 7 + random.below(3) as u8], 4_000 + number as u16));
        let count = 1 + random.below(4);
        let requests: Vec<Request> = (0..count)
            .map(|at| {
                let size = random.pick(&[0, 10, 300, 5_000]);
                Request {
                    name: if random.one_in(12) { NAMES[4] } else { NAMES[random.below(4)] },
                    is_tunnel: at + 1 == count && random.one_in(3),
                    shown: random.pick(&[0, 0, 0, 1, 1, 2]),
                    begun: 0,
                    up: content(number * 8 + at, 5, random.below(size + 1)),
                    down: content(number * 8 + at, 6, random.below(size + 1)),
                }
            })
            .collect();
        Peer {
            address,
            requests,
            at: 0,
            state: State::Absent,
            socket: Socket { capacity: 60_000, connected: true, ..Socket::default() },
            key: None,
            is_refused: false,
            came: Vec::new(),
            ending: None,
            statuses: Vec::new(),
            lines: Vec::new(),
            resets: random.one_in(3),
            has_reset: false,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.state == State::Over
    }

    fn head(&self, number: usize) -> Vec<u8> {
        let Request { name, is_tunnel, shown, .. } = &self.requests[self.at];
        let target = match is_tunnel {
            true => format!("CONNECT {name}:443"),
            false => format!("GET http://{name}/p{number}r{}", self.at),
        };
        let authorization = format!("Proxy-Authorization: Basic {}", SHOWN[*shown].1);
        format!("{target} HTTP/1.1\r\nHost: {name}\r\n{authorization}\r\n\r\n").into_bytes()
    }
}

/// A connection to an origin.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) name: String,
    pub(super) address: IpAddr,
    is_tunnel: bool,
    pub(super) owner: Option<(usize, u8)>,
    pub(super) is_open: bool,
    /// How many settings there had been when it was dialed, or written to last.
    pub(super) settings: usize,
    pub(super) socket: Socket,
    came: Vec<u8>,
    /// Of the tunnel: a peer, and its request.
    tunnel: Option<(usize, usize)>,
}

impl Connection {
    pub(super) fn new(
        name: String,
        address: IpAddr,
        is_tunnel: bool,
        owner: (usize, u8),
        socket: Socket,
    ) -> Connection {
        let (came, tunnel) = (Vec::new(), None);
        Connection {
            name,
            address,
            is_tunnel,
            owner: Some(owner),
            is_open: true,
            settings: 0,
            socket,
            came,
            tunnel,
        }
    }

    pub(super) fn close(&mut self) {
        assert!(self.is_open, "closed twice");
        self.is_open = false;
        self.owner = None;
    }
}

impl World {
    pub(super) fn a_peer_acts(&mut self) -> bool {
        let count = self.peers.len();
        let first = self.random.below(count);
        (0..count).any(|offset| self.peer_acts((first + offset) % count))
    }

    fn peer_acts(&mut self, number: usize) -> bool {
        let may_reset = matches!(self.plot, Plot::Resets | Plot::Everything);
        let peer = &mut self.peers[number];
        if peer.state != State::Absent
            && !peer.is_over()
            && may_reset
            && peer.resets
            && self.random.one_in(12)
        {
            peer.socket.reset();
            peer.has_reset = true;
            peer.state = State::Over;
            self.note("client resets");
            return true;
        }
        self.peer_receives(number) || self.peer_sends(number)
    }

    fn peer_sends(&mut self, number: usize) -> bool {
        let settings = self.settings.len();
        let count = self.random.pick(&[1, 30, 9_000]);
        let peer = &mut self.peers[number];
        match peer.state {
            State::Absent => {
                peer.state = State::Asking;
                self.outside.push_back(number);
                return true;
            }
            State::Over => {
                // Its end, once.
                let goes = !std::mem::replace(&mut peer.socket.fin, true);
                peer.socket.edge |= goes;
                return goes && peer.key.is_some();
            }
            State::Asking => {
                peer.socket.to_send = peer.head(number);
                let at = peer.at;
                peer.requests[at].begun = settings;
                peer.state = State::Waiting;
            }
            State::Waiting | State::Tunnel => {}
        }
        let socket = &mut peer.socket;
        if peer.ending == Some(Ending::Reset) || socket.fin {
            return false;
        }
        if socket.to_send.is_empty() {
            let ends = peer.state == State::Tunnel;
            socket.fin = ends;
            socket.edge |= ends;
            return ends;
        }
        let count = count.min(socket.to_send.len());
        socket.inbox.extend(socket.to_send.drain(..count));
        socket.edge = true;
        true
    }

    fn peer_receives(&mut self, number: usize) -> bool {
        let count = self.random.pick(&[10, 3_000, 60_000]);
        let peer = &mut self.peers[number];
        if peer.is_over() || peer.state == State::Absent {
            return false;
        }
        let bytes = peer.socket.receive(count);
        if bytes.is_empty() {
            let is_shut = peer.socket.shut && peer.socket.outbox.is_empty();
            if is_shut {
                peer.ending.get_or_insert(Ending::Fin);
                self.check_ending(number);
                self.peers[number].state = State::Over;
            }
            return is_shut;
        }
        peer.came.extend(bytes);
        if peer.state == State::Waiting {
            self.read_answer(number);
        }
        let peer = &self.peers[number];
        if peer.state == State::Tunnel {
            let down = &peer.requests[peer.at].down;
            assert!(down.starts_with(&peer.came), "the tunnel has other bytes");
        }
        true
    }

    fn read_answer(&mut self, number: usize) {
        let peer = &mut self.peers[number];
        let Some(end) = find(&peer.came, b"\r\n\r\n") else { return };
        let head = String::from_utf8(peer.came[..end].to_vec()).unwrap();
        let status: u16 = head[9..12].parse().unwrap();
        let field = |name: &str| {
            head.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_string())
        };
        let request = &peer.requests[peer.at];
        if status == 200 && request.is_tunnel {
            peer.came.drain(..end + 4);
            peer.socket.to_send = request.up.clone();
            peer.state = State::Tunnel;
            peer.statuses.push(status);
            self.note("tunnel");
            return self.check_status(number, status, None);
        }
        let length: usize = field("Content-Length:").expect("no length").parse().unwrap();
        if peer.came.len() < end + 4 + length {
            return;
        }
        let body: Vec<u8> = peer.came.drain(..end + 4 + length).skip(end + 4).collect();
        assert!(peer.came.is_empty(), "an answer to nothing");
        let closes = field("Connection:").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        peer.statuses.push(status);
        if status == 200 {
            assert_eq!(field("X-Token:"), Some(format!("p{number}r{}", peer.at)), "another one's answer");
            assert_eq!(body, request.down, "the body has other bytes");
        }
        let details = field("Proxy-Status:");
        let at = peer.at;
        self.check_status(number, status, details.as_deref());
        let peer = &mut self.peers[number];
        peer.at = at + 1;
        let is_last = closes || peer.at == peer.requests.len();
        peer.state = if is_last { State::Over } else { State::Asking };
        if status == 200 {
            self.note("answer");
        }
    }

    pub(super) fn an_origin_acts(&mut self) -> bool {
        let count = self.connections.len();
        let first = self.random.below(count);
        (0..count).any(|offset| self.origin_acts((first + offset) % count))
    }

    fn origin_acts(&mut self, id: usize) -> bool {
        let settings = self.settings.len();
        let connection = &mut self.connections[id];
        if !connection.is_open {
            return false;
        }
        let socket = &mut connection.socket;
        if !socket.connected {
            socket.connected = true;
            socket.edge = true;
            connection.settings = settings;
            if connection.is_tunnel {
                let peer = self.entries[connection.owner.unwrap().0].peer;
                let at = self.peers[peer].at;
                connection.tunnel = Some((peer, at));
                connection.socket.to_send = self.peers[peer].requests[at].down.clone();
            }
            return true;
        }
        self.origin_receives(id) || self.origin_sends(id)
    }

    fn origin_receives(&mut self, id: usize) -> bool {
        let count = self.random.pick(&[10, 9_000]);
        let settings = self.settings.len();
        let connection = &mut self.connections[id];
        let bytes = connection.socket.receive(count);
        if bytes.is_empty() {
            return false;
        }
        connection.came.extend(bytes);
        if let Some((peer, at)) = connection.tunnel {
            let up = &self.peers[peer].requests[at].up;
            assert!(up.starts_with(&connection.came), "the tunnel has other bytes");
            return true;
        }
        let Some(end) = find(&connection.came, b"\r\n\r\n") else { return true };
        let head = String::from_utf8(connection.came.drain(..end + 4).collect()).unwrap();
        assert!(connection.came.is_empty() && connection.socket.to_send.is_empty(), "behind half an answer");
        let token = head.strip_prefix("GET /").unwrap().split(' ').next().unwrap();
        let (peer, at) = token.strip_prefix('p').unwrap().split_once('r').unwrap();
        let (peer, at): (usize, usize) = (peer.parse().unwrap(), at.parse().unwrap());
        let request = &self.peers[peer].requests[at];
        assert_eq!(request.name, connection.name, "a request to another origin");
        assert!(!head.contains("Proxy-Authorization"), "credentials go nowhere else");
        connection.settings = settings;
        let head =
            format!("HTTP/1.1 200 OK\r\nX-Token: {token}\r\nContent-Length: {}\r\n\r\n", request.down.len());
        connection.socket.to_send = [head.into_bytes(), request.down.clone()].concat();
        true
    }

    fn origin_sends(&mut self, id: usize) -> bool {
        let count = self.random.pick(&[1, 300, 9_000]);
        let connection = &mut self.connections[id];
        let socket = &mut connection.socket;
        if socket.fin {
            return false;
        }
        if socket.to_send.is_empty() {
            let ends = match connection.tunnel {
                Some((peer, at)) => connection.came.len() == self.peers[peer].requests[at].up.len(),
                // Of those that are idle, some are ended.
                None => connection.owner.is_none() && self.random.one_in(40),
            };
            socket.fin = ends;
            socket.edge |= ends;
            return ends;
        }
        let count = count.min(socket.to_send.len());
        socket.inbox.extend(socket.to_send.drain(..count));
        socket.edge = true;
        true
    }

    /// What new settings must leave alone.
    pub(super) fn note_what_runs(&mut self) {
        if self.peers.iter().any(|peer| peer.state == State::Tunnel) {
            self.note("new settings under a tunnel");
        }
        if self.entries.iter().any(|(_, entry)| entry.looking_up) {
            self.note("new settings during a lookup");
        }
        if !self.waiting.is_empty() {
            self.note("new settings while credentials wait");
        }
    }

    /// All that the tunnel was to bring is there.
    pub(super) fn is_whole(&self, number: usize) -> bool {
        let peer = &self.peers[number];
        let request = &peer.requests[peer.at];
        let is_ours = |connection: &&Connection| connection.tunnel == Some((number, peer.at));
        let up = self.connections.iter().filter(is_ours).map(|connection| connection.came.len()).max();
        peer.came == request.down && up == Some(request.up.len())
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
