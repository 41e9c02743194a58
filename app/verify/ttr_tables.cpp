// Tables of the distillation runtime: readiness over time, routing of calls, and the small laws around them.
#include <fmt/format.h>

#include <cmath>
#include <map>
#include <optional>

#include "app/verify/case.h"
#include "app/verify/host_options.h"
#include "app/verify/table_check.h"
#include "model/attention/hkr/students.h"
#include "train/distill/degrade.h"
#include "train/distill/memory_estimate.h"
#include "train/distill/replay.h"
#include "train/distill/run_ema.h"
#include "train/distill/settings.h"
#include "train/quantile.h"
#include "vk/error.h"

namespace vkflux::verify {
namespace {

using Json = nlohmann::json;

constexpr double kEmaTolerance = 1e-9;

template <class T>
Json or_null(const std::optional<T>& value) {
  return value ? Json(*value) : Json();
}

// One run of events over a few layers.
class ReadinessRun {
 public:
  explicit ReadinessRun(const Json& sequence) {
    for (const std::string& key : required<std::vector<std::string>>(sequence, "layers")) {
      Readiness& r = layers_[layer_of_key(key)];
      r.criteria = {required<double>(sequence, "readiness_threshold"),
                    required<int64_t>(sequence, "readiness_min_updates")};
    }
    for (auto& [layer, readiness] : layers_) handles_[layer] = &readiness;
  }

  void play(const Json& event) {
    const auto op = required<std::string>(event, "op");
    if (op == "flush") {
      ema_.flush(handles_);
    } else if (op == "refresh") {
      known(layer_of_key(required<std::string>(event, "layer"))).refresh();
    } else if (op == "call") {
      call(event);
    } else {
      throw Error(ErrorCode::unsupported, fmt::format("unknown event '{}'", op));
    }
  }
  Json state() const {
    Json out = Json::object();
    for (const auto& [layer, r] : layers_) {
      out[layer_key(layer)] = {{"ready", r.ready},
                               {"updates", r.updates},
                               {"ema_loss", or_null(r.ema_loss)},
                               {"ema_cosine_dist", or_null(r.ema_cosine_dist)},
                               {"pending", ema_.pending_losses(layer)}};
    }
    return out;
  }
  Json pareto() const {
    std::vector<TrackedLayer> tracked;
    for (const auto& [layer, r] : layers_) tracked.push_back({r, {}});
    const ParetoScore p = pareto_score(tracked);
    return {p.score, p.ready, p.worst};
  }

 private:
  Readiness& known(const std::string& layer) {
    const auto found = layers_.find(layer);
    if (found == layers_.end())
      throw Error(ErrorCode::format, fmt::format("{} isn't among the sequence's layers", layer_key(layer)));
    return found->second;
  }
  void call(const Json& event) {
    const std::string layer = layer_of_key(required<std::string>(event, "layer"));
    const auto sigma = optional_field<double>(event, "sigma");
    if (ema_.begin_call(sigma)) ema_.flush(handles_);
    ema_.add_loss(layer, number_or_nan(event.value("loss", Json())), known(layer));
    ema_.add_similarity(layer, number_or_nan(event.value("cos", Json())));
    if (ema_.flush_due()) ema_.flush(handles_);
  }

