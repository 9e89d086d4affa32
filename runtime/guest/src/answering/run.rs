//! The engine's events, told as they come.

use super::plan::Plan;
use super::refusals::{draining, of_generate, of_submit};
use super::{Out, embedded, now_ms};
use crate::openai::{Refusal, Said, Voice};
use cocoon_engine::{Answer as EngineAnswer, Event, Finish};
use cocoon_protocol::{AnswerEvent, Outcome, Usage};
use std::ops::ControlFlow;
use std::task::{Context, Poll};

/// How an answer went.
enum Course {
    /// To its end.
    Ended(Outcome),
    /// The reader left, or takes nothing, or this worker ends.
    BrokenOff,
    /// There is none.
    Refused(Refusal),
}

impl Plan {
    pub(super) async fn run(self, mut out: Out<'_>, came_ms: u64) -> (Outcome, Usage) {
        let Self { requests, prompt_tokens, choices, mut voice, record } = self;
        out.record = record;
        let submitted: Result<Vec<_>, _> =
            requests.into_iter().map(|request| embedded(out.guest).submit(request)).collect();
        let answers = match submitted {
            Ok(answers) => Answers { answers, choices, prompt_tokens, next: 0 },
            Err(error) => return out.refuse(of_submit(&error), came_ms).await,
        };
        let mut started_ms = came_ms;
        let outcome = match out.follow(answers, voice.as_mut(), &mut started_ms).await {
            Course::Refused(refusal) => return out.refuse(refusal, started_ms).await,
            Course::BrokenOff => Outcome::Cancelled,
            Course::Ended(outcome) => match out.tell(voice.close(out.usage)).await {
                ControlFlow::Continue(()) => outcome,
                ControlFlow::Break(()) => Outcome::Cancelled,
            },
        };
        out.end(outcome, started_ms).await
    }
}

/// The answers to all prompts of a request, as they are made. Dropping it cancels what is not finished.
struct Answers {
    answers: Vec<EngineAnswer>,
    /// Answers to each prompt.
    choices: u32,
    /// Of each prompt.
    prompt_tokens: Vec<u32>,
    /// Which prompt is looked at first: they take turns.
    next: usize,
}

impl Answers {
    /// The next event of any, with the prompt that it is of; `None` after the last.
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<(usize, Event)>> {
        let (count, mut finished) = (self.answers.len(), 0);
        for turn in 0..count {
            let prompt = (self.next + turn) % count;
            match self.answers[prompt].poll_next(context) {
                Poll::Ready(Some(event)) => {
                    self.next = prompt + 1;
                    return Poll::Ready(Some((prompt, event)));
                }
                Poll::Ready(None) => finished += 1,
                Poll::Pending => {}
            }
        }
        if finished == count { Poll::Ready(None) } else { Poll::Pending }
    }
}

/// What the engine's next event is, seen from the reader's side.
enum Next {
    Event(usize, Event),
    Finished,
    /// The reader left or this worker ends.
    Gone,
}

impl Out<'_> {
    /// The next event. Where the reader is gone, what is not finished is cancelled when it is dropped.
    async fn next(&mut self, answers: &mut Answers) -> Next {
        let next = tokio::select! {
            biased;
            () = self.left() => Next::Gone,
            event = std::future::poll_fn(|context| answers.poll_next(context)) => match event {
                Some((prompt, event)) => Next::Event(prompt, event),
                None => Next::Finished,
            },
        };
        if let (Some(record), Next::Event(_, event)) = (&mut self.record, &next) {
            record.hear(event);
        }
        next
    }

    /// Passes on what is written.
    async fn follow(&mut self, mut answers: Answers, voice: &mut dyn Voice, started_ms: &mut u64) -> Course {
        let (mut begun, mut cut) = (false, false);
        loop {
            let (prompt, event) = match self.next(&mut answers).await {
                Next::Event(prompt, event) => (prompt, event),
                Next::Finished => break,
                Next::Gone if !begun && self.guest.is_draining() => return Course::Refused(draining()),
                Next::Gone => return Course::BrokenOff,
            };
            let index = |choice: u32| prompt as u32 * answers.choices + choice;
            let flow = match event {
                Event::Started { cached_tokens } => {
                    self.charge(answers.prompt_tokens[prompt], cached_tokens);
                    let flow = self.emit(AnswerEvent::Tick).await;
                    let first = !std::mem::replace(&mut begun, true);
                    if first {
                        *started_ms = now_ms();
                    }
                    let heads = if first && flow.is_continue() { voice.begin() } else { Vec::new() };
                    if flow.is_break() { flow } else { self.tell(heads).await }
                }
                Event::Read { .. } => ControlFlow::Continue(()),
                Event::Token { choice, token, text, logprobs } => {
                    self.usage.completion_tokens = self.usage.completion_tokens.saturating_add(1);
                    let token = logprobs.as_ref().map(|logprobs| (token, logprobs));
                    self.tell(voice.say(Said { choice: index(choice), text: &text, token })).await
                }
                Event::Text { choice, text } => {
                    self.tell(voice.say(Said { choice: index(choice), text: &text, token: None })).await
                }
                Event::End { outcome: Ok(Finish::Cancelled), .. } => return Course::BrokenOff,
                Event::End { choice, outcome: Ok(finish) } => {
                    cut |= finish == Finish::Length;
                    self.tell(voice.end(index(choice), finish)).await
                }
                Event::End { outcome: Err(error), .. } => return Course::Refused(of_generate(&error)),
            };
            if flow.is_break() {
                return Course::BrokenOff;
            }
        }
        Course::Ended(if cut { Outcome::Length } else { Outcome::Stop })
    }
}
