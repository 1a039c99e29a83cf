// SPDX-License-Identifier: Apache-2.0
#include "converter/hub/settings.h"

#include <algorithm>
#include <charconv>

#include "base/failure.h"
#include "converter/json.h"
#include "converter/system.h"

namespace gptq::convert::hub {
namespace {

constexpr uint64_t token_file_max = 1 << 16;

// The first of the variables that is set; "" = none.
std::string variable(std::initializer_list<const char*> names) {
  for (const char* name : names)
    if (std::string value = system::variable(name); !value.empty()) return value;
  return {};
}

bool is_true(const std::string& value) {
  const std::string word = lower(value);
  return word == "1" || word == "on" || word == "yes" || word == "true";
}

std::string home() {
  const std::string folder = system::home_folder();
  return folder.empty() ? "." : folder;
}

// A leading ~ is the home folder.
std::string path(std::string text) {
  if (text == "~" || text.starts_with("~/")) text = home() + text.substr(1);
  while (text.size() > 1 && text.back() == '/') text.pop_back();
  return text;
}

std::string path_or(std::initializer_list<const char*> names, const std::string& otherwise) {
  const std::string value = variable(names);
  return path(value.empty() ? otherwise : value);
}

std::string trimmed(std::string_view text) {
  const size_t first = text.find_first_not_of(" \t\r\n"), last = text.find_last_not_of(" \t\r\n");
  return first == text.npos ? std::string() : std::string(text.substr(first, last - first + 1));
}

std::string token_of(const std::string& hub_home) {
  if (std::string token = trimmed(variable({"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"})); !token.empty()) return token;
  const std::string file = path_or({"HF_TOKEN_PATH"}, hub_home + "/token");
  if (is_true(variable({"HF_HUB_DISABLE_IMPLICIT_TOKEN"})) || !file_exists(file)) return {};
  return trimmed(read_text(file, token_file_max));
}

template <class T>
void read_number(const char* name, T& number) {
  const std::string text = variable({name});
  if (text.empty()) return;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() || number < 1 || number > 86400)
    base::fail(GPTQ_E_INVALID_ARGUMENT, name, " must be a whole number from 1 to 86400, not '", text, "'");
}

}  // namespace

Settings settings_of_environment() {
  const std::string caches = path_or({"XDG_CACHE_HOME"}, home() + "/.cache"),
                    hub_home = path_or({"HF_HOME"}, caches + "/huggingface");
  Settings out;
  out.endpoint = path_or({"HF_ENDPOINT"}, "https://huggingface.co");
  out.token = token_of(hub_home);
  out.cache = path_or({"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"}, hub_home + "/hub");
  out.converted = path_or({"GPTQ_CACHE"}, caches + "/gptq");
  out.ca_file = path(variable({"CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"}));
  out.offline = is_true(variable({"HF_HUB_OFFLINE"})) || is_true(variable({"TRANSFORMERS_OFFLINE"}));
  read_number("HF_HUB_DOWNLOAD_TIMEOUT", out.timeout_s);
  read_number("GPTQ_HUB_TRIES", out.tries);
  if (!out.endpoint.starts_with("https://") && !out.endpoint.starts_with("http://"))
    base::fail(GPTQ_E_INVALID_ARGUMENT, "HF_ENDPOINT must begin with https:// or http://: '", out.endpoint, "'");
  if (out.token.find_first_of("\r\n") != out.token.npos)
    base::fail(GPTQ_E_INVALID_ARGUMENT, "HF_TOKEN has more than one line");
  return out;
}

}  // namespace gptq::convert::hub
