//! What must hold at every moment, and at the end.

use adit::proto::deadlines::Kind as DeadlineKind;
use adit::proto::session::{CLIENT_LEFT_MS, EndReason, LOGIN_TIMEOUT_MS, Side, Step};

use super::client::{Client, Ending};
use super::origin::{Connection, token_of};
use super::plan::{End, Exchange, Fault, Framing, Kind, ORIGINS, Plot, origin_name};
use super::reader::{Message, Shape};
use super::{Line, SPARE_MS, World};

impl World {
    // Origins.

    /// An origin has seen the head of a request.
    pub(super) fn check_request_head(&mut self, id: usize, index: usize) {
        let connection = &self.connections[id];
        let message = &connection.reader.messages[index];
        let token = token_of(message);
        let exchange = &self.exchanges[token];
        assert_eq!(connection.origin, exchange.origin, "a request to another origin");
        assert!(matches!(exchange.kind, Kind::Plain | Kind::Upgrade | Kind::Bad), "not to be forwarded");
        let is_next = index == connection.answering || connection.is_behind;
        assert!(is_next, "a request behind one that is not answered yet");
        assert!(index == 0 || connection.reader.messages[index - 1].is_complete, "behind half a request");
        if let Some((key, _)) = connection.owner {
            assert!(key == exchange.client || connection.is_behind);
        }
        if exchange.kind != Kind::Bad {
            check_request_fields(exchange, message);
        }
        let tries = &mut self.exchanges[token].tries;
        tries.push(id);
        if let [first, _] = tries[..] {
            let first = &self.connections[first];
            let is_first = token_of(&first.reader.messages[0]) == token;
            assert!(!is_first, "sent again, although its connection was a fresh one");
            assert_eq!(first.sent_bytes, 0, "sent again, although it was answered");
            assert!(index == 0, "sent again over a connection that was used before");
            assert!(self.exchanges[token].is_repeatable(), "sent twice");
            self.note("request sent twice");
        } else {
            assert_eq!(tries.len(), 1, "sent thrice");
        }
    }

    pub(super) fn check_request_body(&mut self, id: usize) {
        let reader = &self.connections[id].reader;
        let Some(message) = reader.messages.last() else { return };
        let exchange = &self.exchanges[token_of(message)];
        if message.shape == Shape::Tunnel {
            assert!(self.connections[id].answering > 0 || reader.tunnel.is_empty(), "before the 101");
            assert!(exchange.tunnel_up.starts_with(&reader.tunnel), "the tunnel has other bytes");
            return;
        }
        if exchange.kind == Kind::Bad {
            return assert!(!message.is_complete, "what is no request looks like one");
        }
        assert!(message.begins(&exchange.body), "the body has other bytes");
        if message.is_complete {
            assert_eq!(exchange.body.len(), message.body.len());
            check_trailers(message, exchange.has_trailer, exchange.token);
        }
    }

    // The loop.

    pub(super) fn check_write(&self, key: usize, side: Side) {
        if side == Side::Upstream {
            let connection = &self.connections[self.entries[key].upstream.unwrap()];
            assert_eq!(connection.owner.unwrap().0, key);
            assert!(self.may_reach(key, connection.origin, connection.address));
        }
    }

    /// What is idle must be good for another request, as far as it can be known.
    pub(super) fn check_idle(&self) {
        let idle =
            self.connections.iter().filter(|connection| connection.owner.is_none() && connection.is_open);
        for connection in idle {
            let socket = &connection.socket;
            assert!(socket.edge || !socket.ready().readable, "an idle connection has something to say");
            let is_read = socket.outbox.is_empty() && !socket.edge && !connection.is_behind;
            assert!(!is_read || connection.reader.is_between_messages(), "idle within a request");
        }
    }

