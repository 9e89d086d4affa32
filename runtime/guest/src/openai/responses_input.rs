//! `/v1/responses`: `input` and `instructions` as a conversation.

use super::conversation::Message;
use super::fields::Fields;
use super::messages::{joined, past_call};
use super::refusal::Refusal;
use serde_json::Value;
use std::collections::HashSet;

/// Most items of an input.
const MAX_ITEMS: usize = 4096;

/// Reads a string, or items: messages, calls of tools and what came of them.
pub(super) fn messages(input: Option<Value>, instructions: Option<&str>) -> Result<Vec<Message>, Refusal> {
    let mut messages: Vec<Message> =
        instructions.map(|text| Message::plain("system", text)).into_iter().collect();
    let items = match input {
        None => return Err(Refusal::missing("input")),
        Some(Value::String(text)) => {
            messages.push(Message::plain("user", text));
            return Ok(messages);
        }
        Some(Value::Array(items)) => items,
        Some(other) => return Err(Refusal::wrong_type("input", "a string or an array of items", &other)),
    };
    if items.is_empty() || items.len() > MAX_ITEMS {
        let message = format!("input must hold 1 to {MAX_ITEMS} items, not {}", items.len());
        return Err(Refusal::field("input", message));
    }
    let mut known = HashSet::new();
    for (index, value) in items.into_iter().enumerate() {
        let mut item = Fields::of(value, &format!("input[{index}]"))?;
        item.ignore(&["id", "status"]);
        let kind = item.text("type")?.unwrap_or_else(|| "message".to_owned());
        match kind.as_str() {
            "message" => messages.push(message(&mut item)?),
            "function_call" => call(&mut item, &mut messages, &mut known)?,
            "function_call_output" => messages.push(output(&mut item, &known)?),
            _ => {
                let message =
                    "this worker reads items of type message, function_call and function_call_output";
                return Err(Refusal::field(&item.name("type"), message));
            }
        }
        item.finish()?;
    }
    Ok(messages)
}

fn message(item: &mut Fields) -> Result<Message, Refusal> {
    let role = match item.required_text("role")?.as_str() {
        "developer" | "system" => "system",
        "user" => "user",
        "assistant" => "assistant",
        _ => {
            let message = "the role must be developer, system, user or assistant";
            return Err(Refusal::field(&item.name("role"), message));
        }
    };
    Ok(Message::plain(role, text(item, "content", &["input_text", "output_text"])?))
}

/// A string, or parts of some kinds that are joined.
fn text(item: &mut Fields, field: &str, kinds: &[&str]) -> Result<String, Refusal> {
    let name = item.name(field);
    match item.take(field) {
        None => Err(Refusal::missing(&name)),
        Some(Value::String(text)) => Ok(text),
        Some(Value::Array(parts)) => joined(&name, parts, kinds),
        Some(other) => Err(Refusal::wrong_type(&name, "a string or an array of parts", &other)),
    }
}

/// Calls that follow each other, or what the assistant said before them, are of one message.
fn call(item: &mut Fields, messages: &mut Vec<Message>, known: &mut HashSet<String>) -> Result<(), Refusal> {
    let id = item.required_text("call_id")?;
    known.insert(id.clone());
    let call = past_call(id, item)?;
    match messages.last_mut().filter(|last| last.role == "assistant") {
        Some(last) => last.calls.push(call),
        None => messages.push(Message { role: "assistant", content: None, calls: vec![call], answers: None }),
    }
    Ok(())
}

fn output(item: &mut Fields, known: &HashSet<String>) -> Result<Message, Refusal> {
    let id = item.required_text("call_id")?;
    if !known.contains(&id) {
        let message = "an output must answer the call_id of a function_call before it";
        return Err(Refusal::field(&item.name("call_id"), message));
    }
    Ok(Message { answers: Some(id), ..Message::plain("tool", text(item, "output", &["input_text"])?) })
}
