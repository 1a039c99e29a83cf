// SPDX-License-Identifier: Apache-2.0
// What is done number by number, or row by row.
#include <cmath>

#include "device/cpu/cpu_device.h"

namespace gptq::device {
namespace {

using kernels::Elementwise;

constexpr uint64_t least_elements = 8192;  // of a task

float softplus(float x) { return x > 20 ? x : std::log1p(std::exp(x)); }

}  // namespace

void CpuDevice::norm_rows(const float* x, const Norm& norm, float* y, uint32_t rows, uint32_t n) const {
  if (norm.kind == kernels::NormKind::rms) return kernels_.rms_norm({x, norm.weight, y, rows, n, norm.eps});
  kernels_.layer_norm({.x = x, .weight = norm.weight, .bias = norm.bias, .y = y, .rows = rows, .n = n, .eps = norm.eps});
}

// act(x) * up, or act(x).
void CpuDevice::activate(const Input& input, const float* x, const float* up, float* y, uint32_t n) const {
  kernels::ActivateArgs args{.act = input.activation, .gate = up ? x : nullptr, .up = up ? up : x, .out = y, .count = n, .xielu = {}};
  if (const float* p = input.act_params) args.xielu = {.positive = softplus(p[0]), .negative = p[2] + softplus(p[1]), .beta = p[2], .eps = p[3]};
  kernels_.activate(args);
}

void CpuDevice::change(Elementwise kind, const float* x, const float* y, float* out, uint64_t count, float factor) {
  split(count, least_elements, [&](uint64_t first, uint64_t last) {
    kernels_.elementwise({.kind = kind, .x = x + first, .y = y ? y + first : nullptr, .out = out + first, .count = last - first, .factor = factor});
  });
}

void CpuDevice::norm(const float* x, const Norm& norm, float* y, uint32_t rows, uint32_t n) {
  split(rows, 1 + least_elements / n, [&](uint64_t first, uint64_t last) {
    norm_rows(x + first * n, norm, y + first * n, static_cast<uint32_t>(last - first), n);
  });
}

void CpuDevice::scale(float* x, uint64_t count, float factor) { change(Elementwise::scale, x, nullptr, x, count, factor); }
void CpuDevice::add(float* y, const float* x, uint64_t count, float factor) { change(Elementwise::add_scaled, y, x, y, count, factor); }
void CpuDevice::gate(float* x, const float* gate, uint64_t count) { change(Elementwise::gate, x, gate, x, count, 0); }
void CpuDevice::softcap(float* x, uint64_t count, float cap) { change(Elementwise::softcap, x, nullptr, x, count, cap); }

void CpuDevice::copy_columns(const Copy& c) {
  for (uint64_t row = 0; row < c.rows; ++row) std::copy_n(c.from + row * c.from_stride, c.n, c.to + row * c.to_stride);
}

void CpuDevice::gather_rows(const float* x, const uint32_t* rows, uint32_t count, uint32_t n, float* out) {
  split(count, 1 + least_elements / n, [&](uint64_t first, uint64_t last) {
    for (uint64_t i = first; i < last; ++i) std::copy_n(x + uint64_t{rows[i]} * n, n, out + i * n);
  });
}

void CpuDevice::mix_parts(const Mixture& m) {
  split(m.rows, 1 + least_elements / (uint64_t{m.n} * m.n_parts), [&](uint64_t first, uint64_t last) {
    for (uint64_t row = first; row < last; ++row) {
      float* y = m.y + row * m.n;
      if (!m.accumulate) std::fill_n(y, m.n, 0.0f);
      for (uint32_t j = 0; j < m.n_parts; ++j) {
        const float* part = m.parts + uint64_t{m.slot[row * m.n_parts + j]} * m.n;
        kernels_.elementwise({.kind = Elementwise::add_scaled, .x = y, .y = part, .out = y, .count = m.n, .factor = m.weight[row * m.n_parts + j]});
      }
    }
  });
}

void CpuDevice::add_positions(const kernels::Matrix& table, uint32_t offset, float* x) {
  float* row_values = scratch_.finished;
  for (const Sequence& s : batch_.sequences)
    for (uint32_t i = 0; i < s.n_rows; ++i) {
      kernels_.dequantize_row({&table, std::min(s.first_position + i + offset, table.n - 1), row_values});
      float* out = x + uint64_t{s.first_row + i} * table.k;
      kernels_.elementwise({.kind = Elementwise::add_scaled, .x = out, .y = row_values, .out = out, .count = table.k, .factor = 1});
    }
}

// k of a head = its own part, and behind it the part that all heads share, turned.
void CpuDevice::latent_heads(const LatentHeads& h) {
  const uint32_t d = h.d_nope + h.d_rope, rows = batch_.n_rows();
  split(rows, 1 + least_elements / (uint64_t{h.n_heads} * d), [&](uint64_t first, uint64_t last) {
    for (uint64_t row = first; row < last; ++row) {
      turn(h.rope, row, h.q + row * h.n_heads * d + h.d_nope, h.n_heads, d);
      float* k = h.k + row * h.n_heads * d;
      std::copy_n(h.kv + row * (h.kv_rank + h.d_rope) + h.kv_rank, h.d_rope, k + h.d_nope);
      turn(h.rope, row, k + h.d_nope, 1, d);
      for (uint32_t head = 0; head < h.n_heads; ++head) {
        std::copy_n(h.k_nope + (row * h.n_heads + head) * h.d_nope, h.d_nope, k + uint64_t{head} * d);
        if (head) std::copy_n(k + h.d_nope, h.d_rope, k + uint64_t{head} * d + h.d_nope);
      }
    }
  });
}

}  // namespace gptq::device
