// SPDX-License-Identifier: Apache-2.0
// GGUF architectures beyond the Llama line: one entry each, which says in the words of config.json what the metadata say. What the
// model is then comes from converter/hf/families.cpp, and where its weights are from one table of GGUF's names.
#pragma once
#include "converter/gguf/gguf_keys.h"
#include "converter/hf/families.h"

namespace gptq::convert {

struct GgufFamily {
  using Fields = std::map<std::string, std::string>;  // JSON values
  std::string_view name;                              // general.architecture
  std::string_view hf_class;                          // as in families.cpp
  bool pairs;                                         // rotary pairs are (2j, 2j + 1), GGML's "norm" kind; else halves, its "neox" kind
  void (*config)(const GgufKeys& keys, Fields& out);
  bool (*when)(const GgufKeys& keys) = nullptr;  // of several entries for one architecture the first that holds
};
const std::vector<GgufFamily>& gguf_families();
// NULL: none.
const GgufFamily* find_gguf_family(const GgufFile& file);

struct GgufModel {
  format::fb::SpecT spec;
  Layout layout;       // of GGUF's names
  std::string config;  // as a config.json
};
GgufModel read_gguf_family(const GgufFile& file, const GgufFamily& family);

// Where a weight is: rows of a tensor, or of one expert's slice of it.
struct GgufPlace {
  std::string tensor;
  std::vector<uint32_t> rows;  // empty: all, in order
  int32_t slice = -1;
  uint32_t of_rows = 0;   // how many the tensor has, where that is more than the slot's; 0: as many
  uint32_t turned = 0;    // heads whose matrices are transposed
  bool negative = false;  // the file has -x
};
GgufPlace find_gguf_place(const GgufFile& file, const GgufModel& model, const format::fb::SpecT& spec, const model::SlotId& id);

}  // namespace gptq::convert
