// SPDX-License-Identifier: Apache-2.0
// Which kernel variants are compiled in (kernel_variants.h, written by the build from the lists in meson.build) and which of them to use.
#include "kernel_variants.h"

#include <cstdio>
#include <cstring>

#include "kernels/kernels.h"

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

}  // namespace

uint32_t detect_cpu() {
  static const uint32_t found = [] {
    uint32_t bits = 0;
    for (const Level level : levels) bits |= cpu_has(level) ? level_bit(level) : 0;
    return bits;
  }();
  return found;
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
