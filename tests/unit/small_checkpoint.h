// SPDX-License-Identifier: Apache-2.0
// A small unquantized Llama made by hand, to be converted with this or that changed.
#pragma once
#include "converter/convert.h"
#include "converter/inspect.h"
#include "converter_fixture.h"

namespace gptq::test {

class SmallCheckpoint {
 public:
  TemporaryFolder folder;
  std::map<std::string, RawTensor> tensors;
  std::string config =
      R"({"architectures":["LlamaForCausalLM"],"hidden_size":8,"intermediate_size":12,)"
      R"("num_hidden_layers":1,"num_attention_heads":2,"vocab_size":10)";
  std::vector<std::string> warnings;

  SmallCheckpoint() {
    const auto add = [&](const std::string& name, uint64_t n, uint64_t k) {
      std::vector<float> values(n * std::max<uint64_t>(k, 1));
      for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 13) - 6;
      tensors[name + ".weight"] = tensor("F32", k ? std::vector<uint64_t>{n, k} : std::vector<uint64_t>{n}, values);
    };
    add("model.embed_tokens", 10, 8), add("lm_head", 10, 8), add("model.norm", 8, 0);
    const std::string layer = "model.layers.0.";
    for (const char* name : {"q_proj", "k_proj", "v_proj", "o_proj"}) add(layer + "self_attn." + name, 8, 8);
    add(layer + "mlp.gate_proj", 12, 8), add(layer + "mlp.up_proj", 12, 8), add(layer + "mlp.down_proj", 8, 12);
    add(layer + "input_layernorm", 8, 0), add(layer + "post_attention_layernorm", 8, 0);
    tensors["model.rotary_emb.inv_freq"] = tensor<float>("F32", {2}, {1, 2});
  }
  // The manifest's facts after conversion.
  std::string run(const std::string& extra = "") {
    warnings.clear();
    folder.write("config.json", config + extra + "}");
    folder.write("model.safetensors", safetensors(tensors));
    const convert::Options options{[this](std::string_view text) { warnings.emplace_back(text); }};
    convert::ConvertOptions how;
    how.replace = true;
    convert::convert(*convert::open_source(folder.path(), options), folder.file("out.gptq"), how);
    const base::FileSource file(folder.file("out.gptq"));
    convert::verify(file);
    return convert::inspect(file, false);
  }
  bool warned(std::string_view words) const {
    for (const std::string& w : warnings)
      if (w.find(words) != w.npos) return true;
    return false;
  }
};

}  // namespace gptq::test
