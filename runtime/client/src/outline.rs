//! What the local endpoint reads of a request: which worker it is for, and the most that it may cost. The rest is for the
//! guest alone, and so are the refusals of wrong fields: what cannot be read here counts as if it were not there.

use cocoon_protocol::http::ApiError;
use cocoon_protocol::{Budget, Endpoint, MAX_RUN_TOKENS};
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};

/// Completion tokens reserved for each answer where a request names no limit.
pub const DEFAULT_COMPLETION_TOKENS: u32 = 1024;
/// The same of `/v1/completions`, as OpenAI has it.
const DEFAULT_OF_COMPLETIONS: u32 = 16;
/// Tokens that a chat template may add around the messages.
const TEMPLATE_TOKENS: u32 = 512;
/// Tokens that the explanation of tools may add, and how much longer each tool may become.
const TOOLS_TOKENS: u32 = 1024;
const TOOLS_FACTOR: u32 = 4;
/// As the guest: more are refused there, and need no budget.
const MAX_CHOICES: u64 = 16;
const MAX_PROMPTS: u64 = 64;
/// As the guest, of a request for vectors.
const MAX_EMBEDDED: u32 = MAX_RUN_TOKENS as u32;

/// What is read of a request.
#[derive(Deserialize)]
pub(crate) struct Outline {
    #[serde(default)]
    model: Lenient<String>,
    #[serde(default)]
    stream: Lenient<bool>,
    #[serde(default)]
    max_tokens: Lenient<u64>,
    #[serde(default)]
    max_completion_tokens: Lenient<u64>,
    #[serde(default)]
    max_output_tokens: Lenient<u64>,
    #[serde(default)]
    n: Lenient<u64>,
    #[serde(default)]
    prompt: Prompts,
    tools: Option<IgnoredAny>,
    cache_salt: Option<IgnoredAny>,
}

impl Outline {
    /// Reads a body.
    ///
    /// # Errors
    /// It is no JSON object, or names no model.
    pub(crate) fn read(body: &[u8]) -> Result<Self, ApiError> {
        let outline: Self = serde_json::from_slice(body).map_err(|error| {
            ApiError::invalid_request("invalid_json", format!("the body is no JSON object: {error}"))
        })?;
        if outline.model.0.is_none() {
            let message = "model must be the name of a model; see /v1/models";
            return Err(ApiError::invalid_request("missing_required_parameter", message).with_param("model"));
        }
        Ok(outline)
    }

    /// The model that is asked for.
    pub(crate) fn model(&self) -> &str {
        self.model.0.as_deref().unwrap_or_default()
    }

    /// Whether the answer is to be streamed.
    pub(crate) fn streams(&self) -> bool {
        self.stream.0.unwrap_or(false)
    }

    /// Whether it brings a salt of its own.
    pub(crate) fn is_salted(&self) -> bool {
        self.cache_salt.is_some()
    }

    /// The most that it may cost: every byte a token, and all answers as long as they may be.
    pub(crate) fn budget(&self, endpoint: Endpoint, body: &[u8]) -> Budget {
        let answers = self.n.0.unwrap_or(1).clamp(1, MAX_CHOICES) * self.prompt.0.clamp(1, MAX_PROMPTS);
        let (named, default) = match endpoint {
            Endpoint::ChatCompletions => {
                (self.max_completion_tokens.0.or(self.max_tokens.0), DEFAULT_COMPLETION_TOKENS)
            }
            Endpoint::Completions => (self.max_tokens.0, DEFAULT_OF_COMPLETIONS),
            Endpoint::Responses => (self.max_output_tokens.0, DEFAULT_COMPLETION_TOKENS),
            Endpoint::Embeddings => (Some(0), 0),
        };
        let completion = named.unwrap_or(default.into()).saturating_mul(answers);
        let mut budget = budget_for(body, Some(u32::try_from(completion).unwrap_or(u32::MAX)));
        if endpoint == Endpoint::Embeddings {
            budget.prompt_tokens = budget.prompt_tokens.min(MAX_EMBEDDED);
        } else if self.tools.is_some() {
            let more = budget.prompt_tokens.saturating_mul(TOOLS_FACTOR).saturating_add(TOOLS_TOKENS);
            budget.prompt_tokens = blurred(more);
        }
        budget
    }
}

/// The worst case of a request: every byte of its body a token, and the completion limit it names. The prompt's part is
/// rounded up to a power of two, since the budget travels in the clear: it shows about how long a request is, not how long.
pub fn budget_for(body: &[u8], completion_tokens: Option<u32>) -> Budget {
    let bytes = u32::try_from(body.len()).unwrap_or(u32::MAX);
    Budget {
        prompt_tokens: blurred(bytes.saturating_add(TEMPLATE_TOKENS)),
        completion_tokens: completion_tokens.unwrap_or(DEFAULT_COMPLETION_TOKENS),
    }
}

fn blurred(tokens: u32) -> u32 {
    tokens.checked_next_power_of_two().unwrap_or(u32::MAX)
}

/// A value, or nothing where it is of another type.
struct Lenient<T>(Option<T>);

