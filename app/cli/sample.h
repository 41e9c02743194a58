// The parts of `vkflux sample`: its flags, drawing, and what it writes; `vkflux report` draws with them too.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "app/attention_trace.h"
#include "app/cli/cli.h"
#include "app/cli/memory_options.h"
#include "app/cli/profile.h"
#include "app/cli/sample_pictures.h"
#include "app/cli/sample_preview.h"
#include "app/cli/sample_sampling.h"
#include "app/gallery.h"
#include "app/loras.h"
#include "app/outputs.h"
#include "app/picture_metrics.h"
#include "app/routing.h"
#include "app/sweep/plan.h"
#include "app/sweep/prompt_list.h"
#include "app/weights.h"
#include "model/pipeline.h"

namespace vkflux::cli {

struct SampleArgs {
  std::string model, prompts_file, size, out = "out.png", html, grid, noise = "counter", weights = "file",
                                         seeds, sweep_mode = "combinations", trace;
  ModelFlags parts;
  std::vector<std::string> prompts, sweeps, negative;
  std::vector<std::string> texts = {};  // of --prompt and --prompts, which may be a pipe: read once
  uint64_t seed = 0;
  int64_t steps = 0, batch = 1;
  float guidance = -1, cfg = -1;
  bool compare = false, no_replay = false;
  std::string from_image;
  int64_t quality = 90;  // of JPEG and WebP
  PictureArgs pictures;
  PreviewArgs preview;
  ProfileArgs profile;
  RoutingArgs routing;
  LoraArgs loras;
  MemoryArgs memory;
  SamplingArgs sampling;
};

/// Adds --ttr, --controller, --quality-speed, --policy, --policy-temperature and --layers.
void add_routing_options(CLI::App& command, RoutingArgs& args);

/// The settings of one run of the sampler.
struct Shot {
  GenerateRequest request;
  double quality_speed = 0, temperature = 1;  // of routed runs
  std::vector<std::string> labels;            // what makes it differ from its neighbours
  std::string save_latents, model;            // where its latents go before decoding; "": nowhere
  std::string unfinished;                     // where they go when it is interrupted
};

/// One picture with everything that is known about it.
struct Drawn {
  std::string prompt, negative;
  uint64_t seed = 0;
  RgbImage image;
  std::vector<float> latent;
  GenerateResult run;  // without its images: settings used, reports, timings of the whole batch
  size_t index = 0;    // in the batch
  bool routed = false;
  double quality_speed = 0, temperature = 1, strength = 1;
  std::vector<std::string> labels;
};

struct SampleSession {
  std::unique_ptr<Device> device;
  std::unique_ptr<Pipeline> pipeline;
  std::unique_ptr<RouterSource> routing;  // null: full attention only
  std::unique_ptr<ProfileSession> profile;
  std::unique_ptr<Previewer> previewer;
  std::set<double> said;  // settings of the knob whose plan was said

  SampleSession(const Common& common, const SampleArgs& args);
  /// How many layers may be replaced.
  int64_t layers() const { return static_cast<int64_t>(pipeline->info().layout.replaceable().size()); }
};

void declare_inputs(const SampleArgs& args, FileUse& files);
/// The request that the flags describe, without prompts.
GenerateRequest base_request(const SampleArgs& args);
/// Draws the pictures of a shot; with `routed` by the session's router. Shows progress as `what` and stops
/// when interrupted (error cancelled).
std::vector<Drawn> draw(SampleSession& session, const Shot& shot, bool routed, const std::string& what,
                        AttentionTap* tap = nullptr);

/// A picture beside that of full attention with the same settings.
struct Compared {
  PictureMetrics picture;
  VectorMetrics latent;
};
Compared compare(const Drawn& drawn, const Drawn& full);
nlohmann::ordered_json compared_json(const Compared& c);

/// The settings of a picture, as they are stored in its file.
nlohmann::ordered_json settings_json(const Drawn& d, const SampleArgs& args);
/// Writes it with its settings, as the name's end says; the file's bytes come back.
std::string save_picture(const std::string& path, const Drawn& d, const SampleArgs& args);
GalleryInfo gallery_info(const SampleSession& session, const Drawn& d, const SampleArgs& args);
/// A device or a pipe, /dev/stdout say.
bool is_stream(const std::string& path);
/// Where an interrupted run leaves its latents; "": nowhere.
std::string unfinished_file(const SampleArgs& args);
/// Whether --out names one picture, not a folder. Error invalid_argument for another kind of picture.
bool is_picture_name(const std::string& path);
/// Where picture i of n goes: into the folder --out, or beside the file --out with a number.
std::string picture_path(const SampleArgs& args, size_t i, size_t n, const std::string& prompt);
/// "apple.png" + "-full" -> "apple-full.png"
std::string with_suffix(const std::string& path, const std::string& suffix);

/// The names of everything that save_comparison() writes beside a picture, and the command its figures to.
struct ComparisonFiles {
  std::string full, difference, sheet, figures;
};
ComparisonFiles comparison_files(const std::string& picture);

/// full | routed | difference with labels, beside `path` as -full, -difference and -compare; the figures as
/// JSON with the files' names.
nlohmann::ordered_json save_comparison(const std::string& path, const Drawn& routed, const Drawn& full,
                                       const SampleArgs& args, int64_t layers);

/// Everything that run_sweep() writes. Error invalid_argument for a sweep that can't be.
void declare_sweep(const SampleArgs& args, FileUse& files);
/// Many pictures of --seeds and --sweep: pictures, contact sheet, table as CSV and JSON.
int run_sweep(SampleSession& session, const Common& common, const SampleArgs& args);

void add_report(CLI::App& app);

constexpr int kDifferenceGain = 4;

}  // namespace vkflux::cli
