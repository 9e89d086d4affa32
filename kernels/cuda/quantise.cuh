// Quantising a block of 32 floats to int8, one float a lane of a warp.
#pragma once
#include "common.cuh"

constexpr u32 WARP = 32;
constexpr u32 ALL = 0xffffffff;

// With m = max |x_i|:  scale = m / 127,  q_i = round(x_i * (127 / m)), ties to even,  offset = scale * sum q_i.
// Every lane of the warp calls it with its own float and the same `out`.
INLINE void quantise_block(float value, u32 lane, Quants *out) {
    const float round = 12582912.0f;
    // Magnitudes order as integers, and what is not a number is over all of them.
    u32 largest_bits = __float_as_uint(value) & 0x7fffffff;
    for (u32 mask = 16; mask > 0; mask /= 2) {
        const u32 other = __shfl_xor_sync(ALL, largest_bits, mask);
        largest_bits = other > largest_bits ? other : largest_bits;
    }
    const float largest = __uint_as_float(largest_bits);
    // So near to zero the inverse would be infinite.
    const float inverse = largest > 1e-30f ? __fdiv_rn(127.0f, largest) : 0.0f;
    const int quant = __float_as_int(add(mul(value, inverse), round)) - __float_as_int(round);
    int first = (signed char)quant; // of this half of the warp
    for (u32 mask = 8; mask > 0; mask /= 2) first += __shfl_xor_sync(ALL, first, mask);
    const int sum = first + __shfl_xor_sync(ALL, first, 16);
    ((u8 *)out->words)[lane] = (u8)quant;
    if (lane == 0) {
        out->scale = __fdiv_rn(largest, 127.0f);
        out->offset = mul(out->scale, (float)sum);
        out->sum = sum;
        out->first = first;
    }
}
