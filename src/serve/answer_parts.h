#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace awq {

struct ToolCall {
  std::string name, arguments;  // a JSON object, as text
  bool operator==(const ToolCall&) const = default;
};

/// Calls in the text from a marker on; empty where it is damaged.
std::vector<ToolCall> parse_tool_calls(std::string_view text);

/// A chat's answer taken apart while it arrives: what was thought (between <think> and </think>), what is said, and
/// calls of tools as models write them: <tool_call>{...}</tool_call> (Hermes, Qwen), [TOOL_CALLS][{...}] (Mistral),
/// <|python_tag|>{...} or the answer as one JSON object with a name and arguments (Llama 3).
class AnswerParts {
 public:
  struct Piece {
    std::string reasoning, content;
    bool empty() const { return reasoning.empty() && content.empty(); }
  };
  /// `thinks`: the model's template knows <think>; `thinking`: the prompt ended inside it. `tools`: calls are looked
  /// for.
  AnswerParts(bool thinks, bool thinking, bool tools);
  /// The answer begins with `call`, which was written for the model; `name`: of the tool, where that is in it.
  void begin_call(std::string_view call, std::string name);
  /// Whether what is there so far is a whole call.
  bool called() const { return state_ == State::call && !parse_tool_calls(held_).empty(); }
  /// What is certain by now.
  Piece push(std::string_view text);
  /// The rest. Text that began like a call and is none is content; or the arguments of the tool that was named for it.
  Piece finish();
  const std::vector<ToolCall>& calls() const { return calls_; }

 private:
  enum class State { begin, reasoning, content, call };
  void advance(Piece& piece, bool last);
  void begin(bool last);
  void reason(Piece& piece, bool last);
  void say(Piece& piece, bool last);
  /// Moves held text up to `mark` to `to` and past it; false where it is not there (yet): what may be its beginning
  /// stays.
  bool up_to(std::string_view mark, std::string& to, bool last);

  bool thinks_, tools_;
  State state_;
  std::string held_, named_;
  size_t given_ = 0;  // bytes of held_ that were written for the model
  std::vector<ToolCall> calls_;
};

}  // namespace awq
