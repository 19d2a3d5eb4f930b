//! What a seed is about: who asks whom for what, what is answered, and what goes wrong.

/// What goes wrong in a seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plot {
    /// Nothing: every request gets its whole answer, and no deadline passes.
    Peaceful,
    /// Origins send more than their answer.
    Surplus,
    /// An origin ends its connection in or around an answer.
    Truncated,
    /// The same with a reset.
    Reset,
    /// An answer is not HTTP, in its head or in its body.
    BadFraming,
    /// A 101 that nobody asked for.
    UnaskedSwitch,
    /// Interim responses without end.
    Flood,
    /// An answer stops without an end.
    Silent,
    /// Origins end idle connections.
    ClosesIdle,
    /// Origins take a request on a connection that was used before, and end it without an answer.
    DiesReused,
    /// The client resets at some moment.
    ClientResets,
    /// The client ends its direction as soon as it has sent all.
    ClientHalfCloses,
    /// The client ends its direction at some moment.
    ClientLeaves,
    /// The client stops sending at some moment.
    ClientStalls,
    /// The client stops reading at some moment.
    ClientDeaf,
    /// A request that is not HTTP.
    ClientBad,
    NameFails,
    DialRefused,
    DialSilent,
    /// No storage at some moments.
    Scarce,
    Drain,
    /// The drain's grace is over at some moment.
    Grace,
    /// A second signal comes at some moment.
    Quit,
    /// Another policy, with another users file, is in force from some moment on.
    Reload,
    /// Some credentials are never judged.
    LoginSilent,
}

pub(super) const PLOTS: [Plot; 39] = [
    Plot::Peaceful,
    Plot::Peaceful,
    Plot::Peaceful,
    Plot::Peaceful,
    Plot::Peaceful,
    Plot::Peaceful,
    Plot::Peaceful,
    Plot::Peaceful,
    Plot::Surplus,
    Plot::Surplus,
    Plot::Truncated,
    Plot::Truncated,
    Plot::Reset,
    Plot::Reset,
    Plot::BadFraming,
    Plot::UnaskedSwitch,
    Plot::Flood,
    Plot::Silent,
    Plot::ClosesIdle,
    Plot::ClosesIdle,
    Plot::DiesReused,
    Plot::DiesReused,
    Plot::ClientResets,
    Plot::ClientHalfCloses,
    Plot::ClientLeaves,
    Plot::ClientStalls,
    Plot::ClientDeaf,
    Plot::ClientBad,
    Plot::NameFails,
    Plot::DialRefused,
    Plot::DialSilent,
    Plot::Scarce,
    Plot::Drain,
    Plot::Drain,
    Plot::Grace,
    Plot::Quit,
    Plot::Reload,
    Plot::Reload,
    Plot::LoginSilent,
];

impl Plot {
    /// Whether something is awaited that only time can end. Everywhere else a deadline that passes is a lost wake-up.
    pub(super) fn takes_time(self) -> bool {
        match self {
            Plot::Peaceful
            | Plot::Surplus
            | Plot::Truncated
            | Plot::Reset
            | Plot::BadFraming
            | Plot::UnaskedSwitch
            | Plot::Flood
            | Plot::ClosesIdle
            | Plot::DiesReused
            | Plot::ClientResets
            | Plot::ClientHalfCloses
            | Plot::ClientBad
            | Plot::NameFails
            | Plot::DialRefused
            | Plot::Grace
            | Plot::Quit
            | Plot::Reload => false,
            Plot::Silent
            | Plot::LoginSilent
            | Plot::ClientLeaves
            | Plot::ClientStalls
            | Plot::ClientDeaf
            | Plot::DialSilent
            | Plot::Scarce
            | Plot::Drain => true,
        }
    }
}

/// What one origin does wrong with one answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Nothing,
    /// More bytes, right behind the answer or later.
    Surplus {
        later: bool,
    },
    /// Only so many bytes of it come, and then the end.
    Cut {
        at: usize,
        end: End,
    },
    /// Only so many bytes of it come.
    Silent {
        at: usize,
    },
    /// The head is not one.
    BadHead,
    /// The body is not one.
    BadBody,
    UnaskedSwitch,
    Flood,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Fin,
    Reset,
}

