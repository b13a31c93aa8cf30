// Methods of strings, lists and dictionaries.
#include <algorithm>
#include <array>

#include "text/jinja_builtins.h"
#include "text/jinja_operators.h"
#include "text/python_text.h"
#include "text/utf8.h"

namespace awq::jinja {
namespace {

using Parts = std::vector<std::string_view>;

/// Calls of one string method. What it returns is marked safe if the string is.
class StringMethod {
 public:
  StringMethod(Interpreter& run, const Value& self, std::string_view name, const Args& args)
      : run_(run), whole_(self.marked()), s_(self.text()), safe_(self.safe()), name_(name), args_(args) {
    run.budget().charge(1 + s_.size());
  }

  Value strip(bool left, bool right) {
    const Bound b(name_, args_, {"chars"});
    return part(python::strip(s_, b.optional_text(0), left, right));
  }

  Value split(bool from_right) {
    const Bound b(name_, args_, {"sep", "maxsplit"});
    const int64_t limit = b.integer(1, -1);
    const auto separator = b.optional_text(0);
    if (!separator) return texts(from_right ? python::rsplit_spaces(s_, limit) : python::split_spaces(s_, limit));
    if (separator->empty()) fault("{} needs a separator that is not empty", name_);
    return texts(from_right ? python::rsplit(s_, *separator, limit) : python::split(s_, *separator, limit));
  }

  Value split_lines() {
    const Bound b(name_, args_, {"keepends"});
    return texts(python::split_lines(s_, b.flag(0, false)));
  }

  Value partition(bool last) {
    const Bound b(name_, args_, {"sep"}, 1);
    const std::string& separator = b.text(0);
    if (separator.empty()) fault("{} needs a separator that is not empty", name_);
    const size_t at = last ? s_.rfind(separator) : s_.find(separator);
    const std::string_view s = s_;
    Parts parts = {s.substr(0, at), s.substr(at == std::string::npos ? s.size() : at, separator.size()),
                   at == std::string::npos ? "" : s.substr(at + separator.size())};
    if (at == std::string::npos && last) parts = {"", "", s};
    return texts(parts, List::Kind::tuple);
  }

  Value replace() {
    const Bound b(name_, args_, {"old", "new", "count"}, 2);
    const std::string& from = b.text(0);
    (void)b.text(1);  // or an error
    return text(replaced(run_.budget(), whole_, from, insertion(*b[1]), b.integer(2, -1)));
  }

  Value find(bool last, bool must_exist) {
    const Bound b(name_, args_, {"sub", "start", "end"}, 1);
    if (b[1] || b[2]) fault("{} with a range is not implemented", name_);
    const size_t at = last ? s_.rfind(b.text(0)) : s_.find(b.text(0));
    if (at == std::string::npos && must_exist) fault("{}: the string is not there", name_);
    return Value(at == std::string::npos ? int64_t(-1)
                                         : static_cast<int64_t>(utf8::length(std::string_view(s_).substr(0, at))));
  }

  Value count() {
    const Bound b(name_, args_, {"sub"}, 1);
    return Value(python::count(s_, b.text(0)));
  }

  /// startswith and endswith: one string or a tuple of them.
  Value has_end(bool front) {
    const Bound b(name_, args_, {"part"}, 1);
    const auto matches = [&](const Value& v) {
      if (!v.is(Kind::text)) fault("{} needs strings, got a value of type {}", name_, type_name(v));
      return front ? s_.starts_with(v.text()) : s_.ends_with(v.text());
    };
    if (!b[0]->is(Kind::list) || b[0]->list().kind != List::Kind::tuple) return Value(matches(*b[0]));
    return Value(std::any_of(b[0]->list().items.begin(), b[0]->list().items.end(), matches));
  }

