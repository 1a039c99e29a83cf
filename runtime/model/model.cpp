// SPDX-License-Identifier: Apache-2.0
#include "model/model.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <unordered_map>

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

uint64_t placed_bytes(const format::fb::Tensor& tensor) {
  uint64_t bytes = 0;
  for (const Part* part : *tensor.parts()) bytes = base::add(bytes, base::round_up(part->bytes(), base::Buffer::align));
  return bytes;
}

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

using Table = std::pmr::unordered_map<std::pmr::string, kernels::Matrix>;

// Weights of one name, looked up in the table of all that were loaded.
class Weights {
 public:
  Weights(const Table& table, std::pmr::memory_resource* memory) : table_(table), memory_(memory) {}
  const kernels::Matrix* find(std::string_view prefix, std::string_view name, std::string_view suffix = "") const {
    std::pmr::string key(prefix, memory_);
    key += name;
    key += suffix;
    const auto at = table_.find(key);
    return at == table_.end() ? nullptr : &at->second;
  }
  Linear linear(std::string_view prefix, std::string_view name) const {
    Linear linear;
    if (const auto* w = find(prefix, name)) linear.w = *w;
    linear.bias = vector(prefix, name, ".bias");
    return linear;
  }
  const float* vector(std::string_view prefix, std::string_view name, std::string_view suffix = "") const {
    const auto* w = find(prefix, name, suffix);
    return w ? static_cast<const float*>(w->codes) : nullptr;
  }

 private:
  const Table& table_;
  std::pmr::memory_resource* memory_;
};

// Matrices that read the same activations often have the same column order: with one pointer for it they are packed once.
void share_perm(const kernels::Matrix& from, kernels::Matrix& to) {
  if (from.perm && to.perm && from.k_padded == to.k_padded && !std::memcmp(from.perm, to.perm, from.k_padded * sizeof(int32_t)))
    to.perm = from.perm;
}

Layer make_layer(const Weights& weights, std::string_view prefix) {
  Layer layer;
  layer.attn_norm = weights.vector(prefix, "attn_norm");
  layer.mlp_norm = weights.vector(prefix, "mlp_norm");
  layer.q_norm = weights.vector(prefix, "q_norm");
  layer.k_norm = weights.vector(prefix, "k_norm");
  layer.q = weights.linear(prefix, "q");
  layer.k = weights.linear(prefix, "k");
  layer.v = weights.linear(prefix, "v");
  layer.o = weights.linear(prefix, "o");
  layer.gate = weights.linear(prefix, "gate");
  layer.up = weights.linear(prefix, "up");
  layer.down = weights.linear(prefix, "down");
  share_perm(layer.q.w, layer.k.w);
  share_perm(layer.q.w, layer.v.w);
  share_perm(layer.gate.w, layer.up.w);
  return layer;
}

std::pmr::string layer_prefix(uint32_t layer, std::pmr::memory_resource* memory) {
  char number[16];
  std::pmr::string prefix("layers.", memory);
  prefix.append(number, std::to_chars(number, number + sizeof number, layer).ptr);
  prefix += '.';
  return prefix;
}

void check_token(int32_t token, uint32_t n_vocab, std::string_view name) {
  if (token < -1 || token >= static_cast<int64_t>(n_vocab))
    base::fail(GPTQ_E_FORMAT, name, " token ", token, " is outside the vocabulary of ", n_vocab);
}

void read_generation(const format::fb::Generation& from, uint32_t n_vocab, Generation& to) {
  to.temperature = from.temperature();
  to.top_k = from.top_k();
  to.top_p = from.top_p();
  to.min_p = from.min_p();
  to.repeat_penalty = from.repeat_penalty();
  to.bos = from.bos();
  to.eos = from.eos();
  to.pad = from.pad();
  if (from.end_tokens()) to.end_tokens.assign(from.end_tokens()->begin(), from.end_tokens()->end());
  for (int32_t token : {to.bos, to.eos, to.pad}) check_token(token, n_vocab, "a special");
  for (int32_t token : to.end_tokens) check_token(token, n_vocab, "an end");
  for (float value : {to.temperature, to.top_p, to.min_p, to.repeat_penalty})
    if (!(value >= 0 && value <= 1000))
      base::fail(GPTQ_E_FORMAT, "a recommended sampling value is out of range: ", static_cast<double>(value));
}

}  // namespace

