//! One answer, from the opened request to the receipt. A task of its own; the engine runs many together.

use crate::Guest;
use crate::chat::{self, ChatRequest, Refusal};
use crate::openai::Voice;
use crate::serving::Serving;
use crate::sink::Sink;
use cocoon_engine::{
    Answer as EngineAnswer, Engine, Event, Finish, GenerateError, Params, Payer, Request, Salt,
    Sampling as EngineSampling, SubmitError, TemplateError,
};
use cocoon_protocol::http::{ApiError, code};
use cocoon_protocol::{
    Answer, AnswerEvent, AnswerSealer, Ending, Endpoint, Opened, Outcome, Prompt, RequestHeader, Sampling,
    Usage,
};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use zeroize::Zeroizing;

/// Answers one request; all that is said goes through `sink`, sealed. `payer` is the host's word for who shares this
/// worker evenly, and nothing else.
pub(crate) async fn answer(guest: Arc<Guest>, opened: Opened, payer: Payer, sink: Sink) {
    if let Serving::Child(child) = &guest.engine {
        return crate::child::answer(&guest, child, opened, sink).await;
    }
    let Opened { header, endpoint: Endpoint::ChatCompletions, prompt, answer } = opened;
    let came_ms = now_ms();
    let seed = u64::from_le_bytes(random());
    let out = Out::new(&guest, answer, sink);
    let planned = {
        // Templates and tokenizers take their time with a long prompt: not on a thread that serves others.
        let (guest, header) = (guest.clone(), header.clone());
        tokio::task::spawn_blocking(move || Plan::make(&guest, &header, prompt, payer, seed)).await
    };
    let internal = |_| Err(Refusal { status: 500, error: ApiError::server("internal", "the guest failed") });
    let (outcome, usage) = match planned.unwrap_or_else(internal) {
        Ok(plan) => plan.run(&header, out, came_ms).await,
        Err(refusal) => {
            let sampling = recorded(&EngineSampling { seed, ..EngineSampling::default() }, 0);
            out.refuse(refusal, sampling, came_ms).await
        }
    };
    tracing::info!(
        prompt_tokens = usage.prompt_tokens,
        cached_tokens = usage.cached_tokens,
        completion_tokens = usage.completion_tokens,
        ?outcome,
        milliseconds = now_ms().saturating_sub(came_ms),
        "answered"
    );
}

/// A request that can be run: its tokens, within the client's budget.
struct Plan {
    request: Request,
    prompt_tokens: u32,
    sampling: Sampling,
    stream: bool,
    include_usage: bool,
}

/// How an answer went.
enum Course {
    /// To its end.
    Ended(Finish),
    /// The reader left, or this worker ends.
    BrokenOff,
    /// There is none.
    Refused(Refusal),
}

impl Plan {
    fn make(
        guest: &Guest,
        header: &RequestHeader,
        prompt: Prompt,
        payer: Payer,
        seed: u64,
    ) -> Result<Self, Refusal> {
        if guest.is_draining() {
            return Err(draining());
        }
        let request = chat::parse(prompt.expose(), seed)?;
        drop(prompt);
        let engine = guest.engine.embedded().expect("children are asked elsewhere");
        let model = engine.model();
        let text =
            Zeroizing::new(model.render_chat(&request.messages, true).map_err(|e| template_refusal(&e))?);
        let tokens = model.tokenizer().encode(&text, true);
        let prompt_tokens = within_limits(engine, header, tokens.len())?;
        let ChatRequest { stream, include_usage, sampling, stop, logit_bias, cache_salt, .. } = request;
        let room = u32::try_from(engine.max_context() - tokens.len()).unwrap_or(u32::MAX);
        let asked = request.max_tokens.unwrap_or(u32::MAX);
        let max_tokens = asked.min(header.budget.completion_tokens).min(room);
        let params =
            Params { sampling, max_tokens: max_tokens as usize, stop, logit_bias, ..Params::default() };
        let mut request = Request::new(tokens, params).with_payer(payer);
        if let Some(secret) = cache_salt {
            request = request.with_salt(Salt::new(secret.as_bytes()));
        }
        Ok(Self { request, prompt_tokens, sampling: recorded(&sampling, max_tokens), stream, include_usage })
    }

