// SPDX-License-Identifier: Apache-2.0
#include "converter/interrupt.h"

#include <signal.h>

#include <cstring>

#include "converter/system.h"

namespace gptq::convert {
namespace {

char doomed[4096];  // a handler may look at static memory alone
volatile sig_atomic_t stop_wanted;

void remove_and_die(int signal) { system::remove_and_end(doomed, signal); }
void want_stop(int) { stop_wanted = 1; }

}  // namespace

RemoveOnSignal::RemoveOnSignal(std::string_view path) {
  if (path.size() >= sizeof doomed) return;
  std::memcpy(doomed, path.data(), path.size());
  doomed[path.size()] = 0;
  system::on_interrupt(remove_and_die);
}

RemoveOnSignal::~RemoveOnSignal() {
  system::on_interrupt(nullptr);
  doomed[0] = 0;
}

StopOnSignal::StopOnSignal() {
  stop_wanted = 0;
  system::on_interrupt(want_stop);
}
StopOnSignal::~StopOnSignal() { system::on_interrupt(nullptr); }
bool StopOnSignal::stopped() const { return stop_wanted != 0; }

}  // namespace gptq::convert
