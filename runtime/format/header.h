// SPDX-License-Identifier: Apache-2.0
// The fixed 64 bytes at the start of a .gptq file.
#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "format/hash.h"

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

inline uint64_t hash_header(const Header& header) { return hash_bytes({reinterpret_cast<const std::byte*>(&header), offsetof(Header, hash)}); }

}  // namespace gptq::format
