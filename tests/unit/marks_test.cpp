// SPDX-License-Identifier: Apache-2.0
// Answer, thinking and tool calls in a text: of every real template the format is found, a conversation in it is read back, cut anywhere; and
// what only looks like a call stays text.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <span>
#include <string>
#include <vector>

#include "base/failure.h"
#include "text/argument_writer.h"
#include "text/chat_template.h"
#include "text/mark_reader.h"

namespace gptq::test {
namespace {

using text::Calls;
using text::MarkFormat;
using text::MarkReader;
using text::Thinking;

// Text in which special tokens stand between \1 and \2, read as the engine does: what comes out, a line for each kind that follows another.
class Reading {
 public:
  explicit Reading(const MarkFormat& format, bool before = false) : format_(format) { reader_.start(format, before); }
  void feed(std::string_view text) {
    for (const char c : text) {
      if (c == '\1') {
        in_special_ = true;
      } else if (c == '\2') {
        in_special_ = false;
        take_waiting();
        reader_.feed_special(special_);
        special_.clear();
      } else if (in_special_) {
        special_ += c;
      } else {
        take_waiting();
        text_ += c;
        reader_.feed(c);
      }
    }
  }
  void take_all() {
    while (reader_.waits() || reader_.known().size()) take();
  }
  void begin_here() {
    take_all();
    reader_.begin_here();
    told.clear();
    last_.clear();
  }
  std::string end() {
    take_all();
    reader_.end();
    take_all();
    return told;
  }
  std::string told;

