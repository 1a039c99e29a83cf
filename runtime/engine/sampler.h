// SPDX-License-Identifier: Apache-2.0
// From logits to the next token. Allocates nothing; the same seed and logits give the same token.
#pragma once
#include <cstdint>
#include <span>

#include "device/device.h"

namespace gptq::engine {

struct Sampling {
  float temperature = 0, top_p = 0, min_p = 0, repeat_penalty = 0;  // 0 = greedy / off
  int32_t top_k = 0;
  uint32_t penalty_window = 0;  // 0 = all

  bool is_greedy() const { return !(temperature > 0) && !penalizes(); }
  bool penalizes() const { return repeat_penalty != 0 && repeat_penalty != 1; }
  // How many of the best of n logits are all that is looked at; 0 = every one is.
  uint32_t candidates(uint32_t n) const;
};

using device::Candidate;

// splitmix64 (Steele, Lea, Flood 2014)
class Random {
 public:
  explicit Random(uint64_t seed = 0) : state_(seed) {}
  double uniform();  // [0, 1)
  uint64_t state() const { return state_; }  // the seed of one that goes on here

 private:
  uint64_t state_;
};

constexpr int32_t not_finite = -1, none_allowed = -2;
// The next token; or not_finite where a logit is NaN or infinite. history: the sequence so far, for the penalty. scratch: [logits.size()].
// mask: bits of the tokens that may come, or empty for all; none_allowed where none may.
int32_t sample(std::span<const float> logits, std::span<const int32_t> history, const Sampling& sampling, Random& random,
               Candidate* scratch, std::span<const uint32_t> mask = {});
// The same of the best logits alone, in their order: sampling.candidates(n) of them at least.
int32_t sample_best(std::span<const Candidate> best, uint32_t n_logits, const Sampling& sampling, Random& random, Candidate* scratch);

}  // namespace gptq::engine