    pub(super) fn check_limits(&self) {
        let is_idle = |connection: &&Connection| connection.is_open && connection.owner.is_none();
        let idle: Vec<&Connection> = self.connections.iter().filter(is_idle).collect();
        assert_eq!(idle.len(), self.idle.len(), "an idle connection that is nobody's");
        assert!(idle.len() <= self.limits.total, "too many idle connections");
        for origin in 0..ORIGINS {
            let count = idle.iter().filter(|connection| connection.origin == origin).count();
            assert!(count <= self.limits.per_origin, "too many idle connections to one origin");
        }
    }

    pub(super) fn check_settled(&self, key: usize) {
        let entry = &self.entries[key];
        let Some((kind, due)) = entry.session.deadline() else {
            let is_over = matches!(entry.session.step(), Step::Record | Step::End(_));
            return assert!(is_over, "no state without a deadline: {:?}", entry.session);
        };
        assert!(self.deadlines.get(key).is_some_and(|queued| queued <= due), "the deadline is not queued");
        if kind == DeadlineKind::KeepAlive && entry.session.step() == Step::Wait {
            assert!(!entry.session.holds_storage(), "storage is kept between two requests");
            assert!(entry.upstream.is_none(), "an upstream is kept between two requests");
        }
    }

    /// A deadline has passed: after its time.
    pub(super) fn check_deadline(&self, key: usize, kind: Option<DeadlineKind>) {
        let (moves, timeouts) = (self.entries[key].moves, &self.policy.timeouts);
        if kind == Some(DeadlineKind::KeepAlive) && self.entries[key].socket.inbox.is_empty() {
            assert_eq!(self.entries[key].lines.len(), self.clients[key].begun, "a request was lost");
        }
        let (since, lengths_ms) = match kind {
            Some(DeadlineKind::Response) => (moves.any, [timeouts.response_ms; 3]),
            // An answer that goes on without the rest of its request has the shorter one; one that came with a part of its
            // trailers has what was left when it came.
            Some(DeadlineKind::Idle) => {
                let left_ms =
                    if self.may_have_trailers(key) { timeouts.response_ms } else { timeouts.idle_ms };
                (moves.any, [timeouts.idle_ms, timeouts.half_open_ms, left_ms])
            }
            // Likewise.
            Some(DeadlineKind::HalfOpen) if self.may_have_trailers(key) => {
                let half_open_ms = timeouts.half_open_ms;
                (moves.any, [half_open_ms, half_open_ms, timeouts.response_ms])
            }
            Some(DeadlineKind::HalfOpen) => (moves.any, [timeouts.half_open_ms; 3]),
            Some(DeadlineKind::KeepAlive) if !self.is_draining => (moves.any, [timeouts.keepalive_ms; 3]),
            Some(DeadlineKind::Resolve) => (moves.asked, [timeouts.resolve_ms; 3]),
            Some(DeadlineKind::Login) => (moves.asked, [LOGIN_TIMEOUT_MS; 3]),
            Some(DeadlineKind::ClientLeft) => {
                let known = moves.end_known.expect("the client has not left");
                (known.max(moves.asked).max(moves.heard), [CLIENT_LEFT_MS; 3])
            }
            _ => return,
        };
        let waited_ms = self.now.since(since);
        // What else takes time may hold it up; and bytes of a head or trailer that is not complete do not put it off: they
        // come in the time that is to spare.
        let fits = |length_ms: u64| waited_ms.abs_diff(length_ms) <= SPARE_MS;
        assert!(lengths_ms.into_iter().any(fits), "{kind:?} after {waited_ms} ms");
    }

    fn may_have_trailers(&self, key: usize) -> bool {
        let number = self.clients[key].exchanges[self.entries[key].lines.len()];
        self.exchanges[number].answer.framing == Framing::Chunked
    }

