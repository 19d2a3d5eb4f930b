//! Options and limits: the command line becomes a `Config`; every default and every limit stands here, with its unit in
//! its name.

mod check;
mod given;
mod memory;
#[cfg(test)]
mod tests;
mod usage;

use crate::proto::access_line::LogFormat;
use crate::proto::eyeballs::Eyeballs;
use crate::proto::guard::{LOOPBACK, Net, PRIVATE};
use crate::proto::login_queue::{CLIENT_BYTES, CLIENTS_MAX, QUESTION_BYTES, QUESTIONS_MAX};
use crate::proto::logins::LOGIN_BYTES;
use crate::proto::lookup::Families;
use crate::proto::pool::Pool;
use crate::proto::reply::is_token_byte;
use crate::proto::resolver::MAX_TCP;
use crate::proto::ring::RING_BYTES;
use crate::proto::rules::{BadRule, DefaultAction, Ports, Rule, RuleSet, Rules, parse_net};
use crate::proto::scan::MAX_HEAD_BYTES;
use crate::proto::session::{Forwarded, Session, Timeouts};
pub use check::{Check, Through, TlsProbe};
use given::Given;
use memory::Memory;
use std::ffi::OsString;
use std::fmt::{self, Display};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZero;
use std::path::{Path, PathBuf};
pub use usage::UsageError;

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
/// Longest file of `--config`.
pub const MAX_CONFIG_BYTES: u64 = 1 << 20;
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
/// Fewest and most verdicts on credentials that one loop remembers, if there are users.
const LOGINS: (u64, u64) = (64, 4096);
/// Answers that are kept for another loop with the same question.
pub const RECENT_LOGINS_MAX: usize = 256;
/// What the verifying of credentials takes, if there are users, for all loops together.
const LOGIN_DESK_BYTES: u64 =
    (QUESTIONS_MAX * QUESTION_BYTES + CLIENTS_MAX * CLIENT_BYTES + RECENT_LOGINS_MAX * LOGIN_BYTES) as u64;
/// Access lines that one loop holds back for a slow reader take at most this of it.
pub const LOG_BACKLOG_BYTES: usize = 64 << 10;
/// Sessions of one loop, beyond `--max-sessions`, that exist only to tell their client why it is refused and to linger
/// behind that. Beyond these the answer is sent without lingering.
pub const REFUSING_MAX: usize = 32;
/// Bytes that are only looked at, or thrown away, go through so much.
pub const SCRATCH_BYTES: usize = 64 << 10;
/// What one loop takes besides: that, access lines, long answers of nameservers, sessions that are being refused.
const LOOP_BYTES: u64 = (SCRATCH_BYTES + LOG_BACKLOG_BYTES) as u64
    + MAX_TCP as u64 * (16 << 10)
    + REFUSING_MAX as u64 * SESSION_BYTES;
/// A loop with fewer rings than this could not serve a handful of busy tunnels.
pub const MIN_RINGS_PER_LOOP: u64 = 4;

const _: () = assert!(MIN_BUFFER_MEMORY_BYTES / BUFFER_BYTES_PER_SESSION > 0);
const _: () = assert!(BUFFER_BYTES_PER_SESSION > SESSION_BYTES);
// What is dialed, the name twice (as asked for and as completed), its share of a lookup, sockets, deadline and places in queues,
// and what the allocator adds; or, at another time, the proxy's own answer with a URL.
const _: () = assert!(Session::BYTES_MAX + Eyeballs::BYTES_MAX + 2 * 256 + 768 <= SESSION_BYTES as usize);
const _: () = assert!(Session::BYTES_MAX + 1024 + 256 <= SESSION_BYTES as usize);
// Or what the client has shown to be let in.
const _: () = assert!(Session::BYTES_MAX + Session::LOGIN_BYTES_MAX + 256 <= SESSION_BYTES as usize);
const _: () = assert!(Pool::<u32>::IDLE_BYTES_MAX <= IDLE_BYTES);
const _: () = assert!(MIN_BUFFER_MEMORY_BYTES >= 16 * MAX_HEAD_BYTES as u64);
const _: () = assert!(DEFAULT_BUFFER_MEMORY_BYTES >= MIN_BUFFER_MEMORY_BYTES);
const _: () = assert!(MAX_TIMEOUT_S >= DEFAULT_IDLE_TIMEOUT_S);

