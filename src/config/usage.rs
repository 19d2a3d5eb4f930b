//! What the command line is told: what is wrong with it, or what could stand there.

use super::*;
use getopts::Fail;
use std::fmt;

/// What is wrong with the command line. `Display` names the option and what was expected, in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UsageError {
    /// There is no such option (yet).
    Unknown {
        /// With its dashes.
        option: String,
    },
    /// The option needs a value and is the last word.
    NoValue {
        /// With its dashes.
        option: String,
    },
    /// `--quiet=x`.
    NeedlessValue {
        /// With its dashes.
        option: String,
    },
    /// An option that makes sense once stands there twice.
    Twice {
        /// With its dashes.
        option: String,
    },
    /// The value is not one for this option.
    Wrong {
        /// Without its dashes.
        option: &'static str,
        /// As given.
        value: String,
        /// Completes "expected".
        expected: String,
    },
    /// Limits that do not fit together.
    TooLittleMemory {
        /// Bytes of `--buffer-memory`.
        needed: u64,
        /// As asked for, or derived.
        sessions: usize,
        /// As asked for, or one for each core.
        loops: usize,
    },
    /// A word of the file of `--config` that is no option.
    UnknownInFile {
        /// As given.
        word: String,
    },
    /// An option that makes sense on the command line only.
    NotInFile {
        /// Without its dashes.
        option: &'static str,
    },
    /// The file of `--config` cannot be read: the only one that is the system's fault and not the caller's.
    Unreadable {
        /// As given.
        file: String,
        /// The system's word.
        error: String,
    },
    /// Something of the above, in the file of `--config`.
    InFile {
        /// As given.
        file: String,
        /// Counted from 1.
        line: usize,
        /// What.
        error: Box<UsageError>,
    },
    /// A word that is not text.
    NotUtf8 {
        /// As far as it is.
        word: String,
    },
    /// `adit check` and nothing to check.
    NoDestination,
    /// `adit check` of what is no destination.
    BadDestination {
        /// As given.
        word: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A word that belongs to no option.
    Stray {
        /// As given.
        word: String,
    },
}

impl UsageError {
    /// Whether whoever called is to blame, and not the system.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        !matches!(self, UsageError::Unreadable { .. })
    }
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UsageError::Unknown { option } => write!(f, "unknown option {option} (see adit --help)"),
            UsageError::NoValue { option } => write!(f, "option {option} needs a value"),
            UsageError::NeedlessValue { option } => write!(f, "option {option} takes no value"),
            UsageError::Twice { option } => write!(f, "option {option} is given more than once"),
            // Debug, so that a line end in a value stays inside the line.
            UsageError::Wrong { option, value, expected } => {
                write!(f, "option --{option}: {value:?} is wrong, expected {expected}")
            }
            UsageError::TooLittleMemory { needed, sessions, loops } => write!(
                f,
                "--max-sessions {sessions} and --loops {loops} need a --buffer-memory of at least {needed} bytes"
            ),
            UsageError::UnknownInFile { word } => {
                write!(
                    f,
                    "{word:?} is no option: one stands on each line, as in --help but without dashes: grace 30"
                )
            }
            UsageError::NotInFile { option } => {
                write!(f, "option --{option} is for the command line only")
            }
            UsageError::Unreadable { file, error } => write!(f, "cannot read {file}: {error}"),
            UsageError::InFile { file, line, error } => write!(f, "{file}:{line}: {error}"),
            UsageError::NotUtf8 { word } => write!(f, "{word:?} is not UTF-8"),
            UsageError::NoDestination => f.write_str("adit check needs a destination: HOST or HOST:PORT"),
            UsageError::BadDestination { word, why } => {
                write!(f, "{word:?} is no HOST or HOST:PORT: {why}")
            }
            UsageError::Stray { word } => {
                write!(f, "{word:?} belongs to no option: all settings are options (see adit --help)")
            }
        }
    }
}

impl std::error::Error for UsageError {}

impl From<Fail> for UsageError {
    fn from(fail: Fail) -> UsageError {
        let dashed = |name: String| match name.chars().count() {
            1 => format!("-{name}"),
            _ => format!("--{name}"),
        };
        match fail {
            Fail::ArgumentMissing(name) => UsageError::NoValue { option: dashed(name) },
            // `OptionMissing` is for required options, of which there are none.
            Fail::UnrecognizedOption(name) | Fail::OptionMissing(name) => {
                UsageError::Unknown { option: dashed(name) }
            }
            Fail::OptionDuplicated(name) => UsageError::Twice { option: dashed(name) },
            Fail::UnexpectedArgument(name) => UsageError::NeedlessValue { option: dashed(name) },
        }
    }
}

