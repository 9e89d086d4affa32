// Attention of one query over the keys and values of its sequence, page by page, with a running maximum.
//
//   s_t = q . k_t       top' = max(top, s of the page)       fade = e^(top - top')       e_t = e^(s_t - top')
//   weight = weight * fade + total(e of the page)             o_d = o_d * fade + sum_t e_t * v_td
//   out_d = o_d / weight
//
// Sums over dimensions and over tokens go in order, each step fused; pages go in order, since each fades what came
// before. What has an order is done by one thread: 16 pages at a time, thread (page, token) computes a score, and
// thread d carries o_d through the pages. Nothing depends on how many threads or sequences there are.
//
// Grid: (heads, rows of the step), 256 threads. Layout of pages as in rope_kv.cu.
#include "common.cuh"

struct Shape {
    u32 layers, heads, kv_heads, head_len;
    u32 pairs;
    u32 table_width;
};

constexpr u32 ROUND = 16; // pages at a time: 256 scores
#define INFINITE __int_as_float(0x7f800000)

extern "C" __global__ void __launch_bounds__(256) attention(const float *query, const u16 *pages, const u32 *sequence,
    const u32 *position, const u32 *table, float *out, Shape shape, u32 layer) {
    __shared__ float queries[MAX_HEAD];
    __shared__ float scores[ROUND][PAGE];
    __shared__ float tops[ROUND], fades[ROUND], totals[ROUND];
    const u32 head = blockIdx.x, row = blockIdx.y, thread = threadIdx.x;
    const u32 slot = thread % PAGE, local = thread / PAGE;
    const u32 tokens = position[row] + 1, part = shape.head_len * PAGE; // itself and all before it
    const u32 all_pages = (tokens + PAGE - 1) / PAGE;
    const u64 page_len = (u64)shape.layers * shape.kv_heads * 2 * part;
    table += sequence[row] * shape.table_width;
    pages += (u64)(layer * shape.kv_heads + head / (shape.heads / shape.kv_heads)) * 2 * part;
    query += ((u64)row * shape.heads + head) * shape.head_len;
    if (thread < shape.head_len) queries[thread] = query[thread];
    __syncthreads();

    float highest = -INFINITE, weight = 0.0f, sum = 0.0f; // `sum` is dimension `thread`
    for (u32 first = 0; first < all_pages; first += ROUND) {
        const u32 count = all_pages - first < ROUND ? all_pages - first : ROUND;
        // Scores, and the highest of each page.
        float score = -INFINITE;
        if ((first + local) * PAGE + slot < tokens) {
            const u16 *keys = pages + table[first + local] * page_len + slot;
            score = 0.0f;
            for (u32 d = 0; d < shape.head_len; d++) score = fused(widen(keys[d * PAGE]), queries[d], score);
        }
        scores[local][slot] = score;
        __syncthreads();
        if (thread < count) {
            float top = -INFINITE;
            for (u32 t = 0; t < PAGE; t++) top = scores[thread][t] > top ? scores[thread][t] : top;
            tops[thread] = top;
        }
        __syncthreads();
        // The running maximum up to this thread's page, and before it.
        float before = highest, top = highest;
        for (u32 p = 0; p < count; p++) {
            if (p == local) before = highest;
            highest = tops[p] > highest ? tops[p] : highest;
            if (p == local) top = highest;
        }
        if (local < count) {
            scores[local][slot] = exponential(__fsub_rn(score, top));
            if (slot == 0) fades[local] = exponential(__fsub_rn(before, top));
        }
        __syncthreads();
        if (thread < count) totals[thread] = total(scores[thread]);
        __syncthreads();
        // Values, by dimension.
        for (u32 p = 0; p < count; p++) {
            const float fade = fades[p];
            weight = fused(weight, fade, totals[p]);
            if (thread < shape.head_len) {
                const u32 left = tokens - (first + p) * PAGE, filled = left < PAGE ? left : PAGE;
                const u16 *values = pages + table[first + p] * page_len + part + thread;
                if (fade != 1.0f) sum = mul(sum, fade);
                for (u32 t = 0; t < filled; t++) sum = fused(widen(values[t * shape.head_len]), scores[p][t], sum);
            }
        }
        __syncthreads(); // before the next round writes scores
    }
    if (thread < shape.head_len)
        out[((u64)row * shape.heads + head) * shape.head_len + thread] = mul(sum, __fdiv_rn(1.0f, weight));
}
