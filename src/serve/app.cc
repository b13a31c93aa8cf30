#include "serve/app.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include <algorithm>

#include "base/memory.h"
#include "serve/messages.h"

namespace awq {
namespace {

using Json = nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

constexpr size_t kLargeBody = 1 << 20;  // bytes, which as JSON are up to twenty times as many
constexpr auto kLook = std::chrono::milliseconds(100);

double seconds_between(Clock::time_point a, Clock::time_point b) {
  return std::chrono::duration<double>(b - a).count();
}

bool same(std::string_view a, std::string_view b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

ApiError overloaded() { return ApiError(503, "too many requests wait; try again later", "", "overloaded"); }

std::string base64(std::span<const float> values) {
  const auto bytes = values.size_bytes();
  std::string out((bytes + 2) / 3 * 4 + 1, '\0');
  const int n = EVP_EncodeBlock(reinterpret_cast<unsigned char*>(out.data()),
                                reinterpret_cast<const unsigned char*>(values.data()), int(bytes));
  out.resize(size_t(n));
  return out;
}

void reply_error(HttpExchange& e, const ApiError& error) {
  if (error.status == 503) e.set("Retry-After", "1");
  const bool messages = e.path().starts_with("/v1/messages");
  e.reply(error.status, "application/json", dumped(messages ? messages_error(error) : error.json()));
}

Json tokenize_reply(const Json& body, const ApiModel& model) {
  const std::vector<int32_t> ids = tokenize_ids(body, model);
  return {{"count", ids.size()}, {"max_model_len", model.longest}, {"tokens", ids}};
}
Json detokenize_reply(const Json& body, const ApiModel& model) {
  return {{"prompt", model.text.tokenizer().decode(detokenize_ids(body, model))}};
}
Json count_reply(const Json& body, const ApiModel& model) {
  return {{"input_tokens", tokenize_ids(chat_body(body), model).size()}};
}
AnswerCall messages_call(const Json& body, const ApiModel& model) {
  AnswerCall call = chat_call(chat_body(body), model);
  call.messages = true;
  return call;
}

}  // namespace

/// One request for answers, from the parsed body to the last byte. On the server's thread.
class App::Answer : public std::enable_shared_from_this<Answer> {
 public:
  Answer(App& app, Exchange exchange, AnswerCall call, Clock::time_point begin)
      : app_(app),
        exchange_(std::move(exchange)),
        call_(std::move(call)),
        begin_(begin),
        form_(call_.messages ? messages_form(app.model_) : openai_form(call_, app.model_)) {}

  void start() {
    app_.answers_.insert(shared_from_this());
    exchange_->gone = [weak = weak_from_this()] {
      if (const auto self = weak.lock()) self->abandon("abort");
    };
    for (size_t p = 0; p < call_.prompts.size(); ++p)
      for (int i = 0; i < call_.best_of; ++i)
        choices_.push_back(std::make_unique<Choice>(call_, app_.model_, p, int(choices_.size())));
    times_.resize(choices_.size());
    for (const auto& c : choices_)
      if (!submit(*c)) return;
    if (!call_.stream) return;
    exchange_->begin("text/event-stream");
    begun_ = true;
    exchange_->send(form_->begin(usage()));
  }
  void end_if_late(Clock::time_point now) {
    const int most = app_.options_.answer_seconds;
    if (!most || now - begin_ < std::chrono::seconds(most)) return;
    app_.metrics_.count_end("abort");
    fail(ApiError(504, fmt::format("the answer is not complete after {} s, the most that a request may take", most)));
  }

 private:
  bool submit(Choice& c) {
    ServeRequest r = call_.request;
    r.prompt = call_.prompts[c.prompt()];
    r.sampling.seed += uint64_t(c.index());
    if (call_.best_of > call_.n) r.top_logprobs = std::max(r.top_logprobs, 0);
    const auto told = [&app = app_, weak = weak_from_this(), i = size_t(c.index())](auto what) {
      app.server_.post([weak, i, what] {
        if (const auto self = weak.lock()) what(*self, i);
      });
    };
    r.events.begun = [told] { told([](Answer& a, size_t i) { a.times_[i].begun = Clock::now(); }); };
    r.events.prompt_token = [told](const ServedToken& t) {
      told([t](Answer& a, size_t i) { a.choices_[i]->prompt_token(t); });
    };
    r.events.token = [told](const ServedToken& t) {
      told([t](Answer& a, size_t i) { a.token(i, t); });
      return true;
    };
    r.events.end = [told](ServeEnd end, std::string_view why) {
      told([end, text = std::string(why)](Answer& a, size_t i) { a.end(i, end, text); });
    };
    std::optional<uint64_t> id;
    try {
      id = app_.service_.submit(std::move(r));
    } catch (const Error& e) {
      return fail(ApiError(400, e.what(), call_.chat ? "messages" : "prompt"));
    }
    if (!id) return fail(overloaded());
    ids_.push_back(*id);
    return true;
  }

