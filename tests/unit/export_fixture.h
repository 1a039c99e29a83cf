// SPDX-License-Identifier: Apache-2.0
// Models to export: small GPTQ checkpoints made by hand, and the way there and back.
#pragma once
#include <algorithm>
#include <random>

#include "converter/hf/export_parts.h"
#include "converter/json.h"
#include "converter/safetensors/folder.h"
#include "kernels/half.h"
#include "small_checkpoint.h"

namespace gptq::test {

struct Quantization {
  uint32_t bits = 4;
  int32_t group_size = 16;
  bool symmetric = true, v2 = false, reordered = false;
  uint8_t least_zero = 1;
};

inline convert::QuantizedWeight random_quantized(uint32_t n, uint32_t k, const Quantization& q) {
  std::mt19937 random(n * 31 + k + q.bits);
  const uint32_t size = q.group_size > 0 ? static_cast<uint32_t>(q.group_size) : k, codes = 1u << q.bits;
  convert::QuantizedWeight w;
  w.bits = q.bits;
  w.group_size = q.group_size;
  w.n_groups = (k + size - 1) / size;
  for (uint64_t i = 0; i < uint64_t{n} * k; ++i) w.codes.push_back(static_cast<uint8_t>(random() % codes));
  for (uint64_t i = 0; i < uint64_t{n} * w.n_groups; ++i) {
    w.scales.push_back(static_cast<float>(random() % 512 + 1) / 1024);
    if (!q.symmetric) w.zeros.push_back(static_cast<uint8_t>(q.least_zero + random() % (codes - q.least_zero)));
  }
  for (uint32_t i = 0; i < k; ++i) w.g_idx.push_back(static_cast<int32_t>(i / size));
  std::mt19937 same_inputs(k);  // layers that read the same activations order them in the same way
  if (q.reordered) std::shuffle(w.g_idx.begin(), w.g_idx.end(), same_inputs);
  return w;
}

// Puts a quantized module in the place of an unquantized one.
inline void quantize(std::map<std::string, RawTensor>& tensors, const std::string& module, const Quantization& q) {
  const std::vector<uint64_t> shape = tensors.at(module + ".weight").shape;
  const auto n = static_cast<uint32_t>(shape[0]), k = static_cast<uint32_t>(shape[1]);
  const convert::QuantizedWeight w = random_quantized(n, k, q);
  const convert::PackedLinear packed = convert::pack_linear(module, w, n, k, q.v2);
  tensors.erase(module + ".weight");
  tensors[module + ".qweight"] = tensor("I32", {packed.qweight.size() / n, n}, packed.qweight);
  tensors[module + ".qzeros"] = tensor("I32", {w.n_groups, packed.qzeros.size() / w.n_groups}, packed.qzeros);
  tensors[module + ".scales"] = tensor("F16", {w.n_groups, n}, packed.scales);
  tensors[module + ".g_idx"] = tensor("I32", {k}, std::vector<int32_t>(w.g_idx.begin(), w.g_idx.end()));
}

// Two layers of 64/96 with four heads, unquantized, float16 all through.
class QuantizedCheckpoint : public SmallCheckpoint {
 public:
  QuantizedCheckpoint() {
    config = R"({"architectures":["LlamaForCausalLM"],"hidden_size":64,"intermediate_size":96,)"
             R"("num_hidden_layers":2,"num_attention_heads":4,"num_key_value_heads":2,"vocab_size":32,"max_position_embeddings":64)";
    tensors.clear();
    add("model.embed_tokens", 32, 64), add("lm_head", 32, 64), add("model.norm", 64, 0);
    for (const std::string layer : {"model.layers.0.", "model.layers.1."}) {
      add(layer + "self_attn.q_proj", 64, 64), add(layer + "self_attn.k_proj", 32, 64), add(layer + "self_attn.v_proj", 32, 64);
      add(layer + "self_attn.o_proj", 64, 64), add(layer + "mlp.gate_proj", 96, 64), add(layer + "mlp.up_proj", 96, 64);
      add(layer + "mlp.down_proj", 64, 96), add(layer + "input_layernorm", 64, 0), add(layer + "post_attention_layernorm", 64, 0);
    }
  }
  // All projections of both layers.
  void quantize_all(const Quantization& q) {
    std::vector<std::string> modules;
    for (const auto& [name, t] : tensors)
      if (name.find("_proj.weight") != name.npos) modules.push_back(name.substr(0, name.size() - 7));
    for (const std::string& module : modules) quantize(tensors, module, q);
  }
  void add(const std::string& name, uint64_t n, uint64_t k) {
    std::vector<uint16_t> halves(n * std::max<uint64_t>(k, 1));
    for (size_t i = 0; i < halves.size(); ++i) halves[i] = kernels::half_from_float(static_cast<float>(i % 13) / 16 - 0.3125f);
    tensors[name + ".weight"] = tensor("F16", k ? std::vector<uint64_t>{n, k} : std::vector<uint64_t>{n}, halves);
  }
  std::string export_to(const std::string& name, convert::ExportOptions how = {}) {
    how.warn = [this](std::string_view text) { warnings.emplace_back(text); };
    convert::export_hf(base::FileSource(folder.file("out.gptq")), folder.file(name), how);
    return folder.file(name);
  }
};

inline std::string contents(const std::string& path) { return convert::read_text(path, 1u << 30); }

// The names of tensors that differ between two folders, with why; "" where all are the same.
inline std::string difference(const std::string& a_folder, const std::string& b_folder, const std::vector<std::string>& but = {}) {
  const convert::TensorFolder a(a_folder), b(b_folder);
  std::string out;
  for (const std::string_view view : a.names()) {
    const std::string name(view);
    if (std::any_of(but.begin(), but.end(), [&](const std::string& suffix) { return name.ends_with(suffix); })) continue;
    const convert::TensorEntry *x = a.find(name), *y = b.find(name);
    if (!y) out += name + " is missing; ";
    else if (x->dtype != y->dtype || x->shape != y->shape) out += name + " is " + describe(*y) + ", was " + describe(*x) + "; ";
    else if (a.read(*x) != b.read(*y)) out += name + " has other bytes; ";
  }
  return out;
}

// A converted model's tensors and spec, byte for byte.
inline std::map<std::string, std::string> tensors_of(const std::string& path) {
  const base::FileSource file(path);
  const format::Reader reader(file, std::pmr::get_default_resource());
  std::map<std::string, std::string> out;
  for (const auto* t : *reader.manifest().tensors()) {
    std::string& bytes = out[t->name()->str()];
    for (const uint32_t fact : {uint32_t{t->kind()}, t->n(), t->k(), t->k_padded(), t->group(), static_cast<uint32_t>(t->group_size())})
      bytes += std::to_string(fact) + " ";
    for (const auto* part : *t->parts()) {
      std::string data(part->bytes(), '\0');
      reader.read_part(*part, std::as_writable_bytes(std::span(data)), std::pmr::get_default_resource());
      bytes += data;
    }
  }
  return out;
}

}  // namespace gptq::test
