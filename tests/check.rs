//! `adit check`: the real binary against local servers that misbehave, one for each verdict, and through a running proxy.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, date_time_ymd,
};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection};
use socket2::SockRef;

use support::dns_server::{Answer, DnsServer};
use support::namespace;
use support::origin::{BlackHole, Origin, Refusing, Seen};
use support::proxy::{ALLOW_LOOPBACK, Proxy};
use support::{Ending, Tally, TempFile};

const NAME: &str = "origin.test";

/// What one check said.
struct Checked {
    code: i32,
    text: String,
}

impl Checked {
    /// The last line.
    fn verdict(&self) -> &str {
        self.text.lines().last().unwrap_or_default()
    }

    /// Ends with this verdict and code.
    #[track_caller]
    fn ends(&self, code: i32, verdict: &str) -> &Checked {
        assert_eq!((self.verdict(), self.code), (&*format!("verdict: {verdict}"), code), "{}", self.text);
        self
    }

    /// Has a line with this label that begins so, whatever time it took.
    #[track_caller]
    fn says(&self, line: &str) -> &Checked {
        assert!(
            self.text.lines().any(|each| each.trim_start().starts_with(line)),
            "{line:?} in:\n{}",
            self.text
        );
        self
    }

    #[track_caller]
    fn never_says(&self, text: &str) -> &Checked {
        assert!(!self.text.contains(text), "{text:?} in:\n{}", self.text);
        self
    }
}

#[track_caller]
fn check(args: &[&str]) -> Checked {
    let output = Command::new(env!("CARGO_BIN_EXE_adit"))
        .arg("check")
        .args(args)
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .output()
        .expect("the binary starts");
    let text = String::from_utf8(output.stdout).unwrap();
    let code = output.status.code().expect("it ends by itself");
    Checked { code, text }
}

/// Of a name that the hosts file has at loopback, which may be reached; any port; nobody is waited for longer than a second.
#[track_caller]
fn check_local(addr: SocketAddr, args: &[&str]) -> Checked {
    let hosts = TempFile::with(&format!("{} {NAME}\n", addr.ip()));
    let options = ["--hosts", &hosts.path, "--connect-port", "any", "--dial-timeout", "1"];
    check(&[&ALLOW_LOOPBACK[..], &options, args, &[&format!("{NAME}:{}", addr.port())]].concat())
}

/// Reads a whole ClientHello, or a whole request head, and leaves the rest to `act`.
fn server(act: impl Fn(&mut TcpStream, &[u8]) + Send + Sync + 'static) -> Origin {
    server_on("127.0.0.1:0", act)
}

fn server_on(addr: &str, act: impl Fn(&mut TcpStream, &[u8]) + Send + Sync + 'static) -> Origin {
    Origin::start_on(addr, move |mut stream| {
        let question = question(&mut stream);
        // Who only connects is not answered.
        if !question.is_empty() {
            act(&mut stream, &question);
        }
        Seen { bytes: 0, sha256: Tally::new().sha256(), ending: Ending::Silence }
    })
}

fn question(stream: &mut TcpStream) -> Vec<u8> {
    let mut question = Vec::new();
    let mut byte = [0; 1];
    while stream.read(&mut byte).is_ok_and(|count| count == 1) {
        question.push(byte[0]);
        let is_whole = match question[..] {
            [22, _, _, high, low, ..] => question.len() == 5 + usize::from(u16::from_be_bytes([high, low])),
            [..] => question.ends_with(b"\r\n\r\n"),
        };
        if is_whole {
            break;
        }
    }
    question
}

