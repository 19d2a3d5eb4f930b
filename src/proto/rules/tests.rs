//! Tables: what each rule says, and what comes before what.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use super::*;

mod lists;
mod pairs;

const CLIENT: &str = "192.0.2.50";

fn ip(text: &str) -> IpAddr {
    text.parse().expect(text)
}

fn who(address: &str) -> Who<'static> {
    Who { address: ip(address), user: None }
}

fn target(text: &str) -> Target {
    Target::from_authority(text.as_bytes()).expect(text)
}

/// A list whose lines stand in one, apart by `;`.
fn list(label: &str, text: &str) -> Arc<List> {
    let (list, bad) = List::parse(label, text.replace(';', "\n").as_bytes());
    assert_eq!(bad, BadLines::default(), "{text}");
    Arc::new(list)
}

struct Setup {
    policy: RuleSet,
    own_listeners: Vec<SocketAddr>,
}

fn setup(rules: &[&str]) -> Setup {
    let mut policy = RuleSet {
        clients: vec![parse_net("192.0.2.0/24").unwrap(), parse_net("2001:db8::/32").unwrap()],
        deny: Vec::new(),
        deny_lists: Vec::new(),
        allow: Vec::new(),
        allow_lists: Vec::new(),
        connect_ports: Ports::only(&[443]),
        http_ports: Ports::parse("80,1024-65535").unwrap(),
        default: DefaultAction::Allow,
    };
    for rule in rules {
        match rule.split_once(' ').unwrap() {
            ("deny", rule) => policy.deny.push(Rule::parse(rule).expect(rule)),
            ("allow", rule) => policy.allow.push(Rule::parse(rule).expect(rule)),
            ("deny-file", text) => policy.deny_lists.push(list("lists/d.txt", text)),
            ("allow-file", text) => policy.allow_lists.push(list("lists/a.txt", text)),
            ("default", "deny") => policy.default = DefaultAction::Deny,
            ("port", ports) => policy.connect_ports = Ports::parse(ports).unwrap(),
            other => panic!("{other:?}"),
        }
    }
    Setup { policy, own_listeners: Vec::new() }
}

impl Setup {
    fn rules(&self) -> Rules {
        Rules::new(self.policy.clone(), &self.own_listeners)
    }

    /// `+rule` or `-rule/error_type`, and `early` in front if it was known before resolving.
    fn judge_from(&self, client: &str, asked: &str, address: &str) -> String {
        self.judge_for(Service::Connect, client, asked, address)
    }

    fn judge_for(&self, service: Service, client: &str, asked: &str, address: &str) -> String {
        self.judge_who(service, who(client), asked, address)
    }

    fn judge_who(&self, service: Service, who: Who<'_>, asked: &str, address: &str) -> String {
        let (rules, asked) = (self.rules(), target(asked));
        let verdict = rules.judge_address(who, &asked, None, ip(address), service);
        let early = match rules.judge_name(who, &asked, service) {
            Early::Refuse(refusal, rule) => {
                assert!(matches!(verdict, Verdict::Deny(_, _)), "early no, late yes: {asked} {address}");
                return format!("early -{rule}/{}", refusal.error_type());
            }
            Early::Resolve(rule) => rule.unwrap_or_default(),
        };
        if early.starts_with("allow:") || early.starts_with("allow-file:") {
            assert!(
                matches!(&verdict, Verdict::Allow(late) if *late == early)
                    || matches!(verdict, Verdict::Deny(..))
            );
        }
        match verdict {
            Verdict::Allow(rule) => format!("+{rule}"),
            Verdict::Deny(refusal, rule) => format!("-{rule}/{}", refusal.error_type()),
        }
    }

    fn judge(&self, asked: &str, address: &str) -> String {
        self.judge_from(CLIENT, asked, address)
    }
}

