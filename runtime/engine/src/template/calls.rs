//! How a model's own template writes calls of tools, found out by having it write some.
//!
//! Templates are programs, and families differ: `<tool_call>` around an object for Hermes and Qwen, a bare object with
//! `parameters` for Llama 3, other words for others. Instead of a list of families, a template is asked to render one call
//! and two, and what stands around the name and the arguments is its form. So what a model is told, what it may write and
//! what is read of it come from one place.

use super::Chat;
use crate::{json::Json, vocabulary::Vocabulary};

/// Stand where a call's name and arguments do, and a text in the place of a call. They have no beginning in common with
/// any form.
const NAME: &str = "probed_name";
const OTHER: &str = "other_name";
const KEY: &str = "probed_key";
const TEXT: &str = "@@probed text@@";
/// Longest form, in bytes: a template that writes more around a call is not understood.
const MAX_FORM: usize = 256;

/// How calls are written: `mark head NAME middle ARGUMENTS end`, the arguments as a JSON object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallForm {
    /// What a call begins with, by which it is known.
    pub mark: String,
    /// Between that and the name.
    pub head: String,
    /// Between the name and the arguments.
    pub middle: String,
    /// After the arguments.
    pub end: String,
    /// Between two calls; `None` where an answer holds one at most.
    pub between: Option<String>,
    /// Whether a call may begin anywhere in an answer. Else it is the whole answer: its mark is nothing that text could
    /// not hold as well.
    pub anywhere: bool,
}

impl CallForm {
    /// As Hermes models are trained to write it: for models whose template has no form of its own.
    pub fn hermes() -> Self {
        Self {
            mark: "<tool_call>".into(),
            head: "\n{\"name\": \"".into(),
            middle: "\", \"arguments\": ".into(),
            end: "}\n</tool_call>".into(),
            between: Some("\n".into()),
            anywhere: true,
        }
    }

    /// A whole call.
    pub fn write(&self, name: &str, arguments: &str) -> String {
        [&self.mark, &self.head, name, &self.middle, arguments, &self.end].concat()
    }

    /// Finds out how a vocabulary's template writes calls; `None` where it does not, or in a way that cannot be read back:
    /// arguments that are no JSON, or control tokens, which are no text.
    pub(crate) fn of(vocabulary: &Vocabulary) -> Option<Self> {
        let render = |calls: &[Json]| vocabulary.render(&probe(calls)).ok();
        let tool = function(NAME, [("description", Json::text("x")), ("parameters", schema())]);
        let told = |tools: Vec<Json>| {
            let chat = Chat { messages: vec![user()], tools, add_generation_prompt: true, ..Chat::default() };
            vocabulary.render(&chat).ok()
        };
        // A template that says nothing of tools has no words for calls either.
        let (with, without) = (told(vec![tool])?, told(Vec::new())?);
        if !with.contains(NAME) || without.contains(NAME) {
            return None;
        }
        let (text, one) = (render(&[])?, render(&[call(NAME)])?);
        let body = difference(&text, &one)?;
        let arguments = format!("{{\"{KEY}\": \"{KEY}\"}}");
        let (before, rest) = body.split_once(NAME)?;
        let (middle, end) = rest.split_once(arguments.as_str())?;
        let plain = |piece: &str| vocabulary.tokenizer().without_control_tokens(piece) == piece;
        if before.is_empty() || middle.is_empty() || body.len() > MAX_FORM || !plain(body) {
            return None;
        }
        let (mark, anywhere) = match before.find(['\n', '{', '[']) {
            // An object or a list may be an answer like any other, so only a whole beginning tells a call.
            Some(0) => (before, false),
            Some(at) => (&before[..at], true),
            None => (before, true),
        };
        let mut form = Self {
            mark: mark.to_owned(),
            head: before[mark.len()..].to_owned(),
            middle: middle.to_owned(),
            end: end.to_owned(),
            between: None,
            anywhere,
        };
        form.between = render(&[call(NAME), call(OTHER)]).and_then(|two| {
            let body = difference(&text, &two)?;
            let first = body.strip_prefix(form.write(NAME, &arguments).as_str())?;
            let between = first.strip_suffix(form.write(OTHER, &arguments).as_str())?;
            // What is read back leaves white space between calls out, and nothing else.
            between.trim().is_empty().then(|| between.to_owned())
        });
        Some(form)
    }
}

/// What stands in `found` where [`TEXT`] stands in `text`.
fn difference<'f>(text: &str, found: &'f str) -> Option<&'f str> {
    let (before, after) = text.split_once(TEXT)?;
    let body = found.strip_prefix(before)?.strip_suffix(after)?;
    Some(body)
}

/// A question, and an answer of calls or of [`TEXT`].
fn probe(calls: &[Json]) -> Chat {
    let role = ("role".to_owned(), Json::from("assistant"));
    let said = match calls {
        [] => ("content".to_owned(), Json::from(TEXT)),
        calls => ("tool_calls".to_owned(), Json::List(calls.to_vec())),
    };
    Chat { messages: vec![user(), Json::Object(vec![role, said])], ..Chat::default() }
}

fn user() -> Json {
    let field = |name: &str, text: &str| (name.to_owned(), Json::from(text));
    Json::Object(vec![field("role", "user"), field("content", "x")])
}

fn call(name: &str) -> Json {
    let arguments = Json::Object(vec![(KEY.to_owned(), Json::from(KEY))]);
    let mut call = function(name, [("arguments", arguments)]);
    if let Json::Object(fields) = &mut call {
        fields.insert(0, ("id".to_owned(), Json::from("probe0001")));
    }
    call
}

/// `{"type": "function", "function": {"name": …, …}}`
fn function<const N: usize>(name: &str, more: [(&str, Json); N]) -> Json {
    let mut fields = vec![("name".to_owned(), Json::from(name))];
    fields.extend(more.map(|(field, value)| (field.to_owned(), value)));
    Json::Object(vec![
        ("type".to_owned(), Json::from("function")),
        ("function".to_owned(), Json::Object(fields)),
    ])
}

fn schema() -> Json {
    let empty = || Json::Object(Vec::new());
    let field = |name: &str, value| (name.to_owned(), value);
    Json::Object(vec![field("type", Json::from("object")), field("properties", empty())])
}

#[cfg(test)]
mod tests;
