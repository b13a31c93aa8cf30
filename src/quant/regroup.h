#pragma once
#include "quant/qmatrix.h"

namespace awq {

/// The same matrix with groups of `columns` columns, which divide its own: parts of a group share its scale.
QMatrix in_groups_of(const QMatrix& q, int columns);

}  // namespace awq
