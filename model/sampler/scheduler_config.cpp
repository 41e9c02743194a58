#include "model/sampler/scheduler_config.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <set>
#include <string>

#include "model/io/config_fields.h"
#include "vk/error.h"

namespace vkflux {
namespace {

const char kOrigin[] = "scheduler_config.json";
constexpr int kMostOrder = 4;  // of UniPC: beyond it the original's own rounding shows

[[noreturn]] void refuse(ErrorCode code, const std::string& key, const io::Json& value,
                         const std::string& expected) {
  throw Error(code,
              fmt::format("{}: \"{}\" is {}; {}", kOrigin, key, io::shown(io::json_text(value)), expected));
}

/// Fields of one file; remembers which were asked for.
class Fields {
 public:
  explicit Fields(const io::Json& json) : json_(json) {}

  bool has(const char* key) {
    known_.insert(key);
    return json_.is_object() && json_.contains(key) && !json_[key].is_null();
  }
  bool null(const char* key) const { return json_.contains(key) && json_[key].is_null(); }
  /// As Python takes a value for true: numbers that aren't 0 as well.
  bool flag(const char* key, bool fallback = false) {
    if (!has(key)) return fallback;
    const io::Json& v = json_[key];
    if (v.is_boolean()) return v.get<bool>();
    if (v.is_number() && std::isfinite(v.get<double>())) return v.get<double>() != 0;
    refuse(ErrorCode::unsupported, key, v, "expected true or false");
  }
  double number(const char* key, double fallback) {
    if (!has(key)) return fallback;
    const io::Json& v = json_[key];
    if (v.is_number() && std::isfinite(v.get<double>())) return v.get<double>();
    refuse(ErrorCode::format, key, v, "expected a finite number");
  }
  int64_t whole(const char* key, int64_t fallback, int64_t least, int64_t most) {
    const double v = number(key, static_cast<double>(fallback));
    if (v == std::floor(v) && v >= static_cast<double>(least) && v <= static_cast<double>(most))
      return static_cast<int64_t>(v);
    refuse(ErrorCode::unsupported, key, json_[key],
           fmt::format("expected a whole number from {} to {}", least, most));
  }
  /// One of these, the first of which stands for a field that isn't there.
  std::string one_of(const char* key, std::initializer_list<const char*> known) {
    if (!has(key)) return *known.begin();
    std::string list;
    for (const char* word : known) {
      if (json_[key] == word) return word;
      list += fmt::format("{}\"{}\"", list.empty() ? "" : ", ", word);
    }
    refuse(ErrorCode::unsupported, key, json_[key], "implemented are " + list);
  }
  void must_be_off(const char* key, const std::string& why) {
    if (flag(key)) refuse(ErrorCode::unsupported, key, json_[key], why);
  }
  /// Without an effect on flow matching.
  void passes_over(std::initializer_list<const char*> keys) { known_.insert(keys.begin(), keys.end()); }
  const io::Json& operator[](const char* key) const { return json_[key]; }

  void warn_of_others(const std::string& type) const {
    for (const auto& [key, value] : json_.items()) {
      if (!key.starts_with('_') && !known_.count(key))
        spdlog::warn("{}: {} has no field \"{}\": it was passed over", kOrigin, type, io::shown(key));
    }
  }

