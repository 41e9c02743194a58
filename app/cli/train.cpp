#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <filesystem>

#include "app/cli/cli.h"
#include "model/io/file.h"
#include "model/io/json.h"
#include "model/io/png.h"
#include "model/load.h"
#include "train/autoencoder_trainer.h"
#include "train/picture_grid.h"

namespace vkflux::cli {
namespace {

namespace fs = std::filesystem;

struct RunOptions {
  std::string data, out;
  bool fresh = false;
  int64_t stop_after = 0;
};

void add_train_options(CLI::App* c, RunOptions& run, TrainOptions& t) {
  c->add_option("--data", run.data, "data set folder: pictures NAME.png with captions NAME.txt")->required();
  c->add_option("--out", run.out, "run folder: checkpoint, metrics, samples and the exported model")
      ->required();
  c->add_flag("--fresh", run.fresh, "start over even when the run folder holds a checkpoint");
  c->add_option("--stop-after", run.stop_after, "stop after this step with a checkpoint, as if interrupted");
  c->add_option("--steps", t.steps, "optimiser steps")->capture_default_str()->check(CLI::PositiveNumber);
  c->add_option("--batch", t.batch, "pictures of a micro-batch")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  c->add_option("--accumulate", t.accumulate, "micro-batches of a step")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  c->add_option("--lr", t.lr, "peak learning rate")->capture_default_str();
  c->add_option("--final-lr", t.final_lr_ratio, "last learning rate, as a share of the peak (cosine)")
      ->capture_default_str();
  c->add_option("--warmup", t.warmup, "steps of linear warm-up")->capture_default_str();
  c->add_option("--weight-decay", t.weight_decay, "decoupled weight decay of matrices")
      ->capture_default_str();
  c->add_option("--clip", t.clip, "largest gradient norm, 0 = off")->capture_default_str();
  c->add_option("--ema", t.ema, "decay of the averaged weights that are exported, 0 = off")
      ->capture_default_str();
  c->add_option("--seed", t.seed, "every random choice follows from it")->capture_default_str();
  c->add_option("--log-every", t.log_every, "steps between readbacks of the metrics")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  c->add_option("--save-every", t.save_every, "steps between checkpoints")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  c->add_option("--sample-every", t.sample_every, "steps between sample grids, 0 = only at the end")
      ->capture_default_str();
}

/// Steps until done or interrupted; resumes from the run folder's checkpoint. `sample` writes pictures of the
/// current state.
int train_loop(Trainer& trainer, const Common& common, const RunOptions& run,
               const std::function<void(const std::string&)>& sample, const std::function<void()>& finish) {
  const std::string checkpoint = (fs::path(run.out) / "checkpoint.safetensors").string();
  if (!run.fresh && fs::exists(checkpoint)) {
    trainer.load(checkpoint);
    spdlog::info("resuming at step {}", trainer.steps_done());
  }
  trainer.add_sink(jsonl_sink((fs::path(run.out) / "metrics.jsonl").string(), trainer.steps_done()));
  trainer.add_sink(tensorboard_sink((fs::path(run.out) / "events").string(), trainer.steps_done()));
  const TrainOptions& t = trainer.options();
  Progress progress("training", t.steps, trainer.steps_done());
  while (!trainer.finished()) {
    trainer.step();
    const int64_t step = trainer.steps_done();
    std::string note;
    for (const auto& [name, value] : trainer.latest()) {
      if (name == "loss") note = fmt::format("loss {:.4f}", value);
    }
    progress.update(step, note);
    const bool stop = interrupted() || step == run.stop_after;
    if (step % t.save_every == 0 || stop || trainer.finished()) trainer.save(checkpoint);
    if (t.sample_every && step % t.sample_every == 0 && !trainer.finished()) {
      trainer.with_ema(
          [&] { sample((fs::path(run.out) / fmt::format("samples/{:06}.png", step)).string()); });
    }
    if (stop && !trainer.finished()) {
      spdlog::warn("stopped at step {}; the same command resumes", step);
      return interrupted() ? kInterrupted : kOk;
    }
  }
  trainer.with_ema([&] {
    sample((fs::path(run.out) / "samples/final.png").string());
    finish();
  });
  if (common.json) {
    nlohmann::ordered_json j{{"steps", trainer.steps_done()}, {"out", run.out}};
    for (const auto& [name, value] : trainer.latest()) j[name] = value;
    fmt::print("{}\n", j.dump());
  } else {
    fmt::print("{}\n", run.out);
  }
  return kOk;
}

struct AutoencoderRun {
  RunOptions run;
  AutoencoderTrainOptions options;
  std::vector<int64_t> widths{16, 32, 64, 64};
  int64_t latent_channels = 16, blocks = 1, groups = 8;
};

int train_autoencoder(const Common& common, const AutoencoderRun& r) {
  const auto device = open_device(common);
  const Dataset data = Dataset::open(r.run.data);
  AutoencoderConfig config;
  config.encoder_widths = config.decoder_widths = r.widths;
  config.latent_channels = r.latent_channels;
  config.blocks = r.blocks;
  config.groups = r.groups;
  AutoencoderKL model(config);
  AutoencoderTrainer trainer(*device, model, data, r.options);
  const std::vector<size_t> members = data.split(r.options.split);
  const auto sample = [&](const std::string& path) {
    std::vector<size_t> shown;
    for (size_t i = 0; i < 24; ++i) shown.push_back(members[i * members.size() / 24]);
    const Tensor x = pictures(*device, data, shown, r.options.size);
    io::write_png(path, picture_grid({x, model.decode(model.encode(x).mean)}, 12));
  };
  const auto finish = [&] {
    const LatentStatistics s = latent_statistics(*device, model, data, members, r.options.size);
    model.set_factors(static_cast<float>(1 / s.stddev), static_cast<float>(s.mean));
    const fs::path folder = fs::path(r.run.out) / "vae";
    save(parameters(model), (folder / "diffusion_pytorch_model.safetensors").string(),
         io::vae_names(config.levels()), io::FileDType::f16);
    io::atomic_write((folder / "config.json").string(),
                     autoencoder_json(model.config(), r.options.size).dump(2) + "\n");
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
  t.weight_decay = 1e-4f;
  CLI::App* c = add_command(train, "autoencoder", "train an autoencoder (AutoencoderKL) on pictures",
                            "vkflux train autoencoder --data emoji --out runs/vae --steps 3800", common,
                            [common, r] { return train_autoencoder(*common, *r); });
  add_train_options(c, r->run, t);
  c->add_option("--size", r->options.size, "pixels a side")->capture_default_str();
  c->add_option("--split", r->options.split, "part of the data set (\"all\" = everything)")
      ->capture_default_str();
  c->add_option("--widths", r->widths, "channels of each level, full resolution first")
      ->capture_default_str();
  c->add_option("--latent-channels", r->latent_channels, "channels of the latent")->capture_default_str();
  c->add_option("--blocks", r->blocks, "residual blocks of an encoder level")->capture_default_str();
  c->add_option("--groups", r->groups, "groups of the group norms")->capture_default_str();
  c->add_option("--kl", r->options.kl_weight, "weight of the KL term")->capture_default_str();
}

}  // namespace

void add_train(CLI::App& app) {
  CLI::App* train =
      app.add_subcommand("train", "train an autoencoder or a FLUX.1 transformer with its text encoders");
  train->require_subcommand(1);
  add_autoencoder(*train);
}

}  // namespace vkflux::cli
