// SPDX-License-Identifier: Apache-2.0
// A loaded model: its spec, all weights in one block of memory, tokenizer and metadata. Constant once made.
#pragma once
#include <optional>
#include <string_view>
#include <utility>

#include "base/io.h"
#include "model/weights.h"

namespace gptq::model {

// What the model's makers recommend for generating; 0 = nothing said.
struct Generation {
  explicit Generation(std::pmr::memory_resource* memory) : end_tokens(memory) {}
  float temperature = 0, top_p = 0, min_p = 0, repeat_penalty = 0;
  int32_t top_k = 0, bos = -1, eos = -1, pad = -1;
  std::pmr::vector<int32_t> end_tokens;
};

class Model : public Ends {
 public:
  Model(const base::Source& source, const LoadOptions& options, base::Pool& pool, std::pmr::memory_resource* memory);

  ModelSpec spec;
  std::pmr::vector<Layer> layers;
  Generation generation;
  std::pmr::vector<std::pair<std::pmr::string, std::pmr::string>> meta;
  base::Buffer tokenizer;  // the section's bytes; empty = none
  int32_t group_size = 0;  // of the middle layer's MLP, as the checkpoint had it
  uint32_t bits = 0;
  uint64_t fingerprint, n_params = 0, weight_bytes = 0;  // weight_bytes: on the host
  std::pmr::vector<Placement> placements;

  const std::pmr::string* find_meta(std::string_view key) const;

 private:
  void load_weights(const format::Reader& reader, const LoadOptions& options, base::Pool& pool, std::pmr::memory_resource* memory);
  std::pmr::vector<Slot> ends_of(const Placement& placement, std::pmr::memory_resource* memory) const;
  void take_ends(const Weights& weights, const Placement& placement, const auto& place);
  base::Buffer weights_;
};

// Bytes that a Model of this file would hold on the host.
uint64_t loaded_bytes(const format::Reader& reader, const ModelSpec& spec, Placements placements, std::pmr::memory_resource* memory);
// Bytes needed besides while it is loaded, at most.
uint64_t loading_bytes(const format::fb::Manifest& manifest, uint32_t threads);

}  // namespace gptq::model
