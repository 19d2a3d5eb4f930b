//! The peer that answers, one for each connection.

use std::net::IpAddr;

use super::World;
use super::plan::{Answer, End, Exchange, Fault, Framing, Plot};
use super::reader::{Message, Reader, Shape};
use crate::socket::Socket;

/// A connection to an origin, from its first packet on.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) origin: usize,
    /// Port 443, for a tunnel.
    pub(super) is_connect: bool,
    pub(super) address: IpAddr,
    pub(super) socket: Socket,
    /// A session and a place of it. Nobody's while it is idle.
    pub(super) owner: Option<(usize, u8)>,
    /// Not closed by the proxy.
    pub(super) is_open: bool,
    pub(super) reader: Reader,
    /// Answers of which all was sent, and of which the first byte was decided on.
    pub(super) served: usize,
    pub(super) answering: usize,
    continued: usize,
    /// Bytes sent since the last whole answer, interim responses included.
    pub(super) sent_bytes: usize,
    /// What happens behind `to_send`.
    then: Then,
    /// Sent behind a whole answer, while nobody asks, or when the next request is about to be sent.
    late_surplus: bool,
    crossing_surplus: bool,
    /// Bytes that answer nothing were on their way when it was taken for another request.
    pub(super) is_tainted: bool,
    /// They were taken for an answer: each of its answers is one to the request before.
    pub(super) is_behind: bool,
    /// Something was written to it since it was taken.
    pub(super) is_asked: bool,
    /// It does not answer a second request.
    pub(super) dies_when_reused: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// The answer is whole, and the connection is good for another, or it ends.
    Served(Option<End>),
    Ends(End),
    Nothing,
}

const SURPLUS: &[u8] = b"HTTP/1.1 200 Surplus\r\nX-Token: surplus\r\nContent-Length: 3\r\n\r\nabc";

impl Connection {
    pub(super) fn new(origin: usize, is_connect: bool, address: IpAddr, owner: (usize, u8)) -> Connection {
        Connection {
            origin,
            is_connect,
            address,
            socket: Socket::default(),
            owner: Some(owner),
            is_open: true,
            reader: if is_connect { Reader::tunnel() } else { Reader::new() },
            served: 0,
            answering: 0,
            continued: 0,
            sent_bytes: 0,
            then: Then::Nothing,
            late_surplus: false,
            crossing_surplus: false,
            is_tainted: false,
            is_behind: false,
            is_asked: false,
            dies_when_reused: false,
        }
    }

    fn ends(&mut self, end: End) {
        self.socket.to_send.clear();
        self.then = Then::Nothing;
        match end {
            End::Fin => {
                self.socket.fin = true;
                self.socket.edge = true;
                // Whatever comes now is answered with a reset.
                self.socket.deaf = true;
            }
            End::Reset => self.socket.reset(),
        }
    }

    /// As far as the origin knows.
    fn is_idle(&self) -> bool {
        self.served > 0
            && self.served == self.answering
            && self.reader.messages.len() == self.served
            && self.reader.is_between_messages()
            && self.socket.to_send.is_empty()
    }

    fn is_over(&self) -> bool {
        self.socket.fin || self.socket.dead || !self.socket.connected
    }
}

pub(super) fn token_of(message: &Message) -> usize {
    let path = message.start.split(' ').nth(1).unwrap();
    let token = path.strip_prefix("/t").unwrap_or_else(|| panic!("nobody asked for {path}"));
    token.split('?').next().unwrap().parse().unwrap()
}

fn request_shape(message: &Message, all: &[Exchange]) -> Shape {
    let exchange = &all[token_of(message)];
    let (coding, length) = (message.field("Transfer-Encoding"), message.number("Content-Length"));
    assert!(coding.is_none() || length.is_none(), "both: {message:?}");
    match (coding, length) {
        _ if exchange.becomes_tunnel() => Shape::Tunnel,
        (Some("chunked"), _) => Shape::Chunked,
        (Some(coding), _) => panic!("{coding}"),
        (None, Some(length)) => Shape::Length(length),
        (None, None) => Shape::Nothing,
    }
}

impl World {
    /// Bytes that answer nothing cross the next request on its way.
    pub(super) fn origin_interrupts(&mut self, id: usize) {
        let connection = &mut self.connections[id];
        if std::mem::take(&mut connection.crossing_surplus) && connection.is_idle() {
            connection.is_tainted = true;
            connection.socket.inbox.extend_from_slice(SURPLUS);
            connection.socket.edge = true;
            self.note("crossing surplus");
        }
    }

    /// One origin does one thing, if it can.
    pub(super) fn origins_act(&mut self) -> bool {
        let count = self.connections.len();
        let first = self.random.below(count);
        (0..count).any(|offset| {
            let id = (first + offset) % count;
            match self.random.below(3) {
                0 => self.origin_receives(id) || self.origin_decides(id) || self.origin_sends(id),
                1 => self.origin_decides(id) || self.origin_sends(id) || self.origin_receives(id),
                _ => self.origin_sends(id) || self.origin_receives(id) || self.origin_decides(id),
            }
        })
    }

    fn origin_receives(&mut self, id: usize) -> bool {
        let count = 1 + self.random.below(20_000);
        let connection = &mut self.connections[id];
        if connection.socket.outbox.is_empty() {
            return false;
        }
        if connection.socket.deaf {
            connection.socket.reset();
            return true;
        }
        if connection.dies_when_reused && connection.served > 0 && connection.answering == connection.served {
            let end = self.random.pick(&[End::Fin, End::Reset]);
            if self.random.one_in(2) || connection.reader.messages.len() > connection.served {
                connection.ends(end);
                self.note("death of a reused connection");
                return true;
            }
        }
        let bytes = connection.socket.receive(count);
        let heads = connection.reader.messages.len();
        let all = &self.exchanges;
        connection.reader.feed(&bytes, |messages| request_shape(messages.last().unwrap(), all));
        for index in heads..self.connections[id].reader.messages.len() {
            self.check_request_head(id, index);
        }
        self.check_request_body(id);
        true
    }

