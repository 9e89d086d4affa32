//! What a child is asked: built here, field by field, out of checked values. Nothing that a client sent is passed through.

use crate::config::{ChildConfig, Dialect, PrefixCache};
use serde::Serialize;
use std::collections::BTreeMap;
use zeroize::{Zeroize, Zeroizing};

/// Tokens that a chat template may add: to a conversation, and to each message.
const TEMPLATE_TOKENS: usize = 512;
const MESSAGE_TOKENS: usize = 32;
/// Most tokens that llama.cpp's penalty is to look back over: it takes memory for as many.
const MAX_LOOK_BACK: u64 = 1 << 17;
/// Servers take a signed number as seed; llama.cpp's 32 bits, of which all ones mean "any".
const MAX_SEED_64: u64 = i64::MAX.cast_unsigned();
const MAX_SEED_32: u64 = i32::MAX as u64;

/// What a child may say of a prompt's tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PromptBound {
    /// No more than so many.
    AtMost(u64),
    /// As many as it was sent.
    Exactly(u64),
}

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

/// What an answer goes on from.
pub enum Said {
    /// At least one message, which the child puts into its own template.
    Messages(Vec<Message>),
    /// The prompt's tokens, at least one: nothing is left for the child to read otherwise.
    Tokens(Zeroizing<Vec<u32>>),
}

/// A question with checked values.
pub struct Question {
    /// What is asked.
    pub said: Said,
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
    /// Of the sampler. The lower 63 bits are sent, to llama.cpp 31.
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
    #[serde(skip_serializing_if = "Option::is_none")]
    messages: Option<Vec<BodyMessage<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt: Option<&'a [u32]>,
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
    more: More<'a>,
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

/// What servers take beyond OpenAI's fields.
#[derive(Serialize)]
#[serde(untagged)]
enum More<'a> {
    /// Nothing.
    None {},
    /// vLLM, SGLang.
    Sampling {
        top_k: i64,
        min_p: f32,
        repetition_penalty: f32,
        #[serde(skip_serializing_if = "Option::is_none")]
        cache_salt: Option<&'a str>,
    },
    /// llama.cpp's server. Its penalty looks back over so many tokens; the others' over all.
    LlamaCpp { top_k: u32, min_p: f32, repeat_penalty: f32, repeat_last_n: u64, cache_prompt: bool },
}

impl Question {
    /// Whether it needs fields that OpenAI's API has not.
    pub fn asks_more(&self) -> bool {
        self.top_k != 0 || self.min_p != 0.0 || self.repetition_penalty != 1.0
    }

    /// The most that a child may say the prompt has: a token is at least one byte, and templates add little. Where it was
    /// sent tokens, exactly those.
    pub(crate) fn prompt_bound(&self) -> PromptBound {
        match &self.said {
            Said::Tokens(tokens) => PromptBound::Exactly(tokens.len() as u64),
            Said::Messages(messages) => {
                let message = |message: &Message| message.content.len() + message.role.len() + MESSAGE_TOKENS;
                let bytes: usize = messages.iter().map(message).sum();
                PromptBound::AtMost((TEMPLATE_TOKENS + bytes) as u64)
            }
        }
    }

    /// No fewer tokens than prompt and answer have.
    fn all_tokens(&self) -> u64 {
        let (PromptBound::AtMost(prompt) | PromptBound::Exactly(prompt)) = self.prompt_bound();
        prompt + u64::from(self.max_tokens)
    }

