//! Chat requests in OpenAI's words: read, checked, with our defaults. No type here has `Debug`: they hold prompts.

use cocoon_engine::{ChatMessage, GenerateError, Sampling};
use cocoon_protocol::http::ApiError;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use zeroize::Zeroizing;

/// Most messages in a request.
const MAX_MESSAGES: usize = 4096;
/// Most stop strings, as OpenAI.
const MAX_STOPS: usize = 4;
/// Longest stop string in bytes, as the engine.
const MAX_STOP_BYTES: usize = 256;
/// Most tokens with a bias, as OpenAI and the engine.
const MAX_BIASES: usize = 300;
/// Bytes of a cache salt: 128 bits in base64 take 22.
const CACHE_SALT_BYTES: RangeInclusive<usize> = 22..=256;

/// A refusal, to be sealed: only the client may know why.
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) error: ApiError,
}

impl Refusal {
    pub(crate) fn new(status: u16, code: &str, message: impl Into<String>) -> Self {
        Self { status, error: ApiError::invalid_request(code, message) }
    }

    fn field(param: &str, message: impl Into<String>) -> Self {
        Self { status: 400, error: ApiError::invalid_request("invalid_value", message).with_param(param) }
    }

    fn unsupported(param: &str) -> Self {
        let message = format!("{param} is not supported by this worker; leave it out");
        Self {
            status: 400,
            error: ApiError::invalid_request("unsupported_parameter", message).with_param(param),
        }
    }
}

/// A checked request.
pub(crate) struct ChatRequest {
    pub(crate) messages: Vec<ChatMessage>,
    pub(crate) stream: bool,
    /// In streams: a last chunk with the usage.
    pub(crate) include_usage: bool,
    pub(crate) sampling: Sampling,
    pub(crate) max_tokens: Option<u32>,
    pub(crate) stop: Vec<String>,
    /// Token ids with what is added to their logits.
    pub(crate) logit_bias: Vec<(u32, f32)>,
    /// A secret of the client: its requests with the same one share the beginnings of their prompts.
    pub(crate) cache_salt: Option<Zeroizing<String>>,
}

/// The fields that mean something here. What OpenAI knows and we cannot do is refused; what nobody knows is ignored,
/// and so is `model`: the header names it by its weights.
#[derive(Deserialize)]
struct Raw {
    messages: Vec<RawMessage>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    top_k: Option<i64>,
    min_p: Option<f32>,
    repetition_penalty: Option<f32>,
    seed: Option<serde_json::Number>,
    max_tokens: Option<u64>,
    max_completion_tokens: Option<u64>,
    stop: Option<Stop>,
    n: Option<u64>,
    frequency_penalty: Option<f32>,
    presence_penalty: Option<f32>,
    logprobs: Option<bool>,
    top_logprobs: Option<Value>,
    logit_bias: Option<BTreeMap<String, f32>>,
    cache_salt: Option<String>,
    tools: Option<Value>,
    tool_choice: Option<Value>,
    functions: Option<Value>,
    function_call: Option<Value>,
    response_format: Option<ResponseFormat>,
    modalities: Option<Vec<String>>,
    audio: Option<Value>,
    prediction: Option<Value>,
    web_search_options: Option<Value>,
}

#[derive(Deserialize)]
struct RawMessage {
    role: String,
    content: Option<Content>,
    tool_calls: Option<Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Deserialize)]
struct Part {
    #[serde(rename = "type")]
    kind: String,
    text: Option<String>,
}

#[derive(Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Stop {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
struct ResponseFormat {
    #[serde(rename = "type")]
    kind: String,
}

/// Reads a body. `seed` is used where the client gives none.
pub(crate) fn parse(body: &[u8], seed: u64) -> Result<ChatRequest, Refusal> {
    let raw: Raw = serde_json::from_slice(body).map_err(|error| {
        Refusal::new(400, "invalid_json", format!("the body is no chat request: {error}"))
    })?;
    refuse_unsupported(&raw)?;
    Ok(ChatRequest {
        sampling: sampling(&raw, seed)?,
        max_tokens: max_tokens(&raw)?,
        stream: raw.stream.unwrap_or(false),
        include_usage: raw.stream_options.and_then(|options| options.include_usage).unwrap_or(false),
        stop: stop(raw.stop)?,
        logit_bias: logit_bias(raw.logit_bias.unwrap_or_default())?,
        cache_salt: cache_salt(raw.cache_salt)?,
        messages: messages(raw.messages)?,
    })
}

