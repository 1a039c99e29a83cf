// SPDX-License-Identifier: Apache-2.0
#include "converter/hub/http.h"

#include <curl/curl.h>

#include <chrono>
#include <ctime>
#include <exception>

#include "base/failure.h"
#include "converter/json.h"

namespace gptq::convert::hub {
namespace {

using base::fail;
constexpr int redirects_max = 10;
constexpr size_t body_max = 64u << 20, header_max = 256u << 10;

// "https://host:port" of a URL, in small letters.
std::string origin(const std::string& url) {
  const size_t start = url.find("://");
  return start == url.npos ? std::string() : lower(url.substr(0, url.find_first_of("/?#", start + 3)));
}

// A URL for messages: what follows ? may be a secret.
std::string shown(const std::string& url) { return url.substr(0, url.find('?')); }

bool is_redirect(long status) {
  return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

bool is_hopeless(CURLcode code) {
  return code == CURLE_PEER_FAILED_VERIFICATION || code == CURLE_SSL_CACERT_BADFILE ||
         code == CURLE_UNSUPPORTED_PROTOCOL || code == CURLE_URL_MALFORMAT || code == CURLE_SSL_CERTPROBLEM ||
         code == CURLE_SSL_ENGINE_NOTFOUND;
}

struct List {
  curl_slist* first = nullptr;
  List() = default;
  ~List() { curl_slist_free_all(first); }
  List(const List&) = delete;
  void add(const std::string& line) {
    curl_slist* const longer = curl_slist_append(first, line.c_str());
    if (!longer) throw std::bad_alloc();
    first = longer;
  }
};

}  // namespace

bool Answer::passing() const {
  if (hopeless) return false;
  return !trouble.empty() || status == 408 || status == 429 || status == 500 || status == 502 || status == 503 ||
         status == 504;
}

std::string Answer::header(const std::string& name) const {
  const auto found = headers.find(name);
  return found == headers.end() ? std::string() : found->second;
}

std::string Answer::text() const { return trouble.empty() ? "HTTP " + std::to_string(status) : trouble; }

struct Http::Handle {
  CURL* curl = curl_easy_init();
  ~Handle() { curl_easy_cleanup(curl); }
};

// What libcurl's callbacks fill. Nothing is thrown through libcurl.
struct Http::Transfer {
  using Clock = std::chrono::steady_clock;
  CURL* curl;
  const Sink* sink;
  Answer answer{};
  size_t header_bytes = 0;
  std::exception_ptr thrown{};
  std::chrono::seconds patience{};
  Clock::time_point heard{};  // when something last came
  curl_off_t bytes = 0;

  void take_header(std::string_view line) {
    if (line.starts_with("HTTP/")) answer.headers.clear();  // an answer before the last, as a proxy's
    if ((header_bytes += line.size()) > header_max) fail(GPTQ_E_IO, "the server's headers do not end");
    const size_t colon = line.find(':');
    if (colon == line.npos) return;
    const size_t first = line.find_first_not_of(" \t", colon + 1), last = line.find_last_not_of(" \t\r\n");
    answer.headers[lower(line.substr(0, colon))] =
        first == line.npos || last < first ? "" : std::string(line.substr(first, last - first + 1));
  }
  void take_body(std::span<const std::byte> bytes) {
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &answer.status);
    if (sink && (answer.status == 200 || answer.status == 206)) return (*sink)(answer, bytes);
    if (bytes.size() > body_max - answer.body.size())
      fail(GPTQ_E_IO, "the server's answer has more than ", body_max, " bytes");
    answer.body.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }
  template <class F>
  size_t guarded(size_t n, const F& f) {
    try {
      f();
      return n;
    } catch (...) {
      thrown = std::current_exception();
      return 0;
    }
  }
  static size_t on_header(char* data, size_t, size_t n, void* user) {
    auto* const self = static_cast<Transfer*>(user);
    self->heard = Clock::now();
    return self->guarded(n, [&] { self->take_header({data, n}); });
  }
  // libcurl calls it at least once a second.
  static int on_progress(void* user, curl_off_t, curl_off_t bytes, curl_off_t, curl_off_t) {
    auto* const self = static_cast<Transfer*>(user);
    const auto now = Clock::now();
    if (bytes != self->bytes) self->bytes = bytes, self->heard = now;
    return now - self->heard > self->patience;
  }
  static size_t on_body(char* data, size_t, size_t n, void* user) {
    auto* const self = static_cast<Transfer*>(user);
    return self->guarded(n, [&] { self->take_body(std::as_bytes(std::span(data, n))); });
  }
};

Http::Http(const Settings& settings) : settings_(settings) {
  if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) fail(GPTQ_E_INTERNAL, "libcurl cannot be used");
  handle_ = std::make_unique<Handle>();
  if (!handle_->curl) fail(GPTQ_E_INTERNAL, "libcurl cannot be used");
}
Http::~Http() = default;

