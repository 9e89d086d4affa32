//! Where requests come in, from any thread: limits on what waits, and the bell that wakes the scheduler.

use std::{
    collections::BTreeMap,
    sync::{Arc, Condvar, Mutex, MutexGuard},
    time::Duration,
};

use super::answer::{self, Answer, Outlet};
use crate::{
    accelerator::AcceleratorError,
    error::{Busy, GenerateError, SubmitError},
    request::{Payer, Request},
};

/// The most that may wait to be begun. Nobody has more here, begun or not, than may wait and be in progress: answers that
/// were begun and put back are as many as wait.
#[derive(Clone, Copy)]
pub(crate) struct WaitingLimits {
    /// Answers of all payers.
    pub(crate) answers: usize,
    /// Answers of one payer.
    pub(crate) of_payer: usize,
    /// Tokens of prompts.
    pub(crate) tokens: usize,
    /// Answers in progress.
    pub(crate) running: usize,
}

/// What an engine does at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineStatus {
    /// Answers in progress.
    pub running: usize,
    /// Answers that wait to be begun, or to be gone on with.
    pub waiting: usize,
    /// Payers of these, and those that are remembered because they got more than others.
    pub payers: usize,
    /// Blocks of 16 tokens that answers hold.
    pub held_blocks: usize,
    /// Blocks that are kept for requests that begin like earlier ones.
    pub cached_blocks: usize,
    /// Most blocks.
    pub limit_blocks: usize,
    /// Steps made since the start.
    pub steps: u64,
    /// Answers that were put back to make room, since the start.
    pub preemptions: u64,
}

/// A request that came in.
pub(crate) struct Arrival {
    pub(crate) id: u64,
    pub(crate) request: Request,
    pub(crate) outlet: Outlet,
    pub(crate) ticket: Ticket,
    pub(crate) presence: Arc<Presence>,
}

/// Counts as here for as long as any answer of its request does.
pub(crate) struct Presence {
    lobby: Arc<Lobby>,
    payer: Payer,
    answers: usize,
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.lobby.lock().leave(self.payer, |count| count.here -= self.answers);
    }
}

/// Counts as waiting for as long as it exists.
pub(crate) struct Ticket {
    lobby: Arc<Lobby>,
    payer: Payer,
    answers: usize,
    tokens: usize,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut inner = self.lobby.lock();
        inner.tokens -= self.tokens;
        inner.leave(self.payer, |count| count.waiting -= self.answers);
    }
}

/// Answers of one payer or of all.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Count {
    waiting: usize,
    /// Those that wait, and those that were begun and have not ended.
    here: usize,
}

pub(crate) struct Lobby {
    limits: WaitingLimits,
    inner: Mutex<Inner>,
    bell: Condvar,
}

#[derive(Default)]
struct Inner {
    newcomers: Vec<Arrival>,
    all: Count,
    tokens: usize,
    payers: BTreeMap<Payer, Count>,
    next_id: u64,
    /// Grows with whatever may give the scheduler something to do.
    rings: u64,
    closed: bool,
    /// Why the device does not serve any more.
    failure: Option<AcceleratorError>,
    status: EngineStatus,
}

impl Inner {
    /// Counts fewer answers of a payer.
    fn leave(&mut self, payer: Payer, fewer: impl Fn(&mut Count)) {
        fewer(&mut self.all);
        let count = self.payers.get_mut(&payer).expect("counted when it came in");
        fewer(count);
        if *count == Count::default() {
            self.payers.remove(&payer);
        }
    }
}

impl Lobby {
    pub(crate) fn new(limits: WaitingLimits) -> Arc<Self> {
        Arc::new(Self { limits, inner: Mutex::default(), bell: Condvar::new() })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no code panics while it holds this lock")
    }

