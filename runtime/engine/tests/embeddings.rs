//! Vectors against those of transformers with sentence-transformers' pooling (`scripts/oracle/embeddings.py`).

mod common;

use std::path::{Path, PathBuf};

use cocoon_engine::{
    AnyModel, Embedder, EngineOptions, GenerateError, InstructionSet, Model, PackError, pack,
};
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

/// What may be between two numbers of a vector of length one.
const TOLERANCE: f32 = 1e-4;

const FILES: [&str; 6] = [
    "config.json",
    "model.safetensors",
    "modules.json",
    "sentence_bert_config.json",
    "tokenizer.json",
    "1_Pooling/config.json",
];

fn small() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/models/families/bert")
}

/// The folder of all-MiniLM-L6-v2, if it was put there; says so where it was not.
fn minilm() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| std::env::home_dir().map(|home| home.join(".cache")))?;
    let path = cache.join("cocoon/models/all-MiniLM-L6-v2");
    if !path.exists() {
        println!(
            "{} not found: nothing was checked (scripts/oracle/embeddings.py says whence)",
            path.display()
        );
        return None;
    }
    Some(path)
}

fn open(path: &Path, threads: usize, set: InstructionSet) -> Embedder {
    let mut options = EngineOptions::with_threads(threads);
    options.instruction_set = Some(set);
    Embedder::open(path, &options).expect("it loads")
}

fn cases(name: &str) -> Vec<Value> {
    let all: Value = serde_json::from_str(include_str!("fixtures/embeddings.json")).expect("it is JSON");
    all[name].as_array().expect("cases").clone()
}

fn floats(value: &Value) -> Vec<f32> {
    serde_json::from_value(value.clone()).expect("numbers")
}

fn agrees(path: &Path, name: &str, key: &str, tolerance: f32) {
    let embedder = open(path, 2, InstructionSet::detect());
    let mut worst = 0.0f32;
    for case in cases(name) {
        let text = case["text"].as_str().expect("text");
        let tokens: Vec<u32> = serde_json::from_value(case["tokens"].clone()).expect("tokens");
        assert_eq!(embedder.tokens(text), tokens, "{text:?}");
        let found = embedder.embed(text).expect("it fits");
        assert_eq!(found.tokens(), tokens.len());
        let expected = floats(&case[key]);
        assert_eq!(found.values().len(), expected.len());
        for (found, expected) in found.values().iter().zip(&expected) {
            worst = worst.max((found - expected).abs());
        }
    }
    println!("{name}: vectors differ by up to {worst:e}");
    assert!(worst < tolerance, "{worst}");
}

/// A copy of the small encoder, with one of its files changed.
fn changed(file: &str, change: impl FnOnce(&mut Value)) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("1_Pooling")).expect("made");
    for name in FILES {
        std::fs::copy(small().join(name), folder.path().join(name)).expect("copied");
    }
    let path = folder.path().join(file);
    let mut value = serde_json::from_slice(&std::fs::read(&path).expect("it is there")).expect("it is JSON");
    change(&mut value);
    std::fs::write(path, value.to_string()).expect("written");
    folder
}

fn refusal(folder: &TempDir) -> String {
    Embedder::open(folder.path(), &EngineOptions::default()).err().expect("it is refused").to_string()
}

#[test]
fn a_small_encoder_agrees_with_transformers() {
    agrees(&small(), "small", "mean", TOLERANCE);
}

#[test]
fn all_minilm_l6_v2_agrees_with_transformers() {
    if let Some(path) = minilm() {
        agrees(&path, "minilm", "mean", TOLERANCE);
    }
}

#[test]
fn the_first_token_alone_is_a_pooling_too() {
    let folder = changed("1_Pooling/config.json", |config| {
        config["pooling_mode_cls_token"] = true.into();
        config["pooling_mode_mean_tokens"] = false.into();
    });
    let without_norm = |modules: &mut Value| {
        modules.as_array_mut().expect("a list").pop();
    };
    let path = folder.path().join("modules.json");
    let mut modules: Value = serde_json::from_slice(&std::fs::read(&path).expect("there")).expect("JSON");
    without_norm(&mut modules);
    std::fs::write(path, modules.to_string()).expect("written");
    agrees(folder.path(), "small", "first", 1e-3); // these are up to three
}

#[test]
fn vectors_have_the_same_bits_everywhere() {
    let mut expected = None;
    for set in common::sets() {
        for threads in [1, 3] {
            let (embedder, mut bits) = (open(&small(), threads, set), common::Bits::new());
            for case in cases("small") {
                let text = case["text"].as_str().expect("text");
                bits.take(embedder.embed(text).expect("it fits").values());
            }
            let expected = *expected.get_or_insert(bits);
            assert_eq!(bits, expected, "{}, {threads} threads", set.name());
        }
    }
}

#[test]
fn texts_of_several_threads_do_not_touch_each_other() {
    let embedder = open(&small(), 2, InstructionSet::detect());
    let alone: Vec<Vec<f32>> =
        (0..6).map(|n| embedder.embed(&"word ".repeat(n * 9)).expect("fits").values().to_vec()).collect();
    std::thread::scope(|scope| {
        let embedder = &embedder;
        let runs: Vec<_> = (0..6)
            .map(|n| {
                scope.spawn(move || embedder.embed(&"word ".repeat(n * 9)).expect("fits").values().to_vec())
            })
            .collect();
        for (run, alone) in runs.into_iter().zip(alone) {
            assert_eq!(run.join().expect("ran"), alone);
        }
    });
}

