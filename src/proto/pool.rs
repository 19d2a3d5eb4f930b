//! Idle upstream connections of one loop, kept for the next request to the same origin.
//!
//! All are kept for the same time, so one queue in order of use is also the order in which they are due and the order in
//! which they go when there are too many. A connection was dialed under one client's policy; whether another client may use it
//! is judged anew, for the address that it leads to.

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::target::{Host, MAX_NAME_BYTES, Target};
use super::tick::Tick;

/// Where a connection leads. Made once for each connection and moved with it.
#[derive(Debug)]
pub struct Origin {
    /// The host and port that it was dialed for.
    pub target: Target,
    /// The name as the search list completed it: rules for either speak.
    pub completed: Option<Box<str>>,
    /// The address that was dialed.
    pub address: SocketAddr,
}

/// How many connections are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// In all.
    pub total: usize,
    /// To one host and port.
    pub per_origin: usize,
}

/// The idle connections; `T` is the socket and whatever else belongs to it.
#[derive(Debug)]
pub struct Pool<T> {
    /// The least recently used first.
    idle: VecDeque<Idle<T>>,
    limits: Limits,
    keep_ms: u64,
}

#[derive(Debug)]
struct Idle<T> {
    due: Tick,
    origin: Box<Origin>,
    /// Of the target. Compared before its name is, which stands elsewhere in memory.
    hash: u32,
    connection: T,
}

const _: () = assert!(size_of::<Idle<u64>>() <= 32 && Pool::<u64>::IDLE_BYTES_MAX <= 768);

impl<T> Pool<T> {
    /// Memory that one idle connection can take here, with the longest names, besides what its socket takes and `T` owns. The
    /// queue doubles when it grows; each of the four pieces has 24 bytes for what an allocator adds.
    pub const IDLE_BYTES_MAX: usize = {
        let names = 2 * (MAX_NAME_BYTES + 1);
        2 * size_of::<Idle<T>>() + size_of::<Origin>() + names + 4 * 24
    };

    /// An empty pool that keeps connections for `keep_ms` milliseconds.
    #[must_use]
    pub fn new(limits: Limits, keep_ms: u64) -> Pool<T> {
        Pool { idle: VecDeque::new(), limits, keep_ms }
    }

    /// Keeps a connection that has become idle. What comes back must be closed for it: the least recently used one of that
    /// origin if that has as many as it may, else the least recently used of all if there are too many; this one itself if none
    /// may be kept.
    #[must_use]
    pub fn put(&mut self, origin: Box<Origin>, connection: T, now: Tick) -> Option<T> {
        if self.limits.total == 0 || self.limits.per_origin == 0 {
            return Some(connection);
        }
        let hash = hash(&origin.target);
        // Counted by hash alone: with many to one origin, names would be compared with each return. Two origins that share
        // a hash share a limit; they do not share connections.
        let of_origin = |idle: &Idle<T>| idle.hash == hash;
        let goes = if self.idle.iter().filter(|idle| of_origin(idle)).count() >= self.limits.per_origin {
            self.idle.iter().position(of_origin).and_then(|index| self.idle.remove(index))
        } else if self.idle.len() >= self.limits.total {
            self.idle.pop_front()
        } else {
            None
        };
        self.idle.push_back(Idle { due: now.after(self.keep_ms), origin, hash, connection });
        goes.map(|idle| idle.connection)
    }

    /// Takes out the most recently used connection to `target` for which `may` says that it may be used. Those that it refuses
    /// stay for others.
    pub fn take(
        &mut self,
        target: &Target,
        mut may: impl FnMut(&Origin, &T) -> bool,
    ) -> Option<(Box<Origin>, T)> {
        let hash = hash(target);
        let fits = |idle: &Idle<T>| {
            idle.hash == hash && idle.origin.target == *target && may(&idle.origin, &idle.connection)
        };
        let index = self.idle.iter().rposition(fits)?;
        self.idle.remove(index).map(|idle| (idle.origin, idle.connection))
    }

    /// Takes out the connection that `is` the one: its peer has ended it, or sent something that nobody asked for.
    pub fn remove(&mut self, is: impl FnMut(&T) -> bool) -> Option<T> {
        let index = self.idle.iter().map(|idle| &idle.connection).position(is)?;
        self.idle.remove(index).map(|idle| idle.connection)
    }

    /// Takes out one connection that was kept long enough.
    pub fn pop_due(&mut self, now: Tick) -> Option<T> {
        if self.next_deadline()? <= now { self.pop_oldest() } else { None }
    }

    /// When the next connection has been kept long enough.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Tick> {
        self.idle.front().map(|idle| idle.due)
    }

    /// Takes out the least recently used connection.
    pub fn pop_oldest(&mut self) -> Option<T> {
        self.idle.pop_front().map(|idle| idle.connection)
    }

    /// Changes how long connections are kept. The pool must be empty: its order is that of one time for all.
    pub fn keep_for(&mut self, keep_ms: u64) {
        debug_assert!(self.is_empty());
        self.keep_ms = keep_ms;
    }

    /// Connections kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.idle.len()
    }

    /// Whether none is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.idle.is_empty()
    }
}

