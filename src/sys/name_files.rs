//! The files that say how names are resolved, `resolv.conf` and hosts: read at the start and again whenever they change.
//! A file that cannot be used leaves in force what was read before. Layer 5.5.

use std::fmt::{self, Display};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::files::{self, When};
use super::names::{NamesConfig, interface_index};
use crate::proto::hosts::Hosts;
use crate::proto::resolv_conf::ResolvConf;

/// Nobody has longer ones.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// Which files, and what does not come from files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sources {
    /// `/etc/resolv.conf`. It may be missing at the start.
    pub resolv_conf: PathBuf,
    /// The hosts file.
    pub hosts: PathBuf,
    /// Whether the hosts file was asked for (`--hosts`), so that it must be there at the start.
    pub hosts_required: bool,
    /// Instead of the nameservers of the file (`--nameserver`).
    pub nameservers: Option<Vec<SocketAddr>>,
    /// Everything else. What the files say is put in its place.
    pub config: NamesConfig,
}

/// A file could not be read at the start.
#[derive(Debug)]
pub struct Unreadable {
    /// The file.
    pub path: PathBuf,
    /// Why not.
    pub error: io::Error,
}

impl Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot read {}: {}", self.path.display(), self.error)
    }
}

impl std::error::Error for Unreadable {}

/// The files, and what they said last.
#[derive(Debug)]
pub struct NameFiles {
    sources: Sources,
    resolv_conf: Source<ResolvConf>,
    hosts: Source<HostsFile>,
}

impl NameFiles {
    /// Reads the files. Lines that make no sense are left out, with a warning.
    ///
    /// # Errors
    /// When a file is there, or must be, and cannot be read.
    pub fn read(sources: Sources, when: When) -> Result<NameFiles, Unreadable> {
        let resolv_conf = Source::read(&sources.resolv_conf, false, when)?;
        let hosts = Source::read(&sources.hosts, sources.hosts_required, when)?;
        let files = NameFiles { sources, resolv_conf, hosts };
        files.complain_of_no_server();
        Ok(files)
    }

    /// The settings that follow from the files as they were read last.
    #[must_use]
    pub fn config(&self) -> NamesConfig {
        let conf = &self.resolv_conf.content;
        let nameservers = self.sources.nameservers.as_ref().unwrap_or(&conf.nameservers);
        NamesConfig {
            nameservers: nameservers.clone(),
            search: conf.search.clone(),
            ndots: conf.ndots,
            timeout_ms: conf.timeout_ms,
            attempts: conf.attempts,
            rotate: conf.rotate,
            hosts: Arc::clone(&self.hosts.content.hosts),
            ..self.sources.config.clone()
        }
    }

    /// Whether these are the same files and everything else is the same too.
    #[must_use]
    pub fn are_from(&self, sources: &Sources) -> bool {
        self.sources == *sources
    }

    /// Reads the files again. The new settings if there are any. A file that cannot be read, or in which nothing makes
    /// sense, changes nothing; that is said once.
    #[must_use]
    pub fn reread(&mut self) -> Option<NamesConfig> {
        let before = self.config();
        if self.resolv_conf.reread(&self.sources.resolv_conf) {
            self.complain_of_no_server();
        }
        self.hosts.reread(&self.sources.hosts);
        let config = self.config();
        if config == before {
            return None;
        }
        let servers: Vec<String> = config.nameservers.iter().map(SocketAddr::to_string).collect();
        let names = config.hosts.len();
        log::info!("names are resolved anew: nameservers {}; {names} static names", servers.join(", "));
        Some(config)
    }

    fn complain_of_no_server(&self) {
        if self.config().nameservers.is_empty() {
            let path = self.sources.resolv_conf.display();
            log::warn!("no nameserver in {path}: only static names are resolved");
        }
    }
}

/// What is read from a file.
trait Content: Default + PartialEq {
    fn parse(text: &[u8]) -> Self;
    /// Numbers of lines that make no sense.
    fn bad_lines(&self) -> &[usize];
    /// Whether nothing at all was found in it.
    fn is_empty(&self) -> bool;
}

impl Content for ResolvConf {
    fn parse(text: &[u8]) -> ResolvConf {
        ResolvConf::parse(text, &interface_index)
    }

    fn bad_lines(&self) -> &[usize] {
        &self.bad_lines
    }

    fn is_empty(&self) -> bool {
        self.nameservers.is_empty()
    }
}

