// SPDX-License-Identifier: Apache-2.0
// tests CASES MODELS: prints "ok - NAME" and "not ok - NAME". Cancel from another thread, exceptions in callbacks, and no leaks.
#include <unistd.h>

#include <atomic>
#include <functional>
#include <limits>
#include <thread>

#include "conformance.h"

namespace {

std::string models;
std::string path(const char* name) { return models + "/" + name + ".gptq"; }

void expect(bool holds, const std::string& what) {
  if (!holds) throw std::runtime_error("expected otherwise: " + what);
}

gptq_runtime_desc one_thread() {
  auto desc = gptq::make<gptq_runtime_desc>();
  desc.threads = 1;
  return desc;
}
gptq_engine_params sessions(uint32_t n, uint32_t ctx_tokens = 256) {
  auto params = gptq::make<gptq_engine_params>();
  params.max_sessions = n, params.ctx_tokens = ctx_tokens;
  return params;
}
gptq::Generation tokens(uint32_t n) {
  gptq::Generation how;
  how.max_tokens = n, how.flags = GPTQ_GEN_IGNORE_EOS;
  return how;
}
struct Chain {
  explicit Chain(uint32_t n = 1, uint32_t ctx_tokens = 256) : engine(model, sessions(n, ctx_tokens)) {}
  gptq::Runtime runtime{one_thread()};
  gptq::Model model{runtime, path("text")};
  gptq::Engine engine;
};

long resident() {
  long all = 0, pages = 0;
  std::ifstream("/proc/self/statm") >> all >> pages;
  return pages * sysconf(_SC_PAGESIZE);
}
// Of 1,000 cycles, after as many that warm up: the least of three rounds, since a leak shows in each, but the heap's own size swings.
template <class F>
void expect_no_growth(F&& cycle) {
  for (int i = 0; i < 1000; ++i) cycle();
  long least = std::numeric_limits<long>::max();
  for (int round = 0; round < 3 && least >= 1 << 19; ++round) {
    const long before = resident();
    for (int i = 0; i < 1000; ++i) cycle();
    least = std::min(least, resident() - before);
  }
  expect(least < 1 << 19, std::to_string(least) + " bytes more");
}

void objects() {
  expect_no_growth([] {
    Chain c(2, 64);
    gptq::Session session(c.engine);
    session.generate("a", tokens(1), [](std::string_view) {});
    gptq::Session fork = session.fork();
    const gptq::Constraint choice = gptq::Constraint::choice(c.model, {"yes", "no"});
    const gptq::Adapter adapter(c.model, path("text") + "-lora");
    session.set_adapter(&adapter);
    session.save(GPTQ_SAVE_REPLAY, [](const char*, size_t) {});
  });
}

void exceptions_in_callbacks() {
  Chain c;
  expect_no_growth([&] {
    gptq::Session session(c.engine);
    try {
      session.generate("a", tokens(4), [](std::string_view) { throw std::domain_error("from the callback"); });
      expect(false, "it is lost");
    } catch (const std::domain_error&) {
    }
  });
  try {
    gptq::Model(c.runtime, path("text"), [](uint32_t, double) { throw std::domain_error("from progress"); });
    expect(false, "it is lost");
  } catch (const std::domain_error&) {
  }
}

void cancel_from_another_thread() {
  Chain c;
  gptq::Session session(c.engine);
  std::atomic<bool> over{false};
  std::thread canceller([&] {
    while (!over) session.cancel(), std::this_thread::yield();
  });
  for (int i = 0; i < 20; ++i) {
    while (session.generate("the cat", tokens(200), [](std::string_view) {}).stop_reason != GPTQ_STOP_CANCELLED) session.truncate(0);
    session.truncate(0);
  }
  over = true;
  canceller.join();
}

void cancel_while_it_is_dropped() {
  Chain c(4);
  for (int i = 0; i < 100; ++i) {
    auto session = std::make_unique<gptq::Session>(c.engine);
    std::thread canceller([shared = session->share()]() mutable {
      shared.cancel();
      gptq::Session dropped = std::move(shared);
    });
    session->generate("a", tokens(2), [](std::string_view) {});
    session.reset();
    canceller.join();
  }
}

void stream_left_early() {
  Chain c(1, 4096);
  gptq::Session session(c.engine);
  for (const std::string& piece : session.stream(c.engine, "the cat", tokens(0))) {
    expect(!piece.empty(), "nothing came");
    break;
  }
  expect(session.info().stop_reason == GPTQ_STOP_CANCELLED, std::to_string(session.info().stop_reason));
}

void forks_and_saves() {
  Chain c(3);
  gptq::Session session(c.engine);
  gptq::Generation how = tokens(24);
  how.sampling.temperature = 0.9f, how.sampling.seed = 5;
  session.append("the cat", GPTQ_TEXT_ADD_BOS);
  session.start(how);
  c.engine.step(1);
  for (const int32_t kind : {GPTQ_SAVE_REPLAY, GPTQ_SAVE_FULL}) {
    gptq::Session fork = session.fork();
    bool exact = false;
    gptq::Session restored(c.engine, fork.save(kind), &exact);
    c.engine.step();
    const std::string text = fork.read();
    expect(exact && !text.empty() && restored.read() == text, text);
  }
}

void constraints() {
  Chain c;
  gptq::Session session(c.engine);
  const gptq::Constraint three(c.model, GPTQ_CONSTRAINT_REGEX, "[a-c]{3}z");
  gptq::Generation how;
  how.constraint = &three;
  std::string text;
  session.generate("well ", how, [&](std::string_view piece) { text += piece; });
  expect(text.size() == 4 && text[3] == 'z', text);
  try {
    gptq::Constraint(c.model, GPTQ_CONSTRAINT_REGEX, "ab(c");
    expect(false, "it was taken");
  } catch (const gptq::Error& error) {
    expect(error.status == GPTQ_E_INVALID_ARGUMENT && !error.site.empty(), error.what());
  }
}

struct Broken : std::streambuf {
  int_type underflow() override { throw std::domain_error("from the stream"); }
  pos_type seekoff(off_type, std::ios::seekdir, std::ios::openmode) override { return 4096; }
  pos_type seekpos(pos_type at, std::ios::openmode) override { return at; }
};
template <class F>
void expect_thrown(F&& f) {
  try {
    f();
  } catch (const std::domain_error&) {
    return;
  }
  expect(false, "it is lost");
}
void streams_that_throw() {
  Chain c;
  gptq::Session session(c.engine);
  session.append("a", 0);
  Broken buffer;
  std::istream stream(&buffer);
  stream.exceptions(std::ios::badbit);
  expect_thrown([&] { gptq::Model(c.runtime, gptq::Source(stream)); });
  expect_thrown([&] { gptq::Session::restore(c.engine, gptq::Source(stream)); });
  expect_thrown([&] { session.save(GPTQ_SAVE_REPLAY, [](const char*, size_t) -> bool { throw std::domain_error("from the writer"); }); });
  expect(session.generate(" b", tokens(2), [](std::string_view) {}).n_generated == 2, "it does not go on");
}

void logs_are_passed_on() {
  std::string told;
  int freed = 0;
  std::pair<std::string*, int*> user{&told, &freed};
  {
    auto desc = one_thread();
    desc.log = [](void* to, int32_t, const char* text, size_t size) { static_cast<decltype(user)*>(to)->first->append(text, size); };
    desc.user_free = [](void* to) { ++*static_cast<decltype(user)*>(to)->second; };
    desc.log_user = desc.user = &user;
    gptq::Runtime runtime(desc);
    const gptq::Model model(runtime, path("text"));
    try {
      model.detokenize({384});
      expect(false, "it was taken");
    } catch (const gptq::Error& error) {
      expect(std::string(error.what()).find("token 384") != std::string::npos && told.find("token 384") != told.npos && !error.site.empty(), told);
    }
  }
  expect(freed == 1, std::to_string(freed));
}

void progress_cancels() {
  gptq::Runtime runtime;
  auto params = gptq::make<gptq_quantize_params>();
  params.rows = 4, params.row_tokens = 64;
  try {
    gptq::quantize(runtime, path("text"), path("never"), params, [](uint32_t, double) { return false; }, [](const gptq_quantize_report&) {});
    expect(false, "it went on");
  } catch (const gptq::Error& error) {
    expect(error.status == GPTQ_E_CANCELLED, error.what());
  }
}

}  // namespace

int main(int, char** arguments) {
  models = arguments[2];
  bool good = conformance(arguments[1], arguments[2]);
  const std::pair<const char*, std::function<void()>> tests[] = {
      {"1,000 times everything, made and dropped", objects},
      {"1,000 exceptions in a callback arrive in the caller", exceptions_in_callbacks},
      {"cancel from another thread", cancel_from_another_thread},
      {"cancel while it is dropped", cancel_while_it_is_dropped},
      {"an iterator left early ends the session", stream_left_early},
      {"a fork and a restored save go on as the session does", forks_and_saves},
      {"constraints", constraints},
      {"streams that throw", streams_that_throw},
      {"a host's own log gets what exceptions say", logs_are_passed_on},
      {"progress cancels", progress_cancels},
  };
  for (const auto& test : tests) try {
      test.second();
      std::printf("ok - %s\n", test.first);
    } catch (const std::exception& error) {
      std::printf("not ok - %s: %s\n", test.first, error.what());
      good = false;
    }
  return good ? 0 : 1;
}
