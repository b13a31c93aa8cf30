// awq::evaluate and awq::logits.
#include "api_evaluate.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "engine/documents.h"
#include "eval/divergence.h"
#include "eval/reference.h"
#include "formats/context.h"
#include "formats/params.h"
#include "io/file.h"

namespace awq {
namespace {

/// A prediction of a subject whose KL is large.
struct Divergence {
  TokenScore score;
  int window = 0, position = 0;
};

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
  void load_head(Device& device) { model = load_outer(*device.backend, *checkpoint); }
  void add(const WindowScore& w, int window, int first, size_t worst);

  std::vector<double> nll, kl, reverse_kl, top1, top5;
  double token_nll = 0, token_nll_squares = 0;  // sums over predictions
  std::vector<float> token_kl;
  std::vector<Divergence> divergences;  // the `worst` ones, the largest first
};

void Subject::add(const WindowScore& w, int window, int first, size_t worst) {
  nll.push_back(w.nll), kl.push_back(w.kl), reverse_kl.push_back(w.reverse_kl);
  top1.push_back(w.top1), top5.push_back(w.top5);
  for (size_t t = 0; t < w.tokens.size(); ++t) {
    const TokenScore& s = w.tokens[t];
    token_nll += s.nll, token_nll_squares += s.nll * s.nll;
    if (s.original_top < 0) continue;
    token_kl.push_back(float(s.kl));
    if (divergences.size() < worst || (worst && s.kl > divergences.back().score.kl))
      divergences.push_back({s, window, first + int(t)});
    else
      continue;
    std::ranges::stable_sort(divergences, std::greater(), [](const Divergence& d) { return d.score.kl; });
    divergences.resize(std::min(divergences.size(), worst));
  }
}

int window_of(const EvaluateOptions& o) {
  if (o.protocol != "hf" && o.protocol != "llama.cpp")
    fail("eval", "--protocol {}: expected hf or llama.cpp", o.protocol);
  return o.window ? o.window : o.protocol == "hf" ? 2048 : 512;
}

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
  if (const int window = window_of(o); tokens.size() < size_t(window))
    fail("eval", "the text has {} tokens, but one window needs {}. Give a longer text or a smaller --window",
         tokens.size(), window);
  return tokens;
}

