// SPDX-License-Identifier: Apache-2.0
// What a server that says no means, and what can be done about it.
#pragma once
#include "converter/hub/http.h"
#include "converter/hub/name.h"

namespace gptq::convert::hub {

// Fails with NOT_FOUND or IO. file: "" = the whole repository was asked for.
[[noreturn]] void refuse(const Answer& answer, const Name& name, const std::string& file, const Settings& settings);

}  // namespace gptq::convert::hub
