//! Answers that follow a grammar: JSON of a schema, calls of tools.
//!
//! The grammars are llguidance's, which tells before each token which may come; here they are made, within a budget of
//! work, and handed to the engine as [`Constraint`](cocoon_engine::Constraint)s. What may come next depends on the grammar,
//! the vocabulary and the tokens so far, and on nothing else: a guest keeps the grammar's text in the opening of its
//! receipt, and an auditor makes the same constraint of it.
//!
//! Between values stand `", "` and `": "`, as in most text that models are trained on, and no other white space: a model
//! that is allowed to write white space without end does.

mod follow;

pub use follow::{GrammarError, Grammars};

use cocoon_engine::CallForm;
use llguidance::api::TopLevelGrammar;
use serde_json::{Value, json};
use std::fmt::Write;
use zeroize::Zeroizing;

/// Most bytes of a grammar that is kept: as much as a schema and some tools. Longer ones can be followed all the same.
pub const MAX_KEPT: usize = 128 * 1024;

/// What an answer is held to. It holds what a client wrote, and cannot be printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Grammar {
    kind: Kind,
    text: Zeroizing<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    /// A JSON schema.
    Json = b'j',
    /// llguidance's dialect of Lark.
    Lark = b'l',
}

/// Calls of tools, as an answer may hold them.
pub struct Calls<'a> {
    /// How they are written.
    pub form: &'a CallForm,
    /// Names, and what the arguments follow.
    pub tools: Vec<(&'a str, &'a Value)>,
    /// Whether there must be one.
    pub required: bool,
    /// Whether there may be several. There are not where the form has no words for it.
    pub parallel: bool,
}

impl Grammar {
    /// A JSON value that follows this schema.
    pub fn json(schema: &Value) -> Self {
        Self { kind: Kind::Json, text: Zeroizing::new(spaced(schema).to_string()) }
    }

    /// Calls, and text beside them where they are not required: a JSON value where there is a schema for one. In free text a
    /// call may begin anywhere if its form says so; from there on it is held to its form.
    pub fn calls(calls: &Calls<'_>, schema: Option<&Value>) -> Self {
        let form = calls.form;
        let mut lark = Zeroizing::new(String::from("%llguidance {}\n"));
        let between = form.between.as_ref().filter(|_| calls.parallel);
        let more = match between.map(String::as_str) {
            None => String::new(),
            Some("") => "call*".to_owned(),
            Some(between) => format!("({} call)*", quoted(between)),
        };
        let start = match schema {
            _ if calls.required => format!("call {more}"),
            Some(schema) => format!("call {more} | %json {}", spaced(schema)),
            None if !form.anywhere => format!("OTHER | call {more}"),
            None if between.is_some() => "(lead rest)* TEXT".to_owned(),
            None => "TEXT | lead rest".to_owned(),
        };
        let (mark, rest) = (quoted(&form.mark), (0..calls.tools.len()).map(|index| format!("call_{index}")));
        let _ = writeln!(lark, "start: {start}");
        let _ = writeln!(lark, "TEXT: /(.|\\n)*/\nlead[lazy]: TEXT {mark}");
        // What does not begin as a call does.
        let _ = writeln!(lark, "MARKED: {mark} /(.|\\n)*/\nOTHER: /(.|\\n)*/ & ~MARKED");
        let _ = writeln!(lark, "call: {mark} rest\nrest: {}", rest.collect::<Vec<_>>().join(" | "));
        for (index, (name, schema)) in calls.tools.iter().enumerate() {
            let head = quoted(&format!("{}{name}{}", form.head, form.middle));
            let end = if form.end.is_empty() { String::new() } else { quoted(&form.end) };
            let _ = writeln!(lark, "call_{index}: {head} %json {} {end}", spaced(schema));
        }
        Self { kind: Kind::Lark, text: lark }
    }

    /// To be kept; `None` where it is longer than [`MAX_KEPT`].
    pub fn to_bytes(&self) -> Option<Zeroizing<Vec<u8>>> {
        let bytes = [&[self.kind as u8][..], self.text.as_bytes()].concat();
        (bytes.len() <= MAX_KEPT).then(|| bytes.into())
    }

    /// What was kept; `None` for anything else.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (kind, text) = bytes.split_first().filter(|_| bytes.len() <= MAX_KEPT)?;
        let kind = [Kind::Json, Kind::Lark].into_iter().find(|it| *it as u8 == *kind)?;
        Some(Self { kind, text: Zeroizing::new(std::str::from_utf8(text).ok()?.to_owned()) })
    }

    /// For llguidance; `None` where the text is not what it should be.
    fn parsed(&self) -> Option<TopLevelGrammar> {
        match self.kind {
            Kind::Json => serde_json::from_str(&self.text).ok().map(TopLevelGrammar::from_json_schema),
            Kind::Lark => Some(TopLevelGrammar::from_lark(self.text.to_string())),
        }
    }
}

/// A string of Lark, which is one of JSON.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// A schema with our white space.
fn spaced(schema: &Value) -> Value {
    let options = json!({"whitespace_flexible": false, "item_separator": ", ", "key_separator": ": "});
    match schema.clone() {
        Value::Object(mut map) => {
            map.insert("x-guidance".to_owned(), options);
            Value::Object(map)
        }
        _ => json!({"x-guidance": options}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_the_same_grammar_and_nothing_else_is_one() {
        let (form, schema) = (CallForm::hermes(), json!({"type": "object"}));
        let tools = vec![("f", &schema)];
        let calls = Calls { form: &form, tools, required: false, parallel: true };
        for grammar in
            [Grammar::json(&schema), Grammar::calls(&calls, None), Grammar::calls(&calls, Some(&schema))]
        {
            let kept = grammar.to_bytes().expect("it is short");
            assert!(Grammar::from_bytes(&kept).expect("it is one") == grammar);
            assert!(grammar.parsed().is_some());
            assert!(Grammar::from_bytes(&kept[1..]).is_none(), "without its kind");
        }
        let long = json!({"type": "string", "description": "x".repeat(MAX_KEPT)});
        assert!(Grammar::json(&long).to_bytes().is_none(), "too long to be kept");
        for none in [&b""[..], b"x{}", b"j\xff", &vec![b'j'; MAX_KEPT + 1]] {
            assert!(Grammar::from_bytes(none).is_none());
        }
        assert!(Grammar::from_bytes(b"j{").expect("its text is read later").parsed().is_none());
    }
}