    /// What is sent next, if it is time for something.
    fn origin_decides(&mut self, id: usize) -> bool {
        let connection = &mut self.connections[id];
        if connection.is_over() || !connection.socket.to_send.is_empty() || connection.then != Then::Nothing {
            return false;
        }
        if connection.is_connect {
            return self.origin_answers_connect(id);
        }
        let idle = connection.is_idle();
        if idle && connection.late_surplus {
            connection.late_surplus = false;
            connection.socket.to_send = SURPLUS.to_vec();
            self.note("late surplus");
            return true;
        }
        if idle && self.plot == Plot::ClosesIdle && self.random.one_in(6) {
            connection.ends(self.random.pick(&[End::Fin, End::Fin, End::Reset]));
            self.note("idle connection ended by its origin");
            return true;
        }
        let Some(message) = connection.reader.messages.get(connection.answering) else { return false };
        let (body_bytes, is_complete) = (message.body.len(), message.is_complete);
        let exchange = &self.exchanges[token_of(message)];
        let answer = &exchange.answer;
        let early = answer.early_at.is_some_and(|at| body_bytes >= at);
        if exchange.expects && connection.continued == connection.answering && answer.early_at != Some(0) {
            connection.continued += 1;
            let token = exchange.token;
            let interim = format!("HTTP/1.1 100 Continue\r\nX-Token: t{token}\r\n\r\n");
            connection.socket.to_send = interim.into_bytes();
            return true;
        }
        if !(is_complete || early || exchange.becomes_tunnel()) {
            return false;
        }
        connection.continued = connection.answering + 1;
        connection.answering += 1;
        let early = !is_complete && !exchange.becomes_tunnel();
        (connection.socket.to_send, connection.then) = sending(answer);
        if exchange.becomes_tunnel() && answer.fault == Fault::Nothing {
            connection.socket.to_send.extend_from_slice(&exchange.tunnel_down);
            connection.then = Then::Ends(End::Fin);
        }
        if answer.fault == (Fault::Surplus { later: true }) {
            connection.late_surplus = self.random.one_in(2);
            connection.crossing_surplus = !connection.late_surplus;
        }
        if early {
            self.note("early answer");
        }
        true
    }

    fn origin_answers_connect(&mut self, id: usize) -> bool {
        let connection = &mut self.connections[id];
        let Some((client, _)) = connection.owner.filter(|_| connection.served == 0) else { return false };
        connection.served = 1;
        let number = *self.clients[client].exchanges.last().unwrap();
        connection.socket.to_send = self.exchanges[number].tunnel_down.clone();
        connection.then = Then::Ends(End::Fin);
        true
    }

    fn origin_sends(&mut self, id: usize) -> bool {
        let count = match self.random.below(4) {
            0 => 1 + self.random.below(20),
            1 => 200_000,
            _ => 1 + self.random.below(5_000),
        };
        let with_end = self.random.one_in(2);
        let connection = &mut self.connections[id];
        let socket = &mut connection.socket;
        if !socket.connected || socket.dead || socket.fin || socket.inbox.len() > 100_000 {
            return false;
        }
        if socket.to_send.is_empty() && connection.then == Then::Nothing {
            return false;
        }
        let count = count.min(socket.to_send.len());
        // Behind all answers, and nothing else is asked for.
        let is_surplus = connection.served > 0 && connection.served == connection.answering;
        socket.inbox.extend(socket.to_send.drain(..count));
        socket.edge |= count > 0;
        connection.sent_bytes += count;
        if let Some((key, _)) = connection.owner
            && is_surplus
        {
            connection.is_tainted = true;
            connection.is_behind |= connection.is_asked;
            self.clients[key].is_poisoned |= connection.is_asked;
        }
        if !socket.to_send.is_empty() || count > 0 && !with_end {
            return true;
        }
        match std::mem::replace(&mut connection.then, Then::Nothing) {
            Then::Served(end) => {
                connection.served += 1;
                connection.sent_bytes = 0;
                if let Some(end) = end {
                    connection.ends(end);
                }
            }
            // In a tunnel, and behind an answer that was cut, it still reads.
            Then::Ends(End::Fin) => {
                socket.fin = true;
                socket.edge = true;
            }
            Then::Ends(End::Reset) => socket.reset(),
            Then::Nothing => {}
        }
        true
    }
}

/// The bytes of an answer, and what comes behind them.
fn sending(answer: &Answer) -> (Vec<u8>, Then) {
    let then = Then::Served(if answer.ends_connection() { Some(End::Fin) } else { None });
    match answer.fault {
        Fault::Nothing | Fault::Surplus { later: true } => (answer.wire.clone(), then),
        Fault::Surplus { later: false } => ([&answer.wire, SURPLUS].concat(), then),
        Fault::Cut { at, end } if at == answer.wire.len() && answer.framing != Framing::UntilClose => {
            (answer.wire.clone(), Then::Served(Some(end)))
        }
        Fault::Cut { at, end } => (answer.wire[..at].to_vec(), Then::Ends(end)),
        // The end never comes: `Nothing` with nothing to send.
        Fault::Silent { at } => (answer.wire[..at].to_vec(), Then::Nothing),
        Fault::BadHead | Fault::BadBody | Fault::UnaskedSwitch | Fault::Flood => {
            (answer.wire.clone(), Then::Nothing)
        }
    }
}
