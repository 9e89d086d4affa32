//! The OpenAI API inside the seal: requests read and checked, answers told.
//!
//! One module for each endpoint reads its requests into a [`Call`], and one `*_voice` tells the answer. `docs/api.md`
//! lists every field; a test holds that list against what the readers do.
//!
//! Fields that OpenAI does not know are refused, as OpenAI does: a misspelt limit that were ignored would be paid for.
//! Fields that it knows and this worker cannot do are refused by name. Only what changes nothing of an answer is ignored.
//! No type here has `Debug`: they hold prompts.

mod calls;
mod chat;
mod chat_voice;
mod completions;
mod completions_voice;
mod conversation;
mod embeddings;
mod fields;
mod format;
mod logprobs;
mod messages;
mod options;
mod refusal;
mod responses;
mod responses_input;
mod responses_voice;
mod schema;
mod tools;
mod voice;
mod wipe;

#[cfg(test)]
mod tests;

pub(crate) use conversation::Conversation;
pub(crate) use embeddings::{EmbeddingsRequest, Vectors};
pub(crate) use format::Format;
pub(crate) use options::Options;
pub(crate) use refusal::Refusal;
pub(crate) use tools::Tools;
pub(crate) use voice::{Naming, Said, Voice};

use cocoon_engine::{CallForm, Model};
use cocoon_protocol::Endpoint;
use std::sync::Arc;

/// A checked request.
pub(crate) enum Asked {
    /// For text.
    Text(Box<Call>),
    /// For vectors.
    Vectors(EmbeddingsRequest),
}

/// A checked request for text.
pub(crate) struct Call {
    pub(crate) prompts: Vec<Prompt>,
    pub(crate) options: Options,
    /// Most tokens of each answer.
    pub(crate) max_tokens: Option<u32>,
    /// Tells how likely each token was, with so many alternatives.
    pub(crate) logprobs: Option<u32>,
    /// What answers are held to.
    pub(crate) format: Format,
    /// Tools that answers may, or must, call.
    pub(crate) tools: Option<Tools>,
    /// How the model's own template writes calls, where it is to be asked by it; see [`Self::take_form`].
    pub(crate) form: Option<CallForm>,
    style: Style,
}

/// What an answer goes on from.
pub(crate) enum Prompt {
    /// A conversation.
    Chat(Conversation),
    /// Plain text.
    Text(String),
    /// Tokens.
    Tokens(Vec<u32>),
}

/// How an answer is told.
enum Style {
    Chat,
    Completion { echo: bool },
    Response(responses::Echo),
}

/// Reads a body. `seed` is used where the client gives none.
pub(crate) fn read(endpoint: Endpoint, body: &[u8], seed: u64) -> Result<Asked, Refusal> {
    let call = match endpoint {
        Endpoint::ChatCompletions => chat::read(body, seed)?,
        Endpoint::Completions => completions::read(body, seed)?,
        Endpoint::Responses => responses::read(body, seed)?,
        Endpoint::Embeddings => return embeddings::read(body).map(Asked::Vectors),
    };
    Ok(Asked::Text(Box::new(call)))
}

/// Bytes of JSON that tell how likely one token was, about.
const LIKELIHOOD_BYTES: usize = 96;

impl Call {
    /// Bytes of the longest piece of JSON that the logprobs of `answers` answers of `tokens` tokens each may come to.
    pub(crate) fn likelihood_bytes(&self, answers: u32, tokens: u32) -> usize {
        let in_pieces = self.options.stream && !matches!(self.style, Style::Response(_));
        match self.logprobs {
            Some(top) if !in_pieces => (answers as usize)
                .saturating_mul(tokens as usize)
                .saturating_mul(top as usize + 1)
                .saturating_mul(LIKELIHOOD_BYTES),
            _ => 0,
        }
    }

    /// Takes over how the model's own template writes calls, if it does. An answer that may be a call or JSON is asked for
    /// in words by which the two can be told apart.
    pub(crate) fn take_form(&mut self, own: Option<&CallForm>) {
        let or_json = matches!(self.format, Format::Schema(_)) && !self.must_call();
        self.form = own.filter(|form| form.anywhere || !(or_json && self.tools.is_some())).cloned();
    }

    fn must_call(&self) -> bool {
        self.tools.as_ref().is_some_and(|tools| tools.required)
    }

    /// How calls are written, and whether they may stand in text.
    pub(crate) fn calls(&self) -> Option<(CallForm, bool)> {
        let in_text = matches!(self.format, Format::Free) && !self.must_call();
        let form = || self.form.clone().unwrap_or_else(CallForm::hermes);
        self.tools.is_some().then(|| (form(), in_text))
    }

    /// Whoever tells the answer.
    pub(crate) fn voice(&mut self, naming: Naming, model: Option<&Arc<Model>>) -> Box<dyn Voice> {
        let told = voice::Told {
            naming,
            model: model.cloned(),
            stream: self.options.stream,
            include_usage: self.options.include_usage,
            choices: self.options.choices * self.prompts.len() as u32,
            logprobs: self.logprobs,
            calls: self.calls(),
        };
        match std::mem::replace(&mut self.style, Style::Chat) {
            Style::Chat => Box::new(chat_voice::ChatVoice::new(told)),
            Style::Completion { echo } => {
                let texts = match model {
                    Some(model) if echo => self.echoed(model),
                    _ => Vec::new(),
                };
                Box::new(completions_voice::CompletionsVoice::new(told, texts))
            }
            Style::Response(echo) => Box::new(responses_voice::ResponsesVoice::new(told, echo)),
        }
    }

    /// The text of each prompt, once for each of its answers.
    fn echoed(&self, model: &Model) -> Vec<String> {
        let text = |prompt: &Prompt| match prompt {
            Prompt::Text(text) => text.clone(),
            Prompt::Tokens(tokens) => String::from_utf8_lossy(&model.tokenizer().decode(tokens)).into_owned(),
            Prompt::Chat(_) => String::new(),
        };
        let each = |prompt| std::iter::repeat_n(text(prompt), self.options.choices as usize);
        self.prompts.iter().flat_map(each).collect()
    }
}
