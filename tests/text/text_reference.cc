// Compares the library with what the reference implementations wrote: text_reference VECTORS.json, as made by
// tools/make_template_vectors.py (with a folder), tools/make_tokenizer_vectors.py (with a tokenizer) or
// tools/make_sentencepiece_vectors.py.
#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "awq/error.h"
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

}  // namespace

int main(int argc, char** argv) {
  int status = 0;
  for (int i = 1; i < argc; ++i) {
    const Json vectors = read_json(argv[i]);
    if (vectors.contains("folder")) status |= check_templates(vectors);
    for (const Json& m : vectors.value("models", Json::array())) status |= check_model(m);
    for (const Json& t : vectors.value("tokenizers", Json::array())) status |= check_tokenizer(t);
  }
  return argc > 1 ? status : 2;
}
