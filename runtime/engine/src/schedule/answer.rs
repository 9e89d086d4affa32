//! From the scheduler to the reader: a bounded queue of events, without any runtime.
//!
//! The scheduler never waits for a reader. When a queue is full, its answer pauses; when the reader is gone, it ends.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard},
    task::{Context, Poll, Waker},
};

use zeroize::Zeroizing;

use super::lobby::Lobby;
use crate::{error::GenerateError, logprobs::Logprobs};

/// Events that may wait for their reader before its answer pauses.
pub(crate) const ANSWER_EVENTS: usize = 32;

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model ended it, or a stop string.
    Stop,
    /// It reached its limit of tokens, or the end of the context.
    Length,
    /// The caller broke off.
    Cancelled,
}

/// What happened to a request. It cannot be printed: it holds an answer.
pub enum Event {
    /// Work began.
    Started {
        /// Tokens of the prompt that were read from the cache.
        cached_tokens: usize,
    },
    /// A piece of the prompt was read. Where the reader is slow, some of these are left out.
    Read {
        /// Tokens of the prompt that are read by now, those from the cache among them.
        prompt_tokens: usize,
    },
    /// A token was chosen. Tokens that end an answer are not told.
    Token {
        /// Of which answer, from 0.
        choice: u32,
        /// The token.
        token: u32,
        /// Text that is free to go now: whole characters, and never a part of a stop string. May be empty.
        text: Zeroizing<String>,
        /// How likely it was, where that was asked for.
        logprobs: Option<Logprobs>,
    },
    /// An answer ended, and held text came free.
    Text {
        /// Of which answer.
        choice: u32,
        /// The text.
        text: Zeroizing<String>,
    },
    /// The last event of an answer.
    End {
        /// Of which answer.
        choice: u32,
        /// Why it ended.
        outcome: Result<Finish, GenerateError>,
    },
}

/// What is shared between the two ends.
#[derive(Default)]
struct Pipe {
    state: Mutex<State>,
    arrived: Condvar,
}

#[derive(Default)]
struct State {
    events: VecDeque<Event>,
    waker: Option<Waker>,
    /// The reader is gone.
    abandoned: bool,
    /// Ends that may still write.
    writers: usize,
}

impl Pipe {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds this lock")
    }

    fn wake(&self, waker: Option<Waker>) {
        self.arrived.notify_one();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// A pair of ends.
pub(crate) fn channel(lobby: &Arc<Lobby>, choices: u32) -> (Outlet, Answer) {
    let pipe = Arc::new(Pipe::default());
    pipe.lock().writers = 1;
    let open = (0..choices).collect();
    (Outlet(Arc::clone(&pipe)), Answer { pipe, lobby: Arc::clone(lobby), open })
}

/// The scheduler's end. Each choice of a request has one.
pub(crate) struct Outlet(Arc<Pipe>);

impl Clone for Outlet {
    fn clone(&self) -> Self {
        self.0.lock().writers += 1;
        Self(Arc::clone(&self.0))
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        let waker = {
            let mut state = self.0.lock();
            state.writers -= 1;
            state.waker.take()
        };
        self.0.wake(waker);
    }
}

impl Outlet {
    /// Whether the reader is gone.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.0.lock().abandoned
    }

    /// Whether the events of one more step may be pushed. All choices of a request may push after one look, so a queue
    /// may be longer by a few events for each of them.
    pub(crate) fn has_room(&self) -> bool {
        self.0.lock().events.len() < ANSWER_EVENTS
    }

    /// Hands an event on. Where the reader is gone, it goes nowhere.
    pub(crate) fn push(&self, event: Event) {
        let waker = {
            let mut state = self.0.lock();
            if state.abandoned {
                return;
            }
            state.events.push_back(event);
            state.waker.take()
        };
        self.0.wake(waker);
    }
}

/// The answers to one request, as they are made: the reader's end. Dropping it cancels what is not finished.
///
/// It is an iterator that waits, and [`poll_next`](Self::poll_next) is for async code of any runtime:
///
/// ```no_run
/// # async fn example(mut answer: cocoon_engine::Answer) {
/// while let Some(event) = std::future::poll_fn(|context| answer.poll_next(context)).await {
///     // …
/// }
/// # }
/// ```
pub struct Answer {
    pipe: Arc<Pipe>,
    lobby: Arc<Lobby>,
    /// Choices whose end was not read yet.
    open: Vec<u32>,
}

impl Answer {
    /// The next event, or `None` after the end of the last choice; pending while there is none.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Event>> {
        if self.open.is_empty() {
            return Poll::Ready(None);
        }
        let mut state = self.pipe.lock();
        if let Some(event) = state.events.pop_front() {
            let resumes = state.events.len() + 1 == ANSWER_EVENTS;
            drop(state);
            return Poll::Ready(Some(self.taken(event, resumes)));
        }
        if state.writers == 0 {
            drop(state);
            return Poll::Ready(Some(self.cut_off()));
        }
        state.waker = Some(context.waker().clone());
        Poll::Pending
    }

    /// The next event if one is there already.
    pub fn try_next(&mut self) -> Option<Event> {
        match self.poll_next(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(event) => event,
            Poll::Pending => None,
        }
    }

    /// Counts an event that was taken out, and lets a paused answer go on.
    fn taken(&mut self, event: Event, resumes: bool) -> Event {
        if let Event::End { choice, .. } = &event {
            self.open.retain(|open| open != choice);
        }
        if resumes {
            self.lobby.notify();
        }
        event
    }

    /// The engine ended before the answer did.
    fn cut_off(&mut self) -> Event {
        Event::End { choice: self.open.remove(0), outcome: Err(self.lobby.cut_off()) }
    }
}

impl Iterator for Answer {
    type Item = Event;

    /// Waits for the next event.
    fn next(&mut self) -> Option<Event> {
        if self.open.is_empty() {
            return None;
        }
        let mut state = self.pipe.lock();
        loop {
            if let Some(event) = state.events.pop_front() {
                let resumes = state.events.len() + 1 == ANSWER_EVENTS;
                drop(state);
                return Some(self.taken(event, resumes));
            }
            if state.writers == 0 {
                drop(state);
                return Some(self.cut_off());
            }
            state = self.pipe.arrived.wait(state).expect("no code panics while it holds this lock");
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        let events = {
            let mut state = self.pipe.lock();
            state.abandoned = true;
            std::mem::take(&mut state.events)
        };
        drop(events);
        if !self.open.is_empty() {
            self.lobby.notify();
        }
    }
}
