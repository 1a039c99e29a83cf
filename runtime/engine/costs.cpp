// SPDX-License-Identifier: Apache-2.0
#include "engine/costs.h"

#include <algorithm>
#include <bit>

namespace gptq::engine {
namespace {

constexpr uint32_t rows_at_first = 16;  // with a budget, before any cost is known
constexpr uint8_t enough = 4;           // measurements, of which the least is taken until then

uint32_t bucket(uint32_t rows) { return static_cast<uint32_t>(std::bit_width(rows | 1)) - 1; }

}  // namespace

// Something else may have run just then: one bad measurement weighs little. It is forgotten even where those rows are not tried any more, since they
// take no longer than as many times these.
void Costs::note(uint32_t rows, double cost) {
  const uint32_t at = bucket(rows);
  double& us = us_[at];
  if (n_noted_[at] < enough) us = n_noted_[at]++ ? std::min(us, cost) : cost;
  else us = 0.75 * us + 0.25 * std::min(cost, 2 * us);
  for (uint32_t above = at + 1; above < 32; ++above) {
    const double most = us * (1u << (above - at));
    if (us_[above] > most) us_[above] -= (us_[above] - most) / 16;
  }
}

// From the nearest size that is known, as if cost grew with the rows.
double Costs::estimate(uint32_t rows) const {
  const uint32_t at = bucket(rows);
  if (us_[at] > 0) return us_[at];
  for (uint32_t below = at; below-- > 0;)
    if (us_[below] > 0) return us_[below] * (1u << (at - below));
  for (uint32_t above = at + 1; above < 32; ++above)
    if (us_[above] > 0) return us_[above];
  return 0;
}

// Fewer rows take no longer than more: what is not computed any more, as single rows where all are guessed for, may be an old mistake.
double Costs::predict(uint32_t rows, uint32_t known) const {
  const uint32_t at = bucket(rows), first = bucket(known);
  const auto least = [&](uint32_t from) {
    double cost = us_[from];
    for (uint32_t i = from; i < 32; ++i)
      if (us_[i] > 0) cost = std::min(cost, us_[i]);
    return cost;
  };
  if (us_[at] > 0) return least(at);
  const double usual = us_[first] > 0 ? least(first) : estimate(known);
  uint32_t below = at, above = at;
  while (below > first && us_[below] == 0) --below;
  while (above < 31 && us_[above] == 0) ++above;
  const double each = below > first ? std::max(0.0, least(below) - usual) / ((1u << below) - (1u << first)) : 0.35 * usual;
  const double cost = usual + each * (rows - known);
  return us_[above] > 0 ? std::min(cost, std::max(least(above), usual)) : cost;
}

uint32_t Costs::rows_within(double budget_us, uint32_t most) const {
  if (estimate(1) == 0) return std::min(most, rows_at_first);
  uint32_t rows = 1;
  while (rows * 2 <= most && estimate(rows * 2) <= budget_us) rows *= 2;
  return rows * 2 > most && estimate(most) <= budget_us ? most : rows;
}

}  // namespace gptq::engine
