//! Whatever the pieces in which bytes come and go, what arrives is the same: pipelined exchanges in random pieces, with
//! would-blocks, rumours and reused connections that turn out to be dead.

use super::*;
use crate::proto::ring::RING_BYTES;

struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }

    fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// Of so many bytes, at least one and mostly few.
    fn part(&mut self, of: usize) -> usize {
        let most = [1, 3, 50, 2_000, RING_BYTES][self.below(5)];
        1 + self.below(of.min(most))
    }
}

/// One exchange: what comes from either side, and what goes on of it.
struct Exchange {
    request: String,
    sent: String,
    answer: String,
    told: String,
    is_safe: bool,
}

fn exchange(at: usize, random: &mut Random) -> Exchange {
    let long = "y".repeat([0, 3, 800, 2_000, 15_000][random.below(5)]);
    let fields = format!("Host: a.test\r\nX: {at}{long}\r\n");
    let payload = "z".repeat([1, 20, 5_000, 70_000][random.below(4)]);
    let (size, hex) = (payload.len(), format!("{:x}", payload.len()));
    let chunks = format!("{hex}\r\n{payload}\r\n1\r\n!\r\n0\r\nX-Sum: 1\r\n\r\n");
    let chunks_with_more =
        format!("{hex};x=y\r\n{payload}\r\n1;;\r\n!\r\n0;\r\nHost: x\r\nX-Sum: 1\r\nCookie: x\r\n\r\n");
    let (method, framing, body, kept) = match random.below(5) {
        0 => ("GET", String::new(), "", ""),
        1 => ("HEAD", String::new(), "", ""),
        2 => ("POST", "Content-Length: 0\r\n".into(), "", ""),
        3 => ("PUT", format!("Content-Length: {size}\r\n"), &*payload, &*payload),
        _ => ("POST", "Transfer-Encoding: chunked\r\n".into(), &*chunks_with_more, &*chunks),
    };
    let request = format!("{method} http://a.test/{at} HTTP/1.1\r\n{fields}TE: x\r\n{framing}\r\n{body}");
    let sent = format!("{method} /{at} HTTP/1.1\r\n{fields}{framing}Via: 1.1 adit\r\n\r\n{kept}");
    let (head, body, told_head, told_body) = match random.below(6) {
        0 => {
            ("200 OK", chunks_with_more.clone(), "Transfer-Encoding: chunked\r\n".to_owned(), chunks.clone())
        }
        1 => ("204 No Content", String::new(), String::new(), String::new()),
        2 => ("304 Not Modified", String::new(), String::new(), String::new()),
        3 => ("404 Not Found", String::new(), "Content-Length: 0\r\n".into(), String::new()),
        _ => ("200 OK", payload.clone(), format!("Content-Length: {size}\r\n"), payload.clone()),
    };
    let has_body = method != "HEAD";
    let interim = [0, 0, 1, 2][random.below(4)];
    let close = ["", "Connection: close\r\n"][usize::from(random.one_in(5))];
    let surplus = ["", "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"][usize::from(random.one_in(5))];
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: x\r\n";
    let answer = format!("{hints}\r\n").repeat(interim)
        + &format!("HTTP/1.1 {head}\r\nX: {at}{long}\r\n{close}{told_head}\r\n")
        + if has_body { &*body } else { "" }
        + surplus;
    let told_framing = if has_body || !told_head.starts_with("Transfer") { &*told_head } else { "" };
    let told = format!("{hints}Via: 1.1 adit\r\n\r\n").repeat(interim)
        + &format!("HTTP/1.1 {head}\r\nX: {at}{long}\r\n{told_framing}Via: 1.1 adit\r\n\r\n")
        + if has_body { &*told_body } else { "" };
    let is_safe = matches!(method, "GET" | "HEAD");
    Exchange { request, sent, answer, told, is_safe }
}

/// The upstream connection there is.
#[derive(Default)]
struct Peer {
    got: Vec<u8>,
    to_send: Vec<u8>,
    dead: bool,
}

