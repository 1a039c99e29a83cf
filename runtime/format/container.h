// SPDX-License-Identifier: Apache-2.0
// The .gptq container: header, chunks, manifest. Everything read here is checked: sizes against the file, hashes against the bytes.
//
// Header, 64 bytes, little-endian: magic "GPTQMDL\n", u32 major, u32 minor, u64 manifest offset, u64 manifest size, u64 XXH3-64 of the
// manifest, u64 file size, u64 zero, u64 XXH3-64 of the 56 bytes before. Chunks follow without gaps, then the manifest to the end of the
// file: every byte of the file is under one of the hashes.
#pragma once
#include <span>
#include <vector>

#include "base/io.h"
#include "base/memory.h"
#include "model_generated.h"

namespace gptq::format {

constexpr uint32_t version_major = 1, version_minor = 0;
constexpr uint64_t chunk_bytes_max = 16u << 20, manifest_bytes_max = 16u << 20, tokenizer_bytes_max = 64u << 20;
constexpr uint32_t tensors_max = 262144, name_bytes_max = 512, parts_max = 4;

class Reader {
 public:
  // Reads and checks header and manifest. The source must outlive the reader.
  Reader(const base::Source& source, std::pmr::memory_resource* memory);

  const fb::Manifest& manifest() const { return *manifest_; }
  uint64_t manifest_hash() const { return manifest_hash_; }
  uint64_t manifest_bytes() const { return bytes_.size(); }
  // The tensor of that name, or NULL. Tensors are in the order of their names.
  const fb::Tensor* find(std::string_view name) const;

  // Fills dst (part.bytes() bytes) from the part's chunks. Thread-safe; scratch memory of at most one chunk and a little comes from memory.
  void read_part(const fb::Part& part, std::span<std::byte> dst, std::pmr::memory_resource* memory) const;
  // One chunk of it, for reading chunks in parallel: dst is the chunk's place, raw() bytes.
  void read_chunk(uint32_t chunk, std::span<std::byte> dst, std::pmr::memory_resource* memory) const;

 private:
  const base::Source& source_;
  base::Buffer bytes_;
  const fb::Manifest* manifest_ = nullptr;
  uint64_t manifest_hash_ = 0;
};

enum class Compression { stored, zstd };

// Makes one zstd frame of raw, within frame. The library has none and stores: it reads frames, and zstd's compressor would be a fifth of
// its size. converter/zstd_frame.h has it.
using MakeFrame = std::span<const std::byte> (*)(std::span<const std::byte> raw, std::vector<std::byte>& frame);

// Writes chunks as they come, then manifest and header; the file appears with finish().
class Writer {
 public:
  Writer(std::string_view path, base::AtomicFile::IfExists if_exists, MakeFrame zstd = nullptr);
  // Appends one run of bytes, cut into chunks; zstd, if there is one, is kept per chunk where it saves at least 1/32.
  fb::Part add(fb::Role role, std::span<const std::byte> bytes, Compression compression);
  // Takes the manifest without chunks, adds them, writes all and renames.
  void finish(fb::ManifestT& manifest);
  uint64_t size() const { return file_.size(); }

 private:
  base::AtomicFile file_;
  MakeFrame zstd_;
  std::vector<fb::Chunk> chunks_;
};

void add_meta(fb::ManifestT& manifest, std::string key, std::string value);

}  // namespace gptq::format
