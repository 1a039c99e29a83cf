// SPDX-License-Identifier: Apache-2.0
// The hub, or a server that speaks as it does. Built without libcurl there is none.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "converter/hub/cache.h"
#include "converter/hub/name.h"
#include "converter/hub/progress.h"
#include "converter/hub/settings.h"

namespace gptq::convert::hub {

struct RemoteFile {
  std::string name, etag;  // etag: what its bytes hash to (hash.h); "" = complete() asks for it
  uint64_t size = 0;
};

struct Listing {
  std::string commit;
  std::vector<RemoteFile> files;
};

class Remote {
 public:
  virtual ~Remote() = default;
  // None where the server cannot be reached, or has no time now: why says so. Fails with NOT_FOUND or IO where it says
  // no.
  virtual std::optional<Listing> list(const Name& name, std::string& why) = 0;
  virtual void complete(const Name& name, const std::string& commit, RemoteFile& file) = 0;
  // The file's blob, whole and checked, or nothing but what a later try goes on from.
  virtual void load(const Name& name, const std::string& commit, const RemoteFile& file, const Cache& cache) = 0;
};

// NULL: built without libcurl.
std::unique_ptr<Remote> connect(const Settings& settings, Progress& progress);

}  // namespace gptq::convert::hub
