//! Lists: what is read, what is left out, and that a compiled list says what a naive reader of the same lines says.
use super::super::names::{Kind, Names};
use super::super::nets::Nets;
use super::super::tier::By;
use super::*;

fn parsed(text: &[u8]) -> (List, BadLines) {
    List::parse("l", text)
}

/// What holds for this destination, as the access line has it; `-` if nothing does.
fn found(list: &List, asked: &str, address: Option<&str>) -> String {
    let target = target(&format!("{asked}:443"));
    let who = Who { address: ip(CLIENT), user: None };
    let asked = Asked { who, target: &target, completed: None, address: address.map(ip) };
    list.find(&asked, Action::Deny).map_or("-".into(), |(_, text)| text.into_owned())
}

#[test]
fn every_kind_of_line() {
    let text = b"\xef\xbb\xbf# first line of a file from Windows\r\n\
        a.test\r\n\
        \r\n\
           .b.test   # and a comment\r\n\
        *.c.test\t# behind a tab\r\n\
        D.Test.\r\n\
        10.0.0.0/8\r\n\
        192.0.2.7\r\n\
        2001:db8::/32\r\n\
        [2606::1]\r\n\
        ports.test:8000-8999\n\
        \t*:25\t\n\
        from.test from 192.0.2.0/24\n\
        user.test  user alice from 10.0.0.0/8\n\
        0.0.0.0 ads.test\n\
        127.0.0.1\ttracker.test\tUPPER.Tracker.test. # two\n\
        :: six.test\n\
        ::1 six-too.test\n\
        0.0.0.0 localhost localhost.localdomain LOCAL broadcasthost IP6-allnodes IP6-x 0.0.0.0 127.0.0.1 ::1 real.test\n\
        0.0.0.0 ip6-localhost ip6-loopback ip6-localnet ip6-mcastprefix ip6-allrouters ip6-allhosts\n\
        0.0.0.0 :: 127.0.1.1 255.255.255.255 ip6-ads.test local.test localhost6 ::ffff:127.0.0.1\n\
        255.255.255.255 broadcasthost\n\
        fe80::1%lo0 localhost\n\
        ff02::1 ip6-allnodes\n\
        last.test";
    let (list, bad) = parsed(text);
    assert_eq!(bad, BadLines::default());
    assert_eq!(list.len(), 4 + 4 + 4 + 7 + 3 + 1);
    assert!(!list.is_empty());
    for (asked, what) in [
        ("a.test", "a.test"),
        ("x.a.test", "-"),
        ("b.test", ".b.test"),
        ("y.x.b.test", ".b.test"),
        ("xb.test", "-"),
        ("c.test", "-"),
        ("x.c.test", "*.c.test"),
        ("y.x.c.test", "*.c.test"),
        ("d.test", "d.test"),
        ("from.test", "from.test from 192.0.2.0/24"),
        ("user.test", "-"),
        ("ports.test", "-"),
        ("ads.test", "ads.test"),
        ("x.ads.test", "-"),
        ("tracker.test", "tracker.test"),
        ("upper.tracker.test", "upper.tracker.test"),
        ("six.test", "six.test"),
        ("six-too.test", "six-too.test"),
        ("real.test", "real.test"),
        ("localhost", "-"),
        ("local", "-"),
        ("broadcasthost", "-"),
        ("ip6-allnodes", "-"),
        ("ip6-loopback", "-"),
        ("ip6-x", "ip6-x"),
        ("ip6-ads.test", "ip6-ads.test"),
        ("local.test", "local.test"),
        ("localhost6", "localhost6"),
        ("last.test", "last.test"),
        ("test", "-"),
    ] {
        assert_eq!(found(&list, asked, None), what, "{asked}");
    }
    for (address, what) in [
        ("10.255.255.255", "10.0.0.0/8"),
        ("11.0.0.0", "-"),
        ("192.0.2.7", "192.0.2.7"),
        ("192.0.2.8", "-"),
        ("2001:db8:ffff::1", "2001:db8::/32"),
        ("2606::1", "2606::1"),
        ("2606::2", "-"),
        ("64:ff9b::10.0.0.1", "10.0.0.0/8"),
        ("2002:c000:207::1", "192.0.2.7"),
    ] {
        assert_eq!(found(&list, "other.test", Some(address)), what, "{address}");
    }
}

