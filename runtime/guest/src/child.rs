//! One answer of a supervised child: the request read and checked as any other, then asked in the child's own words.

use crate::Guest;
use crate::answering::{Out, draining, now_ms, random, recorded};
use crate::chat::{self, ChatRequest, Refusal};
use crate::openai::Voice;
use crate::serving::ChildEngine;
use crate::sink::Sink;
use cocoon_engine::{Finish as EngineFinish, Sampling as EngineSampling};
use cocoon_protocol::http::{ApiError, code};
use cocoon_protocol::{AnswerEvent, Budget, Endpoint, Opened, Outcome, Prompt, Sampling, Usage};
use cocoon_supervisor::{AnswerStream, Dialect, Event, Failure, Finish, Message, Question, Salt};
use ring::hmac;
use zeroize::Zeroizing;

/// Part of the context that an answer may take where its request does not say: the prompt's tokens are not known here.
const SHARE_OF_CONTEXT: u32 = 4;

struct Plan {
    question: Question,
    sampling: Sampling,
    stream: bool,
    include_usage: bool,
}

/// Answers one request; all that is said goes through `sink`, sealed.
pub(crate) async fn answer(guest: &Guest, child: &ChildEngine, opened: Opened, sink: Sink) {
    let Opened { header, endpoint: Endpoint::ChatCompletions, prompt, answer } = opened;
    let came_ms = now_ms();
    let seed = u64::from_le_bytes(random());
    let mut out = Out::new(guest, answer, sink);
    let (outcome, usage) = match plan(guest, child, &header.budget, prompt, seed) {
        Err(refusal) => {
            let sampling = recorded(&EngineSampling { seed, ..EngineSampling::default() }, 0);
            out.refuse(refusal, sampling, came_ms).await
        }
        Ok(Plan { question, sampling, stream, include_usage }) => {
            let voice = Voice {
                id: format!("chatcmpl-{}", hex::encode(header.request_id)),
                created: came_ms / 1000,
                model: &guest.config.model.name,
                fingerprint: &guest.fingerprint,
                include_usage,
            };
            let mut content = Zeroizing::new(String::new());
            match run(&mut out, child, &question, &header.budget, (&voice, stream), &mut content).await {
                Course::Refused(refusal) => out.refuse(refusal, sampling, came_ms).await,
                Course::BrokenOff => out.end(Outcome::Cancelled, sampling, came_ms).await,
                Course::Ended(finish) => {
                    let outcome = out.conclude(stream, &voice, finish, &content).await;
                    out.end(outcome, sampling, came_ms).await
                }
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
    Ended(EngineFinish),
    BrokenOff,
    Refused(Refusal),
}

fn plan(
    guest: &Guest,
    child: &ChildEngine,
    budget: &Budget,
    prompt: Prompt,
    seed: u64,
) -> Result<Plan, Refusal> {
    if guest.is_draining() {
        return Err(draining());
    }
    let request = chat::parse(prompt.expose(), seed)?;
    drop(prompt);
    let ChatRequest { messages, stream, include_usage, mut sampling, stop, logit_bias, cache_salt, .. } =
        request;
    if child.config().dialect == Dialect::Openai
        && sampling.repetition_penalty == EngineSampling::default().repetition_penalty
    {
        sampling.repetition_penalty = 1.0; // our own default, which this server does not know
    }
    let share = u32::try_from(guest.config.max_context).unwrap_or(u32::MAX) / SHARE_OF_CONTEXT;
    let max_tokens = request.max_tokens.unwrap_or(share.max(1)).min(budget.completion_tokens);
    if max_tokens == 0 {
        return Err(Refusal::new(
            400,
            "budget_exceeded",
            "the budget allows no completion token: allow some",
        ));
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
        stop,
        logit_bias,
        salt: salt(child, cache_salt.as_ref().map(|salt| salt.as_bytes())),
    };
    if child.config().dialect == Dialect::Openai && question.asks_more() {
        let message =
            "top_k, min_p and repetition_penalty are not known to this worker's engine; leave them out";
        return Err(Refusal::new(400, "unsupported_parameter", message));
    }
    Ok(Plan { question, sampling: recorded(&sampling, max_tokens), stream, include_usage })
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
    (voice, stream): (&Voice<'_>, bool),
    content: &mut Zeroizing<String>,
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
    if stream && flow.is_continue() {
        flow = out.emit(AnswerEvent::Chunk(voice.role())).await;
    }
    while flow.is_continue() {
        match next(out, &mut answer).await {
            None => break,
            Some(Event::End(Ok((finish, usage)))) => {
                out.usage = within(budget, usage);
                let finish = if finish == Finish::Length { EngineFinish::Length } else { EngineFinish::Stop };
                return Course::Ended(finish);
            }
            Some(Event::End(Err(failure))) => return Course::Refused(refusal(failure)),
            Some(Event::Piece { text, usage }) => {
                out.usage = within(budget, usage);
                flow = if stream && !text.is_empty() {
                    out.emit(AnswerEvent::Chunk(voice.text(&text))).await
                } else {
                    content.push_str(&text);
                    out.tick().await
                };
            }
        }
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
    Refusal { status: 503, error: ApiError::server(code::BUSY, message.to_owned()) }
}

fn refusal(failure: Failure) -> Refusal {
    match failure {
        Failure::Refused(_) => Refusal::new(400, "invalid_value", failure.to_string()),
        _ => Refusal { status: 502, error: ApiError::server("engine", failure.to_string()) },
    }
}
