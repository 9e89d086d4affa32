//! SentencePiece's byte-pair encoding: merges over characters of the whole text, spaces among them, and bytes for
//! characters that have no token.
//!
//! SentencePiece writes a space as U+2581; here tokens have real spaces, and that letter in a text is a space.

use std::collections::HashMap;

use super::{
    Kind, Token, Words,
    merge::{Merges, NONE, Scratch},
};
use crate::error::ModelError;

/// How SentencePiece writes a space.
const SPACE: char = '\u{2581}';
/// Longest piece that merging can make, in characters. SentencePiece's own limit is 16 unless told otherwise.
const MAX_PIECE: usize = 128;

/// When a space is put before a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Prefix {
    Never,
    /// At the start, and after each added token.
    Always,
    /// The same, but not where there is a space already.
    UnlessThere,
    /// At the start only, unless there is a space already.
    First,
}

/// SentencePiece BPE.
pub(super) struct Pieces {
    words: Words,
    /// The tokens of bytes, or [`NONE`].
    bytes: Box<[u32; 256]>,
    unknown: Option<u32>,
    merges: Merges,
    prefix: Prefix,
    /// Whether merges never join what lies on both sides of a space.
    splits: bool,
}

impl Pieces {
    /// From tokens with real spaces. Without a list of merges they follow from the tokens' ranks, lower ones first.
    pub(super) fn new(
        tokens: &[Token],
        kinds: &[Kind],
        merging: Merging<'_>,
        unknown: Option<u32>,
        prefix: Prefix,
        splits: bool,
    ) -> Result<Self, ModelError> {
        let (mut words, mut bytes) = (HashMap::with_capacity(tokens.len()), Box::new([NONE; 256]));
        for ((token, kind), id) in tokens.iter().zip(kinds).zip(0u32..) {
            match kind {
                Kind::Byte => bytes[usize::from(token[0])] = id,
                Kind::Normal | Kind::UserDefined => {
                    words.entry(token.clone()).or_insert(id);
                }
                Kind::Control | Kind::Unused => {}
            }
        }
        let merges = match merging {
            Merging::Listed(pairs) => {
                let decode = |text: &str| Some(with_spaces(text).into_bytes());
                Merges::read(pairs.iter().copied(), &words, decode)?
            }
            Merging::Ranked(ranks) => pairs_of(&words, ranks)?,
        };
        Ok(Self { words, bytes, unknown, merges, prefix, splits })
    }

    /// Whether a space is put before a text.
    pub(super) fn adds_space(&self) -> bool {
        self.prefix != Prefix::Never
    }

    /// Appends the tokens of a text, which is the first of its input or comes after an added token.
    pub(super) fn encode(&self, text: &str, first: bool, scratch: &mut Scratch, ids: &mut Vec<u32>) {
        let text = with_spaces(text);
        let adds = match self.prefix {
            Prefix::Never => false,
            Prefix::Always => true,
            Prefix::UnlessThere => !text.starts_with(' '),
            Prefix::First => first && !text.starts_with(' '),
        };
        let text = if adds { format!(" {text}") } else { text };
        if !self.splits {
            return self.word(&text, scratch, ids);
        }
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let first = rest.chars().next().map_or(0, char::len_utf8);
            let end = rest[first..].find(' ').map_or(rest.len(), |at| first + at);
            self.word(&rest[..end], scratch, ids);
            rest = &rest[end..];
        }
    }

    fn word(&self, text: &str, scratch: &mut Scratch, ids: &mut Vec<u32>) {
        let mut pieces = Vec::with_capacity(text.len());
        let mut letter = [0; 4];
        for character in text.chars() {
            let bytes = character.encode_utf8(&mut letter).as_bytes();
            if let Some(&id) = self.words.get(bytes) {
                pieces.push(id);
            } else if bytes.iter().all(|byte| self.bytes[usize::from(*byte)] != NONE) {
                pieces.extend(bytes.iter().map(|byte| self.bytes[usize::from(*byte)]));
            } else if let Some(unknown) = self.unknown
                && pieces.last() != Some(&unknown)
            {
                pieces.push(unknown); // one for a run of them
            }
        }
        self.merges.apply(pieces.into_iter(), scratch, ids);
    }
}

/// Which pairs merge first.
pub(super) enum Merging<'a> {
    /// These, in this order.
    Listed(&'a [Option<(&'a str, &'a str)>]),
    /// Those that become the token of the lowest rank.
    Ranked(&'a [u32]),
}

/// Ranks of scores: the highest score first, and the same rank for equal ones.
pub(super) fn ranks(scores: &[f32]) -> Result<Vec<u32>, ModelError> {
    if scores.iter().any(|score| score.is_nan()) {
        return Err(ModelError::Malformed("a token's score is not a number".into()));
    }
    let mut sorted = scores.to_vec();
    sorted.sort_by(|a, b| b.total_cmp(a));
    sorted.dedup();
    Ok(scores.iter().map(|score| sorted.partition_point(|other| other > score) as u32).collect())
}

/// All pairs of tokens that are a token together.
fn pairs_of(words: &Words, ranks: &[u32]) -> Result<Merges, ModelError> {
    let mut table = HashMap::new();
    for (token, &id) in words {
        let text = str::from_utf8(token).map_err(|_| malformed(id))?;
        if text.chars().count() > MAX_PIECE {
            let found = text.chars().count() as u64;
            return Err(ModelError::Limit {
                what: format!("the length of token {id}"),
                found,
                limit: MAX_PIECE as u64,
            });
        }
        for (at, _) in text.char_indices().skip(1) {
            if let (Some(&left), Some(&right)) = (words.get(&token[..at]), words.get(&token[at..])) {
                table.insert((left, right), (ranks[id as usize], id));
            }
        }
    }
    Ok(Merges::from_table(table))
}

fn malformed(id: u32) -> ModelError {
    ModelError::Malformed(format!("token {id} is not UTF-8"))
}

/// A text with real spaces.
pub(super) fn with_spaces(text: &str) -> String {
    text.replace(SPACE, " ")
}

/// The byte that a token stands for, which is written `<0x0A>`.
pub(super) fn byte_of(name: &str) -> Option<u8> {
    let digits = name.strip_prefix("<0x")?.strip_suffix('>')?;
    let sound = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    sound.then(|| u8::from_str_radix(digits, 16).ok()).flatten()
}
