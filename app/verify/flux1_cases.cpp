#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "app/verify/flux_parts.h"
#include "app/verify/table_check.h"
#include "autograd/ops.h"
#include "model/flux/rope.h"
#include "model/flux/transformer.h"
#include "model/sampler/schedule.h"
#include "vk/error.h"

namespace vkflux::verify {
namespace {

constexpr double kScheduleTolerance = 1e-6, kMuTolerance = 1e-12;
constexpr double kTheta = 10000;  // of rope, unless the file says otherwise

// What models without bias before attention haven't got.
std::string absent_biases(const nlohmann::json& config) {
  return field(config, "qkv_bias", true) ? "" : "qkv.bias";
}

Flux1Config model_config(const nlohmann::json& j) {
  Flux1Config c;
  c.in_channels = required<int64_t>(j, "in_channels");
  c.out_channels = field(j, "out_channels", c.in_channels);
  c.vec_in_dim = required<int64_t>(j, "vec_in_dim");
  c.context_in_dim = required<int64_t>(j, "context_in_dim");
  c.hidden = required<int64_t>(j, "hidden_size");
  c.mlp_hidden = mlp_width(c.hidden, j);
  c.heads = required<int64_t>(j, "num_heads");
  c.head_dim = c.hidden / std::max<int64_t>(1, c.heads);
  c.depth = required<int64_t>(j, "depth");
  c.depth_single = required<int64_t>(j, "depth_single_blocks");
  c.axes_dim = required<std::vector<int64_t>>(j, "axes_dim");
  c.theta = field(j, "theta", c.theta);
  c.guidance = field(j, "guidance_embed", false);
  return c;
}

}  // namespace

void run_flux1_block(Case& c) {
  const nlohmann::json& j = c.config();
  Flux1Config config;
  config.hidden = required<int64_t>(j, "hidden");
  config.heads = required<int64_t>(j, "heads");
  config.head_dim = config.hidden / std::max<int64_t>(1, config.heads);
  config.mlp_hidden = mlp_width(config.hidden, j);
  Trace trace;
  BlockContext context;
  context.rope = rope_of(c, c.in("ids"), j, kTheta);
  context.trace = &trace;
  context.tokens.text = field(j, "txt_tokens", int64_t{0});
  context.tokens.image = c.in("ids").dim(1) - context.tokens.text;
  c.tolerance("mid.pe", kRopeTolerance, true);
  std::vector<std::pair<Tensor, std::string>> outputs;
  if (c.has_in("x")) {
    SingleBlock block(config);
    c.use(block, "", absent_biases(j));
    const auto scope = c.tape().record();
    context.silu_vec = op::silu(c.in("vec"));
    outputs = {{block(c.in("x"), context, 0, 0), "x"}};
  } else {
    DoubleBlock block(config);
    c.use(block, "", absent_biases(j));
    const auto scope = c.tape().record();
    context.silu_vec = op::silu(c.in("vec"));
    const Streams y = block({c.in("img"), c.in("txt")}, context, 0);
    outputs = {{y.img, "img"}, {y.txt, "txt"}};
  }
  for (auto& [y, name] : outputs) {
    c.out(name, y);
    name = "loss_cotangent." + name;
  }
  for (const auto& [name, value] : trace) {
    const size_t dot = name.rfind('.');
    if (name.ends_with("_rope")) c.mid(name.substr(dot + 1), value);
  }
  c.backward(outputs);
}

void run_flux1_full(Case& c) {
  Flux1 model(model_config(c.config()));
  c.use(model, "", absent_biases(c.config()));
  Trace trace;
  PassInputs in;
  Tensor y;
  {
    const auto scope = c.tape().record();
    in.x = c.in("img");
    in.condition = {{"txt", c.in("txt")}, {"y", c.in("y")}};
    in.t = c.in("timesteps");
    if (model.config().guidance) in.guidance = c.in("guidance");
    model.prepare(in, joined_ids(c, {"txt_ids", "img_ids"}));
    y = model.forward(in, &trace);
  }
  c.out("img", y);
  // The sinusoids of 1000 t: float32 angles alone cost this much.
  c.tolerance("mid.timestep_embedding", 3e-4, true);
  for (const auto& [name, value] : trace) {
    if (c.file().has("mid." + name)) c.mid(name, value);
  }
  c.backward({{y, "loss_cotangent"}});
}

void run_flux1_denoise(Case& c) {
  Flux1 model(model_config(required<nlohmann::json>(c.config(), "model")));
  c.use(model, "", absent_biases(c.config().at("model")));
  check_trajectory(c, model, {{"txt", c.in("txt")}, {"y", c.in("vec")}}, {"txt_ids", "img_ids"});
}

void run_flux1_ids(Case& c) {
  c.tolerance("", 0, true);
  for (const auto& [tag, config] : c.config().items()) {
    if (c.has_in(tag + ".tokens")) {
      // A size that isn't a multiple of 16: the reference rounds the token grid up.
      const int64_t h = (required<int64_t>(config, "height") + 15) / 16,
                    w = (required<int64_t>(config, "width") + 15) / 16;
      c.out(tag + ".unpacked", op::unpatchify(c.in(tag + ".tokens"), 2, 2 * h, 2 * w));
      continue;
    }
    const Tensor latent = c.in(tag + ".latent");
    const int64_t batch = field(config, "prompts", latent.dim(0)), h = latent.dim(2) / 2,
                  w = latent.dim(3) / 2;
    const auto repeated = [&](const Tensor& x) {
      if (x.dim(0) == batch) return x;
      Shape shape = x.shape();
      shape[0] = batch;
      return op::expand(x, shape);
    };
    const Tensor img = op::patchify(repeated(latent), 2), txt = repeated(c.in(tag + ".txt"));
    const int64_t text = txt.dim(1);
    const std::vector<float> ids = flux1_ids(text, h, w);
    std::vector<float> img_ids, txt_ids;
    for (int64_t b = 0; b < batch; ++b) {
      txt_ids.insert(txt_ids.end(), ids.begin(), ids.begin() + text * 3);
      img_ids.insert(img_ids.end(), ids.begin() + text * 3, ids.end());
    }
    c.out(tag + ".img", img);
    c.out(tag + ".img_ids", img_ids);
    c.out(tag + ".txt", txt);
    c.out(tag + ".txt_ids", txt_ids);
    c.out(tag + ".vec", repeated(c.in(tag + ".vec")));
    c.out(tag + ".unpacked", op::unpatchify(img, 2, latent.dim(2), latent.dim(3)));
  }
}

void run_flux1_modules(Case& c) {
  const int64_t hidden = required<int64_t>(c.config(), "hidden");
  const auto scope_of = [&](const std::string& tag, const auto& fn) {
    std::vector<std::pair<Tensor, std::string>> outputs;
    {
      const auto scope = c.tape().record();
      outputs = fn();
    }
    for (auto& [y, name] : outputs) {
      c.out(tag + "." + name, y);
      name = "loss_cotangent." + tag + "." + name;
    }
    c.backward(outputs);
  };
  for (const auto& [tag, parts] : {std::pair{std::string("mod_double"), 6}, {std::string("mod_single"), 3}}) {
    if (!c.has_in(tag + ".vec")) continue;
    Linear lin{hidden, parts * hidden};
    c.use(lin, tag + ".lin.");
    scope_of(tag, [&, &tag = tag, parts = parts] {
      constexpr const char* kNames[] = {"shift", "scale", "gate"};
      const std::vector<Tensor> m = modulation(lin, op::silu(c.in(tag + ".vec")), parts);
      std::vector<std::pair<Tensor, std::string>> out;
      for (size_t i = 0; i < m.size(); ++i)
        out.emplace_back(m[i], fmt::format("{}{}", kNames[i % 3], i / 3 + 1));
      return out;
    });
  }
  if (c.has_in("last_layer.x")) {
    FinalLayer layer(hidden, required<int64_t>(c.config(), "out_channels"));
    c.use(layer, "last_layer.");
    scope_of("last_layer", [&] {
      return std::vector<std::pair<Tensor, std::string>>{
          {layer(c.in("last_layer.x"), op::silu(c.in("last_layer.vec"))), "y"}};
    });
  }
  if (c.has_in("mlp_embedder.x")) {
    MlpEmbedder embedder(c.in("mlp_embedder.x").dim(-1), hidden);
    c.use(embedder, "mlp_embedder.");
    scope_of("mlp_embedder", [&] {
      return std::vector<std::pair<Tensor, std::string>>{{embedder(c.in("mlp_embedder.x")), "y"}};
    });
  }
  if (c.has_in("qknorm.q")) {
    scope_of("qknorm", [&] {
      return std::vector<std::pair<Tensor, std::string>>{
          {op::rms_norm(c.in("qknorm.q"), c.weight("qknorm.query_norm.scale"), 1e-6f), "q"},
          {op::rms_norm(c.in("qknorm.k"), c.weight("qknorm.key_norm.scale"), 1e-6f), "k"}};
    });
  }
}

void run_flux1_rope(Case& c) {
  check_rope(c, kTheta);
}

void run_flux1_schedule(Device&, const nlohmann::json& file, Report& report) {
  size_t index = 0;
  for (const nlohmann::json& row : list_field(file, "cases")) {
    const std::string fn = required<std::string>(row, "fn");
    Check check{fmt::format("{}[{}]", fn, index++), 0, kScheduleTolerance, true, false, ""};
    std::vector<double> got, want;
    if (fn == "get_schedule") {
      want = required<std::vector<double>>(row, "result");
      const int64_t tokens = required<int64_t>(row, "image_seq_len");
      Schedule schedule;
      schedule.dynamic = field(row, "shift", schedule.dynamic);
      schedule.base_mu = field(row, "base_shift", schedule.base_mu);
      schedule.max_mu = field(row, "max_shift", schedule.max_mu);
      got = schedule.levels(required<int64_t>(row, "num_steps"), tokens);
      if (const auto want_mu = optional_field<double>(row, "mu")) {
        const double error = std::fabs(schedule.mu(tokens, required<int64_t>(row, "num_steps")) - *want_mu);
        const double bound = kMuTolerance * std::fabs(*want_mu);
        report.checks.push_back({check.tensor + ".mu", error, bound, true, error <= bound, ""});
      }
    } else if (fn == "time_shift") {
      const auto exact = optional_field<std::vector<double>>(row, "result_f64");
      want = exact ? *exact : required<std::vector<double>>(row, "result");
      for (double t : required<std::vector<double>>(row, "t"))
        got.push_back(time_shift(required<double>(row, "mu"), field(row, "sigma", 1.0), t));
    } else if (fn == "get_lin_function") {
      Schedule line;
      line.base_tokens = field(row, "x1", line.base_tokens);
      line.base_mu = field(row, "y1", line.base_mu);
      line.max_tokens = field(row, "x2", line.max_tokens);
      line.max_mu = field(row, "y2", line.max_mu);
      want = required<std::vector<double>>(row, "result");
      for (double x : required<std::vector<double>>(row, "x"))
        got.push_back(line.mu(static_cast<int64_t>(x), 1));
      for (double y : want) check.tolerance = std::min(check.tolerance, kMuTolerance * std::fabs(y));
    } else {
      report.checks.push_back(failed_check(check.tensor, "unknown function"));
      continue;
    }
    check.passed = got.size() == want.size();
    if (!check.passed) check.note = fmt::format("{} values, {} expected", got.size(), want.size());
    for (size_t i = 0; i < std::min(got.size(), want.size()); ++i)
      check.error = std::max(check.error, std::fabs(got[i] - want[i]));
    check.passed = check.passed && check.error <= check.tolerance;
    report.checks.push_back(check);
  }
}

}  // namespace vkflux::verify
