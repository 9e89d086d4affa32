//! How likely tokens were, in OpenAI's shapes.

use cocoon_engine::{Logprobs, Tokenizer};
use serde_json::{Value, json};

/// What OpenAI tells where a probability is 0: JSON has no infinity.
const IMPOSSIBLE: f32 = -9999.0;

/// As JSON can hold it.
pub(super) fn number(logprob: f32) -> f32 {
    if logprob.is_finite() { logprob.max(IMPOSSIBLE) } else { IMPOSSIBLE }
}

/// A token's text as a reader sees it: a part of a character becomes U+FFFD; its bytes stand beside it.
pub(super) fn text(tokenizer: &Tokenizer, token: u32) -> String {
    String::from_utf8_lossy(&tokenizer.decode(&[token])).into_owned()
}

/// In the shape of chat completions.
pub(super) fn of(tokenizer: &Tokenizer, token: u32, likely: &Logprobs) -> Value {
    let entry = |token: u32, logprob: f32| {
        let bytes = tokenizer.decode(&[token]);
        json!({"token": text(tokenizer, token), "logprob": number(logprob), "bytes": bytes})
    };
    let mut told = entry(token, likely.logprob);
    told["top_logprobs"] = likely.top.iter().map(|(token, logprob)| entry(*token, *logprob)).collect();
    told
}
