//! Reads the configuration, runs the proxy or one of the other things asked for, and says with the exit code how it went:
//! 0 fine, 1 the system failed, 2 called wrongly; `adit check` has more (`proto/verdict`).
#![forbid(unsafe_code)]

// Named so that it is linked; nothing of it is called from here.
#[cfg(no_backtrace)]
use adit_no_backtrace as _;

use std::io::{self, ErrorKind, Write};
use std::path::Path;
use std::process::ExitCode;

use adit::config::{self, Check, Command, MAX_CONFIG_BYTES, UsageError};
use adit::sys::check;
use adit::sys::clock::unix_time;
use adit::sys::files::{self, When};
use adit::sys::name_files::NameFiles;
use adit::sys::output::LogWriter;
use adit::sys::settings::Settings;
use adit::sys::supervisor::{Failed, Supervisor};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const EXIT_SYSTEM: u8 = 1;
const EXIT_USAGE: u8 = 2;

/// What is done with settings that are fine.
enum Then {
    Run,
    CheckConfig,
    Check(Box<Check>),
}

fn main() -> ExitCode {
    let (config, then) = match command(When::AtStart) {
        Ok(Command::Run(config)) => (*config, Then::Run),
        Ok(Command::Check(config, check)) => (*config, Then::Check(check)),
        Ok(Command::CheckConfig(config)) => (*config, Then::CheckConfig),
        Ok(Command::Print(text)) => {
            // Whoever closed stdout does not want to know.
            let _ = io::stdout().write_all(text.as_bytes());
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            // Whoever closed stderr does not want to know either.
            let _ = writeln!(io::stderr(), "adit: {error}");
            return ExitCode::from(if error.is_usage() { EXIT_USAGE } else { EXIT_SYSTEM });
        }
    };
    start_log(config.verbosity);
    let settings = match Settings::read(config, When::AtStart) {
        Ok(settings) => settings,
        Err(error) => {
            log::error!("{error}");
            return ExitCode::from(if error.is_usage() { EXIT_USAGE } else { EXIT_SYSTEM });
        }
    };
    let code = match then {
        Then::Run => run(settings),
        Then::CheckConfig => check_config(&settings),
        Then::Check(check) => check_destination(&settings, &check),
    };
    match code {
        Ok(code) => code,
        Err(Failed(why)) => {
            log::error!("{why}");
            ExitCode::from(EXIT_SYSTEM)
        }
    }
}

/// The command line, and the file of `--config`. The same again at each call, but for what the file says then.
fn command(when: When) -> Result<Command, UsageError> {
    let read_file = |path: &Path| {
        let content = files::read(path, MAX_CONFIG_BYTES, when)?;
        if content.is_empty() && when == When::Running {
            // Somebody is about to write it. Taken as it is, all rules would be gone.
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(content)
    };
    config::from_args(std::env::args_os().skip(1), &read_file)
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
        .format(|out, record| writeln!(out, "{} {:5} {}", unix_time(), record.level(), record.args()))
        .init();
}

/// What is left of what a start would read; the rest has been read.
fn check_config(settings: &Settings) -> Result<ExitCode, Failed> {
    read_name_files(settings)?;
    let _ = io::stdout().write_all(b"ok\n");
    Ok(ExitCode::SUCCESS)
}

fn check_destination(settings: &Settings, check: &Check) -> Result<ExitCode, Failed> {
    let names = read_name_files(settings)?.config();
    // Whoever closed stdout does not want to know.
    let mut say = |text: &str| drop(io::stdout().write_all(text.as_bytes()));
    match check::run(check, settings, names, &mut say) {
        Ok(code) => Ok(ExitCode::from(code)),
        Err(error) => Err(Failed(format!("cannot check: {error}"))),
    }
}

fn read_name_files(settings: &Settings) -> Result<NameFiles, Failed> {
    NameFiles::read(settings.name_sources(), When::AtStart).map_err(|error| Failed(error.to_string()))
}

fn run(settings: Settings) -> Result<ExitCode, Failed> {
    raise_descriptor_limit();
    let reread = || match command(When::Running) {
        Ok(Command::Run(config)) => Settings::read(*config, When::Running).map_err(|error| error.to_string()),
        // The command line has not changed.
        Ok(Command::Check(..) | Command::CheckConfig(_) | Command::Print(_)) => {
            Err("the command line says not to run".to_owned())
        }
        Err(error) => Err(error.to_string()),
    };
    Supervisor::start(settings, &reread)?.run()?;
    Ok(ExitCode::SUCCESS)
}

/// The soft limit is often 1024 for the sake of programs that use `select`. We take what we may have.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    // Not being allowed to is no reason not to start.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}
