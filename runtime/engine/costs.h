// SPDX-License-Identifier: Apache-2.0
// What work took lately, by the power of two of its rows. Microseconds; 0 = not known.
#pragma once
#include <cstdint>

namespace gptq::engine {

class Costs {
 public:
  void note(uint32_t rows, double us);
  double estimate(uint32_t rows) const;
  // The most rows that fit the budget; few where nothing is known.
  uint32_t rows_within(double budget_us, uint32_t most) const;
  // When `known` rows, fewer or as many, are usual: where these were never seen, as from `known` to the most seen below them, or as if a row more
  // took a third; and no more than what was seen of more.
  double predict(uint32_t rows, uint32_t known) const;

 private:
  double us_[32] = {};
  uint8_t n_noted_[32] = {};
};

}  // namespace gptq::engine
