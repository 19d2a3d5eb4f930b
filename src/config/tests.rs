//! Tests of [`super`].
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use super::given::{Kind, NOT_IN_FILE, OPTIONS};
use super::*;
use crate::proto::rules::{Service, Verdict, Who};
use crate::proto::target::Target;

fn command(args: &[&str]) -> Result<Command, UsageError> {
    from_args(args.iter().map(OsString::from), &|_| Err(io::ErrorKind::NotFound.into()))
}

fn config(args: &[&str]) -> Config {
    match command(args) {
        Ok(Command::Run(config)) => *config,
        other => panic!("{args:?}: {other:?}"),
    }
}

fn error(args: &[&str]) -> String {
    match command(args) {
        Err(error) => error.to_string(),
        Ok(command) => panic!("{args:?}: {command:?}"),
    }
}

fn printed(args: &[&str]) -> String {
    match command(args) {
        Ok(Command::Print(text)) => text,
        other => panic!("{args:?}: {other:?}"),
    }
}

/// With a file of `--config` that says `content`, in front of `args`.
fn with_file(content: &[u8], args: &[&str]) -> Result<Command, UsageError> {
    let args = [&["--config", "adit.conf"], args].concat();
    from_args(args.iter().map(OsString::from), &|path| {
        assert_eq!(path, Path::new("adit.conf"));
        Ok(content.to_vec())
    })
}

fn file_config(content: &str, args: &[&str]) -> Config {
    match with_file(content.as_bytes(), args) {
        Ok(Command::Run(config)) => *config,
        other => panic!("{content:?} {args:?}: {other:?}"),
    }
}

#[track_caller]
fn file_error(content: impl AsRef<[u8]>, args: &[&str]) -> String {
    match with_file(content.as_ref(), args) {
        Err(error) => {
            assert!(error.is_usage());
            error.to_string()
        }
        Ok(command) => panic!("{args:?}: {command:?}"),
    }
}

fn client_may(config: &Config, client: &str) -> bool {
    config.rules(&[]).client_may(client.parse().unwrap())
}

#[test]
fn defaults_are_those_of_the_contract() {
    let config = config(&[]);
    assert_eq!(config.listen, ["127.0.0.1:8080".parse().unwrap()]);
    assert!((1..=MAX_LOOPS).contains(&config.loops));
    assert_eq!(config.nameservers, None);
    assert_eq!(config.hosts, None);
    assert_eq!(config.buffer_memory_bytes, 64 * 1024 * 1024);
    assert_eq!(config.max_sessions, 10_922);
    let timeouts = Timeouts {
        head_ms: 10_000,
        resolve_ms: 5_000,
        dial_ms: 10_000,
        response_ms: 60_000,
        keepalive_ms: 60_000,
        idle_ms: 900_000,
        half_open_ms: 60_000,
        grace_ms: 30_000,
    };
    assert_eq!(config.timeouts, timeouts);
    assert_eq!(config.access_log, AccessLogConfig::default());
    assert_eq!(config.via, Via::Name("adit".into()));
    assert_eq!(config.verbosity, 0);
    assert_eq!(config.policy.default, DefaultAction::Allow);
    assert_eq!(config.policy.connect_ports, Ports::parse("443").unwrap());
    assert_eq!(config.policy.http_ports, Ports::parse("80,1024-65535").unwrap());
    assert_eq!(config.forwarded, Forwarded::Omitted);
}

