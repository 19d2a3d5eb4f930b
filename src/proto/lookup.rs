//! How far one name is: its two questions, what has come of them, and what that says about the name. Layer 1.5.
//! The resolver moves it; here it is only read and judged.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::cache::{FAMILIES, Fact};
use super::dns::{self, Edns, Name, Qtype};
use super::tick::Tick;

/// Why a name has no addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResolveError {
    /// The servers say that there is no such name (NXDOMAIN) or that it has no address (NOERROR).
    NotFound {
        /// DNS response code, see [`rcode_name`](super::reply::rcode_name).
        rcode: u8,
    },
    /// A server answered, but not the question.
    Failed {
        /// DNS response code, see [`rcode_name`](super::reply::rcode_name).
        rcode: u8,
    },
    /// No server answered in time.
    Timeout {
        /// The servers that were asked.
        servers: Arc<[SocketAddr]>,
    },
    /// No nameserver is configured.
    NoServers,
    /// Too many names are being resolved already.
    Busy,
    /// Servers answered, and nothing that made sense.
    Broken,
    /// Every server was out of reach.
    Io(ErrorKind),
    /// There was no socket to ask with.
    NoSocket(ErrorKind),
}

/// Families of addresses that may be dialed (`--family`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Families {
    /// Both.
    #[default]
    Any,
    /// IPv4 alone.
    Only4,
    /// IPv6 alone.
    Only6,
}

impl Families {
    /// Whether addresses like this one are wanted.
    #[must_use]
    pub fn want(self, address: IpAddr) -> bool {
        QTYPES.iter().any(|&qtype| self.want_type(qtype) && qtype.is_type_of(address))
    }

    fn want_type(self, qtype: Qtype) -> bool {
        match self {
            Families::Any => true,
            Families::Only4 => qtype == Qtype::A,
            Families::Only6 => qtype == Qtype::Aaaa,
        }
    }
}

/// The questions of a lookup, AAAA first (RFC 8305 3).
pub(super) const QTYPES: [Qtype; FAMILIES] = [Qtype::Aaaa, Qtype::A];
/// A lookup has one UDP socket for both questions and a TCP connection for each that needs one.
pub(super) const UDP: usize = 0;
pub(super) const FIRST_TCP: usize = 1;
pub(super) const SLOTS: usize = FIRST_TCP + QTYPES.len();

/// What is known of a family of which no addresses are wanted: it has none.
const NOT_WANTED: Fact<'_> = Fact::Empty { rcode: dns::RCODE_NOERROR };

/// What holds for a lookup from its start to its end, however the settings change.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    pub(super) families: Families,
    /// The longest wait for one server.
    pub(super) try_ms: u64,
    /// Questions to servers, for each name.
    pub(super) tries_max: u32,
    /// Which settings it began with: what it learns is only kept as long as they hold.
    pub(super) generation: u64,
}

#[derive(Debug)]
pub(super) struct Lookup {
    pub(super) key: Box<str>,
    pub(super) terms: Terms,
    /// When there are none, it is finishing its try for the cache.
    pub(super) askers: Vec<usize>,
    /// More than one when there is a search list.
    pub(super) names: Vec<Name>,
    pub(super) name_index: usize,
    /// Servers by number, in the order in which they are asked, round after round.
    pub(super) order: Box<[usize]>,
    /// Of the present name.
    pub(super) tries: u32,
    /// Wait before the next try.
    pub(super) pause: bool,
    pub(super) phase: Phase,
    pub(super) questions: [Question; FAMILIES],
    /// Families whose addresses every asker has.
    delivered: [bool; FAMILIES],
    /// A server has answered one of the questions.
    pub(super) heard: bool,
    pub(super) open: [bool; SLOTS],
    /// The most telling one so far, for the present name.
    pub(super) fault: Option<Fault>,
    /// The same for the names before it.
    pub(super) error: Option<ResolveError>,
    pub(super) deadline: Tick,
}

impl Lookup {
    /// The present name, if it is not the one that was asked for.
    pub(super) fn found_as(&self) -> Option<Arc<str>> {
        let name = self.names.get(self.name_index)?.text();
        let asked = self.key.strip_suffix('.').unwrap_or(&self.key);
        (name != asked).then(|| name.into())
    }

    pub(super) fn new(
        key: Box<str>,
        names: Vec<Name>,
        terms: Terms,
        order: Box<[usize]>,
        deadline: Tick,
    ) -> Lookup {
        Lookup {
            key,
            terms,
            askers: Vec::new(),
            names,
            name_index: 0,
            order,
            tries: 0,
            pause: false,
            phase: Phase::Pausing,
            questions: questions(terms.families),
            delivered: [false; FAMILIES],
            heard: false,
            open: [false; SLOTS],
            fault: None,
            error: None,
            deadline,
        }
    }

    pub(super) fn name(&self) -> Option<&Name> {
        self.names.get(self.name_index)
    }

