//! A socket that knows the truth and announces it as Linux's edge-triggered epoll does.

use adit::proto::failure::Failure;
use adit::proto::relay::Ready;
use adit::proto::session::Outcome;

/// One socket of the proxy and the peer behind it.
#[derive(Debug, Default)]
pub(crate) struct Socket {
    /// Arrived from the peer, not read by the proxy.
    pub(crate) inbox: Vec<u8>,
    pub(crate) fin: bool,
    /// How many bytes of the inbox stand before urgent data.
    pub(crate) urgent_at: Option<usize>,
    /// A reset has arrived and has not been told yet.
    pub(crate) error: Option<Failure>,
    pub(crate) dead: bool,
    /// Written by the proxy, not read by the peer.
    pub(crate) outbox: Vec<u8>,
    pub(crate) capacity: usize,
    /// The kernel promises an edge once there is room: a write was short or would have blocked.
    pub(crate) wants_room: bool,
    pub(crate) shut: bool,
    /// On epoll's ready list.
    pub(crate) edge: bool,
    /// The connection stands. The proxy's side of a dialed socket starts without.
    pub(crate) connected: bool,
    /// The peer's script.
    pub(crate) to_send: Vec<u8>,
    pub(crate) will_fin: bool,
    pub(crate) received: Vec<u8>,
    /// The peer no longer reads.
    pub(crate) deaf: bool,
}

impl Socket {
    pub(crate) fn ready(&self) -> Ready {
        Ready {
            readable: !self.inbox.is_empty() || self.fin || self.dead,
            writable: self.connected && self.outbox.len() < self.capacity || self.dead,
            read_closed: self.fin || self.dead,
            urgent: self.urgent_at.is_some(),
            error: self.error.is_some(),
        }
    }

    pub(crate) fn read(&mut self, space: &mut [u8]) -> Outcome {
        assert!(!space.is_empty(), "read into nothing");
        if !self.inbox.is_empty() {
            // It stops at urgent data, and begins there.
            let before_mark = self.urgent_at.filter(|&at| at > 0).unwrap_or(usize::MAX);
            let count = space.len().min(self.inbox.len()).min(before_mark);
            self.take(count, &mut space[..count]);
            return Outcome::Moved(count);
        }
        if let Some(failure) = self.error.take() {
            return Outcome::Failed(failure);
        }
        if self.fin || self.dead { Outcome::Eof } else { Outcome::Blocked }
    }

    /// Moves up to `most` bytes into an empty pipe: never beyond urgent data, and what comes behind that may be taken for the end
    /// (kernel fact `a_pipe_is_not_filled_beyond_urgent_data`).
    pub(crate) fn fill(&mut self, pipe: &mut Vec<u8>, most: usize) -> Outcome {
        assert!(pipe.is_empty(), "a pipe is filled that is not empty");
        let count = most.min(self.inbox.len()).min(self.urgent_at.unwrap_or(usize::MAX));
        if count > 0 {
            pipe.resize(count, 0);
            self.take(count, pipe);
            return Outcome::Moved(count);
        }
        match self.error {
            Some(failure) if !self.fin => {
                self.error = None;
                Outcome::Failed(failure)
            }
            _ if self.fin || self.dead => Outcome::Eof,
            _ => Outcome::Blocked,
        }
    }

    fn take(&mut self, count: usize, space: &mut [u8]) {
        space.copy_from_slice(&self.inbox[..count]);
        self.inbox.drain(..count);
        self.urgent_at = self.urgent_at.and_then(|at| at.checked_sub(count));
    }

    /// What a read would meet when there is no storage to read into.
    pub(crate) fn peek(&mut self) -> Outcome {
        if self.inbox.is_empty() { self.read(&mut [0]) } else { Outcome::NoStorage }
    }

    /// What a read would bring, which stays here.
    pub(crate) fn look(&mut self, most: usize) -> Result<Vec<u8>, Outcome> {
        if self.inbox.is_empty() {
            return Err(self.read(&mut [0]));
        }
        let before_mark = self.urgent_at.filter(|&at| at > 0).unwrap_or(usize::MAX);
        Ok(self.inbox[..most.min(self.inbox.len()).min(before_mark)].to_vec())
    }

    /// So much of what was looked at.
    pub(crate) fn take_seen(&mut self, count: usize) -> Outcome {
        self.take(count, &mut vec![0; count]);
        Outcome::Moved(count)
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Outcome {
        assert!(!bytes.is_empty(), "wrote nothing");
        assert!(!self.shut, "wrote behind a shutdown");
        if let Some(failure) = self.error.take() {
            return Outcome::Failed(failure);
        }
        if self.dead {
            return Outcome::Failed(Failure::BrokenPipe);
        }
        let count = bytes.len().min(self.capacity - self.outbox.len());
        if count < bytes.len() {
            self.wants_room = true;
        }
        if count == 0 {
            return Outcome::Blocked;
        }
        self.outbox.extend_from_slice(&bytes[..count]);
        Outcome::Moved(count)
    }

    pub(crate) fn shutdown_write(&mut self) -> Outcome {
        assert!(!self.shut, "shut down twice");
        self.shut = true;
        if self.dead { Outcome::Failed(Failure::BrokenPipe) } else { Outcome::Done }
    }

    pub(crate) fn take_error(&mut self) -> Outcome {
        self.error.take().map_or(Outcome::Done, Outcome::Failed)
    }

    /// Whether the attempt to connect is over, and how. A socket that was reset has no peer any more.
    pub(crate) fn confirm(&mut self) -> Outcome {
        match self.connected && !self.dead {
            true => Outcome::Done,
            false => self.error.take().map_or(Outcome::Blocked, Outcome::Failed),
        }
    }

    /// The peer resets the connection.
    pub(crate) fn reset(&mut self) {
        if self.dead {
            return;
        }
        // Linux: a reset behind a FIN is EPIPE, any other ECONNRESET. What has arrived stays readable.
        self.error = Some(if self.fin { Failure::BrokenPipe } else { Failure::Reset });
        self.dead = true;
        self.outbox.clear();
        self.edge = true;
    }

    /// The peer takes up to `count` bytes that the proxy has written.
    pub(crate) fn receive(&mut self, count: usize) -> Vec<u8> {
        let rest = self.outbox.split_off(count.min(self.outbox.len()));
        let bytes = std::mem::replace(&mut self.outbox, rest);
        // Linux announces room once a third of the buffer is free.
        if self.wants_room && self.outbox.len() * 3 <= self.capacity * 2 {
            self.wants_room = false;
            self.edge = true;
        }
        bytes
    }
}
