//! The product of a tile with `vpdpbusd`: unsigned weights times signed activations, sixteen rows at a time, up to
//! eight tokens for each time that a weight is loaded.

use std::arch::x86_64::*;

use super::{
    activations::{Activations, BLOCK, Block, ROUND, inverse},
    matrix::{Line, Matrix, TILE, TOKENS, Weights},
};

/// How far ahead weights are asked for, in lines of 64 bytes.
const AHEAD: usize = 160;

/// 16 rows times each of up to eight tokens; false where there is nothing special to do.
pub(super) fn product(matrix: &Matrix, tile: usize, inputs: &[&Activations], out: &mut [f32]) -> bool {
    if matches!(matrix.weights, Weights::F16(_) | Weights::Bf16(_) | Weights::F32(_)) {
        return false;
    }
    let blocks = matrix.columns / 32;
    let mut slices = [[].as_slice(); TOKENS];
    for (slice, input) in slices.iter_mut().zip(inputs) {
        *slice = &input.blocks[..blocks];
    }
    #[expect(unsafe_code, reason = "functions for one instruction set")]
    // SAFETY: this set is only chosen after `is_supported` said that the machine has it.
    unsafe {
        match inputs.len() {
            1 => dispatch::<1>(matrix, tile, [slices[0]], out),
            8 => dispatch::<8>(matrix, tile, slices, out),
            4..8 => {
                let (four, rest) = out.split_at_mut(4 * TILE);
                dispatch::<4>(matrix, tile, [slices[0], slices[1], slices[2], slices[3]], four);
                for (slice, out) in slices[4..inputs.len()].iter().zip(rest.chunks_exact_mut(TILE)) {
                    dispatch::<1>(matrix, tile, [*slice], out);
                }
            }
            _ => {
                for (slice, out) in slices[..inputs.len()].iter().zip(out.chunks_exact_mut(TILE)) {
                    dispatch::<1>(matrix, tile, [*slice], out);
                }
            }
        }
    }
    true
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
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

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn nibbles<const MIN: bool, const T: usize>(
    lines: &[Line],
    scales: &[u16],
    blocks: usize,
    inputs: [&[Block]; T],
) -> [__m512; T] {
    let halves = if MIN { 2 * TILE } else { TILE };
    let mask = _mm512_set1_epi8(15);
    let mut sums = [_mm512_setzero_ps(); T];
    let weights = lines.chunks_exact(4).zip(scales.chunks_exact(halves)).take(blocks);
    for (b, (lines, scales)) in weights.enumerate() {
        let input: [&Block; T] = std::array::from_fn(|t| &inputs[t][b]);
        let mut dots: [__m512i; T] = std::array::from_fn(|t| {
            if MIN { _mm512_setzero_si512() } else { _mm512_set1_epi32(-8 * input[t].sum) }
        });
        let mut more = [_mm512_setzero_si512(); T];
        for (l, line) in lines.iter().enumerate() {
            ahead(line);
            let packed = load(line);
            let low = _mm512_and_si512(packed, mask);
            let high = _mm512_and_si512(_mm512_srli_epi16::<4>(packed), mask);
            for t in 0..T {
                dots[t] = _mm512_dpbusd_epi32(dots[t], low, _mm512_set1_epi32(input[t].words[l]));
                let high_words = _mm512_set1_epi32(input[t].words[l + 4]);
                if T == 1 {
                    more[t] = _mm512_dpbusd_epi32(more[t], high, high_words);
                } else {
                    dots[t] = _mm512_dpbusd_epi32(dots[t], high, high_words);
                }
            }
        }
        let scale = widen(scales[..TILE].try_into().expect("16 scales"));
        for t in 0..T {
            let dot = if T == 1 { _mm512_add_epi32(dots[t], more[t]) } else { dots[t] };
            let factor = _mm512_mul_ps(scale, _mm512_set1_ps(input[t].scale));
            sums[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), factor, sums[t]);
        }
        if MIN {
            let least = widen(scales[TILE..].try_into().expect("16 minima"));
            for t in 0..T {
                sums[t] = _mm512_fmadd_ps(least, _mm512_set1_ps(input[t].offset), sums[t]);
            }
        }
    }
    sums
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn bytes<const T: usize>(
    lines: &[Line],
    scales: &[u16],
    blocks: usize,
    inputs: [&[Block]; T],
) -> [__m512; T] {
    let mut sums = [_mm512_setzero_ps(); T];
    let weights = lines.chunks_exact(8).zip(scales.chunks_exact(TILE)).take(blocks);
    for (b, (lines, scales)) in weights.enumerate() {
        let input: [&Block; T] = std::array::from_fn(|t| &inputs[t][b]);
        // The weights are 128 too large: that much of the sum of the activations is taken away.
        let mut dots: [__m512i; T] = std::array::from_fn(|t| _mm512_set1_epi32(-128 * input[t].sum));
        let mut more = [_mm512_setzero_si512(); T];
        for (l, line) in lines.iter().enumerate() {
            ahead(line);
            let weights = load(line);
            for t in 0..T {
                let words = _mm512_set1_epi32(input[t].words[l]);
                if T == 1 && l >= 4 {
                    more[t] = _mm512_dpbusd_epi32(more[t], weights, words);
                } else {
                    dots[t] = _mm512_dpbusd_epi32(dots[t], weights, words);
                }
            }
        }
        let scale = widen(scales.try_into().expect("16 scales"));
        for t in 0..T {
            let dot = if T == 1 { _mm512_add_epi32(dots[t], more[t]) } else { dots[t] };
            let factor = _mm512_mul_ps(scale, _mm512_set1_ps(input[t].scale));
            sums[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), factor, sums[t]);
        }
    }
    sums
}

