// SPDX-License-Identifier: Apache-2.0
// Embeddings: transformers' hidden states pooled, the same whatever they are computed beside.
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "converter/convert.h"
#include "converter/json.h"
#include "tests/api/fixture.h"
#include "tests/api/lora_fixture.h"

namespace gptq::test {
namespace {

using Vector = std::vector<float>;

struct Reference {
  std::string text;
  Tokens ids;
  Vector last, mean;
};

// A body of Qwen 3 with the files of sentence-transformers, and what transformers computes from it in float32 (tests/golden/make_embedding.py).
std::string folder() {
  const char* golden = std::getenv("GPTQ_GOLDEN");
  return std::string(golden ? golden : "tests/golden") + "/embedding";
}

std::vector<Reference> references() {
  const convert::JsonDocument document("reference_embeddings.json", "{\"texts\":" + convert::read_text(folder() + "/reference_embeddings.json", 1 << 20) + "}");
  std::vector<Reference> out;
  const simdjson::dom::array texts = document.root().array("texts").value();
  for (const auto item : texts) {
    Reference& r = out.emplace_back();
    r.text = std::string(std::string_view(item["text"]));
    for (const int64_t id : item["ids"].get_array()) r.ids.push_back(static_cast<gptq_token>(id));
    for (const double v : item["last"].get_array()) r.last.push_back(static_cast<float>(v));
    for (const double v : item["mean"].get_array()) r.mean.push_back(static_cast<float>(v));
  }
  return out;
}

gptq_engine_params params(uint32_t max_sessions, uint32_t flags = GPTQ_ENGINE_EXACT, uint32_t batch_tokens = 64) {
  auto params = engine_of(flags, max_sessions);
  params.ctx_tokens = 256;
  params.batch_tokens = batch_tokens;
  return params;
}

double length(const Vector& v) {
  double sum = 0;
  for (const float x : v) sum += double{x} * x;
  return std::sqrt(sum);
}
double cosine(const Vector& a, const Vector& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += double{a[i]} * b[i];
  return sum / (length(a) * length(b));
}

gptq_generate_params pooled(int32_t pooling) {
  auto how = generation(0, GPTQ_GEN_PREFILL_ONLY);
  how.pooling = pooling;
  return how;
}
Vector embed(const Engine& engine, Session& session, const Tokens& ids, int32_t pooling, uint32_t budget_us = GPTQ_BUDGET_UNLIMITED) {
  session.append(ids);
  session.start(pooled(pooling));
  finish(engine, budget_us);
  return session.embedding();
}

TEST(Embedding, IsThatOfTransformers) {
  const auto all = references();
  ASSERT_EQ(all.size(), 5u);
  std::vector<std::string> texts;
  for (const Reference& r : all) texts.push_back(r.text);
  Runtime runtime(with_threads(2));
  const Model model(runtime, converted(folder()));
  const Engine engine(model, params(3));
  const auto last = engine.embed(texts, GPTQ_POOL_LAST), mean = engine.embed(texts, GPTQ_POOL_MEAN);
  for (size_t i = 0; i < all.size(); ++i) {
    size_t n = 0;
    Tokens ids(all[i].ids.size());
    check(gptq_tokenize(model.get(), texts[i].data(), texts[i].size(), GPTQ_TEXT_ADD_BOS, ids.data(), ids.size(), &n));
    EXPECT_EQ(ids, all[i].ids);
    EXPECT_GE(cosine(last[i], all[i].last), 0.99999) << texts[i];
    EXPECT_GE(cosine(mean[i], all[i].mean), 0.99999) << texts[i];
    EXPECT_NEAR(length(last[i]) / length(all[i].last), 1, 1e-4);
    EXPECT_NEAR(length(mean[i]) / length(all[i].mean), 1, 1e-4);
  }
}

TEST(Embedding, IsAsTheModelsFilesSay) {
  const Model model(Runtime(), converted(folder()));
  EXPECT_EQ(model.info().pooling, GPTQ_POOL_LAST);
  EXPECT_EQ(model.info().pooling_flags, uint32_t{GPTQ_EMBED_NORMALIZE});
  const Engine engine(model, params(2));
  EXPECT_EQ(engine.embed({"one", "two"}), engine.embed({"one", "two"}, GPTQ_POOL_LAST, GPTQ_EMBED_NORMALIZE));
  EXPECT_NEAR(length(engine.embed({"one"})[0]), 1, 1e-6);
  const Model other(Runtime(), text_model());
  EXPECT_EQ(other.info().pooling, GPTQ_POOL_NONE);
  const Engine plain(other, params(2));
  EXPECT_EQ(plain.embed({"one"}), plain.embed({"one"}, GPTQ_POOL_LAST, GPTQ_EMBED_NORMALIZE));
}

// Whatever the batches were, and beside sessions that generate, which do not notice.
TEST(Embedding, HasTheSameBitsInAnyCompany) {
  for (const int32_t pooling : {GPTQ_POOL_LAST, GPTQ_POOL_MEAN}) {
    const Tokens ids = some_tokens(100), prompt = some_tokens(20, 2);
    Chain alone(text_model(), params(1, 0));
    const Vector should = embed(alone.engine, alone.session, ids, pooling);
    Chain other(text_model(), params(1, 0));
    const Tokens tokens = greedy(other.engine, other.session, prompt, 40);
    for (const uint32_t batch_tokens : {16u, 64u})
      for (const uint32_t budget_us : {50u, GPTQ_BUDGET_UNLIMITED}) {
        Chain c(text_model(), params(3, 0, batch_tokens), with_threads(2));
        Session generating(c.engine), beside(c.engine);
        generating.append(prompt);
        generating.start(generation(40));
        beside.append(some_tokens(70, 3));
        beside.start(pooled(GPTQ_POOL_MEAN));
        EXPECT_EQ(embed(c.engine, c.session, ids, pooling, budget_us), should) << batch_tokens << " " << budget_us;
        Tokens got(40);
        size_t n = 0;
        check(gptq_session_read_tokens(generating.get(), got.data(), got.size(), &n));
        EXPECT_EQ(got, tokens);
      }
  }
}

TEST(Embedding, OfOneTokenIsTheSameByBothPoolings) {
  Chain c(text_model(), params(2, 0));
  Session other(c.engine);
  EXPECT_EQ(embed(c.engine, c.session, {5}, GPTQ_POOL_LAST), embed(c.engine, other, {5}, GPTQ_POOL_MEAN));
}

// Tokens computed before, by the same session or another, do not change it.
TEST(Embedding, CountsTokensThatWereThereBefore) {
  Tokens ids = some_tokens(150);
  for (const int32_t pooling : {GPTQ_POOL_LAST, GPTQ_POOL_MEAN}) {
    Chain alone(text_model(), params(1, 0));
    const Vector should = embed(alone.engine, alone.session, ids, pooling);
    Chain c(text_model(), params(2, 0));
    c.session.append(Tokens(ids.begin(), ids.begin() + 130));
    c.session.start(pooled(GPTQ_POOL_NONE));
    finish(c.engine);
    EXPECT_EQ(embed(c.engine, c.session, Tokens(ids.begin() + 130, ids.end()), pooling), should);
    c.session.start(pooled(pooling));  // once more, with nothing new
    finish(c.engine);
    EXPECT_EQ(c.session.embedding(), should);
    Session sharing(c.engine);
    EXPECT_EQ(embed(c.engine, sharing, ids, pooling), should);
  }
}

TEST(Embedding, GoesOnInAForkAndBeginsAnewWithAnAdapter) {
  const Lora lora(text_model(), {.size = 3});
  const Tokens ids = some_tokens(120);
  for (const int32_t pooling : {GPTQ_POOL_LAST, GPTQ_POOL_MEAN}) {
    Chain c(text_model(), params(3, 0, 16));
    const Adapter adapter(c.model, lora.path());
    Chain alone(text_model(), params(2, 0));
    const Adapter other(alone.model, lora.path());
    const Vector plain = embed(alone.engine, alone.session, ids, pooling);
    Session adapted(alone.engine);
    adapted.set_adapter(&other);
    const Vector changed = embed(alone.engine, adapted, ids, pooling);
    EXPECT_LT(cosine(plain, changed), 0.9999);
    c.session.append(ids);
    c.session.start(pooled(pooling));
    while (c.session.info().n_pending > 60) check(gptq_engine_step(c.engine.get(), 1, nullptr));
    Session fork = c.session.fork();
    fork.set_adapter(&adapter);
    finish(c.engine);
    EXPECT_EQ(c.session.embedding(), plain);
    EXPECT_EQ(fork.embedding(), changed);
    Session later = c.session.fork();
    EXPECT_EQ(later.embedding(), plain);
  }
}

TEST(Embedding, RefusesWhatItCannotDo) {
  Chain c(text_model(), params(2, 0));
  float v[64];
  size_t n = 0;
  auto error = make<gptq_error>();
  EXPECT_EQ(gptq_session_embedding(c.session.get(), 0, v, 64, &n), GPTQ_E_INVALID_STATE);
  c.session.append(some_tokens(40));
  for (auto how : {pooled(3), pooled(-1), generation(4, 0), generation(0, GPTQ_GEN_PREFILL_ONLY | GPTQ_GEN_LOGITS)}) {
    if (!how.pooling) how.pooling = GPTQ_POOL_LAST;
    EXPECT_EQ(gptq_session_start(c.session.get(), &how, &error), GPTQ_E_INVALID_ARGUMENT);
  }
  c.session.start(pooled(GPTQ_POOL_MEAN));
  EXPECT_EQ(gptq_session_embedding(c.session.get(), 0, v, 64, &n), GPTQ_E_INVALID_STATE);
  EXPECT_EQ(gptq_session_save(c.session.get(), GPTQ_SAVE_REPLAY, nullptr, 0, &n, &error), GPTQ_E_INVALID_STATE);
  check(gptq_session_cancel(c.session.get()));
  finish(c.engine);
  EXPECT_EQ(gptq_session_embedding(c.session.get(), 0, v, 64, &n), GPTQ_E_INVALID_STATE);
  c.session.start(pooled(GPTQ_POOL_MEAN));
  finish(c.engine);
  EXPECT_EQ(gptq_session_embedding(c.session.get(), 0, nullptr, 0, &n), GPTQ_E_BUFFER_TOO_SMALL);
  EXPECT_EQ(n, size_t{c.model.info().n_embd});
  EXPECT_EQ(gptq_session_embedding(c.session.get(), 2, v, 64, &n), GPTQ_E_INVALID_ARGUMENT);
  EXPECT_FALSE(c.session.save(GPTQ_SAVE_REPLAY).empty());
  check(gptq_session_truncate(c.session.get(), 10));
  EXPECT_EQ(gptq_session_embedding(c.session.get(), 0, v, 64, &n), GPTQ_E_INVALID_STATE);
  const Model qwen(Runtime(), tiny_model());
  const Engine full(qwen, params(1));
  const Session taken(full);
  const gptq_string text{"a", 1};
  std::vector<float> out(qwen.info().n_embd);
  EXPECT_EQ(gptq_embed(full.get(), &text, 1, 0, 0, out.data(), &error), GPTQ_E_INVALID_STATE);
  EXPECT_NE(std::strstr(error.message, "max_sessions"), nullptr) << error.message;
}

TEST(Embedding, EndsWithAnErrorWhereTheModelGivesNoNumbers) {
  Chain c(sick_model(), params(1, 0));
  c.session.append({3, 4, sick_token, 5});
  c.session.start(pooled(GPTQ_POOL_MEAN));
  finish(c.engine);
  EXPECT_EQ(c.session.info().stop_reason, GPTQ_STOP_ERROR);
  EXPECT_EQ(c.session.info().status, GPTQ_E_NUMERIC);
}

TEST(Embedding, AllocatesNothingInASession) {
  Host host;
  Chain c(text_model(), params(2, 0), host.desc(2));
  c.session.append(some_tokens(100));
  const uint64_t host_before = host.calls, heap_before = heap_calls();
  const auto how = pooled(GPTQ_POOL_MEAN);
  check(gptq_session_start(c.session.get(), &how, nullptr));
  while (gptq_engine_step(c.engine.get(), 200, nullptr) == GPTQ_MORE) continue;
  const uint64_t heap_after = heap_calls();
  EXPECT_EQ(host.calls, host_before);
  EXPECT_EQ(heap_after, heap_before);
  EXPECT_EQ(c.session.info().stop_reason, GPTQ_STOP_PREFILLED);
}

}  // namespace
}  // namespace gptq::test