#[test]
fn a_completed_name_is_judged_as_well() {
    let judge = |rules: &[&str], address: &str| {
        let rules = setup(rules).rules();
        let (asked, completed) = (target("www:443"), Some("www.corp.test"));
        let verdict = rules.judge_address(who(CLIENT), &asked, completed, ip(address), Service::Connect);
        let early = rules.judge_name(who(CLIENT), &asked, Service::Connect);
        assert!(matches!(early, Early::Resolve(_)), "{early:?}");
        match verdict {
            Verdict::Allow(rule) => format!("+{rule}"),
            Verdict::Deny(_, rule) => format!("-{rule}"),
        }
    };
    assert_eq!(judge(&["deny .corp.test", "allow 10.0.0.0/8"], "10.0.0.1"), "-deny:.corp.test");
    assert_eq!(judge(&["allow .corp.test", "default deny"], "10.0.0.1"), "+allow:.corp.test");
    assert_eq!(judge(&["allow www"], "10.0.0.1"), "+allow:www");
    let listed = ["deny-file .corp.test", "allow-file www"];
    assert_eq!(judge(&listed, "10.0.0.1"), "-deny-file:lists/d.txt:.corp.test");
    let listed = ["allow-file www.corp.test", "default deny"];
    assert_eq!(judge(&listed, "10.0.0.1"), "+allow-file:lists/a.txt:www.corp.test");
    let listed = ["allow-file *.test:443", "default deny"];
    assert_eq!(judge(&listed, "10.0.0.1"), "+allow-file:lists/a.txt:*.test:443");
    assert_eq!(judge(&[], "10.0.0.1"), "-guard");
}

#[test]
fn every_step_of_the_order_and_every_pair() {
    let (denied, prohibited) = ("http_request_denied", "destination_ip_prohibited");
    let cases: &[(&[&str], &str, &str, String)] = &[
        (&[], "a.test:443", "8.8.8.8", "+default".into()),
        (&[], "a.test:443", "10.0.0.1", format!("-guard/{prohibited}")),
        (&[], "8.8.8.8:443", "8.8.8.8", "+default".into()),
        (&[], "[::1]:443", "::1", format!("-guard/{prohibited}")),
        (&[], "a.test:80", "8.8.8.8", format!("early -connect-port/{denied}")),
        (&[], "8.8.8.8:80", "8.8.8.8", format!("-connect-port/{denied}")),
        // ports before guard
        (&[], "10.0.0.1:80", "10.0.0.1", format!("-connect-port/{denied}")),
        (&["port 80"], "a.test:443", "8.8.8.8", format!("early -connect-port/{denied}")),
        // default
        (&["default deny"], "a.test:443", "8.8.8.8", format!("early -default/{denied}")),
        (&["default deny"], "8.8.8.8:443", "8.8.8.8", format!("-default/{denied}")),
        // guard before default
        (&["default deny"], "10.0.0.1:443", "10.0.0.1", format!("-guard/{prohibited}")),
        // ports before default
        (&["default deny"], "a.test:80", "8.8.8.8", format!("early -connect-port/{denied}")),
        // allow lifts ports, guard and default
        (&["allow a.test"], "a.test:80", "10.0.0.1", "+allow:a.test".into()),
        (&["allow a.test", "default deny"], "a.test:443", "8.8.8.8", "+allow:a.test".into()),
        (&["allow 10.0.0.0/8"], "a.test:80", "10.0.0.1", "+allow:10.0.0.0/8".into()),
        (&["allow 10.0.0.0/8"], "10.0.0.1:80", "10.0.0.1", "+allow:10.0.0.0/8".into()),
        // but only for what it names: just that
        (&["allow 10.0.0.0/8"], "a.test:80", "192.168.0.1", format!("-connect-port/{denied}")),
        (&["allow 10.0.0.0/8"], "a.test:443", "192.168.0.1", format!("-guard/{prohibited}")),
        (&["allow a.test:8443"], "a.test:80", "8.8.8.8", format!("early -connect-port/{denied}")),
        (&["allow a.test:8443"], "a.test:443", "10.0.0.1", format!("-guard/{prohibited}")),
        (&["allow 10.0.0.0/8", "default deny"], "a.test:443", "8.8.8.8", format!("-default/{denied}")),
        // a rule on addresses with another port cannot turn it
        (&["allow 10.0.0.0/8:22"], "a.test:80", "10.0.0.1", format!("early -connect-port/{denied}")),
        // deny before allow, whatever kind they are of
        (&["allow a.test", "deny a.test"], "a.test:443", "8.8.8.8", format!("early -deny:a.test/{denied}")),
        (
            &["allow a.test", "deny 8.0.0.0/8"],
            "a.test:443",
            "8.8.8.8",
            format!("-deny:8.0.0.0/8/{prohibited}"),
        ),
        (
            &["allow 8.0.0.0/8", "deny a.test"],
            "a.test:443",
            "8.8.8.8",
            format!("early -deny:a.test/{denied}"),
        ),
        (&["allow *", "deny .test"], "a.test:443", "8.8.8.8", format!("early -deny:.test/{denied}")),
        (&["allow *", "deny *:22"], "8.8.8.8:22", "8.8.8.8", format!("-deny:*:22/{denied}")),
        (&["allow *", "deny *:22"], "8.8.8.8:23", "8.8.8.8", "+allow:*".into()),
        // deny before ports and guard
        (&["deny a.test"], "a.test:80", "10.0.0.1", format!("early -deny:a.test/{denied}")),
        (&["deny 10.0.0.1"], "10.0.0.1:80", "10.0.0.1", format!("-deny:10.0.0.1/{prohibited}")),
        // a denied port does not need to ask DNS because of a deny on addresses
        (&["deny 10.0.0.1"], "a.test:80", "10.0.0.1", format!("early -connect-port/{denied}")),
    ];
    for (rules, asked, address, expected) in cases {
        assert_eq!(setup(rules).judge(asked, address), *expected, "{rules:?} {asked} {address}");
    }
}

