//! One answer, from the opened request to the receipt. A task of its own; the engine runs many together.

use crate::Guest;
use crate::openai::{self, Asked, Call, EmbeddingsRequest, Naming, Refusal, Said, Voice};
use crate::record::Record;
use crate::serving::Serving;
use crate::sink::Sink;
use cocoon_engine::{
    Answer as EngineAnswer, Engine, Event, Finish, GenerateError, Params, Payer, Request, Salt, SubmitError,
    TemplateError,
};
use cocoon_protocol::http::code;
use cocoon_protocol::{
    Answer, AnswerEvent, AnswerSealer, Ending, Endpoint, EngineId, MAX_EVENT, Opened, Outcome, Prompt,
    RequestHeader, Usage,
};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{SystemTime, UNIX_EPOCH};
use zeroize::Zeroizing;

/// Answers one request; all that is said goes through `sink`, sealed. `payer` is the host's word for who shares this
/// worker evenly, and nothing else.
pub(crate) async fn answer(guest: Arc<Guest>, opened: Opened, payer: Payer, sink: Sink) {
    if let Serving::Child(child) = &guest.engine {
        return crate::child::answer(&guest, child, opened, sink).await;
    }
    let Opened { header, endpoint, prompt, answer } = opened;
    let came_ms = now_ms();
    let seed = u64::from_le_bytes(random());
    let out = Out::new(&guest, answer, sink, crate::record::engine(guest.engine.kernels()));
    let planned = {
        // Templates and tokenizers take their time with a long prompt: not on a thread that serves others.
        let (guest, header) = (guest.clone(), header.clone());
        let asked = Asking { endpoint, payer, seed, came_ms };
        tokio::task::spawn_blocking(move || Planned::make(&guest, &header, prompt, asked)).await
    };
    let internal = |_| Err(Refusal::server(500, "internal", "the guest failed"));
    let (outcome, usage) = match planned.unwrap_or_else(internal) {
        Ok(Planned::Text(plan)) => plan.run(out, came_ms).await,
        Ok(Planned::Whole { answer, prompt_tokens }) => out.whole(answer, prompt_tokens, came_ms).await,
        Err(refusal) => out.refuse(refusal, came_ms).await,
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

/// What is known of a request before it is read.
struct Asking {
    endpoint: Endpoint,
    payer: Payer,
    seed: u64,
    came_ms: u64,
}

/// What a request comes to.
enum Planned {
    /// Answers that the engine is to write.
    Text(Plan),
    /// An answer that is there already.
    Whole { answer: Answer, prompt_tokens: u32 },
}

impl Planned {
    fn make(guest: &Guest, header: &RequestHeader, prompt: Prompt, asked: Asking) -> Result<Self, Refusal> {
        if guest.is_draining() {
            return Err(draining());
        }
        let read = openai::read(asked.endpoint, prompt.expose(), asked.seed)?;
        drop(prompt);
        match read {
            Asked::Text(call) => Plan::make(guest, header, *call, &asked).map(Self::Text),
            Asked::Vectors(request) => Self::vectors(guest, header, &request),
        }
    }

    /// A worker has one model: it writes text or makes vectors.
    fn vectors(guest: &Guest, header: &RequestHeader, request: &EmbeddingsRequest) -> Result<Self, Refusal> {
        let name = &guest.config.model.name;
        let Some(model) = &guest.vectors else {
            let message = format!("{name} writes text and makes no embeddings; ask for an embedding model");
            return Err(Refusal::new(400, "unsupported_endpoint", message).with_param("model"));
        };
        let mut prompt_tokens = 0u32;
        let answer = request.answer(model.as_ref(), name, |tokens| {
            prompt_tokens = prompt_tokens.saturating_add(tokens);
            within_budget(header, prompt_tokens as usize)
        })?;
        Ok(Self::Whole { answer, prompt_tokens })
    }
}

/// A request that can be run: its tokens, within the client's budget.
struct Plan {
    /// One for each prompt.
    requests: Vec<Request>,
    /// Of each prompt.
    prompt_tokens: Vec<u32>,
    /// Answers to each prompt.
    choices: u32,
    voice: Box<dyn Voice>,
}

/// How an answer went.
enum Course {
    /// To its end.
    Ended(Outcome),
    /// The reader left, or this worker ends.
    BrokenOff,
    /// There is none.
    Refused(Refusal),
}

impl Plan {
    fn make(guest: &Guest, header: &RequestHeader, mut call: Call, asked: &Asking) -> Result<Self, Refusal> {
        let engine = embedded(guest);
        let prompts: Vec<Zeroizing<Vec<u32>>> =
            call.prompts.iter().map(|prompt| tokens(engine, prompt)).collect::<Result<_, _>>()?;
        let prompt_tokens = within_limits(engine, header, &prompts)?;
        let max_tokens = max_tokens(engine, header, &call, &prompts)?;
        let naming = Naming {
            id: hex::encode(header.request_id),
            created: asked.came_ms / 1000,
            model: guest.config.model.name.clone(),
            fingerprint: guest.fingerprint.clone(),
        };
        let voice = call.voice(naming, Some(engine.model()));
        let Call { options, logprobs, format, tools, .. } = call;
        let salt = options.cache_salt.as_ref().map(|secret| Salt::new(secret.as_bytes()));
        let params = Params {
            sampling: options.sampling,
            max_tokens: max_tokens as usize,
            stop: options.stop,
            logit_bias: options.logit_bias,
            logprobs,
            ..Params::default()
        };
        let choices = options.choices;
        let request = |prompt: Zeroizing<Vec<u32>>| {
            let model = engine.model();
            let constraints = guest.grammars.constraints(model, &format, tools.as_ref(), choices)?;
            let request = Request::new(prompt.to_vec(), params.clone());
            let request = request.with_payer(asked.payer).with_choices(choices).with_constraints(constraints);
            Ok(match salt {
                Some(salt) => request.with_salt(salt),
                None => request,
            })
        };
        let requests = prompts.into_iter().map(request).collect::<Result<_, _>>()?;
        Ok(Self { requests, prompt_tokens, choices, voice })
    }

    async fn run(self, mut out: Out<'_>, came_ms: u64) -> (Outcome, Usage) {
        let Self { requests, prompt_tokens, choices, mut voice } = self;
        // An opening holds one run: of one prompt, with all answers to it.
        out.record = match requests.as_slice() {
            [request] => Some(Record::of(request)),
            _ => None,
        };
        let submitted: Result<Vec<_>, _> =
            requests.into_iter().map(|request| embedded(out.guest).submit(request)).collect();
        let answers = match submitted {
            Ok(answers) => Answers { answers, choices, prompt_tokens, next: 0 },
            Err(error) => return out.refuse(submit_refusal(&error), came_ms).await,
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

/// What has been said, and how much it is worth.
pub(crate) struct Out<'a> {
    pub(crate) guest: &'a Guest,
    sealer: AnswerSealer,
    sink: Sink,
    pub(crate) usage: Usage,
    /// Completion tokens in the last frame sent.
    shown: u32,
    /// What the engine was asked and what it wrote, for the receipt's opening.
    record: Option<Record>,
    /// What answers.
    engine: EngineId,
}

/// What the engine's next event is, seen from the reader's side.
enum Next {
    Event(usize, Event),
    Finished,
    /// The reader left or this worker ends.
    Gone,
}

impl<'a> Out<'a> {
    pub(crate) fn new(guest: &'a Guest, sealer: AnswerSealer, sink: Sink, engine: EngineId) -> Self {
        Self { guest, sealer, sink, usage: Usage::default(), shown: 0, record: None, engine }
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

    /// Passes on what is written. A prompt is charged before it is read: reading it is the work.
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
                Event::End { outcome: Err(error), .. } => return Course::Refused(generate_refusal(&error)),
            };
            if flow.is_break() {
                return Course::BrokenOff;
            }
        }
        Course::Ended(if cut { Outcome::Length } else { Outcome::Stop })
    }

    fn charge(&mut self, prompt_tokens: u32, cached_tokens: usize) {
        let usage = &mut self.usage;
        usage.prompt_tokens = usage.prompt_tokens.saturating_add(prompt_tokens);
        usage.cached_tokens = usage.cached_tokens.saturating_add(u32::try_from(cached_tokens).unwrap_or(0));
    }

    /// Seals what there is to say; where there is nothing, shows the usage once enough was used.
    pub(crate) async fn tell(&mut self, said: Vec<Answer>) -> ControlFlow<()> {
        if said.is_empty() {
            return self.tick().await;
        }
        for answer in said {
            if self.emit(AnswerEvent::Chunk(answer)).await.is_break() {
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
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

    async fn tick(&mut self) -> ControlFlow<()> {
        if self.usage.completion_tokens - self.shown < self.guest.config.tick_tokens {
            return ControlFlow::Continue(());
        }
        self.emit(AnswerEvent::Tick).await
    }

    /// An answer that was there already.
    async fn whole(mut self, answer: Answer, prompt_tokens: u32, started_ms: u64) -> (Outcome, Usage) {
        self.charge(prompt_tokens, 0);
        let outcome = match self.emit(AnswerEvent::Chunk(answer)).await {
            ControlFlow::Continue(()) => Outcome::Stop,
            ControlFlow::Break(()) => Outcome::Cancelled,
        };
        self.end(outcome, started_ms).await
    }

    pub(crate) async fn refuse(mut self, refusal: Refusal, started_ms: u64) -> (Outcome, Usage) {
        let body = serde_json::to_vec(&refusal.error).expect("strings always encode");
        // Whether the reader is still there or not, the answer ends here.
        let _ = self.emit(AnswerEvent::Error { status: refusal.status, body: Answer::new(body) }).await;
        self.record = None;
        self.end(Outcome::Error, started_ms).await
    }

    pub(crate) async fn end(self, outcome: Outcome, started_ms: u64) -> (Outcome, Usage) {
        let usage = self.usage;
        let run = self.record.filter(|_| usage.prompt_tokens > 0).map(Record::finish);
        let ending = Ending { usage, started_ms, finished_ms: now_ms(), outcome, engine: self.engine, run };
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

/// The engine that is built in: a child's answers have left long before.
fn embedded(guest: &Guest) -> &Engine {
    guest.engine.embedded().expect("a child is asked elsewhere")
}

/// The tokens that an answer goes on from.
fn tokens(engine: &Engine, prompt: &openai::Prompt) -> Result<Zeroizing<Vec<u32>>, Refusal> {
    let model = engine.model();
    let tokenizer = model.tokenizer();
    Ok(Zeroizing::new(match prompt {
        openai::Prompt::Chat(messages) => {
            let text = Zeroizing::new(model.render_chat(messages, true).map_err(|e| template_refusal(&e))?);
            tokenizer.encode(&text, true)
        }
        openai::Prompt::Text(text) => {
            tokenizer.bos().into_iter().chain(tokenizer.encode(text, false)).collect()
        }
        openai::Prompt::Tokens(tokens) => tokens.clone(),
    }))
}

/// Tokens of each prompt: each fits the context, and all together the budget.
fn within_limits(
    engine: &Engine,
    header: &RequestHeader,
    prompts: &[Zeroizing<Vec<u32>>],
) -> Result<Vec<u32>, Refusal> {
    let context = engine.max_context();
    if let Some(long) = prompts.iter().map(|prompt| prompt.len()).find(|tokens| *tokens >= context) {
        let message =
            format!("the prompt has {long} tokens, the context holds {context}: shorten the prompt");
        return Err(Refusal::new(400, "context_length_exceeded", message));
    }
    let tokens: usize = prompts.iter().map(|prompt| prompt.len()).sum();
    within_budget(header, tokens)?;
    let each = |prompt: &Zeroizing<Vec<u32>>| u32::try_from(prompt.len()).expect("within the budget, a u32");
    Ok(prompts.iter().map(each).collect())
}

fn within_budget(header: &RequestHeader, tokens: usize) -> Result<(), Refusal> {
    let budget = header.budget.prompt_tokens;
    if tokens <= budget as usize {
        return Ok(());
    }
    let message = format!("the prompt has {tokens} tokens, its budget is {budget}: allow more prompt tokens");
    Err(Refusal::new(400, "budget_exceeded", message))
}

/// Most tokens of each answer: what was asked for, an even share of the budget, what fits the context.
fn max_tokens(
    engine: &Engine,
    header: &RequestHeader,
    call: &Call,
    prompts: &[Zeroizing<Vec<u32>>],
) -> Result<u32, Refusal> {
    let answers = call.options.choices.saturating_mul(u32::try_from(prompts.len()).unwrap_or(u32::MAX));
    let budget = header.budget.completion_tokens;
    let share = budget / answers.max(1);
    if share == 0 && budget > 0 {
        let message =
            format!("{answers} answers do not fit a budget of {budget} tokens: allow more completion tokens");
        return Err(Refusal::new(400, "budget_exceeded", message));
    }
    let longest = prompts.iter().map(|prompt| prompt.len()).max().unwrap_or(0);
    let room = u32::try_from(engine.max_context() - longest).unwrap_or(u32::MAX);
    let tokens = call.max_tokens.unwrap_or(u32::MAX).min(share).min(room);
    if call.likelihood_bytes(answers, tokens) > MAX_EVENT {
        let message = "the logprobs of so many tokens do not fit one piece of an answer: stream it, lower the limit of \
                       tokens, or ask for fewer alternatives";
        return Err(Refusal::field("logprobs", message));
    }
    Ok(tokens)
}

fn template_refusal(error: &TemplateError) -> Refusal {
    match error {
        TemplateError::Refused(_) | TemplateError::Limit(_) => {
            Refusal::new(400, "invalid_messages", error.to_string())
        }
        _ => Refusal::server(500, "model_unusable", error.to_string()),
    }
}

pub(crate) fn draining() -> Refusal {
    Refusal::server(503, "draining", "this worker ends; use another")
}

fn submit_refusal(error: &SubmitError) -> Refusal {
    match error {
        SubmitError::Invalid(error) => generate_refusal(error),
        SubmitError::Busy(busy) => Refusal::server(503, code::BUSY, busy.to_string()),
        SubmitError::Device => Refusal::server(503, "engine_failed", error.to_string()),
        _ => Refusal::server(500, "internal", error.to_string()),
    }
}

fn generate_refusal(error: &GenerateError) -> Refusal {
    match error {
        GenerateError::NotANumber => Refusal::server(500, "model_damaged", error.to_string()),
        GenerateError::Device => Refusal::server(503, "engine_failed", error.to_string()),
        GenerateError::Stopped => Refusal::server(500, "internal", error.to_string()),
        GenerateError::SlowReader { .. } => Refusal::new(408, "timeout", error.to_string()),
        _ => Refusal::new(400, "invalid_value", error.to_string()),
    }
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
