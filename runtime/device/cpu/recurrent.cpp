// SPDX-License-Identifier: Apache-2.0
// Layers with a state: a sequence's rows in order, channels and heads side by side.
#include <algorithm>
#include <cmath>

#include "device/cpu/cpu_device.h"

namespace gptq::device {
namespace {

// What the sequence's earlier tokens left, now where its rows will leave theirs: `count` numbers from `at` on.
float* take_state(const Sequence& s, uint64_t offset, uint64_t at, uint64_t count) {
  float* state = reinterpret_cast<float*>(s.next_state + offset) + at;
  if (s.state) std::copy_n(reinterpret_cast<const float*>(s.state + offset) + at, count, state);
  else std::fill_n(state, count, 0.0f);
  return state;
}

float silu(float x) { return x / (1 + std::exp(-x)); }
float softplus(float x) { return x > 20 ? x : std::log1p(std::exp(x)); }

// out = x / sqrt(sum of x^2 + 1e-6) * factor
void unit(const float* x, uint32_t n, float factor, float* out) {
  double squares = 0;
  for (uint32_t i = 0; i < n; ++i) squares += double(x[i]) * x[i];
  const auto scale = static_cast<float>(factor / std::sqrt(squares + 1e-6));
  for (uint32_t i = 0; i < n; ++i) out[i] = x[i] * scale;
}

}  // namespace

void CpuDevice::convolve(const Convolution& c) {
  for (const Sequence& s : batch_.sequences)
    split(c.n, 64, [&](uint64_t first, uint64_t last) {
      const uint32_t before = c.kernel - 1;
      for (uint32_t t = 0; t < before; ++t) take_state(s, c.state, uint64_t{t} * c.n + first, last - first);
      float* state = reinterpret_cast<float*>(s.next_state + c.state);
      const auto input = [&](int64_t t, uint64_t channel) {  // t < 0: before these rows
        return t < 0 ? state[static_cast<uint64_t>(t + before) * c.n + channel] : c.x[(s.first_row + static_cast<uint64_t>(t)) * c.n + channel];
      };
      for (uint32_t t = 0; t < s.n_rows; ++t) {
        float* y = c.y + uint64_t{s.first_row + t} * c.n;
        for (uint64_t channel = first; channel < last; ++channel) {
          float sum = 0;
          for (uint32_t j = 0; j < c.kernel; ++j) sum += c.weight[channel * c.kernel + j] * input(int64_t{t} - before + j, channel);
          y[channel] = c.silu ? silu(sum) : sum;
        }
      }
      // Oldest first, so that nothing is overwritten before it has moved.
      for (uint32_t t = 0; t < before; ++t)
        for (uint64_t channel = first; channel < last; ++channel) state[uint64_t{t} * c.n + channel] = input(int64_t{s.n_rows} - before + t, channel);
    });
}

void CpuDevice::delta_rule(const DeltaRule& d) {
  const uint64_t keys = uint64_t{d.n_k} * d.d_k, stride = 2 * keys + uint64_t{d.n_v} * d.d_v;
  constexpr uint32_t dim_max = 512;
  for (const Sequence& s : batch_.sequences)
    pool_.run(d.n_v, [&](uint32_t head) {
      float* S = take_state(s, d.state, uint64_t{head} * d.d_k * d.d_v, uint64_t{d.d_k} * d.d_v);
      float q[dim_max], k[dim_max], change[dim_max];
      for (uint64_t row = s.first_row; row < s.first_row + s.n_rows; ++row) {
        const float* qkv = d.qkv + row * stride;
        const uint64_t key_head = head / (d.n_v / d.n_k);
        unit(qkv + key_head * d.d_k, d.d_k, 1 / std::sqrt(static_cast<float>(d.d_k)), q);
        unit(qkv + keys + key_head * d.d_k, d.d_k, 1, k);
        const float* v = qkv + 2 * keys + uint64_t{head} * d.d_v;
        const float keep = std::exp(-d.decay[head] * softplus(d.a[row * d.n_v + head] + d.dt_bias[head]));
        const float beta = 1 / (1 + std::exp(-d.b[row * d.n_v + head]));
        std::fill_n(change, d.d_v, 0.0f);
        for (uint32_t i = 0; i < d.d_k; ++i)
          for (uint32_t j = 0; j < d.d_v; ++j) change[j] += (S[uint64_t{i} * d.d_v + j] *= keep) * k[i];
        for (uint32_t j = 0; j < d.d_v; ++j) change[j] = (v[j] - change[j]) * beta;
        float* y = d.y + (row * d.n_v + head) * d.d_v;
        std::fill_n(y, d.d_v, 0.0f);
        for (uint32_t i = 0; i < d.d_k; ++i)
          for (uint32_t j = 0; j < d.d_v; ++j) y[j] += (S[uint64_t{i} * d.d_v + j] += k[i] * change[j]) * q[i];
        kernels_.rms_norm({y, d.norm, y, 1, d.d_v, d.eps});
        const float* z = d.z + (row * d.n_v + head) * d.d_v;
        for (uint32_t j = 0; j < d.d_v; ++j) y[j] *= silu(z[j]);
      }
    });
}

}  // namespace gptq::device
