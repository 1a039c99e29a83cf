// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "engine/forward.h"

namespace gptq::engine {
namespace {

using model::Mixer;

// Numbers a row of each buffer, the most that any of the layers needs.
struct Widths {
  explicit Widths(const model::ModelSpec& s) {
    const model::Delta& d = s.delta;
    const model::Latent& l = s.latent;
    const auto widen = [](uint64_t& width, uint64_t other) { width = std::max(width, other); };
    for (const model::LayerSpec& layer : s.layers) {
      switch (layer.mixer) {
        case Mixer::attention:
          widen(q, uint64_t{s.n_heads} * s.head_dim);
          widen(k, uint64_t{s.n_kv_heads} * s.head_dim);
          widen(v, uint64_t{s.n_kv_heads} * s.head_dim);
          widen(attended, uint64_t{s.n_heads} * s.head_dim);
          if (s.attention_gate) widen(inner, uint64_t{s.n_heads} * s.head_dim);
          break;
        case Mixer::latent:
          widen(q, uint64_t{s.n_heads} * l.d_k());
          widen(k, uint64_t{s.n_heads} * l.d_k());
          widen(v, uint64_t{s.n_heads} * l.d_v);
          widen(attended, uint64_t{s.n_heads} * l.d_v);
          widen(inner, uint64_t{l.q_rank} + l.width() + l.kv_rank + uint64_t{s.n_heads} * (l.width() + l.kv_rank));
          break;
        case Mixer::delta:
          widen(q, d.channels());
          widen(inner, d.channels() + uint64_t{d.n_v} * d.d_v + 2 * d.n_v);
          widen(attended, uint64_t{d.n_v} * d.d_v);
          break;
        case Mixer::short_conv:
          widen(inner, 3 * uint64_t{s.n_embd});
          widen(attended, s.n_embd);
          break;
      }
      if (layer.experts) experts = true;
      else widen(ff, layer.n_ff);
    }
    if (experts) widen(ff, std::max<uint64_t>(s.experts.n_ff_shared, uint64_t{s.experts.n_active} * s.experts.n_ff));
    branch = s.residual == model::Residual::parallel || s.residual_scale != 1 || s.has(model::Norms::attn_out) || s.has(model::Norms::mlp_out) || experts;
  }
  uint64_t q = 0, k = 0, v = 0, inner = 0, attended = 0, ff = 0;
  bool experts = false, branch = false;
};

}  // namespace

Workspace::Workspace(const model::ModelSpec& spec, uint32_t max_rows, uint32_t max_logits, base::Arena& arena) {
  const Widths w(spec);
  const uint64_t rows = max_rows, pairs = w.experts ? rows * spec.experts.n_active : 0;
  x = arena.take<float>(rows * spec.n_embd);
  h = arena.take<float>(std::max<uint64_t>(rows, max_logits) * spec.n_embd);
  q = arena.take<float>(rows * w.q);
  k = arena.take<float>(rows * w.k);
  v = arena.take<float>(rows * w.v);
  attended = arena.take<float>(rows * w.attended);
  gate = arena.take<float>(rows * w.ff);
  up = arena.take<float>(rows * w.ff);
  logits = arena.take<float>(uint64_t(max_logits) * spec.n_vocab);
  branch = w.branch ? arena.take<float>(rows * spec.n_embd) : nullptr;
  inner = w.inner ? arena.take<float>(rows * w.inner) : nullptr;
  parts = pairs ? arena.take<float>(pairs * spec.n_embd) : nullptr;
  sorted = pairs ? arena.take<float>(pairs * spec.n_embd) : nullptr;
  scores = pairs ? arena.take<float>(rows * (spec.experts.n + 1)) : nullptr;
  embedded = spec.n_embed != spec.n_embd ? arena.take<float>(std::max<uint64_t>(rows, max_logits) * spec.n_embed) : nullptr;
}

Routing::Routing(const model::ModelSpec& spec, uint32_t max_rows, base::Arena& arena) {
  const bool any = spec.experts.n > 0;
  const uint64_t pairs = any ? uint64_t{max_rows} * spec.experts.n_active : 0;
  chosen = any ? arena.take<int32_t>(pairs) : nullptr;
  weight = any ? arena.take<float>(pairs) : nullptr;
  slot = any ? arena.take<uint32_t>(pairs) : nullptr;
  row = any ? arena.take<uint32_t>(pairs) : nullptr;
  begin = any ? arena.take<uint32_t>(spec.experts.n + 1) : nullptr;
  products = any ? arena.take<device::Product>(2 * uint64_t{spec.experts.n}) : nullptr;
  scratch = any ? arena.take<float>(3 * uint64_t{spec.experts.n}) : nullptr;
}

}  // namespace gptq::engine
