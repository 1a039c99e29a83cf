// SPDX-License-Identifier: Apache-2.0
// A Hugging Face folder as a ModelSource: slots by their names in the checkpoint, quantized or not.
#include "converter/hf/hf_source.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <map>
#include <set>

#include "base/checked.h"
#include "converter/dialects/linear.h"
#include "converter/floats.h"
#include "converter/hf/config.h"
#include "converter/hf/metadata.h"
#include "converter/hf/pooling.h"
#include "converter/json_writer.h"
#include "converter/system.h"
#include "converter/tokenizer/import.h"

namespace gptq::convert {
namespace {

using base::fail;
constexpr uint64_t config_bytes_max = 16u << 20;

constexpr std::string_view act_params[] = {"alpha_p", "alpha_n", "beta", "eps"};

// Tensors that checkpoints carry and nobody needs.
bool is_harmless(std::string_view name) {
  for (std::string_view suffix : {".rotary_emb.inv_freq", ".self_attn.bias", ".self_attn.masked_bias", ".self_attn.attention_mask",
                                  ".qweight", ".qzeros", ".scales", ".g_idx"})
    if (name.ends_with(suffix)) return true;
  return false;
}

class HfSource final : public ModelSource {
 public:
  HfSource(const std::string& folder, const Options& options)
      : options_(options),
        config_file_(JsonDocument::read(folder + "/config.json", "config.json", config_bytes_max)),
        config_(config_file_.root()),
        quant_(read_quant_config(folder, config_, options)),
        model_(read_config(config_)),
        tensors_(folder, {.names = quant_ ? quant_->file_names : std::vector<std::string>(), .warn = options.warn, .done_with = options.done_with}) {
    options_.warn_of = [this](std::string_view module, std::string_view text) { note(module, text); };
    model_.layout.drop_prefix = is_body();
    if (quant_) warn_of_no_quantized(tensors_, folder, *quant_, options_);
    warn_of_rope(model_.family ? text_config(config_) : config_, options_);
    if (model_.family) settle_shapes();
    settle_head();
    check_custom_code();
    describe_model(folder);
    warn_of_unknown_tensors();
  }

  const ModelDescription& description() const override { return description_; }
  void finish_layer(uint32_t layer) override { tensors_.finish_layer(layer); }
  void finish() override {
    for (const auto& [key, note] : notes_)
      options_.warn(note.first + (note.count > 1 ? " (and so of " + std::to_string(note.count - 1) + " more)" : ""));
    notes_.clear();
  }

  Weight load(const model::Slot& slot) override {
    const Piece piece = model_.layout.locate(description_.spec, slot.id, has_);
    const bool copied = slot.id.role == model::Role::head && !slot.id.bias && !has(piece.module);
    if (slot.id.role == model::Role::embed || copied) return load_matrix({.module = embed_module_}, slot);
    if (slot.id.role == model::Role::act_params) return load_scalars(piece.module);
    if (slot.id.bias) return load_bias(piece, slot);
    return slot.is_vector ? load_vector(piece, slot) : load_matrix(piece, slot);
  }

 private:
  // Whether the names are those of a model's body saved alone: "layers.0." instead of "model.layers.0.".
  bool is_body() const {
    const auto names = tensors_.names();
    const std::string prefix = model_.layout.prefix(), layer = model_.layout.layer.substr(prefix.size(), model_.layout.layer.find("{}") - prefix.size());
    const auto any = [&](std::string_view start) { return std::any_of(names.begin(), names.end(), [&](std::string_view name) { return name.starts_with(start); }); };
    return !any(prefix) && any(layer);
  }
  // Models with eyes have their text part under a prefix.
  std::string full(const std::string& name) const {
    const auto there = [&](const std::string& module) { return tensors_.find(module) || tensors_.find(module + ".weight") || tensors_.find(module + ".qweight"); };
    if (!model_.family || there(name)) return name;
    for (const std::string prefix : {"language_model.", "model.language_model."}) {
      const bool inner = prefix.starts_with("model.") && name.starts_with("model.");
      if (const std::string other = prefix + (inner ? name.substr(6) : name); there(other)) return other;
    }
    return name;
  }
  bool has(const std::string& module) const {
    const std::string name = full(module);
    return tensors_.find(name + ".weight") || tensors_.find(name + ".qweight");
  }
  const TensorEntry* find(const std::string& tensor) const {
    for (const std::string_view suffix : {".weight", ".bias", ""})
      if (tensor.ends_with(suffix)) return tensors_.find(full(tensor.substr(0, tensor.size() - suffix.size())) + std::string(suffix));
    return nullptr;
  }

