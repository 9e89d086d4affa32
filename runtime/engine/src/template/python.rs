//! What templates print, as Python does: they are written for Jinja2, and models were trained on its output.

use std::fmt::Write;

use super::MAX_RENDERED;
use minijinja::{
    Error, ErrorKind, Output, State, Value,
    value::{Kwargs, Rest, ValueKind, ValueOrKwargs},
};

/// Deepest nesting of a value that is printed.
const MAX_DEPTH: usize = 64;
/// Most spaces that a line is moved by.
const MAX_INDENT: usize = 256;

/// Methods that Python's values have.
pub(super) fn method(
    state: &mut State<'_, '_>,
    value: &Value,
    name: &str,
    arguments: &[Value],
) -> Result<Value, Error> {
    match (value.as_str(), name, arguments) {
        (Some(text), "format", _) if !is_modest(text) => Err(immodest()),
        (Some(text), "title", []) => Ok(Value::from(title(text))),
        _ => minijinja_contrib::pycompat::unknown_method_callback(state, value, name, arguments),
    }
}

/// Jinja's `format`, of numbers' widths up to 999.
pub(super) fn format(
    state: &mut State<'_, '_>,
    value: &Value,
    arguments: Rest<ValueOrKwargs>,
) -> Result<Value, Error> {
    match value.as_str().is_none_or(is_modest) {
        true => minijinja::filters::format(state, value, arguments),
        false => Err(immodest()),
    }
}

/// Whether no width of a format string has more than three digits, and none is an argument: each is memory.
fn is_modest(format: &str) -> bool {
    let short = format.split(|c: char| !c.is_ascii_digit()).all(|digits| digits.len() <= 3);
    let fields = format.replace("{{", "").replace("%%", "");
    let nested = fields.split('{').skip(1).any(|field| !field.contains('}'));
    short && !nested && !fields.contains('*')
}

fn immodest() -> Error {
    Error::new(ErrorKind::InvalidOperation, "a format is wider than 999")
}

/// Each letter after what is no letter in upper case, all others in lower case.
fn title(text: &str) -> String {
    let (mut out, mut inside) = (String::with_capacity(text.len()), false);
    for c in text.chars() {
        if inside {
            out.extend(c.to_lowercase())
        } else {
            out.extend(c.to_uppercase())
        }
        inside = c.is_alphabetic();
    }
    out
}

/// How lists and objects are laid out.
#[derive(Clone, Copy)]
enum Style {
    /// `json.dumps(value, ensure_ascii=False)`, with so many spaces for each level if there are any.
    Json { indent: Option<usize> },
    /// `str(value)`
    Python,
}

/// Jinja's `{{ value }}`.
pub(super) fn print(out: &mut Output<'_>, _: &mut State<'_, '_>, value: &Value) -> Result<(), Error> {
    match value.as_str() {
        Some(text) => out.write_str(text)?,
        None if value.is_undefined() => {}
        None => {
            let mut text = String::new();
            write_value(&mut text, value, Style::Python, 0)?;
            out.write_str(&text)?;
        }
    }
    Ok(())
}

/// transformers' `tojson`: nothing is escaped but what JSON wants escaped.
pub(super) fn to_json(value: &Value, indent: Option<usize>, options: Kwargs) -> Result<Value, Error> {
    let indent = indent.map_or_else(|| options.get("indent"), |indent| Ok(Some(indent)))?;
    let _: Option<bool> = options.get("ensure_ascii")?;
    options.assert_all_used()?;
    let mut text = String::new();
    write_value(&mut text, value, Style::Json { indent }, 0)?;
    Ok(Value::from(text))
}

/// Jinja's `indent`, up to [`MAX_INDENT`]: its arguments are `width`, `first` and `blank`.
pub(super) fn indent(value: &Value, given: Rest<Value>, options: Kwargs) -> Result<Value, Error> {
    let given = |place: usize, name: &str| match given.get(place).filter(|value| !value.is_undefined()) {
        Some(value) => Ok(Some(value.clone())),
        None => options.get::<Option<Value>>(name),
    };
    let (width, first, blank) = (given(0, "width")?, given(1, "first")?, given(2, "blank")?);
    options.assert_all_used()?;
    let width = width.map_or(Some(4), |width| width.as_usize()).filter(|width| *width <= MAX_INDENT);
    let width = width.ok_or_else(|| Error::new(ErrorKind::InvalidOperation, "lines are moved too far"))?;
    let is = |value: Option<Value>| value.is_some_and(|value| value.is_true());
    let (first, blank) = (is(first), is(blank));
    let text = value.as_str().ok_or_else(unprintable)?;
    let mut out = String::with_capacity(text.len() + width);
    for (number, line) in text.split('\n').enumerate() {
        if number > 0 {
            out.push('\n');
        }
        let moves = if number == 0 { first } else { blank || !line.is_empty() };
        out.extend(std::iter::repeat_n(' ', if moves { width } else { 0 }));
        out.push_str(line);
    }
    Ok(Value::from(out))
}

