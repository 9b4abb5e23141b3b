// The floating-point environment the kernels are defined in.
#pragma once

#include <cfenv>

namespace fedtlu {

// While this lives, the calling thread rounds to nearest and keeps subnormals, whatever it was set to
// (torch.set_flush_denormal sets it per thread): every thread then computes the same bits.
class DefaultFloatEnv {
  public:
    DefaultFloatEnv() noexcept {
        std::fegetenv(&before_);
        std::fesetenv(FE_DFL_ENV);
    }
    ~DefaultFloatEnv() { std::fesetenv(&before_); }
    DefaultFloatEnv(const DefaultFloatEnv&) = delete;
    DefaultFloatEnv& operator=(const DefaultFloatEnv&) = delete;

  private:
    std::fenv_t before_;
};

}  // namespace fedtlu