  // Rows of a module, by its own tensors; 0: it is not there.
  uint32_t outputs(const Piece& piece) const {
    const std::string name = full(piece.module);
    uint64_t n = 0;
    if (const TensorEntry* scales = tensors_.find(name + ".scales"); scales && scales->shape.size() == 2) n = scales->shape[1];
    else if (const TensorEntry* weight = tensors_.find(piece.raw ? name : name + ".weight"); weight && weight->shape.size() >= 2)
      n = weight->shape[weight->shape.size() - (piece.transposed ? 1 : 2)];
    return static_cast<uint32_t>(std::min<uint64_t>(n, UINT32_MAX));
  }

  // Widths that configs say wrongly or in too many ways (padded vocabularies, rounded MLPs) are those of the tensors.
  void settle_shapes() {
    using model::Role;
    format::fb::SpecT& spec = model_.spec;
    const auto of = [&](const model::SlotId& id) {
      const Piece piece = model_.layout.locate(spec, id, has_);
      const uint32_t n = outputs(piece);
      return piece.rows.empty() ? n : n / 2;  // gate and up in one
    };
    const auto take = [](uint32_t& field, uint32_t n) {
      if (n) field = n;
    };
    const auto mixes = [&](uint32_t layer) { return spec.experts && (spec.expert_layers.empty() || spec.expert_layers[layer]); };
    take(spec.n_vocab, of({.role = Role::embed}));
    if (spec.n_positions) take(spec.n_positions, of({.role = Role::positions}));
    for (uint32_t layer = spec.n_layers; layer-- > 0;) {
      if (!mixes(layer)) take(spec.n_ff, of({.role = Role::up, .layer = layer}));
      if (mixes(layer)) take(spec.experts->n_ff, of({.role = Role::expert_up, .layer = layer, .expert = 0}));
      if (mixes(layer) && spec.experts->n_ff_shared) spec.experts->n_ff_shared = of({.role = Role::shared_up, .layer = layer});
    }
  }

  // Tied or not, as the tensors have it: a head of its own counts only where it differs from the embedding.
  void settle_head() {
    bool tied = model_.spec.tied_head;
    const std::string embed_name = model_.layout.locate(model_.spec, {.role = model::Role::embed}, {}).module;
    const std::string head_name = model_.layout.locate(model_.spec, {.role = model::Role::head}, {}).module;
    const bool head = has(head_name), embed = has(embed_name);
    embed_module_ = !embed && head && tied ? head_name : embed_name;
    if (!tied && !head && embed && model_.layout.drop_prefix)
      fail(GPTQ_E_UNSUPPORTED, "the checkpoint is the body of a model alone, as '", class_of(config_), "' is: there is no '", head_name,
           "', and the config does not tie it to the embedding");
    if (!tied && !head && embed) {
      options_.warn("there is no lm_head and the config does not tie it; the embedding is used for it");
      tied = true;
    }
    if (tied && head && embed && !same_tensor(full(head_name) + ".weight", full(embed_name) + ".weight")) {
      options_.warn("the config ties lm_head to the embedding, but the checkpoint has another lm_head, which is used");
      tied = false;
    }
    // A head with a bias is a matrix of its own: the embedding has none.
    const TensorEntry* bias = find(head_name + ".bias");
    if (tied && bias && !is_zero(read_floats(*bias))) tied = false;
    if (model_.layout.unit_head && tied) fail(GPTQ_E_UNSUPPORTED, "the head's rows are normalized, which a tied embedding cannot have");
    model_.spec.tied_head = tied;
  }

