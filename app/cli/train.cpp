#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <filesystem>
#include <optional>

#include "app/cli/cli.h"
#include "app/cli/numbers.h"
#include "app/cli/profile.h"
#include "app/outputs.h"
#include "model/family.h"
#include "model/io/file.h"
#include "model/io/json.h"
#include "model/io/png.h"
#include "model/vae/codec.h"
#include "model/vae/load.h"
#include "train/autoencoder_trainer.h"
#include "train/flow_trainer.h"
#include "train/picture_grid.h"

namespace vkflux::cli {
namespace {

namespace fs = std::filesystem;

struct RunOptions {
  std::string data, out;
  bool fresh = false;
  int64_t stop_after = 0;
  ProfileArgs profile;
  const CLI::App* command = nullptr;
};

void add_train_options(CLI::App* c, RunOptions& run, TrainOptions& t) {
  run.command = c;
  add_profile_options(*c, run.profile);
  c->add_option("--data", run.data, "data set folder: pictures NAME.png with captions NAME.txt")->required();
  c->add_option("--out", run.out, "run folder: checkpoint, metrics, samples and the exported model")
      ->required();
  c->add_flag("--fresh", run.fresh, "start over even when the run folder holds a checkpoint");
  c->add_option("--stop-after", run.stop_after, "stop after this step with a checkpoint, as if interrupted")
      ->transform(whole(0, kMostSteps));
  c->add_option("--steps", t.steps, "optimiser steps")
      ->capture_default_str()
      ->transform(whole(1, kMostSteps));
  c->add_option("--batch", t.batch, "pictures of a micro-batch")
      ->capture_default_str()
      ->transform(whole(1, kMostPictures));
  c->add_option("--accumulate", t.accumulate, "micro-batches of a step")
      ->capture_default_str()
      ->transform(whole(1, kMostPictures));
  c->add_option("--lr", t.lr, "peak learning rate")->capture_default_str()->transform(real(1e-12, 10));
  c->add_option("--final-lr", t.final_lr_ratio, "last learning rate, as a share of the peak (cosine)")
      ->capture_default_str()
      ->transform(real(0, 1));
  c->add_option("--warmup", t.warmup, "steps of linear warm-up")
      ->capture_default_str()
      ->transform(whole(0, kMostSteps));
  c->add_option("--weight-decay", t.weight_decay, "decoupled weight decay of matrices")
      ->capture_default_str()
      ->transform(real(0, 100));
  c->add_option("--clip", t.clip, "largest gradient norm, 0 = off")
      ->capture_default_str()
      ->transform(real(0, 1e9));
  c->add_option("--ema", t.ema, "decay of the averaged weights that are exported, 0 = off")
      ->capture_default_str()
      ->transform(real(0, 1));
  c->add_option("--seed", t.seed, "every random choice follows from it")
      ->capture_default_str()
      ->transform(any_seed());
  c->add_option("--log-every", t.log_every, "steps between readbacks of the metrics")
      ->capture_default_str()
      ->transform(whole(1, kMostSteps));
  c->add_option("--save-every", t.save_every, "steps between checkpoints")
      ->capture_default_str()
      ->transform(whole(1, kMostSteps));
  c->add_option("--sample-every", t.sample_every, "steps between sample grids, 0 = only at the end")
      ->capture_default_str()
      ->transform(whole(0, kMostSteps));
}

/// Before anything is read; `exported`: the folder of the trained model in the run's folder.
void check_files(const RunOptions& run, const std::vector<std::pair<std::string, std::string>>& more,
                 const std::string& exported) {
  FileUse files;
  files.reads("--data", run.data);
  for (const auto& [flag, path] : more) files.reads(flag, path);
  files.runs_in("--out", run.out, run_files(), {"events", "samples", exported});
  files.writes("--profile-trace", run.profile.trace);
  files.check();
}

/// `sample` writes pictures of the current state, `finish` the trained model.
int train_loop(Trainer& trainer, const Common& common, const RunOptions& run,
               const std::function<void(const std::string&)>& sample, const std::function<void()>& finish) {
  const TrainOptions& t = trainer.options();
  const RunLoopOptions loop{{run.out},      run.fresh, t.save_every,
                            run.stop_after, "steps",   settings_of(*run.command)};
  std::optional<Progress> progress;
  const auto after_step = [&] {
    const int64_t step = trainer.steps_done();
    std::string note;
    for (const auto& [name, value] : trainer.latest()) {
      if (name == "loss") note = fmt::format("loss {:.4f}", value);
    }
    progress->update(step, note);
    if (!t.sample_every || step % t.sample_every != 0 || trainer.finished()) return;
    trainer.with_ema([&] { sample(loop.folder.file(fmt::format("samples/{:06}.png", step))); });
  };
  const auto started = [&] { progress.emplace("training", t.steps, trainer.steps_done()); };
  if (!run_to_end(trainer, loop, interrupted, started, after_step)) return interrupted() ? kInterrupted : kOk;
  progress.reset();
  trainer.with_ema([&] {
    sample((fs::path(run.out) / "samples/final.png").string());
    finish();
  });
  if (common.json) {
    nlohmann::ordered_json j{{"steps", trainer.steps_done()}, {"out", run.out}};
    for (const auto& [name, value] : trainer.latest()) j[name] = value;
    fmt::print("{}\n", io::json_text(j));
  } else {
    fmt::print("{}\n", run.out);
  }
  return kOk;
}

struct AutoencoderRun {
  RunOptions run;
  std::string from;
  AutoencoderTrainOptions options;
  std::vector<int64_t> widths{16, 32, 64, 64};
  int64_t latent_channels = 16, blocks = 1, groups = 8;
};

AutoencoderConfig autoencoder_config(const AutoencoderRun& r) {
  AutoencoderConfig config;
  config.encoder_widths = config.decoder_widths = r.widths;
  config.latent_channels = r.latent_channels;
  config.blocks = r.blocks;
  config.groups = r.groups;
  const ErrorContext context("--widths, --latent-channels, --blocks and --groups");
  config.check();
  return config;
}

void check_side(int64_t size, int64_t unit) {
  if (size % unit == 0) return;
  throw Error(
      ErrorCode::invalid_argument,
      fmt::format("--size {}: a multiple of {} is expected, the pixels that become one token", size, unit));
}

int train_autoencoder(const Common& common, const AutoencoderRun& r) {
  check_files(r.run, {{"--from", r.from}}, "vae");
  const AutoencoderConfig config = autoencoder_config(r);
  const auto device = open_device(common);
  const ProfileSession profile(*device, r.run.profile);
  const Dataset data = Dataset::open(r.run.data);
  AutoencoderKL model = r.from.empty() ? AutoencoderKL(config) : load_autoencoder(*device, r.from);
  check_side(r.options.size, model.config().factor());
  AutoencoderTrainer trainer(*device, model, data, r.options);
  const std::vector<size_t> members = data.split(r.options.split);
  const auto sample = [&](const std::string& path) {
    std::vector<size_t> shown;
    for (size_t i = 0; i < 24; ++i) shown.push_back(members[i * members.size() / 24]);
    const Tensor x = pictures(*device, data, shown, r.options.size);
    io::write_png(path, picture_grid({x, model.decode(model.encode(x).mean)}, 12));
  };
  const auto finish = [&] {
    if (!r.options.decoder_only) {
      const LatentStatistics s = latent_statistics(*device, model, data, members, r.options.size);
      model.set_factors(static_cast<float>(1 / s.stddev), static_cast<float>(s.mean));
    }
    save_autoencoder((fs::path(r.run.out) / "vae").string(), model, r.options.size);
  };
  return train_loop(trainer, common, r.run, sample, finish);
}

void add_autoencoder(CLI::App& train) {
  auto common = std::make_shared<Common>();
  auto r = std::make_shared<AutoencoderRun>();
  TrainOptions& t = r->options.train;
  t.steps = 3800;
  t.batch = 8;
  t.lr = 2e-3f;
  t.weight_decay = 1e-4;
  CLI::App* c =
      add_command(train, "autoencoder", "train an autoencoder (AutoencoderKL) on pictures",
                  "vkflux train autoencoder --data emoji --out runs/vae --steps 3800", common, [common, r] {
                    r->options.loaded = !r->from.empty();
                    return train_autoencoder(*common, *r);
                  });
  add_train_options(c, r->run, t);
  c->add_option("--size", r->options.size, "pixels a side")
      ->capture_default_str()
      ->transform(whole(1, kMostTrainingSide));
  c->add_option("--split", r->options.split, "part of the data set (\"all\" = everything)")
      ->capture_default_str();
  c->add_option("--widths", r->widths, "channels of each level, full resolution first")
      ->capture_default_str()
      ->transform(whole(1, kMostWidth));
  c->add_option("--latent-channels", r->latent_channels, "channels of the latent")
      ->capture_default_str()
      ->transform(whole(1, kMostWidth));
  c->add_option("--blocks", r->blocks, "residual blocks of an encoder level")
      ->capture_default_str()
      ->transform(whole(1, kMostLayers));
  c->add_option("--groups", r->groups, "groups of the group norms")
      ->capture_default_str()
      ->transform(whole(1, kMostWidth));
  c->add_option("--kl", r->options.kl_weight, "weight of the KL term")
      ->capture_default_str()
      ->transform(real(0, kMostWeight));
  c->add_option("--gradient", r->options.gradient_weight, "weight of the L1 of finite differences")
      ->capture_default_str()
      ->transform(real(0, kMostWeight));
  c->add_option("--mse", r->options.mse_weight, "weight of the squared error")
      ->capture_default_str()
      ->transform(real(0, kMostWeight));
  c->add_option("--noise", r->options.noise, "of the posterior sample, in its standard deviations")
      ->capture_default_str()
      ->transform(real(0, 1000));
  c->add_option("--permute", r->options.permute, "share of pictures with exchanged colour channels")
      ->capture_default_str()
      ->transform(real(0, 1));
  c->add_option("--shift", r->options.shift, "share of shifted pictures")
      ->capture_default_str()
      ->transform(real(0, 1));
  c->add_option("--background", r->options.background, "share of pictures on another colour than white")
      ->capture_default_str()
      ->transform(real(0, 1));
  CLI::Option* from =
      c->add_option("--from", r->from, "start from this autoencoder folder; its sizes are kept");
  c->add_flag("--decoder-only", r->options.decoder_only,
              "leave the encoder, and so the latents that a transformer was trained on, as they are")
      ->needs(from);
}

struct FlowRun {
  RunOptions run;
  FlowTrainOptions options;
  std::string family = "flux1", vae, from;
  ModelSizes sizes;
  int sample_steps = 8;
  float sample_cfg = 2;
};

void check_sizes(const FlowRun& r) {
  const auto refuse = [](const std::string& what) { throw Error(ErrorCode::invalid_argument, what); };
  const ModelSizes& s = r.sizes;
  if (s.hidden % s.heads != 0)
    refuse(
        fmt::format("--hidden {} --heads {}: the width must be a multiple of the heads", s.hidden, s.heads));
  if (s.depth + s.depth_single == 0) refuse("--depth 0 --depth-single 0: a transformer needs a block");
  const CaptionMix& c = r.options.captions;
  if (double{c.variants} + double{c.colored} + double{c.empty} > 1 + 1e-6)
    refuse(fmt::format("--keywords {} --tints {} --empty {}: the shares are over 1 together", c.variants,
                       c.colored, c.empty));
}

int train_flow(const Common& common, FlowRun r) {
  check_sizes(r);
  check_files(r.run, {{"--vae", r.vae}, {"--from", r.from}}, "model");
  const auto device = open_device(common);
  const ProfileSession profile(*device, r.run.profile);
  const Dataset data = Dataset::open(r.run.data);
  const auto vae = std::make_shared<AutoencoderKL>(load_autoencoder(*device, r.vae));
  const AutoencoderCodec codec(vae);
  r.sizes.latent_channels = vae->config().latent_channels;
  r.sizes.tokenizers = r.run.data;
  const auto model = family(r.family).create(r.sizes);
  if (!r.from.empty()) model->load(*device, r.from);
  const std::vector<size_t> members = data.split(r.options.split);
  ModelInfo info{model->backbone().layout(), vae->config().factor(), Schedule::flux1_schnell(), {}};
  info.defaults.steps = r.sample_steps;
  info.defaults.cfg = r.sample_cfg;
  info.defaults.width = info.defaults.height = r.options.size;
  check_side(r.options.size, info.pixels_per_token());
  FlowTrainer trainer(*device, *model, codec, data, r.options);
  const auto sample = [&](const std::string& path) {
    std::vector<std::string> prompts;
    for (size_t i = 0; i < 24; ++i) prompts.push_back(data.items()[members[i * members.size() / 24]].name());
    const Tensor tokens =
        sample_latents(model->backbone(), info, model->encode(prompts),
                       model->encode(std::vector<std::string>(prompts.size())), {}, r.options.train.seed);
    const int64_t side = r.options.size / vae->config().factor();
    io::write_png(path, picture_grid({codec.decode(info.layout.geometry.unpack(tokens, side, side))}, 12));
  };
  return train_loop(trainer, common, r.run, sample,
                    [&] { model->save((fs::path(r.run.out) / "model").string(), r.vae, info.defaults); });
}

void add_flow(CLI::App& train) {
  auto common = std::make_shared<Common>();
  auto r = std::make_shared<FlowRun>();
  TrainOptions& t = r->options.train;
  t.steps = 3000;
  t.batch = 64;
  t.lr = 1.5e-3f;
  t.final_lr_ratio = 0.01f;
  t.ema = 0.999f;
  CLI::App* c =
      add_command(train, "flow", "train a transformer with its text encoders by flow matching",
                  "vkflux train flow --data emoji --vae runs/vae/vae --out runs/flow", common, [common, r] {
                    r->options.loaded = !r->from.empty();
                    return train_flow(*common, *r);
                  });
  add_train_options(c, r->run, t);
  c->add_option("--family", r->family, "model family of the transformer and its text encoders")
      ->capture_default_str();
  c->add_option("--vae", r->vae, "folder of the trained autoencoder (config.json and weights)")->required();
  c->add_option("--from", r->from, "start from this model folder (of the same sizes)");
  c->add_option("--size", r->options.size, "pixels a side")
      ->capture_default_str()
      ->transform(whole(1, kMostTrainingSide));
  c->add_option("--split", r->options.split, "part of the data set (\"all\" = everything)")
      ->capture_default_str();
  c->add_option("--keywords", r->options.captions.variants, "share of captions that are another wording")
      ->capture_default_str()
      ->transform(real(0, 1));
  c->add_option("--tints", r->options.captions.colored, "share of recoloured pictures (\"blue dog face\")")
      ->capture_default_str()
      ->transform(real(0, 1));
  c->add_option("--empty", r->options.captions.empty, "share of empty captions, for guidance")
      ->capture_default_str()
      ->transform(real(0, 1));
  c->add_option("--hidden", r->sizes.hidden, "width of the transformer")
      ->capture_default_str()
      ->transform(whole(1, kMostWidth));
  c->add_option("--heads", r->sizes.heads, "attention heads")
      ->capture_default_str()
      ->transform(whole(1, kMostWidth));
  c->add_option("--depth", r->sizes.depth, "double blocks")
      ->capture_default_str()
      ->transform(whole(0, kMostLayers));
  c->add_option("--depth-single", r->sizes.depth_single, "single blocks")
      ->capture_default_str()
      ->transform(whole(0, kMostLayers));
  c->add_option("--tokens", r->sizes.tokens, "text tokens of both encoders")
      ->capture_default_str()
      ->transform(whole(2, 4096));
}

}  // namespace

void add_train(CLI::App& app) {
  CLI::App* train =
      app.add_subcommand("train", "train an autoencoder, or a transformer with its text encoders");
  train->require_subcommand(1);
  add_autoencoder(*train);
  add_flow(*train);
}

}  // namespace vkflux::cli
