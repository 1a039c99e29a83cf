// SPDX-License-Identifier: Apache-2.0
// A GGUF file as a ModelSource: slots by their names there, blocks decoded to float16, rotary rows put in the runtime's order.
#include "converter/gguf/gguf_source.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/checked.h"
#include "converter/gguf/gguf_description.h"
#include "kernels/half.h"

namespace gptq::convert {
namespace {

using base::fail;
using kernels::Kind;

struct Name {
  std::string_view slot, gguf;
};
constexpr Name model_names[] = {{"embed", "token_embd"}, {"final_norm", "output_norm"}, {"head", "output"}};
constexpr Name layer_names[] = {
    {"attn_norm", "attn_norm"}, {"mlp_norm", "ffn_norm"}, {"q", "attn_q"}, {"k", "attn_k"}, {"v", "attn_v"}, {"o", "attn_output"},
    {"q_norm", "attn_q_norm"}, {"k_norm", "attn_k_norm"}, {"gate", "ffn_gate"}, {"up", "ffn_up"}, {"down", "ffn_down"},
};

std::string_view translate(std::string_view slot, std::span<const Name> table) {
  for (const Name& name : table)
    if (name.slot == slot) return name.gguf;
  fail(GPTQ_E_INTERNAL, "no name for the slot '", slot, "'");
}

// "layers.3.q.bias" -> "blk.3.attn_q.bias"
std::string tensor_of(std::string_view slot) {
  const bool bias = slot.ends_with(".bias");
  const std::string suffix = bias ? ".bias" : ".weight";
  if (bias) slot.remove_suffix(5);
  if (!slot.starts_with("layers.")) return std::string(translate(slot, model_names)) + suffix;
  const size_t dot = slot.find('.', 7);
  return "blk" + std::string(slot.substr(6, dot - 6)) + "." + std::string(translate(slot.substr(dot + 1), layer_names)) + suffix;
}

Kind kind_of(const GgufType& type) { return type.name == "F32" ? Kind::f32 : type.name == "BF16" ? Kind::bf16 : Kind::f16; }

// float16 holds all that blocks can say but a few huge values; a tensor with one of them stays float32.
bool decode_to_half(const GgufType& type, std::span<const std::byte> blocks, std::span<std::byte> out) {
  std::vector<float> values(type.block);
  std::vector<uint16_t> halves(type.block);
  bool fits = true;
  for (size_t at = 0, to = 0; at < blocks.size(); at += type.block_bytes, to += 2 * type.block) {
    type.decode(reinterpret_cast<const uint8_t*>(blocks.data() + at), values.data());
    for (size_t i = 0; i < values.size(); ++i) {
      halves[i] = kernels::half_from_float(values[i]);
      fits &= (halves[i] & 0x7C00) != 0x7C00 || !std::isfinite(values[i]);
    }
    std::memcpy(out.data() + to, halves.data(), 2 * halves.size());
  }
  return fits;
}

void decode_to_float(const GgufType& type, std::span<const std::byte> blocks, std::span<std::byte> out) {
  std::vector<float> values(type.block);
  for (size_t at = 0, to = 0; at < blocks.size(); at += type.block_bytes, to += 4 * type.block) {
    type.decode(reinterpret_cast<const uint8_t*>(blocks.data() + at), values.data());
    std::memcpy(out.data() + to, values.data(), 4 * values.size());
  }
}

// Rows of every head from interleaved rotary pairs (2j, 2j + 1) to halves (j, j + dim/2).
std::vector<std::byte> in_halves(std::span<const std::byte> rows, size_t n_rows, size_t head_dim) {
  const size_t row_bytes = rows.size() / n_rows, half = head_dim / 2;
  std::vector<std::byte> out(rows.size());
  for (size_t row = 0; row < n_rows; ++row) {
    const size_t head = row / head_dim * head_dim, place = row % head_dim;
    const size_t from = head + 2 * (place % half) + place / half;
    std::copy_n(rows.begin() + static_cast<ptrdiff_t>(from * row_bytes), row_bytes, out.begin() + static_cast<ptrdiff_t>(row * row_bytes));
  }
  return out;
}

bool is_rotated(std::string_view slot) {
  for (std::string_view suffix : {".q", ".k", ".q.bias", ".k.bias"})
    if (slot.ends_with(suffix)) return true;
  return false;
}

class GgufSource final : public ModelSource {
 public:
  GgufSource(std::unique_ptr<const base::Source> bytes, std::string_view name, const Options& options)
      : options_(options), bytes_(std::move(bytes)), file_(*bytes_, name), architecture_(find_gguf_architecture(file_)) {
    description_.spec = read_gguf_spec(file_, architecture_, options_);
    EndTokens ends(description_.spec.n_vocab);
    description_.generation = read_gguf_generation(file_, description_.spec.n_vocab, options_, ends);
    description_.meta = read_gguf_meta(file_, architecture_);
    description_.tokenizer = read_gguf_tokenizer(file_);
    if (!description_.tokenizer) options_.warn("the file has no tokenizer; the model will know token ids only");
    else ends.add(*description_.tokenizer);
    description_.generation.end_tokens = ends.ids();
    if (!ends.reasons().empty()) description_.meta.emplace_back("end_tokens", ends.reasons());
    warn_of_unknown_tensors();
  }

