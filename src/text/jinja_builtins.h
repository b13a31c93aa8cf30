#pragma once
#include <initializer_list>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "text/jinja_eval.h"

namespace awq::jinja {

using Filter = Value (*)(Interpreter& run, const Value& input, const Args& args);
using Test = bool (*)(Interpreter& run, const Value& input, const Args& args);
Filter find_filter(std::string_view name);  // null if there is none
Test find_test(std::string_view name);

/// Methods of Python's types. Those that change their object are not there, as in Jinja's immutable sandbox.
bool has_method(const Value& object, std::string_view name);
bool is_unsafe_method(const Value& object, std::string_view name);
Value call_method(Interpreter& run, const Value& object, std::string_view name, const Args& args);

/// range, namespace, dict, raise_exception, strftime_now.
std::map<std::string, Value, std::less<>> global_functions();

/// The arguments of a built-in, matched to its parameter names. Throws Fault for surplus, doubled or missing ones.
class Bound {
 public:
  Bound(std::string_view function, const Args& args, std::initializer_list<std::string_view> names,
        size_t required = 0);
  /// Null if the argument was not given.
  const Value* operator[](size_t i) const { return values_[i]; }
  bool flag(size_t i, bool missing) const;
  int64_t integer(size_t i, int64_t missing) const;
  /// The text of a string argument; throws Fault for another type.
  const std::string& text(size_t i) const;
  std::optional<std::string_view> optional_text(size_t i) const;  // nullopt for none too

 private:
  std::string_view function_;
  std::vector<const Value*> values_;
};

}  // namespace awq::jinja
