//! Fairness between payers: whoever got least so far comes next.
//!
//! Each payer has a counter of the work that was done for it (virtual time, as in weighted fair queueing and in
//! "Fairness in Serving Large Language Models", OSDI 2024). One who was idle begins where the least served of the busy
//! ones stands: idling saves nothing up, and a debt is not forgotten by pausing. Among equals the older answer comes first,
//! so that nobody is overtaken again and again by payers who are new.

use std::collections::{BTreeMap, BTreeSet};

use crate::request::Payer;

/// What one payer has here.
#[derive(Default)]
pub struct Lane {
    /// Work done for it, in virtual time.
    served: u64,
    /// Numbers of its answers that are not begun, or were put back.
    pub(crate) waiting: BTreeSet<u64>,
    /// Numbers of its answers in progress.
    pub(crate) running: BTreeSet<u64>,
}

impl Lane {
    /// The oldest of its answers that are not begun.
    pub fn next_waiting(&self) -> Option<u64> {
        self.waiting.first().copied()
    }

    /// Its answers, in progress or not.
    pub fn here(&self) -> usize {
        self.waiting.len() + self.running.len()
    }

    fn is_busy(&self) -> bool {
        !self.waiting.is_empty() || !self.running.is_empty()
    }
}

/// All payers that have something here, or have it still to make good. Whoever gives out turns by it numbers the answers in the
/// order in which they came, and keeps to the order of the calls: enter, start, charge, leave.
///
/// ```
/// use cocoon_engine::{Lanes, Payer};
///
/// let (busy, newcomer) = (Payer([1; 32]), Payer([2; 32]));
/// let mut lanes = Lanes::default();
/// lanes.enter(busy, 1);
/// lanes.enter(busy, 2);
/// lanes.start(busy, 1);
/// lanes.charge(busy, 100);
/// lanes.enter(newcomer, 3);
/// lanes.charge(busy, 1);
/// let next = lanes.least(|_, lane| lane.next_waiting());
/// assert_eq!(next, Some((newcomer, 3)));
/// ```
#[derive(Default)]
pub struct Lanes {
    lanes: BTreeMap<Payer, Lane>,
    /// Those that have answers in progress: few, however many wait.
    active: BTreeSet<Payer>,
    /// Where the least served of the busy payers stood.
    floor: u64,
    /// Whether it may stand elsewhere by now.
    moved: bool,
}

impl Lanes {
    /// A new answer waits.
    pub fn enter(&mut self, payer: Payer, id: u64) {
        if self.moved {
            self.settle(); // once for all who come at a time
        }
        let floor = self.floor;
        let lane = self.lanes.entry(payer).or_default();
        if !lane.is_busy() {
            lane.served = lane.served.max(floor);
        }
        lane.waiting.insert(id);
    }

    /// An answer is begun, or gone on with.
    ///
    /// # Panics
    /// If the payer has none here.
    pub fn start(&mut self, payer: Payer, id: u64) {
        let lane = self.lane(payer);
        lane.waiting.remove(&id);
        lane.running.insert(id);
        self.active.insert(payer);
    }

    /// An answer is put back.
    pub(crate) fn put_back(&mut self, payer: Payer, id: u64) {
        let lane = self.lane(payer);
        lane.running.remove(&id);
        lane.waiting.insert(id);
        self.rest(payer);
    }

    /// An answer ended, or waits no longer.
    ///
    /// # Panics
    /// If the payer has none here.
    pub fn leave(&mut self, payer: Payer, id: u64) {
        let lane = self.lane(payer);
        lane.running.remove(&id);
        lane.waiting.remove(&id);
        self.rest(payer);
        self.settle();
    }

    /// Work was done for a payer, who has an answer here.
    ///
    /// # Panics
    /// If it has none.
    pub fn charge(&mut self, payer: Payer, work: u64) {
        self.lane(payer).served += work;
        self.moved = true;
    }

    /// Work that was charged is not done after all.
    pub(crate) fn refund(&mut self, payer: Payer, work: u64) {
        let lane = self.lane(payer);
        lane.served = lane.served.saturating_sub(work);
    }

    fn rest(&mut self, payer: Payer) {
        if self.lane(payer).running.is_empty() {
            self.active.remove(&payer);
        }
    }

    fn lane(&mut self, payer: Payer) -> &mut Lane {
        self.lanes.get_mut(&payer).expect("a payer stays while it has an answer here")
    }

    /// Raises the floor to the least served busy payer, and forgets idle ones that have nothing to make good.
    fn settle(&mut self) {
        self.moved = false;
        if let Some(least) = self.lanes.values().filter(|lane| lane.is_busy()).map(|lane| lane.served).min() {
            self.floor = self.floor.max(least);
        } else {
            self.floor =
                self.lanes.values().map(|lane| lane.served).max().unwrap_or(self.floor).max(self.floor);
        }
        let floor = self.floor;
        self.lanes.retain(|_, lane| lane.is_busy() || lane.served > floor);
    }

