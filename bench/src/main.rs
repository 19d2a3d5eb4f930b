//! Measures proxies and plain TCP relays: an origin, a load generator for CONNECT, and what other load generators (wrk, h2load)
//! need beside them.
//! Each run prints one line of `key=value` pairs, so that a script can pick what it needs.
#![forbid(unsafe_code)]

mod args;
mod charge;
mod flow;
mod forward;
mod http;
mod load;
mod origin;
mod rules;
mod usage;

use args::Task;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args = match args::Args::parse(std::env::args().skip(1)) {
        Ok(args) => args,
        Err(message) => {
            eprintln!("adit-bench: {message}\n\n{}", args::HELP);
            return ExitCode::from(2);
        }
    };
    let result = match args.task {
        Task::Origin => origin::run(args.listen),
        Task::Forward => forward::run(&args),
        Task::Charge => charge::run(&args),
        Task::Rules => rules::run(&args),
        Task::Load(shape) => load::run(&args, shape),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("adit-bench: {error}");
            ExitCode::FAILURE
        }
    }
}
