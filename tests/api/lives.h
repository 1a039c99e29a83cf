// SPDX-License-Identifier: Apache-2.0
// Everything the library and the converter do with files, each as one call: what it makes must be whole or not there, and the same at the next try.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "tests/api/fixture.h"

namespace gptq::test {

struct Life {
  std::string name;
  // In a folder of its own, where it makes "out" or nothing. What it gives beside that: the same at every success.
  std::function<gptq_status(const std::string& folder, std::string& text)> run;
  uint32_t one_in = 1;    // of the faults other than one error; from 10 on of all
  bool replaces = false;  // an "out" that run() makes too, from something else
  std::function<void(const std::string& folder)> prepare = [](const std::string&) {};
};
const std::vector<Life>& lives();

// A file's bytes, or a folder's names and files; "" where nothing is.
std::string content_of(const std::string& path);
// What lies in the folder that is neither "out" nor the work of a quantization that goes on.
std::string left_over_in(const std::string& folder);

}  // namespace gptq::test
