//! What an engine was asked and what it wrote, token by token: enough to run it again and compare.

use crate::Outcome;
use crate::cbor::{Fields, Map};
use serde::Serialize;
use zeroize::Zeroizing;

/// Most tokens of a run, prompt and answers together. A longer one is not kept, and cannot be replayed.
pub const MAX_RUN_TOKENS: usize = 1 << 18;
/// Most bytes of an encoded run: its tokens, its grammar, its stop strings and biases, and what is around them.
pub(crate) const MAX_RUN: usize = 4 * MAX_RUN_TOKENS + MAX_GRAMMAR + 16 * 1024;
/// Most bytes of a grammar. A longer one is not kept, and its run cannot be replayed.
const MAX_GRAMMAR: usize = 128 * 1024;

/// Most answers to one prompt, as the engine.
const MAX_CHOICES: usize = 16;
/// Most stop strings, as the engine.
const MAX_STOPS: usize = 16;
/// Longest stop string in bytes, as the engine.
const MAX_STOP_BYTES: usize = 256;
/// Most tokens with a bias, as the engine.
const MAX_BIASES: usize = 300;

/// With what the tokens were drawn, as the guest applied it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Sampling {
    /// Of the random generator.
    pub seed: u64,
    /// 0 is greedy.
    pub temperature: f32,
    /// Nucleus; 1 is all.
    pub top_p: f32,
    /// Only so many of the likeliest; 0 is all.
    pub top_k: u32,
    /// Only those with this share of the likeliest one's probability; 0 is all.
    pub min_p: f32,
    /// 1 is none.
    pub repetition_penalty: f32,
    /// 0 is none.
    pub presence_penalty: f32,
    /// 0 is none.
    pub frequency_penalty: f32,
    /// Most completion tokens that were allowed, of each answer.
    pub max_tokens: u32,
}

/// A request as the engine had it, and all that it wrote.
///
/// No `Debug`: tokens are plaintext.
#[derive(Clone, PartialEq)]
pub struct Run {
    /// The prompt's tokens, template and all.
    pub prompt: Zeroizing<Vec<u32>>,
    /// With what the answer's were drawn.
    pub sampling: Sampling,
    /// Text that ended the answer: up to 16 strings of 1 to 256 bytes.
    pub stop: Vec<String>,
    /// Added to the logits of tokens: up to 300 of them.
    pub logit_bias: Vec<(u32, f32)>,
    /// Whether a grammar said what may come next.
    pub constrained: bool,
    /// That grammar, in the words of the engine's program; `None` where there was none, or it was too long to keep. A
    /// constrained run without it cannot be replayed.
    pub grammar: Option<Zeroizing<Vec<u8>>>,
    /// The answers, up to 16: one unless more were asked for.
    pub written: Vec<Written>,
}

/// One answer.
///
/// No `Debug`: tokens are plaintext.
#[derive(Clone, PartialEq)]
pub struct Written {
    /// Its tokens, without one that ended it.
    pub tokens: Zeroizing<Vec<u32>>,
    /// How it ended.
    pub outcome: Outcome,
}

impl Run {
    /// Whether it is within the limits that [`Self::decode`] keeps.
    pub(crate) fn fits(&self) -> bool {
        let tokens = self.prompt.len() + self.completion_tokens();
        let stops = self.stop.iter().all(|stop| (1..=MAX_STOP_BYTES).contains(&stop.len()));
        tokens <= MAX_RUN_TOKENS
            && stops
            && self.stop.len() <= MAX_STOPS
            && self.grammar.as_ref().is_none_or(|grammar| self.constrained && grammar.len() <= MAX_GRAMMAR)
            && self.logit_bias.len() <= MAX_BIASES
            && (1..=MAX_CHOICES).contains(&self.written.len())
    }

    /// Tokens of all answers together.
    pub fn completion_tokens(&self) -> usize {
        self.written.iter().map(|written| written.tokens.len()).sum()
    }