    /// Takes a request in, which was checked.
    pub(crate) fn enter(self: &Arc<Self>, request: Request) -> Result<Answer, SubmitError> {
        let (answers, tokens, payer) = (request.choices as usize, request.prompt.len(), request.payer);
        let (outlet, answer) = answer::channel(self, request.choices);
        let mut inner = self.lock();
        if inner.closed {
            let error = if inner.failure.is_some() { SubmitError::Device } else { SubmitError::Stopped };
            drop(inner);
            return Err(error);
        }
        let (all, own) = (inner.all, inner.payers.get(&payer).copied().unwrap_or_default());
        let WaitingLimits { answers: most, of_payer, tokens: most_tokens, running } = self.limits;
        let limits = [
            ("answers", all.waiting + answers, most),
            ("answers of one payer", own.waiting + answers, of_payer),
            ("tokens of prompts", inner.tokens + tokens, most_tokens),
            ("answers", all.here + answers, most.saturating_add(running)),
            ("answers of one payer", own.here + answers, of_payer.saturating_add(running)),
        ];
        if let Some((what, _, limit)) = limits.into_iter().find(|(_, wanted, limit)| wanted > limit) {
            drop(inner);
            return Err(Busy { what, limit }.into());
        }
        let more = |count: Count| Count { waiting: count.waiting + answers, here: count.here + answers };
        inner.all = more(all);
        inner.tokens += tokens;
        inner.payers.insert(payer, more(own));
        let id = inner.next_id;
        inner.next_id += u64::from(request.choices);
        let ticket = Ticket { lobby: Arc::clone(self), payer, answers, tokens };
        let presence = Arc::new(Presence { lobby: Arc::clone(self), payer, answers });
        inner.newcomers.push(Arrival { id, request, outlet, ticket, presence });
        inner.rings += 1;
        drop(inner);
        self.bell.notify_all();
        Ok(answer)
    }

    /// Who came since the last call.
    pub(crate) fn newcomers(&self) -> Vec<Arrival> {
        std::mem::take(&mut self.lock().newcomers)
    }

    /// Something changed that the scheduler should look at.
    pub(crate) fn notify(&self) {
        self.lock().rings += 1;
        self.bell.notify_all();
    }

    /// Nobody is let in any more, and the scheduler's thread ends after its step.
    pub(crate) fn close(&self) {
        let newcomers = {
            let mut inner = self.lock();
            inner.closed = true;
            std::mem::take(&mut inner.newcomers)
        };
        drop(newcomers); // their readers are told
        self.bell.notify_all();
    }

    /// Closes, because the device failed: whoever has not had his end is told so. The last word on it counts.
    pub(crate) fn fail(&self, error: AcceleratorError) {
        self.lock().failure = Some(error);
        self.close();
    }

    /// Why the device does not serve any more, if it does not.
    pub(crate) fn failure(&self) -> Option<AcceleratorError> {
        self.lock().failure.clone()
    }

    /// Whether anybody is let in.
    pub(crate) fn is_open(&self) -> bool {
        !self.lock().closed
    }

    /// How an answer ends that nobody writes any more.
    pub(crate) fn cut_off(&self) -> GenerateError {
        if self.lock().failure.is_some() { GenerateError::Device } else { GenerateError::Stopped }
    }

    /// How often the bell rang until now; `None` when closed.
    pub(crate) fn rings(&self) -> Option<u64> {
        let inner = self.lock();
        (!inner.closed).then_some(inner.rings)
    }

    /// Waits until the bell rang more often than `heard`, or for so long at most.
    pub(crate) fn wait(&self, heard: u64, most: Option<Duration>) {
        let quiet = |inner: &mut Inner| inner.rings == heard && !inner.closed;
        let inner = self.lock();
        match most {
            None => {
                drop(self.bell.wait_while(inner, quiet).expect("no code panics while it holds this lock"))
            }
            Some(most) => {
                let waited = self.bell.wait_timeout_while(inner, most, quiet);
                drop(waited.expect("no code panics while it holds this lock"));
            }
        }
    }

    pub(crate) fn report(&self, status: EngineStatus) {
        self.lock().status = status;
    }

    /// As of the end of the last step; with who came since.
    pub(crate) fn status(&self) -> EngineStatus {
        let inner = self.lock();
        let came: usize = inner.newcomers.iter().map(|arrival| arrival.request.choices as usize).sum();
        EngineStatus { waiting: inner.status.waiting + came, ..inner.status }
    }
}
