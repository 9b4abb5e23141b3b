#include "read_loop.h"

#include <algorithm>
#include <atomic>

#include "simd.h"
#include "thread_pool.h"

namespace fedtlu {
namespace {

constexpr std::int64_t kItem = 256 * 1024;
constexpr std::int64_t kGrain = 16;

std::uint64_t word_at(const std::byte* at) {
    std::uint64_t word;
    __builtin_memcpy(&word, at, sizeof word);
    return word;
}

std::uint64_t read(const std::byte* data, std::int64_t bytes) {
    constexpr int kWords = 8;  // of a cache line
    std::uint64_t line[kWords] = {};
    std::int64_t at = 0;
    for (; at + 64 <= bytes; at += 64) {
        __builtin_prefetch(data + at + kAhead, 0, 2);
        for (int word = 0; word < kWords; ++word) line[word] ^= word_at(data + at + 8 * word);
    }
    std::uint64_t all = 0;
    for (const std::uint64_t word : line) all ^= word;
    for (; at + 8 <= bytes; at += 8) all ^= word_at(data + at);
    return all;
}

}  // namespace

std::uint64_t read_loop(const std::byte* data, std::int64_t bytes, int threads) {
    std::atomic<std::uint64_t> all{0};
    ThreadPool::instance().run(
        threads, bytes / kItem + (bytes % kItem != 0),
        [&](std::int64_t item) {
            const std::int64_t start = item * kItem;
            all.fetch_xor(read(data + start, std::min(kItem, bytes - start)), std::memory_order_relaxed);
        },
        kGrain);
    return all.load();
}

}  // namespace fedtlu
