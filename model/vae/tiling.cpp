#include "model/vae/tiling.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <utility>

#include "autograd/ops.h"
#include "vk/interrupt.h"

namespace vkflux {
namespace {

/// One axis: tiles in cells, places in what is blended (`scale` of them for a cell).
struct Axis {
  int64_t cells, tile, scale;
  std::vector<int64_t> starts;

  Axis(int64_t n, int64_t wanted, double overlap, int64_t factor)
      : cells(n),
        tile(wanted > 0 ? std::min(wanted, n) : n),
        scale(factor),
        starts(tile_starts(n, tile, overlap)) {}
  int64_t places() const { return cells * scale; }
  int64_t tile_places() const { return tile * scale; }
  /// Of tile i at its place p: ramps over what it shares with its neighbours.
  float weight(size_t i, int64_t p) const {
    float w = 1;
    if (i > 0) w = std::min(w, ramp(p, starts[i - 1] + tile - starts[i]));
    if (i + 1 < starts.size()) w = std::min(w, ramp(tile_places() - 1 - p, starts[i] + tile - starts[i + 1]));
    return w;
  }

 private:
  float ramp(int64_t p, int64_t shared) const {
    const int64_t n = shared * scale;
    return n <= 0 ? 1 : std::min(1.0f, static_cast<float>(p + 1) / static_cast<float>(n + 1));
  }
};

/// Adds up tiles on the host, each with its weights.
class Blend {
 public:
  Blend(const Axis& y, const Axis& x)
      : y_(y), x_(x), weights_(static_cast<size_t>(y.places() * x.places())) {}

  void add(const Tensor& tile, size_t row, size_t column) {
    const std::vector<float> host = tile.to_host();
    planes_ = tile.dim(0) * tile.dim(1);
    lead_ = {tile.dim(0), tile.dim(1)};
    const auto plane = weights_.size();
    sum_.resize(static_cast<size_t>(planes_) * plane);
    const int64_t h = y_.tile_places(), w = x_.tile_places();
    const int64_t top = y_.starts[row] * y_.scale, left = x_.starts[column] * x_.scale;
    for (int64_t r = 0; r < h; ++r) {
      for (int64_t c = 0; c < w; ++c) {
        const float share = y_.weight(row, r) * x_.weight(column, c);
        const auto at = static_cast<size_t>((top + r) * x_.places() + left + c);
        weights_[at] += share;
        for (int64_t p = 0; p < planes_; ++p)
          sum_[static_cast<size_t>(p) * plane + at] += share * host[static_cast<size_t>((p * h + r) * w + c)];
      }
    }
  }
  Tensor result(Device& device) const {
    std::vector<float> out(sum_.size());
    for (size_t i = 0; i < out.size(); ++i) out[i] = sum_[i] / weights_[i % weights_.size()];
    return Tensor::from(device, std::span<const float>(out),
                        {lead_.first, lead_.second, y_.places(), x_.places()});
  }

 private:
  const Axis &y_, &x_;
  int64_t planes_ = 0;
  std::pair<int64_t, int64_t> lead_;
  std::vector<float> sum_, weights_;
};

class TiledCodec final : public LatentCodec {
 public:
  TiledCodec(std::shared_ptr<LatentCodec> codec, int64_t factor, const Tiling& tiling)
      : codec_(std::move(codec)), factor_(factor), tiling_(tiling) {}

  Tensor encode(const Tensor& x) const override {
    return run(x, x.dim(2) / factor_, x.dim(3) / factor_, factor_, 1,
               [&](const Tensor& tile) { return codec_->encode(tile); });
  }
  Tensor decode(const Tensor& latent) const override {
    return run(latent, latent.dim(2), latent.dim(3), 1, factor_,
               [&](const Tensor& tile) { return codec_->decode(tile); });
  }

 private:
  /// from, to: places of a cell in what the codec reads and gives.
  Tensor run(const Tensor& in, int64_t rows, int64_t columns, int64_t from, int64_t to,
             const std::function<Tensor(const Tensor&)>& work) const {
    const Axis y(rows, tiling_.rows, tiling_.overlap, to), x(columns, tiling_.columns, tiling_.overlap, to);
    if (y.starts.size() * x.starts.size() == 1) return work(in);
    const auto tile = [&](size_t r, size_t c) {
      const Tensor row = op::narrow(in, 2, y.starts[r] * from, y.tile * from);
      return work(op::contiguous(op::narrow(row, 3, x.starts[c] * from, x.tile * from)));
    };
    if (in.device().rehearsing()) {  // all take the same memory
      const Tensor one = tile(0, 0);
      return Tensor::empty(in.device(), {one.dim(0), one.dim(1), y.places(), x.places()});
    }
    Blend blend(y, x);
    for (size_t r = 0; r < y.starts.size(); ++r) {
      for (size_t c = 0; c < x.starts.size(); ++c) {
        check_interrupted("the autoencoder");
        blend.add(tile(r, c), r, c);
      }
    }
    return blend.result(in.device());
  }

  std::shared_ptr<LatentCodec> codec_;
  int64_t factor_;
  Tiling tiling_;
};

}  // namespace

std::vector<int64_t> tile_starts(int64_t cells, int64_t tile, double overlap) {
  if (tile >= cells) return {0};
  const auto shared = std::clamp<int64_t>(std::llround(static_cast<double>(tile) * overlap), 0, tile - 1);
  const int64_t step = tile - shared, n = (cells - tile + step - 1) / step + 1;
  std::vector<int64_t> out;
  for (int64_t i = 0; i < n; ++i) out.push_back(i * (cells - tile) / (n - 1));
  return out;
}

std::shared_ptr<LatentCodec> tiled(std::shared_ptr<LatentCodec> codec, int64_t factor, const Tiling& tiling) {
  if (!tiling.on()) return codec;
  return std::make_shared<TiledCodec>(std::move(codec), factor, tiling);
}

}  // namespace vkflux
