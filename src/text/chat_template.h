#pragma once
#include <ctime>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "text/marked_text.h"

namespace awq {

/// A model's chat template: a program in a subset of the Jinja language that writes a conversation as the text the
/// model was trained on. It is run as transformers runs it (apply_chat_template): a sandbox whose values cannot be
/// changed, trim_blocks and lstrip_blocks, the functions raise_exception and strftime_now, tojson without HTML escapes,
/// and
/// {% generation %} marks without effect. A template reaches nothing but what render() is given, and work, output,
/// recursion and nesting are limited. Immutable; may be used from several threads.
class ChatTemplate {
 public:
  struct Options {
    bool add_generation_prompt = false;
    std::string bos_token, eos_token;       // empty: the template sees them as undefined
    nlohmann::ordered_json tools;           // a list of JSON schemas, or null
    nlohmann::ordered_json documents;       // a list, or null
    nlohmann::ordered_json extra;           // an object: further variables, such as {"enable_thinking": false}; or null
    std::optional<std::tm> now;             // local time for strftime_now; the clock's if not given
    uint64_t max_work = uint64_t(1) << 28;  // about 4 a step and 1 a byte or list entry made
    size_t max_output = size_t(1) << 26;    // bytes
  };

  /// Throws Error with line and column if the source is no template or uses what is not implemented.
  explicit ChatTemplate(std::string source);
  ~ChatTemplate();
  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;

  /// `messages` is a list of {"role": ..., "content": ...} and whatever else the template reads. Throws Error with line
  /// and column if the template refuses the conversation or fails.
  std::string render(const nlohmann::ordered_json& messages, const Options& options) const {
    return render_marked(messages, options).text();
  }
  /// The same; marked is what messages, tools and documents wrote. A message's role that is one word is not marked, for
  /// templates make special tokens of it ("<|user|>"), and neither are numbers.
  MarkedText render_marked(const nlohmann::ordered_json& messages, const Options& options) const;

  const std::string& source() const { return source_; }

 private:
  struct Program;
  std::string source_;
  std::unique_ptr<const Program> program_;
};

}  // namespace awq
