// Tables of sweep utilities, experiment keys and metric names.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <optional>

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
#include "vk/error.h"

namespace vkflux::verify {
namespace {

using Json = nlohmann::json;
using Numbers = std::vector<double>;

// Arguments by position or by name, as the tables write calls.
class Arguments {
 public:
  explicit Arguments(const Json& row) : list_(list_field(row, "args")), named_(object_field(row, "kwargs")) {}
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

// A whole number's decimal digits, from what the reference's int() takes: numbers, booleans, texts.
std::string whole_number(const io::Json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_boolean()) return value.get<bool>() ? "1" : "0";
  if (!value.is_number_float()) return value.dump();
  const double x = std::trunc(value.get<double>());
  if (!std::isfinite(x)) throw Error(ErrorCode::invalid_argument, fmt::format("{} is no whole number", x));
  return fmt::format("{:.0f}", x);
}

Json seeds(const Arguments& a) {
  const BaseSeed seed = parse_base_seed(whole_number(a.at(0, "seed")));
  const std::optional<int64_t> count = as_integer(Json(a.at(1, "count")));
  if (!count) throw Error(ErrorCode::invalid_argument, "the count is no whole number");
  const uint64_t lo = parse_seed_bound(whole_number(a.get(2, "min_value", 0)), "smallest seed");
  const uint64_t hi = parse_seed_bound(whole_number(a.get(3, "max_value", ~uint64_t{0})), "largest seed");
  return seed_batch(seed, *count, lo, hi);
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
    // Only how long the clock is matters, not what it holds.
    const io::Json clock = a.at(0, "clock");
    const size_t length = clock.is_array() ? clock.size() : json_number_list(clock, "clock").size();
    return clocked_values(length, json_number_list(a.at(1, "values"), "values"));
  }
  if (fn == "to_float_list") return json_number_list(a.at(0, "value"), a.get(1, "name", "value"));
  if (fn == "parse_clock_and_values") return clock_and_values(a);
  if (fn == "build_combinations") return all_combinations(a);
  if (fn == "generate_seed_batch") return seeds(a);
  throw Error(ErrorCode::unsupported, fmt::format("unknown function '{}'", fn));
}

// What a file of these contents, or this path, gives.
Json prompts(const Json& row) {
  if (const auto path = optional_field<std::string>(row, "path")) return load_prompt_list(*path);
  const auto file =
      std::filesystem::temp_directory_path() / fmt::format("vkflux_verify_prompts_{}.json", getpid());
  io::atomic_write(file.string(), required<std::string>(row, "file_content"));
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

// The reference's `value or ""`.
std::string text_or_empty(const io::Json& value) {
  return as_flag(Json(value)) == false ? "" : text_of(value);
}

// A size of the table's signed numbers; negative ones count as 0.
size_t size_of(const io::Json& value) {
  return static_cast<size_t>(std::max<int64_t>(0, as_integer(Json(value)).value_or(0)));
}

Json call_key(const std::string& fn, const Arguments& a) {
  if (fn == "normalize_experiment_key" || fn == "normalize_comet_experiment_key") {
    KeyRules rules;
    rules.allow_empty = as_flag(Json(a.get(99, "allow_empty", rules.allow_empty))).value_or(false);
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
    for (const auto& [name, value] : prefixed_metrics(text_or_empty(a.at(0, "prefix")), a.at(1, "metrics")))
      out[name] = value;
    return out;
  }
  if (fn == "should_log_step") {
    const auto whole = [&](size_t position, const char* name) {
      return as_integer(Json(a.get(position, name, 0))).value_or(0);
    };
    return should_log(whole(0, "step"), whole(1, "every"), whole(2, "total_steps"),
                      as_flag(Json(a.get(3, "include_first_step", false))).value_or(false));
  }
  if (fn == "_namespace_key") return metric_namespace(text_or_empty(a.at(0, "namespace")));
  if (fn == "flatten_params") return Json(flatten_parameters(text_of(a.at(0, "prefix")), a.at(1, "params")));
  throw Error(ErrorCode::unsupported, fmt::format("unknown function '{}'", fn));
}

Json random_key_properties(const Json& row) {
  const io::Json arg(row.value("arg", Json()));
  const std::string key = normalise_experiment_key(text_of(arg)),
                    again = normalise_experiment_key(text_of(arg));
  const auto prefix = required<std::string>(row, "prefix");
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
    const auto fn = required<std::string>(row, "fn");
    report.checks.push_back(check_row(fmt::format("{}[{}]", fn, report.checks.size()), row,
                                      [&] { return call(fn, Arguments(row)); }));
  }
}

}  // namespace

void run_ttr_sweep_utils(Device&, const Json& file, Report& report) {
  run_calls(list_field(file, "cases"), call_sweep, report);
  size_t index = 0;
  for (const Json& row : list_field(file, "load_prompt_list_from_json")) {
    report.checks.push_back(
        check_row(fmt::format("load_prompt_list_from_json[{}]", index++), row, [&] { return prompts(row); }));
  }
}

void run_ttr_comet_keys(Device&, const Json& file, Report& report) {
  run_calls(list_field(file, "cases"), call_key, report);
  size_t index = 0;
  for (const Json& row : list_field(file, "empty_key_properties")) {
    Json want = row;
    want.erase("fn");
    want.erase("arg");
    report.checks.push_back(
        compare_values(fmt::format("empty_key[{}]", index++), random_key_properties(row), want, 0));
  }
}

}  // namespace vkflux::verify
