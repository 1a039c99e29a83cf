// SPDX-License-Identifier: Apache-2.0
// The rules a model description has to keep.
#include "model/spec.h"

#include <algorithm>
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

template <class List>
void check_length(std::string_view field, const List* list, uint32_t length) {
  if (list && list->size() != length) fail(GPTQ_E_FORMAT, "spec.", field, " has ", list->size(), " values where ", length, " belong");
}

template <class Enum>
Enum one_of(std::string_view field, uint8_t value, Enum last) {
  return static_cast<Enum>(in_range(field, value, 0, static_cast<uint8_t>(last)));
}

void read_frequencies(std::string_view field, const flatbuffers::Vector<float>& in, uint32_t dim, std::pmr::vector<float>& out) {
  check_length(field, &in, dim / 2);
  for (const float f : in) out.push_back(finite_in(field, f, 0, 1e4f));
}

void check_rope(const fb::Rope& in, uint32_t head_dim, Rope& out) {
  out.dim = in_range("rope.dim", in.dim(), 2, head_dim);
  if (out.dim % 2 != 0) fail(GPTQ_E_FORMAT, "spec.rope.dim = ", out.dim, " is odd");
  read_frequencies("rope.inv_freq", *in.inv_freq(), out.dim, out.inv_freq);
  out.scale = finite_in("rope.scale", in.scale(), 1e-4f, 1e4f);
  out.theta = finite_in("rope.theta", in.theta(), 0, 1e15f);
  out.n_ctx_original = in.n_ctx_original();
  if (in.long_inv_freq()) {
    read_frequencies("rope.long_inv_freq", *in.long_inv_freq(), out.dim, out.long_inv_freq);
    in_range("rope.n_ctx_original", out.n_ctx_original, 1, n_ctx_max);
  }
  out.dynamic_factor = finite_in("rope.dynamic_factor", in.dynamic_factor(), 0, 1e4f);
  if (out.dynamic_factor == 0) return;
  finite_in("rope.dynamic_factor", out.dynamic_factor, 1, 1e4f);
  finite_in("rope.theta", out.theta, 1, 1e15f);
  in_range("rope.n_ctx_original", out.n_ctx_original, 1, n_ctx_max);
  in_range("rope.dim", out.dim, 4, head_dim);
}

// Which of the layers a list of 0 and 1 names; without a list all of them.
template <class F>
void for_layers(std::string_view field, const flatbuffers::Vector<uint8_t>* list, ModelSpec& out, F&& f) {
  check_length(field, list, out.n_layers);
  for (uint32_t i = 0; i < out.n_layers; ++i)
    if (!list || in_range(field, list->Get(i), 0, 1)) f(out.layers[i]);
}

void check_ropes(const fb::Spec& in, ModelSpec& out) {
  const uint32_t n_more = in.ropes() ? in.ropes()->size() : 0;
  in_range("ropes", n_more, 0, kernels::most_ropes - 1);
  check_length("rope_of_layer", in.rope_of_layer(), out.n_layers);
  bool first_used = false;
  for (uint32_t i = 0; i < out.n_layers; ++i) {
    const int32_t rope = in.rope_of_layer() ? in.rope_of_layer()->Get(i) : 0;
    if (rope < -1 || rope > static_cast<int32_t>(n_more)) fail(GPTQ_E_FORMAT, "spec.rope_of_layer names rope ", rope, " of ", n_more + 1);
    out.layers[i].rope = rope;
    first_used |= rope == 0;
  }
  const uint32_t most = out.latent.kv_rank ? out.latent.d_rope : out.head_dim;
  out.ropes.reserve(1 + n_more);
  Rope& first = out.ropes.emplace_back(out.ropes.get_allocator().resource());
  if (first_used || n_more || in.rope()->dim()) check_rope(*in.rope(), most, first);
  for (uint32_t i = 0; i < n_more; ++i) check_rope(*in.ropes()->Get(i), most, out.ropes.emplace_back(out.ropes.get_allocator().resource()));
}

