// SPDX-License-Identifier: Apache-2.0
#include "converter/calibration.h"

#include <charconv>
#include <optional>

#include "base/checked.h"
#include "converter/json.h"
#include "format/container.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace gptq::convert {
namespace {

using base::fail;
constexpr uint64_t file_bytes_max = uint64_t{1} << 30;

class Collector {
 public:
  // wanted: tokens of a file.
  Collector(const base::Source& model, uint64_t wanted) : wanted_(wanted), reader_(model, std::pmr::get_default_resource()) {
    const format::fb::Manifest& manifest = reader_.manifest();
    if (const format::fb::Part* part = manifest.tokenizer()) {
      section_ = base::Buffer(std::pmr::get_default_resource(), base::to_size(part->bytes()));
      reader_.read_part(*part, section_.bytes(), std::pmr::get_default_resource());
      tokenizer_.emplace(section_.bytes(), manifest.spec()->n_vocab(), std::pmr::get_default_resource());
    }
    if (!manifest.meta()) return;
    for (const auto* meta : *manifest.meta())
      if (meta->key()->string_view() == "chat_template") chat_template_ = meta->value()->string_view();
  }

  // A file without a token would pass for no file, and the model would be calibrated with its own text.
  CalibrationTokens file(const std::string& path) {
    tokens_.clear();
    take(path);
    if (tokens_.empty()) fail(GPTQ_E_FORMAT, "the calibration file '", path, "' holds no token");
    tokens_.resize(base::to_size(std::min<uint64_t>(tokens_.size(), wanted_)));
    return std::move(tokens_);
  }

 private:
  bool full() const { return tokens_.size() >= wanted_; }

  void take(const std::string& path) {
    const std::string whole = read_text(path, file_bytes_max), name = lower(path);
    std::string_view bytes = whole;
    if (bytes.starts_with("\xFF\xFE") || bytes.starts_with("\xFE\xFF"))
      fail(GPTQ_E_FORMAT, "the calibration file '", path, "' is UTF-16 or UTF-32: save it as UTF-8");
    if (bytes.starts_with("\xEF\xBB\xBF")) bytes.remove_prefix(3);
    if (name.ends_with(".ids")) return ids(path, bytes);
    if (!tokenizer_) fail(GPTQ_E_TEXT, "the model has no tokenizer: give calibration data as token ids (a file named *.ids)");
    if (name.ends_with(".jsonl")) return lines(path, bytes);
    if (name.ends_with(".json")) return json(path, bytes);
    text::encode_enough(*tokenizer_, bytes, wanted_, tokens_);
  }

  // A list of objects, an object in every line, or one; what begins like none of them is text.
  void json(const std::string& path, std::string_view bytes) {
    const size_t first = bytes.find_first_not_of(" \t\r\n");
    if (first == bytes.npos) return;
    if (bytes[first] != '[' && bytes[first] != '{') return text::encode_enough(*tokenizer_, bytes, wanted_, tokens_);
    const size_t next = bytes[first] == '{' ? bytes.find_first_not_of(" \t\r\n", first + 1) : bytes.npos;
    const bool spread = next != bytes.npos && bytes.substr(first, next - first).find('\n') != bytes.npos;  // one object over many lines
    if (bytes[first] == '{' && !spread) return lines(path, bytes);
    const JsonDocument document(path, "{\"rows\":" + (spread ? "[" + std::string(bytes) + "]" : std::string(bytes)) + "}");
    const auto rows = document.root().array("rows");
    for (const simdjson::dom::element item : *rows) {
      simdjson::dom::object row;
      if (full()) return;
      if (item.get_object().get(row)) fail(GPTQ_E_FORMAT, "'", path, "': the list must hold objects with \"text\" or \"messages\"");
      add(JsonObject(path, row), path);
    }
  }

  void add(const JsonObject& row, const std::string& path) {
    if (const auto text = row.string("text")) tokenizer_->encode(*text, {}, tokens_);
    else if (const auto messages = row.array("messages")) chat(*messages, path);
    else row.refuse("text", "or \"messages\" must be there");
  }

  void ids(const std::string& path, std::string_view bytes) {
    const char *at = bytes.data(), *end = at + bytes.size();
    while (at < end && !full()) {
      if (*at == ',' || *at == ' ' || *at == '\n' || *at == '\r' || *at == '\t') {
        ++at;
        continue;
      }
      int32_t id = 0;
      const auto [next, error] = std::from_chars(at, end, id);
      if (error != std::errc()) fail(GPTQ_E_FORMAT, "'", path, "': no token id at byte ", static_cast<uint64_t>(at - bytes.data()));
      tokens_.push_back(id);
      at = next;
    }
  }

  void lines(const std::string& path, std::string_view bytes) {
    for (uint32_t number = 1; !bytes.empty() && !full(); ++number) {
      const size_t end = std::min(bytes.find('\n'), bytes.size());
      const std::string_view line = bytes.substr(0, end);
      bytes.remove_prefix(std::min(end + 1, bytes.size()));
      if (line.find_first_not_of(" \t\r") == line.npos) continue;
      const JsonDocument document(path + ":" + std::to_string(number), line);
      add(document.root(), path);
    }
  }

  void chat(simdjson::dom::array messages, const std::string& path) {
    if (chat_template_.empty()) fail(GPTQ_E_TEMPLATE, "'", path, "' has \"messages\", and the model has no chat template");
    std::vector<std::string> objects;
    for (const simdjson::dom::element message : messages) objects.push_back(simdjson::minify(message));
    std::vector<text::ChatMessage> all;
    for (const std::string& object : objects) all.push_back({{}, {}, object});
    text::ChatInput input;
    input.messages = all;
    std::pmr::string rendered;
    std::vector<text::ByteRange> plain;
    for (const text::ChatPiece& piece : text::render_chat(chat_template_, input, std::pmr::get_default_resource())) {
      if (!piece.trusted) plain.push_back({rendered.size(), rendered.size() + piece.text.size()});
      rendered += piece.text;
    }
    tokenizer_->encode(rendered, {.parse_special = true, .plain = plain}, tokens_);
  }

  const uint64_t wanted_;
  CalibrationTokens tokens_;
  const format::Reader reader_;
  base::Buffer section_;
  std::optional<text::Tokenizer> tokenizer_;
  std::string_view chat_template_;
};

}  // namespace

Calibration read_calibration(const std::vector<std::string>& paths, const base::Source& model, uint32_t rows, uint32_t row_tokens) {
  const uint64_t wanted = base::mul(rows, row_tokens);
  Collector collector(model, wanted);
  std::vector<CalibrationTokens> files;
  for (const std::string& path : paths) files.push_back(collector.file(path));
  Calibration out{{}, std::vector<uint64_t>(files.size())};
  const auto take = [&](size_t file, uint64_t most) {
    const uint64_t used = out.of_file[file], n = std::min({most, files[file].size() - used, wanted - out.tokens.size()});
    const auto first = files[file].begin() + static_cast<std::ptrdiff_t>(used);
    out.tokens.insert(out.tokens.end(), first, first + static_cast<std::ptrdiff_t>(n));
    out.of_file[file] += n;
    return n;
  };
  for (bool any = true; any && out.tokens.size() < wanted;) {
    any = false;
    for (size_t file = 0; file < files.size(); ++file)
      if (files[file].size() - out.of_file[file] >= row_tokens) any |= take(file, row_tokens) > 0;
  }
  for (size_t file = 0; file < files.size(); ++file) take(file, row_tokens);
  return out;
}

}  // namespace gptq::convert
