// SPDX-License-Identifier: Apache-2.0
// config.json of a family beyond the Llama line: the one it was imported with, with what export knows better.
#include <algorithm>
#include <cmath>

#include "converter/hf/export_parts.h"
#include "converter/json_writer.h"

namespace gptq::convert {
namespace {

namespace fb = format::fb;

// Code of its own travels only where its name says from which repository.
bool is_remote(simdjson::dom::element auto_map) {
  simdjson::dom::object names;
  if (auto_map.get_object().get(names)) return false;
  return std::all_of(names.begin(), names.end(), [](const auto& entry) {
    std::string_view name;
    return !entry.value.get_string().get(name) && name.find("--") != name.npos;
  });
}

std::vector<uint8_t> packed(const fb::SpecT& spec) {
  flatbuffers::FlatBufferBuilder builder;
  builder.Finish(fb::Spec::Pack(builder, &spec));
  return {builder.GetBufferPointer(), builder.GetBufferPointer() + builder.GetSize()};
}

void settle(std::vector<float>& a, const std::vector<float>& b) {
  const auto is_near = [](float x, float y) { return std::abs(x - y) <= 1e-6f * std::abs(y); };
  if (a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), is_near)) a = b;
}

void settle(fb::RopeT& a, const fb::RopeT& b) {
  settle(a.inv_freq, b.inv_freq);
  settle(a.long_inv_freq, b.long_inv_freq);
}

}  // namespace

std::string write_family_config(const Published& published, Dtype dtype, const std::string& quantization) {
  const JsonObject whole = published.config->root(), text = text_config(whole);
  const bool nested = whole.has("text_config");
  JsonWriter out;
  const auto& classes = published.family->classes;
  const bool known = !nested && std::find(classes.begin(), classes.end(), class_of(whole)) != classes.end();
  out.add_raw("architectures", "[" + json_quoted(known ? class_of(whole) : classes[0]) + "]");
  if (nested || !whole.has("model_type")) out.add("model_type", published.family->model_type);
  out.add("tie_word_embeddings", published.spec.tied_head);
  out.add("torch_dtype", dtype == Dtype::f16 ? "float16" : dtype == Dtype::bf16 ? "bfloat16" : "float32");
  const auto add = [&](std::string_view key, simdjson::dom::element value) {
    constexpr std::string_view ours[] = {"architectures", "tie_word_embeddings", "torch_dtype", "dtype",
                                         "quantization_config"};
    if (std::find(std::begin(ours), std::end(ours), key) != std::end(ours)) return;
    if (key == "model_type" && (nested || !whole.has("model_type"))) return;
    if (key == "auto_map" && !is_remote(value)) return;
    if (key == "vocab_size" && !text.has("padded_vocab_size"))
      out.add(key, published.spec.n_vocab);
    else
      out.add_raw(key, simdjson::minify(value));
  };
  for (const auto field : text.fields()) add(field.key, field.value);
  for (const std::string_view key : {"bos_token_id", "eos_token_id", "pad_token_id"})
    if (const auto value = whole.find(key); nested && value && !text.has(key) && text.fields().at_key(key).error())
      add(key, *value);
  if (nested && text.fields().at_key("vocab_size").error()) out.add("vocab_size", published.spec.n_vocab);
  if (!quantization.empty()) out.add_raw("quantization_config", quantization);
  return out.object();
}

bool same_spec(const fb::SpecT& a, const fb::Spec& b) {
  fb::SpecT ours;
  b.UnPackTo(&ours);
  fb::SpecT read;
  flatbuffers::GetRoot<fb::Spec>(packed(a).data())->UnPackTo(&read);
  if (read.rope && ours.rope) settle(*read.rope, *ours.rope);
  for (size_t i = 0; i < std::min(read.ropes.size(), ours.ropes.size()); ++i) settle(*read.ropes[i], *ours.ropes[i]);
  settle(read.alibi_slopes, ours.alibi_slopes);
  return packed(read) == packed(ours);
}

}  // namespace gptq::convert
