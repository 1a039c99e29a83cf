// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>
#if defined(__linux__)
#include <sys/syscall.h>
#endif

#include <cstdio>
#include <cstdlib>

#include "converter/system.h"

namespace gptq::convert::system {
namespace {

constexpr int signals[] = {SIGINT, SIGTERM, SIGHUP};

}  // namespace

bool errors_on_terminal() { return isatty(STDERR_FILENO) != 0; }

std::string variable(const char* name) {
  const char* const value = std::getenv(name);
  return value ? value : "";
}

std::string home_folder() { return variable("HOME"); }

void on_interrupt(void (*handler)(int)) {
  struct sigaction action {};
  action.sa_handler = handler ? handler : SIG_DFL;
  action.sa_flags = SA_RESETHAND | SA_NODEFER;
  for (int signal : signals) {
    struct sigaction current;
    if (sigaction(signal, nullptr, &current) == 0 && current.sa_handler != SIG_IGN) sigaction(signal, &action, nullptr);
  }
}

void remove_and_end(const char* path, int signal) {
  if (*path) unlink(path);
  raise(signal);  // SA_RESETHAND has put the default action back
}

bool make_link(const std::string& target, const std::string& path) {
  return symlink(target.c_str(), path.c_str()) == 0;
}

bool exchange(const std::string& a, const std::string& b) {
#if defined(SYS_renameat2)
  constexpr unsigned exchanging = 2;  // RENAME_EXCHANGE; the call has a name of its own from glibc 2.28 on
  return syscall(SYS_renameat2, AT_FDCWD, a.c_str(), AT_FDCWD, b.c_str(), exchanging) == 0;
#elif defined(__APPLE__)
  return renamex_np(a.c_str(), b.c_str(), RENAME_SWAP) == 0;
#else
  return false;
#endif
}

bool same_disk(const std::string& a, const std::string& b) {
  struct stat first, second;
  return stat(a.c_str(), &first) == 0 && stat(b.c_str(), &second) == 0 && first.st_dev == second.st_dev;
}

}  // namespace gptq::convert::system
