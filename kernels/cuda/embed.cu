// The embedding of each token: one row of a quantised matrix.
//
//   x[t][c] = quant(W[token_t][c]) * scale + minimum      (fused; the minimum is 0 but in Q4_1)
//
// One block of threads for each token. `tokens[t]` is a row of the matrix: the caller has checked it.
#include "formats.cuh"

template <class Format>
INLINE void embed(const u8 *quants, const u16 *scales, const u32 *tokens, float *out, u32 columns) {
    const u32 row = tokens[blockIdx.x];
    const u32 tile = row / TILE, lane = row % TILE, blocks = columns / BLOCK;
    for (u32 column = threadIdx.x; column < columns; column += blockDim.x) {
        const u32 block = tile * blocks + column / BLOCK;
        const u8 *bytes = quants + (u64)(block * Format::VECTORS * TILE + lane) * 16;
        const u16 *halves = scales + block * Format::HALVES * TILE + lane;
        const float least = Format::HALVES == 2 ? widen(halves[TILE]) : 0.0f;
        out[(u64)blockIdx.x * columns + column] =
            fused(Format::value(bytes, column % BLOCK), widen(halves[0]), least);
    }
}

#define EMBED(name, Format)                                                                                            \
    extern "C" __global__ void name(                                                                                   \
        const u8 *quants, const u16 *scales, const u32 *tokens, float *out, u32 columns) {                             \
        embed<Format>(quants, scales, tokens, out, columns);                                                           \
    }
EMBED(embed_q4_0, Q4_0)
EMBED(embed_q4_1, Q4_1)
EMBED(embed_q8_0, Q8_0)
