//! The access log: one line per exchange, collected and written in batches, never waiting for whoever reads it.
//!
//! A reader that is too slow, or a full disk, costs lines and not the loop's time: lines that do not fit into the backlog
//! are dropped and counted, and the count is logged when writing works again: once for all loops.

use std::fmt::Display;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::clock::unix_time;
use super::output::Output;
use crate::config::{AccessLogConfig, AccessLogTarget, LOG_BACKLOG_BYTES as BACKLOG_BYTES};
use crate::proto::session::Record;
use crate::proto::tick::Tick;

/// A line waits at most this long for others to be written with it.
const BATCH_MS: u64 = 100;
/// When nothing more is taken, the next attempt comes so soon if something was: a syslog daemon's queue holds as few as ten
/// lines (unix(7), `max_dgram_qlen`). It comes twice as late each time that nothing was, up to [`BATCH_MS`].
const RETRY_MS: u64 = 2;
/// As many bytes are written at once, the most that a pipe takes whole or not at all (pipe(7), `PIPE_BUF`): lines of
/// different loops never mix.
const BATCH_BYTES: usize = 4096;
/// No line is longer: the target is bounded by the longest name, a URL is cut.
const LINE_MAX_BYTES: usize = 4096;
const _: () = assert!(LINE_MAX_BYTES <= BATCH_BYTES);

/// One loop's end of the access log.
#[derive(Debug)]
pub struct AccessLog {
    config: AccessLogConfig,
    /// None when it is off.
    output: Option<Output>,
    backlog: Vec<u8>,
    write_at: Option<Tick>,
    retry_ms: u64,
    losses: Arc<Losses>,
    /// One of those that [`Losses::dropping`] counts.
    is_dropping: bool,
    /// What was written last ends inside a line: the disk became full there.
    is_inside_line: bool,
    /// The rest of that line is lost, and counted; the backlog begins with its end alone, so that no other runs into it.
    owes_end: bool,
}

impl AccessLog {
    /// Opens it, once for each loop. A file is created if need be, and appended to; a syslog daemon need not be there yet.
    ///
    /// # Errors
    /// When the file cannot be opened, or the system has no descriptor left.
    pub fn open(config: &AccessLogConfig, loops: usize) -> io::Result<Vec<AccessLog>> {
        let losses = Arc::new(Losses {
            target: config.target.clone(),
            dropping: AtomicUsize::new(0),
            lines: AtomicUsize::new(0),
        });
        let end = |_| -> io::Result<AccessLog> {
            let output = match &config.target {
                AccessLogTarget::Off => None,
                AccessLogTarget::Stdout => Some(Output::standard(io::stdout())?),
                AccessLogTarget::Syslog => Some(Output::syslog()?),
                AccessLogTarget::File(path) => Some(Output::file(path)?),
            };
            Ok(AccessLog::with(config.clone(), output, Arc::clone(&losses)))
        };
        (0..loops).map(end).collect()
    }

    fn with(config: AccessLogConfig, output: Option<Output>, losses: Arc<Losses>) -> AccessLog {
        AccessLog {
            config,
            output,
            losses,
            backlog: Vec::new(),
            write_at: None,
            retry_ms: RETRY_MS,
            is_dropping: false,
            is_inside_line: false,
            owes_end: false,
        }
    }

    /// Opens the file anew, for whoever has renamed the old one. What the old one does not take goes into the new one.
    pub fn reopen(&mut self) {
        let AccessLogTarget::File(path) = &self.config.target else { return };
        match Output::file(path) {
            Ok(output) => {
                self.write_out();
                self.leave_torn_line();
                self.output = Some(output);
            }
            Err(error) => log::warn!("access log: {} is not reopened: {error}", path.display()),
        }
    }

    /// Another takes its place, once it has written what can be written without waiting. The rest is lost, counted and
    /// reported.
    pub fn replace(&mut self, other: AccessLog) {
        self.finish();
        *self = other;
    }

