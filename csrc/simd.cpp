#include "simd.h"

#include <atomic>
#include <cstdlib>
#include <stdexcept>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace fedtlu {
namespace {

std::atomic<const Kernels*> chosen{nullptr};

#if defined(__x86_64__)
// Not every compiler's __builtin_cpu_supports knows F16C.
bool has_f16c() {
    unsigned int a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & 1u << 29) != 0;
}
#endif

std::vector<const Kernels*> live() {
    std::vector<const Kernels*> levels{&kBaselineKernels};
#if defined(__x86_64__)
    // These ask the operating system too (XGETBV): a level whose registers it does not save is not reported.
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
    if (avx2) levels.push_back(&kAvx2Kernels);
    if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
        levels.push_back(&kAvx512Kernels);
    }
#endif
    return levels;
}

const Kernels* find(const std::string& level, const std::string& asked_by) {
    std::string names;
    for (const Kernels* each : live()) {
        if (level == each->level) return each;
        names += names.empty() ? each->level : std::string(", ") + each->level;
    }
    throw std::invalid_argument(asked_by + ": got '" + level +
                                "'; expected a SIMD level of this machine: " + names);
}

const Kernels* first_choice() {
    const char* forced = std::getenv("FEDTLU_SIMD");
    return forced != nullptr && *forced != '\0' ? find(forced, "FEDTLU_SIMD") : live().back();
}

}  // namespace

const Kernels& kernels() {
    const Kernels* current = chosen.load(std::memory_order_acquire);
    if (current == nullptr) {
        current = first_choice();
        chosen.store(current, std::memory_order_release);
    }
    return *current;
}

std::vector<std::string> simd_levels() {
    std::vector<std::string> names;
    for (const Kernels* each : live()) names.emplace_back(each->level);
    return names;
}

void set_simd_level(const std::string& level) {
    chosen.store(find(level, "level"), std::memory_order_release);
}

}  // namespace fedtlu