 private:
  const io::Json& json_;
  std::set<std::string> known_;
};

void read_sizes(Fields& f, Schedule& s) {
  s.dynamic = f.flag("use_dynamic_shifting");
  s.base_mu = f.number("base_shift", s.base_mu);
  s.max_mu = f.number("max_shift", s.max_mu);
  s.base_tokens = f.number("base_image_seq_len", s.base_tokens);
  s.max_tokens = f.number("max_image_seq_len", s.max_tokens);
  s.train_steps = f.whole("num_train_timesteps", 1000, 1, 1 << 20);
}

Spacing read_spacing(Fields& f) {
  Spacing out = Spacing::model;
  for (const Spacing spacing : {Spacing::karras, Spacing::exponential, Spacing::beta}) {
    const std::string key = fmt::format("use_{}_sigmas", name(spacing));
    if (!f.flag(key.c_str())) continue;
    if (out != Spacing::model)
      throw Error(ErrorCode::format,
                  fmt::format("{}: \"use_{}_sigmas\" and \"{}\" are both true: only one can be", kOrigin,
                              name(out), key));
    out = spacing;
  }
  return out;
}

/// Of FlowMatchEulerDiscreteScheduler and FlowMatchLCMScheduler.
void read_flow(Fields& f, Schedule& s) {
  read_sizes(f, s);
  s.shift = f.number("shift", 1);
  s.linear_shift = f.one_of("time_shift_type", {"exponential", "linear"}) == "linear";
  if (f.has("shift_terminal") && !f["shift_terminal"].is_boolean())
    s.terminal = f.number("shift_terminal", 0);
  if (f.has("shift_terminal") && f["shift_terminal"] == true) s.terminal = 1;
  s.inverted = f.flag("invert_sigmas");
  s.spacing = read_spacing(f);
  // Not in the class's signature, but read where they are there.
  s.spacing_first = f.number("sigma_max", 0);
  s.spacing_last = f.number("sigma_min", 0);
  if (f.flag("use_flow_sigmas")) s.grid = TimeGrid::table;
}

SolverOptions read_lcm(Fields& f) {
  const bool scales =
      f.has("scale_factors") && !(f["scale_factors"].is_array() && f["scale_factors"].empty());
  const bool upscales = f.has("upscale_mode") ? f["upscale_mode"] != "" : !f.null("upscale_mode");
  if (scales && upscales)
    refuse(ErrorCode::unsupported, "scale_factors", f["scale_factors"],
           "drawing at growing sizes isn't implemented");
  return {Sampler::renoise};
}

/// The noise that the first of the diffusion's training steps adds, in single precision as the original.
double least_sigma(Fields& f) {
  float beta = static_cast<float>(f.number("beta_start", 1e-4));
  const std::string form = f.one_of("beta_schedule", {"linear", "scaled_linear", "squaredcos_cap_v2"});
  if (f.has("trained_betas")) {
    const io::Json& betas = f["trained_betas"];
    if (!betas.is_array() || betas.empty() || !betas[0].is_number())
      refuse(ErrorCode::format, "trained_betas", betas, "expected a list of numbers");
    beta = betas[0].get<float>();
  } else if (form == "scaled_linear") {
    const auto root = static_cast<float>(std::sqrt(f.number("beta_start", 1e-4)));
    beta = root * root;
  } else if (form == "squaredcos_cap_v2") {
    const auto n = static_cast<double>(f.whole("num_train_timesteps", 1000, 1, 1 << 20));
    const auto bar = [](double t) { return std::pow(std::cos((t + 0.008) / 1.008 * M_PI / 2), 2); };
    beta = static_cast<float>(std::min(1 - bar(1 / n) / bar(0), 0.999));
  }
  const float kept = 1 - beta;
  if (!(kept > 0) || kept > 1) refuse(ErrorCode::format, "beta_start", beta, "expected 0 to 1");
  return std::sqrt((1 - kept) / kept);
}

/// What DPMSolverMultistepScheduler and UniPCMultistepScheduler have in common.
void read_multistep(Fields& f, const std::string& type, SchedulerConfig& c) {
  Schedule& s = c.schedule;
  read_sizes(f, s);
  s.grid = TimeGrid::solvers;
  s.shift = f.number("flow_shift", 1);
  if (!f.flag("use_flow_sigmas"))
    throw Error(
        ErrorCode::unsupported,
        fmt::format("{}: {} without \"use_flow_sigmas\": true is for diffusion, not for flow matching",
                    kOrigin, type));
  f.one_of("prediction_type", {"flow_prediction"});
  if (!f.has("prediction_type"))
    throw Error(
        ErrorCode::unsupported,
        fmt::format("{}: \"prediction_type\" is missing, which means \"epsilon\"; only \"flow_prediction\" "
                    "is implemented",
                    kOrigin));
  f.one_of("time_shift_type", {"exponential"});
  for (const char* key : {"use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas"})
    f.must_be_off(key,
                  "with \"use_flow_sigmas\" it would take the levels of a diffusion; --schedule has karras, "
                  "exponential and beta for flow matching");
  f.must_be_off("thresholding", "it isn't implemented: latents aren't pixels");
  f.passes_over({"beta_start", "beta_end", "beta_schedule", "trained_betas", "dynamic_thresholding_ratio",
                 "sample_max_value", "timestep_spacing", "steps_offset", "rescale_betas_zero_snr"});
  c.solver.lower_order_final = f.flag("lower_order_final", true);
}

void read_dpm(Fields& f, const std::string& type, SchedulerConfig& c) {
  read_multistep(f, type, c);
  SolverOptions& o = c.solver;
  o.sampler = Sampler::dpmpp;
  o.order = static_cast<int>(std::min<int64_t>(f.whole("solver_order", 2, 1, 1 << 20), 3));
  o.sde = f.one_of("algorithm_type", {"dpmsolver++", "sde-dpmsolver++", "deis"}) == "sde-dpmsolver++";
  o.heun_form = f.one_of("solver_type", {"midpoint", "heun", "logrho", "bh1", "bh2"}) == "heun";
  o.euler_at_final = f.flag("euler_at_final");
  f.passes_over({"lambda_min_clipped", "variance_type"});
  if (f.one_of("final_sigmas_type", {"zero", "sigma_min"}) == "sigma_min")
    c.schedule.final_level = least_sigma(f);
}

void read_unipc(Fields& f, const std::string& type, SchedulerConfig& c) {
  read_multistep(f, type, c);
  SolverOptions& o = c.solver;
  o.sampler = Sampler::unipc;
  o.order = static_cast<int>(f.whole("solver_order", 2, 1, kMostOrder));
  o.bh1 = f.one_of("solver_type", {"bh2", "bh1", "midpoint", "heun", "logrho"}) == "bh1";
  if (!f.flag("predict_x0", true))
    refuse(ErrorCode::unsupported, "predict_x0", f["predict_x0"], "only true goes with \"flow_prediction\"");
  if (f.has("solver_p"))
    refuse(ErrorCode::unsupported, "solver_p", f["solver_p"], "only null is implemented");
  c.schedule.final_repeats = f.one_of("final_sigmas_type", {"zero", "sigma_min"}) == "sigma_min";
  if (!f.has("disable_corrector")) return;
  const io::Json& steps = f["disable_corrector"];
  const auto bad = [](const io::Json& v) { return !io::holds<int64_t>(v); };
  if (!steps.is_array() || std::any_of(steps.begin(), steps.end(), bad))
    refuse(ErrorCode::format, "disable_corrector", steps, "expected a list of steps");
  for (const io::Json& step : steps) o.uncorrected.push_back(step.get<int64_t>());
}

}  // namespace

SchedulerConfig SchedulerConfig::from_json(const io::Json& json) {
  if (!json.is_object()) throw Error(ErrorCode::format, fmt::format("{}: expected an object", kOrigin));
  const auto type = io::get_or<std::string>(json, "_class_name", "FlowMatchEulerDiscreteScheduler", kOrigin);
  SchedulerConfig c;
  Fields f(json);
  c.schedule.dynamic = false;
  if (type == "FlowMatchEulerDiscreteScheduler") {
    read_flow(f, c.schedule);
    if (f.flag("stochastic_sampling")) c.solver.sampler = Sampler::renoise;
  } else if (type == "FlowMatchLCMScheduler") {
    read_flow(f, c.schedule);
    c.solver = read_lcm(f);
  } else if (type == "FlowMatchHeunDiscreteScheduler") {
    c.schedule.grid = TimeGrid::table;
    c.schedule.shift = f.number("shift", 1);
    c.schedule.train_steps = f.whole("num_train_timesteps", 1000, 1, 1 << 20);
    c.solver.sampler = Sampler::heun;
  } else if (type == "DPMSolverMultistepScheduler") {
    read_dpm(f, type, c);
  } else if (type == "UniPCMultistepScheduler") {
    read_unipc(f, type, c);
  } else {
    throw Error(
        ErrorCode::unsupported,
        fmt::format("{}: scheduler {}; known are FlowMatchEulerDiscreteScheduler, "
                    "FlowMatchHeunDiscreteScheduler, FlowMatchLCMScheduler, DPMSolverMultistepScheduler "
                    "and UniPCMultistepScheduler",
                    kOrigin, io::shown(type)));
  }
  f.warn_of_others(type);
  std::string fault;
  try {
    c.schedule.check();
  } catch (const Error& e) {
    fault = e.what();
  }
  if (!fault.empty()) throw Error(ErrorCode::format, fmt::format("{}: {}", kOrigin, fault));
  return c;
}

}  // namespace vkflux
