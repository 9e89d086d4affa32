//! One answer: from a question to a bounded stream of events.

use crate::config::ChildConfig;
use crate::http::{Begun, Line, LineError, Lines, post};
use crate::request::Question;
use crate::supervisor::{Live, State};
use crate::tally::{Tally, Violation};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use zeroize::Zeroizing;

/// Events that may wait for their reader. Beyond, the child is read no further.
const EVENTS: usize = 16;

/// Tokens, by class, as the child says. A bill is made of them by nobody, see `Counting`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Of the prompt; 0 until the child has told, see [`crate::Dialect`].
    pub prompt_tokens: u32,
    /// Of those, met in a cache.
    pub cached_tokens: u32,
    /// Of the answer.
    pub completion_tokens: u32,
}

/// Why an answer ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model, or a stop string.
    Stop,
    /// `max_tokens`.
    Length,
}

/// Why an answer ended otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Failure {
    /// The child broke a rule.
    #[error("the engine misbehaved: {0}")]
    Violation(#[from] Violation),
    /// The child said nothing for too long.
    #[error("the engine wrote nothing for too long")]
    TimedOut,
    /// The whole answer took too long.
    #[error("the answer took too long as a whole: ask for fewer tokens")]
    TooLong,
    /// The child, or its connection, ended.
    #[error("the engine ended in the middle")]
    Gone,
    /// The child does not take this question (HTTP 4xx).
    #[error("the engine refuses the request with status {0}: shorten it, or ask for fewer tokens")]
    Refused(u16),
    /// The child failed (any other status).
    #[error("the engine failed with status {0}")]
    Status(u16),
}

/// What comes. It cannot be printed.
pub enum Event {
    /// Text, perhaps none, and what was counted by then.
    Piece {
        /// Text.
        text: Zeroizing<String>,
        /// So far.
        usage: Usage,
    },
    /// The last event.
    End(Result<(Finish, Usage), Failure>),
}

/// Why a question was not asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AskError {
    /// The child is in another state than ready.
    #[error("the engine is {0}: try again, or another worker")]
    NotReady(State),
}

/// An answer on its way. Dropping it closes the connection to the child, which cancels the answer there.
pub struct AnswerStream {
    events: mpsc::Receiver<Event>,
    task: JoinHandle<()>,
}

impl Drop for AnswerStream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl AnswerStream {
    /// Asks. `held` is given back when the answer has ended.
    pub(crate) fn start<H: Send + 'static>(
        config: Arc<ChildConfig>,
        live: Arc<Live>,
        question: &Question,
        held: H,
    ) -> Self {
        let (body, path) = (question.body(&config), question.path());
        let tally = Tally::new(&config, question.max_tokens, question.prompt_bound());
        let (sender, events) = mpsc::channel(EVENTS);
        let task = tokio::spawn(async move {
            let _held = held;
            let relay = Relay { config: &config, live: &live, tally, sender: &sender };
            let whole = Duration::from_secs(config.limits.answer);
            let outcome = timeout(whole, relay.run(path, &body)).await.unwrap_or(Some(Err(Failure::TooLong)));
            if let Some(outcome) = outcome {
                live.judge(&outcome, Duration::from_secs(config.limits.between_pieces));
                let _ = sender.send(Event::End(outcome)).await; // the reader may have left
            }
        });
        Self { events, task }
    }

    /// The next event; nothing after [`Event::End`].
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// As [`AnswerStream::next`], for hand-written futures.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Event>> {
        self.events.poll_recv(context)
    }
}

struct Relay<'a> {
    config: &'a ChildConfig,
    live: &'a Live,
    tally: Tally,
    sender: &'a mpsc::Sender<Event>,
}

type Outcome = Result<(Finish, Usage), Failure>;

impl Relay<'_> {
    /// `None` when the reader left.
    async fn run(mut self, path: &str, body: &Zeroizing<Vec<u8>>) -> Option<Outcome> {
        let deadline = Instant::now() + Duration::from_secs(self.config.limits.first_piece);
        let begun = match timeout_at(deadline, post(&self.live.reach, path, body)).await {
            Err(_) => return Some(Err(Failure::TimedOut)),
            Ok(Err(_)) => return Some(Err(Failure::Gone)),
            Ok(Ok(begun)) => begun,
        };
        match begun {
            Begun::Lines(lines) => self.follow(lines, deadline).await,
            Begun::Status(status @ 400..=499) => Some(Err(Failure::Refused(status))),
            Begun::Status(status) => Some(Err(Failure::Status(status))),
            Begun::NoStream => Some(Err(Violation::NotAStream.into())),
        }
    }

    async fn follow(&mut self, mut lines: Lines, mut deadline: Instant) -> Option<Outcome> {
        let mut completed = 0;
        loop {
            let line = match timeout_at(deadline, lines.next()).await {
                Err(_) => return Some(Err(Failure::TimedOut)),
                Ok(Err(LineError::Broken)) => return Some(Err(Failure::Gone)),
                Ok(Err(LineError::Violation(violation))) => return Some(Err(violation.into())),
                Ok(Ok(line)) => line,
            };
            let data = match line {
                Line::End => return Some(self.tally.end().map_err(Failure::from)),
                Line::Other(bytes) => match self.tally.received(bytes) {
                    Ok(()) => continue,
                    Err(violation) => return Some(Err(violation.into())),
                },
                Line::Data(data) => data,
            };
            let event = match self.tally.take(&data) {
                Ok(Some(event)) => event,
                Ok(None) => return Some(self.tally.end().map_err(Failure::from)),
                Err(violation) => return Some(Err(violation.into())),
            };
            let Event::Piece { text, usage } = &event else { continue };
            // Comments and empty chunks keep a connection open; only text and tokens are progress.
            let progress = !text.is_empty() || usage.completion_tokens > completed;
            completed = usage.completion_tokens;
            self.sender.send(event).await.ok()?;
            if progress {
                self.live.progressed();
                deadline = Instant::now() + Duration::from_secs(self.config.limits.between_pieces);
            }
        }
    }
}
