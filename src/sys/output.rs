//! Writing to standard output, standard error, a file or syslog without ever waiting for whoever reads it.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::net::SendFlags;

use super::syslog::{SOCKET_PATH, Syslog};

/// Somewhere to write to.
#[derive(Debug)]
pub enum Output {
    /// A pipe, terminal or file through an open file description of our own, which is non-blocking and appends.
    File(File),
    /// A socket: the service manager's journal.
    Socket(OwnedFd),
    /// Somebody else's terminal or pipe, which we may write to but not open: asked before each write.
    Shared(File),
    /// The local syslog daemon: takes one line with each write.
    Syslog(Syslog),
}

impl Output {
    /// One of the standard streams.
    ///
    /// It is opened once more, so that being non-blocking is ours alone and not imposed on the shell or whoever else
    /// shares it. Sockets cannot be opened so; they are told not to block with every write.
    ///
    /// # Errors
    /// When the system has no descriptor left.
    pub fn standard(stream: impl AsFd) -> io::Result<Output> {
        let stream = File::from(stream.as_fd().try_clone_to_owned()?);
        let path = format!("/proc/self/fd/{}", stream.as_raw_fd());
        Ok(match open(Path::new(&path)) {
            Ok(file) => Output::File(file),
            Err(_) if stream.metadata()?.file_type().is_socket() => Output::Socket(stream.into()),
            Err(_) => Output::Shared(stream),
        })
    }

    /// A file, which is created if need be and appended to.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn file(path: &Path) -> io::Result<Output> {
        let opened = match open(path) {
            // A FIFO that nobody reads yet. Opened for reading as well (fifo(7)), it holds lines until somebody does.
            Err(error) if Errno::from_io_error(&error) == Some(Errno::NXIO) => {
                options().read(true).open(path)
            }
            opened => opened,
        };
        opened.map(Output::File)
    }

    /// The local syslog daemon, which need not be there yet.
    ///
    /// # Errors
    /// When the system has no descriptor left.
    pub fn syslog() -> io::Result<Output> {
        Syslog::new(Path::new(SOCKET_PATH)).map(Output::Syslog)
    }

    /// Writes as much as is taken at once.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is; anything else when nothing will be.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Output::File(file) => file.write(bytes),
            Output::Socket(socket) => {
                Ok(rustix::net::send(socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?)
            }
            Output::Shared(file) => {
                // "Writable" means for a pipe that `PIPE_BUF` bytes fit in.
                let mut wanted = [PollFd::new(&*file, PollFlags::OUT)];
                match poll(&mut wanted, Some(&Timespec::default()))? {
                    0 => Err(ErrorKind::WouldBlock.into()),
                    _ => file.write(bytes),
                }
            }
            Output::Syslog(syslog) => syslog.send_line(bytes),
        }
    }
}

/// Non-blocking matters for pipes and terminals; appending keeps writers from overwriting each other.
fn open(path: &Path) -> io::Result<File> {
    options().open(path)
}

fn options() -> OpenOptions {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let flags = i32::try_from(flags.bits()).unwrap_or(0);
    let mut options = OpenOptions::new();
    options.append(true).create(true).custom_flags(flags).mode(0o640);
    options
}

/// Log messages on their way to standard error, each written whole or dropped. The next one that is written tells how many
/// were dropped before it.
#[derive(Debug)]
pub struct LogWriter {
    output: Output,
    dropped: u64,
}

impl LogWriter {
    /// Writes to the process's standard error.
    ///
    /// # Errors
    /// When the system has no descriptor left.
    pub fn stderr() -> io::Result<LogWriter> {
        Ok(LogWriter { output: Output::standard(io::stderr())?, dropped: 0 })
    }
}

impl Write for LogWriter {
    fn write(&mut self, message: &[u8]) -> io::Result<usize> {
        if self.dropped > 0 {
            let notice = format!("({} messages were dropped here)\n", self.dropped);
            if self.output.write(notice.as_bytes()).is_err() {
                self.dropped += 1;
                return Ok(message.len());
            }
            self.dropped = 0;
        }
        // What is longer than `PIPE_BUF` may be taken in part; the rest must not run into the next message.
        match self.output.write(message) {
            Ok(count) if count < message.len() => {
                let _ = self.output.write(b"\n");
                self.dropped += 1;
            }
            Ok(_) => {}
            Err(_) => self.dropped += 1,
        }
        Ok(message.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
