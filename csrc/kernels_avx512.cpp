// The kernels for x86-64 with AVX-512 F, BW, DQ and VL.

#if defined(__x86_64__)

// Every header comes before the target, so that its definitions stay code for any machine.
#include <immintrin.h>

#include "columns_tile.h"
#include "perceptron/perceptron_step.h"
#include "simd.h"
#include "vectors.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,f16c"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,f16c")
#endif

namespace fedtlu {
namespace {

typedef double Doubles __attribute__((vector_size(64)));
typedef float Floats __attribute__((vector_size(32)));
typedef std::uint32_t Words __attribute__((vector_size(32)));
typedef float Singles __attribute__((vector_size(64)));

constexpr int kRows = 4;
constexpr int kColumns = 4;

// The maskz forms with every lane on: the plain forms start from an undefined register, and GCC 12 warns of
// it.
constexpr __mmask8 kAll = 0xff;

FEDTLU_INLINE Doubles widen(Floats floats) { return (Doubles)_mm512_maskz_cvtps_pd(kAll, (__m256)floats); }
FEDTLU_INLINE Floats narrow(Doubles doubles) { return (Floats)_mm512_maskz_cvtpd_ps(kAll, (__m512d)doubles); }
FEDTLU_INLINE Doubles add_exact_square(Doubles sum, Doubles x) {
    return (Doubles)_mm512_fmadd_pd((__m512d)x, (__m512d)x, (__m512d)sum);
}
FEDTLU_INLINE Singles add_square(Singles sum, Singles x) {
    return (Singles)_mm512_fmadd_ps((__m512)x, (__m512)x, (__m512)sum);
}
FEDTLU_INLINE Doubles add_fused(Doubles sum, Doubles x, Doubles) { return sum + x; }

// No machine of this level was at hand to measure whether it pays.
constexpr bool kStaged = false;
FEDTLU_INLINE void stage_words(float*, const std::byte*) {}
FEDTLU_INLINE void stage_halves(float*, const std::byte*) {}
FEDTLU_INLINE Words words(const std::byte* x) {
    return (Words)_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x)));
}
FEDTLU_INLINE Floats halves(const std::byte* x) {
    return (Floats)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x)));
}

}  // namespace
}  // namespace fedtlu

#define FEDTLU_LEVEL "avx512"
#define FEDTLU_KERNELS kAvx512Kernels
#include "kernels_impl.h"

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif  // __x86_64__