#[test]
fn each_service_has_its_own_ports_and_nothing_else() {
    let (http, connect) = (Service::Http, Service::Connect);
    for (rules, service, asked, address, expected) in [
        (&[][..], http, "a.test:80", "8.8.8.8", "+default"),
        (&[], http, "a.test:8080", "8.8.8.8", "+default"),
        (&[], http, "a.test:443", "8.8.8.8", "early -http-port/http_request_denied"),
        (&[], http, "8.8.8.8:22", "8.8.8.8", "-http-port/http_request_denied"),
        (&[], connect, "a.test:80", "8.8.8.8", "early -connect-port/http_request_denied"),
        // ports before guard, guard before default
        (&[], http, "10.0.0.1:22", "10.0.0.1", "-http-port/http_request_denied"),
        (&["default deny"], http, "10.0.0.1:80", "10.0.0.1", "-guard/destination_ip_prohibited"),
        // rules speak for both
        (&["allow a.test"], http, "a.test:22", "10.0.0.1", "+allow:a.test"),
        (&["allow a.test:443"], http, "a.test:443", "8.8.8.8", "+allow:a.test:443"),
        (&["deny a.test"], http, "a.test:22", "8.8.8.8", "early -deny:a.test/http_request_denied"),
        (&["deny *:8080"], http, "a.test:8080", "8.8.8.8", "early -deny:*:8080/http_request_denied"),
    ] {
        let answer = setup(rules).judge_for(service, CLIENT, asked, address);
        assert_eq!(answer, expected, "{rules:?} {service:?} {asked} {address}");
    }
    let Early::Refuse(refusal, _) = setup(&[]).rules().judge_name(who(CLIENT), &target("a.test:22"), http)
    else {
        panic!("not refused")
    };
    assert_eq!(refusal.details(), "port 22 is not in --http-port");
}

