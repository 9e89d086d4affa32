//! The engine as its users see it: a prompt in, tokens and text out, until the model, a stop string, the limit or
//! the caller ends it. One thread steps for all; see [`crate::schedule`].

use std::{
    ops::ControlFlow,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crate::{
    accelerator::{Accelerator, AcceleratorError, Needs},
    error::{GenerateError, SubmitError},
    kernels::{InstructionSet, PAGE, Pool},
    machine::Machine,
    model::Model,
    request::{Params, Request},
    schedule::{
        Answer, Cost, Device, EngineStatus, Event, Finish, Lobby, Progress, Scheduler, SchedulerLimits,
        WaitingLimits,
    },
    sequence::Sequence,
};

/// How an engine uses its machine.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EngineOptions {
    /// Threads that compute; 0 takes one for each core.
    pub threads: usize,
    /// Most tokens of one sequence; the model's own context length and the cache are limits too.
    pub max_context: usize,
    /// Overrides the choice at run time, for tests and benchmarks. All sets give the same bits.
    pub instruction_set: Option<InstructionSet>,
    /// Bytes of keys and values that all answers share. Taken as they are needed, and then kept.
    pub cache_bytes: usize,
    /// Most tokens of one step. What answers in progress leave of it reads prompts: the more, the faster prompts are
    /// read and the longer running answers wait for their next token meanwhile. Tokens that look back at a long context
    /// count for more than one, so that a step takes about as long wherever in a prompt it is.
    pub step_tokens: usize,
    /// Most answers in progress.
    pub max_running: usize,
    /// Most answers that wait to be begun.
    pub max_waiting: usize,
    /// Most answers of one payer that wait to be begun.
    pub max_waiting_of_payer: usize,
    /// Most tokens of the prompts that wait to be begun.
    pub max_waiting_tokens: usize,
    /// How long an answer waits for a reader that does not read.
    pub reader_patience: Duration,
    /// How long a step of an accelerator may take, before it counts as one that failed.
    pub device_patience: Duration,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            threads: 0,
            max_context: 8192,
            instruction_set: None,
            cache_bytes: 1 << 30,
            step_tokens: 64,
            max_running: 32,
            max_waiting: 1024,
            max_waiting_of_payer: 256,
            max_waiting_tokens: 1 << 20,
            reader_patience: Duration::from_secs(25),
            device_patience: Duration::from_secs(60),
        }
    }
}

impl EngineOptions {
    /// The default with this many threads.
    pub fn with_threads(threads: usize) -> Self {
        Self { threads, ..Self::default() }
    }

    /// Bytes of keys and values of one sequence of so many tokens: to choose [`Self::cache_bytes`] by.
    pub fn bytes_of_context(model: &Model, tokens: usize) -> usize {
        model.shape.page().bytes() * tokens.div_ceil(PAGE)
    }

    fn waiting(&self) -> WaitingLimits {
        WaitingLimits {
            answers: self.max_waiting,
            of_payer: self.max_waiting_of_payer,
            tokens: self.max_waiting_tokens,
            running: self.max_running.max(1),
        }
    }

    /// Made to fit the model and each other: the cache holds a whole context, and a step reads at least a block of some
    /// prompt whatever is being written.
    pub(crate) fn limits(&self, model: &Model) -> SchedulerLimits {
        let wanted = self.max_context.min(model.context_length()).max(1);
        let blocks = (self.cache_bytes / model.shape.page().bytes()).max(1);
        let running = self.max_running.max(1);
        SchedulerLimits {
            context: wanted.min(blocks * PAGE),
            step_tokens: self.step_tokens.max(running + PAGE),
            cost: Cost::of(&model.shape),
            running,
            blocks,
            patience: self.reader_patience,
        }
    }
}

