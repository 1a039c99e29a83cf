// SPDX-License-Identifier: Apache-2.0
#include "converter/interrupt.h"

#include <signal.h>
#include <unistd.h>

#include <cstring>

namespace gptq::convert {
namespace {

constexpr int signals[] = {SIGINT, SIGTERM, SIGHUP};
char doomed[4096];  // a handler may look at static memory alone
volatile sig_atomic_t stop_wanted;

void remove_and_die(int signal) {
  if (doomed[0]) unlink(doomed);
  raise(signal);  // SA_RESETHAND has put the default action back
}

void want_stop(int) { stop_wanted = 1; }

void set_handlers(void (*handler)(int)) {
  struct sigaction action {};
  action.sa_handler = handler;
  action.sa_flags = SA_RESETHAND | SA_NODEFER;
  for (int signal : signals) {
    struct sigaction current;
    if (sigaction(signal, nullptr, &current) == 0 && current.sa_handler != SIG_IGN) sigaction(signal, &action, nullptr);
  }
}

}  // namespace

RemoveOnSignal::RemoveOnSignal(std::string_view path) {
  if (path.size() >= sizeof doomed) return;
  std::memcpy(doomed, path.data(), path.size());
  doomed[path.size()] = 0;
  set_handlers(remove_and_die);
}

RemoveOnSignal::~RemoveOnSignal() {
  set_handlers(SIG_DFL);
  doomed[0] = 0;
}

StopOnSignal::StopOnSignal() {
  stop_wanted = 0;
  set_handlers(want_stop);
}
StopOnSignal::~StopOnSignal() { set_handlers(SIG_DFL); }
bool StopOnSignal::stopped() const { return stop_wanted != 0; }

}  // namespace gptq::convert
