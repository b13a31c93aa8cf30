#include "eval/divergence.h"

#include <algorithm>
#include <cmath>

#include "engine/runtime.h"

namespace awq {
namespace {

constexpr int64_t kPositions = 256;  // of logits at a time: 256 x 262,144 x 4 bytes is 268 MB at Gemma's vocabulary

struct PositionScore {
  double nll = 0, kl = 0;
  bool same_top = false;
};

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

size_t top(std::span<const float> v) { return size_t(std::max_element(v.begin(), v.end()) - v.begin()); }

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
  std::vector<PositionScore> scores(static_cast<size_t>(predictions));
  for (int64_t begin = 0; begin < predictions; begin += kPositions) {
    const int64_t end = std::min(begin + kPositions, predictions);
    Tensor q = head_logits(dev_, model_, hidden.rows(begin, end)), p;
    if (reference_logits) p = reference_logits(begin, end);
    pool_.run(end - begin, 1, [&](int64_t b, int64_t e) {
      for (int64_t t = b; t < e; ++t) {
        const auto row = q.as<float>().subspan(size_t(t * vocab), size_t(vocab));
        const double log_q = kernels_.log_sum_exp(row.data(), int32_t(vocab));
        PositionScore& s = scores[size_t(begin + t)];
        s.nll = log_q - double(row[size_t(window[size_t(begin + t + 1)])]);
        if (!p) continue;
        const auto reference = p.as<float>().subspan(size_t(t * vocab), size_t(vocab));
        const double log_p = kernels_.log_sum_exp(reference.data(), int32_t(vocab));
        s.kl = divergence(kernels_, reference, log_p, row, log_q);
        s.same_top = top(reference) == top(row);
      }
    });
  }
  WindowScore w;
  for (const PositionScore& s : scores) {
    w.nll += s.nll / double(predictions);
    w.kl += s.kl / double(predictions);
    w.top1 += double(s.same_top) / double(predictions);
  }
  return w;
}

}  // namespace awq
