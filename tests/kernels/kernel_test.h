// SPDX-License-Identifier: Apache-2.0
// Every test of an op runs once for each compiled variant: KERNEL_SUITE(op, Args) makes the suite, TEST_P(op, name) a test in it,
// run(args) calls the variant. Variants this CPU cannot run are reported as skipped.
#pragma once
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/kernels.h"
#include "tests/seed.h"

namespace gptq::kernels {

inline const char* missing(Level level) {
  switch (level) {
    case Level::avx2: return "AVX2, FMA and F16C";
    case Level::avx512vnni: return "AVX-512 VNNI";
    case Level::avx512bf16: return "AVX-512 BF16";
    case Level::neon: return "NEON";
    case Level::neon_dotprod: return "NEON dot products";
    case Level::neon_i8mm: return "NEON int8 matrix products";
    default: return "such level";
  }
}

inline std::vector<Variant> variants_of(const char* op) {
  size_t count;
  const Variant* all = variants(&count);
  std::vector<Variant> found;
  for (size_t i = 0; i < count; ++i)
    if (strcmp(all[i].op, op) == 0) found.push_back(all[i]);
  return found;
}

template <class Args>
class KernelTest : public testing::TestWithParam<Variant> {
 protected:
  void SetUp() override {
    if (!cpu_has(GetParam().level)) GTEST_SKIP() << "this CPU has no " << missing(GetParam().level);
  }
  void run(const Args& args) { reinterpret_cast<void (*)(const Args&)>(GetParam().function)(args); }
  std::mt19937 random{test::seed(12345)};
  float uniform(float low, float high) { return std::uniform_real_distribution<float>(low, high)(random); }
  uint32_t below(uint32_t n) { return static_cast<uint32_t>(random() % n); }
  std::vector<float> floats(size_t count, float size = 1) {
    std::vector<float> v(count);
    for (float& f : v) f = uniform(-size, size);
    return v;
  }
};

// The tests are listed as kernels/<op>.<test>/<level>.
#define KERNEL_SUITE(op, Args)                                                                     \
  using op = KernelTest<Args>;                                                                     \
  INSTANTIATE_TEST_SUITE_P(kernels, op, testing::ValuesIn(variants_of(#op)),                       \
                           [](const testing::TestParamInfo<Variant>& info) { return level_name(info.param.level); })

// Memory for outputs, full of NaN, between guards that check() looks at.
template <class T>
class Guarded {
 public:
  explicit Guarded(size_t count) : bytes_(count * sizeof(T) + 2 * guard, poison) {}
  T* data() { return reinterpret_cast<T*>(bytes_.data() + guard); }
  size_t size() const { return (bytes_.size() - 2 * guard) / sizeof(T); }
  T& operator[](size_t i) { return data()[i]; }
  bool intact() const {
    for (size_t i = 0; i < guard; ++i)
      if (bytes_[i] != poison || bytes_[bytes_.size() - 1 - i] != poison) return false;
    return true;
  }
  bool operator==(const Guarded& other) const { return bytes_ == other.bytes_; }
  static bool poisoned(const T& value) {
    const std::vector<uint8_t> expected(sizeof(T), poison);
    return memcmp(&value, expected.data(), sizeof(T)) == 0;
  }

 private:
  static constexpr size_t guard = 64;
  static constexpr uint8_t poison = 0xff;
  std::vector<uint8_t> bytes_;
};

}  // namespace gptq::kernels
