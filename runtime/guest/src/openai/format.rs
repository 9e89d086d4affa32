//! What an answer's text is held to.

use super::fields::Fields;
use super::refusal::Refusal;
use super::schema::{self, Strictness};
use serde_json::{Value, json};

/// Longest name of a schema, as OpenAI.
const MAX_NAME: usize = 64;

/// What an answer's text is held to.
pub(crate) enum Format {
    /// Nothing.
    Free,
    /// A JSON value that follows this schema.
    Schema(Value),
}

impl Format {
    /// `response_format` of chat completions: the schema stands in `json_schema`.
    pub(super) fn chat(mut fields: Fields) -> Result<Self, Refusal> {
        let kind = fields.required_text("type")?;
        let format = match kind.as_str() {
            "text" => Self::Free,
            "json_object" => Self::object(),
            "json_schema" => {
                let path = fields.name("json_schema");
                let inner = fields.object("json_schema")?.ok_or_else(|| Refusal::missing(&path))?;
                Self::schema(inner)?
            }
            _ => return Err(Self::unknown(&fields)),
        };
        fields.finish()?;
        Ok(format)
    }

    /// `text.format` of responses: the schema stands beside the type.
    pub(super) fn response(mut fields: Fields) -> Result<Self, Refusal> {
        match fields.required_text("type")?.as_str() {
            "text" => fields.finish().map(|()| Self::Free),
            "json_object" => fields.finish().map(|()| Self::object()),
            "json_schema" => Self::schema(fields),
            _ => Err(Self::unknown(&fields)),
        }
    }

    fn object() -> Self {
        Self::Schema(json!({"type": "object"}))
    }

    fn unknown(fields: &Fields) -> Refusal {
        Refusal::field(&fields.name("type"), "the format must be text, json_object or json_schema")
    }

    fn schema(mut fields: Fields) -> Result<Self, Refusal> {
        let name = fields.required_text("name")?;
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(fits) {
            let message = format!("a schema's name must be 1 to {MAX_NAME} of a-z, A-Z, 0-9, _ and -");
            return Err(Refusal::field(&fields.name("name"), message));
        }
        fields.ignore(&["description"]);
        let strict = fields.boolean("strict")?.unwrap_or(false);
        let path = fields.name("schema");
        let schema = fields.take("schema").ok_or_else(|| Refusal::missing(&path))?;
        fields.finish()?;
        let strictness = if strict { Strictness::Strict } else { Strictness::Held };
        schema::checked(schema, &path, strictness).map(Self::Schema)
    }
}
