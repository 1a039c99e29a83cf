// SPDX-License-Identifier: Apache-2.0
#include "quantize/sensitivity.h"

#include <algorithm>
#include <cmath>

#include "base/checked.h"
#include "base/failure.h"
#include "quantize/nearest.h"
#include "quantize/replay.h"
#include "quantize/solver.h"

namespace gptq::quantize {
namespace {

using model::Role;

// Tokens that are gone through for every part; of one in four the probabilities are compared: those before have had their say in them.
constexpr uint32_t compared_rows = 4, compared_row_tokens = 128, one_row_in = 4;
constexpr uint64_t known_tokens = 8192;  // that tell of the inputs
constexpr uint32_t logits_at_once = 32;
constexpr uint64_t grams_bytes_all = uint64_t{4} << 30;

// The probabilities of the original model, and how far others are from them.
class Comparison {
 public:
  Comparison(uint32_t rows, uint32_t n_vocab, base::Pool& pool, std::pmr::memory_resource* memory)
      : n_vocab_(n_vocab), pool_(pool), probabilities_(memory, base::to_size(base::mul(rows, n_vocab, sizeof(float)))), entropies_(rows) {}

  void keep(uint32_t first, uint32_t count, const float* logits) {
    pool_.run(count, [&](uint32_t i) {
      const float* of = logits + size_t{i} * n_vocab_;
      float* p = row(first + i);
      const double sum = log_sum(of);
      double entropy = 0;
      for (uint32_t token = 0; token < n_vocab_; ++token) {
        const double log_p = static_cast<double>(of[token]) - sum, probability = std::exp(log_p);
        p[token] = static_cast<float>(probability);
        if (p[token] > 0) entropy -= static_cast<double>(p[token]) * log_p;
      }
      entropies_[first + i] = entropy;
    });
  }

  // Sum over rows.
  double divergence(uint32_t first, uint32_t count, const float* logits) {
    std::vector<double> parts(count);
    pool_.run(count, [&](uint32_t i) {
      const float *of = logits + size_t{i} * n_vocab_, *p = row(first + i);
      const double sum = log_sum(of);
      double cross = 0;
      for (uint32_t token = 0; token < n_vocab_; ++token) cross += static_cast<double>(p[token]) * (sum - static_cast<double>(of[token]));
      parts[i] = cross - entropies_[first + i];
    });
    double all = 0;
    for (const double part : parts) all += part;
    return all;
  }

 private:
  float* row(uint32_t index) { return reinterpret_cast<float*>(probabilities_.data()) + size_t{index} * n_vocab_; }
  double log_sum(const float* logits) const {
    const float most = *std::max_element(logits, logits + n_vocab_);
    double sum = 0;
    for (uint32_t token = 0; token < n_vocab_; ++token) sum += static_cast<double>(std::exp(logits[token] - most));
    return static_cast<double>(most) + std::log(sum);
  }

  const uint32_t n_vocab_;
  base::Pool& pool_;
  base::Buffer probabilities_;
  std::vector<double> entropies_;
};

// Rows of the calibration text, spread over it: first those that are compared, cut short, then others that tell of the inputs.
class Sample {
 public:
  explicit Sample(const Calibration& all) : all_(all) {
    const auto rows = static_cast<uint32_t>(all.row_tokens.size());
    n_compared = std::min(compared_rows, rows);
    for (uint32_t i = 0; i < n_compared; ++i) take(row_of(i, n_compared), compared_row_tokens);
    uint64_t longest = *std::max_element(all.row_tokens.begin(), all.row_tokens.end());
    const auto others = static_cast<uint32_t>(std::min<uint64_t>(rows, std::max<uint64_t>(1, known_tokens / longest)));
    // Not the same ones, unless there are too few.
    for (uint32_t i = 0; i < others; ++i) take(rows > others ? std::min(rows - 1, row_of(i, others) + 1) : i, UINT32_MAX);
  }
  uint32_t n_compared;
  std::vector<int32_t> tokens;
  std::vector<uint32_t> row_tokens;

 private:
  uint32_t row_of(uint64_t i, uint32_t n) const { return static_cast<uint32_t>(i * all_.row_tokens.size() / n); }
  void take(uint32_t row, uint32_t most) {
    size_t at = 0;
    for (uint32_t i = 0; i < row; ++i) at += all_.row_tokens[i];
    const auto from = all_.tokens.begin() + static_cast<ptrdiff_t>(at);
    row_tokens.push_back(std::min(most, all_.row_tokens[row]));
    tokens.insert(tokens.end(), from, from + row_tokens.back());
  }
  const Calibration& all_;
};

class Measurement {
 public:
  Measurement(const format::Reader& reader, std::span<Part> parts, const Calibration& calibration, const Options& options,
              const kernels::Kernels& kernels, base::Pool& pool, std::pmr::memory_resource* memory)
      : reader_(reader), parts_(parts), sample_(calibration), options_(options), kernels_(kernels), pool_(pool), memory_(memory),
        spec_(model::check_spec(reader.manifest(), memory)), slots_(model::weight_slots(spec_, memory)),
        plan_(sample_.row_tokens, memory, sample_.n_compared, logits_at_once), replay_(spec_, plan_, 0, {}, kernels, pool, memory) {
    for (const Part& part : parts) work_total_ += first_of(part).in_layer() ? 2 + spec_.n_layers - first_of(part).id.layer : spec_.n_layers;
    work_total_ += spec_.n_layers * static_cast<double>(plan_.n_tokens) / compared().n_tokens;
  }

