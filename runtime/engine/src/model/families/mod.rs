//! The families of models that the engine runs, as data: what each computes beside its sizes, and what its parts are
//! called. One page for each; the forward pass has no family's name in it.

mod gemma3;
mod llama;
mod phi3;
mod qwen2;
mod qwen3;

use crate::error::ModelError;

/// All families.
pub(crate) const FAMILIES: [&Architecture; 5] =
    [&llama::LLAMA, &qwen2::QWEN2, &qwen3::QWEN3, &gemma3::GEMMA3, &phi3::PHI3];

/// What a family computes, and how its files name it.
#[derive(Debug)]
pub(crate) struct Architecture {
    /// GGUF's `general.architecture`, with which its metadata keys begin.
    pub(crate) name: &'static str,
    /// Which dimensions of a head turn together.
    pub(crate) rotation: Rotation,
    /// Whether queries, keys and values have biases.
    pub(crate) biases: bool,
    /// Whether each head's query and key is normalised before it is turned.
    pub(crate) head_norms: bool,
    /// Whether what attention and feed-forward give is normalised before it is added.
    pub(crate) post_norms: bool,
    /// Whether a layer's projections are stored in one tensor: queries over keys over values, gate over up.
    pub(crate) fused: bool,
    /// What the gate of the feed-forward layer goes through.
    pub(crate) activation: Activation,
    /// Whether embeddings are multiplied by the root of their width.
    pub(crate) scaled_embedding: bool,
    /// Which layers see a window of the context only.
    pub(crate) window: Window,
    /// The number of layers of a model whose queries are divided by the root of `width / heads` in place of the root of
    /// the length of a head: the file has no key for it.
    pub(crate) wide_queries: Option<usize>,
    /// How a Hugging Face folder has it.
    pub(crate) folder: Folder,
}

/// Which dimensions of a head turn together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rotation {
    /// 0 with 1, 2 with 3, …
    Neighbours,
    /// Each of the first half with its counterpart in the second.
    Halves,
}

/// What the gate of a feed-forward layer goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activation {
    /// `x · sigmoid(x)`
    Silu,
    /// GELU by its approximation with `tanh`.
    GeluTanh,
}

/// Which layers see a window of the context only.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Window {
    /// None.
    No,
    /// All, if the file names a window.
    All,
    /// All but each so many-th; they turn by a base of their own, without scaling.
    AllBut { each: usize, base: f64 },
}

/// How a Hugging Face folder has a family: `config.json`'s `model_type`, and the tensors' names.
#[derive(Debug)]
pub(crate) struct Folder {
    pub(crate) model_types: &'static [&'static str],
    /// Parts of a layer, and what GGUF calls them.
    pub(crate) parts: &'static [(&'static str, &'static str)],
    /// Whether GGUF has the rows of queries and keys in another order: neighbours where the folder has halves.
    pub(crate) reorders_heads: bool,
    /// Whether norms multiply by one more than the folder stores.
    pub(crate) norms_plus_one: bool,
}

impl Activation {
    /// What `config.json` calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Silu => "silu",
            Self::GeluTanh => "gelu_pytorch_tanh",
        }
    }
}

impl Architecture {
    /// The family of a GGUF file.
    pub(crate) fn named(name: &str) -> Result<&'static Self, ModelError> {
        FAMILIES.into_iter().find(|family| family.name == name).ok_or_else(|| {
            ModelError::Unsupported(format!("its architecture is {name:?}; {} are known", names()))
        })
    }

    /// The family of a `model_type` in a `config.json`.
    pub(crate) fn of_folder(model_type: &str) -> Result<&'static Self, ModelError> {
        FAMILIES.into_iter().find(|family| family.folder.model_types.contains(&model_type)).ok_or_else(|| {
            ModelError::Unsupported(format!("its model_type is {model_type:?}; {} are known", names()))
        })
    }

    /// The window of a layer, if it has one.
    pub(crate) fn is_local(&self, layer: usize) -> bool {
        match self.window {
            Window::No => false,
            Window::All => true,
            Window::AllBut { each, .. } => layer % each != each - 1,
        }
    }
}

fn names() -> String {
    FAMILIES.map(|family| family.name).join(", ")
}
