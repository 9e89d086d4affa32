//! Half-precision numbers: exact widening, and narrowing to nearest, ties to even.

/// Widens sixteen halves; each implementation gives the same bits for all that is a number.
pub(crate) trait Widen {
    fn widen(halves: &[u16; 16]) -> [f32; 16];
}

/// In plain integer arithmetic.
pub(crate) struct Soft;

impl Widen for Soft {
    #[inline(always)]
    fn widen(halves: &[u16; 16]) -> [f32; 16] {
        halves.map(widen)
    }
}

/// With `vcvtph2ps` on 256 bits.
#[cfg(target_arch = "x86_64")]
pub(crate) struct F16c;

#[cfg(target_arch = "x86_64")]
impl Widen for F16c {
    #[inline(always)]
    #[expect(unsafe_code, reason = "SIMD")]
    fn widen(halves: &[u16; 16]) -> [f32; 16] {
        use std::arch::x86_64::{__m128i, __m256, _mm_loadu_si128, _mm256_cvtph_ps};
        // SAFETY: this type is only named inside functions compiled for F16C (`on_each_set`); both loads lie in the
        // array; two vectors of eight floats are an array of sixteen.
        unsafe {
            let start = halves.as_ptr().cast::<__m128i>();
            let parts: [__m256; 2] =
                [_mm256_cvtph_ps(_mm_loadu_si128(start)), _mm256_cvtph_ps(_mm_loadu_si128(start.add(1)))];
            std::mem::transmute(parts)
        }
    }
}

/// With `vcvtph2ps` on 512 bits.
#[cfg(target_arch = "x86_64")]
pub(crate) struct Avx512f;

#[cfg(target_arch = "x86_64")]
impl Widen for Avx512f {
    #[inline(always)]
    #[expect(unsafe_code, reason = "SIMD")]
    fn widen(halves: &[u16; 16]) -> [f32; 16] {
        use std::arch::x86_64::{_mm256_loadu_si256, _mm512_cvtph_ps};
        // SAFETY: this type is only named inside functions compiled for AVX-512F (`on_each_set`); the load lies in
        // the array; a vector of sixteen floats is an array of sixteen.
        unsafe { std::mem::transmute(_mm512_cvtph_ps(_mm256_loadu_si256(halves.as_ptr().cast()))) }
    }
}

/// Whether a half is neither infinite nor what is not a number.
pub(crate) fn is_finite(half: u16) -> bool {
    half & 0x7c00 != 0x7c00
}

/// Exact: a bfloat16 is the upper half of a single.
#[inline(always)]
pub(crate) fn widen_brain(brain: u16) -> f32 {
    f32::from_bits(u32::from(brain) << 16)
}

/// Exact: every half is a single.
#[inline(always)]
pub(crate) fn widen(half: u16) -> f32 {
    let sign = u32::from(half & 0x8000) << 16;
    let magnitude = u32::from(half & 0x7fff);
    let bits = if magnitude >= 0x7c00 {
        0x7f80_0000 | (magnitude & 0x3ff) << 13 // infinities and what is not a number
    } else {
        // The exponent's bias differs by 112; the product is exact, and right for subnormal halves too.
        (f32::from_bits(magnitude << 13) * f32::from_bits(0x7780_0000)).to_bits()
    };
    f32::from_bits(bits | sign)
}

/// To the nearest half, ties to even; what is too large becomes infinite.
#[inline(always)]
pub(crate) fn narrow(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = (bits >> 16 & 0x8000) as u16;
    let magnitude = bits & 0x7fff_ffff;
    if magnitude > 0x7f80_0000 {
        return sign | 0x7e00;
    }
    if magnitude >= 0x477f_f000 {
        return sign | 0x7c00; // 65520 and more
    }
    if magnitude < 0x3880_0000 {
        // Below the smallest normal half, 2^-14: the sum with 0.5 rounds to multiples of 2^-24.
        let rounded = f32::from_bits(magnitude) + 0.5;
        return sign | (rounded.to_bits() - 0x3f00_0000) as u16;
    }
    let odd = magnitude >> 13 & 1;
    sign | ((magnitude - 0x3800_0000 + 0xfff + odd) >> 13) as u16
}
