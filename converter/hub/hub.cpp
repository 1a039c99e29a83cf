// SPDX-License-Identifier: Apache-2.0
#include "converter/hub/hub.h"

#include <algorithm>

#include "base/failure.h"
#include "base/os.h"
#include "converter/hub/wanted.h"
#include "converter/json.h"

namespace gptq::convert::hub {
namespace {

using base::fail;

const RemoteFile* find_file(const Listing& listing, std::string_view name) {
  const auto found =
      std::find_if(listing.files.begin(), listing.files.end(), [&](const RemoteFile& f) { return f.name == name; });
  return found == listing.files.end() ? nullptr : &*found;
}

// A repository without config.json holds no checkpoint; those with GGUF files have names to offer.
[[noreturn]] void refuse_without_config(const Name& name, const Listing& listing) {
  for (const RemoteFile& file : listing.files)
    if (file.name.ends_with(".gguf") && file.name.find('/') == file.name.npos)
      fail(GPTQ_E_UNSUPPORTED, "'", name.repository(), "' holds GGUF files: name one of them, such as ",
           name.repository(), "/", file.name);
  fail(GPTQ_E_UNSUPPORTED, "'", name.repository(), "' has no config.json: is it a language model?");
}

}  // namespace

Hub::Hub(const Name& name, const Settings& settings, Progress& progress)
    : name_(name),
      settings_(settings),
      progress_(progress),
      cache_(settings.cache, name),
      converted_(settings.converted, name) {
  if (!settings.offline) remote_ = connect(settings, progress);
}

Revision Hub::find() {
  if (settings_.offline) return known("HF_HUB_OFFLINE is set");
  if (!remote_) return known("this gptq-convert was built without libcurl");
  std::string why;
  Revision out;
  out.listing = remote_->list(name_, why);
  if (!out.listing) {
    out = known(settings_.endpoint +
                " cannot be reached: is there a network? HF_ENDPOINT names another server, HF_HUB_OFFLINE=1 asks none");
    progress_.say("cannot reach " + settings_.endpoint + " (" + why + "): '" + name_.repository() +
                  "' is taken as it was when last loaded");
    return out;
  }
  out.commit = out.listing->commit;
  return out;
}

Revision Hub::known(const std::string& why) const {
  Revision out;
  out.commit = cache_.commit_of(name_.revision);
  if (out.commit.empty()) out.commit = converted_.commit_of(name_.revision);
  if (out.commit.empty())
    fail(GPTQ_E_NOT_FOUND, "'", name_.repository(), "' is no file, the hub's cache has no revision '", name_.revision,
         "' of it, and ", why);
  return out;
}

std::string Hub::take_from_cache(const Revision& revision) const {
  const std::string folder = cache_.snapshot(revision.commit), file = name_.file.empty() ? "config.json" : name_.file;
  if (!file_exists(folder + "/" + file))
    fail(GPTQ_E_NOT_FOUND, "the cache in '", settings_.cache, "' has no '", file, "' of '", name_.repository(),
         "', and the hub is not asked");
  return name_.file.empty() ? folder : folder + "/" + file;
}

std::string Hub::load(const Revision& revision, const std::string& target, bool discard) {
  discard_ = discard;
  if (!revision.listing) return take_from_cache(revision);
  const std::string folder = cache_.snapshot(revision.commit);
  std::vector<RemoteFile> descriptions, weights;
  std::vector<std::string> names;
  for (const RemoteFile& file : revision.listing->files) {
    names.push_back(file.name);
    if (name_.file.empty() && is_description(file.name)) descriptions.push_back(file);
  }
  if (name_.file.empty()) {
    if (!find_file(*revision.listing, "config.json")) refuse_without_config(name_, *revision.listing);
    get(revision, descriptions, target, false);
    for (const std::string& name : weight_files(folder, names)) {
      const RemoteFile* const file = find_file(*revision.listing, name);
      if (!file) fail(GPTQ_E_FORMAT, "'", name_.repository(), "' has no '", name, "', which its index names");
      weights.push_back(*file);
    }
  } else {
    const RemoteFile* const file = find_file(*revision.listing, name_.file);
    if (!file) fail(GPTQ_E_NOT_FOUND, "'", name_.repository(), "' has no file '", name_.file, "'");
    weights.push_back(*file);
  }
  get(revision, weights, target, true);
  if (!discards()) write_ref(revision);  // last: a snapshot that a name leads to is whole
  return name_.file.empty() ? folder : folder + "/" + name_.file;
}

void Hub::write_ref(const Revision& revision) const {
  try {
    cache_.write_ref(name_.revision, revision.commit);
  } catch (const base::Failure&) {  // a cache that cannot be written is still read
  }
}

std::unique_ptr<GivenUp> Hub::give_up(const Revision& revision) const {
  auto out = std::make_unique<GivenUp>();
  for (const RemoteFile& file : loaded_) {
    out->add(file.name, cache_.blob(file.etag));
    base::os::remove_file(cache_.snapshot(revision.commit) + "/" + file.name);
  }
  return out;
}

bool Hub::is_there(const Revision& revision, const RemoteFile& file) const {
  uint64_t size;
  if (file.etag.empty()) return base::os::size_of(cache_.snapshot(revision.commit) + "/" + file.name, size);
  return cache_.has(revision.commit, file.name, file.size);
}

void Hub::get(const Revision& revision, std::vector<RemoteFile> files, const std::string& target, bool weights) {
  uint64_t converted = 0, missing = 0;
  for (const RemoteFile& file : files)
    if (is_there(revision, file)) converted += file.size;
  std::erase_if(files, [&](const RemoteFile& file) { return is_there(revision, file); });
  for (RemoteFile& file : files) {
    remote_->complete(name_, revision.commit, file);
    uint64_t there = 0;
    if (!base::os::size_of(cache_.blob(file.etag), there)) base::os::size_of(cache_.blob(file.etag) + ".incomplete", there);
    missing += file.size - std::min(file.size, there);
    converted += file.size;
    progress_.expect(file.size);
  }
  if (weights) check_room(missing, converted, target);
  for (const RemoteFile& file : files) {
    uint64_t size;
    const bool here = base::os::size_of(cache_.blob(file.etag), size) && size == file.size;
    if (!here) remote_->load(name_, revision.commit, file, cache_);
    if (!here && weights) loaded_.push_back(file);
    cache_.link(revision.commit, file.name, file.etag);
  }
}

// Where one disk has not room for the weights and what is made of them, the weights go as they are read, and a quarter
// is enough beside them: the embedding and a layer are there twice.
void Hub::check_room(uint64_t missing, uint64_t converted, const std::string& target) {
  const auto check = [&](const std::string& path, uint64_t bytes, std::string_view what) {
    const uint64_t free = free_bytes(path);
    if (free < bytes)
      fail(GPTQ_E_IO, what, " '", name_.repository(), "' takes ", bytes_text(bytes), ", and ", bytes_text(free),
           " are free where '", path, "' lies");
  };
  if (!same_disk(settings_.cache, target)) {
    check(settings_.cache, missing, "loading");
    check(target, converted, "converting");
    return;
  }
  const bool can_discard = name_.file.empty() && missing > 0, fits = free_bytes(target) >= missing + converted;
  const uint64_t with_discard = missing + converted / 4;
  if (!can_discard) return check(target, missing + converted, "loading and converting");
  check(target, with_discard, "loading and converting");
  if (fits || discard_) return;
  progress_.say("there is no room for the files of '" + name_.repository() +
                "' and what is made of them: the files go as they are converted");
  discard_ = true;
}

}  // namespace gptq::convert::hub
