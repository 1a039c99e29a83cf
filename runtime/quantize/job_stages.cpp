// SPDX-License-Identifier: Apache-2.0
// What becomes of the matrices that read the same input.
#include <algorithm>
#include <chrono>

#include "base/failure.h"
#include "quantize/job.h"

namespace gptq::quantize {

using Clock = std::chrono::steady_clock;

Job::Modules Job::modules(std::initializer_list<model::Role> roles) {
  Modules out;
  for (const model::Role role : roles)
    if (layer_[role]) out.push_back({&slot_of({.role = role, .layer = index_}), &layer_[role]});
  return out;
}

bool Job::is_wanted(const Modules& modules) const {
  return !done_ && std::any_of(modules.begin(), modules.end(), [&](const Module& m) { return options_of(*m.slot).bits; });
}

void Job::follow_original(const Chunk& chunk, const std::function<void(const model::Layer&)>& step) {
  if (chunk.first_token >= aimed_tokens_) return;
  replay_.follow(Replay::original);
  step(original_);
  replay_.follow(Replay::quantized);
}

void Job::step_all(const std::function<void(const Chunk&, const model::Layer&)>& step) {
  for (const Chunk& chunk : plan_.chunks) {
    follow_original(chunk, [&](const model::Layer& layer) { step(chunk, layer); });
    step(chunk, layer_);
  }
}

void Job::stage(const Modules& modules, const std::function<const float*(const Chunk&, const model::Layer&)>& step) {
  std::optional<Gram> gram;
  std::optional<Aim> aim;
  bool adds = false;
  if (is_wanted(modules)) {
    const uint32_t k = modules[0].slot->k;
    adds = replay_.adds_to_residual(layer_, modules[0].slot->id.role);
    gram.emplace(k, kernels_, pool_, memory_);
    if (aimed_tokens_) aim.emplace(k, adds ? spec_.n_embd : 0, plan_.chunk_tokens, kernels_, pool_, memory_);
  }
  const auto residual = [&](const Chunk& chunk) { return adds ? replay_.residual(chunk, modules[0].slot->id.role) : nullptr; };
  for (const Chunk& chunk : plan_.chunks) {
    follow_original(chunk, [&](const model::Layer& layer) {
      const float* x = step(chunk, layer);
      if (aim && x) aim->keep(x, residual(chunk), chunk.n_tokens);
    });
    const float* x = step(chunk, layer_);
    if (aim && x) aim->add(x, residual(chunk), weights_of(chunk), chunk.n_tokens, first_held(chunk));
    else if (gram && x) gram->add(x, weights_of(chunk), chunk.n_tokens);
    pass_done(modules, chunk);
  }
  solve_all(modules, gram ? &*gram : nullptr, aim ? &*aim : nullptr);
}

// A quarter of the aimed rows, the last of each chunk; of chunks with a single row every fourth, or the last.
uint32_t Job::first_held(const Chunk& chunk) const {
  const auto n = static_cast<uint32_t>(chunk.sequences.size());
  if (n > 1) return chunk.sequences[n - std::max(1u, n / 4)].first_row;
  const auto index = static_cast<size_t>(&chunk - plan_.chunks.data());
  const bool last = chunk.first_token + chunk.n_tokens == aimed_tokens_;
  return index % 4 == 3 || (last && index && index < 3) ? 0 : chunk.n_tokens;
}

void Job::tapped_stage(std::span<const Modules> inputs, Tap& tap, const std::function<void(const Chunk&)>& pass) {
  std::vector<std::optional<Gram>> grams(inputs.size());
  bool any = false;
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (!is_wanted(inputs[i])) continue;
    any = true;
    tap[inputs[i][0].linear->w].gram = &grams[i].emplace(inputs[i][0].slot->k, kernels_, pool_, memory_);
  }
  for (const Chunk& chunk : plan_.chunks) {
    if (any) pass(chunk);
    for (const Modules& modules : inputs) pass_done(modules, chunk);
  }
  for (size_t i = 0; i < inputs.size(); ++i) {
    solve_all(inputs[i], grams[i] ? &*grams[i] : nullptr);
    grams[i].reset();
  }
}

