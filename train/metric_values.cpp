#include "train/metric_values.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "model/io/json.h"
#include "model/text/characters.h"

namespace vkflux {
namespace {

bool is_secret(const std::string& name) {
  constexpr std::string_view kSuffix = "api_key";
  return name.size() >= kSuffix.size() &&
         name.compare(name.size() - kSuffix.size(), kSuffix.size(), kSuffix) == 0;
}

// Words as in the reference's logs, so that parameters of old and new runs compare.
std::string item_text(const io::Json& item) {
  if (item.is_string()) return item.get<std::string>();
  if (item.is_boolean()) return item.get<bool>() ? "True" : "False";
  return item.is_null() ? "None" : io::json_text(item);
}

std::string list_text(const io::Json& list) {
  std::string out;
  for (size_t i = 0; i < list.size(); ++i) {
    if (i > 0) out += ',';
    out += item_text(list[i]);
  }
  return out;
}

void flatten(const std::string& prefix, const io::Json& object, io::Json& out) {
  for (const auto& [name, value] : object.items()) {
    if (is_secret(name)) continue;
    const std::string path = prefix.empty() ? name : prefix + "." + name;
    if (value.is_object()) {
      flatten(path, value, out);
    } else {
      out[path] = value.is_array() ? io::Json(list_text(value)) : value;
    }
  }
}

}  // namespace

std::optional<double> sanitise_metric(const io::Json& value) {
  std::optional<double> x;
  if (value.is_boolean()) {
    x = value.get<bool>() ? 1.0 : 0.0;
  } else if (value.is_number()) {
    x = value.get<double>();
  } else if (value.is_string()) {
    x = parse_number(value.get<std::string>());
  }
  return x && std::isfinite(*x) ? x : std::nullopt;
}

Metrics prefixed_metrics(std::string_view prefix, const io::Json& values) {
  const std::string front(trim(prefix));
  Metrics out;
  for (const auto& [name, value] : values.items()) {
    const std::optional<double> x = sanitise_metric(value);
    if (x) out.emplace_back(front.empty() ? name : front + "/" + name, *x);
  }
  return out;
}

bool should_log(int64_t step, int64_t every, int64_t total, bool first) {
  if (step <= 0) return false;
  if (first && step == 1) return true;
  return step % std::max<int64_t>(1, every) == 0 || (total > 0 && step >= total);
}

std::string metric_namespace(std::string_view text) {
  const std::string_view name = trim(text);
  return name.empty() ? "default" : std::string(name);
}

io::Json flatten_parameters(std::string_view prefix, const io::Json& object) {
  io::Json out = io::Json::object();
  flatten(std::string(prefix), object, out);
  return out;
}

}  // namespace vkflux
