// What can stand behind `|`. Names and arguments are Jinja's.
#include <algorithm>
#include <charconv>
#include <cmath>

#include "text/jinja_builtins.h"
#include "text/jinja_operators.h"
#include "text/python_text.h"
#include "text/utf8.h"

namespace awq::jinja {
namespace {

/// The text of a value; what was marked safe stays so.
Value soft_text(Interpreter& run, const Value& v) { return v.is(Kind::text) ? v : run.text(str(run.budget(), v)); }

template <std::string (*f)(std::string_view)>
Value text_filter(Interpreter& run, const Value& v, const Args& args) {
  const Bound none("the filter", args, {});
  const Value s = soft_text(run, v);
  return run.text(MarkedText(f(s.text()), s.marked().has_marks()), s.safe());
}

Value trim(Interpreter& run, const Value& v, const Args& args) {
  const Bound b("trim", args, {"chars"});
  const Value s = soft_text(run, v);
  return run.text(s.marked().part(python::strip(s.text(), b.optional_text(0), true, true)), s.safe());
}

/// Unlike str.title, words start behind blanks and opening brackets only.
std::string title_words(std::string_view s) {
  std::string out;
  bool starts = true;
  for (const std::string_view c : python::characters(s)) {
    size_t pos = 0;
    const bool separator =
        std::string_view("-({[<").find(c) != std::string_view::npos || python::is_space(utf8::next(c, pos));
    out.append(starts && !separator ? python::upper(c) : python::lower(c));
    starts = separator;
  }
  return out;
}

Value replace(Interpreter& run, const Value& v, const Args& args) {
  const Bound b("replace", args, {"old", "new", "count"}, 2);
  const MarkedText s = str(run.budget(), v), from = str(run.budget(), *b[0]), to = str(run.budget(), *b[1]);
  const int64_t limit = b[2] && !b[2]->is(Kind::none) ? b.integer(2, -1) : -1;
  return run.text(replaced(run.budget(), s, from.text(), to, limit));
}

Value indent(Interpreter& run, const Value& v, const Args& args) {
  const Bound b("indent", args, {"width", "first", "blank"});
  if (!v.is(Kind::text)) fault("indent needs a string, got a value of type {}", type_name(v));
  const int64_t width = b[0] && !b[0]->is(Kind::text) ? b.integer(0, 4) : 4;
  if (width > 1000) fault("indent: a width of {} is too large", width);
  const MarkedText by = b[0] && b[0]->is(Kind::text)
                            ? b[0]->marked()
                            : MarkedText(std::string(static_cast<size_t>(std::max<int64_t>(width, 0)), ' '));
  MarkedText text = v.marked(), out;
  text.append("\n");
  if (b.flag(1, false)) out.append(by);
  bool first = true;
  for (const std::string_view line : python::split_lines(text.text(), false)) {
    run.budget().charge(by.cost() + line.size() + 1);
    if (!first) out.append("\n");
    if (!first && (!line.empty() || b.flag(2, false))) out.append(by);
    first = false;
    out.append_part(text, line);
  }
  return run.text(std::move(out), v.safe());
}

Value safe(Interpreter& run, const Value& v, const Args&) { return run.text(str(run.budget(), v), true); }

Value escape(Interpreter& run, const Value& v, const Args&) {
  return v.safe() ? v : run.text(escaped(soft_text(run, v)), true);
}

Value string(Interpreter& run, const Value& v, const Args&) { return soft_text(run, v); }

Value length_of(Interpreter&, const Value& v, const Args&) { return Value(length(v)); }

Value default_value(Interpreter&, const Value& v, const Args& args) {
  const Bound b("default", args, {"default_value", "boolean"});
  const bool missing = v.is(Kind::undefined) || (b.flag(1, false) && !truth(v));
  if (!missing) return v;
  return b[0] ? *b[0] : Value(std::string());
}

// --- numbers

std::optional<double> parse_real(std::string_view s) {
  s = python::strip(s, std::nullopt, true, true);
  if (s.starts_with('+')) s.remove_prefix(1);
  double d = 0;
  const auto [end, error] = std::from_chars(s.data(), s.data() + s.size(), d);
  return error == std::errc() && end == s.data() + s.size() ? std::optional(d) : std::nullopt;
}

std::optional<int64_t> parse_integer(std::string_view s, int base) {
  s = python::strip(s, std::nullopt, true, true);
  if (s.starts_with('+')) s.remove_prefix(1);
  int64_t i = 0;
  const auto [end, error] = std::from_chars(s.data(), s.data() + s.size(), i, base);
  if (error == std::errc::result_out_of_range) fault("an integer leaves the range of 64 bits");
  return error == std::errc() && end == s.data() + s.size() ? std::optional(i) : std::nullopt;
}

std::optional<int64_t> whole(double d) {
  if (!std::isfinite(d)) return std::nullopt;
  if (std::abs(d) >= 0x1p63) fault("an integer leaves the range of 64 bits");
  return static_cast<int64_t>(d);
}

Value int_of(Interpreter&, const Value& v, const Args& args) {
  const Bound b("int", args, {"default", "base"});
  const int64_t base = b.integer(1, 10);
  if (base < 2 || base > 36) fault("int: the base {} is not implemented", base);
  std::optional<int64_t> i;
  if (v.is(Kind::text)) {
    i = parse_integer(v.text(), static_cast<int>(base));
    const std::optional<double> d = i ? std::nullopt : parse_real(v.text());
    if (d) i = whole(*d);
  } else if (v.is(Kind::undefined)) {
    fault("{}", v.why());
  } else if (is_number(v)) {
    i = v.is(Kind::real) ? whole(v.real()) : to_integer(v);
  }
  if (i) return Value(*i);
  return b[0] ? *b[0] : Value(int64_t(0));
}

Value float_of(Interpreter&, const Value& v, const Args& args) {
  const Bound b("float", args, {"default"});
  if (v.is(Kind::undefined)) fault("{}", v.why());
  if (is_number(v)) return Value(to_real(v));
  const std::optional<double> d = v.is(Kind::text) ? parse_real(v.text()) : std::nullopt;
  if (d) return Value(*d);
  return b[0] ? *b[0] : Value(0.0);
}

Value abs_of(Interpreter&, const Value& v, const Args&) {
  if (v.is(Kind::real)) return Value(std::abs(v.real()));
  return to_integer(v) < 0 ? negate(v) : Value(to_integer(v));
}

Value round_to(Interpreter&, const Value& v, const Args& args) {
  const Bound b("round", args, {"precision", "method"});
  const int64_t digits = b.integer(0, 0);
  if (digits < 0 || digits > 30) fault("round: a precision of {} is not implemented", digits);
  const std::string method = b[1] ? b.text(1) : "common";
  if (method == "common" && is_integer(v)) return Value(to_integer(v));
  const double d = to_real(v), scale = std::pow(10.0, static_cast<double>(digits));
  if (!std::isfinite(d)) fault("round: the number is not finite");
  if (method == "common")
    return Value(*parse_real(fmt::format("{:.{}f}", d, digits)));  // half to even on the exact value
  if (method == "ceil") return Value(std::ceil(d * scale) / scale);
  if (method == "floor") return Value(std::floor(d * scale) / scale);
  fault("round: the method should be common, ceil or floor");
}

// --- lists

Value list_of(Interpreter& run, const Value& v, const Args&) { return run.list(iterate(run.budget(), v)); }

Value first(Interpreter& run, const Value& v, const Args&) {
  if (v.is(Kind::list) && v.list().kind == List::Kind::generator) {  // takes one, leaves the rest
    const List& l = v.list();
    return l.taken < l.items.size() ? l.items[l.taken++]
                                    : Value::undefined("there is no first item, the list is empty");
  }
  const std::vector<Value> items = iterate(run.budget(), v);
  return items.empty() ? Value::undefined("there is no first item, the list is empty") : items.front();
}

Value last(Interpreter& run, const Value& v, const Args&) {
  if (!has_length(v)) fault("last does not work on a value of type {}", type_name(v));
  if (v.is(Kind::text) && !v.text().empty()) return *entry_at(v, -1);
  const std::vector<Value> items = iterate(run.budget(), v);
  return items.empty() ? Value::undefined("there is no last item, the list is empty") : items.back();
}

Value reverse(Interpreter& run, const Value& v, const Args&) {
  if (v.is(Kind::text)) return slice_of(run.budget(), v, std::nullopt, std::nullopt, -1);
  std::vector<Value> items = iterate(run.budget(), v);
  std::reverse(items.begin(), items.end());
  return run.list(std::move(items), has_length(v) ? List::Kind::generator : List::Kind::list);
}

Value items(Interpreter& run, const Value& v, const Args&) {
  if (v.is(Kind::undefined)) return run.list({}, List::Kind::generator);
  if (!v.is(Kind::dict)) fault("items needs a dictionary, got a value of type {}", type_name(v));
  std::vector<Value> out;
  for (const auto& entry : v.dict().items) out.push_back(run.list({entry.first, entry.second}, List::Kind::tuple));
  return run.list(std::move(out), List::Kind::generator);
}

/// "a.0.b": attributes and positions, one inside the other.
std::vector<Value> attribute_path(Interpreter& run, const Value& attribute) {
  if (attribute.is(Kind::none)) return {};
  if (!attribute.is(Kind::text)) return {attribute};
  std::vector<Value> path;
  for (const std::string_view part : python::split(attribute.text(), ".", -1)) {
    const bool position =
        !part.empty() && part.size() < 10 && part.find_first_not_of("0123456789") == std::string_view::npos;
    path.push_back(position ? Value(*parse_integer(part, 10)) : run.text(std::string(part)));
  }
  return path;
}

Value follow(Interpreter& run, Value v, const std::vector<Value>& path, const Value* missing = nullptr) {
  for (const Value& part : path) {
    v = run.item(v, part);
    if (missing && !missing->is(Kind::none) && v.is(Kind::undefined)) v = *missing;
  }
  return v;
}

Value ignoring_case(const Value& v, bool case_sensitive) {
  return case_sensitive || !v.is(Kind::text) ? v : Value(python::lower(v.text()));
}

Value join(Interpreter& run, const Value& v, const Args& args) {
  const Bound b("join", args, {"d", "attribute"});
  const MarkedText separator = b[0] ? str(run.budget(), *b[0]) : MarkedText();
  const std::vector<Value> path = b[1] ? attribute_path(run, *b[1]) : std::vector<Value>();
  MarkedText out;
  bool first_part = true;
  for (const Value& item : iterate(run.budget(), v)) {
    run.budget().charge(separator.cost());
    if (!first_part) out.append(separator);
    first_part = false;
    append_str(run.budget(), follow(run, item, path), out);
  }
  return run.text(std::move(out));
}

struct Keyed {
  Value key, value;
};

/// Sorts by key; equal ones keep their order, also in reverse.
std::vector<Value> sorted(Interpreter& run, std::vector<Keyed> entries, bool reversed) {
  std::stable_sort(entries.begin(), entries.end(), [&](const Keyed& a, const Keyed& b) {
    return reversed ? less(run.budget(), b.key, a.key) : less(run.budget(), a.key, b.key);
  });
  std::vector<Value> out;
  for (Keyed& e : entries) out.push_back(std::move(e.value));
  return out;
}

Value sort(Interpreter& run, const Value& v, const Args& args) {
  const Bound b("sort", args, {"reverse", "case_sensitive", "attribute"});
  std::vector<std::vector<Value>> paths(1);
  if (b[2] && b[2]->is(Kind::text)) {
    paths.clear();
    for (const std::string_view part : python::split(b[2]->text(), ",", -1))
      paths.push_back(attribute_path(run, Value(part)));
  } else if (b[2]) {
    paths[0] = attribute_path(run, *b[2]);
  }
  std::vector<Keyed> entries;
  for (const Value& item : iterate(run.budget(), v)) {
    std::vector<Value> key;
    for (const auto& path : paths) key.push_back(ignoring_case(follow(run, item, path), b.flag(1, false)));
    entries.push_back({run.list(std::move(key)), item});
  }
  return run.list(sorted(run, std::move(entries), b.flag(0, false)));
}

Value dictsort(Interpreter& run, const Value& v, const Args& args) {
  const Bound b("dictsort", args, {"case_sensitive", "by", "reverse"});
  const std::string by = b[1] ? b.text(1) : "key";
  if (by != "key" && by != "value") fault("dictsort: `by` should be key or value");
  if (v.is(Kind::undefined)) fault("{}", v.why());
  if (!v.is(Kind::dict)) fault("dictsort needs a dictionary, got a value of type {}", type_name(v));
  std::vector<Keyed> entries;
  for (const auto& entry : v.dict().items) {
    const Value& key = by == "key" ? entry.first : entry.second;
    entries.push_back({ignoring_case(key, b.flag(0, false)), run.list({entry.first, entry.second}, List::Kind::tuple)});
  }
  return run.list(sorted(run, std::move(entries), b.flag(2, false)));
}

Value unique(Interpreter& run, const Value& v, const Args& args) {
  const Bound b("unique", args, {"case_sensitive", "attribute"});
  const std::vector<Value> path = b[1] ? attribute_path(run, *b[1]) : std::vector<Value>();
  Dict seen;
  std::vector<Value> out;
  for (const Value& item : iterate(run.budget(), v)) {
    const Value key = ignoring_case(follow(run, item, path), b.flag(0, false));
    if (seen.find(key)) continue;
    seen.set(key, Value(true));
    out.push_back(item);
  }
  return run.list(std::move(out), List::Kind::generator);
}

template <bool largest>
Value extreme(Interpreter& run, const Value& v, const Args& args) {
  const Bound b(largest ? "max" : "min", args, {"case_sensitive", "attribute"});
  const std::vector<Value> path = b[1] ? attribute_path(run, *b[1]) : std::vector<Value>();
  std::optional<Keyed> best;
  for (const Value& item : iterate(run.budget(), v)) {
    const Value key = ignoring_case(follow(run, item, path), b.flag(0, false));
    if (!best || (largest ? less(run.budget(), best->key, key) : less(run.budget(), key, best->key)))
      best = Keyed{key, item};
  }
  return best ? best->value : Value::undefined("the list is empty");
}

Value sum(Interpreter& run, const Value& v, const Args& args) {
  const Bound b("sum", args, {"attribute", "start"});
  const std::vector<Value> path = b[0] ? attribute_path(run, *b[0]) : std::vector<Value>();
  Value total = b[1] ? *b[1] : Value(int64_t(0));
  if (total.is(Kind::text)) fault("sum does not work on strings; use join");
  for (const Value& item : iterate(run.budget(), v))
    total = arithmetic(run.budget(), BinaryOp::add, total, follow(run, item, path));
  return total;
}

Value map(Interpreter& run, const Value& v, const Args& args) {
  if (!truth(v)) return run.list({}, List::Kind::generator);
  std::vector<Value> out;
  if (args.positional.empty()) {
    const Bound b("map", args, {"attribute", "default"}, 1);
    const std::vector<Value> path = attribute_path(run, *b[0]);
    for (const Value& item : iterate(run.budget(), v)) out.push_back(follow(run, item, path, b[1]));
  } else {
    const Args rest{{args.positional.begin() + 1, args.positional.end()}, args.named};
    for (const Value& item : iterate(run.budget(), v))
      out.push_back(run.apply_filter(str(run.budget(), args.positional[0]).text(), item, rest));
  }
  return run.list(std::move(out), List::Kind::generator);
}

/// select and reject look at the items, selectattr and rejectattr at an attribute of each.
template <bool keep, bool by_attribute>
Value select(Interpreter& run, const Value& v, const Args& args) {
  if (!truth(v)) return run.list({}, List::Kind::generator);
  const size_t taken = by_attribute ? 1 : 0;
  if (args.positional.size() < taken) fault("selectattr and rejectattr need an attribute");
  const std::vector<Value> path = by_attribute ? attribute_path(run, args.positional[0]) : std::vector<Value>();
  const bool has_test = args.positional.size() > taken;
  const MarkedText test = has_test ? str(run.budget(), args.positional[taken]) : MarkedText();
  Args rest{{}, args.named};
  if (has_test)
    rest.positional.assign(args.positional.begin() + static_cast<std::ptrdiff_t>(taken) + 1, args.positional.end());
  std::vector<Value> out;
  for (const Value& item : iterate(run.budget(), v)) {
    const Value subject = follow(run, item, path);
    if ((has_test ? run.apply_test(test.text(), subject, rest) : truth(subject)) == keep) out.push_back(item);
  }
  return run.list(std::move(out), List::Kind::generator);
}

Value batch(Interpreter& run, const Value& v, const Args& args) {
  const Bound b("batch", args, {"linecount", "fill_with"}, 1);
  const int64_t n = b.integer(0, 1);
  if (n < 1) fault("batch: the count should be positive");
  std::vector<Value> out, row;
  for (const Value& item : iterate(run.budget(), v)) {
    row.push_back(item);
    if (static_cast<int64_t>(row.size()) == n) out.push_back(run.list(std::exchange(row, {})));
  }
  if (!row.empty()) {
    const bool fills = b[1] && !b[1]->is(Kind::none);
    if (fills) run.budget().charge(static_cast<uint64_t>(n));
    if (fills) row.resize(static_cast<size_t>(n), *b[1]);
    out.push_back(run.list(std::move(row)));
  }
  return run.list(std::move(out), List::Kind::generator);
}

Value attr(Interpreter& run, const Value& v, const Args& args) {
  const Bound b("attr", args, {"name"}, 1);
  if (v.is(Kind::undefined)) fault("{}", v.why());
  if (v.is(Kind::dict) && !has_method(v, b.text(0))) return Value::undefined("a dictionary has no such attribute");
  return run.attribute(v, b.text(0));
}

Value tojson(Interpreter& run, const Value& v, const Args& args) {
  const Bound b("tojson", args, {"ensure_ascii", "indent", "separators", "sort_keys"});
  JsonStyle style{.ascii = b.flag(0, false), .sort_keys = b.flag(3, false), .indent = {}};
  if (b[1] && b[1]->is(Kind::text)) {
    style.indent = b[1]->marked();
  } else if (b[1] && !b[1]->is(Kind::none)) {
    const int64_t width = b.integer(1, 0);
    if (width > 1000) fault("tojson: an indent of {} is too large", width);
    style.indent = MarkedText(std::string(static_cast<size_t>(std::max<int64_t>(width, 0)), ' '));
  }
  if (style.indent) style.item_separator = MarkedText(",");
  if (b[2] && !b[2]->is(Kind::none)) {
    const std::vector<Value> pair = iterate(run.budget(), *b[2]);
    if (pair.size() != 2 || !pair[0].is(Kind::text) || !pair[1].is(Kind::text))
      fault("tojson: separators should be two strings");
    style.item_separator = pair[0].marked();
    style.key_separator = pair[1].marked();
  }
  return run.text(to_json(run.budget(), v, style));
}

constexpr std::pair<std::string_view, Filter> kFilters[] = {
    {"abs", abs_of},
    {"attr", attr},
    {"batch", batch},
    {"capitalize", text_filter<python::capitalize>},
    {"count", length_of},
    {"d", default_value},
    {"default", default_value},
    {"dictsort", dictsort},
    {"e", escape},
    {"escape", escape},
    {"first", first},
    {"float", float_of},
    {"indent", indent},
    {"int", int_of},
    {"items", items},
    {"join", join},
    {"last", last},
    {"length", length_of},
    {"list", list_of},
    {"lower", text_filter<python::lower>},
    {"map", map},
    {"max", extreme<true>},
    {"min", extreme<false>},
    {"reject", select<false, false>},
    {"rejectattr", select<false, true>},
    {"replace", replace},
    {"reverse", reverse},
    {"round", round_to},
    {"safe", safe},
    {"select", select<true, false>},
    {"selectattr", select<true, true>},
    {"sort", sort},
    {"string", string},
    {"sum", sum},
    {"title", text_filter<title_words>},
    {"tojson", tojson},
    {"trim", trim},
    {"unique", unique},
    {"upper", text_filter<python::upper>},
};

}  // namespace

Filter find_filter(std::string_view name) {
  const auto* it =
      std::find_if(std::begin(kFilters), std::end(kFilters), [&](const auto& f) { return f.first == name; });
  return it == std::end(kFilters) ? nullptr : it->second;
}

}  // namespace awq::jinja
