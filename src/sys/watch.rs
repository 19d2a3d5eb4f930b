//! Notices that one of a few files may have changed: written to, replaced by a rename, made, removed, or reached through
//! another symlink. Costs nothing as long as nothing happens. Layer 5.
//!
//! What is watched (inotify(7)) is the file itself, for writes in place, which is also all that is seen of a file that is
//! mounted by itself (containers); and every directory in which a symlink on the way or the file's own name stands, for
//! everything else. Of a directory, only the names that lead to the file count. Not seen is a directory above these that
//! is moved away; SIGHUP is for that.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

/// Symlinks followed for one path; the kernel's own limit.
const MAX_SYMLINKS: usize = 40;
/// How often the files are looked at where the kernel does not tell of changes.
const LOOK_MS: u64 = 1_000;

/// Watches a few files.
#[derive(Debug)]
pub struct Watch {
    paths: Vec<PathBuf>,
    method: Method,
}

#[derive(Debug)]
enum Method {
    Told {
        inotify: OwnedFd,
        watched: Vec<Watched>,
    },
    /// There are no inotify instances left, or the kernel has none.
    Looking(Vec<Option<Look>>),
}

/// A directory or file that is watched.
#[derive(Debug)]
struct Watched {
    descriptor: i32,
    /// Of a directory, the names in it that count.
    names: Vec<OsString>,
}

/// How a file looked: device, inode, size, and the times of the last change.
type Look = (u64, u64, u64, (i64, i64), (i64, i64));

impl Watch {
    /// Watches the files at `paths`, which need not exist. What happens from now on is noticed: create it before the files
    /// are read.
    #[must_use]
    pub fn new(paths: &[&Path]) -> Watch {
        let paths: Vec<PathBuf> = paths
            .iter()
            .map(|path| std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf()))
            .collect();
        let method = match inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)
            .and_then(|inotify| Ok(Method::Told { watched: walk(&inotify, &paths)?, inotify }))
        {
            Ok(method) => method,
            Err(error) => Method::looking(&paths, error),
        };
        Watch { paths, method }
    }

    /// Whether something may have changed since the last call. Call it when [`Watch::descriptor`] is readable, and every
    /// [`Watch::look_ms`].
    pub fn changed(&mut self) -> bool {
        match &mut self.method {
            Method::Told { inotify, watched } => {
                let changed = drain(inotify, watched);
                // The way to a file may be another one now.
                let walked = if changed { walk(inotify, &self.paths) } else { return false };
                match walked {
                    Ok(new) => {
                        let stays = |old: &Watched| new.iter().any(|new| new.descriptor == old.descriptor);
                        for old in watched.iter().filter(|old| !stays(old)) {
                            // Gone by itself if what it watched is gone.
                            let _ = inotify::remove_watch(&*inotify, old.descriptor);
                        }
                        *watched = new;
                    }
                    Err(error) => self.method = Method::looking(&self.paths, error),
                }
                true
            }
            Method::Looking(before) => {
                let now = look(&self.paths);
                std::mem::replace(before, now) != *before
            }
        }
    }

    /// Becomes readable when there may be a change. `None` where the files must be looked at.
    #[must_use]
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match &self.method {
            Method::Told { inotify, .. } => Some(inotify.as_fd()),
            Method::Looking(_) => None,
        }
    }

    /// How often [`Watch::changed`] must be called, if nothing tells when.
    #[must_use]
    pub fn look_ms(&self) -> Option<u64> {
        match &self.method {
            Method::Told { .. } => None,
            Method::Looking(_) => Some(LOOK_MS),
        }
    }
}

impl Method {
    fn looking(paths: &[PathBuf], error: Errno) -> Method {
        let error = io::Error::from(error);
        log::warn!("the kernel cannot tell of changed files ({error}): they are looked at once a second");
        Method::Looking(look(paths))
    }
}

/// Reads what the kernel has to tell. True if any of it counts.
fn drain(inotify: &OwnedFd, watched: &[Watched]) -> bool {
    let mut changed = false;
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(inotify, &mut buffer);
    loop {
        match reader.next() {
            Ok(event) => {
                let lost = event.events().contains(ReadFlags::QUEUE_OVERFLOW);
                let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()));
                let counts =
                    watched.iter().filter(|one| one.descriptor == event.wd()).any(|one| match name {
                        Some(name) => one.names.iter().any(|other| other == name),
                        None => true,
                    });
                changed |= lost || counts;
            }
            Err(Errno::INTR) => {}
            // Nothing left.
            Err(_) => return changed,
        }
    }
}

fn walk(inotify: &OwnedFd, paths: &[PathBuf]) -> Result<Vec<Watched>, Errno> {
    let mut walk = Walk { inotify, watched: Vec::new() };
    paths.iter().try_for_each(|path| walk.path(path))?;
    Ok(walk.watched)
}

struct Walk<'a> {
    inotify: &'a OwnedFd,
    watched: Vec<Watched>,
}

