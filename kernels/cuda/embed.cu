// The embedding of each token: one row of a matrix, as floats.
//
//   x[t][c] = W[token_t][c]
//
// What a weight is, formats.cuh says; each product and sum is rounded as the CPU engine rounds it. One block of threads
// for each token. `tokens[t]` is a row of the matrix: the caller has checked it.
#include "formats.cuh"

template <class Format>
INLINE void embed(const u8 *quants, const u16 *scales, const u32 *tokens, float *out, u32 columns) {
    const u32 row = tokens[blockIdx.x];
    const u32 tile = row / TILE, lane = row % TILE, blocks = columns / BLOCK;
    for (u32 column = threadIdx.x; column < columns; column += blockDim.x) {
        const u32 block = tile * blocks + column / BLOCK;
        const u8 *bytes = quants + (u64)(block * Format::VECTORS * TILE + lane) * 16;
        u16 halves[Format::HALVES];
        for (u32 h = 0; h < Format::HALVES; h++) halves[h] = scales[Format::place(block, h, lane)];
        u32 extra[Format::EXTRA];
        Format::extra(scales, block, lane, extra);
        out[(u64)blockIdx.x * columns + column] = Format::value(bytes, halves, extra, column % BLOCK);
    }
}

template <class Number>
INLINE void embed_numbers(const typename Number::Stored *weights, const u32 *tokens, float *out, u32 columns) {
    const u32 row = tokens[blockIdx.x];
    weights += (u64)(row / TILE) * columns * TILE + row % TILE;
    for (u32 column = threadIdx.x; column < columns; column += blockDim.x)
        out[(u64)blockIdx.x * columns + column] = Number::single(weights[(u64)column * TILE]);
}

#define EMBED(name, Format)                                                                                            \
    extern "C" __global__ void name(                                                                                   \
        const u8 *quants, const u16 *scales, const u32 *tokens, float *out, u32 columns) {                             \
        embed<Format>(quants, scales, tokens, out, columns);                                                           \
    }
EMBED(embed_q4_0, Q4_0)
EMBED(embed_q4_1, Q4_1)
EMBED(embed_q5_0, Q5_0)
EMBED(embed_q8_0, Q8_0)
EMBED(embed_q4_k, Q4_K)
EMBED(embed_q5_k, Q5_K)
EMBED(embed_q6_k, Q6_K)

#define EMBED_NUMBERS(name, Number)                                                                                    \
    extern "C" __global__ void name(                                                                                   \
        const Number::Stored *weights, const u32 *tokens, float *out, u32 columns) {                                   \
        embed_numbers<Number>(weights, tokens, out, columns);                                                          \
    }
EMBED_NUMBERS(embed_f16, F16)
EMBED_NUMBERS(embed_bf16, BF16)
EMBED_NUMBERS(embed_f32, F32)
