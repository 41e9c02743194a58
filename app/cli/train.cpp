#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <cmath>
#include <filesystem>
#include <optional>

#include "app/cli/cli.h"
#include "app/cli/data.h"
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
#include "train/data/chat_tokenizer_training.h"
#include "train/data/tokenizer_training.h"
#include "train/flow_trainer.h"
#include "train/picture_grid.h"

namespace vkflux::cli {
namespace {

namespace fs = std::filesystem;

// What is trained on unless --split says it: the emoji set's choice, or that of a folder without splits.
const std::vector<std::string> kAutoencoderSplits{"autoencoder", "train"}, kFlowSplits{"s493", "train"};

struct RunOptions {
  std::string data, out, split;  // the split that is trained on, once it is known
  bool fresh = false, accept_changed = false;
  int64_t stop_after = 0;
  ProfileArgs profile;
  const CLI::App* command = nullptr;
};

void add_train_options(CLI::App* c, RunOptions& run, TrainOptions& t) {
  run.command = c;
  add_profile_options(*c, run.profile);
  c->add_option("--data", run.data, "data set folder: pictures (PNG, JPEG, WebP) with captions NAME.txt")
      ->required();
  c->add_option("--out", run.out, "run folder: checkpoint, metrics, samples and the exported model")
      ->required();
  c->add_flag("--fresh", run.fresh, "start over: what an earlier run wrote to the folder is removed first");
  c->add_flag(
      "--accept-changed-inputs", run.accept_changed,
      "go on from the checkpoint although data, files or settings aren't those that it was made with");
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
  files.runs_in("--out", run.out, RunFolder::own_files(), {"events", "samples", exported});
  files.writes("--profile-trace", run.profile.trace);
  files.check();
}

/// `sample` writes pictures of the current state, `finish` the trained model.
int train_loop(Trainer& trainer, const Common& common, const RunOptions& run,
               std::vector<std::string> results, const std::function<void(const std::string&)>& sample,
               const std::function<void()>& finish) {
  const TrainOptions& t = trainer.options();
  nlohmann::ordered_json settings = settings_of(*run.command);
  settings["split"] = run.split;
  for (const char* picture : {"samples/[0-9][0-9][0-9][0-9][0-9][0-9].png", "samples/final.png"})
    results.push_back(picture);
  if (run.accept_changed) trainer.inputs().accept_changes();
  const RunLoopOptions loop{{run.out}, run.fresh, t.save_every,      run.stop_after,
                            "steps",   settings,  std::move(results)};
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
    print_out("{}\n", io::json_text(j));
  } else {
    print_out("{}\n", run.out);
  }
  return kOk;
}

struct AutoencoderRun {
  RunOptions run;
  std::string from, family = "flux1";
  AutoencoderTrainOptions options;
  std::vector<int64_t> widths{16, 32, 64, 64};
  std::optional<int64_t> latent_channels;  // absent: the family's
  int64_t blocks = 1, groups = 8;
};

AutoencoderConfig autoencoder_config(const AutoencoderRun& r) {
  AutoencoderConfig config = autoencoder_of(r.family);
  config.encoder_widths = config.decoder_widths = r.widths;
  config.latent_channels = r.latent_channels.value_or(config.latent_channels);
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

/// The pictures of a split, by default of the first of `names` that the data set has; says which.
std::vector<size_t> members_of(const Dataset& data, std::string& split,
                               const std::vector<std::string>& names) {
  if (split.empty()) split = data.first_split(names);
  std::vector<size_t> members = data.split(split);
  spdlog::info("{}: training on the {} pictures of split \"{}\"", data.folder().string(), members.size(),
               split);
  return members;
}

/// At most 24 of them, evenly spread, for a grid of samples.
std::vector<size_t> shown(const std::vector<size_t>& members) {
  const size_t n = std::min<size_t>(members.size(), 24);
  std::vector<size_t> out;
  for (size_t i = 0; i < n; ++i) out.push_back(members[i * members.size() / n]);
  return out;
}

int train_autoencoder(const Common& common, AutoencoderRun r) {
  check_files(r.run, {{"--from", r.from}}, "vae");
  const AutoencoderConfig config = autoencoder_config(r);
  const RunLock lock({r.run.out});
  const auto device = open_device(common);
  const ProfileSession profile(*device, r.run.profile);
  const Dataset data = open_dataset(r.run.data);
  const std::vector<size_t> members = members_of(data, r.options.split, kAutoencoderSplits);
  AutoencoderKL model = r.from.empty() ? AutoencoderKL(config) : load_autoencoder(*device, r.from);
  check_side(r.options.size, model.config().factor());
  r.run.split = r.options.split;
  AutoencoderTrainer trainer(*device, model, data, r.options);
  if (!r.from.empty()) trainer.inputs().set_files("from", {r.from});
  const auto sample = [&](const std::string& path) {
    const Tensor x = pictures(*device, data, shown(members), r.options.size);
    io::write_png(path, picture_grid({x, model.decode(model.encode(x).mean)}, 12));
  };
  const auto finish = [&] {
    if (!r.options.decoder_only) measure_latents(*device, model, data, members, r.options.size);
    save_autoencoder((fs::path(r.run.out) / "vae").string(), model, r.options.size);
  };
  return train_loop(trainer, common, r.run, {"vae/config.json", "vae/diffusion_pytorch_model.safetensors"},
                    sample, finish);
}

void add_autoencoder(CLI::App& train) {
  auto common = std::make_shared<Common>();
  auto r = std::make_shared<AutoencoderRun>();
  TrainOptions& t = r->options.train;
  r->options.split.clear();
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
  c->add_option(
      "--split", r->options.split,
      "part of the data set, \"all\" = everything; default: autoencoder of the emoji, else train, else all");
  c->add_option("--widths", r->widths, "channels of each level, full resolution first")
      ->capture_default_str()
      ->transform(whole(1, kMostWidth));
  c->add_option(
       "--family", r->family,
       "flux1, or flux2: 1x1 convolutions around the latent, which transformers see folded into squares "
       "of 2x2 cells and standardised by statistics that are measured in the end")
      ->capture_default_str();
  c->add_option("--latent-channels", r->latent_channels,
                "channels of the latent before it is folded; default: 16, with --family flux2 32")
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
  for (const char* size : {"--family", "--widths", "--latent-channels", "--blocks", "--groups"})
    from->excludes(c->get_option(size));
  c->add_flag("--decoder-only", r->options.decoder_only,
              "leave the encoder, and so the latents that a transformer was trained on, as they are")
      ->needs(from);
}

struct FlowRun {
  RunOptions run;
  FlowTrainOptions options;
  std::string family = "flux1", vae, from, tokenizers;
  ModelSizes sizes;
  int sample_steps = 8;
  float sample_cfg = 2;
};

// What a family's TrainableModel::save() writes.
const std::vector<std::string> kModelFiles{
    "model/model_index.json",
    "model/*/config.json",
    "model/scheduler/scheduler_config.json",
    "model/*/model.safetensors",
    "model/*/diffusion_pytorch_model.safetensors",
    "model/tokenizer*/vocab.json",
    "model/tokenizer*/merges.txt",
    "model/tokenizer*/spiece.model",
    "model/tokenizer*/tokenizer.json",
    "model/tokenizer*/tokenizer_config.json",
    "model/tokenizer*/chat_template.jinja",
};

/// The folder of the tokenizers: the one asked for, the data set's, those of the model to start from, or the
/// run's own, made from the captions.
std::string tokenizers_for(const FlowRun& r, const Dataset& data) {
  if (!r.tokenizers.empty()) return r.tokenizers;
  // A language model has one tokenizer, CLIP and T5 have one each.
  const bool chat = family(r.family).tokenizer_names.size() == 1;
  const auto has = [chat](const std::string& folder) {
    return chat ? has_chat_tokenizer(folder) : has_tokenizers(folder);
  };
  for (const std::string& folder : {r.run.data, r.from}) {
    if (!folder.empty() && has(folder)) return folder;
  }
  const std::string own = (fs::path(r.run.out) / "tokenizers").string();
  std::error_code ignored;
  const bool resumes = !r.run.fresh && fs::exists(RunFolder{r.run.out}.checkpoint(), ignored);
  if (!resumes || !has(own)) {
    TokenizerSizes sizes;
    sizes.clip_length = sizes.t5_length = r.sizes.tokens;
    if (chat) {
      write_chat_tokenizer(own + "/tokenizer", train_chat_bpe(tokenizer_texts(data), sizes.clip_vocab),
                           r.sizes.tokens);
    } else {
      write_tokenizers(own, tokenizer_texts(data), sizes);
    }
    spdlog::info("{} has no tokenizers: made from its captions in {}", r.run.data, own);
  }
  return own;
}

/// Every caption once through the tokenizers, before the work.
void check_captions(const TrainableModel& model, const Dataset& data, const std::vector<size_t>& members,
                    const CaptionMix& mix) {
  std::vector<std::string> captions;
  for (const size_t i : members) {
    for (std::string& text : possible_captions(data.items()[i], mix)) captions.push_back(std::move(text));
  }
  say_cuts("captions", captions, model.cuts(captions));
}

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
  check_files(r.run, {{"--vae", r.vae}, {"--from", r.from}, {"--tokenizers", r.tokenizers}}, "model");
  const RunLock lock({r.run.out});
  const auto device = open_device(common);
  const ProfileSession profile(*device, r.run.profile);
  const Dataset data = open_dataset(r.run.data);
  const auto vae = std::make_shared<AutoencoderKL>(load_autoencoder(*device, r.vae));
  const AutoencoderCodec codec(vae);
  r.sizes.latent_channels = vae->config().folded_channels();
  const std::vector<size_t> members = members_of(data, r.options.split, kFlowSplits);
  r.run.split = r.options.split;
  r.sizes.tokenizers = tokenizers_for(r, data);
  const auto model = family(r.family).create(r.sizes);
  check_captions(*model, data, members, r.options.captions);
  if (!r.from.empty()) model->load(*device, r.from);
  ModelInfo info{model->backbone().layout(), vae->config().factor(), model->schedule(), {}};
  info.defaults.steps = r.sample_steps;
  info.defaults.cfg = r.sample_cfg;
  info.defaults.width = info.defaults.height = r.options.size;
  check_side(r.options.size, info.pixels_per_token());
  FlowTrainer trainer(*device, *model, codec, data, r.options);
  trainer.inputs().set("family", r.family);
  if (!r.from.empty()) trainer.inputs().set_files("from", {r.from});
  trainer.inputs().set_files("vae", {r.vae});
  std::vector<std::string> tokenizers;
  for (const std::string_view name : family(r.family).tokenizer_names)
    tokenizers.push_back(fmt::format("{}/{}", r.sizes.tokenizers, name));
  trainer.inputs().set_files("tokenizers", tokenizers);
  const auto sample = [&](const std::string& path) {
    std::vector<std::string> prompts;
    for (const size_t i : shown(members)) prompts.push_back(data.items()[i].name());
    const Tensor tokens =
        sample_latents(model->backbone(), info, model->encode(prompts),
                       model->encode(std::vector<std::string>(prompts.size())), {}, r.options.train.seed);
    const int64_t side = r.options.size / vae->config().factor();
    io::write_png(path, picture_grid({codec.decode(info.layout.geometry.unpack(tokens, side, side))}, 12));
  };
  return train_loop(trainer, common, r.run, kModelFiles, sample,
                    [&] { model->save((fs::path(r.run.out) / "model").string(), r.vae, info.defaults); });
}

void add_flow(CLI::App& train) {
  auto common = std::make_shared<Common>();
  auto r = std::make_shared<FlowRun>();
  TrainOptions& t = r->options.train;
  r->options.split.clear();
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
  c->add_option(
      "--tokenizers", r->tokenizers,
      "folder with the folders tokenizer and tokenizer_2 (FLUX.2: tokenizer alone); default: the data set's, "
      "else those of --from, else made from the captions (vkflux dataset tokenizers makes FLUX.1's too)");
  c->add_option("--size", r->options.size, "pixels a side")
      ->capture_default_str()
      ->transform(whole(1, kMostTrainingSide));
  c->add_option(
      "--split", r->options.split,
      "part of the data set, \"all\" = everything; default: s493 of the emoji, else train, else all");
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
  c->add_option("--tokens", r->sizes.tokens,
                "tokens of a text encoder; of FLUX.2 with the 14 or so of the chat template")
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
