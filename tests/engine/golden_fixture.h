#pragma once
// The tiny models of tests/golden (tools/make_golden.py): every folder that holds reference logits, found by itself.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <string>
#include <vector>

#include "engine/runtime.h"
#include "io/safetensors.h"

namespace awq::golden {

inline std::filesystem::path folder(const std::string& name) {
  return std::filesystem::path(AWQ_TEST_DIR) / "golden" / name;
}

inline std::vector<std::string> names() {
  std::vector<std::string> all;
  for (const auto& entry : std::filesystem::directory_iterator(folder("")))
    if (std::filesystem::exists(entry.path() / "expected.safetensors")) all.push_back(entry.path().filename().string());
  std::ranges::sort(all);
  return all;
}

inline std::string name_of_case(const testing::TestParamInfo<std::string>& info) {
  std::string n = info.param;
  std::ranges::replace(n, '-', '_');
  return n;
}

struct Expected {
  explicit Expected(const std::string& name)
      : file(MappedFile(folder(name) / "expected.safetensors")), logits(file.tensor("logits")) {
    for (int64_t id : file.tensor("ids").as<int64_t>()) ids.push_back(int32_t(id));
  }
  SafetensorsFile file;
  Tensor logits;
  std::vector<int32_t> ids;
};

inline Tensor run(Device& d, const Model& m, std::span<const int32_t> ids) {
  const auto kv = d.backend->kv_cache(m.spec.blocks);
  const Sequence s{kv.get(), 0, int(ids.size())};
  return head_logits(*d.backend, m, hidden_forward(*d.backend, m, ids, {&s, 1}));
}

inline double relative_difference(const Tensor& a, const Tensor& b) {
  double largest = 0, difference = 0;
  for (size_t i = 0; i < b.as<float>().size(); ++i) {
    largest = std::max(largest, std::abs(double(b.as<float>()[i])));
    difference = std::max(difference, std::abs(double(a.as<float>()[i]) - double(b.as<float>()[i])));
  }
  return difference / largest;
}

// Float against float64: a block rounds a chain of about 12 operations and sums of up to 96 products, each 2^-24; sums
// average out, so about sqrt(12 * 96) * 2^-24 = 2e-6 for one block, relative to its largest output, and norms keep the
// next block from amplifying it. Twice that is the bound; mistakes in any part move logits by 1e-3 and more.
constexpr double kTolerance = 4e-6;

}  // namespace awq::golden
