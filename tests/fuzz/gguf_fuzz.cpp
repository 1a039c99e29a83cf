// SPDX-License-Identifier: Apache-2.0
// Any bytes as a GGUF file, opened and taken out as a conversion does.
#include <cstring>
#include <vector>

#include "base/failure.h"
#include "converter/gguf/gguf_source.h"
#include "converter/tokenizer/description.h"
#include "tests/fuzz/target.h"

using namespace gptq;

FUZZ_TARGET(gguf) {
  const std::span<const std::byte> file(reinterpret_cast<const std::byte*>(data), size);
  auto* memory = std::pmr::get_default_resource();
  try {
    const auto source = convert::open_gguf(std::make_unique<base::MemorySource>(file), "fuzz.gguf", {});
    flatbuffers::FlatBufferBuilder builder;
    builder.Finish(format::fb::Spec::Pack(builder, &source->description().spec));
    const model::ModelSpec spec = model::check_spec(*flatbuffers::GetRoot<format::fb::Spec>(builder.GetBufferPointer()), memory);
    for (const model::Slot& slot : model::weight_slots(spec, memory)) source->load(slot);
    if (source->description().tokenizer) convert::compile_tokenizer(*source->description().tokenizer);
  } catch (const base::Failure&) {
  }
}
