// SPDX-License-Identifier: Apache-2.0
#include "converter/hub/command.h"

#include "base/failure.h"
#include "converter/hub/hub.h"
#include "converter/json.h"

namespace gptq::convert::hub {

struct LocalSource::Found {
  explicit Found(const Name& n) : name(n) {}
  const Name name;
  const Settings settings = settings_of_environment();
  Progress progress{"gptq-convert"};
  Hub hub{name, settings, progress};
  const Revision revision = hub.find();
  std::unique_ptr<GivenUp> given_up;
};

LocalSource::LocalSource(const std::string& source, const std::string& target, bool discard) : path_(source) {
  const auto name = name_of_source(source);
  if (!name) return;
  found_ = std::make_unique<Found>(*name);
  path_ = found_->hub.load(found_->revision, target, discard);
}
LocalSource::LocalSource(std::unique_ptr<Found> found, const std::string& target, bool discard)
    : found_(std::move(found)), path_(found_->hub.load(found_->revision, target, discard)) {}
LocalSource::~LocalSource() = default;

bool LocalSource::discards() const { return found_ && found_->hub.discards(); }

void LocalSource::opened() {
  if (discards()) found_->given_up = found_->hub.give_up(found_->revision);
}

void LocalSource::done_with(std::string_view file, uint64_t offset, uint64_t bytes) const {
  if (found_ && found_->given_up) found_->given_up->done_with(file, offset, bytes);
}

std::string cached_model(const std::string& text, bool discard,
                         const std::function<void(LocalSource&, const std::string&)>& convert) {
  const auto name = parse_name(text);
  if (!name) base::fail(GPTQ_E_NOT_FOUND, "there is no file '", text, "', and no model of a hub is called so");
  auto found = std::make_unique<LocalSource::Found>(*name);
  const std::string commit = found->revision.commit, file = name->file.empty() ? std::string() : "-" + name->file;
  const Cache cache(found->settings.converted, *name);
  const std::string target =
      cache.folder() + "/" + commit + file + "-" GPTQ_VERSION_TEXT ".gptq";  // a later version may convert better
  if (!file_exists(target)) {
    const FileLock lock(target + ".lock",
                        [&] { found->progress.say("another program is converting '" + text + "', waiting for it"); });
    if (!file_exists(target)) {
      LocalSource source(std::move(found), target, discard);
      convert(source, target);
    }
  }
  cache.write_ref(name->revision, commit);
  return target;
}

}  // namespace gptq::convert::hub
