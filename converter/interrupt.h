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

// While it lives, the first such signal only makes stopped() true, and the next one ends the process. One at a time.
class StopOnSignal {
 public:
  StopOnSignal();
  ~StopOnSignal();
  StopOnSignal(const StopOnSignal&) = delete;
  bool stopped() const;
};

}  // namespace gptq::convert
