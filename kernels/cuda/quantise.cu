// Rows of floats quantised to int8 in blocks of 32: attention's results on their way into a matrix product.
//
// One warp for each block of columns, several warps in a block of threads; `blocks` counts all blocks of all rows.
#include "quantise.cuh"

extern "C" __global__ void quantise(const float *x, Quants *out, u32 blocks) {
    const u32 block = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
    const u32 lane = threadIdx.x % WARP;
    if (block < blocks) quantise_block(x[(u64)block * BLOCK + lane], lane, out + block);
}
