//! `/v1/completions`: requests. The older endpoint: text or tokens in, text out, without a chat template.

use super::fields::Fields;
use super::format::Format;
use super::options::{self, Options};
use super::refusal::Refusal;
use super::{Call, Prompt, Style};
use serde_json::Value;

/// Most prompts of a request: each is a sequence of its own in the engine.
pub(super) const MAX_PROMPTS: usize = 64;
/// Most answers to all prompts together.
const MAX_ANSWERS: usize = 128;
/// Tokens of an answer where none are named, as OpenAI.
const DEFAULT_TOKENS: u32 = 16;
/// Most alternatives of a token here, as OpenAI.
const MAX_LOGPROBS: u64 = 5;

pub(super) const REFUSED: &[(&str, &str)] = &[("suffix", "it does not fill in the middle")];

pub(super) fn read(body: &[u8], seed: u64) -> Result<Call, Refusal> {
    let mut fields = Fields::read(body)?;
    let prompts = prompts("prompt", fields.take("prompt"), MAX_PROMPTS)?;
    let options = Options::take(&mut fields, seed)?;
    let max_tokens = options::limit(&mut fields, "max_tokens", 0)?.or(Some(DEFAULT_TOKENS));
    let logprobs = match fields.count("logprobs")? {
        Some(top) if top > MAX_LOGPROBS => {
            return Err(Refusal::field("logprobs", format!("logprobs must be between 0 and {MAX_LOGPROBS}")));
        }
        given => given.map(|top| top as u32),
    };
    let echo = fields.boolean("echo")?.unwrap_or(false);
    if echo && logprobs.is_some() {
        let message = "echo and logprobs cannot go together here: the prompt's tokens have no logprobs";
        return Err(Refusal::field("echo", message));
    }
    match fields.count("best_of")? {
        Some(best) if best != u64::from(options.choices) => {
            return Err(Refusal::field("best_of", "best_of must be n: no answer is thrown away here"));
        }
        _ => {}
    }
    fields.refuse(REFUSED)?;
    fields.finish()?;
    if prompts.len() * options.choices as usize > MAX_ANSWERS {
        return Err(Refusal::field(
            "n",
            format!("all prompts together must ask for at most {MAX_ANSWERS} answers"),
        ));
    }
    let (format, tools, style) = (Format::Free, None, Style::Completion { echo });
    Ok(Call { prompts, options, max_tokens, logprobs, format, tools, form: None, style })
}

/// One or several texts, or tokens: up to `most` of them. `field` names them in refusals.
pub(super) fn prompts(field: &str, given: Option<Value>, most: usize) -> Result<Vec<Prompt>, Refusal> {
    const EXPECTED: &str =
        "a string, an array of strings, an array of tokens or an array of arrays of tokens";
    let list = match given {
        None => return Err(Refusal::missing(field)),
        Some(Value::String(text)) => vec![Value::String(text)],
        Some(Value::Array(list)) if list.iter().any(Value::is_number) => vec![Value::Array(list)],
        Some(Value::Array(list)) => list,
        Some(other) => return Err(Refusal::wrong_type(field, EXPECTED, &other)),
    };
    if list.is_empty() || list.len() > most {
        let message = format!("{field} must hold 1 to {most} texts or arrays of tokens, not {}", list.len());
        return Err(Refusal::field(field, message));
    }
    let prompt = |value: Value| match value {
        Value::String(text) if text.is_empty() => {
            Err(Refusal::field(field, format!("{field} must not be empty")))
        }
        Value::String(text) => Ok(Prompt::Text(text)),
        Value::Array(tokens) if tokens.is_empty() => {
            Err(Refusal::field(field, format!("{field} must not be empty")))
        }
        Value::Array(tokens) => {
            let token = |value: &Value| value.as_u64().and_then(|token| u32::try_from(token).ok());
            let tokens: Option<Vec<u32>> = tokens.iter().map(token).collect();
            tokens.map(Prompt::Tokens).ok_or_else(|| {
                Refusal::field(field, format!("{field} must be {EXPECTED}; a token is a whole number"))
            })
        }
        other => Err(Refusal::wrong_type(field, EXPECTED, &other)),
    };
    list.into_iter().map(prompt).collect()
}
