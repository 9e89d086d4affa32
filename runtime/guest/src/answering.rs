//! One answer, from the opened request to the receipt. Runs on a thread of its own.

use crate::Guest;
use crate::chat::{self, ChatRequest, Refusal};
use crate::openai::Voice;
use crate::sink::Sink;
use cocoon_engine::{
    Finish, GenerateError, Generated, Params, Sampling as EngineSampling, Step, TemplateError,
};
use cocoon_protocol::http::ApiError;
use cocoon_protocol::{
    Answer, AnswerEvent, AnswerSealer, Ending, Endpoint, Opened, Outcome, Prompt, RequestHeader, Sampling,
    Usage,
};
use std::ops::ControlFlow;
use std::time::{SystemTime, UNIX_EPOCH};
use zeroize::Zeroizing;

/// Answers one request; all that is said goes through `sink`, sealed.
pub(crate) fn answer(guest: &Guest, opened: Opened, sink: Sink) {
    let Opened { header, endpoint: Endpoint::ChatCompletions, prompt, answer } = opened;
    let started_ms = now_ms();
    let seed = u64::from_le_bytes(random());
    let out = Out { guest, sealer: answer, sink, usage: Usage::default(), shown: 0 };
    let (outcome, usage) = match Plan::make(guest, &header, prompt, seed) {
        Ok(plan) => plan.run(guest, &header, out, started_ms),
        Err(refusal) => {
            let sampling = recorded(&EngineSampling { seed, ..EngineSampling::default() }, 0);
            out.refuse(refusal, sampling, started_ms)
        }
    };
    tracing::info!(
        prompt_tokens = usage.prompt_tokens,
        completion_tokens = usage.completion_tokens,
        ?outcome,
        milliseconds = now_ms().saturating_sub(started_ms),
        "answered"
    );
}

/// A request that can be run: its tokens, within the client's budget.
struct Plan {
    tokens: Zeroizing<Vec<u32>>,
    prompt_tokens: u32,
    params: Params,
    max_tokens: u32,
    stream: bool,
    include_usage: bool,
}

impl Plan {
    fn make(guest: &Guest, header: &RequestHeader, prompt: Prompt, seed: u64) -> Result<Self, Refusal> {
        if guest.is_draining() {
            let error = ApiError::server("draining", "this worker ends; use another");
            return Err(Refusal { status: 503, error });
        }
        let request = chat::parse(prompt.expose(), seed)?;
        drop(prompt);
        let model = guest.engine.model();
        let text =
            Zeroizing::new(model.render_chat(&request.messages, true).map_err(|e| template_refusal(&e))?);
        let tokens = Zeroizing::new(model.tokenizer().encode(&text, true));
        let prompt_tokens = within_limits(guest, header, tokens.len())?;
        let ChatRequest { stream, include_usage, sampling, stop, .. } = request;
        let room = u32::try_from(guest.engine.max_context() - tokens.len()).unwrap_or(u32::MAX);
        let asked = request.max_tokens.unwrap_or(u32::MAX);
        let max_tokens = asked.min(header.budget.completion_tokens).min(room);
        let params = Params { sampling, max_tokens: max_tokens as usize, stop };
        Ok(Self { tokens, prompt_tokens, params, max_tokens, stream, include_usage })
    }

    fn run(
        self,
        guest: &Guest,
        header: &RequestHeader,
        mut out: Out<'_>,
        started_ms: u64,
    ) -> (Outcome, Usage) {
        let voice = Voice {
            id: format!("chatcmpl-{}", hex::encode(header.request_id)),
            created: started_ms / 1000,
            model: &guest.config.model.name,
            fingerprint: &guest.fingerprint,
            include_usage: self.include_usage,
        };
        let sampling = recorded(&self.params.sampling, self.max_tokens);
        // The prompt is charged before it is read: reading it is the work.
        out.usage.prompt_tokens = self.prompt_tokens;
        let mut content = Zeroizing::new(String::new());
        let result = self.generate(guest, &voice, &mut out, &mut content);
        let outcome = match result {
            Ok(generated) => out.conclude(&self, &voice, &generated, &content),
            Err(error) => return out.refuse(generate_refusal(&error), sampling, started_ms),
        };
        out.end(outcome, sampling, started_ms)
    }

