//! Tokens of a child's answer, for the bill: counted here. What the child says of them can only lower it.

use cocoon_engine::Vocabulary;
use cocoon_supervisor::Finish;
use std::sync::Arc;
use zeroize::Zeroizing;

/// Bytes of text that are encoded again with each piece. Of more, what ends in a word's end is settled.
const WINDOW: usize = 512;
/// Bytes of text without a word's end that are settled all the same.
const LONGEST_WORD: usize = 4096;
/// What a child may count beyond our count of the same text: stop strings and rare tokens, so many and this share of it. A
/// client that counts again allows as much (`runtime/client/src/recount.rs`).
const ALLOWED_TOKENS: u32 = 16;
const ALLOWED_SHARE: u32 = 8;
/// Tokens without a byte of text that an answer may have, where bytes are all that is known: its end, control tokens.
const SILENT: u32 = 8;

/// The count of one answer's text.
pub(crate) enum Count {
    /// As the model's tokenizer makes tokens of it.
    Tokens(Text),
    /// Its bytes: no token has less than one.
    Bytes(u32),
}

/// Text as it comes, and its tokens.
pub(crate) struct Text {
    vocabulary: Arc<Vocabulary>,
    /// Tokens of what is not kept any more.
    settled: u32,
    tail: Zeroizing<String>,
    /// Bytes that came since it was counted last.
    uncounted: usize,
    /// The most that was said of it so far.
    most: u32,
}

impl Count {
    /// With the model's own tokenizer, where it is known.
    pub(crate) fn new(vocabulary: Option<&Arc<Vocabulary>>) -> Self {
        match vocabulary {
            None => Self::Bytes(0),
            Some(vocabulary) => Self::Tokens(Text {
                vocabulary: vocabulary.clone(),
                settled: 0,
                tail: Zeroizing::new(String::with_capacity(2 * LONGEST_WORD)),
                uncounted: 0,
                most: 0,
            }),
        }
    }

    /// Takes in a piece, and gives the tokens to be billed by then: no more than the child says (`claimed`), never fewer than
    /// before. An empty piece is the last: what came since it was counted, some words at most, is counted then.
    pub(crate) fn hear(&mut self, piece: &str, claimed: u32) -> u32 {
        match self {
            Self::Bytes(bytes) => {
                *bytes = bytes.saturating_add(u32::try_from(piece.len()).unwrap_or(u32::MAX));
                bytes.saturating_add(SILENT).min(claimed)
            }
            Self::Tokens(text) => {
                text.push(piece);
                if text.is_due() || piece.is_empty() {
                    text.uncounted = 0;
                    text.most = text.most.max(text.tokens().min(claimed));
                }
                text.most
            }
        }
    }

    /// Whether a child that says so of the whole answer says what the text explains.
    pub(crate) fn explains(&self, claimed: u32, finish: Finish, stop: &[String]) -> bool {
        let Self::Tokens(text) = self else { return true }; // held against bytes as it came
        let tokens = text.tokens();
        // A stop string was made and is not shown.
        let hidden = stop.iter().map(|stop| text.count(stop)).max().filter(|_| finish == Finish::Stop);
        let explained = tokens
            .saturating_add(tokens / ALLOWED_SHARE)
            .saturating_add(ALLOWED_TOKENS)
            .saturating_add(hidden.unwrap_or(0));
        claimed <= explained
    }
}

impl Text {
    /// Whether so much came that it is worth to encode the tail again: it is long where words do not end in spaces.
    fn is_due(&self) -> bool {
        self.tail.len() <= WINDOW || self.uncounted * 8 >= self.tail.len()
    }

    fn push(&mut self, piece: &str) {
        self.uncounted += piece.len();
        for part in pieces(piece, LONGEST_WORD) {
            self.tail.push_str(part);
            if self.tail.len() > WINDOW {
                self.settle();
            }
        }
    }

    fn tokens(&self) -> u32 {
        self.settled.saturating_add(self.count(&self.tail))
    }

    fn count(&self, text: &str) -> u32 {
        let tokens = Zeroizing::new(self.vocabulary.tokenizer().encode(text, false));
        u32::try_from(tokens.len()).unwrap_or(u32::MAX)
    }

    /// Lets go of whole words: tokenizers begin anew with a word, so they are counted apart as they are together.
    fn settle(&mut self) {
        let until = match word_start(&self.tail, self.tail.len() - WINDOW / 2) {
            Some(until) => until,
            None if self.tail.len() < LONGEST_WORD => return,
            None => floor(&self.tail, self.tail.len() - WINDOW / 2),
        };
        self.settled = self.settled.saturating_add(self.count(&self.tail[..until]));
        let rest = Zeroizing::new(self.tail[until..].to_owned());
        self.tail.clear();
        self.tail.push_str(&rest);
    }
}

