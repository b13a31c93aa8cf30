#pragma once
#include "base/parallel.h"
#include "kernels/kernels.h"
#include "quant/pieces.h"

namespace awq {

/// The stream of kernels::PackedInt for a matrix of codes: those of 2 to 4 bits as 4, wider ones as 8. Groups wider
/// than kMaxActGroup are split, their scale and zero repeated. Scales stay 16-bit where the matrix has float16 ones.
/// Kernels know zero points only: a group with an offset gets the nearest one, and what is left of the offset, times
/// the sum of the group's activations, is to be added.
struct PackedMatrix {
  Tensor stream;  // u8 [panels, groups, bytes of a group]
  Tensor rest;    // f32 [panels, groups, 16]; empty where nothing is left of any offset
  Tensor order;   // i32 [cols]: which activation a column reads; empty: its own
  Tensor inputs;  // f32 [cols]: what activations are multiplied by; empty: 1
  int32_t rows = 0, cols = 0, group = 0, bits = 4;
  bool half_scales = true;
  kernels::PackedInt view() const { return {stream.as<uint8_t>().data(), rows, cols, group, bits, half_scales}; }
};

/// Each thread reads a piece and packs it, so that as many pieces as threads are in memory. Throws Error for what the
/// kernels do not take, and what reading throws.
PackedMatrix pack_int(const Pieces& w, ThreadPool& pool);
/// f32, f16 or bf16 [rows, cols] -> [panels, cols, 16] of the same type; rows past the end are 0.
Tensor pack_panels(const Pieces& w, ThreadPool& pool);
/// What either takes at most, in bytes.
int64_t packed_bytes(const Pieces& w);

}  // namespace awq