#[test]
fn bad_lines_are_left_out_and_told() {
    let lines: &[(&[u8], BadRule)] = &[
        (b"two words", BadRule::Words),
        (b"a.test from", BadRule::Words),
        (b"a.test user", BadRule::Words),
        (b"a.test user alice smith", BadRule::Words),
        (b"||ads.test^", BadRule::Name),
        (b"address=/ads.test/0.0.0.0", BadRule::Address),
        (b"http://ads.test/", BadRule::Ports),
        ("b\u{fc}cher.test".as_bytes(), BadRule::NotAscii),
        (b"b\xfccher.test", BadRule::NotAscii),
        ("0.0.0.0 b\u{fc}cher.test".as_bytes(), BadRule::NotAscii),
        (b"ads.*", BadRule::Wildcard),
        (b"10.0.0.1/8", BadRule::HostBits),
        (b"2130706433", BadRule::Name),
        (b"0.0.0.0 0x7f.1", BadRule::Name),
        (b"0.0.0.0 .ads.test", BadRule::Name),
        (b"0.0.0.0 ads.test:80", BadRule::Name),
        (b"0.0.0.0 *", BadRule::Wildcard),
        (b"0.0.0.0 10.0.0.0/8", BadRule::Name),
        (b"192.0.2.1 ads.test", BadRule::Sink),
        (b"192.0.2.1 203.0.113.7", BadRule::Sink),
        (b"0.0.0.0 203.0.113.7", BadRule::AddressAsName),
        (b"0.0.0.0 2001:db8::7", BadRule::AddressAsName),
        (b"127.0.0.1 10.0.0.1 localhost", BadRule::AddressAsName),
        (b"a\0.test", BadRule::Name),
        (b"a.test:99999", BadRule::Ports),
        (b"a.test\rb.test", BadRule::Words),
        // Where no white space stands before it, it is no comment.
        (b"a.test# two", BadRule::Words),
        (b"a.test#two", BadRule::Name),
        (b"10.0.0.0/8#two", BadRule::Prefix),
        (b"0.0.0.0 a.test#two", BadRule::Name),
        (b"0.0.0.0#two a.test", BadRule::Words),
    ];
    for (line, why) in lines {
        let text = [b"good.test\n", *line, b"\nas-good.test\n"].concat();
        let (list, bad) = parsed(&text);
        assert_eq!(bad, BadLines { first: vec![(2, *why)], count: 1 }, "{:?}", String::from_utf8_lossy(line));
        assert_eq!(list.len(), 2, "{:?}", String::from_utf8_lossy(line));
        assert!(!why.expected().is_empty());
    }
    // The good names of a bad hosts line are taken.
    let (list, bad) = parsed(b"0.0.0.0 good.test b..d as-good.test");
    assert_eq!((list.len(), bad.first), (2, vec![(1, BadRule::Name)]));
    // Only the first are kept.
    let (list, bad) = parsed(&b"b..d\nok.test\n".repeat(1000));
    assert_eq!((list.len(), bad.count, bad.first.len()), (1, 1000, MAX_BAD_LINES));
    assert_eq!(bad.first.last(), Some(&(2 * MAX_BAD_LINES - 1, BadRule::Name)));
    for nothing in [&b""[..], b"\n", b"\n\n \r\n", b"# only", b"\xef\xbb\xbf", b"\xef\xbb\xbf#"] {
        let (list, bad) = parsed(nothing);
        assert!(list.is_empty() && bad == BadLines::default(), "{nothing:?}");
        assert_eq!(found(&list, "a.test", Some("8.8.8.8")), "-");
    }
    // UTF-16, as an editor may write it: nothing holds, and nothing panics.
    let (list, bad) = parsed(&"a.test\nb.test".encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>());
    assert_eq!((list.len(), bad.count), (0, 2));
}

