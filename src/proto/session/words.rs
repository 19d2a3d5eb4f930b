//! What a session and its loop say to each other, and what the access log is told.

use std::fmt::{self, Display};
use std::net::SocketAddr;
use std::sync::Arc;

use crate::proto::failure::Failure;
use crate::proto::lookup::Families;
use crate::proto::reply::Refusal;
use crate::proto::rules::Rules;
use crate::proto::target::Target;
use crate::proto::users::Users;

/// Lengths of all timeouts, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From the accepted connection to a complete request head.
    pub head_ms: u64,
    /// For resolving a name.
    pub resolve_ms: u64,
    /// For dialing, all candidates together.
    pub dial_ms: u64,
    /// For the first byte of a response, and for the next byte of a request's body.
    pub response_ms: u64,
    /// For a connection, to a client or an upstream, on which no request is under way.
    pub keepalive_ms: u64,
    /// For a tunnel or a response's body in which nothing moves, either way.
    pub idle_ms: u64,
    /// The same once one direction has ended.
    pub half_open_ms: u64,
    /// For everything still running once the proxy drains.
    pub grace_ms: u64,
}

/// What a session is judged by.
#[derive(Debug)]
pub struct Policy {
    /// Who may go where.
    pub rules: Rules,
    /// Who may ask: without a file, everybody.
    pub users: Option<Arc<Users>>,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// Address families that may be dialed.
    pub families: Families,
    /// The proxy's name in `Proxy-Status`.
    pub via: Box<str>,
    /// Its name in `Via`; none when it sends no `Via`.
    pub via_field: Option<Box<str>>,
    /// Whether plain HTTP requests tell who asked.
    pub forwarded: Forwarded,
}

/// `Forwarded` of RFC 7239, with the client's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarded {
    /// The origin is not told who asked.
    Omitted,
    /// `for=` names the client.
    Added,
}

/// The two ends of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Who asked us.
    Client,
    /// Whom we dialed.
    Upstream,
}

impl Side {
    /// The one across.
    #[must_use]
    pub fn other(self) -> Side {
        match self {
            Side::Client => Side::Upstream,
            Side::Upstream => Side::Client,
        }
    }
}

/// What is to be done next: one system call at most, but for [`Step::Pass`], which is three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Read from that side into [`Session::fill_slice`](super::Session::fill_slice).
    Read(Side),
    /// Write [`Session::drain_slice`](super::Session::drain_slice) to that side.
    Write(Side),
    /// Look at what has come from that side, write it to the other one, and take what that took. Who looks or writes in vain
    /// reports this step, or a [`Step::Write`] to the other side.
    Pass(Side),
    /// Move bytes from that side into a pipe, which is empty.
    Fill(Side),
    /// Move bytes out of the pipe that was filled from the other side to that side.
    Drain(Side),
    /// Shut down the sending direction towards that side.
    ShutdownWrite(Side),
    /// Read from the client and forget what comes.
    Discard,
    /// Verify [`Session::credentials`](super::Session::credentials); the answer comes to
    /// [`Session::on_login`](super::Session::on_login).
    Authenticate,
    /// Resolve [`Session::target`](super::Session::target)'s name; the answer comes to [`Session::on_addresses`](super::Session::on_addresses).
    Resolve,
    /// Start connecting to that address. An earlier attempt at the same place is given up.
    Dial(u8, SocketAddr),
    /// Find out whether the attempt at that place succeeded. If so, it is the upstream and all others are given up; if
    /// it failed, it is given up.
    ConfirmDial(u8),
    /// Plain HTTP: take an idle connection to [`Session::target`](super::Session::target) that this client may use
    /// ([`Session::may_reuse`](super::Session::may_reuse)) for the upstream. The answer, also that there is none, comes to
    /// [`Session::on_idle`](super::Session::on_idle).
    TakeIdle,
    /// The upstream is good for another request: keep it idle, as leading to
    /// [`Session::take_origin`](super::Session::take_origin).
    Park,
    /// Close the upstream.
    CloseUpstream,
    /// Fetch the error pending on that side's socket: it matters while nothing is read from it.
    TakeError(Side),
    /// An exchange is over: write [`Session::record`](super::Session::record) to the access log.
    Record,
    /// Nothing, until readiness, an answer, storage or a deadline says otherwise.
    Wait,
    /// Close both sockets and forget the session.
    End(EndReason),
}

/// What follows behind the bytes of a [`Step::Write`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follows {
    /// Nothing that is known.
    Anything,
    /// The end of the connection, in the same run: it can go out with the last of the bytes.
    End,
}

