// SPDX-License-Identifier: Apache-2.0
// What this processor can compute. On x86 the processor itself is asked, and whether the system keeps the registers:
// the answers of
// __builtin_cpu_supports depend on the compiler's run-time library, and some say no to everything.
#include "kernels/kernels.h"
#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace gptq::kernels {
namespace {

#if defined(__x86_64__)
constexpr uint32_t ymm_registers = 0x06, zmm_registers = 0xE6;  // of those that the system keeps
constexpr unsigned bit_avx512bf16_of_7_1 = 1u << 5;

struct CpuId {
  unsigned a = 0, b = 0, c = 0, d = 0;
  CpuId(unsigned leaf, unsigned part) {
    if (!__get_cpuid_count(leaf, part, &a, &b, &c, &d)) a = b = c = d = 0;
  }
};

bool all(unsigned bits, unsigned wanted) { return (bits & wanted) == wanted; }

bool keeps(uint32_t registers) {
  if (!all(CpuId(1, 0).c, bit_OSXSAVE)) return false;
  uint32_t low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return all(low, registers);
}

bool has_avx2() {
  return keeps(ymm_registers) && all(CpuId(1, 0).c, bit_AVX | bit_FMA | bit_F16C) && all(CpuId(7, 0).b, bit_AVX2);
}

bool has_avx512vnni() {
  const CpuId seven(7, 0);
  return has_avx2() && keeps(zmm_registers) && all(seven.b, bit_AVX512F | bit_AVX512BW | bit_AVX512VL | bit_AVX512DQ) &&
         all(seven.c, bit_AVX512VNNI);
}

bool has_avx512bf16() { return has_avx512vnni() && CpuId(7, 0).a >= 1 && all(CpuId(7, 1).a, bit_avx512bf16_of_7_1); }
#elif defined(__aarch64__) && defined(__APPLE__)
bool has(const char* feature) {
  int there = 0;
  size_t bytes = sizeof there;
  return sysctlbyname(feature, &there, &bytes, nullptr, 0) == 0 && there != 0;
}
#endif

}  // namespace

bool cpu_has(Level level) {
  switch (level) {
    case Level::ref:
      return true;
#if defined(__x86_64__)
    case Level::avx2:
      return has_avx2();
    case Level::avx512vnni:
      return has_avx512vnni();
    case Level::avx512bf16:
      return has_avx512bf16();
#elif defined(__aarch64__)
    case Level::neon:
      return true;
#if defined(__linux__)
    case Level::neon_dotprod:
      return getauxval(AT_HWCAP) & HWCAP_ASIMDDP;
    case Level::neon_i8mm:
      return getauxval(AT_HWCAP2) & HWCAP2_I8MM;
#elif defined(__APPLE__)
    case Level::neon_dotprod:
      return has("hw.optional.arm.FEAT_DotProd");
    case Level::neon_i8mm:
      return has("hw.optional.arm.FEAT_I8MM");
#endif
#endif
    default:
      return false;
  }
}

}  // namespace gptq::kernels
