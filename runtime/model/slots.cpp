// SPDX-License-Identifier: Apache-2.0
// The weights a spec implies: one table.
#include <charconv>

#include "base/checked.h"
#include "model/spec.h"

namespace gptq::model {
namespace {

class SlotList {
 public:
  explicit SlotList(std::pmr::memory_resource* memory) : slots(memory), prefix_(memory) {}

  void layer(uint32_t index) {
    char digits[12];
    const auto end = std::to_chars(digits, digits + sizeof digits, index).ptr;
    prefix_.assign("layers.").append(digits, end).append(".");
  }
  void vector(std::string_view name, uint32_t n) { add(name, "", n, 1, true, true); }
  void linear(std::string_view name, uint32_t n, uint32_t k) {
    add(name, "", n, k, false, true);
    add(name, ".bias", n, 1, true, false);
  }
  void matrix(std::string_view name, uint32_t n, uint32_t k) { add(name, "", n, k, false, true); }

  std::pmr::vector<Slot> slots;

 private:
  void add(std::string_view name, std::string_view suffix, uint32_t n, uint32_t k, bool is_vector, bool required) {
    std::pmr::string full(prefix_, slots.get_allocator());
    full.append(name).append(suffix);
    slots.push_back({std::move(full), n, k, is_vector, required});
  }
  std::pmr::string prefix_;
};

void add_layer(const ModelSpec& spec, uint32_t index, SlotList& list) {
  const uint32_t q = spec.n_heads * spec.head_dim, kv = spec.n_kv_heads * spec.head_dim;
  list.layer(index);
  list.vector("attn_norm", spec.n_embd);
  list.linear("q", q, spec.n_embd);
  list.linear("k", kv, spec.n_embd);
  list.linear("v", kv, spec.n_embd);
  list.linear("o", spec.n_embd, q);
  if (spec.qk_norm) {
    list.vector("q_norm", spec.head_dim);
    list.vector("k_norm", spec.head_dim);
  }
  list.vector("mlp_norm", spec.n_embd);
  list.linear("gate", spec.n_ff, spec.n_embd);
  list.linear("up", spec.n_ff, spec.n_embd);
  list.linear("down", spec.n_embd, spec.n_ff);
}

}  // namespace

std::pmr::vector<Slot> weight_slots(const ModelSpec& spec, std::pmr::memory_resource* memory) {
  SlotList list(memory);
  list.matrix("embed", spec.n_vocab, spec.n_embd);
  list.vector("final_norm", spec.n_embd);
  if (!spec.tied_head) list.linear("head", spec.n_vocab, spec.n_embd);
  for (uint32_t i = 0; i < spec.n_layers; ++i) add_layer(spec, i, list);
  return std::move(list.slots);
}

std::pmr::vector<Slot> layer_slots(const ModelSpec& spec, uint32_t layer, std::pmr::memory_resource* memory) {
  SlotList list(memory);
  add_layer(spec, layer, list);
  return std::move(list.slots);
}

}  // namespace gptq::model
