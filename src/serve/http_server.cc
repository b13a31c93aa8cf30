#include "serve/http_server.h"

#include <utility>
// Boost 1.74 uses std::exchange without it.
#include <boost/asio.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <cstdio>
#include <deque>
#include <optional>
#include <set>

#include "base/check.h"
#include "serve/api_error.h"

namespace awq {
namespace {

namespace net = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using boost::system::error_code;
using net::ip::tcp;

constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
constexpr std::chrono::seconds kLinger{2};
constexpr std::chrono::milliseconds kPause{50};  // before a connection is accepted after one could not be
constexpr size_t kBuffer = 128 << 10;   // bytes of what is not parsed yet: an extension of a chunk has no other bound
constexpr size_t kDiscarded = 4 << 20;  // bytes

}  // namespace

// HttpServer::Impl has one, so that it needs a name outside this file.
class HttpSession;
/// What sessions share.
struct HttpHub {
  const HttpLimits limits;
  const HttpServer::Handler handler;
  std::set<HttpSession*> sessions{};
  size_t bodies = 0;  // bytes of them in memory
  bool closing = false;
};

/// One connection: requests one after another.
class HttpSession final : public HttpExchange, public std::enable_shared_from_this<HttpSession> {
 public:
  HttpSession(tcp::socket socket, HttpHub& hub) : stream_(std::move(socket)), hub_(hub) { hub_.sessions.insert(this); }
  ~HttpSession() override {
    claim(0);
    hub_.sessions.erase(this);
  }

  void read() {
    claim(0);
    headers_.clear();
    parser_.emplace();
    parser_->header_limit(uint32_t(hub_.limits.header));
    parser_->body_limit(hub_.limits.body);
    state_ = State::reading;
    stream_.expires_after(hub_.limits.read);
    http::async_read_header(stream_, buffer_, *parser_, [self = shared_from_this()](error_code e, size_t) {
      self->parser_->eager(true);
      if (e || self->parser_->get()[http::field::expect] != "100-continue") return self->read_body(e);
      net::async_write(self->stream_, net::buffer(kContinue), [self](error_code w, size_t) { self->read_body(w); });
    });
  }
  /// Of a connection without a request.
  void close_if_idle() {
    if (state_ == State::reading && !parser_->got_some()) shut();
  }

  std::string_view method() const override { return view(parser_->get().method_string()); }
  std::string_view path() const override {
    const std::string_view target = view(parser_->get().target());
    return target.substr(0, target.find('?'));
  }
  std::string_view header(std::string_view name) const override {
    return view(parser_->get()[beast::string_view(name.data(), name.size())]);
  }
  const std::string& body() const override { return parser_->get().body(); }
  void drop_body() override {
    std::string().swap(parser_->get().body());
    claim(0);
  }
  std::string client() const override {
    error_code ignored;
    return stream_.socket().remote_endpoint(ignored).address().to_string();
  }

  void set(std::string_view name, std::string_view value) override { headers_.emplace_back(name, value); }
  void reply(int status, std::string_view type, std::string text) override {
    if (state_ != State::answering) return;
    auto r = std::make_shared<http::response<http::string_body>>(http::status(status), 11);
    if (!type.empty()) r->set(http::field::content_type, beast::string_view(type.data(), type.size()));
    for (const auto& [name, value] : headers_) r->set(name, value);
    r->keep_alive(keeps_alive());
    r->body() = method() == "HEAD" ? std::string() : std::move(text);
    r->prepare_payload();
    state_ = State::last_part;
    stream_.expires_after(hub_.limits.write);
    http::async_write(stream_, *r, [self = shared_from_this(), r](error_code e, size_t) { self->was_written(e); });
  }

  void begin(std::string_view type) override {
    if (state_ != State::answering) return;
    std::string head = "HTTP/1.1 200 OK\r\nContent-Type: " + std::string(type) +
                       "\r\nCache-Control: no-cache\r\nTransfer-Encoding: chunked\r\nConnection: " +
                       (keeps_alive() ? "keep-alive" : "close") + "\r\n";
    for (const auto& [name, value] : headers_) head += name + ": " + value + "\r\n";
    head += "\r\n";
    state_ = State::streaming;
    put(std::move(head));
  }
  void send(std::string part) override {
    if (state_ != State::streaming || part.empty()) return;
    put(fmt::format("{:x}\r\n{}\r\n", part.size(), part));
  }
  void end() override {
    if (state_ != State::streaming) return;
    state_ = State::last_part;
    put("0\r\n\r\n");
  }

