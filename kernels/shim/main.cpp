// Runs one launch of one kernel: what and on what comes from standard input, and what its buffers hold afterwards goes
// to standard output. tests/sanitizers.rs is at the other end.
//
//   name of the entry, 32 bytes padded with zeros | blocks x, y, threads: u32 | arguments: u32
//   for each argument: 1 for a buffer, else 0: u32 | first byte that is passed: u64 | bytes: u64 | the bytes
#include "cuda.h"

#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "common.cuh"
#include "formats.cuh"
#include "quantise.cuh"
#include "sampling.cuh"
namespace of_embed {
#include "embed.cu"
}
namespace of_rms_norm {
#include "rms_norm.cu"
}
namespace of_quantise {
#include "quantise.cu"
}
namespace of_matmul {
#include "matmul.cu"
}
namespace of_matmul_numbers {
#include "matmul_numbers.cu"
}
namespace of_rope_kv {
#include "rope_kv.cu"
}
namespace of_attention {
#include "attention.cu"
}
namespace of_swiglu {
#include "swiglu.cu"
}
namespace of_residual {
#include "residual.cu"
}
namespace of_scrub {
#include "scrub.cu"
}
namespace of_scrub_check {
#include "scrub_check.cu"
}
namespace of_likeliest {
#include "likeliest.cu"
}
namespace of_draw {
#include "draw.cu"
}
namespace of_canary {
#include "canary.cu"
}

thread_local Index threadIdx, blockIdx, blockDim;
std::barrier<> *block_barrier;
Warp *warps;

namespace {

struct Argument {
    bool is_buffer;
    uint64_t offset, length;
    // Exactly as long as it is, so that a byte more is a finding.
    std::unique_ptr<char[]> bytes;
};

template <class T> void take(T &value) {
    if (fread(&value, 1, sizeof(T), stdin) != sizeof(T)) exit(2);
}

template <class T> T convert(const Argument &argument) {
    T value;
    if constexpr (std::is_pointer_v<T>) {
        if (!argument.is_buffer) exit(3);
        return (T)(argument.bytes.get() + argument.offset);
    } else {
        if (argument.is_buffer || argument.length != sizeof(T)) exit(3);
        memcpy(&value, argument.bytes.get(), sizeof(T));
        return value;
    }
}

template <class... P, size_t... I>
void call(void (*kernel)(P...), const std::vector<Argument> &arguments, std::index_sequence<I...>) {
    kernel(convert<P>(arguments[I])...);
}

template <class... P>
void launch(void (*kernel)(P...), const std::vector<Argument> &arguments, Index grid, unsigned threads) {
    if (arguments.size() != sizeof...(P) || threads % 32 != 0) exit(3);
    std::barrier<> barrier(threads);
    block_barrier = &barrier;
    std::unique_ptr<Warp[]> own_warps(new Warp[threads / 32]);
    warps = own_warps.get();
    std::vector<std::thread> running;
    for (unsigned thread = 0; thread < threads; thread++)
        running.emplace_back([&, thread] {
            threadIdx = {thread, 0};
            blockDim = {threads, 1};
            for (unsigned y = 0; y < grid.y; y++)
                for (unsigned x = 0; x < grid.x; x++) {
                    blockIdx = {x, y};
                    call(kernel, arguments, std::index_sequence_for<P...>());
                    barrier.arrive_and_wait(); // the next block takes over its shared memory
                }
        });
    for (auto &thread : running) thread.join();
}

} // namespace

int main() {
    char name[33] = {};
    unsigned sizes[3], count;
    if (fread(name, 1, 32, stdin) != 32) return 2;
    take(sizes);
    take(count);
    std::vector<Argument> arguments(count);
    for (Argument &argument : arguments) {
        unsigned is_buffer;
        take(is_buffer);
        take(argument.offset);
        take(argument.length);
        argument.is_buffer = is_buffer;
        argument.bytes.reset(new char[argument.length]);
        if (fread(argument.bytes.get(), 1, argument.length, stdin) != argument.length) return 2;
    }
    const Index grid = {sizes[0], sizes[1]};
#define ENTRY(module, entry)                                                                                           \
    if (std::string(name) == #entry) launch(of_##module::entry, arguments, grid, sizes[2]);                            \
    else
    ENTRY(embed, embed_q4_0)
    ENTRY(embed, embed_q4_1)
    ENTRY(embed, embed_q5_0)
    ENTRY(embed, embed_q8_0)
    ENTRY(embed, embed_q4_k)
    ENTRY(embed, embed_q5_k)
    ENTRY(embed, embed_q6_k)
    ENTRY(embed, embed_f16)
    ENTRY(embed, embed_bf16)
    ENTRY(embed, embed_f32)
    ENTRY(matmul, matmul_q4_0)
    ENTRY(matmul, matmul_q4_1)
    ENTRY(matmul, matmul_q5_0)
    ENTRY(matmul, matmul_q8_0)
    ENTRY(matmul, matmul_q4_k)
    ENTRY(matmul, matmul_q5_k)
    ENTRY(matmul, matmul_q6_k)
    ENTRY(matmul_numbers, matmul_f16)
    ENTRY(matmul_numbers, matmul_bf16)
    ENTRY(matmul_numbers, matmul_f32)
    ENTRY(rms_norm, rms_norm)
    ENTRY(quantise, quantise)
    ENTRY(rope_kv, rope_kv)
    ENTRY(attention, attention)
    ENTRY(swiglu, swiglu)
    ENTRY(residual, residual)
    ENTRY(likeliest, likeliest)
    ENTRY(draw, draw)
    ENTRY(scrub, scrub)
    ENTRY(scrub_check, scrub_check)
    ENTRY(canary, canary)
    return 4;
    for (const Argument &argument : arguments)
        if (argument.is_buffer) fwrite(argument.bytes.get(), 1, argument.length, stdout);
    return 0;
}
