//! Options and limits: the command line becomes a `Config`; every default and every limit stands here, with its unit in
//! its name.

mod usage;

use crate::proto::eyeballs::Eyeballs;
use crate::proto::guard::{LOOPBACK, Net, PRIVATE};
use crate::proto::lookup::Families;
use crate::proto::pool::Pool;
use crate::proto::reply::is_token_byte;
use crate::proto::resolver::MAX_TCP;
use crate::proto::ring::RING_BYTES;
use crate::proto::rules::{BadRule, DefaultAction, Ports, Rule, RuleSet, Rules, parse_net};
use crate::proto::scan::MAX_HEAD_BYTES;
use crate::proto::session::{Forwarded, Session, Timeouts};
use getopts::{Matches, Options};
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZero;
use std::path::PathBuf;
pub use usage::UsageError;
use usage::wrong;

/// Where the proxy listens when nothing is said.
pub const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
/// The ports that CONNECT may reach when nothing is said.
pub const DEFAULT_CONNECT_PORTS: &str = "443";
/// The ports that plain HTTP may reach when nothing is said.
pub const DEFAULT_HTTP_PORTS: &str = "80,1024-65535";
/// The file with static names.
pub const DEFAULT_HOSTS: &str = "/etc/hosts";
/// The name in `Via` and `Proxy-Status`.
pub const DEFAULT_VIA: &str = "adit";
/// Longest name of `--via`.
pub const MAX_VIA_BYTES: usize = 64;
/// The port of a nameserver that is given without one.
pub const NAMESERVER_PORT: u16 = 53;
/// Ceiling for all storage that clients can make grow.
pub const DEFAULT_BUFFER_MEMORY_BYTES: u64 = 64 << 20;
/// Under this the proxy could not serve a handful of clients.
pub const MIN_BUFFER_MEMORY_BYTES: u64 = 2 << 20;
/// Over this it is a slip of the hand.
pub const MAX_BUFFER_MEMORY_BYTES: u64 = 1 << 40;
/// What one session is taken to need on average when `--max-sessions` is sized from `--buffer-memory`: most are idle
/// tunnels, which hold none of it.
pub const BUFFER_BYTES_PER_SESSION: u64 = 6144;
/// Most sessions that can be asked for.
pub const MAX_SESSIONS: usize = 1_000_000;
/// Most event loops.
pub const MAX_LOOPS: usize = 256;
/// `--head-timeout`
pub const DEFAULT_HEAD_TIMEOUT_S: u64 = 10;
/// `--resolve-timeout`
pub const DEFAULT_RESOLVE_TIMEOUT_S: u64 = 5;
/// `--dial-timeout`
pub const DEFAULT_DIAL_TIMEOUT_S: u64 = 10;
/// `--response-timeout`
pub const DEFAULT_RESPONSE_TIMEOUT_S: u64 = 60;
/// `--keepalive-timeout`
pub const DEFAULT_KEEPALIVE_TIMEOUT_S: u64 = 60;
/// `--idle-timeout`
pub const DEFAULT_IDLE_TIMEOUT_S: u64 = 900;
/// `--half-open-timeout`
pub const DEFAULT_HALF_OPEN_TIMEOUT_S: u64 = 60;
/// `--grace`
pub const DEFAULT_GRACE_S: u64 = 30;
/// Longest timeout of any kind: a day.
pub const MAX_TIMEOUT_S: u64 = 86_400;

