// SPDX-License-Identifier: Apache-2.0
// From logits to the next token. Allocates nothing; the same seed and logits give the same token.
#pragma once
#include <cstdint>
#include <span>

#include "device/device.h"

namespace gptq::engine {

constexpr uint32_t logit_biases_max = 256, dry_breakers_max = 16;
struct LogitBias {
  int32_t token;
  float bias;
};

// In the order in which they count: bias, the constraint's mask, penalties, DRY, top_n_sigma, top_k, temperature, typical_p, top_p,
// min_p, XTC; mirostat instead of all behind the temperature. What is 0 is off; temperature 0 takes the best after DRY.
struct Sampling {
  float temperature = 0, top_p = 0, min_p = 0, repeat_penalty = 0;
  int32_t top_k = 0;
  uint32_t penalty_window = 0;  // 0 = all
  float frequency_penalty = 0, presence_penalty = 0;
  float dry_multiplier = 0, dry_base = 1.75f;  // a token that makes a repeat of n tokens longer loses multiplier * base^(n - allowed_length)
  uint32_t dry_allowed_length = 2, dry_window = 0;
  float top_n_sigma = 0, typical_p = 0;
  float temperature_range = 0, temperature_exponent = 1;  // by the entropy: from temperature - range to temperature + range
  float xtc_probability = 0, xtc_threshold = 0;           // so often all that are as likely as the threshold go, but for the last
  float mirostat_tau = 0, mirostat_eta = 0;               // bits
  std::span<const LogitBias> bias{};                      // each token once

  bool is_greedy() const { return !(temperature > 0) && !penalizes(); }
  bool penalizes() const { return repeats() || counts() || dry_multiplier > 0 || !bias.empty(); }
  bool repeats() const { return repeat_penalty != 0 && repeat_penalty != 1; }
  bool reshapes() const { return typical_p > 0 || xtc_probability > 0; }  // the best may go
  bool only_min_p() const {  // takes all that are not likely enough, whatever the others are
    return min_p > 0 && !(top_p > 0 && top_p < 1) && !(typical_p > 0 && typical_p < 1) && !(temperature_range > 0) && !(mirostat_tau > 0) && !top_k;
  }
  bool counts() const { return frequency_penalty != 0 || presence_penalty != 0; }
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

// What sampling writes over.
struct SamplerScratch {
  Candidate* candidates;  // [n_vocab]
  float* logits;          // [n_vocab]: with bias and penalties
};

constexpr int32_t not_finite = -1, none_allowed = -2, no_room = -3;
// The next token; or not_finite where a logit is NaN or infinite. history: the sequence so far, for the penalties.
// mask: bits of the tokens that may come, or empty for all; none_allowed where none may; no_room is for who makes the mask. mu: mirostat's,
// 2 tau at first. unbroken: so many of the last tokens DRY may take for a repeat.
int32_t sample(std::span<const float> logits, std::span<const int32_t> history, const Sampling& sampling, Random& random,
               const SamplerScratch& scratch, std::span<const uint32_t> mask = {}, float* mu = nullptr, uint32_t unbroken = UINT32_MAX);
// ln of the sum of e^logit, within 1e-6; NaN where a logit is not finite.
double log_sum_exp(std::span<const float> logits);
// The n best of finite logits, or all, in their order, at the front of scratch: [logits.size()].
std::span<Candidate> best_of(std::span<const float> logits, size_t n, Candidate* scratch);
// The same of the best logits alone, in their order: sampling.candidates(n) of them at least.
int32_t sample_best(std::span<const Candidate> best, uint32_t n_logits, const Sampling& sampling, Random& random, Candidate* scratch);

}  // namespace gptq::engine
