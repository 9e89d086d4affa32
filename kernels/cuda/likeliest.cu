// The repetition penalty, and then the likeliest token: the lowest among equals.
//
//   l_t = l_t > 0 ? l_t / penalty : l_t * penalty     for t in the sequence's list of recent tokens
//   token = min { t : l_t = max l }
//
// One block of 256 threads for each sequence; `recent` is [sequence][256]. The logits stay penalised, for draw.cu.
#include "sampling.cuh"

constexpr u32 THREADS = 256;

extern "C" __global__ void __launch_bounds__(256) likeliest(
    float *logits, const u32 *recent, const Choice *choices, Chosen *chosen, u32 vocabulary) {
    __shared__ float values[THREADS];
    __shared__ u32 tokens[THREADS], strange[THREADS];
    const Choice choice = choices[blockIdx.x];
    logits += (u64)blockIdx.x * vocabulary;
    recent += blockIdx.x * RECENT;
    if (choice.penalty != 1.0f) {
        for (u32 i = threadIdx.x; i < choice.recent; i += THREADS) {
            const float logit = logits[recent[i]];
            logits[recent[i]] = logit > 0.0f ? __fdiv_rn(logit, choice.penalty) : mul(logit, choice.penalty);
        }
    }
    __syncthreads();

    float best = __int_as_float(0xff800000);
    u32 token = 0, odd = 0;
    for (u32 t = threadIdx.x; t < vocabulary; t += THREADS) {
        const float logit = logits[t];
        odd |= logit != logit;
        if (logit > best) best = logit, token = t;
    }
    values[threadIdx.x] = best, tokens[threadIdx.x] = token, strange[threadIdx.x] = odd;
    for (u32 half = THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) {
            const u32 a = threadIdx.x, b = threadIdx.x + half;
            strange[a] |= strange[b];
            if (values[b] > values[a] || (values[b] == values[a] && tokens[b] < tokens[a]))
                values[a] = values[b], tokens[a] = tokens[b];
        }
    }
    if (threadIdx.x == 0) {
        const bool infinite = (__float_as_uint(values[0]) & 0x7fffffff) == 0x7f800000;
        chosen[blockIdx.x].token = tokens[0];
        chosen[blockIdx.x].highest = values[0];
        chosen[blockIdx.x].failed = strange[0] | infinite;
        chosen[blockIdx.x].step = choice.step;
    }
}