#[test]
fn a_number_sign_inside_a_word_is_no_comment() {
    let (list, bad) =
        parsed(b"* user bob#1\n.a.test user #carol\n.b.test user dave # user erin\n\t#.c.test\n");
    assert_eq!((list.len(), bad.first), (2, vec![(2, BadRule::Words)]));
    let found = |user: &str, asked: &str| {
        let target = target(asked);
        let who = Who { address: ip(CLIENT), user: Some(user) };
        let asked = Asked { who, target: &target, completed: None, address: None };
        list.find(&asked, Action::Deny).map_or("-".into(), |(_, text)| text.into_owned())
    };
    assert_eq!(found("bob#1", "x.test:1"), "* user bob#1");
    assert_eq!(found("bob", "x.test:1"), "-");
    assert_eq!(found("dave", "b.test:1"), ".b.test user dave");
}

#[test]
fn where_it_stands_is_told_without_telling_all_to_clients() {
    let long = format!("/{}/ads.txt", "\u{e4}".repeat(200));
    for (label, in_line, in_answer) in [
        ("ads.txt", "deny-file:ads.txt:.a.test", "--deny-file ads.txt (.a.test)"),
        (
            "/etc/my lists/ads\t1.txt",
            "deny-file:/etc/my_lists/ads_1.txt:.a.test",
            "--deny-file ads_1.txt (.a.test)",
        ),
        (&long, "", "--deny-file ads.txt (.a.test)"),
        ("", "deny-file::.a.test", "--deny-file  (.a.test)"),
    ] {
        let mut setup = setup(&[]);
        setup.policy.deny_lists.push(super::list(label, ".a.test;10.0.0.0/8;*:22 from 192.0.2.0/24"));
        let rules = setup.rules();
        let Early::Refuse(refusal, rule) =
            rules.judge_name(who(CLIENT), &target("w.a.test:443"), Service::Connect)
        else {
            panic!("{label}");
        };
        assert!(in_line.is_empty() || rule == in_line, "{rule}");
        assert!(rule.len() < 160 && !rule.contains(char::is_whitespace), "{rule}");
        assert_eq!(refusal.details(), format!("{in_answer} names this destination"));
        assert!(!refusal.details().contains("/etc"));
        let verdict =
            rules.judge_address(who(CLIENT), &target("b.test:443"), None, ip("10.1.1.1"), Service::Connect);
        let Verdict::Deny(refusal, rule) = verdict else { panic!("{verdict:?}") };
        assert!(rule.ends_with(":10.0.0.0/8"), "{rule}");
        let in_answer = in_answer.replace(".a.test", "10.0.0.0/8");
        assert_eq!(refusal.details(), format!("{in_answer} holds the destination's address"));
        let verdict =
            rules.judge_address(who(CLIENT), &target("b.test:22"), None, ip("8.8.8.8"), Service::Connect);
        let Verdict::Deny(_, rule) = verdict else { panic!("{verdict:?}") };
        assert!(rule.ends_with(":*:22_from_192.0.2.0/24"), "{rule}");
    }
}

