#include "text/jinja_value.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <cmath>

#include "text/python_text.h"
#include "text/utf8.h"

namespace awq::jinja {
namespace {

constexpr int kDeepest = 100;  // nesting of lists and dictionaries

int depth_of(const Value& v) {
  if (v.is(Kind::list)) return v.list().depth;
  return v.is(Kind::dict) ? v.dict().depth : 0;
}

int deeper(int depth, const Value& v) {
  depth = std::max(depth, 1 + depth_of(v));
  if (depth > kDeepest) fault("lists and dictionaries nest more than {} deep", kDeepest);
  return depth;
}

std::string text_key(std::string_view text) { return std::string("s").append(text); }

bool equal_numbers(const Value& a, const Value& b) {
  if (is_integer(a) && is_integer(b)) return to_integer(a) == to_integer(b);
  return to_real(a) == to_real(b);
}

bool equal_lists(Budget& budget, const List& a, const List& b) {
  if (a.kind != b.kind || a.items.size() != b.items.size()) return false;
  for (size_t i = 0; i < a.items.size(); ++i)
    if (!equals(budget, a.items[i], b.items[i])) return false;
  return true;
}

bool equal_dicts(Budget& budget, const Dict& a, const Dict& b) {
  if (a.items.size() != b.items.size()) return false;
  for (const auto& entry : a.items) {
    const Value* other = b.find(entry.first);
    if (!other || !equals(budget, entry.second, *other)) return false;
  }
  return true;
}

bool less_lists(Budget& budget, const List& a, const List& b) {
  const size_t n = std::min(a.items.size(), b.items.size());
  for (size_t i = 0; i < n; ++i)
    if (!equals(budget, a.items[i], b.items[i])) return less(budget, a.items[i], b.items[i]);
  return a.items.size() < b.items.size();
}

bool take_until_equal(Budget& budget, const List& generator, const Value& v) {
  while (generator.taken < generator.items.size())
    if (equals(budget, generator.items[generator.taken++], v)) return true;
  return false;
}

void append_items(Budget& budget, const std::vector<Value>& items, MarkedText& out) {
  for (size_t i = 0; i < items.size(); ++i) {
    if (i) out.append(", ");
    append_repr(budget, items[i], out);
  }
}

void append_list(Budget& budget, const List& l, MarkedText& out) {
  const bool tuple = l.kind == List::Kind::tuple;
  if (l.kind != List::Kind::list && !tuple) fault("an iterator cannot be printed; use the filter `list`");
  out.append(tuple ? "(" : "[");
  append_items(budget, l.items, out);
  if (tuple && l.items.size() == 1) out.append(",");
  out.append(tuple ? ")" : "]");
}

void append_dict(Budget& budget, const Dict& d, MarkedText& out) {
  out.append("{");
  bool first = true;
  for (const auto& entry : d.items) {
    if (!first) out.append(", ");
    first = false;
    append_repr(budget, entry.first, out);
    out.append(": ");
    append_repr(budget, entry.second, out);
  }
  out.append("}");
}

void append_escaped_unit(std::string& out, unsigned unit) { out.append(fmt::format("\\u{:04x}", unit)); }

void append_json_character(std::string& out, char32_t c, bool ascii) {
  switch (c) {
    case '"':
      out.append("\\\"");
      return;
    case '\\':
      out.append("\\\\");
      return;
    case '\n':
      out.append("\\n");
      return;
    case '\r':
      out.append("\\r");
      return;
    case '\t':
      out.append("\\t");
      return;
    case '\b':
      out.append("\\b");
      return;
    case '\f':
      out.append("\\f");
      return;
    default:
      break;
  }
  if (c >= 0x20 && (c < 0x7F || !ascii)) return utf8::append(out, c);
  if (c < 0x10000) return append_escaped_unit(out, c);
  append_escaped_unit(out, 0xD800 + ((c - 0x10000) >> 10));
  append_escaped_unit(out, 0xDC00 + ((c - 0x10000) & 0x3FF));
}

class JsonWriter {
 public:
  JsonWriter(Budget& budget, const JsonStyle& style) : budget_(budget), style_(style) {}

  void write(const Value& v) {
    budget_.charge(4);
    switch (v.kind()) {
      case Kind::none:
        out.append("null");
        return;
      case Kind::boolean:
        out.append(v.boolean() ? "true" : "false");
        return;
      case Kind::integer:
        out.append(std::to_string(v.integer()));
        return;
      case Kind::real:
        out.append(real(v.real()));
        return;
      case Kind::text:
        return string(v.text(), is_marked(v));
      case Kind::list:
        if (is_list_or_tuple(v)) return list(v.list());
        break;
      case Kind::dict:
        return dict(v.dict());
      default:
        break;
    }
    if (v.is(Kind::undefined)) fault("{}, and tojson cannot write it", v.why());
    fault("tojson cannot write a value of type {}", type_name(v));
  }

