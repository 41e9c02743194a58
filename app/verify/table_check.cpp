#include "app/verify/table_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "app/verify/options.h"
#include "model/io/json.h"
#include "vk/error.h"

namespace vkflux::verify {
namespace {

using Json = nlohmann::json;

constexpr size_t kShown = 120;  // characters of a value in a note

// Texts that stand for numbers: some writers make texts of all, others of those that JSON can't hold.
bool is_number_word(const Json& value) {
  if (!value.is_string()) return false;
  return as_number(value).has_value();
}

class Comparison {
 public:
  explicit Comparison(Check& check) : check_(check) {}

  void values(const Json& got, const Json& want, const std::string& at) {
    if (got.is_number() && (want.is_number() || is_number_word(want))) return numbers(got, want, at);
    // The reference's whole numbers may be true and false.
    if (got.is_number_integer() && want.is_boolean()) return numbers(got, want.get<bool>() ? 1 : 0, at);
    if (got.type() != want.type()) return differ(got, want, at);
    if (want.is_array()) return arrays(got, want, at);
    if (want.is_object()) return objects(got, want, at);
    if (got != want) differ(got, want, at);
  }

 private:
  void numbers(const Json& got, const Json& want, const std::string& at) {
    if (got.is_number_integer() && want.is_number_integer()) {
      if (got != want) differ(got, want, at);
      return;
    }
    const double a = got.get<double>(), b = number_or_nan(want);
    if (a == b || (std::isnan(a) && std::isnan(b))) return;
    const double error = b == 0 ? std::fabs(a) : std::fabs(a - b) / std::fabs(b);
    if (std::isfinite(error)) check_.error = std::max(check_.error, error);
    if (!(error <= check_.tolerance)) differ(got, want, at);
  }
  void arrays(const Json& got, const Json& want, const std::string& at) {
    if (got.size() != want.size()) return differ(got, want, at);
    for (size_t i = 0; i < want.size(); ++i) values(got[i], want[i], fmt::format("{}[{}]", at, i));
  }
  void objects(const Json& got, const Json& want, const std::string& at) {
    for (const auto& [key, value] : want.items()) {
      if (!got.contains(key)) return differ(got, want, at + "." + key);
      values(got[key], value, at + "." + key);
    }
    if (got.size() != want.size()) differ(got, want, at);
  }
  void differ(const Json& got, const Json& want, const std::string& at) {
    check_.passed = false;
    if (!check_.note.empty()) return;
    check_.note = fmt::format("{}{} instead of {}", at.empty() ? "" : at + ": ",
                              io::json_text(got).substr(0, kShown), io::json_text(want).substr(0, kShown));
  }

  Check& check_;
};

bool is_error_kind(const std::string& type, ErrorCode code) {
  if (type == "FileNotFoundError") return code == ErrorCode::io;
  if (type == "ValueError" || type == "TypeError")
    return code == ErrorCode::invalid_argument || code == ErrorCode::format;
  return false;
}

}  // namespace

Check compare_values(const std::string& name, const Json& got, const Json& want, double tolerance) {
  Check check{name, 0, tolerance, false, true, ""};
  Comparison(check).values(got, want, "");
  return check;
}

Check check_row(const std::string& name, const Json& row, const std::function<Json()>& fn, double tolerance) {
  const bool must_fail = optional_field<Json>(row, "error").has_value();
  try {
    const Json got = fn();
    if (must_fail)
      return failed_check(name, fmt::format("{} instead of an error", io::json_text(got).substr(0, kShown)));
    return compare_values(name, got, row.value("result", Json()), tolerance);
  } catch (const Error& e) {
    if (!must_fail) return failed_check(name, e.what());
    const auto type = required<std::string>(required<Json>(row, "error"), "type");
    if (is_error_kind(type, e.code())) return {name, 0, 0, false, true, ""};
    return failed_check(name, fmt::format("'{}' instead of a {}", e.what(), type));
  }
}

void run_rows(const std::string& name, const nlohmann::json& rows,
              const std::function<nlohmann::json(const nlohmann::json&)>& fn, Report& report,
              double tolerance) {
  for (size_t i = 0; i < rows.size(); ++i) {
    const std::string row = fmt::format("{}[{}]", name, i);
    try {
      const nlohmann::json got = fn(rows[i]);
      nlohmann::json want = nlohmann::json::object();
      for (const auto& item : got.items()) want[item.key()] = rows[i].value(item.key(), Json());
      report.checks.push_back(compare_values(row, got, want, tolerance));
    } catch (const Error& e) {
      if (e.code() == ErrorCode::device_lost) throw;
      report.checks.push_back(failed_check(row, e.what()));
    }
  }
}

Check failed_check(const std::string& name, const std::string& why) {
  return {name, std::numeric_limits<double>::infinity(), 0, false, false, why};
}

Check number_check(const std::string& name, double got, double want, double tolerance, double floor) {
  Check k;
  k.tensor = name;
  k.tolerance = tolerance;
  const bool same = got == want || (std::isnan(got) && std::isnan(want));
  k.error = same ? 0 : std::fabs(got - want) / std::max(std::fabs(want), floor);
  k.passed = k.error <= tolerance;
  return k;
}

}  // namespace vkflux::verify
