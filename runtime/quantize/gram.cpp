// SPDX-License-Identifier: Apache-2.0
#include "quantize/gram.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <utility>

#include "base/checked.h"

namespace gptq::quantize {
namespace {

using kernels::panel_columns;
constexpr uint32_t run_rows = 512;   // tokens summed in float32
constexpr uint32_t tile_size = 4 * panel_columns;  // of the result

}  // namespace

Gram::Gram(uint32_t n, uint32_t k, const kernels::Kernels& kernels, base::Pool& pool, std::pmr::memory_resource* memory)
    : n_(n), k_(k), kernels_(kernels), pool_(pool), memory_(memory), sums_(memory, base::to_size(base::mul(n, k, sizeof(double)))),
      panels_(memory, (size_t{k} + panel_columns) * run_rows * sizeof(float)),
      tiles_(memory, size_t{tile_size} * tile_size * sizeof(float) * pool.threads() * 4) {
  std::fill_n(data(), sums_.size() / sizeof(double), 0.0);
}

void Gram::add(const float* x, const float* weights, uint32_t rows) {
  rows_ += rows;
  for (uint32_t first = 0; first < rows; first += run_rows)
    add_run(nullptr, x + size_t{first} * k_, weights ? weights + first : nullptr, std::min(run_rows, rows - first));
}

void Gram::add_cross(const float* left, const float* x, const float* weights, uint32_t rows) {
  if (!left_panels_.size()) left_panels_ = base::Buffer(memory_, (size_t{n_} + panel_columns) * run_rows * sizeof(float));
  rows_ += rows;
  for (uint32_t first = 0; first < rows; first += run_rows)
    add_run(left + size_t{first} * n_, x + size_t{first} * k_, weights ? weights + first : nullptr, std::min(run_rows, rows - first));
}

void Gram::add(const Gram& other) {
  rows_ += other.rows_;
  pool_.run(n_, [&](uint32_t i) {
    for (size_t j = size_t{i} * k_; j < size_t{i + 1} * k_; ++j) data()[j] += other.data()[j];
  });
}

void Gram::collect(const float* x, const float* weights, uint32_t rows) {
  if (!kept_.size()) kept_ = base::Buffer(memory_, (size_t{k_} + 1) * run_rows * sizeof(float));
  auto* kept = reinterpret_cast<float*>(kept_.data());
  for (uint32_t row = 0; row < rows; ++row) {
    std::copy_n(x + size_t{row} * k_, k_, kept + size_t{n_kept_} * k_);
    kept[size_t{run_rows} * k_ + n_kept_] = weights ? weights[row] : 1.0f;
    if (++n_kept_ == run_rows) add_kept();
  }
}

void Gram::add_kept() {
  const auto* kept = reinterpret_cast<const float*>(kept_.data());
  add(kept, kept + size_t{run_rows} * k_, std::exchange(n_kept_, 0));
}

uint64_t Gram::bytes(uint32_t n, uint32_t k, uint32_t threads) {
  return uint64_t{n} * k * sizeof(double) + (uint64_t{n} + k + 2 * panel_columns) * run_rows * sizeof(float) +
         uint64_t{tile_size} * tile_size * sizeof(float) * threads * 4;
}

// left: NULL = x, of which the lower triangle is enough.
void Gram::add_run(const float* left, const float* x, const float* weights, uint32_t rows) {
  fill_panels(x, k_, weights, rows, panels_);
  if (left) fill_panels(left, n_, weights, rows, left_panels_);
  const auto* left_panels = reinterpret_cast<const float*>((left ? left_panels_ : panels_).data());
  const uint32_t across = (k_ + tile_size - 1) / tile_size, tiles = (n_ + tile_size - 1) / tile_size * across;
  // As many at a time as there is room for.
  const uint32_t slots = static_cast<uint32_t>(tiles_.size() / (size_t{tile_size} * tile_size * sizeof(float)));
  std::atomic<uint32_t> next{0};
  pool_.run(std::min(slots, tiles), [&](uint32_t slot) {
    float* out = reinterpret_cast<float*>(tiles_.data()) + size_t{slot} * tile_size * tile_size;
    for (uint32_t tile; (tile = next.fetch_add(1, std::memory_order_relaxed)) < tiles;)
      if (left || tile % across <= tile / across) add_tile(left_panels, tile / across * tile_size, tile % across * tile_size, rows, out);
  });
}

// [width / 48 up][rows][48], each row by the root of its weight.
void Gram::fill_panels(const float* x, uint32_t width, const float* weights, uint32_t rows, base::Buffer& panels) {
  pool_.run((width + panel_columns - 1) / panel_columns, [&](uint32_t task) {
    const uint32_t first = task * panel_columns, n = std::min(panel_columns, width - first);
    float* out = reinterpret_cast<float*>(panels.data()) + size_t{first} * rows;
    for (uint32_t row = 0; row < rows; ++row, out += panel_columns) {
      const float factor = weights ? std::sqrt(weights[row]) : 1.0f;
      for (uint32_t c = 0; c < n; ++c) out[c] = factor * x[size_t{row} * width + first + c];
      std::fill(out + n, out + panel_columns, 0.0f);
    }
  });
}

void Gram::add_tile(const float* left, uint32_t i0, uint32_t j0, uint32_t rows, float* out) {
  const uint32_t m = std::min(tile_size, n_ - i0), n = std::min(tile_size, k_ - j0);
  const auto* panels = reinterpret_cast<const float*>(panels_.data());
  std::fill_n(out, size_t{m} * n, 0.0f);
  for (uint32_t i = 0; i < m; i += panel_columns) {
    const uint32_t columns = left == panels && i0 == j0 ? std::min(n, i + panel_columns) : n;  // the upper triangle comes at the end
    kernels_.add_product({left + size_t{i0 + i} * rows, panels + size_t{j0} * rows, out + size_t{i} * n, 1, panel_columns, n,
                          std::min(panel_columns, m - i), columns, rows});
  }
  for (uint32_t i = 0; i < m; ++i) {
    double* sums = data() + size_t{i0 + i} * k_ + j0;
    for (uint32_t j = 0; j < n; ++j) sums[j] += static_cast<double>(out[size_t{i} * n + j]);
  }
}

void Gram::finish() {
  if (n_kept_) add_kept();
  kept_ = base::Buffer();
  pool_.run(k_, [&](uint32_t i) {
    for (uint32_t j = 0; j < i; ++j) data()[size_t{j} * k_ + i] = data()[size_t{i} * k_ + j];
  });
}

bool Gram::is_finite() const {
  for (uint32_t i = 0; i < k_; ++i)
    if (!std::isfinite(data()[size_t{i} * (k_ + 1)])) return false;
  return true;
}

}  // namespace gptq::quantize
