// SPDX-License-Identifier: Apache-2.0
#include "converter/hub/remote.h"

#include <algorithm>
#include <charconv>

#include "base/failure.h"
#include "converter/hub/download.h"
#include "converter/hub/http.h"
#include "converter/hub/patience.h"
#include "converter/hub/refusal.h"
#include "converter/json.h"

namespace gptq::convert::hub {
namespace {

using base::fail;
constexpr int tries_for_list = 3;  // the cache may have it

// "W/\"abc\"" -> abc
std::string plain_etag(std::string text) {
  if (text.starts_with("W/")) text.erase(0, 2);
  text.erase(std::remove(text.begin(), text.end(), '"'), text.end());
  return text;
}

RemoteFile file_of(simdjson::dom::element element) {
  simdjson::dom::object fields;
  if (element.get_object().get(fields))
    fail(GPTQ_E_FORMAT, "the server's list of files holds something that is no file");
  const JsonObject entry("the server's list of files", fields);
  RemoteFile out;
  out.name = entry.string("rfilename").value_or("");
  if (const auto size = entry.integer("size"); size && *size >= 0) out.size = static_cast<uint64_t>(*size);
  out.etag = entry.string("blobId").value_or("");
  if (const auto lfs = entry.object("lfs")) {
    out.etag = lfs->string("sha256").value_or(lfs->string("oid").value_or(""));
    if (const auto size = lfs->integer("size"); size && *size >= 0) out.size = static_cast<uint64_t>(*size);
  }
  if (!entry.has("size") || !is_hash(out.etag)) out.etag.clear();
  return out;
}

class HttpRemote final : public Remote {
 public:
  HttpRemote(const Settings& settings, Progress& progress)
      : settings_(settings), progress_(progress), http_(settings) {}

  std::optional<Listing> list(const Name& name, std::string& why) override {
    const std::string url = settings_.endpoint + "/api/models/" + name.repository() + "/revision/" +
                            url_quoted(name.revision, false) + "?blobs=true";
    const Answer answer =
        patiently(progress_, std::min(tries_for_list, settings_.tries), [&] { return http_.get(url); });
    if (!answer.hopeless && (answer.passing() || answer.status == 0)) {
      why = answer.text();
      return {};
    }
    if (!answer.good()) refuse(answer, name, "", settings_);
    const JsonDocument document(settings_.endpoint + "'s answer", answer.body);
    const JsonObject root = document.root();
    Listing out;
    out.commit = root.string("sha").value_or("");
    if (!is_commit(out.commit)) root.refuse("sha", "must be a commit: is HF_ENDPOINT a Hugging Face hub?");
    if (const auto files = root.array("siblings"))
      for (const auto file : *files) out.files.push_back(file_of(file));
    return out;
  }

  void complete(const Name& name, const std::string& commit, RemoteFile& file) override {
    if (!file.etag.empty()) return;
    const Answer answer = patiently(progress_, settings_.tries, [&] { return http_.head(url_of(name, commit, file)); });
    const bool tells = answer.trouble.empty() && !answer.header("x-linked-etag").empty();
    if (!answer.good() && !tells) refuse(answer, name, file.name, settings_);
    file.etag = plain_etag(tells ? answer.header("x-linked-etag") : answer.header("etag"));
    const std::string size = answer.header(tells ? "x-linked-size" : "content-length");
    const auto [end, error] = std::from_chars(size.data(), size.data() + size.size(), file.size);
    if (error != std::errc() || size.empty())
      fail(GPTQ_E_UNSUPPORTED, "the server does not say how long '", file.name, "' is");
    if (!is_hash(file.etag))
      fail(GPTQ_E_UNSUPPORTED, "the server gives no hash to check '", file.name, "' by, but '", file.etag, "'");
  }

  void load(const Name& name, const std::string& commit, const RemoteFile& file, const Cache& cache) override {
    const FileLock lock(cache.lock_path(file.etag),
                        [&] { progress_.say("another program is loading '" + file.name + "', waiting for it"); });
    uint64_t size;
    if (base::os::size_of(cache.blob(file.etag), size) && size == file.size) return;
    Download download(file, cache.blob(file.etag), progress_);
    std::string wrong;
    receive(name, commit, file, download);
    if (download.finish(wrong)) return;
    progress_.say("'" + file.name + "' has the hash " + wrong + " where " + file.etag +
                  " belongs: it is loaded once more");
    receive(name, commit, file, download);
    if (!download.finish(wrong))
      fail(GPTQ_E_FORMAT, "'", file.name, "' came twice with the hash ", wrong, " where ", file.etag,
           " belongs: nothing of it is kept");
  }

 private:
  // All bytes, in as many pieces as it takes.
  void receive(const Name& name, const std::string& commit, const RemoteFile& file, Download& download) {
    Patience patience(progress_, settings_.tries);
    while (!download.whole()) {
      const uint64_t from = download.begin();
      Answer answer = http_.get(url_of(name, commit, file), from,
                                [&](const Answer& begun, auto bytes) { download.take(begun, bytes); });
      if (download.came_further()) patience.renew();
      if (download.whole()) return;
      if (answer.status == 416 && from > 0) {
        download.restart();
        continue;
      }
      if (answer.good()) answer.trouble = "the answer ended too early";
      if (!answer.passing() || !patience.again(answer)) refuse(answer, name, file.name, settings_);
    }
  }
  std::string url_of(const Name& name, const std::string& commit, const RemoteFile& file) const {
    return settings_.endpoint + "/" + name.repository() + "/resolve/" + commit + "/" + url_quoted(file.name, true);
  }

  const Settings& settings_;
  Progress& progress_;
  Http http_;
};

}  // namespace

std::unique_ptr<Remote> connect(const Settings& settings, Progress& progress) {
  return std::make_unique<HttpRemote>(settings, progress);
}

}  // namespace gptq::convert::hub
