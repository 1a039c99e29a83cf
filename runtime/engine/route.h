// SPDX-License-Identifier: Apache-2.0
// Which experts a token goes to, by every rule that families have (one entry a rule in model::Experts).
#pragma once
#include "model/spec.h"

namespace gptq::engine {

// logits [rows][n] of the router; bias [n] or NULL: counts for the choice alone -> chosen, weight [rows][n_active], best first. Of equal
// scores the lower index is taken. scratch: [3 n].
void choose_experts(const model::Experts& rule, const float* logits, const float* bias, uint32_t rows, int32_t* chosen, float* weight, float* scratch);

float sigmoid(float x);

}  // namespace gptq::engine