/// What happened since the last call: a piece of the prompt was read, a token was chosen, or held text came free.
#[derive(Clone, Copy)]
pub struct Step<'a> {
    /// Prompt tokens read so far.
    pub prompt_tokens: usize,
    /// Tokens generated so far. The token that ends the answer is not counted.
    pub completion_tokens: usize,
    /// The token, when this step is one.
    pub token: Option<u32>,
    /// New text of the answer: whole characters, and never a part of a stop string. May be empty.
    pub text: &'a str,
}

/// A finished answer in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generated {
    /// Tokens of the prompt that were read.
    pub prompt_tokens: usize,
    /// Tokens generated, without the one that ended the answer.
    pub completion_tokens: usize,
    /// Why it ended.
    pub finish: Finish,
}

/// A model with the threads that run it, and everything that is asked of it.
///
/// Requests come in from any thread ([`submit`](Self::submit), [`generate`](Self::generate)) and run together, each
/// with the bits that it would have alone. When the engine is dropped, what is not finished ends with
/// [`GenerateError::Stopped`].
pub struct Engine {
    machine: Arc<Machine>,
    lobby: Arc<Lobby>,
    limits: SchedulerLimits,
    /// Digest of the code of the device that computes, if one does.
    kernels: Option<[u8; 32]>,
    thread: Option<JoinHandle<()>>,
}

impl Engine {
    /// Starts the threads; they sleep while there is nothing to do.
    pub fn new(model: Arc<Model>, options: EngineOptions) -> Self {
        Self::on(model, options, None)
    }

    /// An engine whose steps run on a device, with the same bits. `open` opens it, on the thread that will drive it;
    /// this waits until it did.
    ///
    /// A device that fails, or does not answer for [`EngineOptions::device_patience`], ends every answer with
    /// [`GenerateError::Device`], is wiped if it can be, and is not used again: [`failure`](Self::failure).
    ///
    /// [`sequence`](Self::sequence) computes on the CPU all the same.
    ///
    /// # Errors
    /// Those of `open`: then nothing is served.
    pub fn accelerated<O>(
        model: Arc<Model>,
        options: EngineOptions,
        open: O,
    ) -> Result<Self, AcceleratorError>
    where
        O: FnOnce(&Model, Needs) -> Result<Box<dyn Accelerator>, AcceleratorError> + Send + 'static,
    {
        let limits = options.limits(&model);
        let needs = Needs { context: limits.context, rows: limits.step_tokens, pages: limits.blocks };
        let device = Device::open(Arc::clone(&model), needs, options.device_patience, open)?;
        Ok(Self::on(model, options, Some(device)))
    }

    fn on(model: Arc<Model>, options: EngineOptions, device: Option<Device>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if options.threads == 0 { cores } else { options.threads };
        let isa = options.instruction_set.unwrap_or_else(InstructionSet::detect).supported();
        let limits = options.limits(&model);
        let machine = Arc::new(Machine::new(model, Pool::new(threads, isa)));
        let lobby = Lobby::new(options.waiting());
        let kernels = device.as_ref().map(Device::kernels);
        let thread = {
            let (machine, lobby) = (Arc::clone(&machine), Arc::clone(&lobby));
            let builder = std::thread::Builder::new().name("engine-steps".to_owned());
            builder.spawn(move || serve(&machine, &lobby, limits, device)).ok()
        };
        if thread.is_none() {
            lobby.close(); // requests are told
        }
        Self { machine, lobby, limits, kernels, thread }
    }

    /// The model that it runs.
    pub fn model(&self) -> &Arc<Model> {
        &self.machine.model
    }

    /// Tokens that fit a sequence, prompt and answer together.
    pub fn max_context(&self) -> usize {
        self.limits.context
    }

    /// The instruction set that it runs on.
    pub fn instruction_set(&self) -> InstructionSet {
        self.machine.pool.instruction_set()
    }

    /// Digest of the code of the device that computes, or `None` where the CPU does.
    pub fn kernels(&self) -> Option<[u8; 32]> {
        self.kernels
    }

