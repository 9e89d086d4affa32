//! Runs a request again, and stops at the first token that is another.

use std::fmt;
use std::sync::Arc;

use cocoon_engine::{
    Constraint, Engine, EngineOptions, Event, Finish, GenerateError, Model, Params, Request, Sampling,
    SubmitError,
};
use cocoon_grammar::{Grammar, Grammars};
use cocoon_protocol::{Outcome, Run, Written};
use serde::Serialize;

use super::{Stop, Word};
use crate::ui::{Screen, printable};

/// Room in the context beyond what the run needs, so that its own limit ends it and not ours.
const SPARE: usize = 16;

/// How far it went.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Compared {
    /// Tokens that are the same.
    pub(super) tokens: usize,
    pub(super) difference: Option<Difference>,
}

/// Where two runs part.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Difference {
    /// Of which answer, from 0.
    pub(super) choice: u32,
    /// Which of its tokens, from 0.
    pub(super) position: usize,
    /// What the receipt commits to.
    pub(super) expected: Said,
    /// What this engine says.
    pub(super) found: Said,
}

/// What a run has in one place.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Said {
    /// A token, by its number.
    Token(u32),
    /// No more, for this reason.
    End(Outcome),
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(token) => write!(f, "token {token}"),
            Self::End(outcome) => write!(f, "the end ({})", format!("{outcome:?}").to_lowercase()),
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { choice, position, expected, found } = self;
        write!(
            f,
            "answer {choice}, position {position}: the receipt has {expected}, this engine says {found}"
        )
    }
}

/// Runs it on this machine, with so many threads; 0 takes one for each core.
pub(super) fn compare(model: Model, run: &Run, threads: u32, screen: &Screen) -> Result<Compared, Stop> {
    let mut follower = Follower::new(&run.written);
    let engine = engine(model, run, threads);
    let different = |why: String| Stop::new(Word::Different, why);
    let request = request(run).with_constraints(constraints(engine.model(), run)?);
    let answer = engine.submit(request).map_err(|error| match error {
        SubmitError::Invalid(error) => {
            different(format!("this engine refuses the request, which cannot have been answered: {error}"))
        }
        other => Stop::new(Word::Unavailable, other.to_string()),
    })?;
    for event in answer {
        if follower.is_done() {
            break;
        }
        let difference = match event {
            Event::Read { prompt_tokens } => {
                screen
                    .progress(&format!("reading the prompt: {prompt_tokens} of {} tokens", run.prompt.len()));
                None
            }
            Event::Token { choice, token, .. } => follower.token(choice, token),
            Event::End { choice, outcome } => follower.end(choice, outcome).map_err(|error| {
                different(format!("answer {choice}: this engine ends it with an error: {error}"))
            })?,
            Event::Started { .. } | Event::Text { .. } => None,
        };
        let tokens = follower.compared();
        if difference.is_some() {
            return Ok(Compared { tokens, difference });
        }
        screen.progress(&format!("{tokens} of {} tokens are the same", run.completion_tokens()));
    }
    match follower.is_done() {
        true => Ok(Compared { tokens: follower.compared(), difference: None }),
        false => Err(Stop::new(Word::Unavailable, "the engine ended before the answer did")),
    }
}

/// With a cache for this request alone.
fn engine(model: Model, run: &Run, threads: u32) -> Engine {
    let wanted = run.prompt.len().saturating_add(run.sampling.max_tokens as usize).saturating_add(SPARE);
    let mut options = EngineOptions::with_threads(threads as usize);
    options.max_context = wanted.min(model.context_length());
    options.max_running = run.written.len();
    options.cache_bytes = EngineOptions::bytes_of_context(&model, options.max_context + SPARE)
        .saturating_mul(run.written.len());
    Engine::new(Arc::new(model), options)
}

/// What may come next, by the same grammar as then.
fn constraints(model: &Model, run: &Run) -> Result<Vec<Box<dyn Constraint>>, Stop> {
    let Some(kept) = &run.grammar else { return Ok(Vec::new()) };
    let different = |why: &str| {
        Stop::new(
            Word::Different,
            format!("no answer can have been held to the grammar that the run holds: {why}"),
        )
    };
    let grammar = Grammar::from_bytes(kept).ok_or_else(|| different("it is none"))?;
    let choices = u32::try_from(run.written.len()).expect("a run has at most 16 answers");
    Grammars::default()
        .constraints(model, &grammar, choices)
        .map_err(|error| different(&printable(&error.to_string())))
}

fn request(run: &Run) -> Request {
    let cocoon_protocol::Sampling {
        seed,
        temperature,
        top_p,
        top_k,
        min_p,
        repetition_penalty,
        presence_penalty,
        frequency_penalty,
        max_tokens,
    } = run.sampling;
    let sampling = Sampling {
        temperature,
        top_p,
        top_k,
        min_p,
        repetition_penalty,
        presence_penalty,
        frequency_penalty,
        seed,
    };
    let params = Params {
        sampling,
        max_tokens: max_tokens as usize,
        stop: run.stop.clone(),
        logit_bias: run.logit_bias.clone(),
        ..Params::default()
    };
    let choices = u32::try_from(run.written.len()).expect("a run has at most 16 answers");
    Request::new(run.prompt.to_vec(), params).with_choices(choices)
}

/// Goes along the answers of a run, each in its own time.
struct Follower<'r> {
    written: &'r [Written],
    /// Of each: tokens that were heard and are the same, and whether it is at its end.
    heard: Vec<(usize, bool)>,
}

impl<'r> Follower<'r> {
    fn new(written: &'r [Written]) -> Self {
        let heard = written.iter().map(|it| (0, is_cut(it.outcome) && it.tokens.is_empty())).collect();
        Self { written, heard }
    }

    fn is_done(&self) -> bool {
        self.heard.iter().all(|(_, ended)| *ended)
    }

    fn compared(&self) -> usize {
        self.heard.iter().map(|(tokens, _)| tokens).sum()
    }

    fn token(&mut self, choice: u32, token: u32) -> Option<Difference> {
        let (written, (position, ended)) = self.at(choice);
        let expected = match written.tokens.get(*position) {
            Some(expected) if *expected == token => {
                *position += 1;
                *ended = is_cut(written.outcome) && *position == written.tokens.len();
                return None;
            }
            Some(expected) => Said::Token(*expected),
            None if *ended => return None,
            None => Said::End(written.outcome),
        };
        Some(Difference { choice, position: *position, expected, found: Said::Token(token) })
    }

    fn end(
        &mut self,
        choice: u32,
        outcome: Result<Finish, GenerateError>,
    ) -> Result<Option<Difference>, GenerateError> {
        let (written, (position, ended)) = self.at(choice);
        if *ended {
            return Ok(None);
        }
        let found = match outcome? {
            Finish::Stop => Outcome::Stop,
            Finish::Length => Outcome::Length,
            Finish::Cancelled => Outcome::Cancelled,
        };
        let expected = match written.tokens.get(*position) {
            Some(expected) => Said::Token(*expected),
            None if written.outcome == found => {
                *ended = true;
                return Ok(None);
            }
            None => Said::End(written.outcome),
        };
        Ok(Some(Difference { choice, position: *position, expected, found: Said::End(found) }))
    }

    fn at(&mut self, choice: u32) -> (&'r Written, &mut (usize, bool)) {
        // The engine numbers the answers that were asked for.
        let choice = choice as usize;
        (&self.written[choice], &mut self.heard[choice])
    }
}

/// Broken off: there is nothing to say about how it would have gone on.
fn is_cut(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Cancelled | Outcome::Error)
}
