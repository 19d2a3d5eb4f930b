//! Reads files that options name, whole. Layer 4.2.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

/// When a file is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Nothing runs that could be held up: a pipe (`-c <(...)`) may be waited for.
    AtStart,
    /// The main thread has others to listen to: only files that need no waiting.
    Running,
}

/// Reads a file of at most `most_bytes`.
///
/// # Errors
/// The system's; `FileTooLarge`; while the proxy runs, `InvalidInput` for what is no regular file.
pub fn read(path: &Path, most_bytes: u64, when: When) -> io::Result<Vec<u8>> {
    let mut options = OpenOptions::new();
    options.read(true);
    if when == When::Running {
        // Opening a pipe would wait for its writer.
        let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
        options.custom_flags(i32::try_from(flags.bits()).unwrap_or(0));
    }
    let file = options.open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(ErrorKind::IsADirectory.into());
    }
    if when == When::Running && !metadata.is_file() {
        return Err(ErrorKind::InvalidInput.into());
    }
    let mut content = Vec::with_capacity(usize::try_from(metadata.len().min(most_bytes)).unwrap_or(0));
    file.take(most_bytes.saturating_add(1)).read_to_end(&mut content)?;
    if content.len() as u64 > most_bytes {
        return Err(ErrorKind::FileTooLarge.into());
    }
    Ok(content)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, Mode, mkfifoat};

    #[test]
    fn nothing_is_waited_for_while_the_proxy_runs() {
        let path = std::env::temp_dir().join(format!("adit-files-{}", std::process::id()));
        let error = |when| read(&path, 5, when).unwrap_err().kind();
        std::fs::write(&path, "hello").unwrap();
        assert_eq!(read(&path, 5, When::Running).unwrap(), b"hello");
        assert_eq!(read(&path, 4, When::Running).unwrap_err().kind(), ErrorKind::FileTooLarge);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(error(When::Running), ErrorKind::NotFound);
        mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR).unwrap();
        assert_eq!(error(When::Running), ErrorKind::InvalidInput);
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert_eq!(error(When::Running), ErrorKind::IsADirectory);
        assert_eq!(error(When::AtStart), ErrorKind::IsADirectory);
        std::fs::remove_dir(&path).unwrap();
        assert_eq!(
            read(Path::new("/dev/zero"), 9, When::AtStart).unwrap_err().kind(),
            ErrorKind::FileTooLarge
        );
    }
}