/// Whole blocks of activations, as the plain code has it.
pub(super) fn quantise(floats: &[f32], blocks: &mut [Block]) {
    #[expect(unsafe_code, reason = "a function for one instruction set")]
    // SAFETY: this set is only chosen after `is_supported` said that the machine has it.
    unsafe {
        quantise_here(floats, blocks);
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn quantise_here(floats: &[f32], blocks: &mut [Block]) {
    let (round, magnitude) = (_mm512_set1_ps(ROUND), _mm512_set1_epi32(0x7fff_ffff));
    for (values, block) in floats.as_chunks::<BLOCK>().0.iter().zip(blocks) {
        let (low, high) = values.split_at(BLOCK / 2);
        let parts = [floats_of(low), floats_of(high)];
        let magnitudes = parts.map(|part| _mm512_and_si512(_mm512_castps_si512(part), magnitude));
        let largest = _mm512_reduce_max_epi32(_mm512_max_epi32(magnitudes[0], magnitudes[1]));
        let largest = f32::from_bits(largest.cast_unsigned());
        let factor = _mm512_set1_ps(inverse(largest));
        // The lowest byte of a rounded float's bits is that of the integer: `ROUND`'s own ends in zeroes.
        let bytes = parts.map(|part| {
            let rounded = _mm512_add_ps(_mm512_mul_ps(part, factor), round);
            _mm512_cvtepi32_epi8(_mm512_castps_si512(rounded))
        });
        let sums = bytes.map(|bytes| _mm512_reduce_add_epi32(_mm512_cvtepi8_epi32(bytes)));
        #[expect(unsafe_code, reason = "SIMD")]
        // SAFETY: two vectors of four words are an array of eight.
        let words: [i32; 8] = unsafe { std::mem::transmute(bytes) };
        block.words = words;
        block.first = sums[0];
        block.sum = sums[0] + sums[1];
        block.scale = largest / 127.0;
        block.offset = block.scale * block.sum as f32;
    }
}

#[target_feature(enable = "avx512f")]
fn floats_of(values: &[f32]) -> __m512 {
    let values: &[f32; TILE] = values.try_into().expect("sixteen");
    #[expect(unsafe_code, reason = "SIMD")]
    // SAFETY: the array is 64 bytes, and the load needs no alignment.
    unsafe {
        _mm512_loadu_ps(values.as_ptr())
    }
}

#[target_feature(enable = "avx512f")]
pub(super) fn load(line: &Line) -> __m512i {
    #[expect(unsafe_code, reason = "SIMD")]
    // SAFETY: a line is 64 bytes on a 64-byte boundary.
    unsafe {
        _mm512_load_si512(line.0.as_ptr().cast())
    }
}

#[target_feature(enable = "avx512f")]
pub(super) fn ahead(line: &Line) {
    // Asking for memory ahead never faults, wherever the address points.
    _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(line).wrapping_add(AHEAD).cast());
}

#[target_feature(enable = "avx512f")]
fn widen(halves: &[u16; TILE]) -> __m512 {
    #[expect(unsafe_code, reason = "SIMD")]
    // SAFETY: the array is 32 bytes, and the load needs no alignment.
    unsafe {
        _mm512_cvtph_ps(_mm256_loadu_si256(halves.as_ptr().cast()))
    }
}

#[target_feature(enable = "avx512f")]
fn store(out: &mut [f32; TILE], sum: __m512) {
    #[expect(unsafe_code, reason = "SIMD")]
    // SAFETY: the array is 64 bytes, and the store needs no alignment.
    unsafe {
        _mm512_storeu_ps(out.as_mut_ptr(), sum);
    }
}