    /// The session is over and its client is still connected.
    pub(super) fn check_closing(&mut self, key: usize, reason: EndReason) {
        let (entry, client) = (&self.entries[key], &self.clients[key]);
        let resets = entry.session.closes_with_reset(Side::Client);
        let is_gone = entry.socket.inbox.is_empty() || entry.socket.dead;
        if is_gone || resets || reason != EndReason::Done {
            return;
        }
        // Who asks for the end and then for more may meet it at this very moment, and nobody can know.
        let asked = &self.exchanges[client.exchanges[entry.lines.len() - 1]];
        let asked_for_it = asked.says_close || asked.is_http10;
        let is_hurried = self.plot.takes_time() || matches!(self.plot, Plot::Grace | Plot::Quit);
        let nobody_knew = is_hurried || asked_for_it && !entry.knows_unread;
        assert!(nobody_knew, "closed with something unread, which erases the answer");
        self.note("request behind the last answer");
        self.clients[key].is_poisoned = true;
    }

    // Clients.

    /// What a client has been told so far.
    pub(super) fn check_answers(&mut self, key: usize) {
        let client = &self.clients[key];
        let (checked, new) = client.reader.messages.split_at(client.checked);
        let mut number = checked.iter().filter(|message| message.is_final()).count();
        for message in new {
            let Some(exchange) = client.exchanges.get(number).map(|&number| &self.exchanges[number]) else {
                panic!("an answer to nothing");
            };
            self.check_answer(client, exchange, message);
            number += usize::from(message.is_final());
        }
        // The last one may not be all yet.
        self.clients[key].checked = self.clients[key].reader.messages.len().saturating_sub(1);
    }

    fn check_answer(&self, client: &Client, exchange: &Exchange, message: &Message) {
        let status = message.status;
        let token = format!("t{}", exchange.token);
        if message.field("Proxy-Status").is_some() {
            return self.check_refusal(exchange, message);
        }
        match exchange.kind {
            Kind::Own(200) => return assert_eq!(status, 200),
            Kind::Connect => {
                assert_eq!(status, 200);
                let tunnel = &client.reader.tunnel;
                return assert!(exchange.tunnel_down.starts_with(tunnel), "the tunnel has other bytes");
            }
            Kind::Own(_) | Kind::Bad => panic!("not to be answered by an origin: {message:?}"),
            Kind::Plain | Kind::Upgrade => {}
        }
        if client.is_poisoned && message.field("X-Token") != Some(&token) {
            return;
        }
        assert_eq!(message.field("X-Token"), Some(token.as_str()), "another exchange's answer");
        assert!(message.field("Via").is_some_and(|via| via.ends_with(" adit")));
        assert!(message.field("X-Gone").is_none() && message.field("Keep-Alive").is_none());
        let answer = &exchange.answer;
        if !message.is_final() {
            assert!(!exchange.is_http10, "an interim response to HTTP/1.0");
            assert!(status == 100 && exchange.expects || status == 103);
            return;
        }
        assert_eq!(status, answer.status);
        if status == 101 {
            return assert!(
                exchange.tunnel_down.starts_with(&client.reader.tunnel),
                "the tunnel has other bytes"
            );
        }
        if answer.fault == Fault::BadBody {
            return assert!(!message.is_complete, "what is no body looks like one");
        }
        assert!(message.begins(&answer.body), "the body has other bytes");
        if message.is_complete {
            assert_eq!(answer.body.len(), message.body.len(), "a cut answer looks complete");
            check_trailers(message, answer.has_trailer && !exchange.is_http10, exchange.token);
        }
    }

