#![allow(clippy::unwrap_used, clippy::panic)]
use super::*;
use rcgen::{CertificateParams, DnType, KeyPair, SanType, date_time_ymd};

/// Made by `openssl`: a certificate for `origin.test` that "Test CA" has issued, and that CA's own.
const LEAF: &[u8] = include_bytes!("../../../tests/fixtures/tls/leaf.der");
const CA: &[u8] = include_bytes!("../../../tests/fixtures/tls/ca.der");

fn name(text: &str) -> Host {
    Host::from_bytes(text.as_bytes()).unwrap()
}

fn named(common_name: &str, organization: &str) -> Name {
    Name { common_name: common_name.into(), organization: organization.into() }
}

fn made(change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    change(&mut params);
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
}

#[test]
fn certificates_made_by_openssl_are_read() {
    let leaf = Certificate::parse(LEAF, &name("origin.test")).unwrap();
    assert_eq!(leaf.subject, named("origin.test", "Example Ltd"));
    assert_eq!(leaf.issuer, named("Test CA", "Example Trust"));
    assert!(!leaf.is_self_issued && leaf.is_for_host);
    assert_eq!((&leaf.not_before, &leaf.not_after), (b"20261129070057", b"20271129070057"));
    assert_eq!(leaf.names, "origin.test, *.wild.test, 127.44.0.9");
    let ca = Certificate::parse(CA, &name("origin.test")).unwrap();
    assert_eq!(ca.subject, ca.issuer);
    assert!(ca.is_self_issued && !ca.is_for_host && ca.names.is_empty());
}

#[test]
fn names_match_as_clients_match_them() {
    for (host, is_for) in [
        ("origin.test", true),
        ("www.origin.test", false),
        ("a.wild.test", true),
        ("wild.test", false),
        ("a.b.wild.test", false),
        ("127.44.0.9", true),
        ("127.44.0.8", false),
        ("[2001:db8::9]", true),
    ] {
        assert_eq!(Certificate::parse(LEAF, &name(host)).unwrap().is_for_host, is_for, "{host}");
    }
    for (pattern, host, is) in [
        ("Origin.TEST", "origin.test", true),
        ("*", "origin", false),
        ("*.test", "origin.test", true),
        ("o*.test", "origin.test", false),
        ("*rigin.test", "origin.test", false),
        ("*.", "origin", false),
    ] {
        assert_eq!(is_name_of(pattern.as_bytes(), &name(host)), is, "{pattern} {host}");
    }
}

#[test]
fn a_name_that_is_none_says_so() {
    for (name, long, short) in [
        (named("", ""), "(no name)", "(no name)"),
        (named("", "Org"), "O=Org", "Org"),
        (named("Name", ""), "CN=Name", "Name"),
        (named("Name", "Org"), "CN=Name, O=Org", "Name"),
    ] {
        assert_eq!((&*name.to_string(), name.short()), (long, short));
    }
}

#[test]
fn moments_of_both_kinds_compare_as_text() {
    let far = made(|params| {
        params.not_before = date_time_ymd(1975, 1, 2);
        params.not_after = date_time_ymd(2055, 3, 4);
    });
    let far = Certificate::parse(&far, &name("a.test")).unwrap();
    assert_eq!((&far.not_before, &far.not_after), (b"19750102000000", b"20550304000000"));
    assert!(far.not_before < far.not_after);
    for bad in [&b"2611290700Z"[..], b"261129070057", b"261129070057+0100", b"26112907005xZ", b""] {
        assert_eq!(moment((UTC_TIME, bad)), None);
    }
    assert_eq!(moment((OID, b"261129070057Z")), None);
}

#[test]
fn what_is_shown_is_short_and_printable() {
    let loud = made(|params| {
        params.distinguished_name.push(DnType::CommonName, "\u{1b}[2J\u{fc}");
        params.distinguished_name.push(DnType::OrganizationName, "o".repeat(500));
        params.subject_alt_names =
            (0..9).map(|n| SanType::DnsName(format!("n{n}.test").try_into().unwrap())).collect();
    });
    let loud = Certificate::parse(&loud, &name("n8.test")).unwrap();
    assert_eq!(loud.subject, named("?[2J??", &"o".repeat(NAME_BYTES)));
    assert_eq!(loud.names, "n0.test, n1.test, n2.test");
    assert!(loud.is_for_host, "also by a name that is not shown");
    assert_eq!(&*text(BMP_STRING, b"\0A\x04\x10\0B\0"), "A?B");
}

#[test]
fn what_is_cut_or_not_der_is_no_certificate() {
    let host = name("origin.test");
    for length in 0..LEAF.len() {
        assert_eq!(Certificate::parse(&LEAF[..length], &host), None, "{length}");
    }
    for bad in
        [&b"\x30\x80\0\0"[..], b"\x30\x84\0\0\0\0", b"\x02\x01\0", b"\x30\x02\x30\0", b"\x30\x03\x30\x05\0"]
    {
        assert_eq!(Certificate::parse(bad, &host), None);
    }
    // Every byte changed: anything may come of it, but no panic.
    for at in 0..LEAF.len() {
        for change in [0xff, 0x01, 0x80] {
            let mut changed = LEAF.to_vec();
            changed[at] ^= change;
            let _ = Certificate::parse(&changed, &host);
        }
    }
}
