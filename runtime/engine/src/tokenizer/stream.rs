//! Text out of tokens as they come: a character is given out when its last byte has arrived.

use super::Tokenizer;

/// Collects the bytes of tokens and gives out whole characters. Bytes that can no longer become a character turn
/// into U+FFFD, one for each maximal broken piece, as `String::from_utf8_lossy` does it.
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    /// The beginning of a character: at most three bytes stay here between calls.
    pending: Vec<u8>,
    /// Whether a space that comes next was not in the text.
    drops_space: bool,
}

impl<'a> TextStream<'a> {
    /// At the start of an answer.
    pub fn new(tokenizer: &'a Tokenizer) -> Self {
        Self { tokenizer, pending: Vec::new(), drops_space: tokenizer.drops_first_space() }
    }

    /// Takes a token and appends the characters that are complete to `out`.
    pub fn push(&mut self, token: u32, out: &mut String) {
        let mut bytes = self.tokenizer.text_of(token);
        if self.drops_space && !bytes.is_empty() {
            bytes = bytes.strip_prefix(b" ").unwrap_or(bytes);
            self.drops_space = false;
        }
        self.pending.extend_from_slice(bytes);
        let mut done = 0;
        loop {
            match std::str::from_utf8(&self.pending[done..]) {
                Ok(text) => {
                    out.push_str(text);
                    done = self.pending.len();
                    break;
                }
                Err(error) => {
                    let whole = &self.pending[done..done + error.valid_up_to()];
                    out.push_str(std::str::from_utf8(whole).expect("valid up to here"));
                    done += error.valid_up_to();
                    let Some(broken) = error.error_len() else { break }; // the rest may still arrive
                    out.push(char::REPLACEMENT_CHARACTER);
                    done += broken;
                }
            }
        }
        self.pending.drain(..done);
    }

    /// No more tokens: a character whose end never came becomes U+FFFD.
    pub fn finish(&mut self, out: &mut String) {
        if !self.pending.is_empty() {
            out.push(char::REPLACEMENT_CHARACTER);
            self.pending.clear();
        }
    }
}
