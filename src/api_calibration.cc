#include "api_calibration.h"

#include "engine/documents.h"
#include "engine/self_calibration.h"
#include "io/file.h"
#include "io/sha256.h"
#include "quantizer/prompts.h"

namespace awq {

std::string sha256_of(std::span<const std::vector<int32_t>> sequences) {
  Sha256 hash;
  for (const auto& s : sequences) hash.add(std::as_bytes(std::span(s)));
  return hash.hex();
}

namespace {

/// Joins texts and cuts them: [BOS] + length - 1 tokens, or length tokens without a BOS.
class Cutter {
 public:
  Cutter(const TextSide& text, int sequences, int length) : wanted_(size_t(sequences)), length_(size_t(length)) {
    const std::vector<int32_t> start = text.tokenizer().encode("", true, false);
    if (!start.empty()) bos_ = start.front();
  }
  void add(std::span<const int32_t> tokens) {
    if (tokens.empty()) return;
    ++set_.report.texts;
    set_.report.tokens_read += int64_t(tokens.size());
    for (int32_t t : tokens) push(t);
  }
  CalibrationSet finish(const std::string& name) {
    if (set_.sequences.empty()) whole_text_as_one();
    if (set_.sequences.empty())
      fail("calibrate",
           "{}: no usable text. Expected a .txt file, or a .jsonl file whose lines have \"text\" or \"messages\"; got "
           "{} tokens "
           "(at least {} are needed). Leave out --calib to let the model write its own text",
           name, current_.size(), kLeast);
    set_.report.source = name;
    set_.report.sha256 = sha256_of(set_.sequences);
    set_.report.sequences = int(set_.sequences.size());
    set_.report.sequence_tokens = int(set_.sequences.front().size());
    set_.report.tokens_unused = unused_ + int64_t(current_.size());
    return std::move(set_);
  }

 private:
  static constexpr size_t kLeast = 32;
  void push(int32_t t) {
    if (set_.sequences.size() == wanted_) {
      ++unused_;
      return;
    }
    if (current_.empty() && bos_ && t != *bos_) current_.push_back(*bos_);
    current_.push_back(t);
    if (current_.size() == length_) set_.sequences.push_back(std::exchange(current_, {}));
  }
  void whole_text_as_one() {
    if (current_.size() >= kLeast) set_.sequences.push_back(std::exchange(current_, {}));
  }

  size_t wanted_, length_;
  std::optional<int32_t> bos_;
  std::vector<int32_t> current_;
  int64_t unused_ = 0;
  CalibrationSet set_;
};

}  // namespace

CalibrationSet read_calibration(const std::filesystem::path& file, const TextSide& text, int sequences, int length) {
  const std::string content = read_text(file);
  Cutter cutter(text, sequences, length);
  if (file.extension() == ".txt") {
    cutter.add(text.tokenizer().encode(content, false, false));
  } else if (file.extension() == ".jsonl") {
    for (const auto& document : encode_json_lines(content, text, "calibrate", file.string())) cutter.add(document);
  } else {
    fail("calibrate", "{}: expected a .txt or .jsonl file, got \"{}\"", file.string(), file.extension().string());
  }
  return cutter.finish(file.filename().string());
}

namespace {

std::vector<std::vector<int32_t>> openings(const TextSide& text) {
  std::vector<std::vector<int32_t>> result;
  for (const CalibrationPrompt& p : calibration_prompts()) {
    const bool chat = p.kind == PromptKind::chat && text.has_template();
    if (chat)
      result.push_back(text.encode_chat({{{"role", "user"}, {"content", p.text}}}, true));
    else
      result.push_back(text.tokenizer().encode(p.text, true, false));
  }
  return result;
}

}  // namespace

CalibrationSet self_calibration(Device& device, const Checkpoint& source, const TextSide& text, int sequences,
                                int length, double temperature, uint64_t seed, const OnProgress& progress) {
  const Model model = load_model(*device.backend, source, [&](int done, int total) {
    if (progress && !progress({"load", done, total})) throw Cancelled();
  });
  CalibrationSet set;
  const auto start = openings(text);
  set.sequences = write_calibration(
      device, model, text, start, {.sequences = sequences, .length = length, .temperature = temperature, .seed = seed},
      [&](int64_t done, int64_t total) {
        if (progress && !progress({"write calibration text", int(done), int(total)})) throw Cancelled();
      });
  set.report = {.source = "self",
                .sha256 = sha256_of(set.sequences),
                .sequences = sequences,
                .sequence_tokens = length,
                .texts = int64_t(start.size()),
                .tokens_read = int64_t(sequences) * length,
                .tokens_unused = 0};
  return set;
}

}  // namespace awq
