//! One answer of a supervised child: the request read and checked as any other, then asked in the child's own words.

use crate::Guest;
use crate::answering::{Out, draining, now_ms, random};
use crate::openai::{self, Asked, Call, Format, Naming, Refusal, Said, Voice};
use crate::serving::ChildEngine;
use crate::sink::Sink;
use cocoon_engine::{Finish as EngineFinish, Sampling as EngineSampling};
use cocoon_protocol::http::code;
use cocoon_protocol::{AnswerEvent, Budget, Endpoint, Opened, Outcome, Prompt, Usage};
use cocoon_supervisor::{AnswerStream, Dialect, Event, Failure, Finish, Message, Question, Salt};
use ring::hmac;
use std::ops::ControlFlow;

/// Part of the context that an answer may take where its request does not say: the prompt's tokens are not known here.
const SHARE_OF_CONTEXT: u32 = 4;

struct Plan {
    question: Question,
    voice: Box<dyn Voice>,
}

/// Answers one request; all that is said goes through `sink`, sealed.
pub(crate) async fn answer(guest: &Guest, child: &ChildEngine, opened: Opened, sink: Sink) {
    let Opened { header, endpoint, prompt, answer } = opened;
    let came_ms = now_ms();
    let naming = Naming {
        id: hex::encode(header.request_id),
        created: came_ms / 1000,
        model: guest.config.model.name.clone(),
        fingerprint: guest.fingerprint.clone(),
    };
    let mut out = Out::new(guest, answer, sink, child.identity());
    let (outcome, usage) = match plan(guest, child, &header.budget, (endpoint, prompt), naming) {
        Err(refusal) => out.refuse(refusal, came_ms).await,
        Ok(Plan { question, mut voice }) => {
            match run(&mut out, child, &question, &header.budget, voice.as_mut()).await {
                Course::Refused(refusal) => out.refuse(refusal, came_ms).await,
                Course::BrokenOff => out.end(Outcome::Cancelled, came_ms).await,
                Course::Ended(outcome) => match out.tell(voice.close(out.usage)).await {
                    ControlFlow::Continue(()) => out.end(outcome, came_ms).await,
                    ControlFlow::Break(()) => out.end(Outcome::Cancelled, came_ms).await,
                },
            }
        }
    };
    tracing::info!(
        prompt_tokens = usage.prompt_tokens,
        completion_tokens = usage.completion_tokens,
        ?outcome,
        milliseconds = now_ms().saturating_sub(came_ms),
        "answered by the child"
    );
}

enum Course {
    Ended(Outcome),
    BrokenOff,
    Refused(Refusal),
}

fn plan(
    guest: &Guest,
    child: &ChildEngine,
    budget: &Budget,
    (endpoint, prompt): (Endpoint, Prompt),
    naming: Naming,
) -> Result<Plan, Refusal> {
    if guest.is_draining() {
        return Err(draining());
    }
    let seed = u64::from_le_bytes(random());
    if endpoint != Endpoint::ChatCompletions {
        let message = "this worker's engine answers chat completions alone; ask another worker";
        return Err(Refusal::new(400, "unsupported_endpoint", message));
    }
    let Asked::Text(mut call) = openai::read(endpoint, prompt.expose(), seed)? else {
        return Err(Refusal::server(500, "internal", "a chat is text"));
    };
    drop(prompt);
    asks_no_more(&call)?;
    let voice = call.voice(naming, None);
    let Call { prompts, options, max_tokens, .. } = *call;
    let Some(openai::Prompt::Chat(conversation)) = prompts.into_iter().next() else {
        return Err(Refusal::server(500, "internal", "a chat has messages"));
    };
    let messages = conversation.plain();
    let mut sampling = options.sampling;
    if child.config().dialect == Dialect::Openai
        && sampling.repetition_penalty == EngineSampling::default().repetition_penalty
    {
        sampling.repetition_penalty = 1.0; // our own default, which this server does not know
    }
    let share = u32::try_from(guest.config.max_context).unwrap_or(u32::MAX) / SHARE_OF_CONTEXT;
    let max_tokens = max_tokens.unwrap_or(share.max(1)).min(budget.completion_tokens);
    if max_tokens == 0 {
        let message = "the budget allows no completion token: allow some";
        return Err(Refusal::new(400, "budget_exceeded", message));
    }
    let question = Question {
        messages: messages.into_iter().map(|it| Message { role: it.role, content: it.content }).collect(),
        max_tokens,
        temperature: sampling.temperature,
        top_p: sampling.top_p,
        top_k: sampling.top_k,
        min_p: sampling.min_p,
        repetition_penalty: sampling.repetition_penalty,
        presence_penalty: sampling.presence_penalty,
        frequency_penalty: sampling.frequency_penalty,
        seed: sampling.seed,
        stop: options.stop,
        logit_bias: options.logit_bias,
        salt: salt(child, options.cache_salt.as_ref().map(|salt| salt.as_bytes())),
    };
    if child.config().dialect == Dialect::Openai && question.asks_more() {
        let message =
            "top_k, min_p and repetition_penalty are not known to this worker's engine; leave them out";
        return Err(Refusal::new(400, "unsupported_parameter", message));
    }
    Ok(Plan { question, voice })
}

