#include "model/sampler/step_noise.h"

#include <algorithm>

#include "autograd/ops.h"

namespace vkflux {
namespace {

constexpr int64_t kBlockBytes = 64 << 20;  // of steps whose noise is made and uploaded together
constexpr int64_t kFill = 16;              // values that PyTorch's generator fills at once

class HostNoise {
 public:
  HostNoise(Device& device, std::vector<uint64_t> seeds, Shape shape, NoiseMode mode, int64_t steps)
      : device_(device), seeds_(std::move(seeds)), shape_(std::move(shape)), mode_(mode), steps_(steps) {
    const int64_t bytes = shape_.numel() * static_cast<int64_t>(seeds_.size()) * 4;
    together_ = std::clamp<int64_t>(kBlockBytes / std::max<int64_t>(bytes, 1), 1, steps);
  }

  Tensor of(int64_t step) {
    if (!block_.defined() || step < first_ || step >= first_ + block_.dim(0))
      fill(step / together_ * together_);
    Shape one{static_cast<int64_t>(seeds_.size())};
    for (const int64_t d : shape_) one.push_back(d);
    return op::reshape(op::narrow(block_, 0, step - first_, 1), one);
  }

 private:
  void fill(int64_t first) {
    const int64_t n = std::min(together_, steps_ - first), one = shape_.numel(),
                  stride = (one + kFill - 1) / kFill * kFill;
    const auto images = static_cast<int64_t>(seeds_.size());
    std::vector<float> host(static_cast<size_t>(n * images * one));
    for (int64_t b = 0; b < images; ++b) {
      const uint64_t seed = seeds_[static_cast<size_t>(b)];
      std::vector<float> all;
      if (mode_ == NoiseMode::mersenne)
        all = mersenne_normal(seed + 1, static_cast<size_t>((first + n) * stride));
      for (int64_t k = 0; k < n; ++k) {
        float* to = host.data() + (k * images + b) * one;
        if (mode_ == NoiseMode::mersenne) {
          std::copy_n(all.data() + (first + k) * stride, one, to);
        } else {
          const auto values =
              philox_normal(seed, static_cast<size_t>(one), static_cast<uint32_t>(first + k + 1));
          std::copy_n(values.data(), one, to);
        }
      }
    }
    block_ = Tensor::from(device_, std::span<const float>(host), {n, images, one});
    first_ = first;
  }

  Device& device_;
  std::vector<uint64_t> seeds_;
  Shape shape_;
  NoiseMode mode_;
  int64_t steps_, together_ = 1, first_ = 0;
  Tensor block_;  // [steps, seeds, values]
};

}  // namespace

Solver::Noise step_noise(Device& device, std::vector<uint64_t> seeds, Shape shape, NoiseMode mode,
                         int64_t steps) {
  if (mode != NoiseMode::counter) {
    const auto host = std::make_shared<HostNoise>(device, std::move(seeds), std::move(shape), mode, steps);
    return [host](int64_t step) { return host->of(step); };
  }
  Shape one{1};
  for (const int64_t d : shape) one.push_back(d);
  return [&device, seeds = std::move(seeds), one](int64_t step) {
    std::vector<Tensor> images;
    for (const uint64_t s : seeds)
      images.push_back(op::normal(device, one, s, static_cast<uint64_t>(step) + 1));
    return images.size() == 1 ? images[0] : op::concat(images, 0);
  };
}

}  // namespace vkflux
