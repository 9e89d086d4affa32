//! Hugging Face folders that lie: always a clear error, and never a panic.

mod common;

use std::path::{Path, PathBuf};

use cocoon_engine::Model;
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

fn source(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/models/families").join(name)
}

/// A copy of a family's folder.
fn copy(name: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for file in ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"] {
        std::fs::copy(source(name).join(file), folder.path().join(file)).expect("it is copied");
    }
    folder
}

fn refusal(folder: &Path) -> String {
    Model::open(folder).err().expect("it is refused").to_string()
}

fn weights(folder: &Path) -> Vec<u8> {
    std::fs::read(folder.join("model.safetensors")).expect("it is there")
}

/// The header and where the data begins.
fn header(bytes: &[u8]) -> (Value, usize) {
    let length = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
    (serde_json::from_slice(&bytes[8..8 + length]).expect("it is JSON"), 8 + length)
}

/// A safetensors file of a header and data.
fn file(header: &Value, data: &[u8]) -> Vec<u8> {
    let header = header.to_string().into_bytes();
    [&(header.len() as u64).to_le_bytes(), header.as_slice(), data].concat()
}

/// What is said of a folder whose safetensors header was changed.
fn with_header(change: impl FnOnce(&mut Value)) -> String {
    let folder = copy("llama");
    let bytes = weights(folder.path());
    let (mut changed, data) = header(&bytes);
    change(&mut changed);
    std::fs::write(folder.path().join("model.safetensors"), file(&changed, &bytes[data..])).expect("written");
    refusal(folder.path())
}

/// What is said of a folder whose configuration was changed.
fn with_config(name: &str, key: &str, value: Value) -> String {
    let folder = copy(name);
    let path = folder.path().join("config.json");
    let mut config: Value =
        serde_json::from_slice(&std::fs::read(&path).expect("it is there")).expect("JSON");
    config[key] = value;
    std::fs::write(path, config.to_string()).expect("written");
    refusal(folder.path())
}

const NORM: &str = "model.layers.1.input_layernorm.weight";
const UP: &str = "model.layers.0.mlp.up_proj.weight";

#[test]
fn headers_that_lie_are_refused() {
    let folder = copy("llama");
    let bytes = weights(folder.path());
    for (length, expected) in
        [(u64::MAX, "limit"), (1 << 26 | 1, "limit"), (60_000_000, "cut short"), (3, "understood")]
    {
        let mut bytes = bytes.clone();
        bytes[..8].copy_from_slice(&length.to_le_bytes());
        std::fs::write(folder.path().join("model.safetensors"), bytes).expect("written");
        let error = refusal(folder.path());
        assert!(error.contains(expected), "{length}: {error}");
    }
    for length in [0, 7, 8, 100, bytes.len() - 1] {
        std::fs::write(folder.path().join("model.safetensors"), &bytes[..length]).expect("written");
        assert!(refusal(folder.path()).contains("cut short"), "cut at {length}");
    }
}

#[test]
fn tensors_that_lie_are_refused_by_name() {
    let cases: [(&str, Value, &str); 7] = [
        ("shape", json!([65]), "not the size of its data"),
        ("shape", json!([u64::MAX, u64::MAX]), "not the size of its data"),
        ("shape", json!([1, 1, 1, 1, 64]), "limit"),
        ("data_offsets", json!([128, 0]), "ends before it begins"),
        ("data_offsets", json!([u64::MAX - 128, u64::MAX]), "cut short"),
        ("data_offsets", json!([0]), "cannot be understood"),
        ("dtype", json!("F8_E4M3"), "F8_E4M3"),
    ];
    for (key, value, expected) in cases {
        let error = with_header(|header| header[NORM][key] = value.clone());
        assert!(error.contains(NORM) && error.contains(expected), "{key} = {value}: {error}");
    }
    let error = with_header(|header| {
        header.as_object_mut().expect("an object").remove(UP);
    });
    assert!(error.contains("lacks the tensor blk.0.ffn_up.weight"), "{error}");
    let error = with_header(|header| header["model.layers.0.self_attn.q_proj.bias"] = header[NORM].clone());
    assert!(error.contains("does not use: model.layers.0.self_attn.q_proj.bias"), "{error}");
    let error = with_header(|header| {
        let shape = header[UP]["shape"].as_array_mut().expect("a shape");
        shape.swap(0, 1);
    });
    assert!(error.contains("blk.0.ffn_up.weight") && error.contains("configuration says"), "{error}");
    // All tensors over the largest: more memory than the file has bytes.
    let error = with_header(|header| {
        for n in 0..40 {
            header[format!("copy{n}")] = header["model.embed_tokens.weight"].clone();
        }
    });
    assert!(error.contains("overlap"), "{error}");
}

