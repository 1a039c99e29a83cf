// SPDX-License-Identifier: Apache-2.0
// Files without a name, read for the last time: what is done with gives its room on the disk back at once, all of it
// when the process ends, however it ends.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/os.h"

namespace gptq::convert::hub {

class GivenUp {
 public:
  GivenUp() = default;
  GivenUp(const GivenUp&) = delete;

  // Removes the file at path; what knows it by name is done_with.
  void add(const std::string& name, const std::string& path);
  void done_with(std::string_view name, uint64_t offset, uint64_t bytes);

 private:
  struct File {
    std::string name;
    base::os::File handle;
  };
  std::vector<File> files_;
};

}  // namespace gptq::convert::hub