fn send(bytes: &'static [u8]) -> impl Fn(&mut TcpStream, &[u8]) + Send + Sync + 'static {
    move |stream, _| {
        let _ = stream.write_all(bytes);
        wait_for_end(stream);
    }
}

/// Closing first, with bytes unread, would be a reset.
fn wait_for_end(stream: &mut TcpStream) {
    let _ = std::io::copy(stream, &mut std::io::sink());
}

fn reset(stream: &mut TcpStream) {
    SockRef::from(&*stream).set_linger(Some(Duration::ZERO)).unwrap();
}

fn has_name(hello: &[u8]) -> bool {
    hello.windows(NAME.len()).any(|part| part == NAME.as_bytes())
}

/// The TLS 1.2 flight of a real server, with another certificate.
fn flight(certificate: &[u8]) -> Vec<u8> {
    const REAL: &[u8] = include_bytes!("fixtures/tls/tls12");
    let hello_bytes = 5 + usize::from(u16::from_be_bytes([REAL[3], REAL[4]]));
    let u24 = |length: usize| (length as u32).to_be_bytes()[1..].to_vec();
    let list = [u24(certificate.len()), certificate.to_vec()].concat();
    let body = [u24(list.len()), list].concat();
    let message = [vec![11], u24(body.len()), body, b"\x0e\0\0\0".to_vec()].concat();
    let length = u16::try_from(message.len()).unwrap().to_be_bytes();
    [&REAL[..hello_bytes], b"\x16\x03\x03", &length, &message].concat()
}

/// A certificate for these names from the CA of a company, good in these years.
fn issued(names: &[&str], years: (i32, i32)) -> Vec<u8> {
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name.push(DnType::CommonName, "Corp Proxy CA");
    let issuer = Issuer::new(ca, KeyPair::generate().unwrap());
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut leaf = CertificateParams::new(names).unwrap();
    leaf.not_before = date_time_ymd(years.0, 1, 2);
    leaf.not_after = date_time_ymd(years.1, 3, 4);
    leaf.distinguished_name.push(DnType::CommonName, NAME);
    leaf.distinguished_name.push(DnType::OrganizationName, "Example Ltd");
    leaf.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap().der().to_vec()
}

fn tls12(certificate: &[u8]) -> Origin {
    let flight = flight(certificate);
    server(move |stream, _| {
        let _ = stream.write_all(&flight);
        wait_for_end(stream);
    })
}

#[test]
fn a_certificate_is_shown_with_its_issuer() {
    let origin = tls12(&issued(&["www.test", NAME, "a.test", "b.test"], (2001, 2099)));
    check_local(origin.addr, &["--tls"])
        .ends(0, "reachable (certificate issued by \"Corp Proxy CA\")")
        .says("dns     127.0.0.1 (hosts file or localhost)")
        .says("tcp     127.0.0.1  rule=allow:127.0.0.0/8  connected in ")
        .says("tls     server hello, TLS 1.2 in ")
        .says("cert    subject  CN=origin.test, O=Example Ltd")
        .says("issuer   CN=Corp Proxy CA")
        .says("valid    2001-01-02 to 2099-03-04")
        .says("names    www.test, origin.test, a.test");
}

#[test]
fn a_certificate_that_no_client_accepts() {
    let origin = tls12(&issued(&["blocked.corp.test"], (2001, 2099)));
    check_local(origin.addr, &["--tls"])
        .ends(45, "reachable, but the certificate is for another name, issued by \"Corp Proxy CA\"");
    for years in [(2001, 2002), (2098, 2099)] {
        let origin = tls12(&issued(&[NAME], years));
        check_local(origin.addr, &["--tls"]).ends(
            46,
            "reachable, but the certificate has expired or is not valid yet, or the clock here is wrong; \
             issued by \"Corp Proxy CA\"",
        );
    }
    let own = rcgen::generate_simple_self_signed([NAME.to_string()]).unwrap();
    let origin = tls12(own.cert.der());
    check_local(origin.addr, &["--tls"]).ends(
        47,
        "reachable, but the certificate is self-signed, no client trusts it unless told to; \
         issued by \"rcgen self signed cert\"",
    );
}

/// Real servers that speak nothing older refuse the first hello with an alert.
#[test]
fn a_real_server_that_speaks_tls_13_only() {
    let identity = rcgen::generate_simple_self_signed([NAME.to_string()]).unwrap();
    let key = PrivateKeyDer::try_from(identity.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![identity.cert.der().clone()], key)
        .unwrap();
    let config = Arc::new(config);
    let origin = Origin::start(move |mut stream| {
        let mut session = ServerConnection::new(config.clone()).unwrap();
        // Ends when the client leaves; its alert goes out with the error.
        while session.complete_io(&mut stream).is_ok_and(|(read, written)| read + written > 0) {}
        wait_for_end(&mut stream);
        Seen { bytes: 0, sha256: Tally::new().sha256(), ending: Ending::Silence }
    });
    check_local(origin.addr, &["--tls"])
        .ends(0, "reachable (TLS 1.3 only, so its certificate is not seen from outside)")
        .says("tls     alert ")
        .says("tls     with TLS 1.3 offered: server hello, TLS 1.3 in ");
}

#[test]
fn an_alert() {
    let origin = server(send(b"\x15\x03\x03\0\x02\x02\x28"));
    check_local(origin.addr, &["--tls"])
        .ends(40, "not reachable: the server answers the ClientHello with the alert handshake_failure")
        .says("tls     alert handshake_failure in ")
        .says("tls     with TLS 1.3 offered: alert handshake_failure in ");
    let origin = server(send(b"\x15\x03\x03\0\x02\x02\x70"));
    check_local(origin.addr, &["--tls"])
        .ends(40, "not reachable: the server does not know this name (TLS alert unrecognized_name)");
}

#[test]
fn a_filter_on_the_name() {
    let answer = flight(&issued(&[NAME], (2001, 2099)));
    let origin = server(move |stream, hello| {
        if has_name(hello) {
            return reset(stream);
        }
        let _ = stream.write_all(&answer);
        wait_for_end(stream);
    });
    check_local(origin.addr, &["--tls"])
        .ends(
            41,
            "not reachable: the connection is reset after the ClientHello, and is not without the name in it: \
             a filter on the name between here and the destination",
        )
        .says("tls     reset after ClientHello in ")
        .says("tls     with TLS 1.3 offered: reset after ClientHello in ")
        .says("tls     without the name in it: server hello, TLS 1.2 in ");
}

#[test]
fn a_reset_a_close_and_silence_whatever_the_name() {
    let why =
        ", with and without the name in it: a filter between here and the destination, or no TLS server";
    let origin = server(|stream, _| reset(stream));
    check_local(origin.addr, &["--tls"])
        .ends(41, &format!("not reachable: the connection is reset after the ClientHello{why}"));
    let origin = server(|_, _| {});
    check_local(origin.addr, &["--tls"])
        .ends(42, &format!("not reachable: the connection is closed after the ClientHello{why}"))
        .says("tls     closed after ClientHello in ");
    let origin = server(|stream, _| wait_for_end(stream));
    check_local(origin.addr, &["--tls"])
        .ends(43, &format!("not reachable: the ClientHello gets no answer{why}"))
        .says("tls     silence after ClientHello in 1")
        // Whoever is silent is not waited for once more only for the sake of a newer version.
        .never_says("TLS 1.3");
    // An address has no name to filter by.
    let origin = server(|stream, _| reset(stream));
    check(&[&ALLOW_LOOPBACK[..], &["--tls", &origin.addr.to_string()]].concat()).ends(
        41,
        "not reachable: the connection is reset after the ClientHello: \
         a filter between here and the destination, or no TLS server",
    );
}

/// What comes is there before the end, of whatever kind: loopback delivers at once.
fn cut_flight(part: &[u8], end: fn(&mut TcpStream)) -> Origin {
    let part = part.to_vec();
    server(move |stream, _| {
        let _ = stream.write_all(&part);
        end(stream);
    })
}

#[test]
fn a_handshake_that_is_cut_after_the_server_hello() {
    let flight = flight(&issued(&[NAME], (2001, 2099)));
    let hello_bytes = 5 + usize::from(u16::from_be_bytes([flight[3], flight[4]]));
    // After the first record, in the certificate, and where nothing is missing but the last message.
    for length in [hello_bytes, hello_bytes + 200, flight.len() - 1] {
        let why = "a filter between here and the destination, or a server that fails";
        let origin = cut_flight(&flight[..length], reset);
        check_local(origin.addr, &["--tls"])
            .ends(41, &format!("not reachable: the connection is reset after the ServerHello: {why}"))
            .says("tls     server hello, TLS 1.2, then reset in ")
            .says("tls     with TLS 1.3 offered: server hello, TLS 1.2, then reset in ");
        let origin = cut_flight(&flight[..length], |_| {});
        check_local(origin.addr, &["--tls"])
            .ends(42, &format!("not reachable: the connection is closed after the ServerHello: {why}"))
            .says("tls     server hello, TLS 1.2, then closed in ");
        let origin = cut_flight(&flight[..length], wait_for_end);
        check_local(origin.addr, &["--tls"])
            .ends(
                43,
                "not reachable: nothing comes after the ServerHello: large packets get lost on the way (path MTU), \
                 or a filter on the certificate",
            )
            .says("tls     server hello, TLS 1.2, then silence in 1")
            .never_says("TLS 1.3");
    }
}

#[test]
fn a_filter_on_the_certificate() {
    const TLS13: &[u8] = include_bytes!("fixtures/tls/tls13");
    const OFFERS_13: &[u8] = b"\0\x2b\0\x05\x04\x03\x04\x03\x03";
    let flight = flight(&issued(&[NAME], (2001, 2099)));
    let origin = server(move |stream, hello| {
        let is_newer = hello.windows(OFFERS_13.len()).any(|part| part == OFFERS_13);
        let _ = stream.write_all(if is_newer { TLS13 } else { &flight[..flight.len() - 4] });
        if is_newer { wait_for_end(stream) } else { reset(stream) }
    });
    check_local(origin.addr, &["--tls"])
        .ends(
            41,
            "not reachable: the connection is reset after the ServerHello, and with TLS 1.3, which hides the \
             certificate, a ServerHello comes too: a filter on the certificate, or a server that fails",
        )
        .says("tls     server hello, TLS 1.2, then reset in ")
        // As far as it came.
        .says("issuer   CN=Corp Proxy CA")
        .says("tls     with TLS 1.3 offered: server hello, TLS 1.3 in ");
}

#[test]
fn a_flight_without_an_end_is_nobodys_cut() {
    let mut message = b"\x16\x03\x03\x3e\x84\x0c\0\x3e\x80".to_vec();
    message.resize(message.len() + 16_000, 0);
    let flight = flight(&[0x30, 0]);
    let hello_bytes = 5 + usize::from(u16::from_be_bytes([flight[3], flight[4]]));
    let endless = [&flight[..hello_bytes], &message.repeat(8)].concat();
    let origin = cut_flight(&endless, wait_for_end);
    check_local(origin.addr, &["--tls"])
        .ends(
            44,
            "not reachable: the server does not speak TLS on this port; it looks like TLS, but without an end",
        )
        .says("tls     TLS, but without an end in ");
}

#[test]
fn an_issuer_without_a_name() {
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name = DistinguishedName::new();
    let issuer = Issuer::new(ca, KeyPair::generate().unwrap());
    let leaf = CertificateParams::new(vec![NAME.to_string()]).unwrap();
    let leaf = leaf.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap();
    let origin = tls12(leaf.der());
    check_local(origin.addr, &["--tls"])
        .ends(0, "reachable (certificate issued by \"(no name)\")")
        .says("issuer   (no name)");
}

/// `--dial-timeout` is 10 seconds by default.
#[test]
fn nobody_is_waited_for_longer_than_five_seconds() {
    let hole = BlackHole::open();
    let silent = server(|stream, _| wait_for_end(stream));
    let ask = |addr: SocketAddr, more: &[&str]| {
        check(&[&ALLOW_LOOPBACK[..], &["--connect-port", "any"], more, &[&addr.to_string()]].concat())
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            ask(hole.addr, &[]).says("tcp     127.0.0.1  rule=allow:127.0.0.0/8  timed out in 5");
        });
        ask(silent.addr, &["--tls"]).says("tls     silence after ClientHello in 5");
    });
}

