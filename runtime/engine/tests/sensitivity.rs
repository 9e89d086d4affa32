//! What the fixtures of `families` would notice: each thing that a family computes, changed a little in its GGUF, moves
//! logits by more than the tolerance that they are held to. A change here that moves nothing is one that an oracle would
//! not have seen.

mod common;

use std::{path::PathBuf, sync::Arc};

use cocoon_engine::{InstructionSet, Model};
use common::engine_on;
use serde_json::Value;

/// As `families` has it, in units of the logits' deviation.
const TOLERANCE: f32 = 0.004;

fn bytes(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/models/families");
    std::fs::read(path.join(format!("{name}.gguf"))).expect("it lies in the repository")
}

fn tokens(name: &str) -> Vec<u32> {
    let all: Value = serde_json::from_str(include_str!("fixtures/families.json")).expect("it is JSON");
    serde_json::from_value(all[name]["tokens"].clone()).expect("tokens")
}

/// The logits at the positions that the fixtures hold.
fn logits(name: &str, bytes: Vec<u8>) -> Vec<f32> {
    let engine =
        engine_on(Arc::new(Model::from_bytes(bytes).expect("it loads")), 1, InstructionSet::detect());
    let (tokens, mut all) = (tokens(name), Vec::new());
    let mut sequence = engine.sequence(tokens.len());
    sequence.prefill_visiting(&tokens, |logits| all.push(logits.to_vec())).expect("fits");
    [0, 40, 99].into_iter().flat_map(|at| all[at].clone()).collect()
}

