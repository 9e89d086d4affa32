//! What the tests share.

#![allow(dead_code, reason = "each test program uses its own part")]

use std::{
    path::PathBuf,
    sync::{Arc, LazyLock},
};

use cocoon_engine::{Engine, EngineOptions, InstructionSet, Model};

/// The tiny model that lies in the repository.
pub(crate) fn tiny_path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/models/tiny.gguf")
}

/// The bytes of the tiny model.
pub(crate) fn tiny_bytes() -> Vec<u8> {
    std::fs::read(tiny_path()).expect("tests/models/tiny.gguf lies in the repository")
}

/// The tiny model, loaded once.
pub(crate) fn tiny() -> Arc<Model> {
    static MODEL: LazyLock<Arc<Model>> =
        LazyLock::new(|| Arc::new(Model::open(&tiny_path()).expect("the tiny model loads")));
    Arc::clone(&MODEL)
}

/// The demo model, if it was fetched; says so where it was not.
pub(crate) fn smollm2() -> Option<Arc<Model>> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| std::env::home_dir().map(|home| home.join(".cache")))?;
    let path = cache.join("cocoon/models/SmolLM2-135M-Instruct.Q4_1.gguf");
    if !path.exists() {
        println!("{} not found: nothing was checked (scripts/demo fetches it)", path.display());
        return None;
    }
    Some(Arc::new(Model::open(&path).expect("the demo model loads")))
}

/// An engine on the tiny model.
pub(crate) fn engine_on(model: Arc<Model>, threads: usize, set: InstructionSet) -> Engine {
    let mut options = EngineOptions::with_threads(threads);
    options.instruction_set = Some(set);
    Engine::new(model, options)
}

/// The instruction sets of this machine; says which are missing.
pub(crate) fn sets() -> Vec<InstructionSet> {
    let (has, lacks): (Vec<_>, Vec<_>) = InstructionSet::ALL.into_iter().partition(|set| set.is_supported());
    lacks.iter().for_each(|set| println!("{} is not on this machine: not checked", set.name()));
    has
}

/// FNV-1a over the bits of floats: equal only for equal bits, for what a test needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Bits(pub(crate) u64);

impl Bits {
    /// Of nothing.
    pub(crate) fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    /// Takes floats in.
    pub(crate) fn take(&mut self, floats: &[f32]) {
        for float in floats {
            for byte in float.to_le_bytes() {
                self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
            }
        }
    }
}

/// The tiny model with output weights of their own, and weights that make nonsense of one token alone: so only what reads
/// that token meets it.
pub(crate) fn untied(poisoned: u32) -> Vec<u8> {
    let bytes = tiny_bytes();
    let find = |name: &[u8]| {
        bytes.windows(name.len()).position(|it| it == name).expect("the model has it") + name.len()
    };
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    let align = |at: usize| at.next_multiple_of(32);
    // After a name: dimensions (u32), their lengths (u64 each), type (u32), offset (u64).
    let embedding = find(b"token_embd.weight");
    let (columns, rows, offset) = (word(embedding + 4), word(embedding + 12), word(embedding + 24) as usize);
    let infos_end = find(b"output_norm.weight") + 4 + 8 + 4 + 8;
    let data = &bytes[align(infos_end)..];
    let row_bytes = columns as usize / 32 * 34; // Q8_0
    let weights = data[offset..offset + rows as usize * row_bytes].to_vec();

    let mut out = bytes[..infos_end].to_vec();
    out[8..16].copy_from_slice(&(word(8) + 1).to_le_bytes()); // tensors
    out.extend(13u64.to_le_bytes());
    out.extend(b"output.weight");
    out.extend(2u32.to_le_bytes());
    out.extend(columns.to_le_bytes());
    out.extend(rows.to_le_bytes());
    out.extend(8u32.to_le_bytes());
    out.extend((align(data.len()) as u64).to_le_bytes());
    out.resize(align(out.len()), 0);
    let start = out.len();
    out.extend(data);
    out.resize(start + align(data.len()), 0);
    out.extend(weights);
    // Each weight is a number. The first dimension is zero for all tokens but one, and its norm in the first layer as large
    // as can be: what is too large in there is infinite, and soon not a number.
    for row in 0..rows as usize {
        out[start + offset + row * row_bytes + 2] = if row == poisoned as usize { 127 } else { 0 };
    }
    let norm = start + word(find(b"blk.0.attn_norm.weight") + 16) as usize;
    out[norm..norm + 4].copy_from_slice(&f32::MAX.to_le_bytes());
    out
}
