// SPDX-License-Identifier: Apache-2.0
// A Hugging Face folder as a ModelSource: slots by their names in the checkpoint, quantized or not.
#include "converter/hf/hf_source.h"

#include <algorithm>
#include <set>

#include "base/checked.h"
#include "converter/dialects/linear.h"
#include "converter/floats.h"
#include "converter/hf/config.h"
#include "converter/hf/metadata.h"
#include "converter/hf/names.h"
#include "converter/tokenizer/import.h"

namespace gptq::convert {
namespace {

using base::fail;
constexpr uint64_t config_bytes_max = 16u << 20;

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
        quant_(read_quant_config(folder, config_)),
        model_(read_config(config_)),
        tensors_(folder) {
    settle_head();
    check_custom_code();
    describe_model(folder);
    warn_of_unknown_tensors();
  }

  const ModelDescription& description() const override { return description_; }

  Weight load(const model::Slot& slot) override {
    const std::string_view name = slot.name;
    if (name.ends_with(".bias")) return load_bias(hf_module(name.substr(0, name.size() - 5)), slot);
    const std::string module = name == "embed" ? embed_module_ : hf_module(name);
    if (slot.is_vector || !is_quantized_module(tensors_, module)) return load_dense(module + ".weight", slot);
    static const QuantConfig nothing_said{};
    return read_gptq_linear(tensors_, module, slot.n, slot.k, quant_ ? *quant_ : nothing_said, options_);
  }

 private:
  bool has(const std::string& module) const { return tensors_.find(module + ".weight") || tensors_.find(module + ".qweight"); }

  // Tied or not, as the tensors have it: a head of its own counts only where it differs from the embedding.
  void settle_head() {
    bool tied = model_.spec.tied_head;
    const bool head = has("lm_head"), embed = has("model.embed_tokens");
    if (!embed && head && tied) embed_module_ = "lm_head";
    if (!tied && !head && embed) {
      options_.warn("there is no lm_head and the config does not tie it; the embedding is used for it");
      tied = true;
    }
    if (tied && head && embed && !same_tensor("lm_head.weight", "model.embed_tokens.weight")) {
      options_.warn("the config ties lm_head to the embedding, but the checkpoint has another lm_head, which is used");
      tied = false;
    }
    model_.spec.tied_head = tied;
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
                    std::string(model_.architecture->name));
  }

  Weight load_dense(const std::string& name, const model::Slot& slot) const {
    const TensorEntry* entry = tensors_.find(name);
    if (!entry) return {};
    const std::vector<uint64_t> shape = slot.is_vector ? std::vector<uint64_t>{slot.n} : std::vector<uint64_t>{slot.n, slot.k};
    if (entry->shape != shape) refuse_shape(*entry, shape);
    using kernels::Kind;
    if (entry->dtype != Dtype::f16 && entry->dtype != Dtype::bf16 && entry->dtype != Dtype::f32)
      fail(GPTQ_E_UNSUPPORTED, "'", tensors_.file_of(*entry), "': tensor '", name, "' is ", describe(*entry),
           "; weights must be F16, BF16 or F32");
    return DenseWeight{entry->dtype == Dtype::f16    ? Kind::f16
                       : entry->dtype == Dtype::bf16 ? Kind::bf16
                                                     : Kind::f32,
                       tensors_.read(*entry)};
  }

  [[noreturn]] void refuse_shape(const TensorEntry& entry, const std::vector<uint64_t>& shape) const {
    TensorEntry expected = entry;
    expected.shape = shape;
    fail(GPTQ_E_FORMAT, "'", tensors_.file_of(entry), "': tensor '", entry.name, "' is ", describe(entry), " where config.json wants ",
         describe(expected));
  }

  // Quantizers write biases of zeros where the model has none.
  Weight load_bias(const std::string& module, const model::Slot& slot) const {
    Weight weight = load_dense(module + ".bias", slot);
    const auto* dense = std::get_if<DenseWeight>(&weight);
    if (model_.has_bias(module)) {
      if (!dense) fail(GPTQ_E_FORMAT, "the checkpoint has no tensor '", module, ".bias', which config.json wants");
      return weight;
    }
    if (!dense || std::all_of(dense->bytes.begin(), dense->bytes.end(), [](std::byte b) { return b == std::byte{0}; })) return {};
    options_.warn(module + ".bias is used, although config.json does not mention it");
    return weight;
  }

  void describe_model(const std::string& folder) {
    description_.generation = read_generation(folder, config_, model_.spec.n_vocab, options_);
    if (auto tokenizer = import_tokenizer(folder)) description_.tokenizer = std::make_shared<TokenizerDescription>(std::move(*tokenizer));
    else options_.warn("the folder has no tokenizer; the model will know token ids only");
    const auto add = [&](const char* key, std::string value) {
      if (!value.empty()) description_.meta.emplace_back(key, std::move(value));
    };
    add("name", folder_name(folder));
    add("license", read_license(folder));
    add("source", "Hugging Face folder");
    add("architecture", std::string(model_.architecture->name));
    add("rope", rope_settings(config_));
    add("quantization", quantization_in_words());
    add("chat_template", read_chat_template(folder, options_));
    description_.spec = std::move(model_.spec);
  }

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
    const auto modules = hf_modules(description_.spec.n_layers);
    const std::set<std::string_view> known(modules.begin(), modules.end());
    size_t count = 0;
    std::string first;
    for (const std::string_view name : tensors_.names()) {
      if (known.contains(name.substr(0, name.rfind('.'))) || is_harmless(name)) continue;
      if (count++ == 0) first = name;
    }
    if (count)
      options_.warn(std::to_string(count) + (count == 1 ? " tensor is" : " tensors are") +
                    " not part of this kind of model and left out: " + first + (count > 1 ? ", ..." : ""));
  }

  Options options_;
  JsonDocument config_file_;
  JsonObject config_;
  std::optional<QuantConfig> quant_;
  HfModel model_;
  TensorFolder tensors_;
  std::string embed_module_ = "model.embed_tokens";
  ModelDescription description_;
};

}  // namespace

std::unique_ptr<ModelSource> open_hf_folder(const std::string& folder, const Options& options) {
  return std::make_unique<HfSource>(folder, options);
}

}  // namespace gptq::convert
