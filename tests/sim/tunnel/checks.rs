//! What must hold at the end.

use adit::proto::reply::ESTABLISHED;
use adit::proto::session::{CLIENT_LEFT_MS, DRAIN_IDLE_MS, Side};

use super::{Plot, World};
use crate::socket::Socket;

impl World {
    pub(super) fn check_end(&mut self) {
        let greeted = self.client.received.len() + self.client.outbox.len() >= ESTABLISHED.len();
        self.greeting_owed = !greeted && !self.client.dead;
        // The last turn of a real loop delivers nothing any more, but takes the storage back.
        self.session.return_storage(&mut self.pool);
        self.settle_pipes();
        if self.plot != Plot::NoStorageAtStart {
            assert_eq!(self.pool.lent(), 0, "storage was kept");
        }
        assert_eq!(self.session.deadline(), None);
        assert!(!self.session.wants_lookup() && !self.session.wants_login());
        let expected = usize::from(self.end_word != "unused");
        assert_eq!(self.records.len(), expected, "access lines: {:?}", self.records);
        assert!(self.records.iter().all(|&word| word == self.end_word));
        let to_client = [&self.client.received[..], &self.client.outbox[..]].concat();
        let upstream = self.upstream.take().map(|(_, upstream)| upstream);
        let to_upstream = upstream
            .as_ref()
            .map(|upstream| [&upstream.received[..], &upstream.outbox[..]].concat())
            .unwrap_or_default();
        assert!(self.client_sends.starts_with(&to_upstream), "the upstream got something else");
        match self.statuses.first() {
            Some(Some(200)) => {
                let tunnel = [ESTABLISHED, &self.upstream_sends].concat();
                assert!(tunnel.starts_with(&to_client), "the client got something else");
            }
            Some(Some(status)) => {
                let start = format!("HTTP/1.1 {status} ");
                let count = start.len().min(to_client.len());
                assert_eq!(to_client[..count], start.as_bytes()[..count]);
                assert!(to_upstream.is_empty());
            }
            Some(None) | None => assert!(to_client.is_empty()),
        }
        self.check_times();
        let waits = |from: &Socket, to: &Socket| !from.inbox.is_empty() && to.wants_room && !to.dead;
        let waits = upstream
            .as_ref()
            .is_some_and(|upstream| waits(&self.client, upstream) || waits(upstream, &self.client));
        self.check_what_was_cut(waits);
        if self.statuses == [Some(200)]
            && !self.client.dead
            && upstream.as_ref().is_some_and(|socket| !socket.dead)
        {
            let down_bytes = to_client.len().saturating_sub(ESTABLISHED.len());
            assert_eq!(
                self.counted,
                (to_upstream.len() as u64, down_bytes as u64),
                "the access line counts wrong"
            );
        }
        for (side, socket) in [(Side::Client, Some(&self.client)), (Side::Upstream, upstream.as_ref())] {
            if socket.is_some_and(|socket| socket.dead && !socket.fin && socket.connected) {
                assert_ne!(self.end_word, "done", "a stream was cut off and nobody was told");
                let other = if side == Side::Client { Side::Upstream } else { Side::Client };
                let blamed = if side == Side::Client { "client_reset" } else { "upstream_reset" };
                if self.end_word == blamed {
                    assert!(self.session.closes_with_reset(other), "a reset was not passed on");
                }
            }
        }
        if self.plot == Plot::DialSilent && self.client.fin {
            assert_ne!(self.end_word, "connection_timeout", "the client had left");
        }
        if self.plot == Plot::Peaceful {
            self.check_peaceful_end(&to_client, &to_upstream);
        }
    }

    /// A tunnel that ends with bytes in hand must not look complete to whoever they were for.
    fn check_what_was_cut(&self, waits: bool) {
        let cut = matches!(self.end_word, "idle_timeout" | "half_open_timeout" | "grace");
        if !cut || self.statuses != [Some(200)] {
            return;
        }
        let held_up = self.taken.0 as u64 > self.head.len() as u64 + self.counted.0;
        // The greeting is owed as well.
        let held_down = self.taken.1 as u64 > self.counted.1 || self.greeting_owed;
        let resets = [Side::Client, Side::Upstream].map(|side| self.session.closes_with_reset(side));
        // What was to be passed on without being held is cut off as well. Before it is looked at, nobody knows whether it is anything;
        // grace may be over in the middle of a run.
        let held = held_up || held_down;
        let is_cut = held || self.was_without_storage && waits && self.end_word != "grace";
        assert!(resets == [true; 2] || !is_cut, "it looks complete");
        assert!(resets == [false; 2] || held || self.was_without_storage, "nothing was lost");
    }

    /// Whatever timed out did so after exactly its time.
    fn check_times(&self) {
        let timeouts = &self.policy.timeouts;
        let (since, length_ms) = match self.end_word {
            "idle_timeout" => (self.moved_at, timeouts.idle_ms),
            "half_open_timeout" => (self.moved_at, timeouts.half_open_ms),
            "client_left" => (self.end_known_at.unwrap().max(self.asked_at), CLIENT_LEFT_MS),
            "unused" if self.drained_at.is_some() => {
                let waited_ms = self.now.since(self.drained_at.unwrap());
                return assert!(waited_ms < DRAIN_IDLE_MS + 10, "idle for {waited_ms} ms of the drain");
            }
            "connection_timeout" => {
                // Refused then, and since then lingering.
                let record = self.session.record(self.now);
                return assert_eq!(record.dial_ms, Some(timeouts.dial_ms));
            }
            _ => return,
        };
        let waited_ms = self.now.since(since);
        // A session may have been told some turns before it acted.
        assert!(
            (length_ms - 20..length_ms + 20).contains(&waited_ms),
            "{} after {waited_ms} ms",
            self.end_word
        );
    }

    /// Peaceful worlds lose nothing: whoever was connected got every byte.
    fn check_peaceful_end(&self, to_client: &[u8], to_upstream: &[u8]) {
        match self.end_word {
            "done" => {
                assert_eq!(to_upstream, self.client_sends);
                assert_eq!(to_client, [ESTABLISHED, &self.upstream_sends].concat());
            }
            // Storage may be missing when the head is read.
            "connection_limit_reached" => {}
            other => panic!("a peaceful world ended with {other}"),
        }
        assert!(
            !self.session.closes_with_reset(Side::Client) && !self.session.closes_with_reset(Side::Upstream)
        );
    }
}