#[test]
fn it_is_never_an_open_proxy_by_accident() {
    let local = config(&["-l", "127.0.0.1:1", "-l", "[::1]:1", "-l", "127.3.2.1:1"]);
    for (client, may) in [("127.0.0.1", true), ("127.5.5.5", true), ("::1", true), ("10.0.0.1", false)] {
        assert_eq!(client_may(&local, client), may, "{client}");
    }
    for listen in ["0.0.0.0:8080", "[::]:8080", "10.0.0.1:8080", "203.0.113.1:8080"] {
        let config = config(&["-l", "127.0.0.1:1", "-l", listen]);
        for (client, may) in [
            ("127.0.0.1", true),
            ("::1", true),
            ("10.9.9.9", true),
            ("::ffff:192.168.1.1", true),
            ("172.31.0.1", true),
            ("169.254.0.1", true),
            ("fd00::1", true),
            ("fe80::1", true),
            ("100.64.0.1", false),
            ("8.8.8.8", false),
            ("2606::1", false),
            ("172.32.0.1", false),
        ] {
            assert_eq!(client_may(&config, client), may, "{listen} {client}");
        }
    }
    let said = config(&["-l", "0.0.0.0:1", "--client", "192.0.2.0/24", "--client", "2001:db8::/32"]);
    for (client, may) in
        [("192.0.2.1", true), ("2001:db8::1", true), ("127.0.0.1", false), ("10.0.0.1", false)]
    {
        assert_eq!(client_may(&said, client), may, "{client}");
    }
    assert!(client_may(&config(&["--client", "0.0.0.0/0"]), "8.8.8.8"));
}

#[test]
fn all_options_together() {
    let config = config(&[
        "-l",
        "0.0.0.0:8080",
        "--listen=[::1]:0",
        "-n4",
        "--client=10.0.0.0/8",
        "--allow",
        "10.0.0.0/8:22",
        "--deny",
        ".example.com from 10.0.0.0/24",
        "--default",
        "deny",
        "--connect-port",
        "443,8000-8999",
        "--http-port",
        "80",
        "--nameserver",
        "192.0.2.53",
        "--nameserver",
        "2001:db8::53",
        "--nameserver",
        "[2001:db8::54]:5353",
        "--nameserver",
        "127.0.0.1:5300",
        "--hosts",
        "/tmp/hosts",
        "--max-sessions",
        "1000",
        "--max-sessions-per-client",
        "20",
        "--buffer-memory",
        "8M",
        "--head-timeout",
        "1",
        "--resolve-timeout",
        "2",
        "--dial-timeout",
        "3",
        "--response-timeout",
        "6",
        "--keepalive-timeout",
        "7",
        "--idle-timeout",
        "4",
        "--half-open-timeout",
        "5",
        "--grace",
        "86400",
        "--access-log",
        "/tmp/access",
        "--log-format",
        "squid",
        "--via",
        "box.example",
        "--forwarded",
        "-vv",
        "-q",
        "--verbose",
    ]);
    assert_eq!(config.listen, ["0.0.0.0:8080".parse().unwrap(), "[::1]:0".parse().unwrap()]);
    assert_eq!((config.loops, config.max_sessions, config.buffer_memory_bytes), (4, 1000, 8 << 20));
    let nameservers = ["192.0.2.53:53", "[2001:db8::53]:53", "[2001:db8::54]:5353", "127.0.0.1:5300"];
    assert_eq!(config.nameservers, Some(nameservers.iter().map(|text| text.parse().unwrap()).collect()));
    let timeouts = Timeouts {
        head_ms: 1_000,
        resolve_ms: 2_000,
        dial_ms: 3_000,
        response_ms: 6_000,
        keepalive_ms: 7_000,
        idle_ms: 4_000,
        half_open_ms: 5_000,
        grace_ms: 86_400_000,
    };
    assert_eq!(config.timeouts, timeouts);
    assert_eq!(config.hosts, Some(PathBuf::from("/tmp/hosts")));
    let access_log =
        AccessLogConfig { target: AccessLogTarget::File("/tmp/access".into()), format: LogFormat::Squid };
    assert_eq!(config.access_log, access_log);
    assert_eq!(config.via.proxy_status_name(), "box.example");
    assert_eq!(config.via.field_name(), Some("box.example"));
    assert_eq!(config.forwarded, Forwarded::Added);
    assert_eq!(config.verbosity, 2);
    let rules = config.rules(&["10.0.0.1:22".parse().unwrap()]);
    let judge_for = |service: Service, target: &str, address: &str| {
        let target = Target::from_authority(target.as_bytes()).unwrap();
        let who = Who { address: "10.0.0.9".parse().unwrap(), user: None };
        let address = address.parse().unwrap();
        match rules.judge_address(who, &target, None, address, service) {
            Verdict::Allow(rule) => format!("+{rule}"),
            Verdict::Deny(_, rule) => format!("-{rule}"),
        }
    };
    let judge = |target: &str, address: &str| judge_for(Service::Connect, target, address);
    assert_eq!(judge("a.test:22", "10.0.0.2"), "+allow:10.0.0.0/8:22");
    assert_eq!(judge("a.test:22", "10.0.0.1"), "-guard");
    assert_eq!(judge("www.example.com:22", "10.0.0.2"), "-deny:.example.com_from_10.0.0.0/24");
    assert_eq!(judge("a.test:8001", "8.8.8.8"), "-default");
    assert_eq!(judge("a.test:444", "8.8.8.8"), "-connect-port");
    assert_eq!(judge_for(Service::Http, "a.test:80", "8.8.8.8"), "-default");
    assert_eq!(judge_for(Service::Http, "a.test:8001", "8.8.8.8"), "-http-port");
}

