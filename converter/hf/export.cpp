// SPDX-License-Identifier: Apache-2.0
#include "converter/hf/export.h"

#include <algorithm>
#include <optional>

#include "base/checked.h"
#include "converter/dialects/bit_fields.h"
#include "converter/hf/export_parts.h"
#include "converter/hf/names.h"
#include "converter/json_writer.h"
#include "converter/new_folder.h"
#include "converter/tokenizer/description.h"

namespace gptq::convert {
namespace {

using base::fail;
namespace fb = format::fb;
constexpr std::string_view bias_suffix = ".bias";

// A weight of the file and what becomes of it.
struct Item {
  const model::Slot* slot;
  const fb::Tensor* tensor;
  std::string name;                  // of the module, or of the tensor where there is one alone
  bool quantized = false;
  std::optional<DenseWeight> dense;  // small ones are read when the plan is made
};

class Export {
 public:
  Export(const base::Source& file, std::string_view folder, const ExportOptions& options)
      : options_(options), reader_(file, memory_), manifest_(reader_.manifest()), pool_(0, nullptr, nullptr, memory_),
        folder_(folder, options.replace) {
    model::check_features(manifest_);
    spec_ = model::check_spec(*manifest_.spec(), memory_);
    slots_ = model::weight_slots(spec_, memory_);
  }

  ExportResult run() {
    decide_dtype();
    collect();
    const std::string quantization = describe_quantization();
    const ExportedConfig config = write_config(manifest_, biases_, dtype_, quantization);
    add_missing_biases(config.model);
    SafetensorsWriter writer(folder_.temporary(), plan(), options_.shard_bytes);
    write_tensors(writer);
    folder_.write("config.json", config.text);
    if (!quantization.empty()) folder_.write("quantize_config.json", quantization);
    folder_.write("generation_config.json", write_generation_config(manifest_));
    write_tokenizer();
    write_readme();
    folder_.commit();
    result_.bytes = writer.bytes();
    result_.n_files = writer.n_files();
    return result_;
  }

 private:
  // The type of the embedding is that of the model; vectors, which are float32 in the file, follow it.
  void decide_dtype() {
    const fb::Tensor* embed = reader_.find("embed");
    if (!embed) fail(GPTQ_E_FORMAT, "the file has no tensor 'embed'");
    const auto kind = static_cast<kernels::Kind>(embed->kind());
    dtype_ = kernels::is_quantized(kind) ? Dtype::f16 : dtype_of(kind);
  }

  void collect() {
    for (const model::Slot& slot : slots_) {
      const fb::Tensor* tensor = reader_.find(slot.name);
      if (!tensor && slot.required) fail(GPTQ_E_FORMAT, "the file has no tensor '", std::string_view(slot.name), "'");
      if (tensor) add(slot, *tensor);
    }
  }

  void add(const model::Slot& slot, const fb::Tensor& tensor) {
    const std::string_view slot_name = slot.name;
    Item item{&slot, &tensor, "", false, {}};
    if (slot_name.ends_with(bias_suffix)) {
      const std::string_view owner = slot_name.substr(0, slot_name.size() - bias_suffix.size());
      note_bias(owner);
      item.name = hf_module(owner) + std::string(bias_suffix);
    } else {
      item.quantized = !slot.is_vector && kernels::is_quantized(model::check_tensor(tensor, slot).kind) && slot_name != "embed";
      item.name = hf_module(slot_name) + (item.quantized ? "" : ".weight");
      if (!slot.is_vector && slot_name != "embed") add_linear(item);
    }
    if (slot.is_vector) item.dense = narrow(std::get<DenseWeight>(unpack(reader_, tensor, slot, pool_)), dtype_);
    items_.push_back(std::move(item));
  }

  void note_bias(std::string_view owner) {
    if (owner == "head") fail(GPTQ_E_UNSUPPORTED, "the head has a bias, which the classes of transformers known here have not");
    const std::string_view part = owner.substr(owner.rfind('.') + 1);
    (part == "o" ? biases_.o : part == "q" || part == "k" || part == "v" ? biases_.qkv : biases_.mlp) = true;
  }

