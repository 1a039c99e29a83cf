// SPDX-License-Identifier: Apache-2.0
#include "converter/interrupt.h"

#include <signal.h>
#include <unistd.h>

#include <cstring>

namespace gptq::convert {
namespace {

constexpr int signals[] = {SIGINT, SIGTERM, SIGHUP};
char doomed[4096];  // a handler may look at static memory alone

void remove_and_die(int signal) {
  if (doomed[0]) unlink(doomed);
  raise(signal);  // SA_RESETHAND has put the default action back
}

void set_handlers(bool on) {
  struct sigaction action {};
  action.sa_handler = on ? remove_and_die : SIG_DFL;
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
  set_handlers(true);
}

RemoveOnSignal::~RemoveOnSignal() {
  set_handlers(false);
  doomed[0] = 0;
}

}  // namespace gptq::convert
