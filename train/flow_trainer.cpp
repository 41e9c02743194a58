#include "train/flow_trainer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "autograd/ops.h"
#include "autograd/tape.h"
#include "model/sampler/step_noise.h"
#include "vk/error.h"
#include "vk/interrupt.h"

namespace vkflux {
namespace {

enum Stream : uint32_t { kChoice = 11, kCaption = 12, kTime = 13, kNoise = 14 };
constexpr size_t kChunk = 32;

int64_t side(int64_t tokens) {
  return std::llround(std::sqrt(static_cast<double>(tokens)));
}

}  // namespace

LatentCache::LatentCache(Device& device, const LatentCodec& codec, const LatentGeometry& geometry,
                         const Dataset& data, const std::vector<size_t>& items, int size, bool colors) {
  data.check_pictures(items);  // a damaged one is met before the work
  std::vector<std::pair<size_t, int>> keys;
  for (size_t i : items) {
    keys.emplace_back(i, -1);
    for (size_t color = 0; colors && data.items()[i].tintable && color < kTintColors.size(); ++color) {
      if (!tint_held_out(data.items()[i], color)) keys.emplace_back(i, static_cast<int>(color));
    }
  }
  const auto plane = static_cast<size_t>(3 * size * size);
  std::vector<Tensor> parts;
  for (size_t at = 0; at < keys.size(); at += kChunk) {
    check_interrupted("encoding the pictures");
    const size_t n = std::min(kChunk, keys.size() - at);
    std::vector<float> host(n * plane);
    for (size_t k = 0; k < n; ++k) {
      const auto [item, color] = keys[at + k];
      RgbaImage image = data.image(item, size);
      if (color >= 0) image = tinted(image, kTintColors[static_cast<size_t>(color)].color);
      composite_planar(image, {1, 1, 1}, std::span(host).subspan(k * plane, plane));
      index_[{item, color}] = static_cast<int32_t>(at + k);
    }
    const Tensor x =
        Tensor::from(device, std::span<const float>(host), {static_cast<int64_t>(n), 3, size, size});
    const Tensor tokens = geometry.pack(codec.encode(x));
    tokens_ = tokens.dim(1);
    channels_ = tokens.dim(2);
    parts.push_back(op::reshape(tokens, {static_cast<int64_t>(n), tokens_ * channels_}));
  }
  if (parts.empty()) throw Error(ErrorCode::invalid_argument, "no pictures to make latents of");
  rows_ = op::concat(parts, 0);
}

int32_t LatentCache::row(size_t item, int color) const {
  const auto it = index_.find({item, color});
  if (it == index_.end())
    throw Error(ErrorCode::internal, fmt::format("no latent of item {} in colour {}", item, color));
  return it->second;
}

FlowTrainer::FlowTrainer(Device& device, TrainableModel& model, const LatentCodec& codec, const Dataset& data,
                         const FlowTrainOptions& options)
    : Trainer(device, options.train),
      model_(model),
      flow_(options),
      data_(data),
      items_(data.split(options.split)),
      latents_(device, codec, model.backbone().layout().geometry, data, items_, options.size,
               options.captions.colored > 0) {
  std::vector<Trainable> trainables;
  for (const TrainableModel::Part& part : model.parts()) {
    if (!options.loaded) {
      allocate(part.params, device);
      initialise(part.params, part.init, options.train.seed);
    }
    for (const Param& p : part.params) trainables.push_back({part.prefix + p.name, p.tensor});
  }
  inputs_.set("size", flow_.size);
  inputs_.set("split", flow_.split);
  inputs_.set_items(data, items_);
  inputs_.set("keywords", flow_.captions.variants);
  inputs_.set("tints", flow_.captions.colored);
  inputs_.set("empty", flow_.captions.empty);
  inputs_.set("time", std::vector<double>{io::decimal(flow_.time_mu), io::decimal(flow_.time_sigma)});
  inputs_.set("model", model.fingerprint());
  if (options.loaded)
    inputs_.set("weights to begin with", fmt::format("checksum {:08x}", checksum(trainables)));
  adopt(trainables);
}

Tensor FlowTrainer::loss(int64_t step, int64_t micro, std::map<std::string, Tensor>& report) {
  const int64_t n = flow_.train.batch;
  std::vector<std::string> captions;
  std::vector<int32_t> rows;
  std::vector<float> times, late(static_cast<size_t>(n), 0);
  for (int64_t b = 0; b < n; ++b) {
    const auto k = static_cast<uint64_t>((step * flow_.train.accumulate + micro) * n + b);
    const auto order =
        epoch_order(items_.size(), flow_.train.seed, kChoice, static_cast<uint32_t>(k / items_.size()));
    const size_t item = items_[order[k % items_.size()]];
    const auto address = static_cast<uint32_t>(micro * n + b);
    Rng choose(flow_.train.seed, kCaption, static_cast<uint32_t>(step), address),
        time(flow_.train.seed, kTime, static_cast<uint32_t>(step), address);
    const CaptionSample caption = sample_caption(data_.items()[item], flow_.captions, choose);
    captions.push_back(caption.text);
    rows.push_back(latents_.row(item, caption.color));
    times.push_back(1 / (1 + std::exp(-(flow_.time_mu + flow_.time_sigma * time.normal()))));
    late[static_cast<size_t>(b)] = times.back() > 0.8f ? 1.0f : 0.0f;
  }
  const Shape shape{n, latents_.tokens(), latents_.channels()};
  const Tensor x0 = op::reshape(
      op::gather_rows(latents_.rows(), Tensor::from(device_, std::span<const int32_t>(rows), {n})), shape);
  const Tensor noise = op::normal(
      device_, shape, flow_.train.seed,
      static_cast<uint64_t>(kNoise) << 56 | static_cast<uint64_t>(step * flow_.train.accumulate + micro));
  const Tensor t = Tensor::from(device_, std::span<const float>(times), {n}), target = op::sub(noise, x0);
  const int64_t s = side(latents_.tokens());
  PassInputs in;
  in.x = op::add(x0, op::mul(target, t.view({n, 1, 1})));
  in.t = t;
  in.condition = model_.encode(captions);
  in.tokens.rows = in.tokens.columns = s;
  model_.backbone().prepare(in);
  const Tensor v = model_.backbone().forward(in);
  if (const float count = static_cast<float>(std::count(late.begin(), late.end(), 1.0f)); count > 0) {
    // The share of a picture that its caption alone doesn't tell yet.
    const auto scope = Tape::pause();
    const Tensor each = op::mean(op::unary(op::sub(v, target), op::Unary::square), {1, 2});
    report["loss_late"] = op::affine(
        op::sum_all(op::mul(each, Tensor::from(device_, std::span<const float>(late), {n}))), 1 / count);
  }
  return op::mse(v, target);
}

Tensor sample_latents(Backbone& backbone, const ModelInfo& model, const Condition& positive,
                      const Condition& empty, const SamplingRequest& request, uint64_t seed) {
  SamplingSetup setup = sampling_setup(model, request);
  Device& device = positive.parts().front().second.device();
  // Drawn token by token, so that the figures of earlier evaluations compare.
  const Shape tokens{setup.options.rows * setup.options.columns, model.layout.geometry.token_channels()};
  const Tensor noise = initial_noise(device, seeds_from(seed, positive.batch()), tokens, NoiseMode::counter);
  setup.options.noise = step_noise(device, seeds_from(seed, positive.batch()), tokens, NoiseMode::counter,
                                   static_cast<int64_t>(setup.options.levels.size()) - 1);
  SamplingRun run(backbone, positive, empty, noise, setup.options);
  while (!run.finished()) {
    check_interrupted("drawing");
    run.step();
  }
  return run.x();
}

RecallReport nearest_latent_recall(
    const std::function<Tensor(const std::vector<std::string>&, uint64_t)>& sample, const LatentCache& cache,
    const Dataset& data, const std::vector<size_t>& names, const std::vector<size_t>& candidates,
    uint64_t seed) {
  RecallReport report;
  const std::vector<float> all = cache.rows().to_host();
  const auto width = static_cast<size_t>(cache.tokens() * cache.channels());
  for (size_t at = 0; at < names.size(); at += kChunk) {
    std::vector<std::string> prompts;
    for (size_t i = at; i < std::min(at + kChunk, names.size()); ++i)
      prompts.push_back(data.items()[names[i]].name());
    const std::vector<float> got = sample(prompts, seed + at).to_host();
    for (size_t i = 0; i < prompts.size(); ++i) {
      double best = std::numeric_limits<double>::infinity(), own = 0;
      size_t nearest = 0;
      for (size_t candidate : candidates) {
        const float* want = all.data() + static_cast<size_t>(cache.row(candidate, -1)) * width;
        double d = 0;
        for (size_t j = 0; j < width; ++j) {
          const double e = static_cast<double>(got[i * width + j]) - want[j];
          d += e * e;
        }
        if (candidate == names[at + i]) own = d;
        if (d < best) {
          best = d;
          nearest = candidate;
        }
      }
      ++report.tried;
      report.right += nearest == names[at + i];
      report.latent_mse += own / static_cast<double>(width);
      if (nearest != names[at + i])
        report.wrong.push_back(prompts[i] + " -> " + data.items()[nearest].name());
    }
  }
  report.latent_mse /= static_cast<double>(std::max<int64_t>(report.tried, 1));
  return report;
}

}  // namespace vkflux