#[test]
fn wrong_values_name_the_option_the_value_and_what_was_expected() {
    const TOO_LONG: &str = "a2345678901234567890123456789012345678901234567890123456789012345";
    let cases = [
        ("listen", "8080", "ADDR:PORT"),
        ("listen", "localhost:8080", "ADDR:PORT"),
        ("listen", "::1:8080", "ADDR:PORT"),
        ("listen", ":8080", "ADDR:PORT"),
        ("listen", "[::ffff:127.0.0.1]:80", "127.0.0.1:8080"),
        ("loops", "0", "1 to 256"),
        ("loops", "257", "1 to 256"),
        ("loops", "+1", "1 to 256"),
        ("loops", "", "1 to 256"),
        ("client", "10.0.0.1/8", "no bits behind the prefix"),
        ("client", "a.test", "an address or a network"),
        ("allow", "a.*.test", ".example.com"),
        ("allow", "a.test user alice smith", "no name may have a space"),
        ("deny", "2130706433", "a name"),
        ("deny", "", "a destination"),
        ("default", "maybe", "allow or deny"),
        ("connect-port", "0", "ports from 1"),
        ("connect-port", "https", "any"),
        ("http-port", "", "ports from 1"),
        ("http-port", "80,", "any"),
        ("nameserver", "dns.test", "ADDR"),
        ("nameserver", "192.0.2.1:0", "ADDR"),
        ("hosts", "", "a file"),
        ("max-sessions", "0", "1 to 1000000"),
        ("max-sessions", "1000001", "1 to 1000000"),
        ("max-sessions-per-client", "0", "1 to 1000000"),
        ("users", "", "a file"),
        ("buffer-memory", "2047K", "from 2M"),
        ("buffer-memory", "0", "from 2M"),
        ("buffer-memory", "M", "from 2M"),
        ("buffer-memory", "1025G", "from 2M"),
        ("buffer-memory", "99999999999999999999G", "from 2M"),
        ("buffer-memory", "17179869184G", "from 2M"),
        ("buffer-memory", "1\u{b5}", "from 2M"),
        ("buffer-memory", "64MB", "from 2M"),
        ("head-timeout", "0", "1 to 86400"),
        ("resolve-timeout", "86401", "1 to 86400"),
        ("dial-timeout", "1.5", "1 to 86400"),
        ("response-timeout", "0", "1 to 86400"),
        ("keepalive-timeout", "", "1 to 86400"),
        ("idle-timeout", "10s", "1 to 86400"),
        ("half-open-timeout", "-1", "1 to 86400"),
        ("grace", "99999999999999999999", "1 to 86400"),
        ("access-log", "", "off"),
        ("log-format", "combined", "adit, squid or json"),
        ("log-format", "", "adit, squid or json"),
        ("via", "", "off"),
        ("via", "two words", "off"),
        ("via", TOO_LONG, "at most 64"),
    ];
    for (option, value, expected) in cases {
        let said = error(&[&format!("--{option}={value}")]);
        assert!(said.contains(&format!("--{option}: {value:?}")), "{option} {value}: {said}");
        assert!(said.contains("expected ") && said.contains(expected), "{option} {value}: {said}");
    }
    assert!(error(&["--via", "a\nb"]).contains("\"a\\nb\""), "one line");
    assert!(error(&["-l", "[::1]:80", "-l", "[::1]:80"]).contains("each address once"));
    assert_eq!(config(&["-l", "[::1]:0", "-l", "[::1]:0"]).listen.len(), 2);
}

