#pragma once
// Functions of one value, as Map names them.
#include "kernels/cuda/lanes.h"

namespace awq::cuda {

AWQ_DEVICE float mapped(Map map, float a, float b, float x) {
  switch (map) {
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
      return x * a;
    case Map::zero:
      return 0;
    case Map::clip:
      return x < -a ? -a : x > a ? a : x;
    case Map::soft_cap:
      return a * tanhf(x / a);
    case Map::swish_gate:  // see Backend::clamped_swish
      return a * (x > b ? b : x);
    case Map::swish_up:
      return ((x < -b ? -b : x > b ? b : x) + 1) / a;
    case Map::add:
      break;
  }
  return x * a;
}

}  // namespace awq::cuda
