//! The engine as its users see it: a prompt in, tokens and text out, until the model, a stop string, the limit or
//! the caller ends it.

use std::{
    ops::ControlFlow,
    sync::{Arc, Condvar, Mutex},
};

use crate::{
    error::GenerateError,
    kernels::{InstructionSet, Pool},
    model::Model,
    sampling::{Sampler, Sampling},
    sequence::Sequence,
    tokenizer::TextStream,
};

/// Most stop strings of one request.
const MAX_STOPS: usize = 16;
/// Longest stop string, in bytes.
const MAX_STOP_BYTES: usize = 256;

/// How an engine uses its machine.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EngineOptions {
    /// Threads that compute, the caller's among them; 0 takes one for each core.
    pub threads: usize,
    /// Most tokens of one sequence; the model's own context length is a limit too.
    pub max_context: usize,
    /// Overrides the choice at run time, for tests and benchmarks. All sets give the same bits.
    pub instruction_set: Option<InstructionSet>,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self { threads: 0, max_context: 8192, instruction_set: None }
    }
}

impl EngineOptions {
    /// The default with this many threads.
    pub fn with_threads(threads: usize) -> Self {
        Self { threads, ..Self::default() }
    }
}

/// What to generate. It cannot be printed: stop strings are a part of the request.
#[derive(Clone, PartialEq)]
pub struct Params {
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Most tokens to generate. The context is a limit too: an answer that reaches it ends with [`Finish::Length`].
    pub max_tokens: usize,
    /// Text that ends the answer and is not part of it.
    pub stop: Vec<String>,
}

impl Default for Params {
    fn default() -> Self {
        Self { sampling: Sampling::default(), max_tokens: 256, stop: Vec::new() }
    }
}

impl Params {
    fn check(&self) -> Result<(), GenerateError> {
        self.sampling.check()?;
        if self.stop.len() > MAX_STOPS || self.stop.iter().any(|s| s.is_empty() || s.len() > MAX_STOP_BYTES) {
            return Err(GenerateError::Parameter {
                what: "stop",
                expected: "at most 16 strings of 1 to 256 bytes",
                found: format!("{} strings", self.stop.len()),
            });
        }
        Ok(())
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

/// A model with the threads that run it. Answers may be generated from several threads at a time: they take turns,
/// token by token, in the order in which they asked.
pub struct Engine {
    model: Arc<Model>,
    pool: Pool,
    turns: Turns,
    max_context: usize,
}

impl Engine {
    /// Starts the threads; they sleep while there is nothing to do.
    pub fn new(model: Arc<Model>, options: EngineOptions) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if options.threads == 0 { cores } else { options.threads };
        let isa = options.instruction_set.unwrap_or_else(InstructionSet::detect).supported();
        let max_context = options.max_context.min(model.context_length());
        Self { model, pool: Pool::new(threads, isa), turns: Turns::default(), max_context }
    }

    /// The model that it runs.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Tokens that fit a sequence, prompt and answer together.
    pub fn max_context(&self) -> usize {
        self.max_context
    }

    /// The instruction set that it runs on.
    pub fn instruction_set(&self) -> InstructionSet {
        self.pool.instruction_set()
    }

    /// An empty sequence with its own KV cache, for at most `max_tokens` (or the context, if that is less). Its
    /// memory grows with the tokens that it holds.
    pub fn sequence(&self, max_tokens: usize) -> Sequence<'_> {
        Sequence::new(self, max_tokens.min(self.max_context))
    }

