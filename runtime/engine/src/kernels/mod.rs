//! The arithmetic: weights in tiles, activations in int8 blocks, and threads.
//!
//! **Every instruction set gives the same bits.** Three rules keep it so, and any new kernel has to keep them:
//! integer dot products are exact; float sums have one order, written out in lanes that do not depend on the
//! width of a register; a product that is added is always fused (`mul_add`), and nothing else ever is.

mod activations;
mod attention;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod encoder;
pub(crate) mod half;
mod kquants;
mod matrix;
mod memory;
mod pool;
mod scalar;
mod vector;

pub(crate) use activations::Activations;
pub(crate) use attention::{MAX_HEAD, PAGE, Page, PageShape, Paged, Query, attend};
pub(crate) use encoder::{attend_to_all, gelu, layer_norm};
pub(crate) use matrix::{Matrix, TILE, multiply};
pub(crate) use pool::Pool;
pub(crate) use vector::{add, exponentials, geglu, rms_norm, rotate, rotate_halves, swiglu};

/// What the engine computes with; chosen at run time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum InstructionSet {
    /// Plain Rust, on every machine.
    Scalar,
    /// AVX2 with FMA and F16C.
    Avx2,
    /// AVX-512 F, BW and VL with VNNI.
    Avx512Vnni,
}

impl InstructionSet {
    /// All of them, the plainest first.
    pub const ALL: [Self; 3] = [Self::Scalar, Self::Avx2, Self::Avx512Vnni];

    /// The best that this machine has.
    pub fn detect() -> Self {
        Self::ALL.into_iter().rev().find(|set| set.is_supported()).unwrap_or(Self::Scalar)
    }

    /// Whether this machine has it.
    pub fn is_supported(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        match self {
            Self::Scalar => true,
            Self::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
            }
            Self::Avx512Vnni => {
                Self::Avx2.is_supported()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512vnni")
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        matches!(self, Self::Scalar)
    }

    /// This set, or the best that the machine has instead.
    pub(crate) fn supported(self) -> Self {
        if self.is_supported() { self } else { Self::detect() }
    }

    /// Its name: `avx512-vnni`, `avx2` or `scalar`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Avx2 => "avx2",
            Self::Avx512Vnni => "avx512-vnni",
        }
    }
}

/// The name of the instruction set that engines take on this machine unless told otherwise.
pub fn instruction_set() -> &'static str {
    InstructionSet::detect().name()
}

/// Compiles one plain body three times, for the compiler to vectorise, and picks one at run time. The bits are the
/// same because the compiler neither reorders float sums nor fuses what is not written as `mul_add`.
macro_rules! on_each_set {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $kind:ty),* $(,)?) $(-> $out:ty)? = $body:ident) => {
        $(#[$doc])*
        $vis fn $name(set: $crate::kernels::InstructionSet, $($arg: $kind),*) $(-> $out)? {
            #[cfg(target_arch = "x86_64")]
            {
                use $crate::kernels::half::{F16c, Avx512f};
                #[target_feature(enable = "avx2,fma,f16c")]
                fn avx2($($arg: $kind),*) $(-> $out)? { $body::<F16c>($($arg),*) }
                #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
                fn avx512($($arg: $kind),*) $(-> $out)? { $body::<Avx512f>($($arg),*) }
                #[expect(unsafe_code, reason = "functions for one instruction set")]
                match set {
                    $crate::kernels::InstructionSet::Scalar => {}
                    // SAFETY: a set is only passed here after `is_supported` said that the machine has it.
                    $crate::kernels::InstructionSet::Avx2 => return unsafe { avx2($($arg),*) },
                    // SAFETY: as above.
                    $crate::kernels::InstructionSet::Avx512Vnni => return unsafe { avx512($($arg),*) },
                }
            }
            let _ = set;
            $body::<$crate::kernels::half::Soft>($($arg),*)
        }
    };
}
pub(crate) use on_each_set;

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