/// What the program is to do.
#[derive(Debug)]
pub enum Command {
    /// Run the proxy.
    Run(Box<Config>),
    /// Say why a destination is, or is not, reachable, and exit with the code that says the same.
    Check(Box<Config>, Box<Check>),
    /// Read everything that the proxy would read, say `ok` and exit 0.
    CheckConfig(Box<Config>),
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
    /// `syslog`: the local daemon, by its socket.
    Syslog,
    /// Appended to this file.
    File(PathBuf),
}

/// As messages name it.
impl Display for AccessLogTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AccessLogTarget::Stdout => f.write_str("standard output"),
            AccessLogTarget::Off => f.write_str("off"),
            AccessLogTarget::Syslog => f.write_str("syslog"),
            AccessLogTarget::File(path) => path.display().fmt(f),
        }
    }
}

/// The access log: cheap to make again, to compare, and to open with `AccessLog::open`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLogConfig {
    /// `--access-log`
    pub target: AccessLogTarget,
    /// `--log-format`
    pub format: LogFormat,
}

impl Default for AccessLogConfig {
    fn default() -> AccessLogConfig {
        AccessLogConfig { target: AccessLogTarget::Stdout, format: LogFormat::Adit }
    }
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

/// Numbers that follow from `--buffer-memory` where they are not given.
#[derive(Clone, Copy, Debug)]
struct Asked {
    loops: Option<usize>,
    max_sessions: Option<usize>,
}

/// Everything that can be set, complete and checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen; at least one, each once.
    pub listen: Vec<SocketAddr>,
    /// Event loops, one thread each.
    pub loops: usize,
    /// Of both numbers, what was given.
    asked: Asked,
    /// Clients and destinations; see [`Config::rules`].
    pub policy: RuleSet,
    /// `--deny-file`, in order.
    pub deny_files: Vec<PathBuf>,
    /// `--allow-file`, in order.
    pub allow_files: Vec<PathBuf>,
    /// The htpasswd file; without one, everybody in [`RuleSet::clients`] may use the proxy.
    pub users: Option<PathBuf>,
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
    /// Sessions of one client, by its address, over all loops.
    pub max_sessions_per_client: Option<usize>,
    /// Ceiling for all storage that clients can make grow.
    pub buffer_memory_bytes: u64,
    /// See [`Timeouts`].
    pub timeouts: Timeouts,
    /// See [`AccessLogConfig`].
    pub access_log: AccessLogConfig,
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

