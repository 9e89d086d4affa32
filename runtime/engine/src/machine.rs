//! A model with the threads that run it, one step at a time.

use std::sync::{Arc, Condvar, Mutex};

use crate::{kernels::Pool, model::Model};

pub(crate) struct Machine {
    pub(crate) model: Arc<Model>,
    pub(crate) pool: Pool,
    turns: Turns,
}

impl Machine {
    pub(crate) fn new(model: Arc<Model>, pool: Pool) -> Self {
        Self { model, pool, turns: Turns::default() }
    }

    /// Runs one step when its turn has come.
    pub(crate) fn in_turn<T>(&self, step: impl FnOnce(&Model, &Pool) -> T) -> T {
        let _turn = self.turns.take();
        step(&self.model, &self.pool)
    }
}

/// First come, first served: a plain mutex would let one sequence run ahead of all others.
#[derive(Default)]
struct Turns {
    state: Mutex<(u64, u64)>, // next ticket, ticket now served
    changed: Condvar,
}

struct Turn<'a>(&'a Turns);

impl Turns {
    fn take(&self) -> Turn<'_> {
        let mut state = self.state.lock().expect("no code panics while it holds this lock");
        let ticket = state.0;
        state.0 += 1;
        while state.1 != ticket {
            state = self.changed.wait(state).expect("no code panics while it holds this lock");
        }
        Turn(self)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.state.lock().expect("no code panics while it holds this lock").1 += 1;
        self.0.changed.notify_all();
    }
}
