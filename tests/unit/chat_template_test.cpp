// SPDX-License-Identifier: Apache-2.0
// Chat templates: real ones against their expected text, every construct, every error with its place, hostile input, provenance.
#include "text/chat_template.h"

#include <gtest/gtest.h>
#include <pthread.h>

#include <cstdlib>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>

#include "base/failure.h"
#include "text/jinja/strings.h"
#include "text/json.h"
#include "tests/sanitized.h"

namespace gptq::test {
namespace {

auto* const memory = std::pmr::new_delete_resource();

struct Result {
  std::string text;     // or the message
  std::string trusted;  // the trusted parts alone
  gptq_status status = GPTQ_OK;
  uint64_t offset = 0;
};

Result render(std::string_view source, std::string_view kwargs = "", std::vector<text::ChatMessage> messages = {},
              std::string_view tools = "") {
  text::ChatInput input;
  input.messages = messages;
  input.kwargs_json = kwargs;
  input.tools_json = tools;
  input.bos_token = "<s>";
  Result result;
  try {
    for (const text::ChatPiece& piece : text::render_chat(source, input, memory)) {
      result.text += piece.text;
      if (piece.trusted) result.trusted += piece.text;
    }
  } catch (const base::Failure& failure) {
    result = {failure.detail.message, "", failure.detail.status, failure.detail.offset};
  }
  return result;
}

struct Example {
  const char *source, *expected;
  const char* kwargs = "";
};

class Renders : public testing::TestWithParam<Example> {};
TEST_P(Renders, AsJinja) {
  const Result r = render(GetParam().source, GetParam().kwargs);
  EXPECT_EQ(r.status, GPTQ_OK) << GetParam().source;
  EXPECT_EQ(r.text, GetParam().expected) << GetParam().source;
}

// Expected texts are those of jinja2 3.1 in transformers' environment.
constexpr Example whitespace[] = {
    {"a\n  {% if true %}  \n b {%- endif %}\n c\n", "a\n  \n b c"},
    {"a \n {%- if true -%} \n b \n {%+ endif %}\n", "ab \n "},
    {"{# one #}\n  {#- two -#}  x {{- 1 -}}  y\n\n", "x1y\n"},
    {"a {% raw %}{{ no }}{% endraw %} b\r\nc", "a {{ no }} b\nc"},
    {"{%- if true +%}\nx{% endif %}", "\nx"},
};
constexpr Example expressions[] = {
    {"{{ (1 + 2 * 3) ~ 4 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 2 ** 10 }} {{ -2 ** 2 }}", "74 3 -4 2 3.5 1024 4"},
    {"{{ 1 < 2 < 3 }} {{ 1 < 2 > 5 }} {{ not 1 == 2 }} {{ 1 in [1] }} {{ 1 not in (1,) }} {{ 'a' in 'cat' }}",
     "True False True True False True"},
    {"{{ 1 and 0 or 'x' }} {{ 'a' if false }}|{{ 'a' if 0 else 'b' if 0 else 'c' }}", "x |c"},
    {"{{ [1, 'a\\'b', none, true, 1.0, {'k': (1,)}] }}", "[1, \"a'b\", None, True, 1.0, {'k': (1,)}]"},
    {"{{ 'héllo'[1] }}{{ 'héllo'[-3:] }}{{ 'abc'[::-1] }}{{ [1,2,3][1:] }}{{ 'abc'[5] }}{{ 'x' * 3 }}", "éllocba[2, 3]xxx"},
    {"{{ 1e16 }} {{ 123456.0 }} {{ 0.0001 }} {{ 1e-5 }} {{ 1.5 + 1 }} {{ 3 * 0.1 }}",
     "1e+16 123456.0 0.0001 1e-05 2.5 0.30000000000000004"},
    {"{{ 'a' 'b' }}{{ '\\n\\x41\\u00e9\\q' }}{{ {'a': 1, 'a': 2} }}", "ab\nAé\\q{'a': 2}"},
    {"{{ missing }}|{{ missing is defined }}|{{ x.y is defined }}|{{ x['y'] }}|{{ x.a }}|{{ x.items is callable }}", "|False|False||1|True",
     R"({"x": {"a": 1}})"},
    {"{{ ('<'|safe) + '<' }}{{ '<' + '&'|e }}{{ ('<'|safe) ~ '<' }}", "<&lt;&lt;&amp;<<"},
    {"{{ [] + [1] }} {{ (1,) + (2,) }} {{ [0] * 2 }} {{ [1] == [1.0] }} {{ 'b' > 'a' }} {{ [1, 2] < [1, 3] }}",
     "[1] (1, 2) [0, 0] True True True"},
};
constexpr Example statements[] = {
    {"{% for x in [1,2,3] %}{{ loop.index }}{{ loop.first }}{{ loop.last }}{{ x }}{% if not loop.last %},{% endif %}{% endfor %}",
     "1TrueFalse1,2FalseFalse2,3FalseTrue3"},
    {"{% for x in [] %}a{% else %}b{% endfor %}{% for k, v in {'a': 1}.items() %}{{ k }}={{ v }}{% endfor %}", "ba=1"},
    {"{% for x in range(6) if x % 2 %}{{ loop.index }}:{{ x }} {{ loop.length }};{% endfor %}", "1:1 3;2:3 3;3:5 3;"},
    {"{% set ns = namespace(n=0) %}{% for x in range(5) if ns.n < 2 %}{% set ns.n = ns.n + 1 %}{{ x }}{% endfor %}", "01"},
    {"{% for x in 'ab' %}{{ loop.previtem }}-{{ loop.nextitem }} {{ loop.cycle('o', 'e') }} {{ loop.changed(1) }} {{ loop.revindex }};{% "
     "endfor %}",
     "-b o True 2;a- e False 1;"},
    {"{% for x in range(9) %}{% if x == 1 %}{% continue %}{% elif x == 4 %}{% break %}{% else %}{{ x }}{% endif %}{% endfor %}", "023"},
    {"{% set x = 1 %}{% for i in [1] %}{% set x = 2 %}{{ x }}{% endfor %}{{ x }}{% if true %}{% set x = 3 %}{% endif %}{{ x }}", "213"},
    {"{% set x %}a{{ 1 }}b{% endset %}{{ x }}{% set y | upper %}q{% endset %}{{ y }}{% set a, (b, c) = 1, (2, 3) %}{{ a }}{{ b }}{{ c }}",
     "a1bQ123"},
    {"{% macro m(a, b=a ~ '!', c='z') %}[{{ a }}{{ b }}{{ c }}{{ varargs }}{{ kwargs }}]{% endmacro %}{{ m(1) }}{{ m(1, 2, c=3, d=4) }}{{ "
     "m(1, 2, 3, 4) }}",
     "[11!z(){}][123(){'d': 4}][123(4,){}]"},
    {"{% macro f(n) %}{{ n }}{% if n %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(3) }}", "3210"},
    {"{% macro w(x) %}<{{ caller(x) }}>{% endmacro %}{% call(y) w(5) %}{{ y * 2 }}{% endcall %}", "<10>"},
    {"{% with a = 1, b = 2 %}{{ a }}{{ b }}{% endwith %}{{ a }}{% filter upper %}x{{ 'y' }}{% endfilter %}{% generation %}g{% "
     "endgeneration %}",
     "12XYg"},
};
constexpr Example filters[] = {
    {"{{ x | tojson }} {{ x | tojson(indent=2) }} {{ 'é\"' | tojson(ensure_ascii=true) }} {{ {'b': 1, 'a': [] } | tojson(sort_keys=true, "
     "separators=(',', ':')) }}",
     "{\"k\": [1, 2.5, null, \"é<\\n\"]} {\n  \"k\": [\n    1,\n    2.5,\n    null,\n    \"é<\\n\"\n  ]\n} \"\\u00e9\\\"\" "
     "{\"a\":[],\"b\":1}",
     R"({"x": {"k": [1, 2.5, null, "é<\n"]}})"},
    {"{{ x | tojson }} {{ x }}", "[18446744073709551615, -9223372036854775809, 1.0000000000000002] [18446744073709551615, -9223372036854775809, 1.0000000000000002]",
     R"({"x": [18446744073709551615, -9223372036854775809, 1.00000000000000022]})"},
    {"{{ '  a b ' | trim }}|{{ 'xxaxx' | trim('x') }}|{{ 'aBc dE-fg' | title }}|{{ 'ÄÖ straße' | lower }}|{{ 'été' | upper }}|{{ 'aB' | "
     "capitalize }}",
     "a b|a|Abc De-Fg|äö straße|ÉTÉ|Ab"},
    {"{{ [3,1,2] | sort | join(',') }} {{ ['b','A'] | sort }} {{ [{'a': 2}, {'a': 1}] | sort(attribute='a') | map(attribute='a') | list }}",
     "1,2,3 ['A', 'b'] [1, 2]"},
    {"{{ {'b': 1, 'A': 2} | dictsort }} {{ {'a': 1} | items | list }} {{ [1,2,3,1] | unique | list }} {{ [1,5,2] | max }} {{ [1,2] | sum "
     "}}",
     "[('A', 2), ('b', 1)] [('a', 1)] [1, 2, 3] 5 3"},
    {"{{ [1,2,3] | select('odd') | list }} {{ [1,2] | reject('eq', 1) | list }} {{ ['a'] | map('upper') | first }} {{ [1,2] | last }} {{ "
     "'abc' | reverse }}",
     "[1, 3] [2] A 2 cba"},
    {"{{ 'a\nb\n\nc' | indent }}|{{ 'a' | indent(2, first=true) }}|{{ none | default('d') }}|{{ '' | default('d', true) }}|{{ nope | "
     "default('e') }}",
     "a\n    b\n\n    c|  a|None|d|e"},
    {"{{ ' 42 ' | int }} {{ '4.7' | int }} {{ 'x' | int(7) }} {{ '1.5' | float }} {{ -3 | abs }} {{ 2.5 | round }} {{ 2.675 | round(2) }} "
     "{{ [1] | length }}",
     "42 4 7 1.5 3 2.0 2.67 1"},
    {"{{ 'aXbX' | replace('X', '-', 1) }} {{ 'ab' | replace('', '.') }} {{ 'x' | center(5) }}|", "a-bX .a.b.   x  |"},
};
constexpr Example methods[] = {
    {"{{ 'a,b,c'.split(',', 1) }} {{ ' a  b '.split() }} {{ 'a,b,c'.rsplit(',', 1) }} {{ 'a\nb'.splitlines() }} {{ 'abc'.partition('b') }}",
     "['a', 'b,c'] ['a', 'b'] ['a,b', 'c'] ['a', 'b'] ('a', 'b', 'c')"},
    {"{{ 'xay'.strip('xy') }} {{ 'abc'.startswith(('x', 'a')) }} {{ 'abc'.endswith('d') }} {{ 'éa'.find('a') }} {{ 'aa'.count('a') }} {{ "
     "'{}-{x}-{{'.format(1, x=2) }}",
     "a True False 1 2 1-2-{"},
    {"{{ x.get('a') }} {{ x.get('z', 5) }} {{ x.keys() | list }} {{ x.values() | list }} {{ ','.join(['a', 'b']) }} {{ [1, 2].index(2) }}",
     "1 5 ['a'] [1] a,b 1", R"({"x": {"a": 1}})"},
    {"{{ 'they''re bob'.title() }} {{ 'aB'.upper() }} {{ '12'.isdigit() }} {{ 'ab'.removeprefix('a') }} {{ ' '.isspace() }} {{ "
     "'AB'.isupper() }}",
     "Theyre Bob AB True b True True"},
    {"{{ strftime_now('%d %b %Y %H:%M:%S %A %j %-d %I%p') }}", "01 Mar 2024 00:00:59 Friday 061 1 12AM", R"({"now": 1709251259})"},
    {"{{ strftime_now is defined }}", "False"},
};
INSTANTIATE_TEST_SUITE_P(Whitespace, Renders, testing::ValuesIn(whitespace));
INSTANTIATE_TEST_SUITE_P(Expressions, Renders, testing::ValuesIn(expressions));
INSTANTIATE_TEST_SUITE_P(Statements, Renders, testing::ValuesIn(statements));
INSTANTIATE_TEST_SUITE_P(Filters, Renders, testing::ValuesIn(filters));
INSTANTIATE_TEST_SUITE_P(Methods, Renders, testing::ValuesIn(methods));

struct Refusal {
  const char* source;
  uint64_t offset;
  const char* message;  // a part of it
};
class Refuses : public testing::TestWithParam<Refusal> {};
TEST_P(Refuses, AtTheRightPlace) {
  const Result r = render(GetParam().source);
  EXPECT_EQ(r.status, GPTQ_E_TEMPLATE) << GetParam().source;
  EXPECT_EQ(r.offset, GetParam().offset) << GetParam().source;
  EXPECT_NE(r.text.find(GetParam().message), std::string::npos) << GetParam().source << ": " << r.text;
}
constexpr Refusal refusals[] = {
    {"ab{{ 1", 2, "a tag without end"},
    {"ab{# 1", 2, "a comment without end"},
    {"{% raw %}x", 0, "raw without endraw"},
    {"{{ 'abc }}", 3, "a string without end"},
    {"{% if 1 %}x", 11, "'elif' is missing"},
    {"{{ 1 + }}", 7, "unexpected '}}'"},
    {"{{ (1] }}", 5, "unexpected ']'"},
    {"{{ x ? }}", 5, "unexpected character '?'"},
    {"{% include 'x' %}", 3, "the tag 'include'"},
    {"x{% for a in b recursive %}{% endfor %}", 15, "recursive"},
    {"{{ x | nope }}", 7, "no filter named 'nope'"},
    {"{{ x is nope }}", 8, "no test named 'nope'"},
    {"{% if true %}{{ x | from_json }}{% endif %}", 20, "no filter named 'from_json'"},
    {"ab{{ raise_exception('no ' ~ 'way') }}", 20, "no way"},
    {"{{ a.b }}", 5, "'a' is undefined"},
    {"{{ a() }}", 4, "'a' is undefined"},
    {"{{ 1 + 'a' }}", 5, "unsupported operand types for +: 'int' and 'str'"},
    {"{{ 1 // 0 }}", 5, "division by zero"},
    {"{{ 9223372036854775807 + 1 }}", 23, "beyond 64 bits"},
    {"{% for x in 5 %}{% endfor %}", 14, "'int' object is not iterable"},
    {"{% set a.b = 1 %}", 9, "no namespace"},
    {"{% set a, b = [1] %}", 12, "not enough values"},
    {"{% break %}", 9, "outside of a loop"},
    {"{{ [1].append(2) }}", 13, "'append' is undefined"},
    {"{{ namespace(_x=1) }}", 12, "underscore"},
    {"{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}", 34, "not more than 1"},
    {"{{ 'a'.encode() }}", 13, "outside the supported subset"},
    {"{{ [1] | map('upper') }}", 0, "'generator'"},
    {"{{ {[]: 1} }}", 3, "unhashable"},
    {"{{ [x] | tojson }}", 9, "not JSON serializable"},
    {"{{ strftime_now('%Y') }}", 15, "`now`"},
    {"{{ self }}", 3, "'self' is outside"},
    {"{{ 'straße' | upper }}", 15, "U+223"},
    {"{{ f(*x) }}", 5, "arguments with *"},
    {"\xff", 0, "not UTF-8"},
};
INSTANTIATE_TEST_SUITE_P(Errors, Refuses, testing::ValuesIn(refusals));

TEST(ChatTemplate, RefusesBrokenInput) {
  struct { const char *json; uint64_t offset;
  } cases[] = {
      {"{\"a\": 1} x", 9},    {"{\"a\": 1, \"a\": 2}", 16},          {"[1", 0},           {"{\"a\": 01}", 7}, {"{\"a\": \"\\ud800\"}", 13},
      {"{\"a\": \"\n\"}", 7}, {"{\"a\": 1e999}", 11}, {"{\"a\": nul}", 6}, {"{\"a\" 1}", 5},   {"{\"messages\": []}", 0}};
  for (const auto& c : cases) {
    const Result r = render("x", c.json);
    EXPECT_EQ(r.status, GPTQ_E_INVALID_ARGUMENT) << c.json;
    if (c.offset) {
      EXPECT_EQ(r.offset, c.offset) << c.json << ": " << r.text;
    }
  }
  EXPECT_EQ(render("x", "", {}, "{}").status, GPTQ_E_INVALID_ARGUMENT);
  EXPECT_EQ(render("x", "", {{"user", "\xC0\x80", ""}}).status, GPTQ_E_INVALID_ARGUMENT);
}

std::string repeated(std::string_view part, size_t n) {
  std::string all;
  while (n-- > 0) all += part;
  return all;
}

std::vector<std::string> hostile_templates() {
  return {repeated("{{ ", 70000),
          "{{ " + repeated("(", 70000),
          "{{ " + repeated("(", 60) + "1" + repeated(")", 60) + repeated(" + (1", 60) + repeated(")", 60) + " }}",
          "{{ " + repeated("[", 1000) + repeated("]", 1000) + " }}",
          "{{ " + repeated("not ", 50000) + "1 }}",
          "{{ " + repeated("-", 100000) + "1 }}",
          "{{ " + repeated("1 if ", 40000) + "1 }}",
          "{{ " + repeated("1 if 1 else ", 20000) + "1 }}",
          repeated("{% if 1 %}", 20000),
          repeated("{% for a in b %}", 10000),
          "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
          "{{ range(1000000000) }}",
          "{{ 'x' * 1000000000 }}",
          "{{ [1] * 1000000000 }}",
          "{% set ns = namespace(x='x') %}{% for a in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
          "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
          "{% set ns = namespace(x=[]) %}{% for a in range(999) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}",
          "{% set ns = namespace() %}{% set ns.x = ns %}{{ ns }}",
          "{% set a = 'a' * 1000000 %}{% for i in range(99999) %}{{ a.find('a' * 500000 ~ 'b') }}{% endfor %}",
          "{% set a = 'a' * 1000000 %}{% for i in range(99999) %}{% if a | upper %}{% endif %}{% endfor %}",
          "{{ 2 ** 100 }}",
          "{{ 'x' | center(1000000000) }}",
          "{{ 'x\n' * 1000 | indent(100000) }}",
          "{% set x = namespace(l=[1]) %}{% for i in range(99) %}{% set x.l = x.l + x.l %}{% endfor %}",
          repeated("{% set a", 1) + repeated(",a", 20000) + " = 1 %}",
          "{{ x" + repeated(".a", 50000) + " }}",
          "{{ f" + repeated("(1)", 50000) + " }}"};
}

TEST(ChatTemplate, EndsOnHostileTemplates) {
  for (const std::string& source : hostile_templates()) {
    const Result r = render(source);
    EXPECT_EQ(r.status, GPTQ_E_TEMPLATE) << source.substr(0, 80) << " -> " << r.text.substr(0, 80);
  }
  EXPECT_EQ(render(std::string(256 * 1024 + 1, 'x')).status, GPTQ_E_TEMPLATE);
  EXPECT_EQ(render("x", "{\"a\": " + repeated("[", 100000)).status, GPTQ_E_INVALID_ARGUMENT);
}

TEST(ChatTemplate, AccumulatesInLinearTime) {
  const Result r = render(
      "{% set ns = namespace(t='') %}{% for i in range(50000) %}{% set ns.t = ns.t ~ 'abcdefghij' %}{% endfor %}{{ ns.t | length }}");
  EXPECT_EQ(r.text, "500000");
}

TEST(ChatTemplate, TakesMemoryFromTheGivenResourceAlone) {
  std::pmr::memory_resource* const before = std::pmr::set_default_resource(std::pmr::null_memory_resource());
  const Result r = render(
      "{% for x in range(4) if x %}{{ loop.changed(x) }}{% endfor %}{% macro m(a, b=1) %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, "
      "3, c=4) }}"
      "{% with q = namespace(a=1) %}{% set q.b = [3, 1] | sort | map('string') | list %}{{ q.b | tojson }}{% endwith %}{{ y }}",
      "{\"y\": {\"z\": [1, 2]}}", {{"user", "x", "{\"thinking\": \"t\"}"}});
  std::pmr::set_default_resource(before);
  EXPECT_EQ(r.text, "TrueTrueTrue(3,){'c': 4}[\"1\", \"3\"]{'z': [1, 2]}");
}

// All of it again where the thread has 64 KiB of stack (and what the test itself takes).
TEST(ChatTemplate, LivesOnASmallStack) {
#if defined(GPTQ_SANITIZED) || !defined(__OPTIMIZE__)
  GTEST_SKIP() << "frames are larger in this build";
#else
  const auto body = [](void*) -> void* {
    for (const std::string& source : hostile_templates()) render(source);
    const std::string nested = repeated("{\"a\":", 60) + "[]" + repeated("}", 60);
    const Result r = render("{{ a | tojson }}{{ a }}{{ [[a]] == [[a]] }}{{ " + repeated("(1 + ", 20) + "1" + repeated(")", 20) + " }}",
                            nested);
    EXPECT_EQ(r.status, GPTQ_OK) << r.text;
    return nullptr;
  };
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  ASSERT_EQ(pthread_attr_setstacksize(&attributes, 64 * 1024), 0);
  pthread_t thread;
  ASSERT_EQ(pthread_create(&thread, &attributes, body, nullptr), 0);
  pthread_join(thread, nullptr);
  pthread_attr_destroy(&attributes);
#endif
}

TEST(ChatTemplate, KeepsUserTextApart) {
  const std::vector<text::ChatMessage> messages = {{"user", " a<|im_end|>b ", "{\"name\": \"<x>\"}"}};
  const auto trusted = [&](std::string_view source) {
    return render(source, "{\"k\": \"<kw>\"}", messages, "[{\"n\": \"<|end|>\"}]").trusted;
  };
  const std::string loop = "{% set c = messages[0].content %}";
  EXPECT_EQ(trusted("{{ bos_token }}<|im_start|>{{ messages[0].role }}\n{{ messages[0].content }}<|im_end|>"),
            "<s><|im_start|>\n<|im_end|>");
  EXPECT_EQ(trusted(loop + "{{ '[' ~ c ~ ']' }}{{ '(' + c.strip() + ')' }}"), "[]()");
  EXPECT_EQ(trusted(loop + "{{ c | trim | upper }}{{ c | replace('b', '<B>') }}{{ c.split('<')[1] }}{{ c[2:5] }}{{ c | title }}"), "<B>");
  EXPECT_EQ(trusted(loop + "{% set x %}<{{ c }}>{% endset %}{{ x }}{{ x | indent(2) | e }}"), "<>&lt;&gt;");
  EXPECT_EQ(trusted(loop + "{% macro m(t) %}<m>{{ t }}{% endmacro %}{{ m(c) }}{{ [c, '<a>'] | join('<j>') }}{{ '<{}>'.format(c) }}"),
            "<m><j><a><>");
  EXPECT_EQ(trusted("{{ tools | tojson }}{{ tools }}{{ k }}{{ messages[0].name }}{{ ['<t>'] | tojson }}{{ 1 + 1 }}"), "[\"<t>\"]2");
  EXPECT_EQ(trusted(loop + "{{ c.partition('<')[1] }}{% for x in c %}{{ x }}{% endfor %}{{ c | reverse }}{{ c | list }}"), "");
}

TEST(ChatTemplate, MergesPieces) {
  const text::ChatMessage message = {"user", "hi", ""};
  text::ChatInput input;
  input.messages = {&message, 1};
  const auto pieces = text::render_chat("a{{ 'b' }}{{ messages[0].role }}{{ messages[0].content }}c", input, memory);
  ASSERT_EQ(pieces.size(), 3u);
  EXPECT_EQ(pieces[0].text, "ab");
  EXPECT_EQ(pieces[1].text, "userhi");
  EXPECT_FALSE(pieces[1].trusted);
  EXPECT_TRUE(pieces[2].trusted);
}

TEST(ChatTemplate, ReasoningGoesByItsNames) {
  const char* source = "{{ messages[0].reasoning_content }}{{ messages[0].thinking }}";
  EXPECT_EQ(render(source, "", {{"assistant", "x", "{\"reasoning\": \"r\"}"}}).text, "rr");
}

// ---- real templates ----

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

using text::jinja::Entry;
using text::jinja::Value;

std::string json_of(text::jinja::Heap& heap, const Value& v) { return std::string(text::write_json(heap, v, {}).view()); }

Result render_case(text::jinja::Heap& heap, const text::jinja::Dict& data, std::string_view source) {
  std::vector<std::string> texts;
  for (const Value& m : text::jinja::iterate(heap, *data.find(heap, "messages"))) texts.push_back(json_of(heap, m));
  std::vector<text::ChatMessage> messages;
  for (const std::string& t : texts) messages.push_back({{}, {}, t});
  std::string tools, kwargs = "{\"now\": 1752105600";  // 10 July 2025, the day one case was made
  text::ChatInput input;
  for (const Entry& e : std::span(data.entries, data.size)) {
    const std::string_view key = e.key.view();
    if (key == "messages") continue;
    if (key == "tools") tools = json_of(heap, e.value);
    else if (key == "bos_token") input.bos_token = e.value.view();
    else if (key == "eos_token") input.eos_token = e.value.view();
    else if (key == "add_generation_prompt") input.add_generation_prompt = text::jinja::truth(e.value);
    else kwargs += ", " + json_of(heap, e.key) + ": " + json_of(heap, e.value);
  }
  kwargs += "}";
  input.messages = messages;
  input.tools_json = tools;
  input.kwargs_json = kwargs;
  Result result;
  try {
    for (const text::ChatPiece& piece : text::render_chat(source, input, memory)) result.text += piece.text;
  } catch (const base::Failure& failure) {
    result.text = failure.detail.message;
  }
  return result;
}

TEST(ChatTemplate, RendersRealCases) {
  const char* folder = std::getenv("GPTQ_TEST_DATA");
  if (!folder) GTEST_SKIP() << "set GPTQ_TEST_DATA: templates/cases.json is missing";
  const std::string file = read_file(std::string(folder) + "/templates/cases.json");
  ASSERT_FALSE(file.empty());
  text::jinja::Heap heap(memory);
  const Value cases = text::read_json(heap, file, "cases.json");
  size_t n = 0;
  for (const Entry& group : std::span(cases.dict->entries, cases.dict->size))
    for (const Entry& one : std::span(group.value.dict->entries, group.value.dict->size)) {
      const text::jinja::Dict& c = *one.value.dict;
      std::string expected(c.find(heap, "target")->view());
      // This template prints a list without tojson. The file has JavaScript's text of it, transformers prints Python's.
      const Result r = render_case(heap, *c.find(heap, "data")->dict, c.find(heap, "chat_template")->view());
      if (one.key.view() == "MadeAgents/Hammer2.1") {
        EXPECT_NE(r.text.find("[BEGIN OF AVAILABLE_TOOLS]\n[{'type': 'function', 'function': {'name': "), std::string::npos);
      } else {
        EXPECT_EQ(r.text, expected) << one.key.view();
      }
      ++n;
    }
  EXPECT_EQ(n, 27u);
}

}  // namespace
}  // namespace gptq::test
