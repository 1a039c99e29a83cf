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

// The merges of all tokens that are symbols; a lower id is a lower rank.
void find_merges(TokenizerDescription& out) {
  Ranks ranks;
  for (uint32_t id = 0; id < out.tokens.size(); ++id)
    if (out.tokens[id].symbol) ranks.emplace(out.tokens[id].text, id);
  for (uint32_t id = 0; id < out.tokens.size(); ++id) {
    const std::string_view token = out.tokens[id].text;
    if (!out.tokens[id].symbol || token.size() < 2 || token.size() > 1024) continue;
    const auto parts = parts_of(token, id, ranks);
    if (parts.size() == 2 && ranks.contains(parts[0]) && ranks.contains(parts[1]))
      out.merges.push_back({ranks.at(parts[0]), ranks.at(parts[1]), id});
  }
  out.ignore_merges = true;
}

void split_by(std::string_view pattern, TokenizerDescription& out) {
  const std::string step = JsonWriter()
                               .add("type", "Split")
                               .add_raw("pattern", JsonWriter().add("Regex", pattern).object())
                               .add("behavior", "Isolated")
                               .add("invert", false)
                               .object();
  const std::string bytes = JsonWriter().add("type", "ByteLevel").add("add_prefix_space", false).add("use_regex", false).object();
  const JsonDocument steps("", R"({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [)" + step + ", " + bytes + "]}}");
  read_pre_tokenizer(steps.root().fields(), out);
}

uint32_t count_field(Json object, std::string_view name) {
  const auto value = field(object, name);
  if (!value) base::fail(GPTQ_E_FORMAT, "tekken.json: ", name, " is missing");
  return as_id(*value, name);
}

constexpr uint32_t tekken_special_max = 4096;  // the files have 1,000

// Those of the first files, which do not list them.
constexpr const char* tekken_special[] = {"<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]",
                                          "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]", "[PREFIX]", "[MIDDLE]",
                                          "[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]"};

// The first n ids; what is not named is a filler.
void add_tekken_special(JsonFields root, uint32_t n, TokenizerDescription& out) {
  if (n > tekken_special_max) base::fail(GPTQ_E_UNSUPPORTED, "tekken.json: ", n, " special tokens, supported are ", tekken_special_max);
  for (uint32_t id = 0; id < n; ++id) out.tokens.push_back({"<SPECIAL_" + std::to_string(id) + ">", false, false, true});
  const auto name = [&](uint32_t id, std::string_view text) {
    if (id >= n) base::fail(GPTQ_E_FORMAT, "tekken.json: the special token \"", text, "\" has the rank ", id, " of ", n);
    out.tokens[id].text = text;
  };
  if (const auto list = field(root, "special_tokens")) {
    for (const Json entry : as_array(*list, "special_tokens")) name(count_field(entry, "rank"), string_field(entry, "token_str"));
  } else {
    for (uint32_t id = 0; id < std::min<uint32_t>(n, std::size(tekken_special)); ++id) name(id, tekken_special[id]);
  }
  for (uint32_t id = 0; id < n; ++id)
    if (!out.tokens[id].text.empty()) out.added.push_back({id, out.tokens[id].text});
}

NamedToken named(const TokenizerDescription& out, std::string_view text) {
  for (const auto& added : out.added)
    if (added.text == text) return {static_cast<int32_t>(added.id), added.text};
  return {};
}

}  // namespace

bool is_tiktoken(std::string_view file) { return next_line(file).has_value(); }

TokenizerDescription from_tiktoken(std::string_view file, std::string_view kind) {
  TokenizerDescription out;
  out.ids_max += static_cast<size_t>(std::count(file.begin(), file.end(), '\n')) + 1;
  while (file.find_first_not_of("\r\n") != file.npos) {
    const std::optional<Line> line = next_line(file);
    if (!line) base::fail(GPTQ_E_FORMAT, "tiktoken file: line ", out.tokens.size() + 1, " is not base64 and a rank");
    TokenizerDescription::Token& token = token_at(out, line->rank);
    token.text = line->bytes;
    token.symbol = true;
  }
  find_merges(out);
  split_by(pattern_of(kind), out);
  if (kind.starts_with("QWen")) {
    out.nfc = true;
    for (const char* text : {"<|endoftext|>", "<|im_start|>", "<|im_end|>"}) add_special(out, text);
    for (int i = 0; i < 205; ++i) add_special(out, "<|extra_" + std::to_string(i) + "|>");
    out.eos = {static_cast<int32_t>(out.added[0].id), "<|endoftext|>"};
  }
  return out;
}

// Ids: the special tokens, then the ranks. Of the ranks so many count as the vocabulary has room for.
TokenizerDescription from_tekken(JsonFields root) {
  const auto config = field(root, "config"), list = field(root, "vocab");
  if (!config || !list) base::fail(GPTQ_E_FORMAT, "tekken.json: ", config ? "vocab" : "config", " is missing");
  const uint32_t n = count_field(*config, "default_vocab_size"), n_special = count_field(*config, "default_num_special_tokens");
  if (n_special >= n) base::fail(GPTQ_E_FORMAT, "tekken.json: ", n_special, " special tokens in a vocabulary of ", n);
  TokenizerDescription out;
  add_tekken_special(root, n_special, out);
  const auto ranks = as_array(*list, "vocab");
  out.ids_max += n_special + ranks.size();
  for (const Json entry : ranks) {
    const uint32_t rank = count_field(entry, "rank");
    if (rank >= n - n_special) continue;
    const std::optional<std::string> bytes = decoded(string_field(entry, "token_bytes"));
    if (!bytes || bytes->empty()) base::fail(GPTQ_E_FORMAT, "tekken.json: the bytes of rank ", rank, " are not base64");
    TokenizerDescription::Token& token = token_at(out, rank + n_special);
    token.text = *bytes;
    token.symbol = true;
  }
  find_merges(out);
  split_by(string_field(*config, "pattern"), out);
  out.bos = named(out, "<s>"), out.eos = named(out, "</s>"), out.unk = named(out, "<unk>"), out.pad = named(out, "<pad>");
  if (out.bos.id >= 0) out.before = {static_cast<uint32_t>(out.bos.id)};
  return out;
}

}  // namespace gptq::convert
