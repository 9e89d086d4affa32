//! The kernels by name, and the grids that they are launched on.

use crate::{TILE, layout::Format};

/// A kernel of `kernels/cuda`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kernel {
    /// Rows of a matrix as floats.
    Embed(Format),
    /// Weights times activations: quantised ones, or floats where the weights are numbers.
    Matmul(Format),
    /// Norm and quantise.
    RmsNorm,
    /// Quantise.
    Quantise,
    /// Rotate, and write keys and values into pages.
    RopeKv,
    /// Attention over pages.
    Attention,
    /// Gated activation and quantise.
    Swiglu,
    /// Add a product to what rows carry.
    Residual,
    /// Repetition penalty, and the likeliest token.
    Likeliest,
    /// A token drawn at random.
    Draw,
    /// Wipe pages.
    Scrub,
    /// Count what is not wiped.
    ScrubCheck,
    /// The known answer.
    Canary,
}

/// Blocks along x and y, and threads of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Blocks along x.
    pub x: u32,
    /// Blocks along y.
    pub y: u32,
    /// Threads of a block.
    pub threads: u32,
}

/// Tokens that one block of `matmul` serves: `TOKENS` in `matmul.cu`.
const TOKENS: u32 = 8;
/// And of `matmul_numbers`: `TOKENS` in `matmul_numbers.cu`.
const NUMBERS_TOKENS: u32 = 4;
/// Threads of a block, everywhere.
const THREADS: u32 = 256;
/// Blocks of 32 columns that a block of threads quantises: a warp each.
const WARPS: u32 = THREADS / 32;

impl Kernel {
    /// All of them.
    pub const ALL: [Self; 31] = {
        let rest = [
            Self::RmsNorm,
            Self::Quantise,
            Self::RopeKv,
            Self::Attention,
            Self::Swiglu,
            Self::Residual,
            Self::Likeliest,
            Self::Draw,
            Self::Scrub,
            Self::ScrubCheck,
            Self::Canary,
        ];
        let mut all = [Self::Canary; 31];
        let mut index = 0;
        while index < Format::ALL.len() {
            all[index] = Self::Embed(Format::ALL[index]);
            all[Format::ALL.len() + index] = Self::Matmul(Format::ALL[index]);
            index += 1;
        }
        index = 0;
        while index < rest.len() {
            all[2 * Format::ALL.len() + index] = rest[index];
            index += 1;
        }
        all
    };

    /// The source it is in, without ending: the name of its module.
    pub fn module(self) -> &'static str {
        match self {
            Self::Embed(_) => "embed",
            Self::Matmul(format) if format.is_numbers() => "matmul_numbers",
            Self::Matmul(_) => "matmul",
            other => other.entry(),
        }
    }

    /// Its name in the module.
    pub fn entry(self) -> &'static str {
        match self {
            Self::Embed(Format::Q4_0) => "embed_q4_0",
            Self::Embed(Format::Q4_1) => "embed_q4_1",
            Self::Embed(Format::Q5_0) => "embed_q5_0",
            Self::Embed(Format::Q8_0) => "embed_q8_0",
            Self::Embed(Format::Q4K) => "embed_q4_k",
            Self::Embed(Format::Q5K) => "embed_q5_k",
            Self::Embed(Format::Q6K) => "embed_q6_k",
            Self::Embed(Format::F16) => "embed_f16",
            Self::Embed(Format::Bf16) => "embed_bf16",
            Self::Embed(Format::F32) => "embed_f32",
            Self::Matmul(Format::Q4_0) => "matmul_q4_0",
            Self::Matmul(Format::Q4_1) => "matmul_q4_1",
            Self::Matmul(Format::Q5_0) => "matmul_q5_0",
            Self::Matmul(Format::Q8_0) => "matmul_q8_0",
            Self::Matmul(Format::Q4K) => "matmul_q4_k",
            Self::Matmul(Format::Q5K) => "matmul_q5_k",
            Self::Matmul(Format::Q6K) => "matmul_q6_k",
            Self::Matmul(Format::F16) => "matmul_f16",
            Self::Matmul(Format::Bf16) => "matmul_bf16",
            Self::Matmul(Format::F32) => "matmul_f32",
            Self::RmsNorm => "rms_norm",
            Self::Quantise => "quantise",
            Self::RopeKv => "rope_kv",
            Self::Attention => "attention",
            Self::Swiglu => "swiglu",
            Self::Residual => "residual",
            Self::Likeliest => "likeliest",
            Self::Draw => "draw",
            Self::Scrub => "scrub",
            Self::ScrubCheck => "scrub_check",
            Self::Canary => "canary",
        }
    }
}

impl Grid {
    /// One block for each row, sequence or page.
    pub fn each(count: usize) -> Self {
        Self { x: count as u32, y: 1, threads: THREADS }
    }

    /// For [`Kernel::Matmul`]: a block for each tile and each eight tokens (four, where the weights are numbers).
    pub fn matmul(format: Format, rows: usize, tokens: usize) -> Self {
        let together = if format.is_numbers() { NUMBERS_TOKENS } else { TOKENS };
        let y = (tokens as u32).div_ceil(together);
        Self { x: rows.div_ceil(TILE) as u32, y, threads: THREADS }
    }

    /// For [`Kernel::Quantise`] and [`Kernel::Swiglu`]: a warp for each block of columns.
    pub fn blocks(blocks: usize) -> Self {
        Self { x: (blocks as u32).div_ceil(WARPS), y: 1, threads: THREADS }
    }

    /// For [`Kernel::Residual`]: a thread for each number.
    pub fn numbers(count: usize) -> Self {
        Self { x: (count as u32).div_ceil(THREADS), y: 1, threads: THREADS }
    }

    /// For [`Kernel::Attention`]: a block for each head of each row.
    pub fn attention(heads: usize, rows: usize) -> Self {
        Self { x: heads as u32, y: rows as u32, threads: THREADS }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ptx::{MODULES, TARGETS, ptx};

    #[test]
    fn every_kernel_is_an_entry_of_its_module_and_every_entry_a_kernel() {
        for target in TARGETS {
            for kernel in Kernel::ALL {
                let text = ptx(kernel.module(), target).expect("a module");
                assert!(text.contains(&format!(".visible .entry {}(", kernel.entry())), "{kernel:?}");
            }
            let entries = MODULES.iter().map(|module| ptx(module, target).expect("listed"));
            let entries: usize = entries.map(|text| text.matches(".visible .entry ").count()).sum();
            assert_eq!(entries, Kernel::ALL.len());
        }
    }

    #[test]
    fn grids_cover_what_does_not_divide() {
        assert_eq!(Grid::matmul(Format::Q4_0, 17, 9), Grid { x: 2, y: 2, threads: 256 });
        assert_eq!(Grid::matmul(Format::F32, 17, 9), Grid { x: 2, y: 3, threads: 256 });
        assert_eq!(Grid::blocks(9), Grid { x: 2, y: 1, threads: 256 });
        assert_eq!(Grid::numbers(257).x, 2);
    }
}
