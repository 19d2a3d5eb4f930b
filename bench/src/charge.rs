//! Runs another load generator, and reads the kernel's books before and behind it.

use crate::args::Args;
use crate::usage::Usage;
use std::io;
use std::process::Command;
use std::time::Instant;

/// Runs the command, whose output stays its own, and then prints what the processes have used in the meantime.
pub fn run(args: &Args) -> io::Result<()> {
    let Some((program, arguments)) = args.command.split_first() else { return Ok(()) };
    let before = Usage::of(&args.pids);
    let begin = Instant::now();
    let status = Command::new(program).args(arguments).status()?;
    let wall_s = begin.elapsed().as_secs_f64();
    let after = Usage::of(&args.pids);
    let cpu_ns = after.cpu_ns_since(&before) as f64;
    println!(
        "shape=charge seconds={wall_s:.3} cpu_percent={:.0} total_cpu_us={:.0} wakeups={}",
        cpu_ns / wall_s / 1e7,
        cpu_ns / 1e3,
        after.wakeups_since(&before)
    );
    match status.success() {
        true => Ok(()),
        false => Err(io::Error::other(format!("{program}: {status}"))),
    }
}
