// SPDX-License-Identifier: Apache-2.0
#include <windows.h>

#include <cerrno>
#include <csignal>

#include "base/os.h"
#include "base/windows_path.h"
#include "converter/system.h"

namespace gptq::convert::system {
namespace {

using base::os::from_wide;
using base::os::to_wide;

void (*volatile handler_now)(int) = nullptr;

// On a thread of its own. TRUE: Windows does nothing more.
BOOL WINAPI on_event(DWORD event) {
  void (*const handler)(int) = handler_now;
  if (!handler) return FALSE;
  handler_now = nullptr;
  handler(event == CTRL_C_EVENT ? SIGINT : SIGTERM);
  return TRUE;
}

}  // namespace

bool errors_on_terminal() {
  DWORD mode = 0;
  const HANDLE out = GetStdHandle(STD_ERROR_HANDLE);
  if (!GetConsoleMode(out, &mode)) return false;
  return SetConsoleMode(out, mode | ENABLE_VIRTUAL_TERMINAL_PROCESSING) != 0;  // without it "\x1b[K" would be seen
}

std::string variable(const char* name) {
  const std::wstring wide = to_wide(name);
  std::wstring value(GetEnvironmentVariableW(wide.c_str(), nullptr, 0), L'\0');
  if (!value.empty())
    value.resize(GetEnvironmentVariableW(wide.c_str(), value.data(), static_cast<DWORD>(value.size())));
  return from_wide(value);
}

std::string home_folder() {
  const std::string home = variable("HOME");
  return home.empty() ? variable("USERPROFILE") : home;
}

void on_interrupt(void (*handler)(int)) {
  static const bool watches = SetConsoleCtrlHandler(on_event, TRUE) != 0;
  handler_now = watches ? handler : nullptr;
}

void remove_and_end(const char* path, int signal) {
  if (*path) base::os::remove_file(path);
  TerminateProcess(GetCurrentProcess(), static_cast<UINT>(128 + signal));
}

bool make_link(const std::string& target, const std::string& path) {
  std::wstring to = to_wide(target);
  for (wchar_t& c : to)
    if (c == L'/') c = L'\\';
  // Links are for administrators, or for everyone where Windows is in developer mode.
  if (CreateSymbolicLinkW(base::os::windows_path(path).c_str(), to.c_str(),
                          SYMBOLIC_LINK_FLAG_ALLOW_UNPRIVILEGED_CREATE))
    return true;
  errno = EPERM;
  return false;
}

bool exchange(const std::string&, const std::string&) { return false; }

bool same_disk(const std::string& a, const std::string& b) {
  const auto volume_of = [](const std::string& path) {
    std::wstring name(32768, L'\0');
    if (!GetVolumePathNameW(base::os::windows_path(path).c_str(), name.data(), static_cast<DWORD>(name.size())))
      return std::wstring();
    name.resize(name.find(L'\0'));
    return name;
  };
  const std::wstring first = volume_of(a);
  return !first.empty() && first == volume_of(b);
}

}  // namespace gptq::convert::system