  MarkedText out;

 private:
  static std::string real(double d) {
    if (std::isnan(d)) return "NaN";
    return std::isinf(d) ? (d > 0 ? "Infinity" : "-Infinity") : repr_real(d);
  }

  void string(std::string_view s, bool marked) {
    budget_.charge(s.size());
    std::string written;
    for (size_t pos = 0; pos < s.size();) append_json_character(written, utf8::next(s, pos), style_.ascii);
    out.append("\"");
    out.append(written, marked);
    out.append("\"");
  }

  static bool is_marked(const Value& v) { return v.is(Kind::text) && v.marked().has_marks(); }

  void new_line() {
    if (!style_.indent) return;
    budget_.charge(1 + static_cast<uint64_t>(level_) * style_.indent->cost());
    out.append("\n");
    for (int i = 0; i < level_; ++i) out.append(*style_.indent);
  }

  void separate(bool& first) {
    if (!first) out.append(style_.item_separator);
    first = false;
    budget_.charge(style_.item_separator.cost());
    new_line();
  }

  void list(const List& l) {
    if (l.items.empty()) return void(out.append("[]"));
    out.append("[");
    ++level_;
    bool first = true;
    for (const Value& item : l.items) {
      separate(first);
      write(item);
    }
    --level_;
    new_line();
    out.append("]");
  }

  static std::string key_text(const Value& key) {
    switch (key.kind()) {
      case Kind::text:
        return key.text();
      case Kind::none:
        return "null";
      case Kind::boolean:
        return key.boolean() ? "true" : "false";
      case Kind::integer:
        return std::to_string(key.integer());
      case Kind::real:
        return real(key.real());
      default:
        fault("tojson cannot write a key of type {}", type_name(key));
    }
  }

  void dict(const Dict& d) {
    if (d.items.empty()) return void(out.append("{}"));
    std::vector<const std::pair<Value, Value>*> entries;
    for (const auto& entry : d.items) entries.push_back(&entry);
    if (style_.sort_keys)
      std::stable_sort(entries.begin(), entries.end(),
                       [&](auto* a, auto* b) { return less(budget_, a->first, b->first); });
    out.append("{");
    ++level_;
    bool first = true;
    for (const auto* entry : entries) {
      separate(first);
      string(key_text(entry->first), is_marked(entry->first));
      budget_.charge(style_.key_separator.cost());
      out.append(style_.key_separator);
      write(entry->second);
    }
    --level_;
    new_line();
    out.append("}");
  }

