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
    /// The sum of the first sixteen.
    pub(crate) first: i32,
}

impl Quants {
    /// As it lies in device memory.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let quants = self.quants.iter().map(|quant| *quant as u8);
        let rest = [self.scale.to_bits(), self.offset.to_bits(), self.sum as u32, self.first as u32];
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
        let sum = |quants: &[i8]| quants.iter().map(|quant| i32::from(*quant)).sum();
        let (first, sum) = (sum(&quants[..16]), sum(&quants));
        let scale = largest / 127.0;
        Quants { quants, scale, offset: scale * sum as f32, sum, first }
    };
    values.chunks_exact(BLOCK).map(block).collect()
}

/// 32 columns of a row of a GGUF file.
pub(crate) struct Block {
    /// Scale and minimum of the block or of its 256 columns.
    d: f32,
    m: f32,
    /// What these are multiplied by: for Q6_K both are scales, each of 16 columns.
    steps: [i32; 2],
    /// Less what the format takes off.
    quants: [i32; 32],
}

/// The blocks of a row.
pub(crate) fn blocks(format: Format, row: &[u8]) -> Vec<Block> {
    row.chunks_exact(format.block_bytes()).flat_map(|data| read(format, data)).collect()
}

fn read(format: Format, data: &[u8]) -> Vec<Block> {
    let half = |at: usize| widen(u16::from_le_bytes([data[at], data[at + 1]]));
    let nibble = |byte: u8, high: bool| i32::from(if high { byte >> 4 } else { byte & 15 });
    let plain = |d, m, quants| vec![Block { d, m, steps: [1, 1], quants }];
    let from_fn = |value: &dyn Fn(usize) -> i32| std::array::from_fn(value);
    match format {
        Format::Q4_0 => plain(half(0), 0.0, from_fn(&|c| nibble(data[2 + c % 16], c >= 16) - 8)),
        Format::Q4_1 => plain(half(0), half(2), from_fn(&|c| nibble(data[4 + c % 16], c >= 16))),
        Format::Q8_0 => plain(half(0), 0.0, from_fn(&|c| i32::from(data[2 + c] as i8))),
        Format::Q5_0 => {
            let bits = u32::from_le_bytes(data[2..6].try_into().expect("four bytes"));
            let five = |c: usize| nibble(data[6 + c % 16], c >= 16) + 16 * (bits >> c & 1) as i32 - 16;
            plain(half(0), 0.0, from_fn(&five))
        }
        Format::Q4K | Format::Q5K => (0..8)
            .map(|block| {
                let p = &data[4..16];
                let steps = match block {
                    0..4 => [p[block] & 63, p[block + 4] & 63],
                    _ => [
                        p[block + 4] & 15 | (p[block - 4] & 0xc0) >> 2,
                        p[block + 4] >> 4 | (p[block] & 0xc0) >> 2,
                    ],
                };
                let low = if format == Format::Q5K { 48 } else { 16 };
                let quant = |c: usize| {
                    let fifth = if format == Format::Q5K { data[16 + c] >> block & 1 } else { 0 };
                    nibble(data[low + block / 2 * 32 + c], block % 2 == 1) + 16 * i32::from(fifth)
                };
                Block { d: half(0), m: half(2), steps: steps.map(i32::from), quants: from_fn(&quant) }
            })
            .collect(),
        Format::Q6K => (0..8)
            .map(|block| {
                let (part, quarter) = (block / 4, block % 4);
                let quant = |c: usize| {
                    let low = nibble(data[part * 64 + quarter % 2 * 32 + c], quarter >= 2);
                    low + 16 * i32::from(data[128 + part * 32 + c] >> (2 * quarter) & 3) - 32
                };
                let steps = [0, 1].map(|half| i32::from(data[192 + block * 2 + half] as i8));
                Block { d: half(208), m: 0.0, steps, quants: from_fn(&quant) }
            })
            .collect(),
        Format::F16 | Format::Bf16 | Format::F32 => panic!("{format:?} has no blocks"),
    }
}

/// Single numbers of a row.
pub(crate) fn numbers(format: Format, row: &[u8]) -> Vec<f32> {
    let number = |data: &[u8]| match format {
        Format::F16 => widen(u16::from_le_bytes([data[0], data[1]])),
        Format::Bf16 => f32::from_bits(u32::from_le_bytes([0, 0, data[0], data[1]])),
        Format::F32 => f32::from_le_bytes(data.try_into().expect("four bytes")),
        other => panic!("{other:?} is of blocks"),
    };
    row.chunks_exact(format.block_bytes()).map(number).collect()
}

/// A row as floats: an embedding.
pub(crate) fn row(format: Format, row: &[u8]) -> Vec<f32> {
    if format.is_numbers() {
        return numbers(format, row);
    }
    let values = |block: Block| {
        let Block { d, m, steps: [s, t], quants } = block;
        let value = move |(column, quant): (usize, i32)| match format {
            Format::Q4_0 | Format::Q4_1 | Format::Q8_0 => (quant as f32).mul_add(d, m),
            Format::Q5_0 => quant as f32 * d,
            Format::Q6K => quant as f32 * (d * if column < 16 { s } else { t } as f32),
            _ => (quant as f32).mul_add(d * s as f32, -(m * t as f32)),
        };
        quants.into_iter().enumerate().map(value).collect::<Vec<f32>>()
    };
    blocks(format, row).into_iter().flat_map(values).collect()
}

/// One row of weights times one token's activations.
pub(crate) fn product(format: Format, row: &[u8], floats: &[f32]) -> f32 {
    if format.is_numbers() {
        let mut chains = [0.0f32; 4];
        for (column, (weight, value)) in numbers(format, row).into_iter().zip(floats).enumerate() {
            chains[column % 4] = weight.mul_add(*value, chains[column % 4]);
        }
        return (chains[0] + chains[1]) + (chains[2] + chains[3]);
    }
    let mut sum = 0.0f32;
    for (block, input) in blocks(format, row).into_iter().zip(quantise(floats)) {
        let Block { d, m, steps: [s, t], quants } = block;
        let pairs = quants.iter().zip(input.quants).map(|(weight, value)| weight * i32::from(value));
        let halves = [pairs.clone().take(16).sum::<i32>(), pairs.skip(16).sum()];
        let (dot, scale) = match format {
            Format::Q6K => (halves[0] * s + halves[1] * t, d),
            _ => (halves[0] + halves[1], d * s as f32),
        };
        sum = (dot as f32).mul_add(scale * input.scale, sum);
        sum = match format {
            Format::Q4_1 => m.mul_add(input.offset, sum),
            Format::Q4K | Format::Q5K => (m * t as f32).mul_add(-input.offset, sum),
            _ => sum,
        };
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
