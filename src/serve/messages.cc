#include "serve/messages.h"

namespace awq {
namespace {

using Json = nlohmann::ordered_json;

/// A string, or blocks of text.
std::string block_text(const Fields& f, std::string_view key) {
  const Json* v = f.find(key);
  if (!v || v->is_string()) return v ? v->get<std::string>() : "";
  if (!v->is_array()) f.refuse(key, "a string or a list of blocks", *v);
  std::string all;
  for (const Json& block : *v) {
    const Fields b(block, std::string(key) + ".");
    if (b.text("type") != "text") f.refuse(key, "blocks of type \"text\"", block);
    all += b.text("text");
  }
  return all;
}

Json called(const Fields& block) {
  const Json* input = block.find("input");
  return {{"id", block.text("id")},
          {"type", "function"},
          {"function", {{"name", block.text("name")}, {"arguments", input ? *input : Json::object()}}}};
}

/// One message of blocks as a chat has it: results of tools are messages of their own, before what the user says.
void add_blocks(const std::string& role, const Fields& message, const Json& blocks, Json& chat) {
  std::string text, thought;
  Json calls = Json::array();
  bool results = false;
  for (const Json& block : blocks) {
    const Fields b(block, "messages.content.");
    const std::string type = b.text("type");
    if (type == "text") {
      text += b.text("text");
    } else if (type == "tool_result" && role == "user") {
      results = true;
      chat.push_back(
          {{"role", "tool"}, {"tool_call_id", b.text("tool_use_id")}, {"content", block_text(b, "content")}});
    } else if (type == "tool_use" && role == "assistant") {
      calls.push_back(called(b));
    } else if (type == "thinking" && role == "assistant") {
      thought += b.text("thinking");
    } else {
      message.refuse("content", "blocks of text, tool_use, tool_result or thinking", block);
    }
  }
  if (results && text.empty()) return;
  Json one = {{"role", role}, {"content", text}};
  if (!thought.empty()) one["reasoning_content"] = thought;
  if (!calls.empty()) one["tool_calls"] = calls;
  chat.push_back(one);
}

Json chat_messages(const Fields& f) {
  Json chat = Json::array();
  if (const std::string system = block_text(f, "system"); !system.empty())
    chat.push_back({{"role", "system"}, {"content", system}});
  const Json* all = f.find("messages");
  if (!all) throw ApiError(400, "messages: it is missing", "messages");
  if (!all->is_array() || all->empty()) f.refuse("messages", "a list of at least one", *all);
  for (const Json& m : *all) {
    const Fields message(m, "messages.");
    const std::string role = message.text("role");
    if (role != "user" && role != "assistant") message.refuse("role", "\"user\" or \"assistant\"", Json(role));
    const Json* content = message.find("content");
    if (content && content->is_array())
      add_blocks(role, message, *content, chat);
    else
      chat.push_back({{"role", role}, {"content", message.text("content")}});
  }
  return chat;
}

Json chat_tools(const Fields& f, const Json& tools) {
  if (!tools.is_array()) f.refuse("tools", "a list", tools);
  Json all = Json::array();
  for (const Json& tool : tools) {
    const Fields t(tool, "tools.");
    if (t.text("type", "custom") != "custom") t.refuse("type", "\"custom\"", tool);
    Json function = {{"name", t.text("name")}};
    if (t.find("description")) function["description"] = t.text("description");
    if (const Json* schema = t.find("input_schema")) function["parameters"] = *schema;
    all.push_back({{"type", "function"}, {"function", function}});
  }
  return all;
}

Json chat_choice(const Fields& choice) {
  const std::string type = choice.text("type");
  if (type == "tool") return {{"type", "function"}, {"function", {{"name", choice.text("name")}}}};
  if (type != "auto" && type != "any" && type != "none")
    choice.refuse("type", "\"auto\", \"any\", \"tool\" or \"none\"", Json(type));
  return type == "any" ? "required" : type;
}

/// Arguments that are no object stand as text: then the model wrote no call that could be made.
Json tool_use(const Choice& c, size_t i) {
  const ToolCall& call = c.calls()[i];
  const Json input = Json::parse(call.arguments, nullptr, false);
  if (!input.is_object()) return {{"type", "text"}, {"text", call.name + call.arguments}};
  return {{"type", "tool_use"}, {"id", c.call_id(i)}, {"name", call.name}, {"input", input}};
}

Json stop_reason(const Choice& c) {
  if (!c.ended()) return {};
  if (c.how_it_ended() == "length") return "max_tokens";
  if (!c.calls().empty()) return "tool_use";
  return c.stopped_by().empty() ? "end_turn" : "stop_sequence";
}
Json stop_sequence(const Choice& c) { return c.stopped_by().empty() ? Json() : Json(c.stopped_by()); }

std::string event(const Json& j) {
  return fmt::format("event: {}\ndata: {}\n\n", j.at("type").get_ref<const std::string&>(), dumped(j));
}

class MessagesForm final : public ReplyForm {
 public:
  explicit MessagesForm(const ApiModel& model) : model_(model) {}
  std::string begin(const Usage& now) override {
    Json message = head(Json::array());
    message["stop_reason"] = nullptr;
    message["stop_sequence"] = nullptr;
    message["usage"] = usage(now);
    return event({{"type", "message_start"}, {"message", message}});
  }
  std::string part(const Choice& c, const Choice::Delta& d, const Usage& now) override {
    std::string s = more("thinking", d.reasoning) + more("text", d.text);
    if (!c.ended()) return s;
    s += close();
    for (size_t i = 0; i < c.calls().size(); ++i) s += call(tool_use(c, i));
    return s + event({{"type", "message_delta"},
                      {"delta", {{"stop_reason", stop_reason(c)}, {"stop_sequence", stop_sequence(c)}}},
                      {"usage", usage(now)}});
  }
  std::string end(const Usage&) override { return event({{"type", "message_stop"}}); }
  Json whole(std::span<const Choice* const> given, const Usage& all) const override {
    const Choice& c = *given.front();
    Json content = Json::array();
    if (!c.thought().empty()) content.push_back(block("thinking", c.thought()));
    if (!c.said().empty()) content.push_back(block("text", c.said()));
    for (size_t i = 0; i < c.calls().size(); ++i) content.push_back(tool_use(c, i));
    Json j = head(content);
    j["stop_reason"] = stop_reason(c);
    j["stop_sequence"] = stop_sequence(c);
    j["usage"] = usage(all);
    return j;
  }
  std::string error_event(const ApiError& error) const override { return event(messages_error(error)); }

