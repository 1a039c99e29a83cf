// SPDX-License-Identifier: Apache-2.0
// A mixture of experts: each expert's matrices see the tokens that are routed to it.
#include <algorithm>

#include "quantize/job.h"

namespace gptq::quantize {
namespace {

using model::Role;

// An expert with fewer tokens for each input of a matrix is starved: what all tokens are like then says more about its inputs than its own
// few do. (128 correlated inputs, an eighth of the tokens, error on others of its tokens: from half of the inputs' number to twice it up
// to three times that with all tokens, the same from 4 times on.)
constexpr uint32_t tokens_for_each_input = 4;
constexpr uint32_t enough_for_each_input = 32;  // of all tokens, for the down of a starved expert, which has to be run for their sake
bool is_starved(uint64_t tokens, uint32_t k) { return tokens < uint64_t{tokens_for_each_input} * k; }

}  // namespace

uint64_t grams_bytes_max(uint64_t memory_max) {
  constexpr uint64_t enough = uint64_t{1} << 30;
  return memory_max ? std::min(enough, memory_max / 4) : enough;
}

void Job::do_experts() {
  // o is added; on the way: how many tokens are routed to each expert.
  Tap counts(memory_);
  for (const model::Expert& expert : layer_.experts) counts[expert.up.w].last = true;
  stage(modules({Role::shared_gate, Role::shared_up}), [&](const Chunk& chunk, const model::Layer& layer) {
    const float* input = replay_.add_mixed(chunk, layer);
    if (!done_ && &layer == &layer_) replay_.tap_experts(chunk, layer_, input, counts, nullptr);
    return input;
  });
  std::vector<uint64_t> tokens;
  for (const model::Expert& expert : layer_.experts) tokens.push_back(counts[expert.up.w].rows);
  do_expert_stage(tokens, false);
  stage(modules({Role::shared_down}), [&](const Chunk& chunk, const model::Layer& layer) -> const float* {
    if (done_ || !spec_.experts.n_ff_shared) return nullptr;
    return replay_.activate(chunk, layer, layer[Role::shared_gate], layer[Role::shared_up]);
  });
  do_expert_stage(tokens, true);
  step_all([&](const Chunk& chunk, const model::Layer& layer) {
    replay_.finish(chunk, layer);
    work_done(0);
  });
}

// Gates and ups of all experts, or their downs.
void Job::do_expert_stage(std::span<const uint64_t> tokens, bool down) {
  std::vector<uint32_t> starved, fed;
  for (uint32_t expert = 0; expert < tokens.size(); ++expert) {
    const Modules modules = modules_of(expert, down, false);
    if (is_wanted(modules)) (is_starved(tokens[expert], modules[0].slot->k) ? starved : fed).push_back(expert);
    else for (const Module& module : modules) work_done(pass_work(*module.slot) + solve_work(*module.slot));
  }
  do_starved(starved, down);
  if (fed.empty()) return;
  const uint64_t gram = Gram::bytes(modules_of(fed[0], down, false)[0].slot->k, pool_.threads());
  const size_t at_once = std::max<uint64_t>(1, grams_bytes_max(options_.memory_max) / gram);
  for (size_t first = 0; first < fed.size(); first += at_once) do_fed(std::span(fed).subspan(first, std::min(at_once, fed.size() - first)), down);
}

void Job::do_starved(const std::vector<uint32_t>& experts, bool down) {
  if (experts.empty()) return;
  if (!down) {
    Modules all;
    for (const uint32_t expert : experts)
      for (const Module& module : modules_of(expert, down, true)) all.push_back(module);
    return stage(all, [&](const Chunk& chunk, const model::Layer& layer) { return replay_.mlp_input(chunk, layer); });
  }
  for (const uint32_t expert : experts) {
    const uint64_t enough = uint64_t{enough_for_each_input} * layer_.experts[expert].down.w.k;
    stage(modules_of(expert, down, true), [&](const Chunk& chunk, const model::Layer& layer) -> const float* {
      const model::Expert& e = layer.experts[expert];
      return chunk.first_token < enough ? replay_.activate(chunk, layer, e.gate, e.up) : nullptr;
    });
  }
}

// As many experts as there is room for what is known of their inputs.
void Job::do_fed(std::span<const uint32_t> experts, bool down) {
  Tap tap(memory_);
  for (const model::Expert& e : layer_.experts) {
    tap[(down ? e.down : e.up).w].last = true;
    if (down) tap[e.gate.w].skipped = tap[e.up.w].skipped = true;
  }
  std::vector<Modules> inputs;
  for (const uint32_t expert : experts) {
    const model::Expert& e = layer_.experts[expert];
    inputs.push_back(modules_of(expert, down, false));
    if (down) tap[e.gate.w].skipped = tap[e.up.w].skipped = false;
  }
  tapped_stage(inputs, tap, [&](const Chunk& chunk) { replay_.tap_experts(chunk, layer_, replay_.mlp_input(chunk, layer_), tap, weights_of(chunk)); });
}

Job::Modules Job::modules_of(uint32_t expert, bool down, bool all_tokens) {
  Modules out;
  model::Expert& e = layer_.experts[expert];
  const auto add = [&](Role role, model::Linear& linear) {
    if (linear) out.push_back({&slot_of({.role = role, .layer = index_, .expert = expert}), &linear, all_tokens});
  };
  if (down) {
    add(Role::expert_down, e.down);
  } else {
    add(Role::expert_gate, e.gate);
    add(Role::expert_up, e.up);
  }
  return out;
}

}  // namespace gptq::quantize
