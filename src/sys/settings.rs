//! From a checked configuration to what loops are made with: the files that it names are read here, before anything that runs
//! is changed. Layer 5.6.

use std::fmt::{self, Display};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use super::access_log::AccessLog;
use super::files::{self, When};
use super::list_files;
use super::name_files;
use super::names::NamesConfig;
use crate::config::{Config, DEFAULT_HOSTS};
use crate::proto::rules::RuleForUser;
use crate::proto::session::Policy;
use crate::proto::users::{MAX_FILE_BYTES, Users};

/// Rules for a user that does not exist, as far as they are told one by one; the others are counted.
const MAX_UNKNOWN_USERS: usize = 8;
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// A file that the configuration names cannot be used.
#[derive(Debug)]
pub enum BadFile {
    /// The system does not let us read or write it.
    System {
        /// What was tried, and with what.
        what: String,
        /// Why not.
        error: io::Error,
    },
    /// A line of it makes no sense.
    Line {
        /// As given.
        file: String,
        /// From 1.
        line: usize,
        /// Completes "expected".
        expected: &'static str,
    },
}

impl BadFile {
    /// Whether what the file says is to blame, and not the system.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        match self {
            BadFile::System { .. } => false,
            BadFile::Line { .. } => true,
        }
    }
}

impl Display for BadFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadFile::System { what, error } => write!(f, "{what}: {error}"),
            BadFile::Line { file, line, expected } => write!(f, "{file}:{line}: expected {expected}"),
        }
    }
}

impl std::error::Error for BadFile {}

impl From<list_files::Unreadable> for BadFile {
    fn from(list_files::Unreadable { file, error }: list_files::Unreadable) -> BadFile {
        BadFile::System { what: format!("cannot read {file}"), error }
    }
}

fn read_users(config: &Config, when: When) -> Result<Option<Arc<Users>>, BadFile> {
    let Some(path) = &config.users else { return Ok(None) };
    let file = path.display().to_string();
    let text = match files::read(path, MAX_FILE_BYTES as u64, when) {
        Ok(text) => text,
        Err(error) => return Err(BadFile::System { what: format!("cannot read {file}"), error }),
    };
    match Users::parse(&text) {
        Ok(users) => Ok(Some(Arc::new(users))),
        Err(bad) => Err(BadFile::Line { file, line: bad.line, expected: bad.why.expected() }),
    }
}

/// A slip in a user's name makes a rule say nothing, and a `--deny` that says nothing lets everybody through.
fn warn_of_users(config: &Config, users: Option<&Users>) {
    let mut rules = config.policy.rules_for_a_user();
    let Some(users) = users else {
        if rules.next().is_some() {
            log::warn!("rules for a user say nothing without --users");
        }
        return;
    };
    if users.is_empty() {
        log::warn!("--users has no users: nobody is let in");
        return;
    }
    let mut unknown = 0;
    for RuleForUser { user, rule, list } in rules.filter(|of| !users.contains(of.user)) {
        unknown += 1;
        if unknown <= MAX_UNKNOWN_USERS {
            let (list, colon) = list.map_or(("", ""), |list| (list, ": "));
            log::warn!("--users has no {user}: this rule says nothing: {list}{colon}{rule}");
        }
    }
    if unknown > MAX_UNKNOWN_USERS {
        log::warn!("{unknown} rules in all are for users that --users does not have");
    }
}

/// A configuration and everything that was read for it, but for the files that are followed while the proxy runs
/// ([`name_files`]).
#[derive(Debug)]
pub struct Settings {
    /// As given.
    pub config: Config,
    /// Who may use the proxy, if that is asked.
    pub users: Option<Arc<Users>>,
}

impl Settings {
    /// Reads the files.
    ///
    /// # Errors
    /// The first that cannot be used.
    pub fn read(mut config: Config, when: When) -> Result<Settings, BadFile> {
        config.policy.deny_lists = list_files::read(&config.deny_files, when)?;
        config.policy.allow_lists = list_files::read(&config.allow_files, when)?;
        let users = read_users(&config, when)?;
        warn_of_users(&config, users.as_deref());
        Ok(Settings { config, users })
    }