  void token(size_t i, const ServedToken& t) {
    Choice& c = *choices_[i];
    if (over_ || c.ended()) return;
    const auto now = Clock::now();
    Times& times = times_[i];
    if (c.generated())
      app_.metrics_.between_tokens.add(seconds_between(times.last, now));
    else
      app_.metrics_.first_token.add(seconds_between(begin_, now)), times.first = now;
    times.last = now;
    const bool on = c.token(t);
    if (!on) {
      app_.service_.cancel(ids_[i]);
      c.end(ServeEnd::stop);
    }
    send(i);
    if (!on) ended(i);
  }
  void end(size_t i, ServeEnd how, const std::string& why) {
    if (over_ || choices_[i]->ended()) return;
    if (how == ServeEnd::failed) {
      fail(ApiError(500, why));
      return;
    }
    choices_[i]->end(how);
    send(i);
    ended(i);
  }

  void send(size_t i) {
    if (!call_.stream) return;
    Choice& c = *choices_[i];
    const Choice::Delta delta = c.take();
    if (delta.empty() && !c.ended()) return;
    exchange_->send(form_->part(c, delta, usage()));
  }

  void ended(size_t i) {
    if (over_) return;  // the client took too little of what was sent just now
    const Choice& c = *choices_[i];
    app_.metrics_.count_end(c.how_it_ended());
    app_.metrics_.count_answer(call_.prompts[c.prompt()].size(), c.generated(), begin_, times_[i]);
    if (!std::ranges::all_of(choices_, [](const auto& one) { return one->ended(); })) return;
    const Usage all = usage();
    if (call_.stream) {
      exchange_->send(form_->end(all));
      exchange_->end();
    } else {
      exchange_->reply(200, "application/json", dumped(form_->whole(given(), all)));
    }
    finish(200);
  }
  /// The best of those that were made.
  std::vector<const Choice*> given() const {
    std::vector<const Choice*> order, best;
    for (const auto& c : choices_) order.push_back(c.get());
    if (call_.best_of > call_.n)
      std::ranges::stable_sort(order, [](const Choice* a, const Choice* b) {
        return std::pair(a->prompt(), -a->mean_logprob()) < std::pair(b->prompt(), -b->mean_logprob());
      });
    for (size_t i = 0; i < order.size(); ++i)
      if (int(i % size_t(call_.best_of)) < call_.n) best.push_back(order[i]);
    return best;
  }
  Usage usage() const {
    Usage u;
    for (const auto& p : call_.prompts) u.prompt += int64_t(p.size());
    for (const auto& c : choices_) u.generated += c->generated();
    return u;
  }

  bool fail(const ApiError& e) {
    cancel();
    if (begun_) {
      exchange_->send(form_->error_event(e));
      exchange_->end();
    } else {
      reply_error(*exchange_, e);
    }
    finish(e.status);
    return false;
  }
  void abandon(const char* why) {
    cancel();
    app_.metrics_.count_end(why);
    finish(499);
  }
  void cancel() {
    for (uint64_t id : ids_) app_.service_.cancel(id);
  }
  void finish(int status) {
    if (std::exchange(over_, true)) return;
    exchange_->gone = {};
    app_.answers_.erase(shared_from_this());
    const double seconds = seconds_between(begin_, Clock::now());
    if (status == 200) app_.metrics_.whole.add(seconds);
    app_.log(*exchange_, status, usage(), seconds);
  }

  App& app_;
  Exchange exchange_;
  const AnswerCall call_;
  const Clock::time_point begin_;
  const std::unique_ptr<ReplyForm> form_;
  std::vector<std::unique_ptr<Choice>> choices_;
  std::vector<uint64_t> ids_;
  using Times = Metrics::Times;
  std::vector<Times> times_;  // of each choice
  bool begun_ = false, over_ = false;
};

/// One request for embeddings. On the server's thread.
class App::Vectors : public std::enable_shared_from_this<Vectors> {
 public:
  Vectors(App& app, Exchange exchange, EmbeddingCall call)
      : app_(app),
        exchange_(std::move(exchange)),
        call_(std::move(call)),
        vectors_(call_.inputs.size()),
        missing_(vectors_.size()) {}

  void start() {
    app_.vectors_.insert(shared_from_this());
    exchange_->gone = [weak = weak_from_this()] {
      if (const auto self = weak.lock()) self->finish(499);
    };
    for (size_t i = 0; i < vectors_.size() && !over_; ++i) submit(i);
  }

