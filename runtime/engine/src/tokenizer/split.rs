//! Splits text into the words inside which tokens may merge. Each model family was trained with its own regular
//! expression; they are written out by hand here, one scanner for each family, without backtracking.

use super::classes::Class;
use crate::error::ModelError;

/// Which family's rules.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rules {
    /// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
    Gpt2,
    /// Each `\p{N}` alone, and what lies between by GPT-2's rules.
    Digits,
    /// Runs of punctuation, then GPT-2's rules, then runs of `\p{N}` in threes.
    Plain,
    /// `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,max}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
    Llama3 { max_digits: usize },
    /// GPT-4o's: words of capitals and then small letters, with their contractions; marks belong to letters.
    /// `W` is `[^\r\n\p{L}\p{N}]?`, `U` is `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]`, `S` is `[\p{Ll}\p{Lm}\p{Lo}\p{M}]`,
    /// `C` is `(?i:'s|'t|'re|'ve|'m|'ll|'d)?`:
    /// `W U* S+ C|W U+ S* C|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`
    Gpt4o,
}

/// Splits text by the rules of one family.
pub(super) struct Splitter {
    rules: Rules,
    letters: Class,
    punctuation: Class,
    /// `U` and `S` of [`Rules::Gpt4o`].
    upper: Class,
    small: Class,
}

/// The expressions that `tokenizer.json` has for the families' rules.
const EXPRESSIONS: [(&str, Rules); 4] = [
    (r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+", Rules::Gpt2),
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        Rules::Llama3 { max_digits: 3 },
    ),
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        Rules::Llama3 { max_digits: 1 },
    ),
    (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        Rules::Gpt4o,
    ),
];

impl Splitter {
    /// The rules for a `tokenizer.ggml.pre`.
    pub(super) fn named(name: &str) -> Result<Self, ModelError> {
        let rules = match name {
            "gpt-2" | "gpt2" => Rules::Gpt2,
            "smollm" | "starcoder" | "refact" | "command-r" => Rules::Digits,
            "default" => Rules::Plain,
            "llama-bpe" | "llama3" | "llama-v3" | "dbrx" | "smaug-bpe" => Rules::Llama3 { max_digits: 3 },
            "qwen2" | "deepseek-r1-qwen" => Rules::Llama3 { max_digits: 1 },
            "gpt-4o" | "llama4" => Rules::Gpt4o,
            _ => {
                return Err(ModelError::Unsupported(format!(
                    "its tokenizer splits words by the rules {name:?}; smollm, gpt-2, llama-bpe, qwen2, \
                     gpt-4o and default are known"
                )));
            }
        };
        Ok(Self::with(rules))
    }

