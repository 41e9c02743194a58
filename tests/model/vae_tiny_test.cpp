// Tiny autoencoders against diffusers' AutoencoderTiny, under every name they have, and the linear preview.
#include "model/vae/tiny.h"

#include <gtest/gtest.h>

#include "model/io/safetensors.h"
#include "model/latent_preview.h"
#include "tests/harness/expect_error.h"
#include "tests/harness/gpu.h"
#include "tests/harness/temp_folder.h"
#include "vk/error.h"

namespace vkflux {
namespace {

using test::device;
using test::expect_error;

const std::string kFolder = std::string(VKFLUX_SOURCE_DIR) + "/tests/data/edit/taesd";

Tensor vector(const std::string& name) {
  const io::SafetensorsFile file(kFolder + "/vectors.safetensors");
  const std::vector<float> values = file.read_f32(name);
  const std::vector<int64_t>& shape = file.info(name).shape;
  return Tensor::from(device(), std::span<const float>(values), Shape(std::span<const int64_t>(shape)));
}

double distance(const Tensor& a, const Tensor& b) {
  EXPECT_EQ(a.shape(), b.shape());
  const std::vector<float> x = a.to_host(), y = b.to_host();
  double most = 0;
  for (size_t i = 0; i < x.size(); ++i) most = std::max(most, std::abs(static_cast<double>(x[i]) - y[i]));
  return most;
}

/// The file with other names.
std::string renamed(const test::TempFolder& folder,
                    const std::function<std::string(const std::string&)>& name) {
  const io::SafetensorsFile file(kFolder + "/diffusion_pytorch_model.safetensors");
  std::vector<io::TensorData> out;
  for (const auto& [ours, info] : file.tensors()) {
    const std::string theirs = name(ours);
    if (!theirs.empty()) out.push_back({theirs, info.dtype, info.shape, file.read_bytes(ours)});
  }
  const std::string path = folder.file("tiny.safetensors");
  io::write_safetensors(path, out);
  return path;
}

/// "decoder.layers.3.weight" with another prefix, and the decoder's numbers one higher where `shift`.
std::string original(const std::string& name, const std::string& decoder, const std::string& encoder) {
  const bool decodes = name.starts_with("decoder.layers.");
  const std::string rest = name.substr(std::string("decoder.layers.").size());
  const size_t dot = rest.find('.');
  const int place = std::stoi(rest.substr(0, dot)) + (decodes ? 1 : 0);
  const std::string& prefix = decodes ? decoder : encoder;
  return prefix == "-" ? "" : prefix + std::to_string(place) + rest.substr(dot);
}

TEST(TinyCodec, IsDiffusers) {
  const auto codec = load_tiny_codec(device(), kFolder, 4, 2);
  EXPECT_LT(distance(codec->decode(vector("z")), vector("decoded")), 2e-5);
  EXPECT_LT(distance(codec->encode(vector("x")), vector("encoded")), 2e-5);
}

TEST(TinyCodec, EveryNameOfItsTensors) {
  const test::TempFolder folder;
  const Tensor z = vector("z"), decoded = vector("decoded");
  for (const auto& [decoder, encoder] :
       {std::pair<std::string, std::string>{"taesd_decoder.", "taesd_encoder."}, {"decoder.", "encoder."}}) {
    const auto codec = load_tiny_codec(
        device(), renamed(folder, [&](const std::string& n) { return original(n, decoder, encoder); }), 4, 2);
    EXPECT_LT(distance(codec->decode(z), decoded), 2e-5) << decoder;
    EXPECT_LT(distance(codec->encode(vector("x")), vector("encoded")), 2e-5) << encoder;
  }
  const auto alone = load_tiny_codec(
      device(), renamed(folder, [&](const std::string& n) { return original(n, "", "-"); }), 4, 2);
  EXPECT_LT(distance(alone->decode(z), decoded), 2e-5);
  expect_error(ErrorCode::unsupported, {"decoder only"}, [&] { alone->encode(vector("x")); });
}

TEST(TinyCodec, RefusesOthers) {
  expect_error(ErrorCode::format, {"latent channels", "4", "16"},
               [] { load_tiny_codec(device(), kFolder, 16, 2); });
  expect_error(ErrorCode::format, {"cell", "8"}, [] { load_tiny_codec(device(), kFolder, 4, 8); });
  const test::TempFolder folder;
  const auto broken = [&](ErrorCode code, const std::vector<std::string>& words, const auto& name) {
    expect_error(code, words, [&] { load_tiny_codec(device(), renamed(folder, name), 4, 2); });
  };
  broken(ErrorCode::format, {"no tiny autoencoder"}, [](const std::string& n) { return "unet." + n; });
  broken(ErrorCode::format, {"conv.2.weight"},
         [](const std::string& n) { return n == "decoder.layers.2.conv.2.weight" ? std::string() : n; });
  broken(ErrorCode::format, {"number of a layer"}, [](const std::string& n) {
    return n == "decoder.layers.2.conv.2.weight" ? std::string("decoder.layers.x.weight") : n;
  });
  broken(ErrorCode::format, {"decoder.layers.0"},
         [](const std::string& n) { return n.starts_with("decoder.layers.0.") ? std::string() : n; });
}

TEST(LinearPreview, FindsALinearCodec) {
  // A codec whose latents are mixtures of the mean colours: the map back is exact.
  class Mixing final : public LatentCodec {
   public:
    Tensor encode(const Tensor& x) const override {
      const std::vector<float> host = x.to_host();
      const auto side = static_cast<size_t>(x.dim(2)), cells = side / 2;
      std::vector<float> out(4 * cells * cells);
      for (size_t y = 0; y < side; ++y) {
        for (size_t xx = 0; xx < side; ++xx) {
          const size_t cell = y / 2 * cells + xx / 2;
          for (size_t k = 0; k < 4; ++k) {
            const size_t c = k % 3;
            out[k * cells * cells + cell] +=
                (k == 3 ? 0.5f : 1.0f) * host[(c * side + y) * side + xx] / 4 + 0.025f;
          }
        }
      }
      const auto n = static_cast<int64_t>(cells);
      return Tensor::from(device(), std::span<const float>(out), {1, 4, n, n});
    }
    Tensor decode(const Tensor& x) const override { return x; }
  };
  const LinearPreview preview = LinearPreview::fit(device(), Mixing(), 4, 2);
  EXPECT_LT(preview.error(), 0.01);
  // Colour (1, 0, -1) as that codec would have it.
  const std::vector<float> latent{1.1f, 0.1f, -0.9f, 0.6f};
  const auto pictures = preview.draw(Tensor::from(device(), std::span<const float>(latent), {1, 4, 1, 1}));
  ASSERT_EQ(pictures.size(), 1u);
  ASSERT_EQ(pictures[0].rgb.size(), 12u);
  for (size_t i = 0; i < 12; ++i) EXPECT_NEAR(pictures[0].rgb[i], i % 3 == 0 ? 255 : i % 3 == 1 ? 128 : 0, 3);
}

}  // namespace
}  // namespace vkflux