impl<T> Default for Lenient<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Lenient<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either<T> {
            Right(T),
            Wrong(IgnoredAny),
        }
        Ok(match Either::deserialize(deserializer)? {
            Either::Right(value) => Self(Some(value)),
            Either::Wrong(IgnoredAny) => Self(None),
        })
    }
}

/// How many prompts there are: an array of numbers is one, of tokens.
struct Prompts(u64);

impl Default for Prompts {
    fn default() -> Self {
        Self(1)
    }
}

impl<'de> Deserialize<'de> for Prompts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Count;
        impl<'de> Visitor<'de> for Count {
            type Value = Prompts;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("prompts")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Prompts, A::Error> {
                let mut count = 0;
                while let Some(item) = items.next_element::<Lenient<f64>>()? {
                    count += u64::from(item.0.is_none());
                }
                Ok(Prompts(count.max(1)))
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Prompts, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Prompts(1))
            }

            fn visit_str<E>(self, _: &str) -> Result<Prompts, E> {
                Ok(Prompts(1))
            }

            fn visit_bool<E>(self, _: bool) -> Result<Prompts, E> {
                Ok(Prompts(1))
            }

            fn visit_i64<E>(self, _: i64) -> Result<Prompts, E> {
                Ok(Prompts(1))
            }

            fn visit_u64<E>(self, _: u64) -> Result<Prompts, E> {
                Ok(Prompts(1))
            }

            fn visit_f64<E>(self, _: f64) -> Result<Prompts, E> {
                Ok(Prompts(1))
            }

            fn visit_unit<E>(self) -> Result<Prompts, E> {
                Ok(Prompts(1))
            }
        }
        deserializer.deserialize_any(Count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outline(body: &str) -> Outline {
        Outline::read(body.as_bytes()).unwrap_or_else(|error| panic!("{body}: {}", error.error.message))
    }

    fn completion(endpoint: Endpoint, body: &str) -> u32 {
        outline(body).budget(endpoint, body.as_bytes()).completion_tokens
    }

    #[test]
    fn a_budget_covers_every_byte_as_a_token() {
        let budget = budget_for(b"12345", None);
        assert_eq!(budget.prompt_tokens, (5 + TEMPLATE_TOKENS).next_power_of_two());
        let longer = budget_for(b"1234567890", None);
        assert_eq!(longer.prompt_tokens, budget.prompt_tokens, "lengths are blurred");
        assert_eq!(budget.completion_tokens, DEFAULT_COMPLETION_TOKENS);
        assert_eq!(budget_for(b"", Some(7)).completion_tokens, 7);
    }

    #[test]
    fn all_answers_are_within_the_budget() {
        use Endpoint::{ChatCompletions, Completions, Embeddings, Responses};
        assert_eq!(completion(ChatCompletions, r#"{"model":"m","n":3,"max_tokens":5}"#), 15);
        assert_eq!(completion(ChatCompletions, r#"{"model":"m","n":1000000}"#), 16 * 1024);
        assert_eq!(completion(ChatCompletions, r#"{"model":"m","max_completion_tokens":5}"#), 5);
        assert_eq!(completion(Completions, r#"{"model":"m","prompt":["a","b"],"n":2,"max_tokens":3}"#), 12);
        assert_eq!(completion(Completions, r#"{"model":"m","prompt":[1,2,3]}"#), 16);
        assert_eq!(completion(Completions, r#"{"model":"m","prompt":[[1],[2,3]]}"#), 32);
        assert_eq!(completion(Responses, r#"{"model":"m","max_output_tokens":9}"#), 9);
        assert_eq!(completion(Embeddings, r#"{"model":"m","input":"a"}"#), 0);
        let long = format!(r#"{{"model":"m","input":"{}"}}"#, "a".repeat(600_000));
        let of = |endpoint| outline(&long).budget(endpoint, long.as_bytes()).prompt_tokens;
        assert_eq!((of(Embeddings), of(Completions)), (1 << 18, 1 << 20), "more is refused there");
        let (without, with) = (r#"{"model":"m"}"#, r#"{"model":"m","tools":[]}"#);
        let prompt = |body: &str| outline(body).budget(ChatCompletions, body.as_bytes()).prompt_tokens;
        assert!(prompt(with) >= 4 * prompt(without));
    }

    #[test]
    fn wrong_fields_are_left_to_the_guest() {
        let wrong =
            r#"{"model":"m","n":"x","stream":5,"max_tokens":[1],"prompt":{"a":[1]},"max_output_tokens":-1}"#;
        assert!(!outline(wrong).streams());
        assert_eq!(completion(Endpoint::ChatCompletions, wrong), DEFAULT_COMPLETION_TOKENS);
        for prompt in ["null", "true", "5", "-5", "0.5", "[]"] {
            outline(&format!(r#"{{"model":"m","prompt":{prompt}}}"#));
        }
        for (body, code) in
            [("{", "invalid_json"), ("[]", "invalid_json"), ("{}", "missing_required_parameter")]
        {
            let error = Outline::read(body.as_bytes()).err().expect("refused");
            assert_eq!(error.code(), code, "{body}");
        }
        let named = Outline::read(br#"{"model":5}"#).err().expect("refused");
        assert_eq!(named.error.param.as_deref(), Some("model"));
    }
}