  ByLayer<Readiness> layers_;
  ByLayer<Readiness*> handles_;
  RunEma ema_;
};

uint64_t memory_of(const Json& a) {
  const auto n = [&](const char* key) { return required<int64_t>(a, key); };
  return estimate_memory({n("batch"), n("heads"), n("n_query"), n("n_key"), n("head_dim"), n("feature_dim"),
                          n("q_chunk_size"), n("k_chunk_size"), n("landmark_max"), n("text_count_estimate"),
                          n("dtype_size"), field(a, "training", false)});
}

Json read_options(const Json& row, const Json& runtime) {
  const CallOptions options{io::Json(row.value("options", Json()))};
  const auto keys = required<int64_t>(row, "n_key");
  const auto [width, height] = options.resolution(keys, field(row, "text", int64_t{0}));
  Json step;
  if (const auto id = options.step_id()) step = {id->name, Json(id->value)};
  return {{"sigma", or_null(options.sigma())},
          {"cfg_scale", options.cfg_scale(field(runtime, "cfg_scale", 1.0))},
          {"step_id", step},
          {"resolution", {width, height}},
          {"text_tokens", options.text_tokens(keys, field(runtime, "text_tokens_guess", int64_t{77}))},
          {"conditioning_tokens", or_null(options.conditioning_tokens(keys))}};
}

Json sanitised(const Json& value) {
  const io::Json v(value);
  return {{"threshold", host_policy_threshold(v)},
          {"temperature", host_temperature(v)},
          {"policy", host_policy_is_stochastic(v) ? "stochastic" : "threshold"}};
}

Json order_statistics(const Json& row) {
  std::vector<double> values;
  for (const Json& v : list_field(row, "values")) values.push_back(number_or_nan(v));
  const Quartiles q = quartiles(values);
  return {{"quartile_range", {quantile(values, 0.25), quantile(values, 0.75)}},
          {"summary", {{"min", q.min}, {"p25", q.p25}, {"p50", q.p50}, {"p75", q.p75}, {"max", q.max}}}};
}

void run_oom_ladder(const Json& table, Report& report) {
  const auto n = [start = object_field(table, "start")](const char* key) {
    return required<int64_t>(start, key);
  };
  TrainingSizes sizes{n("training_query_token_cap"), n("query_chunk_size"), n("key_chunk_size"),
                      n("landmark_min"), n("landmark_max")};
  run_rows(
      "oom_ladder", list_field(table, "after_each"),
      [&](const Json&) -> Json {
        const bool changed = degrade(sizes);
        return {{"changed", changed},
                {"training_query_token_cap", sizes.query_cap},
                {"query_chunk_size", sizes.query_chunk},
                {"key_chunk_size", sizes.key_chunk},
                {"landmark_max", sizes.landmark_max}};
      },
      report);
}

ReplaySample replay_sample(const Json& push, const Json& table) {
  const auto batch = field(table, "batch", int64_t{1}), heads = field(table, "heads", int64_t{1}),
             d = required<int64_t>(table, "head_dim");
  const auto storage = field<std::string>(table, "storage", "float16");
  const auto dtype = replay_dtype(storage);
  if (!dtype) throw Error(ErrorCode::format, fmt::format("unknown storage '{}'", storage));
  const auto filled = [&](int64_t rows) {
    constexpr int64_t kMost = 4096;
    for (int64_t n : {batch, heads, rows, d}) {
      if (n < 0 || n > kMost)
        throw Error(ErrorCode::format, fmt::format("a replay sample with a size of {}", n));
    }
    const std::vector<float> values(static_cast<size_t>(batch * heads * rows * d), 0.5f);
    return host_tensor(values, {batch, heads, rows, d}, *dtype);
  };
  const auto queries = required<int64_t>(push, "n_query"), keys = required<int64_t>(push, "n_key");
  ReplaySample s;
  s.q_sub = filled(queries);
  s.k_full = filled(keys);
  s.v_full = filled(keys);
  s.teacher_sub = filled(queries);
  if (field(push, "masked", false)) s.key_mask.assign(static_cast<size_t>(batch * keys), 1);
  return s;
}

void run_replay(const Json& table, Report& report) {
  ReplayBuffer replay(required<int64_t>(table, "replay_buffer_size"),
                      required<uint64_t>(table, "replay_max_bytes"));
  size_t row = 0;
  for (const Json& push : list_field(table, "pushes")) {
    replay.push(layer_of_key(required<std::string>(push, "layer")), replay_sample(push, table));
    Json buffers = Json::object(), want = Json::object();
    for (const std::string& layer : replay.layers()) {
      Json created = Json::array();
      for (size_t i = 0; i < replay.size(layer); ++i) created.push_back(replay.at(layer, i).created);
      buffers[layer_key(layer)] = created;
    }
    const Json kept = object_field(push, "buffers");
    for (const auto& [layer, created] : kept.items()) {
      if (!created.empty()) want[layer] = created;
    }
    report.checks.push_back(compare_values(
        fmt::format("replay_eviction[{}]", row++), {{"total_bytes", replay.bytes()}, {"buffers", buffers}},
        {{"total_bytes", required<int64_t>(push, "total_bytes")}, {"buffers", want}}, 0));
  }
}

void run_feature_dims(const Json& rows, Report& report) {
  for (const Json& row : rows) {
    const Json arg = row.value("arg", Json());
    report.checks.push_back(
        check_row(fmt::format("validate_feature_dim({})", io::json_text(arg)), row, [&]() -> Json {
          const auto f = required<int64_t>(row, "arg");
          check_feature_dim(f, FeatureDimRule::reference);
          return f;
        }));
  }
}

void run_memory(const Json& rows, Report& report) {
  for (const Json& row : rows) {
    report.checks.push_back(check_row(fmt::format("estimate_memory_bytes[{}]", report.checks.size()), row,
                                      [&]() -> Json { return memory_of(object_field(row, "args")); }));
  }
}

void run_options(const Json& table, Report& report) {
  const Json runtime = object_field(table, "runtime");
  run_rows(
      "transformer_options", list_field(table, "rows"),
      [&](const Json& row) { return read_options(row, runtime); }, report);
}

void run_selection(const Json& table, Report& report) {
  const Json runtime = object_field(table, "runtime");
  run_rows(
      "layer_selection", list_field(table, "rows"),
      [&](const Json& row) -> Json {
        const CallOptions o{io::Json(row.value("options", Json()))};
        return {{"layer_key", o.layer_key()},
                {"selected", o.selected(field(runtime, "layer_start", int64_t{-1}),
                                        field(runtime, "layer_end", int64_t{-1}))}};
      },
      report);
}

void run_sanitise(const Json& rows, Report& report) {
  run_rows(
      "sanitize", rows, [](const Json& row) { return sanitised(row.value("threshold_in", Json())); }, report);
}
void run_quantiles(const Json& rows, Report& report) {
  run_rows("quantiles", rows, order_statistics, report);
}

void run_alpha_init(const Json& rows, Report& report) {
  run_rows(
      "alpha_init_logit", rows,
      [](const Json& row) -> Json {
        // NaN stays NaN there; our settings refuse it.
        const double a = number_or_nan(row.value("alpha_init", Json()));
        return {{"logit", std::isnan(a) ? a : alpha_logit(a)}};
      },
      report);
}

void run_alpha_migration(const Json& rows, Report& report) {
  run_rows(
      "alpha_migration", rows,
      [](const Json& row) -> Json {
        const auto stored = static_cast<float>(number_or_nan(row.value("stored", Json())));
        return {{"loaded", migrated_alpha(stored, field<std::string>(row, "alpha_format", "raw"))}};
      },
      report);
}

}  // namespace

void run_ttr_readiness(Device&, const Json& file, Report& report) {
  for (const Json& sequence : list_field(file, "sequences")) {
    const auto name = required<std::string>(sequence, "name");
    const Json events = list_field(sequence, "events"), states = list_field(sequence, "state_after_each");
    if (events.size() != states.size()) {
      report.checks.push_back(failed_check(name, "as many states as events are expected"));
      continue;
    }
    ReadinessRun run(sequence);
    for (size_t i = 0; i < events.size(); ++i) {
      run.play(events[i]);
      report.checks.push_back(
          compare_values(fmt::format("{}[{}]", name, i), run.state(), states[i], kEmaTolerance));
    }
    if (const auto pareto = optional_field<Json>(sequence, "pareto_frontier"))
      report.checks.push_back(compare_values(name + ".pareto", run.pareto(), *pareto, kEmaTolerance));
  }
}

void run_ttr_runtime_tables(Device&, const Json& file, Report& report) {
  using Run = void (*)(const Json&, Report&);
  static const std::map<std::string, Run> kRuns{{"validate_feature_dim", run_feature_dims},
                                                {"estimate_memory_bytes", run_memory},
                                                {"transformer_options", run_options},
                                                {"layer_selection", run_selection},
                                                {"sanitize", run_sanitise},
                                                {"quantiles", run_quantiles},
                                                {"oom_ladder", run_oom_ladder},
                                                {"replay_eviction", run_replay},
                                                {"alpha_init_logit", run_alpha_init},
                                                {"alpha_migration", run_alpha_migration}};
  const Json tables = object_field(file, "tables");
  for (const auto& [name, table] : tables.items()) {
    const auto found = kRuns.find(name);
    if (found == kRuns.end()) {
      report.checks.push_back(failed_check(name, "unknown table"));
    } else {
      found->second(table, report);
    }
  }
}

}  // namespace vkflux::verify
