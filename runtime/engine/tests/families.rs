//! Each family's small random model against what transformers computes in single precision (`scripts/oracle/families.py`),
//! and with the same bits everywhere.

mod common;

use std::{path::PathBuf, sync::Arc};

use cocoon_engine::{Engine, InstructionSet, Model};
use common::{Bits, engine_on, sets};
use serde_json::Value;

const NAMES: [&str; 5] = ["llama", "qwen2", "qwen3", "gemma3", "phi3"];

/// Weights are halves or bfloat16 and exact, and so are activations here; keys and values are rounded to halves. That
/// moves logits, whose standard deviation is 1.2 to 8.5, by up to 0.0019 of it.
const TOLERANCE: f32 = 0.004;

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/models/families").join(name)
}

fn gguf(name: &str) -> Arc<Model> {
    Arc::new(Model::open(&path(&format!("{name}.gguf"))).expect("the model loads"))
}

fn folder(name: &str) -> Arc<Model> {
    Arc::new(Model::open(&path(name)).expect("the model loads"))
}

fn fixture(name: &str) -> Value {
    let all: Value = serde_json::from_str(include_str!("fixtures/families.json")).expect("it is JSON");
    all[name].clone()
}

fn tokens(fixture: &Value) -> Vec<u32> {
    let list = fixture["tokens"].as_array().expect("a list");
    list.iter().map(|token| token.as_u64().expect("a token") as u32).collect()
}

/// All logits of the prompt.
fn logits(engine: &Engine, tokens: &[u32], pieces: usize) -> Vec<Vec<f32>> {
    let mut all = Vec::new();
    let mut sequence = engine.sequence(tokens.len());
    for piece in tokens.chunks(pieces) {
        sequence.prefill_visiting(piece, |logits| all.push(logits.to_vec())).expect("fits");
    }
    all
}

fn agrees_with_transformers(name: &str, model: Arc<Model>) {
    let fixture = fixture(name);
    let engine = engine_on(model, 1, InstructionSet::detect());
    let found = logits(&engine, &tokens(&fixture), 64);
    let shown = fixture["logits"].as_object().expect("positions");
    let (mut worst, mut squares, mut count) = (0.0f32, 0.0, 0.0);
    for (at, expected) in shown {
        let found = &found[at.parse::<usize>().expect("a position")];
        let expected = expected.as_array().expect("logits");
        assert_eq!(found.len(), expected.len(), "{name}");
        for (found, expected) in found.iter().zip(expected) {
            let expected = expected.as_f64().expect("a number") as f32;
            worst = worst.max((found - expected).abs());
            squares += expected * expected;
            count += 1.0;
        }
    }
    let deviation = (squares / count).sqrt();
    println!("{name}: logits differ by up to {:.5} of their deviation", worst / deviation);
    assert!(worst < TOLERANCE * deviation, "{name}: {worst} of {deviation}");
    let margins = fixture["margins"].as_array().expect("margins");
    let likeliest = fixture["likeliest"].as_array().expect("tokens");
    assert_eq!(likeliest.len(), found.len());
    for (at, logits) in found.iter().enumerate() {
        let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).expect("a vocabulary").0;
        let near = margins[at].as_f64().expect("a margin") < f64::from(2.0 * TOLERANCE * deviation);
        assert!(near || likeliest[at].as_u64() == Some(best as u64), "{name}: position {at}");
    }
}

fn same_bits_everywhere(name: &str) {
    let (model, prompt) = (gguf(name), tokens(&fixture(name)));
    let mut expected = None;
    for set in sets() {
        for (threads, pieces) in [(1, 100), (2, 7), (2, 1)] {
            let mut bits = Bits::new();
            let engine = engine_on(Arc::clone(&model), threads, set);
            logits(&engine, &prompt, pieces).iter().for_each(|logits| bits.take(logits));
            let expected = *expected.get_or_insert(bits);
            assert_eq!(bits, expected, "{name}, {}, {threads} threads, pieces of {pieces}", set.name());
        }
    }
}

#[test]
fn every_family_in_gguf_agrees_with_transformers() {
    NAMES.into_iter().for_each(|name| agrees_with_transformers(name, gguf(name)));
}

#[test]
fn every_family_gives_the_same_bits_everywhere() {
    NAMES.into_iter().for_each(same_bits_everywhere);
}

#[test]
fn every_family_in_a_folder_gives_the_bits_of_its_gguf() {
    for name in NAMES {
        let (gguf, folder) = (gguf(name), folder(name));
        assert_eq!(gguf.parameters(), folder.parameters() + rope_factors(name));
        assert_eq!(gguf.vocab_size(), folder.vocab_size());
        assert_eq!(gguf.tokenizer().end_tokens(), folder.tokenizer().end_tokens());
        let prompt = tokens(&fixture(name));
        let hash = |model| {
            let mut bits = Bits::new();
            let engine = engine_on(model, 2, InstructionSet::detect());
            logits(&engine, &prompt, 33).iter().for_each(|logits| bits.take(logits));
            bits
        };
        assert_eq!(hash(gguf), hash(folder), "{name}");
    }
}

/// Factors that GGUF stores as tensors, and a folder in its configuration.
fn rope_factors(name: &str) -> u64 {
    match name {
        "llama" | "phi3" => 8,
        _ => 0,
    }
}