 private:
  static Json usage(const Usage& u) { return {{"input_tokens", u.prompt}, {"output_tokens", u.generated}}; }
  static Json block(const std::string& kind, const std::string& text) {
    Json b = {{"type", kind}, {kind, text}};
    if (kind == "thinking") b["signature"] = "";
    return b;
  }
  Json head(const Json& content) const {
    return {{"id", id_}, {"type", "message"}, {"role", "assistant"}, {"model", model_.name}, {"content", content}};
  }
  std::string open(const Json& b) {
    return event({{"type", "content_block_start"}, {"index", index_}, {"content_block", b}});
  }
  std::string delta(const Json& d) const {
    return event({{"type", "content_block_delta"}, {"index", index_}, {"delta", d}});
  }
  std::string close() {
    if (std::exchange(open_, "").empty()) return "";
    return event({{"type", "content_block_stop"}, {"index", index_++}});
  }
  std::string more(const std::string& kind, const std::string& text) {
    if (text.empty()) return "";
    std::string s;
    if (open_ != kind) {
      s = close() + open(block(kind, ""));
      open_ = kind;
    }
    return s + delta({{"type", kind + "_delta"}, {kind, text}});
  }
  std::string call(const Json& use) {
    if (use.at("type") == "text") return more("text", use.at("text")) + close();
    Json empty = use;
    empty["input"] = Json::object();
    open_ = "tool_use";
    const std::string s =
        open(empty) + delta({{"type", "input_json_delta"}, {"partial_json", dumped(use.at("input"))}});
    return s + close();
  }

  const ApiModel& model_;
  const std::string id_ = new_id("msg");
  std::string open_;  // kind of the block that is open
  int index_ = 0;     // its number, or the next one's
};

}  // namespace

Json chat_body(const Json& body) {
  const Fields f(body);
  Json chat = body;
  chat["messages"] = chat_messages(f);
  for (const char* key : {"system", "stop_sequences", "tool_choice", "thinking", "n", "best_of", "logprobs"})
    chat.erase(key);
  if (const Json* stops = f.find("stop_sequences")) chat["stop"] = *stops;
  if (const Json* tools = f.find("tools")) chat["tools"] = chat_tools(f, *tools);
  if (const Json* choice = f.find("tool_choice")) {
    const Fields c(*choice, "tool_choice.");
    chat["tool_choice"] = chat_choice(c);
    chat["parallel_tool_calls"] = !c.flag("disable_parallel_tool_use", false);
  }
  if (const Json* thinking = f.find("thinking"); thinking && !f.find("chat_template_kwargs"))
    chat["chat_template_kwargs"] = {{"enable_thinking", Fields(*thinking, "thinking.").text("type") != "disabled"}};
  if (chat["messages"].back()["role"] == "assistant") chat["continue_final_message"] = true;
  return chat;
}

std::unique_ptr<ReplyForm> messages_form(const ApiModel& model) { return std::make_unique<MessagesForm>(model); }

Json messages_error(const ApiError& error) {
  const std::string_view type = error.status == 401   ? "authentication_error"
                                : error.status == 404 ? "not_found_error"
                                : error.status == 413 ? "request_too_large"
                                : error.status == 503 ? "overloaded_error"
                                : error.status < 500  ? "invalid_request_error"
                                                      : "api_error";
  return {{"type", "error"}, {"error", {{"type", type}, {"message", error.what()}}}};
}

}  // namespace awq
