//! What the main thread sleeps for: signals, event loops that end, files that change. Signals become words: a handler
//! writes a byte to a socket pair, the main thread reads it. Loops tell of their end the same way.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::Signal as Number;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::low_level::pipe;

use super::watch::Watch;

const SIGXFSZ: i32 = Number::XFSZ.as_raw();
/// A file that is being written is left alone for so long.
const SETTLE_MS: u64 = 200;

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// TERM or INT: finish what runs and go; the second one: go.
    Terminate,
    /// HUP: read everything again. Several at once are one.
    Hangup,
    /// USR1: open the access log anew.
    Reopen,
    /// Not a signal: the time given to [`Signals::wake_in`] is over.
    Time,
    /// Not a signal: a watched file may have changed.
    FilesChanged,
    /// Not a signal: an event loop has ended.
    LoopEnded,
}

/// The reading end of all handled signals.
#[derive(Debug)]
pub struct Signals {
    words: UnixStream,
    /// By itself, because every handler writes the same byte.
    hangups: UnixStream,
    reopens: UnixStream,
    /// Kept open, so that reading never meets an end.
    teller: UnixStream,
    watch: Option<Watch>,
    /// Files have changed; it is told then.
    settled: Option<Instant>,
    /// When the files are looked at next, where nobody tells of changes.
    look: Option<Instant>,
    wake: Option<Instant>,
}

impl Signals {
    /// Installs the handlers.
    ///
    /// # Errors
    /// When the system has no descriptors for the socket pairs.
    pub fn install() -> io::Result<Signals> {
        let (words, teller) = UnixStream::pair()?;
        pipe::register(SIGTERM, teller.try_clone()?)?;
        pipe::register(SIGINT, teller.try_clone()?)?;
        let (hangups, reopens) = (listen_to(SIGHUP)?, listen_to(SIGUSR1)?);
        // A log file that has reached the limit for files (setrlimit(2)) is a write that fails, and not our end.
        signal_hook::flag::register(SIGXFSZ, Arc::default())?;
        Ok(Signals { words, hangups, reopens, teller, watch: None, settled: None, look: None, wake: None })
    }

    /// What a loop writes when it ends. The handlers of signals write an `X` (signal-hook's `low_level::pipe`).
    pub const LOOP_ENDED: &[u8] = b"E";

    /// The writing end for a loop that has ended or left.
    pub fn teller(&self) -> io::Result<UnixStream> {
        self.teller.try_clone()
    }

    /// From now on [`Signals::wait`] tells of changed files as well.
    pub fn watch(&mut self, watch: Watch) {
        self.watch = Some(watch);
        self.settled = None;
        self.look = None;
    }

    /// [`Signals::wait`] tells [`Signal::Time`] once so long has passed.
    pub fn wake_in(&mut self, time: Duration) {
        self.wake = Some(Instant::now() + time);
    }

