//! Behind a rush: what it has made large is given back, so that the process is as small as it was before.

use super::EventLoop;
use super::table::give_back;

/// So long after sessions have become few. Who comes again and again finds all as it was, and a loop does this no oftener.
const TIDY_AFTER_MS: u64 = 5_000;
/// They are few when this many times as many have been here at once.
const FEW: usize = 4;

impl EventLoop {
    fn are_few(&self) -> bool {
        self.sessions.len() * FEW <= self.sessions.places()
    }

    /// A session has ended.
    pub(super) fn plan_tidying(&mut self) {
        if self.tidy_at.is_none() && self.are_few() {
            self.tidy_at = Some(self.now.after(TIDY_AFTER_MS));
        }
    }

    /// Gives back what is not needed any more, if that is much. What stays where it was, however small, would keep the heap
    /// from becoming smaller.
    pub(super) fn tidy(&mut self) {
        if self.tidy_at.take_if(|due| *due <= self.now).is_none() || !self.are_few() {
            return;
        }
        self.sessions.shrink();
        self.deadlines.shrink(self.sessions.places());
        if self.sessions.is_empty() {
            self.upstreams.forget_owners();
        }
        for keys in [&mut self.run_queue, &mut self.starved] {
            keys.shrink_to(1);
            keys.shrink_to_fit();
        }
        give_back(&mut self.ended);
        self.idle_clients.shrink();
        self.pool.free_spare();
    }
}
