// SPDX-License-Identifier: Apache-2.0
#include "engine/sampler.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

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

// As transformers' RepetitionPenaltyLogitsProcessor: once per distinct token. What would be infinite is the largest float.
void penalize(std::span<const float> logits, std::span<const int32_t> history, const Sampling& sampling, Candidate* candidates) {
  if (!sampling.penalizes()) return;
  const float penalty = sampling.repeat_penalty, largest = std::numeric_limits<float>::max();
  if (sampling.penalty_window && history.size() > sampling.penalty_window) history = history.last(sampling.penalty_window);
  for (int32_t token : history) {
    const float logit = logits[static_cast<size_t>(token)];
    candidates[token].logit = std::clamp(logit > 0 ? logit / penalty : logit * penalty, -largest, largest);
  }
}

// Moves those with a bit in the mask to the front, in their order.
std::span<Candidate> only(std::span<const uint32_t> mask, std::span<Candidate> candidates) {
  size_t n = 0;
  for (size_t word = 0; word < mask.size(); ++word)
    for (uint32_t bits = mask[word]; bits; bits &= bits - 1) candidates[n++] = candidates[word * 32 + static_cast<size_t>(std::countr_zero(bits))];
  return candidates.first(n);
}

// Sorts the best n to the front, in order: by a heap of the best so far where they are few, which most of the others never touch.
void sort_best(std::span<Candidate> candidates, size_t n) {
  const auto begin = candidates.begin(), end = begin + static_cast<ptrdiff_t>(std::min(n, candidates.size()));
  if (n >= candidates.size() / 16) {
    if (end != candidates.end()) std::nth_element(begin, end, candidates.end(), better);
    return std::sort(begin, end, better);
  }
  std::make_heap(begin, end, better);
  for (auto at = end; at != candidates.end(); ++at) {
    if (!better(*at, *begin)) continue;
    std::pop_heap(begin, end, better);
    std::swap(*at, *std::prev(end));
    std::push_heap(begin, end, better);
  }
  std::sort_heap(begin, end, better);
}

// e^x for x <= 0 within 2e-7, in a form that compilers make vectors of.
float exp_of(float x) {
  const float t = std::max(x * 1.44269504f, -126.0f), n = (t + 12582912.0f) - 12582912.0f, f = (t - n) * 0.693147181f;  // n: t rounded
  const float e = 1 + f * (1 + f * (0.5f + f * (0.166666667f + f * (0.0416666667f + f * (0.00833333333f + f * 0.00138888889f)))));
  return e * std::bit_cast<float>((static_cast<int32_t>(n) + 127) << 23);
}

// The weights of candidates: those of softmax, but for a factor.
class Weights {
 public:
  Weights(float best, float temperature) : best_(best), factor_(1 / std::max(temperature, 1e-30f)) {}
  float operator()(const Candidate& c) const { return exp_of((c.logit - best_) * factor_); }
  double sum(std::span<const Candidate> candidates) const {
    double total = 0;
    for (; !candidates.empty(); candidates = candidates.subspan(std::min(together, candidates.size()))) {
      const size_t n = std::min(together, candidates.size());
      float weights[together] = {}, part[lanes] = {};
      for (size_t i = 0; i < n; ++i) weights[i] = (*this)(candidates[i]);
      for (size_t i = 0; i < together; ++i) part[i % lanes] += weights[i];
      for (const float x : part) total += x;
    }
    return total;
  }

  static constexpr size_t together = 256;

 private:
  static constexpr size_t lanes = 8;
  float best_, factor_;
};

// The shortest run of the best that weighs as much as wanted, or all: moved to the front, its last one last. Sorts only what it must.
size_t crossing(std::span<Candidate> candidates, double wanted, const Weights& weights) {
  constexpr size_t few = 256;
  double sum = 0;
  size_t at = 0, end = candidates.size();
  const auto walk = [&](size_t to) {
    while (at < to && (at == 0 || sum < wanted)) sum += weights(candidates[at++]);
  };
  sort_best(candidates, few);
  walk(std::min(few, end));
  if (sum >= wanted || at == end) return at;
  while (end - at > few) {
    const size_t middle = at + (end - at) / 2;
    std::nth_element(candidates.begin() + static_cast<ptrdiff_t>(at), candidates.begin() + static_cast<ptrdiff_t>(middle),
                     candidates.begin() + static_cast<ptrdiff_t>(end), better);
    const double half = weights.sum(candidates.subspan(at, middle - at));
    if (sum + half >= wanted) end = middle;
    else sum += half, at = middle;
  }
  std::sort(candidates.begin() + static_cast<ptrdiff_t>(at), candidates.begin() + static_cast<ptrdiff_t>(end), better);
  walk(end);
  return at;
}

// The one at which the weights, added in the candidates' order, pass `wanted`; or otherwise, where rounding kept them from passing it.
int32_t walk_to(std::span<const Candidate> candidates, double wanted, const Weights& weights, int32_t otherwise) {
  while (candidates.size() > Weights::together) {
    const double piece = weights.sum(candidates.first(Weights::together));
    if (piece > wanted) break;
    wanted -= piece;
    candidates = candidates.subspan(Weights::together);
  }
  for (const Candidate& c : candidates)
    if ((wanted -= weights(c)) < 0) return c.token;
  return otherwise;
}

// Among those that are kept, by temperature, top_p and min_p.
int32_t choose(std::span<Candidate> kept, const Sampling& sampling, Random& random) {
  const Candidate best = *std::min_element(kept.begin(), kept.end(), better);
  const Weights weights(best.logit, sampling.temperature);
  const bool nucleus = sampling.top_p > 0 && sampling.top_p < 1;
  if (nucleus) kept = kept.first(crossing(kept, sampling.top_p * weights.sum(kept), weights));
  if (sampling.min_p > 0) {
    const auto end = std::remove_if(kept.begin(), kept.end(), [&](const Candidate& c) { return weights(c) < sampling.min_p; });
    kept = kept.first(static_cast<size_t>(end - kept.begin()));
  }
  if (kept.empty()) return best.token;
  const double wanted = random.uniform() * weights.sum(kept);
  if (!nucleus) return walk_to(kept, wanted, weights, best.token);
  return kept[crossing(kept, wanted, weights) - 1].token;
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
