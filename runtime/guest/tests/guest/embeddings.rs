//! A guest whose model makes vectors: the same bits as the engine's, billed and receipted as text is, in turn with others.

use crate::common::{Running, Setup, config, header, question, sealed_at, sha256};
use crate::http;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use cocoon_attestation::Trusted;
use cocoon_engine::{Embedder, EngineOptions, pack};
use cocoon_protocol::http::{LANE_HEADER, SEALED};
use cocoon_protocol::{
    AnswerEvent, AnswerOpener, Budget, Endpoint, Meter, Outcome, RequestHeader, Usage, VectorsHash,
    VerifiedReceipt,
};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/models/families/bert")
}

fn archive() -> Vec<u8> {
    let mut bytes = Vec::new();
    pack(&folder(), &mut bytes).expect("the small encoder is packed");
    bytes
}

fn serving(model: Vec<u8>) -> Setup {
    let weights = sha256(&model);
    Setup { config: config(2, 4, &weights), model, ..Setup::new() }
}

fn embedder() -> Embedder {
    Embedder::open(&folder(), &EngineOptions::with_threads(1)).expect("it loads")
}

/// With room for so many tokens.
fn with(peer: &Trusted, prompt_tokens: u32) -> RequestHeader {
    RequestHeader { budget: Budget { prompt_tokens, completion_tokens: 0 }, ..header(peer) }
}

/// What a client puts together of an answer.
struct Embedded {
    whole: Vec<u8>,
    pieces: usize,
    error: Option<(u16, Value)>,
    receipt: VerifiedReceipt,
}

impl Embedded {
    fn hear(mut opener: AnswerOpener, wire: &[u8]) -> Self {
        let (mut whole, mut pieces, mut error) = (Vec::new(), 0, None);
        for (event, _) in opener.push(wire).expect("an honest answer") {
            match event {
                AnswerEvent::Chunk(part) => {
                    whole.extend_from_slice(part.expose());
                    pieces += 1;
                }
                AnswerEvent::Error { status, body } => {
                    error = Some((status, serde_json::from_slice(body.expose()).expect("OpenAI JSON")));
                }
                AnswerEvent::Tick | AnswerEvent::End { .. } => {}
            }
        }
        Self { whole, pieces, error, receipt: opener.finish().expect("the receipt holds") }
    }

    fn object(&self) -> Value {
        assert!(self.error.is_none(), "{:?}", self.error);
        serde_json::from_slice(&self.whole).expect("all parts together are JSON")
    }

    fn usage(&self) -> Usage {
        self.receipt.receipt().usage
    }
}

fn ask(guest: &Running, peer: &Trusted, budget: u32, body: &Value) -> Embedded {
    let (wire, opener) = sealed_at(peer, &with(peer, budget), Endpoint::Embeddings, &body.to_string());
    let reply = guest.send(&wire).whole();
    assert_eq!(reply.status, 200, "{}", reply.text());
    Embedded::hear(opener, &reply.body)
}

fn floats(value: &Value) -> Vec<f32> {
    serde_json::from_value(value.clone()).expect("numbers")
}

#[test]
fn vectors_are_the_engines_to_the_bit_and_billed_by_their_tokens() {
    let guest = serving(archive()).start();
    let peer = guest.trusted();
    let engine = embedder();
    let texts = ["A list", "a tuple, and more than that", "ein Wörterbuch"];
    let expected: Vec<_> = texts.iter().map(|text| engine.embed(text).expect("it fits")).collect();
    let tokens: usize = expected.iter().map(|embedding| embedding.tokens()).sum();

    let heard = ask(&guest, &peer, 400, &json!({"model": "tiny", "input": texts}));
    let object = heard.object();
    assert_eq!((&object["object"], &object["model"]), (&json!("list"), &json!("tiny")));
    for (index, embedding) in expected.iter().enumerate() {
        let item = &object["data"][index];
        assert!(item["index"] == index && floats(&item["embedding"]) == embedding.values(), "{index}");
    }
    assert_eq!(object["usage"], json!({"prompt_tokens": tokens, "total_tokens": tokens}));
    let usage = heard.usage();
    assert_eq!((usage.prompt_tokens as usize, usage.cached_tokens, usage.completion_tokens), (tokens, 0, 0));
    let receipt = heard.receipt.receipt();
    assert_eq!((receipt.outcome, receipt.model), (Outcome::Stop, guest.setup.weights()));
    assert_eq!(receipt.bill(), tokens as u64, "a million nanotons a million tokens");

    // The opening has what is needed to make them again.
    let opening = heard.receipt.opening();
    let kept = opening.vectors.as_ref().expect("an engine of ours made them");
    assert!(opening.run.is_none() && kept.inputs[0][..] == engine.tokens(texts[0])[..]);
    let mut hash = VectorsHash::default();
    expected.iter().for_each(|embedding| hash.add(embedding.values()));
    assert_eq!(kept.vectors, hash.finish());

    // As base64, and from tokens, it is the same.
    let input: Vec<Vec<u32>> = texts.iter().map(|text| engine.tokens(text)).collect();
    let body = json!({"input": input, "encoding_format": "base64", "dimensions": engine.dimensions()});
    let object = ask(&guest, &peer, 400, &body).object();
    for (index, embedding) in expected.iter().enumerate() {
        let text = object["data"][index]["embedding"].as_str().expect("base64");
        let bytes: Vec<u8> = embedding.values().iter().flat_map(|number| number.to_le_bytes()).collect();
        assert!(BASE64_STANDARD.decode(text).expect("base64") == bytes, "{index}");
    }
    let single = ask(&guest, &peer, 400, &json!({"input": input[0]})).object();
    assert_eq!(floats(&single["data"][0]["embedding"]), expected[0].values());
}

