// SPDX-License-Identifier: Apache-2.0
// Every key of the families' configs missing or wrong: a sentence, never a crash.
#include <cstdlib>

#include "base/failure.h"
#include "converter/hf/config.h"
#include "converter/json_writer.h"
#include "converter_fixture.h"
#include "tests/sanitized.h"

namespace gptq::test {
namespace {

using namespace convert;
namespace fs = std::filesystem;

std::vector<fs::path> folders() {
  const char* golden = std::getenv("GPTQ_GOLDEN");
  std::vector<fs::path> out;
  for (const auto& entry : fs::directory_iterator(fs::path(golden ? golden : "tests/golden") / "families"))
    out.push_back(entry.path());
  std::sort(out.begin(), out.end());
  return out;
}

// The config with one key (of its text part) in another way; "" leaves it out.
std::string changed(const JsonObject& config, std::string_view key, std::string_view value) {
  JsonWriter out;
  for (const auto field : config.fields()) {
    if (field.key == key) {
      if (!value.empty()) out.add_raw(key, value);
    } else if (field.key == "text_config") {
      out.add_raw(field.key, changed(*config.object("text_config"), key, value));
    } else {
      out.add_raw(field.key, simdjson::minify(field.value));
    }
  }
  return out.object();
}

// "": it could be read.
std::string message_of(const std::string& folder) {
  try {
    const auto source = open_source(folder, {});
    flatbuffers::FlatBufferBuilder builder;
    builder.Finish(format::fb::Spec::Pack(builder, &source->description().spec));
    std::pmr::memory_resource* memory = std::pmr::get_default_resource();
    const auto* packed = flatbuffers::GetRoot<format::fb::Spec>(builder.GetBufferPointer());
    for (const model::Slot& slot : model::weight_slots(model::check_spec(*packed, memory), memory)) source->load(slot);
  } catch (const base::Failure& failure) {
    EXPECT_GT(std::string_view(failure.detail.message).size(), 20u) << failure.detail.message;
    return failure.detail.message;
  }
  return {};
}

std::vector<std::string> keys_of(const JsonObject& config) {
  std::vector<std::string> keys;
  for (const auto field : text_config(config).fields()) keys.emplace_back(field.key);
  return keys;
}

TEST(FamilyConfig, EveryKeyMayBeWrong) {
  uint32_t number = 0, refused = 0, tried = 0;
  for (const fs::path& original : folders()) {
    const TemporaryFolder work;
    for (const auto& entry : fs::directory_iterator(original))
      if (entry.path().extension() == ".safetensors")
        fs::create_symlink(fs::absolute(entry.path()), work.file(entry.path().filename()));
    const JsonDocument config = JsonDocument::read((original / "config.json").string(), "config.json", 1 << 20);
    for (const std::string& key : keys_of(config.root()))
      for (const char* value : {"", "null", "0", "-1", "3", "2147483648", "0.3", "\"x\"", "[7, null]", "{}"}) {
        if (is_left_out(number++, 8)) continue;
        SCOPED_TRACE(testing::Message() << original.filename() << ": " << key << " = " << value);
        work.write("config.json", changed(config.root(), key, value));
        ++tried;
        refused += !message_of(work.path()).empty();
      }
  }
  EXPECT_GT(tried, 100u);
  EXPECT_GT(refused, tried / 10);
}

TEST(FamilyConfig, WhatIsMissingIsNamed) {
  const char* golden = std::getenv("GPTQ_GOLDEN");
  const std::string original = std::string(golden ? golden : "tests/golden") + "/families/mixtral-w4-g32";
  const JsonDocument config = JsonDocument::read(original + "/config.json", "config.json", 1 << 20);
  for (const char* key :
       {"hidden_size", "num_hidden_layers", "num_attention_heads", "num_local_experts", "num_experts_per_tok"}) {
    const JsonDocument without("config.json", changed(config.root(), key, ""));
    EXPECT_REFUSED(read_config(without.root()), key);
  }
}

}  // namespace
}  // namespace gptq::test
