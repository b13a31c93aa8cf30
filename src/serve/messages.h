#pragma once
#include "serve/replies.h"

namespace awq {

/// Anthropic's Messages API as a face of chats: a body of /v1/messages as one of /v1/chat/completions. What both call
/// alike goes through. Throws ApiError.
nlohmann::ordered_json chat_body(const nlohmann::ordered_json& messages_body);
/// The model outlives it.
std::unique_ptr<ReplyForm> messages_form(const ApiModel& model);
nlohmann::ordered_json messages_error(const ApiError& error);

}  // namespace awq
