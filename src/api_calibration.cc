#include "api_calibration.h"

#include <cmath>
#include <numeric>

#include "base/sha256.h"
#include "engine/documents.h"
#include "engine/self_calibration.h"
#include "formats/context.h"
#include "io/file.h"
#include "quantizer/prompts.h"

namespace awq {
namespace {

// Chosen by measurement, docs/numerics.md "Calibration".
constexpr int kDefaultSequences = 16, kDefaultLength = 512;

std::string hash_of(const std::vector<std::vector<int32_t>>& sequences) {
  Sha256 hash;
  for (const auto& s : sequences) hash.add(std::as_bytes(std::span(s)));
  return hash.hex();
}

/// Joins one source's texts and cuts them: [BOS] + length - 1 tokens, or length tokens without a BOS.
class Cutter {
 public:
  Cutter(std::optional<int32_t> bos, int wanted, const QuantizeOptions& o)
      : bos_(bos), wanted_(size_t(wanted)), length_(size_t(o.sample_tokens)), masked_(o.mask_prompts) {}

  void add(const Document& d) {
    if (d.tokens.empty()) return;
    chats_ += d.chat;
    for (size_t i = 0; i < d.tokens.size(); ++i) push(d.tokens[i], masked_ ? d.counted[i] : 1);
    ends_.push_back(read_);
  }

  /// A text too short for a sequence becomes a shorter one where no other source needs it to have the full length.
  void finish(const std::string& name, double weight, bool alone) {
    if (sequences.empty() && alone && current_.size() >= kLeast) close();
    if (sequences.empty())
      fail("calibrate",
           "{}: no usable text. Expected a .txt file, or a .jsonl file whose lines have \"text\" or \"messages\"; got "
           "{} tokens (at least {} are needed). Leave out --calib to let the model write its own text",
           name, read_, alone ? kLeast : length_);
    report.name = name;
    report.weight = weight;
    report.sequences = int(sequences.size());
    report.texts = int64_t(ends_.size());
    report.tokens = read_;
    report.tokens_used = used_;
    for (size_t i = 0; i < ends_.size(); ++i) {
      const bool begun = (i ? ends_[i - 1] : 0) < used_, whole = ends_[i] <= used_;
      report.texts_truncated += begun && !whole;
      report.texts_dropped += !begun;
    }
    require_answers(name);
  }

  int64_t chats() const { return chats_; }
  size_t missing() const { return wanted_ - sequences.size(); }

  std::vector<std::vector<int32_t>> sequences;
  std::vector<uint8_t> counted;  // as CalibrationSet's; empty where nothing is masked
  CalibrationSourceReport report;

 private:
  static constexpr size_t kLeast = 32;

  void push(int32_t token, uint8_t count) {
    ++read_;
    if (sequences.size() == wanted_) return;
    if (current_.empty() && bos_ && token != *bos_) append(*bos_, 0);
    append(token, count);
    ++pending_;
    if (current_.size() == length_) close();
  }
  void append(int32_t token, uint8_t count) {
    current_.push_back(token);
    current_counted_.push_back(count);
  }
  void close() {
    sequences.push_back(std::exchange(current_, {}));
    used_ += std::exchange(pending_, 0);
    if (masked_) counted.insert(counted.end(), current_counted_.begin(), current_counted_.end());
    current_counted_.clear();
  }
  void require_answers(const std::string& name) {
    report.tokens_counted = masked_ ? std::accumulate(counted.begin(), counted.end(), int64_t(0)) : used_;
    if (masked_ && !report.tokens_counted)
      fail(
          "calibrate",
          "{}: --mask-prompts leaves no token to count: {} of its {} texts are chats, and no answer of an assistant is "
          "in the {} tokens that are used. Give chats with answers, more --samples, or leave out --mask-prompts",
          name, chats_, ends_.size(), used_);
  }

