// SPDX-License-Identifier: Apache-2.0
#include "quantize/aim.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/checked.h"
#include "quantize/cholesky.h"

namespace gptq::quantize {
namespace {

constexpr uint32_t strip = 32;         // rows worked on by one thread
constexpr uint32_t rows_asked = 128;   // of a matrix, when share and damping are chosen
constexpr double damps[] = {0.01, 0.1, 1};  // of the mean of H's diagonal
constexpr double share_max = 1;

double* doubles(const base::Buffer& buffer) { return reinterpret_cast<double*>(buffer.data()); }
size_t square_bytes(uint32_t k) { return base::to_size(base::mul(k, k, sizeof(double))); }

}  // namespace

Aim::Pair::Pair(uint32_t k, uint32_t residual, const kernels::Kernels& kernels, base::Pool& pool, std::pmr::memory_resource* memory)
    : h(k, kernels, pool, memory), cross(k, kernels, pool, memory), lost(residual, k, kernels, pool, memory) {}

Aim::Aim(uint32_t k, uint32_t residual, uint32_t chunk_tokens, const kernels::Kernels& kernels, base::Pool& pool, std::pmr::memory_resource* memory)
    : k_(k), residual_(residual), kernels_(kernels), pool_(pool), memory_(memory),
      kept_(memory, base::to_size(base::mul(k, chunk_tokens, sizeof(float)))),
      kept_residual_(memory, base::to_size(base::mul(residual, chunk_tokens, sizeof(float)))), used_(k, residual, kernels, pool, memory),
      held_(k, residual, kernels, pool, memory) {}

uint64_t Aim::bytes(uint32_t k, uint32_t residual, uint32_t chunk_tokens, uint32_t threads) {
  return 4 * Gram::bytes(k, threads) + 2 * Gram::bytes(residual, k, threads) + square_bytes(k) + (uint64_t{k} + residual) * chunk_tokens * sizeof(float);
}

void Aim::keep(const float* x, const float* r, uint32_t rows) {
  std::memcpy(kept_.data(), x, size_t{rows} * k_ * sizeof(float));
  if (residual_) std::memcpy(kept_residual_.data(), r, size_t{rows} * residual_ * sizeof(float));
}

void Aim::add(const float* x, const float* r, const float* weights, uint32_t rows, uint32_t first_held) {
  const auto subtract = [&](base::Buffer& kept, const float* from, uint32_t width) {
    auto* difference = reinterpret_cast<float*>(kept.data());
    pool_.run(rows, [&](uint32_t row) {
      for (size_t i = size_t{row} * width; i < size_t{row + 1} * width; ++i) difference[i] -= from[i];
    });
    return difference;
  };
  const float *difference = subtract(kept_, x, k_), *lost = subtract(kept_residual_, r, residual_);
  const auto add_to = [&](Pair& pair, uint32_t first, uint32_t last) {
    if (first == last) return;
    const float *from = x + size_t{first} * k_, *w = weights ? weights + first : nullptr;
    pair.h.add(from, w, last - first);
    pair.cross.add_cross(difference + size_t{first} * k_, from, w, last - first);
    if (residual_) pair.lost.add_cross(lost + size_t{first} * residual_, from, w, last - first);
  };
  add_to(used_, 0, first_held);
  add_to(held_, first_held, rows);
}

// The factor of H of the rows that count, damped; what is below the diagonal mirrors it.
bool Aim::factor(double damp) {
  if (!factor_.size()) factor_ = base::Buffer(memory_, square_bytes(k_));
  double* r = doubles(factor_);
  std::memcpy(r, used_.h.data(), factor_.size());
  double mean = 0;
  for (uint32_t i = 0; i < k_; ++i) mean += r[size_t{i} * (k_ + 1)] / k_;
  if (!std::isfinite(mean) || !(mean > 0)) return false;
  for (uint32_t i = 0; i < k_; ++i) r[size_t{i} * (k_ + 1)] += damp * mean;
  const base::Buffer scratch(memory_, factor_scratch(k_) * sizeof(double));
  if (!factor_upper(r, k_, doubles(scratch), kernels_, pool_)) return false;
  mirror_upper(r, k_, pool_);
  return true;
}

// out [rows][k], negative: of W's rows, what its outputs lack, times X~^T
void Aim::wanted(const kernels::Matrix& w, std::span<const uint32_t> rows, const Pair& pair, double* out) const {
  const base::Buffer memory(memory_, (sizeof(double) * rows.size() + sizeof(float)) * k_);
  double* values = doubles(memory);
  auto* floats = reinterpret_cast<float*>(values + rows.size() * k_);
  for (size_t i = 0; i < rows.size(); ++i) {
    kernels_.dequantize_row({&w, rows[i], floats});
    std::copy_n(floats, k_, values + i * k_);
  }
  std::fill_n(out, rows.size() * k_, 0.0);
  if (residual_)
    for (size_t i = 0; i < rows.size(); ++i)
      for (uint32_t j = 0; j < k_; ++j) out[i * k_ + j] = -pair.lost.data()[size_t{rows[i]} * k_ + j];
  kernels_.subtract_product({values, pair.cross.data(), out, k_, k_, k_, static_cast<uint32_t>(rows.size()), k_, k_});
}

// What the factor at hand gains on rows held back: |W D|^2 falls by (2 s a - s^2 b) with share s of the correction.
void Aim::choose(const kernels::Matrix& w, double damp, Target& target) {
  const uint32_t n = std::min(w.n, rows_asked), strips = (n + strip - 1) / strip;
  std::vector<double> a(strips), b(strips);
  pool_.run_throwing(strips, [&](uint32_t task) {
    uint32_t rows[strip], count = 0;
    for (uint32_t i = task * strip; i < std::min(n, (task + 1) * strip); ++i) rows[count++] = static_cast<uint32_t>(uint64_t{i} * w.n / n);
    const size_t size = size_t{count} * k_;
    const base::Buffer memory(memory_, 3 * size * sizeof(double));
    double *correction = doubles(memory), *lacking = correction + size, *given = lacking + size;
    wanted(w, {rows, count}, used_, correction);
    solve_rows(doubles(factor_), k_, correction, count, kernels_);
    wanted(w, {rows, count}, held_, lacking);
    std::fill_n(given, size, 0.0);
    kernels_.subtract_product({correction, held_.h.data(), given, k_, k_, k_, count, k_, k_});
    for (size_t i = 0; i < size; ++i) a[task] += correction[i] * lacking[i], b[task] -= correction[i] * given[i];
  });
  double sa = 0, sb = 0;
  for (uint32_t i = 0; i < strips; ++i) sa += a[i], sb += b[i];
  if (!(sa > 0) || !(sb > 0)) return;
  const double share = std::min(share_max, sa / sb), gain = 2 * share * sa - share * share * sb;
  if (!(gain > target.gain)) return;
  target.gain = gain;
  target.share = share;
  target.damp = damp;
}

void Aim::correct(const kernels::Matrix& w, Target& target) {
  target.more = base::Buffer(memory_, base::to_size(base::mul(w.n, k_, sizeof(float))));
  auto* more = reinterpret_cast<float*>(target.more.data());
  pool_.run_throwing((w.n + strip - 1) / strip, [&](uint32_t task) {
    uint32_t rows[strip], count = 0;
    for (uint32_t row = task * strip; row < std::min(w.n, (task + 1) * strip); ++row) rows[count++] = row;
    const base::Buffer memory(memory_, size_t{count} * k_ * sizeof(double));
    wanted(w, {rows, count}, used_, doubles(memory));
    solve_rows(doubles(factor_), k_, doubles(memory), count, kernels_);
    for (size_t i = 0; i < size_t{count} * k_; ++i) more[size_t{task} * strip * k_ + i] = static_cast<float>(-target.share * doubles(memory)[i]);
  });
}

std::vector<Target> Aim::finish(std::span<const kernels::Matrix* const> matrices, Gram& gram) {
  std::vector<Target> targets(matrices.size());
  kept_ = base::Buffer();
  kept_residual_ = base::Buffer();
  used_.h.finish();
  held_.h.finish();
  if (held_.h.rows()) {
    for (const double damp : damps) {
      if (!factor(damp)) continue;
      for (size_t i = 0; i < matrices.size(); ++i) choose(*matrices[i], damp, targets[i]);
    }
  }
  used_.h.add(held_.h);
  used_.cross.add(held_.cross);
  used_.lost.add(held_.lost);
  gram.add(used_.h);
  for (const double damp : damps) {
    const auto wants = [&](const Target& target) { return target.share > 0 && target.damp == damp; };
    if (std::none_of(targets.begin(), targets.end(), wants)) continue;
    const bool done = factor(damp);
    for (size_t i = 0; i < matrices.size(); ++i)
      if (wants(targets[i])) {
        if (done) correct(*matrices[i], targets[i]);
        else targets[i].share = 0;
      }
  }
  return targets;
}

}  // namespace gptq::quantize
