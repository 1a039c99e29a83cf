// SPDX-License-Identifier: Apache-2.0
#include "converter/hub/name.h"

#include <algorithm>

#include "base/os.h"

namespace gptq::convert::hub {
namespace {

bool is_word(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }

// The hub's own rule.
bool plain(std::string_view part) {
  const auto allowed = [](char c) { return is_word(c) || c == '-' || c == '.'; };
  return !part.empty() && part.size() <= 96 && std::all_of(part.begin(), part.end(), allowed) &&
         is_word(part.front()) && is_word(part.back()) && part.find("--") == part.npos && part.find("..") == part.npos;
}

// It becomes the name of a file under refs.
bool plain_revision(std::string_view text) {
  const auto allowed = [](char c) { return is_word(c) || c == '-' || c == '.' || c == '/' || c == '+'; };
  return !text.empty() && text.size() <= 200 && std::all_of(text.begin(), text.end(), allowed) &&
         is_word(text.front()) && is_word(text.back()) && text.find("..") == text.npos &&
         text.find("//") == text.npos && text.find("/.") == text.npos;
}

}  // namespace

bool is_commit(std::string_view text) {
  return text.size() == 40 && text.find_first_not_of("0123456789abcdef") == text.npos;
}

std::optional<Name> parse_name(std::string_view text) {
  Name out;
  if (const size_t at = text.find('@'); at != text.npos) {
    out.revision = text.substr(at + 1);
    text = text.substr(0, at);
  }
  const size_t slash = text.find('/');
  if (slash == text.npos) return {};
  out.owner = text.substr(0, slash);
  text.remove_prefix(slash + 1);
  if (const size_t end = text.find('/'); end != text.npos) {
    out.file = text.substr(end + 1);
    text = text.substr(0, end);
    if (!out.file.ends_with(".gguf") || out.file[0] == '.' || out.file.find_first_of("/\\") != out.file.npos) return {};
  }
  out.model = text;
  const bool good = plain(out.owner) && plain(out.model) && plain_revision(out.revision);
  return good ? std::optional(out) : std::nullopt;
}

std::optional<Name> name_of_source(const std::string& text) {
  if (base::os::kind_of(text) != base::os::Kind::nothing) return {};
  for (const std::string_view ending : {".gguf", ".gptq", ".safetensors", ".json"})
    if (text.ends_with(ending) && std::count(text.begin(), text.end(), '/') < 2) return {};
  return parse_name(text);
}

}  // namespace gptq::convert::hub
