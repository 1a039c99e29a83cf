// SPDX-License-Identifier: Apache-2.0
#include "converter/round.h"

#include <algorithm>
#include <cmath>

#include "base/checked.h"
#include "base/failure.h"
#include "converter/floats.h"

namespace gptq::convert {
namespace {

float element(const DenseWeight& w, uint64_t index) {
  if (w.kind == kernels::Kind::f32) {
    float value;
    std::memcpy(&value, w.bytes.data() + index * sizeof value, sizeof value);
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, w.bytes.data() + index * sizeof bits, sizeof bits);
  return w.kind == kernels::Kind::f16 ? kernels::float_from_half(bits) : kernels::float_from_bf16(bits);
}

int code_of(float value, float scale, int middle) {
  const float code = scale == 0 ? 0.0f : std::nearbyint(value / scale);
  return static_cast<int>(std::clamp(code, static_cast<float>(-middle), static_cast<float>(middle - 1))) + middle;
}

double squared_error(const float* values, uint32_t count, float scale, int middle) {
  double sum = 0;
  for (uint32_t i = 0; i < count; ++i) {
    const double error = values[i] - scale * static_cast<float>(code_of(values[i], scale, middle) - middle);
    sum += error * error;
  }
  return sum;
}

// A scale that float16 holds, if it can. The largest value gets the code -middle, the one that has no opposite; cutting it off a
// little may pay for the sake of the others.
float best_scale(const float* values, uint32_t count, int middle) {
  float largest = 0;
  for (uint32_t i = 0; i < count; ++i)
    if (std::fabs(values[i]) > std::fabs(largest)) largest = values[i];
  float best = 0;
  double least = HUGE_VAL;
  for (int step = -2; step < 10; ++step) {
    const float wanted = largest / static_cast<float>(-middle) * (1 - 0.03f * static_cast<float>(step));
    const float half = kernels::float_from_half(kernels::half_from_float(wanted));
    const float scale = half == 0 || !std::isfinite(half) ? wanted : half;
    const double error = squared_error(values, count, scale, middle);
    if (error < least) {
      least = error;
      best = scale;
    }
  }
  return best;
}

}  // namespace

QuantizedWeight round_to_nearest(std::string_view name, const DenseWeight& weight, uint32_t n, uint32_t k, uint32_t bits, base::Pool& pool) {
  if (weight.bytes.size() != base::mul(n, k, kernels::bits_of(weight.kind) / 8))
    base::fail(GPTQ_E_FORMAT, "tensor '", name, "': ", weight.bytes.size(), " bytes do not fit ", n, " x ", k);
  const uint32_t group = bits == 8 ? 64 : 32;
  const int middle = 1 << (bits - 1);
  QuantizedWeight out;
  out.bits = bits;
  out.group_size = static_cast<int32_t>(group);
  out.n_groups = (k + group - 1) / group;
  out.codes.resize(base::to_size(base::mul(n, k)));
  out.scales.resize(base::to_size(base::mul(n, out.n_groups)));
  pool.run_throwing(n, [&](uint32_t row) {
    for (uint32_t g = 0; g < out.n_groups; ++g) {
      const uint32_t count = std::min(group, k - g * group);
      const uint64_t first = uint64_t{row} * k + uint64_t{g} * group;
      float values[64];
      for (uint32_t i = 0; i < count; ++i) {
        values[i] = element(weight, first + i);
        if (!std::isfinite(values[i])) base::fail(GPTQ_E_FORMAT, "tensor '", name, "': it holds NaN or infinity");
      }
      const float scale = best_scale(values, count, middle);
      out.scales[uint64_t{row} * out.n_groups + g] = scale;
      for (uint32_t i = 0; i < count; ++i) out.codes[first + i] = static_cast<uint8_t>(code_of(values[i], scale, middle));
    }
  });
  return out;
}

}  // namespace gptq::convert
