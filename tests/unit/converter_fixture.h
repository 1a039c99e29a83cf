// SPDX-License-Identifier: Apache-2.0
// Checkpoint folders made by hand, for the converter's tests.
#pragma once
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "base/failure.h"
#include "tests/unit/temporary_folder.h"

namespace gptq::test {

// The bytes of a safetensors file from its header and data as they are.
inline std::string safetensors(std::string_view header, std::string_view data) {
  std::string out(8, '\0');
  const uint64_t size = header.size();
  std::memcpy(out.data(), &size, 8);
  return out.append(header).append(data);
}

// Tensors by name: dtype, shape, bytes. Written in the order of their names.
struct RawTensor {
  std::string dtype;
  std::vector<uint64_t> shape;
  std::string bytes;
};
template <class T>
RawTensor tensor(std::string dtype, std::vector<uint64_t> shape, const std::vector<T>& values) {
  return {std::move(dtype), std::move(shape), std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T))};
}
inline std::string safetensors(const std::map<std::string, RawTensor>& tensors) {
  std::string header = "{", data;
  for (const auto& [name, t] : tensors) {
    std::string shape;
    for (const uint64_t size : t.shape) shape += (shape.empty() ? "" : ",") + std::to_string(size);
    header += (header.size() > 1 ? ",\"" : "\"") + name + "\":{\"dtype\":\"" + t.dtype + "\",\"shape\":[" + shape + "],\"data_offsets\":[" +
              std::to_string(data.size()) + "," + std::to_string(data.size() + t.bytes.size()) + "]}";
    data += t.bytes;
  }
  return safetensors(header + "}", data);
}

// The message of the failure of f, or a test failure.
template <class F>
std::string failure_of(F&& f) {
  try {
    f();
  } catch (const base::Failure& failure) {
    return failure.detail.message;
  }
  ADD_FAILURE() << "nothing failed";
  return "";
}

#define EXPECT_REFUSED(expression, words)                                                       \
  EXPECT_NE(gptq::test::failure_of([&] { (void)(expression); }).find(words), std::string::npos) \
      << gptq::test::failure_of([&] { (void)(expression); })

}  // namespace gptq::test
