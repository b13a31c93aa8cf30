#include "eval/divergence.h"

#include <algorithm>
#include <cmath>

#include "engine/runtime.h"

namespace awq {
namespace {

constexpr int64_t kPositions = 256;  // of logits at a time: 256 x 262,144 x 4 bytes is 268 MB at Gemma's vocabulary

// KL(p || q) = sum p (a - b) - log Z_a + log Z_b for logits a and b with softmax p and q.
double divergence(const kernels::KernelSet& k, std::span<const float> a, double log_a, std::span<const float> b,
                  double log_b) {
  const auto n = int32_t(a.size());
  std::vector<float> p(a.begin(), a.end());
  k.softmax(p.data(), n, 1, n);
  double sum = 0;
  for (size_t i = 0; i < p.size(); ++i) sum += double(p[i]) * (double(a[i]) - double(b[i]));
  return sum - log_a + log_b;
}

int32_t top(std::span<const float> v) { return int32_t(std::max_element(v.begin(), v.end()) - v.begin()); }

bool in_top5(std::span<const float> v, int32_t token) {
  return std::ranges::count_if(v, [x = v[size_t(token)]](float other) { return other > x; }) < 5;
}

void compare(const kernels::KernelSet& k, std::span<const float> p, std::span<const float> q, double log_q,
             TokenScore& s) {
  const double log_p = k.log_sum_exp(p.data(), int32_t(p.size()));
  s.kl = divergence(k, p, log_p, q, log_q);
  s.reverse_kl = divergence(k, q, log_q, p, log_p);
  s.original_top = top(p), s.top = top(q);
  s.in_top5 = in_top5(q, s.original_top);
}

WindowScore means(std::vector<TokenScore> tokens) {
  WindowScore w;
  const double n = double(tokens.size());
  for (const TokenScore& s : tokens) {
    w.nll += s.nll / n;
    w.kl += s.kl / n;
    w.reverse_kl += s.reverse_kl / n;
    w.top1 += double(s.same_top()) / n;
    w.top5 += double(s.in_top5) / n;
  }
  w.tokens = std::move(tokens);
  return w;
}

}  // namespace

Tensor Scorer::hidden(std::span<const int32_t> window) const {
  const auto kv = dev_.kv_cache(model_.spec.blocks, kv_);
  const Sequence s{kv.get(), 0, int(window.size())};
  const Tensor h = hidden_forward(dev_, model_, window, {&s, 1});
  return h.rows(0, int64_t(window.size()) - 1);
}

WindowScore Scorer::score(std::span<const int32_t> window, const Tensor& hidden, const Model* original,
                          const Tensor* original_hidden) const {
  if (!original) return score_against(window, hidden, {});
  return score_against(window, hidden, [&](int64_t begin, int64_t end) {
    return head_logits(dev_, *original, original_hidden->rows(begin, end));
  });
}

WindowScore Scorer::score(std::span<const int32_t> window, const Tensor& hidden, const Tensor& original_logits) const {
  return score_against(window, hidden, [&](int64_t begin, int64_t end) { return original_logits.rows(begin, end); });
}

WindowScore Scorer::score_against(std::span<const int32_t> window, const Tensor& hidden,
                                  const Reference& reference_logits) const {
  const int64_t predictions = int64_t(window.size()) - 1, vocab = model_.spec.vocab;
  std::vector<TokenScore> scores(static_cast<size_t>(predictions));
  for (int64_t begin = 0; begin < predictions; begin += kPositions) {
    const int64_t end = std::min(begin + kPositions, predictions);
    Tensor q = head_logits(dev_, model_, hidden.rows(begin, end)), p;
    if (reference_logits) p = reference_logits(begin, end);
    pool_.run(end - begin, 1, [&](int64_t b, int64_t e) {
      for (int64_t t = b; t < e; ++t) {
        const auto row = q.as<float>().subspan(size_t(t * vocab), size_t(vocab));
        const double log_q = kernels_.log_sum_exp(row.data(), int32_t(vocab));
        TokenScore& s = scores[size_t(begin + t)];
        s.nll = log_q - double(row[size_t(window[size_t(begin + t + 1)])]);
        if (p) compare(kernels_, p.as<float>().subspan(size_t(t * vocab), size_t(vocab)), row, log_q, s);
      }
    });
  }
  return means(std::move(scores));
}

}  // namespace awq
