#![allow(clippy::unwrap_used, clippy::panic)]
use super::*;

/// First flights of `openssl s_server`, as they answered our hellos.
const TLS12: &[u8] = include_bytes!("../../../tests/fixtures/tls/tls12");
const TLS10: &[u8] = include_bytes!("../../../tests/fixtures/tls/tls10");
const TLS13: &[u8] = include_bytes!("../../../tests/fixtures/tls/tls13");
const HELLO_RETRY: &[u8] = include_bytes!("../../../tests/fixtures/tls/tls13-hello-retry");
const ALERT_VERSION: &[u8] = include_bytes!("../../../tests/fixtures/tls/alert-protocol-version");
const LEAF: &[u8] = include_bytes!("../../../tests/fixtures/tls/leaf.der");

fn hello(version: u16, certificate: Option<&[u8]>) -> Answer {
    Answer::Hello { version: Version(version), certificate: certificate.map(<[u8]>::to_vec) }
}

fn complete(bytes: &[u8]) -> Answer {
    match read(bytes) {
        Reading::Complete(answer) => answer,
        Reading::Incomplete(so_far) => panic!("incomplete: {so_far:?}"),
    }
}

fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![kind, 3, 3];
    push_u16(content.len(), &mut out);
    out.extend_from_slice(content);
    out
}

/// The payloads of all handshake records.
fn messages(mut flight: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let Record::Of(HANDSHAKE, content) = next_record(&mut flight) {
        out.extend_from_slice(content);
    }
    out
}

#[test]
fn flights_of_a_real_server_are_read() {
    assert_eq!(complete(TLS12), hello(0x0303, Some(LEAF)));
    assert_eq!(complete(TLS10), hello(0x0301, Some(LEAF)));
    assert_eq!(complete(TLS13), hello(0x0304, None));
    assert_eq!(complete(HELLO_RETRY), hello(0x0304, None));
    assert_eq!(complete(ALERT_VERSION), Answer::Alert(70));
    assert_eq!(alert_name(70), "protocol_version");
}

#[test]
fn a_prefix_is_incomplete_and_what_follows_changes_nothing() {
    for flight in [TLS12, TLS10, TLS13, HELLO_RETRY, ALERT_VERSION] {
        let answer = complete(flight);
        let mut decided = false;
        for length in 0..flight.len() {
            match read(&flight[..length]) {
                // TLS 1.3 is decided before the encrypted part.
                Reading::Complete(early) => {
                    assert_eq!(early, answer, "{length}");
                    decided = true;
                }
                Reading::Incomplete(so_far) => {
                    assert!(!decided, "{length}");
                    let fits = match (&so_far, &answer) {
                        (None, _) => true,
                        (Some(Answer::Hello { version: a, .. }), Answer::Hello { version: b, .. }) => a == b,
                        (Some(_), _) => false,
                    };
                    assert!(fits, "{length}: {so_far:?}");
                }
            }
        }
        for behind in [&b"x"[..], &record(ALERT, b"\x02\x28"), &record(HANDSHAKE, b"\0\0\0\0"), &[0; 9]] {
            assert_eq!(complete(&[flight, behind].concat()), answer);
        }
    }
}

/// Its last bytes are the one extension.
#[test]
fn a_hello_is_known_before_what_follows_it() {
    let hello_bytes = 5 + usize::from(u16::from_be_bytes([TLS12[3], TLS12[4]]));
    assert_eq!(read(&TLS12[..hello_bytes]), Reading::Incomplete(Some(hello(0x0303, None))));
    assert_eq!(read(&TLS12[..hello_bytes - 1]), Reading::Incomplete(None));
    // All in one record.
    let flight = record(HANDSHAKE, &messages(TLS12));
    assert_eq!(read(&flight[..hello_bytes - 1]), Reading::Incomplete(None));
    assert_eq!(read(&flight[..hello_bytes + 9]), Reading::Incomplete(Some(hello(0x0303, None))));
    assert_eq!(read(&flight[..flight.len() - 1]), Reading::Incomplete(Some(hello(0x0303, Some(LEAF)))));
}

#[test]
fn messages_may_be_cut_into_records_in_any_way() {
    let whole = messages(TLS12);
    for length in [1, 2, 3, 5, 100, 1000, whole.len()] {
        let flight: Vec<u8> = whole.chunks(length).flat_map(|part| record(HANDSHAKE, part)).collect();
        assert_eq!(complete(&flight), hello(0x0303, Some(LEAF)), "{length}");
    }
}

#[test]
fn a_warning_is_not_the_end_and_a_fatal_alert_is() {
    let unrecognized_name = record(ALERT, b"\x01\x70");
    assert_eq!(complete(&[&unrecognized_name, TLS12].concat()), hello(0x0303, Some(LEAF)));
    assert_eq!(read(&unrecognized_name), Reading::Incomplete(None));
    for (alert, number) in [(b"\x02\x70", 112), (b"\x02\x28", 40), (b"\x01\x00", 0)] {
        assert_eq!(complete(&record(ALERT, alert)), Answer::Alert(number));
    }
}