impl Walk<'_> {
    /// Goes the way to `path` as the kernel does, and watches what can change on it.
    fn path(&mut self, path: &Path) -> Result<(), Errno> {
        let mut here = PathBuf::from("/");
        let mut ahead: VecDeque<OsString> = components(path);
        let mut symlinks = 0;
        while let Some(name) = ahead.pop_front() {
            if name == ".." {
                // There is no symlink in it any more, so this is what the kernel does.
                here.pop();
                continue;
            }
            let there = here.join(&name);
            let found = fs::symlink_metadata(&there);
            if found.is_ok_and(|found| found.is_dir()) && !ahead.is_empty() {
                here = there;
                continue;
            }
            // Watched first, looked at afterwards: what happens between is told.
            self.directory(&here, &name)?;
            match fs::symlink_metadata(&there) {
                Ok(found) if found.is_symlink() && symlinks < MAX_SYMLINKS => {
                    symlinks += 1;
                    let target = fs::read_link(&there).unwrap_or_default();
                    if target.is_absolute() {
                        here = PathBuf::from("/");
                    }
                    for name in components(&target).into_iter().rev() {
                        ahead.push_front(name);
                    }
                }
                Ok(found) if found.is_dir() && !ahead.is_empty() => here = there,
                Ok(found) if found.is_file() => return self.file(&there),
                // Whoever writes to /dev/null does not change it. Or there is nothing: it may come to be.
                Ok(_) | Err(_) => return Ok(()),
            }
        }
        Ok(())
    }

    fn directory(&mut self, path: &Path, name: &OsStr) -> Result<(), Errno> {
        let changes = WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::MOVED_FROM | WatchFlags::MOVED_TO;
        let gone = WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF;
        self.add(path, changes | gone | WatchFlags::ONLYDIR, Some(name))
    }

    fn file(&mut self, path: &Path) -> Result<(), Errno> {
        // ATTRIB: it became readable.
        let changes = WatchFlags::MODIFY | WatchFlags::CLOSE_WRITE | WatchFlags::ATTRIB;
        let gone = WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF;
        match self.add(path, changes | gone, None) {
            // Who may not read it is told by its directory at least.
            Err(Errno::ACCESS) => Ok(()),
            done => done,
        }
    }

    fn add(&mut self, path: &Path, events: WatchFlags, name: Option<&OsStr>) -> Result<(), Errno> {
        let descriptor = match inotify::add_watch(self.inotify, path, events | WatchFlags::MASK_ADD) {
            // It went away just now, which its own directory tells.
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
            result => result?,
        };
        let names = name.map(OsStr::to_os_string);
        match self.watched.iter_mut().find(|one| one.descriptor == descriptor) {
            Some(one) => one.names.extend(names),
            None => self.watched.push(Watched { descriptor, names: names.into_iter().collect() }),
        }
        Ok(())
    }
}

