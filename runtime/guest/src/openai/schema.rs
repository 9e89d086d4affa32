//! JSON schemas of clients: the part of the language that answers can be held to, within limits.
//!
//! What is outside is refused by name and place. A schema is read by [`crate::grammar`] afterwards, under a budget of work
//! of its own: the limits here keep out what would only use that budget up.

use super::refusal::Refusal;
use serde_json::{Map, Value, json};

/// Most bytes of a schema's JSON.
const MAX_BYTES: usize = 64 << 10;
/// Deepest nesting of schemas in schemas. OpenAI has 10 levels of objects.
const MAX_DEPTH: usize = 24;
/// Most properties of all objects together, as OpenAI once had it; more than any model keeps apart.
const MAX_PROPERTIES: usize = 1_000;
/// Most values of all enumerations together, as OpenAI.
const MAX_VALUES: usize = 1_000;
/// Longest string, and most items of an array, that a schema may count to.
const MAX_COUNT: u64 = 1_024;
/// Longest pattern, in bytes.
const MAX_PATTERN: usize = 512;

/// Keywords that an answer is held to.
const HELD: &[&str] = &[
    "$ref",
    "anyOf",
    "const",
    "enum",
    "type",
    "items",
    "prefixItems",
    "minItems",
    "maxItems",
    "properties",
    "additionalProperties",
    "required",
    "minLength",
    "maxLength",
    "pattern",
    "format",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
];
/// Keywords that say nothing about an answer.
const SILENT: &[&str] = &[
    "$schema",
    "$id",
    "$comment",
    "$defs",
    "definitions",
    "title",
    "description",
    "default",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
];

/// How far a schema must be one that answers can be held to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strictness {
    /// OpenAI's strict mode: every object closed, every property required.
    Strict,
    /// Whatever answers can be held to.
    Held,
    /// A tool that is not strict: what cannot be held to becomes any object.
    Tool,
}

/// Checks a schema; `path` names it in refusals. Gives what an answer is held to.
pub(crate) fn checked(schema: Value, path: &str, strictness: Strictness) -> Result<Value, Refusal> {
    let mut check = Check { strictness, properties: 0, values: 0 };
    if schema.to_string().len() > MAX_BYTES {
        return Err(refuse(path, format!("the schema is longer than {MAX_BYTES} bytes")));
    }
    if strictness != Strictness::Held {
        let is_object = schema.get("type").is_some_and(|kind| kind == "object");
        if !is_object {
            return Err(refuse(path, "the schema must be of type object at its root".into()));
        }
    }
    match check.schema(&schema, path, 0) {
        Ok(()) => Ok(schema),
        Err(Fault::Unheld(_)) if strictness == Strictness::Tool => Ok(json!({"type": "object"})),
        Err(Fault::Unheld(refusal) | Fault::Wrong(refusal)) => Err(*refusal),
    }
}

fn refuse(path: &str, message: String) -> Refusal {
    let path: String = path.chars().take(200).collect();
    Refusal::new(400, "invalid_json_schema", format!("{path}: {message}")).with_param(&path)
}

/// What is wrong with a schema.
enum Fault {
    /// It is valid, and an answer cannot be held to it.
    Unheld(Box<Refusal>),
    /// It is over a limit, or is none.
    Wrong(Box<Refusal>),
}

struct Check {
    strictness: Strictness,
    properties: usize,
    values: usize,
}

