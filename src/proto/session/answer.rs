//! The proxy's own answers: written, then lingered behind, so that a reset does not erase them.

use super::{Answer, EndReason, Exchange, LINGER_BYTES, LINGER_MS, Outcome, Policy, Session, State};
use crate::proto::reply::{Body, ConnectionHeader, Refusal};
use crate::proto::response::AnswerTo;
use crate::proto::target::Target;
use crate::proto::tick::Tick;

impl Session {
    pub(super) fn refuse(&mut self, refusal: Refusal, now: Tick, policy: &Policy) {
        let mut bytes = Vec::new();
        let mut target = self.target.as_ref().map(Target::to_string);
        let mut body = Body::Sent;
        // Nothing behind a message that was not understood is believed, whoever sent it.
        let not_understood = matches!(
            refusal,
            Refusal::BadRequest(_)
                | Refusal::BadTarget(_)
                | Refusal::BadResponse(_)
                | Refusal::ResponseHeadTooLarge
        );
        let connection =
            if not_understood { ConnectionHeader::Close } else { self.connection_behind_answer() };
        if let Some(http) = &mut self.http {
            http.forget_proof();
            if http.answer_to == AnswerTo::Head {
                body = Body::Omitted;
            }
            if http.asked().is_none() {
                // The last request's.
                target = None;
            }
        }
        refusal.render(&policy.via, target.as_deref(), connection, body, &mut bytes);
        self.status = Some(refusal.status());
        self.end.get_or_insert(EndReason::Refused(refusal.error_type()));
        self.refusal = Some(Box::new(refusal));
        self.reply(Answer { bytes, sent: 0, connection }, now);
    }

    pub(super) fn reply(&mut self, answer: Answer, now: Tick) {
        self.exchange = Exchange::Open;
        self.down.ring.clear();
        match (answer.connection, &mut self.http) {
            (ConnectionHeader::KeepAlive, Some(http)) => self.up.ring.drained(http.take_cleared()),
            // Nothing behind it is processed; least of all behind a refused CONNECT (RFC 9931).
            (ConnectionHeader::KeepAlive, None) | (ConnectionHeader::Close, _) => self.up.ring.clear(),
        }
        self.state = State::Replying(Box::new(answer));
        self.enter(now, LINGER_MS);
    }

    pub(super) fn answer_written(&mut self, outcome: Outcome) {
        let State::Replying(answer) = &mut self.state else { return };
        match outcome {
            Outcome::Moved(count) => {
                answer.sent = (answer.sent + count).min(answer.bytes.len());
                self.down.moved += count as u64;
                if answer.sent == answer.bytes.len() && answer.connection == ConnectionHeader::KeepAlive {
                    self.exchange = Exchange::Over;
                    self.state = State::Idle;
                }
            }
            Outcome::Blocked => self.client_ready.writable = false,
            Outcome::Failed(_) => {
                if self.end == Some(EndReason::Done) {
                    // So it would have been.
                    self.end = None;
                }
                self.finish(EndReason::ClientReset);
            }
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
