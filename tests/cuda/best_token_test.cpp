// SPDX-License-Identifier: Apache-2.0
#include <limits>

#include "gpu.h"
#include "tests/seed.h"

namespace gptq::cuda {
namespace {

int32_t plainly(const float* logits, uint32_t n) {
  uint32_t best = 0;
  for (uint32_t i = 0; i < n; ++i) {
    if (!std::isfinite(logits[i])) return -1;
    if (logits[i] > logits[best]) best = i;
  }
  return static_cast<int32_t>(best);
}

class CudaBestToken : public GpuTest {
 protected:
  std::mt19937 random{test::seed(11)};
  std::vector<float> logits;
  uint32_t rows = 3;

  // Few different values, so that the largest occurs often.
  void fill(uint32_t n) {
    logits.resize(size_t{rows} * n);
    for (float& x : logits) x = static_cast<float>(random() % 1000) - 2000.0f;
  }
  void check(uint32_t n, const char* what) {
    std::vector<int32_t> token(rows, -77);
    std::vector<uint8_t> space(sampling_workspace(rows), 0xff);
    std::vector<uint32_t> counters(rows);
    gpu.table->best_token({gpu.in(logits), gpu.out(token), rows, n, {gpu.out(space), space.size(), gpu.out(counters)}}, *gpu.stream);
    gpu.finish();
    ASSERT_EQ(counters, std::vector<uint32_t>(rows));
    for (uint32_t r = 0; r < rows; ++r) ASSERT_EQ(token[r], plainly(&logits[size_t{r} * n], n)) << what << " n " << n << " row " << r;
  }
};

TEST_F(CudaBestToken, IsTheFirstOfTheLargest) {
  for (const uint32_t n : {1u, 2u, 3u, 4u, 5u, 31u, 33u, 1023u, 4099u, 16384u, 49153u}) {
    fill(n);
    check(n, "random");
    for (const uint32_t at : {0u, n / 3, n - 1}) {  // alone, or equal to a later one
      for (uint32_t r = 0; r < rows; ++r) logits[size_t{r} * n + at] = logits[size_t{r} * n + n - 1] = 5.0f + static_cast<float>(r);
      check(n, "placed");
      fill(n);
    }
  }
}

TEST_F(CudaBestToken, KnowsLargeVocabularies) {
  gpu.pretend(rows * 20);  // sixteen blocks a row
  rows = 2;
  for (const uint32_t n : {151937u, 262144u}) {
    fill(n);
    logits[n - 1] = 3;
    logits[n] = 3;
    check(n, "large");
  }
}

TEST_F(CudaBestToken, ExtremesAreNumbersToo) {
  const float lowest = std::numeric_limits<float>::lowest(), tiny = std::numeric_limits<float>::denorm_min();
  for (const float value : {lowest, -tiny, 0.0f, tiny, -lowest}) {
    logits.assign(size_t{rows} * 71, value);
    check(71, "all equal");
    logits[0] = -1;
    check(71, "first differs");
  }
  logits.assign(size_t{rows} * 71, -0.0f);
  logits[70] = 0.0f;
  check(71, "zeros are equal");
}

TEST_F(CudaBestToken, RefusesWhatIsNotFinite) {
  const float infinity = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  for (const uint32_t n : {6u, 5001u})
    for (const float bad : {infinity, -infinity, nan, -nan})
      for (int i = 0; i < 2; ++i) {
        fill(n);
        logits[n + random() % n] = bad;
        check(n, "not finite");
      }
}

}  // namespace
}  // namespace gptq::cuda
