// SPDX-License-Identifier: Apache-2.0
// --keep and --dynamic: which names patterns are compared with, what they do to the head, and what is said of those that match nothing.
#include "converter/quantize_rules.h"

#include "small_checkpoint.h"

namespace gptq::test {
namespace {

using namespace convert;

class Rules {
 public:
  explicit Rules(const std::string& config = "") { checkpoint_.run(config); }
  std::vector<std::string> warnings;

  QuantizeRules of(const std::string& dynamic, const std::vector<std::string>& keep = {}) {
    warnings.clear();
    if (!dynamic.empty()) checkpoint_.folder.write("rules.json", dynamic);
    return QuantizeRules(base::FileSource(checkpoint_.folder.file("out.gptq")), dynamic.empty() ? "" : checkpoint_.folder.file("rules.json"), keep,
                         [this](const std::string& text) { warnings.push_back(text); });
  }
  gptq_quantize_params head(const std::string& dynamic, const std::vector<std::string>& keep = {}, uint32_t head_bits = 8) {
    gptq_quantize_params p{};
    p.head_bits = head_bits;
    of(dynamic, keep).apply_to_head(p, 8);
    return p;
  }

 private:
  SmallCheckpoint checkpoint_;
};

gptq_quantize_module matrix(std::string_view name) {
  gptq_quantize_module m{};
  m.name = name.data(), m.name_size = name.size(), m.bits = 4, m.group_size = 128;
  return m;
}

TEST(QuantizeRules, Matrices) {
  Rules rules;
  const auto chosen = [](const QuantizeRules& all, std::string_view name) {
    gptq_quantize_module m = matrix(name);
    all.apply(m);
    return m;
  };
  const QuantizeRules all = rules.of(R"({".*v_proj":{"bits":8,"group_size":64,"sym":false},"model.layers.0.mlp":{"bits":3},"-:.*down":{}})", {".*o_proj"});
  EXPECT_TRUE(rules.warnings.empty());
  const gptq_quantize_module v = chosen(all, "layers.0.v");
  EXPECT_EQ(v.bits, 8u);
  EXPECT_EQ(v.group_size, 64);
  EXPECT_EQ(v.flags, uint32_t(GPTQ_QUANT_ASYMMETRIC));
  EXPECT_EQ(chosen(all, "layers.0.up").bits, 3u);
  EXPECT_EQ(chosen(all, "layers.0.down").flags, uint32_t(GPTQ_QUANT_KEEP));
  EXPECT_EQ(chosen(all, "layers.0.o").flags, uint32_t(GPTQ_QUANT_KEEP));
  EXPECT_EQ(chosen(all, "layers.0.q").flags, 0u);
  EXPECT_EQ(all.module_of("layers.0.v"), "model.layers.0.self_attn.v_proj");
  EXPECT_EQ(all.module_of("head"), "lm_head");
}

TEST(QuantizeRules, Head) {
  for (const std::string& config : {std::string(), std::string(R"(,"tie_word_embeddings":true)")}) {
    SCOPED_TRACE(config);
    Rules rules(config);
    EXPECT_EQ(rules.head("").head_bits, 8u);
    EXPECT_EQ(rules.head("", {".*v_proj"}).head_bits, 8u);
    for (const char* pattern : {"lm_head", ".*", "lm"}) EXPECT_EQ(rules.head("", {pattern}, 4).head_bits, 16u) << pattern;
    EXPECT_EQ(rules.head(R"({"-:lm_head":{}})").head_bits, 16u);
    EXPECT_EQ(rules.head(R"({"lm_head":{"bits":4}})", {}, 16).head_bits, 4u);
    EXPECT_EQ(rules.head(R"({"lm_head":{"bits":4}})", {".*head"}).head_bits, 16u) << "keeping wins";
    const gptq_quantize_params grouped = rules.head(R"({"lm_head":{"group_size":32}})", {}, 0);
    EXPECT_EQ(grouped.head_bits, 8u);
    EXPECT_EQ(grouped.head_group_size, 32);
    EXPECT_TRUE(rules.warnings.empty()) << rules.warnings[0];
    EXPECT_EQ(rules.head(R"({".*":{"bits":3}})").head_bits, 4u);
    ASSERT_EQ(rules.warnings.size(), 1u);
    EXPECT_NE(rules.warnings[0].find("'lm_head' gets 4 bits, not 3"), std::string::npos) << rules.warnings[0];
    rules.head(R"({"lm_head":{"sym":false}})");
    EXPECT_EQ(rules.warnings.size(), 1u);
    EXPECT_EQ(rules.head("", {"model.embed_tokens"}).head_bits, config.empty() ? 8u : 16u);
    EXPECT_EQ(rules.warnings.size(), config.empty() ? 1u : 0u);
  }
}

TEST(QuantizeRules, PatternsThatMatchNothing) {
  Rules rules;
  rules.of(R"({"v_proj":{"bits":8},".*v_proj":{"bits":8},"-:layers.0":{}})", {"v_proj", ".*q_proj"});
  ASSERT_EQ(rules.warnings.size(), 3u);
  EXPECT_EQ(rules.warnings[0], "--dynamic 'v_proj' matches no matrix: patterns are compared from the beginning of names such as 'model.layers.0.self_attn.v_proj'");
  EXPECT_EQ(rules.warnings[1].find("--dynamic '-:layers.0' matches no matrix"), 0u) << rules.warnings[1];
  EXPECT_EQ(rules.warnings[2].find("--keep 'v_proj' matches no matrix"), 0u) << rules.warnings[2];
  EXPECT_REFUSED(rules.of(R"({".*v_proj":{"bitz":8}})"), "unknown key 'bitz'; these are known: bits, group_size, sym");
  EXPECT_REFUSED(rules.of(R"({"-:.*v_proj":{"x":8}})"), "unknown key 'x'");
  EXPECT_REFUSED(rules.of(R"({".*v_proj":{"bits":5}})"), "5-bit");
}

}  // namespace
}  // namespace gptq::test
