// SPDX-License-Identifier: Apache-2.0
// XXH3-64 as the format uses it.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

namespace gptq::format {

uint64_t hash_bytes(std::span<const std::byte> bytes);

// The same, of bytes that come in pieces.
class Hash {
 public:
  Hash();
  void add(std::span<const std::byte> piece);
  uint64_t value() const;

 private:
  alignas(64) std::byte state_[576];
};

}  // namespace gptq::format
