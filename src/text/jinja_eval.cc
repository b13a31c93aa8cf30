#include "text/jinja_eval.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "text/jinja_builtins.h"
#include "text/jinja_operators.h"
#include "text/python_text.h"
#include "text/utf8.h"

namespace awq::jinja {
namespace {

constexpr int kDeepestRun = 1000;  // nested statements and evaluations: a hundred levels of a recursive macro

class Namespace final : public Object {
 public:
  explicit Namespace(Dict values) : values_(std::move(values)) {}
  std::string_view type_name() const override { return "Namespace"; }
  std::optional<Value> attribute(std::string_view name) const override {
    const Value* v = name.starts_with('_') ? nullptr : values_.find(name);
    return v ? std::optional(*v) : std::nullopt;
  }
  void set(const std::string& name, const Value& v) { values_.set(Value(name), v); }
  void clear() { values_ = {}; }

 private:
  Dict values_;
};

class BoundMethod final : public Object {
 public:
  BoundMethod(Value self, std::string name) : self_(std::move(self)), name_(std::move(name)) {}
  std::string_view type_name() const override { return "method"; }
  bool callable() const override { return true; }
  Value call(Interpreter& run, const Args& args) const override { return call_method(run, self_, name_, args); }

 private:
  Value self_;
  std::string name_;
};

/// The variable `loop`.
class Loop final : public Object {
 public:
  explicit Loop(const std::vector<Value>& items) : items_(items) {}
  std::string_view type_name() const override { return "LoopContext"; }
  void advance() { ++index_; }

  std::optional<Value> attribute(std::string_view name) const override {
    const auto n = static_cast<int64_t>(items_.size());
    if (name == "index") return Value(index_ + 1);
    if (name == "index0") return Value(index_);
    if (name == "revindex") return Value(n - index_);
    if (name == "revindex0") return Value(n - index_ - 1);
    if (name == "first") return Value(index_ == 0);
    if (name == "last") return Value(index_ == n - 1);
    if (name == "length") return Value(n);
    if (name == "depth") return Value(int64_t(1));
    if (name == "depth0") return Value(int64_t(0));
    if (name == "previtem") return neighbour(index_ - 1, "there is no previous item");
    if (name == "nextitem") return neighbour(index_ + 1, "there is no next item");
    if (name == "cycle" || name == "changed") fault("loop.{} is not implemented", name);
    return std::nullopt;
  }

 private:
  Value neighbour(int64_t i, const char* why) const {
    const bool exists = i >= 0 && i < static_cast<int64_t>(items_.size());
    return exists ? items_[static_cast<size_t>(i)] : Value::undefined(why);
  }

  std::vector<Value> items_;
  int64_t index_ = 0;
};

std::string undefined_attribute(const Value& object, std::string_view name) {
  return fmt::format("a value of type {} has no attribute `{}`", type_name(object), name);
}

/// Sets a member for as long as it lives.
template <class T>
class Replaced {
 public:
  Replaced(T& place, T value) : place_(place), before_(std::exchange(place, std::move(value))) {}
  ~Replaced() { place_ = std::move(before_); }
  Replaced(const Replaced&) = delete;
  Replaced& operator=(const Replaced&) = delete;

 private:
  T& place_;
  T before_;
};

}  // namespace

class Macro final : public Object {
 public:
  Macro(const Stmt& definition, std::shared_ptr<Scope> scope) : definition_(definition), scope_(std::move(scope)) {}
  std::string_view type_name() const override { return "Macro"; }
  bool callable() const override { return true; }
  std::optional<Value> attribute(std::string_view name) const override {
    if (name == "name") return Value(definition_.text);
    return std::nullopt;
  }

  Value call(Interpreter& run, const Args& args) const override {
    const Replaced inside(run.scope_, std::make_shared<Scope>(Scope{{}, scope_}));
    Args left = args;
    std::vector<std::optional<Value>> values = take_parameters(left);
    take_surplus(run, left);
    for (size_t i = 0; i < values.size(); ++i) {
      const Parameter& p = definition_.parameters[i];
      if (!values[i])
        values[i] =
            p.missing ? run.eval(*p.missing) : Value::undefined(fmt::format("parameter `{}` was not provided", p.name));
      run.scope_->names.insert_or_assign(p.name, *values[i]);
    }
    return run.text(run.captured(definition_.body));
  }

