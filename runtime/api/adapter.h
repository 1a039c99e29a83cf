// SPDX-License-Identifier: Apache-2.0
// What sessions and saves need of adapters.
#pragma once
#include "api/handles.h"

namespace gptq::api {

constexpr const char* adapters_on_gpu = "adapters work where all layers are on the CPU: load the model with device_layers 0xFFFFFFFF";
// A new reference to an adapter of the model with this fingerprint; NULL: none is loaded.
gptq_adapter* adapter_of(gptq_model& m, uint64_t fingerprint);
// The session gets a reference of its own; NULL: none. Where it fails the session is as before.
void adapt(engine::Session& s, gptq_adapter* adapter, float scale);
// The reference alone: what is computed does not change.
void hold_adapter(engine::Session& s, gptq_adapter* adapter);
inline gptq_adapter* adapter_of(const engine::Session& s) { return static_cast<gptq_adapter*>(s.adapter_owner); }

}  // namespace gptq::api
