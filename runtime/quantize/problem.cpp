// SPDX-License-Identifier: Apache-2.0
// The shared part of a solve: order of columns, damping, factor.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "base/checked.h"
#include "quantize/cholesky.h"
#include "quantize/solver.h"

namespace gptq::quantize {

Problem::Problem(const Gram& gram, const ModuleOptions& options, bool reference, const kernels::Kernels& kernels, base::Pool& pool,
                 std::pmr::memory_resource* memory)
    : k(gram.k()), group_size(options.group_size < 0 ? k : std::min(k, static_cast<uint32_t>(options.group_size))),
      n_groups((k + group_size - 1) / group_size), options(options), reference(reference), order(k, memory), group(k, memory), runs(memory),
      dead(k, false, memory), h_(memory, base::to_size(base::mul(k, k, sizeof(double)))), factor_(memory, h_.size()), pivots_(k, 1.0, memory) {
  choose_order(gram);
  permute(gram);
  factor(kernels, pool, memory);
}

// As published an input that was always 0 counts as 1, where H is 2/rows times the sum.
double Problem::published_for_dead(const Gram& gram) { return static_cast<double>(gram.rows()) / 2; }

void Problem::choose_order(const Gram& gram) {
  const auto importance = [&](uint32_t input) {
    const double h = gram.data()[size_t{input} * k + input];
    return reference && h == 0 ? published_for_dead(gram) : h;
  };
  const auto by_importance = [&](uint32_t a, uint32_t b) { return importance(a) > importance(b); };
  std::iota(order.begin(), order.end(), 0u);
  if (options.order == Order::act_order) std::stable_sort(order.begin(), order.end(), by_importance);
  if (options.order == Order::group_aware) {
    std::pmr::vector<double> most(n_groups, 0.0, order.get_allocator());
    for (uint32_t i = 0; i < k; ++i) most[i / group_size] = std::max(most[i / group_size], importance(i));
    std::stable_sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
      const uint32_t ga = a / group_size, gb = b / group_size;
      if (ga == gb) return by_importance(a, b);
      return most[ga] != most[gb] ? most[ga] > most[gb] : ga < gb;
    });
  }
  const bool along_the_way = options.order == Order::act_order && !options.static_groups;
  for (uint32_t i = 0; i < k; ++i) group[i] = (along_the_way ? i : order[i]) / group_size;
  for (uint32_t i = 0; i < k; ++i)
    if (i == 0 || group[i] != runs.back().group) runs.push_back({i, i + 1, group[i]});
    else runs.back().last = i + 1;
}

void Problem::permute(const Gram& gram) {
  auto* to = reinterpret_cast<double*>(h_.data());
  const double* from = gram.data();
  double sum = 0;
  uint32_t living = 0;
  for (uint32_t i = 0; i < k; ++i)
    for (uint32_t j = 0; j < k; ++j) to[size_t{i} * k + j] = from[size_t{order[i]} * k + order[j]];
  for (uint32_t i = 0; i < k; ++i) {
    sum += to[size_t{i} * k + i];
    if (to[size_t{i} * k + i] == 0) dead[i] = true;
    else ++living;
  }
  const double instead = reference ? published_for_dead(gram) : living ? sum / living : 1;  // so that damping is the others' affair
  for (uint32_t i = 0; i < k; ++i)
    if (dead[i]) to[size_t{i} * k + i] = instead;
}

// More damping until it succeeds; then a floor under the diagonal; then without a factor, which rounds to nearest.
void Problem::factor(const kernels::Kernels& kernels, base::Pool& pool, std::pmr::memory_resource* memory) {
  auto *damped = reinterpret_cast<double*>(h_.data()), *r = reinterpret_cast<double*>(factor_.data());
  const base::Buffer scratch(memory, factor_scratch(k) * sizeof(double));
  double mean = 0;
  for (uint32_t i = 0; i < k; ++i) mean += damped[size_t{i} * k + i] / k;
  const auto raise_to = [&](double wanted) {
    for (uint32_t i = 0; i < k; ++i) damped[size_t{i} * k + i] += (wanted - damp) * mean;
    damp = wanted;
  };
  const auto try_it = [&] {
    std::memcpy(r, damped, h_.size());
    return factor_upper(r, k, reinterpret_cast<double*>(scratch.data()), kernels, pool);
  };
  solvable = std::isfinite(mean);
  if (!solvable) return;
  raise_to(options.damp);
  bool done = try_it();
  for (double more = std::max(options.damp * 3, 0.001); !done && more < 1; more *= 3) {
    raise_to(more);
    done = try_it();
  }
  if (!done) {
    for (uint32_t i = 0; i < k; ++i) damped[size_t{i} * k + i] = std::max(damped[size_t{i} * k + i], mean);
    done = try_it();
  }
  solvable = done;
  if (!done) return;
  for (uint32_t i = 0; i < k; ++i) pivots_[i] = r[size_t{i} * k + i] * r[size_t{i} * k + i];
  pool.run(k, [&](uint32_t i) {
    for (uint32_t j = i + 1; j < k; ++j) r[size_t{i} * k + j] /= r[size_t{j} * k + j];
  });
  for (uint32_t i = 0; i < k; ++i) r[size_t{i} * k + i] = 1;
}

}  // namespace gptq::quantize
