// SPDX-License-Identifier: Apache-2.0
// A complete .gptq file of a few kilobytes: every kind of weight, reordered and asymmetric ones included, random values.
#pragma once
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <random>
#include <string>
#include <unistd.h>
#include <vector>

#include "converter/zstd_frame.h"
#include "format/container.h"
#include "format/header.h"
#include "model/spec.h"

namespace gptq::test {

using Bytes = std::vector<std::byte>;
namespace fb = format::fb;

// A file name of this test alone, removed at the end.
class TemporaryPath {
 public:
  explicit TemporaryPath(std::string_view name)
      : path_((std::filesystem::temp_directory_path() / ("gptq-" + std::to_string(getpid()) + "-" + std::string(name))).string()) {}
  ~TemporaryPath() { std::remove(path_.c_str()); }
  const std::string& get() const { return path_; }

 private:
  std::string path_;
};

inline Bytes read_file(const std::string& path) {
  const base::FileSource file(path);
  Bytes bytes(file.size());
  file.read_at(0, bytes);
  return bytes;
}

inline void write_file(const std::string& path, std::span<const std::byte> bytes) {
  std::ofstream(path, std::ios::binary).write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
}

class TinyModel {
 public:
  fb::ManifestT manifest;
  std::vector<uint8_t> tokenizer;  // the section's bytes, or empty

  TinyModel() {
    manifest.spec = std::make_unique<fb::SpecT>();
    fb::SpecT& s = *manifest.spec;
    s.n_vocab = 20, s.n_layers = 1, s.n_embd = 32, s.n_ff = 40, s.n_heads = 2, s.n_kv_heads = 1, s.head_dim = 16, s.n_ctx_train = 64;
    s.norm_eps = 1e-5f, s.attention_scale = 0.25f, s.qk_norm = true, s.window = 8, s.windowed_layers = {1};
    s.rope = std::make_unique<fb::RopeT>();
    s.rope->dim = 16, s.rope->theta = 10000;
    for (int j = 0; j < 8; ++j) s.rope->inv_freq.push_back(1.0f / static_cast<float>(1 << j));
    manifest.generation = std::make_unique<fb::GenerationT>();
    manifest.generation->temperature = 0.7f, manifest.generation->end_tokens = {2, 3}, manifest.generation->eos = 2;
    manifest.meta.push_back(std::make_unique<fb::MetaT>());
    manifest.meta[0]->key = "name", manifest.meta[0]->value = "tiny";
  }

  // Writes it; change, if any, is made to the manifest once all chunks are there.
  Bytes build(format::Compression compression = format::Compression::stored, const std::function<void(fb::ManifestT&)>& change = {}) {
    const TemporaryPath path("tiny.gptq");
    format::Writer writer(path.get(), base::AtomicFile::IfExists::replace, convert::zstd_frame);
    manifest.tensors.clear();
    random_.seed(1);
    using kernels::Kind;
    add(writer, compression, "embed", Kind::f16, 20, 32);
    add(writer, compression, "final_norm", Kind::f32, 32, 1);
    add(writer, compression, "head", Kind::q4, 20, 32, 32, true);
    add(writer, compression, "layers.0.attn_norm", Kind::f32, 32, 1);
    add(writer, compression, "layers.0.q", Kind::q4, 32, 32, 16, false, true);
    add(writer, compression, "layers.0.q.bias", Kind::f32, 32, 1);
    add(writer, compression, "layers.0.k", Kind::q3, 16, 32, 16);
    add(writer, compression, "layers.0.v", Kind::q2, 16, 32, 64, true);
    add(writer, compression, "layers.0.o", Kind::q8, 32, 32, 32);
    add(writer, compression, "layers.0.q_norm", Kind::f32, 16, 1);
    add(writer, compression, "layers.0.k_norm", Kind::f32, 16, 1);
    add(writer, compression, "layers.0.mlp_norm", Kind::f32, 32, 1);
    add(writer, compression, "layers.0.gate", Kind::bf16, 40, 32);
    add(writer, compression, "layers.0.up", Kind::f32, 40, 32);
    add(writer, compression, "layers.0.down", Kind::q4, 32, 40, 16, true, true);
    if (!tokenizer.empty())
      manifest.tokenizer = std::make_unique<fb::Part>(writer.add(fb::Role::codes, std::as_bytes(std::span(tokenizer)), compression));
    if (change) change(manifest);
    writer.finish(manifest);
    return read_file(path.get());
  }

  fb::TensorT& tensor(std::string_view name) {
    for (auto& t : manifest.tensors)
      if (t->name == name) return *t;
    throw std::out_of_range(std::string(name));
  }

 private:
  Bytes random_bytes(size_t n, unsigned mask) {
    Bytes bytes(n);
    for (std::byte& b : bytes) b = static_cast<std::byte>(random_() & mask);
    return bytes;
  }

  void add(format::Writer& writer, format::Compression compression, std::string_view name, kernels::Kind kind, uint32_t n, uint32_t k,
           uint32_t group = 0, bool zeros = false, bool perm = false) {
    auto t = std::make_unique<fb::TensorT>();
    t->name = name, t->kind = static_cast<uint8_t>(kind), t->n = n, t->k = k, t->k_padded = group ? 64 : k, t->group = group;
    const size_t blocks = kernels::n_blocks(n), groups = group ? (64 + group - 1) / group : 0;
    // A mask of 0x3B keeps every 16- and 32-bit float finite.
    const size_t values = group ? blocks * kernels::tile_bytes(kind) : size_t{n} * k * kernels::bits_of(kind) / 8;
    t->parts.push_back(writer.add(fb::Role::codes, random_bytes(values, group ? 0xFF : 0x3B), compression));
    if (group) t->parts.push_back(writer.add(fb::Role::scales, random_bytes(blocks * groups * 32, 0x3B), compression));
    if (zeros) t->parts.push_back(writer.add(fb::Role::zeros, random_bytes(blocks * groups * 16, 0x03), compression));
    if (perm) {
      std::vector<int32_t> order(64, -1);
      for (uint32_t i = 0; i < k; ++i) order[i] = static_cast<int32_t>(k - 1 - i);
      t->parts.push_back(writer.add(fb::Role::perm, std::as_bytes(std::span(order)), compression));
    }
    manifest.tensors.push_back(std::move(t));
  }

  std::minstd_rand random_;
};

// Makes both hashes right again after the manifest was changed in place.
inline void rehash(Bytes& file) {
  format::Header header;
  std::memcpy(&header, file.data(), sizeof header);
  if (header.manifest_offset <= file.size()) {
    const auto manifest = std::span<const std::byte>(file).subspan(header.manifest_offset);
    header.manifest_hash = format::hash_bytes(manifest.first(std::min<size_t>(manifest.size(), header.manifest_size)));
  }
  header.hash = format::hash_header(header);
  std::memcpy(file.data(), &header, sizeof header);
}

}  // namespace gptq::test