#[test]
fn one_thing_too_many_is_refused_in_openais_shape_and_costs_nothing() {
    let guest = serving(archive()).start();
    let peer = guest.trusted();
    let long = "word ".repeat(200);
    for (input, code, says) in [
        (json!(["a", long]), "context_length_exceeded", "input 1 has "),
        (json!(vec![vec![5; 151]]), "context_length_exceeded", "this model reads 150"),
        (json!([[5], [704]]), "invalid_value", "the token 704"),
        (json!(vec!["a"; 2049]), "invalid_value", "2048"),
        (json!(vec![vec![5; 150]; 1748]), "max_tokens_per_request", "262144"),
        (json!(["a", ""]), "invalid_value", "empty"),
        (json!([]), "invalid_value", "input"),
        (json!({"text": "a"}), "invalid_type", "input"),
    ] {
        let heard = ask(&guest, &peer, u32::MAX, &json!({"input": input}));
        let (status, error) = heard.error.as_ref().expect("it is refused");
        let error = &error["error"];
        assert_eq!(
            (*status, error["code"].as_str(), error["param"].as_str()),
            (400, Some(code), Some("input")),
            "{error}"
        );
        assert_eq!(error["type"], "invalid_request_error");
        assert!(error["message"].as_str().expect("text").contains(says), "{error}");
        assert_eq!((heard.receipt.receipt().outcome, heard.receipt.receipt().bill()), (Outcome::Error, 0));
        assert!(heard.receipt.opening().vectors.is_none());
    }
    let code = |heard: &Embedded| heard.error.as_ref().map(|(_, error)| error["error"]["code"].clone());
    assert_eq!(
        code(&ask(&guest, &peer, 3, &json!({"input": "a list of things"}))),
        Some(json!("budget_exceeded"))
    );
    let fitting = embedder().tokens("a list").len() as u32;
    assert_eq!(code(&ask(&guest, &peer, fitting, &json!({"input": "a list"}))), None);

    for endpoint in [Endpoint::ChatCompletions, Endpoint::Completions, Endpoint::Responses] {
        let heard = guest.ask_at(&peer, &header(&peer), endpoint, &question("Hi", ""));
        let (status, error) = heard.error.as_ref().expect("it writes no text");
        assert_eq!((*status, error["error"]["code"].as_str()), (400, Some("unsupported_endpoint")));
        assert_eq!(
            (heard.receipt().receipt().outcome, heard.receipt().receipt().bill()),
            (Outcome::Error, 0)
        );
    }
}

#[test]
fn many_inputs_come_in_parts_and_their_usage_is_shown_as_it_grows() {
    let guest = serving(archive()).start();
    let peer = guest.trusted();
    let header = with(&peer, 1 << 18);
    let body = json!({"input": vec!["a list and a tuple"; 2048]}).to_string();
    let (wire, opener) = sealed_at(&peer, &header, Endpoint::Embeddings, &body);
    let mut stream = guest.send(&wire);
    let (mut meter, mut seen, mut answer) = (Meter::new(&header), Vec::new(), Vec::new());
    while let Some(chunk) = stream.chunk() {
        meter.push(&chunk).expect("within the budget");
        seen.push(meter.usage().prompt_tokens);
        answer.extend(chunk);
    }
    let heard = Embedded::hear(opener, &answer);
    let each = embedder().tokens("a list and a tuple").len() as u32;
    assert_eq!((heard.usage().prompt_tokens, seen.last()), (2048 * each, Some(&(2048 * each))));
    seen.dedup();
    assert!(heard.pieces > 5 && seen.len() > 5, "{} pieces, {} states of usage", heard.pieces, seen.len());
    let object = heard.object();
    let data = object["data"].as_array().expect("a list");
    assert!(data.len() == 2048 && data.iter().all(|item| item["embedding"] == data[0]["embedding"]));
}