  void add_linear(const Item& item) {
    ExportedLinear linear;
    linear.module = hf_module(item.slot->name);
    linear.weights = uint64_t{item.slot->n} * item.slot->k;
    if (item.quantized) {
      linear.bits = kernels::bits_of(static_cast<kernels::Kind>(item.tensor->kind()));
      linear.group_size = item.tensor->group_size();
      linear.g_idx = groups_of_inputs(reader_, *item.tensor, *item.slot);
      const auto* parts = item.tensor->parts();
      linear.symmetric = std::none_of(parts->begin(), parts->end(), [](const fb::Part* part) { return part->role() == fb::Role::zeros; });
      quantized_head_ |= item.slot->name == "head";
      ++result_.n_quantized;
    }
    linears_.push_back(std::move(linear));
  }

  std::string describe_quantization() {
    if (result_.n_quantized == 0) return {};
    const bool symmetric = std::all_of(linears_.begin(), linears_.end(), [](const ExportedLinear& l) { return l.symmetric; });
    v2_zeros_ = options_.zeros == ZerosFormat::v2 || (options_.zeros == ZerosFormat::automatic && !symmetric);
    if (!symmetric && !v2_zeros_) options_.warn("GPTQModel reads asymmetric checkpoints of format v1 only if it made them itself");
    if (const std::string reason = vllm_refuses(linears_); !reason.empty()) options_.warn("vLLM will not run this model: " + reason);
    return write_quantization(linears_, v2_zeros_, quantized_head_);
  }

  // A class has all biases of its kind or none.
  void add_missing_biases(const HfModel& model) {
    for (const model::Slot& slot : slots_) {
      const std::string_view name = slot.name;
      if (!name.ends_with(bias_suffix) || reader_.find(name)) continue;
      const std::string module = hf_module(name.substr(0, name.size() - bias_suffix.size()));
      if (!model.has_bias(module)) continue;
      const DenseWeight zeros{kernels::Kind::f32, std::vector<std::byte>(slot.n * sizeof(float))};
      items_.push_back({&slot, nullptr, module + std::string(bias_suffix), false, narrow(zeros, dtype_)});
    }
  }

  // What an unquantized tensor is written as.
  Dtype dtype_of_item(const Item& item) const {
    if (item.dense) return dtype_of(item.dense->kind);
    const auto kind = static_cast<kernels::Kind>(item.tensor->kind());
    return kernels::is_quantized(kind) ? Dtype::f16 : dtype_of(kind);
  }

  std::vector<TensorPlan> plan() const {
    std::vector<TensorPlan> out;
    size_t linear = 0;
    for (const Item& item : items_) {
      const uint64_t n = item.slot->n, k = item.slot->k;
      if (!item.quantized) {
        out.push_back({item.name, dtype_of_item(item), item.slot->is_vector ? std::vector<uint64_t>{n} : std::vector<uint64_t>{n, k}});
        continue;
      }
      while (linears_[linear].module != item.name) ++linear;
      const uint32_t bits = linears_[linear].bits;
      const uint64_t groups = count_groups(linears_[linear].g_idx, linears_[linear].group_size);
      out.push_back({item.name + ".qweight", Dtype::i32, {packed_words(k, bits), n}});
      out.push_back({item.name + ".qzeros", Dtype::i32, {groups, packed_words(n, bits)}});
      out.push_back({item.name + ".scales", Dtype::f16, {groups, n}});
      out.push_back({item.name + ".g_idx", Dtype::i32, {k}});
    }
    return out;
  }

