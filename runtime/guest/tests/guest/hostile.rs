//! Requests that are made to hurt, and clients that are slow on purpose, while honest streams go on.

use crate::common::{Running, Setup, config, header, hear, question, sealed, sealed_at};
use crate::http;
use cocoon_attestation::Trusted;
use cocoon_protocol::{Budget, Endpoint, Outcome, Prompt, RequestHeader, seal};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Longest that an honest stream may stand still, on a loaded machine.
const STILL: Duration = Duration::from_secs(5);
/// Most that the guest may grow by meanwhile, in KiB.
const GROWTH: u64 = 300 * 1024;

/// A guest with room for honest and hostile clients at once.
fn roomy() -> Running {
    let setup = Setup::new();
    let config = config(4, 20, &setup.weights());
    Setup { config, ..setup }.start()
}

fn resident_kib(guest: &Running) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", guest.child.id())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux says it");
    line.split_whitespace().next().and_then(|count| count.parse().ok()).expect("a count")
}

/// Does `work` beside honest streams that follow each other; each comes whole, and none stands still for long.
fn beside_streams<T>(guest: &Running, peer: &Trusted, work: impl FnOnce() -> T) -> T {
    let done = AtomicBool::new(false);
    let before = resident_kib(guest);
    let (came, streams, longest) = std::thread::scope(|scope| {
        let honest = scope.spawn(|| {
            let (mut streams, mut longest) = (0, Duration::ZERO);
            while !done.load(Ordering::Relaxed) {
                let body =
                    question("Write about lists.", r#","stream":true,"max_tokens":200,"temperature":2"#);
                let (wire, opener) = sealed(peer, &header(peer), &body);
                let (mut stream, mut bytes, mut last) = (guest.send(&wire), Vec::new(), Instant::now());
                assert_eq!(stream.status, 200, "an honest stream is begun");
                while let Some(chunk) = stream.chunk() {
                    longest = longest.max(last.elapsed());
                    last = Instant::now();
                    bytes.extend(chunk);
                }
                let heard = hear(opener, &bytes);
                assert!(heard.error.is_none() && heard.end.is_ok(), "an honest stream comes whole");
                streams += 1;
            }
            (streams, longest)
        });
        let came = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        done.store(true, Ordering::Relaxed);
        let (streams, longest) = honest.join().expect("honest streams went on");
        (came, streams, longest)
    });
    let came = came.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    let grown = resident_kib(guest).saturating_sub(before);
    println!("{streams} streams beside it, longest pause {longest:?}, {grown} KiB more");
    assert!(streams > 0 && longest < STILL, "a stream stood still for {longest:?}");
    assert!(grown < GROWTH, "the guest has grown by {grown} KiB");
    came
}

/// A request with one more field than it needs.
fn with(more: &str) -> Vec<u8> {
    question("Hi", &format!(r#","max_tokens":8,{more}"#)).into_bytes()
}

fn held_to(schema: &Value) -> Vec<u8> {
    let inner = json!({"name": "n", "schema": schema});
    with(&format!(r#""response_format":{}"#, json!({"type": "json_schema", "json_schema": inner})))
}

/// What is refused, and with which code.
fn refused() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let messages = |count| json!({"messages": vec![json!({"role": "user", "content": "x"}); count]});
    let biases: serde_json::Map<String, Value> = (0..10_000).map(|n| (n.to_string(), json!(1))).collect();
    let nested = (0..60).fold(json!({"type": "null"}), |inner, _| json!({"anyOf": [inner]}));
    let cycle =
        json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}});
    let mut no_text = with(r#""stop":"?""#);
    *no_text.iter_mut().rfind(|byte| **byte == b'?').expect("it is there") = 0xff;
    let objects = format!(r#"{{"messages":[{}{{}}]}}"#, "{},".repeat(300_000));
    vec![
        ("10,000 stop strings", with(&format!(r#""stop":{}"#, json!(vec!["x"; 10_000]))), "invalid_value"),
        ("5,000 messages", messages(5_000).to_string().into_bytes(), "invalid_value"),
        ("300,000 objects", objects.into_bytes(), "invalid_value"),
        ("a deep body", "[".repeat(900_000).into_bytes(), "invalid_json"),
        ("a deep field", with(&format!(r#""user":{}"#, "[".repeat(500_000))), "invalid_json"),
        ("no UTF-8", no_text, "invalid_json"),
        ("NaN", with(r#""temperature":NaN"#), "invalid_json"),
        ("infinity", with(r#""temperature":1e999"#), "invalid_json"),
        ("a huge number", with(r#""temperature":1e308"#), "invalid_value"),
        ("10,000 biases", with(&format!(r#""logit_bias":{}"#, json!(biases))), "invalid_value"),
        ("deep recursion", held_to(&nested), "invalid_json_schema"),
        ("a cycle", held_to(&cycle), "invalid_json_schema"),
        ("a huge enum", held_to(&json!({"enum": (0..90_000).collect::<Vec<_>>()})), "invalid_json_schema"),
        ("a long schema", held_to(&json!({"description": "x".repeat(900_000)})), "invalid_json_schema"),
        (
            "a huge array",
            held_to(&json!({"type": "array", "maxItems": 1_000_000_000})),
            "invalid_json_schema",
        ),
    ]
}

/// Texts as long as a body may be, of what tokenizers and templates take longest for.
fn long_texts() -> Vec<Vec<u8>> {
    let unit = ["a", " ", "\n", "é", "😀", "<|im_start|>", "\u{301}", "0", "a b", "((((", "\u{200b}"];
    let repeated =
        |unit: &str| question(&unit.repeat(800_000 / json!(unit).to_string().len()), "").into_bytes();
    let turns = vec![json!({"role": "user", "content": "x".repeat(150)}); 4_000];
    unit.into_iter().map(repeated).chain([json!({"messages": turns}).to_string().into_bytes()]).collect()
}

/// What is within the limits and heavy nevertheless: refused, or answered, or ended.
fn heavy() -> Vec<Vec<u8>> {
    let pattern = |pattern: &str| held_to(&json!({"type": "string", "pattern": pattern}));
    let wide: serde_json::Map<String, Value> =
        (0..500).map(|n| (format!("p{n}"), json!({"type": "string", "maxLength": 1024}))).collect();
    let power = (0..12).fold(json!({"type": "null"}), |inner, _| json!({"anyOf": [inner, inner]}));
    let tool = |n| {
        let parameters =
            json!({"type": "object", "properties": {"a": {"enum": (n..n + 400).collect::<Vec<_>>()}}});
        json!({"type": "function", "function": {"name": format!("f{n}"), "parameters": parameters}})
    };
    let tools = json!((0..128).map(tool).collect::<Vec<_>>());
    vec![
        pattern("((a{1,500}){1,500}){1,500}"),
        pattern("^(a|a)*(b|b)*$"),
        pattern("(.*a.{200}.*b.{200})|(.*b.{300}.*a.{100})"),
        held_to(&json!({"type": "object", "properties": wide})),
        held_to(&power),
        with(&format!(r#""tools":{tools},"tool_choice":"required""#)),
        with(r#""n":16,"logprobs":true,"top_logprobs":20,"stream":true"#),
    ]
}

fn ask(guest: &Running, peer: &Trusted, body: Vec<u8>) -> crate::common::Heard {
    let budget = Budget { prompt_tokens: 1 << 20, completion_tokens: 400 };
    let header = RequestHeader { budget, ..header(peer) };
    let sealed = seal(peer, &header, Endpoint::ChatCompletions, Prompt::new(body)).expect("it fits the wire");
    let reply = guest.send(&sealed.0.into_bytes()).whole();
    assert_eq!(reply.status, 200, "{}", reply.text());
    hear(sealed.1, &reply.body)
}

#[test]
fn hostile_requests_are_refused_by_name_and_every_other_stream_goes_on() {
    let guest = roomy();
    let peer = guest.trusted();
    beside_streams(&guest, &peer, || {
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for (what, body, code) in refused() {
                        let heard = ask(&guest, &peer, body);
                        let (status, error) =
                            heard.error.as_ref().unwrap_or_else(|| panic!("{what} was taken"));
                        assert_eq!((*status, error["error"]["code"].as_str()), (400, Some(code)), "{what}");
                        assert_eq!(error["error"]["type"], "invalid_request_error", "{what}");
                        assert_eq!(heard.receipt().receipt().bill(), 0, "{what} costs nothing");
                    }
                    for body in long_texts() {
                        let began = Instant::now();
                        let heard = ask(&guest, &peer, body);
                        let (status, error) = heard.error.as_ref().expect("no context holds it");
                        println!("a long text is refused in {:?}", began.elapsed());
                        assert_eq!(*status, 400, "{error}");
                    }
                    for body in heavy() {
                        let heard = ask(&guest, &peer, body);
                        assert!(heard.end.is_ok(), "whatever it comes to, it has a receipt");
                    }
                });
            }
        });
    });
}

#[test]
fn more_answers_than_a_worker_has_places_for_are_refused_by_that_number() {
    let guest = Setup::new().start(); // two run, and four wait
    let peer = guest.trusted();
    let chat =
        |n: u32| guest.ask(&peer, &header(&peer), &question("Hi", &format!(r#","max_tokens":2,"n":{n}"#)));
    assert!(chat(6).error.is_none());
    let heard = chat(7);
    let (status, error) = heard.error.as_ref().expect("it would never have a place");
    assert_eq!((*status, error["error"]["param"].as_str()), (400, Some("n")));
    assert!(error["error"]["message"].as_str().expect("words").contains("places for 6"), "{error}");
    assert_eq!(heard.receipt().receipt().bill(), 0);
    let body = r#"{"prompt":["a","b","c","d"],"n":2,"max_tokens":2}"#;
    let heard = guest.ask_at(&peer, &header(&peer), Endpoint::Completions, body);
    let (status, error) = heard.error.as_ref().expect("eight are too many too");
    assert_eq!((*status, error["error"]["param"].as_str()), (400, Some("prompt")));
}

/// An answer of megabytes: more than any buffer on the way takes.
fn long_answer(peer: &Trusted) -> (Vec<u8>, cocoon_protocol::AnswerOpener) {
    let more = r#","n":8,"logprobs":true,"top_logprobs":20,"stream":true,"temperature":2,"max_tokens":400"#;
    let budget = Budget { prompt_tokens: 400, completion_tokens: 3200 };
    let header = RequestHeader { budget, ..header(peer) };
    sealed_at(peer, &header, Endpoint::ChatCompletions, &question("Write about everything.", more))
}

#[test]
fn clients_that_read_or_send_a_byte_a_second_end_with_words_and_others_go_on() {
    let guest = roomy();
    let peer = guest.trusted();
    let began = Instant::now();
    beside_streams(&guest, &peer, || {
        // One that sends slowly: its place is free again after half a minute.
        let (wire, _) = sealed(&peer, &header(&peer), &question("Hi", ""));
        let half = http::begin(&guest.socket(), "/v1/answers", &wire);
        // One that reads slowly: its answer stands still, is given up, and says so to whoever reads on.
        let (wire, opener) = long_answer(&peer);
        let mut slow = guest.send(&wire);
        let mut bytes = slow.bytes(1);
        while began.elapsed() < Duration::from_secs(29) {
            std::thread::sleep(Duration::from_secs(1));
            bytes.extend(slow.bytes(1));
        }
        guest.wait_for("its place is free", |health| health.running <= 1);
        bytes.extend(slow.rest());
        let heard = hear(opener, &http::unchunked(&bytes));
        let (status, error) = heard.error.as_ref().expect("it is told");
        assert_eq!((*status, error["error"]["code"].as_str()), (408, Some("timeout")), "{error}");
        let receipt = heard.receipt().receipt();
        assert_eq!(receipt.outcome, Outcome::Cancelled);
        let run = heard.receipt().opening().run.as_ref().expect("what was written is committed to");
        assert_eq!(run.completion_tokens(), receipt.usage.completion_tokens as usize);
        let late = http::answer(half);
        assert_eq!((late.status, late.code().as_str()), (408, "timeout"));
    });
}
