//! Plain HTTP: what an upstream answers is understood, and written anew for the client.

use super::forwarding::Answering;
use super::http::Http;
use super::{EndReason, Policy, Session, State};
use crate::proto::body::{Body, Chunks, Framing, Passed};
use crate::proto::fields::{self, Persistence, Storage, Upgrade, Version};
use crate::proto::onward::{self, ResponseEdit};
use crate::proto::reply::{ConnectionHeader, Refusal};
use crate::proto::response::{self, ResponseHead};
use crate::proto::scan::{Broken, Scan, Scanned};
use crate::proto::tick::Tick;

/// Interim responses (1xx) that are passed on for one request; an origin that sends more is not one.
pub const INTERIM_MAX: u8 = 32;

/// What a response head leads to.
enum Seen {
    /// One that may go on; what follows is another head.
    Interim,
    /// One that may not.
    Dropped,
    Final(Body),
    Switched,
}

impl Session {
    /// Understands what the upstream has sent. Only once all that may go out is out: heads are put together at the front of
    /// the ring.
    pub(super) fn look_at_response(&mut self, now: Tick, policy: &Policy) {
        while let (State::Forwarding, Some(http)) = (&self.state, &mut self.http)
            && http.cleared_down == 0
            && !self.down.ring.is_empty()
        {
            match &mut http.answering {
                Answering::Head(scan) => match scan.scan(self.down.ring.contents()) {
                    Scanned::Incomplete => return,
                    Scanned::Bad(broken) => return self.refuse(broken_refusal(broken), now, policy),
                    Scanned::Complete(head_bytes) => {
                        if let Err(refusal) = self.response_head(head_bytes, policy) {
                            return self.refuse(refusal, now, policy);
                        }
                    }
                },
                Answering::Body(_) => return self.pass_response(),
                Answering::Complete | Answering::Cut(_) => return self.down.ring.clear(),
            }
        }
    }

    /// A whole head stands at the front of the ring: it is written anew in its place.
    fn response_head(&mut self, head_bytes: usize, policy: &Policy) -> Result<(), Refusal> {
        let Some(http) = &mut self.http else { return Ok(()) };
        let mut storage = Storage::new();
        let head = &self.down.ring.contents()[..head_bytes];
        let head =
            response::parse(head, &mut storage, http.answer_to).map_err(|bad| Refusal::BadResponse(bad.0))?;
        let seen = http.judge_response(&head, self.draining)?;
        http.head.clear();
        http.head_unsent = 0;
        if !matches!(seen, Seen::Dropped) {
            let edit = http.response_edit(&head, &seen, policy.via_field.as_deref());
            onward::response(&head, &edit, &mut http.head);
        }
        let status = head.status;
        self.down.ring.replace_front(head_bytes, &http.head);
        http.cleared_down = http.head.len();
        http.shrink_head();
        match seen {
            Seen::Interim | Seen::Dropped => http.answering = Answering::Head(Scan::for_response()),
            Seen::Final(body) => {
                self.status = Some(status);
                http.answering = Answering::Body(body);
                self.pass_response();
            }
            Seen::Switched => {
                self.status = Some(status);
                self.switch_protocols();
            }
        }
        Ok(())
    }

    /// What of the ring belongs to the answer's body may go on.
    fn pass_response(&mut self) {
        let Some(http) = &mut self.http else { return };
        let Answering::Body(body) = &mut http.answering else { return };
        let from = http.cleared_down;
        match body.pass(&mut self.down.ring.contents_mut()[from..]) {
            Ok(Passed { kept, taken }) => {
                self.down.ring.remove(from + kept, taken - kept);
                http.cleared_down += kept;
                if body.is_complete() {
                    http.answering = Answering::Complete;
                    let surplus = self.down.ring.len() - http.cleared_down;
                    if surplus > 0 {
                        self.down.ring.remove(http.cleared_down, surplus);
                        http.upstream_connection = Persistence::Close;
                    }
                }
            }
            Err(bad) => {
                // Nothing of it can be believed, and the client must see that this was not all.
                self.down.ring.remove(from, self.down.ring.len() - from);
                http.answering = Answering::Cut(EndReason::BadResponse(bad.0));
            }
        }
    }

    /// The connection is a tunnel from here on (RFC 9110 7.8). What either side has sent already are its first bytes.
    fn switch_protocols(&mut self) {
        if let Some(http) = &mut self.http {
            (http.head, http.shown) = (Vec::new(), None);
        }
        self.start_tunneling();
    }
}

/// What the client is told when its answer's head can never become one.
fn broken_refusal(broken: Broken) -> Refusal {
    match broken {
        Broken::Byte(details) => Refusal::BadResponse(details),
        Broken::FirstLineTooLong | Broken::TooLarge => Refusal::ResponseHeadTooLarge,
    }
}

impl Http {
    fn judge_response(&mut self, head: &ResponseHead<'_>, draining: bool) -> Result<Seen, Refusal> {
        match head.status {
            101 if head.upgrade == Upgrade::Asked && self.has_asked_for(head) => return Ok(Seen::Switched),
            101 => {
                return Err(Refusal::BadResponse(
                    "the destination switched to a protocol that nobody asked for",
                ));
            }
            100..=199 => {
                self.interim_count += 1;
                if self.interim_count > INTERIM_MAX {
                    return Err(Refusal::BadResponse("the destination sent more than 32 interim responses"));
                }
                // Others say nothing about the body: it is still the destination that is waited for.
                self.waits_for_continue &= head.status != 100;
                return Ok(match self.client_version {
                    Version::Http11 => Seen::Interim,
                    Version::Http10 => Seen::Dropped,
                });
            }
            // A number, not an enum of ours: every other status is a final one.
            _ => {}
        }
        let chunks = match self.client_version {
            Version::Http11 => head.chunks,
            Version::Http10 => Chunks::Strip,
        };
        let chunked_away = head.framing == Framing::Chunked && self.client_version == Version::Http10;
        self.end_is_close = head.framing == Framing::UntilClose || chunked_away;
        self.upstream_connection = match head.framing {
            Framing::UntilClose => Persistence::Close,
            Framing::None | Framing::Length(_) | Framing::Chunked => head.persistence,
        };
        // A client that is still sending its request cannot begin another one.
        if self.end_is_close || draining || !self.request.is_complete() {
            self.client_connection = ConnectionHeader::Close;
        }
        Ok(Seen::Final(Body::new(head.framing, chunks)))
    }

    /// Whether the client has named every protocol that the connection switches to (RFC 9110 7.8).
    fn has_asked_for(&self, head: &ResponseHead<'_>) -> bool {
        let Some(asked_for) = &self.protocols else { return false };
        let mut chosen = head.fields.values("upgrade").flat_map(fields::elements);
        chosen.all(|protocol| fields::elements(asked_for).any(|asked| asked.eq_ignore_ascii_case(protocol)))
    }

    fn response_edit<'a>(
        &self,
        head: &ResponseHead<'_>,
        seen: &Seen,
        via: Option<&'a str>,
    ) -> ResponseEdit<'a> {
        let (connection, upgrade) = match seen {
            Seen::Interim | Seen::Dropped => (ConnectionHeader::KeepAlive, Upgrade::None),
            Seen::Switched => (ConnectionHeader::KeepAlive, Upgrade::Asked),
            Seen::Final(_) => (self.client_connection, Upgrade::None),
        };
        let framing = if self.end_is_close { Framing::UntilClose } else { head.framing };
        ResponseEdit { framing, connection, upgrade, via, client_version: self.client_version }
    }
}
