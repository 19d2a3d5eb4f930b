//! What processes have cost so far, from the kernel's own books under `/proc`.

use std::collections::BTreeMap;
use std::fs;

/// `USER_HZ`, the unit of `/proc/PID/stat`, is 100 on every Linux that Rust knows.
const TICK_NS: u64 = 10_000_000;

/// A reading of the books for a set of processes and their children.
#[derive(Clone, Debug, Default)]
pub struct Usage {
    /// Per thread: nanoseconds on a CPU, and how often it was put on one.
    threads: BTreeMap<u32, (u64, u64)>,
    /// From `stat`: coarser, but it remembers threads and children that have ended.
    stat_ns: u64,
    /// Resident memory, exact (the counters in `statm` lag behind by up to 64 pages a CPU).
    pub rss_bytes: u64,
}

impl Usage {
    /// Reads the books now. Processes that are gone count as nothing.
    pub fn of(pids: &[u32]) -> Usage {
        let mut usage = Usage::default();
        let mut todo = pids.to_vec();
        while let Some(pid) = todo.pop() {
            usage.stat_ns += stat_ns(pid);
            usage.rss_bytes += rss_bytes(pid);
            for tid in directory(&format!("/proc/{pid}/task")) {
                usage.threads.insert(tid, schedstat(pid, tid));
                let children =
                    fs::read_to_string(format!("/proc/{pid}/task/{tid}/children")).unwrap_or_default();
                todo.extend(children.split_whitespace().filter_map(|word| word.parse::<u32>().ok()));
            }
        }
        usage
    }

    /// CPU nanoseconds since `before`. Exact while the same threads live; where threads come and go (a thread for
    /// each connection), the coarser books count, because a thread's own page is gone with it.
    pub fn cpu_ns_since(&self, before: &Usage) -> u64 {
        let coarse = self.stat_ns.saturating_sub(before.stat_ns);
        let exact = self.total(|t| t.0).saturating_sub(before.total(|t| t.0));
        let same_threads = self.threads.keys().eq(before.threads.keys());
        // The same threads at both ends say nothing about those in between.
        if same_threads && coarse <= exact + 2 * TICK_NS { exact } else { coarse }
    }

    /// How often a thread was put on a CPU since `before`.
    pub fn wakeups_since(&self, before: &Usage) -> u64 {
        self.total(|t| t.1).saturating_sub(before.total(|t| t.1))
    }

    fn total(&self, part: impl Fn(&(u64, u64)) -> u64) -> u64 {
        self.threads.values().map(part).sum()
    }
}

fn directory(path: &str) -> Vec<u32> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn schedstat(pid: u32, tid: u32) -> (u64, u64) {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{tid}/schedstat")).unwrap_or_default();
    let mut fields = text.split_whitespace().map(|field| field.parse().unwrap_or(0));
    (fields.next().unwrap_or(0), fields.nth(1).unwrap_or(0))
}

fn stat_ns(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in parentheses may hold anything: count fields behind it. utime stime cutime cstime are 14 to 17.
    let behind = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    behind.split_whitespace().skip(11).take(4).filter_map(|field| field.parse::<u64>().ok()).sum::<u64>()
        * TICK_NS
}

fn rss_bytes(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:")).unwrap_or_default();
    line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap_or(0) * 1024
}