    /// Generates an answer to `prompt`, and calls `on_step` after each piece of the prompt and each token.
    /// Breaking off in `on_step` ends the answer with [`Finish::Cancelled`].
    ///
    /// # Errors
    /// The prompt is empty, holds unknown tokens or does not fit the context; a parameter is out of range; the
    /// model's weights are damaged.
    pub fn generate(
        &self,
        prompt: &[u32],
        params: &Params,
        mut on_step: impl FnMut(Step<'_>) -> ControlFlow<()>,
    ) -> Result<Generated, GenerateError> {
        params.check()?;
        if prompt.len() >= self.max_context {
            // One place is needed for the first token of the answer.
            return Err(GenerateError::ContextOverflow {
                tokens: prompt.len() + 1,
                context: self.max_context,
            });
        }
        let tokenizer = self.model.tokenizer();
        let mut sampler = Sampler::new(params.sampling, tokenizer.end_tokens())?;
        sampler.observe(prompt);
        let mut sequence = self.sequence(self.max_context);
        let mut read = 0;
        let prefilled = sequence.prefill_with(prompt, |tokens| {
            read = tokens;
            on_step(Step { prompt_tokens: tokens, completion_tokens: 0, token: None, text: "" })
        });
        let mut done = Generated { prompt_tokens: read, completion_tokens: 0, finish: Finish::Cancelled };
        match prefilled {
            Ok(()) => {}
            Err(GenerateError::Cancelled) => return Ok(done),
            Err(error) => return Err(error),
        }

        let mut text = StopFilter::new(TextStream::new(tokenizer), &params.stop);
        loop {
            if done.completion_tokens >= params.max_tokens {
                done.finish = Finish::Length;
                break;
            }
            let Some(token) = sequence.next(&mut sampler)? else {
                done.finish = Finish::Stop;
                break;
            };
            done.completion_tokens += 1;
            let stopped = text.push(token);
            let flow = on_step(Step {
                prompt_tokens: done.prompt_tokens,
                completion_tokens: done.completion_tokens,
                token: Some(token),
                text: text.ready(),
            });
            if stopped {
                done.finish = Finish::Stop;
                return Ok(done);
            }
            if flow.is_break() {
                return Ok(done);
            }
            if sequence.is_full() {
                done.finish = Finish::Length;
                break;
            }
        }
        text.finish();
        if !text.ready().is_empty() {
            // The answer is whole either way: breaking off here changes nothing.
            let _ = on_step(Step {
                prompt_tokens: done.prompt_tokens,
                completion_tokens: done.completion_tokens,
                token: None,
                text: text.ready(),
            });
        }
        Ok(done)
    }

    /// Runs one step of one sequence when its turn has come.
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

/// Holds text back for as long as it may still become a stop string.
struct StopFilter<'a> {
    stream: TextStream<'a>,
    stops: &'a [String],
    /// Text that is decoded and not given out; `ready` bytes of it are free to go.
    held: String,
    ready: usize,
}

impl<'a> StopFilter<'a> {
    fn new(stream: TextStream<'a>, stops: &'a [String]) -> Self {
        Self { stream, stops, held: String::new(), ready: 0 }
    }

    /// Takes a token; true if a stop string is complete.
    fn push(&mut self, token: u32) -> bool {
        self.held.drain(..self.ready);
        self.stream.push(token, &mut self.held);
        if let Some(start) = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min() {
            self.held.truncate(start);
            self.ready = start;
            return true;
        }
        self.ready = self.held.len() - self.longest_beginning();
        false
    }

    /// Bytes at the end of the held text with which some stop string begins.
    fn longest_beginning(&self) -> usize {
        let begins = |stop: &String| {
            let most = stop.len().saturating_sub(1).min(self.held.len());
            (1..=most).rev().find(|&n| self.held.as_bytes().ends_with(&stop.as_bytes()[..n])).unwrap_or(0)
        };
        let longest = self.stops.iter().map(begins).max().unwrap_or(0);
        // A stop string begins at a character, so the split is at one.
        debug_assert!(self.held.is_char_boundary(self.held.len() - longest));
        longest
    }

    /// No more tokens: all held text is free.
    fn finish(&mut self) {
        self.held.drain(..self.ready);
        self.stream.finish(&mut self.held);
        self.ready = self.held.len();
    }

    fn ready(&self) -> &str {
        &self.held[..self.ready]
    }
}