std::vector<int32_t> windows_of(const std::filesystem::path& file, const Checkpoint& source, int windows, int window) {
  EvaluateOptions e;
  e.window = window;
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
      : o_(o), progress_(progress), window_(window_of(o)), kv_(kv_type(o.device.kv, DType::f32)), device_(o.device) {
    if (!original.empty()) original_.emplace(original);
    for (const auto& m : models) subjects_.emplace_back(m);
    check();
    if (original_ && !o.reference.empty())
      original_->load_head(device_);
    else if (original_)
      original_->load(device_, progress);
    for (Subject& s : subjects_) s.load(device_, progress);
  }

  /// The original, where there is one, and the models.
  std::vector<EvaluateReport> run(std::string_view text) {
    const Checkpoint& checkpoint = *(original_ ? *original_ : subjects_.front()).checkpoint;
    if (o_.protocol == "llama.cpp")
      if (const auto special = TextSide(checkpoint).tokenizer().encode("", true, false); !special.empty())
        begins_ = special.front();
    return run(tokens_of_text(checkpoint, text, o_));
  }
  std::vector<EvaluateReport> run(std::span<const int32_t> tokens) {
    const auto start = std::chrono::steady_clock::now();
    const int all = int(tokens.size() / size_t(window_)), n = o_.windows ? std::min(o_.windows, all) : all;
    open_references(tokens, n);
    for (int i = 0; i < n; ++i) {
      if (progress_ && !progress_({"evaluate", i, n})) throw Cancelled();
      window(tokens.subspan(size_t(i) * size_t(window_), size_t(window_)), i);
    }
    if (saved_) saved_->close();
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    std::vector<EvaluateReport> reports;
    if (original_) reports.push_back(summary(*original_, tokens, seconds));
    for (const Subject& s : subjects_) reports.push_back(summary(s, tokens, seconds));
    return reports;
  }

 private:
  void check() const {
    if (window_ < 2) fail("eval", "--window {}: expected at least 2 tokens", window_);
    if (!o_.reference.empty() && !original_)
      fail("eval", "--reference {}: --against must name the model that it was saved of, whose head is needed",
           o_.reference.string());
    if (!o_.save_reference.empty() && original_)
      fail("eval", "--save-reference {}: it is saved of the original, evaluated by itself, without --against",
           o_.save_reference.string());
    const std::string asked = fmt::format("--window {}", window_);
    if (original_) require_context(*original_->checkpoint, "eval", asked, window_);
    for (const Subject& s : subjects_) {
      require_context(*s.checkpoint, "eval", asked, window_);
      if (const int vocab = s.checkpoint->spec().vocab; original_ && vocab != original_->checkpoint->spec().vocab)
        fail("eval", "{} has a vocabulary of {}, the original one of {}; these are not versions of one model",
             s.path.string(), vocab, original_->checkpoint->spec().vocab);
    }
  }

  void open_references(std::span<const int32_t> tokens, int windows) {
    const Subject& of = original_ ? *original_ : subjects_.front();
    const ReferenceText text{.tokens = tokens.first(size_t(windows) * size_t(window_)),
                             .protocol = o_.protocol,
                             .window = window_,
                             .first = first(),
                             .dim = of.model.spec.dim,
                             .vocab = of.checkpoint->spec().vocab};
    if (!o_.save_reference.empty()) saved_.emplace(o_.save_reference, text);
    if (!o_.reference.empty()) reference_.emplace(o_.reference, text);
  }

  /// Of a window, the first position whose prediction counts.
  int first() const { return o_.protocol == "llama.cpp" ? window_ / 2 : 0; }

  Scorer scorer(const Model& m, DType kv) { return {device_.pool, device_.kernels, *device_.backend, m, kv}; }

  void window(std::span<const int32_t> text, int index) {
    std::vector<int32_t> w(text.begin(), text.end());
    if (begins_ >= 0) w[0] = begins_;
    const auto counted = std::span<const int32_t>(w).subspan(size_t(first()));
    const auto hidden = [&](const Scorer& s) { return s.hidden(w).rows(first(), window_ - 1); };
    Tensor reference;
    if (original_) {
      const Scorer score = scorer(original_->model, DType::f32);  // a reference, whatever the models are run with
      reference = reference_ ? reference_->hidden(index) : hidden(score);
      original_->add(score.score(counted, reference, nullptr, nullptr), index, first(), 0);
    }
    for (Subject& s : subjects_) {
      const Scorer score = scorer(s.model, kv_);
      const Tensor mine = hidden(score);
      if (saved_) saved_->put(index, mine);
      s.add(score.score(counted, mine, original_ ? &original_->model : nullptr, &reference), index, first(),
            size_t(o_.worst));
    }
  }

  EvaluateReport summary(const Subject& s, std::span<const int32_t> tokens, double seconds) const {
    EvaluateReport r{.windows = int(s.nll.size()),
                     .window = window_,
                     .text_tokens = int64_t(tokens.size()),
                     .predictions = int64_t(s.nll.size()) * (window_ - 1 - first())};
    r.model = s.path.string();
    const Estimate nll = mean_of(s.nll);
    r.perplexity = std::exp(nll.value);
    r.perplexity_error = r.perplexity * (o_.protocol == "hf" ? nll.standard_error : token_error(s, r.predictions));
    r.window_nll = s.nll;
    if (original_ && &s != &*original_) compare(s, tokens, r);
    const Bits bits = bits_of(*s.checkpoint);
    r.bytes = bits.bytes;
    r.bits_per_weight = bits.per_weight();
    r.seconds = seconds;
    return r;
  }

  // As llama-perplexity has it: of n values with the variance mean(x^2) - mean(x)^2.
  static double token_error(const Subject& s, int64_t predictions) {
    const double n = double(predictions), mean = s.token_nll / n;
    return std::sqrt(std::max(0.0, s.token_nll_squares / n - mean * mean) / (n - 1));
  }

  void compare(const Subject& s, std::span<const int32_t> tokens, EvaluateReport& r) const {
    r.window_kl = s.kl, r.window_top1 = s.top1;
    r.kl = mean_of(s.kl), r.reverse_kl = mean_of(s.reverse_kl);
    r.top1 = mean_of(s.top1), r.top5 = mean_of(s.top5);
    r.original_perplexity = std::exp(mean_of(original_->nll).value);
    std::vector<float> kl = s.token_kl;
    std::ranges::sort(kl);
    r.kl_median = double(kl[(kl.size() - 1) / 2]);
    r.kl_99 = double(kl[size_t(std::ceil(0.99 * double(kl.size()))) - 1]);
    r.kl_largest = double(kl.back());
    if (s.divergences.empty()) return;
    const TextSide text(*original_->checkpoint);
    for (const Divergence& d : s.divergences) r.worst.push_back(worded(d, tokens, text.tokenizer()));
  }

  DivergentToken worded(const Divergence& d, std::span<const int32_t> tokens, const Tokenizer& t) const {
    constexpr size_t kBefore = 12;  // tokens of the text that are shown
    const size_t at = size_t(d.window) * size_t(window_) + size_t(d.position) + 1;
    const size_t begin = at - std::min<size_t>(size_t(d.position) + 1, kBefore);
    const auto word = [&](int32_t token) { return t.decode({&token, 1}); };
    return {.window = d.window,
            .position = d.position,
            .kl = d.score.kl,
            .before = t.decode(tokens.subspan(begin, at - begin)),
            .next = word(tokens[at]),
            .original = word(d.score.original_top),
            .model = word(d.score.top)};
  }

  const EvaluateOptions& o_;
  const OnProgress& progress_;
  int window_;
  DType kv_;
  Device device_;
  std::optional<Subject> original_;
  std::vector<Subject> subjects_;
  int32_t begins_ = -1;  // what each window begins with; negative: its own token
  std::optional<ReferenceWriter> saved_;
  std::optional<ReferenceReader> reference_;
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