 private:
  /// Moves what parameters take out of `args`; a parameter without an argument stays empty.
  std::vector<std::optional<Value>> take_parameters(Args& args) const {
    const std::vector<Parameter>& parameters = definition_.parameters;
    std::vector<std::optional<Value>> values(parameters.size());
    const size_t n = std::min(parameters.size(), args.positional.size());
    for (size_t i = 0; i < n; ++i) values[i] = args.positional[i];
    args.positional.erase(args.positional.begin(), args.positional.begin() + static_cast<std::ptrdiff_t>(n));
    for (size_t i = n; i < parameters.size(); ++i) {
      const auto named = std::find_if(args.named.begin(), args.named.end(),
                                      [&](const auto& a) { return a.first == parameters[i].name; });
      if (named == args.named.end()) continue;
      values[i] = named->second;
      args.named.erase(named);
    }
    return values;
  }

  bool has_parameter(std::string_view name) const {
    return std::any_of(definition_.parameters.begin(), definition_.parameters.end(),
                       [&](const Parameter& p) { return p.name == name; });
  }

  /// What parameters left over becomes caller, kwargs and varargs if the body mentions them.
  void take_surplus(Interpreter& run, Args& args) const {
    auto& names = run.scope_->names;
    if (definition_.uses_caller && !has_parameter("caller")) {
      const auto caller =
          std::find_if(args.named.begin(), args.named.end(), [](const auto& a) { return a.first == "caller"; });
      names["caller"] = caller == args.named.end() ? Value::undefined("no caller is defined") : caller->second;
      if (caller != args.named.end()) args.named.erase(caller);
    }
    if (definition_.uses_kwargs && !has_parameter("kwargs")) {
      Dict kwargs;
      for (auto& a : args.named) kwargs.set(Value(a.first), a.second);
      names["kwargs"] = make_dict(run.budget(), std::move(kwargs));
    } else if (!args.named.empty()) {
      fault("macro {} takes no argument named {}", definition_.text, args.named.front().first);
    }
    if (definition_.uses_varargs && !has_parameter("varargs"))
      names["varargs"] = run.list(std::move(args.positional), List::Kind::tuple);
    else if (!args.positional.empty())
      fault("macro {} takes at most {} arguments", definition_.text, definition_.parameters.size());
  }

  const Stmt& definition_;
  std::shared_ptr<Scope> scope_;
};

/// Counts how deep the evaluation nests, for as long as it lives. Every way to recurse passes a statement or an
/// expression.
class Interpreter::Nested {
 public:
  explicit Nested(Interpreter& run) : depth_(run.depth_) {
    if (depth_ >= kDeepestRun) fault("the template recurses too deeply");
    ++depth_;
  }
  ~Nested() { --depth_; }
  Nested(const Nested&) = delete;
  Nested& operator=(const Nested&) = delete;