/// What a session takes of `--buffer-memory` by merely existing: its entry, deadline, names and addresses, and the proxy's
/// own answer if it gets one. The rest of the memory is for rings.
pub const SESSION_BYTES: u64 = 4096;
/// Names that one loop remembers take at most this of it.
pub const MAX_CACHE_BYTES: u64 = 256 << 10;
/// What one idle upstream connection takes at most: its entry, its socket, its deadline and the name it is kept under.
pub const IDLE_BYTES: usize = 768;
/// Fewest and most idle upstream connections of one loop.
const IDLE_CONNECTIONS: (u64, u64) = (8, 512);
/// Access lines that one loop holds back for a slow reader take at most this of it.
pub const LOG_BACKLOG_BYTES: usize = 64 << 10;
/// Sessions of one loop, beyond `--max-sessions`, that exist only to tell their client why it is refused and to linger
/// behind that. Beyond these the answer is sent without lingering.
pub const REFUSING_MAX: usize = 32;
/// What one loop takes besides: access lines, long answers of nameservers, sessions that are being refused.
const LOOP_BYTES: u64 =
    LOG_BACKLOG_BYTES as u64 + MAX_TCP as u64 * (16 << 10) + REFUSING_MAX as u64 * SESSION_BYTES;
/// A loop with fewer rings than this could not serve a handful of busy tunnels.
pub const MIN_RINGS_PER_LOOP: u64 = 4;

const _: () = assert!(MIN_BUFFER_MEMORY_BYTES / BUFFER_BYTES_PER_SESSION > 0);
const _: () = assert!(BUFFER_BYTES_PER_SESSION > SESSION_BYTES);
// What is dialed, the name twice (as asked for and as completed), its share of a lookup, sockets, deadline and places in queues,
// and what the allocator adds; or, at another time, the proxy's own answer with a URL.
const _: () = assert!(Session::BYTES_MAX + Eyeballs::BYTES_MAX + 2 * 256 + 768 <= SESSION_BYTES as usize);
const _: () = assert!(Session::BYTES_MAX + 1024 + 256 <= SESSION_BYTES as usize);
const _: () = assert!(Pool::<u32>::IDLE_BYTES_MAX <= IDLE_BYTES);
const _: () = assert!(MIN_BUFFER_MEMORY_BYTES >= 16 * MAX_HEAD_BYTES as u64);
const _: () = assert!(DEFAULT_BUFFER_MEMORY_BYTES >= MIN_BUFFER_MEMORY_BYTES);
const _: () = assert!(MAX_TIMEOUT_S >= DEFAULT_IDLE_TIMEOUT_S);

/// What the program is to do.
#[derive(Debug)]
pub enum Command {
    /// Run the proxy.
    Run(Box<Config>),
    /// Print this text, which ends in a line end, to stdout and exit 0.
    Print(String),
}

/// Where access lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLogTarget {
    /// `-`
    Stdout,
    /// `off`
    Off,
    /// Appended to this file.
    File(PathBuf),
}

/// `--via`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Via {
    /// The name in `Via` and `Proxy-Status`; a token.
    Name(Box<str>),
    /// No `Via`.
    Off,
}

impl Via {
    /// The name in `Proxy-Status`, which is sent also when `Via` is off.
    #[must_use]
    pub fn proxy_status_name(&self) -> &str {
        match self {
            Via::Name(name) => name,
            Via::Off => DEFAULT_VIA,
        }
    }

    /// The name in `Via`, if one is sent.
    #[must_use]
    pub fn field_name(&self) -> Option<&str> {
        match self {
            Via::Name(name) => Some(name),
            Via::Off => None,
        }
    }
}

/// `--bind`: the source address of outgoing connections, one for each family; the system's choice without one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// For IPv4 destinations.
    pub v4: Option<Ipv4Addr>,
    /// For IPv6 destinations.
    pub v6: Option<Ipv6Addr>,
}

impl Sources {
    /// The source for a destination, if one is set for its family.
    #[must_use]
    pub fn towards(&self, destination: IpAddr) -> Option<IpAddr> {
        match destination {
            IpAddr::V4(_) => self.v4.map(IpAddr::V4),
            IpAddr::V6(_) => self.v6.map(IpAddr::V6),
        }
    }
}

