#include "quantizer/job_memory.h"

#include <algorithm>

#include "formats/load.h"
#include "formats/params.h"
#include "model/stream.h"
#include "quantizer/form.h"
#include "quantizer/weigh.h"

namespace awq {
namespace {

constexpr int64_t kFloat = sizeof(float);

/// The largest of a sum over parameters, over blocks: they are alike, but need not be.
template <class F>
int64_t largest(const ModelSpec& m, const F& of_block) {
  int64_t most = 0;
  for (int i = 0; i < int(m.blocks.size()); ++i) most = std::max<int64_t>(most, of_block(i, m.blocks[size_t(i)]));
  return most;
}

template <class F>
int64_t sum(const BlockSpec& b, const F& of_matrix) {
  int64_t n = 0;
  for (Param p : b.params())
    if (!is_norm(p.role)) n += of_matrix(p, b.shape(p).first, b.shape(p).second);
  return n;
}

int64_t stored_bytes(const Checkpoint& source, int block, Param p) {
  const Pieces w = source.float_pieces(block, p);
  const auto* type = std::get_if<DType>(&w.type);
  return w.shape.elements() * int64_t(type ? size_of(*type) : 1);
}

Pieces running_pieces(const JobShape& job, int block, Param p) {
  const Pieces w = job.source.float_pieces(block, p);
  return job.running && std::holds_alternative<DType>(w.type) ? in_type(w, *job.running)
                                                              : w;  // codes are refused later
}

/// Codes a byte each; scale, zero point and range of each group.
int64_t rounded_bytes(int64_t rows, int64_t cols, const QuantSpec& q) {
  return rows * (cols + cols / q.of_width(cols).group_size * 13);
}

/// Queries, keys, values, the cache of both, and what is mixed of them; latents, and keys before they are joined; the
/// gate of what is mixed. Of a delta net q, k and v three times, and its gate, what it makes, and room for one more.
int64_t mixed_channels(const BlockSpec& b) {
  const AttentionSpec& a = b.attention;
  if (const auto& d = b.delta) return 3 * d->channels() + 3 * d->value_rows() + 2 * d->value_heads;
  const int64_t latents = a.latent ? a.latent->q_rank + a.latent->kv_rank + 2 * a.rope.dims + a.kv_rows() : 0;
  return a.q_rows() + a.out_rows() * (a.gated ? 2 : 1) + 2 * (a.kv_rows() + a.v_rows()) + latents;
}

/// One block's pieces of memory.
class BlockMemory {
 public:
  BlockMemory(const JobShape& job, int block, const BlockSpec& b) : job_(job), b_(b) {
    stored_ = sum(b, [&](Param p, int64_t, int64_t) { return stored_bytes(job.source, block, p); });
    device_ = sum(b, [&](Param p, int64_t, int64_t) { return job.dev.linear_bytes(running_pieces(job, block, p)); });
    weights_ = sum(b, [](Param, int64_t rows, int64_t cols) { return rows * cols; });
    rounded_ = sum(b, [&](Param, int64_t rows, int64_t cols) { return rounded_bytes(rows, cols, job.spec); });
    for (Param p : b.params())
      if (!is_norm(p.role))
        most_rounded_ = std::max(most_rounded_, rounded_bytes(b.shape(p).first, b.shape(p).second, job.spec));
    for (Param p : b.params())
      if (!is_norm(p.role))
        most_running_ = std::max(most_running_, job.dev.linear_bytes(running_pieces(job, block, p)));
    widest_ = std::max({int64_t(b.dim), int64_t(b.widest_mlp()), int64_t(b.mixed_rows())});
  }
  int64_t load() const { return stored_ + device() + rounded_ * 3 / 2; }  // packed: half a byte
  int64_t forward() const {
    if (!job_.calibrated) return 0;
    int64_t tokens = tokens_at_once(job_.length);
    if (b_.experts) tokens = std::max(tokens, std::min<int64_t>(job_.calibration.sample_rows, this->tokens()));
    return resident() +
           std::max(activations(tokens), tokens * widest_ * kFloat + activations(tokens) - tokens * b_.dim * kFloat);
  }
  /// Each matrix both ways, beside the file's, which the last is turned from; then what a block made of a piece of the
  /// text and the gradients of about as much, and squares of all tokens weighed together.
  int64_t weigh() const {
    const int64_t n = tokens_at_once(job_.length),
                  pieces = 3 * activations(n) + n * (2 * b_.widest_mlp() + mixed_channels(b_)) * kFloat,
                  squares = 6 * weighed_at_once(job_.source.spec(), tokens(), job_.length) * kFloat;
    return 2 * device_ + squares + std::max(stored_ + most_running_, pieces);
  }
  int64_t search() const {
    if (!job_.calibrated || !job_.folds) return 0;
    const int64_t rows = std::min<int64_t>(job_.calibration.sample_rows, tokens());
    const auto tried = int64_t(size_of(job_.running.value_or(DType::f32)));  // a candidate's weights
    const int64_t mlp =
        b_.experts ? 0 : 2 * matrix(Role::gate) * tried + activations(rows) + 2 * rows * b_.dim * kFloat;
    const int64_t attention = into_attention() * tried + activations(sampled_tokens()) / 2;
    return resident() + std::max(std::max(mlp, attention) + form(b_.dim), form(widest_));
  }
  // A matrix whose bounds were in vain is rounded again before its first codes are freed.
  int64_t clip() const {
    const int64_t gram = job_.calibrated ? resident() : stored_ + at_work();
    return gram + form(widest_) + rounded_ + most_rounded_ + widest_ * job_.spec.of_width(widest_).group_size * kFloat +
           (job_.extra ? job_.extra(widest_) : 0);
  }
  int64_t check() const {
    if (!job_.folds) return 0;
    return stored_ + weights_ * kFloat + rounded_ * 3 / 2 + activations(job_.length) +
           2 * int64_t(job_.length) * b_.dim * kFloat;
  }

