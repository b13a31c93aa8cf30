#pragma once
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>

namespace awq {

struct HttpOptions {
  std::string token{};               // sent as a bearer's to the host of the URL, never to one that it redirects to
  std::chrono::seconds silence{30};  // a connection that brings nothing for so long is given up
};

/// What a request came to. `status` 0: no answer, or one cut off; `problem` then says why.
struct HttpResult {
  long status = 0;
  std::string problem{};
  bool final = false;  // the same request will have the same problem
  std::optional<std::chrono::seconds> retry_after{};
};

/// GET requests over kept connections. One thread. Follows redirects, within http and https.
class HttpClient {
 public:
  explicit HttpClient(HttpOptions options);
  ~HttpClient();
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  /// Receives the body of a good answer: `whole` says that it begins at the first byte though `from` asked for less.
  /// false ends the request, whose result then has status 0 and no problem.
  using Receive = std::function<bool(std::span<const std::byte> part, bool whole)>;
  /// The bytes from `from` on. Bodies of other answers than 200 and 206 are dropped.
  HttpResult get(const std::string& url, uint64_t from, const Receive& receive);

 private:
  struct Handle;
  std::unique_ptr<Handle> handle_;
};

}  // namespace awq
