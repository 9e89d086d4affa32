//! Reads calls of tools out of an answer's text, as it comes, whatever pieces it comes in.

use cocoon_engine::CallForm;
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
    form: CallForm,
    /// Whether calls may stand in text. Else an answer is calls from its first character on, or none.
    anywhere: bool,
    /// An answer that is no call, where it may not become one any more.
    only_text: bool,
    state: State,
    held: Zeroizing<String>,
}

impl Calls {
    /// Of an answer whose calls are written so. In text that is held to a schema calls stand at the beginning alone: what
    /// looks like one later is in a string of it.
    pub(crate) fn new(form: CallForm, in_text: bool) -> Self {
        let anywhere = form.anywhere && in_text;
        let (state, held) = (State::Text { after_call: false }, Zeroizing::default());
        Self { form, anywhere, only_text: false, state, held }
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

    /// Whether the last call is not whole: its arguments are no JSON yet.
    pub(crate) fn is_inside(&self) -> bool {
        matches!(self.state, State::Head | State::Arguments { .. })
    }

    /// Moves on by one state, or as far as the held text goes; false when it waits for more.
    fn step(&mut self, pieces: &mut Vec<Piece>) -> bool {
        match self.state {
            State::Text { after_call } => self.text(after_call, pieces),
            State::Head => self.head(pieces),
            State::Arguments { .. } => self.arguments(pieces),
            State::Tail => match self.held.starts_with(&self.form.end) {
                true => {
                    self.held.drain(..self.form.end.len());
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
        let (found, free) = self.mark();
        if free > 0 {
            pieces.push(Piece::Text(self.held.drain(..free).collect::<String>().into()));
        }
        if found {
            self.held.drain(..self.form.mark.len());
            self.state = State::Head;
        }
        found
    }

    /// Whether a call begins in the held text, and how many bytes of it are text that may go.
    fn mark(&mut self) -> (bool, usize) {
        let mark = self.form.mark.as_str();
        if self.anywhere {
            let found = self.held.find(mark);
            return (found.is_some(), found.unwrap_or_else(|| self.held.len() - beginning(&self.held, mark)));
        }
        if !self.only_text && self.held.starts_with(mark) {
            return (true, 0);
        }
        self.only_text |= !mark.starts_with(self.held.as_str());
        (false, if self.only_text { self.held.len() } else { 0 })
    }

    fn head(&mut self, pieces: &mut Vec<Piece>) -> bool {
        let CallForm { head, middle, .. } = &self.form;
        let Some(at) = self.held.get(head.len()..).and_then(|held| held.find(middle.as_str())) else {
            return false;
        };
        let name = self.held[head.len()..head.len() + at].to_owned();
        pieces.push(Piece::Call(name.into()));
        self.held.drain(..head.len() + at + middle.len());
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
        read_by(Calls::new(CallForm::hermes(), true), pieces)
    }

    fn read_by(mut calls: Calls, pieces: &[&str]) -> Vec<String> {
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

    /// As Llama 3 writes them: a call is the whole answer.
    fn bare() -> CallForm {
        let (mark, head) = ("{\"name\": \"".into(), String::new());
        let (middle, end) = ("\", \"parameters\": ".into(), "}".into());
        CallForm { mark, head, middle, end, between: None, anywhere: false }
    }

    #[test]
    fn a_call_without_marks_is_the_whole_answer_or_none() {
        let call = r#"{"name": "f", "parameters": {"a": [1]}}"#;
        let text = r#"Use {"name": "f", "parameters": {}} for it."#;
        let near = r#"{"named": 1}"#;
        for cut in 0..call.len() {
            let read = |text: &str| {
                let at = cut.min(text.len());
                read_by(Calls::new(bare(), true), &[&text[..at], &text[at..]])
            };
            assert_eq!(read(call), ["Cf", r#"A{"a": [1]}"#, "E"]);
            assert_eq!(read(text), [format!("T{text}")]);
            assert_eq!(read(near), [format!("T{near}")]);
        }
        // What might have become a call, and did not, is text.
        assert_eq!(read_by(Calls::new(bare(), true), &["{\"na"]), ["T{\"na"]);
    }

    #[test]
    fn in_answers_of_a_schema_a_mark_inside_a_string_is_no_call() {
        let answer = r#"{"a": "<tool_call>\n{\"name\": \"f\""}"#;
        for cut in 0..answer.len() {
            let calls = Calls::new(CallForm::hermes(), false);
            assert_eq!(read_by(calls, &[&answer[..cut], &answer[cut..]]), [format!("T{answer}")]);
        }
        let calls = &TEXT[TEXT.find("<tool_call>").expect("a mark")..TEXT.find("Done").expect("an end")];
        let read = read_by(Calls::new(CallForm::hermes(), false), &[calls]);
        assert_eq!(read[..2], ["Clook_up".to_owned(), r#"A{"a": "}\"]", "b": [{}]}"#.to_owned()]);
        assert_eq!(
            read.iter().filter(|word| word.starts_with('C')).count(),
            2,
            "several may follow each other"
        );
    }

    #[test]
    fn it_is_known_whether_the_last_call_is_whole() {
        let mut calls = Calls::new(CallForm::hermes(), true);
        let at = TEXT.find("\n</tool_call>").expect("it is there");
        for (from, to, inside) in [(0, 15, false), (15, at - 9, true), (at - 9, at - 1, false)] {
            calls.push(&TEXT[from..to]);
            assert_eq!(calls.is_inside(), inside, "{}", &TEXT[..to]);
        }
    }
}
