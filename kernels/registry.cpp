// SPDX-License-Identifier: Apache-2.0
// Which kernel variants are compiled in (kernel_variants.h, written by the build from the lists in meson.build) and which of them to use.
#include "kernel_variants.h"

#include <cstdio>
#include <cstring>

#include "kernels/kernels.h"
#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace gptq::kernels {

#define X(op, Args) using op##_args = Args;
GPTQ_KERNEL_OPS(X)
#undef X

#define VARIANT(op, level) void op##_##level(const op##_args&);
GPTQ_KERNEL_VARIANTS(VARIANT)
#undef VARIANT

namespace {

#define VARIANT(op, level) {#op, Level::level, reinterpret_cast<void (*)()>(op##_##level)},
const Variant table[] = {GPTQ_KERNEL_VARIANTS(VARIANT)};
#undef VARIANT

constexpr Level levels[] = {Level::ref, Level::avx2, Level::avx512vnni, Level::neon, Level::neon_dotprod, Level::neon_i8mm,
                            Level::avx512bf16};

// The GPTQ_CPU_* bit; the reference's is apart from the rest.
constexpr uint32_t level_bit(Level level) { return level == Level::ref ? 0x40000000u : 1u << (static_cast<uint32_t>(level) - 1); }

const Variant* best(const char* op, uint32_t allowed) {
  const Variant* found = nullptr;
  for (const Variant& v : table) {
    const bool usable = v.level == Level::ref || (level_bit(v.level) & allowed);
    if (usable && strcmp(v.op, op) == 0 && (!found || v.level > found->level)) found = &v;
  }
  return found;
}

#if defined(__x86_64__)
bool has_f16c() {  // clang 14's __builtin_cpu_supports does not know it
  unsigned a, b, c, d;
  return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}
#endif

}  // namespace

bool cpu_has(Level level) {
  switch (level) {
    case Level::ref: return true;
#if defined(__x86_64__)
    case Level::avx2: return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
    case Level::avx512vnni:
      return cpu_has(Level::avx2) && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni");
    case Level::avx512bf16: return cpu_has(Level::avx512vnni) && __builtin_cpu_supports("avx512bf16");
#elif defined(__aarch64__)
    case Level::neon: return true;
#if defined(__linux__)
    case Level::neon_dotprod: return getauxval(AT_HWCAP) & HWCAP_ASIMDDP;
    case Level::neon_i8mm: return getauxval(AT_HWCAP2) & HWCAP2_I8MM;
#endif
#endif
    default: return false;
  }
}

uint32_t detect_cpu() {
  uint32_t bits = 0;
  for (const Level level : levels) bits |= cpu_has(level) ? level_bit(level) : 0;
  return bits;
}

Kernels select_kernels(uint32_t mask) {
  const uint32_t allowed = detect_cpu() & (mask ? mask : ~0u);
  const auto function = [&](const char* op) {
    const Variant* found = best(op, allowed);
    return found ? found->function : nullptr;
  };
  Kernels kernels;
#define X(op, Args) kernels.op = reinterpret_cast<void (*)(const Args&)>(function(#op));
  GPTQ_KERNEL_OPS(X)
#undef X
  return kernels;
}

void describe_kernels(uint32_t mask, char* text, size_t cap) {
  const uint32_t allowed = detect_cpu() & (mask ? mask : ~0u);
  if (cap) text[0] = 0;
  size_t used = 0;
  const auto add = [&](const char* op) {
    const Variant* found = best(op, allowed);
    if (used >= cap || !found) return;
    used += static_cast<size_t>(snprintf(text + used, cap - used, "%s%s=%s", used ? " " : "", op, level_name(found->level)));
  };
#define X(op, Args) add(#op);
  GPTQ_KERNEL_OPS(X)
#undef X
}

const Variant* variants(size_t* count) {
  *count = sizeof table / sizeof *table;
  return table;
}

const char* level_name(Level level) {
  switch (level) {
    case Level::ref: return "ref";
    case Level::avx2: return "avx2";
    case Level::avx512vnni: return "avx512vnni";
    case Level::neon: return "neon";
    case Level::neon_dotprod: return "neon_dotprod";
    case Level::neon_i8mm: return "neon_i8mm";
    case Level::avx512bf16: return "avx512bf16";
  }
  return "unknown";
}

}  // namespace gptq::kernels
