#pragma once
// What is done to rows of float activations: norms, rotations, element by element, gathers, and the largest of many.
#include "kernels/cuda/maps.h"

namespace awq::cuda {

/// A block for each run.
AWQ_KERNEL void AWQ_BOUNDS(256, 2) norm_runs(const NormArgs a) {
  after_earlier();
  auto* scratch = reinterpret_cast<float*>(shared_memory());
  const auto add = [](float p, float q) { return p + q; };
  for (int64_t run = block(); run < a.runs; run += blocks()) {
    const float* x = a.x + run * a.width;
    if (a.added)  // each thread reads below what it wrote here
      for (int i = thread(); i < a.width; i += threads())
        a.sum[run * a.width + i] = x[i] + a.added[run * a.width + i] * a.by;
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
  after_earlier();
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
  after_earlier();
  const int width = a.part + a.rest;
  const int64_t n = a.heads_in_all * width;
  for (int64_t i = int64_t(block()) * threads() + thread(); i < n; i += int64_t(blocks()) * threads()) {
    const int64_t head = i / width, c = i % width;
    a.y[i] = c < a.part ? a.own[head * a.part + c] : a.shared[head / a.heads * a.rest + c - a.part];
  }
}

AWQ_KERNEL void AWQ_BOUNDS(256, 2) map_elements(const MapArgs a) {
  after_earlier();
  for (int64_t i = int64_t(block()) * threads() + thread(); i < a.n; i += int64_t(blocks()) * threads()) {
    const float x = mapped(a.map, a.a, a.b, a.x[i]);
    a.y[i] = a.map == Map::add ? a.y[i] + x : a.u ? x * a.u[i] : x;
  }
}

AWQ_KERNEL void AWQ_BOUNDS(256, 2) move_rows(const RowsArgs a) {
  after_earlier();
  const int64_t n = a.rows * a.width;
  for (int64_t i = int64_t(block()) * threads() + thread(); i < n; i += int64_t(blocks()) * threads()) {
    const int64_t row = i / a.width, c = i % a.width;
    const float x = a.x[(a.from ? a.from[row] : row) * a.width + c] * (a.weights ? a.weights[row] : 1.f);
    float& y = a.y[(a.to ? a.to[row] : row) * a.width + c];
    y = a.accumulate ? y + x : x;
  }
}

/// Which of two comes first: the larger, of equals the one with the smaller place. Nothing is before what is no number.
AWQ_DEVICE bool comes_first(float v, int at, float w, int other) { return v > w || (v == w && at < other); }

/// A block for each piece: as many rounds as values are wanted, of each the first behind the one before it.
AWQ_KERNEL void AWQ_BOUNDS(256, 2) top_pieces(const TopArgs a) {
  after_earlier();
  auto* best_of = reinterpret_cast<float*>(shared_memory());
  auto* place_of = reinterpret_cast<int32_t*>(best_of + 8);
  const int row = block() / a.pieces, piece = block() % a.pieces, each = (a.width + a.pieces - 1) / a.pieces;
  const int begin = piece * each, end = begin + each < a.width ? begin + each : a.width;
  const int64_t from = int64_t(row) * a.width, to = int64_t(block()) * a.count;
  float last = INFINITY;
  int last_at = -1;
  for (int n = 0; n < a.count; ++n) {
    float best = -INFINITY;
    int at = kNoPlace;
    for (int i = begin + thread(); i < end; i += threads()) {
      const float v = a.x[from + i];
      const int place = a.places ? a.places[from + i] : i;
      if (comes_first(last, last_at, v, place) && comes_first(v, place, best, at)) best = v, at = place;
    }
    for (int m = kWarp / 2; m > 0; m /= 2) {
      const float w = shuffle_xor(best, m);
      const int other = shuffle_xor(at, m);
      if (comes_first(w, other, best, at)) best = w, at = other;
    }
    if (lane() == 0) best_of[warp()] = best, place_of[warp()] = at;
    sync_block();
    best = best_of[0], at = place_of[0];
    for (int i = 1; i < threads() / kWarp; ++i)
      if (comes_first(best_of[i], place_of[i], best, at)) best = best_of[i], at = place_of[i];
    last = best, last_at = at;
    if (thread() == 0) a.values[to + n] = best, a.tokens[to + n] = at;
    sync_block();
  }
}

}  // namespace awq::cuda
