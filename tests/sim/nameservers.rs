//! Nameservers that do not always do what they should, and the sockets on which they are asked.
//!
//! Every answer that is honest has addresses of its own, unless the world wants them to stay the same, so that whoever is told an address can be asked where it is from.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use adit::proto::resolver::{Action, Exchange, MAX_TCP, Resolver, SocketFault};
use adit::proto::tick::Tick;

use crate::Random;

/// What one server makes of questions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Habit {
    Honest,
    /// Honest, and too late for most.
    Slow,
    Silent,
    /// Every other question is lost.
    Loses,
    /// It never says anything about AAAA.
    Only4,
    /// Under another id, to another question, or both; and then honest or nothing.
    Lies {
        then_honest: bool,
    },
    /// Everything twice.
    Repeats,
    /// Nothing listens there.
    Refuses,
    /// An error code for everything.
    Says(u8),
    /// It cannot read EDNS.
    IsOld,
    /// It has no room in a datagram.
    Truncates,
    /// Nor over TCP.
    TruncatesAll,
    /// And closes what comes over TCP.
    TruncatesAndCloses,
    /// Records that end nowhere.
    Broken,
}

pub(crate) const HABITS: [Habit; 16] = [
    Habit::Honest,
    Habit::Slow,
    Habit::Silent,
    Habit::Loses,
    Habit::Only4,
    Habit::Lies { then_honest: true },
    Habit::Lies { then_honest: false },
    Habit::Repeats,
    Habit::Refuses,
    Habit::Says(2),
    Habit::Says(5),
    Habit::IsOld,
    Habit::Truncates,
    Habit::TruncatesAll,
    Habit::TruncatesAndCloses,
    Habit::Broken,
];

/// What is true of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Truth {
    /// Addresses of each family, IPv6 first; with none of either it is there all the same.
    pub(crate) counts: [usize; 2],
    pub(crate) exists: bool,
    /// Names between it and its addresses.
    pub(crate) aliases: usize,
    pub(crate) ttl_s: u32,
}

pub(crate) const NOTHING: Truth = Truth { counts: [0, 0], exists: false, aliases: 0, ttl_s: 20 };

/// One honest answer.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    pub(crate) server: SocketAddr,
    pub(crate) name: String,
    /// 0 is IPv6.
    pub(crate) family: usize,
    /// None, and then with this code.
    pub(crate) rcode: u8,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) ttl_s: u32,
    /// Of the settings, when it was asked for.
    pub(crate) epoch: u64,
    pub(crate) heard_at: Option<Tick>,
}

#[derive(Debug)]
struct Query {
    id: u16,
    name: String,
    family: usize,
    has_edns: bool,
    /// The question as it stands in the message.
    question: Vec<u8>,
}

#[derive(Debug)]
struct Socket {
    server: SocketAddr,
    is_tcp: bool,
    coming: Vec<Coming>,
}

#[derive(Debug)]
struct Coming {
    at: Tick,
    what: Result<Vec<u8>, ErrorKind>,
    said: Option<usize>,
}

#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) habits: BTreeMap<SocketAddr, Habit>,
    pub(crate) zone: BTreeMap<String, Truth>,
    sockets: BTreeMap<usize, Socket>,
    pub(crate) said: Vec<Said>,
    /// Counted by whoever changes settings.
    pub(crate) epoch: u64,
    /// A socket is not to be had once in so many times.
    pub(crate) short: Option<usize>,
    /// No question is asked of which the answer is known.
    pub(crate) must_remember: bool,
    /// A name has the same addresses each time.
    pub(crate) is_steady: bool,
    pub(crate) over_tcp_at_once: usize,
    loses_next: bool,
}

const EVIL: [IpAddr; 2] =
    [IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x666, 0, 0, 0, 0, 1)), IpAddr::V4(Ipv4Addr::new(66, 6, 6, 6))];

impl Network {
    pub(crate) fn new(zone: BTreeMap<String, Truth>) -> Network {
        Network {
            habits: BTreeMap::new(),
            zone,
            sockets: BTreeMap::new(),
            said: Vec::new(),
            epoch: 0,
            short: None,
            must_remember: false,
            is_steady: false,
            over_tcp_at_once: 0,
            loses_next: false,
        }
    }

