#include "bench/random_model.h"

#include <cmath>

#include "base/numeric.h"
#include "formats/params.h"

namespace awq {
namespace {

// SplitMix64 of a counter: any element can be had without those before it.
uint64_t mixed(uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

class RandomModel final : public Checkpoint {
 public:
  RandomModel(const nlohmann::json& config, const MatrixType& matrices, const std::optional<QuantSpec>& head,
              uint64_t seed, ThreadPool& pool)
      : config_(config),
        spec_(find_architecture(config.at("architectures").at(0).get<std::string>()).parse(config)),
        matrices_(matrices),
        head_(head),
        seed_(seed),
        pool_(pool) {
    if (head_) config_["tie_word_embeddings"] = spec_.tied_embeddings = false;
  }
  std::string_view format() const override { return "random"; }
  const nlohmann::json& config() const override { return config_; }
  const ModelSpec& spec() const override { return spec_; }
  std::string described_in() const override { return "the shape's config.json"; }
  std::vector<TensorInfo> tensors() const override { return {}; }
  std::vector<SideFile> side_files() const override { return {}; }

  Weight weight(int block, Param p) const override {
    if (p.role == Role::head && head_) return matrix(key(block, p), {spec_.vocab, spec_.dim}, *head_);
    if (block < 0 && !is_norm(p.role)) return floats(key(block, p), shape_of(spec_, block, p), DType::bf16);
    if (is_norm(p.role)) return gains(block, p);
    const auto [rows, cols] = spec_.blocks.at(size_t(block)).shape(p);
    if (stays_float(p.role)) return floats(key(block, p), {rows, cols}, DType::bf16);
    if (const auto* type = std::get_if<DType>(&matrices_)) return floats(key(block, p), {rows, cols}, *type);
    return matrix(key(block, p), {rows, cols}, std::get<QuantSpec>(matrices_));
  }
  Tensor bias(int block, Param p) const override { return Tensor::zeros({shape_of(spec_, block, p)[0]}, DType::f32); }

 private:
  uint64_t key(int block, Param p) const {
    return mixed(mixed(seed_) + uint64_t(block + 1) * 256 + uint64_t(p.role) + (uint64_t(p.expert) << 32));
  }

  // A norm's factor is 1: what is stored is 1 less where the family adds it.
  Tensor gains(int block, Param p) const {
    const NormSpec norm = block < 0 ? spec_.final_norm : spec_.blocks.at(size_t(block)).norm_of(p.role);
    Tensor t = Tensor::empty(shape_of(spec_, block, p), DType::f32);
    std::fill(t.as<float>().begin(), t.as<float>().end(), 1 - norm.gain_offset);
    return t;
  }

  // Uniform with variance 1 / columns, rounded to bf16: logits of a normalised state have variance 1.
  Tensor floats(uint64_t key, Shape shape, DType type) const {
    Tensor t = Tensor::empty(shape, DType::bf16);
    auto* out = reinterpret_cast<uint16_t*>(t.data());
    const float step = std::sqrt(3.f / float(shape[1])) / 32768;
    pool_.run(shape.elements(), 4, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i += 4) {
        uint64_t r = mixed(key + uint64_t(i));
        for (int64_t j = i; j < std::min(i + 4, end); ++j, r >>= 16)
          out[j] = f32_to_bf16((float(r & 0xffff) - 32767.5f) * step);
      }
    });
    return t.to(type);
  }

  // Codes are uniform, zero points just below or above the middle, scales within a quarter of what gives variance
  // 1 / cols: code - zero has variance (levels (levels + 2) + 3) / 12, 21.5 for 4 bits.
  QMatrix matrix(uint64_t key, Shape shape, const QuantSpec& spec) const {
    QMatrix q = QMatrix::empty(shape, spec);
    const int levels = spec.levels(), group = spec.group_size, some = 64 / spec.bits;
    const float scale = 1 / std::sqrt(float(levels * (levels + 2) + 3) / 12 * float(q.cols()));
    pool_.run(q.rows() * q.groups(), 1, [&](int64_t begin, int64_t end) {
      for (int64_t g = begin; g < end; ++g) {
        const uint64_t r = mixed(~key + uint64_t(g));
        q.zeros.as<uint8_t>()[size_t(g)] = uint8_t(levels / 2 + int(r & 1));
        q.scales.as<float>()[size_t(g)] = f16_to_f32(f32_to_f16(scale * (0.75f + float(r >> 48) * 0x1p-17f)));
        uint8_t* codes = q.codes.as<uint8_t>().data() + g * group;
        for (int64_t i = 0; i < group; i += some)
          for (uint64_t j = 0, word = mixed(key + uint64_t(g * group + i)); j < uint64_t(some); ++j, word >>= spec.bits)
            codes[i + int64_t(j)] = uint8_t(word & uint64_t(levels));
      }
    });
    return q;
  }

  nlohmann::json config_;
  ModelSpec spec_;
  MatrixType matrices_;
  std::optional<QuantSpec> head_;
  uint64_t seed_;
  ThreadPool& pool_;
};

class FirstBlocks final : public Checkpoint {
 public:
  FirstBlocks(const Checkpoint& model, int blocks) : model_(model), spec_(model.spec()) {
    spec_.blocks.resize(size_t(blocks));
  }
  std::string_view format() const override { return model_.format(); }
  const nlohmann::json& config() const override { return model_.config(); }
  const ModelSpec& spec() const override { return spec_; }
  std::string described_in() const override { return model_.described_in(); }
  std::vector<TensorInfo> tensors() const override { return model_.tensors(); }
  std::vector<SideFile> side_files() const override { return model_.side_files(); }
  Weight weight(int block, Param p) const override { return model_.weight(block, p); }
  Pieces pieces(int block, Param p) const override { return model_.pieces(block, p); }
  Tensor bias(int block, Param p) const override { return model_.bias(block, p); }

 private:
  const Checkpoint& model_;
  ModelSpec spec_;
};

}  // namespace

std::unique_ptr<Checkpoint> random_model(const nlohmann::json& config, const MatrixType& matrices,
                                         const std::optional<QuantSpec>& head, uint64_t seed, ThreadPool& pool) {
  return std::make_unique<RandomModel>(config, matrices, head, seed, pool);
}

std::unique_ptr<Checkpoint> first_blocks(const Checkpoint& model, int blocks) {
  return std::make_unique<FirstBlocks>(model, blocks);
}

}  // namespace awq
