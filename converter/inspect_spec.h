// SPDX-License-Identifier: Apache-2.0
// What a spec has beyond the Llama line, in words.
#pragma once
#include <string>
#include <utility>
#include <vector>

#include "format/container.h"

namespace gptq::convert {

std::vector<std::pair<std::string, std::string>> facts_beyond_llama(const format::fb::Spec& spec);

}  // namespace gptq::convert
