#include "serve/http_server.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <optional>
#include <thread>

namespace awq {
namespace {

using namespace std::chrono_literals;

class Client {
 public:
  explicit Client(int port, int receive_buffer = 0) : fd_(::socket(AF_INET, SOCK_STREAM, 0)) {
    if (receive_buffer) ::setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    sockaddr_in to{};
    to.sin_family = AF_INET, to.sin_port = htons(uint16_t(port)), to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::connect(fd_, reinterpret_cast<const sockaddr*>(&to), sizeof to), 0);
  }
  ~Client() { ::close(fd_); }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;
  void send(std::string_view text) {
    while (!text.empty()) {
      const ssize_t n = ::send(fd_, text.data(), text.size(), MSG_NOSIGNAL);
      if (n <= 0) return;
      text.remove_prefix(size_t(n));
    }
  }
  /// Until the server closes, or what ends with `end` has come.
  std::string read(std::string_view end = {}) {
    std::string all;
    char buffer[4096];
    while (end.empty() || !all.ends_with(end)) {
      const ssize_t n = ::recv(fd_, buffer, sizeof buffer, 0);
      if (n <= 0) break;
      all.append(buffer, size_t(n));
    }
    return all;
  }

 private:
  int fd_;
};

class HttpServerTest : public testing::Test {
 protected:
  void start(const HttpLimits& limits, HttpServer::Handler handler) {
    server_.emplace("127.0.0.1", 0, limits, std::move(handler));
    thread_ = std::thread([this] { server_->run(); });
  }
  void start(const HttpLimits& limits) {
    start(limits, [](const auto& e) { e->reply(200, "text/plain", std::string(e->path()) + e->body()); });
  }
  void TearDown() override {
    server_->stop();
    thread_.join();
  }
  std::string ask(std::string_view request) {
    Client c(server_->port());
    c.send(request);
    return c.read();
  }
  static std::string post(std::string_view path, std::string_view body) {
    return fmt::format("POST {} HTTP/1.1\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{}", path, body.size(),
                       body);
  }

