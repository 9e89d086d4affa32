//! `/v1/embeddings`: requests and their answer.

use super::Prompt;
use super::completions::prompts;
use super::fields::Fields;
use super::options::IGNORED;
use super::refusal::Refusal;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use cocoon_protocol::{Answer, MAX_WHOLE, Usage};
use serde_json::json;
use std::io::Write;
use zeroize::Zeroizing;

/// Most inputs of a request, as OpenAI.
const MAX_INPUTS: usize = 2048;
/// Bytes after which a piece of an answer is due: with one more vector it fits into few frames.
const PIECE: usize = 48 * 1024;
/// Most bytes of a number and its comma as JSON: a sign, nine digits and a point, an exponent.
const NUMBER_BYTES: usize = 16;
/// Most bytes around a vector, and of what ends the answer: the model's name among them.
const AROUND: usize = 1024;

/// A checked request for vectors.
pub(crate) struct EmbeddingsRequest {
    /// Texts or tokens, each to become one vector.
    pub(crate) inputs: Vec<Prompt>,
    /// Vectors as base64 of little-endian 32-bit floats.
    base64: bool,
    /// Numbers of each vector, where the request says.
    dimensions: Option<usize>,
}

pub(super) fn read(body: &[u8]) -> Result<EmbeddingsRequest, Refusal> {
    let mut fields = Fields::read(body)?;
    fields.ignore(IGNORED);
    fields.ignore(&["cache_salt"]); // the client's endpoint may add it; no prefix is kept here
    let inputs = prompts("input", fields.take("input"), MAX_INPUTS)?;
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
    /// Whoever tells the answer of a model whose vectors have so many dimensions.
    ///
    /// # Errors
    /// Other dimensions were asked for, or the answer would be too long.
    pub(crate) fn voice(&self, model: &str, dimensions: usize) -> Result<VectorsVoice, Refusal> {
        if self.dimensions.is_some_and(|asked| asked != dimensions) {
            let message = format!(
                "{model} has vectors of {dimensions} dimensions, and was not made for shorter ones: leave dimensions out"
            );
            return Err(Refusal::field("dimensions", message));
        }
        let of_one = dimensions.saturating_mul(NUMBER_BYTES).saturating_add(AROUND);
        let most = MAX_WHOLE / of_one;
        if self.inputs.len() > most {
            let message = format!("an answer holds at most {most} vectors of this model: send fewer inputs");
            return Err(Refusal::field("input", message));
        }
        let mut voice = VectorsVoice {
            base64: self.base64,
            model: model.to_owned(),
            told: 0,
            room: PIECE + of_one,
            piece: Zeroizing::default(),
        };
        voice.piece.reserve_exact(voice.room);
        voice.write(r#"{"object":"list","data":["#);
        Ok(voice)
    }
}

/// Tells vectors in pieces, which together are one JSON object. It holds what was told and not taken, and wipes it.
pub(crate) struct VectorsVoice {
    base64: bool,
    model: String,
    /// Vectors so far.
    told: usize,
    /// Bytes of the longest piece: one that grew would leave copies behind.
    room: usize,
    piece: Zeroizing<Vec<u8>>,
}

impl VectorsVoice {
    /// The next input's vector.
    pub(crate) fn say(&mut self, vector: &[f32]) {
        let comma = if self.told == 0 { "" } else { "," };
        self.write(&format!(r#"{comma}{{"object":"embedding","index":{},"embedding":"#, self.told));
        if self.base64 {
            let bytes =
                Zeroizing::new(vector.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<_>>());
            self.write("\"");
            self.write(&Zeroizing::new(BASE64_STANDARD.encode(bytes.as_slice())));
            self.write("\"");
        } else {
            // The shortest digits that are this 32-bit number.
            serde_json::to_writer(&mut *self.piece, vector).expect("numbers encode, and memory takes them");
        }
        self.write("}");
        self.told += 1;
    }

    /// Whether there is enough to be sent.
    pub(crate) fn is_due(&self) -> bool {
        self.piece.len() >= PIECE
    }

    /// What was told since the last time.
    pub(crate) fn take(&mut self) -> Answer {
        Answer::new(std::mem::replace(&mut *self.piece, Vec::with_capacity(self.room)))
    }

    /// The rest, after the last.
    pub(crate) fn close(mut self, usage: Usage) -> Answer {
        let tokens = usage.prompt_tokens;
        let (model, usage) = (json!(self.model), json!({"prompt_tokens": tokens, "total_tokens": tokens}));
        self.write(&format!(r#"],"model":{model},"usage":{usage}}}"#));
        self.take()
    }

    fn write(&mut self, text: &str) {
        self.piece.write_all(text.as_bytes()).expect("memory takes it");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    /// The answer of a model of three dimensions, as the client puts it together, and of how many pieces.
    fn ask(body: &str, vectors: &[[f32; 3]]) -> Result<(Value, usize), Refusal> {
        let mut voice = read(body.as_bytes())?.voice("m", 3)?;
        let (mut whole, mut pieces) = (Vec::new(), 1);
        for vector in vectors {
            voice.say(vector);
            if voice.is_due() {
                whole.extend_from_slice(voice.take().expose());
                pieces += 1;
            }
        }
        let usage = Usage { prompt_tokens: 4, ..Usage::default() };
        whole.extend_from_slice(voice.close(usage).expose());
        Ok((serde_json::from_slice(&whole).expect("JSON"), pieces))
    }

    #[test]
    fn each_input_has_its_vector_in_order() {
        let vectors = [[3.0, -0.1, 1e-12], [9.0, 12.0, 0.333_333_34]];
        let Ok((answer, 1)) = ask(r#"{"model":"m","input":["a","bcd"]}"#, &vectors) else {
            panic!("in one piece")
        };
        let expected = json!({
            "object": "list", "model": "m", "usage": {"prompt_tokens": 4, "total_tokens": 4},
            "data": [
                {"object": "embedding", "index": 0, "embedding": [3.0, -0.1, 1e-12]},
                {"object": "embedding", "index": 1, "embedding": [9.0, 12.0, 0.33333334]},
            ],
        });
        assert_eq!(answer, expected);
    }

    #[test]
    fn many_vectors_come_in_pieces_of_one_object_that_never_grow() {
        let body = json!({"input": vec!["a"; MAX_INPUTS]}).to_string();
        let vectors = vec![[-1.175_494_4e-38, f32::MAX, -0.123_456_79]; MAX_INPUTS];
        let Ok((answer, pieces)) = ask(&body, &vectors) else { panic!("as many as may be") };
        let data = answer["data"].as_array().expect("a list");
        assert!(data.len() == MAX_INPUTS && pieces > 2, "{pieces} pieces");
        for (at, item) in data.iter().enumerate() {
            let numbers: Vec<f32> = serde_json::from_value(item["embedding"].clone()).expect("numbers");
            assert!(item["index"] == at && numbers == vectors[at], "{item}");
        }
        let Ok(mut voice) = read(body.as_bytes()).and_then(|request| request.voice("m", 3)) else {
            panic!("fine")
        };
        while !voice.is_due() {
            voice.say(&vectors[0]);
        }
        assert!(voice.piece.capacity() == voice.room, "it grew to {} bytes", voice.piece.capacity());
        let more = json!({"input": vec!["a"; MAX_INPUTS + 1]}).to_string();
        assert_eq!(read(more.as_bytes()).err().map(|refusal| refusal.status), Some(400));
    }

    #[test]
    fn base64_is_of_little_endian_floats() {
        let body = r#"{"input":"a","dimensions":3,"encoding_format":"base64"}"#;
        let Ok((answer, _)) = ask(body, &[[0.6, 0.8, -2.5]]) else { panic!("both are fine") };
        let text = answer["data"][0]["embedding"].as_str().expect("base64");
        let bytes = BASE64_STANDARD.decode(text).expect("base64");
        assert_eq!(bytes, [0.6f32, 0.8, -2.5].map(f32::to_le_bytes).concat());
    }

    #[test]
    fn one_wrong_field_at_a_time_is_refused_by_name() {
        for (body, code, param) in [
            ("{}", "missing_required_parameter", "input"),
            (r#"{"input":null}"#, "missing_required_parameter", "input"),
            (r#"{"input":[]}"#, "invalid_value", "input"),
            (r#"{"input":""}"#, "invalid_value", "input"),
            (r#"{"input":["a",""]}"#, "invalid_value", "input"),
            (r#"{"input":[[]]}"#, "invalid_value", "input"),
            (r#"{"input":[[1],["a"]]}"#, "invalid_value", "input"),
            (r#"{"input":[1.5]}"#, "invalid_value", "input"),
            (r#"{"input":{"a":1}}"#, "invalid_type", "input"),
            (r#"{"input":["a",[1]],"dimensions":0}"#, "invalid_value", "dimensions"),
            (r#"{"input":"a","dimensions":2}"#, "invalid_value", "dimensions"),
            (r#"{"input":"a","dimensions":4}"#, "invalid_value", "dimensions"),
            (r#"{"input":"a","encoding_format":"hex"}"#, "invalid_value", "encoding_format"),
            (r#"{"input":"a","temperature":1}"#, "unknown_parameter", "temperature"),
        ] {
            let Err(refusal) = ask(body, &[[1.0; 3]]) else { panic!("{body} was accepted") };
            assert_eq!((refusal.status, refusal.error.code()), (400, code), "{body}");
            assert_eq!(refusal.error.error.param.as_deref(), Some(param), "{body}");
        }
        let Ok(request) = read(json!({"input": vec!["a"; MAX_INPUTS]}).to_string().as_bytes()) else {
            panic!("fine")
        };
        assert!(request.voice("m", 1024).is_ok());
        let refusal = request.voice("m", 1 << 16).err().expect("it is too long");
        assert_eq!(refusal.error.error.param.as_deref(), Some("input"));
    }
}
