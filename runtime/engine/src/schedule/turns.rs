//! Turns for work that comes in pieces, one of which runs at a time: whoever got least so far comes next.
//!
//! It knows neither threads nor clocks: whoever has a turn does its piece, says what that came to, and lets go.

use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker},
};

use super::fair::Lanes;
use crate::request::Payer;

/// All who want turns. Cheap to clone: all clones are one.
#[derive(Clone, Default)]
pub struct Turns(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    lanes: Lanes,
    /// Numbers that were given out: who came first comes first among a payer's own.
    given: u64,
    /// Whose turn it is.
    held: Option<u64>,
    /// Who is to be woken when it is theirs.
    wakers: BTreeMap<u64, Waker>,
}

impl State {
    /// Gives the turn, where nobody has it, to the oldest that waits of the payer who got least.
    fn pass(&mut self) {
        if self.held.is_some() {
            return;
        }
        let Some((payer, id)) = self.lanes.least(|_, lane| lane.waiting.first().copied()) else { return };
        self.lanes.start(payer, id);
        self.held = Some(id);
        if let Some(waker) = self.wakers.remove(&id) {
            waker.wake();
        }
    }

    fn let_go(&mut self, id: u64) {
        if self.held == Some(id) {
            self.held = None;
            self.pass();
        }
    }
}

impl Turns {
    /// A place among all, for one job of a payer's.
    pub fn enter(&self, payer: Payer) -> Place {
        let mut state = self.state();
        state.given += 1;
        let id = state.given;
        state.lanes.enter(payer, id);
        state.lanes.start(payer, id); // it is here, and waits once it asks
        drop(state);
        Place { turns: self.clone(), payer, id }
    }

    /// Whether somebody has a turn.
    pub fn is_busy(&self) -> bool {
        self.state().held.is_some()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no code panics while it holds this lock")
    }
}

/// A job's place. Dropping it leaves.
pub struct Place {
    turns: Turns,
    payer: Payer,
    id: u64,
}

impl Place {
    /// Resolves when it is this job's turn. Dropping the future lets the others go on.
    pub fn turn(&mut self) -> impl Future<Output = Turn<'_>> + Send {
        let mut state = self.turns.state();
        state.lanes.put_back(self.payer, self.id);
        state.pass();
        drop(state);
        Waiting { place: self, done: false }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.turns.state();
        state.lanes.leave(self.payer, self.id);
        state.let_go(self.id);
    }
}

struct Waiting<'p> {
    place: &'p Place,
    done: bool,
}

impl<'p> Future for Waiting<'p> {
    type Output = Turn<'p>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Turn<'p>> {
        let place = self.place;
        let mut state = place.turns.state();
        if state.held != Some(place.id) {
            state.wakers.insert(place.id, context.waker().clone());
            return Poll::Pending;
        }
        drop(state);
        self.done = true;
        Poll::Ready(Turn(place))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let Place { turns, payer, id } = self.place;
        let mut state = turns.state();
        state.wakers.remove(id);
        state.lanes.start(*payer, *id); // it waits no more
        state.let_go(*id);
    }
}

/// A turn. Dropping it gives it to the next.
pub struct Turn<'p>(&'p Place);

