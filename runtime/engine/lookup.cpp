// SPDX-License-Identifier: Apache-2.0
#include "engine/lookup.h"

#include <algorithm>

namespace gptq::engine {
namespace {

constexpr size_t longest = 16, shortest = 2;  // copies
constexpr uint32_t passes = 64;                 // then one guess is tried whatever is known, in case the text has changed
constexpr float rate = 0.15f;

}  // namespace

Lookup::Place Lookup::find(std::span<const int32_t> sequence) {
  const size_t n = sequence.size();
  size_t best = shortest - 1, at = 0;
  for (size_t end = n; best < longest && end-- > 1;) {  // the copy's
    if (sequence[end - 1] != sequence[n - 1]) continue;
    size_t length = 1;
    while (length < std::min(longest, end) && sequence[end - 1 - length] == sequence[n - 1 - length]) ++length;
    if (length > best) best = length, at = end;
  }
  return {static_cast<uint32_t>(at), best >= 8 ? 2u : best >= 4 ? 1u : 0u};
}

uint32_t Lookup::worth(uint32_t trust, uint32_t most, const std::function<double(uint32_t)>& cost) {
  double best = 1 / cost(0), tokens = 1, power = 1;
  uint32_t n = 0;
  for (uint32_t i = 1; i <= most; ++i) {
    power *= right_[trust];
    tokens += power;
    if (const double gain = tokens / cost(i); gain > best) best = gain, n = i;
  }
  if (n == 0 && most && ++passed_[trust] >= passes) n = 1;
  if (n) passed_[trust] = 0;
  return n;
}

void Lookup::learn(uint32_t trust, uint32_t n, uint32_t right) {
  float& share = right_[trust];
  for (uint32_t i = 0; i < std::min(n, right + 1); ++i) share += rate * ((i < right ? 1.0f : 0.0f) - share);
}

}  // namespace gptq::engine