#[derive(Debug, Default, PartialEq)]
struct HostsFile {
    hosts: Arc<Hosts>,
    bad_lines: Vec<usize>,
}

impl Content for HostsFile {
    fn parse(text: &[u8]) -> HostsFile {
        let (hosts, bad_lines) = Hosts::parse(text);
        HostsFile { hosts: Arc::new(hosts), bad_lines }
    }

    fn bad_lines(&self) -> &[usize] {
        &self.bad_lines
    }

    fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }
}

#[derive(Debug)]
struct Source<C> {
    content: C,
    /// There has never been such a file.
    missing: bool,
    /// It cannot be used, which has been said.
    broken: bool,
}

impl<C: Content> Source<C> {
    fn read(path: &Path, required: bool, when: When) -> Result<Source<C>, Unreadable> {
        match files::read(path, MAX_FILE_BYTES, when) {
            Ok(text) => {
                let content = C::parse(&text);
                complain_of_lines(path, content.bad_lines());
                Ok(Source { content, missing: false, broken: false })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound && !required => {
                Ok(Source { content: C::default(), missing: true, broken: false })
            }
            Err(error) => Err(Unreadable { path: path.to_path_buf(), error }),
        }
    }

    /// True if it says something else now.
    fn reread(&mut self, path: &Path) -> bool {
        let text = match files::read(path, MAX_FILE_BYTES, When::Running) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.missing => return false,
            Err(error) => {
                self.keep_old(path, &error);
                return false;
            }
        };
        let content = C::parse(&text);
        if content.is_empty() && !content.bad_lines().is_empty() {
            self.keep_old(path, &"nothing in it makes sense");
            return false;
        }
        self.missing = false;
        if std::mem::take(&mut self.broken) {
            log::warn!("{} can be used again", path.display());
        }
        if content == self.content {
            return false;
        }
        complain_of_lines(path, content.bad_lines());
        self.content = content;
        true
    }

    fn keep_old(&mut self, path: &Path, why: &dyn Display) {
        if !std::mem::replace(&mut self.broken, true) {
            log::warn!("{} cannot be used ({why}): what it said before stays in force", path.display());
        }
    }
}

