// SPDX-License-Identifier: Apache-2.0
// What a source of weights describes, checked as a model file's is; and all of its weights.
#pragma once
#include "converter/source.h"
#include "model/spec.h"

namespace gptq::test {

using convert::checked_spec;

// As a conversion takes them.
inline void load_all(convert::ModelSource& source) {
  model::each_slot(checked_spec(source.description().spec), std::pmr::get_default_resource(), [&](const model::Slot& slot) { source.load(slot); });
}

}  // namespace gptq::test
