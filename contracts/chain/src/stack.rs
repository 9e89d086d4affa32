//! Get-method stacks in the JSON of toncenter v2. (Version 3 shares its numbers and cells.)
//!
//! Two spellings: items at the top are pairs (`["num", "0x1"]`), items inside tuples are objects with an `@type`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use cocoon_contracts::{Cell, message};
use num_bigint::{BigInt, Sign};
use serde_json::{Value, json};

use crate::StackItem;

/// Most items in a stack or tuple, and how deep tuples may nest.
pub(crate) const MAX_ITEMS: usize = 255;
pub(crate) const MAX_DEPTH: usize = 16;
/// The largest cell tree in a stack, as a bag of cells.
const MAX_CELL_BYTES: usize = 1 << 20;
/// Longest spelling of a 257-bit integer, decimal or hex, with sign and prefix.
const MAX_NUMBER_CHARS: usize = 80;

/// Writes a stack.
pub fn stack_to_json(items: &[StackItem]) -> Value {
    Value::Array(items.iter().map(item_to_json).collect())
}

/// Reads a stack: what [`stack_to_json`] writes, and the `tvm.Cell`/`tvm.Slice` pairs in which clients send arguments.
pub fn stack_from_json(value: &Value) -> Result<Vec<StackItem>, String> {
    let items = value.as_array().ok_or("the stack is not a list")?;
    if items.len() > MAX_ITEMS {
        return Err(format!("more than {MAX_ITEMS} items"));
    }
    items.iter().map(item_from_json).collect()
}

fn item_to_json(item: &StackItem) -> Value {
    match item {
        StackItem::Null => json!(["null"]),
        StackItem::Int(value) => json!(["num", hex_number(value)]),
        StackItem::Cell(cell) => json!(["cell", { "bytes": cell_text(cell) }]),
        StackItem::Slice(cell) => json!(["slice", { "bytes": cell_text(cell) }]),
        StackItem::Tuple(items) => json!(["tuple", {
            "@type": "tvm.tuple",
            "elements": items.iter().map(entry_to_json).collect::<Vec<_>>(),
        }]),
    }
}

fn entry_to_json(item: &StackItem) -> Value {
    match item {
        // toncenter writes null as an empty list.
        StackItem::Null => json!({ "@type": "tvm.stackEntryList",
            "list": { "@type": "tvm.list", "elements": [] } }),
        StackItem::Int(value) => json!({ "@type": "tvm.stackEntryNumber",
            "number": { "@type": "tvm.numberDecimal", "number": value.to_string() } }),
        StackItem::Cell(cell) => json!({ "@type": "tvm.stackEntryCell",
            "cell": { "@type": "tvm.cell", "bytes": cell_text(cell) } }),
        StackItem::Slice(cell) => json!({ "@type": "tvm.stackEntrySlice",
            "slice": { "@type": "tvm.slice", "bytes": cell_text(cell) } }),
        StackItem::Tuple(items) => json!({ "@type": "tvm.stackEntryTuple",
            "tuple": { "@type": "tvm.tuple", "elements": items.iter().map(entry_to_json).collect::<Vec<_>>() } }),
    }
}

fn item_from_json(item: &Value) -> Result<StackItem, String> {
    let kind = item.get(0).and_then(Value::as_str).ok_or("a stack item is not a pair")?;
    let value = item.get(1).unwrap_or(&Value::Null);
    let bytes = || value.get("bytes").or(Some(value)).and_then(Value::as_str).ok_or("a cell has no bytes");
    match kind {
        "null" => Ok(StackItem::Null),
        "num" | "int" => Ok(StackItem::Int(number(value)?)),
        "cell" | "tvm.Cell" => Ok(StackItem::Cell(cell(bytes()?)?)),
        "slice" | "tvm.Slice" => Ok(StackItem::Slice(cell(bytes()?)?)),
        "tuple" | "list" => elements(value, 0),
        other => Err(format!("items of kind {other:?} are not supported")),
    }
}

fn elements(value: &Value, depth: usize) -> Result<StackItem, String> {
    let items = value.get("elements").and_then(Value::as_array).ok_or("a tuple has no elements")?;
    if items.len() > MAX_ITEMS || depth > MAX_DEPTH {
        return Err("a tuple is too large".into());
    }
    items.iter().map(|item| entry(item, depth)).collect::<Result<_, _>>().map(StackItem::Tuple)
}

