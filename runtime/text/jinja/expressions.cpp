// SPDX-License-Identifier: Apache-2.0
// The expressions of a template, with Jinja's precedences.
#include <charconv>

#include "text/jinja/parser.h"
#include "text/jinja/strings.h"

namespace gptq::text::jinja {
namespace {

struct Operator {
  std::string_view text;
  int level;
  Op op;
};
constexpr int level_not = 3, level_comparison = 4;
constexpr Operator operators[] = {
    {"or", 1, Op::jump_true_keep}, {"and", 2, Op::jump_false_keep},
    {"==", 4, Op::equal}, {"!=", 4, Op::not_equal}, {"<", 4, Op::less}, {"<=", 4, Op::less_equal}, {">", 4, Op::greater},
    {">=", 4, Op::greater_equal}, {"in", 4, Op::in}, {"not", 4, Op::not_in},
    {"+", 5, Op::add}, {"-", 5, Op::subtract}, {"~", 6, Op::concat}, {"*", 7, Op::multiply}, {"/", 7, Op::divide},
    {"//", 7, Op::floor_divide}, {"%", 7, Op::modulo}, {"**", 8, Op::power},
};

const Operator* find_operator(const Token& token, const Token& after) {
  for (const Operator& o : operators)
    if (token.is(o.text) && (o.op != Op::not_in || after.is("in"))) return &o;
  return nullptr;
}

bool in_order(size_t start, size_t i) { return i != static_cast<size_t>(-1) && i >= start; }

}  // namespace

void Parser::expression() {
  const Level level(*this);
  const size_t start = here();
  binary(0);
  for (uint32_t n = 0; sees("if"); ++n) {
    if (n == max_nesting) fail(peek(), "more than ", max_nesting, " conditions in a row");
    inline_if(start);
  }
}

// The condition is written after its value but runs before it: jump to it, back, and past the other value.
void Parser::inline_if(size_t start) {
  const Token& at = next();
  if (in_order(start, unknown_)) unknown_ = static_cast<size_t>(-1);
  program_.code.insert(program_.code.begin() + static_cast<ptrdiff_t>(start), Instruction{Op::jump, 0, 0, 0, at.at});
  const size_t past = emit_at(at, Op::jump);
  patch(start, here());
  ++conditional_;
  binary(0);
  patch(emit_at(at, Op::jump_if_true), start + 1);
  if (take("else")) expression(); else emit_at(at, Op::undefined);
  --conditional_;
  patch(past, here());
}

// Operators of at least this level, left to right.
void Parser::binary(int min_level) {
  const Level level(*this);
  if (min_level <= level_not && sees("not")) {
    const Token& at = next();
    binary(level_not);
    emit_at(at, Op::logical_not);
  } else {
    operand();
  }
  for (;;) {
    const Operator* o = find_operator(peek(), peek(1));
    if (!o || o->level < min_level) return;
    if (o->level == level_comparison) {
      comparison(level_comparison);
      continue;
    }
    const Token& at = next();
    if (o->level < level_not) {
      const size_t jump = emit_at(at, o->op);
      binary(o->level + 1);
      patch(jump, here());
    } else {
      binary(o->level + 1);
      emit_at(at, o->op);
    }
  }
}

// a < b < c: the left operand is on the stack.
void Parser::comparison(int level) {
  int32_t falses = -1;
  for (const Operator* o; (o = find_operator(peek(), peek(1))) && o->level == level;) {
    const Token& at = next();
    if (o->op == Op::not_in) next();
    binary(level + 1);
    const Operator* following = find_operator(peek(), peek(1));
    if (!following || following->level != level) {
      emit_at(at, o->op);
      break;
    }
    const auto jump = static_cast<int32_t>(here());
    emit_at(at, Op::chain, falses < 0 ? 0 : jump - falses, static_cast<int32_t>(o->op));
    falses = jump;
  }
  patch_chain(falses, here());
}

void Parser::operand() {
  uint64_t signs = 1;  // the last sign is the lowest bit
  const Token& at = peek();
  while (sees("-") || sees("+")) {
    if (signs >> 63) fail(peek(), "too many signs");
    signs = signs << 1 | next().is("-");
  }
  primary();
  postfix();
  for (; signs > 1; signs >>= 1) emit_at(at, signs & 1 ? Op::negate : Op::plus);
  filters();
}

void Parser::primary() {
  const Token& token = peek();
  switch (token.kind) {
    case Lexeme::string: return strings();
    case Lexeme::integer: case Lexeme::number: return number();
    case Lexeme::symbol:
      if (token.text == "(") return parentheses();
      if (token.text == "[") return list();
      if (token.text == "{") return dict();
      break;
    case Lexeme::name: {
      next();
      if (token.text == "true" || token.text == "True") emit_at(token, Op::constant, constant(Value::of_bool(true)));
      else if (token.text == "false" || token.text == "False") emit_at(token, Op::constant, constant(Value::of_bool(false)));
      else if (token.text == "none" || token.text == "None") emit_at(token, Op::constant, constant(Value::none()));
      else if (find_operator(token, peek()) || token.text == "not" || token.text == "if" || token.text == "else" || token.text == "is")
        unexpected(token);
      else emit_at(token, Op::load, symbol(token));
      return;
    }
    default: break;
  }
  unexpected(token);
}

void Parser::number() {
  const Token& token = next();
  Value v = Value::of_int(0);
  const char *from = token.text.data(), *to = from + token.text.size();
  if (token.kind == Lexeme::number) v.kind = Kind::number;
  const std::errc error = token.kind == Lexeme::integer ? std::from_chars(from, to, v.integer).ec : std::from_chars(from, to, v.number).ec;
  if (error != std::errc()) fail(token, "number ", token.text, " is out of range");
  emit_at(token, Op::constant, constant(v));
}

void Parser::strings() {
  const Token& token = next();
  if (peek().kind != Lexeme::string) {
    emit_at(token, Op::constant, constant(read_string(heap_, token)));
    return;
  }
  Writer all(heap_);
  all.add(read_string(heap_, token));
  while (peek().kind == Lexeme::string) all.add(read_string(heap_, next()));
  emit_at(token, Op::constant, constant(all.finish()));
}

void Parser::list() {
  const Token& token = next();
  int32_t n = 0;
  while (!take("]")) {
    if (n > 0) expect(",");
    if (n > 0 && take("]")) break;
    expression();
    ++n;
  }
  emit_at(token, Op::list, n);
}

void Parser::dict() {
  const Token& token = next();
  int32_t n = 0;
  while (!take("}")) {
    if (n > 0) expect(",");
    if (n > 0 && take("}")) break;
    expression();
    expect(":");
    expression();
    ++n;
  }
  emit_at(token, Op::dict, n);
}

void Parser::parentheses() {
  const Token& token = next();
  if (take(")")) {
    emit_at(token, Op::tuple, 0);
    return;
  }
  tuple();
  expect(")");
}

bool Parser::ends_tuple() const {
  const Lexeme kind = peek().kind;
  return kind == Lexeme::block_end || kind == Lexeme::print_end || sees(")") || sees("]") || sees("recursive") || sees("if");
}

void Parser::tuple(bool with_inline_if) {
  const Token& token = peek();
  if (with_inline_if) expression(); else binary(0);
  if (!sees(",")) return;
  int32_t n = 1;
  for (; take(",") && !ends_tuple(); ++n)
    if (with_inline_if) expression(); else binary(0);
  emit_at(token, Op::tuple, n);
}

void Parser::postfix() {
  for (;;) {
    if (sees(".") || sees("[")) subscript();
    else if (sees("(")) { const Token& at = peek(); emit_at(at, Op::call, add_shape(arguments())); }
    else return;
  }
}

void Parser::filters() {
  for (;;) {
    if (sees("|")) { next(); filter(); }
    else if (sees("is")) { next(); test(); }
    else if (sees("(")) { const Token& at = peek(); emit_at(at, Op::call, add_shape(arguments())); }
    else return;
  }
}

// After `|`: the subject is on the stack.
void Parser::filter() {
  const Token& name = expect_name();
  if (sees(".")) fail(name, "a filter name with a dot is outside the supported subset");
  const CallShape shape = sees("(") ? arguments() : CallShape{0, 0, 0};
  const Native* native = find_filter(name.text);
  if (!native) {
    const size_t i = emit_at(name, Op::unknown, symbol(name));
    if (conditional_ == 0 && unknown_ == static_cast<size_t>(-1)) unknown_ = i;
    return;
  }
  program_.natives.push_back(native);
  emit_at(name, Op::filter, static_cast<int32_t>(program_.natives.size() - 1), add_shape(shape));
}

bool Parser::begins_test_argument() const {
  const Token& t = peek();
  if (t.kind == Lexeme::string || t.kind == Lexeme::integer || t.kind == Lexeme::number) return true;
  if (t.kind == Lexeme::symbol) return t.text == "[" || t.text == "{";
  return t.kind == Lexeme::name && t.text != "else" && t.text != "or" && t.text != "and";
}

void Parser::test() {
  const bool negated = take("not");
  const Token& name = expect_name();
  CallShape shape{0, 0, 0};
  if (sees("(")) {
    shape = arguments();
  } else if (begins_test_argument()) {
    if (sees("is")) fail(peek(), "tests in a row need parentheses");
    const Level level(*this);
    primary();
    postfix();
    shape.n_positional = 1;
  }
  const Native* native = find_test(name.text);
  if (!native) {
    const size_t i = emit_at(name, Op::unknown, symbol(name), 0, true);
    if (conditional_ == 0 && unknown_ == static_cast<size_t>(-1)) unknown_ = i;
    return;
  }
  program_.natives.push_back(native);
  emit_at(name, Op::test, static_cast<int32_t>(program_.natives.size() - 1), add_shape(shape), negated);
}

void Parser::subscript() {
  const Token& at = next();
  if (at.text == ".") {
    const Token& name = next();
    if (name.kind == Lexeme::name) {
      emit_at(name, Op::attribute, symbol(name));
      return;
    }
    if (name.kind != Lexeme::integer) unexpected(name);
    --cursor_;
    number();
    emit_at(name, Op::item);
    return;
  }
  int32_t n = 0;
  bool slice = false;
  do {
    if (slice || (n > 0 && sees("]"))) unexpected(peek());
    subscript_part(slice);
    ++n;
  } while (take(","));
  expect("]");
  if (slice && n > 1) fail(at, "slices of several dimensions are outside the supported subset");
  if (n > 1) emit_at(at, Op::tuple, n);
  emit_at(at, slice ? Op::slice : Op::item);
}

// An index, or start:end:step with each part optional.
void Parser::subscript_part(bool& slice) {
  const auto ends = [&] { return sees("]") || sees(",") || sees(":"); };
  const auto part = [&] { if (ends()) emit(Op::constant, constant(Value::none())); else expression(); };
  if (!sees(":")) {
    if (ends()) unexpected(peek());
    expression();
    if (!sees(":")) return;
  } else {
    emit(Op::constant, constant(Value::none()));
  }
  slice = true;
  expect(":");
  part();
  if (take(":")) part(); else emit(Op::constant, constant(Value::none()));
}

CallShape Parser::arguments() {
  const Level level(*this);
  CallShape shape{0, 0, 0};
  std::pmr::vector<uint32_t> names(heap_.arena());
  expect("(");
  while (!take(")")) {
    if (shape.n_positional + names.size() > 0) {
      expect(",");
      if (take(")")) break;
    }
    if (sees("*") || sees("**")) fail(peek(), "arguments with ", peek().text, " are outside the supported subset");
    if (peek().kind == Lexeme::name && peek(1).is("=")) {
      const auto name = static_cast<uint32_t>(symbol(next()));
      for (const uint32_t other : names)
        if (other == name) fail(peek(), "argument ", program_.symbols[name], " is given twice");
      if (names.size() >= 1000) fail(peek(), "too many named arguments");
      names.push_back(name);
      next();
    } else if (!names.empty()) {
      fail(peek(), "a positional argument after a named one");
    } else {
      ++shape.n_positional;
    }
    expression();
  }
  shape.first_name = static_cast<uint32_t>(program_.names.size());
  shape.n_names = static_cast<uint32_t>(names.size());
  program_.names.insert(program_.names.end(), names.begin(), names.end());
  return shape;
}

int32_t Parser::add_shape(const CallShape& shape) {
  program_.shapes.push_back(shape);
  return static_cast<int32_t>(program_.shapes.size() - 1);
}

}  // namespace gptq::text::jinja
