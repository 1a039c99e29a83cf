// SPDX-License-Identifier: Apache-2.0
#include "api/gpu_placer.h"

#include <algorithm>

#include "base/checked.h"
#include "engine/shape.h"

namespace gptq::api {
namespace {

constexpr uint32_t kv_tokens = 4096;
constexpr uint64_t room_bytes = 256u << 20;  // what products need and what CUDA itself takes

// What the GPU cannot do, by name.
struct Lack {
  const char* name;
  bool (*in)(const model::ModelSpec& spec);
};
constexpr Lack lacks[] = {
    {"a gated delta rule", [](const model::ModelSpec& s) { return s.any(model::Mixer::delta); }},
    {"short convolutions", [](const model::ModelSpec& s) { return s.any(model::Mixer::short_conv); }},
    {"latent attention", [](const model::ModelSpec& s) { return s.any(model::Mixer::latent); }},
    {"a mixture of experts",
     [](const model::ModelSpec& s) { return std::any_of(s.layers.begin(), s.layers.end(), [](const model::LayerSpec& l) { return l.experts; }); }},
    {"a norm over all heads' queries behind the rotation",
     [](const model::ModelSpec& s) { return s.qk_norm && s.qk_norm_span == kernels::Span::all && s.qk_norm_after_rope; }},
};

}  // namespace

uint32_t first_device_layer(const model::ModelSpec& spec, const model::WeightBytes& bytes, uint32_t device_layers, uint64_t bytes_max) {
  if (device_layers == UINT32_MAX) return spec.n_layers;
  for (const Lack& lack : lacks)
    if (lack.in(spec)) base::fail(GPTQ_E_UNSUPPORTED, "on a GPU a model with ", lack.name, " is not supported: load it on the CPU");
  if (spec.head_dim % 2 || spec.head_dim > cuda::head_dim_max)
    base::fail(GPTQ_E_UNSUPPORTED, "on a GPU heads of ", spec.head_dim, " are not supported, only even ones up to ", cuda::head_dim_max, ": load the model on the CPU");
  if (device_layers) return spec.n_layers - std::min(device_layers, spec.n_layers);
  const uint64_t kv = base::mul(uint64_t{std::min(kv_tokens, spec.n_ctx_train)} * spec.n_kv_heads, 4 * cuda::kv_dims(spec.head_dim));
  const uint64_t fixed = base::add(room_bytes + bytes_max / engine::part_for_activations, bytes.head);
  uint64_t left = bytes_max > fixed ? bytes_max - fixed : 0;
  uint32_t first = spec.n_layers;
  while (first > 0) {
    const uint64_t needed = bytes.layers[first - 1] + kv + (first == 1 && !spec.tied_head ? bytes.embed : 0);
    if (needed > left) break;
    left -= needed;
    --first;
  }
  return first;
}

std::byte* GpuPlacer::place(std::span<const std::byte> block) {
  const device::GpuMemory& copy = blocks_.emplace_back(gpu_, block.size());
  gpu_.table().copy_in(&gpu_.stream(), copy.data(), block.data(), block.size());
  gpu_.finish(UINT32_MAX);
  bytes_ += block.size();
  return copy.data();
}

}  // namespace gptq::api
