//! Requests and schemas that were changed at random, from their bytes to the first tokens of an answer: nothing panics,
//! hangs or takes memory without end.
//!
//! The same cases each time. `COCOON_FUZZ_ITERATIONS` sets how many, `COCOON_FUZZ_SEED` where they begin; a failure names
//! the seed of its case.

use crate::grammar::{Grammars, grammar};
use crate::openai::{Asked, Call, read};
use cocoon_engine::{Model, TokenMask};
use cocoon_protocol::Endpoint;
use serde_json::{Map, Value, json};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Longest that one case may take, on a loaded machine.
const LONGEST: Duration = Duration::from_secs(10);
/// Most that the process may grow by, in KiB.
const MOST_GROWTH: u64 = 1 << 20;

/// A small generator of numbers.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }

    fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

/// Ends the whole process, naming the case, when one takes too long or too much: a test that hangs says nothing.
struct Watchdog {
    case: AtomicU64,
    began_ms: AtomicU64,
    done: AtomicBool,
}

impl Watchdog {
    fn watch(&self, what: &str, start: Instant) {
        let before = resident_kib();
        while !self.done.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(20));
            let running =
                start.elapsed().saturating_sub(Duration::from_millis(self.began_ms.load(Ordering::Relaxed)));
            let grown = resident_kib().saturating_sub(before);
            if running > LONGEST || grown > MOST_GROWTH {
                let seed = self.case.load(Ordering::Relaxed);
                eprintln!(
                    "{what}: the case of seed {seed} runs for {running:?}, {grown} KiB more than before"
                );
                std::process::abort();
            }
        }
    }
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Runs `case` with so many seeds, watched.
fn each_case(what: &str, count: u64, mut case: impl FnMut(&mut Dice)) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let (first, count): (u64, u64) =
        (number("COCOON_FUZZ_SEED").unwrap_or(0xC0C0), number("COCOON_FUZZ_ITERATIONS").unwrap_or(count));
    let (start, watchdog) =
        (Instant::now(), Watchdog { case: first.into(), began_ms: 0.into(), done: false.into() });
    std::thread::scope(|scope| {
        scope.spawn(|| watchdog.watch(what, start));
        for seed in first..first + count {
            watchdog.case.store(seed, Ordering::Relaxed);
            let now = u64::try_from(start.elapsed().as_millis()).expect("not that long");
            watchdog.began_ms.store(now, Ordering::Relaxed);
            let run = std::panic::AssertUnwindSafe(|| case(&mut Dice(seed)));
            if let Err(panic) = std::panic::catch_unwind(run) {
                watchdog.done.store(true, Ordering::Relaxed);
                eprintln!("{what}: the case of seed {seed} panics");
                std::panic::resume_unwind(panic);
            }
        }
        watchdog.done.store(true, Ordering::Relaxed);
    });
    println!("{what}: {count} cases from seed {first} in {:?}", start.elapsed());
}

/// Values that break readers.
fn odd(dice: &mut Dice) -> Value {
    match dice.below(14) {
        0 => Value::Null,
        1 => json!(dice.below(2) == 0),
        2 => json!(*dice.one(&[0, 1, -1, i64::MAX, i64::MIN, 1_000_000_007])),
        3 => json!(u64::MAX),
        4 => json!(*dice.one(&[0.5, -0.0, 1e308, -1e308, 5e-324, 1.5])),
        5 => json!(""),
        6 => json!("a".repeat(1 + dice.below(700))),
        7 => json!(*dice.one(&[
            "\u{0}",
            "\u{202e}",
            "😀",
            "\"\\",
            "<tool_call>",
            "<|im_end|>",
            "#/",
            "#/$defs/a",
            "auto"
        ])),
        8 => json!(*dice.one(&[
            "(a+)+$",
            "[",
            "(?=a)",
            ".{0,500}",
            "\\p{L}*",
            "^(a|a)*$",
            "((a{1,99}){1,99}){1,99}"
        ])),
        9 => json!([]),
        10 => json!({}),
        11 => (0..dice.below(100)).fold(json!([]), |inner, _| json!([inner])),
        12 => (0..dice.below(60)).fold(json!({}), |inner, _| json!({"anyOf": [inner, {"$ref": "#"}]})),
        _ => json!((0..dice.below(400)).collect::<Vec<_>>()),
    }
}

/// Words that schemas and requests are made of.
const WORDS: &[&str] = &[
    "type",
    "enum",
    "const",
    "anyOf",
    "$ref",
    "$defs",
    "items",
    "prefixItems",
    "minItems",
    "maxItems",
    "properties",
    "required",
    "additionalProperties",
    "pattern",
    "format",
    "minLength",
    "maxLength",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "multipleOf",
    "allOf",
    "oneOf",
    "not",
    "x-guidance",
    "$id",
    "title",
    "role",
    "content",
    "n",
    "stop",
    "logit_bias",
    "tools",
    "tool_choice",
    "function",
    "name",
    "parameters",
    "strict",
    "arguments",
    "",
];

