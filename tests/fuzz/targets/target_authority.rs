//! The input is the target of a CONNECT. What is accepted has one canonical spelling, which no other reader takes for an
//! address of its own.
#![no_main]

use std::net::{IpAddr, Ipv4Addr};

use adit::proto::target::{Host, Target};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    match Target::from_authority(bytes) {
        Ok(target) => {
            check(&target, bytes);
            assert_eq!(Target::from_authority_or_port(bytes, 80), Ok(target), "a port that is there counts");
        }
        Err(bad) => {
            assert!(!bad.details().is_empty());
            if let Ok(target) = Target::from_authority_or_port(bytes, 80) {
                assert_eq!(target.port, 80, "only a missing port is filled in");
                check(&target, &[bytes, b":80"].concat());
            }
        }
    }
});

fn check(target: &Target, sent: &[u8]) {
    let text = target.to_string();
    assert_eq!(Target::from_authority(text.as_bytes()).as_ref(), Ok(target), "canonical is a fixed point");
    assert!(text.bytes().all(|byte| byte.is_ascii_graphic() && !byte.is_ascii_uppercase()), "{text:?}");
    assert!(target.port > 0);
    assert_eq!(
        Target::from_authority(&sent.to_ascii_uppercase()).as_ref(),
        Ok(target),
        "case does not matter"
    );
    let host = target.host.to_string();
    assert_eq!(Host::from_bytes(host.as_bytes()).as_ref(), Ok(&target.host));
    match &target.host {
        Host::Ip(address) => {
            assert_eq!(address.is_ipv6(), host.starts_with('['));
            assert_eq!(host.trim_matches(['[', ']']).parse::<IpAddr>().as_ref(), Ok(address));
        }
        Host::Name(name) => {
            assert!(
                name.len() <= 253 && name.split('.').all(|label| (1..=63).contains(&label.len())),
                "{name:?}"
            );
            assert!(
                name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)),
                "{name:?}"
            );
            assert_eq!(inet_aton(name), None, "C libraries would take {name:?} for an address");
        }
    }
}

/// `inet_aton(3)`: one to four numbers, each decimal, octal or hexadecimal, the last one filling what is left.
fn inet_aton(text: &str) -> Option<Ipv4Addr> {
    let number = |part: &str| match part.as_bytes() {
        [b'0', b'x' | b'X', ..] if part.len() == 2 => Some(0),
        [b'0', b'x' | b'X', ..] => u64::from_str_radix(&part[2..], 16).ok(),
        [b'0', _, ..] => u64::from_str_radix(part, 8).ok(),
        _ => part.parse::<u64>().ok(),
    };
    let parts: Vec<u64> = text.split('.').map(number).collect::<Option<_>>()?;
    let (&last, first) = parts.split_last()?;
    let room = 32_u32.checked_sub(8 * first.len() as u32).filter(|&room| room > 0)?;
    if first.iter().any(|&part| part > 255) || last >> room != 0 {
        return None;
    }
    let high: u64 = first.iter().enumerate().map(|(index, &part)| part << (24 - 8 * index)).sum();
    Some(Ipv4Addr::from((high + last) as u32))
}