    async fn run(self, header: &RequestHeader, mut out: Out<'_>, came_ms: u64) -> (Outcome, Usage) {
        let Self { request, prompt_tokens, sampling, stream, include_usage } = self;
        let guest = out.guest;
        let voice = Voice {
            id: format!("chatcmpl-{}", hex::encode(header.request_id)),
            created: came_ms / 1000,
            model: &guest.config.model.name,
            fingerprint: &guest.fingerprint,
            include_usage,
        };
        let mut content = Zeroizing::new(String::new());
        let mut started_ms = came_ms;
        let engine = guest.engine.embedded().expect("children are asked elsewhere");
        let course = match engine.submit(request) {
            Err(error) => Course::Refused(submit_refusal(&error)),
            Ok(mut answer) => match out.begun(&mut answer, prompt_tokens).await {
                ControlFlow::Break(course) => course,
                ControlFlow::Continue(()) => {
                    started_ms = now_ms();
                    out.follow(answer, &voice, stream, &mut content).await
                }
            },
        };
        let outcome = match course {
            Course::Refused(refusal) => return out.refuse(refusal, sampling, started_ms).await,
            Course::BrokenOff => Outcome::Cancelled,
            Course::Ended(finish) => out.conclude(stream, &voice, finish, &content).await,
        };
        out.end(outcome, sampling, started_ms).await
    }
}

/// What has been said, and how much it is worth.
pub(crate) struct Out<'a> {
    pub(crate) guest: &'a Guest,
    sealer: AnswerSealer,
    sink: Sink,
    pub(crate) usage: Usage,
    /// Completion tokens in the last frame sent.
    shown: u32,
}

impl<'a> Out<'a> {
    pub(crate) fn new(guest: &'a Guest, sealer: AnswerSealer, sink: Sink) -> Self {
        Self { guest, sealer, sink, usage: Usage::default(), shown: 0 }
    }
}

impl Out<'_> {
    /// Resolves when the reader left or this worker ends.
    pub(crate) async fn left(&self) {
        tokio::select! {
            () = self.sink.abandoned() => {}
            () = self.guest.drained() => {}
        }
    }

    /// The engine's next event; `None` when the reader left or this worker ends, which cancels the answer when it is
    /// dropped.
    async fn next(&self, answer: &mut EngineAnswer) -> Option<Event> {
        tokio::select! {
            biased;
            () = self.sink.abandoned() => None,
            () = self.guest.drained() => None,
            event = std::future::poll_fn(|context| answer.poll_next(context)) => event,
        }
    }

    /// Waits for the answer's turn. The prompt is charged before it is read: reading it is the work.
    async fn begun(&mut self, answer: &mut EngineAnswer, prompt_tokens: u32) -> ControlFlow<Course> {
        match self.next(answer).await {
            Some(Event::Started { cached_tokens }) => {
                let cached_tokens = u32::try_from(cached_tokens).unwrap_or(0);
                self.usage = Usage { prompt_tokens, cached_tokens, completion_tokens: 0 };
                ControlFlow::Continue(())
            }
            Some(Event::End { outcome: Err(error), .. }) => {
                ControlFlow::Break(Course::Refused(generate_refusal(&error)))
            }
            _ if self.guest.is_draining() => ControlFlow::Break(Course::Refused(draining())),
            _ => ControlFlow::Break(Course::BrokenOff),
        }
    }

    /// Passes on what is written, or gathers it in `content` where it is not streamed.
    async fn follow(
        &mut self,
        mut answer: EngineAnswer,
        voice: &Voice<'_>,
        stream: bool,
        content: &mut Zeroizing<String>,
    ) -> Course {
        let mut flow = self.emit(AnswerEvent::Tick).await;
        if stream && flow.is_continue() {
            flow = self.emit(AnswerEvent::Chunk(voice.role())).await;
        }
        while flow.is_continue() {
            let text = match self.next(&mut answer).await {
                Some(Event::Token { text, .. }) => {
                    self.usage.completion_tokens = self.usage.completion_tokens.saturating_add(1);
                    text
                }
                Some(Event::Text { text, .. }) => text,
                Some(Event::Started { .. } | Event::Read { .. }) => continue,
                Some(Event::End { outcome: Ok(finish), .. }) => return Course::Ended(finish),
                Some(Event::End { outcome: Err(error), .. }) => {
                    return Course::Refused(generate_refusal(&error));
                }
                None => return Course::BrokenOff,
            };
            flow = if stream && !text.is_empty() {
                self.emit(AnswerEvent::Chunk(voice.text(&text))).await
            } else {
                content.push_str(&text);
                self.tick().await
            };
        }
        Course::BrokenOff
    }

    pub(crate) async fn emit(&mut self, event: AnswerEvent) -> ControlFlow<()> {
        match self.sealer.seal(&event, self.usage) {
            Ok(wire) => {
                self.shown = self.usage.completion_tokens;
                self.sink.send(wire).await
            }
            Err(error) => {
                tracing::error!(%error, "an event could not be sealed");
                ControlFlow::Break(())
            }
        }
    }

    /// Shows the usage, when enough was used and nothing else has shown it.
    pub(crate) async fn tick(&mut self) -> ControlFlow<()> {
        if self.usage.completion_tokens - self.shown < self.guest.config.tick_tokens {
            return ControlFlow::Continue(());
        }
        self.emit(AnswerEvent::Tick).await
    }

    /// The JSON that ends the answer.
    pub(crate) async fn conclude(
        &mut self,
        stream: bool,
        voice: &Voice<'_>,
        finish: Finish,
        content: &str,
    ) -> Outcome {
        let (outcome, reason) = match finish {
            Finish::Stop => (Outcome::Stop, "stop"),
            Finish::Length => (Outcome::Length, "length"),
            Finish::Cancelled => return Outcome::Cancelled,
        };
        let mut flow;
        if stream {
            flow = self.emit(AnswerEvent::Chunk(voice.finish(reason))).await;
            if voice.include_usage && flow.is_continue() {
                flow = self.emit(AnswerEvent::Chunk(voice.usage(self.usage))).await;
            }
        } else {
            flow = self.emit(AnswerEvent::Chunk(voice.whole(content, reason, self.usage))).await;
        }
        if flow.is_break() { Outcome::Cancelled } else { outcome }
    }

    pub(crate) async fn refuse(
        mut self,
        refusal: Refusal,
        sampling: Sampling,
        started_ms: u64,
    ) -> (Outcome, Usage) {
        let body = serde_json::to_vec(&refusal.error).expect("strings always encode");
        // Whether the reader is still there or not, the answer ends here.
        let _ = self.emit(AnswerEvent::Error { status: refusal.status, body: Answer::new(body) }).await;
        self.end(Outcome::Error, sampling, started_ms).await
    }

    pub(crate) async fn end(self, outcome: Outcome, sampling: Sampling, started_ms: u64) -> (Outcome, Usage) {
        let usage = self.usage;
        let ending = Ending { usage, started_ms, finished_ms: now_ms(), outcome, sampling };
        match self.sealer.finish(ending, &self.guest.receipt) {
            Ok(wire) => drop(self.sink.send(wire).await),
            Err(error) => tracing::error!(%error, "the answer could not be ended"),
        }
        (outcome, usage)
    }
}

