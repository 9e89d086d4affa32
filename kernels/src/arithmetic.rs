//! What the canary expects: the arithmetic of `cuda/common.cuh` on this machine's CPU, whose rules are the engine's.

/// e to the x: `exponential` of `common.cuh`, step by step.
pub(crate) fn exponential(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0;
    let low = x < -87.0;
    let x = if x > 88.0 { 88.0 } else { x };
    let x = if low { -87.0 } else { x };
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(2.121_944_4e-4, n.mul_add(-355.0 / 512.0, x));
    let p = r.mul_add(1.987_569_1e-4, 1.398_199_9e-3);
    let p =
        [8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5].into_iter().fold(p, |p, c: f32| p.mul_add(r, c));
    let p = p.mul_add(r * r, r) + 1.0;
    let exponent = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32).wrapping_add(127);
    if low { 0.0 } else { p * f32::from_bits((exponent << 23) as u32) }
}

/// To the nearest half and back, for what is neither tiny nor huge: by adding and taking away what has the half's last
/// place as its own.
pub(crate) fn through_half(x: f32) -> f32 {
    // 2^13 times the power of two below x: then 13 bits of x fall off, ties to even.
    let power = f32::from_bits(x.to_bits() & 0x7f80_0000 | x.to_bits() & 0x8000_0000);
    let shift = power * 8192.0 * 1.5;
    // Halves below 2^-14 have a fixed last place, 2^-24.
    let shift = if x.abs() < 6.103_515_6e-5 { 0.75 } else { shift };
    (x + shift) - shift
}

/// Four products of signed bytes, and a sum.
pub(crate) fn dot(a: u32, b: u32, sum: i32) -> i32 {
    let bytes = a.to_le_bytes().into_iter().zip(b.to_le_bytes());
    bytes.fold(sum, |sum, (a, b)| sum.wrapping_add(i32::from(a as i8) * i32::from(b as i8)))
}
