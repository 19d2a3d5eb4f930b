//! The input is the text of an htpasswd file. What is taken must look like one to a naive reader; what is refused must be refused
//! for one line. No password is verified: that takes time by design.
#![no_main]

use std::collections::BTreeSet;

use adit::proto::users::{BadUser, BadUsers, Users};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    // Editors put it there.
    let lines = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    match Users::parse(text) {
        Ok(users) => {
            check(&users, lines);
            assert_eq!(Users::parse(&with_crlf(text)).as_ref(), Ok(&users), "line ends of either kind");
            assert_eq!(format!("{users:?}"), format!("Users({})", users.len()));
        }
        Err(bad) => check_error(bad, lines),
    }
});

/// Line by line: a name that nobody else has, and a hash of one of the kinds.
fn check(users: &Users, text: &[u8]) {
    let mut names = BTreeSet::new();
    for line in lines(text).map(<[u8]>::trim_ascii).filter(|line| !line.is_empty() && line[0] != b'#') {
        let parts: Vec<&[u8]> = line.split(|&byte| byte == b':').collect();
        let name = std::str::from_utf8(parts[0]).expect("names are text");
        assert!((1..=255).contains(&name.len()) && !name.contains(char::is_control), "{name:?}");
        assert!(names.insert(name), "{name:?} stands there twice");
        let hash = parts[1];
        // The shortest and the longest of each kind.
        let lengths = match hash {
            _ if hash.starts_with(b"{SHA}") => 33..=33,
            _ if hash.starts_with(b"$apr1$") => 29..=37,
            _ if hash.starts_with(b"$1$") => 26..=34,
            _ if hash.starts_with(b"$5$") => 47..=78,
            _ if hash.starts_with(b"$6$") => 90..=121,
            _ if [b"$2a$", b"$2b$", b"$2y$"].iter().any(|kind| hash.starts_with(*kind)) => 60..=60,
            _ => panic!("a hash of an unknown kind: {hash:?}"),
        };
        assert!(lengths.contains(&hash.len()), "{hash:?}");
    }
    assert_eq!(users.len(), names.len());
    assert_eq!(users.is_empty(), names.is_empty());
}

/// What stands before the line is good, and the line is as bad when it is alone.
fn check_error(bad: BadUsers, text: &[u8]) {
    assert!(!bad.why.expected().is_empty());
    let before: Vec<&[u8]> = lines(text).take(bad.line - 1).collect();
    assert_eq!(before.len(), bad.line - 1);
    // Behind an empty line, where no byte order mark is taken away.
    let parse = |lines: &[u8]| Users::parse(&[b"\n", lines].concat());
    assert!(parse(&before.join(&b'\n')).is_ok(), "{bad:?}");
    let line = lines(text).nth(bad.line - 1).expect("there is that line");
    let alone = parse(line);
    match bad.why {
        BadUser::Twice => assert_eq!(alone.map(|users| users.len()), Ok(1)),
        BadUser::TooMany | BadUser::FileTooLarge => panic!("{bad:?} of {} bytes", text.len()),
        BadUser::NoColon
        | BadUser::Name
        | BadUser::NoHash
        | BadUser::Des
        | BadUser::PlainText
        | BadUser::UnknownHash
        | BadUser::NotBuiltIn
        | BadUser::Garbled
        | BadUser::BcryptCost
        | BadUser::ShaRounds => assert_eq!(alone, Err(BadUsers { line: 2, why: bad.why })),
    }
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|&byte| byte == b'\n')
}

fn with_crlf(text: &[u8]) -> Vec<u8> {
    lines(text).collect::<Vec<_>>().join(&b"\r\n"[..])
}
