// SPDX-License-Identifier: Apache-2.0
#include "api/saved.h"

namespace gptq::api {

void set_sampling(Saved& saved, const engine::Sampling& s, float mu) {
  saved.top_k = s.top_k;
  saved.temperature = s.temperature;
  saved.top_p = s.top_p;
  saved.min_p = s.min_p;
  saved.repeat_penalty = s.repeat_penalty;
  saved.penalty_window = s.penalty_window;
  saved.frequency_penalty = s.frequency_penalty;
  saved.presence_penalty = s.presence_penalty;
  saved.dry_multiplier = s.dry_multiplier;
  saved.dry_base = s.dry_base;
  saved.dry_allowed_length = s.dry_allowed_length;
  saved.dry_window = s.dry_window;
  saved.top_n_sigma = s.top_n_sigma;
  saved.typical_p = s.typical_p;
  saved.temperature_range = s.temperature_range;
  saved.temperature_exponent = s.temperature_exponent;
  saved.xtc_probability = s.xtc_probability;
  saved.xtc_threshold = s.xtc_threshold;
  saved.mirostat_tau = s.mirostat_tau;
  saved.mirostat_eta = s.mirostat_eta;
  saved.mu = mu;
  saved.n_bias = static_cast<uint32_t>(s.bias.size());
}

engine::Sampling sampling_of(const Saved& s) {
  return {.temperature = s.temperature,
          .top_p = s.top_p,
          .min_p = s.min_p,
          .repeat_penalty = s.repeat_penalty,
          .top_k = s.top_k,
          .penalty_window = s.penalty_window,
          .frequency_penalty = s.frequency_penalty,
          .presence_penalty = s.presence_penalty,
          .dry_multiplier = s.dry_multiplier,
          .dry_base = s.dry_base,
          .dry_allowed_length = s.dry_allowed_length,
          .dry_window = s.dry_window,
          .top_n_sigma = s.top_n_sigma,
          .typical_p = s.typical_p,
          .temperature_range = s.temperature_range,
          .temperature_exponent = s.temperature_exponent,
          .xtc_probability = s.xtc_probability,
          .xtc_threshold = s.xtc_threshold,
          .mirostat_tau = s.mirostat_tau,
          .mirostat_eta = s.mirostat_eta};
}

void describe(const gptq_engine& e, Saved& saved) {
  const engine::EngineShape& shape = e.engine->shape();
  saved.model = e.model.model->fingerprint;
  saved.kernels = format::hash_bytes(std::as_bytes(std::span(e.model.runtime.kernel_text, std::strlen(e.model.runtime.kernel_text))));
  // Of GPUs: which kinds of them.
  const gptq_model_gpus& gpus = e.model.gpus;
  uint64_t last = 0;
  for (const model::Placement& p : shape.placements) {
    const uint64_t kind = p.on_host() ? last : gpus[p.memory].request.kind_hash;
    if (kind != last) saved.kernels = saved.kernels * 31 + kind;
    last = kind;
  }
  saved.activations = static_cast<uint32_t>(shape.activations);
  const auto [keys, values] = shape.kv_kinds;  // as kv_type
  saved.kv_kind = static_cast<uint32_t>(keys) | (keys == values ? 0 : (static_cast<uint32_t>(values) + 1) << 8);
  const model::Placement host = host_part(shape.placements);
  saved.on_host = host.first_layer << 16 | host.end_layer;
  saved.ctx_tokens = shape.ctx_tokens;
}

}  // namespace gptq::api