impl Turn<'_> {
    /// Says what the piece came to, in tokens, and gives the turn to the next.
    pub fn charge(self, tokens: usize) {
        self.0.turns.state().lanes.charge(self.0.payer, tokens as u64);
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.turns.state().let_go(self.0.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Payer = Payer([1; 32]);
    const B: Payer = Payer([2; 32]);

    type Asked<'p> = Pin<Box<dyn Future<Output = Turn<'p>> + Send + 'p>>;

    fn poll<'p>(asked: &mut Asked<'p>) -> Option<Turn<'p>> {
        match asked.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(turn) => Some(turn),
            Poll::Pending => None,
        }
    }

    /// Somebody who has the turn while others ask for it.
    fn holder(turns: &Turns) -> Place {
        turns.enter(Payer([9; 32]))
    }

    #[test]
    fn one_at_a_time_and_the_payer_who_got_least_next() {
        let turns = Turns::default();
        let (mut many, mut few, mut holder) = (turns.enter(A), turns.enter(B), holder(&turns));
        let mut order = Vec::new();
        // A's pieces are four times as large as B's: so B has four turns for each of A's.
        for _ in 0..20 {
            let mut held: Asked<'_> = Box::pin(holder.turn());
            let turn = poll(&mut held).expect("nobody has it");
            let (mut a, mut b): (Asked<'_>, Asked<'_>) = (Box::pin(many.turn()), Box::pin(few.turn()));
            assert!(poll(&mut a).is_none() && poll(&mut b).is_none());
            drop(turn);
            match (poll(&mut a), poll(&mut b)) {
                (Some(turn), None) => {
                    turn.charge(40);
                    order.push('a');
                }
                (None, Some(turn)) => {
                    turn.charge(10);
                    order.push('b');
                }
                _ => panic!("exactly one has the turn"),
            }
        }
        let of = |who: char| order.iter().filter(|it| **it == who).count();
        assert!((3..=5).contains(&of('a')) && of('a') + of('b') == 20, "{order:?}");
        assert!(!turns.is_busy());
    }

    #[test]
    fn a_payer_with_many_jobs_gets_no_more_than_one_with_one() {
        let turns = Turns::default();
        let mut many: Vec<Place> = (0..5).map(|_| turns.enter(A)).collect();
        let (mut one, mut holder) = (turns.enter(B), holder(&turns));
        let mut of_one = 0;
        for _ in 0..40 {
            let mut held: Asked<'_> = Box::pin(holder.turn());
            let turn = poll(&mut held).expect("nobody has it");
            let mut asked: Vec<Asked<'_>> =
                many.iter_mut().map(|place| Box::pin(place.turn()) as Asked<'_>).collect();
            let mut single: Asked<'_> = Box::pin(one.turn());
            drop(turn);
            let turn = poll(&mut single).inspect(|_| of_one += 1);
            let turn = turn.or_else(|| asked.iter_mut().find_map(poll));
            turn.expect("somebody has it").charge(7);
        }
        assert!((19..=21).contains(&of_one), "{of_one} of 40");
    }

    #[test]
    fn whoever_leaves_or_stops_waiting_is_in_nobodys_way() {
        let turns = Turns::default();
        let (mut first, mut second) = (turns.enter(A), turns.enter(B));
        let mut asked: Asked<'_> = Box::pin(first.turn());
        let turn = poll(&mut asked).expect("nobody else is here");
        let mut other: Asked<'_> = Box::pin(second.turn());
        assert!(poll(&mut other).is_none());
        drop(asked); // the turn goes on without its future
        assert!(turns.is_busy() && poll(&mut other).is_none());
        drop(turn);
        // It is the second's turn, who never takes it.
        drop(other);
        assert!(!turns.is_busy());
        // A place that is given up with its turn still coming to it.
        let mut asked: Asked<'_> = Box::pin(first.turn());
        let mut other: Asked<'_> = Box::pin(second.turn());
        drop(asked.as_mut().poll(&mut Context::from_waker(Waker::noop())));
        drop(asked);
        drop(first);
        drop(poll(&mut other).expect("it is the second's now"));
        drop(other);
        drop(second);
        assert!(!turns.is_busy() && turns.state().wakers.is_empty());
    }

    #[test]
    fn who_waits_is_woken() {
        struct Flag(std::sync::atomic::AtomicBool);
        impl std::task::Wake for Flag {
            fn wake(self: Arc<Self>) {
                self.0.store(true, std::sync::atomic::Ordering::SeqCst);
            }
        }
        let turns = Turns::default();
        let (mut first, mut second) = (turns.enter(A), turns.enter(B));
        let mut asked: Asked<'_> = Box::pin(first.turn());
        let turn = poll(&mut asked).expect("nobody else is here");
        let flag = Arc::new(Flag(false.into()));
        let waker = Waker::from(Arc::clone(&flag));
        let mut other: Asked<'_> = Box::pin(second.turn());
        assert!(other.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        assert!(!flag.0.load(std::sync::atomic::Ordering::SeqCst));
        turn.charge(1);
        assert!(flag.0.load(std::sync::atomic::Ordering::SeqCst));
        assert!(other.as_mut().poll(&mut Context::from_waker(&waker)).is_ready());
    }
}
