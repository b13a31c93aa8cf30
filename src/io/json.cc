#include "io/json.h"

#include <set>
#include <vector>

#include "base/check.h"

namespace awq {
namespace {

using Json = nlohmann::json;
using Event = Json::parse_event_t;

constexpr size_t kMaxDepth = 64;
constexpr size_t kMaxValues = 4'000'000;  // 90,000 tensors, the largest model so far, are 800,000 values

/// Sees every event of the parser and stops it at what `parse_json` refuses.
class Guard {
 public:
  explicit Guard(std::string_view file) : file_(file) {}

  void see(Event event, const Json& token) {
    switch (event) {
      case Event::object_start:
      case Event::array_start:
        return enter();
      case Event::object_end:
      case Event::array_end:
        return levels_.pop_back();
      case Event::key:
        return check_key(token);
      case Event::value:
        return count();
    }
  }

 private:
  void enter() {
    count();
    levels_.emplace_back();
    if (levels_.size() > kMaxDepth)
      fail("open", "{}: JSON nested more than {} levels deep is refused", file_, kMaxDepth);
  }
  void count() {
    if (++values_ > kMaxValues) fail("open", "{}: JSON of more than {} values is refused", file_, kMaxValues);
  }
  void check_key(const Json& name) {
    if (!levels_.back().insert(name.get<std::string>()).second)
      fail("open", "{}: the key {} stands twice in one JSON object; which one counts is not defined", file_,
           shown(name));
  }

  std::string_view file_;
  std::vector<std::set<std::string>> levels_;  // the keys of every object that is open
  size_t values_ = 0;
};

}  // namespace

Json parse_json(std::string_view text, std::string_view file) {
  Guard guard(file);
  try {
    return Json::parse(text, [&](int, Event event, Json& token) {
      guard.see(event, token);
      return true;
    });
  } catch (const Json::parse_error& e) {
    fail("open", "{}: no valid JSON at byte {}; perhaps a download was cut off: fetch it again", file, e.byte);
  } catch (const Json::out_of_range&) {
    fail("open", "{}: the JSON has a number that no 64-bit type can hold", file);
  }
}

std::string shown(const Json& value) {
  std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
  if (text.size() > 80) text.replace(77, text.npos, "...");
  return text;
}

}  // namespace awq
