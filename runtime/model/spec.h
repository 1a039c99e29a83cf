// SPDX-License-Identifier: Apache-2.0
// What a model is, as checked numbers, and which weights that implies. The runtime never sees a family's name.
#pragma once
#include <memory_resource>
#include <string>
#include <string_view>
#include <vector>

#include "format/container.h"
#include "kernels/kernels.h"

namespace gptq::model {

struct Rope {
  explicit Rope(std::pmr::memory_resource* memory) : inv_freq(memory) {}
  uint32_t dim = 0;
  std::pmr::vector<float> inv_freq;  // [dim/2]
  float scale = 1, theta = 0, dynamic_factor = 0;
  uint32_t n_ctx_original = 0;
};

struct ModelSpec {
  explicit ModelSpec(std::pmr::memory_resource* memory) : rope(memory), windows(memory) {}
  uint32_t n_vocab = 0, n_layers = 0, n_embd = 0, n_ff = 0, n_heads = 0, n_kv_heads = 0, head_dim = 0, n_ctx_train = 0;
  float norm_eps = 0, attention_scale = 0;
  bool tied_head = false, qk_norm = false;
  Rope rope;
  std::pmr::vector<uint32_t> windows;  // [n_layers]: positions a query sees; 0 = all
};

constexpr uint32_t n_ctx_max = 1u << 24;

// Checks every field's range and the fields against each other; fails with FORMAT or UNSUPPORTED.
ModelSpec check_spec(const format::fb::Spec& spec, std::pmr::memory_resource* memory);
// Fails with UNSUPPORTED on a required feature this build does not know.
void check_features(const format::fb::Manifest& manifest);

// One weight the spec implies. Names: "embed", "final_norm", "head", "layers.N.attn_norm|q|k|v|o|q_norm|k_norm|mlp_norm|gate|up|down",
// and "<name>.bias" for every linear.
struct Slot {
  std::pmr::string name;
  uint32_t n, k;   // vectors (norms, biases): k = 1, kind f32
  bool is_vector;
  bool required;
};
std::pmr::vector<Slot> weight_slots(const ModelSpec& spec, std::pmr::memory_resource* memory);
std::pmr::vector<Slot> layer_slots(const ModelSpec& spec, uint32_t layer, std::pmr::memory_resource* memory);

// The tensor's description as a kernel argument, without its data; fails with FORMAT where shape, kind, group, part sizes or roles do not
// fit the slot. Parts come in the order of their roles: codes, scales, zeros (where asymmetric), perm (where reordered). Floating kinds
// have k_padded = k, group = 0 and codes alone.
kernels::Matrix check_tensor(const format::fb::Tensor& tensor, const Slot& slot);
// What check_tensor cannot see, once the data is there: finite values and scales, perm within the inputs.
void check_values(const kernels::Matrix& w, std::string_view name);

}  // namespace gptq::model
