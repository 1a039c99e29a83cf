// SPDX-License-Identifier: Apache-2.0
#include "format/hash.h"

#include <xxhash.h>

#include <new>

namespace gptq::format {
namespace {

const XXH3_state_t& state_in(const std::byte* bytes) { return *std::launder(reinterpret_cast<const XXH3_state_t*>(bytes)); }
XXH3_state_t& state_in(std::byte* bytes) { return *std::launder(reinterpret_cast<XXH3_state_t*>(bytes)); }

}  // namespace

uint64_t hash_bytes(std::span<const std::byte> bytes) { return XXH3_64bits(bytes.data(), bytes.size()); }

Hash::Hash() {
  static_assert(sizeof state_ == sizeof(XXH3_state_t) && alignof(Hash) >= alignof(XXH3_state_t));
  XXH3_64bits_reset(new (state_) XXH3_state_t);
}

void Hash::add(std::span<const std::byte> piece) { XXH3_64bits_update(&state_in(state_), piece.data(), piece.size()); }
uint64_t Hash::value() const { return XXH3_64bits_digest(&state_in(state_)); }

}  // namespace gptq::format
