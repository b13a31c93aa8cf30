#include "text/post_processor.h"

#include <nlohmann/json.hpp>

#include "text/json_fields.h"
#include "text/vocabulary.h"

namespace awq {
namespace {

namespace fields = json_fields;
constexpr std::string_view kTemplate = "post_processor TemplateProcessing";

/// Ids of the special token `name`, listed beside the template.
std::vector<int32_t> special_ids(const nlohmann::json& spec, const std::string& name) {
  const nlohmann::json* tokens = fields::find(spec, "special_tokens");
  const nlohmann::json* token = tokens ? fields::find(*tokens, name) : nullptr;
  if (!token) fail("tokenizer", "tokenizer.json: the template uses the special token \"{}\" without listing it", name);
  std::vector<int32_t> ids;
  for (const nlohmann::json& id : fields::array(*token, kTemplate, "ids"))
    ids.push_back(fields::index(id, kTemplate, "ids", Vocabulary::limit));
  return ids;
}

PostProcessor around_one_text(const nlohmann::json& spec) {
  PostProcessor p;
  bool seen = false;
  for (const nlohmann::json& part : fields::array(spec, kTemplate, "single")) {
    if (const nlohmann::json* special = fields::find(part, "SpecialToken")) {
      const std::vector<int32_t> ids = special_ids(spec, fields::text(*special, kTemplate, "id"));
      std::vector<int32_t>& side = seen ? p.after : p.before;
      side.insert(side.end(), ids.begin(), ids.end());
    } else if (seen || !fields::find(part, "Sequence")) {
      fields::bad(kTemplate, "single", "special tokens around one sequence");
    } else {
      seen = true;
    }
  }
  if (!seen) fields::bad(kTemplate, "single", "special tokens around one sequence");
  return p;
}

/// BERT's and RoBERTa's: "cls" before the text and "sep" behind it, each ["token", id].
PostProcessor class_and_separator(const nlohmann::json& spec, const std::string& type) {
  const std::string component = "post_processor " + type;
  const auto ids = [&](std::string_view key) -> std::vector<int32_t> {
    const nlohmann::json& token = fields::array(spec, component, key);
    if (token.size() != 2) fields::bad(component, key, "a token and its id");
    return {fields::index(token[1], component, key, Vocabulary::limit)};
  };
  return {ids("cls"), ids("sep")};
}

PostProcessor one(const nlohmann::json& spec, const std::string& type) {
  if (type == "ByteLevel") return {};  // moves offsets only
  if (type == "TemplateProcessing") return around_one_text(spec);
  if (type == "BertProcessing" || type == "RobertaProcessing") return class_and_separator(spec, type);
  fail("tokenizer", "tokenizer.json: the post_processor {} is not implemented{}", type,
       type == "Sequence" ? " inside a Sequence" : "");
}

void append(const nlohmann::json& spec, PostProcessor& all) {
  const PostProcessor p = one(spec, fields::type(spec, "post_processor"));
  all.before.insert(all.before.begin(), p.before.begin(), p.before.end());
  all.after.insert(all.after.end(), p.after.begin(), p.after.end());
}

}  // namespace

PostProcessor make_post_processor(const nlohmann::json& spec) {
  PostProcessor all;
  if (spec.is_null()) return all;
  if (fields::type(spec, "post_processor") == "Sequence") {
    for (const nlohmann::json& p : fields::array(spec, "post_processor Sequence", "processors")) append(p, all);
  } else {
    append(spec, all);
  }
  return all;
}

}  // namespace awq
