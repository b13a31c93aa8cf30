#pragma once
#include "quant/qmatrix.h"

namespace awq {

/// A matrix of N rows and K columns in G groups in AutoAWQ's "GEMM" layout: transposed, P = 32 / bits rows to a word.
/// Code i of a word, from its low end, belongs to row P c + i', the even rows first: 8c + {0, 2, 4, 6, 1, 3, 5, 7}, the
/// order in which AutoAWQ's GPU kernel unpacks 4 bits, and 4c + {0, 2, 1, 3} for 8 bits, which AutoAWQ itself does not
/// write; it is the order that vLLM's repacking expects of such a file.
struct AutoAwqTensors {
  Tensor qweight;  // i32 [K, N / P]
  Tensor qzeros;   // i32 [G, N / P]; empty where every zero point is the middle one, 8 or 128
  Tensor scales;   // f16, bf16 or f32 [G, N]
};

/// P; for 4 or 8 bits.
constexpr int rows_of_word(int bits) { return 32 / bits; }
/// Exact: scales keep the type of q.spec. Throws Error unless q has 4 or 8 bits and a multiple of P rows.
AutoAwqTensors pack_autoawq(const QMatrix& q);
/// The bits follow from N and the words of a column, the group size is K / G, the type of the scales theirs. The shapes
/// must fit each other; `FolderCheckpoint`s check that.
QMatrix unpack_autoawq(const AutoAwqTensors& t);

}  // namespace awq
