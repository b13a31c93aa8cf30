#include "text/chat_template.h"

#include "base/check.h"
#include "text/jinja_builtins.h"
#include "text/jinja_eval.h"
#include "text/jinja_parser.h"
#include "text/utf8.h"

namespace awq {

struct ChatTemplate::Program {
  jinja::Body body;
};

namespace {

using jinja::Value;
using OrderedJson = nlohmann::ordered_json;

constexpr int kDeepest = 90;  // below the limit of template values, so that templates can wrap what they are given

/// Values are charged to a budget of their own: their size is the caller's choice.
class Converter {
 public:
  Value convert(const OrderedJson& json, int depth = 0) {
    if (depth > kDeepest) fail("chat template", "messages, tools or variables nest more than {} deep", kDeepest);
    switch (json.type()) {
      case OrderedJson::value_t::null:
        return Value::none();
      case OrderedJson::value_t::boolean:
        return Value(json.get<bool>());
      case OrderedJson::value_t::number_integer:
        return Value(json.get<int64_t>());
      case OrderedJson::value_t::number_unsigned:
        return number(json.get<uint64_t>());
      case OrderedJson::value_t::number_float:
        return Value(json.get<double>());
      case OrderedJson::value_t::string:
        return text(json.get_ref<const std::string&>());
      case OrderedJson::value_t::array:
        return list(json, depth);
      case OrderedJson::value_t::object:
        return dict(json, depth);
      default:
        fail("chat template", "binary data cannot be given to a template");
    }
  }

 private:
  static Value number(uint64_t i) {
    if (i > static_cast<uint64_t>(INT64_MAX))
      fail("chat template", "the number {} is larger than templates can hold ({})", i, INT64_MAX);
    return Value(static_cast<int64_t>(i));
  }

  static Value text(const std::string& s) { return Value(utf8::valid(s) ? s : utf8::sanitize(s)); }

  Value list(const OrderedJson& json, int depth) {
    std::vector<Value> items;
    items.reserve(json.size());
    for (const OrderedJson& item : json) items.push_back(convert(item, depth + 1));
    return jinja::make_list(budget_, std::move(items));
  }

  Value dict(const OrderedJson& json, int depth) {
    jinja::Dict d;
    for (const auto& [key, value] : json.items()) d.set(text(key), convert(value, depth + 1));
    return jinja::make_dict(budget_, std::move(d));
  }

  jinja::Budget budget_{UINT64_MAX};
};

}  // namespace

ChatTemplate::ChatTemplate(std::string source)
    : source_(std::move(source)), program_(std::make_unique<Program>(Program{jinja::parse(source_)})) {}
ChatTemplate::~ChatTemplate() = default;
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;

std::string ChatTemplate::render(const OrderedJson& messages, const Options& options) const {
  Converter values;
  std::map<std::string, Value, std::less<>> names = jinja::global_functions();
  if (!options.bos_token.empty()) names.insert_or_assign("bos_token", Value(utf8::sanitize(options.bos_token)));
  if (!options.eos_token.empty()) names.insert_or_assign("eos_token", Value(utf8::sanitize(options.eos_token)));
  if (!options.extra.is_null() && !options.extra.is_object())
    fail("chat template", "extra variables should be an object of names and values");
  if (options.extra.is_object())
    for (const auto& [name, value] : options.extra.items()) names.insert_or_assign(name, values.convert(value));
  names.insert_or_assign("messages", values.convert(messages));
  names.insert_or_assign("tools", values.convert(options.tools));
  names.insert_or_assign("documents", values.convert(options.documents));
  names.insert_or_assign("add_generation_prompt", Value(options.add_generation_prompt));
  jinja::Interpreter run({options.max_work, options.max_output}, options.now);
  return run.render(program_->body, std::move(names));
}

}  // namespace awq
