//! HTTP origins: one that the test plays itself, byte by byte, and one that answers by a closure.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::origin::{Origin, Seen};
use super::wire::{Message, Wire};
use super::{DEADLINE, Ending, Tally};

/// An origin that the test plays itself: it accepts when the test does. A connection is dialed without that, as the kernel's
/// queue takes it.
pub struct ByHand {
    /// Where it listens.
    pub addr: SocketAddr,
    listener: TcpListener,
}

impl ByHand {
    /// On 127.0.0.1.
    pub fn open() -> ByHand {
        ByHand::open_on("127.0.0.1:0")
    }

    /// On another address.
    #[track_caller]
    pub fn open_on(addr: &str) -> ByHand {
        let listener = TcpListener::bind(addr).unwrap();
        ByHand { addr: listener.local_addr().unwrap(), listener }
    }

    /// The next connection; waits for it.
    #[track_caller]
    pub fn accept(&self) -> Wire {
        assert!(self.dialed(DEADLINE), "nobody dials");
        Wire::from(self.listener.accept().unwrap().0)
    }

    /// Nobody dialed who was not accepted yet.
    #[track_caller]
    pub fn assert_not_dialed(&self) {
        if self.was_dialed() {
            let mut wire = Wire::from(self.listener.accept().unwrap().0);
            panic!("dialed once too often: {:?}", String::from_utf8_lossy(wire.waiting()));
        }
    }

    /// Whether somebody dialed who was not accepted yet.
    pub fn was_dialed(&self) -> bool {
        self.dialed(Duration::ZERO)
    }

    fn dialed(&self, within: Duration) -> bool {
        let timeout = Timespec { tv_sec: within.as_secs().cast_signed(), tv_nsec: 0 };
        poll(&mut [PollFd::new(&self.listener, PollFlags::IN)], Some(&timeout)).unwrap() == 1
    }

    /// The URL of a path here.
    pub fn url(&self, path: &str) -> String {
        url(self.addr, path)
    }
}

/// Answers each request, one after the other, with what `answer` makes of it, until the connection ends.
pub fn answering(answer: impl Fn(&Message) -> Vec<u8> + Send + Sync + 'static) -> Origin {
    Origin::start(move |stream| {
        let mut wire = Wire::from(stream);
        let ending = loop {
            match wire.try_request() {
                Err(ending) => break ending,
                Ok(request) if request.cut.is_some() => break request.cut.unwrap(),
                Ok(request) => {
                    if !wire.offer(answer(&request)) {
                        break Ending::Reset;
                    }
                }
            }
        };
        let mut tally = Tally::new();
        tally.add(wire.received());
        Seen { bytes: tally.bytes, sha256: tally.sha256(), ending }
    })
}

/// The URL of a path at this address.
pub fn url(addr: SocketAddr, path: &str) -> String {
    format!("http://{addr}{path}")
}
