//! The product of a tile in plain Rust: the reference for all others, and the only one for F16, BF16 and F32.

use super::{
    InstructionSet,
    activations::{Activations, Block},
    half::{Soft, Widen, widen_brain},
    matrix::{Line, Matrix, TILE, Weights},
    on_each_set,
};

/// 16 rows times each token.
pub(super) fn product(
    set: InstructionSet,
    matrix: &Matrix,
    tile: usize,
    inputs: &[&Activations],
    out: &mut [f32],
) {
    let columns = matrix.columns;
    let blocks = columns / 32;
    let lines_of = |each: usize| tile * blocks * each..(tile + 1) * blocks * each;
    for (input, out) in inputs.iter().zip(out.chunks_exact_mut(TILE)) {
        let out: &mut [f32; TILE] = out.try_into().expect("one tile");
        match &matrix.weights {
            Weights::Q4 { lines, scales } => {
                let scales = &scales[tile * blocks * TILE..][..blocks * TILE];
                *out = nibbles::<false>(&lines[lines_of(4)], scales, &input.blocks);
            }
            Weights::Q4Min { lines, scales } => {
                let scales = &scales[tile * blocks * 2 * TILE..][..blocks * 2 * TILE];
                *out = nibbles::<true>(&lines[lines_of(4)], scales, &input.blocks);
            }
            Weights::Q8 { lines, scales } => {
                let scales = &scales[tile * blocks * TILE..][..blocks * TILE];
                *out = bytes(&lines[lines_of(8)], scales, &input.blocks);
            }
            Weights::F16(values) => {
                let values = &values[tile * columns * TILE..][..columns * TILE];
                halves(set, values, &input.floats[..columns], out);
            }
            Weights::Bf16(values) => {
                let values = &values[tile * columns * TILE..][..columns * TILE];
                brains(set, values, &input.floats[..columns], out);
            }
            Weights::Finer(_) => unreachable!("has kernels of its own"),
            Weights::F32(values) => {
                let values = &values[tile * columns * TILE..][..columns * TILE];
                singles(set, values, &input.floats[..columns], out);
            }
        }
    }
}

/// The four quants of a word.
fn quants(word: i32) -> [i32; 4] {
    word.to_le_bytes().map(|byte| i32::from(byte as i8))
}

fn nibbles<const MIN: bool>(lines: &[Line], scales: &[u16], input: &[Block]) -> [f32; TILE] {
    let mut sums = [0.0f32; TILE];
    let halves = if MIN { 2 * TILE } else { TILE };
    for ((lines, scales), block) in lines.chunks_exact(4).zip(scales.chunks_exact(halves)).zip(input) {
        let mut dots = [if MIN { 0 } else { -8 * block.sum }; TILE];
        for (l, line) in lines.iter().enumerate() {
            let (low, high) = (quants(block.words[l]), quants(block.words[l + 4]));
            for (dot, four) in dots.iter_mut().zip(line.0.chunks_exact(4)) {
                for k in 0..4 {
                    *dot += i32::from(four[k] & 15) * low[k] + i32::from(four[k] >> 4) * high[k];
                }
            }
        }
        let widened = Soft::widen(scales[..TILE].try_into().expect("16 scales"));
        for lane in 0..TILE {
            sums[lane] = (dots[lane] as f32).mul_add(widened[lane] * block.scale, sums[lane]);
        }
        if MIN {
            let least = Soft::widen(scales[TILE..].try_into().expect("16 minima"));
            for lane in 0..TILE {
                sums[lane] = least[lane].mul_add(block.offset, sums[lane]);
            }
        }
    }
    sums
}

fn bytes(lines: &[Line], scales: &[u16], input: &[Block]) -> [f32; TILE] {
    let mut sums = [0.0f32; TILE];
    for ((lines, scales), block) in lines.chunks_exact(8).zip(scales.chunks_exact(TILE)).zip(input) {
        let mut dots = [0i32; TILE];
        for (line, word) in lines.iter().zip(block.words) {
            let quants = quants(word);
            for (dot, four) in dots.iter_mut().zip(line.0.chunks_exact(4)) {
                for k in 0..4 {
                    *dot += (i32::from(four[k]) - 128) * quants[k];
                }
            }
        }
        let widened = Soft::widen(scales.try_into().expect("16 scales"));
        for lane in 0..TILE {
            sums[lane] = (dots[lane] as f32).mul_add(widened[lane] * block.scale, sums[lane]);
        }
    }
    sums
}

/// Sums that run beside each other, so that one addition need not wait for the one before.
const CHAINS: usize = 4;

on_each_set! {
    fn halves(values: &[u16], input: &[f32], out: &mut [f32; TILE]) = halves_body
}

#[inline(always)]
fn halves_body<W: Widen>(values: &[u16], input: &[f32], out: &mut [f32; TILE]) {
    let mut chains = [[0.0f32; TILE]; CHAINS];
    for (columns, inputs) in values.chunks(CHAINS * TILE).zip(input.chunks(CHAINS)) {
        for ((column, input), chain) in columns.chunks_exact(TILE).zip(inputs).zip(&mut chains) {
            let weights = W::widen(column.try_into().expect("16 rows"));
            for lane in 0..TILE {
                chain[lane] = weights[lane].mul_add(*input, chain[lane]);
            }
        }
    }
    *out = join(&chains);
}

on_each_set! {
    fn brains(values: &[u16], input: &[f32], out: &mut [f32; TILE]) = brains_body
}

#[inline(always)]
fn brains_body<W: Widen>(values: &[u16], input: &[f32], out: &mut [f32; TILE]) {
    let mut chains = [[0.0f32; TILE]; CHAINS];
    for (columns, inputs) in values.chunks(CHAINS * TILE).zip(input.chunks(CHAINS)) {
        for ((column, input), chain) in columns.chunks_exact(TILE).zip(inputs).zip(&mut chains) {
            for lane in 0..TILE {
                chain[lane] = widen_brain(column[lane]).mul_add(*input, chain[lane]);
            }
        }
    }
    *out = join(&chains);
}

on_each_set! {
    fn singles(values: &[f32], input: &[f32], out: &mut [f32; TILE]) = singles_body
}

#[inline(always)]
fn singles_body<W: Widen>(values: &[f32], input: &[f32], out: &mut [f32; TILE]) {
    let mut chains = [[0.0f32; TILE]; CHAINS];
    for (columns, inputs) in values.chunks(CHAINS * TILE).zip(input.chunks(CHAINS)) {
        for ((column, input), chain) in columns.chunks_exact(TILE).zip(inputs).zip(&mut chains) {
            for lane in 0..TILE {
                chain[lane] = column[lane].mul_add(*input, chain[lane]);
            }
        }
    }
    *out = join(&chains);
}

#[inline(always)]
fn join(chains: &[[f32; TILE]; CHAINS]) -> [f32; TILE] {
    std::array::from_fn(|lane| (chains[0][lane] + chains[1][lane]) + (chains[2][lane] + chains[3][lane]))
}