  void run() {
    for (const Chunk& chunk : plan_.chunks) inputs_.push_back(embed(chunk, nullptr));
    for (Part& part : parts_)
      if (!first_of(part).in_layer()) states_.push_back({&part, changes_embedding(part) ? embed(compared(), &part) : copy(inputs_[0])});
    for (uint32_t layer = 0; layer < spec_.n_layers; ++layer) do_layer(layer);
    compare();
  }

 private:
  // The compared tokens' hidden states where a part was rounded.
  struct State {
    Part* part;
    base::Buffer x;
  };
  static float* floats(const base::Buffer& x) { return reinterpret_cast<float*>(x.data()); }

  const Chunk& compared() const { return plan_.chunks[0]; }
  const model::Slot& first_of(const Part& part) const { return slots_[part.slots[0]]; }
  bool changes_embedding(const Part& part) const { return first_of(part).id.role == Role::embed; }
  kernels::Matrix rounded(const kernels::Matrix& w, const ModuleOptions& options, base::Buffer& floats) const {
    floats = round_to_nearest(w, options, kernels_, pool_, memory_);
    return {kernels::Kind::f32, false, w.n, w.k, w.k, 0, floats.data(), nullptr, nullptr, nullptr};
  }

  base::Buffer copy(const base::Buffer& x) const {
    base::Buffer out(memory_, x.size());
    std::copy_n(x.data(), x.size(), out.data());
    return out;
  }

  std::pmr::vector<model::Slot> slots_of(uint32_t layer) const {
    std::pmr::vector<model::Slot> out(memory_);
    std::copy_if(slots_.begin(), slots_.end(), std::back_inserter(out), [&](const model::Slot& slot) { return slot.id.layer == layer; });
    return out;
  }

  base::Buffer embed(const Chunk& chunk, const Part* part) {
    const model::Weights weights(reader_, slots_of(model::no_index), {}, pool_, memory_);
    const auto of = [&](Role role) { return weights.linear({.role = role}); };
    model::Ends ends{.embed = of(Role::embed), .positions = of(Role::positions), .embed_proj = of(Role::embed_proj),
                     .embed_norm = of(Role::embed_norm), .final_norm = {}, .head_proj = {}, .head = {}};
    base::Buffer values;
    if (part) ends.embed.w = rounded(ends.embed.w, part->asked, values);
    base::Buffer out(memory_, base::to_size(base::mul(chunk.n_tokens, spec_.n_embd, sizeof(float))));
    replay_.embed_to(chunk, std::span(sample_.tokens).subspan(chunk.first_token, chunk.n_tokens), ends, floats(out));
    return out;
  }

  void do_layer(uint32_t index) {
    const std::pmr::vector<model::Slot> slots = slots_of(index);
    const model::Weights weights(reader_, slots, {}, pool_, memory_);
    replay_.drop_all();
    replay_.begin_layer(index);
    model::Layer layer = weights.layer(spec_, index);
    for (const model::Slot& slot : slots)
      if (!slot.is_vector && slot.id.expert == model::no_index && layer.at(slot.id)) layer.at(slot.id).w = replay_.hold(layer.at(slot.id).w);
    for (const State& state : states_) {
      replay_.pass(compared(), layer, floats(state.x));
      work_done(1);
    }
    const std::vector<std::optional<Gram>> grams = look_at_inputs(index, layer);
    for (size_t i = 0; i < parts_.size(); ++i)
      if (first_of(parts_[i]).id.layer == index) try_part(parts_[i], grams[i] ? &*grams[i] : nullptr, weights, layer);
    replay_.pass(compared(), layer, floats(inputs_[0]));
  }

