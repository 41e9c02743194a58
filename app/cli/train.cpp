#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <filesystem>

#include "app/cli/cli.h"
#include "app/cli/profile.h"
#include "autograd/ops.h"
#include "model/io/file.h"
#include "model/io/json.h"
#include "model/io/png.h"
#include "model/load.h"
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
};

void add_train_options(CLI::App* c, RunOptions& run, TrainOptions& t) {
  add_profile_options(*c, run.profile);
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
  std::string from;
  AutoencoderTrainOptions options;
  std::vector<int64_t> widths{16, 32, 64, 64};
  int64_t latent_channels = 16, blocks = 1, groups = 8;
};

AutoencoderKL autoencoder_to_train(Device& device, const AutoencoderRun& r) {
  if (!r.from.empty()) return load_autoencoder(device, r.from);
  AutoencoderConfig config;
  config.encoder_widths = config.decoder_widths = r.widths;
  config.latent_channels = r.latent_channels;
  config.blocks = r.blocks;
  config.groups = r.groups;
  return AutoencoderKL(config);
}

int train_autoencoder(const Common& common, const AutoencoderRun& r) {
  const auto device = open_device(common);
  const ProfileSession profile(*device, r.run.profile);
  const Dataset data = Dataset::open(r.run.data);
  AutoencoderKL model = autoencoder_to_train(*device, r);
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
    const fs::path folder = fs::path(r.run.out) / "vae";
    save(parameters(model), (folder / "diffusion_pytorch_model.safetensors").string(),
         io::vae_names(model.config().levels()), io::FileDType::f16);
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
  t.weight_decay = 1e-4;
  CLI::App* c =
      add_command(train, "autoencoder", "train an autoencoder (AutoencoderKL) on pictures",
                  "vkflux train autoencoder --data emoji --out runs/vae --steps 3800", common, [common, r] {
                    r->options.loaded = !r->from.empty();
                    return train_autoencoder(*common, *r);
                  });
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
  c->add_option("--gradient", r->options.gradient_weight, "weight of the L1 of finite differences")
      ->capture_default_str();
  c->add_option("--mse", r->options.mse_weight, "weight of the squared error")->capture_default_str();
  c->add_option("--noise", r->options.noise, "of the posterior sample, in its standard deviations")
      ->capture_default_str();
  c->add_option("--permute", r->options.permute, "share of pictures with exchanged colour channels")
      ->capture_default_str();
  c->add_option("--shift", r->options.shift, "share of shifted pictures")->capture_default_str();
  c->add_option("--background", r->options.background, "share of pictures on another colour than white")
      ->capture_default_str();
  CLI::Option* from =
      c->add_option("--from", r->from, "start from this autoencoder folder; its sizes are kept");
  c->add_flag("--decoder-only", r->options.decoder_only,
              "leave the encoder, and so the latents that a transformer was trained on, as they are")
      ->needs(from);
}

struct FlowRun {
  RunOptions run;
  FlowTrainOptions options;
  std::string vae, from;
  int64_t hidden = 192, heads = 3, depth = 2, depth_single = 4, text_width = 128, text_layers = 2,
          text_heads = 4, text_mlp = 256;
  int tokens = 8;
  int sample_steps = 8;
  float sample_cfg = 2;
};

FlowModel make_flow_model(const FlowRun& r, int64_t latent_channels) {
  std::shared_ptr<const Tokenizer> clip_tokenizer =
      load_clip_tokenizer((fs::path(r.run.data) / "tokenizer").string());
  std::shared_ptr<const Tokenizer> t5_tokenizer =
      load_t5_tokenizer((fs::path(r.run.data) / "tokenizer_2").string());
  Flux1Config flux;
  flux.in_channels = flux.out_channels = 4 * latent_channels;
  flux.vec_in_dim = flux.context_in_dim = r.text_width;
  flux.hidden = r.hidden;
  flux.mlp_hidden = 4 * r.hidden;
  flux.heads = r.heads;
  flux.head_dim = r.hidden / r.heads;
  flux.depth = r.depth;
  flux.depth_single = r.depth_single;
  flux.axes_dim = default_rope_axes(flux.head_dim);
  ClipTextConfig clip;
  clip.vocab = clip_tokenizer->vocab_size();
  clip.positions = r.tokens;
  clip.width = r.text_width;
  clip.layers = r.text_layers;
  clip.heads = r.text_heads;
  clip.mlp = r.text_mlp;
  clip.eos = clip_tokenizer->eos_id();
  T5Config t5;
  t5.vocab = t5_tokenizer->vocab_size();
  t5.width = r.text_width;
  t5.layers = r.text_layers;
  t5.heads = r.text_heads;
  t5.head_dim = r.text_width / r.text_heads;
  t5.mlp = r.text_mlp;
  return {Flux1(flux), ClipText(clip), T5Encoder(t5), clip_tokenizer, t5_tokenizer, r.tokens, r.tokens};
}

void load_flow_model(Device& device, const std::string& dir, FlowModel& m) {
  const auto part = [&](const char* name, auto& module, const io::NameTable& names) {
    const std::string folder = (fs::path(dir) / name).string();
    const ErrorContext context(folder);
    const auto file = io::open_tensors(folder);
    load(parameters(module), io::NamedTensors(*file, names), device);
  };
  part("transformer", m.transformer, io::flux1_names());
  part("text_encoder", m.clip, io::clip_names());
  part("text_encoder_2", m.t5, io::t5_names());
}

void write_json(const fs::path& path, const io::Json& json) {
  io::atomic_write(path.string(), json.dump(2) + "\n");
}

