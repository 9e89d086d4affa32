//! `/v1/responses`: `input` and `instructions` as a conversation.

use super::fields::Fields;
use super::messages::joined;
use super::refusal::Refusal;
use super::tools;
use cocoon_engine::ChatMessage;
use serde_json::Value;

/// Most items of an input.
const MAX_ITEMS: usize = 4096;

/// Reads a string, or items: messages, calls of tools and what came of them.
pub(super) fn messages(
    input: Option<Value>,
    instructions: Option<&str>,
) -> Result<Vec<ChatMessage>, Refusal> {
    let mut messages = Vec::new();
    if let Some(instructions) = instructions {
        push(&mut messages, "system", instructions);
    }
    let items = match input {
        None => return Err(Refusal::missing("input")),
        Some(Value::String(text)) => {
            push(&mut messages, "user", &text);
            return Ok(messages);
        }
        Some(Value::Array(items)) => items,
        Some(other) => return Err(Refusal::wrong_type("input", "a string or an array of items", &other)),
    };
    if items.is_empty() || items.len() > MAX_ITEMS {
        let message = format!("input must hold 1 to {MAX_ITEMS} items, not {}", items.len());
        return Err(Refusal::field("input", message));
    }
    let (mut known, mut calling) = (Vec::new(), false);
    for (index, value) in items.into_iter().enumerate() {
        let mut item = Fields::of(value, &format!("input[{index}]"))?;
        item.ignore(&["id", "status"]);
        let kind = item.text("type")?.unwrap_or_else(|| "message".to_owned());
        match kind.as_str() {
            "message" => message(&mut item, &mut messages)?,
            "function_call" => call(&mut item, &mut messages, &mut known, calling)?,
            "function_call_output" => output(&mut item, &mut messages, &known)?,
            _ => {
                let message =
                    "this worker reads items of type message, function_call and function_call_output";
                return Err(Refusal::field(&item.name("type"), message));
            }
        }
        calling = kind == "function_call";
        item.finish()?;
    }
    Ok(messages)
}

fn push(messages: &mut Vec<ChatMessage>, role: &str, content: &str) {
    messages.push(ChatMessage { role: role.to_owned(), content: content.to_owned() });
}

fn message(item: &mut Fields, messages: &mut Vec<ChatMessage>) -> Result<(), Refusal> {
    let role = item.required_text("role")?;
    let role = match role.as_str() {
        "developer" | "system" => "system",
        "user" => "user",
        "assistant" => "assistant",
        _ => {
            let message = "the role must be developer, system, user or assistant";
            return Err(Refusal::field(&item.name("role"), message));
        }
    };
    let name = item.name("content");
    let content = match item.take("content") {
        None => return Err(Refusal::missing(&name)),
        Some(Value::String(text)) => text,
        Some(Value::Array(parts)) => joined(&name, parts, &["input_text", "output_text"])?,
        Some(other) => return Err(Refusal::wrong_type(&name, "a string or an array of parts", &other)),
    };
    push(messages, role, &content);
    Ok(())
}

/// Calls that follow each other are of one message.
fn call(
    item: &mut Fields,
    messages: &mut Vec<ChatMessage>,
    known: &mut Vec<String>,
    follows: bool,
) -> Result<(), Refusal> {
    known.push(item.required_text("call_id")?);
    let (name, arguments) = (item.required_text("name")?, item.required_text("arguments")?);
    let continues = messages.last().is_some_and(|last| last.role == "assistant");
    if !(follows || continues) {
        push(messages, "assistant", "");
    }
    if let Some(last) = messages.last_mut() {
        tools::write_call(&mut last.content, &name, &arguments);
    }
    Ok(())
}

fn output(item: &mut Fields, messages: &mut Vec<ChatMessage>, known: &[String]) -> Result<(), Refusal> {
    let id = item.required_text("call_id")?;
    if !known.contains(&id) {
        let message = "an output must answer the call_id of a function_call before it";
        return Err(Refusal::field(&item.name("call_id"), message));
    }
    let output = item.required_text("output")?;
    push(messages, "user", &tools::result_text(&output));
    Ok(())
}