  static bool is_zero(const std::vector<float>& values) {
    return std::all_of(values.begin(), values.end(), [](float value) { return value == 0; });
  }

  bool same_tensor(const std::string& a_name, const std::string& b_name) const {
    const TensorEntry *a = tensors_.find(a_name), *b = tensors_.find(b_name);
    if (!a || !b || a->dtype != b->dtype || a->shape != b->shape) return false;
    constexpr uint64_t piece = 4u << 20;
    std::vector<std::byte> x(base::to_size(std::min(piece, a->bytes))), y(x.size());
    for (uint64_t at = 0; at < a->bytes; at += piece) {
      const size_t size = base::to_size(std::min(piece, a->bytes - at));
      tensors_.read(*a, std::span(x).first(size), at);
      tensors_.read(*b, std::span(y).first(size), at);
      if (!std::equal(x.begin(), x.begin() + static_cast<std::ptrdiff_t>(size), y.begin())) return false;
    }
    return true;
  }

  void check_custom_code() const {
    if (config_.has("auto_map"))
      options_.warn("the model names code of its own (auto_map); it is not run, the weights are read as " +
                    std::string(class_name()));
  }

  DenseWeight read_dense(const TensorEntry& entry) const {
    using kernels::Kind;
    if (entry.dtype != Dtype::f16 && entry.dtype != Dtype::bf16 && entry.dtype != Dtype::f32)
      fail(GPTQ_E_UNSUPPORTED, "'", tensors_.file_of(entry), "': tensor '", entry.name, "' is ", describe(entry), "; weights must be F16, BF16 or F32");
    return DenseWeight{entry.dtype == Dtype::f16 ? Kind::f16 : entry.dtype == Dtype::bf16 ? Kind::bf16 : Kind::f32, tensors_.read(entry)};
  }

  static DenseWeight of_floats(const std::vector<float>& values) {
    DenseWeight weight{kernels::Kind::f32, std::vector<std::byte>(values.size() * sizeof(float))};
    std::memcpy(weight.bytes.data(), values.data(), weight.bytes.size());
    return weight;
  }

  std::vector<float> read_floats(const TensorEntry& entry) const { return to_floats(entry.dtype, tensors_.read(entry)); }

  Weight load_scalars(const std::string& prefix) const {
    std::vector<float> values;
    for (const std::string_view name : act_params) {
      const TensorEntry* entry = tensors_.find(full(prefix + std::string(name)));
      if (!entry) fail(GPTQ_E_FORMAT, "the checkpoint has no tensor '", prefix, name, "'");
      values.push_back(read_floats(*entry).at(0));
    }
    return of_floats(values);
  }

  Weight load_vector(const Piece& piece, const model::Slot& slot) const {
    const Layout& layout = model_.layout;
    if (piece.module.find("{}") != std::string::npos) return load_heads(piece, slot, ".weight");
    const TensorEntry* entry = piece.raw ? tensors_.find(full(piece.module)) : find(piece.module + ".weight");
    const bool norm = model::info_of(slot.id.role).form == model::RoleInfo::Form::norm;
    if (!entry && layout.ones_norms && norm) return of_floats(std::vector<float>(slot.n, 1.0f));
    if (!entry) return {};
    uint64_t count = 1;
    for (const uint64_t size : entry->shape) count *= size;
    if (count != slot.n || (!model_.family && entry->shape.size() != 1)) refuse_shape(*entry, {slot.n});
    DenseWeight weight = read_dense(*entry);
    const bool shifted = norm && layout.plus_one, decays = slot.id.role == model::Role::decay;
    if (!shifted && !decays && piece.rows.empty()) return weight;
    std::vector<float> values = read_floats(*entry), out(values.size());
    for (size_t i = 0; i < values.size(); ++i) out[i] = values[piece.rows.empty() ? i : piece.rows[i]] + (shifted ? 1.0f : 0.0f);
    if (decays) std::transform(out.begin(), out.end(), out.begin(), [](float value) { return std::exp(value); });
    return of_floats(out);
  }

