// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <limits>

#include "gpu.h"
#include "tests/sanitized.h"
#include "tests/seed.h"

namespace gptq::cuda {
namespace {

class CudaCandidates : public GpuTest {
 protected:
  std::mt19937 random{test::seed(3)};
  std::vector<float> logits;
  uint32_t rows = 2, cases = 0;

  std::vector<Candidate> run(uint32_t n, uint32_t count) {
    std::vector<Candidate> best(size_t{rows} * count, Candidate{NAN, -77});
    std::vector<uint8_t> space(sampling_workspace(rows), 0xff);
    std::vector<uint32_t> counters(rows);
    gpu.table->candidates({gpu.in(logits), gpu.out(best), rows, n, count, {gpu.out(space), space.size(), gpu.out(counters)}}, *gpu.stream);
    gpu.finish();
    EXPECT_EQ(counters, std::vector<uint32_t>(rows));
    return best;
  }
  void check(uint32_t n, uint32_t count) {
    if (test::is_left_out(cases++, 3)) return;
    for (const uint32_t n_processors : {1u, 1000u}) {  // a row a block, and a row by several
      gpu.pretend(n_processors);
      compare(n, count);
    }
  }
  void compare(uint32_t n, uint32_t count) {
    const auto best = run(n, count);
    for (uint32_t r = 0; r < rows; ++r) {
      const float* row = &logits[size_t{r} * n];
      std::vector<int32_t> order(n);
      for (uint32_t i = 0; i < n; ++i) order[i] = static_cast<int32_t>(i);
      std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return row[a] > row[b]; });
      for (uint32_t i = 0; i < count; ++i) {
        const Candidate& is = best[size_t{r} * count + i];
        ASSERT_EQ(is.token, order[i]) << "row " << r << " of " << n << ", place " << i << " of " << count;
        ASSERT_EQ(is.logit, row[order[i]]);
      }
    }
  }
};

TEST_F(CudaCandidates, AreTheLargestInTheirOrder) {
  for (const uint32_t n : {1u, 5u, 1023u, 1025u, 4099u, 49153u})
    for (const uint32_t count : {1u, 2u, 40u, candidates_max}) {
      if (count > n) continue;
      logits.resize(size_t{rows} * n);
      for (float& x : logits) x = std::normal_distribution<float>(-2, 3)(random);
      check(n, count);
    }
}

// Every list overflows: logits that rise, all equal, few different ones.
TEST_F(CudaCandidates, NoOrderIsTooBad) {
  const uint32_t n = 20011;
  logits.resize(size_t{rows} * n);
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = static_cast<float>(i) * 0.5f - 100;
  check(n, 50);
  for (float& x : logits) x = -1.5f;
  check(n, candidates_max);
  for (float& x : logits) x = static_cast<float>(random() % 7) - 3;
  check(n, 64);
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = i % 1024 == 5 ? static_cast<float>(i) : 0.0f;  // one thread has them all
  check(n, 100);
}

TEST_F(CudaCandidates, ZerosAreEqualAndExtremesNumbers) {
  const float lowest = std::numeric_limits<float>::lowest(), tiny = std::numeric_limits<float>::denorm_min();
  rows = 1;
  logits = {-0.0f, tiny, 0.0f, lowest, -tiny, -lowest, -0.0f, -1, 1};
  check(9, 9);
}

TEST_F(CudaCandidates, RefusesWhatIsNotFinite) {
  const float infinity = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  gpu.pretend(1000);
  for (const uint32_t n : {6u, 5001u, 49153u})
    for (const float bad : {infinity, -infinity, nan, -nan}) {
      logits.assign(size_t{rows} * n, 1.0f);
      logits[n + random() % n] = bad;
      const auto best = run(n, 3);
      EXPECT_EQ(best[0].token, 0);
      EXPECT_EQ(best[3].token, -1);
    }
}

}  // namespace
}  // namespace gptq::cuda
