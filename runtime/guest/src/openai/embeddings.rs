//! `/v1/embeddings`: requests and their answer.

use super::completions::prompts;
use super::fields::Fields;
use super::options::IGNORED;
use super::refusal::Refusal;
use super::wipe::told;
use super::{Prompt, voice};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use cocoon_protocol::{Answer, Usage};
use serde_json::{Value, json};
use zeroize::Zeroizing;

/// A checked request for vectors.
pub(crate) struct EmbeddingsRequest {
    /// Texts or tokens, each to become one vector.
    pub(crate) inputs: Vec<Prompt>,
    /// Vectors as base64 of little-endian 32-bit floats.
    pub(crate) base64: bool,
    /// So many of each vector's first numbers, scaled to length 1 again.
    pub(crate) dimensions: Option<usize>,
}

/// Something that turns texts into vectors: what a worker whose model does so has.
pub(crate) trait Vectors: Send + Sync {
    /// Numbers of a vector.
    fn dimensions(&self) -> usize;

    /// The vector of a text or of tokens, and how many tokens were read.
    ///
    /// # Errors
    /// The input is too long, or holds tokens that the model does not have.
    fn vector(&self, input: &Prompt) -> Result<(Zeroizing<Vec<f32>>, u32), Refusal>;
}

pub(super) fn read(body: &[u8]) -> Result<EmbeddingsRequest, Refusal> {
    let mut fields = Fields::read(body)?;
    fields.ignore(IGNORED);
    fields.ignore(&["cache_salt"]); // the client's endpoint may add it; no prefix is kept here
    let inputs = prompts("input", fields.take("input"))?;
    let base64 = match fields.text("encoding_format")?.as_deref() {
        None | Some("float") => false,
        Some("base64") => true,
        Some(_) => return Err(Refusal::field("encoding_format", "encoding_format must be float or base64")),
    };
    let dimensions = match fields.count("dimensions")? {
        None => None,
        Some(count) => match usize::try_from(count) {
            Ok(count @ 1..) => Some(count),
            _ => return Err(Refusal::field("dimensions", "dimensions must be at least 1")),
        },
    };
    fields.finish()?;
    Ok(EmbeddingsRequest { inputs, base64, dimensions })
}

impl EmbeddingsRequest {
    /// Makes the vectors, `spend` tells of each one's tokens as they are read and may end the work.
    pub(crate) fn answer(
        &self,
        model: &dyn Vectors,
        name: &str,
        mut spend: impl FnMut(u32) -> Result<(), Refusal>,
    ) -> Result<Answer, Refusal> {
        let most = model.dimensions();
        let dimensions = self.dimensions.unwrap_or(most);
        if dimensions > most {
            let message = format!("this model's vectors have {most} dimensions; ask for as many or fewer");
            return Err(Refusal::field("dimensions", message));
        }
        let (mut data, mut prompt_tokens) = (Vec::new(), 0u32);
        for (index, input) in self.inputs.iter().enumerate() {
            let (mut vector, tokens) = model.vector(input)?;
            prompt_tokens = prompt_tokens.saturating_add(tokens);
            spend(tokens)?;
            shorten(&mut vector, dimensions);
            data.push(json!({"object": "embedding", "index": index, "embedding": self.written(&vector)}));
        }
        let usage = Usage { prompt_tokens, ..Usage::default() };
        let mut usage = voice::usage(usage);
        if let Some(usage) = usage.as_object_mut() {
            usage.retain(|name, _| name == "prompt_tokens" || name == "total_tokens");
        }
        Ok(told(json!({"object": "list", "data": data, "model": name, "usage": usage})))
    }

    fn written(&self, vector: &[f32]) -> Value {
        if !self.base64 {
            return vector.iter().copied().map(f64::from).collect();
        }
        let bytes: Zeroizing<Vec<u8>> =
            vector.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<_>>().into();
        Value::String(BASE64_STANDARD.encode(bytes.as_slice()))
    }
}

/// As OpenAI shortens vectors: the first numbers, at length 1. A vector of no length stays one.
fn shorten(vector: &mut Vec<f32>, dimensions: usize) {
    if vector.len() <= dimensions {
        return;
    }
    vector.truncate(dimensions);
    let length = vector.iter().map(|number| f64::from(*number).powi(2)).sum::<f64>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|number| *number = (f64::from(*number) / length) as f32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lengths of inputs as vectors.
    struct Lengths;

    impl Vectors for Lengths {
        fn dimensions(&self) -> usize {
            3
        }

        fn vector(&self, input: &Prompt) -> Result<(Zeroizing<Vec<f32>>, u32), Refusal> {
            let length = match input {
                Prompt::Text(text) => text.len(),
                Prompt::Tokens(tokens) => tokens.len(),
                Prompt::Chat(_) => 0,
            };
            Ok((vec![3.0 * length as f32, 4.0 * length as f32, 12.0].into(), length as u32))
        }
    }

    fn ask(body: &str) -> Result<Value, Refusal> {
        let answer = read(body.as_bytes())?.answer(&Lengths, "m", |_| Ok(()))?;
        Ok(serde_json::from_slice(answer.expose()).expect("JSON"))
    }

    #[test]
    fn each_input_has_its_vector_in_order() {
        let Ok(answer) = ask(r#"{"model":"m","input":["a","bcd"]}"#) else { panic!("two texts are fine") };
        let expected = json!({
            "object": "list", "model": "m", "usage": {"prompt_tokens": 4, "total_tokens": 4},
            "data": [
                {"object": "embedding", "index": 0, "embedding": [3.0, 4.0, 12.0]},
                {"object": "embedding", "index": 1, "embedding": [9.0, 12.0, 12.0]},
            ],
        });
        assert_eq!(answer, expected);
        let Ok(tokens) = ask(r#"{"input":[5,6]}"#) else { panic!("tokens are fine") };
        assert_eq!(tokens["data"][0]["embedding"], json!([6.0, 8.0, 12.0]));
    }

    #[test]
    fn shorter_vectors_have_length_one_and_base64_is_little_endian() {
        let Ok(answer) = ask(r#"{"input":"a","dimensions":2,"encoding_format":"base64"}"#) else {
            panic!("both are fine")
        };
        let text = answer["data"][0]["embedding"].as_str().expect("base64");
        let bytes = BASE64_STANDARD.decode(text).expect("base64");
        assert_eq!(bytes, [0.6f32.to_le_bytes(), 0.8f32.to_le_bytes()].concat());
    }

    #[test]
    fn one_wrong_field_at_a_time_is_refused_by_name() {
        for (body, code, param) in [
            ("{}", "missing_required_parameter", "input"),
            (r#"{"input":[]}"#, "invalid_value", "input"),
            (r#"{"input":""}"#, "invalid_value", "input"),
            (r#"{"input":{"a":1}}"#, "invalid_type", "input"),
            (r#"{"input":["a",[1]],"dimensions":0}"#, "invalid_value", "dimensions"),
            (r#"{"input":"a","dimensions":4}"#, "invalid_value", "dimensions"),
            (r#"{"input":"a","encoding_format":"hex"}"#, "invalid_value", "encoding_format"),
            (r#"{"input":"a","temperature":1}"#, "unknown_parameter", "temperature"),
        ] {
            let Err(refusal) = ask(body) else { panic!("{body} was accepted") };
            assert_eq!((refusal.status, refusal.error.code()), (400, code), "{body}");
            assert_eq!(refusal.error.error.param.as_deref(), Some(param), "{body}");
        }
    }
}