    pub(crate) fn truth(&self, name: &str) -> Truth {
        self.zone.get(name).copied().unwrap_or(NOTHING)
    }

    /// Descriptors in use.
    pub(crate) fn open(&self) -> usize {
        self.sockets.len()
    }

    /// When something arrives next.
    pub(crate) fn next_arrival(&self) -> Option<Tick> {
        self.sockets.values().flat_map(|socket| &socket.coming).map(|coming| coming.at).min()
    }

    /// Where an address comes from.
    pub(crate) fn source(&self, address: IpAddr) -> &Said {
        assert!(!EVIL.contains(&address), "a lie was believed: {address}");
        let number = match address {
            IpAddr::V4(v4) => (v4.to_bits() & 0xff_ffff) / 4,
            IpAddr::V6(v6) => ((v6.to_bits() & 0xffff_ffff) / 4) as u32,
        };
        let said = &self.said[number as usize];
        assert!(said.addresses.contains(&address), "nobody said {address}");
        said
    }

    /// Does what the resolver wants, as `sys::names::Names::perform`. `room` says whether there is a descriptor.
    pub(crate) fn perform(&mut self, resolver: &mut Resolver, random: &mut Random, now: Tick, room: usize) {
        while let Some(action) = resolver.pop_action() {
            let (exchange, is_open) = match action {
                Action::OpenUdp { exchange, server, messages } => {
                    (exchange, self.open_one(exchange, server, &messages, false, random, (now, room)))
                }
                Action::OpenTcp { exchange, server, message } => {
                    (exchange, self.open_one(exchange, server, &[message], true, random, (now, room)))
                }
                Action::SendUdp { exchange, message } => {
                    let socket = self.sockets.get(&exchange.index()).expect("sent without a socket");
                    let server = socket.server;
                    self.ask(exchange, server, &message, false, random, now);
                    (exchange, true)
                }
                Action::Close { exchange } => {
                    self.sockets.remove(&exchange.index());
                    (exchange, true)
                }
            };
            if !is_open {
                let fault = SocketFault::Local(ErrorKind::Other);
                resolver.on_failure(exchange, fault, now, &mut || random.next() as u16);
            }
        }
    }

    fn open_one(
        &mut self,
        exchange: Exchange,
        server: SocketAddr,
        messages: &[Vec<u8>],
        is_tcp: bool,
        random: &mut Random,
        (now, room): (Tick, usize),
    ) -> bool {
        assert!(!self.sockets.contains_key(&exchange.index()), "opened twice");
        if self.sockets.len() >= room || self.short.is_some_and(|times| random.one_in(times)) {
            return false;
        }
        self.sockets.insert(exchange.index(), Socket { server, is_tcp, coming: Vec::new() });
        let over_tcp = self.sockets.values().filter(|socket| socket.is_tcp).count();
        assert!(over_tcp <= MAX_TCP, "too much over TCP");
        self.over_tcp_at_once = self.over_tcp_at_once.max(over_tcp);
        for message in messages {
            self.ask(exchange, server, message, is_tcp, random, now);
        }
        true
    }

