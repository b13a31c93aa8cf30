#include <algorithm>

#include "engine/documents.h"

namespace awq {
namespace {

template <class T>
size_t common_prefix(const T& a, const T& b) {
  return size_t(std::ranges::mismatch(a, b).in1 - a.begin());
}

size_t common_suffix(const std::string& a, const std::string& b) {
  return size_t(std::mismatch(a.rbegin(), a.rend(), b.rbegin(), b.rend()).first - a.rbegin());
}

struct Place {
  size_t begin, end;  // bytes of the rendered chat
};

/// What changes with the content of message `i`. Two stand-ins, for one may begin or end as the content does.
Place place_of(size_t i, nlohmann::ordered_json messages, const TextSide& text, const std::string& chat) {
  size_t before = chat.size(), after = chat.size();
  for (const char* stand_in : {"0", "1"}) {
    messages[i]["content"] = stand_in;
    const std::string other = text.render_chat(messages, false).text();
    before = std::min(before, common_prefix(chat, other));
    after = std::min(after, common_suffix(chat, other));
  }
  return {before, std::max(before, chat.size() - after)};
}

std::vector<int32_t> encode_first(size_t bytes, const MarkedText& chat, const TextSide& text) {
  return text.tokenizer().encode_chat(chat.part(std::string_view(chat.text()).substr(0, bytes)));
}

void count(Place p, const MarkedText& chat, const TextSide& text, Document& d) {
  if (p.begin == p.end) return;
  const std::vector<int32_t> up_to_end = encode_first(p.end, chat, text);
  const size_t first = common_prefix(d.tokens, encode_first(p.begin, chat, text));
  size_t last = common_prefix(d.tokens, up_to_end);
  if (last < up_to_end.size() && last < d.tokens.size()) ++last;
  if (last < d.tokens.size() && text.ends(d.tokens[last])) ++last;
  for (size_t t = first; t < last; ++t) d.counted[t] = 1;
}

bool is_answer(const nlohmann::ordered_json& message) {
  return message.is_object() && message.contains("role") && message.at("role") == "assistant";
}

}  // namespace

Document encode_answers(const nlohmann::ordered_json& messages, const TextSide& text) {
  const MarkedText chat = text.render_chat(messages, false);
  Document d{.tokens = text.tokenizer().encode_chat(chat), .counted = {}, .chat = true};
  d.counted.assign(d.tokens.size(), 0);
  for (size_t i = 0; messages.is_array() && i < messages.size(); ++i)
    if (is_answer(messages[i])) count(place_of(i, messages, text, chat.text()), chat, text, d);
  return d;
}

}  // namespace awq
