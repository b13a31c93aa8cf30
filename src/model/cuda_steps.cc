#include "model/cuda_steps.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace awq {
namespace {

constexpr size_t kAligned = 16, kLeastRoom = 16;

bool alike(const AttentionSpec& a, const AttentionSpec& b) {
  return a.heads == b.heads && a.kv_heads == b.kv_heads && a.window == b.window;
}

/// Calls f at the end, whatever happens before.
template <class F>
class AtEnd {
 public:
  explicit AtEnd(F f) : f_(std::move(f)) {}
  ~AtEnd() { f_(); }
  AtEnd(const AtEnd&) = delete;
  AtEnd& operator=(const AtEnd&) = delete;

 private:
  F f_;
};

}  // namespace

std::vector<CudaBatch> CudaStep::batches_of(Batch batch) const {
  std::vector<CudaBatch> all;
  for (const Attention& a : attention_) all.emplace_back(batch, a.spec);
  return all;
}

bool CudaStep::fit(const std::vector<CudaBatch>& batches) const {
  for (size_t i = 0; i < batches.size(); ++i)
    if (batches[i].pages.size() > attention_[i].pages || batches[i].units.size() > attention_[i].units) return false;
  return true;
}

/// For twice as many at most, so that a sequence that grows is seldom recorded again.
void CudaStep::make_room(const std::vector<CudaBatch>& batches) {
  for (size_t i = 0; i < batches.size(); ++i) {
    attention_[i].pages = std::bit_ceil(std::max(batches[i].pages.size(), kLeastRoom));
    attention_[i].units = std::bit_ceil(std::max(batches[i].units.size(), kLeastRoom));
  }
}

template <class T>
size_t CudaStep::add(std::span<const T> values, size_t room, T rest) {
  const size_t offset = host_.size();
  host_.resize(offset + (room * sizeof(T) + kAligned - 1) / kAligned * kAligned);
  for (size_t i = 0; i < room; ++i)
    std::memcpy(host_.data() + offset + i * sizeof(T), i < values.size() ? &values[i] : &rest, sizeof(T));
  return offset;
}

void CudaStep::pack(Batch batch, const std::vector<CudaBatch>& batches) {
  host_.clear();
  for (size_t i = 0; i < batches.size(); ++i) {
    const CudaBatch& b = batches[i];
    Attention& a = attention_[i];
    a.pages_at = add<uint8_t*>(b.pages, a.pages);
    a.sequences_at = add<cuda::KvSequence>(b.sequences, b.sequences.size());
    a.sequence_of_at = add<int32_t>(b.sequence_of, b.sequence_of.size());
    a.tiles_at = add<cuda::AttentionTile>(b.tiles, b.tiles.size());
    a.units_at = add<cuda::AttentionUnit>(b.units, a.units, {.tile = -1, .page = 0});
    a.tiles = int32_t(b.tiles.size());
    a.tokens = int32_t(b.sequence_of.size());
  }
  for (Turn& t : turned_) {
    const RopeTable& table = turns_.of(batch, t.frequencies).table;
    t.cosines_at = add<float>(table.cosines, table.cosines.size());
    t.sines_at = add<float>(table.sines, table.sines.size());
  }
}

std::optional<CudaTables> CudaStep::attention(const AttentionSpec& spec) {
  const auto known = std::ranges::find_if(attention_, [&](const Attention& a) { return alike(a.spec, spec); });
  if (!known_) {
    if (known == attention_.end()) attention_.push_back({.spec = spec});
    return std::nullopt;
  }
  const Attention& a = *known;
  return CudaTables{.pages = at<uint8_t*>(a.pages_at),
                    .sequences = at<cuda::KvSequence>(a.sequences_at),
                    .sequence_of = at<int32_t>(a.sequence_of_at),
                    .tiles = at<cuda::AttentionTile>(a.tiles_at),
                    .units = at<cuda::AttentionUnit>(a.units_at),
                    .tokens = a.tokens,
                    .tile_count = a.tiles,
                    .whole_count = 0,
                    .unit_count = int32_t(a.units)};
}

std::optional<CudaStep::Angles> CudaStep::angles(std::span<const float> frequencies) {
  const auto known =
      std::ranges::find_if(turned_, [&](const Turn& t) { return std::ranges::equal(t.frequencies, frequencies); });
  if (!known_) {
    if (known == turned_.end()) turned_.push_back({.frequencies = {frequencies.begin(), frequencies.end()}});
    return std::nullopt;
  }
  return Angles{at<float>(known->cosines_at), at<float>(known->sines_at)};
}

void CudaStep::record(const Tensor& x, const Pass& pass, const std::function<void(bool)>& enter) {
  CudaMemory& memory = *cuda_.memory;
  recording_.reset();
  result_ = {};
  kept_.clear();
  held_ = {};
  x_ = memory.kept(x.shape(), x.dtype());
  memory.device().begin_recording();
  memory.begin_hold();
  try {
    const AtEnd done([&] { enter(false); });
    enter(true);
    result_ = pass(x_);
    kept_ = {cuda_.counters, cuda_.slice, cuda_.parts};
    recording_ = memory.device().end_recording(true);
  } catch (...) {
    memory.device().end_recording(false);
    held_ = memory.end_hold();
    throw;
  }
  held_ = memory.end_hold();
}

Tensor CudaStep::run(Batch batch, const Tensor& x, const Pass& pass, const std::function<void(bool)>& enter) {
  if (!known_) {
    const AtEnd done([&] { enter(false); });
    enter(true);
    Tensor own = x, y = pass(own);
    known_ = true;
    return y;
  }
  const std::vector<CudaBatch> batches = batches_of(batch);
  const bool again = !recording_ || !fit(batches);
  if (again) make_room(batches);
  pack(batch, batches);
  if (again) tables_ = cuda_.memory->kept({int64_t(host_.size())}, DType::u8);
  cuda::Device& device = cuda_.memory->device();
  device.upload(tables_.data(), host_.data(), host_.size());
  if (again) record(x, pass, enter);
  device.copy(x_.data(), x.data(), x.bytes());
  recording_->replay();
  return result_;
}

CudaStep& CudaRecordings::of(int64_t sequences, int kind) {
  const auto found =
      std::ranges::find_if(entries_, [&](const Entry& e) { return e.sequences == sequences && e.kind == kind; });
  if (found != entries_.end()) {
    entries_.splice(entries_.begin(), entries_, found);
  } else {
    entries_.push_front({sequences, kind, std::make_unique<CudaStep>(cuda_, cuda_.pool)});
    if (entries_.size() > kMostRecordings) entries_.pop_back();
  }
  return *entries_.front().step;
}

}  // namespace awq