/// A place inside a value, as deep as chance goes.
fn inside<'v>(value: &'v mut Value, dice: &mut Dice) -> &'v mut Value {
    let size = match value {
        Value::Array(list) => list.len(),
        Value::Object(map) => map.len(),
        _ => 0,
    };
    if size == 0 || dice.below(5) == 0 {
        return value;
    }
    let at = dice.below(size);
    match value {
        Value::Array(list) => inside(&mut list[at], dice),
        Value::Object(map) => inside(map.values_mut().nth(at).expect("within its size"), dice),
        _ => unreachable!("it has a size"),
    }
}

/// Changes one thing.
fn mutate(value: &mut Value, dice: &mut Dice) {
    let copy = value.clone();
    let place = inside(value, dice);
    match (dice.below(6), &mut *place) {
        (0, Value::Object(map)) => drop(map.insert((*dice.one(WORDS)).to_owned(), odd(dice))),
        (1, Value::Object(map)) if !map.is_empty() => {
            let name = map.keys().nth(dice.below(map.len())).cloned().expect("there is one");
            let moved = map.remove(&name).expect("it is there");
            map.insert((*dice.one(WORDS)).to_owned(), moved);
        }
        (2, Value::Array(list)) if list.len() < 64 => {
            let again = list.first().cloned().unwrap_or_else(|| odd(dice));
            list.extend(std::iter::repeat_n(again, 1 + dice.below(40)));
        }
        (3, Value::String(text)) => text.push_str("\u{7f}é\"\\u0000"),
        (4, place) => *place = copy,
        (_, place) => *place = odd(dice),
    }
}

/// A schema of a few levels, most of them fine ones.
fn schema(dice: &mut Dice, depth: usize) -> Value {
    if dice.below(12) == 0 {
        return odd(dice);
    }
    match dice.below(if depth == 0 { 7 } else { 11 }) {
        0 => {
            json!({"type": *dice.one(&["string", "integer", "number", "boolean", "null", "object", "array"])})
        }
        1 => json!({"type": ["string", "null"], "maxLength": dice.below(1200)}),
        2 => json!({"type": "string", "pattern": odd(dice)}),
        3 => json!({"enum": (0..1 + dice.below(40)).map(|_| odd(dice)).collect::<Vec<_>>()}),
        4 => json!({"type": "integer", "minimum": odd(dice), "maximum": odd(dice)}),
        5 => json!({"type": "number", "multipleOf": odd(dice)}),
        6 => json!({"$ref": *dice.one(&["#", "#/$defs/a", "#/$defs/b", "#/properties/a", "#/$defs"])}),
        7 => json!({"anyOf": (0..1 + dice.below(4)).map(|_| schema(dice, depth - 1)).collect::<Vec<_>>()}),
        8 => {
            json!({"type": "array", "items": schema(dice, depth - 1), "minItems": dice.below(9), "maxItems": dice.below(1024)})
        }
        9 => json!({"type": "array", "prefixItems": [schema(dice, depth - 1), schema(dice, depth - 1)]}),
        _ => {
            let count = 1 + dice.below(4);
            let properties: Map<String, Value> =
                (0..count).map(|_| ((*dice.one(WORDS)).to_owned(), schema(dice, depth - 1))).collect();
            let required: Vec<&String> = properties.keys().collect();
            let mut object =
                json!({"type": "object", "required": required, "additionalProperties": dice.below(2) == 0});
            object["properties"] = properties.into();
            object["$defs"] = json!({"a": schema(dice, depth - 1), "b": {"$ref": "#/$defs/a"}});
            object
        }
    }
}

/// What is done with a request before the engine has it, and some tokens of its answer.
fn follow(model: &Model, grammars: &Grammars, call: &Call, dice: &mut Dice) -> bool {
    let Some((grammar, param)) = grammar(call) else { return false };
    let Ok(mut made) = grammars.constraints(model, &grammar, 1, param) else { return false };
    let follower = made.first_mut().expect("one for one answer");
    let mut mask = TokenMask::all(model.vocab_size());
    for _ in 0..12 {
        mask.allow_all();
        if follower.mask(&mut mask).is_err() {
            break;
        }
        let from = dice.below(model.vocab_size());
        let next = (0..model.vocab_size()).map(|n| ((from + n) % model.vocab_size()) as u32);
        let Some(token) = next.into_iter().find(|token| mask.is_allowed(*token)) else { break };
        if model.tokenizer().end_tokens().contains(&token) || follower.accept(token).is_err() {
            break;
        }
    }
    true
}

