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
constexpr __mmask16 kAllSingles = 0xffff;

// In each quarter of a register: the sums of a, b, c and d there.
FEDTLU_INLINE __m512 quarters_added(Singles a, Singles b, Singles c, Singles d) {
    const __m512 ab = _mm512_maskz_unpacklo_ps(kAllSingles, (__m512)a, (__m512)b) +
                      _mm512_maskz_unpackhi_ps(kAllSingles, (__m512)a, (__m512)b);
    const __m512 cd = _mm512_maskz_unpacklo_ps(kAllSingles, (__m512)c, (__m512)d) +
                      _mm512_maskz_unpackhi_ps(kAllSingles, (__m512)c, (__m512)d);
    return _mm512_maskz_shuffle_ps(kAllSingles, ab, cd, 0x44) +
           _mm512_maskz_shuffle_ps(kAllSingles, ab, cd, 0xee);
}
// The two halves of x, added, and those of y.
FEDTLU_INLINE __m512 halves_added(__m512 x, __m512 y) {
    return _mm512_maskz_shuffle_f32x4(kAllSingles, x, y, 0x44) +
           _mm512_maskz_shuffle_f32x4(kAllSingles, x, y, 0xee);
}
template <int kNumber>
FEDTLU_INLINE void lanes_added(float* out, const Singles* x) {
    static_assert(kNumber == 16);
    const __m512 first =
        halves_added(quarters_added(x[0], x[1], x[2], x[3]), quarters_added(x[4], x[5], x[6], x[7]));
    const __m512 second =
        halves_added(quarters_added(x[8], x[9], x[10], x[11]), quarters_added(x[12], x[13], x[14], x[15]));
    const __m512 sums = _mm512_maskz_shuffle_f32x4(kAllSingles, first, second, 0x88) +
                        _mm512_maskz_shuffle_f32x4(kAllSingles, first, second, 0xdd);
    __builtin_memcpy(out, &sums, sizeof sums);
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
