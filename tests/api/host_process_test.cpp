// SPDX-License-Identifier: Apache-2.0
// The library in POSIX's processes: what it costs while it waits, loading and unloading it, and children of fork().
#include <dlfcn.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <functional>

#include "tests/api/fixture.h"

namespace gptq::test {
namespace {

double cpu_seconds() {
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

TEST(Host, SleepsBetweenSteps) {
  Chain c(text_model(), engine_of(0), with_threads(4));
  c.session.append(some_tokens(100));
  c.session.start(generation(0));
  c.engine.step(500);
  usleep(20000);
  const double before = cpu_seconds();
  usleep(300000);
  EXPECT_LT(cpu_seconds() - before, 0.003);
}

size_t threads_now() {
  const std::filesystem::directory_iterator tasks("/proc/self/task");
  return static_cast<size_t>(std::distance(begin(tasks), end(tasks)));
}

TEST(Host, LibraryComesAndGoes) {
  const char* path = std::getenv("GPTQ_LIBRARY");
  if (!path) GTEST_SKIP() << "GPTQ_LIBRARY does not name the shared library";
  const size_t threads = threads_now();
  for (int i = 0; i < 50; ++i) {
    void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    ASSERT_NE(library, nullptr) << dlerror();
    const auto create = reinterpret_cast<decltype(&gptq_runtime_create)>(dlsym(library, "gptq_runtime_create"));
    const auto release = reinterpret_cast<decltype(&gptq_runtime_release)>(dlsym(library, "gptq_runtime_release"));
    const auto load = reinterpret_cast<decltype(&gptq_model_load)>(dlsym(library, "gptq_model_load"));
    const auto unload = reinterpret_cast<decltype(&gptq_model_release)>(dlsym(library, "gptq_model_release"));
    ASSERT_TRUE(create && release && load && unload);
    const auto desc = with_threads(3);
    gptq_runtime* rt = nullptr;
    gptq_model* m = nullptr;
    ASSERT_EQ(create(&desc, &rt, nullptr), GPTQ_OK);
    ASSERT_EQ(load(rt, tiny_model().c_str(), GPTQ_NTS, nullptr, &m, nullptr), GPTQ_OK);
    release(rt);
    unload(m);
    ASSERT_EQ(dlclose(library), 0);
  }
  // A thread that was joined may be listed a little longer: at the end one of ours, at the beginning one of an earlier
  // test.
  for (int i = 0; i < 1000 && threads_now() > threads; ++i) usleep(1000);
  EXPECT_LE(threads_now(), threads);
}

// The exit status of what a child process does, -1 where it hung or crashed.
int in_child(const std::function<int()>& f) {
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);
    _exit(f());
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

// Case fork-child-hangs. The child has no worker threads: it computes alone, to the same numbers, and releases
// everything.
TEST(Host, ForkedChildrenWork) {
  const Tokens prompt = some_tokens(40);
  Tokens wanted;
  {
    Chain c(text_model(), engine_of(0), with_threads(4));
    wanted = greedy(c.engine, c.session, prompt, 12);
  }
  for (int round = 0; round < 12; ++round) {
    auto c = std::make_unique<Chain>(text_model(), engine_of(0), with_threads(4));
    if (round % 3) greedy(c->engine, c->session, prompt, 3);  // workers are near, or asleep
    if (round % 3 == 2) usleep(2000);
    const int status = in_child([&] {
      c->session.truncate(0);
      const bool same = greedy(c->engine, c->session, prompt, 12) == wanted;
#ifndef GPTQ_SANITIZED  // a child of threads must not make any there
      if (round % 4 == 0) {
        Chain other(text_model(), engine_of(0), with_threads(2));
        if (greedy(other.engine, other.session, prompt, 12) != wanted) return 4;
      }
#endif
      c.reset();
      return same ? 0 : 3;
    });
    EXPECT_EQ(status, 0) << round;
    c->session.truncate(0);
    EXPECT_EQ(greedy(c->engine, c->session, prompt, 12), wanted) << "the parent goes on";
  }
}

TEST(Host, ForkedChildrenLoadAndQuantizeWithTheParentsRuntime) {
  const Runtime runtime(with_threads(3));
  const Model model(runtime, text_model());
  const std::string path =
      (std::filesystem::temp_directory_path() / ("gptq-forked-" + std::to_string(getpid()))).string();
  const auto quantize = [&] {
    auto source = make<gptq_source>();
    source.path = dense_model().c_str(), source.path_size = GPTQ_NTS;
    auto params = make<gptq_quantize_params>();
    params.rows = 2, params.row_tokens = 16, params.flags = GPTQ_QUANTIZE_REPLACE, params.defaults.group_size = 32;
    if (gptq_quantize(runtime.get(), &source, path.c_str(), GPTQ_NTS, &params, nullptr) != GPTQ_OK) return Bytes();
    return read_bytes(path);
  };
  const Bytes wanted = quantize();
  EXPECT_FALSE(wanted.empty());
  EXPECT_EQ(in_child([&] {
              const Model again(runtime, text_model());
              return quantize() == wanted ? 0 : 3;
            }),
            0);
  unlink(path.c_str());
}

}  // namespace
}  // namespace gptq::test
