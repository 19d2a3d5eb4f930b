//! The input is the text of a `resolv.conf`.
#![no_main]

use std::fmt::Write;

use adit::proto::resolv_conf::ResolvConf;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    let conf = parse(text);
    check(&conf, text);
    assert_eq!(parse(&with_crlf(text)), conf, "line ends of either kind");
    let mut again = parse(rendered(&conf).as_bytes());
    assert!(again.bad_lines.is_empty(), "{again:?}");
    again.bad_lines.clone_from(&conf.bad_lines);
    assert_eq!(again, conf, "what was understood can be written down");
});

fn parse(text: &[u8]) -> ResolvConf {
    ResolvConf::parse(text, &|zone| {
        assert!(zone.parse::<u32>().is_err(), "a number needs no look-up");
        (zone == "eth0").then_some(7)
    })
}

/// resolv.conf(5) and the caps of glibc.
fn check(conf: &ResolvConf, text: &[u8]) {
    assert!(conf.nameservers.len() <= 8);
    for (index, server) in conf.nameservers.iter().enumerate() {
        assert_eq!(server.port(), 53);
        assert!(!conf.nameservers[..index].contains(server), "{server} stands there twice");
    }
    assert!(conf.search.len() <= 6);
    for domain in &conf.search {
        assert!(!domain.is_empty(), "a domain of dots is none");
        assert!(!domain.ends_with('.') && !domain.contains(|c: char| c.is_ascii_whitespace()), "{domain:?}");
        assert!(!domain.bytes().any(|byte| byte.is_ascii_uppercase()), "{domain:?}");
    }
    assert!(conf.ndots <= 15);
    assert!((1_000..=30_000).contains(&conf.timeout_ms) && conf.timeout_ms.is_multiple_of(1_000));
    assert!((1..=5).contains(&conf.attempts));
    let lines = text.split(|&byte| byte == b'\n').count();
    assert!(conf.bad_lines.is_sorted_by(|a, b| a < b), "each line once, in order");
    assert!(conf.bad_lines.iter().all(|line| (1..=lines).contains(line)));
}

fn with_crlf(text: &[u8]) -> Vec<u8> {
    text.split(|&byte| byte == b'\n').collect::<Vec<_>>().join(&b"\r\n"[..])
}

/// The settings as a file that says the same.
fn rendered(conf: &ResolvConf) -> String {
    let mut text = String::new();
    for server in &conf.nameservers {
        let zone = match server {
            std::net::SocketAddr::V6(v6) if v6.scope_id() != 0 => format!("%{}", v6.scope_id()),
            std::net::SocketAddr::V4(_) | std::net::SocketAddr::V6(_) => String::new(),
        };
        let _ = writeln!(text, "nameserver {}{zone}", server.ip());
    }
    let _ = writeln!(text, "search {}", conf.search.join(" "));
    let (ndots, timeout_s, attempts) = (conf.ndots, conf.timeout_ms / 1_000, conf.attempts);
    let rotate = if conf.rotate { " rotate" } else { "" };
    let _ = writeln!(text, "options ndots:{ndots} timeout:{timeout_s} attempts:{attempts}{rotate}");
    text
}
