//! One answer of a supervised child: the request read and checked as any other, then asked in the child's own words.
//!
//! Where the guest has the model's tokenizer (`engine.counting = "tokens"`), the child is sent tokens: which template the prompt
//! goes through, and how many tokens it has, is then nothing that the child could say. What it counts of its answer is held
//! against the text, see [`crate::count`].

use crate::Guest;
use crate::answering::{Out, draining, now_ms, over_budget, random, read, within_budget};
use crate::count::Count;
use crate::openai::{self, Asked, Call, Format, Naming, Refusal, Said, Voice};
use crate::serving::ChildEngine;
use crate::sink::Sink;
use crate::turns::{Place, TooMany};
use cocoon_engine::Finish as EngineFinish;
use cocoon_engine::{Payer, Sampling as EngineSampling, Vocabulary};
use cocoon_protocol::http::code;
use cocoon_protocol::{AnswerEvent, Endpoint, Opened, Outcome, Prompt, RequestHeader, Usage};
use cocoon_supervisor::{
    AnswerStream, Dialect, Event, Failure, Finish, Message, Question, Said as Asks, Salt, State, Supervisor,
};
use ring::hmac;
use std::ops::ControlFlow;
use std::sync::Arc;
use zeroize::Zeroizing;

/// Part of the context that an answer may take where its request does not say and its prompt's tokens are not known here.
const SHARE_OF_CONTEXT: u32 = 4;

struct Plan {
    question: Question,
    /// Of the prompt, where the guest counts them.
    prompt_tokens: Option<u32>,
    voice: Box<dyn Voice>,
}

