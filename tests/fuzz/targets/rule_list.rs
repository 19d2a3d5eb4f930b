//! The input is the text of a list file. Its lines are also taken one by one, as rules of options, and both must decide alike about
//! everything that stands in the list, and what is near it.
#![no_main]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use adit::proto::rules::{
    DefaultAction, Early, List, MAX_BAD_LINES, Ports, Rule, RuleSet, Rules, Service, Verdict, Who,
};
use adit::proto::target::{Host, Target};
use libfuzzer_sys::fuzz_target;

const OWN_NAMES: &str = " localhost localhost.localdomain local broadcasthost ip6-localhost ip6-loopback ip6-localnet \
    ip6-mcastprefix ip6-allnodes ip6-allrouters ip6-allhosts ";

fuzz_target!(|text: &[u8]| {
    let (list, bad) = List::parse("fuzz", text);
    let (rules, bad_lines) = naive(text);
    assert_eq!(bad.count, bad_lines.len());
    let first: Vec<usize> = bad.first.iter().map(|(line, _)| *line).collect();
    assert_eq!(first, bad_lines[..bad_lines.len().min(MAX_BAD_LINES)]);
    assert!(list.len() <= rules.len());
    let compiled = [policy(Vec::new(), Some(list.into())), policy(rules.clone(), None)];
    // Few are enough to find what is in it, and keep the fuzzer quick.
    for rule in rules.iter().take(32) {
        let asked = format!("{rule:?}");
        let Some(word) = asked.split('"').nth(1).and_then(|text| text.split(' ').next()) else { continue };
        // The first port of the rule, and two of which it may have neither.
        let ports = word.rsplit_once(':').and_then(|(_, ports)| ports.split('-').next());
        let port = ports.and_then(|port| port.parse::<u16>().ok()).unwrap_or(443);
        let host = match word.split_once(']') {
            Some((address, _)) => format!("{address}]"),
            None => word
                .trim_start_matches("*.")
                .trim_start_matches('.')
                .split(':')
                .next()
                .unwrap_or_default()
                .to_owned(),
        };
        for authority in [
            format!("{host}:{port}"),
            format!("{host}:443"),
            format!("x.{host}:80"),
            format!("x.{host}:{port}"),
            format!("x{host}:443"),
        ] {
            let Ok(target) = Target::from_authority(authority.as_bytes()) else { continue };
            let address = match target.host {
                Host::Ip(address) => address,
                Host::Name(_) => IpAddr::V4(Ipv4Addr::new(8, 8, 8, 8)),
            };
            for user in [None, Some("alice")] {
                let [one, other] = compiled.each_ref().map(|rules| decides(rules, user, &target, address));
                assert_eq!(one, other, "{authority} {user:?}");
            }
        }
    }
});

fn decides(rules: &Rules, user: Option<&str>, target: &Target, address: IpAddr) -> (bool, bool) {
    let who = Who { address: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), user };
    let early = rules.judge_name(who, target, Service::Connect);
    // Which of several rules is named is not the same: a list looks at names first, then at networks.
    let verdict = rules.judge_address(who, target, None, address, Service::Connect);
    (matches!(early, Early::Refuse(..)), matches!(verdict, Verdict::Deny(..)))
}

fn policy(deny: Vec<Rule>, list: Option<Arc<List>>) -> Rules {
    let policy = RuleSet {
        clients: Vec::new(),
        deny,
        deny_lists: list.into_iter().collect(),
        allow: vec![Rule::parse("*").expect("a rule")],
        allow_lists: Vec::new(),
        connect_ports: Ports::only(&[443]),
        http_ports: Ports::only(&[80]),
        default: DefaultAction::Allow,
    };
    Rules::new(policy, &[])
}

/// The rules that the lines stand for, and the numbers of the bad ones.
fn naive(text: &[u8]) -> (Vec<Rule>, Vec<usize>) {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let (mut rules, mut bad_lines) = (Vec::new(), Vec::new());
    for (number, line) in (1..).zip(text.split(|&byte| byte == b'\n')) {
        let mut before = b' ';
        let end = line.iter().position(|&byte| {
            let starts_comment = byte == b'#' && before.is_ascii_whitespace();
            before = byte;
            starts_comment
        });
        let end = end.unwrap_or(line.len());
        let words: Option<Vec<&str>> =
            std::str::from_utf8(&line[..end]).ok().map(|line| line.split_whitespace().collect());
        let good = match words.as_deref() {
            None => false,
            Some([]) => true,
            Some([_] | [_, "from" | "user", ..]) => {
                let rule = Rule::parse(&words.unwrap_or_default().join(" "));
                rule.map(|rule| rules.push(rule)).is_ok()
            }
            Some([address, names @ ..]) => {
                match address.split('%').next().unwrap_or_default().parse::<IpAddr>() {
                    Ok(address) => {
                        let sinks = is_sink(address);
                        let names = names.iter().filter(|name| !is_own(name));
                        // Every name is looked at, also behind a bad one.
                        names.fold(true, |good, name| {
                            let plain = name.parse::<IpAddr>().is_err()
                                && !name.contains([':', '*', '/']) && !name.starts_with('.');
                            let rule = Rule::parse(name).ok().filter(|_| sinks && plain);
                            let this = rule.is_some();
                            rules.extend(rule);
                            good && this
                        })
                    }
                    Err(_) => false,
                }
            }
        };
        if !good {
            bad_lines.push(number);
        }
    }
    (rules, bad_lines)
}

fn is_own(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let says_nothing = |address: IpAddr| is_sink(address) || address == IpAddr::V4(Ipv4Addr::BROADCAST);
    OWN_NAMES.contains(&format!(" {name} ")) || name.parse::<IpAddr>().is_ok_and(says_nothing)
}

fn is_sink(address: IpAddr) -> bool {
    let address = address.to_canonical();
    address.is_unspecified() || address.is_loopback()
}