 private:
  void submit(size_t i) {
    ServeRequest r{.prompt = call_.inputs[i], .embed = true};
    const auto told = [&app = app_, weak = weak_from_this()](auto what) {
      app.server_.post([weak, what] {
        if (const auto self = weak.lock()) what(*self);
      });
    };
    r.events.embedding = [told, i](std::span<const float> mean) {
      told([i, v = std::vector<float>(mean.begin(), mean.end())](Vectors& all) { all.arrived(i, v); });
    };
    r.events.end = [told](ServeEnd end, std::string_view why) {
      if (end == ServeEnd::failed) told([text = std::string(why)](Vectors& all) { all.refuse(ApiError(500, text)); });
    };
    try {
      const std::optional<uint64_t> id = app_.service_.submit(std::move(r));
      id ? ids_.push_back(*id) : refuse(overloaded());
    } catch (const Error& error) {
      refuse(ApiError(400, error.what(), "input"));
    }
  }

  void arrived(size_t i, const std::vector<float>& vector) {
    vectors_[i] = vector;
    if (--missing_ || over_) return;
    Json data = Json::array();
    for (size_t k = 0; k < vectors_.size(); ++k)
      data.push_back({{"object", "embedding"},
                      {"index", k},
                      {"embedding", call_.base64 ? Json(base64(vectors_[k])) : Json(vectors_[k])}});
    exchange_->reply(200, "application/json",
                     dumped({{"object", "list"},
                             {"data", data},
                             {"model", app_.model_.name},
                             {"usage", {{"prompt_tokens", usage().prompt}, {"total_tokens", usage().prompt}}}}));
    finish(200);
  }
  void refuse(const ApiError& error) {
    if (over_) return;
    reply_error(*exchange_, error);
    finish(error.status);
  }
  Usage usage() const {
    Usage u;
    for (const auto& input : call_.inputs) u.prompt += int64_t(input.size());
    return u;
  }
  /// What is still computed is for nobody.
  void finish(int status) {
    if (std::exchange(over_, true)) return;
    exchange_->gone = {};
    for (uint64_t id : ids_) app_.service_.cancel(id);
    app_.vectors_.erase(shared_from_this());
    app_.log(*exchange_, status, usage(), seconds_between(begin_, Clock::now()));
  }

