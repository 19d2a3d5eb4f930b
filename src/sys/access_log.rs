//! The access log: one line per exchange, collected and written in batches, never waiting for whoever reads it.
//!
//! A reader that is too slow, or a full disk, costs lines and not the loop's time: lines that do not fit into the backlog
//! are dropped and counted, and the count is logged when writing works again.

use std::fmt::{self, Display};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::output::Output;
use crate::config::LOG_BACKLOG_BYTES as BACKLOG_BYTES;
use crate::proto::session::Record;
use crate::proto::tick::Tick;

/// A line waits at most this long for others to be written with it.
const BATCH_MS: u64 = 100;
/// As many bytes are written at once, the most that a pipe takes whole or not at all (pipe(7), `PIPE_BUF`): lines of
/// different loops never mix.
const BATCH_BYTES: usize = 4096;
/// No line is longer: the target is bounded by the longest name, a URL is cut.
const LINE_MAX_BYTES: usize = 2048;
const _: () = assert!(LINE_MAX_BYTES <= BATCH_BYTES);

/// One loop's end of the access log.
#[derive(Debug)]
pub struct AccessLog {
    output: Option<Output>,
    /// Of the file, for opening it anew.
    path: Option<PathBuf>,
    backlog: Vec<u8>,
    write_at: Option<Tick>,
    /// Lines lost since the condition began; 0 outside it.
    dropped: u64,
    /// The last write was taken.
    taken: bool,
}

impl AccessLog {
    /// Writes nowhere.
    #[must_use]
    pub fn off() -> AccessLog {
        AccessLog { output: None, path: None, backlog: Vec::new(), write_at: None, dropped: 0, taken: true }
    }

    /// Writes to the process's standard output.
    ///
    /// # Errors
    /// When the system has no descriptor left.
    pub fn stdout() -> io::Result<AccessLog> {
        Ok(AccessLog { output: Some(Output::standard(io::stdout())?), ..AccessLog::off() })
    }

    /// Appends to a file, which is created if need be.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn file(path: &Path) -> io::Result<AccessLog> {
        Ok(AccessLog { output: Some(Output::file(path)?), path: Some(path.into()), ..AccessLog::off() })
    }

    /// Opens the file anew, for whoever has renamed the old one. What waits goes into the new one.
    pub fn reopen(&mut self) {
        let Some(path) = &self.path else { return };
        match Output::file(path) {
            Ok(output) => self.output = Some(output),
            Err(error) => log::warn!("access log: {} is not reopened: {error}", path.display()),
        }
    }

    /// Adds the line of one exchange.
    pub fn add(&mut self, record: &Record<'_>, now: Tick) {
        if self.output.is_none() {
            return;
        }
        let start = self.backlog.len();
        let line = Line { record, ended: SystemTime::now() };
        // Writing to memory cannot fail.
        let _ = writeln!(self.backlog, "{line}");
        if self.backlog.len() > BACKLOG_BYTES || self.backlog.len() - start > LINE_MAX_BYTES {
            self.backlog.truncate(start);
            self.drop_lines(1, &"its reader is too slow");
        }
        self.write_at.get_or_insert(now.after(BATCH_MS));
        if self.backlog.len() >= BATCH_BYTES {
            self.write_at = self.write_at.min(Some(now));
        }
    }

    /// When [`AccessLog::write_due`] has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Tick> {
        self.write_at
    }

    /// Writes the batch if it is due.
    pub fn write_due(&mut self, now: Tick) {
        if self.write_at.is_some_and(|due| due <= now) {
            self.write_out();
            self.write_at = if self.backlog.is_empty() { None } else { Some(now.after(BATCH_MS)) };
        }
    }

    /// Writes as much as is taken without waiting.
    fn write_out(&mut self) {
        let mut written = 0;
        while written < self.backlog.len() {
            let batch = whole_lines(&self.backlog[written..]);
            match self.output.as_mut().map_or(Ok(batch.len()), |output| output.write(batch)) {
                Ok(count) => {
                    written += count;
                    self.taken = true;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // The reader is gone, or the disk is full: keeping the lines would not help.
                Err(error) => {
                    let lines = count_lines(batch);
                    written += batch.len();
                    self.taken = false;
                    self.drop_lines(lines, &error);
                }
            }
        }
        self.backlog.drain(..written);
        if self.backlog.is_empty() && self.taken && self.dropped > 0 {
            log::warn!("access log: written again, {} lines were dropped", self.dropped);
            self.dropped = 0;
        }
    }

    /// The last chance before the process ends.
    pub fn finish(&mut self) {
        self.write_out();
        let lost = self.dropped + count_lines(&self.backlog);
        if lost > 0 {
            log::warn!("access log: {lost} lines were dropped");
        }
    }

    /// Said once when it begins; how many it were is said when it is over.
    fn drop_lines(&mut self, lines: u64, why: &dyn Display) {
        if self.dropped == 0 {
            log::warn!("access log: lines are being dropped: {why}");
        }
        self.dropped += lines;
    }
}