    /// Whether it takes requests: until its device fails, or its thread ends (a fault of ours, or none could be started).
    pub fn is_serving(&self) -> bool {
        self.lobby.is_open()
    }

    /// How its device failed, if it did. It may be logged.
    pub fn failure(&self) -> Option<AcceleratorError> {
        self.lobby.failure()
    }

    /// What it does at the moment.
    pub fn status(&self) -> EngineStatus {
        self.lobby.status()
    }

    /// An empty sequence with its own KV cache, for at most `max_tokens` (or the context, if that is less). Its
    /// memory grows with the tokens that it holds. It takes turns with the engine's own steps.
    pub fn sequence(&self, max_tokens: usize) -> Sequence<'_> {
        Sequence::new(&self.machine, max_tokens.min(self.limits.context))
    }

    /// Takes a request in; the answer comes event by event, and is cancelled when it is dropped.
    ///
    /// # Errors
    /// The request can never be answered, as much waits as may, or the engine has ended.
    pub fn submit(&self, request: Request) -> Result<Answer, SubmitError> {
        request.check(self.model().vocab_size(), self.limits.context)?;
        self.lobby.enter(request)
    }

    /// Generates an answer to `prompt`, and calls `on_step` after each piece of the prompt and each token.
    /// Breaking off in `on_step` ends the answer with [`Finish::Cancelled`].
    ///
    /// # Errors
    /// The prompt is empty, holds unknown tokens or does not fit the context; a parameter is out of range; the
    /// model's weights are damaged; too much waits already.
    pub fn generate(
        &self,
        prompt: &[u32],
        params: &Params,
        mut on_step: impl FnMut(Step<'_>) -> ControlFlow<()>,
    ) -> Result<Generated, GenerateError> {
        let answer = self.submit(Request::new(prompt.to_vec(), params.clone()))?;
        let mut done = Generated { prompt_tokens: 0, completion_tokens: 0, finish: Finish::Cancelled };
        for event in answer {
            let (token, text) = match &event {
                Event::Started { .. } => continue,
                Event::Read { prompt_tokens } => {
                    done.prompt_tokens = *prompt_tokens;
                    (None, "")
                }
                Event::Token { token, text, .. } => {
                    done.prompt_tokens = prompt.len();
                    done.completion_tokens += 1;
                    (Some(*token), text.as_str())
                }
                Event::Text { text, .. } => (None, text.as_str()),
                Event::End { outcome, .. } => {
                    done.finish = outcome.clone()?;
                    done.prompt_tokens = prompt.len();
                    break;
                }
            };
            let (prompt_tokens, completion_tokens) = (done.prompt_tokens, done.completion_tokens);
            if on_step(Step { prompt_tokens, completion_tokens, token, text }).is_break() {
                break;
            }
        }
        Ok(done)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.lobby.close();
        if let Some(thread) = self.thread.take() {
            // It closes the lobby itself if it panics; there is nobody left to tell.
            let _ = thread.join();
        }
    }
}

/// The life of the thread that steps.
fn serve(machine: &Machine, lobby: &Arc<Lobby>, limits: SchedulerLimits, device: Option<Device>) {
    /// However the thread ends, nobody waits for it.
    struct Closing<'l>(&'l Lobby);
    impl Drop for Closing<'_> {
        fn drop(&mut self) {
            self.0.close();
        }
    }
    let _closing = Closing(lobby);
    let lobby_too = Arc::clone(lobby);
    let mut scheduler = match device {
        None => Scheduler::new(machine, lobby_too, limits),
        Some(device) => Scheduler::on_device(machine, lobby_too, limits, device),
    };
    let start = Instant::now();
    while let Some(heard) = lobby.rings() {
        match scheduler.step(start.elapsed(), &mut |_, _| {}) {
            Progress::Ran(_) => {}
            Progress::Failed => return,
            Progress::Idle(until) => {
                lobby.wait(heard, until.map(|until| until.saturating_sub(start.elapsed())));
            }
        }
    }
}