#[test]
fn weights_that_are_not_numbers_are_refused_by_name() {
    for (tensor, new) in [(NORM, "blk.1.attn_norm.weight"), (UP, "blk.0.ffn_up.weight")] {
        let folder = copy("llama");
        let mut bytes = weights(folder.path());
        let (header, data) = header(&bytes);
        let start = header[tensor]["data_offsets"][0].as_u64().expect("an offset") as usize;
        bytes[data + start..data + start + 2].copy_from_slice(&0x7e00u16.to_le_bytes());
        std::fs::write(folder.path().join("model.safetensors"), bytes).expect("written");
        let error = refusal(folder.path());
        assert!(error.contains(new) && error.contains("not a finite number"), "{error}");
    }
}

#[test]
fn configurations_that_are_not_known_are_refused() {
    let cases: [(&str, &str, Value, &str); 11] = [
        ("llama", "model_type", json!("mamba"), "mamba"),
        ("llama", "hidden_act", json!("relu"), "relu"),
        ("llama", "num_hidden_layers", json!(4_000_000_000u64), "limit"),
        ("llama", "num_attention_heads", json!(0), "is 0"),
        ("llama", "num_hidden_layers", json!(1), "does not use"),
        ("llama", "vocab_size", json!(u64::MAX), "embd"),
        ("llama", "vocab_size", json!(10), "limit"),
        ("llama", "sliding_window", json!(16), "window of 16"),
        ("llama", "rope_parameters", json!({"rope_type": "yarn", "rope_theta": 1e4}), "yarn"),
        ("gemma3", "final_logit_softcapping", json!(30.0), "softcapping"),
        ("gemma3", "layer_types", json!(["full_attention"]), "pattern"),
    ];
    for (name, key, value, expected) in cases {
        let error = with_config(name, key, value.clone());
        assert!(
            error.contains(expected) || key == "vocab_size" && error.contains("limit"),
            "{key} = {value}: {error}"
        );
    }
}

#[test]
fn a_model_in_several_files_is_the_model_in_one() {
    let folder = copy("qwen3");
    let bytes = weights(folder.path());
    let (all, data) = header(&bytes);
    let (mut map, mut parts) = (serde_json::Map::new(), [json!({}), json!({})]);
    let mut blobs = [Vec::new(), Vec::new()];
    for (index, (name, tensor)) in all.as_object().expect("an object").iter().enumerate() {
        if name == "__metadata__" {
            continue;
        }
        let offset = |nth: usize| data + tensor["data_offsets"][nth].as_u64().expect("an offset") as usize;
        let (part, start) = (index % 2, blobs[index % 2].len());
        blobs[part].extend_from_slice(&bytes[offset(0)..offset(1)]);
        parts[part][name] = tensor.clone();
        parts[part][name]["data_offsets"] = json!([start, blobs[part].len()]);
        map.insert(name.clone(), json!(format!("model-{part}.safetensors")));
    }
    for part in 0..2 {
        let path = folder.path().join(format!("model-{part}.safetensors"));
        std::fs::write(path, file(&parts[part], &blobs[part])).expect("written");
    }
    std::fs::remove_file(folder.path().join("model.safetensors")).expect("removed");
    let index = folder.path().join("model.safetensors.index.json");
    std::fs::write(&index, json!({"metadata": {}, "weight_map": map}).to_string()).expect("written");
    let prompt: Vec<u32> = (40..90).collect();
    let hash = |path: &Path| {
        let model = std::sync::Arc::new(Model::open(path).expect("it loads"));
        let engine = common::engine_on(model, 1, cocoon_engine::InstructionSet::detect());
        let (mut bits, mut sequence) = (common::Bits::new(), engine.sequence(60));
        sequence.prefill_visiting(&prompt, |logits| bits.take(logits)).expect("fits");
        bits
    };
    assert_eq!(hash(folder.path()), hash(&source("qwen3")));

    let evil = map.iter().map(|(name, _)| (name.clone(), json!("../model.safetensors"))).collect::<Value>();
    std::fs::write(&index, json!({"weight_map": evil}).to_string()).expect("written");
    assert!(refusal(folder.path()).contains("../model.safetensors"));
    std::fs::write(&index, json!({"weight_map": {}}).to_string()).expect("written");
    assert!(refusal(folder.path()).contains("number of its files"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Some bytes of any of the files, at random: an error or a model, but no panic.
    #[test]
    fn random_damage_never_panics(which in 0usize..3, edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let folder = copy("phi3");
        let path = folder.path().join(["config.json", "tokenizer.json", "model.safetensors"][which]);
        let mut bytes = std::fs::read(&path).expect("it is there");
        let end = bytes.len().min(6000);
        for (at, value) in edits {
            bytes[at.index(end)] = value;
        }
        std::fs::write(path, bytes).expect("written");
        let _ = Model::open(folder.path());
    }
}