#[test]
fn a_list_of_networks_lets_the_addresses_decide() {
    // With a network in it, a list keeps a name from being refused before its addresses are known.
    let rules = setup(&["allow-file 10.0.0.0/8", "default deny"]).rules();
    let early = |asked: &str| rules.judge_name(who(CLIENT), &target(asked), Service::Connect);
    assert_eq!(early("a.test:443"), Early::Resolve(None));
    assert_eq!(early("a.test:80"), Early::Resolve(None));
    // Names of a list matter only to a word that the search list may complete.
    let rules = setup(&["allow-file a.test;b.test:80", "default deny"]).rules();
    let early = |asked: &str| rules.judge_name(who(CLIENT), &target(asked), Service::Connect);
    assert!(matches!(early("c.test:443"), Early::Refuse(..)));
    assert_eq!(early("a:443"), Early::Resolve(None));
    assert!(matches!(early("a.test:443"), Early::Resolve(Some(_))));
    // A rule of a list that has nothing to say about this port does not count.
    let rules = setup(&["allow-file 10.0.0.0/8:22;b.test:80", "default deny"]).rules();
    let early = |asked: &str| rules.judge_name(who(CLIENT), &target(asked), Service::Connect);
    assert!(matches!(early("c.test:443"), Early::Refuse(..)));
    assert!(matches!(early("c.test:22"), Early::Resolve(None)));
    assert!(matches!(early("c:443"), Early::Refuse(..)));
    assert!(matches!(early("c:80"), Early::Resolve(None)));
}

/// xorshift64: the same cases each time.
struct Draw(u64);

impl Draw {
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % most
    }

    fn one_of<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }

    /// Of few labels, so that names are each other's ends, beginnings and middles.
    fn name(&mut self) -> String {
        let labels = 1 + self.below(5);
        let labels: Vec<&str> =
            (0..labels).map(|_| self.one_of(&["a", "b", "ab", "ba", "a-b", "x0"])).collect();
        labels.join(".")
    }

    fn v4(&mut self) -> u32 {
        // Near each other, and at the ends of what networks there may be.
        let base = [0x0A00_0000, 0x0800_0000, 0x7F00_0000, 0xC000_0200][self.below(4)];
        base | [0, 1, 0xFF, 0x100, 0x1FF, 0xFFFF, 0xFF_FFFF][self.below(7)] ^ self.below(4) as u32
    }

    fn address(&mut self) -> IpAddr {
        use std::net::{Ipv4Addr, Ipv6Addr};
        let (v4, other) = (self.v4(), self.v4());
        let v6 = |high: u128, v4: u32| IpAddr::V6(Ipv6Addr::from_bits(high | u128::from(v4)));
        match self.below(9) {
            0..=2 => IpAddr::V4(Ipv4Addr::from_bits(v4)),
            3 => v6(0x64_ff9b << 96, v4),
            4 => v6((0x2002 << 112) | (u128::from(v4) << 80), 1),
            5 => v6((0x2001_0000 << 96) | (u128::from(other) << 64), !v4),
            6 => v6(0, v4 & 3),
            7 => v6(0xffff_0000 << 32, v4),
            _ => v6(0x2001_0db8 << 96, v4),
        }
    }

    fn net(&mut self) -> Net {
        let address = self.address();
        match address {
            IpAddr::V4(v4) => Net::around_v4(v4, self.below(33) as u8),
            IpAddr::V6(v6) => {
                let bits = [0, 1, 3, 16, 20, 32, 64, 90, 96, 97, 100, 127, 128][self.below(13)];
                let mask = if bits == 0 { 0 } else { u128::MAX << (128 - bits) };
                Net::new(IpAddr::V6((v6.to_bits() & mask).into()), bits as u8).unwrap()
            }
        }
    }

    /// A line, and the same as rules.
    fn line(&mut self) -> (String, Vec<String>) {
        let destination = match self.below(8) {
            0..=1 => self.name(),
            2 => format!(".{}", self.name()),
            3 => format!("*.{}", self.name()),
            4..=5 => self.net().to_string(),
            6 if self.below(20) == 0 => "*".to_owned(),
            _ => {
                let names: Vec<String> = (0..1 + self.below(3)).map(|_| self.name()).collect();
                let sink = self.one_of(&["0.0.0.0", "127.0.0.1", "::", "::1"]);
                return (format!("{sink} {}", names.join(" ")), names);
            }
        };
        let mut destination = destination;
        let ports = match self.below(3) {
            0 => self.one_of(&[":443", ":1-80", ":*", ":1-65535", ":80"]).to_owned(),
            // More ranges than a list keeps apart.
            1 if self.below(2) == 0 => format!(":{}-{}", 1 + self.below(443), 443 + self.below(9)),
            _ => String::new(),
        };
        if !ports.is_empty() && destination.contains(':') {
            let (address, bits) = destination.split_at(destination.find('/').unwrap_or(destination.len()));
            destination = format!("[{address}]{bits}");
        }
        let scope = self.one_of(&[
            "",
            "",
            "",
            "",
            "",
            " from 192.0.2.0/25",
            " user alice",
            " user bob from 192.0.2.0/24",
        ]);
        let rule = format!("{destination}{ports}{scope}");
        (rule.clone(), vec![rule])
    }
}

