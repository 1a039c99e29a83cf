// SPDX-License-Identifier: Apache-2.0
// What the commands need of the hub: a source on the disk, and gptq-run's model files.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace gptq::convert::hub {

class LocalSource {
 public:
  // source itself, or where the model of that name lies after it was loaded. target: the file that is to be made of it.
  // discard: loaded weights do not stay in the cache.
  LocalSource(const std::string& source, const std::string& target, bool discard);
  ~LocalSource();
  LocalSource(const LocalSource&) = delete;

  const std::string& path() const { return path_; }
  bool discards() const;
  // The source's files are open: those that are not to stay go.
  void opened();
  // For Options of the source, where it discards.
  void done_with(std::string_view file, uint64_t offset, uint64_t bytes) const;

 private:
  friend std::string cached_model(const std::string&, bool,
                                  const std::function<void(LocalSource&, const std::string&)>&);
  struct Found;
  LocalSource(std::unique_ptr<Found> found, const std::string& target, bool discard);

  std::unique_ptr<Found> found_;
  std::string path_;
};

// The .gptq file of the named model in gptq's own cache; where it is not there yet, convert(source, target) makes it.
// Fails with NOT_FOUND where no model can be called so.
std::string cached_model(const std::string& name, bool discard,
                         const std::function<void(LocalSource& source, const std::string& target)>& convert);

}  // namespace gptq::convert::hub