/// An address of its own for each behaviour, all of one name.
#[test]
fn addresses_that_behave_differently() {
    namespace::own("addresses_that_behave_differently", || {
        let flight = flight(&issued(&[NAME], (2001, 2099)));
        let well = move |stream: &mut TcpStream, _: &[u8]| {
            let _ = stream.write_all(&flight);
            wait_for_end(stream);
        };
        let _resetting: Vec<Origin> =
            [1, 3].map(|last| server_on(&format!("127.44.0.{last}:443"), |stream, _| reset(stream))).into();
        let _well = server_on("127.44.0.22:443", well);
        let _alerting = server_on("127.44.0.4:443", send(b"\x15\x03\x03\0\x02\x02\x28"));
        let ask = |addresses: &[&str], port: u16| {
            let lines: String = addresses.iter().map(|address| format!("{address} {NAME}\n")).collect();
            let hosts = TempFile::with(&lines);
            let options = ["--hosts", &hosts.path, "--allow", "127.44.0.0/16", "--dial-timeout", "1"];
            check(&[&options[..], &[&format!("{NAME}:{port}")]].concat())
        };
        let why = "the connection is reset after the ClientHello, with and without the name in it: \
                   a filter between here and the destination, or no TLS server";
        ask(&["127.44.0.1", "127.44.0.22", "127.44.0.3", "127.44.0.4"], 443)
            .ends(
                41,
                &format!(
                    "not reachable: {why} (at 127.44.0.1; 127.44.0.22 answers; 127.44.0.3 likewise; \
                     127.44.0.4 fails otherwise)"
                ),
            )
            .says("tls     127.44.0.1   reset after ClientHello in ")
            .says("tls     127.44.0.1   without the name in it: reset after ClientHello in ")
            .says("tls     127.44.0.22  server hello, TLS 1.2 in ")
            .says("tls     127.44.0.3   reset after ClientHello in ")
            .says("tls     127.44.0.4   alert handshake_failure in ")
            .never_says("127.44.0.3   without the name");
        // A client is content with the first.
        ask(&["127.44.0.22", "127.44.0.1"], 443)
            .ends(0, "reachable (certificate issued by \"Corp Proxy CA\")")
            .says("tls     127.44.0.22  server hello, TLS 1.2 in ")
            .never_says("reset after");
        // Only one of them accepts connections.
        ask(&["127.44.0.1", "127.44.0.99"], 443)
            .ends(41, &format!("not reachable: {why}"))
            .says("tls     reset after ClientHello in ");
        let _silent = server_on("127.44.0.1:80", |stream, _| wait_for_end(stream));
        let many: Vec<String> = (11..17).map(|last| format!("127.44.0.{last}")).collect();
        let _many: Vec<Origin> =
            many.iter().map(|ip| server_on(&format!("{ip}:80"), send(b"HTTP/1.1 200 OK\r\n\r\n"))).collect();
        let all: Vec<&str> = ["127.44.0.1"].into_iter().chain(many.iter().map(String::as_str)).collect();
        ask(&all, 80)
            .ends(
                52,
                "not reachable: the request gets no answer (at 127.44.0.1; 127.44.0.11 answers; 127.44.0.12 answers; \
                 127.44.0.13 answers; 127.44.0.14 answers; 2 more not asked)",
            )
            .says("http    127.44.0.1   silence after the request in 1")
            .says("http    127.44.0.14  200 OK in ")
            .never_says("127.44.0.15  200 OK");
    });
}

