// SPDX-License-Identifier: Apache-2.0
// gptq-eval constraint: which texts a constraint accepts as a whole, and what its masks cost. Works below the C API, which samples.
#include <cmath>
#include <memory>
#include <numeric>
#include <span>

#include "api/handles.h"
#include "eval.h"
#include "inside.h"
#include "tests/thread_time.h"
#include "text/jinja/strings.h"
#include "text/json.h"

namespace gptq::eval {
namespace {

struct Verdict {
  bool accepted;
  size_t at;  // the byte that was refused, or how many there are
};

class Judge {
 public:
  Judge(const Model& model, const Constraint& constraint)
      : model_(model), tokenizer_(*model.get()->tokenizer), rules_(*constraint.get()->rules), scratch_(rules_.mask_words()) {}
  std::vector<double> mask_us;
  uint64_t masks = 0;  // a hash of all

  Verdict judge(const std::string& text) {
    state_ = rules_.start();
    size_t at = 0;
    for (const gptq_token token : model_.tokenize(text)) {
      std::string_view bytes = tokenizer_.token_bytes(token);
      const bool loses_space = at == 0 && tokenizer_.strips_leading_space() && !text.starts_with(' ');
      if (loses_space && bytes.starts_with(' ')) bytes.remove_prefix(1);
      const bool may = allowed({text.data(), at}, loses_space, token);
      if (text.substr(at, bytes.size()) != bytes) throw Error(GPTQ_E_UNSUPPORTED, "the model's tokenizer changes the text");
      for (const size_t end = at + bytes.size(); at < end; ++at) {
        const auto before = state_;
        state_ = rules_.step(state_, {text.data() + at, 1});
        if (state_ == rules_.lost) lead({text.data(), at + 1});
        if (state_ != rules_.dead) continue;
        if (may) throw Error(GPTQ_E_INVALID_STATE, "the mask allows a token that the constraint refuses, at byte " + std::to_string(at));
        state_ = before;
        return {false, at};
      }
      if (!may && !bytes.empty()) throw Error(GPTQ_E_INVALID_STATE, "the mask refuses a token that the constraint accepts, at byte " + std::to_string(at));
    }
    allowed(text, false, 0);
    return {rules_.accepts(state_), at};
  }

 private:
  // From the start again: the constraint has forgotten its states.
  void lead(std::string_view text) {
    state_ = rules_.step(rules_.start(), text);
    if (state_ == rules_.lost) throw Error(GPTQ_E_BUDGET_EXCEEDED, "the constraint has more states than place for them");
  }
  bool allowed(std::string_view before, bool loses_space, gptq_token token) {
    for (int attempt = 0; attempt < 2; ++attempt) {
      const double begin = test::thread_us();
      if (rules_.mask(state_, loses_space, scratch_)) {
        mask_us.push_back(test::thread_us() - begin);
        for (const uint32_t word : scratch_) masks = (masks ^ word) * 0xD6E8FEB86659FD93u, masks ^= masks >> 32;
        return scratch_[static_cast<size_t>(token) / 32] >> (token % 32) & 1;
      }
      lead(before);
    }
    throw Error(GPTQ_E_BUDGET_EXCEEDED, "the constraint has more states than place for them");
  }
  const Model& model_;
  const text::Tokenizer& tokenizer_;
  const text::constraint::Constraint& rules_;
  std::vector<uint32_t> scratch_;
  text::constraint::Constraint::State state_ = 0;
};

struct Report {
  std::vector<Verdict> verdicts;
  std::vector<double> us;  // of each mask, sorted
  double first_us = 0, compile_us = 0;
  uint64_t masks = 0;

