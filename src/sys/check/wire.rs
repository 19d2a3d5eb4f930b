//! One thing at a time on one poll: a name is resolved, a connection is made, bytes go out and come back. Each waits until it
//! has happened or its time is up; what is called is what the proxy calls.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Poll, Token};

use crate::config::Sources;
use crate::proto::failure::Failure;
use crate::proto::relay::Ready;
use crate::proto::rules::Rules;
use crate::proto::session::{Follows, Outcome};
use crate::proto::target::{Host, Target};
use crate::proto::tick::Tick;
use crate::proto::verdict::Cut;
use crate::sys::names::{Asked, Names, NamesConfig, ResolveError};
use crate::sys::{dial, stream};

const SOCKET: Token = Token(0);
const NAMES_FIRST_TOKEN: usize = 1;
/// The only one who asks for names.
const ASKER: usize = 0;
/// As much is read at once.
const READ_BYTES: usize = 4096;
/// Nothing that is probed for is longer.
const MAX_READ_BYTES: usize = crate::proto::tls_probe::MAX_FLIGHT_BYTES;

/// See the module's documentation.
pub(super) struct Wire {
    poll: Poll,
    events: Events,
    names: Names,
    sources: Sources,
    /// The longest wait for a connection or an answer.
    wait_ms: u64,
    started: Instant,
}

/// Why no more was read of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// It was enough.
    Enough,
    /// So the connection ended before.
    Cut(Cut),
    /// It would not end: [`MAX_READ_BYTES`].
    TooMuch,
}

/// The addresses of a name.
pub(super) struct Found {
    pub(super) addresses: Vec<IpAddr>,
    /// The name as a search list has completed it.
    pub(super) completed: Option<Arc<str>>,
}

impl Wire {
    pub(super) fn new(names: NamesConfig, sources: Sources, wait_ms: u64) -> io::Result<Wire> {
        Ok(Wire {
            poll: Poll::new()?,
            events: Events::with_capacity(16),
            names: Names::new(names, NAMES_FIRST_TOKEN),
            sources,
            wait_ms,
            started: Instant::now(),
        })
    }

    /// Milliseconds since the start.
    pub(super) fn now(&self) -> Tick {
        Tick(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// See [`Names::last_asked`]: who has answered, but for static names.
    pub(super) fn last_asked(&self) -> Option<SocketAddr> {
        self.names.last_asked()
    }

    /// The addresses of the host.
    pub(super) fn resolve(&mut self, target: &Target) -> Result<Found, ResolveError> {
        let mut found = Found { addresses: Vec::new(), completed: None };
        let name = match &target.host {
            Host::Name(name) => name,
            Host::Ip(address) => {
                found.addresses.push(*address);
                return Ok(found);
            }
        };
        let absolute = if target.is_absolute { "." } else { "" };
        let name = [name, absolute].concat();
        match self.names.ask(&name, ASKER, self.poll.registry(), self.now()) {
            Asked::Known(answer) => {
                return answer.map(|addresses| Found { addresses, ..found });
            }
            Asked::Pending => {}
        }
        loop {
            while let Some((_, answer)) = self.names.pop_answer() {
                let part = answer?;
                found.addresses.extend(part.addresses);
                found.completed = part.found_as;
                if part.last {
                    return Ok(found);
                }
            }
            let due = if self.names.has_work() { Some(self.now()) } else { self.names.next_deadline() };
            self.sleep_until(due.unwrap_or(self.now().after(self.wait_ms)));
            let now = self.now();
            self.names.run(self.poll.registry(), now);
        }
    }

    /// A connection to that address, unless `rules` know it for a listener of ours.
    pub(super) fn connect(
        &mut self,
        address: SocketAddr,
        rules: Option<&Rules>,
    ) -> Result<TcpStream, Failure> {
        let due = self.now().after(self.wait_ms);
        let stream = dial::start(address, |_| SOCKET, self.poll.registry(), rules, &self.sources)?;
        loop {
            match dial::confirm(&stream, Ready::default()) {
                Outcome::Failed(failure) => return Err(failure),
                Outcome::Blocked => {}
                Outcome::Done | Outcome::Moved(_) | Outcome::Eof | Outcome::NoStorage => {
                    return Ok(stream);
                }
            }
            if self.now() >= due {
                return Err(Failure::TimedOut);
            }
            self.sleep_until(due);
        }
    }

    /// Sends `question`, then appends what comes to `answer` until that is `enough`, nothing more comes, or it is too much.
    pub(super) fn ask(
        &mut self,
        socket: &mut TcpStream,
        mut question: &[u8],
        answer: &mut Vec<u8>,
        enough: &dyn Fn(&[u8]) -> bool,
    ) -> Ended {
        let due = self.now().after(self.wait_ms);
        let mut space = [0; READ_BYTES];
        while !enough(answer) {
            if answer.len() > MAX_READ_BYTES {
                return Ended::TooMuch;
            }
            let outcome = if question.is_empty() {
                stream::read(socket, &mut space)
            } else {
                stream::write(socket, question, Follows::Anything)
            };
            match outcome {
                Outcome::Moved(count) if question.is_empty() => {
                    answer.extend_from_slice(space.get(..count).unwrap_or_default());
                }
                Outcome::Moved(count) => question = question.get(count..).unwrap_or_default(),
                Outcome::Eof => return Ended::Cut(Cut::Closed),
                Outcome::Failed(_) => return Ended::Cut(Cut::Reset),
                Outcome::Blocked if self.now() >= due => return Ended::Cut(Cut::Silence),
                Outcome::Blocked => self.sleep_until(due),
                // Not outcomes of reading or writing.
                Outcome::Done | Outcome::NoStorage => {}
            }
        }
        Ended::Enough
    }

    /// Until something happens, at the latest until then.
    fn sleep_until(&mut self, due: Tick) {
        let timeout = Duration::from_millis(due.since(self.now()));
        // Should it ever fail, the time is up all the same.
        if self.poll.poll(&mut self.events, Some(timeout)).is_err() {
            return;
        }
        for event in &self.events {
            // An event of the socket wakes us; the next call tells what it was.
            if event.token() != SOCKET {
                self.names.on_event(event.token().0, event);
            }
        }
    }
}
