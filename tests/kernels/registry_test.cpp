// SPDX-License-Identifier: Apache-2.0
// Dispatch, and that no variant of any op is without tests.
#include <set>

#include "gptq/gptq.h"
#include "kernel_test.h"

namespace gptq::kernels {
namespace {

TEST(registry, every_variant_has_a_test) {
  std::set<std::string> tested;
  const testing::UnitTest& unit = *testing::UnitTest::GetInstance();
  for (int s = 0; s < unit.total_test_suite_count(); ++s) {
    const testing::TestSuite& suite = *unit.GetTestSuite(s);
    for (int t = 0; t < suite.total_test_count(); ++t) {
      const std::string name = suite.GetTestInfo(t)->name();
      if (const size_t slash = name.find_last_of('/'); slash != std::string::npos) tested.insert(suite.name() + name.substr(slash));
    }
  }
  size_t count;
  const Variant* all = variants(&count);
  for (size_t i = 0; i < count; ++i)
    EXPECT_TRUE(tested.count(std::string("kernels/") + all[i].op + "/" + level_name(all[i].level)))
        << "no test in tests/kernels for " << all[i].op << ": add KERNEL_SUITE(" << all[i].op << ", ...) and a TEST_P";
}

// But for matmul_bf16, which may be missing.
bool has_reference(const char* op) { return strcmp(op, "matmul_bf16") != 0; }

TEST(registry, every_op_has_a_reference) {
#define X(op, Args)                                           \
  if (has_reference(#op)) {                                   \
    ASSERT_FALSE(variants_of(#op).empty()) << #op;            \
    EXPECT_EQ(variants_of(#op)[0].level, Level::ref) << #op;  \
  }
  GPTQ_KERNEL_OPS(X)
#undef X
  EXPECT_EQ(select_kernels(GPTQ_CPU_REFERENCE).matmul_bf16, nullptr);
}

TEST(registry, masks_choose_levels) {
  char text[1024];
  describe_kernels(GPTQ_CPU_REFERENCE, text, sizeof text);
  std::string expected;
#define X(op, Args) if (has_reference(#op)) expected.append(#op "=ref ");
  GPTQ_KERNEL_OPS(X)
#undef X
  expected.pop_back();
  EXPECT_EQ(text, expected);
  const Kernels reference = select_kernels(GPTQ_CPU_REFERENCE);
  EXPECT_EQ(reinterpret_cast<void (*)()>(reference.attention), variants_of("attention")[0].function);
  describe_kernels(GPTQ_CPU_AVX2, text, sizeof text);
  EXPECT_EQ(strstr(text, "matmul_int8=avx2") != nullptr, cpu_has(Level::avx2)) << text;
  EXPECT_EQ(strstr(text, "avx512"), nullptr) << text;
  char cut[10];
  describe_kernels(0, cut, sizeof cut);
  EXPECT_STREQ(cut, "pack_int8");
}

// The last of an op's variants that this CPU can run: variants are listed level by level.
void (*best_of(const char* op))() {
  void (*best)() = nullptr;
  for (const Variant& v : variants_of(op))
    if (cpu_has(v.level)) best = v.function;
  return best;
}

TEST(registry, without_a_mask_the_highest_level) {
  const Kernels chosen = select_kernels(0);
#define X(op, Args) EXPECT_EQ(reinterpret_cast<void (*)()>(chosen.op), best_of(#op)) << #op;
  GPTQ_KERNEL_OPS(X)
#undef X
}

TEST(registry, bits_are_those_of_the_public_header) {
  const uint32_t cpu = detect_cpu();
  EXPECT_TRUE(cpu & GPTQ_CPU_REFERENCE);
  EXPECT_EQ((cpu & GPTQ_CPU_AVX2) != 0, cpu_has(Level::avx2));
  EXPECT_EQ((cpu & GPTQ_CPU_AVX512_VNNI) != 0, cpu_has(Level::avx512vnni));
  EXPECT_EQ((cpu & GPTQ_CPU_AVX512_BF16) != 0, cpu_has(Level::avx512bf16));
  EXPECT_EQ((cpu & GPTQ_CPU_NEON) != 0, cpu_has(Level::neon));
  EXPECT_EQ((cpu & GPTQ_CPU_NEON_DOTPROD) != 0, cpu_has(Level::neon_dotprod));
  EXPECT_EQ((cpu & GPTQ_CPU_NEON_I8MM) != 0, cpu_has(Level::neon_i8mm));
}

}  // namespace
}  // namespace gptq::kernels
