// One denoising step: of a checkpoint folder's model, and of a small transformer of random weights.
#include <fmt/format.h>

#include <cmath>
#include <filesystem>
#include <memory>

#include "autograd/ops.h"
#include "bench/cases.h"
#include "bench/host_flux.h"
#include "model/flux/rope.h"
#include "model/pipeline.h"
#include "model/sampler/noise.h"

namespace vkflux::bench {
namespace {

/// What one step of a denoising run needs.
struct StepSetup {
  std::shared_ptr<HostFlux::Model> model;
  Condition positive;
  std::optional<Condition> negative;
  Tensor x;
  SamplingOptions options;

  Instance instance() const {
    const auto self = std::make_shared<StepSetup>(*this);
    Instance i;
    i.prepare = [self] {
      const auto run =
          std::make_shared<SamplingRun>(*self->model, self->positive, self->negative, self->x, self->options);
      return [run] {
        run->step();
        return Inputs{run->output()};
      };
    };
    i.reference = [self] { return self->expected(); };
    return i;
  }
  std::vector<Expected> expected() const {
    const HostFlux::Config& c = model->config();
    const int64_t text = positive["txt"].dim(1);
    const Tensor rope =
        rope_table(x.device(), flux1_ids(text, options.rows, options.columns), 1, c.axes_dim, c.theta);
    const HostFlux host(c, parameters(*model), rope.to_host(), text);
    const double t = options.levels[0];
    const auto velocity = [&](const Condition& f) {
      return host.forward(x.to_host(), f["txt"].to_host(), f["y"].to_host(), t);
    };
    Values v = velocity(positive);
    if (negative) {
      const Values n = velocity(*negative);
      for (size_t i = 0; i < v.size(); ++i) v[i] = n[i] + options.cfg * (v[i] - n[i]);
    }
    Expectation e;
    for (const int64_t i : spread(static_cast<int64_t>(v.size()), 1024)) e.add(i, v[static_cast<size_t>(i)]);
    return {e.take()};
  }
};

StepSetup checkpoint_step(Device& device, const std::string& folder) {
  const auto pipeline = Pipeline::load(device, folder);
  const ModelInfo& info = pipeline->info();
  StepSetup s;
  s.model = std::dynamic_pointer_cast<HostFlux::Model>(pipeline->backbone());
  if (!s.model) {
    throw Error(ErrorCode::unsupported,
                fmt::format("{}: the bench has no reference on the host for the family {}", folder,
                            info.layout.family));
  }
  s.positive = pipeline->encode({"red apple"});
  if (info.defaults.cfg != 1) s.negative = pipeline->encode({""});
  const SamplingSetup setup = sampling_setup(info, {});
  s.options = setup.options;
  s.x = info.layout.geometry.pack(initial_noise(device, seeds_from(1, 1), setup.latent, NoiseMode::counter));
  return s;
}

StepSetup random_step(Device& device, DType dtype) {
  constexpr int64_t kHidden = 512, kText = 64, kSide = 16;
  HostFlux::Config c;
  c.vec_in_dim = c.context_in_dim = 256;
  c.hidden = kHidden, c.mlp_hidden = 4 * kHidden, c.heads = 4, c.head_dim = 128;
  c.depth = 2, c.depth_single = 4;
  StepSetup s;
  s.model = std::make_shared<HostFlux::Model>(c);
  const std::vector<Param> params = parameters(*s.model);
  allocate(params, device);
  initialise(
      params,
      [](const Param& p) {
        return p.name.find("norm.scale") != std::string::npos ? Init{Init::Kind::constant, 1}
                                                              : Init{Init::Kind::normal, 0.03f};
      },
      1);
  for (const Param& p : params) {
    if (dtype != DType::f32 && p.shape.rank() == 2) *p.tensor = op::cast(*p.tensor, dtype);
  }
  s.positive = {{"txt", noise(device, {1, kText, 256})}, {"y", noise(device, {1, 256})}};
  s.x = noise(device, {1, kSide * kSide, c.in_channels});
  s.options.rows = s.options.columns = kSide;
  s.options.levels = {1, 0};
  return s;
}

}  // namespace

void add_steps(std::vector<Case>& cases, Device& device, const std::string& model) {
  if (!model.empty()) {
    Case c;
    c.name = "denoising step";
    c.shape = io::last_name(model);
    c.tolerance = 2e-3;
    c.make = [&device, model] { return checkpoint_step(device, model).instance(); };
    cases.push_back(c);
  }
  for (const DType dtype : {DType::f32, DType::bf16}) {
    Case c;
    c.name = "denoising step";
    c.shape = "random C512 2+4 T64 I256";
    c.dtype = vkflux::name(dtype);
    c.tolerance = dtype == DType::f32 ? 2e-3 : 3e-2;
    c.make = [&device, dtype] { return random_step(device, dtype).instance(); };
    cases.push_back(c);
  }
}

}  // namespace vkflux::bench