/// The text of `--help`.
pub(super) fn help() -> String {
    format!(
        "\
adit {version}: a small, strict HTTP forward proxy: CONNECT tunnels and plain HTTP

Usage: adit [OPTIONS]                                        [defaults in brackets]
       adit check [OPTIONS] [--tls] [--through http://PROXY:PORT] HOST[:PORT]
  Try it with: curl -x http://{listen} https://example.org/

  -c, --config FILE           read options from FILE too: one a line, without the
                              dashes (grace 30), # starts a comment; the command
                              line wins, repeatable options add up
      --check-config          read everything, say ok (or what is wrong) and exit

Listening
  -l, --listen ADDR:PORT      listen here; repeatable; [::]:8080 is dual stack,
                              port 0 lets the system pick one [{listen}]
  -n, --loops N               event loops, a thread each, at most {loops} [one per core]

Who may use it, and where they may go
      --client NET            addresses that may use the proxy; repeatable
                              [loopback; with another --listen also private]
      --users FILE            htpasswd file: clients must show a user and password
      --allow DEST            destinations to allow; repeatable
      --deny DEST             destinations to deny; repeatable
      --allow-file FILE, --deny-file FILE
                              a DEST on each line, or hosts-file lines; repeatable
      --default ACTION        allow or deny, when no rule matches [allow]
      --connect-port PORTS    ports CONNECT may reach: 443,8000-8999 or any
                              [{connect_ports}]
      --http-port PORTS       ports plain HTTP may reach [{http_ports}]

  DEST is name, .name (that domain and everything under it), *.name (only what
  is under it), an address, a network like 10.0.0.0/8, or *. A port may follow:
  name:8443, *:8000-8999, [2001:db8::]/32:443. 'DEST from NET' and 'DEST user NAME'
  speak only for clients in NET, or for that user.
  The first of these that speaks decides:
    1. a --deny that matches, then a --deny-file
    2. an --allow or --allow-file; it also lifts 3 and 4 for that destination
    3. the port: --connect-port, or --http-port for plain HTTP
    4. the guard: loopback, private and other special-purpose addresses
    5. --default
  Names are judged before resolving, addresses when they are dialed.

Names and addresses
      --nameserver ADDR[:PORT]  ask this one; repeatable [from /etc/resolv.conf]
      --hosts FILE            static names [{hosts}]
      --family FAMILY         address families to dial: any, 4 or 6 [any]
      --bind ADDR             source address of outgoing connections; one for
                              each family [the system's choice]

Limits
      --max-sessions N        over all loops, at most {sessions}
                              [one per {per_session} bytes of --buffer-memory]
      --max-sessions-per-client N
                              for one client address, an IPv6 one by itself
                              [none]
      --buffer-memory BYTES   ceiling for all storage that clients can make grow,
                              at least 2M; K, M and G are understood [{memory}M]

Timeouts, in seconds from 1 to {timeout}
      --head-timeout S        until the request head is complete [{head}]
      --resolve-timeout S     for a name, over all nameservers [{resolve}]
      --dial-timeout S        for a connection, over all addresses [{dial}]
      --response-timeout S    until a response begins, and for the next byte of a
                              request's body [{response}]
      --keepalive-timeout S   for a connection, to a client or from the proxy,
                              on which no request is under way [{keepalive}]
      --idle-timeout S        for a tunnel or the body of a response, without a
                              byte in either direction [{idle}]
      --half-open-timeout S   for a tunnel with one direction closed [{half_open}]
      --grace S               from SIGTERM to the end of the last tunnel [{grace}]

Plain HTTP
      --via NAME              name in Via and Proxy-Status, at most 64 characters;
                              off sends no Via [{via}]
      --forwarded             tell the destination who asked: Forwarded: for=ADDR

Log
      --access-log FILE       a line per tunnel or request; - is stdout, syslog the
                              local daemon (a file of that name: ./syslog), or
                              off [-]
      --log-format FORMAT     adit, squid or json [adit]
  -v, --verbose               log more; repeatable
  -q, --quiet                 log less; repeatable

  -h, --help                  print this
  -V, --version               print the version

{check}
Exit codes: 0 fine, 1 the system failed, 2 called wrongly; of adit check also those.
",
        check = check::HELP,
        version = env!("CARGO_PKG_VERSION"),
        listen = DEFAULT_LISTEN,
        loops = MAX_LOOPS,
        connect_ports = DEFAULT_CONNECT_PORTS,
        http_ports = DEFAULT_HTTP_PORTS,
        hosts = DEFAULT_HOSTS,
        sessions = MAX_SESSIONS,
        per_session = BUFFER_BYTES_PER_SESSION,
        memory = DEFAULT_BUFFER_MEMORY_BYTES >> 20,
        timeout = MAX_TIMEOUT_S,
        head = DEFAULT_HEAD_TIMEOUT_S,
        resolve = DEFAULT_RESOLVE_TIMEOUT_S,
        dial = DEFAULT_DIAL_TIMEOUT_S,
        response = DEFAULT_RESPONSE_TIMEOUT_S,
        keepalive = DEFAULT_KEEPALIVE_TIMEOUT_S,
        idle = DEFAULT_IDLE_TIMEOUT_S,
        half_open = DEFAULT_HALF_OPEN_TIMEOUT_S,
        grace = DEFAULT_GRACE_S,
        via = DEFAULT_VIA,
    )
}