fn count_lines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|&&byte| byte == b'\n').count() as u64
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

/// The `adit` format.
struct Line<'a> {
    record: &'a Record<'a>,
    ended: SystemTime,
}

impl Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let record = self.record;
        let user = OrDash(record.user);
        write!(f, "{} {} {user} {}", Timestamp(self.ended), record.client, record.request)?;
        write!(
            f,
            " {} via={} rule={} up={} down={} dns={} dial={} total={} end={}",
            OrDash(record.status),
            OrDash(record.via),
            OrDash(record.rule),
            record.up_bytes,
            record.down_bytes,
            OrDash(record.dns_ms),
            OrDash(record.dial_ms),
            record.total_ms,
            record.end
        )
    }
}

struct OrDash<T>(Option<T>);

impl<T: Display> Display for OrDash<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str("-"),
        }
    }
}

/// `2026-11-20T15:04:05.123Z`, as in RFC 3339.
#[derive(Debug)]
pub struct Timestamp(pub SystemTime);

impl Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since_epoch = self.0.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let (days, second) = (since_epoch.as_secs() / 86_400, since_epoch.as_secs() % 86_400);
        let (year, month, day) = civil_from_days(days);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        let ms = since_epoch.subsec_millis();
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
    }
}

/// Days since 1970-01-01 to year, month and day: Howard Hinnant's `civil_from_days`, for days that are not negative. The
/// year is counted from March, which puts the leap day at its end.
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
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

    fn line(record: &Record<'_>) -> String {
        let ended = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_187_045_123);
        Line { record, ended }.to_string()
    }

    #[test]
    fn line_is_as_documented() {
        let target = Target::from_authority(b"example.org:443").unwrap();
        assert_eq!(
            line(&record(&target)),
            "2026-11-20T15:04:05.123Z 10.1.2.3:53122 - CONNECT example.org:443 200 via=203.0.113.9:443 \
             rule=default up=1842 down=90211 dns=3 dial=11 total=4210 end=done"
        );
        let nothing = Record {
            request: Asked::Nothing,
            status: Some(400),
            via: None,
            rule: None,
            dns_ms: None,
            dial_ms: None,
            end: "http_request_error",
            ..record(&target)
        };
        assert!(line(&nothing).contains(" 10.1.2.3:53122 - - - 400 via=- rule=- "));
    }

    #[test]
    fn dates_are_right_around_leap_days_and_centuries() {
        for (days, date) in [
            (0, (1970, 1, 1)),
            (58, (1970, 2, 28)),
            (59, (1970, 3, 1)),
            (11_016, (2000, 2, 29)),
            (11_017, (2000, 3, 1)),
            (20_777, (2026, 11, 20)),
            (47_540, (2100, 2, 28)),
            (47_541, (2100, 3, 1)),
        ] {
            assert_eq!(civil_from_days(days), date, "day {days}");
        }
    }

    #[test]
    fn full_pipe_drops_lines_whole_and_says_how_many() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        rustix::io::ioctl_fionbio(&writer, true).unwrap();
        let mut log =
            AccessLog { output: Some(Output::File(File::from(OwnedFd::from(writer)))), ..AccessLog::off() };
        let target = Target::from_authority(b"example.org:443").unwrap();
        let mut total = 0u64;
        while log.dropped < 10 {
            log.add(&record(&target), Tick(total));
            log.write_due(Tick(total + BATCH_MS));
            total += 1;
            assert!(total < 100_000 && log.backlog.len() <= BACKLOG_BYTES);
        }
        let dropped = log.dropped;
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
        assert_eq!(text.lines().count() as u64, total - dropped);
        assert!(text.lines().all(|line| line.ends_with("end=done") && line.starts_with("20")));
    }
}
