#pragma once
// Values of the template language. They follow Python, in which the templates were written: what `str`, `==`, `<`,
// `in`, `len` and truth mean here is what they mean there.
#include <fmt/format.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "text/marked_text.h"

namespace awq::jinja {

/// What a template does wrong; whoever runs it adds the place and makes it an awq::Error.
struct Fault : std::runtime_error {
  using std::runtime_error::runtime_error;
};
template <class... Args>
[[noreturn]] void fault(fmt::format_string<Args...> format, Args&&... args) {
  throw Fault(fmt::format(format, std::forward<Args>(args)...));
}

/// What is left of the work a rendering may do: a few units a step and one a byte or list entry made. Bounds time and
/// memory together.
class Budget {
 public:
  explicit Budget(uint64_t units) : left_(units) {}
  void charge(uint64_t units) {
    if (units > left_) fault("the template does too much work for its limit");
    left_ -= units;
  }

 private:
  uint64_t left_;
};

class Value;
class Interpreter;

struct Args {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
};

/// Functions, macros, namespaces and loops. Names are compared and printed by nobody else.
class Object {
 public:
  virtual ~Object() = default;
  virtual std::string_view type_name() const = 0;
  virtual std::optional<Value> attribute(std::string_view name) const;
  virtual bool callable() const { return false; }
  virtual Value call(Interpreter& run, const Args& args) const;
};

struct Text {
  MarkedText text;
  bool safe = false;  // marked by the filter `safe`: adding a text that is not marked escapes that one for HTML
};
struct List;
struct Dict;

enum class Kind { undefined, none, boolean, integer, real, text, list, dict, object };

class Value {
 public:
  Value() = default;  // undefined, without a reason
  explicit Value(bool b) : v_(b) {}
  explicit Value(int64_t i) : v_(i) {}
  explicit Value(double d) : v_(d) {}
  explicit Value(MarkedText s, bool safe = false) : v_(std::make_shared<const Text>(Text{std::move(s), safe})) {}
  explicit Value(std::string s) : Value(MarkedText(std::move(s))) {}
  explicit Value(std::string_view s) : Value(std::string(s)) {}
  explicit Value(const char* s) : Value(std::string(s)) {}
  explicit Value(std::shared_ptr<const List> l) : v_(std::move(l)) {}
  explicit Value(std::shared_ptr<const Dict> d) : v_(std::move(d)) {}
  explicit Value(std::shared_ptr<Object> o) : v_(std::move(o)) {}
  static Value none() {
    Value v;
    v.v_ = None{};
    return v;
  }
  /// `why` is what using the value will say.
  static Value undefined(std::string why) {
    Value v;
    v.v_ = Undefined{std::make_shared<const std::string>(std::move(why))};
    return v;
  }

  Kind kind() const { return static_cast<Kind>(v_.index()); }
  bool is(Kind k) const { return kind() == k; }
  bool boolean() const { return std::get<bool>(v_); }
  int64_t integer() const { return std::get<int64_t>(v_); }
  double real() const { return std::get<double>(v_); }
  const std::string& text() const { return marked().text(); }
  const MarkedText& marked() const { return std::get<std::shared_ptr<const Text>>(v_)->text; }
  bool safe() const { return is(Kind::text) && std::get<std::shared_ptr<const Text>>(v_)->safe; }
  const List& list() const { return *std::get<std::shared_ptr<const List>>(v_); }
  const Dict& dict() const { return *std::get<std::shared_ptr<const Dict>>(v_); }
  const std::shared_ptr<Object>& object() const { return std::get<std::shared_ptr<Object>>(v_); }
  std::string why() const;
  /// The same object, Python's `is`.
  bool same(const Value& other) const { return v_ == other.v_; }
  const void* identity() const;

 private:
  struct Undefined {
    std::shared_ptr<const std::string> why;
    bool operator==(const Undefined&) const { return true; }
  };
  struct None {
    bool operator==(const None&) const { return true; }
  };
  std::variant<Undefined, None, bool, int64_t, double, std::shared_ptr<const Text>, std::shared_ptr<const List>,
               std::shared_ptr<const Dict>, std::shared_ptr<Object>>
      v_;
};

/// Anything that lists values. Only lists and tuples print; a generator is used up by what reads it.
struct List {
  enum class Kind { list, tuple, range, view, generator };
  std::vector<Value> items;
  Kind kind = Kind::list;
  int depth = 1;
  mutable size_t taken = 0;  // of a generator
};
/// Throws Fault if the values nest too deeply.
Value make_list(Budget& budget, std::vector<Value> items, List::Kind kind = List::Kind::list);

/// Keeps the order of insertion.
struct Dict {
  std::vector<std::pair<Value, Value>> items;
  std::unordered_map<std::string, size_t> index;  // by hash_key
  int depth = 1;

  void set(const Value& key, Value value);  // while it is being made
  const Value* find(std::string_view key) const;
  const Value* find(const Value& key) const;
};
Value make_dict(Budget& budget, Dict dict);

bool is_hashable(const Value& v);
/// Equal for values that are equal as dictionary keys. Throws Fault for a value that is not hashable.
std::string hash_key(const Value& v);

std::string_view type_name(const Value& v);  // "str", "dict"
bool truth(const Value& v);
bool is_number(const Value& v);   // with booleans
bool is_integer(const Value& v);  // with booleans
int64_t to_integer(const Value& v);
double to_real(const Value& v);
bool is_iterable(const Value& v);
bool has_length(const Value& v);
bool is_list_or_tuple(const Value& v);
bool is_callable(const Value& v);
/// Throws Fault where there is no len().
int64_t length(const Value& v);
/// What a loop over v visits: entries, keys, characters. Uses a generator up. Throws Fault if v is not iterable.
std::vector<Value> iterate(Budget& budget, const Value& v);

bool equals(Budget& budget, const Value& a, const Value& b);
bool less(Budget& budget, const Value& a, const Value& b);  // throws Fault if they have no order
bool contains(Budget& budget, const Value& container, const Value& v);

// Of a text that is rewritten character by character all is marked if some was.
void append_str(Budget& budget, const Value& v, MarkedText& out);
MarkedText str(Budget& budget, const Value& v);
void append_repr(Budget& budget, const Value& v, MarkedText& out);
/// As Python prints a float: the shortest digits that read back, fixed from 1e-4 to 1e16.
std::string repr_real(double d);

struct JsonStyle {
  bool ascii = false, sort_keys = false;
  std::optional<MarkedText> indent;  // one level's
  MarkedText item_separator{", "}, key_separator{": "};
};
/// As json.dumps writes it. Throws Fault for what JSON cannot hold.
MarkedText to_json(Budget& budget, const Value& v, const JsonStyle& style);

}  // namespace awq::jinja