/// Answers one request; all that is said goes through `sink`, sealed.
pub(crate) async fn answer(
    guest: Arc<Guest>,
    child: Arc<ChildEngine>,
    opened: Opened,
    payer: Payer,
    sink: Sink,
) {
    let Opened { header, endpoint, prompt, answer } = opened;
    let came_ms = now_ms();
    let mut out = Out::new(&guest, answer, sink, child.identity());
    let planned = {
        let (guest, child, header) = (guest.clone(), child.clone(), header.clone());
        let plan = move || {
            Planning { guest: &guest, child: &child, header: &header }.plan(endpoint, prompt, came_ms)
        };
        read(&out, plan).await
    };
    let (outcome, usage) = match planned {
        Err(why) => out.not_begun(why, came_ms).await,
        Ok(Plan { question, prompt_tokens, mut voice }) => {
            let asking = Asking { child: &child, header: &header, question: &question, payer };
            match asking.run(&mut out, prompt_tokens, voice.as_mut()).await {
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

/// What a request is made a question with.
struct Planning<'a> {
    guest: &'a Guest,
    child: &'a ChildEngine,
    header: &'a RequestHeader,
}

impl Planning<'_> {
    fn plan(&self, endpoint: Endpoint, prompt: Prompt, came_ms: u64) -> Result<Plan, Refusal> {
        if self.guest.is_draining() {
            return Err(draining());
        }
        let vocabulary = self.child.vocabulary.as_deref();
        if endpoint == Endpoint::Completions && vocabulary.is_none() {
            let message = "this worker's engine answers conversations alone; ask another worker";
            return Err(Refusal::new(400, "unsupported_endpoint", message));
        }
        let Asked::Text(mut call) = openai::read(endpoint, prompt.expose(), u64::from_le_bytes(random()))?
        else {
            let message = "this worker writes text and makes no embeddings; ask another worker";
            return Err(Refusal::new(400, "unsupported_endpoint", message));
        };
        drop(prompt);
        asks_no_more(&call)?;
        let naming = Naming {
            id: hex::encode(self.header.request_id),
            created: came_ms / 1000,
            model: self.guest.config.model.name.clone(),
            fingerprint: self.guest.fingerprint.clone(),
        };
        let voice = call.voice(naming, None);
        let Call { prompts, options, max_tokens, .. } = *call;
        let prompt = prompts.into_iter().next();
        let prompt = prompt.ok_or_else(|| Refusal::server(500, "internal", "a request has a prompt"))?;
        let said = said(vocabulary, prompt)?;
        let prompt_tokens = match &said {
            Asks::Tokens(tokens) => Some(self.fits(tokens.len())?),
            Asks::Messages(_) => None,
        };
        let max_tokens = self.max_tokens(max_tokens, prompt_tokens)?;
        let sampling = self.sampling(options.sampling)?;
        let question = Question {
            said,
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
            salt: salt(self.child, options.cache_salt.as_ref().map(|salt| salt.as_bytes())),
        };
        Ok(Plan { question, prompt_tokens, voice })
    }

    fn context(&self) -> u32 {
        u32::try_from(self.guest.config.max_context).unwrap_or(u32::MAX)
    }

    /// A prompt leaves room in the context for a token, and is within the client's budget.
    fn fits(&self, tokens: usize) -> Result<u32, Refusal> {
        let context = self.context();
        if tokens >= context as usize {
            let message =
                format!("the prompt has {tokens} tokens, the context holds {context}: shorten the prompt");
            return Err(Refusal::new(400, "context_length_exceeded", message));
        }
        within_budget(self.header, tokens)?;
        Ok(u32::try_from(tokens).expect("within the context, a u32"))
    }

    /// Most tokens of the answer: what was asked for, the budget, what fits the context.
    fn max_tokens(&self, asked: Option<u32>, prompt_tokens: Option<u32>) -> Result<u32, Refusal> {
        let context = self.context();
        let (room, usual) = match prompt_tokens {
            Some(tokens) => (context - tokens, context - tokens),
            None => (context, (context / SHARE_OF_CONTEXT).max(1)),
        };
        let most = asked.unwrap_or(usual).min(room).min(self.header.budget.completion_tokens);
        if most > 0 {
            return Ok(most);
        }
        let message = "the budget allows no completion token: allow some";
        Err(Refusal::new(400, "budget_exceeded", message))
    }

    fn sampling(&self, mut sampling: EngineSampling) -> Result<EngineSampling, Refusal> {
        if self.child.config().dialect != Dialect::Openai {
            return Ok(sampling);
        }
        if sampling.repetition_penalty == EngineSampling::default().repetition_penalty {
            sampling.repetition_penalty = 1.0; // our own default, which this server does not know
        }
        if sampling.top_k == 0 && sampling.min_p == 0.0 && sampling.repetition_penalty == 1.0 {
            return Ok(sampling);
        }
        let message =
            "top_k, min_p and repetition_penalty are not known to this worker's engine; leave them out";
        Err(Refusal::new(400, "unsupported_parameter", message))
    }
}

/// What the child is asked: tokens, where there is a tokenizer for them.
fn said(vocabulary: Option<&Vocabulary>, prompt: openai::Prompt) -> Result<Asks, Refusal> {
    let tokens = match (vocabulary, prompt) {
        (None, openai::Prompt::Chat(conversation)) => {
            let plain = conversation.plain().into_iter();
            let messages = plain.map(|it| Message { role: it.role, content: it.content });
            return Ok(Asks::Messages(messages.collect()));
        }
        (None, _) => return Err(Refusal::server(500, "internal", "a conversation has messages")),
        (Some(vocabulary), openai::Prompt::Chat(conversation)) => {
            let text = conversation.render(vocabulary, None).map_err(|error| Refusal::from(&error))?;
            Zeroizing::new(vocabulary.tokenizer().encode(&text, true))
        }
        (Some(vocabulary), openai::Prompt::Text(text)) => vocabulary.text_tokens(&text),
        (Some(vocabulary), openai::Prompt::Tokens(tokens)) => {
            let known = vocabulary.tokenizer().vocab_size();
            if tokens.iter().any(|token| *token as usize >= known) {
                let message = format!("a token is none of the model's {known}: correct the prompt");
                return Err(Refusal::field("prompt", message));
            }
            Zeroizing::new(tokens)
        }
    };
    if tokens.is_empty() {
        return Err(Refusal::new(400, "invalid_value", "the prompt has no token: write something"));
    }
    Ok(Asks::Tokens(tokens))
}

/// What the embedded engine does and a child is not asked for.
fn asks_no_more(call: &Call) -> Result<(), Refusal> {
    let asked = [
        ("n", call.options.choices != 1),
        ("prompt", call.prompts.len() != 1),
        ("echo", call.echoes()),
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

/// One question on its way.
struct Asking<'a> {
    child: &'a ChildEngine,
    header: &'a RequestHeader,
    question: &'a Question,
    payer: Payer,
}

impl Asking<'_> {
    async fn run(&self, out: &mut Out<'_>, prompt_tokens: Option<u32>, voice: &mut dyn Voice) -> Course {
        let Some(supervisor) = self.child.supervisor() else {
            return Course::Refused(busy("the engine is not started"));
        };
        let (place, mut answer) = match self.begin(out, supervisor).await {
            Ok(begun) => begun,
            Err(course) => return course,
        };
        let mut meter = Meter {
            count: Count::new(self.child.vocabulary.as_ref()),
            header: self.header,
            prompt_tokens,
            in_advance: 0,
            place,
        };
        meter.charge_in_advance();
        let mut flow = out.emit(AnswerEvent::Tick).await;
        if flow.is_continue() {
            flow = out.tell(voice.begin()).await;
        }
        while flow.is_continue() {
            flow = match next(out, &mut answer).await {
                None => break,
                Some(Event::End(Ok((_, usage))) | Event::Piece { usage, .. }) if meter.is_over(usage) => {
                    return Course::Refused(over_budget(
                        self.header.budget.prompt_tokens,
                        usage.prompt_tokens as usize,
                    ));
                }
                Some(Event::End(Ok((finish, usage)))) => {
                    meter.note(out, "", usage);
                    if !meter.count.explains(usage.completion_tokens, finish, &self.question.stop) {
                        tracing::warn!("the engine counts more tokens than its text explains");
                        let message = "the engine counts more tokens than its text explains; what was sent is billed by our count";
                        return Course::Refused(Refusal::server(502, "engine_counts", message));
                    }
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
                    meter.note(out, &text, usage);
                    out.tell(voice.say(Said { choice: 0, text: &text, token: None })).await
                }
            };
        }
        Course::BrokenOff
    }

    /// Waits for the turn, then asks. Who leaves, and who came too late, has no turn.
    async fn begin(&self, out: &Out<'_>, supervisor: &Supervisor) -> Result<(Place, AnswerStream), Course> {
        let mut place = self.child.turns.enter(self.payer).map_err(|TooMany(most)| {
            let message =
                format!("{most} requests of this payer are here, and no more may be; wait for one of them");
            Course::Refused(Refusal::server(503, code::BUSY, message))
        })?;
        let asked = async {
            place.turn().await;
            supervisor.ask(self.question).await
        };
        let lost = supervisor.reached(|state| state != State::Ready);
        let answer = tokio::select! {
            biased;
            () = out.guest.closed() => return Err(Course::Refused(draining())),
            () = out.left() => return Err(Course::BrokenOff),
            asked = asked => asked.map_err(|error| Course::Refused(busy(&error.to_string())))?,
            state = lost => {
                let message = format!("the engine is {state}: try again, or another worker");
                return Err(Course::Refused(busy(&message)));
            }
        };
        Ok((place, answer))
    }
}

/// What is billed, and charged to the payer's turn, as an answer comes.
struct Meter<'a> {
    count: Count,
    header: &'a RequestHeader,
    /// Ours, where the guest counts.
    prompt_tokens: Option<u32>,
    /// What the payer's turns were charged with before it was billed.
    in_advance: u32,
    place: Place,
}

impl Meter<'_> {
    /// Reading a prompt is work, also for who leaves before the first token: it counts for the turns, if not for money.
    fn charge_in_advance(&mut self) {
        self.in_advance = self.prompt_tokens.unwrap_or(0);
        self.place.charge(self.in_advance);
    }

    /// Whether a prompt that only the child counts turns out to be more than was agreed to.
    fn is_over(&self, told: cocoon_supervisor::Usage) -> bool {
        self.prompt_tokens.is_none() && told.prompt_tokens > self.header.budget.prompt_tokens
    }

    /// Takes in a piece with what the child says of it. Before there is one nothing is owed, not for the prompt either: a child
    /// that fails at once has done nothing. Nobody owes more than was agreed to, whatever is counted.
    fn note(&mut self, out: &mut Out<'_>, text: &str, told: cocoon_supervisor::Usage) {
        let budget = &self.header.budget;
        let before = out.usage;
        let prompt_tokens = self.prompt_tokens.unwrap_or(told.prompt_tokens).min(budget.prompt_tokens);
        let completion_tokens = self.count.hear(text, told.completion_tokens).min(budget.completion_tokens);
        let cached_tokens = told.cached_tokens.min(prompt_tokens);
        out.usage = Usage {
            prompt_tokens,
            cached_tokens,
            completion_tokens: completion_tokens.max(before.completion_tokens),
        };
        let total = |usage: &Usage| usage.prompt_tokens.saturating_add(usage.completion_tokens);
        let work = total(&out.usage).saturating_sub(total(&before));
        let charged = work.min(self.in_advance);
        self.in_advance -= charged;
        self.place.charge(work - charged);
    }
}

/// `None` when the reader left or this worker ends; the answer is cancelled when it is dropped.
async fn next(out: &Out<'_>, answer: &mut AnswerStream) -> Option<Event> {
    tokio::select! {
        biased;
        () = out.left() => None,
        event = answer.next() => event,
    }
}

fn busy(message: &str) -> Refusal {
    Refusal::server(503, code::BUSY, message)
}

fn refusal(failure: Failure) -> Refusal {
    match failure {
        Failure::Refused(_) => Refusal::new(400, "invalid_value", failure.to_string()),
        Failure::TooLong => Refusal::new(408, "timeout", failure.to_string()),
        _ => Refusal::server(502, "engine", failure.to_string()),
    }
}
