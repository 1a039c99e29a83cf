// SPDX-License-Identifier: Apache-2.0
// What sessions need of predictions.
#pragma once
#include "api/handles.h"

namespace gptq::api {

// The session gets a reference of its own; NULL: none.
void predict(engine::Session& s, gptq_prediction* prediction);
inline gptq_prediction* prediction_of(const engine::Session& s) { return static_cast<gptq_prediction*>(s.prediction_owner); }

}  // namespace gptq::api
