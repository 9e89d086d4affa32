//! The scheduler without threads: step by step, with time as a number.

mod bits;
mod device;
mod fairness;
mod limits;
mod prefix;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, LazyLock},
    time::Duration,
};

use super::{Answer, Cost, Event, Finish, Lobby, Progress, Scheduler, SchedulerLimits, WaitingLimits};
use crate::{
    error::{GenerateError, SubmitError},
    kernels::{InstructionSet, Pool},
    machine::Machine,
    model::Model,
    request::{Params, Request},
    sampling::{Sampler, Sampling},
    sequence::Sequence,
};

fn model() -> Arc<Model> {
    static MODEL: LazyLock<Arc<Model>> = LazyLock::new(|| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/models/tiny.gguf");
        Arc::new(Model::open(&path).expect("the tiny model lies in the repository"))
    });
    Arc::clone(&MODEL)
}

/// The tiny model of the repository on two threads.
fn machine() -> &'static Machine {
    static MACHINE: LazyLock<Machine> =
        LazyLock::new(|| Machine::new(model(), Pool::new(2, InstructionSet::detect())));
    &MACHINE
}

/// Wide limits; tests narrow one.
fn limits() -> SchedulerLimits {
    SchedulerLimits {
        context: 512,
        step_tokens: 64,
        cost: Cost::FLAT,
        running: 8,
        blocks: 512,
        patience: Duration::from_secs(25),
    }
}

fn waiting() -> WaitingLimits {
    WaitingLimits { answers: 10_000, of_payer: 10_000, tokens: 1 << 20, running: 8 }
}

/// FNV-1a over bits of floats: equal only for equal bits, for what a test needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Bits(u64);

impl Bits {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn take(&mut self, floats: &[f32]) {
        for float in floats {
            self.0 = (self.0 ^ u64::from(float.to_bits())).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

/// A scheduler with a clock of its own and a note of all logits.
struct World<'m> {
    scheduler: Scheduler<'m>,
    lobby: Arc<Lobby>,
    limits: SchedulerLimits,
    now: Duration,
    next_id: u64,
    seen: BTreeMap<u64, Bits>,
    /// A device chooses tokens, whose logits nobody sees.
    on_device: bool,
}

impl World<'static> {
    fn new(limits: SchedulerLimits) -> Self {
        Self::on(machine(), limits, waiting())
    }
}

impl<'m> World<'m> {
    fn on(machine: &'m Machine, limits: SchedulerLimits, waiting: WaitingLimits) -> Self {
        let lobby = Lobby::new(waiting);
        let scheduler = Scheduler::new(machine, Arc::clone(&lobby), limits);
        Self::of(scheduler, lobby, limits, false)
    }

    fn of(scheduler: Scheduler<'m>, lobby: Arc<Lobby>, limits: SchedulerLimits, on_device: bool) -> Self {
        let (now, next_id, seen) = (Duration::ZERO, 0, BTreeMap::new());
        Self { scheduler, lobby, limits, now, next_id, seen, on_device }
    }

    /// The answer, and the number that its first choice has; the others have the numbers behind it.
    fn submit(&mut self, request: Request) -> Result<(u64, Answer), SubmitError> {
        request.check(machine().model.vocab_size(), self.limits.context)?;
        let choices = u64::from(request.choices);
        let answer = self.lobby.enter(request)?;
        let id = self.next_id;
        self.next_id += choices;
        Ok((id, answer))
    }

    fn step(&mut self) -> Progress {
        self.now += Duration::from_millis(1);
        let seen = &mut self.seen;
        let progress = self.scheduler.step(self.now, &mut |id, logits| {
            seen.entry(id).or_insert_with(Bits::new).take(logits);
        });
        self.check();
        progress
    }

    /// What always holds.
    fn check(&self) {
        let status = self.scheduler.status();
        assert!(status.running <= self.limits.running);
        assert!(status.held_blocks + status.cached_blocks <= self.limits.blocks);
        for job in self.scheduler.jobs.values() {
            assert!(job.tokens.len() <= self.limits.context && job.computed <= job.tokens.len());
            assert!(job.computed <= job.table.room());
        }
    }

    /// Steps until nothing is left to do.
    fn run_dry(&mut self) {
        for _ in 0..100_000 {
            if matches!(self.step(), Progress::Idle(_)) {
                return;
            }
        }
        panic!("it does not end");
    }

    /// Nothing is left of anybody.
    fn assert_empty(&self) {
        let status = self.lobby.status();
        assert_eq!((status.running, status.waiting, status.held_blocks), (0, 0, 0), "{status:?}");
        assert_eq!(status.payers, 0, "nobody is remembered when nobody is here");
        assert!(self.scheduler.jobs.is_empty());
    }
}

/// What a reader has of one choice.
#[derive(Clone, Default, Debug, PartialEq)]
struct Read {
    tokens: Vec<u32>,
    text: String,
    outcome: Option<Result<Finish, GenerateError>>,
}

/// What a reader has of a request.
#[derive(Default)]
struct Reading {
    choices: BTreeMap<u32, Read>,
    started: Vec<usize>,
    read: Vec<usize>,
}

impl Reading {
    /// Takes what is there.
    fn take(&mut self, answer: &mut Answer) {
        while let Some(event) = answer.try_next() {
            match event {
                Event::Started { cached_tokens } => self.started.push(cached_tokens),
                Event::Read { prompt_tokens } => self.read.push(prompt_tokens),
                Event::Token { choice, token, text, .. } => {
                    let read = self.choices.entry(choice).or_default();
                    read.tokens.push(token);
                    read.text.push_str(&text);
                }
                Event::Text { choice, text } => self.choices.entry(choice).or_default().text.push_str(&text),
                Event::End { choice, outcome } => {
                    let read = self.choices.entry(choice).or_default();
                    assert_eq!(read.outcome.replace(outcome), None, "an answer ends once");
                }
            }
        }
    }
}

/// Tokens of words that the tiny model knows.
fn prompt(text: &str) -> Vec<u32> {
    machine().model.tokenizer().encode(text, true)
}

fn sampled(seed: u64, max_tokens: usize) -> Params {
    let sampling = Sampling { seed, temperature: 0.9, ..Sampling::default() };
    Params { sampling, max_tokens, ..Params::default() }
}

/// The same request by a [`Sequence`] that is alone: tokens, how it ended, and the hash of the logits at each choice.
fn alone(prompt: &[u32], params: &Params, choice: u32, context: usize) -> (Vec<u32>, Finish, Bits) {
    let tokenizer = machine().model.tokenizer();
    let mut sequence = Sequence::new(machine(), context);
    let sampler = Sampler::new(params.sampling, tokenizer.end_tokens()).expect("in range");
    let mut sampler = sampler.for_choice(choice).with_bias(&params.logit_bias);
    sampler.observe(prompt);
    sequence.prefill(prompt).expect("it fits");
    let (mut tokens, mut bits) = (Vec::new(), Bits::new());
    loop {
        bits.take(sequence.logits());
        if tokens.len() >= params.max_tokens {
            return (tokens, Finish::Length, bits);
        }
        let token = sampler.choose(sequence.logits()).expect("numbers");
        if tokenizer.end_tokens().contains(&token) && !params.ignore_eos {
            return (tokens, Finish::Stop, bits);
        }
        tokens.push(token);
        if tokens.len() >= params.max_tokens || sequence.len() + 1 >= context {
            return (tokens, Finish::Length, bits);
        }
        sequence.prefill(&[token]).expect("it fits");
    }
}
