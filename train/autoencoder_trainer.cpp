#include "train/autoencoder_trainer.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "autograd/ops.h"
#include "autograd/tape.h"
#include "vk/error.h"
#include "vk/interrupt.h"

namespace vkflux {
namespace {

enum Stream : uint32_t { kChoice = 1, kAugment = 2, kPosterior = 3 };
constexpr size_t kEvalBatch = 16;

Tensor difference_l1(const Tensor& x, const Tensor& y, int dim) {
  const int64_t n = x.dim(dim) - 1;
  const Tensor d = op::sub(x, y);
  return op::l1(op::narrow(d, dim, 1, n), op::narrow(d, dim, 0, n));
}

// Calls fn(indices of a chunk, pictures of the chunk).
template <class F>
void in_chunks(Device& device, const Dataset& data, const std::vector<size_t>& indices, int size, F fn) {
  for (size_t at = 0; at < indices.size(); at += kEvalBatch) {
    check_interrupted("reading the pictures");
    const std::vector<size_t> part(
        indices.begin() + static_cast<ptrdiff_t>(at),
        indices.begin() + static_cast<ptrdiff_t>(std::min(at + kEvalBatch, indices.size())));
    fn(part, pictures(device, data, part, size));
  }
}

}  // namespace

AutoencoderTrainer::AutoencoderTrainer(Device& device, AutoencoderKL& model, const Dataset& data,
                                       const AutoencoderTrainOptions& options)
    : Trainer(device, options.train), model_(model), ae_(options) {
  for (size_t i : data.split(options.split)) {
    check_interrupted("reading the pictures");
    images_.push_back(data.image(i, options.size));
  }
  if (images_.empty())
    throw Error(ErrorCode::invalid_argument, fmt::format("no pictures in split '{}'", options.split));
  std::vector<Param> params = parameters(model_);
  if (!ae_.loaded) {
    allocate(params, device);
    initialise(params, autoencoder_init(), options.train.seed);
    damp_log_variance(model_);
  }
  std::vector<Trainable> all, trainables;
  for (const Param& p : params) {
    all.push_back({p.name, p.tensor});
    if (p.name.starts_with("bn.")) continue;  // measured in the end, not trained
    if (!ae_.decoder_only || p.name.starts_with("decoder.")) trainables.push_back(all.back());
  }
  inputs_.set("size", ae_.size);
  inputs_.set("split", ae_.split);
  inputs_.set_items(data, data.split(options.split));
  inputs_.set("gradient", ae_.gradient_weight);
  inputs_.set("kl", ae_.kl_weight);
  inputs_.set("mse", ae_.mse_weight);
  inputs_.set("noise", ae_.noise);
  inputs_.set("shift", ae_.shift);
  inputs_.set("mirror", ae_.mirror);
  inputs_.set("permute", ae_.permute);
  inputs_.set("background", ae_.background);
  inputs_.set("max-shift", ae_.max_shift);
  const AutoencoderConfig& c = model_.config();
  inputs_.set("widths", c.decoder_widths);
  inputs_.set("latent-channels", c.latent_channels);
  inputs_.set("blocks", c.blocks);
  inputs_.set("groups", c.groups);
  if (c.statistics) inputs_.set("patch", c.patch);
  if (ae_.loaded) {
    inputs_.set("decoder-only", ae_.decoder_only);
    inputs_.set("weights to begin with", fmt::format("checksum {:08x}", checksum(all)));
  }
  adopt(trainables);
}

Tensor AutoencoderTrainer::batch(int64_t step, int64_t micro) const {
  const int64_t n = ae_.train.batch;
  const size_t plane = static_cast<size_t>(3 * ae_.size * ae_.size);
  std::vector<float> host(static_cast<size_t>(n) * plane);
  for (int64_t b = 0; b < n; ++b) {
    // Sample number k of the whole run is element k mod N of pass k / N: every picture is seen equally often.
    const uint64_t k = static_cast<uint64_t>((step * ae_.train.accumulate + micro) * n + b);
    const uint64_t pass = k / images_.size();
    const auto order = epoch_order(images_.size(), ae_.train.seed, kChoice, static_cast<uint32_t>(pass));
    RgbaImage image = images_[order[k % images_.size()]];
    Rng rng(ae_.train.seed, kAugment, static_cast<uint32_t>(step), static_cast<uint32_t>(micro * n + b));
    if (rng.uniform() < ae_.shift) {
      const auto offset = [&] {
        return static_cast<int>(rng.below(2 * static_cast<uint32_t>(ae_.max_shift) + 1)) - ae_.max_shift;
      };
      const int dx = offset(), dy = offset();
      image = shifted(image, dx, dy);
    }
    if (rng.uniform() < ae_.mirror) image = mirrored(image);
    if (rng.uniform() < ae_.permute) {
      std::array<int, 3> channels{0, 1, 2};
      for (uint32_t i = 2; i > 0; --i) std::swap(channels[i], channels[rng.below(i + 1)]);
      image = with_channels(image, channels);
    }
    Rgb background{1, 1, 1};
    if (rng.uniform() < ae_.background) background = {rng.uniform(), rng.uniform(), rng.uniform()};
    composite_planar(image, background, std::span(host).subspan(static_cast<size_t>(b) * plane, plane));
  }
  return Tensor::from(device_, std::span<const float>(host), {n, 3, ae_.size, ae_.size});
}

Tensor AutoencoderTrainer::loss(int64_t step, int64_t micro, std::map<std::string, Tensor>& report) {
  const Tensor x = batch(step, micro);
  const auto posterior = [&] {
    if (!ae_.decoder_only) return model_.encode(x);
    const auto untaped = Tape::pause();
    return model_.encode(x);
  }();
  const Tensor sigma = op::unary(op::affine(posterior.logvar, 0.5f), op::Unary::exp);
  const Tensor noise = op::normal(
      device_, posterior.mean.shape(), ae_.train.seed,
      static_cast<uint64_t>(kPosterior) << 56 | static_cast<uint64_t>(step * ae_.train.accumulate + micro));
  const Tensor y = model_.decode(op::add(posterior.mean, op::mul(sigma, op::affine(noise, ae_.noise))));
  const Tensor l1 = op::l1(y, x);
  const Tensor edges = op::add(difference_l1(y, x, 2), difference_l1(y, x, 3));
  report["l1"] = l1;
  report["gradient_l1"] = edges;
  Tensor total = op::add(l1, op::affine(edges, ae_.gradient_weight));
  if (ae_.mse_weight > 0) {
    report["mse"] = op::mse(y, x);
    total = op::add(total, op::affine(report["mse"], ae_.mse_weight));
  }
  if (ae_.decoder_only) return total;
  // KL to N(0, 1) per latent element: (mean^2 + var - 1 - logvar) / 2
  const Tensor kl = op::affine(op::mean_all(op::sub(op::add(op::unary(posterior.mean, op::Unary::square),
                                                            op::unary(posterior.logvar, op::Unary::exp)),
                                                    posterior.logvar)),
                               0.5f, -0.5f);
  report["kl"] = kl;
  return op::add(total, op::affine(kl, ae_.kl_weight));
}

Tensor pictures(Device& device, const Dataset& data, const std::vector<size_t>& indices, int size) {
  const size_t plane = static_cast<size_t>(3 * size * size);
  std::vector<float> host(indices.size() * plane);
  for (size_t i = 0; i < indices.size(); ++i) {
    composite_planar(data.image(indices[i], size), {1, 1, 1}, std::span(host).subspan(i * plane, plane));
  }
  return Tensor::from(device, std::span<const float>(host),
                      {static_cast<int64_t>(indices.size()), 3, size, size});
}

void measure_latents(Device& device, AutoencoderKL& model, const Dataset& data,
                     const std::vector<size_t>& indices, int size) {
  const AutoencoderConfig& config = model.config();
  const auto channels = static_cast<size_t>(config.statistics ? config.folded_channels() : 1);
  std::vector<double> sum(channels), squares(channels);
  double n = 0;
  in_chunks(device, data, indices, size, [&](const auto&, const Tensor& x) {
    const std::vector<float> host = model.fold(model.encode(x).mean).to_host();
    const size_t cells =
        config.statistics ? host.size() / static_cast<size_t>(x.dim(0)) / channels : host.size();
    for (size_t i = 0; i < host.size(); ++i) {
      const size_t c = i / cells % channels;
      sum[c] += host[i];
      squares[c] += static_cast<double>(host[i]) * host[i];
    }
    n += static_cast<double>(host.size() / channels);
  });
  std::vector<float> means, variances;
  double scale = 0;
  for (size_t c = 0; c < channels; ++c) {
    const double mean = sum[c] / n, variance = std::max(0.0, squares[c] / n - mean * mean);
    means.push_back(static_cast<float>(mean));
    variances.push_back(static_cast<float>(variance));
    scale = std::max(scale, std::sqrt(variance));
    if (!std::isfinite(mean) || !std::isfinite(variance)) scale = std::nan("");
    if (std::isnan(scale)) break;
  }
  if (!(scale > 0) || !std::isfinite(means.back() / scale)) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("the latents have mean {} and scale {}, with which no transformer can be trained",
                            means.back(), scale));
  }
  if (config.statistics) {
    model.set_statistics(device, means, variances);
  } else {
    model.set_factors(static_cast<float>(1 / scale), means[0]);
  }
}

std::vector<double> reconstruction_psnr(Device& device, const AutoencoderKL& model, const Dataset& data,
                                        const std::vector<size_t>& indices, int size) {
  std::vector<double> out;
  in_chunks(device, data, indices, size, [&](const auto& part, const Tensor& x) {
    const std::vector<float> want = x.to_host(), got = model.decode(model.encode(x).mean).to_host();
    const size_t plane = want.size() / part.size();
    for (size_t i = 0; i < part.size(); ++i) {
      double error = 0;
      for (size_t j = i * plane; j < (i + 1) * plane; ++j) {
        const double d = std::clamp(got[j], -1.0f, 1.0f) - want[j];
        error += d * d;
      }
      out.push_back(10 * std::log10(4.0 * static_cast<double>(plane) / std::max(error, 1e-12)));
    }
  });
  return out;
}

}  // namespace vkflux
