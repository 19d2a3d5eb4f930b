//! Real TLS through the tunnel: the client meets the origin's own certificate, and every byte of a bulk transfer both ways
//! arrives as it was sent.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;

use mio::{Events, Interest, Poll, Token};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, Connection, ProtocolVersion, RootCertStore, ServerConfig,
    ServerConnection,
};

use support::client::Client;
use support::{DEADLINE, Pattern, Road, Tally};

const BYTES: u64 = 100 * 1024 * 1024;
const CLIENT_SEED: u64 = 11;
const SERVER_SEED: u64 = 12;

both_roads!(certificate_and_bulk);

fn certificate_and_bulk(road: &Road) {
    let identity = rcgen::generate_simple_self_signed(["origin.test".to_string()]).unwrap();
    let certificate = identity.cert.der().clone();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let origin = listener.local_addr().unwrap();
    let key = PrivateKeyDer::try_from(identity.signing_key.serialize_der()).unwrap();
    let server = serve(listener, certificate.clone(), key);

    let tunnel = road.open(origin);
    let session = client_session(&certificate);
    let client = exchange(session, tunnel, CLIENT_SEED);
    let server = server.join().unwrap();

    assert_eq!(client.version, Some(ProtocolVersion::TLSv1_3));
    assert_eq!(client.peer_certificates, [certificate], "the origin's own certificate, byte for byte");
    for (sender, receiver) in [(&client.sent, &server.received), (&server.sent, &client.received)] {
        assert_eq!((sender.bytes, receiver.bytes), (BYTES, BYTES));
        assert_eq!(sender.sha256(), receiver.sha256());
    }
    assert!(client.closed_in_order && server.closed_in_order, "both saw a close_notify: nothing was cut off");
}

/// The origin: one connection.
fn serve(
    listener: TcpListener,
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
) -> JoinHandle<Exchanged> {
    std::thread::spawn(move || {
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let (stream, _) = listener.accept().unwrap();
        let session = ServerConnection::new(Arc::new(config)).unwrap();
        exchange(session.into(), Client::from(stream), SERVER_SEED)
    })
}

/// A client that trusts this one certificate and no other.
fn client_session(trusted: &CertificateDer<'static>) -> Connection {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("origin.test").unwrap();
    ClientConnection::new(Arc::new(config), name).unwrap().into()
}

/// What one end did and saw.
struct Exchanged {
    sent: Tally,
    received: Tally,
    peer_certificates: Vec<CertificateDer<'static>>,
    version: Option<ProtocolVersion>,
    closed_in_order: bool,
}

/// Sends and receives `BYTES` at the same time, so that no direction waits for the other. The socket does not block: a
/// write that waits while the peer's write waits for us would be a deadlock of the test's own making.
fn exchange(mut session: Connection, client: Client, seed: u64) -> Exchanged {
    client.stream.set_nonblocking(true).unwrap();
    let mut socket = mio::net::TcpStream::from_std(client.stream);
    let mut poll = Poll::new().unwrap();
    let mut events = Events::with_capacity(4);
    poll.registry().register(&mut socket, Token(0), Interest::READABLE | Interest::WRITABLE).unwrap();

    let mut sender =
        Sender { pattern: Pattern::new(seed), buf: vec![0; 32 * 1024], at: 0, sent: Tally::new() };
    sender.pattern.fill(&mut sender.buf);
    let mut received = Tally::new();
    let (mut closed_in_order, mut shut) = (false, false);
    loop {
        let mut moved = sender.offer(&mut session);
        moved |= write_out(&mut session, &mut socket);
        let over = read_in(&mut session, &mut socket, &mut received, &mut moved);
        closed_in_order |= over == Over::CloseNotify;
        let all_out = sender.sent.bytes == BYTES && !session.wants_write();
        if all_out && !shut {
            socket.shutdown(Shutdown::Write).unwrap();
            shut = true;
        }
        if shut && over != Over::No {
            break;
        }
        if !moved {
            poll.poll(&mut events, Some(DEADLINE)).unwrap();
            assert!(!events.is_empty(), "stalled: {} sent, {} received", sender.sent.bytes, received.bytes);
        }
    }
    Exchanged {
        sent: sender.sent,
        received,
        peer_certificates: session.peer_certificates().unwrap_or_default().to_vec(),
        version: session.protocol_version(),
        closed_in_order,
    }
}

struct Sender {
    pattern: Pattern,
    buf: Vec<u8>,
    at: usize,
    sent: Tally,
}

impl Sender {
    /// Gives the session as much as it takes; with the last byte, a close_notify.
    fn offer(&mut self, session: &mut Connection) -> bool {
        if self.sent.bytes == BYTES || session.is_handshaking() {
            return false;
        }
        let rest = &self.buf[self.at..];
        let n = rest.len().min(usize::try_from(BYTES - self.sent.bytes).unwrap());
        let taken = session.writer().write(&rest[..n]).unwrap();
        self.sent.add(&rest[..taken]);
        self.at += taken;
        if self.at == self.buf.len() {
            self.pattern.fill(&mut self.buf);
            self.at = 0;
        }
        if self.sent.bytes == BYTES {
            session.send_close_notify();
        }
        taken > 0
    }
}

fn write_out(session: &mut Connection, socket: &mut mio::net::TcpStream) -> bool {
    let mut moved = false;
    while session.wants_write() {
        match session.write_tls(socket) {
            Ok(_) => moved = true,
            Err(e) if e.kind() == ErrorKind::WouldBlock => break,
            Err(e) => panic!("writing: {e}"),
        }
    }
    moved
}

/// Whether the peer's direction is over, and how.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Over {
    No,
    CloseNotify,
    CutOff,
}

fn read_in(
    session: &mut Connection,
    socket: &mut mio::net::TcpStream,
    received: &mut Tally,
    moved: &mut bool,
) -> Over {
    match session.read_tls(socket) {
        Ok(n) => *moved |= n > 0,
        Err(e) if e.kind() == ErrorKind::WouldBlock => {}
        Err(e) => panic!("reading: {e}"),
    }
    session.process_new_packets().expect("every record is authentic");
    let mut buf = [0; 16 * 1024];
    loop {
        match session.reader().read(&mut buf) {
            Ok(0) => return Over::CloseNotify,
            Ok(n) => received.add(&buf[..n]),
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Over::No,
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Over::CutOff,
            Err(e) => panic!("reading: {e}"),
        }
    }
}