#[test]
fn what_is_not_tls() {
    for (bytes, looks_like, shown) in [
        (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], "plain HTTP", "HTTP/1.1 400 Bad Request"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "SSH", "SSH-2.0-OpenSSH_9.2"),
        (b"220 mail.test ESMTP\r\n", "a mail or FTP server", "220 mail.test ESMTP"),
        (b"\x1b[2Jwhatever\n", "another protocol", "?[2Jwhatever"),
    ] {
        let origin = server(send(bytes));
        let checked = check_local(origin.addr, &["--tls"]);
        checked.ends(
            44,
            &format!("not reachable: the server does not speak TLS on this port; it looks like {looks_like}"),
        );
        assert!(checked.text.contains(&format!(" ({shown}) in ")), "{}", checked.text);
    }
}

#[test]
fn tcp_refused_timed_out_and_connected() {
    let refusing = Refusing::open();
    check_local(refusing.addr, &[])
        .ends(30, "not reachable: the destination does not listen on this port")
        .says("tcp     127.0.0.1  rule=allow:127.0.0.0/8  refused in ");
    let hole = BlackHole::open();
    check_local(hole.addr, &[])
        .ends(32, "not reachable: the destination does not answer a connection attempt")
        .says("tcp     127.0.0.1  rule=allow:127.0.0.0/8  timed out in 1");
    // Another port than 443 is not asked for TLS unprompted.
    let origin = Origin::sink();
    check_local(origin.addr, &[]).ends(0, "reachable").never_says("tls");
}

