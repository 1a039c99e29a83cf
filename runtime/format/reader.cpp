// SPDX-License-Identifier: Apache-2.0
// Reads .gptq files: the only code that looks at untrusted model bytes before they are checked.
#define ZSTD_STATIC_LINKING_ONLY
#include <zstd.h>

#include <algorithm>
#include <vector>

#include "base/checked.h"
#include "base/file_kind.h"
#include "format/container.h"
#include "format/header.h"

namespace gptq::format {
namespace {

using base::fail;
using base::fail_at;

std::string_view view(const flatbuffers::String* text) { return {text->c_str(), text->size()}; }

void refuse_other_kinds(const base::Source& source) {
  if (const std::string_view kind = base::kind_of_file(source); !kind.empty()) fail(GPTQ_E_FORMAT, "not a .gptq file, but ", kind);
}

Header read_header(const base::Source& source) {
  Header header;
  if (source.size() < sizeof header) {
    refuse_other_kinds(source);
    fail(GPTQ_E_FORMAT, "not a .gptq file: ", source.size(), " bytes are less than its header");
  }
  source.read_at(0, std::as_writable_bytes(std::span(&header, 1)));
  if (std::memcmp(header.magic, header_magic, sizeof header.magic) != 0) {
    refuse_other_kinds(source);
    fail(GPTQ_E_FORMAT, "not a .gptq file: its first bytes differ");
  }
  if (header.major != version_major)
    fail(GPTQ_E_UNSUPPORTED, "file format version ", header.major, ".", header.minor, "; this build reads ", version_major,
        ".x: convert the model anew");
  if (header.hash != hash_header(header)) fail(GPTQ_E_CHECKSUM, "the file header is damaged: copy or download the file again");
  if (header.file_size != source.size())
    fail(GPTQ_E_FORMAT, "the file has ", source.size(), " bytes where its header says ", header.file_size, ": copy or download it again");
  if (header.zero != 0) fail_at(GPTQ_E_FORMAT, 48, "a reserved header field is not zero");
  if (header.manifest_size > manifest_bytes_max)
    fail(GPTQ_E_FORMAT, "the manifest has ", header.manifest_size, " bytes, more than ", manifest_bytes_max);
  if (header.manifest_offset < sizeof header || header.manifest_offset % chunk_align != 0 ||
      header.manifest_offset > header.file_size || header.file_size - header.manifest_offset != header.manifest_size)
    fail(GPTQ_E_FORMAT, "the manifest is not at the end of the file");
  return header;
}

// The verifier of FlatBuffers checks a vector's length word alone for alignment.
template <class T>
void check_aligned(const flatbuffers::Vector<const T*>& vector) {
  if (vector.size() && reinterpret_cast<uintptr_t>(vector.Data()) % alignof(T) != 0)
    fail(GPTQ_E_FORMAT, "the manifest has a misaligned list");
}

void check_chunks(const fb::Manifest& manifest, uint64_t end) {
  const auto& chunks = *manifest.chunks();
  check_aligned(chunks);
  uint64_t at = sizeof(Header);
  for (uint32_t i = 0; i < chunks.size(); ++i) {
    const fb::Chunk& chunk = *chunks.Get(i);
    if (chunk.offset() != at) fail_at(GPTQ_E_FORMAT, at, "chunk ", i, " begins at ", chunk.offset(), " where ", at, " belongs");
    if (chunk.stored() == 0 || chunk.stored() > chunk.raw() || chunk.raw() > chunk_bytes_max)
      fail_at(GPTQ_E_FORMAT, at, "chunk ", i, " has impossible sizes: stored ", chunk.stored(), ", raw ", chunk.raw());
    at = base::round_up(at + chunk.stored(), chunk_align);
    if (at > end) fail_at(GPTQ_E_FORMAT, chunk.offset(), "chunk ", i, " reaches into the manifest");
  }
  if (at != end) fail_at(GPTQ_E_FORMAT, at, "bytes before the manifest belong to no chunk");
}

// No chunk belongs to two parts, so that what is read stays in proportion to the file.
void check_part(const fb::Manifest& manifest, const fb::Part& part, std::string_view owner, std::pmr::vector<bool>& taken) {
  const auto& chunks = *manifest.chunks();
  if (part.n_chunks() == 0 || part.n_chunks() > chunks.size() || part.first_chunk() > chunks.size() - part.n_chunks())
    fail(GPTQ_E_FORMAT, "'", owner, "': chunks ", part.first_chunk(), " + ", part.n_chunks(), " of ", chunks.size());
  uint64_t bytes = 0;
  for (uint32_t i = part.first_chunk(); i < part.first_chunk() + part.n_chunks(); ++i) {
    if (taken[i]) fail(GPTQ_E_FORMAT, "'", owner, "': chunk ", i, " belongs to another part too");
    taken[i] = true;
    bytes += chunks.Get(i)->raw();
  }
  if (bytes != part.bytes()) fail(GPTQ_E_FORMAT, "'", owner, "': a part of ", part.bytes(), " bytes has chunks of ", bytes);
}

void check_tensors(const fb::Manifest& manifest, std::pmr::vector<bool>& taken) {
  const auto& tensors = *manifest.tensors();
  if (tensors.size() > tensors_max) fail(GPTQ_E_FORMAT, tensors.size(), " tensors, more than ", tensors_max);
  std::string_view previous;
  for (const fb::Tensor* tensor : tensors) {
    const std::string_view name = view(tensor->name());
    if (name.size() > name_bytes_max) fail(GPTQ_E_FORMAT, "a tensor name of ", name.size(), " bytes, more than ", name_bytes_max);
    if (name <= previous) fail(GPTQ_E_FORMAT, "tensor '", name, "' is empty, doubled or out of order");
    if (tensor->parts()->size() > parts_max) fail(GPTQ_E_FORMAT, "'", name, "': ", tensor->parts()->size(), " parts");
    check_aligned(*tensor->parts());
    for (const fb::Part* part : *tensor->parts()) check_part(manifest, *part, name, taken);
    previous = name;
  }
}

void check_manifest(const fb::Manifest& manifest, uint64_t end, std::pmr::memory_resource* memory) {
  check_chunks(manifest, end);
  std::pmr::vector<bool> taken(manifest.chunks()->size(), false, memory);
  check_tensors(manifest, taken);
  if (const fb::Part* part = manifest.tokenizer()) {
    if (part->bytes() > tokenizer_bytes_max)
      fail(GPTQ_E_FORMAT, "a tokenizer of ", part->bytes(), " bytes, more than ", tokenizer_bytes_max);
    check_part(manifest, *part, "tokenizer", taken);
  }
}

void check_hash(const fb::Chunk& chunk, uint64_t hash) {
  if (hash != chunk.hash())
    fail_at(GPTQ_E_CHECKSUM, chunk.offset(), "the file is damaged in the chunk at byte ", chunk.offset(), ": copy or download it again");
}

// Straight to its place, each piece hashed while the caches hold it; the padding is hashed behind.
void read_stored(const base::Source& source, const fb::Chunk& chunk, std::span<std::byte> dst) {
  constexpr size_t piece_bytes = 256 << 10;
  Hash hash;
  uint64_t at = chunk.offset();
  const auto read = [&](std::span<std::byte> piece) {
    source.read_at(at, piece);
    hash.add(piece);
    at += piece.size();
  };
  for (; !dst.empty(); dst = dst.subspan(std::min(dst.size(), piece_bytes))) read(dst.first(std::min(dst.size(), piece_bytes)));
  std::byte padding[chunk_align];
  read(std::span(padding).first(base::round_up(at, chunk_align) - at));
  check_hash(chunk, hash.value());
}

// Exactly one frame of exactly this size, decoded in one pass: the window the frame asks for is never allocated.
void decode(const fb::Chunk& chunk, std::span<const std::byte> stored, std::span<std::byte> dst, std::span<std::byte> workspace) {
  ZSTD_frameHeader frame;
  if (ZSTD_getFrameHeader(&frame, stored.data(), stored.size()) != 0 || frame.frameType != ZSTD_frame || frame.dictID != 0 ||
      frame.frameContentSize != dst.size() || ZSTD_findFrameCompressedSize(stored.data(), stored.size()) != stored.size())
    fail_at(GPTQ_E_FORMAT, chunk.offset(), "the chunk at byte ", chunk.offset(), " is not one zstd frame of ", dst.size(), " bytes");
  ZSTD_DCtx* context = ZSTD_initStaticDCtx(workspace.data(), workspace.size());
  if (!context) fail(GPTQ_E_INTERNAL, "zstd needs a larger workspace");
  const size_t n = ZSTD_decompressDCtx(context, dst.data(), dst.size(), stored.data(), stored.size());
  if (ZSTD_isError(n) || n != dst.size())
    fail_at(GPTQ_E_FORMAT, chunk.offset(), "the chunk at byte ", chunk.offset(), " does not decompress to ", dst.size(), " bytes");
}

void read_compressed(const base::Source& source, const fb::Chunk& chunk, std::span<std::byte> dst, std::pmr::memory_resource* memory) {
  const size_t padded = base::round_up(chunk.stored(), chunk_align);
  const base::Buffer scratch(memory, padded + ZSTD_estimateDCtxSize());
  const std::span<std::byte> bytes = scratch.bytes().first(padded);
  source.read_at(chunk.offset(), bytes);
  check_hash(chunk, hash_bytes(bytes));
  decode(chunk, bytes.first(chunk.stored()), dst, scratch.bytes().subspan(padded));
}

}  // namespace

Reader::Reader(const base::Source& source, std::pmr::memory_resource* memory) : source_(source) {
  const Header header = read_header(source);
  bytes_ = base::Buffer(memory, header.manifest_size);
  source.read_at(header.manifest_offset, bytes_.bytes());
  manifest_hash_ = hash_bytes(bytes_.bytes());
  if (manifest_hash_ != header.manifest_hash) fail(GPTQ_E_CHECKSUM, "the manifest is damaged: copy or download the file again");
  constexpr uint32_t depth_max = 8, tables_max = 2 * tensors_max;
  flatbuffers::Verifier verifier(reinterpret_cast<const uint8_t*>(bytes_.data()), bytes_.size(), depth_max, tables_max);
  if (!fb::VerifyManifestBuffer(verifier)) fail_at(GPTQ_E_FORMAT, header.manifest_offset, "the manifest is malformed");
  manifest_ = fb::GetManifest(bytes_.data());
  check_manifest(*manifest_, header.manifest_offset, memory);
}

const fb::Tensor* Reader::find(std::string_view name) const {
  const auto& tensors = *manifest_->tensors();
  const auto before = [](const fb::Tensor* tensor, std::string_view key) { return view(tensor->name()) < key; };
  const auto at = std::lower_bound(tensors.begin(), tensors.end(), name, before);
  return at != tensors.end() && view(at->name()) == name ? *at : nullptr;
}

void Reader::read_chunk(uint32_t index, std::span<std::byte> dst, std::pmr::memory_resource* memory) const {
  const auto& chunks = *manifest_->chunks();
  if (index >= chunks.size() || dst.size() != chunks.Get(index)->raw())
    fail(GPTQ_E_INTERNAL, "chunk ", index, " is wanted as ", dst.size(), " bytes");
  const fb::Chunk& chunk = *chunks.Get(index);
  if (chunk.stored() == chunk.raw()) read_stored(source_, chunk, dst); else read_compressed(source_, chunk, dst, memory);
}

void Reader::read_part(const fb::Part& part, std::span<std::byte> dst, std::pmr::memory_resource* memory) const {
  if (dst.size() != part.bytes()) fail(GPTQ_E_INTERNAL, "a part of ", part.bytes(), " bytes is wanted as ", dst.size());
  for (uint32_t i = 0; i < part.n_chunks(); ++i) {
    const size_t raw = manifest_->chunks()->Get(part.first_chunk() + i)->raw();
    read_chunk(part.first_chunk() + i, dst.first(raw), memory);
    dst = dst.subspan(raw);
  }
}

}  // namespace gptq::format