/// Everything that can be set, complete and checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen; at least one, each once.
    pub listen: Vec<SocketAddr>,
    /// Event loops, one thread each.
    pub loops: usize,
    /// Clients and destinations; see [`Config::rules`].
    pub policy: RuleSet,
    /// Nameservers instead of those of `/etc/resolv.conf`.
    pub nameservers: Option<Vec<SocketAddr>>,
    /// The file with static names; without one, `/etc/hosts` if it is there.
    pub hosts: Option<PathBuf>,
    /// Address families that may be dialed.
    pub families: Families,
    /// Source addresses of outgoing connections.
    pub sources: Sources,
    /// Sessions over all loops.
    pub max_sessions: usize,
    /// Ceiling for all storage that clients can make grow.
    pub buffer_memory_bytes: u64,
    /// See [`Timeouts`].
    pub timeouts: Timeouts,
    /// See [`AccessLogTarget`].
    pub access_log: AccessLogTarget,
    /// See [`Via`].
    pub via: Via,
    /// `--forwarded`.
    pub forwarded: Forwarded,
    /// `-v` counts up, `-q` counts down.
    pub verbosity: i8,
}

impl Config {
    /// The compiled policy. `own_listeners` are the addresses really bound (port 0 replaced).
    #[must_use]
    pub fn rules(&self, own_listeners: &[SocketAddr]) -> Rules {
        Rules::new(self.policy.clone(), own_listeners)
    }

    /// What is left of `--buffer-memory` for the rings of one loop.
    #[must_use]
    pub fn ring_bytes_per_loop(&self) -> u64 {
        let sessions_bytes = self.max_sessions as u64 * SESSION_BYTES;
        let bytes = self.buffer_memory_bytes.saturating_sub(sessions_bytes) / self.loops as u64;
        bytes.saturating_sub(self.bytes_per_loop())
    }

    /// What one loop may remember of names.
    #[must_use]
    pub fn cache_bytes_per_loop(&self) -> u64 {
        MAX_CACHE_BYTES.min(self.buffer_memory_bytes / 32 / self.loops as u64)
    }

    /// How many upstream connections one loop may keep idle.
    #[must_use]
    pub fn idle_connections_per_loop(&self) -> usize {
        idle_connections(self.buffer_memory_bytes, self.loops as u64) as usize
    }

    /// How many of them may lead to one origin.
    #[must_use]
    pub fn idle_connections_per_origin(&self) -> usize {
        self.idle_connections_per_loop() / 2
    }

    /// What one loop takes besides its rings.
    fn bytes_per_loop(&self) -> u64 {
        let idle_bytes = (self.idle_connections_per_loop() * IDLE_BYTES) as u64;
        self.cache_bytes_per_loop() + idle_bytes + LOOP_BYTES
    }

    /// Limits that only fit together if the memory suffices for both.
    fn with_enough_memory(self) -> Result<Config, UsageError> {
        let rings_bytes = MIN_RINGS_PER_LOOP * RING_BYTES as u64;
        if self.ring_bytes_per_loop() >= rings_bytes {
            return Ok(self);
        }
        let loop_bytes = rings_bytes + self.bytes_per_loop();
        let needed = self.max_sessions as u64 * SESSION_BYTES + loop_bytes * self.loops as u64;
        Err(UsageError::TooLittleMemory { needed, sessions: self.max_sessions, loops: self.loops })
    }

