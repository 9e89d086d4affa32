//! What encoders need beside: norms with a mean, GELU by the error function, attention in both directions.

use super::{
    half::Widen,
    on_each_set,
    vector::{exp, total},
};

/// Lanes of a sum, as in `vector`.
const LANES: usize = 16;

on_each_set! {
    /// `x = (x - mean(x)) / sqrt(variance(x) + epsilon) * weight + bias`, in place.
    pub(crate) fn layer_norm(x: &mut [f32], weight: &[f32], bias: &[f32], epsilon: f32) = layer_norm_body
}

#[inline(always)]
fn layer_norm_body<W: Widen>(x: &mut [f32], weight: &[f32], bias: &[f32], epsilon: f32) {
    let mut lanes = [0.0f32; LANES];
    for piece in x.chunks(LANES) {
        lanes.iter_mut().zip(piece).for_each(|(lane, value)| *lane += value);
    }
    let mean = total(lanes) / x.len() as f32;
    let mut lanes = [0.0f32; LANES];
    for piece in x.chunks_mut(LANES) {
        for (lane, value) in lanes.iter_mut().zip(piece) {
            *value -= mean;
            *lane = value.mul_add(*value, *lane);
        }
    }
    let factor = 1.0 / (total(lanes) / x.len() as f32 + epsilon).sqrt();
    for ((value, weight), bias) in x.iter_mut().zip(weight).zip(bias) {
        *value = (*value * factor).mul_add(*weight, *bias);
    }
}

on_each_set! {
    /// `x = x/2 (1 + erf(x/√2))`, in place, to 2 · 10^-7 of it or of one.
    pub(crate) fn gelu(x: &mut [f32]) = gelu_body
}

/// The error function after Abramowitz and Stegun, 7.1.26.
#[inline(always)]
fn gelu_body<W: Widen>(x: &mut [f32]) {
    const ROOT: f32 = std::f32::consts::FRAC_1_SQRT_2;
    for value in x {
        let size = value.abs() * ROOT;
        let t = 1.0 / size.mul_add(0.327_591_1, 1.0);
        let p = t.mul_add(1.061_405_4, -1.453_152);
        let p = p.mul_add(t, 1.421_413_7);
        let p = p.mul_add(t, -0.284_496_74);
        let p = p.mul_add(t, 0.254_829_6) * t;
        let erf = 1.0 - p * exp(-size * size);
        *value *= 0.5 * (1.0 + erf.copysign(*value));
    }
}

on_each_set! {
    /// Attention of one query, which carries its factor already, over all tokens. Keys and values lie token by token,
    /// `stride` apart, and begin with this head's; `scores` has room for all tokens.
    pub(crate) fn attend_to_all(
        query: &[f32],
        keys: &[f32],
        values: &[f32],
        stride: usize,
        scores: &mut [f32],
        out: &mut [f32],
    ) = attend_to_all_body
}

#[inline(always)]
fn attend_to_all_body<W: Widen>(
    query: &[f32],
    keys: &[f32],
    values: &[f32],
    stride: usize,
    scores: &mut [f32],
    out: &mut [f32],
) {
    let mut highest = f32::NEG_INFINITY;
    for (score, key) in scores.iter_mut().zip(keys.chunks(stride)) {
        let mut lanes = [0.0f32; LANES];
        for (query, key) in query.chunks_exact(LANES).zip(key.chunks_exact(LANES)) {
            for lane in 0..LANES {
                lanes[lane] = query[lane].mul_add(key[lane], lanes[lane]);
            }
        }
        *score = total(lanes);
        highest = if *score > highest { *score } else { highest };
    }
    out.fill(0.0);
    let mut weight = 0.0f32;
    for (score, value) in scores.iter().zip(values.chunks(stride)) {
        let share = exp(score - highest);
        weight += share;
        for (out, value) in out.iter_mut().zip(value) {
            *out = value.mul_add(share, *out);
        }
    }
    let inverse = 1.0 / weight;
    out.iter_mut().for_each(|out| *out *= inverse);
}
