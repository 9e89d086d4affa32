//! A device on a thread of its own, as the scheduler sees it.
//!
//! The thread that steps waits for the device, so a copy that blocks holds up nobody else: there is nothing to do
//! between a step's copy in and its copy out. But a driver's call may never come back, and a thread cannot be called
//! off. So the device has a thread, and the one that steps waits for so long only; then it ends all answers.

use std::{
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use super::{job::Job, writer::Given};
use crate::{
    accelerator::{Accelerator, AcceleratorError, Needs, Pick, StepAnswer, StepRow, StepWork},
    cache::Untold,
    model::Model,
};

/// What is asked of the thread.
enum Order {
    Step(Box<Exchange>),
    Scrub(Vec<u32>),
    Prove(Vec<u32>),
    Retire,
}

/// Work on its way to the device, and its answer on the way back. Used again for each step.
#[derive(Default)]
struct Exchange {
    work: StepWork,
    answer: StepAnswer,
}

/// What the thread answers: for a step what came with it.
type Reply = (Option<Box<Exchange>>, Result<(), AcceleratorError>);

/// Where the answer to an answer's question lies.
#[derive(Clone, Copy)]
enum Place {
    Logits(usize),
    Token(usize),
}

/// The device, and the step that it computes.
pub(crate) struct Device {
    orders: Option<SyncSender<Order>>,
    replies: Receiver<Reply>,
    thread: Option<JoinHandle<()>>,
    /// It did the last that was asked of it. Any other thread might be waited for in vain.
    retired: bool,
    /// How long an order may take.
    patience: Duration,
    kernels: [u8; 32],
    vocabulary: usize,
    exchange: Box<Exchange>,
    /// Of the answers that can go on after this step, in their order.
    places: Vec<Place>,
}

impl Device {
    /// Starts the thread, on which `open` opens the device, and waits until it did.
    ///
    /// # Errors
    /// Those of `open`.
    pub(crate) fn open<O>(
        model: Arc<Model>,
        needs: Needs,
        patience: Duration,
        open: O,
    ) -> Result<Self, AcceleratorError>
    where
        O: FnOnce(&Model, Needs) -> Result<Box<dyn Accelerator>, AcceleratorError> + Send + 'static,
    {
        let (orders, to_do) = sync_channel(1);
        let (answers, replies) = sync_channel(1);
        let (opened, opening) = sync_channel(1);
        let vocabulary = model.vocab_size();
        let life = move || match open(&model, needs) {
            Err(error) => drop(opened.send(Err(error))),
            Ok(mut accelerator) => {
                // Who opens it waits for this, unless he panicked.
                let _ = opened.send(Ok(accelerator.kernels()));
                serve(accelerator.as_mut(), &to_do, &answers);
            }
        };
        let thread = std::thread::Builder::new().name("engine-device".to_owned()).spawn(life);
        let thread = thread.map_err(|error| AcceleratorError::new(format!("no thread for it: {error}")))?;
        let kernels = opening.recv().unwrap_or_else(|_| Err(panicked()))?;
        Ok(Self {
            orders: Some(orders),
            replies,
            thread: Some(thread),
            retired: false,
            patience,
            kernels,
            vocabulary,
            exchange: Box::default(),
            places: Vec::new(),
        })
    }

    /// Digest of the code that it runs.
    pub(crate) fn kernels(&self) -> [u8; 32] {
        self.kernels
    }

    /// Gives an order, and waits until it is done.
    fn ask(&mut self, order: Order) -> Result<(), AcceleratorError> {
        let lost = || AcceleratorError::new("the device failed before");
        self.orders.as_ref().ok_or_else(lost)?.send(order).map_err(|_| panicked())?;
        let (exchange, done) = self.replies.recv_timeout(self.patience).map_err(|error| {
            self.orders = None; // an answer that comes later is nobody's
            match error {
                RecvTimeoutError::Timeout => AcceleratorError::new(format!(
                    "the device did not answer for {} seconds: reset it",
                    self.patience.as_secs()
                )),
                RecvTimeoutError::Disconnected => panicked(),
            }
        })?;
        if let Some(exchange) = exchange {
            self.exchange = exchange;
        }
        done
    }

    /// Has pages that came back wiped, and those that have a new tenant proven clean.
    ///
    /// # Errors
    /// The device failed, or a page is not clean.
    pub(super) fn settle(&mut self, untold: &mut Untold) -> Result<(), AcceleratorError> {
        if !untold.returned.is_empty() {
            self.ask(Order::Scrub(untold.returned.clone()))?;
        }
        if !untold.taken.is_empty() {
            self.ask(Order::Prove(untold.taken.clone()))?;
        }
        untold.clear();
        Ok(())
    }

    /// Computes the next so many tokens of each of these jobs.
    ///
    /// # Errors
    /// The device failed, or its answer is not as long as it has to be.
    pub(super) fn step<'j, 'm: 'j>(
        &mut self,
        jobs: impl Iterator<Item = (&'j Job<'m>, usize)>,
    ) -> Result<(), AcceleratorError> {
        let mut exchange = std::mem::take(&mut self.exchange);
        let Exchange { work, answer } = exchange.as_mut();
        work.clear();
        answer.clear();
        self.places.clear();
        let (mut by_logits, mut by_token) = (Vec::new(), Vec::new());
        for (job, rows) in jobs {
            let table = work.tables.len() as u32;
            work.tables.push(job.table.pages().to_vec());
            for position in job.computed..job.computed + rows {
                let row = StepRow { token: job.tokens[position], table, position: position as u32 };
                if position + 1 < job.tokens.len() {
                    work.rows.push(row);
                    continue;
                }
                let pick = job.writer.pick();
                let (list, place): (&mut Vec<_>, fn(usize) -> Place) = match pick {
                    Pick::Logits => (&mut by_logits, Place::Logits),
                    Pick::Token(_) => (&mut by_token, Place::Token),
                };
                self.places.push(place(list.len()));
                list.push((row, pick));
            }
        }
        let (logits, tokens) = (by_logits.len(), by_token.len());
        for (row, pick) in by_logits.into_iter().chain(by_token) {
            work.rows.push(row);
            work.picks.push(pick);
        }
        self.ask(Order::Step(exchange))?;
        let answer = &self.exchange.answer;
        if answer.tokens.len() != tokens || answer.logits.len() != logits * self.vocabulary {
            return Err(AcceleratorError::new(format!(
                "the device gave {} tokens and {} logits, where {tokens} and {} were asked for",
                answer.tokens.len(),
                answer.logits.len(),
                logits * self.vocabulary
            )));
        }
        let known = |token: &u32| (*token as usize) < self.vocabulary;
        if !answer.tokens.iter().flatten().all(known) {
            return Err(AcceleratorError::new("the device gave a token that is not in the vocabulary"));
        }
        Ok(())
    }

    /// What the `nth` of the answers that can go on was given by the last step.
    pub(super) fn given(&self, nth: usize) -> Given<'_> {
        let answer = &self.exchange.answer;
        match self.places[nth] {
            Place::Logits(at) => Given::Logits(&answer.logits[at * self.vocabulary..][..self.vocabulary]),
            Place::Token(at) => Given::Token(answer.tokens[at]),
        }
    }

    /// Wipes what conversations left there.
    ///
    /// # Errors
    /// The device failed: it has to be reset.
    pub(super) fn retire(&mut self) -> Result<(), AcceleratorError> {
        let done = self.ask(Order::Retire);
        self.orders = None;
        self.retired = done.is_ok();
        done
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if self.orders.is_some() {
            // Nobody is left to be told.
            let _ = self.retire();
        }
        if let Some(thread) = self.thread.take().filter(|_| self.retired) {
            let _ = thread.join(); // there is nobody to tell how it ended
        }
    }
}

/// The life of the thread, once the device is open.
fn serve(device: &mut dyn Accelerator, orders: &Receiver<Order>, replies: &SyncSender<Reply>) {
    for order in orders {
        let reply = match order {
            Order::Step(mut exchange) => {
                let Exchange { work, answer } = exchange.as_mut();
                let done = device.step(work, answer);
                (Some(exchange), done)
            }
            Order::Scrub(pages) => (None, device.scrub(&pages)),
            Order::Prove(pages) => (None, device.prove_clean(&pages)),
            Order::Retire => (None, device.retire()),
        };
        if replies.send(reply).is_err() {
            return;
        }
    }
}

fn panicked() -> AcceleratorError {
    AcceleratorError::new("the thread that drives the device panicked")
}
