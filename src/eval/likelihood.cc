#include "eval/likelihood.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "text/python_text.h"

namespace awq {
namespace {

std::optional<int32_t> prefix_token(const Tokenizer& t) { return t.bos() ? t.bos() : t.eos(); }

ScoredTokens cut(std::vector<int32_t> context, std::span<const int32_t> continuation, size_t longest) {
  ScoredTokens s{.tokens = std::move(context), .scored = continuation.size()};
  s.tokens.insert(s.tokens.end(), continuation.begin(), continuation.end());
  s.cut = s.tokens.size() > longest + 1;
  if (s.cut) s.tokens.erase(s.tokens.begin(), s.tokens.end() - long(longest + 1));
  s.scored = std::min(s.scored, s.tokens.size() - 1);
  return s;
}

ScoredTokens encode_alone(const Tokenizer& t, std::string_view continuation, size_t longest) {
  const auto tokens = t.encode(continuation, false, true);
  const auto prefix = prefix_token(t);
  if (!prefix) fail("eval", "an item has no context, and the tokenizer neither BOS nor EOS to stand for one");
  if (tokens.empty() || tokens[0] != *prefix) return cut({*prefix}, tokens, longest);
  return cut({*prefix}, std::span(tokens).subspan(1), longest);
}

}  // namespace

std::vector<int32_t> encode_prompt(const Tokenizer& t, std::string_view text) {
  const auto prefix = prefix_token(t);
  const std::string begins = prefix ? t.decode({&*prefix, 1}) : "";
  return t.encode(text, begins.empty() || !text.starts_with(begins), true);
}

ScoredTokens encode_pair(const Tokenizer& t, std::string_view context, std::string_view continuation, size_t longest) {
  if (context.empty()) return encode_alone(t, continuation, longest);
  const std::string_view stripped = python::strip(context, {}, false, true);
  const auto before = encode_prompt(t, stripped);
  const auto whole = encode_prompt(t, std::string(context) + std::string(continuation));
  if (whole.size() <= before.size()) fail("eval", "the continuation \"{}\" adds no token to its context", continuation);
  return cut(before, std::span(whole).subspan(before.size()), longest);
}

size_t shared_tokens(std::span<const ScoredTokens> item) {
  std::span<const int32_t> shared(item.front().tokens.data(), item.front().tokens.size() - 1);
  for (const ScoredTokens& s : item) {
    const auto inputs = std::span(s.tokens).first(s.tokens.size() - 1);
    shared = shared.first(size_t(std::ranges::mismatch(shared, inputs).in1 - shared.begin()));
  }
  return shared.size();
}

namespace {

constexpr int64_t kRows = 256;  // of logits at a time, as in the Scorer

/// A prediction that counts: of sequence `sequence` of item `item`, for `token`.
struct Prediction {
  size_t item, sequence;
  int32_t token;
};

/// Runs one set of tokens of each item at a time.
class BatchJob {
 public:
  BatchJob(Device& device, const Model& model, DType kv, std::span<const std::vector<ScoredTokens>> items)
      : device_(device), dev_(*device.backend), model_(model), items_(items) {
    for (const auto& item : items) {
      caches_.push_back(dev_.kv_cache(model.spec.blocks, kv));
      shared_.push_back(model.spec.recurrent() ? 0 : shared_tokens(item));  // a state does not go back to them
      scores_.emplace_back(item.size());
      size_t longest = 0;
      for (const ScoredTokens& s : item) longest = std::max(longest, s.tokens.size() - 1);
      lengths_.push_back(int(longest));
    }
  }

  std::vector<std::vector<Likelihood>> run() {
    size_t most = 0;
    for (size_t i = 0; i < items_.size(); ++i) {
      add(i, 0, 0, shared_[i], 0, items_[i].size());
      most = std::max(most, items_[i].size());
    }
    flush();
    for (size_t c = 0; c < most; ++c) {
      for (size_t i = 0; i < items_.size(); ++i)
        if (c < items_[i].size()) add(i, c, shared_[i], items_[i][c].tokens.size() - 1, c, c + 1);
      flush();
    }
    return std::move(scores_);
  }

