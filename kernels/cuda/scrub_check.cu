// The proof that pages are clean before they go to another tenant: how many of their 32-bit words are not zero.
//
//   dirty[i] += 1 + number of words w of page list[i] with w != 0
//
// The 1 says that the page was looked at: a proof that did not run must not look like a clean page.
// `dirty` is zero before. One block of threads, of whole warps, for each page; a page is `vectors` times 16 bytes.
#include "common.cuh"

extern "C" __global__ void scrub_check(const uint4 *pages, const u32 *list, u32 *dirty, u32 vectors) {
    pages += (u64)list[blockIdx.x] * vectors;
    u32 count = threadIdx.x == 0 ? 1 : 0;
    for (u32 i = threadIdx.x; i < vectors; i += blockDim.x) {
        const uint4 words = pages[i];
        count += (words.x != 0) + (words.y != 0) + (words.z != 0) + (words.w != 0);
    }
    for (u32 offset = 16; offset > 0; offset /= 2) count += __shfl_down_sync(0xffffffff, count, offset);
    if (threadIdx.x % 32 == 0 && count != 0) atomicAdd(&dirty[blockIdx.x], count);
}
