// SPDX-License-Identifier: Apache-2.0
// Where a checkpoint has each weight: the module's name, which of its rows, and what is folded away on the way in.
#pragma once
#include <array>
#include <functional>
#include <string>
#include <vector>

#include "converter/source.h"

namespace gptq::convert {

// Rows of q, k and v in a fused projection: one after another; by KV head [q heads of it, k, v]; or in four parts [q, v, k].
enum class Fused : uint8_t { concat, grouped, codegen };

// A slot's place. Row i of the slot is row rows[i] of the module.
struct Piece {
  std::string module;           // "model.layers.3.self_attn.qkv_proj"; a tensor's whole name where `raw`
  std::vector<uint32_t> rows;   // empty: all, in order
  uint32_t of_rows = 0;         // how many the module has, where that is more than the slot's; 0: as many
  bool raw = false;
  bool transposed = false;      // unquantized weights are [in][out]
  int32_t slice = -1;           // of a tensor of three dimensions
  std::string slice_bias;       // and the tensor that has its biases
};

struct Layout {
  Layout();
  std::string layer = "model.layers.{}.";   // with a dot behind; {}: the index
  std::array<std::string, model::n_roles> names;  // of layers' modules behind that; "": there is none
  std::string qkv, gate_up;                 // fused modules
  Fused order = Fused::concat;
  std::string expert = "mlp.experts.{}.", expert_gate_up;
  std::string delta_qkv, delta_qkvz, delta_ba;
  std::string experts_3d_gate_up, experts_3d_down;  // tensors of all experts: [n][rows][in], or transposed
  bool interleaved_gate_up = false, transposed_3d = false;
  bool rope_pairs = false;                  // pairs (2j, 2j + 1) become (j, j + dim/2)
  bool plus_one = false;                    // norms hold weight - 1
  bool transposed = false, unit_head = false, ones_norms = false;
  bool drop_prefix = false;                 // names begin behind the first part of `layer`: the body of a model alone
  std::string& operator[](model::Role role) { return names[static_cast<size_t>(role)]; }
  const std::string& operator[](model::Role role) const { return names[static_cast<size_t>(role)]; }

  std::string prefix() const { return layer.substr(0, layer.find('.') + 1); }  // "model."

  // has: whether the checkpoint has such a module or tensor; NULL: the first form is taken.
  using Has = std::function<bool(const std::string&)>;
  Piece locate(const format::fb::SpecT& spec, const model::SlotId& id, const Has& has) const;

 private:
  std::string full(const std::string& name, uint32_t layer) const;
};

}  // namespace gptq::convert
