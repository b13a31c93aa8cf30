#include "quantizer/module_loss.h"

#include <algorithm>
#include <numeric>

namespace awq {
namespace {

double squared_distance(const float* a, const float* b, size_t n) {
  double sum = 0;
  for (size_t i = 0; i < n; ++i) {
    const double d = double(a[i]) - double(b[i]);
    sum += d * d;
  }
  return sum;
}

// Over the rows that count; all where `counted` is empty. Added up in the order of rows.
double squared_distance(const Host& host, const Tensor& a, const Tensor& b, std::span<const uint8_t> counted) {
  const auto cols = size_t(a.shape()[1]);
  std::vector<double> of_row(size_t(a.shape()[0]));
  host.pool.run(a.shape()[0], 16, [&](int64_t begin, int64_t end) {
    for (auto r = size_t(begin); r < size_t(end); ++r)
      if (counted.empty() || counted[r])
        of_row[r] = squared_distance(a.as<float>().data() + r * cols, b.as<float>().data() + r * cols, cols);
  });
  return std::accumulate(of_row.begin(), of_row.end(), 0.0);
}

}  // namespace

ModuleLoss::ModuleLoss(const ScaleGroup& g, const BlockWeights& w, const Block& block,
                       const BlockCalibration& calibration, const SolveContext& context, Products products)
    : group_(g),
      w_(w),
      type_(products == Products::exact ? DType::f32 : running_type(context.host.kernels)),
      block_(block),
      calibration_(calibration),
      context_(context) {
  if (type_ && block_.type != type_) {
    std::vector<Param> all = group_.consumers;
    for (Param p : w_.spec.params())
      if (attends() && in_attention(p.role) && !is_norm(p.role) && !std::ranges::count(all, p)) all.push_back(p);
    if (reads(Role::up)) all.push_back({Role::down});
    for (Param p : all) block_.linear[p] = linear(p, rows_of(w_, p));
  }
  reference_ = output(block_);
}

double ModuleLoss::of(const std::function<Rows(Param)>& changed) const {
  Block b = block_;
  for (Param p : group_.consumers) b.linear[p] = linear(p, changed(p));
  std::span<const uint8_t> counted;  // rows of gate's sample all count
  if (attends()) counted = calibration_.sample_counted;
  return squared_distance(context_.host, reference_, output(b), counted);
}

std::shared_ptr<const Linear> ModuleLoss::linear(Param p, const Rows& w) const {
  const auto bias = w_.bias.find(p);
  return context_.dev.linear(in_type(pieces_of(w), type_.value_or(DType::f32)),
                             bias == w_.bias.end() ? nullptr : &bias->second);
}

bool ModuleLoss::attends() const { return group_.consumers.front() == attention_input(w_.spec); }

bool ModuleLoss::reads(Role role) const { return std::ranges::count(group_.consumers, Param{role}) != 0; }

Tensor ModuleLoss::output(const Block& b) const {
  const Tensor& x = calibration_.sites.at(group_.consumers.front()).sample;
  context_.costs.search.operations += module_operations(w_.spec, group_.consumers.front().role, x.shape()[0]);
  if (context_.progress) context_.progress();
  Tensor y = context_.dev.empty({x.shape()[0], w_.spec.dim});
  if (reads(Role::up)) mlp_forward(context_.dev, b, x, y);
  if (!attends()) return y;
  Tensor mixed = attention(b, x);
  if (reads(Role::up)) context_.dev.add(y, 1, mixed);  // a parallel block adds both
  return mixed;
}

Tensor ModuleLoss::attention(const Block& b, const Tensor& x) const {
  Tensor y = context_.dev.empty({x.shape()[0], w_.spec.dim});
  std::vector<std::unique_ptr<KvCache>> caches;
  std::vector<Sequence> batch;
  for (int i = 0; i < calibration_.sample_sequences; ++i) {
    caches.push_back(context_.dev.kv_cache({&b.spec, 1}));
    batch.push_back({caches.back().get(), 0, calibration_.sequence_tokens});
  }
  attention_forward(context_.dev, b, batch, 0, x, y);
  return y;
}

}  // namespace awq
