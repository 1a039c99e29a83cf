// SPDX-License-Identifier: Apache-2.0
#include "converter/hub/given_up.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "base/failure.h"

namespace gptq::convert::hub {

GivenUp::~GivenUp() {
  for (const File& file : files_) close(file.handle);
}

void GivenUp::add(const std::string& name, const std::string& path) {
  const int handle = open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (handle < 0) base::fail_os(GPTQ_E_IO, errno, "cannot open", path);
  files_.push_back({name, handle});
  unlink(path.c_str());
}

// File systems that cannot do it keep the room until the end.
void GivenUp::done_with(std::string_view name, uint64_t offset, uint64_t bytes) const {
#ifdef FALLOC_FL_PUNCH_HOLE
  for (const File& file : files_)
    if (file.name == name)
      (void)!fallocate(file.handle, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset),
                       static_cast<off_t>(bytes));
#else
  (void)name, (void)offset, (void)bytes;
#endif
}

}  // namespace gptq::convert::hub
