//! What a child is asked: built here, field by field, out of checked values. Nothing that a client sent is passed through.

use crate::config::Dialect;
use serde::Serialize;
use std::collections::BTreeMap;
use zeroize::{Zeroize, Zeroizing};

/// One message. It cannot be printed.
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// Its text.
    pub content: String,
}

impl Drop for Message {
    fn drop(&mut self) {
        self.content.zeroize();
    }
}

/// What keeps one payer's cached prompts from another: 32 bytes, made by the guest and never the client's own.
pub struct Salt(pub [u8; 32]);

/// A question with checked values.
pub struct Question {
    /// At least one.
    pub messages: Vec<Message>,
    /// Most tokens of the answer, at least 1.
    pub max_tokens: u32,
    /// 0 is greedy.
    pub temperature: f32,
    /// Up to 1.
    pub top_p: f32,
    /// 0 is off. Only where [`Question::asks_more`] may be true.
    pub top_k: u32,
    /// 0 is off; likewise.
    pub min_p: f32,
    /// 1 is off; likewise.
    pub repetition_penalty: f32,
    /// OpenAI's.
    pub presence_penalty: f32,
    /// OpenAI's.
    pub frequency_penalty: f32,
    /// Of the sampler. The lower 63 bits are sent: servers take a signed number.
    pub seed: u64,
    /// Up to four strings.
    pub stop: Vec<String>,
    /// Token ids with what is added to their logits.
    pub logit_bias: Vec<(u32, f32)>,
    /// Whose cached prompts this may meet.
    pub salt: Salt,
}

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    messages: Vec<BodyMessage<'a>>,
    stream: bool,
    stream_options: StreamOptions,
    max_tokens: u32,
    temperature: f32,
    top_p: f32,
    presence_penalty: f32,
    frequency_penalty: f32,
    seed: u64,
    n: u32,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    stop: &'a [String],
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    logit_bias: BTreeMap<String, f32>,
    #[serde(flatten)]
    more: Option<More<'a>>,
}

#[derive(Serialize)]
struct BodyMessage<'a> {
    role: &'a str,
    content: &'a str,
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    continuous_usage_stats: Option<bool>,
}

/// What vLLM and SGLang take beyond OpenAI.
#[derive(Serialize)]
struct More<'a> {
    top_k: i64,
    min_p: f32,
    repetition_penalty: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_salt: Option<&'a str>,
}

impl Question {
    /// Whether it needs fields that OpenAI's API has not.
    pub fn asks_more(&self) -> bool {
        self.top_k != 0 || self.min_p != 0.0 || self.repetition_penalty != 1.0
    }

    /// Tokens that its prompt cannot have more of: a token is at least one byte, and templates add little.
    pub(crate) fn most_prompt_tokens(&self) -> u64 {
        let message = |message: &Message| message.content.len() as u64 + message.role.len() as u64 + 32;
        1024 + self.messages.iter().map(message).sum::<u64>()
    }

    /// The body of `POST /v1/chat/completions`.
    pub(crate) fn body(&self, model: &str, dialect: Dialect) -> Zeroizing<Vec<u8>> {
        let beyond = dialect != Dialect::Openai;
        let salt = Zeroizing::new(hex::encode(self.salt.0));
        let more = beyond.then(|| More {
            top_k: if self.top_k == 0 { -1 } else { i64::from(self.top_k) },
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            cache_salt: (dialect == Dialect::Vllm).then_some(salt.as_str()),
        });
        let body = Body {
            model,
            messages: self
                .messages
                .iter()
                .map(|it| BodyMessage { role: &it.role, content: &it.content })
                .collect(),
            stream: true,
            stream_options: StreamOptions {
                include_usage: true,
                continuous_usage_stats: beyond.then_some(true),
            },
            max_tokens: self.max_tokens,
            temperature: self.temperature,
            top_p: self.top_p,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            seed: self.seed & i64::MAX.cast_unsigned(),
            n: 1,
            stop: &self.stop,
            logit_bias: self.logit_bias.iter().map(|(token, bias)| (token.to_string(), *bias)).collect(),
            more,
        };
        Zeroizing::new(serde_json::to_vec(&body).expect("strings and finite numbers always encode"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    pub(crate) fn question() -> Question {
        Question {
            messages: vec![Message { role: "user".into(), content: "a \"b\"".into() }],
            max_tokens: 7,
            temperature: 0.5,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            seed: u64::MAX,
            stop: vec!["x".into()],
            logit_bias: vec![(5, -1.0)],
            salt: Salt([0xab; 32]),
        }
    }

    fn sent(dialect: Dialect) -> Value {
        serde_json::from_slice(&question().body("m", dialect)).expect("JSON")
    }

    #[test]
    fn every_field_that_leaves_is_on_this_list() {
        let plain = json!({
            "model": "m", "messages": [{"role": "user", "content": "a \"b\""}], "stream": true,
            "stream_options": {"include_usage": true}, "max_tokens": 7, "temperature": 0.5, "top_p": 1.0,
            "presence_penalty": 0.0, "frequency_penalty": 0.0, "seed": i64::MAX, "n": 1, "stop": ["x"],
            "logit_bias": {"5": -1.0},
        });
        assert_eq!(sent(Dialect::Openai), plain);
        let mut more = plain;
        more["stream_options"]["continuous_usage_stats"] = json!(true);
        more["top_k"] = json!(-1);
        more["min_p"] = json!(0.0);
        more["repetition_penalty"] = json!(1.0);
        assert_eq!(sent(Dialect::Sglang), more);
        more["cache_salt"] = json!("ab".repeat(32));
        assert_eq!(sent(Dialect::Vllm), more);
    }

    #[test]
    fn a_prompt_is_bounded_by_its_bytes() {
        assert_eq!(question().most_prompt_tokens(), 1024 + 5 + 4 + 32);
    }
}
