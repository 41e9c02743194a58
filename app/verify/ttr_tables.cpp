// Tables of the distillation runtime: readiness over time, routing of calls, and the small laws around them.
#include <fmt/format.h>

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

constexpr double kEmaTolerance = 1e-9, kFloatTolerance = 1e-6;

template <class T>
Json or_null(const std::optional<T>& value) {
  return value ? Json(*value) : Json();
}

// One run of events over a few layers.
class ReadinessRun {
 public:
  explicit ReadinessRun(const Json& sequence) {
    for (const std::string key : sequence.at("layers")) {
      Readiness& r = layers_[layer_of_key(key)];
      r.criteria = {sequence.at("readiness_threshold"), sequence.at("readiness_min_updates")};
    }
    for (auto& [layer, readiness] : layers_) handles_[layer] = &readiness;
  }

  void play(const Json& event) {
    const std::string op = event.at("op");
    if (op == "flush") {
      ema_.flush(handles_);
    } else if (op == "refresh") {
      known(layer_of_key(event.at("layer").get<std::string>())).refresh();
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
    const std::string layer = layer_of_key(event.at("layer").get<std::string>());
    std::optional<double> sigma;
    if (event.contains("sigma") && !event["sigma"].is_null()) sigma = table_number(event["sigma"]);
    if (ema_.begin_call(sigma)) ema_.flush(handles_);
    ema_.add_loss(layer, table_number(event.at("loss")), known(layer));
    ema_.add_similarity(layer, table_number(event.at("cos")));
    if (ema_.flush_due()) ema_.flush(handles_);
  }

  ByLayer<Readiness> layers_;
  ByLayer<Readiness*> handles_;
  RunEma ema_;
};

uint64_t memory_of(const Json& a) {
  return estimate_memory({a.at("batch"), a.at("heads"), a.at("n_query"), a.at("n_key"), a.at("head_dim"),
                          a.at("feature_dim"), a.at("q_chunk_size"), a.at("k_chunk_size"),
                          a.at("landmark_max"), a.at("text_count_estimate"), a.at("dtype_size"),
                          a.at("training")});
}

Json read_options(const Json& row, const Json& runtime) {
  const CallOptions options{io::Json(row.at("options"))};
  const int64_t keys = row.at("n_key");
  const auto [width, height] = options.resolution(keys, row.at("text"));
  Json step;
  if (const auto id = options.step_id()) step = {id->name, Json(id->value)};
  return {{"sigma", or_null(options.sigma())},
          {"cfg_scale", options.cfg_scale(runtime.at("cfg_scale"))},
          {"step_id", step},
          {"resolution", {width, height}},
          {"text_tokens", options.text_tokens(keys, runtime.at("text_tokens_guess"))},
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
  for (const Json& v : row.at("values")) values.push_back(table_number(v));
  const Quartiles q = quartiles(values);
  return {{"quartile_range", {quantile(values, 0.25), quantile(values, 0.75)}},
          {"summary", {{"min", q.min}, {"p25", q.p25}, {"p50", q.p50}, {"p75", q.p75}, {"max", q.max}}}};
}

void run_oom_ladder(const Json& table, Report& report) {
  const Json& start = table.at("start");
  TrainingSizes sizes{start.at("training_query_token_cap"), start.at("query_chunk_size"),
                      start.at("key_chunk_size"), start.at("landmark_min"), start.at("landmark_max")};
  run_rows(
      "oom_ladder", table.at("after_each"),
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
  const int64_t batch = table.at("batch"), heads = table.at("heads"), d = table.at("head_dim");
  const auto dtype = replay_dtype(table.at("storage"));
  if (!dtype) throw Error(ErrorCode::format, fmt::format("unknown storage {}", table.at("storage").dump()));
  const auto filled = [&](int64_t rows) {
    constexpr int64_t kMost = 4096;
    for (int64_t n : {batch, heads, rows, d}) {
      if (n < 0 || n > kMost)
        throw Error(ErrorCode::format, fmt::format("a replay sample with a size of {}", n));
    }
    const std::vector<float> values(static_cast<size_t>(batch * heads * rows * d), 0.5f);
    return host_tensor(values, {batch, heads, rows, d}, *dtype);
  };
  const int64_t queries = push.at("n_query"), keys = push.at("n_key");
  ReplaySample s;
  s.q_sub = filled(queries);
  s.k_full = filled(keys);
  s.v_full = filled(keys);
  s.teacher_sub = filled(queries);
  if (push.at("masked").get<bool>()) s.key_mask.assign(static_cast<size_t>(batch * keys), 1);
  return s;
}

void run_replay(const Json& table, Report& report) {
  ReplayBuffer replay(table.at("replay_buffer_size"), table.at("replay_max_bytes"));
  size_t row = 0;
  for (const Json& push : table.at("pushes")) {
    replay.push(layer_of_key(push.at("layer").get<std::string>()), replay_sample(push, table));
    Json buffers = Json::object(), want = Json::object();
    for (const std::string& layer : replay.layers()) {
      Json created = Json::array();
      for (size_t i = 0; i < replay.size(layer); ++i) created.push_back(replay.at(layer, i).created);
      buffers[layer_key(layer)] = created;
    }
    for (const auto& [layer, created] : push.at("buffers").items()) {
      if (!created.empty()) want[layer] = created;
    }
    report.checks.push_back(compare_values(fmt::format("replay_eviction[{}]", row++),
                                           {{"total_bytes", replay.bytes()}, {"buffers", buffers}},
                                           {{"total_bytes", push.at("total_bytes")}, {"buffers", want}}, 0));
  }
}

void run_feature_dims(const Json& rows, Report& report) {
  for (const Json& row : rows) {
    const int64_t f = row.at("arg");
    report.checks.push_back(check_row(fmt::format("validate_feature_dim({})", f), row, [&]() -> Json {
      check_feature_dim(f, FeatureDimRule::reference);
      return f;
    }));
  }
}

void run_memory(const Json& rows, Report& report) {
  for (const Json& row : rows) {
    report.checks.push_back(check_row(fmt::format("estimate_memory_bytes[{}]", report.checks.size()), row,
                                      [&]() -> Json { return memory_of(row.at("args")); }));
  }
}

void run_options(const Json& table, Report& report) {
  const Json& runtime = table.at("runtime");
  run_rows(
      "transformer_options", table.at("rows"), [&](const Json& row) { return read_options(row, runtime); },
      report);
}

void run_selection(const Json& table, Report& report) {
  const Json& runtime = table.at("runtime");
  run_rows(
      "layer_selection", table.at("rows"),
      [&](const Json& row) -> Json {
        const CallOptions o{io::Json(row.at("options"))};
        return {{"layer_key", o.layer_key()},
                {"selected", o.selected(runtime.at("layer_start"), runtime.at("layer_end"))}};
      },
      report);
}

void run_sanitise(const Json& rows, Report& report) {
  run_rows(
      "sanitize", rows, [](const Json& row) { return sanitised(row.at("threshold_in")); }, report);
}
void run_quantiles(const Json& rows, Report& report) {
  run_rows("quantiles", rows, order_statistics, report);
}

void run_alpha_init(const Json& rows, Report& report) {
  run_rows(
      "alpha_init_logit", rows,
      [](const Json& row) -> Json {
        return {{"logit", alpha_logit(static_cast<float>(table_number(row.at("alpha_init"))))}};
      },
      report);
}

void run_alpha_migration(const Json& rows, Report& report) {
  run_rows(
      "alpha_migration", rows,
      [](const Json& row) -> Json {
        const Json& format = row.at("alpha_format");
        const auto stored = static_cast<float>(table_number(row.at("stored")));
        return {{"loaded", migrated_alpha(stored, format.is_null() ? "raw" : format.get<std::string>())}};
      },
      report);
}

}  // namespace

void run_ttr_readiness(Device&, const Json& file, Report& report) {
  for (const Json& sequence : file.at("sequences")) {
    const std::string name = sequence.at("name");
    const Json& events = sequence.at("events");
    const Json& states = sequence.at("state_after_each");
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
    report.checks.push_back(
        compare_values(name + ".pareto", run.pareto(), sequence.at("pareto_frontier"), kEmaTolerance));
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
  for (const auto& [name, table] : file.at("tables").items()) {
    const auto found = kRuns.find(name);
    if (found == kRuns.end()) {
      report.checks.push_back(failed_check(name, "unknown table"));
    } else {
      found->second(table, report);
    }
  }
}

}  // namespace vkflux::verify
