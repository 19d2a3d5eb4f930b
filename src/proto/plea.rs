//! What one loop asks of all others when it runs out of something: those who may be served faster are to give way to who is
//! to be served there. The others count down what is wanted as they give, the asker as it is served otherwise.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::tick::Tick;

/// The other loops are asked for one thing at most this often: a flood beyond the limits is not to wake them for each client.
pub const ASK_PAUSE_MS: u64 = 10;
/// Nobody waits longer for what other loops may give: they answer within a turn, or once they may search again (1 ms for each 500
/// places in their tables), but a machine may have more to do than that.
pub const HOLD_MS: u64 = 1_000;

/// What all loops that have to do with it share.
#[derive(Debug)]
pub struct Plea {
    /// So many more.
    wanted: AtomicUsize,
    /// Loops that have not answered.
    unanswered: AtomicUsize,
}

impl Plea {
    /// For so much, to so many loops.
    #[must_use]
    pub fn new(wanted: usize, others: usize) -> Plea {
        Plea { wanted: AtomicUsize::new(wanted), unanswered: AtomicUsize::new(others) }
    }

    /// Whether more is wanted than has been given.
    #[must_use]
    pub fn is_unmet(&self) -> bool {
        self.wanted.load(Ordering::Acquire) > 0
    }

    /// So many are given, or about to be: `false` if none is wanted any more. Ask before an idle client is closed, or two loops
    /// close one each for the same place.
    pub fn give(&self, count: usize) -> bool {
        let less = |wanted: usize| (wanted > 0).then(|| wanted.saturating_sub(count));
        self.wanted.fetch_update(Ordering::AcqRel, Ordering::Acquire, less).is_ok()
    }

    /// One loop has given what it could. Wake the asker afterwards.
    pub fn answer(&self) {
        self.unanswered.fetch_sub(1, Ordering::AcqRel);
    }

    fn is_answered(&self) -> bool {
        self.unanswered.load(Ordering::Acquire) == 0
    }

    /// The asker does not want more than that any more.
    fn lower(&self, wanted: usize) {
        self.wanted.fetch_min(wanted, Ordering::AcqRel);
    }
}

/// What the other loops have given of what they were asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Given {
    /// As much as was wanted: there may be more where that came from.
    All,
    /// Less, and it is all that they have.
    NotAll,
}

/// The asker's side: one plea at a time.
#[derive(Debug, Default)]
pub struct Question {
    /// And when it is over without all answers.
    plea: Option<(Arc<Plea>, Tick)>,
    /// No other one before that.
    next: Tick,
}

impl Question {
    /// Whether the others are being asked.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.plea.is_some()
    }

    /// When the others may be asked again, if they are not being asked.
    #[must_use]
    pub fn next(&self) -> Tick {
        self.next
    }

    /// The others are being asked from now on.
    pub fn open(&mut self, plea: Arc<Plea>, now: Tick) {
        debug_assert!(!self.is_open(), "nobody would hear of the one before");
        self.next = now.after(ASK_PAUSE_MS);
        self.plea = Some((plea, now.after(HOLD_MS)));
    }

    /// When it is over at the latest.
    #[must_use]
    pub fn due(&self) -> Option<Tick> {
        self.plea.as_ref().map(|&(_, due)| due)
    }

    /// No more than that is wanted any more: with nothing wanted, it is over.
    pub fn lower(&mut self, wanted: usize) {
        if let Some((plea, _)) = &self.plea {
            plea.lower(wanted);
            self.plea.take_if(|_| wanted == 0);
        }
    }

    /// Somebody for whom something was wanted needs nothing any more: what was given for it is there for another one.
    pub fn lower_by_one(&mut self) {
        if let Some((plea, _)) = &self.plea {
            plea.give(1);
        }
    }

    /// The answer, once it is there; the question is closed then.
    pub fn take_answer(&mut self, now: Tick) -> Option<Given> {
        // In this order: who gives does so before it answers.
        let is_over = |plea: &Plea| plea.is_answered() || !plea.is_unmet();
        let (plea, _) = self.plea.take_if(|(plea, due)| is_over(plea) || *due <= now)?;
        let given = if plea.is_unmet() { Given::NotAll } else { Given::All };
        // Who has not answered in time need not look any more.
        plea.lower(0);
        Some(given)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(wanted: usize, others: usize) -> (Question, Arc<Plea>) {
        let plea = Arc::new(Plea::new(wanted, others));
        let mut question = Question::default();
        question.open(Arc::clone(&plea), Tick(0));
        (question, plea)
    }

    #[test]
    fn the_last_one_is_given_once() {
        let (mut question, plea) = asked(2, 3);
        assert!(plea.give(1) && plea.give(1));
        assert!(!plea.give(1), "another loop was faster");
        assert_eq!(question.take_answer(Tick(0)), Some(Given::All), "before all have answered");
        assert_eq!((question.is_open(), question.next()), (false, Tick(ASK_PAUSE_MS)));
    }

    #[test]
    fn all_must_have_answered_if_it_is_not_enough() {
        let (mut question, plea) = asked(3, 2);
        plea.answer();
        assert!(plea.give(2));
        assert_eq!(question.take_answer(Tick(HOLD_MS - 1)), None);
        plea.answer();
        assert_eq!(question.take_answer(Tick(HOLD_MS - 1)), Some(Given::NotAll));
        assert_eq!(question.take_answer(Tick(HOLD_MS)), None, "it has been taken");
    }

    #[test]
    fn more_may_be_given_at_once_than_is_wanted() {
        let (mut question, plea) = asked(3, 2);
        assert!(plea.give(100) && !plea.is_unmet());
        assert_eq!(question.take_answer(Tick(0)), Some(Given::All));
    }

    #[test]
    fn who_is_late_gives_nothing() {
        let (mut question, plea) = asked(3, 1);
        assert_eq!(question.due(), Some(Tick(HOLD_MS)));
        assert_eq!(question.take_answer(Tick(HOLD_MS)), Some(Given::NotAll));
        assert!(!plea.give(1));
    }

    #[test]
    fn what_is_not_wanted_any_more_is_not_given() {
        let (mut question, plea) = asked(10, 1);
        assert!(plea.give(3));
        question.lower(8);
        assert!(plea.give(6), "7 were wanted");
        question.lower(2);
        assert!(plea.give(1) && !plea.give(1));
        let (mut question, plea) = asked(10, 1);
        question.lower(0);
        assert!(!question.is_open() && !plea.give(1));
        assert_eq!((question.take_answer(Tick(0)), question.due()), (None, None));
    }
}
