// SPDX-License-Identifier: Apache-2.0
#include "converter/lora/lora.h"

#include <algorithm>
#include <cstring>
#include <map>

#include "base/checked.h"
#include "converter/floats.h"
#include "converter/hf/published.h"
#include "converter/json.h"
#include "converter/lora/adapter_config.h"
#include "converter/pack.h"
#include "converter/zstd_frame.h"
#include "model/adapter.h"

namespace gptq::convert {
namespace {

using base::fail;
namespace fb = format::fb;
using kernels::Kind;

constexpr uint64_t config_bytes_max = 16u << 20;
constexpr std::string_view weights_name = "adapter_model.safetensors", key_prefix = "base_model.model.";

// A module's two matrices in the folder.
struct Change {
  const TensorEntry *a = nullptr, *b = nullptr;
  std::vector<bool> used;  // rows of b that a weight of the model took
};

class Lora {
 public:
  Lora(const std::string& folder, const base::Source& model, std::string_view path, const LoraOptions& options)
      : config_file_(JsonDocument::read(folder + "/adapter_config.json", "adapter_config.json", config_bytes_max)), config_(config_file_.root()),
        source_(weights_path(folder)), entries_(read_safetensors_header(source_, weights_name)), reader_(model, memory_), options_(options),
        writer_(path, options.replace ? base::AtomicFile::IfExists::replace : base::AtomicFile::IfExists::refuse, zstd_frame) {}

  LoraResult run() {
    const fb::Manifest& base = reader_.manifest();
    model::check_features(base);
    const model::ModelSpec spec = model::check_spec(base, memory_);
    read_names();
    const Published published = read_published(base);
    for (const model::Slot& slot : model::weight_slots(spec, memory_)) add(published, slot);
    refuse_left_over();
    manifest_.spec = std::make_unique<fb::SpecT>();
    base.spec()->UnPackTo(manifest_.spec.get());
    manifest_.required_features.emplace_back(model::adapter_feature);
    if (spec.beyond_llama) manifest_.required_features.emplace_back(model::layers_feature);
    if (!config_.base_model().empty()) format::add_meta(manifest_, "base_model", config_.base_model());
    format::add_meta(manifest_, "converter", "gptq-convert " GPTQ_VERSION_TEXT);
    writer_.finish(manifest_);
    result_.bytes = writer_.size();
    return result_;
  }

 private:
  static std::string weights_path(const std::string& folder) {
    const std::string path = folder + "/" + std::string(weights_name);
    if (!file_exists(path) && file_exists(folder + "/adapter_model.bin"))
      fail(GPTQ_E_UNSUPPORTED, "'", folder, "' has its weights only as pickle ('adapter_model.bin'), which can run code when read; load it with PEFT and save it again");
    return path;
  }

  // Every tensor must be a matrix of a LoRA of a module that the config chooses.
  void read_names() {
    for (const TensorEntry& entry : entries_) {
      std::string_view name = entry.name;
      if (!name.starts_with(key_prefix)) fail(GPTQ_E_UNSUPPORTED, "tensor '", entry.name, "' does not begin with '", key_prefix, "', as PEFT's do");
      name.remove_prefix(key_prefix.size());
      const bool is_a = name.ends_with(".lora_A.weight"), is_b = name.ends_with(".lora_B.weight");
      if (!is_a && !is_b) fail(GPTQ_E_UNSUPPORTED, "tensor '", entry.name, "' is no lora_A or lora_B of a linear module: not supported");
      const std::string module(name.substr(0, name.size() - std::strlen(".lora_A.weight")));
      if (!config_.targets(module)) fail(GPTQ_E_FORMAT, "tensor '", entry.name, "' is of a module that target_modules in adapter_config.json does not choose");
      if (entry.dtype != Dtype::f16 && entry.dtype != Dtype::bf16 && entry.dtype != Dtype::f32)
        fail(GPTQ_E_UNSUPPORTED, "tensor '", entry.name, "' is ", describe(entry), "; adapters must be F16, BF16 or F32");
      if (entry.shape.size() != 2) fail(GPTQ_E_FORMAT, "tensor '", entry.name, "' is ", describe(entry), " where a matrix belongs");
      (is_a ? changes_[module].a : changes_[module].b) = &entry;
    }
    for (auto& [module, change] : changes_) {
      if (!change.a || !change.b) fail(GPTQ_E_FORMAT, "module '", module, "' has lora_", change.a ? "A" : "B", " without the other");
      const uint64_t rank = config_.rank(module);
      if (change.a->shape[0] != rank || change.b->shape[1] != rank)
        fail(GPTQ_E_FORMAT, "module '", module, "': lora_A ", describe(*change.a), " and lora_B ", describe(*change.b), " where adapter_config.json says rank ", rank);
      change.used.resize(base::to_size(change.b->shape[0]));
    }
    if (changes_.empty()) fail(GPTQ_E_FORMAT, "'", weights_name, "' has no tensors");
  }

  // As the adapter has it: models with eyes have their text part under a prefix, the body of a model alone has no "model.".
  std::map<std::string, Change>::iterator find(const std::string& module) {
    if (const auto at = changes_.find(module); at != changes_.end()) return at;
    const bool inner = module.starts_with("model.");
    const std::string rest = inner ? module.substr(6) : module;
    for (const std::string& other : {"language_model." + module, "model.language_model." + rest, rest})
      if (const auto at = changes_.find(other); at != changes_.end()) return at;
    return changes_.end();
  }