void check_layers(const fb::Spec& in, ModelSpec& out) {
  out.layers.resize(out.n_layers);
  for (LayerSpec& layer : out.layers) layer.n_ff = out.n_ff, layer.attention_scale = finite_in("attention_scale", in.attention_scale(), 1e-6f, 1e4f);
  in_range("window", in.window(), 0, n_ctx_max);
  in_range("chunk", in.chunk(), 0, n_ctx_max);
  for_layers("windowed_layers", in.windowed_layers(), out, [&](LayerSpec& layer) { layer.window = in.window(); });
  for_layers("chunked_layers", in.chunked_layers(), out, [&](LayerSpec& layer) { layer.chunk = in.chunk(); });
  if (in.experts()) for_layers("expert_layers", in.expert_layers(), out, [&](LayerSpec& layer) { layer.experts = true; });
  if (in.query_scale()) for_layers("query_scaled_layers", in.query_scaled_layers(), out, [&](LayerSpec& layer) { layer.query_scaled = true; });
  check_length("mixers", in.mixers(), out.n_layers);
  check_length("n_ff_of_layer", in.n_ff_of_layer(), out.n_layers);
  check_length("attention_scales", in.attention_scales(), out.n_layers);
  for (uint32_t i = 0; i < out.n_layers; ++i) {
    LayerSpec& layer = out.layers[i];
    if (in.mixers()) layer.mixer = one_of("mixers", in.mixers()->Get(i), Mixer::short_conv);
    if (in.n_ff_of_layer()) layer.n_ff = in_range("n_ff_of_layer", in.n_ff_of_layer()->Get(i), 1, 1u << 18);
    if (in.attention_scales()) layer.attention_scale = finite_in("attention_scales", in.attention_scales()->Get(i), 1e-6f, 1e4f);
  }
}

void check_latent(const fb::Spec& in, ModelSpec& out) {
  if (!in.latent()) {
    if (out.any(Mixer::latent)) fail(GPTQ_E_FORMAT, "spec.latent is missing");
    return;
  }
  const fb::Latent& l = *in.latent();
  out.latent = {.q_rank = in_range("latent.q_rank", l.q_rank(), 0, 1u << 16),
                .kv_rank = in_range("latent.kv_rank", l.kv_rank(), 1, 4096),
                .d_nope = in_range("latent.d_nope", l.d_nope(), 1, 512),
                .d_rope = in_range("latent.d_rope", l.d_rope(), 2, 512),
                .d_v = in_range("latent.d_v", l.d_v(), 1, 512)};
  in_range("latent.kv_rank + latent.d_rope", out.latent.width(), 2, kernels::largest_head);
  in_range("n_heads * latent.d_k", out.n_heads * std::max(out.latent.d_k(), out.latent.d_v), 2, 1u << 18);
}

void check_delta(const fb::Spec& in, ModelSpec& out) {
  if (out.any(Mixer::short_conv)) out.conv_kernel = in_range("conv_kernel", in.conv_kernel(), 2, 8);
  if (!out.any(Mixer::delta)) return;
  if (!in.delta()) fail(GPTQ_E_FORMAT, "spec.delta is missing");
  const fb::Delta& d = *in.delta();
  out.delta = {.n_k = in_range("delta.n_k", d.n_k(), 1, 1024),
               .n_v = in_range("delta.n_v", d.n_v(), 1, 1024),
               .d_k = in_range("delta.d_k", d.d_k(), 1, 512),
               .d_v = in_range("delta.d_v", d.d_v(), 1, 512),
               .kernel = in_range("delta.kernel", d.kernel(), 2, 8)};
  if (out.delta.n_v % out.delta.n_k) fail(GPTQ_E_FORMAT, "spec.delta.n_v = ", out.delta.n_v, " is no multiple of n_k = ", out.delta.n_k);
  in_range("delta's channels", out.delta.channels(), 1, 1u << 18);
}

