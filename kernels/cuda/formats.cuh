// How quantised weights lie in device memory: tiles of 16 rows, so that 16 neighbouring threads read 16 neighbouring
// vectors of 16 bytes. For each tile, for each block of 32 columns:
//
//   Q4_0, Q4_1   16 vectors, one a row: byte k holds column k in its low nibble and column 16+k in its high one
//   Q8_0         16 vectors of the columns 0 to 15, then 16 vectors of the columns 16 to 31
//   scales       16 halves, one a row; for Q4_1 16 minima after them
//
// Rows that fill the last tile up are zero.
#pragma once
#include "common.cuh"

// Nibbles less 8, times a scale.
struct Q4_0 {
    static constexpr u32 VECTORS = 1, HALVES = 1;

    static INLINE int dot(const uint4 *w, const int4 *a, int sum) {
        return nibbles(w[0].x, a[0].x, a[1].x, nibbles(w[0].y, a[0].y, a[1].y,
               nibbles(w[0].z, a[0].z, a[1].z, nibbles(w[0].w, a[0].w, a[1].w, -8 * sum))));
    }
    static INLINE float value(const u8 *row, u32 column) { return (float)((int)nibble(row, column) - 8); }
    static INLINE u32 nibble(const u8 *row, u32 column) {
        return row[column % 16] >> (column < 16 ? 0 : 4) & 15;
    }
    static INLINE int nibbles(u32 word, int low, int high, int sum) {
        return __dp4a((int)(word >> 4 & 0x0f0f0f0f), high, __dp4a((int)(word & 0x0f0f0f0f), low, sum));
    }
};

// Nibbles times a scale, plus a minimum.
struct Q4_1 {
    static constexpr u32 VECTORS = 1, HALVES = 2;

    static INLINE int dot(const uint4 *w, const int4 *a, int) { return Q4_0::dot(w, a, 0); }
    static INLINE float value(const u8 *row, u32 column) { return (float)Q4_0::nibble(row, column); }
};

// Signed bytes times a scale.
struct Q8_0 {
    static constexpr u32 VECTORS = 2, HALVES = 1;

    static INLINE int dot(const uint4 *w, const int4 *a, int) {
        return half(w[1], a[1], half(w[0], a[0], 0));
    }
    static INLINE float value(const u8 *row, u32 column) {
        return (float)(signed char)row[column / 16 * TILE * 16 + column % 16];
    }
    static INLINE int half(uint4 w, int4 a, int sum) {
        return __dp4a((int)w.w, a.w, __dp4a((int)w.z, a.z, __dp4a((int)w.y, a.y, __dp4a((int)w.x, a.x, sum))));
    }
};
