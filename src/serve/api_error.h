#pragma once
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>

namespace awq {

/// Why the server refuses a request, in the shape of OpenAI's errors.
struct ApiError : std::runtime_error {
  ApiError(int http_status, const std::string& message, std::string field = "", std::string error_code = "")
      : std::runtime_error(message), status(http_status), param(std::move(field)), code(std::move(error_code)) {}
  int status;
  std::string param, code;
  std::string type() const { return status < 500 ? "invalid_request_error" : "server_error"; }
  nlohmann::ordered_json json() const {
    const auto text_or_null = [](const std::string& s) {
      return s.empty() ? nlohmann::ordered_json() : nlohmann::ordered_json(s);
    };
    return {{"error",
             {{"message", what()}, {"type", type()}, {"param", text_or_null(param)}, {"code", text_or_null(code)}}}};
  }
};

}  // namespace awq
