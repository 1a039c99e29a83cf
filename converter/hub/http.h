// SPDX-License-Identifier: Apache-2.0
// Requests by libcurl, one at a time: proxies as the environment has them, redirects, and connections that stand still
// given up.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>

#include "converter/hub/settings.h"

namespace gptq::convert::hub {

struct Answer {
  long status = 0;                             // 0 = there was none
  std::string trouble;                         // why it ended before it was whole; "" = it did not
  bool hopeless = false;                       // trying again would not help
  std::map<std::string, std::string> headers;  // names in small letters
  std::string body;                            // what went to no sink

  bool good() const { return trouble.empty() && status >= 200 && status < 300; }
  // Whether another try may go better.
  bool passing() const;
  std::string header(const std::string& name) const;
  std::string text() const;  // "HTTP 503", or the trouble
};

class Http {
 public:
  // Gets the bytes of a body of status 200 or 206, with the headers that came before them.
  using Sink = std::function<void(const Answer& begun, std::span<const std::byte> bytes)>;

  explicit Http(const Settings& settings);
  ~Http();
  Http(const Http&) = delete;

  // The token goes to the endpoint alone, wherever redirects lead.
  Answer get(const std::string& url) { return run(url, 0, nullptr, false); }
  Answer get(const std::string& url, uint64_t from, const Sink& sink) { return run(url, from, &sink, false); }
  // A file's headers: those of the first answer that tells about the file, before a redirect to where it lies.
  Answer head(const std::string& url) { return run(url, 0, nullptr, true); }

 private:
  struct Transfer;
  Answer run(std::string url, uint64_t from, const Sink* sink, bool head);
  void one(Transfer& transfer, const std::string& url, uint64_t from, bool head);

  const Settings& settings_;
  struct Handle;
  std::unique_ptr<Handle> handle_;
};

// Of an HTTP date; -1 = it is none.
long long seconds_until(const std::string& date);
// What must not stand in a URL's path as it is becomes %XX.
std::string url_quoted(std::string_view text, bool slashes);

}  // namespace gptq::convert::hub