fn model() -> Model {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/models/tiny.gguf");
    Model::open(&path).expect("the tiny model is in the repository")
}

#[test]
fn schemas_of_any_kind_are_read_and_followed_in_bounded_time_and_memory() {
    let (model, grammars, mut followed) = (model(), Grammars::default(), 0);
    each_case("schemas", 4_000, |dice| {
        let mut schema = schema(dice, 3);
        for _ in 0..dice.below(3) {
            mutate(&mut schema, dice);
        }
        let (strict, tool) = (dice.below(4) == 0, dice.below(3) == 0);
        let message = json!([{"role": "user", "content": "x"}]);
        let mut body = json!({"messages": message});
        if tool {
            let function = json!({"name": "f", "strict": strict, "parameters": schema});
            body["tools"] = json!([{"type": "function", "function": function}]);
            body["tool_choice"] = json!(*dice.one(&["auto", "required"]));
        } else {
            let inner = json!({"name": "n", "strict": strict, "schema": schema});
            body["response_format"] = json!({"type": "json_schema", "json_schema": inner});
        }
        if let Ok(Asked::Text(call)) = read(Endpoint::ChatCompletions, body.to_string().as_bytes(), 0) {
            followed += u32::from(follow(&model, &grammars, &call, dice));
        }
    });
    assert!(followed > 100, "{followed} were followed");
}

/// Whole requests, each with what makes a reader's work.
fn requests() -> Vec<(Endpoint, Value)> {
    let tool = json!({"type": "object", "properties": {"a": {"type": "string", "maxLength": 3}}});
    let turns = json!([
        {"role": "developer", "content": [{"type": "text", "text": "s"}]},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": null, "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{\"a\": 1}"}}]},
        {"role": "tool", "tool_call_id": "1", "content": "r"},
    ]);
    let chat = json!({
        "messages": turns, "stream": true, "stream_options": {"include_usage": true}, "stop": ["a", "b"], "seed": 7,
        "n": 2, "temperature": 0.5, "max_tokens": 5, "logit_bias": {"1": 2}, "logprobs": true, "top_logprobs": 3,
        "tools": [{"type": "function", "function": {"name": "f", "parameters": tool}}], "tool_choice": "auto",
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "array"}}},
    });
    let items = json!([
        {"role": "user", "content": [{"type": "input_text", "text": "q"}]},
        {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "1", "output": "r"},
    ]);
    let response = json!({
        "input": items, "instructions": "i", "text": {"format": {"type": "json_object"}}, "max_output_tokens": 9,
        "tools": [{"type": "function", "name": "f", "parameters": tool}], "metadata": {"a": "b"}, "temperature": 1,
        "include": ["message.output_text.logprobs"], "top_logprobs": 2, "stream": true,
    });
    let completion =
        json!({"prompt": ["a", "b"], "n": 2, "echo": true, "best_of": 2, "max_tokens": 7, "stop": "x"});
    vec![
        (Endpoint::ChatCompletions, chat),
        (Endpoint::Responses, response),
        (Endpoint::Completions, completion),
        (Endpoint::Embeddings, json!({"input": ["a", "b"], "encoding_format": "base64", "dimensions": 3})),
    ]
}

#[test]
fn requests_changed_at_random_are_answered_or_refused() {
    let (model, grammars, requests) = (model(), Grammars::default(), requests());
    for (endpoint, body) in &requests {
        assert!(read(*endpoint, body.to_string().as_bytes(), 0).is_ok(), "{body}");
    }
    let mut taken = 0;
    each_case("requests", 40_000, |dice| {
        let (endpoint, body) = dice.one(&requests);
        let mut body = body.clone();
        for _ in 0..=dice.below(4) {
            mutate(&mut body, dice);
        }
        let mut bytes = body.to_string().into_bytes();
        if dice.below(4) == 0 {
            let at = dice.below(bytes.len());
            bytes[at] = dice.below(256) as u8; // no UTF-8, or no JSON
        }
        let Ok(Asked::Text(mut call)) = read(*endpoint, &bytes, 0) else { return };
        taken += 1;
        call.take_form(grammars.form(&model));
        for prompt in &call.prompts {
            if let crate::openai::Prompt::Chat(conversation) = prompt {
                let form = call.form.as_ref();
                let _ = conversation.render(model.vocabulary(), form); // it may refuse
            }
        }
        if dice.below(8) == 0 {
            follow(&model, &grammars, &call, dice);
        }
    });
    assert!(taken > 100, "{taken} were taken");
}
