// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "base/failure.h"
#include "converter/inspect.h"
#include "model/adapter.h"
#include "model/model.h"
#include "text/tokenizer.h"

namespace gptq::convert {
namespace {

using base::fail;

void check_no_stray_tensors(const format::fb::Manifest& manifest, const model::ModelSpec& spec) {
  const auto slots = model::weight_slots(spec, std::pmr::get_default_resource());
  std::vector<std::string_view> names;
  for (const auto& slot : slots) names.push_back(slot.name);
  std::sort(names.begin(), names.end());
  for (const auto* tensor : *manifest.tensors()) {
    const std::string_view name(tensor->name()->c_str(), tensor->name()->size());
    if (!std::binary_search(names.begin(), names.end(), name))
      fail(GPTQ_E_FORMAT, "tensor '", name, "' belongs to no weight of this model");
  }
}

}  // namespace

// Loading skips what it has no use for, so every chunk is looked at first.
Verified verify(const base::Source& file) {
  auto* memory = std::pmr::get_default_resource();
  const format::Reader reader(file, memory);
  const auto& chunks = *reader.manifest().chunks();
  std::vector<std::byte> raw;
  for (uint32_t i = 0; i < chunks.size(); ++i) {
    raw.resize(chunks.Get(i)->raw());
    reader.read_chunk(i, raw, memory);
  }
  base::Pool pool(1, nullptr, nullptr, memory);
  const Verified found{reader.manifest().tensors()->size(), chunks.size(), file.size()};
  if (model::is_adapter(reader.manifest())) {
    model::Adapter(file, model::check_spec(*reader.manifest().spec(), memory), pool, memory);
    return found;
  }
  const model::Model model(file, {}, pool, memory);
  check_no_stray_tensors(reader.manifest(), model.spec);
  if (model.tokenizer.size()) text::Tokenizer(model.tokenizer.bytes(), model.spec.n_vocab, memory);
  return found;
}

}  // namespace gptq::convert
