//! What the CPU engine computes, in its order of sums (`runtime/engine/src/kernels`), one number after the other.
//! `tests/model.rs` holds this and the kernels to the engine itself.

use cocoon_kernels::{BLOCK, Format, PAGE};

/// 32 activations.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Quants {
    pub(crate) quants: [i8; 32],
    pub(crate) scale: f32,
    pub(crate) offset: f32,
    pub(crate) sum: i32,
}

impl Quants {
    /// As it lies in device memory.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let quants = self.quants.iter().map(|quant| *quant as u8);
        let rest = [self.scale.to_bits(), self.offset.to_bits(), self.sum as u32, 0];
        quants.chain(rest.into_iter().flat_map(u32::to_le_bytes)).collect()
    }
}

pub(crate) fn quantise(values: &[f32]) -> Vec<Quants> {
    let block = |values: &[f32]| {
        let largest = f32::from_bits(values.iter().map(|v| v.to_bits() & 0x7fff_ffff).max().expect("32"));
        let inverse = if largest > 1e-30 { 127.0 / largest } else { 0.0 };
        let mut quants = [0; 32];
        for (quant, value) in quants.iter_mut().zip(values) {
            *quant = (value * inverse).round_ties_even() as i8;
        }
        let sum = quants.iter().map(|quant| i32::from(*quant)).sum();
        let scale = largest / 127.0;
        Quants { quants, scale, offset: scale * sum as f32, sum }
    };
    values.chunks_exact(BLOCK).map(block).collect()
}

/// Scale, minimum and 32 quants of a block of a GGUF file.
pub(crate) fn read_block(format: Format, block: &[u8]) -> (f32, f32, [i32; 32]) {
    let half = |at: usize| widen(u16::from_le_bytes([block[at], block[at + 1]]));
    let nibble = |column: usize, at: usize| {
        let byte = block[at + column % 16];
        i32::from(if column < 16 { byte & 15 } else { byte >> 4 })
    };
    match format {
        Format::Q4_0 => (half(0), 0.0, std::array::from_fn(|column| nibble(column, 2) - 8)),
        Format::Q4_1 => (half(0), half(2), std::array::from_fn(|column| nibble(column, 4))),
        Format::Q8_0 => (half(0), 0.0, std::array::from_fn(|column| i32::from(block[2 + column] as i8))),
    }
}

/// One row of weights times one token's activations.
pub(crate) fn product(format: Format, row: &[u8], input: &[Quants]) -> f32 {
    let mut sum = 0.0f32;
    for (block, input) in row.chunks_exact(format.block_bytes()).zip(input) {
        let (scale, least, quants) = read_block(format, block);
        let dot: i32 = quants.iter().zip(input.quants).map(|(w, a)| w * i32::from(a)).sum();
        sum = (dot as f32).mul_add(scale * input.scale, sum);
        if format == Format::Q4_1 {
            sum = least.mul_add(input.offset, sum);
        }
    }
    sum
}

pub(crate) fn rms_norm(x: &[f32], weight: &[f32], epsilon: f32) -> Vec<f32> {
    let mut lanes = [0.0f32; 16];
    for (index, value) in x.iter().enumerate() {
        lanes[index % 16] = value.mul_add(*value, lanes[index % 16]);
    }
    let factor = 1.0 / (total(lanes) / x.len() as f32 + epsilon).sqrt();
    x.iter().zip(weight).map(|(value, weight)| value * factor * weight).collect()
}

pub(crate) fn total(mut lanes: [f32; 16]) -> f32 {
    for width in [8, 4, 2, 1] {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
    }
    lanes[0]
}

pub(crate) fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0;
    if x < -87.0 {
        return 0.0;
    }
    let x = if x > 88.0 { 88.0 } else { x };
    let n = x.mul_add(std::f32::consts::LOG2_E, ROUND) - ROUND;
    let r = n.mul_add(2.121_944_4e-4, n.mul_add(-355.0 / 512.0, x));
    let mut p = r.mul_add(1.987_569_1e-4, 1.398_199_9e-3);
    for c in [8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5.0e-1] {
        p = p.mul_add(r, c);
    }
    (p.mul_add(r * r, r) + 1.0) * f32::from_bits(((n as i32 + 127) << 23) as u32)
}

pub(crate) fn swiglu(gate: &[f32], up: &[f32]) -> Vec<f32> {
    gate.iter().zip(up).map(|(gate, up)| gate / (1.0 + exp(-gate)) * up).collect()
}

pub(crate) fn rotate(head: &mut [f32], angles: &[(f32, f32)]) {
    for (pair, (cos, sin)) in head.chunks_exact_mut(2).zip(angles) {
        let (a, b) = (pair[0], pair[1]);
        (pair[0], pair[1]) = (a * cos - b * sin, a * sin + b * cos);
    }
}

/// Attention of one query over keys and values of one head, token by token.
pub(crate) fn attend(query: &[f32], keys: &[Vec<f32>], values: &[Vec<f32>]) -> Vec<f32> {
    let (mut highest, mut weight) = (f32::NEG_INFINITY, 0.0f32);
    let mut sums = vec![0.0f32; query.len()];
    for (keys, values) in keys.chunks(PAGE).zip(values.chunks(PAGE)) {
        let mut scores = [f32::NEG_INFINITY; PAGE];
        for (score, key) in scores.iter_mut().zip(keys) {
            *score = query.iter().zip(key).fold(0.0f32, |sum, (query, key)| key.mul_add(*query, sum));
        }
        let top = scores.iter().fold(highest, |top, score| if *score > top { *score } else { top });
        let fade = exp(highest - top);
        let scores = scores.map(|score| exp(score - top));
        weight = weight.mul_add(fade, total(scores));
        highest = top;
        for (d, sum) in sums.iter_mut().enumerate() {
            *sum *= fade;
            *sum = scores.iter().zip(values).fold(*sum, |sum, (score, value)| value[d].mul_add(*score, sum));
        }
    }
    let inverse = 1.0 / weight;
    sums.iter().map(|sum| sum * inverse).collect()
}

/// By definition: sign, exponent, fraction.
pub(crate) fn widen(half: u16) -> f32 {
    let (exponent, fraction) = (i32::from(half >> 10 & 31), f32::from(half & 1023));
    let magnitude = match exponent {
        0 => fraction * 2f32.powi(-24),
        31 => f32::INFINITY,
        _ => (1024.0 + fraction) * 2f32.powi(exponent - 25),
    };
    if half & 0x8000 == 0 { magnitude } else { -magnitude }
}

/// The nearest half, the even one of two: by trying the neighbours of a guess. For numbers that are no larger than 60000.
pub(crate) fn narrow(value: f32) -> u16 {
    let sign = if value.is_sign_negative() { 0x8000 } else { 0 };
    let magnitude = f64::from(value.abs());
    let (mut low, mut high) = (0u16, 0x7bffu16);
    while high - low > 1 {
        let middle = (low + high) / 2;
        if f64::from(widen(middle)) <= magnitude { low = middle } else { high = middle }
    }
    let (below, above) = (magnitude - f64::from(widen(low)), f64::from(widen(high)) - magnitude);
    sign | if below < above || (below == above && low % 2 == 0) { low } else { high }
}
