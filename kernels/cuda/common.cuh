// What the kernels share: sizes, layouts, and arithmetic that is the CPU engine's to the last bit.
//
// Three rules (runtime/engine/src/kernels/mod.rs) keep the bits equal, and any new kernel keeps them: integer dot
// products are exact; float sums have one written order; a product that is added is fused where `fused` stands and
// nowhere else. So no plain `*` and `+` on floats that a compiler might join: `mul`, `add` and `fused` name their
// rounding, and what an instruction names no later compiler changes.
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

constexpr u32 TILE = 16;      // rows of a tile of weights
constexpr u32 BLOCK = 32;     // columns that share a scale
constexpr u32 PAGE = 16;      // tokens in a page of keys and values
constexpr u32 MAX_HEAD = 256; // longest head
constexpr u32 LANES = 16;     // sums that run beside each other in a norm

// 32 activations as `scale * quant`; four quants in a word, the first in the lowest byte.
struct __align__(16) Quants {
    int words[8];
    float scale;
    float offset; // scale * sum: what a weight's minimum is multiplied by
    int sum;      // of the quants
    int first;    // of the first sixteen of them
};

#define INLINE __device__ __forceinline__

INLINE float mul(float a, float b) { return __fmul_rn(a, b); }
INLINE float add(float a, float b) { return __fadd_rn(a, b); }
INLINE float fused(float a, float b, float c) { return __fmaf_rn(a, b, c); }

#ifdef __CUDACC__
// Exact: every half is a single.
INLINE float widen(u16 half) {
    float single;
    asm("cvt.f32.f16 %0, %1;" : "=f"(single) : "h"(half));
    return single;
}

// To the nearest half, ties to even.
INLINE u16 narrow(float single) {
    u16 half;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(single));
    return half;
}
#endif

// e to the x within two units in the last place; 0 below -87, no more than e to the 88. Cephes' polynomial for
// x - n ln 2, times 2 to the n; n is rounded by adding 1.5 * 2^23, whose low bits then hold it.
INLINE float exponential(float x) {
    const float round = 12582912.0f;
    const bool low = x < -87.0f;
    x = x > 88.0f ? 88.0f : x;
    x = low ? -87.0f : x;
    const float shifted = fused(x, 1.44269504088896340736f, round);
    const float n = __fsub_rn(shifted, round);
    float r = fused(n, -0.693359375f, x);
    r = fused(n, 2.1219444e-4f, r);
    float p = fused(r, 1.9875691e-4f, 1.3981999e-3f);
    p = fused(p, r, 8.333452e-3f);
    p = fused(p, r, 4.1665796e-2f);
    p = fused(p, r, 1.6666665e-1f);
    p = fused(p, r, 5.0e-1f);
    p = add(fused(p, mul(r, r), r), 1.0f);
    const int exponent = __float_as_int(shifted) - __float_as_int(round) + 127;
    const float power = __int_as_float((u32)exponent << 23);
    return low ? 0.0f : mul(p, power);
}

// Adds 16 lanes: 0 with 8, 1 with 9 and so on, then by four, two and one.
INLINE float total(const float *lanes) {
    float sums[LANES / 2];
#pragma unroll
    for (u32 lane = 0; lane < 8; lane++) sums[lane] = add(lanes[lane], lanes[lane + 8]);
#pragma unroll
    for (u32 lane = 0; lane < 4; lane++) sums[lane] = add(sums[lane], sums[lane + 4]);
    return add(add(sums[0], sums[2]), add(sums[1], sums[3]));
}