    /// Goes on to the next name of the search list.
    pub(super) fn start_next_name(&mut self, error: ResolveError) {
        self.error = Some(error);
        self.name_index += 1;
        self.questions = questions(self.terms.families);
        self.fault = None;
        self.tries = 0;
        self.pause = false;
    }

    /// Fills in what is known already.
    pub(super) fn fill_in(&mut self, facts: [Option<Fact<'_>>; FAMILIES]) {
        for (question, fact) in self.questions.iter_mut().zip(facts) {
            match fact {
                Some(Fact::Found(addresses)) if question.is_open() => {
                    *question = Question::Found(addresses.to_vec());
                }
                Some(Fact::Empty { rcode }) if question.is_open() => *question = Question::Empty { rcode },
                Some(Fact::Found(_) | Fact::Empty { .. }) => {}
                // It did not matter as long as the other family had addresses; now it does.
                Some(Fact::Failed) | None => {}
            }
        }
    }

    pub(super) fn next_server(&self) -> usize {
        let place = self.tries as usize % self.order.len().max(1);
        self.order.get(place).copied().unwrap_or(0)
    }

    pub(super) fn round_is_over(&self) -> bool {
        (self.tries as usize).is_multiple_of(self.order.len().max(1))
    }

    pub(super) fn may_try_again(&self, now: Tick) -> bool {
        now < self.deadline && self.tries < self.terms.tries_max && !self.askers.is_empty()
    }

    pub(super) fn needs(&self, slot: usize) -> bool {
        self.questions.iter().enumerate().any(|(index, question)| question.id_on(slot, index).is_some())
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.questions.iter().any(Question::is_waiting)
    }

    pub(super) fn has_addresses(&self) -> bool {
        self.questions.iter().any(|question| !question.addresses().is_empty())
    }

    /// The addresses that are new to the askers, who have them from now on.
    pub(super) fn take_undelivered(&mut self) -> Vec<IpAddr> {
        let mut news = self.questions.each_ref().map(Question::addresses);
        for (addresses, delivered) in news.iter_mut().zip(&mut self.delivered) {
            if std::mem::replace(delivered, *delivered || !addresses.is_empty()) {
                *addresses = &[];
            }
        }
        interleave(news)
    }

    /// The addresses that all askers have, for one more of them.
    pub(super) fn delivered(&self) -> Vec<IpAddr> {
        let mut addresses = self.questions.each_ref().map(Question::addresses);
        for (addresses, delivered) in addresses.iter_mut().zip(self.delivered) {
            if !delivered {
                *addresses = &[];
            }
        }
        interleave(addresses)
    }

    /// Whether a question was still waiting.
    pub(super) fn give_up_waiting(&mut self) -> bool {
        let mut any = false;
        for question in self.questions.iter_mut().filter(|question| question.is_waiting()) {
            *question = Question::Unanswered;
            any = true;
        }
        any
    }

    pub(super) fn note(&mut self, fault: Fault) {
        if self.fault.is_none_or(|before| before.rank() <= fault.rank()) {
            self.fault = Some(fault);
        }
    }

    /// What the answers so far say about the name; `None` when another try could say more.
    pub(super) fn verdict(&self) -> Option<Result<(), ResolveError>> {
        // What one family is known to lack says nothing about the other before that is asked: there are servers that deny
        // with NXDOMAIN what they only have no AAAA for.
        if self.tries == 0 && self.questions.iter().any(Question::is_open) {
            return None;
        }
        judge(self.questions.each_ref().map(Question::fact))
    }
}

fn questions(families: Families) -> [Question; FAMILIES] {
    QTYPES.map(|qtype| if families.want_type(qtype) { Question::Unanswered } else { Question::NotWanted })
}

/// What is known when all that is asked for is known, or else `None`.
pub(super) fn known(
    mut facts: [Option<Fact<'_>>; FAMILIES],
    families: Families,
) -> Option<Result<Vec<IpAddr>, ResolveError>> {
    for (fact, qtype) in facts.iter_mut().zip(QTYPES) {
        if !families.want_type(qtype) {
            *fact = Some(NOT_WANTED);
        }
    }
    if facts.contains(&None) {
        return None;
    }
    let addresses = || interleave(facts.map(|fact| fact.map_or(&[][..], Fact::addresses)));
    Some(judge(facts)?.map(|()| addresses()))
}

/// What is known of the two families says about the name; `None` when more could be known.
fn judge(facts: [Option<Fact<'_>>; FAMILIES]) -> Option<Result<(), ResolveError>> {
    const NXDOMAIN: Option<Fact<'_>> = Some(Fact::Empty { rcode: dns::RCODE_NXDOMAIN });
    let not_found = |rcode| Some(Err(ResolveError::NotFound { rcode }));
    match facts {
        // A family that failed does not hold up the other.
        [Some(Fact::Found(_)), Some(_)] | [Some(_), Some(Fact::Found(_))] => Some(Ok(())),
        [Some(Fact::Found(_)), None] | [None, Some(Fact::Found(_))] => None,
        // NXDOMAIN speaks for every type (RFC 8020), also for one whose question failed; NOERROR without addresses only
        // for its own.
        [NXDOMAIN, _] | [_, NXDOMAIN] => not_found(dns::RCODE_NXDOMAIN),
        [Some(Fact::Empty { rcode }), Some(Fact::Empty { .. })] => not_found(rcode),
        [Some(Fact::Failed) | None, _] | [_, Some(Fact::Failed) | None] => None,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Trying { server: usize, started: Tick },
    Pausing,
}

/// Why there is no answer yet; what a server said tells more than silence, silence more than a socket's error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    Rcode(u8),
    Broken,
    /// Too many answers are under way over TCP.
    Busy,
    Silence,
    Socket(ErrorKind),
    NoSocket(ErrorKind),
}

impl Fault {
    pub(super) fn rank(self) -> u8 {
        match self {
            Fault::Rcode(_) | Fault::Broken | Fault::Busy => 2,
            Fault::Silence => 1,
            Fault::Socket(_) | Fault::NoSocket(_) => 0,
        }
    }
}

/// How far one of the two questions is.
#[derive(Debug)]
pub(super) enum Question {
    /// This family is not asked for.
    NotWanted,
    /// Not asked yet, or no answer came.
    Unanswered,
    /// The last server asked could not say. Asked again, unless the other family has addresses.
    Failed,
    OverUdp {
        id: u16,
        edns: Edns,
    },
    OverTcp {
        id: u16,
    },
    Found(Vec<IpAddr>),
    /// NXDOMAIN, or NOERROR without addresses.
    Empty {
        rcode: u8,
    },
}

impl Question {
    /// The id of the question at `index` if it waits for an answer on `slot`.
    pub(super) fn id_on(&self, slot: usize, index: usize) -> Option<u16> {
        match *self {
            Question::OverUdp { id, .. } if slot == UDP => Some(id),
            Question::OverTcp { id } if slot == FIRST_TCP + index => Some(id),
            Question::OverUdp { .. } | Question::OverTcp { .. } => None,
            Question::NotWanted | Question::Unanswered | Question::Failed => None,
            Question::Found(_) | Question::Empty { .. } => None,
        }
    }

    pub(super) fn udp_edns(&self) -> Option<Edns> {
        match *self {
            Question::OverUdp { edns, .. } => Some(edns),
            Question::NotWanted | Question::Unanswered | Question::Failed => None,
            Question::OverTcp { .. } | Question::Found(_) | Question::Empty { .. } => None,
        }
    }

    /// Whether the next server is to be asked.
    pub(super) fn is_open(&self) -> bool {
        matches!(self, Question::Unanswered | Question::Failed)
    }

    pub(super) fn is_waiting(&self) -> bool {
        matches!(self, Question::OverUdp { .. } | Question::OverTcp { .. })
    }

    pub(super) fn addresses(&self) -> &[IpAddr] {
        self.fact().map_or(&[], Fact::addresses)
    }

    /// Whether it was asked for, and there are none.
    pub(super) fn lacks_addresses(&self) -> bool {
        matches!(self, Question::Unanswered | Question::Failed | Question::Empty { .. })
    }

    pub(super) fn fact(&self) -> Option<Fact<'_>> {
        match self {
            Question::NotWanted => Some(NOT_WANTED),
            Question::Found(addresses) => Some(Fact::Found(addresses)),
            Question::Empty { rcode } => Some(Fact::Empty { rcode: *rcode }),
            Question::Failed => Some(Fact::Failed),
            Question::Unanswered | Question::OverUdp { .. } | Question::OverTcp { .. } => None,
        }
    }
}

/// Of what two names of a search list came to: a failure may hide an answer, and a name that exists beats none.
pub(super) fn more_telling(before: ResolveError, after: ResolveError) -> ResolveError {
    let rank = |error: &ResolveError| match error {
        ResolveError::NotFound { rcode: dns::RCODE_NXDOMAIN } => 0,
        ResolveError::NotFound { .. } => 1,
        ResolveError::Failed { .. } | ResolveError::Broken => 2,
        ResolveError::Timeout { .. }
        | ResolveError::NoServers
        | ResolveError::Busy
        | ResolveError::Io(_)
        | ResolveError::NoSocket(_) => 3,
    };
    if rank(&before) > rank(&after) { before } else { after }
}

/// IPv6 first, then by turns (RFC 8305 4).
fn interleave([v6, v4]: [&[IpAddr]; FAMILIES]) -> Vec<IpAddr> {
    let mut addresses = Vec::with_capacity(v6.len() + v4.len());
    for n in 0..v6.len().max(v4.len()) {
        addresses.extend(v6.get(n));
        addresses.extend(v4.get(n));
    }
    addresses
}