    fn with(rules: Rules) -> Self {
        Self {
            rules,
            letters: Class::new(r"\p{L}"),
            punctuation: Class::new(r"[\p{P}$+<=>^~|]"),
            upper: Class::new(r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"),
            small: Class::new(r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"),
        }
    }

    /// The rules for an expression of a `tokenizer.json`, if they are some family's.
    pub(super) fn for_expression(expression: &str) -> Option<Self> {
        let found = EXPRESSIONS.iter().find(|(known, _)| *known == expression);
        found.map(|(_, rules)| Self::with(*rules))
    }

    /// GPT-2's rules, with each digit alone first where `digits` says so.
    pub(super) fn gpt2_rules(digits: bool) -> Self {
        Self::with(if digits { Rules::Digits } else { Rules::Gpt2 })
    }

    /// Calls `word` with each word; together they are the text.
    pub(super) fn split<'t>(&self, text: &'t str, mut word: impl FnMut(&'t str)) {
        match self.rules {
            Rules::Gpt2 => self.each(text, Self::gpt2, &mut word),
            Rules::Digits => runs(text, char::is_numeric, |part, digits| {
                if digits { characters(part, &mut word) } else { self.each(part, Self::gpt2, &mut word) }
            }),
            Rules::Plain => {
                runs(
                    text,
                    |c| self.punctuation.contains(c),
                    |part, marks| {
                        if marks {
                            return word(part);
                        }
                        self.each(part, Self::gpt2, &mut |piece| {
                            runs(piece, char::is_numeric, |p, digits| {
                                if digits { threes(p, &mut word) } else { word(p) }
                            });
                        });
                    },
                )
            }
            Rules::Llama3 { max_digits } => {
                self.each(text, |this, rest| this.llama3(rest, max_digits), &mut word);
            }
            Rules::Gpt4o => self.each(text, Self::gpt4o, &mut word),
        }
    }

    fn each<'t>(&self, text: &'t str, scan: impl Fn(&Self, &str) -> usize, word: &mut impl FnMut(&'t str)) {
        let mut rest = text;
        while !rest.is_empty() {
            let (first, after) = rest.split_at(scan(self, rest));
            word(first);
            rest = after;
        }
    }

    fn is_mark(&self, c: char) -> bool {
        !c.is_whitespace() && !c.is_numeric() && !self.letters.contains(c)
    }

    /// Length of the first word of a text that is not empty.
    fn gpt2(&self, text: &str) -> usize {
        if let Some(length) = contraction(text, false) {
            return length;
        }
        let space = usize::from(text.starts_with(' '));
        let body = &text[space..];
        let Some(first) = body.chars().next() else { return space };
        let length = if self.letters.contains(first) {
            run(body, |c| self.letters.contains(c))
        } else if first.is_numeric() {
            run(body, char::is_numeric)
        } else if self.is_mark(first) {
            run(body, |c| self.is_mark(c))
        } else {
            return spaces(text);
        };
        space + length
    }

    fn llama3(&self, text: &str, max_digits: usize) -> usize {
        if let Some(length) = contraction(text, true) {
            return length;
        }
        let mut chars = text.chars();
        let first = chars.next().expect("called with text");
        let lead = if self.letters.contains(first) { 0 } else { first.len_utf8() };
        let may_lead = lead == 0 || !(first == '\r' || first == '\n' || first.is_numeric());
        let letters = run(&text[lead..], |c| self.letters.contains(c));
        if may_lead && letters > 0 {
            return lead + letters;
        }
        self.numbers_marks_and_spaces(text, max_digits, &['\r', '\n'])
    }

    fn gpt4o(&self, text: &str) -> usize {
        let first = text.chars().next().expect("called with text");
        let may_lead =
            !(first == '\r' || first == '\n' || first.is_numeric() || self.letters.contains(first));
        let leads = [Some(first.len_utf8()).filter(|_| may_lead), Some(0)];
        let words = [Self::small_word, Self::upper_word];
        for word in words {
            for lead in leads.into_iter().flatten() {
                if let Some(length) = word(self, &text[lead..]) {
                    let end = lead + length;
                    return end + contraction(&text[end..], true).unwrap_or(0);
                }
            }
        }
        self.numbers_marks_and_spaces(text, 3, &['\r', '\n', '/'])
    }

    /// `U*S+`: the longest run of `U` after which, or at whose last possible place, an `S` follows.
    fn small_word(&self, text: &str) -> Option<usize> {
        let upper = run(text, |c| self.upper.contains(c));
        let after = run(&text[upper..], |c| self.small.contains(c));
        if after > 0 {
            return Some(upper + after);
        }
        let (at, last) = text[..upper].char_indices().rfind(|(_, c)| self.small.contains(*c))?;
        Some(at + last.len_utf8())
    }

    /// `U+S*`
    fn upper_word(&self, text: &str) -> Option<usize> {
        let upper = run(text, |c| self.upper.contains(c));
        (upper > 0).then(|| upper + run(&text[upper..], |c| self.small.contains(c)))
    }

    /// `\p{N}{1,max}| ?[^\s\p{L}\p{N}]+[after]*|\s*[\r\n]+|\s+(?!\S)|\s+`
    fn numbers_marks_and_spaces(&self, text: &str, max_digits: usize, after: &[char]) -> usize {
        let first = text.chars().next().expect("called with text");
        if first.is_numeric() {
            let digits = text.chars().take(max_digits).take_while(|c| c.is_numeric());
            return digits.map(char::len_utf8).sum();
        }
        let space = usize::from(first == ' ');
        let marks = run(&text[space..], |c| self.is_mark(c));
        if marks > 0 {
            let length = space + marks;
            return length + run(&text[length..], |c| after.contains(&c));
        }
        let blank = run(text, char::is_whitespace);
        match text[..blank].rfind(['\r', '\n']) {
            Some(newline) => newline + 1,
            None => spaces(text),
        }
    }
}

/// Bytes of the longest beginning of `text` in which every character is of the class.
fn run(text: &str, class: impl Fn(char) -> bool) -> usize {
    text.find(|c| !class(c)).unwrap_or(text.len())
}

/// `\s+(?!\S)|\s+`: all white space, less the last one if a word follows it and it is not alone.
fn spaces(text: &str) -> usize {
    let blank = run(text, char::is_whitespace);
    if blank == text.len() {
        return blank;
    }
    let last = text[..blank].chars().next_back().map_or(0, char::len_utf8);
    if blank > last { blank - last } else { blank }
}

/// `'s|'t|'re|'ve|'m|'ll|'d`
fn contraction(text: &str, any_case: bool) -> Option<usize> {
    let rest = text.strip_prefix('\'')?;
    ["s", "t", "re", "ve", "m", "ll", "d"].iter().find_map(|ending| {
        let piece = rest.get(..ending.len())?;
        (piece == *ending || any_case && piece.eq_ignore_ascii_case(ending)).then_some(1 + ending.len())
    })
}

/// Calls `part` with each maximal run of characters inside and outside of a class.
fn runs<'t>(text: &'t str, class: impl Fn(char) -> bool, mut part: impl FnMut(&'t str, bool)) {
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let inside = class(first);
        let (piece, after) = rest.split_at(run(rest, |c| class(c) == inside));
        part(piece, inside);
        rest = after;
    }
}

fn characters<'t>(text: &'t str, word: &mut impl FnMut(&'t str)) {
    for (at, c) in text.char_indices() {
        word(&text[at..at + c.len_utf8()]);
    }
}

/// `[0-9][0-9][0-9]` apart from what lies between, inside a run of numbers.
fn threes<'t>(text: &'t str, word: &mut impl FnMut(&'t str)) {
    let bytes = text.as_bytes();
    let (mut start, mut at) = (0, 0);
    while at + 3 <= bytes.len() {
        if bytes[at..at + 3].iter().all(u8::is_ascii_digit) {
            if start < at {
                word(&text[start..at]);
            }
            word(&text[at..at + 3]);
            at += 3;
            start = at;
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    if start < text.len() {
        word(&text[start..]);
    }
}
