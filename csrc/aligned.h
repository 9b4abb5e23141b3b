// Scratch memory that begins at a line of the cache, so that no load of a register crosses two lines.
#pragma once

#include <cstdint>
#include <vector>

namespace fedtlu {

template <class T>
class AlignedMemory {
  public:
    explicit AlignedMemory(std::int64_t size) : memory_(static_cast<std::size_t>(size) + kLine / sizeof(T)) {
        const auto past = reinterpret_cast<std::uintptr_t>(memory_.data()) % kLine;
        start_ = memory_.data() + (past == 0 ? 0 : (kLine - past) / sizeof(T));
    }
    AlignedMemory(const AlignedMemory&) = delete;
    AlignedMemory& operator=(const AlignedMemory&) = delete;

    T* data() { return start_; }

  private:
    static constexpr std::size_t kLine = 64;

    std::vector<T> memory_;
    T* start_;
};

}  // namespace fedtlu
