// Reference pictures as FLUX.2 reads them: prepared to the bit as diffusers' pipeline does.
#include <gtest/gtest.h>
#include <zlib.h>

#include "autograd/ops.h"
#include "model/conditioning.h"
#include "model/io/json.h"
#include "tests/harness/expect_error.h"
#include "tests/harness/gpu.h"

namespace vkflux {
namespace {

using test::device;
using test::expect_error;

/// The picture of make_reference_vectors.py.
RgbImage picture(int64_t width, int64_t height) {
  RgbImage out{width, height, {}};
  for (int64_t y = 0; y < height; ++y) {
    for (int64_t x = 0; x < width; ++x) {
      out.rgb.push_back(static_cast<uint8_t>((7 * x + 3 * y) % 256));
      out.rgb.push_back(static_cast<uint8_t>(x * y % 251));
      const bool bright = (x + y) % 2 == 1 && y >= height / 2;
      out.rgb.push_back(static_cast<uint8_t>(bright ? 255 : (x * x + 5 * y) / 16 % 256));
    }
  }
  return out;
}

ModelInfo flux2(int64_t unit) {
  ModelInfo m;
  m.layout.geometry = {3, 1};
  m.pixels_per_cell = unit;
  m.references = true;
  m.reference_rule = ReferenceRule::capped_area;
  return m;
}

/// A codec that keeps the pictures it gets.
class Recorder final : public LatentCodec {
 public:
  explicit Recorder(int64_t cell) : cell_(cell) {}
  Tensor encode(const Tensor& x) const override {
    seen.push_back(to_pictures(x).front());
    return Tensor::zeros(device(), {x.dim(0), 3, x.dim(2) / cell_, x.dim(3) / cell_});
  }
  Tensor decode(const Tensor& x) const override { return x; }

  mutable std::vector<RgbImage> seen;

 private:
  int64_t cell_;
};

TEST(References, AreThoseOfDiffusers) {
  const std::string path = std::string(VKFLUX_SOURCE_DIR) + "/tests/data/flux2/references.json";
  for (const io::Json& one : io::read_json(path)) {
    SCOPED_TRACE(one.dump());
    const int64_t unit = one["unit"];
    const ModelInfo m = flux2(unit);
    PictureRequest request;
    for (const io::Json& size : one["in"]) request.references.push_back(picture(size[0], size[1]));
    std::vector<std::string> notes;
    if (one.contains("error")) {
      expect_error(ErrorCode::invalid_argument, {"reference picture"},
                   [&] { check_pictures(m, request, {}, notes); });
      continue;
    }
    check_pictures(m, request, {}, notes);
    EXPECT_TRUE(notes.empty());
    const auto drawn = size_from_references(m, request);
    ASSERT_TRUE(drawn);
    EXPECT_EQ(io::Json({drawn->width, drawn->height}), one["drawn"]);
    const auto codec = std::make_shared<Recorder>(unit);
    const PictureInputs inputs = encode_pictures(device(), m, request, 64, 64, [&] { return codec; });
    int64_t tokens = 0;
    ASSERT_EQ(inputs.references.size(), request.references.size());
    for (size_t i = 0; i < request.references.size(); ++i) {
      const RgbImage& got = codec->seen.at(i);
      EXPECT_EQ(io::Json({got.width, got.height}), one["out"][i]);
      EXPECT_EQ(crc32(0, got.rgb.data(), static_cast<uInt>(got.rgb.size())), one["crc"][i]);
      const ReferenceGrid& g = inputs.references[i];
      EXPECT_EQ(io::Json({g.columns * unit, g.rows * unit}), one["out"][i]);
      EXPECT_EQ(io::Json({g.index, g.row, g.column}), io::Json({one["t"][i], 0, 0}));
      tokens += g.tokens();
    }
    EXPECT_EQ(inputs.condition[kReferenceTokens].shape(), (Shape{1, tokens, 3}));
  }
}

TEST(References, InTheirOwnSizeAreOnlyCut) {
  const ModelInfo m = flux2(16);
  const RgbImage image = picture(1500, 1000), got = prepared_reference(m, image, false);
  ASSERT_EQ(got.width, 1488);
  ASSERT_EQ(got.height, 992);
  // The first pixel lies 6 to the right and 4 below.
  for (size_t c = 0; c < 3; ++c) EXPECT_EQ(got.rgb[c], image.rgb[3 * (4 * 1500 + 6) + c]);
}

TEST(References, OfKontextLeaveTheSizeAlone) {
  ModelInfo kontext = flux2(16);
  kontext.reference_rule = ReferenceRule::trained_sizes;
  PictureRequest request;
  EXPECT_FALSE(size_from_references(kontext, request));
  EXPECT_FALSE(size_from_references(flux2(16), request));
  request.references.push_back(picture(64, 64));
  EXPECT_FALSE(size_from_references(kontext, request));
  request.references[0].rgb.pop_back();
  expect_error(ErrorCode::invalid_argument, {"reference picture"},
               [&] { size_from_references(flux2(16), request); });
}

}  // namespace
}  // namespace vkflux
