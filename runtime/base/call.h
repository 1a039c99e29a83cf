// SPDX-License-Identifier: Apache-2.0
// Our own C API called from within: its errors as failures.
#pragma once
#include "base/failure.h"

namespace gptq::base {

// f(gptq_error*) gives the status.
template <class F>
void call(F&& f) {
  gptq_error error{};
  error.struct_size = sizeof error;
  if (f(&error) < 0) throw Failure{error};
}

}  // namespace gptq::base
