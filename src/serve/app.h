#pragma once
#include <atomic>

#include "awq/awq.h"
#include "serve/http_server.h"
#include "serve/metrics.h"
#include "serve/replies.h"
#include "serve/service.h"

namespace awq {

/// OpenAI's API over a Service: what comes over HTTP becomes requests, and their events replies.
class App {
 public:
  App(const ServeOptions& options, Service& service, ApiModel model);
  ~App();
  int port() const { return server_.port(); }
  /// Until stop() and until what is at work is done, or the time for that is over.
  void run();
  /// From a signal handler's thread or any other.
  void stop() { stopping_ = true; }

 private:
  class Answer;
  class Vectors;
  using Exchange = std::shared_ptr<HttpExchange>;
  using Json = nlohmann::ordered_json;

  void handle(const Exchange& e);
  bool allowed(const HttpExchange& e) const;
  void route(const Exchange& e);
  /// Parses the body and calls `work` with it beside the server's thread; what that returns goes on on it.
  template <class T>
  void parsed(const Exchange& e, std::function<T(const Json&)> work, std::function<void(T)> then);
  void answer(const Exchange& e, bool chat);
  void embeddings(const Exchange& e);
  void reply(const Exchange& e, int status, const Json& body);
  void refuse(const Exchange& e, const ApiError& error);
  void log(const HttpExchange& e, int status, const Usage& usage, double seconds);
  Json models() const;
  /// Called now and then: goes on with stopping.
  void look();

  const ServeOptions options_;
  Service& service_;
  ApiModel model_;
  Metrics metrics_;
  std::atomic<bool> stopping_ = false;
  bool closed_ = false;
  std::chrono::steady_clock::time_point close_by_{};
  int at_work_ = 0;
  HttpServer server_;
  struct Workers;
  std::unique_ptr<Workers> workers_;
};

}  // namespace awq
