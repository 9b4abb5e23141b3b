// The part of DLPack's C interface that we use (github.com/dmlc/dlpack, version 1): how a library describes a
// tensor's memory, and the table of functions that a tensor's type offers under __dlpack_c_exchange_api__.
// The layout of these structures is fixed for all versions 1.x.
#pragma once

#include <cstdint>

namespace fedtlu::dlpack {

constexpr const char* kTable = "__dlpack_c_exchange_api__";
constexpr const char* kCapsule = "dlpack_exchange_api";
constexpr std::uint32_t kMajor = 1;
constexpr std::int32_t kCpu = 1;
enum Code : std::uint8_t { kInt = 0, kFloat = 2, kBfloat = 4, kBool = 6 };

struct Type {
    std::uint8_t code;
    std::uint8_t bits;
    std::uint16_t lanes;

    bool is(Code wanted, int width) const { return code == wanted && bits == width && lanes == 1; }
};

struct Tensor {
    void* data;
    std::int32_t device;
    std::int32_t device_index;
    std::int32_t dimensions;
    Type type;
    std::int64_t* shape;
    std::int64_t* strides;  // in elements; null if the tensor is contiguous
    std::uint64_t byte_offset;
};

struct Table {
    std::uint32_t major;
    std::uint32_t minor;
    const void* earlier;
    int (*allocate)(Tensor*, void**, void*, void (*)(void*, const char*, const char*));
    int (*managed)(void*, void**);
    int (*to_object)(void*, void**);
    // Describes the tensor without a reference to it. Returns 0, or -1 with a Python error. May be null.
    int (*describe)(void* object, Tensor* out);
    int (*stream)(std::int32_t, std::int32_t, void**);
};

}  // namespace fedtlu::dlpack
