// Linear layers with SiLU between them, then feature_map: in one kernel on GPUs when nothing has to be kept
// for backward, else as the products they are.
#include <algorithm>

#include "autograd/ops.h"
#include "autograd/run.h"
#include "autograd/tape.h"

namespace vkflux::op {
namespace {

constexpr uint32_t kLocal = 256, kColumns = 32, kStep = 16;  // kStep: BK of the shader

struct Tile {
  uint32_t tm, nv, wide4;
  uint32_t rows() const { return kLocal / kColumns * tm; }
  uint32_t shared_bytes() const { return 16 * (rows() * (wide4 + 1) + kStep * kColumns * nv); }
};

struct Sizes {
  int64_t d, width, features;
  int64_t widest_out() const { return std::max(width, features); }
};

/// The most rows that fit; tm = 0: none.
Tile tile_for(const Caps& caps, const Sizes& s) {
  const auto nv = static_cast<uint32_t>(ceil_div(static_cast<uint64_t>(s.widest_out()), 4 * kColumns));
  const auto wide4 = static_cast<uint32_t>(std::max(s.d, s.width) / 4);
  for (const uint32_t tm : {8u, 4u}) {
    const Tile t{tm, nv, wide4};
    if (tm * nv <= 16 && t.shared_bytes() <= caps.max_shared_memory) return t;  // 64 sums in registers
  }
  return {0, nv, wide4};
}

bool fused(Device& device, const std::vector<Tensor>& weights, const Sizes& s, Tile& tile) {
  const bool steps = s.d % kStep == 0 && s.width % kStep == 0 && s.features % kStep == 0;
  const bool f32 =
      std::all_of(weights.begin(), weights.end(), [](const Tensor& w) { return w.dtype() == DType::f32; });
  if (use_simd(device, "feature_network") || !steps || !f32 || weights.size() < 2 || weights.size() > 3 ||
      device.caps().max_invocations < kLocal) {
    return false;
  }
  tile = tile_for(device.caps(), s);
  return tile.tm != 0;
}

Tensor composed(const Tensor& x, const std::vector<Tensor>& weights, const std::vector<Tensor>& biases,
                bool normalise, float eps) {
  Tensor h = x;
  for (size_t i = 0; i < weights.size(); ++i)
    h = linear(h, weights[i], biases[i], i + 1 < weights.size() ? Activation::silu : Activation::none);
  return feature_map(h, normalise, eps);
}

}  // namespace

Tensor feature_network(const Tensor& x_in, const std::vector<Tensor>& weights,
                       const std::vector<Tensor>& biases, bool normalise, float eps) {
  expect("feature_network",
         x_in.defined() && x_in.dtype() == DType::f32 && x_in.rank() >= 1 && !weights.empty() &&
             weights.size() == biases.size(),
         "needs f32 x[..., D], and a bias for every weight", {&x_in});
  const bool taped =
      Tape::wants({&x_in}) || std::any_of(weights.begin(), weights.end(), [&](const Tensor& w) {
        return Tape::wants({&w, &biases[static_cast<size_t>(&w - weights.data())]});
      });
  const Sizes s{x_in.dim(-1), weights.front().dim(0), weights.back().dim(0)};
  Tile tile{};
  const bool in_one = !taped && x_in.numel() > 0 && fused(x_in.device(), weights, s, tile);
  if (!taped) took_variant("feature_network", in_one ? "gpu" : "simd");
  if (!in_one) return composed(x_in, weights, biases, normalise, eps);

  const Tensor x = contiguous(x_in);
  Shape shape = x.shape();
  shape[-1] = s.features;
  const Tensor y = Tensor::empty(x.device(), shape);
  const int64_t rows = x.numel() / s.d;
  double flops = 8 * static_cast<double>(s.features), bytes = 0;
  std::vector<Tensor> w, b;
  for (size_t i = 0; i < weights.size(); ++i) {
    expect("feature_network",
           weights[i].rank() == 2 && weights[i].dim(1) == (i ? s.width : s.d) &&
               (i + 1 == weights.size() || weights[i].dim(0) == s.width) &&
               biases[i].shape() == Shape{weights[i].dim(0)},
           "layers must fit together", {&x_in, &weights[i], &biases[i]});
    w.push_back(contiguous(weights[i]));
    b.push_back(contiguous(biases[i]));
    flops += 2 * static_cast<double>(weights[i].numel());
    bytes += 4 * static_cast<double>(weights[i].numel());
  }
  const double n = static_cast<double>(rows);
  run(x.device(),
      spec::FeatureNetwork{.LOCAL = kLocal,
                           .TX = kColumns,
                           .TM = tile.tm,
                           .NV = tile.nv,
                           .WIDE4 = tile.wide4,
                           .LAYERS = static_cast<uint32_t>(w.size()),
                           .NORM = normalise},
      {x, w[0], b[0], w[1], b[1], w.back(), b.back(), y},
      args::FeatureNetworkArgs{u32(rows), u32(s.d), u32(s.width), u32(s.features), eps},
      groups_1d(ceil_div(static_cast<uint64_t>(rows), tile.rows())),
      {n * flops, bytes + 4 * n * static_cast<double>(s.d + s.features)});
  return y;
}

}  // namespace vkflux::op
