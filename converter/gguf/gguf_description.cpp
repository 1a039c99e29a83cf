// SPDX-License-Identifier: Apache-2.0
#include "converter/gguf/gguf_description.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>

#include "base/checked.h"
#include "converter/gguf/gguf_families.h"
#include "converter/hf/config.h"
#include "converter/tokenizer/import.h"

namespace gptq::convert {
namespace {

using base::fail;
constexpr size_t template_bytes_max = 256u << 10;

constexpr GgufArchitecture architectures_known[] = {
    {"llama", "LlamaForCausalLM", true, false, true},  // Mistral, SmolLM, TinyLlama and Yi too
    {"qwen2", "Qwen2ForCausalLM", false, false, false},
    {"qwen3", "Qwen3ForCausalLM", false, true, false},
};

using Keys = GgufKeys;

void refuse_what_changes_results(const Keys& keys) {
  const auto refuse = [](std::string_view what) { fail(GPTQ_E_UNSUPPORTED, "GGUF: ", what); };
  if (keys.count("expert_count", 0) > 0) refuse("a mixture of experts, which is not supported");
  for (std::string_view key : {"logit_scale", "residual_scale", "embedding_scale", "attention.scale", "attn_logit_softcapping",
                               "final_logit_softcapping"})
    if (keys.has(key)) refuse("the key '" + keys.full(key) + "', which is not supported");
}

// ---- rotary embedding: the keys in the words of config.json, so that the frequencies come from one place ----

class RopeSettings {
 public:
  void add(std::string_view key, double value) {
    if (!std::isfinite(value)) fail(GPTQ_E_FORMAT, "GGUF: the rotary setting '", key, "' is not finite");
    char digits[40];
    add(key, std::string(digits, std::to_chars(digits, digits + sizeof digits, value).ptr));
  }
  void add(std::string_view key, const std::string& text) { text_ += (text_.empty() ? "\"" : ",\"") + std::string(key) + "\":" + text; }
  void add(std::string_view key, std::optional<double> value) {
    if (value) add(key, *value);
  }
  std::string object() const { return "{" + text_ + "}"; }

