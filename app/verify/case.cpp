#include "app/verify/case.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "model/io/json.h"
#include "vk/error.h"

namespace vkflux::verify {
namespace {

constexpr double kOutputTolerance = 2e-4, kGradTolerance = 1e-3, kZeroTolerance = 1e-5, kReferenceFactor = 10;
constexpr size_t kSample = 2048;

bool starts_with(const std::string& s, const char* p) {
  return s.rfind(p, 0) == 0;
}

nlohmann::json metadata_json(const io::SafetensorsFile& file, const char* key) {
  const auto it = file.metadata().find(key);
  if (it == file.metadata().end()) return nlohmann::json::object();
  return nlohmann::json(io::parse_json(it->second, fmt::format("{}: metadata {}", file.path(), key)));
}

double max_abs(const std::vector<float>& v) {
  double m = 0;
  for (float x : v) m = std::max(m, std::fabs(static_cast<double>(x)));
  return m;
}

// "grad_sample.in.img" -> ("grad.in.img", 's'), "out.step5_stat.w" -> ("out.step5.w", 't'); other names come
// back unchanged.
std::pair<std::string, char> base_name(const std::string& name) {
  const size_t first = name.find('.');
  for (const size_t dot : {first, first == std::string::npos ? first : name.find('.', first + 1)}) {
    if (dot == std::string::npos) continue;
    for (const auto& [suffix, kind] : {std::pair{"_sample", 's'}, std::pair{"_stat", 't'}}) {
      const std::string s(suffix);
      if (dot > s.size() && name.compare(dot - s.size(), s.size(), s) == 0) {
        return {name.substr(0, dot - s.size()) + name.substr(dot), kind};
      }
    }
  }
  return {name, 0};
}

std::vector<float> derived(const std::vector<float>& full, char kind) {
  if (kind == 's') {
    std::vector<float> out;
    const size_t stride = std::max<size_t>(1, full.size() / kSample);
    for (size_t i = 0; i < full.size() && out.size() < kSample; i += stride) out.push_back(full[i]);
    return out;
  }
  if (kind == 't') {
    double sum = 0, squares = 0;
    for (float x : full) {
      sum += x;
      squares += static_cast<double>(x) * x;
    }
    return {static_cast<float>(sum), static_cast<float>(squares), static_cast<float>(max_abs(full))};
  }
  return full;
}

}  // namespace

bool Report::passed() const {
  return error.empty() && !checks.empty() &&
         std::all_of(checks.begin(), checks.end(), [](const Check& c) { return c.passed; });
}

Case::Case(Device& device, const std::string& path) : device_(device), file_(path) {
  const auto& meta = file_.metadata();
  const auto text = [&](const char* key) {
    const auto it = meta.find(key);
    return it == meta.end() ? std::string() : it->second;
  };
  kind_ = text("case");
  if (kind_.empty()) throw Error(ErrorCode::format, path + ": no golden file: its metadata names no case");
  config_ = metadata_json(file_, "config");
  ref_err_ = metadata_json(file_, "f32_ref_err");
  const nlohmann::json worst = metadata_json(file_, "f32_ref_err_worst");
  const auto number = [&](const char* key) {
    return worst.contains(key) && worst[key].is_number() ? worst[key].get<double>() : 0;
  };
  worst_outputs_ = number("outputs");
  worst_grads_ = number("grads");
  std::string other = text("weights_file");
  other.resize(std::min(other.size(), other.find(" (")));  // a remark may follow the name
  if (!other.empty()) {
    if (std::filesystem::path(other).has_parent_path())
      throw Error(ErrorCode::format, path + ": weights_file leaves the folder");
    weights_ =
        std::make_unique<io::SafetensorsFile>((std::filesystem::path(path).parent_path() / other).string());
  }
}

Tensor Case::load(const io::SafetensorsFile& file, const std::string& name) {
  const io::TensorInfo& info = file.info(name);
  const Shape shape(info.shape);
  switch (info.dtype) {
    case io::FileDType::u8:
    case io::FileDType::boolean: {
      const auto bytes = file.read_bytes(name);
      return Tensor::from_bytes(device_, bytes, shape, DType::u8);
    }
    case io::FileDType::i32:
    case io::FileDType::i64:
      return Tensor::from(device_, std::span<const int32_t>(file.read_i32(name)), shape);
    default:
      return Tensor::from(device_, std::span<const float>(file.read_f32(name)), shape);
  }
}

Tensor Case::in(const std::string& name) {
  auto [it, fresh] = loaded_.try_emplace("in." + name);
  if (!fresh) return it->second;
  it->second = load(file_, "in." + name);
  watch("grad.in." + name, it->second);
  return it->second;
}

Tensor Case::weight(const std::string& name) {
  auto [it, fresh] = loaded_.try_emplace("w." + name);
  if (!fresh) return it->second;
  it->second = load(weights(), "w." + name);
  watch("grad." + name, it->second);
  return it->second;
}

void Case::watch(const std::string& gradient, const Tensor& leaf) {
  const std::string rest = gradient.substr(std::string("grad").size());
  if (!file_.has(gradient) && !file_.has("grad_sample" + rest)) return;
  tape_.watch(leaf);
  watched_.emplace_back(gradient, leaf);
}

std::vector<std::string> Case::weight_names(const std::string& prefix) const {
  std::vector<std::string> out;
  for (const auto& [name, info] : weights().tensors()) {
    if (name.rfind("w." + prefix, 0) == 0) out.push_back(name.substr(2 + prefix.size()));
  }
  return out;
}

Shape Case::weight_shape(const std::string& name) const {
  return Shape(weights().info("w." + name).shape);
}

void Case::backward(const std::vector<std::pair<Tensor, std::string>>& outputs) {
  std::vector<std::pair<Tensor, Tensor>> seeds;
  for (const auto& [y, name] : outputs) {
    const Tensor seed = load(file_, "in." + name);
    if (tape_.active(y)) seeds.emplace_back(y, seed.view(y.shape()));
  }
  if (seeds.empty()) return;
  Grads grads;
  tape_.backward(seeds, grads);
  for (const auto& [name, leaf] : watched_) {
    const Tensor g = grads.of(leaf);
    if (g.defined()) got_[name] = g.to_host();
  }
}

void Case::tolerance(const std::string& prefix, double value, bool absolute) {
  tolerances_[prefix] = {value, absolute};
}

std::vector<float> Case::wanted(const std::string& name) const {
  const io::TensorInfo& info = file_.info(name);
  if (info.dtype == io::FileDType::f32 || info.dtype == io::FileDType::f64) return file_.read_f32(name);
  const std::vector<int32_t> ints = file_.read_i32(name);
  return {ints.begin(), ints.end()};
}

Check Case::compare_one(const std::string& name) const {
  const auto [base, kind] = base_name(name);
  const bool grad = starts_with(base, "grad.");
  double reference = grad ? worst_grads_ : worst_outputs_;
  for (const std::string& key : {name, base}) {
    if (ref_err_.contains(key) && ref_err_[key].is_number()) reference = ref_err_[key].get<double>();
  }
  Check c{name,  0,     std::max(grad ? kGradTolerance : kOutputTolerance, kReferenceFactor * reference),
          false, false, ""};
  size_t best = 0;
  for (const auto& [prefix, t] : tolerances_) {
    if ((base.rfind(prefix, 0) == 0 || name.rfind(prefix, 0) == 0) && prefix.size() >= best) {
      best = prefix.size();
      c.tolerance = t.absolute ? t.value : std::max(t.value, t.value > 0 ? kReferenceFactor * reference : 0);
      c.absolute = t.absolute;
    }
  }
  const auto it = got_.find(base);
  if (it == got_.end()) {
    c.note = "not computed";
    c.error = INFINITY;
    return c;
  }
  const std::vector<float> want = wanted(name), got = derived(it->second, kind);
  if (want.size() != got.size()) {
    c.note = fmt::format("{} values, {} expected", got.size(), want.size());
    c.error = INFINITY;
    return c;
  }
  double worst = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    const double e = std::fabs(static_cast<double>(got[i]) - static_cast<double>(want[i]));
    if (!(e <= worst)) worst = std::isfinite(e) ? e : INFINITY;
  }
  const double scale = max_abs(want);
  if (scale == 0 && !c.absolute && c.tolerance > 0) {
    c.absolute = true;
    c.tolerance = std::max(kZeroTolerance, 5 * reference);
  }
  c.error = c.absolute || scale == 0 ? worst : worst / scale;
  c.passed = c.error <= c.tolerance;
  return c;
}

Report Case::compare() const {
  Report r{file_.path(), kind_, "", extra_};
  for (const auto& [name, info] : file_.tensors()) {
    const bool must = starts_with(name, "out") || starts_with(name, "grad");
    // Intermediates help to locate a difference; those that the handler records are held to the same bounds.
    const bool optional = starts_with(name, "mid") && got_.count(base_name(name).first);
    if (must || optional) r.checks.push_back(compare_one(name));
  }
  return r;
}

void Case::dump(const std::string& folder) const {
  std::vector<io::TensorData> tensors;
  for (const auto& [name, values] : got_) {
    std::vector<int64_t> shape{static_cast<int64_t>(values.size())};
    if (file_.has(name)) shape = file_.info(name).shape;
    tensors.push_back(io::tensor_data(name, shape, values));
  }
  const std::string stem = std::filesystem::path(file_.path()).filename().string();
  io::write_safetensors((std::filesystem::path(folder) / stem).string(), tensors, {{"case", kind_}});
}

}  // namespace vkflux::verify
