// How weights lie in device memory: tiles of 16 rows, so that 16 neighbouring threads read 16 neighbouring places. For each
// tile, for each block of 32 columns:
//
//   all but Q8_0   16 vectors of 16 bytes, one a row: byte k holds the low four bits of column k in its low nibble, and of
//                  column 16+k in its high one
//   Q8_0           16 vectors of the columns 0 to 15, then 16 vectors of the columns 16 to 31
//
// Beside them lie lines of 16 halves, one a row:
//
//   Q4_0, Q8_0     for each block: scale
//   Q4_1           for each block: scale, minimum
//   Q5_0           for each block: scale, two lines of fifth bits
//   Q4_K           for each 8 blocks: scale d, minimum m; 8 lines of steps
//   Q5_K           the same, and 8 times two lines of fifth bits
//   Q6_K           for each 8 blocks: scale d; 8 lines of steps; 8 times four lines of fifth and sixth bits
//
// A step is two bytes: s and t (Q6_K: signed, s of the columns 0 to 15 and of 16 to 31). Two lines of fifth bits are a
// word a row: bit l of its byte k is of column 4l+k, bit 4+l of column 16+4l+k. Four lines are two words, of the columns
// 0 to 15 and of 16 to 31: bits 2l and 2l+1 of byte k are of column 4l+k.
//
// F16, BF16 and F32 are tiles alone: 16 rows of column 0, then of column 1, and so on.
// Rows that fill the last tile up are zero.
#pragma once
#include "common.cuh"

// Each format of blocks has: VECTORS and HALVES a row of a block, where `place` finds the halves; `extra`, further words
// of a row; `dot`, exact; `plus`, what a block adds to a sum; and `value`, one weight.

INLINE int dot4(u32 a, int b, int sum) { return __dp4a((int)a, b, sum); }
INLINE u32 nibble(const u8 *row, u32 column) { return row[column % 16] >> (column < 16 ? 0 : 4) & 15; }
INLINE u32 low(u32 word) { return word & 0x0f0f0f0f; }
INLINE u32 high(u32 word) { return word >> 4 & 0x0f0f0f0f; }
// Two lines of halves as a word.
INLINE u32 pair(const u16 *halves) { return halves[0] | (u32)halves[TILE] << 16; }

// 32 nibbles of a row with 32 activations.
INLINE int nibbles(uint4 w, const int4 *a, int sum) {
    sum = dot4(high(w.x), a[1].x, dot4(low(w.x), a[0].x, sum));
    sum = dot4(high(w.y), a[1].y, dot4(low(w.y), a[0].y, sum));
    sum = dot4(high(w.z), a[1].z, dot4(low(w.z), a[0].z, sum));
    return dot4(high(w.w), a[1].w, dot4(low(w.w), a[0].w, sum));
}

// The fifth bits of four columns, at their places.
INLINE u32 fifth(u32 bits, u32 shift) { return (bits >> shift & 0x01010101) << 4; }

// The same with numbers of five bits.
INLINE int fives(uint4 w, u32 bits, const int4 *a, int sum) {
    sum = dot4(high(w.x) | fifth(bits, 4), a[1].x, dot4(low(w.x) | fifth(bits, 0), a[0].x, sum));
    sum = dot4(high(w.y) | fifth(bits, 5), a[1].y, dot4(low(w.y) | fifth(bits, 1), a[0].y, sum));
    sum = dot4(high(w.z) | fifth(bits, 6), a[1].z, dot4(low(w.z) | fifth(bits, 2), a[0].z, sum));
    return dot4(high(w.w) | fifth(bits, 7), a[1].w, dot4(low(w.w) | fifth(bits, 3), a[0].w, sum));
}

// One number of five bits.
INLINE u32 five(const u8 *row, u32 bits, u32 column) {
    return nibble(row, column) | (bits >> (column % 4 * 8 + column % 16 / 4 + column / 16 * 4) & 1) << 4;
}

// The fifth and sixth bits of four columns, at their places.
INLINE u32 sixth(u32 bits, u32 shift) { return (bits >> shift & 0x03030303) << 4; }

// 16 numbers of six bits, the low four of each word of `w` given, with 16 activations.
INLINE int sixes(u32 x, u32 y, u32 z, u32 w, u32 bits, int4 a, int sum) {
    return dot4(w | sixth(bits, 6), a.w, dot4(z | sixth(bits, 4), a.z, dot4(y | sixth(bits, 2), a.y,
           dot4(x | sixth(bits, 0), a.x, sum))));
}

