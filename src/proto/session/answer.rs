//! The proxy's own answers: written, then lingered behind, so that a reset does not erase them.

use super::{Answer, EndReason, Exchange, LINGER_BYTES, LINGER_MS, Outcome, Policy, Session, State};
use crate::proto::reply::{Body, ConnectionHeader, Refusal};
use crate::proto::target::Target;
use crate::proto::tick::Tick;

impl Session {
    pub(super) fn refuse(&mut self, refusal: Refusal, now: Tick, policy: &Policy) {
        let mut bytes = Vec::new();
        let target = self.target.as_ref().map(Target::to_string);
        let body = match self.asked.as_deref() {
            Some((method, _)) if **method == *"HEAD" => Body::Omitted,
            Some(_) | None => Body::Sent,
        };
        refusal.render(&policy.via, target.as_deref(), ConnectionHeader::Close, body, &mut bytes);
        self.status = Some(refusal.status());
        self.end.get_or_insert(EndReason::Refused(refusal.error_type()));
        self.exchange = Exchange::Open;
        // What the client sent behind the head of a refused CONNECT is never processed (RFC 9931).
        self.up.ring.clear();
        self.refusal = Some(Box::new(refusal));
        self.state = State::Replying(Box::new(Answer { bytes, sent: 0 }));
        self.enter(now, LINGER_MS);
    }

    pub(super) fn answer_written(&mut self, outcome: Outcome) {
        let State::Replying(answer) = &mut self.state else { return };
        match outcome {
            Outcome::Moved(count) => {
                answer.sent = (answer.sent + count).min(answer.bytes.len());
                self.down.moved += count as u64;
            }
            Outcome::Blocked => self.client_ready.writable = false,
            Outcome::Failed(_) => self.finish(EndReason::ClientReset),
            // Not an outcome of writing.
            Outcome::Eof | Outcome::Done | Outcome::NoStorage => {}
        }
    }

    /// The answer is out and our sending side is closed: the exchange is over for the log, the connection not yet.
    pub(super) fn linger(&mut self, now: Tick) {
        self.exchange = Exchange::Over;
        self.state = State::Lingering { discarded_bytes: 0 };
        self.enter(now, LINGER_MS);
    }

    pub(super) fn discarded(&mut self, outcome: Outcome) {
        let State::Lingering { discarded_bytes } = &mut self.state else { return };
        match outcome {
            Outcome::Moved(count) => {
                *discarded_bytes += count as u64;
                if *discarded_bytes >= LINGER_BYTES {
                    self.finish(EndReason::ClientLeft);
                }
            }
            Outcome::Blocked => self.client_ready.readable = false,
            Outcome::Eof | Outcome::Failed(_) => self.finish(EndReason::ClientLeft),
            // Not an outcome of reading.
            Outcome::Done | Outcome::NoStorage => {}
        }
    }
}
