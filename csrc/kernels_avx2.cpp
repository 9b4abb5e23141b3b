// The kernels for x86-64 with AVX2, FMA and F16C.

#if defined(__x86_64__)

// Every header comes before the target, so that its definitions stay code for any machine.
#include <immintrin.h>

#include "perceptron/perceptron_step.h"
#include "simd.h"
#include "vectors.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif

namespace fedtlu {
namespace {

typedef double Doubles __attribute__((vector_size(32)));
typedef float Floats __attribute__((vector_size(16)));
typedef std::uint32_t Words __attribute__((vector_size(16)));
typedef float Singles __attribute__((vector_size(32)));

constexpr int kRows = 4;
constexpr int kColumns = 1;

FEDTLU_INLINE Doubles widen(Floats floats) { return (Doubles)_mm256_cvtps_pd((__m128)floats); }
FEDTLU_INLINE Floats narrow(Doubles doubles) { return (Floats)_mm256_cvtpd_ps((__m256d)doubles); }
FEDTLU_INLINE Doubles add_exact_square(Doubles sum, Doubles x) {
    return (Doubles)_mm256_fmadd_pd((__m256d)x, (__m256d)x, (__m256d)sum);
}
FEDTLU_INLINE Words words(const std::byte* x) {
    return (Words)_mm_cvtepu16_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(x)));
}
FEDTLU_INLINE Floats halves(const std::byte* x) {
    return (Floats)_mm_cvtph_ps(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(x)));
}

}  // namespace
}  // namespace fedtlu

#define FEDTLU_LEVEL "avx2"
#define FEDTLU_KERNELS kAvx2Kernels
#include "kernels_impl.h"

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif  // __x86_64__