/// FNV-1a over host and port. It decides nothing by itself, so it need not withstand those who choose names.
fn hash(target: &Target) -> u32 {
    let mut hash = 0x811c_9dc5_u32;
    let mut add = |bytes: &[u8]| {
        for &byte in bytes {
            hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
        }
    };
    match &target.host {
        Host::Name(name) => add(name.as_bytes()),
        Host::Ip(std::net::IpAddr::V4(address)) => add(&address.octets()),
        Host::Ip(std::net::IpAddr::V6(address)) => add(&address.octets()),
    }
    add(&target.port.to_be_bytes());
    hash
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn target(text: &str) -> Target {
        Target::from_authority(text.as_bytes()).unwrap()
    }

    fn origin(text: &str) -> Box<Origin> {
        Box::new(Origin { target: target(text), completed: None, address: "192.0.2.1:80".parse().unwrap() })
    }

    fn pool(total: usize, per_origin: usize) -> Pool<u32> {
        Pool::new(Limits { total, per_origin }, 1_000)
    }

    fn all(pool: &mut Pool<u32>) -> Vec<u32> {
        std::iter::from_fn(|| pool.pop_oldest()).collect()
    }

    #[test]
    fn the_most_recently_used_is_taken_first() {
        let mut pool = pool(9, 9);
        for (connection, at) in [(1, "a.test:80"), (2, "b.test:80"), (3, "a.test:80"), (4, "a.test:8080")] {
            assert_eq!(pool.put(origin(at), connection, Tick(0)), None);
        }
        let a = target("A.test.:80");
        let mut take = |target: &Target| {
            pool.take(target, |_, _| true).map(|(origin, connection)| (origin.target, connection))
        };
        assert_eq!(take(&a), Some((a.clone(), 3)));
        assert_eq!(take(&a), Some((a.clone(), 1)));
        assert_eq!(take(&a), None);
        assert_eq!(take(&target("c.test:80")), None);
        assert_eq!(all(&mut pool), [2, 4]);
    }

    #[test]
    fn hosts_that_are_not_the_same_are_kept_apart() {
        let mut pool = pool(9, 9);
        // A search list completes the first and not the second; the others look alike.
        let hosts = [
            "nas:80",
            "nas.:80",
            "192.0.2.1:80",
            "[::ffff:192.0.2.1]:80",
            "[2001:db8::1]:80",
            "nas:81",
            "nat:80",
        ];
        for (connection, host) in hosts.iter().enumerate() {
            assert_eq!(pool.put(origin(host), connection as u32, Tick(0)), None);
        }
        for (connection, host) in hosts.iter().enumerate() {
            assert_eq!(pool.take(&target(host), |_, _| true).unwrap().1, connection as u32, "{host}");
        }
    }

    #[test]
    fn equal_hashes_do_not_make_one_host() {
        // Two of the words that are known to collide in FNV-1a; what follows them does not part them.
        let (one, other) = (target("costarring:80"), target("liquid:80"));
        assert_eq!(hash(&one), hash(&other));
        let mut pool = pool(9, 2);
        assert_eq!(pool.put(origin("costarring:80"), 1, Tick(0)), None);
        assert!(pool.take(&other, |_, _| true).is_none());
        assert_eq!(pool.put(origin("liquid:80"), 2, Tick(0)), None);
        assert_eq!(pool.take(&one, |_, _| true).map(|taken| taken.1), Some(1));
    }

    #[test]
    fn the_clients_policy_decides_and_what_it_refuses_stays() {
        let mut pool = pool(9, 9);
        for (connection, address) in [(1, "192.0.2.1:80"), (2, "192.0.2.2:80"), (3, "192.0.2.3:80")] {
            let origin = Origin { address: address.parse().unwrap(), ..*origin("a.test:80") };
            assert_eq!(pool.put(Box::new(origin), connection, Tick(0)), None);
        }
        let mut asked = Vec::new();
        let taken = pool.take(&target("a.test:80"), |origin, _| {
            asked.push(origin.address.to_string());
            origin.address.ip().to_string() == "192.0.2.2"
        });
        assert_eq!(
            taken.map(|(origin, connection)| (origin.address.to_string(), connection)),
            Some(("192.0.2.2:80".into(), 2))
        );
        assert_eq!(asked, ["192.0.2.3:80", "192.0.2.2:80"]);
        assert!(pool.take(&target("a.test:80"), |_, _| false).is_none());
        assert!(
            pool.take(&target("b.test:80"), |_, _| unreachable!()).is_none(),
            "others are not even judged"
        );
        assert_eq!(all(&mut pool), [1, 3]);
    }

    #[test]
    fn the_oldest_goes_at_a_limit() {
        let mut at_two = pool(4, 2);
        assert_eq!(at_two.put(origin("b.test:80"), 1, Tick(0)), None);
        assert_eq!(at_two.put(origin("a.test:80"), 2, Tick(0)), None);
        assert_eq!(at_two.put(origin("a.test:80"), 3, Tick(0)), None);
        assert_eq!(
            at_two.put(origin("a.test:80"), 4, Tick(0)),
            Some(2),
            "its own oldest, though another is older"
        );
        assert_eq!(at_two.put(origin("c.test:80"), 5, Tick(0)), None);
        assert_eq!(at_two.put(origin("a.test:80"), 6, Tick(0)), Some(3), "both limits: one goes");
        assert_eq!(at_two.put(origin("d.test:80"), 7, Tick(0)), Some(1), "the oldest of all");
        assert_eq!(at_two.len(), 4);
        assert_eq!(all(&mut at_two), [4, 5, 6, 7]);
        for (total, per_origin) in [(0, 5), (5, 0)] {
            let mut none = pool(total, per_origin);
            assert_eq!(none.put(origin("a.test:80"), 1, Tick(0)), Some(1));
            assert!(none.is_empty());
        }
    }

    #[test]
    fn each_is_kept_for_its_time() {
        let mut pool = pool(9, 9);
        assert_eq!((pool.next_deadline(), pool.pop_due(Tick(5_000))), (None, None));
        for (connection, now) in [(1, 0), (2, 10), (3, 10), (4, 500)] {
            assert_eq!(pool.put(origin("a.test:80"), connection, Tick(now)), None);
        }
        assert_eq!((pool.next_deadline(), pool.pop_due(Tick(999))), (Some(Tick(1_000)), None));
        assert_eq!((pool.pop_due(Tick(1_000)), pool.pop_due(Tick(1_000))), (Some(1), None));
        // Used again, it is kept anew.
        let (origin, connection) = pool.take(&target("a.test:80"), |_, _| true).unwrap();
        assert_eq!(pool.put(origin, connection, Tick(700)), None);
        assert_eq!(
            [pool.pop_due(Tick(1_699)), pool.pop_due(Tick(1_699)), pool.pop_due(Tick(1_699))],
            [Some(2), Some(3), None]
        );
        assert_eq!(pool.next_deadline(), Some(Tick(1_700)));
    }

    #[test]
    fn one_is_taken_out_by_its_socket() {
        let mut pool = pool(9, 9);
        for connection in 1..=3 {
            assert_eq!(pool.put(origin("a.test:80"), connection, Tick(0)), None);
        }
        assert_eq!(
            (pool.remove(|&connection| connection == 2), pool.remove(|&connection| connection == 2)),
            (Some(2), None)
        );
        assert_eq!(all(&mut pool), [1, 3]);
    }

    #[test]
    fn agrees_with_a_list() {
        let mut seed = 0x2545_f491_4f6c_dd1du64;
        let mut random = move |below: usize| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            (seed % below as u64) as usize
        };
        let hosts = ["a.test:80", "b.test:80", "c.test:80", "a.test:81", "192.0.2.1:80"];
        let mut pool = pool(8, 3);
        // Oldest first: due, host, connection.
        let mut model: Vec<(u64, usize, u32)> = Vec::new();
        let (mut now, mut closed, mut reused) = (0, 0, 0);
        for connection in 0..50_000u32 {
            now += random(100) as u64;
            let host = random(hosts.len());
            match random(8) {
                0..4 => {
                    let own: Vec<usize> = (0..model.len()).filter(|&at| model[at].1 == host).collect();
                    let goes = if own.len() == 3 {
                        Some(own[0])
                    } else if model.len() == 8 {
                        Some(0)
                    } else {
                        None
                    };
                    let goes = goes.map(|at| model.remove(at).2);
                    closed += u32::from(goes.is_some());
                    assert_eq!(pool.put(origin(hosts[host]), connection, Tick(now)), goes);
                    model.push((now + 1_000, host, connection));
                }
                4 | 5 => {
                    let at = model.iter().rposition(|idle| idle.1 == host);
                    let wanted = at.map(|at| model.remove(at).2);
                    reused += u32::from(wanted.is_some());
                    assert_eq!(pool.take(&target(hosts[host]), |_, _| true).map(|taken| taken.1), wanted);
                }
                6 => {
                    let wanted = if model.is_empty() { u32::MAX } else { model[random(model.len())].2 };
                    assert_eq!(
                        pool.remove(|&idle| idle == wanted),
                        Some(wanted).filter(|_| !model.is_empty())
                    );
                    model.retain(|idle| idle.2 != wanted);
                }
                _ => {
                    while let Some(due) = pool.pop_due(Tick(now)) {
                        let (at, _, wanted) = model.remove(0);
                        assert!(at <= now && due == wanted);
                    }
                    assert!(model.iter().all(|idle| idle.0 > now), "did not come up");
                }
            }
            assert_eq!((pool.len(), pool.is_empty()), (model.len(), model.is_empty()));
            assert_eq!(pool.next_deadline(), model.iter().map(|idle| Tick(idle.0)).min());
        }
        assert!(closed > 1_000 && reused > 1_000, "{closed} closed, {reused} reused");
    }
}
