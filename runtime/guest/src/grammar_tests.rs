//! Answers under grammars, with the weights left out: a tiny model's vocabulary and random choices among what is allowed.

use super::*;
use crate::openai::{Asked, read};
use cocoon_engine::{Constraint, TokenMask};
use cocoon_protocol::Endpoint;
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

/// A small generator of numbers, so that each run asks the same.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }
}

fn model() -> Model {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/models/tiny.gguf");
    Model::open(&path).expect("the tiny model is in the repository")
}

fn call(more: &str) -> Result<Box<crate::openai::Call>, Refusal> {
    let body = format!(r#"{{"messages":[{{"role":"user","content":"x"}}],{more}}}"#);
    match read(Endpoint::ChatCompletions, body.as_bytes(), 0)? {
        Asked::Text(call) => Ok(call),
        Asked::Vectors(_) => panic!("a chat is text"),
    }
}

/// What holds one answer to what was asked for.
fn follower(model: &Model, grammars: &Grammars, call: &Call) -> Result<Box<dyn Constraint>, Refusal> {
    let (grammar, param) = grammar(call).expect("it is not free");
    let mut made = grammars.constraints(model, &grammar, 1, param)?;
    Ok(made.pop().expect("one for one answer"))
}

fn format(schema: &Value, strict: bool) -> String {
    let inner = json!({"name": "n", "schema": schema, "strict": strict});
    format!(r#""response_format":{}"#, json!({"type": "json_schema", "json_schema": inner}))
}

/// Writes an answer of random allowed tokens; after `most` it breaks off, with `None`.
fn write(
    model: &Model,
    grammars: &Grammars,
    more: &str,
    dice: &mut Dice,
    most: usize,
) -> Result<Option<String>, Refusal> {
    let call = call(more)?;
    let mut follower = follower(model, grammars, &call)?;
    let tokenizer = model.tokenizer();
    let mut mask = TokenMask::all(model.vocab_size());
    let mut bytes = Vec::new();
    for _ in 0..most {
        mask.allow_all();
        follower.mask(&mut mask).expect("the grammar goes on");
        let allowed: Vec<u32> =
            (0..model.vocab_size() as u32).filter(|token| mask.is_allowed(*token)).collect();
        assert!(!allowed.is_empty(), "something is always allowed");
        let token = allowed[dice.below(allowed.len())];
        if tokenizer.end_tokens().contains(&token) {
            return Ok(Some(String::from_utf8(bytes).expect("whole characters")));
        }
        follower.accept(token).expect("it was allowed");
        bytes.extend_from_slice(tokenizer.text_of(token));
    }
    Ok(None)
}

/// A small schema whose answers end.
fn schema(dice: &mut Dice, depth: usize) -> Value {
    let kinds = if depth == 0 { 5 } else { 8 };
    match dice.below(kinds) {
        0 => json!({"type": "boolean"}),
        1 => json!({"type": "integer", "minimum": -5, "maximum": dice.below(2000)}),
        2 => json!({"type": "string", "maxLength": 1 + dice.below(6)}),
        3 => json!({"enum": ["red", "gr\"een", 3, null]}),
        4 => json!({"type": "string", "pattern": "^[a-c]{2,4}$"}),
        5 => json!({"type": "array", "items": schema(dice, depth - 1), "minItems": 1, "maxItems": 3}),
        6 => json!({"anyOf": [schema(dice, depth - 1), {"type": "null"}]}),
        _ => object(dice, depth - 1),
    }
}

fn object(dice: &mut Dice, depth: usize) -> Value {
    let names = ["a", "long name", "ü", "b"];
    let properties: serde_json::Map<String, Value> = names
        .iter()
        .take(1 + dice.below(names.len()))
        .map(|name| ((*name).to_owned(), schema(dice, depth)))
        .collect();
    let required: Vec<&String> = properties.keys().collect();
    json!({"type": "object", "required": required, "additionalProperties": false, "properties": properties})
}

/// A validator of the schemas above, as the specification of JSON Schema says it.
fn valid(schema: &Value, value: &Value) -> bool {
    if let Some(any) = schema.get("anyOf").and_then(Value::as_array) {
        return any.iter().any(|schema| valid(schema, value));
    }
    if let Some(list) = schema.get("enum").and_then(Value::as_array) {
        return list.contains(value);
    }
    match schema["type"].as_str() {
        Some("null") => value.is_null(),
        Some("boolean") => value.is_boolean(),
        // "-0" is an integer too.
        Some("integer") => value.as_f64().is_some_and(|number| {
            let (least, most) =
                (schema["minimum"].as_f64().expect("given"), schema["maximum"].as_f64().expect("given"));
            number.fract() == 0.0 && number >= least && number <= most
        }),
        Some("string") => value.as_str().is_some_and(|text| {
            let length = text.chars().count();
            let short =
                schema.get("maxLength").is_none_or(|most| length as u64 <= most.as_u64().expect("a count"));
            let matches = (2..=4).contains(&length) && text.bytes().all(|byte| (b'a'..=b'c').contains(&byte));
            short && (schema.get("pattern").is_none() || matches)
        }),
        Some("array") => value.as_array().is_some_and(|items| {
            (1..=3).contains(&items.len()) && items.iter().all(|item| valid(&schema["items"], item))
        }),
        Some("object") => value.as_object().is_some_and(|map| {
            let properties = schema["properties"].as_object().expect("given");
            map.len() == properties.len()
                && properties
                    .iter()
                    .all(|(name, inner)| map.get(name).is_some_and(|value| valid(inner, value)))
        }),
        _ => panic!("no schema of these tests"),
    }
}

#[test]
fn any_answer_to_a_strict_schema_parses_and_is_valid() {
    let (model, grammars, mut dice) = (model(), Grammars::default(), Dice(7));
    let mut whole = 0;
    for _ in 0..60 {
        let schema = object(&mut dice, 2);
        for _ in 0..3 {
            let written = write(&model, &grammars, &format(&schema, true), &mut dice, 2000);
            let Ok(written) = written else { panic!("{schema} was refused") };
            let Some(text) = written else { continue };
            let value: Value =
                serde_json::from_str(&text).unwrap_or_else(|e| panic!("{schema}: {text}: {e}"));
            assert!(valid(&schema, &value), "{schema}: {text}");
            whole += 1;
        }
    }
    assert!(whole > 150, "nearly all of them end: {whole}");
}

#[test]
fn json_object_gives_an_object() {
    let (model, grammars, mut dice) = (model(), Grammars::default(), Dice(3));
    let mut whole = 0;
    for _ in 0..40 {
        let more = r#""response_format":{"type":"json_object"}"#;
        let Ok(written) = write(&model, &grammars, more, &mut dice, 300) else { panic!("it is fine") };
        if let Some(text) = written {
            assert!(serde_json::from_str::<Value>(&text).expect("JSON").is_object(), "{text}");
            whole += 1;
        }
    }
    assert!(whole > 5, "{whole} of 40 ended by themselves");
}

const TOOLS: &str = r#""tools":[
    {"type":"function","function":{"name":"look_up","strict":true,"parameters":{"type":"object","properties":
        {"word":{"type":"string","maxLength":4}},"required":["word"],"additionalProperties":false}}},
    {"type":"function","function":{"name":"now"}}]"#;

#[test]
fn calls_of_tools_have_their_form_whatever_the_choice() {
    let (model, grammars, mut dice) = (model(), Grammars::default(), Dice(5));
    let head = |name: &str| format!("<tool_call>\n{{\"name\": \"{name}\", \"arguments\": {{");
    for (choice, names) in [
        (r#""required""#, &["look_up", "now"][..]),
        (r#"{"type":"function","function":{"name":"now"}}"#, &["now"][..]),
        (r#"{"type":"function","function":{"name":"look_up"}}"#, &["look_up"][..]),
    ] {
        let mut ended = 0;
        for _ in 0..8 {
            let more = format!(r#"{TOOLS},"tool_choice":{choice}"#);
            let Ok(written) = write(&model, &grammars, &more, &mut dice, 600) else { panic!("it is fine") };
            let Some(text) = written else { continue };
            assert!(names.iter().any(|name| text.starts_with(&head(name))), "{choice}: {text}");
            assert!(text.ends_with("}\n</tool_call>"), "{text}");
            ended += 1;
        }
        assert!(ended > 0, "{choice}");
    }
}

/// Follows the grammar along `text`; true where it may end after it.
fn follows(model: &Model, grammars: &Grammars, more: &str, text: &str) -> bool {
    let Ok(call) = call(more) else { panic!("{more} was refused") };
    along(model, grammars, &call, text)
}

/// Follows an answer's grammar along `text`; true where it may end after it.
fn along(model: &Model, grammars: &Grammars, call: &Call, text: &str) -> bool {
    let Ok(mut follower) = follower(model, grammars, call) else { panic!("it makes no grammar") };
    let mut mask = TokenMask::all(model.vocab_size());
    for token in model.tokenizer().encode(text, false) {
        mask.allow_all();
        follower.mask(&mut mask).expect("it goes on");
        if !mask.is_allowed(token) {
            return false;
        }
        follower.accept(token).expect("it was allowed");
    }
    mask.allow_all();
    follower.mask(&mut mask).expect("it goes on");
    model.tokenizer().end_tokens().iter().any(|end| mask.is_allowed(*end))
}

#[test]
fn free_text_may_hold_calls_and_a_call_once_begun_is_held_to_its_form() {
    let (model, grammars) = (model(), Grammars::default());
    let one = "<tool_call>\n{\"name\": \"look_up\", \"arguments\": {\"word\": \"a\"}}\n</tool_call>";
    let two = format!("Let me see.\n{one}\n{one}\nDone");
    let fits = |more: &str, text: &str| follows(&model, &grammars, &format!("{TOOLS}{more}"), text);
    assert!(fits("", "no call at all, 1 < 2"));
    assert!(fits("", one) && fits("", &two));
    assert!(
        !fits("", "<tool_call>\n{\"name\": \"other\", \"arguments\": {}}\n</tool_call>"),
        "an unknown tool"
    );
    assert!(!fits("", &one.replace("word", "name")), "an unknown argument");
    assert!(!fits("", &one[..one.len() - 5]), "it breaks off");
    let single = r#","parallel_tool_calls":false"#;
    assert!(fits(single, one) && fits(single, "no call") && !fits(single, &two));
    let required = r#","tool_choice":"required""#;
    assert!(fits(required, one) && fits(required, &format!("{one}\n{one}")) && !fits(required, "no call"));
    assert!(!fits(r#","tool_choice":"required","parallel_tool_calls":false"#, &format!("{one}\n{one}")));
    let json = r#","response_format":{"type":"json_object"}"#;
    assert!(fits(json, "{\"a\": 1}") && fits(json, one) && !fits(json, "text"));
}

/// As Llama 3's template has it: a call is the whole answer, and JSON like any other.
fn bare() -> CallForm {
    let (mark, head) = ("{\"name\": \"".into(), String::new());
    let (middle, end) = ("\", \"parameters\": ".into(), "}".into());
    CallForm { mark, head, middle, end, between: None, anywhere: false }
}

#[test]
fn a_models_own_form_holds_its_calls() {
    let (model, grammars) = (model(), Grammars::default());
    let fits = |more: &str, text: &str| {
        let Ok(mut call) = call(&format!("{TOOLS}{more}")) else { panic!("{more} was refused") };
        call.take_form(Some(&bare()));
        along(&model, &grammars, &call, text)
    };
    let one = r#"{"name": "look_up", "parameters": {"word": "a"}}"#;
    for choice in ["", r#","tool_choice":"required""#] {
        assert!(fits(choice, one), "{choice}");
        assert!(!fits(choice, &one.replace("word", "name")), "an unknown argument");
        assert!(!fits(choice, &one.replace("look_up", "other")), "an unknown tool");
        assert!(!fits(choice, &one[..one.len() - 1]), "it breaks off");
        assert!(!fits(choice, &format!("{one}\n{one}")), "one call at a time");
    }
    assert!(fits("", "no call, {\"name\": \"look_up\""), "a call is the whole answer");
    assert!(fits("", "{\"names\": 1}") && fits("", ""), "other JSON is text");
    assert!(!fits(r#","tool_choice":"required""#, "no call"));
    // JSON that an answer may be beside a call would look the same: then the form is one that can be told apart.
    let json = r#","response_format":{"type":"json_object"}"#;
    assert!(fits(json, one) && fits(json, r#"{"a": 1}"#) && !fits(json, "text"), "that is JSON too");
    let hermes = "<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>";
    assert!(fits(json, hermes) && !fits(&format!(r#"{json},"tool_choice":"required""#), hermes));
}

#[test]
fn references_lead_into_the_schema_and_may_be_recursive() {
    let (model, grammars) = (model(), Grammars::default());
    let schema = json!({
        "type": "object", "properties": {"next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
        "required": ["next"], "additionalProperties": false,
        "$defs": {"node": {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}},
            "required": ["next"], "additionalProperties": false}},
    });
    let more = format(&schema, true);
    assert!(follows(&model, &grammars, &more, r#"{"next": {"next": {"next": null}}}"#));
    assert!(!follows(&model, &grammars, &more, r#"{"next": {"other": null}}"#));
}

#[test]
fn schemas_that_explode_are_refused_by_their_limits() {
    let (model, grammars) = (model(), Grammars::default());
    let many: serde_json::Map<String, Value> = (0..2000).map(|n| (format!("p{n}"), json!(true))).collect();
    let nested = (0..60).fold(json!({"type": "null"}), |inner, _| json!({"anyOf": [inner]}));
    for schema in [
        json!({"type": "string", "pattern": "(?=a)b"}),
        json!({"type": "string", "pattern": "a".repeat(1000)}),
        json!({"type": "string", "maxLength": u64::MAX}),
        json!({"type": "array", "items": {"type": "null"}, "maxItems": 1_000_000_000}),
        json!({"type": "object", "properties": many}),
        json!({"enum": (0..5000).collect::<Vec<_>>()}),
        json!({"$ref": "#/$defs/nowhere"}),
        json!({"$ref": "https://example.org/schema"}),
        json!({"allOf": [{"type": "null"}, {"type": "string"}]}),
        json!({"x-guidance": {"lenient": true}}),
        json!({"type": "integer", "minimum": 5, "maximum": 4}),
        nested,
    ] {
        let began = Instant::now();
        let result = write(&model, &grammars, &format(&schema, false), &mut Dice(1), 0);
        let short: String = schema.to_string().chars().take(80).collect();
        let Err(refusal) = result else { panic!("{short} was taken") };
        assert_eq!((refusal.status, refusal.error.code()), (400, "invalid_json_schema"), "{short}");
        assert!(began.elapsed() < Duration::from_secs(5), "{short} took {:?}", began.elapsed());
    }
}

/// What is within the limits and heavy nevertheless is refused, or ends, or goes on: always in bounded time.
#[test]
fn heavy_schemas_take_bounded_time_to_read_and_for_each_token() {
    let (model, grammars) = (model(), Grammars::default());
    let power = (0..12).fold(json!({"type": "null"}), |inner, _| json!({"anyOf": [inner, inner]}));
    let defs: serde_json::Map<String, Value> = (0..60)
        .map(|n| (format!("d{n}"), json!({"anyOf": [{"$ref": format!("#/$defs/d{}", (n + 1) % 60)}]})))
        .collect();
    let wide: serde_json::Map<String, Value> =
        (0..900).map(|n| (format!("p{n}"), json!({"type": "string", "maxLength": 1024}))).collect();
    for schema in [
        json!({"type": "string", "pattern": "((a{1,500}){1,500}){1,500}"}),
        json!({"type": "string", "pattern": "(a|b|ab|ba|aab){400}c{400}[^d]{300}"}),
        json!({"type": "string", "pattern": "(.*a.{200}.*b.{200})|(.*b.{300}.*a.{100})"}),
        json!({"$ref": "#/$defs/d0", "$defs": defs}),
        json!({"type": "object", "properties": wide}),
        json!({"type": "array", "maxItems": 1024, "items": {"type": "array", "maxItems": 1024, "items": {"type": "null"}}}),
        power,
    ] {
        let short: String = schema.to_string().chars().take(60).collect();
        let began = Instant::now();
        let Ok(call) = call(&format(&schema, false)) else { continue };
        let made = follower(&model, &grammars, &call);
        assert!(began.elapsed() < Duration::from_secs(5), "{short} took {:?} to read", began.elapsed());
        let Ok(mut follower) = made else { continue };
        let mut dice = Dice(9);
        let mut mask = TokenMask::all(model.vocab_size());
        for _ in 0..60 {
            let began = Instant::now();
            mask.allow_all();
            let fits = follower.mask(&mut mask).is_ok();
            assert!(
                began.elapsed() < Duration::from_secs(2),
                "{short} took {:?} for a token",
                began.elapsed()
            );
            let allowed: Vec<u32> = (0..model.vocab_size() as u32).filter(|t| mask.is_allowed(*t)).collect();
            let Some(token) = allowed.get(dice.below(allowed.len().max(1))).filter(|_| fits) else { break };
            if model.tokenizer().end_tokens().contains(token) || follower.accept(*token).is_err() {
                break;
            }
        }
    }
}
