// SPDX-License-Identifier: Apache-2.0
#include "engine/lookup.h"

#include <algorithm>

namespace gptq::engine {
namespace {

constexpr size_t longest = 16, shortest = 2;  // copies
constexpr uint32_t passes = 64;                 // then one guess is tried whatever is known
constexpr float rate = 0.15f;

// Takes the place behind text[end - 1] where the copy there is longer.
void look(std::span<const int32_t> sequence, std::span<const int32_t> text, size_t end, Lookup::Place& best) {
  const size_t n = sequence.size();
  if (text[end - 1] != sequence[n - 1]) return;
  size_t length = 1;
  while (length < std::min({longest, end, n}) && text[end - 1 - length] == sequence[n - 1 - length]) ++length;
  if (length > best.length) best = {static_cast<uint32_t>(end), static_cast<uint32_t>(length)};
}

}  // namespace

Lookup::Place Lookup::find(std::span<const int32_t> sequence) {
  Place best{0, shortest - 1};
  for (size_t end = sequence.size(); best.length < longest && end-- > 1;) look(sequence, sequence, end, best);
  return best.at ? best : Place{};
}

Lookup::Place Lookup::find(std::span<const int32_t> sequence, std::span<const int32_t> text, uint32_t from) {
  Place best{0, shortest - 1};
  if (sequence.empty()) return {};
  from = std::max(from, 1u);
  for (size_t end = from; best.length < longest && end < text.size(); ++end) look(sequence, text, end, best);
  for (size_t end = 1; best.length < longest && end < std::min<size_t>(from, text.size()); ++end) look(sequence, text, end, best);
  return best.at ? best : Place{};
}

Lookup::Worth Lookup::best(uint32_t trust, uint32_t most, const Cost& cost) const {
  Worth best{0, 1 / cost(0)};
  double tokens = 1, power = 1;
  for (uint32_t i = 1; i <= most; ++i) {
    power *= right_[trust];
    tokens += power;
    if (const double gain = tokens / cost(i); gain > best.gain) best = {i, gain};
  }
  return best;
}

bool Lookup::tries(uint32_t trust, uint32_t most, const Cost& cost) const {
  return most && (passed_[trust] + 1 >= passes || best(trust, most, cost).n);
}

uint32_t Lookup::worth(uint32_t trust, uint32_t most, const Cost& cost) {
  uint32_t n = best(trust, most, cost).n;
  if (n == 0 && most && ++passed_[trust] >= passes) n = 1;
  if (n) passed_[trust] = 0;
  return n;
}

void Lookup::learn(uint32_t trust, uint32_t n, uint32_t right) {
  float& share = right_[trust];
  for (uint32_t i = 0; i < std::min(n, right + 1); ++i) share += rate * ((i < right ? 1.0f : 0.0f) - share);
}

}  // namespace gptq::engine
