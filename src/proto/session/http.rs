//! Plain HTTP: from a request head to an upstream that it can go to.

use std::net::SocketAddr;

use super::authenticating::{Shown, Then};
use super::{Answer, Exchange, Forwarded, Policy, Session, State, URL_MAX_BYTES};
use crate::proto::body::{Body, Chunks, Framing, Passed};
use crate::proto::fields::{Expect, Persistence, Storage, Upgrade, Version};
use crate::proto::head::{self, HTTP_PORT, HttpRequest, MAX_METHOD_BYTES, Parsed};
use crate::proto::onward::{self, RequestEdit};
use crate::proto::pool::Origin;
use crate::proto::relay::{Ready, Sink, Source};
use crate::proto::reply::{self, ConnectionHeader, Credentials, Refusal};
use crate::proto::response::AnswerTo;
use crate::proto::rules::{CLIENT_RULE, Early, RuleName, Service, Verdict};
use crate::proto::scan::Scan;
use crate::proto::target::Target;
use crate::proto::tick::Tick;

use super::{EndReason, forwarding::Answering};

/// A rewritten head up to this length leaves the ring while it is on its way and while its answer is awaited: a ring is a
/// hundred times as large, and there are few of them. Also what is kept allocated from request to request.
pub const HEAD_KEPT_BYTES: usize = 768;

/// Names of protocols that a client may ask to switch to, together; an upgrade to more is not passed on.
const PROTOCOLS_MAX_BYTES: usize = 128;

/// What plain HTTP needs beside what a tunnel has. Made for the first such request of a connection, kept for the next ones.
#[derive(Debug)]
pub(super) struct Http {
    /// Method and URL as the access line shows them, with a space between.
    asked: Vec<u8>,
    method_bytes: usize,
    /// A short head without a body behind it. Longer ones, and those with a body, are in the ring. Responses' heads are
    /// written here too, and then put into the ring.
    pub(super) head: Vec<u8>,
    /// Bytes of the request's head that the upstream has not been sent, wherever they are.
    pub(super) head_unsent: usize,
    pub(super) head_bytes: usize,
    /// Bytes at the front of the ring that are sent, and kept to be sent once more.
    pub(super) held: usize,
    /// Bytes in the ring, behind those, that may go to the upstream.
    pub(super) cleared_up: usize,
    /// Bytes at the front of the other ring that may go to the client.
    pub(super) cleared_down: usize,
    pub(super) request: Body,
    pub(super) answering: Answering,
    pub(super) answer_to: AnswerTo,
    pub(super) client_version: Version,
    /// The protocols that the client has asked to switch to.
    pub(super) protocols: Option<Box<[u8]>>,
    /// What the client wants to become of its connection.
    pub(super) client_wish: Persistence,
    /// What becomes of the client's connection behind this exchange.
    pub(super) client_connection: ConnectionHeader,
    /// What the upstream said about its own.
    pub(super) upstream_connection: Persistence,
    /// Where the end of the answer is told to the client by nothing but the end of the connection.
    pub(super) end_is_close: bool,
    pub(super) waits_for_continue: bool,
    pub(super) interim_count: u8,
    pub(super) retry: Retry,
    /// Where the upstream connection leads, for the pool.
    pub(super) origin: Option<Box<Origin>>,
    /// Room for the credentials of the next request. None before there were any, while they are judged, and behind dialing.
    pub(super) shown: Option<Box<Shown>>,
    /// What this client was allowed to reach for [`Session::target`], the last time.
    proof: Option<Proof>,
    /// This exchange was judged by a policy that is no longer in force: it proves nothing for the next one, and its upstream was
    /// dialed as that policy and its settings said.
    pub(super) outdated: bool,
}

/// Whether a request may be sent once more, if the upstream dies before the first byte of its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retry {
    /// It has a body, is not idempotent, or has been sent twice already; or its connection is a fresh one.
    Never,
    /// If it turns out that it goes over a connection that was used before.
    IfReused,
    /// It goes over a connection that was used before, which may have died meanwhile.
    Once,
    /// The same for one that is not to be sent twice: as long as no byte of it has been.
    Unsent,
}

