// Enough of CUDA for g++ to compile kernels/cuda as they are: threads of a block are threads of the system, one block
// runs after the other, and sanitizers see every access. Compile with -ffp-contract=off: what is not fused in the
// source is not fused here.
#pragma once
#include <barrier>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#define __global__
#define __device__
#define __forceinline__ inline
#define __shared__ static
#define __align__(n) alignas(n)
#define __launch_bounds__(n)

struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct alignas(16) int4 {
    int x, y, z, w;
};
struct alignas(8) float2 {
    float x, y;
};
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }

struct Index {
    unsigned x, y;
};
extern thread_local Index threadIdx, blockIdx, blockDim;

// What the threads of a block, and those of a warp, wait at.
struct Warp {
    std::barrier<> barrier{32};
    unsigned words[32];
};
extern std::barrier<> *block_barrier;
extern Warp *warps;

inline void __syncthreads() { block_barrier->arrive_and_wait(); }

// All 32 lanes, each with its word; lanes that point outside get their own.
inline unsigned exchange(unsigned mask, unsigned word, unsigned source) {
    if (mask != 0xffffffffu) abort();
    Warp &warp = warps[threadIdx.x / 32];
    const unsigned lane = threadIdx.x % 32;
    warp.words[lane] = word;
    warp.barrier.arrive_and_wait();
    const unsigned found = warp.words[source < 32 ? source : lane];
    warp.barrier.arrive_and_wait();
    return found;
}
template <class T> T __shfl_xor_sync(unsigned mask, T value, unsigned lanes) {
    return std::bit_cast<T>(exchange(mask, std::bit_cast<unsigned>(value), threadIdx.x % 32 ^ lanes));
}
template <class T> T __shfl_down_sync(unsigned mask, T value, unsigned lanes) {
    return std::bit_cast<T>(exchange(mask, std::bit_cast<unsigned>(value), threadIdx.x % 32 + lanes));
}
inline unsigned atomicAdd(unsigned *at, unsigned value) { return __atomic_fetch_add(at, value, __ATOMIC_RELAXED); }

inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return sqrtf(a); }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline int __float_as_int(float a) { return std::bit_cast<int>(a); }
inline unsigned __float_as_uint(float a) { return std::bit_cast<unsigned>(a); }
inline float __int_as_float(int a) { return std::bit_cast<float>(a); }
inline float __uint_as_float(unsigned a) { return std::bit_cast<float>(a); }
inline double __longlong_as_double(long long a) { return std::bit_cast<double>(a); }
inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((uint64_t)a * b >> 32); }
inline int __dp4a(int a, int b, int sum) {
    for (int byte = 0; byte < 32; byte += 8) sum += (signed char)(a >> byte) * (signed char)(b >> byte);
    return sum;
}

// The compiler's own half: to nearest, ties to even.
inline float widen(unsigned short half) { return (float)std::bit_cast<_Float16>(half); }
inline unsigned short narrow(float single) { return std::bit_cast<unsigned short>((_Float16)single); }
