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
  bool full() const { return tokens.size() >= wanted_; }

  // A file without a token would pass for no file, and the model would be calibrated with its own text.
  void file(const std::string& path) {
    const size_t before = tokens.size();
    if (full()) return;
    take(path);
    if (tokens.size() == before) fail(GPTQ_E_FORMAT, "the calibration file '", path, "' holds no token");
  }

  CalibrationTokens tokens;

 private:
  void take(const std::string& path) {
    const std::string bytes = read_text(path, file_bytes_max);
    if (path.ends_with(".ids")) return ids(path, bytes);
    if (!tokenizer_) fail(GPTQ_E_TEXT, "the model has no tokenizer: give calibration data as token ids (a file named *.ids)");
    path.ends_with(".jsonl") ? lines(path, bytes) : text::encode_enough(*tokenizer_, bytes, wanted_, tokens);
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
      tokens.push_back(id);
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
      if (const auto text = document.root().string("text")) tokenizer_->encode(*text, {}, tokens);
      else if (const auto messages = document.root().array("messages")) chat(*messages, path);
      else document.root().refuse("text", "or \"messages\" must be there");
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
    tokenizer_->encode(rendered, {.parse_special = true, .plain = plain}, tokens);
  }

  const uint64_t wanted_;
  const format::Reader reader_;
  base::Buffer section_;
  std::optional<text::Tokenizer> tokenizer_;
  std::string_view chat_template_;
};

}  // namespace

CalibrationTokens read_calibration(const std::vector<std::string>& paths, const base::Source& model, uint64_t wanted) {
  Collector collector(model, wanted);
  for (const std::string& path : paths) collector.file(path);
  return std::move(collector.tokens);
}

}  // namespace gptq::convert