/// An address that a client may reach for its target, and the rule that said so. Until the exchange is over, the rule
/// stands in [`Session::rule`].
#[derive(Debug)]
struct Proof {
    address: SocketAddr,
    rule: Option<RuleName>,
}

/// What is to be done about a head, and the credentials with it.
type Understood = (Next, Result<Option<Box<Shown>>, Credentials>);

enum Next {
    Connect(Target),
    /// The proxy is asked itself, what it can do.
    Options,
    /// The proxy is asked itself, what it has received.
    Trace,
    /// Nothing: it has been here before.
    ViaLoop,
    /// To the target of the last request.
    Again,
    Forward,
}

impl Http {
    fn new() -> Http {
        Http {
            asked: Vec::new(),
            method_bytes: 0,
            head: Vec::new(),
            head_unsent: 0,
            head_bytes: 0,
            held: 0,
            cleared_up: 0,
            cleared_down: 0,
            request: Body::new(Framing::None, Chunks::Keep),
            answering: Answering::Head(Scan::for_response()),
            answer_to: AnswerTo::Other,
            client_version: Version::Http11,
            protocols: None,
            client_wish: Persistence::Close,
            client_connection: ConnectionHeader::Close,
            upstream_connection: Persistence::Close,
            end_is_close: false,
            waits_for_continue: false,
            interim_count: 0,
            retry: Retry::Never,
            origin: None,
            shown: None,
            proof: None,
            outdated: false,
        }
    }

    /// Nothing of the last exchange is left but memory that the next one can use.
    fn forget_exchange(&mut self) {
        let (asked, head) = (std::mem::take(&mut self.asked), std::mem::take(&mut self.head));
        let (shown, proof) = (self.shown.take(), self.proof.take());
        *self = Http { asked, head, shown, proof, ..Http::new() };
        self.asked.clear();
        self.shrink_head();
    }

    pub(super) fn shrink_head(&mut self) {
        self.head.clear();
        if self.head.capacity() > HEAD_KEPT_BYTES {
            self.head = Vec::new();
        }
    }

    /// Memory that it can own while nothing is under way but what was parsed.
    pub(super) const BYTES_MAX: usize =
        size_of::<Http>() + HEAD_KEPT_BYTES + MAX_METHOD_BYTES + 1 + URL_MAX_BYTES;

    fn begin(&mut self, request: &mut HttpRequest<'_>) {
        // At once as much as is kept: no request after the first one allocates.
        self.head.reserve_exact(HEAD_KEPT_BYTES);
        let url_bytes = "http://:65535".len() + request.authority.len() + request.path.len();
        self.asked.reserve_exact(request.method.len() + 1 + url_bytes.min(URL_MAX_BYTES));
        self.request = Body::new(request.framing, request.chunks);
        self.client_version = request.version;
        if request.upgrade == Upgrade::Asked {
            let protocols: Vec<&[u8]> = request.fields.values("upgrade").collect();
            let protocols = protocols.join(&b',');
            if protocols.len() <= PROTOCOLS_MAX_BYTES {
                self.protocols = Some(protocols.into());
            } else {
                // Nobody needs to know so many.
                request.upgrade = Upgrade::None;
            }
        }
        self.waits_for_continue = request.expect == Expect::Continue;
        self.answer_to = if request.is_head() { AnswerTo::Head } else { AnswerTo::Other };
        self.client_wish = request.persistence;
        self.client_connection = match request.persistence {
            Persistence::Keep => ConnectionHeader::KeepAlive,
            Persistence::Close => ConnectionHeader::Close,
        };
        self.retry = if request.is_idempotent() && request.framing == Framing::None {
            Retry::IfReused
        } else {
            Retry::Never
        };
        self.asked.extend_from_slice(request.method.as_bytes());
        self.method_bytes = request.method.len();
        self.asked.push(b' ');
    }

    /// Method and URL, if a request was understood.
    pub(super) fn asked(&self) -> Option<(&str, &str)> {
        let (method, url) = self.asked.split_at_checked(self.method_bytes + 1)?;
        // Printable ASCII, all of it.
        Some((std::str::from_utf8(method).ok()?.trim_end(), std::str::from_utf8(url).ok()?))
    }