  // Vectors of every head in tensors of their own.
  Weight load_heads(const Piece& piece, const model::Slot& slot, std::string_view suffix) const {
    std::vector<float> values;
    for (uint32_t head = 0; values.size() < slot.n; ++head) {
      std::string name = piece.module;
      name.replace(name.find("{}"), 2, std::to_string(head));
      const TensorEntry* entry = tensors_.find(full(name + std::string(suffix)));
      if (!entry) return {};
      const std::vector<float> part = read_floats(*entry);
      if (part.empty() || slot.n % part.size() != 0) refuse_shape(*entry, {slot.n});
      values.insert(values.end(), part.begin(), part.end());
    }
    return of_floats(values);
  }

  Weight load_matrix(const Piece& piece, const model::Slot& slot) {
    const std::string module = full(piece.module);
    if (!piece.raw && is_quantized_module(tensors_, module)) {
      static const QuantConfig nothing_said{};
      const QuantConfig& quant = quant_ ? *quant_ : nothing_said;
      if (piece.rows.empty()) return read_gptq_linear(tensors_, module, slot.n, slot.k, quant, options_);
      if (fused_module_ != module) fused_ = read_gptq_linear(tensors_, module, rows_wanted(piece, slot), slot.k, quant, options_), fused_module_ = module;
      return rows_of(fused_, piece.rows, slot);
    }
    const TensorEntry* entry = piece.raw ? tensors_.find(module) : find(piece.module + ".weight");
    if (!entry) return {};
    const std::vector<uint64_t> plain{slot.n, slot.k};
    if (piece.rows.empty() && piece.slice < 0 && !piece.transposed) {
      const bool depthwise = model_.family && entry->shape.size() == 3 && entry->shape[0] * entry->shape[1] * entry->shape[2] == uint64_t{slot.n} * slot.k;
      if (entry->shape != plain && !depthwise) refuse_shape(*entry, plain);
      return slot.id.role == model::Role::head && model_.layout.unit_head ? normalized(read_dense(*entry), slot) : read_dense(*entry);
    }
    return rows_of(*entry, piece, slot);
  }

  uint64_t n_experts() const { return description_.spec.experts ? description_.spec.experts->n : 0; }
  static uint32_t rows_wanted(const Piece& piece, const model::Slot& slot) { return piece.of_rows ? piece.of_rows : slot.n; }

  static QuantizedWeight rows_of(const QuantizedWeight& whole, const std::vector<uint32_t>& rows, const model::Slot& slot) {
    QuantizedWeight out;
    out.bits = whole.bits, out.group_size = whole.group_size, out.n_groups = whole.n_groups, out.g_idx = whole.g_idx;
    const auto take = [&](const auto& from, size_t width, auto& to) {
      if (from.empty()) return;
      if (rows.size() != slot.n || *std::max_element(rows.begin(), rows.end()) >= from.size() / width) fail(GPTQ_E_FORMAT, "'", std::string_view(slot.name), "': the fused matrix it is part of has too few rows");
      to.resize(rows.size() * width);
      for (size_t i = 0; i < rows.size(); ++i) std::copy_n(from.begin() + static_cast<std::ptrdiff_t>(rows[i] * width), width, to.begin() + static_cast<std::ptrdiff_t>(i * width));
    };
    take(whole.codes, slot.k, out.codes);
    take(whole.zeros, whole.n_groups, out.zeros);
    take(whole.scales, whole.n_groups, out.scales);
    return out;
  }

