#pragma once
// Attention over a paged cache, in the manner of flash attention (Dao et al. 2022, arXiv 2205.14135): scores are made
// and used up 32 positions at a time. A warp has 16 queries that share a kv head.
//
// An mma does not mind in which order it sums, and so keys, values and queries are read as they lie, 16 bytes a lane:
// step p of 32 channels has of lane 4 g + t the channels 8 t + 4 p + (0 .. 3). Values are summed over positions in the
// same way, so columns of scores are put where the lane's own values are: column g of tile n is position
// 8 (g / 2) + 2 n + g % 2 of the 32.
#include "kernels/cuda/lanes.h"

namespace awq::cuda {

constexpr int kSpan = 32;  // positions of a step

/// Keys or values of a type as pairs of 16 bits, 8 of them. Products with those of bf16 and of bytes take queries and
/// weights as pairs, high + low to 2^-17: bf16's own 2^-9 would be no finer than the cache (e4m3's 2^-4 apart, which
/// should be all that it costs). Bytes have a scale, which follows the largest of a head's channels at a position.
struct CacheF16 {
  using T = F16;
  static constexpr int kParts = 1, kBytes = 2;
  AWQ_DEVICE static Words4 read(const uint8_t* p) { return load16(p); }
};
struct CacheBf16 {
  using T = Bf16;
  static constexpr int kParts = 2, kBytes = 2;
  AWQ_DEVICE static Words4 read(const uint8_t* p) { return load16(p); }
};
struct CacheI8 {
  using T = Bf16;
  static constexpr int kParts = 2, kBytes = 1;
  AWQ_DEVICE static float scale(float most) { return most / 127.f; }
  AWQ_DEVICE static uint8_t code(float x) {
    const float code = rintf(x);
    return uint8_t(int8_t(code < -127 ? -127 : code > 127 ? 127 : code));
  }
  AWQ_DEVICE static Words4 read(const uint8_t* p) {
    Words4 out;
    const auto* codes = reinterpret_cast<const int8_t*>(p);
    AWQ_UNROLL
    for (int i = 0; i < 4; ++i) out.w[i] = Bf16::pack(float(codes[2 * i]), float(codes[2 * i + 1]));
    return out;
  }
};

/// e4m3. Sign, exponent and fraction in their places in a bf16 are 2^-120 of the value, exactly. The scale is the power
/// of two that brings the largest into [2^7, 2^8), far from 448, where e4m3 ends.
struct CacheF8 {
  using T = Bf16;
  static constexpr int kParts = 2, kBytes = 1;
  AWQ_DEVICE static float scale(float most) {
    const int exponent = int(bits_of(most) >> 23 & 0xff) - 7;
    return most == 0 ? 1.f : float_of(uint32_t(exponent < 7 ? 7 : exponent) << 23);
  }
  AWQ_DEVICE static uint8_t code(float x) {  // to nearest even
    const uint32_t u = bits_of(x), a = u & 0x7fffffff, sign = u >> 24 & 0x80;
    if (a < 0x3c800000) return uint8_t(sign | (bits_of(float_of(a) + 16384.f) & 0xff));  // 2^-6; its ulp there is 2^-9
    return uint8_t(sign | (a - 0x3c000000 + 0x7ffff + (a >> 20 & 1)) >> 20);
  }
  AWQ_DEVICE static uint32_t widen(uint32_t bytes) {  // in the low halves of both 16 bits
    return Bf16::fused2((bytes & 0x007f007fu) << 4 | (bytes & 0x00800080u) << 8, 0x7b807b80u, 0x80008000u);
  }
  AWQ_DEVICE static Words4 read(const uint8_t* p) {
    Words4 out;
    AWQ_UNROLL
    for (int i = 0; i < 2; ++i) {
      const uint32_t w = reinterpret_cast<const uint32_t*>(p)[i];
      out.w[2 * i] = widen((w & 0xff) | (w & 0xff00) << 8);
      out.w[2 * i + 1] = widen((w >> 16 & 0xff) | (w >> 8 & 0xff0000));
    }
    return out;
  }
};

/// Values in `Parts` 16-bit floats: what the first leaves, the second has.
template <class T, int Parts>
AWQ_DEVICE void split_pair(float a, float b, uint32_t (&out)[Parts]) {
  out[0] = T::pack(a, b);
  if constexpr (Parts == 2) out[1] = T::pack(a - T::low(out[0]), b - high<T>(out[0]));
}

AWQ_DEVICE float quad_max(float v) {
  v = largest(v, shuffle_xor(v, 1));
  return largest(v, shuffle_xor(v, 2));
}
AWQ_DEVICE float quad_sum(float v) {
  v += shuffle_xor(v, 1);
  return v + shuffle_xor(v, 2);
}

/// What 16 queries have seen: of rows g and g + 8 the largest score (log2) and the sum of weights, over this lane's
/// columns alone, and the weighted sum of values, in the places of an mma's sums.
template <int MaxValue>
struct Seen {
  float max[2], sum[2], out[MaxValue / 8][4];
  AWQ_DEVICE void clear() {
    AWQ_UNROLL
    for (int h = 0; h < 2; ++h) max[h] = -INFINITY, sum[h] = 0;
    AWQ_UNROLL
    for (int d = 0; d < MaxValue / 8; ++d) AWQ_UNROLL
    for (int i = 0; i < 4; ++i) out[d][i] = 0;
  }
};

/// A tile's rows as a lane needs them.
struct TileRows {
  int begin[2], end[2];  // positions that rows g and g + 8 see
  float slope[2];
  int limit;  // no row sees this position or a later one
};

template <class C>
AWQ_DEVICE int query_bytes(int dim) {
  return kAttentionRows * dim * 2 * C::kParts;
}

AWQ_DEVICE int64_t row_of(const AttentionArgs& a, const AttentionTile& t, int i, int& head) {
  head = t.head * a.share + (t.begin + i) % a.share;
  return a.sequences[t.sequence].row + (t.begin + i) / a.share;
}

/// Queries to shared memory as registers of the mma, scaled: [dim / 16][part][lane][4]. A warp.
template <class C>
AWQ_DEVICE void gather_queries(const AttentionArgs& a, const AttentionTile& tile, uint32_t* to) {
  const int g = lane() / 4, t = lane() % 4;
  for (int step = 0; step < a.kv.dim / 16; ++step)
    for (int i = 0; i < 4; ++i) {
      const int r = 8 * (i % 2) + g, channel = step / 2 * 32 + 8 * t + 4 * (step % 2) + 2 * (i / 2);
      float v[2] = {};
      if (tile.begin + r < tile.end) {
        int head;
        const int64_t row = row_of(a, tile, r, head), heads = int64_t(a.kv.heads) * a.share;
        const float* q = a.q + (row * heads + head) * a.kv.head_dim;
        for (int k = 0; k < 2; ++k)
          if (channel + k < a.kv.head_dim) v[k] = q[channel + k] * a.scale;
      }
      uint32_t parts[C::kParts];
      split_pair<typename C::T, C::kParts>(v[0], v[1], parts);
      for (int p = 0; p < C::kParts; ++p) to[((step * C::kParts + p) * kWarp + lane()) * 4 + i] = parts[p];
    }
  sync_warp();
}

AWQ_DEVICE TileRows rows_of(const AttentionArgs& a, const AttentionTile& tile) {
  TileRows r;
  const int first = a.sequences[tile.sequence].first;
  r.limit = first + (tile.end - 1) / a.share + 1;
  AWQ_UNROLL
  for (int h = 0; h < 2; ++h) {
    const int i = tile.begin + 8 * h + lane() / 4;
    r.end[h] = i < tile.end ? first + i / a.share + 1 : 0;
    r.begin[h] = a.window && r.end[h] > a.window ? r.end[h] - a.window : 0;
    r.slope[h] = a.slopes && i < tile.end ? a.slopes[tile.head * a.share + i % a.share] : 0.f;
  }
  return r;
}

/// Scores of 32 positions from `base` on of the page: [tile of 8 columns][the mma's four].
template <class C>
AWQ_DEVICE void make_scores(const AttentionArgs& a, const uint32_t* q, const uint8_t* head, int base,
                            float (&s)[4][4]) {
  using T = typename C::T;
  const int g = lane() / 4, t = lane() % 4;
  AWQ_UNROLL
  for (int n = 0; n < 4; ++n) AWQ_UNROLL
  for (int i = 0; i < 4; ++i) s[n][i] = 0;
  AWQ_NO_UNROLL
  for (int chunk = 0; chunk < a.kv.dim / 32; ++chunk) {
    uint32_t queries[2][C::kParts][4];
    AWQ_UNROLL
    for (int p = 0; p < 2; ++p) AWQ_UNROLL
    for (int part = 0; part < C::kParts; ++part) {
      const Words4 v = load16(q + (((2 * chunk + p) * C::kParts + part) * kWarp + lane()) * 4);
      AWQ_UNROLL
      for (int i = 0; i < 4; ++i) queries[p][part][i] = v.w[i];
    }
    AWQ_UNROLL
    for (int n = 0; n < 4; ++n) {
      const int position = base + 8 * (g / 2) + 2 * n + g % 2;
      const Words4 k = C::read(head + (int64_t(position) * a.kv.dim + 32 * chunk + 8 * t) * C::kBytes);
      AWQ_UNROLL
      for (int p = 0; p < 2; ++p) AWQ_UNROLL
      for (int part = 0; part < C::kParts; ++part) T::mma(s[n], queries[p][part], k.w[2 * p], k.w[2 * p + 1]);
    }
  }
}

/// Where a page's head has its parts.
struct HeadParts {
  const uint8_t* values;
  const float *key_scales, *value_scales;
};
template <class C>
AWQ_DEVICE HeadParts parts_of(const AttentionArgs& a, const uint8_t* head) {
  const uint8_t* values = head + int64_t(kKvPage) * a.kv.dim * C::kBytes;
  const auto* scales = reinterpret_cast<const float*>(values + int64_t(kKvPage) * a.kv.padded_value * C::kBytes);
  return {values, scales, scales + kKvPage};
}

/// Values past a tile's last position may be anything, and 0 * NaN is not 0.
AWQ_DEVICE void drop_unseen(Words4& v, int seen) {
  AWQ_UNROLL
  for (int i = 0; i < 4; ++i) {
    if (2 * i >= seen) v.w[i] = 0;
    if (2 * i + 1 == seen) v.w[i] &= 0xffff;
  }
}

/// One step: 32 positions, the first `base` of the page that begins at `page_at`.
template <class C, int MaxValue>
AWQ_DEVICE void see(const AttentionArgs& a, const TileRows& rows, const uint32_t* q, const uint8_t* head, int page_at,
                    int base, Seen<MaxValue>& seen) {
  using T = typename C::T;
  constexpr bool kScaled = C::kBytes == 1;
  const int g = lane() / 4, t = lane() % 4;
  const HeadParts parts = parts_of<C>(a, head);
  float s[4][4];
  make_scores<C>(a, q, head, base, s);
  float top[2] = {-INFINITY, -INFINITY};
  AWQ_UNROLL
  for (int n = 0; n < 4; ++n) AWQ_UNROLL
  for (int i = 0; i < 4; ++i) {
    // This lane's columns 2 t and 2 t + 1 of tile n are positions 8 t + 2 n and the next.
    const int in_page = base + 8 * t + 2 * n + i % 2, position = page_at + in_page, h = i / 2;
    float v = s[n][i];
    if (kScaled) v *= position < rows.limit ? parts.key_scales[in_page] : 0.f;
    if (a.cap != 0) v = a.cap * tanhf(v / a.cap);
    if (a.slopes) v += rows.slope[h] * float(position - (rows.end[h] - 1));
    if (position < rows.begin[h] || position >= rows.end[h]) v = -INFINITY;
    s[n][i] = v;
    top[h] = largest(top[h], v);
  }
  float shrink[2];
  AWQ_UNROLL
  for (int h = 0; h < 2; ++h) {
    const float max = largest(seen.max[h], quad_max(top[h]));
    const float origin = max == -INFINITY ? 0.f : max;
    shrink[h] = power2(seen.max[h] - origin);
    seen.max[h] = max;
    seen.sum[h] *= shrink[h];
    top[h] = origin;
  }
  uint32_t weights[2][C::kParts][4];  // [step][part][register]
  AWQ_UNROLL
  for (int n = 0; n < 4; ++n) AWQ_UNROLL
  for (int h = 0; h < 2; ++h) {
    float w[2];
    AWQ_UNROLL
    for (int i = 0; i < 2; ++i) {
      const int in_page = base + 8 * t + 2 * n + i;
      w[i] = power2(s[n][2 * h + i] - top[h]);
      seen.sum[h] += w[i];
      if (kScaled) w[i] = page_at + in_page < rows.limit ? w[i] * parts.value_scales[in_page] : 0.f;
    }
    uint32_t pair[C::kParts];
    split_pair<T, C::kParts>(w[0], w[1], pair);
    AWQ_UNROLL
    for (int p = 0; p < C::kParts; ++p) weights[n / 2][p][n % 2 * 2 + h] = pair[p];
  }
  const int visible = rows.limit - page_at - base - 8 * t;  // of this lane's eight positions
  AWQ_UNROLL
  for (int d = 0; d < MaxValue / 8; ++d) {
    if (8 * d >= a.kv.padded_value) break;
    AWQ_UNROLL
    for (int i = 0; i < 4; ++i) seen.out[d][i] *= shrink[i / 2];
    Words4 v = C::read(parts.values + (int64_t(8 * d + g) * kKvPage + base + 8 * t) * C::kBytes);
    if (visible < 8) drop_unseen(v, visible < 0 ? 0 : visible);
    AWQ_UNROLL
    for (int p = 0; p < 2; ++p) AWQ_UNROLL
    for (int part = 0; part < C::kParts; ++part) T::mma(seen.out[d], weights[p][part], v.w[2 * p], v.w[2 * p + 1]);
  }
}

AWQ_DEVICE const uint8_t* head_of(const AttentionArgs& a, const AttentionTile& tile, int page) {
  return a.table[a.sequences[tile.sequence].pages + page] + a.kv.block_offset + tile.head * a.kv.head_bytes;
}

/// The part of a page that any row of a tile sees: positions of the page, in steps.
AWQ_DEVICE void page_span(const AttentionArgs& a, const AttentionTile& tile, const TileRows& rows, int page, int& from,
                          int& to) {
  const int at = page * kKvPage, first = a.sequences[tile.sequence].first + tile.begin / a.share + 1 - a.window - at;
  from = a.window && first > 0 ? first / kSpan * kSpan : 0;
  to = rows.limit - at < kKvPage ? rows.limit - at : kKvPage;
}

/// y of one row and channel, of what all positions have given.
AWQ_DEVICE void put_value(const AttentionArgs& a, const AttentionTile& tile, int r, int channel, float max, float sum,
                          float value) {
  if (tile.begin + r >= tile.end || channel >= a.kv.value_dim) return;
  int head;
  const int64_t row = row_of(a, tile, r, head);
  if (a.sinks) sum += power2(a.sinks[head] - max);  // a sink has a weight and no value
  a.y[(row * a.kv.heads * a.share + head) * a.kv.value_dim + channel] = value / sum;
}

/// Prefill: a warp for each tile, all of its pages.
template <class C, int MaxValue>
AWQ_KERNEL void AWQ_BOUNDS(128, 1) whole_tiles(const AttentionArgs a) {
  after_earlier();
  auto* q = reinterpret_cast<uint32_t*>(shared_memory() + warp() * query_bytes<C>(a.kv.dim));
  const int g = lane() / 4, t = lane() % 4, per_block = threads() / kWarp;
  for (int i = block() * per_block + warp(); i < a.whole_count; i += blocks() * per_block) {
    const AttentionTile tile = a.tiles[i];
    const TileRows rows = rows_of(a, tile);
    Seen<MaxValue> seen;
    seen.clear();
    sync_warp();
    gather_queries<C>(a, tile, q);
    AWQ_NO_UNROLL
    for (int page = tile.page_begin; page < tile.page_end; ++page) {
      const uint8_t* head = head_of(a, tile, page);
      int from, to;
      page_span(a, tile, rows, page, from, to);
      AWQ_NO_UNROLL
      for (int base = from; base < to; base += kSpan) see<C, MaxValue>(a, rows, q, head, page * kKvPage, base, seen);
    }
    AWQ_UNROLL
    for (int h = 0; h < 2; ++h) seen.sum[h] = quad_sum(seen.sum[h]);
    AWQ_UNROLL
    for (int d = 0; d < MaxValue / 8; ++d) AWQ_UNROLL
    for (int k = 0; k < 4; ++k)
      put_value(a, tile, 8 * (k / 2) + g, 8 * d + 2 * t + k % 2, seen.max[k / 2], seen.sum[k / 2], seen.out[d][k]);
  }
}

/// Largest scores, sums and values [rows][value_dim] of several parts, [rows][width + 2] floats each: a thread for each
/// channel of a row.
template <class Put>
AWQ_DEVICE void merge_parts(const float* parts, int count, int width, Put put) {
  const int row_floats = width + 2;
  for (int i = thread(); i < kAttentionRows * width; i += threads()) {
    const int r = i / width, c = i % width;
    float max = -INFINITY, sum = 0, value = 0;
    for (int p = 0; p < count; ++p) max = largest(max, parts[(p * kAttentionRows + r) * row_floats]);
    const float origin = max == -INFINITY ? 0.f : max;
    for (int p = 0; p < count; ++p) {
      const float* part = parts + (p * kAttentionRows + r) * row_floats;
      const float factor = power2(part[0] - origin);
      sum += part[1] * factor;
      value += part[2 + c] * factor;
    }
    put(r, c, max, sum, value);
  }
}

constexpr int kUnitWarps = 4;

/// Decode: a block for each page of a tile; its warps take steps in turn. Whoever finishes a tile's last page merges
/// them all, in order: the result does not depend on who that was, nor on other tiles.
template <class C, int MaxValue>
AWQ_KERNEL void AWQ_BOUNDS(kUnitWarps* kWarp, 1) split_tiles(const AttentionArgs a) {
  after_earlier();
  auto* q = reinterpret_cast<uint32_t*>(shared_memory());
  auto* parts = reinterpret_cast<float*>(shared_memory() + query_bytes<C>(a.kv.dim));
  const int width = a.kv.padded_value, part_floats = kAttentionRows * (width + 2);
  auto* last = reinterpret_cast<int32_t*>(parts + kUnitWarps * part_floats);
  const AttentionUnit unit = a.units[block()];
  if (unit.tile < 0) return;
  const AttentionTile tile = a.tiles[unit.tile];
  const TileRows rows = rows_of(a, tile);
  const int g = lane() / 4, t = lane() % 4;
  if (warp() == 0) gather_queries<C>(a, tile, q);
  sync_block();
  Seen<MaxValue> seen;
  seen.clear();
  int from, to;
  page_span(a, tile, rows, unit.page, from, to);
  AWQ_NO_UNROLL
  for (int base = from + warp() * kSpan; base < to; base += kUnitWarps * kSpan)
    see<C, MaxValue>(a, rows, q, head_of(a, tile, unit.page), unit.page * kKvPage, base, seen);
  float* own = parts + warp() * part_floats;
  AWQ_UNROLL
  for (int h = 0; h < 2; ++h) {
    const float sum = quad_sum(seen.sum[h]);
    float* row = own + (8 * h + g) * (width + 2);
    if (t == 0) row[0] = seen.max[h], row[1] = sum;
    AWQ_UNROLL
    for (int d = 0; d < MaxValue / 8; ++d) AWQ_UNROLL
    for (int i = 0; i < 2; ++i)
      if (8 * d < width) row[2 + 8 * d + 2 * t + i] = seen.out[d][2 * h + i];
  }
  sync_block();
  const int pages = tile.page_end - tile.page_begin;
  if (pages == 1)
    return merge_parts(parts, kUnitWarps, width, [&](int r, int c, float max, float sum, float value) {
      put_value(a, tile, r, c, max, sum, value);
    });
  float* page_part = a.parts + int64_t(tile.part + unit.page - tile.page_begin) * part_floats;
  merge_parts(parts, kUnitWarps, width, [&](int r, int c, float max, float sum, float value) {
    float* row = page_part + r * (width + 2);
    if (c == 0) row[0] = max, row[1] = sum;
    row[2 + c] = value;
  });
  fence();
  sync_block();
  if (thread() == 0) *last = add_at(a.counters + unit.tile, 1) == pages - 1;
  sync_block();
  if (!*last) return;
  fence();
  merge_parts(a.parts + int64_t(tile.part) * part_floats, pages, width,
              [&](int r, int c, float max, float sum, float value) { put_value(a, tile, r, c, max, sum, value); });
  if (thread() == 0) a.counters[unit.tile] = 0;
}

/// Where a kv head's keys and values of a token are to be.
template <class C>
struct HeadPlace {
  uint8_t *keys, *values;  // of the page's head
  float* scales;
  int at;  // position in the page
};
template <class C>
AWQ_DEVICE HeadPlace<C> place_of_head(const KvStoreArgs& a, int token, int head) {
  const KvSequence s = a.sequences[a.sequence_of[token]];
  const int position = s.first + token - s.row;
  uint8_t* keys = a.table[s.pages + position / kKvPage] + a.kv.block_offset + head * a.kv.head_bytes;
  uint8_t* values = keys + int64_t(kKvPage) * a.kv.dim * C::kBytes;
  auto* scales = reinterpret_cast<float*>(values + int64_t(kKvPage) * a.kv.padded_value * C::kBytes);
  return {keys, values, scales, position % kKvPage};
}

/// One head's channels to where `place` says, by a warp; zeros past its width.
template <class C, class Place>
AWQ_DEVICE void store_channels(const float* x, int width, int padded, float* scale, Place place) {
  [[maybe_unused]] float inverse = 1;
  if constexpr (C::kBytes == 1) {
    float most = 0, bad = 0;  // NaN where x holds infinity or NaN
    for (int c = lane(); c < width; c += kWarp) {
      most = largest(most, x[c] < 0 ? -x[c] : x[c]);
      bad += x[c] * 0.f;
    }
    const float step = C::scale(warp_max(most)) + warp_sum(bad);
    inverse = step > 0 ? 1 / step : 0.f;
    if (lane() == 0) *scale = step;
  }
  for (int c = lane(); c < padded; c += kWarp) {
    const float value = c < width ? x[c] : 0.f;
    if constexpr (C::kBytes == 1) {
      place(c)[0] = inverse > 0 ? C::code(value * inverse) : uint8_t(0);
    } else {
      *reinterpret_cast<uint16_t*>(place(c)) = uint16_t(C::T::pack(value, 0));
    }
  }
}
template <class C>
AWQ_DEVICE void store_head(const KvStoreArgs& a, int token, int head, const float* k, const float* v) {
  const HeadPlace<C> p = place_of_head<C>(a, token, head);
  store_channels<C>(k, a.kv.head_dim, a.kv.dim, p.scales + p.at,
                    [&](int c) { return p.keys + (int64_t(p.at) * a.kv.dim + c) * C::kBytes; });
  store_channels<C>(v, a.kv.value_dim, a.kv.padded_value, p.scales + kKvPage + p.at,
                    [&](int c) { return p.values + (int64_t(c) * kKvPage + p.at) * C::kBytes; });
}

/// A warp for each head of each token.
template <class C>
AWQ_KERNEL void AWQ_BOUNDS(256, 2) store_heads(const KvStoreArgs a) {
  after_earlier();
  const int per_block = threads() / kWarp;
  const int64_t n = int64_t(a.tokens) * a.kv.heads;
  for (int64_t i = int64_t(block()) * per_block + warp(); i < n; i += int64_t(blocks()) * per_block)
    store_head<C>(a, int(i / a.kv.heads), int(i % a.kv.heads), a.k + i * a.kv.head_dim, a.v + i * a.kv.value_dim);
}

/// A head's channels to the warp's own shared memory, normalised.
AWQ_DEVICE void normalise_head(const HeadNormArgs& a, int head, const float* x, int width, float* to) {
  float sum = 0, squares = 0;
  for (int c = lane(); c < width && a.present && a.layer; c += kWarp) sum += x[c];
  const float mean = a.present && a.layer ? warp_sum(sum) / float(width) : 0.f;
  for (int c = lane(); c < width && a.present; c += kWarp) squares = fused(x[c] - mean, x[c] - mean, squares);
  const float scale = a.present ? 1 / root(warp_sum(squares) / float(width) + a.eps) : 1.f;
  const int gains = a.present ? head % a.heads * width : 0;
  for (int c = lane(); c < width; c += kWarp) {
    const float gain = a.present && a.gain ? a.gain[gains + c] + a.gain_offset : 1.f;
    const float bias = a.present && a.bias ? a.bias[gains + c] : 0.f;
    to[c] = a.present ? fused((x[c] - mean) * scale, gain, bias) : x[c];
  }
  sync_warp();
}
AWQ_DEVICE void turn_head(const HeadsArgs& a, int token, float* x) {
  for (int i = lane(); i < a.half; i += kWarp) {
    float &p = x[a.interleaved ? 2 * i : i], &q = x[a.interleaved ? 2 * i + 1 : i + a.half];
    const float c = a.cosines[int64_t(token) * a.half + i], s = a.sines[int64_t(token) * a.half + i], u = p, v = q;
    p = u * c - v * s;
    q = v * c + u * s;
  }
  sync_warp();
}

constexpr int kHeadWarps = 4;

/// A warp for each head of each token, of queries first.
template <class C>
AWQ_KERNEL void AWQ_BOUNDS(kHeadWarps* kWarp, 2) ready_heads(const HeadsArgs a) {
  after_earlier();
  const int width = a.store.kv.head_dim, of_token = a.heads + a.store.kv.heads;
  float* own = reinterpret_cast<float*>(shared_memory()) + warp() * width;
  const int64_t n = int64_t(a.store.tokens) * of_token;
  for (int64_t i = int64_t(block()) * kHeadWarps + warp(); i < n; i += int64_t(blocks()) * kHeadWarps) {
    const int token = int(i / of_token), head = int(i % of_token), kv_head = head - a.heads;
    sync_warp();  // the head before this one was read
    if (kv_head < 0) {
      float* q = a.q + (int64_t(token) * a.heads + head) * width;
      normalise_head(a.q_norm, head, q, width, own);
      turn_head(a, token, own);
      for (int c = lane(); c < width; c += kWarp) q[c] = own[c];
    } else {
      const int64_t at = int64_t(token) * a.store.kv.heads + kv_head;
      normalise_head(a.k_norm, kv_head, a.store.k + at * width, width, own);
      turn_head(a, token, own);
      store_head<C>(a.store, token, kv_head, own, a.store.v + at * a.store.kv.value_dim);
    }
  }
}

}  // namespace awq::cuda
