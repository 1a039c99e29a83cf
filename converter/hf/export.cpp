// SPDX-License-Identifier: Apache-2.0
#include "converter/hf/export.h"

#include <algorithm>

#include "base/checked.h"
#include "converter/dialects/bit_fields.h"
#include "converter/hf/export_parts.h"
#include "converter/hf/export_modules.h"
#include "converter/hf/hf_source.h"
#include "converter/json_writer.h"
#include "converter/new_folder.h"
#include "converter/tokenizer/description.h"

namespace gptq::convert {
namespace {

using base::fail;
namespace fb = format::fb;
class Export {
 public:
  Export(const base::Source& file, std::string_view folder, const ExportOptions& options)
      : options_(options), reader_(file, memory_), manifest_(reader_.manifest()), pool_(0, nullptr, nullptr, memory_),
        folder_(folder, options.replace) {
    model::check_features(manifest_);
    spec_ = model::check_spec(manifest_, memory_);
    slots_ = model::weight_slots(spec_, memory_);
    published_ = read_published(manifest_);
  }

  ExportResult run() {
    decide_dtype();
    published_.gate_up_apart = !published_.layout.gate_up.empty() && !gate_and_up_are_alike();
    collect();
    const std::string quantization = describe_quantization();
    const std::string config = config_text(quantization);
    SafetensorsWriter writer(folder_.temporary(), plan(), options_.shard_bytes);
    write_tensors(writer);
    folder_.write("config.json", config);
    if (!quantization.empty()) folder_.write("quantize_config.json", quantization);
    folder_.write("generation_config.json", write_generation_config(manifest_));
    write_tokenizer();
    write_readme();
    read_back();
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
    items_.emplace(reader_, published_, pool_, dtype_);
    for (const model::Slot& slot : slots_) {
      const fb::Tensor* tensor = reader_.find(slot.name);
      if (!tensor && slot.required) fail(GPTQ_E_FORMAT, "the file has no tensor '", std::string_view(slot.name), "'");
      if (!tensor) continue;
      if (slot.id.bias && !published_.family) note_bias(slot.id.role);
      items_->add(slot, *tensor);
    }
    items_->finish();
    for (const ExportItem& item : items_->all())
      if (item.quantized || item.quantizable) add_linear(item);
  }

  void note_bias(model::Role role) {
    using model::Role;
    if (role == Role::head)
      fail(GPTQ_E_UNSUPPORTED, "the head has a bias, which the classes of transformers known here have not");
    (role == Role::o ? biases_.o : role == Role::q || role == Role::k || role == Role::v ? biases_.qkv : biases_.mlp) = true;
  }

  static bool is_symmetric(const fb::Tensor& tensor) {
    const auto* parts = tensor.parts();
    return std::none_of(parts->begin(), parts->end(),
                        [](const fb::Part* part) { return part->role() == fb::Role::zeros; });
  }

  void add_linear(const ExportItem& item) {
    ExportedLinear linear;
    linear.module = item.name;
    if (!item.quantized) linear.module.resize(item.name.size() - std::string_view(".weight").size());
    linear.weights = uint64_t{item.n} * item.k;
    linear.is_head = item.is_head;
    if (item.quantized) {
      const ExportPart& first = item.parts[0];
      linear.bits = kernels::bits_of(static_cast<kernels::Kind>(first.tensor->kind()));
      linear.group_size = first.tensor->group_size();
      linear.g_idx = groups_of_inputs(reader_, *first.tensor, *first.slot);
      linear.symmetric = std::all_of(item.parts.begin(), item.parts.end(),
                                     [](const ExportPart& part) { return is_symmetric(*part.tensor); });
      quantized_head_ |= item.is_head;
      ++result_.n_quantized;
    }
    linears_.push_back(std::move(linear));
  }

  // Whether gate and up can be one module in every layer.
  bool gate_and_up_are_alike() const {
    const auto slot_of = [&](const model::SlotId& id) {
      return std::find_if(slots_.begin(), slots_.end(),
                          [&](const model::Slot& slot) { return slot.id.key() == id.key(); });
    };
    for (uint32_t layer = 0; layer < spec_.n_layers; ++layer) {
      const auto gate = slot_of({.role = model::Role::gate, .layer = layer});
      const auto up = slot_of({.role = model::Role::up, .layer = layer});
      if (gate == slots_.end() || up == slots_.end()) continue;
      const fb::Tensor *a = reader_.find(gate->name), *b = reader_.find(up->name);
      if (!a || !b) continue;
      if (a->kind() != b->kind() || a->group_size() != b->group_size()) return false;
      if (kernels::is_quantized(static_cast<kernels::Kind>(a->kind())) &&
          groups_of_inputs(reader_, *a, *gate) != groups_of_inputs(reader_, *b, *up))
        return false;
    }
    return true;
  }

