// SPDX-License-Identifier: Apache-2.0
// A fuzz target is written once: FUZZ_TARGET(name) { ...uses data and size... } It is libFuzzer's function, or, in the test that replays the corpus, one of
// its cases.
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>

namespace gptq::fuzz {

using Target = void (*)(const uint8_t* data, size_t size);
inline std::map<std::string, Target>& targets() {
  static std::map<std::string, Target> all;
  return all;
}

}  // namespace gptq::fuzz

#ifdef GPTQ_FUZZ_REPLAY
#define FUZZ_TARGET(name)                                                                            \
  static void fuzz_##name(const uint8_t* data, size_t size);                                         \
  static const bool name##_is_known = gptq::fuzz::targets().emplace(#name, fuzz_##name).second;      \
  static void fuzz_##name([[maybe_unused]] const uint8_t* data, [[maybe_unused]] size_t size)
#else
#define FUZZ_TARGET(name)                                                      \
  static void fuzz_##name(const uint8_t* data, size_t size);                   \
  extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {    \
    fuzz_##name(data, size);                                                   \
    return 0;                                                                  \
  }                                                                            \
  static void fuzz_##name([[maybe_unused]] const uint8_t* data, [[maybe_unused]] size_t size)
#endif
