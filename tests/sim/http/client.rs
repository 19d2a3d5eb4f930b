//! The peer that asks: what it sends and when, and what it has been told.

use std::collections::VecDeque;

use super::plan::{Exchange, Kind, Plot};
use super::reader::{Message, Reader, Shape};
use crate::Random;

/// What must have come before more is sent.
#[derive(Clone, Copy, Debug)]
enum Gate {
    Open,
    /// So many whole answers.
    Answered(usize),
    /// A 100, or the answer itself, to the request of this number.
    Told(usize),
    /// A tunnel instead of the answer of this number.
    Switched(usize),
}

#[derive(Debug)]
struct Segment {
    gate: Gate,
    /// Of which request.
    request: usize,
    bytes: Vec<u8>,
    sent: usize,
}

/// How the proxy ended the client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Fin,
    Reset,
}

#[derive(Debug)]
pub(super) struct Client {
    /// Numbers of the exchanges in the world.
    pub(super) exchanges: Vec<usize>,
    pub(super) reader: Reader,
    /// Messages that will not change any more.
    pub(super) checked: usize,
    segments: VecDeque<Segment>,
    /// Requests of which a byte was sent.
    pub(super) begun: usize,
    /// Answers, other than interim ones, of which the head has come, and of which all has.
    pub(super) told: usize,
    pub(super) answered: usize,
    is_told_to_go_on: bool,
    /// The last answer said that it is the last.
    pub(super) is_last_said: bool,
    /// It ends as soon as it has sent all.
    half_closes: bool,
    /// It does so where it need not send the rest any more.
    pub(super) gives_up: bool,
    /// It ends now, whatever it has not sent.
    pub(super) leaves: bool,
    /// It neither sends nor ends.
    pub(super) is_stuck: bool,
    pub(super) is_deaf: bool,
    pub(super) ending: Option<Ending>,
    /// Bytes that answered nothing crossed its request on their way, or a request of its the end of its connection: what
    /// it was told may be wrong, or be lost, and nobody can help it.
    pub(super) is_poisoned: bool,
}

impl Client {
    pub(super) fn new(numbers: Vec<usize>, all: &[Exchange], plot: Plot, random: &mut Random) -> Client {
        let is_polite = random.one_in(2);
        let mut segments = VecDeque::new();
        for (request, &number) in numbers.iter().enumerate() {
            let exchange = &all[number];
            // Behind what may be the last answer nobody sensible sends anything.
            let waits = is_polite || exchange.kind == Kind::Connect || random.one_in(4);
            let gate = if waits { Gate::Answered(request) } else { Gate::Open };
            let mut add = |gate, bytes: &[u8]| {
                segments.push_back(Segment { gate, request, bytes: bytes.to_vec(), sent: 0 });
            };
            add(gate, &exchange.head);
            if !exchange.body_wire.is_empty() {
                let waits = exchange.expects && !random.one_in(4);
                add(if waits { Gate::Told(request) } else { Gate::Open }, &exchange.body_wire);
            }
            if exchange.becomes_tunnel() {
                // What is sent before the tunnel stands would be a request if it does not come to one.
                let early = plot == Plot::Peaceful && random.one_in(2);
                add(if early { Gate::Open } else { Gate::Switched(request) }, &exchange.tunnel_up);
            }
        }
        Client {
            exchanges: numbers,
            reader: Reader::new(),
            checked: 0,
            segments,
            begun: 0,
            told: 0,
            answered: 0,
            is_told_to_go_on: false,
            is_last_said: false,
            half_closes: plot == Plot::ClientHalfCloses,
            gives_up: random.one_in(2),
            leaves: false,
            is_stuck: false,
            is_deaf: false,
            ending: None,
            is_poisoned: false,
        }
    }

    /// The next bytes it sends, at most `count`, and whether its end comes with them. `None` if it has nothing to say now.
    pub(super) fn sends(&mut self, count: usize, with_fin: bool) -> Option<(Vec<u8>, bool)> {
        self.segments.retain(|segment| segment.sent < segment.bytes.len());
        if self.is_stuck {
            return None;
        }
        if self.is_over() {
            return Some((Vec::new(), true));
        }
        let (told, answered, goes_on) = (self.told, self.answered, self.is_told_to_go_on);
        let is_tunnel = self.is_tunnel();
        let Some(segment) = self.segments.front_mut() else {
            return if self.half_closes || is_tunnel { Some((Vec::new(), true)) } else { None };
        };
        let is_open = match segment.gate {
            Gate::Open => true,
            Gate::Answered(count) => answered >= count,
            Gate::Told(request) => told > request || told == request && goes_on,
            Gate::Switched(request) => told > request && is_tunnel,
        };
        if !is_open {
            return None;
        }
        if matches!(segment.gate, Gate::Told(request) if told > request) && segment.sent == 0 {
            // The answer is here before the body was sent. It is not sent any more, nor is anything else.
            self.segments.clear();
            self.half_closes |= self.gives_up;
            return None;
        }
        let end = segment.bytes.len().min(segment.sent + count);
        let bytes = segment.bytes[segment.sent..end].to_vec();
        segment.sent = end;
        self.begun = self.begun.max(segment.request + 1);
        let is_all = end == segment.bytes.len() && self.segments.len() == 1;
        Some((bytes, with_fin && is_all && (self.half_closes || is_tunnel)))
    }

    fn is_tunnel(&self) -> bool {
        self.reader.messages.last().is_some_and(|message| message.shape == Shape::Tunnel)
    }

    /// Whether it has nothing to wait for any more.
    fn is_over(&self) -> bool {
        let all = self.answered == self.exchanges.len();
        let is_shut = self.ending == Some(Ending::Fin);
        let is_gone = self.leaves || self.ending == Some(Ending::Reset);
        // A tunnel is closed by halves.
        is_gone || self.is_last_said || (is_shut || all) && !self.is_tunnel()
    }

    /// What has come from the proxy.
    pub(super) fn receives(&mut self, bytes: &[u8], all: &[Exchange]) {
        let exchanges = &self.exchanges;
        self.reader.feed(bytes, |messages| {
            let told = messages.iter().filter(|message| message.is_final()).count();
            let message = messages.last().unwrap();
            let number = told - usize::from(message.is_final());
            assert!(number < exchanges.len(), "an answer to nothing: {message:?}");
            response_shape(&all[exchanges[number]], message)
        });
        let finals = self.reader.messages.iter().filter(|message| message.is_final());
        self.told = finals.clone().count();
        self.answered = finals.filter(|message| message.is_complete).count();
        assert!(self.told <= self.begun, "an answer before its request");
        if let Some(last) = self.reader.messages.last() {
            self.is_told_to_go_on = !last.is_final();
            self.is_last_said = last.is_final() && last.is_complete && last.closes();
        }
    }
}

fn response_shape(exchange: &Exchange, message: &Message) -> Shape {
    let status = message.status;
    let (coding, length) = (message.field("Transfer-Encoding"), message.number("Content-Length"));
    assert!(coding.is_none() || length.is_none(), "both: {message:?}");
    assert!(coding.is_none_or(|coding| coding == "chunked" && !exchange.is_http10));
    match (status, exchange.method) {
        (101, _) | (200, "CONNECT") => Shape::Tunnel,
        (100..=199 | 204 | 304, _) | (_, "HEAD") => Shape::Nothing,
        _ => match (coding, length) {
            (Some(_), _) => Shape::Chunked,
            (None, Some(length)) => Shape::Length(length),
            (None, None) => Shape::UntilClose,
        },
    }
}