  // The other tokens go through the layer, the inputs of its parts are summed up: of those for which there is room.
  std::vector<std::optional<Gram>> look_at_inputs(uint32_t index, const model::Layer& layer) {
    std::vector<std::optional<Gram>> grams(parts_.size());
    Tap tap(memory_);
    uint64_t room = options_.memory_max ? options_.memory_max / 4 : grams_bytes_all;
    for (size_t i = 0; i < parts_.size(); ++i) {
      const model::Slot& slot = first_of(parts_[i]);
      const uint64_t bytes = Gram::bytes(slot.k, pool_.threads());
      if (slot.id.layer != index || slot.id.expert != model::no_index || bytes > room) continue;
      room -= bytes;
      tap[layer[slot.id.role].w].gram = &grams[i].emplace(slot.k, kernels_, pool_, memory_);
    }
    std::vector<float> token_weights(plan_.chunk_tokens);
    for (size_t i = 1; i < plan_.chunks.size(); ++i) {
      const Chunk& chunk = plan_.chunks[i];
      std::fill(token_weights.begin(), token_weights.end(), 1.0f);
      if (!options_.reference)
        for (const device::Sequence& s : chunk.sequences) token_weights[s.first_row] = static_cast<float>(options_.first_token_weight);
      replay_.pass(chunk, layer, floats(inputs_[i]), tap, token_weights.data());
      work_done(static_cast<double>(chunk.n_tokens) / compared().n_tokens);
    }
    for (std::optional<Gram>& gram : grams)
      if (gram) gram->finish();
    return grams;
  }

  void try_part(Part& part, const Gram* gram, const model::Weights& weights, const model::Layer& layer) {
    const State& state = states_.emplace_back(State{&part, copy(inputs_[0])});
    model::Layer changed = layer;
    std::optional<Problem> problem;
    if (gram && gram->rows() && gram->is_finite()) problem.emplace(*gram, part.asked, options_.reference, kernels_, pool_, memory_);
    std::vector<base::Buffer> values(part.slots.size());
    for (size_t i = 0; i < part.slots.size(); ++i) {
      const model::Slot& slot = slots_[part.slots[i]];
      const kernels::Matrix& w = *weights.find(slot.id);
      kernels::Matrix& changes = changed.at(slot.id).w;
      if (problem) {
        const Solution solution = solve(w, nullptr, *problem, kernels_, pool_, memory_, [](uint32_t) {});
        changes = replay_.hold(model::pack_quantized(slot.name, solution.weight, slot.n, slot.k, pool_, memory_).matrix(slot.n, slot.k));
      } else {
        changes = rounded(w, part.asked, values[i]);
        if (slot.id.expert == model::no_index) changes = replay_.hold(changes), values[i] = base::Buffer();
      }
    }
    work_done(2);
    replay_.pass(compared(), changed, floats(state.x));
    work_done(1);
  }

  void compare() {
    const Role role = model::head_role(spec_);
    const model::Weights weights(reader_, slots_of(model::no_index), {}, pool_, memory_);
    model::Ends ends{};
    ends.final_norm = weights.linear({.role = Role::final_norm});
    ends.head_proj = weights.linear({.role = Role::head_proj});
    ends.head = weights.linear({.role = role});
    std::vector<uint32_t> rows;
    for (const device::Sequence& s : compared().sequences)
      for (uint32_t i = std::min(one_row_in, s.n_rows) - 1; i < s.n_rows; i += one_row_in) rows.push_back(s.first_row + i);
    const auto n = static_cast<uint32_t>(rows.size());
    Comparison comparison(n, spec_.n_vocab, pool_, memory_);
    const auto each = [&](const base::Buffer& x, const model::Ends& head, auto&& use) {
      for (uint32_t first = 0; first < n; first += logits_at_once) {
        const uint32_t count = std::min(logits_at_once, n - first);
        use(first, count, replay_.logits(compared(), floats(x), std::span(rows).subspan(first, count), head));
      }
    };
    each(inputs_[0], ends, [&](uint32_t first, uint32_t count, const float* logits) { comparison.keep(first, count, logits); });
    for (const State& state : states_) {
      model::Ends mine = ends;
      base::Buffer values;
      if (!first_of(*state.part).in_layer()) mine.head.w = rounded(ends.head.w, state.part->asked, values);
      double sum = 0;
      each(state.x, mine, [&](uint32_t first, uint32_t count, const float* logits) { sum += comparison.divergence(first, count, logits); });
      state.part->cost = std::max(0.0, sum / n);
    }
  }

  void work_done(double work) {
    work_now_ += work;
    if (options_.measuring) options_.measuring(static_cast<uint32_t>(std::min(999.0, 1000 * work_now_ / work_total_)));
  }

  const format::Reader& reader_;
  const std::span<Part> parts_;
  const Sample sample_;
  const Options& options_;
  const kernels::Kernels& kernels_;
  base::Pool& pool_;
  std::pmr::memory_resource* memory_;
  const model::ModelSpec spec_;
  const std::pmr::vector<model::Slot> slots_;
  const Plan plan_;
  Replay replay_;
  std::vector<base::Buffer> inputs_;  // of the layer at hand in the original model, of each chunk
  std::vector<State> states_;
  double work_total_ = 0, work_now_ = 0;
};

}  // namespace

void measure_costs(const format::Reader& reader, std::span<Part> parts, const Calibration& calibration, const Options& options,
                   const kernels::Kernels& kernels, base::Pool& pool, std::pmr::memory_resource* memory) {
  Measurement(reader, parts, calibration, options, kernels, pool, memory).run();
}

}  // namespace gptq::quantize
