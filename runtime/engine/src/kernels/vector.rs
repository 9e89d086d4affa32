//! Element by element: norms, rotations, activations, exponentials.

use super::{half::Widen, on_each_set};

/// Lanes of a sum: wide enough for every instruction set, the same on all.
const LANES: usize = 16;

/// Adds lanes in one fixed order.
#[inline(always)]
pub(super) fn total(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
        width /= 2;
    }
    lanes[0]
}

on_each_set! {
    /// `out = x / sqrt(mean(x²) + epsilon) * weight`.
    pub(crate) fn rms_norm(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) = rms_norm_body
}

#[inline(always)]
fn rms_norm_body<W: Widen>(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    let mut lanes = [0.0f32; LANES];
    let mut pieces = x.chunks_exact(LANES);
    for piece in &mut pieces {
        for lane in 0..LANES {
            lanes[lane] = piece[lane].mul_add(piece[lane], lanes[lane]);
        }
    }
    for (lane, value) in lanes.iter_mut().zip(pieces.remainder()) {
        *lane = value.mul_add(*value, *lane);
    }
    let factor = 1.0 / (total(lanes) / x.len() as f32 + epsilon).sqrt();
    for ((value, weight), out) in x.iter().zip(weight).zip(out) {
        *out = value * factor * weight;
    }
}

on_each_set! {
    /// Adds the rows of a product, which lie in tiles, to `x`; token `token` of `tokens`.
    pub(crate) fn add(x: &mut [f32], tiles: &[f32], tokens: usize, token: usize) = add_body
}

#[inline(always)]
fn add_body<W: Widen>(x: &mut [f32], tiles: &[f32], tokens: usize, token: usize) {
    for (tile, piece) in x.chunks_mut(LANES).enumerate() {
        for (value, more) in piece.iter_mut().zip(&tiles[(tile * tokens + token) * LANES..][..LANES]) {
            *value += more;
        }
    }
}

on_each_set! {
    /// `out = gate * sigmoid(gate) * up`, for one token of a product that lies in tiles.
    pub(crate) fn swiglu(gate: &[f32], up: &[f32], tokens: usize, token: usize, out: &mut [f32]) = swiglu_body
}

#[inline(always)]
fn swiglu_body<W: Widen>(gate: &[f32], up: &[f32], tokens: usize, token: usize, out: &mut [f32]) {
    for (tile, piece) in out.chunks_mut(LANES).enumerate() {
        let from = (tile * tokens + token) * LANES;
        let gate: &[f32; LANES] = gate[from..from + LANES].try_into().expect("one tile");
        let up: &[f32; LANES] = up[from..from + LANES].try_into().expect("one tile");
        let mut result = [0.0; LANES];
        for lane in 0..LANES {
            result[lane] = gate[lane] / (1.0 + exp(-gate[lane])) * up[lane];
        }
        piece.copy_from_slice(&result[..piece.len()]);
    }
}

on_each_set! {
    /// `out = gelu(gate) * up`, GELU by its approximation with `tanh`; for one token of a product that lies in tiles.
    pub(crate) fn geglu(gate: &[f32], up: &[f32], tokens: usize, token: usize, out: &mut [f32]) = geglu_body
}

#[inline(always)]
fn geglu_body<W: Widen>(gate: &[f32], up: &[f32], tokens: usize, token: usize, out: &mut [f32]) {
    /// `x/2 (1 + tanh(√(2/π) (x + 0.044715 x³)))` is `x sigmoid(2 √(2/π) (x + 0.044715 x³))`.
    const TWICE: f32 = 1.595_769;
    const CUBE: f32 = 0.044_715;
    for (tile, piece) in out.chunks_mut(LANES).enumerate() {
        let from = (tile * tokens + token) * LANES;
        let gate: &[f32; LANES] = gate[from..from + LANES].try_into().expect("one tile");
        let up: &[f32; LANES] = up[from..from + LANES].try_into().expect("one tile");
        let mut result = [0.0; LANES];
        for lane in 0..LANES {
            let x = gate[lane];
            let inner = TWICE * (x * x * x).mul_add(CUBE, x);
            result[lane] = x / (1.0 + exp(-inner)) * up[lane];
        }
        piece.copy_from_slice(&result[..piece.len()]);
    }
}

/// Rotates neighbouring pairs of a head by the angles of one position.
pub(crate) fn rotate(head: &mut [f32], angles: &[(f32, f32)]) {
    for (pair, (cos, sin)) in head.chunks_exact_mut(2).zip(angles) {
        let (a, b) = (pair[0], pair[1]);
        pair[0] = a * cos - b * sin;
        pair[1] = a * sin + b * cos;
    }
}

/// Rotates each dimension of the first half of what turns with its counterpart in the second half.
pub(crate) fn rotate_halves(head: &mut [f32], angles: &[(f32, f32)]) {
    let (first, second) = head.split_at_mut(angles.len());
    for ((a, b), (cos, sin)) in first.iter_mut().zip(second).zip(angles) {
        (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
    }
}

/// Replaces each value by `exp((value - highest) * factor)`; the sum of all, in double precision.
pub(crate) fn exponentials(values: &mut [f32], highest: f32, factor: f32) -> f64 {
    exponentials_on(super::InstructionSet::detect(), values, highest, factor)
}

on_each_set! {
    fn exponentials_on(values: &mut [f32], highest: f32, factor: f32) -> f64 = exponentials_body
}

#[inline(always)]
fn exponentials_body<W: Widen>(values: &mut [f32], highest: f32, factor: f32) -> f64 {
    let mut lanes = [0.0f64; LANES];
    let mut pieces = values.chunks_exact_mut(LANES);
    for piece in &mut pieces {
        for lane in 0..LANES {
            piece[lane] = exp((piece[lane] - highest) * factor);
            lanes[lane] += f64::from(piece[lane]);
        }
    }
    for (value, lane) in pieces.into_remainder().iter_mut().zip(&mut lanes) {
        *value = exp((*value - highest) * factor);
        *lane += f64::from(*value);
    }
    lanes.iter().sum()
}

/// e to the x, within two units in the last place; 0 below -87, and no more than e to the 88. After Cephes' `expf`.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0;
    let low = x < -87.0;
    let x = if x > 88.0 { 88.0 } else { x };
    let x = if low { -87.0 } else { x };
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-355.0 / 512.0, x);
    let r = n.mul_add(2.121_944_4e-4, r);
    let p = r.mul_add(1.987_569_1e-4, 1.398_199_9e-3);
    let p = p.mul_add(r, 8.333_452e-3);
    let p = p.mul_add(r, 4.166_579_6e-2);
    let p = p.mul_add(r, 1.666_666_5e-1);
    let p = p.mul_add(r, 5.0e-1);
    let p = p.mul_add(r * r, r) + 1.0;
    let exponent = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32).wrapping_add(127);
    let power = f32::from_bits((exponent << 23) as u32);
    if low { 0.0 } else { p * power }
}
