//! Clients beyond the limit of sessions, in the order in which they came. A place for them is looked for in their own loop and
//! asked for in the others; they are refused once both have looked since they came, and nobody who could give way is left.

use std::collections::VecDeque;
use std::sync::Arc;

use super::plea::{Given, HOLD_MS, Plea, Question};
use super::tick::Tick;

/// Clients that may be held; the others stay in the kernel's queue.
pub const HELD_MAX: usize = 64;

/// What is to be done for the first of them, while there is no place for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Look for an idle client of the own loop. If there is none: [`Held::found_nobody`].
    Search,
    /// Ask the other loops for so many places: [`Held::asked`].
    Ask(usize),
    /// Tell it so.
    Refuse,
    /// Nothing before [`Held::due`].
    Wait,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Held<T> {
    /// With the time at which they are refused in any case.
    clients: VecDeque<(T, Tick)>,
    /// For so many of the first, the own loop has found nobody.
    looked_for: usize,
    /// For so many of the first, the other loops have been asked: there is nobody, once the question is not open any more.
    asked_for: usize,
    /// Only open while somebody waits for the answer.
    question: Question,
}

impl<T> Default for Held<T> {
    fn default() -> Held<T> {
        Held { clients: VecDeque::new(), looked_for: 0, asked_for: 0, question: Question::default() }
    }
}

