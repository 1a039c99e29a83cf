// SPDX-License-Identifier: Apache-2.0
// What a model is, as checked numbers, and which weights that implies. The runtime never sees a family's name.
#pragma once
#include <memory_resource>
#include <string>
#include <string_view>
#include <vector>

#include "format/container.h"
#include "kernels/kernels.h"
#include "model/roles.h"

namespace gptq::model {

struct Rope {
  explicit Rope(std::pmr::memory_resource* memory) : inv_freq(memory), long_inv_freq(memory) {}
  uint32_t dim = 0;
  std::pmr::vector<float> inv_freq;       // [dim/2]
  std::pmr::vector<float> long_inv_freq;  // [dim/2] or empty: for sequences of more than n_ctx_original tokens
  float scale = 1, theta = 0, dynamic_factor = 0;
  uint32_t n_ctx_original = 0;
};

enum class Mixer : uint8_t { attention, latent, delta, short_conv };
using kernels::Activation, kernels::NormKind, kernels::Span;
enum class Residual : uint8_t {
  sequential,      // x += attention(norm(x)), then x += mlp(norm(x))
  parallel,        // x += attention(norm(x)) + mlp(norm(x))
  norm_after_add,  // x = norm(x + attention(x)), then x = norm(x + mlp(x))
  from_norm        // x = norm(x), x += attention(x), then the same with the MLP
};
enum class Score : uint8_t { softmax, sigmoid, softmax_of_chosen, sparsemixer };
enum class GroupScore : uint8_t { largest, two_largest };
enum class Norms : uint8_t { attn = 1, attn_out = 2, mlp = 4, mlp_out = 8, embed = 16, final = 32 };

struct Latent {
  uint32_t q_rank = 0, kv_rank = 0, d_nope = 0, d_rope = 0, d_v = 0;
  uint32_t d_k() const { return d_nope + d_rope; }
  uint32_t width() const { return kv_rank + d_rope; }  // of what is kept a token
};

struct Delta {
  uint32_t n_k = 0, n_v = 0, d_k = 0, d_v = 0, kernel = 0;
  uint32_t channels() const { return 2 * n_k * d_k + n_v * d_v; }  // of the convolution
};

struct Experts {
  uint32_t n = 0, n_active = 0, n_ff = 0, n_ff_shared = 0, groups = 1, groups_kept = 1;
  Score score = Score::softmax;
  GroupScore group_score = GroupScore::largest;
  bool normalize = false, weigh_input = false, choice_bias = false, shared_gated = false;
  float epsilon = 0, least_sum = 0, scale = 1, jitter = 0;
};

// q *= 1 + factor * ln(1 + floor((position + offset) / floor)); factor 0 = no such thing.
struct QueryScale {
  float floor = 1, factor = 0, offset = 0;
};

// What differs from layer to layer.
struct LayerSpec {
  Mixer mixer = Mixer::attention;
  bool experts = false;      // the MLP is a mixture
  bool query_scaled = false;
  int32_t rope = 0;          // of ModelSpec::ropes; -1 = none
  uint32_t n_ff = 0;         // of a dense MLP
  uint32_t window = 0;       // positions a query sees; 0 = all
  uint32_t chunk = 0;        // or those of its own chunk of so many positions
  float attention_scale = 0;
};

struct ModelSpec {
  explicit ModelSpec(std::pmr::memory_resource* memory) : ropes(memory), layers(memory), alibi_slopes(memory) {}
  bool has(Norms norm) const { return norms & static_cast<uint8_t>(norm); }
  bool any(Mixer mixer) const;

