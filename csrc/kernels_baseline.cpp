// The kernels for every machine: SSE2 on x86-64, NEON on ARM64.

#if defined(__x86_64__)
#include <emmintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "columns_tile.h"
#include "perceptron/perceptron_step.h"
#include "simd.h"
#include "vectors.h"

namespace fedtlu {
namespace {

typedef double Doubles __attribute__((vector_size(16)));
typedef float Floats __attribute__((vector_size(8)));
typedef std::uint32_t Words __attribute__((vector_size(8)));
typedef float Singles __attribute__((vector_size(16)));

constexpr int kRows = 2;
constexpr int kColumns = 1;

#if defined(__x86_64__)
// SSE2 converts two lanes in one instruction; GCC would convert them one by one.
FEDTLU_INLINE Doubles widen(Floats floats) {
    return (Doubles)_mm_cvtps_pd(_mm_castsi128_ps(_mm_cvtsi64_si128((long long)floats)));
}
FEDTLU_INLINE Floats narrow(Doubles doubles) {
    return (Floats)_mm_cvtsi128_si64(_mm_castps_si128(_mm_cvtpd_ps((__m128d)doubles)));
}
#else
FEDTLU_INLINE Doubles widen(Floats floats) { return __builtin_convertvector(floats, Doubles); }
FEDTLU_INLINE Floats narrow(Doubles doubles) { return __builtin_convertvector(doubles, Floats); }
#endif

FEDTLU_INLINE Words words(const std::byte* x) {
    std::uint16_t bits[2];
    __builtin_memcpy(bits, x, sizeof bits);
    return Words{bits[0], bits[1]};
}
FEDTLU_INLINE Doubles add_exact_square(Doubles sum, Doubles x) { return sum + x * x; }
FEDTLU_INLINE Singles add_square(Singles sum, Singles x) { return sum + x * x; }
template <int kNumber>
FEDTLU_INLINE void lanes_added(float* out, const Singles* x) {
    for (int i = 0; i < kNumber; ++i) out[i] = (x[i][0] + x[i][1]) + (x[i][2] + x[i][3]);
}
FEDTLU_INLINE Doubles add_fused(Doubles sum, Doubles x, Doubles) { return sum + x; }

// No machine of this level was at hand to measure whether it pays.
constexpr bool kStaged = false;
FEDTLU_INLINE void stage_words(float*, const std::byte*) {}
FEDTLU_INLINE void stage_halves(float*, const std::byte*) {}

#if defined(__aarch64__)
FEDTLU_INLINE Floats halves(const std::byte* x) {
    std::uint32_t pair;
    __builtin_memcpy(&pair, x, sizeof pair);
    return (Floats)vget_low_f32(vcvt_f32_f16(vreinterpret_f16_u32(vdup_n_u32(pair))));
}
#else
// With integers: a multiplication by 2^112 would send subnormals, which are common among changes, through the
// hardware's slow path.
FEDTLU_INLINE Floats halves(const std::byte* x) {
    const Words half = words(x);
    const Words magnitude = (half & 0x7fff) << 13;
    const Words is_special = (Words)(magnitude >= (31u << 23));  // Inf or NaN
    const Words rebiased = magnitude + (112u << 23) + (is_special & (112u << 23));
    // A subnormal m * 2^-24 as (2^-14 + m * 2^-24) - 2^-14.
    const Words subnormal = (Words)((Floats)(rebiased + (1u << 23)) - 0x1p-14f);
    const Words is_subnormal = (Words)(magnitude < (1u << 23));
    const Words bits = (is_subnormal & subnormal) | (~is_subnormal & rebiased);
    return (Floats)(bits | (half & 0x8000) << 16);
}
#endif

}  // namespace
}  // namespace fedtlu

#define FEDTLU_LEVEL "baseline"
#define FEDTLU_KERNELS kBaselineKernels
#include "kernels_impl.h"