    /// Sleeps until there is something to tell.
    ///
    /// # Errors
    /// When the socket pair or polling fails, which a running system does not let happen.
    pub fn wait(&mut self) -> io::Result<Signal> {
        loop {
            let [words, hangups, reopens, files] = self.sleep()?;
            // Ending goes first.
            if words {
                let mut word = [0; 1];
                match self.words.read(&mut word) {
                    Ok(1..) if word == Self::LOOP_ENDED => return Ok(Signal::LoopEnded),
                    Ok(1..) => return Ok(Signal::Terminate),
                    Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            if hangups && take_words(&mut self.hangups) {
                return Ok(Signal::Hangup);
            }
            if reopens && take_words(&mut self.reopens) {
                return Ok(Signal::Reopen);
            }
            let now = Instant::now();
            if self.wake.is_some_and(|due| due <= now) {
                self.wake = None;
                return Ok(Signal::Time);
            }
            if (files || self.look.is_some_and(|due| due <= now)) && self.has_changed(now) {
                self.settled.get_or_insert(now + Duration::from_millis(SETTLE_MS));
            }
            if self.settled.is_some_and(|due| due <= now) {
                self.settled = None;
                // What has come meanwhile is covered by this one.
                self.has_changed(now);
                return Ok(Signal::FilesChanged);
            }
        }
    }

    /// Until something is readable (words, hangups, changed files) or due.
    fn sleep(&mut self) -> io::Result<[bool; 4]> {
        let now = Instant::now();
        if let Some(look_ms) = self.watch.as_ref().and_then(Watch::look_ms) {
            self.look.get_or_insert(now + Duration::from_millis(look_ms));
        }
        let due = self.settled.into_iter().chain(self.look).chain(self.wake).min();
        let timeout = due.and_then(|due| Timespec::try_from(due.saturating_duration_since(now)).ok());
        // Once something has changed, more of it does not wake.
        let files = self.watch.as_ref().filter(|_| self.settled.is_none()).and_then(Watch::descriptor);
        let words = self.words.as_fd();
        let sources = [Some(words), Some(self.hangups.as_fd()), Some(self.reopens.as_fd()), files];
        // In the place of a missing one stands another, with no wish: a constant number of descriptors.
        let mut polled = sources.map(|source| {
            let wish = if source.is_some() { PollFlags::IN } else { PollFlags::empty() };
            PollFd::from_borrowed_fd(source.unwrap_or(words), wish)
        });
        match poll(&mut polled, timeout.as_ref()) {
            Ok(_) => Ok(polled.map(|one| one.revents().contains(PollFlags::IN))),
            Err(Errno::INTR) => Ok([false; 4]),
            Err(errno) => Err(errno.into()),
        }
    }

    fn has_changed(&mut self, now: Instant) -> bool {
        let Some(watch) = &mut self.watch else { return false };
        self.look = watch.look_ms().map(|look_ms| now + Duration::from_millis(look_ms));
        watch.changed()
    }
}

/// Where a signal that may come several times at once is told by itself: every handler writes the same byte.
fn listen_to(signal: i32) -> io::Result<UnixStream> {
    let (words, teller) = UnixStream::pair()?;
    pipe::register(signal, teller)?;
    words.set_nonblocking(true)?;
    Ok(words)
}

/// Several at once are one.
fn take_words(from: &mut UnixStream) -> bool {
    matches!(from.read(&mut [0; 64]), Ok(1..))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use rustix::process::{Signal as Sent, getpid, kill_process};
    use std::io::Write;

    /// One test: signals are for the whole process.
    #[test]
    fn each_word_comes_through() {
        let mut signals = Signals::install().unwrap();
        let send = |signal| kill_process(getpid(), signal).unwrap();
        send(Sent::HUP);
        assert_eq!(signals.wait().unwrap(), Signal::Hangup);
        send(Sent::USR1);
        assert_eq!(signals.wait().unwrap(), Signal::Reopen);
        signals.wake_in(Duration::from_millis(5));
        assert_eq!(signals.wait().unwrap(), Signal::Time);
        signals.teller().unwrap().write_all(Signals::LOOP_ENDED).unwrap();
        assert_eq!(signals.wait().unwrap(), Signal::LoopEnded);
        for signal in [Sent::TERM, Sent::INT] {
            send(signal);
            assert_eq!(signals.wait().unwrap(), Signal::Terminate);
        }

        let path = std::env::temp_dir().join(format!("adit-signals-{}", std::process::id()));
        std::fs::write(&path, "one").unwrap();
        signals.watch(Watch::new(&[&path]));
        std::fs::write(&path, "two").unwrap();
        let start = Instant::now();
        assert_eq!(signals.wait().unwrap(), Signal::FilesChanged);
        assert!(start.elapsed() >= Duration::from_millis(SETTLE_MS), "it may still be written to");
        // A signal does not wait for that, and both are told.
        std::fs::remove_file(&path).unwrap();
        send(Sent::HUP);
        assert_eq!(signals.wait().unwrap(), Signal::Hangup);
        assert_eq!(signals.wait().unwrap(), Signal::FilesChanged);
        // Nothing is told twice.
        send(Sent::TERM);
        assert_eq!(signals.wait().unwrap(), Signal::Terminate);
    }
}