// Where halves lie that come block by block, COUNT a row.
template <u32 COUNT> INLINE u32 in_block(u32 at, u32 half, u32 lane) { return (at * COUNT + half) * TILE + lane; }

// A block with a scale alone adds  dot * (scale * a.scale).
INLINE float scaled(int dot, float scale, const Quants *a, float sum) {
    return fused((float)dot, mul(scale, a->scale), sum);
}

// Nibbles less 8, times a scale.
struct Q4_0 {
    static constexpr u32 VECTORS = 1, HALVES = 1, EXTRA = 1;

    static INLINE u32 place(u32 at, u32 half, u32 lane) { return in_block<1>(at, half, lane); }
    static INLINE void extra(const u16 *, u32, u32, u32 *) {}
    static INLINE int dot(const uint4 *w, const u32 *, const int4 *a, const Quants *q) {
        return nibbles(w[0], a, -8 * q->sum);
    }
    static INLINE float plus(int dot, const u16 *halves, const Quants *a, float sum) {
        return scaled(dot, widen(halves[0]), a, sum);
    }
    static INLINE float value(const u8 *row, const u16 *halves, const u32 *, u32 column) {
        return fused((float)((int)nibble(row, column) - 8), widen(halves[0]), 0.0f);
    }
};

// Nibbles times a scale, plus a minimum, which adds  minimum * a.offset.
struct Q4_1 {
    static constexpr u32 VECTORS = 1, HALVES = 2, EXTRA = 1;

    static INLINE u32 place(u32 at, u32 half, u32 lane) { return in_block<2>(at, half, lane); }
    static INLINE void extra(const u16 *, u32, u32, u32 *) {}
    static INLINE int dot(const uint4 *w, const u32 *, const int4 *a, const Quants *) { return nibbles(w[0], a, 0); }
    static INLINE float plus(int dot, const u16 *halves, const Quants *a, float sum) {
        return fused(widen(halves[1]), a->offset, scaled(dot, widen(halves[0]), a, sum));
    }
    static INLINE float value(const u8 *row, const u16 *halves, const u32 *, u32 column) {
        return fused((float)nibble(row, column), widen(halves[0]), widen(halves[1]));
    }
};

// Signed bytes times a scale.
struct Q8_0 {
    static constexpr u32 VECTORS = 2, HALVES = 1, EXTRA = 1;

    static INLINE u32 place(u32 at, u32 half, u32 lane) { return in_block<1>(at, half, lane); }
    static INLINE void extra(const u16 *, u32, u32, u32 *) {}
    static INLINE int dot(const uint4 *w, const u32 *, const int4 *a, const Quants *) {
        return bytes(w[1], a[1], bytes(w[0], a[0], 0));
    }
    static INLINE int bytes(uint4 w, int4 a, int sum) {
        return dot4(w.w, a.w, dot4(w.z, a.z, dot4(w.y, a.y, dot4(w.x, a.x, sum))));
    }
    static INLINE float plus(int dot, const u16 *halves, const Quants *a, float sum) {
        return scaled(dot, widen(halves[0]), a, sum);
    }
    static INLINE float value(const u8 *row, const u16 *halves, const u32 *, u32 column) {
        return fused((float)(signed char)row[column / 16 * TILE * 16 + column % 16], widen(halves[0]), 0.0f);
    }
};

// Numbers of five bits less 16, times a scale.
struct Q5_0 {
    static constexpr u32 VECTORS = 1, HALVES = 1, EXTRA = 1;

    static INLINE u32 place(u32 at, u32 half, u32 lane) { return in_block<3>(at, half, lane); }
    static INLINE void extra(const u16 *halves, u32 at, u32 lane, u32 *out) { out[0] = pair(halves + place(at, 1, lane)); }
    static INLINE int dot(const uint4 *w, const u32 *bits, const int4 *a, const Quants *q) {
        return fives(w[0], bits[0], a, -16 * q->sum);
    }
    static INLINE float plus(int dot, const u16 *halves, const Quants *a, float sum) {
        return scaled(dot, widen(halves[0]), a, sum);
    }
    static INLINE float value(const u8 *row, const u16 *halves, const u32 *bits, u32 column) {
        return mul((float)((int)five(row, bits[0], column) - 16), widen(halves[0]));
    }
};