  void add(const Published& published, const model::Slot& slot) {
    if (slot.is_vector || slot.id.bias || !slot.in_layer()) return;
    const Piece piece = published.layout.locate(published.spec, slot.id, [this](const std::string& name) { return find(name) != changes_.end(); });
    const auto at = piece.raw ? changes_.end() : find(piece.module);
    if (at == changes_.end()) return;
    auto& [module, change] = *at;
    if (!model::may_change(slot.id) || piece.slice >= 0) fail(GPTQ_E_UNSUPPORTED, "module '", module, "': adapters of such a module are not supported");
    const uint64_t rank = change.a->shape[0], k = change.a->shape[1], n = change.b->shape[0];
    if (k != slot.k || n != (piece.of_rows ? piece.of_rows : slot.n))
      fail(GPTQ_E_UNSUPPORTED, "the adapter is for another model: module '", module, "' has lora_A ", describe(*change.a), " and lora_B ", describe(*change.b), " where ",
           std::string_view(slot.name), " is ", slot.n, " x ", slot.k);
    const uint32_t r = static_cast<uint32_t>(rank);
    write(std::string(model::name_of_a(slot)), r, slot.k, read(*change.a), 1);
    write(std::string(model::name_of_b(slot)), slot.n, r, rows_of(read(*change.b), piece.rows, slot, module, change), static_cast<float>(config_.scale(module)));
    ++result_.n_matrices;
    result_.rank = std::max(result_.rank, r);
    result_.n_parameters += uint64_t{r} * (slot.k + slot.n);
  }

  DenseWeight read(const TensorEntry& entry) const {
    DenseWeight weight{entry.dtype == Dtype::f16 ? Kind::f16 : entry.dtype == Dtype::bf16 ? Kind::bf16 : Kind::f32, std::vector<std::byte>(base::to_size(entry.bytes))};
    source_.read_at(entry.offset, weight.bytes);
    return weight;
  }

  static DenseWeight rows_of(DenseWeight whole, const std::vector<uint32_t>& rows, const model::Slot& slot, const std::string& module, Change& change) {
    if (rows.empty()) {
      change.used.assign(change.used.size(), true);
      return whole;
    }
    if (rows.size() != slot.n || *std::max_element(rows.begin(), rows.end()) >= change.used.size())
      fail(GPTQ_E_UNSUPPORTED, "the adapter is for another model: module '", module, "' has lora_B ", describe(*change.b));
    const size_t size = whole.bytes.size() / change.used.size();
    DenseWeight out{whole.kind, std::vector<std::byte>(rows.size() * size)};
    for (size_t i = 0; i < rows.size(); ++i) {
      std::memcpy(out.bytes.data() + i * size, whole.bytes.data() + rows[i] * size, size);
      change.used[rows[i]] = true;
    }
    return out;
  }

  // In the kind that was asked for.
  DenseWeight rounded(DenseWeight weight) const {
    if (!options_.kind || weight.kind == *options_.kind) return weight;
    const Dtype dtype = weight.kind == Kind::f16 ? Dtype::f16 : weight.kind == Kind::bf16 ? Dtype::bf16 : Dtype::f32;
    const std::vector<float> values = to_floats(dtype, weight.bytes);
    const size_t size = kernels::bits_of(*options_.kind) / 8;
    DenseWeight out{*options_.kind, std::vector<std::byte>(values.size() * size)};
    for (size_t i = 0; i < values.size(); ++i) {
      const uint16_t half = out.kind == Kind::f16 ? kernels::half_from_float(values[i]) : kernels::bf16_from_float(values[i]);
      std::memcpy(out.bytes.data() + i * size, size == 2 ? static_cast<const void*>(&half) : &values[i], size);
    }
    return out;
  }

  void write(const std::string& name, uint32_t n, uint32_t k, const DenseWeight& given, float scale) {
    const DenseWeight weight = rounded(given);
    const PackedTensor packed = pack_dense(name, weight, n, k);
    model::check_values(packed.matrix(n, k), name);  // refuses what loading would refuse
    manifest_.tensors.push_back(model::write_tensor(writer_, name, n, k, 0, packed, format::Compression::stored));
    manifest_.tensors.back()->scale = scale;
  }

  void refuse_left_over() const {
    for (const auto& [module, change] : changes_) {
      if (std::all_of(change.used.begin(), change.used.end(), [](bool used) { return used; })) continue;
      if (std::none_of(change.used.begin(), change.used.end(), [](bool used) { return used; }))
        fail(GPTQ_E_UNSUPPORTED, "module '", module, "' is none of the matrices in the layers of this model: not supported");
      fail(GPTQ_E_UNSUPPORTED, "module '", module, "': lora_B has rows that no matrix of this model takes");
    }
  }

  std::pmr::memory_resource* const memory_ = std::pmr::get_default_resource();
  JsonDocument config_file_;
  AdapterConfig config_;
  base::FileSource source_;
  std::vector<TensorEntry> entries_;
  format::Reader reader_;
  const LoraOptions& options_;
  format::Writer writer_;
  std::map<std::string, Change> changes_;
  fb::ManifestT manifest_;
  LoraResult result_;
};

}  // namespace

LoraResult convert_lora(const std::string& folder, const base::Source& model, std::string_view path, const LoraOptions& options) {
  return Lora(folder, model, path, options).run();
}

}  // namespace gptq::convert
