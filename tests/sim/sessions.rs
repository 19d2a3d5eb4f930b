//! What worlds with several sessions have in common: how a session is taken a step further, and how one that sleeps is
//! proved to have nothing to do.

use adit::proto::relay::Ready;
use adit::proto::session::{Outcome, Session, Side, Step};
use adit::proto::tick::Tick;

use crate::socket::Socket;

/// A world of sessions, by their keys.
pub(crate) trait Sessions {
    fn session(&mut self, key: usize) -> &mut Session;

    /// Its socket on that side: it must have one.
    fn socket(&mut self, key: usize, side: Side) -> &mut Socket;

    /// Does what any step but [`Step::Pass`] says. `None`: there is nothing to report.
    fn perform(&mut self, key: usize, step: Step) -> Option<Outcome>;

    fn report(&mut self, key: usize, step: Step, outcome: Outcome);

    /// Behind steps: what the session does not need any more is taken from it.
    fn settle(&mut self, key: usize);

    /// Does the step, and says which one it came to: one that passes bytes on is blocked on one side or the other.
    fn take_step(&mut self, key: usize, step: Step) -> (Step, Option<Outcome>) {
        let Step::Pass(from) = step else { return (step, self.perform(key, step)) };
        let seen = match self.socket(key, from).look(100_000) {
            Ok(seen) => seen,
            Err(met) => return (step, Some(met)),
        };
        match self.socket(key, from.other()).write(&seen) {
            Outcome::Moved(count) => (step, Some(self.socket(key, from).take_seen(count))),
            met => (Step::Write(from.other()), Some(met)),
        }
    }

    /// Nothing moves any more: then a rumour must not move this session either.
    fn check_has_nothing_to_do(&mut self, key: usize, now: Tick) {
        let news = Ready { readable: true, writable: true, ..Ready::default() };
        self.session(key).on_client_ready(news, now);
        for place in 0..2 {
            self.session(key).on_upstream_ready(place, news);
        }
        for _ in 0..64 {
            let step = self.session(key).step();
            let (step, outcome) = match step {
                Step::Wait => break,
                // Room for less than a third of the buffer is never announced.
                Step::Write(side) if self.socket(key, side).wants_room => (step, Some(Outcome::Blocked)),
                Step::Pass(from) if self.socket(key, from.other()).wants_room => {
                    (Step::Write(from.other()), Some(Outcome::Blocked))
                }
                _ => self.take_step(key, step),
            };
            if outcome == Some(Outcome::NoStorage) && self.session(key).is_tunnel() {
                // It goes on without.
                self.report(key, step, Outcome::NoStorage);
                continue;
            }
            let was_known = outcome == Some(Outcome::Blocked);
            assert!(was_known, "lost wake-up: {step:?} {outcome:?}\n{:?}", self.session(key));
            self.report(key, step, Outcome::Blocked);
        }
        self.settle(key);
    }
}
