#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <optional>
#include <set>

#include "app/verify/flux_parts.h"
#include "app/verify/table_check.h"
#include "autograd/ops.h"
#include "model/flux2/rope.h"
#include "model/flux2/transformer.h"
#include "model/sampler/schedule.h"
#include "vk/error.h"

namespace vkflux::verify {
namespace {

constexpr double kTheta = 2000;  // of rope, unless the file says otherwise
constexpr double kScheduleTolerance = 1e-6, kMuTolerance = 1e-12;

Flux2Config model_config(Case& c, const nlohmann::json& j) {
  Flux2Config out;
  out.channels = required<int64_t>(j, "in_channels");
  out.context_in_dim = required<int64_t>(j, "context_in_dim");
  out.hidden = required<int64_t>(j, "hidden_size");
  out.mlp_hidden = field(j, "mlp_ratio", 0.0) > 0 ? mlp_width(out.hidden, j) : 3 * out.hidden;
  out.heads = required<int64_t>(j, "num_heads");
  out.head_dim = out.hidden / std::max<int64_t>(1, out.heads);
  out.depth = required<int64_t>(j, "depth");
  out.depth_single = required<int64_t>(j, "depth_single_blocks");
  out.axes_dim = required<std::vector<int64_t>>(j, "axes_dim");
  out.theta = field(j, "theta", kTheta);
  const std::string guidance = "guidance_in.in_layer.weight", time = "time_in.in_layer.weight";
  out.guidance = c.has_weight(guidance);
  if (c.has_weight(time)) out.time_features = c.weight_shape(time)[-1];
  return out;
}

/// A backbone's own positions, for every picture of a batch.
void put_positions(Case& c, Flux2& model, PassInputs& in) {
  std::vector<float> ids = joined_ids(c, {"ctx_ids", "x_ids"});
  const std::vector<float> one = ids;
  const int64_t given = c.in("x_ids").dim(0);
  for (int64_t b = given; given == 1 && b < in.x.dim(0); ++b) ids.insert(ids.end(), one.begin(), one.end());
  model.prepare(in, ids);
}

}  // namespace

void run_flux2_full(Case& c) {
  Flux2 model(model_config(c, c.config()));
  c.use(model);
  Trace trace;
  PassInputs in;
  Tensor y;
  {
    const auto scope = c.tape().record();
    in.x = c.in("x");
    in.condition = {{"txt", c.in("ctx")}};
    in.t = c.in("timesteps");
    if (c.has_in("guidance")) in.guidance = c.in("guidance");
    put_positions(c, model, in);
    y = model.forward(in, &trace);
  }
  c.out("img", y);
  const int64_t text = in.tokens.text, all = in.positions.dim(1);
  c.mid("pe_ctx", rotation_matrices(in.positions.slice(1, 0, text)));
  c.mid("pe_x", rotation_matrices(in.positions.slice(1, text, all - text)));
  c.tolerance("mid.pe_", kRopeTolerance, true);
  // The sinusoids of 1000 t: float32 angles alone cost this much.
  c.tolerance("mid.timestep_embedding", 3e-4, true);
  for (const auto& [name, value] : trace) {
    if (c.file().has("mid." + name)) c.mid(name, value);
  }
  c.backward({{y, "loss_cotangent"}});
}

void run_flux2_denoise(Case& c) {
  Flux2 model(model_config(c, required<nlohmann::json>(c.config(), "model")));
  c.use(model);
  check_trajectory(c, model, {{"txt", c.in("txt")}}, {"txt_ids", "img_ids"});
}

void run_flux2_rope(Case& c) {
  check_rope(c, kTheta);
}

namespace {

/// Positions of a grid, or of `text` tokens, at each of the indices.
std::vector<float> ids_at(const std::vector<double>& indices, const TokenLayout& tokens) {
  std::vector<float> out;
  for (const double index : indices) {
    std::vector<float> ids = flux2_ids(tokens);
    for (size_t i = 0; i < ids.size(); i += 4) ids[i] = static_cast<float>(index);
    out.insert(out.end(), ids.begin(), ids.end());
  }
  return out;
}

TokenLayout grid_of(int64_t rows, int64_t columns) {
  TokenLayout out;
  out.rows = rows;
  out.columns = columns;
  return out;
}

TokenLayout text_of(int64_t tokens) {
  TokenLayout out;
  out.text = tokens;
  return out;
}

/// The sub-cases: what stands between "in." and the last dot.
std::set<std::string> tags_of(const Case& c) {
  std::set<std::string> out;
  for (const auto& [name, info] : c.file().tensors()) {
    const size_t dot = name.rfind('.');
    if (name.starts_with("in.") && dot > 3) out.insert(name.substr(3, dot - 3));
  }
  return out;
}

/// Indices that a sub-case gives: in the config, or as an input.
std::vector<double> indices_of(Case& c, const std::string& tag, std::vector<double> fallback) {
  const nlohmann::json config = object_field(c.config(), tag);
  for (const char* name : {"t", "t_coord"}) {
    if (const auto given = optional_field<std::vector<double>>(config, name)) return *given;
    if (c.has_in(tag + "." + name)) return c.numbers("in." + tag + "." + name);
  }
  return fallback;
}

/// Latents [C, h, w], or several of one size.
void pack_latents(Case& c, const std::string& tag) {
  Tensor latent = c.in(tag + ".latent");
  const bool batched = latent.rank() == 4;
  if (!batched) latent = op::reshape(latent, {1, latent.dim(0), latent.dim(1), latent.dim(2)});
  const TokenLayout grid = grid_of(latent.dim(2), latent.dim(3));
  const std::vector<double> indices = indices_of(c, tag, {0});
  std::vector<float> ids;
  for (int64_t b = 0; b < latent.dim(0); ++b) {
    // One index for each of a batch's latents, where there are as many.
    const bool own = batched && indices.size() == static_cast<size_t>(latent.dim(0));
    const std::vector<float> one = ids_at(own ? std::vector{indices[static_cast<size_t>(b)]} : indices, grid);
    ids.insert(ids.end(), one.begin(), one.end());
  }
  c.out(tag + ".tokens", LatentGeometry{latent.dim(1), 1}.pack(latent));
  c.out(tag + ".ids", ids);
}

/// References "latent0", "latent1", ... of sizes of their own, behind one another.
void pack_references(Case& c, const std::string& tag) {
  std::vector<float> tokens;
  std::vector<std::vector<float>> ids;
  TokenLayout layout;
  for (int64_t n = 0; c.has_in(fmt::format("{}.latent{}", tag, n)); ++n) {
    const Tensor latent = c.in(fmt::format("{}.latent{}", tag, n));
    const Tensor packed = LatentGeometry{latent.dim(0), 1}.pack(
        op::reshape(latent, {1, latent.dim(0), latent.dim(1), latent.dim(2)}));
    const std::vector<float> host = packed.to_host();
    tokens.insert(tokens.end(), host.begin(), host.end());
    layout.references.push_back({latent.dim(1), latent.dim(2), 10 * (n + 1)});
  }
  std::vector<float> all = flux2_ids(layout);
  const std::vector<double> given = indices_of(c, tag, {});
  size_t at = 0;
  for (size_t n = 0; n < std::min(given.size(), layout.references.size()); ++n) {
    for (int64_t i = 0; i < layout.references[n].tokens(); ++i, at += 4)
      all[at] = static_cast<float>(given[n]);
  }
  c.out(tag + ".tokens", tokens);
  c.out(tag + ".ids", all);
}

void place_text(Case& c, const std::string& tag) {
  const Tensor x = c.in(tag + ".x");
  const int64_t batch = x.rank() == 3 ? x.dim(0) : 1;
  const std::vector<float> one = ids_at(indices_of(c, tag, {0}), text_of(x.dim(-2)));
  std::vector<float> ids;
  for (int64_t b = 0; b < batch; ++b) ids.insert(ids.end(), one.begin(), one.end());
  c.out(tag + ".x", x);
  c.out(tag + ".ids", ids);
}

/// Numbered anew without gaps, in order.
std::vector<double> compressed(const std::vector<double>& t) {
  const std::set<double> kept(t.begin(), t.end());
  std::vector<double> out;
  for (const double x : t) out.push_back(static_cast<double>(std::distance(kept.begin(), kept.find(x))));
  return out;
}

/// Tokens [n, C] to the places [1, C, frames, rows, columns] that their ids name.
void scatter(Case& c, const std::string& tag) {
  const Tensor tokens = c.in(tag + ".tokens");
  const std::vector<double> ids = c.numbers("in." + tag + ".ids");
  const std::vector<float> host = tokens.to_host();
  const auto channels = static_cast<size_t>(tokens.dim(-1)), count = host.size() / channels;
  const auto column = [&](size_t axis) {
    std::vector<double> out;
    for (size_t i = 0; i < count; ++i) out.push_back(ids.at(i * 4 + axis));
    return out;
  };
  const auto size = [](const std::vector<double>& places) {
    return static_cast<size_t>(*std::max_element(places.begin(), places.end())) + 1;
  };
  const std::vector<double> t = compressed(column(0)), row = column(1), col = column(2);
  const size_t rows = size(row), columns = size(col), cells = size(t) * rows * columns;
  std::vector<float> volume(channels * cells, 0.0f);
  for (size_t i = 0; i < count; ++i) {
    const size_t cell = (static_cast<size_t>(t[i]) * rows + static_cast<size_t>(row[i])) * columns +
                        static_cast<size_t>(col[i]);
    for (size_t k = 0; k < channels; ++k) volume[k * cells + cell] = host[i * channels + k];
  }
  c.out(tag + ".volume", volume);
}

}  // namespace

void run_flux2_ids(Case& c) {
  c.tolerance("", 0, true);
  for (const std::string& tag : tags_of(c)) {
    const auto has = [&, &tag = tag](const char* name) { return c.has_in(tag + "." + name); };
    if (has("latent0")) {
      pack_references(c, tag);
    } else if (has("latent")) {
      pack_latents(c, tag);
    } else if (has("x")) {
      place_text(c, tag);
    } else if (has("tokens")) {
      scatter(c, tag);
    } else if (has("t")) {
      const std::vector<double> t = compressed(c.numbers("in." + tag + ".t"));
      c.out(tag + ".t", std::vector<float>(t.begin(), t.end()));
    }
  }
}

void run_flux2_schedule(Device&, const nlohmann::json& file, Report& report) {
  const auto compare = [&](const std::string& name, const std::vector<double>& got,
                           const std::vector<double>& want, double tolerance, bool relative) {
    Check check{name, 0, tolerance, !relative, got.size() == want.size(), ""};
    if (!check.passed) check.note = fmt::format("{} values, {} expected", got.size(), want.size());
    for (size_t i = 0; i < std::min(got.size(), want.size()); ++i) {
      const double scale = relative ? std::max(std::fabs(want[i]), 1e-300) : 1;
      check.error = std::max(check.error, std::fabs(got[i] - want[i]) / scale);
    }
    check.passed = check.passed && check.error <= check.tolerance;
    report.checks.push_back(check);
  };
  size_t index = 0;
  for (const nlohmann::json& row : list_field(file, "cases")) {
    const std::string fn = field(row, "fn", std::string("get_schedule"));
    const std::string name = fmt::format("{}[{}]", fn, index++);
    if (fn == "get_schedule" || fn == "compute_empirical_mu") {
      const int64_t steps = required<int64_t>(row, "num_steps");
      const int64_t tokens = required<int64_t>(row, "image_seq_len");
      const bool mu_alone = fn == "compute_empirical_mu";
      if (const auto mu = optional_field<double>(row, mu_alone ? "result" : "mu"))
        compare(name + ".mu", {Schedule::flux2().mu(tokens, steps)}, {*mu}, kMuTolerance, true);
      std::optional<std::vector<double>> want;
      if (!mu_alone) want = optional_field<std::vector<double>>(row, "schedule");
      if (!mu_alone && !want) want = optional_field<std::vector<double>>(row, "result");
      if (want) compare(name, Schedule::flux2().levels(steps, tokens), *want, kScheduleTolerance, false);
    } else if (fn == "generalized_time_snr_shift") {
      std::vector<double> got;
      for (const double t : required<std::vector<double>>(row, "t"))
        got.push_back(time_shift(required<double>(row, "mu"), field(row, "sigma", 1.0), t));
      compare(name, got, required<std::vector<double>>(row, "result"), kScheduleTolerance, false);
    } else {
      report.checks.push_back(failed_check(name, "unknown function"));
    }
  }
}

}  // namespace vkflux::verify
