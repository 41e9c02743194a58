#include "model/sampler/request.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "vk/error.h"

namespace vkflux {
namespace {

constexpr int64_t kMaxSide = 16384;

int64_t whole_tokens(const char* what, int64_t asked, int64_t fallback, int64_t unit) {
  const int64_t side = (asked ? asked : fallback) / unit * unit;
  if (side < unit || side > kMaxSide) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("{} {}: expected {} to {}", what, asked ? asked : fallback, unit, kMaxSide));
  }
  return side;
}

/// The model's, with what was asked for in place of its own.
Schedule wanted_schedule(const ModelInfo& m, const SamplingRequest& r) {
  Schedule s = m.schedule;
  if (!r.sampler.empty() && !sampler_row(r.sampler).own_grid) s.grid = TimeGrid::steps;
  if (!r.schedule.empty()) s.spacing = parse_spacing(r.schedule);
  const bool grows = r.base_shift || r.max_shift;
  if (r.shift && grows)
    throw Error(ErrorCode::invalid_argument, "give a fixed shift, or a base and a maximal one, not both");
  if (r.shift || grows) s.dynamic = grows;
  if (grows) s.empirical = false;
  s.shift = r.shift.value_or(s.shift);
  s.base_mu = r.base_shift.value_or(s.base_mu);
  s.max_mu = r.max_shift.value_or(s.max_mu);
  s.check();
  return s;
}

}  // namespace

SamplingSetup sampling_setup(const ModelInfo& m, const SamplingRequest& r) {
  const SamplingDefaults& d = m.defaults;
  const int64_t unit = m.pixels_per_token();
  SamplingSetup out;
  SamplingOptions& o = out.options;
  o.width = whole_tokens("width", r.width, d.width, unit);
  o.height = whole_tokens("height", r.height, d.height, unit);
  if ((r.width && r.width != o.width) || (r.height && r.height != o.height)) {
    out.notes.push_back(fmt::format("{}x{} pixels aren't whole tokens of {}x{}: {}x{} are drawn",
                                    r.width ? r.width : d.width, r.height ? r.height : d.height, unit, unit,
                                    o.width, o.height));
  }
  o.rows = o.height / unit;
  o.columns = o.width / unit;
  out.latent = {m.layout.geometry.channels, o.height / m.pixels_per_cell, o.width / m.pixels_per_cell};
  o.cfg = r.cfg.value_or(d.cfg);
  o.guidance = m.layout.guidance ? r.guidance.value_or(d.guidance) : 0;
  if (!std::isfinite(o.cfg) || !std::isfinite(o.guidance))
    throw Error(ErrorCode::invalid_argument, "guidance and cfg must be finite");
  if (r.guidance && !m.layout.guidance)
    out.notes.emplace_back("this model has no guidance input: guidance was ignored (cfg works)");
  const Schedule schedule = wanted_schedule(m, r);
  o.solver = r.sampler.empty() ? m.solver : sampler_row(r.sampler).options;
  if (r.levels.empty()) {
    o.levels = schedule.levels(r.steps ? r.steps : d.steps, o.rows * o.columns);
    o.times = schedule.times(o.levels);
    const auto same = std::adjacent_find(o.levels.begin(), o.levels.end());
    if (same != o.levels.end() && !schedule.final_repeats)
      out.notes.push_back(
          fmt::format("noise level {:g} comes more than once in a row: those steps change nothing", *same));
  } else {
    check_levels(r.levels);
    o.levels = r.levels;
    o.times = schedule.exact_times(o.levels);
  }
  Solver(o.solver, o.levels);  // that every step has weights
  return out;
}

}  // namespace vkflux
