#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <optional>

#include "app/cli/cli.h"
#include "app/cli/data.h"
#include "app/cli/numbers.h"
#include "model/io/decimal.h"
#include "model/io/json.h"
#include "model/pipeline.h"
#include "model/vae/load.h"
#include "train/autoencoder_trainer.h"
#include "train/flow_trainer.h"

namespace vkflux::cli {
namespace {

struct Options {
  std::string model, vae, data, split, candidates, vae_split;
  std::optional<std::string> unseen;
  int64_t names = 0;  // 0: all
  int size = 64, steps = 0;
  float cfg = -1;
  uint64_t seed = 0;
};

std::vector<size_t> spread(const std::vector<size_t>& all, int64_t n) {
  if (n <= 0 || n >= static_cast<int64_t>(all.size())) return all;
  std::vector<size_t> out;
  for (int64_t i = 0; i < n; ++i)
    out.push_back(all[static_cast<size_t>(i) * all.size() / static_cast<size_t>(n)]);
  return out;
}

nlohmann::ordered_json psnr(Device& device, const AutoencoderKL& vae, const Dataset& data,
                            const std::vector<size_t>& items, int size) {
  const std::vector<double> db = reconstruction_psnr(device, vae, data, items, size);
  const double mean =
      std::accumulate(db.begin(), db.end(), 0.0) / static_cast<double>(std::max<size_t>(db.size(), 1));
  return {{"pictures", db.size()},
          {"mean_db", mean},
          {"worst_db", db.empty() ? 0 : *std::min_element(db.begin(), db.end())}};
}

nlohmann::ordered_json recall(Device& device, const Dataset& data, const Options& o) {
  const auto pipeline = Pipeline::load(device, o.model);
  const std::vector<size_t> names = spread(data.split(o.split), o.names),
                            candidates = data.split(o.candidates);
  std::vector<size_t> cached = candidates;
  cached.insert(cached.end(), names.begin(), names.end());
  std::sort(cached.begin(), cached.end());
  cached.erase(std::unique(cached.begin(), cached.end()), cached.end());
  const ModelInfo& info = pipeline->info();
  const LatentCache cache(device, *pipeline->codec(), info.layout.geometry, data, cached, o.size, false);
  const auto backbone = pipeline->backbone();
  std::vector<std::string> prompts;
  for (const size_t i : names) prompts.push_back(data.items()[i].name());
  say_cuts("names", prompts, pipeline->cuts(prompts));
  SamplingRequest request;
  request.width = request.height = o.size;
  request.steps = o.steps;
  if (o.cfg >= 0) request.cfg = o.cfg;
  const SamplingOptions used = sampling_setup(info, request).options;
  Progress progress("recall", static_cast<int64_t>(names.size()));
  int64_t done = 0;
  const auto sample = [&](const std::vector<std::string>& asked, uint64_t seed) {
    done += static_cast<int64_t>(asked.size());
    Tensor x = sample_latents(*backbone, info, pipeline->encode(asked),
                              pipeline->encode(std::vector<std::string>(asked.size())), request, seed);
    progress.update(done);
    return x;
  };
  const RecallReport r = nearest_latent_recall(sample, cache, data, names, cached, o.seed);
  return {{"names", r.tried},
          {"candidates", cached.size()},
          {"steps", used.levels.size() - 1},
          {"cfg", io::decimal(used.cfg)},
          {"recall", static_cast<double>(r.right) / static_cast<double>(std::max<int64_t>(r.tried, 1))},
          {"latent_mse", r.latent_mse},
          {"wrong", r.wrong}};
}

/// Splits that weren't asked for: those of the emoji set, or of a folder without splits.
void choose_splits(Options& o, const Dataset& data) {
  const auto choose = [&](std::string& split, const std::vector<std::string>& names) {
    if (split.empty()) split = data.first_split(names);
  };
  choose(o.split, {"s493", "train"});
  choose(o.candidates, {"s775"});
  choose(o.vae_split, {"autoencoder", "train"});
  if (o.unseen) return;
  o.unseen = data.first_split({"unseen", "test"});
  if (*o.unseen == "all") o.unseen = "";  // every picture was seen
}

int run(const Common& common, Options o) {
  if (o.model.empty() == o.vae.empty())
    throw Error(ErrorCode::invalid_argument, "give either --model or --vae");
  const auto device = open_device(common);
  const Dataset data = open_dataset(o.data);
  choose_splits(o, data);
  nlohmann::ordered_json j;
  const AutoencoderKL vae = load_autoencoder(*device, o.model.empty() ? o.vae : o.model + "/vae");
  j["autoencoder"] = {{"seen", psnr(*device, vae, data, spread(data.split(o.vae_split), o.names), o.size)}};
  if (!o.unseen->empty())
    j["autoencoder"]["unseen"] = psnr(*device, vae, data, spread(data.split(*o.unseen), o.names), o.size);
  if (!o.model.empty()) j["recall"] = recall(*device, data, o);
  if (common.json) {
    print_out("{}\n", io::json_text(j, 1));
    return kOk;
  }
  for (const auto& [name, v] : j["autoencoder"].items()) {
    print_out("autoencoder, {:<7} {:.2f} dB mean, {:.2f} dB worst of {} pictures\n", name + ":",
              v["mean_db"].get<double>(), v["worst_db"].get<double>(), v["pictures"].get<size_t>());
  }
  if (j.contains("recall")) {
    const auto& r = j["recall"];
    print_out(
        "nearest-latent recall: {:.1f}% of {} names among {} pictures ({} steps, cfg {}), latent MSE "
        "{:.4f}\n",
        100 * r["recall"].get<double>(), r["names"].get<int64_t>(), r["candidates"].get<size_t>(),
        r["steps"].get<int>(), r["cfg"].get<double>(), r["latent_mse"].get<double>());
    for (const auto& w : r["wrong"]) print_out("  {}\n", w.get<std::string>());
  }
  return kOk;
}

}  // namespace

void add_eval(CLI::App& app) {
  auto common = std::make_shared<Common>();
  auto o = std::make_shared<Options>();
  CLI::App* c = add_command(
      app, "eval", "measure a trained model: reconstruction in dB, nearest-latent recall of its names",
      "vkflux eval --model models/emoji --data emoji", common, [common, o] { return run(*common, *o); });
  c->add_option("--model", o->model, "a model's folder or file, or its name in the Hugging Face cache");
  c->add_option("--vae", o->vae, "an autoencoder's folder, to measure that alone");
  c->add_option("--data", o->data, "data set folder")->required();
  c->add_option("--split", o->split, "the names to draw; default: s493 of the emoji, else train, else all");
  c->add_option("--candidates", o->candidates,
                "the pictures to choose the nearest from; default: s775 of the emoji, else all");
  c->add_option(
      "--vae-split", o->vae_split,
      "pictures the autoencoder was trained on; default: autoencoder of the emoji, else train, else all");
  c->add_option("--unseen", o->unseen,
                "pictures it never saw (empty: none); default: unseen of the emoji, else test, else none");
  c->add_option("--names", o->names, "this many, evenly spread; 0 = all")
      ->capture_default_str()
      ->transform(whole(0, kMostSteps));
  c->add_option("--size", o->size, "pixels a side")
      ->capture_default_str()
      ->transform(whole(1, kMostTrainingSide));
  c->add_option("--steps", o->steps, "denoising steps; default: the model's")
      ->transform(whole(1, kMostSamplingSteps));
  c->add_option("--cfg", o->cfg, "true guidance; default: the model's")->transform(real(0, kMostGuidance));
  c->add_option("--seed", o->seed, "of the first name")->capture_default_str()->transform(any_seed());
}

}  // namespace vkflux::cli