  // Some rows of [rows][k], of [k][rows], or of one such slice of a tensor of three dimensions.
  Weight rows_of(const TensorEntry& entry, const Piece& piece, const model::Slot& slot) const {
    const std::vector<uint64_t>& shape = entry.shape;
    const size_t dims = piece.slice < 0 ? 2 : 3;
    const uint64_t n = shape.size() == dims ? shape[dims - (piece.transposed ? 1 : 2)] : 0, k = shape.size() == dims ? shape[dims - (piece.transposed ? 2 : 1)] : 0;
    const uint32_t wanted = rows_wanted(piece, slot);
    if (k != slot.k || n != wanted || (piece.slice >= 0 && shape[0] != n_experts()) || (!piece.rows.empty() && piece.rows.size() != slot.n)) {
      std::vector<uint64_t> expected = piece.transposed ? std::vector<uint64_t>{slot.k, wanted} : std::vector<uint64_t>{wanted, slot.k};
      if (piece.slice >= 0) expected.insert(expected.begin(), n_experts());
      refuse_shape(entry, expected);
    }
    const size_t size = entry.dtype == Dtype::f32 ? 4 : 2, first = piece.slice < 0 ? 0 : static_cast<size_t>(piece.slice) * n * k;
    DenseWeight whole = read_slice(entry, first * size, n * k * size);
    DenseWeight out{whole.kind, std::vector<std::byte>(uint64_t{slot.n} * k * size)};
    for (uint64_t i = 0; i < slot.n; ++i) {
      const uint64_t row = piece.rows.empty() ? i : piece.rows[i];
      for (uint64_t j = 0; j < k; ++j) {
        std::memcpy(&out.bytes[(i * k + j) * size], &whole.bytes[(piece.transposed ? j * n + row : row * k + j) * size], size);
        if (!piece.transposed) {
          std::memcpy(&out.bytes[i * k * size], &whole.bytes[row * k * size], k * size);
          break;
        }
      }
    }
    return out;
  }

  DenseWeight read_slice(const TensorEntry& entry, uint64_t first, uint64_t bytes) const {
    if (first == 0 && bytes == entry.bytes) return read_dense(entry);
    using kernels::Kind;
    DenseWeight out{entry.dtype == Dtype::f16 ? Kind::f16 : entry.dtype == Dtype::bf16 ? Kind::bf16 : Kind::f32, std::vector<std::byte>(base::to_size(bytes))};
    if (entry.dtype != Dtype::f16 && entry.dtype != Dtype::bf16 && entry.dtype != Dtype::f32) return read_dense(entry);
    tensors_.read(entry, out.bytes, first);
    return out;
  }

  // Rows of length 1 (Baichuan 2's head).
  static DenseWeight normalized(DenseWeight weight, const model::Slot& slot) {
    const Dtype dtype = weight.kind == kernels::Kind::f16 ? Dtype::f16 : weight.kind == kernels::Kind::bf16 ? Dtype::bf16 : Dtype::f32;
    std::vector<float> values = to_floats(dtype, weight.bytes);
    for (uint64_t row = 0; row < slot.n; ++row) {
      float* x = values.data() + row * slot.k;
      double squares = 0;
      for (uint32_t i = 0; i < slot.k; ++i) squares += double(x[i]) * x[i];
      const double length = std::max(std::sqrt(squares), 1e-12);
      if (std::abs(length - 1) < 1e-6) continue;  // as export has written it
      for (uint32_t i = 0; i < slot.k; ++i) x[i] = static_cast<float>(x[i] / length);
    }
    return of_floats(values);
  }

  [[noreturn]] void refuse_shape(const TensorEntry& entry, const std::vector<uint64_t>& shape) const {
    TensorEntry expected = entry;
    expected.shape = shape;
    fail(GPTQ_E_FORMAT, "'", tensors_.file_of(entry), "': tensor '", entry.name, "' is ", describe(entry), " where config.json wants ",
         describe(expected));
  }

