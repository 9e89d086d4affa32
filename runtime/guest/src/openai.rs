//! Answers in OpenAI's words.

use cocoon_protocol::{Answer, Usage};
use serde::Serialize;

/// What all JSON objects of one answer share.
pub(crate) struct Voice<'a> {
    pub(crate) id: String,
    pub(crate) created: u64,
    pub(crate) model: &'a str,
    pub(crate) fingerprint: &'a str,
    /// Whether chunks have a `usage` field: null in all but the last.
    pub(crate) include_usage: bool,
}

#[derive(Serialize)]
struct Object<'a, C> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    system_fingerprint: &'a str,
    choices: &'a [C],
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<UsageJson>>,
}

#[derive(Serialize)]
struct UsageJson {
    prompt_tokens: u32,
    completion_tokens: u32,
    total_tokens: u64,
    prompt_tokens_details: PromptTokensDetails,
}

#[derive(Serialize)]
struct PromptTokensDetails {
    cached_tokens: u32,
}

#[derive(Serialize)]
struct ChunkChoice<'a> {
    index: u32,
    delta: Delta<'a>,
    logprobs: Option<()>,
    finish_reason: Option<&'static str>,
}

#[derive(Default, Serialize)]
struct Delta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
}

#[derive(Serialize)]
struct Choice<'a> {
    index: u32,
    message: Message<'a>,
    logprobs: Option<()>,
    finish_reason: &'static str,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: &'a str,
    refusal: Option<()>,
}

fn usage_json(usage: Usage) -> UsageJson {
    let (prompt_tokens, completion_tokens) = (usage.prompt_tokens, usage.completion_tokens);
    let total_tokens = u64::from(prompt_tokens) + u64::from(completion_tokens);
    let prompt_tokens_details = PromptTokensDetails { cached_tokens: usage.cached_tokens };
    UsageJson { prompt_tokens, completion_tokens, total_tokens, prompt_tokens_details }
}

fn json<T: Serialize>(value: &T) -> Answer {
    Answer::new(serde_json::to_vec(value).expect("strings and numbers always encode"))
}

impl Voice<'_> {
    fn object<C: Serialize>(
        &self,
        object: &'static str,
        choices: &[C],
        usage: Option<Option<UsageJson>>,
    ) -> Answer {
        let (id, created) = (self.id.as_str(), self.created);
        json(&Object {
            id,
            object,
            created,
            model: self.model,
            system_fingerprint: self.fingerprint,
            choices,
            usage,
        })
    }

    fn chunk(&self, delta: Delta<'_>, finish_reason: Option<&'static str>) -> Answer {
        let usage = self.include_usage.then_some(None);
        let choice = ChunkChoice { index: 0, delta, logprobs: None, finish_reason };
        self.object("chat.completion.chunk", &[choice], usage)
    }

    /// The first chunk of a stream.
    pub(crate) fn role(&self) -> Answer {
        self.chunk(Delta { role: Some("assistant"), content: Some("") }, None)
    }

    /// A piece of text.
    pub(crate) fn text(&self, text: &str) -> Answer {
        self.chunk(Delta { role: None, content: Some(text) }, None)
    }

    /// The last chunk with a choice.
    pub(crate) fn finish(&self, reason: &'static str) -> Answer {
        self.chunk(Delta::default(), Some(reason))
    }

    /// The chunk after it, where the client asked for the usage.
    pub(crate) fn usage(&self, usage: Usage) -> Answer {
        self.object::<ChunkChoice<'_>>("chat.completion.chunk", &[], Some(Some(usage_json(usage))))
    }

    /// The whole answer, where it is not streamed.
    pub(crate) fn whole(&self, content: &str, finish_reason: &'static str, usage: Usage) -> Answer {
        let message = Message { role: "assistant", content, refusal: None };
        let choice = Choice { index: 0, message, logprobs: None, finish_reason };
        self.object("chat.completion", &[choice], Some(Some(usage_json(usage))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn voice() -> Voice<'static> {
        Voice { id: "chatcmpl-1".into(), created: 5, model: "m", fingerprint: "fp_0", include_usage: true }
    }

    fn value(answer: &Answer) -> Value {
        serde_json::from_slice(answer.expose()).expect("JSON")
    }

    #[test]
    fn chunks_have_the_shape_that_clients_expect() {
        let expected = json!({
            "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 5, "model": "m",
            "system_fingerprint": "fp_0", "usage": null,
            "choices": [{"index": 0, "delta": {"content": "a\"b"}, "logprobs": null, "finish_reason": null}],
        });
        assert_eq!(value(&voice().text("a\"b")), expected);
        assert_eq!(
            value(&voice().role())["choices"][0]["delta"],
            json!({"role": "assistant", "content": ""})
        );
        let last = value(&voice().finish("stop"));
        assert_eq!(last["choices"][0]["finish_reason"], "stop");
        assert_eq!(last["choices"][0]["delta"], json!({}));
        let usage = value(&voice().usage(Usage { prompt_tokens: 3, cached_tokens: 2, completion_tokens: 4 }));
        assert_eq!(usage["choices"], json!([]));
        let details = json!({"cached_tokens": 2});
        let counted = json!({
            "prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7, "prompt_tokens_details": details
        });
        assert_eq!(usage["usage"], counted);
        let silent = Voice { include_usage: false, ..voice() };
        assert_eq!(value(&silent.text("x")).get("usage"), None);
    }

    #[test]
    fn a_whole_answer_has_the_shape_that_clients_expect() {
        let usage = Usage { prompt_tokens: u32::MAX, cached_tokens: 0, completion_tokens: 1 };
        let whole = value(&voice().whole("text", "length", usage));
        assert_eq!(whole["object"], "chat.completion");
        assert_eq!(whole["choices"][0]["message"]["content"], "text");
        assert_eq!(whole["choices"][0]["finish_reason"], "length");
        assert_eq!(whole["usage"]["total_tokens"], 1u64 << 32);
    }
}
