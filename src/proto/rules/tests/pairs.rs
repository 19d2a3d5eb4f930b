//! Every form of a deny beside every form of an allow, each as an option and in a list: who decides follows from which of them
//! hold, and from nothing else.
use super::*;

/// What is asked in all of these: by alice, from [`CLIENT`].
const ASKED: &str = "w.a.test:443";
const ADDRESS: &str = "8.8.8.8";

/// A DEST, and whether it holds for what is asked; by its name if so said.
const DESTINATIONS: [(&str, Option<&str>); 10] = [
    ("*", Some("name")),
    ("W.A.TEST.", Some("name")),
    (".a.test", Some("name")),
    ("*.a.test", Some("name")),
    ("a.test", None),
    ("*.w.a.test", None),
    ("8.8.8.8", Some("address")),
    ("8.0.0.0/8", Some("address")),
    ("8.8.4.0/24", None),
    ("2001:db8::/32", None),
];
const PORTS: [(&str, bool); 3] = [("", true), (":400-443", true), (":444", false)];
const SCOPES: [(&str, bool); 6] = [
    ("", true),
    (" from 192.0.2.0/24", true),
    (" from 198.51.100.0/24", false),
    (" user alice", true),
    (" from 192.0.2.50 user alice", true),
    (" user bob from 192.0.2.50", false),
];

struct Form {
    option: String,
    /// Its name in the access line.
    name: String,
    rules: RuleSet,
    holds: Option<&'static str>,
    /// It is about addresses, and may hold for one of them.
    may_hold: bool,
}

/// All forms, each as an option and as the only line of a list.
fn forms(action: &str) -> Vec<Form> {
    let mut forms = Vec::new();
    for (destination, holds) in DESTINATIONS {
        for (ports, ports_hold) in PORTS {
            if destination.matches(':').count() > 1 && !ports.is_empty() {
                continue;
            }
            for (scope, scope_holds) in SCOPES {
                for place in ["", "-file"] {
                    let option = format!("{action}{place} {destination}{ports}{scope}");
                    let rules = setup(&[&option]).policy;
                    let label = match (place, action) {
                        ("", _) => "",
                        (_, "deny") => "lists/d.txt:",
                        (_, _) => "lists/a.txt:",
                    };
                    let mut text = format!("{destination}{ports}{scope}").replace(' ', "_");
                    if scope.is_empty() && !place.is_empty() {
                        // Lists do not keep how a name was written.
                        text = text.replace("W.A.TEST.", "w.a.test");
                    }
                    let name = format!("{action}{place}:{label}{text}");
                    forms.push(Form {
                        option,
                        name,
                        rules,
                        holds: holds.filter(|_| ports_hold && scope_holds),
                        may_hold: parse_net(destination).is_ok() && ports_hold && scope_holds,
                    });
                }
            }
        }
    }
    forms
}

#[test]
fn every_pair_of_a_deny_and_an_allow() {
    let (denies, allows) = (forms("deny"), forms("allow"));
    let (asked, who) = (target(ASKED), Who { address: ip(CLIENT), user: Some("alice") });
    let mut rules = setup(&["default deny"]);
    for deny in &denies {
        (rules.policy.deny, rules.policy.deny_lists) =
            (deny.rules.deny.clone(), deny.rules.deny_lists.clone());
        for allow in &allows {
            rules.policy.allow = allow.rules.allow.clone();
            rules.policy.allow_lists = allow.rules.allow_lists.clone();
            let rules = rules.rules();
            let (expected, error_type) = match (deny.holds, allow.holds) {
                (Some("name"), _) => (format!("-{}", deny.name), "http_request_denied"),
                (Some(_), _) => (format!("-{}", deny.name), "destination_ip_prohibited"),
                (None, Some(_)) => (format!("+{}", allow.name), ""),
                (None, None) => ("-default".to_owned(), "http_request_denied"),
            };
            let got = match rules.judge_address(who, &asked, None, ip(ADDRESS), Service::Connect) {
                Verdict::Allow(rule) => (format!("+{rule}"), ""),
                Verdict::Deny(refusal, rule) => (format!("-{rule}"), refusal.error_type()),
            };
            let case = || format!("{:?} {:?}", deny.option, allow.option);
            assert_eq!(got, (expected, error_type), "{}", case());
            // The early answer is the late one, or leaves it open. It is open only for a rule on addresses that may hold.
            match rules.judge_name(who, &asked, Service::Connect) {
                Early::Refuse(_, rule) => {
                    // Where all is refused anyway, nobody asks which addresses there are.
                    let anyway = rule == "default" && got.0.starts_with('-');
                    assert!(anyway || format!("-{rule}") == got.0, "{} {rule}", case());
                }
                Early::Resolve(Some(rule)) => {
                    assert!(allow.holds == Some("name") && rule == allow.name, "{} {rule}", case());
                    assert!(deny.holds != Some("name"), "{}", case());
                }
                Early::Resolve(None) => {
                    assert!(allow.may_hold && deny.holds != Some("name"), "{}", case());
                }
            }
        }
    }
    assert!(denies.len() > 300, "{}", denies.len());
}

