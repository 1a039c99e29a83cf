// SPDX-License-Identifier: Apache-2.0
// Below the C API what fails throws a Failure, which main files do not know.
#pragma once
#include "base/failure.h"
#include "gptq.hpp"

namespace gptq {

template <class F>
auto inside(F&& f) {
  try {
    return f();
  } catch (const base::Failure& failure) {
    throw Error(failure.detail.status, failure.detail.message);
  }
}

}  // namespace gptq