    /// Canonical CBOR. Tokens are `u32be` one after the other, floats the bits of 32-bit ones.
    pub(crate) fn encode(&self) -> Zeroizing<Vec<u8>> {
        let sampling = &self.sampling;
        let bias: Vec<u32> =
            self.logit_bias.iter().flat_map(|(token, bias)| [*token, bias.to_bits()]).collect();
        let outcomes: Vec<u8> = self.written.iter().map(|written| written.outcome.code()).collect();
        let map = Map::default()
            .bytes(0, &packed(&self.prompt))
            .ints(1, &[sampling.seed, sampling.max_tokens.into(), sampling.top_k.into()])
            .ints(2, &sampling.floats().map(|float| float.to_bits().into()))
            .blobs(3, &self.stop)
            .bytes(4, &packed(&bias))
            .int(5, u8::from(self.constrained))
            .bytes(6, &outcomes)
            .blobs(7, self.written.iter().map(|written| packed(&written.tokens)).map(Packed));
        let map = match &self.grammar {
            None => map,
            Some(grammar) => map.bytes(8, grammar),
        };
        Zeroizing::new(map.encode())
    }

    /// Reads what [`Self::encode`] wrote; `None` for anything else, or what is over a limit. The caller has limited the
    /// length.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields::decode(bytes)?;
        let prompt = unpacked(fields.bytes(0)?)?;
        let [seed, max_tokens, top_k] = fields.ints::<u64, 3>(1)?;
        let sampling = Sampling::of(seed, max_tokens, top_k, fields.ints(2)?)?;
        let stop = fields.blobs(3, MAX_STOPS)?.into_iter().map(|stop| String::from_utf8(stop).ok());
        let stop = stop.collect::<Option<_>>()?;
        let bias = unpacked(fields.bytes(4)?)?;
        let constrained = match fields.int::<u8>(5)? {
            0 => false,
            1 => true,
            _ => return None,
        };
        let outcomes = fields.bytes(6)?;
        let answers = fields.blobs(7, MAX_CHOICES)?;
        let grammar = match fields.has(8) {
            true => Some(Zeroizing::new(fields.bytes(8)?)),
            false => None,
        };
        fields.finish()?;
        if bias.len() % 2 != 0 || outcomes.len() != answers.len() {
            return None;
        }
        let logit_bias = bias.chunks_exact(2).map(|pair| (pair[0], f32::from_bits(pair[1]))).collect();
        let written = answers.into_iter().zip(outcomes).map(|(tokens, outcome)| {
            Some(Written { tokens: unpacked(tokens)?, outcome: Outcome::from_code(outcome)? })
        });
        let written = written.collect::<Option<_>>()?;
        let run = Self { prompt, sampling, stop, logit_bias, constrained, grammar, written };
        run.fits().then_some(run)
    }
}

impl Sampling {
    fn floats(&self) -> [f32; 6] {
        [
            self.temperature,
            self.top_p,
            self.min_p,
            self.repetition_penalty,
            self.presence_penalty,
            self.frequency_penalty,
        ]
    }

    fn of(seed: u64, max_tokens: u64, top_k: u64, bits: [u32; 6]) -> Option<Self> {
        let [temperature, top_p, min_p, repetition_penalty, presence_penalty, frequency_penalty] =
            bits.map(f32::from_bits);
        Some(Self {
            seed,
            temperature,
            top_p,
            top_k: top_k.try_into().ok()?,
            min_p,
            repetition_penalty,
            presence_penalty,
            frequency_penalty,
            max_tokens: max_tokens.try_into().ok()?,
        })
    }
}

/// Wiped bytes as a slice.
struct Packed(Zeroizing<Vec<u8>>);

impl AsRef<[u8]> for Packed {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

fn packed(words: &[u32]) -> Zeroizing<Vec<u8>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(4 * words.len()));
    words.iter().for_each(|word| bytes.extend_from_slice(&word.to_be_bytes()));
    bytes
}

/// Words of four bytes each; wipes the bytes.
fn unpacked(bytes: Vec<u8>) -> Option<Zeroizing<Vec<u32>>> {
    let bytes = Zeroizing::new(bytes);
    let (words, rest) = bytes.as_chunks::<4>();
    rest.is_empty().then(|| Zeroizing::new(words.iter().map(|word| u32::from_be_bytes(*word)).collect()))
}
