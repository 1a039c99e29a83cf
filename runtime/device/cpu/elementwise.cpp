// SPDX-License-Identifier: Apache-2.0
// What is done number by number, or row by row.
#include <cmath>

#include "device/cpu/cpu_device.h"

namespace gptq::device {
namespace {

using kernels::Activation;

constexpr uint64_t least_elements = 8192;  // of a task

float gelu(float x) { return 0.5f * x * (1 + std::erf(x * 0.70710678f)); }
float gelu_tanh(float x) { return 0.5f * x * (1 + std::tanh(0.79788456f * (x + 0.044715f * x * x * x))); }
float sigmoid(float x) { return 1 / (1 + std::exp(-x)); }

// alpha_p, alpha_n (softplus taken), beta, eps (Apertus).
float xielu(float x, const float* p) {
  return x > 0 ? p[0] * x * x + p[2] * x : (std::expm1(std::min(x, p[3])) - x) * p[1] + p[2] * x;
}

float apply(Activation activation, float x, const float* params) {
  switch (activation) {
    case Activation::silu: return x * sigmoid(x);
    case Activation::gelu: return gelu(x);
    case Activation::gelu_tanh: return gelu_tanh(x);
    case Activation::relu: return std::max(x, 0.0f);
    case Activation::relu2: return x > 0 ? x * x : 0;
    case Activation::xielu: return xielu(x, params);
    case Activation::swiglu_clamped: return 0;  // takes two
  }
  return 0;
}

// gpt-oss
float clamped_swiglu(float gate, float up) {
  const float g = std::min(gate, 7.0f), u = std::clamp(up, -7.0f, 7.0f);
  return (u + 1) * g * sigmoid(1.702f * g);
}

void layer_norm(const float* x, const Norm& norm, float* y, uint32_t n) {
  double sum = 0, squares = 0;
  for (uint32_t i = 0; i < n; ++i) sum += x[i];
  const double mean = sum / n;
  for (uint32_t i = 0; i < n; ++i) squares += (x[i] - mean) * (x[i] - mean);
  const double scale = 1 / std::sqrt(squares / n + norm.eps);
  for (uint32_t i = 0; i < n; ++i) {
    const auto normed = static_cast<float>((x[i] - mean) * scale);
    y[i] = normed * (norm.weight ? norm.weight[i] : 1) + (norm.bias ? norm.bias[i] : 0);
  }
}

void rms_norm_without_weights(const float* x, float* y, uint32_t n, float eps) {
  double squares = 0;
  for (uint32_t i = 0; i < n; ++i) squares += double(x[i]) * x[i];
  const auto scale = static_cast<float>(1 / std::sqrt(squares / n + eps));
  for (uint32_t i = 0; i < n; ++i) y[i] = x[i] * scale;
}

}  // namespace

void CpuDevice::norm_rows(const float* x, const Norm& norm, float* y, uint32_t rows, uint32_t n) const {
  if (norm.kind == kernels::NormKind::rms && norm.weight) return kernels_.rms_norm({x, norm.weight, y, rows, n, norm.eps});
  for (uint32_t row = 0; row < rows; ++row, x += n, y += n)
    if (norm.kind == kernels::NormKind::rms) rms_norm_without_weights(x, y, n, norm.eps);
    else layer_norm(x, norm, y, n);
}

void CpuDevice::activate(const Input& input, const float* x, const float* up, float* y, uint32_t n) const {
  if (input.activation == Activation::silu && up) return kernels_.silu_mul({x, up, y, n});
  for (uint32_t i = 0; i < n; ++i) {
    if (input.activation == Activation::swiglu_clamped) y[i] = clamped_swiglu(x[i], up[i]);
    else y[i] = apply(input.activation, x[i], input.act_params) * (up ? up[i] : 1);
  }
}

void CpuDevice::norm(const float* x, const Norm& norm, float* y, uint32_t rows, uint32_t n) {
  split(rows, 1 + least_elements / n, [&](uint64_t first, uint64_t last) {
    norm_rows(x + first * n, norm, y + first * n, static_cast<uint32_t>(last - first), n);
  });
}

void CpuDevice::scale(float* x, uint64_t count, float factor) {
  split(count, least_elements, [&](uint64_t first, uint64_t last) {
    for (uint64_t i = first; i < last; ++i) x[i] *= factor;
  });
}

void CpuDevice::add(float* y, const float* x, uint64_t count, float factor) {
  split(count, least_elements, [&](uint64_t first, uint64_t last) {
    for (uint64_t i = first; i < last; ++i) y[i] += factor * x[i];
  });
}

void CpuDevice::gate(float* x, const float* gate, uint64_t count) {
  split(count, least_elements / 8, [&](uint64_t first, uint64_t last) {
    for (uint64_t i = first; i < last; ++i) x[i] *= sigmoid(gate[i]);
  });
}

void CpuDevice::softcap(float* x, uint64_t count, float cap) {
  split(count, least_elements / 8, [&](uint64_t first, uint64_t last) {
    for (uint64_t i = first; i < last; ++i) x[i] = cap * std::tanh(x[i] / cap);
  });
}

void CpuDevice::multiply(const Multiplication& m) {
  split(m.rows, 1 + least_elements / m.n, [&](uint64_t first, uint64_t last) {
    for (uint64_t row = first; row < last; ++row)
      for (uint32_t i = 0; i < m.n; ++i) m.out[row * m.n + i] = m.a[row * m.a_stride + i] * m.b[row * m.b_stride + i];
  });
}

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
        const float weight = m.weight[row * m.n_parts + j];
        for (uint32_t i = 0; i < m.n; ++i) y[i] += weight * part[i];
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
      for (uint32_t j = 0; j < table.k; ++j) out[j] += row_values[j];
    }
}

// k of a head = its own part, and behind it the part that all heads share, turned.
void CpuDevice::latent_heads(const LatentHeads& h) {
  const uint32_t d = h.d_nope + h.d_rope, rows = batch_.n_rows();
  split(rows, 1 + least_elements / (uint64_t{h.n_heads} * d), [&](uint64_t first, uint64_t last) {
    const auto turn = [&](uint64_t row, float* x, uint32_t n_heads) {
      if (h.rope < 0) return;
      const Angles& angles = batch_.ropes[static_cast<size_t>(h.rope)];
      kernels_.rope({x, angles.cos + row * angles.n, angles.sin + row * angles.n, 1, n_heads * d, n_heads, d, 2 * angles.n});
    };
    for (uint64_t row = first; row < last; ++row) {
      turn(row, h.q + row * h.n_heads * d + h.d_nope, h.n_heads);
      float* k = h.k + row * h.n_heads * d;
      std::copy_n(h.kv + row * (h.kv_rank + h.d_rope) + h.kv_rank, h.d_rope, k + h.d_nope);
      turn(row, k + h.d_nope, 1);
      for (uint32_t head = 0; head < h.n_heads; ++head) {
        std::copy_n(h.k_nope + (row * h.n_heads + head) * h.d_nope, h.d_nope, k + uint64_t{head} * d);
        if (head) std::copy_n(k + h.d_nope, h.d_rope, k + uint64_t{head} * d + h.d_nope);
      }
    }
  });
}

}  // namespace gptq::device