  App& app_;
  Exchange exchange_;
  const EmbeddingCall call_;
  const Clock::time_point begin_ = Clock::now();
  std::vector<std::vector<float>> vectors_;
  size_t missing_;
  std::vector<uint64_t> ids_;
  bool over_ = false;
};

App::App(const ServeOptions& options, Service& service, ApiModel model)
    : options_(options),
      service_(service),
      model_(std::move(model)),
      metrics_(model_.name),
      server_(options.host, options.port, {.body = options.body_bytes, .connections = options.connections},
              [this](const Exchange& e) { handle(e); }) {}
App::~App() = default;

void App::run() {
  server_.every(kLook, [this] { look(); });
  server_.run();
}

void App::look() {
  for (const auto& a : std::set(answers_)) a->end_if_late(Clock::now());
  if (!stopping_) return;
  if (!closed_) {
    closed_ = true;
    close_by_ = Clock::now() + std::chrono::seconds(options_.drain_seconds);
    service_.drain();
    server_.close();
  }
  if ((answers_.empty() && vectors_.empty() && service_.idle()) || Clock::now() > close_by_) server_.stop();
}

bool App::allowed(const HttpExchange& e) const {
  if (options_.api_key.empty() || e.path() == "/health") return true;
  const std::string_view header = e.header("authorization"), bearer = "Bearer ";
  return header.starts_with(bearer) ? same(header.substr(bearer.size()), options_.api_key)
                                    : same(e.header("x-api-key"), options_.api_key);
}

bool App::crossed(const Exchange& e) const {
  if (options_.cors.empty()) return false;
  e->set("Access-Control-Allow-Origin", options_.cors);
  e->set("Vary", "Origin");
  if (e->method() != "OPTIONS") return false;
  e->set("Access-Control-Allow-Methods", "GET, POST, OPTIONS");
  e->set("Access-Control-Allow-Headers", e->header("access-control-request-headers"));
  e->set("Access-Control-Max-Age", "86400");
  return true;
}

void App::handle(const Exchange& e) {
  try {
    if (crossed(e)) return e->reply(204, "", "");
    if (!allowed(*e)) throw ApiError(401, "the API key is missing or wrong", "", "invalid_api_key");
    route(e);
  } catch (const ApiError& error) {
    refuse(e, error);
  }
}

void App::route(const Exchange& e) {
  struct Route {
    std::string_view method, path;
    void (*run)(App&, const Exchange&);
  };
  static constexpr Route kRoutes[] = {
      {"POST", "/v1/chat/completions", [](App& a, const Exchange& x) { a.answer(x, chat_call); }},
      {"POST", "/v1/completions", [](App& a, const Exchange& x) { a.answer(x, completion_call); }},
      {"POST", "/v1/messages", [](App& a, const Exchange& x) { a.answer(x, messages_call); }},
      {"POST", "/v1/messages/count_tokens", [](App& a, const Exchange& x) { a.json_reply(x, count_reply); }},
      {"POST", "/v1/embeddings", [](App& a, const Exchange& x) { a.embeddings(x); }},
      {"POST", "/tokenize", [](App& a, const Exchange& x) { a.json_reply(x, tokenize_reply); }},
      {"POST", "/detokenize", [](App& a, const Exchange& x) { a.json_reply(x, detokenize_reply); }},
      {"GET", "/v1/models", [](App& a, const Exchange& x) { a.reply(x, 200, a.models()); }},
      {"GET", "/health", [](App& a, const Exchange& x) { a.reply(x, 200, Json::object()); }},
      {"GET", "/metrics",
       [](App& a, const Exchange& x) {
         x->reply(200, "text/plain; version=0.0.4", a.metrics_.text(a.service_.counts(), a.server_.connections()));
         a.log(*x, 200, {}, 0);
       }},
  };
  bool known = false;
  for (const Route& r : kRoutes) {
    if (r.path != e->path()) continue;
    known = true;
    if (r.method == e->method() || (r.method == "GET" && e->method() == "HEAD")) return r.run(*this, e);
  }
  if (known) throw ApiError(405, fmt::format("{} is not for {}", e->method(), e->path()));
  throw ApiError(404, fmt::format("there is no {} here", e->path()));
}

template <class T>
void App::parsed(const Exchange& e, std::function<T(const Json&)> work, std::function<void(T)> then) {
  // `e = e`: a plain copy would be const, and moving it one more copy.
  worker_.add([this, e = e, work = std::move(work), then = std::move(then)]() mutable {
    std::function<void()> next;
    try {
      T result = work(parsed_body(e->body()));
      next = [this, e, then, result = std::move(result)] {
        e->drop_body();
        try {
          then(result);
        } catch (const ApiError& error) {
          refuse(e, error);
        } catch (const std::exception& error) {
          refuse(e, ApiError(500, error.what()));
        }
      };
    } catch (const ApiError& error) {
      next = [this, e, error] { refuse(e, error); };
    } catch (const std::exception& error) {
      next = [this, e, error = ApiError(500, error.what())] { refuse(e, error); };
    }
    if (e->body().size() > kLargeBody) return_free_memory();
    // With all that holds the connection, which must not be closed here.
    server_.post([next = std::move(next), e = std::move(e), then = std::move(then)] { next(); });
  });
}

void App::answer(const Exchange& e, AnswerCall (*call)(const Json&, const ApiModel&)) {
  const auto begin = Clock::now();
  parsed<AnswerCall>(
      e, [this, call](const Json& body) { return call(body, model_); },
      [this, e, begin](AnswerCall c) { std::make_shared<Answer>(*this, e, std::move(c), begin)->start(); });
}

void App::json_reply(const Exchange& e, Json (*work)(const Json&, const ApiModel&)) {
  parsed<Json>(
      e, [this, work](const Json& body) { return work(body, model_); }, [this, e](const Json& j) { reply(e, 200, j); });
}

void App::embeddings(const Exchange& e) {
  parsed<EmbeddingCall>(
      e, [this](const Json& body) { return embedding_call(body, model_); },
      [this, e](EmbeddingCall call) { std::make_shared<Vectors>(*this, e, std::move(call))->start(); });
}

void App::reply(const Exchange& e, int status, const Json& body) {
  e->reply(status, "application/json", dumped(body));
  log(*e, status, {}, 0);
}

void App::refuse(const Exchange& e, const ApiError& error) {
  reply_error(*e, error);
  log(*e, error.status, {}, 0);
}

void App::log(const HttpExchange& e, int status, const Usage& usage, double seconds) {
  metrics_.count_status(status);
  if (!options_.access_log) return;
  fmt::print(stderr, "{}\n",
             dumped({{"time", int64_t(std::time(nullptr))},
                     {"client", e.client()},
                     {"method", std::string(e.method())},
                     {"path", std::string(e.path())},
                     {"status", status},
                     {"prompt_tokens", usage.prompt},
                     {"tokens", usage.generated},
                     {"seconds", std::round(seconds * 1e4) / 1e4}}));
}

Json App::models() const {
  return {{"object", "list"},
          {"data", Json::array({{{"id", model_.name},
                                 {"object", "model"},
                                 {"created", 0},
                                 {"owned_by", "awq.cpp"},
                                 {"max_model_len", model_.longest}}})}};
}

}  // namespace awq