    fn check_refusal(&self, exchange: &Exchange, message: &Message) {
        let status = message.status;
        let fits = match (exchange.kind, self.plot) {
            (Kind::Own(own), _) if status == own => true,
            (Kind::Bad, _) if status == 400 || status == 501 || status == 403 => message.closes(),
            // The last answer may have been whole, and the connection good for another request until it ended.
            (_, Plot::Truncated | Plot::Reset) => {
                status == 502 && (exchange.answer.fault != Fault::Nothing || !exchange.is_repeatable())
            }
            (_, Plot::BadFraming | Plot::UnaskedSwitch | Plot::Flood) => {
                status == 502 && exchange.answer.fault != Fault::Nothing
            }
            (_, Plot::ClosesIdle | Plot::DiesReused | Plot::Surplus) => {
                // Only if its connection was used before, and it cannot be sent twice.
                status == 502 && !exchange.is_repeatable()
            }
            (_, Plot::Silent) => matches!(status, 504) && exchange.answer.fault != Fault::Nothing,
            (_, Plot::NameFails | Plot::DialRefused) => status == 502,
            (_, Plot::DialSilent) => status == 504,
            (_, Plot::ClientLeaves) => status == 400,
            (_, Plot::ClientStalls | Plot::Drain) => status == 408,
            // Attempts that had no descriptor leave the others alone.
            (_, Plot::Scarce) => status == 503 || status == 502,
            (_, Plot::Grace | Plot::Quit) => status == 503 && message.closes(),
            (_, Plot::LoginSilent) => status == 503,
            _ => false,
        };
        assert!(fits, "{:?}: {:?} is refused: {message:?}", self.plot, exchange.kind);
    }

    // The end.

    pub(super) fn check_end(&mut self) {
        assert_eq!(self.storage.lent(), 0, "storage was kept");
        for key in 0..self.entries.len() {
            assert_eq!(self.entries[key].session.deadline(), None);
            assert!(!self.entries[key].session.wants_lookup() && !self.entries[key].session.wants_login());
            self.check_answers(key);
            self.check_cut(key);
            self.check_lines(key);
            if self.is_undisturbed(key) {
                self.check_all_are_answered(key);
            }
            self.count_what_was_seen(key);
        }
        for connection in &self.connections {
            let is_idle = connection.is_open;
            assert!(!is_idle || connection.owner.is_none(), "an upstream is left");
        }
    }

    fn count_what_was_seen(&mut self, key: usize) {
        let mut seen = Vec::new();
        for message in &self.clients[key].reader.messages {
            seen.push(match message.status {
                101 => "upgrade",
                100..=199 => "interim response",
                _ if message.shape == Shape::Tunnel => "tunnel behind plain HTTP",
                407 => "login refused",
                503 if self.plot == Plot::LoginSilent => "login never answered",
                _ if message.field("Proxy-Status").is_some() => "refusal",
                _ if message.field("X-Token").is_none() => "own answer",
                _ => "answer",
            });
        }
        seen.into_iter().for_each(|what| self.note(what));
    }

    /// Whether nothing but the origins' faults can keep answers from this client.
    fn is_undisturbed(&self, key: usize) -> bool {
        if self.clients[key].is_poisoned {
            return false;
        }
        match self.plot {
            Plot::Peaceful
            | Plot::Surplus
            | Plot::Truncated
            | Plot::Reset
            | Plot::BadFraming
            | Plot::UnaskedSwitch
            | Plot::Flood
            | Plot::Silent
            | Plot::ClosesIdle
            | Plot::DiesReused
            | Plot::ClientHalfCloses
            | Plot::ClientBad
            | Plot::NameFails
            | Plot::DialRefused
            | Plot::DialSilent
            | Plot::Reload
            | Plot::LoginSilent => true,
            Plot::ClientResets | Plot::ClientLeaves | Plot::ClientStalls | Plot::ClientDeaf => {
                key != self.troubled
            }
            Plot::Scarce | Plot::Drain | Plot::Grace | Plot::Quit => false,
        }
    }

    /// A client whose answer was cut off sees that.
    fn check_cut(&mut self, key: usize) {
        let client = &self.clients[key];
        let Some(message) = client.reader.messages.last() else { return };
        let ends_with_it = message.shape == Shape::UntilClose;
        if client.is_poisoned
            || message.is_complete
            || message.shape == Shape::Tunnel
            || client.is_deaf
            || self.entries[key].socket.dead
        {
            return;
        }
        let exchange = &self.exchanges[client.exchanges[client.told - 1]];
        let answer = &exchange.answer;
        // Nobody can know that more was to come.
        let ends_in_order = match answer.fault {
            Fault::Cut { at, end: End::Fin } => {
                answer.framing == Framing::UntilClose && at >= answer.body_from
            }
            _ => false,
        };
        let is_whole = message.body == answer.body || ends_in_order;
        match client.ending {
            Some(Ending::Fin) if ends_with_it => {
                assert!(is_whole, "a cut answer looks complete: {message:?}")
            }
            Some(Ending::Reset) if ends_with_it && self.is_undisturbed(key) => {
                assert!(answer.fault != Fault::Nothing, "a whole answer looks cut");
            }
            _ => {}
        }
        if !is_whole {
            self.note("cut");
        }
    }