/// How a step went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// So many bytes were read or written.
    Moved(usize),
    /// Would block, or is not decided yet.
    Blocked,
    /// The peer has ended its direction.
    Eof,
    /// Done, or under way for [`Step::Authenticate`], [`Step::Resolve`] and [`Step::Dial`].
    Done,
    /// No storage can be lent for reading now; [`Session::on_storage`](super::Session::on_storage) follows when it can.
    /// For [`Step::Fill`]: no pipe can be lent, and nothing follows.
    NoStorage,
    /// Failed for that cause.
    Failed(Failure),
}

/// What became of credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Login {
    /// They are this user's.
    User(Arc<str>),
    /// They are nobody's.
    Wrong,
    /// None are asked for any more.
    Needless,
    /// Too many wait to be verified.
    Busy,
    /// Too many of this client wait to be verified.
    ClientBusy,
}

/// Why a session ended. The first cause wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// Both directions ended in order.
    Done,
    /// No request ever came: nothing to log.
    Unused,
    /// The proxy answered itself; the word is the RFC 9209 error type.
    Refused(&'static str),
    /// The client went away before it had an answer.
    ClientLeft,
    /// The upstream ended in order before its answer was complete.
    Incomplete,
    /// What the upstream sent is not HTTP, in a response that had begun: one sentence says what.
    BadResponse(&'static str),
    /// The client reset the connection.
    ClientReset,
    /// The upstream reset the connection, or closed it while bytes for it were under way.
    UpstreamReset,
    /// The client's machine, or the way to it, is gone: it has not answered the kernel for minutes.
    ClientVanished,
    /// The same of the upstream.
    UpstreamVanished,
    /// `--idle-timeout`.
    IdleTimeout,
    /// `--half-open-timeout`.
    HalfOpenTimeout,
    /// `--grace` was over, or a second signal came.
    Grace,
}

impl EndReason {
    /// The word behind `end=` in the access line.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            EndReason::Done => "done",
            EndReason::Unused => "unused",
            EndReason::Refused(error_type) => error_type,
            EndReason::ClientLeft => "client_left",
            EndReason::Incomplete => "http_response_incomplete",
            EndReason::BadResponse(_) => "http_protocol_error",
            EndReason::ClientReset => "client_reset",
            EndReason::UpstreamReset => "upstream_reset",
            EndReason::ClientVanished => "client_vanished",
            EndReason::UpstreamVanished => "upstream_vanished",
            EndReason::IdleTimeout => "idle_timeout",
            EndReason::HalfOpenTimeout => "half_open_timeout",
            EndReason::Grace => "grace",
        }
    }
}

/// What an access line says. Times in milliseconds; `None` stands for "did not happen".
#[derive(Debug)]
pub struct Record<'a> {
    /// The client's address.
    pub client: SocketAddr,
    /// Whose credentials it has shown.
    pub user: Option<&'a str>,
    /// What was asked for.
    pub request: Asked<'a>,
    /// The status sent to the client; `None` if it was sent none.
    pub status: Option<u16>,
    /// The address that was dialed last.
    pub via: Option<SocketAddr>,
    /// The rule that decided, if it came to that.
    pub rule: Option<&'a str>,
    /// Payload bytes from client to upstream.
    pub up_bytes: u64,
    /// Payload bytes from upstream to client, or the bytes of the proxy's own answer.
    pub down_bytes: u64,
    /// Resolving.
    pub dns_ms: Option<u64>,
    /// Dialing, all attempts together.
    pub dial_ms: Option<u64>,
    /// From the accepted connection to the end.
    pub total_ms: u64,
    /// See [`EndReason::word`].
    pub end: &'static str,
    /// What the client was told, if the proxy answered itself.
    pub refusal: Option<&'a Refusal>,
    /// Why a response was not believed any more, if it had begun.
    pub cut_because: Option<&'static str>,
}

/// The request as the access line tells it. Nothing in it has white space or a query string.
#[derive(Debug)]
pub enum Asked<'a> {
    /// No request was understood.
    Nothing,
    /// A tunnel to there.
    Connect(&'a Target),
    /// Plain HTTP.
    Http {
        /// The method.
        method: &'a str,
        /// The URL without its query.
        url: &'a str,
    },
}

/// Method and target, as they stand in the access line.
impl Display for Asked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Asked::Nothing => f.write_str("- -"),
            Asked::Connect(target) => write!(f, "CONNECT {target}"),
            Asked::Http { method, url } => write!(f, "{method} {url}"),
        }
    }
}