fn plays(seed: u64) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut script = Script::new();
    let exchanges: Vec<Exchange> = (0..20).map(|at| exchange(at, &mut random)).collect();
    let mut to_send: Vec<u8> = exchanges.iter().flat_map(|exchange| exchange.request.bytes()).collect();
    let (mut at, mut told, mut idle_waits) = (0, Vec::new(), 0);
    let mut origin = Peer::default();
    while idle_waits < 3 {
        match script.session.step() {
            Step::Wait => {
                script.waits();
                let over = at == exchanges.len() && to_send.is_empty();
                idle_waits = if over { idle_waits + 1 } else { 0 };
                script.event(Side::Client, Ready { readable: !to_send.is_empty(), ..WRITABLE });
                if script.session.wants_upstream() {
                    let readable = !origin.to_send.is_empty() || origin.dead || random.one_in(3);
                    script.event(Side::Upstream, Ready { readable, ..WRITABLE });
                }
            }
            Step::Read(side) => {
                let bytes = if side == Side::Client { &mut to_send } else { &mut origin.to_send };
                if side == Side::Upstream && origin.dead {
                    let how = [Outcome::Eof, Outcome::Failed(Failure::Reset)][random.below(2)];
                    script.does(Step::Read(side), how);
                } else if bytes.is_empty() || random.one_in(8) {
                    script.does(Step::Read(side), Outcome::Blocked);
                } else {
                    let count = random.part(bytes.len()).min(script.room(side));
                    let piece: Vec<u8> = bytes.drain(..count).collect();
                    script.read(side, &piece);
                }
            }
            Step::Write(side) if random.one_in(8) => script.does(Step::Write(side), Outcome::Blocked),
            Step::Write(Side::Client) => {
                let offered = script.session.drain_slice(Side::Client);
                let count = random.part(offered.len());
                told.extend_from_slice(&offered[..count]);
                script.does(Step::Write(Side::Client), Outcome::Moved(count));
            }
            Step::Write(Side::Upstream) if origin.dead && random.one_in(2) => {
                let how = [Failure::BrokenPipe, Failure::Reset][random.below(2)];
                script.does(Step::Write(Side::Upstream), Outcome::Failed(how));
            }
            Step::Write(Side::Upstream) => {
                let offered = script.session.drain_slice(Side::Upstream);
                let count = random.part(offered.len());
                origin.got.extend_from_slice(&offered[..count]);
                script.does(Step::Write(Side::Upstream), Outcome::Moved(count));
                let whole = exchanges[at].sent.as_bytes();
                assert!(whole.starts_with(&origin.got), "seed {seed}, exchange {at}: another request");
                if origin.got.len() == whole.len() && !origin.dead {
                    origin.to_send.extend_from_slice(exchanges[at].answer.as_bytes());
                }
            }
            Step::TakeIdle => {
                origin = Peer::default();
                if script.parked.is_empty() || random.one_in(4) {
                    script.finds_nothing_idle();
                } else {
                    origin.dead = exchanges[at].is_safe && random.one_in(3);
                    script.reuses();
                }
            }
            Step::Resolve => {
                script.does(Step::Resolve, Outcome::Done);
                script.resolved(&[PUBLIC]);
            }
            step @ Step::Dial(..) => {
                script.does(step, Outcome::Done);
                origin = Peer::default();
            }
            Step::ConfirmDial(0) => script.does(Step::ConfirmDial(0), Outcome::Done),
            Step::Park => {
                assert!(!exchanges[at].answer.contains("Connection: close"), "seed {seed}, exchange {at}");
                script.parks();
                if !origin.to_send.is_empty() {
                    // Surplus that was not there yet ends it while it is idle.
                    assert!(exchanges[at].answer.ends_with("poison"), "seed {seed}, exchange {at}");
                    script.parked.pop();
                }
            }
            Step::CloseUpstream => script.does(Step::CloseUpstream, Outcome::Done),
            Step::Record => {
                assert_eq!(script.session.record(script.now).end, "done", "seed {seed}, exchange {at}");
                script.records();
                at += 1;
            }
            step => panic!("seed {seed}, exchange {at}: {step:?}"),
        }
    }
    let all: Vec<u8> = exchanges.iter().flat_map(|exchange| exchange.told.bytes()).collect();
    let same = told.iter().zip(&all).take_while(|(a, b)| a == b).count();
    assert!(told == all, "seed {seed}: the client got another byte at {same} of {}", all.len());
    assert_eq!((script.pool.lent(), script.lines.len()), (0, exchanges.len()), "seed {seed}");
}

#[test]
fn forwarding_in_any_pieces() {
    for seed in 1..=50 {
        plays(seed);
    }
}
