#pragma once
// What is done to rows of float activations: norms, rotations, element by element, gathers, and the likeliest token.
#include "kernels/cuda/lanes.h"

namespace awq::cuda {

/// A block for each run.
AWQ_KERNEL void AWQ_BOUNDS(256, 2) norm_runs(const NormArgs a) {
  auto* scratch = reinterpret_cast<float*>(shared_memory());
  const auto add = [](float p, float q) { return p + q; };
  for (int64_t run = block(); run < a.runs; run += blocks()) {
    const float* x = a.x + run * a.width;
    const int64_t gains = run % a.runs_of_row * a.width;
    float sum = 0;
    if (a.layer)
      for (int i = thread(); i < a.width; i += threads()) sum += x[i];
    const float mean = a.layer ? over_block(sum, scratch, add) / float(a.width) : 0.f;
    float squares = 0;
    for (int i = thread(); i < a.width; i += threads()) squares = fused(x[i] - mean, x[i] - mean, squares);
    const float scale = 1 / root(over_block(squares, scratch, add) / float(a.width) + a.eps);
    for (int i = thread(); i < a.width; i += threads()) {
      const float gain = a.gain ? a.gain[gains + i] + a.gain_offset : 1.f, bias = a.bias ? a.bias[gains + i] : 0.f;
      a.y[run * a.width + i] = fused((x[i] - mean) * scale, gain, bias);
    }
  }
}

/// A thread for each pair.
AWQ_KERNEL void AWQ_BOUNDS(256, 2) rope_pairs(const RopeArgs a) {
  const int64_t heads = a.width / a.head_dim, pairs = a.tokens * heads * a.half;
  for (int64_t i = int64_t(block()) * threads() + thread(); i < pairs; i += int64_t(blocks()) * threads()) {
    const int64_t token = i / (heads * a.half), head = i / a.half % heads, pair = i % a.half;
    float* x = a.x + token * a.width + head * a.head_dim + a.first;
    float &p = x[a.interleaved ? 2 * pair : pair], &q = x[a.interleaved ? 2 * pair + 1 : pair + a.half];
    const float c = a.cosines[token * a.half + pair], s = a.sines[token * a.half + pair], u = p, v = q;
    p = u * c - v * s;
    q = v * c + u * s;
  }
}

AWQ_KERNEL void AWQ_BOUNDS(256, 2) join_heads(const JoinArgs a) {
  const int width = a.part + a.rest;
  const int64_t n = a.heads_in_all * width;
  for (int64_t i = int64_t(block()) * threads() + thread(); i < n; i += int64_t(blocks()) * threads()) {
    const int64_t head = i / width, c = i % width;
    a.y[i] = c < a.part ? a.own[head * a.part + c] : a.shared[head / a.heads * a.rest + c - a.part];
  }
}

AWQ_DEVICE float mapped(const MapArgs& a, float x) {
  switch (a.map) {
    case Map::silu:
      return x / (1 + expf(-x));
    case Map::sigmoid:
      return 1 / (1 + expf(-x));
    case Map::gelu_tanh:  // Hendrycks and Gimpel 2016, arXiv 1606.08415
      return 0.5f * x * (1 + tanhf(0.7978845608f * (x + 0.044715f * x * x * x)));
    case Map::gelu:
      return 0.5f * x * (1 + erff(x * 0.7071067812f));
    case Map::relu:
      return x < 0 ? 0 : x;  // NaN stays
    case Map::relu2:
      return x < 0 ? 0 : x * x;
    case Map::scale:
      return x * a.a;
    case Map::zero:
      return 0;
    case Map::clip:
      return x < -a.a ? -a.a : x > a.a ? a.a : x;
    case Map::soft_cap:
      return a.a * tanhf(x / a.a);
    case Map::swish_gate:  // see Backend::clamped_swish
      return a.a * (x > a.b ? a.b : x);
    case Map::swish_up:
      return ((x < -a.b ? -a.b : x > a.b ? a.b : x) + 1) / a.a;
    case Map::add:
      break;
  }
  return x * a.a;
}
AWQ_KERNEL void AWQ_BOUNDS(256, 2) map_elements(const MapArgs a) {
  for (int64_t i = int64_t(block()) * threads() + thread(); i < a.n; i += int64_t(blocks()) * threads()) {
    const float x = mapped(a, a.x[i]);
    a.y[i] = a.map == Map::add ? a.y[i] + x : a.u ? x * a.u[i] : x;
  }
}

AWQ_KERNEL void AWQ_BOUNDS(256, 2) move_rows(const RowsArgs a) {
  const int64_t n = a.rows * a.width;
  for (int64_t i = int64_t(block()) * threads() + thread(); i < n; i += int64_t(blocks()) * threads()) {
    const int64_t row = i / a.width, c = i % a.width;
    const float x = a.x[(a.from ? a.from[row] : row) * a.width + c] * (a.weights ? a.weights[row] : 1.f);
    float& y = a.y[(a.to ? a.to[row] : row) * a.width + c];
    y = a.accumulate ? y + x : x;
  }
}

/// A block for each row. Of equals the first: each thread has the first of its own, and the smaller place wins.
AWQ_KERNEL void AWQ_BOUNDS(256, 2) greedy_rows(const GreedyArgs a) {
  auto* best_of = reinterpret_cast<float*>(shared_memory());
  auto* place_of = reinterpret_cast<int32_t*>(best_of + 8);
  const auto better = [](float v, int at, float w, int other) { return w > v || (w == v && other < at); };
  const float* x = a.logits + int64_t(block()) * a.width;
  int at = thread() < a.width ? thread() : 0;
  float best = x[at];
  for (int i = thread() + threads(); i < a.width; i += threads())
    if (better(best, at, x[i], i)) best = x[i], at = i;
  for (int m = kWarp / 2; m > 0; m /= 2) {
    const float w = shuffle_xor(best, m);
    const int other = shuffle_xor(at, m);
    if (better(best, at, w, other)) best = w, at = other;
  }
  if (lane() == 0) best_of[warp()] = best, place_of[warp()] = at;
  sync_block();
  if (thread() != 0) return;
  for (int i = 1; i < threads() / kWarp; ++i)
    if (better(best, at, best_of[i], place_of[i])) best = best_of[i], at = place_of[i];
  a.token[block()] = at;
}

}  // namespace awq::cuda
