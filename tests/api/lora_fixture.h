// SPDX-License-Identifier: Apache-2.0
// A random LoRA of all the matrices of a model that may have one, as a PEFT folder, as a .gptq-lora file, and added to the model's weights.
#pragma once
#include <cmath>
#include <random>

#include "converter/convert.h"
#include "converter/floats.h"
#include "converter/hf/published.h"
#include "converter/lora/lora.h"
#include "model/adapter.h"
#include "tests/api/fixture.h"
#include "tests/unit/converter_fixture.h"

namespace gptq::test {

struct LoraShape {
  uint32_t rank = 8, seed = 1;
  double alpha = 16;
  float size = 1;  // of its effect
  bool attention_alone = false;
};

class Lora {
 public:
  // Of the model file that a checkpoint's folder became.
  Lora(const std::string& model, const LoraShape& shape = {}) : shape_(shape) {
    const base::FileSource file(model);
    const format::Reader reader(file, std::pmr::get_default_resource());
    const model::ModelSpec spec = model::check_spec(*reader.manifest().spec(), std::pmr::get_default_resource());
    const convert::Published published = convert::read_published(reader.manifest());
    std::mt19937 random(shape.seed);
    for (const model::Slot& slot : model::weight_slots(spec, std::pmr::get_default_resource())) {
      if (slot.is_vector || !model::may_change(slot.id) || (shape.attention_alone && slot.id.role > model::Role::o)) continue;
      const convert::Piece piece = published.locate(slot.id);
      if (piece.raw) continue;
      uint32_t n = slot.n;
      for (const uint32_t row : piece.rows) n = std::max(n, row + 1);
      Module& module = modules_[piece.module];
      module.k = slot.k;
      module.n = std::max(module.n, n);
      places_[std::string(slot.name)] = {piece.module, piece.rows};
    }
    std::normal_distribution<float> normal;
    for (auto& [name, m] : modules_) {
      m.a.resize(uint64_t{shape.rank} * m.k), m.b.resize(uint64_t{m.n} * shape.rank);
      for (float& x : m.a) x = normal(random) / std::sqrt(static_cast<float>(m.k));
      for (float& x : m.b) x = shape.size * 0.02f * normal(random);
    }
    write();
    convert::convert_lora(folder_.path(), file, path(), {});
  }
  std::string path() const { return folder_.file("a.gptq-lora"); }
  const TemporaryFolder& folder() const { return folder_; }

  // The model with the LoRA's part in its weights, in float64 and then float32.
  std::string merged(const std::string& checkpoint, double scale = 1) const {
    Merged source(convert::open_source(checkpoint, {}), *this, scale * shape_.alpha / shape_.rank);
    convert::ConvertOptions how;
    how.replace = true;
    convert::convert(source, folder_.file("merged.gptq"), how);
    return folder_.file("merged.gptq");
  }

 private:
  struct Module {
    uint32_t n = 0, k = 0;
    std::vector<float> a, b;  // [rank][k], [n][rank]
  };
  struct Place {
    std::string module;
    std::vector<uint32_t> rows;
  };

  void write() const {
    std::map<std::string, RawTensor> tensors;
    std::string targets;
    for (const auto& [name, m] : modules_) {
      tensors["base_model.model." + name + ".lora_A.weight"] = tensor("F32", {shape_.rank, m.k}, m.a);
      tensors["base_model.model." + name + ".lora_B.weight"] = tensor("F32", {m.n, shape_.rank}, m.b);
      targets += (targets.empty() ? "\"" : ",\"") + name + "\"";
    }
    folder_.write("adapter_model.safetensors", safetensors(tensors));
    folder_.write("adapter_config.json", "{\"peft_type\":\"LORA\",\"r\":" + std::to_string(shape_.rank) + ",\"lora_alpha\":" + std::to_string(shape_.alpha) +
                                             ",\"target_modules\":[" + targets + "]}");
  }

  class Merged final : public convert::ModelSource {
   public:
    Merged(std::unique_ptr<convert::ModelSource> inner, const Lora& lora, double scale) : inner_(std::move(inner)), lora_(lora), scale_(scale) {}
    const convert::ModelDescription& description() const override { return inner_->description(); }
    convert::Weight load(const model::Slot& slot) override {
      convert::Weight weight = inner_->load(slot);
      const auto place = lora_.places_.find(std::string(slot.name));
      if (place == lora_.places_.end() || slot.id.bias) return weight;
      std::vector<double> values = values_of(weight, slot);
      const Module& m = lora_.modules_.at(place->second.module);
      const uint32_t rank = lora_.shape_.rank;
      for (uint64_t i = 0; i < slot.n; ++i)
        for (uint32_t r = 0; r < rank; ++r) {
          const uint64_t row = place->second.rows.empty() ? i : place->second.rows[i];
          const double b = scale_ * m.b[row * rank + r];
          for (uint64_t j = 0; j < slot.k; ++j) values[i * slot.k + j] += b * m.a[uint64_t{r} * slot.k + j];
        }
      convert::DenseWeight out{kernels::Kind::f32, std::vector<std::byte>(values.size() * sizeof(float))};
      for (size_t i = 0; i < values.size(); ++i) {
        const float value = static_cast<float>(values[i]);
        std::memcpy(out.bytes.data() + i * sizeof value, &value, sizeof value);
      }
      return out;
    }

   private:
    static std::vector<double> values_of(const convert::Weight& weight, const model::Slot& slot) {
      std::vector<double> values(uint64_t{slot.n} * slot.k);
      if (const auto* dense = std::get_if<convert::DenseWeight>(&weight)) {
        using kernels::Kind;
        const auto dtype = dense->kind == Kind::f16 ? convert::Dtype::f16 : dense->kind == Kind::bf16 ? convert::Dtype::bf16 : convert::Dtype::f32;
        const std::vector<float> floats = convert::to_floats(dtype, dense->bytes);
        std::copy(floats.begin(), floats.end(), values.begin());
        return values;
      }
      const auto& q = std::get<model::QuantizedWeight>(weight);
      const uint32_t group = q.group_size > 0 ? static_cast<uint32_t>(q.group_size) : slot.k;
      for (uint64_t i = 0; i < slot.n; ++i)
        for (uint32_t j = 0; j < slot.k; ++j) {
          const uint64_t g = i * q.n_groups + (q.g_idx.empty() ? j / group : static_cast<uint32_t>(q.g_idx[j]));
          const int zero = q.zeros.empty() ? 1 << (q.bits - 1) : q.zeros[g];
          values[i * slot.k + j] = double{q.scales[g]} * (q.codes[i * slot.k + j] - zero);
        }
      return values;
    }
    std::unique_ptr<convert::ModelSource> inner_;
    const Lora& lora_;
    const double scale_;
  };

  const LoraShape shape_;
  TemporaryFolder folder_;
  std::map<std::string, Module> modules_;
  std::map<std::string, Place> places_;
};

}  // namespace gptq::test
