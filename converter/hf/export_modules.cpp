// SPDX-License-Identifier: Apache-2.0
#include "converter/hf/export_modules.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/checked.h"
#include "converter/floats.h"
#include "converter/hf/export_parts.h"

namespace gptq::convert {
namespace {

using base::fail;
using kernels::Kind;
using model::Role;
namespace fb = format::fb;

Kind kind_of(const fb::Tensor& tensor) { return static_cast<Kind>(tensor.kind()); }
size_t size_of(Dtype dtype) { return dtype == Dtype::f32 ? 4 : 2; }
bool is_norm(const model::Slot& slot) {
  return !slot.id.bias && model::info_of(slot.id.role).form == model::RoleInfo::Form::norm;
}

DenseWeight of_floats(const std::vector<float>& values) {
  const auto bytes = std::as_bytes(std::span(values));
  return {Kind::f32, {bytes.begin(), bytes.end()}};
}

std::vector<float> floats_of(const DenseWeight& weight) { return to_floats(dtype_of(weight.kind), weight.bytes); }

// What the importer raises e to, so that the same value comes back: in 16 bits where they say it.
float logarithm(float value) {
  const auto exact = static_cast<float>(std::log(static_cast<double>(value)));
  const auto top = static_cast<uint16_t>(kernels::bits_from_float(exact) >> 16);
  std::vector<float> candidates{kernels::float_from_half(kernels::half_from_float(exact)),
                                kernels::float_from_bf16(top), kernels::float_from_bf16(static_cast<uint16_t>(top + 1)),
                                exact};
  for (float up = exact, down = exact; candidates.size() < 20;) {
    candidates.push_back(up = std::nextafter(up, INFINITY));
    candidates.push_back(down = std::nextafter(down, -INFINITY));
  }
  const auto found = std::find_if(candidates.begin(), candidates.end(), [&](float x) { return std::exp(x) == value; });
  return found == candidates.end() ? exact : *found;
}

// Where element j of row i of a part goes in the whole.
size_t place_in(const ExportItem& item, const Piece& piece, size_t i, size_t j) {
  const size_t slice = piece.slice < 0 ? 0 : static_cast<size_t>(piece.slice),
               row = piece.rows.empty() ? i : piece.rows[i];
  return slice * item.n * item.k + (piece.transposed ? j * item.n + row : row * item.k + j);
}

}  // namespace

ExportItem& ExportItems::item_of(const std::string& name) {
  const auto [place, is_new] = places_.try_emplace(name, items_.size());
  if (is_new) items_.emplace_back().name = name;
  return items_[place->second];
}

void ExportItems::add_dense(std::string name, DenseWeight weight, std::vector<uint64_t> shape) {
  ExportItem& item = item_of(name);
  item.dense = std::move(weight);
  item.shape = std::move(shape);
}

void ExportItems::add(const model::Slot& slot, const fb::Tensor& tensor) {
  const ExportPart part{&slot, &tensor, published_.locate(slot.id)};
  const bool apart = part.piece.module.find("{}") != std::string::npos || slot.id.role == Role::act_params;
  if (!slot.is_vector) return add_matrix(part);
  if (!slot.id.bias || apart) return add_vector(part);
  const std::string module = part.piece.module;
  const std::string name = part.piece.slice < 0 ? module + ".bias" : part.piece.slice_bias;
  weights_of_[name] = module;
  item_of(name).parts.push_back(part);
}

void ExportItems::add_matrix(const ExportPart& part) {
  const Piece& piece = part.piece;
  const bool has_codes = kernels::is_quantized(kind_of(*part.tensor)) && part.slot->id.role != Role::embed;
  const bool fits = fits_gptq(piece.of_rows ? piece.of_rows : part.slot->n, part.slot->k), quantized = has_codes && fits;
  ExportItem& item = item_of(quantized || piece.raw ? piece.module : piece.module + ".weight");
  item.quantized = quantized;
  item.undone = has_codes && !fits;
  item.is_head = part.slot->id.role == Role::head;
  item.quantizable |= part.slot->quantizable() || item.is_head;
  item.k = part.slot->k;
  item.parts.push_back(part);
}

// GPTQModel, and transformers with it, have 32 rows and 32 inputs in whole words.
bool ExportItems::fits_gptq(uint32_t n, uint32_t k) { return n % 32 == 0 && k % 32 == 0; }

// Values as the checkpoint has them, in the file's order.
std::vector<float> ExportItems::published_values(const ExportPart& part) const {
  std::vector<float> values = floats_of(std::get<DenseWeight>(unpack(reader_, *part.tensor, *part.slot, pool_)));
  if (is_norm(*part.slot) && published_.layout.plus_one)
    for (float& value : values) value -= 1;
  if (part.slot->id.role == Role::decay) std::transform(values.begin(), values.end(), values.begin(), logarithm);
  return values;
}

std::vector<uint64_t> ExportItems::vector_shape(const ExportPart& part) const {
  const fb::SpecT& spec = published_.spec;
  const Role role = part.slot->id.role;
  const uint64_t n = part.slot->n;
  if (role == Role::conv) {
    const uint64_t kernel = spec.conv_kernel ? spec.conv_kernel : spec.delta->kernel;
    return {n / kernel, 1, kernel};
  }
  if ((role == Role::q_norm || role == Role::k_norm) &&
      spec.qk_norm_span == static_cast<uint8_t>(kernels::Span::each_head))
    return {n / spec.head_dim, spec.head_dim};
  if (part.piece.module.ends_with("moe_statics.e_score_correction_bias")) return {1, n};
  return {n};
}

void ExportItems::add_vector(const ExportPart& part) {
  std::vector<float> values = published_values(part);
  const Piece& piece = part.piece;
  if (part.slot->id.role == Role::act_params || piece.module.find("{}") != std::string::npos)
    return add_pieces(part, values);
  if (published_.layout.ones_norms && is_norm(*part.slot)) {
    if (std::all_of(values.begin(), values.end(), [](float value) { return value == 1; })) return;
    fail(GPTQ_E_UNSUPPORTED, "'", std::string_view(part.slot->name),
         "' has weights, which norms of this family have not");
  }
  if (!piece.rows.empty()) {
    const std::vector<float> in_order = values;
    for (size_t i = 0; i < values.size(); ++i) values[piece.rows[i]] = in_order[i];
  }
  add_dense(piece.raw ? piece.module : piece.module + ".weight", narrow(of_floats(values), dtype_), vector_shape(part));
}

// Vectors that checkpoints have in several tensors: one a head, or one a parameter.
void ExportItems::add_pieces(const ExportPart& part, const std::vector<float>& values) {
  if (part.slot->id.role == Role::act_params) {
    const char* names[] = {"alpha_p", "alpha_n", "beta", "eps"};
    for (size_t i = 0; i < values.size(); ++i)
      add_dense(part.piece.module + names[i], narrow(of_floats({values[i]}), dtype_),
                i < 2 ? std::vector<uint64_t>{1} : std::vector<uint64_t>{});
    return;
  }
  const size_t d = published_.spec.head_dim;
  for (size_t head = 0; head * d < values.size(); ++head) {
    std::string name = part.piece.module;
    name.replace(name.find("{}"), 2, std::to_string(head));
    const auto first = values.begin() + static_cast<std::ptrdiff_t>(head * d);
    add_dense(name + (part.slot->id.bias ? ".bias" : ".weight"),
              narrow(of_floats({first, first + static_cast<std::ptrdiff_t>(d)}), dtype_), {d});
  }
}

void ExportItems::finish() {
  for (ExportItem& item : items_)
    if (!item.dense && !weights_of_.contains(item.name)) finish_weights(item);
  for (const auto& [bias, module] : weights_of_) finish_bias(item_of(bias), module);
}

void ExportItems::finish_weights(ExportItem& item) const {
  if (item.quantized && places_.contains(item.name + ".weight"))
    fail(GPTQ_E_UNSUPPORTED, "'", item.name, "' is one module, of which a part is quantized and another is not");
  for (const ExportPart& part : item.parts) {
    if (part.piece.slice <= 0) item.n += part.slot->n;
    item.slices = std::max(item.slices, static_cast<uint32_t>(part.piece.slice + 1));
  }
  std::vector<bool> seen(base::to_size(base::mul(item.slices, item.n)));
  for (const ExportPart& part : item.parts)
    for (size_t i = 0; i < part.slot->n; ++i) {
      const size_t row = part.piece.rows.empty() ? i : part.piece.rows[i];
      const size_t at = static_cast<size_t>(std::max(part.piece.slice, 0)) * item.n + row;
      if (row >= item.n || seen[at])
        fail(GPTQ_E_UNSUPPORTED, "'", item.name, "' cannot be put together from this model's weights");
      seen[at] = true;
    }
  const bool transposed = item.parts[0].piece.transposed && !item.quantized;
  item.shape = transposed ? std::vector<uint64_t>{item.k, item.n} : std::vector<uint64_t>{item.n, item.k};
  if (item.parts[0].piece.slice >= 0) item.shape.insert(item.shape.begin(), item.slices);
}

// As long as the module has rows; what no part of it has stays 0.
void ExportItems::finish_bias(ExportItem& item, const std::string& module) const {
  const auto place = places_.find(places_.contains(module) ? module : module + ".weight");
  const bool of_matrix = place != places_.end() && !items_[place->second].dense;  // norms' are never fused
  item.n = of_matrix ? items_[place->second].n : item.parts[0].slot->n;
  item.slices = of_matrix ? items_[place->second].slices : 1;
  item.shape = {item.n};
  if (item.parts[0].piece.slice >= 0) item.shape.insert(item.shape.begin(), item.slices);
  item.dense = narrow(assemble(item), dtype_);
}

Dtype ExportItems::dtype_of_item(const ExportItem& item) const {
  if (item.dense) return dtype_of(item.dense->kind);
  const auto dtype = [](const ExportPart& part) { return kernels::is_quantized(kind_of(*part.tensor)) ? Dtype::f16 : dtype_of(kind_of(*part.tensor)); };
  const Dtype first = dtype(item.parts[0]);
  return std::all_of(item.parts.begin(), item.parts.end(), [&](const ExportPart& part) { return dtype(part) == first; }) ? first : Dtype::f32;
}

DenseWeight ExportItems::assemble(const ExportItem& item) const {
  const Dtype dtype = weights_of_.contains(item.name) ? Dtype::f32 : dtype_of_item(item);
  const size_t size = size_of(dtype);
  DenseWeight whole{dtype == Dtype::f16 ? Kind::f16 : dtype == Dtype::bf16 ? Kind::bf16 : Kind::f32, {}};
  for (const ExportPart& part : item.parts) {
    Weight unpacked = unpack(reader_, *part.tensor, *part.slot, pool_);
    const auto* codes = std::get_if<QuantizedWeight>(&unpacked);
    DenseWeight weight = codes ? round_to_half(item.name, dequantize(*codes, part.slot->n, part.slot->k)) : std::get<DenseWeight>(std::move(unpacked));
    if (dtype_of(weight.kind) != dtype) weight = of_floats(floats_of(weight));
    const Piece& piece = part.piece;
    if (item.parts.size() == 1 && piece.rows.empty() && !piece.transposed && piece.slice < 0 && item.n == part.slot->n)
      return weight;
    whole.bytes.resize(base::to_size(base::mul(base::mul(item.slices, item.n), item.k * size)));
    for (size_t i = 0; i < part.slot->n; ++i)
      if (!piece.transposed)
        std::memcpy(&whole.bytes[place_in(item, piece, i, 0) * size], &weight.bytes[i * item.k * size], item.k * size);
      else
        for (size_t j = 0; j < item.k; ++j)
          std::memcpy(&whole.bytes[place_in(item, piece, i, j) * size], &weight.bytes[(i * item.k + j) * size], size);
  }
  return whole;
}

// Parts of one module have one order of inputs and one width, as they had when they were split.
QuantizedWeight ExportItems::join(const ExportItem& item) const {
  QuantizedWeight whole;
  for (const ExportPart& part : item.parts) {
    QuantizedWeight w = std::get<QuantizedWeight>(unpack(reader_, *part.tensor, *part.slot, pool_));
    if (item.parts.size() == 1 && part.piece.rows.empty()) return w;
    if (whole.codes.empty()) {
      whole.bits = w.bits, whole.group_size = w.group_size, whole.n_groups = w.n_groups, whole.g_idx = w.g_idx;
      whole.codes.resize(base::to_size(base::mul(item.n, item.k)));
      whole.scales.resize(base::to_size(base::mul(item.n, w.n_groups)));
    }
    if (w.bits != whole.bits || w.group_size != whole.group_size || w.g_idx != whole.g_idx)
      fail(GPTQ_E_UNSUPPORTED, "'", item.name, "' is one module, whose parts are quantized differently in this file");
    if (!w.zeros.empty() && whole.zeros.empty())
      whole.zeros.resize(whole.scales.size(), static_cast<uint8_t>(1u << (w.bits - 1)));
    for (size_t i = 0; i < part.slot->n; ++i) {
      const size_t row = part.piece.rows.empty() ? i : part.piece.rows[i];
      std::copy_n(&w.codes[i * item.k], item.k, &whole.codes[row * item.k]);
      std::copy_n(&w.scales[i * w.n_groups], w.n_groups, &whole.scales[row * w.n_groups]);
      if (!w.zeros.empty()) std::copy_n(&w.zeros[i * w.n_groups], w.n_groups, &whole.zeros[row * w.n_groups]);
    }
  }
  return whole;
}

}  // namespace gptq::convert