    fn ask(
        &mut self,
        exchange: Exchange,
        server: SocketAddr,
        message: &[u8],
        is_tcp: bool,
        random: &mut Random,
        now: Tick,
    ) {
        let query = read_query(message);
        let known = self.said.iter().any(|said| {
            said.name == query.name
                && said.family == query.family
                && said.heard_at.is_some_and(|at| now < at.after(u64::from(said.ttl_s) * 1_000))
        });
        let is_again = is_tcp || !query.has_edns;
        assert!(!(self.must_remember && known && !is_again), "{} was known", query.name);
        let habit = self.habits.get(&server).copied().unwrap_or(Habit::Silent);
        let slow_ms = if habit == Habit::Slow { 200 + random.below(4_000) } else { random.below(40) };
        let at = now.after(slow_ms as u64);
        let mut coming = Vec::new();
        let mut say = |what: Result<Vec<u8>, ErrorKind>, said| coming.push(Coming { at, what, said });
        let empty = |flags: u16| Ok(reply(&query, query.id, flags, &[], None));
        match habit {
            Habit::Silent => {}
            Habit::Loses => {
                self.loses_next = !self.loses_next;
                if !self.loses_next {
                    let (bytes, number) = self.honest(&query, server);
                    say(Ok(bytes), Some(number));
                }
            }
            Habit::Only4 if query.family == 0 => {}
            Habit::Refuses => say(Err(ErrorKind::ConnectionRefused), None),
            Habit::Says(rcode) => say(empty(u16::from(rcode)), None),
            Habit::IsOld if query.has_edns => say(empty(1), None),
            Habit::Truncates | Habit::TruncatesAll | Habit::TruncatesAndCloses if !is_tcp => {
                say(empty(0x0200), None);
            }
            Habit::TruncatesAll => say(empty(0x0200), None),
            Habit::TruncatesAndCloses => say(Err(ErrorKind::UnexpectedEof), None),
            Habit::Broken => {
                let mut bytes = reply(&query, query.id, 0, &[], None);
                bytes[7] = 9;
                say(Ok(bytes), None);
            }
            Habit::Lies { then_honest } => {
                let evil = [(query.name.clone(), EVIL[query.family])];
                let other = [("evil.test".to_string(), EVIL[query.family])];
                let asked_else = Query {
                    name: "evil.test".into(),
                    question: question("evil.test", query.family),
                    ..query
                };
                if !is_tcp {
                    say(Ok(reply(&query, query.id ^ 1, 0, &evil, Some((60, 0)))), None);
                    say(Ok(reply(&asked_else, query.id, 0, &other, Some((60, 0)))), None);
                }
                if then_honest {
                    let (bytes, number) = self.honest(&query, server);
                    say(Ok(bytes), Some(number));
                }
            }
            Habit::Honest | Habit::Slow | Habit::Only4 | Habit::Repeats | Habit::IsOld | Habit::Truncates => {
                let (bytes, number) = self.honest(&query, server);
                if habit == Habit::Repeats {
                    say(Ok(bytes.clone()), Some(number));
                }
                say(Ok(bytes), Some(number));
            }
        }
        let socket = self.sockets.get_mut(&exchange.index()).expect("asked without a socket");
        socket.coming.extend(coming);
    }

    /// The truth about a name, in words that were never used before or always the same.
    fn honest(&mut self, query: &Query, server: SocketAddr) -> (Vec<u8>, usize) {
        let truth = self.truth(&query.name);
        let number = self.said.len();
        let is_same = |said: &Said| said.name == query.name && said.family == query.family;
        let first = if self.is_steady { self.said.iter().position(is_same) } else { None };
        let from = first.unwrap_or(number) * 4;
        let addresses: Vec<IpAddr> = (0..truth.counts[query.family])
            .map(|n| match query.family {
                0 => IpAddr::V6(Ipv6Addr::from_bits(0x2a00_u128 << 112 | (from + n) as u128)),
                _ => IpAddr::V4(Ipv4Addr::from_bits(11 << 24 | (from + n) as u32)),
            })
            .collect();
        let mut owner = query.name.clone();
        let mut records = Vec::new();
        for n in 0..truth.aliases {
            records.push((owner, Err(format!("a{n}.alias.test"))));
            owner = format!("a{n}.alias.test");
        }
        records.extend(addresses.iter().map(|&address| (owner.clone(), Ok(address))));
        let is_empty = addresses.is_empty();
        let rcode = if truth.exists { 0 } else { 3 };
        let bytes = message(query, query.id, u16::from(rcode), &records, truth.ttl_s, is_empty);
        self.said.push(Said {
            server,
            name: query.name.clone(),
            family: query.family,
            rcode,
            addresses,
            ttl_s: truth.ttl_s.min(if is_empty { 300 } else { 3_600 }),
            epoch: self.epoch,
            heard_at: None,
        });
        (bytes, number)
    }