    /// With the same users as `before`, what is remembered of their credentials stays good; and whoever is in neither file
    /// is taken for the same user as before.
    pub fn keep_same_users(&mut self, before: &Settings) {
        if self.users == before.users {
            self.users.clone_from(&before.users);
        } else if let (Some(own), Some(old)) = (&mut self.users, &before.users)
            && let Some(own) = Arc::get_mut(own)
        {
            own.keep_key_of(old);
        }
    }

    /// What sessions are judged by. `own_listeners` are the addresses really bound (port 0 replaced).
    #[must_use]
    pub fn policy(&self, own_listeners: &[SocketAddr]) -> Arc<Policy> {
        let config = &self.config;
        Arc::new(Policy {
            rules: config.rules(own_listeners),
            timeouts: config.timeouts,
            families: config.families,
            via: config.via.proxy_status_name().into(),
            via_field: config.via.field_name().map(Box::from),
            forwarded: config.forwarded,
            users: self.users.clone(),
        })
    }

    /// What is in force, for the log.
    #[must_use]
    pub fn summary(&self) -> String {
        let policy = &self.config.policy;
        let count =
            |number: usize, noun: &str| format!("{number} {noun}{}", if number == 1 { "" } else { "s" });
        let mut parts = vec![
            count(self.config.listen.len(), "listener"),
            count(policy.clients.len(), "client network"),
            count(policy.deny.len() + policy.allow.len(), "rule"),
        ];
        let lists = policy.deny_lists.iter().chain(&policy.allow_lists);
        let listed: usize = lists.map(|list| list.len()).sum();
        if listed > 0 {
            parts.push(count(listed, "listed destination"));
        }
        if let Some(users) = &self.users {
            parts.push(count(users.len(), "user"));
        }
        parts.join(", ")
    }

    /// Where names come from.
    #[must_use]
    pub fn name_sources(&self) -> name_files::Sources {
        let config = &self.config;
        name_files::Sources {
            resolv_conf: RESOLV_CONF.into(),
            hosts: config.hosts.clone().unwrap_or_else(|| DEFAULT_HOSTS.into()),
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
        }
    }

    /// Each loop's end of the access log.
    ///
    /// # Errors
    /// When its file cannot be opened.
    pub fn access_logs(&self, loops: usize) -> Result<Vec<AccessLog>, BadFile> {
        let log = &self.config.access_log;
        AccessLog::open(log, loops)
            .map_err(|error| BadFile::System { what: format!("cannot write to {}", log.target), error })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::{Command, from_args};
    use std::fs;

    /// Settings with these users.
    fn settings(name: &str, users: &str) -> Settings {
        let file = std::env::temp_dir().join(format!("adit-settings-{}-{name}", std::process::id()));
        fs::write(&file, users).unwrap();
        let Ok(Command::Run(config)) =
            from_args(["--users".into(), file.clone().into()], &|_| unreachable!())
        else {
            unreachable!()
        };
        let settings = Settings::read(*config, When::AtStart).unwrap();
        fs::remove_file(file).unwrap();
        settings
    }

    #[test]
    fn the_same_users_stay_the_same_so_that_nobody_is_verified_anew() {
        const ALICE: &str = "alice:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n";
        let before = settings("before", ALICE);
        let own = |settings: &Settings| Arc::as_ptr(settings.users.as_ref().unwrap());
        let mut same = settings("same", &format!("# nobody new\n{ALICE}"));
        assert_ne!(own(&same), own(&before));
        same.keep_same_users(&before);
        assert_eq!(own(&same), own(&before));
        let mut other = settings("other", "bob:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n");
        other.keep_same_users(&before);
        assert_ne!(own(&other), own(&before));
        let two = format!("{ALICE}bob:{{SHA}}5en6G6MezRroT3XKqkdPOmY/BfQ=\n");
        let before = settings("two", &two);
        let mut swapped = settings("swapped", &two.replace("5en6", "5en7"));
        swapped.keep_same_users(&before);
        let looks = |settings: &Settings| {
            let users = settings.users.as_ref().unwrap();
            (0..100).map(|at| users.looks_like(&format!("nobody{at}")).unwrap()).collect::<Vec<_>>()
        };
        assert_ne!(own(&swapped), own(&before));
        assert_eq!(looks(&swapped), looks(&before));
        assert!(other.summary().ends_with(", 1 user"), "{}", other.summary());
    }
}