  Value join() {
    const Bound b(name_, args_, {"iterable"}, 1);
    MarkedText out;
    bool first = true;
    for (const Value& part : iterate(run_.budget(), *b[0])) {
      if (!part.is(Kind::text)) fault("join needs strings, got a value of type {}", type_name(part));
      run_.budget().charge(whole_.cost() + part.marked().cost());
      if (!first) out.append(whole_);
      first = false;
      out.append(insertion(part));
    }
    return text(std::move(out));
  }

  Value remove(bool front) {
    const Bound b(name_, args_, {"part"}, 1);
    std::string_view s = s_;
    if (front && s.starts_with(b.text(0))) s.remove_prefix(b.text(0).size());
    if (!front && s.ends_with(b.text(0))) s.remove_suffix(b.text(0).size());
    return part(s);
  }

  Value changed(std::string (*change)(std::string_view)) {
    const Bound none(name_, args_, {});
    return text(MarkedText(change(s_), whole_.has_marks()));
  }

  Value tested(bool (*test)(std::string_view)) {
    const Bound none(name_, args_, {});
    return Value(test(s_));
  }

  Value call() {
    if (name_ == "strip") return strip(true, true);
    if (name_ == "lstrip") return strip(true, false);
    if (name_ == "rstrip") return strip(false, true);
    if (name_ == "split") return split(false);
    if (name_ == "rsplit") return split(true);
    if (name_ == "splitlines") return split_lines();
    if (name_ == "partition") return partition(false);
    if (name_ == "rpartition") return partition(true);
    if (name_ == "replace") return replace();
    if (name_ == "find") return find(false, false);
    if (name_ == "rfind") return find(true, false);
    if (name_ == "index") return find(false, true);
    if (name_ == "rindex") return find(true, true);
    if (name_ == "count") return count();
    if (name_ == "startswith") return has_end(true);
    if (name_ == "endswith") return has_end(false);
    if (name_ == "join") return join();
    if (name_ == "removeprefix") return remove(true);
    if (name_ == "removesuffix") return remove(false);
    if (name_ == "upper") return changed(python::upper);
    if (name_ == "lower") return changed(python::lower);
    if (name_ == "title") return changed(python::title);
    if (name_ == "capitalize") return changed(python::capitalize);
    if (name_ == "isupper") return tested(python::is_upper);
    if (name_ == "islower") return tested(python::is_lower);
    if (name_ == "isspace")
      return tested([](std::string_view s) { return python::all_of_category(s, python::is_space); });
    if (name_ == "isalpha")
      return tested([](std::string_view s) { return python::all_of_category(s, python::is_letter); });
    if (name_ == "isdecimal")
      return tested([](std::string_view s) { return python::all_of_category(s, python::is_decimal); });
    fault("the method `{}` of strings is not implemented", name_);
  }

 private:
  Value text(MarkedText s) const { return run_.text(std::move(s), safe_); }
  Value part(std::string_view s) const { return text(whole_.part(s)); }
  Value texts(const Parts& parts, List::Kind kind = List::Kind::list) const {
    std::vector<Value> out;
    out.reserve(parts.size());
    for (const std::string_view part : parts) out.emplace_back(whole_.part(part), safe_);
    return run_.list(std::move(out), kind);
  }
  MarkedText insertion(const Value& v) const { return safe_ ? escaped(v) : v.marked(); }

