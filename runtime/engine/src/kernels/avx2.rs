//! The product of a tile with `vpmaddubsw`, eight rows at a time. Sums of two products fit 16 bits: nibbles times
//! int8 stay below 3,810, and signed bytes are turned so that none is over 128 · 127 · 2 = 32,512.

use std::arch::x86_64::*;

use super::{
    activations::{Activations, Block},
    matrix::{Line, Matrix, TILE, TOKENS, Weights},
};

/// 16 rows times each of up to eight tokens; false where there is nothing special to do.
pub(super) fn product(matrix: &Matrix, tile: usize, inputs: &[&Activations], out: &mut [f32]) -> bool {
    if matches!(matrix.weights, Weights::F16(_) | Weights::Bf16(_) | Weights::F32(_)) {
        return false;
    }
    debug_assert!(inputs.len() <= TOKENS);
    let blocks = matrix.columns / 32;
    #[expect(unsafe_code, reason = "functions for one instruction set")]
    // SAFETY: this set is only chosen after `is_supported` said that the machine has it.
    unsafe {
        for (two, out) in inputs.chunks(2).zip(out.chunks_mut(2 * TILE)) {
            match two {
                [a, b] => dispatch::<2>(matrix, tile, [&a.blocks[..blocks], &b.blocks[..blocks]], out),
                [a] => dispatch::<1>(matrix, tile, [&a.blocks[..blocks]], out),
                _ => unreachable!("chunks of one or two"),
            }
        }
    }
    true
}

#[target_feature(enable = "avx2,fma,f16c")]
fn dispatch<const T: usize>(matrix: &Matrix, tile: usize, inputs: [&[Block]; T], out: &mut [f32]) {
    let blocks = matrix.columns / 32;
    let sums = match &matrix.weights {
        Weights::Q4 { lines, scales } => {
            nibbles::<false, T>(&lines[tile * blocks * 4..], &scales[tile * blocks * TILE..], blocks, inputs)
        }
        Weights::Q4Min { lines, scales } => nibbles::<true, T>(
            &lines[tile * blocks * 4..],
            &scales[tile * blocks * 2 * TILE..],
            blocks,
            inputs,
        ),
        Weights::Q8 { lines, scales } => {
            bytes::<T>(&lines[tile * blocks * 8..], &scales[tile * blocks * TILE..], blocks, inputs)
        }
        Weights::Finer(_) | Weights::F16(_) | Weights::Bf16(_) | Weights::F32(_) => {
            unreachable!("left to other kernels")
        }
    };
    for (sum, out) in sums.into_iter().zip(out.chunks_exact_mut(TILE)) {
        store(out.try_into().expect("one tile"), sum);
    }
}

/// Rows 0 to 7 and rows 8 to 15.
type Pair<V> = [V; 2];

#[target_feature(enable = "avx2,fma,f16c")]
fn nibbles<const MIN: bool, const T: usize>(
    lines: &[Line],
    scales: &[u16],
    blocks: usize,
    inputs: [&[Block]; T],
) -> [Pair<__m256>; T] {
    let halves = if MIN { 2 * TILE } else { TILE };
    let (mask, ones) = (_mm256_set1_epi8(15), _mm256_set1_epi16(1));
    let mut sums = [[_mm256_setzero_ps(); 2]; T];
    let weights = lines.chunks_exact(4).zip(scales.chunks_exact(halves)).take(blocks);
    for (b, (lines, scales)) in weights.enumerate() {
        let input: [&Block; T] = std::array::from_fn(|t| &inputs[t][b]);
        let mut dots: [Pair<__m256i>; T] = std::array::from_fn(|t| {
            [if MIN { _mm256_setzero_si256() } else { _mm256_set1_epi32(-8 * input[t].sum) }; 2]
        });
        for (l, line) in lines.iter().enumerate() {
            let packed = load(line);
            for half in 0..2 {
                let low = _mm256_and_si256(packed[half], mask);
                let high = _mm256_and_si256(_mm256_srli_epi16::<4>(packed[half]), mask);
                for t in 0..T {
                    let a = _mm256_maddubs_epi16(low, _mm256_set1_epi32(input[t].words[l]));
                    let b = _mm256_maddubs_epi16(high, _mm256_set1_epi32(input[t].words[l + 4]));
                    let both = _mm256_madd_epi16(_mm256_add_epi16(a, b), ones);
                    dots[t][half] = _mm256_add_epi32(dots[t][half], both);
                }
            }
        }
        accumulate(&mut sums, dots, input, scales[..TILE].try_into().expect("16 scales"));
        if MIN {
            let least = widen(scales[TILE..].try_into().expect("16 minima"));
            for t in 0..T {
                for half in 0..2 {
                    let offset = _mm256_set1_ps(input[t].offset);
                    sums[t][half] = _mm256_fmadd_ps(least[half], offset, sums[t][half]);
                }
            }
        }
    }
    sums
}