    fn from_matches(given: &Matches) -> Result<Config, UsageError> {
        let listen = listen(given)?;
        let buffer_memory_bytes = match given.opt_str("buffer-memory") {
            Some(text) => buffer_memory_bytes(&text)?,
            None => DEFAULT_BUFFER_MEMORY_BYTES,
        };
        let derived = usize::try_from(buffer_memory_bytes / BUFFER_BYTES_PER_SESSION).unwrap_or(MAX_SESSIONS);
        let max_sessions = number(given, "max-sessions", MAX_SESSIONS)?.unwrap_or(derived.min(MAX_SESSIONS));
        let nameservers = each(given, "nameserver", nameserver)?;
        let times = |flag: &str| i8::try_from(given.opt_count(flag)).unwrap_or(i8::MAX);
        Ok(Config {
            policy: policy(given, &listen)?,
            listen,
            loops: number(given, "loops", MAX_LOOPS)?
                .unwrap_or_else(|| one_per_core(buffer_memory_bytes, max_sessions)),
            nameservers: (!nameservers.is_empty()).then_some(nameservers),
            hosts: text(given, "hosts", "a file")?.map(PathBuf::from),
            families: families(given)?,
            sources: sources(given)?,
            max_sessions,
            buffer_memory_bytes,
            timeouts: Timeouts {
                head_ms: timeout_ms(given, "head-timeout", DEFAULT_HEAD_TIMEOUT_S)?,
                resolve_ms: timeout_ms(given, "resolve-timeout", DEFAULT_RESOLVE_TIMEOUT_S)?,
                dial_ms: timeout_ms(given, "dial-timeout", DEFAULT_DIAL_TIMEOUT_S)?,
                response_ms: timeout_ms(given, "response-timeout", DEFAULT_RESPONSE_TIMEOUT_S)?,
                keepalive_ms: timeout_ms(given, "keepalive-timeout", DEFAULT_KEEPALIVE_TIMEOUT_S)?,
                idle_ms: timeout_ms(given, "idle-timeout", DEFAULT_IDLE_TIMEOUT_S)?,
                half_open_ms: timeout_ms(given, "half-open-timeout", DEFAULT_HALF_OPEN_TIMEOUT_S)?,
                grace_ms: timeout_ms(given, "grace", DEFAULT_GRACE_S)?,
            },
            access_log: match text(given, "access-log", "a file, - for stdout, or off")?.as_deref() {
                None | Some("-") => AccessLogTarget::Stdout,
                Some("off") => AccessLogTarget::Off,
                Some(file) => AccessLogTarget::File(PathBuf::from(file)),
            },
            via: via(given)?,
            forwarded: if given.opt_present("forwarded") { Forwarded::Added } else { Forwarded::Omitted },
            verbosity: times("verbose").saturating_sub(times("quiet")),
        })
    }
}

/// Reads the command line, **without** the program's name in front.
///
/// # Errors
/// The first thing that is wrong.
pub fn from_args<I: IntoIterator<Item = OsString>>(args: I) -> Result<Command, UsageError> {
    let words: Result<Vec<String>, OsString> = args.into_iter().map(OsString::into_string).collect();
    let words = words.map_err(|word| UsageError::NotUtf8 { word: word.to_string_lossy().into_owned() })?;
    let given = options().parse(words)?;
    if given.opt_present("help") {
        return Ok(Command::Print(usage::help()));
    }
    if given.opt_present("version") {
        return Ok(Command::Print(format!("adit {}\n", env!("CARGO_PKG_VERSION"))));
    }
    // Values come first: a word left over is often the value of an option that has taken another one.
    let config = Config::from_matches(&given)?.with_enough_memory()?;
    if let Some(word) = given.free.first() {
        return Err(UsageError::Stray { word: word.clone() });
    }
    Ok(Command::Run(Box::new(config)))
}

/// Short name (or none), long name; each may stand once and takes a value.
const ONCE: [(&str, &str); 18] = [
    ("n", "loops"),
    ("", "default"),
    ("", "connect-port"),
    ("", "http-port"),
    ("", "hosts"),
    ("", "family"),
    ("", "max-sessions"),
    ("", "buffer-memory"),
    ("", "head-timeout"),
    ("", "resolve-timeout"),
    ("", "dial-timeout"),
    ("", "response-timeout"),
    ("", "keepalive-timeout"),
    ("", "idle-timeout"),
    ("", "half-open-timeout"),
    ("", "grace"),
    ("", "access-log"),
    ("", "via"),
];
/// Likewise; each may be repeated and takes a value.
const REPEATABLE: [(&str, &str); 6] =
    [("l", "listen"), ("", "client"), ("", "allow"), ("", "deny"), ("", "nameserver"), ("", "bind")];