    /// The bytes that are to be written to the upstream next, if they are not in the ring.
    pub(super) fn short_head(&self) -> &[u8] {
        &self.head[self.head.len().saturating_sub(self.head_unsent)..]
    }

    /// Whatever was allowed is to be judged again.
    pub(super) fn forget_proof(&mut self) {
        self.proof = None;
    }

    /// Nor does this exchange prove anything for the next, or leave it its upstream.
    pub(super) fn outdate(&mut self) {
        self.forget_proof();
        self.outdated = true;
    }

    /// How many bytes at the front of the ring belong to this request; it does without them.
    pub(super) fn take_cleared(&mut self) -> usize {
        std::mem::take(&mut self.held) + std::mem::take(&mut self.cleared_up)
    }

    /// Whether the client has sent its whole request, and wants to send another one.
    fn may_go_on(&self) -> bool {
        self.request.is_complete() && self.client_connection == ConnectionHeader::KeepAlive
    }
}

impl Session {
    /// A whole request head stands at the front of the ring.
    pub(super) fn head_complete(&mut self, head_bytes: usize, now: Tick, policy: &Policy) {
        if self.barred {
            self.rule = Some(CLIENT_RULE);
            return self.refuse(Refusal::ClientNotAllowed, now, policy);
        }
        let (next, shown) = match self.understand(head_bytes, policy) {
            Ok(understood) => understood,
            Err(refusal) => {
                self.up.ring.drained(head_bytes);
                return self.refuse(refusal, now, policy);
            }
        };
        let then = match next {
            Next::Connect(target) => {
                self.up.ring.drained(head_bytes);
                self.http = None;
                self.target = Some(target);
                Then::Connect
            }
            Next::Options => {
                Then::Answer(self.answer(head_bytes, |_, how, out| reply::options_answer(how, out)))
            }
            Next::Trace => Then::Answer(self.answer(head_bytes, reply::trace_answer)),
            Next::ViaLoop => {
                self.up.ring.drained(head_bytes);
                Then::ViaLoop
            }
            Next::Again | Next::Forward => {
                if let Err(refusal) = self.place_head(head_bytes) {
                    return self.refuse(refusal, now, policy);
                }
                if matches!(next, Next::Again) { Then::Again } else { Then::Forward }
            }
        };
        self.authenticate(shown, then, now, policy);
    }

    /// Reads the head; one that is to be forwarded is written anew into [`Http::head`].
    fn understand(&mut self, head_bytes: usize, policy: &Policy) -> Result<Understood, Refusal> {
        let mut storage = Storage::new();
        let head = &self.up.ring.contents()[..head_bytes];
        let mut request = match head::parse(head, &mut storage) {
            Ok(Parsed::Connect(request)) => {
                let shown = Shown::read(None, request.fields, policy);
                return Ok((Next::Connect(request.target), shown));
            }
            Ok(Parsed::Http(request)) => request,
            Err(refusal) => {
                self.target = head::connect_target(head);
                if self.target.is_some() {
                    self.http = None;
                }
                return Err(refusal);
            }
        };
        let http = self.http.get_or_insert_with(|| Box::new(Http::new()));
        http.begin(&mut request);
        let shown = Shown::read(http.shown.take(), request.fields, policy);
        if request.path == "*" {
            http.asked.push(b'*');
            return Ok((Next::Options, shown));
        }
        let again =
            self.target.as_ref().is_some_and(|target| target.is_authority(request.authority, HTTP_PORT));
        if !again {
            http.proof = None;
            (self.target, self.aside) = (None, None);
            match Target::from_authority_or_port(request.authority, HTTP_PORT) {
                Ok(target) => self.target = Some(target),
                Err(bad) => {
                    http.asked.push(b'-');
                    return Err(Refusal::BadTarget(bad.details()));
                }
            }
        }
        let Some(target) = &self.target else { return Ok((Next::Forward, shown)) };
        request.loggable_url(target, URL_MAX_BYTES, &mut http.asked);
        if policy.via_field.as_deref().is_some_and(|name| request.went_through(name)) {
            return Ok((Next::ViaLoop, shown));
        }
        match (request.max_forwards, request.method) {
            (Some(0), "TRACE") => return Ok((Next::Trace, shown)),
            (Some(0), _) => return Ok((Next::Options, shown)),
            // Methods, not an enum of ours: all that do not end here go on.
            (_, _) => {}
        }
        let edit = RequestEdit {
            target,
            via: policy.via_field.as_deref(),
            forwarded_for: match policy.forwarded {
                Forwarded::Added => Some(self.client.ip()),
                Forwarded::Omitted => None,
            },
        };
        onward::request(&request, &edit, &mut http.head);
        http.head_bytes = http.head.len();
        http.head_unsent = http.head_bytes;
        Ok((if again { Next::Again } else { Next::Forward }, shown))
    }

