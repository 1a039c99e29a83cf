// SPDX-License-Identifier: Apache-2.0
#include "model/model.h"

#include <algorithm>
#include <iterator>

#include "base/checked.h"

namespace gptq::model {
namespace {

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

// What the first layer needs before it, and the last one behind it.
bool at_begin(Role role) { return role <= Role::embed_norm; }
bool at_end(Role role, const ModelSpec& spec) { return (role > Role::embed_norm && role < first_layer_role) || role == head_role(spec); }

uint64_t slots_bytes(const format::Reader& reader, std::span<const Slot> slots) {
  uint64_t bytes = 0;
  for (const Slot& slot : slots)
    if (const format::fb::Tensor* tensor = reader.find(slot.name)) bytes = base::add(bytes, placed_bytes(*tensor));
  return bytes;
}

// Pointers into a block that has been copied elsewhere.
class Move {
 public:
  Move(const base::Buffer& from, std::byte* to) : from_(from.data()), to_(to) {}
  void operator()(Linear& linear) const {
    (*this)(linear.w.codes);
    (*this)(linear.w.scales);
    (*this)(linear.w.zeros);
    (*this)(linear.w.perm);
    (*this)(linear.bias);
  }
  template <class T>
  void operator()(const T*& p) const {
    if (p) p = reinterpret_cast<const T*>(to_ + (reinterpret_cast<const std::byte*>(p) - from_));
  }