 private:
  void take_waiting() {
    while (reader_.waits()) take();
  }
  void take() {
    if (const auto known = reader_.known(); known.size()) {
      const std::string kind = reader_.kind() == MarkReader::Kind::answer ? "answer" : "thinking";
      if (kind != last_) told += "\n" + kind + ": ";
      last_ = kind;
      told += tell(known);
      reader_.take_text(known.size());
    } else if (const MarkReader::Call* call = reader_.call()) {
      told += "\ncall " + std::to_string(reader_.n_calls()) + " " + call->name + (call->id[0] ? std::string("#") + call->id : "") + ": ";
      told += !call->arguments.size() ? "{}" : has_elements(format_.calls) ? write(call->arguments) : tell(call->arguments);
      last_.clear();
      reader_.take_call();
    }
  }
  std::string tell(MarkReader::Range range) {
    EXPECT_GE(range.begin, told_to_);
    told_to_ = range.end;
    return text_.substr(range.begin, range.size());
  }
  // Some bytes at a time.
  std::string write(MarkReader::Range range) {
    std::string all;
    text::ArgumentWriter writer;
    writer.start(format_, range.begin, range.end);
    for (size_t room = 4; !writer.done(); room = room * 5 % 23 + 4) {
      char out[32];
      const size_t n = writer.write([&](uint64_t place) { return text_.at(place); }, std::span(out).first(room));
      all.append(out, n);
    }
    return all;
  }
  const MarkFormat format_;
  MarkReader reader_;
  std::string text_, special_, last_;
  bool in_special_ = false;
  uint64_t told_to_ = 0;
};

std::string read(const MarkFormat& format, std::string_view text) {
  Reading reading(format);
  reading.feed(text);
  return reading.end();
}
// Whatever was read when: the same, and nothing is taken back.
void expect_cut_anywhere(const MarkFormat& format, std::string_view text, const std::string& expected) {
  EXPECT_EQ(read(format, text), expected) << text;
  for (size_t cut = 0; cut <= text.size(); ++cut) {
    Reading reading(format);
    reading.feed(text.substr(0, cut));
    reading.take_all();
    ASSERT_TRUE(expected.starts_with(reading.told)) << "cut at " << cut << ": " << reading.told;
    reading.feed(text.substr(cut));
    ASSERT_EQ(reading.end(), expected) << "cut at " << cut;
  }
  Reading each(format);
  for (const char c : text) {
    each.feed({&c, 1});
    each.take_all();
  }
  EXPECT_EQ(each.end(), expected);
}

constexpr MarkFormat qwen{Thinking::angle, Calls::tagged}, llama{Thinking::none, Calls::llama}, mistral{Thinking::bracket, Calls::mistral},
    deepseek{Thinking::angle, Calls::deepseek}, kimi{Thinking::angle, Calls::kimi}, apriel{Thinking::none, Calls::listed}, functionary{Thinking::none, Calls::function},
    coder{Thinking::angle, Calls::elements}, glm{Thinking::angle, Calls::pairs}, minicpm{Thinking::angle, Calls::params};

struct Row {
  MarkFormat format;
  const char *text, *expected;
};
const Row rows[] = {
    {qwen, "", ""},
    {qwen, " plain text\n\n", "\nanswer:  plain text\n\n"},
    {qwen, "<think>\nwell,  \n now\n</think>\n\nYes. \n", "\nthinking: well,  \n now\nanswer: Yes. \n"},
    {qwen, "<think>\n\n</think>\n\nYes.", "\nanswer: Yes."},
    {qwen, "\n<think>a</think><think>b</think>c", "\nthinking: ab\nanswer: c"},
    {qwen, "a <think>b</think>", "\nanswer: a <think>b</think>"},
    {qwen, "a \1<think>\2""b\1</think>\2 c", "\nanswer: a\nthinking: b\nanswer: c"},
    {qwen, "<think>no end <tool_call>{\"name\": \"a\", \"arguments\": {}}</tool_call>", "\nthinking: no end <tool_call>{\"name\": \"a\", \"arguments\": {}}</tool_call>"},
    {qwen, "I look.\n<tool_call>\n{\"name\": \"look\", \"arguments\": {\"at\": \"sea\"}}\n</tool_call>", "\nanswer: I look.\ncall 0 look: {\"at\": \"sea\"}"},
    {qwen, "<tool_call>{\"name\":\"a\",\"arguments\":{}}</tool_call>\n<tool_call>{\"arguments\":{\"x\":[1,{\"y\":\"}\\\"\"}]},\"name\":\"b\"}</tool_call>\n done",
     "\ncall 0 a: {}\ncall 1 b: {\"x\":[1,{\"y\":\"}\\\"\"}]}\nanswer: done"},
    {qwen, "<tool_call>{\"name\": \"a\"}</tool_call>", "\ncall 0 a: {}"},
    {qwen, "<tool_call>\n{\"name\": \"a\", \"arguments\": {}}", "\ncall 0 a: {}"},
    {qwen, "<tool_call>[{\"name\": \"a\", \"id\": \"x1\", \"arguments\": {}}, {\"name\": \"b\"}]</tool_call>.", "\ncall 0 a#x1: {}\ncall 1 b: {}\nanswer: ."},
    {qwen, "<tool_call>{\"name\": \"a\"}\n{\"name\": \"b\"}</tool_call>", "\ncall 0 a: {}\ncall 1 b: {}"},
    {qwen, "<tool_call>{\"name\": \"a\", \"arguments\": {}}}</tool_call>", "\ncall 0 a: {}\nanswer: }</tool_call>"},
    // No calls.
    {qwen, "<tool_call>\n{\"name\": \"a\", \"arguments\": {\"x\": 1}", "\nanswer: <tool_call>\n{\"name\": \"a\", \"arguments\": {\"x\": 1}"},
    {qwen, "so <tool_call>{\"name\": \"a\", \"arguments\": {\"x\": 01}}</tool_call>", "\nanswer: so <tool_call>{\"name\": \"a\", \"arguments\": {\"x\": 01}}</tool_call>"},
    {qwen, "<tool_call>{\"name\": 5, \"arguments\": {}}</tool_call>", "\nanswer: <tool_call>{\"name\": 5, \"arguments\": {}}</tool_call>"},
    {qwen, "<tool_call>{\"name\": \"\", \"arguments\": {}}</tool_call>", "\nanswer: <tool_call>{\"name\": \"\", \"arguments\": {}}</tool_call>"},
    {qwen, "<tool_call>{\"arguments\": {}}</tool_call>", "\nanswer: <tool_call>{\"arguments\": {}}</tool_call>"},
    {qwen, "<tool_call>{\"n\\u0061\\\"name\": \"a\", \"arguments\": {}}</tool_call>", "\nanswer: <tool_call>{\"n\\u0061\\\"name\": \"a\", \"arguments\": {}}</tool_call>"},
    {qwen, "<tool_call>{\"name\": \"a\", \"arguments\": \"x\"}</tool_call>", "\nanswer: <tool_call>{\"name\": \"a\", \"arguments\": \"x\"}</tool_call>"},
    {qwen, "<tool_call>{\"name\": \"a\", \"arguments\": {\"x\": \"line\nbreak\"}}</tool_call> <tool_call>{\"name\": \"b\"}</tool_call>",
     "\nanswer: <tool_call>{\"name\": \"a\", \"arguments\": {\"x\": \"line\nbreak\"}}</tool_call>\ncall 0 b: {}"},
    {qwen, "<tool_call><tool_call>{\"name\": \"b\"}", "\nanswer: <tool_call>\ncall 0 b: {}"},
    {qwen, "<tool_call>{\"name\": \1<|x|>\2\"b\"}", "\nanswer: <tool_call>{\"name\": \"b\"}"},
    {qwen, "<<tool_ <tool_callx> </think> <tool", "\nanswer: <<tool_ <tool_callx> </think> <tool"},
    {qwen, "\xF0\x9F\x98\x80<\xE2\x82\xAC", "\nanswer: \xF0\x9F\x98\x80<\xE2\x82\xAC"},
    // Llama: JSON is a call where it is the whole answer and nothing but a call.
    {llama, "{\"name\": \"f\", \"parameters\": {\"a\": \"b\"}}", "\ncall 0 f: {\"a\": \"b\"}"},
    {llama, "\n{\"type\": \"function\", \"name\": \"f\", \"parameters\": {}}; {\"name\": \"g\", \"parameters\": {\"a\": 1}}", "\ncall 0 f: {}\ncall 1 g: {\"a\": 1}"},
    {llama, "\1<|python_tag|>\2{\"name\": \"f\", \"parameters\": {}}\1<|eom_id|>\2", "\ncall 0 f: {}"},
    {llama, "<|python_tag|>{\"name\": \"f\", \"parameters\": {}}", "\ncall 0 f: {}"},
    {llama, "Sure. {\"name\": \"f\", \"parameters\": {}}", "\nanswer: Sure. {\"name\": \"f\", \"parameters\": {}}"},
    {llama, "{\"name\": \"Bob\", \"age\": 5}", "\nanswer: {\"name\": \"Bob\", \"age\": 5}"},
    {llama, "{\"name\": \"Bob\"}", "\nanswer: {\"name\": \"Bob\"}"},
    {llama, "{\"result\": 1} {\"name\": \"f\", \"parameters\": {}}", "\nanswer: {\"result\": 1} {\"name\": \"f\", \"parameters\": {}}"},
    {llama, "\1<|python_tag|>\2print(1)", "\nanswer: print(1)"},
    // Mistral
    {mistral, "\1[TOOL_CALLS]\2 [{\"name\": \"f\", \"arguments\": {\"a\": 1}, \"id\": \"abcdefghi\"}, {\"name\": \"g\", \"arguments\": {}}]", "\ncall 0 f#abcdefghi: {\"a\": 1}\ncall 1 g: {}"},
    {mistral, "Let me.\1[TOOL_CALLS]\2""f\1[ARGS]\2{\"a\": 1}\1[TOOL_CALLS]\2g\1[CALL_ID]\2""abc\1[ARGS]\2{}", "\nanswer: Let me.\ncall 0 f: {\"a\": 1}\ncall 1 g#abc: {}"},
    {mistral, "[TOOL_CALLS]f[ARGS]{\"a\": \"[ARGS]\"}", "\ncall 0 f: {\"a\": \"[ARGS]\"}"},
    {mistral, "\1[THINK]\2so\1[/THINK]\2 yes", "\nthinking: so\nanswer: yes"},
    {mistral, "\1[THINK]\2so\1[TOOL_CALLS]\2""f\1[ARGS]\2{}", "\nthinking: so\ncall 0 f: {}"},
    {mistral, "\1[THINK]\2so\1[TOOL_CALLS]\2""f and more", "\nthinking: sof and more"},
    {mistral, "\1[TOOL_CALLS]\2""f\1[ARGS]\2[1]", "\nanswer: f[1]"},
    {mistral, "[TOOL_CALLS] [{\"name\": \"f\", \"arguments\": {}}, {\"name\": g}]", "\ncall 0 f: {}\nanswer: , {\"name\": g}]"},
    // DeepSeek
    {deepseek, "I call.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{\"a\": \"```\"}\n```<｜tool▁call▁end｜>\n"
               "<｜tool▁call▁begin｜>function<｜tool▁sep｜>g\n```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
     "\nanswer: I call.\ncall 0 f: {\"a\": \"```\"}\ncall 1 g: {}"},
    {deepseek, "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"a\": 1}<｜tool▁call▁end｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
     "\ncall 0 f: {\"a\": 1}\ncall 1 function: {}"},
    {deepseek, "<｜tool▁calls▁begin｜>nothing", "\nanswer: <｜tool▁calls▁begin｜>nothing"},
    {deepseek, "<｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{\"a\": 1\n```<｜tool▁call▁end｜>", "\nanswer: <｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{\"a\": 1\n```<｜tool▁call▁end｜>"},
    // Kimi
    {kimi, "\1<|tool_calls_section_begin|>\2\1<|tool_call_begin|>\2""functions.f:0\1<|tool_call_argument_begin|>\2{\"a\": 1}\1<|tool_call_end|>\2\1<|tool_call_begin|>\2"
           "functions.g:1\1<|tool_call_argument_begin|>\2{}\1<|tool_call_end|>\2\1<|tool_calls_section_end|>\2",
     "\ncall 0 f#functions.f:0: {\"a\": 1}\ncall 1 g#functions.g:1: {}"},
    {functionary, "I do <function=f>{\"a\": \">\"}</function><function=g>{}</function>.", "\nanswer: I do\ncall 0 f: {\"a\": \">\"}\ncall 1 g: {}\nanswer: ."},
    {functionary, "<function=f>no</function>", "\nanswer: <function=f>no</function>"},
    // Elements
    {coder, "Now:\n<tool_call>\n<function=f>\n<parameter=a>\nx \"y\"\n\\z\t</b>\n</parameter>\n<parameter=b>\n12\n</parameter>\n<parameter=c>\n[1, {\"d\": null}]\n</parameter>\n</function>\n</tool_call>",
     "\nanswer: Now:\ncall 0 f: {\"a\": \"x \\\"y\\\"\\n\\\\z\\t</b>\", \"b\": 12, \"c\": [1, {\"d\": null}]}"},
    {coder, "<tool_call>\n<function=f>\n</function>\n</tool_call>\n<tool_call>\n<function=g>\n<parameter=a>\nTrue\n</parameter>\n<parameter=b>\n</parameter>\n<parameter=c>\n\"q\"\n</parameter></function></tool_call>.",
     "\ncall 0 f: {}\ncall 1 g: {\"a\": true, \"b\": \"\", \"c\": \"\\\"q\\\"\"}\nanswer: ."},
    {coder, "<function=f><parameter=a>012</parameter><parameter=b> 1e5 </parameter><parameter=c>\x03\xC3\xA9\xF0\x9F\x98\x80\xFF</parameter></function>",
     "\ncall 0 f: {\"a\": \"012\", \"b\":  1e5 , \"c\": \"\\u0003\xC3\xA9\xF0\x9F\x98\x80\xEF\xBF\xBD\"}"},
    {coder, "<tool_call>\n<function=f>\n<parameter=a>\nx", "\nanswer: <tool_call>\n<function=f>\n<parameter=a>\nx"},
    {coder, "<tool_call>\n<function=f>\nx</function></tool_call>", "\nanswer: <tool_call>\n<function=f>\nx</function></tool_call>"},
    {coder, "a <function= b", "\nanswer: a <function= b"},
    {glm, "\n<think>so</think>\nI look.\n<tool_call>f\n<arg_key>a</arg_key>\n<arg_value>x y</arg_value>\n<arg_key>b</arg_key>\n<arg_value>true</arg_value>\n</tool_call>",
     "\nthinking: so\nanswer: I look.\ncall 0 f: {\"a\": \"x y\", \"b\": true}"},
    {glm, "<tool_call>f</tool_call><tool_call>g\n</tool_call><tool_call>h<arg_key>\"</arg_key><arg_value></arg_value></tool_call>", "\ncall 0 f: {}\ncall 1 g: {}\ncall 2 h: {\"\\\"\": \"\"}"},
    {glm, "<tool_call>f\n<arg_key>a</arg_key><arg_key>b</arg_key></tool_call>", "\nanswer: <tool_call>f\n<arg_key>a</arg_key><arg_key>b</arg_key></tool_call>"},
    {minicpm, "<function name=\"f\"><param name=\"a\">5</param><param name=\"b\"><![CDATA[<1>]]></param></function>", "\ncall 0 f: {\"a\": 5, \"b\": \"<1>\"}"},
    {apriel, "Well <tool_calls>[{\"name\": \"f\", \"arguments\": {\"a\": 1}, \"id\": \"1\"}]</tool_calls>.", "\nanswer: Well\ncall 0 f#1: {\"a\": 1}\nanswer: ."},
};

TEST(Marks, AreReadCutAnywhere) {
  for (const Row& row : rows) expect_cut_anywhere(row.format, row.text, row.expected);
}

// Where nothing is a call, all of the text is told as it stands; and nothing is ever told twice.
TEST(Marks, NothingIsLost) {
  uint32_t seed = 1;
  const std::string_view parts[] = {"<tool_call>", "</tool_call>", "{\"name\": ", "\"a\"", ", \"arguments\": ", "{", "}", "[", "]", "\"", "\\", " ", "\n", "x", "[TOOL_CALLS]", "[ARGS]",
                                    "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "```json\n", "<", "\xC3\xA9", "1e5", ":", "<function=", ">", "<parameter=", "</parameter>", "</function>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>", "<function name=\""};
  int calls = 0;
  for (const MarkFormat format : {qwen, llama, mistral, deepseek, kimi, apriel, functionary, coder, glm, minicpm})
    for (int i = 0; i < 20000; ++i) {
      std::string text;
      for (int n = 0; n < 12; ++n) {
        seed = seed * 1664525u + 1013904223u;
        text += parts[(seed >> 8) % std::size(parts)];
      }
      const std::string found = read(format, text);
      if (found.find("\ncall ") == std::string::npos) ASSERT_EQ(found, "\nanswer: " + text);
      else ++calls;
    }
  EXPECT_GT(calls, 5);
}

// A turn that the template began: what was before is not told, but counts.
TEST(Marks, OfATurnThatWasBegun) {
  const auto behind = [](const MarkFormat& format, std::string_view before, std::string_view text) {
    Reading reading(format, true);
    reading.feed(before);
    reading.begin_here();
    reading.feed(text);
    return reading.end();
  };
  EXPECT_EQ(behind(deepseek, "<think>\n", "so\n</think>\n\nyes"), "\nthinking: so\nanswer: yes");
  EXPECT_EQ(behind(qwen, "assistant\n<think>\n\n</think>\n\n", "\nyes"), "\nanswer: yes");
  EXPECT_EQ(behind(deepseek, "</think>", "\n\nyes"), "\nanswer: yes");
  EXPECT_EQ(behind(qwen, "assistant\n", "<think>a</think>b"), "\nthinking: a\nanswer: b");
  EXPECT_EQ(behind(qwen, "assistant\n", " b"), "\nanswer:  b");
  EXPECT_EQ(behind(llama, "\n\n", "{\"name\": \"f\", \"parameters\": {}}"), "\ncall 0 f: {}");
  EXPECT_EQ(behind(llama, "\n\nSure: ", "{\"name\": \"f\", \"parameters\": {}}"), "\nanswer: {\"name\": \"f\", \"parameters\": {}}");
  EXPECT_EQ(behind(qwen, "assistant\n<tool_call>\n{\"name\": \"", "f\", \"arguments\": {\"a\": 1}}\n</tool_call>"), "\ncall 0 f: {\"a\": 1}");
  EXPECT_EQ(behind(qwen, "assistant\n<tool_call>\n{\"name\": \"", "f and more"), "\nanswer: f and more");
  EXPECT_EQ(behind(qwen, "<tool_call>{\"name\": \"f\"}</tool_call>\n<tool_call>{\"name\"", ": \"g\"}"), "\ncall 0 g: {}");
}

TEST(Marks, LongNamesAndDeepJsonAreNoCalls) {
  const auto call = [](size_t name, size_t depth) {
    std::string text = "<tool_call>{\"name\": \"" + std::string(name, 'n') + "\", \"arguments\": {\"a\": ";
    text += std::string(depth, '[') + std::string(depth, ']') + "}}";
    return read(qwen, text);
  };
  EXPECT_TRUE(call(127, 62).starts_with("\ncall 0 nnn"));
  EXPECT_TRUE(call(128, 62).starts_with("\nanswer: <tool_call>"));
  EXPECT_TRUE(call(127, 63).starts_with("\nanswer: <tool_call>"));
}

struct Known {
  const char* file;  // of the reference templates
  MarkFormat format;
  const char* problem = nullptr;
  enum { with_tools, without_tools, not_at_all, arguments_as_text } rendered = with_tools;  // where something else of it is outside the subset
};
const Known templates[] = {
    {"Apriel-1.6-15b-Thinker-fixed", {Thinking::none, Calls::listed}},
    {"ByteDance-Seed-OSS", {Thinking::seed, Calls::seed}},
    {"CohereForAI-c4ai-command-r-plus-tool_use", {}, "how it writes"},
    {"GLM-4.6", {Thinking::angle, Calls::pairs}},
    {"HuggingFaceTB-SmolLM3-3B", {Thinking::angle, Calls::none}},
    {"Kimi-K2-Thinking", {Thinking::angle, Calls::kimi}, nullptr, Known::not_at_all},
    {"LFM2.5-8B-A1B", {}, "how it writes"},
    {"MiMo-VL", {Thinking::none, Calls::tagged}},
    {"NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use", {Thinking::none, Calls::tagged}},
    {"NousResearch-Hermes-3-Llama-3.1-8B-tool_use", {Thinking::none, Calls::tagged}},
    {"Qwen-QwQ-32B", {Thinking::angle, Calls::tagged}},
    {"Qwen-Qwen2.5-7B-Instruct", {Thinking::none, Calls::tagged}},
    {"Qwen-Qwen3-0.6B", {Thinking::angle, Calls::tagged}},
    {"Qwen3.5-4B", {Thinking::angle, Calls::elements}},
    {"NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", {Thinking::angle, Calls::elements}},
    {"StepFun3.5-Flash", {Thinking::angle, Calls::elements}},
    {"meetkai-functionary-medium-v3.1", {Thinking::none, Calls::function}},
    {"openbmb-MiniCPM5-1B", {Thinking::angle, Calls::params}},
    {"poolside-Laguna-XS-2.1", {Thinking::angle, Calls::pairs}},
    {"tencent-Hy3", {}, "how it writes"},
    {"MiniMax-M3", {}, "how it writes"},
    {"GigaChat3-10B-A1.8B", {}, "how it writes"},
    {"deepseek-ai-DeepSeek-R1-Distill-Llama-8B", {Thinking::angle, Calls::deepseek}, nullptr, Known::arguments_as_text},
    {"deepseek-ai-DeepSeek-R1-Distill-Qwen-32B", {Thinking::angle, Calls::deepseek}},
    {"deepseek-ai-DeepSeek-V3.2", {}, "how it writes"},
    {"google-gemma-2-2b-it", {}, "neither"},
    {"google-gemma-4-31B-it", {}, "how it writes"},
    {"ibm-granite-granite-4.0", {Thinking::none, Calls::tagged}},
    {"llama-cpp-deepseek-r1", {Thinking::angle, Calls::deepseek}, nullptr, Known::without_tools},
    {"meta-llama-Llama-3.1-8B-Instruct", {Thinking::none, Calls::llama}},
    {"meta-llama-Llama-3.3-70B-Instruct", {Thinking::none, Calls::llama}},
    {"microsoft-Phi-3.5-mini-instruct", {}, "neither"},
    {"mistralai-Ministral-3-14B-Reasoning-2512", {Thinking::bracket, Calls::mistral}},
    {"moonshotai-Kimi-K2", {Thinking::none, Calls::kimi}},
    {"unsloth-mistral-Devstral-Small-2507", {Thinking::none, Calls::mistral}},
};

std::string template_of(const std::string& name) {
  const char* folder = std::getenv("GPTQ_TEST_DATA");
  std::ifstream file(std::string(folder ? folder : "") + "/templates/" + name + ".jinja");
  return {std::istreambuf_iterator<char>(file), {}};
}

std::string render(std::string_view source, const std::vector<text::ChatMessage>& messages, bool tools) {
  text::ChatInput input;
  input.messages = messages;
  if (tools) input.tools_json = R"j([{"type": "function", "function": {"name": "get_weather", "description": "?", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}])j";
  input.kwargs_json = R"j({"enable_thinking": true})j";
  input.bos_token = "<s>";
  input.eos_token = "</s>";
  std::string text;
  try {
    for (const text::ChatPiece& piece : text::render_chat(source, input, std::pmr::new_delete_resource())) text += piece.text;
  } catch (const base::Failure& failure) {
    ADD_FAILURE() << failure.detail.message;
  }
  return text;
}

// What the template writes for an assistant's call is what the model writes: read back it is that call.
TEST(Marks, OfRealTemplates) {
  if (template_of("Qwen-Qwen3-0.6B").empty()) GTEST_SKIP() << "needs GPTQ_TEST_DATA";
  for (const Known& known : templates) {
    SCOPED_TRACE(known.file);
    const std::string source = template_of(known.file);
    ASSERT_FALSE(source.empty()) << known.file;
    const text::FoundFormat found = text::find_marks(source);
    if (known.problem) {
      EXPECT_NE(std::string_view(found.problem ? found.problem : "").find(known.problem), std::string_view::npos) << known.file;
      continue;
    }
    EXPECT_EQ(found.problem, nullptr) << known.file << ": " << found.problem;
    EXPECT_EQ(found.format, known.format) << known.file;
    MarkFormat again;
    EXPECT_TRUE(again.set_code(found.format.code()));
    EXPECT_EQ(again, found.format);
    if (found.format.calls == Calls::none || known.rendered == Known::not_at_all) continue;
    const std::string arguments = known.rendered == Known::arguments_as_text ? R"j("{\"city\": \"K\u00f6ln \\\"}\\\"\", \"days\": [1, 2.5]}")j"
                                                                             : R"j({"city": "K\u00f6ln \"}\"", "days": [1, 2.5]})j";
    const std::string content = found.format.calls == Calls::deepseek ? "null" : "\"\"";
    const std::string message = R"j({"tool_calls": [{"type": "function", "id": "functions.get_weather:0", "function": {"name": "get_weather", "arguments": )j" +
                                arguments + "}}], \"content\": " + content + "}";
    const std::vector<text::ChatMessage> question = {{.role = "user", .text = "How is the weather?", .extra_json = ""}};
    std::vector<text::ChatMessage> answered = question;
    answered.push_back({.role = "assistant", .text = {}, .extra_json = message});
    const bool tools = known.rendered != Known::without_tools;
    const std::string asked = render(source, question, tools), both = render(source, answered, tools);
    const auto common = std::mismatch(asked.begin(), asked.end(), both.begin(), both.end()).first - asked.begin();
    std::string turn = both.substr(static_cast<size_t>(common));
    for (const std::string_view head : {"assistant<|end_header_id|>\n\n", "assistant\n", "assistant<|end_of_role|>", "<｜Assistant｜>", "assistant<|im_middle|>", "<|begin_assistant|>", "<|assistant|>", "<assistant>\n</think>\n"})
      if (const size_t at = turn.find(head); at != std::string::npos) turn = turn.substr(at + head.size());
    for (const std::string_view end : {"<|im_end|>", "<|eot_id|>", "<|end_of_text|>", "<｜end▁of▁sentence｜>", "</s>", "<|end|>", "<seed:eos>", "<|eom_id|>", "</assistant>"})
      if (const size_t at = turn.find(end); at != std::string::npos) turn = turn.substr(0, at);
    const std::string id = found.format.calls == Calls::kimi ? "#functions.get_weather:0" : "";
    expect_cut_anywhere(found.format, turn, "\ncall 0 get_weather" + id + ": {\"city\": \"Köln \\\"}\\\"\", \"days\": [1, 2.5]}");
  }
}

TEST(Marks, CodesOfFormats) {
  MarkFormat format;
  EXPECT_TRUE(format.set_code(0));
  EXPECT_FALSE(format.set_code(4));
  EXPECT_FALSE(format.set_code(200 << 8));
}

}  // namespace
}  // namespace gptq::test
