// Element types of the inputs, by size, name and bit pattern.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace fedtlu {

enum class Dtype { kFloat32, kBfloat16, kFloat16, kFloat64 };
constexpr int kDtypes = 4;

// The name torch gives the type, without its prefix.
constexpr const char* name_of(Dtype dtype) {
    constexpr const char* names[kDtypes] = {"float32", "bfloat16", "float16", "float64"};
    return names[static_cast<int>(dtype)];
}

// Bytes of one element.
constexpr std::int64_t size_of(Dtype dtype) {
    constexpr std::int64_t sizes[kDtypes] = {4, 2, 2, 8};
    return sizes[static_cast<int>(dtype)];
}

// The dtype of a vector that elements of this dtype are added to.
constexpr Dtype widened(Dtype dtype) { return dtype == Dtype::kFloat64 ? Dtype::kFloat64 : Dtype::kFloat32; }

// Bits of +Inf. The bits of magnitudes (sign cleared) have the order of the magnitudes, and the bits of every
// NaN lie above Inf: an element is finite if and only if its magnitude's bits are below this.
constexpr std::int64_t infinity_of(Dtype dtype) {
    constexpr std::int64_t bits[kDtypes] = {0x7f800000, 0x7f80, 0x7c00, 0x7ff0000000000000};
    return bits[static_cast<int>(dtype)];
}

// All bits but the sign's.
constexpr std::int64_t magnitude_of(Dtype dtype) {
    return static_cast<std::int64_t>(~std::uint64_t{0} >> (65 - 8 * size_of(dtype)));
}

// The bits of element `index` of `data`, which need not be aligned.
inline std::int64_t bits_at(Dtype dtype, const std::byte* data, std::int64_t index) {
    const std::byte* at = data + index * size_of(dtype);
    switch (size_of(dtype)) {
        case 2: {
            std::uint16_t bits;
            std::memcpy(&bits, at, sizeof bits);
            return bits;
        }
        case 4: {
            std::uint32_t bits;
            std::memcpy(&bits, at, sizeof bits);
            return bits;
        }
        default: {
            std::int64_t bits;
            std::memcpy(&bits, at, sizeof bits);
            return bits;
        }
    }
}

template <class To, class From>
To bit_cast(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}

// The value whose bits these are; exact, since every type is a subset of double.
inline double decode(Dtype dtype, std::int64_t bits) {
    switch (dtype) {
        case Dtype::kFloat32:
            return bit_cast<float>(static_cast<std::uint32_t>(bits));
        case Dtype::kBfloat16:
            return bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
        case Dtype::kFloat16: {
            const std::int64_t exponent = bits >> 10 & 0x1f;
            const std::int64_t fraction = bits & 0x3ff;
            const std::int64_t sign = bits >> 15 & 1;
            std::uint64_t wide = static_cast<std::uint64_t>(sign) << 63;
            if (exponent == 0) return (sign ? -1.0 : 1.0) * static_cast<double>(fraction) * 0x1p-24;
            const std::int64_t rebiased = exponent == 0x1f ? 0x7ff : exponent + 1023 - 15;
            wide |= static_cast<std::uint64_t>(rebiased) << 52 | static_cast<std::uint64_t>(fraction) << 42;
            return bit_cast<double>(wide);
        }
        default:
            return bit_cast<double>(bits);
    }
}

}  // namespace fedtlu