#[test]
fn what_is_not_tls_is_called_by_its_name() {
    for (bytes, looks_like, begins) in [
        (&b"HTTP/1.1 400 Bad Request\r\nServer: x\r\n"[..], "plain HTTP", "HTTP/1.1 400 Bad Request"),
        (b"<html>\n", "plain HTTP", "<html>"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "SSH", "SSH-2.0-OpenSSH_9.2"),
        (b"220 mail ESMTP\r\n", "a mail or FTP server", "220 mail ESMTP"),
        (b"\x00\x1b[2J\n", "another protocol", "??[2J"),
        (b"\x15\x03\x09\n", "another protocol", "???"),
        (&[b'x'; 70], "another protocol", &"x".repeat(SHOWN_BYTES)),
    ] {
        let answer = Answer::NotTls { looks_like, begins: begins.into() };
        assert_eq!(complete(bytes), answer);
    }
    let ssh = Answer::NotTls { looks_like: "SSH", begins: "SSH-2".into() };
    assert_eq!(read(b"SSH-2"), Reading::Incomplete(Some(ssh)));
}

#[test]
fn broken_tls_is_not_tls() {
    let long_message = [SERVER_HELLO, 0xff, 0, 0];
    let cases = [
        record(HANDSHAKE, &[SERVER_HELLO, 0, 0, 2, 3, 3]),
        record(HANDSHAKE, &long_message),
        record(HANDSHAKE, &[CERTIFICATE, 0, 0, 0]),
        record(ALERT, b"\x02"),
        [record(ALERT, b"\x01\x70"), record(23, b"x")].concat(),
        [record(ALERT, b"\x01\x70"), b"\x16\x03\x03\0\0".to_vec()].concat(),
        [record(ALERT, b"\x01\x70"), b"\x16\x03\x03\xff\xff".to_vec()].concat(),
        [record(ALERT, b"\x01\x70"), b"\x16\x09\x03\0\x01".to_vec()].concat(),
    ];
    for bytes in cases {
        assert_eq!(complete(&bytes), broken_tls(), "{bytes:?}");
    }
}

#[test]
fn the_hello_is_well_formed() {
    let random: [u8; RANDOM_BYTES] = std::array::from_fn(|index| index as u8);
    for offer in [Offer::UpTo12, Offer::UpTo13] {
        for name in [None, Some("origin.test"), Some(&*"n".repeat(253))] {
            let hello = client_hello(offer, name, &random);
            let mut rest = &hello[..];
            let Record::Of(HANDSHAKE, message) = next_record(&mut rest) else { panic!("a record") };
            assert!(rest.is_empty());
            assert_eq!(message[0], 1);
            assert_eq!(
                u32::from_be_bytes([0, message[1], message[2], message[3]]) as usize,
                message.len() - 4
            );
            assert_eq!(message[6..38], random[..32]);
            let extensions = extensions(message);
            let types: Vec<u16> = extensions.iter().map(|(kind, _)| *kind).collect();
            let mut once = types.clone();
            once.sort_unstable();
            once.dedup();
            assert_eq!(once.len(), types.len(), "each once");
            let server_name = extensions.iter().find(|(kind, _)| *kind == 0);
            assert_eq!(server_name.map(|(_, content)| &content[5..]), name.map(str::as_bytes));
            let offers_13 = extensions.contains(&(SUPPORTED_VERSIONS, b"\x04\x03\x04\x03\x03".to_vec()));
            assert_eq!(offers_13, offer == Offer::UpTo13);
            let key_share = extensions.iter().find(|(kind, _)| *kind == 51);
            assert_eq!(key_share.is_some(), offer == Offer::UpTo13);
            assert!(key_share.is_none_or(|(_, content)| content[6..] == random[64..]));
        }
    }
}

fn extensions(message: &[u8]) -> Vec<(u16, Vec<u8>)> {
    let rest = &message[39 + usize::from(message[38])..];
    let suites = usize::from(u16::from_be_bytes([rest[0], rest[1]]));
    let rest = &rest[2 + suites..];
    assert_eq!(rest[..2], [1, 0]);
    assert_eq!(usize::from(u16::from_be_bytes([rest[2], rest[3]])), rest.len() - 4);
    let (mut rest, mut found) = (&rest[4..], Vec::new());
    while let [a, b, c, d, behind @ ..] = rest {
        let (content, behind) = behind.split_at(usize::from(u16::from_be_bytes([*c, *d])));
        found.push((u16::from_be_bytes([*a, *b]), content.to_vec()));
        rest = behind;
    }
    assert!(rest.is_empty());
    found
}