    /// Puts the head that was written anew where it waits for its upstream, in place of the one that was sent.
    fn place_head(&mut self, head_bytes: usize) -> Result<(), Refusal> {
        let Some(http) = &mut self.http else { return Ok(()) };
        if http.request.is_complete() && http.head.len() <= HEAD_KEPT_BYTES {
            self.up.ring.drained(head_bytes);
            return Ok(());
        }
        self.up.ring.replace_front(head_bytes, &http.head);
        http.cleared_up = http.head.len();
        http.shrink_head();
        self.pass_request().map_err(Refusal::BadRequest)
    }

    /// What of the ring belongs to the request's body may go on.
    pub(super) fn pass_request(&mut self) -> Result<(), &'static str> {
        let Some(http) = &mut self.http else { return Ok(()) };
        let from = http.held + http.cleared_up;
        let bytes = &mut self.up.ring.contents_mut()[from..];
        let Passed { kept, taken } = http.request.pass(bytes).map_err(|bad| bad.0)?;
        self.up.ring.remove(from + kept, taken - kept);
        http.cleared_up += kept;
        Ok(())
    }

    /// `again`: the last request of this client went to the same target, and was allowed to.
    pub(super) fn find_upstream(&mut self, again: bool, now: Tick, policy: &Policy) {
        let Some(target) = &self.target else { return };
        let proof = self.http.as_mut().and_then(|http| http.proof.as_mut()).filter(|_| again);
        if let Some(proof) = proof {
            self.rule = proof.rule.take();
        } else {
            match policy.rules.judge_name(self.who(), target, Service::Http) {
                Early::Resolve(rule) => self.rule = rule,
                Early::Refuse(refusal, rule) => {
                    self.rule = Some(rule);
                    return self.refuse(refusal, now, policy);
                }
            }
        }
        self.state = State::Reusing;
        self.enter(now, policy.timeouts.dial_ms);
    }

    /// Whether this client may use that connection for its target.
    #[must_use]
    pub fn may_reuse(&self, origin: &Origin, policy: &Policy) -> bool {
        self.is_proven(origin)
            || match self.judge(origin, policy) {
                Some(Verdict::Allow(_)) => true,
                Some(Verdict::Deny(..)) | None => false,
            }
    }

    pub(super) fn is_proven(&self, origin: &Origin) -> bool {
        let proof = self.http.as_ref().and_then(|http| http.proof.as_ref());
        // Rules may speak for the name that a search list made of the target's: that is judged each time.
        origin.completed.is_none() && proof.is_some_and(|proof| proof.address == origin.address)
    }

    fn judge(&self, origin: &Origin, policy: &Policy) -> Option<Verdict> {
        let (target, address) = (self.target.as_ref()?, origin.address.ip());
        let completed = origin.completed.as_deref();
        Some(policy.rules.judge_address(self.who(), target, completed, address, Service::Http))
    }

    /// The answer to [`super::Step::TakeIdle`]: a connection that leads to the target and that this client may use, if
    /// there is one. It is the upstream now.
    pub fn on_idle(&mut self, origin: Option<Box<Origin>>, now: Tick, policy: &Policy) {
        let Some(origin) = origin else { return self.resolve(now, policy) };
        if !self.is_proven(&origin)
            && let Some(Verdict::Allow(rule)) = self.judge(&origin, policy)
        {
            self.rule = Some(rule);
        }
        self.via = Some(origin.address);
        self.place = 0;
        self.upstream_ready = Ready { writable: true, ..Ready::default() };
        if let Some(http) = &mut self.http {
            http.origin = Some(origin);
            http.retry = match http.retry {
                Retry::IfReused | Retry::Once => Retry::Once,
                Retry::Never | Retry::Unsent => Retry::Unsent,
            };
        }
        self.start_forwarding(now, policy);
    }

    /// An upstream stands.
    pub(super) fn start_forwarding(&mut self, now: Tick, policy: &Policy) {
        let (Some(http), Some(address), Some(target)) = (&mut self.http, self.via, &self.target) else {
            return;
        };
        let aside = &mut self.aside;
        let origin = http.origin.get_or_insert_with(|| {
            let completed = aside.as_mut().and_then(|aside| aside.completed.take());
            Box::new(Origin { target: target.clone(), completed, address })
        });
        let proves = origin.completed.is_none() && !http.outdated;
        http.proof = proves.then_some(Proof { address, rule: None });
        (self.up.sink, self.down.source) = (Sink::Open, Source::Open);
        self.state = State::Forwarding;
        self.enter(now, policy.timeouts.response_ms);
    }

    /// Once more, over a fresh connection.
    pub(super) fn retry(&mut self, now: Tick, policy: &Policy) {
        let Some(http) = &mut self.http else { return };
        http.retry = Retry::Never;
        http.origin = None;
        http.cleared_up += std::mem::take(&mut http.held);
        http.head_unsent = http.head_bytes;
        self.upstream_ready = Ready::default();
        (self.reset, self.vanished, self.full_since) = (None, None, [None; 2]);
        self.up.forget_sink();
        self.resolve(now, policy);
    }

    /// The exchange is over and its access line is written: the next one, if the client has begun it already.
    pub(super) fn next_exchange(&mut self, now: Tick, policy: &Policy) {
        (self.end, self.status, self.refusal) = (None, None, None);
        (self.reset, self.vanished) = (None, None);
        // Rules for a completed name would speak for whatever is asked for next.
        (self.via, self.dns_ms, self.dial_ms, self.aside) = (None, None, None, None);
        (self.up.moved, self.down.moved, self.full_since) = (0, 0, [None; 2]);
        self.up.forget_sink();
        self.down.go_on();
        // Not only another upstream's: a CONNECT may come next.
        (self.up.sink, self.down.source) = (Sink::Open, Source::Open);
        let (rule, user) = (self.rule.take(), self.user.take());
        if let Some(http) = &mut self.http {
            http.forget_exchange();
            if let Some(shown) = &mut http.shown {
                shown.before = user;
            }
            // An exchange that the proxy answered itself had no need of it, and none of its own.
            if let Some(proof) = &mut http.proof
                && rule.is_some()
            {
                proof.rule = rule;
            }
        }
        if self.up.ring.is_empty() {
            self.enter(now, policy.timeouts.keepalive_ms);
            if self.draining {
                self.on_drain(now);
            }
        } else {
            self.begin_head(now, policy);
            self.scan_head(now, policy);
        }
    }

    /// The first bytes of another request are here.
    pub(super) fn begin_head(&mut self, now: Tick, policy: &Policy) {
        self.exchange = Exchange::Open;
        self.started = now;
        self.enter(now, policy.timeouts.head_ms);
    }

    /// The proxy answers itself, and not with a refusal: `write` is given the head that was received.
    fn answer(
        &mut self,
        head_bytes: usize,
        write: impl FnOnce(&[u8], ConnectionHeader, &mut Vec<u8>),
    ) -> Answer {
        let connection = self.connection_behind_answer();
        let mut bytes = Vec::new();
        write(&self.up.ring.contents()[..head_bytes], connection, &mut bytes);
        self.up.ring.drained(head_bytes);
        Answer { bytes, sent: 0, connection }
    }

    pub(super) fn give(&mut self, answer: Answer, now: Tick) {
        self.status = Some(200);
        self.end.get_or_insert(EndReason::Done);
        self.reply(answer, now);
    }

    /// What becomes of the client's connection if the proxy answers itself now. Nothing can follow a request that was not
    /// understood or has not come in whole.
    pub(super) fn connection_behind_answer(&self) -> ConnectionHeader {
        match &self.http {
            Some(http) if http.may_go_on() && !self.draining => ConnectionHeader::KeepAlive,
            Some(_) | None => ConnectionHeader::Close,
        }
    }
}
