//! Tools: what a model is told of them, and which schema their arguments follow.
//!
//! How a model is told, and how it writes calls, is its template's to say where that knows tools ([`CallForm`]); all other
//! models are spoken to in the words that Hermes models are trained on. A grammar ([`crate::grammar`]) holds every call to
//! its form and to its tool's schema, so a call always parses.

use super::fields::Fields;
use super::refusal::Refusal;
use super::schema::{self, Strictness};
use serde_json::{Value, json};

/// Most tools of a request, as OpenAI.
const MAX_TOOLS: usize = 128;
/// Longest name of a tool, as OpenAI.
const MAX_NAME: usize = 64;

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
    /// All tools that were given, as the model is told of them.
    told: Vec<Value>,
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
        let mut told = Vec::with_capacity(given.len());
        let mut list: Vec<Tool> = Vec::with_capacity(given.len());
        for (index, value) in given.into_iter().enumerate() {
            let tool = tool(value, index, style, &mut told)?;
            if list.iter().any(|other| other.name == tool.name) {
                let name = format!("tools[{index}]");
                return Err(Refusal::field(&name, "two tools have the same name"));
            }
            list.push(tool);
        }
        let mut tools = Self { list, required: false, parallel, told };
        Ok(tools.choose(choice, style)?.then_some(tools))
    }

    /// Applies `tool_choice`; false for none at all.
    fn choose(&mut self, choice: Option<Value>, style: Style) -> Result<bool, Refusal> {
        let refuse = || {
            let message = "tool_choice must be none, auto, required, or name a function or the allowed tools";
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
        let names = match choice.required_text("type")?.as_str() {
            "function" => {
                (self.required, self.parallel) = (true, false);
                vec![named(&mut choice, style)?]
            }
            "allowed_tools" => self.allowed(&mut choice, style)?,
            _ => return Err(refuse()),
        };
        choice.finish()?;
        // The model is told of all tools, so that its prompt stays the same whatever it may call this time.
        self.list.retain(|tool| names.contains(&tool.name));
        if self.list.is_empty() {
            return Err(Refusal::field(
                "tool_choice",
                "tool_choice names a function that is not among the tools",
            ));
        }
        Ok(true)
    }

    /// Some of the tools, of which the model may or must call.
    fn allowed(&mut self, choice: &mut Fields, style: Style) -> Result<Vec<String>, Refusal> {
        let mut inner = match style {
            Style::Flat => None,
            Style::Nested => Some(
                choice
                    .object("allowed_tools")?
                    .ok_or_else(|| Refusal::missing("tool_choice.allowed_tools"))?,
            ),
        };
        let fields = inner.as_mut().unwrap_or(choice);
        self.required = match fields.required_text("mode")?.as_str() {
            "auto" => false,
            "required" => true,
            _ => return Err(Refusal::field(&fields.name("mode"), "the mode must be auto or required")),
        };
        let path = fields.name("tools");
        let given = fields.list("tools")?.ok_or_else(|| Refusal::missing(&path))?;
        let each = given.into_iter().enumerate().map(|(index, value)| {
            let mut tool = Fields::of(value, &format!("{path}[{index}]"))?;
            if tool.required_text("type")? != "function" {
                return Err(Refusal::field(
                    &tool.name("type"),
                    "this worker knows tools of type function only",
                ));
            }
            let name = named(&mut tool, style)?;
            tool.finish().map(|()| name)
        });
        let names = each.collect();
        if let Some(inner) = inner {
            inner.finish()?;
        }
        names
    }

    /// What the model is told of, `{"type": "function", "function": {…}}` each. Taken once.
    pub(crate) fn told(&mut self) -> Vec<Value> {
        std::mem::take(&mut self.told)
    }
}

/// The name of a function that is pointed at.
fn named(fields: &mut Fields, style: Style) -> Result<String, Refusal> {
    match style {
        Style::Flat => fields.required_text("name"),
        Style::Nested => {
            let path = fields.name("function");
            let mut function = fields.object("function")?.ok_or_else(|| Refusal::missing(&path))?;
            let name = function.required_text("name")?;
            function.finish().map(|()| name)
        }
    }
}

/// Reads one tool, and adds what the model is told of it.
fn tool(value: Value, index: usize, style: Style, told: &mut Vec<Value>) -> Result<Tool, Refusal> {
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
    let mut function = json!({"name": name});
    if let Some(about) = about {
        function["description"] = about.into();
    }
    function["parameters"] = parameters.clone();
    told.push(json!({"type": "function", "function": function}));
    let schema =
        schema::checked(parameters, &path, if strict { Strictness::Strict } else { Strictness::Tool })?;
    Ok(Tool { name, schema })
}