  Interpreter& run_;
  const MarkedText& whole_;
  const std::string& s_;
  bool safe_;
  std::string_view name_;
  const Args& args_;
};

Value dict_view(Interpreter& run, const Dict& d, bool keys, bool values) {
  std::vector<Value> out;
  for (const auto& entry : d.items) {
    if (keys && values)
      out.push_back(run.list({entry.first, entry.second}, List::Kind::tuple));
    else
      out.push_back(keys ? entry.first : entry.second);
  }
  return run.list(std::move(out), List::Kind::view);
}

Value dict_method(Interpreter& run, const Value& self, std::string_view name, const Args& args) {
  const Dict& d = self.dict();
  if (name == "get") {
    if (!args.named.empty()) fault("get takes no named arguments");
    const Bound b(name, args, {"key", "default"}, 1);
    const Value* v = d.find(*b[0]);
    if (v) return *v;
    return b[1] ? *b[1] : Value::none();
  }
  const Bound none(name, args, {});
  if (name == "copy") return self;  // nothing can change either
  if (name == "items") return dict_view(run, d, true, true);
  if (name == "keys") return dict_view(run, d, true, false);
  if (name == "values") return dict_view(run, d, false, true);
  fault("the method `{}` of dictionaries is not implemented", name);
}

Value list_method(Interpreter& run, const List& l, std::string_view name, const Args& args) {
  if (name == "copy") return run.list(l.items, l.kind);
  const Bound b(name, args, {"value"}, 1);
  const auto is_it = [&](const Value& v) { return equals(run.budget(), v, *b[0]); };
  if (name == "count") return Value(static_cast<int64_t>(std::count_if(l.items.begin(), l.items.end(), is_it)));
  const auto at = std::find_if(l.items.begin(), l.items.end(), is_it);
  if (at == l.items.end()) fault("index: the value is not in the list");
  return Value(static_cast<int64_t>(at - l.items.begin()));
}

template <size_t N>
bool is_in(const std::array<std::string_view, N>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

constexpr std::array<std::string_view, 47> kStringMethods = {
    "capitalize",   "casefold",   "center",    "count",       "encode",    "endswith",     "expandtabs",   "find",
    "format",       "format_map", "index",     "isalnum",     "isalpha",   "isascii",      "isdecimal",    "isdigit",
    "isidentifier", "islower",    "isnumeric", "isprintable", "isspace",   "istitle",      "isupper",      "join",
    "ljust",        "lower",      "lstrip",    "maketrans",   "partition", "removeprefix", "removesuffix", "replace",
    "rfind",        "rindex",     "rjust",     "rpartition",  "rsplit",    "rstrip",       "split",        "splitlines",
    "startswith",   "strip",      "swapcase",  "title",       "translate", "upper",        "zfill"};
constexpr std::array<std::string_view, 6> kDictMethods = {"copy", "fromkeys", "get", "items", "keys", "values"};
constexpr std::array<std::string_view, 5> kDictChanges = {"clear", "pop", "popitem", "setdefault", "update"};
constexpr std::array<std::string_view, 3> kListMethods = {"copy", "count", "index"};
constexpr std::array<std::string_view, 8> kListChanges = {"append", "clear",  "extend",  "insert",
                                                          "pop",    "remove", "reverse", "sort"};
constexpr std::array<std::string_view, 12> kNumberMethods = {
    "real",      "imag",     "numerator",  "denominator",      "conjugate",  "bit_length",
    "bit_count", "to_bytes", "from_bytes", "as_integer_ratio", "is_integer", "hex"};
constexpr std::array<std::string_view, 2> kTupleMethods = {"count", "index"};

}  // namespace

bool has_method(const Value& object, std::string_view name) {
  if (object.is(Kind::text)) return is_in(kStringMethods, name);
  if (object.is(Kind::dict)) return is_in(kDictMethods, name);
  if (is_number(object)) return is_in(kNumberMethods, name);
  if (!object.is(Kind::list)) return false;
  if (object.list().kind == List::Kind::list) return is_in(kListMethods, name);
  return object.list().kind == List::Kind::tuple && is_in(kTupleMethods, name);
}

bool is_unsafe_method(const Value& object, std::string_view name) {
  if (object.is(Kind::dict)) return is_in(kDictChanges, name);
  return object.is(Kind::list) && object.list().kind == List::Kind::list && is_in(kListChanges, name);
}

Value call_method(Interpreter& run, const Value& object, std::string_view name, const Args& args) {
  if (object.is(Kind::text)) return StringMethod(run, object, name, args).call();
  if (object.is(Kind::dict)) return dict_method(run, object, name, args);
  if (object.is(Kind::list)) return list_method(run, object.list(), name, args);
  fault("the attribute `{}` of numbers is not implemented", name);
}

}  // namespace awq::jinja
