#pragma once
#include "quant/qmatrix.h"

namespace awq {

/// A matrix of N rows and K columns in G groups in AutoAWQ's "GEMM" layout: transposed, eight rows to a word. Nibble i
/// of a word holds row 8c + {0, 2, 4, 6, 1, 3, 5, 7}[i], the order in which AutoAWQ's GPU kernel unpacks them.
struct AutoAwqTensors {
  Tensor qweight;  // i32 [K, N / 8]
  Tensor qzeros;   // i32 [G, N / 8]; empty where every zero point is 8
  Tensor scales;   // f16, bf16 or f32 [G, N]
};

/// Exact: scales keep the type of q.spec. Throws Error unless q has 4 bits and a multiple of 8 rows.
AutoAwqTensors pack_autoawq(const QMatrix& q);
/// The group size is K / G, the type of the scales theirs. The shapes must fit each other; `FolderCheckpoint`s check
/// that.
QMatrix unpack_autoawq(const AutoAwqTensors& t);

}  // namespace awq
