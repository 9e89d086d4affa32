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
