// SPDX-License-Identifier: Apache-2.0
// A container with all hashes made right, so that a fuzzer gets past them.
#pragma once
#include <cstring>
#include <span>
#include <vector>

#include "format/header.h"
#include "model/model.h"

namespace gptq::fuzz {

// Where the manifest can be read, its chunks' hashes too.
inline void repair_chunks(std::vector<std::byte>& file, const format::Header& header) {
  const auto manifest = std::span(file).subspan(header.manifest_offset);
  if (header.manifest_size == 0 || header.manifest_size > manifest.size()) return;
  std::vector<uint64_t> aligned((header.manifest_size + 7) / 8);
  std::memcpy(aligned.data(), manifest.data(), header.manifest_size);
  const auto* bytes = reinterpret_cast<const uint8_t*>(aligned.data());
  flatbuffers::Verifier verifier(bytes, header.manifest_size);
  if (!format::fb::VerifyManifestBuffer(verifier)) return;
  const auto* chunks = format::fb::GetManifest(bytes)->chunks();
  if (!chunks || reinterpret_cast<uintptr_t>(chunks->Data()) % 8 != 0) return;
  for (const auto* chunk : *chunks) {
    const uint64_t size = (uint64_t{chunk->stored()} + 63) / 64 * 64;
    if (chunk->offset() > file.size() || size > file.size() - chunk->offset()) continue;
    const uint64_t hash = format::hash_bytes(std::span<const std::byte>(file).subspan(chunk->offset(), size));
    const size_t at = static_cast<size_t>(reinterpret_cast<const uint8_t*>(chunk) - bytes) + 8;
    std::memcpy(file.data() + header.manifest_offset + at, &hash, sizeof hash);
  }
}

inline std::vector<std::byte> repaired_container(const uint8_t* data, size_t size) {
  std::vector<std::byte> file(size);
  if (size) std::memcpy(file.data(), data, size);
  format::Header header;
  if (file.size() < sizeof header) return file;
  std::memcpy(&header, file.data(), sizeof header);
  std::memcpy(header.magic, format::header_magic, sizeof header.magic);
  header.major = format::version_major;
  header.file_size = file.size();
  header.zero = 0;
  if (header.manifest_offset % 64 == 0 && header.manifest_offset >= 64 && header.manifest_offset <= file.size()) {
    header.manifest_size = file.size() - header.manifest_offset;
    if (header.manifest_size <= format::manifest_bytes_max) repair_chunks(file, header);
    header.manifest_hash = format::hash_bytes(std::span<const std::byte>(file).subspan(header.manifest_offset));
  }
  header.hash = format::hash_header(header);
  std::memcpy(file.data(), &header, sizeof header);
  return file;
}

}  // namespace gptq::fuzz
