//! Conversations in OpenAI's words, as a model's chat template reads them.
//!
//! Calls of tools and what came of them are written as Hermes and Qwen models are trained to read them, see
//! [`super::tools`].

use super::fields::Fields;
use super::refusal::Refusal;
use super::tools;
use cocoon_engine::ChatMessage;
use serde_json::Value;

/// Most messages in a request.
const MAX_MESSAGES: usize = 4096;

/// Reads `messages`.
pub(crate) fn messages(given: Option<Vec<Value>>) -> Result<Vec<ChatMessage>, Refusal> {
    let list = given.ok_or_else(|| Refusal::missing("messages"))?;
    if list.is_empty() || list.len() > MAX_MESSAGES {
        let message = format!("messages must hold 1 to {MAX_MESSAGES} messages, not {}", list.len());
        return Err(Refusal::field("messages", message));
    }
    let mut known = Vec::new();
    list.into_iter().enumerate().map(|(index, value)| message(index, value, &mut known)).collect()
}

/// Reads one. `calls` are the ids of the calls so far: what a tool says must answer one of them.
fn message(index: usize, value: Value, calls: &mut Vec<String>) -> Result<ChatMessage, Refusal> {
    let mut fields = Fields::of(value, &format!("messages[{index}]"))?;
    let role = fields.required_text("role")?;
    fields
        .refuse(&[("audio", "it writes text only"), ("function_call", "it is deprecated: use tool_calls")])?;
    fields.ignore(&["name", "refusal", "annotations"]); // chat templates have no place for them
    let content = content(&mut fields)?;
    let message = match role.as_str() {
        // OpenAI's newer name for it.
        "developer" | "system" => plain("system", required(content, &fields)?),
        "user" => plain("user", required(content, &fields)?),
        "assistant" => assistant(content, &mut fields, calls)?,
        "tool" => {
            let id = fields.required_text("tool_call_id")?;
            if !calls.contains(&id) {
                let message =
                    "a message of a tool must answer a tool_call_id of an assistant's message before it";
                return Err(Refusal::field(&fields.name("tool_call_id"), message));
            }
            plain("user", tools::result_text(&required(content, &fields)?))
        }
        _ => {
            let message = "the role must be developer, system, user, assistant or tool";
            return Err(Refusal::field(&fields.name("role"), message));
        }
    };
    fields.finish()?;
    Ok(message)
}

fn plain(role: &str, content: String) -> ChatMessage {
    ChatMessage { role: role.to_owned(), content }
}

fn required(content: Option<String>, fields: &Fields) -> Result<String, Refusal> {
    content.ok_or_else(|| Refusal::missing(&fields.name("content")))
}

fn assistant(
    content: Option<String>,
    fields: &mut Fields,
    known: &mut Vec<String>,
) -> Result<ChatMessage, Refusal> {
    let calls = fields.list("tool_calls")?.unwrap_or_default();
    if calls.is_empty() {
        return Ok(plain("assistant", required(content, fields)?));
    }
    let mut text = content.unwrap_or_default();
    for (index, call) in calls.into_iter().enumerate() {
        let mut call = Fields::of(call, &fields.name(&format!("tool_calls[{index}]")))?;
        known.push(call.required_text("id")?);
        let kind = call.required_text("type")?;
        if kind != "function" {
            return Err(Refusal::field(&call.name("type"), "the type of a call must be function"));
        }
        let mut function =
            call.object("function")?.ok_or_else(|| Refusal::missing(&call.name("function")))?;
        call.ignore(&["index"]);
        call.finish()?;
        let (name, arguments) = (function.required_text("name")?, function.required_text("arguments")?);
        function.finish()?;
        tools::write_call(&mut text, &name, &arguments);
    }
    Ok(plain("assistant", text))
}

/// The text of a message: a string, or parts that are joined.
fn content(fields: &mut Fields) -> Result<Option<String>, Refusal> {
    let name = fields.name("content");
    match fields.take("content") {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(Value::Array(parts)) => joined(&name, parts, &["text"]).map(Some),
        Some(other) => Err(Refusal::wrong_type(&name, "a string or an array of parts", &other)),
    }
}

/// The texts of parts whose type is one of `kinds`.
pub(crate) fn joined(name: &str, parts: Vec<Value>, kinds: &[&str]) -> Result<String, Refusal> {
    let mut text = String::new();
    for (index, part) in parts.into_iter().enumerate() {
        let mut part = Fields::of(part, &format!("{name}[{index}]"))?;
        let kind = part.required_text("type")?;
        if !kinds.contains(&kind.as_str()) {
            let message = format!("this worker reads parts of type {} only", kinds.join(" and "));
            return Err(Refusal::field(&part.name("type"), message));
        }
        text.push_str(&part.required_text("text")?);
        part.ignore(&["annotations", "logprobs"]);
        part.finish()?;
    }
    Ok(text)
}
