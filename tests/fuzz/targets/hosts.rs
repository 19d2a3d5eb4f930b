//! The input is the text of a hosts file. It is also read by a naive second reader, and both must agree.
#![no_main]

use std::collections::BTreeMap;
use std::net::IpAddr;

use adit::proto::hosts::Hosts;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    let (hosts, bad_lines) = Hosts::parse(text);
    let (expected, expected_bad) = naive(text);
    assert_eq!(bad_lines, expected_bad);
    assert_eq!(hosts.len(), expected.len());
    assert_eq!(hosts.is_empty(), expected.is_empty());
    for (name, addresses) in &expected {
        for spelling in [format!("{name}."), format!("{}.", name.to_ascii_uppercase())] {
            assert_eq!(hosts.get(&spelling), addresses, "{spelling:?}");
        }
        // A name that ends in a dot of its own (`a..` in the file) is found with one more dot only.
        assert!(name.ends_with('.') || hosts.get(name) == addresses, "{name:?}");
    }
    assert!(hosts.get("").is_empty() && hosts.get(".").is_empty());
});

/// hosts(5), word by word: the names and the numbers of the lines that are neither empty nor good.
fn naive(text: &[u8]) -> (BTreeMap<String, Vec<IpAddr>>, Vec<usize>) {
    let mut names: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
    let mut bad_lines = Vec::new();
    for (number, line) in (1..).zip(text.split(|&byte| byte == b'\n')) {
        let end = line.iter().position(|&byte| byte == b'#').unwrap_or(line.len());
        let Ok(line) = std::str::from_utf8(&line[..end]) else {
            bad_lines.push(number);
            continue;
        };
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let Some((address, words)) = words.split_first() else { continue };
        let words: Vec<&str> = words.iter().map(|word| word.strip_suffix('.').unwrap_or(word)).collect();
        let words = words.iter().filter(|word| !word.is_empty());
        match address.parse::<IpAddr>() {
            Ok(address) if words.clone().count() > 0 => {
                for word in words {
                    let known = names.entry(word.to_ascii_lowercase()).or_default();
                    if !known.contains(&address) {
                        known.push(address);
                    }
                }
            }
            Ok(_) | Err(_) => bad_lines.push(number),
        }
    }
    (names, bad_lines)
}