  std::optional<HttpServer> server_;
  std::vector<std::shared_ptr<HttpExchange>> kept_;  // of the server's thread
  std::thread thread_;
};

TEST_F(HttpServerTest, RequestsOneAfterAnother) {
  start({});
  Client c(server_->port());
  for (const char* path : {"/a", "/b"}) {
    c.send(
        fmt::format("POST {}?q HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nxyz\r\n2\r\n12\r\n0\r\n\r\n", path));
    EXPECT_TRUE(c.read("xyz12").ends_with(fmt::format("\r\n\r\n{}xyz12", path)));
  }
  EXPECT_TRUE(ask(post("/c", "body")).ends_with("/cbody"));
}

TEST_F(HttpServerTest, HeadersOfAReply) {
  start({}, [](const auto& e) {
    e->set("X-Kind", "yes");
    if (e->path() == "/whole") return e->reply(200, "text/plain", "x");
    e->begin("text/event-stream");
    e->send("data: 1\n\n");
    e->end();
  });
  for (const char* path : {"/whole", "/stream"})
    EXPECT_NE(ask(post(path, "")).find("X-Kind: yes\r\n"), std::string::npos);
  Client c(server_->port());  // the next reply has only its own
  c.send("GET /whole HTTP/1.1\r\n\r\nGET /whole HTTP/1.1\r\nConnection: close\r\n\r\n");
  const std::string both = c.read();
  EXPECT_EQ(both.find("X-Kind", both.find("X-Kind", both.find("X-Kind") + 1) + 1), std::string::npos) << both;
}

TEST_F(HttpServerTest, WhatIsTooLongInComingEnds) {
  start({.read = 1s});
  for (const char* request : {"", "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nab", "POST / HTTP/1.1\r\nX: "})
    EXPECT_EQ(ask(request), "");
}

TEST_F(HttpServerTest, BodiesHaveABoundTogether) {
  start({.body = 1000, .bodies = 1500});
  EXPECT_TRUE(ask(post("/", std::string(1001, 'x'))).starts_with("HTTP/1.1 413 "));
  {
    Client half(server_->port());
    half.send("POST / HTTP/1.1\r\nContent-Length: 1000\r\n\r\n" + std::string(900, 'x'));
    std::this_thread::sleep_for(200ms);
    EXPECT_TRUE(ask(post("/", std::string(800, 'x'))).starts_with("HTTP/1.1 503 "));
    EXPECT_TRUE(ask(post("/", std::string(500, 'x'))).starts_with("HTTP/1.1 200 "));
  }
  std::this_thread::sleep_for(200ms);
  EXPECT_TRUE(ask(post("/", std::string(800, 'x'))).starts_with("HTTP/1.1 200 "));
}

// Two bodies at once would be too much: each is sent when the one before is dropped.
TEST_F(HttpServerTest, ABodyThatNobodyNeedsCountsNoMore) {
  std::atomic<size_t> dropped = 0;
  start({.bodies = 1000}, [&](const auto& e) {
    e->drop_body();
    kept_.push_back(e);
    if (kept_.size() == 3)
      for (const auto& k : kept_) k->reply(200, "text/plain", "x");
    ++dropped;
  });
  Client a(server_->port()), b(server_->port()), c(server_->port());
  size_t sent = 0;
  for (Client* one : {&a, &b, &c}) {
    one->send(post("/", std::string(900, 'x')));
    ++sent;
    for (int i = 0; i < 5000 && dropped < sent; ++i) std::this_thread::sleep_for(1ms);
    ASSERT_EQ(dropped, sent);
  }
  for (Client* one : {&a, &b, &c}) EXPECT_TRUE(one->read().starts_with("HTTP/1.1 200 "));
}

TEST_F(HttpServerTest, WhoDoesNotReadIsCutOff) {
  std::atomic<int> gone = 0;
  start({.unread = 100000}, [&](const auto& e) {
    e->gone = [&] { ++gone; };
    e->begin("text/event-stream");
    for (int i = 0; i < 10000; ++i) e->send(std::string(1000, 'x'));
  });
  Client slow(server_->port(), 4096);
  slow.send(post("/", ""));
  for (int i = 0; i < 200 && !gone; ++i) std::this_thread::sleep_for(10ms);
  EXPECT_EQ(gone, 1);
}

TEST_F(HttpServerTest, AWriteThatIsNotTakenEnds) {
  std::atomic<int> gone = 0;
  start({.write = 1s}, [&](const auto& e) {
    e->gone = [&] { ++gone; };
    e->begin("text/event-stream");
    for (int i = 0; i < 10000; ++i) e->send(std::string(1000, 'x'));
  });
  Client slow(server_->port(), 4096);
  slow.send(post("/", ""));
  for (int i = 0; i < 500 && !gone; ++i) std::this_thread::sleep_for(10ms);
  EXPECT_EQ(gone, 1);
}

TEST_F(HttpServerTest, WhoGoesIsNoticed) {
  std::atomic<int> asked = 0, gone = 0;
  start({}, [&](const auto& e) {
    e->gone = [&] { ++gone; };
    kept_.push_back(e);
    ++asked;
  });
  std::optional<Client> c(std::in_place, server_->port());
  c->send(post("/", "x"));
  for (int i = 0; i < 500 && !asked; ++i) std::this_thread::sleep_for(10ms);
  EXPECT_EQ(gone, 0);
  c.reset();
  for (int i = 0; i < 500 && !gone; ++i) std::this_thread::sleep_for(10ms);
  EXPECT_EQ(gone, 1);
}

TEST_F(HttpServerTest, ManyClientsAtOnce) {
  start({});
  std::vector<std::jthread> threads;
  std::atomic<int> good = 0;
  for (int t = 0; t < 8; ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < 30; ++i)
        good += ask(post("/", fmt::format("{} {}", t, i))).ends_with(fmt::format("/{} {}", t, i));
    });
  threads.clear();
  EXPECT_EQ(good, 240);
}

}  // namespace
}  // namespace awq
