// SPDX-License-Identifier: Apache-2.0
// One safetensors file: 8 bytes of header length, a JSON header, data. Every rule of the format is enforced when it is opened.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "base/io.h"

namespace gptq::convert {

enum class Dtype { boolean, u8, i8, f8_e5m2, f8_e4m3, i16, u16, f16, bf16, i32, u32, f32, i64, u64, f64 };
std::string_view dtype_name(Dtype dtype);
uint32_t dtype_bytes(Dtype dtype);

struct TensorEntry {
  std::string name;
  Dtype dtype;
  std::vector<uint64_t> shape;
  uint64_t offset, bytes;  // within the file
};
// "F16 [3, 128]", for messages.
std::string describe(const TensorEntry& entry);

// The checked header: tensors in the order of their data. name is for messages.
std::vector<TensorEntry> read_safetensors_header(const base::Source& source, std::string_view name);

}  // namespace gptq::convert
