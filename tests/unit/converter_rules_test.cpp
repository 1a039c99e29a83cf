// SPDX-License-Identifier: Apache-2.0
// What is wrong in a tokenizer or a config, and what the refusal says: a row a rule. tests/error_sites.py says which have none.
#include "converter/hf/config.h"
#include "converter/tokenizer/import.h"
#include "converter_fixture.h"

namespace gptq::test {
namespace {

using namespace convert;

struct Row {
  std::string wrong, words;
};

// Of a byte-level tokenizer.json, with other members or another pattern.
std::string refusal_of(const std::string& model, const std::string& more = "", const std::string& config = "") {
  const TemporaryFolder folder;
  const char* bytes = more.find("ByteLevel") == more.npos ? R"(,"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false})" : "";
  folder.write("tokenizer.json", "{\"model\":" + model + more + bytes + "}");
  if (!config.empty()) folder.write("tokenizer_config.json", config);
  return failure_of([&] {
    if (const auto tokenizer = import_tokenizer(folder.path())) compile_tokenizer(*tokenizer);
  });
}
const std::string whole = R"({"type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":["a b"]})";

TEST(ConverterRules, ModelsOfTokenizers) {
  const Row rows[] = {{R"({"type":"Unigram","vocab":{},"merges":[]})", "model type Unigram"},
                      {R"({"continuing_subword_prefix":"##","vocab":{"a":0},"merges":[]})", "continuing_subword_prefix \"##\""},
                      {R"({"dropout":0.5,"vocab":{"a":0},"merges":[]})", "dropout"},
                      {R"({"vocab":{"a":0,"b":0},"merges":[]})", "two tokens have the id 0"},
                      {R"({"vocab":{"a":1048576},"merges":[]})", "must be a number below 1048576"},
                      {R"({"vocab":{"a":-1},"merges":[]})", "must be a number below 1048576"},
                      {R"({"vocab":[],"merges":[]})", "vocab must be an object"},
                      {R"({"vocab":{"a":0}})", "merges is missing"},
                      {R"({"vocab":{"a":0},"merges":{}})", "merges must be a list"},
                      {R"({"vocab":{"a":0},"merges":["a"]})", "has not two parts"},
                      {R"({"vocab":{"a":0},"merges":["a b c"]})", "has not two parts"},
                      {R"({"vocab":{"a":0},"merges":[["a","b","c"]]})", "a merge has not two parts"},
                      {R"({"vocab":{"a":0},"merges":[[1,2]]})", "merge must be a string"},
                      {R"({"vocab":{"a":0},"merges":["a b"]})", "\"b\" of a merge is not in the vocabulary"}};
  for (const Row& row : rows) {
    const std::string message = refusal_of(row.wrong);
    EXPECT_NE(message.find(row.words), message.npos) << row.wrong << ": " << message;
  }
}

TEST(ConverterRules, AddedTokens) {
  const Row rows[] = {{R"([{"id":3,"content":"<s>","single_word":true}])", "is single_word"},
                      {R"([{"id":3,"content":"<s>","special":1}])", "special must be true or false"},
                      {R"([{"id":3,"content":7}])", "content must be a string"},
                      {R"([{"content":"<s>"}])", "id is missing"},
                      {R"([{"id":0,"content":"b"}])", "added token \"b\" has the ids 0 and 1"},
                      {R"({"a":1})", "added_tokens must be a list"}};
  for (const Row& row : rows) {
    const std::string message = refusal_of(whole, ",\"added_tokens\":" + row.wrong);
    EXPECT_NE(message.find(row.words), message.npos) << row.wrong << ": " << message;
  }
  const std::string message = refusal_of(whole, "", R"({"added_tokens_decoder":{"1x":{"content":"<s>"}}})");
  EXPECT_NE(message.find("has the id \"1x\""), message.npos) << message;
}

TEST(ConverterRules, SplittingPatterns) {
  std::string deep = "a";
  for (int i = 0; i < 60; ++i) deep = "(" + deep + ")";
  const Row rows[] = {{"a)", "an unmatched )"},
                      {deep, "groups nested deeper than 50"},
                      {"a{1001}", "a repetition of more than 1000 times"},
                      {"a{3,2}", "a repetition of more than 1000 times"},
                      {"(?=a)*", "a repeated condition"},
                      {"*a", "a repetition of nothing"},
                      {"(a", "an unclosed ("},
                      {"(?&a)", "an unknown kind of group"},
                      {"(?=ab)", "a condition on more than one character"},
                      {"\\\\pL{2}x\\\\p", "\\p without {"},
                      {"\\\\p{Nonsense}", "Nonsense"},
                      {"[[:nonsense:]]", "an unknown class in [: :]"},
                      {"[z-a]", "such a range"},
                      {"\\\\x{41", "\\x{ without }"}};
  for (const Row& row : rows) {
    const std::string message = refusal_of(whole, R"(,"pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":")" + row.wrong +
                                                      R"("},"behavior":"Isolated","invert":false},{"type":"ByteLevel","add_prefix_space":false,"use_regex":false}]})");
    EXPECT_NE(message.find(row.words), message.npos) << row.wrong << ": " << message;
  }
}

