#include "engine/text_source.h"

#include "base/check.h"
#include "formats/gguf.h"
#include "formats/gguf_tokenizer.h"
#include "io/file.h"
#include "text/sentencepiece.h"
#include "text/tiktoken.h"

namespace awq {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kRankFiles[] = {"tiktoken.model", "qwen.tiktoken"};

/// The first line is base64, a space and digits: a SentencePiece model, being binary, has none like it.
bool is_rank_file(std::string_view bytes) {
  const std::string_view line = bytes.substr(0, bytes.find('\n'));
  const size_t space = line.find(' ');
  return space != line.npos && space > 0 && line.size() < 4096 &&
         line.substr(space + 1).find_first_not_of("0123456789\r") == line.npos &&
         line.substr(0, space).find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=") ==
             line.npos;
}

TextSource::Read folder_reader(const fs::path& folder) {
  return [folder](std::string_view name) {
    std::error_code ignored;
    return fs::exists(folder / name, ignored) ? read_text(folder / name) : std::string();
  };
}

TextSource::Read gguf_reader(const fs::path& path) {
  return [files = gguf_side_files(Gguf(path))](std::string_view name) {
    for (const SideFile& f : files)
      if (f.name == name) return f.bytes;
    return std::string();
  };
}

/// One file, under the name that its content has in a folder.
TextSource::Read file_reader(const fs::path& path) {
  std::string bytes = read_text(path);
  const size_t first = bytes.find_first_not_of(" \n\r\t");
  const std::string_view name = first != bytes.npos && bytes[first] == '{' ? "tokenizer.json" : "tokenizer.model";
  return [bytes = std::move(bytes), name](std::string_view asked) { return asked == name ? bytes : std::string(); };
}

}  // namespace

nlohmann::json json_file(const TextSource::Read& read, std::string_view name) {
  const std::string text = read(name);
  if (text.empty()) return nullptr;
  nlohmann::json j = nlohmann::json::parse(text, nullptr, false);
  if (j.is_discarded()) fail("open", "{} is no valid JSON; download it again", name);
  return j;
}

std::string token_text(const nlohmann::json& config, const char* key) {
  if (!config.is_object() || !config.contains(key)) return "";
  const nlohmann::json& t = config.at(key);
  return t.is_string() ? t.get<std::string>() : t.is_object() ? t.value("content", "") : "";
}

TextSource::TextSource(Read read) : read_(std::move(read)), config_(json_file(read_, "tokenizer_config.json")) {}

TextSource TextSource::open(const fs::path& path) {
  std::error_code ignored;
  if (!fs::exists(path, ignored)) fail("open", "{}: no such file or folder; check the path", path.string());
  if (const fs::path file = gguf_file(path); file.extension() == ".gguf") return TextSource(gguf_reader(file));
  return TextSource(fs::is_directory(path, ignored) ? folder_reader(path) : file_reader(path));
}

Tokenizer TextSource::tokenizer(std::string_view splitting) const {
  if (const std::string json = read_("tokenizer.json"); !json.empty()) return Tokenizer::parse(json, config_);
  if (const std::string model = read_("tokenizer.model"); !model.empty())
    return is_rank_file(model) ? parse_tiktoken(model, splitting, config_) : parse_sentencepiece(model, config_);
  for (const std::string_view name : kRankFiles)
    if (const std::string ranks = read_(name); !ranks.empty()) return parse_tiktoken(ranks, splitting, config_);
  fail("open",
       "the model has none of tokenizer.json, tokenizer.model, {}: text cannot be turned into tokens. Copy "
       "tokenizer.json and tokenizer_config.json from the model's original folder",
       fmt::join(kRankFiles, ", "));
}

// A string, or an object with "content", or a list of named templates of which "default" counts.
std::string TextSource::chat_template() const {
  if (std::string file = read_("chat_template.jinja"); !file.empty()) return file;
  if (!config_.is_object() || !config_.contains("chat_template")) return "";
  const nlohmann::json& t = config_.at("chat_template");
  if (t.is_string()) return t.get<std::string>();
  if (t.is_array())
    for (const auto& entry : t)
      if (entry.value("name", "") == "default") return entry.value("template", "");
  return "";
}

ChatTemplate::Options TextSource::template_options() const {
  ChatTemplate::Options options;
  options.bos_token = token_text(config_, "bos_token");
  options.eos_token = token_text(config_, "eos_token");
  return options;
}

}  // namespace awq
