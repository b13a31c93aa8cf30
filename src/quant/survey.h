#pragma once
#include <string>
#include <vector>

#include "base/parallel.h"
#include "quant/qmatrix.h"

namespace awq {

/// Counts of a quantized matrix.
struct CodeSurvey {
  QuantSpec spec;
  std::vector<int64_t> codes, zeros;            // of each value, [2^bits]; zeros all 0 where there are offsets
  int64_t groups = 0, equal_groups = 0;         // and those whose codes are all the same
  int64_t zero_scales = 0;                      // groups whose scale is 0
  int64_t lost_groups = 0;                      // of these, whose codes are not all the same
  float smallest_scale = 0, largest_scale = 0;  // magnitudes, of those not 0; 0 where there is none
  int64_t count() const;
  double low() const { return double(codes.front()) / double(count()); }  // share of codes that are 0
  double high() const { return double(codes.back()) / double(count()); }  // share of the largest code
};
/// The same for any number of threads.
CodeSurvey survey(const QMatrix& q, ThreadPool& pool);

/// The largest share of codes at both ends that rounding gives. Weights spread evenly over +-1 are the flattest that a
/// distribution with one peak can be. On a range cut to +-c, 1 - c of them lie beyond it, and c / levels within half a
/// step of its ends; searches of ranges go down to c = 1/2. The two ends of a group's own range count besides.
double most_saturated(const QuantSpec& spec);

/// What of a survey no rounding of weights gives, in words.
std::vector<std::string> suspicions(const CodeSurvey& s);

}  // namespace awq
