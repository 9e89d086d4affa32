//! What all endpoints that write text have in common: how tokens are chosen, and when an answer ends.

use super::fields::Fields;
use super::refusal::Refusal;
use cocoon_engine::{GenerateError, MAX_CHOICES, Sampling};
use serde_json::Value;
use std::ops::RangeInclusive;
use zeroize::Zeroizing;

/// Most stop strings, as OpenAI.
pub(crate) const MAX_STOPS: usize = 4;
/// Longest stop string in bytes, as the engine.
const MAX_STOP_BYTES: usize = 256;
/// Most tokens with a bias, as OpenAI and the engine.
const MAX_BIASES: usize = 300;
/// Bytes of a cache salt: 128 bits in base64 take 22.
const CACHE_SALT_BYTES: RangeInclusive<usize> = 22..=256;
/// Fields that change nothing of an answer: who asks and what for is nothing that a worker may know or keep.
pub(crate) const IGNORED: &[&str] = &[
    "model", // the header names it by its weights
    "user",
    "metadata",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key", // the client's cache_salt does this, and is a secret
    "prompt_cache_retention",
];

/// How to answer.
pub(crate) struct Options {
    pub(crate) sampling: Sampling,
    pub(crate) stop: Vec<String>,
    /// Token ids with what is added to their logits.
    pub(crate) logit_bias: Vec<(u32, f32)>,
    /// Answers to each prompt.
    pub(crate) choices: u32,
    /// A secret of the client: its requests with the same one share the beginnings of their prompts.
    pub(crate) cache_salt: Option<Zeroizing<String>>,
    pub(crate) stream: bool,
    /// In streams: a last chunk with the usage.
    pub(crate) include_usage: bool,
}

impl Options {
    /// Takes the common fields out. `seed` is used where the client gives none.
    pub(crate) fn take(fields: &mut Fields, seed: u64) -> Result<Self, Refusal> {
        fields.ignore(IGNORED);
        let stream = fields.boolean("stream")?.unwrap_or(false);
        Ok(Self {
            sampling: sampling(fields, seed)?,
            stop: stop(fields.take("stop"))?,
            logit_bias: logit_bias(fields.take("logit_bias"))?,
            choices: choices(fields)?,
            cache_salt: cache_salt(fields.text("cache_salt")?)?,
            stream,
            include_usage: include_usage(fields, stream)?,
        })
    }
}

fn choices(fields: &mut Fields) -> Result<u32, Refusal> {
    match fields.count("n")? {
        None => Ok(1),
        Some(n) if (1..=u64::from(MAX_CHOICES)).contains(&n) => Ok(n as u32),
        Some(_) => Err(Refusal::field("n", format!("n must be between 1 and {MAX_CHOICES}"))),
    }
}

fn include_usage(fields: &mut Fields, stream: bool) -> Result<bool, Refusal> {
    let Some(mut options) = fields.object("stream_options")? else { return Ok(false) };
    if !stream {
        return Err(Refusal::field("stream_options", "stream_options is only allowed where stream is true"));
    }
    let include = options.boolean("include_usage")?.unwrap_or(false);
    options.ignore(&["include_obfuscation"]); // every sealed frame is padded anyway
    options.finish()?;
    Ok(include)
}

fn sampling(fields: &mut Fields, seed: u64) -> Result<Sampling, Refusal> {
    let default = Sampling::default();
    let seed = match fields.take("seed") {
        None => seed,
        Some(value) => {
            let whole = value.as_u64().or_else(|| value.as_i64().map(i64::cast_unsigned));
            whole.ok_or_else(|| Refusal::wrong_type("seed", "a whole number of 64 bits", &value))?
        }
    };
    let sampling = Sampling {
        temperature: fields.number("temperature")?.unwrap_or(default.temperature),
        top_p: fields.number("top_p")?.unwrap_or(default.top_p),
        top_k: top_k(fields.take("top_k"))?,
        min_p: fields.number("min_p")?.unwrap_or(default.min_p),
        repetition_penalty: fields.number("repetition_penalty")?.unwrap_or(default.repetition_penalty),
        presence_penalty: fields.number("presence_penalty")?.unwrap_or(default.presence_penalty),
        frequency_penalty: fields.number("frequency_penalty")?.unwrap_or(default.frequency_penalty),
        seed,
    };
    match sampling.check() {
        Ok(()) => Ok(sampling),
        Err(error @ GenerateError::Parameter { what, .. }) => Err(Refusal::field(what, error.to_string())),
        Err(error) => Err(Refusal::new(400, "invalid_value", error.to_string())),
    }
}

