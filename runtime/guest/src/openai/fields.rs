//! The fields of a JSON object, taken out one by one: what is left at the end is unknown, and refused as OpenAI does.

use super::refusal::Refusal;
use super::wipe::wipe;
use serde_json::{Map, Value};

/// Longest name of a field that a refusal quotes.
const QUOTED: usize = 64;

/// The fields that nobody has read yet. They are wiped when they go: they hold prompts.
pub(crate) struct Fields {
    map: Map<String, Value>,
    /// In front of the names in refusals, such as `text.format.`; empty at the top.
    path: String,
}

impl Drop for Fields {
    fn drop(&mut self) {
        self.map.values_mut().for_each(wipe);
    }
}

impl Fields {
    /// Reads a body. What is too deep (128) is refused before it is held.
    pub(crate) fn read(body: &[u8]) -> Result<Self, Refusal> {
        match serde_json::from_slice(body) {
            Ok(Value::Object(map)) => Ok(Self { map, path: String::new() }),
            Ok(mut other) => {
                wipe(&mut other);
                Err(Refusal::new(400, "invalid_json", "the body must be a JSON object"))
            }
            Err(error) => Err(Refusal::new(400, "invalid_json", format!("the body is no JSON: {error}"))),
        }
    }

    /// Of a value inside another, which `path` names.
    pub(crate) fn of(value: Value, path: &str) -> Result<Self, Refusal> {
        match value {
            Value::Object(map) => Ok(Self { map, path: format!("{path}.") }),
            other => Err(Refusal::wrong_type(path, "an object", &other)),
        }
    }

    /// The same fields, named as those of a body.
    pub(crate) fn at_top(mut self) -> Self {
        self.path.clear();
        self
    }

    /// The whole name of a field, for refusals.
    pub(crate) fn name(&self, field: &str) -> String {
        format!("{}{field}", self.path)
    }

    /// Takes a field out. Null is as if it were not there.
    pub(crate) fn take(&mut self, field: &str) -> Option<Value> {
        self.map.remove(field).filter(|value| !value.is_null())
    }

    /// What [`Self::take`] would take.
    pub(crate) fn peek(&self, field: &str) -> Option<&Value> {
        self.map.get(field).filter(|value| !value.is_null())
    }

    pub(crate) fn boolean(&mut self, field: &str) -> Result<Option<bool>, Refusal> {
        self.typed(field, "true or false", |value| value.as_bool())
    }

    pub(crate) fn number(&mut self, field: &str) -> Result<Option<f32>, Refusal> {
        self.typed(field, "a number", |value| value.as_f64().map(|number| number as f32))
    }

    /// A whole number from 0.
    pub(crate) fn count(&mut self, field: &str) -> Result<Option<u64>, Refusal> {
        match self.take(field) {
            None => Ok(None),
            Some(Value::Number(number)) if number.is_i64() || number.is_u64() => match number.as_u64() {
                Some(count) => Ok(Some(count)),
                None => Err(Refusal::field(
                    &self.name(field),
                    format!("{} must not be below 0", self.name(field)),
                )),
            },
            Some(other) => Err(Refusal::wrong_type(&self.name(field), "a whole number", &other)),
        }
    }

