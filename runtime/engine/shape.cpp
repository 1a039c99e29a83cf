// SPDX-License-Identifier: Apache-2.0
#include "engine/shape.h"

#include <algorithm>

#include "base/checked.h"
#include "base/failure.h"
#include "engine/gpu_part.h"

namespace gptq::engine {
namespace {

constexpr uint32_t default_ctx = 4096, default_batch = 256, default_page = 64;
constexpr uint32_t ctx_max = 1u << 24, sessions_max = 4096, batch_max = 8192, logits_rows_max = 8192;

uint32_t in_range(uint32_t value, uint32_t fallback, uint32_t most, std::string_view name) {
  if (value > most) base::fail(GPTQ_E_INVALID_ARGUMENT, name, " = ", value, " is above ", most);
  return value ? value : fallback;
}

}  // namespace

uint64_t host_half_bytes(const EngineShape& shape, const model::ModelSpec& spec) {
  return base::mul(spec.n_kv_heads, shape.page_tokens, kernels::kv_row_bytes(shape.kv_kind, spec.head_dim));
}

uint32_t EngineShape::max_logits() const { return std::max(max_sessions, std::min({logits_rows, batch_tokens, 32u})); }

EngineShape make_shape(const gptq_engine_params& params, const model::ModelSpec& spec, uint32_t first_device_layer) {
  EngineShape shape{};
  shape.first_device_layer = first_device_layer;
  shape.max_sessions = in_range(params.max_sessions, 1, sessions_max, "max_sessions");
  shape.ctx_tokens = in_range(params.ctx_tokens, std::min(default_ctx, spec.n_ctx_train), ctx_max, "ctx_tokens");
  shape.page_tokens = in_range(params.page_tokens, default_page, 256, "page_tokens");
  if (shape.page_tokens % 16) base::fail(GPTQ_E_INVALID_ARGUMENT, "page_tokens = ", shape.page_tokens, " is not a multiple of 16");
  shape.batch_tokens = in_range(params.batch_tokens, std::min(default_batch, shape.ctx_tokens), batch_max, "batch_tokens");
  shape.batch_tokens = std::max(shape.batch_tokens, shape.max_sessions);
  shape.logits_rows = in_range(params.logits_rows, 1, logits_rows_max, "logits_rows");
  if (params.kv_type < GPTQ_KV_F16 || params.kv_type > GPTQ_KV_I8)
    base::fail(GPTQ_E_INVALID_ARGUMENT, "unknown kv_type ", params.kv_type);
  const bool exact = params.flags & GPTQ_ENGINE_EXACT, bf16 = params.flags & GPTQ_ENGINE_BF16;
  if (params.flags & ~uint32_t(GPTQ_ENGINE_EXACT | GPTQ_ENGINE_BF16)) base::fail(GPTQ_E_INVALID_ARGUMENT, "unknown engine flags ", params.flags);
  if (exact && bf16) base::fail(GPTQ_E_INVALID_ARGUMENT, "GPTQ_ENGINE_EXACT and GPTQ_ENGINE_BF16 exclude each other");
  shape.activations = exact ? device::Activations::f32 : bf16 ? device::Activations::bf16 : device::Activations::int8;
  shape.kv_kind = exact && params.kv_type == GPTQ_KV_F16 ? kernels::KvKind::f32 : static_cast<kernels::KvKind>(params.kv_type);
  if (first_device_layer < spec.n_layers && params.kv_type == GPTQ_KV_F32)
    base::fail(GPTQ_E_UNSUPPORTED, "the KV cache of layers on a GPU is float16 or int8: choose GPTQ_KV_F16 or GPTQ_KV_I8 as kv_type");
  const uint64_t all = uint64_t(shape.max_sessions) * shape.pages_per_session();
  const uint64_t pages = params.kv_bytes ? std::min(all, params.kv_bytes / kv_page_bytes(shape, spec)) : all;
  if (pages == 0 || pages > UINT32_MAX)
    base::fail(GPTQ_E_INVALID_ARGUMENT, "the KV arena would have ", pages, " pages of ", kv_page_bytes(shape, spec),
               " bytes: choose another kv_bytes or ctx_tokens");
  shape.n_pages = static_cast<uint32_t>(pages);
  return shape;
}

uint64_t host_page_bytes(const EngineShape& shape, const model::ModelSpec& spec) {
  return base::round_up(base::mul(2 * host_half_bytes(shape, spec), shape.first_device_layer), base::Buffer::align);
}

uint64_t kv_page_bytes(const EngineShape& shape, const model::ModelSpec& spec) {
  return base::add(host_page_bytes(shape, spec), GpuPart::kv_page_bytes(shape, spec, spec.n_layers - shape.first_device_layer));
}

}  // namespace gptq::engine