/// Likewise; each may be repeated and takes none.
const FLAGS: [(&str, &str); 5] =
    [("", "forwarded"), ("v", "verbose"), ("q", "quiet"), ("h", "help"), ("V", "version")];

fn options() -> Options {
    let mut options = Options::new();
    for (short, long) in ONCE {
        options.optopt(short, long, "", "");
    }
    for (short, long) in REPEATABLE {
        options.optmulti(short, long, "", "");
    }
    for (short, long) in FLAGS {
        options.optflagmulti(short, long, "");
    }
    options
}

/// Every value of a repeatable option.
fn each<T>(
    given: &Matches,
    option: &'static str,
    read: impl Fn(&str) -> Result<T, &'static str>,
) -> Result<Vec<T>, UsageError> {
    let values = given.opt_strs(option);
    values.iter().map(|value| read(value).map_err(|expected| wrong(option, value, expected))).collect()
}

/// A text that is not empty.
fn text(given: &Matches, option: &'static str, expected: &'static str) -> Result<Option<String>, UsageError> {
    match given.opt_str(option) {
        Some(value) if value.is_empty() => Err(wrong(option, &value, expected)),
        value => Ok(value),
    }
}

/// A number from 1 to `most`, in plain digits.
fn number(given: &Matches, option: &'static str, most: usize) -> Result<Option<usize>, UsageError> {
    let Some(value) = given.opt_str(option) else { return Ok(None) };
    match digits(&value).and_then(|number| usize::try_from(number).ok()) {
        Some(number) if (1..=most).contains(&number) => Ok(Some(number)),
        Some(_) | None => Err(wrong(option, &value, format!("a number from 1 to {most}"))),
    }
}

fn timeout_ms(given: &Matches, option: &'static str, default_s: u64) -> Result<u64, UsageError> {
    let Some(value) = given.opt_str(option) else { return Ok(default_s * 1000) };
    match digits(&value) {
        Some(seconds) if (1..=MAX_TIMEOUT_S).contains(&seconds) => Ok(seconds * 1000),
        Some(_) | None => Err(wrong(option, &value, format!("whole seconds from 1 to {MAX_TIMEOUT_S}"))),
    }
}

/// Plain digits: no sign, no space.
fn digits(value: &str) -> Option<u64> {
    value.bytes().all(|byte| byte.is_ascii_digit()).then(|| value.parse().ok()).flatten()
}

fn families(given: &Matches) -> Result<Families, UsageError> {
    match given.opt_str("family").as_deref() {
        None | Some("any") => Ok(Families::Any),
        Some("4") => Ok(Families::Only4),
        Some("6") => Ok(Families::Only6),
        Some(other) => Err(wrong("family", other, "any, 4 or 6")),
    }
}

fn sources(given: &Matches) -> Result<Sources, UsageError> {
    let mut sources = Sources::default();
    for value in given.opt_strs("bind") {
        let taken = match value.parse() {
            Ok(IpAddr::V4(address)) => sources.v4.replace(address).is_some(),
            Ok(IpAddr::V6(address)) => sources.v6.replace(address).is_some(),
            Err(_) => return Err(wrong("bind", &value, "an address of this machine, IPv6 without brackets")),
        };
        if taken {
            return Err(wrong("bind", &value, "one address for each family"));
        }
    }
    Ok(sources)
}

fn buffer_memory_bytes(value: &str) -> Result<u64, UsageError> {
    let (number, shift) = match value.as_bytes().last() {
        Some(b'K' | b'k') => (value.get(..value.len() - 1), 10),
        Some(b'M' | b'm') => (value.get(..value.len() - 1), 20),
        Some(b'G' | b'g') => (value.get(..value.len() - 1), 30),
        Some(_) | None => (Some(value), 0),
    };
    let bytes = number.and_then(digits).and_then(|number| number.checked_mul(1 << shift));
    match bytes {
        Some(bytes) if (MIN_BUFFER_MEMORY_BYTES..=MAX_BUFFER_MEMORY_BYTES).contains(&bytes) => Ok(bytes),
        Some(_) | None => {
            Err(wrong("buffer-memory", value, "bytes from 2M to 1024G, like 67108864, 65536K or 64M"))
        }
    }
}

