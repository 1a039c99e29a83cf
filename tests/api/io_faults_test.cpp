// SPDX-License-Identifier: Apache-2.0
// Every call to the system that has to do with files fails in every way it can, once and from there on; and the process is killed at those that write.
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <random>

#include "tests/api/faulty_io.h"
#include "tests/api/lives.h"
#include "tests/seed.h"
#include "tests/unit/temporary_folder.h"

namespace gptq::test {
namespace {

struct Outcome {
  gptq_status status;
  std::string text, out;
};

Outcome run(const Life& life, const TemporaryFolder& folder, Fault fault = Fault::none, uint64_t at = 0, bool stays = false, std::vector<Call>* calls = nullptr) {
  Outcome outcome;
  begin_faults(fault, at, stays);
  outcome.status = life.run(folder.path(), outcome.text);
  const std::vector<Call> made = end_faults();
  outcome.out = content_of(folder.file("out"));
  if (calls) *calls = made;
  return outcome;
}

size_t open_files() {
  const std::filesystem::directory_iterator files("/proc/self/fd");
  return static_cast<size_t>(std::distance(begin(files), end(files)));
}

// What a life gives, what was there before it, and its calls.
struct Expected {
  explicit Expected(const Life& life) {
    {
      const TemporaryFolder first;  // what all lives share is made
      life.prepare(first.path());
      run(life, first);
    }
    const TemporaryFolder folder;
    life.prepare(folder.path());
    before = content_of(folder.file("out"));
    right = run(life, folder, Fault::none, 0, false, &calls);
    EXPECT_EQ(right.status, GPTQ_OK) << life.name << ": " << right.text;
    EXPECT_EQ(left_over_in(folder.path()), "") << life.name;
    EXPECT_EQ(before.empty(), !life.replaces);
  }
  Outcome right;
  std::string before;
  std::vector<Call> calls;
};

void expect_right(const Outcome& got, const Expected& expected) {
  EXPECT_EQ(got.status, GPTQ_OK) << got.text;
  EXPECT_EQ(got.text, expected.right.text);
  EXPECT_TRUE(got.out == expected.right.out);
}

void fail_at(const Life& life, const Expected& expected, Fault fault, uint64_t at, bool stays) {
  const TemporaryFolder folder;
  life.prepare(folder.path());
  const size_t files = open_files();
  const Outcome got = run(life, folder, fault, at, stays);
  EXPECT_EQ(open_files(), files);
  EXPECT_EQ(left_over_in(folder.path()), "") << got.text;
  if (got.status == GPTQ_OK || fault == Fault::half || fault == Fault::interrupted) {
    expect_right(got, expected);
  } else {
    EXPECT_EQ(got.status, GPTQ_E_IO) << got.text;
    EXPECT_NE(got.text, "");
    EXPECT_TRUE(got.out == expected.before) << "what stands there is neither old nor absent";
    expect_right(run(life, folder), expected);
    EXPECT_EQ(left_over_in(folder.path()), "");
  }
}

class Io : public testing::TestWithParam<size_t> {
 protected:
  const Life& life() const { return lives()[GetParam()]; }
  void SetUp() override {
    if (!io_is_watched()) GTEST_SKIP() << "the calls cannot be watched here";
  }
};

TEST_P(Io, EveryFaultIsSurvived) {
  const Expected expected(life());
  uint32_t points = 0, points_seen = 0, number = seed(0);
  for (const Fault fault : {Fault::error, Fault::no_space, Fault::ends, Fault::half, Fault::interrupted})
    for (const bool stays : {false, true})
      for (uint64_t at = 0; at < expected.calls.size(); ++at) {
        if (!can_fail(expected.calls[at], fault) || (stays && fault == Fault::interrupted)) continue;
        const uint32_t one_in = fault == Fault::error && !stays && life().one_in < 10 ? 1 : life().one_in;
        if (number++ % one_in || is_left_out(points_seen++, 7)) continue;
        SCOPED_TRACE(life().name + ": call " + std::to_string(at) + " of kind " + std::to_string(static_cast<int>(expected.calls[at])) + ", fault " +
                     std::to_string(static_cast<int>(fault)) + (stays ? " from there on" : ""));
        fail_at(life(), expected, fault, at, stays);
        ++points;
        if (HasFailure()) return;
      }
  std::printf("%s: %zu calls, %u faults\n", life().name.c_str(), expected.calls.size(), points);
  RecordProperty("points", std::to_string(points));
}

// Some of the points, by the seed.
TEST_P(Io, KilledAtEveryWrite) {
  const Expected expected(life());
  std::vector<std::pair<uint64_t, Fault>> points;
  for (uint64_t at = 0; at < expected.calls.size(); ++at)
    for (const Fault fault : {Fault::kill, Fault::kill_half})
      if (can_fail(expected.calls[at], fault)) points.emplace_back(at, fault);
  std::mt19937 random(seed(14));
  std::shuffle(points.begin(), points.end(), random);
#ifdef GPTQ_SANITIZED
  const size_t most = 6;
#else
  const size_t most = std::max(12u, 60 / (1 + life().one_in / 3));
#endif
  points.resize(std::min(points.size(), most));
  for (const auto& [at, fault] : points) {
    SCOPED_TRACE(life().name + ": killed at call " + std::to_string(at));
    const TemporaryFolder folder;
    life().prepare(folder.path());
    const pid_t child = fork();
    if (child == 0) {
      begin_faults(fault, at);
      std::string text;
      life().run(folder.path(), text);
      _exit(0);
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status));
    const std::string out = content_of(folder.file("out"));
    EXPECT_TRUE(out.empty() || out == expected.before || out == expected.right.out) << "it is neither whole nor absent";
    if (out == expected.right.out && !life().replaces) continue;  // the name was given already
    expect_right(run(life(), folder), expected);
    // What the killed process left of a file is gone; of a folder it stays.
    if (!std::filesystem::is_directory(folder.file("out"))) EXPECT_EQ(left_over_in(folder.path()), "");
    if (HasFailure()) return;
  }
  std::printf("%s: killed %zu times\n", life().name.c_str(), points.size());
  RecordProperty("points", std::to_string(points.size()));
}

INSTANTIATE_TEST_SUITE_P(Lives, Io, testing::Range<size_t>(0, 11));

}  // namespace
}  // namespace gptq::test