/// Whether a rule holds, read from its text in the plainest way. Only addresses are left to [`Net`].
fn naive(
    rule: &str,
    who: Who<'_>,
    names: &[&str],
    port: u16,
    address: Option<IpAddr>,
    action: Action,
) -> bool {
    let mut words = rule.split(' ');
    let destination = words.next().unwrap();
    while let Some(word) = words.next() {
        let value = words.next().unwrap();
        let speaks = match word {
            "from" => parse_net(value).unwrap().contains(who.address),
            _ => who.user == Some(value),
        };
        if !speaks {
            return false;
        }
    }
    let unbracketed = destination.replace(['[', ']'], "");
    let (destination, ports) = match destination.matches(':').count() {
        _ if destination.starts_with('[') => unbracketed.rsplit_once(':').unwrap(),
        1 => destination.split_once(':').unwrap(),
        _ => (destination, "*"),
    };
    let ports = if ports == "*" { "1-65535" } else { ports };
    let (low, high) = ports.split_once('-').unwrap_or((ports, ports));
    if !(low.parse::<u16>().unwrap()..=high.parse().unwrap()).contains(&port) {
        return false;
    }
    if destination == "*" {
        return true;
    }
    if let Ok(net) = parse_net(destination) {
        let Some(address) = address else { return false };
        let v4 = |v4| net.contains(IpAddr::V4(v4));
        return match (carried(address), action) {
            (None, _) => net.contains(address),
            (Some(inside), Action::Deny) => net.contains(address) || v4(inside.endpoint) || v4(inside.helper),
            (Some(inside), Action::Allow) => {
                v4(inside.endpoint) && v4(inside.helper) || net.contains(address) && net.lies_in(&inside.form)
            }
        };
    }
    let labels = |name: &str| name.split('.').map(str::to_owned).collect::<Vec<_>>();
    names.iter().any(|name| {
        let name = labels(name);
        if let Some(domain) = destination.strip_prefix("*.") {
            return name.len() > labels(domain).len() && name.ends_with(&labels(domain));
        }
        match destination.strip_prefix('.') {
            Some(domain) => name.ends_with(&labels(domain)),
            None => name == labels(destination),
        }
    })
}

