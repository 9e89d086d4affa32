//! Model files that are cut short or lie: always a clear error, never a panic, and never much memory.

mod common;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use cocoon_engine::{Engine, EngineOptions, GenerateError, Model, ModelError, Params};
use proptest::prelude::*;

/// Remembers the largest single allocation.
struct Watching;

static LARGEST: AtomicUsize = AtomicUsize::new(0);

#[expect(unsafe_code, reason = "an allocator that watches")]
// SAFETY: all work is the system allocator's.
unsafe impl GlobalAlloc for Watching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Watching = Watching;

/// The tiny file is under 1 MB; its whole loading needs no single piece larger than this.
const MOST: usize = 4 << 20;

/// Files that hold what the tiny model does not: families, quantised formats, SentencePiece.
const OTHERS: [&str; 5] = [
    "tests/models/families/qwen2.gguf",
    "tests/models/families/gemma3.gguf",
    "tests/models/families/phi3.gguf",
    "tests/models/families/quants.gguf",
    "runtime/engine/tests/fixtures/tokenizers/sentencepiece.gguf",
];

fn other(path: &str) -> Vec<u8> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    std::fs::read(root.join(path)).expect("it lies in the repository")
}

fn load(bytes: Vec<u8>) -> Result<Model, ModelError> {
    LARGEST.store(0, Ordering::Relaxed);
    let result = Model::from_bytes(bytes);
    let largest = LARGEST.load(Ordering::Relaxed);
    assert!(largest < MOST, "one allocation of {largest} bytes");
    result
}

/// Where the metadata, the directory and the data of the tiny model lie.
fn find(bytes: &[u8], needle: &str) -> usize {
    let needle = needle.as_bytes();
    bytes.windows(needle.len()).position(|window| window == needle).expect("it is in the file")
}

/// The file with some bytes written over, right after a key and its type.
fn with_value(key: &str, value: &[u8]) -> Vec<u8> {
    let mut bytes = common::tiny_bytes();
    let at = find(&bytes, key) + key.len() + 4;
    bytes[at..at + value.len()].copy_from_slice(value);
    bytes
}

fn refusal(bytes: Vec<u8>) -> String {
    load(bytes).err().expect("must be refused").to_string()
}

#[test]
fn a_file_cut_short_anywhere_is_refused() {
    let whole = common::tiny_bytes();
    let header = find(&whole, "token_embd.weight") + 20_000; // past the directory
    let early = (0..4096).chain((4096..header).step_by(97));
    let late = (header..whole.len()).step_by(50_021).chain([whole.len() - 1]);
    for length in early.chain(late) {
        let error = load(whole[..length].to_vec()).err().expect("must be refused");
        assert!(
            matches!(error, ModelError::CutShort { .. } | ModelError::NotGguf { .. }),
            "cut at {length}: {error}"
        );
    }
}

#[test]
fn a_file_that_was_cut_is_told_so_with_a_remedy() {
    let mut bytes = common::tiny_bytes();
    bytes.truncate(bytes.len() / 2);
    let error = refusal(bytes);
    assert!(error.contains("cut short") && error.contains("fetch it again"), "{error}");
}

#[test]
fn what_is_not_gguf_is_named() {
    assert!(refusal(b"<!DOCTYPE html>...".to_vec()).contains("not a GGUF"));
    let mut old = common::tiny_bytes();
    old[4] = 1;
    assert!(refusal(old).contains("version 1"));
}

#[test]
fn counts_that_lie_are_refused_before_memory_is_taken() {
    for (at, what) in [(8, "tensors"), (16, "metadata keys")] {
        let mut bytes = common::tiny_bytes();
        bytes[at..at + 8].copy_from_slice(&u64::MAX.to_le_bytes());
        let error = refusal(bytes);
        assert!(error.contains(what) && error.contains("limit"), "{error}");
    }
    // A list of tokens that claims more elements than the file has bytes.
    let claims = [&8u32.to_le_bytes()[..], &2_000_000u64.to_le_bytes()].concat();
    let error = refusal(with_value("tokenizer.ggml.tokens", &claims));
    assert!(!error.is_empty());
    let claims = [&8u32.to_le_bytes()[..], &u64::MAX.to_le_bytes()].concat();
    assert!(refusal(with_value("tokenizer.ggml.tokens", &claims)).contains("limit"));
}

#[test]
fn sizes_that_do_not_fit_the_configuration_are_refused_by_name() {
    let cases: [(&str, u32, &str); 8] = [
        ("llama.embedding_length", 256, "token_embd.weight"),
        ("llama.block_count", 5, "blk.4"),
        ("llama.block_count", 3, "does not use"),
        ("llama.block_count", u32::MAX, "limit"),
        ("llama.feed_forward_length", 0, "is 0"),
        ("llama.attention.head_count", 3, "heads"),
        ("llama.attention.head_count_kv", 3, "heads"),
        ("llama.context_length", u32::MAX, "limit"),
    ];
    for (key, value, expected) in cases {
        // The key with its length in front, since one key begins with another.
        let bytes = common::tiny_bytes();
        let length = (key.len() as u64).to_le_bytes();
        let needle = [&length[..], key.as_bytes()].concat();
        let at = bytes.windows(needle.len()).position(|window| window == needle).expect("it is in the file");
        let mut bytes = bytes;
        let at = at + needle.len() + 4;
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        let error = refusal(bytes);
        assert!(error.contains(expected), "{key} = {value}: {error}");
    }
}