// gram: NULL where nothing is to be made of them.
void Job::solve_all(const Modules& modules, Gram* gram, Aim* aim) {
  if (!gram) {
    for (const Module& module : modules) work_done(solve_work(*module.slot));
    return;
  }
  std::vector<Target> targets(modules.size());
  if (aim) {
    std::vector<const kernels::Matrix*> matrices;
    for (const Module& module : modules) matrices.push_back(&module.linear->w);
    targets = aim->finish(matrices, *gram);
  }
  gram->finish();
  // What an expert makes of tokens that are not its own may be anything: then it is rounded to nearest.
  if (!gram->is_finite() && !modules[0].all_tokens)
    base::fail(GPTQ_E_NUMERIC, "the inputs of '", modules[0].slot->name, "' are not finite: is there NaN or infinity in the model's norms or weights?");
  problem_.reset();
  for (size_t i = 0; i < modules.size(); ++i) solve_module(modules[i], *gram, targets[i]);
}

void Job::solve_module(const Module& module, const Gram& gram, const Target& target) {
  const model::Slot& slot = *module.slot;
  const std::string name(slot.name);
  const ModuleOptions& options = options_of(slot);
  if (!options.bits) return work_done(solve_work(slot));
  if (kernels::is_quantized(module.linear->w.kind))
    base::fail(GPTQ_E_UNSUPPORTED, "'", name, "' is quantized to ", kernels::bits_of(module.linear->w.kind), " bits already: start from the 16-bit model");
  const Clock::time_point begin = Clock::now();
  if (!problem_ || !(problem_->options == options)) problem_.emplace(gram, options, options_.reference, kernels_, pool_, memory_);
  const double work = solve_work(slot) / slot.n;
  const float* more = target.more.size() ? reinterpret_cast<const float*>(target.more.data()) : nullptr;
  Solution solution = solve(module.linear->w, more, *problem_, kernels_, pool_, memory_, [&](uint32_t rows) { work_done(work * rows); });
  PackedModule packed{name, slot.n, slot.k, options.group_size, model::pack_quantized(name, solution.weight, slot.n, slot.k, pool_, memory_)};
  module.linear->w = stand_in(slot, packed.tensor.matrix(slot.n, slot.k));
  static_assert(std::is_nothrow_move_constructible_v<PackedModule>, "or else what stands in would point at what was copied");
  packed_.push_back(std::move(packed));
  note(module, gram, solution, std::chrono::duration<double>(Clock::now() - begin).count());
}

void Job::note(const Module& module, const Gram& gram, const Solution& solution, double seconds) {
  ModuleReport report;
  report.name = module.slot->name;
  report.options = problem_->options;
  report.n = module.slot->n;
  report.k = module.slot->k;
  report.n_tokens = gram.rows();
  report.error = solution.error;
  report.damp = problem_->damp;
  report.seconds = seconds;
  report.dead_inputs = static_cast<uint32_t>(std::count(problem_->dead.begin(), problem_->dead.end(), true));
  report.rounded = !problem_->solvable;
  report.all_tokens = module.all_tokens;
  reports_.push_back(report);
  if (options_.report) options_.report(report);
}

// What was said of modules that an earlier call made.
void Job::tell_reports(const format::Reader& reader) const {
  if (options_.report) read_reports(reader, options_.report);
}

const float* Job::weights_of(const Chunk& chunk) {
  if (!weights_) return nullptr;
  std::fill(weights_->begin(), weights_->end(), 1.0f);
  for (const device::Sequence& s : chunk.sequences) (*weights_)[s.first_row] = static_cast<float>(options_.first_token_weight);
  return weights_->data();
}

// Experts see their share of the tokens. Aiming goes through them twice.
double Job::pass_work(const model::Slot& slot) const {
  const double share = slot.id.expert == model::no_index ? 1 : static_cast<double>(spec_.experts.n_active) / spec_.experts.n;
  return share * (aimed_tokens_ ? 2 : 1) * static_cast<double>(plan_.n_tokens) * slot.k * (2.0 * slot.n + slot.k);
}

void Job::pass_done(const Modules& modules, const Chunk& chunk) {
  for (const Module& module : modules) work_done(pass_work(*module.slot) * chunk.n_tokens / static_cast<double>(plan_.n_tokens));
}

void Job::work_done(double work) {
  work_now_ += work;
  if (options_.progress) options_.progress(static_cast<uint32_t>(std::min(999.0, 1000 * work_now_ / work_total_)));
}

}  // namespace gptq::quantize
