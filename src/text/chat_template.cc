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

/// Letters, digits, _ and -: no text of a special token.
bool is_word(const OrderedJson& json) {
  constexpr std::string_view in_words = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";
  return json.is_string() && json.get_ref<const std::string&>().find_first_not_of(in_words) == std::string::npos;
}

/// Values are charged to a budget of their own: their size is the caller's choice.
class Converter {
 public:
  explicit Converter(bool marked) : marked_(marked) {}

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
        return text(json.get_ref<const std::string&>(), marked_);
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

  Value text(const std::string& s, bool marked) const {
    return Value(MarkedText(utf8::valid(s) ? s : utf8::sanitize(s), marked));
  }

  Value list(const OrderedJson& json, int depth) {
    std::vector<Value> items;
    items.reserve(json.size());
    for (const OrderedJson& item : json) items.push_back(convert(item, depth + 1));
    return jinja::make_list(budget_, std::move(items));
  }

  Value dict(const OrderedJson& json, int depth) {
    jinja::Dict d;
    for (const auto& [key, value] : json.items()) {
      const bool is_role = depth == kMessage && key == "role" && is_word(value);
      d.set(text(key, marked_), is_role ? text(value.get_ref<const std::string&>(), false) : convert(value, depth + 1));
    }
    return jinja::make_dict(budget_, std::move(d));
  }

  static constexpr int kMessage = 1;  // the depth of an entry of the list of messages

  bool marked_;
  jinja::Budget budget_{UINT64_MAX};
};

}  // namespace

ChatTemplate::ChatTemplate(std::string source)
    : source_(std::move(source)), program_(std::make_unique<Program>(Program{jinja::parse(source_)})) {}
ChatTemplate::~ChatTemplate() = default;
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;

MarkedText ChatTemplate::render_marked(const OrderedJson& messages, const Options& options) const {
  Converter variables(false), conversation(true);
  std::map<std::string, Value, std::less<>> names = jinja::global_functions();
  if (!options.bos_token.empty()) names.insert_or_assign("bos_token", Value(utf8::sanitize(options.bos_token)));
  if (!options.eos_token.empty()) names.insert_or_assign("eos_token", Value(utf8::sanitize(options.eos_token)));
  if (!options.extra.is_null() && !options.extra.is_object())
    fail("chat template", "extra variables should be an object of names and values");
  if (options.extra.is_object())
    for (const auto& [name, value] : options.extra.items()) names.insert_or_assign(name, variables.convert(value));
  names.insert_or_assign("messages", conversation.convert(messages));
  names.insert_or_assign("tools", conversation.convert(options.tools));
  names.insert_or_assign("documents", conversation.convert(options.documents));
  names.insert_or_assign("add_generation_prompt", Value(options.add_generation_prompt));
  jinja::Interpreter run({options.max_work, options.max_output}, options.now);
  return run.render(program_->body, std::move(names));
}

}  // namespace awq
