// Quantised weights times quantised activations, for up to 8 tokens at a time.
//
//   y_r = sum over blocks b of  dot(q_rb, a_b) * (s_rb * s_b)  [+ m_rb * o_b]
//
// with scales s and minima m as formats.cuh has them. dot is over 32 int8 pairs and exact, so all threads may share it; the sum over blocks is of floats and goes in the
// order of the blocks, each step fused. So 256 threads compute the dots of 16 rows and 16 blocks into shared memory,
// and then one thread for each row and token adds them, while the others are at the next 16 blocks: there are two
// buffers, and one barrier for each of them. No sum is split, whatever the batch: a token's numbers do not depend on
// who is beside it.
//
// Grid: (tiles of 16 rows, groups of 8 tokens), 256 threads. `out` is [token][row].
#include "formats.cuh"

constexpr u32 TOKENS = 8; // tokens that one pass over the weights serves
constexpr u32 CHUNK = 16; // blocks of columns between two barriers

template <class Format>
INLINE void matmul(
    const uint4 *quants, const u16 *scales, const Quants *input, float *out, u32 rows, u32 columns, u32 tokens) {
    __shared__ int dots[2][TOKENS][CHUNK][TILE];
    __shared__ u16 halves[2][Format::HALVES][CHUNK][TILE];
    const u32 blocks = columns / BLOCK, first = blockIdx.y * TOKENS;
    const u32 here = tokens - first < TOKENS ? tokens - first : TOKENS;
    const u32 lane = threadIdx.x % TILE, slot = threadIdx.x / TILE;
    const u32 row = blockIdx.x * TILE + lane;
    input += first * blocks;

    float sum = 0.0f; // of row `row` and token `first + slot`
    for (u32 start = 0, turn = 0; start < blocks; start += CHUNK, turn ^= 1) {
        const u32 block = start + slot;
        if (block < blocks) {
            const u32 at = blockIdx.x * blocks + block;
            uint4 weights[Format::VECTORS];
            for (u32 v = 0; v < Format::VECTORS; v++) weights[v] = quants[(at * Format::VECTORS + v) * TILE + lane];
            for (u32 h = 0; h < Format::HALVES; h++)
                halves[turn][h][slot][lane] = scales[Format::place(at, h, lane)];
            u32 extra[Format::EXTRA];
            Format::extra(scales, at, lane, extra);
            for (u32 token = 0; token < here; token++) {
                const Quants *a = input + token * blocks + block;
                const int4 words[2] = {((const int4 *)a->words)[0], ((const int4 *)a->words)[1]};
                dots[turn][token][slot][lane] = Format::dot(weights, extra, words, a);
            }
        }
        __syncthreads();
        if (slot < here) {
            const Quants *a = input + slot * blocks + start;
            const u32 count = blocks - start < CHUNK ? blocks - start : CHUNK;
            for (u32 b = 0; b < count; b++) {
                u16 own[Format::HALVES];
                for (u32 h = 0; h < Format::HALVES; h++) own[h] = halves[turn][h][b][lane];
                sum = Format::plus(dots[turn][slot][b][lane], own, a + b, sum);
            }
        }
    }
    if (slot < here && row < rows) out[(u64)(first + slot) * rows + row] = sum;
}

#define MATMUL(name, Format)                                                                                           \
    extern "C" __global__ void __launch_bounds__(256) name(const uint4 *quants, const u16 *scales,                     \
        const Quants *input, float *out, u32 rows, u32 columns, u32 tokens) {                                          \
        matmul<Format>(quants, scales, input, out, rows, columns, tokens);                                             \
    }
MATMUL(matmul_q4_0, Q4_0)
MATMUL(matmul_q4_1, Q4_1)
MATMUL(matmul_q5_0, Q5_0)
MATMUL(matmul_q8_0, Q8_0)
MATMUL(matmul_q4_k, Q4_K)
MATMUL(matmul_q5_k, Q5_K)
MATMUL(matmul_q6_k, Q6_K)
