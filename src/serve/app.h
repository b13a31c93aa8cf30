#pragma once
#include <atomic>

#include "awq/awq.h"
#include "base/parallel.h"
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
  /// Lets a page of another origin read the reply, where one may. true: the request asked for nothing but that.
  bool crossed(const Exchange& e) const;
  bool allowed(const HttpExchange& e) const;
  void route(const Exchange& e);
  /// Parses the body and calls `work` with it beside the server's thread; what that returns goes on on it.
  template <class T>
  void parsed(const Exchange& e, std::function<T(const Json&)> work, std::function<void(T)> then);
  void answer(const Exchange& e, AnswerCall (*call)(const Json&, const ApiModel&));
  void json_reply(const Exchange& e, Json (*work)(const Json&, const ApiModel&));
  void embeddings(const Exchange& e);
  void reply(const Exchange& e, int status, const Json& body);
  void refuse(const Exchange& e, const ApiError& error);
  void log(const HttpExchange& e, int status, const Usage& usage, double seconds);
  Json models() const;
  /// Called now and then: ends what has taken too long, goes on with stopping.
  void look();

  const ServeOptions options_;
  Service& service_;
  ApiModel model_;
  Metrics metrics_;
  std::atomic<bool> stopping_ = false;
  bool closed_ = false;
  std::chrono::steady_clock::time_point close_by_{};
  // What is at work. Other threads have none of them: the last to let go of one closes its connection, which is this
  // one's.
  std::set<std::shared_ptr<Answer>> answers_;
  std::set<std::shared_ptr<Vectors>> vectors_;
  HttpServer server_;
  TaskThread worker_;  // what takes longer than a moment, beside the server's thread; the first to go
};

}  // namespace awq
