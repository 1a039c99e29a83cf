// SPDX-License-Identifier: Apache-2.0
// config.json from what the runtime knows: settings are guessed from the numbers, and read back to see that they give them again.
#include <algorithm>
#include <cmath>

#include "base/checked.h"
#include "converter/hf/export_parts.h"
#include "converter/json_writer.h"

namespace gptq::convert {
namespace {

using base::fail;
namespace fb = format::fb;
using Biases = Architecture::Biases;
using Window = Architecture::Window;

// ---- which class of transformers ----

struct Windows {
  std::vector<bool> layers;
  bool any = false, all = false;
};

Windows windows_of(const fb::Spec& spec) {
  Windows out;
  for (uint32_t i = 0; i < spec.n_layers(); ++i)
    out.layers.push_back(spec.window() && (!spec.windowed_layers() || spec.windowed_layers()->Get(i)));
  out.any = std::find(out.layers.begin(), out.layers.end(), true) != out.layers.end();
  out.all = std::find(out.layers.begin(), out.layers.end(), false) == out.layers.end();
  return out;
}

bool fits(const Architecture& a, const fb::Spec& spec, const ExportedBiases& biases) {
  const Windows windows = windows_of(spec);
  if (a.qk_norm != spec.qk_norm() || (a.biases == Biases::none && (biases.qkv || biases.o || biases.mlp)) ||
      (a.biases == Biases::qkv && (!biases.qkv || biases.o || biases.mlp)))
    return false;
  return !windows.any || a.window == Window::listed || (a.window == Window::every_layer && windows.all);
}

const Architecture& choose_architecture(const fb::Manifest& manifest, const ExportedBiases& biases) {
  const std::string said = find_meta(manifest, "architecture");
  const Architecture* found = nullptr;
  for (const Architecture& a : architectures())
    if (fits(a, *manifest.spec(), biases) && (!found || a.name == said)) found = &a;
  if (!found)
    fail(GPTQ_E_UNSUPPORTED, "no class of transformers that is known here has this model's biases, windows and norms together");
  return *found;
}

std::string model_type(const Architecture& a) {
  return lower(a.name.substr(0, a.name.find("For")));
}

// ---- rotary settings ----

// The JSON objects that rope_scaling may be, the likeliest first.
std::vector<std::string> rope_candidates(const fb::Manifest& manifest) {
  const fb::Rope& rope = *manifest.spec()->rope();
  if (rope.dynamic_factor() > 0) return {JsonWriter().add("rope_type", "dynamic").add("factor", rope.dynamic_factor()).object()};
  std::vector<std::string> out;
  // Parsed, so that nothing of the file's gets into config.json but one object.
  if (const std::string said = find_meta(manifest, "rope"); !said.empty())
    out.push_back(simdjson::minify(JsonDocument("metadata: rope", said).root().fields()));
  out.push_back("null");
  // GGUF files hold the frequencies of Llama 3.1 and 3.2 worked out; files of older versions hold no setting.
  for (const int factor : {8, 32})
    out.push_back(JsonWriter()
                      .add("rope_type", "llama3")
                      .add("factor", factor)
                      .add("low_freq_factor", 1)
                      .add("high_freq_factor", 4)
                      .add("original_max_position_embeddings", 8192)
                      .object());
  if (rope.inv_freq()->size() && rope.inv_freq()->Get(0) > 0)  // the first frequency is 1 over the factor
    out.push_back(JsonWriter().add("rope_type", "linear").add("factor", 1 / rope.inv_freq()->Get(0)).object());
  return out;
}

bool is_near(float a, float b) { return std::abs(a - b) <= 1e-6f * std::abs(b); }

bool same_rope(const fb::RopeT& a, const fb::Rope& b) {
  bool same = a.dim == b.dim() && a.inv_freq.size() == b.inv_freq()->size() && is_near(a.scale, b.scale()) &&
              a.dynamic_factor == b.dynamic_factor() && (b.dynamic_factor() == 0 || a.n_ctx_original == b.n_ctx_original());
  for (size_t i = 0; same && i < a.inv_freq.size(); ++i) same = is_near(a.inv_freq[i], b.inv_freq()->Get(static_cast<uint32_t>(i)));
  return same;
}

bool same_rest(const fb::SpecT& a, const fb::Spec& b) {
  std::vector<bool> windows;
  for (uint32_t i = 0; i < a.n_layers; ++i) windows.push_back(a.window && (a.windowed_layers.empty() || a.windowed_layers[i]));
  return a.n_vocab == b.n_vocab() && a.n_layers == b.n_layers() && a.n_embd == b.n_embd() && a.n_ff == b.n_ff() &&
         a.n_heads == b.n_heads() && a.n_kv_heads == b.n_kv_heads() && a.head_dim == b.head_dim() && a.n_ctx_train == b.n_ctx_train() &&
         a.norm_eps == b.norm_eps() && a.attention_scale == b.attention_scale() && a.tied_head == b.tied_head() &&
         a.qk_norm == b.qk_norm() && windows == windows_of(b).layers && (!windows_of(b).any || a.window == b.window());
}

// ---- the file ----

void add_windows(const Architecture& a, const fb::Spec& spec, JsonWriter& out) {
  const Windows windows = windows_of(spec);
  if (a.window == Window::none) return;
  out.add_raw("sliding_window", windows.any ? std::to_string(spec.window()) : "null");
  if (a.window != Window::listed) return;
  out.add("use_sliding_window", windows.any);
  const auto first = std::find(windows.layers.begin(), windows.layers.end(), true) - windows.layers.begin();
  out.add("max_window_layers", static_cast<int64_t>(first));
  out.add_raw("layer_types", json_list(windows.layers, [](bool w) { return w ? "\"sliding_attention\"" : "\"full_attention\""; }));
}

void add_rope(const fb::Spec& spec, const std::string& scaling, JsonWriter& out) {
  const fb::Rope& rope = *spec.rope();
  const uint32_t dim = rope.dim(), head = spec.head_dim();
  out.add("max_position_embeddings", rope.dynamic_factor() > 0 ? rope.n_ctx_original() : spec.n_ctx_train());
  out.add("rope_theta", rope.theta()).add_raw("rope_scaling", scaling);
  if (dim != head) out.add("partial_rotary_factor", (dim + 0.25) / head);  // rounded down to dim again
}

// One id, or a list of several; nothing for none.
void add_token(std::string_view key, int32_t id, JsonWriter& out) {
  if (id >= 0) out.add(key, id);
}

void add_tokens(const fb::Generation* generation, JsonWriter& out) {
  if (!generation) return;
  add_token("bos_token_id", generation->bos(), out);
  const auto* ends = generation->end_tokens();
  if (ends && ends->size() > 1) out.add_raw("eos_token_id", json_list(*ends, [](int32_t id) { return std::to_string(id); }));
  else add_token("eos_token_id", ends && ends->size() ? ends->Get(0) : generation->eos(), out);
  add_token("pad_token_id", generation->pad(), out);
}

std::string config_text(const fb::Manifest& manifest, const Architecture& a, const ExportedBiases& biases, const std::string& scaling,
                        Dtype dtype, const std::string& quantization) {
  const fb::Spec& spec = *manifest.spec();
  JsonWriter out;
  out.add_raw("architectures", "[" + json_quoted(a.name) + "]").add("model_type", model_type(a)).add("hidden_act", "silu");
  out.add("hidden_size", spec.n_embd()).add("intermediate_size", spec.n_ff()).add("num_hidden_layers", spec.n_layers());
  out.add("num_attention_heads", spec.n_heads()).add("num_key_value_heads", spec.n_kv_heads()).add("head_dim", spec.head_dim());
  out.add("vocab_size", spec.n_vocab()).add("rms_norm_eps", spec.norm_eps()).add("tie_word_embeddings", spec.tied_head());
  if (a.biases == Biases::as_config) out.add("attention_bias", biases.qkv || biases.o).add("mlp_bias", biases.mlp);
  add_rope(spec, scaling, out);
  add_windows(a, spec, out);
  add_tokens(manifest.generation(), out);
  out.add("torch_dtype", dtype == Dtype::f16 ? "float16" : dtype == Dtype::bf16 ? "bfloat16" : "float32").add("use_cache", true);
  if (!quantization.empty()) out.add_raw("quantization_config", quantization);
  return out.object();
}

}  // namespace

ExportedConfig write_config(const fb::Manifest& manifest, const ExportedBiases& biases, Dtype dtype, const std::string& quantization) {
  const Architecture& a = choose_architecture(manifest, biases);
  const fb::Spec& spec = *manifest.spec();
  for (const std::string& scaling : rope_candidates(manifest)) {
    ExportedConfig out{config_text(manifest, a, biases, scaling, dtype, quantization), {}};
    out.model = read_config(JsonDocument("config.json", out.text).root());
    if (!same_rest(out.model.spec, spec))
      fail(GPTQ_E_UNSUPPORTED, "config.json of ", a.name, " cannot say what this model is: its shape or attention is not of that class");
    if (same_rope(*out.model.spec.rope, *spec.rope())) return out;
  }
  fail(GPTQ_E_UNSUPPORTED,
       "the model's rotary frequencies fit no setting of config.json; convert the model anew from its source, and export that");
}

std::string write_generation_config(const fb::Manifest& manifest) {
  JsonWriter out;
  const fb::Generation* generation = manifest.generation();
  add_tokens(generation, out);
  if (!generation) return out.object();
  if (generation->repeat_penalty() > 0) out.add("repetition_penalty", generation->repeat_penalty());
  out.add("do_sample", generation->temperature() > 0);
  if (generation->temperature() <= 0) return out.object();
  out.add("temperature", generation->temperature());
  if (generation->top_k() > 0) out.add("top_k", generation->top_k());
  if (generation->top_p() > 0) out.add("top_p", generation->top_p());
  if (generation->min_p() > 0) out.add("min_p", generation->min_p());
  return out.object();
}

}  // namespace gptq::convert
