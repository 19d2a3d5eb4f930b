//! The nameservers: which is asked first, which is left alone for a while, and what each has shown of itself. Layer 1.5.

use std::net::SocketAddr;

use slab::Slab;

use super::dns::Edns;
use super::tick::Tick;

/// A server that failed is asked last for so long.
pub(super) const AVOID_MS: u64 = 60_000;
/// However many servers and attempts share the time of a lookup, each gets this much. A server that is tried again after
/// it had failed gets no more while another one works.
pub(super) const MIN_TRY_MS: u64 = 400;

/// What is known of one nameserver.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) edns: Edns,
    /// Asked last until then.
    avoid_until: Tick,
    /// It failed, and has not answered since.
    failed: bool,
    last_answer: Option<Tick>,
}

impl Server {
    fn new(address: SocketAddr) -> Server {
        Server { address, edns: Edns::Offered, avoid_until: Tick(0), failed: false, last_answer: None }
    }

    fn avoided_at(&self, now: Tick) -> Tick {
        if self.avoid_until > now { self.avoid_until } else { Tick(0) }
    }
}

/// The servers of the present settings, and those that running lookups still ask. A server keeps its number as long as
/// either holds.
#[derive(Debug, Default)]
pub(super) struct Servers {
    known: Slab<Server>,
    /// Numbers, in the order of the settings.
    preferred: Vec<usize>,
    /// Where the next lookup starts, with `rotate`.
    first: usize,
}

impl Servers {
    /// Takes these servers from now on. What is known of those that stay is kept; the others are forgotten, unless they
    /// are still in use.
    pub(super) fn configure(&mut self, addresses: &[SocketAddr], in_use: impl Fn(usize) -> bool) {
        self.first = 0;
        self.preferred.clear();
        for &address in addresses {
            let old = self.known.iter().find(|(_, server)| server.address == address).map(|(at, _)| at);
            let at = old.unwrap_or_else(|| self.known.insert(Server::new(address)));
            self.preferred.push(at);
        }
        let preferred = &self.preferred;
        self.known.retain(|at, _| preferred.contains(&at) || in_use(at));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.preferred.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.preferred.len()
    }

    /// With those of earlier settings.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.known.len()
    }

    pub(super) fn get(&self, at: usize) -> Option<&Server> {
        self.known.get(at)
    }

    /// The order for one lookup. Servers that failed a short while ago come last, the one that failed first before the
    /// others.
    pub(super) fn order(&mut self, rotate: bool, now: Tick) -> Box<[usize]> {
        let count = self.preferred.len().max(1);
        let first = self.first % count;
        if rotate {
            self.first = (first + 1) % count;
        }
        let turned = (0..self.preferred.len()).filter_map(|n| self.preferred.get((first + n) % count));
        let avoided_at = |at: usize| self.known.get(at).map_or(Tick(0), |server| server.avoided_at(now));
        // There are a handful: a sort of the library is 6 KiB of code.
        let mut order: Vec<usize> = Vec::with_capacity(count);
        for &at in turned {
            let place = order.partition_point(|&before| avoided_at(before) <= avoided_at(at));
            order.insert(place, at);
        }
        if let Some(&probed) = order.first()
            && self.has_better_than(probed)
            && let Some(server) = self.known.get_mut(probed)
        {
            // Its time is over, and one lookup finds out whether it works again; the others do not wait for that.
            server.avoid_until = now.after(AVOID_MS);
        }
        order.into_boxed_slice()
    }

    /// How long a server is waited for.
    pub(super) fn wait_ms(&self, at: usize, try_ms: u64) -> u64 {
        if self.has_better_than(at) { try_ms.min(MIN_TRY_MS) } else { try_ms }
    }

    /// Something came from it that answers a question.
    pub(super) fn heard_from(&mut self, at: usize, now: Tick) {
        if let Some(server) = self.known.get_mut(at) {
            server.last_answer = Some(now);
        }
    }

    /// It does its work.
    pub(super) fn works(&mut self, at: usize) {
        if let Some(server) = self.known.get_mut(at) {
            server.avoid_until = Tick(0);
            server.failed = false;
        }
    }

    /// It cannot read a question with EDNS.
    pub(super) fn omit_edns(&mut self, at: usize) {
        if let Some(server) = self.known.get_mut(at) {
            server.edns = Edns::Omitted;
        }
    }

    pub(super) fn avoid(&mut self, at: usize, now: Tick) {
        if let Some(server) = self.known.get_mut(at) {
            server.avoid_until = now.after(AVOID_MS);
            server.failed = true;
        }
    }

    /// Silence to one question may be about the name; a server that has answered nobody since is itself the trouble.
    pub(super) fn avoid_if_silent(&mut self, at: usize, since: Tick, now: Tick) {
        let silent =
            self.known.get(at).is_some_and(|server| server.last_answer.is_none_or(|last| last < since));
        if silent {
            self.avoid(at, now);
        }
    }

    /// Whether it failed and another did not.
    fn has_better_than(&self, at: usize) -> bool {
        let failed = |at: usize| self.known.get(at).is_some_and(|server| server.failed);
        failed(at) && self.preferred.iter().any(|&other| !failed(other))
    }
}