 private:
  enum class State { reading, answering, streaming, last_part, shut };

  struct Parser : http::request_parser<http::string_body> {
    bool got_some() const { return this->is_header_done(); }
  };

  static std::string_view view(beast::string_view s) { return {s.data(), s.size()}; }
  bool keeps_alive() const { return !hub_.closing && !refused_ && parser_->get().keep_alive(); }

  void read_body(error_code e) {
    if (e || parser_->is_done()) return was_read(e);
    http::async_read_some(stream_, buffer_, *parser_, [self = shared_from_this()](error_code r, size_t) {
      if (self->claim(self->parser_->get().body().size())) return self->read_body(r);
      self->state_ = State::answering;
      self->refuse(503, "too many and too large requests at once; try again later");
    });
  }
  /// How much of what bodies may take is this one's; false: there is not so much.
  bool claim(size_t bytes) {
    hub_.bodies += bytes - claimed_;
    claimed_ = bytes;
    return hub_.bodies <= hub_.limits.bodies;
  }

  void was_read(error_code e) {
    if (e == http::error::end_of_stream || e == net::error::eof || state_ == State::shut) return shut();
    state_ = State::answering;
    if (e) return refuse(e);
    stream_.expires_never();
    watch();
    hub_.handler(shared_from_this());
  }

  void refuse(error_code e) {
    // Where the time is over, the stream has been closed already.
    if (e.category() == net::error::get_system_category() || e == beast::error::timeout) return shut();
    refuse(e == http::error::body_limit ? 413 : e == http::error::header_limit ? 431 : 400, e.message());
  }
  // What cannot be parsed has no place where the next request begins.
  void refuse(int status, const std::string& why) {
    refused_ = true;
    drop_body();
    reply(status, "application/json", ApiError(status, "the request could not be read: " + why).json().dump());
  }

  // A client that closes its end while it waits has gone; one that sends its next request early is not watched further.
  void watch() {
    stream_.socket().async_wait(tcp::socket::wait_read, [weak = weak_from_this(), turn = turn_](error_code e) {
      const auto self = weak.lock();
      if (!self || e || self->turn_ != turn || self->state_ == State::reading || self->state_ == State::shut) return;
      char byte;
      error_code peeked;
      self->stream_.socket().non_blocking(true, peeked);
      const size_t n = self->stream_.socket().receive(net::buffer(&byte, 1), tcp::socket::message_peek, peeked);
      if (n == 0 && peeked != net::error::would_block) self->lost();
    });
  }

  void put(std::string bytes) {
    if (state_ == State::shut) return;
    unread_ += bytes.size();
    waiting_.push_back(std::move(bytes));
    if (unread_ > hub_.limits.unread) return lost();
    if (waiting_.size() == 1) write_next();
  }
  void write_next() {
    stream_.expires_after(hub_.limits.write);
    net::async_write(stream_, net::buffer(waiting_.front()), [self = shared_from_this()](error_code e, size_t) {
      if (e || self->state_ == State::shut) return self->lost();
      self->unread_ -= self->waiting_.front().size();
      self->waiting_.pop_front();
      if (!self->waiting_.empty())
        self->write_next();
      else if (self->state_ == State::last_part)
        self->was_written({});
      else
        self->stream_.expires_never();
    });
  }

  void was_written(error_code e) {
    if (e) return lost();
    ++turn_;
    gone = {};
    if (refused_) return linger();
    if (!keeps_alive()) return shut();
    read();
  }

  // What a refused client still sends is read for a while: closing at once would take the reply from it.
  void linger() {
    error_code ignored;
    stream_.socket().shutdown(tcp::socket::shutdown_send, ignored);
    stream_.expires_after(kLinger);
    discard(0);
  }
  void discard(size_t read) {
    if (read > kDiscarded) return shut();
    buffer_.clear();
    stream_.async_read_some(buffer_.prepare(1 << 16), [self = shared_from_this(), read](error_code e, size_t n) {
      e ? self->shut() : self->discard(read + n);
    });
  }

