#include "bench/logits_check.h"

#include <algorithm>
#include <cmath>

#include "bench/random_model.h"
#include "bench/speed.h"

namespace awq {
namespace {

constexpr int kPrompt = 16, kTilePrompt = 128, kSteps = 4;

/// As short as shows the arithmetic of long prompts.
int prompt_of(const Model& m) {
  return m.blocks.front()[Role::down].arithmetic(kTilePrompt) == DType::bf16 ? kTilePrompt : kPrompt;
}

/// Logits [tokens, vocab]: a prompt, then kSteps one by one.
Tensor short_run(Backend& dev, const Model& m, std::span<const int32_t> tokens) {
  const auto kv = dev.kv_cache(m.spec.blocks, kCacheType);
  Tensor logits = Tensor::empty({int64_t(tokens.size()), m.spec.vocab}, DType::f32);
  for (int at = 0; at < int(tokens.size());) {
    const Sequence s{kv.get(), at, at == 0 ? int(tokens.size()) - kSteps : 1};
    const Tensor rows =
        head_logits(dev, m, hidden_forward(dev, m, tokens.subspan(size_t(at), size_t(s.tokens)), {&s, 1}));
    std::copy(rows.as<float>().begin(), rows.as<float>().end(), logits.rows(at, at + s.tokens).as<float>().begin());
    at += s.tokens;
  }
  return logits;
}

Model first_blocks_of(Model m, int blocks) {
  m.blocks.resize(size_t(blocks));
  m.spec.blocks.resize(size_t(blocks));
  return m;
}

uint64_t fnv1a(const Tensor& t) {
  uint64_t hash = 0xcbf29ce484222325;
  for (size_t i = 0; i < t.bytes(); ++i) hash = (hash ^ uint64_t(t.data()[i])) * 0x100000001b3;
  return hash;
}

double largest_magnitude(const Tensor& t) {
  double largest = 0;
  for (const float v : t.as<float>()) largest = std::max(largest, std::abs(double(v)));
  return largest;
}

// NaN where either is NaN: a maximum would lose it.
double largest_difference(const Tensor& a, const Tensor& b) {
  double largest = 0;
  for (size_t i = 0; i < b.as<float>().size(); ++i) {
    const double d = std::abs(double(a.as<float>()[i]) - double(b.as<float>()[i]));
    if (!(d <= largest)) largest = d;
    if (std::isnan(d)) return d;
  }
  return largest;
}

void require_shown(const Tensor& logits) {
  const auto v = logits.as<float>();
  const bool finite = std::all_of(v.begin(), v.end(), [](float x) { return std::isfinite(x); });
  if (!finite || std::equal(v.begin() + 1, v.end(), v.begin()))
    fail("bench", "the model's logits are {}; it is damaged, and its speed would mean nothing",
         finite ? "all the same" : "not finite");
}

// Distance of neighbouring values of a type, relative to the largest of a group that shares a scale.
double step(DType type) {
  switch (type) {
    case DType::i8:
      return 1 / 127.0;
    case DType::bf16:
      return 0x1p-8;
    case DType::f16:
      return 0x1p-11;
    case DType::i16:
      return 1 / 32767.0;
    default:
      return 0x1p-24;
  }
}

double step_of(const Linear& f, int columns, int tokens) {
  return step(f.arithmetic(tokens)) * (f.arithmetic(tokens) == DType::f32 ? std::sqrt(double(columns)) : 1);
}

// Two correct backends round activations from values that differ a little, so they may choose neighbours: the most that
// an activation can differ by is one step, d. Where products are in f32, sums of `columns` terms round differently
// instead, by about sqrt(columns) 2^-24. Rounding keys and values to their steps s makes neighbours of a share d / s of
// them, in the root mean square sqrt(d s). A block does either at four places, the head rounds its input once more;
// their effects are independent, so they add as squares: sqrt(4 blocks + 1). Four times that covers activations that
// are smaller than the largest of their group, and logits being judged by the largest difference of all.
double bound_of(const Model& m, int prompt) {
  const Block& b = m.blocks.front();
  const double d = step_of(b[Role::down], std::max(b.spec.dim, b.spec.mlp.hidden), prompt),
               head = step_of(*m.head, b.spec.dim, prompt);
  const double block = 4 * std::pow(std::max(d, std::sqrt(d * step(kCacheType))), 2);
  return 4 * std::sqrt(double(m.blocks.size()) * block + head * head);
}

}  // namespace

int check_depth(const ModelSpec& spec, int tokens) {
  constexpr double kProducts = 1.2e10;  // take portable kernels about 4 s on two cores
  double block = 0;
  for (const Param p : spec.blocks.front().params())
    block += double(spec.blocks.front().shape(p).first) * double(spec.blocks.front().shape(p).second);
  const double left = kProducts / tokens - double(spec.vocab) * spec.dim;
  return int(std::clamp(left / block, 1.0, double(spec.blocks.size())));
}

LogitsCheck check_logits(Backend& dev, const Model& loaded, Backend& reference, const Checkpoint& model,
                         uint64_t seed) {
  const int prompt = prompt_of(loaded), n = prompt + kSteps, blocks = check_depth(loaded.spec, n);
  const auto tokens = random_tokens(loaded.spec.vocab, n, seed);
  const Tensor want = short_run(reference, load_model(reference, *first_blocks(model, blocks)), tokens);
  require_shown(want);
  const Model same = first_blocks_of(loaded, blocks);
  const Tensor got = short_run(dev, same, tokens);
  return {.hash = fnv1a(got),
          .reference_hash = fnv1a(want),
          .difference = largest_difference(got, want) / largest_magnitude(want),
          .bound = bound_of(same, prompt),
          .blocks = blocks,
          .tokens = n};
}

}  // namespace awq