fn entry(item: &Value, depth: usize) -> Result<StackItem, String> {
    let field = |outer: &str, inner: &str| {
        item.get(outer).and_then(|v| v.get(inner)).ok_or_else(|| format!("{outer} has no {inner}"))
    };
    let text = |value: &Value| value.as_str().map(str::to_owned).ok_or("a cell's bytes are no text");
    match item.get("@type").and_then(Value::as_str) {
        Some("tvm.stackEntryNumber") => Ok(StackItem::Int(number(field("number", "number")?)?)),
        Some("tvm.stackEntryCell") => Ok(StackItem::Cell(cell(&text(field("cell", "bytes")?)?)?)),
        Some("tvm.stackEntrySlice") => Ok(StackItem::Slice(cell(&text(field("slice", "bytes")?)?)?)),
        Some("tvm.stackEntryTuple") => elements(item.get("tuple").unwrap_or(&Value::Null), depth + 1),
        Some("tvm.stackEntryList") => match elements(item.get("list").unwrap_or(&Value::Null), depth + 1)? {
            StackItem::Tuple(items) if items.is_empty() => Ok(StackItem::Null),
            list => Ok(list),
        },
        other => Err(format!("elements of type {other:?} are not supported")),
    }
}

pub(crate) fn number(value: &Value) -> Result<BigInt, String> {
    let text = match value {
        Value::String(text) if text.len() <= MAX_NUMBER_CHARS => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return Err("a number is neither a number nor a short text".into()),
    };
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => (Sign::Minus, rest),
        None => (Sign::Plus, text.as_str()),
    };
    let (digits, radix) = match digits.strip_prefix("0x") {
        Some(hex) => (hex, 16),
        None => (digits, 10),
    };
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
    let magnitude = plain
        .then(|| num_bigint::BigUint::parse_bytes(digits.as_bytes(), radix))
        .flatten()
        .ok_or_else(|| format!("{text:?} is no number"))?;
    if magnitude.bits() > 256 {
        return Err("a number has more than 257 bits".into());
    }
    Ok(BigInt::from_biguint(sign, magnitude))
}

pub(crate) fn hex_number(value: &BigInt) -> String {
    let sign = if value.sign() == Sign::Minus { "-" } else { "" };
    format!("{sign}0x{}", value.magnitude().to_str_radix(16))
}

pub(crate) fn cell(text: &str) -> Result<Cell, String> {
    if text.len() > MAX_CELL_BYTES * 4 / 3 + 4 {
        return Err("a cell tree is too large".into());
    }
    let bytes = BASE64.decode(text).map_err(|error| format!("a cell's bytes are no base64: {error}"))?;
    message::decode(&bytes, MAX_CELL_BYTES).map_err(|error| error.to_string())
}

fn cell_text(cell: &Cell) -> String {
    BASE64.encode(message::encode(cell))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stacks_survive_their_json() {
        let leaf = StackItem::Cell(Cell::default());
        let items = vec![
            StackItem::Int(BigInt::from(-5)),
            StackItem::Int(BigInt::from(u64::MAX) << 190),
            StackItem::Null,
            StackItem::Slice(Cell::default()),
            StackItem::Tuple(vec![
                leaf.clone(),
                StackItem::Tuple(vec![StackItem::Int(BigInt::from(-7)), StackItem::Null]),
            ]),
            leaf,
        ];
        assert_eq!(stack_from_json(&stack_to_json(&items)).unwrap(), items);
    }

    #[test]
    fn nonsense_is_an_error() {
        let deep = (0..100).fold(
            json!({"@type": "tvm.stackEntryList", "list": {"elements": []}}),
            |inner, _| json!({"@type": "tvm.stackEntryTuple", "tuple": {"elements": [inner]}}),
        );
        for value in [
            json!(1),
            json!([1]),
            json!([["num", "0x"]]),
            json!([["num", "-"]]),
            json!([["num", "1_0"]]),
            json!([["num", "9".repeat(500)]]),
            json!([["num", format!("0x{}", "f".repeat(70))]]),
            json!([["cell", {"bytes": "!!"}]]),
            json!([["cell", {"bytes": "AAAA"}]]),
            json!([["tuple", {"elements": [deep]}]]),
            json!([["continuation", 1]]),
        ] {
            assert!(stack_from_json(&value).is_err(), "{value}");
        }
    }
}