  void lost() {
    shut();
    if (const auto tell = std::exchange(gone, {})) tell();
  }
  void shut() {
    if (std::exchange(state_, State::shut) == State::shut) return;
    error_code ignored;
    stream_.socket().shutdown(tcp::socket::shutdown_both, ignored);
    stream_.close();
  }

  beast::tcp_stream stream_;
  HttpHub& hub_;
  beast::flat_buffer buffer_{kBuffer};
  std::optional<Parser> parser_;
  State state_ = State::reading;
  bool refused_ = false;
  uint64_t turn_ = 0;
  std::vector<std::pair<std::string, std::string>> headers_;  // of the reply
  std::deque<std::string> waiting_;                           // parts of a reply
  size_t unread_ = 0, claimed_ = 0;                           // bytes of these, and of the body
};

struct HttpServer::Impl {
  Impl(const std::string& host, int port, const HttpLimits& limits, Handler handler)
      : hub{limits, std::move(handler)}, acceptor(io), keep(net::make_work_guard(io)) {
    error_code e;
    const auto address = net::ip::make_address(host == "localhost" ? "127.0.0.1" : host, e);
    if (e) fail("serve", "--host {}: expected an address such as 127.0.0.1 or 0.0.0.0", host);
    const tcp::endpoint at(address, uint16_t(port));
    acceptor.open(at.protocol());
    acceptor.set_option(net::socket_base::reuse_address(true));
    acceptor.bind(at, e);
    if (!e) acceptor.listen(net::socket_base::max_listen_connections, e);
    if (e) fail("serve", "{}:{}: {}; choose another --port", host, port, e.message());
    accept();
  }
  ~Impl() {
    // Handlers hold sessions, which leave the hub as they go.
    acceptor.close();
    for (HttpSession* s : std::set<HttpSession*>(hub.sessions)) s->gone = {};
    io.stop();
  }

  void accept() {
    acceptor.async_accept([this](error_code e, tcp::socket socket) {
      if (!acceptor.is_open()) return;
      if (!e && int(hub.sessions.size()) < hub.limits.connections) {
        error_code ignored;
        socket.set_option(tcp::no_delay(true), ignored);
        std::make_shared<HttpSession>(std::move(socket), hub)->read();
      }
      if (!e) return accept();
      // Of file descriptors there may be none left; others will go.
      pause.expires_after(kPause);
      pause.async_wait([this](error_code stopped) {
        if (!stopped && acceptor.is_open()) accept();
      });
    });
  }
  void repeat(std::chrono::milliseconds period, const std::function<void()>& work) {
    auto timer = std::make_shared<net::steady_timer>(io, period);
    timer->async_wait([this, period, work, timer](error_code e) {
      if (e) return;
      work();
      repeat(period, work);
    });
  }

  HttpHub hub;
  net::io_context io{1};
  tcp::acceptor acceptor;
  net::steady_timer pause{io};
  net::executor_work_guard<net::io_context::executor_type> keep;
};

HttpServer::HttpServer(const std::string& host, int port, const HttpLimits& limits, Handler handler)
    : impl_(std::make_unique<Impl>(host, port, limits, std::move(handler))) {}
HttpServer::~HttpServer() = default;
int HttpServer::port() const { return impl_->acceptor.local_endpoint().port(); }
int HttpServer::connections() const { return int(impl_->hub.sessions.size()); }
void HttpServer::run() {
  while (true) try {
      impl_->io.run();
      return;
    } catch (const std::exception& e) {  // of one request; the others go on
      fmt::print(stderr, "error: [serve] {}\n", e.what());
    }
}
void HttpServer::post(std::function<void()> work) { net::post(impl_->io, std::move(work)); }
void HttpServer::every(std::chrono::milliseconds period, std::function<void()> work) { impl_->repeat(period, work); }
void HttpServer::close() {
  impl_->hub.closing = true;
  impl_->acceptor.close();
  for (HttpSession* s : std::set<HttpSession*>(impl_->hub.sessions)) s->close_if_idle();
}
void HttpServer::stop() { impl_->io.stop(); }

}  // namespace awq