/// A network with nothing but loopback and one more address.
#[test]
fn unreachable() {
    namespace::own("unreachable", || {
        check(&["203.0.114.7:443"])
            .ends(31, "not reachable: there is no route to the destination's address")
            .says("tcp     203.0.114.7  rule=default  unreachable in ");
    });
}

#[test]
fn every_address_is_tried_and_one_suffices() {
    let origin = Origin::start_on("127.44.0.2:0", |stream| {
        drop(stream);
        Seen { bytes: 0, sha256: Tally::new().sha256(), ending: Ending::Silence }
    });
    let hosts = TempFile::with(&format!("127.44.0.1 {NAME}\n127.44.0.2 {NAME}\n10.9.8.7 {NAME}\n"));
    let port = origin.addr.port();
    check(&["--hosts", &hosts.path, "--allow", &format!("127.0.0.0/8:{port}"), &format!("{NAME}:{port}")])
        .ends(0, "reachable")
        .says("dns     127.44.0.1, 127.44.0.2, 10.9.8.7 (hosts file or localhost)")
        .says(&format!("tcp     127.44.0.1  rule=allow:127.0.0.0/8:{port}  refused in "))
        .says(&format!("tcp     127.44.0.2  rule=allow:127.0.0.0/8:{port}  connected in "))
        .says("tcp     10.9.8.7    rule=connect-port  not tried: port ");
}

#[test]
fn rules_ports_and_the_guard() {
    let hosts = TempFile::with(&format!("127.0.0.1 {NAME}\n"));
    let ask =
        |options: &[&str], target: &str| check(&[&["--hosts", &hosts.path], options, &[target]].concat());
    ask(&["--deny", ".test"], NAME)
        .ends(10, "not reachable: --deny .test names this destination")
        .says("name    rule=deny:.test  --deny .test names this destination")
        .never_says("dns");
    ask(&["--deny", "127.0.0.0/8"], NAME)
        .ends(10, "not reachable: --deny 127.0.0.0/8 holds the destination's address")
        .says("tcp     127.0.0.1  rule=deny:127.0.0.0/8  not tried: ");
    ask(&["--default", "deny"], NAME)
        .ends(11, "not reachable: no --allow names this destination and --default is deny");
    ask(&[], &format!("{NAME}:22")).ends(12, "not reachable: port 22 is not in --connect-port");
    ask(&[], NAME)
        .ends(
            13,
            "not reachable: the destination's address is special-purpose (loopback); only an --allow opens it",
        )
        .says("tcp     127.0.0.1  rule=guard  not tried: ");
    ask(&["--allow", "127.0.0.0/8", "-l", "127.0.0.1:443"], &format!("{NAME}:443"))
        .ends(14, "not reachable: the destination is this proxy itself");
    ask(&["--deny", &format!("{NAME}:443")], NAME).says("CONNECT origin.test:443").says(
        "verdict: not reachable: HTTPS: --deny origin.test:443 names this destination; \
         HTTP: the destination's address is special-purpose",
    );
    // What holds for other clients does not count for the one that the check speaks for.
    ask(&["--deny", ".test from 10.0.0.0/8"], NAME).says("origin.test, for a client at 127.0.0.1");
    ask(&["--client", "10.0.0.0/8", "--deny", ".test from 10.0.0.0/8"], NAME)
        .ends(10, "not reachable: --deny .test from 10.0.0.0/8 names this destination")
        .says("origin.test, for a client at 10.0.0.0");
}