#[test]
fn what_does_not_fit_or_is_not_known_is_refused() {
    let embedder = open(&small(), 1, InstructionSet::detect());
    let outcome = |tokens: &[u32]| embedder.embed_tokens(tokens).err();
    assert_eq!(embedder.max_tokens(), 150);
    assert_eq!(outcome(&[2; 150]), None);
    assert_eq!(outcome(&[2; 151]), Some(GenerateError::ContextOverflow { tokens: 151, context: 150 }));
    assert_eq!(outcome(&[]), Some(GenerateError::EmptyPrompt));
    assert_eq!(outcome(&[704]), Some(GenerateError::UnknownToken { token: 704, vocab_size: 704 }));
}

#[test]
fn folders_that_are_not_known_are_refused() {
    let cases: [(&str, &str, Value, &str); 9] = [
        ("config.json", "/model_type", json!("roberta"), "roberta"),
        ("config.json", "/hidden_act", json!("relu"), "relu"),
        ("config.json", "/num_attention_heads", json!(3), "heads"),
        ("config.json", "/num_hidden_layers", json!(u64::MAX), "limit"),
        ("config.json", "/num_hidden_layers", json!(1), "does not use"),
        ("config.json", "/max_position_embeddings", json!(161), "position_embeddings"),
        ("modules.json", "/1/path", json!("../1_Pooling"), "../1_Pooling"),
        ("modules.json", "/2/type", json!("sentence_transformers.models.Dense"), "Dense"),
        ("1_Pooling/config.json", "/pooling_mode_cls_token", json!(true), "pooling"),
    ];
    for (file, key, value, expected) in cases {
        let folder = changed(file, |content| *content.pointer_mut(key).expect("it is there") = value.clone());
        let error = refusal(&folder);
        assert!(error.contains(expected), "{key} = {value}: {error}");
    }
}

fn packed(folder: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    pack(folder, &mut bytes).expect("it is packed");
    bytes
}

#[test]
fn an_archive_is_the_model_of_its_folder() {
    let folder = changed("config.json", |_| {});
    let archive = packed(folder.path());
    // What no reader asks for is not in it, and changes nothing.
    std::fs::write(folder.path().join("README.md"), "of no account").expect("written");
    std::fs::write(folder.path().join("special_tokens_map.json"), "{}").expect("written");
    assert!(packed(folder.path()) == archive);
    let Ok(AnyModel::Vectors(model)) = AnyModel::from_bytes(archive.clone()) else {
        panic!("it makes vectors")
    };
    let (found, expected) =
        (Embedder::new(model, &EngineOptions::with_threads(1)), open(&small(), 1, InstructionSet::detect()));
    assert_eq!(found.max_tokens(), expected.max_tokens());
    let values = |embedder: &Embedder| embedder.embed("a list and a tuple").expect("fits").values().to_vec();
    assert_eq!(values(&found), values(&expected));
    // The same as a file, which is told by its bytes.
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, archive).expect("written");
    assert!(matches!(AnyModel::open(&path), Ok(AnyModel::Vectors(_))));
    assert!(Model::open(&path).err().expect("it writes no text").to_string().contains("bert"));
}

#[test]
fn a_model_that_writes_text_is_packed_too_and_what_is_none_is_not() {
    let families = small().join("..");
    let Ok(AnyModel::Text(model)) = AnyModel::from_bytes(packed(&families.join("llama"))) else {
        panic!("it writes text")
    };
    assert_eq!(model.vocab_size(), Model::open(&families.join("llama")).expect("it loads").vocab_size());
    let tiny = std::fs::read(common::tiny_path()).expect("it is there");
    assert!(matches!(AnyModel::from_bytes(tiny), Ok(AnyModel::Text(_))));
    let refused = |file: &str, change: fn(&mut Value)| {
        let folder = changed(file, change);
        match pack(folder.path(), &mut Vec::new()) {
            Err(PackError::Model(error)) => error.to_string(),
            Err(other) => panic!("{other}"),
            Ok(()) => panic!("it was packed"),
        }
    };
    assert!(refused("config.json", |config| config["model_type"] = json!("roberta")).contains("roberta"));
    assert!(refused("tokenizer.json", |file| *file = json!({})).contains("tokenizer.json"));
    let nothing = tempfile::tempdir().expect("a folder");
    let error = pack(nothing.path(), &mut Vec::new()).expect_err("there is nothing").to_string();
    assert!(error.contains("config.json"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Some bytes of any of the files, at random: an error or a model, but no panic.
    #[test]
    fn random_damage_never_panics(which in 0..FILES.len(), edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let folder = changed("modules.json", |_| {});
        let path = folder.path().join(FILES[which]);
        let mut bytes = std::fs::read(&path).expect("it is there");
        let end = bytes.len().min(5000);
        for (at, value) in edits {
            bytes[at.index(end)] = value;
        }
        std::fs::write(path, bytes).expect("written");
        if let Ok(embedder) = Embedder::open(folder.path(), &EngineOptions::with_threads(1)) {
            let _ = embedder.embed("A text");
        }
    }

    /// The same of an archive, where lengths and names can lie too.
    #[test]
    fn random_damage_of_an_archive_never_panics(at in any::<prop::sample::Index>(), value in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let mut bytes = packed(&small());
        let place = at.index(bytes.len());
        bytes[place] = value;
        let _ = AnyModel::from_bytes(bytes[..cut.index(bytes.len())].to_vec());
        if let Ok(AnyModel::Vectors(model)) = AnyModel::from_bytes(bytes) {
            let _ = Embedder::new(model, &EngineOptions::with_threads(1)).embed("A text");
        }
    }
}
