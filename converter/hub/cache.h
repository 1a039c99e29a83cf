// SPDX-License-Identifier: Apache-2.0
// One repository in the hub's cache folder, laid out as huggingface_hub has it: refs/REVISION holds a commit,
// blobs/ETAG a file's bytes, snapshots/COMMIT/FILE is a relative link to its blob. What either of the two programs has
// loaded the other finds.
#pragma once
#include <cstdint>
#include <functional>
#include <string>

#include "base/os.h"
#include "converter/hub/name.h"

namespace gptq::convert::hub {

class Cache {
 public:
  Cache(const std::string& root, const Name& name);

  std::string folder() const { return folder_; }
  std::string blob(const std::string& etag) const { return folder_ + "/blobs/" + etag; }
  std::string snapshot(const std::string& commit) const { return folder_ + "/snapshots/" + commit; }
  // The commit that a revision was when it was last asked for; "" = not known.
  std::string commit_of(const std::string& revision) const;
  void write_ref(const std::string& revision, const std::string& commit) const;
  // Whether a snapshot has the file, of this size.
  bool has(const std::string& commit, const std::string& file, uint64_t size) const;
  void link(const std::string& commit, const std::string& file, const std::string& etag) const;
  std::string lock_path(const std::string& etag) const { return locks_ + "/" + etag + ".lock"; }

 private:
  std::string folder_, locks_;
};

// Held by one process at a time; huggingface_hub takes the same.
class FileLock {
 public:
  FileLock(const std::string& path,
           const std::function<void()>& waiting);  // waiting: called once, where another process has it

 private:
  base::os::File file_;
};

void make_folders(const std::string& path);
// Free bytes where path is or will be.
uint64_t free_bytes(const std::string& path);
bool same_disk(const std::string& a, const std::string& b);
// A small file that appears whole.
void write_whole(const std::string& path, const std::string& text);

}  // namespace gptq::convert::hub
