//! What the main thread does: opens listeners, starts a loop for each core, and turns signals and changed files into messages
//! for the loops. Layer 6.5.

use std::fmt::Display;
use std::io::{self, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::event_loop::{EventLoop, LoopConfig};
use super::files::When;
use super::listening::{CannotListen, Change, Listening};
use super::logins::LoginDesk;
use super::name_files::NameFiles;
use super::settings::{BadFile, Settings};
use super::shared::{LoopSettings, Mailbox, Message, Shared, spawn};
use super::signals::{Signal, Signals};
use super::watch::Watch;
use crate::proto::pool::Limits;

/// How often an address that is not there yet is tried.
const LATE_RETRY: Duration = Duration::from_secs(1);

/// The system failed at something without which the proxy cannot run; one sentence says what.
#[derive(Debug)]
pub struct Failed(pub String);

/// How the settings are read again.
pub type Reread<'a> = dyn Fn() -> Result<Settings, String> + 'a;

/// See the module's documentation.
pub struct Supervisor<'a> {
    settings: Settings,
    reread: &'a Reread<'a>,
    shared: Arc<Shared>,
    loops: Vec<Loop>,
    loop_failed: Arc<AtomicBool>,
    listening: Listening,
    files: NameFiles,
    signals: Signals,
    draining: bool,
}

struct Loop {
    thread: JoinHandle<()>,
    mailbox: Arc<Mailbox>,
}