 private:
  int& depth_;
};

Interpreter::~Interpreter() {
  for (const auto& scope : captured_scopes_) scope->names.clear();
  for (const auto& object : namespaces_) static_cast<Namespace&>(*object).clear();
}

MarkedText Interpreter::render(const Body& body, std::map<std::string, Value, std::less<>> globals) {
  MarkedText out;
  out_ = &out;
  scope_ = std::make_shared<Scope>(Scope{std::move(globals), nullptr});
  scope_ = std::make_shared<Scope>(Scope{{}, scope_});
  try {
    run(body);
  } catch (const Fault& f) {
    template_error(where_, f.what());
  }
  return out;
}

std::tm Interpreter::now() const {
  if (now_) return *now_;
  const std::time_t t = std::time(nullptr);
  std::tm local{};
  localtime_r(&t, &local);
  return local;
}

Value Interpreter::text(MarkedText s, bool safe) {
  budget_.charge(1 + s.cost());
  return Value(std::move(s), safe);
}

Value Interpreter::new_namespace(Dict values) {
  auto made = std::make_shared<Namespace>(std::move(values));
  namespaces_.push_back(made);
  return Value(std::shared_ptr<Object>(std::move(made)));
}

// --- statements

Interpreter::Flow Interpreter::run(const Body& body) {
  for (const Stmt& s : body) {
    const Flow flow = run(s);
    if (flow != Flow::next) return flow;
  }
  return Flow::next;
}

Interpreter::Flow Interpreter::run(const Stmt& s) {
  const Nested nested(*this);
  where_ = s.at;
  budget_.charge(4);
  switch (s.kind) {
    case Stmt::Kind::data:
      emit(MarkedText(s.text));
      break;
    case Stmt::Kind::output:
      emit(str(budget_, eval(*s.value)));
      break;
    case Stmt::Kind::if_branch:
      return branch(s);
    case Stmt::Kind::for_loop:
      return loop(s);
    case Stmt::Kind::set:
      assign(*s.target, eval(*s.value));
      break;
    case Stmt::Kind::set_block:
      assign(*s.target, through_filters(s.value.get(), captured(s.body)));
      break;
    case Stmt::Kind::macro:
      scope_->names.insert_or_assign(s.text, macro_of(s));
      break;
    case Stmt::Kind::call_block:
      call_block(s);
      break;
    case Stmt::Kind::filter_block:
      filter_block(s);
      break;
    case Stmt::Kind::with_block:
      return with_block(s);
    case Stmt::Kind::scope:
      return run_in_new_scope(s.body);
    case Stmt::Kind::break_loop:
      return Flow::break_loop;
    case Stmt::Kind::continue_loop:
      return Flow::continue_loop;
  }
  return Flow::next;
}

Interpreter::Flow Interpreter::run_in_new_scope(const Body& body) {
  const Replaced inside(scope_, std::make_shared<Scope>(Scope{{}, scope_}));
  return run(body);
}

MarkedText Interpreter::captured(const Body& body) {
  MarkedText text;
  const Replaced<MarkedText*> redirected(out_, &text);
  run_in_new_scope(body);
  return text;
}

Value Interpreter::through_filters(const Expr* filters, MarkedText text) {
  if (!filters) return this->text(std::move(text));
  const Replaced<MarkedText> block(block_, std::move(text));
  return eval(*filters);
}

void Interpreter::filter_block(const Stmt& s) {
  const Value v = through_filters(s.value.get(), captured(s.body));
  if (!v.is(Kind::text)) fault("a filter block made a value of type {}, not a string", type_name(v));
  emit(v.marked());
}

Interpreter::Flow Interpreter::branch(const Stmt& s) {
  for (const Branch& b : s.branches)
    if (!b.condition || truth(eval(*b.condition))) return run(b.body);
  return Flow::next;
}

std::vector<Value> Interpreter::loop_items(const Stmt& s) {
  std::vector<Value> items = iterate(budget_, eval(*s.value));
  if (!s.condition) return items;
  std::vector<Value> kept;
  for (Value& v : items) {
    const Replaced inside(scope_, std::make_shared<Scope>(Scope{{}, scope_}));
    assign(*s.target, v);
    if (truth(eval(*s.condition))) kept.push_back(std::move(v));
  }
  return kept;
}

Interpreter::Flow Interpreter::loop(const Stmt& s) {
  const std::vector<Value> items = loop_items(s);
  if (items.empty()) return run_in_new_scope(s.otherwise);
  const auto loop = std::make_shared<Loop>(items);
  for (const Value& v : items) {
    const Replaced inside(scope_, std::make_shared<Scope>(Scope{{}, scope_}));
    scope_->names["loop"] = Value(std::shared_ptr<Object>(loop));
    where_ = s.at;
    assign(*s.target, v);
    if (run(s.body) == Flow::break_loop) break;
    loop->advance();
  }
  return Flow::next;
}

Interpreter::Flow Interpreter::with_block(const Stmt& s) {
  std::vector<Value> values;  // all of them see the outer names only
  for (const auto& a : s.assignments) values.push_back(eval(*a.second));
  const Replaced inside(scope_, std::make_shared<Scope>(Scope{{}, scope_}));
  for (size_t i = 0; i < values.size(); ++i) assign(*s.assignments[i].first, values[i]);
  return run(s.body);
}

Value Interpreter::macro_of(const Stmt& s) {
  captured_scopes_.push_back(scope_);
  return Value(std::shared_ptr<Object>(std::make_shared<Macro>(s, scope_)));
}

void Interpreter::call_block(const Stmt& s) {
  const Value function = eval(*s.value->args[0]);
  Args args = arguments(*s.value);
  args.named.emplace_back("caller", macro_of(s));
  emit(str(budget_, call(function, args)));
}

void Interpreter::assign(const Expr& target, const Value& v) {
  if (target.kind == Expr::Kind::name) {
    scope_->names.insert_or_assign(target.text, v);
  } else if (target.kind == Expr::Kind::attribute) {
    const Value object = lookup(target.args[0]->text);
    auto* space = object.is(Kind::object) ? dynamic_cast<Namespace*>(object.object().get()) : nullptr;
    if (!space) fault("only attributes of a namespace can be set, not those of a value of type {}", type_name(object));
    space->set(target.text, v);
  } else {
    const std::vector<Value> parts = iterate(budget_, v);
    if (parts.size() != target.args.size())
      fault("{} values cannot be unpacked into {} names", parts.size(), target.args.size());
    for (size_t i = 0; i < parts.size(); ++i) assign(*target.args[i], parts[i]);
  }
}

void Interpreter::emit(const MarkedText& text) {
  budget_.charge(text.cost());
  if (text.text().size() > limits_.output - std::min(limits_.output, out_->text().size()))
    fault("the output exceeds {} bytes", limits_.output);
  out_->append(text);
}

// --- expressions

Value Interpreter::eval(const Expr& e) {
  const Position outer = where_;
  where_ = e.at;
  budget_.charge(4);
  const Nested nested(*this);
  Value v = dispatch(e);
  where_ = outer;
  return v;
}

Value Interpreter::dispatch(const Expr& e) {
  switch (e.kind) {
    case Expr::Kind::literal:
      return e.value;
    case Expr::Kind::name:
      return lookup(e.text);
    case Expr::Kind::block:
      return text(block_);
    case Expr::Kind::list:
      return list(eval_all(e.args));
    case Expr::Kind::tuple:
      return list(eval_all(e.args), List::Kind::tuple);
    case Expr::Kind::dict:
      return dict(e);
    case Expr::Kind::attribute:
      return attribute(eval(*e.args[0]), e.text);
    case Expr::Kind::item: {
      const Value object = eval(*e.args[0]);
      return item(object, eval(*e.args[1]));
    }
    case Expr::Kind::slice:
      return slice(e);
    case Expr::Kind::call: {
      const Value function = eval(*e.args[0]);
      return call(function, arguments(e));
    }
    case Expr::Kind::filter: {
      const Value input = eval(*e.args[0]);
      return apply_filter(e.text, input, arguments(e));
    }
    case Expr::Kind::test: {
      const Value input = eval(*e.args[0]);
      return Value(apply_test(e.text, input, arguments(e)));
    }
    case Expr::Kind::negate:
      return negate(eval(*e.args[0]));
    case Expr::Kind::plus:
      return positive(eval(*e.args[0]));
    case Expr::Kind::logical_not:
      return Value(!truth(eval(*e.args[0])));
    case Expr::Kind::logical_and: {
      Value left = eval(*e.args[0]);
      return truth(left) ? eval(*e.args[1]) : left;
    }
    case Expr::Kind::logical_or: {
      Value left = eval(*e.args[0]);
      return truth(left) ? left : eval(*e.args[1]);
    }
    case Expr::Kind::binary:
      return binary(e);
    case Expr::Kind::compare:
      return compare(e);
    case Expr::Kind::concat:
      return concat(e);
    case Expr::Kind::conditional:
      return conditional(e);
  }
  return {};
}

std::vector<Value> Interpreter::eval_all(const std::vector<ExprPtr>& args, size_t from) {
  std::vector<Value> values;
  for (size_t i = from; i < args.size(); ++i) values.push_back(eval(*args[i]));
  return values;
}

Args Interpreter::arguments(const Expr& e) {
  Args args{eval_all(e.args, 1), {}};
  for (const auto& n : e.named) args.named.emplace_back(n.first, eval(*n.second));
  return args;
}

Value Interpreter::lookup(const std::string& name) const {
  for (const Scope* s = scope_.get(); s; s = s->outer.get()) {
    const auto it = s->names.find(name);
    if (it != s->names.end()) return it->second;
  }
  for (const std::string_view known : {"lipsum", "cycler", "joiner", "self"})
    if (name == known) fault("`{}` is not implemented", name);
  return Value::undefined(fmt::format("`{}` is undefined", name));
}

Value Interpreter::dict(const Expr& e) {
  Dict d;
  for (size_t i = 0; i < e.args.size(); i += 2) {
    const Value key = eval(*e.args[i]);
    d.set(key, eval(*e.args[i + 1]));
  }
  return make_dict(budget_, std::move(d));
}

Value Interpreter::slice(const Expr& e) {
  const Value object = eval(*e.args[0]);
  std::optional<int64_t> bounds[3];
  for (size_t i = 0; i < 3; ++i) {
    if (!e.args[i + 1]) continue;
    const Value v = eval(*e.args[i + 1]);
    if (!v.is(Kind::none)) bounds[i] = to_integer(v);
  }
  return slice_of(budget_, object, bounds[0], bounds[1], bounds[2]);
}

Value Interpreter::binary(const Expr& e) {
  const Value left = eval(*e.args[0]);
  return arithmetic(budget_, e.op, left, eval(*e.args[1]));
}

Value Interpreter::compare(const Expr& e) {
  Value left = eval(*e.args[0]);
  for (size_t i = 0; i < e.compares.size(); ++i) {
    Value right = eval(*e.args[i + 1]);
    if (!holds(budget_, e.compares[i], left, right)) return Value(false);
    left = std::move(right);
  }
  return Value(true);
}

Value Interpreter::concat(const Expr& e) {
  MarkedText out;
  for (const ExprPtr& part : e.args) append_str(budget_, eval(*part), out);
  return text(std::move(out));
}

Value Interpreter::conditional(const Expr& e) {
  if (truth(eval(*e.args[1]))) return eval(*e.args[0]);
  return e.args[2] ? eval(*e.args[2]) : Value::undefined("the inline if has no else and its condition is false");
}

Value Interpreter::attribute(const Value& object, const std::string& name) {
  if (object.is(Kind::undefined)) fault("{}", object.why());
  if (is_unsafe_method(object, name))
    return Value::undefined(
        fmt::format("`{}` would change a value of type {}, which templates may not", name, type_name(object)));
  if (has_method(object, name)) return Value(std::shared_ptr<Object>(std::make_shared<BoundMethod>(object, name)));
  if (object.is(Kind::object)) {
    if (auto v = object.object()->attribute(name)) return *v;
  } else if (object.is(Kind::dict)) {
    if (const Value* v = object.dict().find(name)) return *v;
  }
  return Value::undefined(undefined_attribute(object, name));
}

Value Interpreter::item(const Value& object, const Value& key) {
  if (object.is(Kind::undefined)) fault("{}", object.why());
  if (object.is(Kind::dict) && is_hashable(key)) {
    if (const Value* v = object.dict().find(key)) return *v;
  } else if (is_integer(key)) {
    if (object.is(Kind::text)) budget_.charge(object.text().size());
    if (auto v = entry_at(object, to_integer(key))) return *v;
  }
  if (key.is(Kind::text)) return attribute(object, key.text());
  return Value::undefined(
      fmt::format("a value of type {} has no element {}", type_name(object),
                  key.is(Kind::integer) ? std::to_string(key.integer()) : std::string(type_name(key))));
}

Value Interpreter::call(const Value& function, const Args& args) {
  if (function.is(Kind::undefined)) fault("{}", function.why());
  if (!is_callable(function)) fault("a value of type {} is not callable", type_name(function));
  return function.object()->call(*this, args);
}

Value Interpreter::apply_filter(const std::string& name, const Value& input, const Args& args) {
  const Filter filter = find_filter(name);
  if (!filter) fault("the filter `{}` is unknown or not implemented", name);
  return filter(*this, input, args);
}

bool Interpreter::apply_test(const std::string& name, const Value& input, const Args& args) {
  const Test test = find_test(name);
  if (!test) fault("the test `{}` is unknown or not implemented", name);
  return test(*this, input, args);
}

}  // namespace awq::jinja