#[target_feature(enable = "avx2,fma,f16c")]
fn bytes<const T: usize>(
    lines: &[Line],
    scales: &[u16],
    blocks: usize,
    inputs: [&[Block]; T],
) -> [Pair<__m256>; T] {
    let (flip, ones) = (_mm256_set1_epi8(-128), _mm256_set1_epi16(1));
    let mut sums = [[_mm256_setzero_ps(); 2]; T];
    let weights = lines.chunks_exact(8).zip(scales.chunks_exact(TILE)).take(blocks);
    for (b, (lines, scales)) in weights.enumerate() {
        let input: [&Block; T] = std::array::from_fn(|t| &inputs[t][b]);
        let mut dots = [[_mm256_setzero_si256(); 2]; T];
        for (l, line) in lines.iter().enumerate() {
            let weights = load(line);
            for half in 0..2 {
                let signed = _mm256_xor_si256(weights[half], flip);
                let magnitude = _mm256_abs_epi8(signed);
                for t in 0..T {
                    // The sign moves to the activation, which is never -128.
                    let words = _mm256_sign_epi8(_mm256_set1_epi32(input[t].words[l]), signed);
                    let both = _mm256_madd_epi16(_mm256_maddubs_epi16(magnitude, words), ones);
                    dots[t][half] = _mm256_add_epi32(dots[t][half], both);
                }
            }
        }
        accumulate(&mut sums, dots, input, scales.try_into().expect("16 scales"));
    }
    sums
}

#[target_feature(enable = "avx2,fma,f16c")]
fn accumulate<const T: usize>(
    sums: &mut [Pair<__m256>; T],
    dots: [Pair<__m256i>; T],
    input: [&Block; T],
    scales: &[u16; TILE],
) {
    let scales = widen(scales);
    for t in 0..T {
        for half in 0..2 {
            let factor = _mm256_mul_ps(scales[half], _mm256_set1_ps(input[t].scale));
            sums[t][half] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots[t][half]), factor, sums[t][half]);
        }
    }
}

#[target_feature(enable = "avx2")]
fn load(line: &Line) -> Pair<__m256i> {
    let start = line.0.as_ptr().cast::<__m256i>();
    #[expect(unsafe_code, reason = "SIMD")]
    // SAFETY: a line is 64 bytes on a 64-byte boundary.
    unsafe {
        [_mm256_load_si256(start), _mm256_load_si256(start.add(1))]
    }
}

#[target_feature(enable = "avx2,f16c")]
fn widen(halves: &[u16; TILE]) -> Pair<__m256> {
    let start = halves.as_ptr().cast::<__m128i>();
    #[expect(unsafe_code, reason = "SIMD")]
    // SAFETY: the array is 32 bytes, and the loads need no alignment.
    unsafe {
        [_mm256_cvtph_ps(_mm_loadu_si128(start)), _mm256_cvtph_ps(_mm_loadu_si128(start.add(1)))]
    }
}

#[target_feature(enable = "avx2")]
fn store(out: &mut [f32; TILE], sum: Pair<__m256>) {
    let start = out.as_mut_ptr();
    #[expect(unsafe_code, reason = "SIMD")]
    // SAFETY: the array is 64 bytes, and the stores need no alignment.
    unsafe {
        _mm256_storeu_ps(start, sum[0]);
        _mm256_storeu_ps(start.add(8), sum[1]);
    }
}
