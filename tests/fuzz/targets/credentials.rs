//! The input is the value of a `Proxy-Authorization` field. What is taken, written again, is the value.
#![no_main]

use adit::proto::credentials::basic;
use libfuzzer_sys::fuzz_target;

const CHARACTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fuzz_target!(|value: &[u8]| {
    if let Some(read) = basic(value) {
        assert!(!read.user.iter().any(|byte| *byte == b':' || byte.is_ascii_control()), "{read:?}");
        let (scheme, rest) = value.split_at(5);
        assert!(scheme.eq_ignore_ascii_case(b"basic") && rest[0] == b' ');
        let token = &rest[rest.iter().take_while(|byte| **byte == b' ').count()..];
        assert_eq!(token, encoded(&[&read.user[..], b":", &read.password].concat()), "one spelling only");
    }
    // Whatever it is, as user and password it comes through.
    let at = value.len() / 2;
    let user: Vec<u8> = value[..at].iter().filter(|byte| **byte != b':' && !byte.is_ascii_control()).copied().collect();
    let field = [&b"bASIC "[..], &encoded(&[&user[..], b":", &value[at..]].concat())].concat();
    let read = basic(&field).expect("what is written as it should be is read");
    assert_eq!((&read.user[..], &read.password[..]), (&user[..], &value[at..]));
});

/// RFC 4648 4, naively.
fn encoded(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    for group in bytes.chunks(3) {
        let bits = (0..3).fold(0, |bits, at| bits << 8 | usize::from(*group.get(at).unwrap_or(&0)));
        let characters = [18, 12, 6, 0].map(|shift| CHARACTERS[bits >> shift & 63]);
        text.extend_from_slice(&characters[..=group.len()]);
        text.resize(text.len().next_multiple_of(4), b'=');
    }
    text
}
