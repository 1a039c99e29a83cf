// SPDX-License-Identifier: Apache-2.0
// A folder written beside its final name and renamed to it by commit(). Without commit nothing is left behind.
#pragma once
#include <string>
#include <string_view>

namespace gptq::convert {

class NewFolder {
 public:
  // Where replace holds, a folder of the same name goes, but only if it is a checkpoint and nothing else: files of the names that
  // checkpoints have, config.json among them.
  NewFolder(std::string_view path, bool replace);
  ~NewFolder();
  NewFolder(const NewFolder&) = delete;

  const std::string& temporary() const { return temporary_; }
  // A text file; a newline ends it.
  void write(const std::string& name, std::string_view text) const;
  void commit();

 private:
  std::string path_, temporary_;
  bool replace_;
};

}  // namespace gptq::convert
