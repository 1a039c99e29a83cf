// SPDX-License-Identifier: Apache-2.0
// Calls that should not be made: each is answered with its status, and changes nothing.
#include <cmath>
#include <cstring>
#include <functional>

#include "tests/api/fixture.h"

namespace gptq::test {
namespace {

class Misuse : public testing::Test {
 protected:
  gptq_status start(const gptq_generate_params& params) { return gptq_session_start(c_.session.get(), &params, nullptr); }
  gptq_status start(const gptq_sampling& sampling) {
    auto params = generation(1);
    params.sampling = &sampling;
    return start(params);
  }
  gptq_status create(const gptq_engine_params& params) {
    gptq_engine* e = nullptr;
    auto err = make<gptq_error>();
    const gptq_status status = gptq_engine_create(c_.model.get(), &params, &e, &err);
    EXPECT_EQ(e != nullptr, status == GPTQ_OK);
    EXPECT_EQ(err.status, status);
    EXPECT_EQ(err.message[0] != 0, status < 0);
    gptq_engine_destroy(e);
    return status;
  }
  gptq_status create(const gptq_runtime_desc& desc) {
    gptq_runtime* rt = nullptr;
    const gptq_status status = gptq_runtime_create(&desc, &rt, nullptr);
    EXPECT_EQ(rt != nullptr, status == GPTQ_OK);
    gptq_runtime_release(rt);
    return status;
  }
  Chain c_{text_model()};
};

// A report of an error names the rule that was broken, not what all rules go through.
TEST_F(Misuse, ErrorsNameTheirPlace) {
  auto first = make<gptq_error>(), second = make<gptq_error>();
  EXPECT_EQ(gptq_session_create(nullptr, nullptr, &first), GPTQ_E_INVALID_ARGUMENT);
  EXPECT_EQ(gptq_engine_create(nullptr, nullptr, nullptr, &second), GPTQ_E_INVALID_ARGUMENT);
  EXPECT_EQ(std::string(first.site).rfind("api/session.cpp:", 0), 0u) << first.site;
  EXPECT_EQ(std::string(second.site).rfind("api/engine.cpp:", 0), 0u) << second.site;
}

TEST_F(Misuse, NullIsRefusedOrIgnored) {
  constexpr gptq_status bad = GPTQ_E_INVALID_ARGUMENT;
  gptq_runtime* rt = c_.runtime.get();
  gptq_model* m = c_.model.get();
  gptq_session* s = c_.session.get();
  size_t n = 0;
  uint32_t u = 0;
  const char* bytes = nullptr;
  gptq_model* model = nullptr;
  gptq_engine* engine = nullptr;
  gptq_session* session = nullptr;
  auto info = make<gptq_session_info>();
  const gptq_status refused[] = {gptq_runtime_create(nullptr, nullptr, nullptr),
                                 gptq_model_load(nullptr, "x", 1, nullptr, &model, nullptr),
                                 gptq_model_load(rt, nullptr, 0, nullptr, &model, nullptr),
                                 gptq_model_load(rt, "x", 1, nullptr, nullptr, nullptr),
                                 gptq_model_load_from(rt, nullptr, nullptr, &model, nullptr),
                                 gptq_model_estimate(rt, nullptr, nullptr, nullptr, nullptr, nullptr),
                                 gptq_model_info_get(m, nullptr),
                                 gptq_model_info_get(nullptr, nullptr),
                                 gptq_model_meta(m, nullptr, 0, nullptr, 0, &n),
                                 gptq_tokenize(nullptr, "x", 1, 0, nullptr, 0, &n),
                                 gptq_tokenize(m, "x", 1, 0, nullptr, 0, nullptr),
                                 gptq_tokenize(m, nullptr, 3, 0, nullptr, 0, &n),
                                 gptq_detokenize(m, nullptr, 3, 0, nullptr, 0, &n),
                                 gptq_token_bytes(m, 3, nullptr, &n, &u),
                                 gptq_token_bytes(m, 3, &bytes, nullptr, &u),
                                 gptq_chat_render(m, nullptr, nullptr, 0, &n, nullptr),
                                 gptq_engine_create(nullptr, nullptr, &engine, nullptr),
                                 gptq_engine_create(m, nullptr, nullptr, nullptr),
                                 gptq_engine_step(nullptr, 1, nullptr),
                                 gptq_engine_memory(c_.engine.get(), nullptr),
                                 gptq_session_create(nullptr, &session, nullptr),
                                 gptq_session_create(c_.engine.get(), nullptr, nullptr),
                                 gptq_session_fork(nullptr, &session, nullptr),
                                 gptq_session_fork(s, nullptr, nullptr),
                                 gptq_session_save(nullptr, GPTQ_SAVE_REPLAY, nullptr, 0, &n, nullptr),
                                 gptq_session_save(s, GPTQ_SAVE_REPLAY, nullptr, 0, nullptr, nullptr),
                                 gptq_session_save(s, 99, nullptr, 0, &n, nullptr),
                                 gptq_session_restore(nullptr, "x", 1, &session, nullptr),
                                 gptq_session_restore(c_.engine.get(), nullptr, 1, &session, nullptr),
                                 gptq_session_append_text(nullptr, "x", 1, 0, nullptr, nullptr),
                                 gptq_session_append_text(s, nullptr, 1, 0, nullptr, nullptr),
                                 gptq_session_append_tokens(s, nullptr, 1, nullptr),
                                 gptq_session_set_chat(s, nullptr, nullptr, nullptr),
                                 gptq_session_start(nullptr, nullptr, nullptr),
                                 gptq_session_read(s, nullptr, 1, &n),
                                 gptq_session_read(s, nullptr, 0, nullptr),
                                 gptq_session_read_tokens(s, nullptr, 1, &n),
                                 gptq_session_read_logits(s, nullptr, 1, &u, &u),
                                 gptq_session_cancel(nullptr),
                                 gptq_session_info_get(s, nullptr),
                                 gptq_session_info_get(nullptr, &info),
                                 gptq_session_tokens(s, nullptr, 0, nullptr),
                                 gptq_session_truncate(nullptr, 0),
                                 gptq_generate(nullptr, "x", 1, nullptr, nullptr, nullptr, nullptr, nullptr)};
  for (size_t i = 0; i < std::size(refused); ++i) EXPECT_EQ(refused[i], bad) << "call " << i;
  gptq_runtime_release(nullptr);
  gptq_model_release(nullptr);
  gptq_engine_destroy(nullptr);
  gptq_session_destroy(nullptr);
  gptq_session_set_user(nullptr, nullptr);
  EXPECT_EQ(gptq_model_retain(nullptr), nullptr);
  EXPECT_EQ(gptq_session_user(nullptr), nullptr);
  EXPECT_EQ(gptq_engine_next_readable(nullptr), nullptr);
  EXPECT_STREQ(gptq_runtime_kernels(nullptr), "");
}

// A struct of another version: shorter ones are extended by zeros, longer ones must be zero where this library knows nothing.
template <class T>
void expect_versions(const T& good, const std::function<gptq_status(const T*)>& call, bool shorter_works = true) {
  struct Longer {
    T known;
    char tail[24];
  } longer{good, {}};
  for (const uint32_t size : {0u, 1u, 3u, 65537u, UINT32_MAX}) {
    longer.known.struct_size = size;
    EXPECT_EQ(call(&longer.known), GPTQ_E_STRUCT_VERSION) << size;
  }
  longer.known.struct_size = sizeof longer;
  EXPECT_GE(call(&longer.known), 0);
  longer.tail[23] = 1;
  EXPECT_EQ(call(&longer.known), GPTQ_E_STRUCT_VERSION);
  longer.known.struct_size = sizeof(T);
  EXPECT_GE(call(&longer.known), 0);
  longer.known.struct_size = 4;
  if (shorter_works) {
    EXPECT_GE(call(&longer.known), 0);
  }
}

TEST_F(Misuse, StructVersions) {
  c_.session.append(some_tokens(3));
  const auto run = [&](const gptq_generate_params* params) {
    const gptq_status status = gptq_session_start(c_.session.get(), params, nullptr);
    if (status == GPTQ_OK) c_.session.cancel(), finish(c_.engine);
    return status;
  };
  expect_versions<gptq_runtime_desc>(with_threads(1), [&](const auto* p) { return create(*p); });
  expect_versions<gptq_engine_params>(make<gptq_engine_params>(), [&](const auto* p) {
    gptq_engine* e = nullptr;
    const gptq_status status = gptq_engine_create(c_.model.get(), p, &e, nullptr);
    gptq_engine_destroy(e);
    return status;
  });
  expect_versions<gptq_generate_params>(make<gptq_generate_params>(), run);
  expect_versions<gptq_sampling>(make<gptq_sampling>(), [&](const auto* p) {
    auto params = generation(1);
    params.sampling = p;
    return run(&params);
  });
  auto source = make<gptq_source>();
  source.path = text_model().c_str(), source.path_size = GPTQ_NTS;
  expect_versions<gptq_source>(
      source,
      [&](const auto* p) {
        gptq_model* m = nullptr;
        const gptq_status status = gptq_model_load_from(c_.runtime.get(), p, nullptr, &m, nullptr);
        gptq_model_release(m);
        return status;
      },
      false);
}

// Structs that come back: only what the caller's version has is written.
TEST_F(Misuse, OutputVersions) {
  gptq_session_info info;
  std::memset(&info, 0x55, sizeof info);
  info.struct_size = 16;
  ASSERT_EQ(gptq_session_info_get(c_.session.get(), &info), GPTQ_OK);
  EXPECT_EQ(info.struct_size, 16u);
  EXPECT_EQ(info.stop_reason, GPTQ_STOP_NONE);
  EXPECT_EQ(info.n_ctx, 0x55555555u);
  info.struct_size = 0;
  EXPECT_EQ(gptq_session_info_get(c_.session.get(), &info), GPTQ_E_STRUCT_VERSION);
  gptq_step_info step{};
  EXPECT_EQ(gptq_engine_step(c_.engine.get(), 1, &step), GPTQ_E_STRUCT_VERSION);
  gptq_model_info model{};
  EXPECT_EQ(gptq_model_info_get(c_.model.get(), &model), GPTQ_E_STRUCT_VERSION);
  gptq_memory_info memory{};
  EXPECT_EQ(gptq_engine_memory(c_.engine.get(), &memory), GPTQ_E_STRUCT_VERSION);
}

TEST_F(Misuse, UnknownFlagsAndExtensions) {
  auto desc = with_threads(1);
  desc.flags = 1;
  EXPECT_EQ(create(desc), GPTQ_E_INVALID_ARGUMENT);
  const gptq_ext ext{1, sizeof(gptq_ext), nullptr};
  desc = with_threads(1), desc.next = &ext;
  EXPECT_EQ(create(desc), GPTQ_E_UNSUPPORTED);
  desc = with_threads(257);
  EXPECT_EQ(create(desc), GPTQ_E_INVALID_ARGUMENT);
  desc = Host().desc(), desc.free = nullptr;
  EXPECT_EQ(create(desc), GPTQ_E_INVALID_ARGUMENT);

  c_.session.append(some_tokens(2));
  EXPECT_EQ(start(generation(1, 1u << 30)), GPTQ_E_INVALID_ARGUMENT);
  auto sampling = make<gptq_sampling>();
  sampling.flags = 1;
  EXPECT_EQ(start(sampling), GPTQ_E_INVALID_ARGUMENT);
  for (float gptq_sampling::*field :
       {&gptq_sampling::temperature, &gptq_sampling::top_p, &gptq_sampling::min_p, &gptq_sampling::repeat_penalty})
    for (const float value : {-1.0f, NAN, INFINITY, 1e9f}) {
      sampling = make<gptq_sampling>();
      sampling.*field = value;
      EXPECT_EQ(start(sampling), GPTQ_E_INVALID_ARGUMENT) << value;
    }
  for (float gptq_sampling::*field :
       {&gptq_sampling::frequency_penalty, &gptq_sampling::presence_penalty, &gptq_sampling::dry_multiplier, &gptq_sampling::dry_base,
        &gptq_sampling::top_n_sigma, &gptq_sampling::typical_p, &gptq_sampling::temperature_range, &gptq_sampling::temperature_exponent,
        &gptq_sampling::xtc_probability, &gptq_sampling::xtc_threshold, &gptq_sampling::mirostat_tau, &gptq_sampling::mirostat_eta})
    for (const float value : {NAN, INFINITY, -1001.0f, 1001.0f}) {
      sampling = make<gptq_sampling>();
      sampling.*field = value;
      EXPECT_EQ(start(sampling), GPTQ_E_INVALID_ARGUMENT) << value;
    }
  for (const gptq_logit_bias& bias : {gptq_logit_bias{-1, 1}, {1 << 30, 1}, {0, NAN}, {0, 1001}}) {
    sampling = make<gptq_sampling>(), sampling.bias = &bias, sampling.n_bias = 1;
    EXPECT_EQ(start(sampling), GPTQ_E_INVALID_ARGUMENT) << bias.token << " " << bias.bias;
  }
  const std::vector<gptq_logit_bias> twice(2), many(257);
  for (const auto* list : {&twice, &many}) {
    sampling = make<gptq_sampling>(), sampling.bias = list->data(), sampling.n_bias = list->size();
    EXPECT_EQ(start(sampling), GPTQ_E_INVALID_ARGUMENT) << list->size();
  }
  for (const gptq_string& breakers : {gptq_string{"\n\"\xc3\xa9", 4}, gptq_string{"a\0", 2}, gptq_string{"0123456789abcdefg", 17}}) {
    sampling = make<gptq_sampling>(), sampling.dry_breakers = breakers;
    EXPECT_EQ(start(sampling), GPTQ_E_INVALID_ARGUMENT) << breakers.size;
  }
  sampling = make<gptq_sampling>(), sampling.n_bias = 1;
  EXPECT_EQ(start(sampling), GPTQ_E_INVALID_ARGUMENT);
  sampling = make<gptq_sampling>(), sampling.top_k = -1;
  EXPECT_EQ(start(sampling), GPTQ_E_INVALID_ARGUMENT);
  size_t n = 0;
  EXPECT_EQ(gptq_tokenize(c_.model.get(), "x", 1, 64, nullptr, 0, &n), GPTQ_E_INVALID_ARGUMENT);
  auto chat = make<gptq_chat>();
  chat.flags = 4;
  EXPECT_EQ(gptq_chat_render(c_.model.get(), &chat, nullptr, 0, &n, nullptr), GPTQ_E_INVALID_ARGUMENT);
  EXPECT_EQ(c_.session.info().state, GPTQ_SESSION_IDLE);
}

TEST_F(Misuse, EngineParameters) {
  const auto with = [](auto field, auto value) {
    auto params = make<gptq_engine_params>();
    params.*field = value;
    return params;
  };
  using P = gptq_engine_params;
  for (const P& p : {with(&P::flags, 4u), with(&P::flags, uint32_t(GPTQ_ENGINE_EXACT | GPTQ_ENGINE_BF16)), with(&P::max_sessions, 5000u),
                     with(&P::ctx_tokens, UINT32_MAX), with(&P::page_tokens, 17u), with(&P::page_tokens, 512u), with(&P::batch_tokens, UINT32_MAX), with(&P::logits_rows, UINT32_MAX),
                     with(&P::kv_type, 4), with(&P::kv_type, -1), with(&P::kv_bytes, uint64_t(1))})
    EXPECT_EQ(create(p), GPTQ_E_INVALID_ARGUMENT);
  auto huge = make<P>();
  huge.ctx_tokens = 1u << 24, huge.max_sessions = 4096;
  EXPECT_LT(create(huge), 0);
  EXPECT_EQ(create(with(&P::page_tokens, 16u)), GPTQ_OK);
}

TEST_F(Misuse, TokensOutOfRange) {
  gptq_session* s = c_.session.get();
  for (const gptq_token bad : {-1, 512, INT32_MIN, INT32_MAX}) {
    const gptq_token tokens[] = {5, bad};
    EXPECT_EQ(gptq_session_append_tokens(s, tokens, 2, nullptr), GPTQ_E_INVALID_ARGUMENT);
    const char* bytes = nullptr;
    size_t n = 0;
    EXPECT_EQ(gptq_token_bytes(c_.model.get(), bad, &bytes, &n, nullptr), GPTQ_E_INVALID_ARGUMENT);
    EXPECT_EQ(gptq_detokenize(c_.model.get(), tokens, 2, 0, nullptr, 0, &n), GPTQ_E_INVALID_ARGUMENT);
  }
  EXPECT_EQ(c_.session.info().n_tokens, 0u);
}

TEST_F(Misuse, BuffersTooSmall) {
  size_t n = 0;
  gptq_token token = -5;
  EXPECT_EQ(gptq_tokenize(c_.model.get(), "the sea", 7, 0, &token, 1, &n), GPTQ_E_BUFFER_TOO_SMALL);
  EXPECT_GT(n, 1u);
  EXPECT_EQ(token, -5);
  char buffer[4] = "xyz";
  EXPECT_EQ(gptq_model_meta(c_.model.get(), "chat_template", GPTQ_NTS, buffer, 4, &n), GPTQ_E_BUFFER_TOO_SMALL);
  EXPECT_EQ(gptq_model_meta(c_.model.get(), "no such key", GPTQ_NTS, buffer, 4, &n), GPTQ_E_NOT_FOUND);
  const Tokens tokens = some_tokens(3);
  c_.session.append(tokens);
  EXPECT_EQ(gptq_session_tokens(c_.session.get(), &token, 1, &n), GPTQ_E_BUFFER_TOO_SMALL);
  EXPECT_EQ(n, 3u);
  EXPECT_STREQ(buffer, "xyz");
}

TEST_F(Misuse, StopStrings) {
  c_.session.append(some_tokens(2));
  const std::string longer(257, 'x');
  for (const gptq_string& bad :
       {gptq_string{"", 0}, gptq_string{nullptr, 0}, gptq_string{nullptr, 4}, gptq_string{longer.data(), longer.size()}}) {
    auto params = generation(1);
    params.stop = &bad, params.n_stop = 1;
    EXPECT_EQ(start(params), GPTQ_E_INVALID_ARGUMENT);
  }
  const std::vector<gptq_string> many(17, gptq_string{"x", 1});
  auto params = generation(1);
  params.stop = many.data(), params.n_stop = many.size();
  EXPECT_EQ(start(params), GPTQ_E_INVALID_ARGUMENT);
  params.stop = nullptr;
  EXPECT_EQ(start(params), GPTQ_E_INVALID_ARGUMENT);
}

TEST_F(Misuse, WithoutTokenizer) {
  Chain tiny(tiny_model());
  size_t n = 0;
  EXPECT_EQ(gptq_tokenize(tiny.model.get(), "x", 1, 0, nullptr, 0, &n), GPTQ_E_TEXT);
  EXPECT_EQ(gptq_session_append_text(tiny.session.get(), "x", 1, 0, nullptr, nullptr), GPTQ_E_TEXT);
  auto chat = make<gptq_chat>();
  EXPECT_EQ(gptq_chat_render(tiny.model.get(), &chat, nullptr, 0, &n, nullptr), GPTQ_E_TEMPLATE);
  EXPECT_EQ(greedy(tiny.engine, tiny.session, {4, 5}, 5).size(), 5u);
  EXPECT_EQ(tiny.session.read(), "");
}

}  // namespace
}  // namespace gptq::test