/// How the end of a body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Nothing,
    Length,
    Chunked,
    UntilClose,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Plain,
    /// 101 and a tunnel if the origin is willing.
    Upgrade,
    /// A CONNECT behind plain HTTP.
    Connect,
    /// The proxy answers itself.
    Own(u16),
    /// It is no request: refused, and nothing behind it is believed.
    Bad,
}

#[derive(Debug)]
pub(super) struct Exchange {
    /// Stands in the path, in a field, and in every byte of the bodies.
    pub(super) token: usize,
    pub(super) client: usize,
    pub(super) origin: usize,
    /// Whose credentials it shows, if any are asked for.
    pub(super) user: &'static str,
    pub(super) kind: Kind,
    pub(super) method: &'static str,
    pub(super) is_http10: bool,
    pub(super) says_close: bool,
    pub(super) expects: bool,
    pub(super) head: Vec<u8>,
    pub(super) framing: Framing,
    pub(super) body: Vec<u8>,
    pub(super) body_wire: Vec<u8>,
    /// One that goes on.
    pub(super) has_trailer: bool,
    pub(super) pad_bytes: usize,
    pub(super) answer: Answer,
    /// Through a tunnel, if it comes to one.
    pub(super) tunnel_up: Vec<u8>,
    pub(super) tunnel_down: Vec<u8>,
    /// The connections on which an origin has seen its head.
    pub(super) tries: Vec<usize>,
}

impl Exchange {
    /// Whether it may be sent twice.
    pub(super) fn is_repeatable(&self) -> bool {
        self.framing == Framing::Nothing && self.method != "POST"
    }

    /// Whether the answer is known to end the client's connection.
    pub(super) fn must_close(&self) -> bool {
        self.is_http10
            || self.says_close
            || self.kind == Kind::Bad
            || matches!(self.kind, Kind::Plain | Kind::Upgrade) && self.answer.framing == Framing::UntilClose
    }

    /// Whether that depends on how fast the request's body comes.
    pub(super) fn may_close(&self) -> bool {
        self.must_close()
            || !self.body_wire.is_empty()
                && (self.answer.early_at.is_some() || matches!(self.kind, Kind::Own(_)))
    }

    pub(super) fn becomes_tunnel(&self) -> bool {
        match self.kind {
            Kind::Upgrade => self.answer.status == 101,
            Kind::Connect => true,
            Kind::Plain | Kind::Own(_) | Kind::Bad => false,
        }
    }
}

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) interims: usize,
    pub(super) status: u16,
    pub(super) framing: Framing,
    pub(super) is_http10: bool,
    pub(super) says_close: bool,
    pub(super) has_trailer: bool,
    /// What is to arrive: nothing for HEAD.
    pub(super) body: Vec<u8>,
    pub(super) wire: Vec<u8>,
    /// Where in `wire` the final head begins and ends.
    pub(super) final_from: usize,
    pub(super) body_from: usize,
    /// It is sent once so many bytes of the request's body are here. Otherwise only once the request is whole.
    pub(super) early_at: Option<usize>,
    pub(super) fault: Fault,
}

impl Answer {
    pub(super) fn ends_connection(&self) -> bool {
        self.framing == Framing::UntilClose || self.is_http10 || self.says_close
    }
}

/// Bytes that no other exchange has in this order.
pub(crate) fn content(token: usize, salt: usize, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at * 7 + at / 251 + token * 37 + salt * 101) as u8).collect()
}

pub(super) const ORIGINS: usize = 4;
/// This one is asked for by its address.
pub(super) const ADDRESS_ORIGIN: usize = 3;

/// This one by a name that the search list completes.
pub(super) const BARE_ORIGIN: usize = 1;
pub(super) const COMPLETED: &str = "o1.example.test";

pub(super) fn origin_name(origin: usize) -> String {
    match origin {
        BARE_ORIGIN => "o1".into(),
        ADDRESS_ORIGIN => "203.0.114.200".into(),
        _ => format!("o{origin}.test"),
    }
}
