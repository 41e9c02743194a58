#include <fmt/format.h>

#include <cmath>

#include "app/verify/case.h"
#include "autograd/ops.h"
#include "model/flux/rope.h"
#include "model/flux/transformer.h"
#include "model/sampler/run.h"
#include "model/sampler/schedule.h"
#include "vk/error.h"

namespace vkflux::verify {
namespace {

constexpr double kRopeTolerance = 2e-5, kScheduleTolerance = 1e-6;

// Makes the module's parameters the file's weights; prefix: what the file puts before our names.
template <class Module>
void use_weights(Case& c, Module& module, const std::string& prefix = "") {
  for (const Param& p : parameters(module)) {
    *p.tensor = c.weight(prefix + p.name);
    if (!(p.tensor->shape() == p.shape)) {
      throw Error(ErrorCode::format, fmt::format("w.{} is {}, {} is expected", prefix + p.name,
                                                 p.tensor->shape().str(), p.shape.str()));
    }
  }
}

Flux1Config model_config(const nlohmann::json& j) {
  Flux1Config c;
  c.in_channels = j.at("in_channels");
  c.out_channels = j.at("out_channels");
  c.vec_in_dim = j.at("vec_in_dim");
  c.context_in_dim = j.at("context_in_dim");
  c.hidden = j.at("hidden_size");
  c.mlp_hidden = static_cast<int64_t>(static_cast<double>(c.hidden) * j.at("mlp_ratio").get<double>());
  c.heads = j.at("num_heads");
  c.head_dim = c.hidden / c.heads;
  c.depth = j.at("depth");
  c.depth_single = j.at("depth_single_blocks");
  c.axes_dim = j.at("axes_dim").get<std::vector<int64_t>>();
  c.theta = j.at("theta");
  c.guidance = j.at("guidance_embed");
  return c;
}

Tensor rope_of(Case& c, const Tensor& ids, const nlohmann::json& config) {
  const std::vector<float> host = ids.to_host();
  return rope_table(c.device(), host, ids.dim(0), config.at("axes_dim").get<std::vector<int64_t>>(),
                    config.at("theta").get<double>());
}

Tensor joined_ids(Case& c) {
  const auto scope = Tape::pause();
  return op::concat({c.in("txt_ids"), c.in("img_ids")}, 1);
}

// (cos, sin) [B, N, D/2, 2] as the reference's [B, 1, N, D/2, 2, 2] of [[cos, -sin], [sin, cos]].
std::vector<float> rotation_matrices(const Tensor& table) {
  std::vector<float> out;
  const std::vector<float> t = table.to_host();
  for (size_t i = 0; i < t.size(); i += 2) out.insert(out.end(), {t[i], -t[i + 1], t[i + 1], t[i]});
  return out;
}

}  // namespace

void run_flux1_block(Case& c) {
  const nlohmann::json& j = c.config();
  Flux1Config config;
  config.hidden = j.at("hidden");
  config.heads = j.at("heads");
  config.head_dim = config.hidden / config.heads;
  config.mlp_hidden =
      static_cast<int64_t>(static_cast<double>(config.hidden) * j.at("mlp_ratio").get<double>());
  Trace trace;
  BlockContext context;
  context.rope = rope_of(c, c.in("ids"), j);
  context.trace = &trace;
  context.tokens.text = j.at("txt_tokens");
  context.tokens.image = j.at("img_tokens");
  c.tolerance("mid.pe", kRopeTolerance, true);
  std::vector<std::pair<Tensor, std::string>> outputs;
  if (c.has_in("x")) {
    SingleBlock block(config);
    use_weights(c, block);
    const auto scope = c.tape().record();
    context.silu_vec = op::silu(c.in("vec"));
    outputs = {{block(c.in("x"), context, 0, 0), "x"}};
  } else {
    DoubleBlock block(config);
    use_weights(c, block);
    const auto scope = c.tape().record();
    context.silu_vec = op::silu(c.in("vec"));
    const DoubleBlock::Streams y = block({c.in("img"), c.in("txt")}, context, 0);
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
  use_weights(c, model);
  Trace trace;
  PassInputs in;
  Tensor y;
  {
    const auto scope = c.tape().record();
    in.x = c.in("img");
    in.condition = {{"txt", c.in("txt")}, {"y", c.in("y")}};
    in.t = c.in("timesteps");
    if (model.config().guidance) in.guidance = c.in("guidance");
    model.prepare(in, joined_ids(c).to_host());
    y = model.forward(in, &trace);
  }
  c.out("img", y);
  // The sinusoids of 1000 t: float32 angles alone cost this much.
  c.tolerance("mid.timestep_embedding", 3e-4, true);
  for (const auto& [name, value] : trace) {
    if (c.file().has("mid." + name)) c.mid(name, value);
  }
  if (c.has_in("loss_cotangent")) c.backward({{y, "loss_cotangent"}});
}

void run_flux1_denoise(Case& c) {
  Flux1 model(model_config(c.config().at("model")));
  use_weights(c, model);
  const std::vector<float> times = c.in("timesteps").to_host();
  SamplingOptions options;
  options.levels.assign(times.begin(), times.end());
  options.ids = joined_ids(c).to_host();
  if (model.config().guidance) options.guidance = c.config().at("guidance").get<float>();
  SamplingRun run(model, {{"txt", c.in("txt")}, {"y", c.in("vec")}}, {}, c.in("img"), options);
  c.tolerance("out.", 5e-4);
  c.tolerance("mid.", 5e-4);
  while (!run.finished()) {
    const int64_t i = run.step_index();
    c.mid(fmt::format("step.{}.img", i), run.x());
    run.step();
    c.mid(fmt::format("step.{}.pred", i), run.output());
  }
  c.out("img", run.x());
}

void run_flux1_ids(Case& c) {
  c.tolerance("", 0, true);
  for (const auto& [tag, config] : c.config().items()) {
    if (c.has_in(tag + ".tokens")) {
      // A size that isn't a multiple of 16: the reference rounds the token grid up.
      const int64_t h = (config.at("height").get<int64_t>() + 15) / 16,
                    w = (config.at("width").get<int64_t>() + 15) / 16;
      c.out(tag + ".unpacked", op::unpatchify(c.in(tag + ".tokens"), 2, 2 * h, 2 * w));
      continue;
    }
    const Tensor latent = c.in(tag + ".latent");
    const int64_t batch = config.at("prompts"), h = latent.dim(2) / 2, w = latent.dim(3) / 2;
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
  const int64_t hidden = c.config().at("hidden");
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
    use_weights(c, lin, tag + ".lin.");
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
    Flux1Config config;
    config.hidden = hidden;
    config.out_channels = c.config().at("out_channels");
    FinalLayer layer(config);
    use_weights(c, layer, "last_layer.");
    scope_of("last_layer", [&] {
      return std::vector<std::pair<Tensor, std::string>>{
          {layer(c.in("last_layer.x"), op::silu(c.in("last_layer.vec"))), "y"}};
    });
  }
  if (c.has_in("mlp_embedder.x")) {
    MlpEmbedder embedder(c.in("mlp_embedder.x").dim(-1), hidden);
    use_weights(c, embedder, "mlp_embedder.");
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
  for (const auto& [tag, config] : c.config().items()) {
    if (c.has_in(tag + ".t")) {
      const Tensor t = c.in(tag + ".t");
      const Tensor e = op::timestep_embedding(t, config.at("dim"), config.at("max_period").get<float>(),
                                              config.at("time_factor").get<float>());
      double largest = 1;
      for (float x : t.to_host()) largest = std::max(largest, std::fabs(static_cast<double>(x)));
      c.tolerance("out." + tag, 3e-4 * largest, true);
      c.out(tag + ".emb", e);
      c.out(tag + ".emb_f32", e);
      continue;
    }
    const Tensor table = rope_of(c, c.in(tag + ".ids"), config);
    c.tolerance("out." + tag + ".pe", kRopeTolerance, true);
    c.out(tag + ".pe", rotation_matrices(table));
    Tensor q, k;
    {
      const auto scope = c.tape().record();
      q = op::rope(c.in(tag + ".q"), table);
      k = op::rope(c.in(tag + ".k"), table);
    }
    c.out(tag + ".q", q);
    c.out(tag + ".k", k);
    c.backward({{q, "loss_cotangent." + tag + ".q"}, {k, "loss_cotangent." + tag + ".k"}});
  }
}

void run_flux1_schedule(Device&, const nlohmann::json& file, Report& report) {
  size_t index = 0;
  for (const nlohmann::json& row : file.at("cases")) {
    const std::string fn = row.at("fn");
    Check check{fmt::format("{}[{}]", fn, index++), 0, kScheduleTolerance, true, false, ""};
    std::vector<double> got, want;
    if (fn == "get_schedule") {
      want = row.at("result").get<std::vector<double>>();
      Schedule schedule;
      schedule.dynamic = row.at("shift");
      schedule.base_mu = row.at("base_shift");
      schedule.max_mu = row.at("max_shift");
      got = schedule.levels(row.at("num_steps"), row.at("image_seq_len"));
      const double want_mu = row.at("mu"), error = std::fabs(schedule.mu(row.at("image_seq_len")) - want_mu);
      const double bound = 1e-12 * std::fabs(want_mu);
      report.checks.push_back({check.tensor + ".mu", error, bound, true, error <= bound, ""});
    } else if (fn == "time_shift") {
      want = row.at(row.contains("result_f64") ? "result_f64" : "result").get<std::vector<double>>();
      for (double t : row.at("t").get<std::vector<double>>())
        got.push_back(time_shift(row.at("mu"), row.at("sigma"), t));
    } else if (fn == "get_lin_function") {
      want = {row.at("result").get<double>()};
      got = {Schedule().mu(row.at("x"))};
      check.tolerance = 1e-12 * std::fabs(want[0]);
    } else {
      check.note = "unknown function";
      check.error = INFINITY;
      report.checks.push_back(check);
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