// Numbers of four (FIFTH: five) bits, (d s) q - (m t). Its halves: d, m, and the step of the block.
template <bool FIFTH> struct Stepped {
    static constexpr u32 VECTORS = 1, HALVES = 3, EXTRA = 1;
    static constexpr u32 LINES = FIFTH ? 26 : 10; // of 8 blocks

    static INLINE u32 place(u32 at, u32 half, u32 lane) {
        return (at / 8 * LINES + (half < 2 ? half : 2 + at % 8)) * TILE + lane;
    }
    static INLINE void extra(const u16 *halves, u32 at, u32 lane, u32 *out) {
        if (FIFTH) out[0] = pair(halves + (at / 8 * LINES + 10 + at % 8 * 2) * TILE + lane);
    }
    static INLINE int dot(const uint4 *w, const u32 *bits, const int4 *a, const Quants *) {
        return FIFTH ? fives(w[0], bits[0], a, 0) : nibbles(w[0], a, 0);
    }
    static INLINE float scale(const u16 *halves) { return mul(widen(halves[0]), (float)(halves[2] & 255)); }
    static INLINE float least(const u16 *halves) { return mul(widen(halves[1]), (float)(halves[2] >> 8)); }
    static INLINE float plus(int dot, const u16 *halves, const Quants *a, float sum) {
        return fused(least(halves), -a->offset, scaled(dot, scale(halves), a, sum));
    }
    static INLINE float value(const u8 *row, const u16 *halves, const u32 *bits, u32 column) {
        const u32 quant = FIFTH ? five(row, bits[0], column) : nibble(row, column);
        return fused((float)quant, scale(halves), -least(halves));
    }
};
typedef Stepped<false> Q4_K;
typedef Stepped<true> Q5_K;

// Numbers of six bits less 32, d s (q - 32), with s for 16 columns. Its words: both of higher bits, and the step.
struct Q6_K {
    static constexpr u32 VECTORS = 1, HALVES = 1, EXTRA = 3;
    static constexpr u32 LINES = 41; // of 8 blocks

    static INLINE u32 place(u32 at, u32, u32 lane) { return at / 8 * LINES * TILE + lane; }
    static INLINE void extra(const u16 *halves, u32 at, u32 lane, u32 *out) {
        const u16 *of = halves + at / 8 * LINES * TILE + lane;
        out[0] = pair(of + (9 + at % 8 * 4) * TILE);
        out[1] = pair(of + (11 + at % 8 * 4) * TILE);
        out[2] = of[(1 + at % 8) * TILE];
    }
    static INLINE int step(u32 steps, u32 nth) { return (signed char)(steps >> (8 * nth)); }
    static INLINE int dot(const uint4 *w, const u32 *words, const int4 *a, const Quants *q) {
        const uint4 v = w[0];
        const int first = sixes(low(v.x), low(v.y), low(v.z), low(v.w), words[0], a[0], -32 * q->first);
        const int rest = -32 * (q->sum - q->first);
        const int second = sixes(high(v.x), high(v.y), high(v.z), high(v.w), words[1], a[1], rest);
        return first * step(words[2], 0) + second * step(words[2], 1);
    }
    static INLINE float plus(int dot, const u16 *halves, const Quants *a, float sum) {
        return scaled(dot, widen(halves[0]), a, sum);
    }
    static INLINE float value(const u8 *row, const u16 *halves, const u32 *words, u32 column) {
        const u32 word = column < 16 ? words[0] : words[1];
        const u32 bits = word >> (column % 4 * 8 + column % 16 / 4 * 2) & 3;
        const int quant = (int)(nibble(row, column) | bits << 4) - 32;
        return mul((float)quant, mul(widen(halves[0]), (float)step(words[2], column / 16)));
    }
};

// Formats of single numbers.
struct F16 {
    typedef u16 Stored;
    static INLINE float single(u16 half) { return widen(half); }
};
struct BF16 {
    typedef u16 Stored;
    static INLINE float single(u16 upper) { return __uint_as_float((u32)upper << 16); }
};
struct F32 {
    typedef float Stored;
    static INLINE float single(float value) { return value; }
};
