//! Byte-level byte-pair encoding, from the tables in the model file.

mod classes;
mod merge;
mod split;
mod stream;

use std::collections::HashMap;

use merge::{Merges, NONE, Scratch};
pub use stream::TextStream;

use crate::{error::ModelError, gguf::Header};
use split::Splitter;

/// Most tokens in a vocabulary.
const MAX_VOCABULARY: usize = 1 << 20;
/// Longest token, in bytes.
const MAX_TOKEN: usize = 2048;

/// Names that models give to the tokens that end an answer.
const END_NAMES: [&str; 8] = [
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|end_of_text|>",
    "<|end|>",
    "<end_of_turn>",
    "</s>",
    "<|eom_id|>",
];

/// What a token is for, as GGUF numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Normal,
    /// Structure, such as the start of a message: matched in text only on request, and never part of an answer.
    Control,
    /// Added text: matched before anything else.
    UserDefined,
    Unused,
}

/// Text to token ids and back.
pub struct Tokenizer {
    /// The bytes of each token; for control tokens, of its name.
    tokens: Vec<Box<[u8]>>,
    kinds: Vec<Kind>,
    /// Normal tokens by their bytes, to start a word from whole-word tokens where the model wants that.
    words: HashMap<Box<[u8]>, u32>,
    /// The token of each byte, or [`NONE`].
    bytes: [u32; 256],
    merges: Merges,
    splitter: Splitter,
    /// Control and user-defined tokens by their first byte, longest first.
    added: HashMap<u8, Vec<u32>>,
    ends: Vec<u32>,
    bos: Option<u32>,
    eos: Option<u32>,
    add_bos: bool,
}

impl Tokenizer {
    /// Builds the tokenizer of a model file.
    pub(crate) fn read(header: &Header) -> Result<Self, ModelError> {
        let model = header.text("tokenizer.ggml.model")?.unwrap_or("");
        if model != "gpt2" {
            return Err(ModelError::Unsupported(format!(
                "its tokenizer is {model:?}; byte-level BPE (\"gpt2\") is known"
            )));
        }
        let names = header
            .texts("tokenizer.ggml.tokens")?
            .ok_or_else(|| ModelError::Missing("tokenizer.ggml.tokens".into()))?;
        check_vocabulary(names)?;
        let kinds = read_kinds(header, names.len())?;
        let tokens = read_tokens(names, &kinds)?;

        let mut words = HashMap::with_capacity(tokens.len());
        let mut added: HashMap<u8, Vec<u32>> = HashMap::new();
        for ((token, kind), id) in tokens.iter().zip(&kinds).zip(0u32..) {
            match kind {
                Kind::Normal => {
                    words.entry(token.clone()).or_insert(id);
                }
                Kind::Control | Kind::UserDefined => added.entry(token[0]).or_default().push(id),
                Kind::Unused => {}
            }
        }
        for ids in added.values_mut() {
            ids.sort_by_key(|&id| std::cmp::Reverse(tokens[id as usize].len()));
        }
        // Some vocabularies lack a few control bytes; text loses them, as in other engines.
        let byte = |byte: usize| words.get([byte as u8].as_slice()).copied().unwrap_or(NONE);
        let bytes = std::array::from_fn(byte);
        let pairs = header.texts("tokenizer.ggml.merges")?.unwrap_or(&[]);
        let merges = Merges::read(pairs, &words)?;
        let splitter = Splitter::named(header.text("tokenizer.ggml.pre")?.unwrap_or("default"))?;

        let id_of = |key: &str| -> Result<Option<u32>, ModelError> {
            match header.unsigned(key)? {
                None => Ok(None),
                Some(id) if id < tokens.len() as u64 => Ok(Some(id as u32)),
                Some(id) => Err(ModelError::Malformed(format!("{key} is {id}, outside the vocabulary"))),
            }
        };
        let bos = id_of("tokenizer.ggml.bos_token_id")?;
        let eos = id_of("tokenizer.ggml.eos_token_id")?;
        let is_end = |id: u32| END_NAMES.iter().any(|name| tokens[id as usize].as_ref() == name.as_bytes());
        let mut ends: Vec<u32> = added.values().flatten().copied().filter(|&id| is_end(id)).collect();
        ends.extend(eos);
        ends.extend(id_of("tokenizer.ggml.eot_token_id")?);
        ends.sort_unstable();
        ends.dedup();
        let add_bos = header.boolean("tokenizer.ggml.add_bos_token")?.unwrap_or(false);
        Ok(Self { tokens, kinds, words, bytes, merges, splitter, added, ends, bos, eos, add_bos })
    }

    /// Token ids of `text`. With `special`, control tokens that are written out in the text become themselves, as
    /// rendered chats need it; without, they are plain text. No start token is added: see [`Self::bos`]. Control bytes
    /// that the vocabulary lacks are left out.
    pub fn encode(&self, text: &str, special: bool) -> Vec<u32> {
        let mut ids = Vec::with_capacity(text.len() / 3);
        let mut scratch = Scratch::default();
        let (mut start, mut at) = (0, 0);
        while at < text.len() {
            if let Some(id) = self.added_at(&text.as_bytes()[at..], special) {
                self.encode_plain(&text[start..at], &mut scratch, &mut ids);
                ids.push(id);
                at += self.tokens[id as usize].len();
                start = at;
            } else {
                at += 1;
            }
        }
        self.encode_plain(&text[start..], &mut scratch, &mut ids);
        ids
    }

