#include "formats/fingerprint.h"

#include "base/sha256.h"
#include "formats/load.h"
#include "formats/params.h"

namespace awq {
namespace {

Tensor first_row(const Checkpoint& model, int block, Param p) {
  const Pieces pieces = load_float_pieces(model, block, p);
  return std::get<Tensor>(pieces.read(0).weight).rows(0, 1);
}

Tensor norm(const Checkpoint& model, int block, Param p) {
  return std::get<Tensor>(model.weight(block, p)).to(DType::f32);
}

}  // namespace

std::string fingerprint(const Checkpoint& model) {
  const ModelSpec& spec = model.spec();
  Sha256 hash;
  hash.add(fmt::format("{} {} {} {}\n", spec.arch, spec.dim, spec.vocab, spec.blocks.size()));
  for (int i = 0; i < int(spec.blocks.size()); ++i)
    for (Param p : spec.blocks[size_t(i)].params()) {
      hash.add(fmt::format("{} {}\n", base_name(spec, i, p), shape_of(spec, i, p).text()));
      const Tensor part = is_norm(p.role) ? norm(model, i, p) : first_row(model, i, p);
      hash.add({part.data(), part.bytes()});
    }
  return hash.hex();
}

}  // namespace awq