#[test]
fn what_is_no_option_or_has_no_value_says_so() {
    assert_eq!(error(&["--grace"]), "option --grace needs a value");
    assert_eq!(error(&["--grace", "1", "--grace", "1"]), "option --grace is given more than once");
    assert_eq!(error(&["--quiet=x"]), "option --quiet takes no value");
    assert!(error(&["--grace", "1", "check", "a.test"]).starts_with("\"check\" belongs to no option"));
}

#[test]
fn small_choices() {
    for (text, bytes) in [("2M", 2 << 20), ("2097152", 2 << 20), ("4096k", 4 << 20), ("1G", 1 << 30)] {
        assert_eq!(config(&["--buffer-memory", text]).buffer_memory_bytes, bytes, "{text}");
    }
    assert_eq!(config(&["--buffer-memory", "1024G"]).max_sessions, MAX_SESSIONS);
    for (value, target) in [
        ("off", AccessLogTarget::Off),
        ("-", AccessLogTarget::Stdout),
        ("syslog", AccessLogTarget::Syslog),
        ("./syslog", AccessLogTarget::File("./syslog".into())),
    ] {
        assert_eq!(config(&["--access-log", value]).access_log.target, target, "{value}");
    }
    for (value, format) in [("adit", LogFormat::Adit), ("squid", LogFormat::Squid), ("json", LogFormat::Json)]
    {
        assert_eq!(config(&["--log-format", value]).access_log.format, format, "{value}");
    }
    let off = config(&["--via", "off"]).via;
    assert_eq!((off.proxy_status_name(), off.field_name(), &off), ("adit", None, &Via::Off));
    let longest = "a".repeat(MAX_VIA_BYTES);
    assert_eq!(config(&["--via", &longest]).via.field_name(), Some(&*longest));
    assert_eq!(config(&["-qqq"]).verbosity, -3);
}

#[test]
fn idle_connections_are_a_small_part_of_the_memory() {
    for (memory, loops, idle) in [
        ("2M", "1", 42),
        ("4M", "4", 21),
        ("64M", "1", 512),
        ("64M", "4", 341),
        ("64M", "8", 170),
        ("64M", "64", 21),
        ("1G", "4", 512),
    ] {
        let config = config(&["--buffer-memory", memory, "-n", loops, "--max-sessions", "100"]);
        assert_eq!(config.idle_connections_per_loop(), idle, "{memory} {loops}");
        assert_eq!(config.idle_connections_per_origin(), idle / 2, "{memory} {loops}");
    }
}

#[test]
fn the_least_memory_suffices_for_one_loop_and_its_sessions() {
    let config = config(&["--buffer-memory", "2M", "-n", "1"]);
    assert!(config.ring_bytes_per_loop() >= MIN_RINGS_PER_LOOP * RING_BYTES as u64);
    assert!(error(&["--buffer-memory", "2M", "-n", "1", "--max-sessions", "513"]).contains("at least"));
}

#[test]
fn users_take_a_part_of_the_memory() {
    for (memory, loops, logins) in [("2M", "1", 128), ("4M", "2", 128), ("64M", "1", 4096), ("64M", "64", 64)]
    {
        let args = ["--buffer-memory", memory, "-n", loops, "--max-sessions", "100"];
        assert_eq!(config(&args).logins_per_loop(), logins, "{memory} {loops}");
    }
    let rings =
        |args: &[&str]| config(&[&["-n", "1", "--max-sessions", "9"], args].concat()).ring_bytes_per_loop();
    assert_eq!(rings(&[]) - rings(&["--users", "x"]), LOGIN_DESK_BYTES + 4096 * LOGIN_BYTES as u64);
    // They do not change how many sessions there may be.
    assert_eq!(config(&["--users", "x"]).max_sessions, 10_922);
    let least = config(&["--buffer-memory", "2M", "--users", "x"]).max_sessions;
    assert!((200..341).contains(&least), "{least}");
    assert_eq!(config(&["--buffer-memory", "2M"]).max_sessions, least);
}

