// Tables of sweep utilities, experiment keys and metric names.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "app/sweep/combinations.h"
#include "app/sweep/number_list.h"
#include "app/sweep/prompt_list.h"
#include "app/sweep/seeds.h"
#include "app/verify/case.h"
#include "app/verify/table_check.h"
#include "model/io/file.h"
#include "model/text/characters.h"
#include "train/experiment_key.h"
#include "train/metric_values.h"
#include "vk/environment.h"
#include "vk/error.h"

namespace vkflux::verify {
namespace {

using Json = nlohmann::json;
using Numbers = std::vector<double>;

// Arguments by position or by name, as the tables write calls.
class Arguments {
 public:
  explicit Arguments(const Json& row) : list_(row.at("args")), named_(row.value("kwargs", Json::object())) {}
  bool has(size_t position, const char* name) const {
    return position < list_.size() || named_.contains(name);
  }
  io::Json at(size_t position, const char* name) const {
    return io::Json(position < list_.size() ? list_[position] : named_.at(name));
  }
  io::Json get(size_t position, const char* name, io::Json fallback) const {
    return has(position, name) ? at(position, name) : fallback;
  }

 private:
  Json list_, named_;
};

Json seeds(const Arguments& a) {
  const uint64_t seed = parse_seed(a.at(0, "seed").dump());
  const int64_t count = a.at(1, "count");
  const uint64_t lo = parse_seed_bound(a.get(2, "min_value", 0).dump(), "smallest seed");
  const uint64_t hi = parse_seed_bound(a.get(3, "max_value", ~uint64_t{0}).dump(), "largest seed");
  return seed_batch(seed, count, lo, hi);
}

Json clock_and_values(const Arguments& a) {
  const Numbers values = json_number_list(a.at(1, "values"), "values");
  return {clock_or_count(json_number_list(a.at(0, "clock"), "clock"), values), values};
}

Json all_combinations(const Arguments& a) {
  std::vector<Numbers> lists;
  for (const io::Json& list : a.at(0, "values")) lists.push_back(json_number_list(list, "values"));
  return combinations(lists);
}

Json call_sweep(const std::string& fn, const Arguments& a) {
  if (fn == "build_clocked_sweep") {
    return clocked_values(json_number_list(a.at(0, "clock"), "clock").size(),
                          json_number_list(a.at(1, "values"), "values"));
  }
  if (fn == "to_float_list") return json_number_list(a.at(0, "value"), a.get(1, "name", "value"));
  if (fn == "parse_clock_and_values") return clock_and_values(a);
  if (fn == "build_combinations") return all_combinations(a);
  if (fn == "generate_seed_batch") return seeds(a);
  throw Error(ErrorCode::unsupported, fmt::format("unknown function '{}'", fn));
}

// What a file of these contents, or this path, gives.
Json prompts(const Json& row) {
  if (row.contains("path")) return load_prompt_list(row["path"]);
  const auto file =
      std::filesystem::path(temporary_folder()) / fmt::format("vkflux_verify_prompts_{}.json", getpid());
  io::atomic_write(file.string(), row.at("file_content").get<std::string>());
  struct Remove {
    const std::filesystem::path& path;
    ~Remove() {
      std::error_code ignored;
      std::filesystem::remove(path, ignored);
    }
  } remove{file};
  return load_prompt_list(file.string());
}

std::string text_of(const io::Json& value) {
  if (value.is_null()) return {};
  if (value.is_boolean()) return value.get<bool>() ? "True" : "False";
  return value.is_string() ? value.get<std::string>() : value.dump();
}

// A size of the table's signed numbers; negative ones count as 0.
size_t size_of(const io::Json& value) {
  return static_cast<size_t>(std::max<int64_t>(0, value.get<int64_t>()));
}

Json call_key(const std::string& fn, const Arguments& a) {
  if (fn == "normalize_experiment_key" || fn == "normalize_comet_experiment_key") {
    KeyRules rules;
    rules.allow_empty = a.get(99, "allow_empty", rules.allow_empty);
    rules.shortest = size_of(a.get(99, "min_len", rules.shortest));
    rules.longest = size_of(a.get(99, "max_len", rules.longest));
    return normalise_experiment_key(text_of(a.at(0, "value")), rules);
  }
  if (fn == "sanitize_metric") {
    const std::optional<double> x = sanitise_metric(a.at(0, "value"));
    return x ? Json(*x) : Json();
  }
  if (fn == "build_prefixed_metrics") {
    Json out = Json::object();
    for (const auto& [name, value] : prefixed_metrics(text_of(a.at(0, "prefix")), a.at(1, "metrics")))
      out[name] = value;
    return out;
  }
  if (fn == "should_log_step") {
    return should_log(a.at(0, "step"), a.at(1, "every"), a.get(2, "total_steps", 0),
                      a.get(3, "include_first_step", false));
  }
  if (fn == "_namespace_key") return metric_namespace(text_of(a.at(0, "namespace")));
  if (fn == "flatten_params") return Json(flatten_parameters(text_of(a.at(0, "prefix")), a.at(1, "params")));
  throw Error(ErrorCode::unsupported, fmt::format("unknown function '{}'", fn));
}

Json random_key_properties(const Json& row) {
  const io::Json arg(row.at("arg"));
  const std::string key = normalise_experiment_key(text_of(arg)),
                    again = normalise_experiment_key(text_of(arg));
  const std::string prefix = row.at("prefix");
  const auto is_hex = [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); };
  const std::u32string characters = to_characters(key);
  return {{"random", key != again},
          {"length", characters.size()},
          {"prefix", key.substr(0, prefix.size())},
          {"alnum", std::all_of(characters.begin(), characters.end(), is_alphanumeric)},
          {"hex_tail_length",
           std::count_if(key.begin() + static_cast<ptrdiff_t>(prefix.size()), key.end(), is_hex)}};
}

using Call = Json (*)(const std::string& fn, const Arguments& arguments);

void run_calls(const Json& rows, Call call, Report& report) {
  for (const Json& row : rows) {
    const std::string fn = row.at("fn");
    report.checks.push_back(check_row(fmt::format("{}[{}]", fn, report.checks.size()), row,
                                      [&] { return call(fn, Arguments(row)); }));
  }
}

}  // namespace

void run_ttr_sweep_utils(Device&, const Json& file, Report& report) {
  run_calls(file.at("cases"), call_sweep, report);
  size_t index = 0;
  for (const Json& row : file.value("load_prompt_list_from_json", Json::array())) {
    report.checks.push_back(
        check_row(fmt::format("load_prompt_list_from_json[{}]", index++), row, [&] { return prompts(row); }));
  }
}

void run_ttr_comet_keys(Device&, const Json& file, Report& report) {
  run_calls(file.at("cases"), call_key, report);
  size_t index = 0;
  for (const Json& row : file.value("empty_key_properties", Json::array())) {
    Json want = row;
    want.erase("fn");
    want.erase("arg");
    report.checks.push_back(
        compare_values(fmt::format("empty_key[{}]", index++), random_key_properties(row), want, 0));
  }
}

}  // namespace vkflux::verify