impl<T> Held<T> {
    /// Whether nobody is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// Whether there is no room for another one.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.clients.len() >= HELD_MAX
    }

    /// Who is served next. What the other loops have answered is heard now, so that whatever they have given is there when a
    /// place is asked for behind this.
    pub fn first(&mut self, now: Tick) -> Option<&T> {
        match self.question.take_answer(now) {
            Some(Given::All) => self.asked_for = 0,
            Some(Given::NotAll) | None => {}
        }
        self.clients.front().map(|(client, _)| client)
    }

    /// The first one first.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.clients.iter().map(|(client, _)| client)
    }

    /// One more.
    pub fn push(&mut self, client: T, now: Tick) {
        self.clients.push_back((client, now.after(HOLD_MS)));
    }

    /// The first one is told that it is not served: a place that may have been given for it is there for the next.
    pub fn turn_away(&mut self) -> Option<T> {
        if self.asked_for > 0 {
            self.question.lower_by_one();
        }
        self.pop()
    }

    /// The first one has its place. Nothing is wanted of other loops for it any more.
    pub fn pop(&mut self) -> Option<T> {
        let (client, _) = self.clients.pop_front()?;
        self.looked_for = self.looked_for.saturating_sub(1);
        self.asked_for = self.asked_for.saturating_sub(1);
        self.question.lower(self.asked_for);
        Some(client)
    }

    /// What to do for [`Held::first`], who has found no place. An idle client is looked for from `search_due` on.
    #[must_use]
    pub fn next(&self, search_due: Tick, now: Tick) -> Next {
        let has_looked = self.looked_for > 0;
        let has_asked = self.asked_for > 0;
        if !has_looked && search_due <= now {
            return Next::Search;
        }
        let is_over = self.clients.front().is_some_and(|&(_, due)| due <= now);
        if is_over || has_looked && has_asked && !self.question.is_open() {
            return Next::Refuse;
        }
        if !has_asked && self.question.next() <= now { Next::Ask(self.clients.len()) } else { Next::Wait }
    }

    /// No client of the own loop is idle.
    pub fn found_nobody(&mut self) {
        self.looked_for = self.clients.len();
    }

    /// The other loops are being asked for all who are held, or there are none.
    pub fn asked(&mut self, plea: Option<Arc<Plea>>, now: Tick) {
        self.asked_for = self.clients.len();
        if let Some(plea) = plea {
            self.question.open(plea, now);
        }
    }

    /// When something more can be done for the first one, whatever other loops give until then.
    #[must_use]
    pub fn due(&self, search_due: Tick) -> Option<Tick> {
        let &(_, due) = self.clients.front()?;
        let search = (self.looked_for == 0).then_some(search_due);
        let question = (self.asked_for == 0).then_some(self.question.next());
        [Some(due), search, question].into_iter().flatten().min()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::proto::plea::ASK_PAUSE_MS;

    const NOW: Tick = Tick(0);

    /// Held, without an idle client in their own loop.
    fn looked_for(count: usize) -> Held<usize> {
        let mut held = Held::default();
        (0..count).for_each(|client| held.push(client, NOW));
        assert_eq!(next(&mut held, NOW, NOW), Next::Search);
        held.found_nobody();
        held
    }

    /// And one other loop is being asked.
    fn asked_for(count: usize) -> (Held<usize>, Arc<Plea>) {
        let mut held = looked_for(count);
        let plea = ask(&mut held, NOW);
        (held, plea)
    }

    /// As in a loop in which there is no place.
    fn next(held: &mut Held<usize>, search_due: Tick, now: Tick) -> Next {
        held.first(now);
        held.next(search_due, now)
    }

    fn ask(held: &mut Held<usize>, now: Tick) -> Arc<Plea> {
        let wanted = held.clients.len();
        assert_eq!(next(held, now, now), Next::Ask(wanted));
        let plea = Arc::new(Plea::new(wanted, 1));
        held.asked(Some(Arc::clone(&plea)), now);
        assert_eq!(next(held, now, now), Next::Wait);
        plea
    }

    fn given(plea: &Plea) -> usize {
        (0..).find(|_| !plea.give(1)).unwrap()
    }

    #[test]
    fn with_no_other_loop_nobody_waits() {
        let mut held = looked_for(2);
        assert_eq!(next(&mut held, NOW, NOW), Next::Ask(2));
        held.asked(None, NOW);
        for client in 0..2 {
            assert_eq!(next(&mut held, NOW, NOW), Next::Refuse);
            assert_eq!(held.pop(), Some(client));
        }
        assert_eq!((held.pop(), held.due(NOW)), (None, None));
    }

    #[test]
    fn others_are_asked_while_a_search_is_not_due_yet() {
        let mut held = Held::default();
        held.push(0, NOW);
        let search_due = Tick(5);
        assert_eq!(next(&mut held, search_due, NOW), Next::Ask(1));
        let plea = Arc::new(Plea::new(1, 1));
        held.asked(Some(Arc::clone(&plea)), NOW);
        plea.answer();
        assert_eq!(next(&mut held, search_due, NOW), Next::Wait);
        assert_eq!(held.due(search_due), Some(search_due));
        assert_eq!(next(&mut held, search_due, search_due), Next::Search);
        held.found_nobody();
        assert_eq!(next(&mut held, Tick(10), search_due), Next::Refuse);
    }

    #[test]
    fn who_came_behind_the_question_is_asked_for_anew() {
        let (mut held, plea) = asked_for(1);
        held.push(1, Tick(3));
        plea.answer();
        assert_eq!(next(&mut held, Tick(3), Tick(3)), Next::Refuse);
        held.pop();
        assert_eq!(next(&mut held, Tick(3), Tick(3)), Next::Search);
        held.found_nobody();
        assert_eq!(next(&mut held, Tick(3), Tick(3)), Next::Wait);
        assert_eq!(held.due(Tick(3)), Some(Tick(ASK_PAUSE_MS)));
        ask(&mut held, Tick(ASK_PAUSE_MS));
    }

    #[test]
    fn a_place_is_asked_for_behind_the_answer() {
        let (mut held, plea) = asked_for(1);
        assert_eq!(held.first(NOW), Some(&0));
        // The loop that answers may have made a place just before.
        plea.answer();
        assert_eq!(held.next(NOW, NOW), Next::Wait);
        assert_eq!(held.first(NOW), Some(&0));
        assert_eq!(held.next(NOW, NOW), Next::Refuse);
    }

    #[test]
    fn all_that_was_wanted_was_given() {
        let (mut held, plea) = asked_for(2);
        assert_eq!(given(&plea), 2);
        // One of the places was taken by somebody else.
        held.pop();
        assert_eq!(next(&mut held, NOW, NOW), Next::Wait);
        assert_eq!(held.due(NOW), Some(Tick(ASK_PAUSE_MS)));
        ask(&mut held, Tick(ASK_PAUSE_MS));
    }

    #[test]
    fn what_comes_from_elsewhere_is_not_wanted_any_more() {
        let (mut held, plea) = asked_for(10);
        (0..8).for_each(|client| assert_eq!(held.pop(), Some(client)));
        assert_eq!(given(&plea), 2);
    }

    #[test]
    fn what_was_given_is_not_taken_off_twice() {
        let (mut held, plea) = asked_for(10);
        (0..3).for_each(|_| assert!(plea.give(1)));
        (0..3).for_each(|client| assert_eq!(held.pop(), Some(client)));
        assert_eq!(given(&plea), 7);
    }

    #[test]
    fn what_was_given_for_one_that_is_turned_away_is_there_for_the_next() {
        let (mut held, plea) = asked_for(4);
        (0..3).for_each(|_| assert!(plea.give(1)));
        assert_eq!((held.pop(), held.turn_away()), (Some(0), Some(1)));
        // Two places for two clients.
        assert_eq!(given(&plea), 0);
        // Nothing was given yet.
        let (mut held, plea) = asked_for(4);
        held.turn_away();
        assert_eq!(given(&plea), 3);
    }

    #[test]
    fn a_question_ends_with_the_last_who_was_asked_for() {
        let (mut held, plea) = asked_for(1);
        held.push(1, NOW);
        held.pop();
        assert_eq!(given(&plea), 0);
        // Another question, without one over the other.
        assert_eq!(next(&mut held, NOW, Tick(ASK_PAUSE_MS)), Next::Search);
        held.found_nobody();
        ask(&mut held, Tick(ASK_PAUSE_MS));
    }

    #[test]
    fn nobody_is_held_longer_than_so() {
        let (mut held, plea) = asked_for(1);
        held.push(1, Tick(1));
        assert_eq!(held.due(NOW), Some(Tick(HOLD_MS)));
        assert_eq!(next(&mut held, Tick(HOLD_MS - 1), Tick(HOLD_MS - 1)), Next::Wait);
        assert_eq!(next(&mut held, Tick(HOLD_MS), Tick(HOLD_MS)), Next::Refuse);
        assert_eq!((held.pop(), given(&plea)), (Some(0), 0));
        assert_eq!(held.due(Tick(HOLD_MS + 9)), Some(Tick(ASK_PAUSE_MS)));
    }

    #[test]
    fn there_is_room_for_so_many() {
        let mut held = Held::default();
        (0..HELD_MAX).for_each(|client| {
            assert!(!held.is_full());
            held.push(client, NOW);
        });
        assert!(held.is_full() && held.iter().copied().eq(0..HELD_MAX));
    }
}