#[test]
fn compiled_lists_agree_with_a_naive_matcher() {
    let mut draw = Draw(0x9E37_79B9_7F4A_7C15);
    let (mut cases, mut matches, mut too_many_ranges) = (0, [0; 4], 0);
    for round in 0..600 {
        let most = [1, 2, 4, 8, 40, 200][round % 6];
        let lines: Vec<(String, Vec<String>)> = (0..1 + draw.below(most)).map(|_| draw.line()).collect();
        let text: String = lines.iter().map(|(line, _)| format!("{line}\r\n")).collect();
        let (list, bad) = List::parse("l", text.as_bytes());
        assert_eq!(bad, BadLines::default(), "{text}");
        too_many_ranges += usize::from(list.out_of_ranges() > 0);
        let rules: Vec<&String> = lines.iter().flat_map(|(_, rules)| rules).collect();
        let compiled: Vec<Rule> = rules.iter().map(|rule| Rule::parse(rule).unwrap()).collect();
        for _ in 0..100 {
            let (name, other) = (draw.name(), draw.name());
            let address = (draw.below(4) > 0).then(|| draw.address().to_canonical());
            let user = [None, Some("alice"), Some("bob")][draw.below(3)];
            let who = Who { address: ip(draw.one_of(&["192.0.2.1", "192.0.2.200", "10.0.0.1"])), user };
            let port = [443, 80, 22][draw.below(3)];
            let host = match address {
                Some(address) if draw.below(4) == 0 => Host::Ip(address),
                Some(_) | None => Host::Name(name.clone().into()),
            };
            let completed = (matches!(host, Host::Name(_)) && draw.below(3) == 0).then_some(&*other);
            let names: Vec<&str> = match host {
                Host::Name(_) => Some(&*name).into_iter().chain(completed).collect(),
                Host::Ip(_) => Vec::new(),
            };
            let target = Target { host, port, is_absolute: false };
            let asked = Asked { who, target: &target, completed, address };
            for action in [Action::Deny, Action::Allow] {
                let naive = |rule: &&&String| naive(rule, who, &names, port, address, action);
                let expected = rules.iter().find(naive);
                let got = list.find(&asked, action);
                let case = || format!("{action:?} {asked:?} got {got:?}, expected {expected:?} of:\n{text}");
                assert_eq!(got.is_some(), expected.is_some(), "{}", case());
                // What is told holds by itself, and a rule of the options says the same.
                if let Some((by, said)) = &got {
                    assert_eq!(Rule::parse(said).unwrap().matches(&asked, action), Some(*by), "{}", case());
                    matches[usize::from(*by == By::Name) + 2 * usize::from(action == Action::Deny)] += 1;
                }
                let one_by_one = compiled.iter().any(|rule| rule.matches(&asked, action).is_some());
                assert_eq!(one_by_one, expected.is_some(), "{}", case());
                cases += 1;
            }
        }
    }
    assert!(too_many_ranges > 10, "{too_many_ranges}");
    assert!(cases >= 100_000 && matches.iter().all(|&count| count > 4_000), "{cases} {matches:?}");
}

#[test]
fn many_names_take_at_most_ten_bytes_each_and_none_is_lost() {
    for count in [1, 2, 3, 7, 8, 9, 31, 32, 33, 1000, 32_767, 200_000] {
        let name = |n: usize| format!("host-{n}.zone{}.example", n % 977);
        let text: String = (0..count).map(|n| format!("0.0.0.0 {}\n", name(n))).collect();
        let (list, bad) = List::parse("many", text.as_bytes());
        assert_eq!((list.len(), bad.count), (count, 0));
        assert!(count < 1000 || list.bytes() <= 10 * count, "{count}: {} bytes", list.bytes());
        for n in (0..count).step_by(1 + count / 5000) {
            assert_eq!(found(&list, &name(n), None), name(n));
            assert_eq!(found(&list, &format!("x.{}", name(n)), None), "-");
            assert_eq!(found(&list, &format!("{}x", name(n)), None), "-");
        }
    }
    // What is there twice, takes its place once.
    let (list, _) = List::parse("twice", &b"0.0.0.0 a.test\n::1 A.TEST.\na.test\n.a.test\n".repeat(50_000));
    assert_eq!(list.len(), 2);
    assert!(list.bytes() < 1000, "{}", list.bytes());
}