#[test]
fn every_form_of_a_rule() {
    let all: &[(&str, &str, &str, bool)] = &[
        ("a.test", "a.test:1", "8.8.8.8", true),
        ("A.Test.", "a.test:1", "8.8.8.8", true),
        ("a.test", "A.TEST.:1", "8.8.8.8", true),
        ("a.test", "b.a.test:1", "8.8.8.8", false),
        (".a.test", "a.test:1", "8.8.8.8", true),
        (".a.test", "c.b.a.test:1", "8.8.8.8", true),
        (".a.test", "ba.test:1", "8.8.8.8", false),
        (".a.test", "a.test.b:1", "8.8.8.8", false),
        ("*.a.test", "b.a.test:1", "8.8.8.8", true),
        ("*.A.Test.", "C.b.a.test.:1", "8.8.8.8", true),
        ("*.a.test", "a.test:1", "8.8.8.8", false),
        ("*.a.test", "ba.test:1", "8.8.8.8", false),
        ("*.a.test", "b.a.test.c:1", "8.8.8.8", false),
        ("*.a.test:1-2", "b.a.test:1", "8.8.8.8", true),
        ("*.a.test:2", "b.a.test:1", "8.8.8.8", false),
        ("*.test", "8.8.8.8:1", "8.8.8.8", false),
        ("*", "8.8.8.8:1", "8.8.8.8", true),
        ("*", "a.test:65535", "8.8.8.8", true),
        ("*:80-90", "a.test:80", "8.8.8.8", true),
        ("*:80-90", "a.test:90", "8.8.8.8", true),
        ("*:80-90", "a.test:91", "8.8.8.8", false),
        ("*:80-90", "a.test:79", "8.8.8.8", false),
        ("a.test:*", "a.test:7", "8.8.8.8", true),
        ("a.test:7", "a.test:7", "8.8.8.8", true),
        ("a.test:7", "a.test:8", "8.8.8.8", false),
        ("8.8.8.8", "a.test:7", "8.8.8.8", true),
        ("8.8.8.8", "a.test:7", "8.8.8.9", false),
        ("8.8.8.8:7", "a.test:7", "8.8.8.8", true),
        ("8.8.8.8:7", "a.test:8", "8.8.8.8", false),
        ("8.0.0.0/8:7-9", "a.test:8", "8.1.2.3", true),
        ("0.0.0.0/0", "a.test:8", "8.1.2.3", true),
        ("0.0.0.0/0", "a.test:8", "2606::1", false),
        ("::/0", "a.test:8", "2606::1", true),
        ("::/0", "a.test:8", "8.8.8.8", false),
        ("2606::1", "a.test:8", "2606::1", true),
        ("2606::/16", "[2606::1]:8", "2606::1", true),
        ("[2606::1]", "a.test:8", "2606::1", true),
        ("[2606::1]:8", "a.test:8", "2606::1", true),
        ("[2606::1]:8", "a.test:9", "2606::1", false),
        ("[2606::]/16", "a.test:9", "2606::1", true),
        ("[2606::]/16:8-9", "a.test:9", "2606::1", true),
        ("[2606::]/16:8-9", "a.test:10", "2606::1", false),
        ("[2606::]/16:*", "a.test:10", "2606::1", true),
        ("::ffff:8.0.0.0/104", "a.test:10", "8.8.8.8", true),
        ("8.8.8.8", "[::ffff:8.8.8.8]:10", "::ffff:8.8.8.8", true),
        ("8.8.8.8", "a.test:10", "64:ff9b::8.8.8.8", true),
        ("8.8.8.8", "a.test:10", "2002:808:808::1", true),
    ];
    for (rule, asked, address, matches) in all {
        for (place, colon) in [("", ":"), ("-file", "-file:lists/")] {
            let (allowed, denied) = (format!("allow{place} {rule}"), format!("deny{place} {rule}"));
            let answer = setup(&[&allowed, "default deny", "port any"]).judge(asked, address);
            let allow = format!("+allow{colon}");
            assert_eq!(answer.starts_with(&allow), *matches, "{allowed} {asked} {address}: {answer}");
            let answer = setup(&[&denied, "port any"]).judge(asked, address);
            let deny = format!("-deny{colon}");
            assert_eq!(answer.contains(&deny), *matches, "{denied} {asked} {address}: {answer}");
            assert!(!answer.trim_start_matches("early ").contains(' '), "{answer}");
        }
    }
}

#[test]
fn a_wide_ipv6_allow_does_not_open_what_ipv6_carries() {
    for address in ["2002:7f00:1::1", "64:ff9b::127.0.0.1", "::127.0.0.1", "2001:0:7f00:1::f7f7:f7f7"] {
        let asked = format!("[{address}]:443");
        for rule in ["2000::/3", "::/0", "64::/16"] {
            for place in ["allow", "allow-file"] {
                let answer = setup(&[&format!("{place} {rule}")]).judge(&asked, address);
                assert!(answer.starts_with("-guard/"), "{place} {rule} {address}: {answer}");
            }
        }
        let answer = setup(&["deny-file ::/0", "allow *"]).judge(&asked, address);
        assert!(answer.starts_with("-deny-file:"), "{address}");
        assert!(setup(&["deny ::/0", "allow *"]).judge(&asked, address).starts_with("-deny:"), "{address}");
    }
    let answer = setup(&["allow 64:ff9b::/96"]).judge("[64:ff9b::7f00:1]:443", "64:ff9b::7f00:1");
    assert_eq!(answer, "+allow:64:ff9b::/96");
    let answer = setup(&["allow 127.0.0.0/8"]).judge("[64:ff9b::7f00:1]:443", "64:ff9b::7f00:1");
    assert_eq!(answer, "+allow:127.0.0.0/8");
}