  Budget& budget_;
  const JsonStyle& style_;
  int level_ = 0;
};

}  // namespace

std::optional<Value> Object::attribute(std::string_view) const { return std::nullopt; }
Value Object::call(Interpreter&, const Args&) const { fault("a value of type {} is not callable", type_name()); }

std::string Value::why() const {
  const auto* u = std::get_if<Undefined>(&v_);
  return u && u->why ? *u->why : "the value is undefined";
}

const void* Value::identity() const {
  if (const auto* o = std::get_if<std::shared_ptr<Object>>(&v_)) return o->get();
  return nullptr;
}

Value make_list(Budget& budget, std::vector<Value> items, List::Kind kind) {
  budget.charge(1 + items.size());
  int depth = 1;
  for (const Value& v : items) depth = deeper(depth, v);
  return Value(std::make_shared<const List>(List{std::move(items), kind, depth}));
}

void Dict::set(const Value& key, Value value) {
  depth = deeper(deeper(depth, key), value);
  const auto [it, fresh] = index.emplace(hash_key(key), items.size());
  if (fresh)
    items.emplace_back(key, std::move(value));
  else
    items[it->second].second = std::move(value);
}

const Value* Dict::find(std::string_view key) const {
  const auto it = index.find(text_key(key));
  return it == index.end() ? nullptr : &items[it->second].second;
}

const Value* Dict::find(const Value& key) const {
  const auto it = index.find(hash_key(key));
  return it == index.end() ? nullptr : &items[it->second].second;
}

Value make_dict(Budget& budget, Dict dict) {
  budget.charge(1 + 2 * dict.items.size());
  return Value(std::make_shared<const Dict>(std::move(dict)));
}

bool is_hashable(const Value& v) {
  if (v.is(Kind::dict)) return false;
  if (!v.is(Kind::list)) return true;
  return v.list().kind == List::Kind::tuple && std::all_of(v.list().items.begin(), v.list().items.end(), is_hashable);
}

std::string hash_key(const Value& v) {
  switch (v.kind()) {
    case Kind::undefined:
      return "u";
    case Kind::none:
      return "0";
    case Kind::boolean:
    case Kind::integer:
      return fmt::format("n{}", to_integer(v));
    case Kind::real:
      if (std::abs(v.real()) < 0x1p62 && std::trunc(v.real()) == v.real())
        return fmt::format("n{}", static_cast<int64_t>(v.real()));
      return fmt::format("f{}", std::bit_cast<uint64_t>(v.real()));
    case Kind::text:
      return text_key(v.text());
    case Kind::list: {
      if (v.list().kind != List::Kind::tuple) break;
      std::string key = "t";
      for (const Value& item : v.list().items) {
        const std::string part = hash_key(item);
        key.append(fmt::format("{}:", part.size())).append(part);
      }
      return key;
    }
    case Kind::object:
      return fmt::format("o{}", v.identity());
    default:
      break;
  }
  fault("a value of type {} cannot be a key", type_name(v));
}

std::string_view type_name(const Value& v) {
  switch (v.kind()) {
    case Kind::undefined:
      return "Undefined";
    case Kind::none:
      return "None";
    case Kind::boolean:
      return "bool";
    case Kind::integer:
      return "int";
    case Kind::real:
      return "float";
    case Kind::text:
      return "str";
    case Kind::dict:
      return "dict";
    case Kind::object:
      return v.object()->type_name();
    case Kind::list:
      break;
  }
  switch (v.list().kind) {
    case List::Kind::list:
      return "list";
    case List::Kind::tuple:
      return "tuple";
    case List::Kind::range:
      return "range";
    case List::Kind::view:
      return "dict view";
    case List::Kind::generator:
      return "generator";
  }
  return "list";
}

bool truth(const Value& v) {
  switch (v.kind()) {
    case Kind::undefined:
    case Kind::none:
      return false;
    case Kind::boolean:
      return v.boolean();
    case Kind::integer:
      return v.integer() != 0;
    case Kind::real:
      return v.real() != 0;
    case Kind::text:
      return !v.text().empty();
    case Kind::list:
      return v.list().kind == List::Kind::generator || !v.list().items.empty();
    case Kind::dict:
      return !v.dict().items.empty();
    case Kind::object:
      return true;
  }
  return false;
}

bool is_integer(const Value& v) { return v.is(Kind::integer) || v.is(Kind::boolean); }
bool is_number(const Value& v) { return is_integer(v) || v.is(Kind::real); }

int64_t to_integer(const Value& v) {
  if (v.is(Kind::boolean)) return v.boolean() ? 1 : 0;
  if (v.is(Kind::undefined)) fault("{}", v.why());
  if (!v.is(Kind::integer)) fault("expected an integer, got a value of type {}", type_name(v));
  return v.integer();
}

double to_real(const Value& v) { return v.is(Kind::real) ? v.real() : static_cast<double>(to_integer(v)); }

bool is_iterable(const Value& v) {
  return v.is(Kind::undefined) || v.is(Kind::text) || v.is(Kind::list) || v.is(Kind::dict);
}

bool has_length(const Value& v) {
  return is_iterable(v) && !(v.is(Kind::list) && v.list().kind == List::Kind::generator);
}

bool is_callable(const Value& v) { return v.is(Kind::object) && v.object()->callable(); }

int64_t length(const Value& v) {
  if (!has_length(v)) fault("a value of type {} has no length", type_name(v));
  switch (v.kind()) {
    case Kind::text:
      return static_cast<int64_t>(utf8::length(v.text()));
    case Kind::list:
      return static_cast<int64_t>(v.list().items.size());
    case Kind::dict:
      return static_cast<int64_t>(v.dict().items.size());
    default:
      return 0;
  }
}

std::vector<Value> iterate(Budget& budget, const Value& v) {
  std::vector<Value> out;
  switch (v.kind()) {
    case Kind::undefined:
      break;
    case Kind::text:
      budget.charge(8 * v.text().size());
      for (const std::string_view c : python::characters(v.text())) out.emplace_back(v.marked().part(c));
      break;
    case Kind::dict:
      for (const auto& entry : v.dict().items) out.push_back(entry.first);
      break;
    case Kind::list: {
      const List& l = v.list();
      out.assign(l.items.begin() + static_cast<std::ptrdiff_t>(l.taken), l.items.end());
      if (l.kind == List::Kind::generator) l.taken = l.items.size();
      break;
    }
    default:
      fault("a value of type {} is not iterable", type_name(v));
  }
  budget.charge(out.size());
  return out;
}

bool is_list_or_tuple(const Value& v) {
  return v.is(Kind::list) && (v.list().kind == List::Kind::list || v.list().kind == List::Kind::tuple);
}

bool equals(Budget& budget, const Value& a, const Value& b) {
  budget.charge(1);
  if (is_number(a) && is_number(b)) return equal_numbers(a, b);
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Kind::text:
      return a.text() == b.text();
    case Kind::list:
      return a.same(b) || (a.list().kind != List::Kind::generator && equal_lists(budget, a.list(), b.list()));
    case Kind::dict:
      return a.same(b) || equal_dicts(budget, a.dict(), b.dict());
    default:
      return a.same(b);
  }
}