fn refuse_unsupported(raw: &Raw) -> Result<(), Refusal> {
    if raw.n.is_some_and(|n| n != 1) {
        return Err(Refusal::field("n", "n must be 1: send the request again for another answer"));
    }
    let empty = |value: &Option<Value>| match value {
        None | Some(Value::Null) => true,
        Some(Value::Array(list)) => list.is_empty(),
        Some(Value::Object(map)) => map.is_empty(),
        Some(_) => false,
    };
    let none = |value: &Option<Value>| empty(value) || value.as_ref().is_some_and(|value| value == "none");
    let text_only = |kinds: &Vec<String>| kinds.iter().all(|kind| kind == "text");
    let fields = [
        ("tools", empty(&raw.tools)),
        ("tool_choice", none(&raw.tool_choice) || raw.tool_choice.as_ref().is_some_and(|it| it == "auto")),
        ("functions", empty(&raw.functions)),
        ("function_call", none(&raw.function_call)),
        ("logprobs", !raw.logprobs.unwrap_or(false)),
        ("top_logprobs", empty(&raw.top_logprobs)),
        ("response_format", raw.response_format.as_ref().is_none_or(|format| format.kind == "text")),
        ("modalities", raw.modalities.as_ref().is_none_or(text_only)),
        ("audio", empty(&raw.audio)),
        ("prediction", empty(&raw.prediction)),
        ("web_search_options", empty(&raw.web_search_options)),
    ];
    match fields.iter().find(|(_, harmless)| !harmless) {
        Some((field, _)) => Err(Refusal::unsupported(field)),
        None => Ok(()),
    }
}

fn sampling(raw: &Raw, seed: u64) -> Result<Sampling, Refusal> {
    let default = Sampling::default();
    let seed = match &raw.seed {
        None => seed,
        Some(number) => number
            .as_u64()
            .or_else(|| number.as_i64().map(i64::cast_unsigned))
            .ok_or_else(|| Refusal::field("seed", "seed must be a whole number of 64 bits"))?,
    };
    let sampling = Sampling {
        temperature: raw.temperature.unwrap_or(default.temperature),
        top_p: raw.top_p.unwrap_or(default.top_p),
        top_k: top_k(raw.top_k)?,
        min_p: raw.min_p.unwrap_or(default.min_p),
        repetition_penalty: raw.repetition_penalty.unwrap_or(default.repetition_penalty),
        presence_penalty: raw.presence_penalty.unwrap_or(default.presence_penalty),
        frequency_penalty: raw.frequency_penalty.unwrap_or(default.frequency_penalty),
        seed,
    };
    match sampling.check() {
        Ok(()) => Ok(sampling),
        Err(error @ GenerateError::Parameter { what, .. }) => Err(Refusal::field(what, error.to_string())),
        Err(error) => Err(Refusal::new(400, "invalid_value", error.to_string())),
    }
}

/// As vLLM has it: 0 and -1 are off.
fn top_k(given: Option<i64>) -> Result<u32, Refusal> {
    match given {
        None | Some(-1) => Ok(0),
        Some(k) => u32::try_from(k).map_err(|_| Refusal::field("top_k", "top_k must be -1, 0 or a count")),
    }
}

