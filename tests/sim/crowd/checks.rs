//! What must hold at every moment, and at the end.

use std::net::IpAddr;

use adit::proto::deadlines::Kind as DeadlineKind;
use adit::proto::session::Step;
use adit::sys::shared::Admission;

use super::peers::{Ending, State};
use super::{Entry, Plot, RING_BYTES, SHOWN, Settings, World};
use crate::sessions::Sessions;

impl World {
    /// No connection is made, nor used again, for what the settings in force deny; and who has begun to ask under them is known
    /// by them.
    pub(super) fn check_may(&self, key: usize, name: &str, address: IpAddr) {
        let entry = &self.entries[key];
        let (peer, settings) = (&self.peers[entry.peer], self.in_force());
        let request = &peer.requests[peer.at];
        let user = SHOWN[request.shown].0;
        assert_eq!(request.name, name);
        let client = peer.address.ip();
        // Whether it is known who asks was settled when the head was here.
        let was_known = Settings { rules: settings.rules, users: vec!["somebody"] };
        let denies = match settings.rules {
            4 if request.begun < self.settings.len() => false,
            _ if settings.users.is_empty() => settings.denies(client, user, name, Some(address)),
            _ => was_known.denies(client, user, name, Some(address)),
        };
        assert!(!denies, "{client} {user} reaches {name} at {address}, which {settings:?} denies");
        let is_new = request.begun == self.settings.len();
        assert!(!is_new || settings.knows(user), "{user} is not known by {settings:?}");
    }

    pub(super) fn check_idle(&self) {
        let idle =
            self.connections.iter().filter(|connection| connection.is_open && connection.owner.is_none());
        let mut names: Vec<&str> = idle.map(|connection| &*connection.name).collect();
        assert_eq!(names.len(), self.idle.len(), "an idle connection that is nobody's");
        assert!(names.len() <= self.limits.total, "too many idle connections");
        names.sort();
        let mut chunks = names.chunk_by(|one, other| one == other);
        assert!(chunks.all(|same| same.len() <= self.limits.per_origin), "too many to one origin");
    }

    pub(super) fn check_settled(&self, key: usize) {
        let entry = &self.entries[key];
        let Some((kind, _)) = entry.session.deadline() else {
            let is_over = matches!(entry.session.step(), Step::Record | Step::End(_));
            return assert!(is_over, "no state without a deadline: {:?}", entry.session);
        };
        if kind == DeadlineKind::KeepAlive && entry.session.step() == Step::Wait {
            assert!(!entry.session.holds_storage() && entry.upstream.is_none(), "kept between two requests");
        }
    }

    /// Behind every step.
    pub(super) fn check(&mut self) {
        assert!(self.descriptors() <= self.descriptors_max, "more descriptors than there are");
        let lent = self.storage.lent();
        let is_held = self.entries.iter().any(|(_, entry)| entry.session.holds_storage());
        assert_eq!(lent > 0, is_held, "storage that nobody has");
        assert!((lent * RING_BYTES) as u64 <= self.storage_max, "more storage than there is");
        let asleep = self.entries.iter().filter(|(_, entry)| !entry.queued && !entry.starved);
        for (_, Entry { session, .. }) in asleep {
            assert!(session.may_wait(), "nothing wakes {session:?}");
        }
        let counted = self.entries.iter().filter(|(_, entry)| entry.counted).count();
        assert!(counted <= self.sessions_max);
        for &(_, key) in &self.waiting {
            assert!(self.entries.get(key).is_some_and(|entry| entry.logging_in), "a login of nobody");
        }
        if self.waiting.is_empty() && self.verifying.is_none() {
            assert!(self.logins.is_empty(), "a question that nobody asks");
        }
    }

    fn is_disturbed(&self) -> bool {
        !matches!(self.plot, Plot::Calm | Plot::Reloads)
    }

    /// An answer has come.
    pub(super) fn check_status(&mut self, number: usize, status: u16, details: Option<&str>) {
        let word = match status {
            200 => "200",
            403 => "403",
            407 => "407",
            429 => "429",
            502 => "502",
            503 => "503",
            504 => "504",
            _ => panic!("{status} is no answer to this: {details:?}"),
        };
        self.note(word);
        if status == 407 {
            self.note("login refused");
        }
        let peer = &self.peers[number];
        let request = &peer.requests[peer.at];
        let user = SHOWN[request.shown].0;
        let client = peer.address.ip();
        // An address of either family may have been denied, and both.
        let addresses: [IpAddr; 2] = ["11.0.0.1".parse().unwrap(), "2a00::1".parse().unwrap()];
        let denied = |settings: &Settings| {
            addresses.iter().all(|&address| settings.denies(client, user, request.name, Some(address)))
        };
        let meanwhile = &self.settings[request.begun - 1..];
        let exists = request.name != super::NAMES[4];
        let is_by_parts = self.is_denied_in_parts(number);
        let fits = match status {
            200 => exists && meanwhile.iter().any(|settings| !denied(settings)),
            403 => is_by_parts,
            407 => meanwhile.iter().any(|settings| !settings.knows(user)),
            // A client that was wrong waits for its turn, with others of its address.
            429 => self.per_client_max.is_some() || self.is_disturbed(),
            502 => !exists || self.is_disturbed(),
            _ => self.is_disturbed(),
        };
        assert!(fits, "{:?}: {status} to {request:?} of {client}: {details:?} {meanwhile:?}", self.plot);
        let by_new = status == 403 && !denied(&meanwhile[0]);
        if self.plot == Plot::Calm {
            let wanted = match self.in_force() {
                settings if !settings.knows(user) => 407,
                settings if settings.denies(client, user, request.name, None) => 403,
                _ if !exists => 502,
                settings if denied(settings) => 403,
                _ => 200,
            };
            assert_eq!(status, wanted, "{request:?} of {client}: {details:?}");
        }
        if by_new {
            self.note("denied by new settings");
        }
        let expected = if self.peers[number].is_refused { &[503, 429][..] } else { &[] };
        assert!(expected.is_empty() || expected.contains(&status), "refused, and told {status}");
    }

