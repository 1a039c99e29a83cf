// SPDX-License-Identifier: Apache-2.0
#include "engine/route.h"

#include <algorithm>
#include <cmath>

namespace gptq::engine {
namespace {

using model::Experts, model::GroupScore, model::Score;

uint32_t largest(const float* x, uint32_t n) { return static_cast<uint32_t>(std::max_element(x, x + n) - x); }

void softmax(const float* x, uint32_t n, float* out) {
  const float most = x[largest(x, n)];
  float sum = 0;
  for (uint32_t i = 0; i < n; ++i) sum += out[i] = std::exp(x[i] - most);
  for (uint32_t i = 0; i < n; ++i) out[i] /= sum;
}

float group_score(const float* rank, uint32_t n, GroupScore kind) {
  float first = -INFINITY, second = -INFINITY;
  for (uint32_t i = 0; i < n; ++i) {
    if (rank[i] > first) second = first, first = rank[i];
    else second = std::max(second, rank[i]);
  }
  return kind == GroupScore::largest ? first : first + second;
}

// Leaves the ranks of the best groups; the others cannot be chosen. groups: [n / ...] scratch.
void keep_groups(const Experts& rule, float* rank, float* groups) {
  const uint32_t size = rule.n / rule.groups;
  for (uint32_t g = 0; g < rule.groups; ++g) groups[g] = group_score(rank + g * size, size, rule.group_score);
  for (uint32_t kept = 0; kept < rule.groups_kept; ++kept) groups[largest(groups, rule.groups)] = -INFINITY;
  // What was kept is -infinity now. A group whose score was that already has nothing to choose.
  for (uint32_t g = 0; g < rule.groups; ++g)
    if (groups[g] != -INFINITY) std::fill_n(rank + g * size, size, -INFINITY);
}

// Two rounds of the largest; each weight is a softmax over the logits within 2 jitter of the round's largest (Phi-3.5-MoE).
void sparse_mixer(const Experts& rule, const float* logits, int32_t* chosen, float* weight, float* left) {
  std::copy_n(logits, rule.n, left);
  for (uint32_t round = 0; round < rule.n_active; ++round) {
    const uint32_t best = largest(left, rule.n);
    const float most = left[best];
    float sum = 0;
    for (uint32_t i = 0; i < rule.n; ++i) {
      const bool far = (most - logits[i]) / std::max(std::abs(logits[i]), most) > 2 * rule.jitter;
      if (!far) sum += std::exp(left[i] - most);
    }
    chosen[round] = static_cast<int32_t>(best);
    weight[round] = 1 / sum;
    left[best] = -INFINITY;
  }
}

void choose_row(const Experts& rule, const float* logits, const float* bias, int32_t* chosen, float* weight, float* scratch) {
  float *score = scratch, *rank = scratch + rule.n, *groups = scratch + 2 * uint64_t{rule.n};
  if (rule.score == Score::sparsemixer) return sparse_mixer(rule, logits, chosen, weight, score);
  if (rule.score == Score::softmax) softmax(logits, rule.n, score);
  else
    for (uint32_t i = 0; i < rule.n; ++i) score[i] = rule.score == Score::sigmoid ? sigmoid(logits[i]) : logits[i];
  for (uint32_t i = 0; i < rule.n; ++i) rank[i] = score[i] + (bias ? bias[i] : 0);
  if (rule.groups > 1) keep_groups(rule, rank, groups);
  float sum = 0;
  for (uint32_t k = 0; k < rule.n_active; ++k) {
    const uint32_t best = largest(rank, rule.n);
    rank[best] = -INFINITY;
    chosen[k] = static_cast<int32_t>(best);
    sum += weight[k] = score[best];
  }
  if (rule.score == Score::softmax_of_chosen) softmax(weight, rule.n_active, weight);
  const float divisor = rule.normalize ? std::max(sum + rule.epsilon, rule.least_sum) : 1;
  for (uint32_t k = 0; k < rule.n_active; ++k) weight[k] = weight[k] / divisor * rule.scale;
}

}  // namespace

float sigmoid(float x) { return 1 / (1 + std::exp(-x)); }

void choose_experts(const model::Experts& rule, const float* logits, const float* bias, uint32_t rows, int32_t* chosen, float* weight, float* scratch) {
  for (uint32_t row = 0; row < rows; ++row)
    choose_row(rule, logits + uint64_t{row} * rule.n, bias, chosen + uint64_t{row} * rule.n_active, weight + uint64_t{row} * rule.n_active, scratch);
}

}  // namespace gptq::engine
