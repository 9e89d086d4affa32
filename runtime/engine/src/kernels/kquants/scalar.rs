//! The product in plain Rust: the reference for the others.

use super::{Kind, Layout, Packed};
use crate::kernels::{
    activations::{Activations, Block},
    half::{Soft, Widen},
    matrix::TILE,
};

/// 16 rows times each token.
pub(super) fn product<L: Layout>(packed: &Packed, tile: usize, inputs: &[&Activations], out: &mut [f32]) {
    for (input, out) in inputs.iter().zip(out.chunks_exact_mut(TILE)) {
        let [input] = packed.inputs(&[input]);
        out.copy_from_slice(&sums::<L>(packed, tile, input));
    }
}

fn sums<L: Layout>(packed: &Packed, tile: usize, input: &[Block]) -> [f32; TILE] {
    let mut sums = [0.0f32; TILE];
    for (index, block) in input.iter().enumerate() {
        let parts = packed.parts(L::KIND, tile, index);
        // The dot products of columns 0 to 15 and of 16 to 31.
        let mut dots = [[0i32; 2]; TILE];
        for (column, quant) in block.words.iter().flat_map(|word| word.to_le_bytes()).enumerate() {
            for (lane, dots) in dots.iter_mut().enumerate() {
                let weight = i32::from(parts.quant(L::KIND, lane, column));
                dots[column / 16] += weight * i32::from(quant as i8);
            }
        }
        let d = Soft::widen(parts.scales[..TILE].try_into().expect("16 scales"));
        for lane in 0..TILE {
            let [first, second] = dots[lane];
            let step = |nth: usize| parts.steps[nth * TILE + lane];
            let (dot, scale) = match L::KIND {
                Kind::Q5 => (first + second - 16 * block.sum, d[lane]),
                Kind::Q4K | Kind::Q5K => (first + second, d[lane] * f32::from(step(0))),
                Kind::Q6K => {
                    let first = (first - 32 * block.first) * i32::from(step(0) as i8);
                    let second = (second - 32 * (block.sum - block.first)) * i32::from(step(1) as i8);
                    (first + second, d[lane])
                }
            };
            sums[lane] = (dot as f32).mul_add(scale * block.scale, sums[lane]);
        }
        if L::KIND.has_minimum() {
            let m = Soft::widen(parts.scales[TILE..].try_into().expect("16 minima"));
            for lane in 0..TILE {
                let least = m[lane] * f32::from(parts.steps[TILE + lane]);
                sums[lane] = least.mul_add(-block.offset, sums[lane]);
            }
        }
    }
    sums
}