impl Check {
    fn schema(&mut self, value: &Value, path: &str, depth: usize) -> Result<(), Fault> {
        let wrong = |message: String| Err(Fault::Wrong(Box::new(refuse(path, message))));
        if depth > MAX_DEPTH {
            return wrong(format!("schemas are nested deeper than {MAX_DEPTH}"));
        }
        let schema = match value {
            Value::Object(schema) => schema,
            Value::Bool(true) if self.strictness != Strictness::Strict => return Ok(()),
            Value::Bool(_) => {
                return Err(Fault::Unheld(Box::new(refuse(
                    path,
                    "true and false are no schemas here".into(),
                ))));
            }
            _ => return wrong("a schema must be an object".into()),
        };
        for keyword in schema.keys().filter(|keyword| !SILENT.contains(&keyword.as_str())) {
            if !HELD.contains(&keyword.as_str()) {
                let keyword: String = keyword.chars().take(64).collect();
                let message =
                    format!("the keyword {keyword:?} is not supported; write the schema without it");
                return Err(Fault::Unheld(Box::new(refuse(path, message))));
            }
        }
        self.counts(schema, path)?;
        self.object(schema, path, depth)?;
        for keyword in ["anyOf", "prefixItems"] {
            match schema.get(keyword) {
                None => {}
                Some(Value::Array(list)) if !list.is_empty() => {
                    for (index, inner) in list.iter().enumerate() {
                        self.schema(inner, &format!("{path}.{keyword}[{index}]"), depth + 1)?;
                    }
                }
                Some(_) => return wrong(format!("{keyword} must be an array of schemas")),
            }
        }
        match schema.get("items") {
            None | Some(Value::Bool(_)) => {}
            Some(items) => self.schema(items, &format!("{path}.items"), depth + 1)?,
        }
        for keyword in ["$defs", "definitions"] {
            match schema.get(keyword) {
                None => {}
                Some(Value::Object(map)) => {
                    for (name, inner) in map {
                        self.schema(inner, &format!("{path}.{keyword}.{name}"), depth + 1)?;
                    }
                }
                Some(_) => return wrong(format!("{keyword} must be an object of schemas")),
            }
        }
        self.reference(schema, path)
    }

    /// Numbers that say how long something may be, and lists of values.
    fn counts(&mut self, schema: &Map<String, Value>, path: &str) -> Result<(), Fault> {
        let wrong = |message: String| Err(Fault::Wrong(Box::new(refuse(path, message))));
        for keyword in ["minItems", "maxItems", "minLength", "maxLength"] {
            if let Some(count) = schema.get(keyword)
                && count.as_u64().is_none_or(|count| count > MAX_COUNT)
            {
                return wrong(format!("{keyword} must be a whole number up to {MAX_COUNT}"));
            }
        }
        if let Some(pattern) = schema.get("pattern")
            && pattern.as_str().is_none_or(|pattern| pattern.len() > MAX_PATTERN)
        {
            return wrong(format!("pattern must be a string of up to {MAX_PATTERN} bytes"));
        }
        if let Some(values) = schema.get("enum") {
            let Some(values) = values.as_array().filter(|values| !values.is_empty()) else {
                return wrong("enum must be an array of values".into());
            };
            self.values += values.len();
            if self.values > MAX_VALUES {
                return wrong(format!("all enumerations together have more than {MAX_VALUES} values"));
            }
        }
        Ok(())
    }

    fn object(&mut self, schema: &Map<String, Value>, path: &str, depth: usize) -> Result<(), Fault> {
        let wrong = |message: String| Err(Fault::Wrong(Box::new(refuse(path, message))));
        let empty = Map::new();
        let properties = match schema.get("properties") {
            None => &empty,
            Some(Value::Object(properties)) => properties,
            Some(_) => return wrong("properties must be an object of schemas".into()),
        };
        self.properties += properties.len();
        if self.properties > MAX_PROPERTIES {
            return wrong(format!("all objects together have more than {MAX_PROPERTIES} properties"));
        }
        for (name, inner) in properties {
            self.schema(inner, &format!("{path}.{name}"), depth + 1)?;
        }
        if self.strictness == Strictness::Strict && schema.get("type").is_some_and(|kind| kind == "object") {
            if schema.get("additionalProperties") != Some(&Value::Bool(false)) {
                return wrong("a strict schema must have additionalProperties: false at every object".into());
            }
            let required = schema.get("required").and_then(Value::as_array);
            let is_required = |name: &String| required.is_some_and(|list| list.iter().any(|it| it == name));
            if let Some(name) = properties.keys().find(|name| !is_required(name)) {
                let name: String = name.chars().take(64).collect();
                return wrong(format!(
                    "a strict schema must name all properties in required; {name:?} is missing"
                ));
            }
        }
        match schema.get("additionalProperties") {
            None | Some(Value::Bool(_)) => Ok(()),
            Some(inner) => self.schema(inner, &format!("{path}.additionalProperties"), depth + 1),
        }
    }

    /// References lead into the schema itself: nothing is fetched.
    fn reference(&self, schema: &Map<String, Value>, path: &str) -> Result<(), Fault> {
        match schema.get("$ref") {
            None => Ok(()),
            Some(Value::String(target)) if target == "#" || target.starts_with("#/") => Ok(()),
            Some(_) => {
                let message = "$ref must be # or lead to #/$defs/…: nothing is fetched".to_owned();
                Err(Fault::Wrong(Box::new(refuse(path, message))))
            }
        }
    }
}
