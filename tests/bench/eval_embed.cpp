// SPDX-License-Identifier: Apache-2.0
// gptq-eval embed: texts as vectors, and which are nearest to another.
#include <chrono>
#include <numeric>

#include "eval.h"

namespace gptq::eval {
namespace {

void print(const std::vector<float>& vector) {
  std::printf("{\"embedding\": [");
  for (size_t i = 0; i < vector.size(); ++i) std::printf("%s%.9g", i ? ", " : "", static_cast<double>(vector[i]));
  std::printf("]}\n");
}

double cosine(const std::vector<float>& a, const std::vector<float>& b) {
  const auto dot = [](const auto& x, const auto& y) { return std::inner_product(x.begin(), x.end(), y.begin(), 0.0); };
  return dot(a, b) / std::sqrt(std::max(dot(a, a) * dot(b, b), 1e-60));
}

void print_nearest(const std::vector<std::string>& texts, const std::vector<std::vector<float>>& vectors, const std::vector<float>& query) {
  std::vector<double> cosines;
  for (const auto& v : vectors) cosines.push_back(cosine(v, query));
  std::vector<size_t> order(texts.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return cosines[a] > cosines[b]; });
  for (const size_t i : order) std::printf("%7.4f  %s\n", cosines[i], texts[i].c_str());
}

}  // namespace

void embed(const Options& o) {
  auto texts = texts_of(o.text);
  const Runtime runtime(o.runtime());
  const Model model(runtime, o.model, o.placement(runtime, o.model));
  auto params = o.engine();
  params.ctx_tokens = std::min(o.window, model.info().n_ctx_train);
  params.max_sessions = 8;
  const Engine engine(model, params);
  const bool asks = !o.query.empty();
  if (asks) texts.push_back(o.query);
  size_t n_tokens = 0;
  for (const std::string& text : texts) n_tokens += model.tokenize(text, GPTQ_TEXT_ADD_BOS).size();
  const auto begin = std::chrono::steady_clock::now();
  auto vectors = engine.embed(texts, o.pooling, o.pooling ? GPTQ_EMBED_NORMALIZE : 0);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  std::fprintf(stderr, "%zu texts, %zu tokens, %.0f tokens/s\n", texts.size(), n_tokens, static_cast<double>(n_tokens) / seconds);
  if (asks) {
    const auto query = vectors.back();
    texts.pop_back();
    vectors.pop_back();
    return print_nearest(texts, vectors, query);
  }
  for (const auto& vector : vectors) print(vector);
}

}  // namespace gptq::eval
