// Codecs in tiles: where tiles lie, that blending a codec that works place by place changes nothing, and that
// an autoencoder's tiles come close to the whole.
#include "model/vae/tiling.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "autograd/ops.h"
#include "model/vae/codec.h"
#include "tests/harness/gpu.h"

namespace vkflux {
namespace {

using test::device;

TEST(Tiling, TilesCoverAnAxisEvenly) {
  EXPECT_EQ(tile_starts(64, 64, 0.25), std::vector<int64_t>{0});
  EXPECT_EQ(tile_starts(10, 64, 0.25), std::vector<int64_t>{0});
  EXPECT_EQ(tile_starts(128, 64, 0.25), (std::vector<int64_t>{0, 32, 64}));
  EXPECT_EQ(tile_starts(128, 64, 0), (std::vector<int64_t>{0, 64}));
  for (const int64_t cells : {9, 17, 65, 131, 200}) {
    for (const int64_t tile : {1, 2, 5, 8, 64}) {
      for (const double overlap : {0.0, 0.25, 0.5, 0.9}) {
        const std::vector<int64_t> starts = tile_starts(cells, tile, overlap);
        EXPECT_EQ(starts.front(), 0);
        EXPECT_EQ(starts.back(), std::max<int64_t>(cells - tile, 0));
        const auto shared = std::min<int64_t>(std::llround(static_cast<double>(tile) * overlap), tile - 1);
        for (size_t i = 1; i < starts.size(); ++i)
          EXPECT_LE(starts[i] - starts[i - 1], tile - shared) << cells << " " << tile << " " << overlap;
      }
    }
  }
}

/// Cells of `factor` x `factor` equal pixels.
class Blocks final : public LatentCodec {
 public:
  Tensor encode(const Tensor& x) const override { return x; }
  Tensor decode(const Tensor& z) const override {
    return op::nhwc_to_nchw(op::upsample_nearest2(op::nchw_to_nhwc(z)));
  }
};

TEST(Tiling, BlendingTilesOfAPlacewiseCodecIsTheWhole) {
  const auto codec = std::make_shared<Blocks>();
  const Tensor z = op::normal(device(), {2, 3, 13, 22}, 1, 0);
  const std::vector<float> whole = codec->decode(z).to_host();
  for (const Tiling t :
       {Tiling{4, 4, 0.25}, Tiling{5, 7, 0.5}, Tiling{13, 6, 0}, Tiling{0, 3, 0.9}, Tiling{1, 1, 0}}) {
    const Tensor y = tiled(codec, 2, t)->decode(z);
    ASSERT_EQ(y.shape(), (Shape{2, 3, 26, 44}));
    const std::vector<float> host = y.to_host();
    for (size_t i = 0; i < host.size(); ++i) ASSERT_NEAR(host[i], whole[i], 1e-5f) << i;
  }
}

TEST(Tiling, AnAutoencodersTilesComeCloseToTheWhole) {
  AutoencoderConfig config;
  config.latent_channels = 4;
  config.encoder_widths = config.decoder_widths = {8, 16};
  config.blocks = 1;
  config.groups = 4;
  const auto model = std::make_shared<AutoencoderKL>(config);
  const auto params = parameters(*model);
  allocate(params, device());
  initialise(params, autoencoder_init(), 4);
  const auto codec = std::make_shared<AutoencoderCodec>(model);
  const auto in_tiles = tiled(codec, 2, {24, 24, 0.5});
  const auto close = [](const Tensor& a, const Tensor& b) {
    ASSERT_EQ(a.shape(), b.shape());
    const std::vector<float> x = a.to_host(), y = b.to_host();
    double error = 0, power = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      error += (x[i] - y[i]) * (x[i] - y[i]);
      power += y[i] * y[i];
    }
    EXPECT_LT(error, 0.01 * power);
    EXPECT_GT(error, 0);
  };
  const Tensor z = op::normal(device(), {1, 4, 40, 32}, 1, 0);
  close(in_tiles->decode(z), codec->decode(z));
  const Tensor x = op::normal(device(), {1, 3, 80, 64}, 2, 0);
  close(in_tiles->encode(x), codec->encode(x));
  // What one tile covers is the codec's own answer.
  EXPECT_EQ(tiled(codec, 2, {40, 32, 0.5})->decode(z).to_host(), codec->decode(z).to_host());
}

}  // namespace
}  // namespace vkflux