/// OpenAI's form: token ids as strings. The engine holds the values against its limits and its vocabulary.
fn logit_bias(given: BTreeMap<String, f32>) -> Result<Vec<(u32, f32)>, Refusal> {
    let refuse = || {
        let message = format!("logit_bias must map up to {MAX_BIASES} token ids to numbers from -100 to 100");
        Refusal::field("logit_bias", message)
    };
    if given.len() > MAX_BIASES {
        return Err(refuse());
    }
    let read = |(token, bias): (String, f32)| match token.parse() {
        Ok(token) if (-100.0..=100.0).contains(&bias) => Ok((token, bias)),
        _ => Err(refuse()),
    };
    given.into_iter().map(read).collect()
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

fn max_tokens(raw: &Raw) -> Result<Option<u32>, Refusal> {
    let (param, given) = match (raw.max_completion_tokens, raw.max_tokens) {
        (Some(tokens), _) => ("max_completion_tokens", tokens),
        (None, Some(tokens)) => ("max_tokens", tokens),
        (None, None) => return Ok(None),
    };
    match given {
        0 => Err(Refusal::field(param, format!("{param} must be at least 1"))),
        tokens => Ok(Some(u32::try_from(tokens).unwrap_or(u32::MAX))),
    }
}

fn stop(stop: Option<Stop>) -> Result<Vec<String>, Refusal> {
    let strings = match stop {
        None => Vec::new(),
        Some(Stop::One(string)) => vec![string],
        Some(Stop::Many(strings)) => strings,
    };
    let fits = |string: &String| (1..=MAX_STOP_BYTES).contains(&string.len());
    if strings.len() > MAX_STOPS || !strings.iter().all(fits) {
        let message = format!("stop must be up to {MAX_STOPS} strings of 1 to {MAX_STOP_BYTES} bytes");
        return Err(Refusal::field("stop", message));
    }
    Ok(strings)
}

fn messages(raw: Vec<RawMessage>) -> Result<Vec<ChatMessage>, Refusal> {
    if raw.is_empty() || raw.len() > MAX_MESSAGES {
        let message = format!("messages must hold 1 to {MAX_MESSAGES} messages, not {}", raw.len());
        return Err(Refusal::field("messages", message));
    }
    raw.into_iter().enumerate().map(|(index, raw)| message(index, raw)).collect()
}

fn message(index: usize, raw: RawMessage) -> Result<ChatMessage, Refusal> {
    let role = match raw.role.as_str() {
        "developer" => "system".to_owned(), // OpenAI's newer name for it
        "system" | "user" | "assistant" => raw.role,
        _ => {
            return Err(Refusal::field(
                "messages",
                format!("messages[{index}].role is not one this worker knows"),
            ));
        }
    };
    if raw.tool_calls.is_some_and(|calls| !calls.is_null()) {
        return Err(Refusal::unsupported("tool_calls"));
    }
    let content = match raw.content {
        Some(Content::Text(text)) => text,
        Some(Content::Parts(parts)) => joined(index, parts)?,
        None => return Err(Refusal::field("messages", format!("messages[{index}].content is missing"))),
    };
    Ok(ChatMessage { role, content })
}

fn joined(index: usize, parts: Vec<Part>) -> Result<String, Refusal> {
    let text = |part: Part| match (part.kind.as_str(), part.text) {
        ("text", Some(text)) => Ok(text),
        _ => Err(Refusal::field("messages", format!("messages[{index}].content has a part that is no text"))),
    };
    parts.into_iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(extra: &str) -> Result<ChatRequest, Refusal> {
        parse(format!(r#"{{"messages":[{{"role":"user","content":"hi"}}]{extra}}}"#).as_bytes(), 99)
    }

    #[test]
    fn a_plain_request_gets_the_defaults() {
        let Ok(request) = with("") else { panic!("a plain request is fine") };
        assert!(!request.stream && !request.include_usage && request.stop.is_empty());
        assert_eq!(request.max_tokens, None);
        assert_eq!(request.sampling, Sampling { seed: 99, ..Sampling::default() });
        assert!((0.2..=0.7).contains(&request.sampling.temperature));
        assert_eq!(request.sampling.repetition_penalty, 1.1);
    }

    #[test]
    fn every_supported_field_is_read() {
        let Ok(request) = with(
            r#","model":"any","stream":true,"stream_options":{"include_usage":true},"temperature":0,"top_p":0.5,
            "seed":-1,"max_tokens":5,"max_completion_tokens":7,"stop":["a","b"],"repetition_penalty":1.2,
            "n":1,"tools":[],"tool_choice":"none","logit_bias":{"7":-100,"12":2.5},"response_format":{"type":"text"},
            "user":"me","frequency_penalty":0.5,"presence_penalty":-2,"logprobs":false,"top_k":40,"min_p":0.05,
            "cache_salt":"c2VjcmV0IHNlY3JldCBzZWNyZXQ","a field of the future":{"x":[1]}"#,
        ) else {
            panic!("all of these are fine")
        };
        assert!(request.stream && request.include_usage);
        let expected = Sampling {
            temperature: 0.0,
            top_p: 0.5,
            top_k: 40,
            min_p: 0.05,
            repetition_penalty: 1.2,
            presence_penalty: -2.0,
            frequency_penalty: 0.5,
            seed: u64::MAX,
        };
        assert_eq!(request.sampling, expected);
        assert_eq!(request.logit_bias, [(12, 2.5), (7, -100.0)]);
        assert_eq!(request.cache_salt.as_ref().map(|salt| salt.len()), Some(27));
        assert_eq!((request.max_tokens, request.stop), (Some(7), vec!["a".to_owned(), "b".to_owned()]));
    }

    #[test]
    fn text_parts_are_joined_and_developers_are_system() {
        let body = br#"{"messages":[{"role":"developer","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}]}"#;
        let Ok(request) = parse(body, 0) else { panic!("parts are fine") };
        assert!(request.messages[0].role == "system" && request.messages[0].content == "ab");
    }

    #[test]
    fn one_wrong_field_at_a_time_is_refused_by_name() {
        for (extra, code, param) in [
            (r#","n":2"#, "invalid_value", Some("n")),
            (r#","temperature":2.5"#, "invalid_value", Some("temperature")),
            (r#","temperature":-1"#, "invalid_value", Some("temperature")),
            (r#","top_p":0"#, "invalid_value", Some("top_p")),
            (r#","repetition_penalty":9"#, "invalid_value", Some("repetition_penalty")),
            (r#","seed":1.5"#, "invalid_value", Some("seed")),
            (r#","max_tokens":0"#, "invalid_value", Some("max_tokens")),
            (r#","max_tokens":-1"#, "invalid_json", None),
            (r#","stop":["a","b","c","d","e"]"#, "invalid_value", Some("stop")),
            (r#","stop":"""#, "invalid_value", Some("stop")),
            (r#","stop":5"#, "invalid_json", None),
            (r#","tools":[{"type":"function"}]"#, "unsupported_parameter", Some("tools")),
            (r#","tool_choice":"required""#, "unsupported_parameter", Some("tool_choice")),
            (r#","functions":[{}]"#, "unsupported_parameter", Some("functions")),
            (r#","logprobs":true"#, "unsupported_parameter", Some("logprobs")),
            (r#","top_logprobs":3"#, "unsupported_parameter", Some("top_logprobs")),
            (r#","logit_bias":{"1":101}"#, "invalid_value", Some("logit_bias")),
            (r#","logit_bias":{"one":1}"#, "invalid_value", Some("logit_bias")),
            (r#","logit_bias":[5]"#, "invalid_json", None),
            (r#","frequency_penalty":2.5"#, "invalid_value", Some("frequency_penalty")),
            (r#","presence_penalty":-2.5"#, "invalid_value", Some("presence_penalty")),
            (r#","min_p":2"#, "invalid_value", Some("min_p")),
            (r#","top_k":-2"#, "invalid_value", Some("top_k")),
            (r#","cache_salt":"guessable""#, "invalid_value", Some("cache_salt")),
            (
                r#","response_format":{"type":"json_object"}"#,
                "unsupported_parameter",
                Some("response_format"),
            ),
            (r#","modalities":["audio"]"#, "unsupported_parameter", Some("modalities")),
        ] {
            let Err(refusal) = with(extra) else { panic!("{extra} was accepted") };
            assert_eq!(refusal.status, 400);
            assert_eq!(refusal.error.code(), code, "{extra}");
            assert_eq!(refusal.error.error.param.as_deref(), param, "{extra}");
        }
    }

    #[test]
    fn broken_bodies_and_messages_are_refused() {
        for body in [
            "",
            "{",
            "[]",
            "{}",
            r#"{"messages":[]}"#,
            r#"{"messages":[{"role":"user"}]}"#,
            r#"{"messages":[{"role":"tool","content":"x"}]}"#,
            r#"{"messages":[{"role":"user","content":5}]}"#,
            r#"{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{}}]}]}"#,
            r#"{"messages":[{"role":"assistant","content":"x","tool_calls":[{}]}]}"#,
        ] {
            assert!(parse(body.as_bytes(), 0).is_err(), "{body} was accepted");
        }
        let deep = format!(r#"{{"messages":{}"#, "[".repeat(100_000));
        assert!(parse(deep.as_bytes(), 0).is_err());
        assert!(parse(&[0xff; 100], 0).is_err());
    }
    /// Seeded; `COCOON_FUZZ_ITERATIONS` is the budget.
    #[test]
    fn mutated_bodies_are_read_or_refused() {
        let valid = br#"{"messages":[{"role":"user","content":[{"type":"text","text":"hi"}]}],"stream":true,"stop":["a"],
            "temperature":0.5,"top_p":1,"seed":7,"max_tokens":5,"stream_options":{"include_usage":true},"tools":null}"#;
        let budget = std::env::var("COCOON_FUZZ_ITERATIONS").ok().and_then(|text| text.parse().ok());
        let special = b"{}[]\",:0-9.eE\\";
        let mut state = 0xC0C0_0003u64;
        let mut below = |bound: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % bound
        };
        for _ in 0..budget.unwrap_or(20_000) {
            let mut body = valid.to_vec();
            for _ in 0..=below(3) {
                let at = below(body.len());
                match below(3) {
                    0 => body[at] = below(256) as u8,
                    1 => body[at] = special[below(special.len())],
                    _ => drop(body.drain(at..(at + below(9)).min(body.len()))),
                }
            }
            if let Ok(request) = parse(&body, 0) {
                assert!(!request.messages.is_empty() && request.stop.len() <= MAX_STOPS);
                assert!(request.sampling.check().is_ok());
            }
        }
    }
}
