#pragma once
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace awq {

/// One step from token texts back to text, as a machine that is fed piece by piece: a token is any number of `text`
/// calls and one `end`. Decoding a whole sequence and streaming it are the same calls, so they cannot differ.
class DecoderStep {
 public:
  virtual ~DecoderStep() = default;
  virtual void text(std::string_view part) = 0;
  virtual void end() = 0;     // the token is complete
  virtual void finish() = 0;  // no token follows

  void feed(DecoderStep& next) { next_ = &next; }

 protected:
  DecoderStep& next() { return *next_; }

 private:
  DecoderStep* next_ = nullptr;
};

/// Makes a fresh chain of steps; each decoding has its own.
using DecoderFactory = std::function<std::unique_ptr<DecoderStep>()>;

/// "decoder" of tokenizer.json, in order. A JSON null joins tokens by spaces, as the reference does. Throws Error
/// naming the type if it is not implemented.
std::vector<DecoderFactory> make_decoder(const nlohmann::json& spec);

}  // namespace awq