    fn generate(
        &self,
        guest: &Guest,
        voice: &Voice<'_>,
        out: &mut Out<'_>,
        content: &mut Zeroizing<String>,
    ) -> Result<Generated, GenerateError> {
        let mut begun = out.emit(AnswerEvent::Tick);
        if self.stream && begun.is_continue() {
            begun = out.emit(AnswerEvent::Chunk(voice.role()));
        }
        if begun.is_break() {
            return Ok(Generated { prompt_tokens: 0, completion_tokens: 0, finish: Finish::Cancelled });
        }
        guest.engine.generate(&self.tokens, &self.params, |step| {
            if guest.is_draining() || out.sink.is_abandoned() {
                return ControlFlow::Break(());
            }
            out.count(&step);
            if !step.text.is_empty() {
                if self.stream {
                    return out.emit(AnswerEvent::Chunk(voice.text(step.text)));
                }
                content.push_str(step.text);
            }
            out.tick()
        })
    }
}

/// What has been said, and how much it is worth.
struct Out<'a> {
    guest: &'a Guest,
    sealer: AnswerSealer,
    sink: Sink,
    usage: Usage,
    /// Completion tokens in the last frame sent.
    shown: u32,
}

impl Out<'_> {
    fn count(&mut self, step: &Step<'_>) {
        self.usage.completion_tokens = u32::try_from(step.completion_tokens).unwrap_or(u32::MAX);
    }

    fn emit(&mut self, event: AnswerEvent) -> ControlFlow<()> {
        match self.sealer.seal(&event, self.usage) {
            Ok(wire) => {
                self.shown = self.usage.completion_tokens;
                self.sink.send(wire)
            }
            Err(error) => {
                tracing::error!(%error, "an event could not be sealed");
                ControlFlow::Break(())
            }
        }
    }

    /// Shows the usage, when enough was used and nothing else has shown it.
    fn tick(&mut self) -> ControlFlow<()> {
        if self.usage.completion_tokens - self.shown < self.guest.config.tick_tokens {
            return ControlFlow::Continue(());
        }
        self.emit(AnswerEvent::Tick)
    }

    /// The JSON that ends the answer.
    fn conclude(&mut self, plan: &Plan, voice: &Voice<'_>, generated: &Generated, content: &str) -> Outcome {
        let (outcome, reason) = match generated.finish {
            Finish::Stop => (Outcome::Stop, "stop"),
            Finish::Length => (Outcome::Length, "length"),
            Finish::Cancelled => return Outcome::Cancelled,
        };
        self.usage.completion_tokens = u32::try_from(generated.completion_tokens).unwrap_or(u32::MAX);
        let mut flow;
        if plan.stream {
            flow = self.emit(AnswerEvent::Chunk(voice.finish(reason)));
            if plan.include_usage && flow.is_continue() {
                flow = self.emit(AnswerEvent::Chunk(voice.usage(self.usage)));
            }
        } else {
            flow = self.emit(AnswerEvent::Chunk(voice.whole(content, reason, self.usage)));
        }
        if flow.is_break() { Outcome::Cancelled } else { outcome }
    }

    fn refuse(mut self, refusal: Refusal, sampling: Sampling, started_ms: u64) -> (Outcome, Usage) {
        let body = serde_json::to_vec(&refusal.error).expect("strings always encode");
        // Whether the reader is still there or not, the answer ends here.
        let _ = self.emit(AnswerEvent::Error { status: refusal.status, body: Answer::new(body) });
        self.end(Outcome::Error, sampling, started_ms)
    }

    fn end(self, outcome: Outcome, sampling: Sampling, started_ms: u64) -> (Outcome, Usage) {
        let usage = self.usage;
        let ending = Ending { usage, started_ms, finished_ms: now_ms(), outcome, sampling };
        match self.sealer.finish(ending, &self.guest.receipt) {
            Ok(wire) => drop(self.sink.send(wire)),
            Err(error) => tracing::error!(%error, "the answer could not be ended"),
        }
        (outcome, usage)
    }
}

/// The first bytes of an answer, to be sent before anything else is known.
pub(crate) fn preamble(opened: &Opened) -> Vec<u8> {
    opened.answer.preamble()
}

fn within_limits(guest: &Guest, header: &RequestHeader, tokens: usize) -> Result<u32, Refusal> {
    let context = guest.engine.max_context();
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

fn generate_refusal(error: &GenerateError) -> Refusal {
    match error {
        GenerateError::NotANumber => {
            Refusal { status: 500, error: ApiError::server("model_damaged", error.to_string()) }
        }
        _ => Refusal::new(400, "invalid_value", error.to_string()),
    }
}

fn recorded(sampling: &EngineSampling, max_tokens: u32) -> Sampling {
    let EngineSampling { temperature, top_p, repetition_penalty, seed } = *sampling;
    Sampling { seed, temperature, top_p, repetition_penalty, max_tokens }
}

fn random() -> [u8; 8] {
    use ring::rand::SecureRandom;
    let mut bytes = [0; 8];
    ring::rand::SystemRandom::new().fill(&mut bytes).expect("the system has a random generator");
    bytes
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