    fn check_lines(&self, key: usize) {
        let (entry, client) = (&self.entries[key], &self.clients[key]);
        let finals: Vec<&Message> =
            client.reader.messages.iter().filter(|message| message.is_final()).collect();
        assert!(entry.lines.len() >= finals.len(), "an answer without a line: {:?}", entry.lines);
        assert!(entry.lines.len() <= client.begun, "a line too much: {:?}", entry.lines);
        for (at, line) in entry.lines.iter().enumerate() {
            let exchange = &self.exchanges[client.exchanges[at]];
            let asked = &line.asked;
            let path = format!("/t{}", exchange.token);
            assert!(!asked.contains('?'), "a query in {asked}");
            let tells = match exchange.kind {
                _ if exchange.method == "CONNECT" => asked.starts_with("CONNECT ") || asked == "- -",
                Kind::Own(200) => true,
                Kind::Connect | Kind::Plain | Kind::Upgrade | Kind::Own(_) | Kind::Bad => {
                    asked.ends_with(&path) || asked == "- -"
                }
            };
            assert!(tells, "{asked} is not {path}");
            self.check_user(exchange, line);
            if let Some(message) = finals.get(at) {
                assert_eq!(line.status, Some(message.status), "{line:?}");
            }
        }
        let up: u64 = entry.lines.iter().map(|line| line.up_bytes).sum();
        let down: u64 = entry.lines.iter().map(|line| line.down_bytes).sum();
        if entry.socket.dead || client.is_deaf {
            return;
        }
        assert_eq!(entry.written.1, up, "bytes: {:?}", entry.lines);
        // The greeting of a tunnel is not counted; it may have been cut off.
        let greeting = entry.written.0.wrapping_sub(down);
        let whole = adit::proto::reply::ESTABLISHED.len() as u64;
        match entry.lines.last() {
            Some(line) if line.asked.starts_with("CONNECT") && line.status == Some(200) => {
                assert!(greeting <= whole && (greeting == whole || line.down_bytes == 0));
            }
            _ => assert_eq!(greeting, 0, "bytes: {:?}", entry.lines),
        }
    }

    /// Nobody stands in a line who has not shown the credentials of this very request.
    fn check_user(&self, exchange: &Exchange, line: &Line) {
        let is_asked = self.policy.users.is_some();
        match line.user.as_deref() {
            Some(user) => assert!(is_asked && line.status != Some(407) && user == exchange.user, "{line:?}"),
            // Something has gone wrong before it was known.
            None => assert!(!is_asked || line.status != Some(exchange.answer.status), "{line:?}"),
        }
    }