  void write_tensors(SafetensorsWriter& writer) {
    uint64_t total = 0, done = 0;
    for (const Item& item : items_) total += uint64_t{item.slot->n} * item.slot->k;
    for (const Item& item : items_) {
      options_.progress(done, total);
      if (item.dense) writer.write(item.name, item.dense->bytes);
      else write_matrix(item, unpack(reader_, *item.tensor, *item.slot, pool_), writer);
      done += uint64_t{item.slot->n} * item.slot->k;
    }
    options_.progress(total, total);
    writer.finish();
    result_.n_tensors = items_.size() + 3 * result_.n_quantized;
    if (rounded_)
      options_.warn("scales of " + std::to_string(rounded_) + " modules are rounded to float16, the only type GPTQ checkpoints have");
  }

  void write_matrix(const Item& item, Weight&& weight, SafetensorsWriter& writer) {
    const auto bytes = [](const auto& values) { return std::as_bytes(std::span(values)); };
    if (const auto* dense = std::get_if<DenseWeight>(&weight)) return writer.write(item.name, dense->bytes);
    const QuantizedWeight& w = std::get<QuantizedWeight>(weight);
    if (!item.quantized) {
      options_.warn("the embedding is written as float16: GPTQ checkpoints have it unquantized");
      return writer.write(item.name, round_to_half(item.name, dequantize(w, item.slot->n, item.slot->k)).bytes);
    }
    const PackedLinear packed = pack_linear(item.name, w, item.slot->n, item.slot->k, v2_zeros_);
    rounded_ += packed.scales_rounded;
    writer.write(item.name + ".qweight", bytes(packed.qweight));
    writer.write(item.name + ".qzeros", bytes(packed.qzeros));
    writer.write(item.name + ".scales", bytes(packed.scales));
    writer.write(item.name + ".g_idx", bytes(w.g_idx));
  }

  void write_tokenizer() {
    if (!manifest_.tokenizer()) return options_.warn("the file has no tokenizer, so the folder has none");
    std::vector<std::byte> section(base::to_size(manifest_.tokenizer()->bytes()));
    reader_.read_part(*manifest_.tokenizer(), section, memory_);
    const TokenizerDescription tokenizer = decompile_tokenizer(section, spec_.n_vocab);
    folder_.write("tokenizer.json", write_tokenizer_json(tokenizer));
    JsonWriter out;
    out.add("tokenizer_class", "PreTrainedTokenizerFast").add("clean_up_tokenization_spaces", false);
    out.add("model_max_length", spec_.n_ctx_train);
    const auto add_token = [&](std::string_view key, int32_t id) {
      if (id >= 0 && static_cast<size_t>(id) < tokenizer.tokens.size()) out.add(key, token_key(tokenizer, static_cast<uint32_t>(id)));
    };
    add_token("bos_token", tokenizer.bos.id);
    add_token("eos_token", tokenizer.eos.id);
    add_token("unk_token", tokenizer.unknown);
    add_token("pad_token", manifest_.generation() ? manifest_.generation()->pad() : -1);
    if (const std::string chat = find_meta(manifest_, "chat_template"); !chat.empty()) out.add("chat_template", chat);
    folder_.write("tokenizer_config.json", out.object());
  }

  // The license travels along, where Hugging Face and our own importer look for it.
  void write_readme() const {
    const std::string license = find_meta(manifest_, "license");
    if (license.empty() || license.size() > 100 || license.find_first_of("\r\n") != license.npos) return;
    folder_.write("README.md", "---\nlicense: " + license + "\n---\n");
  }

  std::pmr::memory_resource* memory_ = std::pmr::get_default_resource();
  const ExportOptions& options_;
  format::Reader reader_;
  const fb::Manifest& manifest_;
  base::Pool pool_;
  NewFolder folder_;
  model::ModelSpec spec_{memory_};
  std::pmr::vector<model::Slot> slots_;
  Dtype dtype_ = Dtype::f16;
  std::vector<Item> items_;
  std::vector<ExportedLinear> linears_;
  ExportedBiases biases_;
  bool quantized_head_ = false, v2_zeros_ = false;
  size_t rounded_ = 0;
  ExportResult result_;
};

}  // namespace

ExportResult export_hf(const base::Source& file, std::string_view folder, const ExportOptions& options) {
  return Export(file, folder, options).run();
}

}  // namespace gptq::convert
