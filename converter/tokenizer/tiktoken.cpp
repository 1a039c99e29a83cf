// SPDX-License-Identifier: Apache-2.0
// tiktoken merges whatever two neighbours make a token, the lowest rank first. A token has one pair that it comes from: what its bytes
// are when all lower ranks were merged, so these pairs are the list of merges.
#include "converter/tokenizer/tiktoken.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <unordered_map>

#include "base/failure.h"
#include "converter/json_writer.h"
#include "converter/tokenizer/tokenizer_json.h"

namespace gptq::convert {
namespace {

constexpr std::string_view base64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

std::optional<std::string> decoded(std::string_view text) {
  std::string out;
  uint32_t bits = 0;
  int n = 0;
  while (text.ends_with('=')) text.remove_suffix(1);
  for (const char c : text) {
    const size_t value = base64.find(c);
    if (value == base64.npos) return {};
    bits = bits << 6 | static_cast<uint32_t>(value);
    n += 6;
    if (n >= 8) out.push_back(static_cast<char>(bits >> (n -= 8) & 0xFF));
  }
  return out;
}

struct Line {
  std::string bytes;
  uint32_t rank;
};

// The next line, which file loses; nothing where it is none of tiktoken's.
std::optional<Line> next_line(std::string_view& file) {
  const size_t end = std::min(file.find('\n'), file.size());
  std::string_view line = file.substr(0, end);
  file.remove_prefix(std::min(end + 1, file.size()));
  if (line.ends_with('\r')) line.remove_suffix(1);
  const size_t space = line.find(' ');
  if (space == line.npos || space == 0) return {};
  Line out{"", 0};
  const auto [stop, error] = std::from_chars(line.data() + space + 1, line.data() + line.size(), out.rank);
  const std::optional<std::string> bytes = decoded(line.substr(0, space));
  if (error != std::errc() || stop != line.data() + line.size() || !bytes || out.rank >= 1u << 20) return {};
  out.bytes = *bytes;
  return out;
}

using Ranks = std::unordered_map<std::string_view, uint32_t>;

// The parts of a token of that rank, before the last of its merges.
std::vector<std::string_view> parts_of(std::string_view token, uint32_t rank, const Ranks& ranks) {
  std::vector<std::string_view> parts;
  for (size_t i = 0; i < token.size(); ++i) parts.push_back(token.substr(i, 1));
  for (;;) {
    uint32_t best = rank;
    size_t at = 0;
    for (size_t i = 0; i + 1 < parts.size(); ++i) {
      const auto found = ranks.find({parts[i].data(), parts[i].size() + parts[i + 1].size()});
      if (found == ranks.end() || found->second >= best) continue;
      best = found->second;
      at = i;
    }
    if (best == rank) return parts;
    parts[at] = {parts[at].data(), parts[at].size() + parts[at + 1].size()};
    parts.erase(parts.begin() + static_cast<ptrdiff_t>(at) + 1);
  }
}

constexpr std::string_view contractions = R"((?i:'s|'t|'re|'ve|'m|'ll|'d))";
constexpr std::string_view rest = R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

std::string pattern_of(std::string_view kind) {
  const std::string digits = kind.starts_with("QWen") ? R"(\p{N})" : R"(\p{N}{1,3})";
  if (kind.starts_with("TikToken") || kind.starts_with("Kimi")) {  // Kimi-K2, Moonlight
    const std::string upper = R"([\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]])";
    const std::string lower = R"([\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]])";
    const std::string first = R"([^\r\n\p{L}\p{N}]?)", last = std::string(contractions) + "?|";
    return R"([\p{Han}]+|)" + first + upper + "*" + lower + "+" + last + first + upper + "+" + lower + "*" + last + digits + std::string(rest);
  }
  return std::string(contractions) + R"(|[^\r\n\p{L}\p{N}]?\p{L}+|)" + digits + std::string(rest);
}

void add_special(TokenizerDescription& out, const std::string& text) {
  const auto id = static_cast<uint32_t>(out.tokens.size());
  out.tokens.push_back({text, false, false, true});
  out.added.push_back({id, text});
}

}  // namespace

bool is_tiktoken(std::string_view file) { return next_line(file).has_value(); }

TokenizerDescription from_tiktoken(std::string_view file, std::string_view kind) {
  TokenizerDescription out;
  while (file.find_first_not_of("\r\n") != file.npos) {
    const std::optional<Line> line = next_line(file);
    if (!line) base::fail(GPTQ_E_FORMAT, "tiktoken file: line ", out.tokens.size() + 1, " is not base64 and a rank");
    TokenizerDescription::Token& token = token_at(out, line->rank);
    token.text = line->bytes;
    token.symbol = true;
  }
  Ranks ranks;
  for (uint32_t id = 0; id < out.tokens.size(); ++id)
    if (out.tokens[id].symbol) ranks.emplace(out.tokens[id].text, id);
  for (uint32_t id = 0; id < out.tokens.size(); ++id) {
    const std::string_view token = out.tokens[id].text;
    if (token.size() < 2 || token.size() > 1024) continue;
    const auto parts = parts_of(token, id, ranks);
    if (parts.size() == 2 && ranks.contains(parts[0]) && ranks.contains(parts[1]))
      out.merges.push_back({ranks.at(parts[0]), ranks.at(parts[1]), id});
  }
  out.ignore_merges = true;
  const std::string step = JsonWriter()
                               .add("type", "Split")
                               .add_raw("pattern", JsonWriter().add("Regex", pattern_of(kind)).object())
                               .add("behavior", "Isolated")
                               .add("invert", false)
                               .object();
  const std::string bytes = JsonWriter().add("type", "ByteLevel").add("add_prefix_space", false).add("use_regex", false).object();
  const JsonDocument steps("", R"({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [)" + step + ", " + bytes + "]}}");
  read_pre_tokenizer(steps.root().fields(), out);
  if (kind.starts_with("QWen")) {
    out.nfc = true;
    for (const char* text : {"<|endoftext|>", "<|im_start|>", "<|im_end|>"}) add_special(out, text);
    for (int i = 0; i < 205; ++i) add_special(out, "<|extra_" + std::to_string(i) + "|>");
    out.eos = {static_cast<int32_t>(out.added[0].id), "<|endoftext|>"};
  }
  return out;
}

}  // namespace gptq::convert