/// The first bytes of an answer, to be sent before anything else is known.
pub(crate) fn preamble(opened: &Opened) -> Vec<u8> {
    opened.answer.preamble()
}

fn within_limits(engine: &Engine, header: &RequestHeader, tokens: usize) -> Result<u32, Refusal> {
    let context = engine.max_context();
    if tokens >= context {
        let message =
            format!("the prompt has {tokens} tokens, the context holds {context}: shorten the prompt");
        return Err(Refusal::new(400, "context_length_exceeded", message));
    }
    let budget = header.budget.prompt_tokens;
    match u32::try_from(tokens) {
        Ok(tokens) if tokens <= budget => Ok(tokens),
        _ => {
            let message =
                format!("the prompt has {tokens} tokens, its budget is {budget}: allow more prompt tokens");
            Err(Refusal::new(400, "budget_exceeded", message))
        }
    }
}

fn template_refusal(error: &TemplateError) -> Refusal {
    match error {
        TemplateError::Refused(_) | TemplateError::Limit(_) => {
            Refusal::new(400, "invalid_messages", error.to_string())
        }
        _ => Refusal { status: 500, error: ApiError::server("model_unusable", error.to_string()) },
    }
}

pub(crate) fn draining() -> Refusal {
    Refusal { status: 503, error: ApiError::server("draining", "this worker ends; use another") }
}

fn submit_refusal(error: &SubmitError) -> Refusal {
    match error {
        SubmitError::Invalid(error) => generate_refusal(error),
        SubmitError::Busy(busy) => {
            Refusal { status: 503, error: ApiError::server(code::BUSY, busy.to_string()) }
        }
        _ => Refusal { status: 500, error: ApiError::server("internal", error.to_string()) },
    }
}

fn generate_refusal(error: &GenerateError) -> Refusal {
    match error {
        GenerateError::NotANumber => {
            Refusal { status: 500, error: ApiError::server("model_damaged", error.to_string()) }
        }
        GenerateError::Stopped => {
            Refusal { status: 500, error: ApiError::server("internal", error.to_string()) }
        }
        GenerateError::SlowReader { .. } => Refusal::new(408, "timeout", error.to_string()),
        _ => Refusal::new(400, "invalid_value", error.to_string()),
    }
}

pub(crate) fn recorded(sampling: &EngineSampling, max_tokens: u32) -> Sampling {
    let EngineSampling { temperature, top_p, repetition_penalty, seed, .. } = *sampling;
    Sampling { seed, temperature, top_p, repetition_penalty, max_tokens }
}

pub(crate) fn random() -> [u8; 8] {
    use ring::rand::SecureRandom;
    let mut bytes = [0; 8];
    ring::rand::SystemRandom::new().fill(&mut bytes).expect("the system has a random generator");
    bytes
}

pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
