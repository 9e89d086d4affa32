// Weights that are single numbers times activations that are floats, for up to 4 tokens at a time.
//
//   y_r = (c_0 + c_1) + (c_2 + c_3),   c_k = sum over the columns j = k, k+4, k+8, ... of  w_rj * x_j
//
// Each chain c_k goes in the order of its columns, each step fused: four chains since one addition waits for the one
// before. So 256 threads are 16 rows, 4 chains and 4 tokens, and after a barrier one thread for each row and token joins
// the chains. No sum is split, whatever the batch.
//
// Grid: (tiles of 16 rows, groups of 4 tokens), 256 threads. `columns` is a multiple of 32; `out` is [token][row].
#include "formats.cuh"

constexpr u32 CHAINS = 4;
constexpr u32 TOKENS = 4;

template <class Number>
INLINE void matmul_numbers(const typename Number::Stored *weights, const float *input, float *out, u32 rows, u32 columns,
    u32 tokens) {
    __shared__ float chains[TOKENS][CHAINS][TILE];
    const u32 lane = threadIdx.x % TILE, chain = threadIdx.x / TILE % CHAINS, slot = threadIdx.x / (TILE * CHAINS);
    const u32 token = blockIdx.y * TOKENS + slot, row = blockIdx.x * TILE + lane;
    if (token < tokens) {
        weights += (u64)blockIdx.x * columns * TILE + lane;
        input += (u64)token * columns;
        float sum = 0.0f;
        for (u32 column = chain; column < columns; column += CHAINS)
            sum = fused(Number::single(weights[(u64)column * TILE]), input[column], sum);
        chains[slot][chain][lane] = sum;
    }
    __syncthreads();
    if (chain == 0 && token < tokens && row < rows) {
        const float front = add(chains[slot][0][lane], chains[slot][1][lane]);
        out[(u64)token * rows + row] = add(front, add(chains[slot][2][lane], chains[slot][3][lane]));
    }
}

#define MATMUL_NUMBERS(name, Number)                                                                                   \
    extern "C" __global__ void __launch_bounds__(256) name(const Number::Stored *weights, const float *input,          \
        float *out, u32 rows, u32 columns, u32 tokens) {                                                               \
        matmul_numbers<Number>(weights, input, out, rows, columns, tokens);                                            \
    }
MATMUL_NUMBERS(matmul_f16, F16)
MATMUL_NUMBERS(matmul_bf16, BF16)
MATMUL_NUMBERS(matmul_f32, F32)