/// The first few: a file may consist of nothing else.
fn complain_of_lines(path: &Path, bad_lines: &[usize]) {
    const SHOWN: usize = 10;
    for line in bad_lines.iter().take(SHOWN) {
        log::warn!("{}:{line}: not understood, left out", path.display());
    }
    if let Some(more) = bad_lines.len().checked_sub(SHOWN + 1) {
        log::warn!("{}: {} more lines not understood, left out", path.display(), more + 1);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::proto::lookup::Families;
    use std::fs;

    struct Files {
        dir: PathBuf,
        names: NameFiles,
    }

    impl Files {
        fn new(name: &str, resolv_conf: Option<&str>, hosts: Option<&str>) -> Files {
            let dir = std::env::temp_dir().join(format!("adit-name-files-{}-{name}", std::process::id()));
            let _ = fs::remove_dir_all(&dir);
            fs::create_dir_all(&dir).unwrap();
            for (name, text) in [("resolv.conf", resolv_conf), ("hosts", hosts)] {
                if let Some(text) = text {
                    fs::write(dir.join(name), text).unwrap();
                }
            }
            let names = NameFiles::read(sources(&dir), When::AtStart).unwrap();
            Files { dir, names }
        }

        fn write(&self, name: &str, text: impl AsRef<[u8]>) {
            fs::write(self.dir.join(name), text).unwrap();
        }

        fn servers(&self) -> Vec<String> {
            self.names.config().nameservers.iter().map(|server| server.ip().to_string()).collect()
        }

        #[track_caller]
        fn keeps(&mut self) {
            let before = self.names.config();
            assert_eq!(self.names.reread(), None);
            assert_eq!(self.names.config(), before);
        }

        #[track_caller]
        fn changes(&mut self) {
            let before = self.names.config();
            let new = self.names.reread();
            assert_eq!(new, Some(self.names.config()));
            assert_ne!(new, Some(before));
        }
    }

    impl Drop for Files {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }

    fn sources(dir: &Path) -> Sources {
        Sources {
            resolv_conf: dir.join("resolv.conf"),
            hosts: dir.join("hosts"),
            hosts_required: false,
            nameservers: None,
            config: NamesConfig {
                nameservers: Vec::new(),
                search: Vec::new(),
                ndots: 1,
                timeout_ms: 1,
                attempts: 1,
                rotate: false,
                resolve_timeout_ms: 1_234,
                families: Families::Only4,
                cache_bytes: 5_678,
                hosts: Arc::default(),
            },
        }
    }

    #[test]
    fn changes_are_taken() {
        let mut files =
            Files::new("taken", Some("nameserver 10.0.0.1\nsearch lan\n"), Some("10.0.0.9 nas\n"));
        let config = files.names.config();
        assert_eq!((config.resolve_timeout_ms, config.cache_bytes), (1_234, 5_678));
        assert_eq!((config.families, config.timeout_ms), (Families::Only4, 5_000));
        assert_eq!(config.search, ["lan"]);
        files.keeps();
        files.write("resolv.conf", "nameserver 10.0.0.2\nnameserver 10.0.0.3\noptions rotate\n");
        files.changes();
        assert_eq!(files.servers(), ["10.0.0.2", "10.0.0.3"]);
        assert!(files.names.config().rotate && files.names.config().search.is_empty());
        files.write("hosts", "10.0.0.8 nas\n");
        files.changes();
        assert_eq!(files.names.config().hosts.get("nas"), ["10.0.0.8".parse::<std::net::IpAddr>().unwrap()]);
        // Another text with the same meaning is no change.
        files.write("resolv.conf", "# new\nnameserver 10.0.0.2\nnameserver 10.0.0.3\noptions rotate\n");
        files.keeps();
        // A network that has gone: no server is an answer too.
        files.write("resolv.conf", "# nothing\n");
        files.changes();
        assert!(files.servers().is_empty());
    }

    #[test]
    fn files_that_cannot_be_used_change_nothing() {
        let mut files = Files::new("broken", Some("nameserver 10.0.0.1\n"), Some("10.0.0.9 nas\n"));
        for bad in [b"\x00\xff\xfe".as_slice(), b"nameserver gone\n"] {
            files.write("resolv.conf", bad);
            files.write("hosts", bad);
            files.keeps();
            assert!(files.names.resolv_conf.broken && files.names.hosts.broken);
        }
        // One of them may be good.
        files.write("hosts", "10.0.0.7 nas\n");
        files.changes();
        assert!(files.names.resolv_conf.broken && !files.names.hosts.broken);
        for name in ["resolv.conf", "hosts"] {
            fs::remove_file(files.dir.join(name)).unwrap();
            files.keeps();
            fs::create_dir(files.dir.join(name)).unwrap();
            files.keeps();
            fs::remove_dir(files.dir.join(name)).unwrap();
        }
        assert_eq!(files.servers(), ["10.0.0.1"]);
        files.write("resolv.conf", "nameserver 10.0.0.1\n");
        files.keeps();
        assert!(!files.names.resolv_conf.broken && files.names.hosts.broken);
        // What is left of a file counts if it makes any sense.
        files.write("resolv.conf", "nameserver 10.0.0.5\nnameserver what\n");
        files.changes();
        assert_eq!(files.servers(), ["10.0.0.5"]);
    }

    #[test]
    fn files_may_come_to_be() {
        let mut files = Files::new("missing", None, None);
        files.keeps();
        assert!(!files.names.resolv_conf.broken && !files.names.hosts.broken);
        files.write("resolv.conf", "nameserver fe80::1%lo\n");
        files.changes();
        let Some(SocketAddr::V6(server)) = files.names.config().nameservers.pop() else { unreachable!() };
        assert_ne!(server.scope_id(), 0, "interfaces have numbers");
        files.write("hosts", "10.0.0.9 nas\n");
        files.changes();
    }

    #[test]
    fn options_go_before_files() {
        let files = Files::new("options", Some("nameserver 10.0.0.1\nsearch lan\n"), None);
        let given = Some(vec!["10.0.0.7:5353".parse().unwrap()]);
        let config = NameFiles::read(Sources { nameservers: given, ..sources(&files.dir) }, When::AtStart)
            .unwrap()
            .config();
        assert_eq!(config.nameservers[0].to_string(), "10.0.0.7:5353");
        assert_eq!(config.search, ["lan"]);
        let required = Sources { hosts_required: true, ..sources(&files.dir) };
        let error = NameFiles::read(required, When::AtStart).unwrap_err().to_string();
        assert!(error.contains("hosts: ") && error.starts_with("cannot read "), "{error}");
    }
}
