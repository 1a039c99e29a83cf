// SPDX-License-Identifier: Apache-2.0
// Any bytes as a .gptq file with right hashes.
#include "base/checked.h"
#include "tests/fuzz/repaired.h"
#include "tests/fuzz/target.h"

using namespace gptq;

FUZZ_TARGET(container) {
  constexpr uint64_t memory_max = 256 << 20;
  const std::vector<std::byte> file = fuzz::repaired_container(data, size);
  base::HostMemory memory(nullptr, nullptr, nullptr, memory_max);
  try {
    const base::MemorySource source(file);
    base::Pool pool(1, nullptr, nullptr, &memory);
    const model::Model model(source, {}, pool, &memory);
  } catch (const base::Failure&) {
  }
  if (memory.bytes() != 0) __builtin_trap();
}
