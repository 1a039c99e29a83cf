// SPDX-License-Identifier: Apache-2.0
// In libcurl's place where it was not found.
#include "converter/hub/remote.h"

namespace gptq::convert::hub {

std::unique_ptr<Remote> connect(const Settings&, Progress&) { return nullptr; }

}  // namespace gptq::convert::hub
