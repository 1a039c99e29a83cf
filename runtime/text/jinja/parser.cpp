// SPDX-License-Identifier: Apache-2.0
// Tokens, code, and the blocks between statements.
#include "text/jinja/parser.h"

#include "text/jinja/strings.h"

namespace gptq::text::jinja {

uint32_t Program::intern(std::string_view name) {
  const auto [at, added] = ids.try_emplace(name, static_cast<uint32_t>(symbols.size()));
  if (added) symbols.push_back(name);
  return at->second;
}

Program compile(Heap& heap, std::string_view source) { return Parser(heap, source).run(); }

const Token& Parser::next() {
  const Token& token = peek();
  if (cursor_ + 1 < tokens_.size()) ++cursor_;
  return token;
}

bool Parser::take(std::string_view what) {
  const bool found = sees(what);
  if (found) next();
  return found;
}

void Parser::expect(std::string_view what) {
  if (!take(what)) fail(peek(), "expected '", what, "' before '", peek().text, "'");
}

const Token& Parser::expect_name() {
  if (peek().kind != Lexeme::name) unexpected(peek());
  return next();
}

void Parser::expect_block_end() {
  if (peek().kind != Lexeme::block_end) unexpected(peek());
  next();
}

void Parser::skip_to_block_end() {
  while (peek().kind != Lexeme::block_end && peek().kind != Lexeme::end) next();
}

void Parser::unexpected(const Token& token) const {
  if (token.kind == Lexeme::end) fail(token, "the template ends inside a statement");
  fail(token, "unexpected '", token.text, "'");
}

size_t Parser::emit(Op op, int32_t a, int32_t b, bool flag) { return emit_at(peek(), op, a, b, flag); }

size_t Parser::emit_at(const Token& token, Op op, int32_t a, int32_t b, bool flag) {
  program_.code.push_back({op, flag, a, b, token.at});
  return here() - 1;
}

void Parser::patch(size_t jump, size_t target) {
  Instruction& i = program_.code[jump];
  (i.op == Op::default_argument ? i.b : i.a) = static_cast<int32_t>(target) - static_cast<int32_t>(jump);
}

// A chain holds the distance back to the previous jump, 0 at its end: code inserted before it keeps it whole.
int32_t Parser::chain_jump(int32_t last) {
  const auto at = static_cast<int32_t>(emit(Op::jump));
  program_.code[static_cast<size_t>(at)].a = last < 0 ? 0 : at - last;
  return at;
}

void Parser::patch_chain(int32_t last, size_t target) {
  while (last >= 0) {
    const int32_t back = program_.code[static_cast<size_t>(last)].a;
    patch(static_cast<size_t>(last), target);
    last = back == 0 ? -1 : last - back;
  }
}

int32_t Parser::constant(const Value& v) {
  program_.constants.push_back(v);
  return static_cast<int32_t>(program_.constants.size() - 1);
}

Program Parser::run() {
  block({});
  emit(Op::halt);
  if (unknown_ != static_cast<size_t>(-1)) {
    const Instruction& i = program_.code[unknown_];
    base::fail_at(GPTQ_E_TEMPLATE, i.at, "no ", i.flag ? "test" : "filter", " named '", program_.symbols[static_cast<size_t>(i.a)],
                  "' in the supported subset");
  }
  return std::move(program_);
}

// Leaves the cursor on the name of the ending tag; without one it ends with the template.
void Parser::block(std::string_view end1, std::string_view end2, std::string_view end3) {
  const Level level(*this);
  for (;;) {
    const Token& token = next();
    switch (token.kind) {
      case Lexeme::data: emit_at(token, Op::text, constant(read_data(heap_, token))); break;
      case Lexeme::print_begin:
        tuple();
        emit_at(token, Op::print);
        if (peek().kind != Lexeme::print_end) unexpected(peek());
        next();
        break;
      case Lexeme::block_begin:
        if (peek().kind != Lexeme::name) unexpected(peek());
        for (const std::string_view end : {end1, end2, end3})
          if (!end.empty() && sees(end)) return;
        statement();
        expect_block_end();
        break;
      default:
        if (end1.empty()) return;
        fail(token, "'", end1, "' is missing");
    }
  }
}

// Ends before the block end of its last tag.
void Parser::statement() {
  const Level level(*this);
  const Token& tag = next();
  if (tag.text == "if") return if_statement();
  if (tag.text == "for") return for_statement();
  if (tag.text == "set") return set_statement();
  if (tag.text == "macro") return macro_statement();
  if (tag.text == "call") return call_statement();
  if (tag.text == "with") return with_statement();
  if (tag.text == "filter") return filter_block();
  if (tag.text == "generation") { expect_block_end(); return scoped_block("endgeneration"); }
  if (tag.text == "break" || tag.text == "continue") return jump_statement(tag.text == "break");
  if (tag.text == "print") { tuple(); emit_at(tag, Op::print); return; }
  fail(tag, "the tag '", tag.text, "' is outside the supported subset or out of place");
}

}  // namespace gptq::text::jinja