 private:
  bool is_apart() const { return b_.experts && b_.experts->apart; }
  int64_t form(int64_t channels) const {
    return job_.calibrated && job_.running ? QuadraticForm::bytes_for(channels) : 0;
  }
  int64_t tokens() const { return int64_t(job_.sequences) * job_.length; }
  int64_t sampled_tokens() const {
    return int64_t(std::min(job_.calibration.sample_sequences, job_.sequences)) * job_.length;
  }
  int64_t device() const { return job_.calibrated ? device_ : 0; }
  int64_t matrix(Role r) const { return int64_t(b_.shape({r}).first) * b_.shape({r}).second; }
  /// Weights of the attention but o's.
  int64_t into_attention() const {
    return sum(b_, [](Param p, int64_t rows, int64_t cols) {
      return in_attention(p.role) && p.role != Role::o ? rows * cols : 0;
    });
  }
  int64_t grams() const {
    int64_t bytes = 2 * Gram::bytes_for(b_.dim) + Gram::bytes_for(b_.mixed_rows());
    if (const auto& latent = b_.attention.latent)
      bytes += Gram::bytes_for(latent->q_rank) + Gram::bytes_for(latent->kv_rank);
    if (is_apart()) bytes += Gram::bytes_for(b_.dim);
    if (b_.own_width) bytes += Gram::bytes_for(b_.dim) + Gram::bytes_for(b_.own_width);
    for (int e : b_.mlps()) bytes += Gram::bytes_for(b_.mlp_hidden(e));  // each down's own input
    return bytes;
  }
  int64_t samples() const {
    const int64_t rows = std::min<int64_t>(job_.calibration.sample_rows, tokens()) * (is_apart() ? 2 : 1);
    return (sampled_tokens() + rows) * b_.dim * kFloat;
  }
  /// Threads each hold some rows of the widest matrix: on tiles 128 of errors, as many of weights, and bfloat16 of
  /// them.
  int64_t at_work() const {
    return int64_t(job_.dev.threads()) * (job_.calibrated && job_.running ? 320 : 200) * widest_ * kFloat;
  }
  int64_t resident() const { return stored_ + device_ + grams() + samples() + at_work(); }
  /// The block's input, its norm and its output; gate and up, or queries, keys, values and their cache. All tokens may
  /// go to one expert, which has them copied and its output apart. What else is passed on from block to block, twice; a
  /// mixture that is apart has three more of x.
  int64_t activations(int64_t n) const {
    const int64_t attention = mixed_channels(b_), copies = b_.experts ? 2 * b_.dim : 0;
    const int64_t passed = 2 * (stream_width(job_.source.spec()) - b_.dim),
                  own = 3 * b_.own_width + (is_apart() ? 3 * b_.dim : 0);
    return n * (3 * b_.dim + passed + own + std::max<int64_t>(copies + 2 * b_.widest_mlp(), attention)) * kFloat;
  }