    /// Takes over from the configuration in force what cannot change while the proxy runs. The options that would have.
    #[must_use]
    pub fn keep_fixed(&mut self, in_force: &Config) -> Vec<&'static str> {
        let mut kept = Vec::new();
        let mut keep = |differs: bool, option| {
            if differs {
                kept.push(option);
            }
        };
        // What nobody asked for follows from the memory, and is nothing to be told of.
        keep(self.asked.loops != in_force.asked.loops, "loops");
        keep(self.asked.max_sessions != in_force.asked.max_sessions, "max-sessions");
        keep(self.max_sessions_per_client != in_force.max_sessions_per_client, "max-sessions-per-client");
        keep(self.buffer_memory_bytes != in_force.buffer_memory_bytes, "buffer-memory");
        keep(self.verbosity != in_force.verbosity, "verbose and --quiet");
        self.asked = in_force.asked;
        self.loops = in_force.loops;
        self.max_sessions = in_force.max_sessions;
        self.max_sessions_per_client = in_force.max_sessions_per_client;
        self.buffer_memory_bytes = in_force.buffer_memory_bytes;
        self.verbosity = in_force.verbosity;
        kept
    }

    fn from_given(given: &Given) -> Result<Config, UsageError> {
        let listen = listen(given)?;
        let buffer_memory_bytes = match given.one("buffer-memory") {
            Some(said) => buffer_memory_bytes(&said.text).map_err(|expected| given.wrong(said, expected))?,
            None => DEFAULT_BUFFER_MEMORY_BYTES,
        };
        let users = text(given, "users", A_FILE)?.map(PathBuf::from);
        let memory = Memory(buffer_memory_bytes);
        let asked = Asked {
            loops: number(given, "loops", MAX_LOOPS)?,
            max_sessions: number(given, "max-sessions", MAX_SESSIONS)?,
        };
        let max_sessions = asked.max_sessions.unwrap_or(memory.sessions());
        let nameservers = each(given, "nameserver", nameserver)?;
        let times = |flag: &str| i8::try_from(given.all(flag).count()).unwrap_or(i8::MAX);
        Ok(Config {
            policy: policy(given, &listen)?,
            deny_files: files(given, "deny-file")?,
            allow_files: files(given, "allow-file")?,
            users,
            listen,
            loops: asked.loops.unwrap_or_else(|| memory.one_per_core(max_sessions)),
            asked,
            nameservers: (!nameservers.is_empty()).then_some(nameservers),
            hosts: text(given, "hosts", A_FILE)?.map(PathBuf::from),
            families: families(given)?,
            sources: sources(given)?,
            max_sessions,
            max_sessions_per_client: number(given, "max-sessions-per-client", MAX_SESSIONS)?,
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
            access_log: access_log(given)?,
            via: via(given)?,
            forwarded: if given.has("forwarded") { Forwarded::Added } else { Forwarded::Omitted },
            verbosity: times("verbose").saturating_sub(times("quiet")),
        })
    }
}

/// Reads the command line, **without** the program's name in front, and the file of `--config`, if it names one, by means of
/// `read_file`. Options of the command line win over those of the file; repeatable ones add up.
///
/// # Errors
/// The first thing that is wrong.
pub fn from_args<I: IntoIterator<Item = OsString>>(
    args: I,
    read_file: &dyn Fn(&Path) -> io::Result<Vec<u8>>,
) -> Result<Command, UsageError> {
    let words: Result<Vec<String>, OsString> = args.into_iter().map(OsString::into_string).collect();
    let mut words =
        words.map_err(|word| UsageError::NotUtf8 { word: word.to_string_lossy().into_owned() })?;
    let asked = check::Asked::take(&mut words)?;
    let mut given = Given::from_words(words)?;
    if given.has("help") {
        return Ok(Command::Print(usage::help()));
    }
    if given.has("version") {
        return Ok(Command::Print(format!("adit {}\n", env!("CARGO_PKG_VERSION"))));
    }
    if let Some(file) = text(&given, "config", A_FILE)?.map(str::to_owned) {
        let content = read_file(Path::new(&file))
            .map_err(|error| UsageError::Unreadable { file: file.clone(), error: error.to_string() })?;
        given.add_file(&file, &content)?;
    }
    // Values come first: a word left over is often the value of an option that has taken another one.
    let config = Box::new(Config::from_given(&given)?);
    config
        .check_memory()
        .map_err(|error| given.together(&["max-sessions", "loops", "buffer-memory"], error))?;
    let check = asked.map(|asked| asked.complete(&given.free)).transpose()?;
    if let (None, Some(word)) = (&check, given.free.first()) {
        return Err(UsageError::Stray { word: word.clone() });
    }
    Ok(match check {
        _ if given.has("check-config") => Command::CheckConfig(config),
        Some(check) => Command::Check(config, check),
        None => Command::Run(config),
    })
}

const A_FILE: &str = "a file";

/// Every value of a repeatable option.
fn each<T>(
    given: &Given,
    option: &'static str,
    read: impl Fn(&str) -> Result<T, &'static str>,
) -> Result<Vec<T>, UsageError> {
    given.all(option).map(|said| read(&said.text).map_err(|expected| given.wrong(said, expected))).collect()
}