#[test]
fn a_tensor_that_lies_about_its_place_or_size_is_refused() {
    let whole = common::tiny_bytes();
    let name = "blk.2.ffn_up.weight";
    let dimensions = find(&whole, name) + name.len();
    let edit = |at: usize, value: u64| {
        let mut bytes = whole.clone();
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        refusal(bytes)
    };
    assert!(edit(dimensions + 4, 1 << 33).contains("limit"));
    assert!(edit(dimensions + 4, 33).contains("whole blocks"));
    assert!(edit(dimensions + 4, 1 << 31).contains("cut short"));
    assert!(edit(dimensions + 4, 0).contains("empty dimension"));
    let offset = dimensions + 4 + 16 + 4;
    assert!(edit(offset, 7).contains("not aligned"));
    assert!(edit(offset, u64::MAX - 31).contains("cut short"));
    let mut bytes = whole.clone();
    bytes[offset - 4..offset].copy_from_slice(&31u32.to_le_bytes());
    assert!(refusal(bytes).contains("ggml type 31"));
}

#[test]
fn an_architecture_or_tokenizer_that_is_not_known_is_named() {
    let error = refusal(with_value("general.architecture", b"\x05\0\0\0\0\0\0\0gemma"));
    assert!(error.contains("gemma"), "{error}");
    let error = refusal(with_value("tokenizer.ggml.model", b"\x04\0\0\0\0\0\0\0bert"));
    assert!(error.contains("bert"), "{error}");
}

#[test]
fn weights_that_are_not_numbers_are_refused_by_name() {
    let mut bytes = common::tiny_bytes();
    let at = bytes.len() - 4; // the last weight of the last norm
    bytes[at..].copy_from_slice(&f32::NAN.to_le_bytes());
    let error = refusal(bytes);
    assert!(error.contains("norm.weight") && error.contains("not a finite number"), "{error}");
    let mut bytes = common::tiny_bytes();
    let at = bytes.len() - 4 - 34 * 4; // in the embedding: a scale, or one of its quants
    let inf = [0x00, 0x7c];
    (0..34).for_each(|n| bytes[at - 4096 + n] = inf[n % 2]);
    let error = refusal(bytes);
    assert!(error.contains("tensor token_embd.weight") && error.contains("not a finite number"), "{error}");
}

#[test]
fn scales_that_are_not_numbers_are_refused_in_every_format() {
    let whole = other("tests/models/families/quants.gguf");
    for (tensor, scale) in
        [("blk.0.attn_q", 2), ("blk.0.attn_k", 0), ("blk.0.attn_v", 208), ("blk.0.attn_output", 0)]
    {
        // Its place is the last number of its entry: name, dimensions, format, offset.
        let entry = find(&whole, tensor) + tensor.len() + ".weight".len();
        let number =
            |at: usize| u64::from_le_bytes(whole[at..at + 8].try_into().expect("eight bytes")) as usize;
        let last = "blk.0.ffn_norm.weight";
        let directory_end = find(&whole, last) + last.len() + 4 + 8 + 4 + 8;
        let data = directory_end.next_multiple_of(32) + number(entry + 4 + 16 + 4);
        let mut bytes = whole.clone();
        bytes[data + scale..data + scale + 2].copy_from_slice(&0x7c00u16.to_le_bytes());
        let error = refusal(bytes);
        assert!(error.contains(tensor) && error.contains("not a finite number"), "{error}");
    }
}

#[test]
fn weights_that_are_too_large_give_an_error_and_no_tokens() {
    let mut bytes = common::tiny_bytes();
    let at = bytes.len() - 4;
    bytes[at..].copy_from_slice(&f32::MAX.to_le_bytes());
    let model = Arc::new(load(bytes).expect("its structure is sound"));
    let prompt = model.tokenizer().encode("The class", true);
    let engine = Engine::new(model, EngineOptions::with_threads(1));
    let result = engine.generate(&prompt, &Params::default(), |_| ControlFlow::Continue(()));
    assert_eq!(result, Err(GenerateError::NotANumber));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Some bytes of the header, at random: an error or a model, but no panic and no large allocation.
    #[test]
    fn random_damage_to_the_header_never_panics(edits in prop::collection::vec((0usize..60_000, any::<u8>()), 1..4)) {
        let mut bytes = common::tiny_bytes();
        for (at, value) in edits {
            bytes[at] = value;
        }
        let _ = load(bytes);
    }

    /// The same for every other family, tokenizer and format: all of these are under 300 KB.
    #[test]
    fn random_damage_to_other_models_never_panics(
        which in 0..OTHERS.len(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        at: prop::sample::Index,
        value: u64,
        shift in 0u32..64,
    ) {
        let mut bytes = other(OTHERS[which]);
        let end = bytes.len().min(16_000);
        for (at, value) in edits {
            bytes[at.index(end)] = value;
        }
        let at = at.index(end - 8);
        bytes[at..at + 8].copy_from_slice(&(value >> shift).to_le_bytes());
        let _ = load(bytes);
    }

    /// Lengths and counts are eight bytes: whole numbers at random places find them more often.
    #[test]
    fn random_lengths_in_the_header_never_panic(at in 0usize..60_000, value: u64, shift in 0u32..64) {
        let mut bytes = common::tiny_bytes();
        bytes[at..at + 8].copy_from_slice(&(value >> shift).to_le_bytes());
        let _ = load(bytes);
    }
}
