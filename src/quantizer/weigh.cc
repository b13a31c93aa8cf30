#include "quantizer/weigh.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/check.h"
#include "formats/load.h"
#include "formats/params.h"
#include "quantizer/tape.h"

namespace awq {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kScratch = int64_t(8) << 30;
constexpr int64_t kHeadTokens = 64;  // logits of so many are there at a time: 33 MB of a vocabulary of 128k

/// Uniform in [0, 1), of a token's place alone: Steele, Lea and Flood's SplitMix64 (2014).
double uniform(uint64_t place) {
  uint64_t z = (place + 1) * 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return double((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

/// Logits become the gradient of -log p of a token that is drawn from them: p - 1 at that token, p elsewhere.
void draw(std::span<float> logits, double u) {
  const float most = *std::ranges::max_element(logits);
  double sum = 0;
  for (float& v : logits) sum += double(v = std::exp(v - most));
  size_t chosen = 0;
  for (double below = 0; chosen + 1 < logits.size(); ++chosen)
    if ((below += double(logits[chosen])) > u * sum) break;
  for (float& v : logits) v = float(double(v) / sum);
  logits[chosen] -= 1;
}

/// Adds each row's sum of squares.
void add_squares(const Host& host, const Tensor& g, std::span<float> to) {
  const int64_t cols = g.shape()[1];
  host.pool.run(g.shape()[0], 1, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      double sum = 0;
      for (float v : g.as<float>().subspan(size_t(r * cols), size_t(cols))) sum += double(v) * double(v);
      to[size_t(r)] += float(sum);
    }
  });
}

/// The tokens of one batch in all stages of the way: their states before each block and behind the last, and two
/// gradients, of which a block reads one and writes the other.
class Weigher {
 public:
  /// Of a model that has so many blocks, the first of its own.
  Weigher(const WeighFlow& flow, int blocks)
      : f_(flow),
        spec_(flow.source.spec()),
        blocks_(blocks),
        length_(flow.hidden.length),
        batch_(flow.at_once),
        states_(flow.folder / "weigh-states", spec_.dim),
        gradients_(flow.folder / "weigh-gradients", spec_.dim) {}

  void begin(int batch) {
    number_ = batch;
    tokens_ = std::min(batch_, f_.hidden.tokens - batch * batch_);
  }

  void step(int i, TokenWeights& weights) {
    if (i < blocks_)
      forward(i);
    else if (i == blocks_)
      head();
    else
      back(2 * blocks_ - i, &weights);
    states_.sync();
    gradients_.sync();
  }

  void forward(int i) {
    Block block;
    {
      const Timed timed(costs.load);
      block = upload(f_.dev, load_float_block(f_.source, i, f_.host.pool), running_type(f_.host.kernels));
    }
    const Timed timed(costs.forward, block_operations(block.spec, tokens_));
    chunks([&](int64_t begin, int64_t end) {
      Tensor x = state(i, begin, end);
      run_sequences(f_.dev, block, length_, x,
                    [&](Site site, const Tensor& seen, auto) { require_finite_input(f_.host, seen, i, site); });
      states_.write((i + 1) * batch_ + begin, x);
    });
  }

  void head() {
    Tape outer(f_.dev, f_.host), inner(f_.dev, f_.host);
    Model m{.spec = spec_, .embed = {}, .blocks = {}, .final_norm = load_final_norm(f_.source), .head = {}};
    const Tensor bias = spec_.head_bias ? f_.source.bias(-1, {Role::head}) : Tensor();
    {
      const Timed timed(costs.head_load);
      m.head = inner.linear(in_type(head_pieces(), running_type(f_.host.kernels).value_or(DType::f32)),
                            bias ? &bias : nullptr);
    }
    const Timed timed(costs.head);
    chunks([&](int64_t begin, int64_t end) {
      Tensor x = state(blocks_, begin, end);
      outer.begin(x);
      final_norm_forward(outer, m, x);
      gradients_.write(slot(blocks_) + begin, outer.back(x, of_logits(inner, m, x, begin)));
    });
  }

  void back(int i, TokenWeights* weights) {
    Tape tape(f_.dev, f_.host);
    Block block;
    {
      const Timed timed(costs.load);
      block = upload(tape, load_float_block(f_.source, i, f_.host.pool), running_type(f_.host.kernels));
    }
    const Timed timed(costs.back);
    const std::map<const Linear*, size_t> groups = groups_of(block);
    std::vector<std::vector<float>> squares(scale_groups(block.spec).size(), std::vector<float>(size_t(tokens_)));
    const int at = 2 * blocks_ - i;
    chunks([&](int64_t begin, int64_t end) {
      Tensor x = state(i, begin, end);
      tape.begin(x);
      run_sequences(tape, block, length_, x);
      const auto seen = [&](const Linear& f, const Tensor& g) {
        if (const auto group = groups.find(&f); group != groups.end())
          add_squares(f_.host, g, std::span(squares[group->second]).subspan(size_t(begin), size_t(end - begin)));
      };
      gradients_.write(slot(at) + begin, tape.back(x, gradients_.read(slot(at - 1) + begin, slot(at - 1) + end), seen));
    });
    require_finite(squares, i);
    if (weights) weights->put(number_, i, squares), weights->sync();
  }

  WeighCosts costs;

 private:
  template <class F>
  void chunks(const F& f) {
    for (int64_t begin = 0; begin < tokens_; begin += tokens_at_once(length_))
      f(begin, std::min(begin + tokens_at_once(length_), tokens_));
  }
  int64_t slot(int step) const { return step % 2 * batch_; }
  Tensor state(int block, int64_t begin, int64_t end) {
    if (block) return states_.read(block * batch_ + begin, block * batch_ + end);
    return f_.hidden.read(number_ * batch_ + begin, number_ * batch_ + end);
  }

  /// Checked for NaN; a head whose rows are divided by their lengths is one that is not.
  Pieces head_pieces() const {
    return spec_.head_unit_rows ? load_head_pieces(f_.source) : load_float_pieces(f_.source, -1, head_param(spec_));
  }

  /// By the head's input x, of tokens [first, ...) of the batch.
  Tensor of_logits(Tape& tape, const Model& m, const Tensor& x, int64_t first) {
    const int64_t n = x.shape()[0];
    Tensor all = Tensor::empty(x.shape(), DType::f32);
    for (int64_t r = 0; r < n; r += kHeadTokens) {
      const Tensor some = x.rows(r, std::min(n, r + kHeadTokens)).clone();
      Tensor logits = f_.dev.empty({some.shape()[0], spec_.vocab});
      tape.begin(some);
      (*m.head)(some, logits);
      if (spec_.logit_cap != 0) tape.soft_cap(logits, spec_.logit_cap);
      Tensor g = logits.clone();
      f_.host.pool.each(some.shape()[0], [&](int64_t i) {
        draw(g.as<float>().subspan(size_t(i * spec_.vocab), size_t(spec_.vocab)),
             uniform(uint64_t(number_ * batch_ + first + r + i)));
      });
      std::ranges::copy(tape.back(logits, g).as<float>(), all.rows(r, r + some.shape()[0]).as<float>().begin());
    }
    return all;
  }

  static std::map<const Linear*, size_t> groups_of(const Block& block) {
    std::map<const Linear*, size_t> groups;
    const std::vector<ScaleGroup> all = scale_groups(block.spec);
    for (size_t i = 0; i < all.size(); ++i)
      for (Param p : all[i].consumers) groups[&block[p]] = i;
    return groups;
  }

  static void require_finite(const std::vector<std::vector<float>>& squares, int block) {
    for (const auto& s : squares)
      if (!std::isfinite(std::accumulate(s.begin(), s.end(), 0.0)))
        fail("weigh",
             "block {}: a gradient is not finite, though all weights and activations are: some are so large that its "
             "sums overflow. --no-token-weights goes without gradients",
             block);
  }

  const WeighFlow& f_;
  const ModelSpec& spec_;
  int blocks_, length_;
  int64_t batch_, number_ = 0, tokens_ = 0;
  ScratchFile states_, gradients_;
};

}  // namespace

TokenWeights::TokenWeights(const fs::path& folder, const ModelSpec& spec, int64_t tokens, int64_t batch)
    : spec_(spec), tokens_(tokens), batch_(batch), file_(folder / "weights", batch) {
  for (const BlockSpec& b : spec.blocks) first_row_.push_back(rows_), rows_ += int64_t(scale_groups(b).size());
}

void TokenWeights::put(int64_t batch, int block, std::span<const std::vector<float>> squares) {
  for (int64_t at = row(batch, block); const auto& s : squares) {
    Tensor t = Tensor::zeros({1, batch_}, DType::f32);
    std::ranges::copy(s, t.as<float>().begin());
    file_.write(at++, t);
  }
}

std::map<Site, std::vector<float>> TokenWeights::of(int block) const {
  std::map<Site, std::vector<float>> all;
  const std::vector<ScaleGroup> groups = scale_groups(spec_.blocks[size_t(block)]);
  for (size_t g = 0; g < groups.size(); ++g) {
    std::vector<float>& w = all[groups[g].consumers.front()];
    double sum = 0;
    for (int64_t b = 0; int64_t(w.size()) < tokens_; ++b) {
      const int64_t r = row(b, block) + int64_t(g);
      const Tensor squares = file_.read(r, r + 1);
      for (int64_t t = 0; t < std::min(batch_, tokens_ - b * batch_); ++t)
        w.push_back(std::sqrt(squares.as<float>()[size_t(t)])), sum += double(w.back());
    }
    for (float& v : w) v = sum > 0 ? float(double(v) * double(tokens_) / sum) : 1;
  }
  return all;
}

bool can_weigh(const ModelSpec& spec) {
  return std::ranges::all_of(spec.blocks, [](const BlockSpec& b) { return Tape::knows(b); });
}

namespace {

int steps_of_batch(const ModelSpec& spec) { return 2 * int(spec.blocks.size()) + 1; }

int64_t scratch_of_token(const ModelSpec& spec) {
  return (int64_t(spec.blocks.size()) + 3) * spec.dim * int64_t(sizeof(float));  // states, and two gradients
}

}  // namespace

int64_t weighed_at_once(const ModelSpec& spec, int64_t tokens, int length) {
  const int64_t step = tokens_at_once(length), fit = kScratch / scratch_of_token(spec) / step * step;
  return std::min(tokens, std::max(step, fit));
}

int weigh_steps(const ModelSpec& spec, int64_t tokens, int64_t at_once) {
  return int((tokens + at_once - 1) / at_once) * steps_of_batch(spec);
}

int64_t weigh_scratch_bytes(const ModelSpec& spec, int64_t tokens, int length) {
  int64_t groups = 0;
  for (const BlockSpec& b : spec.blocks) groups += int64_t(scale_groups(b).size());
  return weighed_at_once(spec, tokens, length) * scratch_of_token(spec) + groups * tokens * int64_t(sizeof(float));
}

void weigh(const WeighFlow& f, TokenWeights& weights, int first) {
  {
    Weigher w(f, int(f.source.spec().blocks.size()));
    const int steps = weigh_steps(f.source.spec(), f.hidden.tokens, f.at_once),
              of_batch = steps_of_batch(f.source.spec());
    for (int i = first; i < steps; ++i) {
      if (f.progress) f.progress(i, steps);
      w.begin(i / of_batch);
      w.step(i % of_batch, weights);
      if (f.finished) f.finished(i + 1);
    }
  }
  for (const char* name : {"weigh-states", "weigh-gradients"}) {
    std::error_code ignored;
    fs::remove(f.folder / name, ignored);
  }
}

WeighCosts try_weigh(const WeighFlow& f) {
  Weigher w(f, 1);
  w.begin(0);
  w.forward(0);
  w.head();
  w.back(0, nullptr);
  return w.costs;
}

}  // namespace awq
