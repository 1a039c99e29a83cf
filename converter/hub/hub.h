// SPDX-License-Identifier: Apache-2.0
// A model by its name: found in the hub's cache folder, or loaded into it.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "converter/hub/cache.h"
#include "converter/hub/given_up.h"
#include "converter/hub/remote.h"

namespace gptq::convert::hub {

struct Revision {
  std::string commit;
  std::optional<Listing> listing;  // none: offline, and what the cache has must do
};

class Hub {
 public:
  Hub(const Name& name, const Settings& settings, Progress& progress);

  // Asks what the name's revision is now; without a network, what it was.
  Revision find();
  // The folder that holds the model, or its GGUF file. target: the file that is to be made of it, whose room is looked
  // for too. discard: the weights are not to stay; where there is not room enough, they are not either.
  std::string load(const Revision& revision, const std::string& target, bool discard);
  bool discards() const { return discard_ && !loaded_.empty(); }
  // Between opening a model and converting it: takes away the weights that load() has loaded and that are not to stay.
  // Who has them open reads on. What was in the cache before stays.
  std::unique_ptr<GivenUp> give_up(const Revision& revision) const;

 private:
  Revision known(const std::string& why) const;
  std::string take_from_cache(const Revision& revision) const;
  void get(const Revision& revision, std::vector<RemoteFile> files, const std::string& target, bool weights);
  void write_ref(const Revision& revision) const;
  bool is_there(const Revision& revision, const RemoteFile& file) const;
  void check_room(uint64_t missing, uint64_t converted, const std::string& target);

  const Name& name_;
  const Settings& settings_;
  Progress& progress_;
  Cache cache_, converted_;
  std::unique_ptr<Remote> remote_;
  bool discard_ = false;
  std::vector<RemoteFile> loaded_;  // weights, by this object
};

}  // namespace gptq::convert::hub
