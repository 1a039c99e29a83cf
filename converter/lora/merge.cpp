// SPDX-License-Identifier: Apache-2.0
#include "converter/lora/merge.h"

#include <cstring>

#include "base/checked.h"
#include "converter/floats.h"
#include "converter/pack.h"
#include "converter/unpack.h"
#include "converter/zstd_frame.h"
#include "kernels/half.h"
#include "model/adapter.h"

namespace gptq::convert {
namespace {

namespace fb = format::fb;
using kernels::Kind;

std::vector<float> floats_of(const DenseWeight& weight) {
  return to_floats(weight.kind == Kind::f16 ? Dtype::f16 : weight.kind == Kind::bf16 ? Dtype::bf16 : Dtype::f32, weight.bytes);
}

class Merge {
 public:
  Merge(const base::Source& model, const base::Source& adapter, double scale, std::string_view path, base::AtomicFile::IfExists if_exists)
      : model_(model, memory_), adapter_(adapter, memory_), pool_(0, nullptr, nullptr, memory_), scale_(scale),
        spec_(model::check_spec(model_.manifest(), memory_)), writer_(path, if_exists, zstd_frame) {
    model::check_features(model_.manifest());
    model::Adapter(adapter, spec_, pool_, memory_);  // refuses what does not fit
  }

  void run() {
    fb::ManifestT manifest;
    model_.manifest().UnPackTo(&manifest);
    manifest.tensors.clear();
    for (const model::Slot& slot : model::weight_slots(spec_, memory_)) {
      const fb::Tensor* tensor = model_.find(slot.name);
      if (!tensor) continue;
      const fb::Tensor *a = adapter_.find(model::name_of_a(slot)), *b = adapter_.find(model::name_of_b(slot));
      if (a && b) {
        const PackedTensor packed = pack_dense(slot.name, merged(slot, *tensor, *a, *b), slot.n, slot.k);
        model::check_values(packed.matrix(slot.n, slot.k), slot.name);
        manifest.tensors.push_back(model::write_tensor(writer_, slot.name, slot.n, slot.k, 0, packed, format::Compression::stored));
        continue;
      }
      auto& copy = manifest.tensors.emplace_back(tensor->UnPack());
      for (fb::Part& part : copy->parts) part = copied(part, format::Compression::stored);
    }
    if (manifest.tokenizer) *manifest.tokenizer = copied(*manifest.tokenizer, format::Compression::zstd);
    writer_.finish(manifest);
  }

 private:
  fb::Part copied(const fb::Part& part, format::Compression how) {
    std::vector<std::byte> bytes(base::to_size(part.bytes()));
    model_.read_part(part, bytes, memory_);
    return writer_.add(part.role(), bytes, how);
  }

  std::vector<float> values(const fb::Tensor& tensor) const {
    std::vector<std::byte> bytes(base::to_size(tensor.parts()->Get(0)->bytes()));
    adapter_.read_part(*tensor.parts()->Get(0), bytes, memory_);
    return floats_of({static_cast<Kind>(tensor.kind()), std::move(bytes)});
  }

  DenseWeight merged(const model::Slot& slot, const fb::Tensor& tensor, const fb::Tensor& a_tensor, const fb::Tensor& b_tensor) {
    Weight weight = unpack(model_, tensor, slot, pool_);
    auto* dense = std::get_if<DenseWeight>(&weight);
    if (!dense) base::fail(GPTQ_E_UNSUPPORTED, "'", std::string_view(slot.name), "' is quantized: an adapter can be merged into 16 and 32 bit weights alone");
    const std::vector<float> w = floats_of(*dense), a = values(a_tensor), b = values(b_tensor);
    const uint32_t rank = a_tensor.n(), k = slot.k;
    const double scale = scale_ * double{b_tensor.scale()};
    pool_.run(slot.n, [&](uint32_t i) {
      std::vector<double> row(w.begin() + static_cast<std::ptrdiff_t>(uint64_t{i} * k), w.begin() + static_cast<std::ptrdiff_t>(uint64_t{i} * k + k));
      for (uint32_t r = 0; r < rank; ++r) {
        const double factor = scale * double{b[uint64_t{i} * rank + r]};
        for (uint32_t j = 0; j < k; ++j) row[j] += factor * double{a[uint64_t{r} * k + j]};
      }
      for (uint32_t j = 0; j < k; ++j) put(*dense, uint64_t{i} * k + j, static_cast<float>(row[j]));
    });
    return std::move(*dense);
  }

  static void put(DenseWeight& weight, uint64_t at, float value) {
    const uint16_t half = weight.kind == Kind::f16 ? kernels::half_from_float(value) : kernels::bf16_from_float(value);
    if (weight.kind == Kind::f32) std::memcpy(weight.bytes.data() + at * 4, &value, 4);
    else std::memcpy(weight.bytes.data() + at * 2, &half, 2);
  }

  std::pmr::memory_resource* const memory_ = std::pmr::get_default_resource();
  format::Reader model_, adapter_;
  base::Pool pool_;
  const double scale_;
  const model::ModelSpec spec_;
  format::Writer writer_;
};

}  // namespace

void merge_lora(const base::Source& model, const base::Source& adapter, double scale, std::string_view path, base::AtomicFile::IfExists if_exists) {
  Merge(model, adapter, scale, path, if_exists).run();
}

}  // namespace gptq::convert