  double mean() const { return us.empty() ? 0 : std::accumulate(us.begin(), us.end(), 0.0) / static_cast<double>(us.size()); }
  double part(double p) const {
    return us.empty() ? 0 : us[std::min(us.size() - 1, static_cast<size_t>(std::ceil(p * static_cast<double>(us.size()))) - 1)];
  }
  void print_json() const {
    std::printf("{\"results\": [");
    for (size_t i = 0; i < verdicts.size(); ++i)
      std::printf("%s{\"accepted\": %s, \"at\": %zu}", i ? ", " : "", verdicts[i].accepted ? "true" : "false", verdicts[i].at);
    std::printf("], \"mask_us\": {\"mean\": %.2f, \"p50\": %.2f, \"p99\": %.2f, \"max\": %.2f}, \"first_us\": %.2f, \"compile_us\": %.2f, \"masks\": \"%016llx\"}\n",
                mean(), part(0.5), part(0.99), part(1), first_us, compile_us, static_cast<unsigned long long>(masks));
  }
};

Report judge(const Model& model, int32_t kind, const std::string& source, const std::vector<std::string>& texts) {
  Report report;
  report.verdicts.resize(texts.size(), Verdict{false, 0});
  const double begin = test::thread_us();
  std::unique_ptr<Constraint> constraint;
  try {
    constraint = std::make_unique<Constraint>(model, kind, source);
  } catch (const Error& error) {  // one that no text fulfils is refused, which is an answer here
    if (std::string_view(error.what()).find("no text is allowed") == std::string_view::npos) throw;
  }
  report.compile_us = test::thread_us() - begin;
  if (!constraint) return report;
  Judge judge(model, *constraint);
  std::transform(texts.begin(), texts.end(), report.verdicts.begin(), [&](const std::string& text) { return judge.judge(text); });
  report.us = std::move(judge.mask_us);
  report.masks = judge.masks;
  if (!report.us.empty()) report.first_us = report.us[0];
  std::sort(report.us.begin(), report.us.end());
  return report;
}

using text::jinja::Heap;
using text::jinja::Kind;
using text::jinja::Value;

// Every line that is not blank, as JSON. need(key, is_right): the value of a key, which must be there and right.
template <class Use>
void for_lines(const std::string& path, Use use) {
  const std::string file = tool::read_file(path);
  std::string_view rest = file;
  if (rest.starts_with("\xEF\xBB\xBF")) rest.remove_prefix(3);
  for (size_t number = 1; !rest.empty(); ++number) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(line.size() + 1, rest.size()));
    if (line.find_first_not_of(" \t\r") == line.npos) continue;
    const std::string place = path + ":" + std::to_string(number);
    Heap heap(std::pmr::get_default_resource());
    const Value value = inside([&] { return text::read_json(heap, line, place); });
    use(heap, [&](const char* key, auto is_right) -> const Value& {
      const Value* found = value.is(Kind::dict) ? value.dict->find(heap, key) : nullptr;
      if (!found || !is_right(*found)) throw Error(GPTQ_E_FORMAT, place + ": there is no \"" + key + "\" of the right kind");
      return *found;
    });
  }
}
bool is_string(const Value& v) { return v.is(Kind::string); }
bool are_strings(const Value& v) {
  return v.is_array() && std::ranges::all_of(std::span(v.array->items, v.array->size), is_string);
}

// A line of JSON for each line; an error is an answer too.
void judge_schemas(const Model& model, const std::string& path) {
  for_lines(path, [&](Heap& heap, auto need) {
    const Value &schema = need("schema", is_string), &texts = need("texts", are_strings);
    std::vector<std::string> judged;
    for (const Value& text : std::span(texts.array->items, texts.array->size)) judged.emplace_back(text.view());
    try {
      judge(model, GPTQ_CONSTRAINT_JSON_SCHEMA, std::string(schema.view()), judged).print_json();
    } catch (const Error& error) {
      const Value quoted = text::write_json(heap, make_string(heap, error.what(), false), {});
      std::printf("{\"error\": %.*s}\n", static_cast<int>(quoted.view().size()), quoted.view().data());
    }
    std::fflush(stdout);
  });
}

}  // namespace

std::vector<std::string> texts_of(const std::string& path) {
  std::vector<std::string> texts;
  for_lines(path, [&](Heap&, auto need) { texts.emplace_back(need("text", is_string).view()); });
  return texts;
}

void constraint(const Options& o) {
  const auto [kind, source] = o.rules.source();
  if (!kind == o.schemas.empty()) throw Error(GPTQ_E_INVALID_ARGUMENT, "give --choice, --regex, --json-schema, --json-compact, --grammar, --tools or --schemas");
  if (kind && o.text.empty()) throw Error(GPTQ_E_INVALID_ARGUMENT, "give --texts");
  const auto texts = kind ? texts_of(o.text) : std::vector<std::string>();
  const Runtime runtime(o.runtime());
  const Model model(runtime, o.model, o.placement(runtime, o.model));
  { const Constraint first(model, GPTQ_CONSTRAINT_REGEX, "a"); }  // the table of the model's tokens is made once
  if (!kind) return judge_schemas(model, o.schemas);
  const Report report = judge(model, kind, source, texts);
  if (o.json) return report.print_json();
  for (size_t i = 0; i < report.verdicts.size(); ++i)
    std::printf("%zu: %s at byte %zu\n", i + 1, report.verdicts[i].accepted ? "accepted" : "refused", report.verdicts[i].at);
  std::printf("%zu masks: mean %.1f us, p50 %.1f, p99 %.1f, max %.1f; first %.1f us; compiled in %.1f us\n", report.us.size(), report.mean(), report.part(0.5),
              report.part(0.99), report.part(1), report.first_us, report.compile_us);
}

}  // namespace gptq::eval
