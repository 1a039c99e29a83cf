// SPDX-License-Identifier: Apache-2.0
// gptq-eval: logits, perplexity, divergence from a reference, where errors arise, token ids.
#include <iostream>
#include <iterator>

#include "eval.h"
#include "inside.h"
#include "output_file.h"
#include "tool.h"

namespace {

using namespace gptq;
using namespace gptq::eval;

void write_logits(const Options& o) {
  const auto ids = tool::parse_ids(o.ids);
  const Runtime runtime(o.runtime());
  const Model model(runtime, o.model, o.placement(runtime, o.model));
  LogitStream stream(model, o, static_cast<uint32_t>(ids.size()));
  tool::OutputFile file(o.output);
  stream.start(ids);
  for (auto row = stream.row(); !row.empty() && !file.failed(); row = stream.row()) file.write(reinterpret_cast<const char*>(row.data()), row.size_bytes());
  file.commit();
}

void perplexity(const Options& o) {
  const Runtime runtime(o.runtime());
  const Model model(runtime, o.model, o.placement(runtime, o.model));
  const auto windows = windows_of(model, o);
  LogitStream stream(model, o, static_cast<uint32_t>(windows[0].size()));
  Likelihood likelihood;
  for (size_t w = 0; w < windows.size(); ++w) {
    stream.start(windows[w]);
    const size_t first = w && o.stride ? windows[w].size() - o.stride : 1;  // what no window before has counted
    for (size_t position = 1; position < windows[w].size(); ++position) {
      const std::span<const float> row = stream.row();
      if (position >= first) likelihood.add(Row(row), windows[w][position]);
    }
    show_progress(w + 1, windows.size(), "perplexity", likelihood.perplexity());
  }
  std::printf(o.json ? "{\"perplexity\": %.6f, \"nll\": %.8f, \"tokens\": %zu, \"windows\": %zu, \"ctx\": %zu}\n"
                     : "perplexity %.4f (nll %.5f over %zu tokens, %zu windows of %zu)\n",
              likelihood.perplexity(), likelihood.mean(), likelihood.n, windows.size(), windows[0].size());
}

void divergence(const Options& o) {
  const Runtime runtime(o.runtime());
  const Model model(runtime, o.model, o.placement(runtime, o.model)), reference(runtime, o.reference);
  if (model.info().n_vocab != reference.info().n_vocab) throw Error(GPTQ_E_INVALID_ARGUMENT, "the two models have different vocabularies");
  const auto windows = windows_of(model, o);
  const auto ctx = static_cast<uint32_t>(windows[0].size());
  Options exact = o;
  exact.lora.clear();
  exact.exact = true;
  exact.kv = GPTQ_KV_F32;
  LogitStream ours(model, o, ctx), theirs(reference, exact, ctx);
  Divergence result;
  for (size_t w = 0; w < windows.size(); ++w) {
    ours.start(windows[w]);
    theirs.start(windows[w]);
    // As in perplexity, what follows the window's last token is not counted.
    for (size_t position = 1; position < ctx; ++position) result.add(Row(ours.row()), Row(theirs.row()));
    show_progress(w + 1, windows.size(), "KL", result.mean());
  }
  std::printf(o.json ? "{\"kl_mean\": %.8f, \"kl_max\": %.6f, \"top1\": %.6f, \"tokens\": %zu}\n"
                     : "KL mean %.6f nats, max %.4f; top-1 agreement %.4f over %zu tokens\n",
              result.mean(), result.most, result.top1(), result.n);
}

void tokenize(const Options& o) {
  const Runtime runtime(o.runtime());
  const Model model(runtime, o.model, o.placement(runtime, o.model));
  const std::string text{std::istreambuf_iterator<char>(std::cin), {}};
  std::string line;
  for (gptq_token id : model.tokenize(text, (o.special ? GPTQ_TEXT_PARSE_SPECIAL : 0) | (o.special || o.bos ? GPTQ_TEXT_ADD_BOS : 0)))
    line += (line.empty() ? "" : " ") + std::to_string(id);
  std::printf("%s\n", line.c_str());
}

void add_window_options(CLI::App& app, Options& o) {
  app.add_option("--ctx", o.window, "tokens of a window")->capture_default_str();
  app.add_option("--windows", o.windows, "the first N windows only (default: all)")->check(tool::above_0());
  o.add_tuning_to(app, false);
}

// MODEL, or MODEL and REFERENCE; then TEXT.
void add_comparison(CLI::App& app, Options& o, bool with_reference) {
  app.add_option("MODEL", o.model, "a .gptq file")->required();
  if (with_reference) app.add_option("REFERENCE", o.reference, "a .gptq file of the same model, run in exact mode")->required();
  app.add_option("TEXT", o.text, "a text file in UTF-8")->required();
  app.add_flag("--json", o.json, "print JSON");
  add_window_options(app, o);
}

}  // namespace

