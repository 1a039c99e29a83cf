// SPDX-License-Identifier: Apache-2.0
// What sessions and saves need of constraints.
#pragma once
#include "api/handles.h"

namespace gptq::api {

// A new reference to the model's constraint of this source: one that is alive, else a new one.
gptq_constraint* constraint_of(gptq_model& m, int32_t kind, std::string_view source);
// The session's generation gets a reference of its own; NULL: none.
void constrain(engine::Session& s, gptq_constraint* constraint);
void ban(engine::Session& s, gptq_constraint* phrases);
inline gptq_constraint* phrases_of(const engine::Session& s) { return static_cast<gptq_constraint*>(s.phrases_owner); }
inline gptq_constraint* constraint_of(const engine::Session& s) { return static_cast<gptq_constraint*>(s.constraint_owner); }

}  // namespace gptq::api
