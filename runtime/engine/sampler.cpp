// SPDX-License-Identifier: Apache-2.0
#include "engine/sampler.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <utility>

namespace gptq::engine {
namespace {

// Higher logit first; of equal ones the lower id, so that the order is total.
bool better(const Candidate& a, const Candidate& b) { return a.logit != b.logit ? a.logit > b.logit : a.token < b.token; }

bool all_finite(std::span<const float> logits) {
  constexpr size_t lanes = 16;
  uint32_t bad[lanes] = {}, any = 0;
  const auto look = [&](float x, uint32_t& lane) { lane |= (std::bit_cast<uint32_t>(x) & 0x7F800000u) == 0x7F800000u; };
  const size_t whole = logits.size() / lanes * lanes;
  for (size_t i = 0; i < whole; i += lanes)
    for (size_t lane = 0; lane < lanes; ++lane) look(logits[i + lane], bad[lane]);
  for (const float x : logits.subspan(whole)) look(x, any);
  for (const uint32_t lane : bad) any |= lane;
  return !any;
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

float finite(float logit) {
  return std::clamp(logit, -std::numeric_limits<float>::max(), std::numeric_limits<float>::max());
}

std::span<const int32_t> last(std::span<const int32_t> history, uint32_t window) {
  return window && history.size() > window ? history.last(window) : history;
}

// Logits that are changed, and room for a number of each token: only those of tokens in the history are looked at.
struct Changed {
  float* logits;
  Candidate* numbers;
  int32_t& number(int32_t token) const { return numbers[token].token; }
  void clear(std::span<const int32_t> history) const {
    for (const int32_t token : history) number(token) = 0;
  }
  // Gives change(logit, number) to every token that has a number, once.
  template <class Change>
  void settle(std::span<const int32_t> history, Change change) const {
    for (const int32_t token : history) {
      if (const int32_t n = std::exchange(number(token), 0)) logits[token] = finite(change(logits[token], n));
    }
  }
};

// Once per distinct token as transformers' RepetitionPenaltyLogitsProcessor, then what frequency and presence take off. What would be
// infinite is the largest float.
void penalize(std::span<const int32_t> history, const Sampling& sampling, const Changed& changed) {
  if (!sampling.repeats() && !sampling.counts()) return;
  history = last(history, sampling.penalty_window);
  changed.clear(history);
  for (const int32_t token : history) ++changed.number(token);
  const float penalty = sampling.repeats() ? sampling.repeat_penalty : 1;
  changed.settle(history, [&](float logit, int32_t number) {
    const float changed = logit > 0 ? logit / penalty : logit * penalty;
    return changed - (static_cast<float>(number) * sampling.frequency_penalty + sampling.presence_penalty);
  });
}

// Repeats longer than this cost more than any float.
uint32_t longest_repeat(const Sampling& sampling) {
  constexpr uint32_t most = 1000;
  const double log_base = std::log(double{sampling.dry_base});
  const double longest = log_base > 0 ? sampling.dry_allowed_length + 88.7 / log_base : most;
  return static_cast<uint32_t>(std::min<double>(longest, sampling.dry_allowed_length + most));
}

// As p-e-w's DRY: each token that followed an earlier copy of the sequence's end, by the longest copy.
void dry(std::span<const int32_t> history, const Sampling& sampling, uint32_t unbroken, const Changed& changed) {
  if (!(sampling.dry_multiplier > 0)) return;
  history = last(history, sampling.dry_window);
  const size_t longest = std::min({history.size(), size_t{longest_repeat(sampling)}, size_t{unbroken}});
  if (longest < std::max(sampling.dry_allowed_length, 1u)) return;
  changed.clear(history);
  for (size_t end = 1; end < history.size(); ++end) {  // a copy's end
    size_t n = 0;
    while (n < std::min(longest, end) && history[end - 1 - n] == history[history.size() - 1 - n]) ++n;
    int32_t& number = changed.number(history[end]);
    if (n && n >= sampling.dry_allowed_length) number = std::max(number, static_cast<int32_t>(n));
  }
  changed.settle(history, [&](float logit, int32_t n) {
    return logit - sampling.dry_multiplier * std::pow(sampling.dry_base, static_cast<float>(n) - static_cast<float>(sampling.dry_allowed_length));
  });
}

// Those within n standard deviations of the best. Sums in lanes, which compilers make vectors of.
std::span<Candidate> near_best(std::span<Candidate> candidates, double n) {
  constexpr size_t lanes = 8;
  double sums[lanes] = {}, squares[lanes] = {}, sum = 0, square = 0;
  float bests[lanes], best;
  std::fill_n(bests, lanes, candidates[0].logit);
  const size_t whole = candidates.size() / lanes * lanes;
  const auto add = [&](float logit, size_t lane) {
    const double x = logit;
    sums[lane] += x;
    squares[lane] += x * x;
    bests[lane] = std::max(bests[lane], logit);
  };
  for (size_t i = 0; i < whole; i += lanes)
    for (size_t lane = 0; lane < lanes; ++lane) add(candidates[i + lane].logit, lane);
  for (size_t i = whole; i < candidates.size(); ++i) add(candidates[i].logit, i - whole);
  best = *std::max_element(bests, bests + lanes);
  for (size_t lane = 0; lane < lanes; ++lane) sum += sums[lane], square += squares[lane];
  const double size = static_cast<double>(candidates.size()), mean = sum / size;
  const double least = best - n * std::sqrt(std::max(square / size - mean * mean, 0.0));
  const float bound = std::min(best, static_cast<float>(std::max<double>(least, -std::numeric_limits<float>::max())));
  size_t kept = 0;
  for (const Candidate& c : candidates)
    if (c.logit >= bound) candidates[kept++] = c;
  return candidates.first(kept);
}

// All of them, or those with a bit in the mask.
std::span<Candidate> as_candidates(std::span<const float> logits, std::span<const uint32_t> mask, Candidate* out) {
  size_t n = 0;
  if (mask.empty())
    for (; n < logits.size(); ++n) out[n] = {logits[n], static_cast<int32_t>(n)};
  for (size_t word = 0; word < mask.size(); ++word)
    for (uint32_t bits = mask[word]; bits; bits &= bits - 1) {
      const size_t token = word * 32 + static_cast<size_t>(std::countr_zero(bits));
      out[n++] = {logits[token], static_cast<int32_t>(token)};
    }
  return {out, n};
}

// Whether so many of so many are found sooner by a heap of the best so far, which most of the others never touch.
bool is_few(size_t n, size_t of) { return n < of / 16; }

// Sorts the first n of the order to the front.
template <class Order>
void sort_best(std::span<Candidate> candidates, size_t n, Order better) {
  const auto begin = candidates.begin(), end = begin + static_cast<ptrdiff_t>(std::min(n, candidates.size()));
  if (!is_few(n, candidates.size())) {
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

// The shortest run of the order's first that weighs as much as wanted, or all: moved to the front, its last one last. Sorts only what it must.
template <class Order>
size_t crossing(std::span<Candidate> candidates, double wanted, const Weights& weights, Order better) {
  constexpr size_t few = 256;
  double sum = 0;
  size_t at = 0, end = candidates.size();
  const auto walk = [&](size_t to) {
    while (at < to && (at == 0 || sum < wanted)) sum += weights(candidates[at++]);
  };
  sort_best(candidates, few, better);
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

// Of softmax, in nats; and the logarithm of the sum of all weights.
struct Entropy {
  double entropy, log_sum;
};
Entropy entropy_of(std::span<const Candidate> candidates, double best, double temperature, const Weights& weights) {
  const double sum = weights.sum(candidates);
  double mean = 0;
  for (const Candidate& c : candidates) mean += weights(c) * (c.logit - best);
  return {std::log(sum) - mean / sum / temperature, std::log(sum)};
}

// As llama.cpp's dynamic temperature: by the entropy at temperature 1.
float warmth(std::span<const Candidate> kept, float best, const Sampling& sampling) {
  if (!(sampling.temperature_range > 0) || kept.size() < 2) return sampling.temperature;
  const double share = entropy_of(kept, best, 1, {best, 1}).entropy / std::log(static_cast<double>(kept.size()));
  const float least = std::max(sampling.temperature - sampling.temperature_range, 0.0f), most = sampling.temperature + sampling.temperature_range;
  return least + (most - least) * static_cast<float>(std::pow(std::clamp(share, 0.0, 1.0), sampling.temperature_exponent));
}

// Locally typical sampling (Meister et al. 2022): those whose surprise is nearest the entropy, until they hold p.
std::span<Candidate> typical(std::span<Candidate> kept, float best, float temperature, double p, const Weights& weights) {
  const Entropy e = entropy_of(kept, best, std::max(temperature, 1e-30f), weights);
  const auto distance = [&](const Candidate& c) {
    return std::fabs(e.log_sum - (double{c.logit} - best) / std::max(temperature, 1e-30f) - e.entropy);
  };
  const auto nearer = [&](const Candidate& a, const Candidate& b) {
    const double left = distance(a), right = distance(b);
    return left != right ? left < right : a.token < b.token;
  };
  return kept.first(crossing(kept, p * std::exp(e.log_sum), weights, nearer));
}

// XTC (p-e-w 2024): of those as likely as the threshold only the least likely stays.
std::span<Candidate> without_top_choices(std::span<Candidate> kept, double threshold, const Weights& weights) {
  const double least = threshold * weights.sum(kept);
  const auto likely = [&](const Candidate& c) { return weights(c) >= least; };
  const Candidate* last = nullptr;
  for (const Candidate& c : kept)
    if (likely(c) && (!last || better(*last, c))) last = &c;
  if (!last) return kept;
  const int32_t stays = last->token;
  const auto end = std::remove_if(kept.begin(), kept.end(), [&](const Candidate& c) { return likely(c) && c.token != stays; });
  return kept.first(static_cast<size_t>(end - kept.begin()));
}

// Mirostat 2 (Basu et al. 2021): those less surprising than mu, which follows how surprising the chosen one was.
int32_t mirostat(std::span<Candidate> kept, const Sampling& sampling, Random& random, float& mu) {
  const Candidate best = *std::min_element(kept.begin(), kept.end(), better);
  const Weights weights(best.logit, warmth(kept, best.logit, sampling));
  const double least = std::exp2(-double{mu}) * weights.sum(kept);
  const auto end = std::remove_if(kept.begin(), kept.end(), [&](const Candidate& c) { return weights(c) < least; });
  kept = kept.first(static_cast<size_t>(end - kept.begin()));
  double chosen = 1, sum = 1;
  int32_t token = best.token;
  if (!kept.empty()) {
    sum = weights.sum(kept);
    token = walk_to(kept, random.uniform() * sum, weights, best.token);
    chosen = weights(*std::find_if(kept.begin(), kept.end(), [&](const Candidate& c) { return c.token == token; }));
  } else {
    random.uniform();
  }
  mu -= sampling.mirostat_eta * static_cast<float>(std::log2(sum / chosen) - sampling.mirostat_tau);
  return token;
}

// Among those that are kept, by temperature, typical_p, top_p, min_p and XTC.
int32_t choose(std::span<Candidate> kept, const Sampling& sampling, Random& random) {
  const Candidate best = *std::min_element(kept.begin(), kept.end(), better);
  const float temperature = warmth(kept, best.logit, sampling);
  const Weights weights(best.logit, temperature);
  const bool nucleus = sampling.top_p > 0 && sampling.top_p < 1;
  if (sampling.typical_p > 0 && sampling.typical_p < 1) kept = typical(kept, best.logit, temperature, sampling.typical_p, weights);
  if (nucleus) kept = kept.first(crossing(kept, sampling.top_p * weights.sum(kept), weights, better));
  if (sampling.min_p > 0) {
    const float most = sampling.reshapes() ? weights(*std::min_element(kept.begin(), kept.end(), better)) : 1;
    const auto end = std::remove_if(kept.begin(), kept.end(), [&](const Candidate& c) { return weights(c) < sampling.min_p * most; });
    kept = kept.first(static_cast<size_t>(end - kept.begin()));
  }
  if (kept.empty()) return best.token;
  if (sampling.xtc_probability > 0 && random.uniform() <= sampling.xtc_probability) kept = without_top_choices(kept, sampling.xtc_threshold, weights);
  const double wanted = random.uniform() * weights.sum(kept);
  if (!nucleus) return walk_to(kept, wanted, weights, sampling.reshapes() ? std::min_element(kept.begin(), kept.end(), better)->token : best.token);
  return kept[crossing(kept, wanted, weights, better) - 1].token;
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
  return !penalizes() && !(top_n_sigma > 0) && !(mirostat_tau > 0) && top_k > 0 && static_cast<uint32_t>(top_k) < n ? static_cast<uint32_t>(top_k) : 0;
}

int32_t sample(std::span<const float> logits, std::span<const int32_t> history, const Sampling& sampling, Random& random,
               const SamplerScratch& scratch, std::span<const uint32_t> mask, float* mu, uint32_t unbroken) {
  if (!all_finite(logits)) return not_finite;
  if (sampling.penalizes()) {
    const Changed changed{scratch.logits, scratch.candidates};
    std::copy(logits.begin(), logits.end(), changed.logits);
    logits = {changed.logits, logits.size()};
    for (const LogitBias& b : sampling.bias) changed.logits[b.token] = finite(changed.logits[b.token] + b.bias);
    penalize(history, sampling, changed);
    dry(history, sampling, unbroken, changed);
  }
  const bool warm = sampling.temperature > 0;
  if (mask.empty() && !warm) return greedy(logits);
  const size_t most = sampling.top_k > 0 ? static_cast<size_t>(sampling.top_k) : SIZE_MAX;
  std::span<Candidate> kept;
  if (mask.empty() && !(sampling.top_n_sigma > 0) && most < logits.size()) {
    kept = best_of(logits, most, scratch.candidates);
  } else {
    kept = as_candidates(logits, mask, scratch.candidates);
    if (kept.empty()) return none_allowed;
    if (!warm) return greedy(kept);
    if (sampling.top_n_sigma > 0) kept = near_best(kept, sampling.top_n_sigma);
    if (most < kept.size()) {
      sort_best(kept, most, better);
      kept = kept.first(most);
    }
  }
  return mu && sampling.mirostat_tau > 0 ? mirostat(kept, sampling, random, *mu) : choose(kept, sampling, random);
}

double log_sum_exp(std::span<const float> logits) {
  if (!all_finite(logits)) return std::numeric_limits<double>::quiet_NaN();
  constexpr size_t together = 256, lanes = 8;
  const float best = logits[static_cast<size_t>(greedy(logits))];
  double total = 0;
  for (size_t at = 0; at < logits.size(); at += together) {
    const size_t n = std::min(together, logits.size() - at);
    float weights[together] = {}, part[lanes] = {};
    for (size_t i = 0; i < n; ++i) weights[i] = exp_of(logits[at + i] - best);
    for (size_t i = 0; i < together; ++i) part[i % lanes] += weights[i];
    for (const float x : part) total += x;
  }
  return best + std::log(total);
}

std::span<Candidate> best_of(std::span<const float> logits, size_t n, Candidate* scratch) {
  n = std::min(n, logits.size());
  if (!is_few(n, logits.size())) {
    const std::span<Candidate> all = as_candidates(logits, {}, scratch);
    sort_best(all, n, better);
    return all.first(n);
  }
  // A heap of the best so far. Of equal logits the first is better, so that only larger ones than its worst come in.
  const std::span<Candidate> best = as_candidates(logits.first(n), {}, scratch);
  std::make_heap(best.begin(), best.end(), better);
  constexpr size_t together = 64;  // compilers make vectors of
  for (size_t at = n; at < logits.size(); at += together) {
    const std::span<const float> some = logits.subspan(at, std::min(together, logits.size() - at));
    uint32_t larger = 0;
    for (const float x : some) larger |= x > best[0].logit;
    if (!larger) continue;
    for (size_t i = 0; i < some.size(); ++i) {
      if (!(some[i] > best[0].logit)) continue;
      std::pop_heap(best.begin(), best.end(), better);
      best.back() = {some[i], static_cast<int32_t>(at + i)};
      std::push_heap(best.begin(), best.end(), better);
    }
  }
  std::sort_heap(best.begin(), best.end(), better);
  return best;
}

int32_t sample_best(std::span<const Candidate> best, uint32_t n_logits, const Sampling& sampling, Random& random, Candidate* scratch) {
  if (best[0].token < 0 || sampling.is_greedy()) return best[0].token;
  const std::span<Candidate> kept(scratch, sampling.candidates(n_logits));
  std::copy_n(best.begin(), kept.size(), kept.begin());
  return choose(kept, sampling, random);
}

}  // namespace gptq::engine
