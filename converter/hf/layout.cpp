// SPDX-License-Identifier: Apache-2.0
#include "converter/hf/layout.h"

#include <numeric>

#include "base/failure.h"

namespace gptq::convert {
namespace {

using model::Role;
using Rows = std::vector<uint32_t>;

std::string with_number(std::string text, uint32_t number) {
  if (const size_t at = text.find("{}"); at != text.npos) text.replace(at, 2, std::to_string(number));
  return text;
}

Rows range(uint32_t first, uint32_t count) {
  Rows rows(count);
  std::iota(rows.begin(), rows.end(), first);
  return rows;
}

void append(Rows& rows, uint32_t first, uint32_t count) {
  for (uint32_t i = 0; i < count; ++i) rows.push_back(first + i);
}

// Which of q (0), k (1), v (2).
Rows fused_rows(Fused order, uint32_t part, uint32_t heads, uint32_t kv_heads, uint32_t d) {
  const uint32_t group = heads / kv_heads;
  Rows rows;
  switch (order) {
    case Fused::concat: return part == 0 ? range(0, heads * d) : range((part == 1 ? heads : heads + kv_heads) * d, kv_heads * d);
    case Fused::grouped:
      for (uint32_t kv = 0; kv < kv_heads; ++kv) append(rows, (kv * (group + 2) + (part == 0 ? 0 : group + part - 1)) * d, part == 0 ? group * d : d);
      return rows;
    case Fused::codegen: {
      const uint32_t size = heads * d / 4, place = part == 0 ? 0 : part == 1 ? 2 : 1;
      for (uint32_t quarter = 0; quarter < 4; ++quarter) append(rows, (quarter * 3 + place) * size, size);
      return rows;
    }
  }
  return rows;
}

// Inside every head of d rows: pairs of rows first .. first + n - 1 become halves.
void unpair(Rows& rows, uint32_t d, uint32_t first, uint32_t n) {
  const Rows before = rows;
  for (uint32_t head = 0; head + d <= rows.size(); head += d)
    for (uint32_t j = 0; j < n / 2; ++j) {
      rows[head + first + j] = before[head + first + 2 * j];
      rows[head + first + n / 2 + j] = before[head + first + 2 * j + 1];
    }
}

bool is_raw(Role role) { return role == Role::sinks || role == Role::router_bias || role == Role::decay || role == Role::dt_bias; }

}  // namespace

Layout::Layout() {
  Layout& l = *this;
  l[Role::embed] = "model.embed_tokens", l[Role::final_norm] = "model.norm", l[Role::head] = "lm_head";
  l[Role::attn_norm] = "input_layernorm", l[Role::mlp_norm] = "post_attention_layernorm";
  for (const auto& [role, name] : {std::pair{Role::q, "q_proj"}, {Role::k, "k_proj"}, {Role::v, "v_proj"}, {Role::o, "o_proj"}, {Role::q_norm, "q_norm"},
                                   {Role::k_norm, "k_norm"}, {Role::q_a, "q_a_proj"}, {Role::q_a_norm, "q_a_layernorm"}, {Role::kv_a, "kv_a_proj_with_mqa"},
                                   {Role::kv_a_norm, "kv_a_layernorm"}, {Role::k_b, "kv_b_proj"}, {Role::v_b, "kv_b_proj"}, {Role::sinks, "sinks"}})
    l[role] = std::string("self_attn.") + name;
  l[Role::gate] = "mlp.gate_proj", l[Role::up] = "mlp.up_proj", l[Role::down] = "mlp.down_proj";
  l[Role::router] = "mlp.gate", l[Role::router_bias] = "mlp.gate.e_score_correction_bias";
  l[Role::expert_gate] = "gate_proj", l[Role::expert_up] = "up_proj", l[Role::expert_down] = "down_proj";
  l[Role::shared_gate] = "mlp.shared_expert.gate_proj", l[Role::shared_up] = "mlp.shared_expert.up_proj", l[Role::shared_down] = "mlp.shared_expert.down_proj";
  l[Role::shared_switch] = "mlp.shared_expert_gate";
  l[Role::conv] = "linear_attn.conv1d", l[Role::decay] = "linear_attn.A_log", l[Role::dt_bias] = "linear_attn.dt_bias", l[Role::delta_norm] = "linear_attn.norm";
  l[Role::z] = "linear_attn.in_proj_z", l[Role::a] = "linear_attn.in_proj_a", l[Role::b] = "linear_attn.in_proj_b";
}

std::string Layout::full(const std::string& name, uint32_t index) const {
  std::string text = index == model::no_index ? name : with_number(layer, index) + name;
  if (drop_prefix && text.starts_with(prefix())) text.erase(0, prefix().size());
  return text;
}

Piece Layout::locate(const format::fb::SpecT& spec, const model::SlotId& id, const Has& has) const {
  const auto here = [&](const std::string& name) { return full(name, id.layer); };
  const auto there = [&](const std::string& module) { return !has || has(module); };
  const uint32_t d = spec.head_dim;
  Piece piece;
  piece.raw = is_raw(id.role);
  piece.transposed = transposed && id.layer != model::no_index;
  piece.module = here((*this)[id.role]);
  const bool delta = id.layer != model::no_index && !spec.mixers.empty() && spec.mixers[id.layer] == static_cast<uint8_t>(model::Mixer::delta);
  const bool conv = id.layer != model::no_index && !spec.mixers.empty() && spec.mixers[id.layer] == static_cast<uint8_t>(model::Mixer::short_conv);

  if (id.expert != model::no_index) {
    const bool down = id.role == Role::expert_down;
    const uint32_t n_ff = spec.experts->n_ff, half = id.role == Role::expert_gate ? 0 : 1;
    const std::string prefix = with_number(expert, id.expert);
    piece.module = here(prefix + (*this)[id.role]);
    const std::string by_transformers = here("mlp.experts." + std::to_string(id.expert) + "." + (down ? "down_proj" : half ? "up_proj" : "gate_proj"));
    if (has && !has(piece.module) && has(by_transformers)) return piece.module = by_transformers, piece;
    if (!expert_gate_up.empty() && there(here(with_number(down ? (*this)[Role::expert_down] : expert_gate_up, id.expert)))) {
      piece.module = here(with_number(down ? (*this)[Role::expert_down] : expert_gate_up, id.expert));
      if (!down) piece.rows = range(half * n_ff, n_ff), piece.of_rows = 2 * n_ff;
      return piece;
    }
    const std::string whole = here(down ? experts_3d_down : experts_3d_gate_up);
    if (has && !has(piece.module) && !experts_3d_down.empty() && has(whole)) {
      piece.module = whole;
      piece.raw = true;
      piece.slice = static_cast<int32_t>(id.expert);
      piece.transposed = transposed_3d;
      piece.slice_bias = whole + "_bias";
      if (!down) {
        piece.rows = range(half * n_ff, n_ff), piece.of_rows = 2 * n_ff;
        for (uint32_t i = 0; interleaved_gate_up && i < n_ff; ++i) piece.rows[i] = 2 * i + half;
      }
    }
    return piece;
  }
  if (id.role == Role::router && has && !has(piece.module))
    for (const char* other : {"mlp.gate", "mlp.router", "block_sparse_moe.router"})
      if (has(here(other))) piece.module = here(other);
  if (delta && (id.role == Role::q || id.role == Role::k || id.role == Role::v || id.role == Role::z || id.role == Role::a || id.role == Role::b)) {
    const uint32_t nk = spec.delta->n_k, dk = spec.delta->d_k, nv = spec.delta->n_v, dv = spec.delta->d_v, g = nv / nk;
    const bool by_head = !delta_qkvz.empty();
    if (id.role == Role::a || id.role == Role::b) {
      if (!by_head) return piece;
      piece.module = here(delta_ba), piece.of_rows = 2 * nk * g;
      for (uint32_t h = 0; h < nk; ++h) append(piece.rows, h * 2 * g + (id.role == Role::b ? 0 : g), g);
      return piece;
    }
    if (!by_head) {
      if (id.role == Role::z) return piece;
      piece.module = here(delta_qkv), piece.of_rows = 2 * nk * dk + nv * dv;
      piece.rows = id.role == Role::q ? range(0, nk * dk) : id.role == Role::k ? range(nk * dk, nk * dk) : range(2 * nk * dk, nv * dv);
      return piece;
    }
    piece.module = here(delta_qkvz);
    const uint32_t whole = 2 * dk + 2 * g * dv;
    piece.of_rows = nk * whole;
    const uint32_t at = id.role == Role::q ? 0 : id.role == Role::k ? dk : id.role == Role::v ? 2 * dk : 2 * dk + g * dv;
    for (uint32_t h = 0; h < nk; ++h) append(piece.rows, h * whole + at, id.role == Role::q || id.role == Role::k ? dk : g * dv);
    return piece;
  }
  if (delta && id.role == Role::o) return piece.module = here("linear_attn.out_proj"), piece;
  if (conv && id.role == Role::o) return piece.module = here("conv.out_proj"), piece;
  if (conv && id.role == Role::conv) return piece.module = here("conv.conv"), piece;

  if (spec.latent) {
    const format::fb::LatentT& l = *spec.latent;
    const uint32_t dk = l.d_nope + l.d_rope, both = l.d_nope + l.d_v;
    if (id.role == Role::q) {
      if (l.q_rank) piece.module = here("self_attn.q_b_proj");
      if (rope_pairs) unpair(piece.rows = range(0, spec.n_heads * dk), dk, l.d_nope, l.d_rope);
    }
    if (id.role == Role::kv_a && rope_pairs) unpair(piece.rows = range(0, l.kv_rank + l.d_rope), l.kv_rank + l.d_rope, l.kv_rank, l.d_rope);
    if (id.role == Role::k_b || id.role == Role::v_b) piece.of_rows = spec.n_heads * both;
    if (id.role == Role::k_b)
      for (uint32_t h = 0; h < spec.n_heads; ++h) append(piece.rows, h * both, l.d_nope);
    if (id.role == Role::v_b)
      for (uint32_t h = 0; h < spec.n_heads; ++h) append(piece.rows, h * both + l.d_nope, l.d_v);
    return piece;
  }

  const bool is_q = id.role == Role::q, is_k = id.role == Role::k, is_v = id.role == Role::v;
  if ((is_q || is_k || is_v) && !qkv.empty()) {
    piece.module = here(qkv);
    piece.rows = fused_rows(order, is_q ? 0 : is_k ? 1 : 2, spec.n_heads, spec.n_kv_heads, d);
    piece.of_rows = (spec.n_heads + 2 * spec.n_kv_heads) * d;
  }
  if (spec.attention_gate && (is_q || id.role == Role::attn_gate)) {  // [head][q, gate][d]
    piece.module = here((*this)[Role::q]), piece.of_rows = 2 * spec.n_heads * d;
    for (uint32_t h = 0; h < spec.n_heads; ++h) append(piece.rows, (2 * h + (is_q ? 0 : 1)) * d, d);
  }
  if (rope_pairs && (is_q || is_k) && spec.rope->dim) {
    if (piece.rows.empty()) piece.rows = range(0, (is_q ? spec.n_heads : spec.n_kv_heads) * d);
    unpair(piece.rows, d, 0, spec.rope->dim);
  }
  if (rope_pairs && (id.role == Role::q_norm || id.role == Role::k_norm)) {
    const bool one = spec.qk_norm_span == static_cast<uint8_t>(kernels::Span::head);
    unpair(piece.rows = range(0, d * (one ? 1 : id.role == Role::q_norm ? spec.n_heads : spec.n_kv_heads)), d, 0, spec.rope->dim);
  }
  const bool is_gate = id.role == Role::gate, is_up = id.role == Role::up;
  if ((is_gate || is_up) && !gate_up.empty() && there(here(gate_up))) {
    const uint32_t n_ff = spec.n_ff_of_layer.empty() ? spec.n_ff : spec.n_ff_of_layer[id.layer];
    piece.module = here(gate_up);
    piece.rows = range(is_gate ? 0 : n_ff, n_ff), piece.of_rows = 2 * n_ff;
  }
  return piece;
}

}  // namespace gptq::convert
