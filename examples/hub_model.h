// SPDX-License-Identifier: Apache-2.0
// Models by their names on the Hugging Face hub: gptq-convert loads and converts them, and says where they lie.
#pragma once
#if !defined(_WIN32)
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>
#endif

#include <algorithm>
#include <filesystem>
#include <string>

#include "file_path.h"
#include "gptq.hpp"

#if !defined(_WIN32)
extern char** environ;
#endif

namespace gptq::tool {

#if defined(_WIN32)
inline std::string fetch(const std::string& name) {
  throw Error(GPTQ_E_NOT_FOUND, "there is no file '" + name + "', and models of the hub are not loaded on Windows yet");
}
#else
// Beside this program, where the build has it, or on the PATH.
inline std::string converter() {
  std::error_code error;
  const std::filesystem::path own = std::filesystem::read_symlink("/proc/self/exe", error).parent_path();
  for (const std::filesystem::path& path : {own / "gptq-convert", own.parent_path() / "converter" / "gptq-convert"})
    if (!own.empty() && access(path.c_str(), X_OK) == 0) return path.string();
  return "gptq-convert";
}

// What `gptq-convert fetch NAME` prints.
inline std::string fetch(const std::string& name) {
  std::string program = converter(), command = "fetch", argument = name, out;
  char* const arguments[] = {program.data(), command.data(), argument.data(), nullptr};
  int ends[2];
  if (pipe(ends) != 0) throw Error(GPTQ_E_IO, "cannot make a pipe");
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
  posix_spawn_file_actions_addclose(&actions, ends[0]);
  posix_spawn_file_actions_addclose(&actions, ends[1]);
  pid_t child = 0;
  const int failed = posix_spawnp(&child, program.c_str(), &actions, nullptr, arguments, environ);
  posix_spawn_file_actions_destroy(&actions);
  close(ends[1]);
  char buffer[512];
  for (ssize_t n; !failed && (n = read(ends[0], buffer, sizeof buffer)) != 0;)
    if (n > 0)
      out.append(buffer, static_cast<size_t>(n));
    else if (errno != EINTR)
      break;
  close(ends[0]);
  int status = 0;
  while (!failed && waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (failed || (WIFEXITED(status) && WEXITSTATUS(status) == 127))
    throw Error(GPTQ_E_NOT_FOUND,
                "there is no file '" + name +
                    "'; as a name of the hub it takes gptq-convert, which is not beside this program");
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0 || out.empty())
    throw Error(GPTQ_E_IO, "no model '" + name + "'");  // gptq-convert has said why
  return out.substr(0, out.find('\n'));
}
#endif

// text itself, or the file of the model of the hub that it names: OWNER/NAME[@REVISION], and no file is called so.
inline std::string model_path(const std::string& text) {
  const std::string name = text.substr(0, text.find('@'));
  const bool like_a_name =
      std::count(name.begin(), name.end(), '/') >= 1 && name[0] != '.' && name[0] != '/' && !name.ends_with(".gptq");
  std::error_code error;
  return like_a_name && !std::filesystem::exists(file_path(text), error) ? fetch(text) : text;
}

}  // namespace gptq::tool
