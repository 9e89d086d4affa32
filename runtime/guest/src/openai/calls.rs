//! Reads calls of tools out of an answer's text, as it comes, whatever pieces it comes in.

use super::tools::{ARGUMENTS, CALL, END, NAME};
use zeroize::Zeroizing;

/// A piece of an answer. It cannot be printed.
#[derive(PartialEq)]
pub(crate) enum Piece {
    /// Text beside calls.
    Text(Zeroizing<String>),
    /// A call begins, of the tool of this name.
    Call(Zeroizing<String>),
    /// More of the last call's arguments.
    Arguments(Zeroizing<String>),
    /// The last call is whole.
    End,
}

enum State {
    /// Beside calls; white space after a call belongs to none.
    Text { after_call: bool },
    /// Between the beginning of a call and its arguments.
    Head,
    /// In the arguments: how deep, whether in a string, whether after a backslash in one.
    Arguments { depth: usize, string: bool, escaped: bool },
    /// After the arguments.
    Tail,
}

/// Splits the text of one answer. A grammar holds calls to their form; text that breaks off inside one ends there.
pub(crate) struct Calls {
    state: State,
    held: Zeroizing<String>,
}

impl Calls {
    pub(crate) fn new() -> Self {
        Self { state: State::Text { after_call: false }, held: Zeroizing::default() }
    }

    /// Takes text, and gives what is certain by now.
    pub(crate) fn push(&mut self, text: &str) -> Vec<Piece> {
        self.held.push_str(text);
        let mut pieces = Vec::new();
        while self.step(&mut pieces) {}
        pieces
    }

    /// No more text: what was held back is text, or a call that broke off.
    pub(crate) fn finish(&mut self) -> Vec<Piece> {
        let rest = std::mem::take(&mut self.held);
        match self.state {
            State::Text { .. } if !rest.is_empty() => vec![Piece::Text(rest)],
            _ => Vec::new(),
        }
    }

    /// Moves on by one state, or as far as the held text goes; false when it waits for more.
    fn step(&mut self, pieces: &mut Vec<Piece>) -> bool {
        match self.state {
            State::Text { after_call } => self.text(after_call, pieces),
            State::Head => self.head(pieces),
            State::Arguments { .. } => self.arguments(pieces),
            State::Tail => match self.held.strip_prefix(END).is_some() {
                true => {
                    self.held.drain(..END.len());
                    pieces.push(Piece::End);
                    self.state = State::Text { after_call: true };
                    true
                }
                false => false,
            },
        }
    }

    fn text(&mut self, mut after_call: bool, pieces: &mut Vec<Piece>) -> bool {
        if after_call {
            let white = self.held.len() - self.held.trim_start().len();
            self.held.drain(..white);
            after_call = self.held.is_empty();
            self.state = State::Text { after_call };
        }
        let found = self.held.find(CALL);
        let free = found.unwrap_or_else(|| self.held.len() - beginning(&self.held, CALL));
        if free > 0 {
            pieces.push(Piece::Text(self.held.drain(..free).collect::<String>().into()));
        }
        if found.is_none() {
            return false;
        }
        self.held.drain(..CALL.len());
        self.state = State::Head;
        true
    }

    fn head(&mut self, pieces: &mut Vec<Piece>) -> bool {
        let Some(at) = self.held.find(ARGUMENTS) else { return false };
        let name = self.held[..at].strip_prefix(NAME).unwrap_or_default().to_owned();
        pieces.push(Piece::Call(name.into()));
        self.held.drain(..at + ARGUMENTS.len());
        self.state = State::Arguments { depth: 0, string: false, escaped: false };
        true
    }

    fn arguments(&mut self, pieces: &mut Vec<Piece>) -> bool {
        let State::Arguments { depth, string, escaped } = &mut self.state else { return false };
        let mut end = None;
        for (at, byte) in self.held.bytes().enumerate() {
            match byte {
                _ if *escaped => *escaped = false,
                b'\\' if *string => *escaped = true,
                b'"' => *string = !*string,
                b'{' | b'[' if !*string => *depth += 1,
                b'}' | b']' if !*string => *depth = depth.saturating_sub(1),
                _ => continue,
            }
            if *depth == 0 && !*string {
                end = Some(at + 1);
                break;
            }
        }
        let length = end.unwrap_or(self.held.len());
        if length > 0 {
            pieces.push(Piece::Arguments(self.held.drain(..length).collect::<String>().into()));
        }
        if end.is_some() {
            self.state = State::Tail;
        }
        end.is_some()
    }
}

/// Bytes at the end of `text` with which `mark` begins.
fn beginning(text: &str, mark: &str) -> usize {
    let most = (mark.len() - 1).min(text.len());
    (1..=most).rev().find(|&n| text.as_bytes().ends_with(&mark.as_bytes()[..n])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = concat!(
        "Let me see: 1 < 2.\n<tool_call>\n{\"name\": \"look_up\", \"arguments\": {\"a\": \"}\\\"]\", \"b\": [{}]}}\n",
        "</tool_call>\n<tool_call>\n{\"name\": \"b\", \"arguments\": {}}\n</tool_call>\nDone <tool"
    );

    /// Pieces in short words, with neighbours of one kind joined.
    fn read(pieces: &[&str]) -> Vec<String> {
        let mut calls = Calls::new();
        let mut said: Vec<Piece> = pieces.iter().flat_map(|piece| calls.push(piece)).collect();
        said.extend(calls.finish());
        let mut words: Vec<String> = Vec::new();
        for piece in &said {
            let (kind, text) = match piece {
                Piece::Text(text) => ('T', text.as_str()),
                Piece::Call(name) => ('C', name.as_str()),
                Piece::Arguments(text) => ('A', text.as_str()),
                Piece::End => ('E', ""),
            };
            match words.last_mut().filter(|last| "TA".contains(kind) && last.starts_with(kind)) {
                Some(last) => last.push_str(text),
                None => words.push(format!("{kind}{text}")),
            }
        }
        words
    }

    #[test]
    fn calls_are_read_the_same_in_any_pieces() {
        let whole = read(&[TEXT]);
        let expected = [
            "TLet me see: 1 < 2.\n",
            "Clook_up",
            r#"A{"a": "}\"]", "b": [{}]}"#,
            "E",
            "Cb",
            "A{}",
            "E",
            "TDone <tool",
        ];
        assert_eq!(whole, expected);
        for first in 0..TEXT.len() {
            for second in first..=TEXT.len().min(first + 9) {
                assert_eq!(read(&[&TEXT[..first], &TEXT[first..second], &TEXT[second..]]), whole);
            }
        }
        let letters: Vec<String> = TEXT.chars().map(String::from).collect();
        assert_eq!(read(&letters.iter().map(String::as_str).collect::<Vec<_>>()), whole);
    }

    #[test]
    fn a_call_that_breaks_off_gives_what_there_is_of_it() {
        let cut = TEXT.find("\"b\"").expect("it is there");
        assert_eq!(read(&[&TEXT[..cut]]), ["TLet me see: 1 < 2.\n", "Clook_up", r#"A{"a": "}\"]", "#]);
        assert_eq!(read(&["<tool_call>\n{\"na"]), Vec::<String>::new());
    }
}
