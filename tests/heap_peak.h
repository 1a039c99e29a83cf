// SPDX-License-Identifier: Apache-2.0
// What operator new has given out since heap_begin(), at its most; 0 for ever where it cannot be watched.
#pragma once
#include <cstdint>

namespace gptq::test {

void heap_begin();
int64_t heap_peak();

}  // namespace gptq::test
