// SPDX-License-Identifier: Apache-2.0
#include "engine/sampler.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace gptq::engine {
namespace {

// Higher logit first; of equal ones the lower id, so that the order is total.
bool better(const Candidate& a, const Candidate& b) { return a.logit != b.logit ? a.logit > b.logit : a.token < b.token; }

bool all_finite(std::span<const float> logits) {
  uint32_t bad = 0;
  for (float x : logits) bad |= (std::bit_cast<uint32_t>(x) & 0x7F800000u) == 0x7F800000u;
  return !bad;
}

int32_t greedy(std::span<const Candidate> candidates) {
  return std::min_element(candidates.begin(), candidates.end(), better)->token;
}

// Finite floats in the order of these numbers, but for the zeros.
int32_t rank(float x) {
  const int32_t bits = std::bit_cast<int32_t>(x);
  return bits < 0 ? bits ^ 0x7FFFFFFF : bits;
}

// The same of finite logits as they are: the largest, in a loop that compilers make vectors of, then the first that equals it.
int32_t greedy(std::span<const float> logits) {
  int32_t best = rank(logits[0]);
  for (float x : logits) best = std::max(best, rank(x));
  const float largest = std::bit_cast<float>(best < 0 ? best ^ 0x7FFFFFFF : best);
  return static_cast<int32_t>(std::find(logits.begin(), logits.end(), largest) - logits.begin());
}

// As transformers' RepetitionPenaltyLogitsProcessor: once per distinct token.
void penalize(std::span<const float> logits, std::span<const int32_t> history, const Sampling& sampling, Candidate* candidates) {
  if (!sampling.penalizes()) return;
  const float penalty = sampling.repeat_penalty;
  if (sampling.penalty_window && history.size() > sampling.penalty_window) history = history.last(sampling.penalty_window);
  for (int32_t token : history) {
    const float logit = logits[static_cast<size_t>(token)];
    candidates[token].logit = logit > 0 ? logit / penalty : logit * penalty;
  }
}

// Moves those with a bit in the mask to the front, in their order.
std::span<Candidate> only(std::span<const uint32_t> mask, std::span<Candidate> candidates) {
  size_t n = 0;
  for (size_t word = 0; word < mask.size(); ++word)
    for (uint32_t bits = mask[word]; bits; bits &= bits - 1) candidates[n++] = candidates[word * 32 + static_cast<size_t>(std::countr_zero(bits))];
  return candidates.first(n);
}

// Sorts the best n to the front, in order.
void sort_best(std::span<Candidate> candidates, size_t n) {
  if (n < candidates.size()) std::nth_element(candidates.begin(), candidates.begin() + static_cast<ptrdiff_t>(n), candidates.end(), better);
  std::sort(candidates.begin(), candidates.begin() + static_cast<ptrdiff_t>(std::min(n, candidates.size())), better);
}

// The shortest sorted prefix that holds top_p of the total weight; sorts no more than it needs.
template <class Weight>
size_t nucleus(std::span<Candidate> candidates, double wanted, Weight weight) {
  double sum = 0;
  size_t n = 0;
  for (size_t sorted = 0; n < candidates.size() && sum < wanted; ++n) {
    if (n == sorted) {
      const size_t more = std::min(candidates.size() - sorted, std::max<size_t>(256, 7 * sorted));
      sort_best(candidates.subspan(sorted), more);
      sorted += more;
    }
    sum += weight(candidates[n]);
  }
  return n;
}

// Among those that are kept, by temperature, top_p and min_p.
int32_t choose(std::span<Candidate> kept, const Sampling& sampling, Random& random) {
  const Candidate best = *std::min_element(kept.begin(), kept.end(), better);
  const auto weight = [&](const Candidate& c) { return std::exp((c.logit - double{best.logit}) / sampling.temperature); };
  const auto total = [&] {
    double sum = 0;
    for (const Candidate& c : kept) sum += weight(c);
    return sum;
  };
  if (sampling.top_p > 0 && sampling.top_p < 1) kept = kept.first(nucleus(kept, sampling.top_p * total(), weight));
  if (sampling.min_p > 0)
    kept = kept.first(static_cast<size_t>(
        std::partition(kept.begin(), kept.end(), [&](const Candidate& c) { return weight(c) >= sampling.min_p; }) - kept.begin()));
  if (kept.empty()) return best.token;
  double left = random.uniform() * total();
  for (const Candidate& c : kept)
    if ((left -= weight(c)) < 0) return c.token;
  return kept.back().token;
}

}  // namespace

double Random::uniform() {
  uint64_t z = state_ += 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return static_cast<double>((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

uint32_t Sampling::candidates(uint32_t n) const {
  if (is_greedy()) return 1;
  return !penalizes() && top_k > 0 && static_cast<uint32_t>(top_k) < n ? static_cast<uint32_t>(top_k) : 0;
}

int32_t sample(std::span<const float> logits, std::span<const int32_t> history, const Sampling& sampling, Random& random,
               Candidate* scratch, std::span<const uint32_t> mask) {
  if (!all_finite(logits)) return not_finite;
  if (mask.empty() && sampling.is_greedy()) return greedy(logits);
  std::span<Candidate> kept(scratch, logits.size());
  for (size_t i = 0; i < logits.size(); ++i) kept[i] = {logits[i], static_cast<int32_t>(i)};
  penalize(logits, history, sampling, scratch);
  if (!mask.empty()) {
    kept = only(mask, kept);
    if (kept.empty()) return none_allowed;
  }
  if (!(sampling.temperature > 0)) return greedy(kept);
  if (sampling.top_k > 0 && static_cast<size_t>(sampling.top_k) < kept.size()) {
    sort_best(kept, static_cast<size_t>(sampling.top_k));
    kept = kept.first(static_cast<size_t>(sampling.top_k));
  }
  return choose(kept, sampling, random);
}

int32_t sample_best(std::span<const Candidate> best, uint32_t n_logits, const Sampling& sampling, Random& random, Candidate* scratch) {
  if (best[0].token < 0 || sampling.is_greedy()) return best[0].token;
  const std::span<Candidate> kept(scratch, sampling.candidates(n_logits));
  std::copy_n(best.begin(), kept.size(), kept.begin());
  return choose(kept, sampling, random);
}

}  // namespace gptq::engine
