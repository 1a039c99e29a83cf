// SPDX-License-Identifier: Apache-2.0
// Writes .gptq files in one pass: header space, chunks, manifest, and the header last.
#include <algorithm>

#include "base/checked.h"
#include "format/container.h"
#include "format/header.h"

namespace gptq::format {
namespace {

constexpr size_t chunk_bytes = 4 << 20;  // small enough to spread one tensor over threads

}  // namespace

Writer::Writer(std::string_view path, base::AtomicFile::IfExists if_exists, MakeFrame zstd) : file_(path, if_exists), zstd_(zstd) {
  const Header space{};
  file_.append(std::as_bytes(std::span(&space, 1)));
}

fb::Part Writer::add(fb::Role role, std::span<const std::byte> bytes, Compression compression) {
  const size_t first = chunks_.size();
  const uint64_t total = bytes.size();
  std::vector<std::byte> frame, padded;
  while (!bytes.empty()) {
    const auto raw = bytes.first(std::min(bytes.size(), chunk_bytes));
    auto stored = raw;
    if (zstd_ && compression == Compression::zstd) {
      const auto shorter = zstd_(raw, frame);
      if (shorter.size() <= raw.size() - base::divide_up(raw.size(), 32)) stored = shorter;
    }
    padded.assign(stored.begin(), stored.end());
    padded.resize(base::round_up(stored.size(), chunk_align));
    chunks_.emplace_back(file_.size(), hash_bytes(padded), static_cast<uint32_t>(stored.size()), static_cast<uint32_t>(raw.size()));
    file_.append(padded);
    bytes = bytes.subspan(raw.size());
  }
  return fb::Part(total, static_cast<uint32_t>(first), static_cast<uint32_t>(chunks_.size() - first), role);
}

void Writer::finish(fb::ManifestT& manifest) {
  manifest.chunks = chunks_;
  std::sort(manifest.tensors.begin(), manifest.tensors.end(), [](const auto& a, const auto& b) { return a->name < b->name; });
  flatbuffers::FlatBufferBuilder builder;
  fb::FinishManifestBuffer(builder, fb::Manifest::Pack(builder, &manifest));
  const auto bytes = std::as_bytes(std::span(builder.GetBufferPointer(), builder.GetSize()));
  if (bytes.size() > manifest_bytes_max)
    base::fail(GPTQ_E_UNSUPPORTED, "the manifest would have ", bytes.size(), " bytes, more than ", manifest_bytes_max,
        ": fewer tensors or metadata");

  Header header{};
  std::memcpy(header.magic, header_magic, sizeof header.magic);
  header.major = version_major;
  header.minor = version_minor;
  header.manifest_offset = file_.size();
  header.manifest_size = bytes.size();
  header.manifest_hash = hash_bytes(bytes);
  header.file_size = file_.size() + bytes.size();
  header.hash = hash_header(header);
  file_.append(bytes);
  file_.write_at(0, std::as_bytes(std::span(&header, 1)));
  file_.commit();
}

void add_meta(fb::ManifestT& manifest, std::string key, std::string value) {
  auto meta = std::make_unique<fb::MetaT>();
  meta->key = std::move(key);
  meta->value = std::move(value);
  manifest.meta.push_back(std::move(meta));
}

}  // namespace gptq::format
