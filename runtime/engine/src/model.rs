//! stub
use crate::{
    error::{ModelError, TemplateError},
    template::ChatMessage,
    tokenizer::Tokenizer,
};
use std::path::Path;
/// A model in memory: weights, tokenizer and chat template. Share it by `Arc`.
pub struct Model {
    tokenizer: Tokenizer,
}
impl Model {
    /// Reads a GGUF file. Every offset, size and count is checked.
    pub fn open(_path: &Path) -> Result<Self, ModelError> {
        todo!()
    }
    /// The same from memory: hash these bytes first, and what was measured is what runs.
    pub fn from_bytes(_bytes: Vec<u8>) -> Result<Self, ModelError> {
        todo!()
    }
    /// The name that the file gives itself.
    pub fn name(&self) -> &str {
        todo!()
    }
    /// Most tokens that the model was made for.
    pub fn context_length(&self) -> usize {
        todo!()
    }
    /// Number of tokens.
    pub fn vocab_size(&self) -> usize {
        todo!()
    }
    /// Number of weights.
    pub fn parameters(&self) -> u64 {
        todo!()
    }
    /// Bytes of weights in memory.
    pub fn bytes(&self) -> u64 {
        todo!()
    }
    /// Its tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }
    /// Renders a conversation with the model's chat template.
    pub fn render_chat(
        &self,
        _messages: &[ChatMessage],
        _add_generation_prompt: bool,
    ) -> Result<String, TemplateError> {
        todo!()
    }
}