uint64_t loaded_bytes(const format::Reader& reader, const ModelSpec& spec, std::pmr::memory_resource* memory) {
  const format::fb::Manifest& manifest = reader.manifest();
  uint64_t bytes = spec.n_layers * (sizeof(Layer) + sizeof(uint32_t)) + spec.rope.dim * sizeof(float);
  if (manifest.tokenizer()) bytes = base::add(bytes, manifest.tokenizer()->bytes());
  if (manifest.generation() && manifest.generation()->end_tokens()) bytes += manifest.generation()->end_tokens()->size() * sizeof(int32_t);
  if (manifest.meta())
    for (const auto* entry : *manifest.meta()) bytes += 2 * sizeof(std::pmr::string) + entry->key()->size() + entry->value()->size() + 2;
  for (const Slot& slot : weight_slots(spec, memory))
    if (const format::fb::Tensor* tensor = reader.find(slot.name)) bytes = base::add(bytes, placed_bytes(*tensor));
  return bytes;
}

uint64_t loading_bytes(const format::fb::Manifest& manifest, uint32_t threads) {
  constexpr uint64_t per_tensor = 512, decoder = 256 << 10;
  uint64_t chunk = 0;
  for (const format::fb::Chunk* c : *manifest.chunks())
    if (c->stored() < c->raw()) chunk = std::max<uint64_t>(chunk, c->stored() + decoder);
  return threads * chunk + manifest.tensors()->size() * per_tensor + manifest.chunks()->size() * 2 * sizeof(ChunkPlace);
}

Model::Model(const base::Source& source, const LoadOptions& options, base::Pool& pool, std::pmr::memory_resource* memory)
    : spec(memory), layers(memory), generation(memory), meta(memory) {
  const format::Reader reader(source, memory);
  const format::fb::Manifest& manifest = reader.manifest();
  check_features(manifest);
  spec = check_spec(*manifest.spec(), memory);
  fingerprint = reader.manifest_hash();

  struct Found {
    const Slot* slot;
    const format::fb::Tensor* tensor;
    kernels::Matrix w;
  };
  const std::pmr::vector<Slot> slots = weight_slots(spec, memory);
  std::pmr::vector<Found> found(memory);
  for (const Slot& slot : slots) {
    const format::fb::Tensor* tensor = reader.find(slot.name);
    if (!tensor && slot.required) base::fail(GPTQ_E_FORMAT, "the file has no tensor '", slot.name, "'");
    if (!tensor) continue;
    found.push_back({&slot, tensor, check_tensor(*tensor, slot)});
    weight_bytes = base::add(weight_bytes, placed_bytes(*tensor));
    n_params = base::add(n_params, base::mul(slot.n, slot.k));
  }
  weights_ = base::Buffer(memory, base::to_size(weight_bytes));
  Filler filler(reader, weights_.bytes(), memory);
  for (Found& f : found) place_parts(*f.tensor, filler, f.w);
  filler.read_all(options, pool);

  Table table(memory);
  for (Found& f : found) {
    check_values(f.w, f.slot->name);
    table.emplace(f.slot->name, f.w);
  }
  const Weights weights(table, memory);
  embed = weights.linear("", "embed");
  head = spec.tied_head ? embed : weights.linear("", "head");
  final_norm = weights.vector("", "final_norm");
  layers.reserve(spec.n_layers);
  for (uint32_t i = 0; i < spec.n_layers; ++i) layers.push_back(make_layer(weights, layer_prefix(i, memory)));
  group_size = reader.find(layer_prefix(spec.n_layers / 2, memory) + "gate")->group_size();

  if (const Part* part = manifest.tokenizer()) {
    tokenizer = base::Buffer(memory, base::to_size(part->bytes()));
    reader.read_part(*part, tokenizer.bytes(), memory);
  }
  if (manifest.generation()) read_generation(*manifest.generation(), spec.n_vocab, generation);
  if (manifest.meta()) meta.reserve(manifest.meta()->size());
  if (manifest.meta())
    for (const auto* entry : *manifest.meta())
      meta.emplace_back(std::string_view(entry->key()->c_str(), entry->key()->size()),
                        std::string_view(entry->value()->c_str(), entry->value()->size()));
}

const std::pmr::string* Model::find_meta(std::string_view key) const {
  for (const auto& [name, value] : meta)
    if (name == key) return &value;
  return nullptr;
}

}  // namespace gptq::model
