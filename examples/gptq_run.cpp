// SPDX-License-Identifier: Apache-2.0
// gptq-run: continue a prompt, or hold a conversation at the terminal.
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <iostream>
#include <span>

#include "hub_model.h"
#include "output_file.h"
#include "tool.h"

namespace {

using namespace gptq;

struct Options : tool::EngineOptions {
  std::optional<std::string> prompt, ids, system, save, restore;
  uint32_t max_tokens = 0;
  gptq_sampling sampling = make<gptq_sampling>();
  std::optional<std::string> dry_breakers;
  std::vector<std::string> stop, score;
  tool::RuleOptions rules;
  std::optional<Constraint> constraint;  // made of them
  std::vector<std::string> ban_phrases;
  std::optional<Constraint> banned;      // made of these
  std::optional<tool::ChosenAdapter> adapter;
  bool speculates() const { return !speculate.empty() || prediction; }
  bool drafts() const { return !speculate.empty() && speculate != "lookup"; }
  bool ignore_eos = false, print_ids = false, chat = false, show_marks = false, hide_thinking = false;
  std::string speculate;                 // lookup, a draft model's file, or ""
  std::optional<Model> draft;            // made of that
  std::optional<std::string> prediction; // a file
  bool own_sampling = false;             // --temp is given
  bool starts_anew = false;              // options are given that a restored generation has of its own
};

// Of a generation, which has them from its start on.
constexpr const char* sampling_options[] = {"--temp", "--top-k", "--top-p", "--min-p", "--repeat-penalty", "--frequency-penalty", "--presence-penalty", "--dry-multiplier", "--dry-base",
                                            "--dry-allowed-length", "--dry-penalty-last-n", "--dry-breakers", "--top-nsigma", "--typical", "--dynatemp-range", "--dynatemp-exp",
                                            "--xtc-probability", "--xtc-threshold", "--mirostat-ent", "--mirostat-lr", "--seed"};
constexpr const char* rule_options[] = {"--choice", "--regex", "--json-schema", "--json-compact", "--grammar", "--tools"};
constexpr const char* text_options[] = {"--stop", "--ban-phrase", "--ignore-eos", "--show-marks", "--hide-thinking"};
// Calls f with the name of each that is given.
template <class F>
void for_given(const CLI::App& app, F&& f) {
  for (const auto& names : {std::span<const char* const>(sampling_options), std::span<const char* const>(rule_options), std::span<const char* const>(text_options)})
    for (const char* name : names)
      if (app.count(name)) f(name);
}

void add_options(CLI::App& app, Options& o) {
  o.add_to(app);
  o.add_lora_to(app);
  app.get_option("MODEL")->description("a .gptq file, or OWNER/NAME[@REVISION] of the Hugging Face hub");
  auto* prompt = app.add_option("-p,--prompt", o.prompt, "text to continue (special tokens in it count)");
  auto* ids = app.add_option("--ids", o.ids, "token ids to continue, as 1,2,3; nothing is added")->excludes(prompt);
  auto* chat = app.add_flag("--chat", o.chat, "a conversation: one line a turn, the model's own chat template; ends with the input")->excludes(ids);
  app.add_option("--save", o.save, "save where it stands at the end, or when Ctrl-C ends it, with its KV cache, in this file")->excludes(chat);
  app.add_option("--restore", o.restore, "go on where --save stopped, with its sampling and constraint unless others are given; -p or --ids come behind that")->excludes(chat);
  app.add_option("--system", o.system, "system message of a conversation")->needs(chat);
  app.add_option("-n,--tokens", o.max_tokens, "most tokens to generate, in each turn of a conversation; 0 = any number, until the end token (default)");
  app.add_option("--temp", o.sampling.temperature, "temperature; 0 = greedy (default 0; in a conversation the model's own)");
  app.add_option("--top-k", o.sampling.top_k, "sample from the k best tokens");
  app.add_option("--top-p", o.sampling.top_p, "sample from the best tokens that hold this probability together");
  app.add_option("--min-p", o.sampling.min_p, "leave out tokens below this fraction of the best one's probability");
  app.add_option("--repeat-penalty", o.sampling.repeat_penalty, "divide the logits of tokens seen before");
  app.add_option("--frequency-penalty", o.sampling.frequency_penalty, "taken off a token's logit for each time it came");
  app.add_option("--presence-penalty", o.sampling.presence_penalty, "taken off the logits of tokens that came");
  app.add_option("--dry-multiplier", o.sampling.dry_multiplier, "DRY: what longer repeats lose, times base^length (0 = off)");
  app.add_option("--dry-base", o.sampling.dry_base, "DRY: base (default 1.75)");
  app.add_option("--dry-allowed-length", o.sampling.dry_allowed_length, "DRY: repeats from this length (default 2)");
  app.add_option("--dry-penalty-last-n", o.sampling.dry_window, "DRY: last tokens it looks at (default all)");
  app.add_option("--dry-breakers", o.dry_breakers, "DRY: no repeat goes over a token with one of these (default newline : \" *)");
  app.add_option("--top-nsigma", o.sampling.top_n_sigma, "sample within so many standard deviations of the best logit");
  app.add_option("--typical", o.sampling.typical_p, "sample from the tokens nearest the entropy that hold this probability");
  app.add_option("--dynatemp-range", o.sampling.temperature_range, "temperature by the entropy, within this of --temp");
  app.add_option("--dynatemp-exp", o.sampling.temperature_exponent, "its exponent (default 1)");
  app.add_option("--xtc-probability", o.sampling.xtc_probability, "how often the likeliest tokens go but the last of them");
  app.add_option("--xtc-threshold", o.sampling.xtc_threshold, "how likely those are (default 0.1)");
  app.add_option("--mirostat-ent", o.sampling.mirostat_tau, "mirostat 2: surprise to hold, in bits");
  app.add_option("--mirostat-lr", o.sampling.mirostat_eta, "mirostat 2: rate of learning (default 0.1)");
  app.add_option("--seed", o.sampling.seed, "of the sampler (default 0: the same text every time)");
  app.add_option("--stop", o.stop, "end at this text; may be given several times");
  app.add_option("--ban-phrase", o.ban_phrases, "never say this, in large or small letters; may be given several times");
  app.add_option("--score", o.score, "instead of generating, how likely this text is behind the prompt; may be given several times")->excludes(chat);
  app.add_option("--speculate", o.speculate, "the same text, sooner. lookup: where it repeats itself or the prompt; DRAFT.gptq: a smaller model with the same tokens guesses too")
      ->type_name("lookup|DRAFT.gptq");
  app.add_option("--prediction", o.prediction, "a file that the text is likely to have parts of: guesses come from it too");
  tool::add_to(app, o.rules);
  auto* ignore_eos = app.add_flag("--ignore-eos", o.ignore_eos, "go on after the end token");
  for (const char* rule : rule_options) ignore_eos->excludes(app.get_option(rule));
  auto* print_ids = app.add_flag("--print-ids", o.print_ids, "print the generated ids alone, separated by commas");
  app.add_flag("--show-marks", o.show_marks, "say what is thinking, answer and tool call, by the model's chat template")->excludes(print_ids);
  app.add_flag("--hide-thinking", o.hide_thinking, "print answer and tool calls alone")->excludes(print_ids);
}

gptq_generate_params generate_params(const Options& o, const std::vector<gptq_string>& stops) {
  auto params = make<gptq_generate_params>();
  params.sampling = &o.sampling;
  params.max_tokens = o.max_tokens;
  params.flags = (o.ignore_eos ? GPTQ_GEN_IGNORE_EOS : 0) | (o.speculates() ? GPTQ_GEN_SPECULATE : 0) |
                 (o.show_marks || o.hide_thinking ? GPTQ_GEN_MARKED : 0);
  params.stop = stops.data();
  params.n_stop = stops.size();
  params.constraint = o.constraint ? o.constraint->get() : nullptr;
  params.banned = o.banned ? o.banned->get() : nullptr;
  return params;
}

void write(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

void report(const gptq_session_info& info, size_t n_prompt, double load_s) {
  const double decode_s = static_cast<double>(info.decode_us) / 1e6, prefill_s = static_cast<double>(info.prefill_us) / 1e6;
  std::fprintf(stderr, "load %.3f s, first token %.3f s after it, prompt %zu tokens %.1f tokens/s, generated %u tokens %.1f tokens/s\n", load_s,
               static_cast<double>(info.first_token_us) / 1e6, n_prompt, prefill_s > 0 ? static_cast<double>(n_prompt) / prefill_s : 0.0, info.n_generated,
               decode_s > 0 ? (info.n_generated - 1) / decode_s : 0.0);
  if (info.n_guessed) std::fprintf(stderr, "speculation: %u of %u guesses right\n", info.n_guessed_right, info.n_guessed);
}

// Where the text of a generation goes as it comes.
class Output {
 public:
  Output(Session& session, const Options& o) : session_(session), o_(o) {}
  void add(std::string_view text) {
    all.append(text);
    if (o_.show_marks || o_.hide_thinking) print_marked();
    else if (!o_.print_ids) print(text);
  }
  // After the last text.
  void finish() {
    if (o_.show_marks || o_.hide_thinking) print_marked();
  }
  void end_line() {
    if (!at_line_) print("\n");
  }
  std::string all;

 private:
  void print(std::string_view text) {
    if (text.empty()) return;
    write(std::string(text));
    at_line_ = text.back() == '\n';
  }
  void print_marked() {
    for (const Marked& piece : session_.read_marked()) {
      if (piece.kind == GPTQ_MARK_THINKING && o_.hide_thinking) continue;
      const bool call = piece.kind == GPTQ_MARK_TOOL_CALL;
      if (call || piece.kind != last_) {
        if (last_) end_line();
        if (call) print("[tool call " + std::to_string(piece.call) + "] " + piece.name + " ");
        else if (o_.show_marks) print(piece.kind == GPTQ_MARK_THINKING ? "[thinking] " : "[answer] ");
      }
      print(piece.text);
      last_ = piece.kind;
    }
  }
  Session& session_;
  const Options& o_;
  int32_t last_ = 0;
  bool at_line_ = true;
};

volatile std::sig_atomic_t interrupted = 0;

// From now on the first Ctrl-C only says so, and the next one ends the program.
void watch_for_interrupt() {
  for (const int signal : {SIGINT, SIGTERM}) std::signal(signal, [](int which) {
    interrupted = 1;
    std::signal(which, SIG_DFL);
  });
}

bool runs(const Session& session) { return session.info().state == GPTQ_SESSION_RUNNING; }

void cancel(Engine& engine, Session& session) {
  if (!runs(session)) return;
  session.cancel();
  while (runs(session)) engine.step(1);
}

// A start with the input computed already, so that small steps do the rest; returns how long that took.
uint64_t start(Engine& engine, Session& session, gptq_generate_params params) {
  uint64_t input_us = 0;
  params.max_tokens = 0;
  if (session.info().n_pending > 1) {
    auto input = make<gptq_generate_params>();
    input.flags = GPTQ_GEN_PREFILL_ONLY;
    session.start(input);
    while (runs(session) && !interrupted) engine.step(100'000);
    cancel(engine, session);
    input_us = session.info().prefill_us;
  }
  session.start(params);
  return input_us;
}

// Until the generation ends, n_tokens more are there (0: any number) or the user interrupts it. It still runs in the last two, so that a save has its
// sampler and constraint as they stand.
void work(Engine& engine, Session& session, uint32_t n_tokens, Output& output) {
  const int64_t before = session.info().n_generated;
  for (bool goes_on = true; goes_on;) {
    const gptq_session_info info = session.info();
    output.add(session.read());
    if (info.status != GPTQ_OK) throw Error(info.status, std::string("generation ended early: ") + gptq_status_name(info.status));
    goes_on = info.state == GPTQ_SESSION_RUNNING && !interrupted && (!n_tokens || info.n_generated - before < n_tokens);
    if (goes_on) engine.step(1);
  }
}

struct Generated {
  std::string text;
  uint64_t input_us = 0;  // beside what the session's own figures say
};

// Generates after what the session holds, or goes on with what it generates, text going out as it comes, to the end of a line if it is asked for; returns
// the text as it was generated.
Generated stream(Engine& engine, Session& session, const Options& o, const gptq_generate_params& params, bool end_line) {
  Output output(session, o);
  uint64_t input_us = 0;
  if (runs(session) || (o.save && !o.speculates())) {
    if (!runs(session)) input_us = start(engine, session, params);
    work(engine, session, params.max_tokens, output);
  } else {
    session.generate("", params, [](void* user, const char* text, size_t size) -> int32_t {
      static_cast<Output*>(user)->add({text, size});
      return interrupted;
    }, &output);
  }
  output.finish();
  if (o.print_ids)
    for (const char* comma = ""; const gptq_token id : session.read_tokens()) {
      write(comma + std::to_string(id));
      comma = ",";
    }
  if (end_line && !o.print_ids) output.end_line();
  else write("\n");
  return {std::move(output.all), input_us};
}

void append_text(Session& session, const std::string& text) {
  try {
    session.append(text, GPTQ_TEXT_ADD_BOS | GPTQ_TEXT_PARSE_SPECIAL);
  } catch (const Error& error) {
    if (error.status != GPTQ_E_TEXT) throw;
    throw Error(error.status, std::string(error.what()) + ": --ids takes token ids");
  }
}

void save(const Session& session, const std::string& path) {
  tool::OutputFile file(path);
  try {
    session.save(GPTQ_SAVE_FULL, [&](const char* bytes, size_t size) { return file.write(bytes, size); });
  } catch (const Error&) {
    if (!file.failed()) throw;
  }
  file.commit();
}

// Where --restore or nothing is; a generation that was saved in its middle goes on if nothing else is asked for.
Session open_session(Engine& engine, const Options& o) {
  if (!o.restore) return Session(engine);
  bool exact = true;
  Session session = Session::restore(engine, *o.restore, &exact);
  if (!exact) std::fprintf(stderr, "restored for other kernels or settings than it was saved with: its tokens are computed again, and last digits may differ\n");
  if (o.prompt || o.ids || !o.score.empty() || o.starts_anew) cancel(engine, session);
  return session;
}

void score(Session& session, const Options& o) {
  const std::vector<double> sums = session.score(o.score);
  for (size_t i = 0; i < sums.size(); ++i) std::printf("%10.4f  %s\n", sums[i], o.score[i].c_str());
}

// What guesses for the session's generations.
void set_up_guesses(Engine& engine, Session& session, const Options& o) {
  if (o.draft) engine.set_draft(&*o.draft);
  if (o.prediction) session.set_prediction(tool::read_file(*o.prediction));
}

void complete(const Model& model, const Options& o, const std::vector<gptq_string>& stops, double load_s) {
  auto params = o.engine();
  if (!o.score.empty()) params.max_sessions = 1 + static_cast<uint32_t>(std::min<size_t>(o.score.size(), 8));
  Engine engine(model, params);
  Session session = open_session(engine, o);
  o.adapter->attach(session);
  set_up_guesses(engine, session, o);
  const gptq_session_info before = session.info();
  const bool goes_on = runs(session);
  if (goes_on && o.speculates()) std::fprintf(stderr, "what was saved in its middle goes on without guesses\n");
  if (o.ids) session.append(tool::parse_ids(*o.ids));
  if (o.prompt) append_text(session, *o.prompt);
  if (!o.score.empty()) {
    score(session, o);
    if (o.save) save(session, *o.save);
    return;
  }
  const size_t n_prompt = goes_on ? 0 : session.info().n_tokens - (before.n_tokens - before.n_pending);
  if (o.save) watch_for_interrupt();
  const Generated generated = stream(engine, session, o, generate_params(o, stops), o.show_marks || o.hide_thinking);
  if (o.save) {
    session.read_tokens();  // those are printed, or were not asked for
    save(session, *o.save);
  }
  gptq_session_info made = session.info();
  if (goes_on) made.n_generated -= std::min(made.n_generated, before.n_generated), made.decode_us -= before.decode_us, made.prefill_us -= before.prefill_us;
  made.prefill_us += generated.input_us;
  made.first_token_us += generated.input_us;
  report(made, n_prompt, load_s);
  if (interrupted) throw Error(GPTQ_E_CANCELLED, "interrupted; '" + *o.save + "' has what is done, and --restore goes on from there");
}

// Of the clock on the wall, which templates ask for by strftime_now.
long long local_seconds() {
  const std::time_t now = std::time(nullptr);
#if defined(_WIN32)
  std::tm local = *std::localtime(&now);
  return static_cast<long long>(_mkgmtime(&local));
#else
  std::tm local{};
  localtime_r(&now, &local);
  return static_cast<long long>(now) + local.tm_gmtoff;
#endif
}

struct Turn {
  std::string role, text;
};

void set_chat(Session& session, const std::vector<Turn>& turns, uint32_t reserve_tokens) {
  std::vector<gptq_message> messages;
  std::vector<const gptq_message*> pointers;
  for (const Turn& turn : turns) {
    auto message = make<gptq_message>();
    message.role = turn.role.c_str();
    message.role_size = turn.role.size();
    message.text = turn.text.c_str();
    message.text_size = turn.text.size();
    messages.push_back(message);
  }
  for (const gptq_message& message : messages) pointers.push_back(&message);
  const std::string variables = "{\"now\": " + std::to_string(local_seconds()) + "}";
  auto chat = make<gptq_chat>();
  chat.kwargs_json = variables.c_str();
  chat.kwargs_json_size = variables.size();
  chat.flags = GPTQ_CHAT_ADD_GENERATION_PROMPT | GPTQ_CHAT_DROP_OLDEST;
  chat.reserve_tokens = reserve_tokens;
  chat.messages = pointers.data();
  chat.n_messages = pointers.size();
  session.set_chat(chat);
}

void converse(const Model& model, Options& o, const std::vector<gptq_string>& stops, double load_s) {
  Engine engine(model, o.engine());
  Session session(engine);
  o.adapter->attach(session);
  set_up_guesses(engine, session, o);
  std::vector<Turn> turns;
  if (o.system) turns.push_back({"system", *o.system});
  std::string line;
  for (bool given = o.prompt.has_value();; given = false) {
    if (given) {
      line = *o.prompt;
    } else {
      std::fputs("> ", stderr);
      if (!std::getline(std::cin, line)) break;
    }
    if (line.empty()) continue;
    turns.push_back({"user", line});
    const uint32_t before = session.info().n_tokens - session.info().n_pending, dropped = session.info().n_dropped;
    const uint32_t ctx = session.info().n_ctx;
    try {
      set_chat(session, turns, o.max_tokens < ctx / 2 ? o.max_tokens : 0);
    } catch (const Error& error) {  // the conversation goes on without this line
      if (given || (error.status != GPTQ_E_INVALID_ARGUMENT && error.status != GPTQ_E_CONTEXT_FULL)) throw;
      std::fprintf(stderr, "%s\n", error.what());
      turns.pop_back();
      continue;
    }
    if (session.info().n_dropped > dropped) std::fprintf(stderr, "(the context is full: the oldest %u messages are left out)\n", session.info().n_dropped);
    turns.push_back({"assistant", stream(engine, session, o, generate_params(o, stops), true).text});
    const gptq_session_info info = session.info();
    report(info, info.n_tokens - info.n_generated - std::min(before, info.n_tokens - info.n_generated), load_s);
    if (o.prompt && !isatty(0) && std::cin.peek() == EOF) break;
  }
}

// Options that nothing would come of.
void refuse_idle_options(const CLI::App& app, const Options& o) {
  const auto refuse_with_score = [](const std::string& name) { throw Error(GPTQ_E_INVALID_ARGUMENT, name + " is for text that is generated, and --score generates none"); };
  if (!o.score.empty()) {
    for_given(app, refuse_with_score);
    for (const char* name : {"--tokens", "--print-ids", "--speculate", "--prediction"})
      if (app.count(name)) refuse_with_score(name);
  }
  if (o.sampling.temperature > 0 || (o.chat && !o.own_sampling)) return;
  for (const char* name : {"--mirostat-ent", "--mirostat-lr", "--dynatemp-range", "--dynatemp-exp"})
    if (app.count(name)) throw Error(GPTQ_E_INVALID_ARGUMENT, std::string(name) + " counts at a temperature above 0 alone: give --temp");
}

void run(Options& o) {
  if (!o.prompt && !o.ids && !o.chat && !o.restore) throw Error(GPTQ_E_INVALID_ARGUMENT, "give a prompt with -p, token ids with --ids, or --chat");
  if (o.chat && !o.own_sampling) o.sampling.flags = GPTQ_SAMPLE_MODEL_DEFAULTS;
  if (o.save) tool::OutputFile(*o.save);  // a path that does not do is told before the work
  std::vector<gptq_string> stops;
  if (o.dry_breakers) o.sampling.dry_breakers = {o.dry_breakers->data(), o.dry_breakers->size()};
  for (const std::string& stop : o.stop) stops.push_back({stop.data(), stop.size()});
  o.model = tool::model_path(o.model);
  const auto begin = std::chrono::steady_clock::now();
  const Runtime runtime(o.runtime());
  const Model model(runtime, o.model, o.placement(runtime, o.model));
  o.tell_where(model);
  o.adapter.emplace(model, o);
  if (o.drafts()) {
    const std::string path = tool::model_path(o.speculate);
    o.draft.emplace(runtime, path, o.placement(runtime, path));
  }
  const double load_s = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  if (const auto [kind, source] = o.rules.source(); kind) o.constraint.emplace(model, kind, source);
  if (!o.ban_phrases.empty()) o.banned.emplace(model, GPTQ_CONSTRAINT_BANNED, tool::as_json(o.ban_phrases));
  o.chat ? converse(model, o, stops, load_s) : complete(model, o, stops, load_s);
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app("Generates text with a .gptq model. Text goes to stdout, figures to stderr.", "gptq-run");
  add_options(app, options);
  return tool::run(app, argc, argv, [&] {
    options.own_sampling = app.count("--temp") > 0;
    for_given(app, [&](const char*) { options.starts_anew = true; });
    refuse_idle_options(app, options);
    run(options);
  });
}