bool less(Budget& budget, const Value& a, const Value& b) {
  budget.charge(1);
  if (is_integer(a) && is_integer(b)) return to_integer(a) < to_integer(b);
  if (is_number(a) && is_number(b)) return to_real(a) < to_real(b);
  if (a.is(Kind::text) && b.is(Kind::text)) return a.text() < b.text();  // UTF-8 orders as its code points do
  if (is_list_or_tuple(a) && is_list_or_tuple(b) && a.list().kind == b.list().kind)
    return less_lists(budget, a.list(), b.list());
  for (const Value& v : {a, b})
    if (v.is(Kind::undefined)) fault("{}", v.why());
  fault("values of type {} and {} have no order", type_name(a), type_name(b));
}

bool contains(Budget& budget, const Value& container, const Value& v) {
  switch (container.kind()) {
    case Kind::undefined:
      return false;
    case Kind::text:
      if (!v.is(Kind::text)) fault("`in` a string needs a string on its left, got {}", type_name(v));
      budget.charge(container.text().size());
      return container.text().find(v.text()) != std::string::npos;
    case Kind::dict:
      return container.dict().find(v) != nullptr;
    case Kind::list:
      if (container.list().kind == List::Kind::generator) return take_until_equal(budget, container.list(), v);
      return std::any_of(container.list().items.begin(), container.list().items.end(),
                         [&](const Value& item) { return equals(budget, item, v); });
    default:
      fault("`in` needs a string, list or dictionary on its right, got {}", type_name(container));
  }
}

void append_str(Budget& budget, const Value& v, MarkedText& out) {
  if (v.is(Kind::undefined)) return;
  if (!v.is(Kind::text)) return append_repr(budget, v, out);
  budget.charge(v.marked().cost());
  out.append(v.marked());
}

MarkedText str(Budget& budget, const Value& v) {
  MarkedText out;
  append_str(budget, v, out);
  return out;
}

void append_repr(Budget& budget, const Value& v, MarkedText& out) {
  budget.charge(4);
  switch (v.kind()) {
    case Kind::undefined:
      out.append("Undefined");
      return;
    case Kind::none:
      out.append("None");
      return;
    case Kind::boolean:
      out.append(v.boolean() ? "True" : "False");
      return;
    case Kind::integer:
      out.append(std::to_string(v.integer()));
      return;
    case Kind::real:
      out.append(repr_real(v.real()));
      return;
    case Kind::text:
      budget.charge(v.text().size());
      if (v.safe()) out.append("Markup(");
      out.append(python::repr(v.text()), v.marked().has_marks());
      if (v.safe()) out.append(")");
      return;
    case Kind::list:
      return append_list(budget, v.list(), out);
    case Kind::dict:
      return append_dict(budget, v.dict(), out);
    case Kind::object:
      fault("a value of type {} cannot be printed", type_name(v));
  }
}

std::string repr_real(double d) {
  if (std::isnan(d)) return "nan";
  if (std::isinf(d)) return d > 0 ? "inf" : "-inf";
  char buffer[32];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, d, std::chars_format::scientific).ptr;
  const std::string_view shortest(buffer, static_cast<size_t>(end - buffer));  // "-1.234e+05", "5e-324"
  const size_t e = shortest.find('e');
  const int exponent = std::stoi(std::string(shortest.substr(e + 1)));
  if (exponent < -4 || exponent >= 16) return std::string(shortest);
  const auto point = static_cast<int>(std::min(shortest.find('.'), e));
  const int fraction_digits = std::max(0, static_cast<int>(e) - point - 1);
  return fmt::format("{:.{}f}", d, std::max(1, fraction_digits - exponent));
}

MarkedText to_json(Budget& budget, const Value& v, const JsonStyle& style) {
  JsonWriter writer(budget, style);
  writer.write(v);
  return std::move(writer.out);
}

}  // namespace awq::jinja