  uint32_t n_vocab = 0, n_layers = 0, n_embd = 0, n_ff = 0, n_heads = 0, n_kv_heads = 0, head_dim = 0, n_ctx_train = 0;
  uint32_t n_embed = 0;      // width of embedding and head, nearly always n_embd
  float norm_eps = 0;
  bool tied_head = false, qk_norm = false, qk_norm_after_rope = false, gated = true, sinks = false, attention_gate = false;
  NormKind norm = NormKind::rms, qk_norm_kind = NormKind::rms;
  Span qk_norm_span = Span::head;
  Activation activation = Activation::silu;
  Residual residual = Residual::sequential;
  uint8_t norms = 0;         // of Norms
  float embed_scale = 1, residual_scale = 1, logit_scale = 1, attention_softcap = 0, logit_softcap = 0, clip_qkv = 0;
  uint32_t n_positions = 0, position_offset = 0, conv_kernel = 0;
  QueryScale query_scale;
  Latent latent;
  Delta delta;
  Experts experts;
  std::pmr::vector<Rope> ropes;
  std::pmr::vector<LayerSpec> layers;
  std::pmr::vector<float> alibi_slopes;  // [n_heads] or empty
  const char* beyond_llama = nullptr;    // the first thing in it that the Llama line has not; NULL: there is none
};

constexpr uint32_t n_ctx_max = 1u << 24;

// Checks every field's range and the fields against each other; fails with FORMAT or UNSUPPORTED.
ModelSpec check_spec(const format::fb::Spec& spec, std::pmr::memory_resource* memory);
// The same of a model's file, which has to have as many tensors as layers and experts: lists are made of those before a tensor is missed.
ModelSpec check_spec(const format::fb::Manifest& manifest, std::pmr::memory_resource* memory);
// Layers, and the experts of all of them.
uint64_t count_parts(const ModelSpec& spec);
// The name in required_features of a model that is beyond the Llama line.
constexpr std::string_view layers_feature = "layers";
// The name in required_features of a file that changes a model (adapter.h) instead of being one.
constexpr std::string_view adapter_feature = "adapter";
bool is_adapter(const format::fb::Manifest& manifest);
enum class FileKind : uint8_t { model, adapter };
// Fails with UNSUPPORTED on a required feature this build does not know, with FORMAT where the file is of the other kind.
void check_features(const format::fb::Manifest& manifest, FileKind kind = FileKind::model);

constexpr uint32_t no_index = UINT32_MAX;

// Which weight of a model.
struct SlotId {
  Role role;
  bool bias = false;
  uint32_t layer = no_index, expert = no_index;
  uint64_t key() const { return uint64_t{layer & 0xFFFF} << 40 | uint64_t{expert & 0xFFFFFF} << 9 | uint64_t{bias} << 8 | static_cast<uint8_t>(role); }
};
// "embed", "layers.3.q", "layers.3.q.bias", "layers.3.experts.7.gate"
std::pmr::string name_of(const SlotId& id, std::pmr::memory_resource* memory);

// One weight the spec implies.
struct Slot {
  SlotId id;
  std::pmr::string name;
  uint32_t n, k;   // vectors (norms, biases): k = 1, kind f32
  bool is_vector;
  bool required;   // all but biases
  bool in_layer() const { return id.layer != no_index; }
  bool quantizable() const { return !is_vector && info_of(id.role).quantizable; }
};
std::pmr::vector<Slot> weight_slots(const ModelSpec& spec, std::pmr::memory_resource* memory);  // all: first those of no layer
std::pmr::vector<Slot> outer_slots(const ModelSpec& spec, std::pmr::memory_resource* memory);
std::pmr::vector<Slot> layer_slots(const ModelSpec& spec, uint32_t layer, std::pmr::memory_resource* memory);
// All in the same order, without a list that is longer than a layer.
template <class F>
void each_slot(const ModelSpec& spec, std::pmr::memory_resource* memory, F&& f) {
  for (const Slot& slot : outer_slots(spec, memory)) f(slot);
  for (uint32_t i = 0; i < spec.n_layers; ++i)
    for (const Slot& slot : layer_slots(spec, i, memory)) f(slot);
}
// The matrix that gives the logits: the embedding where it is tied.
inline Role head_role(const ModelSpec& spec) { return spec.tied_head ? Role::embed : Role::head; }

// The tensor's description as a kernel argument, without its data; fails with FORMAT where shape, kind, group, part sizes or roles do not
// fit the slot. Parts come in the order of their roles: codes, scales, zeros (where asymmetric), perm (where reordered). Floating kinds
// have k_padded = k, group = 0 and codes alone.
kernels::Matrix check_tensor(const format::fb::Tensor& tensor, const Slot& slot);
// What check_tensor cannot see, once the data is there: finite values and scales, perm within the inputs.
void check_values(const kernels::Matrix& w, std::string_view name);

}  // namespace gptq::model