void Http::one(Transfer& transfer, const std::string& url, uint64_t from, bool head) {
  CURL* const curl = handle_->curl;
  List headers;
  headers.add("Accept-Encoding: identity");  // ranges and sizes are those of the file
  if (!settings_.token.empty() && origin(url) == origin(settings_.endpoint))
    headers.add("Authorization: Bearer " + settings_.token);
  const std::string range = std::to_string(from) + "-";
  char error[CURL_ERROR_SIZE] = "";
  curl_easy_reset(curl);  // connections stay
  curl_easy_setopt(curl, CURLOPT_URL, url.c_str());
#if LIBCURL_VERSION_NUM >= 0x075500
  curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
#else
  curl_easy_setopt(curl, CURLOPT_PROTOCOLS, CURLPROTO_HTTP | CURLPROTO_HTTPS);
#endif
  curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers.first);
  curl_easy_setopt(curl, CURLOPT_USERAGENT, "gptq-convert/" GPTQ_VERSION_TEXT);
  if (from) curl_easy_setopt(curl, CURLOPT_RANGE, range.c_str());
  if (head) curl_easy_setopt(curl, CURLOPT_NOBODY, 1L);
  if (!settings_.ca_file.empty()) curl_easy_setopt(curl, CURLOPT_CAINFO, settings_.ca_file.c_str());
  curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, settings_.timeout_s);
  curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
  curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, Transfer::on_progress);
  curl_easy_setopt(curl, CURLOPT_XFERINFODATA, &transfer);
  curl_easy_setopt(curl, CURLOPT_BUFFERSIZE, 256L << 10);
  curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, error);
  curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, Transfer::on_header);
  curl_easy_setopt(curl, CURLOPT_HEADERDATA, &transfer);
  curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, Transfer::on_body);
  curl_easy_setopt(curl, CURLOPT_WRITEDATA, &transfer);
  const CURLcode code = curl_easy_perform(curl);
  if (transfer.thrown) std::rethrow_exception(transfer.thrown);
  curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &transfer.answer.status);
  if (code == CURLE_OK) return;
  transfer.answer.trouble = code == CURLE_ABORTED_BY_CALLBACK
                                ? "nothing came for " + std::to_string(settings_.timeout_s) + " s"
                            : *error ? error
                                     : curl_easy_strerror(code);
  transfer.answer.hopeless = is_hopeless(code);
}

Answer Http::run(std::string url, uint64_t from, const Sink* sink, bool head) {
  for (int i = 0; i <= redirects_max; ++i) {
    Transfer transfer{.curl = handle_->curl, .sink = sink};
    transfer.patience = std::chrono::seconds(settings_.timeout_s);
    transfer.heard = Transfer::Clock::now();
    one(transfer, url, from, head);
    Answer& answer = transfer.answer;
    const bool tells = head && !answer.header("x-linked-etag").empty();
    if (!answer.trouble.empty() || !is_redirect(answer.status) || tells) return std::move(answer);
    const char* next = nullptr;
    curl_easy_getinfo(handle_->curl, CURLINFO_REDIRECT_URL, &next);
    if (!next) fail(GPTQ_E_IO, "'", shown(url), "' leads on to nowhere (HTTP ", answer.status, ")");
    if (origin(url).starts_with("https:") && !origin(next).starts_with("https:"))
      fail(GPTQ_E_IO, "'", shown(url), "' leads on to '", shown(next), "', which is not encrypted");
    url = next;
  }
  fail(GPTQ_E_IO, "more than ", redirects_max, " redirects, the last to '", shown(url), "'");
}

long long seconds_until(const std::string& date) {
  const std::time_t then = curl_getdate(date.c_str(), nullptr), now = std::time(nullptr);
  return then < 0 ? -1 : then < now ? 0 : static_cast<long long>(then - now);
}

std::string url_quoted(std::string_view text, bool slashes) {
  std::string out;
  for (const char c : text) {
    const bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                       std::string_view("-_.~").find(c) != std::string_view::npos;
    if (plain || (c == '/' && slashes)) {
      out += c;
    } else {
      const auto byte = static_cast<unsigned char>(c);
      out += {'%', "0123456789ABCDEF"[byte >> 4], "0123456789ABCDEF"[byte & 15]};
    }
  }
  return out;
}

}  // namespace gptq::convert::hub