/// Fewer where the memory would not suffice for so many.
fn one_per_core(buffer_memory_bytes: u64, max_sessions: usize) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let spare_bytes = buffer_memory_bytes.saturating_sub(max_sessions as u64 * SESSION_BYTES);
    let cache_bytes = MAX_CACHE_BYTES.min(buffer_memory_bytes / 32);
    let idle_bytes = idle_connections(buffer_memory_bytes, 1) * IDLE_BYTES as u64;
    let loop_bytes = MIN_RINGS_PER_LOOP * RING_BYTES as u64 + LOOP_BYTES + cache_bytes + idle_bytes;
    let affordable = spare_bytes / loop_bytes;
    cores.min(MAX_LOOPS).min(usize::try_from(affordable).unwrap_or(MAX_LOOPS)).max(1)
}

/// A 64th of the memory, as far as that makes sense.
fn idle_connections(buffer_memory_bytes: u64, loops: u64) -> u64 {
    let (fewest, most) = IDLE_CONNECTIONS;
    (buffer_memory_bytes / 64 / loops / IDLE_BYTES as u64).clamp(fewest, most)
}

fn listen(given: &Matches) -> Result<Vec<SocketAddr>, UsageError> {
    const EXPECTED: &str = "ADDR:PORT like 127.0.0.1:8080 or [::]:8080";
    let listen = each(given, "listen", |value| value.parse::<SocketAddr>().map_err(|_| EXPECTED))?;
    for (nth, address) in listen.iter().enumerate() {
        // Port 0 is another port each time.
        if address.port() != 0 && listen.iter().take(nth).any(|before| before == address) {
            return Err(wrong("listen", &address.to_string(), "each address once"));
        }
    }
    Ok(if listen.is_empty() { vec![DEFAULT_LISTEN] } else { listen })
}

fn nameserver(value: &str) -> Result<SocketAddr, &'static str> {
    let address = value.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, NAMESERVER_PORT));
    match address.or_else(|_| value.parse::<SocketAddr>()) {
        Ok(address) if address.port() != 0 => Ok(address),
        Ok(_) | Err(_) => Err("ADDR or ADDR:PORT like 192.0.2.53, 2001:db8::53 or [2001:db8::53]:5353"),
    }
}

fn via(given: &Matches) -> Result<Via, UsageError> {
    const EXPECTED: &str = "a name of at most 64 letters, digits and !#$%&'*+-.^_`|~ without spaces, or off";
    const _: () = assert!(MAX_VIA_BYTES == 64, "as the text says");
    match text(given, "via", EXPECTED)? {
        None => Ok(Via::Name(DEFAULT_VIA.into())),
        Some(value) if value == "off" => Ok(Via::Off),
        Some(value) if value.len() <= MAX_VIA_BYTES && value.bytes().all(is_token_byte) => {
            Ok(Via::Name(value.into_boxed_str()))
        }
        Some(value) => Err(wrong("via", &value, EXPECTED)),
    }
}

fn policy(given: &Matches, listen: &[SocketAddr]) -> Result<RuleSet, UsageError> {
    let rule = |text: &str| Rule::parse(text).map_err(BadRule::expected);
    let clients = each(given, "client", |text| parse_net(text).map_err(BadRule::expected))?;
    Ok(RuleSet {
        clients: if clients.is_empty() { default_clients(listen) } else { clients },
        deny: each(given, "deny", rule)?,
        allow: each(given, "allow", rule)?,
        connect_ports: ports(given, "connect-port", DEFAULT_CONNECT_PORTS)?,
        http_ports: ports(given, "http-port", DEFAULT_HTTP_PORTS)?,
        default: match given.opt_str("default").as_deref() {
            None | Some("allow") => DefaultAction::Allow,
            Some("deny") => DefaultAction::Deny,
            Some(value) => return Err(wrong("default", value, "allow or deny")),
        },
    })
}

