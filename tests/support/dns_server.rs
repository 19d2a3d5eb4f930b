//! A scripted DNS server on UDP and TCP: a closure says what becomes of each question. Its encoder is its own, so that the
//! proxy's is not checked against itself.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;

use super::DEADLINE;

/// Type A.
pub const A: u16 = 1;
/// Type AAAA.
pub const AAAA: u16 = 28;

/// One question as it came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Lower case, without the last dot.
    pub name: String,
    /// `A`, `AAAA`, or another number.
    pub qtype: u16,
    /// It came over TCP.
    pub tcp: bool,
    /// Its id.
    pub id: u16,
    /// Where it came from: tells one socket from another.
    pub from: SocketAddr,
}

/// What becomes of a question.
#[derive(Clone, Debug)]
pub enum Answer {
    /// NOERROR with those of the addresses that are of the asked type; none is an empty answer.
    Addresses(Vec<IpAddr>),
    /// The same, to be believed for so many seconds; `Addresses` says 60.
    AddressesFor(Vec<IpAddr>, u32),
    /// No such name, and nothing said about how long that holds.
    NxDomain,
    /// No such name for so many seconds (an SOA says so).
    NxDomainFor(u32),
    /// The server failed.
    ServFail,
    /// TC set and nothing in it (meant for UDP; the question then comes again with `tcp`).
    Truncated,
    /// Nothing at all.
    Silent,
    /// As `Addresses`, under another id: what a blind attacker sends.
    WrongId(Vec<IpAddr>),
    /// As `Addresses`, to another question: what a confused server sends.
    WrongQuestion(Vec<IpAddr>),
    /// One after the other.
    Several(Vec<Answer>),
}

impl Answer {
    /// `Addresses` from their text.
    pub fn of(addresses: &[&str]) -> Answer {
        Answer::Addresses(parse(addresses))
    }

    /// `WrongId` from their text.
    pub fn wrong_id(addresses: &[&str]) -> Answer {
        Answer::WrongId(parse(addresses))
    }
}

/// The server; it ends when dropped.
pub struct DnsServer {
    /// For `--nameserver`.
    pub addr: SocketAddr,
    asked: Mutex<mpsc::Receiver<Question>>,
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

type Script = dyn Fn(&Question) -> Answer + Send + Sync;

impl DnsServer {
    /// Answers every question as `script` says.
    pub fn start(script: impl Fn(&Question) -> Answer + Send + Sync + 'static) -> DnsServer {
        DnsServer::serve(same_port(), script)
    }

    /// The same on this address, which must be free.
    #[track_caller]
    pub fn start_on(addr: &str, script: impl Fn(&Question) -> Answer + Send + Sync + 'static) -> DnsServer {
        DnsServer::serve((UdpSocket::bind(addr).unwrap(), TcpListener::bind(addr).unwrap()), script)
    }

    fn serve(
        (udp, tcp): (UdpSocket, TcpListener),
        script: impl Fn(&Question) -> Answer + Send + Sync + 'static,
    ) -> DnsServer {
        let addr = udp.local_addr().unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let script: Arc<Script> = Arc::new(script);
        let (asked_tx, asked) = mpsc::channel();
        let threads = vec![
            std::thread::spawn({
                let (over, script, asked) = (over.clone(), script.clone(), asked_tx.clone());
                move || serve_udp(&udp, &over, &script, &asked)
            }),
            std::thread::spawn({
                let over = over.clone();
                move || serve_tcp(&tcp, &over, &script, &asked_tx)
            }),
        ];
        DnsServer { addr, asked: asked.into(), over, threads }
    }

    /// One name with these addresses, every other name NXDOMAIN.
    pub fn knowing(name: &'static str, addresses: &[&str]) -> DnsServer {
        let addresses = parse(addresses);
        DnsServer::start(move |question| {
            if question.name == name { Answer::Addresses(addresses.clone()) } else { Answer::NxDomain }
        })
    }

    /// The next question; waits for it.
    #[track_caller]
    pub fn asked(&self) -> Question {
        self.asked.lock().unwrap().recv_timeout(DEADLINE).expect("a question")
    }

