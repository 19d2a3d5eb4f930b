//! Reads the configuration, starts one loop per core, turns signals into a drain, and says with the exit code how it went:
//! 0 fine, 1 the system failed, 2 called wrongly.
#![forbid(unsafe_code)]

use std::fmt::Display;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use adit::config::{self, AccessLogTarget, Command, Config, DEFAULT_HOSTS};
use adit::proto::pool::Limits;
use adit::proto::session::Policy;
use adit::sys::accept;
use adit::sys::access_log::{AccessLog, Timestamp};
use adit::sys::event_loop::{EventLoop, LoopConfig};
use adit::sys::name_files::{self, NameFiles};
use adit::sys::names::NamesConfig;
use adit::sys::output::LogWriter;
use adit::sys::shared::{Mailbox, Message, Shared};
use adit::sys::signals::{Signal, Signals};
use adit::sys::watch::Watch;
use mio::net::TcpListener;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const RESOLV_CONF: &str = "/etc/resolv.conf";
/// How often an address that is not there yet is tried.
const LATE_RETRY: Duration = Duration::from_secs(1);
const EXIT_SYSTEM: u8 = 1;
const EXIT_USAGE: u8 = 2;

/// The system failed at something without which the proxy cannot run.
struct Failed(String);

fn main() -> ExitCode {
    let config = match config::from_args(std::env::args_os().skip(1)) {
        Ok(Command::Run(config)) => config,
        Ok(Command::Print(text)) => {
            // Whoever closed stdout does not want to know.
            let _ = io::stdout().write_all(text.as_bytes());
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("adit: {error}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    start_log(config.verbosity);
    match run(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed(why)) => {
            log::error!("{why}");
            ExitCode::from(EXIT_SYSTEM)
        }
    }
}

fn start_log(verbosity: i8) {
    let level = match verbosity {
        ..=-2 => log::LevelFilter::Error,
        -1 => log::LevelFilter::Warn,
        0 => log::LevelFilter::Info,
        1 => log::LevelFilter::Debug,
        2.. => log::LevelFilter::Trace,
    };
    let mut logger = env_logger::Builder::new();
    // Whoever does not read our log must not be able to stop the loops. Without a descriptor for it: the usual way.
    if let Ok(writer) = LogWriter::stderr() {
        logger.target(env_logger::Target::Pipe(Box::new(writer)));
    }
    logger
        .filter_level(level)
        .parse_default_env()
        .format(|out, record| {
            writeln!(out, "{} {:5} {}", Timestamp(SystemTime::now()), record.level(), record.args())
        })
        .init();
}

fn run(config: &Config) -> Result<(), Failed> {
    raise_descriptor_limit();
    let mut signals = Signals::install().map_err(failed("cannot handle signals"))?;
    let Listening { own, sets, late } = listen(config)?;
    let policy = Arc::new(Policy {
        rules: config.rules(&own),
        timeouts: config.timeouts,
        families: config.families,
        via: config.via.proxy_status_name().into(),
        via_field: config.via.field_name().map(Box::from),
        forwarded: config.forwarded,
    });
    let shared = Arc::new(Shared::new(config.max_sessions));
    let (files, watch) = name_files(config)?;
    signals.watch(watch);
    let mut loops = Vec::new();
    for (index, listeners) in sets.into_iter().enumerate() {
        let loop_config = LoopConfig {
            listeners,
            policy: Arc::clone(&policy),
            names: files.config(),
            access_log: access_log(&config.access_log)?,
            sources: config.sources,
            buffer_bytes: config.ring_bytes_per_loop(),
            idle: Limits {
                total: config.idle_connections_per_loop(),
                per_origin: config.idle_connections_per_origin(),
            },
        };
        let tell = signals.teller().map_err(failed("cannot handle signals"))?;
        loops.push(start_loop(index, loop_config, Arc::clone(&shared), tell)?);
    }
    for address in own.iter().filter(|address| !late.contains(address)) {
        log::info!("listening on {address}");
    }
    for address in &late {
        log::warn!("waiting for {address}: it is not an address of this machine yet");
    }
    let noun = if config.loops == 1 { "loop" } else { "loops" };
    log::info!("{} {noun}, at most {} sessions", config.loops, config.max_sessions);
    Supervisor { shared, loops, late, files, draining: false }.run(&mut signals)
}

/// The soft limit is often 1024 for the sake of programs that use `select`. We take what we may have.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    // Not being allowed to is no reason not to start.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// The listeners of all loops.
struct Listening {
    /// All addresses to listen on, with real ports.
    own: Vec<SocketAddr>,
    /// One set for each loop.
    sets: Vec<Vec<TcpListener>>,
    /// Addresses that this machine does not have yet.
    late: Vec<SocketAddr>,
}

fn listen(config: &Config) -> Result<Listening, Failed> {
    let mut own = config.listen.clone();
    let mut late = Vec::new();
    let mut sets: Vec<Vec<TcpListener>> = Vec::new();
    sets.resize_with(config.loops, Vec::new);
    for address in &mut own {
        if address.port() != 0 && accept::is_shared(*address) {
            log::warn!(
                "{address} is in use by another process that shares it: it gets a part of the connections"
            );
        }
        match listen_for_all(address, config.loops) {
            Ok(listeners) => sets.iter_mut().zip(listeners).for_each(|(set, listener)| set.push(listener)),
            Err(error) if accept::is_not_here(&error) => late.push(*address),
            Err(error) => return Err(failed(&format!("cannot listen on {address}"))(error)),
        }
    }
    Ok(Listening { own, sets, late })
}

/// A listener for each loop. When the kernel picks a port for the first, the others take the same.
fn listen_for_all(address: &mut SocketAddr, loops: usize) -> io::Result<Vec<TcpListener>> {
    let mut listeners = Vec::new();
    for _ in 0..loops {
        let listener = accept::listen(*address)?;
        *address = listener.local_addr()?;
        listeners.push(listener);
    }
    Ok(listeners)
}

/// Where names come from. The watch stands before the files are read, so that no change falls in between.
fn name_files(config: &Config) -> Result<(NameFiles, Watch), Failed> {
    let resolv_conf = Path::new(RESOLV_CONF);
    let hosts = config.hosts.as_deref().unwrap_or(Path::new(DEFAULT_HOSTS));
    let watch = Watch::new(&[resolv_conf, hosts]);
    let sources = name_files::Sources {
        resolv_conf: resolv_conf.into(),
        hosts: hosts.into(),
        hosts_required: config.hosts.is_some(),
        nameservers: config.nameservers.clone(),
        config: NamesConfig {
            resolve_timeout_ms: config.timeouts.resolve_ms,
            families: config.families,
            cache_bytes: usize::try_from(config.cache_bytes_per_loop()).unwrap_or(usize::MAX),
            // The rest is what the files say.
            nameservers: Vec::new(),
            search: Vec::new(),
            ndots: 0,
            timeout_ms: 0,
            attempts: 0,
            rotate: false,
            hosts: Arc::default(),
        },
    };
    let files = NameFiles::read(sources).map_err(|error| Failed(error.to_string()))?;
    Ok((files, watch))
}

fn access_log(target: &AccessLogTarget) -> Result<AccessLog, Failed> {
    match target {
        AccessLogTarget::Off => Ok(AccessLog::off()),
        AccessLogTarget::Stdout => AccessLog::stdout().map_err(failed("cannot write to standard output")),
        AccessLogTarget::File(path) => {
            AccessLog::file(path).map_err(failed(&format!("cannot write to {}", path.display())))
        }
    }
}

struct Loop {
    thread: JoinHandle<()>,
    mailbox: Arc<Mailbox>,
}

fn start_loop(
    index: usize,
    config: LoopConfig,
    shared: Arc<Shared>,
    tell: UnixStream,
) -> Result<Loop, Failed> {
    let (event_loop, mailbox) =
        EventLoop::new(config, shared).map_err(failed("cannot start an event loop"))?;
    let body = move || {
        // Told however the loop ends, by return or by panic.
        let _tell = TellsOnDrop(tell);
        if let Err(error) = event_loop.run() {
            log::error!("an event loop failed: {error}");
        }
    };
    let thread = thread::Builder::new().name(format!("loop-{index}")).spawn(body);
    Ok(Loop { thread: thread.map_err(failed("cannot start a thread"))?, mailbox })
}

struct TellsOnDrop(UnixStream);

impl Drop for TellsOnDrop {
    fn drop(&mut self) {
        // The main thread cannot be gone: it waits for this.
        let _ = self.0.write_all(Signals::LOOP_ENDED);
    }
}

/// What the main thread does once the loops run.
struct Supervisor {
    shared: Arc<Shared>,
    loops: Vec<Loop>,
    /// Addresses that this machine does not have yet.
    late: Vec<SocketAddr>,
    files: NameFiles,
    draining: bool,
}

impl Supervisor {
    /// Passes signals on to the loops until all have ended. A loop that ends by itself ends the process, so that whoever
    /// supervises it starts it again.
    fn run(mut self, signals: &mut Signals) -> Result<(), Failed> {
        let mut ended = 0;
        while ended < self.loops.len() {
            if !self.late.is_empty() && !self.draining {
                signals.wake_in(LATE_RETRY);
            }
            match signals.wait().map_err(failed("cannot wait for signals"))? {
                Signal::Terminate => self.terminate()?,
                Signal::Hangup => self.reload_names(Flush::Always)?,
                Signal::FilesChanged => self.reload_names(Flush::IfChanged)?,
                Signal::Reopen => self.tell_all(|| Message::ReopenLog)?,
                Signal::Time => self.listen_late()?,
                Signal::LoopEnded if self.draining => ended += 1,
                Signal::LoopEnded => return Err(Failed("an event loop ended by itself".to_owned())),
            }
        }
        for each in self.loops {
            each.thread.join().map_err(|_| Failed("an event loop panicked".to_owned()))?;
        }
        log::info!("stopped");
        Ok(())
    }

    fn terminate(&mut self) -> Result<(), Failed> {
        log::info!("{}", if self.draining { "second signal: ending now" } else { "draining" });
        self.draining = true;
        self.shared.terminate();
        self.loops
            .iter()
            .try_for_each(|each| each.mailbox.wake())
            .map_err(failed("cannot wake an event loop"))
    }

    fn reload_names(&mut self, flush: Flush) -> Result<(), Failed> {
        match self.files.reread() {
            Some(config) => self.tell_all(|| Message::Names(Box::new(config.clone())))?,
            None if flush == Flush::Always => {
                log::info!("names are forgotten; resolv.conf and hosts say what they said before");
            }
            None => {}
        }
        match flush {
            Flush::Always => self.tell_all(|| Message::ForgetNames),
            Flush::IfChanged => Ok(()),
        }
    }

    fn listen_late(&mut self) -> Result<(), Failed> {
        if self.draining {
            return Ok(());
        }
        for address in std::mem::take(&mut self.late) {
            match listen_for_all(&mut address.clone(), self.loops.len()) {
                Ok(listeners) => {
                    log::info!("listening on {address}");
                    for (each, listener) in self.loops.iter().zip(listeners) {
                        let sent = each.mailbox.send(Message::Listen(listener));
                        sent.map_err(failed("cannot wake an event loop"))?;
                    }
                }
                Err(error) if accept::is_not_here(&error) => self.late.push(address),
                Err(error) => log::error!("cannot listen on {address}: {error}; giving it up"),
            }
        }
        Ok(())
    }

    fn tell_all(&self, message: impl Fn() -> Message) -> Result<(), Failed> {
        let mut loops = self.loops.iter();
        loops.try_for_each(|each| each.mailbox.send(message())).map_err(failed("cannot wake an event loop"))
    }
}

/// Whether remembered names are forgotten.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flush {
    Always,
    /// Only when where they come from has changed.
    IfChanged,
}

fn failed<E: Display>(what: &str) -> impl FnOnce(E) -> Failed {
    let what = what.to_owned();
    move |error| Failed(format!("{what}: {error}"))
}