fn write_value(out: &mut String, value: &Value, style: Style, depth: usize) -> Result<(), Error> {
    if depth > MAX_DEPTH {
        return Err(Error::new(ErrorKind::InvalidOperation, "a value is nested too deeply"));
    }
    // A list that holds another twice, which holds another twice, is small until it is printed.
    if out.len() > MAX_RENDERED {
        return Err(Error::new(ErrorKind::InvalidOperation, "a value is too long to be printed"));
    }
    let json = matches!(style, Style::Json { .. });
    match value.kind() {
        ValueKind::None => out.push_str(if json { "null" } else { "None" }),
        ValueKind::Bool => out.push_str(match (value.is_true(), json) {
            (true, true) => "true",
            (true, false) => "True",
            (false, true) => "false",
            (false, false) => "False",
        }),
        ValueKind::Number if value.is_integer() => write!(out, "{value}").map_err(|_| unprintable())?,
        ValueKind::Number => out.push_str(&float(f64::try_from(value.clone())?)),
        ValueKind::String => {
            let text = value.as_str().ok_or_else(unprintable)?;
            if json { json_text(out, text) } else { python_text(out, text) }
        }
        ValueKind::Seq | ValueKind::Iterable => {
            write_items(out, ['[', ']'], value.try_iter()?, style, depth, |out, item| {
                write_value(out, item, style, depth + 1)
            })?;
        }
        ValueKind::Map => {
            write_items(out, ['{', '}'], value.try_iter()?, style, depth, |out, key| {
                write_value(out, key, style, depth + 1)?;
                out.push_str(": ");
                write_value(out, &value.get_item(key)?, style, depth + 1)
            })?;
        }
        _ => return Err(unprintable()),
    }
    Ok(())
}

fn write_items(
    out: &mut String,
    brackets: [char; 2],
    items: impl Iterator<Item = Value>,
    style: Style,
    depth: usize,
    mut write: impl FnMut(&mut String, &Value) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut items = items.peekable();
    let indent = match style {
        Style::Json { indent: Some(indent) } if items.peek().is_some() => Some(indent),
        _ => None,
    };
    let line = |out: &mut String, depth: usize| {
        if let Some(indent) = indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent.min(16) * depth));
        }
    };
    out.push(brackets[0]);
    for (nth, item) in items.enumerate() {
        if nth > 0 {
            out.push_str(if indent.is_some() { "," } else { ", " });
        }
        line(out, depth + 1);
        write(out, &item)?;
    }
    line(out, depth);
    out.push(brackets[1]);
    Ok(())
}

fn unprintable() -> Error {
    Error::new(ErrorKind::InvalidOperation, "a value cannot be printed")
}

fn json_text(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\0'..='\u{1f}' => out.push_str(&format!("\\u{:04x}", c as u32)),
            _ => out.push(c),
        }
    }
    out.push('"');
}

/// Python's `repr` of a string: in single quotes, unless it has some and no double ones.
fn python_text(out: &mut String, text: &str) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => out.extend(['\\', c]),
            '\0'..='\u{1f}' | '\u{7f}'..='\u{a0}' | '\u{ad}' => out.push_str(&format!("\\x{:02x}", c as u32)),
            _ => out.push(c),
        }
    }
    out.push(quote);
}

/// Python's `repr` of a float: the shortest digits, with an exponent below 10^-4 and from 10^16 on.
fn float(value: f64) -> String {
    if !value.is_finite() {
        return match value {
            _ if value.is_nan() => "NaN".into(),
            _ if value > 0.0 => "Infinity".into(),
            _ => "-Infinity".into(),
        };
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if value != 0.0 && !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.abs());
    }
    let plain = format!("{value}");
    if plain.contains('.') { plain } else { plain + ".0" }
}
