#include "engine/documents.h"

#include <sstream>

namespace awq {
namespace {

Document encode_line(const nlohmann::ordered_json& line, const TextSide& text, std::string_view operation,
                     const std::string& where, bool mask_prompts) {
  if (line.is_object() && line.contains("text") && line.at("text").is_string()) {
    Document d{.tokens = text.tokenizer().encode(line.at("text").get<std::string>(), false, false)};
    if (mask_prompts) d.counted.assign(d.tokens.size(), 1);
    return d;
  }
  if (line.is_object() && line.contains("messages"))
    return mask_prompts ? encode_answers(line.at("messages"), text)
                        : Document{.tokens = text.encode_chat(line.at("messages"), false), .counted = {}, .chat = true};
  fail(operation, "{}: expected an object with \"text\" (a string) or \"messages\" (a chat), got {:.60}", where,
       line.dump());
}

}  // namespace

std::vector<Document> encode_json_lines(std::string_view content, const TextSide& text, std::string_view operation,
                                        std::string_view name, bool mask_prompts) {
  std::vector<Document> documents;
  std::istringstream lines{std::string(content)};
  std::string line;
  for (int n = 1; std::getline(lines, line); ++n) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const auto json = nlohmann::ordered_json::parse(line, nullptr, false);
    const std::string where = fmt::format("{} line {}", name, n);
    if (json.is_discarded()) fail(operation, "{}: no valid JSON; expected one object a line", where);
    documents.push_back(encode_line(json, text, operation, where, mask_prompts));
  }
  return documents;
}

}  // namespace awq
