// What the inner loops of every SIMD level need before their compiler target is set.
#pragma once

#include <cstddef>
#include <cstdint>

#define FEDTLU_INLINE inline __attribute__((always_inline))

// For loops over the registers of a block: their arrays live in registers only when the loop is gone.
#if defined(__clang__)
#define FEDTLU_UNROLL _Pragma("clang loop unroll(full)")
#else
#define FEDTLU_UNROLL _Pragma("GCC unroll 16")
#endif