#[test]
fn many_networks_are_kept_once_and_none_is_lost() {
    let mut text = String::new();
    for n in 0..100_000_u32 {
        text += &format!("{}\n", std::net::Ipv4Addr::from_bits(0x0B00_0000 + n * 7));
    }
    let (list, _) = List::parse("nets", text.as_bytes());
    assert_eq!(list.len(), 100_000);
    assert!(list.bytes() <= 9 * 100_000, "{}", list.bytes());
    for n in (0..100_000).step_by(97) {
        let address = |offset: u32| std::net::Ipv4Addr::from_bits(0x0B00_0000 + n * 7 + offset).to_string();
        assert_eq!(found(&list, "a.test", Some(&address(0))), address(0));
        assert_eq!(found(&list, "a.test", Some(&address(1))), "-");
        assert_eq!(found(&list, "a.test", Some(&address(6))), "-");
    }
    // Inside another one: needless, but for those that an allow may need beside a wider one.
    let mut nets = Nets::default();
    for net in [
        "10.0.0.0/8",
        "10.0.0.0/9",
        "10.1.2.3",
        "11.0.0.0/8",
        "10.0.0.0/8",
        "0.0.0.0/32",
        "255.255.255.255",
        "::/0",
        "2001:db8::/32",
        "2002::/16",
        "2002:a00::/24",
        "::1",
        "::ffff:10.9.0.0/112",
    ] {
        nets.insert(parse_net(net).unwrap());
    }
    nets.seal();
    assert_eq!(nets.len(), 4 + 1 + 2);
    assert_eq!(nets.find(ip("2002:a00:1::1"), Action::Allow).unwrap().to_string(), "10.0.0.0/8");
    assert_eq!(nets.find(ip("2002:c00:1::1"), Action::Allow).unwrap().to_string(), "2002::/16");
    assert_eq!(nets.find(ip("64:ff9b::1"), Action::Allow), None);
    assert_eq!(nets.find(ip("64:ff9b::1"), Action::Deny).unwrap().to_string(), "::/0");
    assert_eq!(nets.find(ip("255.255.255.255"), Action::Deny).unwrap().to_string(), "255.255.255.255");
    assert_eq!(nets.find(ip("255.255.255.254"), Action::Deny), None);
}

#[test]
fn long_names_cost_no_more_than_the_longest_of_the_list() {
    let mut names = Names::default();
    names.insert("a.b.c", Kind::Domain, 3);
    names.seal();
    let deep = format!("{}a.b.c", "x.".repeat(120));
    assert_eq!(names.find(&deep, 1 << 3), Some((Kind::Domain, 240, 3)));
    assert_eq!(names.find(&deep, !(1 << 3)), None);
    assert_eq!(names.find(&"x.".repeat(126)[..251], !0), None);
    assert_eq!(names.find("", !0), None);
    assert_eq!(Names::default().find("a.b.c", !0), None);
}

#[test]
fn names_of_every_length_are_found_by_every_suffix() {
    // Around the ends of what is hashed at once, and where labels begin there.
    for labels in 1..=127 {
        for label in ["a", "bc", "defg"] {
            let name = vec![label; labels].join(".");
            let name = &name[name.len().saturating_sub(253)..];
            let name = name.trim_start_matches('.');
            let mut names = Names::default();
            names.insert(name, Kind::Domain, 0);
            names.insert(&name.replace(label, "zz"), Kind::Domain, 15);
            names.seal();
            for front in ["", "x.", "x.y.z.x-y-z.0123456789."] {
                let asked = [front, name].concat();
                assert_eq!(names.find(&asked, 1), Some((Kind::Domain, front.len(), 0)), "{asked}");
                assert_eq!(names.find(&asked, !1), None, "{asked}");
            }
            assert_eq!(names.find(&format!("x{name}"), 1), None, "{name}");
            assert_eq!(names.find(&format!("{name}x"), 1), None, "{name}");
        }
    }
}

