// SPDX-License-Identifier: Apache-2.0
#include "model/weights.h"

#include <algorithm>
#include <cstring>

#include "base/checked.h"

namespace gptq::model {
namespace {

using format::fb::Part;
using PartRole = format::fb::Role;

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
      case PartRole::codes: w.codes = data; break;
      case PartRole::scales: w.scales = data; break;
      case PartRole::zeros: w.zeros = reinterpret_cast<const uint8_t*>(data); break;
      case PartRole::perm: w.perm = reinterpret_cast<const int32_t*>(data); break;
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
  for (const Found& f : found) table_.emplace(f.slot->id.key(), f.w);
}

const kernels::Matrix* Weights::find(const SlotId& id) const {
  const auto at = table_.find(id.key());
  return at == table_.end() ? nullptr : &at->second;
}

Linear Weights::linear(SlotId id) const {
  Linear linear;
  if (const auto* w = find(id)) linear.w = *w;
  id.bias = true;
  if (const auto* bias = find(id)) linear.bias = static_cast<const float*>(bias->codes);
  return linear;
}

Layer Weights::layer(const ModelSpec& spec, uint32_t index) const {
  Layer layer(memory_);
  for (auto i = static_cast<uint32_t>(first_layer_role); i < static_cast<uint32_t>(first_expert_role); ++i) {
    const auto role = static_cast<Role>(i);
    layer[role] = linear({.role = role, .layer = index});
    layer[role].slot = slot_number(index, role);
  }
  if (spec.layers[index].experts) layer.experts.resize(spec.experts.n);
  for (uint32_t expert = 0; expert < layer.experts.size(); ++expert) {
    const auto of = [&](Role role) { return linear({.role = role, .layer = index, .expert = expert}); };
    layer.experts[expert] = {of(Role::expert_gate), of(Role::expert_up), of(Role::expert_down)};
  }
  for (const Role role : {Role::k, Role::v, Role::attn_gate, Role::z}) share_perm(layer[Role::q].w, layer[role].w);
  share_perm(layer[Role::gate].w, layer[Role::up].w);
  share_perm(layer[Role::shared_gate].w, layer[Role::shared_up].w);
  for (Expert& expert : layer.experts) share_perm(expert.gate.w, expert.up.w);
  return layer;
}

}  // namespace gptq::model
