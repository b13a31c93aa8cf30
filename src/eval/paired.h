#pragma once
#include <cstdint>
#include <span>

namespace awq {

/// What one has more than another, pair by pair.
struct Paired {
  double difference = 0;     // mean of a - b
  double low = 0, high = 0;  // between them are 95 of 100 resampled means
  double p = 1;              // how often chance alone would put the mean on the other side of 0, both sides counted
};
/// The bootstrap (Efron, "Bootstrap Methods: Another Look at the Jackknife", Ann. Statist. 7 (1979)) of the pairs: the
/// mean of as many pairs, drawn with replacement, again and again. The same input gives the same result.
Paired paired_bootstrap(std::span<const double> a, std::span<const double> b);

}  // namespace awq
