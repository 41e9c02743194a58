// vkflux plan: what a picture takes on the device, before anything is loaded.
#include <fmt/format.h>

#include "app/cli/cli.h"
#include "app/cli/memory.h"
#include "app/cli/memory_options.h"
#include "app/cli/model_flags.h"
#include "app/cli/numbers.h"
#include "app/weights.h"
#include "model/io/json.h"
#include "model/pipeline.h"

namespace vkflux::cli {
namespace {

using Json = nlohmann::ordered_json;

struct Options {
  std::string model, synthetic, size, weights = "file";
  ModelFlags parts;
  MemoryArgs memory;
  int64_t batch = 1, steps = 0;
  float cfg = -1;
  bool init = false;
};

GenerateRequest request_of(const Options& o) {
  GenerateRequest r;
  r.prompts = {""};
  std::tie(r.width, r.height) = parse_size(o.size);
  r.batch = o.batch;
  r.steps = o.steps;
  if (o.cfg >= 0) r.cfg = o.cfg;
  return r;
}

int run(const Common& common, const Options& o) {
  if (o.model.empty() == o.synthetic.empty()) {
    throw Error(ErrorCode::invalid_argument,
                "give --model, or --synthetic for a public model that isn't here");
  }
  const auto device = open_device(common, vram_of(o.memory));
  const ModelOptions options = with_memory(model_options(o.weights, o.parts), o.memory);
  const std::unique_ptr<Pipeline> pipeline =
      o.synthetic.empty()
          ? Pipeline::load(*device, o.model, options)
          : std::make_unique<Pipeline>(*device, published_model(*device, o.synthetic, options), options);
  GenerateRequest request = request_of(o);
  if (o.init) request.init = RgbImage{1, 1, {0, 0, 0}};
  const MemoryPlan plan = pipeline->planned_for(request);
  if (common.json) {
    print_out("{}\n", io::json_text(plan_json(plan, pipeline->parts()), 1));
  } else {
    print_out("{}\n", plan_text(plan, pipeline->parts()));
  }
  return plan.fits ? kOk : kLimit;
}

}  // namespace

void add_plan(CLI::App& app) {
  auto common = std::make_shared<Common>();
  auto o = std::make_shared<Options>();
  CLI::App* c =
      add_command(app, "plan", "say what a picture takes of the device's memory, before anything is loaded",
                  "vkflux plan --model models/emoji --vram 2\n  "
                  "vkflux plan --synthetic flux1-dev --weights q4_k --size 1024x1024 --vram 8",
                  common, [common, o] { return run(*common, *o); });
  add_model_options(*c, o->model, o->parts, false);
  add_reading_options(*c, o->parts);
  c->add_option("--synthetic", o->synthetic, "a public model by its shapes alone")
      ->check(CLI::IsMember(published_models()));
  c->add_option("--size", o->size, "WIDTHxHEIGHT in pixels; default: the model's")->check(picture_size());
  c->add_option("--batch", o->batch, "pictures of one prompt")
      ->capture_default_str()
      ->transform(whole(1, 4096));
  c->add_option("--steps", o->steps, "denoising steps; default: the model's")
      ->transform(whole(1, kMostSamplingSteps));
  c->add_option("--cfg", o->cfg, "true guidance, 1 = off; default: the model's")
      ->transform(real(0, kMostGuidance));
  c->add_flag("--init", o->init, "image to image");
  add_weights_option(*c, o->weights);
  add_memory_options(*c, o->memory);
}

}  // namespace vkflux::cli