    /// Adds the line of one exchange.
    pub fn add(&mut self, record: &Record<'_>, now: Tick) {
        if self.output.is_none() {
            return;
        }
        let start = self.backlog.len();
        self.config.format.push_line(record, unix_time(), &mut self.backlog);
        self.backlog.push(b'\n');
        if self.backlog.len() - start > LINE_MAX_BYTES {
            self.backlog.truncate(start);
            self.drop_lines(1, &"one is too long");
        } else if self.backlog.len() > BACKLOG_BYTES {
            self.backlog.truncate(start);
            self.drop_lines(1, &"its reader is too slow");
        }
        let due = *self.write_at.get_or_insert(now.after(BATCH_MS));
        // A batch is full. Once only: what has not been taken then is tried again in its own time.
        if start < BATCH_BYTES && self.backlog.len() >= BATCH_BYTES {
            self.write_at = Some(due.min(now));
        }
    }

    /// When [`AccessLog::write_due`] has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Tick> {
        self.write_at
    }

    /// Writes the batch if it is due.
    pub fn write_due(&mut self, now: Tick) {
        if self.write_at.is_none_or(|due| due > now) {
            return;
        }
        let waiting = self.backlog.len();
        self.write_out();
        let is_stuck = self.backlog.len() == waiting;
        self.retry_ms = if is_stuck { BATCH_MS.min(2 * self.retry_ms) } else { RETRY_MS };
        // The end of a torn line is in no hurry: it is written with the next line.
        let is_written = self.backlog.len() <= usize::from(self.owes_end);
        self.write_at = if is_written { None } else { Some(now.after(self.retry_ms)) };
    }

    /// Writes as much as is taken without waiting.
    fn write_out(&mut self) {
        let mut written = 0;
        while written < self.backlog.len() {
            let batch = whole_lines(&self.backlog[written..]);
            match self.output.as_mut().map_or(Ok(batch.len()), |output| output.write(batch)) {
                // Nothing is no way to go on.
                Ok(0) => break,
                Ok(count) => {
                    self.is_inside_line = batch[count.min(batch.len()) - 1] != b'\n';
                    self.owes_end = false;
                    written += count;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => {
                    self.backlog.drain(..written);
                    return self.drop_backlog(&error);
                }
            }
        }
        self.backlog.drain(..written);
        if written > 0 {
            self.losses.target_takes_again();
        }
        if self.backlog.is_empty() && std::mem::take(&mut self.is_dropping) {
            self.losses.end();
        }
    }

    /// The reader is gone, or the disk is full: keeping the lines would not help.
    fn drop_backlog(&mut self, why: &dyn Display) {
        let lost = self.lines_waiting();
        self.backlog.clear();
        self.owes_end = self.is_inside_line;
        if self.owes_end {
            self.backlog.push(b'\n');
        }
        self.losses.add(lost);
        self.losses.target_fails(why);
        // Nothing is tried before there is another line: this loop has nothing to say about how it goes on.
        if std::mem::take(&mut self.is_dropping) {
            self.losses.end();
        }
    }

    /// The rest of a line that has begun elsewhere makes no sense where the next one goes.
    fn leave_torn_line(&mut self) {
        if !self.is_inside_line {
            return;
        }
        let rest = self.backlog.iter().position(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        self.backlog.drain(..rest);
        self.is_inside_line = false;
        if !std::mem::take(&mut self.owes_end) {
            self.drop_lines(1, &"the old file did not take it");
        }
    }

    /// The last chance before the process ends, or another log takes over.
    pub fn finish(&mut self) {
        self.write_out();
        // Nothing more will be written: said with what the others lose, when the last one is done.
        self.losses.add(self.lines_waiting());
        if std::mem::take(&mut self.is_dropping) {
            self.losses.leave();
        }
    }

    /// Lines in the backlog that are not counted as lost.
    fn lines_waiting(&self) -> usize {
        let ends = self.backlog.iter().filter(|&&byte| byte == b'\n').count();
        ends.saturating_sub(usize::from(self.owes_end))
    }

    /// Said once when it begins; how many it were is said when it is over.
    fn drop_lines(&mut self, lines: usize, why: &dyn Display) {
        self.losses.add(lines);
        if !std::mem::replace(&mut self.is_dropping, true) {
            self.losses.begin(why);
        }
    }
}

/// What all loops together have lost. Touched only where a line is lost, and where that is over.
#[derive(Debug)]
struct Losses {
    target: AccessLogTarget,
    /// Loops that are dropping lines while they wait for a chance to write others, and [`FAILS`].
    dropping: AtomicUsize,
    /// Lines lost that nobody has been told of.
    lines: AtomicUsize,
}

/// The target has refused a write, whosever it was, and taken none since. Which loop is the next to try nobody knows: any that succeeds
/// ends this for all.
const FAILS: usize = 1 << (usize::BITS - 1);

impl Losses {
    fn add(&self, lines: usize) {
        self.lines.fetch_add(lines, Ordering::AcqRel);
    }

    fn begin(&self, why: &dyn Display) {
        self.tell_of_beginning(self.dropping.fetch_add(1, Ordering::AcqRel), why);
    }

    fn end(&self) {
        self.tell_of_end(self.dropping.fetch_sub(1, Ordering::AcqRel) - 1);
    }

    /// Of the others' losses nothing is known yet.
    fn leave(&self) {
        self.dropping.fetch_sub(1, Ordering::AcqRel);
    }

    fn target_fails(&self, why: &dyn Display) {
        self.tell_of_beginning(self.dropping.fetch_or(FAILS, Ordering::AcqRel), why);
    }

    fn target_takes_again(&self) {
        // Nearly always it did before, and that is not to cost the loops a word that each of them writes.
        if self.dropping.load(Ordering::Acquire) & FAILS != 0
            && self.dropping.fetch_and(!FAILS, Ordering::AcqRel) == FAILS
        {
            self.tell_of_end(0);
        }
    }

    fn tell_of_beginning(&self, dropping_before: usize, why: &dyn Display) {
        if dropping_before == 0 {
            log::warn!("access log {}: lines are being dropped: {why}", self.target);
        }
    }

    fn tell_of_end(&self, dropping: usize) {
        if dropping == 0 {
            let lines = self.lines.swap(0, Ordering::AcqRel);
            log::warn!("access log {}: written again, {lines} lines were dropped", self.target);
        }
    }
}

impl Drop for Losses {
    fn drop(&mut self) {
        let lines = *self.lines.get_mut();
        if lines > 0 {
            log::warn!("access log {}: {lines} lines were dropped", self.target);
        }
    }
}

/// As many whole lines from the start of `bytes` as one write takes; what an incomplete write has left over goes first.
fn whole_lines(bytes: &[u8]) -> &[u8] {
    if bytes.len() <= BATCH_BYTES {
        return bytes;
    }
    match bytes[..BATCH_BYTES].iter().rposition(|&byte| byte == b'\n') {
        Some(last) => &bytes[..=last],
        None => &bytes[..BATCH_BYTES],
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::proto::access_line::LogFormat;
    use crate::proto::session::Asked;
    use crate::proto::target::Target;
    use std::fs::File;
    use std::io::Read;
    use std::os::fd::OwnedFd;

    fn record(target: &Target) -> Record<'_> {
        Record {
            client: "10.1.2.3:53122".parse().unwrap(),
            user: None,
            request: Asked::Connect(target),
            status: Some(200),
            via: Some("203.0.113.9:443".parse().unwrap()),
            rule: Some("default"),
            up_bytes: 1842,
            down_bytes: 90211,
            dns_ms: Some(3),
            dial_ms: Some(11),
            total_ms: 4210,
            end: "done",
            refusal: None,
            cut_because: None,
        }
    }

    fn to(output: Output) -> AccessLog {
        let config = AccessLogConfig { target: AccessLogTarget::Off, ..AccessLogConfig::default() };
        let mut log = AccessLog::open(&config, 1).unwrap().pop().unwrap();
        log.output = Some(output);
        log
    }

    fn pipe() -> (std::io::PipeReader, AccessLog) {
        let (reader, writer) = std::io::pipe().unwrap();
        rustix::io::ioctl_fionbio(&writer, true).unwrap();
        (reader, to(Output::File(File::from(OwnedFd::from(writer)))))
    }

    /// Lines that nobody has been told of.
    fn lost(log: &AccessLog) -> usize {
        log.losses.lines.load(Ordering::Acquire)
    }

    fn target() -> Target {
        Target::from_authority(b"example.org:443").unwrap()
    }

    #[test]
    fn full_pipe_drops_lines_whole_and_says_how_many() {
        let (mut reader, mut log) = pipe();
        let target = target();
        let mut total = 0;
        while lost(&log) < 10 {
            log.add(&record(&target), Tick(total as u64));
            log.write_due(Tick(total as u64 + BATCH_MS));
            total += 1;
            assert!(total < 100_000 && log.backlog.len() <= BACKLOG_BYTES);
        }
        let dropped = lost(&log);
        // A reader comes: everything that was kept arrives, in whole lines.
        let mut seen = Vec::new();
        while !log.backlog.is_empty() {
            let mut buffer = [0; 65536];
            let count = reader.read(&mut buffer).unwrap();
            seen.extend_from_slice(&buffer[..count]);
            log.write_out();
        }
        drop(log);
        reader.read_to_end(&mut seen).unwrap();
        let text = String::from_utf8(seen).unwrap();
        assert_eq!(text.lines().count(), total - dropped);
        assert!(text.lines().all(|line| line.ends_with("end=done") && line.starts_with("20")));
    }

    #[test]
    fn a_full_batch_is_due_at_once_and_a_full_pipe_is_tried_ever_later() {
        let (mut reader, mut log) = pipe();
        let target = target();
        log.add(&record(&target), Tick(1000));
        assert_eq!(log.next_deadline(), Some(Tick(1000 + BATCH_MS)));
        while log.backlog.len() < BATCH_BYTES {
            log.add(&record(&target), Tick(1001));
        }
        assert_eq!(log.next_deadline(), Some(Tick(1001)));
        let mut now = Tick(1001);
        log.write_due(now);
        assert_eq!(log.next_deadline(), None);
        while log.next_deadline().is_none_or(|due| due >= now.after(BATCH_MS)) {
            log.add(&record(&target), now);
            log.write_due(now);
        }
        let mut waits = Vec::new();
        for _ in 0..8 {
            log.add(&record(&target), now);
            let due = log.next_deadline().unwrap();
            waits.push(due.since(now));
            now = due;
            log.write_due(now);
        }
        assert!(waits[0] <= 2 * RETRY_MS && waits[7] == BATCH_MS, "{waits:?}");
        assert!(waits.windows(2).all(|pair| pair[1] == BATCH_MS.min(2 * pair[0])), "{waits:?}");
        reader.read_exact(&mut [0; 32768]).unwrap();
        now = now.after(BATCH_MS);
        log.write_due(now);
        assert!(log.next_deadline().is_none_or(|due| due == now.after(RETRY_MS)));
    }

    #[test]
    fn a_full_disk_loses_what_waits_and_no_more() {
        let target = target();
        let mut log = to(Output::file(std::path::Path::new("/dev/full")).unwrap());
        for lines in 1..=3 {
            log.add(&record(&target), Tick(0));
            log.write_out();
            assert_eq!((lost(&log), log.backlog.len()), (lines, 0));
        }
        // Space is there again.
        let (mut reader, other) = pipe();
        log.output = other.output;
        log.add(&record(&target), Tick(0));
        log.write_due(Tick(BATCH_MS));
        assert_eq!((lost(&log), log.write_at), (0, None));
        drop(log);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text.lines().count(), 1);
    }

    #[test]
    fn a_loop_that_goes_quiet_behind_a_full_disk_hides_nothing_from_the_others() {
        let target = target();
        let full = || Output::file(std::path::Path::new("/dev/full")).unwrap();
        let dropping = |log: &AccessLog| log.losses.dropping.load(Ordering::Acquire);
        let (mut reader, mut log) = pipe();
        let mut quiet = AccessLog::with(log.config.clone(), Some(full()), Arc::clone(&log.losses));
        let try_to_write = |log: &mut AccessLog| {
            log.add(&record(&target), Tick(0));
            log.write_out();
        };
        for _ in 0..2 {
            try_to_write(&mut quiet);
            assert_eq!((dropping(&log), lost(&log)), (FAILS, 1));
            // Space is there again, and another loop finds that out: it is over, and the next time is said anew.
            try_to_write(&mut log);
            assert_eq!((dropping(&log), lost(&log)), (0, 0));
        }
        // Nor is it over for who waits.
        let pipe = log.output.replace(full());
        log.drop_lines(1, &"its reader is too slow");
        try_to_write(&mut quiet);
        assert_eq!((dropping(&log), lost(&log)), (FAILS | 1, 2));
        try_to_write(&mut log);
        assert_eq!((dropping(&log), lost(&log)), (FAILS, 3), "what waited is lost, and it waits no more");
        log.output = pipe;
        log.drop_lines(1, &"its reader is too slow");
        quiet.output = Some(Output::file(std::path::Path::new("/dev/null")).unwrap());
        try_to_write(&mut quiet);
        assert_eq!((dropping(&log), lost(&log)), (1, 4), "one still drops lines");
        try_to_write(&mut log);
        assert_eq!((dropping(&log), lost(&log)), (0, 0));
        drop((log, quiet));
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text.lines().count(), 3);
    }

    #[test]
    fn a_line_that_is_torn_by_a_full_disk_runs_into_no_other() {
        let target = target();
        let (mut reader, mut log) = pipe();
        log.add(&record(&target), Tick(0));
        log.add(&record(&target), Tick(0));
        // Half of the first was taken, then the disk is full.
        let half = log.backlog.len() / 4;
        log.backlog.drain(..half);
        log.is_inside_line = true;
        let pipe = log.output.replace(Output::file(std::path::Path::new("/dev/full")).unwrap());
        log.write_due(Tick(BATCH_MS));
        assert_eq!((lost(&log), &*log.backlog, log.write_at), (2, &b"\n"[..], None));
        log.add(&record(&target), Tick(0));
        log.write_due(Tick(2 * BATCH_MS));
        assert_eq!((lost(&log), &*log.backlog, log.write_at), (3, &b"\n"[..], None), "its end is no line");
        log.output = pipe;
        log.add(&record(&target), Tick(0));
        log.write_due(Tick(4 * BATCH_MS));
        assert_eq!((lost(&log), log.backlog.len()), (0, 0));
        drop(log);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert!(text.starts_with("\n20") && text.ends_with("end=done\n"), "{text}");
    }

    #[test]
    fn nothing_of_a_torn_line_goes_into_another_file() {
        for (owes_end, dropped) in [(false, 1), (true, 0)] {
            let (_reader, mut log) = pipe();
            log.backlog = b"rest\nwhole\n".to_vec();
            (log.is_inside_line, log.owes_end) = (true, owes_end);
            log.leave_torn_line();
            assert_eq!((&*log.backlog, lost(&log)), (&b"whole\n"[..], dropped));
            assert!(!log.is_inside_line && !log.owes_end);
            log.leave_torn_line();
            assert_eq!((&*log.backlog, lost(&log)), (&b"whole\n"[..], dropped), "once");
        }
    }

    #[test]
    fn a_file_that_is_opened_anew_begins_with_a_whole_line() {
        let path = std::env::temp_dir().join(format!("adit-torn-{}", std::process::id()));
        let (_reader, mut log) = pipe();
        // A pipe that is full.
        while log.output.as_mut().unwrap().write(&[b'.'; 4096]).is_ok() {}
        while log.output.as_mut().unwrap().write(b".").is_ok() {}
        log.config.target = AccessLogTarget::File(path.clone());
        log.backlog = b"rest\nwhole\n".to_vec();
        log.is_inside_line = true;
        log.reopen();
        log.write_out();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "whole\n");
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn another_takes_over_once_all_is_written() {
        let target = target();
        let (mut old, mut log) = pipe();
        log.add(&record(&target), Tick(0));
        let (mut new, mut other) = pipe();
        other.config.format = LogFormat::Json;
        log.replace(other);
        log.add(&record(&target), Tick(0));
        log.finish();
        drop(log);
        let (mut first, mut second) = (String::new(), String::new());
        old.read_to_string(&mut first).unwrap();
        new.read_to_string(&mut second).unwrap();
        assert!(first.starts_with("20") && first.lines().count() == 1, "{first}");
        assert!(second.starts_with('{') && second.lines().count() == 1, "{second}");
        let config = AccessLogConfig { target: AccessLogTarget::Off, ..AccessLogConfig::default() };
        let mut off = AccessLog::open(&config, 1).unwrap().pop().unwrap();
        off.add(&record(&target), Tick(0));
        assert_eq!((off.next_deadline(), off.backlog.len()), (None, 0));
    }
}
