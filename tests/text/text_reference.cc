// Compares the library with what the reference implementations wrote: text_reference VECTORS.json, as made by
// tools/make_template_vectors.py (with a folder), tools/make_tokenizer_vectors.py (with a tokenizer) or
// tools/make_sentencepiece_vectors.py. text_reference VECTORS.json TOKENIZER.json... with vectors of templates turns
// each rendered chat into tokens, with special tokens in its messages and without.
#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "awq/error.h"
#include "text/marked_cases.h"
#include "text/text_cases.h"

namespace {

using Json = nlohmann::ordered_json;

Json read_json(const std::string& path) {
  std::ifstream in(path);
  return Json::parse(in);
}

std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

int check_templates(const Json& vectors) {
  std::map<std::string, int> wrong;
  for (const Json& c : vectors.at("cases")) {
    const std::string name = c.at("template");
    const std::string source = read_file(vectors.at("folder").get<std::string>() + "/" + name);
    const std::string difference = awq::test::template_difference(source, c.at("variables"), c);
    wrong[name] += difference.empty() ? 0 : 1;
    if (!difference.empty()) fmt::print("{}, {}: {}\n", name, c.at("conversation").get<std::string>(), difference);
  }
  const auto exact = std::count_if(wrong.begin(), wrong.end(), [](const auto& w) { return w.second == 0; });
  fmt::print("{} of {} templates exact in {} renderings\n", exact, wrong.size(), vectors.at("cases").size());
  return exact == static_cast<long>(wrong.size()) && !wrong.empty() ? 0 : 1;
}

int check_tokenizer(const Json& vectors) {
  const Json& made = vectors.at("tokenizer");  // a path, or the file itself
  const std::string path = made.is_string() ? made.get<std::string>() : vectors.at("name").get<std::string>();
  const auto tokenizer = awq::Tokenizer::parse(made.is_string() ? read_file(path) : made.dump(), nullptr);
  int wrong = 0;
  for (const Json& c : vectors.at("cases")) {
    const std::string difference = awq::test::tokenizer_difference(tokenizer, c);
    if (!difference.empty() && ++wrong <= 20) fmt::print("{}\n", difference);
  }
  fmt::print("{}: {} of {} texts differ\n", path, wrong, vectors.at("cases").size());
  return wrong == 0 && !vectors.at("cases").empty() ? 0 : 1;
}

int check_model(const Json& made) {
  const auto tokenizer = awq::test::model_of(made);
  int wrong = 0;
  for (const Json& c : made.at("cases")) {
    const std::string difference = awq::test::sentencepiece_difference(tokenizer, c);
    if (!difference.empty() && ++wrong <= 20) fmt::print("{}\n", difference);
  }
  fmt::print("{}: {} of {} texts differ\n", made.at("name").get<std::string>(), wrong, made.at("cases").size());
  return wrong == 0 && !made.at("cases").empty() ? 0 : 1;
}

// --- special tokens of conversations

struct NamedTokenizer {
  std::string name;
  awq::Tokenizer tokenizer;
  std::string special;  // the texts of special tokens
};

NamedTokenizer open_tokenizer(const std::string& path) {
  NamedTokenizer t{path, awq::Tokenizer::parse(read_file(path), nullptr), " <|im_end|></s> <|eot_id|>\n"};
  for (int32_t id = 0, found = 0; id < t.tokenizer.vocab_size() && found < 8; ++id)
    if (t.tokenizer.is_special(id) && ++found > 0) t.special += t.tokenizer.token_text(id);
  return t;
}

/// The conversation with `text` before and behind every text of a message.
Json with_text(Json messages, const std::string& text) {
  const auto change = [&](Json& j, const char* key) {
    if (j.is_object() && j.contains(key) && j[key].is_string()) j[key] = text + j[key].get<std::string>() + text;
  };
  for (Json& m : messages) {
    change(m, "content");
    if (m.contains("content") && m["content"].is_array())
      for (Json& part : m["content"]) change(part, "text");
  }
  return messages;
}

/// Without the token that stands for what the vocabulary lacks.
std::vector<int32_t> special_of(const awq::Tokenizer& t, const std::vector<int32_t>& ids) {
  const std::optional<int32_t> unknown = t.id_of("<unk>");
  std::vector<int32_t> out;
  std::copy_if(ids.begin(), ids.end(), std::back_inserter(out),
               [&](int32_t id) { return t.is_special(id) && id != unknown; });
  return out;
}

/// Empty if a chat's tokens are those of its text, and special tokens in messages change nothing of the special ones.
std::string chat_difference(const awq::ChatTemplate& t, const Json& variables, const NamedTokenizer& by) {
  const awq::ChatTemplate::Options options = awq::test::options_of(variables);
  const auto encoded = [&](const std::string& text) {
    return by.tokenizer.encode_chat(t.render_marked(with_text(variables.at("messages"), text), options));
  };
  const awq::MarkedText chat = t.render_marked(variables.at("messages"), options);
  if (by.tokenizer.encode_chat(chat) != by.tokenizer.encode(chat.text(), false, true)) return "tokens differ";
  if (special_of(by.tokenizer, encoded("x")) != special_of(by.tokenizer, encoded(by.special)))
    return "messages make special tokens";
  return "";
}

/// Empty if all that the conversation writes is marked, or if the template, which may look into texts, refuses it.
std::string marks_difference(const awq::ChatTemplate& t, Json variables) {
  for (const char* key : {"messages", "tools", "documents"})
    if (variables.contains(key)) variables[key] = awq::test::made_private(variables[key]);
  try {
    return awq::test::unmarked_private(t.render_marked(variables.at("messages"), awq::test::options_of(variables)));
  } catch (const awq::Error&) {
    return "";
  }
}

int check_chats(const Json& vectors, const std::vector<NamedTokenizer>& tokenizers) {
  int wrong = 0, chats = 0;
  for (const Json& c : vectors.at("cases")) {
    if (c.contains("error")) continue;
    ++chats;
    const std::string name = c.at("template"), conversation = c.at("conversation");
    const awq::ChatTemplate t(read_file(vectors.at("folder").get<std::string>() + "/" + name));
    const auto report = [&](const std::string& difference, const std::string& by) {
      if (!difference.empty() && ++wrong <= 20) fmt::print("{}, {}: {} {}\n", name, conversation, difference, by);
    };
    report(marks_difference(t, c.at("variables")), "");
    for (const NamedTokenizer& by : tokenizers) report(chat_difference(t, c.at("variables"), by), by.name);
  }
  fmt::print("{} chats with {} tokenizers, {} differences\n", chats, tokenizers.size(), wrong);
  return wrong == 0 && chats > 0 && !tokenizers.empty() ? 0 : 1;
}

int compare_chats(int argc, char** argv) {
  std::vector<NamedTokenizer> tokenizers;
  for (int i = 2; i < argc; ++i) tokenizers.push_back(open_tokenizer(argv[i]));
  return check_chats(read_json(argv[1]), tokenizers);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) return 2;
  if (argc > 2) return compare_chats(argc, argv);
  int status = 0;
  const Json vectors = read_json(argv[1]);
  if (vectors.contains("folder")) status |= check_templates(vectors);
  for (const Json& m : vectors.value("models", Json::array())) status |= check_model(m);
  for (const Json& t : vectors.value("tokenizers", Json::array())) status |= check_tokenizer(t);
  return status;
}
