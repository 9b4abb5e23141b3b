// A plain read of memory: the lower bound that the passes over it are measured against.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fedtlu {

// Reads `bytes` bytes once, on up to `threads` threads, and returns the exclusive or of their 64-bit words
// (the last few bytes, less than a word, are left out). Only benchmarks use the result.
std::uint64_t read_loop(const std::byte* data, std::int64_t bytes, int threads);

}  // namespace fedtlu