/// Where the last word before `end` begins, with its space.
fn word_start(text: &str, end: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    let starts = |at: &usize| {
        let [before, space, after] = [bytes[at - 1], bytes[*at], bytes[at + 1]];
        before.is_ascii_alphanumeric() && space == b' ' && after.is_ascii_alphabetic()
    };
    (1..end.min(bytes.len() - 1)).rev().find(starts)
}

/// The nearest beginning of a character at or before `at`.
fn floor(text: &str, at: usize) -> usize {
    (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

/// A text in parts of at most `most` bytes, each of whole characters.
fn pieces(text: &str, most: usize) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (piece, after) = rest.split_at(floor(rest, most.min(rest.len())));
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn vocabulary() -> Arc<Vocabulary> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/models/tiny.gguf");
        Arc::new(Vocabulary::open(&path).expect("the tiny model is in the repository"))
    }

    /// Some thousand bytes of words, numbers, lines and signs, without a pattern.
    fn text() -> String {
        let words = ["the", "model", "of", "42", "a\n", "answers,", "—", "Ünder", "(x)", "tokens."];
        let mut state = 7u32;
        let mut text = String::new();
        for _ in 0..2000 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            text += words[(state >> 16) as usize % words.len()];
            text.push(' ');
        }
        text
    }

    fn whole(text: &str) -> u32 {
        vocabulary().tokenizer().encode(text, false).len() as u32
    }

    fn heard(parts: impl Iterator<Item = String>) -> u32 {
        let mut count = Count::new(Some(&vocabulary()));
        parts.fold(0, |before, part| {
            let now = count.hear(&part, u32::MAX);
            assert!(now >= before, "a count went back");
            now
        })
    }

    #[test]
    fn text_in_pieces_counts_as_the_whole() {
        let (text, expected) = (text(), whole(&text()));
        for size in [1, 3, 50, 700, 100_000] {
            let letters: Vec<char> = text.chars().collect();
            let counted = heard(letters.chunks(size).map(|part| part.iter().collect()));
            // Where a cut falls inside of what would be one token, it may be two.
            assert!(counted.abs_diff(expected) <= 8 + expected / 100, "{counted}, not {expected}, by {size}");
        }
    }

    #[test]
    fn single_letters_are_not_sold_as_tokens() {
        let word = "understanding ".repeat(20);
        let counted = heard(word.chars().map(String::from));
        assert!(counted <= whole(&word) + 8, "{counted}");
        assert!(whole(&word) < 20 * 14);
    }

    #[test]
    fn the_child_s_own_count_can_only_lower_the_bill() {
        let mut count = Count::new(Some(&vocabulary()));
        assert_eq!(count.hear("some words of an answer", 2), 2);
        let ours = whole("some words of an answer and more");
        assert_eq!(count.hear(" and more", 1_000_000), ours);
        let mut bytes = Count::new(None);
        assert_eq!(bytes.hear("four", 1_000_000), 4 + SILENT);
        assert_eq!(bytes.hear("", 3), 3);
    }

    #[test]
    fn a_claim_that_the_text_does_not_explain_is_told_apart() {
        let mut count = Count::new(Some(&vocabulary()));
        let said = text();
        count.hear(&said, 0);
        let ours = {
            let Count::Tokens(text) = &count else { panic!("it has a vocabulary") };
            text.tokens()
        };
        let most = ours + ours / ALLOWED_SHARE + ALLOWED_TOKENS;
        assert!(count.explains(most, Finish::Stop, &[]) && !count.explains(most + 1, Finish::Stop, &[]));
        let stop = ["the end of it".to_owned()];
        assert!(
            count.explains(most + 1, Finish::Stop, &stop) && !count.explains(most + 1, Finish::Length, &stop)
        );
    }

    #[test]
    fn a_word_without_end_is_counted_in_bounded_pieces() {
        let since = std::time::Instant::now();
        let mut count = Count::new(Some(&vocabulary()));
        for _ in 0..20_000 {
            count.hear("é", u32::MAX);
        }
        let shown = count.hear("", u32::MAX);
        let Count::Tokens(text) = &count else { panic!("it has a vocabulary") };
        assert!(text.tail.len() <= LONGEST_WORD);
        assert_eq!(shown, text.tokens(), "at the end all of it is counted");
        assert!(since.elapsed() < std::time::Duration::from_secs(60));
    }
}
