//! What is released and rearranged behind the sessions' runs: storage, pipes, sockets, deadlines, and the sessions that have ended.

use super::EventLoop;
use crate::sys::shared::Phase;

impl EventLoop {
    /// Behind a session's run: what it no longer needs is released, and its deadline is set.
    pub(super) fn settle(&mut self, key: usize) {
        let Some(entry) = self.sessions.get_mut(key) else { return };
        if self.pool.is_scarce() {
            entry.session.spare_storage();
            entry.session.tighten(&mut self.pool);
        }
        entry.session.return_storage(&mut self.pool);
        self.pipes.settle(key, |side| entry.session.holds_pipe(side), &mut self.pool, self.now);
        if !entry.session.wants_upstream() {
            entry.sockets.drop_upstream();
        }
        if entry.looking_up && !entry.session.wants_lookup() {
            entry.looking_up = false;
            self.names.cancel(key);
        }
        if entry.logging_in && !entry.session.wants_login() {
            entry.logging_in = false;
            self.door.cancel(key);
        }
        let Some((_, due)) = entry.session.deadline() else { return };
        match self.deadlines.get(key) {
            // A later deadline is found out when this entry comes up: activity does not touch the queue.
            Some(queued_due) if queued_due <= due => {}
            Some(_) | None => self.deadlines.set(key, due),
        }
    }

    pub(super) fn expire(&mut self) {
        while let Some(key) = self.deadlines.pop_due(self.now) {
            let Some(entry) = self.sessions.get_mut(key) else { continue };
            match entry.session.deadline() {
                Some((_, due)) if due > self.now => {
                    self.deadlines.set(key, due);
                    entry.sockets.watch_over_upstream();
                }
                Some(_) | None => {
                    entry.session.on_deadline(self.now, &self.policy);
                    self.queue(key);
                }
            }
        }
        if self.grace_over.is_some_and(|due| due <= self.now) {
            self.phase = Phase::Quitting;
        }
    }

    /// It is freed behind this turn. Its storage is not kept for so long: others who run in this turn may have no other.
    pub(super) fn end(&mut self, key: usize) {
        if let Some(entry) = self.sessions.get_mut(key) {
            entry.session.return_storage(&mut self.pool);
        }
        self.ended.push(key);
    }

    pub(super) fn free_ended(&mut self) {
        while let Some(key) = self.ended.pop() {
            let Some(mut entry) = self.sessions.remove(key) else { continue };
            entry.session.return_storage(&mut self.pool);
            self.pipes.settle(key, |side| entry.session.holds_pipe(side), &mut self.pool, self.now);
            if entry.looking_up {
                self.names.cancel(key);
            }
            self.door.cancel(key);
            self.deadlines.remove(key);
            if entry.counted {
                self.shared.leave(entry.session.client().ip());
            } else {
                self.refusing -= 1;
            }
            let session = entry.session;
            entry.sockets.close(|side| session.closes_with_reset(side));
            self.plan_tidying();
            // Descriptors have come free: those who wait outside may come in.
            if self.accept_resumes.is_some() {
                self.accept_resumes = Some(self.now);
            }
        }
    }
}
