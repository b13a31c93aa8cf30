// `awq tokenize`: what a tokenizer makes of a text. `awq render`: what a chat template makes of a conversation.
#include <iostream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "cli.h"

namespace awq::cli {
namespace {

using Json = nlohmann::ordered_json;

std::string dump(const Json& j) { return j.dump(-1, ' ', false, Json::error_handler_t::replace); }

struct TokenizeFlags {
  std::string model, tokenizer, text, file;
  std::vector<int32_t> decode;
  bool lines = false, ids = false, json = false, plain = false, special = false, skip_special = false;
  std::string splitting;
};

std::vector<std::string> texts_of(const TokenizeFlags& o, bool has_text) {
  std::string text = has_text ? o.text : o.file.empty() ? read_all(std::cin) : read_file(o.file);
  if (!o.lines) return {std::move(text)};
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

void print(const Tokenized& t, const TokenizeFlags& o) {
  if (o.json) return fmt::print("{}\n", dump({{"ids", t.ids}, {"tokens", t.tokens}, {"decoded", t.decoded}}));
  if (o.ids) return fmt::print("{}\n", fmt::join(t.ids, " "));
  for (size_t i = 0; i < t.ids.size(); ++i) fmt::print("{:>8}  {}\n", t.ids[i], dump(t.tokens[i]));
}

void run_tokenize(const TokenizeFlags& o, bool has_text) {
  const std::string& from = o.model.empty() ? o.tokenizer : o.model;
  const TokenizeOptions options{.add_special = !o.plain,
                                .parse_special = o.special,
                                .skip_special = o.skip_special,
                                .splitting = o.splitting,
                                .ids_only = o.ids && !o.json};
  if (!o.decode.empty()) {
    const std::string text = detokenize(from, {{o.decode}}, options).front();
    return fmt::print("{}\n", o.json ? dump({{"ids", o.decode}, {"decoded", text}}) : text);
  }
  for (const Tokenized& t : tokenize(from, texts_of(o, has_text), options)) print(t, o);
}

struct RenderFlags {
  std::string model, messages, tools;
  RenderOptions options;
  bool json = false, ids = false;
};

void run_render(RenderFlags& o) {
  Json messages = Json::parse(read_file(o.messages), nullptr, false);
  if (messages.is_discarded()) throw Error(fmt::format("[render] {}: no valid JSON", o.messages));
  if (messages.is_object() && messages.contains("messages")) messages = messages["messages"];
  if (!messages.is_array())
    throw Error(
        fmt::format("[render] {}: expected a list of messages, or an object with one as \"messages\"", o.messages));
  if (!o.tools.empty()) o.options.tools = read_file(o.tools);
  if (o.ids) {
    const std::vector<int32_t> ids = encode_chat(o.model, messages.dump(), o.options);
    return fmt::print("{}\n", o.json ? dump({{"ids", ids}}) : fmt::format("{}", fmt::join(ids, " ")));
  }
  const std::string text = render(o.model, messages.dump(), o.options);
  fmt::print("{}", o.json ? dump({{"text", text}}) + "\n" : text);
}

}  // namespace

void add_tokenize(CLI::App& app) {
  auto o = std::make_shared<TokenizeFlags>();
  CLI::App* c = app.add_subcommand("tokenize", "Text to tokens, or tokens to text");
  auto* model = add_model(*c, "MODEL", o->model, "Folder or .gguf file; only its tokenizer is read");
  c->add_option("--tokenizer", o->tokenizer,
                "Instead of MODEL: tokenizer.json, a SentencePiece model or a tiktoken file")
      ->excludes(model);
  auto* text = c->add_option("-p,--text", o->text, "The text; default: standard input");
  auto* file = c->add_option("-f,--file", o->file, "File with the text")->excludes(text);
  c->add_option("--decode", o->decode, "Ids to decode, with commas between them")
      ->delimiter(',')
      ->excludes(text)
      ->excludes(file);
  c->add_flag("--lines", o->lines, "Each line is a text of its own; default: one text");
  c->add_flag("--ids", o->ids, "Print ids only, the ids of a text in a line; default: a token a line");
  c->add_flag("--json", o->json, "Print a JSON object a text: ids, tokens and the text decoded from them");
  c->add_flag("--plain", o->plain,
              "Leave out what the tokenizer puts around a text, such as BOS; default: put it there");
  c->add_flag("--special", o->special,
              "The texts of special tokens, such as <|im_end|>, become these tokens; default: they are plain text");
  c->add_flag("--skip-special", o->skip_special, "Decode without special tokens; default: with them");
  c->add_option("--splitting", o->splitting, "For tiktoken files: how text is split, such as llama3 or qwen2");
  c->footer("Example:\n  awq tokenize smollm2-awq --text \"Hello, world\"");
  c->callback([o, text] {
    if (o->model.empty() && o->tokenizer.empty()) throw CLI::RequiredError("MODEL or --tokenizer");
    run_tokenize(*o, text->count() > 0);
  });
}

void add_render(CLI::App& app) {
  auto o = std::make_shared<RenderFlags>();
  CLI::App* c = app.add_subcommand("render", "A conversation as the model's chat template writes it");
  auto* model = add_model(*c, "MODEL", o->model, "Folder or .gguf file; only its chat template and tokenizer are read");
  c->add_option("--template", o->options.chat_template, "Template to use instead of the model's own");
  c->add_option("--messages", o->messages, "JSON file: a list of messages, or an object with \"messages\"")->required();
  c->add_option("--tools", o->tools, "JSON file with a list of tools");
  c->add_flag("--add-generation-prompt", o->options.add_generation_prompt,
              "End where the answer begins; default: do not");
  c->add_option("--kwargs", o->options.variables, "Further variables, a JSON object: '{\"enable_thinking\": false}'");
  auto* ids = c->add_flag("--ids", o->ids, "Print the ids of its tokens instead, as the model reads it")->needs(model);
  c->add_flag("--special", o->options.parse_special,
              "With --ids: the texts of special tokens in messages become these tokens; default: they are plain text")
      ->needs(ids);
  c->add_flag("--json", o->json, "Print a JSON object with the text, or with the ids");
  c->footer("Example:\n  awq render smollm2-awq --messages chat.json --add-generation-prompt");
  c->callback([o] {
    if (o->model.empty() && o->options.chat_template.empty()) throw CLI::RequiredError("MODEL or --template");
    run_render(*o);
  });
}

}  // namespace awq::cli