/// The names in a path, with `..` as one of them.
fn components(path: &Path) -> VecDeque<OsString> {
    let name = |component: Component<'_>| match component {
        Component::Normal(name) => Some(name.to_os_string()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    path.components().filter_map(name).collect()
}

fn look(paths: &[PathBuf]) -> Vec<Option<Look>> {
    let times = |found: &Metadata| ((found.mtime(), found.mtime_nsec()), (found.ctime(), found.ctime_nsec()));
    let one = |path: &PathBuf| {
        let found = fs::metadata(path).ok()?;
        let (modified, changed) = times(&found);
        Some((found.dev(), found.ino(), found.size(), modified, changed))
    };
    paths.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use std::os::unix::fs::symlink;
    use std::time::Duration;

    /// A directory that goes with the test.
    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Dir {
            let path = std::env::temp_dir().join(format!("adit-watch-{}-{name}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(&path).unwrap();
            // What a path leads through is watched without symlinks of the system's own.
            Dir(path.canonicalize().unwrap())
        }

        fn at(&self, name: &str) -> PathBuf {
            self.0.join(name)
        }

        fn write(&self, name: &str, text: &str) {
            fs::write(self.at(name), text).unwrap();
        }

        /// As programs replace a file: written beside it, then renamed over it.
        fn replace(&self, name: &str, text: &str) {
            self.write("new", text);
            fs::rename(self.at("new"), self.at(name)).unwrap();
        }

        fn link(&self, target: &str, name: &str) {
            symlink(target, self.at("new-link")).unwrap();
            fs::rename(self.at("new-link"), self.at(name)).unwrap();
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    impl Watch {
        /// Whether the kernel has something to tell. It tells within the call that changes something.
        fn is_readable(&self) -> bool {
            let mut polled = [PollFd::from_borrowed_fd(self.descriptor().unwrap(), PollFlags::IN)];
            poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 1
        }

        #[track_caller]
        fn tells(&mut self) {
            assert!(self.is_readable() && self.changed());
            // What ended with the change may have left a word.
            assert!(!self.changed(), "told twice");
        }

        #[track_caller]
        fn tells_nothing(&mut self) {
            assert!(!self.changed());
        }

        fn watches(&self) -> usize {
            match &self.method {
                Method::Told { watched, .. } => watched.len(),
                Method::Looking(_) => 0,
            }
        }
    }

    #[test]
    fn file_is_written_replaced_removed_and_made() {
        let dir = Dir::new("plain");
        dir.write("file", "1");
        let mut watch = Watch::new(&[&dir.at("file")]);
        assert!(!watch.is_readable());
        for _ in 0..3 {
            dir.write("file", "2");
            watch.tells();
            dir.replace("file", "3");
            watch.tells();
            dir.write("file", "4");
            watch.tells();
            fs::remove_file(dir.at("file")).unwrap();
            watch.tells();
            dir.write("file", "5");
            watch.tells();
            fs::rename(dir.at("file"), dir.at("away")).unwrap();
            watch.tells();
            dir.write("away", "not this one any more");
            watch.tells_nothing();
            dir.replace("file", "6");
            watch.tells();
            assert_eq!(watch.watches(), 2);
        }
    }

    #[test]
    fn reading_and_other_files_are_not_told() {
        let dir = Dir::new("other");
        dir.write("file", "1");
        let mut watch = Watch::new(&[&dir.at("file")]);
        assert_eq!(fs::read_to_string(dir.at("file")).unwrap(), "1");
        assert!(!watch.is_readable());
        dir.write("other", "1");
        fs::remove_file(dir.at("other")).unwrap();
        watch.tells_nothing();
        assert!(!watch.is_readable());
    }

    #[test]
    fn symlinks_are_followed_wherever_they_move() {
        let dir = Dir::new("links");
        for there in ["a", "b"] {
            fs::create_dir(dir.at(there)).unwrap();
            dir.write(&format!("{there}/file"), there);
        }
        dir.link("a", "current");
        dir.link("current/file", "link");
        let mut watch = Watch::new(&[&dir.at("link")]);
        dir.replace("a/file", "1");
        watch.tells();
        dir.write("a/file", "2");
        watch.tells();
        // A directory on the way is another one.
        dir.link("b", "current");
        watch.tells();
        dir.write("a/file", "3");
        watch.tells_nothing();
        dir.replace("b/file", "4");
        watch.tells();
        // The link itself.
        dir.link(dir.at("a/../a/./file").to_str().unwrap(), "link");
        watch.tells();
        dir.write("b/file", "5");
        watch.tells_nothing();
        dir.write("a/file", "6");
        watch.tells();
        // A link becomes a file.
        dir.replace("link", "7");
        watch.tells();
        dir.write("link", "8");
        watch.tells();
        assert_eq!(watch.watches(), 2);
    }

    #[test]
    fn way_that_does_not_exist_yet_is_waited_for() {
        let dir = Dir::new("missing");
        dir.link("run/deep/file", "link");
        let mut watch = Watch::new(&[&dir.at("link")]);
        fs::create_dir(dir.at("run")).unwrap();
        watch.tells();
        fs::create_dir(dir.at("run/deep")).unwrap();
        watch.tells();
        dir.write("run/deep/file", "1");
        watch.tells();
        fs::remove_dir_all(dir.at("run")).unwrap();
        watch.tells();
        fs::create_dir_all(dir.at("run/deep")).unwrap();
        watch.tells();
        dir.write("run/deep/file", "2");
        watch.tells();
    }

    #[test]
    fn links_in_a_ring_end() {
        let dir = Dir::new("ring");
        dir.link("two", "one");
        dir.link("one", "two");
        let mut watch = Watch::new(&[&dir.at("one")]);
        dir.replace("two", "1");
        watch.tells();
        dir.write("two", "2");
        watch.tells();
    }

    #[test]
    fn several_files_share_a_directory() {
        let dir = Dir::new("several");
        dir.write("one", "1");
        let mut watch = Watch::new(&[&dir.at("one"), &dir.at("two"), Path::new("/dev/null")]);
        for name in ["one", "two"] {
            dir.replace(name, "2");
            watch.tells();
            dir.write(name, "3");
            watch.tells();
        }
        fs::write("/dev/null", "nothing").unwrap();
        watch.tells_nothing();
    }

    #[test]
    fn files_are_looked_at_where_nobody_tells() {
        let dir = Dir::new("look");
        dir.write("file", "1");
        let path = dir.at("file");
        let mut watch = Watch { paths: vec![path.clone()], method: Method::looking(&[path], Errno::MFILE) };
        assert!(watch.descriptor().is_none() && watch.look_ms() == Some(LOOK_MS));
        watch.tells_nothing();
        // The clock of files is a coarse one.
        std::thread::sleep(Duration::from_millis(20));
        let changes: [&dyn Fn(); 4] = [
            &|| dir.write("file", "22"),
            &|| dir.replace("file", "33"),
            &|| fs::remove_file(dir.at("file")).unwrap(),
            &|| dir.write("file", "44"),
        ];
        for change in changes {
            change();
            assert!(watch.changed());
            watch.tells_nothing();
        }
    }
}
