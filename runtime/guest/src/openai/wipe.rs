//! JSON that is wiped when it has been used: it holds what clients and models say.

use cocoon_protocol::Answer;
use serde_json::Value;
use zeroize::Zeroize;

/// Overwrites all texts of a value. Nesting is bounded where values are read.
pub(crate) fn wipe(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(list) => list.iter_mut().for_each(wipe),
        Value::Object(map) => map.values_mut().for_each(wipe),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The JSON of an answer, to be sealed.
pub(crate) fn told(mut value: Value) -> Answer {
    let answer = Answer::new(serde_json::to_vec(&value).expect("a JSON value always encodes"));
    wipe(&mut value);
    answer
}