  const JobShape& job_;
  const BlockSpec& b_;
  int64_t stored_ = 0, device_ = 0, weights_ = 0, rounded_ = 0, most_rounded_ = 0, most_running_ = 0, widest_ = 0;
};

/// Of the tokens' own vectors; what has 16 bits is not read as a whole.
int64_t own_table_bytes(const JobShape& job) {
  if (!job.source.spec().own_input) return 0;
  const Pieces table = job.source.float_pieces(-1, {Role::own_embed});
  return table.shape.elements() * int64_t(size_of(std::get<DType>(table.type)));
}

int64_t outer_bytes(const JobShape& job) {
  const ModelSpec& m = job.source.spec();
  const int64_t weights = int64_t(m.vocab) * m.dim;
  if (const int64_t own = own_table_bytes(job);
      own && std::get<DType>(job.source.float_pieces(-1, {Role::own_embed}).type) == DType::f32)
    return std::max(weights * 2, own / 2);
  return job.head ? std::max(weights * 2, rounded_bytes(m.vocab, m.dim, *job.head) + weights) : weights * 2;
}

/// The head both ways, and once more while it is turned, or else a piece of the text and logits of 64 tokens, thrice.
int64_t head_gradient_bytes(const JobShape& job) {
  const ModelSpec& m = job.source.spec();
  const int64_t weights = int64_t(m.vocab) * m.dim * int64_t(size_of(job.running.value_or(DType::f32)));
  return 2 * weights +
         std::max(weights, 6 * tokens_at_once(job.length) * m.dim * kFloat + 3 * 64 * int64_t(m.vocab) * kFloat);
}

int64_t whole_model(const JobShape& job) {
  const Pieces table = job.source.float_pieces(-1, {Role::embed});  // rows that tokens have, in the end most of them
  const int64_t embedding = table.shape.elements() * int64_t(size_of(std::get<DType>(table.type)));
  return loaded_bytes(job.dev, job.source) + embedding + own_table_bytes(job);
}

int64_t kept_rows(const BlockSpec& b) { return b.borrows_keys() ? 0 : b.attention.kv_rows() + b.attention.v_rows(); }

/// Keys and values of `sequences`, in pages of 256 tokens.
int64_t cache_bytes(const JobShape& job, int64_t sequences, int64_t length, int64_t value) {
  int64_t bytes = 0;
  for (const BlockSpec& b : job.source.spec().blocks)
    bytes += sequences * (((length + 255) / 256 * 256) * kept_rows(b) * value +
                          (b.delta ? b.delta->state() + b.delta->past() : 0) * kFloat);
  return bytes;
}

int64_t text_bytes(const JobShape& job) {
  if (!job.text_sequences) return 0;
  const int64_t batch = std::min(job.text_sequences, job.text_batch);
  return whole_model(job) + cache_bytes(job, batch, job.text_length, 2) + batch * job.source.spec().vocab * kFloat;
}

// Of a token of the vocabulary, by a tokenizer and what is left of reading it: 14 to 31 MB were seen at 49,152.
constexpr int64_t kTextSide = 768;

/// Measured: both models, a window in each, logits of 256 of its positions and a softmax a thread. Answers: one model
/// at a time, a few hundred tokens of each prompt.
int64_t judge_bytes(const JobShape& job) {
  const int64_t window = 512, vocab = job.source.spec().vocab;
  const int64_t text = vocab * kTextSide;
  int64_t quantized = 2 * outer_bytes(job), activations = 0, answers = 0, measured = 0;
  for (const BlockSpec& b : job.source.spec().blocks) {
    quantized += sum(b, [&](Param, int64_t rows, int64_t cols) { return rows * cols * 5 / 8; });
    activations = std::max<int64_t>(activations, (b.experts ? 5 : 3) * b.dim + 2 * b.widest_mlp() + mixed_channels(b));
  }
  if (job.answers) answers = whole_model(job) + cache_bytes(job, job.answers, window, 2) + job.answers * vocab * kFloat;
  if (job.gated)
    measured = whole_model(job) + quantized + 2 * cache_bytes(job, 1, window, kFloat) +
               (window * (activations + 2 * vocab) / 2 + vocab * int64_t(job.dev.threads())) * kFloat;
  return std::max(answers, measured) + (job.answers || job.gated ? text : 0);
}

/// Beside what a block takes: the model, activations of the calibration, and logits of what is measured on, of which
/// there are 4 x 128 tokens.
int64_t kept_bytes(const JobShape& job) {
  const ModelSpec& m = job.source.spec();
  const int64_t tokens = int64_t(job.sequences) * job.length, measured = 512;
  return whole_model(job) + tokens * stream_width(m) * kFloat + measured * (2 * m.vocab + 4 * m.dim) * kFloat;
}

}  // namespace

// What the allocator keeps of pieces below the size that it maps, with a threshold of 1 MB: 1 to 7 MB were seen beside
// spares.
constexpr int64_t kKept = 8 << 20;

// A tokenizer.json of 2 to 33 MB took 3.7 to 6.9 times its size; a text 13 to 16 times in English, and 36 times of
// random letters and Chinese, a token a byte.
constexpr int64_t kTokenizer = 8, kText = 40;

int64_t JobMemory::peak() const {
  const int64_t most = std::max({read, text, weigh, kept, outer, load, forward, search, clip, check, judge});
  return base + kKept + std::min(Tensor::kSpare, most / 2) + most;
}

JobMemory memory_of(const JobShape& job) {
  JobMemory need;
  need.text = text_bytes(job);
  need.outer = outer_bytes(job);
  need.judge = judge_bytes(job);
  if (job.largest_text) need.read = kTokenizer * job.tokenizer_bytes + kText * job.largest_text;
  const ModelSpec& m = job.source.spec();
  const auto most = [&](int64_t (BlockMemory::*stage)() const) {
    return largest(m, [&](int i, const BlockSpec& b) { return (BlockMemory(job, i, b).*stage)(); });
  };
  need.load = most(&BlockMemory::load);
  need.forward = most(&BlockMemory::forward);
  need.search = most(&BlockMemory::search);
  need.clip = most(&BlockMemory::clip);
  need.check = most(&BlockMemory::check);
  if (job.weighs) need.weigh = std::max(most(&BlockMemory::weigh), head_gradient_bytes(job));
  if (job.keeps) need.kept = kept_bytes(job) + std::max({need.forward, need.search, need.clip, need.check});
  return need;
}

int64_t scratch_bytes(const JobShape& job) {
  if (!job.calibrated) return 0;
  const int64_t tokens = int64_t(job.sequences) * job.length;
  return HiddenFiles::bytes_for(tokens, stream_width(job.source.spec())) +
         (job.weighs ? weigh_scratch_bytes(job.source.spec(), tokens, job.length) : 0);
}

}  // namespace awq
