//! How an answer is told, whatever the endpoint.

use super::calls::Calls;
use super::logprobs;
use cocoon_engine::{CallForm, Finish, Logprobs, Model};
use cocoon_protocol::{Answer, Usage};
use serde_json::{Value, json};
use std::sync::Arc;

/// What all JSON objects of one answer share.
pub(crate) struct Naming {
    /// Random, the request's own.
    pub(crate) id: String,
    /// Unix seconds.
    pub(crate) created: u64,
    pub(crate) model: String,
    pub(crate) fingerprint: String,
}

/// What the engine said. It cannot be printed.
pub(crate) struct Said<'a> {
    /// Of which answer.
    pub(crate) choice: u32,
    /// Text that came free. May be empty.
    pub(crate) text: &'a str,
    /// The token, where this is one and its logprobs were asked for.
    pub(crate) token: Option<(u32, &'a Logprobs)>,
}

/// Tells an answer: each call gives the JSON to be sealed now. Streams give some each time, whole answers all at the end.
pub(crate) trait Voice: Send {
    /// Before the first token.
    fn begin(&mut self) -> Vec<Answer>;
    /// More of an answer.
    fn say(&mut self, said: Said<'_>) -> Vec<Answer>;
    /// One answer ended; never because it was broken off.
    fn end(&mut self, choice: u32, finish: Finish) -> Vec<Answer>;
    /// All ended.
    fn close(&mut self, usage: Usage) -> Vec<Answer>;
}

/// What a voice is made of.
pub(super) struct Told {
    pub(super) naming: Naming,
    /// Absent where another engine writes: it tells no logprobs.
    pub(super) model: Option<Arc<Model>>,
    pub(super) stream: bool,
    pub(super) include_usage: bool,
    pub(super) choices: u32,
    pub(super) logprobs: Option<u32>,
    /// How calls of tools are written, and whether they may stand in text; `None` where none may be called.
    pub(super) calls: Option<(CallForm, bool)>,
}

impl Told {
    /// Reads calls out of one answer's text, where tools may be called.
    pub(super) fn reader(&self) -> Option<Calls> {
        self.calls.as_ref().map(|(form, in_text)| Calls::new(form.clone(), *in_text))
    }

    /// How likely a token was, in the shape of chat completions and responses.
    pub(super) fn likelihood(&self, token: u32, likely: &Logprobs) -> Value {
        self.model.as_ref().map_or(Value::Null, |model| logprobs::of(model.tokenizer(), token, likely))
    }
}

/// OpenAI's word for an end.
pub(super) fn reason(finish: Finish) -> &'static str {
    match finish {
        Finish::Length => "length",
        Finish::Stop | Finish::Cancelled => "stop",
    }
}

/// `usage` of chat completions and completions.
pub(super) fn usage(usage: Usage) -> Value {
    json!({
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": total(usage),
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    })
}

pub(super) fn total(usage: Usage) -> u64 {
    u64::from(usage.prompt_tokens) + u64::from(usage.completion_tokens)
}