 private:
  std::string text_;
};

}  // namespace

std::string gguf_rope_scaling(const GgufKeys& keys) {
  RopeSettings fields;
  const std::string_view type = keys.string("rope.scaling.type").value_or("linear");
  const double factor = keys.number("rope.scaling.factor").value_or(keys.number("rope.scale_linear").value_or(1));
  if (type == "none" || (type == "linear" && (factor == 1 || factor == 0))) return "null";
  if (type != "linear" && type != "yarn")
    fail(GPTQ_E_UNSUPPORTED, "GGUF: rope scaling '", type, "' is not supported; none, linear and yarn are");
  fields.add("rope_type", type == "yarn" ? "\"yarn\"" : "\"linear\"");
  fields.add("factor", factor);
  if (type == "yarn") {
    fields.add("original_max_position_embeddings", keys.number("rope.scaling.original_context_length"));
    fields.add("beta_fast", keys.number("rope.scaling.yarn_beta_fast"));
    fields.add("beta_slow", keys.number("rope.scaling.yarn_beta_slow"));
    const auto multiplier = keys.has("rope.scaling.attn_factor") ? keys.number("rope.scaling.attn_factor")
                                                                   : keys.number("rope.scaling.yarn_attn_factor");
    if (multiplier && factor > 0) fields.add("attention_factor", *multiplier * (factor > 1 ? 0.1 * std::log(factor) + 1 : 1));
  }
  return fields.object();
}

// rope_freqs.weight divides the frequencies: Llama 3's scaling, worked out by the file's writer.
void apply_gguf_factors(const GgufFile& file, format::fb::RopeT& rope) {
  const GgufTensor* tensor = file.find("rope_freqs.weight");
  if (!tensor) return;
  if (tensor->type->name != "F32" || tensor->bytes != rope.inv_freq.size() * sizeof(float))
    fail(GPTQ_E_FORMAT, "GGUF: tensor 'rope_freqs.weight' does not hold ", rope.inv_freq.size(), " numbers of type F32");
  const auto bytes = file.read(*tensor);
  for (size_t j = 0; j < rope.inv_freq.size(); ++j) {
    float factor;
    std::memcpy(&factor, bytes.data() + j * sizeof factor, sizeof factor);
    if (!(factor > 0 && factor < INFINITY)) fail(GPTQ_E_FORMAT, "GGUF: tensor 'rope_freqs.weight' holds a factor that is not positive");
    rope.inv_freq[j] /= factor;
  }
}

namespace {

format::fb::RopeT read_gguf_rope(const GgufFile& file, const Keys& keys, const GgufArchitecture& architecture, uint32_t head_dim,
                                   uint32_t n_ctx) {
  const uint32_t dim = keys.count("rope.dimension_count", head_dim);
  if (dim == 0 || dim > head_dim || dim % 2 != 0 || (architecture.permuted && dim != head_dim))
    fail(GPTQ_E_UNSUPPORTED, "GGUF: ", dim, " rotary dimensions of ", head_dim, " are not supported");
  RopeSettings fields;
  fields.add("rope_theta", keys.number("rope.freq_base").value_or(10000));
  if (dim != head_dim) fields.add("partial_rotary_factor", (dim + 0.5) / head_dim);  // rounded down to dim again
  fields.add("rope_scaling", gguf_rope_scaling(keys));
  const JsonDocument config("GGUF metadata", fields.object());
  format::fb::RopeT rope = read_rope(config.root(), head_dim, n_ctx);
  apply_gguf_factors(file, rope);
  return rope;
}

uint32_t rows_of(const GgufFile& file, std::string_view name) {
  const GgufTensor* tensor = file.find(name);
  if (!tensor || tensor->dims.size() != 2 || tensor->dims[1] > INT32_MAX) fail(GPTQ_E_FORMAT, "GGUF: there is no matrix '", name, "'");
  return static_cast<uint32_t>(tensor->dims[1]);
}

}  // namespace

void check_gguf_kind(const GgufFile& file) {
  const auto refuse = [](std::string_view what) { fail(GPTQ_E_UNSUPPORTED, "GGUF: ", what); };
  const GgufKeys keys(file, file.string("general.architecture").value_or(""));
  if (!keys.boolean("attention.causal").value_or(true)) refuse("attention that is not causal, which is not supported");
  if (file.integer("split.count").value_or(1) > 1) refuse("one part of a split model: join the parts first (llama-gguf-split --merge)");
  if (file.string("general.type").value_or("model") != "model") refuse("not a model (general.type), but an adapter or the like");
}

const GgufArchitecture& find_gguf_architecture(const GgufFile& file) {
  const std::string_view name = file.string("general.architecture").value_or("");
  std::string known;
  for (const GgufArchitecture& a : architectures_known) {
    if (a.name == name) return a;
    known += (known.empty() ? "" : ", ") + std::string(a.name);
  }
  std::string_view last = "llama";
  for (const GgufFamily& family : gguf_families())
    if (family.name != last) known.append(", ").append(last = family.name);
  fail(GPTQ_E_UNSUPPORTED, "GGUF: architecture '", name, "' is not supported; these are: ", known);
}

format::fb::SpecT read_gguf_spec(const GgufFile& file, const GgufArchitecture& architecture, const Options& options) {
  const Keys keys(file, architecture.name);
  refuse_what_changes_results(keys);
  format::fb::SpecT spec;
  spec.n_vocab = rows_of(file, "token_embd.weight");
  spec.n_layers = keys.count("block_count");
  spec.n_embd = keys.count("embedding_length");
  spec.n_ff = keys.same_count("feed_forward_length");
  spec.n_heads = keys.same_count("attention.head_count");
  spec.n_kv_heads = keys.has("attention.head_count_kv") ? keys.same_count("attention.head_count_kv") : spec.n_heads;
  if (spec.n_heads == 0 || spec.n_kv_heads == 0) file.refuse(keys.full("attention.head_count"), "must not be 0");
  spec.head_dim = keys.count("attention.key_length", spec.n_embd / spec.n_heads);
  if (keys.count("attention.value_length", spec.head_dim) != spec.head_dim)
    fail(GPTQ_E_UNSUPPORTED, "GGUF: keys and values of different lengths are not supported");
  if (spec.head_dim == 0) file.refuse(keys.full("attention.key_length"), "must not be 0");
  check_sizes("GGUF", spec);
  spec.n_ctx_train = keys.count("context_length");
  const auto eps = keys.number("attention.layer_norm_rms_epsilon");
  if (!eps) file.refuse(keys.full("attention.layer_norm_rms_epsilon"), "is missing");
  spec.norm_eps = static_cast<float>(*eps);
  spec.attention_scale = static_cast<float>(1 / std::sqrt(static_cast<double>(spec.head_dim)));
  spec.tied_head = !file.find("output.weight");
  spec.qk_norm = architecture.qk_norm;
  spec.rope = std::make_unique<format::fb::RopeT>(read_gguf_rope(file, keys, architecture, spec.head_dim, spec.n_ctx_train));
  const uint32_t window = keys.count("attention.sliding_window", 0);
  if (window && !architecture.windowed) options.warn("GGUF: the sliding window is not used by this kind of model and left out");
  spec.window = architecture.windowed && window < spec.n_ctx_train ? window : 0;
  return spec;
}

format::fb::GenerationT read_gguf_generation(const GgufFile& file, uint32_t n_vocab, const Options& options, EndTokens& ends) {
  format::fb::GenerationT out;
  const auto token = [&](std::string_view name) -> int32_t {
    const std::string key = "tokenizer.ggml." + std::string(name) + "_token_id";
    const auto id = file.integer(key);
    if (!id || *id == -1 || *id == UINT32_MAX) return -1;
    if (*id >= 0 && *id < n_vocab) return static_cast<int32_t>(*id);
    options.warn("GGUF: " + key + " is outside the vocabulary and left out");
    return -1;
  };
  const auto sampling = [&](std::string_view name, double highest) {
    const double value = file.number("general.sampling." + std::string(name)).value_or(0);
    return value > 0 && value <= highest ? static_cast<float>(value) : 0.0f;
  };
  out.bos = token("bos");
  out.eos = token("eos");
  out.pad = token("padding");
  ends.add(out.eos, "the file's eos");
  ends.add(token("eot"), "the file's eot");
  ends.add(token("eom"), "the file's eom");
  out.temperature = sampling("temp", 100);
  out.top_k = static_cast<int32_t>(sampling("top_k", 1 << 20));
  out.top_p = sampling("top_p", 1);
  out.min_p = sampling("min_p", 1);
  out.repeat_penalty = sampling("penalty_repeat", 1000);
  return out;
}

std::vector<std::pair<std::string, std::string>> read_gguf_meta(const GgufFile& file, std::string_view architecture, std::string_view hf_class,
                                                                std::string_view config) {
  std::vector<std::pair<std::string, std::string>> out;
  const auto add = [&](const std::string& key, std::string_view value) {
    if (!value.empty()) out.emplace_back(key, value);
  };
  std::map<std::string_view, size_t> types;
  for (const auto& [name, tensor] : file.tensors())
    if (tensor.dims.size() == 2) ++types[tensor.type->name];
  std::string quantization;
  for (const auto& [name, count] : types)
    quantization += (quantization.empty() ? "GGUF: " : ", ") + std::to_string(count) + " of " + std::string(name);

  const std::string_view chat = file.string("tokenizer.chat_template").value_or("");
  if (chat.size() > template_bytes_max)
    fail(GPTQ_E_UNSUPPORTED, "GGUF: the chat template has ", chat.size(), " bytes, at most ", template_bytes_max, " are supported");
  add("name", file.string("general.name").value_or(file.name()));
  add("license", file.string("general.license").value_or(""));
  add("source", "GGUF file " + file.name());
  add("architecture", hf_class);
  const std::string rope = config.empty() ? gguf_rope_scaling(GgufKeys(file, architecture)) : "null";
  add("rope", rope == "null" ? "" : rope);
  add("config", config);
  add("quantization", quantization);
  add("chat_template", chat);
  if (const auto* names = file.strings("tokenizer.chat_templates"))
    for (const std::string& name : *names) {
      const std::string_view text = file.string("tokenizer.chat_template." + name).value_or("");
      if (text.size() <= template_bytes_max) add("chat_template." + name, text);
    }
  return out;
}

std::shared_ptr<const TokenizerDescription> read_gguf_tokenizer(const GgufFile& file) {
  const auto key = [](std::string_view name) { return "tokenizer.ggml." + std::string(name); };
  const auto* tokens = file.strings(key("tokens"));
  const std::string_view model = file.string(key("model")).value_or("none");
  if (!tokens || model == "none" || model == "no_vocab") return nullptr;
  GgufVocabulary v;
  v.model = model;
  v.pre = file.string(key("pre")).value_or("");
  v.tokens = *tokens;
  if (const auto* merges = file.strings(key("merges"))) v.merges = *merges;
  if (const auto* scores = file.floats(key("scores"))) v.scores = *scores;
  if (const auto* types = file.integers(key("token_type")))
    for (int64_t type : *types) v.token_types.push_back(static_cast<int32_t>(std::clamp<int64_t>(type, 0, 100)));
  const auto id = [&](std::string_view name) {
    const int64_t found = file.integer(key(name)).value_or(-1);
    return found >= 0 && found < static_cast<int64_t>(v.tokens.size()) ? static_cast<int32_t>(found) : -1;
  };
  v.bos = id("bos_token_id");
  v.eos = id("eos_token_id");
  v.unk = id("unknown_token_id");
  v.pad = id("padding_token_id");
  v.add_bos = file.boolean(key("add_bos_token"));
  v.add_eos = file.boolean(key("add_eos_token"));
  v.add_space_prefix = file.boolean(key("add_space_prefix"));
  v.remove_extra_whitespaces = file.boolean(key("remove_extra_whitespaces"));
  return std::make_shared<const TokenizerDescription>(from_gguf_vocabulary(v));
}

}  // namespace gptq::convert
