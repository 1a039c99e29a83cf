// SPDX-License-Identifier: Apache-2.0
// A GGUF file's metadata -> what the model is.
#pragma once
#include "converter/end_tokens.h"
#include "converter/gguf/gguf_keys.h"
#include "converter/source.h"

namespace gptq::convert {

// The Llama line. What its families differ in; all others are in gguf_families.cpp.
struct GgufArchitecture {
  std::string_view name;     // general.architecture
  std::string_view hf_name;  // the class of transformers it is
  bool permuted;             // q and k rows are in the order of interleaved rotary pairs
  bool qk_norm;
  bool windowed;  // attention.sliding_window holds in every layer; else it is not in use
};
// Fails with UNSUPPORTED on what is no whole model of text.
void check_gguf_kind(const GgufFile& file);
const GgufArchitecture& find_gguf_architecture(const GgufFile& file);
// rope_scaling as in config.json; "null": none.
std::string gguf_rope_scaling(const GgufKeys& keys);
void apply_gguf_factors(const GgufFile& file, format::fb::RopeT& rope);

format::fb::SpecT read_gguf_spec(const GgufFile& file, const GgufArchitecture& architecture, const Options& options);
// ends: gets what the file names.
format::fb::GenerationT read_gguf_generation(const GgufFile& file, uint32_t n_vocab, const Options& options, EndTokens& ends);
// name, license, source, quantization, chat_template, ... config: of families beyond the Llama line.
std::vector<std::pair<std::string, std::string>> read_gguf_meta(const GgufFile& file, std::string_view architecture,
                                                                std::string_view hf_class, std::string_view config);
// NULL where the file has none.
std::shared_ptr<const TokenizerDescription> read_gguf_tokenizer(const GgufFile& file);

}  // namespace gptq::convert
