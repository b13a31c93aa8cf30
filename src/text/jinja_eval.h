#pragma once
#include <ctime>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "text/jinja_ast.h"

namespace awq::jinja {

struct Limits {
  uint64_t work = uint64_t(1) << 28;  // see Budget; some seconds and some hundred MB at the very most
  size_t output = size_t(1) << 26;    // bytes
};

/// Names in one region of a template. Inner regions see outer names; assignments stay inside.
struct Scope {
  std::map<std::string, Value, std::less<>> names;
  std::shared_ptr<Scope> outer;
};

/// Runs a parsed template once. Nothing but the values given to it and the built-in functions can be reached.
class Interpreter {
 public:
  /// `now` is the local time that strftime_now formats.
  Interpreter(const Limits& limits, std::optional<std::tm> now) : budget_(limits.work), limits_(limits), now_(now) {}
  ~Interpreter();
  Interpreter(const Interpreter&) = delete;
  Interpreter& operator=(const Interpreter&) = delete;

  /// The template's output. Throws awq::Error with line and column.
  MarkedText render(const Body& body, std::map<std::string, Value, std::less<>> globals);

  // For built-in functions.
  Budget& budget() { return budget_; }
  std::tm now() const;
  Value text(MarkedText s, bool safe = false);
  Value text(std::string s) { return text(MarkedText(std::move(s))); }
  Value list(std::vector<Value> items, List::Kind kind = List::Kind::list) {
    return make_list(budget_, std::move(items), kind);
  }
  /// object.name and object[key] as templates mean them: undefined where there is no such thing.
  Value attribute(const Value& object, const std::string& name);
  Value item(const Value& object, const Value& key);
  Value call(const Value& function, const Args& args);
  Value apply_filter(const std::string& name, const Value& input, const Args& args);
  bool apply_test(const std::string& name, const Value& input, const Args& args);
  Value new_namespace(Dict values);

 private:
  friend class Macro;
  enum class Flow { next, break_loop, continue_loop };
  class Nested;

  Flow run(const Body& body);
  Flow run(const Stmt& s);
  Flow run_in_new_scope(const Body& body);
  MarkedText captured(const Body& body);
  Value through_filters(const Expr* filters, MarkedText text);
  void filter_block(const Stmt& s);
  Flow branch(const Stmt& s);
  Flow loop(const Stmt& s);
  std::vector<Value> loop_items(const Stmt& s);
  Flow with_block(const Stmt& s);
  Value macro_of(const Stmt& s);
  void call_block(const Stmt& s);
  void assign(const Expr& target, const Value& v);
  void emit(const MarkedText& text);

  Value eval(const Expr& e);
  Value dispatch(const Expr& e);
  std::vector<Value> eval_all(const std::vector<ExprPtr>& args, size_t from = 0);
  Args arguments(const Expr& e);
  Value lookup(const std::string& name) const;
  Value dict(const Expr& e);
  Value slice(const Expr& e);
  Value binary(const Expr& e);
  Value compare(const Expr& e);
  Value concat(const Expr& e);
  Value conditional(const Expr& e);

  Budget budget_;
  Limits limits_;
  std::optional<std::tm> now_;
  std::shared_ptr<Scope> scope_;
  MarkedText* out_ = nullptr;  // where output goes: the template's, or that of a block that is captured
  Position where_;             // of what runs; stays where it is when a Fault is thrown
  int depth_ = 0;
  MarkedText block_;                                     // the text that a block filter works on
  std::vector<std::shared_ptr<Scope>> captured_scopes_;  // of macros: they hold each other, so the end lets go of them
  std::vector<std::shared_ptr<Object>> namespaces_;      // likewise
};

}  // namespace awq::jinja
