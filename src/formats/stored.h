#pragma once
// Tensors of a Hugging Face folder and the parameters that are in them: one each, or several where projections are
// fused. The only place that knows how rows are laid out in a fused tensor.
#include <algorithm>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "model/spec.h"
#include "quant/qmatrix.h"

namespace awq {

struct StoredPart {
  int block = 0;
  Param param{};
  RowPattern rows;
  int64_t total = 0;  // rows of the parameter
};

struct StoredTensor {
  std::string name;           // without ".weight" or ".bias"
  std::string weight_name{};  // see Source
  std::string bias_name{};    // see Source
  Shape shape;                // of the weight, as it is stored
  int64_t rows = 0;           // outputs, of all parts
  int64_t stack = 0;          // see Source
  bool transposed = false, bias = false;
  std::vector<StoredPart> parts;
  Param first() const { return parts.front().param; }
  std::string weight() const { return weight_name.empty() ? name + ".weight" : weight_name; }
  std::string bias_tensor() const { return bias_name.empty() ? name + ".bias" : bias_name; }
};

/// How experts lie that a family has in one tensor of three dimensions: no format of codes has more than two.
enum class Experts : uint8_t { as_published, apart };

/// What a model is stored as. The constructor throws Error unless the parts of each tensor cover its rows exactly once.
class StoredTensors {
 public:
  StoredTensors(const ModelSpec& spec, Experts experts);
  /// Of files whose tensors are not a Hugging Face folder's: `source` says where one has a parameter.
  StoredTensors(const ModelSpec& spec, const std::function<Source(int block, Param p)>& source);
  const std::vector<StoredTensor>& all() const { return all_; }  // in the order of files
  const StoredTensor& holding(int block, Param param) const { return all_[where_.at({block, param})]; }
  /// The parameter's rows in the tensor that holds it.
  RowPattern rows(int block, Param param) const;

 private:
  std::vector<StoredTensor> all_;
  std::map<std::pair<int, Param>, size_t> where_;
};

/// f(first row of the tensor, first row of the parameter, how many) for each run of the parameter's rows [begin, end).
template <class F>
void for_runs(const RowPattern& p, int64_t begin, int64_t end, const F& f) {
  for (int64_t r = begin; r < end;) {
    const int64_t n = std::min(p.count - r % p.count, end - r);
    f(p.stored(r), r, n);
    r += n;
  }
}

/// Rows [begin, end) of a parameter; read(b, e) gives those of the tensor.
template <class Read>
Tensor gather(const RowPattern& p, int64_t begin, int64_t end, const Read& read) {
  Tensor all;
  for_runs(p, begin, end, [&](int64_t stored, int64_t row, int64_t n) {
    Tensor run = read(stored, stored + n);
    if (n == end - begin) {
      all = std::move(run);
      return;
    }
    if (!all)
      all =
          Tensor::empty(run.shape().rank() == 1 ? Shape{end - begin} : Shape{end - begin, run.shape()[1]}, run.dtype());
    std::copy_n(run.data(), run.bytes(), all.rows(row - begin, row - begin + n).data());
  });
  return all;
}
/// Rows [begin, end) of a parameter from a part of a quantized tensor that begins with the tensor's row `first`.
QMatrix gather(const RowPattern& p, int64_t begin, int64_t end, const QMatrix& tensor, int64_t first);
/// Columns of a tensor [in, out] that are a parameter's rows [begin, end), as rows.
Tensor gather_transposed(const RowPattern& p, int64_t begin, int64_t end, const Tensor& tensor);

/// The tensor's weight [rows, cols] or bias [rows] from those of its parts, in the order of `parts`. Throws Error if
/// they are not all quantized alike, or all of one type.
Weight merged(const StoredTensor& s, const std::vector<Weight>& parts);
/// A weight [rows, cols] as the file has it.
Tensor as_stored(const StoredTensor& s, const Tensor& weight);

}  // namespace awq
