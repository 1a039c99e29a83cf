// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <cstring>

#include "engine/forward.h"

namespace gptq::engine {
namespace {

// Dynamic NTK: the base grows with the context (model.fbs); everything else was worked out at conversion.
void rope_frequencies(const model::Rope& rope, uint32_t n_ctx, float* inv_freq) {
  const uint32_t n = rope.dim / 2;
  if (!(rope.dynamic_factor > 0 && n_ctx > rope.n_ctx_original)) {
    if (n) std::memcpy(inv_freq, rope.inv_freq.data(), n * sizeof(float));
    return;
  }
  const double stretch = double(rope.dynamic_factor) * n_ctx / rope.n_ctx_original - (rope.dynamic_factor - 1);
  const double theta = rope.theta * std::pow(stretch, rope.dim / (rope.dim - 2.0));
  for (uint32_t j = 0; j < n; ++j) inv_freq[j] = static_cast<float>(std::pow(theta, -2.0 * j / rope.dim));
}

}  // namespace

Rotation::Rotation(const model::ModelSpec& spec, uint32_t n_ctx, uint32_t max_rows, base::Arena& arena) : n_(static_cast<uint32_t>(spec.ropes.size())) {
  for (uint32_t i = 0; i < n_; ++i) {
    const model::Rope& rope = spec.ropes[i];
    const uint32_t n = rope.dim / 2;
    Frequencies& f = frequencies_[i];
    f = {arena.take<float>(n), nullptr, rope.n_ctx_original, rope.scale};
    angles_[i] = {n, arena.take<float>(uint64_t{max_rows} * n), arena.take<float>(uint64_t{max_rows} * n)};
    if (f.near) rope_frequencies(rope, n_ctx, f.near);
    if (rope.long_inv_freq.empty()) continue;
    f.far = arena.take<float>(n);
    if (f.far) std::memcpy(f.far, rope.long_inv_freq.data(), n * sizeof(float));
  }
}

void Rotation::turn_to(std::span<const device::Sequence> sequences) {
  for (uint32_t r = 0; r < n_; ++r) {
    const Frequencies& f = frequencies_[r];
    const device::Angles& angles = angles_[r];
    for (const device::Sequence& s : sequences) {
      const float* inv_freq = f.far && s.n_tokens > f.n_ctx_original ? f.far : f.near;
      for (uint32_t i = 0; i < s.n_rows; ++i)
        for (uint32_t j = 0; j < angles.n; ++j) {
          // The product is rounded to float32 as in the models' own code; at far positions that is part of their result.
          const float angle = static_cast<float>(s.first_position + i) * inv_freq[j];
          const size_t at = size_t(s.first_row + i) * angles.n + j;
          angles.cos[at] = static_cast<float>(std::cos(double(angle))) * f.scale;
          angles.sin[at] = static_cast<float>(std::sin(double(angle))) * f.scale;
        }
    }
  }
}

}  // namespace gptq::engine
