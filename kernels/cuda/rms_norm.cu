// Root-mean-square norm, as floats and quantised for the matrix products that follow.
//
//   y_c = x_c * f * w_c,   f = 1 / sqrt(sum x_c^2 / n + epsilon)
//
// The squares are summed in 16 lanes, lane l over the columns l, l+16, l+32, ..., and the lanes by `total`: 16 threads
// run the lanes, since a sum in another order would be another number. One block of threads, of whole warps, for each
// row; `columns` is a multiple of 32.
#include "quantise.cuh"

extern "C" __global__ void rms_norm(
    const float *x, const float *weight, float *floats, Quants *out, u32 columns, float epsilon) {
    __shared__ float lanes[LANES];
    x += (u64)blockIdx.x * columns;
    floats += (u64)blockIdx.x * columns;
    out += blockIdx.x * (columns / BLOCK);
    if (threadIdx.x < LANES) {
        float sum = 0.0f;
        for (u32 column = threadIdx.x; column < columns; column += LANES) sum = fused(x[column], x[column], sum);
        lanes[threadIdx.x] = sum;
    }
    __syncthreads();
    const float mean = __fdiv_rn(total(lanes), (float)columns);
    const float factor = __fdiv_rn(1.0f, __fsqrt_rn(add(mean, epsilon)));
    for (u32 column = threadIdx.x; column < columns; column += blockDim.x) {
        const float value = mul(mul(x[column], factor), weight[column]);
        floats[column] = value;
        quantise_block(value, threadIdx.x % WARP, out + column / BLOCK);
    }
}
