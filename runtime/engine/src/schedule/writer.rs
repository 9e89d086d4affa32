//! What makes an answer of logits: sampling, constraint, stop strings, limits. One writer for each choice.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use zeroize::Zeroizing;

use super::answer::{Event, Finish};
use crate::{
    accelerator::Pick,
    constraint::{Constraint, ConstraintError, TokenMask},
    error::GenerateError,
    logprobs::Logprobs,
    model::Model,
    request::Params,
    sampling::Sampler,
    text::StopFilter,
    tokenizer::TextStream,
};

/// A constraint with the mask that it writes.
type Constrained = (Box<dyn Constraint>, TokenMask);

pub(crate) struct Writer<'m> {
    params: Arc<Params>,
    choice: u32,
    sampler: Sampler,
    constrained: Option<Constrained>,
    text: StopFilter<'m>,
    /// Tokens that end an answer.
    ends: &'m [u32],
    /// Tokens of the answer so far.
    written: usize,
}

/// What one step of an answer comes to.
pub(crate) struct Spoken {
    /// For the reader, the end among them if it is one.
    pub(crate) events: Vec<Event>,
    /// The token that the answer goes on with; `None` at its end.
    pub(crate) token: Option<u32>,
}

/// What a writer goes on by.
#[derive(Clone, Copy)]
pub(crate) enum Given<'l> {
    /// The logits after all tokens so far.
    Logits(&'l [f32]),
    /// The token that a device chose as [`Writer::pick`] said; `None` where its logits are no numbers.
    Token(Option<u32>),
}

impl<'m> Writer<'m> {
    /// For one choice of a request whose parameters were checked.
    pub(crate) fn new(
        model: &'m Model,
        params: Arc<Params>,
        choice: u32,
        prompt: &[u32],
        constraint: Option<Box<dyn Constraint>>,
    ) -> Self {
        let tokenizer = model.tokenizer();
        let sampler = Sampler::new(params.sampling, tokenizer.end_tokens()).expect("checked when it came in");
        let mut sampler = sampler.for_choice(choice).with_bias(&params.logit_bias);
        sampler.observe(prompt);
        Self {
            choice,
            sampler,
            constrained: constraint.map(|constraint| (constraint, TokenMask::all(model.vocab_size()))),
            text: StopFilter::new(TextStream::new(tokenizer), params.stop.clone()),
            ends: tokenizer.end_tokens(),
            written: 0,
            params,
        }
    }

    /// Which choice of its request it writes.
    pub(crate) fn choice(&self) -> u32 {
        self.choice
    }

    /// Gives memory back that it does not need before its next turn.
    pub(crate) fn rest(&mut self) {
        self.sampler.rest();
    }

    /// What it needs to be given by a device: a token where that can choose it, and logits otherwise.
    pub(crate) fn pick(&self) -> Pick {
        if self.constrained.is_some() || self.params.logprobs.is_some() {
            return Pick::Logits;
        }
        self.sampler.next_choice().map_or(Pick::Logits, Pick::Token)
    }

    /// Chooses a token by what was computed after all tokens so far, where `room` more fit the context, at least one.
    pub(crate) fn next(&mut self, given: Given<'_>, room: usize) -> Spoken {
        if self.written >= self.params.max_tokens {
            return self.end(Vec::new(), Ok(Finish::Length));
        }
        let (token, logprobs) = match self.choose(given) {
            Ok(chosen) => chosen,
            Err(error) => return self.end(Vec::new(), Err(error)),
        };
        if self.ends.contains(&token) && !self.params.ignore_eos {
            return self.end(Vec::new(), Ok(Finish::Stop));
        }
        self.written += 1;
        let stopped = self.text.push(token);
        let text = Zeroizing::new(self.text.ready().to_owned());
        let events = vec![Event::Token { choice: self.choice, token, text, logprobs }];
        if stopped {
            return self.stop(events);
        }
        if self.written >= self.params.max_tokens || room <= 1 {
            return self.end(events, Ok(Finish::Length));
        }
        Spoken { events, token: Some(token) }
    }

    fn choose(&mut self, given: Given<'_>) -> Result<(u32, Option<Logprobs>), GenerateError> {
        let logits = match given {
            Given::Logits(logits) => logits,
            Given::Token(token) => {
                let token = token.ok_or(GenerateError::NotANumber)?;
                self.sampler.accept(token);
                return Ok((token, None));
            }
        };
        let mask = match &mut self.constrained {
            None => None,
            Some((constraint, mask)) => {
                mask.allow_all();
                guarded(|| constraint.mask(mask))?;
                Some(&*mask)
            }
        };
        let token = self.sampler.choose_among(logits, mask)?;
        if let Some((constraint, _)) = self.constrained.as_mut().filter(|_| !self.ends.contains(&token)) {
            guarded(|| constraint.accept(token))?;
        }
        let logprobs = self.params.logprobs.map(|top| Logprobs::of(logits, token, top)).transpose()?;
        Ok((token, logprobs))
    }

    /// Ends at a stop string: what is held back is that string.
    fn stop(&self, mut events: Vec<Event>) -> Spoken {
        events.push(Event::End { choice: self.choice, outcome: Ok(Finish::Stop) });
        Spoken { events, token: None }
    }

    /// Ends, and gives out what was held back.
    fn end(&mut self, mut events: Vec<Event>, outcome: Result<Finish, GenerateError>) -> Spoken {
        self.text.finish();
        if !self.text.ready().is_empty() {
            let text = Zeroizing::new(self.text.ready().to_owned());
            events.push(Event::Text { choice: self.choice, text });
        }
        events.push(Event::End { choice: self.choice, outcome });
        Spoken { events, token: None }
    }
}

/// Foreign code: what it throws ends its own request alone.
fn guarded(call: impl FnOnce() -> Result<(), ConstraintError>) -> Result<(), GenerateError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(done) => done.map_err(|ConstraintError(reason)| GenerateError::Constraint(reason)),
        Err(_) => Err(GenerateError::Constraint("it panicked")),
    }
}
