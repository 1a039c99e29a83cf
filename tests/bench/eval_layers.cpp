// SPDX-License-Identifier: Apache-2.0
// gptq-eval layers: where in the depth of a model its error arises. Works below the C API, which shows logits alone.
#include <memory>
#include <memory_resource>

#include "base/failure.h"
#include "base/io.h"
#include "engine/engine.h"
#include "eval.h"

namespace gptq::eval {
namespace {

constexpr uint32_t page_tokens = 64, rows_max = 256;

using device::Activations;

// One sequence going through a model, layer by layer, a few rows at a time.
class Stream {
 public:
  Stream(const model::Model& model, base::Pool& pool, Activations activations, uint32_t ctx)
      : model_(model), memory_(std::pmr::get_default_resource(), measure(model, activations, ctx)), arena_(memory_.data()),
        rotation_(model.spec, ctx, rows_max, arena_), workspace_(model.spec, rows_max, 1, arena_), routing_(model.spec, rows_max, arena_),
        scratch_(limits(model, activations, ctx), arena_), device_(kernels::select_kernels(0), pool, scratch_) {
    const engine::KvLayout layout(model.spec, 0, model.spec.n_layers, page_tokens, kernels::alike(activations == Activations::f32 ? kernels::KvKind::f32 : kernels::KvKind::f16),
                                  engine::KvLayout::Latents::expanded);
    const uint32_t n_pages = (ctx + page_tokens - 1) / page_tokens;
    for (uint32_t p = 0; p < n_pages; ++p) pages_.push_back(p);
    kv_memory_ = base::Buffer(std::pmr::get_default_resource(), layout.page_bytes() * n_pages + 2 * layout.state_bytes());
    for (size_t i = 0; i < 2; ++i) states_[i] = kv_memory_.data() + layout.page_bytes() * n_pages + i * layout.state_bytes();
    forward_.emplace(model_.spec, device_, layout, kv_memory_.data(), workspace_, routing_);
  }
  Stream(const Stream&) = delete;

  void begin(std::span<const gptq_token> tokens, uint32_t position) {
    sequence_ = {.first_row = 0,
                 .n_rows = static_cast<uint32_t>(tokens.size()),
                 .first_position = position,
                 .pages = pages_.data(),
                 .n_tokens = position + static_cast<uint32_t>(tokens.size()),
                 .state = position ? states_[0] : nullptr,
                 .next_state = states_[1]};
    std::swap(states_[0], states_[1]);
    rotation_.turn_to({&sequence_, 1});
    device_.begin({tokens, {&sequence_, 1}, {}, rotation_.angles()});
    forward_->embed(sequence_.n_rows, model_);
  }
  void layer(uint32_t index) { forward_->layer(sequence_.n_rows, model_.layers[index], index); }
  // The residual stream, [rows][n_embd].
  std::span<float> x() { return {workspace_.x, size_t{sequence_.n_rows} * model_.spec.n_embd}; }

 private:
  static device::CpuLimits limits(const model::Model& model, Activations activations, uint32_t ctx) {
    return engine::cpu_limits(model.spec, engine::weight_shape(model), rows_max, activations, ctx);
  }
  static size_t measure(const model::Model& model, Activations activations, uint32_t ctx) {
    base::Arena arena;
    engine::Rotation(model.spec, ctx, rows_max, arena);
    engine::Workspace(model.spec, rows_max, 1, arena);
    engine::Routing(model.spec, rows_max, arena);
    device::CpuScratch(limits(model, activations, ctx), arena);
    return arena.used();
  }

  const model::Model& model_;
  base::Buffer memory_, kv_memory_;
  base::Arena arena_;
  engine::Rotation rotation_;
  engine::Workspace workspace_;
  engine::Routing routing_;
  device::CpuScratch scratch_;
  device::CpuDevice device_;
  std::vector<uint32_t> pages_;
  std::optional<engine::Forward> forward_;
  device::Sequence sequence_{};
  std::byte* states_[2] = {};
};

// Lengths of differences against lengths of what should be there.
struct Error {
  double sum = 0, first = 0;  // of all tokens; of the first of each window
  size_t n = 0, n_first = 0;

