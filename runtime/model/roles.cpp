// SPDX-License-Identifier: Apache-2.0
#include "model/roles.h"

#include "model/spec.h"

namespace gptq::model {
namespace {

using Form = RoleInfo::Form;
using S = const ModelSpec&;
using L = const LayerSpec&;

WeightSize only_if(bool holds, uint32_t n, uint32_t k = 1) { return {holds ? n : 0, k}; }
bool attends(L l) { return l.mixer == Mixer::attention; }
bool is_latent(L l) { return l.mixer == Mixer::latent; }
bool is_delta(L l) { return l.mixer == Mixer::delta; }
bool convolves(L l) { return l.mixer == Mixer::short_conv; }

// What the layer's mixer gives to o.
uint32_t mixed(S s, L l) {
  switch (l.mixer) {
    case Mixer::attention: return s.n_heads * s.head_dim;
    case Mixer::latent: return s.n_heads * s.latent.d_v;
    case Mixer::delta: return s.delta.n_v * s.delta.d_v;
    case Mixer::short_conv: return s.n_embd;
  }
  return 0;
}

WeightSize q_size(S s, L l) {
  if (is_latent(l)) return {s.n_heads * s.latent.d_k(), s.latent.q_rank ? s.latent.q_rank : s.n_embd};
  return only_if(!convolves(l), is_delta(l) ? s.delta.n_k * s.delta.d_k : s.n_heads * s.head_dim, s.n_embd);
}
WeightSize k_size(S s, L l) { return only_if(attends(l) || is_delta(l), is_delta(l) ? s.delta.n_k * s.delta.d_k : s.n_kv_heads * s.head_dim, s.n_embd); }
WeightSize v_size(S s, L l) { return only_if(attends(l) || is_delta(l), is_delta(l) ? s.delta.n_v * s.delta.d_v : s.n_kv_heads * s.head_dim, s.n_embd); }

WeightSize head_norm_size(S s, L l, uint32_t n_heads) {
  return only_if(attends(l) && s.qk_norm && s.qk_norm_span != Span::unit, s.qk_norm_span == Span::head ? s.head_dim : n_heads * s.head_dim);
}
WeightSize conv_size(S s, L l) {
  if (convolves(l)) return {s.n_embd * s.conv_kernel, 1};
  return only_if(is_delta(l), s.delta.channels() * s.delta.kernel);
}
WeightSize norm_size(S s, Norms norm) { return only_if(s.has(norm), s.n_embd); }
WeightSize dense_size(S s, L l, bool holds, bool down = false) {
  return down ? only_if(holds && !l.experts, s.n_embd, l.n_ff) : only_if(holds && !l.experts, l.n_ff, s.n_embd);
}
WeightSize shared_size(S s, L l, bool holds, bool down = false) {
  const uint32_t width = l.experts ? s.experts.n_ff_shared : 0;
  return width == 0 ? WeightSize{0, 1} : down ? WeightSize{s.n_embd, width} : only_if(holds, width, s.n_embd);
}
WeightSize expert_size(S s, L l, bool holds, bool down = false) {
  return down ? only_if(holds && l.experts, s.n_embd, s.experts.n_ff) : only_if(holds && l.experts, s.experts.n_ff, s.n_embd);
}

constexpr RoleInfo roles[n_roles] = {
    {Role::embed, "embed", Form::matrix, false, [](S s, L) { return WeightSize{s.n_vocab, s.n_embed}; }},
    {Role::positions, "positions", Form::matrix, false, [](S s, L) { return only_if(s.n_positions, s.n_positions, s.n_embd); }},
    {Role::embed_proj, "embed_proj", Form::linear, false, [](S s, L) { return only_if(s.n_embed != s.n_embd, s.n_embd, s.n_embed); }},
    {Role::embed_norm, "embed_norm", Form::norm, false, [](S s, L) { return norm_size(s, Norms::embed); }},
    {Role::final_norm, "final_norm", Form::norm, false, [](S s, L) { return norm_size(s, Norms::final); }},
    {Role::head_proj, "head_proj", Form::linear, false, [](S s, L) { return only_if(s.n_embed != s.n_embd, s.n_embed, s.n_embd); }},
    {Role::head, "head", Form::linear, false, [](S s, L) { return only_if(!s.tied_head, s.n_vocab, s.n_embed); }},
    {Role::attn_norm, "attn_norm", Form::norm, false, [](S s, L) { return norm_size(s, Norms::attn); }},
    {Role::q, "q", Form::linear, true, q_size},
    {Role::k, "k", Form::linear, true, k_size},
    {Role::v, "v", Form::linear, true, v_size},
    {Role::o, "o", Form::linear, true, [](S s, L l) { return WeightSize{s.n_embd, mixed(s, l)}; }},
    {Role::q_norm, "q_norm", Form::norm, false, [](S s, L l) { return head_norm_size(s, l, s.n_heads); }},
    {Role::k_norm, "k_norm", Form::norm, false, [](S s, L l) { return head_norm_size(s, l, s.n_kv_heads); }},
    {Role::attn_gate, "attn_gate", Form::linear, true, [](S s, L l) { return only_if(attends(l) && s.attention_gate, mixed(s, l), s.n_embd); }},
    {Role::sinks, "sinks", Form::vector, false, [](S s, L l) { return only_if(attends(l) && s.sinks, s.n_heads); }},
    {Role::q_a, "q_a", Form::linear, true, [](S s, L l) { return only_if(is_latent(l), s.latent.q_rank, s.n_embd); }},
    {Role::q_a_norm, "q_a_norm", Form::vector, false, [](S s, L l) { return only_if(is_latent(l), s.latent.q_rank); }},
    {Role::kv_a, "kv_a", Form::linear, true, [](S s, L l) { return only_if(is_latent(l), s.latent.width(), s.n_embd); }},
    {Role::kv_a_norm, "kv_a_norm", Form::vector, false, [](S s, L l) { return only_if(is_latent(l), s.latent.kv_rank); }},
    {Role::k_b, "k_b", Form::matrix, true, [](S s, L l) { return only_if(is_latent(l), s.n_heads * s.latent.d_nope, s.latent.kv_rank); }},
    {Role::v_b, "v_b", Form::matrix, true, [](S s, L l) { return only_if(is_latent(l), s.n_heads * s.latent.d_v, s.latent.kv_rank); }},
    {Role::conv, "conv", Form::vector, false, conv_size},
    {Role::z, "z", Form::linear, true, [](S s, L l) { return only_if(is_delta(l), mixed(s, l), s.n_embd); }},
    {Role::a, "a", Form::linear, false, [](S s, L l) { return only_if(is_delta(l), s.delta.n_v, s.n_embd); }},
    {Role::b, "b", Form::linear, false, [](S s, L l) { return only_if(is_delta(l), s.delta.n_v, s.n_embd); }},
    {Role::decay, "decay", Form::vector, false, [](S s, L l) { return only_if(is_delta(l), s.delta.n_v); }},
    {Role::dt_bias, "dt_bias", Form::vector, false, [](S s, L l) { return only_if(is_delta(l), s.delta.n_v); }},
    {Role::delta_norm, "delta_norm", Form::vector, false, [](S s, L l) { return only_if(is_delta(l), s.delta.d_v); }},
    {Role::conv_in, "conv_in", Form::linear, true, [](S s, L l) { return only_if(convolves(l), 3 * s.n_embd, s.n_embd); }},
    {Role::attn_out_norm, "attn_out_norm", Form::norm, false, [](S s, L) { return norm_size(s, Norms::attn_out); }},
    {Role::mlp_norm, "mlp_norm", Form::norm, false, [](S s, L) { return norm_size(s, Norms::mlp); }},
    {Role::gate, "gate", Form::linear, true, [](S s, L l) { return dense_size(s, l, s.gated); }},
    {Role::up, "up", Form::linear, true, [](S s, L l) { return dense_size(s, l, true); }},
    {Role::down, "down", Form::linear, true, [](S s, L l) { return dense_size(s, l, true, true); }},
    {Role::act_params, "act_params", Form::vector, false, [](S s, L) { return only_if(s.activation == Activation::xielu, 4); }},
    {Role::router, "router", Form::linear, false, [](S s, L l) { return only_if(l.experts, s.experts.n, s.n_embd); }},
    {Role::router_bias, "router_bias", Form::vector, false, [](S s, L l) { return only_if(l.experts && s.experts.choice_bias, s.experts.n); }},
    {Role::shared_gate, "shared.gate", Form::linear, true, [](S s, L l) { return shared_size(s, l, s.gated); }},
    {Role::shared_up, "shared.up", Form::linear, true, [](S s, L l) { return shared_size(s, l, true); }},
    {Role::shared_down, "shared.down", Form::linear, true, [](S s, L l) { return shared_size(s, l, true, true); }},
    {Role::shared_switch, "shared_switch", Form::linear, false, [](S s, L l) { return only_if(l.experts && s.experts.shared_gated, 1, s.n_embd); }},
    {Role::mlp_out_norm, "mlp_out_norm", Form::norm, false, [](S s, L) { return norm_size(s, Norms::mlp_out); }},
    {Role::expert_gate, "gate", Form::linear, true, [](S s, L l) { return expert_size(s, l, s.gated); }},
    {Role::expert_up, "up", Form::linear, true, [](S s, L l) { return expert_size(s, l, true); }},
    {Role::expert_down, "down", Form::linear, true, [](S s, L l) { return expert_size(s, l, true, true); }},
};

constexpr bool in_order() {
  for (uint32_t i = 0; i < n_roles; ++i)
    if (static_cast<uint32_t>(roles[i].role) != i) return false;
  return true;
}
static_assert(in_order());

}  // namespace

const RoleInfo& info_of(Role role) { return roles[static_cast<size_t>(role)]; }

}  // namespace gptq::model
