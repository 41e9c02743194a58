#include "model/rgb_image.h"

#include <algorithm>
#include <cmath>

#include "model/io/resample.h"
#include "vk/error.h"

namespace vkflux {

io::Image8 to_image8(const RgbImage& image) {
  io::Image8 out{static_cast<int>(image.width), static_cast<int>(image.height), {}};
  out.rgba.reserve(image.rgb.size() / 3 * 4);
  for (size_t i = 0; i < image.rgb.size(); i += 3) {
    out.rgba.insert(out.rgba.end(), {image.rgb[i], image.rgb[i + 1], image.rgb[i + 2], 255});
  }
  return out;
}

RgbImage on_white(const io::Image8& image) {
  RgbImage out{image.width, image.height, {}};
  out.rgb.reserve(image.rgba.size() / 4 * 3);
  for (size_t i = 0; i < image.rgba.size(); i += 4) {
    const int alpha = image.rgba[i + 3];
    for (size_t c = 0; c < 3; ++c)
      out.rgb.push_back(static_cast<uint8_t>((image.rgba[i + c] * alpha + 255 * (255 - alpha) + 127) / 255));
  }
  return out;
}

RgbImage in_size(const RgbImage& image, int64_t width, int64_t height, Fit fit) {
  io::Samples8 samples{static_cast<int>(image.width), static_cast<int>(image.height), 3, image.rgb};
  samples =
      fit == Fit::crop
          ? io::covering(samples, static_cast<int>(width), static_cast<int>(height), io::Filter::lanczos)
          : io::resampled(samples, static_cast<int>(width), static_cast<int>(height), io::Filter::lanczos);
  return {width, height, std::move(samples.data)};
}

std::vector<RgbImage> to_pictures(const Tensor& x) {
  const std::vector<float> host = x.to_host();
  const int64_t height = x.dim(2), width = x.dim(3);
  const auto plane = static_cast<size_t>(height * width);
  std::vector<RgbImage> out(static_cast<size_t>(x.dim(0)), {width, height, std::vector<uint8_t>(plane * 3)});
  for (size_t b = 0; b < out.size(); ++b) {
    for (size_t i = 0; i < plane; ++i) {
      for (size_t c = 0; c < 3; ++c) {
        const float v = host[(b * 3 + c) * plane + i];
        if (!std::isfinite(v)) {
          throw Error(ErrorCode::verification_failed,
                      "the decoded picture isn't finite although its latent is: the autoencoder's weights "
                      "are damaged");
        }
        out[b].rgb[i * 3 + c] = static_cast<uint8_t>(std::lround((std::clamp(v, -1.0f, 1.0f) + 1) * 127.5f));
      }
    }
  }
  return out;
}

}  // namespace vkflux