#[test]
fn names() {
    let dns = DnsServer::start(|question| match &*question.name {
        "servfail.test" => Answer::ServFail,
        "silent.test" => Answer::Silent,
        "origin.test" => Answer::of(&["127.0.0.1"]),
        "word.search.test" => Answer::of(&["10.1.1.1"]),
        _ => Answer::NxDomain,
    });
    let server = dns.addr.to_string();
    let ask = |options: &[&str], target: &str| {
        check(&[&["--nameserver", &server, "--resolve-timeout", "1"], options, &[target]].concat())
    };
    ask(&[], "gone.test")
        .ends(20, "not reachable: the destination's name does not exist")
        .says(&format!("dns     the destination's name does not exist (nameserver {server}, "));
    ask(&[], "servfail.test")
        .ends(21, "not reachable: the nameservers could not answer for the destination's name");
    ask(&[], "silent.test")
        .ends(22, &format!("not reachable: no answer in time (--resolve-timeout) from nameserver {server}"));
    ask(&[], NAME).says(&format!("dns     127.0.0.1 (nameserver {server}, "));
    ask(&["--family", "6"], "localhost:443").says("dns     ::1 (hosts file or localhost)");
    ask(&["--family", "6"], "203.0.114.1")
        .ends(23, "not reachable: the destination has no address of the family that --family asks for");
    // Asked once, for both ports.
    drop(dns.asked_so_far());
    ask(&[], NAME).says("dns     as above");
    let asked: Vec<u16> = dns.asked_so_far().iter().map(|question| question.qtype).collect();
    assert_eq!(asked.len(), 2, "A and AAAA: {asked:?}");
}

