#pragma once
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace awq {

struct HttpLimits {
  size_t body = 16 << 20, header = 16 << 10;  // bytes
  size_t bodies = 256 << 20;                  // bytes of all bodies at once: one that would be more gets 503
  size_t unread = 16 << 20;                   // bytes of a reply's parts that its client is behind
  int connections = 4096;                     // more are closed as they come
  std::chrono::seconds read{60}, write{60};   // for a whole request, and for a part of a reply to be taken
};

/// One request and the reply to it. All calls, and `gone`, on the server's thread; it may outlive its connection.
class HttpExchange {
 public:
  virtual ~HttpExchange() = default;
  virtual std::string_view method() const = 0;
  virtual std::string_view path() const = 0;                         // without the query
  virtual std::string_view header(std::string_view name) const = 0;  // empty: none
  virtual const std::string& body() const = 0;
  virtual void drop_body() = 0;            // nobody needs it any more
  virtual std::string client() const = 0;  // address
  /// A header that the reply gets.
  virtual void set(std::string_view name, std::string_view value) = 0;
  /// The whole reply; or the beginning of one whose parts follow, the last with `last`.
  virtual void reply(int status, std::string_view type, std::string text) = 0;
  virtual void begin(std::string_view type) = 0;
  virtual void send(std::string part) = 0;
  virtual void end() = 0;
  /// Called once if the client goes before it has all of the reply.
  std::function<void()> gone;
};

/// HTTP/1.1 on one thread, over Boost.Beast. A client that is slow, silent or sends too much is cut off and takes
/// nothing but its connection's memory.
class HttpServer {
 public:
  using Handler = std::function<void(const std::shared_ptr<HttpExchange>&)>;
  /// Listens; port 0: any. Throws Error if the address is taken or none of this machine.
  HttpServer(const std::string& host, int port, const HttpLimits& limits, Handler handler);
  ~HttpServer();
  int port() const;
  int connections() const;
  /// Until stop().
  void run();
  /// Work for the server's thread. From any thread.
  void post(std::function<void()> work);
  /// Calls `work` on the server's thread again and again.
  void every(std::chrono::milliseconds period, std::function<void()> work);
  /// No connection is accepted any more, and one that waits for a request is closed.
  void close();
  void stop();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace awq
