// The least that can be done with memory: a yardstick for the passes over it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fedtlu {

// Reads `bytes` bytes once, on up to `threads` threads, and returns the exclusive or of their 64-bit words
// (the last few bytes, less than a word, are left out). For measuring: nothing is computed from it.
std::uint64_t read_loop(const std::byte* data, std::int64_t bytes, int threads);

}  // namespace fedtlu