  std::optional<int32_t> bos_;
  size_t wanted_, length_;
  bool masked_;
  std::vector<int32_t> current_;
  std::vector<uint8_t> current_counted_;
  std::vector<int64_t> ends_;                              // of each text, in tokens read
  int64_t read_ = 0, used_ = 0, pending_ = 0, chats_ = 0;  // tokens without the BOS put in; chats
};

Document plain(const TextSide& text, const std::string& content) {
  Document d{.tokens = text.tokenizer().encode(content, false, false)};
  d.counted.assign(d.tokens.size(), 1);
  return d;
}

void read_source(const std::filesystem::path& file, const TextSide& text, bool mask_prompts, Cutter& to) {
  const std::string content = read_text(file);
  if (file.extension() == ".txt") {
    to.add(plain(text, content));
  } else if (file.extension() == ".jsonl") {
    for (const Document& d : encode_json_lines(content, text, "calibrate", file.string(), mask_prompts)) to.add(d);
  } else {
    fail("calibrate", "{}: expected a .txt or .jsonl file, got \"{}\"", file.string(), file.extension().string());
  }
}

void add_source(Cutter&& c, CalibrationSet& set) {
  CalibrationReport& r = set.report;
  if (c.missing())
    set.warnings.push_back(fmt::format("{} has text for {} of the {} calibration sequences that were to come from it",
                                       c.report.name, c.report.sequences, size_t(c.report.sequences) + c.missing()));
  r.source += (r.source.empty() ? "" : ", ") + c.report.name;
  r.sequences += c.report.sequences;
  r.texts += c.report.texts;
  r.tokens_read += c.report.tokens;
  r.tokens_unused += c.report.tokens - c.report.tokens_used;
  for (auto& s : c.sequences) set.sequences.push_back(std::move(s));
  set.counted.insert(set.counted.end(), c.counted.begin(), c.counted.end());
  r.sources.push_back(std::move(c.report));
}

void seal(CalibrationSet& set) {
  set.report.sequence_tokens = int(set.sequences.front().size());
  set.report.sha256 = hash_of(set.sequences);
  if (set.counted.empty()) return;
  Sha256 hash;
  hash.add(std::as_bytes(std::span(set.counted)));
  set.report.mask_sha256 = hash.hex();
}

void check_weights(std::span<const CalibrationSource> sources) {
  for (const CalibrationSource& s : sources)
    if (!std::isfinite(s.weight) || s.weight <= 0)
      fail("calibrate", "{}: a weight of {}; expected a positive number", s.file.string(), s.weight);
}

}  // namespace

std::vector<int> split_by_weight(std::span<const CalibrationSource> sources, int total) {
  double sum = 0;
  for (const CalibrationSource& s : sources) sum += s.weight;
  std::vector<int> parts;
  std::vector<double> rest;
  int left = total;
  for (const CalibrationSource& s : sources) {
    const double share = total * (s.weight / sum);
    parts.push_back(int(share));
    rest.push_back(share - std::floor(share));
    left -= parts.back();
  }
  for (; left > 0; --left) {
    const auto largest = size_t(std::max_element(rest.begin(), rest.end()) - rest.begin());
    ++parts[largest];
    rest[largest] = -1;
  }
  return parts;
}

CalibrationSet read_calibration(const QuantizeOptions& o, const TextSide& text) {
  check_weights(o.calibration);
  const std::vector<int> parts = split_by_weight(o.calibration, o.samples);
  const std::vector<int32_t> start = text.tokenizer().encode("", true, false);
  const auto bos = start.empty() ? std::nullopt : std::optional(start.front());
  CalibrationSet set;
  int64_t chats = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    const CalibrationSource& s = o.calibration[i];
    if (!parts[i])
      fail("calibrate",
           "{}: its weight of {} leaves it none of {} sequences. Give it more, or use more --samples (of fewer "
           "--tokens)",
           s.file.string(), s.weight, o.samples);
    Cutter cutter(bos, parts[i], o);
    read_source(s.file, text, o.mask_prompts, cutter);
    cutter.finish(s.file.filename().string(), s.weight, parts.size() == 1);
    chats += cutter.chats();
    add_source(std::move(cutter), set);
  }
  if (o.mask_prompts && !chats)
    fail("calibrate",
         "--mask-prompts: {} has no chat, and plain text has no prompts to mask. Expected a .jsonl file whose "
         "lines have \"messages\"; or leave out --mask-prompts",
         set.report.source);
  seal(set);
  return set;
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

CalibrationSet self_calibration(Device& device, const Checkpoint& source, const TextSide& text,
                                const QuantizeOptions& o, const OnProgress& progress) {
  const Model model = load_model(*device.backend, source, [&](int done, int total) {
    if (progress && !progress({"load", done, total})) throw Cancelled();
  });
  CalibrationSet set;
  const auto start = openings(text);
  set.sequences = write_calibration(
      device, model, text, start,
      {.sequences = o.samples, .length = o.sample_tokens, .temperature = o.temperature, .seed = o.seed},
      [&](int64_t done, int64_t total) {
        if (progress && !progress({"write calibration text", int(done), int(total)})) throw Cancelled();
      });
  const int64_t tokens = int64_t(o.samples) * o.sample_tokens, texts = int64_t(start.size());
  set.report = {.source = "self",
                .sha256 = {},
                .mask_sha256 = {},
                .sequences = o.samples,
                .sequence_tokens = o.sample_tokens,
                .texts = texts,
                .tokens_read = tokens,
                .tokens_unused = 0,
                .sources = {{.name = "self",
                             .weight = 1,
                             .sequences = o.samples,
                             .texts = texts,
                             .tokens = tokens,
                             .tokens_used = tokens,
                             .tokens_counted = tokens}}};
  seal(set);
  return set;
}

void complete_calibration(QuantizeOptions& o, const Checkpoint& source, std::string_view operation) {
  if (o.samples < 0 || o.sample_tokens < 0) fail(operation, "--samples and --tokens must be positive");
  if (!o.samples) o.samples = kDefaultSequences;
  if (!o.sample_tokens) o.sample_tokens = std::min(kDefaultLength, source.spec().max_context);
  if (o.sample_tokens < 32) fail(operation, "--tokens {}: expected at least 32", o.sample_tokens);
  require_context(source, operation, fmt::format("--tokens {}", o.sample_tokens), o.sample_tokens);
  if (o.mask_prompts && o.calibration.empty())
    fail(operation, "--mask-prompts: text that the model writes has no prompts to mask; give chats with --calib");
}

CalibrationSet calibration_set(Device& device, const Checkpoint& source, const QuantizeOptions& o,
                               const OnProgress& progress) {
  const TextSide text(source);
  return o.calibration.empty() ? self_calibration(device, source, text, o, progress) : read_calibration(o, text);
}

std::string to_json_text(const CalibrationReport& r) { return to_json(r).dump(); }

nlohmann::ordered_json to_json(const CalibrationReport& r) {
  nlohmann::ordered_json j = {{"source", r.source}, {"sha256_of_token_ids", r.sha256}};
  if (!r.mask_sha256.empty()) j["sha256_of_mask"] = r.mask_sha256;
  j["sequences"] = r.sequences;
  j["sequence_tokens"] = r.sequence_tokens;
  j["texts"] = r.texts;
  j["tokens_read"] = r.tokens_read;
  j["tokens_unused"] = r.tokens_unused;
  for (const CalibrationSourceReport& s : r.sources)
    j["sources"].push_back({{"name", s.name},
                            {"weight", s.weight},
                            {"sequences", s.sequences},
                            {"texts", s.texts},
                            {"texts_truncated", s.texts_truncated},
                            {"texts_dropped", s.texts_dropped},
                            {"tokens", s.tokens},
                            {"tokens_used", s.tokens_used},
                            {"tokens_counted", s.tokens_counted}});
  return j;
}

CalibrationReport calibration_report(const nlohmann::json& j) {
  CalibrationReport r{.source = j.at("source"),
                      .sha256 = j.at("sha256_of_token_ids"),
                      .mask_sha256 = j.value("sha256_of_mask", ""),
                      .sequences = j.at("sequences"),
                      .sequence_tokens = j.at("sequence_tokens"),
                      .texts = j.at("texts"),
                      .tokens_read = j.at("tokens_read"),
                      .tokens_unused = j.at("tokens_unused"),
                      .sources = {}};
  for (const auto& s : j.at("sources"))
    r.sources.push_back({.name = s.at("name"),
                         .weight = s.at("weight"),
                         .sequences = s.at("sequences"),
                         .texts = s.at("texts"),
                         .texts_truncated = s.at("texts_truncated"),
                         .texts_dropped = s.at("texts_dropped"),
                         .tokens = s.at("tokens"),
                         .tokens_used = s.at("tokens_used"),
                         .tokens_counted = s.at("tokens_counted")});
  return r;
}

}  // namespace awq
