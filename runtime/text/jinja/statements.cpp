// SPDX-License-Identifier: Apache-2.0
// The statements of a template.
#include <algorithm>
#include <utility>

#include "text/jinja/parser.h"

namespace gptq::text::jinja {

void Parser::if_statement() {
  int32_t ends = -1;
  ++conditional_;
  for (;;) {
    tuple(false);
    const size_t otherwise = emit(Op::jump_if_false);
    expect_block_end();
    block("elif", "else", "endif");
    const bool more = !sees("endif");
    if (more) ends = chain_jump(ends);
    patch(otherwise, here());
    if (!more) break;
    if (next().text == "elif") continue;
    expect_block_end();
    block("endif");
    break;
  }
  expect("endif");
  --conditional_;
  patch_chain(ends, here());
}

bool Parser::uses(std::string_view name, size_t from, size_t to) const {
  return std::any_of(tokens_.begin() + static_cast<ptrdiff_t>(from), tokens_.begin() + static_cast<ptrdiff_t>(to),
                     [&](const Token& t) { return t.kind == Lexeme::name && t.text == name; });
}

// The token that closes the loop whose first tag the cursor is in.
size_t Parser::end_of_loop() const {
  size_t at = cursor_;
  for (uint32_t open = 1; at + 1 < tokens_.size(); ++at) {
    if (tokens_[at].kind != Lexeme::block_begin) continue;
    if (tokens_[at + 1].is("for")) ++open;
    if (tokens_[at + 1].is("endfor") && --open == 0) break;
  }
  return at;
}

void Parser::for_statement() {
  const size_t target = cursor_;
  assign_target(false);
  expect("in");
  tuple(false);
  size_t filter = 0;
  bool lazy = false;
  if (take("if")) {
    filter = cursor_;
    // Without `loop` items may be tested one by one, as Jinja does it; `loop` must know their number.
    heap_.spend_bytes(sizeof(Token) * tokens_.size() / 4);
    skip_to_block_end();
    lazy = !uses("loop", cursor_, end_of_loop());
    if (!lazy) filter_pass(target, filter);
  }
  if (sees("recursive")) fail(peek(), "recursive loops are outside the supported subset");
  loop_body(target, filter, lazy);
}

void Parser::filter_pass(size_t target, size_t filter) {
  emit(Op::loop_begin, 0, 0, true);
  const size_t top = emit(Op::loop_next);
  cursor_ = target;
  assign_target(true);
  cursor_ = filter;
  expression();
  emit(Op::loop_keep);
  patch(emit(Op::jump), top);
  patch(top, here());
  emit(Op::loop_kept);
}

void Parser::loop_body(size_t target, size_t filter, bool lazy) {
  const size_t after = cursor_;
  emit(Op::loop_begin);
  LoopContext context{here(), -1, scopes_, loop_, false};
  const size_t top = emit(Op::loop_next);
  cursor_ = target;
  assign_target(true);
  cursor_ = after;
  if (lazy) {
    cursor_ = filter;
    expression();
    patch(emit(Op::jump_if_false), top);
  }
  expect_block_end();
  loop_ = &context;
  block("endfor", "else");
  loop_ = context.outer;
  emit(Op::loop_entered);
  patch(emit(Op::jump), top);
  patch(top, here());
  patch_chain(context.breaks, here());
  emit(Op::loop_end);
  if (!take("else")) {
    expect("endfor");
    emit(Op::pop);
    return;
  }
  const size_t past = emit(Op::jump_if_true);
  expect_block_end();
  scoped_block("endfor");
  patch(past, here());
}

void Parser::jump_statement(bool leave) {
  if (!loop_) fail(peek(), "break or continue outside of a loop");
  if (loop_->crossed) fail(peek(), "break or continue inside a text that is captured in the loop");
  for (uint32_t n = loop_->scopes; n < scopes_; ++n) emit(Op::scope_end);
  if (leave) loop_->breaks = chain_jump(loop_->breaks);
  else patch(emit(Op::jump), loop_->top);
}

// Names, or tuples of names; for `set` also attributes of namespaces. The value is on the stack.
void Parser::assign_target(bool emit_code) {
  const Level level(*this);
  const size_t start = cursor_;
  int32_t n = 0;
  const auto ends = [&] { return sees("in") || sees("=") || sees(")") || peek().kind == Lexeme::block_end; };
  const auto each = [&](bool code) {
    n = 0;
    bool comma = false;
    do {
      assign_one(code);
      ++n;
      comma = take(",");
    } while (comma && !ends());
    return comma;
  };
  const bool single = !each(false) && n == 1;
  if (!emit_code) return;
  if (!single) emit(Op::unpack, n);
  cursor_ = start;
  each(true);
}

void Parser::assign_one(bool emit_code) {
  if (take("(")) {
    assign_target(emit_code);
    expect(")");
    return;
  }
  const Token& name = expect_name();
  for (const std::string_view fixed : {"true", "false", "none", "True", "False", "None"})
    if (name.text == fixed) fail(name, "cannot assign to '", fixed, "'");
  if (!sees(".")) {
    if (emit_code) emit_at(name, Op::store, symbol(name));
    return;
  }
  next();
  const Token& attribute = expect_name();
  if (!emit_code) return;
  emit_at(name, Op::load, symbol(name));
  emit_at(attribute, Op::store_attribute, symbol(attribute));
}

void Parser::set_statement() {
  const size_t target = cursor_;
  assign_target(false);
  size_t value = cursor_;
  if (take("=")) {
    tuple();
    value = cursor_;
    cursor_ = target;
    assign_target(true);
    cursor_ = value;
    return;
  }
  skip_to_block_end();
  expect_block_end();
  emit(Op::capture_begin);
  const bool crossed = loop_ && std::exchange(loop_->crossed, true);
  scoped_block("endset");
  if (loop_) loop_->crossed = crossed;
  emit(Op::capture_end);
  const size_t after = cursor_;
  cursor_ = value;
  while (take("|")) filter();
  if (peek().kind != Lexeme::block_end) unexpected(peek());
  cursor_ = target;
  assign_target(true);
  cursor_ = after;
}

void Parser::filter_block() {
  const size_t filters = cursor_;
  skip_to_block_end();
  expect_block_end();
  emit(Op::capture_begin);
  const bool crossed = loop_ && std::exchange(loop_->crossed, true);
  scoped_block("endfilter");
  if (loop_) loop_->crossed = crossed;
  emit(Op::capture_end);
  const size_t after = cursor_;
  cursor_ = filters;
  do filter(); while (take("|"));
  if (peek().kind != Lexeme::block_end) unexpected(peek());
  cursor_ = after;
  emit(Op::print);
}

void Parser::scoped_block(std::string_view end) {
  emit(Op::scope_begin);
  ++scopes_;
  block(end);
  expect(end);
  --scopes_;
  emit(Op::scope_end);
}

// The values see the variables outside; they are pushed first, then stored last to first.
void Parser::with_statement() {
  const size_t start = cursor_;
  std::pmr::vector<size_t> targets(heap_.arena());
  while (peek().kind != Lexeme::block_end) {
    if (cursor_ != start) expect(",");
    targets.push_back(cursor_);
    assign_one(false);
    expect("=");
    expression();
  }
  const size_t end = cursor_;
  emit(Op::scope_begin);
  ++scopes_;
  for (size_t i = targets.size(); i-- > 0;) {
    cursor_ = targets[i];
    assign_one(true);
  }
  cursor_ = end;
  expect_block_end();
  block("endwith");
  expect("endwith");
  --scopes_;
  emit(Op::scope_end);
}

void Parser::macro_statement() {
  const Token& name = expect_name();
  const int32_t m = macro(name, "endmacro");
  emit_at(name, Op::macro, m);
  emit_at(name, Op::store, symbol(name));
}

// From the parameter list to the end tag. The body lies behind a jump.
int32_t Parser::macro(const Token& name, std::string_view end) {
  const size_t past = emit_at(name, Op::jump);
  LoopContext* const loop = std::exchange(loop_, nullptr);
  const uint32_t scopes = std::exchange(scopes_, 0);
  Macro m{};
  m.name = static_cast<uint32_t>(symbol(name));
  m.entry = static_cast<uint32_t>(here());
  if (sees("(") || end == "endmacro") parameters(m);
  const size_t call = cursor_;
  if (end == "endcall") skip_to_block_end();  // the call itself is read later
  expect_block_end();
  const size_t from = cursor_;
  block(end);
  m.takes_more = uses("varargs", from, cursor_);
  m.takes_more_names = uses("kwargs", from, cursor_);
  m.takes_caller = uses("caller", from, cursor_);
  expect(end);
  emit(Op::give_back);
  loop_ = loop;
  scopes_ = scopes;
  patch(past, here());
  program_.macros.push_back(m);
  if (end == "endcall") call_start_ = call;
  return static_cast<int32_t>(program_.macros.size() - 1);
}

void Parser::parameters(Macro& m) {
  std::pmr::vector<uint32_t> names(heap_.arena());
  bool defaults = false;
  expect("(");
  while (!take(")")) {
    if (!names.empty()) expect(",");
    const Token& name = expect_name();
    names.push_back(static_cast<uint32_t>(symbol(name)));
    if (names.size() > 1000) fail(name, "too many parameters");
    if (take("=")) {
      defaults = true;
      const size_t given = emit_at(name, Op::default_argument, symbol(name));
      expression();
      emit_at(name, Op::store, symbol(name));
      patch(given, here());
    } else {
      if (defaults) fail(name, "a parameter without default after one with default");
      ++m.n_required;
    }
  }
  m.first_parameter = static_cast<uint32_t>(program_.names.size());
  m.n_parameters = static_cast<uint32_t>(names.size());
  program_.names.insert(program_.names.end(), names.begin(), names.end());
}

// The body becomes a macro in a variable that no template can name; the call then gets it as its argument `caller`.
void Parser::call_statement() {
  const Token& tag = tokens_[cursor_ - 1];
  const auto hidden = static_cast<int32_t>(program_.intern("call block"));
  static constexpr Token caller{Lexeme::name, 0, "caller"};
  const int32_t body = macro(caller, "endcall");
  emit_at(tag, Op::macro, body);
  emit_at(tag, Op::store, hidden);
  const size_t end = std::exchange(cursor_, call_start_);
  expression();
  if (peek().kind != Lexeme::block_end || program_.code.back().op != Op::call) fail(tag, "'call' without a call");
  const Instruction call = program_.code.back();
  program_.code.pop_back();
  CallShape shape = program_.shapes[static_cast<size_t>(call.a)];
  for (uint32_t i = 0; i < shape.n_names; ++i) program_.names.push_back(program_.names[shape.first_name + i]);
  program_.names.push_back(program_.intern("caller"));
  shape.first_name = static_cast<uint32_t>(program_.names.size() - shape.n_names - 1);
  ++shape.n_names;
  emit_at(tag, Op::load, hidden);
  emit_at(tag, Op::call, add_shape(shape));
  emit_at(tag, Op::print);
  cursor_ = end;
}

}  // namespace gptq::text::jinja
