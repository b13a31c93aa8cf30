#include "engine/documents.h"

#include <sstream>

namespace awq {
namespace {

std::vector<int32_t> encode_line(const nlohmann::ordered_json& line, const TextSide& text, std::string_view operation,
                                 const std::string& where) {
  if (line.is_object() && line.contains("text") && line.at("text").is_string())
    return text.tokenizer().encode(line.at("text").get<std::string>(), false, false);
  if (line.is_object() && line.contains("messages")) return text.encode_chat(line.at("messages"), false);
  fail(operation, "{}: expected an object with \"text\" (a string) or \"messages\" (a chat), got {:.60}", where,
       line.dump());
}

}  // namespace

std::vector<std::vector<int32_t>> encode_json_lines(std::string_view content, const TextSide& text,
                                                    std::string_view operation, std::string_view name) {
  std::vector<std::vector<int32_t>> documents;
  std::istringstream lines{std::string(content)};
  std::string line;
  for (int n = 1; std::getline(lines, line); ++n) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const auto json = nlohmann::ordered_json::parse(line, nullptr, false);
    const std::string where = fmt::format("{} line {}", name, n);
    if (json.is_discarded()) fail(operation, "{}: no valid JSON; expected one object a line", where);
    documents.push_back(encode_line(json, text, operation, where));
  }
  return documents;
}

}  // namespace awq
