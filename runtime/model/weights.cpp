// SPDX-License-Identifier: Apache-2.0
#include "model/weights.h"

#include <algorithm>
#include <charconv>
#include <cstring>

#include "base/checked.h"

namespace gptq::model {
namespace {

using format::fb::Part;
using format::fb::Role;

// Chunks are read in parallel this many bytes at a time, with a look at progress and cancel between.
constexpr uint64_t round_bytes = 32u << 20;

struct ChunkPlace {
  uint32_t chunk;
  std::span<std::byte> dst;
};

// Gives every part its place in one block, in file order, and reads all chunks.
class Filler {
 public:
  Filler(const format::Reader& reader, std::span<std::byte> block, std::pmr::memory_resource* memory)
      : reader_(reader), free_(block), places_(memory), memory_(memory) {}

  std::byte* place(const Part& part) {
    std::byte* start = free_.data();
    const auto& chunks = *reader_.manifest().chunks();
    uint64_t at = 0;
    for (uint32_t i = 0; i < part.n_chunks(); ++i) {
      const uint32_t chunk = part.first_chunk() + i, raw = chunks[chunk]->raw();
      places_.push_back({chunk, free_.subspan(at, raw)});
      at += raw;
    }
    free_ = free_.subspan(std::min<uint64_t>(free_.size(), base::round_up(part.bytes(), base::Buffer::align)));
    return start;
  }

  void read_all(const LoadOptions& options, base::Pool& pool) {
    uint64_t total = 0, done = 0;
    for (const ChunkPlace& p : places_) total += p.dst.size();
    for (size_t first = 0; first < places_.size();) {
      size_t last = first;
      for (uint64_t bytes = 0; last < places_.size() && bytes < round_bytes; ++last) bytes += places_[last].dst.size();
      read(first, last, pool);
      for (; first < last; ++first) done += places_[first].dst.size();
      if (options.progress && options.progress(options.progress_user, static_cast<uint32_t>(done * 1000 / std::max<uint64_t>(total, 1))))
        base::fail(GPTQ_E_CANCELLED, "loading was cancelled");
    }
  }

 private:
  // Runs of small chunks share a task.
  void read(size_t first, size_t last, base::Pool& pool) {
    const uint32_t tasks = static_cast<uint32_t>(std::min<size_t>(last - first, pool.threads() * 8));
    pool.run_throwing(tasks, [&](uint32_t task) {
      const size_t n = last - first;
      for (size_t i = first + n * task / tasks; i < first + n * (task + 1) / tasks; ++i)
        reader_.read_chunk(places_[i].chunk, places_[i].dst, memory_);
    });
  }

  const format::Reader& reader_;
  std::span<std::byte> free_;
  std::pmr::vector<ChunkPlace> places_;
  std::pmr::memory_resource* memory_;
};

void place_parts(const format::fb::Tensor& tensor, Filler& filler, kernels::Matrix& w) {
  for (const Part* part : *tensor.parts()) {
    std::byte* data = filler.place(*part);
    switch (part->role()) {
      case Role::codes: w.codes = data; break;
      case Role::scales: w.scales = data; break;
      case Role::zeros: w.zeros = reinterpret_cast<const uint8_t*>(data); break;
      case Role::perm: w.perm = reinterpret_cast<const int32_t*>(data); break;
    }
  }
}

// Matrices that read the same activations often have the same column order: with one pointer for it they are packed once.
void share_perm(const kernels::Matrix& from, kernels::Matrix& to) {
  if (from.perm && to.perm && from.k_padded == to.k_padded && !std::memcmp(from.perm, to.perm, from.k_padded * sizeof(int32_t)))
    to.perm = from.perm;
}

}  // namespace

uint64_t placed_bytes(const format::fb::Tensor& tensor) {
  uint64_t bytes = 0;
  for (const Part* part : *tensor.parts()) bytes = base::add(bytes, base::round_up(part->bytes(), base::Buffer::align));
  return bytes;
}

std::pmr::string layer_prefix(uint32_t layer, std::pmr::memory_resource* memory) {
  char number[16];
  std::pmr::string prefix("layers.", memory);
  prefix.append(number, std::to_chars(number, number + sizeof number, layer).ptr);
  prefix += '.';
  return prefix;
}

Weights::Weights(const format::Reader& reader, std::span<const Slot> slots, const LoadOptions& options, base::Pool& pool,
                 std::pmr::memory_resource* memory)
    : memory_(memory), table_(memory) {
  struct Found {
    const Slot* slot;
    const format::fb::Tensor* tensor;
    kernels::Matrix w;
  };
  std::pmr::vector<Found> found(memory);
  uint64_t bytes = 0;
  for (const Slot& slot : slots) {
    const format::fb::Tensor* tensor = reader.find(slot.name);
    if (!tensor && slot.required) base::fail(GPTQ_E_FORMAT, "the file has no tensor '", slot.name, "'");
    if (!tensor) continue;
    found.push_back({&slot, tensor, check_tensor(*tensor, slot)});
    bytes = base::add(bytes, placed_bytes(*tensor));
    n_params_ = base::add(n_params_, base::mul(slot.n, slot.k));
  }
  block_ = base::Buffer(memory, base::to_size(bytes));
  Filler filler(reader, block_.bytes(), memory);
  for (Found& f : found) place_parts(*f.tensor, filler, f.w);
  filler.read_all(options, pool);
  pool.run_throwing(static_cast<uint32_t>(found.size()), [&](uint32_t i) { check_values(found[i].w, found[i].slot->name); });
  for (const Found& f : found) table_.emplace(f.slot->name, f.w);
}

const kernels::Matrix* Weights::find(std::string_view prefix, std::string_view name, std::string_view suffix) const {
  std::pmr::string key(prefix, memory_);
  key += name;
  key += suffix;
  const auto at = table_.find(key);
  return at == table_.end() ? nullptr : &at->second;
}

Linear Weights::linear(std::string_view prefix, std::string_view name) const {
  Linear linear;
  if (const auto* w = find(prefix, name)) linear.w = *w;
  linear.bias = vector(prefix, name, ".bias");
  return linear;
}

const float* Weights::vector(std::string_view prefix, std::string_view name, std::string_view suffix) const {
  const auto* w = find(prefix, name, suffix);
  return w ? static_cast<const float*>(w->codes) : nullptr;
}

Layer Weights::layer(uint32_t index) const {
  const std::pmr::string prefix = layer_prefix(index, memory_);
  Layer layer;
  layer.attn_norm = vector(prefix, "attn_norm");
  layer.mlp_norm = vector(prefix, "mlp_norm");
  layer.q_norm = vector(prefix, "q_norm");
  layer.k_norm = vector(prefix, "k_norm");
  layer.q = linear(prefix, "q");
  layer.k = linear(prefix, "k");
  layer.v = linear(prefix, "v");
  layer.o = linear(prefix, "o");
  layer.gate = linear(prefix, "gate");
  layer.up = linear(prefix, "up");
  layer.down = linear(prefix, "down");
  share_perm(layer.q.w, layer.k.w);
  share_perm(layer.q.w, layer.v.w);
  share_perm(layer.gate.w, layer.up.w);
  return layer;
}

}  // namespace gptq::model
