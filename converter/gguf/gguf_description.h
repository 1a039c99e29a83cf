// SPDX-License-Identifier: Apache-2.0
// A GGUF file's metadata -> what the model is.
#pragma once
#include "converter/end_tokens.h"
#include "converter/gguf/gguf_reader.h"
#include "converter/source.h"

namespace gptq::convert {

// What families differ in. To add one: its entry in gguf_description.cpp.
struct GgufArchitecture {
  std::string_view name;       // general.architecture
  std::string_view hf_name;    // the class of transformers it is
  bool permuted;               // q and k rows are in the order of interleaved rotary pairs
  bool qk_norm;
  bool windowed;               // attention.sliding_window holds in every layer; else it is not in use
};
const GgufArchitecture& find_gguf_architecture(const GgufFile& file);

format::fb::SpecT read_gguf_spec(const GgufFile& file, const GgufArchitecture& architecture, const Options& options);
// ends: gets what the file names.
format::fb::GenerationT read_gguf_generation(const GgufFile& file, uint32_t n_vocab, const Options& options, EndTokens& ends);
// name, license, source, quantization, chat_template, ...
std::vector<std::pair<std::string, std::string>> read_gguf_meta(const GgufFile& file, const GgufArchitecture& architecture);
// NULL where the file has none.
std::shared_ptr<const TokenizerDescription> read_gguf_tokenizer(const GgufFile& file);

}  // namespace gptq::convert
