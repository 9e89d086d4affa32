//! Text to tokens and back: byte-level BPE, SentencePiece's BPE and WordPiece, from a GGUF or a `tokenizer.json`.
//!
//! Added tokens, such as those that begin a message, are cut out of a text first; what lies between goes through the
//! model's own [`Algorithm`].

mod added;
mod bytes;
mod classes;
mod gguf;
mod json;
mod merge;
mod pieces;
mod split;
mod stream;
mod wordpiece;

use std::collections::HashMap;

use added::AddedTokens;
use bytes::ByteLevel;
pub(crate) use json::{TokenizerConfig, TokenizerFile};
use merge::Scratch;
use pieces::Pieces;
pub use stream::TextStream;
use wordpiece::WordPiece;

use crate::error::ModelError;

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
    /// One byte of a character that has no token.
    Byte,
    Unused,
}

/// The bytes of a token.
type Token = Box<[u8]>;
/// Tokens' ids by their bytes.
type Words = HashMap<Token, u32>;

/// A token that is matched in text before anything else.
struct Added {
    name: Box<[u8]>,
    id: u32,
    is_control: bool,
    /// White space before and after it is a part of it.
    strips: [bool; 2],
}

/// How the text between added tokens becomes tokens.
enum Algorithm {
    ByteLevel(Box<ByteLevel>),
    Pieces(Pieces),
    WordPiece(Box<WordPiece>),
}

/// Text to token ids and back.
pub struct Tokenizer {
    /// The bytes of each token; for control tokens, of its name.
    tokens: Vec<Token>,
    kinds: Vec<Kind>,
    algorithm: Algorithm,
    added: AddedTokens,
    ends: Vec<u32>,
    bos: Option<u32>,
    eos: Option<u32>,
    add_bos: bool,
}

/// What both containers say about a vocabulary.
struct Parts {
    tokens: Vec<Token>,
    kinds: Vec<Kind>,
    added: Vec<Added>,
    algorithm: Algorithm,
    bos: Option<u32>,
    eos: Option<u32>,
    /// Further tokens that end an answer.
    ends: Vec<u32>,
    add_bos: bool,
}

impl Tokenizer {
    fn build(parts: Parts) -> Result<Self, ModelError> {
        let Parts { tokens, kinds, added: list, algorithm, bos, eos, mut ends, add_bos } = parts;
        let is_end = |token: &Added| END_NAMES.iter().any(|name| *token.name == *name.as_bytes());
        ends.extend(list.iter().filter(|token| is_end(token)).map(|token| token.id));
        ends.extend(eos);
        ends.sort_unstable();
        ends.dedup();
        let added = AddedTokens::new(list)?;
        Ok(Self { tokens, kinds, algorithm, added, ends, bos, eos, add_bos })
    }

    /// Token ids of `text`. With `special`, control tokens that are written out in the text become themselves, as
    /// rendered chats need it; without, they are plain text. No start token is added: see [`Self::bos`]. Control bytes
    /// that the vocabulary lacks are left out.
    pub fn encode(&self, text: &str, special: bool) -> Vec<u32> {
        let mut ids = Vec::with_capacity(text.len() / 3);
        let mut scratch = Scratch::default();
        let (mut start, mut at) = (0, 0);
        while at < text.len() {
            let Some(token) = self.added.at(&text.as_bytes()[at..], special) else {
                at += 1;
                continue;
            };
            let before = &text[start..at];
            let before = if token.strips[0] { before.trim_end() } else { before };
            self.encode_plain(before, start == 0, &mut scratch, &mut ids);
            ids.push(token.id);
            at += token.name.len();
            if token.strips[1] {
                at = text.len() - text[at..].trim_start().len();
            }
            start = at;
        }
        self.encode_plain(&text[start..], start == 0, &mut scratch, &mut ids);
        ids
    }

    /// The text with a zero-width space inside each control token that it spells out; one of a single character, which has
    /// no inside, becomes U+FFFD.
    pub(crate) fn without_control_tokens(&self, text: &str) -> String {
        const BREAK: char = '\u{200b}';
        let mut out = String::with_capacity(text.len());
        for (at, character) in text.char_indices() {
            let found = self.added.at(&text.as_bytes()[at..], true).filter(|token| token.is_control);
            match found {
                None => out.push(character),
                Some(token) if token.name.len() == character.len_utf8() => {
                    out.push(char::REPLACEMENT_CHARACTER)
                }
                Some(_) => out.extend([character, BREAK]),
            }
        }
        out
    }

    fn encode_plain(&self, text: &str, first: bool, scratch: &mut Scratch, ids: &mut Vec<u32>) {
        if text.is_empty() {
            return;
        }
        match &self.algorithm {
            Algorithm::ByteLevel(bytes) => bytes.encode(text, scratch, ids),
            Algorithm::Pieces(pieces) => pieces.encode(text, first, scratch, ids),
            Algorithm::WordPiece(words) => words.encode(text, ids),
        }
    }

    /// The bytes of these tokens, control tokens by their names; unknown ids give nothing. One character may be
    /// spread over several tokens: see [`TextStream`] for text as it comes.
    pub fn decode(&self, tokens: &[u32]) -> Vec<u8> {
        let mut bytes: Vec<u8> = tokens
            .iter()
            .filter_map(|&id| self.tokens.get(id as usize))
            .flat_map(|token| token.iter().copied())
            .collect();
        if self.drops_first_space() && bytes.first() == Some(&b' ') {
            bytes.remove(0);
        }
        bytes
    }

    /// Whether encoding puts a space before a text, so that one has to go when it is decoded.
    fn drops_first_space(&self) -> bool {
        match &self.algorithm {
            Algorithm::ByteLevel(_) => false,
            Algorithm::Pieces(pieces) => pieces.adds_space(),
            Algorithm::WordPiece(_) => true,
        }
    }

    /// Bytes that this token adds to an answer: none for control tokens and unknown ids.
    pub fn text_of(&self, id: u32) -> &[u8] {
        match self.kinds.get(id as usize) {
            Some(Kind::Normal | Kind::UserDefined | Kind::Byte) => &self.tokens[id as usize],
            _ => &[],
        }
    }

    /// The control token of this name.
    pub(crate) fn control_token(&self, name: &str) -> Option<u32> {
        self.added.control(name.as_bytes()).map(|token| token.id)
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

/// Refuses vocabularies over the limits.
fn check_vocabulary<'n>(mut names: impl ExactSizeIterator<Item = &'n str>) -> Result<(), ModelError> {
    if names.len() == 0 || names.len() > MAX_VOCABULARY {
        return Err(ModelError::Limit {
            what: "the size of its vocabulary".into(),
            found: names.len() as u64,
            limit: MAX_VOCABULARY as u64,
        });
    }
    match names.position(|name| name.is_empty() || name.len() > MAX_TOKEN) {
        Some(id) => Err(ModelError::Malformed(format!("token {id} is empty or over {MAX_TOKEN} bytes"))),
        None => Ok(()),
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
