// SPDX-License-Identifier: Apache-2.0
// Faults that users of this and other engines reported, each with the right answer (GPTQ_TEST_DATA/cases), and others of their kinds.
#include <cstdlib>
#include <filesystem>

#include "converter/calibration.h"
#include "converter/convert.h"
#include "converter/json.h"
#include "fixture.h"
#include "tests/unit/converter_fixture.h"

namespace gptq::test {
namespace {

class Case {
 public:
  explicit Case(const std::string& name, const std::string& input = "input") : folder_(std::string(std::getenv("GPTQ_TEST_DATA")) + "/cases/" + name) {
    convert::Options options;
    options.warn = [this](std::string_view text) { warnings_ += std::string(text) + "\n"; };
    convert::ConvertOptions how;
    how.replace = true;
    convert::convert(*convert::open_source(folder_ + "/" + input, options), model(), how);
  }
  std::string model() const { return target_.file("m.gptq"); }
  std::string file(const std::string& name) const { return folder_ + "/" + name; }
  const std::string& warnings() const { return warnings_; }

  // The list of expected ids whose key begins with these words.
  Tokens expected(std::string_view key) const {
    const auto file = convert::JsonDocument::read(folder_ + "/case.json", "case.json", 1 << 20);
    Tokens ids;
    for (const auto field : file.root().object("expected")->fields()) {
      simdjson::dom::array list;
      if (!field.key.starts_with(key) || field.value.get(list)) continue;
      for (const auto id : list) ids.push_back(static_cast<gptq_token>(int64_t(id)));
    }
    return ids;
  }
  // What is generated with these parameters until it ends, at most eight tokens.
  Tokens until_the_end(gptq_generate_params how) const {
    Chain c(model(), engine_of(GPTQ_ENGINE_EXACT));
    how.max_tokens = 8;
    c.session.append(Tokens{1, 17, 99, 300, 42});
    c.session.start(how);
    finish(c.engine);
    return c.session.read_tokens();
  }
  std::string rendered(const char* tools, const char* variables) const {
    Chain c(model());
    auto message = make<gptq_message>();
    message.role = "user", message.role_size = GPTQ_NTS, message.text = "hi", message.text_size = GPTQ_NTS;
    const gptq_message* messages[] = {&message};
    auto chat = make<gptq_chat>();
    chat.messages = messages, chat.n_messages = 1;
    chat.tools_json = tools, chat.tools_json_size = tools ? GPTQ_NTS : 0;
    chat.kwargs_json = variables, chat.kwargs_json_size = variables ? GPTQ_NTS : 0;
    char text[64];
    size_t size = 0;
    auto err = make<gptq_error>();
    EXPECT_EQ(gptq_chat_render(c.model.get(), &chat, text, sizeof text, &size, &err), GPTQ_OK) << err.message;
    return {text, size};
  }
  Tokens greedy_ids() const {
    Chain c(model(), engine_of(GPTQ_ENGINE_EXACT));
    return greedy(c.engine, c.session, {1, 17, 99, 300, 42}, 16);
  }

 private:
  std::string folder_, warnings_;
  TemporaryFolder target_;
};

TEST(Cases, right_ids) {
  if (!std::getenv("GPTQ_TEST_DATA")) GTEST_SKIP() << "GPTQ_TEST_DATA does not name the folder with cases/";
  const struct {
    const char *name, *key, *warning;
  } cases[] = {
      {"arch-missing", "greedy_ids", ""},
      {"base-name-ignored", "greedy_ids", "'net-4bit-32g.safetensors' is read, as the quantization config has it"},
      {"config-nan-literal", "greedy_ids", ""},
      {"gidx-int64", "greedy_ids", ""},
      {"rope-linear-leftover-keys", "greedy_ids", "'low_freq_factor' belongs to another rope type than 'linear'"},
      {"safetensors-metadata-null", "greedy_ids", ""},
      {"stale-index-other-weights", "greedy_ids", "'model.safetensors.index.json' does not name 'model.safetensors'"},
      {"sym-qzeros-missing", "greedy_ids", ""},
      {"yarn-attn-factor", "vLLM", ""},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.name);
    const Case input(c.name);
    const Tokens expected = input.expected(c.key);
    ASSERT_EQ(expected.size(), 16u);
    EXPECT_EQ(input.greedy_ids(), expected);
    EXPECT_NE(input.warnings().find(c.warning), std::string::npos) << input.warnings();
  }
}

TEST(Cases, ends_where_people_expect_it) {
  if (!std::getenv("GPTQ_TEST_DATA")) GTEST_SKIP() << "GPTQ_TEST_DATA does not name the folder with cases/";
  const auto plain = make<gptq_generate_params>();
  for (const auto& [name, input] : {std::pair{"eos-of-tokenizer", "input"}, {"gguf-eot-by-name", "input/model.gguf"}}) {
    const Case c(name, input);
    EXPECT_EQ(c.until_the_end(plain), c.expected("ids")) << name;
  }
  const Case c("stop-string-special-token");
  auto endless = plain;
  endless.flags = GPTQ_GEN_IGNORE_EOS;
  auto stopped = endless;
  const gptq_string stop{"<|im_end|>", GPTQ_NTS};
  stopped.stop = &stop, stopped.n_stop = 1;
  EXPECT_EQ(c.until_the_end(stopped), c.expected("ids"));
  EXPECT_EQ(c.until_the_end(endless).size(), 8u) << "without the stop string it goes on";
}

TEST(Cases, chat_templates) {
  if (!std::getenv("GPTQ_TEST_DATA")) GTEST_SKIP() << "GPTQ_TEST_DATA does not name the folder with cases/";
  EXPECT_EQ(Case("template-strftime").rendered(nullptr, R"({"now": 1709251259})"), "[2024-03-01]hi");
  const Case tools("template-tool-use-list");
  EXPECT_EQ(tools.rendered(R"([{"type": "function"}])", nullptr), "Thi1");
  EXPECT_EQ(tools.rendered(nullptr, nullptr), "Dhi");
}

TEST(Cases, gptq_promised_and_not_there) {
  if (!std::getenv("GPTQ_TEST_DATA")) GTEST_SKIP() << "GPTQ_TEST_DATA does not name the folder with cases/";
  const Case input("gptq-config-no-gptq-tensors");
  EXPECT_NE(input.warnings().find("says GPTQ with 4 bits, but no tensor in 'model.safetensors' is quantized"), std::string::npos)
      << input.warnings();
}

TEST(Cases, calibration_files_without_a_token) {
  if (!std::getenv("GPTQ_TEST_DATA")) GTEST_SKIP() << "GPTQ_TEST_DATA does not name the folder with cases/";
  const Case input("calibration-empty");
  const base::FileSource model(input.model());
  for (const char* name : {"empty.txt", "empty-texts.jsonl"})
    EXPECT_REFUSED(convert::read_calibration({input.file(name)}, model, 1, 256), "holds no token");
}

// no-tokenizer-error-text
TEST(Cases, text_without_a_tokenizer) {
  Chain tiny(tiny_model());
  auto err = make<gptq_error>();
  EXPECT_EQ(gptq_session_append_text(tiny.session.get(), "x", 1, 0, nullptr, &err), GPTQ_E_TEXT);
  EXPECT_STREQ(err.message, "the model has no tokenizer: give token ids instead of text");
  try {
    tiny.model.tokenize("x");
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("the model has no tokenizer"), std::string::npos) << error.what();
  }
}

