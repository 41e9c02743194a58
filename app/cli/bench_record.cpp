#include "app/cli/bench_record.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <cmath>

#include "app/cli/cli.h"
#include "model/io/file.h"
#include "model/io/json.h"
#include "vk/error.h"

namespace vkflux::cli {
namespace {

using Json = nlohmann::ordered_json;

Json to_json(const bench::Peaks& p) {
  return {{"gflops", p.gflops}, {"gbs", p.gbs}};
}

Json to_json(const bench::Row& r) {
  Json j{{"name", r.name},       {"shape", r.shape},         {"dtype", r.dtype}, {"variant", r.variant},
         {"ms", r.median_ms},    {"gflops", r.gflops},       {"gbs", r.gbs},     {"share", r.share},
         {"p10_ms", r.p10_ms},   {"p90_ms", r.p90_ms},       {"flops", r.flops}, {"bytes", r.bytes},
         {"repeats", r.repeats}, {"peaks", to_json(r.peaks)}};
  if (r.checked) {
    // JSON has no infinity: null is a result that wasn't finite.
    j["max_error"] = std::isfinite(r.max_error) ? Json(r.max_error) : Json(nullptr);
    j["tolerance"] = r.tolerance;
  }
  return j;
}

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) out += c == '"' ? std::string("\"\"") : std::string(1, c);
  return out + "\"";
}

}  // namespace

Json to_json(const BenchRecord& record) {
  Json rows = Json::array();
  for (const bench::Row& r : record.rows) rows.push_back(to_json(r));
  return {{"device", record.device},
          {"class", record.device_class},
          {"driver", record.driver},
          {"peaks", to_json(record.peaks)},
          {"rows", rows}};
}

std::string to_csv(const BenchRecord& record) {
  std::string out =
      "name,shape,dtype,variant,ms,p10_ms,p90_ms,gflops,gbs,share,flops,bytes,repeats,max_error\n";
  for (const bench::Row& r : record.rows) {
    out += fmt::format("{},{},{},{},{},{},{},{},{},{},{},{},{},{}\n", quoted(r.name), quoted(r.shape),
                       r.dtype, quoted(r.variant), r.median_ms, r.p10_ms, r.p90_ms, r.gflops, r.gbs, r.share,
                       r.flops, r.bytes, r.repeats, r.checked ? fmt::format("{}", r.max_error) : "");
  }
  return out;
}

int verdict(const BenchRecord& record) {
  int code = kOk;
  for (const bench::Row& r : record.rows) {
    if (r.right()) continue;
    spdlog::error("{} {} {}: the result is off by {:.3g} of its size, {:.3g} is allowed (kernels: {})",
                  r.name, r.shape, r.dtype, r.max_error, r.tolerance, r.variant);
    code = kVerificationFailed;
  }
  return code;
}

EarlierRecord::EarlierRecord(const std::string& path) {
  const ErrorContext context("--compare " + path);
  const io::Json j = io::parse_json(io::read_file(path), path);
  const auto wrong = [](const std::string& what) {
    return Error(ErrorCode::format, what + "; a file that `vkflux bench --json` wrote is needed");
  };
  const auto text = [&](const io::Json& object, const char* key, const std::string& where) {
    if (!object.is_object() || !object.contains(key) || !object.at(key).is_string())
      throw wrong(fmt::format("{} has no text \"{}\"", where, key));
    return object.at(key).get<std::string>();
  };
  device_ = text(j, "device", "it");
  if (!j.contains("rows") || !j.at("rows").is_array()) throw wrong("it has no list \"rows\"");
  for (size_t i = 0; i < j.at("rows").size(); ++i) {
    const io::Json& row = j.at("rows")[i];
    const std::string where = fmt::format("row {}", i);
    const std::string name = text(row, "name", where), shape = text(row, "shape", where);
    const std::string dtype = text(row, "dtype", where);
    if (!row.contains("ms") || !row.at("ms").is_number() || !(row.at("ms").get<double>() > 0))
      throw wrong(where + " has no positive number \"ms\"");
    ms_[{name, shape, dtype}] = row.at("ms").get<double>();
  }
}

double EarlierRecord::ms(const bench::Row& row) const {
  const auto it = ms_.find({row.name, row.shape, row.dtype});
  return it == ms_.end() ? 0 : it->second;
}

}  // namespace vkflux::cli
