// awq::evaluate and awq::logits.
#include "api_evaluate.h"

#include <chrono>
#include <cmath>

#include "engine/documents.h"
#include "eval/divergence.h"
#include "formats/context.h"
#include "formats/params.h"
#include "io/file.h"

namespace awq {
namespace {

/// A model and its scores, a value a window.
struct Subject {
  explicit Subject(const std::filesystem::path& p) : path(p), checkpoint(Checkpoint::open(p)) {}
  void load(Device& device, const OnProgress& progress) {
    model = load_model(*device.backend, *checkpoint, [&](int done, int total) {
      if (progress && !progress({"load", done, total})) throw Cancelled();
    });
  }
  std::filesystem::path path;
  std::unique_ptr<Checkpoint> checkpoint;
  Model model;
  std::vector<double> nll, kl, top1;
};

// With the tokenizer's BOS in front, where the first document's template has not put one.
std::vector<int32_t> tokens_of_lines(std::string_view text, const TextSide& side, const std::string& name) {
  std::vector<int32_t> tokens, bos = side.tokenizer().encode("", true, false);
  for (const auto& d : encode_json_lines(text, side, "eval", name))
    tokens.insert(tokens.end(), d.tokens.begin(), d.tokens.end());
  const bool there = tokens.size() >= bos.size() && std::equal(bos.begin(), bos.end(), tokens.begin());
  if (!there) tokens.insert(tokens.begin(), bos.begin(), bos.end());
  return tokens;
}

}  // namespace

Bits bits_of(const Checkpoint& c) {
  Bits b{.bytes = 0, .weights = parameter_count(c.spec()) + carried_elements(c)};
  for (const TensorInfo& t : c.tensors()) b.bytes += t.bytes;
  return b;
}

int64_t carried_elements(const Checkpoint& c) {
  int64_t n = 0;
  for (const std::string& name : c.spec().carried) n += c.carried(name).shape().elements();
  return n;
}

std::vector<int32_t> tokens_of_text(const Checkpoint& model, std::string_view text, const EvaluateOptions& o) {
  const TextSide side(model);
  std::vector<int32_t> tokens =
      o.json_lines.empty() ? side.tokenizer().encode(text, true, false) : tokens_of_lines(text, side, o.json_lines);
  if (tokens.size() < size_t(o.window))
    fail("eval", "the text has {} tokens, but one window needs {}. Give a longer text or a smaller --window",
         tokens.size(), o.window);
  return tokens;
}

std::vector<int32_t> windows_of(const std::filesystem::path& file, const Checkpoint& source, int windows, int window) {
  EvaluateOptions e{.window = window, .json_lines = {}, .against = {}};
  if (file.extension() == ".jsonl") e.json_lines = file.string();
  std::vector<int32_t> tokens = tokens_of_text(source, read_text(file), e);
  tokens.resize(std::min(tokens.size() / size_t(window), size_t(windows)) * size_t(window));
  return tokens;
}

namespace {

class Evaluation {
 public:
  /// `original` may be empty: then there is one model and only its perplexity.
  Evaluation(const std::filesystem::path& original, std::span<const std::filesystem::path> models,
             const EvaluateOptions& o, const OnProgress& progress)
      : o_(o), progress_(progress), kv_(kv_type(o.device.kv, DType::f32)), device_(o.device) {
    if (!original.empty()) original_.emplace(original);
    for (const auto& m : models) subjects_.emplace_back(m);
    check();
    if (original_) original_->load(device_, progress);
    for (Subject& s : subjects_) s.load(device_, progress);
  }

  /// The original, where there is one, and the models.
  std::vector<EvaluateReport> run(std::string_view text) {
    return run(tokens_of_text(*(original_ ? *original_ : subjects_.front()).checkpoint, text, o_));
  }
  std::vector<EvaluateReport> run(std::span<const int32_t> tokens) {
    const auto start = std::chrono::steady_clock::now();
    const int all = int(tokens.size() / size_t(o_.window)), n = o_.windows ? std::min(o_.windows, all) : all;
    for (int i = 0; i < n; ++i) {
      if (progress_ && !progress_({"evaluate", i, n})) throw Cancelled();
      window(tokens.subspan(size_t(i) * size_t(o_.window), size_t(o_.window)));
    }
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    std::vector<EvaluateReport> reports;
    if (original_) reports.push_back(summary(*original_, int64_t(tokens.size()), seconds));
    for (const Subject& s : subjects_) reports.push_back(summary(s, int64_t(tokens.size()), seconds));
    return reports;
  }

