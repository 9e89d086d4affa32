//! The client's own count of tokens, against the worker's.
//!
//! A worker bills what it counts. Its count comes out of a measured guest, and is still only its word: a client that has
//! the model's tokenizer counts again. The prompt's count must be equal. An answer's text need not tell its tokens one by
//! one (the same text may be made of more tokens than the tokenizer would choose, and a stop string is cut off), so a
//! claim differs only if it is higher than what that explains.

use std::sync::Arc;

use cocoon_protocol::Usage;
use serde::Deserialize;
use serde::de::IgnoredAny;
use zeroize::Zeroizing;

/// How much text is kept for counting, in bytes. Longer answers are compared by what fits, and never accused.
const MAX_TEXT: usize = 4 << 20;
/// What stop strings and unusual tokens may add to an answer's count: so many tokens, and this share of it.
const ALLOWED_TOKENS: u32 = 16;
const ALLOWED_SHARE: u32 = 8;

/// Counts tokens as one model does.
pub trait TokenCounter: Send + Sync {
    /// SHA-256 of the weights that it counts for.
    fn weights(&self) -> [u8; 32];

    /// Tokens of the prompt that a model makes of this OpenAI request; `None` if it cannot tell.
    fn prompt_tokens(&self, request: &[u8]) -> Option<u32>;

    /// Tokens that this text is made of when it is encoded.
    fn text_tokens(&self, text: &str) -> u32;
}

/// Both counts of one answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recount {
    /// The worker's, from its receipt.
    pub claimed: Usage,
    /// Ours of the prompt, where the request could be read.
    pub prompt_tokens: Option<u32>,
    /// Ours of the answer's text, where all of it was kept.
    pub completion_tokens: Option<u32>,
}

impl Recount {
    /// Whether the worker claims what our count does not explain.
    pub fn differs(&self) -> bool {
        let prompt = self.prompt_tokens.is_some_and(|ours| self.claimed.prompt_tokens != ours);
        let completion = self.completion_tokens.is_some_and(|ours| {
            let explained = ours.saturating_add(ALLOWED_TOKENS).saturating_add(ours / ALLOWED_SHARE);
            self.claimed.completion_tokens > explained
        });
        prompt || completion
    }
}

/// Listens to one answer.
pub(crate) struct Tally {
    counter: Arc<dyn TokenCounter>,
    prompt_tokens: Option<u32>,
    text: Option<Zeroizing<String>>,
}

impl Tally {
    /// For an answer to this request.
    pub(crate) fn new(counter: Arc<dyn TokenCounter>, request: &[u8]) -> Self {
        #[derive(Deserialize)]
        struct Held {
            response_format: Option<IgnoredAny>,
            tools: Option<IgnoredAny>,
        }
        let prompt_tokens = counter.prompt_tokens(request);
        // An answer that is held to a grammar may be made of other tokens than its text would be.
        let held = serde_json::from_slice::<Held>(request);
        let is_held = held.is_ok_and(|held| held.response_format.is_some() || held.tools.is_some());
        // Room for an ordinary answer, so that growing leaves few copies behind.
        let text = (!is_held).then(|| Zeroizing::new(String::with_capacity(16 << 10)));
        Self { counter, prompt_tokens, text }
    }

    /// Hears an OpenAI chunk, or a whole object.
    pub(crate) fn hear(&mut self, json: &[u8]) {
        let Some(text) = &mut self.text else { return };
        let Ok(object) = serde_json::from_slice::<Object>(json) else { return self.text = None };
        for choice in object.choices {
            let said = choice.delta.or(choice.message);
            if said.as_ref().is_some_and(|said| said.tool_calls.is_some()) {
                return self.text = None; // a call's own words are not in the answer
            }
            let said = said.and_then(|said| said.content).map(Zeroizing::new);
            let said = said.as_deref().map_or("", String::as_str);
            if text.len() + said.len() > MAX_TEXT {
                return self.text = None;
            }
            text.push_str(said);
        }
    }