TEST(ConverterRules, Configs) {
  const auto config = [](const std::string& name, const std::string& more) {
    return R"({"architectures":[")" + name + R"("],"hidden_size":64,"intermediate_size":96,"num_hidden_layers":2,"num_attention_heads":4,"vocab_size":77,)" + more + "}";
  };
  struct Config {
    std::string name, wrong, words;
  };
  const Config rows[] = {
      {"LlamaForCausalLM", R"("partial_rotary_factor":1.5)", "must be above 0 and at most 1"},
      {"LlamaForCausalLM", R"("rope_scaling":{"rope_type":"llama3","factor":8,"low_freq_factor":4,"high_freq_factor":1})", "must be greater than low_freq_factor"},
      {"LlamaForCausalLM", R"("max_position_embeddings":99,"rope_scaling":{"rope_type":"yarn","factor":2,"beta_fast":-1})", "and beta_slow must be positive"},
      {"LlamaForCausalLM", R"("head_dim":514)", "head_dim = 514 is more than the 512"},
      {"LlamaForCausalLM", R"("num_key_value_heads":1,"head_dim":3)", "3 rotary dimensions"},
      {"Qwen2ForCausalLM", R"("use_sliding_window":true,"sliding_window":8,"layer_types":["full_attention"])", "must have one entry per layer"},
      {"Qwen2ForCausalLM", R"("use_sliding_window":true,"sliding_window":8,"layer_types":["full_attention","other"])", "not 'other'"},
      {"Phi3ForCausalLM", R"("rope_scaling":{"rope_type":"longrope","long_factor":[1]},"original_max_position_embeddings":8)", "'short_factor' is missing"},
      {"Phi3ForCausalLM", R"("rope_scaling":{"rope_type":"longrope","short_factor":[0],"long_factor":[1]},"original_max_position_embeddings":8)", "must hold positive numbers"},
      {"Phi3ForCausalLM", R"("rope_scaling":{"rope_type":"longrope","short_factor":[1],"long_factor":[1]},"original_max_position_embeddings":8)", "must have a number a pair"},
      {"BloomForCausalLM", R"("n_head":1025)", "num_attention_heads"},
      {"MixtralForCausalLM", R"("num_local_experts":4097,"num_experts_per_tok":2)", "num_experts = 4097 is more than the 4096"},
      {"DeepseekV2ForCausalLM", R"("kv_lora_rank":16,"qk_nope_head_dim":8,"qk_rope_head_dim":514,"v_head_dim":6,"n_routed_experts":4,"num_experts_per_tok":2)", "at most 512"}};
  for (const Config& row : rows) {
    const std::string text = row.name == "BloomForCausalLM" ? R"({"architectures":["BloomForCausalLM"],"hidden_size":64,"n_layer":2,"vocab_size":77,)" + row.wrong + "}" : config(row.name, row.wrong);
    const std::string message = failure_of([&] { read_config(JsonDocument("config.json", text).root()); });
    EXPECT_NE(message.find(row.words), message.npos) << row.name << " " << row.wrong << ": " << message;
  }
}

}  // namespace
}  // namespace gptq::test
