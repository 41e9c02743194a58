// Tables of the controller's reward: baseline, terms, summaries, cadence of checkpoints.
#include <cmath>
#include <set>

#include "app/verify/case.h"
#include "app/verify/table_check.h"
#include "train/controller/policy_trainer.h"
#include "train/run_loop.h"

namespace vkflux::verify {
namespace {

// The reference's schedule; the sign of logit plus noise, which alone decides, doesn't depend on it.
double gumbel_temperature(double start, double end, int64_t iteration, int64_t total) {
  return start + (end - start) * static_cast<double>(iteration) /
                     static_cast<double>(std::max<int64_t>(1, total - 1));
}

}  // namespace

void run_ttr_reward_tables(Device&, const nlohmann::json& file, Report& report) {
  constexpr double kTolerance = 1e-9, kFloor = 1e-3;
  const auto add = [&](const std::string& name, double got, double want) {
    report.checks.push_back(number_check(name, got, want, kTolerance, kFloor));
  };
  static const std::set<std::string> kKnown{"baseline_ema", "sigma_reward_terms", "summarize_step_ttr",
                                            "checkpoint_step", "gumbel_temperature"};
  for (const auto& [name, table] : file.items()) {
    const bool rows_of_objects = table.is_array() && !table.empty() && table.front().is_object();
    if (rows_of_objects && !kKnown.count(name)) report.checks.push_back(failed_check(name, "unknown table"));
  }
  const auto rows = [&](const char* table) { return list_field(file, table); };
  const auto at = [](const nlohmann::json& row, const char* key) {
    return number_or_nan(required<nlohmann::json>(row, key));
  };
  for (const auto& row : rows("baseline_ema")) {
    RewardBaseline baseline(field(row, "floor", -0.3), FloorOn::reward, field(row, "decay", 0.95));
    const nlohmann::json rewards = list_field(row, "rewards"), after = list_field(row, "baseline_after");
    for (size_t i = 0; i < rewards.size(); ++i) {
      const double r = number_or_nan(rewards[i]);
      baseline.update(r, r);
      add("baseline_ema", baseline.value(), number_or_nan(after.at(i)));
    }
  }
  for (const auto& row : rows("gumbel_temperature")) {
    add("gumbel_temperature",
        gumbel_temperature(at(row, "start"), at(row, "end"), required<int64_t>(row, "iteration"),
                           required<int64_t>(row, "total")),
        at(row, "result"));
  }
  for (const auto& row : rows("sigma_reward_terms")) {
    const RewardTerms t = reward_terms(
        {at(row, "target_ttr_ratio"), at(row, "lambda_eff"), at(row, "lambda_entropy")}, at(row, "reward"),
        at(row, "entropy"), at(row, "actual_full_attn_ratio"), field(row, "baseline", 0.0));
    const NamedValues got{{"target_ttr_ratio", t.target_ttr_ratio},
                          {"target_full_attn_ratio", t.target_full_attn_ratio},
                          {"efficiency_penalty", t.efficiency_penalty},
                          {"efficiency_penalty_weighted", t.efficiency_penalty_weighted},
                          {"entropy_bonus", t.entropy_bonus},
                          {"reward_value", t.reward},
                          {"baselined_reward", t.advantage}};
    const nlohmann::json result = object_field(row, "result");
    for (const auto& [name, want] : result.items()) {
      add("sigma_reward_terms." + name, got.count(name) ? got.at(name) : NAN, number_or_nan(want));
    }
  }
  for (const auto& row : rows("summarize_step_ttr")) {
    std::vector<std::pair<double, double>> steps;
    for (const auto& s : list_field(row, "steps"))
      steps.emplace_back(number_or_nan(s.at(0)), number_or_nan(s.at(1)));
    const TrajectorySummary s = summarise_trajectory(steps, field(row, "sigma_fallback", 0.0));
    const NamedValues got{{"ttr_ratio_high_sigma", s.ttr_ratio_high_sigma},
                          {"ttr_ratio_low_sigma", s.ttr_ratio_low_sigma},
                          {"ttr_ratio_spread", s.ttr_ratio_spread},
                          {"steps_per_trajectory", s.steps_per_trajectory},
                          {"sigma", s.sigma}};
    const nlohmann::json result = object_field(row, "result");
    for (const auto& [name, want] : result.items()) {
      add("summarize_step_ttr." + name, got.count(name) ? got.at(name) : NAN, number_or_nan(want));
    }
  }
  for (const auto& row : rows("checkpoint_step"))
    add("checkpoint_step",
        checkpoint_due(required<int64_t>(row, "step") - 1, required<int64_t>(row, "step"),
                       field(row, "every", int64_t{10})),
        required<bool>(row, "result") ? 1 : 0);
}

}  // namespace vkflux::verify