    /// The least served payer of whose lane `wanted` says something, and what it says; among equals, where that is least.
    pub fn least<T: Copy + Ord>(&self, wanted: impl FnMut(Payer, &Lane) -> Option<T>) -> Option<(Payer, T)> {
        Self::least_of(self.lanes.iter(), wanted)
    }

    /// The same of payers who have answers in progress.
    pub(crate) fn least_active<T: Copy + Ord>(
        &self,
        wanted: impl FnMut(Payer, &Lane) -> Option<T>,
    ) -> Option<(Payer, T)> {
        Self::least_of(self.active(), wanted)
    }

    fn least_of<'l, T: Copy + Ord>(
        lanes: impl Iterator<Item = (&'l Payer, &'l Lane)>,
        mut wanted: impl FnMut(Payer, &Lane) -> Option<T>,
    ) -> Option<(Payer, T)> {
        let said = lanes.filter_map(|(payer, lane)| Some((lane.served, wanted(*payer, lane)?, *payer)));
        said.min().map(|(_, said, payer)| (payer, said))
    }

    fn active(&self) -> impl Iterator<Item = (&Payer, &Lane)> {
        self.active.iter().map(|payer| (payer, &self.lanes[payer]))
    }

    /// Payers.
    pub(crate) fn len(&self) -> usize {
        self.lanes.len()
    }

    /// Numbers of all answers in progress.
    pub(crate) fn all_running(&self) -> impl Iterator<Item = u64> {
        self.active().flat_map(|(_, lane)| lane.running.iter().copied())
    }

    /// Whether an answer is in progress.
    pub(crate) fn is_running(&self, payer: Payer, id: u64) -> bool {
        self.lanes.get(&payer).is_some_and(|lane| lane.running.contains(&id))
    }

    /// Answers of a payer, in progress or not.
    pub fn here(&self, payer: Payer) -> usize {
        self.lanes.get(&payer).map_or(0, Lane::here)
    }

    /// Answers in progress of a payer.
    pub(crate) fn running(&self, payer: Payer) -> usize {
        self.lanes.get(&payer).map_or(0, |lane| lane.running.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Payer = Payer([1; 32]);
    const B: Payer = Payer([2; 32]);

    fn next(lanes: &Lanes) -> Payer {
        let first = |lane: &Lane| lane.waiting.union(&lane.running).next().copied();
        lanes.least(|_, lane| first(lane)).expect("somebody is busy").0
    }

    #[test]
    fn the_least_served_comes_next() {
        let mut lanes = Lanes::default();
        lanes.enter(A, 1);
        lanes.enter(B, 2);
        assert_eq!(next(&lanes), A);
        lanes.charge(A, 10);
        assert_eq!(next(&lanes), B);
        lanes.charge(B, 11);
        assert_eq!(next(&lanes), A);
        lanes.refund(B, 2);
        assert_eq!(next(&lanes), B);
    }

    #[test]
    fn a_newcomer_has_no_more_claim_than_the_least_served() {
        let mut lanes = Lanes::default();
        lanes.enter(A, 1);
        lanes.charge(A, 1000);
        lanes.enter(B, 2);
        assert_eq!(next(&lanes), A, "they stand equal");
        lanes.charge(A, 1);
        assert_eq!(next(&lanes), B);
    }

    #[test]
    fn among_equals_the_older_answer_comes_first_whoever_its_payer_is() {
        let mut lanes = Lanes::default();
        lanes.enter(B, 1);
        lanes.enter(A, 2);
        assert_eq!(next(&lanes), B);
        lanes.leave(B, 1);
        lanes.enter(B, 3);
        assert_eq!(next(&lanes), A);
    }

    #[test]
    fn leaving_and_coming_back_clears_no_debt() {
        let mut lanes = Lanes::default();
        lanes.enter(A, 1);
        lanes.enter(B, 2);
        lanes.charge(A, 500);
        lanes.leave(A, 1);
        lanes.enter(A, 3);
        lanes.charge(B, 499);
        assert_eq!(next(&lanes), B);
    }

    #[test]
    fn who_owes_nothing_is_forgotten() {
        let mut lanes = Lanes::default();
        for payer in 0..100 {
            lanes.enter(Payer([payer; 32]), u64::from(payer));
            lanes.charge(Payer([payer; 32]), 7);
            lanes.leave(Payer([payer; 32]), u64::from(payer));
        }
        assert_eq!(lanes.lanes.len(), 0);
    }
}
