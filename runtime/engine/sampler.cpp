// SPDX-License-Identifier: Apache-2.0
#include "engine/sampler.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <utility>

namespace gptq::engine {
namespace {

constexpr float lowest = -std::numeric_limits<float>::max();

// Higher logit first; of equal ones the lower id, so that the order is total.
bool better(const Candidate& a, const Candidate& b) { return a.logit != b.logit ? a.logit > b.logit : a.token < b.token; }

typedef float Lanes __attribute__((vector_size(16)));
constexpr size_t lanes = sizeof(Lanes) / sizeof(float);

// The largest logit of every piece of so many, so that the best are found without looking at each again.
struct Pieces {
  static constexpr size_t most_pieces = 2048, vectors = 16, together = lanes * vectors;
  uint32_t shift = 6;
  float most[most_pieces] = {};

  size_t count(size_t n_logits) const { return ((n_logits - 1) >> shift) + 1; }

  float best(size_t n_logits) const { return *std::max_element(most, most + count(n_logits)); }

  // The largest of so many, or of `together`. What is not finite makes zeros NaN.
  static float largest(const float* from, size_t left, Lanes* zeros, float* copy = nullptr) {
    float some[together];
    if (left < together) {
      std::fill(std::copy_n(from, left, some), some + together, *from);
      if (copy) std::copy_n(from, left, copy);
      from = some;
    }
    Lanes x[vectors], bests;
    std::memcpy(x, from, sizeof(x));
    if (copy && left >= together) std::memcpy(copy, x, sizeof(x));
    for (size_t i = 0; i < vectors; ++i) {
      bests = i ? bests < x[i] ? x[i] : bests : x[0];
      zeros[i % lanes] += x[i] * 0;
    }
    return std::max(std::max(bests[0], bests[1]), std::max(bests[2], bests[3]));
  }
  void look_again(std::span<const float> logits, size_t piece, Lanes* zeros, float* copy = nullptr) {
    const size_t first = piece << shift, end = std::min((piece + 1) << shift, logits.size());
    float best = logits[first];
    for (size_t at = first; at < end; at += together) best = std::max(best, largest(&logits[at], end - at, zeros, copy ? copy + at : nullptr));
    most[piece] = best;
  }
  // Looks at all, and copies them where `copy` is given. False where one is not finite.
  __attribute__((noinline)) bool look(std::span<const float> logits, float* copy = nullptr) {
    Lanes zeros[lanes] = {};
    while (count(logits.size()) > most_pieces) ++shift;
    for (size_t i = 0; i < count(logits.size()); ++i) look_again(logits, i, zeros, copy);
    const Lanes sum = zeros[0] + zeros[1] + zeros[2] + zeros[3];
    return sum[0] + sum[1] + sum[2] + sum[3] == 0;
  }
  __attribute__((noinline)) void change(std::span<float> logits, int32_t token, float logit) {
    const size_t piece = static_cast<size_t>(token) >> shift;
    float& best = most[piece];
    const float before = std::exchange(logits[static_cast<size_t>(token)], logit);
    if (logit >= best) best = logit;
    else if (before == best) {
      Lanes zeros[lanes] = {};
      look_again(logits, piece, zeros);
    }
  }
};

int32_t greedy(std::span<const Candidate> candidates) {
  return std::min_element(candidates.begin(), candidates.end(), better)->token;
}

float finite(float logit) {
  return std::clamp(logit, lowest, -lowest);
}

std::span<const int32_t> last(std::span<const int32_t> history, uint32_t window) {
  return window && history.size() > window ? history.last(window) : history;
}

// Logits that are changed, and room for a number of each token: only those of tokens in the history are looked at.
struct Changed {
  std::span<float> logits;
  Candidate* numbers;
  Pieces& pieces;
  void set(int32_t token, float logit) const { pieces.change(logits, token, finite(logit)); }
  int32_t& number(int32_t token) const { return numbers[token].token; }
  void clear(std::span<const int32_t> history) const {
    for (const int32_t token : history) number(token) = 0;
  }
  // Gives change(logit, number) to every token that has a number, once.
  template <class Change>
  void settle(std::span<const int32_t> history, Change change) const {
    for (const int32_t token : history) {
      if (const int32_t n = std::exchange(number(token), 0)) set(token, change(logits[static_cast<size_t>(token)], n));
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

// n standard deviations under the best of `size` logits. Sums in lanes, which compilers make vectors of.
template <class Logit>
float near_best(size_t size, float best, double n, Logit logit) {
  constexpr size_t parts = 8;
  double sums[parts] = {}, squares[parts] = {}, sum = 0, square = 0;
  const size_t whole = size / parts * parts;
  const auto add = [&](double x, size_t part) {
    sums[part] += x;
    squares[part] += x * x;
  };
  for (size_t i = 0; i < whole; i += parts)
    for (size_t part = 0; part < parts; ++part) add(logit(i + part), part);
  for (size_t i = whole; i < size; ++i) add(logit(i), i - whole);
  for (size_t part = 0; part < parts; ++part) sum += sums[part], square += squares[part];
  const double mean = sum / static_cast<double>(size);
  const double least = best - n * std::sqrt(std::max(square / static_cast<double>(size) - mean * mean, 0.0));
  return std::min(best, static_cast<float>(std::max<double>(least, lowest)));
}

// Those with a bit in the mask.
std::span<Candidate> allowed(std::span<const float> logits, std::span<const uint32_t> mask, Candidate* out) {
  size_t n = 0;
  for (size_t word = 0; word < mask.size(); ++word)
    for (uint32_t bits = mask[word]; bits; bits &= bits - 1) {
      const size_t token = word * 32 + static_cast<size_t>(std::countr_zero(bits));
      out[n++] = {logits[token], static_cast<int32_t>(token)};
    }
  return {out, n};
}

// Whether so many of so many are found sooner by a heap of the best so far, which most of the others never touch.
bool is_few(size_t n, size_t of) { return n < of / 16; }

// Which comes first: the better, or the one whose surprise is nearer the entropy.
struct Order {
  bool typical = false;
  double best = 0, temperature = 1, log_sum = 0, entropy = 0;
  double key(const Candidate& c) const { return typical ? std::fabs(log_sum - (double{c.logit} - best) / temperature - entropy) : -double{c.logit}; }
  bool operator()(const Candidate& a, const Candidate& b) const {
    const double left = key(a), right = key(b);
    return left != right ? left < right : a.token < b.token;
  }
};

// Sorts the first n of the order to the front.
void sort_best(std::span<Candidate> candidates, size_t n, const Order& order = {}) {
  const auto better = std::ref(order);
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

// Those that are as large, in the order of their tokens.
std::span<Candidate> as_large(std::span<const float> logits, float least, Candidate* out, const Pieces& pieces) {
  size_t n = 0;
  for (size_t piece = 0; piece < pieces.count(logits.size()); ++piece) {
    if (pieces.most[piece] < least) continue;
    for (size_t at = piece << pieces.shift; at < std::min((piece + 1) << pieces.shift, logits.size()); ++at) {
      out[n] = {logits[at], static_cast<int32_t>(at)};
      n += logits[at] >= least;
    }
  }
  return {out, n};
}

// The n best of finite logits, or all, in their order.
std::span<Candidate> best_of(std::span<const float> logits, size_t n, Candidate* scratch, const Pieces& pieces) {
  n = std::min(n, logits.size());
  float least = lowest, order[Pieces::most_pieces];
  if (n && n <= pieces.count(logits.size())) {  // so many pieces have one that is as large, and the best are among those
    const auto end = std::copy_n(pieces.most, pieces.count(logits.size()), order);
    std::nth_element(order, order + n - 1, end, std::greater<>());
    least = order[n - 1];
  }
  const std::span<Candidate> all = as_large(logits, least, scratch, pieces);
  sort_best(all, n);
  return all.first(n);
}

// e^x for x <= 0 within 2e-7.
Lanes exp_of(Lanes x) {
  typedef int32_t Integers __attribute__((vector_size(sizeof(Lanes))));
  x *= 1.44269504f;
  const Lanes least = Lanes{} - 126.0f, t = x > least ? x : least, n = (t + 12582912.0f) - 12582912.0f, f = (t - n) * 0.693147181f;  // n: t rounded
  const Lanes e = 1 + f * (1 + f * (0.5f + f * (0.166666667f + f * (0.0416666667f + f * (0.00833333333f + f * 0.00138888889f)))));
  return e * std::bit_cast<Lanes>((__builtin_convertvector(n, Integers) + 127) << 23);
}

// The weights of candidates: those of softmax, but for a factor.
class Weights {
 public:
  Weights(float best, float temperature) : best_(best), factor_(1 / std::max(temperature, 1e-30f)) {}
  float operator()(const Candidate& c) const { return weigh(Lanes{c.logit})[0]; }
  double sum(std::span<const Candidate> candidates) const { return sum(candidates.data(), candidates.size()); }
  double sum(std::span<const float> logits) const { return sum(logits.data(), logits.size()); }

  static constexpr size_t together = 256;

 private:
  static float logit(float x) { return x; }
  static float logit(const Candidate& c) { return c.logit; }
  Lanes weigh(Lanes x) const { return exp_of((x - best_) * factor_); }
  template <class T>
  __attribute__((noinline)) double sum(const T* from, size_t size) const {
    double total = 0;
    for (size_t at = 0; at < size; at += together) {
      const size_t n = std::min(together, size - at);
      alignas(Lanes) float x[together] = {};
      for (size_t i = 0; i < n; ++i) x[i] = logit(from[at + i]);
      Lanes weights[together / lanes], part[2] = {};
      std::memcpy(weights, x, sizeof(x));
      for (Lanes& some : weights) some = weigh(some);
      for (size_t i = n; i < together; ++i) weights[i / lanes][i % lanes] = 0;
      for (size_t i = 0; i < together / lanes; ++i) part[i % 2] += weights[i];
      for (size_t i = 0; i < 2 * lanes; ++i) total += part[i / lanes][i % lanes];
    }
    return total;
  }
  float best_, factor_;
};

// The shortest run of the order's first that weighs as much as wanted, or all: moved to the front, its last one last. Sorts only what it must.
size_t crossing(std::span<Candidate> candidates, double wanted, const Weights& weights, const Order& order = {}) {
  const auto better = std::ref(order);
  constexpr size_t few = 256;
  double sum = 0;
  size_t at = 0, end = candidates.size();
  const auto walk = [&](size_t to) {
    while (at < to && (at == 0 || sum < wanted)) sum += weights(candidates[at++]);
  };
  sort_best(candidates, few, order);
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
  temperature = std::max(temperature, 1e-30f);
  const Entropy e = entropy_of(kept, best, temperature, weights);
  return kept.first(crossing(kept, p * std::exp(e.log_sum), weights, {true, best, temperature, e.log_sum, e.entropy}));
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
  if (nucleus) kept = kept.first(crossing(kept, sampling.top_p * weights.sum(kept), weights));
  if (sampling.min_p > 0) {
    const float most = sampling.reshapes() ? weights(*std::min_element(kept.begin(), kept.end(), better)) : 1;
    const auto end = std::remove_if(kept.begin(), kept.end(), [&](const Candidate& c) { return weights(c) < sampling.min_p * most; });
    kept = kept.first(static_cast<size_t>(end - kept.begin()));
  }
  if (kept.empty()) return best.token;
  if (sampling.xtc_probability > 0 && random.uniform() <= sampling.xtc_probability) kept = without_top_choices(kept, sampling.xtc_threshold, weights);
  const double wanted = random.uniform() * weights.sum(kept);
  if (!nucleus) return walk_to(kept, wanted, weights, sampling.reshapes() ? std::min_element(kept.begin(), kept.end(), better)->token : best.token);
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
  return !penalizes() && !(top_n_sigma > 0) && !(mirostat_tau > 0) && top_k > 0 && static_cast<uint32_t>(top_k) < n ? static_cast<uint32_t>(top_k) : 0;
}

int32_t sample(std::span<const float> logits, std::span<const int32_t> history, const Sampling& sampling, Random& random,
               const SamplerScratch& scratch, std::span<const uint32_t> mask, float* mu, uint32_t unbroken) {
  Pieces pieces;
  const bool penalizes = sampling.penalizes();
  if (!pieces.look(logits, penalizes ? scratch.logits : nullptr)) return not_finite;
  if (penalizes) {
    const Changed changed{{scratch.logits, logits.size()}, scratch.candidates, pieces};
    logits = changed.logits;
    for (const LogitBias& b : sampling.bias) changed.set(b.token, scratch.logits[b.token] + b.bias);
    penalize(history, sampling, changed);
    dry(history, sampling, unbroken, changed);
  }
  const bool warm = sampling.temperature > 0;
  if (mask.empty() && !warm) return best_of(logits, 1, scratch.candidates, pieces)[0].token;
  const size_t most = sampling.top_k > 0 ? static_cast<size_t>(sampling.top_k) : SIZE_MAX;
  std::span<Candidate> kept;
  if (mask.empty() && !(sampling.top_n_sigma > 0) && most < logits.size()) {
    kept = best_of(logits, most, scratch.candidates, pieces);
  } else {
    const bool sigma = sampling.top_n_sigma > 0;
    if (mask.empty()) {
      const float top = pieces.best(logits.size());
      float least = lowest;
      if (sigma) least = near_best(logits.size(), top, sampling.top_n_sigma, [&](size_t i) { return logits[i]; });
      else if (sampling.only_min_p()) least = std::max(lowest, top + (std::log(sampling.min_p) - 0.01f) * sampling.temperature);  // and some more
      kept = as_large(logits, least, scratch.candidates, pieces);
    } else {
      kept = allowed(logits, mask, scratch.candidates);
      if (kept.empty()) return none_allowed;
      if (!warm) return greedy(kept);
      if (sigma) {
        const float least = near_best(kept.size(), std::min_element(kept.begin(), kept.end(), better)->logit, sampling.top_n_sigma, [&](size_t i) { return kept[i].logit; });
        const auto end = std::remove_if(kept.begin(), kept.end(), [&](const Candidate& c) { return c.logit < least; });
        kept = kept.first(static_cast<size_t>(end - kept.begin()));
      }
    }
    if (most < kept.size()) {
      sort_best(kept, most);
      kept = kept.first(most);
    }
  }
  return mu && sampling.mirostat_tau > 0 ? mirostat(kept, sampling, random, *mu) : choose(kept, sampling, random);
}

double log_sum_exp(std::span<const float> logits) {
  Pieces pieces;
  if (!pieces.look(logits)) return std::numeric_limits<double>::quiet_NaN();
  const float best = pieces.best(logits.size());
  return best + std::log(Weights(best, 1).sum(logits));
}

std::span<Candidate> best_of(std::span<const float> logits, size_t n, Candidate* scratch) {
  Pieces pieces;
  pieces.look(logits);
  return best_of(logits, n, scratch, pieces);
}

int32_t sample_best(std::span<const Candidate> best, uint32_t n_logits, const Sampling& sampling, Random& random, Candidate* scratch) {
  if (best[0].token < 0 || sampling.is_greedy()) return best[0].token;
  const std::span<Candidate> kept(scratch, sampling.candidates(n_logits));
  std::copy_n(best.begin(), kept.size(), kept.begin());
  return choose(kept, sampling, random);
}

}  // namespace gptq::engine
