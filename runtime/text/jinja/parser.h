// SPDX-License-Identifier: Apache-2.0
// Recursive descent over the tokens that emits code as it goes. Where code is wanted in another order than it is written, the
// cursor goes back and the tokens are read a second time.
#pragma once
#include "text/jinja/lexer.h"
#include "text/jinja/program.h"

namespace gptq::text::jinja {

class Parser {
 public:
  Parser(Heap& heap, std::string_view source) : heap_(heap), program_(heap.arena()), tokens_(tokenize(heap, source)) {}
  Program run();

 private:
  // Nesting of syntax; what recursion there is counts itself here.
  struct Level {
    explicit Level(Parser& p) : depth(p.depth_) {
      if (++depth > max_nesting) p.fail(p.peek(), "nested deeper than ", max_nesting);
    }
    ~Level() { --depth; }
    uint32_t& depth;
  };
  struct LoopContext {
    size_t top;          // where `continue` jumps
    int32_t breaks;      // chain of jumps to patch
    uint32_t scopes;     // open inside the loop
    LoopContext* outer;
    bool crossed;        // by a text capture
  };

  // tokens
  template <class... Parts>
  [[noreturn]] void fail(const Token& token, const Parts&... parts) const { base::fail_at(GPTQ_E_TEMPLATE, token.at, parts...); }
  const Token& peek(size_t ahead = 0) const { return tokens_[cursor_ + ahead < tokens_.size() ? cursor_ + ahead : tokens_.size() - 1]; }
  const Token& next();
  bool sees(std::string_view what) const { return peek().is(what); }
  bool take(std::string_view what);
  void expect(std::string_view what);
  const Token& expect_name();
  void expect_block_end();
  void skip_to_block_end();
  [[noreturn]] void unexpected(const Token& token) const;

  // code
  size_t emit(Op op, int32_t a = 0, int32_t b = 0, bool flag = false);
  size_t emit_at(const Token& token, Op op, int32_t a = 0, int32_t b = 0, bool flag = false);
  void patch(size_t jump, size_t target);
  void patch_chain(int32_t last, size_t target);  // jumps whose a is the previous one of the chain
  int32_t chain_jump(int32_t last);
  int32_t symbol(const Token& name) { return static_cast<int32_t>(program_.intern(name.text)); }
  int32_t constant(const Value& v);
  size_t here() const { return program_.code.size(); }

  // expressions
  void expression();
  void binary(int min_level);
  void inline_if(size_t start);
  void comparison(int min_level);
  void operand();
  void primary();
  void number();
  void strings();
  void list();
  void dict();
  void parentheses();
  void tuple(bool with_inline_if = true);  // one expression, or several with commas
  bool ends_tuple() const;
  void postfix();
  void filters();
  void filter();
  void test();
  bool begins_test_argument() const;
  void subscript();
  void subscript_part(bool& slice);
  CallShape arguments();
  int32_t add_shape(const CallShape& shape);

  // statements
  void block(std::string_view end1, std::string_view end2 = {}, std::string_view end3 = {});  // stops at one of these tags' names
  void statement();
  void if_statement();
  void for_statement();
  void loop_body(size_t target, size_t filter, bool lazy);
  void filter_pass(size_t target, size_t filter);
  void jump_statement(bool leave);
  void set_statement();
  void macro_statement();
  void call_statement();
  void with_statement();
  void filter_block();
  void scoped_block(std::string_view end);
  void assign_target(bool emit_code);
  void assign_one(bool emit_code);
  int32_t macro(const Token& name, std::string_view end);
  void parameters(Macro& m);
  bool uses(std::string_view name, size_t from, size_t to) const;
  size_t end_of_loop() const;

  Heap& heap_;
  Program program_;
  std::pmr::vector<Token> tokens_;
  size_t cursor_ = 0;
  uint32_t depth_ = 0, conditional_ = 0, scopes_ = 0;
  LoopContext* loop_ = nullptr;
  size_t call_start_ = 0;     // the call of the call block that macro() has read
  size_t unknown_ = static_cast<size_t>(-1);  // the first unknown filter or test that no condition guards
};

}  // namespace gptq::text::jinja
