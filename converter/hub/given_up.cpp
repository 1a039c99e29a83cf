// SPDX-License-Identifier: Apache-2.0
#include "converter/hub/given_up.h"

#include <cerrno>

#include "base/failure.h"

namespace gptq::convert::hub {

void GivenUp::add(const std::string& name, const std::string& path) {
  base::os::File handle(path, base::os::Open::read_write);
  if (!handle) base::fail_os(GPTQ_E_IO, errno, "cannot open", path);
  files_.push_back({name, std::move(handle)});
  base::os::remove_file(path);
}

// File systems that cannot do it keep the room until the end.
void GivenUp::done_with(std::string_view name, uint64_t offset, uint64_t bytes) {
  for (File& file : files_)
    if (file.name == name) file.handle.give_back(offset, bytes);
}

}  // namespace gptq::convert::hub
