// The kernels for x86-64 with AVX2, FMA and F16C.

#if defined(__x86_64__)

// Every header comes before the target, so that its definitions stay code for any machine.
#include <immintrin.h>

#include "columns_tile.h"
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
FEDTLU_INLINE Singles add_square(Singles sum, Singles x) {
    return (Singles)_mm256_fmadd_ps((__m256)x, (__m256)x, (__m256)sum);
}
template <int kNumber>
FEDTLU_INLINE void lanes_added(float* out, const Singles* x) {
    FEDTLU_UNROLL
    for (int i = 0; i < kNumber; i += 4) {
        const __m256 first = _mm256_hadd_ps((__m256)x[i], (__m256)x[i + 1]);
        const __m256 second = _mm256_hadd_ps((__m256)x[i + 2], (__m256)x[i + 3]);
        const __m256 both = _mm256_hadd_ps(first, second);  // a half of each sum in either half
        _mm_storeu_ps(out + i, _mm_add_ps(_mm256_castps256_ps128(both), _mm256_extractf128_ps(both, 1)));
    }
}
FEDTLU_INLINE Doubles add_fused(Doubles sum, Doubles x, Doubles one) {
    return (Doubles)_mm256_fmadd_pd((__m256d)x, (__m256d)one, (__m256d)sum);
}

// A conversion to double takes one operation from memory and two from a register, so 16-bit elements go by
// memory: on a Zen 4 a third faster for bfloat16, two fifths for float16.
constexpr bool kStaged = true;
FEDTLU_INLINE void stage_words(float* to, const std::byte* x) {
    const __m256i pairs = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x));
    const __m256i odd = _mm256_and_si256(pairs, _mm256_set1_epi32(static_cast<int>(0xffff0000u)));
    _mm256_store_si256(reinterpret_cast<__m256i*>(to), _mm256_slli_epi32(pairs, 16));
    _mm256_store_si256(reinterpret_cast<__m256i*>(to + 8), odd);
}
FEDTLU_INLINE void stage_halves(float* to, const std::byte* x) {
    _mm256_store_ps(to, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x))));
    _mm256_store_ps(to + 8, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x + 16))));
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
#define FEDTLU_FMSUB(x, y) ((Doubles)_mm256_fmsub_pd((__m256d)(x), _mm256_set1_pd(1.0), (__m256d)(y)))
#include "kernels_impl.h"

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif  // __x86_64__