int main(int argc, char** argv) {
  Options o;
  CLI::App app("Measures what a .gptq model computes.", "gptq-eval");
  app.footer("Texts are cut into windows that do not overlap (but see perplexity --stride); every token but a window's first counts.\n"
             "Examples:\n  gptq-eval perplexity model.gptq wiki.test.raw --windows 16\n"
             "  gptq-eval table model-fp16.gptq model-q8.gptq model-q4.gptq wiki.test.raw --windows 4");
  app.require_subcommand(1);
  CLI::App& logits = *app.add_subcommand("logits", "write float32 [T][vocab], the logits after each id");
  o.add_to(logits, false);
  o.add_lora_to(logits);
  logits.add_option("--ids", o.ids, "token ids, as 1,2,3")->required();
  logits.add_option("-o,--output", o.output, "the file to write")->required();
  CLI::App& ppl = *app.add_subcommand("perplexity", "how well MODEL foretells TEXT");
  add_comparison(ppl, o, false);
  o.add_lora_to(ppl);
  ppl.add_option("--stride", o.stride, "from one window to the next, where only what is new counts (default: --ctx, no overlap)")->check(tool::above_0());
  CLI::App& kl =
      *app.add_subcommand("kl", "Kullback-Leibler divergence of MODEL from REFERENCE, and how often both put the same token first");
  add_comparison(kl, o, true);
  o.add_lora_to(kl);
  CLI::App& by_layer = *app.add_subcommand(
      "layers",
      "after each layer: how far MODEL's residual stream is from REFERENCE's, and how far the layer's own output is where its input "
      "is REFERENCE's; relative, mean over tokens, the first token of a window (often the attention sink) apart");
  add_comparison(by_layer, o, true);
  CLI::App& files = *app.add_subcommand(
      "table",
      "size, perplexity, divergence and top-1 agreement of several files of one model, as a Markdown table; all are held in memory");
  files.add_option("REFERENCE FILE... TEXT", o.files, "the file to compare with, the files to compare, and a text")
      ->required()
      ->expected(3, -1)
      ->type_name("");
  files.add_option("--plot", o.plot, "also draw divergence against size, as an SVG file");
  add_window_options(files, o);
  CLI::App& rules = *app.add_subcommand("constraint", "which texts a constraint accepts as a whole, else the byte it refused, and what its masks cost");
  rules.add_option("MODEL", o.model, "a .gptq file")->required();
  CLI::Option& texts = *rules.add_option("--texts", o.text, "a file of lines {\"text\": ...}");
  rules.add_flag("--json", o.json, "print JSON");
  tool::add_to(rules, o.rules);
  rules.add_option("--schemas", o.schemas, "instead of both: a file of lines {\"schema\": \"...\", \"texts\": [...]}, each of which is answered by a line of JSON")
      ->excludes(&texts);
  o.add_tuning_to(rules, false);
  CLI::App& vectors = *app.add_subcommand("embed", "a vector for each text, a JSON line each; or, with --query, which texts are nearest");
  vectors.add_option("MODEL", o.model, "a .gptq file")->required();
  vectors.add_option("--texts", o.text, "a file of lines {\"text\": ...}")->required();
  vectors.add_option("--query", o.query, "print the texts and their cosine with this one, the nearest first");
  vectors.add_option("--pooling", o.pooling, "of the last token, or the mean over all (default: as the model's files say, else last)")
      ->type_name("last|mean")
      ->transform(tool::one_of({{"last", GPTQ_POOL_LAST}, {"mean", GPTQ_POOL_MEAN}}));
  vectors.add_option("--ctx", o.window, "most tokens of a text")->capture_default_str();
  o.add_tuning_to(vectors, false);
  CLI::App& ids = *app.add_subcommand("tokenize", "token ids of the text on stdin, one line");
  o.add_to(ids, false);
  ids.add_flag("--special", o.special, "special tokens in the text count, and BOS and EOS are added as the model's tokenizer does");
  ids.add_flag("--bos", o.bos, "with the beginning-of-text token, where the model's tokenizer adds one");
  return tool::run(app, argc, argv, [&] {
    inside([&] {
      if (logits.parsed()) write_logits(o);
      if (ppl.parsed()) perplexity(o);
      if (kl.parsed()) divergence(o);
      if (by_layer.parsed()) layers(o);
      if (files.parsed()) table(o);
      if (rules.parsed()) constraint(o);
      if (vectors.parsed()) embed(o);
      if (ids.parsed()) tokenize(o);
    });
  });
}