/// A text that is not empty.
fn text<'a>(given: &'a Given, option: &str, expected: &str) -> Result<Option<&'a str>, UsageError> {
    match given.one(option) {
        Some(said) if said.text.is_empty() => Err(given.wrong(said, expected)),
        said => Ok(said.map(|said| &*said.text)),
    }
}

fn files(given: &Given, option: &'static str) -> Result<Vec<PathBuf>, UsageError> {
    each(given, option, |file| if file.is_empty() { Err(A_FILE) } else { Ok(PathBuf::from(file)) })
}

/// A number from 1 to `most`, in plain digits.
fn number(given: &Given, option: &str, most: usize) -> Result<Option<usize>, UsageError> {
    let Some(said) = given.one(option) else { return Ok(None) };
    match digits(&said.text).and_then(|number| usize::try_from(number).ok()) {
        Some(number) if (1..=most).contains(&number) => Ok(Some(number)),
        Some(_) | None => Err(given.wrong(said, format!("a number from 1 to {most}"))),
    }
}

fn timeout_ms(given: &Given, option: &str, default_s: u64) -> Result<u64, UsageError> {
    let Some(said) = given.one(option) else { return Ok(default_s * 1000) };
    match digits(&said.text) {
        Some(seconds) if (1..=MAX_TIMEOUT_S).contains(&seconds) => Ok(seconds * 1000),
        Some(_) | None => Err(given.wrong(said, format!("whole seconds from 1 to {MAX_TIMEOUT_S}"))),
    }
}

/// Plain digits: no sign, no space.
fn digits(value: &str) -> Option<u64> {
    value.bytes().all(|byte| byte.is_ascii_digit()).then(|| value.parse().ok()).flatten()
}

/// One of a few words.
fn choice<T: Copy>(
    given: &Given,
    option: &str,
    choices: &[(&str, T)],
    expected: &str,
) -> Result<Option<T>, UsageError> {
    let Some(said) = given.one(option) else { return Ok(None) };
    match choices.iter().find(|(word, _)| *word == said.text) {
        Some((_, choice)) => Ok(Some(*choice)),
        None => Err(given.wrong(said, expected)),
    }
}

fn families(given: &Given) -> Result<Families, UsageError> {
    let choices = [("any", Families::Any), ("4", Families::Only4), ("6", Families::Only6)];
    Ok(choice(given, "family", &choices, "any, 4 or 6")?.unwrap_or(Families::Any))
}

fn sources(given: &Given) -> Result<Sources, UsageError> {
    let mut sources = Sources::default();
    for said in given.all("bind") {
        let taken = match said.text.parse() {
            Ok(IpAddr::V4(address)) => sources.v4.replace(address).is_some(),
            Ok(IpAddr::V6(address)) => sources.v6.replace(address).is_some(),
            Err(_) => return Err(given.wrong(said, "an address of this machine, IPv6 without brackets")),
        };
        if taken {
            return Err(given.wrong(said, "one address for each family"));
        }
    }
    Ok(sources)
}

fn access_log(given: &Given) -> Result<AccessLogConfig, UsageError> {
    let formats = [("adit", LogFormat::Adit), ("squid", LogFormat::Squid), ("json", LogFormat::Json)];
    Ok(AccessLogConfig {
        target: match text(given, "access-log", "a file, - for stdout, syslog, or off")? {
            None | Some("-") => AccessLogTarget::Stdout,
            Some("off") => AccessLogTarget::Off,
            Some("syslog") => AccessLogTarget::Syslog,
            Some(file) => AccessLogTarget::File(PathBuf::from(file)),
        },
        format: choice(given, "log-format", &formats, "adit, squid or json")?.unwrap_or(LogFormat::Adit),
    })
}

