#include "text/jinja_builtins.h"

#include <algorithm>

namespace awq::jinja {
namespace {

constexpr int64_t kLongestRange = 100000;  // Jinja's sandbox has the same limit

class Function final : public Object {
 public:
  explicit Function(Value (*run)(Interpreter&, const Args&)) : run_(run) {}
  std::string_view type_name() const override { return "function"; }
  bool callable() const override { return true; }
  Value call(Interpreter& run, const Args& args) const override { return run_(run, args); }

 private:
  Value (*run_)(Interpreter&, const Args&);
};

Value range(Interpreter& run, const Args& args) {
  const Bound b("range", args, {"start", "stop", "step"}, 1);
  const int64_t start = b[1] ? b.integer(0, 0) : 0, stop = b[1] ? b.integer(1, 0) : b.integer(0, 0),
                step = b.integer(2, 1);
  if (step == 0) fault("range cannot have the step 0");
  std::vector<Value> items;
  for (int64_t i = start; step > 0 ? i < stop : i > stop;) {
    if (static_cast<int64_t>(items.size()) == kLongestRange) fault("range is longer than {}", kLongestRange);
    items.emplace_back(i);
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  return run.list(std::move(items), List::Kind::range);
}

Dict dict_of(Interpreter& run, const Args& args) {
  Dict d;
  if (args.positional.size() > 1) fault("dict and namespace take one dictionary and named values");
  if (!args.positional.empty() && args.positional[0].is(Kind::dict)) {
    d = args.positional[0].dict();
    run.budget().charge(4 * d.items.size());
  } else if (!args.positional.empty()) {
    for (const Value& pair : iterate(run.budget(), args.positional[0])) {
      const std::vector<Value> entry = iterate(run.budget(), pair);
      if (entry.size() != 2) fault("a dictionary is made of pairs, not of {} values", entry.size());
      d.set(entry[0], entry[1]);
    }
  }
  for (const auto& n : args.named) d.set(Value(n.first), n.second);
  return d;
}

Value dict(Interpreter& run, const Args& args) { return make_dict(run.budget(), dict_of(run, args)); }
Value make_namespace(Interpreter& run, const Args& args) { return run.new_namespace(dict_of(run, args)); }

Value raise_exception(Interpreter& run, const Args& args) {
  const Bound b("raise_exception", args, {"message"}, 1);
  fault("the template refuses this conversation: {}", str(run.budget(), *b[0]).text());
}

/// C's strftime with the conversions that Python documents. Others have no portable meaning.
Value strftime_now(Interpreter& run, const Args& args) {
  const Bound b("strftime_now", args, {"format"}, 1);
  const std::string& format = b.text(0);
  const std::tm now = run.now();
  std::string out;
  for (size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%') {
      out.push_back(format[i]);
      continue;
    }
    std::string conversion = "%";
    if (i + 1 < format.size() && format[i + 1] == '-') conversion.push_back(format[++i]);  // glibc: no padding
    const char c = i + 1 < format.size() ? format[++i] : '\0';
    if (c == '\0' || std::string_view("aAwdbBmyYHIpMSjUWcxXGuV%").find(c) == std::string_view::npos)
      fault("strftime_now: a conversion is not implemented");
    conversion.push_back(c);
    char buffer[128];
    out.append(buffer, std::strftime(buffer, sizeof buffer, conversion.c_str(), &now));
  }
  return run.text(MarkedText(std::move(out), b[0]->marked().has_marks()));
}

}  // namespace

Bound::Bound(std::string_view function, const Args& args, std::initializer_list<std::string_view> names,
             size_t required)
    : function_(function), values_(names.size(), nullptr) {
  if (args.positional.size() > names.size())
    fault("{} takes at most {} arguments, got {}", function, names.size(), args.positional.size());
  for (size_t i = 0; i < args.positional.size(); ++i) values_[i] = &args.positional[i];
  for (const auto& named : args.named) {
    const auto at = static_cast<size_t>(std::find(names.begin(), names.end(), named.first) - names.begin());
    if (at == names.size()) fault("{} takes no argument named {}", function, named.first);
    if (values_[at]) fault("{} got the argument {} twice", function, named.first);
    values_[at] = &named.second;
  }
  for (size_t i = 0; i < required; ++i)
    if (!values_[i]) fault("{} needs the argument {}", function, *(names.begin() + i));
}

bool Bound::flag(size_t i, bool missing) const { return values_[i] ? truth(*values_[i]) : missing; }
int64_t Bound::integer(size_t i, int64_t missing) const { return values_[i] ? to_integer(*values_[i]) : missing; }

const std::string& Bound::text(size_t i) const {
  if (values_[i]->is(Kind::undefined)) fault("{}", values_[i]->why());
  if (!values_[i]->is(Kind::text))
    fault("{} needs a string, got a value of type {}", function_, type_name(*values_[i]));
  return values_[i]->text();
}

std::optional<std::string_view> Bound::optional_text(size_t i) const {
  return values_[i] && !values_[i]->is(Kind::none) ? std::optional<std::string_view>(text(i)) : std::nullopt;
}

std::map<std::string, Value, std::less<>> global_functions() {
  std::map<std::string, Value, std::less<>> globals;
  const auto add = [&](const char* name, Value (*f)(Interpreter&, const Args&)) {
    globals.emplace(name, Value(std::shared_ptr<Object>(std::make_shared<Function>(f))));
  };
  add("range", range);
  add("dict", dict);
  add("namespace", make_namespace);
  add("raise_exception", raise_exception);
  add("strftime_now", strftime_now);
  return globals;
}

}  // namespace awq::jinja