    /// The text with a zero-width space inside each control token that it spells out.
    pub(crate) fn without_control_tokens(&self, text: &str) -> String {
        const BREAK: char = '\u{200b}';
        let mut out = String::with_capacity(text.len());
        for (at, character) in text.char_indices() {
            out.push(character);
            let found = self.added_at(&text.as_bytes()[at..], true);
            if found.is_some_and(|id| self.kinds[id as usize] == Kind::Control) {
                out.push(BREAK);
            }
        }
        out
    }

    /// The longest added token with which `bytes` begins. Added tokens are UTF-8, so they match whole characters.
    fn added_at(&self, bytes: &[u8], special: bool) -> Option<u32> {
        let candidates = self.added.get(&bytes[0])?;
        candidates.iter().copied().find(|&id| {
            (special || self.kinds[id as usize] == Kind::UserDefined)
                && bytes.starts_with(&self.tokens[id as usize])
        })
    }

    fn encode_plain(&self, text: &str, scratch: &mut Scratch, ids: &mut Vec<u32>) {
        self.splitter.split(text, |word| {
            let word = word.as_bytes();
            if self.splitter.whole_words_first()
                && let Some(&id) = self.words.get(word)
            {
                ids.push(id);
                return;
            }
            self.merges.apply(word.iter().map(|&byte| self.bytes[usize::from(byte)]), scratch, ids);
        });
    }

    /// The bytes of these tokens, control tokens by their names; unknown ids give nothing. One character may be
    /// spread over several tokens: see [`TextStream`] for text as it comes.
    pub fn decode(&self, tokens: &[u32]) -> Vec<u8> {
        tokens
            .iter()
            .filter_map(|&id| self.tokens.get(id as usize))
            .flat_map(|token| token.iter().copied())
            .collect()
    }

    /// Bytes that this token adds to an answer: none for control tokens and unknown ids.
    pub fn text_of(&self, id: u32) -> &[u8] {
        match self.kinds.get(id as usize) {
            Some(Kind::Normal | Kind::UserDefined) => &self.tokens[id as usize],
            _ => &[],
        }
    }

    /// Tokens that end an answer.
    pub fn end_tokens(&self) -> &[u32] {
        &self.ends
    }

    /// The token with which a text begins, if the model wants one that its chat template does not write.
    pub fn bos(&self) -> Option<u32> {
        self.bos.filter(|_| self.add_bos)
    }

    /// Number of tokens.
    pub fn vocab_size(&self) -> usize {
        self.tokens.len()
    }

    /// The names of the start and end tokens, for the chat template.
    pub(crate) fn boundary_names(&self) -> (String, String) {
        let name = |id: Option<u32>| {
            id.map(|id| String::from_utf8_lossy(&self.tokens[id as usize]).into_owned()).unwrap_or_default()
        };
        (name(self.bos), name(self.eos))
    }
}

fn check_vocabulary(names: &[String]) -> Result<(), ModelError> {
    if names.is_empty() || names.len() > MAX_VOCABULARY {
        return Err(ModelError::Limit {
            what: "the size of its vocabulary".into(),
            found: names.len() as u64,
            limit: MAX_VOCABULARY as u64,
        });
    }
    match names.iter().position(|name| name.is_empty() || name.len() > MAX_TOKEN) {
        Some(id) => Err(ModelError::Malformed(format!("token {id} is empty or over {MAX_TOKEN} bytes"))),
        None => Ok(()),
    }
}

fn read_kinds(header: &Header, count: usize) -> Result<Vec<Kind>, ModelError> {
    let Some(codes) = header.integers("tokenizer.ggml.token_type")? else {
        return Ok(vec![Kind::Normal; count]);
    };
    if codes.len() != count {
        return Err(ModelError::Malformed(format!("{} token types for {count} tokens", codes.len())));
    }
    Ok(codes
        .iter()
        .map(|code| match code {
            3 => Kind::Control,
            4 => Kind::UserDefined,
            2 | 5 => Kind::Unused,
            _ => Kind::Normal,
        })
        .collect())
}

/// Normal tokens are written in GPT-2's alphabet of printable stand-ins for bytes; the others as they are.
fn read_tokens(names: &[String], kinds: &[Kind]) -> Result<Vec<Box<[u8]>>, ModelError> {
    let alphabet = stand_ins();
    let read = |(id, (name, kind)): (usize, (&String, &Kind))| {
        if *kind != Kind::Normal {
            return Ok(name.as_bytes().into());
        }
        let bytes: Option<Box<[u8]>> = name.chars().map(|c| alphabet.get(&c).copied()).collect();
        bytes.ok_or_else(|| ModelError::Malformed(format!("token {id} is not written in byte-level letters")))
    };
    names.iter().zip(kinds).enumerate().map(read).collect()
}

/// GPT-2's alphabet: printable Latin-1 stands for itself, every other byte for a letter from U+0100 on.
pub(crate) fn stand_ins() -> HashMap<char, u8> {
    let mut next = 0x100;
    let mut alphabet = HashMap::with_capacity(256);
    for byte in 0u8..=255 {
        let letter = match byte {
            b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF => char::from(byte),
            _ => {
                next += 1;
                char::from_u32(next - 1).expect("U+0100 to U+0143 are characters")
            }
        };
        alphabet.insert(letter, byte);
    }
    alphabet
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
