// Tiny autoencoders against diffusers' AutoencoderTiny, under every name they have, and the linear preview.
#include "model/vae/tiny.h"

#include <gtest/gtest.h>

#include "autograd/tape.h"
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

/// TAEF2 with random weights, and what a reference in PyTorch makes of them.
class Taef2 : public testing::Test {
 protected:
  const io::SafetensorsFile file_{std::string(VKFLUX_SOURCE_DIR) + "/tests/data/flux2/taef2.safetensors"};
  const test::TempFolder folder_;

  Tensor vector(const std::string& name) const {
    const std::vector<float> values = file_.read_f32(name);
    return Tensor::from(device(), std::span<const float>(values),
                        Shape(std::span<const int64_t>(file_.info(name).shape)));
  }
  std::string weights(const std::function<std::string(const std::string&)>& name) const {
    std::vector<io::TensorData> out;
    for (const auto& [key, info] : file_.tensors()) {
      const std::string theirs = key.starts_with("w.") ? name(key.substr(2)) : "";
      if (!theirs.empty()) out.push_back({theirs, info.dtype, info.shape, file_.read_bytes(key)});
    }
    const std::string path = folder_.file("taef2.safetensors");
    io::write_safetensors(path, out);
    return path;
  }
};

TEST_F(Taef2, FoldsItsLatentsAndPools) {
  for (const auto& [decoder, encoder] :
       {std::pair<std::string, std::string>{"decoder.layers.", "encoder.layers."},
        {"taesd_decoder.", "taesd_encoder."}}) {
    const std::string path = weights([&, d = decoder, e = encoder](const std::string& n) {
      return d == "decoder.layers." ? n : original(n, d, e);
    });
    const auto codec = load_tiny_codec(device(), path, 12, 4);
    const Tensor latent = vector("in.latent"), image = vector("in.image");
    Tape tape;
    tape.watch(latent);
    tape.watch(image);
    Tensor decoded, encoded;
    {
      const auto scope = tape.record();
      decoded = codec->decode(latent);
      encoded = codec->encode(image);
    }
    EXPECT_LT(distance(decoded, vector("out.image")), 2e-5);
    EXPECT_LT(distance(encoded, vector("out.latent")), 2e-5);
    Grads grads;
    tape.backward({{decoded, vector("in.cot.image")}, {encoded, vector("in.cot.latent")}}, grads);
    EXPECT_LT(distance(grads.of(latent), vector("grad.in.latent")), 1e-4);
    EXPECT_LT(distance(grads.of(image), vector("grad.in.image")), 1e-4);
  }
}

TEST_F(Taef2, RefusesWhatDoesNotFit) {
  const auto same = [](const std::string& n) { return n; };
  expect_error(ErrorCode::format, {"latent channels", "3", "16"},
               [&] { load_tiny_codec(device(), weights(same), 16, 4); });
  expect_error(ErrorCode::format, {"latent channels", "3", "12"},
               [&] { load_tiny_codec(device(), weights(same), 12, 8); });
  for (const char* part : {"pool.1.weight", "pool.1.bias", "pool.3.weight"})
    expect_error(ErrorCode::format, {"decoder.layers.2.", part}, [&, p = std::string(part)] {
      load_tiny_codec(device(), weights([&](const std::string& n) {
                        return n == "decoder.layers.2." + p ? std::string() : n;
                      }),
                      12, 4);
    });
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
