//! A decode step on a GPU, as data: the PTX of `kernels/cuda`, how its kernels are launched, how weights lie for them,
//! and in which order they make one step of a Llama.
//!
//! Nothing here needs a GPU. [`Decoder`] speaks to a [`Backend`]: the interpreter of `cocoon-ptx-check` in tests, the
//! driver where there is one (feature `cuda`). The kernels follow the CPU engine's arithmetic to the last bit, so both
//! give the same logits; `kernels/README.md` says how, and what was never tried on hardware. [`Device`] is such a decoder
//! as an accelerator of the engine.

mod accelerator;
mod arithmetic;
mod backend;
mod blocks;
pub mod canary;
#[cfg(feature = "cuda")]
pub mod cuda;
mod decode;
mod error;
mod kernel;
mod layout;
mod memory;
mod model;
mod ptx;
mod step;

pub use accelerator::Device;
pub use backend::{Arg, Backend};
pub use decode::Decoder;
pub use error::DecodeError;
pub use kernel::{Grid, Kernel};
pub use layout::{Format, LayoutError, Packed};
pub use model::{Layer, Shape, Weights};
pub use ptx::{MODULES, TARGETS, Target, digest, params, ptx};
pub use step::{Choice, MAX_RECENT, Row};

/// Tokens in a page of keys and values.
pub const PAGE: usize = 16;
/// Rows of a tile of weights.
pub const TILE: usize = 16;
/// Columns that share a scale.
pub const BLOCK: usize = 32;
/// Longest head that attention has room for.
pub const MAX_HEAD: usize = 256;