    /// Whoever was undisturbed got every answer, up to the one that said it is the last.
    fn check_all_are_answered(&self, key: usize) {
        let client = &self.clients[key];
        let finals: Vec<&Message> =
            client.reader.messages.iter().filter(|message| message.is_final()).collect();
        let ends = self.entries[key].lines.iter().map(|line| line.end).collect::<Vec<_>>();
        self.check_interims(client);
        if self.plot == Plot::Peaceful {
            assert_ne!(client.ending, Some(Ending::Reset), "a reset in peace");
        }
        for (at, &number) in client.exchanges.iter().enumerate() {
            let exchange = &self.exchanges[number];
            let Some(message) = finals.get(at) else {
                // The reset that tells that an answer was cut may overtake it, and whole ones before it.
                let mut begun = client.exchanges[..ends.len()].iter().map(|&number| &self.exchanges[number]);
                let is_cut = begun.any(|exchange| exchange.answer.fault != Fault::Nothing);
                if client.ending == Some(Ending::Reset) && is_cut {
                    return;
                }
                panic!("{:?}: no answer to {}: {ends:?}", self.plot, exchange.token);
            };
            let is_last = at + 1 == finals.len();
            if message.shape == Shape::Tunnel {
                assert_eq!(client.reader.tunnel, exchange.tunnel_down);
                let id = if exchange.kind == Kind::Connect { None } else { exchange.tries.last() };
                if let Some(&id) = id
                    && exchange.answer.fault == Fault::Nothing
                {
                    assert_eq!(self.connections[id].reader.tunnel, exchange.tunnel_up);
                }
                return assert!(is_last);
            }
            let fault = exchange.answer.fault;
            let is_own = message.field("Proxy-Status").is_some() || matches!(exchange.kind, Kind::Own(_));
            let is_cut = !message.is_complete && message.shape != Shape::UntilClose;
            // A reset behind a later answer that was cut may overtake this one.
            let may_be_cut = fault != Fault::Nothing || client.ending == Some(Ending::Reset);
            assert!(!is_cut || may_be_cut, "{:?}: {} was cut: {ends:?}", self.plot, exchange.token);
            if exchange.must_close() && !is_own && !is_cut {
                assert!(message.closes(), "the connection was to end");
            }
            if message.closes() {
                assert!(exchange.may_close() || is_own, "nobody wanted the end: {message:?}");
                return assert!(is_last, "an answer behind the last one");
            }
            if is_cut {
                return assert!(is_last);
            }
        }
        assert_eq!(finals.len(), client.exchanges.len());
    }
}

impl World {
    /// Each interim response goes on, but to who does not know them.
    fn check_interims(&self, client: &Client) {
        let (mut number, mut interims) = (0, 0);
        for message in &client.reader.messages {
            interims += usize::from(message.status == 103);
            if message.is_final() {
                let exchange = &self.exchanges[client.exchanges[number]];
                let is_from_origin = message.field("X-Token").is_some();
                if is_from_origin && exchange.answer.fault == Fault::Nothing {
                    let wanted = if exchange.is_http10 { 0 } else { exchange.answer.interims };
                    assert_eq!(interims, wanted, "interim responses");
                }
                (number, interims) = (number + 1, 0);
            }
        }
    }
}

fn check_request_fields(exchange: &Exchange, message: &Message) {
    let Exchange { method, token, .. } = exchange;
    assert_eq!(message.start, format!("{method} /t{token}?q=1 HTTP/1.1"));
    assert_eq!(message.field("Host"), Some(origin_name(exchange.origin).as_str()));
    assert_eq!(message.field("X-Token"), Some(format!("t{token}").as_str()));
    let version = if exchange.is_http10 { "1.0" } else { "1.1" };
    assert_eq!(message.field("Via"), Some(format!("{version} adit").as_str()));
    let is_upgrade = exchange.kind == Kind::Upgrade;
    assert_eq!(message.field("Connection"), is_upgrade.then_some("upgrade"));
    assert_eq!(message.field("Upgrade"), is_upgrade.then_some("echo"));
    assert_eq!(message.field("Expect"), exchange.expects.then_some("100-continue"));
    assert_eq!(message.field("X-Pad").map_or(0, str::len), exchange.pad_bytes);
    assert!(message.field("X-Gone").is_none() && message.field("Proxy-Connection").is_none());
    assert!(message.field("Proxy-Authorization").is_none(), "credentials go nowhere else");
}

fn check_trailers(message: &Message, wanted: bool, token: usize) {
    let trailers: Vec<(String, String)> =
        if wanted { vec![("X-Trailer".into(), format!("t{token}"))] } else { Vec::new() };
    assert_eq!(message.trailers, trailers);
}
