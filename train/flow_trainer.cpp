#include "train/flow_trainer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "autograd/ops.h"
#include "model/flux/rope.h"
#include "model/sampler/noise.h"
#include "vk/error.h"

namespace vkflux {
namespace {

enum Stream : uint32_t { kChoice = 11, kCaption = 12, kTime = 13, kNoise = 14 };
constexpr size_t kChunk = 32;

int64_t side(int64_t tokens) {
  return std::llround(std::sqrt(static_cast<double>(tokens)));
}

Tensor rope_for(Device& device, const Flux1Config& c, int64_t text, int64_t rows, int64_t columns) {
  return rope_table(device, flux1_ids(text, rows, columns), 1, c.axes_dim, c.theta);
}

}  // namespace

CaptionIds::Batch CaptionIds::operator()(const std::vector<std::string>& captions) {
  Batch out;
  for (const std::string& text : captions) {
    auto [it, fresh] = known_.try_emplace(text);
    if (fresh) {
      it->second = {model_.clip_tokenizer->encode(text, model_.clip_tokens),
                    model_.t5_tokenizer->encode(text, model_.t5_tokens)};
    }
    out.clip.push_back(it->second.first);
    out.t5.push_back(it->second.second);
  }
  return out;
}

LatentCache::LatentCache(Device& device, const AutoencoderKL& vae, const Dataset& data,
                         const std::vector<size_t>& items, int size, bool colors) {
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
    const Tensor tokens = op::patchify(vae.to_latent(vae.encode(x).mean), 2);
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

FlowTrainer::FlowTrainer(Device& device, FlowModel& model, const AutoencoderKL& vae, const Dataset& data,
                         const FlowTrainOptions& options)
    : Trainer(device, options.train),
      model_(model),
      flow_(options),
      data_(data),
      items_(data.split(options.split)),
      latents_(device, vae, data, items_, options.size, options.captions.colored > 0),
      ids_(model) {
  const int64_t s = side(latents_.tokens());
  rope_ = rope_for(device, model.transformer.config(), model.t5_tokens, s, s);
  std::vector<Trainable> trainables;
  const auto add = [&](auto& module, const std::string& prefix, const InitRule& rule) {
    const std::vector<Param> params = parameters(module);
    if (!options.loaded) {
      allocate(params, device);
      initialise(params, rule, options.train.seed);
    }
    for (const Param& p : params) trainables.push_back({prefix + p.name, p.tensor});
  };
  add(model.transformer, "transformer.", flux1_init());
  add(model.clip, "text_encoder.", clip_init());
  add(model.t5, "text_encoder_2.", t5_init(model.t5.config()));
  if (options.loaded) start_sum_ = checksum(trainables);
  adopt(trainables);
}

std::string FlowTrainer::fingerprint() const {
  const TrainOptions& t = flow_.train;
  const Flux1Config& c = model_.transformer.config();
  return fmt::format(
      "flow v2 size {} items {} split {} steps {} batch {}x{} lr {} {} warmup {} betas {} {} wd {} clip {} "
      "ema {} seed {} captions {} {} "
      "{} time {} {} hidden {} heads {} depth {} {} tokens {} {}{}",
      flow_.size, items_.size(), flow_.split, t.steps, t.batch, t.accumulate, t.lr, t.final_lr_ratio,
      t.warmup, t.beta1, t.beta2, t.weight_decay, t.clip, t.ema, t.seed, flow_.captions.variants,
      flow_.captions.colored, flow_.captions.empty, flow_.time_mu, flow_.time_sigma, c.hidden, c.heads,
      c.depth, c.depth_single, model_.clip_tokens, model_.t5_tokens,
      flow_.loaded ? fmt::format(" of {:08x}", start_sum_) : "");
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
  const CaptionIds::Batch ids = ids_(captions);
  const Shape shape{n, latents_.tokens(), latents_.channels()};
  const Tensor x0 = op::reshape(
      op::gather_rows(latents_.rows(), Tensor::from(device_, std::span<const int32_t>(rows), {n})), shape);
  const Tensor noise = op::normal(
      device_, shape, flow_.train.seed,
      static_cast<uint64_t>(kNoise) << 56 | static_cast<uint64_t>(step * flow_.train.accumulate + micro));
  const Tensor t = Tensor::from(device_, std::span<const float>(times), {n}), target = op::sub(noise, x0);
  Flux1Inputs in;
  in.img = op::add(x0, op::mul(target, t.view({n, 1, 1})));
  in.txt = model_.t5.forward(ids.t5);
  in.y = model_.clip.forward(ids.clip).pooled;
  in.t = t;
  in.rope = rope_;
  const Tensor v = model_.transformer.forward(in);
  if (const float count = static_cast<float>(std::count(late.begin(), late.end(), 1.0f)); count > 0) {
    // The share of a picture that its caption alone doesn't tell yet.
    const auto scope = Tape::pause();
    const Tensor each = op::mean(op::unary(op::sub(v, target), op::Unary::square), {1, 2});
    report["loss_late"] = op::affine(
        op::sum_all(op::mul(each, Tensor::from(device_, std::span<const float>(late), {n}))), 1 / count);
  }
  return op::mse(v, target);
}

FluxCondition encode_prompts(const FlowModel& model, const std::vector<std::string>& prompts) {
  const CaptionIds::Batch ids = CaptionIds(model)(prompts);
  return {model.t5.forward(ids.t5), model.clip.forward(ids.clip).pooled};
}

Tensor sample_latents(Flux1& transformer, const FluxCondition& positive, const FluxCondition& empty,
                      const Schedule& schedule, const SampleOptions& o) {
  const Shape shape{o.rows * o.columns, transformer.config().in_channels};
  const Tensor noise =
      initial_noise(positive.y.device(), positive.y.dim(0), shape, o.seed, NoiseMode::counter);
  DenoiseOptions d;
  d.levels = o.levels(schedule);
  d.cfg = o.cfg;
  d.rows = o.rows;
  d.columns = o.columns;
  FluxDenoiser denoiser(transformer, positive, o.cfg == 1 ? std::nullopt : std::optional(empty), noise, d);
  while (!denoiser.finished()) denoiser.step();
  return denoiser.x();
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
