// SPDX-License-Identifier: Apache-2.0
// The parts of an export, each in a file of its own: config.json, quantization config, tensors.
#pragma once
#include <string>
#include <vector>

#include "converter/hf/config.h"
#include "converter/hf/export.h"
#include "converter/hf/published.h"
#include "converter/safetensors/writer.h"
#include "converter/unpack.h"

namespace gptq::convert {

// One linear layer as it will be written.
struct ExportedLinear {
  std::string module;        // "model.layers.3.mlp.up_proj"
  uint64_t weights = 0;
  uint32_t bits = 0;         // 0: not quantized
  int32_t group_size = 0;
  bool symmetric = true;
  bool is_head = false;
  std::vector<int32_t> g_idx;  // of quantized ones
  bool in_order(size_t input) const { return g_idx[input] == (group_size > 0 ? static_cast<int32_t>(input) / group_size : 0); }
  bool is_reordered() const;
};

// ---- export_quantization.cpp ----

// The object for config.json and quantize_config.json.
std::string write_quantization(const std::vector<ExportedLinear>& linears, bool v2_zeros, bool quantized_head);
// What keeps vLLM from loading it, or "".
std::string vllm_refuses(const std::vector<ExportedLinear>& linears);

// ---- export_config.cpp ----

struct ExportedBiases {
  bool qkv = false, o = false, mlp = false;  // one of the layers has one
};
struct ExportedConfig {
  std::string text;
  HfModel model;  // as our own importer reads the text: whatever it would get wrong is refused
};
// quantization: "" where there is none.
ExportedConfig write_config(const format::fb::Manifest& manifest, const ExportedBiases& biases, Dtype dtype,
                            const std::string& quantization);
std::string write_generation_config(const format::fb::Manifest& manifest);
// Of a family beyond the Llama line: the config it was imported with, about its text part alone.
std::string write_family_config(const Published& published, Dtype dtype, const std::string& quantization);
// Whether two specs are the same but for the last digits of frequencies.
bool same_spec(const format::fb::SpecT& a, const format::fb::Spec& b);

// ---- export_tensors.cpp ----

// The bytes of qweight, qzeros, scales and g_idx.
struct PackedLinear {
  std::vector<uint32_t> qweight, qzeros;
  std::vector<uint16_t> scales;
  bool scales_rounded = false;
};
PackedLinear pack_linear(const std::string& module, const QuantizedWeight& weight, uint32_t n, uint32_t k, bool v2_zeros);
// A vector in dtype where that loses nothing, else in float32.
DenseWeight narrow(DenseWeight vector, Dtype dtype);
DenseWeight round_to_half(const std::string& module, const std::vector<float>& values);
Dtype dtype_of(kernels::Kind kind);

}  // namespace gptq::convert
