#include "bench/cost.h"

namespace awq {
namespace {

int64_t seen(const AttentionSpec& a, int64_t position) {
  return a.window ? std::min<int64_t>(*a.window, position + 1) : position + 1;
}

}  // namespace

int64_t stored_bytes(const Pieces& w) {
  if (const auto* dtype = std::get_if<DType>(&w.type)) return w.shape.elements() * int64_t(size_of(*dtype));
  const auto& spec = std::get<QuantSpec>(w.type);
  const int64_t rows = w.shape[0], cols = w.shape[1], grid_bits = 8 * int64_t(size_of(spec.scale_dtype)) + spec.bits;
  return (rows * (cols * spec.bits + cols / spec.group_size * grid_bits) + 7) / 8;
}

int64_t stored_bytes(const Weight& w) {
  if (const auto* t = std::get_if<Tensor>(&w)) return int64_t(t->bytes());
  return stored_bytes(pieces_of(w));
}

int64_t Cost::kv_bytes(int64_t position) const {
  int64_t n = 0;
  for (const BlockSpec& b : spec.blocks) {
    const AttentionSpec& a = b.attention;
    const int64_t one = (a.kv_rows() + a.v_rows()) * int64_t(size_of(kv)) + kv_scale_bytes(kv) * a.kv_heads;
    n += one * seen(a, position) + (b.delta ? b.delta->state() * int64_t(sizeof(float)) : 0);
  }
  return n;
}

int64_t Cost::decode_bytes(int64_t position, int64_t batch) const {
  return weights + batch * (embed_row + kv_bytes(position));
}

int64_t Cost::prefill_bytes(int64_t tokens) const { return weights + tokens * embed_row + kv_bytes(tokens - 1); }

double Cost::layer_weights() const {
  double n = 0;
  for (const BlockSpec& b : spec.blocks)
    for (const Param p : b.params()) n += double(b.shape(p).first) * double(b.shape(p).second);  // a norm has 0 columns
  return n;
}

double Cost::decode_flops(int64_t batch) const { return 2 * (layer_weights() + head_weights()) * double(batch); }
double Cost::prefill_flops(int64_t tokens) const { return 2 * (layer_weights() * double(tokens) + head_weights()); }

double Cost::attention_flops(int64_t first, int64_t tokens) const {
  double n = 0;
  for (const BlockSpec& b : spec.blocks) {
    if (b.delta)
      n += 7.0 * double(b.delta->state()) * double(tokens);  // kept, and three products of a state and a vector
    for (int64_t t = first; t < first + tokens; ++t)
      n += 2.0 * (b.attention.q_rows() + b.attention.out_rows()) * double(seen(b.attention, t));
  }
  return n;
}

Cost CountedCheckpoint::cost(DType kv) const {
  const bool shared = spec().tied_embeddings && head_ == 0;
  return {.spec = spec(),
          .kv = kv,
          .weights = rest_ + (shared ? embed_ : head_),
          .embed_row = (embed_ + own_) / spec().vocab};
}

void CountedCheckpoint::count(Param p, int64_t bytes) const {
  if (p.role == Role::embed)
    embed_ = bytes;  // asked for twice where it is the head too
  else if (p.role == Role::head)
    head_ = bytes;
  else if (p.role == Role::own_embed)
    own_ = bytes;
  else
    rest_ += bytes;
}

Weight CountedCheckpoint::weight(int block, Param p) const {
  Weight w = model_.weight(block, p);
  count(p, stored_bytes(w));
  return w;
}

Pieces CountedCheckpoint::pieces(int block, Param p) const {
  Pieces w = model_.pieces(block, p);
  count(p, stored_bytes(w));
  return w;
}

Tensor CountedCheckpoint::bias(int block, Param p) const {
  Tensor b = model_.bias(block, p);
  rest_ += int64_t(b.bytes());
  return b;
}

}  // namespace awq