    /// Settings that change meanwhile may deny one family each, by the name of who was known before; and of a name of which not
    /// all can be found out, one family is enough.
    fn is_denied_in_parts(&self, number: usize) -> bool {
        let peer = &self.peers[number];
        let request = &peer.requests[peer.at];
        let (client, user) = (peer.address.ip(), SHOWN[request.shown].0);
        let addresses: [IpAddr; 2] = ["11.0.0.1".parse().unwrap(), "2a00::1".parse().unwrap()];
        let meanwhile = &self.settings[request.begun - 1..];
        let was_known = meanwhile.iter().any(|settings| !settings.users.is_empty());
        let is_denied = |&address: &IpAddr| {
            meanwhile.iter().any(|settings| {
                let users = if was_known { vec!["somebody"] } else { Vec::new() };
                let settings = Settings { rules: settings.rules, users };
                settings.denies(client, user, request.name, Some(address))
            })
        };
        match self.is_disturbed() {
            true => addresses.iter().any(is_denied),
            false => addresses.iter().all(is_denied),
        }
    }

    /// The proxy has ended a client's connection.
    pub(super) fn check_ending(&mut self, number: usize) {
        let peer = &self.peers[number];
        match peer.state {
            State::Tunnel => {
                let is_whole = self.is_whole(number) && peer.ending == Some(Ending::Fin);
                let may_be_cut = matches!(self.plot, Plot::Everything | Plot::LittleStorage | Plot::Names);
                assert!(is_whole || may_be_cut, "{:?}: a tunnel was cut: {}", self.plot, self.describe());
            }
            State::Waiting | State::Asking => {
                let may_end = self.is_disturbed() && (self.is_draining || self.plot != Plot::Resets);
                assert!(may_end, "{:?}: {number} has no answer: {}", self.plot, self.describe());
            }
            State::Absent | State::Over => {}
        }
    }

    /// Nothing moves any more: then a rumour must not move anything either.
    pub(super) fn check_nothing_is_ready(&mut self) {
        let keys: Vec<usize> = self.entries.iter().map(|(key, _)| key).collect();
        for key in keys {
            if !self.entries[key].starved {
                self.check_has_nothing_to_do(key, self.now);
            }
        }
    }

    pub(super) fn check_end(&mut self) {
        for peer in &self.peers {
            let begun = peer.statuses.len();
            assert!(peer.lines.len() >= begun, "an answer without a line: {peer:?}");
            let most = peer.requests.iter().filter(|request| request.begun > 0).count();
            assert!(peer.lines.len() <= most.max(1), "a line too much: {peer:?}");
            for (line, &status) in peer.lines.iter().zip(&peer.statuses) {
                assert_eq!(line.1, Some(status), "{peer:?}");
            }
        }
        // What is remembered for a while is forgotten.
        while let Some(due) = self
            .idle
            .next_deadline()
            .into_iter()
            .chain(self.resolver.next_deadline())
            .chain(self.network.next_arrival())
            .min()
        {
            self.now = self.now.max(due);
            while self.names_arrive() {}
            self.expire();
        }
        while self.verifying.is_some() || self.verify_logins() {
            self.verify_logins();
        }
        assert_eq!(self.storage.lent(), 0, "storage was kept");
        assert_eq!(self.descriptors(), 0, "a descriptor is left");
        assert_eq!(self.deadlines.next(), None, "a deadline is left");
        assert!(self.idle.is_empty() && self.logins.is_empty() && self.waiting.is_empty());
        self.resolver.flush();
        assert_eq!(self.resolver.cache_bytes(), 0);
        // All places are free again.
        let client = self.peers[0].address.ip();
        let places = self.per_client_max.unwrap_or(10_000).min(self.sessions_max);
        for _ in 0..places {
            assert_eq!(self.shared.admit(client), Admission::Granted, "a place is lost");
        }
        assert_ne!(self.shared.admit(client), Admission::Granted, "a place too much");
    }
}