/// As vLLM has it: 0 and -1 are off.
fn top_k(given: Option<Value>) -> Result<u32, Refusal> {
    let Some(value) = given else { return Ok(0) };
    match value.as_i64() {
        Some(-1) => Ok(0),
        Some(k) => u32::try_from(k).map_err(|_| Refusal::field("top_k", "top_k must be -1, 0 or a count")),
        None => Err(Refusal::wrong_type("top_k", "a whole number", &value)),
    }
}

/// OpenAI's form: token ids as strings. The engine holds the values against its limits and its vocabulary.
fn logit_bias(given: Option<Value>) -> Result<Vec<(u32, f32)>, Refusal> {
    let map = match given {
        None => return Ok(Vec::new()),
        Some(Value::Object(map)) => map,
        Some(other) => return Err(Refusal::wrong_type("logit_bias", "an object", &other)),
    };
    let refuse = || {
        let message = format!("logit_bias must map up to {MAX_BIASES} token ids to numbers from -100 to 100");
        Refusal::field("logit_bias", message)
    };
    if map.len() > MAX_BIASES {
        return Err(refuse());
    }
    let read = |(token, bias): (String, Value)| match (token.parse(), bias.as_f64()) {
        (Ok(token), Some(bias)) if (-100.0..=100.0).contains(&bias) => Ok((token, bias as f32)),
        _ => Err(refuse()),
    };
    let mut biases: Vec<(u32, f32)> = map.into_iter().map(read).collect::<Result<_, _>>()?;
    biases.sort_by_key(|(token, _)| *token);
    Ok(biases)
}

/// vLLM's field. Who knows it can find out by timing what was asked under it, so a short one is refused: it would be guessed.
fn cache_salt(given: Option<String>) -> Result<Option<Zeroizing<String>>, Refusal> {
    let Some(salt) = given.map(Zeroizing::new) else { return Ok(None) };
    if !CACHE_SALT_BYTES.contains(&salt.len()) {
        let (least, most) = (CACHE_SALT_BYTES.start(), CACHE_SALT_BYTES.end());
        let message = format!("cache_salt must be a random secret of {least} to {most} bytes");
        return Err(Refusal::field("cache_salt", message));
    }
    Ok(Some(salt))
}

/// Takes a limit of tokens out, at least `least`.
pub(crate) fn limit(fields: &mut Fields, field: &str, least: u64) -> Result<Option<u32>, Refusal> {
    match fields.count(field)? {
        Some(tokens) if tokens < least => {
            Err(Refusal::field(field, format!("{field} must be at least {least}")))
        }
        given => Ok(given.map(|tokens| u32::try_from(tokens).unwrap_or(u32::MAX))),
    }
}

fn stop(given: Option<Value>) -> Result<Vec<String>, Refusal> {
    let refuse = || {
        let message = format!("stop must be up to {MAX_STOPS} strings of 1 to {MAX_STOP_BYTES} bytes");
        Refusal::field("stop", message)
    };
    let list = match given {
        None => return Ok(Vec::new()),
        Some(Value::Array(list)) => list,
        Some(one @ Value::String(_)) => vec![one],
        Some(other) => return Err(Refusal::wrong_type("stop", "a string or an array of strings", &other)),
    };
    if list.len() > MAX_STOPS {
        return Err(refuse());
    }
    let string = |value: Value| match value {
        Value::String(text) if (1..=MAX_STOP_BYTES).contains(&text.len()) => Ok(text),
        Value::String(_) => Err(refuse()),
        other => Err(Refusal::wrong_type("stop", "a string or an array of strings", &other)),
    };
    list.into_iter().map(string).collect()
}