    /// One message arrives. Returns what it said, if it was honest.
    pub(crate) fn deliver(
        &mut self,
        resolver: &mut Resolver,
        random: &mut Random,
        now: Tick,
    ) -> Option<Option<usize>> {
        let ready: Vec<(usize, usize)> = self
            .sockets
            .iter()
            .flat_map(|(&index, socket)| {
                let due = socket.coming.iter().enumerate().filter(|(_, coming)| coming.at <= now);
                due.map(move |(at, _)| (index, at))
            })
            .collect();
        if ready.is_empty() {
            return None;
        }
        let (index, at) = random.pick(&ready);
        let Coming { what, said, .. } = self.sockets.get_mut(&index).unwrap().coming.remove(at);
        if let Some(number) = said {
            self.said[number].heard_at.get_or_insert(now);
        }
        let exchange = Exchange::from_index(index);
        let ids = &mut || random.next() as u16;
        match what {
            Ok(bytes) => resolver.on_message(exchange, &bytes, now, ids),
            Err(kind) => resolver.on_failure(exchange, SocketFault::Server(kind), now, ids),
        }
        Some(said)
    }
}

// Messages, in words of its own: the proxy's are not to be checked against themselves.

fn read_query(message: &[u8]) -> Query {
    assert_eq!(message[2..10], [1, 0, 0, 1, 0, 0, 0, 0], "flags or counts");
    let mut labels = Vec::new();
    let mut at = 12;
    while message[at] > 0 {
        let end = at + 1 + usize::from(message[at]);
        labels.push(String::from_utf8(message[at + 1..end].to_vec()).unwrap());
        at = end;
    }
    let question = message[12..at + 5].to_vec();
    let family = match message[at + 1..at + 5] {
        [0, 28, 0, 1] => 0,
        [0, 1, 0, 1] => 1,
        _ => panic!("neither A nor AAAA"),
    };
    let has_edns = message[11] == 1;
    assert_eq!(message.len(), at + 5 + if has_edns { 11 } else { 0 });
    Query {
        id: u16::from_be_bytes([message[0], message[1]]),
        name: labels.join("."),
        family,
        has_edns,
        question,
    }
}

fn wire(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend(label.bytes());
    }
    bytes.push(0);
    bytes
}

fn question(name: &str, family: usize) -> Vec<u8> {
    [wire(name), vec![0, if family == 0 { 28 } else { 1 }, 0, 1]].concat()
}

/// Addresses of names, and a SOA with these numbers if there is none.
fn reply(
    query: &Query,
    id: u16,
    flags: u16,
    addresses: &[(String, IpAddr)],
    ttl: Option<(u32, u32)>,
) -> Vec<u8> {
    let records: Vec<(String, Result<IpAddr, String>)> =
        addresses.iter().map(|(owner, address)| (owner.clone(), Ok(*address))).collect();
    message(query, id, flags, &records, ttl.map_or(0, |ttl| ttl.0), false)
}

fn message(
    query: &Query,
    id: u16,
    flags: u16,
    records: &[(String, Result<IpAddr, String>)],
    ttl_s: u32,
    with_soa: bool,
) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut put = |part: &[u8]| bytes.extend_from_slice(part);
    put(&id.to_be_bytes());
    put(&(0x8180 | flags).to_be_bytes());
    put(&[0, 1, 0, records.len() as u8, 0, u8::from(with_soa), 0, 0]);
    put(&query.question);
    let mut record = |owner: &str, rtype: u8, data: &[u8]| {
        put(&wire(owner));
        put(&[0, rtype, 0, 1]);
        put(&ttl_s.to_be_bytes());
        put(&(data.len() as u16).to_be_bytes());
        put(data);
    };
    for (owner, data) in records {
        match data {
            Ok(IpAddr::V4(v4)) => record(owner, 1, &v4.octets()),
            Ok(IpAddr::V6(v6)) => record(owner, 28, &v6.octets()),
            Err(target) => record(owner, 5, &wire(target)),
        }
    }
    if with_soa {
        let soa = [wire("test"), wire("test"), vec![0; 16], ttl_s.to_be_bytes().to_vec()].concat();
        record("test", 6, &soa);
    }
    bytes
}
