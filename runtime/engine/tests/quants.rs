//! A small random model of Q4_K, Q5_K, Q6_K and Q5_0 against a reference in numpy (`scripts/oracle/quants.py`), and with the
//! same bits everywhere.

mod common;

use std::{path::PathBuf, sync::Arc};

use cocoon_engine::{InstructionSet, Model};
use common::{Bits, engine_on, sets};
use serde_json::Value;

/// Activations are rounded to int8, and keys and values to halves, on both sides. What is left, the order of sums, moves
/// logits, whose standard deviation is 1.3, by 0.00006; a single activation at another of its 255 steps would by 0.01.
const TOLERANCE: f32 = 0.001;

fn model() -> Arc<Model> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/models/families/quants.gguf");
    Arc::new(Model::open(&path).expect("the model loads"))
}

fn fixture() -> (Vec<u32>, Value) {
    let all: Value = serde_json::from_str(include_str!("fixtures/quants.json")).expect("it is JSON");
    (serde_json::from_value(all["tokens"].clone()).expect("tokens"), all["chances"].clone())
}

/// All logits of the prompt.
fn logits(threads: usize, set: InstructionSet, pieces: usize) -> Vec<Vec<f32>> {
    let (tokens, engine, mut all) = (fixture().0, engine_on(model(), threads, set), Vec::new());
    let mut sequence = engine.sequence(tokens.len());
    for piece in tokens.chunks(pieces) {
        sequence.prefill_visiting(piece, |logits| all.push(logits.to_vec())).expect("fits");
    }
    all
}

#[test]
fn quantised_formats_agree_with_the_reference() {
    let found = logits(2, InstructionSet::detect(), 100);
    let (_, chances) = fixture();
    let mut worst = 0.0f32;
    for (at, expected) in chances.as_object().expect("positions") {
        let found = &found[at.parse::<usize>().expect("a position")];
        let expected: Vec<f32> = serde_json::from_value(expected.clone()).expect("numbers");
        // The logarithms of chances are logits less one number.
        let least = found.iter().zip(&expected).map(|(found, expected)| found - expected).sum::<f32>();
        let least = least / found.len() as f32;
        for (found, expected) in found.iter().zip(&expected) {
            worst = worst.max((found - least - expected).abs());
        }
    }
    println!("logits differ by up to {worst}");
    assert!(worst < TOLERANCE, "{worst}");
}

#[test]
fn quantised_formats_give_the_same_bits_everywhere() {
    let mut expected = None;
    for set in sets() {
        for (threads, pieces) in [(1, 100), (2, 7), (3, 1), (1, 9)] {
            let mut bits = Bits::new();
            logits(threads, set, pieces).iter().for_each(|logits| bits.take(logits));
            let expected = *expected.get_or_insert(bits);
            assert_eq!(bits, expected, "{}, {threads} threads, pieces of {pieces}", set.name());
        }
    }
}
