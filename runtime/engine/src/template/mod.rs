//! Chat templates: the Jinja text in the model file, rendered by minijinja with limits on work, depth and length.
//!
//! minijinja does not bound the memory of a value, so a hostile template can build a huge string by doubling it. A
//! template is a part of the model file, which is measured and which clients accept by its hash; messages are not, and
//! cannot do this.
//!
//! Templates are written for Jinja2 and transformers: what they print is what these print (`python`). There is no
//! `strftime_now`: a date of the clock would make the same request another prompt on another day, and templates that ask
//! whether it is there have a date of their own.

mod calls;
mod python;

pub use calls::CallForm;

use minijinja::{Environment, ErrorKind, Value, syntax::SyntaxConfig};

use crate::{error::TemplateError, json::Json};

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

/// A conversation as a template reads it, in the shape of OpenAI's API.
#[derive(Clone, Default)]
pub struct Chat {
    /// Objects with `role`, `content`, and what else the template knows: `tool_calls`, `tool_call_id`, `name`, …
    pub messages: Vec<Json>,
    /// Descriptions of tools, if there are any.
    pub tools: Vec<Json>,
    /// Whether the template writes the beginning of the answer too.
    pub add_generation_prompt: bool,
    /// Further values that the template may ask for, such as `enable_thinking`.
    pub options: Vec<(String, Json)>,
}

impl Chat {
    /// Plain messages.
    pub(crate) fn plain(messages: &[ChatMessage], add_generation_prompt: bool) -> Self {
        let message = |message: &ChatMessage| {
            let role = ("role".to_owned(), Json::text(message.role.as_str()));
            Json::Object(vec![role, ("content".to_owned(), Json::text(message.content.as_str()))])
        };
        Self { messages: messages.iter().map(message).collect(), add_generation_prompt, ..Self::default() }
    }

    /// The same with each text put through `change`, and the arguments of tools' calls as objects: the API has them as
    /// text, templates were written for what the text says.
    pub(crate) fn prepared(&self, change: &impl Fn(&str) -> String) -> Self {
        let change_all = |values: &[Json]| values.iter().map(|value| value.map_texts(change)).collect();
        let mut messages: Vec<Json> = change_all(&self.messages);
        for message in &mut messages {
            complete(message);
            let Some(Json::List(calls)) = message.get_mut("tool_calls") else { continue };
            for call in calls {
                let Some(arguments) = call.get_mut("function").and_then(|f| f.get_mut("arguments")) else {
                    continue;
                };
                if let Json::Text(text) = &*arguments
                    && let Ok(object @ Json::Object(_)) = serde_json::from_str(text)
                {
                    *arguments = object;
                }
            }
        }
        let options = self.options.iter().map(|(name, value)| (name.clone(), value.map_texts(change)));
        Self {
            messages,
            tools: change_all(&self.tools),
            add_generation_prompt: self.add_generation_prompt,
            options: options.collect(),
        }
    }
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
        environment.set_unknown_method_callback(python::method);
        environment.set_formatter(python::print);
        environment.add_filter("tojson", python::to_json);
        environment.add_function("raise_exception", |message: String| -> Result<Value, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, format!("{RAISED}{message}")))
        });
        environment
            .add_template_owned(NAME, without_generation_tags(&source))
            .map_err(|error| TemplateError::Unusable(error.to_string()))?;
        Ok(Self { environment, bos, eos })
    }

    /// The conversation as the model was trained to read it.
    pub(crate) fn render(&self, chat: &Chat) -> Result<String, TemplateError> {
        let template = self
            .environment
            .get_template(NAME)
            .map_err(|error| TemplateError::Unusable(error.to_string()))?;
        // What a request names itself must not take the place of what the template is always given.
        let options = chat.options.iter().map(|(name, value)| (name.as_str(), value_of(value)));
        let list = |items: &[Json]| items.iter().map(value_of).collect::<Vec<_>>();
        let tools = if chat.tools.is_empty() { Value::from(()) } else { list(&chat.tools).into() };
        let given = [
            ("messages", list(&chat.messages).into()),
            ("tools", tools),
            ("documents", Value::from(())),
            ("add_generation_prompt", Value::from(chat.add_generation_prompt)),
            ("bos_token", Value::from(self.bos.as_str())),
            ("eos_token", Value::from(self.eos.as_str())),
        ];
        let values = Value::from_pairs(options.chain(given));
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

/// As transformers prepares a message: no fields that are null, and reasoning under both of its names.
fn complete(message: &mut Json) {
    let Json::Object(fields) = message else { return };
    fields.retain(|(_, value)| *value != Json::Null);
    let names = ["reasoning_content", "thinking", "reasoning"];
    let found = names.iter().find_map(|name| fields.iter().find(|(field, _)| field == name));
    let Some(reasoning) = found.map(|(_, value)| value.clone()) else { return };
    for name in &names[..2] {
        if !fields.iter().any(|(field, _)| field == name) {
            fields.push(((*name).to_owned(), reasoning.clone()));
        }
    }
}

/// A template without the tags by which trainers mark what an assistant said.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        let end = tag.find("%}").unwrap_or(tag.len());
        let word = tag[2..end.max(2)].trim_matches(['-', '+', ' ', '\n', '\t']);
        let replaced = match word {
            "generation" => tag[..end].replacen(word, "if true", 1),
            "endgeneration" => tag[..end].replacen(word, "endif", 1),
            _ => tag[..end].to_owned(),
        };
        out.push_str(before);
        out.push_str(&replaced);
        rest = &tag[end..];
    }
    out + rest
}

/// A value as templates have them.
fn value_of(json: &Json) -> Value {
    match json {
        Json::Null => Value::from(()),
        Json::Bool(value) => Value::from(*value),
        Json::Integer(value) => Value::from(*value),
        Json::Unsigned(value) => Value::from(*value),
        Json::Float(value) => Value::from(*value),
        Json::Text(text) => Value::from(text.as_str()),
        Json::List(items) => Value::from(items.iter().map(value_of).collect::<Vec<_>>()),
        Json::Object(entries) => {
            Value::from_pairs(entries.iter().map(|(key, value)| (key.as_str(), value_of(value))))
        }
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
mod tests;
