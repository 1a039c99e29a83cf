// SPDX-License-Identifier: Apache-2.0
#include "converter/convert.h"

#include "base/checked.h"
#include "base/threads.h"
#include "converter/pack.h"
#include "converter/round.h"
#include "converter/tokenizer/description.h"
#include "converter/zstd_frame.h"

namespace gptq::convert {
namespace {

using base::fail;
namespace fb = format::fb;

PackedTensor pack(const model::Slot& slot, const Weight& weight, base::Pool& pool) {
  if (const auto* quantized = std::get_if<QuantizedWeight>(&weight)) {
    if (slot.is_vector) fail(GPTQ_E_FORMAT, "tensor '", std::string_view(slot.name), "' is a vector and cannot be quantized");
    return model::pack_quantized(slot.name, *quantized, slot.n, slot.k, pool);
  }
  const DenseWeight& dense = std::get<DenseWeight>(weight);
  return slot.is_vector ? pack_vector(slot.name, dense, slot.n) : pack_dense(slot.name, dense, slot.n, slot.k);
}

class Conversion {
 public:
  Conversion(ModelSource& source, std::string_view path, const ConvertOptions& options)
      : source_(source), options_(options), pool_(0, nullptr, nullptr, std::pmr::get_default_resource()),
        writer_(path, options.replace ? base::AtomicFile::IfExists::replace : base::AtomicFile::IfExists::refuse, zstd_frame) {}

  ConvertResult run() {
    const ModelDescription& description = source_.description();
    const model::ModelSpec spec = checked_spec(description.spec);
    add_weights(spec);
    if (description.tokenizer) {
      const std::vector<uint8_t> bytes = compile_tokenizer(*description.tokenizer);
      manifest_.tokenizer = std::make_unique<fb::Part>(writer_.add(fb::Role::codes, std::as_bytes(std::span(bytes)), format::Compression::zstd));
    }
    manifest_.spec = std::make_unique<fb::SpecT>(clone(description.spec));
    if (spec.beyond_llama) manifest_.required_features.emplace_back(model::layers_feature);
    manifest_.generation = std::make_unique<fb::GenerationT>(description.generation);
    for (const auto& [key, value] : description.meta) format::add_meta(manifest_, key, value);
    format::add_meta(manifest_, "converter", "gptq-convert " GPTQ_VERSION_TEXT);
    writer_.finish(manifest_);
    result_.bytes = writer_.size();
    return result_;
  }

 private:
  // Generated structs own parts of themselves and so cannot be copied.
  static fb::SpecT clone(const fb::SpecT& spec) {
    flatbuffers::FlatBufferBuilder builder;
    builder.Finish(fb::Spec::Pack(builder, &spec));
    fb::SpecT out;
    flatbuffers::GetRoot<fb::Spec>(builder.GetBufferPointer())->UnPackTo(&out);
    return out;
  }

  void add_weights(const model::ModelSpec& spec) {
    std::pmr::memory_resource* const memory = std::pmr::get_default_resource();
    uint64_t total = 0, done = 0;
    model::each_slot(spec, memory, [&](const model::Slot& slot) { total += uint64_t{slot.n} * slot.k; });
    uint32_t layer = model::no_index;
    model::each_slot(spec, memory, [&](const model::Slot& slot) {
      options_.progress(done, total);
      if (slot.id.layer != layer) source_.finish_layer(std::exchange(layer, slot.id.layer));
      add_weight(slot);
      done += uint64_t{slot.n} * slot.k;
    });
    options_.progress(total, total);
    source_.finish();
  }

  void add_weight(const model::Slot& slot) {
    Weight weight = source_.load(slot);
    if (std::holds_alternative<std::monostate>(weight)) {
      if (slot.required)
        fail(GPTQ_E_FORMAT, "the checkpoint has no weights for '", std::string_view(slot.name), "' (", slot.n, " x ", slot.k, ")");
      return;
    }
    round_head(slot, weight);
    int32_t group_size = 0;
    if (const auto* quantized = std::get_if<QuantizedWeight>(&weight)) group_size = quantized->group_size;
    const PackedTensor packed = pack(slot, weight, pool_);
    weight = {};
    model::check_values(packed.matrix(slot.n, slot.k), slot.name);  // refuses what loading would refuse
    const format::Compression codes = kernels::is_quantized(packed.kind) ? options_.codes : format::Compression::stored;
    manifest_.tensors.push_back(model::write_tensor(writer_, slot.name, slot.n, slot.k, group_size, packed, codes));
    ++result_.n_tensors;
    result_.n_weights += uint64_t{slot.n} * slot.k;
  }

  void round_head(const model::Slot& slot, Weight& weight) {
    const bool is_head = slot.id.role == (source_.description().spec.tied_head ? model::Role::embed : model::Role::head) && !slot.id.bias;
    if (options_.head_bits == 16 || !is_head) return;
    if (const auto* dense = std::get_if<DenseWeight>(&weight))
      weight = round_to_nearest(slot.name, *dense, slot.n, slot.k, options_.head_bits, pool_);
  }

  ModelSource& source_;
  const ConvertOptions& options_;
  base::Pool pool_;
  format::Writer writer_;
  fb::ManifestT manifest_;
  ConvertResult result_;
};

}  // namespace

ConvertResult convert(ModelSource& source, std::string_view path, const ConvertOptions& options) {
  return Conversion(source, path, options).run();
}

}  // namespace gptq::convert
