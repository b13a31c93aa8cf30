#include "serve/answer_parts.h"

#include <algorithm>
#include <array>

namespace awq {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view kThink = "<think>", kThought = "</think>";
constexpr std::string_view kHermes = "<tool_call>", kHermesEnd = "</tool_call>", kMistral = "[TOOL_CALLS]",
                           kLlama = "<|python_tag|>";
constexpr std::array kMarks = {kHermes, kMistral, kLlama};

std::string_view trimmed(std::string_view s) {
  const size_t begin = s.find_first_not_of(" \t\r\n"), end = s.find_last_not_of(" \t\r\n");
  return begin == std::string_view::npos ? std::string_view() : s.substr(begin, end - begin + 1);
}

/// How much of the end of `text` may be the beginning of `mark`.
size_t beginning(std::string_view text, std::string_view mark) {
  size_t n = std::min(text.size(), mark.size() - 1);
  while (n && !text.ends_with(mark.substr(0, n))) --n;
  return n;
}

/// {"name": ..., "arguments" or "parameters": {...}}, as {"function": ...} too.
bool add_call(const Json& j, std::vector<ToolCall>& calls) {
  if (!j.is_object()) return false;
  if (j.contains("function")) return add_call(j.at("function"), calls);
  if (!j.contains("name") || !j.at("name").is_string()) return false;
  const auto arguments = j.contains("arguments") ? j.find("arguments") : j.find("parameters");
  if (arguments == j.end()) return false;
  calls.push_back(
      {j.at("name").get<std::string>(), arguments->is_string() ? arguments->get<std::string>() : arguments->dump()});
  return true;
}

bool add_calls(std::string_view text, std::vector<ToolCall>& calls) {
  const Json j = Json::parse(text, nullptr, false);
  if (j.is_array()) return !j.empty() && std::ranges::all_of(j, [&](const Json& one) { return add_call(one, calls); });
  return add_call(j, calls);
}

bool add_hermes(std::string_view text, std::vector<ToolCall>& calls) {
  while (!(text = trimmed(text)).empty()) {
    if (!text.starts_with(kHermes)) return false;
    text.remove_prefix(kHermes.size());
    const size_t end = std::min(text.find(kHermesEnd), text.size());  // the last may lack it
    if (!add_calls(text.substr(0, end), calls)) return false;
    text.remove_prefix(std::min(text.size(), end + kHermesEnd.size()));
  }
  return true;
}

}  // namespace

std::vector<ToolCall> parse_tool_calls(std::string_view text) {
  text = trimmed(text);
  std::vector<ToolCall> calls;
  bool good;
  if (text.starts_with(kHermes))
    good = add_hermes(text, calls);
  else if (text.starts_with(kMistral))
    good = add_calls(text.substr(kMistral.size()), calls);
  else
    good = add_calls(text.starts_with(kLlama) ? text.substr(kLlama.size()) : text, calls);
  return good ? calls : std::vector<ToolCall>();
}

AnswerParts::AnswerParts(bool thinks, bool thinking, bool tools)
    : thinks_(thinks), tools_(tools), state_(thinking ? State::reasoning : State::begin) {}

void AnswerParts::begin_call(std::string_view call, std::string name) {
  state_ = State::call;
  held_ = call;
  given_ = call.size();
  named_ = std::move(name);
}

AnswerParts::Piece AnswerParts::push(std::string_view text) {
  held_ += text;
  Piece piece;
  advance(piece, false);
  return piece;
}

AnswerParts::Piece AnswerParts::finish() {
  Piece piece;
  advance(piece, true);
  if (state_ != State::call) return piece;
  calls_ = parse_tool_calls(held_);
  if (calls_.empty() && !named_.empty())
    calls_.push_back({named_, held_.substr(given_)});
  else if (calls_.empty())
    piece.content += held_;
  held_.clear();
  return piece;
}

void AnswerParts::advance(Piece& piece, bool last) {
  if (state_ == State::begin) begin(last);
  if (state_ == State::reasoning) reason(piece, last);
  if (state_ == State::content) say(piece, last);
}

// Only at the beginning: a brace further on is text like any other.
void AnswerParts::begin(bool last) {
  const std::string_view text = trimmed(held_);
  if (text.empty() && !last) return;
  if (thinks_ && text.starts_with(kThink)) {
    held_.erase(0, held_.find(kThink) + kThink.size());
    state_ = State::reasoning;
  } else if (thinks_ && !last && kThink.starts_with(text)) {
    return;
  } else if (tools_ && text.starts_with('{')) {
    state_ = State::call;
  } else {
    state_ = State::content;
  }
}

void AnswerParts::reason(Piece& piece, bool last) {
  if (up_to(kThought, piece.reasoning, last)) state_ = State::content;
}

void AnswerParts::say(Piece& piece, bool last) {
  if (!tools_) {
    piece.content += held_;
    held_.clear();
    return;
  }
  size_t at = held_.size(), keep = 0;
  for (std::string_view mark : kMarks)
    at = std::min(at, held_.find(mark)), keep = std::max(keep, beginning(held_, mark));
  if (at == held_.size() && !last) at -= keep;
  const bool call = std::ranges::any_of(
      kMarks, [&](std::string_view m) { return std::string_view(held_).substr(at).starts_with(m); });
  piece.content += held_.substr(0, at);
  held_.erase(0, at);
  if (call) state_ = State::call;
}

bool AnswerParts::up_to(std::string_view mark, std::string& to, bool last) {
  const size_t at = held_.find(mark);
  const size_t sure = at != std::string::npos ? at : held_.size() - (last ? 0 : beginning(held_, mark));
  to += held_.substr(0, sure);
  held_.erase(0, at == std::string::npos ? sure : at + mark.size());
  return at != std::string::npos;
}

}  // namespace awq