#[test]
fn users_can_be_added_while_it_runs() {
    for memory in ["2M", "3M", "4M", "8M", "64M"] {
        let in_force = config(&["--buffer-memory", memory]);
        let mut next = config(&["--buffer-memory", memory, "--users", "x"]);
        assert_eq!(next.keep_fixed(&in_force), [""; 0], "{memory}");
        assert!(next.check_memory().is_ok(), "{memory}");
    }
}

#[test]
fn help_and_version_are_printed_whatever_else_stands_there() {
    let help = printed(&["--loops", "x", "-h"]);
    for (_, short, long) in &OPTIONS {
        assert!(help.contains(&format!("--{long} ")), "--{long}");
        assert!(short.is_empty() || help.contains(&format!("  -{short}, --{long}")), "-{short}");
    }
    assert!(help.ends_with('\n') && help.is_ascii());
    for line in help.lines() {
        assert!(line.len() <= 84, "{line}");
    }
    assert_eq!(printed(&["--version"]), format!("adit {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn every_long_option_may_stand_in_a_file() {
    let values = |option: &str| match option {
        "listen" => "[::1]:8080",
        "client" => "10.0.0.0/8",
        "allow" | "deny" => "a.test from 10.0.0.0/8",
        "nameserver" | "bind" => "192.0.2.1",
        "default" => "deny",
        "family" => "4",
        "buffer-memory" => "8M",
        "connect-port" | "http-port" => "80,8000-8999",
        "max-sessions" => "100",
        "log-format" => "json",
        _ => "7",
    };
    let mut lines = String::from("\u{feff}# all of them\r\n\r\n");
    let mut words = Vec::new();
    for (kind, _, option) in OPTIONS.iter().filter(|(_, _, option)| !NOT_IN_FILE.contains(option)) {
        if *kind == Kind::Flag {
            lines += &format!("{option}\n");
            words.push(format!("--{option}"));
        } else {
            lines += &format!("  {option}\t {}  # why\r\n", values(option));
            words.push(format!("--{option}={}", values(option)));
        }
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    assert_eq!(format!("{:?}", file_config(&lines, &[])), format!("{:?}", config(&words)));
}

#[test]
fn the_command_line_wins_and_repeatable_options_add_up() {
    let file = "grace 7\nvia box\nlisten 127.0.0.1:81\nallow a.test\nverbose\nhosts a#b # c";
    let config = file_config(file, &["--grace", "9", "-l", "127.0.0.1:80", "--allow", "b.test", "-qq"]);
    assert_eq!((config.timeouts.grace_ms, config.verbosity), (9_000, -1));
    assert_eq!(config.via.field_name(), Some("box"));
    assert_eq!(config.hosts, Some(PathBuf::from("a#b")));
    assert_eq!(config.listen, ["127.0.0.1:80".parse().unwrap(), "127.0.0.1:81".parse().unwrap()]);
    assert_eq!(config.policy.allow.len(), 2);
}

#[test]
fn what_is_wrong_in_a_file_names_file_and_line() {
    for (content, expected) in [
        ("grace 1\ngrace 2", "adit.conf:2: option --grace is given more than once"),
        (
            "\n\ngrace x",
            "adit.conf:3: option --grace: \"x\" is wrong, expected whole seconds from 1 to 86400",
        ),
        ("grace", "adit.conf:1: option --grace needs a value"),
        ("grace # 7", "adit.conf:1: option --grace needs a value"),
        ("forwarded yes", "adit.conf:1: option --forwarded takes no value"),
        ("--grace 7", "adit.conf:1: \"--grace\" is no option: one stands on each line"),
        ("grace=7", "adit.conf:1: \"grace=7\" is no option"),
        ("l 127.0.0.1:80", "adit.conf:1: \"l\" is no option"),
        ("config x", "adit.conf:1: option --config is for the command line only"),
        ("check-config", "adit.conf:1: option --check-config is for the command line only"),
        ("help", "adit.conf:1: option --help is for the command line only"),
        (
            "#\nlisten 127.0.0.1:1\nlisten 127.0.0.1:1",
            "adit.conf:3: option --listen: \"127.0.0.1:1\" is wrong",
        ),
        ("bind 192.0.2.1\nbind 192.0.2.2", "adit.conf:2: option --bind: \"192.0.2.2\" is wrong"),
        ("deny a b", "adit.conf:1: option --deny: \"a b\" is wrong"),
        (
            "buffer-memory 2M\nloops 1\nmax-sessions 1000",
            "adit.conf:3: --max-sessions 1000 and --loops 1 need a --buffer-memory of at least",
        ),
        ("buffer-memory 2M\nloops 9", "adit.conf:2: --max-sessions"),
    ] {
        let said = file_error(content, &[]);
        assert!(said.starts_with(expected), "{content:?}: {said}");
    }
    assert!(file_error(b"\nvia \xff\n", &[]).starts_with("adit.conf:2: \"via \u{fffd}\" is not UTF-8"));
    // What the command line says does not make a bad file good; but what it is to blame for is its own.
    assert!(file_error("grace x\ngrace 7", &["--grace", "7"]).starts_with("adit.conf:2: "));
    assert!(file_error("grace 7", &["--grace", "x"]).starts_with("option --grace: "));
    assert!(
        file_error("loops 1\nmax-sessions 1\nbuffer-memory 2M", &["--max-sessions", "1000", "-n", "1"])
            .starts_with("adit.conf:3: ")
    );
    assert!(
        file_error("grace 7", &["--max-sessions", "1000", "--buffer-memory", "2M"])
            .starts_with("--max-sessions")
    );
    let unreadable = command(&["-c", "adit.conf"]).unwrap_err();
    assert_eq!(
        (unreadable.is_usage(), &*unreadable.to_string()),
        (false, "cannot read adit.conf: entity not found")
    );
}

#[test]
fn a_configuration_can_be_checked_alone() {
    assert!(matches!(command(&["--check-config"]), Ok(Command::CheckConfig(_))));
    assert!(error(&["--check-config", "--grace", "x"]).contains("--grace"));
}

#[test]
fn what_cannot_change_while_it_runs_stays() {
    let in_force = config(&["-n", "2", "--max-sessions", "100", "--max-sessions-per-client", "9"]);
    let mut next =
        config(&["-n", "3", "--max-sessions", "200", "--buffer-memory", "32M", "-v", "--grace", "7"]);
    let kept = next.keep_fixed(&in_force);
    let fixed = ["loops", "max-sessions", "max-sessions-per-client", "buffer-memory", "verbose and --quiet"];
    assert_eq!(kept, fixed);
    assert_eq!(next.max_sessions_per_client, Some(9));
    assert_eq!(
        (next.loops, next.max_sessions, next.buffer_memory_bytes, next.verbosity),
        (2, 100, 64 << 20, 0)
    );
    assert_eq!(next.timeouts.grace_ms, 7_000);
    assert_eq!(next.keep_fixed(&in_force), [""; 0]);
    // What nobody gave is not said to stay.
    let in_force = config(&["--buffer-memory", "2M"]);
    let mut next = config(&["--buffer-memory", "1G"]);
    assert_eq!(next.keep_fixed(&in_force), ["buffer-memory"]);
    assert_eq!((next.loops, next.max_sessions), (in_force.loops, in_force.max_sessions));
    // What is not given any more is.
    let in_force = config(&["--max-sessions", "100"]);
    assert_eq!(config(&[]).keep_fixed(&in_force), ["max-sessions"]);
}
