// GELU of float32 numbers. Included by `kernels_impl.h` once per SIMD level.

namespace fedtlu {
namespace {

typedef std::uint32_t SingleBits __attribute__((vector_size(sizeof(Singles))));

FEDTLU_INLINE Singles all(float value) { return value - Singles{}; }

// exp(z) for |z| <= 80 with an error below two units in the last place: 2^n exp(r), where n is the nearest
// whole number to z / log(2) and exp(r) a polynomial.
FEDTLU_INLINE Singles exponential(Singles z) {
    constexpr float kToWhole = 12582912.0f;  // 1.5 * 2^23: a sum with it has no fraction
    const Singles shifted = z * 1.44269504f + kToWhole;
    const Singles whole = shifted - kToWhole;
    // log(2) in two parts, of which the first has few bits: its product is exact.
    const Singles r = z - whole * 0.693359375f - whole * -2.12194440e-4f;
    Singles value = all(1.9875691500e-4f);
    value = value * r + 1.3981999507e-3f;
    value = value * r + 8.3334519073e-3f;
    value = value * r + 4.1665795894e-2f;
    value = value * r + 1.6666665459e-1f;
    value = value * r + 5.0000001201e-1f;
    value = value * (r * r) + r + 1.0f;
    SingleBits bits, exponent;
    __builtin_memcpy(&bits, &value, sizeof bits);
    __builtin_memcpy(&exponent, &shifted, sizeof exponent);
    bits = bits + (exponent << 23);  // the lowest bits of `shifted` are n
    __builtin_memcpy(&value, &bits, sizeof value);
    return value;
}

template <bool kWithSlope>
FEDTLU_INLINE void gelu_of(Singles x, Singles& value, Singles& slope) {
    constexpr float kLinear = 1.5957691216f;  // 2 sqrt(2 / pi)
    constexpr float kCubic = 1.5957691216f * 0.044715f;
    // Beyond 9 the derivative is 0 or 1 to the last bit, and e below would overflow. NaN stays.
    const Singles above = x < -9.0f ? all(-9.0f) : x;
    const Singles near = above > 9.0f ? all(9.0f) : above;
    const Singles square = near * near;
    const Singles e = exponential(-near * (kLinear + kCubic * square));
    const Singles sigmoid = 1.0f / (1.0f + e);
    value = above * sigmoid;
    if constexpr (kWithSlope) {
        slope = sigmoid * (1.0f + near * (e * sigmoid) * (kLinear + 3.0f * kCubic * square));
    }
}

template <bool kWithSlope>
void gelu_run(float* out, float* slope, const float* x, std::int64_t n) {
    constexpr std::int64_t kOnce = sizeof(Singles) / sizeof(float);
    Singles own, value, steep;
    std::int64_t at = 0;
    for (; at + kOnce <= n; at += kOnce) {
        __builtin_memcpy(&own, x + at, sizeof own);
        gelu_of<kWithSlope>(own, value, steep);
        __builtin_memcpy(out + at, &value, sizeof value);
        if constexpr (kWithSlope) __builtin_memcpy(slope + at, &steep, sizeof steep);
    }
    if (at == n) return;
    const auto rest = static_cast<std::size_t>(n - at) * sizeof(float);
    own = Singles{};
    __builtin_memcpy(&own, x + at, rest);
    gelu_of<kWithSlope>(own, value, steep);
    __builtin_memcpy(out + at, &value, rest);
    if constexpr (kWithSlope) __builtin_memcpy(slope + at, &steep, rest);
}

void gelu(float* out, float* slope, const float* x, std::int64_t n) {
    if (slope == nullptr) {
        gelu_run<false>(out, nullptr, x, n);
    } else {
        gelu_run<true>(out, slope, x, n);
    }
}

}  // namespace
}  // namespace fedtlu
