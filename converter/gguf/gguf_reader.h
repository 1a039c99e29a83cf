// SPDX-License-Identifier: Apache-2.0
// GGUF files, versions 2 and 3: metadata and the table of tensors, every count and offset checked against the file.
#pragma once
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/failure.h"
#include "base/io.h"
#include "converter/gguf/gguf_dequantize.h"

namespace gptq::convert {

// Integers and booleans of all widths are int64.
using GgufValue = std::variant<int64_t, double, std::string, std::vector<int64_t>, std::vector<float>, std::vector<std::string>>;

struct GgufTensor {
  const GgufType* type = nullptr;
  std::vector<uint64_t> dims;  // the innermost first: [k][n] is n rows of k
  uint64_t offset = 0, bytes = 0;
};

class GgufFile {
 public:
  // source must outlive this; name is for messages.
  GgufFile(const base::Source& source, std::string_view name);

  // The value of a key, nothing where it is absent; fails with FORMAT where it has another type.
  std::optional<int64_t> integer(std::string_view key) const;
  std::optional<double> number(std::string_view key) const;
  std::optional<std::string_view> string(std::string_view key) const;
  std::optional<bool> boolean(std::string_view key) const;
  const std::vector<std::string>* strings(std::string_view key) const { return array<std::string>(key); }
  const std::vector<float>* floats(std::string_view key) const { return array<float>(key); }
  const std::vector<int64_t>* integers(std::string_view key) const { return array<int64_t>(key); }
  // A count within 0..2^31-1 that must be there, or that has a value where it is not.
  uint32_t count(std::string_view key) const;
  uint32_t count(std::string_view key, uint32_t otherwise) const;

  const std::map<std::string, GgufValue, std::less<>>& values() const { return values_; }
  const std::map<std::string, GgufTensor, std::less<>>& tensors() const { return tensors_; }
  const GgufTensor* find(std::string_view tensor) const;
  std::vector<std::byte> read(const GgufTensor& tensor) const { return read(tensor, 0, tensor.bytes); }
  std::vector<std::byte> read(const GgufTensor& tensor, uint64_t first, uint64_t bytes) const;
  const std::string& name() const { return name_; }
  [[noreturn]] void refuse(std::string_view key, std::string_view rule, base::Code code = {GPTQ_E_FORMAT, __builtin_FILE(), __builtin_LINE()}) const;

 private:
  const GgufValue* value(std::string_view key) const;
  template <class T>
  const std::vector<T>* array(std::string_view key) const;
  void check_split() const;
  void check_tensors(uint64_t data_begin);

  const base::Source& source_;
  std::string name_;
  std::map<std::string, GgufValue, std::less<>> values_;
  std::map<std::string, GgufTensor, std::less<>> tensors_;
};

}  // namespace gptq::convert