  // Quantizers write biases of zeros where the model has none.
  Weight load_bias(const Piece& piece, const model::Slot& slot) const {
    if (piece.module.find("{}") != std::string::npos) return load_heads(piece, slot, ".bias");
    const TensorEntry* entry = piece.slice < 0 ? find(piece.module + ".bias") : tensors_.find(full(piece.slice_bias));
    if (model_.has_bias(piece.module) && !entry) fail(GPTQ_E_FORMAT, "the checkpoint has no tensor '", piece.module, ".bias', which config.json wants");
    if (!entry) return {};
    if (model_.family) return load_rows_of_bias(*entry, piece, slot);
    if (entry->shape != std::vector<uint64_t>{slot.n}) refuse_shape(*entry, {slot.n});
    DenseWeight weight = read_dense(*entry);
    if (model_.has_bias(piece.module)) return weight;
    if (std::all_of(weight.bytes.begin(), weight.bytes.end(), [](std::byte b) { return b == std::byte{0}; })) return {};
    options_.warn_of(piece.module, "its bias is used, although config.json does not mention it");
    return weight;
  }

  Weight load_rows_of_bias(const TensorEntry& entry, const Piece& piece, const model::Slot& slot) const {
    const std::vector<float> values = read_floats(entry);
    const size_t n = piece.slice < 0 ? values.size() : entry.shape.back(), first = piece.slice < 0 ? 0 : static_cast<size_t>(piece.slice) * n;
    const uint64_t wanted = rows_wanted(piece, slot);
    if (piece.slice >= 0 && entry.shape != std::vector<uint64_t>{n_experts(), wanted}) refuse_shape(entry, {n_experts(), wanted});
    // Older checkpoints have masks under the names of biases.
    if (n != wanted) return entry.shape.size() > 2 ? Weight() : (refuse_shape(entry, {wanted}), Weight());
    std::vector<float> out(slot.n);
    for (size_t i = 0; i < out.size(); ++i) out[i] = values.at(first + (piece.rows.empty() ? i : piece.rows[i]));
    return of_floats(out);
  }

  void describe_model(const std::string& folder) {
    EndTokens ends(model_.spec.n_vocab);
    description_.generation = read_generation(folder, config_, model_.spec.n_vocab, options_, ends);
    if (auto tokenizer = import_tokenizer(system::path_of(folder))) description_.tokenizer = std::make_shared<TokenizerDescription>(std::move(*tokenizer));
    else options_.warn("the folder has no tokenizer; the model will know token ids only");
    if (description_.tokenizer) ends.add(*description_.tokenizer);
    description_.generation.end_tokens = ends.ids();
    if (description_.generation.eos < 0 && !ends.ids().empty()) description_.generation.eos = ends.ids()[0];
    const auto add = [&](const std::string& key, std::string value) {
      if (!value.empty()) description_.meta.emplace_back(key, std::move(value));
    };
    add("end_tokens", ends.reasons());
    add("name", folder_name(folder));
    add("license", read_license(folder));
    add("source", "Hugging Face folder");
    add("architecture", std::string(class_name()));
    if (model_.architecture) add("rope", rope_settings(config_));
    else add("config", kept_config(config_));
    add("quantization", quantization_in_words());
    const Pooling pooling = read_pooling(folder, options_);
    add("pooling", pooling.kind);
    if (!pooling.kind.empty() && pooling.normalize) add("pooling_normalize", "true");
    for (auto& [name, text] : read_chat_templates(folder, options_)) add(name.empty() ? "chat_template" : "chat_template." + name, std::move(text));
    description_.spec = std::move(model_.spec);
  }

  std::string_view class_name() const { return model_.family ? model_.family->classes[0] : model_.architecture->name; }