/// A request that takes a while: nearly as many tokens as there may be.
fn long() -> String {
    json!({"input": vec![vec![5; 150]; 1740]}).to_string()
}

#[test]
fn a_client_that_leaves_pays_for_no_more_than_was_read() {
    let guest = serving(archive()).start();
    let peer = guest.trusted();
    let (wire, _) = sealed_at(&peer, &with(&peer, 1 << 18), Endpoint::Embeddings, &long());
    let mut stream = guest.send(&wire);
    assert!(stream.chunk().is_some());
    drop(stream);
    guest.wait_for("idle", |health| (health.running, health.queued) == (0, 0));
    assert!(ask(&guest, &peer, 400, &json!({"input": "a"})).error.is_none());
    let (_, log) = guest.end();
    assert!(log.contains("outcome=Cancelled"), "{log}");
}

#[test]
fn a_small_request_of_another_payer_does_not_wait_for_a_large_one() {
    let guest = serving(archive()).start();
    let peer = guest.trusted();
    std::thread::scope(|scope| {
        let (wire, opener) = sealed_at(&peer, &with(&peer, 1 << 18), Endpoint::Embeddings, &long());
        let large = scope.spawn({
            let guest = &guest;
            // The host names the payer in a header of its own.
            let kind = format!("{SEALED}\r\n{LANE_HEADER}: large");
            move || http::send(&guest.socket(), "POST", "/v1/answers", &kind, &wire).whole()
        });
        guest.wait_for("it is read", |health| health.running == 1);
        for _ in 0..3 {
            assert!(ask(&guest, &peer, 400, &json!({"input": "a list"})).error.is_none());
        }
        assert!(!large.is_finished(), "it was through before the small ones had their turns");
        let heard = Embedded::hear(opener, &large.join().expect("it is answered").body);
        assert_eq!(heard.usage().prompt_tokens, 1740 * 150);
    });
}

#[test]
fn told_to_end_it_ends_what_it_reads_with_a_receipt() {
    let guest = serving(archive()).start();
    let peer = guest.trusted();
    let (wire, opener) = sealed_at(&peer, &with(&peer, 1 << 18), Endpoint::Embeddings, &long());
    let mut stream = guest.send(&wire);
    let mut body = stream.chunk().expect("the preamble");
    guest.wait_for("it is read", |health| health.running == 1);
    let id = rustix::process::Pid::from_child(&guest.child);
    rustix::process::kill_process(id, rustix::process::Signal::TERM).expect("it is our child");
    body.extend(stream.whole().body);
    let heard = Embedded::hear(opener, &body);
    let (outcome, usage) = (heard.receipt.receipt().outcome, heard.usage());
    assert!(outcome == Outcome::Cancelled || usage.prompt_tokens == 0, "{outcome:?} {usage:?}");
    let kept = heard.receipt.opening().vectors.as_ref().map_or(0, |vectors| vectors.inputs.len());
    assert_eq!(
        kept * 150,
        usage.prompt_tokens as usize,
        "what was read is in the opening, as far as it went"
    );
    let (status, log) = guest.end();
    assert!(status.success() && log.contains("told to end"), "{status}\n{log}");
}

#[test]
fn an_archive_that_cannot_be_used_ends_the_boot_with_words() {
    let mut cut = archive();
    cut.truncate(cut.len() - 512);
    let mut other = archive();
    let at = other.windows(6).position(|bytes| bytes == b"\"bert\"").expect("config.json names it");
    other[at + 1..at + 5].copy_from_slice(b"bart");
    for (model, words) in [(cut, "archive"), (other, "bart")] {
        let mut guest = serving(model).launch();
        assert!(!guest.wait().success());
        let log = guest.end().1;
        assert!(log.contains("model.gguf") && log.contains(words), "{log}");
    }
    // And one whose hash is another's.
    let mut setup = serving(archive());
    let last = setup.model.len() - 1;
    setup.model[last] ^= 1;
    let mut guest = setup.launch();
    assert!(!guest.wait().success());
    assert!(guest.end().1.contains("has SHA-256"));
}

#[test]
fn evidence_names_the_model_of_vectors_as_any_other() {
    let guest = serving(archive()).start();
    let peer = guest.trusted();
    assert_eq!(peer.model("tiny").expect("it is served").weights, guest.setup.weights());
    assert_eq!(guest.registers(), guest.setup.predicted());
}
