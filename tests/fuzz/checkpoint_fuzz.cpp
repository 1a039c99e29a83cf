// SPDX-License-Identifier: Apache-2.0
// Two bytes of length, a config.json of that length, then model.safetensors: a Hugging Face folder, of which every weight is taken as a conversion does.
#include <algorithm>
#include <string_view>

#include "base/failure.h"
#include "tests/fuzz/target.h"
#include "tests/unit/checked_spec.h"
#include "tests/unit/temporary_folder.h"

using namespace gptq;

FUZZ_TARGET(checkpoint) {
  if (size < 2) return;
  static const test::TemporaryFolder folder;
  const std::string_view all(reinterpret_cast<const char*>(data) + 2, size - 2);
  const size_t config = std::min<size_t>(all.size(), data[0] | data[1] << 8);
  folder.write("config.json", all.substr(0, config));
  folder.write("model.safetensors", all.substr(config));
  try {
    const auto source = convert::open_source(folder.path(), {});
    test::load_all(*source);
  } catch (const base::Failure&) {
  }
}
