#include "text/jinja_operators.h"

#include <algorithm>
#include <cmath>

#include "text/python_text.h"
#include "text/utf8.h"

namespace awq::jinja {
namespace {

[[noreturn]] void unsupported(std::string_view op, const Value& a, const Value& b) {
  for (const Value& v : {a, b})
    if (v.is(Kind::undefined)) fault("{}", v.why());
  fault("`{}` does not work on {} and {}", op, type_name(a), type_name(b));
}

std::string_view sign_of(BinaryOp op) {
  switch (op) {
    case BinaryOp::add:
      return "+";
    case BinaryOp::sub:
      return "-";
    case BinaryOp::mul:
      return "*";
    case BinaryOp::div:
      return "/";
    case BinaryOp::floor_div:
      return "//";
    case BinaryOp::mod:
      return "%";
    case BinaryOp::pow:
      return "**";
  }
  return "?";
}

[[noreturn]] void overflow() { fault("an integer leaves the range of 64 bits"); }

int64_t floor_div(int64_t a, int64_t b) {
  if (b == 0) fault("division by zero");
  if (b == -1) {
    int64_t r = 0;
    if (__builtin_sub_overflow(int64_t(0), a, &r)) overflow();
    return r;
  }
  return a / b - ((a % b != 0 && (a < 0) != (b < 0)) ? 1 : 0);
}

int64_t power(int64_t base, int64_t exponent) {
  int64_t r = 1;
  for (; exponent > 0; --exponent) {
    if (__builtin_mul_overflow(r, base, &r)) overflow();
    if (r == 0 || (r == 1 && base == 1)) break;
    if (base == -1 && exponent > 2) exponent = 2 + exponent % 2;
  }
  return r;
}

Value integers(BinaryOp op, int64_t a, int64_t b) {
  int64_t r = 0;
  switch (op) {
    case BinaryOp::add:
      if (__builtin_add_overflow(a, b, &r)) overflow();
      return Value(r);
    case BinaryOp::sub:
      if (__builtin_sub_overflow(a, b, &r)) overflow();
      return Value(r);
    case BinaryOp::mul:
      if (__builtin_mul_overflow(a, b, &r)) overflow();
      return Value(r);
    case BinaryOp::div:
      if (b == 0) fault("division by zero");
      return Value(static_cast<double>(a) / static_cast<double>(b));
    case BinaryOp::floor_div:
      return Value(floor_div(a, b));
    case BinaryOp::mod:
      return Value(b == -1 ? int64_t(0) : a - floor_div(a, b) * b);
    case BinaryOp::pow:
      if (b < 0 && a == 0) fault("division by zero");
      return b < 0 ? Value(std::pow(static_cast<double>(a), static_cast<double>(b))) : Value(power(a, b));
  }
  return {};
}

double float_mod(double a, double b) {
  const double r = std::fmod(a, b);
  if (r == 0) return std::copysign(0.0, b);
  return (r < 0) != (b < 0) ? r + b : r;
}

Value reals(BinaryOp op, double a, double b) {
  if (b == 0 && (op == BinaryOp::div || op == BinaryOp::floor_div || op == BinaryOp::mod)) fault("division by zero");
  switch (op) {
    case BinaryOp::add:
      return Value(a + b);
    case BinaryOp::sub:
      return Value(a - b);
    case BinaryOp::mul:
      return Value(a * b);
    case BinaryOp::div:
      return Value(a / b);
    case BinaryOp::floor_div:
      return Value(std::floor((a - float_mod(a, b)) / b + 0.5));
    case BinaryOp::mod:
      return Value(float_mod(a, b));
    case BinaryOp::pow: {
      const double r = std::pow(a, b);
      if (!std::isfinite(r) && std::isfinite(a) && std::isfinite(b)) fault("a power is out of range or no real number");
      return Value(r);
    }
  }
  return {};
}

Value add_texts(Budget& budget, const Value& a, const Value& b) {
  const bool safe = a.safe() || b.safe();
  MarkedText sum;
  for (const Value& v : {a, b}) sum.append(safe ? escaped(v) : v.marked());
  budget.charge(sum.cost());
  return Value(std::move(sum), safe);
}

Value add_lists(Budget& budget, const Value& a, const Value& b) {
  std::vector<Value> items = a.list().items;
  items.insert(items.end(), b.list().items.begin(), b.list().items.end());
  return make_list(budget, std::move(items), a.list().kind);
}

Value repeat(Budget& budget, const Value& v, int64_t times) {
  const auto n = static_cast<uint64_t>(std::max<int64_t>(times, 0));
  const uint64_t size = v.is(Kind::text) ? v.marked().cost() : v.list().items.size();
  uint64_t total = 0;
  if (__builtin_mul_overflow(n, size, &total)) total = UINT64_MAX;
  budget.charge(total);
  if (total == 0) return v.is(Kind::text) ? Value(MarkedText(), v.safe()) : make_list(budget, {}, v.list().kind);
  MarkedText text;
  std::vector<Value> items;
  for (uint64_t i = 0; i < n; ++i) {
    if (v.is(Kind::text))
      text.append(v.marked());
    else
      items.insert(items.end(), v.list().items.begin(), v.list().items.end());
  }
  return v.is(Kind::text) ? Value(std::move(text), v.safe()) : make_list(budget, std::move(items), v.list().kind);
}

bool repeats(const Value& v, const Value& times) {
  return (v.is(Kind::text) || is_list_or_tuple(v)) && is_integer(times);
}

}  // namespace

Value arithmetic(Budget& budget, BinaryOp op, const Value& a, const Value& b) {
  if (is_integer(a) && is_integer(b)) return integers(op, to_integer(a), to_integer(b));
  if (is_number(a) && is_number(b)) return reals(op, to_real(a), to_real(b));
  if (op == BinaryOp::add && a.is(Kind::text) && b.is(Kind::text)) return add_texts(budget, a, b);
  if (op == BinaryOp::add && is_list_or_tuple(a) && is_list_or_tuple(b) && a.list().kind == b.list().kind)
    return add_lists(budget, a, b);
  if (op == BinaryOp::mul && repeats(a, b)) return repeat(budget, a, to_integer(b));
  if (op == BinaryOp::mul && repeats(b, a)) return repeat(budget, b, to_integer(a));
  if (op == BinaryOp::mod && a.is(Kind::text)) fault("formatting with % is not implemented");
  unsupported(sign_of(op), a, b);
}

bool holds(Budget& budget, CompareOp op, const Value& a, const Value& b) {
  switch (op) {
    case CompareOp::eq:
      return equals(budget, a, b);
    case CompareOp::ne:
      return !equals(budget, a, b);
    case CompareOp::lt:
      return less(budget, a, b);
    case CompareOp::gt:
      return less(budget, b, a);
    case CompareOp::le:
      return less(budget, a, b) || equals(budget, a, b);
    case CompareOp::ge:
      return less(budget, b, a) || equals(budget, a, b);
    case CompareOp::in:
      return contains(budget, b, a);
    case CompareOp::not_in:
      return !contains(budget, b, a);
  }
  return false;
}

Value negate(const Value& v) { return v.is(Kind::real) ? Value(-v.real()) : integers(BinaryOp::sub, 0, to_integer(v)); }
Value positive(const Value& v) { return v.is(Kind::real) ? v : Value(to_integer(v)); }

std::vector<int64_t> slice_positions(int64_t n, std::optional<int64_t> start, std::optional<int64_t> stop,
                                     std::optional<int64_t> step) {
  const int64_t by = step.value_or(1);
  if (by == 0) fault("a slice cannot have the step 0");
  const int64_t low = by > 0 ? 0 : -1, high = by > 0 ? n : n - 1;
  const auto clamped = [&](std::optional<int64_t> i, int64_t missing) {
    if (!i) return missing;
    return std::clamp(*i < 0 ? *i + n : *i, low, high);
  };
  const int64_t begin = clamped(start, by > 0 ? low : high), end = clamped(stop, by > 0 ? high : low);
  std::vector<int64_t> out;
  // The distance is at most n, so that a step beyond it ends the slice and no addition can overflow.
  const int64_t stride = std::clamp(by, -n - 1, n + 1);
  for (int64_t i = begin; by > 0 ? i < end : i > end; i += stride) out.push_back(i);
  return out;
}

Value slice_of(Budget& budget, const Value& v, std::optional<int64_t> start, std::optional<int64_t> stop,
               std::optional<int64_t> step) {
  if (v.is(Kind::undefined)) fault("{}", v.why());
  if (v.is(Kind::text)) {
    budget.charge(8 * v.text().size());
    const std::vector<std::string_view> characters = python::characters(v.text());
    MarkedText out;
    for (const int64_t i : slice_positions(static_cast<int64_t>(characters.size()), start, stop, step))
      out.append_part(v.marked(), characters[size_t(i)]);
    budget.charge(out.cost());
    return Value(std::move(out), v.safe());
  }
  if (!v.is(Kind::list) || v.list().kind == List::Kind::view || v.list().kind == List::Kind::generator)
    fault("a value of type {} cannot be sliced", type_name(v));
  std::vector<Value> out;
  for (const int64_t i : slice_positions(static_cast<int64_t>(v.list().items.size()), start, stop, step))
    out.push_back(v.list().items[size_t(i)]);
  return make_list(budget, std::move(out), v.list().kind);
}

std::optional<Value> entry_at(const Value& v, int64_t position) {
  const bool indexable = v.is(Kind::text) || (v.is(Kind::list) && v.list().kind != List::Kind::view &&
                                              v.list().kind != List::Kind::generator);
  if (!indexable) return std::nullopt;
  const int64_t n = length(v);
  if (position < 0) position += n;
  if (position < 0 || position >= n) return std::nullopt;
  if (v.is(Kind::list)) return v.list().items[static_cast<size_t>(position)];
  return Value(v.marked().part(python::substring(v.text(), position, position + 1)), v.safe());
}

MarkedText escaped(const Value& v) {
  return v.safe() ? v.marked() : MarkedText(python::escape_html(v.text()), v.marked().has_marks());
}

MarkedText replaced(Budget& budget, const MarkedText& s, const std::string& from, const MarkedText& to, int64_t limit) {
  const std::vector<std::string_view> kept = python::around(s.text(), from, limit);
  budget.charge(kept.size() * (1 + to.cost()));
  MarkedText out;
  for (size_t i = 0; i < kept.size(); ++i) {
    if (i) out.append(to);
    out.append_part(s, kept[i]);
  }
  return out;
}

}  // namespace awq::jinja
