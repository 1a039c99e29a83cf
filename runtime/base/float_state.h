// SPDX-License-Identifier: Apache-2.0
// The floating-point environment the library computes in, and the host's own before and after.
#pragma once
#include <cstdint>
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace gptq::base {

// Default rounding, no traps, no flush-to-zero while the library computes; whatever the host had afterwards.
class FloatState {
 public:
#if defined(__x86_64__)
  FloatState() : saved_(_mm_getcsr()) { _mm_setcsr(0x1F80); }
  ~FloatState() { _mm_setcsr(saved_); }
#elif defined(__aarch64__)
  FloatState() {
    asm volatile("mrs %0, fpcr" : "=r"(saved_));
    asm volatile("msr fpcr, %0" : : "r"(uint64_t(0)));
  }
  ~FloatState() { asm volatile("msr fpcr, %0" : : "r"(uint64_t(saved_))); }
#else
  FloatState() : saved_(0) {}
#endif
  FloatState(const FloatState&) = delete;

 private:
#if defined(__aarch64__)
  uint64_t saved_;
#else
  unsigned saved_;
#endif
};

}  // namespace gptq::base
