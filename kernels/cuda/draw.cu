// Draws a token where a sequence has a temperature, after likeliest.cu and in the CPU sampler's order of sums.
//
//   w_t = e^((l_t - highest) / temperature)          S = sum w_t, in 16 lanes of double precision
//   candidates: w_t >= (1 - top_p) S / n, by falling weight, up to the first where their mass reaches top_p S
//   token: the first where the mass of the candidates exceeds u * kept,  u = philox(seed, position, choice) in [0, 1)
//
// With top_p = 1 all tokens are candidates, in their own order. Masses are running sums in double precision, so one
// thread adds them, from shared memory that all threads fill. Sorting is bitonic over keys (weight falling, token
// rising) in `keys`: for each sequence as many as the next power of two over `vocabulary`.
// One block of 256 threads for each sequence; `logits` become weights.
#include "sampling.cuh"

constexpr u32 THREADS = 256;

// Philox4x32-10 (Salmon et al., 2011), keyed by the seed, with position and choice as counter: a number in [0, 1).
INLINE double uniform(u64 seed, u64 position, u32 choice) {
    u32 c0 = (u32)position, c1 = (u32)(position >> 32), c2 = choice, c3 = 0;
    u32 k0 = (u32)seed, k1 = (u32)(seed >> 32);
    for (u32 round = 0; round < 10; round++) {
        const u32 high0 = __umulhi(c0, 0xD2511F53u), low0 = c0 * 0xD2511F53u;
        const u32 high2 = __umulhi(c2, 0xCD9E8D57u), low2 = c2 * 0xCD9E8D57u;
        c0 = high2 ^ c1 ^ k0, c1 = low2, c2 = high0 ^ c3 ^ k1, c3 = low0;
        k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
    return __dmul_rn((double)(((u64)c0 << 32 | c1) >> 11), 1.0 / 9007199254740992.0);
}

// Sorts `length` keys, a power of two, upwards.
INLINE void sort(u64 *keys, u32 length) {
    for (u32 size = 2; size <= length; size *= 2) {
        for (u32 stride = size / 2; stride > 0; stride /= 2) {
            for (u32 i = threadIdx.x; i < length / 2; i += THREADS) {
                const u32 a = i / stride * 2 * stride + i % stride, b = a + stride;
                const u64 left = keys[a], right = keys[b];
                if ((left > right) == ((a & size) == 0)) keys[a] = right, keys[b] = left;
            }
            __syncthreads();
        }
    }
}

// Where a running sum of weights stopped.
struct Running {
    double mass;
    u32 index;
    u32 stopped;
};

// Runs through `count` candidates until the mass reaches (or with `beyond` exceeds) `limit`.
INLINE void run(const float *weights, const u64 *keys, bool sorted, u32 count, double limit, bool beyond,
    float *staged, Running *running) {
    if (threadIdx.x == 0) running->mass = 0.0, running->index = 0, running->stopped = 0;
    __syncthreads();
    for (u32 first = 0; first < count && !running->stopped; first += THREADS) {
        const u32 i = first + threadIdx.x;
        if (i < count) staged[threadIdx.x] = sorted ? __uint_as_float(~(u32)(keys[i] >> 32)) : weights[i];
        __syncthreads();
        if (threadIdx.x == 0) {
            double mass = running->mass;
            const u32 here = count - first < THREADS ? count - first : THREADS;
            for (u32 k = 0; k < here; k++) {
                mass = __dadd_rn(mass, (double)staged[k]);
                running->index = first + k;
                if (beyond ? mass > limit : mass >= limit) {
                    running->stopped = 1;
                    break;
                }
            }
            running->mass = mass;
        }
        __syncthreads();
    }
}

extern "C" __global__ void __launch_bounds__(256) draw(
    float *logits, u64 *keys, const Choice *choices, Chosen *chosen, u32 vocabulary, u32 keys_len) {
    __shared__ double lanes[LANES];
    __shared__ float staged[THREADS];
    __shared__ u32 candidates;
    __shared__ Running running;
    const Choice choice = choices[blockIdx.x];
    if (choice.temperature == 0.0f || chosen[blockIdx.x].failed != 0) return; // the whole block
    float *weights = logits + (u64)blockIdx.x * vocabulary;
    keys += (u64)blockIdx.x * keys_len;

    const float inverse = __fdiv_rn(1.0f, choice.temperature), highest = chosen[blockIdx.x].highest;
    for (u32 t = threadIdx.x; t < vocabulary; t += THREADS)
        weights[t] = exponential(mul(__fsub_rn(weights[t], highest), inverse));
    if (threadIdx.x == 0) candidates = 0;
    __syncthreads();
    if (threadIdx.x < LANES) {
        double sum = 0.0;
        for (u32 t = threadIdx.x; t < vocabulary; t += LANES) sum = __dadd_rn(sum, (double)weights[t]);
        lanes[threadIdx.x] = sum;
    }
    __syncthreads();
    double sum = lanes[0];
    for (u32 lane = 1; lane < LANES; lane++) sum = __dadd_rn(sum, lanes[lane]);

    const double top_p = (double)choice.top_p;
    const bool sorted = top_p < 1.0;
    u32 count = vocabulary;
    if (sorted) {
        const float least = (float)__ddiv_rn(__dmul_rn(__dsub_rn(1.0, top_p), sum), (double)vocabulary);
        for (u32 t = threadIdx.x; t < vocabulary; t += THREADS)
            if (weights[t] >= least) keys[atomicAdd(&candidates, 1)] = (u64)~__float_as_uint(weights[t]) << 32 | t;
        __syncthreads();
        count = candidates;
        u32 length = 1;
        while (length < count) length *= 2;
        for (u32 i = count + threadIdx.x; i < length; i += THREADS) keys[i] = ~0ull;
        __syncthreads();
        sort(keys, length);
    }
    const double all = sorted ? __dmul_rn(top_p, sum) : __longlong_as_double(0x7ff0000000000000ll);
    run(weights, keys, sorted, count, all, false, staged, &running);
    const double target = __dmul_rn(uniform(choice.seed, choice.position, choice.choice), running.mass);
    count = running.index + 1;
    __syncthreads();
    run(weights, keys, sorted, count, target, true, staged, &running);
    if (threadIdx.x == 0) chosen[blockIdx.x].token = sorted ? (u32)keys[running.index] : running.index;
}
