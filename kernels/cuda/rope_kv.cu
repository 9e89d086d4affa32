// Rotates queries and keys by their positions, and writes keys and values into their pages.
//
//   (a, b) -> (a cos - b sin, a sin + b cos)   for neighbouring dimensions 2i and 2i+1, i < pairs
//
// Sines and cosines come from the host, who has them in double precision. Queries are multiplied by 1/sqrt(head_len)
// on the way. A page holds 16 tokens of one sequence in all layers, as halves: for each layer and head the keys,
// dimension by dimension with 16 tokens beside each other, then the values, token by token. `table[s][i]` is the page
// of the tokens 16i to 16i+15 of sequence s.
//
// One block of threads for each row of the step; row r is the token at `position[r]` of sequence `sequence[r]`.
#include "common.cuh"

struct Shape {
    u32 layers, heads, kv_heads, head_len;
    u32 pairs;       // rotated pairs of a head
    u32 table_width; // pages of a sequence in the table
};

INLINE float2 turn(float2 pair, float2 angle) {
    return make_float2(__fsub_rn(mul(pair.x, angle.x), mul(pair.y, angle.y)),
        add(mul(pair.x, angle.y), mul(pair.y, angle.x)));
}

extern "C" __global__ void rope_kv(float2 *query, const float2 *key, const float *value, const float2 *angles,
    const u32 *sequence, const u32 *position, const u32 *table, u16 *pages, Shape shape, u32 layer, float factor) {
    const u32 row = blockIdx.x, half_len = shape.head_len / 2;
    angles += row * shape.pairs;
    query += (u64)row * shape.heads * half_len;
    for (u32 i = threadIdx.x; i < shape.heads * half_len; i += blockDim.x) {
        const u32 pair = i % half_len;
        const float2 turned = pair < shape.pairs ? turn(query[i], angles[pair]) : query[i];
        query[i] = make_float2(mul(turned.x, factor), mul(turned.y, factor));
    }

    const u32 slot = position[row] % PAGE, part = shape.head_len * PAGE;
    const u32 page = table[sequence[row] * shape.table_width + position[row] / PAGE];
    pages += ((u64)page * shape.layers + layer) * shape.kv_heads * 2 * part;
    key += (u64)row * shape.kv_heads * half_len;
    for (u32 i = threadIdx.x; i < shape.kv_heads * half_len; i += blockDim.x) {
        const u32 head = i / half_len, pair = i % half_len;
        const float2 turned = pair < shape.pairs ? turn(key[i], angles[pair]) : key[i];
        u16 *target = pages + head * 2 * part + 2 * pair * PAGE + slot;
        target[0] = narrow(turned.x);
        target[PAGE] = narrow(turned.y);
    }
    value += (u64)row * shape.kv_heads * shape.head_len;
    for (u32 i = threadIdx.x; i < shape.kv_heads * shape.head_len; i += blockDim.x) {
        const u32 head = i / shape.head_len, dimension = i % shape.head_len;
        pages[head * 2 * part + part + slot * shape.head_len + dimension] = narrow(value[i]);
    }
}
