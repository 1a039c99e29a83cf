// SPDX-License-Identifier: Apache-2.0
// The fixed 64 bytes at the start of a .gptq file, and XXH3-64 as the format uses it.
#pragma once
#include <xxhash.h>

#include <bit>
#include <cstring>
#include <span>

namespace gptq::format {

static_assert(std::endian::native == std::endian::little, "the file format is little-endian and read in place");

struct Header {
  char magic[8];
  uint32_t major, minor;
  uint64_t manifest_offset, manifest_size, manifest_hash, file_size, zero;
  uint64_t hash;  // of the 56 bytes before
};
static_assert(sizeof(Header) == 64);

constexpr char header_magic[9] = "GPTQMDL\n";
constexpr uint64_t chunk_align = 64;

inline uint64_t hash_bytes(std::span<const std::byte> bytes) { return XXH3_64bits(bytes.data(), bytes.size()); }
inline uint64_t hash_header(const Header& header) { return XXH3_64bits(&header, offsetof(Header, hash)); }

}  // namespace gptq::format