/// What the embedded engine does and a child is not asked for.
fn asks_no_more(call: &Call) -> Result<(), Refusal> {
    let asked = [
        ("n", call.options.choices != 1),
        ("logprobs", call.logprobs.is_some()),
        ("response_format", !matches!(call.format, Format::Free)),
        ("tools", call.tools.is_some()),
    ];
    match asked.into_iter().find(|(_, asked)| *asked) {
        Some((field, _)) => Err(Refusal::unsupported(field, "this worker's engine is not asked for it")),
        None => Ok(()),
    }
}

/// The same for the same secret, and without one never the same again: so nobody meets what another asked.
fn salt(child: &ChildEngine, secret: Option<&[u8]>) -> Salt {
    let once = [random(), random()].concat();
    let tag = match secret {
        Some(secret) => hmac::sign(&child.salts, &[b"secret", secret].concat()),
        None => hmac::sign(&child.salts, &[b"once", once.as_slice()].concat()),
    };
    Salt(tag.as_ref().try_into().expect("HMAC-SHA-256 gives 32 bytes"))
}

async fn run(
    out: &mut Out<'_>,
    child: &ChildEngine,
    question: &Question,
    budget: &Budget,
    voice: &mut dyn Voice,
) -> Course {
    let Some(supervisor) = child.supervisor() else {
        return Course::Refused(busy("the engine is not started"));
    };
    let mut answer = tokio::select! {
        biased;
        () = out.left() => return if out.guest.is_draining() { Course::Refused(draining()) } else { Course::BrokenOff },
        asked = supervisor.ask(question) => match asked {
            Ok(answer) => answer,
            Err(error) => return Course::Refused(busy(&error.to_string())),
        },
    };
    let mut flow = out.emit(AnswerEvent::Tick).await;
    if flow.is_continue() {
        flow = out.tell(voice.begin()).await;
    }
    while flow.is_continue() {
        flow = match next(out, &mut answer).await {
            None => break,
            Some(Event::End(Ok((finish, usage)))) => {
                out.usage = within(budget, usage);
                let (finish, outcome) = match finish {
                    Finish::Length => (EngineFinish::Length, Outcome::Length),
                    Finish::Stop => (EngineFinish::Stop, Outcome::Stop),
                };
                if out.tell(voice.end(0, finish)).await.is_break() {
                    break;
                }
                return Course::Ended(outcome);
            }
            Some(Event::End(Err(failure))) => return Course::Refused(refusal(failure)),
            Some(Event::Piece { text, usage }) => {
                out.usage = within(budget, usage);
                out.tell(voice.say(Said { choice: 0, text: &text, token: None })).await
            }
        };
    }
    Course::BrokenOff
}

/// `None` when the reader left or this worker ends; the answer is cancelled when it is dropped.
async fn next(out: &Out<'_>, answer: &mut AnswerStream) -> Option<Event> {
    tokio::select! {
        biased;
        () = out.left() => None,
        event = answer.next() => event,
    }
}

/// Nobody owes more than was agreed to, whatever a child counts.
fn within(budget: &Budget, usage: cocoon_supervisor::Usage) -> Usage {
    let prompt_tokens = usage.prompt_tokens.min(budget.prompt_tokens);
    Usage {
        prompt_tokens,
        cached_tokens: usage.cached_tokens.min(prompt_tokens),
        completion_tokens: usage.completion_tokens.min(budget.completion_tokens),
    }
}

fn busy(message: &str) -> Refusal {
    Refusal::server(503, code::BUSY, message)
}

fn refusal(failure: Failure) -> Refusal {
    match failure {
        Failure::Refused(_) => Refusal::new(400, "invalid_value", failure.to_string()),
        _ => Refusal::server(502, "engine", failure.to_string()),
    }
}
