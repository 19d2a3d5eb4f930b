//! Where the proxy listens: on each address a socket for each loop. Addresses that the machine does not have yet are waited
//! for. Layer 5.6.

use std::io;
use std::net::SocketAddr;

use mio::net::TcpListener;

use super::accept;

/// All addresses, and which of them are bound.
#[derive(Clone, Debug, Default)]
pub struct Listening {
    places: Vec<Place>,
    /// Ports that were ever bound: listeners that go close a moment later.
    own_ports: Vec<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    /// As in the configuration: the port may be 0.
    asked: SocketAddr,
    /// With its real port; not yet for an address that the machine does not have.
    bound: Option<SocketAddr>,
}

/// From one list of addresses to another: opened, but not in use yet.
#[derive(Debug)]
pub struct Change {
    /// All of the new list.
    pub listening: Listening,
    /// New sockets, for each loop its own.
    pub opened: Vec<Vec<TcpListener>>,
    /// Addresses that are in the new list no more.
    pub closed: Vec<SocketAddr>,
}

/// An address cannot be listened on.
#[derive(Debug)]
pub struct CannotListen {
    /// Which.
    pub address: SocketAddr,
    /// Why not.
    pub error: io::Error,
}

impl std::fmt::Display for CannotListen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cannot listen on {}: {}", self.address, self.error)
    }
}

impl std::error::Error for CannotListen {}

impl Listening {
    /// Opens what `asked` has more than before, for so many loops. What both have stays as it is.
    ///
    /// # Errors
    /// The first address that cannot be listened on, for another reason than that the machine does not have it.
    pub fn change(&self, asked: &[SocketAddr], loops: usize) -> Result<Change, CannotListen> {
        let mut before = self.places.clone();
        let mut change =
            Change { listening: Listening::default(), opened: none_for(loops), closed: Vec::new() };
        change.listening.own_ports.clone_from(&self.own_ports);
        for &asked in asked {
            // A port that the kernel has picked may be asked for by its number later.
            let is_it = |place: &Place| place.asked == asked || place.bound == Some(asked);
            let place = match before.iter().position(is_it) {
                Some(index) => Place { asked, ..before.remove(index) },
                None => change.listening.open(asked, &mut change.opened)?,
            };
            change.listening.places.push(place);
        }
        change.closed = before.iter().filter_map(|place| place.bound).collect();
        Ok(change)
    }

    /// A listener for each loop. When the kernel picks a port for the first, the others take the same.
    fn open(&mut self, asked: SocketAddr, opened: &mut [Vec<TcpListener>]) -> Result<Place, CannotListen> {
        let is_ours = self.own_ports.contains(&asked.port());
        if asked.port() != 0 && !is_ours && accept::is_shared(asked) {
            log::warn!(
                "{asked} is in use by another process that shares it: it gets a part of the connections"
            );
        }
        let mut bound = asked;
        let mut listeners = Vec::new();
        for _ in 0..opened.len() {
            match accept::listen(bound).and_then(|listener| Ok((listener.local_addr()?, listener))) {
                Ok((address, listener)) => {
                    bound = address;
                    listeners.push(listener);
                }
                // Of an address that comes later the policy must know the port now.
                Err(error) if accept::is_not_here(&error) && asked.port() != 0 => {
                    return Ok(Place { asked, bound: None });
                }
                Err(error) => return Err(CannotListen { address: asked, error }),
            }
        }
        opened.iter_mut().zip(listeners).for_each(|(of_loop, listener)| of_loop.push(listener));
        self.own_ports.push(bound.port());
        Ok(Place { asked, bound: Some(bound) })
    }

    /// All of them, with real ports as far as they are known.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.places.iter().map(|place| place.bound.unwrap_or(place.asked)).collect()
    }

    /// Whether the machine does not have one of them yet.
    #[must_use]
    pub fn has_late(&self) -> bool {
        self.places.iter().any(|place| place.bound.is_none())
    }

    /// Says what is new to who knew `before`.
    pub fn announce(&self, before: &Listening) {
        let is_new = |place: &&Place| match place.bound {
            Some(_) => !before.places.iter().any(|old| old.bound == place.bound),
            None => !before.places.contains(place),
        };
        for place in self.places.iter().filter(is_new) {
            match place.bound {
                Some(address) => log::info!("listening on {address}"),
                None => log::warn!("waiting for {}: it is not an address of this machine yet", place.asked),
            }
        }
    }

    /// Tries those that were late once more: new sockets, for each loop its own.
    pub fn open_late(&mut self, loops: usize) -> Vec<Vec<TcpListener>> {
        let mut opened = none_for(loops);
        let mut places = std::mem::take(&mut self.places);
        places.retain_mut(|place| {
            if place.bound.is_some() {
                return true;
            }
            match self.open(place.asked, &mut opened) {
                Ok(now) => {
                    if let Some(address) = now.bound {
                        log::info!("listening on {address}");
                    }
                    *place = now;
                    true
                }
                Err(error) => {
                    log::error!("{error}; giving it up");
                    false
                }
            }
        });
        self.places = places;
        opened
    }
}

fn none_for(loops: usize) -> Vec<Vec<TcpListener>> {
    std::iter::repeat_with(Vec::new).take(loops).collect()
}
