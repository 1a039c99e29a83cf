// SPDX-License-Identifier: Apache-2.0
#include "quantize/panels.h"

#include <algorithm>

#include "base/checked.h"

namespace gptq::quantize {
namespace {

using kernels::Matrix;
using kernels::panel_columns;

}  // namespace

PanelDevice::PanelDevice(const kernels::Kernels& kernels, base::Pool& pool, const device::CpuScratch& scratch, std::pmr::memory_resource* memory)
    : CpuDevice(kernels, pool, scratch), kernels_(kernels), pool_(pool), memory_(memory) {}

Matrix PanelDevice::hold(const Matrix& w) {
  const uint32_t panels = (w.n + panel_columns - 1) / panel_columns;
  const base::Buffer& held = held_.emplace_back(memory_, base::to_size(base::mul(panels * panel_columns, w.k, sizeof(float))));
  auto* out = reinterpret_cast<float*>(held.data());
  pool_.run_throwing(panels, [&](uint32_t task) {
    const uint32_t first = task * panel_columns, rows = std::min(panel_columns, w.n - first);
    const base::Buffer scratch(memory_, size_t{w.k} * panel_columns * sizeof(float));
    auto* values = reinterpret_cast<float*>(scratch.data());
    std::fill_n(values, size_t{w.k} * panel_columns, 0.0f);
    for (uint32_t row = 0; row < rows; ++row) kernels_.dequantize_row({&w, first + row, values + size_t{row} * w.k});
    float* panel = out + size_t{first} * w.k;
    for (uint32_t l = 0; l < w.k; ++l)
      for (uint32_t row = 0; row < panel_columns; ++row) panel[size_t{l} * panel_columns + row] = values[size_t{row} * w.k + l];
  });
  return {kernels::Kind::f32, false, w.n, w.k, w.k, 0, out, nullptr, nullptr, nullptr};
}

bool PanelDevice::holds(const Matrix& w) const {
  return std::any_of(held_.begin(), held_.end(), [&](const base::Buffer& buffer) { return reinterpret_cast<const void*>(buffer.data()) == w.codes; });
}

void PanelDevice::matmul(std::span<const device::Product> products, bool accumulate) {
  for (const device::Product& product : products)
    if (holds(*product.w)) multiply(product, finish_rows(product.w->k), prepared_rows(), accumulate);
    else CpuDevice::matmul({&product, 1}, accumulate);
}

void PanelDevice::multiply(const device::Product& product, const float* x, uint32_t rows, bool accumulate) {
  const uint32_t n = product.w->n, k = product.w->k, at_once = std::clamp(rows / (pool_.threads() * 4), 32u, 256u);
  pool_.run((rows + at_once - 1) / at_once, [&](uint32_t task) {
    const uint32_t first = task * at_once, last = std::min(rows, first + at_once);
    float* y = product.y + size_t{first} * n;
    for (uint32_t row = 0; row < last - first; ++row)
      for (uint32_t i = 0; i < n; ++i) y[size_t{row} * n + i] = (accumulate ? y[size_t{row} * n + i] : 0) + (product.bias ? product.bias[i] : 0);
    kernels_.add_product({x + size_t{first} * k, static_cast<const float*>(product.w->codes), y, k, 1, n, last - first, n, k});
  });
}

}  // namespace gptq::quantize