    /// The path that it is posted to.
    pub(crate) fn path(&self) -> &'static str {
        match &self.said {
            Said::Messages(_) => "/v1/chat/completions",
            Said::Tokens(_) => "/v1/completions",
        }
    }

    /// The body that is posted.
    pub(crate) fn body(&self, config: &ChildConfig) -> Zeroizing<Vec<u8>> {
        let dialect = config.dialect;
        let salt = Zeroizing::new(hex::encode(self.salt.0));
        let salted = config.prefix_cache == PrefixCache::Salted;
        let more = match dialect {
            Dialect::Openai => More::None {},
            Dialect::LlamaCpp => More::LlamaCpp {
                top_k: self.top_k,
                min_p: self.min_p,
                repeat_penalty: self.repetition_penalty,
                repeat_last_n: self.all_tokens().min(MAX_LOOK_BACK),
                cache_prompt: false,
            },
            Dialect::Vllm | Dialect::Sglang => More::Sampling {
                top_k: if self.top_k == 0 { -1 } else { i64::from(self.top_k) },
                min_p: self.min_p,
                repetition_penalty: self.repetition_penalty,
                cache_salt: salted.then_some(salt.as_str()),
            },
        };
        let (messages, prompt) = match &self.said {
            Said::Messages(messages) => {
                let messages = messages.iter().map(|it| BodyMessage { role: &it.role, content: &it.content });
                (Some(messages.collect()), None)
            }
            Said::Tokens(tokens) => (None, Some(tokens.as_slice())),
        };
        let counts = matches!(dialect, Dialect::Vllm | Dialect::Sglang);
        let body = Body {
            model: &config.served_name,
            messages,
            prompt,
            stream: true,
            stream_options: StreamOptions {
                include_usage: true,
                continuous_usage_stats: counts.then_some(true),
            },
            max_tokens: self.max_tokens,
            temperature: self.temperature,
            top_p: self.top_p,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            seed: self.seed & if dialect == Dialect::LlamaCpp { MAX_SEED_32 } else { MAX_SEED_64 },
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

    fn question() -> Question {
        let message = Message { role: "user".into(), content: "a \"b\"".into() };
        Question {
            said: Said::Messages(vec![message]),
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

    fn sent_as(question: &Question, dialect: &str, prefix_cache: &str) -> Value {
        let config = format!(
            "argv = [\"/usr/bin/serve\"]\naddress = \"127.0.0.1:1\"\ndialect = \"{dialect}\"\nserved_name = \"m\"\n\
             prefix_cache = \"{prefix_cache}\"\n[canary]\nprompt = \"a\"\n"
        );
        let config: ChildConfig = toml::from_str(&config).expect("it reads");
        serde_json::from_slice(&question.body(&config)).expect("JSON")
    }

    #[test]
    fn every_field_that_leaves_is_on_this_list() {
        let plain = json!({
            "model": "m", "messages": [{"role": "user", "content": "a \"b\""}], "stream": true,
            "stream_options": {"include_usage": true}, "max_tokens": 7, "temperature": 0.5, "top_p": 1.0,
            "presence_penalty": 0.0, "frequency_penalty": 0.0, "seed": i64::MAX, "n": 1, "stop": ["x"],
            "logit_bias": {"5": -1.0},
        });
        assert_eq!(sent_as(&question(), "openai", "off"), plain);
        let mut more = plain.clone();
        more["stream_options"]["continuous_usage_stats"] = json!(true);
        more["top_k"] = json!(-1);
        more["min_p"] = json!(0.0);
        more["repetition_penalty"] = json!(1.0);
        assert_eq!(sent_as(&question(), "sglang", "off"), more);
        assert_eq!(sent_as(&question(), "vllm", "off"), more);
        more["cache_salt"] = json!("ab".repeat(32));
        assert_eq!(sent_as(&question(), "vllm", "salted"), more);
        let mut llama = plain;
        llama["seed"] = json!(i32::MAX);
        let more = json!({"top_k": 0, "min_p": 0.0, "repeat_penalty": 1.0, "repeat_last_n": 553 + 7, "cache_prompt": false});
        llama.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        assert_eq!(sent_as(&question(), "llama_cpp", "off"), llama);
    }

    #[test]
    fn tokens_are_sent_as_tokens() {
        let question = Question { said: Said::Tokens(vec![1, 70_000].into()), ..question() };
        let sent = sent_as(&question, "vllm", "salted");
        assert_eq!((&sent["prompt"], sent.get("messages")), (&json!([1, 70_000]), None));
        assert_eq!(question.path(), "/v1/completions");
        assert_eq!(question.prompt_bound(), PromptBound::Exactly(2));
    }

    #[test]
    fn a_prompt_is_bounded_by_its_bytes() {
        assert_eq!(question().prompt_bound(), PromptBound::AtMost(512 + 5 + 4 + 32));
    }
}