impl Supervisor<'_> {
    /// Starts the proxy.
    ///
    /// # Errors
    /// What the system does not let us do.
    pub fn start<'a>(settings: Settings, reread: &'a Reread<'a>) -> Result<Supervisor<'a>, Failed> {
        let mut signals = Signals::install().map_err(failed("cannot handle signals"))?;
        let config = &settings.config;
        let Change { listening, opened, .. } = Listening::default().change(&config.listen, config.loops)?;
        let policy = settings.policy(&listening.addresses());
        let shared = Arc::new(Shared::new(config.max_sessions, config.max_sessions_per_client));
        let logins = Arc::new(LoginDesk::new());
        let (files, watch) = name_files(&settings, When::AtStart)?;
        signals.watch(watch);
        let (mut loops, loop_failed) = (Vec::new(), Arc::new(AtomicBool::new(false)));
        let access_logs = settings.access_logs(config.loops)?;
        for (index, (listeners, access_log)) in opened.into_iter().zip(access_logs).enumerate() {
            let loop_config = LoopConfig {
                listeners,
                policy: Arc::clone(&policy),
                names: files.config(),
                logins: Arc::clone(&logins),
                logins_max: config.logins_per_loop(),
                access_log,
                sources: config.sources,
                buffer_bytes: config.ring_bytes_per_loop(),
                idle: Limits {
                    total: config.idle_connections_per_loop(),
                    per_origin: config.idle_connections_per_origin(),
                },
            };
            let tell = signals.teller().map_err(failed("cannot handle signals"))?;
            let failed = Arc::clone(&loop_failed);
            loops.push(start_loop(index, loop_config, Arc::clone(&shared), tell, failed)?);
        }
        listening.announce(&Listening::default());
        let noun = if config.loops == 1 { "loop" } else { "loops" };
        log::info!("{} {noun}, at most {} sessions", config.loops, config.max_sessions);
        Ok(Supervisor {
            settings,
            reread,
            shared,
            loops,
            loop_failed,
            listening,
            files,
            signals,
            draining: false,
        })
    }

    /// Passes signals on to the loops until all have ended. A loop that ends by itself ends the process, so that whoever
    /// supervises it starts it again; while draining, the others go on first.
    ///
    /// # Errors
    /// What the system does not let us do, or a loop that has ended by itself.
    pub fn run(mut self) -> Result<(), Failed> {
        let mut ended = 0;
        while ended < self.loops.len() {
            if self.listening.has_late() && !self.draining {
                self.signals.wake_in(LATE_RETRY);
            }
            match self.signals.wait().map_err(failed("cannot wait for signals"))? {
                Signal::Terminate => self.terminate()?,
                Signal::Hangup => self.reload()?,
                Signal::FilesChanged => self.reload_names()?,
                Signal::Reopen => self.tell_all(|| Message::ReopenLog)?,
                Signal::Time => self.listen_late()?,
                Signal::LoopEnded if self.draining => ended += 1,
                Signal::LoopEnded => return Err(Failed("an event loop ended by itself".to_owned())),
            }
        }
        for each in self.loops {
            each.thread.join().map_err(|_| Failed("an event loop panicked".to_owned()))?;
        }
        if self.loop_failed.load(Ordering::Relaxed) {
            return Err(Failed("an event loop ended before it had drained".to_owned()));
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

    /// Everything is read and opened first; only then is anything changed, in each loop by one message.
    fn reload(&mut self) -> Result<(), Failed> {
        if self.draining {
            log::info!("draining: settings are not read again");
            return Ok(());
        }
        match self.prepare() {
            Ok(next) => self.put_in_force(next),
            Err(error) => {
                log::error!("not reloaded, nothing has changed: {error}");
                Ok(())
            }
        }
    }

    fn prepare(&mut self) -> Result<Next, String> {
        let mut settings = (self.reread)()?;
        settings.keep_same_users(&self.settings);
        for option in settings.config.keep_fixed(&self.settings.config) {
            log::warn!("--{option} needs a restart: it stays as it was");
        }
        // With what stays as it was.
        settings.config.check_memory().map_err(|error| error.to_string())?;
        let loops = self.loops.len();
        let files = if self.files.are_from(&settings.name_sources()) {
            None
        } else {
            Some(name_files(&settings, When::Running).map_err(|Failed(error)| error)?)
        };
        let access_logs = if settings.config.access_log == self.settings.config.access_log {
            (0..loops).map(|_| None).collect()
        } else {
            let opened = settings.access_logs(loops).map_err(|error| error.to_string())?;
            opened.into_iter().map(Some).collect()
        };
        // Last: a client may come as soon as it stands.
        let change =
            self.listening.change(&settings.config.listen, loops).map_err(|error| error.to_string())?;
        Ok(Next { settings, change, access_logs, files })
    }

    fn put_in_force(&mut self, next: Next) -> Result<(), Failed> {
        let Next { settings, change, access_logs, files } = next;
        let names = match files {
            Some((files, watch)) => {
                self.files = files;
                self.signals.watch(watch);
                Some(self.files.config())
            }
            None => self.files.reread(),
        };
        if names.is_none() {
            log::info!("names are forgotten; resolv.conf and hosts say what they said before");
        }
        let policy = settings.policy(&change.listening.addresses());
        for ((each, open), access_log) in self.loops.iter().zip(change.opened).zip(access_logs) {
            let settings = LoopSettings {
                policy: Arc::clone(&policy),
                buffer_bytes: settings.config.ring_bytes_per_loop(),
                sources: settings.config.sources,
                names: names.clone(),
                access_log,
                open,
                close: change.closed.clone(),
            };
            let sent = each.mailbox.send(Message::Settings(Box::new(settings)));
            sent.map_err(failed("cannot wake an event loop"))?;
        }
        change.listening.announce(&self.listening);
        for address in &change.closed {
            log::info!("no longer listening on {address}");
        }
        self.listening = change.listening;
        log::info!("reloaded: {}", settings.summary());
        self.settings = settings;
        Ok(())
    }

    fn reload_names(&mut self) -> Result<(), Failed> {
        match self.files.reread() {
            Some(config) => self.tell_all(|| Message::Names(Box::new(config.clone()))),
            None => Ok(()),
        }
    }

    fn listen_late(&mut self) -> Result<(), Failed> {
        if self.draining {
            return Ok(());
        }
        let opened = self.listening.open_late(self.loops.len());
        for (each, listeners) in self.loops.iter().zip(opened) {
            for listener in listeners {
                let sent = each.mailbox.send(Message::Listen(listener));
                sent.map_err(failed("cannot wake an event loop"))?;
            }
        }
        Ok(())
    }

    fn tell_all(&self, message: impl Fn() -> Message) -> Result<(), Failed> {
        let mut loops = self.loops.iter();
        loops.try_for_each(|each| each.mailbox.send(message())).map_err(failed("cannot wake an event loop"))
    }
}

/// What a reload has read and opened.
struct Next {
    settings: Settings,
    change: Change,
    /// One for each loop; none if it stays.
    access_logs: Vec<Option<super::access_log::AccessLog>>,
    /// None if the files are the same ones.
    files: Option<(NameFiles, Watch)>,
}

/// Where names come from. The watch stands before the files are read, so that no change falls in between.
fn name_files(settings: &Settings, when: When) -> Result<(NameFiles, Watch), Failed> {
    let sources = settings.name_sources();
    let watch = Watch::new(&[&sources.resolv_conf, &sources.hosts]);
    let files = NameFiles::read(sources, when).map_err(|error| Failed(error.to_string()))?;
    Ok((files, watch))
}

fn start_loop(
    index: usize,
    config: LoopConfig,
    shared: Arc<Shared>,
    tell: UnixStream,
    loop_failed: Arc<AtomicBool>,
) -> Result<Loop, Failed> {
    let (event_loop, mailbox) =
        EventLoop::new(config, shared).map_err(failed("cannot start an event loop"))?;
    let body = Box::new(move || run_loop(tell, &loop_failed, || event_loop.run()));
    let thread = spawn(format!("loop-{index}"), body);
    Ok(Loop { thread: thread.map_err(failed("cannot start a thread"))?, mailbox })
}

/// However the loop ends, by return or by panic, the main thread is told.
fn run_loop(tell: UnixStream, failed: &AtomicBool, run: impl FnOnce() -> io::Result<()>) {
    let _tell = TellsOnDrop(tell);
    if let Err(error) = run() {
        failed.store(true, Ordering::Relaxed);
        log::error!("an event loop failed: {error}");
    }
}

struct TellsOnDrop(UnixStream);

impl Drop for TellsOnDrop {
    fn drop(&mut self) {
        // The main thread cannot be gone: it waits for this.
        let _ = self.0.write_all(Signals::LOOP_ENDED);
    }
}

fn failed<E: Display>(what: &str) -> impl FnOnce(E) -> Failed {
    let what = what.to_owned();
    move |error| Failed(format!("{what}: {error}"))
}

impl From<CannotListen> for Failed {
    fn from(error: CannotListen) -> Failed {
        Failed(error.to_string())
    }
}

impl From<BadFile> for Failed {
    fn from(error: BadFile) -> Failed {
        Failed(error.to_string())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    type Body = fn() -> io::Result<()>;

    #[test]
    fn however_a_loop_ends_the_main_thread_learns_how() {
        // Its end, whether it has failed, whether it panics: a panic is what joining tells.
        let cases: [(Body, bool, bool); 3] = [
            (|| Ok(()), false, false),
            (|| Err(io::ErrorKind::Other.into()), true, false),
            (|| panic!("on purpose"), false, true),
        ];
        for (ends, fails, panics) in cases {
            let (tell, mut told) = UnixStream::pair().unwrap();
            let failed = Arc::new(AtomicBool::new(false));
            let seen = Arc::clone(&failed);
            let body = Box::new(move || run_loop(tell, &failed, ends));
            let thread = spawn("loop-test".to_owned(), body).unwrap();
            let mut word = Vec::new();
            io::Read::read_to_end(&mut told, &mut word).unwrap();
            assert_eq!(word, Signals::LOOP_ENDED);
            assert_eq!(thread.join().is_err(), panics);
            assert_eq!(seen.load(Ordering::Relaxed), fails);
        }
    }
}
