// SPDX-License-Identifier: Apache-2.0
#include "converter/new_folder.h"

#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <span>

#include "base/failure.h"
#include "base/io.h"

namespace gptq::convert {
namespace {

using base::fail;
namespace fs = std::filesystem;

std::string without_slashes(std::string_view path) {
  while (path.size() > 1 && path.ends_with('/')) path.remove_suffix(1);
  return std::string(path);
}

void check_replaceable(const std::string& path) {
  std::error_code error;
  bool is_checkpoint = false;
  size_t n_entries = 0;
  for (fs::directory_iterator it(path, error), end; !error && it != end; it.increment(error), ++n_entries) {
    const fs::path name = it->path().filename();
    if (fs::symlink_status(it->path(), error).type() != fs::file_type::regular)
      fail(GPTQ_E_IO, "'", path, "' is not replaced: '", name.string(), "' in it is no plain file; remove the folder yourself");
    is_checkpoint |= name == "config.json";
  }
  if (error) base::fail_os(GPTQ_E_IO, error.value(), "cannot replace", path);
  if (n_entries && !is_checkpoint)
    fail(GPTQ_E_IO, "'", path, "' is not replaced: it holds files, but no checkpoint (config.json); remove the folder yourself");
}

}  // namespace

NewFolder::NewFolder(std::string_view path, bool replace) : path_(without_slashes(path)), replace_(replace) {
  if (path_.empty()) fail(GPTQ_E_INVALID_ARGUMENT, "the folder to write has no name");
  if (access(path_.c_str(), F_OK) == 0) {
    if (!replace_) fail(GPTQ_E_IO, "'", path_, "' exists already; --force replaces it");
    check_replaceable(path_);
  }
  const std::string temporary = base::AtomicFile::temporary_path(path_);
  std::error_code error;
  if (!fs::create_directory(temporary, error))
    base::fail_os(GPTQ_E_IO, error ? error.value() : EEXIST, "cannot create the folder", temporary);
  temporary_ = temporary;
}

NewFolder::~NewFolder() {
  std::error_code error;
  if (!temporary_.empty()) fs::remove_all(temporary_, error);
}

void NewFolder::write(const std::string& name, std::string_view text) const {
  base::AtomicFile file(temporary_ + "/" + name, base::AtomicFile::IfExists::refuse);
  file.append(std::as_bytes(std::span(text)));
  if (!text.ends_with('\n')) file.append(std::as_bytes(std::span("\n", 1)));
  file.commit();
}

// A folder cannot be renamed over one that holds files: the old one steps aside, and back if the new one does not come.
void NewFolder::commit() {
  std::error_code error;
  const std::string old = path_ + ".old-" + std::to_string(getpid());
  const bool had_old = replace_ && fs::exists(path_, error);
  if (had_old) {
    check_replaceable(path_);
    fs::rename(path_, old, error);
    if (error) base::fail_os(GPTQ_E_IO, error.value(), "cannot replace", path_);
  }
  fs::rename(temporary_, path_, error);
  if (error) {
    std::error_code ignored;
    if (had_old) fs::rename(old, path_, ignored);
    base::fail_os(GPTQ_E_IO, error.value(), "cannot create", path_);
  }
  temporary_.clear();
  if (had_old) fs::remove_all(old, error);
}

}  // namespace gptq::convert
