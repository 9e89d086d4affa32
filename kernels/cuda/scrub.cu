// Wipes pages of keys and values when a sequence ends: they tell what was said.
//
// One block of threads for each page of the list; a page is `vectors` times 16 bytes.
#include "common.cuh"

extern "C" __global__ void scrub(uint4 *pages, const u32 *list, u32 vectors) {
    pages += (u64)list[blockIdx.x] * vectors;
    for (u32 i = threadIdx.x; i < vectors; i += blockDim.x) pages[i] = make_uint4(0, 0, 0, 0);
}