#[test]
fn options_come_before_lists_and_lists_in_their_order() {
    let decides = |rules: &[&str]| {
        let setup = setup(rules);
        let mut policy = setup.policy.clone();
        // Tell the lists apart.
        for (place, lists) in [("d", &mut policy.deny_lists), ("a", &mut policy.allow_lists)] {
            for (nth, list) in lists.iter_mut().enumerate() {
                let text =
                    rules.iter().filter(|rule| rule.contains("-file ") && rule.starts_with(place)).nth(nth);
                let (_, text) = text.unwrap().split_once(' ').unwrap();
                *list = super::list(&format!("{place}{nth}"), text);
            }
        }
        Setup { policy, own_listeners: Vec::new() }.judge("w.a.test:443", "8.8.8.8")
    };
    for (rules, expected) in [
        // An option first, whatever it is about.
        (&["deny-file w.a.test", "deny .test"][..], "early -deny:.test/http_request_denied"),
        // (But names are judged before there is an address.)
        (&["deny-file w.a.test", "deny 8.8.8.8"], "early -deny-file:d0:w.a.test/http_request_denied"),
        (&["allow-file w.a.test", "allow *"], "+allow:*"),
        (&["allow-file 8.8.8.8", "allow 8.8.8.0/24"], "+allow:8.8.8.0/24"),
        (&["deny-file 8.8.8.8", "deny 8.8.8.0/24"], "-deny:8.8.8.0/24/destination_ip_prohibited"),
        // Then the lists as they stand.
        (&["deny-file .test", "deny-file w.a.test"], "early -deny-file:d0:.test/http_request_denied"),
        (&["deny-file b.test", "deny-file w.a.test"], "early -deny-file:d1:w.a.test/http_request_denied"),
        (
            &["deny-file 8.8.8.0/24", "deny-file 8.8.8.8"],
            "-deny-file:d0:8.8.8.0/24/destination_ip_prohibited",
        ),
        (&["allow-file b.test", "allow-file .test", "allow-file *"], "+allow-file:a1:.test"),
        // In a list: names, the shortest first; networks; what has a client or a user, and *.
        (
            &["deny-file *:443;8.8.8.8;w.a.test;.a.test;*.test"],
            "early -deny-file:d0:*.test/http_request_denied",
        ),
        // Ports do not come behind: of networks those without one, of names still the shortest.
        (&["deny-file 8.8.8.0/24:443;8.8.8.8"], "-deny-file:d0:8.8.8.8/destination_ip_prohibited"),
        (&["deny-file 8.8.8.8:443;8.8.8.0/24:80"], "-deny-file:d0:8.8.8.8:443/destination_ip_prohibited"),
        (&["deny-file *:443;w.a.test;.test:443"], "early -deny-file:d0:.test:443/http_request_denied"),
        (&["deny-file *:443;.test:444"], "early -deny-file:d0:*:443/http_request_denied"),
        // One tier: a deny in a list is before an allow in an option, also behind the deny options.
        (&["allow w.a.test", "deny-file w.a.test"], "early -deny-file:d0:w.a.test/http_request_denied"),
        (
            &["allow-file w.a.test", "deny-file 8.8.8.8", "deny b.test"],
            "-deny-file:d0:8.8.8.8/destination_ip_prohibited",
        ),
        // The early answer names the list, too.
        (&["allow-file w.a.test", "default deny"], "+allow-file:a0:w.a.test"),
    ] {
        let got = decides(rules);
        assert_eq!(got, expected, "{rules:?}");
    }
}