TEST(Cases, calibration_kinds) {
  const base::FileSource model(text_model());
  const TemporaryFolder folder;
  const auto tokens = [&](const std::vector<std::string>& names) {
    std::vector<std::string> paths;
    for (const std::string& name : names) paths.push_back(folder.file(name));
    return convert::read_calibration(paths, model, 1, 100).tokens.size();
  };
  folder.write("empty.txt", "");
  folder.write("empty.ids", " \n, ");
  folder.write("empty.jsonl", "\n  \n");
  folder.write("texts.jsonl", "{\"text\":\"\"}\n{\"text\":\"\"}\n");
  folder.write("good.ids", "1,2 3");
  folder.write("good.txt", "Hello there");
  folder.write("pointer.txt", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n");
  for (const char* name : {"empty.txt", "empty.ids", "empty.jsonl", "texts.jsonl"}) {
    EXPECT_REFUSED(tokens({name}), "holds no token");
    EXPECT_REFUSED(tokens({"good.ids", name}), "holds no token");  // one among others too
  }
  EXPECT_REFUSED(tokens({"pointer.txt"}), "git-lfs pointer");
  const std::string row = R"({"text":"Hello there"})", both = row + "\n" + row + "\n";
  folder.write("lines.jsonl", both), folder.write("LINES.JSONL", both), folder.write("lines.json", both), folder.write("mark.jsonl", "\xEF\xBB\xBF" + both);
  folder.write("list.json", "[" + row + ",\n" + row + "]"), folder.write("one.json", "{\n\"text\":\n\"Hello there\"}\n");
  folder.write("text.json", "Hello"), folder.write("numbers.json", "[1]"), folder.write("wide.txt", "\xFF\xFEH"), folder.write("WIDE.IDS", "\xFE\xFF");
  for (const char* name : {"LINES.JSONL", "lines.json", "list.json", "mark.jsonl"}) EXPECT_EQ(tokens({name}), tokens({"lines.jsonl"})) << name;
  EXPECT_EQ(2 * tokens({"one.json"}), tokens({"lines.jsonl"}));
  EXPECT_GT(tokens({"text.json"}), 0u);
  EXPECT_REFUSED(tokens({"numbers.json"}), "must hold objects");
  for (const char* name : {"wide.txt", "WIDE.IDS"}) EXPECT_REFUSED(tokens({name}), "UTF-16");
  EXPECT_EQ(tokens({"good.ids"}), 3u);
  EXPECT_GT(tokens({"good.ids", "good.txt"}), 3u);
  folder.write("a.ids", "1 2 3 4 5"), folder.write("b.ids", "11 12 13 14 15 16 17");
  const auto drawn = [&](uint32_t rows) { return convert::read_calibration({folder.file("a.ids"), folder.file("b.ids")}, model, rows, 2); };
  EXPECT_EQ(drawn(100).tokens, (convert::CalibrationTokens{1, 2, 11, 12, 3, 4, 13, 14, 15, 16, 5, 17}));
  EXPECT_EQ(drawn(3).tokens, (convert::CalibrationTokens{1, 2, 11, 12, 3, 4}));
  EXPECT_EQ(drawn(3).of_file, (std::vector<uint64_t>{4, 2}));
}

}  // namespace
}  // namespace gptq::test
