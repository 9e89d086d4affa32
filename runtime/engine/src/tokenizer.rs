//! stub
use crate::error::ModelError;
/// Text to token ids and back.
pub struct Tokenizer {
    ends: Vec<u32>,
}
impl Tokenizer {
    /// Token ids of `text`. With `special`, control tokens written out in the text become themselves.
    pub fn encode(&self, _text: &str, _special: bool) -> Vec<u32> {
        todo!()
    }
    /// The bytes of these tokens; control tokens as they are written.
    pub fn decode(&self, _tokens: &[u32]) -> Vec<u8> {
        todo!()
    }
    /// Tokens that end an answer.
    pub fn end_tokens(&self) -> &[u32] {
        &self.ends
    }
}
/// Turns tokens into text as they come.
pub struct TextStream<'a> {
    _t: &'a Tokenizer,
}
impl<'a> TextStream<'a> {
    /// At the start of an answer.
    pub fn new(_t: &'a Tokenizer) -> Self {
        Self { _t }
    }
    /// Takes a token and appends the characters that are complete.
    pub fn push(&mut self, _token: u32, _out: &mut String) {
        todo!()
    }
    /// Appends what is left.
    pub fn finish(&mut self, _out: &mut String) {
        todo!()
    }
}