#[test]
fn plain_http() {
    namespace::own("plain_http", || {
        let redirect = b"HTTP/1.1 301 Moved\r\nLocation: https://origin.test/\r\nContent-Length: 0\r\n\r\n";
        let reset_line = "http    reset after the request in ";
        let why = "not reachable: the connection is reset after the request";
        plain(|stream, _| reset(stream)).ends(50, why).says(reset_line);
        let why = "not reachable: the connection is closed without an answer to the request";
        plain(|_, _| {}).ends(51, why).says("http    closed after the request in ");
        plain(|stream, _| wait_for_end(stream))
            .ends(52, "not reachable: the request gets no answer")
            .says("http    silence after the request in 1");
        plain(send(b"SSH-2.0-x\r\n"))
            .ends(53, "not reachable: the answer is not HTTP: the response does not begin with HTTP/")
            .says("http    not HTTP: the response does not begin with HTTP/ in ");
        plain(send(redirect))
            .ends(0, "reachable")
            .says("http    301 Moved in ")
            .says("Location: https://origin.test/");
        plain(send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 Nothing\r\n\r\n"))
            .ends(0, "reachable")
            .says("http    204 Nothing in ")
            .never_says("103");
        plain(send(b"HTTP/1.1 101 Switching\r\n\r\n")).says("http    101 Switching in ");
        plain(|stream, _| drop(stream.write_all(b"HTTP/1.1 103 Early Hints\r\n\r\n")))
            .ends(51, "not reachable: the connection is closed without an answer to the request");
        plain(|stream, _| {
            let _ = stream.write_all(&b"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(4000));
            wait_for_end(stream);
        })
        .ends(53, "not reachable: the answer is not HTTP: interim responses without an end");
    });
}

/// What port 80 gets, in a namespace.
#[track_caller]
fn plain(act: impl Fn(&mut TcpStream, &[u8]) + Send + Sync + 'static) -> Checked {
    let origin = server_on("127.0.0.1:80", act);
    check_local(origin.addr, &[])
}

/// A port of neither kind is open for plain HTTP alone. Where an `--allow` would open it for both, a public address is needed.
#[test]
fn a_port_that_is_for_plain_http_only() {
    namespace::own("a_port_that_is_for_plain_http_only", || {
        const PUBLIC: &str = "203.0.114.7";
        const SET_ADDRESS: &str = "import fcntl, socket, struct, sys; \
            fcntl.ioctl(socket.socket(), 0x8916, struct.pack('16sHH4s16x', b'lo:2', socket.AF_INET, 0, \
            socket.inet_aton(sys.argv[1])))";
        let set = Command::new("python3").args(["-c", SET_ADDRESS, PUBLIC]).status().unwrap();
        assert!(set.success());
        let _origin = server_on("203.0.114.7:8080", send(b"HTTP/1.1 204 Nothing\r\n\r\n"));
        check(&["203.0.114.7:8080"])
            .ends(0, "reachable by plain HTTP, and not by CONNECT, whose ports are in --connect-port")
            .says("tcp     203.0.114.7  rule=connect-port  not tried: port 8080 is not in --connect-port")
            .says("tcp     203.0.114.7  rule=default  connected in ")
            .says("http    204 Nothing in ");
        check(&["203.0.114.7:8081"]).ends(30, "not reachable: the destination does not listen on this port");
    });
}

/// The question that this command is for.
#[test]
fn why_https_is_blocked_while_http_works() {
    namespace::own("why_https_is_blocked_while_http_works", || {
        let _http = server_on("127.44.0.9:80", |stream, request| {
            assert!(request.starts_with(b"GET / HTTP/1.1\r\nHost: origin.test\r\n"));
            send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")(stream, request);
        });
        let answer = flight(&issued(&["else.test"], (2001, 2099)));
        let https = server_on("127.44.0.9:443", move |stream, hello| {
            if has_name(hello) {
                return reset(stream);
            }
            let _ = stream.write_all(&answer);
            wait_for_end(stream);
        });
        let hosts = TempFile::with(&format!("127.44.0.9 {NAME}\n"));
        let ask = || check(&["--hosts", &hosts.path, "--allow", "127.44.0.9", NAME]);
        ask()
            .ends(
                41,
                "HTTP works and HTTPS does not: the connection is reset after the ClientHello, and is not without \
                 the name in it: a filter on the name between here and the destination",
            )
            .says("plain HTTP to origin.test:80")
            .says("http    200 OK in ")
            .says("CONNECT origin.test:443")
            .says("tls     reset after ClientHello in ");
        check(&["--hosts", &hosts.path, "--allow", "127.44.0.9", "--deny", ".test:443", NAME])
            .ends(10, "HTTP works and HTTPS does not: --deny .test:443 names this destination");
        drop(https);
        ask().ends(30, "HTTP works and HTTPS does not: the destination does not listen on this port");
    });
}

#[test]
fn through_a_proxy() {
    let origin = tls12(&issued(&[NAME], (2001, 2099)));
    let hosts = TempFile::with(&format!("127.0.0.1 {NAME} denied.test\n"));
    let proxy = Proxy::open(&["--hosts", &hosts.path, "--connect-port", "any", "--deny", "denied.test"]);
    let url = format!("http://{}", proxy.addr);
    let port = origin.addr.port();
    // These options say no, and do not count.
    let ask = |target: String, more: &[&str]| {
        check(&[&["--deny", "*", "--through", &url, "--dial-timeout", "1"], more, &[&target]].concat())
    };
    ask(format!("{NAME}:{port}"), &["--tls"])
        .ends(0, "reachable (certificate issued by \"Corp Proxy CA\")")
        .says(&format!("{NAME} through the proxy {url}: its options decide, not these"))
        .says(&format!("proxy   {}  connected in ", proxy.addr))
        .says("proxy   200 Connection established in ")
        .says("tls     server hello, TLS 1.2 in ")
        .never_says("dns");
    ask(format!("{NAME}:{port}"), &[]).ends(0, "reachable");
    ask("denied.test".to_owned(), &[])
        .ends(
            60,
            "not reachable: the proxy says 403 Destination denied by proxy: --deny denied.test names this destination",
        )
        .says("plain HTTP to denied.test:80")
        .says("CONNECT denied.test:443")
        .says("proxy   403 Destination denied by proxy in ")
        .says(
            "Proxy-Status: adit; error=http_request_denied; details=\"--deny denied.test names this destination\"",
        );
}

/// Most proxies answer in their own name as they would pass on an answer.
#[test]
fn through_a_proxy_that_does_not_say_who_answers() {
    let ask = |answers: &'static [(&'static str, &'static [u8])], target: &str| {
        let proxy = server(move |stream, request| {
            let (_, answer) =
                answers.iter().find(|(method, _)| request.starts_with(method.as_bytes())).unwrap();
            send(answer)(stream, request);
        });
        check(&["--through", &format!("http://{}", proxy.addr), "--dial-timeout", "1", target])
    };
    const FORBIDDEN: &[u8] = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n";
    const NOT_FOUND: &[u8] = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
    let http = "the request is answered 403 Forbidden: by the proxy or the destination, it does not say";
    ask(&[("CONNECT", FORBIDDEN), ("GET", FORBIDDEN)], "origin.test")
        .ends(60, &format!("not reachable: HTTPS: the proxy says 403 Forbidden; HTTP: {http}"));
    ask(&[("GET", FORBIDDEN)], "origin.test:80").ends(54, &format!("unclear: {http}"));
    ask(&[("GET", b"HTTP/1.1 503 Busy\r\n\r\n")], "origin.test:80").ends(
        54,
        "unclear: the request is answered 503 Busy: by the proxy or the destination, it does not say",
    );
    // A string without an end says nothing.
    ask(&[("GET", b"HTTP/1.1 403 Forbidden\r\nProxy-Status: p; details=\"x\r\n\r\n")], "origin.test:80")
        .ends(54, &format!("unclear: {http}"));
    // What destinations say every day counts against the proxy only if CONNECT gets it too.
    ask(&[("GET", NOT_FOUND)], "origin.test:80").ends(0, "reachable");
    ask(&[("GET", NOT_FOUND), ("CONNECT", NOT_FOUND)], "origin.test").ends(
        60,
        "not reachable: HTTPS: the proxy says 404 Not Found; HTTP: the request is answered 404 Not Found: \
         by the proxy or the destination, it does not say",
    );
    ask(&[("GET", NOT_FOUND), ("CONNECT", FORBIDDEN)], "origin.test")
        .ends(60, "HTTP works and HTTPS does not: the proxy says 403 Forbidden");
    // One that speaks of itself, and not of an error.
    ask(
        &[(
            "GET",
            b"HTTP/1.1 403 No\r\nProxy-Status: p; details=\"no; error=x\"; received-status=403\r\n\r\n",
        )],
        "origin.test:80",
    )
    .ends(0, "reachable");
    ask(
        &[(
            "GET",
            b"HTTP/1.1 403 No\r\nProxy-Status: a, p; details=\"a \\\"b\\\"; c\"; error=x; rcode=3\r\n\r\n",
        )],
        "origin.test:80",
    )
    .ends(60, "not reachable: the proxy says 403 No: a \"b\"; c");
    // The answer to CONNECT may have interim ones before it, too.
    ask(&[("CONNECT", b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n\r\n")], "origin.test:8443")
        .ends(0, "reachable")
        .says("proxy   200 OK in ");
}

/// Through the proxy, too, more than one hello is said.
#[test]
fn a_filter_on_the_name_behind_a_proxy() {
    let origin = server(|stream, hello| {
        if has_name(hello) { reset(stream) } else { send(b"\x15\x03\x03\0\x02\x02\x28")(stream, hello) }
    });
    let hosts = TempFile::with(&format!("127.0.0.1 {NAME}\n"));
    let proxy = Proxy::open(&["--hosts", &hosts.path, "--connect-port", "any"]);
    let target = format!("{NAME}:{}", origin.addr.port());
    let checked = check(&["--through", &format!("http://{}", proxy.addr), "--tls", &target]);
    checked
        .ends(
            41,
            "not reachable: the connection is reset after the ClientHello, and is not without the name in it: \
             a filter on the name between here and the destination",
        )
        .says("tls     without the name in it: alert handshake_failure in ")
        .says("proxy   200 Connection established in ");
    assert_eq!(
        checked.text.matches("proxy   200").count(),
        1,
        "said once, done three times: {}",
        checked.text
    );
}

#[test]
fn through_what_is_no_proxy_or_wants_credentials() {
    let ask = |addr: SocketAddr, login: &str| {
        check(&["--through", &format!("http://{login}{addr}"), "--dial-timeout", "1", "origin.test:443"])
    };
    // "alice:secret"
    let proxy = server(|stream, request| {
        let is_alice =
            String::from_utf8_lossy(request).contains("\r\nProxy-Authorization: Basic YWxpY2U6c2VjcmV0\r\n");
        let answer: &'static [u8] = match is_alice {
            true => b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n",
            false => {
                b"HTTP/1.1 407 Who\r\nProxy-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\n\r\n"
            }
        };
        send(answer)(stream, request);
    });
    ask(proxy.addr, "")
        .ends(61, "not reachable: the proxy wants credentials: http://USER:PASSWORD@PROXY:PORT")
        .says("Proxy-Authenticate: Basic realm=\"x\"");
    ask(proxy.addr, "alice:secret@")
        .ends(60, "not reachable: the proxy says 502 Bad Gateway")
        .never_says("secret")
        .never_says("YWxp");
    let refusing = Refusing::open();
    ask(refusing.addr, "")
        .ends(62, "not reachable: there is no way to the proxy: refused")
        .says(&format!("proxy   {}  refused in ", refusing.addr));
    let ssh = server(send(b"SSH-2.0-x\r\n"));
    ask(ssh.addr, "").ends(63, "not reachable: the proxy does not answer as a proxy does");
}

#[test]
fn called_wrongly_or_with_unreadable_files() {
    for args in [&[][..], &["a.test", "b.test"], &["http://a.test/"], &["a.test", "--no-such-option"]] {
        assert_eq!(check(args).code, 2, "{args:?}");
    }
    assert_eq!(check(&["--hosts", "/nonexistent/hosts", "a.test"]).code, 1);
    assert_eq!(check(&["--config", "/nonexistent/adit.conf", "a.test"]).code, 1);
}

#[test]
fn options_may_stand_in_a_file() {
    let file = TempFile::with("deny .test\n");
    check(&["--config", &file.path, NAME]).ends(10, "not reachable: --deny .test names this destination");
    check(&[NAME, "--default", "deny", "-c", &file.path])
        .ends(10, "not reachable: --deny .test names this destination");
    let checked = check(&["--check-config", NAME, "-c", &file.path]);
    assert_eq!((&*checked.text, checked.code), ("ok\n", 0), "it probes nothing");
}
