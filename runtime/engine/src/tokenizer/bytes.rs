//! Byte-level byte-pair encoding, GPT-2's: words by a family's rules, and merges over their bytes.

use std::{borrow::Cow, collections::HashMap};

use unicode_normalization::{UnicodeNormalization, is_nfc_quick};

use super::{
    Token, Words,
    merge::{Merges, NONE, Scratch},
    split::Splitter,
};
use crate::error::ModelError;

/// Byte-level BPE.
pub(super) struct ByteLevel {
    /// Normal tokens by their bytes.
    words: Words,
    /// The token of each byte, or [`NONE`].
    bytes: Box<[u32; 256]>,
    merges: Merges,
    splitter: Splitter,
    /// Whether a word that is a token becomes that token without merging, as Llama 3 has it.
    whole_words_first: bool,
    /// Whether text is composed first, as Qwen has it.
    composes: bool,
}

impl ByteLevel {
    /// From normal tokens by their bytes, and merges in byte-level letters.
    pub(super) fn new<'m>(
        words: Words,
        merges: impl Iterator<Item = Option<(&'m str, &'m str)>>,
        splitter: Splitter,
        whole_words_first: bool,
        composes: bool,
    ) -> Result<Self, ModelError> {
        let alphabet = stand_ins();
        let decode = |text: &str| text.chars().map(|letter| alphabet.get(&letter).copied()).collect();
        let merges = Merges::read(merges, &words, decode)?;
        // Some vocabularies lack a few control bytes; text loses them, as in other engines.
        let byte = |byte: usize| words.get([byte as u8].as_slice()).copied().unwrap_or(NONE);
        let bytes = Box::new(std::array::from_fn(byte));
        Ok(Self { words, bytes, merges, splitter, whole_words_first, composes })
    }

    /// Appends the tokens of a text.
    pub(super) fn encode(&self, text: &str, scratch: &mut Scratch, ids: &mut Vec<u32>) {
        let composed = if self.composes { composed(text) } else { Cow::Borrowed(text) };
        self.splitter.split(&composed, |word| {
            let word = word.as_bytes();
            if self.whole_words_first
                && let Some(&id) = self.words.get(word)
            {
                ids.push(id);
                return;
            }
            self.merges.apply(word.iter().map(|&byte| self.bytes[usize::from(byte)]), scratch, ids);
        });
    }

    /// The token of a byte.
    #[cfg(test)]
    pub(super) fn byte(&self, byte: u8) -> u32 {
        self.bytes[usize::from(byte)]
    }
}

/// Unicode's normalization form C.
fn composed(text: &str) -> Cow<'_, str> {
    if is_nfc_quick(text.chars()) == unicode_normalization::IsNormalized::Yes {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.nfc().collect())
}

/// The bytes of a token that is written in byte-level letters.
pub(super) fn decode_letters(
    alphabet: &HashMap<char, u8>,
    id: usize,
    name: &str,
) -> Result<Token, ModelError> {
    let bytes: Option<Token> = name.chars().map(|c| alphabet.get(&c).copied()).collect();
    bytes.ok_or_else(|| ModelError::Malformed(format!("token {id} is not written in byte-level letters")))
}

/// GPT-2's alphabet: printable Latin-1 stands for itself, every other byte for a letter from U+0100 on.
pub(super) fn stand_ins() -> HashMap<char, u8> {
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