    pub(crate) fn text(&mut self, field: &str) -> Result<Option<String>, Refusal> {
        match self.take(field) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(Refusal::wrong_type(&self.name(field), "a string", &other)),
        }
    }

    pub(crate) fn list(&mut self, field: &str) -> Result<Option<Vec<Value>>, Refusal> {
        match self.take(field) {
            None => Ok(None),
            Some(Value::Array(list)) => Ok(Some(list)),
            Some(other) => Err(Refusal::wrong_type(&self.name(field), "an array", &other)),
        }
    }

    pub(crate) fn object(&mut self, field: &str) -> Result<Option<Self>, Refusal> {
        let name = self.name(field);
        self.take(field).map(|value| Self::of(value, &name)).transpose()
    }

    /// A text that must be there.
    pub(crate) fn required_text(&mut self, field: &str) -> Result<String, Refusal> {
        self.text(field)?.ok_or_else(|| Refusal::missing(&self.name(field)))
    }

    /// Fields that change nothing of an answer here.
    pub(crate) fn ignore(&mut self, fields: &[&str]) {
        for field in fields {
            if let Some(mut value) = self.map.remove(*field) {
                wipe(&mut value);
            }
        }
    }

    /// Fields that would change an answer, and cannot here: only what asks for nothing is let through.
    pub(crate) fn refuse(&mut self, fields: &[(&str, &str)]) -> Result<(), Refusal> {
        for (field, why) in fields {
            if let Some(mut value) = self.take(field) {
                let nothing = match &value {
                    Value::Bool(asked) => !asked,
                    Value::Array(list) => list.is_empty(),
                    Value::Object(map) => map.is_empty(),
                    Value::String(word) => word == "none",
                    _ => false,
                };
                wipe(&mut value);
                if !nothing {
                    return Err(Refusal::unsupported(&self.name(field), why));
                }
            }
        }
        Ok(())
    }

    /// Nothing may be left.
    pub(crate) fn finish(self) -> Result<(), Refusal> {
        match self.map.keys().next() {
            None => Ok(()),
            Some(field) => {
                let name: String = self.name(field).chars().take(QUOTED).collect();
                Err(Refusal::unknown(&name))
            }
        }
    }

    fn typed<T>(
        &mut self,
        field: &str,
        expected: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<T>, Refusal> {
        match self.take(field) {
            None => Ok(None),
            Some(value) => match read(&value) {
                Some(read) => Ok(Some(read)),
                None => Err(Refusal::wrong_type(&self.name(field), expected, &value)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(body: &str) -> Fields {
        match Fields::read(body.as_bytes()) {
            Ok(fields) => fields,
            Err(_) => panic!("{body} is an object"),
        }
    }

    #[test]
    fn a_wrong_type_is_told_with_the_field_and_both_types() {
        let refusal = fields(r#"{"n":"two"}"#).count("n").expect_err("refused");
        assert_eq!(refusal.error.error.message, "n must be a whole number, not a string");
        assert_eq!((refusal.error.code(), refusal.error.error.param.as_deref()), ("invalid_type", Some("n")));
        let mut inner = fields(r#"{"a":{"b":[1]}}"#).object("a").ok().flatten().expect("an object");
        let refusal = inner.boolean("b").expect_err("refused");
        assert_eq!(refusal.error.error.param.as_deref(), Some("a.b"));
    }

    #[test]
    fn null_is_as_if_it_were_not_there_and_the_rest_is_unknown() {
        let mut read = fields(r#"{"a":null,"b":1,"c":2}"#);
        assert!(read.text("a").is_ok_and(|a| a.is_none()));
        read.ignore(&["b"]);
        let refusal = read.finish().expect_err("c is left");
        assert_eq!(
            (refusal.error.code(), refusal.error.error.param.as_deref()),
            ("unknown_parameter", Some("c"))
        );
        let mut long = fields(&format!(r#"{{"{}":0}}"#, "x".repeat(10_000)));
        long.ignore(&["y"]);
        assert!(long.finish().expect_err("unknown").error.error.message.len() < 200);
    }

    #[test]
    fn what_asks_for_nothing_is_let_through() {
        for harmless in ["null", "false", "[]", "{}", r#""none""#] {
            assert!(fields(&format!(r#"{{"x":{harmless}}}"#)).refuse(&[("x", "why")]).is_ok(), "{harmless}");
        }
        for asked in ["true", "[1]", r#"{"a":1}"#, r#""auto""#, "0"] {
            assert!(fields(&format!(r#"{{"x":{asked}}}"#)).refuse(&[("x", "why")]).is_err(), "{asked}");
        }
    }
}