void check_experts(const fb::Spec& in, ModelSpec& out) {
  if (!in.experts()) return;
  const fb::Experts& e = *in.experts();
  out.experts = {.n = in_range("experts.n", e.n(), 1, 4096),
                 .n_active = in_range("experts.n_active", e.n_active(), 1, std::min(e.n(), 64u)),
                 .n_ff = in_range("experts.n_ff", e.n_ff(), 1, 1u << 17),
                 .n_ff_shared = in_range("experts.n_ff_shared", e.n_ff_shared(), 0, 1u << 18),
                 .groups = in_range("experts.groups", e.groups(), 1, e.n()),
                 .groups_kept = in_range("experts.groups_kept", e.groups_kept(), 1, e.groups()),
                 .score = one_of("experts.score", e.score(), Score::sparsemixer),
                 .group_score = one_of("experts.group_score", e.group_score(), GroupScore::two_largest),
                 .normalize = e.normalize(),
                 .weigh_input = e.weigh_input(),
                 .choice_bias = e.choice_bias(),
                 .shared_gated = e.shared_gated(),
                 .epsilon = finite_in("experts.epsilon", e.epsilon(), 0, 1),
                 .least_sum = finite_in("experts.least_sum", e.least_sum(), 0, 1),
                 .scale = finite_in("experts.scale", e.scale(), 1e-6f, 1e6f),
                 .jitter = finite_in("experts.jitter", e.jitter(), 0, 1)};
  // The list of a model's weights is made before the file is asked for them.
  in_range("n_layers * experts.n", out.n_layers * out.experts.n, 1, 1u << 17);
  if (out.experts.n % out.experts.groups) fail(GPTQ_E_FORMAT, "spec.experts.n = ", out.experts.n, " is no multiple of groups = ", out.experts.groups);
  if (uint64_t{out.experts.n} / out.experts.groups * out.experts.groups_kept < out.experts.n_active)
    fail(GPTQ_E_FORMAT, "spec.experts.groups_kept = ", out.experts.groups_kept, " leaves fewer experts than n_active");
  if (out.experts.score == Score::sparsemixer) in_range("experts.n_active", out.experts.n_active, 2, 2);
  if (out.experts.shared_gated) in_range("experts.n_ff_shared", out.experts.n_ff_shared, 1, 1u << 18);
}

void check_scales(const fb::Spec& in, ModelSpec& out) {
  out.embed_scale = finite_in("embed_scale", in.embed_scale(), 1e-6f, 1e6f);
  out.residual_scale = finite_in("residual_scale", in.residual_scale(), 1e-6f, 1e6f);
  out.logit_scale = finite_in("logit_scale", in.logit_scale(), 1e-6f, 1e6f);
  out.attention_softcap = finite_in("attention_softcap", in.attention_softcap(), 0, 1e6f);
  out.logit_softcap = finite_in("logit_softcap", in.logit_softcap(), 0, 1e6f);
  out.clip_qkv = finite_in("clip_qkv", in.clip_qkv(), 0, 1e6f);
  if (!in.query_scale()) return;
  out.query_scale = {.floor = finite_in("query_scale.floor", in.query_scale()->floor(), 1, 1e9f),
                     .factor = finite_in("query_scale.factor", in.query_scale()->factor(), 0, 1e4f),
                     .offset = finite_in("query_scale.offset", in.query_scale()->offset(), 0, 1e4f)};
}

void check_forms(const fb::Spec& in, ModelSpec& out) {
  out.norm = one_of("norm", in.norm(), NormKind::layer);
  out.activation = one_of("activation", in.activation(), Activation::xielu);
  out.gated = !in.ungated();
  out.residual = one_of("residual", in.residual(), Residual::from_norm);
  out.norms = static_cast<uint8_t>(in_range("norms", in.norms(), 0, 63));
  out.tied_head = in.tied_head();
  out.qk_norm = in.qk_norm();
  out.qk_norm_span = one_of("qk_norm_span", in.qk_norm_span(), Span::unit);
  out.qk_norm_kind = one_of("qk_norm_kind", in.qk_norm_kind(), NormKind::layer);
  out.qk_norm_after_rope = in.qk_norm_after_rope();
  out.sinks = in.sinks();
  out.attention_gate = in.attention_gate();
  out.n_positions = in_range("n_positions", in.n_positions(), 0, 1u << 20);
  out.position_offset = in_range("position_offset", in.position_offset(), 0, 1024);
  if (out.n_positions && out.n_positions < out.position_offset + out.n_ctx_train)
    fail(GPTQ_E_FORMAT, "spec.n_positions = ", out.n_positions, " is less than n_ctx_train = ", out.n_ctx_train, " from ", out.position_offset, " on");
  out.n_embed = in.n_embed() ? in_range("n_embed", in.n_embed(), 1, 1u << 16) : out.n_embd;
  if (out.activation == Activation::swiglu_clamped && !out.gated) fail(GPTQ_E_FORMAT, "spec.activation: swiglu_clamped needs a gate");
  if (out.activation == Activation::xielu && out.gated) fail(GPTQ_E_FORMAT, "spec.activation: xielu has no gate");
  if (in.alibi_slopes()) {
    check_length("alibi_slopes", in.alibi_slopes(), out.n_heads);
    for (const float slope : *in.alibi_slopes()) out.alibi_slopes.push_back(finite_in("alibi_slopes", slope, 0, 1e4f));
  }
}