    /// Both counts, once the answer is whole. A worker that refused billed what its receipt says.
    pub(crate) fn finish(self, claimed: Usage) -> Recount {
        let completion_tokens = self.text.map(|text| self.counter.text_tokens(&text));
        // A request that was refused before it was read has no prompt to count.
        let prompt_tokens = self.prompt_tokens.filter(|_| claimed != Usage::default());
        Recount { claimed, prompt_tokens, completion_tokens }
    }
}

#[derive(Deserialize)]
struct Object {
    #[serde(default)]
    choices: Vec<Choice>,
}

#[derive(Deserialize)]
struct Choice {
    delta: Option<Said>,
    message: Option<Said>,
}

#[derive(Deserialize)]
struct Said {
    content: Option<String>,
    tool_calls: Option<IgnoredAny>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One token for each byte.
    struct Bytes;

    impl TokenCounter for Bytes {
        fn weights(&self) -> [u8; 32] {
            [1; 32]
        }

        fn prompt_tokens(&self, request: &[u8]) -> Option<u32> {
            u32::try_from(request.len()).ok()
        }

        fn text_tokens(&self, text: &str) -> u32 {
            u32::try_from(text.len()).expect("short")
        }
    }

    fn claimed(prompt_tokens: u32, completion_tokens: u32) -> Usage {
        Usage { prompt_tokens, cached_tokens: 0, completion_tokens }
    }

    fn tally(chunks: &[&str]) -> Tally {
        let mut tally = Tally::new(Arc::new(Bytes), b"request");
        chunks.iter().for_each(|chunk| tally.hear(chunk.as_bytes()));
        tally
    }

    const CHUNKS: [&str; 4] = [
        r#"{"choices":[{"delta":{"role":"assistant","content":""}}]}"#,
        r#"{"choices":[{"delta":{"content":"hello "}}]}"#,
        r#"{"choices":[{"delta":{"content":"world"}}]}"#,
        r#"{"choices":[],"usage":{"prompt_tokens":1}}"#,
    ];

    #[test]
    fn a_stream_and_a_whole_answer_are_counted_alike() {
        let streamed = tally(&CHUNKS).finish(claimed(7, 11));
        let whole = tally(&[r#"{"choices":[{"message":{"role":"assistant","content":"hello world"}}]}"#]);
        assert_eq!(streamed, whole.finish(claimed(7, 11)));
        assert_eq!((streamed.prompt_tokens, streamed.completion_tokens), (Some(7), Some(11)));
        assert!(!streamed.differs());
    }

    #[test]
    fn a_prompt_that_is_counted_otherwise_differs_either_way() {
        assert!(tally(&CHUNKS).finish(claimed(8, 11)).differs());
        assert!(tally(&CHUNKS).finish(claimed(6, 11)).differs());
    }

    #[test]
    fn an_answer_differs_only_beyond_what_its_text_explains() {
        // 11, a share of 1 and 16 more.
        assert!(!tally(&CHUNKS).finish(claimed(7, 28)).differs());
        assert!(tally(&CHUNKS).finish(claimed(7, 29)).differs());
        assert!(!tally(&CHUNKS).finish(claimed(7, 0)).differs());
    }

    #[test]
    fn what_cannot_be_counted_accuses_nobody() {
        let unreadable = tally(&["not JSON"]).finish(claimed(7, 10_000));
        assert_eq!((unreadable.completion_tokens, unreadable.differs()), (None, false));
        let long = format!(r#"{{"choices":[{{"delta":{{"content":"{}"}}}}]}}"#, "a".repeat(MAX_TEXT));
        assert_eq!(tally(&[&long, CHUNKS[1]]).finish(claimed(7, 1)).completion_tokens, None);
        let held = br#"{"response_format":{"type":"json_object"}}"#;
        let mut held = Tally::new(Arc::new(Bytes), held);
        held.hear(CHUNKS[1].as_bytes());
        assert_eq!(held.finish(claimed(7, 10_000)).completion_tokens, None);
        let call = r#"{"choices":[{"delta":{"tool_calls":[{"index":0}]}}]}"#;
        assert!(!tally(&[call]).finish(claimed(7, 10_000)).differs());
        // Refused before the prompt was read: nothing is claimed.
        assert!(!tally(&[]).finish(claimed(0, 0)).differs());
    }
}