#[test]
fn rules_from_a_network_speak_only_for_it() {
    for place in ["", "-file"] {
        let (deny, allow) = (
            format!("deny{place} .example.com  from 10.0.0.0/24"),
            format!("allow{place} *:22 from 2001:db8::7"),
        );
        let setup = setup(&[&deny, &allow]);
        let denies = |client: &str| {
            setup
                .judge_from(client, "a.example.com:443", "8.8.8.8")
                .ends_with(":.example.com_from_10.0.0.0/24/http_request_denied")
        };
        assert!(denies("10.0.0.9") && denies("::ffff:10.0.0.9") && !denies("10.0.1.9"));
        let allows = |client: &str| {
            setup.judge_from(client, "a.test:22", "8.8.8.8").ends_with(":*:22_from_2001:db8::7")
        };
        assert!(allows("2001:db8::7"));
        let answer = setup.judge_from("2001:db8::8", "a.test:22", "8.8.8.8");
        assert!(answer.starts_with("early -connect-port/"), "{answer}");
    }
}

#[test]
fn rules_for_a_user_speak_only_for_that_one() {
    for place in ["", "-file"] {
        let rules = [
            format!("allow{place} * user alice"),
            format!("deny{place} .x.test user mallory"),
            format!("allow{place} 10.0.0.0/8:22 user bob from 192.0.2.0/25"),
            format!("allow{place} *.y.test from 192.0.2.0/25  user carol"),
            "default deny".to_owned(),
        ];
        let setup = setup(&rules.each_ref().map(|rule| &**rule));
        let judge = |user: Option<&str>, client: &str, asked: &str, address: &str| {
            let who = Who { address: ip(client), user };
            setup.judge_who(Service::Connect, who, asked, address).replace("-file:lists/a.txt", "")
        };
        let inside = "192.0.2.1";
        assert_eq!(judge(Some("alice"), inside, "a.test:22", "10.0.0.1"), "+allow:*_user_alice");
        // To the letter, and nobody is not alice.
        for user in [None, Some("Alice"), Some("alice2"), Some("alic"), Some(""), Some("mallory")] {
            let answer = judge(user, inside, "a.test:443", "8.8.8.8");
            assert_eq!(answer, "early -default/http_request_denied", "{user:?}");
        }
        let answer = judge(Some("mallory"), inside, "w.x.test:443", "8.8.8.8");
        assert!(answer.starts_with("early -deny") && answer.contains(":.x.test_user_mallory/"), "{answer}");
        // Both conditions must hold, in either order.
        let bob = "+allow:10.0.0.0/8:22_user_bob_from_192.0.2.0/25";
        assert_eq!(judge(Some("bob"), inside, "a.test:22", "10.0.0.1"), bob);
        let carol = "+allow:*.y.test_from_192.0.2.0/25_user_carol";
        assert_eq!(judge(Some("carol"), inside, "a.y.test:443", "8.8.8.8"), carol);
        for (user, client, asked) in [
            (Some("bob"), "192.0.2.200", "a.test:22"),
            (Some("carol"), inside, "a.test:22"),
            (None, inside, "a.test:22"),
            (Some("carol"), "192.0.2.200", "a.y.test:443"),
            (Some("bob"), inside, "a.y.test:443"),
        ] {
            // The addresses may only be asked for if a rule on them speaks for this very client.
            let answer = judge(user, client, asked, "10.0.0.1");
            assert!(
                answer.contains("-connect-port/")
                    || answer.contains("-default/")
                    || answer.contains("-guard/"),
                "{user:?} {client} {asked}: {answer}"
            );
            let asks = matches!(
                setup.rules().judge_name(Who { address: ip(client), user }, &target(asked), Service::Connect),
                Early::Resolve(_)
            );
            assert!(!asks, "{user:?} {client} {asked}");
        }
    }
}