 private:
  void check() const {
    if (o_.window < 2) fail("eval", "--window {}: expected at least 2 tokens", o_.window);
    const std::string asked = fmt::format("--window {}", o_.window);
    if (original_) require_context(*original_->checkpoint, "eval", asked, o_.window);
    for (const Subject& s : subjects_) {
      require_context(*s.checkpoint, "eval", asked, o_.window);
      if (const int vocab = s.checkpoint->spec().vocab; original_ && vocab != original_->checkpoint->spec().vocab)
        fail("eval", "{} has a vocabulary of {}, the original one of {}; these are not versions of one model",
             s.path.string(), vocab, original_->checkpoint->spec().vocab);
    }
  }

  Scorer scorer(const Model& m, DType kv) { return {device_.pool, device_.kernels, *device_.backend, m, kv}; }

  void window(std::span<const int32_t> w) {
    Tensor reference;
    if (original_) {
      const Scorer score = scorer(original_->model, DType::f32);  // a reference, whatever the models are run with
      reference = score.hidden(w);
      original_->nll.push_back(score.score(w, reference, nullptr, nullptr).nll);
    }
    for (Subject& s : subjects_) {
      const Scorer score = scorer(s.model, kv_);
      const WindowScore v = score.score(w, score.hidden(w), original_ ? &original_->model : nullptr, &reference);
      s.nll.push_back(v.nll);
      if (!original_) continue;
      s.kl.push_back(v.kl);
      s.top1.push_back(v.top1);
    }
  }

  EvaluateReport summary(const Subject& s, int64_t text_tokens, double seconds) const {
    EvaluateReport r{.windows = int(s.nll.size()),
                     .window = o_.window,
                     .text_tokens = text_tokens,
                     .predictions = int64_t(s.nll.size()) * (o_.window - 1)};
    r.model = s.path.string();
    const Estimate nll = mean_of(s.nll);
    r.perplexity = std::exp(nll.value);
    r.perplexity_error = r.perplexity * nll.standard_error;
    r.window_nll = s.nll;
    if (!s.kl.empty()) {
      r.window_kl = s.kl;
      r.kl = mean_of(s.kl);
      r.top1 = mean_of(s.top1);
      r.original_perplexity = std::exp(mean_of(original_->nll).value);
    }
    const Bits bits = bits_of(*s.checkpoint);
    r.bytes = bits.bytes;
    r.bits_per_weight = bits.per_weight();
    r.seconds = seconds;
    return r;
  }

  const EvaluateOptions& o_;
  const OnProgress& progress_;
  DType kv_;
  Device device_;
  std::optional<Subject> original_;
  std::vector<Subject> subjects_;
};

}  // namespace

Estimate mean_of(const std::vector<double>& v) {
  const double n = double(v.size());
  double mean = 0, variance = 0;
  for (double x : v) mean += x / n;
  for (double x : v) variance += (x - mean) * (x - mean) / std::max(1.0, n - 1);
  return {mean, v.size() > 1 ? std::sqrt(variance / n) : 0};
}

EvaluateReport evaluate(const std::filesystem::path& model, std::string_view text, const EvaluateOptions& options,
                        const OnProgress& progress) {
  return Evaluation(options.against, {&model, 1}, options, progress).run(text).back();
}

std::vector<EvaluateReport> compare(const std::filesystem::path& original,
                                    std::span<const std::filesystem::path> models, std::string_view text,
                                    const EvaluateOptions& options, const OnProgress& progress) {
  return Evaluation(original, models, options, progress).run(text);
}

std::vector<EvaluateReport> compare_tokens(const std::filesystem::path& original,
                                           std::span<const std::filesystem::path> models,
                                           std::span<const int32_t> tokens, const EvaluateOptions& options,
                                           const OnProgress& progress) {
  return Evaluation(original, models, options, progress).run(tokens);
}

std::vector<float> logits(const std::filesystem::path& model, std::span<const int32_t> tokens,
                          const DeviceOptions& options) {
  if (tokens.empty()) fail("logits", "no tokens were given");
  Subject s(model);
  require_context(*s.checkpoint, "logits", "the list of token ids", int64_t(tokens.size()));
  Device device(options);
  s.load(device, {});
  const auto kv = device.backend->kv_cache(s.model.spec.blocks, kv_type(options.kv, DType::f32));
  const Sequence all{kv.get(), 0, int(tokens.size())};
  const Tensor l = head_logits(*device.backend, s.model, hidden_forward(*device.backend, s.model, tokens, {&all, 1}));
  return {l.as<float>().begin(), l.as<float>().end()};
}

}  // namespace awq
