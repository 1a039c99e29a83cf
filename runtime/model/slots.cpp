// SPDX-License-Identifier: Apache-2.0
// The weights a spec implies, by the table of roles.
#include <charconv>

#include "base/checked.h"
#include "model/spec.h"

namespace gptq::model {
namespace {

void append(std::pmr::string& text, uint32_t number) {
  char digits[12];
  text.append(digits, std::to_chars(digits, digits + sizeof digits, number).ptr).append(".");
}

bool may_have_bias(const RoleInfo& info, const ModelSpec& spec) {
  if (info.form == RoleInfo::Form::norm) return spec.norm == NormKind::layer || spec.qk_norm_kind == NormKind::layer;
  return info.form == RoleInfo::Form::linear;
}

void add(const ModelSpec& spec, const LayerSpec& layer, SlotId id, std::pmr::vector<Slot>& slots) {
  const RoleInfo& info = info_of(id.role);
  const WeightSize size = info.size(spec, layer);
  if (size.n == 0) return;
  std::pmr::memory_resource* memory = slots.get_allocator().resource();
  slots.push_back({id, name_of(id, memory), size.n, size.k, info.is_vector(), true});
  if (!may_have_bias(info, spec)) return;
  id.bias = true;
  slots.push_back({id, name_of(id, memory), size.n, 1, true, false});
}

void add_layer(const ModelSpec& spec, uint32_t index, std::pmr::vector<Slot>& slots) {
  const LayerSpec& layer = spec.layers[index];
  for (uint32_t i = static_cast<uint32_t>(first_layer_role); i < static_cast<uint32_t>(first_expert_role); ++i)
    add(spec, layer, {.role = static_cast<Role>(i), .layer = index}, slots);
  for (uint32_t expert = 0; layer.experts && expert < spec.experts.n; ++expert)
    for (const Role role : {Role::expert_gate, Role::expert_up, Role::expert_down})
      add(spec, layer, {.role = role, .layer = index, .expert = expert}, slots);
}

}  // namespace

std::pmr::string name_of(const SlotId& id, std::pmr::memory_resource* memory) {
  std::pmr::string name(memory);
  if (id.layer != no_index) append(name.append("layers."), id.layer);
  if (id.expert != no_index) append(name.append("experts."), id.expert);
  name.append(info_of(id.role).name);
  if (id.bias) name.append(".bias");
  return name;
}

std::pmr::vector<Slot> outer_slots(const ModelSpec& spec, std::pmr::memory_resource* memory) {
  std::pmr::vector<Slot> slots(memory);
  for (uint32_t i = 0; i < static_cast<uint32_t>(first_layer_role); ++i)
    add(spec, LayerSpec(), {.role = static_cast<Role>(i)}, slots);
  return slots;
}

std::pmr::vector<Slot> weight_slots(const ModelSpec& spec, std::pmr::memory_resource* memory) {
  std::pmr::vector<Slot> slots = outer_slots(spec, memory);
  for (uint32_t i = 0; i < spec.n_layers; ++i) add_layer(spec, i, slots);
  return slots;
}

std::pmr::vector<Slot> layer_slots(const ModelSpec& spec, uint32_t layer, std::pmr::memory_resource* memory) {
  std::pmr::vector<Slot> slots(memory);
  add_layer(spec, layer, slots);
  return slots;
}

}  // namespace gptq::model
