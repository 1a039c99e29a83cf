// SPDX-License-Identifier: Apache-2.0
#include "model/model.h"

#include <algorithm>

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
  constexpr uint64_t per_tensor = 512, per_chunk = 48, decoder = 256 << 10;
  uint64_t chunk = 0;
  for (const format::fb::Chunk* c : *manifest.chunks())
    if (c->stored() < c->raw()) chunk = std::max<uint64_t>(chunk, c->stored() + decoder);
  return threads * chunk + manifest.tensors()->size() * per_tensor + manifest.chunks()->size() * per_chunk;
}

Model::Model(const base::Source& source, const LoadOptions& options, base::Pool& pool, std::pmr::memory_resource* memory)
    : spec(memory), layers(memory), generation(memory), meta(memory) {
  const format::Reader reader(source, memory);
  const format::fb::Manifest& manifest = reader.manifest();
  check_features(manifest);
  spec = check_spec(*manifest.spec(), memory);
  fingerprint = reader.manifest_hash();

  Weights weights(reader, weight_slots(spec, memory), options, pool, memory);
  weight_bytes = weights.bytes();
  n_params = weights.n_params();
  embed = weights.linear("", "embed");
  head = spec.tied_head ? embed : weights.linear("", "head");
  final_norm = weights.vector("", "final_norm");
  layers.reserve(spec.n_layers);
  for (uint32_t i = 0; i < spec.n_layers; ++i) layers.push_back(weights.layer(i));
  weights_ = weights.take_block();
  group_size = reader.find(layer_prefix(spec.n_layers / 2, memory) + "gate")->group_size();

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

const std::pmr::string* Model::find_meta(std::string_view key) const {
  for (const auto& [name, value] : meta)
    if (name == key) return &value;
  return nullptr;
}

}  // namespace gptq::model
