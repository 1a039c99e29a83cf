// SPDX-License-Identifier: Apache-2.0
// Small steps on every element, for any vector width.
#pragma once
#include "kernels/vector_math.h"

namespace gptq::kernels {
namespace {

template <Elementwise kind>
GPTQ_INLINE Floats changed(Floats x, Floats y, Floats factor, Floats inverse) {
  switch (kind) {
    case Elementwise::scale: return multiply(x, factor);
    case Elementwise::clamp: return larger(negative(factor), smaller(factor, x));
    case Elementwise::softcap: return multiply(tanh_of(multiply(x, inverse)), factor);
    case Elementwise::gate: return divide(x, add(all(1), exp_of(negative(y))));
    case Elementwise::add_scaled: break;
  }
  return fma(y, factor, x);
}

template <Elementwise kind>
GPTQ_INLINE void change(const ElementwiseArgs& a) {
  constexpr bool two = kind >= Elementwise::gate;
  const Floats factor = all(a.factor), inverse = all(1 / a.factor);
  uint64_t j = 0;
  for (; j + lanes <= a.count; j += lanes) store(a.out + j, changed<kind>(load(a.x + j), two ? load(a.y + j) : all(0), factor, inverse));
  const auto rest = static_cast<uint32_t>(a.count - j);
  const Floats y = two ? load_part(a.y + j, rest) : all(0);
  store_part(a.out + j, changed<kind>(load_part(a.x + j, rest), y, factor, inverse), rest);
}

GPTQ_INLINE void change(const ElementwiseArgs& a) {
  switch (a.kind) {
    case Elementwise::scale: return change<Elementwise::scale>(a);
    case Elementwise::clamp: return change<Elementwise::clamp>(a);
    case Elementwise::softcap: return change<Elementwise::softcap>(a);
    case Elementwise::gate: return change<Elementwise::gate>(a);
    case Elementwise::add_scaled: return change<Elementwise::add_scaled>(a);
  }
}

}  // namespace
}  // namespace gptq::kernels
