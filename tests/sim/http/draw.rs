//! Draws exchanges: requests and the answers to them, as peers write them.

use adit::proto::ring::RING_BYTES;

use super::plan::{ADDRESS_ORIGIN, Answer, End, Exchange, Fault, Framing, Kind, Plot, content, origin_name};
use crate::Random;

/// Draws exchanges.
pub(super) struct Draw<'a> {
    pub(super) random: &'a mut Random,
    pub(super) plot: Plot,
    /// Buffers are tiny: so are bodies.
    pub(super) is_narrow: bool,
    /// Connections are seldom ended, so that many are used again.
    pub(super) is_keeping: bool,
    /// Users are asked for.
    pub(super) is_guarded: bool,
}

impl Draw<'_> {
    fn size(&mut self) -> usize {
        let sizes = match (self.is_narrow, self.random.one_in(8)) {
            (true, _) => [0, 1, 3, 30, 300, 700],
            (false, false) => [0, 1, 10, 300, 3_000, 9_000],
            (false, true) => [1, 300, 20_000, RING_BYTES, RING_BYTES + 1, 3 * RING_BYTES + 17],
        };
        let size = self.random.pick(&sizes);
        self.random.below(size + 1)
    }

    pub(super) fn exchange(
        &mut self,
        token: usize,
        client: usize,
        origins: usize,
        is_last: bool,
    ) -> Exchange {
        let origin = self.random.below(origins);
        let kind = match self.random.below(20) {
            0 if is_last => Kind::Connect,
            // What an upstream that broke has left behind.
            10.. if is_last && matches!(self.plot, Plot::ClosesIdle | Plot::DiesReused) => Kind::Connect,
            1 | 2 if is_last => Kind::Upgrade,
            3 => Kind::Upgrade,
            4 | 5 => Kind::Own(self.random.pick(&[200, 403, 502])),
            6 if self.is_guarded => Kind::Own(407),
            _ => Kind::Plain,
        };
        let by_address = origin == 2 && kind != Kind::Connect && self.random.one_in(2);
        let origin = if by_address { ADDRESS_ORIGIN } else { origin };
        let method = match kind {
            Kind::Plain => self
                .random
                .pick(&["GET", "GET", "GET", "GET", "HEAD", "POST", "POST", "POST", "PUT", "DELETE"]),
            Kind::Upgrade => "GET",
            Kind::Own(200) => "OPTIONS",
            Kind::Own(_) => self.random.pick(&["GET", "GET", "POST", "HEAD"]),
            Kind::Connect => "CONNECT",
            Kind::Bad => "GET",
        };
        let is_http10 = kind == Kind::Plain && self.random.one_in(if is_last { 8 } else { 40 });
        let framing = match method {
            "POST" | "PUT" if is_http10 => Framing::Length,
            "POST" => self.random.pick(&[Framing::Length, Framing::Chunked]),
            "PUT" => self.random.pick(&[Framing::Length, Framing::Chunked, Framing::Nothing]),
            _ => Framing::Nothing,
        };
        let size = if framing == Framing::Nothing { 0 } else { self.size() };
        let body = content(token, 1, size);
        let has_trailer = framing == Framing::Chunked && self.random.one_in(3);
        let body_wire = match framing {
            Framing::Nothing | Framing::UntilClose => Vec::new(),
            Framing::Length => body.clone(),
            Framing::Chunked => self.chunked(&body, token, has_trailer),
        };
        let takes_expectation = kind == Kind::Plain && !is_http10 && !body_wire.is_empty();
        let expects = takes_expectation && self.random.one_in(3);
        let says_close = matches!(kind, Kind::Plain) && self.random.one_in(if is_last { 4 } else { 40 });
        let pad_bytes = if self.random.one_in(6) { 1_000 + self.random.below(1_500) } else { 0 };
        let (up, down) = (self.size(), self.size());
        let answer = self.answer(token, method, kind, is_last, &body);
        let mut exchange = Exchange {
            token,
            client,
            origin,
            user: self.random.pick(&["alice", "alice", "bob"]),
            kind,
            method,
            is_http10,
            says_close,
            expects,
            head: Vec::new(),
            framing,
            body,
            body_wire,
            has_trailer,
            pad_bytes,
            answer,
            tunnel_up: content(token, 3, up),
            tunnel_down: content(token, 4, down),
            tries: Vec::new(),
        };
        exchange.head = self.request_head(&exchange);
        // A message that names fields which end here may name trailers: it loses them all.
        exchange.has_trailer &= !exchange.head.windows(6).any(|window| window == b"X-Gone");
        exchange
    }

    fn request_head(&mut self, exchange: &Exchange) -> Vec<u8> {
        let Exchange { token, method, origin, .. } = exchange;
        let name = origin_name(*origin);
        let version = if exchange.is_http10 { "1.0" } else { "1.1" };
        let target = match exchange.kind {
            Kind::Connect => format!("{name}:443"),
            Kind::Own(200) if self.random.one_in(2) => "*".into(),
            Kind::Own(403) => format!("http://denied.test/t{token}?q=1"),
            Kind::Plain | Kind::Upgrade | Kind::Own(_) | Kind::Bad => format!("http://{name}/t{token}?q=1"),
        };
        let mut head = format!("{method} {target} HTTP/{version}\r\nHost: {name}\r\nX-Token: t{token}\r\n");
        match exchange.framing {
            Framing::Length => head += &format!("Content-Length: {}\r\n", exchange.body.len()),
            Framing::Chunked => head += "Transfer-Encoding: chunked\r\n",
            Framing::Nothing | Framing::UntilClose => {}
        }
        if exchange.expects {
            head += "Expect: 100-continue\r\n";
        }
        if exchange.kind == Kind::Upgrade {
            head += "Connection: Upgrade, X-Gone\r\nUpgrade: echo\r\nX-Gone: 1\r\n";
        } else if exchange.says_close {
            head += "Connection: close\r\n";
        } else if self.random.one_in(3) {
            head += "Proxy-Connection: keep-alive\r\nConnection: keep-alive, X-Gone\r\nX-Gone: 1\r\n";
        }
        match exchange.kind {
            Kind::Own(200) => head += "Max-Forwards: 0\r\n",
            Kind::Own(502) => head += "Via: 1.1 adit\r\n",
            Kind::Own(_) | Kind::Plain | Kind::Upgrade | Kind::Connect | Kind::Bad => {}
        }
        if self.is_guarded {
            head += &match (exchange.kind, self.random.one_in(2)) {
                (Kind::Own(407), true) => String::new(),
                (Kind::Own(407), false) => "Proxy-Authorization: Basic nobody\r\n".to_string(),
                (_, _) => format!("Proxy-Authorization: Basic {}\r\n", exchange.user),
            };
        }
        if exchange.pad_bytes > 0 {
            head += &format!("X-Pad: {}\r\n", "p".repeat(exchange.pad_bytes));
        }
        (head + "\r\n").into_bytes()
    }

    fn answer(&mut self, token: usize, method: &str, kind: Kind, is_last: bool, body: &[u8]) -> Answer {
        let status = match (kind, method) {
            (Kind::Upgrade, _) if is_last && !self.random.one_in(4) => 101,
            (_, "GET" | "HEAD") => self.random.pick(&[200, 200, 200, 404, 304, 204]),
            (_, _) => self.random.pick(&[200, 200, 201, 500, 204]),
        };
        let ends = is_last && !self.is_keeping;
        let framing = match (status, self.random.below(if ends { 6 } else { 24 })) {
            (101 | 204 | 304, _) => Framing::Nothing,
            (_, 0) => Framing::UntilClose,
            (_, turn) if turn % 2 == 0 => Framing::Length,
            (_, _) => Framing::Chunked,
        };
        let rarity = if self.is_keeping { 40 } else { 7 };
        let is_http10 = status != 101 && framing != Framing::Chunked && self.random.one_in(rarity);
        let says_close = status != 101 && self.random.one_in(rarity);
        let has_trailer = framing == Framing::Chunked && self.random.one_in(3);
        let interims = if is_http10 || !self.random.one_in(4) { 0 } else { 1 + self.random.below(2) };
        let size = if framing == Framing::Nothing { 0 } else { self.size() };
        let payload = content(token, 2, size);
        let mut wire = Vec::new();
        for _ in 0..interims {
            wire.extend_from_slice(
                format!("HTTP/1.1 103 Early Hints\r\nX-Token: t{token}\r\n\r\n").as_bytes(),
            );
        }
        let final_from = wire.len();
        let version = if is_http10 { "1.0" } else { "1.1" };
        let mut head = format!("HTTP/{version} {status} Reason\r\nX-Token: t{token}\r\nKeep-Alive: x\r\n");
        match framing {
            Framing::Length => head += &format!("Content-Length: {size}\r\n"),
            Framing::Chunked => head += "Transfer-Encoding: chunked\r\n",
            Framing::Nothing | Framing::UntilClose => {}
        }
        if status == 101 {
            head += "Connection: upgrade\r\nUpgrade: echo\r\n";
        } else if says_close {
            head += "Connection: close, X-Gone\r\nX-Gone: 1\r\n";
        }
        if self.random.one_in(10) {
            head += &format!("X-Pad: {}\r\n", "q".repeat(self.random.below(3_000)));
        }
        wire.extend_from_slice((head + "\r\n").as_bytes());
        let body_from = wire.len();
        let is_sent = method != "HEAD";
        if is_sent {
            match framing {
                Framing::Nothing => {}
                Framing::Length | Framing::UntilClose => wire.extend_from_slice(&payload),
                Framing::Chunked => wire.extend(self.chunked(&payload, token, has_trailer)),
            }
        }
        let early_at = if self.random.one_in(4) { Some(self.random.below(body.len() + 1)) } else { None };
        Answer {
            interims,
            status,
            framing: if is_sent { framing } else { Framing::Nothing },
            is_http10,
            says_close,
            has_trailer: has_trailer && is_sent && !says_close,
            body: if is_sent { payload } else { Vec::new() },
            wire,
            final_from,
            body_from,
            early_at,
            fault: Fault::Nothing,
        }
    }

    fn chunked(&mut self, body: &[u8], token: usize, has_trailer: bool) -> Vec<u8> {
        let mut wire = Vec::new();
        let mut rest = body;
        let mut largest = self.random.pick(&[1, 10, 500, 5_000, 70_000]);
        if body.len() > 3_000 {
            largest = largest.max(500);
        }
        while !rest.is_empty() {
            let (chunk, behind) = rest.split_at((1 + self.random.below(largest)).min(rest.len()));
            rest = behind;
            let zeros = self.random.pick(&["", "", "00"]);
            let extension = self.random.pick(&["", "", "", ";a=b", ";x"]);
            wire.extend_from_slice(format!("{zeros}{:x}{extension}\r\n", chunk.len()).as_bytes());
            wire.extend_from_slice(chunk);
            wire.extend_from_slice(b"\r\n");
        }
        wire.extend_from_slice(b"0\r\n");
        if has_trailer {
            // The second may not be a trailer, and is dropped.
            wire.extend_from_slice(format!("X-Trailer: t{token}\r\nHost: evil.test\r\n").as_bytes());
        }
        wire.extend_from_slice(b"\r\n");
        wire
    }

    /// Lets something go wrong with the answer, as the plot says.
    pub(super) fn spoil(&mut self, exchange: &mut Exchange) {
        let answer = &mut exchange.answer;
        // Edges are where bugs are.
        let edges = [
            0,
            1,
            answer.final_from,
            answer.body_from - 1,
            answer.body_from,
            answer.body_from + 1,
            answer.wire.len() - 1,
            answer.wire.len(),
            self.random.below(answer.wire.len() + 1),
            self.random.below(answer.wire.len() + 1),
        ];
        let at = self.random.pick(&edges).min(answer.wire.len());
        answer.fault = match self.plot {
            Plot::Surplus if !answer.ends_connection() => Fault::Surplus { later: self.random.one_in(2) },
            Plot::Truncated => Fault::Cut { at, end: End::Fin },
            Plot::Reset => Fault::Cut { at, end: End::Reset },
            Plot::Silent => Fault::Silent { at: at.min(answer.wire.len() - 1) },
            Plot::BadFraming if answer.framing == Framing::Chunked && self.random.one_in(2) => Fault::BadBody,
            Plot::BadFraming => Fault::BadHead,
            Plot::UnaskedSwitch if exchange.kind == Kind::Plain => Fault::UnaskedSwitch,
            Plot::Flood => Fault::Flood,
            _ => Fault::Nothing,
        };
        if exchange.kind == Kind::Upgrade && answer.status == 101 {
            match answer.fault {
                Fault::Cut { .. } | Fault::Silent { .. } => exchange.tunnel_down.clear(),
                _ => answer.fault = Fault::Nothing,
            }
        }
        match answer.fault {
            Fault::BadHead => {
                let bad = self.random.pick(&[
                    "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
                    "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
                    "HTTP/1.1 20 OK\r\n\r\n",
                    "HTTP/1.1 200 OK\r\nX-Token : t0\r\n\r\n",
                    "SSH-2.0-nobody\r\n",
                    "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
                ]);
                answer.wire.splice(answer.final_from.., bad.bytes());
            }
            Fault::BadBody => {
                let at = answer.body_from + self.random.below(answer.wire.len() - answer.body_from);
                // Not allowed outside of data; inside data it moves what follows.
                answer.wire.splice(at..at, *b"\0\0\0");
            }
            Fault::UnaskedSwitch => {
                let head = format!(
                    "HTTP/1.1 101 Switching\r\nX-Token: t{}\r\nConnection: upgrade\r\nUpgrade: evil\r\n\r\nGET /",
                    exchange.token
                );
                answer.wire.splice(answer.final_from.., head.bytes());
            }
            Fault::Flood => {
                let one = format!("HTTP/1.1 103 More\r\nX-Token: t{}\r\n\r\n", exchange.token);
                answer.wire.splice(0..0, one.repeat(40).bytes());
            }
            Fault::Nothing | Fault::Surplus { .. } | Fault::Cut { .. } | Fault::Silent { .. } => {}
        }
    }

    /// Makes a request of it that is refused.
    pub(super) fn make_bad(&mut self, exchange: &mut Exchange) {
        let name = origin_name(exchange.origin);
        let url = format!("http://{name}/t{}", exchange.token);
        (exchange.kind, exchange.method) = (Kind::Bad, "POST");
        exchange.body_wire = b"GET http://o0.test/smuggled HTTP/1.1\r\nHost: o0.test\r\n\r\n".to_vec();
        exchange.expects = false;
        exchange.answer.early_at = None;
        let fields = match self.random.below(8) {
            0 => "Host: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n",
            1 => "Host: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n",
            2 => "Host: a\r\nHost: b\r\n",
            3 => "Host : a\r\n",
            4 => "Host: a\r\n folded\r\n",
            5 => "Host: a\r\nTransfer-Encoding: chunked, chunked\r\n",
            6 => "",
            _ => {
                exchange.body_wire.splice(0..0, *b"3\r\nabcd");
                "Host: a\r\nTransfer-Encoding: chunked\r\n"
            }
        };
        // Bad or not is known before it is known whose it is.
        let shown = format!("Proxy-Authorization: Basic {}\r\n", exchange.user);
        let shown = if self.is_guarded { &*shown } else { "" };
        exchange.head = format!("POST {url} HTTP/1.1\r\n{fields}{shown}\r\n").into_bytes();
    }
}
