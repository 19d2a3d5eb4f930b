//! Lines to the local syslog daemon, as syslog(3) sends them but without waiting: one datagram for each.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, sendto, socket_with};

use super::clock::unix_time;
use crate::proto::target::push_decimal;

/// Where the daemon listens.
pub const SOCKET_PATH: &str = "/dev/log";
/// Facility daemon (3) times 8, and severity informational (6): RFC 3164 4.1.1.
const PRIORITY: &[u8] = b"<30>";

/// A socket that is not connected: the daemon is looked up for each line, so that it may come, go and come back.
#[derive(Debug)]
pub struct Syslog {
    socket: OwnedFd,
    daemon: SocketAddrUnix,
    process: u32,
}

impl Syslog {
    /// For the daemon that listens there. It need not be there yet.
    ///
    /// # Errors
    /// When the system has no descriptor left.
    pub fn new(path: &Path) -> io::Result<Syslog> {
        let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        Ok(Syslog { socket, daemon: SocketAddrUnix::new(path)?, process: std::process::id() })
    }

    /// Sends the first line of `lines`, and says how many bytes of them that were: with its end.
    ///
    /// # Errors
    /// `WouldBlock` when the daemon is behind; anything else when there is none.
    pub fn send_line(&self, lines: &[u8]) -> io::Result<usize> {
        let line = lines.split(|&byte| byte == b'\n').next().unwrap_or_default();
        let mut datagram = Vec::with_capacity(line.len() + 64);
        datagram.extend_from_slice(PRIORITY);
        datagram.extend_from_slice(&unix_time().rfc3164());
        datagram.extend_from_slice(b" adit[");
        push_decimal(u64::from(self.process), &mut datagram);
        datagram.extend_from_slice(b"]: ");
        datagram.extend_from_slice(line);
        sendto(&self.socket, &datagram, SendFlags::DONTWAIT | SendFlags::NOSIGNAL, &self.daemon)?;
        Ok(lines.len().min(line.len() + 1))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn a_line_is_a_datagram() {
        let path = std::env::temp_dir().join(format!("adit-syslog-{}", std::process::id()));
        let log = Syslog::new(&path).unwrap();
        assert_eq!(log.send_line(b"a\n").unwrap_err().kind(), io::ErrorKind::NotFound, "no daemon");
        let daemon = UnixDatagram::bind(&path).unwrap();
        assert_eq!(log.send_line(b"a line\nanother\n").unwrap(), 7);
        assert_eq!(log.send_line(b"a last one").unwrap(), 10);
        let mut buffer = [0; 128];
        for line in ["a line", "a last one"] {
            let count = daemon.recv(&mut buffer).unwrap();
            let text = String::from_utf8(buffer[..count].to_vec()).unwrap();
            let (stamp, rest) = text.strip_prefix("<30>").unwrap().split_at(15);
            assert!(stamp.as_bytes()[3] == b' ' && stamp.as_bytes()[12] == b':', "{text}");
            assert_eq!(rest, format!(" adit[{}]: {line}", std::process::id()));
        }
        drop(daemon);
        assert_eq!(
            log.send_line(b"a\n").unwrap_err().kind(),
            io::ErrorKind::ConnectionRefused,
            "it has gone"
        );
        std::fs::remove_file(&path).unwrap();
        let daemon = UnixDatagram::bind(&path).unwrap();
        assert_eq!(log.send_line(b"a\n").unwrap(), 2, "it has come back");
        let full = loop {
            if let Err(error) = log.send_line(b"a\n") {
                break error;
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock, "and does not read");
        drop(daemon);
        std::fs::remove_file(&path).unwrap();
    }
}
