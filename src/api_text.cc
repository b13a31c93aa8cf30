// The public functions on text: tokenize, detokenize, render.
#include "awq/awq.h"
#include "base/check.h"
#include "engine/text_source.h"
#include "io/file.h"

namespace awq {
namespace {

nlohmann::ordered_json parsed(std::string_view text, std::string_view what) {
  if (text.empty()) return nullptr;
  nlohmann::ordered_json j = nlohmann::ordered_json::parse(text, nullptr, false);
  if (j.is_discarded()) fail("render", "{}: no valid JSON", what);
  return j;
}

MarkedText rendered(const std::filesystem::path& model, std::string_view messages, const RenderOptions& options) {
  std::string source;
  ChatTemplate::Options o;
  if (!model.empty()) {
    const TextSource text = TextSource::open(model);
    o = text.template_options();
    source = text.chat_template();
    if (source.empty() && options.chat_template.empty())
      fail("render", "{}: the model has no chat template, so it was not made for chat; give --template FILE",
           model.string());
  }
  if (!options.chat_template.empty()) source = read_text(options.chat_template);
  o.tools = parsed(options.tools, "tools");
  o.documents = parsed(options.documents, "documents");
  o.extra = parsed(options.variables, "variables");
  o.add_generation_prompt = options.add_generation_prompt;
  return ChatTemplate(std::move(source)).render_marked(parsed(messages, "messages"), o);
}

}  // namespace

std::vector<Tokenized> tokenize(const std::filesystem::path& model, std::span<const std::string> texts,
                                const TokenizeOptions& options) {
  const Tokenizer tokenizer = TextSource::open(model).tokenizer(options.splitting);
  std::vector<Tokenized> out;
  for (const std::string& text : texts) {
    Tokenized& t = out.emplace_back();
    t.ids = tokenizer.encode(text, options.add_special, options.parse_special);
    if (options.ids_only) continue;
    for (const int32_t id : t.ids) t.tokens.push_back(tokenizer.token_text(id));
    t.decoded = tokenizer.decode(t.ids, options.skip_special);
  }
  return out;
}

std::vector<std::string> detokenize(const std::filesystem::path& model, std::span<const std::vector<int32_t>> ids,
                                    const TokenizeOptions& options) {
  const Tokenizer tokenizer = TextSource::open(model).tokenizer(options.splitting);
  std::vector<std::string> out;
  for (const std::vector<int32_t>& list : ids) {
    for (const int32_t id : list)
      if (id < 0 || id >= tokenizer.vocab_size())
        fail("tokenize", "{} is no token: ids go from 0 to {}", id, tokenizer.vocab_size() - 1);
    out.push_back(tokenizer.decode(list, options.skip_special));
  }
  return out;
}

std::string render(const std::filesystem::path& model, std::string_view messages, const RenderOptions& options) {
  return rendered(model, messages, options).text();
}

std::vector<int32_t> encode_chat(const std::filesystem::path& model, std::string_view messages,
                                 const RenderOptions& options) {
  const MarkedText chat = rendered(model, messages, options);
  const Tokenizer tokenizer = TextSource::open(model).tokenizer();
  return options.parse_special ? tokenizer.encode(chat.text(), false, true) : tokenizer.encode_chat(chat);
}

}  // namespace awq