fn after(bytes: &[u8], name: &str) -> usize {
    let needle = [&(name.len() as u64).to_le_bytes(), name.as_bytes()].concat();
    bytes.windows(needle.len()).position(|it| it == needle).unwrap_or_else(|| panic!("no {name}"))
        + needle.len()
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// Where a tensor's data lies, and how many bytes it has until the next one.
fn data(bytes: &[u8], tensor: &str) -> usize {
    // The directory ends where the last entry does: the one with the largest place in the file's head.
    let entry = |name: &str| {
        let at = after(bytes, name);
        let dimensions = u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes")) as usize;
        at + 4 + 8 * dimensions + 4
    };
    let names = ["output_norm.weight", "token_embd.weight", "rope_freqs.weight", "blk.0.ffn_down.weight"];
    let last = (0..8)
        .flat_map(|layer| PARTS.map(|part| format!("blk.{layer}.{part}")))
        .chain(names.map(str::to_owned))
        .chain(["output.weight".to_owned()])
        .filter(|name| has(bytes, name))
        .map(|name| entry(&name) + 8)
        .max()
        .expect("there are some");
    last.next_multiple_of(32) + word(bytes, entry(tensor)) as usize
}

const PARTS: [&str; 16] = [
    "attn_norm.weight",
    "attn_q.weight",
    "attn_k.weight",
    "attn_v.weight",
    "attn_q.bias",
    "attn_k.bias",
    "attn_v.bias",
    "attn_q_norm.weight",
    "attn_k_norm.weight",
    "attn_qkv.weight",
    "attn_output.weight",
    "post_attention_norm.weight",
    "ffn_norm.weight",
    "ffn_up.weight",
    "ffn_down.weight",
    "post_ffw_norm.weight",
];

fn has(bytes: &[u8], name: &str) -> bool {
    let needle = [&(name.len() as u64).to_le_bytes(), name.as_bytes()].concat();
    bytes.windows(needle.len()).any(|it| it == needle)
}

/// One thing of a file that is another.
enum Change {
    /// A number of the metadata, of four bytes: a float times this.
    Float(&'static str, f32),
    /// The same for a whole number: this one.
    Whole(&'static str, u32),
    /// The numbers of a vector in single precision become this.
    Vector(&'static str, usize, f32),
    /// One of them is multiplied by this.
    One(&'static str, usize, f32),
}

fn changed(name: &str, change: &Change) -> Vec<u8> {
    let mut bytes = bytes(name);
    let float =
        |bytes: &[u8], at: usize| f32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    match change {
        Change::Float(key, factor) => {
            let at = after(&bytes, &format!("{name}.{key}")) + 4;
            let new = float(&bytes, at) * factor;
            bytes[at..at + 4].copy_from_slice(&new.to_le_bytes());
        }
        Change::Whole(key, new) => {
            let at = after(&bytes, &format!("{name}.{key}")) + 4;
            assert_ne!(&bytes[at..at + 4], new.to_le_bytes());
            bytes[at..at + 4].copy_from_slice(&new.to_le_bytes());
        }
        Change::Vector(tensor, length, new) => {
            let at = data(&bytes, tensor);
            (0..*length).for_each(|n| bytes[at + 4 * n..at + 4 * n + 4].copy_from_slice(&new.to_le_bytes()));
        }
        Change::One(tensor, nth, factor) => {
            let at = data(&bytes, tensor) + 4 * nth;
            let new = float(&bytes, at) * factor;
            bytes[at..at + 4].copy_from_slice(&new.to_le_bytes());
        }
    }
    bytes
}

#[test]
fn whatever_a_family_computes_shows_in_its_fixture() {
    use Change::{Float, One, Vector, Whole};
    let cases: [(&str, Change); 27] = [
        ("llama", Float("rope.freq_base", 1.5)),
        ("llama", Float("attention.layer_norm_rms_epsilon", 3e4)),
        ("llama", One("rope_freqs.weight", 3, 1.3)),
        ("llama", Vector("rope_freqs.weight", 8, 1.0)),
        ("llama", Vector("blk.1.ffn_norm.weight", 64, 1.0)),
        ("llama", Vector("output_norm.weight", 64, 1.0)),
        ("qwen2", Float("rope.freq_base", 1.5)),
        ("qwen2", Vector("blk.0.attn_q.bias", 64, 0.0)),
        ("qwen2", Vector("blk.1.attn_k.bias", 32, 0.0)),
        ("qwen2", Vector("blk.0.attn_v.bias", 32, 0.0)),
        ("qwen3", Float("rope.freq_base", 1.5)),
        ("qwen3", Vector("blk.0.attn_q_norm.weight", 32, 1.0)),
        ("qwen3", Vector("blk.1.attn_k_norm.weight", 32, 1.0)),
        ("gemma3", Float("attention.scale", 0.9)),
        ("gemma3", Float("rope.freq_base", 0.2)),
        ("gemma3", Float("rope.scaling.factor", 0.5)),
        ("gemma3", Whole("attention.sliding_window", 25)),
        ("gemma3", Whole("attention.sliding_window", 23)),
        ("gemma3", Vector("blk.3.post_attention_norm.weight", 32, 1.0)),
        ("gemma3", Vector("blk.5.post_ffw_norm.weight", 32, 1.0)),
        ("gemma3", Vector("blk.2.attn_q_norm.weight", 32, 1.0)),
        ("gemma3", Vector("blk.5.attn_k_norm.weight", 32, 1.0)),
        ("phi3", Float("rope.freq_base", 1.5)),
        ("phi3", Float("rope.scaling.attn_factor", 1.02)),
        ("phi3", Whole("attention.sliding_window", 49)),
        ("phi3", Whole("attention.sliding_window", 47)),
        ("phi3", One("rope_factors_long.weight", 1, 1.4)),
    ];
    let mut unseen = Vec::new();
    for (name, change) in &cases {
        let (sound, other) = (logits(name, bytes(name)), logits(name, changed(name, change)));
        let deviation = (sound.iter().map(|value| value * value).sum::<f32>() / sound.len() as f32).sqrt();
        let moved = sound.iter().zip(&other).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / deviation;
        let what = match change {
            Float(key, factor) => format!("{name}: {key} times {factor}"),
            Whole(key, new) => format!("{name}: {key} {new}"),
            Vector(tensor, _, new) => format!("{name}: {tensor} all {new}"),
            One(tensor, nth, factor) => format!("{name}: {tensor} {nth} times {factor}"),
        };
        println!("{what} moves logits by {moved:.4}");
        if moved < 3.0 * TOLERANCE {
            unseen.push(what);
        }
    }
    assert!(unseen.is_empty(), "an oracle would not have seen these:\n{}", unseen.join("\n"));
    let fewer = changed("phi3", &Whole("rope.dimension_count", 6));
    assert!(Model::from_bytes(fewer).is_err(), "its factors are as many as its pairs");
}
