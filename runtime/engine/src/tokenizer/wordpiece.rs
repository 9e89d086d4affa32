//! BERT's WordPiece: text is cleaned, split at white space and punctuation, and each word cut into the longest pieces.

use unicode_normalization::UnicodeNormalization;

use super::{Words, classes::Class};

/// Longest word that is cut into pieces, in characters; longer ones are unknown. As in BERT's own tokenizer.
const MAX_WORD: usize = 100;
/// What is written before pieces that continue a word.
pub(super) const CONTINUES: &str = "##";

/// WordPiece.
pub(super) struct WordPiece {
    /// Tokens by their names.
    words: Words,
    unknown: u32,
    cleaning: Cleaning,
    controls: Class,
    marks: Class,
    punctuation: Class,
}

/// What is done to a text before it is split.
#[derive(Clone, Copy)]
pub(super) struct Cleaning {
    /// Control characters go, and all white space becomes spaces.
    pub(super) cleans: bool,
    /// Each ideograph is a word.
    pub(super) splits_ideographs: bool,
    /// Accents go.
    pub(super) strips_accents: bool,
    pub(super) lowers: bool,
}

impl WordPiece {
    pub(super) fn new(words: Words, unknown: u32, cleaning: Cleaning) -> Self {
        Self {
            words,
            unknown,
            cleaning,
            controls: Class::new(r"[\p{Cc}\p{Cf}\p{Co}]"),
            marks: Class::new(r"\p{Mn}"),
            punctuation: Class::new(r"[\p{P}$+<=>^`|~]"),
        }
    }

    /// Appends the tokens of a text.
    pub(super) fn encode(&self, text: &str, ids: &mut Vec<u32>) {
        let text = self.clean(text);
        for word in text.split(char::is_whitespace) {
            let mut rest = word;
            while let Some(first) = rest.chars().next() {
                let end = if self.punctuation.contains(first) {
                    first.len_utf8()
                } else {
                    rest.find(|c| self.punctuation.contains(c)).unwrap_or(rest.len())
                };
                self.word(&rest[..end], ids);
                rest = &rest[end..];
            }
        }
    }

    fn clean(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        for c in text.chars() {
            let kept = matches!(c, '\t' | '\n' | '\r');
            if self.cleaning.cleans && !kept && (c == '\u{fffd}' || self.controls.contains(c)) {
                // goes
            } else if self.cleaning.cleans && c.is_whitespace() {
                out.push(' ');
            } else if self.cleaning.splits_ideographs && is_ideograph(c) {
                out.extend([' ', c, ' ']);
            } else {
                out.push(c);
            }
        }
        if self.cleaning.strips_accents {
            out = out.nfd().filter(|c| !self.marks.contains(*c)).collect();
        }
        // Character by character: a sigma at the end of a word is like any other.
        if self.cleaning.lowers { out.chars().flat_map(char::to_lowercase).collect() } else { out }
    }

    /// The longest pieces from the left; a word of which some part has none is unknown as a whole.
    fn word(&self, word: &str, ids: &mut Vec<u32>) {
        let start_of_word = ids.len();
        if word.chars().count() > MAX_WORD {
            ids.push(self.unknown);
            return;
        }
        let (mut start, mut piece) = (0, String::new());
        while start < word.len() {
            let ends = word[start..].char_indices().map(|(at, c)| start + at + c.len_utf8()).rev();
            let found = ends.into_iter().find_map(|end| {
                piece.clear();
                if start > 0 {
                    piece.push_str(CONTINUES);
                }
                piece.push_str(&word[start..end]);
                self.words.get(piece.as_bytes()).map(|&id| (id, end))
            });
            let Some((id, end)) = found else {
                ids.truncate(start_of_word);
                ids.push(self.unknown);
                return;
            };
            ids.push(id);
            start = end;
        }
    }
}

/// What BERT takes for Chinese.
fn is_ideograph(c: char) -> bool {
    matches!(c,
        '\u{4e00}'..='\u{9fff}' | '\u{3400}'..='\u{4dbf}' | '\u{20000}'..='\u{2a6df}' | '\u{2a700}'..='\u{2b73f}'
        | '\u{2b740}'..='\u{2b81f}' | '\u{2b920}'..='\u{2ceaf}' | '\u{f900}'..='\u{faff}' | '\u{2f800}'..='\u{2fa1f}')
}
