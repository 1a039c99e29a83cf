// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "engine/session.h"
#include "model/model.h"

namespace gptq::api {

// Of GPTQ_POOL_*; fails with INVALID_ARGUMENT.
engine::Pooling pooling_of(int32_t value);
// What a model's files say, GPTQ_POOL_* and GPTQ_EMBED_*.
int32_t own_pooling(const model::Model& model);
uint32_t own_pooling_flags(const model::Model& model);

}  // namespace gptq::api
