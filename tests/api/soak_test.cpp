// SPDX-License-Identifier: Apache-2.0
// A game that runs for hours: thousands of generations, with all that sessions do, take no more memory at the end than at the beginning.
// GPTQ_SOAK_SECONDS says for how long.
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <optional>
#include <random>

#include "tests/api/fixture.h"
#include "tests/seed.h"

namespace gptq::test {
namespace {

double seconds_asked() {
  const char* text = std::getenv("GPTQ_SOAK_SECONDS");
  return text ? std::strtod(text, nullptr) : 3;
}

// Of this process, in KiB.
double resident() {
  std::ifstream file("/proc/self/statm");
  double all = 0, here = 0;
  file >> all >> here;
  return here * static_cast<double>(sysconf(_SC_PAGESIZE)) / 1024;
}

struct Point {
  double generations, kilobytes;
};

// Of the line nearest to the points by least squares, in KiB for 1,000 generations.
double slope(const std::vector<Point>& points) {
  double x = 0, y = 0, xx = 0, xy = 0;
  const double n = static_cast<double>(points.size());
  for (const Point& p : points) x += p.generations / n, y += p.kilobytes / n;
  for (const Point& p : points) xx += (p.generations - x) * (p.generations - x), xy += (p.generations - x) * (p.kilobytes - y);
  return xx > 0 ? 1000 * xy / xx : 0;
}

class Game {
 public:
  Game(const gptq_runtime_desc& desc, uint32_t seed) : c_(text_model(), engine_of(0, 4), desc), random_(seed) {}

  // One generation in a session of its own; some with a constraint, forked, saved in the middle or given up.
  void play(uint64_t i) {
    Session session(c_.engine);
    session.append(some_tokens(1 + below(40), below(1000)));
    auto sampling = make<gptq_sampling>();
    sampling.temperature = 1;
    sampling.seed = random_();
    auto how = generation(1 + below(24));
    how.sampling = &sampling;
    std::optional<Constraint> constraint;
    if (i % 8 == 1) {
      constraint.emplace(c_.model, GPTQ_CONSTRAINT_REGEX, "[a-z]{3,9}( [a-z]{3,9})*");
      how.constraint = constraint->get();
      how.flags = 0;
    }
    session.start(how);
    for (uint32_t steps = below(6); steps > 0; --steps) c_.engine.step(20);
    std::optional<Session> second;
    if (i % 4 == 2) second.emplace(session.fork());
    if (i % 4 == 3) second.emplace(c_.engine, session.save(i % 8 == 3 ? GPTQ_SAVE_FULL : GPTQ_SAVE_REPLAY));
    if (i % 16 != 5) finish(c_.engine);  // else both are destroyed as they are
  }

 private:
  uint32_t below(uint32_t n) { return static_cast<uint32_t>(random_() % n); }
  Chain c_;
  std::mt19937_64 random_;
};

#ifndef GPTQ_SANITIZED  // the sanitizers keep what is freed
TEST(Soak, MemoryStaysFlat) {
  Host host;
  Game game(host.desc(2), seed(7));
  const auto begin = std::chrono::steady_clock::now();
  const auto elapsed = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count(); };
  const double wanted = seconds_asked();
  std::vector<Point> points;
  points.reserve(1 << 20);
  int64_t live = 0;
  uint64_t i = 0;
  while (elapsed() < wanted || i < 800) {
    for (uint64_t last = i + 80; i < last; ++i) game.play(i);
    if (elapsed() < wanted / 4 && i < 200'000) continue;  // until all that is kept for later has been asked for
    if (points.empty()) live = host.live;
    EXPECT_EQ(host.live, live) << "after " << i << " generations";
    if (points.size() < points.capacity()) points.push_back({static_cast<double>(i), resident()});
  }
  const double grown = points.back().kilobytes - points.front().kilobytes, by = slope(points);
  std::printf("%llu generations: %.0f KiB resident, %+.0f KiB since a quarter of the time, %+.2f KiB per 1,000 generations\n",
              static_cast<unsigned long long>(i), points.back().kilobytes, grown, by);
  RecordProperty("generations", std::to_string(i));
  // A page more is nothing in a short run.
  EXPECT_TRUE(by < 4 || grown < 128) << by << " KiB per 1,000 generations";
}
#endif

}  // namespace
}  // namespace gptq::test
