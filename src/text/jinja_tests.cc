// What can stand behind `is`.
#include <algorithm>

#include "text/jinja_builtins.h"
#include "text/jinja_operators.h"
#include "text/python_text.h"

namespace awq::jinja {
namespace {

template <Kind kind>
bool is_kind(Interpreter&, const Value& v, const Args& args) {
  const Bound none("the test", args, {});
  return v.is(kind);
}

template <bool (*f)(const Value&)>
bool is_such(Interpreter&, const Value& v, const Args& args) {
  const Bound none("the test", args, {});
  return f(v);
}

template <CompareOp op>
bool compares(Interpreter& run, const Value& v, const Args& args) {
  const Bound b("the test", args, {"other"}, 1);
  return holds(run.budget(), op, v, *b[0]);
}

bool is_defined(const Value& v) { return !v.is(Kind::undefined); }
bool is_true(const Value& v) { return v.is(Kind::boolean) && v.boolean(); }
bool is_false(const Value& v) { return v.is(Kind::boolean) && !v.boolean(); }
bool is_callable_or_undefined(const Value& v) {
  return v.is(Kind::undefined) || is_callable(v);
}  // calling it would raise
bool is_escaped(const Value& v) { return v.safe(); }
bool is_sequence(const Value& v) { return has_length(v) && !(v.is(Kind::list) && v.list().kind == List::Kind::view); }

bool leaves(Interpreter& run, const Value& v, int64_t by, int64_t remainder) {
  return equals(run.budget(), arithmetic(run.budget(), BinaryOp::mod, v, Value(by)), Value(remainder));
}

template <int64_t remainder>
bool has_parity(Interpreter& run, const Value& v, const Args& args) {
  const Bound none("the test", args, {});
  return leaves(run, v, 2, remainder);
}

bool divisible(Interpreter& run, const Value& v, const Args& args) {
  const Bound b("divisibleby", args, {"num"}, 1);
  return leaves(run, v, b.integer(0, 1), 0);
}

template <bool (*f)(std::string_view)>
bool is_text_such(Interpreter& run, const Value& v, const Args& args) {
  const Bound none("the test", args, {});
  return f(str(run.budget(), v).text());
}

bool same_as(Interpreter&, const Value& v, const Args& args) {
  const Bound b("sameas", args, {"other"}, 1);
  return v.same(*b[0]);
}

bool is_filter(Interpreter&, const Value& v, const Args&) { return v.is(Kind::text) && find_filter(v.text()); }
bool is_test(Interpreter&, const Value& v, const Args&) { return v.is(Kind::text) && find_test(v.text()); }

constexpr std::pair<std::string_view, Test> kTests[] = {
    {"defined", is_such<is_defined>},
    {"undefined", is_kind<Kind::undefined>},
    {"none", is_kind<Kind::none>},
    {"boolean", is_kind<Kind::boolean>},
    {"true", is_such<is_true>},
    {"false", is_such<is_false>},
    {"integer", is_kind<Kind::integer>},
    {"float", is_kind<Kind::real>},
    {"number", is_such<is_number>},
    {"string", is_kind<Kind::text>},
    {"mapping", is_kind<Kind::dict>},
    {"sequence", is_such<is_sequence>},
    {"iterable", is_such<is_iterable>},
    {"callable", is_such<is_callable_or_undefined>},
    {"escaped", is_such<is_escaped>},
    {"sameas", same_as},
    {"odd", has_parity<1>},
    {"even", has_parity<0>},
    {"divisibleby", divisible},
    {"lower", is_text_such<python::is_lower>},
    {"upper", is_text_such<python::is_upper>},
    {"filter", is_filter},
    {"test", is_test},
    {"in", compares<CompareOp::in>},
    {"eq", compares<CompareOp::eq>},
    {"equalto", compares<CompareOp::eq>},
    {"==", compares<CompareOp::eq>},
    {"ne", compares<CompareOp::ne>},
    {"!=", compares<CompareOp::ne>},
    {"lt", compares<CompareOp::lt>},
    {"lessthan", compares<CompareOp::lt>},
    {"<", compares<CompareOp::lt>},
    {"le", compares<CompareOp::le>},
    {"<=", compares<CompareOp::le>},
    {"gt", compares<CompareOp::gt>},
    {"greaterthan", compares<CompareOp::gt>},
    {">", compares<CompareOp::gt>},
    {"ge", compares<CompareOp::ge>},
    {">=", compares<CompareOp::ge>},
};

}  // namespace

Test find_test(std::string_view name) {
  const auto* it = std::find_if(std::begin(kTests), std::end(kTests), [&](const auto& t) { return t.first == name; });
  return it == std::end(kTests) ? nullptr : it->second;
}

}  // namespace awq::jinja