  const ModelDescription& description() const override { return description_; }

  Weight load(const model::Slot& slot) override {
    const std::string name = tensor_of(slot.name);
    const GgufTensor* tensor = file_.find(name);
    if (!tensor) return {};
    check_shape(name, *tensor, slot);
    DenseWeight weight = decode(name, *tensor);
    const size_t head_dim = description_.spec.head_dim;
    if (architecture_.permuted && is_rotated(slot.name)) {
      if (head_dim % 2 != 0 || slot.n % head_dim != 0)
        fail(GPTQ_E_FORMAT, "GGUF: tensor '", name, "' has ", slot.n, " rows for heads of ", head_dim);
      weight.bytes = in_halves(weight.bytes, slot.n, head_dim);
    }
    return weight;
  }

 private:
  void check_shape(const std::string& name, const GgufTensor& tensor, const model::Slot& slot) const {
    const uint64_t k = slot.is_vector ? slot.n : slot.k, n = slot.is_vector ? 1 : slot.n;
    uint64_t rows = 1;
    for (size_t i = 1; i < tensor.dims.size(); ++i) rows = base::mul(rows, tensor.dims[i]);
    if (tensor.dims[0] != k || rows != n)
      fail(GPTQ_E_FORMAT, "GGUF: tensor '", name, "' has ", rows, " rows of ", tensor.dims[0], " where the metadata wants ", n, " of ", k);
  }

  DenseWeight decode(const std::string& name, const GgufTensor& tensor) const {
    std::vector<std::byte> bytes = file_.read(tensor);
    const GgufType& type = *tensor.type;
    if (!type.decode) return {kind_of(type), std::move(bytes)};
    const size_t count = bytes.size() / type.block_bytes * type.block;
    DenseWeight out{Kind::f16, std::vector<std::byte>(2 * count)};
    if (decode_to_half(type, bytes, out.bytes)) return out;
    options_.warn("tensor '" + name + "' has values beyond float16 and is kept as float32");
    out = {Kind::f32, std::vector<std::byte>(4 * count)};
    decode_to_float(type, bytes, out.bytes);
    return out;
  }

  bool is_known(std::string_view name) const {
    if (name == "rope_freqs.weight") return true;
    const size_t suffix = name.rfind('.');
    if (suffix == name.npos) return false;
    std::string_view stem = name.substr(0, suffix);
    const auto in = [&](std::span<const Name> table) {
      return std::any_of(table.begin(), table.end(), [&](const Name& n) { return n.gguf == stem; });
    };
    if (!stem.starts_with("blk.")) return in(model_names);
    const size_t dot = stem.find('.', 4);
    stem = dot == stem.npos ? std::string_view() : stem.substr(dot + 1);
    return in(layer_names);
  }

  void warn_of_unknown_tensors() const {
    size_t count = 0;
    std::string_view first;
    for (const auto& [name, tensor] : file_.tensors())
      if (!is_known(name) && count++ == 0) first = name;
    if (count == 0) return;
    options_.warn("GGUF: tensors that are not part of this kind of model are left out: " + std::string(first) +
                  (count > 1 ? " and " + std::to_string(count - 1) + " more" : ""));
  }

  Options options_;
  std::unique_ptr<const base::Source> bytes_;
  GgufFile file_;
  const GgufArchitecture& architecture_;
  ModelDescription description_;
};

}  // namespace

std::unique_ptr<ModelSource> open_gguf(std::unique_ptr<const base::Source> bytes, std::string_view name, const Options& options) {
  return std::make_unique<GgufSource>(std::move(bytes), name, options);
}

std::unique_ptr<ModelSource> open_gguf(std::string_view path, const Options& options) {
  return open_gguf(std::make_unique<base::FileSource>(path), path.substr(path.rfind('/') + 1), options);
}

}  // namespace gptq::convert
