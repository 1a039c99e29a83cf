// SPDX-License-Identifier: Apache-2.0
// A GGUF file as a ModelSource: slots by their names there, blocks decoded to float16, rotary rows put in the runtime's order.
#include "converter/gguf/gguf_source.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <set>

#include "base/checked.h"
#include "converter/floats.h"
#include "converter/gguf/gguf_description.h"
#include "converter/gguf/gguf_families.h"
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
    {"attn_norm", "attn_norm"}, {"mlp_norm", "ffn_norm"},  {"q", "attn_q"},           {"k", "attn_k"},      {"v", "attn_v"},
    {"o", "attn_output"},       {"q_norm", "attn_q_norm"}, {"k_norm", "attn_k_norm"}, {"gate", "ffn_gate"}, {"up", "ffn_up"},
    {"down", "ffn_down"},
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
      : options_(options), bytes_(std::move(bytes)), file_(*bytes_, name), family_(find_gguf_family(file_)) {
    check_gguf_kind(file_);
    if (family_)
      model_ = read_gguf_family(file_, *family_), description_.spec = std::move(model_.spec);
    else
      architecture_ = &find_gguf_architecture(file_), description_.spec = read_gguf_spec(file_, *architecture_, options_);
    EndTokens ends(description_.spec.n_vocab);
    description_.generation = read_gguf_generation(file_, description_.spec.n_vocab, options_, ends);
    description_.meta = read_gguf_meta(file_, family_ ? family_->name : architecture_->name,
                                       family_ ? family_->hf_class : architecture_->hf_name, model_.config);
    description_.tokenizer = read_gguf_tokenizer(file_);
    if (!description_.tokenizer)
      options_.warn("the file has no tokenizer; the model will know token ids only");
    else
      ends.add(*description_.tokenizer);
    description_.generation.end_tokens = ends.ids();
    if (!ends.reasons().empty()) description_.meta.emplace_back("end_tokens", ends.reasons());
    warn_of_unknown_tensors();
  }

  const ModelDescription& description() const override { return description_; }

  Weight load(const model::Slot& slot) override {
    if (family_) return load_of_family(slot);
    const std::string name = tensor_of(slot.name);
    const GgufTensor* tensor = file_.find(name);
    if (!tensor) return {};
    check_shape(name, *tensor, slot);
    DenseWeight weight = decode(name, *tensor, file_.read(*tensor));
    const size_t head_dim = description_.spec.head_dim;
    if (architecture_->permuted && is_rotated(slot.name)) {
      if (head_dim % 2 != 0 || slot.n % head_dim != 0)
        fail(GPTQ_E_FORMAT, "GGUF: tensor '", name, "' has ", slot.n, " rows for heads of ", head_dim);
      weight.bytes = in_halves(weight.bytes, slot.n, head_dim);
    }
    return weight;
  }

 private:
  Weight load_of_family(const model::Slot& slot) const {
    using model::Role;
    const format::fb::SpecT& spec = description_.spec;
    if (slot.id.role == Role::act_params) return act_params(slot.id.layer);
    const GgufPlace place = find_gguf_place(file_, model_, spec, slot.id);
    const GgufTensor* tensor = file_.find(place.tensor);
    if (!tensor && slot.id.role == Role::head && !slot.id.bias) tensor = file_.find("token_embd.weight");  // tied, but with a bias of its own
    const bool norm = model::info_of(slot.id.role).form == model::RoleInfo::Form::norm;
    if (!tensor && norm && !slot.id.bias && model_.layout.ones_norms) return of_floats(std::vector<float>(slot.n, 1.0f));
    if (!tensor) return {};
    const uint64_t k = slot.is_vector ? 1 : slot.k;
    uint64_t count = 1;
    for (const uint64_t dim : tensor->dims) count = base::mul(count, dim);
    const uint64_t slices = place.slice < 0 ? 1 : tensor->dims.back(), width = place.turned ? slot.n / place.turned : k;
    const uint64_t n = count / slices / std::max<uint64_t>(1, k), wanted = place.of_rows ? place.of_rows : slot.n;
    const bool fits = (slot.is_vector || tensor->dims[0] == width) && count == n * k * slices && n == wanted &&
                      (place.slice < 0 || slices == spec.experts->n);
    if (!fits || (!place.rows.empty() && place.rows.size() != slot.n))
      fail(GPTQ_E_FORMAT, "GGUF: tensor '", place.tensor, "' has other sizes than the metadata want, ", wanted, " rows of ", k);
    const uint64_t bytes = tensor->bytes / slices;
    DenseWeight weight =
        decode(place.tensor, *tensor, file_.read(*tensor, place.slice < 0 ? 0 : static_cast<uint64_t>(place.slice) * bytes, bytes));
    if (!place.rows.empty()) weight.bytes = picked(weight.bytes, place.rows, n);
    if (place.turned) weight.bytes = turned(weight.bytes, place.turned, width, k);
    if (slot.id.role == Role::head && model_.layout.unit_head) return of_floats(unit_rows(floats_of(weight), slot.k));
    if (!place.negative) return weight;
    std::vector<float> values = floats_of(weight);
    for (float& value : values) value = -value;
    return of_floats(values);
  }

  static std::vector<std::byte> picked(std::span<const std::byte> bytes, const std::vector<uint32_t>& rows, size_t n) {
    const size_t size = bytes.size() / n;
    std::vector<std::byte> out(rows.size() * size);
    for (size_t i = 0; i < rows.size(); ++i) std::memcpy(out.data() + i * size, bytes.data() + rows[i] * size, size);
    return out;
  }

  // Of every head [k][rows] to [rows][k].
  static std::vector<std::byte> turned(std::span<const std::byte> bytes, size_t heads, size_t rows, size_t k) {
    const size_t size = bytes.size() / (heads * rows * k);
    std::vector<std::byte> out(bytes.size());
    for (size_t head = 0; head < heads; ++head)
      for (size_t row = 0; row < rows; ++row)
        for (size_t i = 0; i < k; ++i)
          std::memcpy(out.data() + ((head * rows + row) * k + i) * size, bytes.data() + ((head * k + i) * rows + row) * size, size);
    return out;
  }

  static std::vector<float> unit_rows(std::vector<float> values, size_t k) {
    for (size_t at = 0; at < values.size(); at += k) {
      double squares = 0;
      for (size_t i = 0; i < k; ++i) squares += double(values[at + i]) * values[at + i];
      const double length = std::max(std::sqrt(squares), 1e-12);
      for (size_t i = 0; i < k; ++i) values[at + i] = static_cast<float>(values[at + i] / length);
    }
    return values;
  }

  static DenseWeight of_floats(const std::vector<float>& values) {
    DenseWeight out{Kind::f32, std::vector<std::byte>(values.size() * sizeof(float))};
    std::memcpy(out.bytes.data(), values.data(), out.bytes.size());
    return out;
  }
  static std::vector<float> floats_of(const DenseWeight& weight) {
    return to_floats(weight.kind == Kind::f16 ? Dtype::f16 : weight.kind == Kind::bf16 ? Dtype::bf16 : Dtype::f32, weight.bytes);
  }

  // xIELU's numbers are metadata.
  Weight act_params(uint32_t layer) const {
    const GgufKeys keys(file_, "xielu");
    std::vector<float> out;
    for (const char* name : {"alpha_p", "alpha_n", "beta", "eps"}) {
      const auto at = file_.values().find(keys.full(name));
      if (at == file_.values().end()) file_.refuse(keys.full(name), "is missing");
      const auto* list = std::get_if<std::vector<float>>(&at->second);
      if (list && layer >= list->size()) file_.refuse(keys.full(name), "must have one entry per layer");
      out.push_back(list ? (*list)[layer] : static_cast<float>(file_.number(keys.full(name)).value_or(0)));
    }
    return of_floats(out);
  }

  void check_shape(const std::string& name, const GgufTensor& tensor, const model::Slot& slot) const {
    const uint64_t k = slot.is_vector ? slot.n : slot.k, n = slot.is_vector ? 1 : slot.n;
    uint64_t rows = 1;
    for (size_t i = 1; i < tensor.dims.size(); ++i) rows = base::mul(rows, tensor.dims[i]);
    if (tensor.dims[0] != k || rows != n)
      fail(GPTQ_E_FORMAT, "GGUF: tensor '", name, "' has ", rows, " rows of ", tensor.dims[0], " where the metadata wants ", n, " of ", k);
  }

  DenseWeight decode(const std::string& name, const GgufTensor& tensor, std::vector<std::byte> bytes) const {
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

  // Of a family: those that are the place of a slot.
  std::set<const GgufTensor*> tensors_used(const model::ModelSpec& spec) const {
    std::set<const GgufTensor*> used;
    for (const char* name : {"rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"}) used.insert(file_.find(name));
    model::each_slot(spec, std::pmr::get_default_resource(), [&](const model::Slot& slot) {
      used.insert(file_.find(find_gguf_place(file_, model_, description_.spec, slot.id).tensor));
    });
    return used;
  }

  // Layers behind the last one predict further tokens, and old files have the rotary factors in a layer.
  bool is_elsewhere(std::string_view name) const {
    return name.starts_with("blk.") && (std::strtoul(name.data() + 4, nullptr, 10) >= description_.spec.n_layers ||
                                        name.find(".rope_f") != name.npos || name.ends_with(".attn_rot_embd"));
  }

  void warn_of_unknown_tensors() const {
    const model::ModelSpec spec = checked_spec(description_.spec, bytes_->size());
    const std::set<const GgufTensor*> used = family_ ? tensors_used(spec) : std::set<const GgufTensor*>();
    size_t count = 0;
    std::string_view first;
    for (const auto& [name, tensor] : file_.tensors())
      if (!(family_ ? used.contains(&tensor) || is_elsewhere(name) : is_known(name)) && count++ == 0) first = name;
    if (count == 0) return;
    options_.warn("GGUF: tensors that are not part of this kind of model are left out: " + std::string(first) +
                  (count > 1 ? " and " + std::to_string(count - 1) + " more" : ""));
  }

  Options options_;
  std::unique_ptr<const base::Source> bytes_;
  GgufFile file_;
  const GgufFamily* family_;
  const GgufArchitecture* architecture_ = nullptr;  // of the Llama line, where it is no family
  GgufModel model_;
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
