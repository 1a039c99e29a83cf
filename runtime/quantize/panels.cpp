// SPDX-License-Identifier: Apache-2.0
#include "quantize/panels.h"

#include <algorithm>

#include "base/checked.h"

namespace gptq::quantize {
namespace {

using kernels::Matrix;
using kernels::panel_columns;

size_t panel_bytes(uint32_t n, uint32_t k) { return base::to_size(base::mul(base::round_up(uint64_t{n}, panel_columns), k, sizeof(float))); }

}  // namespace

PanelDevice::PanelDevice(const kernels::Kernels& kernels, base::Pool& pool, const device::CpuScratch& scratch, std::pmr::memory_resource* memory)
    : CpuDevice(kernels, pool, scratch), kernels_(kernels), pool_(pool), memory_(memory) {}

void PanelDevice::fill(const Matrix& w, float* panels) const {
  pool_.run_throwing((w.n + panel_columns - 1) / panel_columns, [&](uint32_t task) {
    const uint32_t first = task * panel_columns, rows = std::min(panel_columns, w.n - first);
    const base::Buffer scratch(memory_, size_t{w.k} * panel_columns * sizeof(float));
    auto* values = reinterpret_cast<float*>(scratch.data());
    std::fill_n(values, size_t{w.k} * panel_columns, 0.0f);
    for (uint32_t row = 0; row < rows; ++row) kernels_.dequantize_row({&w, first + row, values + size_t{row} * w.k});
    float* panel = panels + size_t{first} * w.k;
    for (uint32_t l = 0; l < w.k; ++l)
      for (uint32_t row = 0; row < panel_columns; ++row) panel[size_t{l} * panel_columns + row] = values[size_t{row} * w.k + l];
  });
}

Matrix PanelDevice::hold(const Matrix& w) {
  const base::Buffer& held = held_.emplace_back(memory_, panel_bytes(w.n, w.k));
  auto* panels = reinterpret_cast<float*>(held.data());
  fill(w, panels);
  return {kernels::Kind::f32, false, w.n, w.k, w.k, 0, panels, nullptr, nullptr, nullptr};
}

bool PanelDevice::holds(const Matrix& w) const {
  return std::any_of(held_.begin(), held_.end(), [&](const base::Buffer& buffer) { return reinterpret_cast<const void*>(buffer.data()) == w.codes; });
}

const float* PanelDevice::panels_of(const Matrix& w) {
  if (holds(w)) return static_cast<const float*>(w.codes);
  if (!kernels::is_quantized(w.kind)) return nullptr;
  if (const size_t bytes = panel_bytes(w.n, w.k); passing_.size() < bytes) passing_ = base::Buffer(memory_, bytes);
  auto* panels = reinterpret_cast<float*>(passing_.data());
  fill(w, panels);
  return panels;
}

uint32_t PanelDevice::rows_of(const device::Product& product) const { return std::min(product.n_rows, prepared_rows() - product.first_row); }

void PanelDevice::see(std::span<const device::Product> products) {
  bool enough = false;
  for (const device::Product& product : products)
    if (const Tap::Watch* watch = tap_->find(product.w)) {
      tap_->see(product, finish_rows(product.w->k) + size_t{product.first_row} * product.w->k, rows_of(product));
      enough |= watch->last;
    }
  if (enough) throw Tap::Enough();
}

void PanelDevice::matmul(std::span<const device::Product> products, bool accumulate) {
  if (tap_) see(products);
  for (const device::Product& product : products) {
    const Tap::Watch* watch = tap_ ? tap_->find(product.w) : nullptr;
    if (watch && watch->skipped) continue;
    if (const float* panels = panels_of(*product.w)) multiply(product, panels, accumulate);
    else CpuDevice::matmul({&product, 1}, accumulate);
  }
}

void PanelDevice::gather_rows(const float* x, const uint32_t* rows, uint32_t count, uint32_t n, float* out) {
  if (tap_) tap_->gather(rows);
  CpuDevice::gather_rows(x, rows, count, n, out);
}

void PanelDevice::multiply(const device::Product& product, const float* panels, bool accumulate) {
  const uint32_t n = product.w->n, k = product.w->k, rows = rows_of(product), at_once = std::clamp(rows / (pool_.threads() * 4), 32u, 256u);
  const float* x = finish_rows(k) + size_t{product.first_row} * k;
  pool_.run((rows + at_once - 1) / at_once, [&](uint32_t task) {
    const uint32_t first = task * at_once, last = std::min(rows, first + at_once);
    float* y = product.y + (size_t{product.first_row} + first) * n;
    for (uint32_t row = 0; row < last - first; ++row)
      for (uint32_t i = 0; i < n; ++i) y[size_t{row} * n + i] = (accumulate ? y[size_t{row} * n + i] : 0) + (product.bias ? product.bias[i] : 0);
    kernels_.add_product({x + size_t{first} * k, panels, y, k, 1, n, last - first, n, k});
  });
}

}  // namespace gptq::quantize
