//! Conversations in OpenAI's words.

use super::conversation::{Message, PastCall};
use super::fields::Fields;
use super::refusal::Refusal;
use serde_json::Value;
use std::collections::HashSet;
use zeroize::Zeroizing;

/// Most messages in a request.
const MAX_MESSAGES: usize = 4096;

/// Reads `messages`.
pub(crate) fn messages(given: Option<Vec<Value>>) -> Result<Vec<Message>, Refusal> {
    let list = given.ok_or_else(|| Refusal::missing("messages"))?;
    if list.is_empty() || list.len() > MAX_MESSAGES {
        let message = format!("messages must hold 1 to {MAX_MESSAGES} messages, not {}", list.len());
        return Err(Refusal::field("messages", message));
    }
    let mut known = HashSet::new();
    list.into_iter().enumerate().map(|(index, value)| message(index, value, &mut known)).collect()
}

/// Reads one. `calls` are the ids of the calls so far: what a tool says must answer one of them.
fn message(index: usize, value: Value, calls: &mut HashSet<String>) -> Result<Message, Refusal> {
    let mut fields = Fields::of(value, &format!("messages[{index}]"))?;
    let role = fields.required_text("role")?;
    fields
        .refuse(&[("audio", "it writes text only"), ("function_call", "it is deprecated: use tool_calls")])?;
    fields.ignore(&["name", "refusal", "annotations"]); // chat templates have no place for them
    let content = content(&mut fields)?;
    let message = match role.as_str() {
        // OpenAI's newer name for it.
        "developer" | "system" => Message::plain("system", required(content, &fields)?),
        "user" => Message::plain("user", required(content, &fields)?),
        "assistant" => assistant(content, &mut fields, calls)?,
        "tool" => {
            let id = fields.required_text("tool_call_id")?;
            if !calls.contains(&id) {
                let message =
                    "a message of a tool must answer a tool_call_id of an assistant's message before it";
                return Err(Refusal::field(&fields.name("tool_call_id"), message));
            }
            Message { answers: Some(id), ..Message::plain("tool", required(content, &fields)?) }
        }
        _ => {
            let message = "the role must be developer, system, user, assistant or tool";
            return Err(Refusal::field(&fields.name("role"), message));
        }
    };
    fields.finish()?;
    Ok(message)
}

fn required(content: Option<String>, fields: &Fields) -> Result<String, Refusal> {
    content.ok_or_else(|| Refusal::missing(&fields.name("content")))
}

fn assistant(
    content: Option<String>,
    fields: &mut Fields,
    known: &mut HashSet<String>,
) -> Result<Message, Refusal> {
    let given = fields.list("tool_calls")?.unwrap_or_default();
    if given.is_empty() {
        return Ok(Message::plain("assistant", required(content, fields)?));
    }
    let mut calls = Vec::with_capacity(given.len());
    for (index, call) in given.into_iter().enumerate() {
        let mut call = Fields::of(call, &fields.name(&format!("tool_calls[{index}]")))?;
        let id = call.required_text("id")?;
        let kind = call.required_text("type")?;
        if kind != "function" {
            return Err(Refusal::field(&call.name("type"), "the type of a call must be function"));
        }
        let mut function =
            call.object("function")?.ok_or_else(|| Refusal::missing(&call.name("function")))?;
        call.ignore(&["index"]);
        call.finish()?;
        known.insert(id.clone());
        calls.push(past_call(id, &mut function)?);
        function.finish()?;
    }
    let content = content.map(Zeroizing::new);
    Ok(Message { role: "assistant", content, calls, answers: None })
}

/// The rest of a call, from wherever its `name` and `arguments` stand.
pub(super) fn past_call(id: String, fields: &mut Fields) -> Result<PastCall, Refusal> {
    let name = fields.required_text("name")?;
    Ok(PastCall { id, name, arguments: fields.required_text("arguments")?.into() })
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
