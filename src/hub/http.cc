#include "hub/http.h"

#include <curl/curl.h>

#include <cstdlib>

#include "base/check.h"

namespace awq {
namespace {

constexpr long kConnectSeconds = 20, kRedirects = 10;

/// libcurl's own state of the process, made before the first handle.
void start_curl() {
  static const CURLcode code = curl_global_init(CURL_GLOBAL_DEFAULT);
  if (code != CURLE_OK) fail("pull", "libcurl cannot start: {}", curl_easy_strerror(code));
}

struct Transfer {
  CURL* curl;
  const HttpClient::Receive& receive;
  bool stopped = false;

  long status() const {
    long code = 0;
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &code);
    return code;
  }
};

size_t on_body(char* data, size_t, size_t size, void* user) {
  auto& t = *static_cast<Transfer*>(user);
  const long status = t.status();
  if (status != 200 && status != 206) return size;
  if (t.receive({reinterpret_cast<const std::byte*>(data), size}, status == 200)) return size;
  t.stopped = true;
  return CURL_WRITEFUNC_ERROR;
}

}  // namespace

struct HttpClient::Handle {
  CURL* curl = curl_easy_init();
  curl_slist* headers = nullptr;
  std::string error = std::string(CURL_ERROR_SIZE, '\0');

  Handle() = default;
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  ~Handle() {
    curl_slist_free_all(headers);
    curl_easy_cleanup(curl);
  }
};

HttpClient::HttpClient(HttpOptions options) {
  start_curl();
  handle_ = std::make_unique<Handle>();
  CURL* c = handle_->curl;
  if (!c) fail("pull", "libcurl has no memory for a connection");
  // curl leaves this header out where a redirect leads to another host, scheme or port.
  if (!options.token.empty())
    handle_->headers = curl_slist_append(nullptr, ("Authorization: Bearer " + options.token).c_str());
  curl_easy_setopt(c, CURLOPT_HTTPHEADER, handle_->headers);
  curl_easy_setopt(c, CURLOPT_USERAGENT, "awq/" AWQ_VERSION);
  curl_easy_setopt(c, CURLOPT_ERRORBUFFER, handle_->error.data());
  curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(c, CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, 1L);
  curl_easy_setopt(c, CURLOPT_MAXREDIRS, kRedirects);
  curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT, kConnectSeconds);
  curl_easy_setopt(c, CURLOPT_LOW_SPEED_LIMIT, 1L);
  curl_easy_setopt(c, CURLOPT_LOW_SPEED_TIME, long(options.silence.count()));
  curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_body);
}

HttpClient::~HttpClient() = default;

HttpResult HttpClient::get(const std::string& url, uint64_t from, const Receive& receive) {
  CURL* c = handle_->curl;
  Transfer transfer{c, receive};
  handle_->error[0] = '\0';
  const std::string range = std::to_string(from) + "-";
  curl_easy_setopt(c, CURLOPT_URL, url.c_str());
  curl_easy_setopt(c, CURLOPT_RANGE, from ? range.c_str() : nullptr);
  curl_easy_setopt(c, CURLOPT_WRITEDATA, &transfer);
  const CURLcode code = curl_easy_perform(c);
  HttpResult result;
  if (code == CURLE_OK)
    result.status = transfer.status();
  else if (!transfer.stopped)
    result.problem = handle_->error[0] ? handle_->error.c_str() : curl_easy_strerror(code);
  result.final = code == CURLE_TOO_MANY_REDIRECTS || code == CURLE_UNSUPPORTED_PROTOCOL || code == CURLE_URL_MALFORMAT;
  if (curl_off_t wait = 0; curl_easy_getinfo(c, CURLINFO_RETRY_AFTER, &wait) == CURLE_OK && wait > 0)
    result.retry_after = std::chrono::seconds(wait);
  return result;
}

}  // namespace awq
