//! The input is what a server sends behind a ClientHello; where there is a certificate in it, that is read as well.
#![no_main]

use adit::proto::target::Host;
use adit::proto::tls_probe::{Answer, Reading, alert_name, read};
use adit::proto::x509::{Certificate, Moment};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|flight: &[u8]| {
    let reading = read(flight);
    let mut decided: Option<&Answer> = None;
    // What a part of it decides, the whole decides: bytes come in pieces of any size.
    let parts: Vec<Reading> = pieces(flight).map(|length| read(&flight[..length])).collect();
    for part in parts.iter().chain([&reading]) {
        match (part, decided) {
            (Reading::Complete(answer), None) => decided = Some(answer),
            (Reading::Complete(answer), Some(earlier)) => assert_eq!(answer, earlier),
            (Reading::Incomplete(_), None) => {}
            (Reading::Incomplete(so_far), Some(earlier)) => panic!("{earlier:?}, then {so_far:?}"),
        }
    }
    match reading {
        Reading::Complete(answer) | Reading::Incomplete(Some(answer)) => check(&answer),
        Reading::Incomplete(None) => {}
    }
    // Certificates alone are found sooner than in a flight.
    certificate(flight);
});

/// Every length up to 64, then larger steps.
fn pieces(flight: &[u8]) -> impl Iterator<Item = usize> + use<> {
    let length = flight.len();
    (0..length.min(64)).chain((64..length).step_by(61))
}

fn check(answer: &Answer) {
    match answer {
        Answer::Hello { version, certificate: der } => {
            assert!(!version.to_string().is_empty());
            if let Some(der) = der {
                certificate(der);
            }
        }
        Answer::Alert(alert) => assert!(!alert_name(*alert).is_empty()),
        Answer::NotTls { begins, .. } => printable(begins, 60),
    }
}

fn certificate(der: &[u8]) {
    let host = Host::from_bytes(b"origin.test").unwrap();
    let Some(certificate) = Certificate::parse(der, &host) else { return };
    for name in [&certificate.subject, &certificate.issuer] {
        printable(&name.common_name, 64);
        printable(&name.organization, 64);
    }
    printable(&certificate.names, 3 * 64 + 4);
    let digits = |moment: &Moment| moment.iter().all(u8::is_ascii_digit);
    assert!(digits(&certificate.not_before) && digits(&certificate.not_after));
    assert!(!certificate.is_self_issued || certificate.subject == certificate.issuer);
}

/// Nothing that a terminal obeys.
fn printable(text: &str, most: usize) {
    assert!(text.len() <= most && text.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{text:?}");
}