#[test]
fn rules_for_a_user_are_told_apart() {
    let setup = setup(&[
        "allow *  user alice",
        "deny a.test from 10.0.0.0/8 user bob",
        "deny a.test",
        "deny-file a.test;b.test user carol",
        "allow-file 10.0.0.0/8",
    ]);
    let all: Vec<_> = setup.policy.rules_for_a_user().map(|of| (of.user, of.rule, of.list)).collect();
    let expected = [
        ("bob", "a.test from 10.0.0.0/8 user bob", None),
        ("alice", "* user alice", None),
        ("carol", "b.test user carol", Some("lists/d.txt")),
    ];
    assert_eq!(all, expected);
}

#[test]
fn the_name_of_a_rule_is_one_word_and_bounded() {
    let name = format!("{}test", "a.".repeat(122));
    // Users have names of any script.
    let users = ["u".repeat(255), "\u{e4}".repeat(127), "a#%\"\\=,;".to_owned()];
    let from = "2001:db8:ffff:ffff:ffff:ffff:ffff:fff0/124";
    let label = format!("lists/\u{2028}\u{a0}\u{85} {}", "\u{e4} ".repeat(500));
    let mut longest = 0;
    for (destination, asked) in [
        (format!("*.{name}."), format!("b.{name}")),
        (format!(".{name}"), name.clone()),
        ("[0:0:0:0:0:ffff:8.8.8.0]/120".into(), "a.test".into()),
        ("*".into(), "a.test".into()),
    ] {
        for user in &users {
            let scope = format!("\t from   {from}  user {user}");
            for text in ["", &scope].map(|scope| format!("{destination}:10000-65535{scope}")) {
                let mut listed = setup(&[]);
                listed.policy.deny_lists.push(List::parse(&label, text.as_bytes()).0.into());
                for rules in [setup(&[&format!("deny {text}")]).rules(), listed.rules()] {
                    let who = Who { address: ip("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"), user: Some(user) };
                    let target = target(&format!("{asked}:65535"));
                    let verdict = rules.judge_address(who, &target, None, ip("8.8.8.8"), Service::Connect);
                    let Verdict::Deny(_, rule) = verdict else { panic!("{text}") };
                    assert!(rule.starts_with("deny"), "{text}: {rule}");
                    assert!(!rule.contains(|of: char| of.is_whitespace() || of.is_control()), "{rule:?}");
                    longest = longest.max(rule.len());
                }
            }
        }
    }
    // Option and label, DEST with ports, from and user.
    assert!(longest <= (10 + 128 + 1) + (255 + 12) + (6 + 43) + (6 + 255), "{longest}");
    for bad in ["a\u{7}b", "a\u{7f}", "a\u{84}b", "\u{9b}31m"] {
        assert_eq!(Rule::parse(&format!("* user {bad}")), Err(BadRule::User), "{bad:?}");
    }
}

#[test]
fn clients() {
    let rules = setup(&[]).rules();
    for (client, may) in [
        ("192.0.2.1", true),
        ("::ffff:192.0.2.1", true),
        ("192.0.3.1", false),
        ("2001:db8::1", true),
        ("2001:db9::1", false),
        ("::192.0.2.1", false),
        ("127.0.0.1", false),
    ] {
        assert_eq!(rules.client_may(ip(client)), may, "{client}");
    }
}

#[test]
fn own_listeners_are_never_dialed() {
    let mut setup = setup(&["allow *"]);
    setup.own_listeners = vec!["192.0.2.1:8080".parse().unwrap(), "[::]:3128".parse().unwrap()];
    for (address, port, own, may_be) in [
        ("192.0.2.1", 8080, true, true),
        ("::ffff:192.0.2.1", 8080, true, true),
        ("64:ff9b::192.0.2.1", 8080, true, true),
        ("192.0.2.1", 8081, false, false),
        ("192.0.2.2", 8080, false, false),
        ("127.0.0.1", 8080, false, false),
        ("127.0.0.1", 3128, true, true),
        ("127.9.9.9", 3128, true, true),
        ("0.0.0.0", 3128, true, true),
        ("::", 3128, true, true),
        ("::1", 3128, true, true),
        ("192.0.2.1", 3128, false, true),
        ("8.8.8.8", 3128, false, true),
    ] {
        let answer = setup.judge(&format!("a.test:{port}"), address);
        let expected = if own { "-guard/proxy_loop_detected" } else { "+allow:*" };
        assert_eq!(answer, expected, "{address} {port}");
        let dialed = SocketAddr::new(ip(address), port);
        assert_eq!(setup.rules().may_be_own_listener(dialed), may_be, "{dialed}");
    }
    setup.own_listeners = vec!["127.0.0.1:8080".parse().unwrap()];
    assert_eq!(setup.judge("a.test:8080", "0.0.0.0"), "-guard/proxy_loop_detected");
}