  void add(std::span<const float> is, std::span<const float> should, std::span<const float> from, uint32_t n_embd, bool at_start) {
    for (size_t row = 0; row < is.size(); row += n_embd) {
      double difference = 0, length = 0;
      for (size_t i = row; i < row + n_embd; ++i) {
        const double d = double{is[i]} - should[i], s = double{should[i]} - (from.empty() ? 0 : from[i]);
        difference += d * d;
        length += s * s;
      }
      const double relative = length > 0 ? std::sqrt(difference / length) : 0;
      sum += relative;
      ++n;
      if (row == 0 && at_start) {
        first += relative;
        ++n_first;
      }
    }
  }
  double mean() const { return sum / static_cast<double>(n); }
  double mean_first() const { return first / static_cast<double>(n_first); }
};

struct LayerError {
  Error accumulated, alone;
};

// The model on its own; the model with each layer fed what the reference has there; and the reference.
struct Streams {
  Streams(const model::Model& model, const model::Model& truth, base::Pool& pool, Activations activations, uint32_t ctx)
      : own(model, pool, activations, ctx), fed(model, pool, activations, ctx), reference(truth, pool, Activations::f32, ctx), errors(model.spec.n_layers + 1) {}
  Stream own, fed, reference;
  std::vector<LayerError> errors;  // the embedding's, then the layers'
};

void compare(Streams& s, std::span<const gptq_token> tokens, uint32_t position, uint32_t n_embd) {
  for (Stream* stream : {&s.own, &s.fed, &s.reference}) stream->begin(tokens, position);
  const bool at_start = position == 0;
  s.errors[0].accumulated.add(s.own.x(), s.reference.x(), {}, n_embd, at_start);
  std::vector<float> before;
  for (uint32_t layer = 0; layer + 1 < s.errors.size(); ++layer) {
    before.assign(s.reference.x().begin(), s.reference.x().end());
    std::copy(before.begin(), before.end(), s.fed.x().begin());
    for (Stream* stream : {&s.own, &s.fed, &s.reference}) stream->layer(layer);
    LayerError& error = s.errors[layer + 1];
    error.accumulated.add(s.own.x(), s.reference.x(), {}, n_embd, at_start);
    error.alone.add(s.fed.x(), s.reference.x(), before, n_embd, at_start);
  }
}

void print(const std::vector<LayerError>& errors, bool json) {
  if (!json) std::printf("| after | stream | its first token | layer alone | its first token |\n|---|---|---|---|---|\n");
  for (size_t i = 0; i < errors.size(); ++i) {
    const LayerError& e = errors[i];
    const std::string name = i ? "layer " + std::to_string(i - 1) : "embedding";
    if (json) {
      std::printf("%s{\"after\": \"%s\", \"stream\": %.6f, \"stream_first\": %.6f", i ? ",\n " : "[", name.c_str(), e.accumulated.mean(),
                  e.accumulated.mean_first());
      if (i) std::printf(", \"alone\": %.6f, \"alone_first\": %.6f", e.alone.mean(), e.alone.mean_first());
      std::printf(i + 1 == errors.size() ? "}]\n" : "}");
    } else if (i == 0) {
      std::printf("| %s | %.4f | %.4f | | |\n", name.c_str(), e.accumulated.mean(), e.accumulated.mean_first());
    } else {
      std::printf("| %s | %.4f | %.4f | %.4f | %.4f |\n", name.c_str(), e.accumulated.mean(), e.accumulated.mean_first(), e.alone.mean(),
                  e.alone.mean_first());
    }
  }
}

void run(const Options& o) {
  std::vector<std::vector<gptq_token>> windows;
  {
    const Runtime runtime(o.runtime());
    windows = windows_of(Model(runtime, o.model), o);
  }
  auto* memory = std::pmr::get_default_resource();
  base::Pool pool(o.threads, nullptr, nullptr, memory);
  const base::FileSource model_file(o.model), reference_file(o.reference);
  const model::Model model(model_file, {}, pool, memory), reference(reference_file, {}, pool, memory);
  if (model.spec.n_embd != reference.spec.n_embd || model.spec.n_layers != reference.spec.n_layers ||
      model.spec.n_vocab != reference.spec.n_vocab)
    base::fail(GPTQ_E_INVALID_ARGUMENT, "the two models have different shapes");
  const Activations activations = o.exact ? Activations::f32 : o.bf16 ? Activations::bf16 : Activations::int8;
  Streams streams(model, reference, pool, activations, static_cast<uint32_t>(windows[0].size()));
  for (size_t w = 0; w < windows.size(); ++w) {
    const std::span<const gptq_token> tokens(windows[w]);
    for (size_t at = 0; at < tokens.size(); at += rows_max)
      compare(streams, tokens.subspan(at, std::min<size_t>(rows_max, tokens.size() - at)), static_cast<uint32_t>(at), model.spec.n_embd);
    show_progress(w + 1, windows.size(), "error after the last layer", streams.errors.back().accumulated.mean());
  }
  print(streams.errors, o.json);
}

}  // namespace

void layers(const Options& o) {
  try {
    run(o);
  } catch (const base::Failure& failure) {
    throw gptq::Error(failure.detail.status, failure.detail.message);
  }
}

}  // namespace gptq::eval