 private:
  const std::byte* from_;
  std::byte* to_;
};

// Part of a longer job's progress.
struct PartProgress {
  const LoadOptions& whole;
  uint64_t done, part, total;
  LoadOptions options() {
    LoadOptions o;
    if (!whole.progress) return o;
    o.progress = [](void* user, uint32_t permille) {
      const auto& p = *static_cast<const PartProgress*>(user);
      return p.whole.progress(p.whole.progress_user, static_cast<uint32_t>((p.done * 1000 + p.part * permille) / std::max<uint64_t>(p.total, 1)));
    };
    o.progress_user = this;
    return o;
  }
};

}  // namespace

uint64_t loaded_bytes(const format::Reader& reader, const ModelSpec& spec, Placements placements, std::pmr::memory_resource* memory) {
  const format::fb::Manifest& manifest = reader.manifest();
  uint64_t bytes = placements.size_bytes() + spec.n_layers * (sizeof(Layer) + sizeof(LayerSpec)) + spec.alibi_slopes.size() * sizeof(float);
  for (const LayerSpec& layer : spec.layers) bytes += layer.experts ? spec.experts.n * sizeof(Expert) : 0;
  for (const Rope& rope : spec.ropes) bytes += sizeof(Rope) + rope.dim * sizeof(float);
  if (manifest.tokenizer()) bytes = base::add(bytes, manifest.tokenizer()->bytes());
  if (manifest.generation() && manifest.generation()->end_tokens()) bytes += manifest.generation()->end_tokens()->size() * sizeof(int32_t);
  if (manifest.meta())
    for (const auto* entry : *manifest.meta()) bytes += 2 * sizeof(std::pmr::string) + entry->key()->size() + entry->value()->size() + 2;
  const Placement host = host_part(placements);
  return host.n_layers() ? base::add(bytes, placed_bytes(spec, weight_bytes(reader, spec, memory), host)) : bytes;
}

uint64_t placed_bytes(const ModelSpec& spec, const WeightBytes& weights, const Placement& placement) {
  const bool begins = placement.first_layer == 0, ends = placement.end_layer == spec.n_layers;
  uint64_t bytes = begins && !(ends && spec.tied_head) ? weights.embed : 0;
  if (ends) bytes = base::add(bytes, weights.head);
  for (uint32_t i = placement.first_layer; i < placement.end_layer; ++i) bytes = base::add(bytes, weights.layers[i]);
  return bytes;
}

Placement host_part(Placements placements) {
  for (const Placement& p : placements)
    if (p.on_host()) return p;
  return {host_memory, 0, 0};
}

WeightBytes weight_bytes(const format::Reader& reader, const ModelSpec& spec, std::pmr::memory_resource* memory) {
  WeightBytes bytes(memory);
  for (const Slot& slot : outer_slots(spec, memory)) {
    const uint64_t size = slots_bytes(reader, {&slot, 1});
    if (at_begin(slot.id.role)) bytes.embed = base::add(bytes.embed, size);
    if (at_end(slot.id.role, spec)) bytes.head = base::add(bytes.head, size);
  }
  for (uint32_t i = 0; i < spec.n_layers; ++i) bytes.layers.push_back(slots_bytes(reader, layer_slots(spec, i, memory)));
  return bytes;
}

uint64_t loading_bytes(const format::fb::Manifest& manifest, uint32_t threads) {
  constexpr uint64_t per_tensor = 512, per_chunk = 48, decoder = 256 << 10;
  uint64_t chunk = 0;
  for (const format::fb::Chunk* c : *manifest.chunks())
    if (c->stored() < c->raw()) chunk = std::max<uint64_t>(chunk, c->stored() + decoder);
  return threads * chunk + manifest.tensors()->size() * per_tensor + manifest.chunks()->size() * per_chunk;
}

Model::Model(const base::Source& source, const LoadOptions& options, base::Pool& pool, std::pmr::memory_resource* memory)
    : spec(memory), layers(memory), generation(memory), meta(memory), placements(memory) {
  const format::Reader reader(source, memory);
  const format::fb::Manifest& manifest = reader.manifest();
  check_features(manifest);
  spec = check_spec(manifest, memory);
  fingerprint = reader.manifest_hash();

  if (options.placer) placements = options.placer->choose(spec, model::weight_bytes(reader, spec, memory));
  else placements.push_back({host_memory, 0, spec.n_layers});
  load_weights(reader, options, pool, memory);
  for (const Slot& slot : layer_slots(spec, spec.n_layers / 2, memory))
    if (slot.id.role == Role::gate || slot.id.role == Role::up || slot.id.role == Role::expert_gate || slot.id.role == Role::expert_up) {
      const format::fb::Tensor& tensor = *reader.find(slot.name);
      group_size = tensor.group_size();
      bits = kernels::bits_of(static_cast<kernels::Kind>(tensor.kind()));
      break;
    }

  if (const format::fb::Part* part = manifest.tokenizer()) {
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

// What belongs to a placement besides layers.
std::pmr::vector<Slot> Model::ends_of(const Placement& placement, std::pmr::memory_resource* memory) const {
  std::pmr::vector<Slot> slots(memory);
  const bool begins = placement.first_layer == 0, ends = placement.end_layer == spec.n_layers;
  for (const Slot& slot : outer_slots(spec, memory)) {
    if ((begins && at_begin(slot.id.role)) || (ends && at_end(slot.id.role, spec))) slots.push_back(slot);
  }
  return slots;
}

void Model::take_ends(const Weights& weights, const Placement& placement, const auto& place) {
  const auto take = [&](std::initializer_list<std::pair<Linear*, Role>> list) {
    for (const auto& [linear, role] : list) place(*linear = weights.linear({.role = role}));
  };
  if (placement.first_layer == 0)
    take({{&embed, Role::embed}, {&positions, Role::positions}, {&embed_proj, Role::embed_proj}, {&embed_norm, Role::embed_norm}});
  if (placement.end_layer == spec.n_layers) take({{&head, head_role(spec)}, {&head_proj, Role::head_proj}, {&final_norm, Role::final_norm}});
}

// The host's part first, in one block; then what goes to GPUs, in pieces of a layer, so that little of it is on the host at any time.
void Model::load_weights(const format::Reader& reader, const LoadOptions& options, base::Pool& pool, std::pmr::memory_resource* memory) {
  uint64_t total = 0;
  for (const Placement& p : placements) {
    total = base::add(total, slots_bytes(reader, ends_of(p, memory)));
    for (uint32_t i = p.first_layer; i < p.end_layer; ++i) total = base::add(total, slots_bytes(reader, layer_slots(spec, i, memory)));
  }
  PartProgress progress{options, 0, 0, total};
  const auto read = [&](std::span<const Slot> slots) {
    progress.done += progress.part;
    progress.part = slots_bytes(reader, slots);
    Weights weights(reader, slots, progress.options(), pool, memory);
    n_params += weights.n_params();
    return weights;
  };
  layers.reserve(spec.n_layers);
  for (uint32_t i = 0; i < spec.n_layers; ++i) layers.emplace_back(memory);
  if (const Placement host = host_part(placements); host.n_layers()) {
    std::pmr::vector<Slot> slots = ends_of(host, memory);
    for (uint32_t i = host.first_layer; i < host.end_layer; ++i) std::ranges::move(layer_slots(spec, i, memory), std::back_inserter(slots));
    Weights weights = read(slots);
    weight_bytes = weights.bytes();
    take_ends(weights, host, [](Linear&) {});
    for (uint32_t i = host.first_layer; i < host.end_layer; ++i) layers[i] = weights.layer(spec, i);
    weights_ = weights.take_block();
  }
  for (const Placement& p : placements) {
    if (p.on_host()) continue;
    if (const auto slots = ends_of(p, memory); !slots.empty()) {
      const Weights weights = read(slots);
      take_ends(weights, p, Move(weights.block(), options.placer->place(p.memory, weights.block().bytes())));
    }
    for (uint32_t i = p.first_layer; i < p.end_layer; ++i) {
      const Weights weights = read(layer_slots(spec, i, memory));
      layers[i] = weights.layer(spec, i);
      layers[i].for_each(Move(weights.block(), options.placer->place(p.memory, weights.block().bytes())));
    }
  }
  if (spec.tied_head && placements.size() > 1) n_params -= uint64_t{embed.w.n} * embed.w.k;  // it came again as the head
}

const std::pmr::string* Model::find_meta(std::string_view key) const {
  for (const auto& [name, value] : meta)
    if (name == key) return &value;
  return nullptr;
}

}  // namespace gptq::model