#[test]
fn bad_rules_say_what_was_expected() {
    for (rule, bad) in [
        ("", BadRule::Empty),
        ("  ", BadRule::Empty),
        ("a.test b.test", BadRule::Words),
        ("a.test from", BadRule::Words),
        ("a.test from 10.0.0.0/8 x", BadRule::Words),
        ("a.test user", BadRule::Words),
        ("a.test user alice smith", BadRule::Words),
        ("a.test user alice from", BadRule::Words),
        ("a.test user alice user bob", BadRule::Words),
        ("a.test from 10.0.0.0/8 from 11.0.0.0/8", BadRule::Words),
        ("a.test for alice", BadRule::Words),
        ("a.test USER alice", BadRule::Words),
        ("from 10.0.0.0/8", BadRule::Words),
        ("user alice from 10.0.0.0/8", BadRule::Words),
        ("a.test user a:b", BadRule::User),
        ("a.test user a\u{7}b", BadRule::User),
        ("a.test user alice from b.test", BadRule::Address),
        ("a.test from b.test", BadRule::Address),
        ("a.test from 10.0.0.1/8", BadRule::HostBits),
        ("10.0.0.1/8", BadRule::HostBits),
        ("[2001:db8::1]/32", BadRule::HostBits),
        ("10.0.0.0/33", BadRule::Prefix),
        ("10.0.0.0/", BadRule::Prefix),
        ("10.0.0.0/+8", BadRule::Prefix),
        ("10.0.0.0/999", BadRule::Prefix),
        ("::/129", BadRule::Prefix),
        ("[::1", BadRule::Address),
        ("[1.2.3.4]", BadRule::Address),
        ("[::1]443", BadRule::Address),
        ("[a.test]:1", BadRule::Address),
        ("2001:db8::1:x", BadRule::Address),
        ("a.test/8", BadRule::Address),
        ("1.2.3", BadRule::Name),
        ("2130706433", BadRule::Name),
        ("0x7f.1", BadRule::Name),
        (".", BadRule::Name),
        ("..a", BadRule::Name),
        (":443", BadRule::Name),
        ("b\u{fc}cher.test", BadRule::NotAscii),
        (".b\u{fc}cher.test", BadRule::NotAscii),
        ("*.b\u{fc}cher.test:443", BadRule::NotAscii),
        ("a\u{3002}test", BadRule::NotAscii),
        ("a%2etest", BadRule::Name),
        ("a.*.test", BadRule::Wildcard),
        ("*a.test", BadRule::Wildcard),
        ("a*", BadRule::Wildcard),
        ("a.*", BadRule::Wildcard),
        ("**", BadRule::Wildcard),
        ("*.*", BadRule::Wildcard),
        ("*.*.test", BadRule::Wildcard),
        (".*.test", BadRule::Wildcard),
        ("*.", BadRule::Name),
        ("*..test", BadRule::Name),
        ("*.1.2.3.4", BadRule::Name),
        ("a.test:", BadRule::Ports),
        ("a.test:0", BadRule::Ports),
        ("a.test:2-1", BadRule::Ports),
        ("a.test:1,2", BadRule::Ports),
        ("a.test:65536", BadRule::Ports),
        ("a.test:any", BadRule::Ports),
        ("[::1]:", BadRule::Ports),
    ] {
        assert_eq!(Rule::parse(rule), Err(bad), "{rule:?}");
        assert!(!bad.expected().is_empty());
    }
}

#[test]
fn lists_of_ports() {
    let ports = Ports::parse("443,8000-8999, 1").unwrap();
    for (port, inside) in [(443, true), (8000, true), (8999, true), (9000, false), (7999, false), (1, true)] {
        assert_eq!(ports.contain(port), inside, "{port}");
    }
    assert!(Ports::parse("any").unwrap().contain(65535));
    for bad in ["", ",", "443,", "0", "1-", "-1", "2-1", "any,1", "*", "65536", "http", "1-2-3"] {
        assert_eq!(Ports::parse(bad), Err(BadRule::Ports), "{bad:?}");
    }
}