    /// Every question that came and was not yet taken.
    pub fn asked_so_far(&self) -> Vec<Question> {
        self.asked.lock().unwrap().try_iter().collect()
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        // Both threads sit in a system call; each is woken by its own kind of visitor.
        if let Ok(waker) = UdpSocket::bind("127.0.0.1:0") {
            drop(waker.send_to(b"", self.addr));
        }
        drop(TcpStream::connect(self.addr));
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

/// UDP and TCP on one number. Another test may hold the number for the other protocol: then take the next.
fn same_port() -> (UdpSocket, TcpListener) {
    for _ in 0..100 {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()) {
            return (udp, tcp);
        }
    }
    panic!("no port is free for both UDP and TCP");
}

fn serve_udp(udp: &UdpSocket, over: &AtomicBool, script: &Arc<Script>, asked: &mpsc::Sender<Question>) {
    let mut buf = [0; 4096];
    loop {
        let (n, from) = match udp.recv_from(&mut buf) {
            Ok(got) => got,
            // ECONNREFUSED of an earlier answer whose asker is gone.
            Err(_) if !over.load(Ordering::Acquire) => continue,
            Err(_) => return,
        };
        if over.load(Ordering::Acquire) {
            return;
        }
        for reply in answer(&buf[..n], false, from, script, asked) {
            drop(udp.send_to(&reply, from));
        }
    }
}

fn serve_tcp(tcp: &TcpListener, over: &AtomicBool, script: &Arc<Script>, asked: &mpsc::Sender<Question>) {
    for stream in tcp.incoming() {
        if over.load(Ordering::Acquire) {
            return;
        }
        let (mut stream, script, asked) = (stream.unwrap(), script.clone(), asked.clone());
        std::thread::spawn(move || {
            let from = stream.peer_addr().unwrap();
            stream.set_read_timeout(Some(DEADLINE)).unwrap();
            let mut length = [0; 2];
            while stream.read_exact(&mut length).is_ok() {
                let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
                if stream.read_exact(&mut query).is_err() {
                    return;
                }
                for reply in answer(&query, true, from, &script, &asked) {
                    let mut framed = u16::try_from(reply.len()).unwrap().to_be_bytes().to_vec();
                    framed.extend(reply);
                    drop(stream.write_all(&framed));
                }
            }
        });
    }
}

/// The datagrams that answer this one.
fn answer(
    query: &[u8],
    tcp: bool,
    from: SocketAddr,
    script: &Arc<Script>,
    asked: &mpsc::Sender<Question>,
) -> Vec<Vec<u8>> {
    let Some((question, end)) = decode(query, tcp, from) else {
        return Vec::new();
    };
    let answer = script(&question);
    // Nobody may be left to listen: a test that is over does not care.
    drop(asked.send(question.clone()));
    encode(&query[..end], question.qtype, &answer)
}

/// The question and where it ends in the message.
fn decode(query: &[u8], tcp: bool, from: SocketAddr) -> Option<(Question, usize)> {
    let id = u16::from_be_bytes([*query.first()?, *query.get(1)?]);
    let mut at = 12;
    let mut labels = Vec::new();
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(query.get(at..at + length)?).to_ascii_lowercase());
        at += length;
    }
    let qtype = u16::from_be_bytes([*query.get(at)?, *query.get(at + 1)?]);
    let end = at + 4;
    (query.len() >= end).then_some((Question { name: labels.join("."), qtype, tcp, id, from }, end))
}

/// `asked` is the query from its header to the end of its question.
fn encode(asked: &[u8], qtype: u16, answer: &Answer) -> Vec<Vec<u8>> {
    const NOERROR: u8 = 0;
    const SERVFAIL: u8 = 2;
    const NXDOMAIN: u8 = 3;
    match answer {
        Answer::Addresses(addresses) => vec![message(asked, qtype, addresses, NOERROR, false)],
        Answer::AddressesFor(addresses, ttl_s) => vec![message_for(asked, qtype, addresses, *ttl_s)],
        Answer::NxDomainFor(ttl_s) => {
            let mut reply = message(asked, qtype, &[], NXDOMAIN, false);
            // One record in the authority section: the root's SOA, its names the root, serial to expire 0.
            reply[9] = 1;
            reply.extend([0, 0, 6, 0, 1]);
            reply.extend(ttl_s.to_be_bytes());
            reply.extend([0, 22, 0, 0]);
            reply.extend([0; 16]);
            reply.extend(ttl_s.to_be_bytes());
            vec![reply]
        }
        Answer::NxDomain => vec![message(asked, qtype, &[], NXDOMAIN, false)],
        Answer::ServFail => vec![message(asked, qtype, &[], SERVFAIL, false)],
        Answer::Truncated => vec![message(asked, qtype, &[], NOERROR, true)],
        Answer::Silent => Vec::new(),
        Answer::WrongId(addresses) => {
            let mut reply = message(asked, qtype, addresses, NOERROR, false);
            reply[1] ^= 0x55;
            vec![reply]
        }
        Answer::WrongQuestion(addresses) => {
            let mut reply = message(asked, qtype, addresses, NOERROR, false);
            // The first letter of the name, with a bit that is not the one of case.
            reply[13] ^= 0x01;
            vec![reply]
        }
        Answer::Several(answers) => answers.iter().flat_map(|one| encode(asked, qtype, one)).collect(),
    }
}

fn message(asked: &[u8], qtype: u16, addresses: &[IpAddr], rcode: u8, truncated: bool) -> Vec<u8> {
    let mut message = message_for(asked, qtype, addresses, 60);
    message[2] |= u8::from(truncated) << 1;
    message[3] |= rcode;
    message
}

fn message_for(asked: &[u8], qtype: u16, addresses: &[IpAddr], ttl_s: u32) -> Vec<u8> {
    let records: Vec<Vec<u8>> = addresses
        .iter()
        .filter_map(|address| match address {
            IpAddr::V4(v4) if qtype == A => Some(v4.octets().to_vec()),
            IpAddr::V6(v6) if qtype == AAAA => Some(v6.octets().to_vec()),
            IpAddr::V4(_) | IpAddr::V6(_) => None,
        })
        .collect();
    let mut out = asked[..2].to_vec();
    // QR, and RD as asked; RA, NOERROR.
    out.push(0x80 | (asked[2] & 0x01));
    out.push(0x80);
    for count in [1, u16::try_from(records.len()).unwrap(), 0, 0] {
        out.extend(count.to_be_bytes());
    }
    out.extend(&asked[12..]);
    for record in records {
        // The name is a pointer to the question's; class IN.
        out.extend([0xC0, 0x0C]);
        out.extend(qtype.to_be_bytes());
        out.extend([0, 1]);
        out.extend(ttl_s.to_be_bytes());
        out.extend(u16::try_from(record.len()).unwrap().to_be_bytes());
        out.extend(record);
    }
    out
}

fn parse(addresses: &[&str]) -> Vec<IpAddr> {
    addresses.iter().map(|a| a.parse().unwrap()).collect()
}
