//! The product with `vpmaddubsw`, eight rows at a time. Sums of two products fit 16 bits: weights of six bits times int8
//! stay below 63 · 127 · 2 = 16,002.

use std::arch::x86_64::*;

use super::{Kind, Layout, Packed, Parts};
use crate::kernels::{
    activations::{Activations, Block},
    matrix::{Line, TILE},
};

/// Rows 0 to 7 and rows 8 to 15.
type Pair<V> = [V; 2];

/// 16 rows times each of some tokens.
pub(super) fn product<L: Layout>(packed: &Packed, tile: usize, inputs: &[&Activations], out: &mut [f32]) {
    #[expect(unsafe_code, reason = "functions for one instruction set")]
    // SAFETY: this set is only chosen after `is_supported` said that the machine has it.
    unsafe {
        for (inputs, out) in inputs.chunks(2).zip(out.chunks_mut(2 * TILE)) {
            match inputs.len() {
                2 => tokens::<L, 2>(packed, tile, inputs, out),
                _ => tokens::<L, 1>(packed, tile, inputs, out),
            }
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn tokens<L: Layout, const T: usize>(packed: &Packed, tile: usize, inputs: &[&Activations], out: &mut [f32]) {
    let inputs = packed.inputs::<T>(inputs);
    let mut sums = [[_mm256_setzero_ps(); 2]; T];
    for index in 0..packed.blocks {
        let block: [&Block; T] = inputs.map(|blocks| &blocks[index]);
        let parts = packed.parts(L::KIND, tile, index);
        for half in 0..2 {
            let dots = dots::<L, T>(parts.lines, half, block);
            add::<L, T>(&parts, half, dots, block, &mut sums);
        }
    }
    for (sum, out) in sums.into_iter().zip(out.chunks_exact_mut(TILE)) {
        let out: &mut [f32; TILE] = out.try_into().expect("one tile");
        #[expect(unsafe_code, reason = "SIMD")]
        // SAFETY: the array is 64 bytes, and the stores need no alignment.
        unsafe {
            _mm256_storeu_ps(out.as_mut_ptr(), sum[0]);
            _mm256_storeu_ps(out.as_mut_ptr().add(8), sum[1]);
        }
    }
}

/// For each token the dot products of eight rows with columns 0 to 15 and with 16 to 31.
#[target_feature(enable = "avx2,fma,f16c")]
fn dots<L: Layout, const T: usize>(lines: &[Line], half: usize, block: [&Block; T]) -> [[__m256i; 2]; T] {
    let (mask, ones, high) = (_mm256_set1_epi8(15), _mm256_set1_epi16(1), high_bits::<L>(lines, half));
    let mut dots = [[_mm256_setzero_si256(); 2]; T];
    for l in 0..4 {
        let packed = load(&lines[l], half);
        let weights = [
            _mm256_or_si256(_mm256_and_si256(packed, mask), high[l][0]),
            _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16::<4>(packed), mask), high[l][1]),
        ];
        for t in 0..T {
            for part in 0..2 {
                let words = _mm256_set1_epi32(block[t].words[l + 4 * part]);
                let both = _mm256_madd_epi16(_mm256_maddubs_epi16(weights[part], words), ones);
                dots[t][part] = _mm256_add_epi32(dots[t][part], both);
            }
        }
    }
    dots
}

/// The bits from the fifth on, in place, for the low and the high nibbles of each line.
#[target_feature(enable = "avx2")]
fn high_bits<L: Layout>(lines: &[Line], half: usize) -> [[__m256i; 2]; 4] {
    match L::KIND {
        Kind::Q4K => [[_mm256_setzero_si256(); 2]; 4],
        Kind::Q5 | Kind::Q5K => {
            let (bits, mask) = (load(&lines[4], half), _mm256_set1_epi8(0x10));
            [
                [_mm256_slli_epi16::<4>(bits), bits],
                [_mm256_slli_epi16::<3>(bits), _mm256_srli_epi16::<1>(bits)],
                [_mm256_slli_epi16::<2>(bits), _mm256_srli_epi16::<2>(bits)],
                [_mm256_slli_epi16::<1>(bits), _mm256_srli_epi16::<3>(bits)],
            ]
            .map(|two| two.map(|bits| _mm256_and_si256(bits, mask)))
        }
        Kind::Q6K => {
            let (bits, mask) = ([load(&lines[4], half), load(&lines[5], half)], _mm256_set1_epi8(0x30));
            [
                bits,
                bits.map(|bits| _mm256_srli_epi16::<2>(bits)),
                bits.map(|bits| _mm256_slli_epi16::<4>(bits)),
                bits.map(|bits| _mm256_slli_epi16::<2>(bits)),
            ]
            .map(|two| two.map(|bits| _mm256_and_si256(bits, mask)))
        }
    }
}

/// Scales the dot products of eight rows of a block and adds them up.
#[target_feature(enable = "avx2,fma,f16c")]
fn add<L: Layout, const T: usize>(
    parts: &Parts<'_>,
    half: usize,
    dots: [[__m256i; 2]; T],
    block: [&Block; T],
    sums: &mut [Pair<__m256>; T],
) {
    let steps = |nth: usize| steps(&parts.steps[nth * TILE + half * 8..][..8]);
    let d = widen(&parts.scales[half * 8..][..8]);
    let scale = match L::KIND {
        Kind::Q5 | Kind::Q6K => d,
        Kind::Q4K | Kind::Q5K => _mm256_mul_ps(d, _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(steps(0)))),
    };
    for t in 0..T {
        let [first, second] = dots[t];
        let dot = match L::KIND {
            Kind::Q5 => {
                _mm256_add_epi32(_mm256_add_epi32(first, second), _mm256_set1_epi32(-16 * block[t].sum))
            }
            Kind::Q4K | Kind::Q5K => _mm256_add_epi32(first, second),
            Kind::Q6K => {
                let less = |dots, sum: i32| _mm256_sub_epi32(dots, _mm256_set1_epi32(32 * sum));
                let first = less(first, block[t].first);
                let second = less(second, block[t].sum - block[t].first);
                let step = |nth: usize| _mm256_cvtepi8_epi32(steps(nth));
                _mm256_add_epi32(_mm256_mullo_epi32(first, step(0)), _mm256_mullo_epi32(second, step(1)))
            }
        };
        let factor = _mm256_mul_ps(scale, _mm256_set1_ps(block[t].scale));
        sums[t][half] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), factor, sums[t][half]);
    }
    if L::KIND.has_minimum() {
        let minima = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(steps(1)));
        let least = _mm256_mul_ps(widen(&parts.scales[TILE + half * 8..][..8]), minima);
        for t in 0..T {
            sums[t][half] = _mm256_fmadd_ps(least, _mm256_set1_ps(-block[t].offset), sums[t][half]);
        }
    }
}

#[target_feature(enable = "avx2")]
fn load(line: &Line, half: usize) -> __m256i {
    let part = &line.0.as_chunks::<32>().0[half];
    #[expect(unsafe_code, reason = "SIMD")]
    // SAFETY: the part is 32 bytes, and the load needs no alignment.
    unsafe {
        _mm256_loadu_si256(part.as_ptr().cast())
    }
}

#[target_feature(enable = "avx2")]
fn steps(bytes: &[u8]) -> __m128i {
    let bytes: &[u8; 8] = bytes.try_into().expect("8 steps");
    #[expect(unsafe_code, reason = "SIMD")]
    // SAFETY: the array is 8 bytes, and the load needs no alignment.
    unsafe {
        _mm_loadl_epi64(bytes.as_ptr().cast())
    }
}

#[target_feature(enable = "avx2,f16c")]
fn widen(halves: &[u16]) -> __m256 {
    let halves: &[u16; 8] = halves.try_into().expect("8 halves");
    #[expect(unsafe_code, reason = "SIMD")]
    // SAFETY: the array is 16 bytes, and the load needs no alignment.
    unsafe {
        _mm256_cvtph_ps(_mm_loadu_si128(halves.as_ptr().cast()))
    }
}