#[test]
fn names_and_networks_with_ports_are_found_as_quickly() {
    let text: String = (0..200_000)
        .map(|n| match n % 4 {
            0 => format!("host{n}.test:443\n"),
            1 => format!(".host{n}.test:{}\n", 8000 + n % 13),
            2 => format!("{}:443\n", std::net::Ipv4Addr::from_bits(0x0B00_0000 + n)),
            _ => format!("[2606::{:x}:{:x}]:1-1023\n", n >> 16, n & 0xFFFF),
        })
        .collect();
    let (list, bad) = List::parse("ports", text.as_bytes());
    assert_eq!((list.len(), bad.count, list.one_by_one()), (200_000, 0, 0));
    assert!(list.bytes() <= 12 * 200_000, "{}", list.bytes());
    let found = |asked: &str, address: &str| {
        let target = target(asked);
        let who = Who { address: ip(CLIENT), user: None };
        let asked = Asked { who, target: &target, completed: None, address: Some(ip(address)) };
        list.find(&asked, Action::Deny).map_or("-".into(), |(_, text)| text.into_owned())
    };
    for (asked, address, what) in [
        ("host0.test:443", "8.8.8.8", "host0.test:443"),
        ("host0.test:444", "8.8.8.8", "-"),
        ("x.host0.test:443", "8.8.8.8", "-"),
        ("x.host1.test:8001", "8.8.8.8", ".host1.test:8001"),
        ("x.host1.test:8002", "8.8.8.8", "-"),
        ("a.test:443", "11.0.0.2", "11.0.0.2:443"),
        ("a.test:80", "11.0.0.2", "-"),
        ("a.test:443", "11.0.0.3", "-"),
        ("a.test:80", "2606::3", "[2606::3]:1-1023"),
        ("a.test:1024", "2606::3", "-"),
        ("a.test:80", "2606::2", "-"),
    ] {
        assert_eq!(found(asked, address), what, "{asked} {address}");
    }
    // Each name alone, as well.
    let text: String = (0..100_000).map(|n| format!("ads{n}.net{}.test:443\n", n % 991)).collect();
    let (list, _) = List::parse("names", text.as_bytes());
    assert!(list.len() == 100_000 && list.bytes() <= 10 * 100_000, "{}", list.bytes());
}

#[test]
fn ranges_of_ports_have_a_ceiling_and_what_is_above_it_is_told() {
    let text: String =
        (1..=100).map(|n| format!("a{n}.test:{n}\n10.0.0.{n}:{n}-200\nb.test user u{n}\n")).collect();
    let (list, bad) = List::parse("l", text.as_bytes());
    assert_eq!((list.len(), bad.count), (300, 0));
    assert_eq!(
        (list.out_of_ranges(), list.one_by_one()),
        (200 - MAX_LIST_RANGES + 1, 300 - MAX_LIST_RANGES + 1)
    );
    for n in 1..=100 {
        let what = format!("a{n}.test:{n}");
        let target = target(&what);
        let who = Who { address: ip(CLIENT), user: None };
        let asked = Asked { who, target: &target, completed: None, address: None };
        assert_eq!(list.find(&asked, Action::Allow).unwrap().1, what);
    }
    // Without ports there is always room.
    let (list, _) = List::parse("l", format!("{text}0.0.0.0 c.test\nd.test\n").as_bytes());
    assert_eq!((list.out_of_ranges(), found(&list, "c.test", None)), (185, "c.test".into()));
    // Texts count.
    let (list, _) = List::parse("l", format!("* user {}\n", "u".repeat(200)).repeat(100).as_bytes());
    assert!(list.bytes() > 100 * 400, "{}", list.bytes());
}

#[test]
fn any_order_of_lines_makes_the_same_list() {
    let mut draw = Draw(7);
    for length in 0..40 {
        let items: Vec<usize> = (0..length).map(|_| draw.below(20)).collect();
        let (mut sorted, mut ours) = (items.clone(), items);
        sorted.sort_unstable();
        super::super::sort::sort(&mut ours);
        assert_eq!(ours, sorted);
    }
}

#[test]
fn no_cut_and_no_flipped_byte_panics() {
    let valid = b"\xef\xbb\xbf0.0.0.0 a.b.test c\r\n[2001:db8::]/32:443 from 10.0.0.0/8 user x\n*.c.test:1-2 # y\n::1 d";
    for end in 0..valid.len() {
        drop(parsed(&valid[..end]));
    }
    for at in 0..valid.len() {
        for byte in 0..=255 {
            let mut text = valid.to_vec();
            text[at] = byte;
            let (list, bad) = parsed(&text);
            assert!(bad.count >= bad.first.len());
            let _ = found(&list, "a.b.test", Some("2001:db8::1"));
        }
    }
}
