// SPDX-License-Identifier: Apache-2.0
// Any bytes as a GGUF file, opened and taken out as a conversion does.
#include <span>

#include "base/failure.h"
#include "converter/gguf/gguf_source.h"
#include "converter/tokenizer/description.h"
#include "tests/fuzz/target.h"
#include "tests/unit/checked_spec.h"

using namespace gptq;

FUZZ_TARGET(gguf) {
  const std::span<const std::byte> file(reinterpret_cast<const std::byte*>(data), size);
  try {
    const auto source = convert::open_gguf(std::make_unique<base::MemorySource>(file), "fuzz.gguf", {});
    test::load_all(*source);
    if (source->description().tokenizer) convert::compile_tokenizer(*source->description().tokenizer);
  } catch (const base::Failure&) {
  }
}
