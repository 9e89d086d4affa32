//! The product with `vpdpbusd`, sixteen rows at a time.

use std::arch::x86_64::*;

use super::{Kind, Layout, Packed, Parts};
use crate::kernels::{
    activations::{Activations, Block},
    avx512::{ahead, load},
    matrix::{Line, TILE},
};

/// 16 rows times each of up to eight tokens.
pub(super) fn product<L: Layout>(packed: &Packed, tile: usize, inputs: &[&Activations], out: &mut [f32]) {
    #[expect(unsafe_code, reason = "functions for one instruction set")]
    // SAFETY: this set is only chosen after `is_supported` said that the machine has it.
    unsafe {
        if inputs.len() == 8 {
            return tokens::<L, 8>(packed, tile, inputs, out);
        }
        let fours = inputs.len() / 4 * 4;
        for (inputs, out) in inputs[..fours].chunks_exact(4).zip(out.chunks_exact_mut(4 * TILE)) {
            tokens::<L, 4>(packed, tile, inputs, out);
        }
        for (inputs, out) in inputs[fours..].chunks_exact(1).zip(out[fours * TILE..].chunks_exact_mut(TILE)) {
            tokens::<L, 1>(packed, tile, inputs, out);
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn tokens<L: Layout, const T: usize>(packed: &Packed, tile: usize, inputs: &[&Activations], out: &mut [f32]) {
    let inputs = packed.inputs::<T>(inputs);
    let mut sums = [_mm512_setzero_ps(); T];
    for index in 0..packed.blocks {
        let block: [&Block; T] = inputs.map(|blocks| &blocks[index]);
        let parts = packed.parts(L::KIND, tile, index);
        let dots = dots::<L, T>(parts.lines, block);
        add::<L, T>(&parts, dots, block, &mut sums);
    }
    for (sum, out) in sums.into_iter().zip(out.chunks_exact_mut(TILE)) {
        let out: &mut [f32; TILE] = out.try_into().expect("one tile");
        #[expect(unsafe_code, reason = "SIMD")]
        // SAFETY: the array is 64 bytes, and the store needs no alignment.
        unsafe {
            _mm512_storeu_ps(out.as_mut_ptr(), sum);
        }
    }
}

/// For each token the dot products with columns 0 to 15 and with 16 to 31.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn dots<L: Layout, const T: usize>(lines: &[Line], block: [&Block; T]) -> [[__m512i; 2]; T] {
    let (mask, high) = (_mm512_set1_epi8(15), high_bits::<L>(lines));
    let mut dots = [[_mm512_setzero_si512(); 2]; T];
    for l in 0..4 {
        ahead(&lines[l]);
        let packed = load(&lines[l]);
        let first = _mm512_or_si512(_mm512_and_si512(packed, mask), high[l][0]);
        let second = _mm512_and_si512(_mm512_srli_epi16::<4>(packed), mask);
        let second = _mm512_or_si512(second, high[l][1]);
        for t in 0..T {
            dots[t][0] = _mm512_dpbusd_epi32(dots[t][0], first, _mm512_set1_epi32(block[t].words[l]));
            dots[t][1] = _mm512_dpbusd_epi32(dots[t][1], second, _mm512_set1_epi32(block[t].words[l + 4]));
        }
    }
    dots
}

/// The bits from the fifth on, in place, for the low and the high nibbles of each line.
#[target_feature(enable = "avx512f,avx512bw")]
fn high_bits<L: Layout>(lines: &[Line]) -> [[__m512i; 2]; 4] {
    match L::KIND {
        Kind::Q4K => [[_mm512_setzero_si512(); 2]; 4],
        Kind::Q5 | Kind::Q5K => {
            ahead(&lines[4]);
            let (bits, mask) = (load(&lines[4]), _mm512_set1_epi8(0x10));
            [
                [_mm512_slli_epi16::<4>(bits), bits],
                [_mm512_slli_epi16::<3>(bits), _mm512_srli_epi16::<1>(bits)],
                [_mm512_slli_epi16::<2>(bits), _mm512_srli_epi16::<2>(bits)],
                [_mm512_slli_epi16::<1>(bits), _mm512_srli_epi16::<3>(bits)],
            ]
            .map(|two| two.map(|bits| _mm512_and_si512(bits, mask)))
        }
        Kind::Q6K => {
            ahead(&lines[4]);
            ahead(&lines[5]);
            let (bits, mask) = ([load(&lines[4]), load(&lines[5])], _mm512_set1_epi8(0x30));
            [
                bits,
                bits.map(|bits| _mm512_srli_epi16::<2>(bits)),
                bits.map(|bits| _mm512_slli_epi16::<4>(bits)),
                bits.map(|bits| _mm512_slli_epi16::<2>(bits)),
            ]
            .map(|two| two.map(|bits| _mm512_and_si512(bits, mask)))
        }
    }
}

/// Scales the dot products of a block and adds them up.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn add<L: Layout, const T: usize>(
    parts: &Parts<'_>,
    dots: [[__m512i; 2]; T],
    block: [&Block; T],
    sums: &mut [__m512; T],
) {
    let d = widen(&parts.scales[..TILE]);
    let scale = match L::KIND {
        Kind::Q5 | Kind::Q6K => d,
        Kind::Q4K | Kind::Q5K => {
            _mm512_mul_ps(d, _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(steps(&parts.steps[..TILE]))))
        }
    };
    for t in 0..T {
        let [first, second] = dots[t];
        let dot = match L::KIND {
            Kind::Q5 => {
                _mm512_add_epi32(_mm512_add_epi32(first, second), _mm512_set1_epi32(-16 * block[t].sum))
            }
            Kind::Q4K | Kind::Q5K => _mm512_add_epi32(first, second),
            Kind::Q6K => {
                let less = |dots, sum: i32| _mm512_sub_epi32(dots, _mm512_set1_epi32(32 * sum));
                let first = less(first, block[t].first);
                let second = less(second, block[t].sum - block[t].first);
                let step = |nth: usize| _mm512_cvtepi8_epi32(steps(&parts.steps[nth * TILE..][..TILE]));
                _mm512_add_epi32(_mm512_mullo_epi32(first, step(0)), _mm512_mullo_epi32(second, step(1)))
            }
        };
        let factor = _mm512_mul_ps(scale, _mm512_set1_ps(block[t].scale));
        sums[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), factor, sums[t]);
    }
    if L::KIND.has_minimum() {
        let minima = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(steps(&parts.steps[TILE..])));
        let least = _mm512_mul_ps(widen(&parts.scales[TILE..]), minima);
        for t in 0..T {
            sums[t] = _mm512_fmadd_ps(least, _mm512_set1_ps(-block[t].offset), sums[t]);
        }
    }
}

#[target_feature(enable = "avx512f")]
fn steps(bytes: &[u8]) -> __m128i {
    let bytes: &[u8; TILE] = bytes.try_into().expect("16 steps");
    #[expect(unsafe_code, reason = "SIMD")]
    // SAFETY: the array is 16 bytes, and the load needs no alignment.
    unsafe {
        _mm_loadu_si128(bytes.as_ptr().cast())
    }
}

#[target_feature(enable = "avx512f")]
fn widen(halves: &[u16]) -> __m512 {
    let halves: &[u16; TILE] = halves.try_into().expect("16 halves");
    #[expect(unsafe_code, reason = "SIMD")]
    // SAFETY: the array is 32 bytes, and the load needs no alignment.
    unsafe {
        _mm512_cvtph_ps(_mm256_loadu_si256(halves.as_ptr().cast()))
    }
}
