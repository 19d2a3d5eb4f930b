//! Why a system call on a peer's socket failed, in the words that decisions are made of, and what a client is told of it.
//! `sys::stream` translates `errno` into this; nothing else knows `errno`.

use super::reply::Refusal;

/// The failures that lead to different decisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The peer answered the connection attempt with a reset.
    Refused,
    /// No route to that network or host, or no usable source address.
    Unreachable,
    /// The kernel gave up waiting for the peer.
    TimedOut,
    /// The peer reset the connection without having ended it.
    Reset,
    /// The connection was over before: its end had been seen, or it was reset behind its end.
    BrokenPipe,
    /// A local packet filter or security module forbids it.
    Forbidden,
    /// Out of descriptors: of the process or of the system.
    NoDescriptors,
    /// Out of ports or kernel memory.
    NoResources,
    /// The address is one of the proxy's own listeners.
    OwnListener,
    /// Anything else, with its `errno` for the log (0 if there is none).
    Other(i32),
}

impl Failure {
    /// What to tell the client whose connection attempt ended so.
    #[must_use]
    pub fn refusal(self) -> Refusal {
        match self {
            Failure::Refused => Refusal::ConnectionRefused,
            Failure::Reset | Failure::BrokenPipe => Refusal::ConnectionReset,
            // A local packet filter's "no" is, for everybody but its owner, a missing route.
            Failure::Unreachable | Failure::Forbidden => Refusal::Unroutable,
            Failure::TimedOut => Refusal::DialTimeout,
            Failure::NoDescriptors | Failure::NoResources => Refusal::Descriptors,
            Failure::OwnListener => Refusal::Loop,
            Failure::Other(_) => Refusal::DialFailed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_to_connect_has_its_answer() {
        for (failure, status, error_type) in [
            (Failure::Refused, 502, "connection_refused"),
            (Failure::Reset, 502, "connection_terminated"),
            (Failure::BrokenPipe, 502, "connection_terminated"),
            (Failure::Unreachable, 502, "destination_ip_unroutable"),
            (Failure::Forbidden, 502, "destination_ip_unroutable"),
            (Failure::TimedOut, 504, "connection_timeout"),
            (Failure::NoDescriptors, 503, "connection_limit_reached"),
            (Failure::NoResources, 503, "connection_limit_reached"),
            (Failure::OwnListener, 502, "proxy_loop_detected"),
            (Failure::Other(22), 502, "destination_unavailable"),
        ] {
            let refusal = failure.refusal();
            assert_eq!((refusal.status(), refusal.error_type()), (status, error_type), "{failure:?}");
        }
    }
}
