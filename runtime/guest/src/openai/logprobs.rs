//! How likely tokens were, in OpenAI's shapes.

use cocoon_engine::{Logprobs, Tokenizer};
use serde_json::{Value, json};

/// What OpenAI tells where a probability is 0: JSON has no infinity.
const IMPOSSIBLE: f32 = -9999.0;

/// As JSON can hold it, with as few digits as name the number.
pub(super) fn number(logprob: f32) -> Value {
    decimal(if logprob.is_finite() { logprob.max(IMPOSSIBLE) } else { IMPOSSIBLE })
}

/// A number of 32 bits by its own shortest decimals: 0.4, and not the nearest one of 64 bits, which has seventeen digits.
pub(super) fn decimal(number: f32) -> Value {
    number.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}

/// A token's bytes: what it adds to a text, or the name of one that adds none.
fn bytes(tokenizer: &Tokenizer, token: u32) -> Vec<u8> {
    match tokenizer.text_of(token) {
        [] => tokenizer.decode(&[token]),
        text => text.to_vec(),
    }
}

/// A token's text as a reader sees it: a part of a character becomes U+FFFD; its bytes stand beside it.
pub(super) fn text(tokenizer: &Tokenizer, token: u32) -> String {
    String::from_utf8_lossy(&bytes(tokenizer, token)).into_owned()
}

/// In the shape of chat completions.
pub(super) fn of(tokenizer: &Tokenizer, token: u32, likely: &Logprobs) -> Value {
    let entry = |token: u32, logprob: f32| {
        let bytes = bytes(tokenizer, token);
        json!({"token": String::from_utf8_lossy(&bytes), "logprob": number(logprob), "bytes": bytes})
    };
    let mut told = entry(token, likely.logprob);
    told["top_logprobs"] = likely.top.iter().map(|(token, logprob)| entry(*token, *logprob)).collect();
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_no_more_digits_than_they_were_given_with() {
        for (number, written) in
            [(0.4, "0.4"), (1.1, "1.1"), (0.0, "0.0"), (-0.000_012_5, "-0.0000125"), (2.0, "2.0")]
        {
            assert_eq!(decimal(number).to_string(), written);
        }
        assert_eq!(number(f32::NEG_INFINITY).to_string(), "-9999.0");
        assert_eq!(number(-20_000.0).to_string(), "-9999.0");
        assert_eq!(number(f32::NAN).to_string(), "-9999.0");
    }
}
