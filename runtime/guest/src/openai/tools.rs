//! Tools: what a model is told of them, how it must call them, and which schema their arguments follow.
//!
//! All models are spoken to in the words that Hermes and Qwen models are trained on: the tools stand as JSON lines in
//! `<tools>`, a call is `<tool_call>{"name": …, "arguments": …}</tool_call>`, and what came of it `<tool_response>`. A
//! grammar ([`crate::grammar`]) holds every call to this form and to its tool's schema, so a call always parses.

use super::fields::Fields;
use super::refusal::Refusal;
use super::schema::{self, Strictness};
use cocoon_engine::ChatMessage;
use serde_json::{Value, json};

/// Most tools of a request, as OpenAI.
const MAX_TOOLS: usize = 128;
/// Longest name of a tool, as OpenAI.
const MAX_NAME: usize = 64;

/// What a call begins with; its name follows.
pub(crate) const CALL: &str = "<tool_call>";
/// Between that and the name.
pub(crate) const NAME: &str = "\n{\"name\": \"";
/// Between a call's name and its arguments.
pub(crate) const ARGUMENTS: &str = "\", \"arguments\": ";
/// After its arguments.
pub(crate) const END: &str = "}\n</tool_call>";

/// A tool that a model may call.
pub(crate) struct Tool {
    pub(crate) name: String,
    /// What its arguments follow.
    pub(crate) schema: Value,
}

/// The tools of a request.
pub(crate) struct Tools {
    pub(crate) list: Vec<Tool>,
    /// Whether the model must call one.
    pub(crate) required: bool,
    /// Whether it may call several.
    pub(crate) parallel: bool,
    /// As the model is told of them.
    description: String,
}

/// Where a tool's name, description and schema stand.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// `{"type": "function", "function": {…}}`
    Nested,
    /// `{"type": "function", "name": …}`
    Flat,
}

impl Tools {
    /// Takes `tools`, `tool_choice` and `parallel_tool_calls` out. `None` where none may be called.
    pub(crate) fn take(fields: &mut Fields, style: Style) -> Result<Option<Self>, Refusal> {
        let given = fields.list("tools")?.unwrap_or_default();
        let choice = fields.take("tool_choice");
        let parallel = fields.boolean("parallel_tool_calls")?.unwrap_or(true);
        if given.is_empty() {
            return match choice {
                Some(choice) if choice != "none" && choice != "auto" => {
                    Err(Refusal::field("tool_choice", "tool_choice is only allowed where tools are given"))
                }
                _ => Ok(None),
            };
        }
        if given.len() > MAX_TOOLS {
            let message = format!("there must be at most {MAX_TOOLS} tools, not {}", given.len());
            return Err(Refusal::field("tools", message));
        }
        let mut description = String::new();
        let mut list: Vec<Tool> = Vec::with_capacity(given.len());
        for (index, value) in given.into_iter().enumerate() {
            let tool = tool(value, index, style, &mut description)?;
            if list.iter().any(|other| other.name == tool.name) {
                let name = format!("tools[{index}]");
                return Err(Refusal::field(&name, "two tools have the same name"));
            }
            list.push(tool);
        }
        let mut tools = Self { list, required: false, parallel, description };
        Ok(tools.choose(choice, style)?.then_some(tools))
    }

    /// Applies `tool_choice`; false for none at all.
    fn choose(&mut self, choice: Option<Value>, style: Style) -> Result<bool, Refusal> {
        let refuse = || {
            let message = "tool_choice must be none, auto, required or name a function";
            Refusal::field("tool_choice", message)
        };
        let Some(choice) = choice else { return Ok(true) };
        match choice.as_str() {
            Some("none") => return Ok(false),
            Some("auto") => return Ok(true),
            Some("required") => {
                self.required = true;
                return Ok(true);
            }
            Some(_) => return Err(refuse()),
            None => {}
        }
        let mut choice = Fields::of(choice, "tool_choice")?;
        if choice.required_text("type")? != "function" {
            return Err(refuse());
        }
        let name = match style {
            Style::Flat => choice.required_text("name")?,
            Style::Nested => {
                let function = choice.object("function")?;
                function.ok_or_else(|| Refusal::missing("tool_choice.function"))?.required_text("name")?
            }
        };
        choice.finish()?;
        self.list.retain(|tool| tool.name == name);
        if self.list.is_empty() {
            return Err(Refusal::field(
                "tool_choice",
                "tool_choice names a function that is not among the tools",
            ));
        }
        (self.required, self.parallel) = (true, false);
        Ok(true)
    }

    /// Tells the model of the tools, at the end of the system's message.
    pub(crate) fn describe(&self, messages: &mut Vec<ChatMessage>) {
        let text = format!(
            "# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are provided with \
             function signatures within <tools></tools> XML tags:\n<tools>{}\n</tools>\n\nFor each function call, \
             return a json object with function name and arguments within <tool_call></tool_call> XML tags:\n\
             <tool_call>\n{{\"name\": <function-name>, \"arguments\": <args-json-object>}}\n</tool_call>",
            self.description
        );
        match messages.first_mut().filter(|message| message.role == "system") {
            Some(system) => {
                system.content.push_str("\n\n");
                system.content.push_str(&text);
            }
            None => messages.insert(0, ChatMessage { role: "system".to_owned(), content: text }),
        }
    }
}

/// Reads one tool, and writes what the model is told of it.
fn tool(value: Value, index: usize, style: Style, description: &mut String) -> Result<Tool, Refusal> {
    let mut outer = Fields::of(value, &format!("tools[{index}]"))?;
    if outer.required_text("type")? != "function" {
        return Err(Refusal::field(&outer.name("type"), "this worker knows tools of type function only"));
    }
    let mut function = match style {
        Style::Flat => outer,
        Style::Nested => {
            let inner = outer.object("function")?.ok_or_else(|| Refusal::missing(&outer.name("function")))?;
            outer.finish()?;
            inner
        }
    };
    let name = function.required_text("name")?;
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(fits) {
        let message = format!("a tool's name must be 1 to {MAX_NAME} of a-z, A-Z, 0-9, _ and -");
        return Err(Refusal::field(&function.name("name"), message));
    }
    let about = function.text("description")?;
    let strict = function.boolean("strict")?.unwrap_or(false);
    let path = function.name("parameters");
    let parameters = function.take("parameters");
    function.finish()?;
    // OpenAI: a function without parameters takes none.
    let empty = || json!({"type": "object", "properties": {}, "additionalProperties": false});
    let parameters = parameters.unwrap_or_else(empty);
    let mut told = json!({"type": "function", "function": {"name": name, "parameters": parameters}});
    if let Some(about) = about {
        told["function"]["description"] = about.into();
    }
    description.push('\n');
    description.push_str(&told.to_string());
    let schema =
        schema::checked(parameters, &path, if strict { Strictness::Strict } else { Strictness::Tool })?;
    Ok(Tool { name, schema })
}

/// A call, as the model has written it before.
pub(crate) fn write_call(text: &mut String, name: &str, arguments: &str) {
    if !text.is_empty() {
        text.push('\n');
    }
    for part in [CALL, NAME, name, ARGUMENTS, arguments, END] {
        text.push_str(part);
    }
}

/// What came of a call, as the model reads it.
pub(crate) fn result_text(content: &str) -> String {
    format!("<tool_response>\n{content}\n</tool_response>")
}
