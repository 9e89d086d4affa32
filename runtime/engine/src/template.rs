//! Chat templates: the Jinja text in the model file, rendered by minijinja with limits on work, depth and length.
//!
//! minijinja does not bound the memory of a value, so a hostile template can build a huge string by doubling it. A
//! template is a part of the model file, which is measured and which clients accept by its hash; messages are not, and
//! cannot do this.

use minijinja::{Environment, ErrorKind, Value, context, syntax::SyntaxConfig};

use crate::error::TemplateError;

/// Most instructions that one rendering may take.
const MAX_FUEL: u64 = 2_000_000;
/// Longest rendered text, in bytes.
const MAX_RENDERED: usize = 4 << 20;
/// Deepest nesting of blocks, macros and calls.
const MAX_DEPTH: usize = 64;
/// Name under which the template is kept.
const NAME: &str = "chat";

/// One message of a conversation.
#[derive(Clone, PartialEq, Eq)]
pub struct ChatMessage {
    /// `system`, `user`, `assistant`, or what else the template knows.
    pub role: String,
    /// Its text.
    pub content: String,
}

/// A compiled chat template and the tokens that it may name.
pub(crate) struct Template {
    environment: Environment<'static>,
    bos: String,
    eos: String,
}

impl Template {
    /// Compiles the template of a model file.
    pub(crate) fn compile(source: String, bos: String, eos: String) -> Result<Self, TemplateError> {
        let mut environment = Environment::new();
        environment.set_fuel(Some(MAX_FUEL));
        environment.set_recursion_limit(MAX_DEPTH);
        // As transformers sets them: the templates are written for it.
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|error| TemplateError::Unusable(error.to_string()))?);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> Result<Value, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, format!("{RAISED}{message}")))
        });
        environment
            .add_template_owned(NAME, source)
            .map_err(|error| TemplateError::Unusable(error.to_string()))?;
        Ok(Self { environment, bos, eos })
    }

    /// The conversation as the model was trained to read it.
    pub(crate) fn render(
        &self,
        messages: &[ChatMessage],
        add_generation_prompt: bool,
    ) -> Result<String, TemplateError> {
        let template = self
            .environment
            .get_template(NAME)
            .map_err(|error| TemplateError::Unusable(error.to_string()))?;
        let message = |m: &ChatMessage| context! { role => m.role.as_str(), content => m.content.as_str() };
        let values = context! {
            messages => messages.iter().map(message).collect::<Vec<_>>(),
            add_generation_prompt => add_generation_prompt,
            bos_token => self.bos.as_str(),
            eos_token => self.eos.as_str(),
        };
        let mut text = Bounded::default();
        match template.render_captured_to(values, &mut text) {
            Ok(_) => {}
            Err(_) if text.full => {
                return Err(TemplateError::Limit(format!("the rendered text is over {MAX_RENDERED} bytes")));
            }
            Err(error) => return Err(explain(&error)),
        }
        String::from_utf8(text.bytes)
            .map_err(|_| TemplateError::Unusable("it renders to broken UTF-8".into()))
    }
}

/// Marks errors that the template itself raised.
const RAISED: &str = "raised: ";

/// The kind of the error, and never its context: that would quote the conversation.
fn explain(error: &minijinja::Error) -> TemplateError {
    if let Some(message) = error.detail().and_then(|detail| detail.strip_prefix(RAISED)) {
        return TemplateError::Refused(message.to_owned());
    }
    match error.kind() {
        ErrorKind::OutOfFuel => TemplateError::Limit(format!("more than {MAX_FUEL} instructions")),
        kind => TemplateError::Unusable(match error.line() {
            Some(line) => format!("{kind} in its line {line}"),
            None => kind.to_string(),
        }),
    }
}

/// Takes what a rendering writes, up to [`MAX_RENDERED`].
#[derive(Default)]
struct Bounded {
    bytes: Vec<u8>,
    full: bool,
}

impl std::io::Write for Bounded {
    fn write(&mut self, piece: &[u8]) -> std::io::Result<usize> {
        if self.bytes.len() + piece.len() > MAX_RENDERED {
            self.full = true;
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        self.bytes.extend_from_slice(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[path = "template_tests.rs"]
mod tests;
