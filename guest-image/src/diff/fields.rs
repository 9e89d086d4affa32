//! The last resort of a comparison: every field of two manifests, by its place in the JSON.

use serde_json::Value;

use super::{Difference, NOTHING, cause};
use crate::manifest::Manifest;

/// So many fields are named; one is enough to tell two manifests apart.
const FIELDS_MAX: usize = 16;

/// The fields in which two manifests differ: at least one, exactly if their canonical bytes differ.
pub(super) fn fields(expected: &Manifest, found: &Manifest, list: &mut Vec<Difference>) {
    if expected.to_json() == found.to_json() {
        return;
    }
    let value = |manifest| serde_json::to_value(manifest).expect("strings, numbers and lists can be written");
    let mut told = Vec::new();
    walk(String::new(), &value(expected), &value(found), &mut told);
    list.extend(
        told.into_iter()
            .map(|(place, own, other)| cause::FIELD.of(format!("manifest field {place}"), None, own, other)),
    );
}

/// Adds place, expected and found value of each field that differs.
fn walk(place: String, own: &Value, other: &Value, told: &mut Vec<(String, String, String)>) {
    if own == other || told.len() >= FIELDS_MAX {
        return;
    }
    match (own, other) {
        (Value::Object(own), Value::Object(other)) => {
            let names = own.keys().chain(other.keys().filter(|name| !own.contains_key(*name)));
            for name in names {
                let below = if place.is_empty() { name.clone() } else { format!("{place}.{name}") };
                let value = |map: &serde_json::Map<_, _>| map.get(name).cloned().unwrap_or(Value::Null);
                walk(below, &value(own), &value(other), told);
            }
        }
        (Value::Array(own), Value::Array(other)) => {
            for index in 0..own.len().max(other.len()) {
                let value = |list: &[Value]| list.get(index).cloned().unwrap_or(Value::Null);
                walk(format!("{place}[{index}]"), &value(own), &value(other), told);
            }
        }
        _ => told.push((place, text(own), text(other))),
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => NOTHING.to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
