//! Conversations as they were asked, before it is known how a model is told of them.
//!
//! A model whose chat template has words for tools gets them in these: its template renders tools, calls and what came of
//! them. All others are spoken to as Hermes models are, in plain messages.

use super::refusal::Refusal;
use cocoon_engine::{CallForm, Chat, ChatMessage, Json, Model, TemplateError};
use serde_json::Value;
use zeroize::Zeroizing;

/// A call that a model made before.
pub(crate) struct PastCall {
    pub(crate) id: String,
    pub(crate) name: String,
    /// Text of JSON, as OpenAI has it.
    pub(crate) arguments: Zeroizing<String>,
}

/// One message.
pub(crate) struct Message {
    /// `system`, `user`, `assistant` or `tool`.
    pub(crate) role: &'static str,
    pub(crate) content: Option<Zeroizing<String>>,
    /// Of an assistant.
    pub(crate) calls: Vec<PastCall>,
    /// The id of the call that a tool answers.
    pub(crate) answers: Option<String>,
}

impl Message {
    /// A text of somebody.
    pub(crate) fn plain(role: &'static str, content: impl Into<String>) -> Self {
        Self { role, content: Some(Zeroizing::new(content.into())), calls: Vec::new(), answers: None }
    }
}

/// Messages, and the tools that the model is told of. It cannot be printed.
#[derive(Default)]
pub(crate) struct Conversation {
    pub(crate) messages: Vec<Message>,
    /// `{"type": "function", "function": {…}}` each.
    pub(crate) tools: Vec<Value>,
}

impl Conversation {
    /// The text that an answer goes on from. `form` is how the model's own template writes calls, if it does.
    ///
    /// # Errors
    /// The template refuses the messages, cannot be rendered or goes over its limits.
    pub(crate) fn render(
        &self,
        model: &Model,
        form: Option<&CallForm>,
    ) -> Result<Zeroizing<String>, TemplateError> {
        let text = match form {
            Some(_) => model.vocabulary().render(&self.native())?,
            None => model.render_chat(&self.plain(), true)?,
        };
        Ok(text.into())
    }

    /// In the shape of OpenAI's API, which templates with words for tools are written for.
    fn native(&self) -> Chat {
        let message = |message: &Message| {
            let mut fields = vec![field("role", Json::from(message.role))];
            if let Some(content) = &message.content {
                fields.push(field("content", Json::text(content.as_str())));
            }
            if !message.calls.is_empty() {
                fields.push(field("tool_calls", Json::List(message.calls.iter().map(call).collect())));
            }
            if let Some(id) = &message.answers {
                fields.push(field("tool_call_id", Json::from(id.as_str())));
            }
            Json::Object(fields)
        };
        Chat {
            messages: self.messages.iter().map(message).collect(),
            tools: self.tools.iter().map(json).collect(),
            add_generation_prompt: true,
            ..Chat::default()
        }
    }

    /// In the words of Hermes models: calls and what came of them are text, and the system's message tells of tools.
    pub(crate) fn plain(&self) -> Vec<ChatMessage> {
        let form = CallForm::hermes();
        let message = |message: &Message| {
            let said = message.content.as_ref().map_or("", |content| content.as_str());
            let (role, content) = match message.role {
                "tool" => ("user", format!("<tool_response>\n{said}\n</tool_response>")),
                role => {
                    let calls = message.calls.iter().map(|call| form.write(&call.name, &call.arguments));
                    let said = (!said.is_empty() || message.calls.is_empty()).then(|| said.to_owned());
                    (role, said.into_iter().chain(calls).collect::<Vec<_>>().join("\n"))
                }
            };
            ChatMessage { role: role.to_owned(), content }
        };
        let mut messages: Vec<ChatMessage> = Vec::with_capacity(self.messages.len() + 1);
        let mut after_tool = false;
        for one in &self.messages {
            let next = message(one);
            // What several calls came to is one message: many templates want users and assistants to take turns.
            match messages.last_mut().filter(|_| after_tool && one.role == "tool") {
                Some(last) => last.content.extend(["\n", next.content.as_str()]),
                None => messages.push(next),
            }
            after_tool = one.role == "tool";
        }
        if !self.tools.is_empty() {
            let told = self.told();
            match messages.first_mut().filter(|message| message.role == "system") {
                Some(system) => {
                    system.content.push_str("\n\n");
                    system.content.push_str(&told);
                }
                None => messages.insert(0, ChatMessage { role: "system".to_owned(), content: told }),
            }
        }
        messages
    }

    /// What a model without words of its own is told of its tools.
    fn told(&self) -> String {
        let tools: String = self.tools.iter().map(|tool| format!("\n{tool}")).collect();
        format!(
            "# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are provided with \
             function signatures within <tools></tools> XML tags:\n<tools>{tools}\n</tools>\n\nFor each function call, \
             return a json object with function name and arguments within <tool_call></tool_call> XML tags:\n\
             <tool_call>\n{{\"name\": <function-name>, \"arguments\": <args-json-object>}}\n</tool_call>"
        )
    }
}

fn field(name: &str, value: Json) -> (String, Json) {
    (name.to_owned(), value)
}

fn call(call: &PastCall) -> Json {
    let function = Json::Object(vec![
        field("name", Json::from(call.name.as_str())),
        field("arguments", Json::text(call.arguments.as_str())),
    ]);
    Json::Object(vec![
        field("id", Json::from(call.id.as_str())),
        field("type", Json::from("function")),
        field("function", function),
    ])
}

/// The same value for a template. Depth was limited when it was read.
fn json(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Bool(value) => Json::Bool(*value),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Json::Integer(number),
            (None, Some(number)) => Json::Unsigned(number),
            (None, None) => Json::Float(number.as_f64().unwrap_or(f64::MAX)),
        },
        Value::String(text) => Json::text(text.as_str()),
        Value::Array(items) => Json::List(items.iter().map(json).collect()),
        Value::Object(map) => {
            Json::Object(map.iter().map(|(name, value)| (name.clone(), json(value))).collect())
        }
    }
}

/// A template's refusal as the client's fault, or the model's.
impl From<&TemplateError> for Refusal {
    fn from(error: &TemplateError) -> Self {
        match error {
            TemplateError::Refused(_) | TemplateError::Limit(_) => {
                Self::new(400, "invalid_messages", error.to_string())
            }
            _ => Self::server(500, "model_unusable", error.to_string()),
        }
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        self.tools.iter_mut().for_each(super::wipe::wipe);
    }
}
