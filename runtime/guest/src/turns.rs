//! Turns in front of a child, whose own queue knows no payers: so many answers at a time, and who got fewest tokens comes next.
//!
//! The accounts are the embedded engine's own ([`Lanes`]). What it can do besides, putting an answer back for another's sake,
//! cannot be asked of another server: a place is held until its answer ends.

use cocoon_engine::{Lanes, Payer};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// Who waits and who has a place.
pub(crate) struct Turns {
    /// Places.
    most: usize,
    /// Most requests of one payer that are here, waiting ones too.
    of_payer: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    lanes: Lanes,
    issued: u64,
    running: usize,
    waiting: HashMap<u64, oneshot::Sender<()>>,
}

/// A payer has as many requests here as it may.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooMany(pub(crate) usize);

/// A request's place in the order, then its place among those in progress. Dropping it gives it back.
pub(crate) struct Place {
    turns: Arc<Turns>,
    payer: Payer,
    id: u64,
    turn: oneshot::Receiver<()>,
}

impl Turns {
    /// `of_payer` 0 is no limit.
    pub(crate) fn new(most: usize, of_payer: usize) -> Arc<Self> {
        let of_payer = if of_payer == 0 { usize::MAX } else { of_payer };
        Arc::new(Self { most, of_payer, state: Mutex::default() })
    }

    /// A payer's request waits for its turn, from now on.
    ///
    /// # Errors
    /// [`TooMany`].
    pub(crate) fn enter(self: &Arc<Self>, payer: Payer) -> Result<Place, TooMany> {
        let mut state = self.lock();
        if state.lanes.here(payer) >= self.of_payer {
            return Err(TooMany(self.of_payer));
        }
        let (sender, turn) = oneshot::channel();
        state.issued += 1;
        let id = state.issued;
        state.lanes.enter(payer, id);
        state.waiting.insert(id, sender);
        state.give(self.most);
        Ok(Place { turns: self.clone(), payer, id, turn })
    }

    /// Answers in progress.
    pub(crate) fn running(&self) -> usize {
        self.lock().running
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Gives free places to those who got least.
    fn give(&mut self, most: usize) {
        while self.running < most {
            let Some((payer, id)) = self.lanes.least(|_, lane| lane.next_waiting()) else { return };
            self.lanes.start(payer, id);
            self.running += 1;
            if let Some(sender) = self.waiting.remove(&id) {
                let _ = sender.send(()); // a place that is dropped meanwhile gives itself back
            }
        }
    }
}

impl Place {
    /// Waits for the turn.
    pub(crate) async fn turn(&mut self) {
        // The sender goes with the word, never without: it is dropped by nobody but this place.
        let _ = (&mut self.turn).await;
    }

    /// Tokens were computed for it.
    pub(crate) fn charge(&self, tokens: u32) {
        self.turns.lock().lanes.charge(self.payer, tokens.into());
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.turns.lock();
        if state.waiting.remove(&self.id).is_none() {
            state.running -= 1;
        }
        state.lanes.leave(self.payer, self.id);
        state.give(self.turns.most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Payer = Payer([1; 32]);
    const B: Payer = Payer([2; 32]);

    fn has_turn(place: &mut Place) -> bool {
        place.turn.try_recv().is_ok()
    }

    #[test]
    fn a_payer_with_many_requests_does_not_keep_another_from_the_next_place() {
        let turns = Turns::new(1, 0);
        let mut many: Vec<Place> = (0..5).map(|_| turns.enter(A).expect("no limit")).collect();
        let mut one = turns.enter(B).expect("no limit");
        assert!(has_turn(&mut many[0]) && !has_turn(&mut many[1]));
        many[0].charge(100);
        many.remove(0);
        assert!(has_turn(&mut one), "it came last and got least");
        one.charge(100);
        drop(one);
        assert!(has_turn(&mut many[0]));
        assert_eq!(turns.running(), 1);
    }

    #[test]
    fn no_more_run_than_there_are_places() {
        let turns = Turns::new(2, 0);
        let mut places: Vec<Place> =
            (0..6).map(|number| turns.enter(Payer([number; 32])).expect("no limit")).collect();
        assert_eq!(turns.running(), 2);
        while !places.is_empty() {
            assert_eq!(turns.running(), places.len().min(2));
            assert!(has_turn(&mut places[0]));
            places.remove(0);
        }
        assert_eq!(turns.running(), 0);
    }

    #[test]
    fn who_leaves_while_waiting_frees_no_place_and_keeps_none() {
        let turns = Turns::new(1, 0);
        let first = turns.enter(A).expect("no limit");
        let left = turns.enter(B).expect("no limit");
        let mut next = turns.enter(B).expect("no limit");
        drop(left);
        assert!(!has_turn(&mut next));
        drop(first);
        assert!(has_turn(&mut next));
        drop(next);
        assert_eq!(turns.running(), 0);
    }

    #[test]
    fn a_payer_has_no_more_here_than_it_may() {
        let turns = Turns::new(1, 2);
        let held = [turns.enter(A), turns.enter(A)];
        assert!(held.iter().all(Result::is_ok));
        assert_eq!(turns.enter(A).err(), Some(TooMany(2)));
        assert!(turns.enter(B).is_ok());
        drop(held);
        assert!(turns.enter(A).is_ok());
    }
}
