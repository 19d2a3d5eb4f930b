//! Measures CONNECT proxies and plain TCP relays: an origin, and a load generator with four shapes.
//! Each run prints one line of `key=value` pairs, so that a script can pick what it needs.
#![forbid(unsafe_code)]

mod args;
mod flow;
mod load;
mod origin;
mod usage;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args = match args::Args::parse(std::env::args().skip(1)) {
        Ok(args) => args,
        Err(message) => {
            eprintln!("adit-bench: {message}\n\n{}", args::HELP);
            return ExitCode::from(2);
        }
    };
    let result = match args.shape {
        args::Shape::Origin => origin::run(args.listen),
        _ => load::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("adit-bench: {error}");
            ExitCode::FAILURE
        }
    }
}