 private:
  /// Inputs [begin, end) of a sequence of item i join the batch; what they predict counts for [first, last), which have
  /// the same inputs there.
  void add(size_t i, size_t sequence, size_t begin, size_t end, size_t first, size_t last) {
    if (begin == end) return;
    const auto& tokens = items_[i][sequence].tokens;
    for (size_t s = first; s < last; ++s) add_predictions(i, s, begin, end);
    batch_.push_back({caches_[i].get(), int(begin), int(end - begin), lengths_[i]});
    tokens_.insert(tokens_.end(), tokens.begin() + long(begin), tokens.begin() + long(end));
  }

  void add_predictions(size_t i, size_t s, size_t begin, size_t end) {
    const ScoredTokens& t = items_[i][s];
    for (size_t at = std::max(begin + 1, t.tokens.size() - t.scored); at < std::min(end + 1, t.tokens.size()); ++at) {
      rows_.push_back(int32_t(tokens_.size() + at - 1 - begin));
      predictions_.push_back({i, s, t.tokens[at]});
    }
  }

  void flush() {
    if (batch_.empty()) return;
    const Tensor hidden = hidden_forward(dev_, model_, tokens_, batch_);
    for (size_t begin = 0; begin < rows_.size(); begin += size_t(kRows))
      count(hidden, begin, std::min(begin + size_t(kRows), rows_.size()));
    batch_.clear(), tokens_.clear(), rows_.clear(), predictions_.clear();
  }

  void count(const Tensor& hidden, size_t begin, size_t end) {
    const auto n = int64_t(end - begin);
    Tensor some = dev_.empty({n, hidden.shape()[1]});
    dev_.embed(hidden, std::span(rows_).subspan(begin, size_t(n)), 1, some);
    const Tensor logits = head_logits(dev_, model_, some);
    const auto vocab = size_t(logits.shape()[1]);
    std::vector<Likelihood> each(size_t(n), Likelihood{});
    device_.pool.run(n, 1, [&](int64_t b, int64_t e) {
      for (auto r = size_t(b); r < size_t(e); ++r)
        each[r] = of_row(logits.as<float>().subspan(r * vocab, vocab), predictions_[begin + r].token);
    });
    for (size_t r = 0; r < each.size(); ++r) {
      Likelihood& sum = scores_[predictions_[begin + r].item][predictions_[begin + r].sequence];
      sum.log_likelihood += each[r].log_likelihood;
      sum.greedy = sum.greedy && each[r].greedy;
    }
  }

  Likelihood of_row(std::span<const float> row, int32_t token) const {
    const double all = device_.kernels.log_sum_exp(row.data(), int32_t(row.size()));
    const float own = row[size_t(token)];  // greedy: the first of the largest; most rows end the search early
    const bool greedy = std::ranges::none_of(row.first(size_t(token)), [=](float v) { return v >= own; }) &&
                        std::ranges::none_of(row.subspan(size_t(token)), [=](float v) { return v > own; });
    return {double(own) - all, greedy};
  }

  Device& device_;
  Backend& dev_;
  const Model& model_;
  std::span<const std::vector<ScoredTokens>> items_;
  std::vector<std::unique_ptr<KvCache>> caches_;
  std::vector<size_t> shared_;
  std::vector<int> lengths_;
  std::vector<std::vector<Likelihood>> scores_;
  // The batch that is being made.
  std::vector<Sequence> batch_;
  std::vector<int32_t> tokens_;
  std::vector<int32_t> rows_;  // of hidden states that predict
  std::vector<Prediction> predictions_;
};

}  // namespace

std::vector<std::vector<Likelihood>> LikelihoodScorer::score(std::span<const std::vector<ScoredTokens>> items) const {
  return BatchJob(device_, model_, kv_, items).run();
}

}  // namespace awq
