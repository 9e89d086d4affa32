// The gated activation between two matrix products of a feed-forward layer, as floats and quantised for the second.
//
//   y = g / (1 + e^-g) * u
//
// One warp for each block of 32 columns, several warps in a block of threads; `blocks` counts all blocks of all rows.
#include "quantise.cuh"

extern "C" __global__ void swiglu(const float *gate, const float *up, float *floats, Quants *out, u32 blocks) {
    const u32 block = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
    const u32 lane = threadIdx.x % WARP;
    if (block < blocks) {
        const u64 at = (u64)block * BLOCK + lane;
        const float g = gate[at];
        const float value = mul(__fdiv_rn(g, add(1.0f, exponential(-g))), up[at]);
        floats[at] = value;
        quantise_block(value, lane, out + block);
    }
}
