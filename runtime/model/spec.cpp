// SPDX-License-Identifier: Apache-2.0
// The rules a model description has to keep.
#include "model/spec.h"

#include <cmath>

#include "base/checked.h"

namespace gptq::model {
namespace {

using base::fail;
namespace fb = format::fb;

uint32_t in_range(std::string_view field, uint32_t value, uint32_t lowest, uint32_t highest) {
  if (value < lowest || value > highest) fail(GPTQ_E_FORMAT, "spec.", field, " = ", value, " is not within ", lowest, " to ", highest);
  return value;
}

float finite_in(std::string_view field, float value, float lowest, float highest) {
  if (!std::isfinite(value) || value < lowest || value > highest)
    fail(GPTQ_E_FORMAT, "spec.", field, " = ", double(value), " is not within ", double(lowest), " to ", double(highest));
  return value;
}

void check_rope(const fb::Rope& in, uint32_t head_dim, Rope& out) {
  out.dim = in_range("rope.dim", in.dim(), 2, head_dim);
  if (out.dim % 2 != 0) fail(GPTQ_E_FORMAT, "spec.rope.dim = ", out.dim, " is odd");
  if (in.inv_freq()->size() != out.dim / 2)
    fail(GPTQ_E_FORMAT, "spec.rope.inv_freq has ", in.inv_freq()->size(), " values where ", out.dim / 2, " belong");
  for (float f : *in.inv_freq()) out.inv_freq.push_back(finite_in("rope.inv_freq", f, 0, 1e4f));
  out.scale = finite_in("rope.scale", in.scale(), 1e-4f, 1e4f);
  out.theta = finite_in("rope.theta", in.theta(), 0, 1e15f);
  out.n_ctx_original = in.n_ctx_original();
  out.dynamic_factor = finite_in("rope.dynamic_factor", in.dynamic_factor(), 0, 1e4f);
  if (out.dynamic_factor == 0) return;
  finite_in("rope.dynamic_factor", out.dynamic_factor, 1, 1e4f);
  finite_in("rope.theta", out.theta, 1, 1e15f);
  in_range("rope.n_ctx_original", out.n_ctx_original, 1, n_ctx_max);
  in_range("rope.dim", out.dim, 4, head_dim);
}

void check_windows(const fb::Spec& in, ModelSpec& out) {
  const auto* windowed = in.windowed_layers();
  in_range("window", in.window(), 0, n_ctx_max);
  if (windowed && windowed->size() != out.n_layers)
    fail(GPTQ_E_FORMAT, "spec.windowed_layers has ", windowed->size(), " values where ", out.n_layers, " belong");
  for (uint32_t i = 0; i < out.n_layers; ++i) {
    const bool holds = !windowed || in_range("windowed_layers", windowed->Get(i), 0, 1);
    out.windows.push_back(holds ? in.window() : 0);
  }
}

}  // namespace

ModelSpec check_spec(const fb::Spec& in, std::pmr::memory_resource* memory) {
  ModelSpec out(memory);
  out.n_vocab = in_range("n_vocab", in.n_vocab(), 1, 1u << 20);
  out.n_layers = in_range("n_layers", in.n_layers(), 1, 1024);
  out.n_embd = in_range("n_embd", in.n_embd(), 1, 1u << 16);
  out.n_ff = in_range("n_ff", in.n_ff(), 1, 1u << 18);
  out.n_heads = in_range("n_heads", in.n_heads(), 1, 1024);
  out.n_kv_heads = in_range("n_kv_heads", in.n_kv_heads(), 1, out.n_heads);
  if (out.n_heads % out.n_kv_heads != 0)
    fail(GPTQ_E_FORMAT, "spec.n_heads = ", out.n_heads, " is no multiple of n_kv_heads = ", out.n_kv_heads);
  out.head_dim = in_range("head_dim", in.head_dim(), 2, 512);
  in_range("n_heads * head_dim", out.n_heads * out.head_dim, 2, 1u << 17);
  out.n_ctx_train = in_range("n_ctx_train", in.n_ctx_train(), 1, n_ctx_max);
  out.norm_eps = finite_in("norm_eps", in.norm_eps(), 1e-30f, 1);
  out.attention_scale = finite_in("attention_scale", in.attention_scale(), 1e-6f, 1e4f);
  out.tied_head = in.tied_head();
  out.qk_norm = in.qk_norm();
  check_rope(*in.rope(), out.head_dim, out.rope);
  check_windows(in, out);
  return out;
}

void check_features(const fb::Manifest& manifest) {
  if (const auto* features = manifest.required_features(); features && features->size())
    fail(GPTQ_E_UNSUPPORTED, "the model needs '", std::string_view(features->Get(0)->c_str(), features->Get(0)->size()),
        "', which this build lacks: use a newer version");
}

}  // namespace gptq::model