  std::string quantization_in_words() const {
    if (!quant_) return "none";
    const QuantSettings& s = quant_->settings;
    std::string text = "GPTQ, ";
    if (s.bits) text += std::to_string(s.bits) + " bits, ";
    text += s.group_size > 0 ? "groups of " + std::to_string(s.group_size) : "one group";
    text += s.symmetric ? ", symmetric" : ", asymmetric";
    if (quant_->activation_order) text += ", activation order";
    if (!quant_->quantizer.empty()) text += ", by " + quant_->quantizer;
    return text;
  }

  // So that a part of a model that is not known does not pass in silence.
  void warn_of_unknown_tensors() const {
    std::set<std::string_view> here;
    for (const std::string_view name : tensors_.names()) here.insert(name), here.insert(name.substr(0, name.rfind('.')));
    std::set<std::string, std::less<>> known;
    const auto know = [&](const std::string& module) {
      if (here.contains(module)) known.insert(module);
    };
    const model::ModelSpec spec = checked_spec(description_.spec, tensors_.bytes());
    model::each_slot(spec, std::pmr::get_default_resource(), [&](const model::Slot& slot) {
      add_names(model_.layout.locate(description_.spec, slot.id, has_), slot, know);
    });
    know(full(model_.layout.locate(description_.spec, {.role = model::Role::head}, {}).module));
    size_t count = 0;
    std::string first;
    for (const std::string_view name : tensors_.names()) {
      if (known.contains(name.substr(0, name.rfind('.'))) || known.contains(name) || is_harmless(name) || is_elsewhere(name)) continue;
      if (count++ == 0) first = name;
    }
    if (count)
      options_.warn(std::to_string(count) + (count == 1 ? " tensor is" : " tensors are") +
                    " not part of this kind of model and left out: " + first + (count > 1 ? ", ..." : ""));
  }

  // Of a slot's module without what follows its last dot, of a tensor alone whole.
  template <class F>
  void add_names(const Piece& piece, const model::Slot& slot, const F& know) const {
    const size_t number = piece.module.find("{}");
    for (uint32_t head = 0; number != piece.module.npos && head < description_.spec.n_heads; ++head)
      know(full(std::string(piece.module).replace(number, 2, std::to_string(head))));
    if (slot.id.role == model::Role::act_params)
      for (const std::string_view name : act_params) know(full(piece.module + std::string(name)));
    if (slot.id.bias && piece.slice >= 0) know(full(piece.slice_bias));
    else if (!slot.id.bias) know(full(piece.module));
  }

  // What differs in numbers alone is one note.
  void note(std::string_view module, std::string_view text) {
    std::string key(text);
    std::erase_if(key, [](char c) { return c >= '0' && c <= '9'; });
    Note& note = notes_[key];
    if (note.count++ == 0) note.first = std::string(module) + ": " + std::string(text);
  }

  // Layers behind the last one (multi-token prediction) and pictures.
  bool is_elsewhere(std::string_view name) const {
    if (!model_.family) return false;
    for (const std::string_view part : {"visual.", "vision_tower.", "multi_modal_projector.", "vision_model.", "mtp.", ".attention.bias", ".attn.bias", "masked_bias"})
      if (name.find(part) != name.npos) return true;
    const size_t at = name.find("layers.");
    return at != name.npos && std::strtoul(name.data() + at + 7, nullptr, 10) >= description_.spec.n_layers;
  }

  Options options_;
  JsonDocument config_file_;
  JsonObject config_;
  std::optional<QuantConfig> quant_;
  HfModel model_;
  TensorFolder tensors_;
  Layout::Has has_ = [this](const std::string& name) { return has(name) || tensors_.find(full(name)); };
  std::string embed_module_;
  std::string fused_module_;
  QuantizedWeight fused_;  // the last that was read: q, k and v come one after another
  ModelDescription description_;
  struct Note {
    std::string first;
    size_t count = 0;
  };
  std::map<std::string, Note> notes_;
};

}  // namespace

std::unique_ptr<ModelSource> open_hf_folder(const std::string& folder, const Options& options) {
  return std::make_unique<HfSource>(folder, options);
}

}  // namespace gptq::convert