// What in a model is not the Llama line's, for what can do only that.
const char* first_beyond_llama(const ModelSpec& s) {
  if (s.norm != NormKind::rms) return "layer norm";
  if (s.activation != Activation::silu || !s.gated) return "an MLP other than the gated one with silu";
  if (s.residual != Residual::sequential) return "residuals that are not sequential";
  if (s.norms != (static_cast<uint8_t>(Norms::attn) | static_cast<uint8_t>(Norms::mlp) | static_cast<uint8_t>(Norms::final))) return "norms in other places";
  if (s.embed_scale != 1 || s.residual_scale != 1 || s.logit_scale != 1) return "scaled embeddings, residuals or logits";
  if (s.attention_softcap != 0 || s.logit_softcap != 0) return "capped logits";
  if (s.clip_qkv != 0) return "clipped queries, keys and values";
  if (s.n_positions || !s.alibi_slopes.empty()) return "positions that are not rotary";
  if (s.n_embed != s.n_embd) return "a projected embedding";
  if (s.qk_norm && (s.qk_norm_span != Span::head || s.qk_norm_kind != NormKind::rms || s.qk_norm_after_rope)) return "this norm of queries and keys";
  if (s.sinks || s.attention_gate) return "attention with sinks or a gate";
  if (s.ropes.size() > 1 || !s.ropes[0].long_inv_freq.empty()) return "several rotary embeddings";
  for (const LayerSpec& l : s.layers) {
    if (l.mixer != Mixer::attention) return "layers without plain attention";
    if (l.experts) return "a mixture of experts";
    if (l.rope != 0) return "layers without rotary embedding";
    if (l.chunk || l.query_scaled) return "chunked attention or scaled queries";
    if (l.n_ff != s.n_ff) return "MLPs of several widths";
    if (l.attention_scale != s.layers[0].attention_scale) return "several attention scales";
  }
  return nullptr;
}

}  // namespace

bool ModelSpec::any(Mixer mixer) const {
  return std::any_of(layers.begin(), layers.end(), [&](const LayerSpec& layer) { return layer.mixer == mixer; });
}

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
  check_forms(in, out);
  check_scales(in, out);
  check_layers(in, out);
  check_latent(in, out);
  check_delta(in, out);
  check_experts(in, out);
  check_ropes(in, out);
  out.beyond_llama = first_beyond_llama(out);
  return out;
}

uint64_t count_parts(const ModelSpec& spec) {
  const auto mixed = std::count_if(spec.layers.begin(), spec.layers.end(), [](const LayerSpec& layer) { return layer.experts; });
  return spec.n_layers + static_cast<uint64_t>(mixed) * spec.experts.n;
}

ModelSpec check_spec(const fb::Manifest& manifest, std::pmr::memory_resource* memory) {
  ModelSpec spec = check_spec(*manifest.spec(), memory);
  const uint64_t parts = count_parts(spec), tensors = manifest.tensors()->size();
  if (parts > tensors) fail(GPTQ_E_FORMAT, "the file has ", tensors, " tensors for ", parts, " layers and experts");
  return spec;
}

bool is_adapter(const fb::Manifest& manifest) {
  bool found = false;
  if (const auto* features = manifest.required_features())
    for (const auto* feature : *features) found |= feature->string_view() == adapter_feature;
  return found;
}

void check_features(const fb::Manifest& manifest, FileKind kind) {
  if (const auto* features = manifest.required_features())
    for (const auto* feature : *features)
      if (feature->string_view() != layers_feature && feature->string_view() != adapter_feature)
        fail(GPTQ_E_UNSUPPORTED, "the model needs '", feature->string_view(), "', which this build lacks: use a newer version");
  const bool adapter = is_adapter(manifest);
  if (adapter && kind == FileKind::model) fail(GPTQ_E_FORMAT, "the file is an adapter, not a model: load it with gptq_adapter_load");
  if (!adapter && kind == FileKind::adapter) fail(GPTQ_E_FORMAT, "the file is a model, not an adapter: load it with gptq_model_load");
}

}  // namespace gptq::model
