// SPDX-License-Identifier: Apache-2.0
// For the tools: a half-written file is removed when the user interrupts the program.
#pragma once
#include <string_view>

namespace gptq::convert {

// While it lives, SIGINT, SIGTERM and SIGHUP remove the file before they end the process. One at a time.
class RemoveOnSignal {
 public:
  explicit RemoveOnSignal(std::string_view path);
  ~RemoveOnSignal();
  RemoveOnSignal(const RemoveOnSignal&) = delete;
};

}  // namespace gptq::convert