fn buffer_memory_bytes(value: &str) -> Result<u64, &'static str> {
    let (number, shift) = match value.as_bytes().last() {
        Some(b'K' | b'k') => (value.get(..value.len() - 1), 10),
        Some(b'M' | b'm') => (value.get(..value.len() - 1), 20),
        Some(b'G' | b'g') => (value.get(..value.len() - 1), 30),
        Some(_) | None => (Some(value), 0),
    };
    let bytes = number.and_then(digits).and_then(|number| number.checked_mul(1 << shift));
    match bytes {
        Some(bytes) if (MIN_BUFFER_MEMORY_BYTES..=MAX_BUFFER_MEMORY_BYTES).contains(&bytes) => Ok(bytes),
        Some(_) | None => Err("bytes from 2M to 1024G, like 67108864, 65536K or 64M"),
    }
}

fn listen(given: &Given) -> Result<Vec<SocketAddr>, UsageError> {
    const EXPECTED: &str = "ADDR:PORT like 127.0.0.1:8080 or [::]:8080";
    let mut listen: Vec<SocketAddr> = Vec::new();
    for said in given.all("listen") {
        let address: SocketAddr = said.text.parse().map_err(|_| given.wrong(said, EXPECTED))?;
        if address.ip() != address.ip().to_canonical() {
            return Err(given.wrong(said, "an IPv4 address as such: 127.0.0.1:8080"));
        }
        // Port 0 is another port each time.
        if address.port() != 0 && listen.contains(&address) {
            return Err(given.wrong(said, "each address once"));
        }
        listen.push(address);
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

fn via(given: &Given) -> Result<Via, UsageError> {
    const EXPECTED: &str = "a name of at most 64 letters, digits and !#$%&'*+-.^_`|~ without spaces, or off";
    const _: () = assert!(MAX_VIA_BYTES == 64, "as the text says");
    let Some(said) = given.one("via") else { return Ok(Via::Name(DEFAULT_VIA.into())) };
    match &*said.text {
        "off" => Ok(Via::Off),
        name if (1..=MAX_VIA_BYTES).contains(&name.len()) && name.bytes().all(is_token_byte) => {
            Ok(Via::Name(name.into()))
        }
        _ => Err(given.wrong(said, EXPECTED)),
    }
}

fn policy(given: &Given, listen: &[SocketAddr]) -> Result<RuleSet, UsageError> {
    let rule = |text: &str| Rule::parse(text).map_err(BadRule::expected);
    let clients = each(given, "client", |text| parse_net(text).map_err(BadRule::expected))?;
    let defaults = [("allow", DefaultAction::Allow), ("deny", DefaultAction::Deny)];
    Ok(RuleSet {
        clients: if clients.is_empty() { default_clients(listen) } else { clients },
        deny: each(given, "deny", rule)?,
        deny_lists: Vec::new(),
        allow: each(given, "allow", rule)?,
        allow_lists: Vec::new(),
        connect_ports: ports(given, "connect-port", DEFAULT_CONNECT_PORTS)?,
        http_ports: ports(given, "http-port", DEFAULT_HTTP_PORTS)?,
        default: choice(given, "default", &defaults, "allow or deny")?.unwrap_or(DefaultAction::Allow),
    })
}

fn ports(given: &Given, option: &str, default: &str) -> Result<Ports, UsageError> {
    const EXPECTED: &str = "ports from 1 to 65535 like 443 or 443,8000-8999, or any";
    match given.one(option) {
        Some(said) => Ports::parse(&said.text).map_err(|_| given.wrong(said, EXPECTED)),
        // Tested to be fine.
        None => Ok(Ports::parse(default).unwrap_or_else(|_| Ports::only(&[]))),
    }
}

/// Loopback; private networks too once the proxy listens elsewhere. Never more, unless `--client` says so.
fn default_clients(listen: &[SocketAddr]) -> Vec<Net> {
    let mut clients = LOOPBACK.to_vec();
    if !listen.iter().all(|address| address.ip().to_canonical().is_loopback()) {
        clients.extend(PRIVATE);
    }
    clients
}