  std::string config_text(const std::string& quantization) {
    if (published_.family) return write_family_config(published_, dtype_, quantization);
    const ExportedConfig config = write_config(manifest_, biases_, dtype_, quantization);
    add_missing_biases(config.model);
    return config.text;
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
      if (!slot.id.bias || reader_.find(slot.name)) continue;
      const std::string module = published_.locate(slot.id).module;
      if (!model.has_bias(module)) continue;
      const DenseWeight zeros{kernels::Kind::f32, std::vector<std::byte>(slot.n * sizeof(float))};
      items_->add_dense(module + ".bias", narrow(zeros, dtype_), {slot.n});
    }
  }

  std::vector<TensorPlan> plan() const {
    std::vector<TensorPlan> out;
    size_t linear = 0;
    for (const ExportItem& item : items_->all()) {
      if (!item.quantized) {
        out.push_back({item.name, items_->dtype_of_item(item), item.shape});
        continue;
      }
      while (linears_[linear].module != item.name) ++linear;
      const uint32_t bits = linears_[linear].bits;
      const uint64_t groups = count_groups(linears_[linear].g_idx, linears_[linear].group_size);
      out.push_back({item.name + ".qweight", Dtype::i32, {packed_words(item.k, bits), item.n}});
      out.push_back({item.name + ".qzeros", Dtype::i32, {groups, packed_words(item.n, bits)}});
      out.push_back({item.name + ".scales", Dtype::f16, {groups, item.n}});
      out.push_back({item.name + ".g_idx", Dtype::i32, {item.k}});
    }
    return out;
  }

  static uint64_t weights_of(const ExportItem& item) { return uint64_t{item.n} * item.k * item.slices; }

  void write_tensors(SafetensorsWriter& writer) {
    uint64_t total = 0, done = 0;
    for (const ExportItem& item : items_->all()) total += weights_of(item);
    for (const ExportItem& item : items_->all()) {
      options_.progress(done, total);
      write_item(item, writer);
      done += weights_of(item);
    }
    options_.progress(total, total);
    writer.finish();
    tell_of_undone();
    result_.n_tensors = items_->all().size() + 3 * result_.n_quantized;
    if (rounded_)
      options_.warn("scales of " + std::to_string(rounded_) + " modules are rounded to float16, the only type GPTQ checkpoints have");
  }

  void write_item(const ExportItem& item, SafetensorsWriter& writer) {
    if (item.dense) return writer.write(item.name, item.dense->bytes);
    if (item.quantized) return write_quantized(item, writer);
    const ExportPart& first = item.parts[0];
    if (first.slot->id.role == model::Role::embed && kernels::is_quantized(static_cast<kernels::Kind>(first.tensor->kind())))
      options_.warn("the embedding is written as float16: GPTQ checkpoints have it unquantized");
    writer.write(item.name, items_->assemble(item).bytes);
  }

  void tell_of_undone() const {
    size_t count = 0;
    std::string first;
    for (const ExportItem& item : items_->all())
      if (item.undone && count++ == 0) first = "'" + item.name + "' [" + std::to_string(item.n) + ", " + std::to_string(item.k) + "]";
    if (count)
      options_.warn(first + (count > 1 ? " and " + std::to_string(count - 1) + " more are" : " is") +
                    " written as float16: GPTQModel reads only quantized matrices whose rows and inputs are multiples of 32");
  }

  void write_quantized(const ExportItem& item, SafetensorsWriter& writer) {
    const auto bytes = [](const auto& values) { return std::as_bytes(std::span(values)); };
    const QuantizedWeight w = items_->join(item);
    const PackedLinear packed = pack_linear(item.name, w, item.n, item.k, v2_zeros_);
    rounded_ += packed.scales_rounded;
    writer.write(item.name + ".qweight", bytes(packed.qweight));
    writer.write(item.name + ".qzeros", bytes(packed.qzeros));
    writer.write(item.name + ".scales", bytes(packed.scales));
    writer.write(item.name + ".g_idx", bytes(w.g_idx));
  }

  // A config that was kept must still mean what the file computes.
  void read_back() const {
    if (!published_.family) return;
    const auto again = open_hf_folder(folder_.temporary(), {});
    if (!same_spec(again->description().spec, *manifest_.spec()))
      fail(GPTQ_E_UNSUPPORTED, "the config that the file was made with does not give this model again; ",
           "convert it anew from its source");
  }

  // One as a string, several as a list of names and templates.
  void add_chat_templates(JsonWriter& out) {
    std::vector<std::pair<std::string, std::string>> all;
    for (const auto* meta : *manifest_.meta()) {
      const std::string key = meta->key()->str();
      if (key == "chat_template") all.emplace_back("default", meta->value()->str());
      else if (key.starts_with("chat_template.")) all.emplace_back(key.substr(14), meta->value()->str());
    }
    if (all.size() == 1) out.add("chat_template", all[0].second);
    if (all.size() > 1)
      out.add_raw("chat_template", json_list(all, [](const auto& t) { return JsonWriter().add("name", t.first).add("template", t.second).object(); }));
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
    add_chat_templates(out);
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
  Published published_;
  std::optional<ExportItems> items_;
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
