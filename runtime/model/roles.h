// SPDX-License-Identifier: Apache-2.0
// Every weight that a model can have, once: its name in the file and its shape.
#pragma once
#include <cstdint>
#include <string_view>

namespace gptq::model {

struct ModelSpec;
struct LayerSpec;

// In the order in which the file has them. What is in a layer begins with attn_norm; experts have three of their own.
enum class Role : uint8_t {
  embed, positions, embed_proj, embed_norm, final_norm, head_proj, head,
  attn_norm, q, k, v, o, q_norm, k_norm, attn_gate, sinks,
  q_a, q_a_norm, kv_a, kv_a_norm, k_b, v_b,
  conv, z, a, b, decay, dt_bias, delta_norm, conv_in,
  attn_out_norm, mlp_norm, gate, up, down, act_params,
  router, router_bias, shared_gate, shared_up, shared_down, shared_switch,
  mlp_out_norm,
  expert_gate, expert_up, expert_down
};
constexpr uint32_t n_roles = static_cast<uint32_t>(Role::expert_down) + 1;
constexpr Role first_layer_role = Role::attn_norm, first_expert_role = Role::expert_gate;
constexpr uint32_t n_layer_roles = static_cast<uint32_t>(first_expert_role) - static_cast<uint32_t>(first_layer_role);
// The number of a weight among those of all layers, experts' left out.
constexpr uint32_t slot_number(uint32_t layer, Role role) {
  return layer * n_layer_roles + static_cast<uint32_t>(role) - static_cast<uint32_t>(first_layer_role);
}

struct WeightSize {
  uint32_t n, k;  // n = 0: this model, or this layer, has none; vectors have k = 1
};

struct RoleInfo {
  enum class Form : uint8_t {
    matrix,   // without a bias
    linear,   // bias optional
    vector,   // float32
    norm      // float32, bias optional
  };
  Role role;
  std::string_view name;  // "q": layers.N.q; of an expert layers.N.experts.E.gate
  Form form;
  bool quantizable;       // the quantizer may round it
  WeightSize (*size)(const ModelSpec& spec, const LayerSpec& layer);

  bool is_vector() const { return form == Form::vector || form == Form::norm; }
};

const RoleInfo& info_of(Role role);

}  // namespace gptq::model