fn ports(given: &Matches, option: &'static str, default: &str) -> Result<Ports, UsageError> {
    let value = given.opt_str(option);
    let value = value.as_deref().unwrap_or(default);
    let expected = "ports from 1 to 65535 like 443 or 443,8000-8999, or any";
    Ports::parse(value).map_err(|_| wrong(option, value, expected))
}

/// Loopback; private networks too once the proxy listens elsewhere. Never more, unless `--client` says so.
fn default_clients(listen: &[SocketAddr]) -> Vec<Net> {
    let mut clients = LOOPBACK.to_vec();
    if !listen.iter().all(|address| address.ip().to_canonical().is_loopback()) {
        clients.extend(PRIVATE);
    }
    clients
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::proto::rules::{Service, Verdict, Who};
    use crate::proto::target::Target;

    fn command(args: &[&str]) -> Result<Command, UsageError> {
        from_args(args.iter().map(OsString::from))
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
        assert_eq!(config.access_log, AccessLogTarget::Stdout);
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
        assert_eq!(config.access_log, AccessLogTarget::File("/tmp/access".into()));
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
            ("loops", "0", "1 to 256"),
            ("loops", "257", "1 to 256"),
            ("loops", "+1", "1 to 256"),
            ("loops", "", "1 to 256"),
            ("client", "10.0.0.1/8", "no bits behind the prefix"),
            ("client", "a.test", "an address or a network"),
            ("allow", "*.a.test", ".example.com"),
            ("allow", "a.test user alice", "users come with a later version"),
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
    fn what_comes_later_is_unknown() {
        for later in [
            "config",
            "users",
            "allow-file",
            "deny-file",
            "max-sessions-per-client",
            "log-format",
            "check-config",
        ] {
            assert!(
                error(&[&format!("--{later}"), "x"]).contains(&format!("unknown option --{later} ")),
                "{later}"
            );
        }
        assert!(error(&["-c", "x"]).contains("unknown option -c "));
        assert_eq!(error(&["--grace"]), "option --grace needs a value");
        assert_eq!(error(&["--grace", "1", "--grace", "1"]), "option --grace is given more than once");
        assert_eq!(error(&["--quiet=x"]), "option --quiet takes no value");
        assert!(error(&["check", "a.test"]).starts_with("\"check\" belongs to no option"));
    }

    #[test]
    fn small_choices() {
        for (text, bytes) in [("2M", 2 << 20), ("2097152", 2 << 20), ("4096k", 4 << 20), ("1G", 1 << 30)] {
            assert_eq!(config(&["--buffer-memory", text]).buffer_memory_bytes, bytes, "{text}");
        }
        assert_eq!(config(&["--buffer-memory", "2M"]).max_sessions, 341);
        assert_eq!(config(&["--buffer-memory", "1024G"]).max_sessions, MAX_SESSIONS);
        assert_eq!(config(&["--access-log", "off"]).access_log, AccessLogTarget::Off);
        assert_eq!(config(&["--access-log", "-"]).access_log, AccessLogTarget::Stdout);
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
    fn help_and_version_are_printed_whatever_else_stands_there() {
        let help = printed(&["--loops", "x", "-h"]);
        for (short, long) in ONCE.iter().chain(&REPEATABLE).chain(&FLAGS) {
            assert!(help.contains(&format!("--{long} ")), "--{long}");
            assert!(short.is_empty() || help.contains(&format!("  -{short}, --{long}")), "-{short}");
        }
        assert!(help.ends_with('\n') && help.is_ascii());
        for line in help.lines() {
            assert!(line.len() <= 84, "{line}");
        }
        assert_eq!(printed(&["--version"]), format!("adit {}\n", env!("CARGO_PKG_VERSION")));
    }
}
