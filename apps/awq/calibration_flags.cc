#include "calibration_flags.h"

namespace awq::cli {
namespace {

std::string source_text(const CalibrationSourceReport& s, bool masked) {
  std::string text = fmt::format("{}: {} sequences; {} of {} tokens used, {} texts read", s.name, s.sequences,
                                 s.tokens_used, s.tokens, s.texts);
  if (s.texts_truncated) text += fmt::format(", {} cut short", s.texts_truncated);
  if (s.texts_dropped) text += fmt::format(", {} not needed", s.texts_dropped);
  if (masked) text += fmt::format("; {} tokens of answers count", s.tokens_counted);
  return text;
}

}  // namespace

CalibrationSource parse_source(const std::string& text, const std::string& flag) {
  const size_t at = text.rfind('=');
  std::error_code ignored;
  if (at == text.npos || std::filesystem::exists(text, ignored)) return {.file = text};
  CalibrationSource s{.file = text.substr(0, at)};
  if (!CLI::detail::lexical_cast(text.substr(at + 1), s.weight) || !(s.weight > 0 && s.weight < 1e9))
    throw CLI::ValidationError(flag,
                               fmt::format("\"{}\" after = is no weight, a positive number, and there is no file {}",
                                           text.substr(at + 1), text));
  return s;
}

void add_calibration_sources(CLI::App& app, QuantizeOptions& o) {
  app.add_option_function<std::vector<std::string>>(
         "--calib",
         [&o](const std::vector<std::string>& files) {
           for (const std::string& f : files) o.calibration.push_back(parse_source(f, "--calib"));
         },
         "Calibration text, .txt or .jsonl (\"text\" or \"messages\"), with =WEIGHT for its share of the tokens among "
         "several; default: the model writes its own")
      ->type_name("FILE[=WEIGHT]")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
}

void add_calibration_options(CLI::App& app, QuantizeOptions& o) {
  app.add_flag("--mask-prompts", o.mask_prompts,
               "Of calibration chats only the assistant's answers count in the statistics");
  app.add_option("--samples", o.samples, "Calibration sequences; default: 16");
  app.add_option("--tokens", o.sample_tokens, "Tokens a sequence; default: 512");
  app.add_option("--temperature", o.temperature, "Of the calibration text that the model writes")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 10.0));
  app.add_option("--seed", o.seed, "Of that text; the same seed gives the same bytes")->capture_default_str();
}

std::string calibration_text(const CalibrationReport& r) {
  std::string text = fmt::format("{} x {} tokens ", r.sequences, r.sequence_tokens);
  if (r.source == "self") return text + "that the model wrote itself";
  const bool masked = !r.mask_sha256.empty();
  text += "of " + r.source;
  if (r.sources.size() == 1 && !masked)
    return text + (r.tokens_unused ? fmt::format(" ({} tokens were not needed)", r.tokens_unused) : "");
  for (const CalibrationSourceReport& s : r.sources) text += "\n    " + source_text(s, masked);
  return text;
}

nlohmann::ordered_json calibration_json(const CalibrationReport& r) {
  return nlohmann::ordered_json::parse(to_json_text(r));
}

}  // namespace awq::cli
