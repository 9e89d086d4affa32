//! What turns messages into tokens and tokens into text: a model's tokenizer and chat template, without its weights.

use std::path::Path;

use crate::{
    container::{FileSource, Header},
    error::{ModelError, TemplateError},
    gguf, huggingface,
    template::{CallForm, Chat, ChatMessage, Template},
    tokenizer::Tokenizer,
};

/// A model's tokenizer and chat template. Enough to count tokens, which needs no weights.
pub struct Vocabulary {
    tokenizer: Tokenizer,
    /// Compiled at load; what is wrong with it is told when it is used. `None` where the file has none.
    template: Option<Result<Template, String>>,
}

impl Vocabulary {
    /// Reads the head of a GGUF file, or the tokenizer of a Hugging Face folder; weights are not looked at.
    ///
    /// # Errors
    /// The file cannot be read, is cut short or malformed, or holds a tokenizer that this engine does not know.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        if path.is_dir() {
            return huggingface::open_vocabulary(path);
        }
        Self::read(&gguf::read(&FileSource::open(path)?)?)
    }

    pub(crate) fn read(header: &Header) -> Result<Self, ModelError> {
        let tokenizer = Tokenizer::read(header)?;
        Ok(Self::new(tokenizer, header.text("tokenizer.chat_template")?.map(str::to_owned)))
    }

    /// A tokenizer and the source of a chat template.
    pub(crate) fn new(tokenizer: Tokenizer, template: Option<String>) -> Self {
        let (bos, eos) = tokenizer.boundary_names();
        let template =
            template.map(|text| Template::compile(text, bos, eos).map_err(|error| error.to_string()));
        Self { tokenizer, template }
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Renders a conversation with the model's chat template. Encode the result with `special`: only the template's own
    /// control tokens are such in it. Those that a message spells out are broken with a zero-width space, so that text
    /// which an application quotes cannot end its message and begin another.
    ///
    /// # Errors
    /// The model has no template, or the template refuses the messages, cannot be rendered or goes over its limits.
    pub fn render_chat(
        &self,
        messages: &[ChatMessage],
        add_generation_prompt: bool,
    ) -> Result<String, TemplateError> {
        self.render(&Chat::plain(messages, add_generation_prompt))
    }

    /// The same for a conversation with tools, calls of them, or other fields that its template knows. All texts are
    /// treated as messages' are. A call's arguments may be text of JSON or an object.
    ///
    /// # Errors
    /// As [`Self::render_chat`].
    pub fn render(&self, chat: &Chat) -> Result<String, TemplateError> {
        let template = match &self.template {
            None => return Err(TemplateError::Absent),
            Some(Err(reason)) => return Err(TemplateError::Unusable(reason.clone())),
            Some(Ok(template)) => template,
        };
        template.render(&chat.prepared(&|text| self.tokenizer.without_control_tokens(text)))
    }

    /// How its template tells of tools and writes calls of them; `None` where it does not, or in a form that cannot be
    /// read back. It is found out by rendering, each time: keep it.
    pub fn call_form(&self) -> Option<CallForm> {
        CallForm::of(self)
    }
}
