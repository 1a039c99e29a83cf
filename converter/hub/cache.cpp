// SPDX-License-Identifier: Apache-2.0
#include "converter/hub/cache.h"

#include <cerrno>
#include <filesystem>

#include "base/failure.h"
#include "base/io.h"
#include "converter/json.h"
#include "converter/system.h"

namespace gptq::convert::hub {
namespace {

namespace fs = std::filesystem;
namespace os = base::os;
using base::fail_os;

// The nearest folder of a path that is there already.
std::string existing(const std::string& path) {
  std::error_code error;
  fs::path at = fs::absolute(system::path_of(path), error);
  while (os::kind_of(at.string()) == os::Kind::nothing && at.has_relative_path()) at = at.parent_path();
  return at.string();
}

}  // namespace

void make_folders(const std::string& path) {
  if (!os::make_folders(path)) fail_os(GPTQ_E_IO, errno, "cannot create the folder", path);
}

uint64_t free_bytes(const std::string& path) {
  uint64_t bytes = 0;
  return os::free_bytes(existing(path), bytes) ? bytes : UINT64_MAX;
}

bool same_disk(const std::string& a, const std::string& b) {
  return system::same_disk(existing(a), existing(b));
}

void write_whole(const std::string& path, const std::string& text) {
  make_folders(system::path_of(path).parent_path().string());
  base::AtomicFile file(path, base::AtomicFile::IfExists::replace);
  file.append(std::as_bytes(std::span(text)));
  file.commit();
}

Cache::Cache(const std::string& root, const Name& name) {
  const std::string models = "models--" + name.owner + "--" + name.model;
  folder_ = root + "/" + models;
  locks_ = root + "/.locks/" + models;
}

std::string Cache::commit_of(const std::string& revision) const {
  if (is_commit(revision)) return revision;
  const std::string path = folder_ + "/refs/" + revision;
  if (!file_exists(path)) return {};
  const std::string text = read_text(path, 4096), commit = text.substr(0, text.find_first_of(" \r\n"));
  return is_commit(commit) ? commit : std::string();
}

void Cache::write_ref(const std::string& revision, const std::string& commit) const {
  if (revision != commit && commit_of(revision) != commit) write_whole(folder_ + "/refs/" + revision, commit);
}

bool Cache::has(const std::string& commit, const std::string& file, uint64_t size) const {
  uint64_t found;
  return os::size_of(snapshot(commit) + "/" + file, found) && found == size;
}

void Cache::link(const std::string& commit, const std::string& file, const std::string& etag) const {
  const fs::path link = system::path_of(snapshot(commit) + "/" + file),
                 target = system::path_of(blob(etag)).lexically_relative(link.parent_path());
  const std::string temporary = link.string() + ".part-" + std::to_string(os::process_id());
  make_folders(link.parent_path().string());
  os::remove_file(temporary);
  if (!system::make_link(target.string(), temporary) || !os::rename_replacing(temporary, link.string())) {
    const int code = errno;
    os::remove_file(temporary);
    fail_os(GPTQ_E_IO, code, "cannot create the link", link.string());
  }
}

FileLock::FileLock(const std::string& path, const std::function<void()>& waiting) {
  make_folders(system::path_of(path).parent_path().string());
  file_ = os::File(path, os::Open::open_or_create);
  if (!file_) fail_os(GPTQ_E_IO, errno, "cannot create", path);
  if (file_.lock() || errno != EWOULDBLOCK) return;  // some file systems have no locks
  waiting();
  file_.wait_for_lock();
}

}  // namespace gptq::convert::hub