/// The run's model as a checkpoint folder in diffusers layout.
void export_model(const FlowRun& r, FlowModel& m) {
  const fs::path out = fs::path(r.run.out) / "model";
  const Flux1Config& flux = m.transformer.config();
  save(parameters(m.transformer), (out / "transformer/diffusion_pytorch_model.safetensors").string(),
       io::flux1_names(), io::FileDType::f16, flux1_row_split(flux));
  write_json(out / "transformer/config.json", io::Json(flux1_json(flux)));
  save(parameters(m.clip), (out / "text_encoder/model.safetensors").string(), io::clip_names(),
       io::FileDType::f16);
  write_json(out / "text_encoder/config.json", clip_json(m.clip.config()));
  save(parameters(m.t5), (out / "text_encoder_2/model.safetensors").string(), io::t5_names(),
       io::FileDType::f16);
  write_json(out / "text_encoder_2/config.json", t5_json(m.t5.config()));
  Schedule schedule = Schedule::flux1_schnell();
  write_json(out / "scheduler/scheduler_config.json", schedule.to_json());
  const auto copy = [&](const fs::path& from, const fs::path& to) {
    for (const auto& e : fs::directory_iterator(from)) {
      if (e.is_regular_file())
        io::atomic_write((to / e.path().filename()).string(), io::read_file(e.path().string()));
    }
  };
  copy(fs::path(r.run.data) / "tokenizer", out / "tokenizer");
  copy(fs::path(r.run.data) / "tokenizer_2", out / "tokenizer_2");
  copy(r.vae, out / "vae");
  io::Json index{{"_class_name", "FluxPipeline"}};
  const auto part = [&](const char* name, const char* library, const char* cls) {
    index[name] = {library, cls};
  };
  part("scheduler", "diffusers", "FlowMatchEulerDiscreteScheduler");
  part("text_encoder", "transformers", "CLIPTextModel");
  part("text_encoder_2", "transformers", "T5EncoderModel");
  part("tokenizer", "transformers", "CLIPTokenizer");
  part("tokenizer_2", "transformers", "T5TokenizerFast");
  part("transformer", "diffusers", "FluxTransformer2DModel");
  part("vae", "diffusers", "AutoencoderKL");
  index["vkflux"] = {
      {"steps", r.sample_steps}, {"cfg", r.sample_cfg}, {"size", r.options.size}, {"txt_tokens", r.tokens}};
  write_json(out / "model_index.json", index);
}

int train_flow(const Common& common, const FlowRun& r) {
  const auto device = open_device(common);
  const ProfileSession profile(*device, r.run.profile);
  const Dataset data = Dataset::open(r.run.data);
  const AutoencoderKL vae = load_autoencoder(*device, r.vae);
  FlowModel model = make_flow_model(r, vae.config().latent_channels);
  if (!r.from.empty()) load_flow_model(*device, r.from, model);
  FlowTrainer trainer(*device, model, vae, data, r.options);
  const std::vector<size_t> members = data.split(r.options.split);
  const auto sample = [&](const std::string& path) {
    std::vector<std::string> prompts;
    for (size_t i = 0; i < 24; ++i) prompts.push_back(data.items()[members[i * members.size() / 24]].name());
    const int64_t side = r.options.size / (2 * vae.config().factor());
    const SampleOptions options{r.sample_steps, r.sample_cfg, r.options.train.seed, side, side};
    const Tensor tokens = sample_latents(model.transformer, encode_prompts(model, prompts),
                                         encode_prompts(model, std::vector<std::string>(prompts.size())),
                                         Schedule::flux1_schnell(), options);
    const int64_t latent = r.options.size / vae.config().factor();
    io::write_png(path,
                  picture_grid({vae.decode(vae.from_latent(op::unpatchify(tokens, 2, latent, latent)))}, 12));
  };
  return train_loop(trainer, common, r.run, sample, [&] { export_model(r, model); });
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
      add_command(train, "flow", "train a FLUX.1 transformer with its text encoders by flow matching",
                  "vkflux train flow --data emoji --vae runs/vae/vae --out runs/flow", common, [common, r] {
                    r->options.loaded = !r->from.empty();
                    return train_flow(*common, *r);
                  });
  add_train_options(c, r->run, t);
  c->add_option("--vae", r->vae, "folder of the trained autoencoder (config.json and weights)")->required();
  c->add_option("--from", r->from, "start from this model folder (of the same sizes)");
  c->add_option("--size", r->options.size, "pixels a side")->capture_default_str();
  c->add_option("--split", r->options.split, "part of the data set (\"all\" = everything)")
      ->capture_default_str();
  c->add_option("--keywords", r->options.captions.variants, "share of captions that are another wording")
      ->capture_default_str();
  c->add_option("--tints", r->options.captions.colored, "share of recoloured pictures (\"blue dog face\")")
      ->capture_default_str();
  c->add_option("--empty", r->options.captions.empty, "share of empty captions, for guidance")
      ->capture_default_str();
  c->add_option("--hidden", r->hidden, "width of the transformer")->capture_default_str();
  c->add_option("--heads", r->heads, "attention heads")->capture_default_str();
  c->add_option("--depth", r->depth, "double blocks")->capture_default_str();
  c->add_option("--depth-single", r->depth_single, "single blocks")->capture_default_str();
  c->add_option("--tokens", r->tokens, "text tokens of both encoders")->capture_default_str();
}

}  // namespace

void add_train(CLI::App& app) {
  CLI::App* train =
      app.add_subcommand("train", "train an autoencoder or a FLUX.1 transformer with its text encoders");
  train->require_subcommand(1);
  add_autoencoder(*train);
  add_flow(*train);
}

}  // namespace vkflux::cli
